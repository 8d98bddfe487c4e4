// Supervisors that have made room for a successor and carry what connections
// they have, and that successor: which backends are to drain, and which have.
//
// Each carrier leaves one end of a socket with whoever holds descriptors for
// its successors, the guardian. Packets (SOCK_SEQPACKET) of text, as the two
// may be of different versions; what one does not understand it ignores:
//
//   drain SLOT LIFE KEY       to the carrier: tell when it has no connection to
//                             that life of an instance of the cluster KEY
//   drained SLOT LIFE KEY     the answer, for good: it gets no new connections
//
// A carrier that has ended has no connection any more.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/proxy.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace boost::asio {
class io_context;
}

namespace pup {

/// The side of the successor: all who carry something.
class carriers {
public:
  /// Takes their sockets out of what was held for this process, by name. What
  /// happens happens on `loop`, which may run; `drop`, too: that name need not
  /// be held any more.
  carriers(boost::asio::io_context& loop,
           std::map<std::string, unique_fd>& held,
           std::function<void(const std::string& name)> drop);
  carriers(const carriers&) = delete;
  carriers& operator=(const carriers&) = delete;
  ~carriers();

  /// Calls `then` on the loop when none of them has a connection to that life.
  /// Any thread.
  void drain(const std::string& key, std::uint32_t slot, std::uint64_t life,
             std::function<void()> then);

private:
  class impl;
  boost::asio::io_context& loop_;
  std::shared_ptr<impl> impl_;
};

/// The side of one who carries.
class carrier {
public:
  /// Has its socket held under a name, borrowed for the call. Where the kernel
  /// gives none it cannot be asked.
  explicit carrier(
      const std::function<void(const std::string& name, int fd)>& hold);
  carrier(const carrier&) = delete;
  carrier& operator=(const carrier&) = delete;
  ~carrier();

  /// Does from now on, on a thread of its own, what successors ask.
  void serve(std::shared_ptr<proxy> plane);

  /// What has happened in the plane. Any thread.
  void tell(const proxy_fact& fact);

private:
  class impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace pup
