// Cluster: N slots of one process_spec; a single process is one slot.
//
//  slot state | want up       | want down    | its life ended
//  -----------+---------------+--------------+---------------------------------
//  resting    | -> waiting    | stopped      | -
//  backoff    | -> waiting    | -> resting   | -
//  waiting    | -             | -> resting   | -
//  starting   | -             | -> stopping  | supervision: restart | rest
//  ready      | -             | -> draining  | supervision: restart | rest
//  expiring   | (after it)    | -> stopping  | supervision: restart | rest
//  draining   | -> ready      | -            | wanted ? waiting : resting
//  stopping   | (after it)    | -            | wanted ? waiting : resting
//
//  waiting -> starting when the conductor grants it; at once without one.
//  draining -> stopping when the balancer says drained; at once without one.
//  starting, ready -> expiring when its leader has ended by itself.
#pragma once

#include "pup/actors/caf.hpp"
#include "pup/actors/protocol_balancer.hpp"
#include "pup/actors/protocol_conductor.hpp"
#include "pup/actors/protocol_control.hpp"
#include "pup/actors/protocol_status.hpp"
#include "pup/config/spec.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace pup {

/// instance -> cluster: it has a pid.
struct instance_launched {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::int32_t pid = 0;
  std::string warning;
};
/// instance -> cluster: it may serve.
struct instance_ready {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::string address;
};
/// instance -> cluster: its process has ended by itself, and what that has
/// started is being stopped; its end follows.
struct instance_expires {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::string text;
  /// So much of its time is over, under an earlier supervisor.
  std::chrono::milliseconds ago{0};
};
/// instance -> cluster: what its process says of itself.
struct instance_said {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  bool stopping = false;  ///< it is about to end by itself
  std::string status;     ///< in its own words; empty: none
};
/// instance -> cluster: it needs a restart for its memory.
struct instance_outgrew {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::string text;
};
/// instance -> cluster: a health check failed, or enough have succeeded again.
struct instance_health {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::string fault;  ///< empty: healthy
};
/// balancer -> cluster: no connection is left, or the drain deadline passed.
struct backend_drained {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::uint64_t cut = 0;  ///< connections still open at the deadline
};
/// balancer -> cluster: no new connection goes by an older snapshot than this.
struct backends_assigned {
  std::uint64_t number = 0;
};
/// balancer -> cluster: the common port accepts; or why it does not.
struct listener_changed {
  bool open = false;
  std::string reason;
};
/// Where a unit may take ports for spares, above those of its instances.
struct spare_ports {
  std::uint16_t last = 65535;
  std::vector<std::uint16_t> taken;  ///< none of these
};
/// control -> cluster. `slot` 0: all of them.
struct operate_unit {
  verb what = verb::await;
  std::uint32_t slot = 0;
  bool wait = true;
  std::string caller{};
  spare_ports spares{};  ///< of reload
};
/// control -> cluster. `slot` 0: all of them.
struct signal_slots {
  std::uint32_t slot = 0;
  std::int32_t signal = 0;
  std::string caller{};
};
/// control -> cluster. `slot` 0: all of them.
struct get_unit_history {
  std::uint32_t slot = 0;
};
/// control -> cluster: another configuration, of the same id and kind (see
/// change_of() of config/diff.hpp). What needs new lives gets them as by
/// reload; when one of these fails the former configuration is back.
struct reconfigure {
  process_spec spec;
  spare_ports spares;
  std::string caller{};
};
struct reconfigured {
  bool taken = true;  ///< false: the former configuration holds
  std::vector<outcome> outcomes;
};
/// control -> cluster: the status without cpu and memory, which control adds.
struct get_unit_status {};

using cluster_actor = caf::typed_actor<
    caf::replies_to<scale>::with<scale_report>,
    caf::replies_to<operate_unit>::with<report>,
    caf::replies_to<signal_slots>::with<report>,
    caf::replies_to<reconfigure>::with<reconfigured>,
    caf::replies_to<get_unit_status>::with<unit_status>,
    caf::replies_to<get_unit_history>::with<history_report>,
    caf::reacts_to<instance_launched>, caf::reacts_to<instance_ready>,
    caf::reacts_to<instance_expires>, caf::reacts_to<instance_health>,
    caf::reacts_to<instance_said>, caf::reacts_to<instance_outgrew>,
    caf::reacts_to<backends_assigned>, caf::reacts_to<backend_reachable>,
    caf::reacts_to<backend_drained>, caf::reacts_to<listener_changed>,
    caf::reacts_to<report_to>, caf::reacts_to<launch_granted>,
    caf::reacts_to<launch_delayed>, caf::reacts_to<steer>>;

}  // namespace pup

// These never leave the process: no inspection is wanted.
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::backends_assigned)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::instance_launched)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::instance_ready)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::instance_expires)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::instance_health)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::instance_said)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::instance_outgrew)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::backend_drained)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::listener_changed)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::operate_unit)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::signal_slots)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::get_unit_status)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::reconfigure)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::reconfigured)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::get_unit_history)
