// Who uses more memory than it may.
//
// The kernel tells by no event that the resident memory of some processes has
// passed a bound: memory.high of a cgroup (version 2) would, but slows them
// down to a crawl there, which is no way to wait for a graceful restart. So a
// timer looks every five seconds, as long as there is anybody to look at: often
// enough for what leaks, and 1.5 ms of /proc for 100 processes.
//
// Pages that the processes of a session share are to count once. The cheap
// counters count them for each, which is never too little: only where their sum
// is above the bound, and is that of several processes, is it measured exactly.
#pragma once

#include "pup/runtime/memory_meter.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <sys/types.h>

namespace boost::asio {
class io_context;
}

namespace pup {

/// "312M": in units of which there are some, rounded up.
std::string amount_of_memory(std::uint64_t bytes);

/// Every member on the thread of the loop, which outlives this.
class memory_watch {
public:
  /// `outgrown` is called once for a session, never from within a member of
  /// this; it may call them. `used` is in bytes; `remark` says why shared pages
  /// count in it for each process, and is empty where they count once.
  using event = std::function<void(pid_t leader, std::uint64_t used,
                                   const std::string& remark)>;

  struct options {
    std::chrono::milliseconds interval = std::chrono::seconds(5);
    /// For one session, to be measured exactly.
    std::chrono::milliseconds patience = std::chrono::seconds(5);
    memory_meter::read_function measure = proportional_memory;
  };

  memory_watch(boost::asio::io_context& loop, event outgrown, options how);
  memory_watch(boost::asio::io_context& loop, event outgrown);
  memory_watch(const memory_watch&) = delete;
  memory_watch& operator=(const memory_watch&) = delete;
  ~memory_watch();

  /// Looks at the session of `leader`: it and all that it started, as far as
  /// that has not begun a session of its own. The result is the last figure
  /// that has been found, in bytes; 0: none yet. Any thread may read it.
  std::shared_ptr<const std::atomic<std::uint64_t>> add(
      pid_t leader, std::uint64_t most_bytes);

  /// Unknown leaders are ignored.
  void remove(pid_t leader);

private:
  class impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace pup
