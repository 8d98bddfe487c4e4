#include "pup/runtime/service.hpp"

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

std::string unit_text(const service& x) {
  const auto folder = std::filesystem::path{x.config}.parent_path().string();
  std::string text = "[Unit]\nDescription=pup " + x.name + " ("
                     + unquoted(x.config) + ")\n"
                     + "Documentation=man:pup(1)\n";
  if (x.system)
    text += "Wants=network-online.target\nAfter=network-online.target\n";
  text += "\n[Service]\nType=notify\nNotifyAccess=main\nExecStart="
          + quoted(x.program, true) + " run --name " + x.name + " --config "
          + quoted(x.config, true) + "\nWorkingDirectory=" + unquoted(folder)
          + '\n';
  if (!x.user.empty())
    text += "User=" + x.user + '\n';
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

std::string unit_folder(bool system) {
  if (system)
    return "/etc/systemd/system";
  auto base = variable("XDG_CONFIG_HOME");
  if (base.empty() || base.front() != '/')
    base = variable("HOME") + "/.config";
  return base + "/systemd/user";
}

std::optional<std::string> install_service(const service& x) {
  const auto folder = unit_folder(x.system);
  const auto name = unit_name(x.name);
  const auto file = folder + '/' + name;
  std::error_code code;
  if (std::filesystem::exists(file, code))
    return file + ": exists already; pup disable-service --name " + x.name
           + (x.system ? " --system" : "") + " removes it";
  if (!x.system)
    std::filesystem::create_directories(folder, code);
  if (const auto fault = create_text(file, unit_text(x)))
    return to_string(*fault)
           + (fault->code == EACCES && x.system ? "; run it as root" : "");
  auto failed = systemctl(x.system, {"daemon-reload"});
  if (!failed)
    failed = systemctl(x.system, {"enable", "--now", name});
  if (!failed)
    return std::nullopt;
  static_cast<void>(systemctl(x.system, {"disable", "--now", name}));
  std::filesystem::remove(file, code);
  static_cast<void>(systemctl(x.system, {"daemon-reload"}));
  return failed;
}

std::optional<std::string> remove_service(const std::string& supervisor,
                                          bool system) {
  const auto name = unit_name(supervisor);
  const auto file = unit_folder(system) + '/' + name;
  std::error_code code;
  if (!std::filesystem::exists(file, code))
    return file + ": is not there; pup enable-service makes it";
  if (auto failed = systemctl(system, {"disable", "--now", name}))
    return failed;
  if (!std::filesystem::remove(file, code))
    return "remove " + file + ": " + code.message();
  return systemctl(system, {"daemon-reload"});
}

}  // namespace pup
