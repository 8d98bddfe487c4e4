#include "pup/runtime/out_of_memory.hpp"
#include "pup/runtime/spawner.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <map>
#include <thread>
#include <utility>

#include <dirent.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pup {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds first_group_delay = 1ms;
constexpr milliseconds longest_group_delay = 64ms;
constexpr milliseconds group_timeout = 10s;
// Zombies are told from the living by a walk through /proc, which waits until
// the normal case, a parent that reaps at once, is out of question.
constexpr milliseconds zombie_check_delay = 16ms;

constexpr milliseconds end_timeout = 5s;

// The raw system call: glibc's waitid() has no argument for the usage.
int wait_pidfd(int pidfd, siginfo_t& info, int options, rusage* usage) {
  info = siginfo_t{};
  long result = 0;
  do {
    result =
        ::syscall(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED | options, usage);
  } while (result != 0 && errno == EINTR);
  return static_cast<int>(result);
}

bool has_been_killed(int pidfd) {
  siginfo_t info;
  return wait_pidfd(pidfd, info, WNOHANG | WNOWAIT, nullptr) == 0
         && info.si_code == CLD_KILLED && info.si_status == SIGKILL;
}

std::int64_t microseconds_of(const timeval& time) {
  return std::int64_t{time.tv_sec} * 1'000'000 + time.tv_usec;
}

exit_status reap(pid_t pid, int pidfd) {
  siginfo_t info;
  rusage usage{};
  exit_status status;
  status.pid = pid;
  // ECHILD: someone else waits for all children of the process; the status is
  // lost, and a lost one must not look like success.
  if (wait_pidfd(pidfd, info, 0, &usage) != 0)
    return status;
  if (info.si_code == CLD_EXITED)
    status.code = info.si_status;
  else
    status.signal = info.si_status;
  status.core = info.si_code == CLD_DUMPED;
  status.cpu_us =
      microseconds_of(usage.ru_utime) + microseconds_of(usage.ru_stime);
  status.max_rss_kb = usage.ru_maxrss;
  return status;
}

// Of any process: its pidfd becomes readable with its end.
bool wait_for_exit(int pidfd, clock::time_point deadline) {
  pollfd event{pidfd, POLLIN, 0};
  int result = 0;
  do {
    const auto left = std::chrono::ceil<milliseconds>(deadline - clock::now());
    result = ::poll(&event, 1, static_cast<int>(std::max(left, 0ms).count()));
  } while (result < 0 && errno == EINTR);
  return result == 1;
}

bool has_ended(int pidfd) {
  return wait_for_exit(pidfd, clock::time_point{});
}

struct folder_closer {
  void operator()(DIR* folder) const noexcept {
    ::closedir(folder);
  }
};

// State and group of a process, from /proc/PID/stat: "pid (name) S ppid pgrp".
bool lives_in_group(const char* pid, pid_t group) {
  std::ifstream file{std::string{"/proc/"} + pid + "/stat"};
  std::string line;
  std::getline(file, line);
  const auto name_end = line.rfind(") ");
  if (name_end == std::string::npos)
    return false;
  const char state = line[name_end + 2];
  int parent = 0;
  pid_t found = 0;
  if (std::sscanf(line.c_str() + name_end + 3, "%d %d", &parent, &found) != 2)
    return false;
  return found == group && state != 'Z' && state != 'X';
}

// Members whose new parent never reaps (a container without an init) stay
// zombies for ever; they hold nothing and count as gone.
bool only_zombies_left(pid_t group) {
  const std::unique_ptr<DIR, folder_closer> folder{::opendir("/proc")};
  if (!folder)
    return false;
  while (const auto* entry = ::readdir(folder.get()))
    if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9'
        && lives_in_group(entry->d_name, group))
      return false;
  return true;
}

// After the leader is reaped. A member may have become our child: as process 1
// or as a subreaper we inherit orphans.
bool group_is_gone(pid_t group, bool look_for_zombies) {
  siginfo_t info;
  do {
    info = siginfo_t{};
  } while (::waitid(P_PGID, static_cast<id_t>(group), &info, WEXITED | WNOHANG)
               == 0
           && info.si_pid != 0);
  if (::kill(-group, 0) != 0 && errno == ESRCH)
    return true;
  return look_for_zombies && only_zombies_left(group);
}

// The waiting of a group for its end, by a timer or by sleeping.
class backoff {
public:
  explicit backoff(milliseconds first, milliseconds longest)
      : next_(first), longest_(longest) {}

  milliseconds next() {
    return std::exchange(next_, std::min(next_ * 2, longest_));
  }

