// Every message and every typed handle: the public protocol of pup.
//
// A struct is a message; commands are in the imperative, facts in the past
// tense. Sections, one for each kind of actor:
//
//   control     what a command line or an embedding program asks for
//   supervisor  a general Erlang-style supervisor, knows nothing of processes
//   cluster     N slots of one process_spec (a single process is one slot)
//   instance    one life of one operating-system process
//   balancer    which instances may get connections
//   launcher    port: starts and signals processes  (runtime/ implements it)
//   proxy       port: listens and carries bytes     (runtime/ implements it)
//
// Commands go down the tree and facts come up. (slot, life) names one life of
// one instance: a fact about an earlier life is recognised by it and dropped.
// All of `control` crosses the IPC boundary; changing anything that it reaches
// means a new protocol_version. Durations are milliseconds where a plain
// number says _ms; times of day do not appear.
#pragma once

#include "pup/actors/caf.hpp"
#include "pup/config/spec.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace pup {

/// Peers with another version refuse each other with a clear error.
inline constexpr std::uint32_t protocol_version = 1;

// -- errors -------------------------------------------------------------------

/// Codes of errors that actors answer or end with. The context of the
/// caf::error is one std::string for people, except for process_ended (an
/// `ending`).
enum class fault : std::uint8_t {
  none = 0,       ///< never sent
  no_such_id,     ///< no process, cluster or instance has this id
  bad_request,    ///< the request cannot be carried out as it stands
  shutting_down,  ///< the supervisor is on its way out
  gave_up,        ///< more restarts than the intensity allows
  process_ended,  ///< exit reason of an instance; context: `ending`
  port_refused,   ///< a listening socket could not be opened
  actor_failed,   ///< the actor that worked on the request has failed
};

inline caf::error make_error(fault code, std::string text) {
  return {static_cast<std::uint8_t>(code), caf::atom("pup"),
          caf::make_message(std::move(text))};
}

/// True when `reason` carries `code`. Safe for an empty error.
bool is(const caf::error& reason, fault code);

/// The text for people inside an error of ours, or CAF's rendering of another.
std::string text_of(const caf::error& reason);

// -- control ------------------------------------------------------------------

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
  std::uint64_t connections_total = 0;
  double cpu_percent = 0;  ///< of one processor, since the last status or start
  std::uint64_t rss_bytes = 0;
  std::string reason;  ///< why it is not ready, in words; empty: it is
};

/// The balancer of a cluster in an answer to get_status.
struct balancer_status {
  std::uint16_t port = 0;
  std::string strategy;
  std::string mode;
  std::uint64_t connections_active = 0;
  std::uint64_t connections_total = 0;
  std::uint64_t bytes_in = 0;   ///< from clients
  std::uint64_t bytes_out = 0;  ///< to clients
  std::uint64_t rejected = 0;   ///< accepted, but no instance could serve
};

/// A top-level entry of the configuration in an answer to get_status.
struct unit_status {
  std::string id;
  bool is_cluster = false;
  run_state state = run_state::stopped;
  std::uint32_t desired = 0;  ///< wanted instances
  std::uint32_t ready = 0;    ///< instances that may serve
  std::string reason;         ///< why it is not running; empty: it is
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
  std::vector<unit_status> units;
};

/// Asks for the status of one unit or of all (`id` empty).
struct get_status {
  std::string id;
};

/// How `scale` means its number.
enum class scale_mode : std::uint8_t { to, up_by, down_by };

/// Changes the number of instances of a cluster.
struct scale {
  std::string id;
  scale_mode mode = scale_mode::to;
  std::uint32_t count = 0;
  bool wait = true;  ///< answer when done; false: when begun
};

/// What happened to one instance (or unit, when none of its instances is
/// concerned).
struct outcome {
  std::string id;
  bool ok = true;
  std::string
      text;  ///< "ready", "stopped", or what went wrong and what is next
};

/// Answer to scale. `to` is what is wanted now: it differs from the request
/// when a later one overtook it.
struct scale_report {
  std::string id;
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::vector<outcome> outcomes;
};

enum class verb : std::uint8_t {
  start,    ///< what is stopped, finished, failed or exhausted
  stop,     ///< drain, stop signal, SIGKILL
  restart,  ///< stop, then start
  await,    ///< changes nothing; answers once everything came up or failed
};

/// Carries out a verb on all that `selector` names: an id of a process, cluster
/// or instance, a glob with * and ?, or "all".
struct operate {
  verb what = verb::await;
  std::string selector;
  bool wait = true;
};

/// Answer to operate: one outcome for each instance concerned.
struct report {
  std::vector<outcome> outcomes;
};

