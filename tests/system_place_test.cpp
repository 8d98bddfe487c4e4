// The runtime folder of a supervisor goes while it runs, as at logout or by
// hand: it makes everything anew, and stays the only one of its name.
#include "catch.hpp"
#include "system.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>

#include <sys/stat.h>

using namespace pup::test;

namespace fs = std::filesystem;

namespace {

bool contains(const std::string& text, const std::string& what) {
  return text.find(what) != std::string::npos;
}

/// A running cluster of two, and what is done to its runtime folder.
struct running_world : sandbox {
  explicit running_world(const std::string& top = {}) {
    write("pup.json", config({web(ports, 2)}, top));
    const auto started = pup({"start", "pup.json"});
    INFO(started.err);
    REQUIRE(started.code == 0);
  }

  [[nodiscard]] bool answers() const {
    return wait_until([&] { return pup({"status"}).code == 0; });
  }

  pid_t pid() const {
    return status().at("pid").to_number<pid_t>();
  }

  /// In place of the parent of all runtime folders is a file, so that not even
  /// root can make one.
  void block() const {
    fs::rename(path("run"), path("gone"));
    fs::remove_all(path("gone"));
    write("run", "");
  }
  void unblock() const {
    fs::remove(path("run"));
  }

  std::size_t said(const std::string& what) const {
    const auto text = read("state/pup/pup.log");
    std::size_t result = 0;
    for (auto at = text.find(what); at != std::string::npos;
         at = text.find(what, at + 1))
      ++result;
    return result;
  }

  port_range ports{3};
};

/// Somebody removes it without regard to what is made in it meanwhile.
void remove_all(const std::string& path) {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

}  // namespace

SCENARIO("a runtime folder that is removed is made anew, with its sockets") {
  running_world box;
  const auto pid = box.pid();
  for (const auto* gone : {"run/pup", "run", "run/pup/control.sock",
                           "run/pup/supervisor", "run/pup/lock"}) {
    INFO(gone);
    remove_all(box.path(gone));
    REQUIRE(box.answers());
    CHECK(box.pid() == pid);
    REQUIRE(wait_until([&] {
      return fs::exists(box.path(gone)) && fs::exists(box.path("run/pup/lock"));
    }));
  }
  struct stat info {};
  REQUIRE(::stat(box.path("run/pup").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0700);
  CHECK(box.pup({"scale", "web", "3"}).code == 0);
  CHECK(get(box.ports[0]).status == 200);
  const auto second = box.pup({"start", "pup.json"});
  CHECK(second.code == 1);
  CHECK(
      contains(second.err, "is already running as pid " + std::to_string(pid)));
  CHECK(box.supervisors().size() == 1);
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(box.end() == "");
}

SCENARIO("without a runtime folder a second one is refused, with the reason") {
  running_world box;
  const auto pid = box.pid();
  box.block();
  REQUIRE(
      wait_until([&] { return box.said("no command can reach pup") == 1; }));
  for (const auto* runtime : {"run", "elsewhere"}) {
    INFO(runtime);
    auto line = box.command({"start", "pup.json"});
    line.env["PUP_RUNTIME_DIR"] = box.path(runtime);
    const auto second = run(line);
    CHECK(second.code == 1);
    CHECK(contains(second.err, "is already running as pid "
                                   + std::to_string(pid) + " on "
                                   + box.path("state/pup")));
  }
  CHECK(contains(box.pup({"start", "pup.json"}).err,
                 "its runtime folder " + box.path("run/pup") + " was removed"));
  const auto asked = box.pup({"status"});
  CHECK(asked.code == 3);
  CHECK(contains(asked.err, "'pup' runs as pid " + std::to_string(pid)
                                + ", but cannot be reached in "
                                + box.path("run/pup")));
  CHECK(box.supervisors().size() == 1);
  CHECK(get(box.ports[0]).status == 200);
  box.unblock();
  REQUIRE(box.answers());
  CHECK(box.pid() == pid);
  CHECK(box.end() == "");
}

SCENARIO("a successor makes the runtime folder anew") {
  running_world box;
  const auto first = box.pid();
  SECTION("of one that was killed without it") {
    box.block();
    REQUIRE(
        wait_until([&] { return box.said("no command can reach pup") == 1; }));
    REQUIRE(::kill(first, SIGKILL) == 0);
    REQUIRE(wait_for_end(first));
    // The successor comes up though nobody can ask it.
    REQUIRE(
        wait_until([&] { return box.said("no command can reach pup") == 2; }));
    const auto second = box.pup({"start", "pup.json"});
    CHECK(second.code == 1);
    CHECK(contains(second.err, "is already running as pid"));
    CHECK(get(box.ports[0]).status == 200);
    box.unblock();
    REQUIRE(box.answers());
  }
  SECTION("that had made it anew") {
    remove_all(box.path("run/pup"));
    REQUIRE(box.answers());
    REQUIRE(::kill(first, SIGKILL) == 0);
    REQUIRE(wait_for_end(first));
    REQUIRE(box.answers());
  }
  SECTION("after an upgrade") {
    remove_all(box.path("run"));
    REQUIRE(box.answers());
    CHECK(box.pup({"upgrade"}).code == 0);
    remove_all(box.path("run/pup"));
    REQUIRE(box.answers());
  }
  CHECK(box.pid() != first);
  CHECK(box.pup({"scale", "web", "3"}).code == 0);
  CHECK(box.supervisors().size() == 1);
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(box.end() == "");
}

SCENARIO("the door for readers is made anew as well") {
  running_world box{R"("ipc": {"readers": ")" + std::to_string(::getegid())
                    + "\"}"};
  remove_all(box.path("run"));
  REQUIRE(box.answers());
  REQUIRE(
      wait_until([&] { return fs::exists(box.path("run/pup/status.sock")); }));
  struct stat info {};
  REQUIRE(::stat(box.path("run/pup").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0710);
  CHECK(box.end() == "");
}
