#include "pup/runtime/engine.hpp"

#include "pup/runtime/engine_records.hpp"
#include "pup/runtime/engine_sockets.hpp"
#include "pup/runtime/listening.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>

namespace pup {

using namespace std::chrono_literals;

namespace {

/// Batches of events handled before the loop's other work gets its turn.
constexpr int batches_in_a_row = 8;
/// A deadline may be a year away; epoll_wait counts in an int.
constexpr std::chrono::milliseconds::rep longest_wait = 24L * 3600 * 1000;
constexpr int events_in_a_batch = 256;

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

engine::engine(on_fact callback, std::shared_ptr<loop_bells> bells,
               unsigned index)
    : on_fact_(std::move(callback)),
      bells_(std::move(bells)),
      index_(index),
      epoll_(make_epoll()),
      // Not cleared: it costs memory only once bytes move.
      storage_(std::make_unique_for_overwrite<char[]>(sizeof(header_buffer)
                                                      + bounds::buffer_bytes)),
      records_(std::make_unique<record_pool>()),
      pipes_(std::make_unique<pipe_pool>()) {
  read_limit();
  const handle h{0, 0, kind_bell};
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  std::memcpy(&event.data.u64, &h, sizeof h);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, bells_->descriptor(index_),
                  &event)
      != 0)
    throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  // Where the default paces what it sends (bbr), loopback costs twice the CPU.
  const unique_fd sample(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  default_congestion_ = congestion_of(sample.get());
  if (default_congestion_ == "cubic" || default_congestion_ == "reno")
    return;
  for (const char* name : {"cubic", "reno"}) {
    set_congestion(sample.get(), name);
    if (congestion_of(sample.get()) == name) {
      congestion_ = name;
      return;
    }
  }
}

engine::~engine() {
  on_fact_ = [](const proxy_fact&) {};
  for (auto& l : listeners_) {
    if (!l)
      continue;
    l->socket.reset();
    l->retired.clear();
    l->accepting = l->watching = false;
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
  by_key_.emplace(key, &l);
  return l;
}

void engine::configure(const std::string& key, const listener_limits& limits,
                       std::shared_ptr<listener_counters> counters,
                       std::shared_ptr<listener_state> state) {
  now_.reset();
  auto& l = at(key);
  l.limits = limits;
  // A deadline that is always over would never let an attempt begin.
  l.limits.connect_timeout =
      std::max<std::chrono::milliseconds>(limits.connect_timeout, 1ms);
  if (l.active == 0) {
    l.counters = std::move(counters);
    l.shared = std::move(state);
  }
  // The bound may have changed.
  if (std::exchange(l.full, false))
    l.shared->stop_waiting(index_);
  // Restart the idle clock: the period may have changed.
  l.idle_tick.reset();
  if (limits.idle_timeout > 0ms && l.open.first) {
    l.idle_tick = now() + l.tick_period();
    want_deadline(*l.idle_tick);
  }
  update_accepting(l);
}

void engine::listen(const std::string& key, socket_pointer socket) {
  now_.reset();
  auto& l = at(key);
  const bool closing = !socket;
  replace_socket(l, std::move(socket), false);
  if (closing) {
    while (may_accept(l) && somebody_waits(l))
      drain_retired(l);
    for (const auto& x : l.retired)
      stop_listening(x.socket->get());
    l.retired.clear();
  }
  look_around();
}

void engine::adopt(const std::string& key, socket_pointer socket) {
  now_.reset();
  replace_socket(at(key), std::move(socket), true);
  look_around();
}

void engine::let_go(const std::string& key) {
  now_.reset();
  auto& l = at(key);
  l.adopted = true;
  replace_socket(l, nullptr, false);
  look_around();
}

void engine::publish(const std::string& key,
                     std::shared_ptr<const snapshot> set) {
  now_.reset();
  auto& l = at(key);
  l.backends = set;
  const bool last = l.backends->loops_left.fetch_sub(1) == 1;
  if (last)
    begin_drains(l);
  choose_probes(l, last);
  unpark(l);
  update_accepting(l);
  look_around();
  if (last && set->applied)
    set->applied();
}

void engine::begin_drains(listener& l) {
  const auto& all = l.backends->set.backends();
  for (std::size_t i = 0; i < all.size(); ++i) {
    auto& state = *l.backends->states[i];
    if (!all[i].draining)
      state.end_drain();
    else if (state.begin_drain(all[i].drain))
      on_fact_(drained{l.key, state.id.slot, state.id.life, all[i].drain});
  }
}

void engine::cut(const std::string& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end())
    return;
  auto& l = *found->second;
  for (auto* list : {&l.connecting, &l.open, &l.parked})
    while (list->first)
      release(*list->first);
  look_around();
}

void engine::forget(const std::string& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end())
    return;
  listen(key, nullptr);
  found->second->forgotten = true;
  by_key_.erase(found);
  sweep();
}

