// What processes use now, for status: memory and processor time.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <sys/types.h>

namespace pup {

/// One process at one moment.
struct process_usage {
  pid_t pid = 0;
  /// Resident memory, shared pages included; the kernel's cheap counter, which
  /// may lag by some pages per thread. 0 for a process that has ended and
  /// waits to be reaped.
  std::uint64_t rss_bytes = 0;
  /// User and system time of all its threads since its start, without its
  /// children; in ticks of 10 ms (sysconf(_SC_CLK_TCK)).
  std::chrono::microseconds cpu_time{0};
  bool lives = true;  ///< false: it has ended, and waits to be reaped
};

/// Reads /proc/PID/stat of each: three system calls and about 15 us per pid.
/// In the order of `pids`; a process that does not exist, or may not be looked
/// at, is absent. The caller knows that a pid is still the one it means, as
/// long as that is a child it has not reaped. Any thread.
std::vector<process_usage> sample(const std::vector<pid_t>& pids);

/// All processes of a session together.
struct session_usage {
  /// Resident memory; pages that several of them share count for each.
  std::uint64_t rss_bytes = 0;
  std::vector<pid_t> pids;
};

/// By session. A walk through /proc: about 15 us for each process of the
/// machine. Any thread.
std::map<pid_t, session_usage> sample_sessions();

/// Whether this process can open nothing more, and what that means, in words.
/// Empty: it can. Two system calls. Any thread.
std::string descriptor_shortage();

}  // namespace pup
