#include "pup/runtime/survivors.hpp"

#include "pup/runtime/descendants.hpp"
#include "pup/runtime/identity.hpp"
#include "pup/runtime/pidfd.hpp"
#include "pup/runtime/text_file.hpp"

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pup {

namespace {

using clock = std::chrono::steady_clock;

/// ARG_MAX of the kernel: no environment is longer.
constexpr std::size_t environment_bytes = std::size_t{8} << 20;

constexpr std::chrono::seconds kill_patience{5};

/// Value of a variable in the bytes of /proc/PID/environ.
std::optional<std::string> value_of(std::string_view all,
                                    std::string_view name) {
  while (!all.empty()) {
    const auto entry = all.substr(0, all.find('\0'));
    all.remove_prefix(std::min(entry.size() + 1, all.size()));
    if (entry.size() > name.size() && entry.starts_with(name)
        && entry[name.size()] == '=')
      return std::string{entry.substr(name.size() + 1)};
  }
  return std::nullopt;
}

std::set<pid_t> ancestors() {
  std::set<pid_t> result;
  for (auto pid = ::getpid(); pid > 0 && result.insert(pid).second;)
    pid = parent_of(pid);
  return result;
}

std::optional<survivor> marked(pid_t pid, const std::string& mark) {
  const auto read =
      read_text("/proc/" + std::to_string(pid) + "/environ", environment_bytes);
  const auto* text = std::get_if<std::string>(&read);
  if (text == nullptr || value_of(*text, owner_variable) != mark)
    return std::nullopt;
  const auto started = start_time_of(pid);
  if (!started)
    return std::nullopt;
  return survivor{value_of(*text, "PUP_ID").value_or(""), pid, ::getpgid(pid),
                  *started};
}

/// A survivor on its way out.
struct doomed {
  const survivor* who;
  unique_fd pidfd;
  stop_rule rule;
};

/// Empty: it has ended meanwhile.
std::optional<doomed> grasp(const survivor& x, const stop_rule& rule) {
  auto fd = open_pidfd(x.pid);
  // Looked at after the descriptor was had: now it is that process for ever.
  if (!fd || start_time_of(x.pid) != x.started)
    return std::nullopt;
  return doomed{&x, std::move(fd), rule};
}

/// To its group where it is not ours, else to itself.
void send(const doomed& x, int signo) {
  ::syscall(SYS_pidfd_send_signal, x.pidfd.get(), signo, nullptr, 0U);
  if (x.who->group > 1 && x.who->group != ::getpgrp())
    ::kill(-x.who->group, signo);
}

/// Until all have ended, `deadline` or a hurry. True: somebody is in a hurry.
bool wait_for(std::vector<doomed>& all, clock::time_point deadline, int hurry) {
  while (!all.empty()) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - clock::now());
    if (left.count() <= 0)
      return false;
    std::vector<pollfd> fds{{hurry, POLLIN, 0}};
    for (const auto& x : all)
      fds.push_back({x.pidfd.get(), POLLIN, 0});
    if (::poll(fds.data(), fds.size(), static_cast<int>(left.count())) < 0
        && errno != EINTR)
      return true;
    if (fds.front().revents != 0)
      return true;
    std::size_t i = 0;
    std::erase_if(all, [&](const doomed&) { return fds[++i].revents != 0; });
  }
  return false;
}

}  // namespace

std::vector<survivor> find_survivors(const std::string& mark,
                                     const saved_state* recorded) {
  std::map<pid_t, survivor> found;
  if (recorded != nullptr)
    for (const auto& [key, x] : recorded->processes)
      if (start_time_of(x.pid) == x.started)
        found[x.pid] = {key.substr(0, key.find('!')), x.pid, ::getpgid(x.pid),
                        x.started};
  if (!mark.empty())
    for (const auto pid : all_processes())
      if (auto x = pid > 1 ? marked(pid, mark) : std::nullopt)
        found[pid] = std::move(*x);
  for (const auto pid : ancestors())
    found.erase(pid);
  std::vector<survivor> result;
  for (auto& [pid, x] : found)
    result.push_back(std::move(x));
  return result;
}

stop_rule stop_rule_of(const pup_spec& spec, const std::string& id) {
  for (const auto& x : spec.processes) {
    const auto is_instance =
        x.cluster && id.size() > x.id.size() + 1 && id.starts_with(x.id + '-')
        && id.find_first_not_of("0123456789", x.id.size() + 1)
               == std::string::npos;
    if (x.id == id || is_instance)
      return {x.stop_signal, x.terminate_timeout};
  }
  return {};
}

std::size_t end_survivors(
    const std::vector<survivor>& all, const std::string& mark,
    const std::function<stop_rule(const std::string& id)>& rule, int hurry) {
  std::vector<doomed> left;
  for (const auto& x : all)
    if (auto y = grasp(x, rule(x.id)))
      left.push_back(std::move(*y));
  for (const auto& x : left)
    send(x, x.rule.signal);
  std::sort(left.begin(), left.end(), [](const doomed& a, const doomed& b) {
    return a.rule.timeout < b.rule.timeout;
  });
  const auto begun = clock::now();
  bool hurried = false;
  // The most impatient first; what is out of time is killed on the way.
  std::vector<doomed> killed;
  while (!left.empty()) {
    const auto limit = left.front().rule.timeout;
    hurried = hurried || wait_for(left, begun + limit, hurry);
    for (const auto& x : left)
      if (hurried || x.rule.timeout <= limit)
        send(x, SIGKILL);
    const auto over = std::stable_partition(
        left.begin(), left.end(),
        [&](const doomed& x) { return hurried || x.rule.timeout <= limit; });
    std::move(left.begin(), over, std::back_inserter(killed));
    left.erase(left.begin(), over);
  }
  const auto deadline = clock::now() + kill_patience;
  wait_for(killed, deadline, -1);
  // Started by one of them between our look and its end.
  for (;;) {
    const auto late = find_survivors(mark, nullptr);
    std::vector<doomed> last;
    for (const auto& x : late)
      if (auto y = grasp(x, {}))
        last.push_back(std::move(*y));
    for (const auto& x : last)
      send(x, SIGKILL);
    const auto none = last.empty();
    wait_for(last, deadline, -1);
    if (none || !last.empty())
      return std::max(killed.size(), last.size());
  }
}

}  // namespace pup
