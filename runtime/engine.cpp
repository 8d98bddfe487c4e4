#include "pup/runtime/engine.hpp"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

namespace pup {
namespace {

using namespace std::chrono_literals;

/// Connections accepted before other events get their turn.
constexpr int accepts_in_a_row = 64;
/// Buffers or pipes moved for one way before other events get their turn.
constexpr int moves_in_a_row = 16;
/// Batches of events handled before the loop's other work gets its turn.
constexpr int batches_in_a_row = 8;
constexpr int events_in_a_batch = 256;
/// How long accepting pauses when descriptors or memory are short.
constexpr auto resource_pause = 100ms;
/// Idle connections are looked for this often within one idle timeout, so one
/// is closed after 1 to 1.125 times the timeout.
constexpr std::uint8_t idle_ticks = 8;
/// Full buffers in a row that make a way bulky, and reads that find nothing
/// that make it small again.
constexpr std::uint8_t bulky_after = 2;
constexpr std::uint8_t small_after = 8;

constexpr std::uint8_t kind_listener = 2;
constexpr std::uint32_t readable_events = EPOLLIN | EPOLLRDHUP | EPOLLET;

void set_option(int fd, int level, int name, int value) noexcept {
  // Options only save time; a kernel without one of them works as well.
  (void)::setsockopt(fd, level, name, &value, sizeof value);
}

void set_congestion(int fd, const std::string& name) noexcept {
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(),
                     static_cast<socklen_t>(name.size()));
}

std::string congestion_of(int fd) {
  char name[32] = {};
  socklen_t length = sizeof name - 1;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length) != 0)
    return {};
  return name;
}

ip_address address_of(const sockaddr_storage& from) noexcept {
  ip_address result;
  if (from.ss_family == AF_INET6) {
    sockaddr_in6 in{};
    std::memcpy(&in, &from, sizeof in);
    result.v6 = true;
    std::memcpy(result.bytes.data(), &in.sin6_addr, 16);
    return unmapped(result);
  }
  sockaddr_in in{};
  std::memcpy(&in, &from, sizeof in);
  std::memcpy(result.bytes.data(), &in.sin_addr, 4);
  return result;
}

int connect_to(int fd, const endpoint& target) noexcept {
  if (target.address.v6) {
    sockaddr_in6 to{};
    to.sin6_family = AF_INET6;
    to.sin6_port = htons(target.port);
    std::memcpy(&to.sin6_addr, target.address.bytes.data(), 16);
    return ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to);
  }
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(target.port);
  std::memcpy(&to.sin_addr, target.address.bytes.data(), 4);
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to);
}

bool would_block(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK;
}

bool short_of_resources(int error) noexcept {
  return error == EMFILE || error == ENFILE || error == ENOBUFS
         || error == ENOMEM;
}

/// One writer only, so no locked instruction is needed.
template <class T>
void add(std::atomic<T>& counter, T value) noexcept {
  counter.store(static_cast<T>(counter.load(std::memory_order_relaxed) + value),
                std::memory_order_relaxed);
}

struct pipe_ends {
  unique_fd out{};
  unique_fd in{};
};

}  // namespace

// -- backend_counters ---------------------------------------------------------

// Sequentially consistent: whoever comes second of "the last one ends" and
// "the drain begins" sees the other.

bool backend_counters::begin_drain() noexcept {
  auto expected = phase::serving;
  phase_.compare_exchange_strong(expected, phase::draining);
  return active.load() == 0 && claim_drained();
}

void backend_counters::end_drain() noexcept {
  phase_.store(phase::serving);
}

void backend_counters::count_up() noexcept {
  active.fetch_add(1);
  total.fetch_add(1, std::memory_order_relaxed);
}

bool backend_counters::count_down() noexcept {
  return active.fetch_sub(1) == 1 && claim_drained();
}

bool backend_counters::claim_drained() noexcept {
  auto expected = phase::draining;
  return phase_.compare_exchange_strong(expected, phase::drained);
}

// -- records ------------------------------------------------------------------

struct engine::way {
  pipe_ends pipe;
  std::unique_ptr<char[]> kept;
  std::uint32_t kept_begin = 0;
  std::uint32_t kept_end = 0;
  std::uint32_t in_pipe = 0;
  std::uint8_t full_reads = 0;
  std::uint8_t empty_reads = 0;
  bool readable : 1 = false;
  // FIN announced by epoll: what can be read is all there will be.
  bool end_announced : 1 = false;
  // FIN read.
  bool end_seen : 1 = false;
  bool end_forwarded : 1 = false;
  bool bulky : 1 = false;
  bool queued : 1 = false;

  [[nodiscard]] bool holds_bytes() const noexcept {
    return kept_end > kept_begin || in_pipe > 0;
  }
};

