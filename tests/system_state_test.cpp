// What a supervisor remembers: after an end on purpose, after a crash, after a
// power failure, and when the file or the disk is not what it should be.
#include "pup/runtime/identity.hpp"
#include "pup/runtime/state_file.hpp"

#include "catch.hpp"
#include "system.hpp"

#include <csignal>
#include <filesystem>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

namespace fs = std::filesystem;

std::string text_of(const json::value& x) {
  return std::string{x.as_string().data(), x.as_string().size()};
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

std::string state_of(const sandbox& box, const std::string& id) {
  return text_of(box.unit(id).at("state"));
}

finished start(const sandbox& box) {
  auto result = box.pup({"start", "config.json"});
  INFO(result.err);
  REQUIRE(result.code == 0);
  return result;
}

pid_t supervisor(const sandbox& box) {
  const auto all = box.supervisors();
  REQUIRE(all.size() == 1);
  return *all.begin();
}

std::string state_file(const sandbox& box) {
  return box.path("state/pup/state");
}

/// Until the file holds a line.
bool remembers(const sandbox& box, const std::string& part) {
  return wait_until([&] {
    return box.read("state/pup/state").find(part) != std::string::npos;
  });
}

/// kill -9 of everything that keeps the instances alive across a crash, so that
/// the next start is somebody's decision.
void crash(const sandbox& box) {
  const auto pid = supervisor(box);
  freeze(pid);  // or it would clean up behind its guardian
  for (const auto guardian : box.guardians()) {
    ::kill(guardian, SIGKILL);
    REQUIRE(wait_for_end(guardian));
  }
  ::kill(pid, SIGKILL);
  REQUIRE(wait_for_end(pid));
}

/// The machine goes down: nothing is left running.
void power_failure(const sandbox& box) {
  crash(box);
  for (const auto pid : box.running())
    ::kill(pid, SIGKILL);
  REQUIRE(wait_until([&] { return box.running().empty(); }));
}

/// Has the state file say that it was written during another boot.
void written_on_another_day(const sandbox& box) {
  const auto folder = box.path("state/pup");
  auto found = pup::read_state(folder);
  auto state = std::get<std::optional<pup::saved_state>>(found).value();
  state.boot = "another day";
  REQUIRE_FALSE(pup::write_state(folder, state));
}

std::vector<std::string> warnings(const sandbox& box) {
  std::vector<std::string> result;
  const auto status = box.status();
  for (const auto& x : status.at("warnings").as_array())
    result.push_back(text_of(x));
  return result;
}

/// Processes of instances, from the status.
std::set<pid_t> instances(const sandbox& box) {
  std::set<pid_t> result;
  const auto status = box.status();
  for (const auto& unit : status.at("processes").as_array()) {
    if (unit.as_object().contains("pid") && !unit.at("pid").is_null())
      result.insert(unit.at("pid").to_number<pid_t>());
    if (unit.as_object().contains("instances"))
      for (const auto& x : unit.at("instances").as_array())
        if (!x.at("pid").is_null())
          result.insert(x.at("pid").to_number<pid_t>());
  }
  return result;
}

constexpr const char* sleeper =
    R"({"id": "sleeper", "cmd": ["sleep", "1000"]})";
constexpr const char* other = R"({"id": "other", "cmd": ["sleep", "1000"]})";

}  // namespace

