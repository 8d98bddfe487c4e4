// The processes in a guardian's care, and all that they start.
//
// A ward leads a session and a process group. Whatever it starts that outlives
// its parent becomes a child of this process, the subreaper, so that after the
// end of a ward all of its descendants are found below our own children that
// are no wards. Whose they are is told by the session, else by the variable
// that each process of a life inherits (descendants.hpp), else by what was seen
// below the ward when it was last signalled. What has neither stays until the
// end of the guardian.
//
// A ward has ended when nothing of it is left: its group and its descendants
// get SIGKILL, and as all of them become our children the kernel tells of each
// end. There is one timer, for what does not die of SIGKILL: 10 s.
#pragma once

#include "pup/runtime/guard_protocol.hpp"
#include "pup/runtime/out_of_memory.hpp"
#include "pup/runtime/process.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include <sys/types.h>

namespace pup {

struct ward {
  std::uint64_t number = 0;
  std::string key;
  std::uint64_t life = 0;
  pid_t pid = 0;
  std::chrono::steady_clock::time_point begun{};
  std::string mark;
  bool killed = false;  ///< by us
  enum class phase : std::uint8_t {
    runs,
    dying,  ///< it has ended, but some of what it has started has not
    ended,
  } now = phase::runs;
  guard::ended end;  ///< complete when it has ended
  std::chrono::steady_clock::time_point deadline{};  ///< while dying
};

/// How a process that is no ward ended.
struct exit_of {
  pid_t pid = 0;
  int code = -1;  ///< -1: by `signal`
  int signal = 0;
};

/// One thread.
class wards {
public:
  using time_point = std::chrono::steady_clock::time_point;

  /// Starts a program; `x.request` is used up. The pidfd is the caller's.
  std::variant<child, os_fault> start(guard::start& x);

  [[nodiscard]] ward* find(std::uint64_t number);
  [[nodiscard]] const std::map<std::uint64_t, ward>& all() const {
    return wards_;
  }

  void signal(std::uint64_t number, int signo);
  /// Nothing while it has not ended.
  void forget(std::uint64_t number);

  /// After SIGCHLD: reaps all that has ended. `special`, a child that is no
  /// ward, is left to the caller: what became of it, if it has ended.
  std::optional<exit_of> reap(pid_t special);

  /// Numbers of those that have ended since the last call.
  std::vector<std::uint64_t> newly_ended();

  /// When on_time() is due.
  [[nodiscard]] std::optional<time_point> deadline() const;
  void on_time();

  /// SIGKILL to all that is left but `special`. False: nothing was left.
  bool kill_all(pid_t special);

private:
  struct stray {
    std::uint64_t number = 0;  // of its ward
    std::uint64_t started = 0;
  };

  void bury(pid_t special);
  std::uint64_t owner_of(pid_t orphan);
  void watch_strays(const ward& x);
  std::vector<pid_t> orphans(pid_t special) const;
  void end(ward& x);

  std::map<std::uint64_t, ward> wards_;
  std::unordered_map<pid_t, std::uint64_t> by_pid_;  // unreaped ones
  std::unordered_map<pid_t, std::uint64_t> groups_;  // of those not ended
  // Seen below a ward, outside of its session.
  std::unordered_map<pid_t, stray> strays_;
  std::string scope_;
  std::vector<std::uint64_t> newly_ended_;
  std::uint32_t dying_ = 0;
  oom_witness memory_;
};

}  // namespace pup
