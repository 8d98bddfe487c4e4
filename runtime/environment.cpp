#include "pup/runtime/environment.hpp"

#include "pup/config/attributes.hpp"
#include "pup/runtime/survivors.hpp"

#include <algorithm>
#include <set>

namespace pup {

namespace {

std::string_view name_of(std::string_view entry) {
  return entry.substr(0, entry.find('='));
}

bool stands_for(std::string_view pattern, std::string_view name) {
  if (!pattern.ends_with('*'))
    return pattern == name;
  pattern.remove_suffix(1);
  return name.starts_with(pattern);
}

}  // namespace

bool includes(const inherited_names& names, std::string_view name) {
  return !names
         || std::any_of(names->begin(), names->end(),
                        [name](const auto& x) { return stands_for(x, name); });
}

std::vector<std::string> inherited_of(const std::vector<std::string>& all,
                                      const inherited_names& names) {
  std::vector<std::string> result;
  for (const auto& entry : all)
    if (name_of(entry) == owner_variable || includes(names, name_of(entry)))
      result.push_back(entry);
  return result;
}

std::vector<std::string> withheld_unasked(const std::vector<std::string>& all,
                                          const process_spec& process) {
  if (process.inherit_env != names_for_other_users())
    return {};
  std::set<std::string> result;
  for (const auto& entry : all) {
    const std::string name{name_of(entry)};
    if (name != owner_variable && !includes(process.inherit_env, name)
        && !process.env.contains(name))
      result.insert(name);
  }
  return {result.begin(), result.end()};
}

}  // namespace pup
