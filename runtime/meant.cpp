#include "pup/runtime/meant.hpp"

#include "pup/runtime/machine.hpp"
#include "pup/runtime/output.hpp"

#include <sys/stat.h>

namespace pup {

namespace {

/// The name that nobody was found by; empty: none was said.
std::string name_of(const wanted_supervisor& wanted) {
  if (wanted.name)
    return *wanted.name;
  const auto& file = wanted.config ? wanted.config : wanted.here;
  return file ? file->supervisor() : std::string{};
}

/// Why nothing was found: the folder may be another user's.
std::string text_of_none(const command& what, const wanted_supervisor& wanted,
                         const std::vector<running>& all) {
  std::string text = "pup: no supervisor is running";
  std::string config = "CONFIG";
  if (what.name) {
    text = "pup: '" + *what.name + "' is not running";
  } else if (what.of_config) {
    text = "pup: nothing started from '" + *what.of_config + "' is running";
  } else if (wanted.config) {
    config = what.config;
    text = "pup: '" + wanted.config->supervisor() + "' of "
           + wanted.config->written + " is not running";
  }
  const auto env = process_environment();
  if (const auto lost = holder_of_state(name_of(wanted), env))
    return "pup: '" + lost->name + "' runs as pid " + std::to_string(lost->pid)
           + ", but cannot be reached in " + lost->folder
           + "; it makes that anew as soon as the folder above can be written "
             "to, or set PUP_RUNTIME_DIR as it was when that was started";
  const auto folder = runtime_parent(env);
  struct stat info {};
  if (all.empty() && ::stat(folder.c_str(), &info) == 0
      && info.st_uid != env.user)
    return text + " as uid " + std::to_string(env.user) + "; " + folder
           + " belongs to uid " + std::to_string(info.st_uid)
           + ", run the command as that user";
  return text + "; start one with pup start " + config
         + (all.empty() ? "" : ", or choose with --name from " + list(all));
}

}  // namespace

std::string list(const std::vector<running>& all) {
  std::string result;
  for (const auto& x : all)
    result += (result.empty() ? "" : ", ") + x.name
              + (x.config.empty() ? "" : " (" + x.config + ')');
  return result;
}

wanted_supervisor wanted_by(const command& what) {
  wanted_supervisor result;
  result.name = what.name;
  if (what.of_config)
    result.config = look_at(*what.of_config);
  result.folder = working_folder();
  if (!what.id.empty() && what.id != "all")
    result.id = what.id;
  if (!what.name && !what.of_config)
    result.here = config_here();
  return result;
}

not_one why_not_one(const choice& x, const command& what,
                    const wanted_supervisor& wanted,
                    const std::vector<running>& all) {
  if (const auto* several = std::get_if<ambiguous>(&x))
    return {"pup: several supervisors run: " + list(several->candidates)
            + "; choose one with --name"};
  if (const auto* here = std::get_if<not_running_here>(&x))
    return {"pup: '" + here->config.supervisor() + "' of "
                + here->config.written
                + " is not running; start it with pup start, or choose with "
                  "--name from "
                + list(all),
            exit_code::not_running};
  return {text_of_none(what, wanted, all), exit_code::not_running};
}

void tell_unwatched(const std::vector<left_place>& all) {
  for (const auto& x : all)
    complain(text_of(x));
}

void tell_unwatched(const wanted_supervisor& wanted) {
  tell_unwatched(find_unwatched(wanted, process_environment()));
}

}  // namespace pup
