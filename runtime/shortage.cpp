#include "pup/runtime/shortage.hpp"

#include "pup/runtime/fd.hpp"
#include "pup/runtime/last_words.hpp"

#include <array>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <pthread.h>
#include <system_error>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace pup {

namespace {

std::string words_of(int error) {
  return std::generic_category().message(error);
}

/// ", which is 20"; empty: there is no such limit.
std::string bound(decltype(RLIMIT_NOFILE) which, rlim_t unit = 1) {
  rlimit limit{};
  if (::getrlimit(which, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    return {};
  return ", which is " + std::to_string(limit.rlim_cur / unit);
}

/// Threads that do nothing until all of them are there.
class idle_threads {
public:
  explicit idle_threads(unsigned count) {
    threads_.reserve(count);
    try {
      while (threads_.size() < count)
        threads_.emplace_back([this] { wait(); });
    } catch (const std::system_error& x) {
      error_ = x.code().value();
    }
  }
  idle_threads(const idle_threads&) = delete;
  idle_threads& operator=(const idle_threads&) = delete;
  ~idle_threads() {
    {
      const std::lock_guard guard{mutex_};
      over_ = true;
    }
    end_.notify_all();
    for (auto& x : threads_)
      x.join();
  }

  [[nodiscard]] std::size_t count() const {
    return threads_.size();
  }
  /// 0: all could be started.
  [[nodiscard]] int error() const {
    return error_;
  }

private:
  void wait() {
    std::unique_lock guard{mutex_};
    end_.wait(guard, [this] { return over_; });
  }

  std::mutex mutex_;
  std::condition_variable end_;
  bool over_ = false;
  std::vector<std::thread> threads_;
  int error_ = 0;
};

std::size_t stack_bytes() {
  pthread_attr_t attributes;
  std::size_t stack = 0;
  std::size_t guard = 0;
  if (::pthread_getattr_default_np(&attributes) != 0)
    return 0;
  ::pthread_attr_getstacksize(&attributes, &stack);
  ::pthread_attr_getguardsize(&attributes, &guard);
  ::pthread_attr_destroy(&attributes);
  return stack + guard;
}

std::string descriptors_missing(const needs& x) {
  std::vector<unique_fd> all;
  all.reserve(x.descriptors);
  while (all.size() < x.descriptors) {
    all.emplace_back(::eventfd(0, EFD_CLOEXEC));
    if (all.back())
      continue;
    const auto error = errno;
    if (error != EMFILE && error != ENFILE)
      return "eventfd: " + words_of(error)
             + "; let the container's seccomp filter allow it";
    return "descriptors: " + x.whom + " needs " + std::to_string(x.descriptors)
           + " more and can open " + std::to_string(all.size() - 1) + " ("
           + words_of(error) + ')' + remedy_of(error)
           + (error == EMFILE ? bound(RLIMIT_NOFILE) : std::string{});
  }
  return {};
}

/// What a filter of system calls may refuse, one of each.
std::string calls_refused() {
  const auto say = [](const char* call) {
    return std::string{call} + ": " + words_of(errno)
           + "; let the container's seccomp filter allow it";
  };
  if (const unique_fd fd{::epoll_create1(EPOLL_CLOEXEC)}; !fd)
    return say("epoll_create1");
  if (const unique_fd fd{::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)}; !fd)
    return say("timerfd_create");
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0)
    return say("pipe2");
  const std::array pipe{unique_fd{ends[0]}, unique_fd{ends[1]}};
  if (const unique_fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)}; !fd)
    return say("socket");
  return {};
}

std::string memory_missing(const needs& x) {
  constexpr std::size_t mebibyte = 1 << 20;
  const auto bytes = x.memory_bytes + x.threads * stack_bytes();
  if (bytes == 0)
    return {};
  // Address space alone; nothing of it is touched.
  void* const room = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room != MAP_FAILED) {
    ::munmap(room, bytes);
    return {};
  }
  const auto error = errno;
  auto limit = bound(RLIMIT_AS, 1024);
  const auto* option = "ulimit -v";
  if (limit.empty() && !(limit = bound(RLIMIT_DATA, 1024)).empty())
    option = "ulimit -d";
  return "memory: " + x.whom + " needs "
         + std::to_string((bytes + mebibyte - 1) / mebibyte)
         + " MB more of addresses, most of it for stacks of threads ("
         + words_of(error) + "); raise " + option + limit
         + ", or lower ulimit -s" + bound(RLIMIT_STACK, 1024);
}

std::string threads_missing(const needs& x) {
  const idle_threads all{x.threads};
  const auto error = all.error();
  if (error == 0)
    return {};
  return "threads: " + x.whom + " needs " + std::to_string(x.threads)
         + " more and can start " + std::to_string(all.count()) + " ("
         + words_of(error) + "); "
         + (error == EAGAIN
                ? "raise ulimit -u" + bound(RLIMIT_NPROC)
                      + ", or the limit of pids of the container"
                : std::string{"let the container's seccomp filter allow "
                              "clone3, or refuse it with ENOSYS"});
}

}  // namespace

bool is_shortage(int error) noexcept {
  switch (error) {
    case EAGAIN:  // processes, threads
    case ENOMEM:
    case ENOBUFS:
    case EMFILE:
    case ENFILE:
    case ETOOMANYREFS:   // descriptors on their way to another process
    case EADDRNOTAVAIL:  // ports for outgoing connections
      return true;
    default:
      return false;
  }
}

std::string find_shortage(const needs& x) {
  auto text = descriptors_missing(x);
  if (text.empty())
    text = calls_refused();
  if (text.empty())
    text = memory_missing(x);
  if (text.empty())
    text = threads_missing(x);
  return text;
}

}  // namespace pup
