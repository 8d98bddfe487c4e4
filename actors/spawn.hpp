// Spawning pup's actors: with protocol.hpp the public face of this folder.
//
// Everything is spawned by its parent, which monitors it; an actor that loses
// its parent ends and takes its process with it.
#pragma once

#include "pup/actors/protocol.hpp"

#include <cstdint>
#include <string>

namespace pup {

/// Where the actors of one supervisor meet the world.
struct ports {
  launcher_actor launcher;
  proxy_actor proxy;
};

/// What an instance is told about itself.
struct instance_args {
  launch request;
  std::uint32_t slot = 0;
  /// From being asked to stop to the stop signal.
  std::chrono::milliseconds grace_period{0};
  /// From the stop signal to SIGKILL.
  std::chrono::milliseconds stop_timeout{30'000};
  std::int32_t stop_signal = 15;
  std::chrono::milliseconds ready_timeout{30'000};
  launcher_actor launcher;
};

/// One life of one process. Asked to stop by an exit message with
/// exit_reason::user_shutdown; any other exit reason, or the end of `parent`,
/// kills the process group at once. Its own exit reason carries the `ending`.
instance_actor spawn_instance(caf::local_actor* parent, cluster_actor facts_to,
                              instance_args args);

struct balancer_args {
  std::string cluster;
  cluster_spec spec;
  proxy_actor proxy;
  bool listening = true;
};

/// Decides which instances are eligible. Keeps the listener open through the
/// proxy, trying again when that fails; closes it when told to or asked to
/// stop, but not when it fails itself: its next life attaches to the same
/// sockets.
balancer_actor spawn_balancer(caf::local_actor* parent, cluster_actor facts_to,
                              balancer_args args);

struct cluster_args {
  process_spec spec;
  /// Name of the supervisor, for PUP_NAME.
  std::string supervisor;
  ports world;
  /// Seed of the restart delays' jitter.
  std::uint32_t seed = 1;
  /// What an earlier life left with its supervisor by `keep`.
  caf::message kept;
};

/// The supervisor of the slots of one process_spec: one slot for a single
/// process. Starts what autostart asks for when spawned.
cluster_actor spawn_cluster(caf::local_actor* parent, cluster_args args);

struct control_args {
  /// Answers to get_status start from this: name, pid, version, config.
  supervisor_status identity;
  /// When the supervisor started, on the actor clock.
  std::chrono::steady_clock::time_point started{};
  /// The specs that run, to judge a scale request by.
  pup_spec spec;
  launcher_actor launcher;
  /// Whose children the units are, each under unit_child_id().
  supervisor_actor root;
};

/// Id of a unit among the children of the root. A blank is in no unit's id, so
/// that none can be taken for "control".
inline std::string unit_child_id(const std::string& unit) {
  return "unit " + unit;
}

/// Requests of command lines and embedding programs, delegated to the units.
control_actor spawn_control(caf::local_actor* parent, control_args args);

}  // namespace pup
