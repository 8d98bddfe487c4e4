// Words for diagnostics: quoting what was found, naming what was meant.
//
// Pure functions; used by the files of config/ only.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace pup {

inline bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// shown() between two `mark`s; of a long text the first 40 bytes.
std::string quote(std::string_view text, char mark = '`');

/// "`a`, `b` or `c`", each in `mark`s. `last` joins the last two.
std::string enumerate(std::span<const std::string_view> words, char mark = '`',
                      std::string_view last = "or");

/// The candidate that was probably meant: equal but for case, `_` and `-`, or
/// at most one typing error for each three characters away. Empty: none is near
/// enough.
std::optional<std::string_view> nearest(
    std::string_view word, std::span<const std::string_view> candidates);

/// nearest() for lists that may be long: it ceases to search (and finds
/// nothing) once it has compared more than advice is worth.
class advisor {
public:
  std::optional<std::string_view> nearest(
      std::string_view word, std::span<const std::string_view> candidates);

private:
  static constexpr std::size_t most_comparisons = 50'000;  // some 0.1 s

  std::size_t comparisons_ = 0;
};

/// Path of a member: `parent.key`, or `parent["a key"]` for a key that is no
/// plain word.
std::string member_path(const std::string& parent, std::string_view key);

/// Path of an element: `parent[3]`.
std::string element_path(const std::string& parent, std::size_t index);

/// Path of a process: `processes[3]`.
inline std::string process_path(std::size_t index) {
  return element_path("processes", index);
}

}  // namespace pup
