#include "pup/actors/health.hpp"
#include "pup/actors/slot.hpp"
#include "pup/actors/spawn.hpp"
#include "pup/actors/task.hpp"

#include <algorithm>
#include <functional>
#include <utility>

namespace pup {

namespace {

enum class instance_deadline : std::uint8_t {
  ready,
  grace,
  kill,
  check,
  retry,     // of the command of ready exec
  watchdog,  // the process has been silent
  age,       // it has run long enough
};

// A message to itself; stale ones are told by the state they meet.
struct instance_timer {
  instance_deadline what = instance_deadline::ready;
  std::uint64_t number = 0;  // of a watchdog, or a series of checks
  std::chrono::milliseconds delay{0};
  time_point due{};
  bool again = false;  // it was noticed late once
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

// A deadline that is noticed later than this was missed by pup itself, which
// was stopped or got no processor: what the process did meanwhile waits behind
// the timer. 1 s is far beyond what a loaded machine makes of a timer.
constexpr auto noticed_late = std::chrono::seconds(1);

// The launcher keeps a check's own deadline; it is silent only when it is
// overloaded, which says nothing about the instance.
constexpr auto probe_slack = std::chrono::seconds(5);

// Pauses between runs of the command of ready exec: soon enough for a program
// that is quick, seldom enough for one that takes minutes.
constexpr std::chrono::milliseconds first_retry{100};
constexpr std::chrono::milliseconds longest_retry{1'000};

using self_actor = instance_actor::extend<caf::reacts_to<instance_timer>,
                                          caf::reacts_to<task_done>>;

struct instance_state {
  using pointer = self_actor::stateful_pointer<instance_state>;

  enum class phase : std::uint8_t { starting, ready, stopping, ended };

  instance_state() = default;

  static inline const char* name = "instance";

  pointer self = nullptr;
  instance_args args;
  caf::actor_addr parent;
  phase now = phase::starting;
  bool has_pid = false;
  bool was_ready = false;
  bool signal_due = false;  // the stop overtook the launch
  bool signals_begun = false;
  bool late = false;  // stopping because it did not become ready
  // Of an adopted life: when an earlier supervisor has begun to end it.
  std::optional<time_point> ending_since;
  std::string address;  // where its port accepts, once ready
  std::optional<health_record> health;
  std::string sick;     // why it is stopped although nobody asked for it
  std::string unready;  // what its command of ready exec said last
  // One task at a time: a new one ends its predecessor.
  instance_actor task;
  std::uint64_t task_number = 0;
  std::function<void(const std::string&)> after_task;
  bool task_had_no_room = false;  // of the last one, see ending::no_room
  bool exec_done = false;         // a process came to be, or never will
  std::chrono::milliseconds retry_delay = first_retry;
  std::uint64_t watchdog_number = 0;
  std::uint64_t check_number = 0;

  template <class Fact>
  void tell_parent(Fact fact) {
    if (auto to = caf::actor_cast<caf::strong_actor_ptr>(parent))
      self->send(caf::actor_cast<cluster_actor>(std::move(to)),
                 std::move(fact));
  }

  void arm(std::chrono::milliseconds delay, instance_deadline what,
           std::uint64_t number = 0) {
    arm(instance_timer{what, number, delay, {}, false});
  }

  void arm(instance_timer timer) {
    timer.due = self->clock().now() + timer.delay;
    self->delayed_send(self, timer.delay, timer);
  }

  // -- tasks ------------------------------------------------------------------

  /// `then` gets the fault; not called when another task or the end comes
  /// first.
  void run(const command_spec& command, const char* what,
           std::map<std::string, std::string> more,
           std::function<void(const std::string&)> then) {
    drop_task();
    after_task = std::move(then);
    task_args wanted;
    wanted.number = ++task_number;
    wanted.request =
        task_of(args.request, command, args.slot, what, task_number);
    wanted.request.env.merge(more);
    wanted.timeout = command.timeout;
    wanted.launcher = args.launcher;
    task =
        spawn_task(self, caf::actor_cast<task_client>(self), std::move(wanted));
  }

  void drop_task() {
    after_task = nullptr;
    if (task)
      self->send_exit(std::exchange(task, nullptr),
                      caf::exit_reason::user_shutdown);
  }

  void finished(const task_done& fact) {
    if (fact.number != task_number || !after_task)
      return;
    task = nullptr;
    task_had_no_room = fact.no_room;
    const auto then = std::exchange(after_task, nullptr);
    then(fact.fault);
  }

  // -- the beginning ----------------------------------------------------------

  void start_life() {
    if (args.adopted)
      return go_on();
    if (args.hooks.pre_start.argv.empty())
      return launch_process();
    run(args.hooks.pre_start, "preStart", {}, [this](const std::string& fault) {
      if (fault.empty())
        return launch_process();
      ended({ending::kind::not_launched, task_had_no_room ? ending::no_room : 0,
             0, "hook preStart: " + fault});
    });
  }

  // The launcher is asked first, so that whatever follows finds it informed.
  void go_on() {
    const auto& life = *args.adopted;
    exec_done = true;
    has_pid = life.pid != 0;
    if (life.ending)
      ending_since = self->clock().now() - *life.ending;
    self->send(args.launcher, adopt{args.request},
               caf::actor_cast<instance_actor>(self));
    if (has_pid)
      limit_run();
    address = life.address;
    if (life.ready)
      return became_ready();
    arm(std::max(args.ready_timeout - life.age, std::chrono::milliseconds{0}),
        instance_deadline::ready);
  }

  void launch_process() {
    exec_done = true;
    self->send(args.launcher, args.request,
               caf::actor_cast<instance_actor>(self));
    // Where the launch alone decides, its answer comes: a timer would only keep
    // this actor in memory after its end, as CAF cannot cancel it.
    if (args.request.ready != ready_condition::spawn
        || !args.ready_command.argv.empty()
        || !args.hooks.post_start.argv.empty())
      arm(args.ready_timeout, instance_deadline::ready);
  }

  void signal(std::int32_t number, bool stop = false) {
    self->send(args.launcher,
               send_signal{args.request.id, args.request.life, number, stop});
  }

  void send_stop_signal() {
    signal(args.stop_signal, true);
  }

  void launched(const process_launched& fact) {
    if (std::exchange(has_pid, true))
      return;
    tell_parent(instance_launched{args.slot, args.request.life, fact.pid,
                                  fact.warning});
    limit_run();
    if (std::exchange(signal_due, false))
      send_stop_signal();
  }

  void limit_run() {
    const auto age =
        args.adopted ? args.adopted->age : std::chrono::milliseconds{0};
    if (args.run_timeout.count() > 0)
      arm(std::max(args.run_timeout - age, std::chrono::milliseconds{0}),
          instance_deadline::age);
  }

  void note_phase() {
    self->send(args.launcher,
               note_life{args.request.id, args.request.life, was_ready,
                         now == phase::stopping, address});
  }

  // What the launcher saw; more may be wanted.
  void seems_ready(const process_ready& fact) {
    if (now != phase::starting)
      return;
    address = fact.address;
    if (args.ready_command.argv.empty())
      return run_post_start();
    try_ready_command();
  }

  void try_ready_command() {
    auto command = args.ready_command;
    command.timeout = std::min(command.timeout, args.ready_timeout);
    run(command, "ready", {}, [this](const std::string& fault) {
      if (fault.empty())
        return run_post_start();
      unready = fault;
      tell_parent(instance_said{args.slot, args.request.life, false,
                                "readiness: " + fault});
      arm(retry_delay, instance_deadline::retry);
      retry_delay = std::min(retry_delay * 2, longest_retry);
    });
  }

  void run_post_start() {
    if (args.hooks.post_start.argv.empty())
      return became_ready();
    run(args.hooks.post_start, "postStart", {},
        [this](const std::string& fault) {
          if (fault.empty())
            return became_ready();
          sick = "hook postStart: " + fault;
          stop();
        });
  }

  void became_ready() {
    now = phase::ready;
    was_ready = true;
    note_phase();
    tell_parent(instance_ready{args.slot, args.request.life, address});
    if (address.empty())
      address = "127.0.0.1";
    feed_watchdog();
    begin_checks();
  }

  void begin_checks() {
    ++check_number;
    health.reset();
    if (!args.health)
      return;
    health.emplace(*args.health);
    check_again();
  }

  void tune(retune wanted) {
    args.grace_period = wanted.grace_period;
    args.stop_timeout = wanted.stop_timeout;
    args.stop_signal = wanted.stop_signal;
    args.hooks = std::move(wanted.hooks);
    if (args.health == wanted.health)
      return;
    args.health = std::move(wanted.health);
    if (now != phase::ready)
      return;
    // What the former checks have found counts no more.
    tell_parent(instance_health{args.slot, args.request.life, {}});
    begin_checks();
  }

  // -- while it runs ----------------------------------------------------------

  // Before it is ready it may be as silent as it likes: it has a deadline.
  void feed_watchdog() {
    if (now == phase::ready && args.request.watchdog.count() > 0)
      arm(args.request.watchdog, instance_deadline::watchdog,
          ++watchdog_number);
  }

  void said(const process_said& fact) {
    if (now == phase::stopping || now == phase::ended)
      return;  // what it says on its way out decides nothing
    if (fact.alive)
      feed_watchdog();
    if (fact.trouble && now == phase::ready)
      return end_it("its watchdog reports trouble");
    if (fact.stopping || !fact.status.empty())
      tell_parent(instance_said{args.slot, args.request.life, fact.stopping,
                                fact.status});
  }

  void check() {
    self->request(args.launcher, args.health->timeout + probe_slack,
                  probe_server{address, args.request.port, *args.health})
        .then(
            [this, mine = check_number](const probed& x) {
              if (now == phase::ready && mine == check_number)
                checked(x.fault);
            },
            [this, mine = check_number](const caf::error&) {
              if (now == phase::ready && mine == check_number)
                check_again();
            });
  }

  void check_again() {
    arm(args.health->interval, instance_deadline::check, check_number);
  }

  void checked(const std::string& fault) {
    using verdict = health_record::verdict;
    const auto what = health->observe(fault.empty());
    if (what == verdict::failed)
      return give_up_on(fault);
    if (what != verdict::unchanged)
      tell_parent(instance_health{args.slot, args.request.life, fault});
    check_again();
  }

  // Who does not answer checks seldom hears a stop signal either: SIGKILL
  // follows after the patience of one check.
  void give_up_on(const std::string& fault) {
    const auto times = std::to_string(args.health->unhealthy_after);
    args.stop_timeout = std::min(args.stop_timeout, args.health->timeout);
    end_it("failed " + times + " health checks in a row: " + fault);
  }

  void end_it(std::string why) {
    if (now == phase::stopping || now == phase::ended)
      return;
    sick = std::move(why);
    now = phase::stopping;
    note_phase();
    drop_task();
    begin_signals();
  }

  // -- the end ----------------------------------------------------------------

  void ended(ending how, const std::string& found = {}) {
    if (now == phase::ended)
      return;
    now = phase::ended;
    drop_task();
    if (late) {
      how.what = ending::kind::not_ready;
      if (const auto& instead = found.empty() ? unready : found;
          !instead.empty())
        how.text = instead;
    }
    if (!sick.empty()) {
      how.what = ending::kind::unhealthy;
      how.text = sick;
    }
    if (args.hooks.post_stop.argv.empty() || !has_pid)
      return self->quit(make_error(how));
    std::map<std::string, std::string> facts;
    if (how.signal != 0)
      facts["PUP_EXIT_SIGNAL"] = std::to_string(how.signal);
    else
      facts["PUP_EXIT_CODE"] = std::to_string(how.code);
    run(args.hooks.post_stop, "postStop", std::move(facts),
        [this, how](const std::string&) { self->quit(make_error(how)); });
  }

  void stop() {
    if (now == phase::stopping || now == phase::ended)
      return;
    now = phase::stopping;
    note_phase();
    drop_task();
    if (!exec_done)  // preStart was under way
      return ended({ending::kind::not_launched, 0, 0,
                    "stopped before its process was started"});
    if (ending_since)  // that had begun to wait for the end itself
      return begin_signals();
    if (args.hooks.pre_stop.argv.empty() || !has_pid)
      return wait_grace();
    run(args.hooks.pre_stop, "preStop", {},
        [this](const std::string&) { wait_grace(); });
  }

  void wait_grace() {
    if (args.grace_period.count() > 0)
      arm(args.grace_period, instance_deadline::grace);
    else
      begin_signals();
  }

  // What its process has started gets the same signal, and the time of the
  // life: all of it, or what is left of it when its process was stopped.
  void leader_ended(const process_leader_ended& fact) {
    if (now == phase::ended)
      return;
    tell_parent(instance_expires{args.slot, args.request.life,
                                 to_string(fact.how), already_ending()});
    if (now == phase::stopping) {
      if (signals_begun)
        send_stop_signal();
      return;
    }
    now = phase::stopping;
    drop_task();
    begin_signals();
  }

  // The time that a life has to end in counts once, whoever stops it.
  [[nodiscard]] std::chrono::milliseconds already_ending() const {
    return ending_since ? std::chrono::duration_cast<std::chrono::milliseconds>(
               self->clock().now() - *ending_since)
                        : std::chrono::milliseconds{0};
  }

  // A signal needs a pid, but the kill deadline runs without one: a launch that
  // waits for the end of its predecessor must not wait for ever.
  void begin_signals() {
    signals_begun = true;
    arm(std::max(args.stop_timeout - already_ending(), {}),
        instance_deadline::kill);
    if (has_pid)
      send_stop_signal();
    else
      signal_due = true;
  }

  /// Who owes a sign of life is not judged by a time in which pup itself saw
  /// nothing: it gets it once more.
  bool postponed(instance_timer timer) {
    const auto owes = timer.what == instance_deadline::ready
                      || timer.what == instance_deadline::watchdog;
    if (!owes || std::exchange(timer.again, true)
        || self->clock().now() - timer.due < noticed_late)
      return false;
    arm(timer);
    return true;
  }

  void deadline(const instance_timer& timer) {
    if (postponed(timer))
      return;
    switch (timer.what) {
      case instance_deadline::ready:
        if (now == phase::starting) {
          late = true;
          stop();
        }
        return;
      case instance_deadline::grace:
        return now == phase::stopping ? begin_signals() : void();
      case instance_deadline::kill:
        if (now == phase::ended)
          return;
        signal(kill_signal);
        return arm(kill_again, instance_deadline::kill);
      case instance_deadline::check:
        if (now == phase::ready && timer.number == check_number)
          check();
        return;
      case instance_deadline::retry:
        if (now == phase::starting)
          try_ready_command();
        return;
      case instance_deadline::watchdog:
        if (now == phase::ready && timer.number == watchdog_number)
          end_it("its watchdog has been silent for "
                 + std::to_string(args.request.watchdog.count()) + " ms");
        return;
      case instance_deadline::age:
        return end_it("ran longer than its timeout of "
                      + std::to_string(args.run_timeout.count()) + " ms");
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
  monitor_for_life(self, parent);
  monitor_for_life(self, state.args.launcher);
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
  state.start_life();
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
          self->state.seems_ready(fact);
      },
      [self, current](const process_leader_ended& fact) {
        if (current(fact.life))
          self->state.leader_ended(fact);
      },
      [self, current](const process_ended& fact) {
        if (current(fact.life))
          self->state.ended(fact.how, fact.unready);
      },
      [self, current](const process_said& fact) {
        if (current(fact.life))
          self->state.said(fact);
      },
      [self](retune& wanted) { self->state.tune(std::move(wanted)); },
      [self, current](const process_outgrew& fact) {
        auto& st = self->state;
        if (current(fact.life) && st.now != instance_state::phase::stopping
            && st.now != instance_state::phase::ended)
          st.tell_parent(instance_outgrew{st.args.slot, fact.life, fact.text});
      },
      [self](const instance_timer& timer) { self->state.deadline(timer); },
      [self](const task_done& fact) { self->state.finished(fact); },
  };
}

}  // namespace

instance_actor spawn_instance(caf::local_actor* parent, cluster_actor facts_to,
                              instance_args args) {
  return parent->spawn(instance_behavior, std::move(facts_to), std::move(args));
}

}  // namespace pup
