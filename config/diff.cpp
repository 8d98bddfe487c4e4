#include "pup/config/diff.hpp"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

namespace pup {

namespace {

/// A member, by the key that sets it.
template <class Spec>
struct key_row {
  std::string_view key;
  key_effect effect;
  bool (*same)(const Spec&, const Spec&);
  void (*take)(Spec& to, const Spec& from);
};

template <auto Member, class Spec>
constexpr key_row<Spec> row(std::string_view key, key_effect effect) {
  return {key, effect,
          [](const Spec& a, const Spec& b) { return a.*Member == b.*Member; },
          [](Spec& to, const Spec& from) { to.*Member = from.*Member; }};
}

template <auto Member>
constexpr auto of_process(std::string_view key, key_effect effect) {
  return row<Member, process_spec>(key, effect);
}
template <auto Member>
constexpr auto of_cluster(std::string_view key, key_effect effect) {
  return row<Member, cluster_spec>(key, effect);
}

using p = process_spec;
using c = cluster_spec;
using enum key_effect;

// What stopping, checking and restarting need is told to what runs; the rest of
// tune counts from the next start on.
constexpr std::array process_rows{
    of_process<&p::id>("id", replace), of_process<&p::argv>("cmd", renew),
    of_process<&p::shell>("cmd", renew), of_process<&p::cwd>("cwd", renew),
    of_process<&p::env>("env", renew),
    of_process<&p::inherit_env>("inheritEnv", renew),
    of_process<&p::path>("path", renew),
    of_process<&p::attributes>("user, limits and the like", renew),
    of_process<&p::pid_file>("pidFile", renew),
    of_process<&p::autostart>("autostart", tune),
    of_process<&p::restart>("restart", tune),
    of_process<&p::restart_delay>("restartDelayMs", tune),
    of_process<&p::restart_max_delay>("restartMaxDelayMs", tune),
    of_process<&p::restart_limit>("restartLimit", tune),
    of_process<&p::restart_period>("restartPeriodMs", tune),
    of_process<&p::start_limit>("startLimit", tune),
    of_process<&p::success_exit_codes>("successExitCodes", tune),
    of_process<&p::no_restart_exit_codes>("noRestartExitCodes", tune),
    of_process<&p::terminate_grace_period>("terminateGracePeriod", tune),
    of_process<&p::terminate_timeout>("terminateTimeout", tune),
    of_process<&p::stop_signal>("stopSignal", tune),
    of_process<&p::ready>("ready", tune),
    of_process<&p::ready_path>("ready", tune),
    of_process<&p::ready_command>("ready", tune),
    of_process<&p::ready_pattern>("ready", tune),
    of_process<&p::ready_timeout>("readyTimeoutMs", tune),
    of_process<&p::watchdog>("watchdogMs", renew),
    of_process<&p::run_timeout>("timeout", renew),
    of_process<&p::max_age>("maxAgeMs", tune),
    of_process<&p::max_memory>("maxMemory", renew),
    of_process<&p::hooks>("hooks", tune), of_process<&p::cron>("cron", tune),
    of_process<&p::terminate_cron>("terminate", tune),
    of_process<&p::overrun>("overrun", tune),
    of_process<&p::time_zone>("timeZone", tune),
    of_process<&p::depends_on>("dependsOn", tune),
    of_process<&p::in_group>("supervisor", tune),
    of_process<&p::significant>("significant", tune),
    of_process<&p::watch>("watch", tune),
    of_process<&p::watcher>("watcher", tune),
    of_process<&p::output>("logger", renew),
    // Its own table says more; to be one at all changes the ids.
    of_process<&p::cluster>("cluster", replace),
    of_process<&p::source>("source", tune),  // equals every other
};

// The kernel's sockets cannot move while instances hold them, so in mode
// inherit the listener's keys replace (see listener_effect). A header that
// instances do not expect must not reach them.
constexpr std::array cluster_rows{
    of_cluster<&c::instances>("instances", scale),
    of_cluster<&c::start_port>("startPort", renew),
    of_cluster<&c::common_port>("commonPort", tune),
    of_cluster<&c::common_host>("commonHost", tune),
    of_cluster<&c::mode>("mode", replace),
    of_cluster<&c::strategy>("strategy", tune),
    of_cluster<&c::drain_timeout>("drainTimeoutMs", tune),
    of_cluster<&c::max_connections>("maxConnections", tune),
    of_cluster<&c::idle_timeout>("idleTimeoutMs", tune),
    of_cluster<&c::connect_timeout>("connectTimeoutMs", tune),
    of_cluster<&c::header>("proxyProtocol", replace),
    of_cluster<&c::max_surge>("maxSurge", tune),
    of_cluster<&c::max_unavailable>("maxUnavailable", tune),
    of_cluster<&c::health>("healthCheck", tune),
};

constexpr std::array top_rows{
    row<&pup_spec::name, pup_spec>("name", replace),
    row<&pup_spec::readers, pup_spec>("ipc", replace),
    row<&pup_spec::logger, pup_spec>("logger", replace),
    row<&pup_spec::watcher, pup_spec>("watcher", tune),
    row<&pup_spec::processes, pup_spec>("processes", tune),
    row<&pup_spec::groups, pup_spec>("groups", tune),
    row<&pup_spec::start_concurrency, pup_spec>("startConcurrency", tune),
    row<&pup_spec::source, pup_spec>("source", tune),
};

void add(std::vector<std::string_view>& to, std::string_view key) {
  if (std::find(to.begin(), to.end(), key) == to.end())
    to.push_back(key);
}

std::vector<std::string_view>& list_of(unit_change& x, key_effect effect) {
  switch (effect) {
    case tune:
      return x.tuned;
    case replace:
      return x.replaced;
    case scale:
    case renew:
      break;
  }
  return x.renewed;
}

key_effect effect_of(const key_row<cluster_spec>& x, const cluster_spec& from,
                     const cluster_spec& to) {
  const auto is_port = x.key == "commonPort";
  if (!is_port && x.key != "commonHost")
    return x.effect;
  const auto moves = to.mode == cluster_mode::proxy;
  // With a balancer or without one is another kind of unit.
  const auto appears = (from.common_port == 0) != (to.common_port == 0);
  return !moves || (is_port && appears) ? replace : x.effect;
}

void compare_clusters(const cluster_spec& from, const cluster_spec& to,
                      unit_change& into) {
  auto rest = from;
  for (const auto& x : cluster_rows) {
    if (x.effect != scale && !x.same(from, to))
      add(list_of(into, effect_of(x, from, to)), x.key);
    x.take(rest, to);
  }
  if (rest != to)
    add(into.renewed, "cluster");
}

std::string in_parentheses(const std::vector<std::string_view>& keys) {
  std::string result;
  for (const auto x : keys)
    result.append(result.empty() ? " (" : ", ").append(x);
  return result.empty() ? result : result + ')';
}

std::string line_of(const spec_change::unit& x) {
  const auto& how = x.how;
  std::string text;
  const auto say = [&](const std::string& what) {
    text += (text.empty() ? x.id + ": " : ", ") + what;
  };
  if (!how.replaced.empty()) {
    say("stop and start" + in_parentheses(how.replaced));
    return text;
  }
  if (how.scaled)
    say("scale " + std::to_string(how.scaled->first) + " -> "
        + std::to_string(how.scaled->second)
        + (how.rescaled ? " (as the file says)" : ""));
  if (!how.renewed.empty())
    say("reload" + in_parentheses(how.renewed));
  if (!how.tuned.empty())
    say("change" + in_parentheses(how.tuned));
  return text;
}

}  // namespace

unit_change change_of(const process_spec& from, const process_spec& to,
                      std::uint32_t desired) {
  unit_change result;
  auto rest = from;
  for (const auto& x : process_rows) {
    const auto both = x.key == "cluster" && from.cluster && to.cluster;
    if (!both && !x.same(from, to))
      add(list_of(result, x.effect), x.key);
    x.take(rest, to);
  }
  if (rest != to)
    add(result.renewed, "settings");
  if (!from.cluster || !to.cluster)
    return result;
  compare_clusters(*from.cluster, *to.cluster, result);
  if (to.cluster->instances != desired) {
    result.scaled = {desired, to.cluster->instances};
    result.rescaled = to.cluster->instances == from.cluster->instances;
  }
  return result;
}

spec_change change_of(const pup_spec& from, const pup_spec& to,
                      const std::map<std::string, std::uint32_t>& desired) {
  spec_change result;
  std::map<std::string_view, const process_spec*> before;
  std::set<std::string_view> after;
  for (const auto& x : from.processes)
    before.emplace(x.id, &x);
  for (const auto& x : to.processes) {
    after.insert(x.id);
    const auto old = before.find(x.id);
    if (old == before.end()) {
      result.started.push_back(x.id);
      continue;
    }
    const auto now = desired.find(x.id);
    const auto count = now != desired.end()   ? now->second
                       : old->second->cluster ? old->second->cluster->instances
                                              : 1;
    auto how = change_of(*old->second, x, count);
    if (!how.empty())
      result.changed.push_back({x.id, std::move(how)});
  }
  for (auto i = from.processes.rbegin(); i != from.processes.rend(); ++i)
    if (after.count(i->id) == 0)
      result.stopped.push_back(i->id);
  auto rest = from;
  for (const auto& x : top_rows) {
    // What processes were given by watcher shows in them.
    const auto shows = x.key == "processes" || x.key == "watcher";
    if (x.key != "name" && !shows && !x.same(from, to))
      (x.effect == replace ? result.later : result.tuned).push_back(x.key);
    x.take(rest, to);
  }
  if (rest != to)
    result.later.emplace_back("other keys");
  return result;
}

std::vector<std::string> plan_of(const spec_change& x) {
  std::vector<std::string> result;
  for (const auto& id : x.stopped)
    result.push_back(id + ": stop");
  for (const auto& unit : x.changed)
    result.push_back(line_of(unit));
  for (const auto& id : x.started)
    result.push_back(id + ": start");
  for (const auto key : x.tuned)
    result.push_back(std::string{key} + ": change");
  for (const auto key : x.later)
    result.push_back(std::string{key} + ": holds when pup is started again");
  return result;
}

std::size_t process_keys_decided() {
  return process_rows.size();
}

std::size_t cluster_keys_decided() {
  return cluster_rows.size();
}

std::size_t top_keys_decided() {
  return top_rows.size();
}

}  // namespace pup
