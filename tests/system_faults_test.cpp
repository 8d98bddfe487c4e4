// What the machine runs out of: the supervisor goes on serving, says what is
// wrong, and recovers by itself.
#include "pup/runtime/descendants.hpp"

#include "catch.hpp"
#include "system.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

namespace fs = std::filesystem;
using words = std::vector<std::string>;

std::string text_of(const json::value& x) {
  return std::string{x.as_string().data(), x.as_string().size()};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

pid_t pid_of(const json::object& status) {
  return status.at("pid").to_number<pid_t>();
}

std::string warnings_in(const json::object& status) {
  std::string result;
  for (const auto& x : status.at("warnings").as_array())
    result += text_of(x) + '\n';
  return result;
}

#ifndef __SANITIZE_ADDRESS__
/// A new soft limit; the old one.
rlim_t limit(pid_t pid, decltype(RLIMIT_NOFILE) what, rlim_t soft) {
  rlimit before{};
  REQUIRE(::prlimit(pid, what, nullptr, &before) == 0);
  const rlimit after{soft, before.rlim_max};
  REQUIRE(::prlimit(pid, what, &after, nullptr) == 0);
  return before.rlim_cur;
}

std::size_t descriptors_of(pid_t pid) {
  const fs::directory_iterator all{"/proc/" + std::to_string(pid) + "/fd"};
  return static_cast<std::size_t>(std::distance(all, {}));
}
#endif

std::string sleepers(int instances) {
  return R"({"id": "many", "cmd": ["sleep", "1000"],
             "cluster": {"instances": )"
         + std::to_string(instances) + "}}";
}

/// A small disk of its own for the state; unmounted at the end.
class small_disk {
public:
  explicit small_disk(std::string folder) : folder_(std::move(folder)) {
    fs::create_directories(folder_);
    mounted_ =
        ::mount("pup-test", folder_.c_str(), "tmpfs", 0, "size=512k,mode=700")
        == 0;
  }
  small_disk(const small_disk&) = delete;
  small_disk& operator=(const small_disk&) = delete;
  ~small_disk() {
    if (mounted_)
      ::umount2(folder_.c_str(), MNT_DETACH);
  }

  explicit operator bool() const {
    return mounted_;
  }
  void fill() const {
    std::ofstream file{folder_ + "/filler"};
    const std::string block(4096, 'x');
    while (file.write(block.data(), 4096).flush()) {}
  }
  void free() const {
    fs::remove(folder_ + "/filler");
  }

private:
  std::string folder_;
  bool mounted_ = false;
};

}  // namespace

SCENARIO("out of descriptors: commands get through, and say what is wrong") {
#ifdef __SANITIZE_ADDRESS__
  // See system_bad_days_test: its run-time library needs a pipe now and then.
  WARN("not under sanitizers");
  return;
#else
  sandbox box;
  const port_range ports{4};
  box.write("config.json", config({web(ports, 2), sleepers(1)}));
  REQUIRE(box.pup({"start", "config.json"}).code == 0);
  const auto pid = pid_of(box.status());
  connection old{endpoint{ports[0], "127.0.0.1", {}}};
  REQUIRE(old.get().status == 200);
  const auto before =
      limit(pid, RLIMIT_NOFILE, static_cast<rlim_t>(descriptors_of(pid)) - 4);

  for (int i = 0; i < 3; ++i) {
    const auto now = box.status();
    CHECK(contains(warnings_in(now), "file descriptors are in use"));
  }
  CHECK(contains(box.pup({"status"}).out, "warning: all "));
  CHECK(old.get().status == 200);
  // It starts, but nothing can take its output.
  box.pup({"scale", "many", "2"});
  const auto many = box.unit("many");
  CHECK(contains(text_of(many.at("instances").at(1).at("reason")),
                 "Too many open files"));
  CHECK(text_of(box.unit("web").at("state")) == "running");

  limit(pid, RLIMIT_NOFILE, before);
  CHECK(wait_until([&] { return box.unit("many").at("ready") == 2; }));
  CHECK(wait_until([&] { return warnings_in(box.status()).empty(); }));
  CHECK(get(ports[0]).status == 200);
  CHECK(box.end() == "");
#endif
}

