// Log lines as people and programs read them: decorated text, JSON, and what
// is done about the control sequences that programs write for terminals.
//
// Pure; the zone comes in as an argument.
#pragma once

#include "pup/runtime/log_format.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pup {

/// What becomes of escape sequences (ECMA-48: CSI, OSC, two-byte ones) and of
/// other characters that a terminal acts upon.
enum class escapes : std::uint8_t {
  keep,            ///< all stays: for programs, in JSON
  strip,           ///< no sequence stays, all else does: for files
  strip_controls,  ///< for people: only what a terminal draws stays
  keep_colours,    ///< the same with SGR, which cannot harm a terminal
};

/// `text` without escape sequences, and, where people are to read it, without
/// the controls of plain_text.hpp but tab and newline; bytes that are not UTF-8
/// become U+FFFD there. A sequence ends with its line at the latest. The result
/// is `text` itself when there is nothing to remove, else a view of `scratch`.
std::string_view without_escapes(std::string_view text, escapes how,
                                 std::string& scratch);

/// "2026-11-24T03:13:14.123+01:00", or with Z where `offset` is 0. Years 1970
/// to 9999; later ones are shown as 9999.
std::string time_text(std::uint64_t time_us, std::chrono::minutes offset);

/// How lines are printed.
struct line_style {
  bool colour = false;  ///< of what stands in front
  escapes text = escapes::strip;
  bool json = false;
  bool decorate = true;  ///< time, id and stream in front
  std::chrono::minutes offset{0};
};

/// Everything of a line but its text, the same for lines of one time, id and
/// stream; and a line made of it, with a newline:
///   2026-11-24T03:13:14.123Z web-1 stdout hello
///   2026-11-24T03:13:14.123Z web-1 pup warn exited with code 1
///   {"time":"2026-11-24T03:13:14.123Z","id":"web-1","stream":"stdout",
///    "severity":"info","text":"hello"}          (in one line)
/// A carriage return at the end of the line goes, unless escapes::keep. In
/// JSON, bytes that are not UTF-8 become U+FFFD.
std::string line_head(const log_line& x, const line_style& style);
void append_line(std::string& to, std::string_view head, std::string_view text,
                 const line_style& style);

/// A point in time as people write it:
///   2026-11-24, 2026-11-24T03:13, "2026-11-24 03:13:14.5", …Z, …+01:00
///   03:13, 03:13:14    today
///   -90s, -15m, -2h, -3d    before now
/// Without a zone it is in that of `offset`. Microseconds since 1970; empty:
/// it is none.
std::optional<std::uint64_t> time_of(std::string_view text,
                                     std::uint64_t now_us,
                                     std::chrono::minutes offset);

/// What to use instead, for an error message.
inline constexpr std::string_view time_forms =
    "use 2026-11-24T03:13:14, 03:13 or -15m";

/// Which lines are wanted.
struct line_filter {
  /// Process, cluster (all its instances), instance or glob. Empty: all.
  std::string id{};
  /// "info", "warn", "error", or several of them with commas. Empty: all.
  std::string severity{};
  std::uint64_t start_us = 0;                ///< not before
  std::uint64_t end_us = ~std::uint64_t{0};  ///< not after

  [[nodiscard]] bool wants(const log_line& x) const;
};

}  // namespace pup
