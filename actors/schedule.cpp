#include "pup/actors/schedule.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

namespace pup {

namespace {

using namespace std::chrono;

// vixie-cron's: more is a correction of the calendar.
constexpr hours longest_jump{3};

// A job of every second and a year without pup: beyond this nobody counts.
constexpr std::size_t most_counted = 1'000;

/// The last moment up to `now`, which is known to exist. Looks back twice as
/// far each time, so that no more moments are walked over than lie between two
/// of these steps.
sys_seconds last_of(const cron_schedule& when, const time_zone& zone,
                    sys_seconds now) {
  for (seconds back{1};; back *= 2) {
    auto next = when.next(now - back, zone);
    if (!next || *next > now)
      continue;
    auto last = *next;
    for (; next && *next <= now; next = when.next(last, zone))
      last = *next;
    return last;
  }
}

std::string text_of(sys_seconds x, const time_zone& zone) {
  const auto local = x + zone(x).offset;
  const auto day = floor<days>(local);
  const year_month_day date{day};
  const hh_mm_ss time{local - day};
  std::array<char, 80> buffer{};
  std::snprintf(
      buffer.data(), buffer.size(), "%04d-%02u-%02u %02d:%02d:%02d",
      static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
      static_cast<unsigned>(date.day()), static_cast<int>(time.hours().count()),
      static_cast<int>(time.minutes().count()),
      static_cast<int>(time.seconds().count()));
  return buffer.data();
}

}  // namespace

schedule::line schedule::parsed(const std::string& text) {
  line result;
  auto read = cron_schedule::parse(text);
  if (auto* when = std::get_if<cron_schedule>(&read))
    result.when = *when;
  return result;
}

schedule::schedule(const std::string& start, const std::string& stop,
                   time_zone zone, clock_reading now)
    : zone_(std::move(zone)),
      start_(parsed(start)),
      stop_(parsed(stop)),
      seen_(now.wall),
      last_(now) {
  advance(start_, floor<seconds>(now.wall));
  advance(stop_, floor<seconds>(now.wall));
}

void schedule::advance(line& x, sys_seconds after) {
  if (x.when)
    x.next = x.when->next(after, zone_);
}

std::optional<schedule::moment> schedule::next() const {
  if (start_.next && stop_.next)
    return std::min(*start_.next, *stop_.next);
  return start_.next ? start_.next : stop_.next;
}

schedule::due schedule::take(clock_reading now) {
  const auto is_due = [&](line& x) {
    if (!x.next || *x.next > now.wall)
      return false;
    advance(x, floor<seconds>(now.wall));
    return true;
  };
  seen_ = now.wall;
  last_ = now;
  return {is_due(start_), is_due(stop_)};
}

void schedule::set(clock_reading now) {
  const auto former = std::exchange(last_, now);
  const auto jump = (now.wall - former.wall) - (now.steady - former.steady);
  // Within the bounds the next moments stand: they are due now, or later.
  if (jump <= longest_jump && jump >= -longest_jump)
    return;
  seen_ = now.wall;
  advance(start_, floor<seconds>(now.wall));
  advance(stop_, floor<seconds>(now.wall));
}

std::string missed_runs(const std::string& start, const time_zone& zone,
                        sys_seconds since, sys_seconds now) {
  const auto read = cron_schedule::parse(start);
  const auto* when = std::get_if<cron_schedule>(&read);
  if (when == nullptr)
    return {};
  std::size_t count = 0;
  for (auto next = when->next(since, zone);
       next && *next <= now && count <= most_counted;
       next = when->next(*next, zone))
    ++count;
  if (count == 0)
    return {};
  const auto number = count > most_counted
                          ? "more than " + std::to_string(most_counted)
                          : std::to_string(count);
  return "missed " + number + (count == 1 ? " run" : " runs")
         + " while pup was down, " + (count == 1 ? "" : "the last ") + "at "
         + text_of(last_of(*when, zone, now), zone);
}

}  // namespace pup
