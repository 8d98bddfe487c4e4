#include "pup/runtime/former_name.hpp"

#include "pup/runtime/state_file.hpp"

#include <algorithm>
#include <filesystem>

namespace pup {

namespace {

namespace fs = std::filesystem;

std::optional<place_error> refuse_if_running(const config_file& file,
                                             const environment& env) {
  for (const auto& x : meant_by(discover(env), file))
    if (x.name == former_default_name)
      return place_error{
          place_errc::already_running,
          file.written + ": runs already as pid " + std::to_string(x.pid)
              + ", under the name '" + x.name
              + "' that was the default of earlier versions; use it as it is, "
                "or end it with pup terminate --name "
              + x.name,
          x.pid};
  return std::nullopt;
}

/// Nothing of a supervisor is there, or an empty folder.
bool is_unused(const std::string& state_folder) {
  std::error_code missing;
  return fs::is_empty(state_folder, missing) || missing;
}

}  // namespace

bool is_state_of(const config_file& file, const std::string& folder,
                 bool unknown) {
  const auto found = read_state(folder);
  const auto* state = std::get_if<std::optional<saved_state>>(&found);
  if (state == nullptr || !*state)
    return unknown;
  return is_path_of((*state)->config, file);
}

std::optional<place_error> take_over_former_name(const config_file& file,
                                                 const environment& env) {
  if (file.written.empty() || file.name
      || file.default_name == former_default_name)
    return std::nullopt;
  if (auto running = refuse_if_running(file, env))
    return running;
  const auto parent = state_parent(env);
  if (!parent)
    return std::nullopt;
  const auto former = *parent + '/' + former_default_name;
  const auto own = *parent + '/' + file.default_name;
  if (!is_unused(own) || !is_state_of(file, former, false))
    return std::nullopt;
  // As long as this is held nobody is called so.
  const auto held = open_place(former_default_name, env, {});
  if (const auto* error = std::get_if<place_error>(&held))
    return *error;
  std::error_code failed;
  fs::rename(former, own, failed);
  if (failed)
    return place_error{
        place_errc::system,
        former + ": cannot become " + own + ": " + failed.message(), 0};
  return std::nullopt;
}

}  // namespace pup
