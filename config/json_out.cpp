#include "pup/config/json_out.hpp"

namespace pup {

std::string json_of(std::string_view text) {
  constexpr char digits[] = "0123456789abcdef";
  std::string result = "\"";
  for (const auto c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      result.append("\\").append(1, c);
    else if (c == '\n')
      result += "\\n";
    else if (c == '\t')
      result += "\\t";
    else if (byte < 0x20)
      result.append("\\u00")
          .append(1, digits[byte >> 4u])
          .append(1, digits[byte & 0xFu]);
    else
      result += c;
  }
  return result += '"';
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
