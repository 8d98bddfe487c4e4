#include "pup/config/import_supervisord_values.hpp"

#include "pup/config/expand.hpp"
#include "pup/config/spec.hpp"
#include "pup/config/words.hpp"

#include <algorithm>

namespace pup::importing {

std::string lower(std::string_view text) {
  std::string result{text};
  for (auto& c : result)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
  return result;
}

std::optional<bool> truth_of(std::string_view text) {
  const auto word = lower(text);
  if (word == "true" || word == "yes" || word == "on" || word == "1")
    return true;
  if (word == "false" || word == "no" || word == "off" || word == "0")
    return false;
  return std::nullopt;
}

std::optional<std::int64_t> byte_size(std::string_view text) {
  auto word = lower(trimmed(text));
  std::int64_t factor = 1;
  for (const auto& [unit, bytes] : {std::pair{"kb", std::int64_t{1} << 10},
                                    std::pair{"mb", std::int64_t{1} << 20},
                                    std::pair{"gb", std::int64_t{1} << 30}})
    if (word.ends_with(unit)) {
      factor = bytes;
      word.resize(word.size() - 2);
    }
  const auto number = whole_number(trimmed(word));
  if (!number || *number < 0 || *number > bounds::most_log_bytes / factor)
    return std::nullopt;
  return *number * factor;
}

variables variables_of(draft& into, const std::string& subject,
                       std::string_view text) {
  auto left = text;
  variables result;
  while (!trimmed(left).empty()) {
    const auto equals = left.find('=');
    if (equals == std::string_view::npos) {
      into.note(subject, quote(trimmed(left)) + " is not KEY=value");
      break;
    }
    const std::string name{trimmed(left.substr(0, equals))};
    left.remove_prefix(equals + 1);
    char quoted = '\0';
    std::size_t end = 0;
    for (; end < left.size() && (quoted != '\0' || left[end] != ','); ++end)
      if (left[end] == '"' || left[end] == '\'')
        quoted = quoted == '\0'        ? left[end]
                 : quoted == left[end] ? '\0'
                                       : quoted;
    auto value = trimmed(left.substr(0, end));
    if (value.size() >= 2 && (value[0] == '"' || value[0] == '\'')
        && value.back() == value[0])
      value = value.substr(1, value.size() - 2);
    if (quoted != '\0')
      into.note(subject, "the value of " + quote(name)
                             + " has a quote that is not closed; close it");
    if (is_variable(name))
      result[name] = value;
    else
      into.note(subject, quote(name) + " cannot name a variable and was left "
                                       "out");
    left.remove_prefix(std::min(end + 1, left.size()));
  }
  return result;
}

std::string expander::number(std::string_view key,
                             std::string_view conversion) {
  const auto is_padded = conversion.size() > 1;
  if (!process_number) {
    if (is_padded)
      into_.note(origin_ + ' ' + std::string{key},
                 "the number is written without leading zeros");
    return "%{index}";
  }
  auto text = std::to_string(*process_number);
  const auto width =
      is_padded ? whole_number(conversion.substr(0, conversion.size() - 1))
                : std::nullopt;
  if (width && *width < 20 && static_cast<std::size_t>(*width) > text.size())
    text.insert(0, static_cast<std::size_t>(*width) - text.size(),
                conversion.front() == '0' ? '0' : ' ');
  return text;
}

std::string expander::placeholder(std::string_view key, std::string_view name,
                                  std::string_view conversion) {
  if (name.starts_with("ENV_") && is_variable(name.substr(4))) {
    const std::string variable{name.substr(4)};
    const auto found = env_.find(variable);
    return found != env_.end() ? found->second : "%{env:" + variable + '}';
  }
  if (name == "process_num")
    return number(key, conversion);
  if (const auto found = names.find(std::string{name}); found != names.end())
    return escape_placeholders(found->second);
  if (name == "here")
    return ".";
  into_.note(
      origin_ + ' ' + std::string{key},
      "%(" + std::string{name} + ") has no counterpart; write its value");
  return {};
}

std::string expander::operator()(std::string_view key, std::string_view value) {
  std::string result;
  while (!value.empty()) {
    const auto percent = value.find('%');
    result += escape_placeholders(value.substr(0, percent));
    if (percent == std::string_view::npos)
      break;
    value.remove_prefix(percent);
    const auto end = value.find(')');
    if (value.starts_with("%(") && end != std::string_view::npos) {
      // The conversion behind it: s, d or 02d.
      const auto name = value.substr(2, end - 2);
      value.remove_prefix(end + 1);
      const auto letter =
          std::min(value.find_first_not_of("0123456789-+ #."), value.size());
      const auto conversion =
          value.substr(0, std::min(letter + 1, value.size()));
      result += placeholder(key, name, conversion);
      value.remove_prefix(conversion.size());
    } else {
      // %% is a %, and a lone one stays one.
      value.remove_prefix(value.starts_with("%%") ? 2 : 1);
      result += value.starts_with("{") ? "%{%}" : "%";
    }
  }
  return result;
}

}  // namespace pup::importing
