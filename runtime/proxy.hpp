// The balancer's data plane as its owner sees it: listeners with a name, the
// backends behind each, and facts coming back.
//
// Bytes move on threads of the proxy's own. All functions may be called from
// any thread and take effect in the order of the calls. What an actor decides
// arrives as immutable snapshots; no call is made back per connection.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/fd.hpp"
#include "pup/runtime/listening.hpp"
#include "pup/runtime/picker.hpp"
#include "pup/runtime/proxy_facts.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
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
  std::uint32_t max_connections = 0;
  /// A connection without a byte in either direction is closed after 1 to
  /// 1.125 times this. 0: never.
  std::chrono::milliseconds idle_timeout{0};
  /// For one connect to a backend, and for how long an accepted client waits
  /// when none can be reached. At least 1 ms.
  std::chrono::milliseconds connect_timeout{5'000};
  /// For how long a client waits in the listen queue while no backend is
  /// eligible: up to 1.125 times this. At least 1 ms.
  std::chrono::milliseconds ready_timeout{60'000};
  /// Sent to a backend before anything else, with the client's first bytes if
  /// they are there when the backend has accepted, alone if not: a backend may
  /// be the one to speak first. Probes send one that names nobody.
  proxy_header header = proxy_header::none;
};

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
  /// Clients that wait in the listen queue, of all that were not accepted yet.
  std::uint32_t queued = 0;
  /// Clients that were closed because no backend could be reached in time.
  std::uint64_t rejected = 0;
  /// Of the published set, and of removed ones that still have connections.
  std::vector<backend_traffic> backends;
};

/// As many shards as this process may use processors, at most 8: beyond them
/// the kernel's part of the work is what counts, and more would only take
/// memory (about 0.1 MiB each).
unsigned default_shards();

/// Listeners, connections and the threads that serve them.
class proxy {
public:
  /// `on_fact` is called on a loop thread: it must not block, and may call
  /// this proxy. `shards` is the number of loops, 1 to bounds::loops; with
  /// more than one every port is shared by SO_REUSEPORT. Throws
  /// std::system_error when the kernel gives no thread or no epoll descriptor.
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

  // Sockets that outlive this proxy. Somebody keeps duplicates(); meanwhile,
  // and after the end of this process, clients are queued by the kernel. The
  // next proxy takes them over with listen() and serves who is queued.

  /// Those `key` listens on, in their order; none when it does not listen, or
  /// on an adopted one. They are others after listen() at another host or port,
  /// and after close(), when the former ones listen no more, their duplicates
  /// neither.
  [[nodiscard]] std::variant<kept_sockets, listen_error> duplicates(
      const std::string& key) const;

  /// listen() with the sockets that a former proxy had for `key`, whatever the
  /// number of its shards. Those that are not at host and port, or too many,
  /// are closed once all that is queued there was accepted. Where further ones
  /// cannot be opened some shards have none. An error, with nothing changed and
  /// `kept` closed: one of them does not listen, `key` does already (EALREADY),
  /// or none is at host and port and the port cannot be opened.
  listen_result listen(const std::string& key, const listener_options& options,
                       kept_sockets kept);

  /// Stops listening, for a successor that is to take over duplicates: who is
  /// queued or comes waits for it, connections go on. Nothing is accepted any
  /// more on return (unless called from on_fact).
  void let_go(const std::string& key);

  /// Lets go of all listeners, for good; `done` is called on a loop thread when
  /// the last connection has ended. Facts go to `on_fact` from now on. Nothing
  /// but drain() and the end of this may follow.
  void finish(std::function<void()> done,
              std::function<void(proxy_fact)> on_fact);

  /// After finish(): reports once that a life has no connection any more, or
  /// never had one.
  void drain(const std::string& key, std::uint32_t slot, std::uint64_t life);

  /// Accepts for `key` from a listening socket that someone else made and other
  /// processes may hold too (an inherited one: see also accept(2)). One loop
  /// serves it. `host`, `port` of the options are not looked at. What `key`
  /// listened on before is closed. close() gives back this descriptor alone:
  /// the socket goes on, and who is queued stays queued for its other holders.
  ///
  /// Whether it blocks is left to them: where it does, it is made non-blocking
  /// for the few microseconds of an accept that is known to find someone. So
  /// holders that accept from a blocking one at the same time must expect
  /// EAGAIN.
  listen_result adopt(const std::string& key, unique_fd socket,
                      const listener_options& options);

  /// Port `key` listens on; 0 when it does not.
  [[nodiscard]] std::uint16_t port(const std::string& key) const;

  /// Replaces the backends, without waiting for the loops: a connection that
  /// is accepted at this moment may still go to a former one. A removed one
  /// keeps the connections it has; one that is draining keeps them too and is
  /// reported when the last has ended. While none is eligible clients wait in
  /// the listen queue, up to ready_timeout.
  void publish(const std::string& key, std::vector<backend> backends);
  /// The same; `done` is called on a loop thread once every loop has applied
  /// the set: from then on no new connection goes to a former one. In the order
  /// of the calls; not if the proxy ends before. As on_fact otherwise.
  void publish(const std::string& key, std::vector<backend> backends,
               std::function<void()> done);

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
