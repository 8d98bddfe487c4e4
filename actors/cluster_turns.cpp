// Dealings with the conductor: wishes, what it is told, what it orders.
#include "pup/actors/cluster_state.hpp"

#include <algorithm>
#include <utility>

namespace pup {

unit_report cluster_state::report_by_now() const {
  unit_report result;
  result.unit = spec().id;
  result.steered = last_steer;
  std::size_t wanted = 0;
  std::size_t started = 0;
  std::size_t serving = 0;
  std::size_t finished = 0;
  std::size_t in_trouble = 0;
  for (const auto& x : slots) {
    const auto resting = x.now == phase::resting;
    result.alive = result.alive || x.handle;
    result.busy = result.busy || !resting || x.rest == run_state::waiting;
    result.starting += x.now == phase::starting ? 1 : 0;
    if (x.now == phase::waiting)
      result.wishes.push_back(x.wish);
    if (!x.wanted || x.number > desired)
      continue;
    ++wanted;
    started += x.pid != 0 ? 1 : 0;
    serving += serves(x) ? 1 : 0;
    finished += resting && x.rest == run_state::finished ? 1 : 0;
    in_trouble += resting || x.now == phase::backoff ? 1 : 0;
  }
  const auto reachable = !has_balancer() || listener_open;
  result.started = wanted > 0 && started == wanted;
  result.ready = wanted > 0 && serving == wanted && reachable;
  result.finished = wanted > 0 && finished == wanted;
  result.coming = wanted > 0 && in_trouble == 0 && listener_reason.empty();
  result.state = spec().cluster ? cluster_state_of(slots, desired, reachable)
                                : state_of(slots.front());
  result.reason = reason();
  return result;
}

void cluster_state::inform() {
  if (!args.conductor)
    return;
  if (auto now = report_by_now(); reported != now) {
    reported = now;
    self->send(args.conductor, std::move(now));
  }
}

void cluster_state::tell_ended(unit_ended::next what, const ending& how) {
  if (!args.conductor || spec().in_group.empty())
    return;
  self->send(args.conductor, unit_ended{spec().id, what, how});
  reported.reset();  // it waits for the next one
}

// After a slot has come to rest by itself.
void cluster_state::tell_rested(const ending& how) {
  auto what = unit_ended::next::rest;
  for (const auto& x : slots) {
    if (!x.wanted || x.number > desired)
      continue;
    if (x.now != phase::resting)
      return;
    if (x.rest == run_state::exhausted)
      what = unit_ended::next::gave_up;
  }
  tell_ended(what, how);
}

slot* cluster_state::find_waiting(std::uint32_t number, std::uint64_t ticket) {
  const auto i = std::find_if(slots.begin(), slots.end(), [&](const slot& x) {
    return x.number == number && x.now == phase::waiting
           && x.wish.ticket == ticket;
  });
  return i == slots.end() ? nullptr : &*i;
}

void cluster_state::granted(const launch_granted& fact) {
  if (auto* x = find_waiting(fact.slot, fact.ticket)) {
    launch_slot(*x);
    tidy();
  }
}

void cluster_state::delayed(const launch_delayed& fact) {
  auto* x = find_waiting(fact.slot, fact.ticket);
  if (x == nullptr)
    return;
  x->delay = fact.reason;
  x->stuck = fact.stuck;
  if (x->stuck)
    pending.settle(x->number, direction::up, outcome_of(*x, false, x->delay));
  tidy();
}

void cluster_state::steered(const steer& order) {
  last_steer = order.number;
  if (!order.again && listening)
    set_listener(false);
  for (auto i = slots.rbegin(); i != slots.rend(); ++i) {
    if (order.again)
      recycle(*i);
    else
      retire(*i, order);
  }
  tidy();
}

// What somebody has stopped or blocked stays so.
void cluster_state::recycle(slot& x) {
  if (!x.wanted || x.blocked || x.number > desired || x.now == phase::waiting)
    return;
  note(x, event_kind::decided,
       "group '" + spec().in_group + "': restarts with it");
  if (x.now == phase::backoff)
    return ask_for_launch(x, false);
  bounce(x);
}

void cluster_state::retire(slot& x, const steer& order) {
  if (!x.wanted || x.now == phase::resting)
    return;
  note(x, event_kind::decided, order.why);
  // What gave up is missed; what was to be stopped is not.
  x.wanted = order.rest == run_state::exhausted;
  if (x.now == phase::backoff || x.now == phase::waiting)
    return come_to_rest(x, order.rest, order.why);
  x.then = slot::fate{order.rest, order.why};
  if (x.now == phase::starting || x.now == phase::ready
      || x.now == phase::expiring)
    leave(x);
}

}  // namespace pup
