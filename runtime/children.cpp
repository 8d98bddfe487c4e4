#include "pup/runtime/children.hpp"

#include "pup/runtime/ports.hpp"
#include "pup/runtime/process.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <thread>
#include <unordered_map>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pup {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Programs that are quick to listen do so within milliseconds; one that takes
// longer than a second does not notice 50 ms more.
constexpr milliseconds first_probe_delay = 1ms;
constexpr milliseconds early_probe_delay = 10ms;
constexpr milliseconds late_probe_delay = 50ms;
constexpr milliseconds early_probe_period = 1s;
// A connect that is neither accepted nor refused: its SYN met a full queue, and
// is sent again after 1 s.
constexpr milliseconds probe_timeout = 1500ms;

constexpr milliseconds first_group_delay = 1ms;
constexpr milliseconds longest_group_delay = 64ms;
constexpr milliseconds group_timeout = 10s;
// Zombies are told from the living by a walk through /proc, which waits until
// the normal case, a parent that reaps at once, is out of question.
constexpr milliseconds zombie_check_delay = 16ms;

constexpr milliseconds destructor_timeout = 5s;

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

bool has_ended(int pidfd) {
  siginfo_t info;
  return wait_pidfd(pidfd, info, WNOHANG | WNOWAIT, nullptr) != 0
         || info.si_pid != 0;
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

bool wait_for_exit(int pidfd, clock::time_point deadline) {
  pollfd event{pidfd, POLLIN, 0};
  int result = 0;
  do {
    const auto left = std::chrono::ceil<milliseconds>(deadline - clock::now());
    result = ::poll(&event, 1, static_cast<int>(std::max(left, 0ms).count()));
  } while (result < 0 && errno == EINTR);
  return result == 1;
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

struct opened_output {
  unique_fd file;  // none: /dev/null
  std::string warning;
};

opened_output open_output(const std::string& path) {
  opened_output result;
  if (path.empty())
    return result;
  // Non-blocking for the open alone: a FIFO without a reader must not stop the
  // loop.
  result.file.reset(::open(
      path.c_str(),
      O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600));
  if (result.file && ::fcntl(result.file.get(), F_SETFL, O_APPEND) == 0)
    return result;
  result.warning = to_string(os_fault{"open", path, errno})
                   + "; its output goes to /dev/null";
  result.file.reset();
  return result;
}

// Nobody listens, yet the connect succeeded: the kernel chose the wanted port
// for our end and connected the socket with itself. Reset it, or the port would
// stay in TIME_WAIT.
bool is_connected_to_itself(tcp::socket& socket) {
  error_code error;
  if (socket.local_endpoint(error) != socket.remote_endpoint(error) || error)
    return false;
  socket.set_option(asio::socket_base::linger{true, 0}, error);
  return true;
}

}  // namespace

class children::impl : public std::enable_shared_from_this<impl> {
public:
  impl(asio::io_context& loop, std::vector<std::string> environment,
       child_events events)
      : loop_(loop),
        environment_(std::move(environment)),
        events_(std::move(events)) {}

  void launch(const std::string& key, std::uint64_t life,
              launch_request request);
  std::optional<os_fault> signal(const std::string& key, std::uint64_t life,
                                 int signo);
  void kill_group(const std::string& key, std::uint64_t life);
  void abandon(const std::string& key, std::uint64_t life);
  void end_all();

  std::size_t size() const noexcept {
    return slots_.size();
  }

private:
  // A life whose process exists, or has left a group that still does.
  // Handlers hold it weakly: only its slot owns it.
  struct process {
    process(asio::io_context& loop, std::string its_key, std::uint64_t number)
        : key(std::move(its_key)),
          life(number),
          pidfd(loop),
          timer(loop),
          probe(loop) {}

    std::string key;
    std::uint64_t life;
    pid_t pid = 0;  // its group as well
    std::uint16_t port = 0;
    asio::posix::stream_descriptor pidfd;
    bool abandoned = false;
    bool reaped = false;
    // First for readiness, then for the end of the group.
    asio::steady_timer timer;
    clock::time_point timing_since;
    backoff delays{first_probe_delay, early_probe_delay};
    tcp::socket probe;
    exit_status status;
  };

  using process_ptr = std::shared_ptr<process>;

  struct waiting_life {
    std::uint64_t life;
    launch_request request;
  };

  struct slot {
    process_ptr current;
    std::optional<waiting_life> next;
  };

  process_ptr find(const std::string& key, std::uint64_t life) const;
  bool drop_waiting(const std::string& key, std::uint64_t life);
  void forget_if_empty(const std::string& key);

  void begin_next(const std::string& key);
  std::variant<process_ptr, launch_fault> start(const std::string& key,
                                                std::uint64_t life,
                                                const launch_request& request,
                                                std::string& warning);
  void disown(process& p);

  template <class Step>
  auto while_alive(const process_ptr& p, Step step);
  void await_exit(const process_ptr& p);
  void on_pidfd(const process_ptr& p);
  void await_group(const process_ptr& p);
  void finish(const process_ptr& p, bool group_gone);

  void probe(const process_ptr& p, bool ipv6);
  void on_probe(const process_ptr& p, bool ipv6, error_code error);
  void probe_later(const process_ptr& p);

  asio::io_context& loop_;
  std::vector<std::string> environment_;
  child_events events_;
  std::unordered_map<std::string, slot> slots_;
};

// --- commands ----------------------------------------------------------------

void children::impl::launch(const std::string& key, std::uint64_t life,
                            launch_request request) {
  auto& s = slots_[key];
  if ((s.current && life <= s.current->life)
      || (s.next && life <= s.next->life))
    return;
  s.next = waiting_life{life, std::move(request)};
  if (s.current) {
    disown(*s.current);  // finish() begins the next life
    return;
  }
  // Later: events never come from within a command.
  asio::post(loop_, [weak = weak_from_this(), key] {
    if (const auto self = weak.lock())
      self->begin_next(key);
  });
}

std::optional<os_fault> children::impl::signal(const std::string& key,
                                               std::uint64_t life, int signo) {
  const auto p = find(key, life);
  // Until it is reaped the group's number belongs to nobody else.
  if (!p || p->reaped || ::kill(-p->pid, signo) == 0)
    return std::nullopt;
  return os_fault{"kill", "group " + std::to_string(p->pid), errno};
}

void children::impl::kill_group(const std::string& key, std::uint64_t life) {
  if (!drop_waiting(key, life)) {
    static_cast<void>(signal(key, life, SIGKILL));
    return;
  }
  asio::post(loop_, [weak = weak_from_this(), key, life] {
    if (const auto self = weak.lock())
      self->events_.failed(
          key, life, {"cancelled", "stopped before its process was started"});
  });
}

void children::impl::abandon(const std::string& key, std::uint64_t life) {
  if (drop_waiting(key, life))
    return;
  if (const auto p = find(key, life))
    disown(*p);
}

void children::impl::disown(process& p) {
  p.abandoned = true;
  if (p.reaped)
    return;  // its group has had its SIGKILL, the timer waits for its end
  ::kill(-p.pid, SIGKILL);
  p.timer.cancel();
  error_code ignored;
  p.probe.close(ignored);
}

children::impl::process_ptr children::impl::find(const std::string& key,
                                                 std::uint64_t life) const {
  const auto found = slots_.find(key);
  if (found == slots_.end() || !found->second.current
      || found->second.current->life != life)
    return nullptr;
  return found->second.current;
}

bool children::impl::drop_waiting(const std::string& key, std::uint64_t life) {
  const auto found = slots_.find(key);
  if (found == slots_.end() || !found->second.next
      || found->second.next->life != life)
    return false;
  found->second.next.reset();
  forget_if_empty(key);
  return true;
}

void children::impl::forget_if_empty(const std::string& key) {
  const auto found = slots_.find(key);
  if (found != slots_.end() && !found->second.current && !found->second.next)
    slots_.erase(found);
}

// --- the beginning of a life -------------------------------------------------

void children::impl::begin_next(const std::string& key) {
  const auto found = slots_.find(key);
  if (found == slots_.end() || found->second.current || !found->second.next)
    return;  // abandoned or cancelled meanwhile
  const auto [life, request] = *std::exchange(found->second.next, std::nullopt);
  std::string warning;
  auto started = start(key, life, request, warning);
  if (const auto* fault = std::get_if<launch_fault>(&started)) {
    forget_if_empty(key);
    events_.failed(key, life, *fault);
    return;
  }
  const auto p = std::get<process_ptr>(started);
  found->second.current = p;
  await_exit(p);
  events_.launched(key, life, p->pid, warning);
  if (p->abandoned)  // the receiver has just said so
    return;
  if (request.ready == ready_condition::port && request.port != 0) {
    p->timing_since = clock::now();
    probe(p, false);
  } else {
    events_.ready(key, life, "");
  }
}

std::variant<children::impl::process_ptr, launch_fault> children::impl::start(
    const std::string& key, std::uint64_t life, const launch_request& request,
    std::string& warning) {
  if (request.port != 0)
    if (auto obstacle = port_obstacle(request.port))
      return launch_fault{"port", *std::move(obstacle)};
  auto output = open_output(request.output);
  warning = std::move(output.warning);
  const int fd = output.file.get();
  auto spawned =
      spawn({request.argv,
             build_environment(environment_, request.environment, request.path),
             request.cwd, -1, fd, fd});
  if (const auto* fault = std::get_if<os_fault>(&spawned))
    return launch_fault{fault->call, to_string(*fault)};
  auto& born = std::get<child>(spawned);
  auto p = std::make_shared<process>(loop_, key, life);
  p->pid = born.pid;
  p->port = request.port;
  error_code error;
  p->pidfd.assign(born.pidfd.get(), error);
  if (error) {  // nobody would learn of its end
    ::kill(-born.pid, SIGKILL);
    reap(born.pid, born.pidfd.get());
    return launch_fault{"epoll", "watch pid " + std::to_string(born.pid) + ": "
                                     + error.message()};
  }
  static_cast<void>(born.pidfd.release());  // the descriptor owns it now
  return p;
}

// --- its end -----------------------------------------------------------------

// A handler for p that does nothing once p is gone. `this` owns p through its
// slot, so a living p means a living `this`.
template <class Step>
auto children::impl::while_alive(const process_ptr& p, Step step) {
  return [weak = std::weak_ptr<process>{p},
          step = std::move(step)](error_code error) {
    if (const auto alive = weak.lock())
      step(alive, error);
  };
}

void children::impl::await_exit(const process_ptr& p) {
  p->pidfd.async_wait(
      asio::posix::stream_descriptor::wait_read,
      while_alive(p, [this](const process_ptr& alive, error_code error) {
        if (!error)
          on_pidfd(alive);
      }));
}

void children::impl::on_pidfd(const process_ptr& p) {
  const int pidfd = p->pidfd.native_handle();
  if (!has_ended(pidfd)) {
    await_exit(p);
    return;
  }
  p->timer.cancel();
  error_code ignored;
  p->probe.close(ignored);
  ::kill(-p->pid, SIGKILL);  // before reap(): see the head of children.hpp
  p->status = reap(p->pid, pidfd);
  p->reaped = true;
  p->pidfd.close(ignored);
  p->timing_since = clock::now();
  p->delays = backoff{first_group_delay, longest_group_delay};
  await_group(p);
}

void children::impl::await_group(const process_ptr& p) {
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
      while_alive(p, [this](const process_ptr& alive, error_code error) {
        if (!error)
          await_group(alive);
      }));
}

