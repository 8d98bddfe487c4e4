// All processes of a supervisor: their lives on one event loop.
//
// A *life* is one run of the process of a *key* (the instance's id); lives of
// a key are numbered and the number grows. Every event names key and life, so
// that its receiver can tell a late one.
//
//   launch ──> [waits for its predecessor] ──> failed
//                       │
//                       ▼
//                   launched ──> ready ──> [leader_ended] ──> exited
//                       └──────────────────────┘
//
// After launch() comes exactly one of `failed` and `launched`; after
// `launched` at most one `ready`, then at most one `leader_ended`, when the
// process has ended and some of what it has started has not; then exactly one
// `exited`. Nothing comes for a life once it is abandoned or replaced by a
// later life of its key.
//
// Whose children they are is the spawner's secret; by `exited` nothing of a
// life is left: not the grandchild that still holds the port. What a spawner
// keeps of a life is forgotten when done() says so, or when nobody waits for
// it.
//
// That a program has begun to listen is told by no event and asked for on a
// timer, while it is awaited (readiness.hpp); else there is none.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/fd.hpp"
#include "pup/runtime/readiness.hpp"
#include "pup/runtime/spawner.hpp"

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

/// What a process writes to.
struct output_ends {
  unique_fd out{};        ///< none: /dev/null
  unique_fd err{};        ///< none: /dev/null
  std::string warning{};  ///< for `launched`; empty: all is as wanted
  /// For the spawner to keep.
  std::vector<lent_descriptor> keep{};
};

/// One life to begin.
struct launch_request {
  /// Program and arguments; the program is looked up on the child's PATH.
  std::vector<std::string> argv;
  /// On top of what it inherits.
  std::map<std::string, std::string> environment;
  /// Of the environment given to `children`.
  inherited_names inherited{};
  /// Appended to PATH, colon separated. Empty: nothing.
  std::string path;
  /// Absolute. Empty: the supervisor's.
  std::string cwd;
  /// Opens standard output and error, when the life really begins. Not set:
  /// /dev/null.
  std::function<output_ends()> open_output;
  /// Where the program is going to listen; it must be free. 0: no port.
  std::uint16_t port = 0;
  /// As readiness_request; `exec` is not for here. `log` holds when
  /// show_ready() says so.
  ready_condition ready = ready_condition::spawn;
  std::string ready_path = "/";
  std::chrono::milliseconds watchdog{0};
  /// Becomes descriptor 3 of the program, which is told as spawn() says. None:
  /// nothing.
  std::shared_ptr<const unique_fd> listen_socket{};
  /// Limits of `cgroup` that cannot be set are told by the warning of
  /// `launched`.
  process_attributes attributes{};
  /// The group of cgroup limits; processes may share one. Empty: the key.
  std::string cgroup_id{};
  /// Holds the pid from exec to the end; as for a fault, see `attributes`.
  /// Empty: none.
  std::string pid_file{};
};

/// Why a life never began.
struct launch_fault {
  /// "port" (taken), "predecessor" (does not die), "cancelled" (kill_group()
  /// while waiting for the predecessor), "epoll" (no room to watch it), or a
  /// stage of spawn().
  std::string stage;
  /// For people: "port 8000 is in use by pid 4711 (nginx)".
  std::string text;
  int code = 0;  ///< errno of a system call that failed; else 0

  bool operator==(const launch_fault&) const = default;
};

/// What is remembered of a life beside its process.
struct life_mark {
  bool ready = false;  ///< it has become so, in every respect
  bool stopping = false;
  std::string address;  ///< as in `ready`

  bool operator==(const life_mark&) const = default;
};

/// As inherited_process::mark has it. An unknown text is nothing.
std::string to_text(const life_mark& x);
life_mark life_mark_of(const std::string& text);

/// A life that an earlier supervisor began, to be gone on with.
struct life_adoption {
  inherited_process process;
  /// As it was begun; what only the beginning needs is ignored.
  launch_request request;
  /// Descriptors that were kept for it, by the names of start_order::keep;
  /// those that are for `children` are taken.
  std::map<std::string, unique_fd>& kept;
};

/// Who hears of it; all but the last must be set. Called on the loop, and never
/// from within a call of a member of `children`. May call its members; must not
/// destroy it.
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
                     const burial& end)>
      exited;
  /// The rest of the life goes on until it is told to end. May be unset.
  std::function<void(const std::string& key, std::uint64_t life,
                     const leader_end& end)>
      leader_ended{};
  /// What the process says of itself, once launched. May be unset.
  std::function<void(const std::string& key, std::uint64_t life,
                     const self_report& report)>
      said{};
};

/// Starts processes, watches and signals them, and leaves none behind. Every
/// member on the thread of the loop, which outlives this. No thread of its own,
/// no signal handler.
class children {
public:
  /// `environment`: what every process inherits, "NAME=value" each. Without a
  /// `parent`: own_processes().
  children(boost::asio::io_context& loop, std::vector<std::string> environment,
           child_events events, std::shared_ptr<spawner> parent = nullptr);
  children(const children&) = delete;
  children& operator=(const children&) = delete;

  /// spawner::end_all().
  ~children();

  /// Begins a life. An earlier life of `key` that still exists has lost its
  /// owner: it is abandoned, and the new one waits until it is gone. A life
  /// that is not later than the known one is ignored.
  void launch(const std::string& key, std::uint64_t life,
              launch_request request);

  /// Goes on with a life: the events come from `launched` on, as far as it has
  /// got. Of two lives of a key the later one goes on, the other is abandoned;
  /// so is one that comes when a next life waits.
  void adopt(life_adoption x);

  /// Before the first adoption. Gives back what earlier supervisors have kept
  /// for lives that are none of `known`: of a start that has failed while there
  /// was no supervisor nobody hears. What is given back is taken out of `kept`.
  void release_all_but(const std::vector<inherited_process>& known,
                       std::map<std::string, unique_fd>& kept);

  /// How far a life has got, for a successor.
  void mark(const std::string& key, std::uint64_t life, const life_mark& x);

  /// Its `exited` has been acted upon.
  void done(const std::string& key, std::uint64_t life);

  /// `signo` to a launched life, as spawner::signal() says. Ignored for any
  /// other.
  std::optional<os_fault> signal(const std::string& key, std::uint64_t life,
                                 int signo);

  /// The stop signal, as spawner::stop() says. Ignored for a life that is not
  /// launched.
  void stop(const std::string& key, std::uint64_t life, int signo);

  /// Somebody else has seen that a life with ready `log` is ready: `ready`
  /// follows. Ignored for any other.
  void show_ready(const std::string& key, std::uint64_t life);

  /// SIGKILL to all of it; a life that still waits for its predecessor fails,
  /// one that is about to be started is killed at once.
  void kill_group(const std::string& key, std::uint64_t life);

  /// The owner has vanished: SIGKILL to all of it, no further event.
  void abandon(const std::string& key, std::uint64_t life);

  /// Keys with a process, or one that waits to be launched.
  [[nodiscard]] std::size_t size() const noexcept;

private:
  class impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace pup
