// When a process is due by the clock on the wall: pure, and the one place where
// that clock can jump. How far it did, the actor clock tells.
#pragma once

#include "pup/config/cron.hpp"

#include <chrono>
#include <functional>
#include <optional>
#include <string>

namespace pup {

/// The clock on the wall and the zones it is read in: a port of the world, with
/// the real ones as default in runtime/. Any thread.
struct calendar {
  std::function<std::chrono::system_clock::time_point()> now = [] {
    return std::chrono::system_clock::now();
  };
  /// The zone of a name that load() has found good; empty: the machine's.
  std::function<time_zone(const std::string& name)> zone =
      [](const std::string&) -> time_zone { return utc; };
  /// Calls `f` whenever the clock was set, on any thread, for ever.
  std::function<void(std::function<void()> f)> on_set =
      [](const std::function<void()>&) {};
};

/// What the clock on the wall shows, and at the same moment one that nobody
/// sets. That one may stand still while the machine sleeps.
struct clock_reading {
  std::chrono::system_clock::time_point wall;
  std::chrono::steady_clock::time_point steady;
};

/// Start and end of one process by the clock.
class schedule {
public:
  using moment = std::chrono::system_clock::time_point;

  /// Cron expressions; empty: never.
  schedule(const std::string& start, const std::string& stop, time_zone zone,
           clock_reading now);

  struct due {
    bool start = false;  ///< both: stop comes first
    bool stop = false;
  };

  /// When there is something to do next. Empty: never.
  [[nodiscard]] std::optional<moment> next() const;

  /// The next start alone.
  [[nodiscard]] std::optional<moment> next_start() const {
    return start_.next;
  }

  /// Up to here everything that was due has been told.
  [[nodiscard]] moment seen() const {
    return seen_;
  }

  /// What has become due by `now`; each at most once, however late it is.
  due take(clock_reading now);

  /// The clock was set. Set forward by up to three hours, as at night in
  /// summer or after a nap, what was missed is due at once; set back by up to
  /// three hours, nothing happens a second time. Beyond that it begins anew.
  void set(clock_reading now);

private:
  struct line {
    std::optional<cron_schedule> when;
    std::optional<std::chrono::sys_seconds> next;
  };

  void advance(line& x, std::chrono::sys_seconds after);
  static line parsed(const std::string& text);

  time_zone zone_;
  line start_;
  line stop_;
  moment seen_;
  clock_reading last_;  // when the two clocks were last compared
};

/// The starts of a cron expression after `since`, up to `now`, that nobody was
/// there for, as "missed 3 runs while pup was down, the last at 2026-05-04
/// 03:00:00". Empty: there are none.
std::string missed_runs(const std::string& start, const time_zone& zone,
                        std::chrono::sys_seconds since,
                        std::chrono::sys_seconds now);

}  // namespace pup
