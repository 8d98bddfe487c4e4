// What is wanted: the values that a configuration file describes.
//
// Plain values with equality; no CAF, no clock, no environment. Every default
// stands here once, with its unit and its reason. load.hpp makes these values
// from JSON text and only ever returns valid ones; a program that embeds pup
// may also fill them by hand and call check() of load.hpp.
#pragma once

#include "pup/config/strategy.hpp"

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
  least_time,         ///< lowest recent time to the first byte times load
};

/// Whether an instance is told whose connection it gets: a header of the PROXY
/// protocol before the first byte.
enum class proxy_header : std::uint8_t {
  none,
  v1,  ///< "v1": a line of text
  v2,  ///< "v2": binary
};

/// What must happen before a started process counts as ready.
enum class ready_condition : std::uint8_t {
  spawn,   ///< its exec succeeded
  port,    ///< its port accepts a connection
  http,    ///< a GET there is answered with a status from 200 to 299
  notify,  ///< it says READY=1 to NOTIFY_SOCKET, as sd_notify(3) does
  fd,      ///< it writes a newline to the descriptor READY_FD
  exec,    ///< a command of its own succeeds
  log,     ///< a line of its output matches a pattern
};

/// A command that is run beside a process.
struct command_spec {
  /// As process_spec::argv; empty: there is none.
  std::vector<std::string> argv;
  bool shell = false;
  /// From its start to SIGKILL. As long as a process may take to become ready.
  std::chrono::milliseconds timeout{30'000};

  bool operator==(const command_spec&) const = default;
};

/// Commands around the life of a process. Each runs in the folder and with the
/// variables of the process, and PUP_HOOK with its own name.
struct hook_set {
  command_spec pre_start;   ///< fails: the process is not started
  command_spec post_start;  ///< once it is ready; fails: it is stopped
  command_spec pre_stop;    ///< before the stop signal; may fail
  command_spec post_stop;   ///< after its end, which PUP_EXIT_CODE or
                            ///< PUP_EXIT_SIGNAL tell; may fail

  bool operator==(const hook_set&) const = default;
};

/// Who a process is.
struct identity {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  /// All supplementary groups.
  std::vector<std::uint32_t> groups{};
  /// The user as the configuration names it, for messages.
  std::string name{};

  bool operator==(const identity&) const = default;
};

/// One limit of setrlimit(2), in the unit that it has there.
struct resource_limit {
  static constexpr std::uint64_t unlimited = ~std::uint64_t{0};
  int resource = 0;  ///< as in resource_names (resources.hpp)
  std::uint64_t soft = unlimited;
  std::uint64_t hard = unlimited;

  bool operator==(const resource_limit&) const = default;
};

/// How the kernel serves reads and writes of a process (ioprio_set(2), whose
/// numbers these are).
enum class io_class : std::uint8_t {
  realtime = 1,
  best_effort = 2,
  idle = 3,
};

struct io_priority {
  io_class kind = io_class::best_effort;
  /// 0, the first served, to 7; idle has none. 4 is the kernel's default.
  std::uint8_t level = 4;

  bool operator==(const io_priority&) const = default;
};

/// Limits of a cgroup v2 for one instance and all it starts. 0: none.
struct cgroup_limits {
  std::uint64_t memory_bytes = 0;
  std::uint32_t cpu_percent = 0;  ///< of one processor
  std::uint32_t processes = 0;    ///< threads count, too

  [[nodiscard]] bool any() const noexcept {
    return memory_bytes != 0 || cpu_percent != 0 || processes != 0;
  }
  bool operator==(const cgroup_limits&) const = default;
};

/// What is set on a process before its program runs. What is empty stays as
/// pup has it itself.
struct process_attributes {
  std::optional<identity> run_as{};
  std::vector<resource_limit> limits{};   ///< each resource once
  std::optional<int> nice{};              ///< -20 to 19
  std::optional<int> oom_score_adjust{};  ///< -1000 to 1000
  std::optional<io_priority> io{};
  std::optional<std::uint32_t> umask{};  ///< 0 to 0777
  /// Neither it nor what it starts gains privileges by exec.
  bool no_new_privileges = false;
  cgroup_limits cgroup{};

