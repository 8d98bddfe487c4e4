#include "pup/actors/slot.hpp"

#include "pup/config/expand.hpp"

#include <algorithm>
#include <limits>

namespace pup {

std::string slot_id(const process_spec& spec, std::uint32_t number) {
  return spec.cluster ? instance_id(spec.id, number) : spec.id;
}

std::uint16_t slot_port(const process_spec& spec, std::uint32_t number) {
  if (!spec.cluster || spec.cluster->start_port == 0)
    return 0;
  return static_cast<std::uint16_t>(spec.cluster->start_port + number - 1);
}

spare_ports spare_ports_of(const std::string& unit, const pup_spec& spec) {
  spare_ports result;
  std::uint16_t own = 0;
  for (const auto& x : spec.processes)
    if (x.cluster && x.id == unit)
      own = x.cluster->start_port;
  for (const auto& x : spec.processes) {
    if (!x.cluster)
      continue;
    result.taken.push_back(x.cluster->common_port);
    if (x.cluster->start_port > own)
      result.last = std::min<std::uint16_t>(
          result.last, static_cast<std::uint16_t>(x.cluster->start_port - 1));
  }
  return result;
}

std::variant<std::uint32_t, caf::error> scaled_count(const process_spec& spec,
                                                     std::uint32_t desired,
                                                     const scale& request) {
  const auto refuse = [&](const std::string& why) {
    return make_error(fault::bad_request, "'" + spec.id + "' " + why);
  };
  if (!spec.cluster)
    return refuse(
        "is a process, not a cluster; give it a \"cluster\" in the "
        "configuration to scale it");
  auto to = request.count;
  if (request.mode == scale_mode::up_by)
    to = desired + std::min(request.count, bounds::instances + 1);
  else if (request.mode == scale_mode::down_by)
    to = desired - std::min(request.count, desired);
  if (to > bounds::instances)
    return refuse("cannot have " + std::to_string(to) + " instances; use 0 to "
                  + std::to_string(bounds::instances));
  constexpr std::uint32_t last_port = std::numeric_limits<std::uint16_t>::max();
  const auto start = spec.cluster->start_port;
  if (start != 0 && to > 0 && start + to - 1 > last_port)
    return refuse("has ports for " + std::to_string(last_port - start + 1)
                  + " instances only, from " + std::to_string(start) + " to "
                  + std::to_string(last_port)
                  + "; use fewer or a lower startPort");
  return to;
}

launch launch_of(const process_spec& spec, const std::string& supervisor,
                 std::uint32_t number, std::uint64_t life) {
  const auto id = slot_id(spec, number);
  const auto port = slot_port(spec, number);
  const auto index = number == 0 ? 0 : number - 1;
  const auto expanded = [&](const std::string& text) {
    return expand(text, port, index, id);
  };
  launch result;
  result.id = id;
  result.life = life;
  result.argv = spec.argv;
  if (!spec.shell)
    std::transform(spec.argv.begin(), spec.argv.end(), result.argv.begin(),
                   expanded);
  for (const auto& [key, value] : spec.env)
    result.env[key] = expanded(value);
  result.inherit_env = spec.inherit_env;
  result.cwd = expanded(spec.cwd);
  result.path = spec.path;
  result.port = port;
  // Whoever runs the command of ready exec waits for nothing else.
  result.ready =
      spec.ready == ready_condition::exec ? ready_condition::spawn : spec.ready;
  result.ready_path = spec.ready_path;
  result.ready_pattern = spec.ready_pattern;
  result.watchdog = spec.watchdog;
  if (spec.cluster && spec.cluster->mode == cluster_mode::inherit)
    result.inherit = inherited_socket{spec.id, number, *spec.cluster};
  result.output = spec.output;
  result.output.stdout_file = expanded(spec.output.stdout_file);
  result.output.stderr_file = expanded(spec.output.stderr_file);
  result.attributes = spec.attributes;
  result.pid_file = expanded(spec.pid_file);
  result.max_memory = spec.max_memory;
  result.env["PUP_ID"] = id;
  result.env["PUP_NAME"] = supervisor;
  if (spec.cluster)
    result.env["PUP_CLUSTER_INSTANCE"] = std::to_string(index);
  if (port != 0) {
    const auto text = std::to_string(port);
    result.env["PUP_CLUSTER_PORT"] = text;
    // What most programs read, and what lets a plain Deno.serve() listen here;
    // the configuration's own values win.
    result.env.emplace("PORT", text);
    result.env.emplace("DENO_SERVE_ADDRESS", "tcp:127.0.0.1:" + text);
  }
  return result;
}

launch task_of(const launch& of, const command_spec& command,
               std::uint32_t slot, const std::string& name,
               std::uint64_t number) {
  launch result;
  result.id = of.id + '!' + name + '.' + std::to_string(of.life) + '.'
              + std::to_string(number);
  result.life = of.life;
  result.argv = command.argv;
  if (!command.shell)
    for (auto& x : result.argv)
      x = expand(x, of.port, slot == 0 ? 0 : slot - 1, of.id);
  result.env = of.env;
  result.inherit_env = of.inherit_env;
  result.env["PUP_HOOK"] = name;
  result.cwd = of.cwd;
  result.path = of.path;
  result.attributes = of.attributes;
  return result;
}

restart_type restart_type_of(restart_policy x) {
  switch (x) {
    case restart_policy::always:
      return restart_type::permanent;
    case restart_policy::on_error:
      return restart_type::transient;
    case restart_policy::never:
      return restart_type::temporary;
  }
  return restart_type::permanent;
}

backoff_rule backoff_of(const process_spec& spec) {
  backoff_rule result;
  result.first = spec.restart_delay;
  result.max = std::max(spec.restart_max_delay, spec.restart_delay);
  return result;
}

supervision rules_of(const process_spec& spec) {
  supervision result{strategy::one_for_one,
                     {spec.restart_limit, spec.restart_period}};
  result.add(slot_child, restart_type_of(spec.restart), backoff_of(spec));
  result.limit_starts(slot_child, spec.start_limit);
  return result;
}

std::pair<std::string, std::string> passed_limit(const process_spec& spec,
                                                 const give_up& x) {
  if (x.passed == give_up::limit::starts)
    return {"startLimit", "more than " + std::to_string(*spec.start_limit)
                              + " starts in a row that did not become ready"};
  return {"restartLimit", "more than " + std::to_string(*spec.restart_limit)
                              + " restarts in "
                              + in_words(spec.restart_period)};
}

run_state state_of(const slot& x) {
  switch (x.now) {
    case slot_phase::resting:
      return x.rest;
    case slot_phase::backoff:
      return run_state::backoff;
    case slot_phase::waiting:  // as a rule for no longer than two messages
      return x.delay.empty() ? run_state::starting : run_state::waiting;
    case slot_phase::starting:
      return run_state::starting;
    case slot_phase::ready:
      return run_state::ready;
    case slot_phase::draining:
      return run_state::draining;
    case slot_phase::expiring:
    case slot_phase::stopping:
      return run_state::stopping;
  }
  return run_state::failed;
}

const std::string& reason_of(const slot& x) {
  return x.now == slot_phase::waiting && !x.delay.empty() ? x.delay : x.reason;
}

instance_status status_of(const process_spec& spec, const slot& x,
                          time_point now) {
  instance_status result;
  result.id = slot_id(spec, x.number);
  result.slot = x.number;
  result.state = state_of(x);
  result.pid = x.pid;
  result.port = slot_port(spec, x.number);
  result.restarts = x.restarts;
  result.reason = reason_of(x);
  if (x.handle)
    result.uptime_ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(now - x.started)
            .count();
  if (x.last && x.last->what == ending::kind::exited)
    result.exit_code = x.last->code;
  if (x.last && x.last->signal != 0)
    result.signal = x.last->signal;
  return result;
}

run_state cluster_state_of(const std::vector<slot>& slots,
                           std::uint32_t desired, bool reachable) {
  std::uint32_t wanted = 0;
  std::uint32_t ready = 0;
  std::uint32_t exhausted = 0;
  for (const auto& x : slots) {
    const auto state = state_of(x);
    // What has done its work is missed by nobody.
    if (!x.wanted || x.number > desired || state == run_state::finished)
      continue;
    ++wanted;
    ready += state == run_state::ready ? 1 : 0;
    exhausted += state == run_state::exhausted ? 1 : 0;
  }
  if (wanted == 0)
    return run_state::stopped;
  if (exhausted == wanted)
    return run_state::exhausted;
  return ready == wanted && reachable ? run_state::running
                                      : run_state::degraded;
}

std::string in_words(duration x) {
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(x).count();
  return ms < 10'000 ? std::to_string(ms) + " ms"
                     : std::to_string(ms / 1'000) + " s";
}

}  // namespace pup
