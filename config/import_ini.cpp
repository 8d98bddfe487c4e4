#include "pup/config/import_ini.hpp"

#include "pup/config/import_draft.hpp"
#include "pup/config/words.hpp"

#include <algorithm>

namespace pup::importing {

namespace {

constexpr std::string_view blanks = " \t\r\f\v";

bool is_blank(char c) {
  return blanks.find(c) != std::string_view::npos;
}

bool begins_comment(char c) {
  return c == '#' || c == ';';
}

std::string_view without_comment(std::string_view line) {
  for (std::size_t i = 0; i < line.size(); ++i)
    if (begins_comment(line[i]) && (i == 0 || is_blank(line[i - 1])))
      return line.substr(0, i);
  return line;
}

std::string lower(std::string_view text) {
  std::string result{text};
  for (auto& c : result)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
  return result;
}

// %(here)s is replaced in the text, before anything else looks at it.
std::string with_here(std::string text, const std::string& here) {
  constexpr std::string_view placeholder = "%(here)s";
  if (here.empty())
    return text;
  std::string replacement;
  for (const auto c : here)
    replacement.append(c == '%' ? 2 : 1, c);
  for (auto at = text.find(placeholder); at != std::string::npos;
       at = text.find(placeholder, at + replacement.size()))
    text.replace(at, placeholder.size(), replacement);
  return text;
}

/// Takes the lines of a text one after the other.
class lines {
public:
  explicit lines(std::string_view all) : left_(all) {}

  bool next() {
    if (left_.empty())
      return false;
    const auto end = std::min(left_.find('\n'), left_.size());
    const auto whole = left_.substr(0, end);
    left_.remove_prefix(std::min(end + 1, left_.size()));
    ++number;
    indent = std::min(whole.find_first_not_of(blanks), whole.size());
    text = trimmed(without_comment(whole));
    return true;
  }

  std::size_t number = 0;
  std::size_t indent = 0;
  std::string_view text;

private:
  std::string_view left_;
};

}  // namespace

const std::string* ini_section::find(std::string_view key) const {
  const auto found = entries.find(key);
  return found == entries.end() ? nullptr : &found->second;
}

const ini_section* ini::find(std::string_view name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &sections[found->second];
}

ini_section& ini::section(const std::string& name) {
  const auto [place, is_new] = places_.emplace(name, sections.size());
  if (is_new)
    sections.push_back({name});
  return sections[place->second];
}

std::optional<import_fault> ini::read(std::string_view text,
                                      const std::string& here) {
  ini_section* into = nullptr;
  std::string key;
  std::string value;
  std::size_t key_indent = 0;
  const auto finish_entry = [&] {
    if (!key.empty())
      into->entries[key] = with_here(std::string{trimmed(value)}, here);
    key.clear();
  };
  for (lines line{text}; line.next();) {
    if (line.text.empty())
      continue;
    if (!key.empty() && line.indent > key_indent) {
      value.append("\n").append(line.text);
      continue;
    }
    finish_entry();
    key_indent = line.indent;
    if (line.text.front() == '[') {
      const auto end = line.text.rfind(']');
      if (end == std::string_view::npos || end == 1)
        return import_fault{line.number, quote(line.text) + " has no closing ]",
                            "close it"};
      into = &section(std::string{trimmed(line.text.substr(1, end - 1))});
      continue;
    }
    if (!into)
      return import_fault{line.number,
                          quote(line.text) + " stands before any [section]",
                          "name a supervisord .conf"};
    const auto equals = line.text.find_first_of("=:");
    key = lower(trimmed(line.text.substr(0, equals)));
    if (equals == std::string_view::npos || key.empty())
      return import_fault{line.number,
                          quote(line.text) + " is not \"key=value\"",
                          "correct it first"};
    value = trimmed(line.text.substr(equals + 1));
  }
  finish_entry();
  return std::nullopt;
}

void ini::spread_defaults() {
  const auto defaults = section("DEFAULT").entries;
  for (auto& x : sections)
    x.entries.insert(defaults.begin(), defaults.end());
}

}  // namespace pup::importing
