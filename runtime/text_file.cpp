#include "pup/runtime/text_file.hpp"

#include <array>
#include <cerrno>
#include <cstdio>

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
                                    const std::string& text,
                                    const path_rule& rule) {
  const auto found = locate(path, rule, false);
  if (const auto* fault = std::get_if<os_fault>(&found))
    return *fault;
  const auto& [folder, name] = std::get<located_file>(found);
  const auto created = folder.create_file(name, O_WRONLY, 0666);
  if (const auto* fault = std::get_if<os_fault>(&created))
    return *fault;
  auto fault = write_all(std::get<unique_fd>(created).get(), path, text);
  if (fault)
    static_cast<void>(folder.remove(name));
  return fault;
}

std::optional<os_fault> replace_text(const std::string& path,
                                     const std::string& text,
                                     const path_rule& rule) {
  const auto found = locate(path, rule);
  if (const auto* fault = std::get_if<os_fault>(&found))
    return *fault;
  const auto& [folder, name] = std::get<located_file>(found);
  const auto before = folder.open_file(name, O_RDONLY, {{}, true});
  // In the same folder, or rename() could not be atomic.
  const auto draft = name + ".pup-" + std::to_string(::getpid());
  const auto created = folder.create_file(draft, O_WRONLY, 0666);
  if (const auto* fault = std::get_if<os_fault>(&created))
    return *fault;
  const auto fd = std::get<unique_fd>(created).get();
  struct stat info {};
  if (const auto* file = std::get_if<unique_fd>(&before);
      file != nullptr && ::fstat(file->get(), &info) == 0) {
    // As root for somebody else's file; without the right to, it becomes ours.
    if (::fchown(fd, info.st_uid, info.st_gid) != 0)
      errno = 0;
    ::fchmod(fd, info.st_mode & 0777U);
  }
  auto fault = write_all(fd, folder.path_of(draft), text);
  if (!fault)
    if (const auto error = folder.rename(draft, name); error != 0)
      fault = os_fault{"rename", folder.path_of(name), error};
  if (fault)
    static_cast<void>(folder.remove(draft));
  return fault;
}

}  // namespace pup
