// A command beside a process: a hook, a check. Runs it once and tells how it
// went; ends it when it takes too long.
#pragma once

#include "pup/actors/protocol.hpp"

#include <chrono>
#include <string>

namespace pup {

/// task -> whoever wanted it; its last word.
struct task_done {
  std::uint64_t number = 0;
  std::string fault;  ///< empty: it ended with code 0
  /// It did not even begin, see ending::no_room.
  bool no_room = false;
};

using task_client = caf::typed_actor<caf::reacts_to<task_done>>;

struct task_args {
  std::uint64_t number = 0;  ///< comes back in task_done
  launch request;            ///< its readiness is of no concern
  std::chrono::milliseconds timeout{30'000};
  launcher_actor launcher;
};

/// Linked to nobody: `parent` ends it, which kills the command, when it is no
/// longer wanted, and it ends by itself when `parent` does.
instance_actor spawn_task(caf::local_actor* parent, const task_client& client,
                          task_args args);

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::task_done)
