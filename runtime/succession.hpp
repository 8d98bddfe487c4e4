// A guardian gives way to another program without ending: exec keeps its pid,
// its children, and the descriptors that it lets through.
//
// What it knows goes through a memory file. Whether the successor understands
// it is asked first: `pup-guardian --examine`, with the file as descriptor 3,
// exits with 0. Then it is executed with the arguments of its predecessor, and
// the number of the file's descriptor in PUP_GUARD_STATE.
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

/// The program that this process runs, by its path, and whether another file is
/// there by now. An empty path: it was removed.
struct program_on_disk {
  std::string path;
  bool is_another = false;
};
program_on_disk own_program_on_disk();

/// Executes `program` in the place of this one; `state` and `kept` stay open.
/// Returns only when that fails. One thread: it changes the environment.
os_fault become(const std::string& program,
                const std::vector<std::string>& arguments, int state,
                const std::vector<int>& kept);

/// The state that a predecessor has left to this process, once. One thread, as
/// above.
unique_fd inherited_state();

}  // namespace pup