  bool operator==(const process_attributes&) const = default;
};

/// Names of variables. One that ends with * stands for all that begin so. No
/// value: all there are.
using inherited_names = std::optional<std::vector<std::string>>;

/// How the connections of a cluster reach its instances.
enum class cluster_mode : std::uint8_t {
  proxy,    ///< pup accepts on the common port and carries the bytes
  inherit,  ///< instances inherit sockets for it, the kernel spreads
};

/// How a running instance is asked whether it still serves.
enum class probe_type : std::uint8_t {
  tcp,   ///< its port accepts
  http,  ///< a GET of a path is answered with a status from 200 to 299
};

/// Regular checks of ready instances, each on the instance's own port. The
/// defaults are the contract's (section 1); rivals have 1 to 10 s.
struct health_check {
  probe_type type = probe_type::tcp;
  /// For http; begins with a slash.
  std::string path = "/";
  /// From the end of one check to the start of the next; 1 ms at least.
  std::chrono::milliseconds interval{1'000};
  /// For one check; 1 ms at least.
  std::chrono::milliseconds timeout{1'000};
  /// So many failed checks in a row, and the instance is restarted. From the
  /// first one on it gets no new connections as long as another can serve.
  std::uint32_t unhealthy_after = 3;
  /// So many good ones in a row after a failed one, and it gets them again.
  std::uint32_t healthy_after = 2;

  bool operator==(const health_check&) const = default;
};

/// What a process waits for before it is started.
struct dependency {
  enum class condition : std::uint8_t {
    started,   ///< it runs
    ready,     ///< it may serve; of a cluster: all instances that are wanted
    finished,  ///< it ended with one of success_exit_codes
  };
  std::string id;
  condition wanted = condition::ready;

  bool operator==(const dependency&) const = default;
};

/// Processes under one supervision, as Erlang's supervisors have them.
struct group_spec {
  enum class shutdown : std::uint8_t {
    never,  ///< it goes on
    any,    ///< it ends with the first significant member
    all,    ///< it ends with the last significant member
  };
  strategy how = strategy::one_for_one;
  /// More restarts of members than this within restart_period, and the group
  /// gives up. Empty: no limit.
  std::optional<std::uint32_t> restart_limit;
  std::chrono::milliseconds restart_period{60'000};
  shutdown auto_shutdown = shutdown::never;

  bool operator==(const group_spec&) const = default;
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
/// Longest time that lines are kept: ten years.
inline constexpr std::int64_t log_hours = 10LL * 365 * 24;
/// Least size of the store and of a file: eight segments of 128 KiB, each of
/// which takes the longest record (64 KiB).
inline constexpr std::int64_t least_log_bytes = std::int64_t{1} << 20;
/// Largest of both, 1 PiB.
inline constexpr std::int64_t most_log_bytes = std::int64_t{1} << 50;
/// Most renamed files kept.
inline constexpr std::int64_t log_files = 10'000;
/// Least maxMemory and memoryMax: no program runs in less than 1 MiB.
inline constexpr std::uint64_t least_memory_bytes = std::uint64_t{1} << 20;
/// Largest file of variables, in bytes: above what the kernel passes to a
/// program (a quarter of the stack, 2 MiB) none of it could be used.
inline constexpr std::size_t env_file_bytes = 2u << 20;
}  // namespace bounds

/// Where the output of a process goes besides the log store.
struct output_spec {
  /// Onto the output of a supervisor in the foreground.
  bool console = false;
  /// Absolute path of a file that standard output is appended to; may hold
  /// %{...} as argv. Empty: none.
  std::string stdout_file;
  /// The same for standard error. Empty: stdout_file takes both.
  std::string stderr_file;
  /// Time, id and stream in front of each line of the files.
  bool decorate_files = false;
  /// Each line of files and console is a JSON object ("format": "json").
  bool json = false;

  bool operator==(const output_spec&) const = default;
};

/// What holds for the logs of the whole supervisor.
struct logger_spec {
  /// Of what no process says otherwise, and of pup's own words.
  output_spec output;
  /// Time, id and stream in front of each line on the console.
  bool decorate = false;
  /// Colours on the console.
  bool colors = false;
  /// How long the store keeps lines. 48 h as Hexagon Pup; 0: there is no store.
  std::chrono::hours internal_log{48};
  /// Most bytes of the store on the disk. 512 MiB: two days of 3 KB/s, or some
  /// 5 GB of text once it is compressed.
  std::uint64_t internal_log_bytes = std::uint64_t{512} << 20;
  /// A file that would grow beyond this is renamed and begun anew. 256 MiB
  /// still opens in an editor. 0: never.
  std::uint64_t file_bytes = std::uint64_t{256} << 20;
  /// Renamed files that are kept of each; with the default size and
  /// compression well below 1 GiB together.
  std::uint32_t files_kept = 4;
  /// Compress what is no longer written.
  bool compress = true;

  bool operator==(const logger_spec&) const = default;
};

/// Which changes of watched files count, and when ("watcher").
struct watcher_spec {
  /// A burst of changes is over when none has come for so long. 100 ms: longer
  /// than an editor takes to save, hardly felt by who waits for the restart.
  std::chrono::milliseconds interval{100};
  /// Endings of names that count, without the dot. Empty: all.
  std::vector<std::string> exts;
  /// Patterns (glob.hpp) of paths below the watched one that count. Empty: all.
  std::vector<std::string> match;
  /// Patterns of those that do not, with all that is below them: what is
  /// hidden, editors' leftovers, and what tools write beside the source.
  std::vector<std::string> skip{".*", "*~", "#*#", "node_modules",
                                "__pycache__"};

  bool operator==(const watcher_spec&) const = default;
};

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
  cluster_mode mode = cluster_mode::proxy;
  /// In mode inherit: random or source_ip_hash, as the kernel can do no other.
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
  proxy_header header = proxy_header::none;
  /// Of a rolling restart: instances that are started beyond `instances`, and
  /// instances that may be missing meanwhile; not both 0. Empty: as
  /// limits_of() of actors/rollout.hpp says.
  std::optional<std::uint32_t> max_surge;
  std::optional<std::uint32_t> max_unavailable;
  /// Needs start_port. Empty: no checks.
  std::optional<health_check> health;

  bool operator==(const cluster_spec&) const = default;
};

/// Tells one wording of a part of a configuration from another; comments,
/// blanks and the order of keys do not count. 0: filled by hand. Where a value
/// comes from is no part of it: marks are always equal.
struct source_mark {
  std::uint64_t value = 0;

  bool operator==(const source_mark&) const {
    return true;
  }
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
  /// Absolute. Empty only in a spec filled by hand: the supervisor's own.
  std::string cwd;
  /// Added to what it inherits; values may hold %{...} as argv. Those of its
  /// environment files are among them. Never shown to anybody.
  std::map<std::string, std::string> env;
  /// What it inherits of the supervisor's environment.
  inherited_names inherit_env;
  /// Appended to PATH, colon separated, absolute. Empty: nothing.
  std::string path;
  /// Of the process and of the commands beside it.
  process_attributes attributes;
  /// Absolute path of a file that holds the process's pid while it runs; may
  /// hold %{...} as argv. Empty: none.
  std::string pid_file;
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
  /// More lives in a row than this that ended before they were ready:
  /// exhausted. Empty: no limit.
  std::optional<std::uint32_t> start_limit;
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
  /// Of ready http; begins with a slash.
  std::string ready_path = "/";
  /// Of ready exec: tried again, with a pause that doubles from 100 ms to 1 s.
  command_spec ready_command;
  /// Of ready log: a regular expression as RE2 understands it.
  std::string ready_pattern;
  /// Not ready within this time counts as a failure.
  std::chrono::milliseconds ready_timeout{30'000};
  /// Once ready, it must say WATCHDOG=1 to NOTIFY_SOCKET more often than this,
  /// or is restarted. 0: it need not.
  std::chrono::milliseconds watchdog{0};
  /// It is stopped when it runs longer. 0: never.
  std::chrono::milliseconds run_timeout{0};
  /// It is replaced when it has been ready for about this long: up to a tenth
  /// earlier, so that instances do not age in step, and one after the other. 0:
  /// never.
  std::chrono::milliseconds max_age{0};
  /// It is restarted when it and all that it started hold more resident memory,
  /// in bytes. 0: never.
  std::uint64_t max_memory = 0;
  hook_set hooks;

  /// Cron expressions (config/cron.hpp); empty: none. It is started by `cron`,
  /// unless it still runs, and stopped by `terminate_cron`: one with restart
  /// always starts again at once.
  std::string cron;
  std::string terminate_cron;
  /// A run that falls due while another still runs begins when that has ended;
  /// one at most waits. False: it is left out.
  bool overrun = false;
  /// In which they are meant, such as "Europe/Berlin". Empty: the machine's.
  std::string time_zone;

  /// What must hold before it is started; its restarts do not wait.
  std::vector<dependency> depends_on;
  /// Name of its group ("supervisor"). Empty: it is in none.
  std::string in_group;
  /// When it ends and is not restarted, auto_shutdown of its group applies.
  bool significant = false;

  /// Absolute paths of files and folders: when something changes there, it is
  /// started, or started again. Empty: none.
  std::vector<std::string> watch;
  /// How they are watched; as the file's own.
  watcher_spec watcher;

  output_spec output;

  /// Present for a cluster; absent for a single process.
  std::optional<cluster_spec> cluster;

  source_mark source;

  bool operator==(const process_spec&) const = default;
};

/// A whole configuration file.
struct pup_spec {
  /// Names the running supervisor and its folders.
  std::string name = "pup";
  /// Name or number of a group whose members may read the status. Empty: none.
  std::string readers;
  logger_spec logger;
  /// What the processes were given.
  watcher_spec watcher;
  /// In the order of the file, which is the order of starting.
  std::vector<process_spec> processes;
  /// By name. A process says which one it is in.
  std::map<std::string, group_spec> groups;
  /// Most instances that are starting at once. 0: any number.
  std::uint32_t start_concurrency = 0;

  source_mark source;

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
    case balance_strategy::least_time:
      return "least-time";
  }
  return "?";
}

constexpr std::string_view to_string(cluster_mode x) noexcept {
  return x == cluster_mode::inherit ? "inherit" : "proxy";
}

/// Id of instance `slot` (from 1) of a cluster: "my-scalable-app-1".
inline std::string instance_id(const std::string& cluster, std::uint32_t slot) {
  return cluster + '-' + std::to_string(slot);
}

}  // namespace pup
