// Cron expressions: which moments of a calendar they mean.
//
//   ┌ second 0-59, only where there are six fields
//   │ ┌ minute 0-59
//   │ │ ┌ hour 0-23
//   │ │ │ ┌ day of month 1-31, L: the last, L-3: three days before it
//   │ │ │ │ ┌ month 1-12 or jan-dec
//   │ │ │ │ │ ┌ day of week 0-7 or sun-sat (0 and 7: Sunday),
//   0 * * * * *         fri#2: the second, fri#L or 5L: the last of the month
//
// Each field: *, a value, a range a-b, a step */n, a-b/n or a/n (from a on), or
// a list of these with commas. ? is * in both fields of days. Names in any
// case. @yearly (@annually), @monthly, @weekly, @daily (@midnight), @hourly.
//
// As in vixie-cron: where both fields of days are restricted, a day fits when
// one of them does; where one begins with *, when both do.
//
// Summer time, as in vixie-cron too. When minute or hour begins with *, an
// expression means intervals and follows the clock that people see: what the
// clock skips does not happen, what it shows twice happens twice. Else it means
// a time of the day, which happens exactly once: skipped, it happens when the
// clock has jumped; shown twice, the first time. Jumps of more than three hours
// are corrections of the calendar, not summer time: nothing is made up.
//
// Pure: moments are arguments, the time zone is a function.
#pragma once

#include <bitset>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace pup {

/// A period in which a time zone's distance to UTC stays the same.
struct zone_period {
  std::chrono::sys_seconds begin;  ///< inclusive; may be far in the past
  std::chrono::sys_seconds end;    ///< exclusive; may be far in the future
  std::chrono::seconds offset;     ///< local time minus UTC
};

/// A time zone: the period that holds a moment. Periods of neighbouring moments
/// fit together without a gap.
using time_zone = std::function<zone_period(std::chrono::sys_seconds)>;

/// Coordinated universal time.
zone_period utc(std::chrono::sys_seconds moment);

/// Why a text is no cron expression.
struct cron_fault {
  std::string field;  ///< "minute", "day of week"; empty: the whole
  std::string problem;
  std::string remedy;
};

/// A cron expression, understood. Immutable.
class cron_schedule {
public:
  /// Refuses what could never happen, such as 30 February.
  static std::variant<cron_schedule, cron_fault> parse(std::string_view text);

  /// The first moment after `moment`. Empty: none in the 400 years after it
  /// (the time zone jumps over each), or none before the year 32000.
  [[nodiscard]] std::optional<std::chrono::sys_seconds> next(
      std::chrono::sys_seconds moment, const time_zone& zone) const;

  /// Whether the clock on the wall shows a time that fits.
  [[nodiscard]] bool fits(std::chrono::local_seconds wall) const;

  /// True for a time of the day, false for intervals: see the head.
  [[nodiscard]] bool is_time_of_day() const {
    return time_of_day_;
  }

  bool operator==(const cron_schedule&) const = default;

private:
  friend class cron_parser;

  cron_schedule() = default;
  [[nodiscard]] bool fits_day(std::chrono::year_month_day day) const;
  [[nodiscard]] std::optional<std::chrono::local_seconds> first_from(
      std::chrono::local_seconds from, std::chrono::local_seconds end) const;
  [[nodiscard]] std::optional<std::chrono::seconds> first_time_from(
      std::chrono::seconds from) const;

  std::bitset<60> seconds_;
  std::bitset<60> minutes_;
  std::bitset<24> hours_;
  std::bitset<32> days_;       // of the month, from 1
  std::bitset<32> from_last_;  // days before the last of the month, 0: it
  std::bitset<13> months_;     // from 1
  std::bitset<7> weekdays_;    // 0: Sunday
  // [n]: weekdays that count as the n-th of their month; [0]: as the last.
  std::bitset<7> nth_[6];
  bool either_day_ = false;  // one field of days is enough
  bool time_of_day_ = true;
};

}  // namespace pup
