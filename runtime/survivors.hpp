// Processes that have outlived a supervisor that was killed.
//
// Each managed process carries PUP_OWNER, which names the supervisor's place on
// this machine (place::mark()), and so does what it starts. A process with the
// mark of a place whose lock is ours has lost its supervisor, whatever became
// of the state file; one that has cleaned its environment is known by the pid
// and start time that were written down. What is below either, or in a session
// that it leads, has come from it.
//
// The mark is memory of the process: anybody may forge it, and hold up a
// reader. It counts only for users that our processes run as, and a reader is
// waited for one second. Signals go to processes, never to the number of a
// group.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/state_file.hpp"

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include <sys/types.h>

namespace pup {

inline constexpr const char* owner_variable = "PUP_OWNER";

struct survivor {
  std::string id;  ///< PUP_ID, or the key in the state file; may be empty
  pid_t pid = 0;
  std::uint64_t started = 0;
};

/// How survivors are known.
struct survivor_traits {
  std::string mark;  ///< empty: none carries it
  /// Of this boot; nullptr: there is none.
  const saved_state* recorded = nullptr;
  /// Whom a mark is believed besides the caller's own user.
  std::set<uid_t> users{};
  /// Inodes of pipes that nobody but survivors writes to by descriptor 1 or 2:
  /// those of their logs, where the caller still reads them.
  std::set<std::uint64_t> pipes{};
};

/// Those with the mark or a pipe, those that are still the processes that were
/// written down, and what has come from them; not the caller and its ancestors.
/// Walks /proc, some 20 us for each process of the machine. A process between
/// fork and exec, when no mark can be read, is looked at again, for 100 ms at
/// most.
std::vector<survivor> find_survivors(const survivor_traits& traits);

/// The pipes that this process reads from, its standard input apart.
std::set<std::uint64_t> own_pipes();

/// Users that the processes of `spec` run as.
std::set<uid_t> users_of(const pup_spec& spec);

/// How a survivor is to be stopped.
struct stop_rule {
  int signal = SIGTERM;
  std::chrono::milliseconds timeout{30'000};
};

/// That of the process or cluster in `spec` that `id` belonged to.
stop_rule stop_rule_of(const pup_spec& spec, const std::string& id);

/// Stops them as `rule` says: the signal, and SIGCONT; SIGKILL to those that
/// are left when the time is over, or at once when `hurry` (a descriptor; -1:
/// none) is readable. What carries the mark or a pipe of `traits` by then, as
/// they had not ended yet, gets SIGKILL. Blocks. The number of those that not
/// even that has ended after 5 s, or that belong to somebody else.
std::size_t end_survivors(
    const std::vector<survivor>& all, const survivor_traits& traits,
    const std::function<stop_rule(const std::string& id)>& rule, int hurry);

}  // namespace pup
