#include "pup/config/paths.hpp"

#include <algorithm>
#include <string_view>

namespace pup {

namespace {

/// Takes `path` in behind `result`, component by component.
void append(std::string& result, std::string_view path,
            const link_question& is_link) {
  while (!path.empty()) {
    const auto name = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(name.size() + 1, path.size()));
    if (name.empty() || name == ".")
      continue;
    if (name != "..") {
      result.append(1, '/').append(name);
      continue;
    }
    const auto slash = result.rfind('/');
    if (result.empty())
      continue;  // that of / is / itself
    if (result.substr(slash) == "/.." || (is_link && is_link(result)))
      result += "/..";
    else
      result.erase(slash);
  }
}

}  // namespace

std::string absolute_path(const std::string& path, const std::string& folder,
                          const link_question& is_link) {
  std::string result;
  if (!path.starts_with('/'))
    append(result, folder, is_link);
  append(result, path, is_link);
  return result.empty() ? "/" : result;
}

std::string folder_of(const std::string& file) {
  const auto slash = file.rfind('/');
  if (slash == std::string::npos)
    return {};
  return slash == 0 ? "/" : file.substr(0, slash);
}

}  // namespace pup
