// Processes as /proc tells of them: whose children they are, and for which life
// they were started.
//
// Everything is a snapshot; a pid that has ended meanwhile reads as nothing.
// Small: the guardian uses it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace pup {

/// The variable that every process of a life inherits: SCOPE#NUMBER, where the
/// scope is of one guardian only.
inline constexpr std::string_view life_variable = "PUP_LIFE=";

std::string life_entry(std::string_view scope, std::uint64_t number);

/// The number in the value of that variable; 0: of another scope, or none.
std::uint64_t number_in(std::string_view value, std::string_view scope);

/// What /proc/PID/stat says of a process.
struct process_stat {
  char state = 0;  ///< 'R', 'S', …; 'Z' and 'X': it has ended
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;
  /// Clock ticks since the boot. With the pid it names a process for good.
  std::uint64_t started = 0;
  bool is_kernel = false;  ///< a thread of the kernel

  /// It has not ended.
  [[nodiscard]] bool lives() const {
    return state != 'Z' && state != 'X';
  }
};

/// None: there is no such process.
std::optional<process_stat> stat_of(pid_t pid);

/// Sends a signal to the process that began at `started`, and to no other that
/// has its number by now. False: it has ended, or belongs to somebody else.
bool signal_process(pid_t pid, std::uint64_t started, int signo);

/// The pipe that descriptor `fd` of a process leads to, by its inode; 0: it
/// leads elsewhere, or may not be looked at.
std::uint64_t pipe_behind(pid_t pid, int fd);

/// The real user of a process; none: it has ended.
std::optional<uid_t> user_of(pid_t pid);

/// Children of all threads of a process, zombies among them.
std::vector<pid_t> children_of(pid_t pid);

/// Children of the thread that has asked first, zombies among them; of the main
/// one what it has forked, and orphans. Asking often takes a third of the time.
std::vector<pid_t> own_children();

/// 0: there is none, or no such process.
pid_t parent_of(pid_t pid);

/// Those, their children, and so on.
std::vector<pid_t> descendants_of(pid_t pid);

/// Value of life_variable in the bytes of /proc/PID/environ; empty: none.
std::string life_in(std::string_view environment);

/// The present, on the clock of process_stat::started.
std::uint64_t ticks_since_boot();

/// process_stat::started; 0: there is no such process.
std::uint64_t start_ticks(pid_t pid);

/// "pid 4711 (sleep)"
std::string describe_process(pid_t pid);

/// All of the machine's that can be seen.
std::vector<pid_t> all_processes();

}  // namespace pup
