// What the balancers are measured with: an HTTP/1.1 server that costs almost
// nothing. One thread, epoll, keep-alive; one small record a connection.
//
//   bench_backend [PORT]     default: the socket passed as fd 3 (LISTEN_FDS),
//                            else $PORT; on 127.0.0.1
//
//   GET /            a small body: this instance's name (PUP_ID, else the port)
//   GET /bytes/N     N bytes
//   PUT /sink        takes the body, answers with the small one
//   PUT /echo        answers with the request's body
//
// "Connection: close" closes after the answer, except an echo. SIGTERM ends it
// at once.
#include "pup/runtime/fd.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

namespace {

using pup::unique_fd;

constexpr int most_accepts = 64;
constexpr std::size_t most_head_bytes = 8 * 1024;

// Read into and sent from; bulk data is whatever it holds.
std::array<char, 1 << 20> buffer;
constexpr std::size_t chunk_bytes = 256 * 1024;

struct connection {
  explicit connection(unique_fd socket) : fd(std::move(socket)) {}

  unique_fd fd;
  // An incomplete request, or what of an echo could not be sent.
  std::string kept;
  std::uint64_t body_left = 0;
  std::uint64_t bulk_left = 0;
  bool echoing = false;
  bool last = false;
};

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

std::string variable(const char* name, std::string fallback) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : std::move(fallback);
}

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

unique_fd open_listener(const char* port) {
  // A descriptor that was passed: it may be shared, but its other owner accepts
  // only after this process has gone.
  if (port == nullptr && std::getenv("LISTEN_FDS") != nullptr) {
    if (::fcntl(3, F_SETFL, ::fcntl(3, F_GETFL) | O_NONBLOCK) < 0)
      die("bench_backend: fd 3");
    return unique_fd{3};
  }
  unique_fd fd{
      ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  const int one = 1;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(
      number(port != nullptr ? port : variable("PORT", "0"))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0
      || ::listen(fd.get(), 4096) != 0)
    die("bench_backend: listen");
  return fd;
}

class server {
public:
  server(unique_fd listener, const std::string& name)
      : listener_(std::move(listener)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    const auto body = name + '\n';
    answer_ = head(body.size()) + body;
    const int one = 1;  // inherited by what is accepted
    (void)::setsockopt(listener_.get(), IPPROTO_TCP, TCP_NODELAY, &one,
                       sizeof one);
    epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener_.get(), &event) != 0)
      die("bench_backend: epoll_ctl");
  }

  [[noreturn]] void run() {
    for (;;) {
      std::array<epoll_event, 256> events;
      const int n =
          ::epoll_wait(epoll_.get(), events.data(), events.size(), -1);
      for (int i = 0; i < n; ++i) {
        auto* c = static_cast<connection*>(events[std::size_t(i)].data.ptr);
        if (c == nullptr)
          accept_some();
        else if (!serve(*c))
          delete c;  // NOLINT(cppcoreguidelines-owning-memory): epoll's own
      }
    }
  }

private:
  static std::string head(std::uint64_t bytes) {
    return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: "
           + std::to_string(bytes) + "\r\n\r\n";
  }

  void accept_some() {
    for (int i = 0; i < most_accepts; ++i) {
      unique_fd fd{::accept4(listener_.get(), nullptr, nullptr,
                             SOCK_NONBLOCK | SOCK_CLOEXEC)};
      if (!fd)
        return;
      auto c = std::make_unique<connection>(std::move(fd));
      // Most requests come with the connection: an event saved.
      if (!serve(*c))
        continue;
      epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLET,
                        .data = {.ptr = c.get()}};
      if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, c->fd.get(), &event) == 0)
        c.release();
    }
  }

  // False: the connection is over.
  bool serve(connection& c) {
    for (;;) {
      if (c.echoing && !c.kept.empty()) {
        const auto n =
            ::send(c.fd.get(), c.kept.data(), c.kept.size(), MSG_NOSIGNAL);
        if (n < 0)
          return errno == EAGAIN;
        c.kept.erase(0, std::size_t(n));
        continue;
      }
      if (c.bulk_left > 0) {
        const auto n = ::send(c.fd.get(), buffer.data(),
                              std::min<std::uint64_t>(c.bulk_left, chunk_bytes),
                              MSG_NOSIGNAL);
        if (n < 0)
          return errno == EAGAIN;
        c.bulk_left -= std::uint64_t(n);
        if (c.bulk_left == 0 && c.last)
          return false;
        continue;
      }
      // What is only counted need not be copied.
      const bool sink = c.body_left > 0 && !c.echoing;
      const auto room =
          c.body_left > 0 ? std::min<std::uint64_t>(c.body_left, buffer.size())
                          : buffer.size();
      const auto n =
          ::recv(c.fd.get(), buffer.data(), room, sink ? MSG_TRUNC : 0);
      if (n <= 0)
        return n < 0 && errno == EAGAIN;
      if (!take(c, {buffer.data(), sink ? 0 : std::size_t(n)}, std::size_t(n)))
        return false;
      // A short read has emptied the socket; a FIN gives another event.
      if (std::size_t(n) < room && c.bulk_left == 0 && c.kept.empty())
        return true;
    }
  }

  bool take(connection& c, std::string_view data, std::size_t bytes) {
    if (c.body_left > 0) {
      c.body_left -= bytes;
      if (c.echoing)
        c.kept.append(data);
      return c.body_left > 0 || finish(c);
    }
    c.echoing = false;
    if (!c.kept.empty())
      data = c.kept.append(data);
    const auto end = data.find("\r\n\r\n");
    if (end == std::string_view::npos) {
      if (c.kept.empty())
        c.kept = data;
      return c.kept.size() < most_head_bytes;
    }
    const std::string head{data.substr(0, end + 2)};
    const std::string rest{data.substr(end + 4)};
    c.kept.clear();
    return begin(c, head) && (rest.empty() || take(c, rest, rest.size()));
  }

  bool begin(connection& c, std::string_view request) {
    constexpr std::string_view bytes = "GET /bytes/";
    constexpr std::string_view length = "Content-Length: ";
    c.last = request.find("Connection: close") != std::string_view::npos;
    if (request.starts_with(bytes)) {
      c.bulk_left = number(request.substr(bytes.size()));
      return put(c, head(c.bulk_left)) && (c.bulk_left > 0 || !c.last);
    }
    const auto at = request.find(length);
    if (at == std::string_view::npos)
      return finish(c);
    c.body_left = number(request.substr(at + length.size()));
    c.echoing = request.starts_with("PUT /echo");
    if (c.echoing && !put(c, head(c.body_left)))
      return false;
    return c.body_left > 0 || finish(c);
  }

  bool finish(connection& c) {
    if (c.echoing)
      return true;
    return put(c, answer_) && !c.last;
  }

  // Small: a socket buffer that has no room for it belongs to no client of
  // ours.
  static bool put(connection& c, std::string_view text) {
    return ::send(c.fd.get(), text.data(), text.size(), MSG_NOSIGNAL)
           == ssize_t(text.size());
  }

  unique_fd listener_;
  unique_fd epoll_;
  std::string answer_;
};

}  // namespace

int main(int argc, char** argv) {
  const char* port = argc > 1 ? argv[1] : nullptr;
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  auto listener = open_listener(port);
  const auto name =
      variable("PUP_ID", port != nullptr ? port : variable("PORT", "backend"));
  server{std::move(listener), name}.run();
}
