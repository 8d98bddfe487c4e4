// A small HTTP/1.1 server for demonstrations and tests: one thread, epoll,
// keep-alive, and a graceful end on SIGTERM.
//
//   http_server [PORT [ADDRESS]]      default: $PORT, 127.0.0.1; port 0: any
//
// With LISTEN_FDS and LISTEN_PID (mode "inherit", or systemd's sockets) it also
// serves the socket that it finds as descriptor 3, and needs no PORT.
//
//   GET /                "my-scalable-app-1 pid 4711 port 8000", id from PUP_ID
//   GET /slow?ms=50      the same, 50 ms later; others are not delayed
//   GET /bytes?n=1000000 that many bytes
//   GET /env?NAME        the value of a variable
//   GET /exit?code=3     no answer: the process ends
//   GET /unlisten        closes the listening socket, lives on
//
// IGNORE_TERM=1 ignores SIGTERM; START_DELAY_MS waits before it listens.
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <strings.h>
#include <thread>
#include <utility>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

using clock_type = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t most_head_bytes = 16 * 1024;
constexpr std::size_t chunk_bytes = 64 * 1024;
constexpr long most_number = 1L << 40;
// How long the end waits for the first request of a connection it has accepted,
// and how long a closing connection for the client's end of file.
constexpr milliseconds patience{1000};

struct connection {
  std::string in;
  std::string out;
  std::size_t filler = 0;     // bytes of body still to be made up after `out`
  std::size_t body_left = 0;  // of the request, to be skipped
  bool asked = false;         // has had a request
  bool waiting = false;       // for `deadline`, to answer
  bool last = false;          // close after this answer
  bool closing = false;       // we have sent our end of file
  bool peer_ended = false;
  clock_type::time_point deadline = clock_type::time_point::max();
};

[[noreturn]] void die(const std::string& what) {
  std::perror(("http_server: " + what).c_str());
  std::exit(1);
}

std::string variable(const std::string& name, const char* fallback = "") {
  const char* value = std::getenv(name.c_str());
  return value != nullptr ? value : fallback;
}

long number(std::string_view text, long fallback) {
  long value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() && value >= 0
                 && value <= most_number
             ? value
             : fallback;
}

// Value of a header, its name in any case; empty when absent.
std::string_view header(std::string_view head, std::string_view name) {
  for (auto at = head.find("\r\n"); at != std::string_view::npos;
       at = head.find("\r\n", at + 2)) {
    const auto line = head.substr(at + 2, head.find("\r\n", at + 2) - at - 2);
    if (line.size() <= name.size() || line[name.size()] != ':'
        || ::strncasecmp(line.data(), name.data(), name.size()) != 0)
      continue;
    const auto begin = line.find_first_not_of(" \t", name.size() + 1);
    return begin == std::string_view::npos ? "" : line.substr(begin);
  }
  return {};
}

bool is(std::string_view text, std::string_view lower) {
  return text.size() == lower.size()
         && ::strncasecmp(text.data(), lower.data(), lower.size()) == 0;
}

class server {
public:
  // `port` below 0: only the inherited socket.
  server(const std::string& address, int port, int inherited)
      : inherited_(inherited) {
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    if (port >= 0)
      listen(address, static_cast<std::uint16_t>(port));
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    signals_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (epoll_ < 0 || signals_ < 0)
      die("start");
    for (const int fd : {listener_, inherited_})
      if (fd >= 0)
        watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    watch(signals_, EPOLLIN, EPOLL_CTL_ADD);
    std::printf("listening on %s port %u\n", address.c_str(), port_);
    std::fflush(stdout);
  }

  void run() {
    while (!stopping_ || !connections_.empty()) {
      epoll_event events[64];
      const int n = ::epoll_wait(epoll_, events, 64, timeout());
      for (int i = 0; i < n; ++i)
        dispatch(events[i].data.fd, events[i].events);
      expire();
    }
  }

private:
  using entry = std::map<int, connection>::iterator;

