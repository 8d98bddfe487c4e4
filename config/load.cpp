#include "pup/config/load.hpp"

#include "pup/config/expand.hpp"
#include "pup/config/json_text.hpp"
#include "pup/config/later.hpp"
#include "pup/config/reader.hpp"
#include "pup/config/rules.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <array>
#include <filesystem>

namespace pup {

namespace {

template <std::size_t N, std::size_t M>
constexpr auto join(const std::array<std::string_view, N>& a,
                    const std::array<std::string_view, M>& b) {
  std::array<std::string_view, N + M> result{};
  std::copy(a.begin(), a.end(), result.begin());
  std::copy(b.begin(), b.end(), result.begin() + N);
  return result;
}

using stray = std::pair<std::string_view, std::string_view>;

constexpr auto top_keys = join(
    std::array<std::string_view, 5>{"$schema", "name", "processes",
                                    "terminateTimeout", "terminateGracePeriod"},
    later_top_keys);

constexpr auto process_keys =
    join(std::array<std::string_view, 20>{"id",
                                          "cmd",
                                          "cwd",
                                          "env",
                                          "path",
                                          "autostart",
                                          "restart",
                                          "restartDelayMs",
                                          "restartMaxDelayMs",
                                          "restartLimit",
                                          "restartPeriodMs",
                                          "terminateGracePeriod",
                                          "terminateTimeout",
                                          "stopSignal",
                                          "ready",
                                          "readyTimeoutMs",
                                          "successExitCodes",
                                          "noRestartExitCodes",
                                          "loadBalancerStrategy",
                                          "cluster"},
         later_process_keys);

constexpr auto cluster_keys = join(
    std::array<std::string_view, 11>{
        "instances", "startPort", "processStartPort", "commonPort",
        "commonHost", "strategy", "mode", "drainTimeoutMs", "maxConnections",
        "idleTimeoutMs", "connectTimeoutMs"},
    later_cluster_keys);

constexpr std::array<std::string_view, 4> ready_keys{"type", "path", "pattern",
                                                     "cmd"};

// Other process managers' words, and keys at the wrong level.
constexpr std::string_view into_processes =
    "move it into an entry of "
    "`processes`";
constexpr std::array<stray, 6> top_strays{{
    {"apps", "did you mean `processes`?"},
    {"programs", "did you mean `processes`?"},
    {"services", "did you mean `processes`?"},
    {"id", into_processes},
    {"cmd", into_processes},
    {"cluster", into_processes},
}};

constexpr std::string_view into_cluster = "move it into `cluster`";
constexpr std::array<stray, 18> process_strays{{
    {"name", "did you mean `id`?"},
    {"command", "did you mean `cmd`?"},
    {"script", "did you mean `cmd`?"},
    {"exec", "did you mean `cmd`?"},
    {"args", "put the arguments into `cmd`"},
    {"directory", "did you mean `cwd`?"},
    {"workingDirectory", "did you mean `cwd`?"},
    {"environment", "did you mean `env`?"},
    {"autorestart", "did you mean `restart`?"},
    {"instances", into_cluster},
    {"startPort", into_cluster},
    {"processStartPort", into_cluster},
    {"commonPort", into_cluster},
    {"commonHost", into_cluster},
    {"strategy", into_cluster},
    {"mode", into_cluster},
    {"drainTimeoutMs", into_cluster},
    {"healthCheck", into_cluster},
}};

constexpr std::string_view out_of_cluster = "move it out of `cluster`";
constexpr std::array<stray, 9> cluster_strays{{
    {"replicas", "did you mean `instances`?"},
    {"port", "did you mean `commonPort` or `startPort`?"},
    {"host", "did you mean `commonHost`?"},
    {"loadBalancerStrategy", "did you mean `strategy`?"},
    {"id", out_of_cluster},
    {"cmd", out_of_cluster},
    {"env", out_of_cluster},
    {"ready", out_of_cluster},
    {"restart", out_of_cluster},
}};

// The words of "strategy". The last is judged but not supported yet.
constexpr std::array<std::string_view, 6> strategy_words{
    "round-robin",       "source-ip-hash", "ip-hash",
    "least-connections", "random",         "least-time"};
constexpr std::array<balance_strategy, 5> strategies{
    balance_strategy::round_robin, balance_strategy::source_ip_hash,
    balance_strategy::source_ip_hash, balance_strategy::least_connections,
    balance_strategy::random};

constexpr std::string_view command_example =
    "write [\"program\", \"argument\"] or a shell command";

// `path` seen from `folder`, without "." and ".." and a last slash.
std::string absolute(const std::string& path, const std::string& folder) {
  auto result =
      (std::filesystem::path{folder} / path).lexically_normal().string();
  while (result.size() > 1 && result.ends_with('/'))
    result.pop_back();
  return result;
}

class loader {
public:
  loader(std::string_view text, const std::string& file,
         const std::string& folder, const world& machine)
      : in_(text, file), folder_(folder), machine_(machine) {}

