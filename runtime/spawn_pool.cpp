#include "pup/runtime/spawn_pool.hpp"

#include "pup/runtime/pidfd.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <list>
#include <mutex>
#include <new>
#include <optional>
#include <pthread.h>
#include <utility>

#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>

namespace pup {

namespace {

using clock = std::chrono::steady_clock;

// A child of its own has 32 KiB of these; a library that checks memory needs
// more.
constexpr std::size_t stack_bytes = 512 * 1024;

// For a child that got SIGKILL.
constexpr std::chrono::milliseconds longest_end{5'000};

// While the child of one looks for a processor, another one can be made.
constexpr std::size_t quick_ones = 2;

// Those, and one that waits for its turn.
constexpr std::size_t most_idle = quick_ones + 1;

// Where a child writes its pid, whether it shares our memory or has a copy.
class shared_pid {
public:
  shared_pid() {
    auto* page = ::mmap(nullptr, sizeof(pid_t), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED)
      value_ = new (page) pid_t{0};
  }
  shared_pid(const shared_pid&) = delete;
  shared_pid& operator=(const shared_pid&) = delete;
  ~shared_pid() {
    if (value_ != nullptr)
      ::munmap(value_, sizeof(pid_t));
  }

  /// nullptr: there is no memory for it.
  pid_t* get() const noexcept {
    return value_;
  }
  pid_t load() const noexcept {
    return value_ == nullptr ? 0 : std::atomic_ref{*value_}.load();
  }
  void clear() const noexcept {
    if (value_ != nullptr)
      std::atomic_ref{*value_}.store(0);
  }

private:
  pid_t* value_ = nullptr;
};

struct job {
  std::uint64_t number = 0;
  spawn_request request;
  std::vector<unique_fd> owned;
};

struct running_job {
  std::uint64_t number = 0;
  clock::time_point begun;
  const shared_pid* pid = nullptr;  // its thread's
  bool given_up = false;            // what comes of it is ended
};

// A child of ours that somebody else may reap at any time, and by its number
// only if it is one still.
void kill_child(pid_t pid) {
  const auto pidfd = open_pidfd(pid);
  siginfo_t info{};
  if (pidfd
      && ::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info,
                  WEXITED | WNOHANG | WNOWAIT)
             == 0)
    ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0U);
}

// What does not die of it waits in the kernel, and becomes a zombie later.
void end_and_reap(const child& x, std::chrono::milliseconds patience) {
  ::kill(-x.pid, SIGKILL);
  pollfd event{x.pidfd.get(), POLLIN, 0};
  while (::poll(&event, 1, static_cast<int>(patience.count())) < 0
         && errno == EINTR) {}
  siginfo_t info{};
  ::waitid(P_PIDFD, static_cast<id_t>(x.pidfd.get()), &info, WEXITED | WNOHANG);
}

// Threads of ours handle no signals.
class all_signals_blocked {
public:
  all_signals_blocked() {
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  all_signals_blocked(const all_signals_blocked&) = delete;
  all_signals_blocked& operator=(const all_signals_blocked&) = delete;
  ~all_signals_blocked() {
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

private:
  sigset_t before_{};
};

}  // namespace

class spawn_pool::impl : public std::enable_shared_from_this<impl> {
public:
  impl(std::function<void()> notify, std::uint64_t reset)
      : notify_(std::move(notify)), reset_(reset) {}

  void start(job x);
  std::vector<outcome> take();
  bool has_room() const;
  bool busy() const;
  void kill(std::uint64_t number);
  void close();

private:
  static void* run(void* argument);
  bool add_thread();
  void work();
  void work_on(std::unique_lock<std::mutex>& lock, const shared_pid& pid);
  std::optional<clock::time_point> next_turn() const;
  void tell(outcome x);

