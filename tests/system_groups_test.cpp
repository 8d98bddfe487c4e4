// Processes that have to do with each other: dependencies, groups, significant
// members, startConcurrency; and pup as the first process of a container.
#include "catch.hpp"
#include "system.hpp"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>

#include <unistd.h>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

using lines = std::vector<std::string>;

std::string text_of(const json::value& x) {
  return std::string{x.as_string().data(), x.as_string().size()};
}

std::string state_of(const sandbox& box, const std::string& id) {
  return text_of(box.unit(id).at("state"));
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

// A process that writes into the file "order" when it starts and when it is
// asked to stop. Ready when it has written that. `more` are further members.
std::string member(const std::string& id, const std::string& more = {}) {
  return R"({"id": ")" + id
         + R"(", "ready": {"type": "fd"}, "cmd": "trap 'echo stop )" + id
         + R"( >> order; exit 0' TERM; echo start )" + id
         + R"( >> order; echo >&$READY_FD; sleep 1000 & wait")"
         + (more.empty() ? "" : ", " + more) + "}";
}

// Ready once the file exists.
std::string ready_with(const std::string& file) {
  return R"("ready": {"type": "exec", "cmd": ["test", "-e", ")" + file
         + R"("]})";
}

// The same, ready once the file exists.
std::string held(const std::string& id, const std::string& file) {
  return R"({"id": ")" + id + R"(", "cmd": "echo start )" + id
         + " >> order; trap 'echo stop " + id
         + R"( >> order; exit 0' TERM; sleep 1000 & wait", )" + ready_with(file)
         + "}";
}

// The lines that were written so far.
lines order_of(const sandbox& box) {
  std::ifstream file{box.path("order")};
  lines result;
  for (std::string line; std::getline(file, line);)
    result.push_back(line);
  return result;
}

bool ordered(const sandbox& box, const lines& wanted) {
  wait_until([&] { return order_of(box).size() >= wanted.size(); });
  CHECK(order_of(box) == wanted);
  return order_of(box) == wanted;
}

void forget_order(const sandbox& box) {
  box.write("order", "");
}

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

pid_t pid_of(const sandbox& box, const std::string& id) {
  return static_cast<pid_t>(box.unit(id).at("pid").as_int64());
}

}  // namespace

// -- dependsOn ----------------------------------------------------------------

SCENARIO("what others depend on starts before them and stops after them") {
  sandbox box;
  box.write("config.json", config({member("web", R"("dependsOn": ["app"])"),
                                   member("app", R"("dependsOn": ["db"])"),
                                   held("db", "db.ready")}));
  process starting{box.command({"start", "config.json"})};
  REQUIRE(wait_until([&] { return !order_of(box).empty(); }));
  CHECK(state_of(box, "db") == "starting");
  REQUIRE(wait_until([&] { return state_of(box, "web") == "waiting"; }));
  CHECK(text_of(box.unit("app").at("reason")) == "waits for 'db' to be ready");
  CHECK(order_of(box) == lines{"start db"});
  box.write("db.ready", "");
  CHECK(starting.wait().code == 0);
  CHECK(ordered(box, {"start db", "start app", "start web"}));
  forget_order(box);
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(ordered(box, {"stop web", "stop app", "stop db"}));
  CHECK(box.end() == "");
}

SCENARIO("stop all, start one: in order, and what is needed comes along") {
  sandbox box;
  box.write("config.json",
            config({member("db"), member("app", R"("dependsOn": ["db"])"),
                    member("other")}));
  start(box);
  forget_order(box);
  const auto alone = box.pup({"stop", "db"});
  CHECK(alone.code == 0);
  contains(alone.out, "db: stopped; 'app' depends on it");
  CHECK(state_of(box, "app") == "ready");
  CHECK(box.pup({"start", "db"}).code == 0);
  forget_order(box);
  CHECK(box.pup({"stop", "all"}).code == 0);
  const auto stops = order_of(box);
  const auto at = [&](const std::string& line) {
    return std::find(stops.begin(), stops.end(), line) - stops.begin();
  };
  CHECK(stops.size() == 3);
  CHECK(at("stop app") < at("stop db"));
  forget_order(box);
  const auto started = box.pup({"start", "app"});
  CHECK(started.code == 0);
  contains(started.out, "db: ready; needed by 'app'");
  CHECK(ordered(box, {"start db", "start app"}));
  CHECK(state_of(box, "other") == "stopped");
  CHECK(box.end() == "");
}

