// The guardian: whose children the processes are, what is left of them when
// they end, and what happens when pup itself is killed.
#include "catch.hpp"
#include "system.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <unistd.h>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

std::string text_of(const json::value& x) {
  return std::string{x.as_string().data(), x.as_string().size()};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

/// A line of /proc/PID/status.
std::string proc_status(pid_t pid, const std::string& name) {
  std::ifstream file{"/proc/" + std::to_string(pid) + "/status"};
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(name + ":\t"))
      return line.substr(name.size() + 2);
  return {};
}

pid_t pid_of(const sandbox& box, const std::string& id) {
  return box.unit(id).at("pid").to_number<pid_t>();
}

/// Processes of the sandbox that are no pup.
std::set<pid_t> others(const sandbox& box) {
  auto result = box.running();
  for (const auto x : box.pups())
    result.erase(x);
  return result;
}

std::string sleeper(const std::string& id) {
  return R"({"id": ")" + id + R"(", "cmd": ["sleep", "1000"]})";
}

}  // namespace

SCENARIO("the guardian is the parent of everything, and small") {
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  start(box);
  const auto guardian = only(box.guardians());
  const auto supervisor = only(box.supervisors());
  CHECK(proc_status(supervisor, "PPid") == std::to_string(guardian));
  CHECK(proc_status(pid_of(box, "a"), "PPid") == std::to_string(guardian));
  CHECK(proc_status(guardian, "Threads") == "1");
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  std::ifstream maps{"/proc/" + std::to_string(guardian) + "/smaps_rollup"};
  std::int64_t kb = 0;
  for (std::string line; std::getline(maps, line);)
    if (line.starts_with("Pss:"))
      kb = std::stoll(line.substr(4));
  CHECK(kb > 0);
  CHECK(kb < 1'000);
#endif
  CHECK(box.end() == "");
}

SCENARIO("what the guardian holds leaves low numbers to launches") {
  sandbox box;
  std::vector<std::string> processes;
  for (int i = 0; i < 50; ++i)
    processes.push_back(sleeper("a" + std::to_string(i)));
  box.write("config.json", config(processes));
  start(box);
  // Two pipes of each process are held. A launch copies the table up to the
  // highest descriptor that it passes on.
  const auto folder = "/proc/" + std::to_string(only(box.guardians())) + "/fd";
  int low = 0;
  int high = 0;
  for (const auto& x : std::filesystem::directory_iterator{folder})
    ++(std::stoi(x.path().filename().string()) < 64 ? low : high);
  CHECK(high >= 100);
  CHECK(low < 20);
  CHECK(box.end() == "");
}

SCENARIO("nothing that a process has started survives its stop") {
  sandbox box;
  // In the group; in a session of its own; orphaned twice over; with nothing in
  // its environment that tells whose it is.
  box.write("config.json", config({R"({"id": "tree", "cmd":
    "sleep 1001 & setsid sleep 1002 & (setsid sh -c 'sleep 1003 & sleep 1004' &) ; env -i setsid sleep 1005 & wait"})",
                                   sleeper("other")}));
  start(box);
  // The shell, what it started, the other; 1005 cannot be told by the variable.
  REQUIRE(wait_until([&] { return others(box).size() == 7; }));
  std::set<pid_t> bare;
  REQUIRE(wait_until([&] {
    std::istringstream all{
        run(box.program({"/usr/bin/pgrep", "-x", "-f", "sleep 1005", "-P",
                         std::to_string(pid_of(box, "tree"))}))
            .out};
    for (pid_t pid = 0; all >> pid;)
      bare.insert(pid);
    return bare.size() == 1;
  }));
  CHECK(box.pup({"stop", "tree"}).code == 0);
  CHECK(others(box) == std::set<pid_t>{pid_of(box, "other")});
  for (const auto pid : bare)
    CHECK(wait_for_end(pid, 0ms));
  // It was asked to stop: nobody is told off for what it left.
  CHECK_FALSE(contains(box.pup({"logs"}).out, "foreground"));
  CHECK(box.end() == "");
}