  void set_longest(milliseconds longest) {
    longest_ = longest;
    next_ = longest;
  }

private:
  milliseconds next_;
  milliseconds longest_;
};

void refuse_ignored_sigchld() {
  struct sigaction action {};
  ::sigaction(SIGCHLD, nullptr, &action);
  const bool ignored =
      (action.sa_flags & SA_SIGINFO) == 0 && action.sa_handler == SIG_IGN;
  if (ignored || (action.sa_flags & SA_NOCLDWAIT) != 0)
    throw std::system_error{EINVAL, std::system_category(),
                            "SIGCHLD is ignored, so exit statuses would be "
                            "lost; set it to SIG_DFL at start"};
}

// While the ended leader is still a zombie, and its pid and group number cannot
// be given to anyone else, the rest of its process group gets SIGKILL; then it
// is reaped, and `ended` is told when the group is gone. Only a process that
// has left the group (setsid, setpgid) is out of reach.
//
// That leftovers of a group, which are no children of ours, have died of their
// SIGKILL is told by no event: it is asked for after 1, 2, 4 … 64 ms, at most
// 10 s in all, and only while it is awaited.
class own_parent : public spawner,
                   public std::enable_shared_from_this<own_parent> {
public:
  explicit own_parent(asio::io_context& loop) : loop_(loop) {}

  void connect(spawner_events events) override {
    events_ = std::move(events);
  }

  std::uint64_t start(const start_order& order) override;
  std::optional<os_fault> signal(std::uint64_t number, int signo) override;
  [[nodiscard]] pid_t parent() const override {
    return ::getpid();
  }
  [[nodiscard]] bool runs(std::uint64_t number) const override;
  void mark(std::uint64_t, const std::string&) override {}
  void forget(std::uint64_t) override {}
  void release(const std::string&) override {}
  void adopt(inherited_process x) override;
  void end_all() override;

private:
  // A process that exists, or has left a group that still does. Handlers hold
  // it weakly: the table owns it.
  struct process {
    process(asio::io_context& loop, std::uint64_t its_number, pid_t its_pid)
        : number(its_number), pid(its_pid), pidfd(loop), timer(loop) {}

    std::uint64_t number;
    pid_t pid;  // its group as well
    asio::posix::stream_descriptor pidfd;
    bool killed = false;  // by us
    bool reaped = false;
    // For the end of the group.
    asio::steady_timer timer;
    clock::time_point timing_since;
    backoff delays{first_group_delay, longest_group_delay};
    burial end;
  };
  using process_ptr = std::shared_ptr<process>;

  std::variant<process_ptr, os_fault> begin(const start_order& order,
                                            std::uint64_t number);
  template <class Step>
  void later(Step step);
  template <class Step>
  auto while_known(const process_ptr& p, Step step);
  void await_exit(const process_ptr& p);
  void on_pidfd(const process_ptr& p);
  void await_group(const process_ptr& p);
  void finish(const process_ptr& p, bool group_gone);

  asio::io_context& loop_;
  spawner_events events_;
  std::uint64_t last_number_ = 0;
  std::map<std::uint64_t, process_ptr> processes_;
  oom_witness memory_;
};

// Events never come from within a command.
template <class Step>
void own_parent::later(Step step) {
  asio::post(loop_, [weak = weak_from_this(), step = std::move(step)] {
    if (const auto self = weak.lock())
      step(*self);
  });
}

std::uint64_t own_parent::start(const start_order& order) {
  const auto number = ++last_number_;
  auto begun = begin(order, number);
  if (auto* fault = std::get_if<os_fault>(&begun)) {
    later([number, fault = std::move(*fault)](own_parent& self) {
      self.events_.failed(number, fault);
    });
    return number;
  }
  const auto& p = std::get<process_ptr>(begun);
  processes_[number] = p;
  later([weak = std::weak_ptr<process>{p}](own_parent& self) {
    const auto alive = weak.lock();
    if (!alive)
      return;
    self.await_exit(alive);
    self.events_.started(alive->number, alive->pid);
  });
  return number;
}

std::variant<own_parent::process_ptr, os_fault> own_parent::begin(
    const start_order& order, std::uint64_t number) {
  auto spawned = spawn(order.request);
  if (auto* fault = std::get_if<os_fault>(&spawned))
    return std::move(*fault);
  auto& born = std::get<child>(spawned);
  auto p = std::make_shared<process>(loop_, number, born.pid);
  error_code error;
  p->pidfd.assign(born.pidfd.get(), error);
  if (error) {  // nobody would learn of its end
    ::kill(-born.pid, SIGKILL);
    reap(born.pid, born.pidfd.get());
    return os_fault{"epoll", "watch pid " + std::to_string(born.pid),
                    error.value()};
  }
  static_cast<void>(born.pidfd.release());  // the descriptor owns it now
  return p;
}

