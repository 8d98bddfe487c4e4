// PM2's ecosystem file, in JSON.
#include "pup/config/expand.hpp"
#include "pup/config/import_draft.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <array>

namespace pup::importing {

namespace {

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

// Options of PM2 itself, whose absence changes nothing for the process.
constexpr std::array<std::string_view, 12> needless{
    "name",       "vizion",     "pmx",       "automation",
    "treekill",   "merge_logs", "force",     "combine_logs",
    "min_uptime", "filter_env", "exec_mode", "instances"};

std::string_view ending_of(std::string_view path) {
  const auto name = path.substr(path.rfind('/') + 1);
  const auto dot = name.rfind('.');
  return dot == std::string_view::npos || dot == 0 ? "" : name.substr(dot);
}

std::string stem_of(std::string_view path) {
  const auto name = path.substr(path.rfind('/') + 1);
  return std::string{name.substr(0, name.size() - ending_of(name).size())};
}

class application {
public:
  application(draft& into, const json_value& x, std::string origin)
      : into_(into), x_(x) {
    result_.origin = std::move(origin);
  }

  bool run();

private:
  std::optional<json_value> find(std::string_view key) const;
  // The first of several spellings.
  std::optional<json_value> take(std::initializer_list<std::string_view> keys);
  std::optional<std::string> text(std::initializer_list<std::string_view> keys);
  std::optional<std::int64_t> number(
      std::initializer_list<std::string_view> keys);
  std::optional<bool> truth(std::initializer_list<std::string_view> keys);
  std::vector<std::string> words(std::initializer_list<std::string_view> keys);

  bool command();
  void environment();
  void instances();
  void restarts();
  void stopping();
  void account();
  void watching();
  void logs();
  void rest();
  void note(std::string_view key, std::string text) {
    into_.note(result_.origin + '.' + std::string{key}, std::move(text));
  }

