#include "pup/runtime/pid_file.hpp"

#include "pup/runtime/text_file.hpp"

#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <sys/stat.h>

namespace pup {

namespace {

// More than any pid has.
constexpr std::size_t most_bytes = 32;

std::string text_of(pid_t pid) {
  return std::to_string(pid) + '\n';
}

}  // namespace

std::optional<os_fault> write_pid_file(const std::string& path, pid_t pid) {
  const auto text = text_of(pid);
  const auto draft = path + ".pup-" + std::to_string(pid);
  // Left by a supervisor that was killed meanwhile, or laid by somebody who
  // may write here: it must not be written through.
  ::unlink(draft.c_str());
  const unique_fd fd{
      ::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)};
  if (!fd)
    return os_fault{"open", draft, errno};
  std::optional<os_fault> fault;
  // Others are to read it, whatever our umask. No fsync: a pid means nothing
  // after a power failure.
  if (::fchmod(fd.get(), 0644) != 0
      || ::write(fd.get(), text.data(), text.size())
             != static_cast<ssize_t>(text.size()))
    fault = os_fault{"write", draft, errno};
  else if (::rename(draft.c_str(), path.c_str()) != 0)
    fault = os_fault{"rename", path, errno};
  if (fault)
    ::unlink(draft.c_str());
  return fault;
}

void remove_pid_file(const std::string& path, pid_t pid) {
  const auto found = read_text(path, most_bytes);
  const auto* text = std::get_if<std::string>(&found);
  if (text != nullptr && *text == text_of(pid))
    ::unlink(path.c_str());
}

}  // namespace pup