/// Stops everything in reverse order and ends the supervisor. Answered at once
/// with the pid whose end is the end of the work.
struct terminate {};
struct terminating {
  std::int32_t pid = 0;
};

using control_actor =
    caf::typed_actor<caf::replies_to<get_status>::with<supervisor_status>,
                     caf::replies_to<scale>::with<scale_report>,
                     caf::replies_to<operate>::with<report>,
                     caf::replies_to<terminate>::with<terminating>>;

// -- supervisor ---------------------------------------------------------------

/// Where a supervisor's child is in its life.
enum class child_state : std::uint8_t {
  waiting,   ///< for its turn in an ordered start, or for its backoff
  starting,  ///< spawned, has not sent child_ready yet (await_ready only)
  running,
  stopping,
  stopped,
};

/// One line of the answer to which_children.
struct child_info {
  std::string id;
  child_state state = child_state::stopped;
  std::uint32_t restarts = 0;
  caf::strong_actor_ptr handle;  ///< null while it does not live
};

/// The children in start order.
struct which_children {};
/// Stops a child and keeps its spec. Answered when it is gone.
struct terminate_child {
  std::string id;
};
/// Starts a stopped child again.
struct restart_child {
  std::string id;
};
/// Forgets the spec of a stopped child.
struct delete_child {
  std::string id;
};
/// From a child with await_ready: the next one may start.
struct child_ready {};
/// From a child: hand `value` to the start function of its next life. The only
/// thing that survives a crash of the child.
struct keep {
  caf::message value;
};

struct child_spec;  // supervisor.hpp; local only

using supervisor_actor = caf::typed_actor<
    caf::replies_to<which_children>::with<std::vector<child_info>>,
    caf::replies_to<child_spec>::with<child_info>,  // start_child
    caf::replies_to<terminate_child>::with<void>,
    caf::replies_to<restart_child>::with<child_info>,
    caf::replies_to<delete_child>::with<void>, caf::reacts_to<child_ready>,
    caf::reacts_to<keep>>;

// -- instance -----------------------------------------------------------------
//
//  state    | launched   | ready        | exited,       | stop (exit | deadline
//           |            |              | launch_failed | message)   |
//  ---------+------------+--------------+---------------+------------+----------
//  starting | tell       | -> ready,    | -> gone       | -> stopping| ->
//  stopping
//           | parent     | tell parent  |               |            |
//  ready    | ignore     | ignore       | -> gone       | -> stopping| ignore
//  stopping | signal now | ignore       | -> gone       | ignore     | SIGKILL
//  to
//           |            |              |               |            | the
//           group
//  gone     : the actor has quit; its exit reason carries the `ending`

/// How a life of a process ended: the exit reason of its instance.
struct ending {
  enum class kind : std::uint8_t {
    exited,        ///< `code`
    signalled,     ///< `signal`
    not_launched,  ///< no process ever ran: `text`
    not_ready,     ///< was stopped for not becoming ready in time
    lost,          ///< the instance actor itself failed
  };
  kind what = kind::lost;
  std::int32_t code = 0;
  std::int32_t signal = 0;
  std::string text;  ///< extra words; for not_launched the whole reason
};

/// "exited with code 3", "killed by SIGKILL", "port 8000 is in use …".
std::string to_string(const ending& x);
caf::error make_error(const ending& x);
/// The ending inside the exit reason of an instance; kind::lost for a reason
/// that carries none.
ending ending_of(const caf::error& reason);

/// launcher -> instance: exec succeeded.
struct process_launched {
  std::uint64_t life = 0;
  std::int32_t pid = 0;
  std::string warning;  ///< output is not kept because …; empty: all well
};
/// launcher -> instance: its readiness condition holds.
struct process_ready {
  std::uint64_t life = 0;
  std::string address;  ///< numeric; where its port accepts. Empty: no port
};
/// launcher -> instance: no process came to be, or it has ended. Last message
/// about a life.
struct process_ended {
  std::uint64_t life = 0;
  ending how;
};

using instance_actor = caf::typed_actor<caf::reacts_to<process_launched>,
                                        caf::reacts_to<process_ready>,
                                        caf::reacts_to<process_ended>>;

// -- balancer -----------------------------------------------------------------

/// An instance as the balancer sees it.
struct backend_entry {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::string address;  ///< numeric
  std::uint16_t port = 0;
  bool draining = false;  ///< finishes its connections, gets no new ones

  bool operator==(const backend_entry& other) const {
    return slot == other.slot && life == other.life && address == other.address
           && port == other.port && draining == other.draining;
  }
};

