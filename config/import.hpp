// Other process managers' files, as configurations of pup.
//
//   PM2          ecosystem file in JSON (not the .config.js, which is a
//   program) supervisord  its .conf Procfile     of foreman, overmind, Heroku
//   pup.json     of Hexagon Pup
//
// The result says what the file says, by the closest words there are; what has
// no counterpart is listed, never dropped in silence. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace pup {

/// Something that the new configuration does not say, or says differently.
struct import_note {
  std::string subject;  ///< "apps[0].watch", "[program:web] stopsignal"
  std::string text;
};

struct imported {
  std::string text;  ///< a configuration, ending with a newline
  std::vector<import_note> notes;
};

/// Why a file cannot be read at all.
struct import_fault {
  std::size_t line = 1;  ///< from 1
  std::string problem;
  std::string remedy;
};

/// `file` is the name of the file, which helps to tell its kind and is named in
/// the result's first comment.
std::variant<imported, import_fault> import_config(std::string_view text,
                                                   const std::string& file);

}  // namespace pup
