// Secrets that stay secrets, users, pid files and bounds of memory, with the
// program itself.
#include "catch.hpp"
#include "system.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>

#include <sys/stat.h>
#include <unistd.h>

using namespace pup::test;
namespace fs = std::filesystem;

namespace {

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string contents(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream{path, std::ios::binary}.rdbuf();
  return text.str();
}

}  // namespace

SCENARIO("the value of a variable is for its process alone") {
  const std::string secret = "s3cr3t-m4rk3r";
  sandbox box;
  box.write("pup.json", R"({"processes": [
    {"id": "a", "cmd": "echo $TOKEN $PASSWORD $KEY > got; exec sleep 1000",
     "env": {"TOKEN": "s3cr3t-m4rk3r-1"}, "envFile": ["a.env", "-none.env"],
     "hooks": {"preStart": "test -n \"$PASSWORD\""},
     "ready": {"type": "exec", "cmd": "test -s got"}},
    {"id": "fails", "cmd": ["sh", "-c", "exit 3"], "envFile": "a.env",
     "restartLimit": 1, "hooks": {"postStop": ["false"]}},
    {"id": "lost", "cmd": "exec ./none", "envFile": "a.env",
     "restart": "never"},
    {"id": "web", "cmd": ["sleep", "1000"], "envFile": "a.env",
     "cluster": {"instances": 2}}
  ]})");
  box.write("a.env",
            "# of all\nexport PASSWORD='s3cr3t-m4rk3r-2'\n"
            "KEY=\"-----\ns3cr3t-m4rk3r-3\n-----\"\n");
  ::chmod(box.path("a.env").c_str(), 0600);
  std::string said;
  const auto hear = [&](std::vector<std::string> arguments) {
    auto done = box.pup(std::move(arguments));
    said += done.out + done.err;
    return done;
  };
  hear({"validate", "pup.json"});
  REQUIRE(hear({"start", "--no-wait", "pup.json"}).code == 0);
  CHECK(wait_until([&] { return box.unit("a").at("state") == "ready"; }));
  CHECK(
      wait_until([&] { return box.unit("fails").at("state") == "exhausted"; }));
  // It does get them.
  CHECK(box.read("got")
        == "s3cr3t-m4rk3r-1 s3cr3t-m4rk3r-2 ----- s3cr3t-m4rk3r-3 -----\n");
  fs::remove(box.path("got"));

  hear({"restart", "a"});
  CHECK(wait_until([&] { return fs::exists(box.path("got")); }));
  hear({"scale", "web", "3"});
  hear({"status"});
  hear({"status", "--json"});
  hear({"status", "a"});
  hear({"logs"});
  hear({"logs", "--json"});
  hear({"signal", "a", "CONT"});
  hear({"start", "pup.json"});  // refused: it runs
  hear({"why", "fails"});
  hear({"why", "lost", "--json"});
  // A change of values is one of `env`, and no more is said.
  box.write("a.env", "PASSWORD=s3cr3t-m4rk3r-4\n");
  auto plan = hear({"apply", "pup.json", "--dry-run"});
  CHECK(plan.code == 0);
  CHECK(contains(plan.out, "env"));
  CHECK(hear({"apply", "pup.json", "--no-wait"}).code == 0);
  CHECK(wait_until([&] {
    return contains(box.read("got"), "s3cr3t-m4rk3r-1 s3cr3t-m4rk3r-4\n");
  }));

  // Files that are wrong just there.
  box.write("bad.json", R"({"processes": [{"id": "a", "cmd": "x", "env": {
    "A": "s3cr3t-m4rk3r%{", "B": "%{s3cr3t-m4rk3r}", "C": ["s3cr3t-m4rk3r"],
    "D": "s3cr3t-m4rk3r\u0000"}, "envFile": ["bad.env", "worse.env"]}]})");
  box.write("bad.env", "A=1\ns3cr3t-m4rk3r\n");
  box.write("worse.env", "A='s3cr3t-m4rk3r\n");
  auto bad = hear({"validate", "bad.json"});
  CHECK(bad.code == 2);
  CHECK(std::count(bad.err.begin(), bad.err.end(), '\n') == 6);

  for (auto pid : box.supervisors()) {
    const auto folder = "/proc/" + std::to_string(pid);
    CHECK_FALSE(contents(folder + "/cmdline").empty());
    said += contents(folder + "/cmdline") + contents(folder + "/environ");
  }
  CHECK_FALSE(said.empty());
  CHECK_FALSE(contains(said, secret));
  // Nor has it been written anywhere: state, log, runtime files.
  const std::set<std::string> known{"pup.json", "a.env",     "bad.json",
                                    "bad.env",  "worse.env", "got"};
  std::size_t looked_at = 0;
  for (auto& entry : fs::recursive_directory_iterator{box.path()}) {
    if (!entry.is_regular_file()
        || known.count(entry.path().filename().string()) != 0)
      continue;
    INFO(entry.path());
    ++looked_at;
    CHECK_FALSE(contains(contents(entry.path()), secret));
  }
  CHECK(looked_at > 0);
}

