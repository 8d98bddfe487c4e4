#include "pup/config/import_pm2_keys.hpp"

#include "pup/config/words.hpp"

#include <algorithm>

namespace pup::importing {

namespace {

// maxMemoryRestart for max_memory_restart: PM2 takes both.
std::string camel(std::string_view key) {
  std::string result;
  bool raise = false;
  for (const auto c : key) {
    if (c == '_')
      raise = true;
    else
      result +=
          raise && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    raise = c == '_';
  }
  return result;
}

bool is_spelling(std::string_view key, std::string_view known) {
  return key == known || key == camel(known);
}

// Where a key has two spellings, PM2 takes what is false, 0 or empty for
// missing.
bool is_given(std::string_view key, const json_value& x) {
  switch (x.kind()) {
    case json_kind::null:
      return false;
    case json_kind::boolean:
      return x.truth() || key.find('_') == key.npos;
    case json_kind::number:
      return x.raw() != "0" || key.find('_') == key.npos;
    default:
      return true;
  }
}

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/// The end of NAME="..." at the front of `text`, quotes included; 0: there is
/// none. PM2 leaves it as it is, quotes and all.
std::size_t assignment_end(std::string_view text) {
  const auto equals = text.find_first_of(" \t\r\n\"'=");
  if (equals == std::string_view::npos || equals == 0 || text[equals] != '='
      || equals + 1 >= text.size())
    return 0;
  const auto quoted = text[equals + 1];
  if (quoted != '"' && quoted != '\'')
    return 0;
  const auto end = text.find(quoted, equals + 2);
  return end == std::string_view::npos ? 0 : end + 1;
}

// As PM2 takes a text apart, which is not quite what shells do: only quotes
// around a whole word go, and one that is not closed is part of its word.
std::vector<std::string> pm2_words(std::string_view text) {
  std::vector<std::string> result;
  while (!text.empty()) {
    if (is_blank(text.front())) {
      text.remove_prefix(1);
      continue;
    }
    auto end = assignment_end(text);
    const auto quoted = text.front();
    if (end == 0 && (quoted == '"' || quoted == '\'')) {
      const auto close = text.find(quoted, 1);
      end = close == std::string_view::npos ? 0 : close + 1;
    }
    if (end == 0)
      end = std::min(text.find_first_of(" \t\r\n"), text.size());
    auto word = text.substr(0, end);
    text.remove_prefix(end);
    if (word.size() >= 2 && (word.front() == '"' || word.front() == '\'')
        && word.back() == word.front())
      word = word.substr(1, word.size() - 2);
    if (!trimmed(word).empty())
      result.emplace_back(word);
  }
  return result;
}

}  // namespace

std::optional<json_value> pm2_keys::find(std::string_view key) const {
  for (const auto& member : x_.members())
    if (is_spelling(member.key.string(), key) && is_given(key, member.value))
      return member.value;
  return std::nullopt;
}

std::optional<json_value> pm2_keys::take(names keys) {
  std::optional<json_value> result;
  for (const auto key : keys) {
    taken_.push_back(key);
    if (!result)
      result = find(key);
  }
  return result;
}

std::optional<std::string> pm2_keys::text(names keys) {
  const auto x = take(keys);
  if (!x)
    return std::nullopt;
  // To PM2 an empty text is none.
  if (x->kind() == json_kind::string && x->string().empty())
    return std::nullopt;
  if (x->kind() == json_kind::string)
    return std::string{x->string()};
  if (x->kind() == json_kind::number)
    return std::string{x->raw()};
  note(*keys.begin(), "is not a text and was left out");
  return std::nullopt;
}

std::optional<std::int64_t> pm2_keys::number(names keys) {
  const auto x = text(keys);
  if (!x)
    return std::nullopt;
  auto result = whole_number(*x);
  if (!result || *result < 0) {
    note(*keys.begin(), quote(*x) + " is not a number and was left out");
    return std::nullopt;
  }
  return result;
}

std::optional<bool> pm2_keys::truth(names keys) {
  const auto x = take(keys);
  if (x && x->kind() == json_kind::boolean)
    return x->truth();
  if (x && x->kind() == json_kind::string
      && (x->string() == "true" || x->string() == "false"))
    return x->string() == "true";
  return std::nullopt;
}

std::vector<std::string> pm2_keys::words(names keys) {
  const auto x = take(keys);
  std::vector<std::string> result;
  if (!x)
    return result;
  if (x->kind() == json_kind::array) {
    for (const auto& element : x->elements())
      result.emplace_back(element.kind() == json_kind::string ? element.string()
                                                              : element.raw());
  } else if (x->kind() == json_kind::string) {
    return pm2_words(x->string());
  }
  return result;
}

void pm2_keys::tell_rest() {
  for (const auto& member : x_.members()) {
    const auto key = member.key.string();
    const auto is_known = [&](std::string_view known) {
      return is_spelling(key, known);
    };
    if (std::none_of(taken_.begin(), taken_.end(), is_known))
      note(key, "has no counterpart in pup");
  }
}

/// As JSON.stringify writes it: what PM2 makes of an object in `env`.
std::string stringified(const json_value& x) {
  std::string result;
  switch (x.kind()) {
    case json_kind::array:
      for (const auto& element : x.elements())
        result.append(result.empty() ? "" : ",").append(stringified(element));
      return '[' + result + ']';
    case json_kind::object:
      for (const auto& member : x.members())
        result.append(result.empty() ? "" : ",")
            .append(json_of(member.key.string()))
            .append(":")
            .append(stringified(member.value));
      return '{' + result + '}';
    case json_kind::string:
      return json_of(x.string());
    default:
      return std::string{x.raw()};
  }
}

}  // namespace pup::importing
