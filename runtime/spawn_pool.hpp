// Starts of programs that nobody has to wait for.
//
// spawn() returns when the program is executed, and what it asks for on the
// way, the program's file and its folder, may lie where nobody answers. Here it
// runs on a thread of the pool: two starts at a time, as a rule; one that takes
// longer than `patience` is left to its thread, and the next one begins beside
// it on another.
//
// For 500 starts on two processors the ways without threads cost: a plain
// fork() with a pipe that the exec closes 1.16 times the time, as the parent's
// pages are copied again and again; helper processes that make siblings
// (CLONE_PARENT) what threads cost, and they have to be handed each descriptor.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/process.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <sys/types.h>

namespace pup {

namespace bounds {
/// Starts that are under way at once. When all of them take long, more are
/// refused (EAGAIN).
inline constexpr std::size_t starts_at_once = 64;
/// Starts of one owner that have not been over for `spawn_pool::stuck_after`.
/// More of it are refused (EAGAIN), so that others find room: those that begin
/// meanwhile, one each `patience`, come to less than that again.
inline constexpr std::size_t stuck_starts = 16;
/// Starts that wait for their turn before has_room() says no: each keeps its
/// descriptors, which are among the low ones.
inline constexpr std::size_t waiting_starts = 16;
}  // namespace bounds

/// Members on one thread, but for what is said of `notify`. A program that uses
/// it reaps its children by pid, or copes with ends that come before take()
/// has told of their beginnings.
class spawn_pool {
public:
  /// How long a start may take before another one begins beside it.
  static constexpr std::chrono::milliseconds patience{20};

  /// How long until it counts as one that does not answer.
  static constexpr std::chrono::milliseconds stuck_after{250};

  /// spawn(), or what stands for it in a test. Called by any thread.
  using starter = std::function<std::variant<child, os_fault>(
      const spawn_request&, const spawn_aids&)>;

  /// `notify` is called by any thread, and also from within start() and kill(),
  /// when take() has something new; not after the destructor. `reset` as in
  /// spawn_aids.
  explicit spawn_pool(std::function<void()> notify,
                      std::uint64_t reset = ~std::uint64_t{0},
                      starter how = &spawn);
  spawn_pool(const spawn_pool&) = delete;
  spawn_pool& operator=(const spawn_pool&) = delete;

  /// Ends starts that are under way, and waits for none of them.
  ~spawn_pool();

  /// `number` is the caller's, and not in use; `owner` is whoever shares a
  /// bound of stuck ones. `owned`: descriptors that the request names, kept
  /// open as long as they are needed. Where no thread can be had it starts the
  /// program at once, and waits. Faults of its own: "start".
  void start(std::uint64_t number, std::string owner, spawn_request request,
             std::vector<unique_fd> owned);

  struct outcome {
    std::uint64_t number = 0;
    std::variant<child, os_fault> what;
  };
  /// What has become of those that are decided, in the order of their ends.
  std::vector<outcome> take();

  /// More should be begun. `notify` is called when that comes to be true again.
  [[nodiscard]] bool has_room() const;

  /// Some start is not decided, or not taken.
  [[nodiscard]] bool busy() const;

  /// The process `pid` comes from a start that is not taken yet. One that has
  /// failed already has no process.
  [[nodiscard]] bool starts(pid_t pid) const;

  /// SIGKILL to one that is under way. One that waits for its turn, has no
  /// process yet, or had SIGKILL before, fails with "start" and ECANCELED at
  /// once. Nothing for any other.
  void kill(std::uint64_t number);

private:
  class impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace pup
