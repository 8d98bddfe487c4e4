// supervisord's .conf: an INI file with %(...)s in its values.
#include "pup/config/expand.hpp"
#include "pup/config/import_draft.hpp"
#include "pup/config/import_ini.hpp"
#include "pup/config/import_supervisord_values.hpp"
#include "pup/config/rules.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <array>

namespace pup::importing {

namespace {

// Sections that say how supervisord itself is reached.
constexpr std::array<std::string_view, 4> own_sections{
    "unix_http_server", "supervisorctl", "rpcinterface:supervisor",
    "supervisord"};

// Sorted by it before anything else.
constexpr std::array<std::string_view, 1> needless{"priority"};

// supervisord's defaults where pup has others.
constexpr std::int64_t usual_start_seconds = 1;
constexpr std::int64_t usual_start_retries = 3;
// It waits 1 s, 2 s, 3 s and so on; pup 1 s, 2 s, 4 s.
constexpr std::int64_t usual_pause_ms = 1'000;
constexpr std::int64_t usual_stop_seconds = 10;
constexpr std::int64_t usual_log_bytes = std::int64_t{50} << 20;
constexpr std::int64_t usual_log_backups = 10;

std::string joined(const std::string& folder, const std::string& path) {
  if (folder.empty() || path.starts_with('/') || path.starts_with("%{env:"))
    return path;
  return folder + (folder.ends_with('/') ? "" : "/") + path;
}

/// What supervisord gives all programs.
struct shared {
  variables env;
  std::string folder;  ///< as pup writes it; empty: its own
  std::optional<std::string> user;
  std::optional<std::string> umask;
  std::map<std::string, std::string> groups;  ///< of programs that are in one
};

/// How a program's log files are begun anew.
struct rotation {
  std::int64_t bytes = usual_log_bytes;
  std::int64_t backups = usual_log_backups;

  bool operator==(const rotation&) const = default;
};

class program {
public:
  program(draft& into, const ini_section& from, const shared& all,
          std::vector<rotation>& rotations)
      : into_(into),
        from_(from),
        all_(all),
        rotations_(rotations),
        env_(all.env),
        expanded_(into, '[' + from.name + ']', env_) {
    result_.origin = '[' + from.name + ']';
    result_.id =
        trimmed(std::string_view{from.name}.substr(from.name.find(':') + 1));
  }

  void run();

private:
  std::optional<std::string> text(std::string_view key);
  // One that pup cannot compute at the start: nothing of the environment.
  std::optional<std::string> fixed(std::string_view key);
  std::optional<std::int64_t> number(std::string_view key);
  bool truth(std::string_view key, bool otherwise);

  void instances();
  void environment();
  bool command();
  void account();
  void restarts();
  void exit_codes();
  void stopping();
  void logs();
  std::string log_file(std::string_view key, const std::string& value);
  void rotate(const std::string& stream);
  void note(std::string_view key, std::string words) {
    into_.note(result_.origin + ' ' + std::string{key}, std::move(words));
  }

