#include "pup/runtime/succession.hpp"

#include <cerrno>
#include <cstdlib>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

constexpr off_t most_bytes = 256 * 1024 * 1024;

constexpr const char* state_variable = "PUP_GUARD_STATE";

void close_on_exec(int fd, bool wanted) {
  ::fcntl(fd, F_SETFD, wanted ? FD_CLOEXEC : 0);
}

}  // namespace

std::variant<unique_fd, os_fault> memory_file_of(std::string_view bytes) {
  unique_fd result{::memfd_create("pup-guardian", MFD_CLOEXEC)};
  if (!result)
    return os_fault{"memfd_create", "for the guardian's successor", errno};
  while (!bytes.empty()) {
    const auto n = ::write(result.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return os_fault{"write", "for the guardian's successor", errno};
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return result;
}

std::string bytes_of_memory_file(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0 || info.st_size > most_bytes)
    return {};
  std::string result(static_cast<std::size_t>(info.st_size), '\0');
  for (std::size_t done = 0; done < result.size();) {
    const auto n = ::pread(fd, result.data() + done, result.size() - done,
                           static_cast<off_t>(done));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return {};
    done += static_cast<std::size_t>(n);
  }
  return result;
}

program_on_disk own_program_on_disk() {
  constexpr std::string_view removed = " (deleted)";
  std::string path(4096, '\0');
  const auto size = ::readlink("/proc/self/exe", path.data(), path.size());
  if (size <= 0)
    return {};
  path.resize(static_cast<std::size_t>(size));
  if (path.ends_with(removed))
    path.resize(path.size() - removed.size());
  struct stat there {};
  struct stat own {};
  if (::stat(path.c_str(), &there) != 0 || ::stat("/proc/self/exe", &own) != 0)
    return {};
  return {path, there.st_dev != own.st_dev || there.st_ino != own.st_ino};
}

os_fault become(const std::string& program,
                const std::vector<std::string>& arguments, int state,
                const std::vector<int>& kept) {
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const auto& x : arguments)
    argv.push_back(const_cast<char*>(x.c_str()));  // execv's signature
  argv.push_back(nullptr);
  auto all = kept;
  all.push_back(state);
  for (const auto fd : all)
    close_on_exec(fd, false);
  ::setenv(state_variable, std::to_string(state).c_str(), 1);
  ::execv(program.c_str(), argv.data());
  const auto error = errno;
  ::unsetenv(state_variable);
  for (const auto fd : all)
    close_on_exec(fd, true);
  return {"exec", program, error};
}

unique_fd inherited_state() {
  const auto* text = std::getenv(state_variable);
  if (text == nullptr)
    return unique_fd{};
  const auto number = std::atoi(text);
  ::unsetenv(state_variable);
  if (number <= STDERR_FILENO)
    return unique_fd{};
  unique_fd result{number};
  close_on_exec(result.get(), true);
  return result;
}

}  // namespace pup
