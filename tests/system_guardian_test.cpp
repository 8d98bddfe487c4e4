// The guardian: whose children the processes are, what is left of them when
// they end, and what happens when pup itself is killed.
#include "pup/runtime/cgroup.hpp"

#include "catch.hpp"
#include "held_file.hpp"
#include "system.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include <sys/resource.h>
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

/// The child of `parent` that runs `sleep SECONDS`, once there is one.
pid_t sleeping_child(const sandbox& box, pid_t parent,
                     const std::string& seconds) {
  pid_t result = 0;
  REQUIRE(wait_until([&] {
    std::istringstream all{
        run(box.program({"/usr/bin/pgrep", "-x", "-f", "sleep " + seconds, "-P",
                         std::to_string(parent)}))
            .out};
    return static_cast<bool>(all >> result);
  }));
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
  // One that decides, one or two that execute programs.
  CHECK(std::stoi(proc_status(guardian, "Threads")) <= 3);
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
  CHECK(contains(text_of(box.unit("daemon").at("reason")),
                 "went into the background"));
  const auto log = box.pup({"logs", "--id", "daemon"}).out;
  INFO(log);
  CHECK(contains(log, "went into the background and left pid "));
  CHECK(contains(log, "(sleep)"));
  CHECK(contains(log, "daemon off;"));
  CHECK(box.end() == "");
}

// -- what belongs to a life, and how long it has to end -----------------------

namespace {

/// An application that takes a moment to end, below a shell that does not wait
/// for it: "went" tells that it ended by itself.
std::string patient_app(const std::string& wrapper_before,
                        const std::string& wrapper_after) {
  return R"({"id": "app", "terminateTimeout": 60, "restart": "never", "cmd":
    ")" + wrapper_before
         + R"(bash -c 'trap \"sleep 1; echo went >> went; exit 0\" TERM; touch up; while :; do sleep 0.05; done')"
         + wrapper_after + R"("})";
}

}  // namespace

SCENARIO("the end of a shell is not that of what it runs") {
  for (const auto& [before, after] :
       {std::pair{"", "; echo after"}, std::pair{"", " & wait"},
        std::pair{"setsid ", " & wait"}, std::pair{"(", ") & exec sleep 1000"},
        std::pair{"env -i setsid ", " & wait"}}) {
    INFO(before << "…" << after);
    sandbox box;
    box.write("config.json", config({patient_app(before, after)}));
    start(box);
    REQUIRE(
        wait_until([&] { return std::filesystem::exists(box.path("up")); }));
    CHECK(box.pup({"stop", "app"}).code == 0);
    CHECK(box.read("went") == "went\n");
    CHECK(others(box).empty());
    const auto why = box.pup({"why", "app"}).out;
    INFO(why);
    CHECK_FALSE(contains(why, "SIGKILL"));
    CHECK(box.end() == "");
  }
}

SCENARIO("a leader that fails gives what it has left the time of a stop") {
  sandbox box;
  box.write("config.json",
            config({patient_app("",
                                " & while [ ! -e up ]; do sleep 0.05; "
                                "done; exit 3")}));
  static_cast<void>(box.pup({"start", "config.json"}));
  REQUIRE(wait_until(
      [&] { return text_of(box.unit("app").at("state")) == "failed"; }));
  CHECK(box.read("went") == "went\n");
  CHECK(others(box).empty());
  const auto reason = text_of(box.unit("app").at("reason"));
  INFO(reason);
  CHECK(contains(reason, "exited with code 3; left pid "));
  CHECK(box.end() == "");
}

SCENARIO("what has to be killed is named") {
  sandbox box;
  box.write("config.json",
            config({R"({"id": "app", "terminateTimeout": 1, "cmd":
    "sh -c 'trap \"\" TERM; touch up; sleep 1000; :' & wait"})"}));
  start(box);
  REQUIRE(wait_until([&] { return std::filesystem::exists(box.path("up")); }));
  CHECK(box.pup({"stop", "app"}).code == 0);
  CHECK(others(box).empty());
  const auto why = box.pup({"why", "app"}).out;
  INFO(why);
  CHECK(contains(why, "got SIGKILL: pid "));
  CHECK(box.end() == "");
}

SCENARIO("a life that expires goes on expiring under the next supervisor") {
  sandbox box;
  box.write("config.json",
            config({R"({"id": "app", "terminateTimeout": 60, "restart": "never",
    "cmd": "sh -c 'trap \"\" TERM; touch up; while [ ! -e go ]; do sleep 0.05; done; exit 0' & while [ ! -e leave ]; do sleep 0.05; done; exit 3"})",
                    sleeper("other")}));
  start(box);
  REQUIRE(wait_until([&] { return std::filesystem::exists(box.path("up")); }));
  box.write("leave", "");
  REQUIRE(wait_until(
      [&] { return text_of(box.unit("app").at("state")) == "stopping"; }));
  const auto supervisor = only(box.supervisors());
  REQUIRE(::kill(supervisor, SIGKILL) == 0);
  REQUIRE(wait_until([&] {
    const auto now = box.supervisors();
    return now.size() == 1 && now.count(supervisor) == 0
           && box.pup({"status"}).code == 0;
  }));
  REQUIRE(wait_until(
      [&] { return text_of(box.unit("app").at("state")) == "stopping"; }));
  CHECK(box.unit("app").at("pid").is_null());
  box.write("go", "");
  CHECK(wait_until(
      [&] { return text_of(box.unit("app").at("state")) == "failed"; }));
  CHECK(contains(text_of(box.unit("app").at("reason")), "exited with code 3"));
  CHECK(others(box) == std::set<pid_t>{pid_of(box, "other")});
  CHECK(box.end() == "");
}

