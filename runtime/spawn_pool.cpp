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

// What a child and we tell each other, whether it shares our memory or has a
// copy.
class shared_words {
public:
  shared_words() {
    auto* page = ::mmap(nullptr, sizeof(words), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED)
      words_ = new (page) words;
  }
  shared_words(const shared_words&) = delete;
  shared_words& operator=(const shared_words&) = delete;
  ~shared_words() {
    if (words_ != nullptr)
      ::munmap(words_, sizeof(words));
  }

  /// Without memory for it no child is told of anything.
  [[nodiscard]] spawn_aids aids(std::uint64_t reset) const noexcept {
    if (words_ == nullptr)
      return {nullptr, nullptr, reset};
    return {&words_->pid, &words_->cancelled, reset};
  }
  /// 0: there is no child yet.
  [[nodiscard]] pid_t pid() const noexcept {
    return words_ == nullptr ? 0 : std::atomic_ref{words_->pid}.load();
  }
  void cancel() const noexcept {
    if (words_ != nullptr)
      std::atomic_ref{words_->cancelled}.store(1);
  }
  void clear() const noexcept {
    if (words_ == nullptr)
      return;
    std::atomic_ref{words_->pid}.store(0);
    std::atomic_ref{words_->cancelled}.store(0);
  }

private:
  struct words {
    pid_t pid = 0;
    int cancelled = 0;
  };
  words* words_ = nullptr;
};

struct job {
  std::uint64_t number = 0;
  std::string owner;
  spawn_request request;
  std::vector<unique_fd> owned;
};

struct running_job {
  std::uint64_t number = 0;
  std::string owner;
  clock::time_point begun;
  const shared_words* words = nullptr;  // its thread's
  bool killed = false;
  bool given_up = false;  // what comes of it is ended
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

// A child that does not die of it waits in the kernel, and becomes a zombie
// later.
void end_and_reap(const child& x, std::chrono::milliseconds patience) {
  siginfo_t now{};
  if (::waitid(P_PIDFD, static_cast<id_t>(x.pidfd.get()), &now,
               WEXITED | WNOHANG | WNOWAIT)
      != 0)
    return;  // somebody else was first, and the number may be another's
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
  impl(std::function<void()> notify, std::uint64_t reset, starter how)
      : notify_(std::move(notify)), reset_(reset), spawn_(std::move(how)) {}

  void start(job x);
  std::vector<outcome> take();
  bool has_room() const;
  bool busy() const;
  bool starts(pid_t pid) const;
  void kill(std::uint64_t number);
  void close();

private:
  static void* run(void* argument);
  bool add_thread();
  void work();
  void work_on(std::unique_lock<std::mutex>& lock, const shared_words& words);
  std::optional<clock::time_point> next_turn() const;
  bool has_too_many_stuck(const std::string& owner) const;
  void tell(outcome x);

  mutable std::mutex mutex_;
  std::condition_variable more_;
  std::function<void()> notify_;
  const std::uint64_t reset_;
  const starter spawn_;
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
  auto result = spawn_(x.request, {nullptr, nullptr, reset_});
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

bool spawn_pool::impl::starts(pid_t pid) const {
  const std::lock_guard lock{mutex_};
  return std::any_of(running_.begin(), running_.end(),
                     [&](const running_job& x) {
                       return !x.given_up && x.words->pid() == pid;
                     })
         || std::any_of(done_.begin(), done_.end(), [&](const outcome& x) {
              const auto* born = std::get_if<child>(&x.what);
              return born != nullptr && born->pid == pid;
            });
}

void spawn_pool::impl::kill(std::uint64_t number) {
  const std::lock_guard lock{mutex_};
  if (const auto i =
          std::find_if(waiting_.begin(), waiting_.end(),
                       [&](const job& x) { return x.number == number; });
      i != waiting_.end()) {
    const auto program = i->request.argv.empty() ? "" : i->request.argv.front();
    waiting_.erase(i);
    return tell({number, os_fault{"start", program, ECANCELED}});
  }
  const auto i = std::find_if(
      running_.begin(), running_.end(),
      [&](const running_job& x) { return x.number == number && !x.given_up; });
  if (i == running_.end())
    return;
  i->words->cancel();
  const auto pid = i->words->pid();
  if (pid != 0)
    kill_child(pid);
  if (pid != 0 && !std::exchange(i->killed, true))
    return;
  // It looks for its program, which no signal reaches, or does not even die of
  // this one.
  i->given_up = true;
  tell({number, os_fault{"start", "is given up", ECANCELED}});
}

void spawn_pool::impl::close() {
  std::unique_lock lock{mutex_};
  closed_ = true;
  notify_ = nullptr;
  waiting_.clear();
  for (const auto& x : running_) {
    x.words->cancel();
    if (const auto pid = x.words->pid(); pid != 0)
      kill_child(pid);
  }
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

bool spawn_pool::impl::has_too_many_stuck(const std::string& owner) const {
  const auto since = clock::now() - stuck_after;
  const auto stuck = std::count_if(
      running_.begin(), running_.end(),
      [&](const auto& x) { return x.owner == owner && x.begun <= since; });
  return static_cast<std::size_t>(stuck) >= bounds::stuck_starts;
}

// A few threads that have nothing to do wait; more of them go.
void spawn_pool::impl::work() {
  const shared_words words;
  std::unique_lock lock{mutex_};
  while (!closed_ && !(waiting_.empty() && idle_ >= most_idle)) {
    const auto turn = next_turn();
    if (!waiting_.empty() && turn && *turn <= clock::now()) {
      work_on(lock, words);
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
                               const shared_words& words) {
  auto mine = std::move(waiting_.front());
  waiting_.pop_front();
  if (waiting_.size() + 1 == bounds::waiting_starts && notify_)
    notify_();
  if (has_too_many_stuck(mine.owner))
    return tell(
        {mine.number,
         os_fault{"start", "beside so many of it that do not answer", EAGAIN}});
  words.clear();
  const auto now = running_.insert(
      running_.end(),
      {mine.number, mine.owner, clock::now(), &words, false, false});
  // For those behind it, should it take long.
  if (!waiting_.empty() && idle_ == 0)
    static_cast<void>(add_thread());
  else if (!waiting_.empty() && patient_ == 0)
    more_.notify_one();
  lock.unlock();
  auto result = spawn_(mine.request, words.aids(reset_));
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

spawn_pool::spawn_pool(std::function<void()> notify, std::uint64_t reset,
                       starter how)
    : impl_(std::make_shared<impl>(std::move(notify), reset, std::move(how))) {}

spawn_pool::~spawn_pool() {
  impl_->close();
}

void spawn_pool::start(std::uint64_t number, std::string owner,
                       spawn_request request, std::vector<unique_fd> owned) {
  impl_->start(
      {number, std::move(owner), std::move(request), std::move(owned)});
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

bool spawn_pool::starts(pid_t pid) const {
  return impl_->starts(pid);
}

void spawn_pool::kill(std::uint64_t number) {
  impl_->kill(number);
}

}  // namespace pup
