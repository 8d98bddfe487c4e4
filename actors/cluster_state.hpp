// The actor of one unit, as its own sources see it. Nobody else includes this.
//
// One state, because whatever happens to a slot concerns all the parts; each
// part has a source of its own:
//
//   cluster            start and end, what is kept, where messages go
//   cluster_slots      the life of a slot
//   cluster_balancer   the listener; who gets connections
//   cluster_turns      dealings with the conductor
//   cluster_occasions  the clock, age, memory, files: nobody asked
//   cluster_rollout    reload, another configuration: one after the other
//   cluster_requests   what command lines ask, and the answers
#pragma once

#include "pup/actors/history.hpp"
#include "pup/actors/pending.hpp"
#include "pup/actors/pledge.hpp"
#include "pup/actors/rollout.hpp"
#include "pup/actors/slot.hpp"
#include "pup/actors/spawn.hpp"
#include "pup/config/diff.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace pup {

// Messages to itself. A number tells a timer that is still wanted.
struct backoff_due {
  std::uint32_t slot = 0;
  std::uint64_t timer = 0;
};
struct balancer_due {};
struct tidy_due {};
struct schedule_due {
  std::uint64_t timer = 0;
};
struct clock_set {};
// A life is to be replaced: its maxAgeMs is over, or files have changed.
struct age_due {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::string why{};
};
struct files_changed {
  watch_news news;
};

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::backoff_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::balancer_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::tidy_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::schedule_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::clock_set)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::age_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::files_changed)

namespace pup {

// The balancer holds no state that a restart loses: restart it often rather
// than lose the unit. 10 in 10 s is beyond what a single bad event causes.
inline constexpr intensity balancer_intensity{10, std::chrono::seconds(10)};

// Keys among the goals of a request that no slot has: the listener, and a
// roll-out as a whole.
inline constexpr std::uint32_t listener_goal = bounds::instances + 1;
inline constexpr std::uint32_t rollout_goal = bounds::instances + 2;

// Of what is being replaced.
struct rollout {
  rollout_limits limits;
  spare_ports ports;
  std::uint32_t last_tried = 0;     // number of a spare whose port was taken
  std::uint32_t attempts_left = 0;  // to find one
  std::string remark;               // how it differs from what was asked
  // Of a new configuration: what a failure brings back.
  std::shared_ptr<const process_spec> before;
  decltype(unit_change::scaled) scaled;
  // Of the way back: why it is gone.
  std::string verdict;
};

// Who asked, for the history.
inline std::string by(const std::string& caller) {
  return caller.empty() ? ": on request" : ": by " + caller;
}

struct cluster_state {
  using self_actor = cluster_actor::extend<
      caf::reacts_to<backoff_due>, caf::reacts_to<balancer_due>,
      caf::reacts_to<tidy_due>, caf::reacts_to<schedule_due>,
      caf::reacts_to<clock_set>, caf::reacts_to<age_due>,
      caf::reacts_to<files_changed>>;
  using pointer = self_actor::stateful_pointer<cluster_state>;
  using phase = slot_phase;

  cluster_state() = default;
  cluster_state(const cluster_state&) = delete;
  cluster_state& operator=(const cluster_state&) = delete;
  ~cluster_state() {
    if (!current)
      return;  // did not get as far as to take requests
    pending.abandon(
        make_error(fault::actor_failed,
                   "'" + spec().id + "': its actor failed; ask again"));
  }

  static inline const char* name = "cluster";

  // Who it is, and by which values it lives: `current` in place of `args.spec`.
  pointer self = nullptr;
  cluster_args args;
  caf::actor_addr parent;
  std::shared_ptr<const process_spec> current;

  // Its slots, and how many are wanted. Beyond them: spares of a roll-out, and
  // those that are on their way out.
  std::vector<slot> slots;  // by number
  std::uint32_t desired = 0;
  std::uint64_t last_life = 0;
  std::uint64_t last_timer = 0;

  // The balancer and its listener; none where has_balancer() is false. An
  // instance serves once the snapshot it was announced with is in effect.
  balancer_actor balancer;
  supervision balancer_rules{strategy::one_for_one, balancer_intensity};
  time_point balancer_since{};
  bool listening = false;  // wanted
  bool listener_open = false;
  std::string listener_reason;
  std::uint64_t last_snapshot = 0;  // that is sent to the balancer
  bool unpublished = false;         // it is still to be sent
  std::uint64_t last_assigned = 0;  // that is in effect

