// The commands in words: help, completion. One table, from which all is made;
// cli.cpp understands what stands here, and a test holds the two together.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace pup {

struct command_help {
  std::string_view name;
  std::string_view usage;    ///< "scale ID N|+N|-N"
  std::string_view summary;  ///< one line
  std::string_view details;  ///< lines of at most 78 columns; may be empty
  /// Options of this command alone, with one blank between; may be empty.
  std::string_view options;
  /// What completes its words: 'f' files, 'i' ids, ' ' nothing.
  char words = ' ';
};

/// All of them, in the order of the overview.
std::span<const command_help> all_commands();

/// Options that every command takes.
std::string_view common_options();

/// Fits a screen of 80 columns and 24 lines.
std::string help_text();

/// Help on one command; empty: there is none of this name.
std::string help_text(std::string_view command);

/// "'stauts' is no command; did you mean 'status'?"
std::string unknown_command(std::string_view word);

/// The script that completes pup's command lines in bash, zsh or fish; or the
/// shells there are, when `shell` is none of them.
std::variant<std::string, std::string_view> completion_script(
    std::string_view shell);

}  // namespace pup
