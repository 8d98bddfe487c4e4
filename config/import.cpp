#include "pup/config/import.hpp"

#include "pup/config/expand.hpp"
#include "pup/config/import_draft.hpp"
#include "pup/config/plain_text.hpp"
#include "pup/config/rules.hpp"
#include "pup/config/spec.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <charconv>
#include <set>

namespace pup {

namespace importing {

namespace {

// Ports from here on are given to instances whose file names only one port for
// all: above the usual services, below Linux's range for clients (32768).
constexpr std::uint32_t first_free_port = 20'000;

bool is_id_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
         || (c >= '0' && c <= '9') || c == '@' || c == '.' || c == '_'
         || c == '-';
}

std::string valid_id(std::string_view wished) {
  std::string result;
  for (const auto c : wished.substr(0, bounds::id_length))
    result += is_id_char(c) ? c : '-';
  while (result.starts_with('-'))
    result.erase(0, 1);
  if (result.empty() || result == "all" || result == "." || result == "..")
    result = "process";
  return result;
}

// web-3, where web is a cluster: the name of an instance.
bool is_instance_of(std::string_view id, const std::set<std::string>& all) {
  const auto dash = id.rfind('-');
  return dash != std::string_view::npos && whole_number(id.substr(dash + 1))
         && all.count(std::string{id.substr(0, dash)}) > 0;
}

}  // namespace

void draft_process::set(std::string key, std::string json) {
  for (auto& [name, value] : keys) {
    if (name == key) {
      value = std::move(json);
      return;
    }
  }
  keys.emplace_back(std::move(key), std::move(json));
}

void draft_process::ready_after(std::int64_t ms) {
  if (ms <= 0)
    return;
  set("ready", json_of(members{{"type", json_of("exec")},
                               {"cmd", json_of(std::vector<std::string>{
                                           "/bin/sleep", seconds_of(ms)})}}));
  // Room for the sleep on a busy machine.
  constexpr std::int64_t usual_ms = 30'000;
  if (ms > usual_ms / 2)
    set("readyTimeoutMs", std::to_string(ms + usual_ms));
}

void draft::common_note(const std::string& subject, const std::string& text) {
  for (auto& x : common_) {
    if (x.text != text)
      continue;
    if (x.subjects.back() != subject)
      x.subjects.push_back(subject);
    return;
  }
  common_.push_back({text, {subject}});
}

void draft::tell_common() {
  constexpr std::size_t most_shown = 20;
  for (const auto& x : common_) {
    std::string subject;
    for (std::size_t i = 0; i < std::min(x.subjects.size(), most_shown); ++i)
      subject.append(i == 0 ? "" : ", ").append(x.subjects[i]);
    if (x.subjects.size() > most_shown)
      subject +=
          " and " + std::to_string(x.subjects.size() - most_shown) + " others";
    note(subject, x.text);
  }
}

void draft::no_counterpart(const std::string& origin, std::string_view key) {
  note(origin + (origin.empty() ? "" : ".") + std::string{key},
       "has no counterpart in pup");
}

void draft::choose_ids() {
  std::set<std::string> clusters;
  std::set<std::string> taken;
  for (const auto& x : processes)
    if (x.is_cluster)
      clusters.insert(valid_id(x.id));
  for (auto& x : processes) {
    const auto wished = valid_id(x.id);
    auto id = wished;
    if (is_instance_of(id, clusters))
      id[id.rfind('-')] = '_';
    for (auto n = 2; !taken.insert(id).second; ++n) {
      const auto suffix = '_' + std::to_string(n);
      id = wished.substr(0, bounds::id_length - suffix.size()) + suffix;
    }
    if (id != x.id)
      note(x.origin, quote(x.id) + " became " + quote(id)
                         + ": ids are unique, of A-Z a-z 0-9 @ . _ -, and not "
                           "those of a cluster's instances");
    x.id = id;
  }
}

// One port for all becomes the balancer's, and each instance gets its own.
void draft::choose_ports() {
  // More processors are rare, and their ports are then free all the same.
  constexpr std::uint32_t most_processors = 256;
  auto free = first_free_port;
  for (auto& x : processes) {
    if (!x.needs_ports || x.common_port == 0)
      continue;
    const auto count = x.one_per_processor ? most_processors : x.instances;
    const auto taken = [&](std::uint32_t begin) {
      return std::any_of(processes.begin(), processes.end(), [&](auto& y) {
        return y.common_port >= begin && y.common_port < begin + count;
      });
    };
    while (taken(free))
      ++free;
    x.set("cluster",
          json_of(members{
              {"instances", x.one_per_processor ? json_of("max")
                                                : std::to_string(x.instances)},
              {"startPort", std::to_string(free)},
              {"commonPort", std::to_string(x.common_port)}}));
    note(x.origin, "pup's balancer listens on " + std::to_string(x.common_port)
                       + "; each instance must listen on $PORT, from "
                       + std::to_string(free));
    // Room to grow, so that scaling does not meet the next cluster's ports.
    free += std::max(count * 2, std::uint32_t{64});
  }
}

imported draft::finish(const std::string& file) && {
  choose_ids();
  choose_ports();
  tell_common();
  std::string text = "// Made from " + shown(file) + " (" + kind + ").\n{\n";
  if (!name.empty())
    text += "  \"name\": " + json_of(valid_id(name)) + ",\n";
  for (const auto& [key, value] : top)
    text += "  " + json_of(key) + ": " + value + ",\n";
  text += "  \"processes\": [\n";
  for (const auto& x : processes) {
    text += "    {\n      \"id\": " + json_of(x.id);
    for (const auto& [key, value] : x.keys)
      text += ",\n      " + json_of(key) + ": " + value;
    text += "\n    }";
    text += &x == &processes.back() ? "\n" : ",\n";
  }
  return {text + "  ]\n}\n", std::move(notes)};
}

std::optional<std::vector<std::string>> split_words(std::string_view text) {
  std::vector<std::string> result;
  std::string word;
  bool begun = false;
  char quoted = '\0';
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = text[i];
    if (c == '\\' && quoted != '\'' && i + 1 < text.size()) {
      const auto next = text[i + 1];
      if (quoted == '"' && next != '"' && next != '\\')
        word += c;
      word += text[++i];
      begun = true;
    } else if (quoted != '\0') {
      if (c == quoted)
        quoted = '\0';
      else
        word += c;
    } else if (c == '"' || c == '\'') {
      quoted = c;
      begun = true;
    } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      if (begun)
        result.push_back(std::exchange(word, {}));
      begun = false;
    } else {
      word += c;
      begun = true;
    }
  }
  if (quoted != '\0')
    return std::nullopt;
  if (begun)
    result.push_back(word);
  return result;
}

