// The lives in a guardian's care: their leaders, and all that these have
// started (membership.hpp).
//
// A leader leads a session and a process group. Its end is not that of the
// life: what is left gets signals as long as the supervisor sends some, each
// process by itself, never by the number of a group that may be somebody else's
// by now. A life has ended when nothing of it is left. As all of it becomes our
// children sooner or later, the kernel tells of each end. Timers exist for what
// does not die of SIGKILL (10 s), and for an orphan's variable.
//
// Programs are executed on threads of their own (spawn_pool.hpp), so that a
// file system that does not answer holds up nobody else. What these threads
// start is not among the children of the thread that asks for orphans.
#pragma once

#include "pup/runtime/guard_protocol.hpp"
#include "pup/runtime/membership.hpp"
#include "pup/runtime/out_of_memory.hpp"
#include "pup/runtime/process.hpp"
#include "pup/runtime/spawn_pool.hpp"

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
  pid_t pid = 0;  ///< of the leader; 0: it starts
  std::chrono::steady_clock::time_point begun{};
  /// The first stop signal, or the end of the leader: the life has a time to
  /// end in, which counts once.
  std::optional<std::chrono::steady_clock::time_point> ending_since;
  std::string mark;
  std::string cgroup;  ///< its own (life_cgroup.hpp); empty: none
  enum class phase : std::uint8_t {
    starts,  ///< the leader has not executed its program yet
    runs,
    remains,  ///< the leader has ended, the life has not
    ended,
  } now = phase::starts;
  guard::leader_ended rest;  ///< complete when it was told
  bool told = false;         ///< `rest` was
  guard::ended end;          ///< complete when it has ended
  /// While it remains: until then an orphan that is still being asked counts.
  std::chrono::steady_clock::time_point unsure_until{};
  /// It got SIGKILL, and when that is given up.
  std::optional<std::chrono::steady_clock::time_point> killed_until;
  int stop_signal = 0;  ///< the last one; 0: none was sent
  /// When its group had the stop signal, in ticks since the boot; 0: never.
  std::uint64_t group_stopped = 0;
  /// Processes that have had the stop signal, or SIGKILL, each by its start.
  std::map<pid_t, std::uint64_t> stopped;
  std::map<pid_t, std::uint64_t> killed;

  template <class Archive>
  friend void transfer(Archive& a, ward& x) {
    a(x.number, x.key, x.life, x.pid, x.begun, x.ending_since, x.mark, x.cgroup,
      x.now, x.told, x.unsure_until, x.killed_until, x.stop_signal,
      x.group_stopped, x.stopped, x.killed);
    transfer_message(a, x.rest);
    transfer_message(a, x.end);
  }

private:
  template <class Archive, class T>
  static void transfer_message(Archive& a, T& x) {
    guard::packet packet;
    packet.bytes = guard::encode(x).bytes;
    a(packet.bytes);
    const auto message = guard::decode(packet);
    const auto* same = std::get_if<T>(&message);
    a.require(same != nullptr);
    if (same != nullptr)
      x = *same;
  }
};

/// How a process that is no ward ended.
struct exit_of {
  pid_t pid = 0;
  int code = -1;  ///< -1: by `signal`
  int signal = 0;
};

/// One thread, which is the main one: orphans become its children.
class wards {
public:
  using time_point = std::chrono::steady_clock::time_point;

  /// After the dispositions of signals are set.
  wards();

  /// Readable when take_starts() has something to do.
  [[nodiscard]] int starts() const noexcept {
    return started_.get();
  }
  void take_starts();

  /// Begins to start a program; news() tells what has become of it. `owned`:
  /// what the request names.
  void start(guard::start& x, std::vector<unique_fd> owned);
  /// Some start is under way.
  [[nodiscard]] bool starts_something() const;
  /// So many wait for their turn that no more should be begun for now.
  [[nodiscard]] bool is_congested() const;

  /// Begins to start a child that is no life. One at a time.
  void start_apart(spawn_request request, std::vector<unique_fd> owned);
  /// What has become of it, once: its pid, or why there is none.
  std::optional<std::variant<pid_t, os_fault>> started_apart();
  void give_up_apart();

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

  /// After SIGCHLD, and after started_apart(): reaps all that has ended. What
  /// became of `special`, a child that is no life, if it has.
  std::optional<exit_of> reap(pid_t special);

  /// What has happened since the last call: started, start_failed,
  /// leader_ended, ended, strays.
  std::vector<guard::message> news();
  [[nodiscard]] const std::vector<std::string>& strays() const {
    return strays_;
  }

  /// For a successor of this program (exec), while nothing is starting.
  void before_transfer() {
    members_.close_questions();
  }
  template <class Archive>
  friend void transfer(Archive& a, wards& x) {
    a(x.wards_, x.leaders_, x.remaining_, x.members_, x.strays_, x.has_scope_);
  }

  /// When on_time() is due.
  [[nodiscard]] std::optional<time_point> deadline() const;
  void on_time();

  /// SIGKILL to all children that are left; starts nothing any more. False:
  /// there was none.
  bool kill_all();

private:
  struct end_of_child {
    siginfo_t info{};
    rusage usage{};
  };

  void forget_failed();
  bool began(std::uint64_t number, const child& born);
  void failed(std::uint64_t number, const os_fault& fault);
  ward* find_living(std::uint64_t number);
  void leader_ended(ward& x, const siginfo_t& info, const rusage& usage);
  void stop_member(ward& x, const membership::member& y);
  void stop_late();
  void settle();
  void kill_rest(ward& x);
  void remove_cgroup_of(ward& x);
  bool kill_once(ward& x);
  void end(ward& x);

  std::map<std::uint64_t, ward> wards_;
  std::set<std::uint64_t> starting_;
  std::unordered_map<pid_t, std::uint64_t> leaders_;  // unreaped ones
  // Of children that may have been started by a thread which has not said so.
  std::unordered_map<pid_t, end_of_child> unclaimed_;
  std::set<std::uint64_t> remaining_;
  membership members_;
  std::vector<guard::message> news_;
  std::vector<std::string> strays_;
  oom_witness memory_;
  bool has_scope_ = false;
  std::optional<std::variant<pid_t, os_fault>> apart_;
  unique_fd started_;                      // an eventfd
  std::vector<std::string> left_cgroups_;  // somebody did not die
  std::optional<spawn_pool> pool_;
};

}  // namespace pup
