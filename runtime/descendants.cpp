#include "pup/runtime/descendants.hpp"

#include "pup/runtime/pidfd.hpp"
#include "pup/runtime/proc_file.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <ctime>
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

// Where the kernel keeps no lists of children (CONFIG_PROC_CHILDREN).
std::vector<pid_t> children_by_search(pid_t pid) {
  auto all = all_processes();
  std::erase_if(all, [pid](pid_t x) { return parent_of(x) != pid; });
  return all;
}

// Numbers, each followed by a blank.
void add_numbers(const std::string& text, std::vector<pid_t>& to) {
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    pid_t number = 0;
    const auto [next, error] = std::from_chars(at, end, number);
    if (error != std::errc{})
      return;
    to.push_back(number);
    at = next + 1;
  }
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
  for (const auto thread : numbers_in_folder(tasks))
    add_numbers(
        read_proc_file(tasks + '/' + std::to_string(thread) + "/children"),
        result);
  return result;
}

std::vector<pid_t> own_children() {
  static const unique_fd list{
      ::open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC)};
  if (!list)
    return children_of(::getpid());
  std::string text;
  std::array<char, 16 * 1024> buffer;
  for (;;) {
    const auto n = ::pread(list.get(), buffer.data(), buffer.size(),
                           static_cast<off_t>(text.size()));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      break;
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  std::vector<pid_t> result;
  add_numbers(text, result);
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

std::string life_in(std::string_view environment) {
  while (!environment.empty()) {
    const auto entry = environment.substr(0, environment.find('\0'));
    environment.remove_prefix(std::min(entry.size() + 1, environment.size()));
    if (entry.starts_with(life_variable))
      return std::string{entry.substr(life_variable.size())};
  }
  return {};
}

std::optional<process_stat> stat_of(pid_t pid) {
  // "pid (name) S parent group session …", the start is field 22 of proc(5).
  const auto text = read_proc_file(proc(pid, "stat"));
  const auto name_end = text.rfind(") ");
  if (name_end == std::string::npos || name_end + 3 > text.size())
    return std::nullopt;
  process_stat result;
  result.state = text[name_end + 2];
  std::array<std::uint64_t, 19> numbers{};  // from field 4 on
  const auto* at = text.data() + name_end + 3;
  const auto* const end = text.data() + text.size();
  for (auto& x : numbers) {
    while (at < end && *at == ' ')
      ++at;
    std::int64_t number = 0;  // some are negative
    const auto [next, error] = std::from_chars(at, end, number);
    x = error == std::errc{} ? static_cast<std::uint64_t>(number) : 0;
    at = std::find(next, end, ' ');
  }
  result.parent = static_cast<pid_t>(numbers[0]);
  result.group = static_cast<pid_t>(numbers[1]);
  result.session = static_cast<pid_t>(numbers[2]);
  result.started = numbers[18];
  constexpr std::uint64_t kernel_thread = 0x0020'0000;  // PF_KTHREAD
  result.is_kernel = (numbers[5] & kernel_thread) != 0;
  return result;
}

bool signal_process(pid_t pid, std::uint64_t started, int signo) {
  const auto pidfd = open_pidfd(pid);
  // Looked at after the descriptor was had: now it is that process for ever.
  if (start_ticks(pid) != started)
    return false;
  if (!pidfd)  // no room for it: the window between these two lines is left
    return ::kill(pid, signo) == 0;
  return ::syscall(SYS_pidfd_send_signal, pidfd.get(), signo, nullptr, 0U) == 0;
}

std::uint64_t pipe_behind(pid_t pid, int fd) {
  constexpr std::string_view prefix = "pipe:[";
  std::array<char, 64> target{};
  const auto n = ::readlink(proc(pid, "fd/" + std::to_string(fd)).c_str(),
                            target.data(), target.size());
  const std::string_view text{
      target.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
  std::uint64_t result = 0;
  if (text.starts_with(prefix))
    std::from_chars(text.data() + prefix.size(), text.data() + text.size(),
                    result);
  return result;
}

std::optional<uid_t> user_of(pid_t pid) {
  constexpr std::string_view entry = "\nUid:\t";
  const auto text = read_proc_file(proc(pid, "status"));
  const auto at = text.find(entry);
  if (at == std::string::npos)
    return std::nullopt;
  uid_t result = 0;
  const auto* const from = text.data() + at + entry.size();
  const auto [end, error] =
      std::from_chars(from, text.data() + text.size(), result);
  return error == std::errc{} ? std::optional{result} : std::nullopt;
}

std::uint64_t ticks_since_boot() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  static const auto per_second =
      static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return static_cast<std::uint64_t>(now.tv_sec) * per_second
         + static_cast<std::uint64_t>(now.tv_nsec) * per_second / 1'000'000'000;
}

pid_t parent_of(pid_t pid) {
  const auto x = stat_of(pid);
  return x ? x->parent : 0;
}

std::uint64_t start_ticks(pid_t pid) {
  const auto x = stat_of(pid);
  return x ? x->started : 0;
}

std::string describe_process(pid_t pid) {
  auto name = read_proc_file(proc(pid, "comm"));
  name.erase(std::min(name.find('\n'), name.size()));
  // A program chooses it, and people read it.
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return "pid " + std::to_string(pid) + (name.empty() ? "" : " (" + name + ')');
}

}  // namespace pup
