#include "pup/runtime/pid_file.hpp"

#include "pup/runtime/trusted_path.hpp"

#include <array>
#include <cerrno>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>

namespace pup {

namespace {

// More than any pid has.
constexpr std::size_t most_bytes = 32;

std::string text_of(pid_t pid) {
  return std::to_string(pid) + '\n';
}

std::optional<os_fault> write_in(const located_file& place, pid_t pid) {
  const auto& [folder, name] = place;
  const auto text = text_of(pid);
  const auto draft = name + ".pup-" + std::to_string(pid);
  // Left by a supervisor that was killed meanwhile, or laid by somebody who
  // may write here: it must not be written through.
  static_cast<void>(folder.remove(draft));
  const auto created = folder.create_file(draft, O_WRONLY, 0644);
  if (const auto* fault = std::get_if<os_fault>(&created))
    return *fault;
  const auto& fd = std::get<unique_fd>(created);
  std::optional<os_fault> fault;
  // Others are to read it, whatever our umask. No fsync: a pid means nothing
  // after a power failure.
  if (::fchmod(fd.get(), 0644) != 0
      || ::write(fd.get(), text.data(), text.size())
             != static_cast<ssize_t>(text.size()))
    fault = os_fault{"write", folder.path_of(draft), errno};
  else if (const auto error = folder.rename(draft, name); error != 0)
    fault = os_fault{"rename", folder.path_of(name), error};
  if (fault)
    static_cast<void>(folder.remove(draft));
  return fault;
}

bool holds(const located_file& place, pid_t pid) {
  const auto opened = place.folder.open_file(place.name, O_RDONLY, {{}, true});
  const auto* fd = std::get_if<unique_fd>(&opened);
  if (fd == nullptr)
    return false;
  std::array<char, most_bytes> text{};
  const auto size = ::read(fd->get(), text.data(), text.size());
  return size > 0
         && std::string_view{text.data(), static_cast<std::size_t>(size)}
                == text_of(pid);
}

}  // namespace

std::optional<os_fault> write_pid_file(const std::string& path, pid_t pid) {
  const auto found = locate(path, {}, false);
  if (const auto* fault = std::get_if<os_fault>(&found))
    return *fault;
  return write_in(std::get<located_file>(found), pid);
}

void remove_pid_file(const std::string& path, pid_t pid) {
  const auto found = locate(path, {}, false);
  const auto* place = std::get_if<located_file>(&found);
  if (place != nullptr && holds(*place, pid))
    static_cast<void>(place->folder.remove(place->name));
}

}  // namespace pup