  // Requests that wait for slots, the listener or a roll-out.
  pending_operations pending;
  bool stopping = false;  // as a whole, for good

  // What it has told the conductor and heard from it.
  std::uint64_t last_ticket = 0;
  std::uint64_t last_steer = 0;
  std::optional<unit_report> reported;  // to the conductor

  // What starts, stops or replaces a life though nobody asks.
  std::optional<schedule> times;
  std::uint64_t schedule_timer = 0;
  std::deque<age_due> aged;  // to be replaced, one after the other

  std::optional<rollout> rolling;  // while it is under way

  std::shared_ptr<void> watching;  // while it lives, files are watched
  std::string watch_trouble;

  // What outlives this actor: the histories of its slots, and what its parent
  // was last given to keep.
  std::shared_ptr<history_book> book = std::make_shared<history_book>();
  std::optional<wanted_state> remembered;

  bool tidying = false;              // tidy_due is on its way
  std::vector<settle_life> settled;  // ended, and acted upon

  std::minstd_rand random;  // jitter

  const process_spec& spec() const {
    return *current;
  }
  // What a slot lives by: during a roll-out not yet, or no longer, spec().
  const process_spec& spec_of(const slot& x) const {
    return x.of ? *x.of : spec();
  }
  bool has_balancer() const {
    return spec().cluster && spec().cluster->common_port != 0;
  }
  double random01() {
    return std::uniform_real_distribution<double>{0, 1}(random);
  }
  outcome outcome_of(const slot& x, bool ok, std::string text) const {
    return {slot_id(spec(), x.number), ok, std::move(text)};
  }

  // -- cluster.cpp ------------------------------------------------------------

  // Start.
  void init(pointer owner, caf::actor_addr spawner, cluster_args wanted);
  void resume(const wanted_state& left);
  void recall(slot& x, const std::vector<wanted_state::slot_record>& from);
  void resume_slot(slot& x);
  void go_on(slot& x, const adopted_life& life);

  // What is left to a next life.
  wanted_state left_by_now() const;
  void remember();

  // Somebody it watches has ended.
  void down(const caf::down_msg& message);
  // The last act of each handler that changes a slot: what follows from it.
  // That takes time for every slot, so changes that come together have it once.
  void tidy();
  void tidy_up();

  // Its own end.
  void stop_all(const caf::error& reason);
  bool all_resting() const;
  void quit_when_done();

  // -- cluster_slots.cpp ------------------------------------------------------

  slot* find(std::uint32_t number, std::uint64_t life);
  slot* find(const caf::actor_addr& address);
  void grow(std::uint32_t count);
  void note(const slot& x, event_kind what, std::string text);

  // What is wanted of a slot, and the steps there.
  void want_up(slot& x);
  void want_down(slot& x);
  void bounce(slot& x);
  void begin_anew(slot& x, bool fresh);
  void ask_for_launch(slot& x, bool fresh);
  void launch_slot(slot& x);
  instance_args instance_of(const slot& x) const;
  void leave(slot& x);
  void stop_instance(slot& x);
  void come_to_rest(slot& x, run_state how, std::string why);

  // Facts.
  void ended(slot& x, const ending& how);
  void ended_by_itself(slot& x, const ending& how);
  void start_again(slot& x, const ending& how, duration delay);
  void postpone(slot& x, const ending& how);
  void tell_return(slot& x, const ending& how, duration delay,
                   const std::string& rule);
  void return_after(slot& x, duration delay);
  void backoff_over(const backoff_due& due);
  void became_ready(slot& x, const instance_ready& fact);
  void expires(slot& x, const instance_expires& fact);
  void announce(slot& x);
  void health(slot& x, const instance_health& fact);
  void said(slot& x, const instance_said& fact);

  // -- cluster_balancer.cpp ---------------------------------------------------

  void start_balancer();
  void balancer_down();
  void stop_without_balancer();
  void set_listener(bool open);
  void listener(const listener_changed& fact);
  void publish();
  void send_snapshot();
  void assigned(std::uint64_t snapshot);
  bool serves(const slot& x) const;
  void reachable(slot& x, const backend_reachable& fact);
  void drained(const backend_drained& fact);

