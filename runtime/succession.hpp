// A guardian gives way to another program without ending: exec keeps its pid,
// its children, and the descriptors that it lets through.
//
// All that it knows goes through a memory file. The successor is asked first
// whether it understands that: `pup-guardian --examine`, with the file as
// descriptor 3, exits with a `verdict`. Then it is executed with the arguments
// of its predecessor, and the number of the file's descriptor in
// PUP_GUARD_STATE. For one that does not understand the file after all,
// PUP_GUARD_FORMER has the descriptors of its predecessor's program and of the
// file, "5,6", so that it can go back.
#pragma once

#include "pup/runtime/fd.hpp"

#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace pup {

/// The descriptor of an examined file.
inline constexpr int examined_fd = 3;

/// Close-on-exec, to be read from its beginning.
std::variant<unique_fd, os_fault> memory_file_of(std::string_view bytes);

/// Nothing when it cannot be read, or is larger than 256 MiB.
std::string bytes_of_memory_file(int fd);

/// What a program that is asked to examine a file exits with. Any other code is
/// as good as `not_understood`.
enum class verdict { understood = 0, not_understood = 1, same_program = 10 };

/// The path that this process was executed by, as it was at the first call;
/// that what is there be renamed or replaced changes nothing. Empty: /proc does
/// not tell.
const std::string& own_program();

/// Whether the parent of this process runs the same file.
bool runs_program_of_parent();

/// Executes `program` in the place of this one; `state` and `kept` stay open.
/// `former` is a descriptor of this program, for the way back; -1: there is
/// none. Returns only when that fails. One thread: it changes the environment.
os_fault become(const std::string& program,
                const std::vector<std::string>& arguments, int state,
                int former, const std::vector<int>& kept);

/// What a predecessor has left to this process.
struct legacy {
  unique_fd state;    ///< none: there was no predecessor
  int former = -1;    ///< of PUP_GUARD_FORMER: its program; -1: none
  int original = -1;  ///< of PUP_GUARD_FORMER: the state again
};

/// Once. One thread, as above.
legacy inherited_state();

/// Makes the predecessor go on, before anything of `from` is closed. Returns
/// only when that fails.
os_fault go_back(const legacy& from, const std::vector<std::string>& arguments);

}  // namespace pup
