// pup upgrade: another program takes the place of the supervisor, and nothing
// that it runs, and nobody that it serves, notices.
#include "catch.hpp"
#include "load_clients.hpp"
#include "system.hpp"

#include <csignal>
#include <filesystem>
#include <optional>
#include <sstream>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

/// The one that answers.
pid_t supervisor(const sandbox& box) {
  return box.status().at("pid").to_number<pid_t>();
}

/// Of all instances, by id.
std::map<std::string, pid_t> pids(const sandbox& box) {
  std::map<std::string, pid_t> result;
  const auto status = box.status();
  for (const auto& x : status.at("processes").as_array()) {
    const auto& unit = x.as_object();
    if (!unit.contains("instances")) {
      result[unit.at("id").as_string().c_str()] =
          unit.at("pid").to_number<pid_t>();
      continue;
    }
    for (const auto& y : unit.at("instances").as_array())
      result[y.at("id").as_string().c_str()] = y.at("pid").to_number<pid_t>();
  }
  return result;
}

std::string warnings(const sandbox& box) {
  std::string result;
  const auto status = box.status();
  for (const auto& x : status.at("warnings").as_array())
    result += std::string{x.as_string().c_str()} + '\n';
  return result;
}

bool contains(const std::string& text, const std::string& what) {
  return text.find(what) != std::string::npos;
}

std::string inheriting(const port_range& ports, std::uint16_t first) {
  return R"({"id": "web-inh", "cmd": [")" PUP_HTTP_SERVER
         R"("], "cluster": {"instances": 2, "mode": "inherit", "commonPort": )"
         + std::to_string(ports[first]) + R"(, "startPort": )"
         + std::to_string(ports[static_cast<std::uint16_t>(first + 1)]) + "}}";
}

/// A world whose pup can be replaced.
struct installed : sandbox {
  installed() {
    install_pup();
  }

  command_line installed_pup(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), pup_program);
    return program(std::move(arguments));
  }

  void start() const {
    const auto started = run(installed_pup({"start", "config.json"}));
    CHECK(started.err == "");
    REQUIRE(started.code == 0);
  }

  /// What stands there now is not pup.
  void replace_pup(const std::string& script) {
    const auto path = write("bin/pup.new", script);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    std::filesystem::rename(path, pup_program);
  }
};

}  // namespace

SCENARIO("an upgrade under load: no request fails, no process is restarted") {
  installed box;
  const port_range ports{12};
  // Numbers its lines, and is mostly in the middle of one.
  const std::string ticker = R"({"id": "ticker", "cmd":
    "i=0; while :; do i=$((i+1)); printf 'li'; sleep 0.01; echo ne $i; done"})";
  box.write("config.json",
            config({web(ports, 3), inheriting(ports, 6), ticker}));
  box.start();
  REQUIRE(box.pup({"scale", "web", "4"}).code == 0);
  const auto before = pids(box);
  const auto guardian = only(box.guardians());
  connection kept{endpoint{ports[0], "127.0.0.1", {}}};
  const auto same = kept.get().body;
  connection slow{endpoint{ports[0], "127.0.0.1", {}}};
  load proxied{ports[0]};
  load inherited{ports[6]};
  REQUIRE(proxied.serves(50));
  REQUIRE(inherited.serves(50));
  slow.ask("/slow?ms=2000");

  auto former = supervisor(box);
  for (int round = 0; round < 2; ++round) {
    box.install_pup();
    const auto upgraded = box.pup({"upgrade"});
    CHECK(upgraded.err == "");
    CHECK(upgraded.code == 0);
    const auto now = supervisor(box);
    CHECK(now != former);
    CHECK(contains(upgraded.out, "pid " + std::to_string(now) + ", was pid "
                                     + std::to_string(former)));
    CHECK(pids(box) == before);
    CHECK(only(box.guardians()) == guardian);
    REQUIRE(proxied.serves(200));
    REQUIRE(inherited.serves(200));
    former = now;
  }
  check_outcome("proxy", proxied.end());
  check_outcome("inherit", inherited.end());
  CHECK(slow.answer().status == 200);
  // The first supervisor carries this one, and nothing else; the second ended
  // with its last connection.
  CHECK(wait_until([&] { return box.supervisors().size() == 2; }));
  CHECK(kept.get().body == same);
  { const std::pair gone{std::move(kept), std::move(slow)}; }
  CHECK(wait_until([&] { return box.supervisors().size() == 1; }));

  // No line was lost, doubled or torn.
  REQUIRE(box.pup({"stop", "ticker"}).code == 0);
  std::istringstream lines{
      box.pup({"logs", "--id", "ticker", "-n", "1000000"}).out};
  long expected = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!contains(line, " stdout ") || line.ends_with(" li"))  // the stop
      continue;
    INFO(line);
    const auto at = line.find(" line ");
    REQUIRE(at != std::string::npos);
    CHECK(std::stol(line.substr(at + 6)) == ++expected);
  }
  CHECK(expected > 50);
  // Everything can still be changed.
  CHECK(box.pup({"scale", "web", "2"}).code == 0);
  CHECK(box.pup({"restart", "web-inh"}).code == 0);
  CHECK(who(ports[0]).starts_with("web-"));
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(box.running().empty());
  CHECK(box.end() == "");
}

