// Reading a log store, of a supervisor that runs or of one that does not: the
// files are all there is, nobody is asked.
//
// The store changes under the reader: the newest segment grows, the oldest go,
// others are compressed. A segment that has been opened stays readable, and the
// numbers in the names tell what comes next.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/log_format.hpp"
#include "pup/runtime/log_text.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace pup {

/// The bytes of one segment, compressed or not.
class segment_bytes {
public:
  /// Empty: it is gone (ENOENT), or errno says why not.
  static std::optional<segment_bytes> open(const std::string& folder,
                                           std::uint64_t number);
  /// Up to `size` bytes; 0: the end, for now; -1: the rest cannot be read.
  std::ptrdiff_t read(char* to, std::size_t size);
  /// Reads the last `size` bytes again, which may have changed. False: they
  /// cannot have.
  bool go_back(std::size_t size);

private:
  struct closer {
    void operator()(void* zip) const noexcept;
  };
  segment_bytes() = default;
  unique_fd plain_;
  std::unique_ptr<void, closer> zip_;
};

/// Numbers of the segments in `folder`, in order. Empty: none, or no folder.
std::vector<std::uint64_t> segments_in(const std::string& folder);

/// What became of a reading.
struct read_report {
  std::uint64_t lines = 0;          ///< that the filter wanted
  std::uint64_t damaged_bytes = 0;  ///< skipped
  bool stopped = false;             ///< the receiver wanted no more
};

/// False: no more, please.
using line_receiver = std::function<bool(const log_line&)>;

/// Gives every line that `filter` wants to `to`, oldest first; with `last`,
/// only the last so many of them. Memory does not grow with the store.
read_report read_lines(const std::string& folder, const line_filter& filter,
                       std::optional<std::uint64_t> last,
                       const line_receiver& to);

/// Lines as they come, by inotify: follows from segment to segment, and so
/// through restarts of processes and of the supervisor.
class log_follower {
public:
  using receiver = std::function<void(const log_line&)>;

  /// From the end of the store on; it need not have a segment yet. All that is
  /// stored before goes to `history`, if there is one. Throws
  /// std::system_error when `folder` cannot be watched (ENOENT, ENOSPC: no more
  /// watches).
  explicit log_follower(const std::string& folder,
                        const receiver& history = nullptr);

  /// Readable (poll) when there may be something new.
  [[nodiscard]] int fd() const noexcept {
    return watch_.get();
  }

  /// All that is new.
  void read_new(const receiver& to);

private:
  void read_segment(bool live);
  void read_on(const receiver& to);
  std::optional<std::uint64_t> next_segment() const;

  std::string folder_;
  unique_fd watch_;
  std::uint64_t number_ = 0;  // of the one that is being read; 0: none yet
  std::optional<segment_bytes> bytes_;
  std::string unread_;
  receiver to_;
  std::unique_ptr<log_reader> reader_;
};

}  // namespace pup
