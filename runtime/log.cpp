#include "pup/runtime/log.hpp"

#include "pup/runtime/log_archive.hpp"
#include "pup/runtime/log_lines.hpp"
#include "pup/runtime/log_outlets.hpp"
#include "pup/runtime/log_store.hpp"
#include "pup/runtime/pattern.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

namespace pup {

namespace {

using steady = std::chrono::steady_clock;
using time_point = std::chrono::system_clock::time_point;

// Linux allows this much to everyone (fs.pipe-max-size), and with it a program
// that writes 1 GB/s may be overlooked for a millisecond.
constexpr int large_pipe_bytes = 1 << 20;

constexpr std::size_t buffer_bytes = 64 * 1024;

// Of one stream, before the others have their turn.
constexpr std::size_t turn_bytes = 1u << 20;

// A longer piece without an end is no line that a person waits for, and
// would be looked through again with each byte.
constexpr std::size_t most_begun_bytes = 4 * 1024;

// No event tells that there is memory again.
constexpr std::chrono::milliseconds memory_pause{1};

}  // namespace

std::variant<log_pipe, os_fault> make_log_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0)
    return os_fault{"pipe", "", errno};
  log_pipe result{unique_fd{ends[0]}, unique_fd{ends[1]}};
  // Of this end alone: the process expects its own to block.
  if (::fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0)
    return os_fault{"fcntl", "O_NONBLOCK", errno};
  return result;
}

class log_sink::impl {
public:
  explicit impl(log_options options);
  ~impl();

  bool wants(const output_spec& x) const {
    return has_store_ || !x.stdout_file.empty() || !x.stderr_file.empty()
           || (x.console && outlets_.has_console(log_stream::out));
  }

  void post(std::function<void()> f);
  void post_event(std::string id, log_stream severity, std::string text);

  void attach(log_attachment& x);
  void reopen();
  void stop(bool for_successor);

private:
  // What both streams of a life are looked through for, until it was found.
  struct awaited_line {
    text_pattern pattern;
    std::function<void()> on_match;
    bool found = false;
  };

  struct stream {
    std::string id;
    log_stream kind = log_stream::out;
    unique_fd pipe;
    int pipe_bytes = 0;
    std::shared_ptr<void> lease;
    log_store::source* source = nullptr;
    log_outlets::choice outlets;
    line_blocks lines;                      // for the outlets
    std::shared_ptr<awaited_line> awaited;  // null: nobody waits
    std::shared_ptr<log_losses> losses;
    log_loss unsaid;
    bool skip_line = false;  // its beginning was lost
    bool ended = false;

    // Whether its bytes are needed besides in the store.
    [[nodiscard]] bool looked_at() const {
      return outlets.any() || awaited != nullptr;
    }
  };

  // -- the thread -------------------------------------------------------------

  void run();
  void round();
  void run_posted();
  void run_due();
  void do_due();
  int timeout_ms();
  void on_time();
  void coalesce();
  void take_all(stream& x);
  void finish();

  // -- streams ----------------------------------------------------------------

  void add(const log_attachment& x, log_stream kind, unique_fd& pipe,
           const std::string& path, std::shared_ptr<awaited_line> awaited);
  std::size_t turn(stream& x);
  std::size_t take_turn(stream& x);
  std::size_t drop(stream& x);
  std::size_t store(stream& x, std::size_t ready);
  std::size_t read_past_store(stream& x, std::size_t ready);
  std::size_t discard(stream& x, std::size_t ready);
  void enlarge(stream& x, std::size_t ready);
  void end(stream& x);
  void forget_ended();

  // -- where it goes ----------------------------------------------------------

  void pass_on(stream& x, std::string_view bytes);
  void write_lines(stream& x, std::string_view lines);
  void look_at_begun(stream& x);
  void look_for(awaited_line& wanted, std::string_view lines);
  void write_event(const std::string& id, log_stream severity,
                   const std::string& text);
  bool say_losses();
  void compress(const std::string& path, std::function<void()> then);

