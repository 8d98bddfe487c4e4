#include "pup/runtime/config_file.hpp"

#include "pup/config/head.hpp"
#include "pup/config/paths.hpp"
#include "pup/runtime/machine.hpp"
#include "pup/runtime/place.hpp"

#include <filesystem>

#include <unistd.h>

namespace pup {

namespace {

/// config.json is the name of many programs' files.
bool is_pups_own(const std::string& path) {
  return !path.ends_with("config.json");
}

}  // namespace

std::string default_name(const std::string& folder) {
  // Behind a link ".." is known to the kernel alone.
  const auto where = folder.ends_with("/..") ? canonical(folder) : folder;
  std::string result;
  for (const auto c : where.substr(where.rfind('/') + 1))
    if (result.size() < name_length && is_of_names(c))
      result += c;
  const auto only_dots = result.find_first_not_of('.') == std::string::npos;
  return only_dots ? former_default_name : result;
}

config_file look_at(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored)) {
    const auto read = read_config(path);
    if (const auto* text = std::get_if<std::string>(&read))
      return look_at(path, *text);
  }
  auto result = look_at(path, "{}");
  result.has_processes = is_pups_own(path);
  return result;
}

config_file look_at(const std::string& path, const std::string& text) {
  config_file result;
  result.written = as_written(path);
  result.resolved = canonical(path);
  result.default_name = default_name(folder_of(result.written));
  auto head = head_of(text);
  // load() says what is wrong with another one. Here it would lead elsewhere.
  if (head.name && usable_name(*head.name))
    result.name = std::move(head.name);
  result.has_processes = head.has_processes;
  return result;
}

bool is_path_of(const std::string& path, const config_file& file) {
  if (path.empty())
    return false;
  return path == file.written
         || (!file.resolved.empty()
             && (path == file.resolved || canonical(path) == file.resolved));
}

std::optional<config_file> config_here() {
  for (const auto* name : {"pup.json", "pup.jsonc", "config.json"})
    if (::access(name, F_OK) == 0)
      if (auto x = look_at(name); x.has_processes)
        return x;
  return std::nullopt;
}

}  // namespace pup
