// The lives in a guardian's care: their leaders, and all that these have
// started (membership.hpp).
//
// A leader leads a session and a process group. Its end is not that of the
// life: what is left gets signals as long as the supervisor sends some, each
// process by itself, never by the number of a group that may be somebody else's
// by now. A life has ended when nothing of it is left. As all of it becomes our
// children sooner or later, the kernel tells of each end. Timers exist for what
// does not die of SIGKILL (10 s), and for an orphan's variable.
#pragma once

#include "pup/runtime/guard_protocol.hpp"
#include "pup/runtime/membership.hpp"
#include "pup/runtime/out_of_memory.hpp"
#include "pup/runtime/process.hpp"

#include <chrono>
#include <csignal>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include <sys/resource.h>
#include <sys/types.h>

namespace pup {

struct ward {
  std::uint64_t number = 0;
  std::string key;
  std::uint64_t life = 0;
  pid_t pid = 0;  ///< of the leader
  std::chrono::steady_clock::time_point begun{};
  std::string mark;
  enum class phase : std::uint8_t {
    runs,
    remains,  ///< the leader has ended, the life has not
    ended,
  } now = phase::runs;
  guard::leader_ended rest;  ///< complete when it was told
  bool told = false;         ///< `rest` was
  guard::ended end;          ///< complete when it has ended
  /// While it remains: until then an orphan that is still being asked counts.
  std::chrono::steady_clock::time_point unsure_until{};
  /// It got SIGKILL, and when that is given up.
  std::optional<std::chrono::steady_clock::time_point> killed_until;
  /// When its group had the stop signal, in ticks since the boot; 0: never.
  std::uint64_t group_stopped = 0;
  /// Processes that have had the stop signal, or SIGKILL, each by its start.
  std::map<pid_t, std::uint64_t> stopped;
  std::map<pid_t, std::uint64_t> killed;
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

  /// As guard::signal and guard::stop say.
  void signal(std::uint64_t number, int signo);
  void stop(std::uint64_t number, int signo);
  /// What belongs to it is looked at, before its leader may have gone.
  void look_at(std::uint64_t number);
  /// Nothing while it has not ended.
  void forget(std::uint64_t number);

  /// A child of ours that is no life.
  void set_apart(pid_t pid) {
    members_.set_apart(pid);
  }

  /// After SIGCHLD: reaps all that has ended. `special`, a child that is no
  /// life, is left to the caller: what became of it, if it has ended.
  std::optional<exit_of> reap(pid_t special);

  /// What has happened since the last call: leader_ended, ended, strays.
  std::vector<guard::message> news();
  [[nodiscard]] const std::vector<std::string>& strays() const {
    return strays_;
  }

  /// When on_time() is due.
  [[nodiscard]] std::optional<time_point> deadline() const;
  void on_time();

  /// SIGKILL to all children that are left but `special`. False: there was none.
  bool kill_all(pid_t special);

private:
  ward* find_living(std::uint64_t number);
  void leader_ended(ward& x, const siginfo_t& info, const rusage& usage);
  void settle();
  void kill_rest(ward& x);
  bool kill_once(ward& x);
  void end(ward& x);

  std::map<std::uint64_t, ward> wards_;
  std::unordered_map<pid_t, std::uint64_t> leaders_;  // unreaped ones
  std::set<std::uint64_t> remaining_;
  membership members_;
  std::vector<guard::message> news_;
  std::vector<std::string> strays_;
  oom_witness memory_;
  bool has_scope_ = false;
};

}  // namespace pup
