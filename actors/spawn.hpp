// Spawning pup's actors: with protocol.hpp the public face of this folder.
//
// Everything is spawned by its parent, which monitors it; an actor that loses
// its parent ends and takes its process with it.
#pragma once

#include "pup/actors/protocol.hpp"
#include "pup/actors/schedule.hpp"
#include "pup/actors/watching.hpp"
#include "pup/config/load.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace pup {

/// Where the actors of one supervisor meet the world.
struct ports {
  launcher_actor launcher;
  proxy_actor proxy;
  calendar wall{};
  file_watch files{};
};

/// A life that an earlier supervisor began, as far as it is known to have got.
struct adopted_life {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::int32_t pid = 0;  ///< 0: its program is not executed yet
  std::chrono::milliseconds age{0};
  bool ready = false;
  bool stopping = false;
  std::string address;  ///< once ready
  /// How long ago it was first told to stop, or its leader ended.
  std::optional<std::chrono::milliseconds> ending{};
};

/// What an instance is told about itself.
struct instance_args {
  launch request;
  /// Goes on with this life in place of beginning one.
  std::optional<adopted_life> adopted{};
  std::uint32_t slot = 0;
  /// From being asked to stop to the stop signal.
  std::chrono::milliseconds grace_period{0};
  /// From the stop signal to SIGKILL.
  std::chrono::milliseconds stop_timeout{30'000};
  std::int32_t stop_signal = 15;
  std::chrono::milliseconds ready_timeout{30'000};
  /// Run again and again until it succeeds: then the process is ready. Empty:
  /// it is when the launcher says so.
  command_spec ready_command;
  /// Longest run. 0: any.
  std::chrono::milliseconds run_timeout{0};
  hook_set hooks;
  /// Checks of its port while it is ready.
  std::optional<health_check> health;
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
  /// Asked before each launch. Empty: nobody is.
  conductor_actor conductor;
  /// Seed of the restart delays' jitter.
  std::uint32_t seed = 1;
  /// What an earlier life left with its supervisor by `keep`.
  caf::message kept;
  /// Lives to be gone on with.
  std::vector<adopted_life> adopted{};
  /// What its schedule has missed, for the history; empty: nothing.
  std::string missed{};
};

/// The supervisor of the slots of one process_spec: one slot for a single
/// process. Starts what autostart asks for when spawned.
cluster_actor spawn_cluster(caf::local_actor* parent, cluster_args args);

struct conductor_args {
  pup_spec spec;
  /// Whose children the units are.
  supervisor_actor root;
  /// End the root once autoShutdown has ended a group and nothing else is left,
  /// with that `ending` as reason.
  bool ends_with_groups = false;
  /// Others may have run before it: ask the units to report.
  bool successor = false;
  std::uint32_t seed = 1;
};

/// Tells units when they may launch, and restarts and ends groups.
conductor_actor spawn_conductor(caf::local_actor* parent, conductor_args args);

/// A configuration that was read, or the reason why it was not.
struct loaded {
  load_result content;
  std::string refusal{};  ///< nothing was read, and why; empty: `content`
};

/// Begins to read what apply brings, which may take for ever, and returns at
/// once. `done` is called once, on any thread, or never. The result is called
/// on the caller's thread: what is waited for just then, in words.
using load_function = std::function<std::function<std::string()>(
    const apply&, std::function<void(loaded)> done)>;

struct control_args {
  /// Answers to get_status start from this: name, pid, version, config.
  supervisor_status identity;
  /// The process whose end is the end of all; 0: that of `identity`.
  std::int32_t last_pid = 0;
  /// When the supervisor started, on the actor clock.
  std::chrono::steady_clock::time_point started{};
  /// What goes into supervisor_status::warnings. Called for each status, must
  /// not block; may be unset.
  std::function<std::vector<std::string>()> warnings{};
  /// The specs that run, to judge a scale request by.
  pup_spec spec;
  launcher_actor launcher;
  /// Who changes something is answered when that will outlive a crash. May be
  /// null.
  memory_actor memory{};
  /// Whose children the units are, each under unit_child_id().
  supervisor_actor root;
  /// Reads what apply brings. Empty: apply is refused.
  load_function load{};
  /// Told when all of what it brings holds, before that is answered. May be
  /// unset.
  std::function<void(const apply&)> applied{};
  /// Makes such a child.
  std::function<child_spec(const process_spec&)> unit{};
  /// What an earlier life left with its supervisor by `keep`.
  caf::message kept{};
};

/// Id of a unit among the children of the root. A blank is in no unit's id, so
/// that none can be taken for "control".
inline std::string unit_child_id(const std::string& unit) {
  return "unit " + unit;
}

/// Requests of command lines and embedding programs, delegated to the units.
control_actor spawn_control(caf::local_actor* parent, control_args args);

}  // namespace pup