SCENARIO("out of processes: what runs goes on, what does not comes up later") {
  if (::geteuid() != 0) {
    WARN("skipped: needs root, to act as a user who has no other processes");
    return;
  }
  sandbox box;
  const auto user = static_cast<uid_t>(60'000 + ::getpid() % 5'000);
  REQUIRE(::chmod(box.path().c_str(), 0755) == 0);
  for (const auto* folder : {"run", "state", "home"}) {
    fs::create_directory(box.path(folder));
    REQUIRE(::chown(box.path(folder).c_str(), user, user) == 0);
  }
  const fs::path program = PUP_PROGRAM;
  for (const auto* x : {"pup", "pup-guardian"})
    fs::copy_file(program.parent_path() / x, box.path(x));
  // A shortage is no restart and no failed start.
  box.write("home/config.json",
            config({R"({"id": "many", "cmd": ["sleep", "1000"],
                        "restartLimit": 1, "startLimit": 1,
                        "cluster": {"instances": 2}})"}));
  const auto pup = [&](words arguments) {
    arguments.insert(arguments.begin(), box.path("pup"));
    auto command = box.program(std::move(arguments));
    command.user = user;
    return run(command);
  };
  const auto status = [&] {
    return parse_json(pup({"status", "--json"}).out).as_object();
  };
  const auto started = pup({"start", box.path("home/config.json")});
  INFO(started.err);
  REQUIRE(started.code == 0);
  // The guardian is who starts processes.
  const auto pid = std::to_string(pup::parent_of(pid_of(status())));
  // As that user: root may lack the right to limit others.
  const auto prlimit = [&](words arguments) {
    arguments.insert(arguments.begin(), {"/usr/bin/prlimit", "--pid", pid});
    auto command = box.program(std::move(arguments));
    command.user = user;
    const auto result = run(command);
    INFO(result.err);
    REQUIRE(result.code == 0);
    return result.out.substr(0, result.out.find('\n'));
  };
  const auto before =
      prlimit({"--nproc", "--output", "SOFT", "--noheadings", "--raw"});
  prlimit({"--nproc=1:"});

  const auto grown = pup({"scale", "many", "4"});
  CHECK(grown.code == 1);
  CHECK(contains(grown.err, "Resource temporarily unavailable"));
  const auto now = status();
  const auto& many = with_id(now.at("processes").as_array(), "many");
  CHECK(text_of(many.at("state")) == "degraded");
  CHECK(many.at("ready") == 2);
  CHECK(
      contains(text_of(many.at("reason")), "Resource temporarily unavailable"));

  const auto postponed = [&] {
    const auto why = pup({"why", "many-4"}).out;
    std::size_t result = 0;
    for (auto at = why.find("a shortage of the machine"); at != why.npos;
         at = why.find("a shortage of the machine", at + 1))
      ++result;
    return result;
  };
  CHECK(wait_until([&] { return postponed() > 3; }));

  prlimit({"--nproc=" + before + ":"});
  CHECK(wait_until([&] {
    const auto later = status();
    return with_id(later.at("processes").as_array(), "many").at("ready") == 4;
  }));
  CHECK(pup({"terminate"}).code == 0);
  CHECK(box.running().empty());
}

SCENARIO("a full disk") {
  sandbox box;
  const small_disk disk{box.path("state")};
  if (!disk) {
    WARN("skipped: no right to mount a small disk here");
    return;
  }
  const port_range ports{4};
  box.write("config.json", config({web(ports, 1), sleepers(1)}));
  REQUIRE(box.pup({"start", "config.json"}).code == 0);
  // Its state is on the disk; from now on nothing is.
  REQUIRE(wait_until(
      [&] { return contains(box.read("state/pup/state"), "process web-1"); }));
  disk.fill();
  const auto scaled = box.pup({"scale", "web", "3"});
  CHECK(scaled.err == "");
  CHECK(scaled.code == 0);
  REQUIRE(wait_until([&] {
    return contains(warnings_in(box.status()), "No space left on device");
  }));
  CHECK(contains(box.pup({"status"}).out, "warning: "));
  CHECK(get(ports[0]).status == 200);

  disk.free();
  REQUIRE(wait_until([&] { return warnings_in(box.status()).empty(); }));
  CHECK(contains(box.read("state/pup/state"), "process web-3"));
  CHECK(box.end() == "");
}

SCENARIO("a supervisor can be started on a full disk") {
  sandbox box;
  const small_disk disk{box.path("state")};
  if (!disk) {
    WARN("skipped: no right to mount a small disk here");
    return;
  }
  fs::create_directory(box.path("state/pup"));
  disk.fill();
  box.write("config.json", config({sleepers(2)}));
  CHECK(box.pup({"start", "config.json"}).code == 0);
  CHECK(box.unit("many").at("ready") == 2);
  CHECK(wait_until([&] {
    return contains(warnings_in(box.status()), "No space left on device");
  }));
  disk.free();
  CHECK(wait_until([&] { return warnings_in(box.status()).empty(); }));
  CHECK(box.end() == "");
}

SCENARIO("a supervisor that was stopped goes on as if nothing had been") {
  sandbox box;
  const port_range ports{4};
  // It owes a word each second, and gives one ten times as often.
  box.write("config.json",
            config({web(ports, 2), R"({"id": "dog", "notify": true,
    "watchdogMs": 1000, "cmd": ")"
                                   "systemd-notify READY=1; while sleep 0.1; "
                                   "do systemd-notify WATCHDOG=1; done\"}"}));
  const auto has_notify = fs::exists("/usr/bin/systemd-notify");
  if (!has_notify)
    box.write("config.json", config({web(ports, 2), sleepers(1)}));
  REQUIRE(box.pup({"start", "config.json"}).code == 0);
  const auto before = box.status();
  const auto pid = pid_of(before);
  freeze(pid);
  // Somebody connects meanwhile, and is served afterwards.
  connection waiting{endpoint{ports[0], "127.0.0.1", {}}};
  waiting.ask("/");
  // The length of the pause is what is tested.
  std::this_thread::sleep_for(10s);
  ::kill(pid, SIGCONT);
  CHECK(waiting.answer().status == 200);
  CHECK(get(ports[0]).status == 200);
  const auto after = box.status();
  CHECK(text_of(box.unit("web").at("state")) == "running");
  for (std::size_t i = 0; i < 2; ++i) {
    const auto& was = before.at("processes").at(0).at("instances").at(i);
    const auto& is = after.at("processes").at(0).at("instances").at(i);
    CHECK(was.at("pid") == is.at("pid"));
  }
  if (has_notify) {
    CHECK(before.at("processes").at(1).at("pid")
          == after.at("processes").at(1).at("pid"));
    CHECK(after.at("processes").at(1).at("restarts") == 0);
  }
  CHECK(box.end() == "");
}
