// What is set on a process before its program runs, with real processes: as
// root they really become somebody else. Also pid files, cgroups and memory.
#include "catch.hpp"

#define BOOST_ASIO_NO_DEPRECATED
#include "pup/runtime/accounts.hpp"
#include "pup/runtime/cgroup.hpp"
#include "pup/runtime/children.hpp"
#include "pup/runtime/machine.hpp"
#include "pup/runtime/memory_meter.hpp"
#include "pup/runtime/memory_watch.hpp"
#include "pup/runtime/pid_file.hpp"
#include "pup/runtime/pidfd.hpp"
#include "pup/runtime/process.hpp"
#include "pup/runtime/usage.hpp"

#include "child_process.hpp"
#include "without_threads.hpp"

#include <boost/asio/io_context.hpp>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>
#include <utility>

#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

namespace {

using namespace pup;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using test::patience;
using test::temporary_folder;

constexpr uid_t nobody = 65'534;

bool is_root() {
  return ::geteuid() == 0;
}

// Says so where a test cannot do all of its work.
bool needs_root() {
  if (!is_root())
    WARN("not root: what only root may do is left out");
  return is_root();
}

std::string contents(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream{path}.rdbuf();
  return text.str();
}

spawn_request shell(const std::string& command) {
  spawn_request result;
  result.argv = {"/bin/sh", "-c", command};
  result.environment = {"PATH=/usr/bin:/bin"};
  return result;
}

struct pipe_pair {
  pipe_pair() {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    read.reset(ends[0]);
    write.reset(ends[1]);
  }
  unique_fd read;
  unique_fd write;
};

// Its output, once it has ended.
std::string output_of(spawn_request request) {
  pipe_pair pipe;
  request.stdout_fd = request.stderr_fd = pipe.write.get();
  auto started = spawn(request);
  pipe.write.reset();
  if (const auto* fault = std::get_if<os_fault>(&started))
    FAIL(to_string(*fault));
  std::string result;
  char buffer[4096];
  for (ssize_t n = 0;
       (n = ::read(pipe.read.get(), buffer, sizeof(buffer))) > 0;)
    result.append(buffer, static_cast<std::size_t>(n));
  ::waitpid(std::get<child>(started).pid, nullptr, 0);
  return result;
}

std::string output_of(const std::string& command, process_attributes x) {
  auto request = shell(command);
  request.attributes = std::move(x);
  return output_of(std::move(request));
}

os_fault fault_of(const spawn_request& request) {
  auto started = spawn(request);
  REQUIRE(std::holds_alternative<os_fault>(started));
  return std::get<os_fault>(started);
}

// The word behind `name` in /proc/PID/status.
std::string status_field(const std::string& status, const std::string& name) {
  std::istringstream lines{status};
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(name + ":")) {
      std::istringstream words{line.substr(name.size() + 1)};
      std::string result;
      for (std::string word; words >> word;)
        result += (result.empty() ? "" : " ") + word;
      return result;
    }
  return {};
}

// Runs this program again as `user`, as one of the hidden test cases below.
std::string run_as_nobody(const std::string& test_case) {
  // Readable for everybody, which the folder of the build may not be.
  temporary_folder folder;
  ::chmod(folder.path().c_str(), 0755);
  const auto program = folder.path() + "/test";
  fs::copy_file("/proc/self/exe", program);
  ::chmod(program.c_str(), 0755);
  spawn_request request;
  request.argv = {program, test_case};
  request.environment = {"PATH=/usr/bin:/bin"};
  request.cwd = "/";
  request.attributes.run_as = identity{nobody, nobody, {}, "nobody"};
  return output_of(std::move(request));
}

struct loop_of_children {
  boost::asio::io_context loop;
  std::vector<std::string> events;
  pid_t pid = 0;
  std::string warning;
  std::string fault;
  bool ended = false;
  child_events told() {
    child_events result;
    result.launched = [this](const auto&, auto, pid_t its,
                             const std::string& text) {
      pid = its;
      warning = text;
      events.emplace_back("launched");
    };
    result.failed = [this](const auto&, auto, const launch_fault& why) {
      fault = why.text;
      ended = true;
      events.emplace_back("failed");
    };
    result.ready = [this](const auto&...) { events.emplace_back("ready"); };
    result.exited = [this](const auto&...) {
      ended = true;
      events.emplace_back("exited");
    };
    return result;
  }
  children all{loop, {"PATH=/usr/bin:/bin"}, told()};