SCENARIO("a life that expires under two supervisors has its time once") {
  sandbox box;
  box.write("config.json", config({R"({"id": "app", "terminateTimeout": 10,
    "restart": "never", "cmd":
    "sh -c 'trap \"\" TERM; touch up; sleep 1000; :' & while [ ! -e leave ]; do sleep 0.05; done; exit 3"})"}));
  start(box);
  REQUIRE(wait_until([&] { return std::filesystem::exists(box.path("up")); }));
  const auto began = std::chrono::steady_clock::now();
  box.write("leave", "");
  REQUIRE(wait_until(
      [&] { return text_of(box.unit("app").at("state")) == "stopping"; }));
  // Most of its time is over when another supervisor takes over.
  std::this_thread::sleep_until(began + 8s);
  REQUIRE(::kill(only(box.supervisors()), SIGKILL) == 0);
  REQUIRE(wait_until([&] {
    return box.pup({"status"}).code == 0
           && text_of(box.unit("app").at("state")) == "failed";
  }));
  const auto taken = std::chrono::steady_clock::now() - began;
  CHECK(taken >= 10s);
  CHECK(taken < 18s);
  CHECK(contains(text_of(box.unit("app").at("reason")), "got SIGKILL: pid "));
  CHECK(box.end() == "");
}

SCENARIO(
    "what has cleaned everything that tells whose it is belongs to someone") {
  sandbox box;
  // Orphaned at once, another session, no environment, other descriptors: what
  // tells is that nobody else could have started it.
  box.write("config.json", config({R"({"id": "app", "restart": "never", "cmd":
    "(env -i setsid sleep 1006 </dev/null >/dev/null 2>&1 &) ; touch up; exec sleep 1007"})"}));
  start(box);
  REQUIRE(wait_until([&] { return std::filesystem::exists(box.path("up")); }));
  const auto daemon = sleeping_child(box, only(box.guardians()), "1006");
  CHECK(box.pup({"stop", "app"}).code == 0);
  CHECK(wait_for_end(daemon, 0ms));
  // Whose it is was found out after the stop signal, which it has had later.
  CHECK_FALSE(contains(box.pup({"why", "app"}).out, "SIGKILL"));
  CHECK(box.end() == "");
}

SCENARIO("below another pup an orphan is told by its own mark") {
  sandbox box;
  box.env["PUP_LIFE"] = "1.1#1";  // of the outer one
  box.write("config.json", config({sleeper("a"), R"({"id": "b", "cmd":
    "(setsid sleep 1012 </dev/null >/dev/null 2>&1 &) ; touch up; exec sleep 1013"})"}));
  start(box);
  REQUIRE(wait_until([&] { return std::filesystem::exists(box.path("up")); }));
  const auto orphan = sleeping_child(box, only(box.guardians()), "1012");
  CHECK(box.pup({"stop", "a"}).code == 0);
  CHECK(alive(orphan));
  CHECK(box.pup({"stop", "b"}).code == 0);
  CHECK(wait_for_end(orphan, 0ms));
  CHECK(box.end() == "");
}

SCENARIO("a stray of two possible owners is named, and ends with pup") {
  sandbox box;
  const auto daemon = [](const std::string& id) {
    return R"({"id": ")" + id + R"(", "cmd": "touch )" + id
           + R"(; while [ ! -e go ]; do sleep 0.02; done; [ )" + id
           + R"( = b ] && (env -i setsid sleep 1008 </dev/null >/dev/null 2>&1 &) ; exec sleep 1009"})";
  };
  box.write("config.json", config({daemon("a"), daemon("b")}));
  start(box);
  const auto guardian = only(box.guardians());
  REQUIRE(wait_until([&] {
    return std::filesystem::exists(box.path("a"))
           && std::filesystem::exists(box.path("b"));
  }));
  box.write("go", "");
  const auto stray = sleeping_child(box, guardian, "1008");
  const auto stopped = box.pup({"stop", "a"});
  CHECK(stopped.code == 1);
  INFO(stopped.out << stopped.err);
  CHECK(contains(stopped.out + stopped.err,
                 "pid " + std::to_string(stray) + " (sleep)"));
  CHECK(alive(stray));
  CHECK(contains(box.pup({"status"}).out + box.pup({"status"}).err,
                 "pid " + std::to_string(stray) + " (sleep)"));
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(wait_for_end(stray));
  CHECK(box.end() == "");
}