SCENARIO("a start after a crash goes on where the supervisor was") {
  sandbox box;
  const port_range ports{7};
  box.write("config.json",
            config({web(ports, 2), sleeper, other,
                    R"({"id": "once", "cmd": "exit 0", "restart": "never"})"}));
  start(box);
  REQUIRE(box.pup({"scale", "web", "4"}).code == 0);
  REQUIRE(box.pup({"stop", "web-2"}).code == 0);
  REQUIRE(box.pup({"stop", "sleeper"}).code == 0);
  REQUIRE(box.pup({"block", "other"}).code == 0);
  REQUIRE(wait_until([&] { return state_of(box, "once") == "finished"; }));
  REQUIRE(remembers(box, "finished"));
  const auto before = instances(box);
  REQUIRE(before.size() == 4);
  crash(box);

  const auto again = start(box);
  contains(again.err, "ending what a killed supervisor left");
  // Never two copies.
  for (const auto pid : before)
    CHECK_FALSE(alive(pid));
  const auto now = box.unit("web");
  CHECK(now.at("desired") == 4);
  CHECK(now.at("ready") == 3);
  const auto& all = now.at("instances").as_array();
  CHECK(text_of(with_id(all, "web-2").at("state")) == "stopped");
  CHECK(text_of(with_id(all, "web-4").at("state")) == "ready");
  CHECK(state_of(box, "sleeper") == "stopped");
  CHECK(state_of(box, "other") == "blocked");
  CHECK(state_of(box, "once") == "finished");
  CHECK(get(ports[0]).status == 200);
  CHECK(warnings(box).empty());
  CHECK(instances(box).size() == 3);
  CHECK(box.end() == "");
}

SCENARIO("what nobody watches any more is told by every command") {
  sandbox box;
  box.write("config.json", config({sleeper, other}));
  box.write("second.json", config({sleeper}));
  start(box);
  crash(box);
  const auto left = box.running();
  REQUIRE(left.size() == 2);
  for (const auto& [words, code] :
       std::vector<std::pair<std::vector<std::string>, int>>{
           {{"status"}, 3},
           {{"status", "--json"}, 3},
           {{"stop", "all"}, 3},
           {{"start", "sleeper"}, 3},
           {{"block", "sleeper"}, 3},
           {{"reload", "all"}, 3},
           {{"signal", "sleeper", "HUP"}, 3},
           {{"scale", "sleeper", "2"}, 3},
           {{"why", "sleeper"}, 3},
           {{"apply", "second.json"}, 3},
           {{"upgrade"}, 3},
           {{"logs"}, 0},
           {{"logs", "--name", "pup"}, 0}}) {
    const auto answer = box.pup(words);
    INFO(words.front() << ": " << answer.err);
    CHECK(answer.code == code);
    contains(answer.err,
             "2 processes of it go on unwatched; end them with pup "
             "terminate --name pup");
  }
  // A start that comes to nothing tells of them as well.
  const auto good = box.read("config.json");
  box.write("config.json", "{");
  const auto failed = box.pup({"start", "config.json"});
  CHECK(failed.code == 2);
  contains(failed.err, "2 processes of it go on unwatched");
  box.write("config.json", good);
  // Another configuration's folder is not about these.
  fs::create_directory(box.path("elsewhere"));
  box.write("elsewhere/pup.json", config({sleeper}));
  auto elsewhere = box.command({"status"});
  elsewhere.cwd = box.path("elsewhere");
  CHECK(run(elsewhere).err.find("unwatched") == std::string::npos);
  elsewhere = box.command({"terminate"});
  elsewhere.cwd = box.path("elsewhere");
  CHECK(run(elsewhere).code == 3);
  CHECK(box.running() == left);
  CHECK(box.end() != "");
}

SCENARIO("terminate ends what nobody watches, as an end on purpose") {
  sandbox box;
  box.write(
      "config.json",
      config(
          {R"({"id": "many", "cmd": ["sleep", "1000"],
    "cluster": {"instances": 1}})",
           R"({"id": "polite", "cmd": "exec 2>/dev/null; trap 'echo bye > bye; exit 0' TERM; touch up; while :; do sleep 0.05; done"})"}));
  start(box);
  REQUIRE(box.pup({"scale", "many", "3"}).code == 0);
  REQUIRE(wait_until([&] { return fs::exists(box.path("up")); }));
  crash(box);
  const auto ended = box.pup({"terminate"});
  CHECK(ended.code == 0);
  contains(ended.err, "ending what a killed supervisor left: ");
  CHECK(box.running().empty());
  CHECK(box.read("bye") == "bye\n");
  CHECK(box.pup({"terminate"}).code == 3);
  CHECK(box.pup({"status"}).err.find("unwatched") == std::string::npos);
  CHECK(start(box).err == "");
  CHECK(box.unit("many").at("desired") == 1);
  CHECK(box.end() == "");
}