SCENARIO("what is on the disk is no pup: the former program goes on") {
  installed box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 2)}));
  box.start();
  const auto before = pids(box);
  const auto former = supervisor(box);
  std::optional<load> clients{ports[0]};
  REQUIRE(clients->serves(50));
  std::string how;
  SECTION("it ends") {
    box.replace_pup("#!/bin/sh\nexit 3\n");
    how = "exited with code 3";
  }
  SECTION("it cannot be executed") {
    box.replace_pup("nothing");
    how = "Exec format error";
  }
  SECTION("it does nothing") {
    clients.reset();  // they would have to wait for guard::come_up_timeout
    box.replace_pup("#!/bin/sh\nexec sleep 1000\n");
    how = "killed by SIGKILL";
  }
  const auto upgraded = box.pup({"upgrade"});
  CHECK(upgraded.code == 1);
  CHECK(contains(upgraded.err, "did not come up"));
  CHECK(contains(upgraded.err, "the program from before goes on"));
  CHECK(supervisor(box) != former);
  CHECK(contains(warnings(box), how));
  CHECK(pids(box) == before);
  if (clients) {
    REQUIRE(clients->serves(50));
    check_outcome("refused upgrade", clients->end());
  }
  CHECK(who(ports[0]).starts_with("web-"));
  CHECK(wait_until([&] { return box.supervisors().size() == 1; }));

  // A lost supervisor is replaced all the same, and a mended program is taken.
  const auto lost = supervisor(box);
  REQUIRE(::kill(lost, SIGKILL) == 0);
  CHECK(wait_until([&] { return box.pup({"status"}).code == 0; }));
  box.install_pup();
  const auto mended = box.pup({"upgrade"});
  CHECK(mended.err == "");
  CHECK(mended.code == 0);
  CHECK(warnings(box) == "");
  CHECK(pids(box) == before);
  CHECK(box.end() == "");
}

SCENARIO("what a program has noted that did not come up is dropped") {
  installed box;
  const port_range ports{6};
  box.write(
      "config.json",
      config({web(ports, 2), R"({"id": "mortal", "cmd": ["sleep", "1000"]})"}));
  box.start();
  REQUIRE(box.pup({"scale", "web", "3"}).code == 0);
  auto before = pids(box);
  const auto former = supervisor(box);
  box.replace_pup("#!/bin/sh\nexec " PUP_NEWER "\n");
  const auto upgraded = box.pup({"upgrade"});
  CHECK(upgraded.code == 1);
  CHECK(contains(upgraded.err, "the program from before goes on"));
  CHECK(supervisor(box) != former);
  CHECK(contains(warnings(box), "exited with code 9"));
  // Scaled as it was; the end that was acted upon in vain is judged again.
  REQUIRE(box.pup({"start", "mortal"}).code == 0);
  auto after = pids(box);
  CHECK(before.at("mortal") != after.at("mortal"));
  CHECK(box.unit("mortal").at("restarts").to_number<int>() == 1);
  before.erase("mortal");
  after.erase("mortal");
  CHECK(before.size() == 3);
  CHECK(after == before);
  CHECK(box.end() == "");
}

