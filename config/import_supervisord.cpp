// supervisord's .conf: an INI file with %(...)s in its values.
#include "pup/config/expand.hpp"
#include "pup/config/import_draft.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <array>

namespace pup::importing {

namespace {

struct entry {
  std::string key;
  std::string value;
};

struct section {
  std::string name;  // "program:web"
  std::vector<entry> entries;

  const std::string* find(std::string_view key) const {
    for (const auto& x : entries)
      if (x.key == key)
        return &x.value;
    return nullptr;
  }
};

// Sections that say how supervisord itself is reached.
constexpr std::array<std::string_view, 4> own_sections{
    "unix_http_server", "supervisorctl", "rpcinterface:supervisor",
    "supervisord"};

// Keys of a program that pup needs no word for: groups are always signalled as
// a whole, and start and end of a process are decided otherwise.
constexpr std::array<std::string_view, 6> needless{
    "process_name", "stopasgroup", "killasgroup",
    "startsecs",    "priority",    "numprocs_start"};

std::variant<std::vector<section>, import_fault> read_ini(
    std::string_view text) {
  std::vector<section> result;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const auto indented = line.starts_with(' ') || line.starts_with('\t');
    if (line.starts_with(';') || line.starts_with('#'))
      continue;
    if (const auto comment = line.find(" ;"); comment != std::string_view::npos)
      line = line.substr(0, comment);
    line = trimmed(line);
    if (line.empty() || line.front() == ';')
      continue;
    if (line.front() == '[') {
      if (!line.ends_with(']'))
        return import_fault{number, quote(line) + " has no closing ]",
                            "close it"};
      result.push_back(
          {std::string{trimmed(line.substr(1, line.size() - 2))}, {}});
      continue;
    }
    if (result.empty())
      return import_fault{number, quote(line) + " stands before any [section]",
                          "name a supervisord .conf"};
    auto& entries = result.back().entries;
    const auto equals = line.find_first_of("=:");
    if (indented && !entries.empty()) {
      entries.back().value.append("\n").append(line);
    } else if (equals == std::string_view::npos) {
      return import_fault{number, quote(line) + " is not \"key=value\"",
                          "correct it first"};
    } else {
      std::string key{trimmed(line.substr(0, equals))};
      entries.push_back({key, std::string{trimmed(line.substr(equals + 1))}});
    }
  }
  return result;
}

class program {
public:
  program(draft& into, const section& from,
          const std::map<std::string, std::string>& shared)
      : into_(into), from_(from), env_(shared) {
    result_.origin = '[' + from.name + ']';
    result_.id = from.name.substr(from.name.find(':') + 1);
  }

  void run();

private:
  std::optional<std::string> text(std::string_view key);
  std::optional<std::int64_t> number(std::string_view key);
  bool truth(std::string_view key, bool otherwise);
  std::string expanded(std::string_view key, std::string_view value);
  std::string placeholder(std::string_view key, std::string_view name);

  void command();
  void environment();
  void instances();
  void restarts();
  void stopping();
  void logs();
  void note(std::string_view key, std::string words) {
    into_.note(result_.origin + ' ' + std::string{key}, std::move(words));
  }

