#include "pup/runtime/engine_shared.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <system_error>

#include <sys/eventfd.h>
#include <unistd.h>

namespace pup {

// -- loop_bells ---------------------------------------------------------------

loop_bells::loop_bells(unsigned loops) {
  for (unsigned i = 0; i < loops; ++i) {
    bells_.emplace_back(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!bells_.back())
      throw std::system_error(errno, std::generic_category(), "eventfd");
  }
}

void loop_bells::ring(unsigned loop) const noexcept {
  const std::uint64_t one = 1;
  (void)!::write(bells_[loop].get(), &one, sizeof one);
}

void loop_bells::ring_all_but(unsigned loop) const noexcept {
  for (unsigned i = 0; i < bells_.size(); ++i)
    if (i != loop)
      ring(i);
}

// -- listener_state -----------------------------------------------------------

// Sequentially consistent: whoever comes second of "the last place is left" and
// "I wait for one" sees the other.

bool listener_state::take_place(std::uint32_t most) noexcept {
  if (most == 0) {
    taken_.fetch_add(1);
    return true;
  }
  auto taken = taken_.load();
  while (taken < most)
    if (taken_.compare_exchange_weak(taken, taken + 1))
      return true;
  return false;
}

void listener_state::leave_place() noexcept {
  taken_.fetch_sub(1);
}

bool listener_state::has_place(std::uint32_t most) const noexcept {
  return most == 0 || taken_.load() < most;
}

void listener_state::wait_for_place(unsigned loop) noexcept {
  waiting_.fetch_or(std::uint64_t{1} << loop);
}

void listener_state::stop_waiting(unsigned loop) noexcept {
  waiting_.fetch_and(~(std::uint64_t{1} << loop));
}

bool listener_state::is_waiting(unsigned loop) const noexcept {
  return (waiting_.load() >> loop & 1) != 0;
}

std::optional<unsigned> listener_state::next_waiting() noexcept {
  auto waiting = waiting_.load();
  while (waiting != 0) {
    const auto start = (offered_last_.load(std::memory_order_relaxed) + 1) % 64;
    const auto next = (start
                       + static_cast<unsigned>(std::countr_zero(
                           std::rotr(waiting, static_cast<int>(start)))))
                      % 64;
    if (!waiting_.compare_exchange_weak(waiting,
                                        waiting & ~(std::uint64_t{1} << next)))
      continue;
    offered_last_.store(next, std::memory_order_relaxed);
    return next;
  }
  return std::nullopt;
}

// -- backend_state ------------------------------------------------------------

// Sequentially consistent: whoever comes second of "the last one ends" and
// "the drain begins" sees the other.

bool backend_state::begin_drain(std::uint64_t number) noexcept {
  const auto wanted = number << 2 | draining;
  const auto now = drain_.load();
  // Published again: the same drain.
  if (now != serving && now >> 2 == number)
    return false;
  drain_.store(wanted);
  return active.load() == 0 && claim_drained().has_value();
}

void backend_state::end_drain() noexcept {
  drain_.store(serving);
}

void backend_state::count_up() noexcept {
  active.fetch_add(1);
  total.fetch_add(1, std::memory_order_relaxed);
}

bool backend_state::count_up_if(std::uint32_t seen) noexcept {
  if (!active.compare_exchange_strong(seen, seen + 1))
    return false;
  total.fetch_add(1, std::memory_order_relaxed);
  return true;
}

std::optional<std::uint64_t> backend_state::count_down() noexcept {
  if (active.fetch_sub(1) != 1)
    return std::nullopt;
  return claim_drained();
}

std::optional<std::uint64_t> backend_state::claim_drained() noexcept {
  auto now = drain_.load();
  while ((now & phase_mask) == draining)
    if (drain_.compare_exchange_weak(now, (now & ~phase_mask) | drained))
      return now >> 2;
  return std::nullopt;
}

bool backend_state::eject(std::chrono::steady_clock::time_point now) noexcept {
  if (ejected_.exchange(true))
    return false;
  listener_->ejected.fetch_add(1);
  if (now - readmitted_at_.load() > bounds::last_probe)
    failures_ = 0;
  return true;
}

bool backend_state::readmit(
    std::chrono::steady_clock::time_point now) noexcept {
  if (!ejected_.exchange(false))
    return false;
  listener_->ejected.fetch_sub(1);
  readmitted_at_ = now;
  return true;
}

std::chrono::milliseconds backend_state::next_probe_delay() noexcept {
  // 50 ms doubled eight times exceeds the last one.
  const auto doubled = std::min(failures_.fetch_add(1), 8u);
  return std::min(bounds::first_probe * (1 << doubled), bounds::last_probe);
}

namespace {

struct timing {
  float mean_us = 0;
  std::uint32_t at = 0;
};

std::uint32_t stamp(std::chrono::steady_clock::time_point now) noexcept {
  return static_cast<std::uint32_t>(
      std::chrono::nanoseconds(now.time_since_epoch()).count() >> 16);
}

/// What is left of a weight after that many units of time.
double faded(std::uint32_t units) noexcept {
  const std::chrono::duration<double> passed =
      std::chrono::nanoseconds(std::int64_t{units} << 16);
  const std::chrono::duration<double> half_life = bounds::response_half_life;
  // Not to zero, which would mean unknown.
  return std::exp2(-std::min(passed / half_life, 60.0));
}

}  // namespace

void backend_state::answered(
    std::chrono::nanoseconds time,
    std::chrono::steady_clock::time_point now) noexcept {
  const auto us =
      std::max(std::chrono::duration<double, std::micro>(time).count(), 1.0);
  auto before = response_.load(std::memory_order_relaxed);
  for (;;) {
    const auto old = std::bit_cast<timing>(before);
    // Many answers at one time count as well: at least as one of 64.
    const double weight =
        old.mean_us == 0 ? 1
                         : std::max(1 - faded(stamp(now) - old.at), 1.0 / 64);
    const timing next{
        static_cast<float>(old.mean_us + weight * (us - old.mean_us)),
        stamp(now)};
    if (response_.compare_exchange_weak(before,
                                        std::bit_cast<std::uint64_t>(next),
                                        std::memory_order_relaxed))
      return;
  }
}

double backend_state::response_us(
    std::chrono::steady_clock::time_point now) const noexcept {
  const auto x =
      std::bit_cast<timing>(response_.load(std::memory_order_relaxed));
  if (x.mean_us == 0)
    return 0;
  // Another loop's answer may be a little younger than `now`.
  const auto passed = static_cast<std::int32_t>(stamp(now) - x.at);
  return x.mean_us * faded(static_cast<std::uint32_t>(std::max(passed, 0)));
}

}  // namespace pup