enum class phase : std::uint8_t { unplaced, connecting, open, parked };

struct engine::connection {
  // Stay with the record for ever.
  std::uint32_t index = 0;
  // Of this use of the record and of this attempt to connect: an event that
  // names another one is late and is dropped.
  std::uint16_t stamps[2] = {0, 0};

  phase at = phase::unplaced;
  bool used = false;
  // The backend has accepted.
  bool confirmed = false;
  // A byte or FIN went to or came from the backend: no other may serve.
  bool committed = false;
  bool failing = false;
  bool writable[2] = {true, true};
  // EPOLLOUT is asked for.
  bool armed[2] = {false, false};
  // Idle ticks since the last event.
  std::uint8_t quiet = 0;
  unique_fd fds[2]{unique_fd{}, unique_fd{}};
  way ways[2];
  listener* owner = nullptr;
  std::shared_ptr<backend_counters> served_by;
  // Only after a failure; most connections never have one.
  std::unique_ptr<std::vector<backend_id>> tried;
  connection* previous = nullptr;
  connection* next = nullptr;
  // Of the current attempt.
  clock::time_point deadline{};
  // When to stop looking for a backend.
  clock::time_point give_up_at{};
  ip_address client;
};

struct engine::connection_list {
  connection* first = nullptr;
  connection* last = nullptr;
  std::uint32_t size = 0;

  void push_back(connection& c) noexcept {
    c.previous = last;
    c.next = nullptr;
    (last ? last->next : first) = &c;
    last = &c;
    ++size;
  }

  void erase(connection& c) noexcept {
    (c.previous ? c.previous->next : first) = c.next;
    (c.next ? c.next->previous : last) = c.previous;
    c.previous = c.next = nullptr;
    --size;
  }
};

struct engine::listener {
  std::uint32_t index = 0;
  std::uint16_t stamp = 0;
  std::string key;
  unique_fd socket;
  bool accepting = false;
  bool forgotten = false;
  listener_limits limits;
  std::shared_ptr<listener_counters> counters;
  std::shared_ptr<const snapshot> backends;
  picker choose;
  picker::active_of active_of;
  connection_list connecting;
  connection_list open;
  connection_list parked;
  // Connections in no list at the moment included.
  std::uint32_t active = 0;
  std::optional<clock::time_point> idle_tick;

  explicit listener(picker::random_source random)
      : backends(std::make_shared<snapshot>()), choose(std::move(random)) {
    active_of = [this](std::size_t i) {
      return backends->counters[i]->active.load(std::memory_order_relaxed);
    };
  }

  connection_list& list_of(phase x) noexcept {
    assert(x != phase::unplaced);
    return x == phase::connecting ? connecting
           : x == phase::open     ? open
                                  : parked;
  }

  [[nodiscard]] std::chrono::milliseconds tick_period() const noexcept {
    return std::max<std::chrono::milliseconds>(limits.idle_timeout / idle_ticks,
                                               1ms);
  }
};

/// Records in chunks, so that addresses are stable, an index finds one and the
/// allocator's overhead is spread. Freed ones are reused, never returned.
class engine::record_pool {
public:
  connection& take() {
    if (free_.empty())
      grow();
    auto& c = at(free_.back());
    free_.pop_back();
    c.used = true;
    return c;
  }

  void give_back(connection& c) {
    const auto index = c.index;
    const std::uint16_t stamps[] = {c.stamps[0], c.stamps[1]};
    c = connection{};
    c.index = index;
    c.stamps[0] = static_cast<std::uint16_t>(stamps[0] + 1);
    c.stamps[1] = static_cast<std::uint16_t>(stamps[1] + 1);
    free_.push_back(index);
  }

  connection& at(std::uint32_t index) noexcept {
    return chunks_[index / chunk_size][index % chunk_size];
  }

private:
  static constexpr std::uint32_t chunk_size = 64;

  void grow() {
    static_assert(sizeof(connection) <= 256);
    const auto begin = static_cast<std::uint32_t>(chunks_.size()) * chunk_size;
    chunks_.push_back(std::make_unique<connection[]>(chunk_size));
    free_.reserve(begin + chunk_size);
    for (auto i = begin + chunk_size; i-- > begin;) {
      at(i).index = i;
      free_.push_back(i);
    }
  }

  std::vector<std::unique_ptr<connection[]>> chunks_;
  std::vector<std::uint32_t> free_;
};