void children::impl::finish(const process_ptr& p, bool group_gone) {
  auto& s = slots_.at(p->key);
  assert(s.current == p);
  s.current.reset();
  const auto next_life = s.next ? std::optional{s.next->life} : std::nullopt;
  if (next_life && !group_gone)
    s.next.reset();
  forget_if_empty(p->key);
  if (!p->abandoned)
    events_.exited(p->key, p->life, p->status);
  if (next_life && group_gone)
    begin_next(p->key);
  else if (next_life)
    events_.failed(
        p->key, *next_life,
        {"predecessor", "processes of group " + std::to_string(p->pid)
                            + " of its previous life do not end"});
}

void children::impl::end_all() {
  const auto deadline = clock::now() + destructor_timeout;
  for (const auto& [key, s] : slots_)
    if (s.current && !s.current->reaped)
      ::kill(-s.current->pid, SIGKILL);
  for (const auto& [key, s] : slots_) {
    if (!s.current)
      continue;
    auto& p = *s.current;
    if (!p.reaped) {
      if (!wait_for_exit(p.pidfd.native_handle(), deadline))
        continue;  // in an uninterruptible sleep: it dies when that ends
      ::kill(-p.pid, SIGKILL);
      reap(p.pid, p.pidfd.native_handle());
    }
    backoff delays{first_group_delay, longest_group_delay};
    for (auto delay = 0ms; !group_is_gone(p.pid, delay >= zombie_check_delay)
                           && clock::now() < deadline;)
      std::this_thread::sleep_for(delay = delays.next());
  }
  slots_.clear();
}

