// PM2's ecosystem file, in JSON.
#include "pup/config/cron.hpp"
#include "pup/config/expand.hpp"
#include "pup/config/import_draft.hpp"
#include "pup/config/import_pm2_keys.hpp"
#include "pup/config/rules.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <array>

namespace pup::importing {

namespace {

using script_kind = import_surroundings::script;

struct interpreter {
  std::string_view ending;
  std::string_view program;
};
constexpr std::array<interpreter, 10> interpreters{{
    {".js", "node"},
    {".mjs", "node"},
    {".cjs", "node"},
    {".ts", "bun"},
    {".tsx", "bun"},
    {".py", "python3"},
    {".sh", "bash"},
    {".rb", "ruby"},
    {".pl", "perl"},
    {".php", "php"},
}};

// Commands of PATH that are scripts of node's.
constexpr std::array<std::string_view, 4> node_tools{"npm", "npx", "yarn",
                                                     "pnpm"};

// Options of PM2 itself, whose absence changes nothing for the process.
constexpr std::array<std::string_view, 13> needless{
    "name",        "vizion",    "pmx",          "automation",   "merge_logs",
    "force",       "exec_mode", "instances",    "combine_logs", "min_uptime",
    "windowsHide", "username",  "watch_options"};

// PM2's defaults where pup has others.
constexpr std::string_view usual_stop_signal = "SIGINT";
constexpr std::int64_t usual_kill_timeout_ms = 1'600;
constexpr std::int64_t usual_min_uptime_ms = 1'000;
constexpr std::int64_t usual_max_restarts = 16;
constexpr std::int64_t most_backoff_ms = 15'000;

std::string_view name_of(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

std::string_view ending_of(std::string_view path) {
  const auto name = name_of(path);
  const auto dot = name.rfind('.');
  return dot == std::string_view::npos || dot == 0 ? "" : name.substr(dot);
}

std::string stem_of(std::string_view path) {
  const auto name = name_of(path);
  return std::string{name.substr(0, name.size() - ending_of(name).size())};
}

bool is_null_file(std::string_view path) {
  return path == "NULL" || path == "/dev/null";
}

class application {
public:
  application(draft& into, const json_value& x, std::string origin,
              const import_surroundings& around)
      : into_(into), x_(x), around_(around), keys_(into, x, origin) {
    result_.origin = std::move(origin);
    for (const auto key : needless)
      keys_.pass_over(key);
  }

  bool run();

private:
  bool command();
  void shell_command(const std::string& script);
  std::optional<std::string> chosen_interpreter(std::string& script);
  script_kind script_at(const std::string& path) const;
  void folder();
  void environment();
  void variable(const std::string& name, const json_value& value);
  void inherited();
  void instances();
  void balance(std::int64_t first, const std::optional<std::string>& step);
  void restarts();
  std::int64_t least_uptime();
  std::int64_t delays_of(std::int64_t count, std::int64_t bound);
  void limit();
  void delays();
  void clock();
  void memory();
  void exit_codes();
  void stopping();
  void readiness();
  void account();
  void watching();
  void logs();
  /// A path of PM2's, which starts at the folder of the application.
  std::string path_of(std::string_view path) const;
  /// The same for one that each instance has of its own.
  std::string own_path(std::string path) const;

  draft& into_;
  const json_value& x_;
  const import_surroundings& around_;
  draft_process result_;
  pm2_keys keys_;
  std::map<std::string, std::string> env_;
  std::string folder_;    // as in the file; empty: there is none
  bool is_node_ = false;  // PM2 then runs several as a cluster
  bool restarts_ = true;
  bool inherits_nothing_ = false;
};

script_kind application::script_at(const std::string& path) const {
  if (!around_.script_at)
    return script_kind::unknown;
  const auto is_whole = folder_.empty() || path.starts_with('/');
  return around_.script_at(is_whole ? path : folder_ + '/' + path);
}

void application::shell_command(const std::string& script) {
  result_.set("cmd", json_of(escaped({"bash", "-c", script})));
  if (keys_.find("args"))
    keys_.note("args",
               "has no effect beside a script with blanks, in PM2 neither");
}

/// The program that PM2 runs a script with; none: it is executed itself.
std::optional<std::string> application::chosen_interpreter(
    std::string& script) {
  if (auto with = keys_.text({"interpreter", "exec_interpreter"})) {
    is_node_ = with->ends_with("node") || with->ends_with("bun");
    if (*with == "none")
      return std::nullopt;
    if (with->starts_with("node@")) {
      keys_.note(
          "interpreter",
          quote(*with) + " means one of nvm's; write the path of that node");
      is_node_ = true;
      return "node";
    }
    return with;
  }
  const auto known = std::find_if(
      interpreters.begin(), interpreters.end(),
      [&](const auto& y) { return y.ending == ending_of(script); });
  if (known != interpreters.end()) {
    is_node_ = known->program == "node" || known->program == "bun";
    if (known->program == "bun")
      keys_.note("script",
                 "PM2 runs it with bun, or with node where there is no "
                 "bun; name what you have in `cmd`");
    return std::string{known->program};
  }
  const auto is_path = script.find('/') != std::string::npos;
  const auto nature = script_at(script);
  // A command of PATH, which finds its interpreter itself.
  if (!is_path && nature == script_kind::unknown) {
    is_node_ = std::find(node_tools.begin(), node_tools.end(), script)
               != node_tools.end();
    return std::nullopt;
  }
  if (nature == script_kind::program) {
    if (!is_path)
      script.insert(0, "./");
    return std::nullopt;
  }
  is_node_ = true;
  if (nature == script_kind::unknown)
    keys_.note("script", quote(script)
                       + " is not there to be looked at: PM2 runs a text with "
                         "node, a program itself; take `node` out of `cmd` if "
                         "it is a program");
  return "node";
}

bool application::command() {
  auto script = keys_.text({"script", "exec", "cmd", "command"});
  if (!script || trimmed(*script).empty()) {
    into_.note(result_.origin, "has no script and was left out");
    return false;
  }
  result_.id = keys_.text({"name"}).value_or(stem_of(*script));
  const auto options = keys_.words({"node_args", "interpreter_args"});
  const auto arguments = keys_.words({"args"});
  // "npm start": a whole command, which PM2 gives to a shell.
  if (script->find(' ') != std::string::npos) {
    shell_command(*script);
    return true;
  }
  if (*script == "serve")
    keys_.note("script",
               "is PM2's own file server, which has no counterpart in pup");
  const auto with = chosen_interpreter(*script);
  std::vector<std::string> argv;
  if (with) {
    argv.push_back(*with);
    argv.insert(argv.end(), options.begin(), options.end());
  }
  argv.push_back(*script);
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  result_.set("cmd", json_of(escaped(argv)));
  if (with == "python3" && !keys_.find("interpreter")
      && !keys_.find("exec_interpreter"))
    keys_.common_note(
        "script", "is run by python3; PM2 takes `python` where there is one");
  // Else lines come when a buffer is full.
  if (with && with->find("python") != std::string::npos)
    env_.emplace("PYTHONUNBUFFERED", "1");
  return true;
}

std::string application::path_of(std::string_view path) const {
  if (path == "~" || path.starts_with("~/"))
    return "%{env:HOME}" + escape_placeholders(path.substr(1));
  if (path.starts_with('/') || folder_.empty())
    return escape_placeholders(path);
  return escape_placeholders(folder_ + (folder_.ends_with('/') ? "" : "/")
                             + std::string{path});
}

std::string application::own_path(std::string path) const {
  if (!result_.is_cluster)
    return path;
  const auto ending = ending_of(path).size();
  return path.insert(path.size() - ending, "-%{index}");
}

void application::folder() {
  const auto cwd = keys_.text({"cwd"});
  if (!cwd || cwd->empty())
    return;
  folder_ = *cwd;
  result_.set("cwd", json_of(escape_placeholders(*cwd)));
}

void application::inherited() {
  const auto filter = keys_.take({"filter_env"});
  if (!filter)
    return;
  if (filter->kind() == json_kind::boolean) {
    inherits_nothing_ = filter->truth();
    if (inherits_nothing_)
      result_.set("inheritEnv", "false");
    return;
  }
  keys_.note("filter_env",
             "names what is not inherited; name in `inheritEnv` what "
             "is");
}

void application::variable(const std::string& name, const json_value& value) {
  if (name.empty() || name.find('=') != name.npos
      || name.find('\0') != name.npos)
    return keys_.note("env",
                      quote(name) + " cannot name a variable and was left out");
  env_[name] = escape_placeholders(value.kind() == json_kind::string
                                       ? std::string{value.string()}
                                       : stringified(value));
}

void application::environment() {
  if (const auto env = keys_.take({"env"})) {
    if (env->kind() != json_kind::object)
      keys_.note("env", "is no object and was left out");
    else
      for (const auto& member : env->members())
        variable(std::string{member.key.string()}, member.value);
  }
  if (const auto port = keys_.number({"port"}))
    env_["PORT"] = std::to_string(*port);
  inherited();
  for (const auto& member : x_.members()) {
    const auto key = member.key.string();
    if (!key.starts_with("env_"))
      continue;
    keys_.pass_over(key);
    keys_.note(key, "variables for `--env " + std::string{key.substr(4)}
                        + "` are left out; merge them into `env` by hand");
  }
}

void application::instances() {
  const auto given = keys_.text({"instances"});
  const auto mode = keys_.text({"exec_mode"})
                        .value_or(given && is_node_ ? "cluster" : "fork");
  const auto step = keys_.text({"increment_var"});
  const auto index = keys_.text({"instance_var"}).value_or("NODE_APP_INSTANCE");
  env_.emplace(index, "%{index}");
  // "max" is 0, and what is no number PM2 takes for that.
  const auto number = given ? whole_number(*given).value_or(0) : 1;
  const auto is_shared = mode.starts_with("cluster");
  if (is_shared && !is_node_)
    keys_.note("exec_mode",
               "PM2 has clusters of node programs only; here each "
               "instance gets a port of its own, if there is one");
  // Without a cluster PM2 starts them one by one, each as it is.
  if (number == 1)
    return;
  result_.is_cluster = true;
  result_.one_per_processor = number <= 0;
  if (number < 0)
    keys_.note("instances",
               "`" + *given + "` became \"max\": one for each processor");
  result_.instances = static_cast<std::uint32_t>(
      std::clamp<std::int64_t>(number, 1, bounds::instances));
  const auto port = env_.find("PORT");
  // 0: none.
  const auto first =
      port == env_.end() ? 0 : whole_number(port->second).value_or(0);
  result_.set(
      "cluster",
      json_of(members{{"instances", result_.one_per_processor
                                        ? json_of("max")
                                        : std::to_string(result_.instances)}}));
  if (step && *step != "PORT")
    keys_.note("increment_var", "only PORT is counted up, by `startPort`");
  else if (is_shared || step)
    balance(first, step);
  else if (port != env_.end())
    keys_.note("instances", "each gets the same PORT, as in PM2's fork mode");
}

void application::balance(std::int64_t first,
                          const std::optional<std::string>& step) {
  constexpr std::int64_t most_port = 65'535;
  const auto is_usable =
      first > 0 && first + result_.instances - 1 <= most_port;
  if (!is_usable)
    return keys_.note(
        "exec_mode",
        "PM2 shares a port among the workers; here give `cluster` a "
        "startPort and a commonPort, and let the program listen on "
        "$PORT");
  env_.erase("PORT");
  if (!step) {
    result_.needs_ports = true;
    result_.common_port = static_cast<std::uint32_t>(first);
    return;
  }
  result_.set(
      "cluster",
      json_of(members{{"instances", result_.one_per_processor
                                        ? json_of("max")
                                        : std::to_string(result_.instances)},
                      {"startPort", std::to_string(first)}}));
}

/// How long a life must last for PM2 not to count its end.
std::int64_t application::least_uptime() {
  const auto given = keys_.text({"min_uptime"});
  if (!given)
    return usual_min_uptime_ms;
  std::string_view word = *given;
  std::int64_t factor = 1;
  for (const auto& [unit, ms] : {std::pair{'s', std::int64_t{1'000}},
                                 std::pair{'m', std::int64_t{60'000}},
                                 std::pair{'h', std::int64_t{3'600'000}}})
    if (word.ends_with(unit)) {
      factor = ms;
      word.remove_suffix(1);
    }
  const auto count = whole_number(word);
  if (count && *count >= 0 && *count <= bounds::duration_ms / factor / 2)
    return *count * factor;
  keys_.note("min_uptime", quote(*given) + " is not a time and was left out");
  return usual_min_uptime_ms;
}

/// How long PM2 waits between so many lives, up to `bound`.
std::int64_t application::delays_of(std::int64_t count, std::int64_t bound) {
  const auto grows = keys_.number({"exp_backoff_restart_delay"});
  auto delay = grows ? grows : keys_.number({"restart_delay"});
  if (!delay)
    return 0;
  std::int64_t sum = 0;
  for (; count > 0 && sum < bound; --count) {
    sum += *delay;
    if (grows)
      delay = std::min(most_backoff_ms, *delay * 3 / 2);
  }
  return sum;
}

/// PM2's limit is one of quick ends in its first seconds: later ones it does
/// not count.
void application::limit() {
  const auto uptime = least_uptime();
  const auto given = keys_.number({"max_restarts"});
  if (!restarts_)
    return;
  const auto most = std::min<std::int64_t>(given.value_or(usual_max_restarts),
                                           bounds::restarts);
  const auto is_reached = delays_of(most - 1, most * uptime) < most * uptime;
  if (given && !is_reached)
    return keys_.note(
        "max_restarts",
        "has no effect in PM2 with such a delay, and was left out; set "
        "`startLimit` if you want one");
  if (!given && is_reached)
    keys_.common_note(
        "max_restarts",
        "PM2 gives up on what ends 16 times within its first seconds, pup "
        "tries for ever: set `startLimit`, and `ready` so that it counts");
  if (!given)
    return;
  result_.set("startLimit", std::to_string(most - 1));
  if (!result_.needs_ports && !keys_.find("wait_ready"))
    result_.ready_after(uptime);
  keys_.common_note("max_restarts",
                    "became startLimit, which holds at any time; PM2 "
                    "counts in the first seconds only");
}

void application::delays() {
  if (const auto ms = keys_.number({"exp_backoff_restart_delay"})) {
    result_.set("restartDelayMs", std::to_string(*ms));
    result_.set("restartMaxDelayMs",
                std::to_string(std::max(*ms, most_backoff_ms)));
    keys_.note("exp_backoff_restart_delay",
               "the delay doubles; PM2 makes it half as long again");
  } else if (const auto delay = keys_.number({"restart_delay"})) {
    // The same each time.
    result_.set("restartDelayMs", std::to_string(*delay));
    if (*delay > 0)
      result_.set("restartMaxDelayMs", std::to_string(*delay));
  }
}

/// By the clock PM2 starts what does not run, and what runs anew.
void application::clock() {
  const auto cron = keys_.text({"cron_restart", "cron"});
  if (!cron || *cron == "0")
    return;
  if (const auto parsed = cron_schedule::parse(*cron);
      const auto* fault = std::get_if<cron_fault>(&parsed))
    return keys_.note("cron_restart", quote(*cron) + ": " + fault->problem
                                          + "; it was left out");
  const auto starts = keys_.truth({"autostart"}) != false;
  if (starts && restarts_) {
    result_.set("terminate", json_of(*cron));
    if (keys_.find("stop_exit_codes"))
      keys_.note("cron_restart",
                 "does not start what has ended with one of "
                 "stop_exit_codes; PM2 does");
    return;
  }
  result_.set("cron", json_of(*cron));
  result_.set("autostart", starts ? "true" : "false");
  result_.set("restart", json_of(restarts_ ? "always" : "never"));
  keys_.note("cron_restart",
             "leaves a run alone that still lasts when the next is "
             "due; PM2 ends it first: bound it by `timeout`");
}

void application::memory() {
  const auto memory = keys_.text({"max_memory_restart"});
  if (!memory)
    return;
  auto amount = *memory;
  for (auto& c : amount)
    c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  if (amount.ends_with('B'))
    amount.pop_back();
  const auto unit = amount.empty() ? '\0' : amount.back();
  const auto is_counted = unit == 'K' || unit == 'M' || unit == 'G';
  const auto number = whole_number(
      std::string_view{amount}.substr(0, amount.size() - (is_counted ? 1 : 0)));
  const auto least = std::int64_t{bounds::least_memory_bytes}
                     / (unit == 'K'  ? 1 << 10
                        : is_counted ? 1 << 20
                                     : 1);
  if (number && *number >= least)
    result_.set("maxMemory", json_of(amount));
  else
    keys_.note("max_memory_restart", quote(*memory)
                                   + " is not an amount of at least 1M, and "
                                     "was left out");
}

void application::exit_codes() {
  const auto codes = keys_.take({"stop_exit_codes"});
  if (!codes)
    return;
  constexpr std::int64_t most = 255;
  std::string list;
  const auto add = [&](const json_value& code) {
    const auto text =
        code.kind() == json_kind::string ? code.string() : code.raw();
    const auto number = whole_number(text);
    if (number && *number >= 0 && *number <= most)
      list.append(list.empty() ? "" : ", ").append(std::to_string(*number));
    else
      keys_.note("stop_exit_codes",
                 quote(text) + " is not an exit code and was left out");
  };
  if (codes->kind() == json_kind::array)
    for (const auto& code : codes->elements())
      add(code);
  else
    add(*codes);
  result_.set("noRestartExitCodes", '[' + list + ']');
}

void application::restarts() {
  restarts_ = keys_.truth({"autorestart"}) != false;
  if (!restarts_)
    result_.set("restart", json_of("never"));
  if (keys_.truth({"autostart"}) == false)
    result_.set("autostart", "false");
  delays();
  limit();
  clock();
  memory();
  exit_codes();
}

void application::readiness() {
  const auto waits = keys_.truth({"wait_ready"}) == true;
  const auto ms = keys_.number({"listen_timeout"});
  if (waits)
    keys_.note("wait_ready",
               "process.send('ready') has no counterpart; use `ready` "
               "with \"port\", \"notify\", \"http\" or \"log\"");
  if (waits && ms && *ms > 0)
    result_.set("readyTimeoutMs", std::to_string(*ms));
}

void application::stopping() {
  result_.set("stopSignal", json_of(usual_stop_signal));
  const auto ms =
      keys_.number({"kill_timeout"}).value_or(usual_kill_timeout_ms);
  result_.set("terminateTimeout",
              seconds_of(std::min(ms, bounds::duration_ms)));
  if (keys_.truth({"shutdown_with_message"}) == true)
    keys_.note("shutdown_with_message",
               "the program must act on SIGINT instead");
  if (keys_.truth({"treekill"}) == false)
    keys_.note("treekill",
               "has no counterpart: all that belongs to a process is "
               "stopped with it");
}

void application::account() {
  for (const auto& [theirs, ours] :
       {std::pair{"uid", "user"}, std::pair{"gid", "group"}})
    if (const auto x = keys_.text({theirs, ours}))
      result_.set(ours, json_of(*x));
  if (keys_.find("uid") || keys_.find("user")) {
    if (!inherits_nothing_)
      result_.set("inheritEnv", "true");
    keys_.common_note("uid",
                      "inherits pup's whole environment, as with PM2; remove "
                      "inheritEnv to pass on little");
  }
  if (const auto x = keys_.text({"pid_file", "pid"}); x && !is_null_file(*x))
    result_.set("pidFile", json_of(own_path(path_of(*x))));
}

void application::watching() {
  const auto watch = keys_.take({"watch"});
  const auto is_flag = watch && watch->kind() == json_kind::boolean;
  std::vector<std::string> paths;
  if (is_flag && watch->truth())
    paths.push_back(folder_.empty() ? "." : folder_);
  for (const auto& path : is_flag || !watch ? std::vector<std::string>{}
                                            : keys_.words({"watch"})) {
    if (path.empty())
      continue;
    const auto pattern = path.find_first_of("*?[{!");
    if (pattern != std::string::npos)
      keys_.note("watch", quote(path) + " is a pattern and was left out; name its "
                                  "folder, and the pattern in `watcher.match`");
    else
      paths.push_back(path.starts_with('/') || folder_.empty()
                          ? path
                          : folder_ + '/' + path);
  }
  if (!paths.empty())
    result_.set("watch", json_of(paths));
  // PM2's are started at once all the same.
  if (!paths.empty() && keys_.truth({"autostart"}) != std::optional{false})
    result_.set("autostart", "true");
  const auto ignored = keys_.take({"ignore_watch", "watch_ignore"});
  const auto delay = keys_.take({"watch_delay"});
  if (paths.empty())
    return;
  if (ignored)
    keys_.note("ignore_watch",
               "set `watcher.skip` at the top level; it takes globs such as "
               "\"**/node_modules/**\"");
  if (delay)
    keys_.note("watch_delay", "set `watcher.interval` at the top level");
}

void application::logs() {
  const auto both = keys_.take({"log_file", "log"});
  const auto out = keys_.text({"out_file", "out", "output", "out_log"});
  const auto error =
      keys_.text({"error_file", "error", "err", "err_file", "err_log"});
  const auto is_merged = keys_.truth({"merge_logs", "combine_logs"}) == true;
  const auto format = keys_.take({"log_date_format"});
  const auto is_timed = keys_.truth({"time"}) == true || format;
  const auto type = keys_.text({"log_type"});
  const auto is_silent = keys_.truth({"disable_logs"}) == true
                         || (out && is_null_file(*out))
                         || (error && is_null_file(*error));
  const auto file = [&](const std::optional<std::string>& x) {
    if (!x || x->empty() || is_null_file(*x))
      return std::string{};
    auto path = path_of(*x);
    return is_merged ? path : own_path(std::move(path));
  };
  auto first = file(out);
  auto second = file(error);
  const auto all = both && both->kind() == json_kind::string
                       ? file(std::string{both->string()})
                       : std::string{};
  if (keys_.truth({"disable_logs"}) == true)
    first.clear(), second.clear();
  else if (!all.empty() && first.empty() && second.empty())
    first = all;
  else if (!all.empty())
    keys_.note("log_file",
               "pup writes each stream to one file: out_file and "
               "error_file have it");
  if (is_silent)
    keys_.common_note("out_file",
                      "pup keeps the output for `pup logs` all the same; "
                      "\"internalLogHours\": 0 in the top level's `logger` "
                      "turns that off for all");
  if (!first.empty() && second.empty() && first != all)
    keys_.common_note("error_file",
                      "standard error goes to the file of standard output "
                      "as well; name another one in `logger.stderr`");
  members logger;
  if (!first.empty())
    logger.emplace_back("stdout", json_of(first));
  if (!second.empty() && second != first)
    logger.emplace_back("stderr", json_of(second));
  // The store has the time of each line anyhow.
  if (logger.empty())
    return;
  if (type == "json")
    logger.emplace_back("format", json_of("json"));
  else if (is_timed) {
    logger.emplace_back("decorateFiles", "true");
    keys_.common_note(
        format ? "log_date_format" : "time",
        "each line begins with time, id and stream, the time in pup's form");
  }
  result_.set("logger", json_of(logger));
}

bool application::run() {
  if (x_.kind() != json_kind::object) {
    into_.note(result_.origin, "is no object and was left out");
    return false;
  }
  folder();
  if (!command())
    return false;
  environment();
  instances();
  if (!env_.empty())
    result_.set("env", json_of(env_));
  restarts();
  stopping();
  readiness();
  account();
  watching();
  logs();
  keys_.tell_rest();
  into_.processes.push_back(std::move(result_));
  return true;
}

}  // namespace

std::variant<imported, import_fault> import_pm2(
    const json_value& root, const std::string& file,
    const import_surroundings& around) {
  draft result;
  result.kind = "PM2";
  const auto applications = [&](const json_value& x, const std::string& path) {
    if (x.kind() != json_kind::array) {
      application{result, x, path, around}.run();
      return;
    }
    for (std::size_t i = 0; const auto& element : x.elements())
      application{result, element, element_path(path, i++), around}.run();
  };
  if (is_pm2_dump(root)) {
    const auto text = ecosystem_of_dump(root, result);
    const auto parsed = parse_json(text);
    if (const auto* tree = std::get_if<json_tree>(&parsed))
      applications(json_value{*tree, 0}, "apps");
  } else if (root.kind() == json_kind::array) {
    applications(root, "apps");
  } else {
    bool alone = true;
    for (const auto& member : root.members()) {
      const auto key = member.key.string();
      if (key != "apps" && key != "pm2")
        continue;
      alone = false;
      applications(member.value, std::string{key});
    }
    if (alone)
      applications(root, "apps[0]");
    else
      for (const auto& member : root.members())
        if (const auto key = member.key.string(); key != "apps" && key != "pm2")
          result.no_counterpart("", key);
  }
  if (result.processes.empty())
    return import_fault{1, "has no application with a script",
                        "name a file with some"};
  return std::move(result).finish(file);
}

}  // namespace pup::importing
