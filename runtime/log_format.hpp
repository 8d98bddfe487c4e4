// The bytes of the log store: records in segments, and back to lines.
//
// A segment is a sequence of records; nothing else is in it:
//
//   offset  bytes
//        0      4   F5 'P' 'U' 'P'; F5 occurs in no UTF-8 text
//        4      4   size of the data that follows the id, little endian
//        8      8   time in microseconds since 1970, little endian
//       16      1   stream (log_stream)
//       17      1   flags (record_flags)
//       18      1   length of the id, 1 to 255
//       19      1   0 while the data is being written, then 1
//       20      4   FNV-1a of bytes 4 to 18 and of the id, little endian
//       24      …   id, then data
//
// The data are bytes as the process wrote them, not lines: one record for each
// time its output was looked at, however much that was. A thousand lines cost
// one header, and the bytes can go from the pipe to the file without being
// seen. What a line is, is decided when it is read: data of one (id, stream)
// follow one another across records and segments, and a newline ends a line.
//
// Pure: bytes in, values out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace pup {

/// Where a line comes from: the process, or pup's own word about it.
enum class log_stream : std::uint8_t { out = 1, err, info, warn, error };

/// "stdout", "stderr" and, of pup's own words, "pup".
std::string_view stream_name(log_stream x);
/// "info", "warn" or "error"; stderr is "error".
std::string_view severity_of(log_stream x);

namespace record_flags {
/// A new line begins, whatever the records before it ended with.
inline constexpr std::uint8_t fresh = 1;
/// Without data, at the beginning of a segment: the stream is within a line
/// whose beginning is in an earlier segment.
inline constexpr std::uint8_t carried = 2;
/// Without data: no more comes; what the last line has is all of it.
inline constexpr std::uint8_t last = 4;
}  // namespace record_flags

struct record_header {
  std::string_view id;  ///< 1 to 255 bytes
  log_stream stream = log_stream::out;
  std::uint8_t flags = 0;
  bool complete = true;  ///< all of its data is there
  std::uint64_t time_us = 0;
  std::uint32_t size = 0;

  bool operator==(const record_header&) const = default;
};

inline constexpr std::size_t record_head_bytes = 24;
/// Where the byte stands that says whether the record is complete.
inline constexpr std::size_t record_state_offset = 19;

/// Header and id; the data follows.
std::string encode(const record_header& x);

enum class parse_outcome : std::uint8_t { ok, short_of_bytes, bad };

struct parsed_record {
  parse_outcome outcome = parse_outcome::bad;
  record_header header;   ///< `id` points into the bytes that were parsed
  std::size_t bytes = 0;  ///< of header and id
};

/// The header at the beginning of `bytes`.
parsed_record parse_record(std::string_view bytes);

/// One line, without its newline. Views live as long as the callback.
struct log_line {
  /// When its end was read, so that lines come in the order of their times; of
  /// one without an end, when the last of anybody's output was.
  std::uint64_t time_us = 0;
  std::string_view id;
  log_stream stream = log_stream::out;
  std::string_view text;
};

/// Longest line in one piece; a longer one comes in pieces of this size.
inline constexpr std::size_t log_line_bytes = 1u << 20;

/// Bytes of segments, in order, to lines. The bytes may be anybody's: whatever
/// they are, memory stays within log_reader_bytes and damaged parts are skipped
/// and counted.
class log_reader {
public:
  using sink = std::function<void(const log_line&)>;

  /// Most bytes kept of lines that have not ended, over all streams.
  static constexpr std::size_t most_kept_bytes = 8u << 20;
  /// Most streams within a line.
  static constexpr std::size_t most_kept_streams = 8192;

  explicit log_reader(sink to) : to_(std::move(to)) {}

  /// Reads from `bytes`, which continue what was consumed before; returns how
  /// many it has consumed. The others must come again, with more behind them.
  /// With `live`, a record whose data is not complete is not begun: it may
  /// still be written.
  std::size_t feed(std::string_view bytes, bool live = false);

  /// What follows is another segment. Lines go on across.
  void next_segment();

  /// What has begun and not ended counts as lines now.
  void finish();

  /// Bytes that made no sense, so far.
  [[nodiscard]] std::uint64_t damaged_bytes() const noexcept {
    return damaged_;
  }

private:
  struct open_line {
    std::string text;
    bool headless = false;  // its beginning is lost, so is the rest of it
    bool cut = false;       // pieces of it have been given out
  };
  using stream_key = std::pair<std::string, log_stream>;

  std::size_t skip_damage(std::string_view bytes);
  void begin(const record_header& x);
  void take(std::string_view data);
  void keep(std::string_view text);
  void emit(std::string_view text);
  void close_line(std::map<stream_key, open_line>::iterator x);

  sink to_;
  std::map<stream_key, open_line> open_;
  std::size_t kept_ = 0;  // bytes in open_
  // The record whose data comes next.
  std::string id_;
  record_header now_;
  std::size_t left_ = 0;
  std::uint64_t damaged_ = 0;
};

}  // namespace pup
