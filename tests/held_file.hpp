// A file whose next open waits, as any user can make a file of theirs do.
#pragma once

#include "pup/runtime/fd.hpp"

#include <csignal>
#include <string>

#include <fcntl.h>

namespace pup::test {

/// Holds a lease on the file: whoever opens it, or executes it, waits until
/// this goes out of scope, or for 45 s (fs.lease-break-time). The file is this
/// user's, on a local file system, and not open anywhere.
class held_file {
public:
  explicit held_file(const std::string& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    std::signal(SIGIO, SIG_IGN);  // tells that somebody waits
    holds_ = fd_ && ::fcntl(fd_.get(), F_SETLEASE, F_WRLCK) == 0;
  }

  /// False: this file system knows no leases.
  explicit operator bool() const noexcept {
    return holds_;
  }

  void release() {
    ::fcntl(fd_.get(), F_SETLEASE, F_UNLCK);
  }

private:
  unique_fd fd_;
  bool holds_ = false;
};

}  // namespace pup::test
