// What starts, stops or replaces a life though nobody asks: the clock on the
// wall, age, memory, changed files.
#include "pup/actors/cluster_state.hpp"

#include <algorithm>
#include <utility>

namespace pup {

// -- clock --------------------------------------------------------------------

void cluster_state::start_schedule() {
  if (spec().cron.empty() && spec().terminate_cron.empty())
    return;
  const auto& wall = args.world.wall;
  times.emplace(spec().cron, spec().terminate_cron, wall.zone(spec().time_zone),
                read_clocks());
  wall.on_set([me = self->address()] {
    if (auto to = caf::actor_cast<caf::strong_actor_ptr>(me))
      caf::anon_send(caf::actor_cast<self_actor>(std::move(to)), clock_set{});
  });
  arm_schedule();
}

void cluster_state::restart_schedule() {
  times.reset();
  ++schedule_timer;
  start_schedule();
}

void cluster_state::arm_schedule() {
  const auto next = times->next();
  if (!next)
    return;
  const auto delay = std::max(*next - args.world.wall.now(),
                              std::chrono::system_clock::duration::zero());
  self->delayed_send(self, std::chrono::duration_cast<duration>(delay),
                     schedule_due{++schedule_timer});
}

void cluster_state::schedule_fires(const schedule_due& due) {
  if (stopping || due.timer != schedule_timer)
    return;
  const auto what = times->take(read_clocks());
  if (what.stop)
    stop_by_clock();
  if (what.start)
    start_by_clock();
  arm_schedule();
  tidy();
}

// What still runs is left alone: two runs never overlap.
void cluster_state::start_by_clock() {
  if (!listening)
    set_listener(true);
  for (auto& x : slots) {
    if (x.number > desired || x.blocked)
      continue;
    if (x.now == phase::resting) {
      note(x, event_kind::asked, "start: cron \"" + spec().cron + '"');
      want_up(x);
    } else {
      x.overrun = spec().overrun && x.wanted;
    }
  }
}

// Whoever is always to run begins anew; the others have ended.
void cluster_state::stop_by_clock() {
  for (auto& x : slots) {
    if (x.now == phase::resting || x.spare)
      continue;
    note(x, event_kind::asked,
         "stop: terminate \"" + spec().terminate_cron + '"');
    if (spec().restart == restart_policy::always)
      bounce(x);
    else
      want_down(x);
  }
}

std::optional<duration> cluster_state::next_cron() const {
  const auto next = times ? times->next_start() : std::nullopt;
  if (!next)
    return std::nullopt;
  return std::chrono::duration_cast<duration>(*next - args.world.wall.now());
}

// -- age and memory -----------------------------------------------------------

// One at a time, and only while all others that are wanted can serve.
void cluster_state::replace_aged() {
  if (rolling)
    return;
  const auto all_serve =
      std::all_of(slots.begin(), slots.end(), [](const slot& x) {
        return x.now == phase::ready || x.now == phase::resting;
      });
  while (all_serve && !aged.empty()) {
    const auto next = aged.front();
    aged.pop_front();
    auto* x = find(next.slot, next.life);
    if (x == nullptr || x->now != phase::ready || x->blocked)
      continue;
    note(*x, event_kind::asked, "restart: " + next.why);
    x->reason = next.why;
    return bounce(*x);
  }
}

// One at a time as well; but a neighbour that does not come up is no reason to
// let memory grow. Who is not ready yet has a deadline for that.
void cluster_state::replace_outgrown() {
  if (rolling)
    return;
  const auto changing =
      std::any_of(slots.begin(), slots.end(), [](const slot& x) {
        return x.now == phase::starting || x.now == phase::expiring
               || x.now == phase::draining || x.now == phase::stopping;
      });
  const auto next = std::find_if(slots.begin(), slots.end(), [](const slot& x) {
    return x.now == phase::ready && !x.outgrown.empty() && !x.blocked;
  });
  if (changing || next == slots.end())
    return;
  next->reason = next->outgrown;  // again, where it was not ready then
  note(*next, event_kind::asked, "restart: " + next->outgrown);
  leave(*next);
}

// -- files --------------------------------------------------------------------

void cluster_state::start_watching() {
  watching.reset();
  if (spec().watch.empty())
    return;
  watching = args.world.files.begin(
      {spec().watch, spec().watcher},
      [me = self->address()](const watch_news& news) {
        if (auto to = caf::actor_cast<caf::strong_actor_ptr>(me))
          caf::anon_send(caf::actor_cast<self_actor>(std::move(to)),
                         files_changed{news});
      });
}

// Those that can serve are replaced one after the other; who has failed with
// the old files has its chance at once. What somebody has stopped stays so.
void cluster_state::changed(const watch_news& news) {
  watch_trouble = news.trouble;
  if (stopping || news.changed.empty())
    return;
  const auto why = "changed: " + news.changed;
  for (auto& x : slots) {
    const auto rests = x.now == phase::resting || x.now == phase::backoff;
    const auto stays =
        x.now == phase::resting && !x.wanted && x.rest != run_state::waiting;
    if (x.number > desired || x.blocked || stays)
      continue;
    if (x.now == phase::ready) {
      std::erase_if(aged, [&](const age_due& y) { return y.life == x.life; });
      aged.push_back({x.number, x.life, why});
    } else if (rests || x.now == phase::starting || x.now == phase::expiring) {
      note(x, event_kind::asked,
           (x.now == phase::resting ? "start: " : "restart: ") + why);
      if (!listening)
        set_listener(true);
      bounce(x);
      x.reason = why;  // holds until it is ready
    }
  }
}

}  // namespace pup
