// Cron expressions: parsing, faults, and the next moment, compared with a
// simple cron that walks through time.
#include "pup/config/cron.hpp"

#include "catch.hpp"

#include <algorithm>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

using namespace pup;
using namespace std::chrono;

namespace {

cron_schedule parsed(std::string_view text) {
  auto result = cron_schedule::parse(text);
  if (auto fault = std::get_if<cron_fault>(&result))
    FAIL(text << ": " << fault->field << ": " << fault->problem);
  return std::get<cron_schedule>(result);
}

std::string fault_of(std::string_view text) {
  auto result = cron_schedule::parse(text);
  auto fault = std::get_if<cron_fault>(&result);
  if (!fault)
    return "accepted";
  return (fault->field.empty() ? "" : fault->field + ": ") + fault->problem
         + "; " + fault->remedy;
}

sys_seconds at(int y, unsigned m, unsigned d, int h = 0, int min = 0,
               int s = 0) {
  return sys_days{year{y} / month{m} / day{d}} + hours{h} + minutes{min}
         + seconds{s};
}

std::string shown(sys_seconds x) {
  auto day = floor<days>(x);
  year_month_day date{day};
  hh_mm_ss time{x - day};
  std::ostringstream out;
  auto two = [&out](auto n) {
    if (n < 10)
      out << '0';
    out << n;
  };
  out << int{date.year()} << '-';
  two(unsigned{date.month()});
  out << '-';
  two(unsigned{date.day()});
  out << ' ';
  two(time.hours().count());
  out << ':';
  two(time.minutes().count());
  out << ':';
  two(time.seconds().count());
  return out.str();
}

// The next moment as UTC, shown; "never".
std::string after(std::string_view text, sys_seconds from,
                  const pup::time_zone& zone = utc) {
  auto result = parsed(text).next(from, zone);
  return result ? shown(*result) : "never";
}

// A zone of given changes: the offset before the first, then each from its
// moment on.
struct change {
  sys_seconds when;
  seconds offset;
};

pup::time_zone zone_of(seconds first, std::vector<change> changes) {
  return [first, changes](sys_seconds moment) {
    zone_period result{at(1700, 1, 1), at(3000, 1, 1), first};
    for (auto& x : changes) {
      if (x.when > moment) {
        result.end = x.when;
        break;
      }
      result.begin = x.when;
      result.offset = x.offset;
    }
    return result;
  };
}

const auto berlin = zone_of(hours{1}, {{at(2024, 3, 31, 1), hours{2}},
                                       {at(2024, 10, 27, 1), hours{1}},
                                       {at(2025, 3, 30, 1), hours{2}},
                                       {at(2025, 10, 26, 1), hours{1}}});

}  // namespace

TEST_CASE("cron: the next moment of plain fields") {
  auto from = at(2024, 2, 28, 12, 34, 56);
  CHECK(after("* * * * *", from) == "2024-02-28 12:35:00");
  CHECK(after("* * * * * *", from) == "2024-02-28 12:34:57");
  CHECK(after("30 12 * * *", from) == "2024-02-29 12:30:00");
  CHECK(after("35 12 * * *", from) == "2024-02-28 12:35:00");
  CHECK(after("*/20 * * * *", from) == "2024-02-28 12:40:00");
  CHECK(after("7/20 * * * *", from) == "2024-02-28 12:47:00");
  CHECK(after("10-50/10 3 * * *", from) == "2024-02-29 03:10:00");
  CHECK(after("0 0 1 * *", from) == "2024-03-01 00:00:00");
  CHECK(after("0 0 31 * *", from) == "2024-03-31 00:00:00");
  CHECK(after("0 0 29 2 *", from) == "2024-02-29 00:00:00");
  CHECK(after("0 0 29 2 *", at(2024, 2, 29)) == "2028-02-29 00:00:00");
  CHECK(after("0 0 29 2 *", at(2096, 3, 1)) == "2104-02-29 00:00:00");
  CHECK(after("15,45 8-9 * jan,MAR mon-Fri", from) == "2024-03-01 08:15:00");
  CHECK(after("59 59 23 31 12 *", from) == "2024-12-31 23:59:59");
}

TEST_CASE("cron: the moment itself is not its next") {
  CHECK(after("0 3 * * *", at(2024, 1, 1, 3)) == "2024-01-02 03:00:00");
  CHECK(after("0 3 * * *", at(2024, 1, 1, 2, 59, 59)) == "2024-01-01 03:00:00");
}

