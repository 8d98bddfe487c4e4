// A general Erlang-style supervisor for CAF actors.
//
// It knows nothing of processes or ports and may be used by any CAF program:
//
//   pup::supervisor_spec spec;
//   spec.how = pup::strategy::rest_for_one;
//   spec.limit = {3, std::chrono::seconds(10)};
//   spec.children.push_back({"queue", [](pup::start_context& x) {
//     return caf::actor_cast<caf::strong_actor_ptr>(x.self->spawn(queue_fun));
//   }});
//   pup::supervisor_actor root = pup::spawn_supervisor(sys, std::move(spec));
//
// Children start in order and stop in reverse, one after the other. While a
// child with `await_ready` waits for its start or has not sent child_ready yet,
// none of those behind it is started or restarted. A child is stopped by an
// exit message (caf::exit_reason::user_shutdown) and killed when it has not
// ended within its `shutdown` time. When the restart intensity is exceeded the
// supervisor stops its children and ends with fault::gave_up, which its own
// supervisor sees as an abnormal end. An exit message to the supervisor, or the
// end of its parent, stops it in order; a second exit message kills what is
// left at once. A supervisor that is killed itself takes its children with it.
//
// An abnormal end is any exit reason but none, exit_reason::normal and
// exit_reason::user_shutdown (OTP: normal, shutdown).
//
// The answers to the requests of supervisor_actor:
//
//   child_spec       adds a child, behind the others unless it says otherwise,
//                    and tells its state; a failed start is an end like any
//                    other, the child stays. The id is taken or there is no
//                    start function: fault::bad_request
//   terminate_child  when it is gone; a temporary child is forgotten then
//   restart_child    of a child that waits or is stopped; else bad_request
//   delete_child     of a child that is stopped; else bad_request
//
// fault::no_such_id for a child that is unknown, fault::shutting_down when it
// is too late. The restart of a group starts what was terminated, too (as in
// OTP).
#pragma once

#include "pup/actors/protocol.hpp"
#include "pup/actors/supervision.hpp"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace pup {

/// What a start function gets. Valid during the call only.
struct start_context {
  caf::local_actor* self;    ///< the supervisor: spawn the child through it
  const caf::message& kept;  ///< what the previous life sent with `keep`
};

/// How a child is started, restarted and stopped.
struct child_spec {
  /// Unique among the supervisor's children.
  std::string id;
  /// Spawns the child on the supervisor's thread; must not block. An exception
  /// or a null handle counts as an abnormal end of the child. The child must
  /// not be linked to the supervisor: its end would stop that.
  std::function<caf::strong_actor_ptr(start_context&)> start;
  restart_type restart = restart_type::permanent;
  /// Time to end after the exit message. Empty: as long as it takes (right for
  /// children that are supervisors). 0: killed without an exit message. 5 s is
  /// OTP's default for workers.
  std::optional<std::chrono::milliseconds> shutdown{5'000};
  /// The next child starts only after this one has sent child_ready.
  bool await_ready = false;
  backoff_rule backoff;
  /// Where several children are independent of each other (one_for_one): it is
  /// added in front of this one, to be stopped after it. Empty, or there is no
  /// such child: behind all.
  std::string before{};
  /// Given to the first life as if an earlier one had sent it with `keep`.
  caf::message kept{};
};

struct supervisor_spec {
  strategy how = strategy::one_for_one;
  /// OTP's default, 1 restart in 5 s, is meant for trees of several levels.
  intensity limit{1, std::chrono::seconds(5)};
  std::vector<child_spec> children;
  /// Seed of the backoff's jitter.
  std::uint32_t seed = 1;
  /// Told what a child sends with `keep`. This and on_leaving are called on the
  /// supervisor's thread, must not block, and may be unset.
  std::function<void(const std::string& id, const caf::message& value)>
      on_keep{};
  /// Told once, when it begins to stop all children for good, with the reason
  /// that it is going to end with.
  std::function<void(const caf::error& reason)> on_leaving{};
};

/// Faults of a spec in words: double ids, missing start functions. Empty: none.
std::vector<std::string> check(const supervisor_spec& spec);

/// Spawns a supervisor, as a root or (the second) as a child of an actor, which
/// is to monitor it, and with whose end it stops. A spec with faults ends it
/// with fault::bad_request before any child is started.
supervisor_actor spawn_supervisor(caf::actor_system& sys, supervisor_spec spec);
supervisor_actor spawn_supervisor(caf::local_actor* parent,
                                  supervisor_spec spec);

}  // namespace pup
