#include "pup/runtime/service.hpp"

#include "pup/config/paths.hpp"
#include "pup/runtime/process.hpp"
#include "pup/runtime/text_file.hpp"

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include <sys/wait.h>
#include <unistd.h>

namespace pup {

namespace {

std::string variable(const char* name) {
  const auto* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// For one word of a setting: % is a specifier, quotes and backslashes quote,
// and on ExecStart= a $ begins a variable.
std::string quoted(const std::string& text, bool of_command) {
  std::string result = "\"";
  for (const auto c : text) {
    if (c == '"' || c == '\\')
      result += '\\';
    if (c == '%' || (of_command && c == '$'))
      result += c;
    result += c;
  }
  return result + '"';
}

// WorkingDirectory= takes the rest of the line as it is, but for specifiers.
std::string unquoted(const std::string& text) {
  std::string result;
  for (const auto c : text)
    result.append(c == '%' ? 2 : 1, c);
  return result;
}

// Runs systemctl; empty when it succeeded. What it says goes to our standard
// error.
std::optional<std::string> systemctl(bool system,
                                     std::vector<std::string> words) {
  spawn_request request;
  request.argv = {"systemctl"};
  if (!system)
    request.argv.emplace_back("--user");
  request.argv.insert(request.argv.end(), words.begin(), words.end());
  for (auto** i = ::environ; i != nullptr && *i != nullptr; ++i)
    request.environment.emplace_back(*i);
  request.stdout_fd = STDERR_FILENO;
  request.stderr_fd = STDERR_FILENO;
  auto spawned = spawn(request);
  if (const auto* fault = std::get_if<os_fault>(&spawned))
    return "systemctl: " + to_string(*fault)
           + "; is this a machine with systemd? --dry-run shows the unit";
  int status = 0;
  while (::waitpid(std::get<child>(spawned).pid, &status, 0) < 0
         && errno == EINTR) {}
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    return std::nullopt;
  std::string line = "systemctl";
  for (const auto& word : words)
    line += ' ' + word;
  return line + ": failed; see above, or use --dry-run and act by hand";
}

}  // namespace

std::string unit_name(const std::string& supervisor) {
  return (supervisor == "pup" ? "pup" : "pup-" + supervisor) + ".service";
}

std::string socket_unit_name(const std::string& supervisor) {
  return std::filesystem::path{unit_name(supervisor)}
      .replace_extension(".socket")
      .string();
}

std::string socket_unit_text(const service& x) {
  std::string text = "[Unit]\nDescription=common ports of pup " + x.name
                     + "\nDocumentation=man:pup(1)\n\n[Socket]\n";
  for (const auto& place : x.sockets)
    text += "ListenStream=" + place + '\n';
  return text + "\n[Install]\nWantedBy=sockets.target\n";
}

std::string unit_text(const service& x) {
  const auto folder = folder_of(x.config);
  std::string text = "[Unit]\nDescription=pup " + x.name + " ("
                     + unquoted(x.config) + ")\n"
                     + "Documentation=man:pup(1)\n";
  if (x.system)
    text += "Wants=network-online.target\nAfter=network-online.target\n";
  text += "\n[Service]\nType=notify\nNotifyAccess=main\nExecStart="
          + quoted(x.program, true) + " run --name " + x.name + " --config "
          + quoted(x.config, true) + "\nWorkingDirectory=" + unquoted(folder)
          + '\n';
  // Where root looks as well.
  if (x.system && !x.user.empty())
    text += "User=" + x.user + "\nRuntimeDirectory=pup/" + x.name
            + "\nRuntimeDirectoryMode=0700\nStateDirectory=pup/" + x.name
            + "\nStateDirectoryMode=0700\nEnvironment=PUP_RUNTIME_DIR=%t/pup "
              "PUP_STATE_DIR=%S/pup\n";
  if (!x.path.empty())
    text += "Environment=" + quoted("PATH=" + x.path, false) + '\n';
  text += "Restart=on-failure\n"
          "# pup stops its processes itself, in order.\n"
          "KillMode=mixed\n"
          "TimeoutStartSec=infinity\n"
          "TimeoutStopSec="
          + std::to_string(x.stop_timeout.count())
          + "\n# A process that the kernel kills for its memory is pup's to "
            "restart.\nOOMPolicy=continue\n# For memoryMax, cpuMax and pidsMax "
            "of its processes.\nDelegate=yes\n\n[Install]\nWantedBy="
          + (x.system ? "multi-user.target" : "default.target") + '\n';
  return text;
}

bool is_unit_of(const std::string& text, const std::string& supervisor,
                const config_file& file) {
  const auto runs = [&](const std::string& path) {
    return !path.empty()
           && text.find(" run --name " + supervisor + " --config "
                        + quoted(path, true) + '\n')
                  != std::string::npos;
  };
  return runs(file.written) || runs(file.resolved);
}

std::string unit_folder(bool system) {
  if (system)
    return "/etc/systemd/system";
  auto base = variable("XDG_CONFIG_HOME");
  if (base.empty() || base.front() != '/')
    base = variable("HOME") + "/.config";
  return base + "/systemd/user";
}

namespace {

struct unit_file {
  std::string name;
  std::string text;
};

std::vector<std::string> words_of(std::vector<std::string> words,
                                  const std::vector<std::string>& units) {
  words.insert(words.end(), units.begin(), units.end());
  return words;
}

void remove_all(const std::string& folder,
                const std::vector<std::string>& units) {
  std::error_code code;
  for (const auto& x : units)
    std::filesystem::remove(folder + '/' + x, code);
}

}  // namespace

std::optional<std::string> install_service(const service& x) {
  const auto folder = unit_folder(x.system);
  std::error_code code;
  // The socket first: a service gets those that are open when it starts.
  std::vector<unit_file> wanted;
  if (!x.sockets.empty())
    wanted.push_back({socket_unit_name(x.name), socket_unit_text(x)});
  wanted.push_back({unit_name(x.name), unit_text(x)});
  for (const auto& name : {socket_unit_name(x.name), unit_name(x.name)})
    if (const auto file = folder + '/' + name;
        std::filesystem::exists(file, code))
      return file + ": exists already; pup disable-service --name " + x.name
             + (x.system ? " --system" : "") + " removes it";
  if (!x.system)
    std::filesystem::create_directories(folder, code);
  std::vector<std::string> units;
  for (const auto& unit : wanted) {
    if (const auto fault = create_text(folder + '/' + unit.name, unit.text)) {
      remove_all(folder, units);
      return to_string(*fault)
             + (fault->code == EACCES && x.system ? "; run it as root" : "");
    }
    units.push_back(unit.name);
  }
  auto failed = systemctl(x.system, {"daemon-reload"});
  if (!failed)
    failed = systemctl(x.system, words_of({"enable", "--now"}, units));
  if (!failed)
    return std::nullopt;
  static_cast<void>(systemctl(x.system, words_of({"disable", "--now"}, units)));
  remove_all(folder, units);
  static_cast<void>(systemctl(x.system, {"daemon-reload"}));
  return failed;
}

std::optional<std::string> remove_service(const std::string& supervisor,
                                          bool system) {
  const auto folder = unit_folder(system);
  std::error_code code;
  // The socket first: a client would start the service again.
  std::vector<std::string> units;
  for (const auto& name : {socket_unit_name(supervisor), unit_name(supervisor)})
    if (std::filesystem::exists(folder + '/' + name, code))
      units.push_back(name);
  if (units.empty())
    return folder + '/' + unit_name(supervisor)
           + ": is not there; pup enable-service makes it";
  if (auto failed = systemctl(system, words_of({"disable", "--now"}, units)))
    return failed;
  for (const auto& x : units)
    if (!std::filesystem::remove(folder + '/' + x, code))
      return "remove " + folder + '/' + x + ": " + code.message();
  return systemctl(system, {"daemon-reload"});
}

}  // namespace pup
