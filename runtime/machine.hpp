// The machine as config/load.hpp asks about it.
#pragma once

#include "pup/config/load.hpp"

#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace pup {

/// Answers for this process: its environment, file system and processors.
world real_world();

/// Reads and loads a configuration file. The text of a fault names the file as
/// given; relative paths inside it start at its folder. Root loads no file that
/// somebody else may write, but the user who called sudo: it says what root is
/// to run.
load_result load_file(const std::string& path);
/// The two halves of that: the text, and what it says when it stands there.
std::variant<std::string, std::vector<diagnostic>> read_config(
    const std::string& path);
load_result load_text(const std::string& text, const std::string& path);

/// What keeps root from running this configuration: it belongs to somebody who
/// is neither root nor the user who called sudo, and who could have root run
/// anything. Empty: nothing, or this is not root.
std::optional<diagnostic> foreign_owner(const std::string& path);

/// Absolute path of an existing file with links resolved; empty when there is
/// none.
std::string canonical(const std::string& path);

}  // namespace pup
