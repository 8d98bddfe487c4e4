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
/// given; relative paths inside it start at its folder.
load_result load_file(const std::string& path);

/// Absolute path of an existing file with links resolved; empty when there is
/// none.
std::string canonical(const std::string& path);

}  // namespace pup
