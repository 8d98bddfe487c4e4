#include "pup/runtime/machine.hpp"

#include "pup/runtime/fd.hpp"
#include "pup/runtime/process.hpp"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

std::string words_for(int code) {
  std::array<char, 128> buffer{};
  return ::strerror_r(code, buffer.data(), buffer.size());
}

std::string folder_problem(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    return errno == ENOENT ? "no such folder" : words_for(errno);
  if (!S_ISDIR(info.st_mode))
    return "not a folder";
  return ::access(path.c_str(), X_OK) == 0 ? std::string{} : words_for(errno);
}

std::string program_problem(const std::string& program,
                            const std::string& path_suffix,
                            const std::string& cwd) {
  const auto* inherited = std::getenv("PATH");
  std::string path = inherited != nullptr ? inherited : "";
  if (!path_suffix.empty())
    path += (path.empty() ? "" : ":") + path_suffix;
  const auto found = resolve_program(program, path, cwd);
  if (const auto* fault = std::get_if<os_fault>(&found))
    return fault->code == ENOENT ? "not found" : words_for(fault->code);
  const auto& file = std::get<std::string>(found);
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0)
    return errno == ENOENT ? "not found" : words_for(errno);
  if (S_ISDIR(info.st_mode))
    return "is a folder";
  return ::access(file.c_str(), X_OK) == 0 ? std::string{} : "not executable";
}

std::uint32_t usable_processors() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0)
    return 1;  // more than 1024 processors: "max" then means one
  return static_cast<std::uint32_t>(std::max(1, CPU_COUNT(&set)));
}

load_result failed(const std::string& path, std::string problem,
                   std::string remedy) {
  diagnostic fault;
  fault.file = path;
  fault.problem = std::move(problem);
  fault.remedy = std::move(remedy);
  return std::vector<diagnostic>{std::move(fault)};
}

}  // namespace

world real_world() {
  world result;
  result.variable = [](const std::string& name) -> std::optional<std::string> {
    const auto* value = std::getenv(name.c_str());
    return value != nullptr ? std::optional<std::string>{value} : std::nullopt;
  };
  result.folder_problem = folder_problem;
  result.program_problem = program_problem;
  result.processors = usable_processors();
  return result;
}

std::string canonical(const std::string& path) {
  std::error_code code;
  auto result = std::filesystem::canonical(path, code);
  return code ? std::string{} : result.string();
}

load_result load_file(const std::string& path) {
  // O_NONBLOCK: a FIFO must not make us wait for its writer.
  unique_fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (!fd)
    return failed(path, words_for(errno), "name a readable configuration file");
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0)
    return failed(path, words_for(errno), "name a readable configuration file");
  if (S_ISDIR(info.st_mode))
    return failed(path, "is a folder", "name the configuration file in it");
  if (!S_ISREG(info.st_mode) && !S_ISFIFO(info.st_mode))
    return failed(path, "is no regular file",
                  "name a readable configuration file");
  std::string text;
  std::array<char, 65'536> buffer{};
  // One byte above the bound is enough for load() to refuse it.
  while (text.size() <= bounds::config_bytes) {
    const auto n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return failed(path, words_for(errno),
                    "name a readable configuration file");
    if (n == 0)
      break;
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  const auto folder = std::filesystem::path{canonical(path)}.parent_path();
  return load(text, path, folder.string(), real_world());
}

}  // namespace pup
