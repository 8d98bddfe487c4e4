// Changing a configuration's text in place: what is not touched, comments and
// layout included, stays as it is to the byte. Pure; the result is not judged,
// load() does that.
#pragma once

#include "pup/config/json_out.hpp"

#include <string>
#include <string_view>
#include <variant>

namespace pup {

/// Why a text cannot be changed.
struct edit_fault {
  std::size_t line = 1;  ///< from 1
  std::string problem;
  std::string remedy;
};

using edited = std::variant<std::string, edit_fault>;

/// `text` with one more entry at the end of `processes`.
edited append_process(std::string_view text, const json_members& entry);

/// `text` without the process of this id. Comments around it stay.
edited remove_process(std::string_view text, std::string_view id);

/// A new configuration with one process, and comments that explain more.
std::string first_config(const json_members& entry);

}  // namespace pup