SCENARIO("a program that daemonises away is reported, and not left running") {
  sandbox box;
  box.write("config.json", config({R"({"id": "daemon", "restart": "never",
    "cmd": "setsid sleep 1000 & sleep 0.1"})"}));
  static_cast<void>(box.pup({"start", "config.json"}));
  REQUIRE(wait_until(
      [&] { return text_of(box.unit("daemon").at("state")) == "finished"; }));
  CHECK(others(box).empty());
  const auto log = box.pup({"logs", "--id", "daemon"}).out;
  INFO(log);
  CHECK(contains(log, "left 1 running"));
  CHECK(contains(log, "(sleep)"));
  CHECK(contains(log, "foreground"));
  CHECK(box.end() == "");
}

SCENARIO("when the guardian is killed everything stops in order") {
  sandbox box;
  const port_range ports{3};
  box.write("config.json", config({web(ports, 2), sleeper("a")}));
  start(box);
  const auto supervisor = only(box.supervisors());
  const auto guardian = only(box.guardians());
  REQUIRE(::kill(guardian, SIGKILL) == 0);
  CHECK(wait_for_end(supervisor));
  CHECK(box.running().empty());
  CHECK(contains(box.read("state/pup/pup.log"),
                 "the guardian, pid " + std::to_string(guardian)
                     + ", was killed; stopping everything"));
  CHECK(box.pup({"status"}).code == 3);
  // And nothing is in the way of a new one.
  start(box);
  CHECK(get(ports[0]).status == 200);
  CHECK(box.end() == "");
}

SCENARIO("a supervisor in the foreground passes on signals and exit codes") {
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  for (const int signo : {SIGTERM, SIGINT}) {
    process it{box.command({"run"})};
    REQUIRE(it.says("is up, pid "));
    // The process that was started is the guardian; one that it starts looks
    // like it for a moment.
    CHECK(wait_until(
        [&] { return box.guardians() == std::set<pid_t>{it.pid()}; }));
    it.signal(signo);
    const auto end = it.wait();
    CHECK(end.code == 0);
    CHECK(end.signal == 0);
    CHECK(box.running().empty());
  }
  box.write("bad.json", "{");
  CHECK(box.pup({"run", "bad.json"}).code == 2);
  process first{box.command({"run"})};
  REQUIRE(first.says("is up, pid "));
  CHECK(box.pup({"run"}).code == 1);
  CHECK(box.end() == "");
}

SCENARIO("as process 1 of a container it reaps what others leave") {
  if (::geteuid() != 0 || ::access("/usr/bin/unshare", X_OK) != 0) {
    WARN("left out: needs root and unshare");
    return;
  }
  sandbox box;
  // A thousandth of a second later its parent is gone, and so is the orphan.
  box.write("config.json", config({R"({"id": "a", "cmd":
    "for i in 1 2 3 4 5; do (setsid sleep 0.01 &); done; sleep 0.2; cat /proc/[0-9]*/stat > stats.draft; mv stats.draft stats; sleep 1000"})"}));
  auto command = box.command({"run"});
  command.argv.insert(
      command.argv.begin(),
      {"/usr/bin/unshare", "--pid", "--fork", "--mount-proc", "--kill-child"});
  process it{command};
  REQUIRE(it.says("is up, pid "));
  REQUIRE(wait_until([&] { return !box.read("stats").empty(); }));
  std::istringstream stats{box.read("stats")};
  for (std::string line; std::getline(stats, line);) {
    INFO(line);
    CHECK(line.substr(line.rfind(") ") + 2, 1) != "Z");
  }
  for (const auto pid : box.supervisors())
    ::kill(pid, SIGTERM);
  CHECK(it.wait().code == 0);  // unshare ends after all in it
  CHECK(box.end() == "");
}
