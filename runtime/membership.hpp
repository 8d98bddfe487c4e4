// Which process belongs to which life, told by what programs cannot overwrite.
//
// A life begins with its leader, a child of this process, which is a subreaper:
// whatever loses its parent becomes our child as well, an *orphan*. So a life
// has something left as long as one of our children belongs to it, and the rest
// is found below these. Reparenting raises no event: the orphans are looked at
// with each SIGCHLD, and what is below a leader before each signal. Whose an
// orphan is, is told by, in this order:
//
//   1. having been seen below the leader, or below another orphan of the life,
//      by pid and start time;
//   2. a cgroup that only this life is in;
//   3. its session: the leader's, or one in which the life was seen;
//   4. a pipe that only this life was given, on its descriptors 1 and 2;
//   5. the variable that each process of a life inherits (descendants.hpp), if
//      its user is one that the life can have. That is memory of the program:
//      it may forge it, erase it, and make its reader wait; a helper process
//      reads it. After a second it is given up, whether it dies of that or not;
//   6. being all that the life can have left behind: no other life existed that
//      could have.
//
// None of these, or several lives by the last: it is a *stray*. It belongs to
// nobody, is told by name, and ends with the guardian. What begins after a
// first stray may have come from one, and rule 6 does not hold for it.
//
// Where this is process 1 of a container, an orphan may come from outside, and
// rule 6 does not hold.
#pragma once

#include "pup/runtime/fd.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include <sys/types.h>

namespace pup {

namespace bounds {
/// Sessions that lives have made which are remembered. Beyond it those are
/// forgotten in which nobody is any more, then the oldest of the life that has
/// the most.
inline constexpr std::size_t made_sessions = 4096;
/// Orphans that are asked at once; the others wait for their turn. When so many
/// helpers do not even die of SIGKILL nobody is asked any more.
inline constexpr std::size_t questions = 64;
}  // namespace bounds

/// How the processes of a life are known.
struct life_traits {
  pid_t leader = 0;  ///< 0: it is being started
  /// The leader's start is not before that, in clock ticks since the boot.
  std::uint64_t started = 0;
  /// The user that all of it has; none: this process's own, or any other one
  /// where that is root.
  std::optional<uid_t> user{};
  std::vector<std::uint64_t> pipes{};  ///< inodes
  std::string cgroup_folder{};         ///< empty: none
  /// No other life is ever in that (life_cgroup.hpp).
  bool has_own_cgroup = false;

  template <class Archive>
  friend void transfer(Archive& a, life_traits& x) {
    a(x.leader, x.started, x.user, x.pipes, x.cgroup_folder, x.has_own_cgroup);
  }
};

/// One thread, which has no other children than the lives', orphans, and what
/// set_apart() names.
class membership {
public:
  using clock = std::chrono::steady_clock;

  /// For how long the variable of an orphan is waited for.
  static constexpr std::chrono::seconds patience{1};

  /// `processes`: where PID/environ is read; everything else is asked of /proc.
  explicit membership(std::size_t most_sessions = bounds::made_sessions,
                      std::string processes = "/proc")
      : most_sessions_(most_sessions), processes_(std::move(processes)) {}

  /// Of life_entry().
  void set_scope(std::string scope) {
    scope_ = std::move(scope);
  }

  /// Before its leader is started: what that leaves may be met before it.
  void begin(std::uint64_t number, life_traits traits);
  void lead(std::uint64_t number, pid_t leader);
  void end(std::uint64_t number);

  /// A child that is no life's, and what it has started is not, either.
  void set_apart(pid_t pid);

  /// A child has ended and is about to be reaped: its numbers are its own
  /// still.
  void about_to_reap(pid_t pid);
  /// It was. True: it was a helper of ours.
  bool reaped(pid_t pid);

  /// Finds new orphans.
  void look_at_orphans();
  /// Finds what is below the leader and the orphans of a life.
  void look_below(std::uint64_t number);