  void refresh_now() {
    now_ = std::chrono::system_clock::now();
  }

  log_options options_;
  bool has_store_;
  unique_fd epoll_;
  unique_fd wake_;
  unique_fd nowhere_;
  log_outlets outlets_;

  std::mutex mutex_;  // of what follows, for the length of a push or a swap
  std::vector<std::function<void()>> posted_;
  std::size_t waiting_events_ = 0;
  std::uint64_t dropped_events_ = 0;

  // The thread's own.
  std::optional<log_store> store_;
  std::vector<std::function<void()>> due_;  // posted, and not done yet
  std::size_t next_due_ = 0;
  std::list<stream> streams_;
  std::unordered_multimap<std::string_view, stream*> by_id_;
  bool some_ended_ = false;
  bool any_loss_ = false;
  bool ending_ = false;
  bool succeeded_ = false;  // somebody goes on with the pipes
  time_point now_;
  steady::time_point last_round_;
  std::size_t round_bytes_ = 0;
  std::array<char, buffer_bytes> buffer_{};

  std::optional<log_archiver> archiver_;  // goes before all it reports to
  std::thread thread_;
};

// -- the thread ---------------------------------------------------------------

log_sink::impl::impl(log_options options)
    : options_(std::move(options)),
      has_store_(!options_.folder.empty()
                 && options_.logger.internal_log.count() > 0),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      nowhere_(::open("/dev/null", O_WRONLY | O_CLOEXEC)),
      outlets_(options_.logger, options_.console_out, options_.console_err,
               epoll_.get(),
               [this](const std::string& path, std::function<void()> then) {
                 compress(path, std::move(then));
               }) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = &wake_;
  if (!epoll_ || !wake_
      || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0)
    throw std::system_error{errno, std::system_category(),
                            "what the log waits with"};
  thread_ = std::thread{[this] { run(); }};
}

log_sink::impl::~impl() {
  stop(false);
  archiver_.reset();
}

void log_sink::impl::stop(bool for_successor) {
  if (!thread_.joinable())
    return;
  post([this, for_successor] {
    ending_ = true;
    succeeded_ = for_successor;
  });
  thread_.join();
}

void log_sink::impl::post(std::function<void()> f) {
  {
    const std::lock_guard guard{mutex_};
    posted_.push_back(std::move(f));
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto woken = ::write(wake_.get(), &one, sizeof(one));
}

void log_sink::impl::run() {
  sigset_t all;
  sigfillset(&all);  // signals belong to other threads
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  ::pthread_setname_np(::pthread_self(), "pup-log");
  refresh_now();
  if (has_store_) {
    store_.emplace(options_.folder,
                   log_store_rules{options_.logger.internal_log,
                                   options_.logger.internal_log_bytes},
                   now_);
    if (options_.logger.compress)
      store_->on_full([this](const std::string& path) {
        compress(path, [this, path] { store_->resized(path); });
      });
  }
  while (!ending_) {
    try {
      round();
    } catch (const std::bad_alloc&) {
      std::this_thread::sleep_for(memory_pause);
    }
  }
  try {
    finish();
  } catch (const std::bad_alloc&) {
    // What is in the pipes is lost with us.
  }
}

void log_sink::impl::round() {
  std::array<epoll_event, 64> events{};
  const auto count =
      ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                   timeout_ms());
  refresh_now();
  round_bytes_ = 0;
  const auto end = events.begin() + std::max(count, 0);
  const auto is_posted = [this](const epoll_event& x) {
    return x.data.ptr == &wake_;
  };
  // First what was asked: it is older than what is written afterwards.
  if (std::any_of(events.begin(), end, is_posted))
    run_posted();
  for (auto i = events.begin(); i != end; ++i) {
    if (is_posted(*i) || outlets_.on_event(i->data.ptr))
      continue;
    if (auto& x = *static_cast<stream*>(i->data.ptr); !x.ended)
      round_bytes_ += turn(x);
  }
  if (next_due_ < due_.size())
    run_due();
  forget_ended();
  on_time();
  coalesce();
}

