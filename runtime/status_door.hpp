// A second door of a supervisor, for people who may look and not touch.
//
// The control socket speaks with whoever may do everything: a peer there can
// message any actor. Members of the group of "readers" get a socket of their
// own, `status.sock`, that knows one question. A visitor says one line,
//
//   table [ID] | json [ID]
//
// and reads "ok\n" or "fault\n" and a text, up to the end of the stream. Who he
// is the kernel tells (SO_PEERCRED, SO_PEERGROUPS), for each connection; nobody
// else's line is read. No CAF.
#pragma once

#include "pup/runtime/fd.hpp"

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include <sys/types.h>

namespace boost::asio {
class io_context;
}

namespace pup {

/// Id of a group, by name or number. Empty: there is none.
std::optional<gid_t> group_named(const std::string& name);

namespace bounds {
/// Visitors at once; a further one takes the place of the oldest.
inline constexpr std::size_t status_visitors = 32;
/// Longest line of a visitor.
inline constexpr std::size_t status_line_bytes = 256;
}  // namespace bounds

struct status_question {
  bool json = false;
  std::string id;  ///< empty: all
};

struct status_answer {
  bool ok = true;
  std::string text;
};

/// Says its line, and gives what it was told, to whom it belongs.
using status_source = std::function<void(
    const status_question&, std::function<void(const status_answer&)> answer)>;

/// Listens as long as it lives. Everything happens on the thread of the loop;
/// `source` is called there, its `answer` may be called from any thread, later
/// too.
class status_door {
public:
  /// Listens at `path`, which gets the group `readers` and mode 0660. Throws
  /// std::system_error.
  status_door(boost::asio::io_context& loop, const std::string& path,
              gid_t readers, status_source source);
  status_door(const status_door&) = delete;
  status_door& operator=(const status_door&) = delete;
  /// Cuts visitors off and removes the socket.
  ~status_door();

private:
  class impl;
  std::shared_ptr<impl> impl_;
};

/// Asks at a door. A fault: nobody listens, or not for us. Blocks up to
/// `limit`.
std::variant<status_answer, os_fault> ask_status(
    const std::string& path, const status_question& question,
    std::chrono::milliseconds limit);

}  // namespace pup
