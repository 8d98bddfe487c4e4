#include "pup/runtime/descendants.hpp"
#include "pup/runtime/out_of_memory.hpp"
#include "pup/runtime/pidfd.hpp"
#include "pup/runtime/spawn_pool.hpp"
#include "pup/runtime/spawner.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <fcntl.h>
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

// What outlives SIGKILL for so long waits inside the kernel.
constexpr milliseconds group_timeout = 10s;
// For members that cannot be watched, as there is no descriptor for it.
constexpr milliseconds look_again = 100ms;

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

// A life here is the leader, its process group and session, and what was seen
// below it when it was signalled. What has left the session behind our back is
// out of reach: this process is no subreaper, as an embedding program may have
// children of its own.
//
// As long as the leader is not reaped its group's number is its own; afterwards
// each process gets its signal by its own pidfd, which also tells of its end.
class own_parent : public spawner,
                   public std::enable_shared_from_this<own_parent> {
public:
  explicit own_parent(asio::io_context& loop) : loop_(loop) {}

  void connect(spawner_events events) override {
    events_ = std::move(events);
  }

  std::uint64_t start(const start_order& order) override;
  std::optional<os_fault> signal(std::uint64_t number, int signo) override;
  void stop(std::uint64_t number, int signo) override;
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
  // Of a life whose leader has ended.
  struct member {
    member(asio::io_context& loop, std::uint64_t ticks)
        : started(ticks), pidfd(loop) {}

    std::uint64_t started;
    asio::posix::stream_descriptor pidfd;  // not open: it cannot be watched
    bool stopped = false;
    bool killed = false;
  };

  // A life. Handlers hold it weakly: the table owns it.
  struct process {
    process(asio::io_context& loop, std::uint64_t its_number, pid_t its_pid)
        : number(its_number), pid(its_pid), pidfd(loop), timer(loop) {}

    std::uint64_t number;
    pid_t pid;  // of the leader; its group and session as well
    asio::posix::stream_descriptor pidfd;
    bool killed = false;  // by us
    bool reaped = false;
    bool told = false;          // that the leader has ended
    std::uint64_t stopped = 0;  // ticks: when its group had the stop signal
    // Seen below the leader, outside of its group, by their start.
    std::map<pid_t, std::uint64_t> outsiders;
    std::map<pid_t, member> rest;
    asio::steady_timer timer;  // what does not die, or cannot be watched
    clock::time_point killed_since;
    burial end;
  };
  using process_ptr = std::shared_ptr<process>;

  static std::optional<os_fault> keep_open(spawn_request& request,
                                           std::vector<unique_fd>& owned);
  void take_starts();
  std::variant<process_ptr, os_fault> begin(std::uint64_t number,
                                            std::variant<child, os_fault> what);
  template <class Step>
  void later(Step step);
  template <class Step>
  auto while_known(const process_ptr& p, Step step);
  process_ptr find(std::uint64_t number) const;
  void await_exit(const process_ptr& p);
  void on_pidfd(const process_ptr& p);
  static void reap_leader(process& p);
  static void look_below(process& p);
  static std::map<pid_t, std::uint64_t> living_members(const process& p);
  void look(process& p) const;
  void kill_rest(process& p) const;
  void await_rest(const process_ptr& p);
  void await_member(const process_ptr& p, pid_t pid, member& x);
  void arm(const process_ptr& p, milliseconds delay);
  void finish(const process_ptr& p, bool gone);

  asio::io_context& loop_;
  spawner_events events_;
  std::uint64_t last_number_ = 0;
  std::map<std::uint64_t, process_ptr> processes_;
  std::set<std::uint64_t> starting_;
  std::optional<spawn_pool> pool_;  // once something is started
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
  auto request = order.request;
  std::vector<unique_fd> owned;
  const auto fault = keep_open(request, owned);
  if (fault) {
    later([number, fault = *fault](own_parent& self) {
      self.events_.failed(number, fault);
    });
    return number;
  }
  if (!pool_)
    pool_.emplace([&loop = loop_, weak = weak_from_this()] {
      asio::post(loop, [weak] {
        if (const auto self = weak.lock())
          self->take_starts();
      });
    });
  starting_.insert(number);
  pool_->start(number, unit_in_key(order.key), std::move(request),
               std::move(owned));
  return number;
}

// The descriptors that it names are borrowed, and the program is executed
// later.
std::optional<os_fault> own_parent::keep_open(spawn_request& request,
                                              std::vector<unique_fd>& owned) {
  std::vector<int*> named{&request.stdin_fd, &request.stdout_fd,
                          &request.stderr_fd, &request.ready_fd};
  for (auto& fd : request.listen_fds)
    named.push_back(&fd);
  for (auto* fd : named) {
    if (*fd < 0)
      continue;
    owned.emplace_back(::fcntl(*fd, F_DUPFD_CLOEXEC, 3));
    if (!owned.back())
      return os_fault{"fcntl", "descriptor " + std::to_string(*fd), errno};
    *fd = owned.back().get();
  }
  return std::nullopt;
}

