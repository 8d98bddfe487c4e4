// The limits of cgroups, with the program itself in a group of its own. They
// need cgroups of version 2 with controllers that nobody else has taken:
// tests/machine boots a Linux that has them, and sets PUP_TEST_MACHINE there.
// Elsewhere there is nothing to look at.
#include "pup/runtime/cgroup.hpp"

#include "catch.hpp"
#include "system.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <sys/stat.h>
#include <unistd.h>

using namespace pup::test;
namespace fs = std::filesystem;

namespace {

std::string contents(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream{path, std::ios::binary}.rdbuf();
  return text.str();
}

// The number behind `key` in a file of such lines; 0: it has none.
long count_of(const std::string& key, const fs::path& path) {
  std::istringstream lines{contents(path)};
  long result = 0;
  for (std::string word; lines >> word;)
    if (word == key)
      lines >> result;
  return result;
}

/// A group below the root of all.
class own_group {
public:
  own_group() {
    if (std::getenv("PUP_TEST_MACHINE") == nullptr)
      return;
    const auto root = pup::own_cgroup("0::/", contents("/proc/self/mountinfo"));
    std::ofstream{root + "/cgroup.subtree_control"} << "+cpu +memory +pids";
    path_ = root + "/test-" + std::to_string(::getpid());
    fs::create_directory(path_);
  }
  own_group(const own_group&) = delete;
  own_group& operator=(const own_group&) = delete;
  ~own_group() {
    if (path_.empty())
      return;
    // What the guardian was in goes with the group that held it.
    for (const auto& x : fs::directory_iterator{path_})
      if (x.is_directory())
        ::rmdir(x.path().c_str());
    CHECK(::rmdir(path_.c_str()) == 0);
  }

  [[nodiscard]] bool exists() const {
    if (path_.empty())
      WARN("no cgroups of version 2 to be divided: see tests/machine");
    return !path_.empty();
  }
  [[nodiscard]] fs::path path() const {
    return path_;
  }

  /// Runs that in it.
  [[nodiscard]] command_line within(command_line what) const {
    std::vector<std::string> argv{"/bin/sh", "-c",
                                  R"(echo $$ > "$0" && exec "$@")",
                                  path_ + "/cgroup.procs"};
    argv.insert(argv.end(), what.argv.begin(), what.argv.end());
    what.argv = std::move(argv);
    return what;
  }

private:
  std::string path_;
};

}  // namespace

SCENARIO("cgroup limits hold in a group that pup may divide") {
  const own_group group;
  if (!group.exists())
    return;
  sandbox box;
  box.write("pup.json",
            config({
                R"({"id": "memory", "memoryMax": "60M", "restart": "never",
          "cmd": ["dd", "if=/dev/zero", "of=/dev/null", "bs=240M", "count=1"]})",
                R"({"id": "processes", "pidsMax": 3,
          "cmd": "(for i in 1 2 3 4; do sleep 1000 & done) & exec sleep 1000"})",
                R"({"id": "cpu", "cmd": "while :; do :; done", "cpuMax": 0.1})",
                R"({"id": "hides", "pidsMax": 9, "user": "nobody", "cwd": "/",
          "cmd": "setsid env -i sleep 1001 & exec sleep 1000"})",
                R"({"id": "web", "cmd": ["sleep", "1000"], "memoryMax": "50M",
          "cluster": {"instances": 2}})",
            }));
  process pup{group.within(box.command({"run"}))};
  REQUIRE(pup.says("is up"));
  const auto guardian = std::to_string(pup.pid());
  const auto group_of = [&](const std::string& id) {
    return group.path() / ("pup-" + guardian + '-' + id);
  };

  CHECK(wait_until([&] { return box.unit("memory").at("state") == "failed"; }));
  CHECK(box.unit("memory").at("reason") == "killed by SIGKILL (out of memory)");
  CHECK(wait_until([&] {
    return count_of("max", group_of("processes") / "pids.events") > 0;
  }));
  CHECK(wait_until([&] {
    return count_of("nr_throttled", group_of("cpu") / "cpu.stat") > 0;
  }));
  CHECK(contents(group_of("web-2") / "memory.max") == "52428800\n");
  for (const auto* id : {"processes", "cpu", "hides"})
    CHECK(box.unit(id).at("reason") == "");

  WHEN("somebody is stopped who has hidden something") {
    const auto procs = group_of("hides") / "cgroup.procs";
    REQUIRE(wait_until(
        [&] { return std::ranges::count(contents(procs), '\n') == 2; }));
    CHECK(box.pup({"stop", "hides"}).code == 0);
    CHECK_FALSE(fs::exists(group_of("hides")));
  }
  WHEN("another supervisor goes on") {
    REQUIRE(::kill(box.status().at("pid").to_number<pid_t>(), SIGKILL) == 0);
    CHECK(wait_until([&] {
      const auto done = box.pup({"stop", "web-2"});
      return done.code == 0;
    }));
    CHECK_FALSE(fs::exists(group_of("web-2")));
    CHECK(box.pup({"scale", "web", "3"}).code == 0);
    CHECK(contents(group_of("web-3") / "memory.max") == "52428800\n");
    CHECK(box.unit("web").at("reason") == "");
  }
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(pup.wait().code == 0);
  for (const auto* id : {"memory", "processes", "cpu", "hides", "web-1"})
    CHECK_FALSE(fs::exists(group_of(id)));
}

SCENARIO("in a group with others a process runs without cgroup limits") {
  const own_group group;
  if (!group.exists())
    return;
  sandbox box;
  process other{group.within(box.program({"sleep", "1000"}))};
  const auto procs = group.path() / "cgroup.procs";
  REQUIRE(wait_until([&] { return !contents(procs).empty(); }));
  box.write("pup.json",
            config({R"({"id": "a", "cmd": ["sleep", "1000"], "pidsMax": 9})"}));
  process pup{group.within(box.command({"run"}))};
  REQUIRE(pup.says("is up"));
  CHECK(box.unit("a").at("state") == "ready");
  CHECK(box.unit("a").at("reason")
        == boost::json::string{"cgroup limits are not in force: pid "
                               + std::to_string(other.pid())
                               + " is in the group " + group.path().string()
                               + " as well, which is not pup's own"});
  CHECK(contents(group.path() / "cgroup.subtree_control").empty());
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(pup.wait().code == 0);
  other.signal(SIGKILL);
  CHECK(other.wait().signal == SIGKILL);
}
