#include "pup/actors/supervision.hpp"

#include <algorithm>

namespace pup {

life_stage stage_of(std::optional<duration> ready_for,
                    const backoff_rule& rule) {
  if (!ready_for)
    return life_stage::unready;
  return *ready_for >= rule.stable_after ? life_stage::stable
                                         : life_stage::ready;
}

duration backoff::next(bool stable, double random) {
  if (stable)
    failures_ = 0;
  if (failures_++ == 0)
    return rule_.first;
  // In milliseconds until max has cut it: 2^20 steps would overflow nanoseconds
  // from 2.5 h on. 2^20 * 100 ms is over a day.
  const auto doublings = std::min<std::uint32_t>(failures_ - 2, 20);
  const duration base = std::min<std::chrono::milliseconds>(
      rule_.step * (1LL << doublings), rule_.max);
  const auto spread = std::chrono::duration_cast<duration>(
      std::chrono::duration<double, duration::period>(
          static_cast<double>(base.count()) * (0.8 + 0.4 * random)));
  return std::max<duration>(rule_.first, std::min<duration>(spread, rule_.max));
}

bool supervision::add(std::string id, restart_type type, backoff_rule rule,
                      std::size_t behind) {
  if (find(id) != children_.end())
    return false;
  const auto place = std::min(behind, children_.size());
  children_.insert(children_.begin() + static_cast<std::ptrdiff_t>(place),
                   child{std::move(id), type, backoff{rule}});
  return true;
}

void supervision::limit_starts(const std::string& id,
                               std::optional<std::uint32_t> limit) {
  if (const auto i = find(id); i != children_.end())
    i->start_limit = limit;
}

bool supervision::remove(const std::string& id) {
  const auto i = find(id);
  if (i == children_.end())
    return false;
  children_.erase(i);
  return true;
}

decision supervision::ended(const std::string& id, bool normal,
                            life_stage reached, time_point now, double random) {
  const auto i = find(id);
  if (i == children_.end())
    return leave{};
  switch (i->type) {
    case restart_type::permanent:
      break;
    case restart_type::transient:
      if (normal)
        return leave{};
      break;
    case restart_type::temporary:
      children_.erase(i);
      return leave{true};
  }
  if (!within_start_limit(*i, reached))
    return give_up{give_up::limit::starts};
  if (!within_intensity(now))
    return give_up{give_up::limit::restarts};
  const auto delay = i->delays.next(reached == life_stage::stable, random);
  auto result = affected(i);
  result.delay = delay;
  return result;
}

duration supervision::postponed(const std::string& id, double random) {
  const auto i = find(id);
  return i == children_.end() ? duration::zero()
                              : i->delays.next(false, random);
}

void supervision::forgive(const std::string& id) {
  restarts_.clear();
  const auto i = find(id);
  if (i == children_.end())
    return;
  i->delays.reset();
  i->failed_starts = 0;
}

restart_record supervision::record(const std::string& id) const {
  for (const auto& x : children_)
    if (x.id == id)
      return {{restarts_.begin(), restarts_.end()},
              x.delays.failures(),
              x.failed_starts};
  return {};
}

void supervision::recall(const std::string& id, const restart_record& x) {
  const auto i = find(id);
  if (i == children_.end())
    return;
  restarts_.assign(x.restarts.begin(), x.restarts.end());
  i->delays.recall(x.failures);
  i->failed_starts = x.failed_starts;
}

std::vector<std::string> supervision::ids() const {
  std::vector<std::string> result;
  for (const auto& x : children_)
    result.push_back(x.id);
  return result;
}

supervision::iterator supervision::find(const std::string& id) {
  return std::find_if(children_.begin(), children_.end(),
                      [&](const child& x) { return x.id == id; });
}

bool supervision::within_start_limit(child& x, life_stage reached) {
  x.failed_starts = reached == life_stage::unready ? x.failed_starts + 1 : 0;
  return !x.start_limit || x.failed_starts <= *x.start_limit;
}

bool supervision::within_intensity(time_point now) {
  if (!limit_.limit)
    return true;
  while (!restarts_.empty() && restarts_.front() + limit_.period < now)
    restarts_.pop_front();
  if (restarts_.size() >= *limit_.limit)
    return false;
  restarts_.push_back(now);
  return true;
}

restart supervision::affected(iterator ended) {
  if (strategy_ == strategy::one_for_one)
    return {{}, {ended->id}, {}};
  const auto first =
      strategy_ == strategy::one_for_all ? children_.begin() : ended;
  restart result;
  for (auto i = first; i != children_.end(); ++i) {
    if (i != ended)
      result.stop.insert(result.stop.begin(), i->id);
    if (i->type != restart_type::temporary)
      result.start.push_back(i->id);
  }
  children_.erase(std::remove_if(first, children_.end(),
                                 [](const child& x) {
                                   return x.type == restart_type::temporary;
                                 }),
                  children_.end());
  return result;
}

}  // namespace pup
