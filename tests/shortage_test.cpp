// What a program needs of the machine, and its last words where that fails.
#include "pup/runtime/shortage.hpp"

#include "pup/runtime/fd.hpp"
#include "pup/runtime/last_words.hpp"

#include "catch.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace pup;

namespace {

struct outcome {
  int code = -1;  ///< -1: ended by a signal
  std::string err;
};

/// In a process of its own, without a core file.
outcome in_child(const std::function<void()>& what) {
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const auto pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    const rlimit none{};
    ::setrlimit(RLIMIT_CORE, &none);
    ::dup2(ends[1], STDERR_FILENO);
    // Catch2's handlers would report of the test case.
    for (const auto signo : {SIGABRT, SIGSEGV})
      std::signal(signo, SIG_DFL);
    prepare_last_words();
    what();
    ::_exit(0);
  }
  ::close(ends[1]);
  const unique_fd reading{ends[0]};
  outcome result;
  std::array<char, 4'096> buffer{};
  for (;;) {
    const auto n = ::read(reading.get(), buffer.data(), buffer.size());
    if (n <= 0)
      break;
    result.err.append(buffer.data(), static_cast<std::size_t>(n));
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  if (WIFEXITED(status))
    result.code = WEXITSTATUS(status);
  return result;
}

void say(const std::string& text) {
  static_cast<void>(!::write(STDERR_FILENO, text.data(), text.size()));
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

SCENARIO("what a thread runs out of, uncaught, is one line and exit code 1") {
  const auto memory =
      in_child([] { std::thread{[] { throw std::bad_alloc{}; }}.join(); });
  CHECK(memory.code == 1);
  CHECK(memory.err.starts_with("pup: out of memory; raise ulimit -v"));
  CHECK(memory.err.find('\n') == memory.err.size() - 1);
  const auto threads = in_child([] {
    std::thread{[] {
      throw std::system_error{EAGAIN, std::generic_category()};
    }}.join();
  });
  CHECK(threads.code == 1);
  CHECK(
      threads.err.starts_with("pup: Resource temporarily unavailable; "
                              "raise ulimit -u"));
  const auto descriptors = in_child([] {
    std::thread{[] {
      throw std::system_error{EMFILE, std::generic_category(), "eventfd"};
    }}.join();
  });
  CHECK(descriptors.code == 1);
  CHECK(descriptors.err
        == "pup: eventfd: Too many open files; raise ulimit -n\n");
}

SCENARIO("a half made object that an error leaves is no abort") {
  struct team {
    std::thread one{[] { ::pause(); }};
    explicit team(int error) {
      if (error != 0)
        throw std::system_error{error, std::generic_category()};
    }
  };
  const auto x = in_child([] {
    try {
      const team one{EAGAIN};
    } catch (const std::system_error&) {
      say("not here\n");
    }
  });
  CHECK(x.code == 1);
  CHECK(x.err.starts_with("pup: out of threads, memory or descriptors; "));
}

SCENARIO("a defect aborts, with its text") {
  const auto x = in_child([] {
    std::thread{[] { throw std::logic_error{"seven is not eight"}; }}.join();
  });
  CHECK(x.code == -1);
  CHECK(contains(x.err, "seven is not eight"));
}

SCENARIO("where there is enough nothing is short") {
  CHECK(find_shortage({"the test", 4, 16, 1 << 20}).empty());
  CHECK(find_shortage({"the test", 0, 0, 0}).empty());
}

SCENARIO("a shortage of descriptors is told with the limit") {
  const auto x = in_child([] {
    const rlimit few{20, 20};
    ::setrlimit(RLIMIT_NOFILE, &few);
    say(find_shortage({"the test", 0, 30, 0}));
    say(find_shortage({"the test", 0, 2, 0}));
  });
  CHECK(x.code == 0);
  CHECK(x.err.starts_with("descriptors: the test needs 30 more and can open "));
  CHECK(x.err.ends_with("(Too many open files); raise ulimit -n, which is 20"));
}

#ifndef __SANITIZE_ADDRESS__
SCENARIO("a shortage of memory is told with the limit") {
  const auto x = in_child([] {
    const rlimit little{256u << 20, 256u << 20};
    ::setrlimit(RLIMIT_AS, &little);
    say(find_shortage({"the test", 0, 0, 1u << 30}));
  });
  CHECK(x.code == 0);
  CHECK(x.err.starts_with("memory: the test needs 1024 MB more"));
  CHECK(contains(x.err, "raise ulimit -v, which is 262144"));
}
#endif
