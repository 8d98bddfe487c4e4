// The life of a slot: wanted, launched, ready, ended, and what follows an end.
#include "pup/actors/cluster_state.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace pup {

slot* cluster_state::find(std::uint32_t number, std::uint64_t life) {
  const auto i = std::find_if(slots.begin(), slots.end(), [&](const slot& x) {
    return x.number == number && x.life == life && x.handle;
  });
  return i == slots.end() ? nullptr : &*i;
}

slot* cluster_state::find(const caf::actor_addr& address) {
  const auto i = std::find_if(slots.begin(), slots.end(), [&](const slot& x) {
    return x.handle && x.handle.address() == address;
  });
  return i == slots.end() ? nullptr : &*i;
}

void cluster_state::grow(std::uint32_t count) {
  while (slots.size() < count) {
    slot x;
    x.number =
        spec().cluster ? static_cast<std::uint32_t>(slots.size()) + 1 : 0;
    slots.push_back(std::move(x));
  }
}

void cluster_state::note(const slot& x, event_kind what, std::string text) {
  (*book)[x.number].add(args.world.wall.now(), what, std::move(text));
}

void cluster_state::want_up(slot& x) {
  x.then.reset();
  // What it was told to wait for may be over by now: its wish is a new one.
  if (x.now == phase::waiting && x.stuck)
    ask_for_launch(x, x.wish.fresh);
  if (x.wanted && x.now != phase::resting && x.now != phase::backoff)
    return;
  x.wanted = true;
  pending.overtake(x.number, direction::up,
                   outcome_of(x, false, "started again by a later request"));
  switch (x.now) {
    case phase::resting:
    case phase::backoff:
      x.reason.clear();
      return begin_anew(x, x.now == phase::resting);
    case phase::draining:
      x.now = phase::ready;
      x.reason.clear();
      return announce(x);
    case phase::waiting:
    case phase::starting:
    case phase::ready:
    case phase::expiring:
    case phase::stopping:  // starts when it has stopped
      return;
  }
}

void cluster_state::want_down(slot& x) {
  x.then.reset();
  x.wanted = false;
  x.outdated = false;
  x.overrun = false;
  pending.overtake(x.number, direction::down,
                   outcome_of(x, false, "stopped by a later request"));
  switch (x.now) {
    case phase::resting:
    case phase::backoff:
    case phase::waiting:
      return come_to_rest(x, run_state::stopped, {});
    case phase::starting:
    case phase::ready:
    case phase::expiring:
      return leave(x);
    case phase::draining:
    case phase::stopping:
      return;
  }
}

// A restart: `wanted` stays, so its end is followed by a new life.
void cluster_state::bounce(slot& x) {
  if (x.now == phase::resting || x.now == phase::backoff)
    return want_up(x);
  x.then.reset();
  x.wanted = true;
  x.outdated = false;
  pending.overtake(x.number, direction::up,
                   outcome_of(x, false, "started again by a later request"));
  if (x.now == phase::starting || x.now == phase::ready
      || x.now == phase::expiring)
    leave(x);
}

// Somebody asked for a new life: it counts for no series of failures.
void cluster_state::begin_anew(slot& x, bool fresh) {
  x.rules.reset();
  x.of = current;
  x.outdated = false;
  x.trial = rolling.has_value();
  ask_for_launch(x, fresh);
}

void cluster_state::ask_for_launch(slot& x, bool fresh) {
  if (!x.rules)
    x.rules = rules_of(spec_of(x));
  if (!args.conductor)
    return launch_slot(x);
  x.now = phase::waiting;
  x.wish = {x.number, ++last_ticket, fresh};
  x.delay.clear();
  x.stuck = false;
}

void cluster_state::launch_slot(slot& x) {
  x.now = phase::starting;
  x.life = ++last_life;
  x.pid = 0;
  x.cut = 0;
  x.warning.clear();
  x.suspect = false;
  x.outgrown.clear();
  x.overrun = false;
  x.started = self->clock().now();
  x.ready_since = {};
  x.handle = spawn_instance(self, caf::actor_cast<cluster_actor>(self),
                            instance_of(x));
  self->monitor(x.handle);
}

instance_args cluster_state::instance_of(const slot& x) const {
  instance_args result;
  const auto& of = spec_of(x);
  result.request = launch_of(of, args.supervisor, x.number, x.life);
  result.slot = x.number;
  result.grace_period = of.terminate_grace_period;
  result.stop_timeout = of.terminate_timeout;
  result.stop_signal = of.stop_signal;
  result.ready_timeout = of.ready_timeout;
  if (of.ready == ready_condition::exec)
    result.ready_command = of.ready_command;
  result.run_timeout = of.run_timeout;
  result.hooks = of.hooks;
  if (of.cluster)
    result.health = of.cluster->health;
  result.launcher = args.world.launcher;
  return result;
}