SCENARIO("a supervisor that is stopped is replaced") {
  sandbox box;
  box.env["PUP_HANG_TIMEOUT"] = "1";
  box.write("config.json", config({sleeper("a")}));
  start(box);
  const auto pid = pid_of(box, "a");
  const auto frozen = only(box.supervisors());
  freeze(frozen);
  CHECK(wait_for_end(frozen));
  REQUIRE(wait_until([&] { return box.pup({"status"}).code == 0; }));
  CHECK(pid_of(box, "a") == pid);
  CHECK(contains(box.read("state/pup/pup.log"),
                 "pid " + std::to_string(frozen)
                     + ", has been stopped (SIGSTOP) for 1 s"));
  CHECK(box.end() == "");
}

SCENARIO("a stopped process is stopped all the same, and soon") {
  sandbox box;
  box.write("config.json",
            config({R"({"id": "app", "terminateTimeout": 80, "cmd":
    ["bash", "-c", "trap 'echo went > went; exit 0' TERM; while :; do sleep 0.05; done"]})"}));
  start(box);
  freeze(pid_of(box, "app"));
  const auto stopped = box.pup({"stop", "app"}, 70s);
  CHECK(stopped.code == 0);
  CHECK(box.read("went") == "went\n");
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
  // The last one is the stop signal of several images.
  for (const int signo : {SIGTERM, SIGINT, SIGQUIT}) {
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

SCENARIO("a program that does not answer holds up no other process") {
  sandbox box;
  std::filesystem::copy_file("/bin/sleep", box.path("program"));
  box.write("config.json",
            config({R"({"id": "held", "cmd": ["./program", "1000"],
                        "terminateTimeout": 1})",
                    sleeper("other")}));
  held_file held{box.path("program")};
  if (!held) {
    WARN("this file system knows no leases: no program can be held up");
    return;
  }
  // It waits for the first start of each process.
  process starting{box.command({"start", "config.json"})};
  REQUIRE(wait_until([&] {
    const auto status = box.pup({"status", "--json"});
    return status.code == 0 && box.unit("other").at("pid").is_number();
  }));
  CHECK(text_of(box.unit("held").at("state")) == "starting");

  GIVEN("another process") {
    CHECK(box.pup({"restart", "other"}).code == 0);
    const auto before = pid_of(box, "other");
    REQUIRE(::kill(before, SIGKILL) == 0);
    CHECK(wait_until([&] {
      const auto now = box.unit("other").at("pid");
      return now.is_number() && now.to_number<pid_t>() != before;
    }));
  }
  GIVEN("its stop") {
    CHECK(box.pup({"stop", "held"}).code == 0);
    CHECK(text_of(box.unit("held").at("state")) == "stopped");
  }
  GIVEN("another supervisor") {
    const auto supervisor = only(box.supervisors());
    REQUIRE(::kill(supervisor, SIGKILL) == 0);
    REQUIRE(wait_until([&] {
      const auto now = box.supervisors();
      return now.size() == 1 && now.count(supervisor) == 0
             && box.pup({"status"}).code == 0;
    }));
    CHECK(text_of(box.unit("held").at("state")) == "starting");
    held.release();
    CHECK(wait_until(
        [&] { return text_of(box.unit("held").at("state")) == "ready"; }));
    CHECK(others(box)
          == std::set<pid_t>{pid_of(box, "held"), pid_of(box, "other")});
  }
  held.release();
  starting.wait();
  CHECK(box.end() == "");
}

SCENARIO("a guardian without a free descriptor sees what is left of a life") {
  sandbox box;
  std::vector<std::string> processes{R"({"id": "tree", "terminateTimeout": 20,
    "cmd": "setsid sh -c 'trap \"\" TERM; sleep 1001; sleep 1002' & exec sleep 1003"})"};
  for (int i = 0; i < 70; ++i)
    processes.push_back(R"({"id": "a)" + std::to_string(i)
                        + R"(", "cmd": ["sleep", "1000"], "autostart": false,
                            "restart": "never"})");
  box.write("config.json", config(processes));
  start(box);
  const auto guardian = only(box.guardians());
  // Fewer than its processes have been promised (their soft limit).
  const rlimit few{100, 100};
  REQUIRE(::prlimit(guardian, RLIMIT_NOFILE, &few, nullptr) == 0);
  const auto refused = box.pup({"start", "all"});
  CHECK(refused.code == 1);
  CHECK(contains(refused.err, "Too many open files"));
  const auto tree = pid_of(box, "tree");
  REQUIRE(::kill(tree, SIGKILL) == 0);
  const auto stopping = wait_until(
      [&] { return text_of(box.unit("tree").at("state")) == "stopping"; });
  INFO(box.pup({"why", "tree"}).out);
  CHECK(stopping);
  CHECK(box.end() == "");
}