  bool saw(const std::string& event) const {
    return std::find(events.begin(), events.end(), event) != events.end();
  }
  void run_until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      REQUIRE(std::chrono::steady_clock::now() < deadline);
      loop.restart();
      loop.run_one_for(100ms);
    }
  }
};

}  // namespace

// --- spawn -------------------------------------------------------------------

TEST_CASE("a program finds the limits, priorities and umask it was given") {
  const auto own_nice = ::getpriority(PRIO_PROCESS, 0);
  process_attributes x;
  x.limits = {{RLIMIT_NOFILE, 64, 128},
              {RLIMIT_CORE, 0, 0},
              {RLIMIT_STACK, 4u << 20, 16u << 20}};
  x.nice = 7;
  x.oom_score_adjust = 333;
  x.umask = 037;
  x.io = io_priority{io_class::best_effort, 6};
  x.no_new_privileges = true;
  const auto out = output_of(
      "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -Ss; ulimit -Hs; umask; "
      "cat /proc/self/oom_score_adj; cut -d' ' -f19 /proc/self/stat; "
      "grep NoNewPrivs /proc/self/status",
      x);
  CHECK(out == "64\n128\n0\n4096\n16384\n0037\n333\n7\nNoNewPrivs:\t1\n");
  // Nothing of it is left on us.
  CHECK(::getpriority(PRIO_PROCESS, 0) == own_nice);
  rlimit own{};
  ::getrlimit(RLIMIT_NOFILE, &own);
  CHECK(own.rlim_cur != 64);
  CHECK(::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0);
  CHECK(status_field(contents("/proc/self/status"), "Umask") != "0037");
}

TEST_CASE("a program has the I/O class it was given") {
  process_attributes x;
  x.io = io_priority{io_class::best_effort, 6};
  const auto out = output_of("ionice 2>/dev/null || echo no ionice", x);
  if (out == "no ionice\n")
    WARN("no ionice(1): not looked at");
  else
    CHECK(out == "best-effort: prio 6\n");
  x.io = io_priority{io_class::idle, 4};
  if (out != "no ionice\n")
    CHECK(output_of("ionice", x) == "idle\n");
}

TEST_CASE("a program runs as its user, with its groups and no others") {
  if (!needs_root())
    return;
  process_attributes x;
  x.run_as = identity{nobody, nobody, {nobody, 33, 4}, "nobody"};
  const auto status = output_of("cat /proc/self/status", x);
  CHECK(status_field(status, "Uid") == "65534 65534 65534 65534");
  CHECK(status_field(status, "Gid") == "65534 65534 65534 65534");
  CHECK(status_field(status, "Groups") == "4 33 65534");
  CHECK(status_field(status, "CapEff") == "0000000000000000");
  CHECK(status_field(status, "CapPrm") == "0000000000000000");
  CHECK(::geteuid() == 0);
  CHECK(::prctl(PR_GET_DUMPABLE) == 1);
}

TEST_CASE("what needs root is set before the change of user") {
  if (!needs_root())
    return;
  process_attributes x;
  x.run_as = identity{nobody, nobody, {}, "nobody"};
  x.nice = -3;
  const auto command =
      "id -u; cut -d' ' -f19 /proc/self/stat; ulimit -Hl; "
      "cat /proc/self/oom_score_adj";
  if (attribute_problems({{}, {}, {}, -10, {}, {}, false, {}}).empty()) {
    x.limits = {{RLIMIT_MEMLOCK, 1u << 30, 1u << 30}};
    x.oom_score_adjust = -10;
    CHECK(output_of(command, x) == "65534\n-3\n1048576\n-10\n");
  } else {
    WARN("no CAP_SYS_RESOURCE: limits are not raised");
    CHECK(output_of(command, x).starts_with("65534\n-3\n"));
  }
}

TEST_CASE("a user's program may open its own streams again") {
  if (!needs_root())
    return;
  process_attributes x;
  x.run_as = identity{nobody, nobody, {}, "nobody"};
  CHECK(output_of("echo again > /dev/stdout; echo more > /dev/stderr", x)
        == "again\nmore\n");
  // /dev/null is everybody's and stays root's.
  struct stat info {};
  auto request = shell("exit 0");
  request.attributes = x;
  auto started = spawn(request);
  ::waitpid(std::get<child>(started).pid, nullptr, 0);
  REQUIRE(::stat("/dev/null", &info) == 0);
  CHECK(info.st_uid == 0);
}