SCENARIO("terminate is not done while something is left") {
  sandbox box;
  // Whoever is killed last leaves it to the command.
  box.write("config.json", config({sleeper, R"({"id": "slow", "cmd":
    "trap 'touch asked; sleep 1; exit 0' TERM; touch up; while :; do sleep 0.05; done"})"}));
  start(box);
  REQUIRE(wait_until([&] { return fs::exists(box.path("up")); }));
  process ending{box.command({"terminate"})};
  REQUIRE(wait_until([&] { return fs::exists(box.path("asked")); }));
  crash(box);
  const auto ended = ending.wait();
  INFO(ended.err);
  CHECK(ended.code == 0);
  contains(ended.err, "ending what a killed supervisor left: ");
  CHECK(box.running().empty());
  CHECK(box.end() == "");
}

SCENARIO("what has left its session ends when the guardian is killed") {
  sandbox box;
  // Its parent has gone, its environment is empty: the log's pipe tells.
  box.write("config.json", config({R"({"id": "app", "cmd":
    "(env -i setsid sh -c 'echo $$ > pid; exec sleep 1000' &) ; exec sleep 1000"})"}));
  start(box);
  REQUIRE(wait_until([&] { return !box.read("pid").empty(); }));
  const auto daemon = static_cast<pid_t>(std::stoi(box.read("pid")));
  const auto pid = supervisor(box);
  for (const auto guardian : box.guardians())
    ::kill(guardian, SIGKILL);
  REQUIRE(wait_for_end(pid));
  CHECK_FALSE(alive(daemon));
  CHECK(box.running().empty());
  CHECK(box.end() == "");
}

SCENARIO("what another configuration was applied to goes on as that one") {
  sandbox box;
  const port_range ports{6};
  box.write("config.json", config({web(ports, 2)}));
  start(box);
  box.write("second.json", config({web(ports, 2), sleeper}));
  REQUIRE(box.pup({"apply", "second.json"}).code == 0);
  REQUIRE(box.pup({"scale", "web", "3"}).code == 0);
  REQUIRE(box.pup({"stop", "sleeper"}).code == 0);
  crash(box);
  const auto again = box.pup({"start", "second.json"});
  CHECK(again.code == 0);
  CHECK(box.unit("web").at("ready") == 3);
  CHECK(state_of(box, "sleeper") == "stopped");
  CHECK(warnings(box).empty());
  CHECK(box.end() == "");
}

SCENARIO("one that its guardian starts again goes on where it was") {
  sandbox box;
  const port_range ports{6};
  box.write("config.json", config({web(ports, 2), sleeper}));
  start(box);
  REQUIRE(box.pup({"scale", "web", "4"}).code == 0);
  REQUIRE(box.pup({"stop", "sleeper"}).code == 0);
  const auto pid = supervisor(box);
  ::kill(pid, SIGKILL);
  REQUIRE(wait_for_end(pid));
  // No sooner than the new one listens is there a status.
  REQUIRE(wait_until([&] { return box.pup({"status"}).code == 0; }));
  CHECK(wait_until([&] { return box.unit("web").at("ready") == 4; }));
  CHECK(state_of(box, "sleeper") == "stopped");
  CHECK(get(ports[0]).status == 200);
  CHECK(instances(box).size() == 4);
  CHECK(box.end() == "");
}

SCENARIO("when the guardian was killed the end was no purpose") {
  sandbox box;
  box.write("config.json", config({R"({"id": "many", "cmd": ["sleep", "1000"],
    "cluster": {"instances": 1}})"}));
  start(box);
  REQUIRE(box.pup({"scale", "many", "3"}).code == 0);
  const auto pid = supervisor(box);
  for (const auto guardian : box.guardians())
    ::kill(guardian, SIGKILL);
  REQUIRE(wait_for_end(pid));
  start(box);
  CHECK(box.unit("many").at("desired") == 3);
  CHECK(box.end() == "");
}

SCENARIO("a start after an end on purpose begins from the configuration") {
  const std::string how =
      GENERATE(as<std::string>{}, "terminate", "SIGTERM", "SIGINT", "SIGQUIT");
  INFO(how);
  sandbox box;
  box.write("config.json", config({R"({"id": "many", "cmd": ["sleep", "1000"],
    "cluster": {"instances": 1}})",
                                   sleeper, other}));
  start(box);
  REQUIRE(box.pup({"scale", "many", "3"}).code == 0);
  REQUIRE(box.pup({"stop", "sleeper"}).code == 0);
  REQUIRE(box.pup({"block", "other"}).code == 0);
  const auto pid = supervisor(box);
  if (how == "terminate")
    REQUIRE(box.pup({"terminate"}).code == 0);
  else
    ::kill(pid, how == "SIGTERM"  ? SIGTERM
                : how == "SIGINT" ? SIGINT
                                  : SIGQUIT);
  REQUIRE(wait_for_end(pid));
  CHECK(wait_until([&] { return box.running().empty(); }));
  contains(box.read("state/pup/state"), "on-purpose 1");

  CHECK(start(box).err == "");
  CHECK(box.unit("many").at("desired") == 1);
  CHECK(state_of(box, "sleeper") == "ready");
  CHECK(state_of(box, "other") == "ready");
  CHECK(box.end() == "");
}

SCENARIO("an end on purpose: in reverse order, drained, with deadlines") {
  const std::string how = GENERATE(as<std::string>{}, "terminate", "SIGTERM");
  INFO(how);
  sandbox box;
  const port_range ports{4};
  const auto polite = [](const std::string& id) {
    return R"({"id": ")" + id + R"(", "cmd": "trap 'echo )" + id
           + R"( >> order; exit 0' TERM; touch )" + id
           + R"(; while :; do sleep 0.05; done"})";
  };
  const auto deaf = R"({"id": "deaf", "terminateTimeout": 0.2,
    "cmd": "trap '' TERM; touch deaf; while :; do sleep 0.05; done"})";
  box.write("config.json",
            config({polite("a"), polite("b"), deaf, web(ports, 2)}));
  start(box);
  for (const auto* id : {"a", "b", "deaf"})  // the traps are set
    REQUIRE(wait_until([&] { return fs::exists(box.path(id)); }));
  connection client{endpoint{ports[0], "127.0.0.1", {}}};
  client.ask("/slow?ms=700");
  REQUIRE(wait_until([&] {
    return box.unit("web").at("balancer").at("connectionsActive") == 1;
  }));
  const auto pid = supervisor(box);
  if (how == "terminate")
    CHECK(box.pup({"terminate", "--no-wait"}).code == 0);
  else
    ::kill(pid, SIGTERM);
  CHECK(client.answer().status == 200);
  REQUIRE(wait_for_end(pid));
  CHECK(box.read("order") == "b\na\n");
  CHECK(wait_until([&] { return box.running().empty(); }));
  CHECK(port_is_free(ports[0]));
  const auto state = box.read("state/pup/state");
  contains(state, "on-purpose 1");
  CHECK(state.find("process ") == std::string::npos);
}

