// The ends of connections, and what time does to them.
#include "pup/runtime/engine_records.hpp"
#include "pup/runtime/engine_sockets.hpp"

#include <utility>

namespace pup {

using namespace std::chrono_literals;

/// A side was reset: the other must not take it for a clean end.
void engine::reset(connection& c) {
  const linger at_once{1, 0};
  for (const auto& fd : c.fds)
    if (fd)
      (void)::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once,
                         sizeof at_once);
  release(c);
}

void engine::reject(connection& c) {
  add(c.owner->counters->rejected, std::uint64_t{1});
  release(c);
}

void engine::release(connection& c) {
  auto& l = *c.owner;
  if (c.at != phase::unplaced)
    l.list_of(c.at).erase(c);
  for (auto& w : c.ways)
    pipes_->give_back(std::move(w.pipe), w.in_pipe == 0);
  c.fds[downstream].reset();
  if (c.served_by)
    leave_backend(c);
  records_->give_back(c);
  --l.active;
  l.counters->active.store(l.active, std::memory_order_relaxed);
  leave_place(l);
  if (paused_until_)
    want_deadline(*(paused_until_ = now()));
  else if (!l.accepting)
    attention_ = true;
  if (l.forgotten && l.active == 0)
    want_deadline(now());
}

// -- time ---------------------------------------------------------------------

/// Read at most once for each call of process(): a batch has one time.
engine::clock::time_point engine::now() {
  if (!now_)
    now_ = clock::now();
  return *now_;
}

void engine::want_deadline(clock::time_point when) {
  if (!next_deadline_ || when < *next_deadline_)
    next_deadline_ = when;
}

void engine::expire() {
  now_.reset();
  if (!next_deadline_ || now() < *next_deadline_)
    return;
  const auto when = now();
  if (paused_until_ && when >= *paused_until_)
    resume_after_pause();
  for (auto& l : listeners_)
    if (l)
      expire(*l, when);
  run_probes(when);
  look_around();
  sweep();
  recompute_deadline();
}

void engine::expire(listener& l, clock::time_point when) {
  if (!l.retired.empty())
    update_accepting(l);
  turn_away(l, when);
  while (l.connecting.first && l.connecting.first->deadline <= when) {
    failure_ = ETIMEDOUT;
    settle(*l.connecting.first, outcome::refused);
  }
  // Not in the order of their deadlines: a connect that timed out before
  // delays some.
  for (auto* c = l.parked.first; c != nullptr;) {
    auto* next = c->next;
    if (c->give_up_at <= when)
      reject(*c);
    c = next;
  }
  if (l.idle_tick && *l.idle_tick <= when)
    expire_idle(l, when);
}

void engine::expire_idle(listener& l, clock::time_point when) {
  l.idle_tick.reset();
  if (l.limits.idle_timeout <= 0ms)
    return;
  for (auto* c = l.open.first; c != nullptr;) {
    auto* next = c->next;
    if (++c->quiet > idle_ticks)
      release(*c);
    c = next;
  }
  if (l.open.first)
    l.idle_tick = when + l.tick_period();
}

void engine::recompute_deadline() {
  next_deadline_ = paused_until_;
  for (const auto& x : probes_)
    if (x)
      want_deadline(x->due);
  for (auto& l : listeners_) {
    if (!l)
      continue;
    if (l->connecting.first)
      want_deadline(l->connecting.first->deadline);
    for (auto* c = l->parked.first; c != nullptr; c = c->next)
      want_deadline(c->give_up_at);
    for (const auto& x : l->retired)
      if (x.close_at)
        want_deadline(*x.close_at);
    if (!l->waiting.empty())
      want_deadline(l->waiting.front().give_up_at);
    if (l->idle_tick)
      want_deadline(*l->idle_tick);
  }
}

}  // namespace pup