// Withdrawn first, stopped when its connections have ended. While a failed
// balancer is away the drain waits for the next one, except at the very end.
void cluster_state::leave(slot& x) {
  const auto can_drain = balancer || (has_balancer() && !stopping);
  if (x.now != phase::ready || !can_drain)
    return stop_instance(x);
  x.now = phase::draining;
  publish();
}

void cluster_state::stop_instance(slot& x) {
  const auto was = std::exchange(x.now, phase::stopping);
  if (was == phase::draining)
    publish();
  self->send_exit(x.handle, caf::exit_reason::user_shutdown);
}

void cluster_state::come_to_rest(slot& x, run_state how, std::string why) {
  x.now = phase::resting;
  x.rest = how;
  x.reason = std::move(why);
  const auto came_up = x.reason.empty() ? to_string(how) : x.reason;
  const auto well = how == run_state::finished;
  pending.settle(x.number, direction::up, outcome_of(x, well, came_up));
  if (well || x.blocked) {
    x.outdated = false;
    pending.settle(x.number, direction::renewed, outcome_of(x, well, came_up));
  }
  const auto cut = std::exchange(x.cut, 0);
  std::string went_down = "stopped";
  if (cut != 0)
    went_down +=
        "; connections that outlived drainTimeoutMs: " + std::to_string(cut);
  const auto left_over = x.last && std::exchange(x.last->left_over, false);
  if (left_over)
    went_down += "; " + x.last->rest;
  pending.settle(x.number, direction::down,
                 outcome_of(x, !left_over, went_down));
}

// -- facts --------------------------------------------------------------------

void cluster_state::ended(slot& x, const ending& how) {
  const auto was = x.now;
  const auto ran = how.what == ending::kind::not_launched
                       ? std::string{}
                       : " after " + in_words(self->clock().now() - x.started);
  note(x, event_kind::ended, to_string(how) + ran);
  x.handle = nullptr;
  x.pid = 0;
  x.address.clear();
  x.last = how;
  if (was == phase::ready || was == phase::draining)
    publish();
  if (was != phase::draining && was != phase::stopping) {
    if (x.spare)
      spare_ended(x);
    else
      ended_by_itself(x, how);
    return judge_trial(x, how);
  }
  if (x.then && !stopping) {
    const auto then = *std::exchange(x.then, std::nullopt);
    return come_to_rest(x, then.rest, then.why);
  }
  if (!x.wanted || stopping)
    return come_to_rest(x, run_state::stopped, {});
  if (x.blocked)
    return come_to_rest(x, run_state::blocked, "blocked");
  if (!x.outgrown.empty()) {
    x.last->what = ending::kind::unhealthy;
    x.last->text = x.outgrown;
    return ended_by_itself(x, *x.last);
  }
  ++x.restarts;
  begin_anew(x, false);
}

void cluster_state::ended_by_itself(slot& x, const ending& how) {
  const auto& of = spec_of(x);
  const auto rest = [&](run_state state, std::string why) {
    come_to_rest(x, state, std::move(why));
    tell_rested(how);
  };
  const auto has = [&](const std::vector<int>& codes) {
    return how.what == ending::kind::exited
           && std::find(codes.begin(), codes.end(), how.code) != codes.end();
  };
  if (x.blocked) {
    note(x, event_kind::decided, "blocked: is not started again");
    return rest(run_state::blocked, to_string(how) + "; blocked");
  }
  if (how.what == ending::kind::not_launched && how.code == ending::no_room)
    return postpone(x, how);
  const auto success = has(of.success_exit_codes);
  const auto at_rest = success ? run_state::finished : run_state::failed;
  const auto why = success ? how.rest : to_string(how);
  if (has(of.no_restart_exit_codes)) {
    note(x, event_kind::decided, "noRestartExitCodes: is not started again");
    return rest(at_rest, why);
  }
  const auto now = self->clock().now();
  const auto until = x.now == phase::expiring ? x.leader_ended : now;
  const auto was_ready = x.ready_since != time_point{};
  const auto reached = stage_of(
      was_ready ? std::optional{until - x.ready_since} : std::nullopt, {});
  const auto what =
      x.rules->ended(slot_child, success, reached, now, random01());
  if (const auto* end = std::get_if<give_up>(&what)) {
    const auto [rule, limit] = passed_limit(of, *end);
    note(x, event_kind::decided, rule + ": gives up, " + limit);
    return rest(run_state::exhausted, to_string(how) + "; " + limit);
  }
  if (const auto* again = std::get_if<restart>(&what))
    return start_again(x, how, again->delay);
  note(x, event_kind::decided, rule_name(of) + ": is not started again");
  rest(at_rest, why);
}