  mutable std::mutex mutex_;
  std::condition_variable more_;
  std::function<void()> notify_;
  const std::uint64_t reset_;
  std::deque<job> waiting_;
  std::list<running_job> running_;
  std::vector<outcome> done_;
  std::size_t threads_ = 0;
  std::size_t idle_ = 0;     // of these
  std::size_t patient_ = 0;  // of the idle: wait for their turn
  bool closed_ = false;
};

void spawn_pool::impl::start(job x) {
  std::unique_lock lock{mutex_};
  if (running_.size() >= bounds::starts_at_once)
    return tell(
        {x.number,
         os_fault{"start", "of so many at once that take long", EAGAIN}});
  if (idle_ > 0 || add_thread() || threads_ > 0) {
    waiting_.push_back(std::move(x));
    const auto wake = idle_ > 0 && patient_ == 0;
    lock.unlock();
    if (wake)
      more_.notify_one();
    return;
  }
  lock.unlock();
  auto result = spawn(x.request, {nullptr, reset_});
  lock.lock();
  tell({x.number, std::move(result)});
}

std::vector<spawn_pool::outcome> spawn_pool::impl::take() {
  const std::lock_guard lock{mutex_};
  return std::exchange(done_, {});
}

bool spawn_pool::impl::has_room() const {
  const std::lock_guard lock{mutex_};
  return waiting_.size() < bounds::waiting_starts;
}

bool spawn_pool::impl::busy() const {
  const std::lock_guard lock{mutex_};
  return !waiting_.empty() || !running_.empty() || !done_.empty();
}

void spawn_pool::impl::kill(std::uint64_t number) {
  const auto is_it = [number](const auto& x) { return x.number == number; };
  const std::lock_guard lock{mutex_};
  if (const auto i = std::find_if(waiting_.begin(), waiting_.end(), is_it);
      i != waiting_.end()) {
    const auto program = i->request.argv.empty() ? "" : i->request.argv.front();
    waiting_.erase(i);
    return tell({number, os_fault{"start", program, ECANCELED}});
  }
  const auto i = std::find_if(running_.begin(), running_.end(), is_it);
  if (i == running_.end() || i->given_up)
    return;
  if (const auto pid = i->pid->load(); pid != 0)
    return kill_child(pid);
  // It looks for its program; no signal reaches that.
  i->given_up = true;
  tell({number, os_fault{"start", "is given up", ECANCELED}});
}

void spawn_pool::impl::close() {
  std::unique_lock lock{mutex_};
  closed_ = true;
  notify_ = nullptr;
  waiting_.clear();
  for (const auto& x : running_)
    if (const auto pid = x.pid->load(); pid != 0)
      kill_child(pid);
  const auto untold = std::exchange(done_, {});
  lock.unlock();
  more_.notify_all();
  for (const auto& x : untold)
    if (const auto* born = std::get_if<child>(&x.what))
      end_and_reap(*born, longest_end);
}

// -- its threads --------------------------------------------------------------

// With the lock. std::thread takes no size of a stack.
bool spawn_pool::impl::add_thread() {
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) != 0)
    return false;
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  ::pthread_attr_setstacksize(&attributes, stack_bytes);
  auto* self = new std::shared_ptr<impl>{shared_from_this()};
  const all_signals_blocked guard;
  pthread_t thread{};
  const auto error = ::pthread_create(&thread, &attributes, &impl::run, self);
  ::pthread_attr_destroy(&attributes);
  if (error != 0) {
    delete self;
    return false;
  }
  ++threads_;
  return true;
}

void* spawn_pool::impl::run(void* argument) {
  const auto* given = static_cast<std::shared_ptr<impl>*>(argument);
  const auto self = *given;
  delete given;
  self->work();
  return nullptr;
}

// When the next start may begin: at most `quick_ones` are under way that are
// younger than `patience`. None: not before one has ended.
std::optional<clock::time_point> spawn_pool::impl::next_turn() const {
  if (running_.size() >= bounds::starts_at_once)
    return std::nullopt;
  if (running_.size() < quick_ones)
    return clock::time_point{};
  return std::prev(running_.end(), quick_ones)->begun + patience;
}

// A few threads that have nothing to do wait; more of them go.
void spawn_pool::impl::work() {
  const shared_pid pid;
  std::unique_lock lock{mutex_};
  while (!closed_ && !(waiting_.empty() && idle_ >= most_idle)) {
    const auto turn = next_turn();
    if (!waiting_.empty() && turn && *turn <= clock::now()) {
      work_on(lock, pid);
      continue;
    }
    ++idle_;
    if (waiting_.empty() || !turn) {
      more_.wait(lock);
    } else {
      ++patient_;
      more_.wait_until(lock, *turn);
      --patient_;
    }
    --idle_;
  }
  --threads_;
}

void spawn_pool::impl::work_on(std::unique_lock<std::mutex>& lock,
                               const shared_pid& pid) {
  auto mine = std::move(waiting_.front());
  waiting_.pop_front();
  if (waiting_.size() + 1 == bounds::waiting_starts && notify_)
    notify_();
  pid.clear();
  const auto now =
      running_.insert(running_.end(), {mine.number, clock::now(), &pid, false});
  // For those behind it, should it take long.
  if (!waiting_.empty() && idle_ == 0)
    static_cast<void>(add_thread());
  lock.unlock();
  auto result = spawn(mine.request, {pid.get(), reset_});
  mine.owned.clear();
  lock.lock();
  const auto unwanted = closed_ || now->given_up;
  running_.erase(now);
  if (!unwanted)
    return tell({mine.number, std::move(result)});
  if (const auto* born = std::get_if<child>(&result)) {
    lock.unlock();
    end_and_reap(*born, longest_end);
    lock.lock();
  }
}

// With the lock.
void spawn_pool::impl::tell(outcome x) {
  const auto first = done_.empty();
  done_.push_back(std::move(x));
  if (first && notify_)
    notify_();
}

// -- its face -----------------------------------------------------------------

spawn_pool::spawn_pool(std::function<void()> notify, std::uint64_t reset)
    : impl_(std::make_shared<impl>(std::move(notify), reset)) {}

spawn_pool::~spawn_pool() {
  impl_->close();
}

void spawn_pool::start(std::uint64_t number, spawn_request request,
                       std::vector<unique_fd> owned) {
  impl_->start({number, std::move(request), std::move(owned)});
}

std::vector<spawn_pool::outcome> spawn_pool::take() {
  return impl_->take();
}

bool spawn_pool::has_room() const {
  return impl_->has_room();
}

bool spawn_pool::busy() const {
  return impl_->busy();
}

void spawn_pool::kill(std::uint64_t number) {
  impl_->kill(number);
}

}  // namespace pup
