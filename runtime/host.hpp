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
#include "pup/config/load.hpp"
#include "pup/runtime/fd.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pup {

class guardian_link;

struct host_options {
  /// Shown by status; empty: embedded, no file.
  std::string config;
  /// Shown by status.
  std::string version = "embedded";
  /// Folder of the log store (log_store.hpp), for `pup logs` the folder "log"
  /// in the state folder. Empty: there is no store, and output goes only where
  /// `logger` of the configuration names a file. As the next one, it is made
  /// when it is missing; nobody but this process's user and root may be able to
  /// write to it or exchange a folder above it (docs/SECURITY.md).
  std::string log_folder;
  /// Folder of the state file (state_file.hpp), which lets the supervisor go on
  /// where it was when it is killed. Locked as long as the host lives, so that
  /// two never share one. Empty: there is none.
  std::string state_folder;
  /// The caller has locked it (place.hpp).
  bool state_is_locked = false;
  /// Marks each process as one of this supervisor (survivors.hpp). Empty: none.
  std::string owner;
  /// Folders that this process writes to: files there do not count as changes
  /// of what the configuration watches. Absolute.
  std::vector<std::string> own_folders{};
  /// Whether `console` of the configuration means this process's standard
  /// output and error; else it has no effect.
  bool console = false;
  /// What every process inherits. Empty: this process's environment.
  std::vector<std::string> environment;
  /// Reads the text that an apply request brings, as config/load.hpp does, and
  /// tells what it is about to ask the machine for. On a thread of its own: it
  /// may wait for ever, and be given up; two at once. Empty: apply is refused.
  std::function<load_result(
      const apply&, const std::function<void(const std::string&)>& asked)>
      load;
  /// Told when all of that text holds, before the request is answered. On a
  /// thread of the actor system; must not block. May be unset.
  std::function<void(const apply&)> applied;
  /// Threads that carry bytes. 0: default_shards(), one for each processor
  /// this process may use, up to 8.
  unsigned shards = 0;
  /// Whether the tree ends, with the last member's `ending` as reason, once
  /// autoShutdown has ended a group and no unit is left that runs or would.
  bool ends_with_groups = false;
  /// Called with each control actor: the first, and those that replace one
  /// that failed. On a thread of the actor system; must not block.
  std::function<void(const control_actor&)> on_control;
  /// Further warnings for the status. Any thread; must not block.
  std::function<std::vector<std::string>()> warnings;
  /// Listening sockets that a service manager has opened, for common ports. A
  /// guardian has its own.
  std::vector<unique_fd> sockets{};
  /// The parent of the processes, already met. Null: this process is, and
  /// they end with it.
  std::shared_ptr<guardian_link> guardian;
  /// The guardian has ended: nothing can be started any more. On a thread of
  /// the host; must not block.
  std::function<void()> on_guardian_lost;
  /// Called once when the whole tree has ended, with its reason (empty or
  /// user_shutdown: on purpose; fault::process_ended: see ends_with_groups). On
  /// a thread of the actor system.
  std::function<void(const caf::error&)> on_end;
};

/// Owns loop, drivers and tree. One thread at a time.
class host {
public:
  /// Throws std::system_error when SIGCHLD is ignored or a thread cannot be
  /// started, std::invalid_argument with the faults of a spec that check()
  /// refuses, std::runtime_error when another one has the state folder, or
  /// others may write to it or to the log folder.
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
  /// second call kills what is left. Returns at once; on_end tells. Not
  /// `on_purpose`: the next supervisor goes on where this one was.
  void shut_down(bool on_purpose = true);

  /// Opens log files by their names again, after another program has renamed
  /// them. Any thread.
  void reopen_logs();

  /// shut_down() and wait for the end of the tree, as long as it takes.
  void stop();

  /// Leaves everything to a successor, which the guardian starts now; this
  /// process only carries the connections it has. `done`: the last one has
  /// ended; on a thread of the host. After it, or false (there is no guardian
  /// any more, all is lost), the process is to end by _exit(2): a destructor
  /// would take down what is another's now. Blocks for milliseconds. Once, with
  /// a guardian, before stop() and shut_down().
  bool step_aside(const std::function<void()>& done);

private:
  class impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace pup
