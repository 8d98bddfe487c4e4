#include "pup/config/reader.hpp"

#include "pup/config/words.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace pup {

namespace {

// Whole up to here, a double is exact.
constexpr double most_exact = 9'007'199'254'740'992.0;

std::optional<double> to_number(std::string_view text) {
  double result = 0;
  auto end = text.data() + text.size();
  auto [stop, why] = std::from_chars(text.data(), end, result);
  if (why != std::errc{} || stop != end || !std::isfinite(result))
    return std::nullopt;
  return result;
}

// 3000, and also 3000.0 and 3e3, which JSON does not tell apart.
std::optional<std::int64_t> to_whole(std::string_view text) {
  auto number = to_number(text);
  if (!number || std::trunc(*number) != *number
      || std::fabs(*number) > most_exact)
    return std::nullopt;
  return static_cast<std::int64_t>(*number);
}

bool is_quoted_number(const json_value& x) {
  return x.kind() == json_kind::string && to_number(x.string()).has_value();
}

// The path without its last key or index; the empty path has none.
std::string_view parent_of(std::string_view path) {
  if (path.ends_with(']')) {
    // A quoted key may itself hold brackets, so look for its opening.
    auto quoted = path.ends_with("\"]") ? path.rfind("[\"") : path.rfind('[');
    return path.substr(0, quoted == std::string_view::npos ? 0 : quoted);
  }
  auto dot = path.rfind('.');
  return path.substr(0, dot == std::string_view::npos ? 0 : dot);
}

}  // namespace

std::string describe(const json_value& x) {
  constexpr std::size_t most_shown = 40;
  switch (x.kind()) {
    case json_kind::array:
      return "an array";
    case json_kind::object:
      return "an object";
    case json_kind::string:
      return quote(x.string(), '"');
    default:
      return x.raw().size() > most_shown
                 ? std::string{x.raw().substr(0, most_shown)} + "..."
                 : std::string{x.raw()};
  }
}

std::optional<std::uint64_t> bytes_of(std::string_view text) {
  constexpr std::string_view units = "KMGT";
  std::uint64_t factor = 1;
  const auto unit =
      text.empty() ? std::string_view::npos : units.find(text.back());
  if (unit != std::string_view::npos) {
    factor = std::uint64_t{1024} << (10 * unit);
    text.remove_suffix(1);
  }
  std::uint64_t number = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || error != std::errc{} || stop != end
      || number > std::numeric_limits<std::uint64_t>::max() / factor)
    return std::nullopt;
  return number * factor;
}

std::optional<spot> fields::find(std::string_view key) const {
  for (auto& [name, x] : members_)
    if (name == key)
      return x;
  return std::nullopt;
}

// -- faults -------------------------------------------------------------------

void reader::blame(std::size_t offset, const std::string& path,
                   std::string problem, std::string remedy) {
  if (overflow_)
    return;
  spoiled_.insert(path);
  if (faults_.size() < most_diagnostics - 1)
    faults_.push_back({offset, path, std::move(problem), std::move(remedy)});
  else
    overflow_ = true;
}

void reader::blame(const spot& x, std::string problem, std::string remedy) {
  blame(x.value.offset(), x.path, std::move(problem), std::move(remedy));
}

void reader::blame_key(const spot& x, std::string problem, std::string remedy) {
  blame(x.key_offset, x.path, std::move(problem), std::move(remedy));
}

void reader::blame(const broken_rule& x) {
  if (!is_sound(x.path)
      || !std::all_of(x.basis.begin(), x.basis.end(),
                      [this](auto& path) { return is_sound(path); }))
    return;
  for (std::string_view path = x.path;; path = parent_of(path)) {
    if (auto known = place_of(path)) {
      auto renamed = path.size() == x.path.size() && !known->shown.empty();
      blame(known->offset, renamed ? known->shown : x.path, x.problem,
            x.remedy);
      return;
    }
    if (path.empty())
      break;
  }
  blame(0, x.path, x.problem, x.remedy);
}

