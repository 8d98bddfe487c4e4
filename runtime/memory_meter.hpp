// What several processes hold together, shared pages counted once: the sum of
// their proportional set sizes (PSS).
//
// The kernel adds those up under the lock of the memory map that it looks at,
// and whoever runs in there can keep that for as long as it likes. So a thread
// of its own does it, for one group of processes at a time. One that does not
// come back is left alone, and one more goes on with the others; where that is
// stuck as well, nobody is measured until one of the two is back.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <sys/types.h>

namespace boost::asio {
class io_context;
}

namespace pup {

struct memory_reading {
  std::uint64_t bytes = 0;
  /// Why it could not be found out, in words; empty: it could.
  std::string obstacle;
};

/// Reads /proc/PID/smaps_rollup of each. A process that has ended holds
/// nothing. May wait for ever. Any thread.
memory_reading proportional_memory(const std::vector<pid_t>& pids);

/// Every member on the thread of the loop, which outlives this; a thread that
/// is stuck may outlive both.
class memory_meter {
public:
  using read_function =
      std::function<memory_reading(const std::vector<pid_t>& pids)>;
  using answer_function = std::function<void(const memory_reading&)>;

  /// `read` is called on other threads. It has `patience` to answer.
  memory_meter(boost::asio::io_context& loop,
               std::chrono::milliseconds patience, read_function read);
  memory_meter(const memory_meter&) = delete;
  memory_meter& operator=(const memory_meter&) = delete;
  /// Waits for nobody. Unanswered questions stay so.
  ~memory_meter();

  /// Answered once, never from within.
  void measure(std::vector<pid_t> pids, answer_function answer);

private:
  class impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace pup
