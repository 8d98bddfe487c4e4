// Backends, clients and a proxy on loopback, a few lines each. Every wait is
// for an event with a generous deadline.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/proxy.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace loopback {

using namespace pup;
using namespace std::chrono_literals;

inline constexpr auto patience = 30s;

// -- sockets ------------------------------------------------------------------

[[noreturn]] inline void fail_errno(const char* what) {
  throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

inline sockaddr_in ipv4(std::uint32_t address, std::uint16_t port) {
  sockaddr_in result{};
  result.sin_family = AF_INET;
  result.sin_addr.s_addr = htonl(address);
  result.sin_port = htons(port);
  return result;
}

inline constexpr std::uint32_t localhost = 0x7f000001;

/// Gives up on a peer that hangs, so that a test fails instead.
inline void set_patience(int fd) {
  timeval limit{30, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

/// Bound to a free port of 127.0.0.1; not listening, so it refuses.
inline unique_fd bound(std::uint16_t port = 0) {
  unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int one = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const auto address = ipv4(localhost, port);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
             sizeof address)
      != 0)
    fail_errno("bind");
  return fd;
}

inline std::uint16_t port_of(const unique_fd& fd) {
  sockaddr_in address{};
  socklen_t length = sizeof address;
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

inline unique_fd listening(int backlog = 4096) {
  auto fd = bound();
  if (::listen(fd.get(), backlog) != 0)
    fail_errno("listen");
  return fd;
}

inline unique_fd accepted(const unique_fd& listener) {
  pollfd p{listener.get(), POLLIN, 0};
  if (::poll(&p, 1, 30'000) != 1)
    throw std::runtime_error("nobody connected");
  unique_fd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd)
    fail_errno("accept");
  set_patience(fd.get());
  return fd;
}

inline unique_fd connected(std::uint16_t port, std::uint32_t from = 0) {
  unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd)
    fail_errno("socket");
  set_patience(fd.get());
  if (from != 0) {
    const auto source = ipv4(from, 0);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&source),
               sizeof source)
        != 0)
      fail_errno("bind source");
  }
  const auto address = ipv4(localhost, port);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                sizeof address)
      != 0)
    fail_errno("connect");
  return fd;
}

inline bool send_all(const unique_fd& fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0)
      return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

/// What arrived until FIN, or until an error, which is left in `error`.
inline std::string read_all(const unique_fd& fd, int* error = nullptr) {
  std::string result;
  std::vector<char> buffer(256 * 1024);
  for (;;) {
    const auto n = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && error)
      *error = errno;
    if (n <= 0)
      return result;
    result.append(buffer.data(), static_cast<std::size_t>(n));
  }
}

inline std::string read_some(const unique_fd& fd, std::size_t bytes) {
  std::string result(bytes, '\0');
  const auto n = ::recv(fd.get(), result.data(), bytes, MSG_WAITALL);
  result.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return result;
}

inline void end_sending(const unique_fd& fd) {
  ::shutdown(fd.get(), SHUT_WR);
}

inline void reset(unique_fd& fd) {
  const linger at_once{1, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  fd.reset();
}

inline bool readable_within(const unique_fd& fd,
                            std::chrono::milliseconds limit) {
  pollfd p{fd.get(), POLLIN, 0};
  return ::poll(&p, 1, static_cast<int>(limit.count())) > 0;
}

inline std::string random_bytes(std::size_t size, unsigned seed) {
  std::mt19937_64 numbers(seed);
  std::string result(size, '\0');
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const auto x = numbers();
    std::memcpy(result.data() + i, &x, 8);
  }
  return result;
}

// -- backends -----------------------------------------------------------------

/// Serves each connection on a thread of its own.
class server {
public:
  using serve_function = std::function<void(unique_fd)>;

  explicit server(serve_function serve)
      : serve_(std::move(serve)), listener_(listening()) {
    thread_ = std::thread([this] { run(); });
  }

