#include "pup/actors/turns.hpp"

#include "pup/config/relations.hpp"

#include <algorithm>

namespace pup {

namespace {

bool holds(const dependency& x, const unit_report& now) {
  switch (x.wanted) {
    case dependency::condition::started:
      return now.started;
    case dependency::condition::ready:
      return now.ready;
    case dependency::condition::finished:
      return now.finished;
  }
  return false;
}

std::string in_words(const dependency& x) {
  const auto id = "waits for '" + x.id + "' to ";
  switch (x.wanted) {
    case dependency::condition::started:
      return id + "be started";
    case dependency::condition::ready:
      return id + "be ready";
    case dependency::condition::finished:
      return id + "finish";
  }
  return id;
}

}  // namespace

void turns::follow(const pup_spec& spec) {
  auto old = std::exchange(units_, {});
  const auto old_indexes = std::exchange(indexes_, {});
  waiting_.clear();
  all_seen_before_ = 0;
  limit_ = spec.start_concurrency;
  starting_ = 0;
  granted_ = 0;
  for (const auto i : order_of_start(spec)) {
    const auto& process = spec.processes[i];
    record x;
    if (const auto known = old_indexes.find(process.id);
        known != old_indexes.end())
      x = std::move(old[known->second]);
    x.id = process.id;
    x.depends_on.clear();
    // Start order: it is in units_ already.
    for (const auto& y : process.depends_on)
      if (const auto to = indexes_.find(y.id); to != indexes_.end())
        x.depends_on.emplace_back(to->second, y);
    starting_ += x.last ? x.last->starting : 0;
    for (const auto& [ticket, y] : x.wishes)
      granted_ += y.granted ? 1 : 0;
    if (!x.wishes.empty())
      waiting_.insert(units_.size());
    indexes_.emplace(x.id, units_.size());
    units_.push_back(std::move(x));
  }
}

void turns::report(const unit_report& now) {
  const auto found = indexes_.find(now.unit);
  if (found == indexes_.end())
    return;
  auto& x = units_[found->second];
  starting_ -= x.last ? x.last->starting : 0;
  starting_ += now.starting;
  x.last = now;
  x.seen = true;
  auto old = std::exchange(x.wishes, {});
  for (const auto& y : now.wishes) {
    const auto known = old.find(y.ticket);
    if (known == old.end())
      x.wishes.emplace(y.ticket, wish{y, 0, false, {}, false});
    else
      x.wishes.insert(old.extract(known));
  }
  // What was granted and is no longer wished for has been begun or withdrawn.
  for (const auto& [ticket, y] : old)
    granted_ -= y.granted ? 1 : 0;
  if (x.wishes.empty())
    waiting_.erase(found->second);
  else
    waiting_.insert(found->second);
}

void turns::forget(const std::string& id) {
  const auto found = indexes_.find(id);
  if (found == indexes_.end())
    return;
  auto& x = units_[found->second];
  starting_ -= x.last ? x.last->starting : 0;
  for (const auto& [ticket, y] : x.wishes)
    granted_ -= y.granted ? 1 : 0;
  x.wishes.clear();
  x.last.reset();
  waiting_.erase(found->second);
}

void turns::hold(const std::string& id, const std::string& why) {
  if (const auto found = indexes_.find(id); found != indexes_.end())
    units_[found->second].held = why;
}

const unit_report* turns::see(const std::string& id) const {
  const auto found = indexes_.find(id);
  if (found == indexes_.end() || !units_[found->second].last)
    return nullptr;
  return &*units_[found->second].last;
}

bool turns::coming(const std::string& id) {
  const auto found = indexes_.find(id);
  return found != indexes_.end() && coming_at(found->second);
}

// At the beginning units report as their threads run. Where only some may start
// at once, nobody gets a number before those that come first in start order.
void turns::number_wishes() {
  while (all_seen_before_ < units_.size() && units_[all_seen_before_].seen)
    ++all_seen_before_;
  for (const auto i : waiting_) {
    if (limit_ > 0 && i > all_seen_before_)
      break;
    // In the order of slots, whichever began to wait first.
    for (const auto& wanted : units_[i].last->wishes)
      if (auto& x = units_[i].wishes.at(wanted.ticket); x.number == 0)
        x.number = ++last_number_;
  }
}

// The first dependency that does not hold.
std::optional<turns::obstacle> turns::obstacle_of(std::size_t index) {
  for (const auto& [to, x] : units_[index].depends_on) {
    const auto& now = units_[to].last;
    if (now && holds(x, *now))
      continue;
    obstacle result{in_words(x), false, {}};
    if (!now)
      return result;  // it is about to begin
    const auto its_own = waits_for(to);
    result.stuck = !now->coming || (its_own && its_own->stuck);
    if (!now->coming)
      result.cause = '\'' + x.id + "': " + to_string(now->state)
                     + (now->reason.empty() ? "" : ", " + now->reason);
    else if (result.stuck)
      result.cause = its_own->cause;
    if (result.stuck)
      result.reason += "; " + result.cause;
    return result;
  }
  return std::nullopt;
}

// What its fresh wishes wait for, if it has any.
std::optional<turns::obstacle> turns::waits_for(std::size_t index) {
  const auto& wishes = units_[index].wishes;
  const auto fresh = std::any_of(
      wishes.begin(), wishes.end(),
      [](const auto& x) { return x.second.what.fresh && !x.second.granted; });
  return fresh ? obstacle_of(index) : std::nullopt;
}

bool turns::coming_at(std::size_t index) {
  const auto& now = units_[index].last;
  if (!now)
    return true;
  const auto why = waits_for(index);
  return now->coming && !(why && why->stuck);
}

turns::verdicts turns::take() {
  verdicts result;
  number_wishes();
  struct candidate {
    std::uint64_t number;
    std::size_t unit;
    wish* what;
  };
  std::vector<candidate> queue;
  for (const auto i : waiting_)
    for (auto& [ticket, x] : units_[i].wishes)
      if (x.number != 0 && !x.granted)
        queue.push_back({x.number, i, &x});
  std::sort(queue.begin(), queue.end(),
            [](const auto& a, const auto& b) { return a.number < b.number; });
  for (const auto& [number, i, x] : queue) {
    const auto& its = units_[i];
    std::optional<obstacle> why;
    if (!its.held.empty())
      why = obstacle{its.held, false, {}};
    else if (x->what.fresh)
      why = obstacle_of(i);
    if (!why && limit_ > 0 && starting_ + granted_ >= limit_)
      why = obstacle{"waits for its turn: " + std::to_string(limit_)
                         + " may be starting at once",
                     false,
                     {}};
    if (!why) {
      x->granted = true;
      ++granted_;
      result.granted.emplace_back(its.id,
                                  launch_granted{x->what.slot, x->what.ticket});
    } else if (x->told != why->reason || x->told_stuck != why->stuck) {
      x->told = why->reason;
      x->told_stuck = why->stuck;
      result.delayed.emplace_back(
          its.id, launch_delayed{x->what.slot, x->what.ticket, why->reason,
                                 why->stuck});
    }
  }
  return result;
}

}  // namespace pup