std::vector<std::string> escaped(std::vector<std::string> words) {
  for (auto& x : words)
    if (x.find("%{") != std::string::npos)
      x = escape_placeholders(x);
  return words;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n\f\v";
  const auto begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos)
    return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t result = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, result);
  if (error != std::errc{} || stop != end)
    return std::nullopt;
  return result;
}

bool is_variable(std::string_view name) {
  return !name.empty() && !is_digit(name.front())
         && std::all_of(name.begin(), name.end(), [](char c) {
              return c == '_' || is_digit(c) || (c >= 'a' && c <= 'z')
                     || (c >= 'A' && c <= 'Z');
            });
}

std::string seconds_of(std::int64_t ms) {
  auto result = std::to_string(ms / 1'000);
  if (ms % 1'000 == 0)
    return result;
  auto rest = std::to_string(1'000 + ms % 1'000).substr(1);
  rest.erase(rest.find_last_not_of('0') + 1);
  return result + '.' + rest;
}

std::string shell_word(std::string_view text) {
  const auto is_plain = [](char c) {
    return is_id_char(c) || c == '/' || c == '+' || c == ',' || c == ':'
           || c == '=';
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain))
    return std::string{text};
  std::string result = "'";
  for (const auto c : text)
    result += c == '\'' ? "'\\''" : std::string(1, c);
  return result + '\'';
}

std::string stop_signal_of(std::string_view name) {
  std::string wanted;
  for (const auto c : trimmed(name))
    wanted += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  const auto number = whole_number(wanted);
  if (!wanted.starts_with("SIG"))
    wanted.insert(0, "SIG");
  for (const auto& x : stop_signals)
    if (x.name == wanted || x.number == number)
      return std::string{x.name};
  return {};
}

}  // namespace importing

