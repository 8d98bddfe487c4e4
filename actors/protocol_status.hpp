// What is told to people: states and status, outcomes, histories. Crosses the
// IPC boundary as part of the answers of control.
#pragma once

#include "pup/actors/caf.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pup {

/// States of a process or an instance, and of a cluster (CONTRACT section 3).
/// Instances: stopped … blocked. Clusters: running, degraded, stopped,
/// exhausted.
enum class run_state : std::uint8_t {
  stopped,
  waiting,
  starting,
  ready,
  backoff,
  draining,
  stopping,
  finished,
  failed,
  exhausted,
  blocked,
  running,
  degraded,
};

std::string to_string(run_state x);

/// One instance in an answer to get_status.
struct instance_status {
  std::string id;
  std::uint32_t slot = 0;  ///< from 1; 0 for a process that is no cluster
  run_state state = run_state::stopped;
  std::int32_t pid = 0;    ///< 0: no process
  std::uint16_t port = 0;  ///< 0: none
  std::uint32_t restarts = 0;
  std::int64_t uptime_ms = 0;
  std::optional<std::int32_t> exit_code;  ///< of the last ended life
  std::optional<std::int32_t> signal;     ///< that ended the last life
  std::uint64_t connections_active = 0;
  /// Empty: in mode inherit nobody counts them.
  std::optional<std::uint64_t> connections_total = 0;
  double cpu_percent = 0;  ///< of one processor, since the last status or start
  std::uint64_t rss_bytes = 0;
  /// Output that the disk did not take, since the supervisor started.
  std::uint64_t log_lost_lines = 0;
  std::uint64_t log_lost_bytes = 0;
  std::string reason;  ///< why it is not ready, in words; empty: it is
};

/// The balancer of a cluster in an answer to get_status. What is empty is not
/// known in mode inherit.
struct balancer_status {
  std::uint16_t port = 0;
  std::string strategy;
  std::string mode;
  std::uint64_t connections_active = 0;
  std::optional<std::uint64_t> connections_total = 0;
  std::optional<std::uint64_t> bytes_in = 0;   ///< from clients
  std::optional<std::uint64_t> bytes_out = 0;  ///< to clients
  /// Accepted, but no instance could serve.
  std::optional<std::uint64_t> rejected = 0;
};

/// A top-level entry of the configuration in an answer to get_status.
struct unit_status {
  std::string id;
  bool is_cluster = false;
  run_state state = run_state::stopped;
  std::uint32_t desired = 0;  ///< wanted instances
  std::uint32_t ready = 0;    ///< instances that may serve
  std::string reason;         ///< why it is not running; empty: it is
  std::string group;          ///< empty: in none
  std::optional<balancer_status> balancer;
  std::vector<instance_status> instances;  ///< one for a single process
};

/// Answer to get_status.
struct supervisor_status {
  std::string name;
  std::int32_t pid = 0;
  std::string version;
  std::string config;  ///< absolute path; empty: embedded, no file
  std::int64_t uptime_ms = 0;
  std::uint64_t rss_bytes = 0;
  /// What is wrong with the supervisor itself, in words, and what that means.
  std::vector<std::string> warnings;
  std::vector<unit_status> units;
};

/// What happened to one instance (or unit, when none of its instances is
/// concerned).
struct outcome {
  std::string id;
  bool ok = true;
  std::string
      text;  ///< "ready", "stopped", or what went wrong and what is next
};

/// What an entry of a history tells.
enum class event_kind : std::uint8_t {
  asked,    ///< somebody or something wants it to start, stop, …: who and why
  started,  ///< it has a process
  ready,
  said,     ///< health, its own words
  ended,    ///< how
  decided,  ///< which rule has acted, and what it does
};

std::string to_string(event_kind x);

struct history_entry {
  std::int64_t time_ms = 0;  ///< since 1970, by the clock on the wall
  event_kind what = event_kind::asked;
  std::string text;
};

/// One instance in an answer to get_history.
struct instance_history {
  std::string id;
  run_state state = run_state::stopped;
  std::string reason;                  ///< as in its status
  std::vector<history_entry> entries;  ///< oldest first
  std::string next;                    ///< what comes next, in words
  std::int64_t next_ms = 0;  ///< when, since 1970; 0: not by the clock
};

// -- inspection ---------------------------------------------------------------

template <class Inspector>
auto inspect(Inspector& f, instance_status& x) {
  return f(caf::meta::type_name("instance_status"), x.id, x.slot, x.state,
           x.pid, x.port, x.restarts, x.uptime_ms, x.exit_code, x.signal,
           x.connections_active, x.connections_total, x.cpu_percent,
           x.rss_bytes, x.log_lost_lines, x.log_lost_bytes, x.reason);
}

template <class Inspector>
auto inspect(Inspector& f, balancer_status& x) {
  return f(caf::meta::type_name("balancer_status"), x.port, x.strategy, x.mode,
           x.connections_active, x.connections_total, x.bytes_in, x.bytes_out,
           x.rejected);
}

template <class Inspector>
auto inspect(Inspector& f, unit_status& x) {
  return f(caf::meta::type_name("unit_status"), x.id, x.is_cluster, x.state,
           x.desired, x.ready, x.reason, x.group, x.balancer, x.instances);
}

template <class Inspector>
auto inspect(Inspector& f, supervisor_status& x) {
  return f(caf::meta::type_name("supervisor_status"), x.name, x.pid, x.version,
           x.config, x.uptime_ms, x.rss_bytes, x.warnings, x.units);
}

template <class Inspector>
auto inspect(Inspector& f, outcome& x) {
  return f(caf::meta::type_name("outcome"), x.id, x.ok, x.text);
}

template <class Inspector>
auto inspect(Inspector& f, history_entry& x) {
  return f(caf::meta::type_name("history_entry"), x.time_ms, x.what, x.text);
}

template <class Inspector>
auto inspect(Inspector& f, instance_history& x) {
  return f(caf::meta::type_name("instance_history"), x.id, x.state, x.reason,
           x.entries, x.next, x.next_ms);
}

}  // namespace pup