  // -- cluster_turns.cpp ------------------------------------------------------

  // What the conductor is told.
  unit_report report_by_now() const;
  void inform();
  void tell_ended(unit_ended::next what, const ending& how);
  void tell_rested(const ending& how);

  // What it answers and orders.
  slot* find_waiting(std::uint32_t number, std::uint64_t ticket);
  void granted(const launch_granted& fact);
  void delayed(const launch_delayed& fact);
  void steered(const steer& order);
  void recycle(slot& x);
  void retire(slot& x, const steer& order);

  // -- cluster_occasions.cpp --------------------------------------------------

  // The clock.
  void start_schedule();
  void restart_schedule();
  void arm_schedule();
  clock_reading read_clocks() const {
    return {args.world.wall.now(), self->clock().now()};
  }
  void schedule_fires(const schedule_due& due);
  void start_by_clock();
  void stop_by_clock();
  std::optional<duration> next_cron() const;

  // Age and memory.
  void replace_aged();
  void replace_outgrown();

  // Files.
  void start_watching();
  void changed(const watch_news& news);

  // -- cluster_rollout.cpp ----------------------------------------------------

  // Step by step.
  void roll();
  bool carry_out(const rollout_step& step);
  std::vector<rollout_slot> rollout_slots() const;
  void start_spare();
  std::uint32_t number_of_next_spare() const;
  void without_spare(const std::string& why);
  void spare_ended(slot& x);
  void judge_trial(slot& x, const ending& how);
  void end_rollout();
  void stop_rollout(const std::string& why);

  // What begins one: reload.
  caf::result<report> reload(const operate_unit& request,
                             const std::vector<std::uint32_t>& numbers);
  bool mark(slot& x, bool alone, pending_operation& op);
  void mark_spares();
  rollout rollout_to(const spare_ports& ports) const;

  // And another configuration.
  caf::result<reconfigured> become(reconfigure& request);
  void take_over(std::shared_ptr<const process_spec> wanted,
                 const spare_ports& ports, const std::string& caller,
                 const pledge<reconfigured>& answer);
  void grow_to(std::uint32_t count, pending_operation& op);
  void tune_all();
  void go_back(const rollout& failed, std::string verdict);

  // -- cluster_requests.cpp ---------------------------------------------------

  caf::result<scale_report> scale_to(const scale& request);
  void scale_down(std::uint32_t to, pending_operation& op);
  void scale_up(std::uint32_t to, pending_operation& op);
  caf::result<report> operate(const operate_unit& request);
  std::vector<std::uint32_t> numbers_of(const operate_unit& request) const;
  void apply_to_listener(const operate_unit& request, pending_operation& op);
  void apply(verb what, slot& x, pending_operation& op);
  void block(slot& x, bool blocked, pending_operation& op);
  void expect(pending_operation& op, const slot& x, direction where) const;
  void await(const slot& x, pending_operation& op) const;
  caf::result<report> signal(const signal_slots& request);
  template <class Answer, class Make>
  caf::result<Answer> answer_when_done(pending_operation op, bool wait,
                                       Make make);

  // What it tells of itself.
  unit_status status() const;
  caf::result<unit_status> answer_status();
  std::string reason() const;
  history_report history_of(const get_unit_history& request) const;
  // It keeps a number free between the wanted ones and a spare.
  bool is_hidden(const slot& x) const {
    return spec().cluster && x.number > desired && x.now == phase::resting;
  }
};

template <class Answer, class Make>
caf::result<Answer> cluster_state::answer_when_done(pending_operation op,
                                                    bool wait, Make make) {
  auto promise = self->make_response_promise<Answer>();
  op.answer = [promise, make](std::vector<outcome> outcomes) mutable {
    promise.deliver(make(std::move(outcomes)));
  };
  op.fail = [promise](const caf::error& why) mutable { promise.deliver(why); };
  if (!wait)
    for (auto& [number, goal] : op.goals)
      if (!goal.reached)
        goal.reached = outcome{
            number > bounds::instances ? spec().id : slot_id(spec(), number),
            true, "begun"};
  pending.add(std::move(op));
  tidy();
  return promise;
}

}  // namespace pup
