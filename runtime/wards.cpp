#include "pup/runtime/wards.hpp"

#include "pup/runtime/descendants.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>

#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pup {

namespace {

using clock = std::chrono::steady_clock;

// What outlives SIGKILL for so long waits inside the kernel.
constexpr auto burial_timeout = std::chrono::seconds(10);

// The raw system call: glibc's waitid() has no argument for the usage.
bool wait_for(idtype_t type, pid_t pid, siginfo_t& info, int options,
              rusage* usage) {
  info = siginfo_t{};
  long result = 0;
  do {
    result = ::syscall(SYS_waitid, type, pid, &info, WEXITED | options, usage);
  } while (result != 0 && errno == EINTR);
  return result == 0 && info.si_pid != 0;
}

std::int64_t microseconds_of(const timeval& time) {
  return std::int64_t{time.tv_sec} * 1'000'000 + time.tv_usec;
}

// The scope of the lives of whoever sends this request.
std::string scope_in(const std::vector<std::string>& environment) {
  for (const std::string_view x : environment)
    if (x.starts_with(life_variable)) {
      const auto value = x.substr(life_variable.size());
      return std::string{value.substr(0, value.rfind('#'))};
    }
  return {};
}

}  // namespace

std::variant<child, os_fault> wards::start(guard::start& x) {
  if (scope_.empty())
    scope_ = scope_in(x.request.environment);
  auto result = spawn(x.request);
  const auto* born = std::get_if<child>(&result);
  if (born == nullptr)
    return result;
  auto& y = wards_[x.number];
  y.number = x.number;
  y.key = std::move(x.key);
  y.life = x.life;
  y.pid = born->pid;
  y.begun = clock::now();
  y.end.number = x.number;
  y.end.pid = born->pid;
  by_pid_[y.pid] = y.number;
  groups_[y.pid] = y.number;
  return result;
}

ward* wards::find(std::uint64_t number) {
  const auto i = wards_.find(number);
  return i == wards_.end() ? nullptr : &i->second;
}

void wards::signal(std::uint64_t number, int signo) {
  auto* x = find(number);
  if (x == nullptr || x->now != ward::phase::runs)
    return;
  x->killed = x->killed || signo == SIGKILL;
  watch_strays(*x);
  // Until it is reaped the group's number belongs to nobody else.
  ::kill(-x->pid, signo);
}

void wards::forget(std::uint64_t number) {
  const auto i = wards_.find(number);
  if (i != wards_.end() && i->second.now == ward::phase::ended)
    wards_.erase(i);
}

// -- ends ---------------------------------------------------------------------

std::optional<exit_of> wards::reap(pid_t special) {
  std::optional<exit_of> result;
  siginfo_t info;
  while (wait_for(P_ALL, 0, info, WNOHANG | WNOWAIT, nullptr)) {
    const auto pid = info.si_pid;
    const auto i = by_pid_.find(pid);
    // Now, while it is a zombie and its number its own: see signal().
    if (i != by_pid_.end()) {
      ::kill(-pid, SIGKILL);
      auto& x = wards_.at(i->second);
      if (!x.killed && info.si_code == CLD_KILLED && info.si_status == SIGKILL)
        x.end.memory = memory_.look(pid);
    }
    rusage usage{};
    wait_for(P_PID, pid, info, WNOHANG, &usage);
    const bool by_itself = info.si_code == CLD_EXITED;
    strays_.erase(pid);
    if (pid == special)
      result = exit_of{pid, by_itself ? info.si_status : -1,
                       by_itself ? 0 : info.si_status};
    if (i == by_pid_.end())
      continue;
    auto& x = wards_.at(i->second);
    by_pid_.erase(i);
    (by_itself ? x.end.code : x.end.signal) = info.si_status;
    x.end.core = info.si_code == CLD_DUMPED;
    x.end.cpu_us =
        microseconds_of(usage.ru_utime) + microseconds_of(usage.ru_stime);
    x.end.max_rss_kb = usage.ru_maxrss;
    x.now = ward::phase::dying;
    x.deadline = clock::now() + burial_timeout;
    ++dying_;
  }
  if (dying_ > 0)
    bury(special);
  return result;
}

void wards::end(ward& x) {
  x.now = ward::phase::ended;
  --dying_;
  groups_.erase(x.pid);
  std::erase_if(strays_,
                [&](const auto& y) { return y.second.number == x.number; });
  newly_ended_.push_back(x.number);
}

std::vector<pid_t> wards::orphans(pid_t special) const {
  auto result = children_of(::getpid());
  std::erase_if(result, [&](pid_t x) {
    return x == special || by_pid_.find(x) != by_pid_.end();
  });
  return result;
}

// Kills what the dying have left, and ends those that have left nothing. Called
// again with each SIGCHLD, which the end of what was killed brings.
void wards::bury(pid_t special) {
  std::vector<std::uint64_t> busy;
  for (const auto orphan : orphans(special)) {
    const auto number = owner_of(orphan);
    auto* x = find(number);
    if (x == nullptr || x->now != ward::phase::dying)
      continue;
    busy.push_back(number);
    const auto mourn = [&](pid_t pid) {
      const auto first = strays_.find(pid) == strays_.end();
      const auto in_group = ::getpgid(pid) == x->pid;
      if (first)
        strays_[pid] = {number, start_ticks(pid)};
      if (first && !in_group && x->end.left_behind++ == 0)
        x->end.left_example = describe_process(pid);
    };
    auto family = descendants_of(orphan);
    family.insert(family.begin(), orphan);
    for (const auto pid : family) {
      mourn(pid);
      ::kill(pid, SIGKILL);
    }
  }
  for (auto& [number, x] : wards_)
    if (x.now == ward::phase::dying
        && std::find(busy.begin(), busy.end(), number) == busy.end())
      end(x);
}

std::uint64_t wards::owner_of(pid_t orphan) {
  if (const auto i = groups_.find(::getsid(orphan)); i != groups_.end())
    return i->second;
  if (const auto i = strays_.find(orphan); i != strays_.end()) {
    if (i->second.started == start_ticks(orphan))
      return i->second.number;
    strays_.erase(i);
  }
  return number_in(life_of(orphan), scope_);
}

// Remembers what runs below a ward in another session, as long as it still
// does: it may have cleaned its environment.
void wards::watch_strays(const ward& x) {
  for (const auto pid : descendants_of(x.pid))
    if (::getsid(pid) != x.pid && strays_.find(pid) == strays_.end())
      strays_[pid] = {x.number, start_ticks(pid)};
}

std::vector<std::uint64_t> wards::newly_ended() {
  return std::exchange(newly_ended_, {});
}

std::optional<wards::time_point> wards::deadline() const {
  if (dying_ == 0)
    return std::nullopt;
  auto result = time_point::max();
  for (const auto& [number, x] : wards_)
    if (x.now == ward::phase::dying)
      result = std::min(result, x.deadline);
  return result;
}

void wards::on_time() {
  const auto now = clock::now();
  for (auto& [number, x] : wards_) {
    if (x.now != ward::phase::dying || x.deadline > now)
      continue;
    x.end.gone = false;
    end(x);
  }
}

bool wards::kill_all(pid_t special) {
  for (const auto& [pid, number] : by_pid_)
    ::kill(-pid, SIGKILL);
  auto left = children_of(::getpid());
  std::erase(left, special);
  for (const auto x : left) {
    for (const auto y : descendants_of(x))
      ::kill(y, SIGKILL);
    ::kill(x, SIGKILL);
  }
  return !left.empty();
}

}  // namespace pup
