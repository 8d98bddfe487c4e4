#include "pup/config/rules.hpp"

#include "pup/config/attributes.hpp"
#include "pup/config/cluster.hpp"
#include "pup/config/conflicts.hpp"
#include "pup/config/cron.hpp"
#include "pup/config/expand.hpp"
#include "pup/config/glob.hpp"
#include "pup/config/relations.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <iterator>
#include <unordered_map>
#include <utility>

namespace pup {

namespace {

bool is_id_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c)
         || c == '@' || c == '.' || c == '_' || c == '-';
}

bool holds_nul(std::string_view text) {
  return text.find('\0') != std::string_view::npos;
}

class rule_walk : rule_judge {
public:
  rule_walk(const pup_spec& spec, std::vector<broken_rule>& into)
      : rule_judge(into), spec_(spec) {}

  void run();

private:
  void word_rules(const std::string& path, const std::string& word);
  void process_rules(const process_spec& x, const std::string& path);
  void command_rules(const process_spec& x, const std::string& path);
  void folder_rules(const process_spec& x, const std::string& path);
  void env_rules(const process_spec& x, const std::string& path);
  void placeholder_rules(const process_spec& x, const std::string& path,
                         const placeholder_use& use,
                         const std::string& text_path);
  void placeholder_rules(const process_spec& x, const std::string& path,
                         const std::string& text,
                         const std::string& text_path) {
    placeholder_rules(x, path, find_placeholders(text), text_path);
  }
  void output_rules(const process_spec& x, const std::string& path);
  void logger_rules(const logger_spec& x);
  void watcher_rules(const watcher_spec& x);
  void watch_rules(const process_spec& x, const std::string& path);
  void exit_code_rules(const std::vector<int>& codes, const std::string& path);
  void restart_rules(const process_spec& x, const std::string& path);
  void readiness_rules(const process_spec& x, const std::string& path);
  void life_rules(const process_spec& x, const std::string& path);
  void attribute_rules(const process_spec& x, const std::string& path);
  void side_command_rules(const process_spec& x, const std::string& path,
                          const command_spec& command,
                          const std::string& command_path);

  const pup_spec& spec_;
  std::unordered_map<std::string, std::string> pid_files_;  // path of process
};

// An id or a name.
void rule_walk::word_rules(const std::string& path, const std::string& word) {
  static constexpr auto allowed = "use 1 to 64 of A-Z a-z 0-9 @ . _ -";
  if (word.empty())
    blame(path, "is empty", allowed);
  else if (word.size() > bounds::id_length)
    blame(path,
          quote(word) + " has " + std::to_string(word.size())
              + " characters, more than " + std::to_string(bounds::id_length),
          "shorten it");
  else if (!std::all_of(word.begin(), word.end(), is_id_char))
    blame(path, quote(word) + " holds a character that is not allowed",
          allowed);
}

void rule_walk::process_rules(const process_spec& x, const std::string& path) {
  auto id = member_path(path, "id");
  word_rules(id, x.id);
  if (x.id == "all")
    blame(id, "`all` means every process on the command line",
          "choose another id");
  else if (x.id.starts_with('-'))
    blame(id, quote(x.id) + " looks like an option on the command line",
          "start it with another character");
  command_rules(x, path);
  folder_rules(x, path);
  env_rules(x, path);
  restart_rules(x, path);
  output_rules(x, path);
  readiness_rules(x, path);
  life_rules(x, path);
  attribute_rules(x, path);
  watch_rules(x, path);
  if (x.cluster)
    cluster_rules(*x.cluster, path + ".cluster", result_);
}

void rule_walk::command_rules(const process_spec& x, const std::string& path) {
  auto command = path + ".cmd";
  if (x.argv.empty()) {
    blame(command, "is empty", "name a program");
    return;
  }
  if (x.shell && x.argv.size() < 3) {
    blame(command, "a shell command needs three arguments",
          "use /bin/sh, -c and the command");
    return;
  }
  for (std::size_t i = 0; i < x.argv.size(); ++i) {
    auto& argument = x.argv[i];
    auto argument_path = x.shell ? command : element_path(command, i);
    // Only an argument of a program may say nothing: ["psql", "-c", ""].
    if (argument.find_first_not_of(" \t\r\n") == std::string::npos
        && (x.shell || i == 0))
      blame(argument_path, "is empty",
            i == 0 ? "name a program" : "write a command");
    else if (holds_nul(argument))
      blame(argument_path, "holds a NUL character, which no argument can",
            "remove \\u0000");
    else if (!x.shell)
      placeholder_rules(x, path, argument, argument_path);
  }
}

