// All processes of a supervisor: their lives on one event loop.
//
// A *life* is one run of the process of a *key* (the instance's id); lives of
// a key are numbered and the number grows. Every event names key and life, so
// that its receiver can tell a late one.
//
//   launch ──> [waits for its predecessor] ──> failed
//                       │
//                       ▼
//                   launched ──> ready ──> exited
//                       └────────────────────┘
//
// After launch() comes exactly one of `failed` and `launched`; after
// `launched` at most one `ready`, then exactly one `exited`. Nothing comes for
// a life once it is abandoned or replaced by a later life of its key.
//
// An exit is learned from the pidfd, by an event. While the ended leader is
// still a zombie, and its pid and group number cannot be given to anyone else,
// the rest of its process group gets SIGKILL; then it is reaped, and `exited`
// is told when the group is gone, so nothing of a life survives its `exited`:
// not the grandchild that still holds the port. Only a process that has left
// the group (setsid, setpgid) is out of reach.
//
// Two things the kernel tells by no event are asked for on a timer, and only
// while they are awaited; an idle supervisor has no timer at all:
//  - that a program has begun to listen (see `launch_request::ready`);
//  - that leftovers of a group, which are no children of ours, have died of
//    their SIGKILL: after 1, 2, 4 … 64 ms, at most 10 s in all.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/fd.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace boost::asio {
class io_context;
}

namespace pup {

/// One life to begin.
struct launch_request {
  /// Program and arguments; the program is looked up on the child's PATH.
  std::vector<std::string> argv;
  /// On top of the environment given to `children`.
  std::map<std::string, std::string> environment;
  /// Appended to PATH, colon separated. Empty: nothing.
  std::string path;
  /// Absolute. Empty: the supervisor's.
  std::string cwd;
  /// File for standard output and error, created with mode 0600 and appended
  /// to. Empty: /dev/null. A file that cannot be opened (full disk, a folder in
  /// its place) does not stop the launch: the program gets /dev/null and
  /// `launched` a warning.
  std::string output;
  /// Where the program is going to listen; it must be free. 0: no port.
  std::uint16_t port = 0;
  /// `spawn`, or no port: ready when its exec has succeeded. `port`: when
  /// 127.0.0.1 or else ::1 accepts a connection. It is tried at once, after 1,
  /// 2, 4, 8 ms, then every 10 ms until 1 s after the launch and every 50 ms
  /// from then on, until the process ends: two refused connects of some 90 us
  /// each per try, measured 1.8 % of a processor at first and 0.5 % later.
  ready_condition ready = ready_condition::spawn;
};

/// Why a life never began.
struct launch_fault {
  /// "port" (taken), "predecessor" (does not die), "cancelled" (kill_group()
  /// while waiting for the predecessor), "epoll" (no room to watch it), or a
  /// stage of spawn().
  std::string stage;
  /// For people: "port 8000 is in use by pid 4711 (nginx)".
  std::string text;

  bool operator==(const launch_fault&) const = default;
};

/// How a life ended.
struct exit_status {
  pid_t pid = 0;
  int code = -1;   ///< 0 to 255; -1: ended by a signal
  int signal = 0;  ///< 0: ended by itself
  // Code -1 and signal 0: someone else has reaped it, the status is lost.
  bool core = false;
  /// User and system time, of it and the children it has waited for.
  std::int64_t cpu_us = 0;
  /// Peak resident memory of the same, in KiB. Linux counts across exec: never
  /// less than the supervisor's own peak at the launch.
  std::int64_t max_rss_kb = 0;

  bool operator==(const exit_status&) const = default;
};

/// Who hears of it; all must be set. Called on the loop, and never from within
/// a call of a member of `children`. May call its members; must not destroy it.
struct child_events {
  /// `warning` is empty when all is as requested.
  std::function<void(const std::string& key, std::uint64_t life, pid_t pid,
                     const std::string& warning)>
      launched;
  std::function<void(const std::string& key, std::uint64_t life,
                     const launch_fault& fault)>
      failed;
  /// `address`: "127.0.0.1" or "::1", the one that accepted; empty when ready
  /// means spawned.
  std::function<void(const std::string& key, std::uint64_t life,
                     const std::string& address)>
      ready;
  std::function<void(const std::string& key, std::uint64_t life,
                     const exit_status& status)>
      exited;
};

/// Starts processes, watches and signals them, and leaves none behind. Every
/// member on the thread of the loop, which outlives this. No thread of its own,
/// no signal handler.
class children {
public:
  /// `environment`: what every process inherits, "NAME=value" each. Throws
  /// std::system_error when SIGCHLD is ignored (SIG_IGN or SA_NOCLDWAIT;
  /// SIG_IGN is inherited across exec): the kernel would then forget exit
  /// statuses. Set it to SIG_DFL at start and leave it there.
  children(boost::asio::io_context& loop, std::vector<std::string> environment,
           child_events events);
  children(const children&) = delete;
  children& operator=(const children&) = delete;

  /// SIGKILL to every group that is left, reaps it and waits, 5 s at most and
  /// without the loop, until it is gone. Tells nobody.
  ~children();

  /// Begins a life. An earlier life of `key` that still exists has lost its
  /// owner: it is abandoned, and the new one waits until it is gone. A life
  /// that is not later than the known one is ignored.
  void launch(const std::string& key, std::uint64_t life,
              launch_request request);

  /// `signo` to the process group of a launched life. Ignored for any other. A
  /// fault: EINVAL for no signal's number, EPERM when the processes belong to
  /// another user.
  std::optional<os_fault> signal(const std::string& key, std::uint64_t life,
                                 int signo);

  /// SIGKILL to the group; a life that still waits for its predecessor fails.
  void kill_group(const std::string& key, std::uint64_t life);

  /// The owner has vanished: SIGKILL to the group, no further event.
  void abandon(const std::string& key, std::uint64_t life);

  /// Keys with a process, or one that waits to be launched.
  [[nodiscard]] std::size_t size() const noexcept;

private:
  class impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace pup
