// Carries out what a new configuration changes: stops in reverse order, then
// changes what stays, then starts in order. One actor for one change; whoever
// spawned it sends carry_out once.
#pragma once

#include "pup/actors/protocol.hpp"
#include "pup/config/diff.hpp"

#include <functional>
#include <string>
#include <vector>

namespace pup {

struct applying_args {
  supervisor_actor root;
  pup_spec from;
  pup_spec to;
  spec_change plan;  ///< from `from` to `to`
  std::function<child_spec(const process_spec&)> unit;
  std::string caller;  ///< for the history
};

struct carry_out {};
struct carried_out {
  /// What holds now: `to`, but for units that could not be changed.
  pup_spec spec;
  std::vector<outcome> outcomes;
};

/// Absolute path of the file that an apply request brings, where it is told.
std::string path_of(const apply& x);

using applying_actor =
    caf::typed_actor<caf::replies_to<carry_out>::with<carried_out>>;

applying_actor spawn_applying(caf::local_actor* parent, applying_args args);

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::carry_out)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::carried_out)
