#include "pup/runtime/wards.hpp"

#include "pup/runtime/descendants.hpp"
#include "pup/runtime/life_cgroup.hpp"
#include "pup/runtime/spawner.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pup {

namespace {

using clock = std::chrono::steady_clock;

// What outlives SIGKILL for so long waits inside the kernel.
constexpr auto burial_timeout = std::chrono::seconds(10);

// Before it a mark tells nothing but that the program was executed.
constexpr auto first_look = std::chrono::milliseconds(20);

// What the pool calls a child that is no life.
constexpr std::uint64_t no_life = 0;

// Each round finds what was forked in the one before. A fork bomb goes on being
// killed with each SIGCHLD.
constexpr int most_rounds = 8;

// The raw system call: glibc's waitid() has no argument for the usage.
bool wait_for(idtype_t type, int id, siginfo_t& info, int options,
              rusage* usage) {
  info = siginfo_t{};
  long result = 0;
  do {
    result = ::syscall(SYS_waitid, type, id, &info, WEXITED | options, usage);
  } while (result != 0 && errno == EINTR);
  return result == 0 && info.si_pid != 0;
}

exit_of exit_of_child(pid_t pid, const siginfo_t& info) {
  const bool by_itself = info.si_code == CLD_EXITED;
  return {pid, by_itself ? info.si_status : -1, by_itself ? 0 : info.si_status};
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

// The group that a request names holds its limits, or is where one of its own
// may be made.
std::string give_own_cgroup(spawn_request& request, std::uint64_t number) {
  if (request.cgroup_folder.empty() || request.attributes.cgroup.any())
    return {};
  request.cgroup_folder =
      can_begin_in_cgroup() ? make_life_cgroup(
          request.cgroup_folder, scope_in(request.environment), number)
                            : std::string{};
  return request.cgroup_folder;
}

life_traits traits_of(const spawn_request& request, bool has_own_cgroup) {
  life_traits result;
  result.started = ticks_since_boot();
  if (const auto& who = request.attributes.run_as)
    result.user = who->uid;
  for (const int fd : {request.stdout_fd, request.stderr_fd}) {
    struct stat info {};
    if (fd >= 0 && ::fstat(fd, &info) == 0 && S_ISFIFO(info.st_mode))
      result.pipes.push_back(info.st_ino);
  }
  result.cgroup_folder = request.cgroup_folder;
  result.has_own_cgroup = has_own_cgroup;
  return result;
}

std::string join(const std::vector<std::string>& words) {
  std::string result;
  for (const auto& x : words)
    result += (result.empty() ? "" : ", ") + x;
  return result;
}

}  // namespace

// -- beginnings ---------------------------------------------------------------

wards::wards()
    : started_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      pool_(
          std::in_place, [to = started_.get()] { ::eventfd_write(to, 1); },
          ignored_signals()) {}

void wards::start(guard::start& x, std::vector<unique_fd> owned) {
  if (!std::exchange(has_scope_, true))
    members_.set_scope(scope_in(x.request.environment));
  auto& y = wards_[x.number];
  y.number = x.number;
  y.key = std::move(x.key);
  y.life = x.life;
  y.begun = clock::now();
  y.end.number = y.rest.number = x.number;
  starting_.insert(x.number);
  y.cgroup = give_own_cgroup(x.request, x.number);
  members_.begin(x.number, traits_of(x.request, !y.cgroup.empty()));
  pool_->start(x.number, unit_in_key(y.key), std::move(x.request),
               std::move(owned));
}

bool wards::is_congested() const {
  return !pool_->has_room();
}

void wards::start_apart(spawn_request request, std::vector<unique_fd> owned) {
  apart_.reset();
  pool_->start(no_life, {}, std::move(request), std::move(owned));
}

std::optional<std::variant<pid_t, os_fault>> wards::started_apart() {
  return std::exchange(apart_, std::nullopt);
}

void wards::give_up_apart() {
  pool_->kill(no_life);
}

void wards::take_starts() {
  eventfd_t ignored = 0;
  ::eventfd_read(started_.get(), &ignored);
  // What could not be settled as long as these were nobody's.
  auto unsettled = !unclaimed_.empty();
  for (auto& [number, what] : pool_->take()) {
    auto* born = std::get_if<child>(&what);
    if (number == no_life && born != nullptr)
      members_.set_apart(std::get<pid_t>(apart_.emplace(born->pid)));
    else if (number == no_life)
      apart_ = std::get<os_fault>(what);
    else if (born != nullptr)
      unsettled |= began(number, *born);
    else
      failed(number, std::get<os_fault>(what));
  }
  forget_failed();
  if (unsettled && unclaimed_.empty())
    settle();
}

// A child that has not executed its program is told of as a fault alone.
void wards::forget_failed() {
  std::erase_if(unclaimed_, [this](const auto& x) {
    return !(pool_ && pool_->starts(x.first))
           && !(apart_ && std::holds_alternative<pid_t>(*apart_)
                && std::get<pid_t>(*apart_) == x.first);
  });
}

bool wards::starts_something() const {
  return pool_ && pool_->busy();
}

/// True: it has ended already.
bool wards::began(std::uint64_t number, const child& born) {
  const auto pid = born.pid;
  starting_.erase(number);
  auto& x = wards_.at(number);
  x.pid = x.end.how.pid = pid;
  x.now = ward::phase::runs;
  leaders_[pid] = number;
  members_.lead(number, pid);
  news_.emplace_back(guard::started{number, pid});
  // It may have been quicker than its thread, and reaped with the others. Its
  // end is lost if it never got so far as to write down its pid.
  siginfo_t info;
  errno = 0;
  if (wait_for(P_PIDFD, born.pidfd.get(), info, WNOHANG | WNOWAIT, nullptr)
      || errno != ECHILD)
    return false;
  end_of_child how;
  how.info.si_code = CLD_KILLED;
  how.info.si_status = SIGKILL;
  if (const auto known = unclaimed_.extract(pid); !known.empty())
    how = known.mapped();
  leaders_.erase(pid);
  members_.about_to_reap(pid);
  leader_ended(x, how.info, how.usage);
  return true;
}

void wards::failed(std::uint64_t number, const os_fault& fault) {
  starting_.erase(number);
  members_.end(number);
  remove_cgroup_of(wards_.at(number));
  wards_.erase(number);
  news_.emplace_back(
      guard::start_failed{number, fault.call, fault.object, fault.code});
}

ward* wards::find(std::uint64_t number) {
  const auto i = wards_.find(number);
  return i == wards_.end() ? nullptr : &i->second;
}

void wards::forget(std::uint64_t number) {
  const auto i = wards_.find(number);
  if (i != wards_.end() && i->second.now == ward::phase::ended)
    wards_.erase(i);
}

// -- signals ------------------------------------------------------------------

void wards::look_at(std::uint64_t number) {
  const auto* x = find(number);
  // What has just begun has not started anything that could get lost.
  if (x != nullptr && x->now == ward::phase::runs
      && clock::now() - x->begun >= first_look)
    members_.look_below(number);
}

// Below the leader is seen what will be an orphan soon.
ward* wards::find_living(std::uint64_t number) {
  auto* x = find(number);
  if (x == nullptr || x->now == ward::phase::starts
      || x->now == ward::phase::ended)
    return nullptr;
  if (x->now == ward::phase::remains)
    members_.look_at_orphans();
  members_.look_below(number);
  return x;
}

void wards::signal(std::uint64_t number, int signo) {
  if (signo == SIGKILL && starting_.count(number) != 0)
    take_starts();  // it may have been started by now
  if (signo == SIGKILL && starting_.count(number) != 0)
    return pool_->kill(number);
  auto* x = find_living(number);
  if (x == nullptr)
    return;
  if (signo == SIGKILL) {
    if (!x->killed_until)
      x->killed_until = clock::now() + burial_timeout;
    return kill_rest(*x);
  }
  if (x->now == ward::phase::runs) {
    // Until the leader is reaped the group's number belongs to nobody else.
    ::kill(-x->pid, signo);
    return;
  }
  for (const auto& y : members_.of(number))
    signal_process(y.pid, y.started, signo);
}

void wards::stop(std::uint64_t number, int signo) {
  auto* x = find_living(number);
  if (x == nullptr)
    return;
  if (!x->ending_since)
    x->ending_since = clock::now();
  x->stop_signal = signo;
  if (x->now == ward::phase::runs) {
    ::kill(-x->pid, signo);
    ::kill(-x->pid, SIGCONT);
    x->group_stopped = ticks_since_boot();
    return;
  }
  for (const auto& y : members_.of(number))
    stop_member(*x, y);
}

// Once.
void wards::stop_member(ward& x, const membership::member& y) {
  auto& had = x.stopped[y.pid];
  if (had == y.started
      || (y.started <= x.group_stopped && ::getpgid(y.pid) == x.pid))
    return;
  if (signal_process(y.pid, y.started, x.stop_signal))
    had = y.started;
  signal_process(y.pid, y.started, SIGCONT);
}

// Those whose life was not known yet when the others had the stop signal.
void wards::stop_late() {
  for (const auto& late : members_.take_late()) {
    auto* x = find(late.number);
    if (x == nullptr || x->now != ward::phase::remains || x->stop_signal == 0)
      continue;
    const auto below = descendants_of(late.who.pid);
    stop_member(*x, late.who);
    for (const auto pid : below)
      if (const auto started = start_ticks(pid); started != 0)
        stop_member(*x, {pid, started});
  }
}

// SIGKILL to all that belongs to it, until two looks find nobody new.
void wards::kill_rest(ward& x) {
  for (int i = 0; i < most_rounds && kill_once(x); ++i) {
    members_.look_at_orphans();
    members_.look_below(x.number);
  }
  if (!x.cgroup.empty())
    kill_cgroup(x.cgroup);
}

/// False: all have had it before.
bool wards::kill_once(ward& x) {
  bool someone = false;
  const auto all = members_.of(x.number);
  if (x.now == ward::phase::runs)
    ::kill(-x.pid, SIGKILL);
  for (const auto& y : all) {
    auto& had = x.killed[y.pid];
    if (had == y.started)
      continue;
    someone = true;
    const auto name = describe_process(y.pid);
    if (!signal_process(y.pid, y.started, SIGKILL))
      continue;
    had = y.started;
    if (x.end.killed++ == 0)
      x.end.killed_example = name;
  }
  return someone;
}

// -- ends ---------------------------------------------------------------------

std::optional<exit_of> wards::reap(pid_t special) {
  std::optional<exit_of> result;
  siginfo_t info;
  if (const auto early = unclaimed_.extract(special); !early.empty())
    result = exit_of_child(special, early.mapped().info);
  while (wait_for(P_ALL, 0, info, WNOHANG | WNOWAIT, nullptr)) {
    const auto pid = info.si_pid;
    const auto i = leaders_.find(pid);
    auto* x = i == leaders_.end() ? nullptr : find(i->second);
    // Now, while it is a zombie and its numbers are its own.
    members_.about_to_reap(pid);
    if (x != nullptr && !x->killed_until && info.si_code == CLD_KILLED
        && info.si_status == SIGKILL)
      x->end.how.memory = memory_.look(pid);
    rusage usage{};
    wait_for(P_PID, pid, info, WNOHANG, &usage);
    if (members_.reaped(pid))
      continue;
    if (x == nullptr && pid != special && pool_ && pool_->starts(pid))
      unclaimed_[pid] = {info, usage};
    if (pid == special)
      result = exit_of_child(pid, info);
    if (x == nullptr)
      continue;
    leaders_.erase(i);
    leader_ended(*x, info, usage);
  }
  // An orphan may come from a life of which its thread has not told yet.
  if (!unclaimed_.empty())
    take_starts();
  if (unclaimed_.empty())
    settle();
  return result;
}

void wards::leader_ended(ward& x, const siginfo_t& info, const rusage& usage) {
  auto& how = x.end.how;
  (info.si_code == CLD_EXITED ? how.code : how.signal) = info.si_status;
  how.core = info.si_code == CLD_DUMPED;
  how.cpu_us =
      microseconds_of(usage.ru_utime) + microseconds_of(usage.ru_stime);
  how.max_rss_kb = usage.ru_maxrss;
  x.now = ward::phase::remains;
  if (!x.ending_since)
    x.ending_since = clock::now();
  x.unsure_until = clock::now() + 2 * membership::patience;
  if (x.killed_until)  // what is left has not had it yet
    x.killed_until = clock::now() + burial_timeout;
  remaining_.insert(x.number);
}

// What follows when children of ours have come or gone.
void wards::settle() {
  members_.look_at_orphans();
  stop_late();
  const auto all = remaining_;
  for (const auto number : all) {
    auto& x = wards_.at(number);
    if (!members_.has_left(number, clock::now() < x.unsure_until)) {
      end(x);
      continue;
    }
    members_.look_below(number);
    if (x.killed_until) {
      kill_rest(x);
      continue;
    }
    if (std::exchange(x.told, true))
      continue;
    const auto left = members_.of(number);
    x.rest.how = x.end.how;
    x.rest.left = static_cast<std::uint32_t>(left.size());
    if (!left.empty())
      x.rest.left_example = describe_process(left.front().pid);
    news_.emplace_back(x.rest);
  }
  if (auto strays = members_.strays(); strays != strays_) {
    strays_ = std::move(strays);
    news_.emplace_back(guard::strays{strays_});
  }
}

void wards::end(ward& x) {
  x.now = ward::phase::ended;
  x.end.strays = join(members_.strays_of(x.number));
  x.stopped.clear();
  x.killed.clear();
  remove_cgroup_of(x);
  members_.end(x.number);
  remaining_.erase(x.number);
  news_.emplace_back(x.end);
}

// Somebody may be in it that does not even die of SIGKILL.
void wards::remove_cgroup_of(ward& x) {
  std::erase_if(left_cgroups_, remove_cgroup);
  if (!remove_cgroup(x.cgroup))
    left_cgroups_.push_back(x.cgroup);
  x.cgroup.clear();
}

std::vector<guard::message> wards::news() {
  return std::exchange(news_, {});
}

std::optional<wards::time_point> wards::deadline() const {
  auto result = members_.deadline();
  const auto consider = [&](const time_point& due) {
    if (!result || due < *result)
      result = due;
  };
  for (const auto number : remaining_) {
    const auto& x = wards_.at(number);
    if (x.killed_until)
      consider(*x.killed_until);
    if (x.unsure_until != time_point{})
      consider(x.unsure_until);
  }
  return result;
}

void wards::on_time() {
  members_.on_time();
  const auto now = clock::now();
  settle();
  const auto all = remaining_;
  for (const auto number : all) {
    auto& x = wards_.at(number);
    if (x.unsure_until <= now)
      x.unsure_until = {};
    if (!x.killed_until || *x.killed_until > now)
      continue;
    x.end.gone = false;
    end(x);
  }
}

bool wards::kill_all() {
  pool_.reset();
  for (const auto& [pid, number] : leaders_)
    ::kill(-pid, SIGKILL);
  const auto left = children_of(::getpid());
  // What is below them becomes ours with their ends.
  for (const auto x : left)
    ::kill(x, SIGKILL);
  for (auto& [number, x] : wards_)
    if (!x.cgroup.empty() && left.empty())
      remove_cgroup_of(x);
    else if (!x.cgroup.empty())
      kill_cgroup(x.cgroup);
  return !left.empty();
}

}  // namespace pup
