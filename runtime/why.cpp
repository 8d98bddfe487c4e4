#include "pup/runtime/why.hpp"

#include "pup/actors/slot.hpp"
#include "pup/config/plain_text.hpp"
#include "pup/runtime/log_text.hpp"

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <utility>

namespace pup {

namespace {

constexpr std::size_t word_width = 9;

std::uint64_t us_of(std::int64_t ms) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(ms, 0)) * 1'000;
}

std::string at(std::uint64_t time_us, const zone_function& zone) {
  return time_text(time_us, zone(time_us));
}

std::string line(const std::string& time, const std::string& word,
                 const std::string& text) {
  auto padded = word;
  padded.resize(std::max(word.size() + 1, word_width), ' ');
  return "  " + time + "  " + padded + text + '\n';
}

// Output, as a terminal draws it.
std::string drawn(std::string_view text) {
  std::string scratch;
  return std::string{without_escapes(text, escapes::strip_controls, scratch)};
}

std::string json_text(std::string_view text) {
  std::string result;
  append_json_string(result, text);
  return result;
}

std::string object(
    std::initializer_list<std::pair<const char*, std::string>> members) {
  std::string result = "{";
  for (const auto& [key, value] : members) {
    if (result.size() > 1)
      result += ',';
    result += json_text(key) + ':' + json_text(value);
  }
  return result + '}';
}

std::string array(const std::vector<std::string>& elements) {
  std::string result = "[";
  for (const auto& x : elements)
    result += (result.size() > 1 ? "," : "") + x;
  return result + ']';
}

}  // namespace

std::optional<std::int64_t> output_since(const instance_history& x) {
  const auto& all = x.entries;
  const auto last = [&](auto end, event_kind what) {
    return std::find_if(end, all.rend(),
                        [what](const auto& y) { return y.what == what; });
  };
  auto from = all.rbegin();
  if (x.state != run_state::ready)
    if (const auto end = last(from, event_kind::ended); end != all.rend())
      from = end;
  const auto begin = last(from, event_kind::started);
  if (begin == all.rend())
    return std::nullopt;
  // A life is told a little after it has begun, and after what made it begin.
  constexpr std::int64_t slack_ms = 1'000;
  const auto cause = std::next(begin);
  return cause == all.rend() ? begin->time_ms - slack_ms : cause->time_ms;
}

std::string why_text(const std::vector<explanation>& all, std::uint64_t now_us,
                     const zone_function& zone) {
  std::string result;
  for (const auto& [x, output] : all) {
    if (!result.empty())
      result += '\n';
    result += shown(x.id) + ": " + to_string(x.state)
              + (x.reason.empty() ? "" : ", " + shown(x.reason)) + '\n';
    for (const auto& y : x.entries)
      result +=
          line(at(us_of(y.time_ms), zone), to_string(y.what), shown(y.text));
    if (!output.empty())
      result += "last output:\n";
    for (const auto& y : output)
      result += line(at(y.time_us, zone), y.stream, drawn(y.text));
    if (x.next.empty())
      continue;
    result += "next: " + shown(x.next);
    if (x.next_ms != 0) {
      const auto then = us_of(x.next_ms);
      const std::chrono::microseconds left{then > now_us ? then - now_us : 0};
      result += ", at " + at(then, zone) + " (in " + in_words(left) + ')';
    }
    result += '\n';
  }
  return result;
}

std::string why_json(const std::vector<explanation>& all,
                     const zone_function& zone) {
  std::string result = "{\"instances\":[";
  const auto* comma = "";
  for (const auto& [x, output] : all) {
    result += std::exchange(comma, ",");
    result += object(
        {{"id", x.id}, {"state", to_string(x.state)}, {"reason", x.reason}});
    result.back() = ',';
    std::vector<std::string> events;
    for (const auto& y : x.entries)
      events.push_back(object({{"time", at(us_of(y.time_ms), zone)},
                               {"event", to_string(y.what)},
                               {"text", y.text}}));
    std::vector<std::string> lines;
    for (const auto& y : output)
      lines.push_back(object({{"time", at(y.time_us, zone)},
                              {"stream", y.stream},
                              {"text", y.text}}));
    const auto when = x.next_ms == 0 ? std::string{"null"}
                                     : json_text(at(us_of(x.next_ms), zone));
    result += "\"events\":" + array(events) + ",\"output\":" + array(lines)
              + ",\"next\":{\"text\":" + json_text(x.next) + ",\"time\":" + when
              + "}}";
  }
  return result + "]}\n";
}

}  // namespace pup
