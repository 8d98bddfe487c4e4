// %{port}, %{index}, %{id} and %{env:NAME} in the texts of a configuration.
//
//   %{port}      the instance's port
//   %{index}     the instance's number from 0, as PUP_CLUSTER_INSTANCE; 0 for a
//                process that is no cluster
//   %{id}        the instance's id ("web-3"), or the process's
//   %{env:NAME}  a variable of the supervisor's environment; replaced by load()
//   %%{          a literal %{
//   %{%}         a literal %, for the rare % directly before a placeholder
//
// Read from the left; a % or { in any other place stands for itself. Pure
// functions: load() finds the faults, whoever starts an instance calls
// expand().
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace pup {

/// What the placeholders of one text ask for, and the first that is wrong.
struct placeholder_use {
  bool port = false;
  bool index = false;
  bool id = false;
  bool variable = false;
  std::string problem;  ///< empty: every placeholder is known and closed
  std::string remedy;

  /// True when the text differs from instance to instance.
  bool per_instance() const {
    return port || index || id;
  }
};

placeholder_use find_placeholders(std::string_view text);

/// The same of a text that is a secret: its problem shows nothing of it.
placeholder_use find_placeholders_of_secret(std::string_view text);

/// `text` for one instance. Replaces %{port}, %{index}, %{id}, %%{ and %{%}.
/// What find_placeholders() calls wrong, and %{env:NAME}, stays as it is.
std::string expand(std::string_view text, std::uint16_t port,
                   std::uint32_t index, std::string_view id);

/// Replaces only %{env:NAME}, by values that a later expand() keeps to the
/// letter. When `variable` has none, the result is empty and `missing` holds
/// the name; when it would be larger than `most` bytes, `missing` is empty,
/// too.
std::optional<std::string> expand_variables(
    std::string_view text,
    const std::function<std::optional<std::string>(const std::string&)>&
        variable,
    std::size_t most, std::string& missing);

/// A text that expand() turns into `text`, whatever stands behind it.
std::string escape_placeholders(std::string_view text);

}  // namespace pup
