// The words of the command line, its help and its completion. What commands do
// is in the system tests.
#include "pup/runtime/cli.hpp"

#include "pup/config/plain_text.hpp"
#include "pup/runtime/manual.hpp"
#include "pup/runtime/why.hpp"

#include "catch.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>

using namespace pup;
using namespace std::chrono_literals;

namespace {

using words = std::vector<std::string>;

std::variant<command, usage_error> parsed(const words& arguments) {
  return parse(arguments, [](const std::string&) { return false; });
}

command understood(const words& arguments) {
  auto result = parsed(arguments);
  if (auto error = std::get_if<usage_error>(&result))
    FAIL(error->text);
  return std::get<command>(result);
}

std::string refused(const words& arguments) {
  auto result = parsed(arguments);
  auto error = std::get_if<usage_error>(&result);
  return error ? error->text : "accepted";
}

std::string text_of(const json_members& entry) {
  return json_of(entry);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in{text};
  std::vector<std::string> result;
  for (std::string line; std::getline(in, line);)
    result.push_back(line);
  return result;
}

std::string contents(const std::string& file) {
  std::ifstream in{file};
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

}  // namespace

TEST_CASE("command line: every command of the help is understood") {
  for (auto& x : all_commands()) {
    auto result = parsed({std::string{x.name}, "a", "1"});
    if (auto error = std::get_if<usage_error>(&result)) {
      INFO(error->text);
      CHECK(error->text.find("is no command") == std::string::npos);
      CHECK(error->text.find("not supported") == std::string::npos);
    }
    CHECK(help_text().find(x.name) != std::string::npos);
    CHECK(understood({"help", std::string{x.name}}).id == x.name);
    if (x.name != "version" && x.name != "help")
      CHECK(understood({std::string{x.name}, "--help"}).id == x.name);
    CHECK(help_text(x.name).starts_with("pup " + std::string{x.usage}));
  }
  CHECK(help_text("nonsense").empty());
}

TEST_CASE("command line: help fits a screen, and so does each command's") {
  CHECK(lines_of(help_text()).size() <= 24);
  for (auto& line : lines_of(help_text()))
    CHECK(line.size() <= 80);
  for (auto& x : all_commands()) {
    auto lines = lines_of(help_text(x.name));
    CHECK(lines.size() <= 24);
    for (auto& line : lines) {
      INFO(line);
      CHECK((line.size() <= 80 || line.starts_with("Options:")));
    }
  }
}

TEST_CASE("command line: the manual page names every command") {
  auto page = contents(PUP_MANUAL);
  REQUIRE_FALSE(page.empty());
  std::erase(page, '\\');
  for (auto& x : all_commands()) {
    INFO(x.name);
    CHECK(page.find(x.name) != std::string::npos);
  }
}

TEST_CASE("command line: a slip of the fingers") {
  CHECK(refused({"stauts"})
        == "'stauts' is no command; did you mean 'status'?");
  CHECK(refused({"Validate"})
        == "'Validate' is no command; did you mean 'validate'?");
  CHECK(refused({"xyzzy"}) == "'xyzzy' is no command; pup --help lists them");
}

TEST_CASE("command line: a process in words") {
  auto run = understood({"run", "--", "/usr/bin/node", "--inspect", "a b"});
  CHECK(run.kind == command_kind::run);
  CHECK(text_of(run.entry)
        == R"({"id": "node", "cmd": ["/usr/bin/node", "--inspect", "a b"]})");
  CHECK(text_of(understood({"run", "--cmd", "npm start", "--watch", "."}).entry)
        == R"({"id": "npm", "cmd": "npm start", "watch": ["."], )"
           R"("autostart": true})");
  CHECK(text_of(understood({"append", "--id", "web", "--env", "A=b=c", "--cwd",
                            "/srv", "--instances", "max", "--start-port",
                            "8000", "--common-port=3000", "--strategy",
                            "random", "--", "x"})
                    .entry)
        == R"({"id": "web", "cmd": ["x"], "cwd": "/srv", "env": {"A": "b=c"}, )"
           R"("cluster": {"instances": "max", "startPort": 8000, )"
           R"("commonPort": 3000, "strategy": "random"}})");
  CHECK(text_of(understood({"init", "--cron", "0 3 * * *", "--terminate",
                            "@daily", "--", "./-x!/-"})
                    .entry)
        == R"({"id": "main", "cmd": ["./-x!/-"], "cron": "0 3 * * *", )"
           R"("terminate": "@daily"})");
  CHECK(understood({"init"}).entry.empty());
  CHECK(understood({"run"}).entry.empty());
  CHECK(understood({"run", "--config", "x"}).of_config == "x");
}

TEST_CASE("command line: a process in words that is none") {
  CHECK(refused({"run", "a.json", "--", "x"})
        == "run: either a configuration or a command; not both");
  CHECK(refused({"run", "--config", "a", "--cmd", "x"})
        == "run: either a configuration or a command; not both");
  CHECK(refused({"run", "--cmd", "x", "--", "y"})
        == "run: either --cmd or a command behind --; not both");
  CHECK(refused({"run", "--watch", "."})
        == "run: a command is missing; put it behind --, or into --cmd");
  CHECK(refused({"run", "--id", "x"})
        == "run: a command is missing; put it behind --, or into --cmd");
  CHECK(refused({"append", "--", "x"})
        == "append: --id is missing; pup append --id web -- node server.js");
  CHECK(refused({"append", "--id", "x"})
        == "append: a command is missing; pup append --id x -- node server.js");
  CHECK(refused({"append", "--id", "x", "y"})
        == "append: 'y' is one argument too many; a command stands behind --");
  CHECK(refused({"init", "--env", "=x", "--", "y"})
        == "--env: '=x' is not NAME=value");
  CHECK(refused({"init", "--start-port", "x", "--", "y"})
        == "--start-port: 'x' is no port; use 1 to 65535");
  CHECK(refused({"init", "--instances", "x", "--", "y"})
        == "--instances: 'x' is no number of instances; use 0 to 1024 or max");
  CHECK(refused({"status", "--cwd", "x"})
        == "--cwd: no option of status; only of run, init and append");
  CHECK(refused({"stop", "--id", "x"})
        == "'stop': not together with --id and --instances");
}

TEST_CASE("command line: signals by name or number") {
  CHECK(understood({"signal", "web", "HUP"}).count == 1);
  CHECK(understood({"signal", "web", "sigusr1"}).count == 10);
  CHECK(understood({"signal", "web", "9"}).count == 9);
  for (auto wrong : {"", "0", "-1", "65", "SIG", "FOO", "1x"})
    CHECK(refused({"signal", "web", wrong})
          == "'" + std::string{wrong}
                 + "' is no signal; use a name such as HUP or SIGUSR1, or a "
                   "number");
  CHECK(refused({"signal", "web"})
        == "signal: needs an id and a signal; pup signal web HUP");
}

TEST_CASE("command line: what stands behind -- is never an option") {
  CHECK(understood({"stop", "--", "--web"}).id == "--web");
  CHECK(understood({"remove", "--id", "web"}).id == "web");
  CHECK(understood({"remove", "web"}).id == "web");
}

TEST_CASE("command line: completion scripts know every command and option") {
  for (auto shell : {"bash", "zsh", "fish"}) {
    auto made = completion_script(shell);
    auto& script = std::get<std::string>(made);
    for (auto& x : all_commands()) {
      INFO(shell << ' ' << x.name);
      CHECK(script.find(x.name) != std::string::npos);
    }
    CHECK(script.find("@ids@") == std::string::npos);
    CHECK(script.find("dry-run") != std::string::npos);
  }
  CHECK(std::get<std::string_view>(completion_script("tcsh"))
        == "bash, zsh, fish");
}

TEST_CASE("status: what is waited for, in a line") {
  supervisor_status status;
  CHECK(render_progress(status, 1s) == "waiting (1 s)");
  status.units.resize(2);
  const auto add = [&](std::size_t unit, const char* id, run_state state) {
    instance_status x;
    x.id = id;
    x.state = state;
    status.units[unit].instances.push_back(x);
  };
  add(0, "db", run_state::ready);
  add(1, "web-1", run_state::stopping);
  add(1, "web-2", run_state::starting);
  CHECK(render_progress(status, 12s)
        == "waiting: web-1 stopping, web-2 starting (12 s)");
  add(1, "web-3", run_state::draining);
  add(1, "web-4", run_state::backoff);
  add(1, "web-5", run_state::waiting);
  add(1, "web-6", run_state::starting);
  CHECK(render_progress(status, 12s)
        == "waiting: web-1 stopping, web-2 starting, web-3 draining and 2 more "
           "(12 s)");
}

TEST_CASE("status: warnings stand below the table, and in the object") {
  supervisor_status status;
  CHECK(lines_of(render(status, {})).size() == 1);
  CHECK(render_json(status).find("\"warnings\":[]") != std::string::npos);
  status.warnings = {"the disk is full", "\"odd\""};
  const auto lines = lines_of(render(status, {}));
  REQUIRE(lines.size() == 3);
  CHECK(lines[1] == "warning: the disk is full");
  CHECK(lines[2] == "warning: \"odd\"");
  CHECK(render_json(status).find(R"("warnings":["the disk is full","\"odd\""])")
        != std::string::npos);
}

