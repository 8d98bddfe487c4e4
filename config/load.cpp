#include "pup/config/load.hpp"

#include "pup/config/attributes.hpp"
#include "pup/config/cluster.hpp"
#include "pup/config/expand.hpp"
#include "pup/config/json_text.hpp"
#include "pup/config/later.hpp"
#include "pup/config/life.hpp"
#include "pup/config/logger.hpp"
#include "pup/config/paths.hpp"
#include "pup/config/reader.hpp"
#include "pup/config/relations.hpp"
#include "pup/config/rules.hpp"
#include "pup/config/watcher.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <array>
#include <utility>

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

constexpr auto top_keys =
    join(join(std::array<std::string_view, 8>{"$schema", "name", "processes",
                                              "logger", "watcher", "ipc",
                                              "terminateTimeout",
                                              "terminateGracePeriod"},
              relation_top_keys),
         later_top_keys);

constexpr auto process_keys =
    join(std::array<std::string_view, 24>{"id",
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
                                          "startLimit",
                                          "terminateGracePeriod",
                                          "terminateTimeout",
                                          "stopSignal",
                                          "readyTimeoutMs",
                                          "watchdogMs",
                                          "timeout",
                                          "maxAgeMs",
                                          "successExitCodes",
                                          "noRestartExitCodes",
                                          "loadBalancerStrategy",
                                          "cluster",
                                          "logger"},
         join(life_keys, join(attribute_keys, relation_process_keys)));

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

class loader {
public:
  loader(std::string_view text, const std::string& file,
         const std::string& folder, const world& machine)
      : in_(text, file), folder_(folder), machine_(machine) {}

  load_result run(const json_tree& tree);

private:
  void top(const spot& x);
  void processes(const spot& x, const process_spec& defaults);
  process_spec process(const spot& x, const process_spec& defaults);
  void required_parts(const spot& x, const fields& parts, process_spec& into);
  void folders(const fields& parts, process_spec& into);
  void search_path(const spot& x, process_spec& into);
  void environment(const spot& x, process_spec& into);
  void restarts(const fields& parts, process_spec& into);
  void exit_codes(const spot& x, std::vector<int>& into);
  void stop_signal(const spot& x, process_spec& into);
  void ipc(const spot& x);
  std::string absolute(const std::string& path,
                       const std::string& folder) const {
    return absolute_path(path, folder, machine_.is_link);
  }
  std::optional<std::string> template_text(
      const spot& x,
      placeholder_use (*find)(std::string_view) = find_placeholders);
  path_reader log_paths();
  void machine_rules(const fields& parts, const process_spec& x);

  reader in_;
  life_reader life() {
    return {in_, [this](const spot& x) { return template_text(x); },
            [this](const std::string& name) {
              return machine_.time_zone_problem
                         ? machine_.time_zone_problem(name)
                         : std::pair<std::string, std::string>{};
            },
            [this](const std::string& pattern) {
              return machine_.pattern_problem
                         ? machine_.pattern_problem(pattern)
                         : std::string{};
            },
            [this](const spot& x) -> std::optional<std::string> {
              auto text = in_.text(x);
              return text ? std::optional{absolute(*text, folder_)} : text;
            }};
  }

  const std::string& folder_;
  const world& machine_;
  std::size_t room_ = bounds::expanded_bytes;  // for values of variables
  pup_spec spec_;
};

load_result loader::run(const json_tree& tree) {
  top({json_value{tree, 0}, "", 0});
  for (auto& x : broken_rules(spec_))
    in_.blame(x);
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
  spec_.source.value = fingerprint(x.value);
  process_spec defaults;
  for (auto& key : process_durations)
    if (key.seconds)
      if (auto time = parts->find(key.key))
        defaults.*key.member = in_.duration(*time, key.seconds, key.least)
                                   .value_or(defaults.*key.member);
  if (auto logger = parts->find("logger"))
    read_logger(in_, *logger, log_paths(), spec_.logger);
  defaults.output = spec_.logger.output;
  if (auto roles = parts->find("ipc"))
    ipc(*roles);
  if (auto watcher = parts->find("watcher"))
    read_watcher(in_, *watcher, spec_.watcher);
  defaults.watcher = spec_.watcher;
  read_top_relations(in_, *parts, spec_);
  refuse_later_top_keys(in_, *parts);
  if (auto list =
          in_.required(x, *parts, "processes", "add \"processes\": [...]"))
    processes(*list, defaults);
}