void own_parent::take_starts() {
  if (!pool_)
    return;
  for (auto& [number, what] : pool_->take()) {
    starting_.erase(number);
    auto begun = begin(number, std::move(what));
    if (const auto* fault = std::get_if<os_fault>(&begun)) {
      events_.failed(number, *fault);
      continue;
    }
    const auto& p = std::get<process_ptr>(begun);
    processes_[number] = p;
    await_exit(p);
    events_.started(number, p->pid);
  }
}

std::variant<own_parent::process_ptr, os_fault> own_parent::begin(
    std::uint64_t number, std::variant<child, os_fault> what) {
  if (auto* fault = std::get_if<os_fault>(&what))
    return std::move(*fault);
  auto& born = std::get<child>(what);
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

own_parent::process_ptr own_parent::find(std::uint64_t number) const {
  const auto found = processes_.find(number);
  return found == processes_.end() ? nullptr : found->second;
}

std::optional<os_fault> own_parent::signal(std::uint64_t number, int signo) {
  if (signo == SIGKILL && starting_.count(number) != 0)
    pool_->kill(number);
  const auto p = find(number);
  if (!p)
    return std::nullopt;
  if (!p->reaped)
    look_below(*p);
  if (signo == SIGKILL) {
    p->killed = true;
    p->killed_since = clock::now();
    for (const auto& [pid, started] : p->outsiders)
      if (!p->reaped)
        signal_process(pid, started, SIGKILL);
  }
  if (!p->reaped && ::kill(-p->pid, signo) != 0)
    return os_fault{"kill", "group " + std::to_string(p->pid), errno};
  if (!p->reaped)
    return std::nullopt;
  look(*p);
  if (signo == SIGKILL) {
    kill_rest(*p);
    later([weak = std::weak_ptr<process>{p}](own_parent& self) {
      if (const auto alive = weak.lock())
        self.await_rest(alive);
    });
  } else {
    for (const auto& [pid, x] : p->rest)
      signal_process(pid, x.started, signo);
  }
  return std::nullopt;
}

void own_parent::stop(std::uint64_t number, int signo) {
  const auto p = find(number);
  if (!p)
    return;
  if (!p->reaped) {
    look_below(*p);
    ::kill(-p->pid, signo);
    ::kill(-p->pid, SIGCONT);
    p->stopped = ticks_since_boot();
    return;
  }
  look(*p);
  for (auto& [pid, x] : p->rest) {
    const auto had = std::exchange(x.stopped, true)
                     || (x.started <= p->stopped && ::getpgid(pid) == p->pid);
    if (had)
      continue;
    signal_process(pid, x.started, signo);
    signal_process(pid, x.started, SIGCONT);
  }
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
  p->end.status.pid = x.pid;
  processes_[x.number] = p;
  error_code error;
  if (!x.leader_ended) {
    p->pidfd.assign(x.pidfd.get(), error);
    if (!error) {
      static_cast<void>(x.pidfd.release());
      return await_exit(p);
    }
    ::kill(-x.pid, SIGKILL);  // nobody would learn of its end
    p->killed = true;
    p->killed_since = clock::now();
  }
  p->reaped = true;
  later([weak = std::weak_ptr<process>{p}](own_parent& self) {
    if (const auto alive = weak.lock())
      self.await_rest(alive);
  });
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
  if (!has_ended(p->pidfd.native_handle())) {
    await_exit(p);
    return;
  }
  const auto memory = !p->killed && has_been_killed(p->pidfd.native_handle())
                          ? memory_.look(p->pid)
                          : std::string{};
  reap_leader(*p);
  p->end.status.memory = memory;
  if (p->killed)
    p->killed_since = clock::now();
  await_rest(p);
}

void own_parent::reap_leader(process& p) {
  error_code ignored;
  p.end.status = reap(p.pid, p.pidfd.native_handle());
  p.reaped = true;
  p.pidfd.close(ignored);
}

// A process that has left the group is found as long as the leader lives.
void own_parent::look_below(process& p) {
  for (const auto pid : descendants_of(p.pid))
    if (const auto x = stat_of(pid); x && x->group != p.pid)
      p.outsiders[pid] = x->started;
}

// After the leader is reaped. Members whose new parent never reaps (a container
// without an init) stay zombies for ever; they hold nothing and count as gone.
std::map<pid_t, std::uint64_t> own_parent::living_members(const process& p) {
  std::map<pid_t, std::uint64_t> result;
  for (const auto& [pid, started] : p.outsiders)
    if (const auto x = stat_of(pid); x && x->lives() && x->started == started)
      result.emplace(pid, started);
  // A member may have become our child: as process 1 we inherit orphans.
  siginfo_t info;
  do {
    info = siginfo_t{};
  } while (::waitid(P_PGID, static_cast<id_t>(p.pid), &info, WEXITED | WNOHANG)
               == 0
           && info.si_pid != 0);
  // As a rule nobody is left, and this is all that it costs.
  if (::kill(-p.pid, 0) != 0 && errno == ESRCH && p.rest.empty())
    return result;
  for (const auto pid : all_processes()) {
    const auto x = stat_of(pid);
    if (!x || !x->lives() || (x->session != p.pid && x->group != p.pid))
      continue;
    // Its number was given to somebody else.
    if (pid == p.pid)
      return {};
    result.emplace(pid, x->started);
  }
  return result;
}

void own_parent::look(process& p) const {
  const auto now = living_members(p);
  std::erase_if(p.rest, [&](const auto& x) {
    const auto i = now.find(x.first);
    return i == now.end() || i->second != x.second.started;
  });
  for (const auto& [pid, started] : now)
    p.rest.try_emplace(pid, loop_, started);
}

void own_parent::kill_rest(process& p) const {
  for (auto& [pid, x] : p.rest) {
    if (std::exchange(x.killed, true))
      continue;
    if (p.end.killed++ == 0)
      p.end.killed_example = describe_process(pid);
    signal_process(pid, x.started, SIGKILL);
  }
}

// Until nothing is left. Each end of a member brings it back here.
void own_parent::await_rest(const process_ptr& p) {
  look(*p);
  if (p->rest.empty())
    return finish(p, true);
  if (p->killed) {
    kill_rest(*p);
    const auto left = std::chrono::ceil<milliseconds>(
        p->killed_since + group_timeout - clock::now());
    if (left <= 0ms)
      return finish(p, false);
    arm(p, left);
  }
  for (auto& [pid, x] : p->rest)
    if (!x.pidfd.is_open())
      await_member(p, pid, x);
  if (std::exchange(p->told, true))
    return;
  leader_end first{p->end.status, static_cast<std::uint32_t>(p->rest.size()),
                   describe_process(p->rest.begin()->first)};
  if (events_.leader_ended)
    events_.leader_ended(p->number, first);
}

void own_parent::await_member(const process_ptr& p, pid_t pid, member& x) {
  auto fd = open_pidfd(pid);
  error_code error;
  if (fd)
    x.pidfd.assign(fd.get(), error);
  if (!fd || error)  // it has ended, or there is no room to watch it
    return arm(p, look_again);
  static_cast<void>(fd.release());
  x.pidfd.async_wait(
      asio::posix::stream_descriptor::wait_read,
      while_known(p, [this](const process_ptr& alive, error_code failed) {
        if (!failed)
          await_rest(alive);
      }));
}

void own_parent::arm(const process_ptr& p, milliseconds delay) {
  if (p->timer.expiry() > clock::now()
      && p->timer.expiry() <= clock::now() + delay)
    return;
  p->timer.expires_after(delay);
  p->timer.async_wait(
      while_known(p, [this](const process_ptr& alive, error_code error) {
        if (!error)
          await_rest(alive);
      }));
}

void own_parent::finish(const process_ptr& p, bool gone) {
  p->end.gone = gone;
  const auto number = p->number;
  const auto end = p->end;
  processes_.erase(number);
  events_.ended(number, end);
}

void own_parent::end_all() {
  pool_.reset();
  starting_.clear();
  const auto deadline = clock::now() + end_timeout;
  for (const auto& [number, p] : processes_) {
    if (p->reaped)
      continue;
    look_below(*p);
    ::kill(-p->pid, SIGKILL);
  }
  for (const auto& [number, p] : processes_) {
    if (!p->reaped) {
      if (!wait_for_exit(p->pidfd.native_handle(), deadline))
        continue;  // in an uninterruptible sleep: it dies when that ends
      reap_leader(*p);
    }
    for (look(*p); !p->rest.empty() && clock::now() < deadline; look(*p)) {
      kill_rest(*p);
      const auto& [pid, x] = *p->rest.begin();
      if (const auto pidfd = open_pidfd(pid); pidfd)
        wait_for_exit(pidfd.get(), deadline);
    }
  }
  processes_.clear();
}

}  // namespace

std::shared_ptr<spawner> own_processes(asio::io_context& loop) {
  refuse_ignored_sigchld();
  return std::make_shared<own_parent>(loop);
}

}  // namespace pup