SCENARIO("what leaves a daemon behind at once is known as its life") {
  sandbox box;
  // Each ends while others are being started; what it leaves gets the stop
  // signal.
  std::vector<std::string> processes;
  for (int i = 0; i < 60; ++i)
    processes.push_back(
        R"({"id": "d)" + std::to_string(i)
        + R"(", "restart": "never", "cmd": ["setsid", "-f", "sleep", "1000"]})");
  box.write("config.json", config(processes));
  run(box.command({"start", "config.json"}), 120s);
  CHECK(wait_until([&] { return others(box).empty(); }));
  const auto status = box.status();
  CHECK(status.at("warnings").as_array().empty());
  for (const auto& x : status.at("processes").as_array()) {
    INFO(x);
    CHECK(text_of(x.at("state")) == "finished");
  }
  CHECK(box.end() == "");
}

namespace {

/// The groups of lives, of this guardian and of others, that are there.
std::set<std::string> groups_of_lives(const std::string& folder) {
  std::set<std::string> result;
  for (const auto& x : std::filesystem::directory_iterator{folder})
    if (x.path().filename().string().starts_with("pup-life-"))
      result.insert(x.path().filename().string());
  return result;
}

/// The folder of the group that `pid` is in.
std::string group_of(pid_t pid) {
  const auto text = [](const std::string& path) {
    std::ostringstream result;
    result << std::ifstream{path}.rdbuf();
    return result.str();
  };
  return pup::own_cgroup(text("/proc/" + std::to_string(pid) + "/cgroup"),
                         text("/proc/self/mountinfo"));
}

}  // namespace

SCENARIO("a life of another user has a cgroup, which nothing of it can leave") {
  if (::geteuid() != 0) {
    WARN("left out: only root starts processes of other users");
    return;
  }
  sandbox box;
  std::filesystem::permissions(box.path(""), std::filesystem::perms::all);
  const auto daemon = [](const std::string& id) {
    return R"({"id": ")" + id + R"(", "user": "nobody", "cwd": "/", "cmd":
    "(env -i setsid sleep 101)"
           + id + R"( </dev/null >/dev/null 2>&1 &) ; exec sleep 1000"})";
  };
  box.write("config.json", config({daemon("4"), daemon("5"), daemon("6")}));
  start(box);
  const auto group = group_of(pid_of(box, "4"));
  if (!contains(group, "/pup-life-")) {
    WARN("left out: no cgroup of version 2 may be made here");
    CHECK(box.end() == "");
    return;
  }
  const auto folder = std::filesystem::path{group}.parent_path().string();
  const auto guardian = only(box.guardians());
  const auto before = groups_of_lives(folder);
  CHECK(before.size() >= 3);
  std::map<std::string, pid_t> orphans;
  for (const auto* id : {"4", "5", "6"})
    orphans[id] = sleeping_child(box, guardian, "101" + std::string{id});
  const auto gone = [&](const std::string& id) {
    CHECK(box.pup({"stop", id}).code == 0);
    CHECK(wait_for_end(orphans[id], 0ms));
  };
  gone("4");
  CHECK_FALSE(std::filesystem::exists(group));
  CHECK(alive(orphans["5"]));
  // Another supervisor finds everything with the guardian.
  const auto supervisor = only(box.supervisors());
  REQUIRE(::kill(supervisor, SIGKILL) == 0);
  REQUIRE(wait_until([&] {
    const auto now = box.supervisors();
    return now.size() == 1 && now.count(supervisor) == 0
           && box.pup({"status"}).code == 0;
  }));
  gone("5");
  CHECK(alive(orphans["6"]));
  CHECK(box.pup({"start", "4"}).code == 0);
  // Without a guardian all ends, too.
  const auto last = only(box.supervisors());
  orphans["4"] = sleeping_child(box, guardian, "1014");
  REQUIRE(::kill(guardian, SIGKILL) == 0);
  CHECK(wait_for_end(last));
  for (const auto* id : {"4", "6"})
    CHECK(wait_for_end(orphans[id], 0ms));
  const auto mine = "pup-life-" + std::to_string(guardian) + '.';
  for (const auto& x : groups_of_lives(folder))
    CHECK_FALSE(x.starts_with(mine));
  CHECK(box.end() == "");
}
