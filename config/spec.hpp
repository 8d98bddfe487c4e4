// What is wanted: the values that a configuration file describes.
//
// Plain values with equality; no CAF, no clock, no environment. Every default
// stands here once, with its unit and its reason. load.hpp makes these values
// from JSON text and only ever returns valid ones; a program that embeds pup
// may also fill them by hand and call check() of load.hpp.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pup {

/// When an ended process is started again. The words are the configuration's;
/// Erlang's are permanent, transient and temporary.
enum class restart_policy : std::uint8_t {
  always,    ///< "always": whatever the exit status
  on_error,  ///< "error": unless it ended with one of success_exit_codes
  never,     ///< "never"
};

/// How the balancer chooses an instance for a new connection.
enum class balance_strategy : std::uint8_t {
  round_robin,        ///< in order, exactly even
  source_ip_hash,     ///< the same client address, the same instance
  least_connections,  ///< the instance with the fewest open connections
  random,             ///< the better of two random ones (by open connections)
};

/// What must happen before a started process counts as ready.
enum class ready_condition : std::uint8_t {
  spawn,  ///< its exec succeeded
  port,   ///< its port accepts a connection
};

/// Bounds of the configuration, named in diagnostics and reached by tests.
namespace bounds {
/// Longest id and name, in characters (CONTRACT section 1).
inline constexpr std::size_t id_length = 64;
/// Most instances of one cluster (CONTRACT section 1).
inline constexpr std::uint32_t instances = 1024;
/// Most processes in one file; keeps one status answer under 16 MiB.
inline constexpr std::size_t processes = 4096;
/// Largest configuration file, in bytes; far above 4096 real processes.
inline constexpr std::size_t config_bytes = 16u << 20;
/// Deepest nesting of arrays and objects; the contract's keys need 5.
inline constexpr std::size_t nesting = 32;
/// Longest duration accepted, one year in milliseconds: sums of two stay far
/// from the limits of the clocks.
inline constexpr std::int64_t duration_ms = 365LL * 24 * 3600 * 1000;
}  // namespace bounds

/// N instances of one process, with a balancer in front when commonPort is set.
struct cluster_spec {
  /// Wanted number of instances, 0 to bounds::instances.
  std::uint32_t instances = 1;
  /// Instance n (from 1) gets start_port + n - 1. 0: instances get no port.
  std::uint16_t start_port = 0;
  /// The balancer listens here. 0: no balancer.
  std::uint16_t common_port = 0;
  /// Numeric address the balancer listens on. Empty: all, IPv6 and IPv4.
  std::string common_host;
  balance_strategy strategy = balance_strategy::round_robin;
  /// How long a leaving instance may finish its connections. 30 s as nginx's
  /// and Kubernetes' usual grace.
  std::chrono::milliseconds drain_timeout{30'000};
  /// Most connections open at once through the balancer; further ones wait in
  /// the listen queue. 0: bounded by descriptors only.
  std::uint32_t max_connections = 0;
  /// A connection without a byte in either direction for this long is closed.
  /// 0: never, as a TCP balancer cannot know the protocol's pauses.
  std::chrono::milliseconds idle_timeout{0};
  /// How long one connect to an instance may take, and how long a client waits
  /// for the first ready instance. 5 s: haproxy's usual value.
  std::chrono::milliseconds connect_timeout{5'000};

  bool operator==(const cluster_spec&) const = default;
};

/// One entry of "processes".
struct process_spec {
  std::string id;
  /// Program and arguments; never empty in a valid spec. A string "cmd" has
  /// become {"/bin/sh", "-c", cmd}. May hold %{port}, %{index} and %{id}, which
  /// are replaced per instance, and %%{ for a literal %{; %{env:NAME} is
  /// already replaced.
  std::vector<std::string> argv;
  /// True when "cmd" was a string: then argv[2] is never expanded.
  bool shell = false;
  /// Absolute working folder. Empty: the supervisor's own.
  std::string cwd;
  /// Added to the supervisor's environment; values may hold %{...} as argv.
  std::map<std::string, std::string> env;
  /// Appended to PATH, colon separated, absolute. Empty: nothing.
  std::string path;
  /// Start it together with the supervisor.
  bool autostart = true;

  restart_policy restart = restart_policy::always;
  /// Delay before the first restart. 0: at once.
  std::chrono::milliseconds restart_delay{0};
  /// Upper end of the doubling delay between restarts of a process that does
  /// not come up (CONTRACT section 1).
  std::chrono::milliseconds restart_max_delay{10'000};
  /// More restarts than this within restart_period: exhausted. Empty: no limit.
  std::optional<std::uint32_t> restart_limit;
  std::chrono::milliseconds restart_period{60'000};
  /// Exit codes that count as success for restart_policy::on_error.
  std::vector<int> success_exit_codes{0};
  /// Exit codes after which it is never started again by itself.
  std::vector<int> no_restart_exit_codes;

  /// Pause before the stop signal.
  std::chrono::milliseconds terminate_grace_period{0};
  /// From the stop signal to SIGKILL. 30 s (CONTRACT section 1).
  std::chrono::milliseconds terminate_timeout{30'000};
  /// Signal number that asks it to stop. 15 is SIGTERM on Linux.
  int stop_signal = 15;

  ready_condition ready = ready_condition::spawn;
  /// Not ready within this time counts as a failure.
  std::chrono::milliseconds ready_timeout{30'000};

  /// Present for a cluster; absent for a single process.
  std::optional<cluster_spec> cluster;

  bool operator==(const process_spec&) const = default;
};

/// A whole configuration file.
struct pup_spec {
  /// Names the running supervisor and its folders.
  std::string name = "pup";
  /// In the order of the file, which is the order of starting.
  std::vector<process_spec> processes;

  bool operator==(const pup_spec&) const = default;
};

/// The spelling of the configuration file and of `pup status --json`.
constexpr std::string_view to_string(balance_strategy x) noexcept {
  switch (x) {
    case balance_strategy::round_robin:
      return "round-robin";
    case balance_strategy::source_ip_hash:
      return "source-ip-hash";
    case balance_strategy::least_connections:
      return "least-connections";
    case balance_strategy::random:
      return "random";
  }
  return "?";
}

/// Id of instance `slot` (from 1) of a cluster: "my-scalable-app-1".
inline std::string instance_id(const std::string& cluster, std::uint32_t slot) {
  return cluster + '-' + std::to_string(slot);
}

}  // namespace pup
