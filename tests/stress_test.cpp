// Correctness under stress: a thousand connections at a time through several
// shards, while backends are killed, drained, added and sets published. Every
// byte is checked, and every connection that fails must be one that a killed
// backend had.
//
// The seed is printed; PUP_STRESS_SEED=… repeats the decisions of a run.
#include "catch.hpp"
#include "loopback.hpp"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

using namespace loopback;

namespace {

constexpr int callers_at_once = 1000;
constexpr auto duration = 5s;
/// Bytes that a backend's connection holds before it reads no more.
constexpr std::size_t most_pending = 256 * 1024;

void set_non_blocking(int fd) {
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
}

bool would_wait() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/// What all connections send, each from another place on.
const std::string& noise() {
  static const auto result = random_bytes(1 << 20, 7);
  return result;
}

std::string_view noise_at(std::uint64_t offset, std::size_t most) {
  const auto begin = offset % noise().size();
  return std::string_view(noise()).substr(begin, most);
}

// -- backend ------------------------------------------------------------------

/// Says which life it is (8 bytes), then echoes, and closes after the end.
class backend_process {
public:
  explicit backend_process(std::uint64_t life)
      : life_(life),
        listener_(listening()),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        wake_(::eventfd(0, EFD_CLOEXEC)) {
    set_non_blocking(listener_.get());
    watch(EPOLL_CTL_ADD, listener_.get(), EPOLLIN);
    watch(EPOLL_CTL_ADD, wake_.get(), EPOLLIN);
    thread_ = std::thread([this] { run(); });
  }

  /// As SIGKILL does: everything is reset.
  ~backend_process() {
    const std::uint64_t one = 1;
    (void)!::write(wake_.get(), &one, sizeof one);
    thread_.join();
    for (auto& [fd, x] : peers_)
      reset(x.fd);
  }

  [[nodiscard]] std::uint16_t port() const {
    return port_of(listener_);
  }

  [[nodiscard]] std::size_t connections() const {
    return connections_;
  }

private:
  struct peer {
    unique_fd fd;
    std::string pending;
    bool end_seen = false;
    std::uint32_t events = EPOLLIN | EPOLLOUT;
  };

  void watch(int what, int fd, std::uint32_t events) const {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    ::epoll_ctl(epoll_.get(), what, fd, &event);
  }

  void run() {
    for (;;) {
      epoll_event events[64];
      const int n = ::epoll_wait(epoll_.get(), events, 64, -1);
      for (int i = 0; i < n; ++i) {
        const int fd = events[i].data.fd;
        if (fd == wake_.get())
          return;
        if (fd == listener_.get())
          accept_all();
        else if (const auto x = peers_.find(fd);
                 x != peers_.end() && !serve(x->second))
          peers_.erase(x);
      }
      connections_ = peers_.size();
    }
  }

  void accept_all() {
    for (;;) {
      unique_fd fd(::accept4(listener_.get(), nullptr, nullptr,
                             SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!fd)
        return;
      // Served in its turn: clients whose wishes are granted here come again at
      // once, and on a slow machine this would never come to an end.
      const int number = fd.get();
      auto& x = peers_[number];
      x.fd = std::move(fd);
      x.pending.assign(reinterpret_cast<const char*>(&life_), sizeof life_);
      watch(EPOLL_CTL_ADD, number, x.events);
    }
  }

  bool serve(peer& x) {
    static thread_local std::vector<char> buffer(64 * 1024);
    while (!x.end_seen && x.pending.size() < most_pending) {
      const auto n = ::recv(x.fd.get(), buffer.data(), buffer.size(), 0);
      if (n < 0 && would_wait())
        break;
      if (n < 0)
        return false;
      x.end_seen = n == 0;
      x.pending.append(buffer.data(), static_cast<std::size_t>(n));
    }
    while (!x.pending.empty()) {
      const auto n =
          ::send(x.fd.get(), x.pending.data(), x.pending.size(), MSG_NOSIGNAL);
      if (n < 0 && would_wait())
        break;
      if (n < 0)
        return false;
      x.pending.erase(0, static_cast<std::size_t>(n));
    }
    if (x.end_seen && x.pending.empty())
      return false;
    std::uint32_t wanted = x.pending.empty() ? 0u : std::uint32_t{EPOLLOUT};
    if (!x.end_seen && x.pending.size() < most_pending)
      wanted |= EPOLLIN;
    if (std::exchange(x.events, wanted) != wanted)
      watch(EPOLL_CTL_MOD, x.fd.get(), wanted);
    return true;
  }

  const std::uint64_t life_;
  unique_fd listener_;
  unique_fd epoll_;
  unique_fd wake_;
  std::map<int, peer> peers_;
  std::atomic<std::size_t> connections_{0};
  std::thread thread_;
};

// -- clients ------------------------------------------------------------------

using test_clock = std::chrono::steady_clock;

/// What the whole test knows about losses.
class ledger {
public:
  /// A kill takes a while; whoever is given to that life until its end is lost.
  void kill_begins(std::uint64_t life) {
    const std::lock_guard lock(mutex_);
    killed_.insert(life);
    killing_ = true;
  }

