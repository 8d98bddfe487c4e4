#include "pup/actors/selector.hpp"

#include <algorithm>

namespace pup {

bool glob_match(std::string_view pattern, std::string_view text) {
  std::size_t p = 0;
  std::size_t t = 0;
  auto star = std::string_view::npos;  // the last * seen
  std::size_t resume = 0;              // where its run ends so far
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size()
               && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*')
    ++p;
  return p == pattern.size();
}

std::vector<target> select(std::string_view selector,
                           const std::vector<unit_status>& units) {
  const auto everything = selector == "all";
  std::vector<target> result;
  for (const auto& unit : units) {
    if (everything || glob_match(selector, unit.id)) {
      result.push_back({unit.id, 0});
      continue;
    }
    if (!unit.is_cluster)
      continue;
    for (const auto& instance : unit.instances)
      if (glob_match(selector, instance.id))
        result.push_back({unit.id, instance.slot});
  }
  return result;
}

std::string unknown_id(std::string_view selector,
                       const std::vector<unit_status>& units) {
  // More would push the sentence itself off the screen.
  constexpr std::size_t shown = 10;
  auto result =
      "no process, cluster or instance '" + std::string{selector} + "'; ";
  if (units.empty())
    return result + "there is none at all";
  result += "there ";
  result += units.size() == 1 ? "is " : "are ";
  for (std::size_t i = 0; i < std::min(shown, units.size()); ++i)
    result += (i == 0 ? "" : ", ") + units[i].id;
  if (units.size() > shown)
    result += " and " + std::to_string(units.size() - shown) + " more";
  return result;
}

}  // namespace pup