SCENARIO("a supervisor killed on its way out has ended on purpose") {
  sandbox box;
  box.write("config.json", config({R"({"id": "many", "cmd": ["sleep", "1000"],
    "cluster": {"instances": 1}})",
                                   R"({"id": "deaf", "terminateTimeout": 600,
    "cmd": "trap '' TERM; touch deaf; while :; do sleep 0.05; done"})"}));
  start(box);
  REQUIRE(box.pup({"scale", "many", "3"}).code == 0);
  REQUIRE(wait_until([&] { return fs::exists(box.path("deaf")); }));
  CHECK(box.pup({"terminate", "--no-wait"}).code == 0);
  REQUIRE(remembers(box, "on-purpose 1"));
  crash(box);
  const auto left = box.running();
  REQUIRE_FALSE(left.empty());
  // By now the file is less patient.
  box.write("config.json", config({R"({"id": "many", "cmd": ["sleep", "1000"],
    "cluster": {"instances": 1}})",
                                   R"({"id": "deaf", "terminateTimeout": 0.2,
    "cmd": ["sleep", "1000"]})"}));
  start(box);
  CHECK(box.unit("many").at("desired") == 1);
  for (const auto pid : left)
    CHECK_FALSE(alive(pid));
  CHECK(box.end() == "");
}

