#include "pup/runtime/machine.hpp"

#include "pup/config/expand.hpp"
#include "pup/config/paths.hpp"
#include "pup/runtime/accounts.hpp"
#include "pup/runtime/fd.hpp"
#include "pup/runtime/pattern.hpp"
#include "pup/runtime/process.hpp"
#include "pup/runtime/trusted_path.hpp"
#include "pup/runtime/zone.hpp"

#include <array>
#include <cerrno>
#include <charconv>
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

bool is_link(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode);
}

std::uint32_t usable_processors() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0)
    return 1;  // more than 1024 processors: "max" then means one
  return static_cast<std::uint32_t>(std::max(1, CPU_COUNT(&set)));
}

std::vector<diagnostic> failed(const std::string& path, std::string problem,
                               std::string remedy) {
  diagnostic fault;
  fault.file = path;
  fault.problem = std::move(problem);
  fault.remedy = std::move(remedy);
  return {std::move(fault)};
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
  result.time_zone_problem = [](const std::string& name) {
    auto found = find_time_zone(name);
    auto* fault = std::get_if<zone_fault>(&found);
    return fault != nullptr ? std::pair{fault->problem, fault->remedy}
                            : std::pair<std::string, std::string>{};
  };
  result.user = find_user;
  result.group = find_group;
  result.self = own_identity;
  result.attribute_problems = attribute_problems;
  result.env_file = read_variables;
  result.pattern_problem = [](const std::string& pattern) {
    auto parsed = text_pattern::parse(pattern);
    auto* fault = std::get_if<std::string>(&parsed);
    return fault != nullptr ? *fault : std::string{};
  };
  result.is_link = is_link;
  result.processors = usable_processors();
  return result;
}

std::string canonical(const std::string& path) {
  std::error_code code;
  auto result = std::filesystem::canonical(path, code);
  return code ? std::string{} : result.string();
}

std::string working_folder() {
  const auto* written = std::getenv("PWD");
  struct stat named {};
  struct stat here {};
  if (written != nullptr && *written == '/' && ::stat(".", &here) == 0
      && ::stat(written, &named) == 0 && here.st_dev == named.st_dev
      && here.st_ino == named.st_ino)
    return absolute_path(written, "/", is_link);
  std::error_code ignored;
  return std::filesystem::current_path(ignored).string();
}

std::string as_written(const std::string& path) {
  return absolute_path(path, working_folder(), is_link);
}

uid_t caller_of_root() {
  const auto* text = std::getenv("SUDO_UID");
  uid_t result = 0;
  if (text != nullptr)
    std::from_chars(text, text + std::strlen(text), result);
  return result;
}

namespace {

/// By root through nobody else's links; whose the file may be, distrust() says.
std::variant<unique_fd, os_fault> open_config(const std::string& path) {
  if (::geteuid() != 0) {
    // O_NONBLOCK: a FIFO must not make us wait for its writer.
    unique_fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (!fd)
      return os_fault{"open", path, errno};
    return fd;
  }
  const auto found = locate(path, {{}, caller_of_root()});
  if (const auto* fault = std::get_if<os_fault>(&found))
    return *fault;
  const auto& [folder, name] = std::get<located_file>(found);
  return folder.open_file(name, O_RDONLY, {{}, true});
}

}  // namespace

std::variant<config_text, std::vector<diagnostic>> examine_config(
    const std::string& path) {
  const auto opened = open_config(path);
  if (const auto* fault = std::get_if<os_fault>(&opened))
    return failed(path, problem_of(*fault),
                  fault->why.empty()
                      ? "name a readable configuration file"
                      : "name a file that only root may replace, or run pup as "
                        "its owner");
  const auto& fd = std::get<unique_fd>(opened);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0)
    return failed(path, words_for(errno), "name a readable configuration file");
  if (S_ISDIR(info.st_mode))
    return failed(path, "is a folder", "name the configuration file in it");
  if (!S_ISREG(info.st_mode) && !S_ISFIFO(info.st_mode))
    return failed(path, "is no regular file",
                  "name a readable configuration file");
  config_text result;
  result.piped = S_ISFIFO(info.st_mode);
  if (result.piped)  // it is open: now its writer may take its time
    ::fcntl(fd.get(), F_SETFL, O_RDONLY);
  if (::geteuid() == 0)
    if (auto why = distrust(info, caller_of_root()); !why.empty())
      result.objections =
          failed(path, why + ", and pup runs as root",
                 "chown it to root and chmod it 644, or run pup as its owner");
  auto& text = result.text;
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
  return result;
}

