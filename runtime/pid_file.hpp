// Files that hold the pid of a process while it runs, for other programs.
//
// Paths are walked by the rules of trusted_path.hpp.
#pragma once

#include "pup/runtime/fd.hpp"

#include <optional>
#include <string>

#include <sys/types.h>

namespace pup {

/// Replaces what stands there at once, also a symbolic link: a reader finds the
/// old pid or the new. Mode 0644. Faults: "open", "write", "rename".
std::optional<os_fault> write_pid_file(const std::string& path, pid_t pid);

/// Removes it if it still holds `pid`.
void remove_pid_file(const std::string& path, pid_t pid);

}  // namespace pup
