// Procfile: a line for each process, "name: shell command".
#include "pup/config/import_draft.hpp"

#include <algorithm>

namespace pup::importing {

namespace {

// foreman's and overmind's: the first process gets 5000, each further 100 more.
constexpr std::uint32_t first_port = 5'000;
constexpr std::uint32_t port_step = 100;

bool is_name(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

}  // namespace

std::variant<imported, import_fault> import_procfile(std::string_view text,
                                                     const std::string& file) {
  draft result;
  result.kind = "Procfile";
  auto port = first_port;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#')
      continue;
    const auto colon = line.find(':');
    const auto name = trimmed(line.substr(0, colon));
    if (colon == std::string_view::npos || !is_name(name))
      return import_fault{number, "is not \"name: command\"",
                          "name an ecosystem file, a supervisord .conf, a "
                          "Procfile or a pup.json"};
    const auto command = trimmed(line.substr(colon + 1));
    if (command.empty())
      return import_fault{number, "has no command", "write one or remove it"};
    draft_process x;
    x.id = name;
    x.origin = std::string{name};
    x.set("cmd", json_of(command));
    if (command.find("PORT") != std::string_view::npos || name == "web")
      x.set("env", json_of(members{{"PORT", json_of(std::to_string(port))}}));
    if (name == "release") {
      x.set("restart", json_of("never"));
      result.note(x.origin,
                  "runs once; pup does not wait for it before it "
                  "starts the others, unless they depend on it");
    }
    port += port_step;
    result.processes.push_back(std::move(x));
  }
  result.note(file,
              "the .env file beside it is not read; name it in `envFile`");
  return std::move(result).finish(file);
}

}  // namespace pup::importing
