// Owning a file descriptor, and saying which system call failed on what.
#pragma once

#include <string>
#include <system_error>
#include <utility>

#include <unistd.h>

namespace pup {

/// Owns one file descriptor and closes it; -1 means none. Any thread, one at a
/// time. Whoever opens the descriptor makes it close-on-exec.
class [[nodiscard]] unique_fd {
public:
  explicit unique_fd(int fd = -1) noexcept : fd_(fd) {}

  unique_fd(unique_fd&& other) noexcept : fd_(other.release()) {}

  unique_fd& operator=(unique_fd&& other) noexcept {
    reset(other.release());
    return *this;
  }

  ~unique_fd() {
    reset();
  }

  [[nodiscard]] int get() const noexcept {
    return fd_;
  }

  /// Gives the descriptor away; the caller closes it.
  [[nodiscard]] int release() noexcept {
    return std::exchange(fd_, -1);
  }

  /// Closes what is owned and owns `fd` instead. An error of close() is
  /// ignored: Linux has released the number all the same.
  void reset(int fd = -1) noexcept {
    const int old = std::exchange(fd_, fd);
    if (old >= 0 && old != fd)
      ::close(old);
  }

  explicit operator bool() const noexcept {
    return fd_ >= 0;
  }

private:
  int fd_;
};

/// A system call that failed, as a value.
struct os_fault {
  std::string call;    ///< "bind"; of a launch: its stage, "exec", "chdir", …
  std::string object;  ///< what it was called on; may be empty
  int code = 0;        ///< errno
  /// More than errno says, in its place: what is wrong, and the remedy.
  std::string why{};

  bool operator==(const os_fault&) const = default;
};

/// "Address already in use", or what is said in its place.
inline std::string reason_of(const os_fault& fault) {
  return fault.why.empty() ? std::system_category().message(fault.code)
                           : fault.why;
}

/// "bind 127.0.0.1:8000: Address already in use"
inline std::string to_string(const os_fault& fault) {
  auto text = fault.call;
  if (!fault.object.empty())
    text += ' ' + fault.object;
  return text + ": " + reason_of(fault);
}

}  // namespace pup
