// A whole supervisor inside a program: the front door for embedding.
//
//   caf::actor_system_config cfg;
//   pup::add_message_types(cfg);
//   caf::actor_system sys{cfg};
//   pup::host host{sys, spec, {}};            // starts what autostart says
//   pup::control_actor control = host.control();
//   …                                         // scale, status, stop, …
//   host.stop();                              // in order; or let it go
//
// The program must not ignore SIGCHLD and should ignore SIGPIPE. Nothing else
// that is process-wide is touched: no signal handler, no working folder.
#pragma once

#include "pup/actors/protocol.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pup {

struct host_options {
  /// Shown by status; empty: embedded, no file.
  std::string config;
  /// Shown by status.
  std::string version = "embedded";
  /// Folder for the output of the instances. Empty: it is discarded.
  std::string log_folder;
  /// What every process inherits. Empty: this process's environment.
  std::vector<std::string> environment;
  /// Threads that carry bytes.
  unsigned shards = 1;
  /// Called with each control actor: the first, and those that replace one
  /// that failed. On a thread of the actor system; must not block.
  std::function<void(const control_actor&)> on_control;
  /// Called once when the whole tree has ended, with its reason (empty or
  /// user_shutdown: on purpose). On a thread of the actor system.
  std::function<void(const caf::error&)> on_end;
};

/// Owns loop, drivers and tree. One thread at a time.
class host {
public:
  /// Throws std::system_error when SIGCHLD is ignored or a thread cannot be
  /// started, std::invalid_argument with the faults of a spec that check()
  /// refuses.
  host(caf::actor_system& sys, pup_spec spec, host_options options);
  host(const host&) = delete;
  host& operator=(const host&) = delete;
  /// stop(), then ends drivers and threads.
  ~host();

  /// The control actor, for requests; a handle that was kept may fail when the
  /// actor did, a new call then finds its successor. Blocks briefly; null after
  /// the end of the tree.
  control_actor control();

  /// Begins the ordered stop: listeners, drains, instances, in reverse. A
  /// second call kills what is left. Returns at once; on_end tells.
  void shut_down();

  /// shut_down() and wait for the end of the tree, as long as it takes.
  void stop();

private:
  class impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace pup
