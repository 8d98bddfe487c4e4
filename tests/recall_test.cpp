// What of an earlier life still holds.
#include "pup/runtime/recall.hpp"

#include "pup/runtime/host.hpp"
#include "pup/runtime/place.hpp"

#include "catch.hpp"
#include "child_process.hpp"

#include <sys/stat.h>

using namespace pup;
using namespace std::chrono_literals;

namespace {

using found = std::variant<std::optional<saved_state>, std::string>;

process_spec cluster(const std::string& id, std::uint32_t instances,
                     std::uint16_t start_port) {
  process_spec result;
  result.id = id;
  result.argv = {"work"};
  result.ready = ready_condition::port;
  result.cluster.emplace();
  result.cluster->instances = instances;
  result.cluster->start_port = start_port;
  result.source.value = 7;
  return result;
}

pup_spec shop() {
  pup_spec result;
  result.processes = {cluster("web", 2, 8000), cluster("api", 2, 8010)};
  return result;
}

wanted_state scaled(std::uint32_t to) {
  wanted_state result;
  result.desired = to;
  result.last_life = 40;
  for (std::uint32_t n = 1; n <= to; ++n)
    result.records.push_back({n, n, false, {}});
  return result;
}

saved_state killed(const pup_spec& spec) {
  saved_state result;
  result.boot = "today";
  result.config = "/srv/shop.json";
  for (const auto& x : spec.processes) {
    result.units[x.id] = saved_from(scaled(5));
    result.units[x.id].mark = x.source.value;
  }
  return result;
}

recollection recalled(const pup_spec& spec, const found& x,
                      const std::string& boot = "today",
                      const std::string& config = "/srv/shop.json") {
  return recall(spec, config, boot, x);
}

}  // namespace

TEST_CASE("recall: what a unit keeps survives its spelling in the file") {
  auto x = scaled(4);
  x.listening = false;
  x.records[0].restarting = {{time_point{5ns}, time_point{70s}}, 3, 2};
  x.records[1].blocked = true;
  x.records[3].blocked = true;
  x.resting = {{2, true, run_state::exhausted, "exited with code 1", true},
               {3, false, run_state::stopped, "", false}};
  x.clock_seen = std::chrono::sys_seconds{77s};
  CHECK(saved_from(x).mark == 0);
  x.spec = std::make_shared<const process_spec>(cluster("web", 1, 8000));
  const auto saved = saved_from(x);
  CHECK(saved.mark == 7);
  x.spec = nullptr;
  const auto text = encode([&] {
    saved_state state;
    state.units["web"] = saved;
    return state;
  }());
  const auto read = std::get<saved_state>(decode(text));
  CHECK(wanted_from(read.units.at("web"), true) == x);
}

TEST_CASE("recall: on another boot only what people decided holds") {
  auto x = scaled(4);
  x.records[0].restarting = {{time_point{5ns}}, 3, 0};
  x.records[2].blocked = true;
  x.resting = {{1, true, run_state::exhausted, "exited with code 1", false},
               {2, false, run_state::stopped, "", false},
               {3, true, run_state::blocked, "blocked", true},
               {4, true, run_state::finished, "", false}};
  const auto later = wanted_from(saved_from(x), false);
  CHECK(later.desired == 4);
  REQUIRE(later.resting.size() == 2);
  CHECK(later.resting[0] == x.resting[1]);
  CHECK(later.resting[1] == x.resting[2]);
  REQUIRE(later.records.size() == 4);
  CHECK(later.records[0] == wanted_state::slot_record{1, 0, false, {}});
  CHECK(later.records[2].blocked);
}

TEST_CASE("recall: a killed supervisor's counts, not a terminated one's") {
  const auto spec = shop();
  auto state = killed(spec);
  const auto resumed = recalled(spec, found{state});
  CHECK(resumed.kept.at("web") == scaled(5));
  CHECK(resumed.kept.at("api").desired == 5);
  CHECK(resumed.warnings.empty());
  CHECK(resumed.notes.empty());
  state.on_purpose = true;
  CHECK(recalled(spec, found{state}).kept.empty());
  CHECK(recalled(spec, found{std::nullopt}).kept.empty());
}

TEST_CASE("recall: the boot decides what is of today") {
  const auto spec = shop();
  const auto state = killed(spec);
  CHECK(recalled(spec, found{state}).kept.at("web").records[0].restarts == 1);
  for (const auto* boot : {"tomorrow", ""}) {
    const auto later = recalled(spec, found{state}, boot);
    CHECK(later.kept.at("web").desired == 5);
    CHECK(later.kept.at("web").records[0].restarts == 0);
  }
}

TEST_CASE("recall: an entry that has changed begins as it says") {
  auto spec = shop();
  const auto state = killed(spec);
  spec.processes[0].source.value = 8;
  const auto resumed = recalled(spec, found{state});
  CHECK(resumed.kept.count("web") == 0);
  CHECK(resumed.kept.at("api").desired == 5);
  CHECK(resumed.notes
        == std::vector<std::string>{
            "'web' has changed in the configuration, and begins as that says"});
  spec.processes[0].id = "new";
  CHECK(recalled(spec, found{state}).kept.size() == 1);
}

