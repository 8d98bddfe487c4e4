#include "pup/config/address.hpp"

#include "pup/config/words.hpp"

#include <algorithm>
#include <vector>

namespace pup {

namespace {

// Dotted decimal without leading zeros, which some readers take for octal.
bool parse_ipv4(std::string_view text, std::uint8_t* into) {
  for (int part = 0; part < 4; ++part) {
    if (part > 0) {
      if (!text.starts_with('.'))
        return false;
      text.remove_prefix(1);
    }
    std::size_t size = 0;
    unsigned value = 0;
    while (size < text.size() && size < 4 && is_digit(text[size]))
      value = value * 10 + static_cast<unsigned>(text[size++] - '0');
    if (size == 0 || value > 255 || (size > 1 && text[0] == '0'))
      return false;
    into[part] = static_cast<std::uint8_t>(value);
    text.remove_prefix(size);
  }
  return text.empty();
}

std::optional<unsigned> hex_value(char c) {
  if (is_digit(c))
    return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f')
    return static_cast<unsigned>(c - 'a') + 10;
  if (c >= 'A' && c <= 'F')
    return static_cast<unsigned>(c - 'A') + 10;
  return std::nullopt;
}

// Groups without `::`, separated by single colons; appends their bytes.
bool parse_groups(std::string_view text, bool may_end_in_ipv4,
                  std::vector<std::uint8_t>& into) {
  while (!text.empty()) {
    auto end = std::min(text.find(':'), text.size());
    auto group = text.substr(0, end);
    if (may_end_in_ipv4 && end == text.size()
        && group.find('.') != std::string_view::npos) {
      std::uint8_t bytes[4];
      if (!parse_ipv4(group, bytes))
        return false;
      into.insert(into.end(), bytes, bytes + 4);
      return true;
    }
    if (group.empty() || group.size() > 4)
      return false;
    unsigned value = 0;
    for (auto c : group) {
      auto digit = hex_value(c);
      if (!digit)
        return false;
      value = value * 16 + *digit;
    }
    into.push_back(static_cast<std::uint8_t>(value >> 8u));
    into.push_back(static_cast<std::uint8_t>(value & 0xFFu));
    if (end + 1 == text.size())
      return false;  // ends in a colon
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return true;
}

// RFC 4291 section 2.2, without zones.
std::optional<ip_address> parse_ipv6(std::string_view text) {
  std::vector<std::uint8_t> head;
  std::vector<std::uint8_t> tail;
  auto gap = text.find("::");
  bool elided = gap != std::string_view::npos;
  if (!parse_groups(text.substr(0, gap), !elided, head))
    return std::nullopt;
  if (elided && !parse_groups(text.substr(gap + 2), true, tail))
    return std::nullopt;
  auto size = head.size() + tail.size();
  if (elided ? size > 14 : size != 16)
    return std::nullopt;
  ip_address result{};
  std::copy(head.begin(), head.end(), result.begin());
  std::copy_backward(tail.begin(), tail.end(), result.end());
  return result;
}

bool is_any_address(const ip_address& x) {
  return std::all_of(x.begin(), x.end(), [](auto byte) { return byte == 0; })
         || x == parse_address("0.0.0.0");
}

}  // namespace

std::optional<ip_address> parse_address(std::string_view text) {
  ip_address mapped{};
  mapped[10] = mapped[11] = 0xFF;
  if (parse_ipv4(text, mapped.data() + 12))
    return mapped;
  return parse_ipv6(text);
}

bool same_host(const std::string& a, const std::string& b) {
  auto x = parse_address(a);
  auto y = parse_address(b);
  return !x || !y || is_any_address(*x) || is_any_address(*y) || *x == *y;
}

}  // namespace pup
