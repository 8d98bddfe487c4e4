#include "pup/config/cron.hpp"

#include "pup/config/words.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

namespace pup {

namespace {

using namespace std::chrono;

// Longer jumps of the clock are no summer time; the bound of vixie-cron.
constexpr hours longest_jump{3};

// Nothing is looked for beyond: the calendar repeats after as many days.
constexpr days four_hundred_years{146'097};

// The types of dates end in 32767.
constexpr sys_seconds end_of_calendar = sys_days{year{32'000} / January / 1};

constexpr std::size_t longest_text = 1024;

constexpr std::array<std::string_view, 12> month_names{
    "jan", "feb", "mar", "apr", "may", "jun",
    "jul", "aug", "sep", "oct", "nov", "dec"};
constexpr std::array<std::string_view, 7> weekday_names{
    "sun", "mon", "tue", "wed", "thu", "fri", "sat"};

struct nickname {
  std::string_view name;
  std::string_view meaning;
};
constexpr std::array<nickname, 7> nicknames{{
    {"@yearly", "0 0 1 1 *"},
    {"@annually", "0 0 1 1 *"},
    {"@monthly", "0 0 1 * *"},
    {"@weekly", "0 0 * * 0"},
    {"@daily", "0 0 * * *"},
    {"@midnight", "0 0 * * *"},
    {"@hourly", "0 * * * *"},
}};

struct field_rule {
  std::string_view name;
  std::string_view value;  // "a minute"
  unsigned least;
  unsigned most;
  std::span<const std::string_view> names;  // the first stands for `least`
};
constexpr std::array<field_rule, 6> field_rules{{
    {"second", "a second", 0, 59, {}},
    {"minute", "a minute", 0, 59, {}},
    {"hour", "an hour", 0, 23, {}},
    {"day of month", "a day of month", 1, 31, {}},
    {"month", "a month", 1, 12, month_names},
    {"day of week", "a day of week", 0, 7, weekday_names},
}};
constexpr std::size_t day_field = 3;
constexpr std::size_t month_field = 4;
constexpr std::size_t weekday_field = 5;

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

std::string lower(std::string_view text) {
  std::string result{text};
  std::transform(result.begin(), result.end(), result.begin(),
                 [](char c) { return lower(c); });
  return result;
}

std::vector<std::string_view> split(std::string_view text,
                                    std::string_view separators,
                                    bool keep_empty) {
  std::vector<std::string_view> result;
  for (std::size_t begin = 0; begin <= text.size();) {
    const auto end =
        std::min(text.find_first_of(separators, begin), text.size());
    if (keep_empty || end > begin)
      result.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return result;
}

year_month_day date_of(local_days day) {
  return year_month_day{day};
}

unsigned last_day_of(year_month_day date) {
  return unsigned{
      year_month_day_last{date.year(), month_day_last{date.month()}}.day()};
}

}  // namespace

// -- parsing ------------------------------------------------------------------

class cron_parser {
public:
  std::variant<cron_schedule, cron_fault> run(std::string_view text);

private:
  bool blame(std::string problem, std::string remedy) {
    const std::string field{rule_ != nullptr ? rule_->name : ""};
    fault_ = {field, std::move(problem), std::move(remedy)};
    return false;
  }

  bool blame_value(std::string_view text);
  bool fields(std::string_view text);
  bool field(std::size_t index, std::string_view text);
  bool element(std::string_view text);
  bool range(std::string_view text, unsigned step, bool stepped);
  bool number(std::string_view text, unsigned& value);
  bool day_from_last(std::string_view text);
  bool nth_weekday(std::string_view text, std::string_view which);
  void add(unsigned first, unsigned last, unsigned step);
  bool can_happen();

  const field_rule* rule_ = nullptr;
  std::size_t index_ = 0;
  cron_schedule into_;
  cron_fault fault_;
};

std::variant<cron_schedule, cron_fault> cron_parser::run(
    std::string_view text) {
  const auto good =
      text.size() <= longest_text
          ? fields(text)
          : blame("is longer than " + std::to_string(longest_text) + " bytes",
                  "shorten it");
  if (good && can_happen())
    return into_;
  return fault_;
}

bool cron_parser::fields(std::string_view text) {
  auto parts = split(text, " \t\n\r\f\v", false);
  if (parts.empty())
    return blame("is empty", "write one such as \"0 3 * * *\", daily at 3:00");
  if (parts.front().starts_with('@')) {
    const auto word = lower(parts.front());
    std::vector<std::string_view> names;
    for (const auto& x : nicknames)
      names.push_back(x.name);
    const auto known = std::find(names.begin(), names.end(), word);
    if (known == names.end() || parts.size() > 1) {
      const auto near = nearest(word, names);
      const auto problem = known == names.end()
                               ? quote(parts.front()) + " is unknown"
                               : quote(word) + " stands alone";
      if (word == "@reboot")
        return blame(problem, "remove it and use \"autostart\": true");
      return blame(problem, near && *near != word
                                ? "did you mean " + quote(*near, '"') + '?'
                                : "use one of " + enumerate(names, '"'));
    }
    parts = split(
        nicknames[static_cast<std::size_t>(known - names.begin())].meaning, " ",
        false);
  }
  if (parts.size() != 5 && parts.size() != 6)
    return blame("has " + std::to_string(parts.size())
                     + (parts.size() == 1 ? " field" : " fields"),
                 "write minute, hour, day of month, month and day of week, or "
                 "these with a second in front");
  const auto first = field_rules.size() - parts.size();
  if (first > 0)
    into_.seconds_.set(0);
  for (std::size_t i = 0; i < parts.size(); ++i)
    if (!field(first + i, parts[i]))
      return false;
  rule_ = nullptr;
  const auto star = [&](std::size_t index) {
    const auto c = parts[index - first].front();
    return c == '*' || c == '?';
  };
  into_.time_of_day_ = !star(1) && !star(2);
  into_.either_day_ = !star(day_field) && !star(weekday_field);
  return true;
}

bool cron_parser::field(std::size_t index, std::string_view text) {
  index_ = index;
  rule_ = &field_rules[index];
  for (const auto part : split(text, ",", true)) {
    if (part.empty())
      return blame(quote(text) + " has an empty element",
                   "remove the extra comma");
    if (!element(part))
      return false;
  }
  return true;
}

// value | range | step, with what only the fields of days know.
bool cron_parser::element(std::string_view text) {
  if (index_ == day_field && lower(text.front()) == 'l')
    return day_from_last(text);
  if (index_ == weekday_field) {
    if (const auto hash = text.find('#'); hash != std::string_view::npos)
      return nth_weekday(text.substr(0, hash), text.substr(hash + 1));
    if (text.size() == 2 && is_digit(text[0]) && lower(text[1]) == 'l')
      return nth_weekday(text.substr(0, 1), "L");
  }
  const auto slash = text.find('/');
  if (slash == std::string_view::npos)
    return range(text, 1, false);
  const auto digits = text.substr(slash + 1);
  const auto span = rule_->most - rule_->least;
  unsigned step = 0;
  for (const auto c : digits) {
    if (!is_digit(c) || step > span)
      step = span + 1;
    else
      step = step * 10 + static_cast<unsigned>(c - '0');
  }
  if (digits.empty() || step == 0
      || digits.find_first_not_of("0123456789") != std::string_view::npos)
    return blame(quote(digits) + " is not a step",
                 "use 1 to " + std::to_string(span));
  if (step > span)
    return blame(
        "a step of " + quote(digits) + " fits only once",
        "use 1 to " + std::to_string(span) + ", or write the value alone");
  return range(text.substr(0, slash), step, true);
}

bool cron_parser::range(std::string_view text, unsigned step, bool stepped) {
  const auto whole_week = index_ == weekday_field ? 6u : rule_->most;
  if (text == "*"
      || (text == "?" && (index_ == day_field || index_ == weekday_field))) {
    add(rule_->least, whole_week, step);
    return true;
  }
  const auto dash = text.find('-');
  unsigned first = 0;
  unsigned last = 0;
  if (!number(text.substr(0, dash), first))
    return false;
  if (dash == std::string_view::npos)
    last = stepped ? std::max(first, whole_week) : first;
  else if (!number(text.substr(dash + 1), last))
    return false;
  // "fri-sun" ends with the Sunday that is 7.
  if (index_ == weekday_field && last == 0 && first > 0)
    last = 7;
  if (last < first)
    return blame(
        quote(text) + " runs backwards",
        "write two ranges with a comma: " + std::string{text.substr(0, dash)}
            + '-' + std::to_string(rule_->most) + ','
            + std::to_string(rule_->least) + '-'
            + std::string{text.substr(dash + 1)});
  add(first, last, step);
  return true;
}

bool cron_parser::blame_value(std::string_view text) {
  auto remedy = "use " + std::to_string(rule_->least) + " to "
                + std::to_string(rule_->most);
  if (!rule_->names.empty()) {
    if (const auto near = nearest(lower(text), rule_->names))
      return blame(quote(text) + " is not " + std::string{rule_->value},
                   "did you mean " + quote(*near, '"') + '?');
    remedy += ", or " + std::string{rule_->names.front()} + " to "
              + std::string{rule_->names.back()};
  }
  return blame(text.empty()
                   ? "a value is missing"
                   : quote(text) + " is not " + std::string{rule_->value},
               remedy);
}

bool cron_parser::number(std::string_view text, unsigned& value) {
  const auto known =
      std::find(rule_->names.begin(), rule_->names.end(), lower(text));
  if (known != rule_->names.end()) {
    value = rule_->least + static_cast<unsigned>(known - rule_->names.begin());
    return true;
  }
  value = 0;
  if (text.empty() || text.size() > 2
      || !std::all_of(text.begin(), text.end(), is_digit))
    return blame_value(text);
  for (const auto c : text)
    value = value * 10 + static_cast<unsigned>(c - '0');
  return (value >= rule_->least && value <= rule_->most) || blame_value(text);
}

void cron_parser::add(unsigned first, unsigned last, unsigned step) {
  for (auto i = first; i <= last; i += step) {
    switch (index_) {
      case 0:
        into_.seconds_.set(i);
        break;
      case 1:
        into_.minutes_.set(i);
        break;
      case 2:
        into_.hours_.set(i);
        break;
      case day_field:
        into_.days_.set(i);
        break;
      case month_field:
        into_.months_.set(i);
        break;
      default:
        into_.weekdays_.set(i % 7);
    }
  }
}

bool cron_parser::day_from_last(std::string_view text) {
  if (text.size() == 1) {
    into_.from_last_.set(0);
    return true;
  }
  unsigned days = 0;
  const auto digits = text.substr(std::min<std::size_t>(2, text.size()));
  for (const auto c : digits)
    days = is_digit(c) && days <= 30
               ? days * 10 + static_cast<unsigned>(c - '0')
               : 99;
  if (text[1] != '-' || digits.empty() || days > 30)
    return blame(quote(text) + " is not a day of month",
                 "use L, or L-1 to L-30 for days before the last");
  into_.from_last_.set(days);
  return true;
}

bool cron_parser::nth_weekday(std::string_view day, std::string_view which) {
  unsigned value = 0;
  if (!number(day, value))
    return false;
  const auto last = which.size() == 1 && lower(which[0]) == 'l';
  if (!last && (which.size() != 1 || which[0] < '1' || which[0] > '5'))
    return blame(quote(which) + " is no place of a weekday in its month",
                 "use #1 to #5, or #L for the last");
  into_.nth_[last ? 0 : which[0] - '0'].set(value % 7);
  return true;
}

// Two walks over the calendar at most: 400 years hold every case there is.
bool cron_parser::can_happen() {
  for (auto day = local_days{year{2000} / January / 1};
       day < local_days{year{2400} / January / 1}; day += days{1}) {
    const auto date = date_of(day);
    if (!into_.months_[unsigned{date.month()}]) {
      day = local_days{date.year() / date.month() / last};
      continue;
    }
    if (into_.fits_day(date))
      return true;
  }
  return blame("never happens: no month it names has such a day",
               "correct the day of month or the month");
}

std::variant<cron_schedule, cron_fault> cron_schedule::parse(
    std::string_view text) {
  return cron_parser{}.run(text);
}

// -- the calendar -------------------------------------------------------------

bool cron_schedule::fits_day(year_month_day date) const {
  if (!months_[unsigned{date.month()}])
    return false;
  const auto number = unsigned{date.day()};
  const auto last = last_day_of(date);
  const auto week = weekday{local_days{date}}.c_encoding();
  const auto fits_month = days_[number] || from_last_[last - number];
  const auto fits_week = weekdays_[week] || nth_[(number - 1) / 7 + 1][week]
                         || (nth_[0][week] && number + 7 > last);
  return either_day_ ? fits_month || fits_week : fits_month && fits_week;
}

bool cron_schedule::fits(local_seconds wall) const {
  const auto day = floor<days>(wall);
  const hh_mm_ss time{wall - day};
  const auto has = [](const auto& set, auto count) {
    return set[static_cast<std::size_t>(count)];
  };
  return has(hours_, time.hours().count())
         && has(minutes_, time.minutes().count())
         && has(seconds_, time.seconds().count()) && fits_day(date_of(day));
}

std::optional<seconds> cron_schedule::first_time_from(seconds from) const {
  const hh_mm_ss start{from};
  const auto h0 = static_cast<std::size_t>(start.hours().count());
  const auto m0 = static_cast<std::size_t>(start.minutes().count());
  const auto s0 = static_cast<std::size_t>(start.seconds().count());
  for (auto h = h0; h < 24; ++h) {
    if (!hours_[h])
      continue;
    for (auto m = h == h0 ? m0 : 0; m < 60; ++m) {
      if (!minutes_[m])
        continue;
      for (auto s = h == h0 && m == m0 ? s0 : 0; s < 60; ++s)
        if (seconds_[s])
          return hours{h} + minutes{m} + seconds{s};
    }
  }
  return std::nullopt;
}

// The first fitting time in [from, end).
std::optional<local_seconds> cron_schedule::first_from(
    local_seconds from, local_seconds end) const {
  auto time = from - floor<days>(from);
  for (auto day = floor<days>(from); day < end; day += days{1}) {
    const auto date = date_of(day);
    if (!months_[unsigned{date.month()}]) {
      day = local_days{date.year() / date.month() / last};
    } else if (fits_day(date)) {
      if (const auto found = first_time_from(time))
        return day + *found < end ? std::optional{day + *found} : std::nullopt;
    }
    time = seconds{0};
  }
  return std::nullopt;
}

std::optional<sys_seconds> cron_schedule::next(sys_seconds moment,
                                               const time_zone& zone) const {
  const auto wall = [](sys_seconds x, seconds offset) {
    return local_seconds{x.time_since_epoch() + offset};
  };
  if (moment >= end_of_calendar)
    return std::nullopt;
  auto from = moment + seconds{1};
  const auto end_of_search =
      std::min<sys_seconds>(from + four_hundred_years, end_of_calendar);
  auto period = zone(from);
  while (from < end_of_search) {
    auto begin = wall(from, period.offset);
    // What this period's beginning shows for the second time, or has jumped
    // over, counts from the end of the period before it.
    if (time_of_day_ && period.begin > sys_days{year{1900} / January / 1}) {
      const auto before = zone(period.begin - seconds{1}).offset;
      const auto jump = period.offset - before;
      const auto shown = wall(period.begin, before);
      if (jump < seconds{0} && -jump <= longest_jump)
        begin = std::max(begin, shown);
      if (jump > seconds{0} && jump <= longest_jump && from == period.begin
          && first_from(shown, wall(period.begin, period.offset)))
        return period.begin;
    }
    const auto last = std::min(period.end, end_of_search);
    if (const auto found = first_from(begin, wall(last, period.offset)))
      return sys_seconds{found->time_since_epoch() - period.offset};
    from = period.end;
    if (from < end_of_search)
      period = zone(from);
  }
  return std::nullopt;
}

zone_period utc(sys_seconds) {
  return {sys_seconds::min(), sys_seconds::max(), seconds{0}};
}

}  // namespace pup
