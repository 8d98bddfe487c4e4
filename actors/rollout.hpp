// Which instance of a cluster is replaced next? The pure heart of a rolling
// restart.
//
// A roll-out has three parts: spares are started beyond the wanted number and
// become ready; the outdated instances are replaced, each in its own slot,
// while enough others serve; the spares leave. A new life that fails stops it,
// so with a spare nothing that serves is touched before a new life has been
// ready. No messages, no clock: the cluster's actor tells what is the case and
// carries out what comes next.
#pragma once

#include "pup/config/spec.hpp"

#include <cstdint>
#include <vector>

namespace pup {

/// How many may be too many, and how many too few. Never both 0.
struct rollout_limits {
  std::uint32_t surge = 0;        ///< spares
  std::uint32_t unavailable = 0;  ///< wanted instances that do not serve

  bool operator==(const rollout_limits&) const = default;
};

/// What `spec` says, with the defaults where it says nothing. One spare where
/// a balancer gives it connections: no capacity is lost, and clients wait for
/// nothing, whatever the number of instances. Elsewhere nobody would use a
/// spare (a balancer of somebody else does not know its port): one instance at
/// a time.
rollout_limits limits_of(const process_spec& spec);

/// A slot that is to run, as a roll-out sees it.
struct rollout_slot {
  std::uint32_t number = 0;
  bool outdated = false;  ///< to be replaced
  bool serves = false;
  bool moving = false;  ///< its new life comes: the old one ends, or it starts
  bool spare = false;   ///< beyond the wanted number
};

struct rollout_step {
  enum class kind : std::uint8_t {
    wait,     ///< for what moves
    surge,    ///< start one more spare
    replace,  ///< end the life of slot `number`; a new one follows
    retire,   ///< the spare `number` leaves
    done,     ///< all are replaced, no spare is left
  };
  kind what = kind::wait;
  std::uint32_t number = 0;

  bool operator==(const rollout_step&) const = default;
};

/// Outdated spares come first, then what does not serve and so costs nothing
/// to replace, then the lowest number.
rollout_step step_after(const std::vector<rollout_slot>& slots,
                       rollout_limits limits);

}  // namespace pup