void log_sink::impl::run_posted() {
  std::uint64_t ignored = 0;
  [[maybe_unused]] const auto size =
      ::read(wake_.get(), &ignored, sizeof(ignored));
  run_due();
}

void log_sink::impl::run_due() {
  do_due();
  {
    const std::lock_guard guard{mutex_};
    due_.swap(posted_);
  }
  do_due();
}

// What there is no memory for stays due: a pipe that is let go ends its
// process. What is done is let go at once: it may hold the lease of a stream
// that has ended, and nothing else may be posted for long.
void log_sink::impl::do_due() {
  while (next_due_ < due_.size()) {
    due_[next_due_]();
    ++next_due_;
  }
  due_.clear();
  next_due_ = 0;
}

int log_sink::impl::timeout_ms() {
  auto wait = std::chrono::milliseconds::max();
  const auto now = std::chrono::system_clock::now();
  if (any_loss_ || outlets_.any_loss() || next_due_ < due_.size())
    wait = log_store::retry_pause;
  if (store_)
    if (const auto expiry = store_->next_expiry())
      wait = std::min(
          wait, std::chrono::ceil<std::chrono::milliseconds>(*expiry - now));
  if (wait == std::chrono::milliseconds::max())
    return -1;
  constexpr std::chrono::milliseconds day = std::chrono::hours{24};
  return static_cast<int>(
      std::clamp(wait, std::chrono::milliseconds{0}, day).count());
}

void log_sink::impl::on_time() {
  if ((any_loss_ || outlets_.any_loss()) && (!store_ || store_->usable(now_)))
    any_loss_ = !say_losses();
  if (store_)
    if (const auto expiry = store_->next_expiry(); expiry && *expiry <= now_)
      store_->expire(now_);
}

// Programs that flush after each line would cost a wake-up and three system
// calls for each; in the pause their lines gather in the pipe.
void log_sink::impl::coalesce() {
  const auto now = steady::now();
  const bool often = now - last_round_ < coalescing_pause;
  if (often && round_bytes_ > 0 && round_bytes_ < buffer_bytes / 2) {
    std::this_thread::sleep_for(coalescing_pause);
    last_round_ = steady::now();
  } else {
    last_round_ = now;
  }
}

// What is in its pipe now; what comes meanwhile need not be.
void log_sink::impl::take_all(stream& x) {
  for (std::size_t taken = 0, n = 1;
       !x.ended && n > 0 && taken < large_pipe_bytes; taken += n)
    n = turn(x);
}

void log_sink::impl::finish() {
  refresh_now();
  for (auto& x : streams_) {
    take_all(x);
    if (!x.ended)
      end(x);
  }
  static_cast<void>(say_losses());
  forget_ended();
  outlets_.finish();
}

// -- streams ------------------------------------------------------------------

// What has been taken from `x` is not taken again: it may be tried twice.
void log_sink::impl::attach(log_attachment& x) {
  refresh_now();
  const auto& output = x.output;
  std::shared_ptr<awaited_line> awaited;
  if (!x.awaited_pattern.empty()) {
    auto parsed = text_pattern::parse(x.awaited_pattern);
    if (auto* pattern = std::get_if<text_pattern>(&parsed))
      awaited = std::make_shared<awaited_line>(
          awaited_line{std::move(*pattern), x.on_match});
  }
  add(x, log_stream::out, x.out, output.stdout_file, awaited);
  add(x, log_stream::err, x.err,
      output.stderr_file.empty() ? output.stdout_file : output.stderr_file,
      awaited);
}

