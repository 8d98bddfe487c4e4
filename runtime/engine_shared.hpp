// What the loops of the data plane share: counts, turns, health, published
// backend sets.
//
// Everything here may be used from any thread.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/picker.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace pup {

namespace bounds {
/// Most loops of one proxy: each is a bit of a mask.
inline constexpr unsigned loops = 64;
/// From an ejection to the first probe: about the time a small server takes
/// from exec to listen.
inline constexpr std::chrono::milliseconds first_probe{50};
/// Most between two probes: nginx's fail_timeout, and this house's own longest
/// delay between restarts.
inline constexpr std::chrono::milliseconds last_probe{10'000};
/// Of the weight of an answer's time: long against the noise of single answers,
/// short against a user's patience. One that was 1,000 times slower is tried
/// again after 10 of them.
inline constexpr std::chrono::milliseconds response_half_life{1'000};
}  // namespace bounds

/// One bell for each loop, to have it look at what others changed.
class loop_bells {
public:
  /// Throws std::system_error when the kernel gives no descriptor.
  explicit loop_bells(unsigned loops);

  /// An eventfd, readable once the bell was rung.
  [[nodiscard]] int descriptor(unsigned loop) const noexcept {
    return bells_[loop].get();
  }

  void ring(unsigned loop) const noexcept;
  void ring_all_but(unsigned loop) const noexcept;

private:
  std::vector<unique_fd> bells_;
};

/// What all loops know of one listener.
class listener_state {
public:
  /// Takes one of `most` places for a connection; 0: there is always one.
  [[nodiscard]] bool take_place(std::uint32_t most) noexcept;
  void leave_place() noexcept;
  [[nodiscard]] bool has_place(std::uint32_t most) const noexcept;

  // Loops that found no place wait in turns: each place that gets free is
  // offered to the next one of them. One that has nobody to accept passes the
  // offer on.

  /// From now on `loop` may be offered a place. Ask for one again after it.
  void wait_for_place(unsigned loop) noexcept;
  void stop_waiting(unsigned loop) noexcept;
  [[nodiscard]] bool is_waiting(unsigned loop) const noexcept;
  /// The loop to offer a place to; it waits no longer. None: nobody waits.
  [[nodiscard]] std::optional<unsigned> next_waiting() noexcept;

  /// See load_view.
  std::atomic<std::uint64_t> turn{0};
  /// Backends that are ejected; removed ones too, for a while.
  std::atomic<std::uint32_t> ejected{0};
  /// Grows when a backend is readmitted: those that wait try again.
  std::atomic<std::uint32_t> readmissions{0};

private:
  std::atomic<std::uint32_t> taken_{0};
  std::atomic<std::uint64_t> waiting_{0};
  std::atomic<unsigned> offered_last_{0};
};

/// What all loops know of one life of one backend.
///
/// Health: who fails before a byte was exchanged is ejected, for all loops; it
/// gets no connection while another backend can serve, until a probe (a plain
/// connect) or, when all are ejected, a client's connect succeeds. The first
/// probe comes soon, each further one after twice the time. A success only
/// makes the next ejection short again if it lasts: a backend that accepts and
/// then resets is soon left alone.
class backend_state {
public:
  backend_state(backend_id whose, std::shared_ptr<listener_state> listener)
      : id(whose), listener_(std::move(listener)) {}
  backend_state(const backend_state&) = delete;
  backend_state& operator=(const backend_state&) = delete;
  ~backend_state() {
    (void)readmit({});
  }

  const backend_id id;
  std::atomic<std::uint32_t> active{0};
  std::atomic<std::uint64_t> total{0};

  /// From now on the last connection's end is worth a fact. Returns whether
  /// there is none even now. Drains begin and end one at a time.
  [[nodiscard]] bool begin_drain(std::uint64_t number) noexcept;
  void end_drain() noexcept;
  void count_up() noexcept;
  /// Counts if there are `seen` connections.
  [[nodiscard]] bool count_up_if(std::uint32_t seen) noexcept;
  /// The number of the drain that ends with this connection, if one does.
  [[nodiscard]] std::optional<std::uint64_t> count_down() noexcept;

  [[nodiscard]] bool is_ejected() const noexcept {
    return ejected_.load(std::memory_order_relaxed);
  }

  /// Returns whether it was not ejected before.
  [[nodiscard]] bool eject(std::chrono::steady_clock::time_point now) noexcept;
  /// Returns whether it was ejected before.
  bool readmit(std::chrono::steady_clock::time_point now) noexcept;
  /// One more failure in a row: how long to wait before the next probe.
  [[nodiscard]] std::chrono::milliseconds next_probe_delay() noexcept;

  /// A connection's first byte came after `time`.
  void answered(std::chrono::nanoseconds time,
                std::chrono::steady_clock::time_point now) noexcept;
  /// Mean of those times in microseconds, weighted by age with a half-life of
  /// bounds::response_half_life. It halves with each half-life without an
  /// answer, so that who was slow is tried again. 0: nothing known.
  [[nodiscard]] double response_us(
      std::chrono::steady_clock::time_point now) const noexcept;

  /// A loop probes it, or will.
  std::atomic<bool> probed{false};

private:
  std::shared_ptr<listener_state> listener_;
  std::atomic<bool> ejected_{false};
  std::atomic<std::uint32_t> failures_{0};
  std::atomic<std::chrono::steady_clock::time_point> readmitted_at_{};

  // The mean as a float, and the time of the last answer in units of 2^16 ns
  // (wrapping after three days), so that both change at once.
  std::atomic<std::uint64_t> response_{0};

  // Of drain_: the number of the drain, shifted, and its state.
  enum phase : std::uint64_t { serving, draining, drained };
  static constexpr std::uint64_t phase_mask = 3;

  std::optional<std::uint64_t> claim_drained() noexcept;

  std::atomic<std::uint64_t> drain_{serving};
};

/// For counters with one writer: no locked instruction is needed.
template <class T>
void add(std::atomic<T>& counter, T value) noexcept {
  counter.store(static_cast<T>(counter.load(std::memory_order_relaxed) + value),
                std::memory_order_relaxed);
}

/// What one loop did for one listener. Written by that loop only.
struct listener_counters {
  std::atomic<std::uint32_t> active{0};
  std::atomic<std::uint64_t> total{0};
  std::atomic<std::uint64_t> bytes_in{0};
  std::atomic<std::uint64_t> bytes_out{0};
  std::atomic<std::uint64_t> rejected{0};
};

/// A published backend set. All loops read the same one.
struct snapshot {
  backend_set set;
  /// Parallel to set.backends().
  std::vector<std::shared_ptr<backend_state>> states;
  /// Loops that have not applied it yet. The last one begins its drains, as no
  /// loop picks from an older set any more, and calls `applied`.
  mutable std::atomic<unsigned> loops_left{1};
  /// May be empty.
  std::function<void()> applied;
};

}  // namespace pup
