// What becomes of a program that may have no more threads.
#pragma once

#include <functional>

#include <grp.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pup::test {

/// Nobody else is this user.
inline constexpr uid_t user_without_threads = 61'999;

/// Of the process that calls it.
inline bool allow_threads(rlim_t count) {
  const rlimit limit{count, 1'000};
  return ::setrlimit(RLIMIT_NPROC, &limit) == 0;
}

/// What `f` returns in a process of its own, of that user, who may have no more
/// threads until it calls allow_threads(). Negative: it did not return. Needs
/// root, for whom there is no such limit.
inline int run_without_threads(const std::function<int()>& f) {
  const auto pid = ::fork();
  if (pid < 0)
    return -1;
  if (pid == 0) {
    const auto id = user_without_threads;
    if (::setgroups(0, nullptr) != 0 || ::setresgid(id, id, id) != 0
        || ::setresuid(id, id, id) != 0 || !allow_threads(1))
      ::_exit(99);
    ::_exit(f());
  }
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
    return -2;
  return WEXITSTATUS(status);
}

}  // namespace pup::test
