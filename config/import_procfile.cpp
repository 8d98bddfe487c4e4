// Procfile: a line for each process, "name: shell command".
#include "pup/config/import_draft.hpp"

#include <algorithm>

namespace pup::importing {

namespace {

// foreman's and overmind's: the first process gets 5000, each further 100 more.
// All get one, as Heroku gives the one process that it routes to.
constexpr std::uint32_t first_port = 5'000;
constexpr std::uint32_t port_step = 100;

bool is_name(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

draft_process process_of(std::string_view name, std::string_view command,
                         std::uint32_t port) {
  draft_process result;
  result.id = name;
  result.origin = std::string{name};
  result.set("cmd", json_of(command));
  result.set("env", json_of(members{{"PORT", json_of(std::to_string(port))}}));
  // The file need not be there.
  result.set("envFile", json_of(std::vector<std::string>{"-.env"}));
  if (name == "release")
    result.set("restart", json_of("never"));
  return result;
}

void tell(draft& into, const std::string& file) {
  into.note(file,
            "what ends is started again, as Heroku does it; foreman ends all "
            "with the first that ends: for that put the processes into one of "
            "`groups` with \"autoShutdown\": \"any\", each with \"restart\": "
            "\"never\" and \"significant\": true");
  into.note(file,
            "PORT counts up from 5000 by 100, as foreman's does where .env and "
            "its own environment have no PORT; PS, its name of the process, is "
            "not set: the name is in PUP_ID");
}

}  // namespace

std::variant<imported, import_fault> import_procfile(std::string_view text,
                                                     const std::string& file) {
  draft result;
  result.kind = "Procfile";
  auto port = first_port;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto whole = text.substr(0, end);
    const auto line = trimmed(whole);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#')
      continue;
    const auto colon = line.find(':');
    const auto name = line.substr(0, colon);
    if (colon == std::string_view::npos || !is_name(name))
      return import_fault{number, "is not \"name: command\"",
                          "name an ecosystem file, a supervisord .conf, a "
                          "Procfile or a pup.json"};
    // foreman passes over such a line, others take it.
    if (line.data() != whole.data())
      return import_fault{number, "begins with a blank",
                          "remove the blank, or the line"};
    const auto command = trimmed(line.substr(colon + 1));
    if (command.empty())
      return import_fault{number, "has no command", "write one or remove it"};
    result.processes.push_back(process_of(name, command, port));
    if (name == "release")
      result.note("release",
                  "runs once; pup does not wait for it before it "
                  "starts the others, unless they depend on it");
    port += port_step;
  }
  if (result.processes.empty())
    return import_fault{1, "has no process", "name a file with some"};
  tell(result, file);
  return std::move(result).finish(file);
}

}  // namespace pup::importing
