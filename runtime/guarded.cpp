#include "pup/runtime/guarded.hpp"

#include "pup/runtime/proc_file.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace pup {

namespace {

// Says which descriptor leads to the guardian.
constexpr const char* descriptor_variable = "PUP_GUARD_FD";

}  // namespace

std::string own_program() {
  std::error_code code;
  auto path = std::filesystem::read_symlink("/proc/self/exe", code).string();
  constexpr std::string_view replaced = " (deleted)";
  if (path.ends_with(replaced))
    path.erase(path.size() - replaced.size());
  return path;
}

std::string guardian_program() {
  const auto folder = std::filesystem::path{own_program()}.parent_path();
  for (const auto* x : {"pup-guardian", "../libexec/pup/pup-guardian"}) {
    auto path = (folder / x).lexically_normal().string();
    if (::access(path.c_str(), X_OK) == 0)
      return path;
  }
  return {};
}

bool is_guardian(pid_t pid) {
  return read_proc_file("/proc/" + std::to_string(pid) + "/comm")
         == "pup-guardian\n";
}

std::string enter_guardian(char** argv) {
  if (std::getenv(descriptor_variable) != nullptr)
    return {};
  auto path = guardian_program();
  if (path.empty())
    return "pup-guardian is not installed beside " + own_program();
  auto self = own_program();
  std::vector<char*> arguments{path.data(), self.data()};
  for (auto** i = argv + 1; *i != nullptr; ++i)
    arguments.push_back(*i);
  arguments.push_back(nullptr);
  ::execv(path.c_str(), arguments.data());
  return path + ": " + std::strerror(errno);
}

std::variant<std::shared_ptr<guardian_link>, std::string> meet_guardian() {
  const auto* value = std::getenv(descriptor_variable);
  if (value == nullptr)
    return std::shared_ptr<guardian_link>{};
  const std::string_view text = value;
  int fd = -1;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), fd);
  if (error != std::errc{} || end != text.data() + text.size()
      || ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
    return std::string{descriptor_variable}
           + " is for pup-guardian alone; take it out of the environment";
  ::unsetenv(descriptor_variable);
  return guardian_link::open(unique_fd{fd});
}

}  // namespace pup
