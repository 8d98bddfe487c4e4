// Other process managers' files, as configurations of pup.
//
//   PM2          an ecosystem file in JSON (not the .config.js, which is a
//                program), or the dump.pm2 that `pm2 save` writes
//   supervisord  its .conf, with the files that it includes
//   Procfile     of foreman, overmind, Heroku
//   pup.json     of Hexagon Pup
//
// The result means what the file means to its own manager, defaults of that
// manager included. What cannot be kept is a note, never dropped in silence.
// tests/import compares it with what the managers themselves do. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
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

/// What the meaning of a file depends on besides its text. Each may be unset.
struct import_surroundings {
  enum class script : std::uint8_t {
    unknown,  ///< there is no such file
    text,     ///< an interpreter reads it
    program,  ///< the kernel executes it
  };
  struct file {
    std::string path;  ///< absolute
    std::string text;
  };

  /// Absolute path of the folder of the file; what is relative starts here.
  /// Empty: it is not known.
  std::string folder{};
  /// What a file is; `path` may be relative to `folder`.
  std::function<script(const std::string& path)> script_at{};
  /// The files that a glob means, in the order of their paths; those that
  /// cannot be read are missing.
  std::function<std::vector<file>(const std::string& pattern)> matching{};
};

/// `file` is the name of the file, which helps to tell its kind and is named in
/// the result's first comment.
std::variant<imported, import_fault> import_config(
    std::string_view text, const std::string& file,
    const import_surroundings& around = {});

}  // namespace pup
