#include "pup/runtime/service.hpp"

#include "pup/config/paths.hpp"
#include "pup/config/plain_text.hpp"
#include "pup/runtime/place.hpp"
#include "pup/runtime/process.hpp"
#include "pup/runtime/text_file.hpp"
#include "pup/runtime/trusted_path.hpp"

#include <algorithm>
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

/// Where a word stands.
enum class word_of { program, argument, variable };

// For one word of a setting: % is a specifier, quotes and backslashes quote,
// and in an argument of ExecStart= a $ begins a variable.
std::string quoted(const std::string& text, word_of place) {
  std::string result = "\"";
  for (const auto c : text) {
    if (c == '"' || c == '\\')
      result += '\\';
    if (c == '%' || (c == '$' && place == word_of::argument))
      result += c;
    result += c;
  }
  return result + '"';
}

// Other settings take the rest of the line as it is, but for specifiers.
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
  auto name = supervisor == "pup" ? supervisor : "pup-" + supervisor;
  // What ends with its only @ is a template, which cannot be started.
  if (name.find('@') == name.size() - 1)
    name.replace(name.size() - 1, 1, "\\x40");
  return name + ".service";
}

namespace {

// A line of a unit has no means to spell these outside of quotes.
bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
  });
}

// Why systemd takes no such path or variable; empty: it does.
std::string_view path_fault(std::string_view text) {
  if (has_control(text))
    return "holds a control character, which a unit of systemd has no place "
           "for";
  return is_utf8(text) ? "" : "is not UTF-8, as units of systemd are";
}

bool is_user_name(std::string_view text) {
  return !text.empty() && text.front() != '-' && is_utf8(text)
         && !has_control(text)
         && text.find_first_of(" %:/\\\"'") == std::string_view::npos;
}

// WorkingDirectory= loses blanks at its end, and a backslash there takes in the
// next line.
std::string_view folder_fault(const std::string& folder) {
  return folder.ends_with(' ') || folder.ends_with('\\')
             ? "is in a folder whose name ends with a blank or a backslash, "
               "which a unit of systemd has no place for"
             : "";
}

}  // namespace

std::optional<std::string> unit_name_fault(const std::string& supervisor) {
  if (usable_name(supervisor))
    return std::nullopt;
  return name_fault(supervisor);
}

std::optional<std::string> unit_fault(const service& x) {
  if (auto fault = unit_name_fault(x.name))
    return fault;
  const auto refused = [](const std::string& object, std::string_view why,
                          const char* remedy) {
    return object + ": " + std::string{why} + "; " + remedy;
  };
  if (!x.user.empty() && !is_user_name(x.user))
    return refused("--user: '" + x.user + '\'', "is no name of a user",
                   "use a name or a number of getent passwd");
  auto why = path_fault(x.config);
  if (why.empty())
    why = folder_fault(folder_of(x.config));
  if (!why.empty())
    return refused(x.config, why, "rename it, or move the configuration");
  why = path_fault(x.program);
  if (why.empty() && x.program.find_first_of("\\\"'") != std::string::npos)
    why = "holds a quote or a backslash, which systemd takes in no program";
  if (!why.empty())
    return refused(x.program, why, "install pup somewhere else");
  why = path_fault(x.path);
  if (!why.empty())
    return refused("PATH", why, "set another one for this command");
  return std::nullopt;
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
    text += "ListenStream=" + unquoted(place) + '\n';
  return text + "\n[Install]\nWantedBy=sockets.target\n";
}

std::string unit_text(const service& x) {
  std::string text = "[Unit]\nDescription=pup " + x.name + " ("
                     + unquoted(x.config) + ")\n"
                     + "Documentation=man:pup(1)\n";
  if (x.system)
    text += "Wants=network-online.target\nAfter=network-online.target\n";
  text += "\n[Service]\nType=notify\nNotifyAccess=main\nExecStart="
          + quoted(x.program, word_of::program) + " run --name " + x.name
          + " --config " + quoted(x.config, word_of::argument)
          + "\nWorkingDirectory=" + unquoted(folder_of(x.config)) + '\n';
  // Where root looks as well.
  if (x.system && !x.user.empty())
    text += "User=" + x.user + "\nRuntimeDirectory=pup/" + x.name
            + "\nRuntimeDirectoryMode=0700\nStateDirectory=pup/" + x.name
            + "\nStateDirectoryMode=0700\nEnvironment=PUP_RUNTIME_DIR=%t/pup "
              "PUP_STATE_DIR=%S/pup\n";
  if (!x.path.empty())
    text += "Environment=" + quoted("PATH=" + x.path, word_of::variable) + '\n';
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
                        + quoted(path, word_of::argument) + '\n')
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

void remove_all(const trusted_folder& folder,
                const std::vector<std::string>& units) {
  for (const auto& x : units)
    static_cast<void>(folder.remove(x));
}

}  // namespace

std::optional<std::string> install_service(const service& x) {
  const auto path = unit_folder(x.system);
  // That of the machine is there where systemd is.
  path_rule rule;
  if (!x.system)
    rule.make_folders = 0755;
  const auto opened = trusted_folder::open(path, rule);
  if (const auto* fault = std::get_if<os_fault>(&opened))
    return to_string(*fault);
  const auto& folder = std::get<trusted_folder>(opened);
  // The socket first: a service gets those that are open when it starts.
  std::vector<unit_file> wanted;
  if (!x.sockets.empty())
    wanted.push_back({socket_unit_name(x.name), socket_unit_text(x)});
  wanted.push_back({unit_name(x.name), unit_text(x)});
  for (const auto& name : {socket_unit_name(x.name), unit_name(x.name)})
    if (folder.has(name))
      return folder.path_of(name)
             + ": exists already; pup disable-service --name " + x.name
             + (x.system ? " --system" : "") + " removes it";
  std::vector<std::string> units;
  for (const auto& unit : wanted) {
    if (const auto fault = create_text(folder.path_of(unit.name), unit.text)) {
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
  const auto path = unit_folder(system);
  const auto opened = trusted_folder::open(path);
  const auto* fault = std::get_if<os_fault>(&opened);
  if (fault != nullptr && fault->code != ENOENT)
    return to_string(*fault);
  const auto* folder = std::get_if<trusted_folder>(&opened);
  // The socket first: a client would start the service again.
  std::vector<std::string> units;
  for (const auto& name : {socket_unit_name(supervisor), unit_name(supervisor)})
    if (folder != nullptr && folder->has(name))
      units.push_back(name);
  if (units.empty())
    return path + '/' + unit_name(supervisor)
           + ": is not there; pup enable-service makes it";
  if (auto failed = systemctl(system, words_of({"disable", "--now"}, units)))
    return failed;
  for (const auto& x : units)
    if (const auto error = folder->remove(x); error != 0)
      return to_string(os_fault{"remove", folder->path_of(x), error});
  return systemctl(system, {"daemon-reload"});
}

}  // namespace pup