SCENARIO("after a power failure what people decided holds, the rest is past") {
  sandbox box;
  box.write("config.json", config({R"({"id": "many", "cmd": ["sleep", "1000"],
    "cluster": {"instances": 1}})",
                                   sleeper,
                                   R"({"id": "once", "cmd": "echo run >> runs",
                                       "restart": "never"})"}));
  start(box);
  REQUIRE(box.pup({"scale", "many", "3"}).code == 0);
  REQUIRE(box.pup({"stop", "sleeper"}).code == 0);
  REQUIRE(wait_until([&] { return state_of(box, "once") == "finished"; }));
  REQUIRE(remembers(box, "finished"));
  power_failure(box);

  written_on_another_day(box);
  CHECK(start(box).err == "");
  CHECK(box.unit("many").at("desired") == 3);
  CHECK(state_of(box, "sleeper") == "stopped");
  REQUIRE(wait_until([&] { return box.read("runs") == "run\nrun\n"; }));
  CHECK(box.end() == "");
}

SCENARIO("no variable makes pup believe in another boot") {
  sandbox box;
  box.env["PUP_BOOT_ID"] = "played";
  box.write("config.json", config({sleeper}));
  start(box);
  contains(box.read("state/pup/state"), "boot " + pup::boot_id() + '\n');
  CHECK(box.end() == "");
}

SCENARIO("an entry that has changed meanwhile begins as it says") {
  sandbox box;
  const auto cluster = [](const std::string& id, int instances) {
    return R"({"id": ")" + id + R"(", "cmd": ["sleep", "1000"],
      "cluster": {"instances": )"
           + std::to_string(instances) + "}}";
  };
  box.write("config.json", config({cluster("a", 1), cluster("b", 1)}));
  start(box);
  REQUIRE(box.pup({"scale", "a", "3"}).code == 0);
  REQUIRE(box.pup({"scale", "b", "3"}).code == 0);
  crash(box);
  box.write("config.json",
            "// a comment\n" + config({cluster("a", 2), cluster("b", 1)}));
  start(box);
  CHECK(box.unit("a").at("desired") == 2);
  CHECK(box.unit("b").at("desired") == 3);
  contains(box.pup({"logs"}).out, "'a' has changed in the configuration");
  CHECK(instances(box).size() == 5);
  CHECK(box.end() == "");
}

