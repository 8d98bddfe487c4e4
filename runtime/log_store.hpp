// The log store of one supervisor: a folder of numbered segments, written by
// one thread of one process and read by anyone (log_query.hpp).
//
//   0000000001.log.gz  0000000002.log.gz  0000000003.log   <- grows
//
// Output goes from its pipe into the newest segment by splice(): no byte passes
// through this process, and at every moment a byte is either still in the pipe
// or already in the file, so that the death of the supervisor loses none. A
// header is written first, its data behind it, and then the header is marked
// complete; who opens the store after a crash completes the last one.
//
// Bounds: segments of at most 16 MiB or an eighth of `bytes`; the oldest goes
// when all together have more than `bytes`, are more than most_segments, or
// when its last line is older than `keep`.
//
// Expected trouble, a full disk above all, is the caller's to count: a call
// says how much it has taken and why not more. For retry_pause after that the
// store takes nothing and asks the disk nothing.
//
// One thread. The clock comes in with each call.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/log_format.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pup {

struct log_store_rules {
  /// How long lines are kept. 0: there is no store.
  std::chrono::hours keep{48};
  /// Most bytes of all segments together, at least least_store_bytes.
  std::uint64_t bytes = std::uint64_t{512} << 20;
};

inline constexpr std::uint64_t least_store_bytes = 1u << 20;
inline constexpr std::uint64_t most_segment_bytes = 16u << 20;
inline constexpr std::size_t most_segments = 4096;

/// "0000000042.log"
std::string segment_name(std::uint64_t number);
/// The number of a segment's file, compressed (".gz") or not.
std::optional<std::uint64_t> segment_number(std::string_view file);

class log_store {
public:
  using time_point = std::chrono::system_clock::time_point;

  /// One output of one process, or pup's words about it. Owned by the store.
  class source {
    friend class log_store;
    std::string id;
    log_stream stream = log_stream::out;
    bool fresh = true;
    // Within a line at the beginning of the segment; only known then.
    bool within_line = false;
    // Offset in the segment of its last byte; -1: it has none there.
    std::int64_t last_byte = -1;
    std::string begun;
  };

  struct taken {
    std::size_t bytes = 0;
    /// Where they are in file(), until the next call.
    std::int64_t offset = 0;
    int error = 0;  ///< errno: why it is not more
  };

  static constexpr std::chrono::milliseconds retry_pause{1'000};

  /// Continues the store in `folder`, which is made when it is missing (mode
  /// 0700). Trouble shows with the first call that writes.
  log_store(std::string folder, const log_store_rules& rules, time_point now);
  log_store(const log_store&) = delete;
  log_store& operator=(const log_store&) = delete;

  /// Calls `full` with the path of each segment that takes no more, now and
  /// from now on: it may be compressed.
  void on_full(std::function<void(const std::string& path)> full);

  /// `id`: 1 to 255 bytes. `resumed`: its data continue those that the store
  /// has of the same id and stream, perhaps in the middle of a line.
  source* open(std::string id, log_stream stream, bool resumed = false);
  /// Of a resumed source, once: what the newest segment has of the line that it
  /// is within.
  static std::string take_begun(source& x) {
    return std::exchange(x.begun, {});
  }
  /// No more comes.
  void close(source* x, time_point now);

  /// Takes `bytes` that are ready in `pipe`, or fewer: a segment is full, or
  /// an error.
  taken take_from(source& x, int pipe, std::size_t bytes, time_point now);
  /// The same from memory: all of it, at most 64 KiB, or nothing.
  taken take(source& x, std::string_view data, time_point now);
  /// After bytes were lost: the next ones begin a line.
  void break_line(source& x) {
    x.fresh = true;
  }

  /// The newest segment, for reading; -1: none.
  [[nodiscard]] int file() const noexcept {
    return file_.get();
  }

  /// Whether it would try to write now.
  [[nodiscard]] bool usable(time_point now) const {
    return now >= retry_at_ || now + retry_pause < retry_at_;
  }

  /// The last errno that kept it from writing; 0: none has.
  [[nodiscard]] int trouble() const noexcept {
    return trouble_;
  }

  /// Removes what is too old or too much.
  void expire(time_point now);
  /// When expire() has something to do; empty: nothing is kept.
  [[nodiscard]] std::optional<time_point> next_expiry() const;
  /// A segment was compressed.
  void resized(const std::string& path);

  /// Of all segments.
  [[nodiscard]] std::uint64_t bytes() const noexcept {
    return closed_bytes_ + size_;
  }

private:
  struct segment {
    std::uint64_t number = 0;
    std::uint64_t bytes = 0;
    time_point last;  // written
  };

  [[nodiscard]] std::string path_of(std::uint64_t number) const;
  void find_segments();
  void resume(time_point now);
  std::uint64_t repair(int file, std::string_view bytes);
  int open_segment(time_point now);
  void close_segment();
  bool ends_within_line(const source& x) const;
  void write_carried(time_point now);
  int begin(std::size_t head_bytes, std::size_t least_bytes, time_point now);
  [[nodiscard]] std::size_t room(std::size_t head_bytes) const;
  int fail(int error, time_point now);
  int write_mark(source& x, std::uint8_t flags, time_point now);
  void remove_oldest();

  std::function<void(const std::string&)> full_;
  std::string folder_;
  log_store_rules rules_;
  std::uint64_t segment_bytes_;
  std::deque<segment> closed_;
  std::uint64_t closed_bytes_ = 0;
  // The newest.
  unique_fd file_;
  std::uint64_t number_ = 0;
  std::uint64_t size_ = 0;
  time_point begun_{};
  time_point written_{};
  time_point retry_at_{};
  int trouble_ = 0;
  std::vector<std::unique_ptr<source>> sources_;
  // What a predecessor left within a line, with the bytes of that which are in
  // the newest segment.
  std::map<std::pair<std::string, log_stream>, std::string> left_open_;
};

}  // namespace pup