TEST_CASE("a folder that the user may not enter fails the start") {
  if (!needs_root())
    return;
  temporary_folder folder;
  REQUIRE(::chmod(folder.path().c_str(), 0700) == 0);
  auto request = shell("exit 0");
  request.cwd = folder.path();
  CHECK(std::holds_alternative<child>(spawn(request)));
  while (::waitpid(-1, nullptr, 0) > 0) {}
  request.attributes.run_as = identity{nobody, nobody, {}, "nobody"};
  CHECK(to_string(fault_of(request))
        == "chdir " + folder.path() + " (as user 65534): Permission denied");
}

TEST_CASE("a limit that the kernel refuses names itself") {
  // Above fs.nr_open, for which not even root is enough.
  auto request = shell("exit 0");
  request.attributes.limits = {
      {RLIMIT_CORE, 0, 0},
      {RLIMIT_NOFILE, resource_limit::unlimited, resource_limit::unlimited}};
  const auto fault = fault_of(request);
  CHECK(fault.call == "limit");
  CHECK(fault.object.starts_with("nofile unlimited"));
  CHECK(fault.code == EPERM);
}

TEST_CASE("role: nobody asks for more", "[.]") {
  const auto tell = [](process_attributes x) {
    auto request = shell("exit 0");
    request.attributes = std::move(x);
    auto started = spawn(request);
    const auto* fault = std::get_if<os_fault>(&started);
    ::printf("%s\n", fault != nullptr ? to_string(*fault).c_str() : "started");
  };
  // Who is favoured itself may ask for that.
  if (::getpriority(PRIO_PROCESS, 0) < 0)
    REQUIRE(::setpriority(PRIO_PROCESS, 0, 0) == 0);
  process_attributes x;
  x.run_as = identity{33, 33, {33}, "www"};
  tell(x);
  x = {};
  x.nice = -5;
  tell(x);
  x = {};
  x.oom_score_adjust = -500;
  tell(x);
  x = {};
  x.limits = {{RLIMIT_NPROC, 1u << 30, 1u << 30}};
  tell(x);
  for (const auto& y : attribute_problems({identity{33, 33, {33}, "www"},
                                           {{RLIMIT_NPROC, 1u << 30, 1u << 30}},
                                           -5,
                                           -500,
                                           io_priority{io_class::realtime, 4},
                                           {},
                                           false,
                                           {}}))
    ::printf("%s: %s; %s\n", y.key.c_str(), y.problem.c_str(),
             y.remedy.c_str());
  ::fflush(stdout);
  ::_exit(0);
}

TEST_CASE("who is not root is told what it may not set") {
  if (!needs_root())
    return;
  const auto out = run_as_nobody("role: nobody asks for more");
  INFO(out);
  const auto nice = std::max(::getpriority(PRIO_PROCESS, 0), 0);
  const std::vector<std::string> lines{
      "groups `www` (pup does not run as root): Operation not permitted\n",
      "nice -5 (pup does not run as root): Permission denied\n",
      "oom score -500 (pup does not run as root): Permission denied\n",
      "limit nproc 1073741824 (pup does not run as root): Operation not "
      "permitted\n",
      "user: `www` is not permitted: pup does not run as root; remove it, or "
      "run pup as root\n",
      "nice: -5 is below pup's own " + std::to_string(nice)
          + ": pup does not run as root; use a higher one, or run pup as "
            "root\n",
      "oomScoreAdjust: -500 is below pup's own ",
      "ioClass: realtime needs a privilege: ",
      "limits.nproc: 1073741824 is above pup's own hard limit of "};
  for (const auto& line : lines)
    CHECK(out.find(line) != std::string::npos);
}

TEST_CASE("many threads start programs of several users at once") {
  if (!needs_root())
    return;
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (uid_t i = 0; i < 6; ++i)
    threads.emplace_back([i, &wrong] {
      for (int n = 0; n < 15; ++n) {
        auto request = shell("test $(id -u) = " + std::to_string(1000 * i));
        if (i > 0)
          request.attributes.run_as = identity{1000 * i, 1000 * i, {}, ""};
        auto started = spawn(request);
        int status = -1;
        if (auto* x = std::get_if<child>(&started))
          ::waitpid(x->pid, &status, 0);
        wrong += status != 0 ? 1 : 0;
      }
    });
  for (auto& x : threads)
    x.join();
  CHECK(wrong == 0);
}