  /// An orphan of it is left; or, where `unsure` counts, one that may be its
  /// own and is still being asked.
  [[nodiscard]] bool has_left(std::uint64_t number, bool unsure) const;

  struct member {
    pid_t pid = 0;
    std::uint64_t started = 0;
  };
  /// As the last looks have found them, without the leader.
  [[nodiscard]] std::vector<member> of(std::uint64_t number) const;

  struct late_member {
    std::uint64_t number = 0;
    member who;
  };
  /// Orphans that were asked first, since the last call: what was sent to the
  /// members meanwhile has not reached them.
  std::vector<late_member> take_late();

  /// Strays that this life may have left: "pid 4711 (sleep)" each.
  [[nodiscard]] std::vector<std::string> strays_of(std::uint64_t number) const;
  [[nodiscard]] std::vector<std::string> strays() const;

  /// When on_time() is due.
  [[nodiscard]] std::optional<clock::time_point> deadline() const;
  void on_time();

  /// Sessions that are remembered, those of leaders among them.
  [[nodiscard]] std::size_t sessions() const noexcept {
    return sessions_.size();
  }

  /// Gives up questions: a successor of this program asks them again. Before
  /// transfer() to it.
  void close_questions();
  template <class Archive>
  friend void transfer(Archive& a, membership& x) {
    a(x.scope_, x.first_stray_, x.lives_, x.leaders_, x.apart_, x.known_,
      x.sessions_);
  }

private:
  struct process {
    std::uint64_t started = 0;
    std::uint64_t number = 0;                 // 0: not known, or nobody's
    bool orphan = false;                      // a child of ours
    bool asked = false;                       // its variable is being read
    std::vector<std::uint64_t> candidates{};  // while asked, and of a stray

    template <class Archive>
    friend void transfer(Archive& a, process& x) {
      a(x.started, x.number, x.orphan, x.candidates);
    }
  };
  struct session {
    std::uint64_t number = 0;
    std::uint64_t seen = 0;  // ticks: until then it was this life's
    bool leads = false;      // its leader is that of the life, unreaped

    template <class Archive>
    friend void transfer(Archive& a, session& x) {
      a(x.number, x.seen, x.leads);
    }
  };
  struct question {
    pid_t orphan = 0;
    std::uint64_t started = 0;
    unique_fd answer;
    clock::time_point deadline;
  };

  std::vector<pid_t> orphans_by_now() const;
  void meet(pid_t pid);
  void claim(pid_t pid, std::uint64_t number);
  void claim_tree(pid_t pid, std::uint64_t number);
  std::uint64_t by_session(pid_t pid, std::uint64_t started) const;
  std::uint64_t by_pipe(pid_t pid) const;
  std::uint64_t by_cgroup(pid_t pid) const;
  void ask(pid_t pid);
  void ask_next();
  bool put_question(pid_t pid);
  void answered(const question& x, std::uint64_t number);
  void judge_by_elimination(pid_t pid);
  std::vector<std::uint64_t> possible_owners(pid_t pid) const;
  std::vector<std::uint64_t> owners_by_variable(pid_t pid,
                                                std::uint64_t number) const;
  void keep_session(std::uint64_t number, pid_t id);
  void forget_sessions();
  void leader_ended(std::uint64_t number);

  void claim_late(pid_t pid, std::uint64_t number);
  void become_stray(process& x, std::vector<std::uint64_t> candidates);

  std::size_t most_sessions_;
  std::string processes_;
  std::string scope_;
  // What began later than the first stray may have come from one.
  std::optional<std::uint64_t> first_stray_;
  std::map<std::uint64_t, life_traits> lives_;
  std::unordered_map<pid_t, std::uint64_t> leaders_;  // unreaped
  std::set<pid_t> apart_;
  std::unordered_map<pid_t, process> known_;
  std::unordered_map<pid_t, session> sessions_;
  std::map<pid_t, question> questions_;  // by helper
  std::deque<member> to_ask_;
  std::vector<late_member> late_;
  std::set<pid_t> given_up_;  // helpers that had SIGKILL
};

}  // namespace pup
