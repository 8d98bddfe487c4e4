#include "pup/actors/spawn.hpp"

#include <utility>

namespace pup {

namespace {

enum class instance_deadline : std::uint8_t { ready, grace, kill };

// A message to itself; stale ones are told by the state they meet.
struct instance_timer {
  instance_deadline what = instance_deadline::ready;
};

}  // namespace

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::instance_timer)

namespace pup {

namespace {

// A process that outlives SIGKILL waits inside the kernel. 1 s: often enough
// to end it soon after it leaves, rarely enough to cost nothing.
constexpr auto kill_again = std::chrono::seconds(1);

constexpr std::int32_t kill_signal = 9;

using self_actor = instance_actor::extend<caf::reacts_to<instance_timer>>;

struct instance_state {
  using pointer = self_actor::stateful_pointer<instance_state>;

  enum class phase : std::uint8_t { starting, ready, stopping };

  instance_state() = default;

  static inline const char* name = "instance";

  pointer self = nullptr;
  instance_args args;
  caf::actor_addr parent;
  phase now = phase::starting;
  bool has_pid = false;
  bool signal_due = false;  // the stop overtook the launch
  bool late = false;        // stopping because it did not become ready

  template <class Fact>
  void tell_parent(Fact fact) {
    if (auto to = caf::actor_cast<caf::strong_actor_ptr>(parent))
      self->send(caf::actor_cast<cluster_actor>(std::move(to)),
                 std::move(fact));
  }

  void arm(std::chrono::milliseconds delay, instance_deadline what) {
    self->delayed_send(self, delay, instance_timer{what});
  }

  void launch_process() {
    self->send(args.launcher, args.request,
               caf::actor_cast<instance_actor>(self));
    arm(args.ready_timeout, instance_deadline::ready);
  }

  void signal(std::int32_t number) {
    self->send(args.launcher,
               send_signal{args.request.id, args.request.life, number});
  }

  void launched(const process_launched& fact) {
    if (std::exchange(has_pid, true))
      return;
    tell_parent(instance_launched{args.slot, args.request.life, fact.pid,
                                  fact.warning});
    if (std::exchange(signal_due, false))
      signal(args.stop_signal);
  }

  void became_ready(const process_ready& fact) {
    if (now != phase::starting)
      return;
    now = phase::ready;
    tell_parent(instance_ready{args.slot, args.request.life, fact.address});
  }

  void ended(ending how) {
    if (late)
      how.what = ending::kind::not_ready;
    self->quit(make_error(how));
  }

  void stop() {
    if (now == phase::stopping)
      return;
    now = phase::stopping;
    if (args.grace_period.count() > 0)
      arm(args.grace_period, instance_deadline::grace);
    else
      begin_signals();
  }

  // A signal needs a pid, but the kill deadline runs without one: a launch that
  // waits for the end of its predecessor must not wait for ever.
  void begin_signals() {
    arm(args.stop_timeout, instance_deadline::kill);
    if (has_pid)
      signal(args.stop_signal);
    else
      signal_due = true;
  }

  void deadline(instance_deadline what) {
    switch (what) {
      case instance_deadline::ready:
        if (now == phase::starting) {
          late = true;
          stop();
        }
        return;
      case instance_deadline::grace:
        return begin_signals();
      case instance_deadline::kill:
        signal(kill_signal);
        return arm(kill_again, instance_deadline::kill);
    }
  }
};

self_actor::behavior_type instance_behavior(instance_state::pointer self,
                                            const cluster_actor& parent,
                                            instance_args args) {
  auto& state = self->state;
  state.self = self;
  state.args = std::move(args);
  state.parent = parent.address();
  self->monitor(parent);
  self->monitor(state.args.launcher);
  self->set_default_handler(caf::drop);
  // Without its parent nobody would restart or count it; without its launcher
  // it would wait for an end that nobody reports.
  self->set_down_handler([self](caf::scheduled_actor*, caf::down_msg& message) {
    if (message.source == self->state.args.launcher.address())
      self->quit(make_error(
          ending{ending::kind::lost, 0, 0, "the launcher has ended"}));
    else
      self->quit(caf::exit_reason::kill);
  });
  self->set_exit_handler([self](caf::scheduled_actor*, caf::exit_msg& message) {
    if (message.reason == caf::exit_reason::user_shutdown)
      self->state.stop();
    else
      self->quit(std::move(message.reason));
  });
  state.launch_process();
  const auto current = [self](std::uint64_t life) {
    return life == self->state.args.request.life;
  };
  return {
      [self, current](const process_launched& fact) {
        if (current(fact.life))
          self->state.launched(fact);
      },
      [self, current](const process_ready& fact) {
        if (current(fact.life))
          self->state.became_ready(fact);
      },
      [self, current](const process_ended& fact) {
        if (current(fact.life))
          self->state.ended(fact.how);
      },
      [self](const instance_timer& timer) { self->state.deadline(timer.what); },
  };
}

}  // namespace

instance_actor spawn_instance(caf::local_actor* parent, cluster_actor facts_to,
                              instance_args args) {
  return parent->spawn(instance_behavior, std::move(facts_to), std::move(args));
}

}  // namespace pup
