// Instance: one life, of one operating-system process and all that this starts.
//
// clang-format off
//
//  state    | launched    | ready       | leader_ended | exited,       | stop (exit  | deadline
//           |             |             |              | launch_failed | message)    |
//  ---------+-------------+-------------+--------------+---------------+-------------+-------------
//  starting | tell parent | -> ready,   | tell parent, | -> gone       | -> stopping | -> stopping
//           |             | tell parent | -> stopping  |               |             |
//  ready    | ignore      | ignore      | tell parent, | -> gone       | -> stopping | check health
//           |             |             | -> stopping  |               |             |
//  stopping | signal now  | ignore      | signal to    | -> gone       | ignore      | SIGKILL to
//           |             |             | who had none |               |             | the life
//  gone     : the actor has quit; its exit reason carries the `ending`
//
// clang-format on
#pragma once

#include "pup/actors/caf.hpp"
#include "pup/config/spec.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace pup {

/// How a life of a process ended: the exit reason of its instance.
struct ending {
  enum class kind : std::uint8_t {
    exited,        ///< `code`
    signalled,     ///< `signal`
    not_launched,  ///< no process ever ran: `text`; `code` as below, or 0
    not_ready,     ///< was stopped for not becoming ready in time
    unhealthy,     ///< was stopped for what it did or failed to do: `text`
    lost,          ///< the instance actor itself failed
  };
  /// `code` of not_launched: somebody else listens on its port.
  static constexpr std::int32_t port_taken = 1;
  /// The same: the machine had no process, memory or descriptor for it. That is
  /// no fault of the process, and counts against none of its limits.
  static constexpr std::int32_t no_room = 2;

  kind what = kind::lost;
  std::int32_t code = 0;
  std::int32_t signal = 0;
  std::string text;  ///< extra words; for not_launched the whole reason
  /// Of processes of the life that have outlived its leader, in words: had to
  /// be killed, or are not known to be its own. Empty: nothing to be told.
  std::string rest{};
  bool left_over = false;  ///< some of it may run still, as `rest` says
};

/// "exited with code 3", "killed by SIGKILL", "port 8000 is in use …".
std::string to_string(const ending& x);
caf::error make_error(const ending& x);
/// The ending inside the exit reason of an instance; kind::lost for a reason
/// that carries none.
ending ending_of(const caf::error& reason);

/// launcher -> instance: exec succeeded.
struct process_launched {
  std::uint64_t life = 0;
  std::int32_t pid = 0;
  std::string warning;  ///< output is not kept because …; empty: all well
};
/// launcher -> instance: its readiness condition holds.
struct process_ready {
  std::uint64_t life = 0;
  std::string address;  ///< numeric; where its port accepts. Empty: no port
};
/// launcher -> instance: what the process says of itself, by sd_notify(3).
struct process_said {
  std::uint64_t life = 0;
  bool stopping = false;  ///< it is about to end by itself
  bool alive = false;     ///< its watchdog is content
  bool trouble = false;   ///< its watchdog is not
  std::string status;     ///< in its own words; empty: none
};
/// launcher -> instance: it and what it started use more than max_memory. Once.
struct process_outgrew {
  std::uint64_t life = 0;
  std::string text;  ///< "used 312M, more than maxMemory 300M"
};
/// launcher -> instance: its process, the leader of the life, has ended; of
/// what that has started some is left, which gets signals like the life as a
/// whole.
struct process_leader_ended {
  std::uint64_t life = 0;
  ending how;  ///< with `rest`
};
/// launcher -> instance: no process came to be, or the life has ended: nothing
/// of it is left. Last message about a life.
struct process_ended {
  std::uint64_t life = 0;
  ending how;
  /// Of one that was told to stop before it was ready: what was found in place
  /// of that. Empty: nothing.
  std::string unready{};
};

/// cluster -> instance: what its process need not be started again for.
struct retune {
  std::chrono::milliseconds grace_period{0};
  std::chrono::milliseconds stop_timeout{0};
  std::int32_t stop_signal = 0;
  hook_set hooks;
  std::optional<health_check> health;
};

using instance_actor = caf::typed_actor<
    caf::reacts_to<process_launched>, caf::reacts_to<process_ready>,
    caf::reacts_to<process_leader_ended>, caf::reacts_to<process_ended>,
    caf::reacts_to<process_said>, caf::reacts_to<process_outgrew>,
    caf::reacts_to<retune>>;

// -- inspection ---------------------------------------------------------------

template <class Inspector>
auto inspect(Inspector& f, ending& x) {
  return f(caf::meta::type_name("ending"), x.what, x.code, x.signal, x.text,
           x.rest, x.left_over);
}

}  // namespace pup

// These never leave the process: no inspection is wanted.
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_launched)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_ready)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_leader_ended)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_ended)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_said)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_outgrew)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::retune)