SCENARIO("a dependency that fails for good is told, and mended") {
  sandbox box;
  box.write("config.json",
            config({R"({"id": "migrate", "cmd": "test -e schema || exit 3",
                        "restart": "never"})",
                    member("app", R"("dependsOn": [{"id": "migrate",
                                     "condition": "finished"}])")}));
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.code == 1);
  contains(started.err,
           "app: waits for 'migrate' to finish; 'migrate': failed, exited with "
           "code 3");
  CHECK(state_of(box, "app") == "waiting");
  box.write("schema", "");
  CHECK(box.pup({"start", "app"}).code == 0);
  CHECK(state_of(box, "migrate") == "finished");
  CHECK(state_of(box, "app") == "ready");
  CHECK(box.end() == "");
}

SCENARIO("with startConcurrency 1 no two processes start at the same time") {
  sandbox box;
  // Whoever finds the folder made by another that is not ready yet, tells.
  const auto exclusive = [](const std::string& id) {
    return R"({"id": ")" + id
           + R"(", "cmd": "mkdir lock || touch overlap; sleep 0.1; rmdir lock;
              touch )"
           + id + R"(.ready; exec sleep 1000", )" + ready_with(id + ".ready")
           + "}";
  };
  auto text = config({exclusive("a"), exclusive("b"), exclusive("c")},
                     R"("startConcurrency": 1)");
  std::replace(text.begin(), text.end(), '\n', ' ');
  box.write("config.json", text);
  start(box);
  CHECK_FALSE(std::filesystem::exists(box.path("overlap")));
  CHECK(box.end() == "");
}

// -- groups -------------------------------------------------------------------

SCENARIO("a group restarts as its strategy says") {
  sandbox box;
  const auto strategy =
      GENERATE(as<std::string>{}, "one_for_one", "one_for_all", "rest_for_one");
  box.write("config.json",
            config({member("a", R"("supervisor": "g")"),
                    member("b", R"("supervisor": "g")"),
                    member("c", R"("supervisor": "g")"), member("bystander")},
                   R"("groups": {"g": {"strategy": ")" + strategy + "\"}}"));
  start(box);
  CHECK(text_of(box.unit("a").at("group")) == "g");
  forget_order(box);
  ::kill(-pid_of(box, "b"), SIGKILL);
  if (strategy == "one_for_one")
    CHECK(ordered(box, {"start b"}));
  else if (strategy == "rest_for_one")
    CHECK(ordered(box, {"stop c", "start b", "start c"}));
  else
    CHECK(ordered(box, {"stop c", "stop a", "start a", "start b", "start c"}));
  CHECK(wait_until([&] { return state_of(box, "c") == "ready"; }));
  CHECK(box.unit("bystander").at("restarts") == 0);
  CHECK(box.end() == "");
}

SCENARIO("a group that restarts too often is exhausted") {
  sandbox box;
  box.write("config.json",
            config({member("good", R"("supervisor": "g")"),
                    R"({"id": "bad", "cmd": "exit 3", "supervisor": "g"})"},
                   R"("groups": {"g": {"restartLimit": 2}})"));
  box.pup({"start", "config.json"});
  CHECK(wait_until([&] { return state_of(box, "good") == "exhausted"; }));
  CHECK(state_of(box, "bad") == "exhausted");
  contains(text_of(box.unit("good").at("reason")),
           "group 'g' gave up: more than 2 restarts in 60 s; last: 'bad' "
           "exited with code 3");
  CHECK(box.end() == "");
}

// -- autoShutdown -------------------------------------------------------------

namespace {

std::string ending_group(const std::string& main, const std::string& more) {
  return config({R"({"id": "main", "restart": "never", "supervisor": "g",
                     "significant": true, "cmd": ")"
                     + main + "\"}",
                 member("helper", R"("supervisor": "g")")},
                R"("groups": {"g": {"autoShutdown": "any"}})" + more);
}

}  // namespace

