#include "pup/config/edit.hpp"

#include "pup/config/json_text.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <optional>
#include <vector>

namespace pup {

namespace {

// Behind blanks and comments from `at` on.
std::size_t skip_trivia(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const auto rest = text.substr(at);
    if (std::string_view{" \t\r\n"}.find(text[at]) != std::string_view::npos)
      ++at;
    else if (rest.starts_with("//"))
      at += std::min(rest.find('\n'), rest.size());
    else if (rest.starts_with("/*"))
      at += std::min(rest.find("*/"), rest.size() - 2) + 2;
    else
      break;
  }
  return at;
}

std::optional<std::size_t> comma_behind(std::string_view text, std::size_t at) {
  at = skip_trivia(text, at);
  return at < text.size() && text[at] == ',' ? std::optional{at} : std::nullopt;
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r") == std::string_view::npos;
}

std::size_t line_begin(std::string_view text, std::size_t at) {
  const auto newline = at == 0 ? text.npos : text.rfind('\n', at - 1);
  return newline == text.npos ? 0 : newline + 1;
}

// The blanks before `at`, when nothing else stands before it in its line.
std::optional<std::string> indent_of(std::string_view text, std::size_t at) {
  const auto begin = line_begin(text, at);
  const auto before = text.substr(begin, at - begin);
  return is_blank(before) ? std::optional<std::string>{before} : std::nullopt;
}

std::string entry_text(const json_members& entry, const std::string& indent) {
  std::string result = "{\n";
  for (const auto& member : entry) {
    result.append(indent).append("  ").append(json_of(member.first));
    result.append(": ").append(member.second);
    result += &member == &entry.back() ? "\n" : ",\n";
  }
  return result + indent + '}';
}

struct process_list {
  json_tree tree;
  std::size_t begin = 0;  // of the [
  std::size_t end = 0;    // behind the ]
  std::vector<json_value> entries;
};

edit_fault fault_at(std::string_view text, std::size_t offset,
                    std::string problem, std::string remedy) {
  return {line_table{text}.at(offset).line, std::move(problem),
          std::move(remedy)};
}

// Fills `into`, whose entries refer to its tree: it is not moved afterwards.
std::optional<edit_fault> find_list(std::string_view text, process_list& into) {
  auto parsed = parse_json(text);
  if (const auto* fault = std::get_if<text_fault>(&parsed))
    return fault_at(text, fault->offset, fault->problem, fault->remedy);
  into.tree = std::move(std::get<json_tree>(parsed));
  const json_value root{into.tree, 0};
  if (root.kind() == json_kind::object)
    for (const auto& member : root.members())
      if (member.key.string() == "processes"
          && member.value.kind() == json_kind::array) {
        into.begin = member.value.offset();
        into.end = into.begin + member.value.raw().size();
        into.entries = member.value.elements();
        return std::nullopt;
      }
  return edit_fault{1, "has no array `processes`", "add \"processes\": []"};
}

std::string_view id_of(const json_value& entry) {
  if (entry.kind() == json_kind::object)
    for (const auto& member : entry.members())
      if (member.key.string() == "id"
          && member.value.kind() == json_kind::string)
        return member.value.string();
  return {};
}

std::size_t end_of(const json_value& x) {
  return x.offset() + x.raw().size();
}

}  // namespace

edited append_process(std::string_view text, const json_members& entry) {
  process_list list;
  if (auto fault = find_list(text, list))
    return *fault;
  const auto bracket = list.end - 1;
  std::string result{text};
  if (list.entries.empty()) {
    const auto outer = indent_of(text, line_begin(text, bracket)).value_or("");
    const auto own = indent_of(text, bracket);
    const auto base = own ? *own : outer + "  ";
    const auto head = own ? std::string{"  "} : '\n' + base + "  ";
    result.insert(bracket, head + entry_text(entry, base + "  ") + '\n' + base);
    return result;
  }
  const auto& last = list.entries.back();
  const auto indent = indent_of(text, last.offset());
  const auto trailing = comma_behind(text, end_of(last));
  const auto own = indent_of(text, bracket);
  const auto inner = indent.value_or("    ");
  // Before the line of the bracket, behind every comment on the last entry.
  const auto at = own ? line_begin(text, bracket) : bracket;
  auto addition = (own ? "" : "\n") + inner + entry_text(entry, inner)
                  + (trailing ? "," : "") + '\n';
  result.insert(at, addition);
  if (!trailing)
    result.insert(end_of(last), ",");
  return result;
}

edited remove_process(std::string_view text, std::string_view id) {
  process_list list;
  if (auto fault = find_list(text, list))
    return *fault;
  const auto found =
      std::find_if(list.entries.begin(), list.entries.end(),
                   [&](const json_value& x) { return id_of(x) == id; });
  if (found == list.entries.end()) {
    std::vector<std::string_view> ids;
    for (const auto& x : list.entries)
      ids.push_back(id_of(x));
    const auto near = nearest(id, ids);
    return fault_at(text, list.begin, "no process has the id " + quote(id),
                    near          ? "did you mean " + quote(*near) + '?'
                    : ids.empty() ? "there is none"
                    : ids.size() == 1
                        ? "there is " + quote(ids.front())
                        : "there are " + enumerate(ids, '`', "and"));
  }
  if (list.entries.size() == 1)
    return fault_at(text, found->offset(), quote(id) + " is the only process",
                    "remove the file instead");
  std::string result{text};
  auto begin = found->offset();
  auto end = end_of(*found);
  const auto own_comma = comma_behind(text, end);
  if (own_comma && is_blank(text.substr(end, *own_comma - end)))
    end = *own_comma + 1;
  else if (own_comma)
    result.erase(*own_comma, 1);
  // Its whole lines, where nothing else stands on them.
  const auto newline = std::min(text.find('\n', end), text.size());
  if (indent_of(text, begin) && is_blank(text.substr(end, newline - end))) {
    begin = line_begin(text, begin);
    end = std::min(newline + 1, text.size());
  }
  result.erase(begin, end - begin);
  // The last entry of a list without a trailing comma leaves one behind.
  if (!own_comma && found != list.entries.begin())
    if (const auto comma = comma_behind(text, end_of(*std::prev(found))))
      result.erase(*comma, 1);
  return result;
}

std::string first_config(const json_members& entry) {
  std::string result = R"({
  // Names the running supervisor; else the name of this folder does.
  // "name": "my-app",
  "processes": [
    )" + entry_text(entry, "    ");
  return result + R"(
    // Another one; see `man pup` for all keys.
    // {
    //   "id": "web",
    //   "cmd": ["node", "server.js"],   // or one string for a shell
    //   "cwd": "web",                   // from the folder of this file
    //   "env": { "NODE_ENV": "production" },
    //   "restart": "always",            // or "error", "never"
    //   "cluster": {
    //     "instances": 4,               // or "max"
    //     "startPort": 8000,            // instance n gets 8000 + n - 1 as PORT
    //     "commonPort": 3000            // the balancer listens here
    //   }
    // }
  ]
}
)";
}

}  // namespace pup
