// The ports to the world, which runtime/ implements: the launcher starts and
// signals processes, the proxy listens and carries bytes, the memory writes
// down what units keep.
#pragma once

#include "pup/actors/caf.hpp"
#include "pup/actors/protocol_balancer.hpp"
#include "pup/actors/protocol_instance.hpp"
#include "pup/config/spec.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace pup {

// -- launcher (port) ----------------------------------------------------------
//
// Owes each accepted launch exactly one process_ended. Monitors the owner: when
// that ends without its life having ended, all of the life is killed. A launch
// of an id whose previous life still exists waits for its end.

/// The listening socket that an instance inherits.
struct inherited_socket {
  std::string cluster;
  std::uint32_t slot = 0;
  cluster_spec spec;  ///< common port, host and strategy count
};
/// instance -> launcher: a finished request.
struct launch {
  /// Of the instance; what stands behind a ! tells its tasks apart, whose
  /// output goes where the instance's own goes.
  std::string id;
  std::uint64_t life = 0;  ///< grows with each launch of this id
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;  ///< added to what it inherits
  inherited_names inherit_env{};           ///< of the supervisor's own
  std::string path;                        ///< appended to PATH
  std::string cwd;                         ///< empty: the supervisor's own
  std::uint16_t port = 0;                  ///< 0: none
  ready_condition ready = ready_condition::spawn;
  std::string ready_path;       ///< of ready http
  std::string ready_pattern{};  ///< of ready log
  /// Told to the process, which has to say more often that it lives. 0: none.
  std::chrono::milliseconds watchdog{0};
  std::optional<inherited_socket> inherit;  ///< as descriptor 3
  output_spec output;                       ///< with the paths of this instance
  process_attributes attributes;
  std::string pid_file;          ///< empty: none
  std::uint64_t max_memory = 0;  ///< process_outgrew above it; 0: never
};
/// instance -> launcher: does a server answer?
struct probe_server {
  std::string address;  ///< numeric
  std::uint16_t port = 0;
  health_check how;
};
struct probed {
  std::string fault;  ///< empty: it does
};
/// instance -> launcher: takes over a life that an earlier supervisor launched.
/// Answered as a launch, from process_launched on as far as the life has got;
/// with process_ended at once when there is no such life.
struct adopt {
  launch request;  ///< as it was
};
/// instance -> launcher: how far a life has got, for whoever is to adopt it.
struct note_life {
  std::string id;
  std::uint64_t life = 0;
  bool ready = false;  ///< it has become so
  bool stopping = false;
  std::string address;  ///< where it accepts; empty: no port
};
/// cluster -> launcher: the end of this life has been acted upon; or it is to
/// be adopted by nobody and is killed.
struct settle_life {
  std::string id;
  std::uint64_t life = 0;
};
/// instance -> launcher: a signal to the whole process group; once the leader
/// has ended, and SIGKILL always, to all that belongs to the life.
struct send_signal {
  std::string id;
  std::uint64_t life = 0;
  std::int32_t signal = 0;
  /// The stop signal, with SIGCONT, for a stopped process would never handle
  /// it. Nobody gets it twice.
  bool stop = false;
};
/// control -> launcher: cpu and memory of processes.
struct sample_usage {
  std::vector<std::int32_t> pids;
};
struct usage {
  std::int32_t pid = 0;
  std::uint64_t rss_bytes = 0;
  double cpu_percent = 0;
  std::uint64_t log_lost_lines = 0;  ///< of the instance, over all its lives
  std::uint64_t log_lost_bytes = 0;
  /// It has ended, though nobody may have been told yet.
  bool ended = false;
};

using launcher_actor =
    caf::typed_actor<caf::reacts_to<launch, instance_actor>,
                     caf::reacts_to<adopt, instance_actor>,
                     caf::reacts_to<note_life>, caf::reacts_to<settle_life>,
                     caf::reacts_to<send_signal>,
                     caf::replies_to<probe_server>::with<probed>,
                     caf::replies_to<sample_usage>::with<std::vector<usage>>>;

// -- proxy (port) -------------------------------------------------------------
//
// Owns the listening sockets, so that they outlive a balancer actor. The loop,
// or in mode inherit the kernel, reads the last published backends; nothing
// here is sent per connection.

/// balancer -> proxy: listen, or attach to what already listens under this key.
/// Facts go to `balancer` from then on. Error: fault::port_refused.
struct open_listener {
  std::string cluster;
  cluster_spec spec;
};
struct listener_opened {
  std::uint16_t port = 0;
};
/// balancer -> proxy: replaces the backends of a listener. Answered when no new
/// connection goes by an older set.
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
    caf::replies_to<publish_backends>::with<void>,
    caf::reacts_to<close_listener>,
    caf::replies_to<get_traffic>::with<traffic>>;

// -- memory (port) ------------------------------------------------------------
//
// Learns what units keep from the root (supervisor_spec::on_keep).

/// control -> memory: answered when what units have kept so far is on the disk,
/// or the disk has refused it.
struct settle {};

using memory_actor = caf::typed_actor<caf::replies_to<settle>::with<void>>;

}  // namespace pup

// These never leave the process: no inspection is wanted.
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::probe_server)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::probed)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::launch)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::adopt)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::note_life)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::settle_life)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::send_signal)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::sample_usage)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::usage)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::vector<pup::usage>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::open_listener)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::listener_opened)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::publish_backends)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::close_listener)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::settle)
