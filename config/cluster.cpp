#include "pup/config/cluster.hpp"

#include "pup/config/address.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace pup {

namespace {

using stray = std::pair<std::string_view, std::string_view>;

constexpr std::array<std::string_view, 15> cluster_keys{
    "instances",     "startPort",        "processStartPort",
    "commonPort",    "commonHost",       "strategy",
    "mode",          "drainTimeoutMs",   "maxConnections",
    "idleTimeoutMs", "connectTimeoutMs", "healthCheck",
    "proxyProtocol", "maxSurge",         "maxUnavailable"};

constexpr std::string_view out_of_cluster = "move it out of `cluster`";
constexpr std::array<stray, 9> cluster_strays{{
    {"replicas", "did you mean `instances`?"},
    {"port", "did you mean `commonPort` or `startPort`?"},
    {"host", "did you mean `commonHost`?"},
    {"loadBalancerStrategy", "did you mean `strategy`?"},
    {"id", out_of_cluster},
    {"cmd", out_of_cluster},
    {"env", out_of_cluster},
    {"ready", out_of_cluster},
    {"restart", out_of_cluster},
}};

// The words of "strategy".
constexpr std::array<std::string_view, 6> strategy_words{
    "round-robin",       "source-ip-hash", "ip-hash",
    "least-connections", "random",         "least-time"};
constexpr std::array<balance_strategy, 6> strategies{
    balance_strategy::round_robin,    balance_strategy::source_ip_hash,
    balance_strategy::source_ip_hash, balance_strategy::least_connections,
    balance_strategy::random,         balance_strategy::least_time};

constexpr std::array<std::string_view, 2> proxy_versions{"v1", "v2"};

class cluster_walk : rule_judge {
public:
  explicit cluster_walk(std::vector<broken_rule>& into) : rule_judge(into) {}

  void run(const cluster_spec& x, const std::string& path);

private:
  void inherit_rules(const cluster_spec& x, const std::string& path);
  void health_rules(const cluster_spec& x, const std::string& path);
};

}  // namespace

// -- keys ---------------------------------------------------------------------

cluster_spec cluster_reader::read(const spot& x) {
  cluster_spec result;
  auto parts = in.object(
      x, {"a cluster", cluster_keys, cluster_strays, cluster_keys.size()},
      "write {\"instances\": 2}");
  if (!parts)
    return result;
  counts(*parts, result);
  ports(x, *parts, result);
  in.durations(*parts, cluster_durations, result);
  if (auto word = parts->find("mode"))
    mode(*word, result);
  if (auto word = parts->find("strategy"))
    result.strategy = strategy(*word).value_or(result.strategy);
  if (auto check = parts->find("healthCheck"))
    result.health = health(*check);
  if (auto version = parts->find("proxyProtocol"))
    if (auto index = in.choice(*version, proxy_versions,
                               "a version of the PROXY protocol"))
      result.header = *index == 0 ? proxy_header::v1 : proxy_header::v2;
  return result;
}

void cluster_reader::counts(const fields& parts, cluster_spec& into) {
  if (auto x = parts.find("instances")) {
    if (x->value.kind() == json_kind::string && x->value.string() == "max")
      into.instances =
          std::clamp(machine.processors, std::uint32_t{1}, bounds::instances);
    else if (auto count = in.whole(*x, 0, bounds::instances,
                                   "a number of instances", " or \"max\""))
      into.instances = static_cast<std::uint32_t>(*count);
  }
  if (auto x = parts.find("maxConnections"))
    if (auto count =
            in.whole(*x, 0, bounds::connections, "a number of connections"))
      into.max_connections = static_cast<std::uint32_t>(*count);
  const auto bound = [&](std::string_view key,
                         std::optional<std::uint32_t>& value) {
    if (auto x = parts.find(key))
      if (auto count =
              in.whole(*x, 0, bounds::instances, "a number of instances"))
        value = static_cast<std::uint32_t>(*count);
  };
  bound("maxSurge", into.max_surge);
  bound("maxUnavailable", into.max_unavailable);
}

