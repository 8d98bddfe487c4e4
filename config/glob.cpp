#include "pup/config/glob.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <span>

namespace pup {

namespace {

using views = std::vector<std::string_view>;

views split(std::string_view path) {
  views result;
  for (;;) {
    const auto end = path.find('/');
    if (end != 0)
      result.push_back(path.substr(0, end));
    if (end == std::string_view::npos)
      return result;
    path.remove_prefix(end + 1);
  }
}

// Where the bracket that opens at `at` is closed; npos: nowhere.
std::size_t class_end(std::string_view text, std::size_t at) {
  auto i = at + 1;
  if (i < text.size() && (text[i] == '!' || text[i] == '^'))
    ++i;
  // A closing bracket in the first place stands for itself.
  return text.find(']', i + 1);
}

struct class_match {
  bool matches = false;
  std::size_t end = 0;  // behind the bracket
};

class_match match_class(std::string_view pattern, std::size_t at, char c) {
  const auto end = class_end(pattern, at);
  auto i = at + 1;
  const bool negated = pattern[i] == '!' || pattern[i] == '^';
  if (negated)
    ++i;
  bool found = false;
  for (; i < end; ++i) {
    const auto first = static_cast<unsigned char>(pattern[i]);
    auto last = first;
    if (i + 2 < end && pattern[i + 1] == '-') {
      last = static_cast<unsigned char>(pattern[i + 2]);
      i += 2;
    }
    const auto x = static_cast<unsigned char>(c);
    found = found || (first <= x && x <= last);
  }
  return {found != negated, end + 1};
}

// Greedy: of several stars only the last one ever has to give way.
bool match_name(std::string_view pattern, std::string_view name) {
  std::size_t p = 0;
  std::size_t n = 0;
  std::optional<std::pair<std::size_t, std::size_t>> star;
  while (n < name.size() || p < pattern.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = {++p, n};
      continue;
    }
    if (p < pattern.size() && n < name.size()) {
      class_match one{pattern[p] == '?' || pattern[p] == name[n], p + 1};
      if (pattern[p] == '[')
        one = match_class(pattern, p, name[n]);
      else if (pattern[p] == '\\')
        one = {pattern[p + 1] == name[n], p + 2};
      if (one.matches) {
        p = one.end;
        ++n;
        continue;
      }
    }
    if (!star || star->second >= name.size())
      return false;
    p = star->first;
    n = ++star->second;
  }
  return true;
}

// The same for whole names, of which "**" takes any number.
bool match_path(std::span<const std::string> pattern,
                std::span<const std::string_view> path) {
  std::size_t p = 0;
  std::size_t n = 0;
  std::optional<std::pair<std::size_t, std::size_t>> star;
  while (n < path.size() || p < pattern.size()) {
    if (p < pattern.size() && pattern[p] == "**") {
      star = {++p, n};
      continue;
    }
    if (p < pattern.size() && n < path.size()
        && match_name(pattern[p], path[n])) {
      ++p;
      ++n;
      continue;
    }
    if (!star || star->second >= path.size())
      return false;
    p = star->first;
    n = ++star->second;
  }
  return true;
}

// "a{b,c}d" to "abd" and "acd", from the outermost brace inwards. Empty result:
// `fault` says why.
class brace_expansion {
public:
  std::vector<std::string> run(std::string_view pattern) {
    expand({}, pattern);
    return std::move(result_);
  }

  std::string fault;

private:
  void expand(const std::string& head, std::string_view rest) {
    if (!fault.empty())
      return;
    const auto open = find_open(rest);
    if (open == rest.size()) {
      result_.push_back(head + std::string{rest});
      if (result_.size() > path_glob::most_alternatives)
        fault = "has more than " + std::to_string(path_glob::most_alternatives)
                + " alternatives";
      return;
    }
    const auto parts = parts_of(rest, open);
    if (parts.empty()) {
      fault = "has a { without its }";
      return;
    }
    const auto end = static_cast<std::size_t>(
        parts.back().data() + parts.back().size() + 1 - rest.data());
    for (const auto part : parts)
      expand(head + std::string{rest.substr(0, open)},
             tail_of(part, rest.substr(end)));
  }

