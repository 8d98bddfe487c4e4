// The kernel's counts of those it killed for want of memory.
#include "pup/runtime/out_of_memory.hpp"

#include "catch.hpp"
#include "child_process.hpp"

#include <fstream>

using namespace pup;
namespace fs = std::filesystem;

namespace {

// Folders like /proc and /sys/fs/cgroup.
struct kernel {
  test::temporary_folder box;
  fs::path root{box.path()};

  kernel() {
    put("proc/vmstat", "nr_free_pages 5\noom_kill 3\nswap_ra 0\n");
    put("proc/self/cgroup", "0::/app\n");
    put("proc/7/cgroup", "0::/app/web-1\n");
    put("proc/8/cgroup", "0::/app\n");
    put("cgroup/app/memory.events", "low 0\noom 2\noom_kill 2\n");
    put("cgroup/app/web-1/memory.events", "oom_kill 0\n");
  }

  void put(const std::string& path, const std::string& text) const {
    fs::create_directories((root / path).parent_path());
    std::ofstream{root / path} << text;
  }

  oom_witness witness() const {
    return oom_witness{(root / "proc").string(), (root / "cgroup").string()};
  }
};

}  // namespace

TEST_CASE_METHOD(kernel, "no count has grown: somebody else has killed it") {
  auto x = witness();
  CHECK(x.look(7) == "");
  CHECK(x.look(8) == "");
  CHECK(x.look(9) == "");  // reaped by somebody else
}

TEST_CASE_METHOD(kernel, "the count of its own cgroup is proof") {
  auto x = witness();
  put("cgroup/app/web-1/memory.events", "oom_kill 1\n");
  put("proc/vmstat", "oom_kill 4\n");
  CHECK(x.look(7) == "out of memory");
  CHECK(x.look(7) == "");  // that was the other one
}

TEST_CASE_METHOD(kernel, "other counts are a sign") {
  auto x = witness();
  SECTION("of the cgroup that is pup's as well") {
    put("cgroup/app/memory.events", "oom_kill 3\n");
    CHECK(x.look(8) == "likely out of memory");
    CHECK(x.look(8) == "");
  }
  SECTION("of the machine") {
    put("proc/vmstat", "oom_kill 4\n");
    CHECK(x.look(8) == "likely out of memory");
    CHECK(x.look(8) == "");
  }
}

TEST_CASE_METHOD(kernel, "with cgroups of version 1 there are signs only") {
  put("proc/self/cgroup", "4:memory:/app\n0::/\n");
  put("proc/7/cgroup", "4:memory:/\n0::/\n");
  auto x = witness();
  CHECK(x.look(7) == "");
  put("proc/vmstat", "oom_kill 4\n");
  CHECK(x.look(7) == "likely out of memory");
}
