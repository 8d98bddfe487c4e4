// Counting what the disk does not take, until that can be said.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/log_text.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace pup {

/// What was lost of the output of one instance, over all its lives and all the
/// places it should have gone to. Written by the log's thread, read by any.
struct log_losses {
  std::atomic<std::uint64_t> lines{0};
  std::atomic<std::uint64_t> bytes{0};
};

/// Lines that one place has not taken since the last word about it.
class log_loss {
public:
  using time_point = std::chrono::system_clock::time_point;

  /// `cause`: errno; `why`: more than that says. `total` may be null.
  void add(std::string_view lost, int cause, time_point now, log_losses* total,
           const std::string& why = {}) {
    std::uint64_t lines = 0;
    for (const char c : lost)
      lines += c == '\n' ? 1 : 0;
    if (bytes_ == 0)
      since_ = now;
    bytes_ += lost.size();
    lines_ += lines;
    cause_ = cause;
    why_ = why;
    if (total != nullptr) {
      total->bytes += lost.size();
      total->lines += lines;
    }
  }

  [[nodiscard]] bool any() const noexcept {
    return bytes_ > 0;
  }

  /// "lost 3 lines (120 bytes) of stdout since …: No space left on device"
  [[nodiscard]] std::string text(std::string_view of) const {
    const auto since_us = std::chrono::duration_cast<std::chrono::microseconds>(
                              since_.time_since_epoch())
                              .count();
    return "lost " + std::to_string(lines_) + " lines ("
           + std::to_string(bytes_) + " bytes) of " + std::string{of}
           + " since "
           + time_text(static_cast<std::uint64_t>(since_us),
                       std::chrono::minutes{0})
           + ": " + reason_of({{}, {}, cause_, why_});
  }

private:
  std::uint64_t bytes_ = 0;
  std::uint64_t lines_ = 0;
  time_point since_;
  int cause_ = 0;
  std::string why_;
};

}  // namespace pup