  ~server() {
    stopping_ = true;
    ::shutdown(listener_.get(), SHUT_RDWR);  // accept returns
    thread_.join();
    for (auto& x : workers_)
      x.thread.join();
  }

  [[nodiscard]] std::uint16_t port() const {
    return port_of(listener_);
  }

private:
  struct worker {
    std::thread thread;
    std::shared_ptr<std::atomic<bool>> done;
  };

  void run() {
    while (!stopping_) {
      unique_fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd)
        continue;
      set_patience(fd.get());
      // A thread that has ended keeps its stack until it is joined.
      std::erase_if(workers_, [](worker& x) {
        if (*x.done)
          x.thread.join();
        return !x.thread.joinable();
      });
      const auto done = std::make_shared<std::atomic<bool>>(false);
      workers_.push_back(
          {std::thread([this, done, peer = std::move(fd)]() mutable {
             serve_(std::move(peer));
             *done = true;
           }),
           done});
    }
  }

  serve_function serve_;
  unique_fd listener_;
  std::atomic<bool> stopping_{false};
  std::vector<worker> workers_;
  std::thread thread_;
};

/// Sends one character that says who it is, and hangs up when the client does.
inline server::serve_function tags(char tag) {
  return [tag](unique_fd fd) {
    send_all(fd, std::string(1, tag));
    read_all(fd);
  };
}

inline void echo(unique_fd fd) {
  std::vector<char> buffer(100'000);
  for (;;) {
    const auto n = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
    if (n <= 0 || !send_all(fd, {buffer.data(), static_cast<std::size_t>(n)}))
      return;
  }
}

/// Sends everything back once it has seen the end: proves half-close.
inline void echo_at_end(unique_fd fd) {
  send_all(fd, read_all(fd));
}

inline backend at(std::uint32_t slot, std::uint16_t port,
                  bool draining = false) {
  return {slot, slot + 100u, loopback_v4(port), draining};
}

// -- proxy --------------------------------------------------------------------

/// Until true, with a deadline. For counters, which no event announces.
template <class Condition>
inline bool eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline)
      return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

class fact_log {
public:
  void add(const proxy_fact& x) {
    {
      const std::lock_guard lock(mutex_);
      facts_.push_back(x);
    }
    changed_.notify_all();
  }

  bool wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience,
                             [&] { return facts_.size() >= count; });
  }

  std::vector<proxy_fact> all() {
    const std::lock_guard lock(mutex_);
    return facts_;
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<proxy_fact> facts_;
};

struct fixture {
  fact_log facts;
  proxy balancer;
  std::uint16_t port = 0;
  listener_options options;

  explicit fixture(listener_options wanted = {}, unsigned shards = 1)
      : balancer([this](const proxy_fact& x) { facts.add(x); }, shards),
        options(std::move(wanted)) {
    const auto result = balancer.listen("app", options);
    if (!result)
      throw std::runtime_error(to_string(*result.error));
    port = result.port;
  }

  /// Publishes and returns when the set is in use: listen() waits for that.
  void publish(std::vector<backend> set) {
    balancer.publish("app", std::move(set));
    if (!balancer.listen("app", options))
      throw std::runtime_error("cannot listen");
  }

  listener_traffic totals() {
    return balancer.totals("app");
  }

  bool active_is(std::uint32_t wanted) {
    return eventually([&] { return totals().active == wanted; });
  }

  backend_traffic of(std::uint32_t slot) {
    for (auto& x : totals().backends)
      if (x.slot == slot)
        return x;
    return {};
  }

  /// The tag of the backend that serves a new connection.
  std::string tag(std::uint32_t from = 0) {
    return read_some(connected(port, from), 1);
  }
};

/// Sends and receives at once, as real peers do.
inline std::string exchange(const unique_fd& fd, const std::string& bytes) {
  std::thread sender([&] {
    send_all(fd, bytes);
    end_sending(fd);
  });
  auto result = read_all(fd);
  sender.join();
  return result;
}

inline std::chrono::nanoseconds cpu_time() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

}  // namespace loopback
