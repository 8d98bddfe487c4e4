// `pup logs` and `pup monitor`, against the program itself.
#include "catch.hpp"
#include "system.hpp"

#include <csignal>

#include <sys/stat.h>

using namespace pup::test;

namespace {

using words = std::vector<std::string>;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// What follows time and id of each line.
std::vector<std::string> texts(const std::string& out) {
  std::vector<std::string> result;
  for (std::size_t at = 0; at < out.size();) {
    const auto end = out.find('\n', at);
    const auto line = out.substr(at, end - at);
    result.push_back(line.substr(line.find(' ') + 1));
    at = end + 1;
  }
  return result;
}

std::string shell(const std::string& id, const std::string& command,
                  const std::string& more = {}) {
  return R"({"id": ")" + id + R"(", "cmd": ["sh", "-c", ")" + command + "\"]"
         + (more.empty() ? "" : ", " + more) + "}";
}

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

}  // namespace

SCENARIO("questions about logs that make no sense are refused") {
  sandbox box;
  const std::vector<std::pair<words, std::string>> faults{
      {{"logs", "a", "b"}, "logs: 'b' is one argument too many"},
      {{"monitor", "a", "--id", "b"},
       "monitor: 'a' and --id b; use one of them"},
      {{"logs", "--severity", "bad"},
       "--severity: 'bad' is none; use info, warn or error"},
      {{"logs", "--severity", "info,"},
       "--severity: '' is none; use info, warn or error"},
      {{"logs", "-n", "many"},
       "-n: 'many' is no number of lines; use 0 to 4294967295"},
      {{"logs", "-n"}, "-n: needs a value"},
      {{"logs", "--start", "soon"},
       "--start: 'soon' is no time; use 2026-11-24T03:13:14, 03:13 or -15m"},
      {{"logs", "--end", "2026-02-30"},
       "--end: '2026-02-30' is no time; use 2026-11-24T03:13:14, 03:13 or "
       "-15m"},
      {{"logs", "--instances", "3"}, "--instances: not with logs"},
      {{"status", "-n", "3"}, "-n: only with logs and monitor"},
      {{"stop", "a", "--severity", "info"},
       "--severity: only with logs and monitor"},
  };
  for (const auto& [arguments, text] : faults) {
    const auto x = box.pup(arguments);
    CHECK(x.err == text + '\n');
    CHECK(x.out == "");
    CHECK(x.code == 2);
  }
  const auto none = box.pup({"logs"});
  CHECK(none.code == 3);
  CHECK(none.err
        == "pup: no supervisor is running and no logs are in "
               + box.env.at("PUP_STATE_DIR")
               + "; start one with pup start CONFIG\n");
  const auto named = box.pup({"monitor", "--name", "other"});
  CHECK(named.code == 3);
  CHECK(contains(named.err, "pup: no logs of 'other' in "));
}