namespace {

/// Nothing that a terminal acts upon but newlines.
bool is_harmless(const std::string& text) {
  auto without_tabs = shown_lines(text);
  return without_tabs == text && text.find('\t') == std::string::npos;
}

constexpr auto hostile =
    "\033[2J\a\r\b\x7F\xC2\x9B\x9B\xE2\x80\xAE\n\xFF forged";

}  // namespace

TEST_CASE("status: what others have written is shown, not acted upon") {
  supervisor_status status;
  status.name = status.config = hostile;
  status.warnings = {hostile};
  status.units.resize(2);
  for (auto& unit : status.units) {
    unit.id = unit.reason = hostile;
    unit.instances.resize(1);
    unit.instances[0].id = unit.instances[0].reason = hostile;
  }
  status.units[1].is_cluster = true;
  const auto table = render(status, {});
  CHECK(is_harmless(table));
  CHECK(lines_of(table).size() == 5);
  CHECK(is_harmless(render_json(status)));
  CHECK(is_harmless(render_progress(status, 1s)));
  // Exact, but for the bytes that no JSON holds.
  CHECK(render_json(status).find(R"(\u001b[2J\u0007\r\b\u007f\u009b)"
                                 "\xEF\xBF\xBD"
                                 R"(\u202e\n)"
                                 "\xEF\xBF\xBD forged")
        != std::string::npos);
}