SCENARIO("a low soft limit of descriptors bounds the processes, not pup") {
  sandbox box;
  box.write("pup.json", R"({"processes": [
    {"id": "as-before", "cmd": "ulimit -Sn >before; ulimit -Hn >>before",
     "restart": "never"},
    {"id": "own", "cmd": "ulimit -Sn >own", "restart": "never",
     "limits": {"nofile": 50}},
    {"id": "many", "cmd": ["sleep", "1000"], "cluster": {"instances": 60}}]})");
  auto command = box.command({"start", "pup.json"});
  const auto program = command.argv.front();
  command.argv = {"/bin/sh", "-c",
                  "ulimit -Sn 64; ulimit -Hn 4000; exec \"$0\" start pup.json",
                  program};
  const auto started = run(command);
  CHECK(started.code == 0);
  CHECK_FALSE(contains(started.out, "/dev/null"));
  CHECK(box.unit("many").at("ready") == 60);
  CHECK(wait_until([&] {
    return box.read("before") == "64\n4000\n" && box.read("own") == "50\n";
  }));
  CHECK(box.end() == "");
}

SCENARIO("a process has a pid file as long as it runs") {
  sandbox box;
  box.write("pup.json", R"({"processes": [
    {"id": "web", "cmd": ["sleep", "1000"], "pidFile": "pids/%{id}.pid",
     "cluster": {"instances": 2}}]})");
  box.write("pids/web-1.pid", "1\n");  // stale
  REQUIRE(box.pup({"start", "pup.json"}).code == 0);
  const auto web = box.unit("web");
  for (auto& x : web.at("instances").as_array())
    CHECK(box.read("pids/" + std::string{x.at("id").as_string()} + ".pid")
          == std::to_string(x.at("pid").to_number<int>()) + '\n');
  CHECK(box.pup({"stop", "web-2"}).code == 0);
  CHECK_FALSE(fs::exists(box.path("pids/web-2.pid")));
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(wait_until([&] { return fs::is_empty(box.path("pids")); }));
}

SCENARIO("who uses more memory than it may is restarted") {
  sandbox box;
  box.env["PATH"] = "/usr/bin:/bin";
  // Large once, then small.
  box.write("grow.py", R"(import os, time
first = not os.path.exists('begun')
open('begun', 'a').write('x')
if first:
  held = bytearray(b'x' * (80 << 20))
time.sleep(1000)
)");
  box.write("pup.json", R"({"processes": [{"id": "grow",
    "cmd": ["python3", "grow.py"], "maxMemory": "60M"}]})");
  REQUIRE(box.pup({"start", "pup.json"}).code == 0);
  CHECK(wait_until([&] { return box.read("begun") == "xx"; }));
  CHECK(wait_until([&] { return box.unit("grow").at("state") == "ready"; }));
  CHECK(box.unit("grow").at("restarts").to_number<int>() == 1);
  const auto log = box.pup({"logs", "grow"}).out;
  INFO(log);
  CHECK(contains(log, ", more than maxMemory 60M; is to be restarted"));
}

SCENARIO("memory that the processes of a life share counts once") {
  // Together they share 100 MB, which the sum of all four counts four times.
  // "thrifty" is above what its leader alone has; "greedy" is above its bound.
  sandbox box;
  const auto preforks = [](const std::string& id, const std::string& own) {
    return R"({"id": ")" + id + R"(", "cmd": [")" + PUP_SHARING
           + R"(", "100", ")" + own + R"(", "3"], "maxMemory": "300M",
           "ready": {"type": "log", "pattern": "^shared$"}})";
  };
  box.write("pup.json",
            config({preforks("thrifty", "20"), preforks("greedy", "80")}));
  REQUIRE(box.pup({"start", "pup.json"}).code == 0);
  const auto of = [&](const std::string& id) { return box.unit(id); };
  const auto megabytes = [](const boost::json::object& x) {
    return x.at("rssBytes").to_number<std::int64_t>() >> 20;
  };
  const auto pid = of("thrifty").at("pid").to_number<int>();
  const auto other = of("greedy").at("pid").to_number<int>();
  CHECK(wait_until(
      [&] { return of("greedy").at("restarts").to_number<int>() > 0; }));
  // What is shown is what has been measured: more than the leader has, less
  // than the sum.
  CHECK(wait_until([&] { return megabytes(of("thrifty")) >= 160; }));
  CHECK(megabytes(of("thrifty")) < 300);
  CHECK(of("thrifty").at("restarts").to_number<int>() == 0);
  CHECK(of("thrifty").at("pid").to_number<int>() == pid);
  CHECK(wait_until([&] { return !alive(other); }));
  const auto log = box.pup({"logs"}).out;
  INFO(log);
  CHECK(contains(log, ", more than maxMemory 300M; is to be restarted"));
  CHECK_FALSE(contains(log, " thrifty warn "));
}