void log_sink::impl::add(const log_attachment& from, log_stream kind,
                         unique_fd& pipe, const std::string& path,
                         std::shared_ptr<awaited_line> awaited) {
  if (!pipe)
    return;
  // Complete, or not there at all, should memory run out on the way.
  std::list<stream> fresh(1);
  auto& x = fresh.front();
  x.id = from.id;
  x.kind = kind;
  x.lease = from.lease;
  x.outlets.console = from.output.console && outlets_.has_console(kind);
  x.outlets.decorate_files = from.output.decorate_files;
  x.outlets.json = from.output.json;
  x.losses = from.losses;
  x.awaited = std::move(awaited);
  if (store_)
    x.source = store_->open(x.id, kind, from.resumed);
  if (!path.empty())
    x.outlets.to = outlets_.open(path, from.user);
  if (x.source != nullptr && x.looked_at())
    x.lines.resume(log_store::take_begun(*x.source));
  look_at_begun(x);
  x.pipe = std::move(pipe);
  x.pipe_bytes = ::fcntl(x.pipe.get(), F_GETPIPE_SZ);
  by_id_.emplace(x.id, &x);
  streams_.splice(streams_.end(), fresh);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = &x;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, x.pipe.get(), &event) != 0) {
    write_event(x.id, log_stream::error,
                "its " + std::string{stream_name(kind)}
                    + " is not kept: " + std::system_category().message(errno));
    end(x);
  }
}

// Takes what is ready, up to a bound. Returns how much that was.
std::size_t log_sink::impl::turn(stream& x) {
  try {
    return take_turn(x);
  } catch (const std::bad_alloc&) {
    return drop(x);
  }
}

// There is no memory for it: no process waits for that to change.
std::size_t log_sink::impl::drop(stream& x) {
  const auto n =
      x.ended ? 0 : ::read(x.pipe.get(), buffer_.data(), buffer_.size());
  if (n <= 0)
    return 0;
  const std::string_view lost{buffer_.data(), static_cast<std::size_t>(n)};
  x.unsaid.add(lost, ENOMEM, now_, x.losses.get());
  x.skip_line = lost.back() != '\n';
  any_loss_ = true;
  return lost.size();
}

std::size_t log_sink::impl::take_turn(stream& x) {
  int ready = 0;
  if (::ioctl(x.pipe.get(), FIONREAD, &ready) != 0 || ready <= 0) {
    char c = 0;
    if (::read(x.pipe.get(), &c, 1) == 0)
      end(x);
    return 0;
  }
  const auto bytes = std::min(static_cast<std::size_t>(ready), turn_bytes);
  enlarge(x, bytes);
  if (x.awaited && x.awaited->found) {
    x.awaited.reset();
    if (!x.outlets.any())
      x.lines = {};
  }
  if (x.source == nullptr && !x.looked_at())
    return discard(x, bytes);
  if (x.source == nullptr || x.skip_line || x.unsaid.any()
      || !store_->usable(now_))
    return read_past_store(x, bytes);
  return store(x, bytes);
}

std::size_t log_sink::impl::store(stream& x, std::size_t ready) {
  const auto taken = store_->take_from(*x.source, x.pipe.get(), ready, now_);
  if (x.looked_at()) {
    for (std::size_t done = 0; done < taken.bytes;) {
      const auto n = ::pread(store_->file(), buffer_.data(),
                             std::min(buffer_.size(), taken.bytes - done),
                             taken.offset + static_cast<std::int64_t>(done));
      if (n <= 0)
        break;
      pass_on(x, {buffer_.data(), static_cast<std::size_t>(n)});
      done += static_cast<std::size_t>(n);
    }
  }
  if (taken.error == 0)
    return taken.bytes;
  return taken.bytes + read_past_store(x, ready - taken.bytes);
}

