#include "pup/runtime/life_cgroup.hpp"

#include "pup/runtime/descendants.hpp"
#include "pup/runtime/fd.hpp"
#include "pup/runtime/proc_file.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_clone3
#  define SYS_clone3 435  // the same number on every architecture
#endif

namespace pup {

namespace {

constexpr std::string_view prefix = "pup-life-";

// Of groups that a program has made within its own.
constexpr int deepest = 8;

bool write_at(const std::string& path, std::string_view text) {
  const unique_fd fd{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
  return fd && ::write(fd.get(), text.data(), text.size()) >= 0;
}

std::vector<std::string> folders_in(const std::string& folder) {
  struct closer {
    void operator()(DIR* x) const noexcept {
      ::closedir(x);
    }
  };
  const std::unique_ptr<DIR, closer> all{::opendir(folder.c_str())};
  std::vector<std::string> result;
  if (!all)
    return result;
  while (const auto* entry = ::readdir(all.get()))
    if (const std::string_view name = entry->d_name;
        entry->d_type == DT_DIR && name != "." && name != "..")
      result.emplace_back(name);
  return result;
}

bool remove_tree(const std::string& folder, int depth) {
  if (::rmdir(folder.c_str()) == 0 || errno == ENOENT)
    return true;
  if (depth == 0)
    return false;
  for (const auto& x : folders_in(folder))
    if (!remove_tree(folder + '/' + x, depth - 1))
      return false;
  return ::rmdir(folder.c_str()) == 0;
}

// The kernel tells of each change of that file.
void await_empty(const std::string& folder,
                 std::chrono::steady_clock::time_point deadline) {
  using std::chrono::milliseconds;
  const unique_fd file{
      ::open((folder + "/cgroup.events").c_str(), O_RDONLY | O_CLOEXEC)};
  std::array<char, 256> text;
  while (file) {
    const auto n = ::pread(file.get(), text.data(), text.size(), 0);
    const std::string_view now{text.data(),
                               static_cast<std::size_t>(n < 0 ? 0 : n)};
    const auto left = std::chrono::ceil<milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (now.find("populated 1") == std::string_view::npos || left.count() <= 0)
      return;
    pollfd event{file.get(), POLLPRI, 0};
    ::poll(&event, 1, static_cast<int>(left.count()));
  }
}

// The guardian of "pup-life-PID.TICKS-NUMBER" is no more.
bool is_former(std::string_view name) {
  if (!name.starts_with(prefix))
    return false;
  name.remove_prefix(prefix.size());
  const auto* const end = name.data() + name.size();
  pid_t pid = 0;
  std::uint64_t ticks = 0;
  const auto dot = std::from_chars(name.data(), end, pid);
  if (dot.ec != std::errc{} || dot.ptr == end || *dot.ptr != '.')
    return false;
  const auto dash = std::from_chars(dot.ptr + 1, end, ticks);
  return dash.ec == std::errc{} && dash.ptr != end && *dash.ptr == '-'
         && start_ticks(pid) != ticks;
}

}  // namespace

// Asked with no group at all: whoever knows the question refuses that.
bool can_begin_in_cgroup() {
  static const bool result = [] {
    struct {
      std::uint64_t flags = 0x2'0000'0000;  // CLONE_INTO_CGROUP
      std::uint64_t others[9] = {};
      std::uint64_t cgroup = 0x7fff'ffff;
    } how;
    return ::syscall(SYS_clone3, &how, sizeof(how)) < 0 && errno == EBADF;
  }();
  return result;
}

std::string make_life_cgroup(const std::string& within, std::string_view scope,
                             std::uint64_t number) {
  if (within.empty() || scope.empty())
    return {};
  auto result = within + '/';
  result.append(prefix).append(scope).append("-").append(
      std::to_string(number));
  if (::mkdir(result.c_str(), 0755) != 0)
    return {};
  // "domain invalid": in a group for threads no process can be.
  if (read_proc_file(result + "/cgroup.type") == "domain\n")
    return result;
  ::rmdir(result.c_str());
  return {};
}

std::vector<pid_t> members_of_cgroup(const std::string& folder) {
  const auto text = read_proc_file(folder + "/cgroup.procs");
  std::vector<pid_t> result;
  for (const auto *at = text.data(), *end = at + text.size(); at < end;) {
    pid_t pid = 0;
    const auto [next, error] = std::from_chars(at, end, pid);
    if (error != std::errc{})
      break;
    if (pid != 0)  // one of another namespace
      result.push_back(pid);
    at = next + 1;
  }
  return result;
}

void kill_cgroup(const std::string& folder) {
  if (folder.empty() || write_at(folder + "/cgroup.kill", "1"))
    return;
  // Nobody forks meanwhile.
  write_at(folder + "/cgroup.freeze", "1");
  for (const auto pid : members_of_cgroup(folder))
    if (const auto started = start_ticks(pid); started != 0)
      signal_process(pid, started, SIGKILL);
  write_at(folder + "/cgroup.freeze", "0");
}

bool remove_cgroup(const std::string& folder) {
  return folder.empty() || remove_tree(folder, deepest);
}

void end_life_cgroups(const std::string& within, std::string_view scope,
                      std::chrono::steady_clock::time_point deadline) {
  if (within.empty() || scope.empty())
    return;
  std::vector<std::string> all;
  for (const auto& x : folders_in(within))
    if (x.starts_with(std::string{prefix}.append(scope) + '-'))
      all.push_back(within + '/' + x);
  for (const auto& x : all)
    kill_cgroup(x);
  for (const auto& x : all) {
    await_empty(x, deadline);
    remove_cgroup(x);
  }
}

void remove_former_life_cgroups(const std::string& within) {
  if (within.empty())
    return;
  for (const auto& x : folders_in(within))
    if (is_former(x))
      remove_cgroup(within + '/' + x);
}

}  // namespace pup
