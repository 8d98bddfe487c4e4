// Second processes for tests: the test program starts itself with the name of
// one of its hidden test cases.
#pragma once

#include "pup/runtime/fd.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pup::test {

inline void check(bool ok, const char* what) {
  if (!ok)
    throw std::system_error{errno, std::generic_category(), what};
}

/// Generous: only a hanging test ever waits this long.
inline constexpr std::chrono::seconds patience{30};

/// Descriptors of the child: it reports lines on one and ends when it reads the
/// end of the other.
inline constexpr int report_fd = 3;
inline constexpr int orders_fd = 4;

/// Killed and reaped when it goes out of scope.
class child_process {
public:
  /// Variables are "NAME=value" and visible to the child through getenv().
  child_process(const std::string& test_case,
                std::vector<std::string> variables) {
    std::array<unique_fd, 2> report = pipe_above_standard();
    std::array<unique_fd, 2> orders = pipe_above_standard();
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions, report[1].get(), report_fd);
    ::posix_spawn_file_actions_adddup2(&actions, orders[0].get(), orders_fd);
    std::string program = "/proc/self/exe";
    std::string name = test_case;
    std::vector<char*> arguments{program.data(), name.data(), nullptr};
    std::vector<char*> environment;
    for (auto& variable : variables)
      environment.push_back(variable.data());
    for (auto variable = ::environ; *variable != nullptr; ++variable)
      environment.push_back(*variable);
    environment.push_back(nullptr);
    errno = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr,
                          arguments.data(), environment.data());
    ::posix_spawn_file_actions_destroy(&actions);
    check(errno == 0, "posix_spawn");
    report_ = std::move(report[0]);
    orders_ = std::move(orders[1]);
  }

  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;

  ~child_process() {
    kill();
  }

  [[nodiscard]] pid_t pid() const {
    return pid_;
  }

  void signal(int number) const {
    check(::kill(pid_, number) == 0, "kill");
  }

  /// SIGSTOP, and waits until all its threads rest.
  void stop() const {
    signal(SIGSTOP);
    int status = 0;
    check(::waitpid(pid_, &status, WUNTRACED) == pid_ && WIFSTOPPED(status),
          "waitpid");
  }

  /// kill -9, and waits until it is gone.
  void kill() {
    if (pid_ <= 0)
      return;
    ::kill(pid_, SIGKILL);
    reap();
  }

  void order(const std::string& text) const {
    check(::write(orders_.get(), text.data(), text.size())
              == static_cast<ssize_t>(text.size()),
          "write to the child");
  }

  /// Asks it to end; its wait status.
  int end() {
    orders_.reset();
    return reap();
  }

  /// Next line it reported, without the newline; empty when it ended.
  std::string line() {
    std::string result;
    auto deadline = std::chrono::steady_clock::now() + patience;
    for (char c = 0; c != '\n';) {
      auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      pollfd event{report_.get(), POLLIN, 0};
      if (left.count() <= 0
          || ::poll(&event, 1, static_cast<int>(left.count())) <= 0)
        throw std::runtime_error{"the child reports nothing"};
      if (::read(report_.get(), &c, 1) != 1)
        return {};
      if (c != '\n')
        result += c;
    }
    return result;
  }

private:
  /// Far from report_fd and orders_fd, so that dup2 cannot overwrite one.
  static std::array<unique_fd, 2> pipe_above_standard() {
    int ends[2];
    check(::pipe2(ends, O_CLOEXEC) == 0, "pipe2");
    unique_fd low_read{ends[0]};
    unique_fd low_write{ends[1]};
    unique_fd high_read{::fcntl(ends[0], F_DUPFD_CLOEXEC, 10)};
    unique_fd high_write{::fcntl(ends[1], F_DUPFD_CLOEXEC, 10)};
    check(high_read && high_write, "fcntl");
    return {std::move(high_read), std::move(high_write)};
  }

  int reap() {
    int status = 0;
    check(::waitpid(pid_, &status, 0) == pid_, "waitpid");
    pid_ = 0;
    return status;
  }

  pid_t pid_ = 0;
  unique_fd report_;
  unique_fd orders_;
};

/// In the child: ends with the test program, even when that is killed.
inline void die_with_parent() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
}

inline void report(const std::string& line) {
  auto text = line + "\n";
  check(::write(report_fd, text.data(), text.size())
            == static_cast<ssize_t>(text.size()),
        "report");
}

/// Waits for one byte of orders; false when the test wants the child to end.
inline bool await_order() {
  char c = 0;
  return ::read(orders_fd, &c, 1) == 1;
}

inline std::string variable(const char* name) {
  auto value = std::getenv(name);
  return value ? value : "";
}

/// A fresh folder below /tmp, removed with everything in it.
class temporary_folder {
public:
  temporary_folder() : path_("/tmp/pup-test-XXXXXX") {
    check(::mkdtemp(path_.data()) != nullptr, "mkdtemp");
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] const std::string& path() const {
    return path_;
  }

private:
  std::string path_;
};

}  // namespace pup::test
