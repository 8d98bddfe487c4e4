// Values in supervisord's .conf: %(...)s, truth, sizes, lists of variables.
// Used by config/import_supervisord*.cpp only.
#pragma once

#include "pup/config/import_draft.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace pup::importing {

using variables = std::map<std::string, std::string>;

/// ASCII only.
std::string lower(std::string_view text);
/// true, yes, on, 1 and their opposites, in any case. Empty: neither.
std::optional<bool> truth_of(std::string_view text);
/// In bytes: 50MB, 1kb, 300. Empty: no size, or one beyond pup's.
std::optional<std::int64_t> byte_size(std::string_view text);
/// KEY="value",KEY2=value2, what stands in it replaced already. Notes what is
/// wrong under `subject`.
variables variables_of(draft& into, const std::string& subject,
                       std::string_view text);

/// Replaces %(...)s in the values of one section.
class expander {
public:
  expander(draft& into, std::string origin, const variables& env)
      : into_(into), origin_(std::move(origin)), env_(env) {}

  /// What there is besides variables: "program_name".
  std::map<std::string, std::string> names;
  /// Of a program that there is once: the number is known.
  std::optional<std::int64_t> process_number;

  std::string operator()(std::string_view key, std::string_view value);

private:
  std::string placeholder(std::string_view key, std::string_view name,
                          std::string_view conversion);
  std::string number(std::string_view key, std::string_view conversion);

  draft& into_;
  std::string origin_;
  const variables& env_;
};

}  // namespace pup::importing
