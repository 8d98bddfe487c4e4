// A process to be supervised: marks its start in a shared file and waits.
//
//   bench_child MARKS [KIND]      or $BENCH_MARKS and $BENCH_KIND, for those
//   who
//                                 give a program arguments of their own
//
//   polite     ends by SIGTERM as any program does
//   stubborn   ignores SIGTERM, SIGINT and SIGHUP
//   exit       ends at once with code 1, unless MARKS.healed exists
//   group      has a child of its own in its process group
//   session    has one in a session of its own
//   daemon     has one in a session of its own that init has adopted
//
// A mark is 16 bytes, little endian: CLOCK_MONOTONIC at the start of main() in
// nanoseconds, and the process id. The first 8 bytes of the file count them,
// the next 8 say how many there is room for. With BENCH_NOTIFY_FD a newline is
// written to that descriptor, as s6 wants it. Linked statically, so that little
// but exec stands before main().
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {

struct mark {
  std::int64_t nanoseconds;
  std::int64_t pid;
};

struct marks {
  std::atomic<std::uint64_t> count;
  std::uint64_t room;
  mark list[1];
};

std::int64_t monotonic_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

void leave_mark(const char* path, std::int64_t when) {
  const int fd = ::open(path, O_RDWR | O_CLOEXEC);
  const auto size = fd < 0 ? -1 : ::lseek(fd, 0, SEEK_END);
  if (size <= 0)
    ::_exit(99);
  void* where = ::mmap(nullptr, static_cast<std::size_t>(size),
                       PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (where == MAP_FAILED)
    ::_exit(99);
  auto* all = static_cast<marks*>(where);
  const auto mine = all->count.fetch_add(1);
  if (mine < all->room)
    all->list[mine] = {when, ::getpid()};
  ::munmap(where, static_cast<std::size_t>(size));
  ::close(fd);
}

[[noreturn]] void wait_for_ever() {
  for (;;)
    ::pause();
}

void have_child(std::string_view kind) {
  const bool own_session = kind != "group";
  const bool orphan = kind == "daemon";
  if (::fork() != 0)
    return;
  if (own_session)
    ::setsid();
  if (orphan && ::fork() != 0)
    ::_exit(0);
  wait_for_ever();
}

}  // namespace

int main(int argc, char** argv) {
  const auto now = monotonic_now();
  const char* marks_path = std::getenv("BENCH_MARKS");
  const char* kind = std::getenv("BENCH_KIND");
  if (marks_path == nullptr) {
    marks_path = argc > 1 ? argv[1] : nullptr;
    kind = argc > 2 ? argv[2] : nullptr;
  }
  if (marks_path == nullptr)
    return 2;
  const std::string_view what = kind != nullptr ? kind : "polite";
  if (what == "stubborn")
    for (const int x : {SIGTERM, SIGINT, SIGHUP})
      ::signal(x, SIG_IGN);
  else if (what == "group" || what == "session" || what == "daemon")
    have_child(what);
  leave_mark(marks_path, now);
  if (what == "exit"
      && ::access((std::string{marks_path} + ".healed").c_str(), F_OK) != 0)
    return 1;
  if (const char* fd = std::getenv("BENCH_NOTIFY_FD")) {
    (void)!::write(std::atoi(fd), "\n", 1);
    ::close(std::atoi(fd));
  }
  wait_for_ever();
}
