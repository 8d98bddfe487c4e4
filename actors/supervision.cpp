#include "pup/actors/supervision.hpp"

#include <algorithm>

namespace pup {

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
                   {std::move(id), type, backoff{rule}});
  return true;
}

bool supervision::remove(const std::string& id) {
  const auto i = find(id);
  if (i == children_.end())
    return false;
  children_.erase(i);
  return true;
}

decision supervision::ended(const std::string& id, bool normal, bool stable,
                            time_point now, double random) {
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
  if (!within_intensity(now))
    return give_up{};
  const auto delay = i->delays.next(stable, random);
  auto result = affected(i);
  result.delay = delay;
  return result;
}

void supervision::forgive(const std::string& id) {
  restarts_.clear();
  if (const auto i = find(id); i != children_.end())
    i->delays.reset();
}

restart_record supervision::record(const std::string& id) const {
  for (const auto& x : children_)
    if (x.id == id)
      return {{restarts_.begin(), restarts_.end()}, x.delays.failures()};
  return {};
}

void supervision::recall(const std::string& id, const restart_record& x) {
  const auto i = find(id);
  if (i == children_.end())
    return;
  restarts_.assign(x.restarts.begin(), x.restarts.end());
  i->delays.recall(x.failures);
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
