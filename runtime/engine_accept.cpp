// Accepting clients, as far as there is room for them.
#include "pup/runtime/engine_records.hpp"
#include "pup/runtime/engine_sockets.hpp"
#include "pup/runtime/listening.hpp"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>

namespace pup {

using namespace std::chrono_literals;

namespace {

/// Connections accepted before other events get their turn.
constexpr int accepts_in_a_row = 64;
/// How long accepting pauses when descriptors or memory are short.
constexpr auto resource_pause = 100ms;
/// How long a replaced socket that is empty stays for handshakes that had begun
/// before: the round trip of all but a few clients.
constexpr auto handshake_time = 100ms;
/// And one that closes for good.
constexpr int last_handshakes_ms = 1;

int scarce_from(rlim_t limit) noexcept {
  const auto all = static_cast<int>(std::min<rlim_t>(limit, INT_MAX));
  return all - std::min(bounds::spare_descriptors, all / 16);
}

}  // namespace

bool engine::may_accept(const listener& l) const {
  // While clients are parked, whoever is connecting may be the next: so those
  // count too, or some would be rejected for want of a place.
  const bool place_left =
      l.parked.size == 0 || l.parked.size + l.connecting.size < bounds::parked;
  return !l.full && place_left && !paused_until_
         && !l.backends->set.eligible().empty();
}

void engine::update_accepting(listener& l) {
  const bool wanted = may_accept(l);
  if (wanted && !l.retired.empty())
    drain_retired(l);
  // The queue of an adopted one is not this engine's alone.
  const bool watched =
      !wanted && !l.adopted && l.backends->set.eligible().empty();
  if (!l.socket || (wanted == l.accepting && watched == l.watching))
    return;
  stop_accepting(l);
  if (!wanted && !watched)
    return;
  const handle h{l.index, l.stamp, kind_listener};
  epoll_event event{};
  event.events = wanted ? EPOLLIN : EPOLLIN | EPOLLET;
  std::memcpy(&event.data.u64, &h, sizeof h);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, l.socket->get(), &event) == 0)
    (wanted ? l.accepting : l.watching) = true;
  else if (wanted)
    pause_for_resources();
}

/// Somebody came whom nobody can serve yet.
void engine::note_arrivals(listener& l) {
  std::uint32_t known = 0;
  for (const auto& x : l.waiting)
    known += x.count;
  const auto queued = queued_in(*l.socket);
  if (queued <= known)
    return;
  // Those of one tick together: each waits for 1 to 1.125 timeouts.
  const auto tick = l.limits.ready_timeout / idle_ticks;
  const auto give_up_at = now() + l.limits.ready_timeout;
  if (l.waiting.empty() || l.waiting.back().give_up_at < give_up_at)
    l.waiting.push_back({give_up_at + tick, 0});
  l.waiting.back().count += queued - known;
  want_deadline(l.waiting.front().give_up_at);
}

/// Those who have waited for long enough: the queue is in their order.
void engine::turn_away(listener& l, clock::time_point when) {
  while (!l.waiting.empty() && l.waiting.front().give_up_at <= when) {
    auto& first = l.waiting.front();
    for (; first.count > 0; --first.count) {
      const unique_fd client(
          ::accept4(l.socket->get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client && short_of_resources(errno)) {
        first.give_up_at = when + resource_pause;
        return;
      }
      if (!client && would_block(errno))
        break;
      add(l.counters->total, std::uint64_t{1});
      add(l.counters->rejected, std::uint64_t{1});
    }
    l.waiting.pop_front();
  }
}

/// Closing would not be enough: a socket leaves the epoll set by itself only
/// when no process holds it any more.
void engine::stop_accepting(listener& l) {
  l.waiting.clear();
  const bool watched = std::exchange(l.watching, false);
  if (std::exchange(l.accepting, false) || watched)
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, l.socket->get(), nullptr);
}

void engine::replace_socket(listener& l, socket_pointer socket, bool adopted) {
  stop_accepting(l);
  ++l.stamp;
  auto former = std::exchange(l.socket, std::move(socket));
  if (former && !l.adopted)
    l.retired.push_back({std::move(former)});
  l.adopted = adopted;
  // Inherited by what is accepted: a call saved for each connection.
  if (l.socket && !adopted) {
    set_option(l.socket->get(), IPPROTO_TCP, TCP_NODELAY, 1);
    if (!congestion_.empty())
      set_congestion(l.socket->get(), congestion_);
  }
  update_accepting(l);
}

