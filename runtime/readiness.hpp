// When is a started process ready to serve? All ways by which it can show that,
// and what it says of itself with sd_notify(3), on the loop of `children`.
//
//   spawn   its exec succeeded; nothing is waited for
//   port    its port accepts on 127.0.0.1 or else ::1
//   http    a GET of a path there is answered with a status from 200 to 299
//   notify  it sends READY=1 to the socket in NOTIFY_SOCKET
//   fd      it writes a newline to the descriptor named in READY_FD
//   log     whoever reads its output says so, by show()
//
// port and http are tried at once, after 1, 2, 4, 8 ms, then every 10 ms until
// 1 s after the launch and every 50 ms from then on: a program that begins to
// listen is announced by no event. Two refused connects of some 90 us each per
// try, measured 1.8 % of a processor at first and 0.5 % later. The others are
// events. There is no deadline here: whoever waits has one.
//
// The socket of notify is an abstract one, so that it works whatever folder
// or root the process has. What comes through it counts when its sender belongs
// to the group or session of the process; descriptors that come with it are
// closed.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/fd.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include <sys/types.h>

namespace boost::asio {
class io_context;
}

namespace pup {

struct readiness_request {
  ready_condition what = ready_condition::spawn;
  std::uint16_t port = 0;  ///< for port and http; 0: as spawn
  std::string path = "/";  ///< for http
  /// It has to send WATCHDOG=1 more often than this. 0: it has not.
  std::chrono::milliseconds watchdog{0};
  /// The user it runs as, where that is another than ours.
  std::optional<uid_t> uid{};
};

/// One message of sd_notify.
struct self_report {
  bool ready = false;     ///< READY=1
  bool stopping = false;  ///< STOPPING=1
  bool alive = false;     ///< WATCHDOG=1
  bool trouble = false;   ///< WATCHDOG=trigger
  std::string status;     ///< STATUS=…, one line of valid text; empty: none
  /// Not the process's own word: what its port answers in place of what makes
  /// it ready. Empty: nothing new.
  std::string answer{};
};

/// Understands a message; unknown lines are ignored.
self_report read_self_report(std::string_view message);

/// Called on the loop, never from within a member of `readiness`; none after
/// stop().
struct readiness_events {
  /// Once. `address`: where it accepts; empty where that was not asked.
  std::function<void(const std::string& address)> ready;
  std::function<void(const self_report&)> said;
  /// Whether the process still runs: whoever accepts after its end is somebody
  /// else.
  std::function<bool()> lives;
};

/// Waiting for one life. Every member on the thread of the loop, which outlives
/// this.
class readiness {
public:
  /// Opens what the process must get. Faults: "socket", "bind", "pipe".
  static std::variant<readiness, os_fault> prepare(
      boost::asio::io_context& loop, readiness_request request);

  /// Goes on where a predecessor was; `input` is what its input() was. None
  /// where one is needed: nothing is heard any more.
  static readiness adopt(boost::asio::io_context& loop,
                         readiness_request request, unique_fd input);

  readiness(readiness&&) noexcept;
  readiness& operator=(readiness&&) noexcept;
  ~readiness();

  /// NOTIFY_SOCKET and WATCHDOG_USEC, where wanted.
  [[nodiscard]] std::map<std::string, std::string> variables() const;

  /// For READY_FD, to be passed to the process; -1: none. Borrowed until
  /// begin().
  [[nodiscard]] int descriptor() const;

  /// What the process speaks to, of notify and fd; -1: nothing. Borrowed.
  [[nodiscard]] int input() const;

  /// Whether it is ready as soon as it runs: nothing is waited for.
  [[nodiscard]] bool at_once() const;

  /// The process runs: watches it. `is_ready`: what it says alone; it is known
  /// to be ready.
  void begin(pid_t pid, readiness_events events, bool is_ready = false);

  /// For log: the process has shown it. Ignored for the others.
  void show();

  /// No event from now on.
  void stop();

private:
  class impl;
  explicit readiness(std::shared_ptr<impl> x);
  std::shared_ptr<impl> impl_;
};

}  // namespace pup
