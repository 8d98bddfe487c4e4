// Files of this machine under watch, for the actors.
#pragma once

#include "pup/actors/watching.hpp"

#include <string>
#include <vector>

namespace boost::asio {
class io_context;
}

namespace pup {

/// On a thread of its own, which exists once something is watched: a large tree
/// takes a while to look through. `own`: patterns (glob.hpp) of absolute paths
/// that never count. Changed files are named as seen from `base`, an absolute
/// folder; empty: the current one of this call. Where there is no thread to be
/// had the news say so, and it is tried again: on a timer of `clock`, which
/// outlives it, or with the next watch where that is null.
file_watch real_file_watch(std::vector<std::string> own, std::string base = {},
                           boost::asio::io_context* clock = nullptr);

/// Patterns of the files that a supervisor of `spec` writes: logs, the rotated
/// ones as well, and pids.
std::vector<std::string> own_files(const pup_spec& spec);

/// A pattern that matches this path alone.
std::string glob_of_path(const std::string& path);

}  // namespace pup
