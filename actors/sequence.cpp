#include "pup/actors/sequence.hpp"

#include "pup/config/relations.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

namespace pup {

namespace {

class planner {
public:
  planner(const pup_spec& spec, const std::vector<target>& chosen,
          const std::vector<unit_status>& units)
      : chosen_(chosen) {
    for (const auto i : order_of_start(spec)) {
      specs_.emplace(spec.processes[i].id, &spec.processes[i]);
      order_.push_back(&spec.processes[i]);
    }
    for (const auto& x : units)
      states_.emplace(x.id, x.state);
  }

  sequence up(verb what) {
    for (const auto& x : chosen_)
      look_below(x.unit);
    std::vector<step> ahead;
    std::vector<step> all;
    for (const auto* x : order_)
      if (const auto needed = needed_by_.find(x->id);
          needed != needed_by_.end()) {
        ahead.push_back({{x->id, 0}, verb::start, true, {}});
        if (!is_chosen(x->id))
          all.push_back({{x->id, 0},
                         verb::start,
                         false,
                         "needed by '" + needed->second + "'"});
      }
    for (const auto& x : chosen_)
      all.push_back({x, what, false, {}});
    if (ahead.empty())
      return {std::move(all)};
    return {std::move(ahead), std::move(all)};
  }

  sequence down() {
    std::map<std::string, std::size_t> depths;
    std::size_t deepest = 0;
    for (const auto* x : order_) {
      std::size_t depth = 0;
      for (const auto& y : x->depends_on)
        if (const auto below = depths.find(y.id); below != depths.end())
          depth = std::max(depth, below->second + 1);
      depths[x->id] = depth;
      deepest = std::max(deepest, depth);
    }
    sequence result(deepest + 1);
    for (const auto& x : chosen_)
      result[deepest - depths[x.unit]].push_back(
          {x, verb::stop, false, left_without(x)});
    std::erase_if(result, [](const auto& stage) { return stage.empty(); });
    return result;
  }

private:
  bool is_chosen(const std::string& unit) const {
    return std::any_of(chosen_.begin(), chosen_.end(),
                       [&](const target& x) { return x.unit == unit; });
  }

  std::optional<run_state> state_of(const std::string& unit) const {
    const auto i = states_.find(unit);
    return i == states_.end() ? std::nullopt : std::optional{i->second};
  }

  static bool is_down(run_state x) {
    return x == run_state::stopped || x == run_state::failed
           || x == run_state::exhausted || x == run_state::finished;
  }

  // What is up needs nothing. What is on its way may itself wait for others.
  void look_below(const std::string& unit) {
    const auto spec = specs_.find(unit);
    if (spec == specs_.end() || !looked_at_.insert(unit).second)
      return;
    for (const auto& x : spec->second->depends_on) {
      const auto state = state_of(x.id);
      const auto done = x.wanted == dependency::condition::finished
                        && state == run_state::finished;
      if (!state || done || *state == run_state::ready
          || *state == run_state::running)
        continue;
      if (is_down(*state))
        needed_by_.emplace(x.id, unit);
      look_below(x.id);
    }
  }

  // Who runs on without what it depends on.
  std::string left_without(const target& stopped) const {
    std::string result;
    std::size_t count = 0;
    if (stopped.slot != 0)
      return result;
    for (const auto* x : order_) {
      const auto depends =
          std::any_of(x->depends_on.begin(), x->depends_on.end(),
                      [&](const auto& y) { return y.id == stopped.unit; });
      if (!depends)
        continue;
      const auto state = state_of(x->id);
      if (!state || is_down(*state) || is_chosen(x->id))
        continue;
      result += (result.empty() ? "'" : ", '") + x->id + '\'';
      ++count;
    }
    return count == 0
               ? result
               : result + (count == 1 ? " depends" : " depend") + " on it";
  }

  const std::vector<target>& chosen_;
  std::vector<const process_spec*> order_;
  std::map<std::string, const process_spec*> specs_;
  std::map<std::string, run_state> states_;
  std::set<std::string> looked_at_;
  std::map<std::string, std::string> needed_by_;
};

}  // namespace

sequence sequence_of(const pup_spec& spec, verb what,
                     const std::vector<target>& chosen,
                     const std::vector<unit_status>& units) {
  planner it{spec, chosen, units};
  switch (what) {
    case verb::start:
    case verb::restart:
      return it.up(what);
    case verb::stop:
      return it.down();
    case verb::await:
    case verb::block:
    case verb::unblock:
    case verb::reload:
      break;
  }
  std::vector<step> all;
  for (const auto& x : chosen)
    all.push_back({x, what, false, {}});
  return {std::move(all)};
}

}  // namespace pup