// There is no store, or it has taken nothing for a while: its lines go on from
// the next whole one.
std::size_t log_sink::impl::read_past_store(stream& x, std::size_t ready) {
  if (ready == 0)
    return 0;
  const auto n =
      ::read(x.pipe.get(), buffer_.data(), std::min(ready, buffer_.size()));
  if (n <= 0)
    return 0;
  const std::string_view bytes{buffer_.data(), static_cast<std::size_t>(n)};
  auto rest = bytes;
  if (x.source != nullptr && x.skip_line) {
    const auto end = std::min(rest.find('\n'), rest.size() - 1) + 1;
    const auto lost = rest.substr(0, end);
    x.unsaid.add(lost, store_->trouble(), now_, x.losses.get());
    x.skip_line = lost.back() != '\n';
    rest.remove_prefix(end);
  }
  if (x.source != nullptr && !rest.empty()) {
    // What is lost is said before what comes after it.
    const bool usable = store_->usable(now_);
    if (usable && x.unsaid.any())
      say_losses();
    const auto taken = store_->take(*x.source, rest, now_);
    if (taken.error != 0) {
      x.unsaid.add(rest, taken.error, now_, x.losses.get());
      x.skip_line = rest.back() != '\n';
      store_->break_line(*x.source);
    }
  }
  any_loss_ = any_loss_ || x.unsaid.any();
  pass_on(x, bytes);
  return bytes.size();
}

// Only readiness was looked for in it, and that is over.
std::size_t log_sink::impl::discard(stream& x, std::size_t ready) {
  const auto n = ::splice(x.pipe.get(), nullptr, nowhere_.get(), nullptr, ready,
                          SPLICE_F_NONBLOCK);
  return n > 0 ? static_cast<std::size_t>(n) : read_past_store(x, ready);
}

void log_sink::impl::enlarge(stream& x, std::size_t ready) {
  if (x.pipe_bytes >= large_pipe_bytes
      || ready < static_cast<std::size_t>(x.pipe_bytes) / 4 * 3)
    return;
  const auto got = ::fcntl(x.pipe.get(), F_SETPIPE_SZ, large_pipe_bytes);
  // Refused (fs.pipe-user-pages-soft): as it is, then, and no more asking.
  x.pipe_bytes = std::max(got, large_pipe_bytes);
}

void log_sink::impl::end(stream& x) {
  // A process that has closed it, or ended, does not become ready by that.
  x.awaited.reset();
  // A successor finds the beginning of the line in the store.
  if (!succeeded_ || x.source == nullptr || x.skip_line || x.unsaid.any())
    x.lines.finish([&](std::string_view lines) { write_lines(x, lines); });
  if (x.unsaid.any() && store_ && store_->usable(now_))
    say_losses();
  if (x.source != nullptr && !succeeded_)
    store_->close(x.source, now_);
  x.source = nullptr;
  x.ended = true;
  // By hand: another process may hold a copy of the pipe, and then closing ours
  // alone would not end the events.
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, x.pipe.get(), nullptr);
  x.pipe.reset();
  x.lease.reset();
  some_ended_ = true;
}

void log_sink::impl::forget_ended() {
  if (!some_ended_)
    return;
  some_ended_ = false;
  for (auto i = streams_.begin(); i != streams_.end();) {
    // One that has lost something stays until that is said.
    if (!i->ended || i->unsaid.any()) {
      some_ended_ = some_ended_ || i->ended;
      ++i;
      continue;
    }
    if (i->outlets.to != nullptr)
      outlets_.release(i->outlets.to);
    const auto [first, last] = by_id_.equal_range(i->id);
    by_id_.erase(std::find_if(first, last,
                              [&](const auto& x) { return x.second == &*i; }));
    i = streams_.erase(i);
  }
}

// -- where it goes ------------------------------------------------------------

void log_sink::impl::pass_on(stream& x, std::string_view bytes) {
  if (x.looked_at())
    x.lines.feed(bytes, [&](std::string_view lines) { write_lines(x, lines); });
  look_at_begun(x);
}

void log_sink::impl::look_at_begun(stream& x) {
  const auto line = x.lines.begun();
  if (x.awaited && !x.awaited->found && !line.empty()
      && line.size() <= most_begun_bytes)
    look_for(*x.awaited, line);
}