  // Views into what outlives this.
  std::string_view tail_of(std::string_view part, std::string_view rest) {
    kept_.push_back(
        std::make_unique<std::string>(std::string{part} + std::string{rest}));
    return *kept_.back();
  }

  static std::size_t find_open(std::string_view text) {
    std::size_t i = 0;
    while (i < text.size() && text[i] != '{')
      i = next(text, i);
    return std::min(i, text.size());
  }

  // Behind the character, the escaped one or the class at `i`.
  static std::size_t next(std::string_view text, std::size_t i) {
    if (text[i] == '\\')
      return i + 2;
    if (text[i] == '[')
      if (const auto end = class_end(text, i); end != std::string_view::npos)
        return end + 1;
    return i + 1;
  }

  static views parts_of(std::string_view text, std::size_t open) {
    views result;
    auto begin = open + 1;
    std::size_t depth = 1;
    for (auto i = begin; i < text.size(); i = next(text, i)) {
      depth += text[i] == '{' ? 1 : 0;
      depth -= text[i] == '}' ? 1 : 0;
      if (depth > 0 && (depth > 1 || text[i] != ','))
        continue;
      result.push_back(text.substr(begin, i - begin));
      begin = i + 1;
      if (depth == 0)
        return result;
    }
    return {};
  }

  std::vector<std::string> result_;
  std::vector<std::unique_ptr<std::string>> kept_;
};

std::string fault_of(std::string_view pattern) {
  if (pattern.empty())
    return "is empty";
  if (pattern.find('\0') != std::string_view::npos)
    return "holds a NUL character";
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\') {
      if (++i == pattern.size())
        return "ends with a backslash";
      if (pattern[i] == '/')
        return "has a slash behind a backslash";
    } else if (pattern[i] == '[') {
      const auto end = class_end(pattern, i);
      if (end == std::string_view::npos)
        return "has a [ without its ]";
      if (pattern.substr(i, end - i).find('/') != std::string_view::npos)
        return "has a slash between [ and ]";
      i = end;
    }
  }
  return {};
}

}  // namespace

std::variant<path_glob, std::string> path_glob::parse(
    std::string_view pattern) {
  if (auto fault = fault_of(pattern); !fault.empty())
    return fault;
  brace_expansion braces;
  const auto plain = braces.run(pattern);
  if (!braces.fault.empty())
    return std::move(braces.fault);
  path_glob result;
  for (const auto& x : plain) {
    names parts;
    for (const auto name : split(x))
      if (name != "." && !name.empty())
        parts.emplace_back(name);
    if (parts.empty())
      return "names nothing";
    if (std::count(parts.begin(), parts.end(), "..") > 0)
      return "leads out of the folder";
    // A slash at the end only says that a folder is meant.
    if (x.find('/') >= x.size() - 1)
      parts.insert(parts.begin(), "**");
    result.alternatives_.push_back(std::move(parts));
  }
  return result;
}

bool path_glob::matches(std::string_view path) const {
  const auto parts = split(path);
  return std::any_of(
      alternatives_.begin(), alternatives_.end(),
      [&](const names& pattern) { return match_path(pattern, parts); });
}

bool path_glob::covers(std::string_view path) const {
  const auto parts = split(path);
  return std::any_of(alternatives_.begin(), alternatives_.end(),
                     [&](const names& pattern) {
                       std::span<const std::string> wanted{pattern};
                       while (wanted.size() > 1 && wanted.back() == "**")
                         wanted = wanted.first(wanted.size() - 1);
                       for (std::size_t n = 1; n <= parts.size(); ++n)
                         if (match_path(wanted, std::span{parts}.first(n)))
                           return true;
                       return false;
                     });
}

}  // namespace pup