void cluster_reader::ports(const spot& x, const fields& parts,
                           cluster_spec& into) {
  auto port = [this, &parts](std::string_view key) {
    auto value = parts.find(key);
    auto number = value ? in.whole(*value, 1, 65535, "a port") : std::nullopt;
    return static_cast<std::uint16_t>(number.value_or(0));
  };
  into.common_port = port("commonPort");
  into.start_port = port("startPort");
  if (auto other = parts.find("processStartPort")) {
    auto number = port("processStartPort");
    if (!parts.find("startPort")) {
      into.start_port = number;
      in.alias(x.path + ".startPort", *other);
    } else if (number != 0 && into.start_port != 0
               && number != into.start_port) {
      in.blame(*other,
               std::to_string(number) + " contradicts startPort "
                   + std::to_string(into.start_port),
               "keep one of them");
    }
  }
  if (auto host = parts.find("commonHost")) {
    into.common_host = in.text(*host).value_or("");
    if (in.is_sound(host->path) && into.common_host.empty())
      in.blame(*host, "is empty", "remove it to listen on all addresses");
  }
}

// What the kernel does by itself is the default of mode inherit.
void cluster_reader::mode(const spot& x, cluster_spec& into) {
  static constexpr std::array<std::string_view, 2> modes{"proxy", "inherit"};
  if (in.choice(x, modes, "a mode") != std::size_t{1})
    return;
  into.mode = cluster_mode::inherit;
  into.strategy = balance_strategy::random;
}

health_check cluster_reader::health(const spot& x) {
  static constexpr std::array<std::string_view, 6> keys{
      "type",      "path",           "intervalMs",
      "timeoutMs", "unhealthyAfter", "healthyAfter"};
  // In the order of probe_type.
  static constexpr std::array<std::string_view, 2> types{"tcp", "http"};
  health_check result;
  auto parts = in.object(x, {"a health check", keys, {}},
                         "write an object such as {\"type\": \"tcp\"}");
  if (!parts)
    return result;
  std::optional<std::size_t> word;
  if (auto type = in.required(x, *parts, "type", "add \"tcp\" or \"http\""))
    word = in.choice(*type, types, "a type of health check");
  if (word)
    result.type = static_cast<probe_type>(*word);
  if (auto path = parts->find("path")) {
    result.path = in.text(*path).value_or(result.path);
    if (word && result.type == probe_type::tcp)
      in.blame_key(*path, "has no effect with type \"tcp\"", "remove it");
  }
  in.durations(*parts, health_durations, result);
  auto count = [&](std::string_view key, std::uint32_t& into) {
    if (auto number = parts->find(key))
      into = static_cast<std::uint32_t>(
          in.whole(*number, 1, bounds::checks, "a number of checks")
              .value_or(into));
  };
  count("unhealthyAfter", result.unhealthy_after);
  count("healthyAfter", result.healthy_after);
  return result;
}

std::optional<balance_strategy> cluster_reader::strategy(const spot& x) {
  auto word = in.choice(x, strategy_words, "a strategy");
  return word ? std::optional{strategies[*word]} : std::nullopt;
}

void cluster_reader::old_strategy(const spot& x, const fields& parts,
                                  process_spec& into) {
  auto wanted = strategy(x);
  auto entry = parts.find("cluster");
  if (!entry) {
    in.blame_key(x, "has no effect without a cluster",
                 "add `cluster` or remove it");
    return;
  }
  if (!wanted || !into.cluster || entry->value.kind() != json_kind::object)
    return;
  auto path = entry->path + ".strategy";
  bool given = false;
  for (auto& member : entry->value.members())
    given = given || member.key.string() == "strategy";
  if (!given)
    into.cluster->strategy = *wanted;
  else if (in.is_sound(path) && into.cluster->strategy != *wanted)
    in.blame(x,
             describe(x.value) + " contradicts cluster.strategy "
                 + quote(to_string(into.cluster->strategy), '"'),
             "keep one of them");
}

// -- rules --------------------------------------------------------------------

