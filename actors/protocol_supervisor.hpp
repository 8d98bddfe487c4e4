// Supervisor: a general Erlang-style one, which knows nothing of processes.
#pragma once

#include "pup/actors/caf.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace pup {

/// Where a supervisor's child is in its life.
enum class child_state : std::uint8_t {
  waiting,   ///< for its turn in an ordered start, or for its backoff
  starting,  ///< spawned, has not sent child_ready yet (await_ready only)
  running,
  stopping,
  stopped,
};

/// One line of the answer to which_children.
struct child_info {
  std::string id;
  child_state state = child_state::stopped;
  std::uint32_t restarts = 0;
  caf::strong_actor_ptr handle;  ///< null while it does not live
};

/// The children in start order.
struct which_children {};
/// Stops a child and keeps its spec. Answered when it is gone.
struct terminate_child {
  std::string id;
};
/// Starts a stopped child again.
struct restart_child {
  std::string id;
};
/// Forgets the spec of a stopped child.
struct delete_child {
  std::string id;
};
/// From a child with await_ready: the next one may start.
struct child_ready {};
/// From a child: hand `value` to the start function of its next life. The only
/// thing that survives a crash of the child.
struct keep {
  caf::message value;
};

struct child_spec;  // supervisor.hpp; local only

using supervisor_actor = caf::typed_actor<
    caf::replies_to<which_children>::with<std::vector<child_info>>,
    caf::replies_to<child_spec>::with<child_info>,  // start_child
    caf::replies_to<terminate_child>::with<void>,
    caf::replies_to<restart_child>::with<child_info>,
    caf::replies_to<delete_child>::with<void>, caf::reacts_to<child_ready>,
    caf::reacts_to<keep>>;

}  // namespace pup

// These never leave the process: no inspection is wanted.
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::child_spec)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::child_info)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::vector<pup::child_info>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::which_children)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::terminate_child)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::restart_child)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::delete_child)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::child_ready)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::keep)