void loader::ipc(const spot& x) {
  static constexpr std::array<std::string_view, 1> keys{"readers"};
  auto parts = in_.object(x, {"the ipc object", keys, {}},
                          "write {\"readers\": \"GROUP\"}");
  auto readers = parts ? parts->find("readers") : std::nullopt;
  if (!readers)
    return;
  spec_.readers = in_.text(*readers).value_or("");
  if (!in_.is_sound(readers->path))
    return;
  if (spec_.readers.empty())
    return in_.blame(*readers, "is empty", "name a group or remove it");
  group_number(in_, machine_, *readers, spec_.readers);
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
    spec_.processes.push_back(process((*entries)[i], defaults));
}

process_spec loader::process(const spot& x, const process_spec& defaults) {
  auto result = defaults;
  auto parts = in_.object(x, {"a process", process_keys, process_strays},
                          "write {\"id\": ..., \"cmd\": [...]}");
  if (!parts)
    return result;
  result.source.value = fingerprint(x.value);
  required_parts(x, *parts, result);
  folders(*parts, result);
  if (auto env = parts->find("env"))
    environment(*env, result);
  restarts(*parts, result);
  if (auto entry = parts->find("cluster"))
    result.cluster = cluster_reader{in_, machine_}.read(*entry);
  if (auto word = parts->find("loadBalancerStrategy"))
    cluster_reader{in_, machine_}.old_strategy(*word, *parts, result);
  life().read(*parts, result);
  if (auto logger = parts->find("logger"))
    read_process_logger(in_, *logger, log_paths(), result.output);
  attribute_reader{in_, machine_,
                   [this](const spot& y) { return template_text(y); },
                   [this](const std::string& text) {
                     return absolute(text, escape_placeholders(folder_));
                   }}
      .read(*parts, result);
  read_relations(in_, *parts, result);
  machine_rules(*parts, result);
  return result;
}

void loader::required_parts(const spot& x, const fields& parts,
                            process_spec& into) {
  if (auto id = in_.required(x, parts, "id", "add an id such as \"web\""))
    into.id = in_.text(*id).value_or("");
  if (auto cmd = in_.required(x, parts, "cmd",
                              "add a command such as [\"node\", \"app.js\"]"))
    life().command(*cmd, into.argv, into.shell);
}

// %{...} judged and %{env:NAME} replaced.
std::optional<std::string> loader::template_text(
    const spot& x, placeholder_use (*find)(std::string_view)) {
  auto text = in_.text(x);
  if (!text)
    return text;
  auto use = find(*text);
  if (!use.problem.empty()) {
    in_.blame(x, use.problem, use.remedy);
    return std::nullopt;
  }
  if (!use.variable)
    return text;
  std::string missing;
  auto result =
      room_ == 0 ? std::nullopt
                 : expand_variables(*text, machine_.variable, room_, missing);
  room_ -= result ? result->size() : 0;
  if (!result && missing.empty()) {
    room_ = 0;
    in_.blame(x,
              "texts with values of variables are larger than "
                  + std::to_string(bounds::expanded_bytes >> 20)
                  + " MiB, all together",
              "use fewer, or shorter values");
  } else if (!result)
    in_.blame(x, "variable " + quote(missing) + " is not set",
              "set it before pup starts, or write the value");
  return result;
}

path_reader loader::log_paths() {
  return [this](const spot& x) -> std::optional<std::string> {
    auto text = template_text(x);
    if (!text)
      return std::nullopt;
    return absolute(*text, escape_placeholders(folder_));
  };
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
  // Values are secrets: no fault shows one.
  for (auto& [name, value] : variables->all()) {
    if (value.value.kind() != json_kind::string)
      in_.blame(value, "is not a string", "write text in double quotes");
    else if (auto text = template_text(value, find_placeholders_of_secret))
      into.env.emplace(name, *text);
  }
}

void loader::restarts(const fields& parts, process_spec& into) {
  // In the order of restart_policy.
  static constexpr std::array<std::string_view, 3> policies{"always", "error",
                                                            "never"};
  in_.durations(parts, process_durations, into);
  if (auto x = parts.find("autostart"))
    into.autostart = in_.boolean(*x).value_or(into.autostart);
  if (auto x = parts.find("restart"))
    if (auto policy = in_.choice(*x, policies, "a restart policy"))
      into.restart = static_cast<restart_policy>(*policy);
  if (auto x = parts.find("restartLimit"))
    if (auto limit = in_.whole(*x, 0, bounds::restarts, "a number of restarts"))
      into.restart_limit = static_cast<std::uint32_t>(*limit);
  if (auto x = parts.find("startLimit"))
    if (auto limit = in_.whole(*x, 0, bounds::restarts, "a number of starts"))
      into.start_limit = static_cast<std::uint32_t>(*limit);
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
  // Each once: there are 256, and lists of them are searched.
  std::array<bool, 256> known{};
  for (auto& code : *codes)
    if (auto number = in_.whole(code, 0, 255, "an exit code"))
      if (!std::exchange(known[static_cast<std::size_t>(*number)], true))
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