// --- the machine -------------------------------------------------------------

TEST_CASE("users and groups are found by name and by number") {
  for (const auto* name : {"root", "0"}) {
    const auto root = find_user(name);
    REQUIRE(root);
    CHECK(root->name == "root");
    CHECK(root->uid == 0);
    CHECK(std::find(root->groups.begin(), root->groups.end(), root->gid)
          != root->groups.end());
    CHECK(root->home.starts_with("/"));
    CHECK(find_group(name) == gid_t{0});
  }
  for (const auto* name :
       {"no-such-user-here", "", "-1", "4294967296", "0x0"}) {
    CHECK_FALSE(find_user(name));
    CHECK_FALSE(find_group(name));
  }
  CHECK(own_identity().uid == ::geteuid());
}

TEST_CASE("root runs nothing that somebody else may have written") {
  struct stat info {};
  info.st_mode = S_IFREG | 0644;
  CHECK(distrust(info, 0).empty());
  info.st_mode = S_IFREG | 0664;  // by root's group
  CHECK(distrust(info, 0).empty());
  info.st_gid = 100;
  CHECK(distrust(info, 0) == "its group may write to it");
  info.st_mode = S_IFREG | 0646;
  CHECK(distrust(info, 0) == "everybody may write to it");
  info.st_mode = S_IFREG | 0600;
  info.st_uid = 4'000'000;
  CHECK(distrust(info, 0) == "belongs to user 4000000");
  CHECK(distrust(info, 4'000'000).empty());
}

TEST_CASE("a configuration that is somebody else's is refused by root") {
  if (!needs_root())
    return;
  temporary_folder folder;
  const auto file = folder.path() + "/pup.json";
  std::ofstream{file} << R"({"processes": [{"id": "a", "cmd": "true"}]})";
  ::chmod(file.c_str(), 0644);
  CHECK(std::holds_alternative<pup_spec>(load_file(file)));
  const auto refusal = [&file] {
    auto result = load_file(file);
    auto* faults = std::get_if<std::vector<diagnostic>>(&result);
    return faults != nullptr ? to_string(faults->front()) : "";
  };
  const auto remedy =
      ", and pup runs as root; chown it to root and chmod it 644, or run pup "
      "as its owner";
  ::chmod(file.c_str(), 0666);
  CHECK(refusal() == file + ":1:1: everybody may write to it" + remedy);
  ::chmod(file.c_str(), 0644);
  REQUIRE(::chown(file.c_str(), nobody, 0) == 0);
  CHECK(refusal() == file + ":1:1: belongs to `nobody`" + remedy);
}

TEST_CASE("files of variables are read as they may be") {
  temporary_folder folder;
  const auto file = folder.path() + "/.env";
  CHECK(read_variables(file, 0).missing);
  std::ofstream{file} << "A=1\n";
  ::chmod(file.c_str(), 0600);
  CHECK(read_variables(file, 0).text == "A=1\n");
  CHECK(read_variables(folder.path(), 0).problem == "is no regular file");
  fs::resize_file(file, bounds::env_file_bytes + 1);
  CHECK(read_variables(file, 0).problem == "File too large");
  CHECK(read_variables(file, 0).text.empty());
  fs::resize_file(file, 3);
  if (!needs_root())
    return;
  REQUIRE(::chown(file.c_str(), nobody, 0) == 0);
  // Its process may be told so by it, and root's may not.
  CHECK(read_variables(file, nobody).problem.empty());
  CHECK(read_variables(file, 0).problem
        == "belongs to `nobody`, and pup runs as root");
}

// --- children ----------------------------------------------------------------

TEST_CASE("sd_notify works across a change of user") {
  if (!needs_root())
    return;
  loop_of_children x;
  launch_request request;
  request.argv = {"/bin/sh", "-c",
                  "command -v systemd-notify > /dev/null || exit 9; "
                  "systemd-notify --ready; exec sleep 1000"};
  request.ready = ready_condition::notify;
  request.attributes.run_as = identity{nobody, nobody, {}, "nobody"};
  x.all.launch("a", 1, std::move(request));
  x.run_until([&] { return x.saw("ready") || x.ended; });
  if (x.ended)
    WARN("no systemd-notify(1): not looked at");
}

