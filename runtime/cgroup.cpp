#include "pup/runtime/cgroup.hpp"

#include "pup/runtime/descendants.hpp"
#include "pup/runtime/fd.hpp"
#include "pup/runtime/text_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <optional>
#include <sstream>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace pup {

namespace {

constexpr std::size_t most_bytes = 16u << 20;
// The kernel's usual period; a quota of it is what cpu.max holds.
constexpr std::uint64_t period_us = 100'000;

std::string text_at(const std::string& path) {
  auto found = read_text(path, most_bytes);
  auto* text = std::get_if<std::string>(&found);
  return text != nullptr ? std::move(*text) : std::string{};
}

// One write: these files take a whole value at once. 0 or errno.
int write_at(const std::string& path, const std::string& text) {
  const unique_fd fd{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
  if (!fd || ::write(fd.get(), text.data(), text.size()) < 0)
    return errno;
  return 0;
}

bool has_word(const std::string& text, const std::string& word) {
  std::istringstream words{text};
  for (std::string x; words >> x;)
    if (x == word)
      return true;
  return false;
}

std::vector<pid_t> members(const std::string& folder) {
  std::istringstream lines{text_at(folder + "/cgroup.procs")};
  std::vector<pid_t> result;
  for (pid_t pid = 0; lines >> pid;)
    result.push_back(pid);
  return result;
}

// `root`, and what it has started or what those have.
bool is_below(pid_t pid, pid_t root) {
  for (; pid > 0; pid = parent_of(pid))
    if (pid == root)
      return true;
  return false;
}

// mountinfo writes blanks in paths as \040.
std::string unescaped(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned code = 0;
    if (text[i] == '\\' && i + 3 < text.size()
        && std::from_chars(&text[i + 1], &text[i + 4], code, 8).ptr
               == &text[i + 4]) {
      result += static_cast<char>(code);
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

std::string words_for(int code) {
  return std::system_category().message(code);
}

// With a pid: others may share the group above.
std::string room_of(pid_t root) {
  return "/pup-" + std::to_string(root);
}

// A predecessor may have moved all of us already.
std::string without_room(std::string folder, pid_t root) {
  if (const auto room = room_of(root); folder.ends_with(room))
    folder.resize(folder.size() - room.size());
  return folder;
}

std::string own_cgroup_by_now() {
  return own_cgroup(text_at("/proc/self/cgroup"),
                    text_at("/proc/self/mountinfo"));
}

// Delegate=yes of its unit.
bool is_delegated(const std::string& folder) {
  std::array<char, 8> value{};
  for (const auto* name : {"trusted.delegate", "user.delegate"})
    if (::getxattr(folder.c_str(), name, value.data(), value.size()) == 1
        && value[0] == '1')
      return true;
  return false;
}

}  // namespace

std::string own_cgroup(std::string_view self, std::string_view mounts) {
  std::string below;
  std::istringstream groups{std::string{self}};
  for (std::string line; std::getline(groups, line);)
    if (line.starts_with("0::"))
      below = line.substr(3);
  if (below.empty() || below.ends_with(" (deleted)"))
    return {};
  // id parent device root point options optional... - type source options
  std::istringstream lines{std::string{mounts}};
  for (std::string line; std::getline(lines, line);) {
    const auto dash = line.find(" - ");
    if (dash == std::string::npos
        || !line.substr(dash).starts_with(" - cgroup2 "))
      continue;
    std::istringstream words{line};
    std::string skipped;
    std::string root;
    std::string point;
    words >> skipped >> skipped >> skipped >> root >> point;
    root = unescaped(root);
    if (root != "/" && below.starts_with(root))
      below.erase(0, root.size());
    auto result = unescaped(point) + below;
    while (result.size() > 1 && result.ends_with('/'))
      result.pop_back();
    return result;
  }
  return {};
}

std::string cpu_max(std::uint32_t percent) {
  return std::to_string(percent * (period_us / 100)) + ' '
         + std::to_string(period_us);
}

std::string cgroup_for_lives(pid_t root) {
  auto folder = without_room(own_cgroup_by_now(), root);
  if (folder.empty() || ::access(folder.c_str(), W_OK) != 0)
    return {};
  const auto systemd = ::access("/run/systemd/system", F_OK) == 0;
  return systemd && !is_delegated(folder) ? std::string{} : folder;
}

cgroup_tree::cgroup_tree(pid_t root) : cgroup_tree(root, own_cgroup_by_now()) {}

cgroup_tree::cgroup_tree(pid_t root, std::string folder)
    : root_(root), folder_(without_room(std::move(folder), root)) {}

cgroup_tree::~cgroup_tree() {
  for (const auto& id : ids_)
    ::rmdir(folder_of(id).c_str());
}

std::string cgroup_tree::room_name() const {
  return room_of(root_);
}

std::string cgroup_tree::folder_of(const std::string& id) const {
  return folder_ + room_name() + '-' + id;
}

std::variant<std::string, cgroup_tree::problem> cgroup_tree::prepare(
    const std::string& id, const cgroup_limits& limits) {
  const auto refused = [](const std::string& why) {
    return problem{"cgroup limits are not in force: " + why};
  };
  if (folder_.empty())
    return refused("no cgroup of version 2 here");
  struct setting {
    const char* controller;
    const char* file;
    std::string value;
  };
  const auto number = [](std::uint64_t x) {
    return x == 0 ? std::string{"max"} : std::to_string(x);
  };
  std::vector<setting> settings;
  if (limits.memory_bytes != 0)
    settings.push_back({"memory", "/memory.max", number(limits.memory_bytes)});
  if (limits.cpu_percent != 0)
    settings.push_back({"cpu", "/cpu.max", cpu_max(limits.cpu_percent)});
  if (limits.processes != 0)
    settings.push_back({"pids", "/pids.max", number(limits.processes)});
  for (const auto& x : settings)
    if (auto why = delegate(x.controller); !why.empty())
      return refused(why);
  const auto folder = folder_of(id);
  if (::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST)
    return refused(folder + ": " + words_for(errno));
  ids_.insert(id);
  for (const auto& x : settings)
    if (const int code = write_at(folder + x.file, x.value); code != 0)
      return refused(folder + x.file + ": " + words_for(code));
  return folder;
}

void cgroup_tree::remove(const std::string& id) {
  // EBUSY: a hook, or the next life, is in it.
  if (!folder_.empty() && ::rmdir(folder_of(id).c_str()) == 0)
    ids_.erase(id);
}

void cgroup_tree::end(const std::string& id) {
  if (!folder_.empty())
    static_cast<void>(write_at(folder_of(id) + "/cgroup.kill", "1"));
  remove(id);
}

// Empty: groups below this one have the controller.
std::string cgroup_tree::delegate(const std::string& controller) {
  const auto below = folder_ + "/cgroup.subtree_control";
  if (has_word(text_at(below), controller))
    return {};
  if (!has_word(text_at(folder_ + "/cgroup.controllers"), controller))
    return "the controller " + controller + " is not available in " + folder_;
  // With processes in it a group takes some controllers (cpu, pids) for threads
  // alone, and then no process may enter what is below. The root of all groups,
  // which has no type, is free of that.
  if (!text_at(folder_ + "/cgroup.type").empty())
    if (auto why = make_room(); !why.empty())
      return why;
  const int code = write_at(below, '+' + controller);
  return code == 0 ? std::string{} : below + ": " + words_for(code);
}

// Moves what is in the group into one below it.
std::string cgroup_tree::make_room() {
  if (members(folder_).empty())
    return {};
  const auto room = folder_ + room_name();
  if (::mkdir(room.c_str(), 0755) != 0 && errno != EEXIST)
    return room + ": " + words_for(errno);
  // Again while there are some: what we have started may start others.
  for (auto all = members(folder_); !all.empty(); all = members(folder_)) {
    for (const auto pid : all)
      if (!is_below(pid, root_) && parent_of(pid) != 0)
        return "pid " + std::to_string(pid) + " is in the group " + folder_
               + " as well, which is not pup's own";
    for (const auto pid : all) {
      const int code = write_at(room + "/cgroup.procs", std::to_string(pid));
      if (code != 0 && code != ESRCH)
        return room + ": " + words_for(code);
    }
  }
  return {};
}

}  // namespace pup
