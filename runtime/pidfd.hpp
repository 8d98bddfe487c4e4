// A process as a descriptor, which cannot come to mean another one.
#pragma once

#include "pup/runtime/fd.hpp"

#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#  define SYS_pidfd_open 434  // the same number on every architecture
#endif
#ifndef SYS_pidfd_send_signal
#  define SYS_pidfd_send_signal 424
#endif

namespace pup {

/// Readable once `pid` has ended; close-on-exec. None: there is no such process
/// (errno ESRCH), or no room for the descriptor.
inline unique_fd open_pidfd(pid_t pid) {
  return unique_fd{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0U))};
}

}  // namespace pup