TEST_CASE("a pid file is there from exec to the end") {
  temporary_folder folder;
  const auto file = folder.path() + "/a.pid";
  // What somebody laid there is replaced, not followed.
  std::ofstream{folder.path() + "/victim"} << "keep";
  fs::create_symlink(folder.path() + "/victim", file);
  loop_of_children x;
  launch_request request;
  request.argv = {"/bin/sleep", "1000"};
  request.pid_file = file;
  x.all.launch("a", 1, request);
  x.run_until([&] { return x.saw("launched"); });
  CHECK(contents(file) == std::to_string(x.pid) + '\n');
  CHECK(contents(folder.path() + "/victim") == "keep");
  CHECK_FALSE(fs::is_symlink(file));
  CHECK((fs::status(file).permissions() & fs::perms::all) == fs::perms{0644});
  x.all.signal("a", 1, SIGTERM);
  x.run_until([&] { return x.ended; });
  CHECK_FALSE(fs::exists(file));
  CHECK(std::distance(fs::directory_iterator{folder.path()},
                      fs::directory_iterator{})
        == 1);
}

TEST_CASE("a pid file of somebody else is left alone, a failed one is told") {
  temporary_folder folder;
  const auto file = folder.path() + "/a.pid";
  loop_of_children x;
  launch_request request;
  request.argv = {"/bin/sleep", "1000"};
  request.pid_file = file;
  x.all.launch("a", 1, request);
  x.run_until([&] { return x.saw("launched"); });
  std::ofstream{file} << "1\n";
  x.all.kill_group("a", 1);
  x.run_until([&] { return x.ended; });
  CHECK(contents(file) == "1\n");
  request.pid_file = folder.path() + "/none/a.pid";
  x.events.clear();
  x.all.launch("a", 2, request);
  x.run_until([&] { return x.saw("launched"); });
  CHECK(x.warning
        == "pidFile: open " + folder.path()
               + "/none/a.pid: No such file or directory");
}

TEST_CASE("no pid file outlives the owner of the processes") {
  temporary_folder folder;
  {
    loop_of_children x;
    launch_request request;
    request.argv = {"/bin/sleep", "1000"};
    request.pid_file = folder.path() + "/a.pid";
    x.all.launch("a", 1, request);
    x.run_until([&] { return x.saw("launched"); });
    CHECK(fs::exists(folder.path() + "/a.pid"));
  }
  CHECK(fs::is_empty(folder.path()));
}

// --- cgroups -----------------------------------------------------------------

TEST_CASE("pup finds the cgroup it is in") {
  const auto mounts =
      "22 1 0:20 / /proc rw - proc proc rw\n"
      "30 1 0:26 / /sys/fs/cgroup/a\\040b rw,nosuid shared:4 - cgroup2 cgroup2 "
      "rw\n";
  CHECK(own_cgroup("1:name=systemd:/x\n0::/system.slice/pup.service\n", mounts)
        == "/sys/fs/cgroup/a b/system.slice/pup.service");
  CHECK(own_cgroup("0::/\n", mounts) == "/sys/fs/cgroup/a b");
  CHECK(own_cgroup("0::/c/d\n", "30 1 0:26 /c /m rw - cgroup2 x rw\n")
        == "/m/d");
  CHECK(own_cgroup("1:memory:/x\n", mounts).empty());
  CHECK(own_cgroup("0::/x\n", "30 1 0:26 / /m rw - cgroup x rw,memory\n")
            .empty());
  CHECK(cpu_max(150) == "150000 100000");
  CHECK(cpu_max(1) == "1000 100000");
}