TEST_CASE("reports: what others have written is shown, not acted upon") {
  const std::vector<outcome> outcomes{{hostile, true, hostile},
                                      {hostile, false, hostile}};
  apply_report applied;
  applied.plan = {hostile};
  applied.outcomes = outcomes;
  scale_report scaled;
  scaled.id = hostile;
  scaled.outcomes = outcomes;
  for (const auto& x : {render(report{outcomes}), render(applied),
                        render(scaled), render_failures(outcomes)}) {
    CHECK(is_harmless(x));
    CHECK(lines_of(x).size() <= 2);
  }
}

TEST_CASE("why: output is drawn, in the object it is exact") {
  explanation x;
  x.what.id = x.what.reason = x.what.next = hostile;
  x.what.entries.resize(1);
  x.what.entries[0].text = hostile;
  const std::string line = "\033[31mred\033[0m\r\xC2\x9B\xE2\x80\xAE\b!";
  x.output = {{1'000'000, "stdout", line}};
  const auto utc = [](std::uint64_t) { return 0min; };
  const auto text = why_text({x}, 0, utc);
  CHECK(is_harmless(text));
  CHECK(text.find("stdout   red!\n") != std::string::npos);
  const auto json = why_json({x}, utc);
  CHECK(is_harmless(json));
  CHECK(json.find(R"(\u001b[31mred\u001b[0m\u000d\u009b\u202e\u0008!)")
        != std::string::npos);
}
