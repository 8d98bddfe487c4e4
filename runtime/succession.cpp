#include "pup/runtime/succession.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

constexpr off_t most_bytes = 256 * 1024 * 1024;

constexpr const char* state_variable = "PUP_GUARD_STATE";
constexpr const char* former_variable = "PUP_GUARD_FORMER";

void close_on_exec(int fd, bool wanted) {
  ::fcntl(fd, F_SETFD, wanted ? FD_CLOEXEC : 0);
}

// Under the name that this process has, whatever leads to the program. Returns
// the error.
int execute(const std::string& program,
            const std::vector<std::string>& arguments) {
  std::vector<char*> argv{const_cast<char*>(own_program().c_str())};
  for (const auto& x : arguments)
    argv.push_back(const_cast<char*>(x.c_str()));  // execv's signature
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  return errno;
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

const std::string& own_program() {
  static const auto result = [] {
    constexpr std::string_view removed = " (deleted)";
    std::string path(4096, '\0');
    const auto size = ::readlink("/proc/self/exe", path.data(), path.size());
    path.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
    if (path.ends_with(removed))
      path.resize(path.size() - removed.size());
    return path;
  }();
  return result;
}

bool runs_program_of_parent() {
  struct stat own {};
  struct stat theirs {};
  const auto parent = "/proc/" + std::to_string(::getppid()) + "/exe";
  return ::stat("/proc/self/exe", &own) == 0
         && ::stat(parent.c_str(), &theirs) == 0 && own.st_dev == theirs.st_dev
         && own.st_ino == theirs.st_ino;
}

os_fault become(const std::string& program,
                const std::vector<std::string>& arguments, int state,
                int former, const std::vector<int>& kept) {
  auto all = kept;
  all.push_back(state);
  for (const auto fd : all)
    close_on_exec(fd, false);
  const auto number = std::to_string(state);
  ::setenv(state_variable, number.c_str(), 1);
  if (former >= 0)
    ::setenv(former_variable, (std::to_string(former) + ',' + number).c_str(),
             1);
  const auto error = execute(program, arguments);
  ::unsetenv(state_variable);
  ::unsetenv(former_variable);
  for (const auto fd : all)
    close_on_exec(fd, true);
  return {"exec", program, error};
}

legacy inherited_state() {
  legacy result;
  if (const auto* text = std::getenv(former_variable))
    if (std::sscanf(text, "%d,%d", &result.former, &result.original) != 2)
      result.former = result.original = -1;
  const auto* text = std::getenv(state_variable);
  const auto number = text == nullptr ? -1 : std::atoi(text);
  ::unsetenv(state_variable);
  ::unsetenv(former_variable);
  if (number > STDERR_FILENO)
    result.state.reset(number);
  return result;
}

os_fault go_back(const legacy& from,
                 const std::vector<std::string>& arguments) {
  const auto program = "/proc/self/fd/" + std::to_string(from.former);
  ::setenv(state_variable, std::to_string(from.original).c_str(), 1);
  return {"exec", program, execute(program, arguments)};
}

}  // namespace pup