SCENARIO("pup run ends like the significant member of its last group") {
  sandbox box;
  struct {
    std::string command;
    int code;
  } const cases[] = {{"exit 7", 7}, {"exit 0", 0}, {"kill -KILL $$", 137}};
  for (const auto& x : cases) {
    // It ends once the helper runs, whose stop is to be seen.
    box.write(
        "config.json",
        ending_group("until test -s order; do sleep 0.01; done; " + x.command,
                     {}));
    forget_order(box);
    const auto ended = box.pup({"run", "config.json"});
    INFO(ended.err);
    CHECK(ended.code == x.code);
    CHECK(order_of(box) == lines{"start helper", "stop helper"});
  }
  CHECK(box.end() == "");
}

SCENARIO("in the background the supervisor stays, and tells") {
  sandbox box;
  box.write("config.json", ending_group("exit 7", {}));
  box.pup({"start", "config.json"});
  CHECK(wait_until([&] { return state_of(box, "helper") == "stopped"; }));
  CHECK(state_of(box, "main") == "failed");
  contains(text_of(box.unit("helper").at("reason")),
           "group 'g' ended with 'main', which exited with code 7");
  CHECK(box.end() == "");
}

// -- the first process of a container -----------------------------------------

namespace {

/// Why there can be no process table of our own; empty: there can.
std::string no_container() {
  if (::geteuid() != 0)
    return "needs root";
  command_line trial;
  trial.argv = {"/usr/bin/unshare", "--pid", "--fork", "--mount-proc",
                "/bin/true"};
  const auto tried = run(trial);
  return tried.code == 0 ? "" : "unshare: " + tried.err;
}

command_line in_container(const sandbox& box) {
  auto result = box.command({"run", "config.json"});
  const lines wrapper{"/usr/bin/unshare", "--pid", "--fork", "--mount-proc"};
  result.argv.insert(result.argv.begin(), wrapper.begin(), wrapper.end());
  return result;
}

/// The one whom a container's runtime signals.
pid_t first_process(const sandbox& box) {
  for (const auto pid : box.running()) {
    std::ifstream file{"/proc/" + std::to_string(pid) + "/status"};
    for (std::string line; std::getline(file, line);)
      if (line.starts_with("NSpid:") && line.ends_with("\t1"))
        return pid;
  }
  throw std::runtime_error{"there is no process 1"};
}

/// The process that runs `command` by `sh -c` in a session of its own.
std::optional<pid_t> session_of(const sandbox& box,
                                const std::string& command) {
  for (const auto pid : box.running()) {
    std::ifstream file{"/proc/" + std::to_string(pid) + "/cmdline"};
    std::string text{std::istreambuf_iterator<char>{file}, {}};
    std::replace(text.begin(), text.end(), '\0', ' ');
    if (::getsid(pid) == pid && text.starts_with("sh -c " + command))
      return pid;
  }
  return std::nullopt;
}

}  // namespace

SCENARIO("as process 1 pup buries orphans and stops on SIGTERM") {
  if (const auto why = no_container(); !why.empty()) {
    WARN("skipped: " << why);
    return;
  }
  sandbox box;
  // An orphan outside the process group, which ends when it is told to.
  box.write("config.json", config({R"({"id": "parent", "cmd":
    "(setsid sh -c 'until test -e end; do sleep 0.01; done' &); exec sleep 1000"})",
                                   member("member")}));
  process container{in_container(box)};
  REQUIRE(container.says("is up"));
  REQUIRE(wait_until([&] { return order_of(box) == lines{"start member"}; }));
  std::optional<pid_t> orphan;
  REQUIRE(wait_until([&] {
    orphan = session_of(box, "until test -e end");
    return orphan.has_value();
  }));
  box.write("end", "");
  // A zombie would still take signals.
  CHECK(wait_until([&] { return ::kill(*orphan, 0) != 0; }, 10s));
  ::kill(first_process(box), SIGTERM);
  const auto ended = container.wait();
  CHECK(ended.code == 0);
  CHECK(order_of(box) == lines{"start member", "stop member"});
  CHECK(box.end() == "");
}

SCENARIO("a container ends with the exit code of the significant process") {
  if (const auto why = no_container(); !why.empty()) {
    WARN("skipped: " << why);
    return;
  }
  sandbox box;
  box.write("config.json", ending_group("exit 42", {}));
  CHECK(run(in_container(box)).code == 42);
  CHECK(box.end() == "");
}
