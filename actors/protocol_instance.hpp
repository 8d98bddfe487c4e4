// Instance: one life of one operating-system process.
//
//  state    | launched   | ready        | exited,       | stop (exit | deadline
//           |            |              | launch_failed | message)   |
//  ---------+------------+--------------+---------------+------------+----------
//  starting | tell       | -> ready,    | -> gone       | -> stopping| ->
//  stopping
//           | parent     | tell parent  |               |            |
//  ready    | ignore     | ignore       | -> gone       | -> stopping| check
//  its
//           |            |              |               |            | health
//  stopping | signal now | ignore       | -> gone       | ignore     | SIGKILL
//  to
//           |            |              |               |            | the
//           group
//  gone     : the actor has quit; its exit reason carries the `ending`
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
    not_launched,  ///< no process ever ran: `text`; `code` may be port_taken
    not_ready,     ///< was stopped for not becoming ready in time
    unhealthy,     ///< was stopped for what it did or failed to do: `text`
    lost,          ///< the instance actor itself failed
  };
  /// `code` of not_launched: somebody else listens on its port.
  static constexpr std::int32_t port_taken = 1;

  kind what = kind::lost;
  std::int32_t code = 0;
  std::int32_t signal = 0;
  std::string text;  ///< extra words; for not_launched the whole reason
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
/// launcher -> instance: no process came to be, or it has ended. Last message
/// about a life.
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
    caf::reacts_to<process_ended>, caf::reacts_to<process_said>,
    caf::reacts_to<process_outgrew>, caf::reacts_to<retune>>;

// -- inspection ---------------------------------------------------------------

template <class Inspector>
auto inspect(Inspector& f, ending& x) {
  return f(caf::meta::type_name("ending"), x.what, x.code, x.signal, x.text);
}

}  // namespace pup

// These never leave the process: no inspection is wanted.
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_launched)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_ready)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_ended)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_said)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_outgrew)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::retune)
