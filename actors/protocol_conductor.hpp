// Conductor: which unit may launch an instance now; groups of units.
//
// Knows how units depend on each other, which groups they form, and how many
// may be starting at once. Units tell it where they stand, by snapshots; it
// grants launches. One that fails loses no more than a restart of a group that
// was under way: its successor asks all units to report.
#pragma once

#include "pup/actors/caf.hpp"
#include "pup/actors/protocol_instance.hpp"
#include "pup/actors/protocol_status.hpp"
#include "pup/config/spec.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace pup {

/// A launch that waits for the conductor's leave.
struct launch_wish {
  std::uint32_t slot = 0;
  std::uint64_t ticket = 0;  ///< of this wish alone
  bool fresh = true;  ///< a start, which waits for what the unit depends on; a
                      ///< restart does not

  bool operator==(const launch_wish&) const = default;
};
/// unit -> conductor: where it stands. Sent whenever that has changed.
struct unit_report {
  std::string unit;
  std::vector<launch_wish> wishes;
  std::uint32_t starting = 0;  ///< instances that are not ready yet
  bool alive = false;    ///< one of its instances is being stopped or runs
  bool busy = false;     ///< there is more to come from it by itself
  bool started = false;  ///< as dependency::condition, for all that are
  bool ready = false;    ///< wanted
  bool finished = false;
  bool coming = false;  ///< without trouble on the way to be ready
  run_state state = run_state::stopped;
  std::string reason;
  std::uint64_t steered = 0;  ///< number of the last `steer` that took effect

  bool operator==(const unit_report&) const = default;
};
/// unit -> conductor: a process of it ended, and nobody had asked for that. A
/// cluster tells it of its last instance only.
struct unit_ended {
  enum class next : std::uint8_t {
    restart,  ///< it is going to wish for a launch, after its backoff
    rest,     ///< it stays as it is
    gave_up,  ///< as rest, because it ended too often
  };
  std::string unit;
  next what = next::rest;
  ending how;
};
/// control -> conductor: what holds from now on.
struct follow_spec {
  pup_spec spec;
};

using conductor_actor =
    caf::typed_actor<caf::reacts_to<unit_report>, caf::reacts_to<unit_ended>,
                     caf::reacts_to<follow_spec>>;

/// conductor -> unit: it is new, and knows nothing.
struct report_to {
  conductor_actor conductor;
};
/// conductor -> unit.
struct launch_granted {
  std::uint32_t slot = 0;
  std::uint64_t ticket = 0;
};
/// conductor -> unit: not yet. May be said again with another reason.
struct launch_delayed {
  std::uint32_t slot = 0;
  std::uint64_t ticket = 0;
  std::string reason;
  bool stuck = false;  ///< nothing is under way that would end the waiting
};
/// conductor -> unit: its group wants it stopped.
struct steer {
  std::uint64_t number = 0;  ///< grows
  /// Then it is to wish for launches again; else to rest as `rest`.
  bool again = false;
  run_state rest = run_state::stopped;
  std::string why;
};

}  // namespace pup

// These never leave the process: no inspection is wanted.
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::unit_report)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::unit_ended)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::follow_spec)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::report_to)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::launch_granted)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::launch_delayed)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::steer)
