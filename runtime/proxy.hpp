// The balancer's data plane as its owner sees it: listeners with a name, the
// backends behind each, and facts coming back.
//
// Bytes move on threads of the proxy's own. All functions may be called from
// any thread and take effect in the order of the calls. What an actor decides
// arrives as immutable snapshots; no call is made back per connection.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/picker.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace pup {

struct listener_options {
  /// Numeric IPv4 or IPv6 address. Empty: all addresses of both, or of IPv4
  /// where the machine has no IPv6.
  std::string host;
  /// 0: the kernel chooses; see proxy::port().
  std::uint16_t port = 0;
  balance_strategy strategy = balance_strategy::round_robin;
  /// Further clients wait in the listen queue. 0: bounded by descriptors only.
  /// With several shards each has an equal part.
  std::uint32_t max_connections = 0;
  /// A connection without a byte in either direction is closed after 1 to
  /// 1.125 times this. 0: never.
  std::chrono::milliseconds idle_timeout{0};
  /// For one connect to a backend, and for how long an accepted client waits
  /// when none can be reached. At least 1 ms.
  std::chrono::milliseconds connect_timeout{5'000};
};

/// A system call failed.
struct listen_error {
  std::string call;    ///< such as "bind"
  std::string object;  ///< such as "[::]:3000"
  int code = 0;        ///< errno, such as EADDRINUSE
};

/// "bind [::]:3000: Address already in use"
std::string to_string(const listen_error& x);

struct listen_result {
  std::optional<listen_error> error;
  /// The port listened on.
  std::uint16_t port = 0;

  explicit operator bool() const noexcept {
    return !error;
  }
};

/// A draining backend has no connection any more, or had none when its drain
/// was published. Reported once for each drain.
struct drained {
  std::string key;
  std::uint32_t slot = 0;
  std::uint64_t life = 0;

  bool operator==(const drained&) const = default;
};

/// What the proxy reports; a variant in spirit, with one alternative so far.
using proxy_fact = drained;

struct backend_traffic {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  /// Connections now, those that are still being made included.
  std::uint32_t active = 0;
  /// Connections ever given to it, failed attempts included.
  std::uint64_t total = 0;
};

struct listener_traffic {
  /// Client connections now, waiting ones included.
  std::uint32_t active = 0;
  std::uint64_t total = 0;
  /// Bytes received from clients, and from backends.
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
  /// Accepted clients that were closed because no backend could be reached.
  std::uint64_t rejected = 0;
  /// Of the published set, and of removed ones that still have connections.
  std::vector<backend_traffic> backends;
};

/// Listeners, connections and the threads that serve them.
class proxy {
public:
  /// `on_fact` is called on a loop thread: it must not block, and may call
  /// this proxy. `shards` is the number of loops, at least 1; with more than
  /// one every port is shared by SO_REUSEPORT. Throws std::system_error when
  /// the kernel gives no thread or no epoll descriptor.
  explicit proxy(std::function<void(proxy_fact)> on_fact, unsigned shards = 1);
  proxy(const proxy&) = delete;
  proxy& operator=(const proxy&) = delete;
  /// Closes listeners and connections, joins the threads. Not from on_fact.
  ~proxy();

  /// Listens for `key`. For a key that listens already: the same host and port
  /// keep sockets and connections and only take the other options; another
  /// host or port is opened first, then the former closed, connections kept.
  /// On an error everything stays as it was. Accepts once an eligible backend
  /// is published. On return all that was asked before is in effect (unless
  /// called from on_fact).
  listen_result listen(const std::string& key, const listener_options& options);

  /// Port `key` listens on; 0 when it does not.
  [[nodiscard]] std::uint16_t port(const std::string& key) const;

  /// Replaces the backends, without waiting for the loops: a connection that
  /// is accepted at this moment may still go to a former one. A removed one
  /// keeps the connections it has; one that is draining keeps them too and is
  /// reported when the last has ended. While none is eligible clients wait in
  /// the listen queue.
  void publish(const std::string& key, std::vector<backend> backends);

  /// Stops listening: the port is free on return (unless called from on_fact),
  /// clients still queued are reset if no backend was eligible or there was no
  /// room for them, connections go on.
  void close(const std::string& key);

  /// Closes the connections of `key`; a closed key is forgotten with them.
  void cut(const std::string& key);

  /// All zero for an unknown key.
  [[nodiscard]] listener_traffic totals(const std::string& key) const;

private:
  class impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace pup