SCENARIO("an upgrade that cannot begin changes nothing") {
  installed box;
  box.write("config.json",
            config({R"({"id": "a", "cmd": ["sleep", "1000"]})"}));
  CHECK(box.pup({"upgrade"}).code == 3);
  SECTION("the program is gone") {
    box.start();
    const auto former = supervisor(box);
    std::filesystem::rename(box.pup_program, box.path("elsewhere"));
    const auto refused = box.pup({"upgrade"});
    CHECK(refused.code == 1);
    CHECK(contains(refused.err, "No such file"));
    box.install_pup();
    CHECK(supervisor(box) == former);
    CHECK(box.end() == "");
  }
  SECTION("there is no guardian") {
    std::filesystem::remove(box.path("bin/pup-guardian"));
    process alone{box.installed_pup({"run", "config.json"})};
    REQUIRE(alone.says("is up"));
    const auto refused = box.pup({"upgrade"});
    CHECK(refused.code == 1);
    CHECK(contains(refused.err, "without pup-guardian"));
    // The signal alone does no harm either.
    alone.signal(SIGUSR2);
    REQUIRE(alone.says("there is no guardian"));
    CHECK(box.status().at("processes").as_array().size() == 1);
    CHECK(box.end() == "");
  }
}

SCENARIO("what a former supervisor carries is drained as well") {
  installed box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 2)}));
  box.start();
  std::optional<connection> first{endpoint{ports[0], "127.0.0.1", {}}};
  std::optional<connection> second{endpoint{ports[0], "127.0.0.1", {}}};
  if (first->get().body.starts_with("web-2"))
    first.swap(second);
  REQUIRE(second->get().body.starts_with("web-2"));
  REQUIRE(box.pup({"upgrade"}).code == 0);
  WHEN("another one has come after its successor") {
    REQUIRE(::kill(supervisor(box), SIGKILL) == 0);
    REQUIRE(wait_until([&] { return box.pup({"status"}).code == 0; }));
  }
  WHEN("both carry something") {
    std::optional<connection> third{endpoint{ports[0], "127.0.0.1", {}}};
    if (!third->get().body.starts_with("web-2"))
      third.emplace(endpoint{ports[0], "127.0.0.1", {}});
    REQUIRE(third->get().body.starts_with("web-2"));
    REQUIRE(box.pup({"upgrade"}).code == 0);
    first.swap(third);
  }
  process scaling{box.command({"scale", "web", "1"})};
  const auto state = [&] {
    return std::string{
        with_id(box.unit("web").at("instances").as_array(), "web-2")
            .at("state")
            .as_string()};
  };
  REQUIRE(wait_until([&] { return state() == "draining"; }));
  second->ask("/slow?ms=500");
  CHECK(second->answer().status == 200);
  CHECK(state() == "draining");
  second.reset();
  if (first->get().body.starts_with("web-2")) {
    CHECK(state() == "draining");
    first.reset();
  }
  CHECK(scaling.wait().code == 0);
  CHECK(who(ports[0]).starts_with("web-1"));
  if (first)
    CHECK(first->get().body.starts_with("web-1"));
  CHECK(box.unit("web").at("instances").as_array().size() == 1);
  first.reset();
  CHECK(wait_until([&] { return box.supervisors().size() == 1; }));
  CHECK(box.end() == "");
}

SCENARIO("terminate also ends one that still carries a connection") {
  installed box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 2, R"("drainTimeoutMs": 500)")}));
  box.start();
  connection kept{endpoint{ports[0], "127.0.0.1", {}}};
  REQUIRE(kept.get().status == 200);
  // As service managers would.
  REQUIRE(::kill(only(box.guardians()), SIGUSR2) == 0);
  REQUIRE(wait_until([&] { return box.supervisors().size() == 2; }));
  REQUIRE(wait_until([&] { return box.pup({"status"}).code == 0; }));
  CHECK(kept.get().status == 200);
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(box.running().empty());
  CHECK(box.end() == "");
}
