// What a valid pup_spec is: every rule about values, once.
//
// load() decodes JSON into a spec and reports what does not fit into one; what
// does fit is judged here, for files and for specs filled by hand alike. Pure.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/config/words.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pup {

namespace bounds {
/// Highest restartLimit and startLimit: far above any use, and a sum of a few
/// stays 32 bit.
inline constexpr std::uint32_t restarts = 1'000'000;
/// Highest maxConnections: above Linux's usual fs.nr_open of 1,048,576
/// descriptors nothing could be reached anyway.
inline constexpr std::uint32_t connections = 1'000'000;
/// Highest unhealthyAfter and healthyAfter; 1,000 checks are a quarter of an
/// hour at the usual interval.
inline constexpr std::uint32_t checks = 1'000;
/// Most patterns or endings in one list of a watcher: each process that has no
/// watcher of its own takes over those of the top level.
inline constexpr std::size_t patterns = 1024;
/// Most supplementary groups: NGROUPS_MAX of the kernel, setgroups(2).
inline constexpr std::size_t supplementary_groups = 65'536;
/// Largest sum of the texts that hold %{env:NAME}, with the values in place, in
/// bytes: twice the largest file. Else a few letters of it, each a value of 128
/// KiB, would fill the memory.
inline constexpr std::size_t expanded_bytes = 32u << 20;
/// Most files of variables of one process.
inline constexpr std::size_t env_files = 256;
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

/// Most broken rules that are taken down: far above most_diagnostics, as some
/// are held back in favour of others.
inline constexpr std::size_t most_broken_rules = 10'000;

/// Adds it, up to the bound.
inline void take_down(std::vector<broken_rule>& into, broken_rule x) {
  if (into.size() < most_broken_rules)
    into.push_back(std::move(x));
}

/// Takes down the rules that a walk over a spec, or part of one, finds broken.
class rule_judge {
protected:
  explicit rule_judge(std::vector<broken_rule>& into) : result_(into) {}

  void blame(std::string path, std::string problem, std::string remedy,
             std::vector<std::string> basis = {}) {
    take_down(result_, {std::move(path), std::move(problem), std::move(remedy),
                        std::move(basis)});
  }

  std::vector<broken_rule>& result_;
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
inline constexpr std::array<duration_key<process_spec>, 9> process_durations{{
    {"restartDelayMs", &process_spec::restart_delay, false, 0},
    {"restartMaxDelayMs", &process_spec::restart_max_delay, false, 1},
    {"restartPeriodMs", &process_spec::restart_period, false, 1},
    {"readyTimeoutMs", &process_spec::ready_timeout, false, 1},
    {"watchdogMs", &process_spec::watchdog, false, 0},
    {"maxAgeMs", &process_spec::max_age, false, 0},
    {"timeout", &process_spec::run_timeout, true, 0},
    {"terminateGracePeriod", &process_spec::terminate_grace_period, true, 0},
    {"terminateTimeout", &process_spec::terminate_timeout, true, 0},
}};

inline constexpr std::array<duration_key<cluster_spec>, 3> cluster_durations{{
    {"drainTimeoutMs", &cluster_spec::drain_timeout, false, 0},
    {"idleTimeoutMs", &cluster_spec::idle_timeout, false, 0},
    {"connectTimeoutMs", &cluster_spec::connect_timeout, false, 1},
}};

inline constexpr std::array<duration_key<health_check>, 2> health_durations{{
    {"intervalMs", &health_check::interval, false, 1},
    {"timeoutMs", &health_check::timeout, false, 1},
}};

/// "use 0 to 31536000000", in the unit of the key.
std::string duration_remedy(bool seconds, std::int64_t least_ms);

/// The durations of `x`, which stands at `path`, are within their bounds.
template <class Spec, class Table>
void duration_rules(const Spec& x, const Table& table, const std::string& path,
                    std::vector<broken_rule>& into) {
  for (auto& key : table) {
    auto ms = (x.*key.member).count();
    if (ms < key.least || ms > bounds::duration_ms)
      into.push_back({member_path(path, key.key),
                      std::to_string(ms) + " ms is out of range",
                      duration_remedy(key.seconds, key.least),
                      {}});
  }
}

/// Of a GET request: no blanks, nothing that would begin another line.
bool is_request_path(std::string_view text);

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