void rule_walk::folder_rules(const process_spec& x, const std::string& path) {
  auto cwd = path + ".cwd";
  if (holds_nul(x.cwd))
    blame(cwd, "holds a NUL character, which no path can", "remove \\u0000");
  else if (!x.cwd.empty() && !x.cwd.starts_with('/'))
    blame(cwd, quote(x.cwd) + " is not absolute", "start it with /");
  placeholder_rules(x, path, x.cwd, cwd);
  if (x.path.empty())
    return;
  auto search = path + ".path";
  if (holds_nul(x.path))
    blame(search, "holds a NUL character, which no path can", "remove \\u0000");
  for (std::size_t begin = 0; begin <= x.path.size();) {
    auto end = std::min(x.path.find(':', begin), x.path.size());
    if (x.path[begin] != '/' || begin == end) {
      blame(search,
            quote(x.path.substr(begin, end - begin)) + " is not absolute",
            "start it with /");
      return;
    }
    begin = end + 1;
  }
}

void rule_walk::env_rules(const process_spec& x, const std::string& path) {
  for (auto& [name, value] : x.env) {
    auto value_path = member_path(path + ".env", name);
    if (name.empty() || name.find('=') != std::string::npos || holds_nul(name))
      blame(value_path, quote(name) + " cannot name a variable",
            "use a name without = and NUL");
    else if (holds_nul(value))
      blame(value_path, "holds a NUL character, which no variable can",
            "remove \\u0000");
    placeholder_rules(x, path, find_placeholders_of_secret(value), value_path);
  }
}

// A path may come from the global `logger`: then each process that inherits it
// says what is wrong, at its own path.
void rule_walk::output_rules(const process_spec& x, const std::string& path) {
  for (auto& [key, file] : {std::pair{"stdout", &x.output.stdout_file},
                            std::pair{"stderr", &x.output.stderr_file}}) {
    auto file_path = path + ".logger." + key;
    if (holds_nul(*file))
      blame(file_path, "holds a NUL character, which no path can",
            "remove \\u0000");
    else if (!file->empty() && !file->starts_with('/'))
      blame(file_path, quote(*file) + " is not absolute", "start it with /");
    placeholder_rules(x, path, *file, file_path);
  }
}

void rule_walk::logger_rules(const logger_spec& x) {
  auto size_rule = [this](const char* key, std::uint64_t bytes) {
    if (bytes < std::uint64_t{bounds::least_log_bytes}
        || bytes > std::uint64_t{bounds::most_log_bytes})
      blame(std::string{"logger."} + key,
            std::to_string(bytes) + " is not a size",
            "use " + std::to_string(bounds::least_log_bytes) + " to "
                + std::to_string(bounds::most_log_bytes));
  };
  if (x.internal_log.count() < 0 || x.internal_log.count() > bounds::log_hours)
    blame("logger.internalLogHours",
          std::to_string(x.internal_log.count()) + " is not a number of hours",
          "use 0 to " + std::to_string(bounds::log_hours));
  size_rule("internalLogSize", x.internal_log_bytes);
  if (x.file_bytes != 0)
    size_rule("maxFileSize", x.file_bytes);
  if (x.files_kept > bounds::log_files)
    blame("logger.maxFiles",
          std::to_string(x.files_kept) + " is not a number of files",
          "use 0 to " + std::to_string(bounds::log_files));
}