  void listen(const std::string& address, std::uint16_t port) {
    sockaddr_in6 v6{};
    sockaddr_in v4{};
    const bool ipv6 = address.find(':') != std::string::npos;
    v6.sin6_family = AF_INET6;
    v4.sin_family = AF_INET;
    v6.sin6_port = v4.sin_port = htons(port);
    void* binary = ipv6 ? static_cast<void*>(&v6.sin6_addr) : &v4.sin_addr;
    auto* where = ipv6 ? reinterpret_cast<sockaddr*>(&v6)
                       : reinterpret_cast<sockaddr*>(&v4);
    socklen_t size = ipv6 ? sizeof(v6) : sizeof(v4);
    listener_ = ::socket(where->sa_family,
                         SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (::inet_pton(where->sa_family, address.c_str(), binary) != 1
        || ::bind(listener_, where, size) != 0
        || ::listen(listener_, SOMAXCONN) != 0
        || ::getsockname(listener_, where, &size) != 0)
      die("listen on " + address + " port " + std::to_string(port));
    port_ = ntohs(ipv6 ? v6.sin6_port : v4.sin_port);
  }

  void watch(int fd, std::uint32_t events, int operation) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_, operation, fd, &event) != 0)
      die("epoll_ctl");
  }

  void dispatch(int fd, std::uint32_t events) {
    if (fd == listener_ || fd == inherited_) {
      accept_all(fd);
    } else if (fd == signals_) {
      stop();
    } else if (const auto found = connections_.find(fd);
               found != connections_.end()) {
      if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0 || receive(found))
        advance(found);
    }
  }

  void accept_all(int listener) {
    for (;;) {
      const int fd =
          ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd < 0 && errno == ECONNABORTED)
        continue;
      if (fd < 0)  // EAGAIN; or no descriptor left: the queue waits
        return;
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      connections_[fd];
      watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
  }

  void unlisten() {
    for (int* fd : {&listener_, &inherited_}) {
      if (*fd < 0)
        continue;
      accept_all(*fd);  // what the queue holds would be reset
      // Others may have the inherited one, so closing does not end the watch.
      ::epoll_ctl(epoll_, EPOLL_CTL_DEL, *fd, nullptr);
      ::close(std::exchange(*fd, -1));
    }
  }

  void stop() {
    unlisten();
    signalfd_siginfo ignored;
    [[maybe_unused]] const auto size =
        ::read(signals_, &ignored, sizeof(ignored));
    stopping_ = true;
    for (auto at = connections_.begin(); at != connections_.end();) {
      const auto current = at++;
      auto& c = current->second;
      if (!c.out.empty() || c.filler > 0 || c.waiting || c.closing)
        continue;  // it ends with its answer
      if (c.asked && c.in.empty())
        finish(current);
      else
        c.deadline = clock_type::now() + patience;
    }
  }

  // False: the connection is gone.
  bool receive(entry at) {
    char buffer[chunk_bytes];
    const auto n = ::read(at->first, buffer, sizeof(buffer));
    auto& c = at->second;
    if (n > 0) {
      if (!c.closing)
        c.in.append(buffer, static_cast<std::size_t>(n));
      return true;
    }
    if (n < 0 && errno == EAGAIN)
      return true;
    c.peer_ended = true;
    const bool busy = !c.out.empty() || c.filler > 0 || c.waiting
                      || c.in.find("\r\n\r\n") != std::string::npos;
    if (n == 0 && busy && !c.closing)
      return true;  // a client may end its half early and still want its answer
    drop(at);
    return false;
  }

  void advance(entry at) {
    auto& c = at->second;
    for (;;) {
      if (!send(at))
        return;
      if (!c.out.empty() || c.filler > 0 || c.waiting || c.closing)
        break;
      if (c.last || (stopping_ && c.asked && c.in.empty())
          || (c.peer_ended && c.in.find("\r\n\r\n") == c.in.npos)) {
        finish(at);
        return;
      }
      if (!parse(c))
        break;
    }
    // Backpressure: nothing is read while an answer is being sent.
    const bool sending = !c.out.empty() || c.filler > 0;
    const bool reading = !sending && !c.peer_ended && !c.waiting;
    watch(at->first, (sending ? EPOLLOUT : 0U) | (reading ? EPOLLIN : 0U),
          EPOLL_CTL_MOD);
  }

  // One request from `in`, if it is complete.
  bool parse(connection& c) {
    const auto skipped = std::min(c.body_left, c.in.size());
    c.in.erase(0, skipped);
    c.body_left -= skipped;
    const auto end = c.in.find("\r\n\r\n");
    if (end == std::string::npos) {
      if (c.in.size() <= most_head_bytes)
        return false;
      c.last = true;
      answer(c, "431 Request Header Fields Too Large", "head too large\n");
      return true;
    }
    const auto head = c.in.substr(0, end);
    c.in.erase(0, end + 4);
    c.asked = true;
    c.deadline = clock_type::time_point::max();
    const auto line = head.substr(0, head.find("\r\n"));
    const auto target_at = line.find(' ') + 1;
    const auto version_at = line.rfind(' ') + 1;
    const bool http_1_1 = line.substr(version_at) == "HTTP/1.1";
    c.last = stopping_
             || (http_1_1 ? is(header(head, "connection"), "close")
                          : !is(header(head, "connection"), "keep-alive"));
    const auto length = header(head, "content-length");
    c.body_left = static_cast<std::size_t>(number(length, 0));
    const auto method = line.substr(0, line.find(' '));
    if (version_at <= target_at
        || !line.substr(version_at).starts_with("HTTP/1.")
        || !header(head, "transfer-encoding").empty()
        || (!length.empty() && number(length, -1) < 0)) {
      c.last = true;
      answer(c, "400 Bad Request", "bad request\n");
    } else if (method != "GET" && method != "HEAD" && method != "POST") {
      answer(c, "405 Method Not Allowed", "GET, HEAD or POST\n");
    } else {
      route(c, line.substr(target_at, version_at - target_at - 1),
            method == "HEAD");
    }
    return true;
  }

  void route(connection& c, const std::string& target, bool head_only) {
    const auto path = target.substr(0, target.find('?'));
    const auto query = path.size() < target.size()
                           ? target.substr(path.size() + 1)
                           : std::string{};
    const auto value = std::string_view{query}.substr(
        std::min(query.size(), query.find('=') + 1));
    const auto hello = variable("PUP_ID", "http_server") + " pid "
                       + std::to_string(::getpid()) + " port "
                       + std::to_string(port_) + '\n';
    if (path == "/exit")
      std::_Exit(static_cast<int>(number(value, 0)));
    if (path == "/unlisten")
      unlisten();
    if (path == "/slow") {
      c.waiting = true;
      c.deadline = clock_type::now() + milliseconds{number(value, 0)};
    }
    if (path == "/env")
      answer(c, "200 OK", variable(query) + '\n', 0, head_only);
    else if (path == "/bytes")
      answer(c, "200 OK", "", static_cast<std::size_t>(number(value, 0)),
             head_only);
    else if (path == "/" || path == "/slow" || path == "/unlisten")
      answer(c, "200 OK", hello, 0, head_only);
    else
      answer(c, "404 Not Found", "no such page\n", 0, head_only);
  }

  static void answer(connection& c, const std::string& status,
                     const std::string& body, std::size_t filler = 0,
                     bool head_only = false) {
    c.out = "HTTP/1.1 " + status + "\r\nContent-Type: text/plain\r\n"
            + "Content-Length: " + std::to_string(body.size() + filler)
            + (c.last ? "\r\nConnection: close\r\n\r\n" : "\r\n\r\n");
    c.out += head_only ? "" : body;
    c.filler = head_only ? 0 : filler;
  }

  // False: the connection is gone.
  bool send(entry at) {
    auto& c = at->second;
    while (!c.waiting && (!c.out.empty() || c.filler > 0)) {
      if (c.out.size() < chunk_bytes && c.filler > 0) {
        const auto more = std::min(c.filler, chunk_bytes);
        c.out.append(more, 'x');
        c.filler -= more;
      }
      const auto n =
          ::send(at->first, c.out.data(), c.out.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EAGAIN)
        return true;
      if (n < 0) {
        drop(at);
        return false;
      }
      c.out.erase(0, static_cast<std::size_t>(n));
    }
    return true;
  }

  // Sends our end of file and waits for the client's: closing at once could
  // reset the connection before the client has read the answer.
  void finish(entry at) {
    auto& c = at->second;
    if (c.peer_ended || ::shutdown(at->first, SHUT_WR) != 0) {
      drop(at);
      return;
    }
    c.closing = true;
    c.deadline = clock_type::now() + patience;
    watch(at->first, EPOLLIN, EPOLL_CTL_MOD);
  }

  void drop(entry at) {
    ::close(at->first);
    connections_.erase(at);
  }

  int timeout() const {
    auto next = clock_type::time_point::max();
    for (const auto& [fd, c] : connections_)
      next = std::min(next, c.deadline);
    if (next == clock_type::time_point::max())
      return -1;
    const auto left =
        std::chrono::ceil<milliseconds>(next - clock_type::now()).count();
    return static_cast<int>(std::clamp<long>(left, 0, 60'000));
  }

  void expire() {
    const auto now = clock_type::now();
    for (auto at = connections_.begin(); at != connections_.end();) {
      const auto current = at++;
      auto& c = current->second;
      if (c.deadline > now)
        continue;
      c.deadline = clock_type::time_point::max();
      if (std::exchange(c.waiting, false))
        advance(current);
      else
        drop(current);
    }
  }

  int epoll_ = -1;
  int listener_ = -1;
  int inherited_ = -1;
  int signals_ = -1;
  std::uint16_t port_ = 0;
  bool stopping_ = false;
  std::map<int, connection> connections_;
};

// Descriptor 3, if whoever started this program says that it is a socket for
// it.
int inherited_socket() {
  if (number(variable("LISTEN_PID"), 0) != ::getpid()
      || number(variable("LISTEN_FDS"), 0) < 1)
    return -1;
  const int fd = 3;
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  return fd;
}

}  // namespace

int main(int argc, char** argv) {
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  if (variable("IGNORE_TERM") == "1")
    std::signal(SIGTERM,
                SIG_IGN);  // an ignored signal never reaches a signalfd
  else
    sigprocmask(SIG_BLOCK, &term, nullptr);
  const auto port_text = argc > 1 ? std::string{argv[1]} : variable("PORT");
  const long port = number(port_text, -1);
  const int inherited = inherited_socket();
  const bool has_port = !port_text.empty();
  if ((!has_port && inherited < 0)
      || (has_port && (port < 0 || port > 65535))) {
    std::fprintf(stderr, "usage: http_server [PORT [ADDRESS]]\n");
    return 2;
  }
  const milliseconds delay{number(variable("START_DELAY_MS"), 0)};
  std::this_thread::sleep_for(delay);
  server{argc > 2 ? argv[2] : "127.0.0.1",
         has_port ? static_cast<int>(port) : -1, inherited}
      .run();
}
