#include "pup/runtime/recall.hpp"

#include "pup/config/load.hpp"

#include <algorithm>
#include <optional>

namespace pup {

namespace {

std::optional<run_state> state_named(const std::string& word) {
  for (auto x = run_state::stopped; x <= run_state::degraded;
       x = static_cast<run_state>(static_cast<int>(x) + 1))
    if (to_string(x) == word)
      return x;
  return std::nullopt;
}

std::chrono::sys_seconds sys_seconds_of(std::int64_t since_1970) {
  return std::chrono::sys_seconds{std::chrono::seconds{since_1970}};
}

bool all_blocked(const saved_unit& x) {
  return !x.slots.empty()
         && std::all_of(x.slots.begin(), x.slots.end(),
                        [](const auto& y) { return y.second.blocked; });
}

std::map<std::string, std::chrono::sys_seconds> clocks_of(
    const pup_spec& spec, const saved_state& state) {
  std::map<std::string, std::chrono::sys_seconds> result;
  for (const auto& x : spec.processes) {
    const auto i = state.units.find(x.id);
    if (i != state.units.end() && i->second.mark == x.source.value
        && i->second.clock_seen > 0 && !x.cron.empty()
        && !all_blocked(i->second))
      result.emplace(x.id, sys_seconds_of(i->second.clock_seen));
  }
  return result;
}

bool fits(const process_spec& spec, const saved_unit& x) {
  const auto slots = [&](const auto& entry) {
    return entry.first <= bounds::instances
           && (entry.second.rest.empty() || state_named(entry.second.rest));
  };
  return (spec.cluster ? x.desired <= bounds::instances : x.desired == 1)
         && std::all_of(x.slots.begin(), x.slots.end(), slots);
}

/// The first fault of `spec` with the counts of `kept`; empty: none.
std::string fault_with(pup_spec spec,
                       const std::map<std::string, wanted_state>& kept) {
  for (auto& x : spec.processes)
    if (const auto i = kept.find(x.id); i != kept.end() && x.cluster)
      x.cluster->instances = i->second.desired;
  const auto faults = check(spec);
  return faults.empty() ? std::string{} : faults.front();
}

}  // namespace

saved_unit saved_from(const wanted_state& x) {
  saved_unit result;
  result.mark = x.spec ? x.spec->source.value : 0;
  result.desired = x.desired;
  result.listening = x.listening;
  result.last_life = x.last_life;
  result.clock_seen = x.clock_seen.time_since_epoch().count();
  for (const auto& record : x.records) {
    auto& slot = result.slots[record.number];
    slot.restarts = record.restarts;
    slot.failures = record.restarting.failures;
    slot.failed_starts = record.restarting.failed_starts;
    slot.blocked = record.blocked;
    for (const auto moment : record.restarting.restarts)
      slot.restart_times.push_back(
          std::chrono::nanoseconds{moment.time_since_epoch()}.count());
  }
  for (const auto& rest : x.resting) {
    auto& slot = result.slots[rest.number];
    slot.wanted = rest.wanted;
    slot.rest = to_string(rest.rest);
    slot.reason = rest.reason;
    slot.blocked = rest.blocked;
  }
  return result;
}

wanted_state wanted_from(const saved_unit& x, bool same_boot) {
  wanted_state result;
  result.desired = x.desired;
  result.listening = x.listening;
  result.last_life = same_boot ? x.last_life : 0;
  result.clock_seen = sys_seconds_of(x.clock_seen);
  for (const auto& [number, slot] : x.slots) {
    // Whoever came to rest by itself did so on another day.
    const auto rests =
        !slot.rest.empty() && (same_boot || !slot.wanted || slot.blocked);
    if (rests)
      result.resting.push_back(
          {number, slot.wanted,
           state_named(slot.rest).value_or(run_state::stopped), slot.reason,
           slot.blocked});
    wanted_state::slot_record record;
    record.number = number;
    record.blocked = slot.blocked;
    if (same_boot) {
      record.restarts = slot.restarts;
      record.restarting.failures = slot.failures;
      record.restarting.failed_starts = slot.failed_starts;
      for (const auto moment : slot.restart_times)
        record.restarting.restarts.emplace_back(
            std::chrono::nanoseconds{moment});
    }
    result.records.push_back(std::move(record));
  }
  return result;
}

recollection recall(
    const pup_spec& spec, const std::string& config, const std::string& boot,
    const std::variant<std::optional<saved_state>, std::string>& found) {
  recollection result;
  if (const auto* fault = std::get_if<std::string>(&found)) {
    result.warnings.push_back(
        *fault
        + "; what was scaled, blocked or stopped before is forgotten, this is "
          "the state of the configuration");
    return result;
  }
  const auto& state = std::get<std::optional<saved_state>>(found);
  result.told_environment = state && state->told_environment;
  if (state && state->config == config)
    result.clocks = clocks_of(spec, *state);
  if (!state || state->on_purpose)
    return result;
  if (state->config != config) {
    result.notes.push_back("the supervisor that was killed ran '"
                           + state->config
                           + "'; this is another configuration, and begins "
                             "from its own counts");
    return result;
  }
  const auto same_boot = !boot.empty() && state->boot == boot;
  for (const auto& x : spec.processes) {
    const auto i = state->units.find(x.id);
    if (i == state->units.end())
      continue;
    if (i->second.mark != x.source.value)
      result.notes.push_back("'" + x.id
                             + "' has changed in the configuration, and begins "
                               "as that says");
    else if (fits(x, i->second))
      result.kept.emplace(x.id, wanted_from(i->second, same_boot));
  }
  if (const auto fault = fault_with(spec, result.kept); !fault.empty()) {
    result.kept.clear();
    result.warnings.push_back(
        "what was scaled before does not fit the changed configuration, whose "
        "counts are used instead: "
        + fault);
  }
  return result;
}

}  // namespace pup