void reader::alias(const std::string& path, const spot& x) {
  places_[path] = {x.value.offset(), x.path};
  if (!is_sound(x.path))
    spoiled_.insert(path);
}

bool reader::is_sound(const std::string& path) const {
  if (spoiled_.empty())
    return true;
  for (std::string_view x = path; !x.empty(); x = parent_of(x))
    if (spoiled_.count(std::string{x}) > 0)
      return false;
  return true;
}

std::vector<diagnostic> reader::take() {
  std::stable_sort(
      faults_.begin(), faults_.end(),
      [](const fault& a, const fault& b) { return a.offset < b.offset; });
  std::vector<diagnostic> result;
  for (auto& x : faults_) {
    auto [line, column] = lines_.at(x.offset);
    result.push_back({file_, line, column, std::move(x.path),
                      std::move(x.problem), std::move(x.remedy)});
  }
  if (overflow_)
    result.push_back(
        {file_, result.back().line, result.back().column, "",
         "there are more faults than these " + std::to_string(result.size()),
         "correct these first"});
  faults_.clear();
  return result;
}

// -- values -------------------------------------------------------------------

void reader::remember(const spot& x) {
  places_.emplace(x.path, place{x.value.offset()});
}

std::optional<reader::place> reader::place_of(std::string_view path) const {
  const auto known = places_.find(std::string{path});
  if (known != places_.end())
    return known->second;
  const auto parent = parent_of(path);
  const auto array = elements_.find(std::string{parent});
  if (array == elements_.end() || !path.ends_with(']'))
    return std::nullopt;
  const auto digits = path.substr(parent.size() + 1);
  std::size_t index = 0;
  const auto [stop, why] =
      std::from_chars(digits.data(), digits.data() + digits.size() - 1, index);
  if (why != std::errc{} || *stop != ']' || index >= array->second.size())
    return std::nullopt;
  return place{array->second[index]};
}

fields reader::members(const spot& x) {
  fields result;
  std::unordered_map<std::string_view, std::size_t> seen;
  for (auto& member : x.value.members()) {
    auto key = member.key.string();
    spot child{member.value, member_path(x.path, key), member.key.offset()};
    auto [first, added] = seen.emplace(key, child.key_offset);
    if (added) {
      remember(child);
      result.members_.emplace_back(key, std::move(child));
    } else {
      auto line = lines_.at(first->second).line;
      blame_key(child,
                "the key appears again, first on line " + std::to_string(line),
                "keep one of them");
    }
  }
  return result;
}

void reader::blame_unknown(const spot& x, std::string_view key,
                           const key_set& keys) {
  if (overflow_)
    return;  // the search for a near key is not cheap enough for a million
  auto problem = quote(key) + " is not a key of " + std::string{keys.owner};
  for (auto& [stray, advice] : keys.strays) {
    if (stray == key) {
      blame_key(x, problem, std::string{advice});
      return;
    }
  }
  if (auto near = nearest(key, keys.keys)) {
    blame_key(x, problem, "did you mean " + quote(*near) + '?');
    return;
  }
  std::vector<std::string_view> words;
  for (auto& stray : keys.strays)
    words.push_back(stray.first);
  if (auto near = nearest(key, words)) {
    auto meant = std::find(words.begin(), words.end(), *near) - words.begin();
    blame_key(x, problem,
              std::string{keys.strays[static_cast<std::size_t>(meant)].second});
    return;
  }
  auto offered = keys.offered > 0 ? keys.keys.first(keys.offered) : keys.keys;
  blame_key(x, problem, "remove it or use " + enumerate(offered));
}

std::optional<fields> reader::object(const spot& x, const key_set& keys,
                                     const std::string& remedy) {
  auto result = object(x, remedy);
  if (!result)
    return result;
  std::erase_if(result->members_, [&](auto& member) {
    auto& [key, child] = member;
    if (std::find(keys.keys.begin(), keys.keys.end(), key) != keys.keys.end())
      return false;
    blame_unknown(child, key, keys);
    return true;
  });
  return result;
}