SCENARIO("stored lines are chosen by id, severity, number and time") {
  sandbox box;
  box.write(
      "config.json",
      config({shell("a", "echo one; echo two; echo bad >&2; exec sleep 1000"),
              shell("b", "printf '\\\\033[1mbold\\\\033[0m\\\\nrest'; exit 3",
                    R"("restart": "never")")},
             R"("name": "kept")"));
  box.pup({"start", "config.json"});  // b fails, sooner or later
  REQUIRE(wait_until([&] {
    return contains(box.pup({"logs", "b"}).out, "exited with code 3")
           && contains(box.pup({"logs", "a"}).out, "bad");
  }));
  const auto pid = box.unit("a").at("pid").to_number<std::int64_t>();
  const auto of_a = texts(box.pup({"logs", "--id", "a"}).out);
  REQUIRE(of_a.size() == 5);
  CHECK(of_a.front() == "a pup info started as pid " + std::to_string(pid));
  // When it is ready and what it says have no order, the rest has.
  auto of_b = texts(box.pup({"logs", "b"}).out);
  CHECK(std::erase(of_b, "b pup info is ready") == 1);
  REQUIRE(of_b.size() == 4);
  CHECK(of_b[0].starts_with("b pup info started as pid "));
  CHECK(of_b[1] == "b stdout bold");
  CHECK(of_b[2] == "b stdout rest");
  CHECK(of_b[3] == "b pup warn exited with code 3");
  CHECK(texts(box.pup({"logs", "--severity", "error"}).out)
        == std::vector<std::string>{"a stderr bad"});
  CHECK(texts(box.pup({"logs", "-n", "1", "b"}).out)
        == std::vector<std::string>{"b pup warn exited with code 3"});
  CHECK(box.pup({"logs", "--end", "-1h"}).out == "");
  CHECK(texts(box.pup({"logs", "a", "--start", "-1h"}).out) == of_a);
  const auto json =
      parse_json(box.pup({"logs", "--json", "--severity", "warn"}).out)
          .as_object();
  CHECK(json.at("id") == "b");
  CHECK(json.at("stream") == "pup");
  CHECK(json.at("text") == "exited with code 3");
  const auto unknown = box.pup({"logs", "none"});
  CHECK(unknown.code == 1);
  CHECK(unknown.err
        == "'none': no line of it is stored; pup status lists what runs\n");

  WHEN("the supervisor has ended") {
    REQUIRE(box.pup({"terminate"}).code == 0);
    THEN("its log is still there, and says how it ended") {
      const auto lines = texts(box.pup({"logs", "a"}).out);
      CHECK(lines.back() == "a pup info killed by SIGTERM");
      AND_WHEN("it is started again") {
        box.pup({"start", "config.json"});
        THEN("the log goes on") {
          CHECK(texts(box.pup({"logs", "a"}).out).size() > lines.size());
        }
      }
    }
  }
}

SCENARIO("monitor follows restarts, scaling and a new supervisor") {
  sandbox box;
  const port_range ports{4};
  box.write("config.json", config({web(ports, 1)}));
  start(box);
  const auto first_started = [&box] {
    const auto pid = box.unit("web").at("instances").at(0).at("pid");
    return "web-1 pup info started as pid "
           + std::to_string(pid.to_number<pid_t>());
  };
  // When it is ready and what it says have no order: both are waited for.
  auto monitor = process{box.command({"monitor", "web", "-n", "2"})};
  REQUIRE(monitor.says("web-1 pup info is ready at 127.0.0.1"));
  REQUIRE(monitor.says("web-1 stdout listening on"));
  REQUIRE(box.pup({"scale", "web", "2"}).code == 0);
  CHECK(monitor.says("web-2 pup info is ready at 127.0.0.1"));
  REQUIRE(box.pup({"restart", "web-1"}).code == 0);
  CHECK(monitor.says(first_started()));
  REQUIRE(box.pup({"terminate"}).code == 0);
  CHECK(monitor.says("web-2 pup info exited with code 0"));
  start(box);
  CHECK(monitor.says(first_started()));
  monitor.signal(SIGTERM);
  CHECK(monitor.wait().signal == SIGTERM);
}

SCENARIO("logrotate: a file that was renamed is made anew at SIGHUP") {
  sandbox box;
  box.write("config.json",
            config({shell("a", "echo one; exec sleep 1000",
                          R"("logger": {"stdout": "logs/%{id}.log"})")}));
  start(box);
  const auto read = [&](const std::string& name) {
    return std::filesystem::exists(box.path(name)) ? box.read(name) : "";
  };
  REQUIRE(wait_until([&] { return read("logs/a.log") == "one\n"; }));
  std::filesystem::rename(box.path("logs/a.log"), box.path("logs/old"));
  REQUIRE(::kill(*box.supervisors().begin(), SIGHUP) == 0);
  REQUIRE(box.pup({"restart", "a"}).code == 0);
  CHECK(wait_until([&] { return read("logs/a.log") == "one\n"; }));
  CHECK(read("logs/old") == "one\n");
}

SCENARIO("in the foreground, output goes to the console when wanted") {
  sandbox box;
  box.write("config.json",
            config({shell("a", "echo hello; exec sleep 1000"),
                    shell("b", "echo quiet; exec sleep 1000",
                          R"("logger": {"console": false})")},
                   R"("logger": {"console": true, "decorate": true})"));
  auto command = box.command({"run", "config.json"});
  process pup{command};
  REQUIRE(pup.says(" a stdout hello"));
  pup.signal(SIGTERM);
  CHECK_FALSE(contains(pup.wait().out, "quiet"));
}
