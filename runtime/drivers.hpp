// The launcher and the proxy as actors: the one place where CAF and Asio meet.
//
// Commands are posted down to the loop, facts are sent up; nothing is shared.
// Each actor has its source: drivers_launcher, drivers_proxy, drivers_memory.
#pragma once

#include "pup/actors/protocol.hpp"
#include "pup/runtime/proxy_facts.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace boost::asio {
class io_context;
}

namespace pup {

class carriers;
class inherit_groups;
class journal;
class log_sink;
class proxy;
class socket_keeper;
class spawner;
struct inheritance;

struct launcher_options {
  /// What every process inherits, "NAME=value" each.
  std::vector<std::string> environment;
  /// Takes the output of the instances, and what happens to them. Outlives the
  /// loop. Null: output goes to /dev/null.
  log_sink* log = nullptr;
  /// Told which processes there are. Outlives the loop. May be null.
  journal* notes = nullptr;
  /// Sockets of clusters in mode inherit, shared with the proxy.
  std::shared_ptr<inherit_groups> groups;
  /// Whose children the processes are. Null: this process's.
  std::shared_ptr<spawner> parent{};
  /// Lives to be adopted, with what was kept for them. May be null.
  std::shared_ptr<inheritance> inherited{};
  /// Keeps the sockets of clusters in mode inherit. May be null.
  std::shared_ptr<socket_keeper> keeper{};
  /// How many processes run without their output being taken, for want of
  /// descriptors. May be null.
  std::shared_ptr<std::atomic<std::uint32_t>> mute{};
};

/// Starts processes on `loop`, which must run, or be about to, until this actor
/// has ended. Throws std::system_error when SIGCHLD is ignored.
launcher_actor spawn_launcher(caf::actor_system& sys,
                              boost::asio::io_context& loop,
                              launcher_options options);

/// Answers when `notes`, which outlives the actor, has been written.
memory_actor spawn_memory(caf::actor_system& sys, journal& notes);

/// Throws std::system_error when a thread, or what it waits with, is not to be
/// had. Owns the data plane; its threads and listening sockets end with the
/// actor. `shards`: threads that carry bytes. `keeper`: takes care of the
/// sockets, and has those to go on with; `predecessors`: who else has
/// connections to the backends. Both may be null.
proxy_actor spawn_proxy(caf::actor_system& sys, unsigned shards,
                        std::shared_ptr<inherit_groups> groups,
                        std::shared_ptr<socket_keeper> keeper = nullptr,
                        std::shared_ptr<carriers> predecessors = nullptr);

/// Ends the actor in favour of another process, which has duplicates of the
/// sockets. What is returned carries the connections there are (see
/// proxy::finish). Null: the actor had ended already.
std::shared_ptr<proxy> leave_proxy(caf::actor_system& sys, const proxy_actor& x,
                                   std::function<void()> done,
                                   std::function<void(proxy_fact)> on_fact);

/// What a group of inherited sockets is called there.
std::string kept_group_name(const std::string& cluster);

}  // namespace pup
