// Work that may wait for ever: for a file system, a name service, a program.
// Each piece has a thread of its own, so that nobody else waits with it; their
// number is bounded, as one that does not come back keeps its thread.
//
// No CAF, no Asio.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace pup {

class waiting_work {
public:
  /// Called afterwards, by the thread that has done the work.
  using tell_function = std::function<void()>;

  /// At most `most` threads at once.
  explicit waiting_work(std::size_t most);
  waiting_work(const waiting_work&) = delete;
  waiting_work& operator=(const waiting_work&) = delete;
  /// Waits for no work, only for a call of what tells of it. Threads that are
  /// under way end by themselves, and tell nobody.
  ~waiting_work();

  /// Begins `work` and returns. What that returns is called unless this has
  /// been destroyed; it must not block. Empty; or why it was not begun, in
  /// words. Any thread.
  [[nodiscard]] std::string begin(std::function<tell_function()> work);

private:
  struct shared;
  std::shared_ptr<shared> shared_;
};

}  // namespace pup
