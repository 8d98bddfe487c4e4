#include "pup/runtime/descendants.hpp"

#include "pup/runtime/proc_file.hpp"

#include <algorithm>
#include <charconv>
#include <memory>

#include <dirent.h>
#include <unistd.h>

namespace pup {

namespace {

std::string proc(pid_t pid, std::string_view file) {
  return "/proc/" + std::to_string(pid) + '/' + std::string{file};
}

// The entries of a folder that are numbers.
std::vector<pid_t> numbers_in_folder(const std::string& path) {
  struct closer {
    void operator()(DIR* x) const noexcept {
      ::closedir(x);
    }
  };
  const std::unique_ptr<DIR, closer> folder{::opendir(path.c_str())};
  std::vector<pid_t> result;
  if (!folder)
    return result;
  while (const auto* entry = ::readdir(folder.get())) {
    const std::string_view name = entry->d_name;
    pid_t number = 0;
    const auto [end, error] =
        std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc{} && end == name.data() + name.size())
      result.push_back(number);
  }
  return result;
}

// Number `index` behind the name in /proc/PID/stat, from 0: "pid (name) S
// ppid".
std::uint64_t stat_number(pid_t pid, int index) {
  const auto text = read_proc_file(proc(pid, "stat"));
  auto at = text.rfind(") ");
  if (at == std::string::npos)
    return 0;
  at += 3;  // behind the state
  for (int i = 0; i <= index && at < text.size(); ++i) {
    at = text.find_first_not_of(' ', at);
    if (at == std::string::npos)
      return 0;
    if (i < index)
      at = std::min(text.find(' ', at), text.size());
  }
  std::uint64_t result = 0;
  std::from_chars(text.data() + std::min(at, text.size()),
                  text.data() + text.size(), result);
  return result;
}

// Where the kernel keeps no lists of children (CONFIG_PROC_CHILDREN).
std::vector<pid_t> children_by_search(pid_t pid) {
  auto all = all_processes();
  std::erase_if(all, [pid](pid_t x) {
    return stat_number(x, 0) != static_cast<std::uint64_t>(pid);
  });
  return all;
}

}  // namespace

std::string life_entry(std::string_view scope, std::uint64_t number) {
  return std::string{life_variable} + std::string{scope} + '#'
         + std::to_string(number);
}

std::uint64_t number_in(std::string_view value, std::string_view scope) {
  if (!value.starts_with(scope) || value.size() < scope.size() + 2
      || value[scope.size()] != '#')
    return 0;
  value.remove_prefix(scope.size() + 1);
  std::uint64_t result = 0;
  const auto [end, error] =
      std::from_chars(value.data(), value.data() + value.size(), result);
  return error == std::errc{} && end == value.data() + value.size() ? result
                                                                    : 0;
}

std::vector<pid_t> all_processes() {
  return numbers_in_folder("/proc");
}

std::vector<pid_t> children_of(pid_t pid) {
  static const bool listed = ::access("/proc/thread-self/children", R_OK) == 0;
  if (!listed)
    return children_by_search(pid);
  std::vector<pid_t> result;
  const auto tasks = proc(pid, "task");
  for (const auto thread : numbers_in_folder(tasks)) {
    const auto text =
        read_proc_file(tasks + '/' + std::to_string(thread) + "/children");
    for (const char *at = text.data(), *end = at + text.size(); at < end;) {
      pid_t child = 0;
      const auto [next, error] = std::from_chars(at, end, child);
      if (error != std::errc{})
        break;
      result.push_back(child);
      at = next + 1;  // a blank
    }
  }
  return result;
}

std::vector<pid_t> descendants_of(pid_t pid) {
  auto result = children_of(pid);
  for (std::size_t i = 0; i < result.size(); ++i)
    for (const auto x : children_of(result[i]))
      if (std::find(result.begin(), result.end(), x) == result.end())
        result.push_back(x);
  return result;
}

std::string life_of(pid_t pid) {
  const auto text = read_proc_file(proc(pid, "environ"));
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\0', at), text.size());
    const auto entry = std::string_view{text}.substr(at, end - at);
    if (entry.starts_with(life_variable))
      return std::string{entry.substr(life_variable.size())};
    at = end + 1;
  }
  return {};
}

pid_t parent_of(pid_t pid) {
  return static_cast<pid_t>(stat_number(pid, 0));
}

std::uint64_t start_ticks(pid_t pid) {
  return stat_number(pid, 18);  // field 22 of proc(5)
}

std::string describe_process(pid_t pid) {
  auto name = read_proc_file(proc(pid, "comm"));
  name.erase(std::min(name.find('\n'), name.size()));
  return "pid " + std::to_string(pid) + (name.empty() ? "" : " (" + name + ')');
}

}  // namespace pup