  load_result run(const json_tree& tree);

private:
  void top(const spot& x);
  void processes(const spot& x, const process_spec& defaults);
  process_spec process(const spot& x, const process_spec& defaults,
                       std::size_t index);
  void required_parts(const spot& x, const fields& parts, process_spec& into);
  void command(const spot& x, process_spec& into);
  void folders(const fields& parts, process_spec& into);
  void search_path(const spot& x, process_spec& into);
  void environment(const spot& x, process_spec& into);
  void restarts(const fields& parts, process_spec& into);
  void exit_codes(const spot& x, std::vector<int>& into);
  void stop_signal(const spot& x, process_spec& into);
  void readiness(const spot& x, process_spec& into);
  cluster_spec cluster(const spot& x);
  void cluster_counts(const fields& parts, cluster_spec& into);
  void cluster_ports(const spot& x, const fields& parts, cluster_spec& into);
  void cluster_mode(const spot& x);
  std::optional<balance_strategy> strategy(const spot& x);
  void old_strategy(const spot& x, const fields& parts, process_spec& into);
  std::optional<std::string> template_text(const spot& x);
  void machine_rules(const fields& parts, const process_spec& x);
  template <class Spec, class Table>
  void durations(const fields& parts, const Table& table, Spec& into);

  reader in_;
  const std::string& folder_;
  const world& machine_;
  pup_spec spec_;
  dependency_graph dependencies_;
};

load_result loader::run(const json_tree& tree) {
  top({json_value{tree, 0}, "", 0});
  for (auto& x : broken_rules(spec_))
    in_.blame(x);
  dependencies_.judge(in_, spec_);
  if (in_.faults() > 0)
    return in_.take();
  return std::move(spec_);
}

void loader::top(const spot& x) {
  auto parts = in_.object(x,
                          {"the configuration", top_keys, top_strays,
                           top_keys.size() - later_top_keys.size()},
                          "write {\"processes\": [...]}");
  if (!parts) {
    // Nothing else can be said about a file that is no object.
    spec_.processes.clear();
    in_.spoil("processes");
    return;
  }
  if (auto schema = parts->find("$schema"))
    in_.text(*schema);
  if (auto name = parts->find("name"))
    spec_.name = in_.text(*name).value_or(spec_.name);
  process_spec defaults;
  for (auto& key : process_durations)
    if (key.seconds)
      if (auto time = parts->find(key.key))
        defaults.*key.member = in_.duration(*time, key.seconds, key.least)
                                   .value_or(defaults.*key.member);
  refuse_later_top_keys(in_, *parts);
  if (auto list =
          in_.required(x, *parts, "processes", "add \"processes\": [...]"))
    processes(*list, defaults);
}

void loader::processes(const spot& x, const process_spec& defaults) {
  auto entries = in_.array(x, "write [{\"id\": ..., \"cmd\": [...]}]");
  if (!entries)
    return;
  if (entries->size() > bounds::processes) {
    in_.blame(x,
              "has " + std::to_string(entries->size()) + " entries, more than "
                  + std::to_string(bounds::processes),
              "split it into several configurations");
    return;
  }
  for (std::size_t i = 0; i < entries->size(); ++i)
    spec_.processes.push_back(process((*entries)[i], defaults, i));
}

process_spec loader::process(const spot& x, const process_spec& defaults,
                             std::size_t index) {
  auto result = defaults;
  auto parts = in_.object(x,
                          {"a process", process_keys, process_strays,
                           process_keys.size() - later_process_keys.size()},
                          "write {\"id\": ..., \"cmd\": [...]}");
  if (!parts)
    return result;
  required_parts(x, *parts, result);
  folders(*parts, result);
  if (auto env = parts->find("env"))
    environment(*env, result);
  restarts(*parts, result);
  if (auto entry = parts->find("cluster"))
    result.cluster = cluster(*entry);
  if (auto word = parts->find("loadBalancerStrategy"))
    old_strategy(*word, *parts, result);
  if (result.cluster && result.cluster->start_port != 0)
    result.ready = ready_condition::port;
  if (auto ready = parts->find("ready"))
    readiness(*ready, result);
  refuse_later_process_keys(in_, *parts);
  if (auto depends_on = parts->find("dependsOn"))
    dependencies_.add(in_, index, *depends_on);
  machine_rules(*parts, result);
  return result;
}

void loader::required_parts(const spot& x, const fields& parts,
                            process_spec& into) {
  if (auto id = in_.required(x, parts, "id", "add an id such as \"web\""))
    into.id = in_.text(*id).value_or("");
  if (auto cmd = in_.required(x, parts, "cmd",
                              "add a command such as [\"node\", \"app.js\"]"))
    command(*cmd, into);
}

// %{...} judged and %{env:NAME} replaced.
std::optional<std::string> loader::template_text(const spot& x) {
  auto text = in_.text(x);
  if (!text)
    return text;
  auto use = find_placeholders(*text);
  if (!use.problem.empty()) {
    in_.blame(x, use.problem, use.remedy);
    return std::nullopt;
  }
  if (!use.variable)
    return text;
  std::string missing;
  auto result = expand_variables(*text, machine_.variable, missing);
  if (!result)
    in_.blame(x, "variable " + quote(missing) + " is not set",
              "set it before pup starts, or write the value");
  return result;
}

void loader::command(const spot& x, process_spec& into) {
  if (x.value.kind() == json_kind::string) {
    into.shell = true;
    into.argv = {"/bin/sh", "-c", std::string{x.value.string()}};
    return;
  }
  if (x.value.kind() != json_kind::array) {
    in_.blame(x, describe(x.value) + " is not a command",
              std::string{command_example});
    return;
  }
  auto arguments = in_.array(x, std::string{command_example});
  // A bad one keeps its place, so that the others keep theirs.
  for (auto& argument : *arguments)
    into.argv.push_back(template_text(argument).value_or("?"));
}

void loader::folders(const fields& parts, process_spec& into) {
  if (auto cwd = parts.find("cwd")) {
    auto text = template_text(*cwd);
    if (text && text->empty())
      in_.blame(*cwd, "is empty", "name a folder or remove it");
    else if (text)
      into.cwd = absolute(*text, escape_placeholders(folder_));
  }
  if (auto path = parts.find("path"))
    search_path(*path, into);
}

void loader::search_path(const spot& x, process_spec& into) {
  auto text = in_.text(x);
  if (!text)
    return;
  std::string result;
  for (std::size_t begin = 0; begin <= text->size();) {
    auto end = std::min(text->find(':', begin), text->size());
    if (begin == end) {
      in_.blame(x, text->empty() ? "is empty" : "has an empty entry",
                text->empty() ? "name a folder or remove it"
                              : "remove the extra colon");
      return;
    }
    auto entry = absolute(text->substr(begin, end - begin), folder_);
    if (entry.find(':') != std::string::npos) {
      in_.blame(x, quote(entry) + " holds a colon, which separates entries",
                "name a folder without a colon");
      return;
    }
    result += (begin > 0 ? ":" : "") + entry;
    begin = end + 1;
  }
  into.path = result;
}

void loader::environment(const spot& x, process_spec& into) {
  auto variables = in_.object(x, "write an object such as {\"LANG\": \"C\"}");
  if (!variables)
    return;
  for (auto& [name, value] : variables->all())
    if (auto text = template_text(value))
      into.env.emplace(name, *text);
}

template <class Spec, class Table>
void loader::durations(const fields& parts, const Table& table, Spec& into) {
  for (auto& key : table)
    if (auto x = parts.find(key.key))
      into.*key.member =
          in_.duration(*x, key.seconds, key.least).value_or(into.*key.member);
}

void loader::restarts(const fields& parts, process_spec& into) {
  // In the order of restart_policy.
  static constexpr std::array<std::string_view, 3> policies{"always", "error",
                                                            "never"};
  durations(parts, process_durations, into);
  if (auto x = parts.find("autostart"))
    into.autostart = in_.boolean(*x).value_or(into.autostart);
  if (auto x = parts.find("restart"))
    if (auto policy = in_.choice(*x, policies, "a restart policy"))
      into.restart = static_cast<restart_policy>(*policy);
  if (auto x = parts.find("restartLimit"))
    if (auto limit = in_.whole(*x, 0, bounds::restarts, "a number of restarts"))
      into.restart_limit = static_cast<std::uint32_t>(*limit);
  if (auto x = parts.find("successExitCodes"))
    exit_codes(*x, into.success_exit_codes);
  if (auto x = parts.find("noRestartExitCodes"))
    exit_codes(*x, into.no_restart_exit_codes);
  if (auto x = parts.find("stopSignal"))
    stop_signal(*x, into);
}

void loader::exit_codes(const spot& x, std::vector<int>& into) {
  auto codes = in_.array(x, "write an array of numbers, such as [0]");
  if (!codes)
    return;
  into.clear();
  for (auto& code : *codes)
    if (auto number = in_.whole(code, 0, 255, "an exit code"))
      into.push_back(static_cast<int>(*number));
}

void loader::stop_signal(const spot& x, process_spec& into) {
  constexpr std::string_view prefix = "SIG";
  std::array<std::string_view, stop_signals.size()> names{};
  std::transform(stop_signals.begin(), stop_signals.end(), names.begin(),
                 [](auto& signal) { return signal.name; });
  if (x.value.kind() == json_kind::string) {
    auto name = x.value.string();
    for (auto& signal : stop_signals) {
      if (name == signal.name || name == signal.name.substr(prefix.size())) {
        into.stop_signal = signal.number;
        return;
      }
    }
    for (auto fatal : {"SIGKILL", "KILL", "SIGSTOP", "STOP"}) {
      if (name == fatal) {
        in_.blame(x, describe(x.value) + " gives a process no chance to stop",
                  "use \"SIGTERM\", SIGKILL follows after terminateTimeout");
        return;
      }
    }
    if (auto near = nearest(name, names)) {
      in_.blame(x, describe(x.value) + " is not a signal to stop with",
                "did you mean " + quote(*near, '"') + '?');
      return;
    }
  }
  in_.blame(x, describe(x.value) + " is not a signal to stop with",
            "use " + enumerate(names, '"'));
}

void loader::readiness(const spot& x, process_spec& into) {
  static constexpr std::array<std::string_view, 7> types{
      "port", "spawn", "http", "notify", "fd", "log", "exec"};
  auto parts =
      in_.object(x, {"`ready`", ready_keys, {}}, "write {\"type\": \"port\"}");
  if (!parts)
    return;
  auto type = in_.required(x, *parts, "type", "add \"port\" or \"spawn\"");
  if (!type)
    return;
  auto word = in_.choice(*type, types, "a kind of readiness", 2);
  if (!word)
    return;
  if (*word > 1) {
    in_.blame(*type, quote(types[*word]) + " is not supported yet",
              "use \"port\" or \"spawn\"");
    return;
  }
  into.ready = *word == 0 ? ready_condition::port : ready_condition::spawn;
  for (auto& [key, part] : parts->all())
    if (key != "type")
      in_.blame_key(part, "has no effect with type " + quote(types[*word], '"'),
                    "remove it");
}

// -- cluster ------------------------------------------------------------------

cluster_spec loader::cluster(const spot& x) {
  cluster_spec result;
  auto parts = in_.object(x,
                          {"a cluster", cluster_keys, cluster_strays,
                           cluster_keys.size() - later_cluster_keys.size()},
                          "write {\"instances\": 2}");
  if (!parts)
    return result;
  cluster_counts(*parts, result);
  cluster_ports(x, *parts, result);
  durations(*parts, cluster_durations, result);
  if (auto word = parts->find("strategy"))
    result.strategy = strategy(*word).value_or(result.strategy);
  if (auto mode = parts->find("mode"))
    cluster_mode(*mode);
  refuse_later_cluster_keys(in_, *parts);
  return result;
}

void loader::cluster_counts(const fields& parts, cluster_spec& into) {
  if (auto x = parts.find("instances")) {
    if (x->value.kind() == json_kind::string && x->value.string() == "max")
      into.instances =
          std::clamp(machine_.processors, std::uint32_t{1}, bounds::instances);
    else if (auto count = in_.whole(*x, 0, bounds::instances,
                                    "a number of instances", " or \"max\""))
      into.instances = static_cast<std::uint32_t>(*count);
  }
  if (auto x = parts.find("maxConnections"))
    if (auto count =
            in_.whole(*x, 0, bounds::connections, "a number of connections"))
      into.max_connections = static_cast<std::uint32_t>(*count);
}

void loader::cluster_ports(const spot& x, const fields& parts,
                           cluster_spec& into) {
  auto port = [this, &parts](std::string_view key) {
    auto value = parts.find(key);
    auto number = value ? in_.whole(*value, 1, 65535, "a port") : std::nullopt;
    return static_cast<std::uint16_t>(number.value_or(0));
  };
  into.common_port = port("commonPort");
  into.start_port = port("startPort");
  if (auto other = parts.find("processStartPort")) {
    auto number = port("processStartPort");
    if (!parts.find("startPort")) {
      into.start_port = number;
      in_.alias(x.path + ".startPort", *other);
    } else if (number != 0 && into.start_port != 0
               && number != into.start_port) {
      in_.blame(*other,
                std::to_string(number) + " contradicts startPort "
                    + std::to_string(into.start_port),
                "keep one of them");
    }
  }
  if (auto host = parts.find("commonHost")) {
    into.common_host = in_.text(*host).value_or("");
    if (in_.is_sound(host->path) && into.common_host.empty())
      in_.blame(*host, "is empty", "remove it to listen on all addresses");
  }
}

void loader::cluster_mode(const spot& x) {
  static constexpr std::array<std::string_view, 2> modes{"proxy", "inherit"};
  if (in_.choice(x, modes, "a mode", 1) == std::size_t{1})
    in_.blame(x, "`inherit` is not supported yet", "use \"proxy\"");
}

std::optional<balance_strategy> loader::strategy(const spot& x) {
  auto word = in_.choice(x, strategy_words, "a strategy", strategies.size());
  if (!word)
    return std::nullopt;
  if (*word >= strategies.size()) {
    in_.blame(x, quote(strategy_words[*word]) + " is not supported yet",
              "use \"least-connections\"");
    return std::nullopt;
  }
  return strategies[*word];
}

// "loadBalancerStrategy", beside the cluster or instead of its "strategy".
void loader::old_strategy(const spot& x, const fields& parts,
                          process_spec& into) {
  auto wanted = strategy(x);
  auto entry = parts.find("cluster");
  if (!entry) {
    in_.blame_key(x, "has no effect without a cluster",
                  "add `cluster` or remove it");
    return;
  }
  if (!wanted || !into.cluster || entry->value.kind() != json_kind::object)
    return;
  auto path = entry->path + ".strategy";
  bool given = false;
  for (auto& member : entry->value.members())
    given = given || member.key.string() == "strategy";
  if (!given)
    into.cluster->strategy = *wanted;
  else if (in_.is_sound(path) && into.cluster->strategy != *wanted)
    in_.blame(x,
              describe(x.value) + " contradicts cluster.strategy "
                  + quote(to_string(into.cluster->strategy), '"'),
              "keep one of them");
}

// -- the machine --------------------------------------------------------------

void loader::machine_rules(const fields& parts, const process_spec& x) {
  auto cwd_spot = parts.find("cwd");
  auto cwd_use = find_placeholders(x.cwd);
  auto cwd = expand(x.cwd, 0, 0, {});
  if (cwd_spot && !x.cwd.empty() && !cwd_use.per_instance()
      && cwd.find('\0') == std::string::npos) {
    auto why = machine_.folder_problem(cwd);
    if (!why.empty())
      in_.blame(*cwd_spot, quote(cwd) + ": " + why,
                "create it or name another folder");
  }
  auto cmd_spot = parts.find("cmd");
  if (!cmd_spot || x.shell || x.argv.empty() || cwd_use.per_instance()
      || find_placeholders(x.argv[0]).per_instance())
    return;
  auto program = expand(x.argv[0], 0, 0, {});
  auto program_path = element_path(cmd_spot->path, 0);
  bool is_path = program.find('/') != std::string::npos;
  // With a PATH of its own, or in a folder that is not there, the machine
  // would answer another question.
  if (program.empty() || program.find('\0') != std::string::npos
      || !in_.is_sound(program_path) || (!is_path && x.env.count("PATH") > 0)
      || (cwd_spot && !in_.is_sound(cwd_spot->path))
      || x.path.find('\0') != std::string::npos)
    return;
  auto why = machine_.program_problem(program, x.path, cwd);
  if (!why.empty())
    in_.blame(cmd_spot->value.elements().front().offset(), program_path,
              quote(program) + " cannot be run: " + why,
              is_path ? "correct its path or make it executable"
                      : "install it, or add its folder to `path`");
}

}  // namespace

std::string to_string(const diagnostic& x) {
  auto result = x.file + ':' + std::to_string(x.line) + ':'
                + std::to_string(x.column) + ": ";
  if (!x.path.empty())
    result += x.path + ": ";
  return result + x.problem + "; " + x.remedy;
}

load_result load(std::string_view text, const std::string& file,
                 const std::string& folder, const world& machine) {
  auto parsed = parse_json(text);
  if (auto fault = std::get_if<text_fault>(&parsed)) {
    auto [line, column] = line_table{text}.at(fault->offset);
    return std::vector<diagnostic>{
        {file, line, column, "", fault->problem, fault->remedy}};
  }
  return loader{text, file, folder, machine}.run(std::get<json_tree>(parsed));
}

std::vector<std::string> check(const pup_spec& spec) {
  std::vector<std::string> result;
  for (auto& x : broken_rules(spec))
    result.push_back(x.path + ": " + x.problem + "; " + x.remedy);
  return result;
}

}  // namespace pup