SCENARIO("a damaged state file is refused, told, and replaced") {
  sandbox box;
  box.write("config.json", config({R"({"id": "many", "cmd": ["sleep", "1000"],
    "cluster": {"instances": 1}})"}));
  start(box);
  REQUIRE(box.pup({"scale", "many", "3"}).code == 0);
  const auto before = instances(box);
  crash(box);
  auto text = box.read("state/pup/state");
  const std::string how =
      GENERATE(as<std::string>{}, "torn", "altered", "foreign");
  INFO(how);
  if (how == "torn")
    text.resize(text.size() / 2);
  else if (how == "altered")
    text[text.find("unit many") + 5] ^= 1;
  else
    text.replace(text.find(" 2 "), 3, " 9 ");
  box.write("state/pup/state", text);
  const auto why = how == "torn"      ? "is torn: it ends early"
                   : how == "altered" ? "is damaged"
                                      : "has version 9";

  const auto again = start(box);
  contains(again.err, why);
  contains(again.err, "starting from the configuration");
  CHECK(box.unit("many").at("desired") == 1);
  // Without the file they are known by their mark.
  for (const auto pid : before)
    CHECK_FALSE(alive(pid));
  REQUIRE(warnings(box).size() == 1);
  contains(warnings(box).front(), state_file(box) + ": " + why);
  contains(box.pup({"status"}).out, "warning: " + state_file(box));
  contains(box.pup({"logs"}).out, why);
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(start(box).err == "");
  CHECK(warnings(box).empty());
  CHECK(box.end() == "");
}

SCENARIO("a supervisor whose state cannot be written goes on, and says so") {
  sandbox box;
  box.write("config.json", config({R"({"id": "many", "cmd": ["sleep", "1000"],
    "cluster": {"instances": 1}})"}));
  start(box);
  // What a read-only folder does, for root too.
  fs::create_directory(state_file(box) + ".new");
  REQUIRE(box.pup({"scale", "many", "3"}).code == 0);
  REQUIRE(wait_until([&] { return warnings(box).size() == 1; }));
  contains(warnings(box).front(), "state.new: Is a directory");
  contains(box.pup({"status"}).out, "warning: ");
  CHECK(box.unit("many").at("ready") == 3);
  fs::remove(state_file(box) + ".new");
  REQUIRE(wait_until([&] { return warnings(box).empty(); }));
  contains(box.pup({"logs"}).out, "the state is kept again");
  crash(box);
  start(box);
  CHECK(box.unit("many").at("desired") == 3);
  CHECK(box.end() == "");
}

SCENARIO("what a process has started in its own session does not stay") {
  sandbox box;
  box.write("config.json", config({R"({"id": "daemons",
    "cmd": "setsid sleep 1000 & sleep 1000 & wait"})"}));
  start(box);
  // Three of the process, beside the supervisor and its guardian.
  REQUIRE(wait_until([&] { return box.running().size() == 5; }));
  crash(box);
  const auto left = box.running();
  REQUIRE(left.size() == 3);
  start(box);
  for (const auto pid : left)
    CHECK_FALSE(alive(pid));
  CHECK(box.end() == "");
}

SCENARIO("runs that were missed while pup was down are told, not made up for") {
  const std::string how = GENERATE(as<std::string>{}, "crash", "terminate");
  INFO(how);
  sandbox box;
  // Half an hour away on both sides, so that none is due while this runs.
  const auto now = std::chrono::floor<std::chrono::minutes>(
      std::chrono::system_clock::now());
  const auto minute = (now + 30min).time_since_epoch().count() % 60;
  box.write(
      "config.json",
      config({R"({"id": "job", "cmd": ["sleep", "1000"], "cron": ")"
              + std::to_string(minute) + R"( * * * *", "timeZone": "UTC"})"}));
  start(box);
  REQUIRE(remembers(box, "clock "));
  if (how == "crash")
    crash(box);
  else
    REQUIRE(box.pup({"terminate"}).code == 0);
  // As if it had been down for three hours.
  const auto folder = box.path("state/pup");
  auto found = pup::read_state(folder);
  auto state = std::get<std::optional<pup::saved_state>>(found).value();
  state.units.at("job").clock_seen -= 3 * 3600;
  REQUIRE_FALSE(pup::write_state(folder, state));

  start(box);
  CHECK(state_of(box, "job") == "waiting");
  const std::string told = "missed 3 runs while pup was down, the last at ";
  contains(box.pup({"why", "job"}).out, told);
  contains(box.pup({"logs", "--id", "job"}).out, told);
  // Told once: the next start knows that it has been.
  REQUIRE(box.pup({"terminate"}).code == 0);
  start(box);
  CHECK(box.pup({"why", "job"}).out.find("missed") == std::string::npos);
  CHECK(box.end() == "");
}