/// cluster -> balancer: all instances that may serve or still drain. A
/// snapshot: replaces the previous one.
struct assign_backends {
  std::vector<backend_entry> backends;
};
/// cluster -> balancer: keep the common port open or close it.
struct set_listening {
  bool open = true;
};
/// proxy -> balancer: the last connection of a draining backend has ended.
struct backend_idle {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
};
/// Connections and bytes of one listener.
struct traffic {
  struct per_backend {
    std::uint32_t slot = 0;
    std::uint64_t life = 0;
    std::uint64_t active = 0;
    std::uint64_t total = 0;
  };
  std::uint16_t port = 0;  ///< 0: not listening
  std::uint64_t active = 0;
  std::uint64_t total = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
  std::uint64_t rejected = 0;
  std::vector<per_backend> backends;
};
struct get_traffic {
  std::string cluster;  ///< used by the proxy; a balancer knows its own
};

using balancer_actor = caf::typed_actor<
    caf::reacts_to<assign_backends>, caf::reacts_to<set_listening>,
    caf::reacts_to<backend_idle>, caf::replies_to<get_traffic>::with<traffic>>;

// -- cluster ------------------------------------------------------------------
//
//  slot state | want up       | want down    | its life ended
//  -----------+---------------+--------------+---------------------------------
//  resting    | -> starting   | stopped      | -
//  backoff    | -> starting   | -> resting   | -
//  starting   | -             | -> stopping  | supervision: restart | rest
//  ready      | -             | -> draining  | supervision: restart | rest
//  draining   | -> ready      | -            | wanted ? starting : resting
//  stopping   | (after it)    | -            | wanted ? starting : resting
//
//  draining -> stopping when the balancer says drained; at once without one.

/// instance -> cluster: it has a pid.
struct instance_launched {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::int32_t pid = 0;
  std::string warning;
};
/// instance -> cluster: it may serve.
struct instance_ready {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::string address;
};
/// balancer -> cluster: no connection is left, or the drain deadline passed.
struct backend_drained {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::uint64_t cut = 0;  ///< connections still open at the deadline
};
/// balancer -> cluster: the common port accepts; or why it does not.
struct listener_changed {
  bool open = false;
  std::string reason;
};
/// control -> cluster. `slot` 0: all of them.
struct operate_unit {
  verb what = verb::await;
  std::uint32_t slot = 0;
  bool wait = true;
};
/// control -> cluster: the status without cpu and memory, which control adds.
struct get_unit_status {};

using cluster_actor = caf::typed_actor<
    caf::replies_to<scale>::with<scale_report>,
    caf::replies_to<operate_unit>::with<report>,
    caf::replies_to<get_unit_status>::with<unit_status>,
    caf::reacts_to<instance_launched>, caf::reacts_to<instance_ready>,
    caf::reacts_to<backend_drained>, caf::reacts_to<listener_changed>>;

// -- launcher (port) ----------------------------------------------------------
//
// Owes each accepted launch exactly one process_ended. Monitors the owner: when
// that ends without its process having ended, the process group is killed. A
// launch of an id whose previous process still exists waits for its end.

/// instance -> launcher: a finished request.
struct launch {
  std::string id;          ///< of the instance
  std::uint64_t life = 0;  ///< grows with each launch of this id
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;  ///< added to the supervisor's own
  std::string path;                        ///< appended to PATH
  std::string cwd;                         ///< empty: the supervisor's own
  std::uint16_t port = 0;                  ///< 0: none
  ready_condition ready = ready_condition::spawn;
};
/// instance -> launcher: a signal to the whole process group.
struct send_signal {
  std::string id;
  std::uint64_t life = 0;
  std::int32_t signal = 0;
};
/// control -> launcher: cpu and memory of processes.
struct sample_usage {
  std::vector<std::int32_t> pids;
};
struct usage {
  std::int32_t pid = 0;
  std::uint64_t rss_bytes = 0;
  double cpu_percent = 0;
};

using launcher_actor =
    caf::typed_actor<caf::reacts_to<launch, instance_actor>,
                     caf::reacts_to<send_signal>,
                     caf::replies_to<sample_usage>::with<std::vector<usage>>>;

// -- proxy (port) -------------------------------------------------------------
//
// Owns the listening sockets, so that they outlive a balancer actor. The loop
// reads the last published backends; nothing here is sent per connection.

/// balancer -> proxy: listen, or attach to what already listens under this key.
/// Facts go to `balancer` from then on. Error: fault::port_refused.
struct open_listener {
  std::string cluster;
  cluster_spec spec;
};
struct listener_opened {
  std::uint16_t port = 0;
};
/// balancer -> proxy: replaces the backends of a listener.
struct publish_backends {
  std::string cluster;
  std::vector<backend_entry> backends;
};
/// balancer or cluster -> proxy: stop listening; connections go on. Changes
/// nothing when nothing listens. Backends are still published afterwards, and
/// the ends of their drains reported.
struct close_listener {
  std::string cluster;
};

