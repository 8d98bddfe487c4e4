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
  result.cwd = expanded(spec.cwd);
  result.path = spec.path;
  result.port = port;
  result.ready = spec.ready;
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

supervision rules_of(const process_spec& spec) {
  auto type = restart_type::permanent;
  if (spec.restart == restart_policy::on_error)
    type = restart_type::transient;
  else if (spec.restart == restart_policy::never)
    type = restart_type::temporary;
  supervision result{strategy::one_for_one,
                     {spec.restart_limit, spec.restart_period}};
  backoff_rule delays;
  delays.first = spec.restart_delay;
  delays.max = std::max(spec.restart_max_delay, spec.restart_delay);
  result.add(slot_child, type, delays);
  return result;
}

run_state state_of(const slot& x) {
  switch (x.now) {
    case slot_phase::resting:
      return x.rest;
    case slot_phase::backoff:
      return run_state::backoff;
    case slot_phase::starting:
      return run_state::starting;
    case slot_phase::ready:
      return run_state::ready;
    case slot_phase::draining:
      return run_state::draining;
    case slot_phase::stopping:
      return run_state::stopping;
  }
  return run_state::failed;
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
  result.reason = x.reason;
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
