// One slot of a cluster: what is known of it, and what follows from that.
//
// A slot is a stable number with a port; its lives come and go. The cluster's
// actor changes slots, everything here only reads them: no messages, no clock.
#pragma once

#include "pup/actors/protocol.hpp"
#include "pup/actors/supervision.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace pup {

/// Where a slot is (the table stands in protocol_cluster.hpp).
enum class slot_phase : std::uint8_t {
  resting,  ///< no process; why is in `rest`
  backoff,
  waiting,  ///< for the conductor's leave
  starting,
  ready,
  expiring,  ///< its leader has ended by itself, the rest is being stopped
  draining,
  stopping,
};

struct slot {
  std::uint32_t number = 0;  ///< from 1; 0 for a single process
  bool wanted = false;
  slot_phase now = slot_phase::resting;
  run_state rest = run_state::stopped;  ///< while resting
  instance_actor handle;                ///< empty: no life
  std::uint64_t life = 0;
  std::uint64_t timer = 0;  ///< number of the current backoff
  time_point due{};         ///< its end
  std::int32_t pid = 0;
  std::string address;  ///< where its port accepts, once ready
  time_point started{};
  time_point ready_since{};   ///< of this life; the epoch: it never was
  time_point leader_ended{};  ///< while expiring
  std::uint32_t restarts = 0;
  std::uint64_t cut = 0;             ///< connections that outlived the drain
  std::uint64_t announced_with = 0;  ///< snapshot that brings it clients
  std::optional<ending> last;
  std::string reason;     ///< why it is not ready, in words
  std::string warning;    ///< what its launch could not do; no failure
  bool suspect = false;   ///< ready, but its last health checks failed
  bool blocked = false;   ///< not to be started until somebody unblocks it
  bool outdated = false;  ///< to be replaced by the roll-out
  bool awaited = false;   ///< somebody waits for the new life
  bool trial = false;     ///< its life began in the roll-out, which it may stop
  bool spare = false;     ///< beyond the wanted number, until the roll-out ends
  /// Why its memory asks for a restart of this life; empty: it does not.
  std::string outgrown;
  /// Due again by the clock while it ran, and is to begin when it has ended.
  bool overrun = false;
  launch_wish wish;    ///< while waiting
  std::string delay;   ///< why it still waits; empty: nobody has said
  bool stuck = false;  ///< nothing would end its waiting
  struct fate {
    run_state rest = run_state::stopped;
    std::string why;
  };
  std::optional<fate> then;  ///< how it is to rest when it has been stopped
  std::optional<supervision> rules;
  /// What its life was begun with; empty: it had none yet.
  std::shared_ptr<const process_spec> of;
};

/// What a cluster's actor leaves for its next life: what was wanted, and where
/// lives stood.
class history;

struct wanted_state {
  struct resting_slot {
    std::uint32_t number = 0;
    bool wanted = false;  ///< true: it ended by itself, and is to stay so
    run_state rest = run_state::stopped;
    std::string reason;
    bool blocked = false;

    bool operator==(const resting_slot&) const = default;
  };
  /// Of each slot, resting or not.
  struct slot_record {
    std::uint32_t number = 0;
    std::uint32_t restarts = 0;
    bool blocked = false;
    restart_record restarting;

    bool operator==(const slot_record&) const = default;
  };

  std::uint32_t desired = 0;
  bool listening = true;
  std::uint64_t last_life = 0;  ///< it grows without a new note
  std::vector<resting_slot> resting;
  std::vector<slot_record> records{};
  /// The histories (history.hpp), by slot. They, too, change without a new
  /// note: only one life has them at a time.
  std::shared_ptr<std::map<std::uint32_t, history>> book{};
  std::shared_ptr<const process_spec> spec{};  ///< empty: the first one
  /// Up to here its starts by the clock have been acted upon; the epoch: it has
  /// none. Moves with each of them, and no wake-up is needed for more.
  std::chrono::sys_seconds clock_seen{};

  bool operator==(const wanted_state&) const = default;
};

/// "web-3", or the id of the process that is no cluster.
std::string slot_id(const process_spec& spec, std::uint32_t number);

/// 0: none.
std::uint16_t slot_port(const process_spec& spec, std::uint32_t number);

/// Two units of `spec` never choose the same port for their spares: each has
/// those from its own instances up to the instances of the next.
spare_ports spare_ports_of(const std::string& unit, const pup_spec& spec);

/// The number of instances that `request` asks for, or fault::bad_request: no
/// cluster, more than bounds::instances, a port above 65535.
std::variant<std::uint32_t, caf::error> scaled_count(const process_spec& spec,
                                                     std::uint32_t desired,
                                                     const scale& request);

/// What the launcher gets for one life: placeholders replaced, the variables
/// that every managed process gets added.
launch launch_of(const process_spec& spec, const std::string& supervisor,
                 std::uint32_t number, std::uint64_t life);

/// The same for a command beside the life of `of`: a hook, a check. `name` is
/// its PUP_HOOK; `number` tells several tasks of a life apart.
launch task_of(const launch& of, const command_spec& command,
               std::uint32_t slot, const std::string& name,
               std::uint64_t number);

restart_type restart_type_of(restart_policy x);
backoff_rule backoff_of(const process_spec& spec);

/// Restart rules of a slot, with nothing on record. Their only child is called
/// slot_child.
supervision rules_of(const process_spec& spec);
inline constexpr const char* slot_child = "instance";

/// The key whose limit has been passed, and the limit in words.
std::pair<std::string, std::string> passed_limit(const process_spec& spec,
                                                 const give_up& x);

run_state state_of(const slot& x);

/// Why it is not ready, in words; empty: it is.
const std::string& reason_of(const slot& x);

/// Without connections, cpu and memory.
instance_status status_of(const process_spec& spec, const slot& x,
                          time_point now);

/// State of a cluster. `reachable`: its common port, if any, accepts.
run_state cluster_state_of(const std::vector<slot>& slots,
                           std::uint32_t desired, bool reachable);

/// "250 ms", "12 s".
std::string in_words(duration x);

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::wanted_state)