/// A bulky way borrows a pipe while bytes are in it; an idle one holds none.
class engine::pipe_pool {
public:
  /// Without ends when the bound is reached or the kernel gives none: then
  /// bytes are copied.
  pipe_ends take() {
    if (!free_.empty()) {
      auto result = std::move(free_.back());
      free_.pop_back();
      return result;
    }
    if (pipes_ == bounds::pipes)
      return {};
    int fds[2];
    if (::pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0)
      return {};
    pipe_ends result{unique_fd(fds[0]), unique_fd(fds[1])};
    // 1 MiB halves the CPU time of several streams against 64 KiB. Beyond
    // the user's share of pipe pages the kernel grants less, or nothing: then
    // what a new pipe has must do.
    for (const int bytes : {1 << 20, 256 << 10, 64 << 10})
      if (::fcntl(result.in.get(), F_SETPIPE_SZ, bytes) >= 0)
        break;
    ++pipes_;
    return result;
  }

  void give_back(pipe_ends pipe, bool empty) {
    if (!pipe.in)
      return;
    if (empty)
      free_.push_back(std::move(pipe));
    else
      --pipes_;  // closed with what is in it
  }

private:
  std::vector<pipe_ends> free_;
  std::size_t pipes_ = 0;
};

// -- life ---------------------------------------------------------------------

namespace {

unique_fd make_epoll() {
  unique_fd result(::epoll_create1(EPOLL_CLOEXEC));
  if (!result)
    throw std::system_error(errno, std::generic_category(), "epoll_create1");
  return result;
}

/// splitmix: a counter through a mixing function. Good enough to spread load.
picker::random_source random_from(std::uint64_t seed) {
  return [seed]() mutable {
    auto x = seed += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
  };
}

}  // namespace

engine::engine(on_drained callback)
    : on_drained_(std::move(callback)),
      epoll_(make_epoll()),
      buffer_(std::make_unique<char[]>(bounds::buffer_bytes)),
      records_(std::make_unique<record_pool>()),
      pipes_(std::make_unique<pipe_pool>()) {
  // Where the default paces what it sends (bbr), loopback costs twice the CPU.
  const unique_fd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  default_congestion_ = congestion_of(probe.get());
  if (default_congestion_ == "cubic" || default_congestion_ == "reno")
    return;
  for (const char* name : {"cubic", "reno"}) {
    set_congestion(probe.get(), name);
    if (congestion_of(probe.get()) == name) {
      congestion_ = name;
      return;
    }
  }
}

engine::~engine() {
  on_drained_ = [](const std::string&, backend_id) {};
  for (auto& l : listeners_) {
    if (!l)
      continue;
    l->socket.reset();
    l->accepting = false;
    for (auto* list : {&l->connecting, &l->open, &l->parked})
      while (list->first)
        release(*list->first);
  }
}

engine::listener& engine::at(const std::string& key) {
  if (const auto found = by_key_.find(key); found != by_key_.end())
    return *found->second;
  auto place = std::find(listeners_.begin(), listeners_.end(), nullptr);
  if (place == listeners_.end())
    place = listeners_.insert(place, nullptr);
  *place = std::make_unique<listener>(random_from(
      static_cast<std::uint64_t>(now().time_since_epoch().count())));
  auto& l = **place;
  l.index = static_cast<std::uint32_t>(place - listeners_.begin());
  l.key = key;
  l.counters = std::make_shared<listener_counters>();
  by_key_.emplace(key, &l);
  return l;
}

void engine::configure(const std::string& key, const listener_limits& limits,
                       std::shared_ptr<listener_counters> counters) {
  now_.reset();
  auto& l = at(key);
  l.limits = limits;
  // A deadline that is always over would never let an attempt begin.
  l.limits.connect_timeout =
      std::max<std::chrono::milliseconds>(limits.connect_timeout, 1ms);
  if (l.active == 0)
    l.counters = std::move(counters);
  // Restart the idle clock: the period may have changed.
  l.idle_tick.reset();
  if (limits.idle_timeout > 0ms && l.open.first) {
    l.idle_tick = now() + l.tick_period();
    want_deadline(*l.idle_tick);
  }
  update_accepting(l);
}

void engine::listen(const std::string& key, unique_fd socket) {
  now_.reset();
  auto& l = at(key);
  // Who is queued has connected already: closing would reset it.
  while (l.accepting && accept_from(l)) {}
  l.socket = std::move(socket);
  l.accepting = false;
  ++l.stamp;
  // Inherited by what is accepted: a call saved for each connection.
  if (l.socket) {
    set_option(l.socket.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    if (!congestion_.empty())
      set_congestion(l.socket.get(), congestion_);
  }
  update_accepting(l);
}

void engine::publish(const std::string& key,
                     std::shared_ptr<const snapshot> next) {
  now_.reset();
  auto& l = at(key);
  l.backends = std::move(next);
  if (l.backends->loops_left.fetch_sub(1) == 1) {
    const auto& all = l.backends->set.backends();
    for (std::size_t i = 0; i < all.size(); ++i) {
      auto& counters = *l.backends->counters[i];
      if (!all[i].draining)
        counters.end_drain();
      else if (counters.begin_drain())
        on_drained_(l.key, counters.id);
    }
  }
  unpark(l);
  update_accepting(l);
}

void engine::cut(const std::string& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end())
    return;
  auto& l = *found->second;
  for (auto* list : {&l.connecting, &l.open, &l.parked})
    while (list->first)
      release(*list->first);
}

