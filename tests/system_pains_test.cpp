// What docs/PAINS.md promises and no other test shows.
#include "catch.hpp"
#include "system.hpp"

#include <fstream>

using namespace pup::test;
using namespace std::chrono_literals;

namespace {

namespace fs = std::filesystem;

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  INFO(started.err);
  REQUIRE(started.code == 0);
}

/// How often threads of these processes have gone to sleep: each time after
/// something had woken them.
long sleeps(const std::set<pid_t>& pids) {
  long result = 0;
  for (const auto pid : pids)
    for (const auto& thread :
         fs::directory_iterator{"/proc/" + std::to_string(pid) + "/task"}) {
      std::ifstream status{thread.path() / "status"};
      for (std::string line; std::getline(status, line);)
        if (line.starts_with("voluntary_ctxt_switches:"))
          result += std::stol(line.substr(line.find(':') + 1));
    }
  return result;
}

}  // namespace

SCENARIO("a supervisor with nothing to do sleeps") {
  sandbox box;
  const port_range ports{4};
  // With all that could be a reason to look now and then: files, a clock, a
  // common port, a log.
  box.write(
      "config.json",
      config({web(ports, 2),
              R"({"id": "watcher", "cmd": "echo up; exec sleep 1000",
                        "autostart": true, "watch": ["watched"]})",
              R"({"id": "job", "cmd": ["true"], "cron": "0 0 29 2 *"})"}));
  fs::create_directory(box.path("watched"));
  start(box);
  CHECK(get(ports[0]).status == 200);
  const auto pups = box.pups();
  REQUIRE(pups.size() == 2);
  // Two seconds of somebody else's. In the first ones there may be what still
  // comes of the start: timers that nobody waits for any more.
  CHECK(wait_until([&] {
    const auto before = sleeps(pups);
    run(box.program({"/bin/sleep", "2"}));
    return sleeps(pups) == before;
  }));
  CHECK(box.end() == "");
}

SCENARIO("commands stay quick beside hundreds of instances") {
  constexpr int instances = 300;
  sandbox box;
  box.write("config.json",
            config({R"({"id": "many", "cmd": ["sleep", "1000"],
                        "cluster": {"instances": )"
                        + std::to_string(instances) + "}}",
                    R"({"id": "one", "cmd": ["sleep", "1000"]})"}));
  start(box);
  CHECK(box.unit("many").at("ready") == instances);
  // Each in the time that a person takes for "at once", with the sanitizers and
  // the neighbours of a test run; without them it is some hundredths of this.
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"status"},
        {"status", "one"},
        {"restart", "one"},
        {"restart", "many-150"},
        {"stop", "one"},
        {"start", "one"},
        {"scale", "many", "+1"},
        {"scale", "many", "-1"}}) {
    const auto done = box.pup(command);
    INFO(command.front() << ": " << done.wall.count() << " ms");
    CHECK(done.err == "");
    CHECK(done.code == 0);
    CHECK(done.wall < 5s);
  }
  CHECK(box.unit("many").at("ready") == instances);
  CHECK(box.end() == "");
}