  draft& into_;
  const ini_section& from_;
  const shared& all_;
  std::vector<rotation>& rotations_;
  draft_process result_;
  variables env_;
  expander expanded_;
  std::vector<std::string_view> taken_{needless.begin(), needless.end()};
};

std::optional<std::string> program::text(std::string_view key) {
  taken_.push_back(key);
  const auto* value = from_.find(key);
  return value && !value->empty() ? std::optional{*value} : std::nullopt;
}

std::optional<std::string> program::fixed(std::string_view key) {
  const auto value = text(key);
  if (!value)
    return std::nullopt;
  auto result = expanded_(key, *value);
  if (result.empty())
    return std::nullopt;
  if (result.find("%{") == std::string::npos)
    return result;
  note(key, quote(*value)
                + " is known when supervisord starts, and was left out; write "
                  "its value");
  return std::nullopt;
}

std::optional<std::int64_t> program::number(std::string_view key) {
  const auto value = fixed(key);
  if (!value)
    return std::nullopt;
  const auto result = whole_number(*value);
  if (!result || *result < 0) {
    note(key, quote(*value) + " is not a number and was left out");
    return std::nullopt;
  }
  return result;
}

bool program::truth(std::string_view key, bool otherwise) {
  const auto value = fixed(key);
  if (!value)
    return otherwise;
  const auto result = truth_of(*value);
  if (!result)
    note(key, quote(*value) + " is neither true nor false and was left out");
  return result.value_or(otherwise);
}

void program::instances() {
  const auto group = all_.groups.find(result_.id);
  expanded_.names = {
      {"program_name", result_.id},
      {"group_name", group != all_.groups.end() ? group->second : result_.id}};
  const auto count = number("numprocs").value_or(1);
  const auto first = number("numprocs_start").value_or(0);
  expanded_.names["numprocs"] = std::to_string(count);
  expanded_.names["numprocs_start"] = std::to_string(first);
  const auto name = text("process_name");
  if (count == 1) {
    expanded_.process_number = first;
    if (name && expanded_("process_name", *name) != result_.id)
      note("process_name", "pup has one name for it: " + quote(result_.id));
    return;
  }
  result_.is_cluster = true;
  result_.set(
      "cluster",
      json_of(members{{"instances", std::to_string(std::min<std::int64_t>(
                                        count, bounds::instances))}}));
  if (count > bounds::instances)
    note("numprocs", "became " + std::to_string(bounds::instances)
                         + ", the most that pup has of one");
  into_.common_note(result_.origin + " process_name",
                    "instances are named after the program, ID-1, ID-2, and so "
                    "on");
  if (first != 0)
    note("numprocs_start",
         "%{index}, in place of %(process_num), counts "
         "from 0; add "
             + std::to_string(first) + " where it matters");
}

void program::environment() {
  // Its own variables are not known in itself, those of all are.
  const auto own =
      variables_of(into_, result_.origin + " environment",
                   expanded_("environment", text("environment").value_or("")));
  for (const auto& [name, value] : own)
    env_[name] = value;
  if (!env_.empty())
    result_.set("env", json_of(env_));
}

bool program::command() {
  const auto given = text("command").value_or("");
  // First replaced, then split: so a value may be several words.
  const auto argv = split_words(expanded_("command", given));
  if (!argv || argv->empty() || argv->front().empty()) {
    note("command", argv ? "is empty; supervisord cannot start it, and it was "
                           "left out"
                         : "has a quote that is not closed; supervisord cannot "
                           "start it, and it was left out");
    return false;
  }
  result_.set("cmd", json_of(*argv));
  const auto is_open = [](const std::string& word) {
    return word.find("%{env:") != std::string::npos;
  };
  if (std::any_of(argv->begin(), argv->end(), is_open))
    into_.common_note(result_.origin + " command",
                      "the value of a variable stays one argument, even if it "
                      "has blanks");
  const auto folder = expanded_("directory", text("directory").value_or(""));
  if (!folder.empty())
    result_.set("cwd", json_of(joined(all_.folder, folder)));
  else if (!all_.folder.empty())
    result_.set("cwd", json_of(all_.folder));
  return true;
}

void program::account() {
  auto user = fixed("user");
  if (!user && !from_.find("user"))
    user = all_.user;
  if (user) {
    result_.set("user", json_of(*user));
    result_.set("inheritEnv", "true");
    into_.common_note(result_.origin + " user",
                      "inherits pup's whole environment, as supervisord does "
                      "it, but with HOME, USER, LOGNAME and SHELL of the user; "
                      "remove inheritEnv to pass on little");
  }
  auto mask = fixed("umask");
  if (!mask && !from_.find("umask"))
    mask = all_.umask;
  if (!mask)
    return;
  const auto is_octal =
      !mask->empty() && mask->find_first_not_of("01234567") == mask->npos
      && mask->substr(std::min(mask->find_first_not_of('0'), mask->size()))
                 .size()
             <= 3;
  if (is_octal)
    result_.set("umask", json_of(*mask));
  else
    note("umask", quote(*mask) + " is not a umask and was left out");
}

void program::restarts() {
  if (!truth("autostart", true))
    result_.set("autostart", "false");
  const auto restart = lower(fixed("autorestart").value_or("unexpected"));
  const auto always = truth_of(restart) == true;
  if (restart == "unexpected")
    result_.set("restart", json_of("error"));
  else if (!truth("autorestart", true))
    result_.set("restart", json_of("never"));
  const auto seconds = number("startsecs").value_or(usual_start_seconds);
  const auto retries = number("startretries").value_or(usual_start_retries);
  constexpr std::int64_t most_seconds = 24L * 3600;
  result_.ready_after(std::min(seconds, most_seconds) * 1'000);
  result_.set("startLimit", std::to_string(std::min<std::int64_t>(
                                retries, bounds::restarts)));
  // What waits for something else gets the time that it has there.
  if (seconds > 0 && retries > 0)
    result_.set("restartDelayMs", std::to_string(usual_pause_ms));
  if (seconds > 0 && !always)
    into_.common_note(
        result_.origin + " autorestart",
        "supervisord tries an end within startsecs again, whatever the exit "
        "code was; here `restart` alone decides: say \"always\" where the "
        "program must stay");
  exit_codes();
}

void program::exit_codes() {
  const auto codes = fixed("exitcodes");
  // There may be none: then no end is expected.
  const auto* given = from_.find("exitcodes");
  if (!codes && (!given || !given->empty()))
    return;
  constexpr std::int64_t most = 255;
  std::string list;
  for (std::string_view left = codes ? *codes : std::string_view{};
       !left.empty();) {
    const auto end = std::min(left.find(','), left.size());
    if (const auto code = whole_number(trimmed(left.substr(0, end)));
        code && *code >= 0 && *code <= most)
      list += (list.empty() ? "" : ", ") + std::to_string(*code);
    else
      note("exitcodes", quote(left.substr(0, end))
                            + " is not an exit code and was left out");
    left.remove_prefix(std::min(end + 1, left.size()));
  }
  result_.set("successExitCodes", '[' + list + ']');
}

void program::stopping() {
  const auto seconds = number("stopwaitsecs").value_or(usual_stop_seconds);
  constexpr std::int64_t most = bounds::duration_ms / 1'000;
  result_.set("terminateTimeout", std::to_string(std::min(seconds, most)));
  for (const auto key : {"stopasgroup", "killasgroup"})
    if (!truth(key, true))
      note(key,
           "has no counterpart: all that belongs to a process is signalled "
           "with it");
  const auto signal = fixed("stopsignal");
  if (!signal)
    return;
  const auto name = lower(*signal);
  const auto known = stop_signal_of(*signal);
  if (name == "kill" || name == "sigkill" || name == "9") {
    result_.set("terminateTimeout", "0");
    note("stopsignal", "KILL became SIGTERM, followed by SIGKILL at once");
  } else if (known.empty()) {
    note("stopsignal", quote(*signal)
                           + " is not a signal that pup stops with, and was "
                             "left out: SIGTERM takes its place");
  } else {
    result_.set("stopSignal", json_of(known));
  }
}

/// The file that a stream is written to; empty: none.
std::string program::log_file(std::string_view key, const std::string& value) {
  const auto word = lower(value);
  if (word == "auto")
    return {};
  if (word == "syslog") {
    note(key, "syslog has no counterpart in pup");
    return {};
  }
  if (word == "none" || word == "off" || word == "/dev/null") {
    into_.common_note(result_.origin + ' ' + std::string{key},
                      "pup keeps the output for `pup logs` all the same; "
                      "\"internalLogHours\": 0 in the top level's `logger` "
                      "turns that off for all");
    return {};
  }
  auto path = expanded_(key, value);
  if (path.empty())
    return path;
  if (path.starts_with("~/"))
    path.replace(0, 1, "%{env:HOME}");
  return joined(all_.folder, path);
}

bool is_terminal(const std::string& file) {
  return file.starts_with("/dev/") || file.starts_with("/proc/self/fd/");
}

void program::rotate(const std::string& stream) {
  rotation result;
  const auto bytes_key = stream + "_logfile_maxbytes";
  if (const auto* given = from_.find(bytes_key)) {
    if (const auto bytes = byte_size(*given))
      result.bytes = *bytes;
    else
      note(bytes_key, quote(*given) + " is not a size and was left out");
  }
  const auto* backups = from_.find(stream + "_logfile_backups");
  const auto count = backups ? whole_number(*backups) : std::nullopt;
  if (count && *count >= 0)
    result.backups = std::min(*count, bounds::log_files);
  rotations_.push_back(result);
}

void program::logs() {
  for (const std::string_view key :
       {"stdout_logfile_maxbytes", "stdout_logfile_backups",
        "stderr_logfile_maxbytes", "stderr_logfile_backups"})
    taken_.push_back(key);
  const auto is_one = truth("redirect_stderr", false);
  const auto given_out = text("stdout_logfile");
  const auto given_err = text("stderr_logfile");
  auto out = given_out ? log_file("stdout_logfile", *given_out) : std::string{};
  auto err = given_err && !is_one ? log_file("stderr_logfile", *given_err)
                                  : std::string{};
  if (is_one && given_err)
    note("stderr_logfile",
         "has no effect with redirect_stderr, as in "
         "supervisord");
  members logger;
  const auto shows = is_terminal(out) || is_terminal(err);
  if (shows) {
    logger.emplace_back("console", "true");
    into_.common_note(result_.origin + " logfile",
                      "`pup run` shows the output on its own, both streams "
                      "alike; a supervisor in the background has none");
  }
  if (!out.empty() && !is_terminal(out)) {
    logger.emplace_back("stdout", json_of(out));
    rotate("stdout");
    if (!is_one && (err.empty() || is_terminal(err)))
      into_.common_note(result_.origin + " stderr_logfile",
                        "standard error goes to the file of standard output as "
                        "well; name another one in `logger.stderr`");
  }
  if (!err.empty() && !is_terminal(err) && err != out) {
    logger.emplace_back("stderr", json_of(err));
    rotate("stderr");
  }
  if (!logger.empty())
    result_.set("logger", json_of(logger));
}

void program::run() {
  if (!from_.find("command"))
    return into_.note(result_.origin, "has no command and was left out");
  instances();
  environment();
  if (!command())
    return;
  account();
  restarts();
  stopping();
  logs();
  for (const auto& [key, value] : from_.entries)
    if (std::find(taken_.begin(), taken_.end(), key) == taken_.end())
      note(key, "has no counterpart in pup");
  into_.processes.push_back(std::move(result_));
}

std::int64_t priority_of(const ini_section& x) {
  const auto* value = x.find("priority");
  return value ? whole_number(*value).value_or(999) : 999;
}

/// What [supervisord] says about programs.
shared shared_of(draft& into, const ini& all) {
  shared result;
  for (const auto& x : all.sections) {
    const auto* programs = x.find("programs");
    if (!x.name.starts_with("group:") || !programs)
      continue;
    for (std::string_view left = *programs; !left.empty();) {
      const auto end = std::min(left.find(','), left.size());
      result.groups[std::string{trimmed(left.substr(0, end))}] =
          trimmed(std::string_view{x.name}.substr(6));
      left.remove_prefix(std::min(end + 1, left.size()));
    }
  }
  const auto* own = all.find("supervisord");
  if (!own)
    return result;
  const std::string origin = "[supervisord]";
  expander expanded{into, origin, result.env};
  if (const auto* name = own->find("identifier"))
    into.name = *name;
  if (const auto* env = own->find("environment"))
    result.env = variables_of(into, origin + " environment",
                              expanded("environment", *env));
  const auto* foreground = own->find("nodaemon");
  const auto is_daemon = !foreground || truth_of(*foreground) != true;
  const auto take = [&](std::string_view key) -> std::optional<std::string> {
    const auto* value = own->find(key);
    if (!value || value->empty())
      return std::nullopt;
    auto text = expanded(key, *value);
    if (text.find("%{") == std::string::npos)
      return text;
    into.note(origin + ' ' + std::string{key},
              quote(*value)
                  + " is known when supervisord starts, and was left out; "
                    "write its value");
    return std::nullopt;
  };
  // root is who must start it, then.
  if (auto user = take("user"); user && *user != "root" && *user != "0")
    result.user = user;
  if (is_daemon) {
    result.umask = take("umask");
    result.folder = take("directory").value_or("");
  }
  if (own->find("minfds"))
    into.note(origin + " minfds",
              "give the processes that need it `limits` with \"nofile\"");
  return result;
}

/// Takes up the files that [include] names.
std::optional<import_fault> include(draft& into, ini& all,
                                    const import_surroundings& around) {
  const auto* section = all.find("include");
  if (!section)
    return std::nullopt;
  const auto* files = section->find("files");
  const auto patterns =
      split_words(files ? *files : "").value_or(std::vector<std::string>{});
  for (const auto& pattern : patterns) {
    const auto is_open = pattern.find('%') != std::string::npos;
    const auto found = around.matching && !is_open
                           ? around.matching(pattern)
                           : std::vector<import_surroundings::file>{};
    if (!around.matching || is_open)
      into.note("[include]",
                "is not followed; import these as well: " + pattern);
    else if (found.empty())
      into.note("[include]", "no readable file matches " + quote(pattern));
    for (const auto& x : found)
      if (auto fault = all.read(x.text, x.path.substr(0, x.path.rfind('/')))) {
        fault->problem = "in " + x.path + ':' + std::to_string(fault->line)
                         + ": " + fault->problem;
        fault->line = 1;
        return fault;
      }
  }
  return std::nullopt;
}

/// What the files of all processes have in common.
void rotate_all(draft& into, const std::vector<rotation>& wanted) {
  if (wanted.empty())
    return;
  auto all = wanted.front();
  bool differs = false;
  for (const auto& x : wanted) {
    differs = differs || !(x == all);
    all.bytes =
        x.bytes == 0 || all.bytes == 0 ? 0 : std::max(x.bytes, all.bytes);
    all.backups = std::max(x.backups, all.backups);
  }
  if (differs)
    into.note("logfile_maxbytes, logfile_backups",
              "pup has one size and one number for all files: the largest of "
              "the programs'");
  if (all.bytes != 0 && all.bytes < bounds::least_log_bytes) {
    all.bytes = bounds::least_log_bytes;
    into.note("logfile_maxbytes", "became 1M, the least that pup has");
  }
  constexpr std::int64_t mega = std::int64_t{1} << 20;
  const auto size = all.bytes == 0 ? "0"
                    : all.bytes % mega == 0
                        ? json_of(std::to_string(all.bytes / mega) + 'M')
                        : std::to_string(all.bytes);
  into.top.emplace_back(
      "logger", json_of(members{{"maxFileSize", size},
                                {"maxFiles", std::to_string(all.backups)}}));
}

}  // namespace

std::variant<imported, import_fault> import_supervisord(
    std::string_view text, const std::string& file,
    const import_surroundings& around) {
  ini all;
  draft result;
  result.kind = "supervisord";
  if (auto fault = all.read(text, around.folder))
    return *fault;
  if (auto fault = include(result, all, around))
    return *fault;
  // supervisord takes no file without one, and a part of a file has none.
  all.section("supervisord");
  all.spread_defaults();
  const auto common = shared_of(result, all);
  // The lower, the earlier; equal ones in the order of the file.
  std::stable_sort(all.sections.begin(), all.sections.end(),
                   [](const ini_section& a, const ini_section& b) {
                     return priority_of(a) < priority_of(b);
                   });
  std::vector<rotation> rotations;
  for (const auto& x : all.sections) {
    if (x.name.starts_with("program:"))
      program{result, x, common, rotations}.run();
    else if (x.name.starts_with("group:"))
      result.note('[' + x.name + ']',
                  "is left out: name its programs by a glob, or use `groups`");
    else if (x.name != "include" && x.name != "DEFAULT"
             && std::find(own_sections.begin(), own_sections.end(), x.name)
                    == own_sections.end())
      result.note('[' + x.name + ']', "has no counterpart in pup");
  }
  if (result.processes.empty())
    return import_fault{1, "has no [program:...] with a command",
                        "name the file that has them"};
  rotate_all(result, rotations);
  return std::move(result).finish(file);
}

}  // namespace pup::importing
