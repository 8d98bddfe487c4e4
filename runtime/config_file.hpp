// A configuration file as a command names it, and the supervisor it is about.
//
// A file may give its supervisor a name. One that gives none has a default, the
// name of its folder; folders of equal names are not rare, so the default alone
// says nothing about a supervisor that was started from elsewhere (see choose()
// in place.hpp). No CAF.
#pragma once

#include <optional>
#include <string>

namespace pup {

struct config_file {
  std::string written;   ///< absolute, links as they are written
  std::string resolved;  ///< links resolved; empty: there is no such file
  /// That it gives its supervisor; none: none, or it cannot be read or trusted.
  std::optional<std::string> name;
  std::string default_name;
  /// It is a configuration of pup, as far as can be told.
  bool has_processes = false;

  /// The name its supervisor gets.
  [[nodiscard]] const std::string& supervisor() const {
    return name ? *name : default_name;
  }
};

/// What a supervisor is called that is given no name and was called so by every
/// version that knew no default of the folder's.
inline constexpr const char* former_default_name = "pup";

/// Name of a supervisor whose configuration stands in `folder`: the name of
/// that, cut to what a name may consist of; "pup" when nothing is left.
std::string default_name(const std::string& folder);

/// Reads the file. Never fails: what cannot be read, or only once, as a pipe,
/// has a path and a default name.
config_file look_at(const std::string& path);
/// The same for a file that has been read.
config_file look_at(const std::string& path, const std::string& text);

/// Whether `path`, absolute, is one of the file's or leads to it.
bool is_path_of(const std::string& path, const config_file& file);

/// The first of pup.json, pup.jsonc and config.json in the working folder that
/// is a configuration of pup.
std::optional<config_file> config_here();

}  // namespace pup
