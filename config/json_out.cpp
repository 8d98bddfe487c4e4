#include "pup/config/json_out.hpp"

#include "pup/config/plain_text.hpp"

namespace pup {

std::string json_of(std::string_view text) {
  std::string result;
  append_json_string(result, text, not_utf8::keep);
  return result;
}

std::string json_of(const std::vector<std::string>& texts) {
  std::string result = "[";
  for (const auto& x : texts)
    result += (result.size() > 1 ? ", " : "") + json_of(x);
  return result + ']';
}

std::string json_of(const json_members& x) {
  std::string result = "{";
  for (const auto& [key, value] : x)
    result += (result.size() > 1 ? ", " : "") + json_of(key) + ": " + value;
  return result + '}';
}

std::string json_of(const std::map<std::string, std::string>& texts) {
  json_members result;
  for (const auto& [key, value] : texts)
    result.emplace_back(key, json_of(value));
  return json_of(result);
}

}  // namespace pup