TEST_CASE("limits of a cgroup are written where the kernel reads them") {
  temporary_folder folder;
  const auto& base = folder.path();
  const auto group = base + "/pup-" + std::to_string(::getpid()) + "-web-1";
  fs::create_directory(group);
  std::ofstream{base + "/cgroup.controllers"} << "cpu io memory pids\n";
  std::ofstream{base + "/cgroup.subtree_control"} << "cpu memory pids\n";
  for (const auto* file : {"/memory.max", "/cpu.max", "/pids.max"})
    std::ofstream{group + file};
  {
    cgroup_tree tree{::getpid(), base};
    CHECK(std::get<std::string>(tree.prepare("web-1", {5u << 20, 50, 7}))
          == group);
    CHECK(contents(group + "/memory.max") == "5242880");
    CHECK(contents(group + "/cpu.max") == "50000 100000");
    CHECK(contents(group + "/pids.max") == "7");
    // The kernel's files vanish with their folder, these do not.
    fs::remove_all(group);
    fs::create_directory(group);
    tree.remove("web-1");
    CHECK_FALSE(fs::exists(group));
  }
  std::ofstream{base + "/cgroup.controllers"} << "cpu\n";
  std::ofstream{base + "/cgroup.subtree_control"} << "";
  cgroup_tree tree{::getpid(), base};
  CHECK(std::get<cgroup_tree::problem>(tree.prepare("a", {0, 0, 7})).text
        == "cgroup limits are not in force: the controller pids is not "
           "available in "
               + base);
  CHECK(std::get<cgroup_tree::problem>(
            cgroup_tree{::getpid(), ""}.prepare("a", {0, 0, 7}))
            .text
        == "cgroup limits are not in force: no cgroup of version 2 here");
}

TEST_CASE("cgroup limits hold, or a warning says that they do not") {
  loop_of_children x;
  launch_request request;
  request.argv = {"/bin/sleep", "1000"};
  request.attributes.cgroup.processes = 3;
  x.all.launch("a", 1, request);
  x.run_until([&] { return x.saw("launched"); });
  if (!x.warning.empty()) {
    CHECK(x.warning.starts_with("cgroup limits are not in force: "));
    WARN(x.warning);
    return;
  }
  const auto group =
      own_cgroup(contents("/proc/" + std::to_string(x.pid) + "/cgroup"),
                 contents("/proc/self/mountinfo"));
  CHECK(contents(group + "/pids.max") == "3\n");
  x.all.kill_group("a", 1);
  x.run_until([&] { return x.ended; });
  CHECK_FALSE(fs::exists(group));
}

TEST_CASE("a program begins in its cgroup") {
  const auto base = own_cgroup(contents("/proc/self/cgroup"),
                               contents("/proc/self/mountinfo"));
  const auto group = base + "/pup-test-" + std::to_string(::getpid());
  if (base.empty() || !fs::exists(base) || ::mkdir(group.c_str(), 0755) != 0) {
    WARN("no writable cgroup of version 2: not looked at");
    return;
  }
  auto request = shell("cat /proc/self/cgroup");
  request.cgroup_folder = group;
  if (is_root())
    request.attributes.run_as = identity{nobody, nobody, {}, "nobody"};
  const auto out = output_of(request);
  CHECK(out.find(fs::path{group}.filename().string()) != std::string::npos);
  CHECK(::rmdir(group.c_str()) == 0);
  CHECK(to_string(fault_of(request))
        == "cgroup " + group + ": No such file or directory");
}

