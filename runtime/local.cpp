#include "pup/runtime/local.hpp"

#include "pup/config/edit.hpp"
#include "pup/config/expand.hpp"
#include "pup/config/import.hpp"
#include "pup/config/plain_text.hpp"
#include "pup/runtime/config_file.hpp"
#include "pup/runtime/import_files.hpp"
#include "pup/runtime/listening.hpp"
#include "pup/runtime/machine.hpp"
#include "pup/runtime/manual.hpp"
#include "pup/runtime/output.hpp"
#include "pup/runtime/service.hpp"
#include "pup/runtime/text_file.hpp"
#include "pup/runtime/trusted_path.hpp"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include <unistd.h>

namespace pup {

namespace {

std::string file_of(const command& what) {
  return what.of_config ? *what.of_config : default_config();
}

exit_code no_file(const char* command) {
  return complain(
      std::string{command}
          + ": no pup.json, pup.jsonc or config.json here; name one with "
            "--config, or make one with pup init",
      exit_code::usage);
}

// -- the configuration --------------------------------------------------------

exit_code init(const command& what) {
  const auto file = what.of_config.value_or("pup.json");
  auto entry = what.entry;
  if (entry.empty())
    entry = {{"id", json_of("hello")},
             {"cmd", json_of("while true; do echo hello; sleep 10; done")}};
  const auto text = first_config(entry);
  if (const auto judged = load_text(text, file);
      const auto* faults = std::get_if<std::vector<diagnostic>>(&judged))
    return complain(*faults);
  if (const auto fault = create_text(file, text, {{}, caller_of_root()}))
    return complain(fault->code == EEXIST
                        ? file
                              + ": exists already; pup append adds a process "
                                "to it"
                        : to_string(*fault));
  print(shown(file) + ": written; start it with pup start " + shown(file)
        + '\n');
  return exit_code::done;
}

/// Replaces the file by what `change` makes of its text, if that is valid.
template <class Change>
exit_code edit(const std::string& file, const Change& change,
               const std::string& done) {
  const auto read = read_text(file, bounds::config_bytes);
  if (const auto* fault = std::get_if<os_fault>(&read))
    return complain(to_string(*fault) + "; name a readable configuration",
                    exit_code::usage);
  const auto result = change(std::get<std::string>(read));
  if (const auto* fault = std::get_if<edit_fault>(&result))
    return complain(file + ':' + std::to_string(fault->line) + ": "
                        + fault->problem + "; " + fault->remedy,
                    exit_code::usage);
  const auto& text = std::get<std::string>(result);
  if (const auto judged = load_text(text, file);
      const auto* faults = std::get_if<std::vector<diagnostic>>(&judged))
    return complain(*faults);
  if (const auto fault = replace_text(file, text, {{}, caller_of_root()}))
    return complain(to_string(*fault));
  print(shown(file) + ": " + done + '\n');
  return exit_code::done;
}

exit_code append(const command& what) {
  const auto file = file_of(what);
  if (file.empty())
    return no_file("append");
  return edit(
      file,
      [&](const std::string& text) { return append_process(text, what.entry); },
      what.entry.front().second + " appended");
}

exit_code remove(const command& what) {
  const auto file = file_of(what);
  if (file.empty())
    return no_file("remove");
  return edit(
      file,
      [&](const std::string& text) { return remove_process(text, what.id); },
      json_of(what.id) + " removed");
}

exit_code import(const command& what) {
  const auto read = read_text(what.config, bounds::config_bytes);
  if (const auto* fault = std::get_if<os_fault>(&read))
    return complain(to_string(*fault) + "; name a readable file",
                    exit_code::usage);
  const auto around = surroundings_of(what.config);
  const auto made =
      import_config(std::get<std::string>(read), what.config, around);
  if (const auto* fault = std::get_if<import_fault>(&made))
    return complain(what.config + ':' + std::to_string(fault->line) + ": "
                        + fault->problem + "; " + fault->remedy,
                    exit_code::usage);
  const auto& result = std::get<imported>(made);
  if (what.output.empty() || what.output == "-") {
    print(result.text);
  } else if (const auto fault = create_text(what.output, result.text,
                                            {{}, caller_of_root()})) {
    return complain(fault->code == EEXIST
                        ? what.output + ": exists already; name another file"
                        : to_string(*fault));
  }
  for (const auto& x : result.notes)
    complain(x.subject + ": " + x.text);
  if (!what.output.empty() && what.output != "-"
      && surroundings_of(what.output).folder != around.folder)
    complain(what.output + ": relative paths in it start at its own folder, "
             + "those of " + what.config + " at " + around.folder
             + "; make them absolute, or move it there");
  // What is not installed here, or a folder that is not there.
  const auto judged =
      load_text(result.text, what.output.empty() ? "pup.json" : what.output);
  if (const auto* faults = std::get_if<std::vector<diagnostic>>(&judged))
    complain(*faults);
  return exit_code::done;
}

/// Why a running supervisor would not use `path`; empty: it would, or the path
/// is another one for each instance.
std::string objection_to(const std::string& path, bool is_folder) {
  if (path.empty() || find_placeholders(path).per_instance())
    return {};
  const auto real = expand(path, 0, 0, {});
  const auto why = [](const auto& found) {
    const auto* fault = std::get_if<os_fault>(&found);
    return fault != nullptr ? fault->why : std::string{};
  };
  return is_folder ? why(trusted_folder::open(real)) : why(locate(real));
}

/// Paths that lead through places of others in a way that is not followed when
/// they are used (docs/SECURITY.md): that depends on the machine, so it is no
/// fault of the text.
void warn_of_paths(const std::string& config, const pup_spec& spec) {
  const auto warn = [&](const std::string& whose, const std::string& path,
                        bool is_folder = false) {
    if (const auto why = objection_to(path, is_folder); !why.empty())
      complain(config + ": warning: " + whose + ": " + why);
  };
  const auto warn_of_output = [&](const std::string& whose,
                                  const output_spec& x) {
    warn(whose, x.stdout_file);
    warn(whose, x.stderr_file);
  };
  warn_of_output("logger", spec.logger.output);
  for (const auto& x : spec.processes) {
    if (!(x.output == spec.logger.output))
      warn_of_output(x.id + ".logger", x.output);
    warn(x.id + ".pidFile", x.pid_file);
    for (const auto& path : x.watch)
      warn(x.id + ".watch", path);
    // Its own user goes where it may; links of others lead pup's own astray.
    if (!x.attributes.run_as || x.attributes.run_as->uid == ::geteuid())
      warn(x.id + ".cwd", x.cwd, true);
  }
}

exit_code validate(const command& what) {
  const auto loaded = load_file(what.config);
  if (const auto* faults = std::get_if<std::vector<diagnostic>>(&loaded))
    return complain(*faults);
  warn_of_paths(what.config, std::get<pup_spec>(loaded));
  print(shown(what.config) + ": ok\n");
  return exit_code::done;
}

// -- the service --------------------------------------------------------------

/// Everything is stopped in turn: the sum of what each may take, and more than
/// systemd's usual 90 s in any case.
std::chrono::seconds stop_time(const pup_spec& spec) {
  std::chrono::milliseconds sum{10'000};
  for (const auto& x : spec.processes)
    sum +=
        x.terminate_grace_period + x.terminate_timeout
        + (x.cluster ? x.cluster->drain_timeout : std::chrono::milliseconds{0});
  return std::max(std::chrono::seconds{90},
                  std::chrono::ceil<std::chrono::seconds>(sum));
}

/// What systemd can listen on in place of pup. A group of inherited sockets
/// needs one for each instance.
std::vector<std::string> common_ports(const pup_spec& spec) {
  std::vector<std::string> result;
  for (const auto& x : spec.processes) {
    if (!x.cluster || x.cluster->common_port == 0
        || x.cluster->mode != cluster_mode::proxy)
      continue;
    const auto& host = x.cluster->common_host;
    const auto port = x.cluster->common_port;
    result.push_back(host.empty() ? std::to_string(port) : spelled(host, port));
  }
  return result;
}

/// The supervisor of a unit. One that was enabled for this file when every
/// default name was "pup" keeps it: there are never two of a file.
std::string service_name(const command& what, const config_file& file) {
  if (what.name)
    return *what.name;
  const auto former =
      unit_folder(what.system) + '/' + unit_name(former_default_name);
  const auto unit = read_text(former, bounds::config_bytes);
  const auto* text = std::get_if<std::string>(&unit);
  if (!file.name && text != nullptr
      && is_unit_of(*text, former_default_name, file))
    return former_default_name;
  return file.supervisor();
}

exit_code enable_service(const command& what) {
  const auto file = what.config.empty() ? file_of(what) : what.config;
  if (file.empty())
    return no_file("enable-service");
  const auto loaded = load_file(file);
  if (const auto* faults = std::get_if<std::vector<diagnostic>>(&loaded))
    return complain(*faults);
  const auto& spec = std::get<pup_spec>(loaded);
  service x;
  const auto named = look_at(file);
  x.name = service_name(what, named);
  x.program = std::filesystem::read_symlink("/proc/self/exe").string();
  x.config = named.written;
  const auto* path = std::getenv("PATH");
  x.path = path != nullptr ? path : "";
  x.system = what.system;
  x.user = what.user;
  x.stop_timeout = stop_time(spec);
  if (what.socket) {
    x.sockets = common_ports(spec);
    if (x.sockets.empty())
      return complain("enable-service: --socket: no cluster in " + x.config
                          + " has a commonPort in mode proxy; leave it out",
                      exit_code::usage);
  }
  if (const auto fault = unit_fault(x))
    return complain("enable-service: " + *fault, exit_code::usage);
  if (what.dry_run) {
    const auto folder = "# " + shown(unit_folder(x.system)) + '/';
    print(folder + unit_name(x.name) + '\n' + unit_text(x));
    if (what.socket)
      print('\n' + folder + socket_unit_name(x.name) + '\n'
            + socket_unit_text(x));
    return exit_code::done;
  }
  if (const auto failed = install_service(x))
    return complain(*failed);
  print(unit_name(x.name) + ": enabled and started\n");
  if (!x.system)
    print(
        "It starts with your login; for the start of the machine: loginctl "
        "enable-linger\n");
  return exit_code::done;
}

exit_code disable_service(const command& what) {
  const auto file = what.of_config ? look_at(*what.of_config) : config_here();
  const auto name = file ? service_name(what, *file)
                         : what.name.value_or(former_default_name);
  if (const auto fault = unit_name_fault(name))
    return complain("disable-service: " + *fault, exit_code::usage);
  if (what.dry_run) {
    print("would stop, disable and remove " + shown(unit_folder(what.system))
          + '/' + unit_name(name) + '\n');
    return exit_code::done;
  }
  if (const auto failed = remove_service(name, what.system))
    return complain(*failed);
  print(unit_name(name) + ": stopped, disabled and removed\n");
  return exit_code::done;
}

exit_code completion(const command& what) {
  const auto script = completion_script(what.id);
  if (const auto* shells = std::get_if<std::string_view>(&script))
    return complain("completion: '" + what.id + "' is no shell that pup knows; "
                        + "use one of " + std::string{*shells},
                    exit_code::usage);
  print(std::get<std::string>(script));
  return exit_code::done;
}

exit_code help(const command& what) {
  if (what.id.empty()) {
    print(help_text());
    return exit_code::done;
  }
  const auto text = help_text(what.id);
  if (text.empty())
    return complain("help: " + unknown_command(what.id), exit_code::usage);
  print(text);
  return exit_code::done;
}

}  // namespace

std::string default_config() {
  for (const auto* name : {"pup.json", "pup.jsonc", "config.json"})
    if (::access(name, F_OK) == 0)
      return name;
  return {};
}

bool is_local(command_kind kind) {
  switch (kind) {
    case command_kind::help:
    case command_kind::version:
    case command_kind::validate:
    case command_kind::init:
    case command_kind::append:
    case command_kind::remove:
    case command_kind::import:
    case command_kind::completion:
    case command_kind::enable_service:
    case command_kind::disable_service:
      return true;
    default:
      return false;
  }
}

exit_code run_locally(const command& what) {
  switch (what.kind) {
    case command_kind::version:
      print("pup " PUP_VERSION "\n");
      return exit_code::done;
    case command_kind::validate:
      return validate(what);
    case command_kind::init:
      return init(what);
    case command_kind::append:
      return append(what);
    case command_kind::remove:
      return remove(what);
    case command_kind::import:
      return import(what);
    case command_kind::completion:
      return completion(what);
    case command_kind::enable_service:
      return enable_service(what);
    case command_kind::disable_service:
      return disable_service(what);
    default:
      return help(what);
  }
}

}  // namespace pup