void engine::finish(std::function<void()> f, on_fact callback) {
  on_fact_ = std::move(callback);
  for (const auto& [key, l] : by_key_)
    let_go(key);
  on_empty_ = std::move(f);
  tell_if_empty();
}

void engine::tell_if_empty() {
  const auto all_gone =
      std::all_of(listeners_.begin(), listeners_.end(),
                  [](const auto& x) { return !x || x->active == 0; });
  if (all_gone && on_empty_)
    std::exchange(on_empty_, nullptr)();
}

void engine::sweep() {
  for (auto& l : listeners_)
    if (l && l->forgotten && l->active == 0) {
      drop_probes(*l);
      l.reset();
    }
}

// -- events -------------------------------------------------------------------

void engine::process() {
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
  // Before it waits: a connection that ended here may have left its place.
  look_around();
  epoll_event events[events_in_a_batch];
  int timeout = again_.empty() ? patience() : 0;
  for (int batch = 0; batch < batches_in_a_row; ++batch) {
    const int n =
        ::epoll_wait(epoll_.get(), events, events_in_a_batch, timeout);
    if (timeout != 0)
      now_.reset();
    for (int i = 0; i < n; ++i)
      dispatch(events[i]);
    look_around();
    if (n < events_in_a_batch)
      break;
    timeout = 0;
  }
}

/// How long to wait for events, as epoll_wait(2) takes it.
int engine::patience() {
  if (!next_deadline_)
    return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(*next_deadline_ - now());
  return static_cast<int>(std::clamp<std::chrono::milliseconds::rep>(
      left.count(), 0, longest_wait));
}

void engine::dispatch(const epoll_event& event) {
  handle h{};
  std::memcpy(&h, &event.data.u64, sizeof h);
  if (h.kind == kind_bell) {
    std::uint64_t rings = 0;
    (void)!::read(bells_->descriptor(index_), &rings, sizeof rings);
    attention_ = true;
  } else if (h.kind == kind_probe) {
    on_probe_event(h);
  } else if (h.kind == kind_listener) {
    auto* l = h.index < listeners_.size() ? listeners_[h.index].get() : nullptr;
    if (!l || l->stamp != h.stamp)
      return;
    if (l->accepting)
      (void)accept_from(*l, l->socket->get());
    else if (l->watching)
      note_arrivals(*l);
  } else if (auto* c = find(h)) {
    on_connection_event(*c, static_cast<side>(h.kind), event.events);
  }
}

/// What an end of a connection or another loop may have made possible. Not at
/// once when it happens: that is in the middle of other work.
void engine::look_around() {
  while (std::exchange(attention_, false))
    for (auto& l : listeners_)
      if (l)
        look(*l);
  if (on_empty_)
    tell_if_empty();
}

void engine::look(listener& l) {
  const bool offered = l.full && !l.shared->is_waiting(index_);
  if (offered)
    l.full = false;
  const auto readmissions = l.shared->readmissions.load();
  if (std::exchange(l.readmissions_seen, readmissions) != readmissions)
    unpark(l);
  update_accepting(l);
  if (offered && l.accepting)
    (void)accept_from(l, l.socket->get());
  // Whoever was offered a place and has nobody to give it to passes it on.
  if (!l.full && l.shared->has_place(l.limits.max_connections))
    offer_place(l);
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
    if (connected) {
      confirm(c);
      connected_early(c);
    }
    if (connected || !c.writable[at]) {
      c.writable[at] = true;
      settle(c, pump(c, opposite(at)));
    }
  }
  if (find(self) != &c || c.at == phase::parked)
    return;
  if (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
    // An error is reported by recv, after the bytes that came before it.
    c.ways[at].readable = true;
    if (events & (EPOLLRDHUP | EPOLLHUP))
      c.ways[at].end_announced = true;
    if (events & (EPOLLPRI | EPOLLERR))
      c.ways[at].doubtful = true;
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

}  // namespace pup
