#include "pup/runtime/log_text.hpp"

#include "pup/config/plain_text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <fnmatch.h>

namespace pup {

namespace {

using std::chrono::minutes;

constexpr char escape = '\033';
constexpr std::string_view colour_end = "\033[0m";

constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

// Bytes of the sequence that begins with the escape at the front; none reaches
// over a newline.
std::size_t sequence_length(std::string_view text) {
  std::size_t i = 1;
  const auto at = [&] { return i < text.size() ? text[i] : '\n'; };
  const auto between = [&](char low, char high) {
    return at() >= low && at() <= high && at() != '\n';
  };
  if (at() == '[') {
    ++i;
    while (between('\x20', '\x3F'))
      ++i;
    return between('\x40', '\x7E') ? i + 1 : i;
  }
  if (at() == ']' || at() == 'P' || at() == '^' || at() == '_'
      || at() == 'X') {  // strings, ended by BEL or ESC backslash
    for (++i; at() != '\n'; ++i) {
      if (at() == '\a')
        return i + 1;
      if (at() == escape)
        return i + 1 < text.size() && text[i + 1] == '\\' ? i + 2 : i;
    }
    return i;
  }
  while (between('\x20', '\x2F'))
    ++i;
  return between('\x30', '\x7E') ? i + 1 : i;
}

bool is_colour(std::string_view sequence) {
  return sequence.size() >= 3 && sequence[1] == '[' && sequence.back() == 'm'
         && sequence.find_first_not_of("0123456789;:", 2)
                == sequence.size() - 1;
}

// -- times --------------------------------------------------------------------

using days = std::chrono::sys_days;

void append_number(std::string& to, std::int64_t value, int digits) {
  std::array<char, 24> text{};
  std::snprintf(text.data(), text.size(), "%0*lld", digits,
                static_cast<long long>(value));
  to += text.data();
}

std::string_view severity_colour(const log_line& x) {
  const auto severity = severity_of(x.stream);
  if (severity == "error")
    return "\033[31m";
  return severity == "warn" ? "\033[33m" : "\033[36m";
}

/// Takes numbers and marks from the front of a text.
class time_parser {
public:
  explicit time_parser(std::string_view text) : rest_(text) {}

  std::optional<int> number(std::size_t digits) {
    int result = 0;
    const auto part = rest_.substr(0, digits);
    if (part.size() != digits
        || !std::all_of(part.begin(), part.end(),
                        [](char c) { return c >= '0' && c <= '9'; }))
      return std::nullopt;
    std::from_chars(part.data(), part.data() + digits, result);
    rest_.remove_prefix(digits);
    return result;
  }

  bool mark(char c) {
    if (!rest_.starts_with(c))
      return false;
    rest_.remove_prefix(1);
    return true;
  }

  [[nodiscard]] bool ended() const {
    return rest_.empty();
  }

  [[nodiscard]] std::string_view rest() const {
    return rest_;
  }

  std::optional<days> date() {
    const auto year = number(4);
    if (!year || !mark('-'))
      return std::nullopt;
    const auto month = number(2);
    if (!month || !mark('-'))
      return std::nullopt;
    const auto day = number(2);
    if (!day)
      return std::nullopt;
    const std::chrono::year_month_day result{
        std::chrono::year{*year},
        std::chrono::month{static_cast<unsigned>(*month)},
        std::chrono::day{static_cast<unsigned>(*day)}};
    if (!result.ok() || *year < 1970)
      return std::nullopt;
    return days{result};
  }

  /// Microseconds of the day.
  std::optional<std::int64_t> clock() {
    const auto hour = number(2);
    if (!hour || *hour > 23 || !mark(':'))
      return std::nullopt;
    const auto minute = number(2);
    if (!minute || *minute > 59)
      return std::nullopt;
    std::int64_t result = (*hour * 60LL + *minute) * 60'000'000;
    if (!mark(':'))
      return result;
    const auto second = number(2);
    if (!second || *second > 59)
      return std::nullopt;
    result += *second * 1'000'000LL;
    if (!mark('.'))
      return result;
    std::int64_t unit = 100'000;
    for (auto digit = number(1); digit; digit = number(1)) {
      result += *digit * unit;
      unit /= 10;
    }
    return result;
  }

