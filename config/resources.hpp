// What setrlimit(2) limits, by name.
#pragma once

#include <array>
#include <string_view>

namespace pup {

/// The words of `limits`, with their numbers on Linux.
struct resource_name {
  std::string_view name;
  int number;
  bool bytes;  ///< also written as "64M"
};
inline constexpr std::array<resource_name, 16> resource_names{{
    {"cpu", 0, false},  // seconds
    {"fsize", 1, true},
    {"data", 2, true},
    {"stack", 3, true},
    {"core", 4, true},
    {"rss", 5, true},
    {"nproc", 6, false},
    {"nofile", 7, false},
    {"memlock", 8, true},
    {"as", 9, true},
    {"locks", 10, false},
    {"sigpending", 11, false},
    {"msgqueue", 12, true},
    {"nice", 13, false},  // 20 minus the lowest nice value
    {"rtprio", 14, false},
    {"rttime", 15, false},  // microseconds
}};

/// "nofile"; "?" for a number that is none of them.
constexpr std::string_view name_of_resource(int number) noexcept {
  for (auto& x : resource_names)
    if (x.number == number)
      return x.name;
  return "?";
}

}  // namespace pup