  void kill_ended() {
    const std::lock_guard lock(mutex_);
    killing_ = false;
    last_kill_ = test_clock::now();
  }

  /// A connection that was begun then failed; `life` 0: it never knew whose.
  void failed(std::uint64_t life, test_clock::time_point begun,
              const char* how) {
    const int error = errno;
    const std::lock_guard lock(mutex_);
    const bool allowed =
        life != 0 ? killed_.count(life) != 0 : killing_ || last_kill_ >= begun;
    ++(allowed ? lost : wrongly_lost);
    if (!allowed)
      std::fprintf(stderr,
                   "lost: life %llu, %lld ms after the last kill, %lld ms ago:"
                   " %s (%s)\n",
                   static_cast<unsigned long long>(life),
                   ms(begun - last_kill_), ms(test_clock::now() - begun), how,
                   std::strerror(error));
  }

  std::atomic<int> done{0};
  std::atomic<int> lost{0};
  std::atomic<int> wrongly_lost{0};

private:
  static long long ms(test_clock::duration x) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(x).count();
  }

  std::mutex mutex_;
  std::set<std::uint64_t> killed_;
  bool killing_ = false;
  test_clock::time_point last_kill_{};
};

/// One connection: sends its part of the noise in random pieces with random
/// pauses, ends its sending, and reads the same back.
class caller {
public:
  caller(std::uint16_t port, std::uint64_t seed)
      : numbers_(seed), offset_(numbers_()), begun_(test_clock::now()) {
    const std::size_t sizes[] = {0, 1, 100, 5000, 70'000, 150'000, 600'000};
    size_ = sizes[numbers_() % 100 < 97 ? numbers_() % 6 : 6];
    size_ += size_ > 1 ? numbers_() % 1000 : 0;
    slow_reader_ = numbers_() % 8 == 0;
    fd_ = connected(port);
    set_non_blocking(fd_.get());
  }

  /// Returns whether it goes on.
  bool step(ledger& losses, test_clock::time_point now) {
    const char* fault = send_some(now);
    if (fault == nullptr)
      fault = read_some(now);
    if (fault != nullptr) {
      losses.failed(life_, begun_, fault);
      return false;
    }
    if (!end_read_)
      return true;
    ++losses.done;
    return false;
  }

  [[nodiscard]] pollfd wanted(test_clock::time_point now) const {
    short events = 0;
    if (now >= read_at_)
      events |= POLLIN;
    if (!end_sent_ && now >= send_at_)
      events |= POLLOUT;
    return {fd_.get(), events, 0};
  }

private:
  std::chrono::milliseconds pause() {
    return std::chrono::milliseconds(numbers_() % 4 == 0 ? numbers_() % 40 : 0);
  }

  const char* send_some(test_clock::time_point now) {
    if (end_sent_ || now < send_at_)
      return nullptr;
    if (sent_ == size_) {
      end_sending(fd_);
      end_sent_ = true;
      return nullptr;
    }
    const auto piece = noise_at(
        offset_ + sent_,
        std::min<std::size_t>(size_ - sent_, 1 + numbers_() % 100'000));
    const auto n = ::send(fd_.get(), piece.data(), piece.size(), MSG_NOSIGNAL);
    if (n < 0)
      return would_wait() ? nullptr : "send failed";
    sent_ += static_cast<std::size_t>(n);
    send_at_ = now + pause();
    return nullptr;
  }

  const char* read_some(test_clock::time_point now) {
    if (now < read_at_)
      return nullptr;
    static thread_local std::vector<char> buffer(64 * 1024);
    const auto n = ::recv(fd_.get(), buffer.data(),
                          slow_reader_ ? 16'384 : buffer.size(), 0);
    if (n < 0)
      return would_wait() ? nullptr : "receive failed";
    if (n == 0) {
      end_read_ = true;
      if (greeting_.size() < sizeof life_)
        return "end before the greeting";
      return read_ == size_ ? nullptr : "end too early";
    }
    std::string_view got(buffer.data(), static_cast<std::size_t>(n));
    const auto missing = sizeof life_ - greeting_.size();
    if (missing > 0) {
      greeting_ += got.substr(0, missing);
      got.remove_prefix(std::min(missing, got.size()));
      if (greeting_.size() == sizeof life_)
        std::memcpy(&life_, greeting_.data(), sizeof life_);
    }
    while (!got.empty()) {
      const auto expected = noise_at(offset_ + read_, got.size());
      if (got.substr(0, expected.size()) != expected || read_ >= sent_)
        return wrong_bytes;
      read_ += expected.size();
      got.remove_prefix(expected.size());
    }
    if (slow_reader_)
      read_at_ = now + pause();
    return nullptr;
  }

  static constexpr const char* wrong_bytes = "wrong bytes";

  std::mt19937_64 numbers_;
  std::uint64_t offset_;
  test_clock::time_point begun_;
  std::size_t size_ = 0;
  std::size_t sent_ = 0;
  std::size_t read_ = 0;
  std::string greeting_;
  std::uint64_t life_ = 0;
  bool slow_reader_ = false;
  bool end_sent_ = false;
  bool end_read_ = false;
  test_clock::time_point send_at_{};
  test_clock::time_point read_at_{};
  unique_fd fd_;
};

void call(std::uint16_t port, std::uint64_t seed, int count, ledger& losses,
          const std::atomic<bool>& stop) {
  std::mt19937_64 numbers(seed);
  std::vector<std::unique_ptr<caller>> callers;
  std::vector<pollfd> waiting;
  const auto give_up = test_clock::now() + duration + 2 * patience;
  while (!stop || !callers.empty()) {
    for (int i = 0; !stop && i < 50 && std::ssize(callers) < count; ++i)
      callers.push_back(std::make_unique<caller>(port, numbers()));
    auto now = test_clock::now();
    if (now > give_up) {
      for (std::size_t i = 0; i < callers.size(); ++i)
        ++losses.wrongly_lost;
      std::fprintf(stderr, "hung: %zu connections\n", callers.size());
      return;
    }
    waiting.clear();
    for (auto& x : callers)
      waiting.push_back(x->wanted(now));
    // Pauses are whole milliseconds.
    ::poll(waiting.data(), waiting.size(), 1);
    now = test_clock::now();
    std::size_t i = 0;
    std::erase_if(callers, [&](auto& x) {
      return waiting[i++].revents != 0 && !x->step(losses, now);
    });
  }
}

// -- the supervisor's part ----------------------------------------------------

/// Kills, drains, adds, publishes: at random, but at least two always serve.
class chaos {
public:
  chaos(fixture& f, ledger& losses, std::uint64_t seed)
      : f_(f), losses_(losses), numbers_(seed) {
    for (int i = 0; i < 4; ++i)
      add();
    publish();
  }

  void act() {
    forget_drained();
    const auto serving = std::count_if(
        slots_.begin(), slots_.end(),
        [](const auto& x) { return x.second.process && !x.second.drain; });
    const auto what = numbers_() % 20;
    if (what == 0 && serving > 2)
      kill(pick());
    else if (what < 4 && serving > 2)
      drain(pick());
    else if (what < 6)
      slots_[pick()].drain = 0;
    else if (what < 10 && slots_.size() < 6)
      add();
    else if (what < 14)
      std::erase_if(slots_, [](const auto& x) { return !x.second.process; });
    publish();
  }

  [[nodiscard]] int kills() const {
    return kills_;
  }
  [[nodiscard]] int drains() const {
    return drains_;
  }
  [[nodiscard]] bool drained_had_connections() const {
    return drained_had_connections_;
  }

private:
  struct slot {
    std::uint64_t life = 0;
    std::uint16_t port = 0;
    /// None: dead, and not withdrawn yet.
    std::unique_ptr<backend_process> process;
    std::uint64_t drain = 0;
  };

  std::uint32_t pick() {
    return std::next(slots_.begin(),
                     static_cast<std::ptrdiff_t>(numbers_() % slots_.size()))
        ->first;
  }

  void add() {
    std::uint32_t number = 1;
    while (slots_.count(number) != 0)
      ++number;
    auto& x = slots_[number];
    x.life = ++last_life_;
    x.process = std::make_unique<backend_process>(x.life);
    x.port = x.process->port();
  }

  void kill(std::uint32_t number) {
    auto& x = slots_[number];
    if (!x.process || x.drain != 0)
      return;
    losses_.kill_begins(x.life);
    x.process.reset();
    losses_.kill_ended();
    ++kills_;
  }

  void drain(std::uint32_t number) {
    auto& x = slots_[number];
    if (x.process && x.drain == 0)
      x.drain = ++last_drain_;
  }

  /// A drain that is over means that no connection is left to lose.
  void forget_drained() {
    const auto facts = f_.facts.all();
    for (; facts_seen_ < facts.size(); ++facts_seen_) {
      const auto* x = std::get_if<drained>(&facts[facts_seen_]);
      const auto found = x ? slots_.find(x->slot) : slots_.end();
      if (found == slots_.end() || found->second.life != x->life
          || found->second.drain != x->drain)
        continue;
      auto& process = *found->second.process;
      for (const auto& b : f_.totals().backends)
        if (b.slot == x->slot && b.life == x->life && b.active != 0)
          drained_had_connections_ = true;
      // It hears of the last end a little later.
      if (!eventually([&process] { return process.connections() == 0; }))
        drained_had_connections_ = true;
      slots_.erase(found);
      ++drains_;
    }
  }

  void publish() {
    std::vector<backend> set;
    for (auto& [number, x] : slots_)
      set.push_back(
          {number, x.life, loopback_v4(x.port), x.drain != 0, x.drain});
    f_.balancer.publish("app", std::move(set));
  }

  fixture& f_;
  ledger& losses_;
  std::mt19937_64 numbers_;
  std::map<std::uint32_t, slot> slots_;
  std::uint64_t last_life_ = 0;
  std::uint64_t last_drain_ = 0;
  std::size_t facts_seen_ = 0;
  int kills_ = 0;
  int drains_ = 0;
  bool drained_had_connections_ = false;
};

std::uint64_t chosen_seed() {
  if (const char* text = std::getenv("PUP_STRESS_SEED"))
    return std::strtoull(text, nullptr, 10);
  return std::random_device{}();
}

}  // namespace

TEST_CASE("every byte arrives, and only what a killed backend had is lost") {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 16'384);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  REQUIRE(limit.rlim_cur > 5 * callers_at_once);

  const auto seed = chosen_seed();
  std::printf("PUP_STRESS_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  std::mt19937_64 numbers(seed);
  listener_options options;
  options.strategy = static_cast<balance_strategy>(numbers() % 5);
  options.connect_timeout = 60s;
  fixture f(options, 2 + static_cast<unsigned>(numbers() % 2));
  ledger losses;
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  {
    chaos supervisor(f, losses, numbers());
    for (int i = 0; i < 2; ++i)
      threads.emplace_back([&, own = numbers()] {
        call(f.port, own, callers_at_once / 2, losses, stop);
      });
    const auto end = test_clock::now() + duration;
    // At the pace of a busy supervisor, not as fast as possible: connections
    // are to have a life between two events.
    const auto enough = [&] {
      return supervisor.kills() > 0 && supervisor.drains() > 0
             && losses.done > callers_at_once;
    };
    for (auto now = test_clock::now();
         now < end || (!enough() && now < end + patience);
         now = test_clock::now()) {
      supervisor.act();
      std::this_thread::sleep_for(5ms);
    }
    stop = true;
    for (auto& x : threads)
      x.join();
    CHECK(losses.wrongly_lost == 0);
    CHECK(losses.done > callers_at_once);
    CHECK(supervisor.kills() > 0);
    CHECK(supervisor.drains() > 0);
    CHECK_FALSE(supervisor.drained_had_connections());
    std::printf("%d done, %d lost, %d kills, %d drains\n", losses.done.load(),
                losses.lost.load(), supervisor.kills(), supervisor.drains());
    CHECK(f.active_is(0));
    CHECK(f.totals().rejected == 0);
    CHECK(eventually([&] { return f.totals().queued == 0; }));
    for (auto& x : f.totals().backends)
      CHECK(x.active == 0);
  }
}