TEST_CASE("cron: days of the week, by number and name, Sunday twice") {
  auto from = at(2024, 5, 1);  // a Wednesday
  CHECK(after("0 0 * * 0", from) == "2024-05-05 00:00:00");
  CHECK(parsed("0 0 * * 0") == parsed("0 0 * * 7"));
  CHECK(parsed("0 0 * * sun") == parsed("0 0 * * SUN"));
  CHECK(parsed("0 0 * * fri-sun") == parsed("0 0 * * 5-7"));
  CHECK(parsed("0 0 * * fri-sun") == parsed("0 0 * * fri,sat,sun"));
  CHECK(parsed("0 0 * * *") == parsed("0 0 * * ?"));
}

TEST_CASE("cron: either field of days is enough when both are restricted") {
  CHECK(after("0 0 13 * fri", at(2024, 5, 1)) == "2024-05-03 00:00:00");
  CHECK(after("0 0 13 * fri", at(2024, 5, 10)) == "2024-05-13 00:00:00");
  // A field that begins with * restricts the other one.
  CHECK(after("0 0 */2 * fri", at(2024, 5, 1)) == "2024-05-03 00:00:00");
  CHECK(after("0 0 */2 * fri", at(2024, 5, 4)) == "2024-05-17 00:00:00");
}

TEST_CASE("cron: the last day, the last and the n-th weekday of a month") {
  CHECK(after("0 0 L * *", at(2024, 2, 1)) == "2024-02-29 00:00:00");
  CHECK(after("0 0 l * *", at(2023, 2, 1)) == "2023-02-28 00:00:00");
  CHECK(after("0 0 L-3 * *", at(2024, 4, 1)) == "2024-04-27 00:00:00");
  CHECK(after("0 0 15,L * *", at(2024, 4, 16)) == "2024-04-30 00:00:00");
  CHECK(after("0 0 * * fri#2", at(2024, 5, 1)) == "2024-05-10 00:00:00");
  CHECK(after("0 0 * * 5#5", at(2024, 4, 1)) == "2024-05-31 00:00:00");
  CHECK(after("0 0 * * 5L", at(2024, 6, 1)) == "2024-06-28 00:00:00");
  CHECK(after("0 0 * * fri#L", at(2024, 5, 1)) == "2024-05-31 00:00:00");
  CHECK(after("0 0 * * mon#1,sun#L", at(2024, 5, 7)) == "2024-05-26 00:00:00");
}

TEST_CASE("cron: nicknames") {
  auto from = at(2024, 5, 1, 10, 30);
  CHECK(after("@hourly", from) == "2024-05-01 11:00:00");
  CHECK(after("@daily", from) == "2024-05-02 00:00:00");
  CHECK(after("@midnight", from) == "2024-05-02 00:00:00");
  CHECK(after("@weekly", from) == "2024-05-05 00:00:00");
  CHECK(after("@monthly", from) == "2024-06-01 00:00:00");
  CHECK(after("@yearly", from) == "2025-01-01 00:00:00");
  CHECK(parsed("@Annually") == parsed("@yearly"));
}

TEST_CASE("cron: faults name the field, what is wrong and what to do") {
  using pair = std::pair<std::string_view, std::string_view>;
  auto [text, fault] = GENERATE(
      pair{"", R"(is empty; write one such as "0 3 * * *", daily at 3:00)"},
      pair{"* * *",
           "has 3 fields; write minute, hour, day of month, month and "
           "day of week, or these with a second in front"},
      pair{"60 * * * *", "minute: `60` is not a minute; use 0 to 59"},
      pair{"* 24 * * *", "hour: `24` is not an hour; use 0 to 23"},
      pair{"61 * * * * *", "second: `61` is not a second; use 0 to 59"},
      pair{"* * 0 * *", "day of month: `0` is not a day of month; use 1 to 31"},
      pair{"* * * 13 *",
           "month: `13` is not a month; use 1 to 12, or jan to dec"},
      pair{"* * * juin *",
           R"(month: `juin` is not a month; did you mean "jun"?)"},
      pair{"* * * * 8",
           "day of week: `8` is not a day of week; use 0 to 7, or sun to sat"},
      pair{"* * * * -1",
           "day of week: a value is missing; use 0 to 7, or sun "
           "to sat"},
      pair{"1, * * * *",
           "minute: `1,` has an empty element; remove the extra comma"},
      pair{"*/0 * * * *", "minute: `0` is not a step; use 1 to 59"},
      pair{"*/ * * * *", "minute: `` is not a step; use 1 to 59"},
      pair{"*/90 * * * *",
           "minute: a step of `90` fits only once; use 1 to "
           "59, or write the value alone"},
      pair{"*/99999999999999999999 * * * *",
           "minute: a step of `99999999999999999999` fits only once; use 1 to "
           "59, or write the value alone"},
      pair{"* 22-2 * * *",
           "hour: `22-2` runs backwards; write two ranges with "
           "a comma: 22-23,0-2"},
      pair{"* * L-31 * *",
           "day of month: `L-31` is not a day of month; use L, "
           "or L-1 to L-30 for days before the last"},
      pair{"* * * * fri#6",
           "day of week: `6` is no place of a weekday in its "
           "month; use #1 to #5, or #L for the last"},
      pair{"0 0 30 2 *",
           "never happens: no month it names has such a day; "
           "correct the day of month or the month"},
      pair{"0 0 31 4,6,9,11 *",
           "never happens: no month it names has such a day; correct the day "
           "of month or the month"},
      pair{"@dayly", R"(`@dayly` is unknown; did you mean "@daily"?)"},
      pair{"@reboot",
           R"(`@reboot` is unknown; remove it and use "autostart": true)"});
  CHECK(fault_of(text) == fault);
}