void engine::forget(const std::string& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end())
    return;
  listen(key, unique_fd{});
  found->second->forgotten = true;
  by_key_.erase(found);
  sweep();
}

void engine::sweep() {
  for (auto& l : listeners_)
    if (l && l->forgotten && l->active == 0)
      l.reset();
}

// -- events -------------------------------------------------------------------

bool engine::process() {
  now_.reset();
  running_.swap(again_);
  for (const auto& h : running_) {
    if (auto* c = find(h)) {
      c->ways[h.kind].queued = false;
      if (c->at == phase::parked)
        continue;
      settle(*c, pump(*c, static_cast<side>(h.kind)));
    }
  }
  running_.clear();
  epoll_event events[events_in_a_batch];
  for (int batch = 0; batch < batches_in_a_row; ++batch) {
    const int n = ::epoll_wait(epoll_.get(), events, events_in_a_batch, 0);
    for (int i = 0; i < n; ++i)
      dispatch(events[i]);
    if (n < events_in_a_batch)
      break;
  }
  return !again_.empty();
}

void engine::dispatch(const epoll_event& event) {
  handle h{};
  std::memcpy(&h, &event.data.u64, sizeof h);
  if (h.kind == kind_listener) {
    auto* l = h.index < listeners_.size() ? listeners_[h.index].get() : nullptr;
    if (l && l->accepting && l->stamp == h.stamp)
      (void)accept_from(*l);
  } else if (auto* c = find(h)) {
    on_connection_event(*c, static_cast<side>(h.kind), event.events);
  }
}

engine::connection* engine::find(const handle& h) {
  auto& c = records_->at(h.index);
  return c.used && c.stamps[h.kind] == h.stamp ? &c : nullptr;
}

void engine::on_connection_event(connection& c, side at, std::uint32_t events) {
  const handle self{c.index, c.stamps[at], at};
  const bool failed = (events & (EPOLLERR | EPOLLHUP)) != 0;
  c.quiet = 0;
  if (c.at == phase::parked) {
    // A client may close its sending side and still want the answer.
    if (failed)
      release(c);
    return;
  }
  if (events & EPOLLOUT) {
    const bool connected = at == upstream && !c.confirmed && !failed;
    if (connected)
      confirm(c);
    if (connected || !c.writable[at]) {
      c.writable[at] = true;
      settle(c, pump(c, opposite(at)));
    }
  }
  if (find(self) != &c || c.at == phase::parked)
    return;
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
    // An error is reported by recv, after the bytes that came before it.
    c.ways[at].readable = true;
    if (events & (EPOLLRDHUP | EPOLLHUP))
      c.ways[at].end_announced = true;
    auto result = pump(c, at);
    // A client that reset has no use for what its backend does not take. (An
    // answer of a backend that reset is worth waiting for a slow client.)
    if (result == outcome::waiting && at == downstream && (events & EPOLLERR))
      result = outcome::broken;
    settle(c, result);
  }
}

void engine::continue_later(connection& c, side from) {
  if (c.ways[from].queued)
    return;
  c.ways[from].queued = true;
  again_.push_back({c.index, c.stamps[from], from});
}

bool engine::watch(connection& c, side at, std::uint32_t events, bool add) {
  const handle h{c.index, c.stamps[at], at};
  epoll_event event{};
  event.events = events;
  static_assert(sizeof h == sizeof event.data.u64);
  std::memcpy(&event.data.u64, &h, sizeof h);
  return ::epoll_ctl(epoll_.get(), add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD,
                     c.fds[at].get(), &event)
         == 0;
}

// -- accepting ----------------------------------------------------------------

void engine::update_accepting(listener& l) {
  const bool room =
      l.limits.max_connections == 0 || l.active < l.limits.max_connections;
  // While clients are parked, whoever is connecting may be the next: so those
  // count too, or some would be rejected for want of a place.
  const bool place_left =
      l.parked.size == 0 || l.parked.size + l.connecting.size < bounds::parked;
  const bool wanted = l.socket && room && place_left && !paused_until_
                      && !l.backends->set.eligible().empty();
  if (wanted == l.accepting || !l.socket)
    return;
  const handle h{l.index, l.stamp, kind_listener};
  epoll_event event{};
  event.events = EPOLLIN;
  std::memcpy(&event.data.u64, &h, sizeof h);
  if (::epoll_ctl(epoll_.get(), wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL,
                  l.socket.get(), &event)
      == 0)
    l.accepting = wanted;
  else if (wanted)
    pause_for_resources();
}