std::optional<fields> reader::object(const spot& x, const std::string& remedy) {
  if (x.value.kind() != json_kind::object) {
    blame(x, describe(x.value) + " is not an object", remedy);
    return std::nullopt;
  }
  return members(x);
}

std::optional<std::vector<spot>> reader::array(const spot& x,
                                               const std::string& remedy,
                                               std::size_t most) {
  if (x.value.kind() != json_kind::array) {
    blame(x, describe(x.value) + " is not an array", remedy);
    return std::nullopt;
  }
  const auto elements = x.value.elements();
  if (elements.size() > most) {
    blame(x,
          "has " + std::to_string(elements.size()) + " entries, more than "
              + std::to_string(most),
          "remove some");
    return std::nullopt;
  }
  std::vector<spot> result;
  result.reserve(elements.size());
  auto& offsets = elements_[x.path];
  offsets.clear();
  offsets.reserve(elements.size());
  for (auto& value : elements) {
    result.push_back(
        {value, element_path(x.path, result.size()), value.offset()});
    offsets.push_back(value.offset());
  }
  return result;
}

std::optional<std::string> reader::text(const spot& x) {
  auto kind = x.value.kind();
  if (kind == json_kind::string)
    return std::string{x.value.string()};
  bool quotable = kind == json_kind::number || kind == json_kind::boolean;
  blame(x, describe(x.value) + " is not a string",
        quotable ? "put it in double quotes" : "write text in double quotes");
  return std::nullopt;
}

std::optional<bool> reader::boolean(const spot& x) {
  if (x.value.kind() == json_kind::boolean)
    return x.value.truth();
  blame(x, describe(x.value) + " is not true or false",
        "use true or false, without quotes");
  return std::nullopt;
}

std::optional<std::int64_t> reader::whole(const spot& x, std::int64_t least,
                                          std::int64_t most,
                                          std::string_view what,
                                          std::string_view or_else) {
  if (x.value.kind() == json_kind::number) {
    auto result = to_whole(x.value.raw());
    if (result && *result >= least && *result <= most)
      return result;
  }
  blame(x, describe(x.value) + " is not " + std::string{what},
        "use " + std::to_string(least) + " to " + std::to_string(most)
            + std::string{or_else}
            + (is_quoted_number(x.value) ? ", without quotes" : ""));
  return std::nullopt;
}

std::optional<std::chrono::milliseconds> reader::duration(
    const spot& x, bool seconds, std::int64_t least_ms) {
  if (x.value.kind() == json_kind::number) {
    auto number = to_number(x.value.raw());
    auto ms = number ? *number * (seconds ? 1000 : 1) : -1;
    bool fits = seconds || std::trunc(ms) == ms;
    if (fits && ms >= static_cast<double>(least_ms)
        && ms <= static_cast<double>(bounds::duration_ms))
      return std::chrono::milliseconds{std::llround(ms)};
  }
  blame(x,
        describe(x.value) + " is not a time in "
            + (seconds ? "seconds" : "whole milliseconds"),
        duration_remedy(seconds, least_ms)
            + (is_quoted_number(x.value) ? ", without quotes" : ""));
  return std::nullopt;
}

std::optional<std::size_t> reader::choice(
    const spot& x, std::span<const std::string_view> words,
    std::string_view what, std::size_t offered) {
  if (x.value.kind() == json_kind::string)
    for (std::size_t i = 0; i < words.size(); ++i)
      if (words[i] == x.value.string())
        return i;
  auto near = x.value.kind() == json_kind::string
                  ? nearest(x.value.string(), words)
                  : std::nullopt;
  blame(x, describe(x.value) + " is not " + std::string{what},
        near ? "did you mean " + quote(*near, '"') + '?'
             : "use "
                   + enumerate(words.first(std::min(offered, words.size())),
                               '"'));
  return std::nullopt;
}

std::optional<spot> reader::required(const spot& owner, const fields& x,
                                     std::string_view key, std::string remedy) {
  auto result = x.find(key);
  if (!result)
    blame(owner.value.offset(), member_path(owner.path, key), "is missing",
          std::move(remedy));
  return result;
}

}  // namespace pup