using proxy_actor = caf::typed_actor<
    caf::replies_to<open_listener, balancer_actor>::with<listener_opened>,
    caf::reacts_to<publish_backends>, caf::reacts_to<close_listener>,
    caf::replies_to<get_traffic>::with<traffic>>;

// -- inspection ---------------------------------------------------------------

template <class Inspector>
auto inspect(Inspector& f, instance_status& x) {
  return f(caf::meta::type_name("instance_status"), x.id, x.slot, x.state,
           x.pid, x.port, x.restarts, x.uptime_ms, x.exit_code, x.signal,
           x.connections_active, x.connections_total, x.cpu_percent,
           x.rss_bytes, x.reason);
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
           x.desired, x.ready, x.reason, x.balancer, x.instances);
}

template <class Inspector>
auto inspect(Inspector& f, supervisor_status& x) {
  return f(caf::meta::type_name("supervisor_status"), x.name, x.pid, x.version,
           x.config, x.uptime_ms, x.rss_bytes, x.units);
}

template <class Inspector>
auto inspect(Inspector& f, get_status& x) {
  return f(caf::meta::type_name("get_status"), x.id);
}

template <class Inspector>
auto inspect(Inspector& f, scale& x) {
  return f(caf::meta::type_name("scale"), x.id, x.mode, x.count, x.wait);
}

template <class Inspector>
auto inspect(Inspector& f, outcome& x) {
  return f(caf::meta::type_name("outcome"), x.id, x.ok, x.text);
}

template <class Inspector>
auto inspect(Inspector& f, scale_report& x) {
  return f(caf::meta::type_name("scale_report"), x.id, x.from, x.to,
           x.outcomes);
}

template <class Inspector>
auto inspect(Inspector& f, operate& x) {
  return f(caf::meta::type_name("operate"), x.what, x.selector, x.wait);
}

template <class Inspector>
auto inspect(Inspector& f, report& x) {
  return f(caf::meta::type_name("report"), x.outcomes);
}

template <class Inspector>
auto inspect(Inspector& f, terminate&) {
  return f(caf::meta::type_name("terminate"));
}

template <class Inspector>
auto inspect(Inspector& f, terminating& x) {
  return f(caf::meta::type_name("terminating"), x.pid);
}

template <class Inspector>
auto inspect(Inspector& f, ending& x) {
  return f(caf::meta::type_name("ending"), x.what, x.code, x.signal, x.text);
}

}  // namespace pup

// The rest never leaves the process: no inspection is wanted.
#define PUP_LOCAL_MESSAGE(name) CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::name)
PUP_LOCAL_MESSAGE(child_spec)
PUP_LOCAL_MESSAGE(child_info)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::vector<pup::child_info>)
PUP_LOCAL_MESSAGE(which_children)
PUP_LOCAL_MESSAGE(terminate_child)
PUP_LOCAL_MESSAGE(restart_child)
PUP_LOCAL_MESSAGE(delete_child)
PUP_LOCAL_MESSAGE(child_ready)
PUP_LOCAL_MESSAGE(keep)
PUP_LOCAL_MESSAGE(process_launched)
PUP_LOCAL_MESSAGE(process_ready)
PUP_LOCAL_MESSAGE(process_ended)
PUP_LOCAL_MESSAGE(assign_backends)
PUP_LOCAL_MESSAGE(set_listening)
PUP_LOCAL_MESSAGE(backend_idle)
PUP_LOCAL_MESSAGE(traffic)
PUP_LOCAL_MESSAGE(get_traffic)
PUP_LOCAL_MESSAGE(instance_launched)
PUP_LOCAL_MESSAGE(instance_ready)
PUP_LOCAL_MESSAGE(backend_drained)
PUP_LOCAL_MESSAGE(listener_changed)
PUP_LOCAL_MESSAGE(operate_unit)
PUP_LOCAL_MESSAGE(get_unit_status)
PUP_LOCAL_MESSAGE(launch)
PUP_LOCAL_MESSAGE(send_signal)
PUP_LOCAL_MESSAGE(sample_usage)
PUP_LOCAL_MESSAGE(usage)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::vector<pup::usage>)
PUP_LOCAL_MESSAGE(open_listener)
PUP_LOCAL_MESSAGE(listener_opened)
PUP_LOCAL_MESSAGE(publish_backends)
PUP_LOCAL_MESSAGE(close_listener)
#undef PUP_LOCAL_MESSAGE

namespace pup {

/// Registers what crosses IPC. Every program that speaks to a running pup, or
/// that embeds one and publishes it, calls this before its actor_system starts.
void add_message_types(caf::actor_system_config& cfg);

}  // namespace pup
