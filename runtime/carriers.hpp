// Supervisors that have made room for a successor and carry what connections
// they have, and that successor: which backends are to drain, and which have.
//
// Each carrier leaves one end of a socket with the guardian, for every
// successor it will have. Packets (SOCK_SEQPACKET) of text, as the two may be
// of different versions; what one does not understand it ignores:
//
//   drain SLOT LIFE KEY       to the carrier: tell when it has no connection to
//                             that life of an instance of the cluster KEY
//   drained SLOT LIFE KEY     the answer, for good: it gets no new connections
//
// A carrier that has ended has no connection any more.
#pragma once

#include "pup/runtime/guardian_link.hpp"
#include "pup/runtime/proxy.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace boost::asio {
class io_context;
}

namespace pup {

/// The side of the successor: all who carry something.
class carriers {
public:
  /// Takes their sockets out of what `guardian`, which may be null, has
  /// inherited. What happens happens on `loop`.
  carriers(boost::asio::io_context& loop,
           std::shared_ptr<guardian_link> guardian);
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
  /// Leaves its socket with `guardian`. Where the kernel gives none it cannot
  /// be asked.
  explicit carrier(guardian_link& guardian);
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
