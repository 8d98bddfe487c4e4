// dump.pm2: the processes that ran when somebody called `pm2 save`, each with
// all that PM2 knew of it and with the environment of the shell that started
// it. Made an ecosystem file of, which import_pm2.cpp reads.
#include "pup/config/import_draft.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <array>

namespace pup::importing {

namespace {

// Keys that mean in a dump what they do in an ecosystem file.
constexpr std::array<std::string_view, 26> same_keys{
    "name",
    "args",
    "node_args",
    "exec_mode",
    "autorestart",
    "autostart",
    "max_restarts",
    "min_uptime",
    "restart_delay",
    "exp_backoff_restart_delay",
    "cron_restart",
    "max_memory_restart",
    "stop_exit_codes",
    "kill_timeout",
    "listen_timeout",
    "wait_ready",
    "shutdown_with_message",
    "uid",
    "gid",
    "watch",
    "ignore_watch",
    "watch_delay",
    "log_date_format",
    "log_type",
    "increment_var",
    "instance_var",
};

// Of the shell, its session and PM2: what a supervisor has of its own.
constexpr std::array<std::string_view, 25> shell_variables{
    "HOME",      "USER",      "LOGNAME",   "SHELL",     "PWD",
    "OLDPWD",    "SHLVL",     "TERM",      "LANG",      "LANGUAGE",
    "MAIL",      "HOSTNAME",  "HUSHLOGIN", "LS_COLORS", "LESSOPEN",
    "LESSCLOSE", "COLORTERM", "EDITOR",    "PAGER",     "DISPLAY",
    "INIT_CWD",  "unique_id", "io",        "COLUMNS",   "LINES"};
constexpr std::array<std::string_view, 12> shell_prefixes{
    "LC_",  "XDG_", "SSH_", "SUDO_", "DBUS_",   "PM2_",
    "pm2_", "npm_", "GPG_", "TERM_", "VSCODE_", "km_"};

bool is_of_shell(std::string_view name) {
  return name == "_"
         || std::find(shell_variables.begin(), shell_variables.end(), name)
                != shell_variables.end()
         || std::any_of(shell_prefixes.begin(), shell_prefixes.end(),
                        [&](auto prefix) { return name.starts_with(prefix); });
}

std::optional<json_value> member_of(const json_value& x, std::string_view key) {
  if (x.kind() == json_kind::object)
    for (const auto& member : x.members())
      if (member.key.string() == key && member.value.kind() != json_kind::null)
        return member.value;
  return std::nullopt;
}

std::string text_of(const json_value& x, std::string_view key) {
  const auto value = member_of(x, key);
  return value && value->kind() == json_kind::string
             ? std::string{value->string()}
             : std::string{};
}

/// One application of the dump: its first process, and how many there are.
struct entry {
  json_value process;
  std::uint32_t count = 1;
};

std::vector<entry> entries_of(const json_value& root) {
  std::vector<entry> result;
  std::map<std::pair<std::string, std::string>, std::size_t> places;
  for (const auto& x : root.elements()) {
    const auto [place, is_new] = places.emplace(
        std::pair{text_of(x, "name"), text_of(x, "pm_exec_path")},
        result.size());
    if (is_new)
      result.push_back({x});
    else
      ++result[place->second].count;
  }
  return result;
}

members environment_of(const json_value& x, const std::string& name,
                       std::vector<std::string>& left_out) {
  members result;
  const auto env = member_of(x, "env");
  if (!env || env->kind() != json_kind::object)
    return result;
  const auto index = text_of(x, "instance_var");
  for (const auto& member : env->members()) {
    const std::string variable{member.key.string()};
    // PM2 leaves notes of its own among the variables.
    if (variable == name || variable == index || variable == "NODE_APP_INSTANCE"
        || member.value.kind() == json_kind::object
        || member.value.kind() == json_kind::array)
      continue;
    if (is_of_shell(variable))
      left_out.push_back(variable);
    else
      result.emplace_back(variable, std::string{member.value.raw()});
  }
  return result;
}

/// Where PM2 puts a file that nobody named is of no interest. Of several
/// processes each has its number in the name.
void add_file(members& into, const std::string& key, std::string path,
              const std::string& usual, bool is_one) {
  if (path.empty() || path.starts_with(usual)
      || path.find("/.pm2/") != std::string::npos)
    return;
  const auto dot = path.rfind('.');
  const auto dash = path.rfind('-', dot);
  if (!is_one && dot != std::string::npos && dash != std::string::npos
      && whole_number(std::string_view{path}.substr(dash + 1, dot - dash - 1)))
    path.erase(dash, dot - dash);
  into.emplace_back(key, json_of(path));
}

std::string application_of(const entry& x, std::vector<std::string>& left_out) {
  const auto& process = x.process;
  members result{{"script", json_of(text_of(process, "pm_exec_path"))},
                 {"cwd", json_of(text_of(process, "pm_cwd"))}};
  if (const auto with = text_of(process, "exec_interpreter"); !with.empty())
    result.emplace_back("interpreter", json_of(with));
  // PM2 starts nothing that was stopped.
  const auto is_stopped = text_of(process, "status") == "stopped";
  for (const auto key : same_keys)
    if (const auto value = member_of(process, key);
        value && !(is_stopped && key == "autostart"))
      result.emplace_back(std::string{key}, std::string{value->raw()});
  if (x.count > 1 || text_of(process, "exec_mode").starts_with("cluster"))
    result.emplace_back("instances", std::to_string(x.count));
  if (is_stopped)
    result.emplace_back("autostart", "false");
  result.emplace_back("env", json_of(environment_of(
                                 process, text_of(process, "name"), left_out)));
  const auto env = member_of(process, "env");
  const auto home = env ? text_of(*env, "PM2_HOME") : std::string{};
  const auto usual = home.empty() ? std::string{"/root/.pm2/"} : home + '/';
  for (const auto& [key, theirs] : {std::pair{"out_file", "pm_out_log_path"},
                                    std::pair{"error_file", "pm_err_log_path"},
                                    std::pair{"pid_file", "pm_pid_path"}})
    add_file(result, key, text_of(process, theirs), usual, x.count == 1);
  return json_of(result);
}

}  // namespace

bool is_pm2_dump(const json_value& root) {
  if (root.kind() != json_kind::array)
    return false;
  const auto all = root.elements();
  return !all.empty() && member_of(all.front(), "pm_exec_path").has_value();
}

std::string ecosystem_of_dump(const json_value& root, draft& into) {
  std::string result = "[";
  for (std::size_t i = 0; const auto& x : entries_of(root)) {
    std::vector<std::string> left_out;
    result.append(i > 0 ? ",\n" : "").append(application_of(x, left_out));
    std::string names;
    for (const auto& name : left_out)
      names.append(names.empty() ? "" : ", ").append(name);
    if (!names.empty())
      into.common_note(element_path("apps", i) + ".env",
                       "variables of the shell that PM2 was called from are "
                       "left out, as pup has its own: "
                           + names);
    ++i;
  }
  return result + "]";
}

}  // namespace pup::importing