/// Returns whether more may be queued.
bool engine::accept_from(listener& l) {
  for (int i = 0; i < accepts_in_a_row && l.accepting; ++i) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    unique_fd client(::accept4(l.socket.get(),
                               reinterpret_cast<sockaddr*>(&address), &length,
                               SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (client) {
      admit(l, std::move(client), address);
      continue;
    }
    if (would_block(errno))
      return false;
    if (short_of_resources(errno)) {
      pause_for_resources();
      return false;
    }
    // Otherwise one connection failed before it was accepted (accept(2)
    // lists network errors of the new socket): the next one may be fine.
  }
  return l.accepting;
}

void engine::admit(listener& l, unique_fd client,
                   const sockaddr_storage& address) {
  auto& c = records_->take();
  c.fds[downstream] = std::move(client);
  c.owner = &l;
  c.client = address_of(address);
  c.give_up_at = now() + l.limits.connect_timeout;
  ++l.active;
  add(l.counters->active, 1u);
  add(l.counters->total, std::uint64_t{1});
  if (!congestion_.empty() && !is_loopback(c.client))
    set_congestion(c.fds[downstream].get(), default_congestion_);
  // The client often has spoken already: its first bytes then leave together
  // with the connect, without a round through epoll.
  auto& in = c.ways[downstream];
  const auto n =
      ::recv(c.fds[downstream].get(), buffer_.get(), bounds::buffer_bytes, 0);
  if (n < 0 && !would_block(errno))
    return release(c);
  const auto bytes = n > 0 ? static_cast<std::size_t>(n) : 0;
  in.end_seen = n == 0;
  in.readable = bytes == bounds::buffer_bytes;
  count_bytes(c, downstream, bytes);
  const handle self{c.index, c.stamps[downstream], downstream};
  if (dial(c, bytes > 0)) {
    settle(c, bytes > 0 ? push(c, downstream, bytes) : outcome::moved);
  } else if (find(self) == &c) {
    keep(c, downstream, 0, bytes);
  }
  if (find(self) == &c && !watch(c, downstream, readable_events, true)) {
    pause_for_resources();
    reject(c);
    return;
  }
  update_accepting(l);
}

void engine::pause_for_resources() {
  if (!paused_until_)
    paused_until_ = now() + resource_pause;
  want_deadline(*paused_until_);
  for (auto& l : listeners_)
    if (l)
      update_accepting(*l);
}

void engine::resume_after_pause() {
  paused_until_.reset();
  for (auto& l : listeners_) {
    if (!l)
      continue;
    unpark(*l);
    update_accepting(*l);
  }
}

// -- connecting ---------------------------------------------------------------

/// Starts to connect to the next untried backend. False: the connection is
/// parked, or gone.
bool engine::dial(connection& c, bool has_bytes) {
  auto& l = *c.owner;
  for (;;) {
    const auto tried = c.tried ? std::span<const backend_id>(*c.tried)
                               : std::span<const backend_id>{};
    const auto& set = l.backends->set;
    std::optional<std::size_t> index;
    if (!paused_until_)
      index = l.choose.pick(set, c.client, l.active_of, tried);
    if (!index) {
      park(c);
      return false;
    }
    c.served_by = l.backends->counters[*index];
    c.served_by->count_up();
    if (start_connect(c, set.backends()[*index], has_bytes))
      return true;
    if (short_of_resources(errno)) {
      pause_for_resources();
    } else {
      if (!c.tried)
        c.tried = std::make_unique<std::vector<backend_id>>();
      c.tried->push_back(c.served_by->id);
    }
    leave_backend(c);
  }
}

/// False: errno says why.
bool engine::start_connect(connection& c, const backend& target,
                           bool has_bytes) {
  unique_fd fd(::socket(target.address.address.v6 ? AF_INET6 : AF_INET,
                        SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd)
    return false;
  set_option(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  if (!congestion_.empty() && is_loopback(target.address.address))
    set_congestion(fd.get(), congestion_);
  // The handshake's last ACK waits for the first bytes: a segment saved.
  if (has_bytes)
    set_option(fd.get(), IPPROTO_TCP, TCP_QUICKACK, 0);
  if (connect_to(fd.get(), target.address) != 0 && errno != EINPROGRESS)
    return false;
  c.fds[upstream] = std::move(fd);
  // On loopback the handshake is complete by now, although connect says
  // EINPROGRESS: with bytes at hand the first send tells; only without is an
  // event needed.
  c.armed[upstream] = !has_bytes;
  return watch(c, upstream,
               has_bytes ? readable_events : readable_events | EPOLLOUT, true);
}

/// After a failure before any byte was exchanged: the next backend. False: the
/// connection is parked, or gone.
bool engine::redial(connection& c) {
  if (!c.tried)
    c.tried = std::make_unique<std::vector<backend_id>>();
  c.tried->push_back(c.served_by->id);
  leave_backend(c);
  if (c.at != phase::unplaced)
    c.owner->list_of(c.at).erase(c);
  c.at = phase::unplaced;
  return dial(c, c.ways[downstream].holds_bytes());
}

void engine::leave_backend(connection& c) {
  c.fds[upstream].reset();
  ++c.stamps[upstream];
  c.ways[upstream] = way{};
  c.ways[downstream].end_forwarded = false;
  c.writable[upstream] = true;
  c.armed[upstream] = false;
  c.confirmed = false;
  const auto left = std::exchange(c.served_by, nullptr);
  if (left->count_down())
    on_drained_(c.owner->key, left->id);
}

void engine::confirm(connection& c) {
  c.confirmed = true;
  place(c);
}

void engine::park(connection& c) {
  auto& l = *c.owner;
  c.tried.reset();
  if (l.parked.size >= bounds::parked || now() >= c.give_up_at)
    return reject(c);
  c.at = phase::parked;
  l.parked.push_back(c);
  want_deadline(c.give_up_at);
  update_accepting(l);
}

/// A fresh round for all that wait.
void engine::unpark(listener& l) {
  for (auto left = l.parked.size; left > 0 && l.parked.first; --left) {
    if (l.backends->set.eligible().empty() || paused_until_)
      return;
    auto& c = *l.parked.first;
    l.parked.erase(c);
    c.at = phase::unplaced;
    if (dial(c, c.ways[downstream].holds_bytes())) {
      // Its events were set aside while it was parked.
      c.ways[downstream].readable = true;
      settle(c, outcome::moved);
    }
  }
}

/// Into the list of its state, once an attempt has begun or succeeded.
void engine::place(connection& c) {
  auto& l = *c.owner;
  const auto wanted = c.confirmed ? phase::open : phase::connecting;
  if (c.at == wanted)
    return;
  if (c.at != phase::unplaced)
    l.list_of(c.at).erase(c);
  c.at = wanted;
  l.list_of(wanted).push_back(c);
  if (wanted == phase::connecting) {
    c.deadline = now() + l.limits.connect_timeout;
    want_deadline(c.deadline);
  } else if (l.limits.idle_timeout > 0ms && !l.idle_tick) {
    l.idle_tick = now() + l.tick_period();
    want_deadline(*l.idle_tick);
  }
  update_accepting(l);
}

// -- moving bytes -------------------------------------------------------------

/// Draws the consequence of what happened to a connection. It may be parked or
/// gone afterwards.
void engine::settle(connection& c, outcome so_far) {
  for (;;) {
    switch (so_far) {
      case outcome::moved:
        so_far = pump(c, downstream);
        break;
      case outcome::waiting:
        return place(c);
      case outcome::over:
        return release(c);
      case outcome::broken:
        return reset(c);
      case outcome::refused:
        if (!redial(c))
          return;
        so_far = outcome::moved;
        break;
    }
  }
}

/// Moves bytes one way until a side has to be waited for.
engine::outcome engine::pump(connection& c, side from) {
  auto& w = c.ways[from];
  for (int i = 0; i < moves_in_a_row; ++i) {
    auto result = flush_kept(c, from);
    if (result == outcome::moved)
      result = flush_pipe(c, from);
    if (result != outcome::moved)
      return result;
    if (w.end_seen)
      return forward_end(c, from);
    // Nothing is read that cannot be passed on: that is the back-pressure.
    if (!w.readable || !c.writable[opposite(from)])
      return outcome::waiting;
    result = w.bulky ? pull_spliced(c, from) : pull_copied(c, from);
    if (result != outcome::moved)
      return result;
  }
  continue_later(c, from);
  return outcome::waiting;
}

engine::outcome engine::flush_kept(connection& c, side from) {
  auto& w = c.ways[from];
  const auto to = opposite(from);
  while (w.kept_begin < w.kept_end) {
    if (!c.writable[to])
      return outcome::waiting;
    const auto n = ::send(c.fds[to].get(), w.kept.get() + w.kept_begin,
                          w.kept_end - w.kept_begin, MSG_NOSIGNAL);
    if (n < 0) {
      if (!would_block(errno))
        return write_failed(c, from);
      blocked(c, to);
      return outcome::waiting;
    }
    w.kept_begin += static_cast<std::uint32_t>(n);
    if (to == upstream) {
      c.committed = true;
      confirm(c);
    }
  }
  w.kept.reset();
  w.kept_begin = w.kept_end = 0;
  return outcome::moved;
}

engine::outcome engine::flush_pipe(connection& c, side from) {
  auto& w = c.ways[from];
  const auto to = opposite(from);
  while (w.in_pipe > 0) {
    if (!c.writable[to])
      return outcome::waiting;
    const auto n = ::splice(w.pipe.out.get(), nullptr, c.fds[to].get(), nullptr,
                            w.in_pipe, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (n < 0) {
      if (!would_block(errno))
        return write_failed(c, from);
      blocked(c, to);
      return outcome::waiting;
    }
    w.in_pipe -= static_cast<std::uint32_t>(n);
  }
  return outcome::moved;
}

engine::outcome engine::pull_copied(connection& c, side from) {
  auto& w = c.ways[from];
  const auto n =
      ::recv(c.fds[from].get(), buffer_.get(), bounds::buffer_bytes, 0);
  if (n < 0) {
    if (!would_block(errno))
      return read_failed(c, from);
    w.readable = false;
    return outcome::waiting;
  }
  if (from == upstream) {
    c.committed = true;
    if (!c.confirmed)
      confirm(c);
  }
  if (n == 0) {
    w.end_seen = true;
    return outcome::moved;
  }
  const auto bytes = static_cast<std::size_t>(n);
  count_bytes(c, from, bytes);
  if (bytes < bounds::buffer_bytes) {
    w.full_reads = 0;
    // A short read emptied the socket (epoll(7)): a call saved. Not so once
    // FIN is announced, which gives no further event.
    w.readable = w.end_announced;
  } else if (++w.full_reads >= bulky_after) {
    // splice moves pages instead of copying twice: a fourth of the CPU time.
    w.bulky = true;
    w.empty_reads = 0;
  }
  return push(c, from, bytes);
}

engine::outcome engine::pull_spliced(connection& c, side from) {
  auto& w = c.ways[from];
  if (!w.pipe.in) {
    w.pipe = pipes_->take();
    if (!w.pipe.in) {
      w.bulky = false;
      w.full_reads = 0;
      return pull_copied(c, from);
    }
  }
  const auto n = ::splice(c.fds[from].get(), nullptr, w.pipe.in.get(), nullptr,
                          1 << 20, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
  if (n > 0) {
    w.in_pipe = static_cast<std::uint32_t>(n);
    count_bytes(c, from, w.in_pipe);
    if (w.in_pipe > bounds::buffer_bytes / 4)
      w.empty_reads = 0;
    return outcome::moved;
  }
  const int error = errno;
  // The pipe is empty here: another way can use it.
  pipes_->give_back(std::exchange(w.pipe, {}), true);
  if (n == 0) {
    w.end_seen = true;
    return outcome::moved;
  }
  if (!would_block(error)) {
    errno = error;
    return read_failed(c, from);
  }
  w.readable = false;
  if (++w.empty_reads >= small_after) {
    w.bulky = false;
    w.full_reads = 0;
  }
  return outcome::waiting;
}

/// Sends what is in the shared buffer and keeps the rest.
engine::outcome engine::push(connection& c, side from, std::size_t bytes) {
  auto& w = c.ways[from];
  const auto to = opposite(from);
  // FIN follows at once: it and the last bytes share a segment.
  const int more = w.end_announced ? MSG_MORE : 0;
  auto n = ::send(c.fds[to].get(), buffer_.get(), bytes, MSG_NOSIGNAL | more);
  if (n < 0 && !would_block(errno)) {
    // Nothing was taken, so another backend can have all of it.
    if (to == upstream && !c.committed)
      keep(c, from, 0, bytes);
    return write_failed(c, from);
  }
  n = std::max<ssize_t>(n, 0);
  if (to == upstream && n > 0) {
    c.committed = true;
    if (!c.confirmed)
      confirm(c);
  }
  if (static_cast<std::size_t>(n) < bytes) {
    keep(c, from, static_cast<std::size_t>(n), bytes);
    blocked(c, to);
  }
  return outcome::moved;
}

void engine::keep(connection& c, side from, std::size_t begin,
                  std::size_t end) {
  if (begin == end)
    return;
  auto& w = c.ways[from];
  w.kept.reset(new char[end - begin]);
  std::memcpy(w.kept.get(), buffer_.get() + begin, end - begin);
  w.kept_begin = 0;
  w.kept_end = static_cast<std::uint32_t>(end - begin);
}

engine::outcome engine::forward_end(connection& c, side from) {
  auto& w = c.ways[from];
  const auto to = opposite(from);
  // shutdown(2) would call off a connect that is under way.
  if (to == upstream && !c.confirmed)
    return outcome::waiting;
  // close(2) sends the second FIN by itself: a call saved.
  if (c.ways[to].end_forwarded)
    return outcome::over;
  if (!w.end_forwarded && ::shutdown(c.fds[to].get(), SHUT_WR) != 0)
    return write_failed(c, from);
  w.end_forwarded = true;
  return outcome::waiting;
}

engine::outcome engine::read_failed(connection& c, side from) {
  return from == upstream && !c.committed ? outcome::refused : outcome::broken;
}

engine::outcome engine::write_failed(connection& c, side from) {
  const auto to = opposite(from);
  if (to == upstream && !c.committed)
    return outcome::refused;
  // Whoever does not listen any more may have answered before: a server that
  // refuses a long upload resets it after its answer.
  if (!std::exchange(c.failing, true)) {
    c.ways[to].readable = true;
    (void)pump(c, to);
  }
  return outcome::broken;
}

void engine::blocked(connection& c, side at) {
  c.writable[at] = false;
  // Asked for only now: most connections never block, and save the event
  // that an idle socket's writability would cause.
  if (!std::exchange(c.armed[at], true) && c.fds[at])
    (void)watch(c, at, readable_events | EPOLLOUT, false);
}

void engine::count_bytes(connection& c, side from, std::size_t bytes) {
  auto& counters = *c.owner->counters;
  add(from == downstream ? counters.bytes_in : counters.bytes_out,
      std::uint64_t{bytes});
}

// -- ending -------------------------------------------------------------------

/// A side was reset: the other must not take it for a clean end.
void engine::reset(connection& c) {
  const linger at_once{1, 0};
  for (const auto& fd : c.fds)
    if (fd)
      (void)::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once,
                         sizeof at_once);
  release(c);
}

void engine::reject(connection& c) {
  add(c.owner->counters->rejected, std::uint64_t{1});
  release(c);
}

void engine::release(connection& c) {
  auto& l = *c.owner;
  if (c.at != phase::unplaced)
    l.list_of(c.at).erase(c);
  for (auto& w : c.ways)
    pipes_->give_back(std::move(w.pipe), w.in_pipe == 0);
  c.fds[downstream].reset();
  if (c.served_by)
    leave_backend(c);
  records_->give_back(c);
  --l.active;
  l.counters->active.store(l.active, std::memory_order_relaxed);
  if (paused_until_)
    want_deadline(*(paused_until_ = now()));
  else
    update_accepting(l);
  if (l.forgotten && l.active == 0)
    want_deadline(now());
}

// -- time ---------------------------------------------------------------------

/// Read at most once for each call of process(): a batch has one time.
engine::clock::time_point engine::now() {
  if (!now_)
    now_ = clock::now();
  return *now_;
}

void engine::want_deadline(clock::time_point when) {
  if (!next_deadline_ || when < *next_deadline_)
    next_deadline_ = when;
}

void engine::expire() {
  now_.reset();
  const auto when = now();
  if (!next_deadline_ || when < *next_deadline_)
    return;
  if (paused_until_ && when >= *paused_until_)
    resume_after_pause();
  for (auto& l : listeners_)
    if (l)
      expire(*l, when);
  sweep();
  recompute_deadline();
}

void engine::expire(listener& l, clock::time_point when) {
  while (l.connecting.first && l.connecting.first->deadline <= when)
    settle(*l.connecting.first, outcome::refused);
  // Not in the order of their deadlines: a connect that timed out before
  // delays some.
  for (auto* c = l.parked.first; c != nullptr;) {
    auto* next = c->next;
    if (c->give_up_at <= when)
      reject(*c);
    c = next;
  }
  if (l.idle_tick && *l.idle_tick <= when)
    expire_idle(l, when);
}

void engine::expire_idle(listener& l, clock::time_point when) {
  l.idle_tick.reset();
  if (l.limits.idle_timeout <= 0ms)
    return;
  for (auto* c = l.open.first; c != nullptr;) {
    auto* next = c->next;
    if (++c->quiet > idle_ticks)
      release(*c);
    c = next;
  }
  if (l.open.first)
    l.idle_tick = when + l.tick_period();
}

void engine::recompute_deadline() {
  next_deadline_ = paused_until_;
  for (auto& l : listeners_) {
    if (!l)
      continue;
    if (l->connecting.first)
      want_deadline(l->connecting.first->deadline);
    for (auto* c = l->parked.first; c != nullptr; c = c->next)
      want_deadline(c->give_up_at);
    if (l->idle_tick)
      want_deadline(*l->idle_tick);
  }
}

}  // namespace pup