namespace {

void cluster_walk::run(const cluster_spec& x, const std::string& path) {
  auto instances = path + ".instances";
  auto start_port = path + ".startPort";
  duration_rules(x, cluster_durations, path, result_);
  if (x.instances > bounds::instances)
    blame(instances,
          std::to_string(x.instances) + " is not a number of instances",
          "use 0 to " + std::to_string(bounds::instances));
  else if (x.start_port != 0 && x.start_port + x.instances > last_port + 1)
    blame(start_port,
          std::to_string(x.instances) + " instances from port "
              + std::to_string(x.start_port) + " reach port "
              + std::to_string(x.start_port + x.instances - 1)
              + ", above 65535",
          "use " + std::to_string(last_port + 1 - x.instances) + " or lower",
          {instances});
  if (x.max_connections > bounds::connections)
    blame(path + ".maxConnections",
          std::to_string(x.max_connections) + " is not a number of connections",
          "use 0 to " + std::to_string(bounds::connections));
  for (auto& [key, value] : {std::pair{"maxSurge", x.max_surge},
                             {"maxUnavailable", x.max_unavailable}})
    if (value.value_or(0) > bounds::instances)
      blame(path + '.' + key,
            std::to_string(*value) + " is not a number of instances",
            "use 0 to " + std::to_string(bounds::instances));
  if (x.max_surge == 0u && x.max_unavailable == 0u)
    blame(path + ".maxUnavailable",
          "0 together with maxSurge 0 lets nothing be replaced",
          "use 1 or more for one of them", {path + ".maxSurge"});
  if (!x.common_host.empty() && !parse_address(x.common_host))
    blame(path + ".commonHost",
          quote(x.common_host) + " is not a numeric IPv4 or IPv6 address",
          x.common_host == "localhost"
              ? "use `127.0.0.1` or `::1`"
              : "use one such as `127.0.0.1`, or remove it for all addresses");
  if (x.mode == cluster_mode::inherit)
    inherit_rules(x, path);
  else if (x.common_port != 0 && x.start_port == 0)
    blame(path + ".commonPort", "a balancer needs instances with ports",
          "add startPort", {start_port});
  if (x.health)
    health_rules(x, path);
}

// What only the one who carries the bytes can do.
void cluster_walk::inherit_rules(const cluster_spec& x,
                                 const std::string& path) {
  auto mode = path + ".mode";
  if (x.common_port == 0)
    blame(mode, "`inherit` needs a port to inherit", "add commonPort",
          {path + ".commonPort"});
  if (x.strategy != balance_strategy::random
      && x.strategy != balance_strategy::source_ip_hash)
    blame(path + ".strategy",
          "the kernel cannot do " + quote(to_string(x.strategy))
              + " for sockets that instances inherit",
          "use \"random\" or \"source-ip-hash\", or mode \"proxy\"", {mode});
  auto without_effect = [&](const char* key) {
    blame(path + '.' + key, "has no effect in mode `inherit`",
          "remove it, or use mode \"proxy\"", {mode});
  };
  if (x.max_connections != 0)
    without_effect("maxConnections");
  if (x.idle_timeout.count() != 0)
    without_effect("idleTimeoutMs");
  if (x.header != proxy_header::none)
    without_effect("proxyProtocol");
}

void cluster_walk::health_rules(const cluster_spec& x,
                                const std::string& path) {
  auto here = path + ".healthCheck";
  auto& check = *x.health;
  duration_rules(check, health_durations, here, result_);
  auto count_rule = [&](std::uint32_t count, const char* key) {
    if (count < 1 || count > bounds::checks)
      blame(here + '.' + key,
            std::to_string(count) + " is not a number of checks",
            "use 1 to " + std::to_string(bounds::checks));
  };
  count_rule(check.unhealthy_after, "unhealthyAfter");
  count_rule(check.healthy_after, "healthyAfter");
  if (!is_request_path(check.path))
    blame(here + ".path", quote(check.path) + " is not the path of a request",
          "use one such as \"/health\", without blanks");
  if (x.start_port == 0)
    blame(here, "needs instances with ports of their own", "add startPort",
          {path + ".startPort"});
}

}  // namespace

void cluster_rules(const cluster_spec& x, const std::string& path,
                   std::vector<broken_rule>& into) {
  cluster_walk{into}.run(x, path);
}

}  // namespace pup
