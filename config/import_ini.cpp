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
  for (const auto& [known, value] : entries)
    if (known == key)
      return &value;
  return nullptr;
}

void ini_section::set(const std::string& key, std::string value) {
  for (auto& [known, old] : entries) {
    if (known == key) {
      old = std::move(value);
      return;
    }
  }
  entries.emplace_back(key, std::move(value));
}

const ini_section* ini::find(std::string_view name) const {
  for (const auto& x : sections)
    if (x.name == name)
      return &x;
  return nullptr;
}

ini_section& ini::section(const std::string& name) {
  for (auto& x : sections)
    if (x.name == name)
      return x;
  return sections.emplace_back(ini_section{name});
}

std::optional<import_fault> ini::read(std::string_view text,
                                      const std::string& here) {
  ini_section* into = nullptr;
  std::string key;
  std::string value;
  std::size_t key_indent = 0;
  const auto finish_entry = [&] {
    if (!key.empty())
      into->set(key, with_here(std::string{trimmed(value)}, here));
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
  const auto* found = find("DEFAULT");
  if (!found)
    return;
  const auto defaults = *found;
  sections.erase(sections.begin() + (found - sections.data()));
  for (auto& x : sections)
    for (const auto& [key, value] : defaults.entries)
      if (!x.find(key))
        x.set(key, value);
}

}  // namespace pup::importing