std::variant<std::string, std::vector<diagnostic>> read_config(
    const std::string& path) {
  auto found = examine_config(path);
  if (auto* faults = std::get_if<std::vector<diagnostic>>(&found))
    return std::move(*faults);
  auto& content = std::get<config_text>(found);
  if (!content.objections.empty())
    return std::move(content.objections);
  return std::move(content.text);
}

namespace {

template <class Result, class... Args>
void tell_first(std::function<Result(const std::string&, Args...)>& question,
                const std::string& kind, const asked_function& asked) {
  question = [question, kind, asked](const std::string& x, Args... rest) {
    asked(kind + x);
    return question(x, rest...);
  };
}

/// What may have to wait is told before it is asked.
world telling(world machine, const asked_function& asked) {
  tell_first(machine.folder_problem, {}, asked);
  tell_first(machine.program_problem, {}, asked);
  tell_first(machine.env_file, {}, asked);
  tell_first(machine.is_link, {}, asked);
  tell_first(machine.time_zone_problem, "the time zone ", asked);
  tell_first(machine.user, "the user ", asked);
  tell_first(machine.group, "the group ", asked);
  return machine;
}

load_result load_beside(const std::string& text, const std::string& shown,
                        const std::string& folder, world machine) {
  machine.program_problem = [folder, ask = std::move(machine.program_problem)](
                                const std::string& program,
                                const std::string& search_path,
                                const std::string& cwd) {
    return ask(program, search_path, cwd.empty() ? folder : cwd);
  };
  auto result = load(text, shown, folder, machine);
  if (auto* spec = std::get_if<pup_spec>(&result))
    for (auto& x : spec->processes)
      if (x.cwd.empty())
        x.cwd = escape_placeholders(folder);
  return result;
}

}  // namespace

load_result load_text(const std::string& text, const std::string& path) {
  return load_text(text, path, folder_of(as_written(path)));
}

load_result load_text(const std::string& text, const std::string& shown,
                      const std::string& folder, const asked_function& asked,
                      variable_files* files) {
  auto machine = real_world();
  if (files != nullptr)
    machine.env_file = [files, read = std::move(machine.env_file)](
                           const std::string& path, uid_t uid) {
      auto found = read(path, uid);
      if (found.problem.empty())
        (*files)[path] = found.text;
      return found;
    };
  return load_beside(
      text, shown, folder,
      asked ? telling(std::move(machine), asked) : std::move(machine));
}

load_result load_known_text(const std::string& text, const std::string& path,
                            const variable_files& files,
                            std::vector<std::string>& remarks) {
  auto machine = real_world();
  machine.env_file = [&files, &remarks, read = std::move(machine.env_file)](
                         const std::string& file, uid_t uid) {
    auto found = read(file, uid);
    const auto known = files.find(file);
    if (known == files.end())
      return found;
    if (!found.problem.empty())
      remarks.push_back(file + ": " + found.problem
                        + "; what is started gets the variables that were in "
                          "it, until another configuration is applied");
    return env_file_text{known->second, {}, false};
  };
  machine.folder_problem = [](const std::string&) { return std::string{}; };
  machine.program_problem = [](const std::string&, const std::string&,
                               const std::string&) { return std::string{}; };
  return load_beside(text, path, folder_of(as_written(path)),
                     std::move(machine));
}

// "PATH-BYTES TEXT-BYTES\n", then both.
std::string text_of(const variable_files& files) {
  std::string result;
  for (const auto& [path, text] : files)
    result += std::to_string(path.size()) + ' ' + std::to_string(text.size())
              + '\n' + path + text;
  return result;
}

variable_files variable_files_of(const std::string& text) {
  variable_files result;
  const auto* at = text.data();
  const auto* const end = at + text.size();
  while (at != end) {
    std::size_t path_bytes = 0;
    std::size_t text_bytes = 0;
    const auto first = std::from_chars(at, end, path_bytes);
    if (first.ec != std::errc{} || first.ptr == end || *first.ptr != ' ')
      return {};
    const auto second = std::from_chars(first.ptr + 1, end, text_bytes);
    if (second.ec != std::errc{} || second.ptr == end || *second.ptr != '\n')
      return {};
    at = second.ptr + 1;
    const auto left = static_cast<std::size_t>(end - at);
    if (path_bytes > left || text_bytes > left - path_bytes)
      return {};
    result[{at, path_bytes}] = {at + path_bytes, text_bytes};
    at += path_bytes + text_bytes;
  }
  return result;
}

load_result load_file(const std::string& path) {
  auto text = read_config(path);
  if (auto* faults = std::get_if<std::vector<diagnostic>>(&text))
    return std::move(*faults);
  return load_text(std::get<std::string>(text), path);
}

}  // namespace pup