std::optional<os_fault> own_parent::signal(std::uint64_t number, int signo) {
  const auto found = processes_.find(number);
  if (found != processes_.end() && signo == SIGKILL)
    found->second->killed = true;
  // Until it is reaped the group's number belongs to nobody else.
  if (found == processes_.end() || found->second->reaped
      || ::kill(-found->second->pid, signo) == 0)
    return std::nullopt;
  return os_fault{"kill", "group " + std::to_string(found->second->pid), errno};
}

bool own_parent::runs(std::uint64_t number) const {
  const auto found = processes_.find(number);
  return found != processes_.end() && !found->second->reaped
         && !has_ended(found->second->pidfd.native_handle());
}

void own_parent::adopt(inherited_process x) {
  last_number_ = std::max(last_number_, x.number);
  if (x.end) {
    later([number = x.number, end = *x.end](own_parent& self) {
      self.events_.ended(number, end);
    });
    return;
  }
  auto p = std::make_shared<process>(loop_, x.number, x.pid);
  error_code error;
  p->pidfd.assign(x.pidfd.get(), error);
  if (!error)
    static_cast<void>(x.pidfd.release());
  processes_[x.number] = p;
  if (!error)
    return await_exit(p);
  ::kill(-x.pid, SIGKILL);  // nobody would learn of its end
  p->reaped = true;
  p->timing_since = clock::now();
  await_group(p);
}

// A handler for p that does nothing once p is gone. `this` owns p, so a living
// p means a living `this`.
template <class Step>
auto own_parent::while_known(const process_ptr& p, Step step) {
  return [weak = std::weak_ptr<process>{p},
          step = std::move(step)](error_code error) {
    if (const auto alive = weak.lock())
      step(alive, error);
  };
}

void own_parent::await_exit(const process_ptr& p) {
  p->pidfd.async_wait(
      asio::posix::stream_descriptor::wait_read,
      while_known(p, [this](const process_ptr& alive, error_code error) {
        if (!error)
          on_pidfd(alive);
      }));
}

void own_parent::on_pidfd(const process_ptr& p) {
  const int pidfd = p->pidfd.native_handle();
  if (!has_ended(pidfd)) {
    await_exit(p);
    return;
  }
  error_code ignored;
  ::kill(-p->pid, SIGKILL);  // before reap(): see above
  const auto memory = !p->killed && has_been_killed(pidfd)
                          ? memory_.look(p->pid)
                          : std::string{};
  p->end.status = reap(p->pid, pidfd);
  p->end.status.memory = memory;
  p->reaped = true;
  p->pidfd.close(ignored);
  p->timing_since = clock::now();
  await_group(p);
}

void own_parent::await_group(const process_ptr& p) {
  const auto waited = clock::now() - p->timing_since;
  if (group_is_gone(p->pid, waited >= zombie_check_delay)) {
    finish(p, true);
    return;
  }
  if (waited >= group_timeout) {
    finish(p, false);
    return;
  }
  p->timer.expires_after(p->delays.next());
  p->timer.async_wait(
      while_known(p, [this](const process_ptr& alive, error_code error) {
        if (!error)
          await_group(alive);
      }));
}

void own_parent::finish(const process_ptr& p, bool group_gone) {
  p->end.gone = group_gone;
  const auto number = p->number;
  const auto end = p->end;
  processes_.erase(number);
  events_.ended(number, end);
}

void own_parent::end_all() {
  const auto deadline = clock::now() + end_timeout;
  for (const auto& [number, p] : processes_)
    if (!p->reaped)
      ::kill(-p->pid, SIGKILL);
  for (const auto& [number, p] : processes_) {
    if (!p->reaped) {
      if (!wait_for_exit(p->pidfd.native_handle(), deadline))
        continue;  // in an uninterruptible sleep: it dies when that ends
      ::kill(-p->pid, SIGKILL);
      reap(p->pid, p->pidfd.native_handle());
    }
    backoff delays{first_group_delay, longest_group_delay};
    for (auto delay = 0ms; !group_is_gone(p->pid, delay >= zombie_check_delay)
                           && clock::now() < deadline;)
      std::this_thread::sleep_for(delay = delays.next());
  }
  processes_.clear();
}

}  // namespace

std::shared_ptr<spawner> own_processes(asio::io_context& loop) {
  refuse_ignored_sigchld();
  return std::make_shared<own_parent>(loop);
}

}  // namespace pup
