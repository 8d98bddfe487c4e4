// Processes that have outlived a supervisor that was killed.
//
// Each managed process carries PUP_OWNER, which names the supervisor's place on
// this machine (place::mark()), and so does what it starts. Who carries the
// mark of a place whose lock is ours has lost its supervisor, whatever became
// of the state file; what has cleaned its environment is known by the pid and
// start time that were written down.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/state_file.hpp"

#include <chrono>
#include <csignal>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace pup {

inline constexpr const char* owner_variable = "PUP_OWNER";

struct survivor {
  std::string id;  ///< PUP_ID, or the key in the state file; may be empty
  pid_t pid = 0;
  pid_t group = 0;
  std::uint64_t started = 0;
};

/// Those with `mark`, and those of `recorded` (of this boot) that are still the
/// processes that were written down; not the caller and its ancestors. Walks
/// /proc, some 10 us for each process of the machine. An empty mark finds none.
std::vector<survivor> find_survivors(const std::string& mark,
                                     const saved_state* recorded);

/// How a survivor is to be stopped.
struct stop_rule {
  int signal = SIGTERM;
  std::chrono::milliseconds timeout{30'000};
};

/// That of the process or cluster in `spec` that `id` belonged to.
stop_rule stop_rule_of(const pup_spec& spec, const std::string& id);

/// Stops them as `rule` says: the signal to their groups, SIGKILL to who is
/// left when the time is over, or at once when `hurry` (a descriptor; -1: none)
/// is readable. What has come to carry `mark` meanwhile, as they had not ended
/// yet, gets SIGKILL. Blocks. The number of those that not even that has ended
/// after 5 s, or that belong to somebody else.
std::size_t end_survivors(
    const std::vector<survivor>& all, const std::string& mark,
    const std::function<stop_rule(const std::string& id)>& rule, int hurry);

}  // namespace pup