  draft& into_;
  const section& from_;
  draft_process result_;
  std::map<std::string, std::string> env_;
  std::vector<std::string_view> taken_{needless.begin(), needless.end()};
};

std::optional<std::string> program::text(std::string_view key) {
  taken_.push_back(key);
  const auto* value = from_.find(key);
  return value ? std::optional{*value} : std::nullopt;
}

std::optional<std::int64_t> program::number(std::string_view key) {
  const auto value = text(key);
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
  const auto value = text(key);
  if (!value)
    return otherwise;
  return *value == "true" || *value == "yes" || *value == "on" || *value == "1";
}

// %(ENV_HOME)s and its like, as pup writes them.
std::string program::placeholder(std::string_view key, std::string_view name) {
  if (name.starts_with("ENV_"))
    return "%{env:" + std::string{name.substr(4)} + '}';
  if (name == "program_name" || name == "group_name")
    return result_.id;
  if (name == "process_num" || name == "numprocs_start")
    return "%{index}";
  if (name == "here")
    return ".";
  note(key, "%(" + std::string{name} + ") has no counterpart");
  return {};
}

std::string program::expanded(std::string_view key, std::string_view value) {
  std::string result;
  while (!value.empty()) {
    const auto percent = value.find('%');
    result += escape_placeholders(value.substr(0, percent));
    if (percent == std::string_view::npos)
      break;
    value.remove_prefix(percent);
    const auto end = value.find(')');
    if (value.starts_with("%(") && end != std::string_view::npos) {
      // The conversion behind it: s, d or 02d. A padded number loses its zeros.
      auto tail = value.find_first_of("sd", end);
      if (tail == std::string_view::npos)
        tail = end;
      else if (tail > end + 1)
        note(key, "the number is written without leading zeros");
      result += placeholder(key, value.substr(2, end - 2));
      value.remove_prefix(tail + 1);
    } else {
      // %% is a %, and a lone one stays one.
      value.remove_prefix(value.starts_with("%%") ? 2 : 1);
      result += value.starts_with("{") ? "%{%}" : "%";
    }
  }
  return result;
}

void program::command() {
  const auto command = text("command").value_or("");
  const auto words = split_words(command);
  std::vector<std::string> argv;
  if (words)
    for (const auto& word : *words)
      argv.push_back(expanded("command", word));
  result_.set("cmd", json_of(argv));
  if (const auto folder = text("directory"))
    result_.set("cwd", json_of(expanded("directory", *folder)));
}

// KEY="value",KEY2=value2
void program::environment() {
  const auto list = text("environment").value_or("");
  std::string_view left = list;
  while (!trimmed(left).empty()) {
    const auto equals = left.find('=');
    if (equals == std::string_view::npos) {
      note("environment", quote(left) + " is not KEY=value");
      break;
    }
    std::string name{trimmed(left.substr(0, equals))};
    left.remove_prefix(equals + 1);
    char quoted = '\0';
    std::size_t end = 0;
    for (; end < left.size() && (quoted != '\0' || left[end] != ','); ++end)
      if (left[end] == '"' || left[end] == '\'')
        quoted = quoted == '\0'        ? left[end]
                 : quoted == left[end] ? '\0'
                                       : quoted;
    auto value = trimmed(left.substr(0, end));
    if (value.size() >= 2 && (value[0] == '"' || value[0] == '\'')
        && value.back() == value[0])
      value = value.substr(1, value.size() - 2);
    env_[name] = expanded("environment", value);
    left.remove_prefix(std::min(end + 1, left.size()));
  }
  if (!env_.empty())
    result_.set("env", json_of(env_));
}

void program::instances() {
  const auto count = number("numprocs").value_or(1);
  if (count == 1)
    return;
  result_.is_cluster = true;
  result_.set(
      "cluster",
      json_of(members{
          {"instances", std::to_string(std::min<std::int64_t>(count, 1024))}}));
  if (from_.find("numprocs_start"))
    note("numprocs_start", "%{index} counts from 0");
}

void program::restarts() {
  if (!truth("autostart", true))
    result_.set("autostart", "false");
  const auto restart = text("autorestart").value_or("unexpected");
  if (restart == "unexpected")
    result_.set("restart", json_of("error"));
  else if (!truth("autorestart", true))
    result_.set("restart", json_of("never"));
  if (const auto limit = number("startretries"))
    result_.set("restartLimit",
                std::to_string(std::min<std::int64_t>(*limit, 1'000'000)));
  if (const auto codes = text("exitcodes")) {
    std::string list;
    for (std::string_view left = *codes; !left.empty();) {
      const auto end = std::min(left.find(','), left.size());
      if (const auto code = whole_number(trimmed(left.substr(0, end))))
        list += (list.empty() ? "" : ", ") + std::to_string(*code);
      left.remove_prefix(std::min(end + 1, left.size()));
    }
    result_.set("successExitCodes", '[' + list + ']');
  }
}

void program::stopping() {
  if (const auto signal = text("stopsignal")) {
    if (*signal == "KILL" || *signal == "SIGKILL" || *signal == "9") {
      result_.set("terminateTimeout", "0");
      note("stopsignal", "KILL became SIGTERM, followed by SIGKILL at once");
    } else {
      result_.set("stopSignal", json_of(*signal));
    }
  }
  if (const auto s = number("stopwaitsecs"))
    result_.set("terminateTimeout", std::to_string(*s));
  for (const auto key : {"user", "umask"})
    if (const auto x = text(key))
      result_.set(key, json_of(*x));
}

void program::logs() {
  members logger;
  for (const auto& [theirs, ours] : {std::pair{"stdout_logfile", "stdout"},
                                     std::pair{"stderr_logfile", "stderr"}}) {
    const auto file = text(theirs);
    if (file && *file != "AUTO" && *file != "NONE"
        && !file->starts_with("/dev/"))
      logger.emplace_back(ours, json_of(expanded(theirs, *file)));
  }
  truth("redirect_stderr", false);
  if (!logger.empty())
    result_.set("logger", json_of(logger));
}

void program::run() {
  if (!from_.find("command"))
    return into_.note(result_.origin, "has no command and was left out");
  command();
  environment();
  instances();
  restarts();
  stopping();
  logs();
  for (const auto& x : from_.entries)
    if (std::find(taken_.begin(), taken_.end(), x.key) == taken_.end())
      note(x.key, "has no counterpart in pup");
  into_.processes.push_back(std::move(result_));
}

std::int64_t priority_of(const section& x) {
  const auto* value = x.find("priority");
  return value ? whole_number(*value).value_or(999) : 999;
}

}  // namespace

std::variant<imported, import_fault> import_supervisord(
    std::string_view text, const std::string& file) {
  auto read = read_ini(text);
  if (const auto* fault = std::get_if<import_fault>(&read))
    return *fault;
  auto& sections = std::get<std::vector<section>>(read);
  draft result;
  result.kind = "supervisord";
  // The lower, the earlier; equal ones in the order of the file.
  std::stable_sort(sections.begin(), sections.end(),
                   [](const section& a, const section& b) {
                     return priority_of(a) < priority_of(b);
                   });
  for (const auto& x : sections) {
    if (x.name == "supervisord" && x.find("identifier"))
      result.name = *x.find("identifier");
    if (x.name.starts_with("program:")) {
      program{result, x, {}}.run();
    } else if (x.name.starts_with("group:")) {
      result.note('[' + x.name + ']',
                  "is left out: name its programs by a glob, or use `groups`");
    } else if (x.name == "include") {
      const auto* files = x.find("files");
      result.note("[include]", "is not followed; import these as well: "
                                   + (files ? *files : ""));
    } else if (std::find(own_sections.begin(), own_sections.end(), x.name)
               == own_sections.end()) {
      result.note('[' + x.name + ']', "has no counterpart in pup");
    }
    if (x.name == "supervisord" && x.find("environment"))
      result.note("[supervisord] environment",
                  "set these variables before pup starts");
  }
  if (result.processes.empty())
    return import_fault{1, "has no [program:...] with a command",
                        "name the file that has them"};
  return std::move(result).finish(file);
}

}  // namespace pup::importing