TEST_CASE("cron: a time that the clock skips happens when it has jumped") {
  // 2024-03-31: from 02:00 straight to 03:00, which is 01:00 UTC.
  auto before = at(2024, 3, 31, 0);
  CHECK(after("30 2 * * *", before, berlin) == "2024-03-31 01:00:00");
  CHECK(after("0 2 * * *", before, berlin) == "2024-03-31 01:00:00");
  CHECK(after("15,45 2 * * *", before, berlin) == "2024-03-31 01:00:00");
  CHECK(after("15,45 2 * * *", at(2024, 3, 31, 1), berlin)
        == "2024-04-01 00:15:00");
  CHECK(after("59 1 * * *", before, berlin) == "2024-03-31 00:59:00");
  CHECK(after("0 3 * * *", before, berlin) == "2024-03-31 01:00:00");
}

TEST_CASE("cron: a time that the clock shows twice happens once") {
  // 2024-10-27: from 03:00 back to 02:00, which is 01:00 UTC.
  auto before = at(2024, 10, 26, 23);
  CHECK(after("30 2 * * *", before, berlin) == "2024-10-27 00:30:00");
  CHECK(after("30 2 * * *", at(2024, 10, 27, 0, 30), berlin)
        == "2024-10-28 01:30:00");
  CHECK(after("0 3 * * *", at(2024, 10, 27, 0, 30), berlin)
        == "2024-10-27 02:00:00");
}

TEST_CASE("cron: intervals follow the clock that people see") {
  CHECK(after("0 * * * *", at(2024, 3, 31, 0, 30), berlin)
        == "2024-03-31 01:00:00");
  CHECK(after("30 * * * *", at(2024, 3, 31, 0, 30), berlin)
        == "2024-03-31 01:30:00");
  CHECK(after("*/30 2 * * *", at(2024, 3, 30, 23), berlin)
        == "2024-04-01 00:00:00");
  auto from = at(2024, 10, 27, 0, 0);
  CHECK(after("*/30 2 * * *", from, berlin) == "2024-10-27 00:30:00");
  CHECK(after("*/30 2 * * *", from + minutes{30}, berlin)
        == "2024-10-27 01:00:00");
  CHECK(after("*/30 2 * * *", from + minutes{60}, berlin)
        == "2024-10-27 01:30:00");
  CHECK(after("*/30 2 * * *", from + minutes{90}, berlin)
        == "2024-10-28 01:00:00");
}

TEST_CASE("cron: half an hour of summer time, a lost day, a lost hour at 0") {
  // Lord Howe Island moves by 30 minutes.
  auto lord_howe =
      zone_of(minutes{630}, {{at(2024, 4, 6, 15), minutes{630}},
                             {at(2024, 10, 5, 15, 30), minutes{660}}});
  CHECK(after("15 2 * * *", at(2024, 10, 5, 12), lord_howe)
        == "2024-10-05 15:30:00");
  // Samoa had no 30 December 2011.
  auto samoa = zone_of(hours{-10}, {{at(2011, 12, 30, 10), hours{14}}});
  CHECK(after("0 8 * * *", at(2011, 12, 29, 20), samoa)
        == "2011-12-30 18:00:00");
  CHECK(after("0 8 30 12 *", at(2011, 12, 29, 20), samoa)
        == "2012-12-29 18:00:00");
  // Cuba and others jump at midnight: the day begins at 01:00.
  auto cuba = zone_of(hours{-5}, {{at(2024, 3, 10, 5), hours{-4}}});
  CHECK(after("@daily", at(2024, 3, 9, 12), cuba) == "2024-03-10 05:00:00");
}

