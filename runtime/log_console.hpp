// Lines on the supervisor's own standard output or error, without ever waiting
// for whoever reads there: a stopped terminal or a slow pipe must not stop the
// output of all processes. What finds no place is counted and said.
//
// One thread.
#pragma once

#include "pup/runtime/fd.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace pup {

class log_console {
public:
  /// Most bytes that wait for the reader.
  static constexpr std::size_t most_waiting_bytes = 256 * 1024;

  /// Writes to what `fd` is now. Flags of `fd` itself, which other processes
  /// may share, stay as they are.
  explicit log_console(int fd);

  /// Whole lines.
  void write(std::string_view lines);

  /// The reader can take more.
  void flush();

  /// Waits, `limit_ms` at most, until all is written.
  void finish(int limit_ms);

  /// Whether something waits; then watch fd() for it to be writable.
  [[nodiscard]] bool waiting() const noexcept {
    return !waiting_.empty();
  }
  [[nodiscard]] int fd() const noexcept {
    return file_.get();
  }
  [[nodiscard]] bool is_terminal() const noexcept {
    return terminal_;
  }
  [[nodiscard]] std::uint64_t dropped_lines() const noexcept {
    return dropped_;
  }

private:
  std::size_t put(std::string_view bytes);

  unique_fd file_;
  bool socket_ = false;
  bool terminal_ = false;
  std::string waiting_;
  std::uint64_t dropped_ = 0;
  std::uint64_t unsaid_ = 0;
};

}  // namespace pup