void cluster_state::start_again(slot& x, const ending& how, duration delay) {
  ++x.restarts;
  tell_return(x, how, delay, rule_name(spec()));
  if (!spec().cluster)
    tell_ended(unit_ended::next::restart, how);
  return_after(x, delay);
}

// Nothing has run, so there is nothing to judge: no rule is asked, no limit
// counts it, and no group acts upon it.
void cluster_state::postpone(slot& x, const ending& how) {
  const auto delay = x.rules->postponed(slot_child, random01());
  tell_return(x, how, delay, "a shortage of the machine");
  return_after(x, delay);
}

void cluster_state::tell_return(slot& x, const ending& how, duration delay,
                                const std::string& rule) {
  const auto when =
      "starting again "
      + (delay <= duration::zero() ? "at once" : "in " + in_words(delay));
  auto why = to_string(how) + "; " + when;
  note(x, event_kind::decided, rule + ": " + when);
  pending.settle(x.number, direction::up, outcome_of(x, false, why));
  x.reason = std::move(why);  // holds until it is ready
}

void cluster_state::return_after(slot& x, duration delay) {
  if (delay <= duration::zero())
    return ask_for_launch(x, false);
  x.now = phase::backoff;
  x.timer = ++last_timer;
  x.due = self->clock().now() + delay;
  self->delayed_send(self, delay, backoff_due{x.number, x.timer});
}

void cluster_state::backoff_over(const backoff_due& due) {
  for (auto& x : slots)
    if (x.number == due.slot && x.timer == due.timer && x.now == phase::backoff)
      ask_for_launch(x, false);
  tidy();
}

void cluster_state::became_ready(slot& x, const instance_ready& fact) {
  if (x.now != phase::starting)
    return;
  x.now = phase::ready;
  x.address = fact.address;
  x.ready_since = self->clock().now();
  x.reason = x.warning;
  note(x, event_kind::ready, "after " + in_words(x.ready_since - x.started));
  announce(x);
}

// It gets no new connections, and a new life when the old one has ended.
void cluster_state::expires(slot& x, const instance_expires& fact) {
  x.pid = 0;
  if (x.now != phase::starting && x.now != phase::ready
      && x.now != phase::draining)
    return;
  note(x, event_kind::ended, fact.text);
  x.reason = fact.text;
  if (x.now == phase::draining)  // somebody wants it down
    return stop_instance(x);
  x.leader_ended = self->clock().now() - fact.ago;
  if (std::exchange(x.now, phase::expiring) == phase::ready)
    publish();
}

// Who waits for an instance hears of it when connections go there.
void cluster_state::announce(slot& x) {
  publish();
  // A tenth at random keeps instances that began together apart.
  if (spec().max_age.count() > 0)
    self->delayed_send(self,
                       std::max(std::chrono::duration_cast<duration>(
                                    spec().max_age * (1 - random01() / 10))
                                    - (self->clock().now() - x.ready_since),
                                duration::zero()),
                       age_due{x.number, x.life, "maxAgeMs has passed"});
  if (has_balancer())
    x.announced_with = last_snapshot;
  else
    pending.settle(x.number, direction::up, outcome_of(x, true, "ready"));
}

void cluster_state::health(slot& x, const instance_health& fact) {
  if (x.now != phase::ready)
    return;  // it is on its way out, for whatever reason that was told
  x.suspect = !fact.fault.empty();
  x.reason = x.suspect ? "health check: " + fact.fault : x.warning;
  note(x, event_kind::said,
       x.suspect ? "a health check failed: " + fact.fault : "is healthy again");
  publish();
}

// One that is about to end by itself gets no new connections.
void cluster_state::said(slot& x, const instance_said& fact) {
  if (x.now == phase::starting && !fact.status.empty())
    x.reason = fact.status;
  if (!fact.stopping || x.now != phase::ready)
    return;
  x.suspect = true;
  x.reason = "says that it is stopping";
  note(x, event_kind::said, x.reason);
  publish();
}

}  // namespace pup
