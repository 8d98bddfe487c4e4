// One slot of a cluster: what is known of it, and what follows from that.
//
// A slot is a stable number with a port; its lives come and go. The cluster's
// actor changes slots, everything here only reads them: no messages, no clock.
#pragma once

#include "pup/actors/protocol.hpp"
#include "pup/actors/supervision.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace pup {

/// Where a slot is (the table stands in protocol.hpp, section cluster).
enum class slot_phase : std::uint8_t {
  resting,  ///< no process; why is in `rest`
  backoff,
  starting,
  ready,
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
  std::int32_t pid = 0;
  std::string address;  ///< where its port accepts, once ready
  time_point started{};
  time_point ready_since{};
  std::uint32_t restarts = 0;
  std::uint64_t cut = 0;  ///< connections that outlived the drain
  std::optional<ending> last;
  std::string reason;   ///< why it is not ready, in words
  std::string warning;  ///< what its launch could not do; no failure
  std::optional<supervision> rules;
};

/// What a cluster's actor leaves for its next life: what was wanted, and where
/// lives stood.
struct wanted_state {
  struct resting_slot {
    std::uint32_t number = 0;
    bool wanted = false;  ///< true: it ended by itself, and is to stay so
    run_state rest = run_state::stopped;
    std::string reason;

    bool operator==(const resting_slot&) const = default;
  };

  std::uint32_t desired = 0;
  bool listening = true;
  std::uint64_t last_life = 0;
  std::vector<resting_slot> resting;

  bool operator==(const wanted_state&) const = default;
};

/// "web-3", or the id of the process that is no cluster.
std::string slot_id(const process_spec& spec, std::uint32_t number);

/// 0: none.
std::uint16_t slot_port(const process_spec& spec, std::uint32_t number);

/// The number of instances that `request` asks for, or fault::bad_request: no
/// cluster, more than bounds::instances, a port above 65535.
std::variant<std::uint32_t, caf::error> scaled_count(const process_spec& spec,
                                                     std::uint32_t desired,
                                                     const scale& request);

/// What the launcher gets for one life: placeholders replaced, the variables
/// that every managed process gets added.
launch launch_of(const process_spec& spec, const std::string& supervisor,
                 std::uint32_t number, std::uint64_t life);

/// Restart rules of a slot, with nothing on record. Their only child is called
/// slot_child.
supervision rules_of(const process_spec& spec);
inline constexpr const char* slot_child = "instance";

run_state state_of(const slot& x);

/// Without connections, cpu and memory.
instance_status status_of(const process_spec& spec, const slot& x,
                          time_point now);

/// State of a cluster. `reachable`: its common port, if any, accepts.
run_state cluster_state_of(const std::vector<slot>& slots,
                           std::uint32_t desired, bool reachable);

/// "250 ms", "12 s".
std::string in_words(duration x);

}  // namespace pup