TEST_CASE("recall: another file is another matter") {
  const auto spec = shop();
  const auto other = recalled(spec, found{killed(spec)}, "today", "/tmp/x");
  CHECK(other.kept.empty());
  REQUIRE(other.notes.size() == 1);
  CHECK(other.notes.front().find("'/srv/shop.json'") != std::string::npos);
}

TEST_CASE("recall: old counts that do not fit beside new ports are dropped") {
  auto spec = shop();
  const auto state = killed(spec);
  spec.processes[1].cluster->start_port = 8004;  // that of web-5
  spec.processes[1].source.value = 8;
  const auto resumed = recalled(spec, found{state});
  CHECK(resumed.kept.empty());
  REQUIRE(resumed.warnings.size() == 1);
  CHECK(resumed.warnings.front().find("8004") != std::string::npos);
}

TEST_CASE("recall: nobody guesses what a damaged file meant") {
  const auto resumed = recalled(shop(), found{std::string{"state: is torn"}});
  CHECK(resumed.kept.empty());
  REQUIRE(resumed.warnings.size() == 1);
  CHECK(resumed.warnings.front().starts_with("state: is torn; "));
}

TEST_CASE("recall: numbers that no pup has written are not believed") {
  const auto spec = shop();
  auto state = killed(spec);
  state.units.at("web").desired = 2'000;
  CHECK(recalled(spec, found{state}).kept.count("web") == 0);
  state = killed(spec);
  state.units.at("web").slots[5'000] = {};
  CHECK(recalled(spec, found{state}).kept.count("web") == 0);
  state = killed(spec);
  state.units.at("web").slots[1].rest = "dancing";
  CHECK(recalled(spec, found{state}).kept.count("web") == 0);
}

TEST_CASE("recall: until when the clock was heeded, however it ended") {
  auto spec = shop();
  for (auto& x : spec.processes)
    x.cron = "*/10 * * * *";
  auto state = killed(spec);
  state.units.at("web").clock_seen = 600;
  const auto at = [](std::chrono::seconds x) {
    return std::chrono::sys_seconds{x};
  };
  const auto clocks = [&](const pup_spec& of) {
    return recalled(of, found{state}, "tomorrow").clocks;
  };
  const std::map<std::string, std::chrono::sys_seconds> web{{"web", at(600s)}};
  CHECK(clocks(spec) == web);
  state.on_purpose = true;
  CHECK(clocks(spec) == web);
  for (auto& [number, slot] : state.units.at("web").slots)
    slot.blocked = number != 1;
  CHECK(clocks(spec) == web);
  SECTION("who was blocked has missed nothing") {
    state.units.at("web").slots.at(1).blocked = true;
    CHECK(clocks(spec).empty());
  }
  SECTION("an entry that has changed has another past") {
    spec.processes[0].source.value = 8;
    CHECK(clocks(spec).empty());
  }
  SECTION("one without cron has no runs to miss") {
    spec.processes[0].cron.clear();
    CHECK(clocks(spec).empty());
  }
  SECTION("another file") {
    CHECK(recalled(spec, found{state}, "today", "/tmp/x").clocks.empty());
  }
}

SCENARIO("two hosts never share a state folder") {
  const pup::test::temporary_folder folder;
  caf::actor_system_config config;
  add_message_types(config);
  caf::actor_system sys{config};
  pup_spec spec;
  spec.name = "embedded";
  spec.processes.emplace_back();
  spec.processes[0].id = "a";
  spec.processes[0].argv = {"sleep", "1000"};
  spec.processes[0].autostart = false;
  const auto options = [&] {
    host_options result;
    result.state_folder = folder.path();
    return result;
  };
  {
    host first{sys, spec, options()};
    CHECK_THROWS_AS((host{sys, spec, options()}), std::runtime_error);
    CHECK(std::holds_alternative<place_error>(
        lock_state(folder.path(), "another")));
    first.stop();
  }
  // Files in it are found by their names.
  REQUIRE(::chmod(folder.path().c_str(), 0777) == 0);
  auto logging = options();
  logging.state_folder.clear();
  logging.log_folder = folder.path() + "/log";
  const auto refusal = [&](host_options of) {
    try {
      host{sys, spec, std::move(of)}.stop();
      return std::string{};
    } catch (const std::runtime_error& error) {
      return std::string{error.what()};
    }
  };
  const std::string expected = "others may write to it";
  CHECK(refusal(options()).find(expected) != std::string::npos);
  CHECK(refusal(std::move(logging)).find(expected) != std::string::npos);
  REQUIRE(::chmod(folder.path().c_str(), 0700) == 0);
  host second{sys, spec, options()};
  CHECK(second.control());
  second.stop();
}