TEST_CASE("whatever hides in a cgroup ends with it") {
  const auto base = own_cgroup(contents("/proc/self/cgroup"),
                               contents("/proc/self/mountinfo"));
  cgroup_tree tree{::getpid(), base};
  const auto group = base + "/pup-" + std::to_string(::getpid()) + "-a";
  if (base.empty() || !fs::exists(base) || ::mkdir(group.c_str(), 0755) != 0
      || !fs::exists(group + "/cgroup.kill")) {
    WARN(
        "no writable cgroup of version 2, or one of an old kernel: not looked "
        "at");
    ::rmdir(group.c_str());
    return;
  }
  auto request =
      shell("setsid env -i /bin/sleep 1000 >/dev/null 2>&1 & echo $!");
  request.cgroup_folder = group;
  const auto hidden = static_cast<pid_t>(std::stol(output_of(request)));
  REQUIRE(::kill(hidden, 0) == 0);
  const auto pidfd = open_pidfd(hidden);
  tree.end("a");
  pollfd event{pidfd.get(), POLLIN, 0};
  CHECK(::poll(&event, 1, 60'000) == 1);
  tree.remove("a");
  CHECK_FALSE(fs::exists(group));
}

// --- memory ------------------------------------------------------------------

TEST_CASE("amounts of memory are written as the configuration writes them") {
  CHECK(amount_of_memory(1) == "1K");
  CHECK(amount_of_memory(1u << 20) == "1024K");
  CHECK(amount_of_memory(300u << 20) == "300M");
  CHECK(amount_of_memory((300u << 20) + 1) == "301M");
  CHECK(amount_of_memory(std::uint64_t{1} << 40) == "1048576M");
}

TEST_CASE("the memory of a session is that of all in it") {
  // A shell that waits for another one, which is in its session.
  auto started = spawn(shell("sh -c 'sleep 1000; :' & wait"));
  const auto leader = std::get<child>(started).pid;
  // The kernel counts the first pages of a program late. Both are of one size;
  // a little more may be what one of them has just come to use.
  const auto deadline = std::chrono::steady_clock::now() + patience;
  const auto is_more = [leader] {
    const auto alone = sample({leader}).front().rss_bytes;
    return alone > 0
           && sample_sessions().at(leader).rss_bytes > alone + alone / 4;
  };
  auto found = is_more();
  while (!found && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(1ms);
    found = is_more();
  }
  CHECK(found);
  ::kill(-leader, SIGKILL);
  ::waitpid(leader, nullptr, 0);
}

TEST_CASE("who grows beyond its bound is told once") {
  boost::asio::io_context loop;
  auto small = spawn(shell("exec sleep 1000"));
  auto large = spawn(shell("exec sleep 1000"));
  const auto small_pid = std::get<child>(small).pid;
  const auto large_pid = std::get<child>(large).pid;
  std::vector<pid_t> told;
  memory_watch watch{loop,
                     [&](pid_t pid, std::uint64_t used, const std::string&) {
                       CHECK(used > 1024);
                       told.push_back(pid);
                     },
                     {1ms}};
  const auto figure = watch.add(small_pid, std::uint64_t{1} << 40);
  watch.add(large_pid, 1024);  // no program is that small
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (told.empty() && std::chrono::steady_clock::now() < deadline)
    loop.run_one_for(100ms);
  for (int i = 0; i < 5; ++i)
    loop.run_one_for(100ms);
  CHECK(told == std::vector<pid_t>{large_pid});
  CHECK(figure->load() > 0);
  watch.remove(small_pid);
  // Nobody is left to look at: no timer.
  loop.restart();
  while (loop.run_one_for(100ms) != 0) {}
  CHECK(loop.stopped());
  for (auto pid : {small_pid, large_pid}) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
}

TEST_CASE("only several processes above their bound are measured exactly") {
  boost::asio::io_context loop;
  // A session of two processes each, but for the first.
  const auto alone = std::get<child>(spawn(shell("exec sleep 1000"))).pid;
  const auto pair = shell("sleep 1000 & wait");
  const auto small = std::get<child>(spawn(pair)).pid;
  const auto shares = std::get<child>(spawn(pair)).pid;
  const auto refused = std::get<child>(spawn(pair)).pid;
  std::vector<std::string> told;
  // A thread that measures may outlive the watch, and this test.
  struct measured_sessions {
    std::mutex mutex;
    std::set<pid_t> leaders;
  };
  const auto measured = std::make_shared<measured_sessions>();
  const auto asked = [&] {
    const std::lock_guard guard{measured->mutex};
    return measured->leaders;
  };
  memory_watch::options how{1ms};
  how.measure = [measured,
                 refused](const std::vector<pid_t>& pids) -> memory_reading {
    const auto leader = ::getsid(pids.front());
    const std::lock_guard guard{measured->mutex};
    measured->leaders.insert(pids.size() == 2 ? leader : -1);
    return leader == refused ? memory_reading{7, "forbidden"}
                             : memory_reading{1023, {}};
  };
  {
    memory_watch watch{
        loop,
        [&](pid_t pid, std::uint64_t used, const std::string& remark) {
          CHECK(used > 1024);
          told.push_back((pid == alone ? "alone " : "refused ") + remark);
        },
        how};
    // The second one of each session is there.
    const auto both_run = [&] {
      const auto all = sample_sessions();
      return all.at(small).pids.size() == 2 && all.at(shares).pids.size() == 2
             && all.at(refused).pids.size() == 2;
    };
    const auto deadline = std::chrono::steady_clock::now() + patience;
    const auto in_time = [&] {
      return std::chrono::steady_clock::now() < deadline;
    };
    while (!both_run() && in_time())
      std::this_thread::sleep_for(1ms);
    watch.add(alone, 1024);
    watch.add(small, std::uint64_t{1} << 40);
    const auto figure = watch.add(shares, 1024);
    watch.add(refused, 1024);
    while ((told.size() < 2 || figure->load() == 0) && in_time())
      loop.run_one_for(100ms);
    CHECK(figure->load() == 1023);
    std::sort(told.begin(), told.end());
    CHECK(told
          == std::vector<std::string>{
              "alone ",
              "refused shared pages counted for each process, forbidden"});
    CHECK(asked() == std::set<pid_t>{shares, refused});
  }
  for (auto pid : {alone, small, shares, refused}) {
    ::kill(-pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
}

TEST_CASE(
    "without a thread memory is not measured, and is with the next look") {
  if (::geteuid() != 0) {
    WARN("skipped: needs root, to act as a user who may have no threads");
    return;
  }
  CHECK(test::run_without_threads([] {
          boost::asio::io_context loop;
          memory_meter meter{loop, patience, [](const std::vector<pid_t>&) {
                               return memory_reading{5, {}};
                             }};
          memory_reading last;
          const auto measure = [&] {
            bool answered = false;
            meter.measure({1}, [&](const memory_reading& x) {
              last = x;
              answered = true;
            });
            loop.restart();
            const auto deadline = std::chrono::steady_clock::now() + patience;
            while (!answered && std::chrono::steady_clock::now() < deadline)
              loop.run_one_for(100ms);
          };
          measure();
          if (last.obstacle.find("no thread to read it") != 0)
            return 1;
          test::allow_threads(1'000);
          measure();
          return last.obstacle.empty() && last.bytes == 5 ? 0 : 2;
        })
        == 0);
}

TEST_CASE("a process whose map is locked holds nobody up") {
  boost::asio::io_context loop;
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  // Its threads may outlive this test.
  const auto stuck = std::make_shared<std::atomic<int>>(0);
  auto meter = std::make_unique<memory_meter>(
      loop, 20ms, [stuck, released](const std::vector<pid_t>& pids) {
        if (pids.front() < 0) {
          ++*stuck;
          released.wait();
          --*stuck;
        }
        return memory_reading{5, {}};
      });
  std::vector<std::string> answers;
  const auto measure = [&](pid_t pid) {
    meter->measure({pid}, [&answers](const memory_reading& x) {
      answers.push_back(x.obstacle.empty() ? std::to_string(x.bytes)
                                           : x.obstacle);
    });
  };
  const auto answered = [&](std::size_t count) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (answers.size() < count
           && std::chrono::steady_clock::now() < deadline)
      loop.run_one_for(100ms);
    loop.restart();
    return std::exchange(answers, {});
  };
  using strings = std::vector<std::string>;
  const std::string locked = "its memory map is locked";
  const std::string shortage = "the memory maps of other processes are locked";
  measure(1);
  measure(-1);
  measure(2);
  measure(-2);
  measure(3);
  CHECK(answered(5) == strings{"5", locked, "5", locked, shortage});
  const auto begun_by = std::chrono::steady_clock::now() + patience;
  while (*stuck != 2 && std::chrono::steady_clock::now() < begun_by)
    std::this_thread::sleep_for(1ms);
  CHECK(*stuck == 2);
  release.set_value();
  // Whoever comes back makes room for others.
  strings last;
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (last != strings{"5"} && std::chrono::steady_clock::now() < deadline) {
    measure(4);
    last = answered(1);
  }
  CHECK(last == strings{"5"});
  meter.reset();
}

TEST_CASE("shared pages count once, and refusals are told") {
  const auto shared = std::size_t{32} << 20;
  auto* memory =
      static_cast<char*>(::mmap(nullptr, shared, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(memory != MAP_FAILED);
  std::fill(memory, memory + shared, 'x');
  std::vector<pid_t> pids;
  for (int i = 0; i < 3; ++i) {
    const auto pid = ::fork();
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;)
        ::pause();
    }
    pids.push_back(pid);
  }
  pids.push_back(::getpid());
  std::uint64_t sum = 0;
  for (const auto& x : sample(pids))
    sum += x.rss_bytes;
  const auto exact = proportional_memory(pids);
  CHECK(exact.obstacle == "");
  CHECK(exact.bytes > shared);
  CHECK(exact.bytes + 2 * shared < sum);
  pids.pop_back();
  for (auto pid : pids) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  ::munmap(memory, shared);
  CHECK(proportional_memory(pids).bytes == 0);
  CHECK(proportional_memory(pids).obstacle == "");
}
