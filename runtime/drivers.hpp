// The launcher and the proxy as actors: the one place where CAF and Asio meet.
//
// Commands are posted down to the loop, facts are sent up; nothing is shared.
#pragma once

#include "pup/actors/protocol.hpp"

#include <string>
#include <vector>

namespace boost::asio {
class io_context;
}

namespace pup {

struct launcher_options {
  /// What every process inherits, "NAME=value" each.
  std::vector<std::string> environment;
  /// Folder for the output of the instances, one file each. Empty: /dev/null.
  std::string log_folder;
};

/// Starts processes on `loop`, which must run, or be about to, until this actor
/// has ended. Throws std::system_error when SIGCHLD is ignored.
launcher_actor spawn_launcher(caf::actor_system& sys,
                              boost::asio::io_context& loop,
                              launcher_options options);

/// Owns the data plane; its threads and listening sockets end with the actor.
/// `shards`: threads that carry bytes.
proxy_actor spawn_proxy(caf::actor_system& sys, unsigned shards);

}  // namespace pup
