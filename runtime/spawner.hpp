// Who is the parent of the processes: what `children` needs of it.
//
// A program that embeds pup is their parent itself (own_processes below); the
// pup program leaves that to its guardian (guardian_link.hpp). Either way a
// started process has a *number*, never used twice, and
//
//   start ──> started ──> [leader_ended] ──> ended    or    start ──> failed
//
// The process that is started leads a life. `leader_ended` is told when it has
// ended and something of the life is left, which goes on until it ends by
// itself or is told to; `ended` when nothing is left. What belongs to a life
// is, for own_processes(), the process group; for a guardian also what has left
// it.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/process.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace boost::asio {
class io_context;
}

namespace pup {

/// The unit that a key belongs to, as far as the key tells: all instances of a
/// cluster ("web-3"), and their hooks ("web-3!preStart"), have one.
inline std::string unit_in_key(std::string_view key) {
  key = key.substr(0, key.find('!'));
  const auto digits = key.find_last_not_of("0123456789") + 1;
  if (digits > 1 && digits < key.size() && key[digits - 1] == '-')
    key = key.substr(0, digits - 1);
  return std::string{key};
}

/// How a process ended.
struct exit_status {
  pid_t pid = 0;
  int code = -1;   ///< 0 to 255; -1: ended by a signal
  int signal = 0;  ///< 0: ended by itself
  // Code -1 and signal 0: someone else has reaped it, the status is lost.
  bool core = false;
  /// "out of memory", "likely out of memory"; empty: no sign of it.
  std::string memory{};
  /// User and system time, of it and the children it has waited for.
  std::int64_t cpu_us = 0;
  /// Peak resident memory of the same, in KiB. Linux counts across exec: never
  /// less than the parent's own peak at the launch.
  std::int64_t max_rss_kb = 0;

  bool operator==(const exit_status&) const = default;
};

/// The end of a leader, while some of its life is left.
struct leader_end {
  exit_status status;
  std::uint32_t left = 0;      ///< processes
  std::string left_example{};  ///< one of them: "pid 4711 (sleep)"
};

/// The end of a process and of all that belonged to its life.
struct burial {
  exit_status status;
  /// False: some of it does not die of SIGKILL; it waits in the kernel.
  bool gone = true;
  /// Besides the leader: got SIGKILL.
  std::uint32_t killed = 0;
  std::string killed_example{};  ///< one of them: "pid 4711 (sleep)"
  /// Not touched, as they may be another life's; in words. Empty: none.
  std::string strays{};
};

/// A process that an earlier supervisor had started, see guardian_link.hpp.
struct inherited_process {
  std::uint64_t number = 0;
  std::string key;
  std::uint64_t life = 0;
  pid_t pid = 0;
  std::chrono::milliseconds age{0};
  std::string mark;   ///< the last one given to mark()
  unique_fd pidfd{};  ///< for own_processes(); others ask their guardian
  /// Its program is not executed yet: `started` or `failed` follows.
  bool launching = false;
  // What has happened meanwhile.
  std::optional<leader_end> leader_ended{};
  std::optional<burial> end{};
  /// How long ago it was first told to stop, or its leader ended.
  std::optional<std::chrono::milliseconds> ending{};
};

/// A descriptor that should outlive the supervisor; borrowed.
struct lent_descriptor {
  std::string name;
  int fd = -1;
};

struct start_order {
  std::string key;  ///< of the instance
  std::uint64_t life = 0;
  spawn_request request;
  /// Given back to a successor under these names.
  std::vector<lent_descriptor> keep{};
};

/// Called on the loop, never from within a member of the spawner.
struct spawner_events {
  std::function<void(std::uint64_t number, pid_t pid)> started;
  std::function<void(std::uint64_t number, const os_fault& fault)> failed;
  std::function<void(std::uint64_t number, const leader_end& end)> leader_ended;
  std::function<void(std::uint64_t number, const burial& end)> ended;
};

/// Every member on the thread of the loop.
class spawner {
public:
  spawner() = default;
  spawner(const spawner&) = delete;
  spawner& operator=(const spawner&) = delete;
  virtual ~spawner() = default;

  /// Before anything else.
  virtual void connect(spawner_events events) = 0;

  /// `order.request` and what is to be kept are borrowed for the call. Returns
  /// the number.
  virtual std::uint64_t start(const start_order& order) = 0;

  /// `signo` to the process group; once the leader has ended, and SIGKILL
  /// always, to each process of the life; nothing once it has ended. A fault:
  /// EINVAL for no signal's number, EPERM when the processes belong to another
  /// user.
  virtual std::optional<os_fault> signal(std::uint64_t number, int signo) = 0;

  /// The stop signal, and SIGCONT, or a stopped process would never handle it:
  /// to the process group; once the leader has ended to each process of the
  /// life that has not had it.
  virtual void stop(std::uint64_t number, int signo) = 0;

  /// The process whose children they are.
  [[nodiscard]] virtual pid_t parent() const = 0;

  /// Whether the leader still runs. Asks the kernel.
  [[nodiscard]] virtual bool runs(std::uint64_t number) const = 0;

  /// Remembered with the process.
  virtual void mark(std::uint64_t number, const std::string& bytes) = 0;

  /// Its end has been acted upon.
  virtual void forget(std::uint64_t number) = 0;

  /// A descriptor that was given to be kept is not needed any more.
  virtual void release(const std::string& name) = 0;

  /// Takes over a process of an earlier supervisor: `leader_ended` and `ended`
  /// follow as if it had been started here, at once where that has happened.
  virtual void adopt(inherited_process x) = 0;

  /// SIGKILL to all that is left, and waits, 5 s at most and without the loop,
  /// until it is gone. Tells nobody.
  virtual void end_all() = 0;
};

/// This process as their parent. Throws std::system_error when SIGCHLD is
/// ignored (SIG_IGN or SA_NOCLDWAIT; SIG_IGN is inherited across exec): the
/// kernel would then forget exit statuses. Set it to SIG_DFL at start and leave
/// it there.
std::shared_ptr<spawner> own_processes(boost::asio::io_context& loop);

}  // namespace pup
