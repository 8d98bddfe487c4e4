// The unit's actor: its start and end, what it leaves to its next life, and
// which message goes where.
#include "pup/actors/cluster_state.hpp"

#include <algorithm>
#include <utility>

namespace pup {

// -- start --------------------------------------------------------------------

void cluster_state::init(pointer owner, caf::actor_addr spawner,
                         cluster_args wanted) {
  self = owner;
  parent = std::move(spawner);
  args = std::move(wanted);
  current = std::make_shared<const process_spec>(std::move(args.spec));
  random.seed(args.seed);
  // Lives of an earlier actor for this unit must stay distinct from ours, even
  // when what it left is lost.
  last_life = static_cast<std::uint64_t>(
      self->clock().now().time_since_epoch().count());
  balancer_rules.add("balancer", restart_type::permanent);
  if (args.kept.match_elements<wanted_state>())
    return resume(args.kept.get_as<wanted_state>(0));
  wanted_state start;
  start.desired = spec().cluster ? spec().cluster->instances : 1;
  start.listening = spec().autostart;
  if (!spec().autostart)
    for (std::uint32_t n = 0; n <= start.desired; ++n)
      start.resting.push_back({n,
                               false,
                               spec().cron.empty() && spec().watch.empty()
                                   ? run_state::stopped
                                   : run_state::waiting,
                               {}});
  resume(start);
}

void cluster_state::resume(const wanted_state& left) {
  last_life = std::max(last_life, left.last_life);
  if (left.spec)
    current = left.spec;
  desired = left.desired;
  listening = left.listening;
  const auto again = left.book != nullptr;
  if (again)
    book = left.book;
  const auto adopted = std::exchange(args.adopted, {});
  const auto missed = std::exchange(args.missed, {});
  grow(desired);
  for (const auto& life : adopted)
    grow(life.slot);
  if (has_balancer())
    start_balancer();
  for (auto& x : slots) {
    recall(x, left.records);
    if (!missed.empty() && x.number <= desired && !x.blocked)
      note(x, event_kind::said, missed);
    const auto rest =
        std::find_if(left.resting.begin(), left.resting.end(),
                     [&](const auto& y) { return y.number == x.number; });
    const auto life =
        std::find_if(adopted.begin(), adopted.end(),
                     [&](const auto& y) { return y.slot == x.number; });
    // One that came to rest by itself has ended, and that was acted upon.
    if (life != adopted.end() && rest != left.resting.end() && rest->wanted) {
      self->send(args.world.launcher,
                 settle_life{slot_id(spec(), x.number), life->life});
    } else if (life != adopted.end()) {
      go_on(x, *life);
      if (x.number > desired || rest != left.resting.end())
        want_down(x);
      else if (life->stopping)
        bounce(x);
      continue;
    }
    if (x.number > desired)
      continue;
    if (rest == left.resting.end()) {
      note(x, event_kind::asked,
           again                  ? "start: pup's own actor for it has failed"
           : left.records.empty() ? "start: together with the supervisor"
                                  : "start: again, as before the supervisor "
                                    "was killed");
      resume_slot(x);
      continue;
    }
    x.wanted = rest->wanted;
    x.rest = rest->rest;
    x.reason = rest->reason;
    x.blocked = rest->blocked;
  }
  start_schedule();
  start_watching();
  tidy();
}

void cluster_state::recall(slot& x,
                           const std::vector<wanted_state::slot_record>& from) {
  for (const auto& record : from) {
    if (record.number != x.number)
      continue;
    x.restarts = record.restarts;
    x.blocked = record.blocked;
    x.rules = rules_of(spec());
    x.rules->recall(slot_child, record.restarting);
  }
}

// It ran. What was blocked meanwhile could go on, but is started by nobody.
void cluster_state::resume_slot(slot& x) {
  x.wanted = true;
  if (x.blocked)
    come_to_rest(x, run_state::blocked, "blocked");
  else
    ask_for_launch(x, true);
}

// Its process has been running all the time, or has ended meanwhile, which the
// launcher will tell.
void cluster_state::go_on(slot& x, const adopted_life& life) {
  x.of = current;
  if (!x.rules)
    x.rules = rules_of(spec());
  x.wanted = true;
  x.life = life.life;
  last_life = std::max(last_life, x.life);
  x.pid = life.pid;
  x.started = self->clock().now() - life.age;
  x.now = phase::starting;
  auto wanted = instance_of(x);
  wanted.adopted = life;
  x.handle = spawn_instance(self, caf::actor_cast<cluster_actor>(self),
                            std::move(wanted));
  self->monitor(x.handle);
  if (x.pid != 0)
    (*book)[x.number].add(args.world.wall.now() - life.age, event_kind::started,
                          "pid " + std::to_string(x.pid));
  note(x, event_kind::asked,
       "go on: it was started by the supervisor before this one");
  if (!life.ready)
    return;
  x.now = phase::ready;
  x.address = life.address;
  x.ready_since = x.started;
  announce(x);
}

// -- what is left to a next life ----------------------------------------------

wanted_state cluster_state::left_by_now() const {
  wanted_state result{desired, listening, last_life, {}, {}, book, current};
  if (times && !spec().cron.empty())
    result.clock_seen = std::chrono::floor<std::chrono::seconds>(times->seen());
  for (const auto& x : slots) {
    result.records.push_back(
        {x.number, x.restarts, x.blocked,
         x.rules ? x.rules->record(slot_child) : restart_record{}});
    if (!x.wanted)
      result.resting.push_back(
          {x.number,
           false,
           x.now == phase::resting ? x.rest : run_state::stopped,
           {},
           x.blocked});
    else if (x.now == phase::resting)
      result.resting.push_back({x.number, true, x.rest, x.reason, x.blocked});
  }
  return result;
}

// A life that has begun is no news: the next actor numbers its own from its
// clock on.
void cluster_state::remember() {
  auto to = caf::actor_cast<caf::strong_actor_ptr>(parent);
  auto now = left_by_now();
  if (remembered)
    remembered->last_life = now.last_life;
  if (!to || remembered == now)
    return;
  remembered = now;
  self->send(caf::actor_cast<supervisor_actor>(std::move(to)),
             keep{caf::make_message(std::move(now))});
}

// -- ends ---------------------------------------------------------------------

void cluster_state::down(const caf::down_msg& message) {
  if (balancer && balancer.address() == message.source)
    return balancer_down();
  if (parent == message.source)
    return self->quit(caf::exit_reason::kill);
  if (auto* x = find(message.source)) {
    settled.push_back({slot_id(spec(), x->number), x->life});
    ended(*x, ending_of(message.reason));
    if (x->overrun && x->now == phase::resting && !x->blocked) {
      note(*x, event_kind::asked, "start: was due while it ran");
      want_up(*x);
    }
    tidy();
  }
}

void cluster_state::tidy() {
  if (!std::exchange(tidying, true))
    self->send(self, tidy_due{});
}

// Forgets slots that have left; nothing else removes one, so references stay
// good meanwhile. Then everybody is told, in this order: whoever has an answer
// may ask the conductor or the memory for what follows, and an end is settled
// when it is remembered.
void cluster_state::tidy_up() {
  tidying = false;
  if (!stopping)
    roll();
  while (slots.size() > desired && slots.back().now == phase::resting)
    slots.pop_back();
  if (!stopping) {
    replace_aged();
    replace_outgrown();
  }
  send_snapshot();
  inform();
  if (!stopping)
    remember();
  pending.answer_complete();
  for (auto& x : std::exchange(settled, {}))
    self->send(args.world.launcher, std::move(x));
  if (stopping)
    quit_when_done();
}

void cluster_state::stop_all(const caf::error& reason) {
  if (stopping || reason != caf::exit_reason::user_shutdown)
    return self->quit(reason ? reason : caf::exit_reason::kill);
  stopping = true;
  set_listener(false);
  for (auto i = slots.rbegin(); i != slots.rend(); ++i)
    want_down(*i);
  stop_rollout("'" + spec().id + "' is shutting down");
  tidy();
}

bool cluster_state::all_resting() const {
  return std::all_of(slots.begin(), slots.end(),
                     [](const slot& x) { return x.now == phase::resting; });
}

void cluster_state::quit_when_done() {
  if (!all_resting())
    return;
  if (balancer)
    self->send_exit(balancer, caf::exit_reason::user_shutdown);
  else
    self->quit(caf::exit_reason::user_shutdown);
}

// -- behaviour ----------------------------------------------------------------

namespace {

cluster_state::self_actor::behavior_type cluster_behavior(
    cluster_state::pointer self, const caf::actor_addr& parent,
    cluster_args args) {
  self->set_default_handler(caf::drop);
  self->set_down_handler([self](caf::scheduled_actor*, caf::down_msg& message) {
    self->state.down(message);
  });
  self->set_exit_handler([self](caf::scheduled_actor*, caf::exit_msg& message) {
    self->state.stop_all(message.reason);
  });
  monitor_for_life(self, caf::actor_cast<caf::actor>(parent));
  self->state.init(self, parent, std::move(args));
  return {
      [self](const scale& request) -> caf::result<scale_report> {
        if (self->state.stopping)
          return make_error(fault::shutting_down,
                            "'" + self->state.spec().id + "' is shutting down");
        return self->state.scale_to(request);
      },
      [self](const operate_unit& request) -> caf::result<report> {
        return self->state.operate(request);
      },
      [self](const signal_slots& request) {
        return self->state.signal(request);
      },
      [self](reconfigure& request) { return self->state.become(request); },
      [self](const get_unit_status&) { return self->state.answer_status(); },
      [self](const instance_launched& fact) {
        if (auto* x = self->state.find(fact.slot, fact.life)) {
          x->pid = fact.pid;
          x->warning = fact.warning;
          self->state.note(*x, event_kind::started,
                           "pid " + std::to_string(fact.pid)
                               + (fact.warning.empty() ? "" : "; ")
                               + fact.warning);
          self->state.tidy();
        }
      },
      [self](const instance_ready& fact) {
        if (auto* x = self->state.find(fact.slot, fact.life)) {
          self->state.became_ready(*x, fact);
          self->state.tidy();
        }
      },
      [self](const instance_expires& fact) {
        if (auto* x = self->state.find(fact.slot, fact.life)) {
          self->state.expires(*x, fact);
          self->state.tidy();
        }
      },
      [self](const instance_health& fact) {
        if (auto* x = self->state.find(fact.slot, fact.life))
          self->state.health(*x, fact);
      },
      [self](const backend_reachable& fact) {
        if (auto* x = self->state.find(fact.slot, fact.life))
          self->state.reachable(*x, fact);
      },
      [self](const backends_assigned& fact) {
        self->state.assigned(fact.number);
        self->state.tidy();
      },
      [self](const instance_said& fact) {
        if (auto* x = self->state.find(fact.slot, fact.life))
          self->state.said(*x, fact);
      },
      [self](const instance_outgrew& fact) {
        auto* x = self->state.find(fact.slot, fact.life);
        // One that is on its way out already ends for another reason.
        if (x == nullptr
            || (x->now != slot_phase::starting && x->now != slot_phase::ready))
          return;
        x->outgrown = fact.text;
        x->reason = fact.text;
        self->state.note(*x, event_kind::said, fact.text);
        self->state.tidy();
      },
      [self](const backend_drained& fact) { self->state.drained(fact); },
      [self](const listener_changed& fact) { self->state.listener(fact); },
      [self](const report_to& order) {
        self->state.args.conductor = order.conductor;
        self->state.reported.reset();
        self->state.tidy();
      },
      [self](const launch_granted& fact) { self->state.granted(fact); },
      [self](const launch_delayed& fact) { self->state.delayed(fact); },
      [self](const steer& order) { self->state.steered(order); },
      [self](const backoff_due& due) { self->state.backoff_over(due); },
      [self](tidy_due) { self->state.tidy_up(); },
      [self](const schedule_due& due) { self->state.schedule_fires(due); },
      [self](clock_set) {
        auto& state = self->state;
        if (!state.times)
          return;
        state.times->set(state.read_clocks());
        state.arm_schedule();
      },
      [self](const age_due& due) {
        self->state.aged.push_back(due);
        self->state.tidy();
      },
      [self](const files_changed& fact) {
        self->state.changed(fact.news);
        self->state.tidy();
      },
      [self](const get_unit_history& request) {
        return self->state.history_of(request);
      },
      [self](balancer_due) {
        if (!self->state.balancer && !self->state.stopping)
          self->state.start_balancer();
      },
  };
}

}  // namespace

cluster_actor spawn_cluster(caf::local_actor* parent, cluster_args args) {
  return parent->spawn(cluster_behavior, parent->address(), std::move(args));
}

}  // namespace pup