SCENARIO("processes and their hooks run as the user they are to run as") {
  if (::geteuid() != 0) {
    WARN("not root: left out");
    return;
  }
  sandbox box;
  ::chmod(box.path().c_str(), 0755);
  box.write("out/x", "");
  REQUIRE(::chown(box.path("out").c_str(), 65'534, 65'534) == 0);
  box.write("pup.json", R"({"processes": [{"id": "a", "cwd": "out",
    "cmd": "echo $USER $(id -u) $(id -g) $HOME > a; umask >> a; ulimit -n >> a; exec sleep 1000",
    "user": "nobody", "umask": "077", "limits": {"nofile": 99},
    "hooks": {"preStart": "id -u > hook"},
    "ready": {"type": "exec", "cmd": ["grep", "-q", "99", "a"]}}]})");
  auto started = box.pup({"start", "pup.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
  CHECK(contains(box.read("out/a"), "nobody 65534 "));
  CHECK(contains(box.read("out/a"), "\n0077\n99\n"));
  CHECK(box.read("out/hook") == "65534\n");
  struct stat info {};
  REQUIRE(::stat(box.path("out/a").c_str(), &info) == 0);
  CHECK(info.st_uid == 65'534);
  CHECK((info.st_mode & 0777) == 0600);
}

SCENARIO("another user does not get root's variables, and that is said once") {
  if (::geteuid() != 0) {
    WARN("not root: left out");
    return;
  }
  sandbox box;
  ::chmod(box.path().c_str(), 0755);
  box.write("out/x", "");
  REQUIRE(::chown(box.path("out").c_str(), 65'534, 65'534) == 0);
  box.env["LC_ALL"] = "C";
  box.env["AGENT_SOCKET"] = "s3cr3t-m4rk3r";
  box.write("pup.json", R"({"processes": [
    {"id": "a", "cwd": "out", "cmd": "env > a; exec sleep 1000",
     "user": "nobody", "hooks": {"preStart": "env > hook"},
     "ready": {"type": "exec", "cmd": ["test", "-s", "a"]}},
    {"id": "b", "cwd": "out", "cmd": "env > b; exec sleep 1000",
     "user": "nobody", "inheritEnv": ["AGENT_*"],
     "ready": {"type": "exec", "cmd": ["test", "-s", "b"]}},
    {"id": "c", "cmd": "env > c; exec sleep 1000",
     "ready": {"type": "exec", "cmd": ["test", "-s", "c"]}}]})");
  REQUIRE(box.pup({"start", "pup.json"}).code == 0);
  for (auto* file : {"out/a", "out/hook"}) {
    INFO(file);
    CHECK(contains(box.read(file), "LC_ALL=C\n"));
    CHECK(contains(box.read(file), "USER=nobody\n"));
    CHECK_FALSE(contains(box.read(file), "AGENT_SOCKET"));
    CHECK_FALSE(contains(box.read(file), "PUP_RUNTIME_DIR"));
  }
  CHECK(contains(box.read("out/b"), "AGENT_SOCKET=s3cr3t-m4rk3r\n"));
  CHECK_FALSE(contains(box.read("out/b"), "LC_ALL"));
  CHECK(contains(box.read("c"), "AGENT_SOCKET=s3cr3t-m4rk3r\n"));

  const auto times_told = [&] {
    const auto log = box.pup({"logs"}).out;
    INFO(log);
    CHECK(contains(log, "runs as nobody and does not inherit AGENT_SOCKET, "));
    CHECK_FALSE(contains(log, "s3cr3t-m4rk3r"));
    std::size_t count = 0;
    for (auto at = log.find("does not inherit"); at != std::string::npos;
         at = log.find("does not inherit", at + 1))
      ++count;
    return count;
  };
  CHECK(times_told() == 1);
  CHECK(box.pup({"terminate"}).code == 0);
  REQUIRE(box.pup({"start", "pup.json"}).code == 0);
  CHECK(times_told() == 1);
}

SCENARIO("who is not root is told before anything starts") {
  sandbox box;
  box.write("pup.json", R"({"processes": [{"id": "a", "cmd": "exec sleep 1000",
    "user": "root", "nice": -20, "umask": "0999"},
    {"id": "b", "cmd": "exec sleep 1000", "user": "no-such-user-here"}]})");
  auto command = box.command({"validate", "pup.json"});
  if (::geteuid() == 0) {
    fs::permissions(box.path(), fs::perms{0755});
    fs::permissions(box.path("pup.json"), fs::perms{0644});
    command.user = 65'534;
  }
  const auto refused = run(command);
  INFO(refused.err);
  CHECK(refused.code == 2);
  CHECK(contains(refused.err,
                 "pup.json:2:13: processes[0].user: `root` is not permitted: "
                 "pup does not run as root; remove it, or run pup as root"));
  CHECK(contains(refused.err, "processes[0].nice: -20 is below pup's own "));
  CHECK(contains(refused.err, "processes[0].umask: \"0999\" is not a umask"));
  CHECK(contains(refused.err,
                 "processes[1].user: `no-such-user-here` is no "
                 "user of this machine"));
}
