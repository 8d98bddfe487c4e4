#include "pup/runtime/identity.hpp"

#include "pup/runtime/text_file.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>

namespace pup {

std::optional<std::uint64_t> start_time_of(pid_t pid) {
  const auto read =
      read_text("/proc/" + std::to_string(pid) + "/stat", 64 * 1024);
  const auto* text = std::get_if<std::string>(&read);
  if (text == nullptr)
    return std::nullopt;
  // The name, field 2, may hold blanks and brackets.
  const auto behind = text->rfind(')');
  if (behind == std::string::npos)
    return std::nullopt;
  std::string_view rest{*text};
  rest.remove_prefix(std::min(behind + 2, rest.size()));
  for (int field = 3; field < 22; ++field) {
    const auto blank = rest.find(' ');
    if (blank == std::string_view::npos)
      return std::nullopt;
    rest.remove_prefix(blank + 1);
  }
  std::uint64_t result = 0;
  const auto* end = rest.data() + rest.size();
  if (std::from_chars(rest.data(), end, result).ec != std::errc{})
    return std::nullopt;
  return result;
}

std::string boot_id() {
  auto read = read_text("/proc/sys/kernel/random/boot_id", 4'096);
  auto* text = std::get_if<std::string>(&read);
  if (text == nullptr)
    return {};
  text->erase(text->find_last_not_of(" \n") + 1);
  return std::move(*text);
}

}  // namespace pup
