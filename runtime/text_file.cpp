#include "pup/runtime/text_file.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

std::optional<os_fault> write_all(int fd, const std::string& path,
                                  const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const auto n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return os_fault{"write", path, errno};
    done += static_cast<std::size_t>(n);
  }
  if (::fsync(fd) != 0 && errno != EINVAL)  // EINVAL: a pipe or the like
    return os_fault{"write", path, errno};
  return std::nullopt;
}

}  // namespace

std::variant<std::string, os_fault> read_text(const std::string& path,
                                              std::size_t most) {
  const unique_fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd)
    return os_fault{"open", path, errno};
  std::string text;
  std::array<char, 65'536> buffer{};
  for (;;) {
    const auto n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return os_fault{"read", path, errno};
    if (n == 0)
      return text;
    text.append(buffer.data(), static_cast<std::size_t>(n));
    if (text.size() > most)
      return os_fault{"read", path, EFBIG};
  }
}

std::optional<os_fault> create_text(const std::string& path,
                                    const std::string& text) {
  const unique_fd fd{
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)};
  if (!fd)
    return os_fault{"open", path, errno};
  auto fault = write_all(fd.get(), path, text);
  if (fault)
    ::unlink(path.c_str());
  return fault;
}

std::optional<os_fault> replace_text(const std::string& path,
                                     const std::string& text) {
  std::error_code ignored;
  auto target = std::filesystem::canonical(path, ignored).string();
  if (target.empty())
    target = path;
  struct stat before {};
  const auto existed = ::stat(target.c_str(), &before) == 0;
  // In the same folder, or rename() could not be atomic.
  const auto draft = target + ".pup-" + std::to_string(::getpid());
  const unique_fd fd{
      ::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)};
  if (!fd)
    return os_fault{"open", draft, errno};
  if (existed) {
    // As root for somebody else's file; without the right to, it becomes ours.
    if (::fchown(fd.get(), before.st_uid, before.st_gid) != 0)
      errno = 0;
    ::fchmod(fd.get(), before.st_mode & 07777U);
  }
  auto fault = write_all(fd.get(), draft, text);
  if (!fault && ::rename(draft.c_str(), target.c_str()) != 0)
    fault = os_fault{"rename", target, errno};
  if (fault)
    ::unlink(draft.c_str());
  return fault;
}

}  // namespace pup
