// A supervisor's side of the guardian, see guard_protocol.hpp.
//
// As a spawner it has the guardian start and signal the processes; beside that
// it puts into the guardian's hands what is to outlive this supervisor. What an
// earlier one had put there is `inheritance`.
//
// When the guardian ends, its processes lose their parent but not their lives:
// from then on they are watched and signalled from here, their exit statuses
// are lost, and nothing can be started.
#pragma once

#include "pup/runtime/guard_protocol.hpp"
#include "pup/runtime/spawner.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace pup {

/// What earlier supervisors have left with the guardian.
struct inheritance {
  std::uint32_t predecessors = 0;  ///< 0: nothing is inherited
  std::string last_end;            ///< of the last of them, in words
  /// Why the program now on the disk was given up; empty: it was not.
  std::string refusal;
  std::vector<inherited_process> processes;
  std::map<std::string, unique_fd> held;
  std::map<std::string, std::string> notes;
};

/// Takes those out whose names begin so.
std::map<std::string, unique_fd> take_held(
    std::map<std::string, unique_fd>& held, std::string_view prefix);

class guardian_link : public spawner {
public:
  /// Shakes hands on `socket`; waits for the guardian to tell all it has.
  /// A text: why it cannot be.
  static std::variant<std::shared_ptr<guardian_link>, std::string> open(
      unique_fd socket);

  /// Its pid.
  [[nodiscard]] virtual pid_t guardian() const = 0;

  /// The caller takes from it what it needs. One thread.
  virtual inheritance& inherited() = 0;

  /// From now on everything happens on `loop`. `lost`: the guardian has ended;
  /// called on the loop, once.
  virtual void watch(boost::asio::io_context& loop,
                     std::function<void()> lost) = 0;
  /// The loop is about to end: nothing happens any more.
  virtual void ignore() = 0;

  // Any thread; messages arrive in the order of the calls, those of the spawner
  // among them. Lost when the guardian is.
  virtual void note(const std::string& name, const std::string& bytes) = 0;
  virtual void hold(const std::string& name, int fd) = 0;
  virtual void drop(const std::string& name) = 0;
  /// Processes that belong to no life for certain, by name. Any thread.
  [[nodiscard]] virtual std::vector<std::string> strays() const = 0;

  virtual void ready() = 0;
  virtual void away(int output) = 0;
  virtual void tell(const std::string& text) = 0;

  /// The last word; returns when all has been said. The loop must not run any
  /// more.
  virtual void farewell(int exit_code) = 0;

  /// From now on nothing is said any more, so that the guardian keeps all as it
  /// is. Any thread.
  virtual void fall_silent() = 0;
  /// Makes room for a successor: it is started at once, with all that was said
  /// until fall_silent(). Waits until the guardian has heard it. The loop must
  /// not run any more. False: the guardian has ended.
  virtual bool step_aside() = 0;
};

}  // namespace pup