void log_sink::impl::write_lines(stream& x, std::string_view lines) {
  if (x.outlets.any())
    outlets_.write(x.outlets, x.id, x.kind, lines, now_, x.losses.get());
  if (x.awaited && !x.awaited->found)
    look_for(*x.awaited, lines);
}

void log_sink::impl::look_for(awaited_line& wanted, std::string_view lines) {
  std::string scratch;
  while (!lines.empty()) {
    const auto end = std::min(lines.find('\n'), lines.size());
    auto line = without_escapes(lines.substr(0, end), escapes::strip, scratch);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    if (line.ends_with('\r'))
      line.remove_suffix(1);
    if (!wanted.pattern.matches(line))
      continue;
    wanted.found = true;
    return wanted.on_match();
  }
}

void log_sink::impl::post_event(std::string id, log_stream severity,
                                std::string text) {
  {
    const std::lock_guard guard{mutex_};
    if (waiting_events_ >= most_waiting_events) {
      ++dropped_events_;
      return;
    }
    ++waiting_events_;
  }
  post([this, id = std::move(id), severity, text = std::move(text)] {
    refresh_now();
    const auto [first, last] = by_id_.equal_range(id);
    for (auto i = first; i != last; ++i)
      take_all(*i->second);
    write_event(id, severity, text);
    std::uint64_t dropped = 0;
    {
      const std::lock_guard guard{mutex_};
      --waiting_events_;
      if (waiting_events_ == 0)
        dropped = std::exchange(dropped_events_, 0);
    }
    if (dropped > 0)
      write_event("pup", log_stream::warn,
                  std::to_string(dropped) + " events were too many to log");
  });
}

void log_sink::impl::write_event(const std::string& id, log_stream severity,
                                 const std::string& text) {
  auto line = text;
  std::replace(line.begin(), line.end(), '\n', ' ');
  line.resize(std::min(line.size(), buffer_bytes - 1));
  line += '\n';
  if (store_) {
    auto* const source = store_->open(id, severity);
    static_cast<void>(store_->take(*source, line, now_));
    store_->close(source, now_);
  }
  log_outlets::choice to;
  to.console = options_.logger.output.console;
  to.json = options_.logger.output.json;
  outlets_.write(to, id, severity, line, now_, nullptr);
}

// True when everything that was lost has been told.
bool log_sink::impl::say_losses() {
  bool all = true;
  const auto say = [this](const std::string& id, const std::string& text) {
    if (!store_)
      return true;  // the counts have to do
    auto* const source = store_->open(id, log_stream::error);
    const auto put = store_->take(*source, text + '\n', now_);
    store_->close(source, now_);
    return put.error == 0;
  };
  for (auto& x : streams_) {
    if (!x.unsaid.any())
      continue;
    if (say(x.id, x.unsaid.text(stream_name(x.kind))))
      x.unsaid = {};
    else
      all = false;
  }
  outlets_.say_losses(say);
  return all;
}

void log_sink::impl::compress(const std::string& path,
                              std::function<void()> then) {
  if (!archiver_)
    archiver_.emplace();
  archiver_->compress(path, [this, then = std::move(then)](int error) {
    if (error == 0)
      post(then);
  });
}

void log_sink::impl::reopen() {
  outlets_.reopen();
}

// -- the public face ----------------------------------------------------------

log_sink::log_sink(log_options options)
    : impl_(std::make_unique<impl>(std::move(options))) {}

log_sink::~log_sink() = default;

void log_sink::leave() {
  impl_->stop(true);
}

bool log_sink::wants(const output_spec& output) const {
  return impl_->wants(output);
}

void log_sink::attach(log_attachment x) {
  // std::function copies what it holds.
  auto shared = std::make_shared<log_attachment>(std::move(x));
  impl_->post([to = impl_.get(), shared] { to->attach(*shared); });
}

void log_sink::event(std::string id, log_stream severity, std::string text) {
  impl_->post_event(std::move(id), severity, std::move(text));
}

void log_sink::reopen() {
  impl_->post([to = impl_.get()] { to->reopen(); });
}

}  // namespace pup
