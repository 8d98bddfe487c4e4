// The pictures of `pup why`: the history of an instance with the last lines of
// its output. Pure; zones come in as a function.
#pragma once

#include "pup/actors/protocol.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace pup {

/// A line that a process has written.
struct output_line {
  std::uint64_t time_us = 0;
  std::string stream;  ///< "stdout", "stderr"
  std::string text;
};

struct explanation {
  instance_history what;
  std::vector<output_line> output;  ///< oldest first
};

/// Since when output explains the state of an instance, in milliseconds since
/// 1970: that of the life which is ready; else of the last one that has ended,
/// and of what has begun since. Empty: no output does, as none of its lives is
/// known.
std::optional<std::int64_t> output_since(const instance_history& x);

/// Difference from UTC at a time (microseconds since 1970).
using zone_function = std::function<std::chrono::minutes(std::uint64_t)>;

/// A block of lines for each.
std::string why_text(const std::vector<explanation>& all, std::uint64_t now_us,
                     const zone_function& zone);

/// {"instances": [{"id", "state", "reason", "events": [{"time", "event",
/// "text"}], "output": [{"time", "stream", "text"}], "next": {"text",
/// "time"}}]}, one line. `time` of next is null where no clock decides.
std::string why_json(const std::vector<explanation>& all,
                     const zone_function& zone);

}  // namespace pup