  draft& into_;
  const json_value& x_;
  draft_process result_;
  std::vector<std::string_view> taken_{needless.begin(), needless.end()};
  std::map<std::string, std::string> env_;
};

std::optional<json_value> application::find(std::string_view key) const {
  for (const auto& member : x_.members())
    if (member.key.string() == key && member.value.kind() != json_kind::null)
      return member.value;
  return std::nullopt;
}

std::optional<json_value> application::take(
    std::initializer_list<std::string_view> keys) {
  std::optional<json_value> result;
  for (const auto key : keys) {
    taken_.push_back(key);
    if (!result)
      result = find(key);
  }
  return result;
}

std::optional<std::string> application::text(
    std::initializer_list<std::string_view> keys) {
  const auto x = take(keys);
  if (!x)
    return std::nullopt;
  if (x->kind() == json_kind::string)
    return std::string{x->string()};
  if (x->kind() == json_kind::number)
    return std::string{x->raw()};
  note(*keys.begin(), "is not a text and was left out");
  return std::nullopt;
}

std::optional<std::int64_t> application::number(
    std::initializer_list<std::string_view> keys) {
  const auto x = text(keys);
  if (!x)
    return std::nullopt;
  auto result = whole_number(*x);
  if (!result || *result < 0) {
    note(*keys.begin(), quote(*x) + " is not a number and was left out");
    return std::nullopt;
  }
  return result;
}

std::optional<bool> application::truth(
    std::initializer_list<std::string_view> keys) {
  const auto x = take(keys);
  if (!x || x->kind() != json_kind::boolean)
    return std::nullopt;
  return x->truth();
}

std::vector<std::string> application::words(
    std::initializer_list<std::string_view> keys) {
  const auto x = take(keys);
  std::vector<std::string> result;
  if (!x)
    return result;
  if (x->kind() == json_kind::array) {
    for (const auto& element : x->elements())
      result.emplace_back(element.kind() == json_kind::string ? element.string()
                                                              : element.raw());
  } else if (x->kind() == json_kind::string) {
    auto split = split_words(x->string());
    if (!split)
      note(*keys.begin(), "has a quote that is not closed and was left out");
    return split.value_or(result);
  }
  return result;
}

bool application::command() {
  const auto script = text({"script", "exec", "cmd"});
  if (!script || trimmed(*script).empty()) {
    into_.note(result_.origin, "has no script and was left out");
    return false;
  }
  result_.id = text({"name"}).value_or(stem_of(*script));
  const auto with = text({"interpreter", "exec_interpreter"});
  auto options =
      words({"node_args", "interpreter_args", "interpreterArgs", "nodeArgs"});
  const auto arguments = words({"args"});
  std::vector<std::string> argv;
  if (with && *with != "none") {
    argv.push_back(*with);
  } else if (!with) {
    const auto known = std::find_if(
        interpreters.begin(), interpreters.end(),
        [&](const auto& y) { return y.ending == ending_of(*script); });
    if (known != interpreters.end())
      argv.emplace_back(known->program);
  }
  // "npm start": a whole command, which PM2 gives to a shell.
  if (argv.empty() && arguments.empty()
      && script->find(' ') != std::string::npos) {
    result_.set("cmd", json_of(*script));
    return true;
  }
  if (!argv.empty())
    argv.insert(argv.end(), options.begin(), options.end());
  argv.push_back(*script);
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  result_.set("cmd", json_of(escaped(argv)));
  return true;
}

void application::environment() {
  if (const auto cwd = text({"cwd"}))
    result_.set("cwd", json_of(escape_placeholders(*cwd)));
  if (const auto env = take({"env"}); env && env->kind() == json_kind::object)
    for (const auto& member : env->members())
      env_[std::string{member.key.string()}] = escape_placeholders(
          member.value.kind() == json_kind::string ? member.value.string()
                                                   : member.value.raw());
  for (const auto& member : x_.members()) {
    const auto key = member.key.string();
    if (!key.starts_with("env_"))
      continue;
    taken_.push_back(key);
    note(key, "variables for `--env " + std::string{key.substr(4)}
                  + "` are left out; merge them into `env` by hand");
  }
}

void application::instances() {
  const auto mode = text({"exec_mode"}).value_or("fork");
  const auto count = text({"instances"}).value_or("1");
  const auto step = text({"increment_var"});
  const auto index = text({"instance_var"}).value_or("NODE_APP_INSTANCE");
  auto number = whole_number(count).value_or(0);
  if (!mode.starts_with("cluster") && number == 1)
    return;
  const auto max = number <= 0;
  if (number < 0)
    note("instances", "`" + count + "` became \"max\": one for each processor");
  number = std::min<std::int64_t>(max ? 1 : number, 1024);
  result_.is_cluster = true;
  env_.emplace(index, "%{index}");
  const auto port = env_.find("PORT");
  // 0: none.
  const auto first =
      port == env_.end() ? 0 : whole_number(port->second).value_or(0);
  const auto usable = first > 0 && first + number - 1 <= 65'535;
  members cluster{{"instances", max ? "\"max\"" : std::to_string(number)}};
  if (usable && step == "PORT") {
    cluster.emplace_back("startPort", std::to_string(first));
    env_.erase("PORT");
  } else if (usable && mode.starts_with("cluster")) {
    result_.needs_ports = !max;
    result_.common_port = static_cast<std::uint32_t>(first);
    result_.instances = static_cast<std::uint32_t>(number);
    env_.erase("PORT");
    if (max)
      note("instances", "give the cluster \"startPort\", and \"commonPort\": "
                            + std::to_string(first) + " for the balancer");
  } else if (mode.starts_with("cluster")) {
    note("exec_mode",
         "PM2 shares a port among the workers; here give "
         "`cluster` a startPort and a commonPort, and let the "
         "program listen on $PORT");
  } else if (step && step != "PORT") {
    note("increment_var", "only PORT is counted up, by `startPort`");
  }
  result_.set("cluster", json_of(cluster));
}

void application::restarts() {
  if (truth({"autorestart"}) == false)
    result_.set("restart", json_of("never"));
  if (truth({"autostart"}) == false)
    result_.set("autostart", "false");
  if (const auto x = number({"restart_delay"}))
    result_.set("restartDelayMs", std::to_string(*x));
  if (const auto x = number({"max_restarts"}))
    result_.set("restartLimit",
                std::to_string(std::min<std::int64_t>(*x, 1'000'000)));
  if (take({"exp_backoff_restart_delay"}))
    note("exp_backoff_restart_delay",
         "is needless: pup's delays grow by themselves, up to "
         "restartMaxDelayMs");
  if (const auto cron = text({"cron_restart", "cron"}); cron && *cron != "0")
    result_.set("terminate", json_of(*cron));
  if (const auto memory = text({"max_memory_restart"})) {
    auto amount = *memory;
    for (auto& c : amount)
      c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    if (amount.ends_with('B'))
      amount.pop_back();
    result_.set("maxMemory", json_of(amount));
  }
  if (const auto codes = take({"stop_exit_codes"})) {
    std::string list;
    if (codes->kind() == json_kind::array)
      for (const auto& code : codes->elements())
        list.append(list.empty() ? "" : ", ").append(code.raw());
    else
      list = codes->raw();
    result_.set("noRestartExitCodes", '[' + list + ']');
  }
}

void application::stopping() {
  if (const auto ms = number({"kill_timeout"}))
    result_.set("terminateTimeout", seconds_of(*ms));
  const auto waits = truth({"wait_ready"}) == true;
  const auto ms = number({"listen_timeout"});
  if (waits)
    note("wait_ready",
         "process.send('ready') has no counterpart; use `ready` "
         "with \"port\", \"notify\", \"http\" or \"log\"");
  if (waits && ms && *ms > 0)
    result_.set("readyTimeoutMs", std::to_string(*ms));
  if (truth({"shutdown_with_message"}) == true)
    note("shutdown_with_message", "the program must act on SIGTERM instead");
}

void application::account() {
  for (const auto& [theirs, ours] :
       {std::pair{"uid", "user"}, std::pair{"gid", "group"},
        std::pair{"user", "user"}})
    if (const auto x = text({theirs}))
      result_.set(ours, json_of(*x));
  if (const auto x = text({"pid_file", "pid"}))
    result_.set("pidFile", json_of(*x));
}

void application::watching() {
  const auto watch = take({"watch"});
  if (watch && watch->kind() == json_kind::boolean && watch->truth())
    result_.set("watch", "[\".\"]");
  else if (watch && watch->kind() != json_kind::boolean) {
    auto folders = words({"watch"});
    if (!folders.empty())
      result_.set("watch", json_of(folders));
  }
  // PM2's are started at once all the same.
  if (take({"watch"}) && truth({"autostart"}) != std::optional{false})
    result_.set("autostart", "true");
  if (take({"ignore_watch", "watch_ignore"}))
    note("ignore_watch",
         "set `watcher.skip` at the top level; it takes globs such as "
         "\"**/node_modules/**\"");
  if (take({"watch_delay"}))
    note("watch_delay", "set `watcher.interval` at the top level");
}

void application::logs() {
  members logger;
  if (const auto out =
          text({"out_file", "output", "out", "out_log", "log_file", "log"}))
    logger.emplace_back("stdout", json_of(*out));
  if (const auto error = text({"error_file", "error", "err", "err_log"}))
    logger.emplace_back("stderr", json_of(*error));
  if (!logger.empty())
    result_.set("logger", json_of(logger));
}

void application::rest() {
  for (const auto& member : x_.members()) {
    const auto key = member.key.string();
    if (std::find(taken_.begin(), taken_.end(), key) == taken_.end())
      into_.note(result_.origin + '.' + std::string{key},
                 "has no counterpart in pup");
  }
}

bool application::run() {
  if (x_.kind() != json_kind::object) {
    into_.note(result_.origin, "is no object and was left out");
    return false;
  }
  if (!command())
    return false;
  environment();
  instances();
  if (!env_.empty())
    result_.set("env", json_of(env_));
  restarts();
  stopping();
  account();
  watching();
  logs();
  rest();
  into_.processes.push_back(std::move(result_));
  return true;
}

}  // namespace

std::variant<imported, import_fault> import_pm2(const json_value& root,
                                                const std::string& file) {
  draft result;
  result.kind = "PM2";
  const auto applications = [&](const json_value& x, const std::string& path) {
    if (x.kind() != json_kind::array) {
      application{result, x, path}.run();
      return;
    }
    for (std::size_t i = 0; const auto& element : x.elements())
      application{result, element, element_path(path, i++)}.run();
  };
  if (root.kind() == json_kind::array) {
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
