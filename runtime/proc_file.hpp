// Small files of /proc and the like, read as a whole, without streams: the
// guardian uses it.
#pragma once

#include "pup/runtime/fd.hpp"

#include <array>
#include <cerrno>
#include <string>

#include <fcntl.h>

namespace pup {

/// Up to 8 MiB, more than the kernel takes of arguments and environment. Empty:
/// it cannot be read.
inline std::string read_proc_file(const std::string& path) {
  constexpr std::size_t most = 8 * 1024 * 1024;
  const unique_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  std::string result;
  std::array<char, 4096> buffer;
  while (file && result.size() < most) {
    const auto n = ::read(file.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      break;
    result.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return result;
}

}  // namespace pup
