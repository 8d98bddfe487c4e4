// Clusters in mode "inherit": one listening socket for each slot, which the
// instances inherit; the kernel spreads the connections and no byte passes
// through pup.
//
// The sockets of a cluster are a SO_REUSEPORT group, steered by a program (see
// reuseport.hpp) over the slots that are eligible. The first one of a group is
// pup's own, the *waiting room*: it gets the connections while no slot is
// eligible. A slot's socket stays open as long as its cluster listens, so what
// is queued in it outlives a life: the next one finds it.
//
// Clients that wait where nobody will come for them are *rescued*: as soon as
// some slot is eligible, the proxy accepts what waits in the waiting room, and
// in slots without a process, and connects it to the common port.
//
//   open ──> steer to eligible slots, or to the waiting room
//   publish without a slot ──> new connections go elsewhere; those it has are
//           counted until there is none: `drained`
//   close ──> new ones wait in the waiting room until the last process has
//           left, then every socket is closed and the port is free
//
// That a process has closed its last connection is told by no event, so while a
// drain runs, and only then, they are counted on a timer: after 1, 2, 4 … 128
// ms. A count reads /proc/net/tcp and the descriptors of one process group.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/listening.hpp"
#include "pup/runtime/proxy.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <sys/types.h>

namespace boost::asio {
class io_context;
}

namespace pup {

/// What identifies a group, and how it is steered.
struct inherit_options {
  /// Numeric address. Empty: all addresses of both families.
  std::string host;
  std::uint16_t port = 0;  ///< 0: the kernel chooses
  /// random or source_ip_hash; the kernel can do no other.
  balance_strategy strategy = balance_strategy::random;
};

/// Connections of a group as far as the kernel tells.
struct inherit_traffic {
  std::uint16_t port = 0;  ///< 0: not listening
  std::uint32_t active = 0;
  std::vector<backend_traffic> backends;  ///< `total` is unknown, 0
};

/// Where rescued clients go, and who hears of drains. Any may be empty. Called
/// with the lock held, from any thread: they must not call back.
struct inherit_events {
  std::function<void(const drained&)> drained;
  /// Accept on `socket`, which is listening and non-blocking, for `key` and
  /// connect each client to `to`.
  std::function<void(const std::string& key, unique_fd socket,
                     const endpoint& to)>
      rescue;
  /// Stop accepting for `key`; what is queued stays. On return nothing more is
  /// accepted.
  std::function<void(const std::string& key)> stop_rescue;
};

/// The groups of one supervisor. Any thread.
class inherit_groups {
public:
  /// Drains are watched on `loop`, which must outlive this.
  explicit inherit_groups(boost::asio::io_context& loop);
  inherit_groups(const inherit_groups&) = delete;
  inherit_groups& operator=(const inherit_groups&) = delete;
  ~inherit_groups();

  /// Empty events stop all rescues first.
  void connect(inherit_events events);

  /// Listens for `cluster`, or goes on with what is open: a closing group is
  /// kept, another strategy taken over. Another host or port is an error while
  /// processes hold the former sockets (EBUSY).
  listen_result open(const std::string& cluster,
                     const inherit_options& options);

  /// The socket of `slot` for a process to be started, in blocking mode. Opens
  /// the group when it is not open yet: the instance may be first. From now on
  /// the slot has a process, until left().
  std::variant<unique_fd, listen_error> take(const std::string& cluster,
                                             const inherit_options& options,
                                             std::uint32_t slot);
  /// Its process, for counting: all of its group's connections are its own.
  /// Also that of a slot whose process was started before restore().
  void holds(const std::string& cluster, std::uint32_t slot, pid_t group);
  /// The process is gone, or never came to be.
  void left(const std::string& cluster, std::uint32_t slot);

  // Sockets that outlive this process. Somebody keeps duplicates(); meanwhile,
  // and after the end of this process, the kernel steers as it was told last,
  // and instances serve.

  /// The waiting room's and every slot's, in the order of the group; none when
  /// it is not open. Further ones come to the end, by take() alone. When the
  /// group has closed they listen no more, nor do their duplicates.
  [[nodiscard]] std::variant<kept_sockets, listen_error> duplicates(
      const std::string& cluster) const;

  /// open() with the sockets of a former process. The kernel goes on steering
  /// as before until publish() or close(). Slots have processes for which
  /// holds() is called; do so for all before publish(), or their clients are
  /// rescued from them. An error, with nothing changed and `kept` closed: they
  /// are none or of no group (EINVAL), not at host and port (EADDRNOTAVAIL),
  /// do not listen, or the group is open (EALREADY).
  listen_result restore(const std::string& cluster,
                        const inherit_options& options, kept_sockets kept);

  /// Replaces the eligible slots; a draining one is reported once it has no
  /// connection.
  void publish(const std::string& cluster,
               const std::vector<backend>& backends);

  void close(const std::string& cluster);

  /// Leaves all groups to a successor that restores duplicates; nothing is
  /// known of them any more.
  void let_go();

  [[nodiscard]] inherit_traffic totals(const std::string& cluster) const;
  [[nodiscard]] bool knows(const std::string& cluster) const;

private:
  class impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace pup