void rule_walk::watcher_rules(const watcher_spec& x) {
  auto ms = x.interval.count();
  if (ms < 1 || ms > bounds::duration_ms)
    blame("watcher.interval", std::to_string(ms) + " ms is out of range",
          duration_remedy(false, 1));
  for (std::size_t i = 0; i < x.exts.size(); ++i)
    if (x.exts[i].empty() || x.exts[i].find('/') != std::string::npos)
      blame(element_path("watcher.exts", i),
            quote(x.exts[i]) + " is not the ending of a name",
            "use one such as \"js\"");
  auto patterns = [&](const std::vector<std::string>& all, const char* key) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      auto parsed = path_glob::parse(all[i]);
      if (auto fault = std::get_if<std::string>(&parsed))
        blame(element_path(std::string{"watcher."} + key, i),
              quote(all[i]) + ' ' + *fault,
              "use a pattern such as \"src/**/*.js\"");
    }
  };
  patterns(x.match, "match");
  patterns(x.skip, "skip");
}

void rule_walk::watch_rules(const process_spec& x, const std::string& path) {
  for (std::size_t i = 0; i < x.watch.size(); ++i)
    if (!x.watch[i].starts_with('/') || holds_nul(x.watch[i]))
      blame(element_path(path + ".watch", i),
            quote(x.watch[i]) + " is not an absolute path", "use one");
  if (!x.watch.empty() && x.watcher != spec_.watcher)
    watcher_rules(x.watcher);
}

void rule_walk::placeholder_rules(const process_spec& x,
                                  const std::string& path,
                                  const placeholder_use& use,
                                  const std::string& text_path) {
  if (!use.problem.empty())
    blame(text_path, use.problem, use.remedy);
  else if (use.variable)
    blame(text_path, "%{env:NAME} is replaced only in configuration files",
          "insert the value");
  else if (use.port && (!x.cluster || x.cluster->start_port == 0))
    blame(text_path, "%{port} needs a port, and there is none",
          x.cluster ? "add cluster.startPort" : "add a cluster with startPort",
          {path + ".cluster.startPort"});
}

void rule_walk::exit_code_rules(const std::vector<int>& codes,
                                const std::string& path) {
  for (std::size_t i = 0; i < codes.size(); ++i)
    if (codes[i] < 0 || codes[i] > 255)
      blame(element_path(path, i),
            std::to_string(codes[i]) + " is not an exit code", "use 0 to 255");
}

void rule_walk::restart_rules(const process_spec& x, const std::string& path) {
  duration_rules(x, process_durations, path, result_);
  if (x.restart_limit && *x.restart_limit > bounds::restarts)
    blame(path + ".restartLimit",
          std::to_string(*x.restart_limit) + " is not a number of restarts",
          "use 0 to " + std::to_string(bounds::restarts));
  if (x.start_limit && *x.start_limit > bounds::restarts)
    blame(path + ".startLimit",
          std::to_string(*x.start_limit) + " is not a number of starts",
          "use 0 to " + std::to_string(bounds::restarts));
  exit_code_rules(x.success_exit_codes, path + ".successExitCodes");
  exit_code_rules(x.no_restart_exit_codes, path + ".noRestartExitCodes");
  auto known = [&x](const stop_signal_name& signal) {
    return signal.number == x.stop_signal;
  };
  if (std::none_of(stop_signals.begin(), stop_signals.end(), known))
    blame(path + ".stopSignal",
          std::to_string(x.stop_signal) + " is not a signal to stop with",
          "use 15, which is SIGTERM");
}

void rule_walk::readiness_rules(const process_spec& x,
                                const std::string& path) {
  auto ready = path + ".ready";
  auto is_http = x.ready == ready_condition::http;
  if ((x.ready == ready_condition::port || is_http)
      && (!x.cluster || x.cluster->start_port == 0))
    blame(ready + ".type",
          std::string{is_http ? "`http`" : "`port`"}
              + " needs a port, and there is none",
          x.cluster ? "add cluster.startPort or use `spawn`"
                    : "add a cluster with startPort or use `spawn`",
          {path + ".cluster.startPort"});
  if (is_http && !is_request_path(x.ready_path))
    blame(ready + ".path",
          quote(x.ready_path) + " is not the path of a request",
          "use one such as \"/health\", without blanks");
  if (x.ready == ready_condition::exec) {
    if (x.ready_command.argv.empty())
      blame(ready + ".cmd", "is empty", "name a program");
    side_command_rules(x, path, x.ready_command, ready + ".cmd");
  }
  if (x.ready == ready_condition::log && x.ready_pattern.empty())
    blame(ready + ".pattern", "is empty", "write a regular expression");
  if (x.ready == ready_condition::fd && x.watchdog.count() > 0)
    blame(path + ".watchdogMs", "does not go together with ready `fd`",
          "use ready `notify`, or remove it");
}