  /// Empty: wrong.
  std::optional<minutes> zone(minutes own) {
    if (ended())
      return own;
    if (mark('Z'))
      return minutes{0};
    const bool west = rest_.starts_with('-');
    if (!mark('-') && !mark('+'))
      return std::nullopt;
    const auto hour = number(2);
    mark(':');
    const auto minute = number(2);
    if (!hour || !minute || *hour > 14 || *minute > 59)
      return std::nullopt;
    const minutes result{*hour * 60 + *minute};
    return west ? -result : result;
  }

private:
  std::string_view rest_;
};

std::optional<std::uint64_t> time_before(std::string_view text,
                                         std::uint64_t now_us) {
  std::uint64_t count = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc{} || stop + 1 != end || count > 1'000'000'000)
    return std::nullopt;
  std::uint64_t unit = 0;
  if (*stop == 's')
    unit = 1;
  else if (*stop == 'm')
    unit = 60;
  else if (*stop == 'h')
    unit = 3'600;
  else if (*stop == 'd')
    unit = 86'400;
  else
    return std::nullopt;
  const auto back = count * unit * 1'000'000;
  return now_us - std::min(back, now_us);
}

bool is_instance_of(std::string_view id, std::string_view cluster) {
  if (id.size() < cluster.size() + 2 || !id.starts_with(cluster)
      || id[cluster.size()] != '-')
    return false;
  id.remove_prefix(cluster.size() + 1);
  return id.find_first_not_of("0123456789") == std::string_view::npos
         && id.front() != '0';
}

bool is_chosen(std::string_view id, const std::string& wanted) {
  return id == wanted || wanted == "all" || is_instance_of(id, wanted)
         || (wanted.find_first_of("*?[") != std::string::npos
             && ::fnmatch(wanted.c_str(), std::string{id}.c_str(), 0) == 0);
}

bool is_among(std::string_view word, std::string_view list) {
  while (!list.empty()) {
    const auto end = std::min(list.find(','), list.size());
    if (list.substr(0, end) == word)
      return true;
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return false;
}

}  // namespace

namespace {

// Of an escape sequence at the front of `text`, what stays goes to `to`.
// Returns how long it is.
std::size_t take_sequence(std::string& to, std::string_view text, escapes how) {
  const auto length = sequence_length(text);
  if (how == escapes::keep_colours && is_colour(text.substr(0, length)))
    to.append(text.substr(0, length));
  return length;
}

// The same for any other character.
std::size_t take_character(std::string& to, std::string_view text) {
  const auto piece = first_piece(text);
  const auto raw = text.substr(0, piece.size);
  if (piece.what == text_piece::kind::drawn || raw == "\n" || raw == "\t")
    to.append(raw);
  else if (piece.what == text_piece::kind::invalid)
    to.append(replacement_character);
  return piece.size;
}

// Bytes at the front that nothing has to be done about.
std::size_t harmless_size(std::string_view text, escapes how) {
  return how == escapes::strip ? std::min(text.find(escape), text.size())
                               : printable_size(text);
}

}  // namespace

std::string_view without_escapes(std::string_view text, escapes how,
                                 std::string& scratch) {
  if (how == escapes::keep || harmless_size(text, how) == text.size())
    return text;
  scratch.clear();
  while (!text.empty()) {
    const auto good = harmless_size(text, how);
    scratch.append(text.substr(0, good));
    text.remove_prefix(good);
    if (text.empty())
      break;
    text.remove_prefix(text.front() == escape
                           ? take_sequence(scratch, text, how)
                           : take_character(scratch, text));
  }
  return scratch;
}

std::string time_text(std::uint64_t time_us, minutes offset) {
  constexpr std::uint64_t last_us = 253'402'300'799'000'000;  // 9999-12-31
  auto ms = static_cast<std::int64_t>(std::min(time_us, last_us) / 1'000)
            + std::chrono::milliseconds{offset}.count();
  ms = std::clamp<std::int64_t>(ms, 0, last_us / 1'000);
  const auto day = ms / 86'400'000;
  const auto of_day = ms % 86'400'000;
  const std::chrono::year_month_day date{
      days{std::chrono::days{static_cast<int>(day)}}};
  std::string result;
  append_number(result, static_cast<int>(date.year()), 4);
  result += '-';
  append_number(result, static_cast<unsigned>(date.month()), 2);
  result += '-';
  append_number(result, static_cast<unsigned>(date.day()), 2);
  result += 'T';
  append_number(result, of_day / 3'600'000, 2);
  result += ':';
  append_number(result, of_day / 60'000 % 60, 2);
  result += ':';
  append_number(result, of_day / 1'000 % 60, 2);
  result += '.';
  append_number(result, of_day % 1'000, 3);
  if (offset == minutes{0})
    return result += 'Z';
  const auto distance = offset < minutes{0} ? -offset : offset;
  result += offset < minutes{0} ? '-' : '+';
  append_number(result, distance.count() / 60, 2);
  result += ':';
  append_number(result, distance.count() % 60, 2);
  return result;
}

std::string line_head(const log_line& x, const line_style& style) {
  std::string to;
  if (style.json) {
    to += R"({"time":")" + time_text(x.time_us, style.offset) + R"(","id":)";
    append_json_string(to, x.id);
    to.append(R"(,"stream":")").append(stream_name(x.stream));
    to.append(R"(","severity":")").append(severity_of(x.stream));
    return to.append(R"(","text":)");
  }
  if (!style.decorate)
    return to;
  to = time_text(x.time_us, style.offset) + ' ';
  if (style.colour)
    to.append(severity_colour(x));
  // An id in a store may be anybody's bytes.
  to += shown(x.id);
  if (style.colour)
    to += colour_end;
  to.append(" ").append(stream_name(x.stream)).append(" ");
  if (x.stream != log_stream::out && x.stream != log_stream::err)
    to.append(severity_of(x.stream)).append(" ");
  return to;
}

void append_line(std::string& to, std::string_view head, std::string_view text,
                 const line_style& style) {
  std::string scratch;
  if (style.text != escapes::keep && text.ends_with('\r'))
    text.remove_suffix(1);
  text = without_escapes(text, style.text, scratch);
  to.append(head);
  if (style.json) {
    append_json_string(to, text);
    to += '}';
  } else {
    to.append(text);
    if (text.find(escape) != std::string_view::npos)
      to += colour_end;
  }
  to += '\n';
}

std::optional<std::uint64_t> time_of(std::string_view text,
                                     std::uint64_t now_us, minutes offset) {
  if (text.starts_with('-'))
    return time_before(text.substr(1), now_us);
  time_parser parser{text};
  const auto offset_us = std::chrono::microseconds{offset}.count();
  // Today, in the wanted zone.
  auto day =
      days{std::chrono::floor<std::chrono::days>(std::chrono::microseconds{
          static_cast<std::int64_t>(now_us) + offset_us})};
  std::int64_t of_day = 0;
  const bool has_date = text.size() > 4 && text[4] == '-';
  if (has_date) {
    const auto date = parser.date();
    if (!date)
      return std::nullopt;
    day = *date;
  }
  if (!has_date || parser.mark('T') || parser.mark(' ')) {
    const auto clock = parser.clock();
    if (!clock)
      return std::nullopt;
    of_day = *clock;
  }
  const auto zone = parser.zone(offset);
  if (!zone || !parser.ended())
    return std::nullopt;
  const auto result = std::chrono::microseconds{day.time_since_epoch()}.count()
                      + of_day - std::chrono::microseconds{*zone}.count();
  return static_cast<std::uint64_t>(std::max<std::int64_t>(result, 0));
}

bool line_filter::wants(const log_line& x) const {
  return x.time_us >= start_us && x.time_us <= end_us
         && (id.empty() || is_chosen(x.id, id))
         && (severity.empty() || is_among(severity_of(x.stream), severity));
}

}  // namespace pup
