#include "pup/bench/client.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <system_error>
#include <utility>

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

namespace pup::bench {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t buffer_bytes = 1 << 20;
constexpr std::size_t most_head_bytes = 8 * 1024;
/// How often deadlines are looked at; they are seconds.
constexpr auto expiry_interval = 20ms;

failure failure_of(int error) noexcept {
  switch (error) {
    case ECONNREFUSED:
      return failure::refused;
    case ETIMEDOUT:
      return failure::timed_out;
    case EADDRNOTAVAIL:
    case EADDRINUSE:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return failure::local;
    default:
      return failure::reset;
  }
}

std::string head_of(const request_shape& x, bool last) {
  auto head = x.method + ' ' + x.path + " HTTP/1.1\r\nHost: bench\r\n";
  if (x.body_bytes > 0)
    head += "Content-Length: " + std::to_string(x.body_bytes) + "\r\n";
  if (last)
    head += "Connection: close\r\n";
  return head + "\r\n";
}

/// The value after "Content-Length: "; none when the head has none.
std::optional<std::uint64_t> length_in(std::string_view head) {
  constexpr std::string_view name = "Content-Length: ";
  const auto at = head.find(name);
  if (at == std::string_view::npos)
    return std::nullopt;
  std::uint64_t value = 0;
  const auto text = head.substr(at + name.size());
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec
      != std::errc{})
    return std::nullopt;
  return value;
}

}  // namespace

const char* to_string(failure x) noexcept {
  constexpr std::array names{"refused",   "reset", "closed",
                             "timed_out", "wrong", "local"};
  static_assert(names.size() == failures);
  return names[static_cast<std::size_t>(x)];
}

client::client(request_shape shape, std::vector<std::uint16_t> ports,
               std::size_t sources, std::chrono::milliseconds timeout,
               client_events events)
    : head_(head_of(shape, false)),
      last_head_(head_of(shape, true)),
      body_bytes_(shape.body_bytes),
      ports_(std::move(ports)),
      sources_(sources),
      timeout_(timeout),
      events_(std::move(events)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      buffer_(buffer_bytes),
      zeroes_(buffer_bytes) {
  if (!epoll_)
    throw std::system_error(errno, std::system_category(), "epoll_create1");
}

void client::open_and_ask(clock::time_point due, bool last) {
  auto& c = all_.emplace_back();
  c.self = std::prev(all_.end());
  c.opened = clock::now();
  c.due = due;
  c.last = last;
  ++opened_;
  c.fd = unique_fd{
      ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  if (!c.fd)
    return fail(c, failure::local);
  const int one = 1;
  (void)::setsockopt(c.fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (sources_ > 0) {
    // 127.0.0.1, 127.0.0.2, …
    c.source = next_source_++ % sources_;
    sockaddr_in from{};
    from.sin_family = AF_INET;
    from.sin_addr.s_addr =
        htonl(INADDR_LOOPBACK + static_cast<std::uint32_t>(c.source));
    (void)::setsockopt(c.fd.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one,
                       sizeof one);
    if (::bind(c.fd.get(), reinterpret_cast<const sockaddr*>(&from),
               sizeof from)
        != 0)
      return fail(c, failure::local);
  }
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(ports_[next_port_++ % ports_.size()]);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(c.fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to)
          != 0
      && errno != EINPROGRESS)
    return fail(c, failure_of(errno));
  epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                    .data = {.ptr = &c}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, c.fd.get(), &event) != 0)
    return fail(c, failure::local);
  ask(c, due, last);
}

void client::ask(connection& c, clock::time_point due, bool last) {
  c.at = connection::state::asking;
  c.due = due;
  c.last = last;
  c.head_sent = 0;
  c.body_to_send = body_bytes_;
  c.head_seen = false;
  c.kept.clear();
  c.deadline = clock::now() + timeout_;
  (void)send_request(c);
}

void client::close(connection& c) {
  drop(c);
}

void client::poll(std::optional<clock::time_point> until) {
  using std::chrono::nanoseconds;
  // Deadlines are looked for even when nothing happens.
  auto wait = nanoseconds(expiry_interval);
  if (until)
    wait = std::clamp<nanoseconds>(*until - clock::now(), 0ns, wait);
  const timespec limit{.tv_sec = 0, .tv_nsec = wait.count()};
  std::array<epoll_event, 256> events;
  const int n = ::epoll_pwait2(epoll_.get(), events.data(), events.size(),
                               &limit, nullptr);
  for (int i = 0; i < n; ++i) {
    const auto& event = events[static_cast<std::size_t>(i)];
    auto& c = *static_cast<connection*>(event.data.ptr);
    if (!c.gone)
      serve(c, event.events);
  }
  gone_.clear();
  expire();
}

