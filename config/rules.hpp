// What a valid pup_spec is: every rule about values, once.
//
// load() decodes JSON into a spec and reports what does not fit into one; what
// does fit is judged here, for files and for specs filled by hand alike. Pure.
#pragma once

#include "pup/config/spec.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pup {

namespace bounds {
/// Highest restartLimit: far above any use, and a sum of a few stays 32 bit.
inline constexpr std::uint32_t restarts = 1'000'000;
/// Highest maxConnections: above Linux's usual fs.nr_open of 1,048,576
/// descriptors nothing could be reached anyway.
inline constexpr std::uint32_t connections = 1'000'000;
}  // namespace bounds

/// A rule that a spec breaks.
struct broken_rule {
  std::string path;  ///< `processes[2].cluster.startPort`
  std::string problem;
  std::string remedy;
  /// Other paths the rule draws on: where one of these could not be read, this
  /// rule says nothing.
  std::vector<std::string> basis;
};

/// Every rule that `spec` breaks, in no particular order. Empty: it is valid.
std::vector<broken_rule> broken_rules(const pup_spec& spec);

/// A key that holds a duration, with its unit and its least value.
template <class Spec>
struct duration_key {
  std::string_view key;
  std::chrono::milliseconds Spec::*member;
  bool seconds;        ///< written in seconds, which may be fractional
  std::int64_t least;  ///< in milliseconds
};

// A least value of 1 where 0 would fail at once or restart without a pause.
inline constexpr std::array<duration_key<process_spec>, 6> process_durations{{
    {"restartDelayMs", &process_spec::restart_delay, false, 0},
    {"restartMaxDelayMs", &process_spec::restart_max_delay, false, 1},
    {"restartPeriodMs", &process_spec::restart_period, false, 1},
    {"readyTimeoutMs", &process_spec::ready_timeout, false, 1},
    {"terminateGracePeriod", &process_spec::terminate_grace_period, true, 0},
    {"terminateTimeout", &process_spec::terminate_timeout, true, 0},
}};

inline constexpr std::array<duration_key<cluster_spec>, 3> cluster_durations{{
    {"drainTimeoutMs", &cluster_spec::drain_timeout, false, 0},
    {"idleTimeoutMs", &cluster_spec::idle_timeout, false, 0},
    {"connectTimeoutMs", &cluster_spec::connect_timeout, false, 1},
}};

/// "use 0 to 31536000000", in the unit of the key.
std::string duration_remedy(bool seconds, std::int64_t least_ms);

/// Signals that ask a process to stop, with their numbers on Linux. SIGKILL
/// and SIGSTOP are not among them: no process can act on those.
struct stop_signal_name {
  std::string_view name;  ///< with SIG
  int number;
};
inline constexpr std::array<stop_signal_name, 10> stop_signals{{
    {"SIGTERM", 15},
    {"SIGINT", 2},
    {"SIGQUIT", 3},
    {"SIGHUP", 1},
    {"SIGUSR1", 10},
    {"SIGUSR2", 12},
    {"SIGABRT", 6},
    {"SIGALRM", 14},
    {"SIGWINCH", 28},
    {"SIGPWR", 30},
}};

}  // namespace pup
