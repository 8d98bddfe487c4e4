// Starting one operating system process.
//
// spawn() prepares everything first and then creates the child with
// clone(CLONE_VM | CLONE_VFORK): the calling thread sleeps until the child has
// executed the program or failed, other threads go on. The child shares the
// memory of the caller, so a launch costs the same from a process of any size
// and the error of a failed exec comes back as a value; but it has its own
// descriptor table, its own signal dispositions and its own working folder. Of
// the caller's table it copies only what is numbered below what it is passed:
// a caller with thousands of descriptors that last keeps low numbers for these.
// It runs on a stack of its own and makes raw system calls only: no allocation,
// no lock, no handler of the parent can run in it.
//
// What the program finds:
//  - a session and a process group of its own (pid = group = session), so that
//    one signal reaches it and all it starts, a terminal's ^C does not reach it
//    behind the supervisor's back, and it has no controlling terminal;
//  - default disposition for every signal and an empty signal mask;
//  - descriptors 0, 1 and 2 as requested, listening sockets from 3 on if any
//    are passed (the socket activation of systemd: LISTEN_FDS, LISTEN_PID), and
//    no other, whoever forgot close-on-exec;
//  - exactly the given arguments, environment and working folder;
//  - the user, limits and so on of `attributes`.
//
// A child that becomes another user gets a copy of the memory in place of a
// share (page tables only; the guardian's are small): whoever may trace that
// user's processes could write into the caller otherwise, between the change
// and the exec.
//
// Needs Linux 5.4 (pidfd with waitid). Nothing here is global; every function
// may be called from any thread at any time.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/fd.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <sys/types.h>

namespace pup {

namespace bounds {
/// Most sockets passed to one program; pup passes one.
inline constexpr std::size_t passed_sockets = 8;
}  // namespace bounds

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
  /// Borrowed for the call; become descriptors 3, 4, … of the program, which
  /// also gets LISTEN_FDS (their number) and LISTEN_PID (its pid). At most
  /// bounds::passed_sockets.
  std::vector<int> listen_fds{};
  /// Borrowed for the call; becomes the descriptor behind the last of these,
  /// which the program is to be told by `environment`. -1: none.
  int ready_fd = -1;
  /// Set in the child. Of `cgroup` nothing: see cgroup_folder. Pipes among
  /// stdout_fd and stderr_fd are given to the user, or programs that open
  /// /dev/stdout would be refused.
  process_attributes attributes{};
  /// Folder of a cgroup (version 2) that the child enters, or begins in if it
  /// becomes another user and the kernel can do that. Empty: it stays.
  std::string cgroup_folder{};
  /// Executed in the place of argv[0]. Empty: that is looked up.
  std::string program{};
};

/// A started process. The caller reaps it: with waitid(P_PIDFD) once the pidfd,
/// which is close-on-exec, is readable.
struct child {
  pid_t pid = -1;  ///< also its process group and session
  unique_fd pidfd;
};

/// What a caller knows that starts many.
struct spawn_aids {
  /// Written by the child first of all, atomically: by it a start that takes
  /// long can be ended. It lies in memory that even copies share (MAP_SHARED).
  pid_t* pid = nullptr;
  /// Read by the child before the exec, in memory of the same kind: not 0 makes
  /// it fail with "start" and ECANCELED.
  const int* cancelled = nullptr;
  /// Signals to be given their default disposition, bit N - 1 for signal N; the
  /// others have it, or are blocked and have it from the exec on.
  std::uint64_t reset = ~std::uint64_t{0};
};

/// Starts a program; returns when it is executed, a fraction of a
/// millisecond later (measured 0.85 ms while all processors were busy), or as
/// late as the file systems of program and folder answer (spawn_pool.hpp).
///
/// A fault names in `call` the stage that failed: "argv" or "environment" (a
/// string that cannot be passed), "open" (/dev/null), "fcntl" (moving a
/// descriptor), "clone" (EMFILE: no descriptor for the pidfd; EAGAIN: no more
/// processes; ENOMEM: no memory for a copy), "setsid", "cgroup", "oom score",
/// "nice", "I/O class", "limit", "groups", "group" and "user" (EPERM: pup does
/// not run as root), "chdir" (of cwd), "dup" (of a stream), "no new privileges"
/// or "exec" (of the program). Nothing is left behind then: no process, no
/// descriptor.
std::variant<child, os_fault> spawn(const spawn_request& request,
                                    const spawn_aids& aids = {});

/// What spawn_aids::reset may be for a program without handlers of signals:
/// what it ignores now.
std::uint64_t ignored_signals();

/// Raises this process's soft limit of descriptors to the hard one. What
/// spawn() starts gets the former one, unless its attributes say otherwise:
/// programs that use select(2) do not survive a larger one. Once, before there
/// are other threads.
void raise_descriptor_limit();

/// What that gives to programs; 0: what this process has. For a successor of
/// this program (exec), in which the limit is raised already.
std::uint64_t programs_descriptor_limit();
void set_programs_descriptor_limit(std::uint64_t value);

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