namespace {

// The first line that says something, for telling the kind of a file.
std::string_view first_line(std::string_view text) {
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = importing::trimmed(text.substr(0, end));
    if (!line.empty() && line.front() != '#' && line.front() != ';')
      return line;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return {};
}

bool has_member(const json_value& x, std::string_view key) {
  if (x.kind() != json_kind::object)
    return false;
  for (const auto& member : x.members())
    if (member.key.string() == key)
      return true;
  return false;
}

constexpr std::string_view what_is_read =
    "name an ecosystem file, a supervisord .conf, a Procfile or a pup.json";

std::variant<imported, import_fault> import_json(
    std::string_view text, const std::string& file,
    const import_surroundings& around) {
  const auto parsed = parse_json(text);
  if (const auto* fault = std::get_if<text_fault>(&parsed))
    return import_fault{line_table{text}.at(fault->offset).line, fault->problem,
                        fault->remedy};
  const json_value root{std::get<json_tree>(parsed), 0};
  if (has_member(root, "processes"))
    return importing::import_pup(root, file);
  if (has_member(root, "apps") || has_member(root, "script")
      || has_member(root, "pm2") || root.kind() == json_kind::array)
    return importing::import_pm2(root, file, around);
  return import_fault{1, "has neither `apps` (PM2) nor `processes` (Pup)",
                      std::string{what_is_read}};
}

bool is_program(std::string_view first, const std::string& file) {
  for (const std::string_view ending : {".js", ".cjs", ".mjs", ".ts"})
    if (file.ends_with(ending))
      return true;
  for (const std::string_view word :
       {"module.exports", "export ", "import ", "const ", "'use strict'",
        "\"use strict\""})
    if (first.starts_with(word))
      return true;
  return false;
}

// One command for all of CommonJS and ES modules, with and without a default.
import_fault program_fault(const std::string& file) {
  return {1, "is a program, not data",
          "make JSON of it: node -e "
          "'import(require(\"url\").pathToFileURL(process.argv[1])).then(m => "
          "console.log(JSON.stringify(m.default?.default ?? m.default ?? m)))' "
          "-- "
              + importing::shell_word(file) + " > ecosystem.json"};
}

/// Where and what a file is that is YAML: there a line is a key and no more,
/// and what belongs to it follows. No line of a Procfile is like that.
std::optional<import_fault> yaml_fault(std::string_view text,
                                       const std::string& file) {
  auto is_yaml = file.ends_with(".yml") || file.ends_with(".yaml");
  std::size_t found = 1;
  std::string_view key;
  bool composes = false;
  bool applications = false;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto whole = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const auto line = importing::trimmed(whole);
    if (line.empty() || line.front() == '#')
      continue;
    const auto is_indented = whole.front() == ' ' || whole.front() == '\t';
    const auto is_part = is_indented || line == "-" || line.starts_with("- ");
    const auto is_start = line == "---" && key.empty();
    if (((is_part && !key.empty()) || is_start) && !is_yaml) {
      is_yaml = true;
      found = is_start ? number : number - 1;
    }
    key = !is_indented && line.ends_with(':') ? line : std::string_view{};
    composes = composes || key == "services:";
    applications = applications || key == "apps:";
  }
  if (!is_yaml)
    return std::nullopt;
  if (composes)
    return import_fault{
        found, "is a compose file, not a Procfile",
        "write each service that is a program of this machine into a pup.json "
        "with pup init and pup append"};
  return import_fault{found, "is YAML, not a Procfile",
                      applications ? "make JSON of it: npx js-yaml "
                                         + importing::shell_word(file)
                                         + " > ecosystem.json"
                                   : std::string{what_is_read}};
}

}  // namespace

std::variant<imported, import_fault> import_config(
    std::string_view text, const std::string& file,
    const import_surroundings& around) {
  if (text.starts_with("\xEF\xBB\xBF"))
    text.remove_prefix(3);
  const auto line = first_line(text);
  if (is_program(line, file))
    return program_fault(file);
  if (line.empty())
    return import_fault{1, "the file is empty", "name a file that says more"};
  if (line.starts_with("[Unit]") || line.starts_with("[Service]"))
    return import_fault{1, "is a systemd unit, which is not read",
                        "make a configuration of its ExecStart with pup init"};
  if (line.starts_with('[')) {
    // A section has a name; an array of applications does not begin like one.
    const auto inside = importing::trimmed(line.substr(1));
    const auto is_array =
        inside.empty()
        || std::string_view{"{[]\"/"}.find(inside.front()) != inside.npos;
    return is_array ? import_json(text, file, around)
                    : importing::import_supervisord(text, file, around);
  }
  if (line.starts_with('{') || line.starts_with("//") || line.starts_with("/*"))
    return import_json(text, file, around);
  if (auto fault = yaml_fault(text, file))
    return *fault;
  return importing::import_procfile(text, file);
}

}  // namespace pup
