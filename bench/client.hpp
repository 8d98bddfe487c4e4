// The load generator's connections: HTTP/1.1 requests over epoll, each failure
// told apart. When requests begin is the caller's secret (load.cpp).
//
// A connection is in one of these states:
//
//   asking --(answer complete)--> idle --(ask)--> asking
//      |            '--(it was the last one)--> ending --(end of file)--> gone
//      '--(failure)--> gone
//
// One thread. All times are steady_clock, which other processes of the machine
// share (CLOCK_MONOTONIC).
#pragma once

#include "pup/runtime/fd.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <netinet/in.h>

namespace pup::bench {

using clock = std::chrono::steady_clock;

enum class failure : std::uint8_t {
  refused,    ///< connect: nobody listens
  reset,      ///< the connection was reset before the answer was complete
  closed,     ///< end of file before the answer was complete
  timed_out,  ///< no complete answer in time
  wrong,      ///< not "200 OK", or not HTTP
  local,      ///< no socket, no descriptor, no port: the generator's own limit
};
inline constexpr std::size_t failures = 6;

const char* to_string(failure x) noexcept;

struct request_shape {
  std::string method = "GET";
  std::string path = "/";
  /// Sent after the head, as zeroes.
  std::uint64_t body_bytes = 0;
};

struct connection {
  enum class state : std::uint8_t { asking, idle, ending };

  unique_fd fd;
  state at = state::idle;
  /// Asks to close after this answer.
  bool last = false;
  /// Closed; kept until no event can name it.
  bool gone = false;
  /// Answers received.
  std::uint32_t answers = 0;
  std::size_t head_sent = 0;
  std::uint64_t body_to_send = 0;
  std::uint64_t body_left = 0;
  bool head_seen = false;
  /// An incomplete head.
  std::string kept;
  clock::time_point opened;
  /// When the request should have been sent, which may be earlier than it was.
  clock::time_point due;
  clock::time_point deadline;
  std::size_t source = 0;
  std::list<connection>::iterator self;
};

/// What happened; called from poll(), which the callee must not call.
struct client_events {
  /// `body` is the first part of the answer's body; the connection is idle, or
  /// ending.
  std::function<void(connection&, std::string_view body)> answered;
  /// The connection goes after this.
  std::function<void(connection&, failure)> failed;
  /// An idle connection was closed by the other side, or one that should end
  /// has ended. It goes after this.
  std::function<void(connection&)> ended;
};

class client {
public:
  /// Throws std::system_error when the kernel gives no epoll descriptor.
  client(request_shape shape, std::vector<std::uint16_t> ports,
         std::size_t sources, std::chrono::milliseconds timeout,
         client_events events);

  /// Connects to the next port of 127.0.0.1 and asks. A failure is told before
  /// this returns.
  void open_and_ask(clock::time_point due, bool last);
  /// On an idle connection.
  void ask(connection& c, clock::time_point due, bool last);
  void close(connection& c);
  /// Waits for events until `until` at the latest, and handles them.
  void poll(std::optional<clock::time_point> until);

  /// Asking, idle and ending ones.
  [[nodiscard]] std::size_t connections() const noexcept {
    return all_.size();
  }
  [[nodiscard]] std::uint64_t opened() const noexcept {
    return opened_;
  }
  /// Body bytes received.
  [[nodiscard]] std::uint64_t bytes() const noexcept {
    return bytes_;
  }

private:
  void serve(connection& c, std::uint32_t events);
  bool send_request(connection& c);
  bool send_failed(connection& c);
  bool receive(connection& c);
  bool take(connection& c, std::string_view data, std::size_t bytes);
  void complete(connection& c, std::string_view body);
  void fail(connection& c, failure why);
  void drop(connection& c);
  void expire();

  std::string head_;
  std::string last_head_;
  std::uint64_t body_bytes_;
  std::vector<std::uint16_t> ports_;
  std::size_t sources_;
  std::chrono::milliseconds timeout_;
  client_events events_;
  unique_fd epoll_;
  std::list<connection> all_;
  // Removed after the batch, in which an event may still name them.
  std::list<connection> gone_;
  std::vector<char> buffer_;
  std::vector<char> zeroes_;
  std::size_t next_port_ = 0;
  std::size_t next_source_ = 0;
  std::uint64_t opened_ = 0;
  std::uint64_t bytes_ = 0;
  clock::time_point next_expiry_{};
};

}  // namespace pup::bench