void rule_walk::life_rules(const process_spec& x, const std::string& path) {
  auto hook_rules = [&](const command_spec& hook, const char* name) {
    side_command_rules(x, path, hook, path + ".hooks." + name);
    auto ms = hook.timeout.count();
    if (ms < 1 || ms > bounds::duration_ms)
      blame(path + ".hooks." + name + ".timeoutMs",
            std::to_string(ms) + " ms is out of range",
            duration_remedy(false, 1));
  };
  hook_rules(x.hooks.pre_start, "preStart");
  hook_rules(x.hooks.post_start, "postStart");
  hook_rules(x.hooks.pre_stop, "preStop");
  hook_rules(x.hooks.post_stop, "postStop");
  auto cron_rules = [&](const std::string& text, const char* key) {
    if (text.empty())
      return;
    auto parsed = cron_schedule::parse(text);
    if (auto fault = std::get_if<cron_fault>(&parsed))
      blame(member_path(path, key), fault->field + ' ' + fault->problem,
            fault->remedy);
  };
  cron_rules(x.cron, "cron");
  cron_rules(x.terminate_cron, "terminate");
}

void rule_walk::attribute_rules(const process_spec& x,
                                const std::string& path) {
  auto broken = broken_attribute_rules(x, path);
  std::move(broken.begin(), broken.end(), std::back_inserter(result_));
  auto pid_file = path + ".pidFile";
  placeholder_rules(x, path, x.pid_file, pid_file);
  if (x.pid_file.empty())
    return;
  auto [other, added] = pid_files_.emplace(x.pid_file, path);
  // Placeholders that tell instances apart tell processes apart by %{id} only.
  if (!added && !find_placeholders(x.pid_file).id)
    blame(pid_file, "is already the pidFile of " + other->second,
          "name another file");
}

void rule_walk::side_command_rules(const process_spec& x,
                                   const std::string& path,
                                   const command_spec& command,
                                   const std::string& command_path) {
  if (command.shell)
    return;
  for (std::size_t i = 0; i < command.argv.size(); ++i) {
    auto here = element_path(command_path, i);
    if (holds_nul(command.argv[i]))
      blame(here, "holds a NUL character, which no argument can",
            "remove \\u0000");
    else if (i == 0 && command.argv[i].empty())
      blame(here, "is empty", "name a program");
    placeholder_rules(x, path, command.argv[i], here);
  }
}

void rule_walk::run() {
  word_rules("name", spec_.name);
  if (spec_.name == "." || spec_.name == "..")
    blame("name", quote(spec_.name) + " cannot name a folder",
          "choose another name");
  logger_rules(spec_.logger);
  watcher_rules(spec_.watcher);
  if (spec_.processes.empty())
    blame("processes", "is empty, there is nothing to do", "add a process");
  if (spec_.processes.size() > bounds::processes) {
    blame("processes",
          "has " + std::to_string(spec_.processes.size())
              + " entries, more than " + std::to_string(bounds::processes),
          "split it into several configurations");
    return;
  }
  for (std::size_t i = 0; i < spec_.processes.size(); ++i)
    process_rules(spec_.processes[i], process_path(i));
  for (const auto& [name, group] : spec_.groups)
    word_rules(member_path("groups", name), name);
  conflict_rules(spec_, result_);
  relation_rules(spec_, result_);
}

}  // namespace

std::vector<broken_rule> broken_rules(const pup_spec& spec) {
  std::vector<broken_rule> result;
  rule_walk{spec, result}.run();
  return result;
}

bool is_request_path(std::string_view text) {
  return text.starts_with('/')
         && std::all_of(text.begin(), text.end(),
                        [](char c) { return c > ' ' && c != '\x7f'; });
}

std::string duration_remedy(bool seconds, std::int64_t least_ms) {
  auto unit = seconds ? 1000 : 1;
  // The only least values are 0 and 1 ms.
  auto least = seconds && least_ms == 1 ? "0.001" : std::to_string(least_ms);
  return "use " + least + " to " + std::to_string(bounds::duration_ms / unit);
}

}  // namespace pup
