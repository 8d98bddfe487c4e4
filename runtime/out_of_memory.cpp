#include "pup/runtime/out_of_memory.hpp"

#include "pup/runtime/proc_file.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

namespace pup {

namespace {

/// Calls `f` with each line.
template <class Function>
void for_each_line(std::string_view text, Function f) {
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    f(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

// The number behind "oom_kill" in a file of such lines; 0: it has none.
std::uint64_t count_in(const std::string& path) {
  constexpr std::string_view key = "oom_kill ";
  std::uint64_t result = 0;
  for_each_line(read_proc_file(path), [&](std::string_view line) {
    if (line.starts_with(key))
      std::from_chars(line.data() + key.size(), line.data() + line.size(),
                      result);
  });
  return result;
}

}  // namespace

oom_witness::oom_witness(std::string proc, std::string cgroups)
    : proc_(std::move(proc)),
      cgroups_(std::move(cgroups)),
      own_(cgroup_of("self")) {
  has_grown(proc_ + "/vmstat");
  if (!own_.empty())
    has_grown(own_);
}

// The file with the counts of its memory cgroup; empty: none is to be seen.
std::string oom_witness::cgroup_of(const std::string& process) const {
  // Version 2: the one without a number. A zombie has left those of version 1.
  constexpr std::string_view head = "0::";
  constexpr std::string_view removed = " (deleted)";
  std::string result;
  const auto text = read_proc_file(proc_ + '/' + process + "/cgroup");
  for_each_line(text, [&](std::string_view line) {
    if (line.starts_with(head) && !line.ends_with(removed))
      result =
          cgroups_ + std::string{line.substr(head.size())} + "/memory.events";
  });
  return result;
}

bool oom_witness::has_grown(const std::string& file) {
  const auto now = count_in(file);
  return now > std::exchange(counts_[file], now);
}

std::string oom_witness::look(pid_t pid) {
  const auto machine = has_grown(proc_ + "/vmstat");
  const auto cgroup = cgroup_of(std::to_string(pid));
  if (!cgroup.empty() && has_grown(cgroup))
    return cgroup == own_ ? "likely out of memory" : "out of memory";
  return machine ? "likely out of memory" : "";
}

}  // namespace pup