/// Who is queued has connected already: closing would reset it. So would it
/// whoever is in the middle of the handshake; further ones are not answered
/// meanwhile, and ask again after a second, as if the request had been lost on
/// the way, to find what is there then.
void engine::drain_retired(listener& l) {
  if (std::exchange(l.draining_retired, true))
    return;
  for (auto& x : l.retired) {
    const int socket = x.socket->get();
    if (!x.close_at && may_accept(l))
      ignore_requests(socket, true);
    while (accept_from(l, socket)) {}
    if (!may_accept(l)) {
      // Who comes now may wait here as well as anywhere.
      ignore_requests(socket, false);
      x.close_at.reset();
    } else if (!x.close_at) {
      x.close_at = now() + handshake_time;
      want_deadline(*x.close_at);
    }
  }
  std::erase_if(l.retired, [this](const retired_socket& x) {
    const auto over = x.close_at && *x.close_at <= now();
    if (over)
      stop_listening(x.socket->get());
    return over;
  });
  l.draining_retired = false;
}

/// Of those whose handshake had begun when requests were first ignored. The
/// loop stands still for it: a port that is closed has to be free soon. On
/// loopback a handshake takes microseconds; whoever is farther away may be too
/// late.
bool engine::somebody_waits(const listener& l) {
  std::vector<pollfd> sockets;
  for (const auto& x : l.retired)
    sockets.push_back({x.socket->get(), POLLIN, 0});
  return ::poll(sockets.data(), sockets.size(), last_handshakes_ms) > 0;
}

/// Returns whether more may be queued, and there is room for it.
bool engine::accept_from(listener& l, int socket) {
  std::optional<non_blocking> without_waiting;
  if (l.adopted && socket == l.socket->get())
    without_waiting.emplace(socket);
  for (int i = 0; i < accepts_in_a_row && may_accept(l); ++i) {
    if (!take_place(l))
      break;
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    unique_fd client(::accept4(socket, reinterpret_cast<sockaddr*>(&address),
                               &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (client) {
      const bool scarce = client.get() >= scarce_from_;
      admit(l, std::move(client), address);
      if (scarce)
        pause_for_resources();
      continue;
    }
    const int error = errno;
    leave_place(l);
    if (would_block(error))
      return false;
    if (short_of_resources(error)) {
      pause_for_resources();
      return false;
    }
    // Otherwise one connection failed before it was accepted (accept(2)
    // lists network errors of the new socket): the next one may be fine.
  }
  if (may_accept(l))
    return true;
  update_accepting(l);
  return false;
}

bool engine::take_place(listener& l) {
  const auto most = l.limits.max_connections;
  if (l.shared->take_place(most))
    return true;
  l.shared->wait_for_place(index_);
  // One may have been left before anybody knew that this loop waits.
  if (l.shared->take_place(most)) {
    l.shared->stop_waiting(index_);
    return true;
  }
  l.full = true;
  return false;
}

void engine::leave_place(listener& l) {
  l.shared->leave_place();
  offer_place(l);
}

void engine::offer_place(listener& l) {
  const auto next = l.shared->next_waiting();
  if (!next)
    return;
  if (*next == index_)
    attention_ = true;
  else
    bells_->ring(*next);
}

void engine::admit(listener& l, unique_fd client,
                   const sockaddr_storage& address) {
  auto& c = records_->take();
  c.fds[downstream] = std::move(client);
  c.owner = &l;
  c.client = endpoint_of(address);
  c.header_due = l.limits.header != proxy_header::none;
  c.give_up_at = now() + l.limits.connect_timeout;
  ++l.active;
  add(l.counters->active, 1u);
  add(l.counters->total, std::uint64_t{1});
  const int fd = c.fds[downstream].get();
  // What the listening socket has is inherited: cheaper, but not for all right.
  if (l.adopted)
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (!congestion_.empty() && l.adopted == is_loopback(c.client.address))
    set_congestion(fd, l.adopted ? congestion_ : default_congestion_);
  // The client often has spoken already: its first bytes then leave together
  // with the connect, without a round through epoll.
  auto& in = c.ways[downstream];
  const auto n = ::recv(fd, buffer(), bounds::buffer_bytes, 0);
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
    keep(c, downstream, buffer(), bytes);
  }
  if (find(self) == &c && !watch(c, downstream, readable_events, true)) {
    pause_for_resources();
    reject(c);
    return;
  }
  update_accepting(l);
}

void engine::read_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0)
    scarce_from_ = scarce_from(limit.rlim_cur);
}

void engine::pause_for_resources() {
  read_limit();  // it may have changed
  if (!paused_until_)
    paused_until_ = now() + resource_pause;
  want_deadline(*paused_until_);
  for (auto& l : listeners_)
    if (l)
      update_accepting(*l);
}

void engine::resume_after_pause() {
  paused_until_.reset();
  // The lowest number that is free is what the next client would get.
  const unique_fd next(::fcntl(epoll_.get(), F_DUPFD_CLOEXEC, 0));
  if (!next || next.get() >= scarce_from_)
    return pause_for_resources();
  for (auto& l : listeners_) {
    if (!l)
      continue;
    unpark(*l);
    update_accepting(*l);
  }
}

}  // namespace pup