void client::serve(connection& c, std::uint32_t events) {
  if ((events & EPOLLERR) != 0) {
    int error = 0;
    socklen_t length = sizeof error;
    (void)::getsockopt(c.fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0)
      return fail(c, failure_of(error));
  }
  if ((events & EPOLLOUT) != 0 && c.at == connection::state::asking
      && !send_request(c))
    return;
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) == 0)
    return;
  while (receive(c)) {}
}

/// False: the connection has failed.
bool client::send_request(connection& c) {
  const auto& head = c.last ? last_head_ : head_;
  while (c.head_sent < head.size()) {
    const auto n = ::send(c.fd.get(), head.data() + c.head_sent,
                          head.size() - c.head_sent, MSG_NOSIGNAL);
    if (n < 0)
      return send_failed(c);
    c.head_sent += static_cast<std::size_t>(n);
  }
  while (c.body_to_send > 0) {
    const auto n = ::send(c.fd.get(), zeroes_.data(),
                          std::min<std::uint64_t>(c.body_to_send, buffer_bytes),
                          MSG_NOSIGNAL);
    if (n < 0)
      return send_failed(c);
    c.body_to_send -= static_cast<std::uint64_t>(n);
    c.deadline = clock::now() + timeout_;
  }
  return true;
}

/// False: not only for now.
bool client::send_failed(connection& c) {
  if (errno == EAGAIN)
    return true;
  fail(c, failure_of(errno));
  return false;
}

/// False: nothing more to read now, or the connection is gone.
bool client::receive(connection& c) {
  // A body is counted, not looked at; its first part comes with the head.
  const bool counted = c.head_seen && c.body_left > 0;
  const auto room = counted ? std::min<std::uint64_t>(c.body_left, buffer_bytes)
                            : buffer_bytes;
  const auto n =
      ::recv(c.fd.get(), buffer_.data(), room, counted ? MSG_TRUNC : 0);
  if (n < 0) {
    if (errno != EAGAIN)
      fail(c, failure_of(errno));
    return false;
  }
  if (n == 0) {
    if (c.at == connection::state::asking)
      fail(c, failure::closed);
    else {
      events_.ended(c);
      drop(c);
    }
    return false;
  }
  const auto bytes = static_cast<std::size_t>(n);
  if (counted)
    c.deadline = clock::now() + timeout_;
  if (c.at != connection::state::asking) {
    fail(c, failure::wrong);
    return false;
  }
  return take(c, {buffer_.data(), counted ? 0 : bytes}, bytes)
         // A short read has emptied the socket; the end of file is an event.
         && (bytes == room || c.at == connection::state::ending);
}

/// False: the connection is gone.
bool client::take(connection& c, std::string_view data, std::size_t bytes) {
  std::string_view body;
  if (!c.head_seen) {
    if (!c.kept.empty())
      data = c.kept.append(data);
    const auto end = data.find("\r\n\r\n");
    if (end == std::string_view::npos) {
      if (c.kept.empty())
        c.kept = data;
      if (c.kept.size() < most_head_bytes)
        return true;
      fail(c, failure::wrong);
      return false;
    }
    const auto length = length_in(data.substr(0, end + 2));
    if (!data.starts_with("HTTP/1.1 200 ") || !length) {
      fail(c, failure::wrong);
      return false;
    }
    c.head_seen = true;
    c.body_left = *length;
    body = data.substr(end + 4);
    bytes = body.size();
  }
  if (bytes > c.body_left) {
    fail(c, failure::wrong);
    return false;
  }
  c.body_left -= bytes;
  bytes_ += bytes;
  if (c.body_left > 0 || c.body_to_send > 0)
    return true;
  complete(c, body);
  return !c.gone;
}

void client::complete(connection& c, std::string_view body) {
  ++c.answers;
  c.at = c.last ? connection::state::ending : connection::state::idle;
  events_.answered(c, body);
}

void client::fail(connection& c, failure why) {
  events_.failed(c, why);
  drop(c);
}

void client::drop(connection& c) {
  if (std::exchange(c.gone, true))
    return;
  c.fd.reset();
  gone_.splice(gone_.end(), all_, c.self);
}

void client::expire() {
  const auto now = clock::now();
  if (now < next_expiry_)
    return;
  next_expiry_ = now + expiry_interval;
  for (auto i = all_.begin(); i != all_.end();) {
    auto& c = *i++;
    if (c.at != connection::state::idle && c.deadline <= now)
      fail(c, failure::timed_out);
  }
  gone_.clear();
}

}  // namespace pup::bench
