// Ownership of a file descriptor.
#pragma once

#include <utility>

#include <unistd.h>

namespace pup {

/// Owns one descriptor and closes it. -1 means none.
class unique_fd {
public:
  explicit unique_fd(int fd = -1) noexcept : fd_(fd) {}

  unique_fd(unique_fd&& other) noexcept : fd_(other.release()) {}

  unique_fd& operator=(unique_fd&& other) noexcept {
    if (this != &other)
      reset(other.release());
    return *this;
  }

  ~unique_fd() {
    reset();
  }

  [[nodiscard]] int get() const noexcept {
    return fd_;
  }

  [[nodiscard]] int release() noexcept {
    return std::exchange(fd_, -1);
  }

  /// Closes what it owns, then owns `fd`. An error of close(2) is not
  /// reported: on Linux the descriptor is gone in any case.
  void reset(int fd = -1) noexcept {
    if (fd_ >= 0)
      ::close(fd_);
    fd_ = fd;
  }

  [[nodiscard]] explicit operator bool() const noexcept {
    return fd_ >= 0;
  }

private:
  int fd_;
};

}  // namespace pup
