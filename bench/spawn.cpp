// The floor under a process manager, and the clock around its command line.
//
//   bench_spawn start N CHILD MARKS     a bare loop of posix_spawn, then of
//   kill bench_spawn crash N CHILD MARKS     kill -9, posix_spawn again; N
//   times bench_spawn command N PROGRAM [ARG…]  runs it N times, one after
//   another
//
// Prints JSON: for start {"began_ns", "cpu_ms", "stop_ms"}, the CPU time being
// that of the loop; for crash {"killed_ns": […]}; for command {"runs":
// [[began_ns, ended_ns, exit code, CPU ms], …]}. When a child was there its own
// mark tells (bench/child.cpp); all clocks are CLOCK_MONOTONIC.
#include "pup/runtime/fd.hpp"

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using pup::unique_fd;

std::int64_t monotonic_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

double milliseconds(const rusage& used) {
  const auto of = [](const timeval& x) {
    return static_cast<double>(x.tv_sec) * 1e3
           + static_cast<double>(x.tv_usec) / 1e3;
  };
  return of(used.ru_utime) + of(used.ru_stime);
}

double cpu_so_far() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  return milliseconds(used);
}

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

pid_t spawn(char* const* argv, bool own_group) {
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  if (own_group)
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  pid_t pid = -1;
  const int error =
      ::posix_spawnp(&pid, argv[0], nullptr, &attributes, argv, environ);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    errno = error;
    die("bench_spawn: posix_spawn");
  }
  return pid;
}

unique_fd open_pidfd(pid_t pid) {
  unique_fd fd{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
  if (!fd)
    die("bench_spawn: pidfd_open");
  return fd;
}

const std::atomic<std::uint64_t>& marks_count(const char* path) {
  const unique_fd fd{::open(path, O_RDWR | O_CLOEXEC)};
  void* where = ::mmap(nullptr, sizeof(std::uint64_t), PROT_READ, MAP_SHARED,
                       fd.get(), 0);
  if (where == MAP_FAILED)
    die("bench_spawn: marks");
  return *static_cast<std::atomic<std::uint64_t>*>(where);
}

void wait_for(const std::atomic<std::uint64_t>& count, std::uint64_t wanted) {
  while (count < wanted) {
    const timespec moment{.tv_sec = 0, .tv_nsec = 200'000};
    ::nanosleep(&moment, nullptr);
  }
}

void start(std::size_t n, char* child, char* marks) {
  const auto& count = marks_count(marks);
  char* const argv[] = {child, marks, nullptr};
  std::vector<pid_t> pids;
  // What any manager needs to hear of an end.
  std::vector<unique_fd> pidfds;
  const auto cpu_before = cpu_so_far();
  const auto began = monotonic_now();
  for (std::size_t i = 0; i < n; ++i) {
    pids.push_back(spawn(argv, true));
    pidfds.push_back(open_pidfd(pids.back()));
  }
  const auto cpu = cpu_so_far() - cpu_before;
  wait_for(count, n);
  const auto stopping = monotonic_now();
  for (const auto pid : pids)
    ::kill(pid, SIGTERM);
  for (const auto pid : pids)
    ::waitpid(pid, nullptr, 0);
  std::printf("{\"began_ns\": %lld, \"cpu_ms\": %.3f, \"stop_ms\": %.3f}\n",
              static_cast<long long>(began), cpu,
              static_cast<double>(monotonic_now() - stopping) / 1e6);
}

void crash(std::size_t n, char* child, char* marks) {
  const auto& count = marks_count(marks);
  char* const argv[] = {child, marks, nullptr};
  auto pid = spawn(argv, true);
  const char* comma = "";
  std::printf("{\"killed_ns\": [");
  for (std::size_t i = 1; i <= n; ++i) {
    auto pidfd = open_pidfd(pid);
    wait_for(count, i);
    const auto killed = monotonic_now();
    ::kill(pid, SIGKILL);
    pollfd ended{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
    ::poll(&ended, 1, -1);
    ::waitpid(pid, nullptr, 0);
    pid = spawn(argv, true);
    std::printf("%s%lld", comma, static_cast<long long>(killed));
    comma = ", ";
  }
  wait_for(count, n + 1);
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  std::printf("]}\n");
}

void command(std::size_t n, char** argv) {
  const char* comma = "";
  std::string runs;
  // What the command prints is not of interest, and ours must not mix with it.
  const unique_fd out{::dup(STDOUT_FILENO)};
  const unique_fd nowhere{::open("/dev/null", O_WRONLY | O_CLOEXEC)};
  ::dup2(nowhere.get(), STDOUT_FILENO);
  for (std::size_t i = 0; i < n; ++i) {
    const auto began = monotonic_now();
    int status = 0;
    rusage used{};
    ::wait4(spawn(argv, false), &status, 0, &used);
    runs += comma + ('[' + std::to_string(began)) + ", "
            + std::to_string(monotonic_now()) + ", "
            + std::to_string(WIFEXITED(status) ? WEXITSTATUS(status)
                                               : 128 + WTERMSIG(status))
            + ", " + std::to_string(milliseconds(used)) + ']';
    comma = ", ";
  }
  ::dprintf(out.get(), "{\"runs\": [%s]}\n", runs.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc > 3 ? argv[1] : "";
  const auto n = argc > 3 ? std::strtoul(argv[2], nullptr, 10) : 0;
  if (mode == "start" && argc == 5)
    start(n, argv[3], argv[4]);
  else if (mode == "crash" && argc == 5)
    crash(n, argv[3], argv[4]);
  else if (mode == "command")
    command(n, argv + 3);
  else {
    std::fprintf(stderr, "bench_spawn: see the top of bench/spawn.cpp\n");
    return 2;
  }
}
