// Starting one operating system process.
//
// spawn() prepares everything first and then creates the child with
// clone(CLONE_VM | CLONE_VFORK): the calling thread sleeps until the child has
// executed the program or failed, other threads go on. The child shares the
// memory of the caller, so a launch costs the same from a process of any size
// and the error of a failed exec comes back as a value; but it has its own
// copy of the descriptor table, its own signal dispositions and its own
// working folder. It runs on a stack of its own and makes raw system calls
// only: no allocation, no lock, no handler of the parent can run in it.
//
// What the program finds:
//  - a session and a process group of its own (pid = group = session), so that
//    one signal reaches it and all it starts, a terminal's ^C does not reach it
//    behind the supervisor's back, and it has no controlling terminal;
//  - default disposition for every signal and an empty signal mask;
//  - descriptors 0, 1 and 2 as requested and no other, whoever forgot
//    close-on-exec;
//  - exactly the given arguments, environment and working folder.
//
// Needs Linux 5.4 (pidfd with waitid). Nothing here is global; every function
// may be called from any thread at any time.
#pragma once

#include "pup/runtime/fd.hpp"

#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <sys/types.h>

namespace pup {

/// What spawn() needs. Strings with a NUL inside are refused (EINVAL), because
/// the kernel would cut them short.
struct spawn_request {
  /// Program and arguments, at least one. argv[0] is looked up on the PATH of
  /// `environment` as resolve_program() does, and passed on as it stands.
  std::vector<std::string> argv;
  /// Complete, each "NAME=value".
  std::vector<std::string> environment;
  /// Absolute. Empty: the caller's.
  std::string cwd;
  /// Borrowed for the call; any numbers, also 0 to 2. -1: /dev/null.
  int stdin_fd = -1;
  int stdout_fd = -1;
  int stderr_fd = -1;
};

/// A started process. The caller reaps it: with waitid(P_PIDFD) once the pidfd,
/// which is close-on-exec, is readable.
struct child {
  pid_t pid = -1;  ///< also its process group and session
  unique_fd pidfd;
};

/// Starts a program; returns when it is executed, a fraction of a
/// millisecond later (measured 0.85 ms while all processors were busy).
///
/// A fault names in `call` the stage that failed: "argv" or "environment" (a
/// string that cannot be passed), "open" (/dev/null), "fcntl" (moving a
/// descriptor), "clone" (EMFILE: no descriptor for the pidfd; EAGAIN: no more
/// processes), "setsid", "chdir" (of cwd), "dup" (of a stream) or "exec" (of
/// the program). Nothing is left behind then: no process, no descriptor.
std::variant<child, os_fault> spawn(const spawn_request& request);

/// The absolute path of the program `name`, as execvp() would find it: a name
/// with a slash is taken relative to `cwd` and not checked; any other is looked
/// for in the folders of `path`, where relative and empty entries start at
/// `cwd`. An empty `cwd` is the current folder. Faults, all of call "exec":
/// ENOENT not found, EACCES only files that may not be executed.
std::variant<std::string, os_fault> resolve_program(std::string_view name,
                                                    std::string_view path,
                                                    std::string_view cwd);

/// `base` ("NAME=value" each; the first of equal names counts, entries without
/// '=' are dropped) with `additions` on top, and `path_suffix` (colon
/// separated; may be empty) appended to PATH. Sorted by name. Names in
/// `additions` are not empty and have no '='.
std::vector<std::string> build_environment(
    const std::vector<std::string>& base,
    const std::map<std::string, std::string>& additions,
    std::string_view path_suffix);

}  // namespace pup