// --- readiness ---------------------------------------------------------------

void children::impl::probe(const process_ptr& p, bool ipv6) {
  if (p->abandoned || p->reaped)
    return;  // a timer that had fired before it could be cancelled
  error_code error;
  const auto address = ipv6
                           ? asio::ip::address{asio::ip::address_v6::loopback()}
                           : asio::ip::address_v4::loopback();
  p->probe = tcp::socket{loop_};
  p->probe.open(ipv6 ? tcp::v6() : tcp::v4(), error);
  if (error) {  // no such family, or no descriptor left just now
    on_probe(p, ipv6, error);
    return;
  }
  p->probe.async_connect(
      {address, p->port},
      while_alive(p, [this, ipv6](const process_ptr& alive, error_code result) {
        if (!alive->abandoned && !alive->reaped)
          on_probe(alive, ipv6, result);
      }));
  p->timer.expires_after(probe_timeout);
  p->timer.async_wait(
      while_alive(p, [](const process_ptr& alive, error_code result) {
        error_code ignored;
        if (!result)
          alive->probe.close(ignored);
      }));
}

void children::impl::on_probe(const process_ptr& p, bool ipv6,
                              error_code error) {
  p->timer.cancel();
  const bool accepted = !error && !is_connected_to_itself(p->probe);
  error_code ignored;
  p->probe.close(ignored);
  if (has_ended(p->pidfd.native_handle()))
    return;  // its exit is the next event; who accepted was someone else
  if (accepted)
    events_.ready(p->key, p->life, ipv6 ? "::1" : "127.0.0.1");
  else if (!ipv6)
    probe(p, true);
  else
    probe_later(p);
}

void children::impl::probe_later(const process_ptr& p) {
  if (clock::now() - p->timing_since >= early_probe_period)
    p->delays.set_longest(late_probe_delay);
  p->timer.expires_after(p->delays.next());
  p->timer.async_wait(
      while_alive(p, [this](const process_ptr& alive, error_code error) {
        if (!error)
          probe(alive, false);
      }));
}

// --- the public face ---------------------------------------------------------

children::children(asio::io_context& loop, std::vector<std::string> environment,
                   child_events events) {
  refuse_ignored_sigchld();
  impl_ =
      std::make_shared<impl>(loop, std::move(environment), std::move(events));
}

children::~children() {
  impl_->end_all();
}

void children::launch(const std::string& key, std::uint64_t life,
                      launch_request request) {
  impl_->launch(key, life, std::move(request));
}

std::optional<os_fault> children::signal(const std::string& key,
                                         std::uint64_t life, int signo) {
  return impl_->signal(key, life, signo);
}

void children::kill_group(const std::string& key, std::uint64_t life) {
  impl_->kill_group(key, life);
}

void children::abandon(const std::string& key, std::uint64_t life) {
  impl_->abandon(key, life);
}

std::size_t children::size() const noexcept {
  return impl_->size();
}

}  // namespace pup