TEST_CASE("cron: there is an end") {
  CHECK(after("0 0 1 1 *", at(31998, 2, 1)) == "31999-01-01 00:00:00");
  CHECK(after("0 0 1 1 *", at(31999, 2, 1)) == "never");
  CHECK(after("* * * * *", at(32000, 1, 1)) == "never");
}

TEST_CASE("cron: the rarest day there is always comes again") {
  // 29 February as a Monday; the calendar repeats after 400 years.
  CHECK(after("0 6 * feb mon#5", at(2360, 3, 1)) == "2388-02-29 06:00:00");
  CHECK(after("0 6 * feb mon#5", at(2388, 3, 1)) == "2416-02-29 06:00:00");
  auto rare = parsed("0 6 * feb mon#5");
  auto first = at(2016, 2, 29, 6);
  auto moment = first;
  for (int i = 0; i < 15; ++i)
    moment = rare.next(moment, utc).value();
  CHECK(moment - first == days{146'097});
}

// -- against a reference ------------------------------------------------------

namespace {

// An expression as the sets it means, made before its text.
struct reference_schedule {
  std::set<unsigned> seconds, minutes, hours, days, months, weekdays;
  bool last_day = false;
  bool days_star = false;
  bool weekdays_star = false;
  bool interval = false;
  std::string text;

  bool fits_day(year_month_day date) const {
    auto next = local_days{date} + std::chrono::days{1};
    bool is_last = year_month_day{next}.month() != date.month();
    bool by_month =
        days.count(unsigned{date.day()}) > 0 || (last_day && is_last);
    bool by_week = weekdays.count(weekday{local_days{date}}.c_encoding()) > 0;
    if (months.count(unsigned{date.month()}) == 0)
      return false;
    return days_star || weekdays_star ? by_month && by_week
                                      : by_month || by_week;
  }

  bool fits(local_seconds wall) const {
    auto day = floor<std::chrono::days>(wall);
    auto s = static_cast<unsigned>((wall - day).count());
    return seconds.count(s % 60) > 0 && minutes.count(s / 60 % 60) > 0
           && hours.count(s / 3600) > 0 && fits_day(year_month_day{day});
  }
};

using random_source = std::minstd_rand;

unsigned draw(random_source& random, unsigned least, unsigned most) {
  return std::uniform_int_distribution<unsigned>{least, most}(random);
}

// A random field as text, with what it means.
std::string random_field(random_source& random, unsigned least, unsigned most,
                         std::set<unsigned>& into) {
  switch (draw(random, 0, 4)) {
    case 0:
      for (auto i = least; i <= most; ++i)
        into.insert(i);
      return "*";
    case 1: {
      auto step = draw(random, 1, most - least);
      for (auto i = least; i <= most; i += step)
        into.insert(i);
      return "*/" + std::to_string(step);
    }
    case 2: {
      auto first = draw(random, least, most);
      auto last = draw(random, first, most);
      auto step = draw(random, 1, most - least);
      for (auto i = first; i <= last; i += step)
        into.insert(i);
      return std::to_string(first) + '-' + std::to_string(last) + '/'
             + std::to_string(step);
    }
    default: {
      std::string text;
      for (auto n = draw(random, 1, 3); n > 0; --n) {
        auto value = draw(random, least, most);
        into.insert(value);
        text += (text.empty() ? "" : ",") + std::to_string(value);
      }
      return text;
    }
  }
}

reference_schedule random_schedule(random_source& random, bool with_seconds) {
  reference_schedule x;
  std::string s;
  if (with_seconds)
    s = random_field(random, 0, 59, x.seconds) + ' ';
  else
    x.seconds = {0};
  // Mostly in the hours in which clocks change.
  auto m = random_field(random, 0, 59, x.minutes);
  auto h = draw(random, 0, 1) == 0 ? random_field(random, 0, 4, x.hours)
                                   : random_field(random, 0, 23, x.hours);
  if (h.starts_with("*")) {  // written for 0-4 it would mean all
    x.hours.clear();
    h = "*";
    for (unsigned i = 0; i < 24; ++i)
      x.hours.insert(i);
  }
  auto d = random_field(random, 1, 31, x.days);
  if (draw(random, 0, 9) == 0) {
    x.days.clear();
    x.last_day = true;
    d = "L";
  }
  auto mon = random_field(random, 1, 12, x.months);
  auto w = random_field(random, 0, 6, x.weekdays);
  x.days_star = d.starts_with("*");
  x.weekdays_star = w.starts_with("*");
  x.interval = m.starts_with("*") || h.starts_with("*");
  x.text = s + m + ' ' + h + ' ' + d + ' ' + mon + ' ' + w;
  return x;
}

// Walks from minute to minute (or second to second) as a simple cron does, with
// the latest time that its clock has shown.
std::vector<sys_seconds> walk(const reference_schedule& x,
                              const pup::time_zone& zone, sys_seconds begin,
                              sys_seconds end, seconds step) {
  std::vector<sys_seconds> result;
  auto wall = [&](sys_seconds t) {
    return local_seconds{t.time_since_epoch() + zone(t).offset};
  };
  auto latest = wall(begin - hours{4} - step);
  for (auto t = begin - hours{4}; t < end; t += step) {
    auto now = wall(t);
    bool runs = false;
    if (x.interval) {
      runs = x.fits(now);
    } else {
      auto jump = now - latest;
      if (jump <= seconds{0} && -jump < hours{3})
        continue;
      if (jump > step && jump - step <= hours{3})
        for (auto skipped = latest + step; skipped < now; skipped += step)
          runs = runs || x.fits(skipped);
      runs = runs || x.fits(now);
      latest = now;
    }
    if (runs && t >= begin)
      result.push_back(t);
  }
  return result;
}

std::vector<sys_seconds> by_next(const cron_schedule& x,
                                 const pup::time_zone& zone, sys_seconds begin,
                                 sys_seconds end) {
  std::vector<sys_seconds> result;
  for (auto t = x.next(begin - seconds{1}, zone); t && *t < end;
       t = x.next(*t, zone))
    result.push_back(*t);
  return result;
}

// Changes of 30 minutes to a day, two days or more apart.
pup::time_zone random_zone(random_source& random, sys_seconds begin,
                           int count) {
  std::vector<change> changes;
  seconds offset{0};
  constexpr int jumps[] = {30, -30, 60, -60, 120, -120, 180, -180, 1440, -1440};
  auto when = begin;
  for (int i = 0; i < count; ++i) {
    when += hours{48 + draw(random, 0, 200)} + minutes{draw(random, 0, 59)};
    offset += minutes{jumps[draw(random, 0, 9)]};
    changes.push_back({when, offset});
  }
  return zone_of(seconds{0}, changes);
}

}  // namespace

TEST_CASE("cron: as a walk from minute to minute, over all changes") {
  random_source random{20240601};
  auto begin = at(2024, 2, 20);
  auto end = at(2024, 4, 10);
  std::size_t moments = 0;
  for (int i = 0; i < 30; ++i) {
    auto x = random_schedule(random, false);
    auto parsed_one = cron_schedule::parse(x.text);
    INFO(x.text);
    if (std::holds_alternative<cron_fault>(parsed_one)) {
      auto d = sys_days{year{2000} / 1 / 1};
      for (; d < sys_days{year{2400} / 1 / 1}; d += days{1})
        REQUIRE_FALSE(x.fits_day(year_month_day{d}));
      continue;
    }
    auto zone = i % 2 == 0 ? berlin : random_zone(random, begin, 8);
    auto expected = walk(x, zone, begin, end, minutes{1});
    moments += expected.size();
    REQUIRE(by_next(std::get<cron_schedule>(parsed_one), zone, begin, end)
            == expected);
  }
  CHECK(moments > 1000);
}

TEST_CASE("cron: as a walk from second to second, around each change") {
  random_source random{7};
  std::size_t moments = 0;
  for (int i = 0; i < 24; ++i) {
    auto x = random_schedule(random, true);
    auto parsed_one = cron_schedule::parse(x.text);
    INFO(x.text);
    if (std::holds_alternative<cron_fault>(parsed_one))
      continue;
    for (auto change : {at(2024, 3, 31, 1), at(2024, 10, 27, 1)}) {
      auto expected =
          walk(x, berlin, change - hours{3}, change + hours{4}, seconds{1});
      moments += expected.size();
      REQUIRE(by_next(std::get<cron_schedule>(parsed_one), berlin,
                      change - hours{3}, change + hours{4})
              == expected);
    }
  }
  CHECK(moments > 100);
}
