// load(), check() and expand(): what a configuration file may say, what pup
// makes of it, and what it answers to one that cannot work.
#include "pup/config/load.hpp"

#include "pup/config/expand.hpp"
#include "pup/config/head.hpp"
#include "pup/config/rules.hpp"

#include "catch.hpp"

#include <algorithm>
#include <random>
#include <sstream>

using namespace pup;
using namespace std::chrono_literals;
using namespace std::string_view_literals;

namespace {

// -- a world made of tables ---------------------------------------------------

struct question {
  std::string program, path, cwd;

  bool operator==(const question&) const = default;
};

struct fake_world {
  std::map<std::string, std::string> variables{{"HOME", "/home/u"}};
  std::map<std::string, std::string> folder_problems{
      {"/bad", "no such folder"}};
  std::map<std::string, std::string> program_problems{
      {"missing", "not found"}, {"./missing", "not found"}};
  std::uint32_t processors = 4;
  std::vector<std::string> folders_asked;
  std::vector<question> programs_asked;

  world get() {
    auto find = [](auto& table, const std::string& key) {
      auto found = table.find(key);
      return found == table.end() ? std::string{} : found->second;
    };
    world result;
    result.variable =
        [this](const std::string& name) -> std::optional<std::string> {
      auto found = variables.find(name);
      if (found == variables.end())
        return std::nullopt;
      return found->second;
    };
    result.folder_problem = [this, find](const std::string& path) {
      folders_asked.push_back(path);
      return find(folder_problems, path);
    };
    result.program_problem = [this, find](const std::string& program,
                                          const std::string& path,
                                          const std::string& cwd) {
      programs_asked.push_back({program, path, cwd});
      return find(program_problems, program);
    };
    result.time_zone_problem = [](const std::string& name) {
      return name == "Moon"
                 ? std::pair<std::string, std::string>{"no zone", "use UTC"}
                 : std::pair<std::string, std::string>{};
    };
    result.pattern_problem = [](const std::string& pattern) {
      return pattern == "up (on" ? "missing ): up (on" : "";
    };
    result.processors = processors;
    return result;
  }
};

load_result load_from(std::string_view text, fake_world& machine) {
  return load(text, "pup.json", "/srv", machine.get());
}

std::vector<std::string> faults_of(const load_result& result) {
  std::vector<std::string> lines;
  if (auto faults = std::get_if<std::vector<diagnostic>>(&result))
    for (auto& x : *faults)
      lines.push_back(to_string(x));
  return lines;
}

std::vector<std::string> faults_of(std::string_view text) {
  fake_world machine;
  return faults_of(load_from(text, machine));
}

// The spec of a valid text; fails the test with the faults otherwise.
pup_spec loaded(std::string_view text, fake_world& machine) {
  auto result = load_from(text, machine);
  INFO(text.substr(0, 2000));
  REQUIRE(faults_of(result) == std::vector<std::string>{});
  auto spec = std::get<pup_spec>(std::move(result));
  CHECK(check(spec) == std::vector<std::string>{});
  return spec;
}

pup_spec loaded(std::string_view text) {
  fake_world machine;
  return loaded(text, machine);
}

std::string in_process(std::string_view members) {
  return R"({"processes": [{"id": "a", "cmd": ["x"], )" + std::string{members}
         + "}]}";
}

std::string in_cluster(std::string_view members) {
  return in_process(R"("cluster": {)" + std::string{members} + "}");
}

process_spec loaded_process(std::string_view members) {
  return loaded(in_process(members)).processes.at(0);
}

cluster_spec loaded_cluster(std::string_view members) {
  return loaded(in_cluster(members)).processes.at(0).cluster.value();
}

std::string repeat(std::string_view text, std::size_t count) {
  std::string result;
  for (std::size_t i = 0; i < count; ++i)
    result += text;
  return result;
}

// `count` processes p0, p1 and so on.
std::string processes(std::size_t count) {
  std::string result = R"({"processes": [)";
  for (std::size_t i = 0; i < count; ++i)
    result += R"({"id": "p)" + std::to_string(i) + R"(", "cmd": "x"},)";
  return result + "]}";
}

// -- what is refused, and in which words --------------------------------------

struct bad_config {
  std::string text;
  std::vector<std::string> faults;
};

const std::vector<bad_config> syntax_cases{
    {std::string{R"()"sv},
     {R"(pup.json:1:1: the file is empty; write an object with `processes`)"}},
    {std::string{" \n\t "sv},
     {R"(pup.json:1:1: the file holds no configuration; write an object with `processes`)"}},
    {std::string{R"(// nothing
/* at all */)"sv},
     {R"(pup.json:1:1: the file holds no configuration; write an object with `processes`)"}},
    {std::string{R"(/* no end)"sv},
     {R"(pup.json:1:1: this comment has no end; add */)"}},
    {std::string{R"({)"sv},
     {R"(pup.json:1:2: the text ends before the `{` of line 1 is closed; add `}`)"}},
    {std::string{R"({"processes": [)"sv},
     {R"(pup.json:1:16: the text ends before the `[` of line 1 is closed; add `]`)"}},
    {std::string{R"({"processes")"sv},
     {R"(pup.json:1:13: the text ends behind a key; add the value and close every bracket)"}},
    {std::string{R"({"processes":)"sv},
     {R"(pup.json:1:13: the text ends behind a key; add the value and close every bracket)"}},
    {std::string{R"({"processes": [})"sv},
     {R"(pup.json:1:16: found `}`, expected a value; write a value)"}},
    {std::string{R"({"processes": []])"sv},
     {R"(pup.json:1:17: found `]` before the `{` of line 1 is closed; add `}`)"}},
    {std::string{R"({"processes": []}})"sv},
     {R"(pup.json:1:18: found `}` behind the end of the configuration; remove it)"}},
    {std::string{R"({"processes": []} x)"sv},
     {R"(pup.json:1:19: found `x` behind the end of the configuration; remove it)"}},
    {std::string{R"({processes: []})"sv},
     {R"(pup.json:1:2: key `processes` is not in quotes; put it in double quotes)"}},
    {std::string{R"({'processes': []})"sv},
     {R"(pup.json:1:2: single quotes are not JSON; use double quotes)"}},
    {std::string{R"({"processes" []})"sv},
     {R"(pup.json:1:14: found `[` behind a key, expected `:`; put `:` between key and value)"}},
    {std::string{R"({"processes" = []})"sv},
     {R"(pup.json:1:14: found `=` behind a key; write `:`)"}},
    {std::string{R"({"processes": [1 2]})"sv},
     {R"(pup.json:1:18: found `2`, expected `,` or `]`; put a comma behind the value before it)"}},
    {std::string{R"({"processes": [,]})"sv},
     {R"(pup.json:1:16: found `,`, expected a value; write a value or remove the comma)"}},
    {std::string{R"({"processes": [1,,2]})"sv},
     {R"(pup.json:1:18: found `,`, expected a value; write a value or remove the comma)"}},
    {std::string{R"({,})"sv},
     {R"(pup.json:1:2: found `,`, expected a key; remove the comma)"}},
    {std::string{R"({"a": 1 "b": 2})"sv},
     {R"(pup.json:1:9: found `"`, expected `,` or `}`; put a comma behind the value before it)"}},
    {std::string{R"({"a": 1,, "b": 2})"sv},
     {R"(pup.json:1:9: found `,`, expected a key; remove the comma)"}},
    {std::string{R"({"a": 1; "b": 2})"sv},
     {R"(pup.json:1:7: `1;` is not a JSON value; write a plain number, or put text in double quotes)"}},
    {std::string{R"({"name": "web
})"sv},
     {R"(pup.json:1:10: this string does not end on its line; add `"`, or write a line break as \n)"}},
    {std::string{R"({"name": "web)"sv},
     {R"(pup.json:1:10: this string has no closing quote; add `"`)"}},
    {std::string{R"({"name": "a\)"sv},
     {R"(pup.json:1:10: this string has no closing quote; add `"`)"}},
    {std::string{"{\"name\": \"a\tb\"}"sv},
     {R"(pup.json:1:12: control character `\u0009` in a string; write it as an escape, a tabulator as \t)"}},
    {std::string{R"({"name": "a\qb"})"sv},
     {R"(pup.json:1:12: `\q` starts no valid escape; use \\ for a backslash, or \" \/ \b \f \n \r \t \uXXXX)"}},
    {std::string{R"({"name": "\u12x4"})"sv},
     {R"(pup.json:1:11: `\u` starts no valid escape; use \\ for a backslash, or \" \/ \b \f \n \r \t \uXXXX)"}},
    {std::string{R"({"name": "\ud800x"})"sv},
     {R"(pup.json:1:11: `\u` starts no valid escape; use \\ for a backslash, or \" \/ \b \f \n \r \t \uXXXX)"}},
    {std::string{R"({"name": "\udc00"})"sv},
     {R"(pup.json:1:11: `\u` starts no valid escape; use \\ for a backslash, or \" \/ \b \f \n \r \t \uXXXX)"}},
    {std::string{R"({"name": web})"sv},
     {R"(pup.json:1:10: `web` is not a JSON value; put text in double quotes)"}},
    {std::string{R"({"name": True})"sv},
     {R"(pup.json:1:10: `True` is not a JSON value; did you mean `true`?)"}},
    {std::string{R"({"name": nul})"sv},
     {R"(pup.json:1:10: `nul` is not a JSON value; did you mean `null`?)"}},
    {std::string{R"({"name": tru)"sv},
     {R"(pup.json:1:10: `tru` is not a JSON value; did you mean `true`?)"}},
    {std::string{R"({"a": 08000})"sv},
     {R"(pup.json:1:7: `08000` starts with a zero; remove the leading zero)"}},
    {std::string{R"({"a": 1.})"sv},
     {R"(pup.json:1:7: `1.` is not a JSON value; write a plain number, such as 3000)"}},
    {std::string{R"({"a": .5})"sv},
     {R"(pup.json:1:7: `.5` is not a JSON value; write a plain number, such as 3000)"}},
    {std::string{R"({"a": +5})"sv},
     {R"(pup.json:1:7: `+5` is not a JSON value; write a plain number, such as 3000)"}},
    {std::string{R"({"a": -})"sv},
     {R"(pup.json:1:7: `-` is not a JSON value; write a plain number, such as 3000)"}},
    {std::string{R"({"a": 0x10})"sv},
     {R"(pup.json:1:7: `0x10` is not a JSON value; write a plain number, or put text in double quotes)"}},
    {std::string{R"({"a": 1e})"sv},
     {R"(pup.json:1:7: `1e` is not a JSON value; write a plain number, such as 3000)"}},
    {std::string{R"({"a": NaN})"sv},
     {R"(pup.json:1:7: `NaN` is not a JSON value; put text in double quotes)"}},
    {std::string{R"({"a": undefined})"sv},
     {R"(pup.json:1:7: `undefined` is not a JSON value; put text in double quotes)"}},
    {std::string{R"({"a": [1: 2]})"sv},
     {R"(pup.json:1:9: found `:` in an array; put key and value in an object {...})"}},
    {std::string{R"({"a": 1: 2})"sv},
     {R"(pup.json:1:8: found `:` behind a value; put a comma between two members)"}},
    {std::string{R"(# comment
{})"sv},
     {R"(pup.json:1:1: `#` starts no comment in JSON; use //)"}},
    {std::string{R"({"a": 1 # x
})"sv},
     {R"(pup.json:1:9: `#` starts no comment in JSON; use //)"}},
    {std::string{R"({] )"sv},
     {R"(pup.json:1:2: found `]`, expected a key or `}`; add `}`)"}},
    {std::string{R"({"processes": [{]})"sv},
     {R"(pup.json:1:17: found `]`, expected a key or `}`; add `}`)"}},
    {std::string{R"({"a": })"sv},
     {R"(pup.json:1:7: found `}`, expected a value; write a value)"}},
    {std::string{R"({"a":, "b": 1})"sv},
     {R"(pup.json:1:6: found `,`, expected a value; write a value or remove the comma)"}},
    {std::string{R"(:)"sv},
     {R"(pup.json:1:1: found `:`, expected a value; write a value)"}},
    {std::string{R"(")"sv},
     {R"(pup.json:1:1: this string has no closing quote; add `"`)"}},
    {std::string{R"(1 2)"sv},
     {R"(pup.json:1:3: found `2` behind the end of the configuration; remove it)"}},
    {std::string{R"({"a": 1/2})"sv},
     {R"(pup.json:1:8: found `/`, expected `,` or `}`; put a comma behind the value before it)"}},
    {std::string{R"({1: 2})"sv},
     {R"(pup.json:1:2: key `1` is not in quotes; put it in double quotes)"}},
    {std::string{R"({[]: 2})"sv},
     {R"(pup.json:1:2: found `[`, expected a key or `}`; write a key in double quotes)"}},
    {std::string{R"({"a": @})"sv},
     {R"(pup.json:1:7: `@` is not a JSON value; put text in double quotes)"}},
    {std::string{R"({"a" "b"})"sv},
     {R"(pup.json:1:6: found `"` behind a key, expected `:`; put `:` between key and value)"}},
    {std::string{R"({"a": "b" "c"})"sv},
     {R"(pup.json:1:11: found `"`, expected `,` or `}`; put a comma behind the value before it)"}},
    {std::string{R"({"a": (1)})"sv},
     {R"(pup.json:1:7: `(1)` is not a JSON value; put text in double quotes)"}},
    {std::string{"\000"sv},
     {R"(pup.json:1:1: control character `\u0000`; remove it)"}},
    {std::string{"{\000}"sv},
     {R"(pup.json:1:2: control character `\u0000`; remove it)"}},
};

const std::vector<bad_config>
    shape_cases{
        {std::string{R"([])"sv},
         {R"(pup.json:1:1: an array is not an object; write {"processes": [...]})"}},
        {std::string{R"(5)"sv},
         {R"(pup.json:1:1: 5 is not an object; write {"processes": [...]})"}},
        {std::string{R"("x")"sv},
         {R"(pup.json:1:1: "x" is not an object; write {"processes": [...]})"}},
        {std::string{R"(null)"sv},
         {R"(pup.json:1:1: null is not an object; write {"processes": [...]})"}},
        {std::string{R"({})"sv},
         {R"(pup.json:1:1: processes: is missing; add "processes": [...])"}},
        {std::string{R"({"processes": {}})"sv},
         {R"(pup.json:1:15: processes: an object is not an array; write [{"id": ..., "cmd": [...]}])"}},
        {std::string{R"({"processes": null})"sv},
         {R"(pup.json:1:15: processes: null is not an array; write [{"id": ..., "cmd": [...]}])"}},
        {std::string{R"({"processes": []})"sv},
         {R"(pup.json:1:15: processes: is empty, there is nothing to do; add a process)"}},
        {std::string{R"({"processes": [5, "x", []]})"sv},
         {R"(pup.json:1:16: processes[0]: 5 is not an object; write {"id": ..., "cmd": [...]})",
          R"(pup.json:1:19: processes[1]: "x" is not an object; write {"id": ..., "cmd": [...]})",
          R"(pup.json:1:24: processes[2]: an array is not an object; write {"id": ..., "cmd": [...]})"}},
        {std::string{R"({"processes": [{}]})"sv},
         {R"(pup.json:1:16: processes[0].id: is missing; add an id such as "web")",
          R"(pup.json:1:16: processes[0].cmd: is missing; add a command such as ["node", "app.js"])"}},
        {std::string{R"({"processes": [{"id": "a"}]})"sv},
         {R"(pup.json:1:16: processes[0].cmd: is missing; add a command such as ["node", "app.js"])"}},
        {std::string{R"({"processes": [{"cmd": "x"}]})"sv},
         {R"(pup.json:1:16: processes[0].id: is missing; add an id such as "web")"}},
        {std::string{R"({"Processes": [{"id": "a", "cmd": "x"}]})"sv},
         {R"(pup.json:1:1: processes: is missing; add "processes": [...])",
          R"(pup.json:1:2: Processes: `Processes` is not a key of the configuration; did you mean `processes`?)"}},
        {std::string{R"({"procesess": []})"sv},
         {R"(pup.json:1:1: processes: is missing; add "processes": [...])",
          R"(pup.json:1:2: procesess: `procesess` is not a key of the configuration; did you mean `processes`?)"}},
        {std::string{R"({"apps": []})"sv},
         {R"(pup.json:1:1: processes: is missing; add "processes": [...])",
          R"(pup.json:1:2: apps: `apps` is not a key of the configuration; did you mean `processes`?)"}},
        {std::string{
             R"({"zzzzzz": 1, "processes": [{"id": "a", "cmd": "x"}]})"sv},
         {R"(pup.json:1:2: zzzzzz: `zzzzzz` is not a key of the configuration; remove it or use `$schema`, `name`, `processes`, `logger`, `watcher`, `ipc`, `terminateTimeout`, `terminateGracePeriod`, `groups` or `startConcurrency`)"}},
        {std::string{
             R"({"$schema": 5, "processes": [{"id": "a", "cmd": "x"}]})"sv},
         {R"(pup.json:1:13: $schema: 5 is not a string; put it in double quotes)"}},
        {std::string{
             R"({"name": 5, "processes": [{"id": "a", "cmd": "x"}]})"sv},
         {R"(pup.json:1:10: name: 5 is not a string; put it in double quotes)"}},
        {std::string{
             R"({"name": "", "processes": [{"id": "a", "cmd": "x"}]})"sv},
         {R"(pup.json:1:10: name: is empty; use 1 to 64 of A-Z a-z 0-9 @ . _ -)"}},
        {std::string{
             R"({"name": "..", "processes": [{"id": "a", "cmd": "x"}]})"sv},
         {R"(pup.json:1:10: name: `..` cannot name a folder; choose another name)"}},
        {std::string{
             R"({"name": "a/b", "processes": [{"id": "a", "cmd": "x"}]})"sv},
         {R"(pup.json:1:10: name: `a/b` holds a character that is not allowed; use 1 to 64 of A-Z a-z 0-9 @ . _ -)"}},
        {std::string{
             R"({"terminateTimeout": -1, "terminateGracePeriod": "5", "processes": [{"id": "a", "cmd": "x"}]})"sv},
         {R"(pup.json:1:22: terminateTimeout: -1 is not a time in seconds; use 0 to 31536000)",
          R"(pup.json:1:50: terminateGracePeriod: "5" is not a time in seconds; use 0 to 31536000, without quotes)"}},
        {std::string{R"({"cmd": "x"})"sv},
         {R"(pup.json:1:1: processes: is missing; add "processes": [...])",
          R"(pup.json:1:2: cmd: `cmd` is not a key of the configuration; move it into an entry of `processes`)"}},
        {std::string{
             R"({"processes": [{"id": "a", "id": "b", "cmd": "x"}], "name": "n",
 "name": "m"})"sv},
         {R"(pup.json:1:28: processes[0].id: the key appears again, first on line 1; keep one of them)",
          R"(pup.json:2:2: name: the key appears again, first on line 1; keep one of them)"}},
        {in_process(R"("command": "x")"sv),
         {R"(pup.json:1:42: processes[0].command: `command` is not a key of a process; did you mean `cmd`?)"}},
        {in_process(R"("cmds": "x")"sv),
         {R"(pup.json:1:42: processes[0].cmds: `cmds` is not a key of a process; did you mean `cmd`?)"}},
        {in_process(R"("instances": 3)"sv),
         {R"(pup.json:1:42: processes[0].instances: `instances` is not a key of a process; move it into `cluster`)"}},
        {in_process(R"("enviroment": {})"sv),
         {R"(pup.json:1:42: processes[0].enviroment: `enviroment` is not a key of a process; did you mean `env`?)"}},
        {in_process(R"("restart_limit": 3)"sv),
         {R"(pup.json:1:42: processes[0].restart_limit: `restart_limit` is not a key of a process; did you mean `restartLimit`?)"}},
        {in_process(R"("Cwd": "/")"sv),
         {R"(pup.json:1:42: processes[0].Cwd: `Cwd` is not a key of a process; did you mean `cwd`?)"}},
        {in_process(R"("completely other": 1)"sv),
         {R"(pup.json:1:42: processes[0]["completely other"]: `completely other` is not a key of a process; remove it or use `id`, `cmd`, `cwd`, `env`, `path`, `autostart`, `restart`, `restartDelayMs`, `restartMaxDelayMs`, `restartLimit`, `restartPeriodMs`, `startLimit`, `terminateGracePeriod`, `terminateTimeout`, `stopSignal`, `readyTimeoutMs`, `watchdogMs`, `timeout`, `maxAgeMs`, `successExitCodes`, `noRestartExitCodes`, `loadBalancerStrategy`, `cluster`, `logger`, `ready`, `notify`, `hooks`, `cron`, `terminate`, `timeZone`, `overrun`, `watch`, `user`, `group`, `supplementaryGroups`, `umask`, `limits`, `nice`, `oomScoreAdjust`, `ioClass`, `ioPriority`, `noNewPrivileges`, `memoryMax`, `cpuMax`, `pidsMax`, `maxMemory`, `pidFile`, `envFile`, `inheritEnv`, `dependsOn`, `supervisor` or `significant`)"}},
        {in_cluster(R"("port": 80)"sv),
         {R"(pup.json:1:54: processes[0].cluster.port: `port` is not a key of a cluster; did you mean `commonPort` or `startPort`?)"}},
        {in_cluster(R"("instnces": 2)"sv),
         {R"(pup.json:1:54: processes[0].cluster.instnces: `instnces` is not a key of a cluster; did you mean `instances`?)"}},
        {in_cluster(R"("start_port": 80)"sv),
         {R"(pup.json:1:54: processes[0].cluster.start_port: `start_port` is not a key of a cluster; did you mean `startPort`?)"}},
        {in_cluster(R"("id": "x")"sv),
         {R"(pup.json:1:54: processes[0].cluster.id: `id` is not a key of a cluster; move it out of `cluster`)"}},
        {in_cluster(R"("qqqqqqq": 1)"sv),
         {R"(pup.json:1:54: processes[0].cluster.qqqqqqq: `qqqqqqq` is not a key of a cluster; remove it or use `instances`, `startPort`, `processStartPort`, `commonPort`, `commonHost`, `strategy`, `mode`, `drainTimeoutMs`, `maxConnections`, `idleTimeoutMs`, `connectTimeoutMs`, `healthCheck`, `proxyProtocol`, `maxSurge` or `maxUnavailable`)"}},
    };

const std::vector<bad_config> id_cases{
    {std::string{R"({"processes": [{"id": 5, "cmd": "x"}]})"sv},
     {R"(pup.json:1:23: processes[0].id: 5 is not a string; put it in double quotes)"}},
    {std::string{R"({"processes": [{"id": "", "cmd": "x"}]})"sv},
     {R"(pup.json:1:23: processes[0].id: is empty; use 1 to 64 of A-Z a-z 0-9 @ . _ -)"}},
    {std::string{R"({"processes": [{"id": "a b", "cmd": "x"}]})"sv},
     {R"(pup.json:1:23: processes[0].id: `a b` holds a character that is not allowed; use 1 to 64 of A-Z a-z 0-9 @ . _ -)"}},
    {std::string{R"({"processes": [{"id": "-a", "cmd": "x"}]})"sv},
     {R"(pup.json:1:23: processes[0].id: `-a` looks like an option on the command line; start it with another character)"}},
    {std::string{R"({"processes": [{"id": "all", "cmd": "x"}]})"sv},
     {R"(pup.json:1:23: processes[0].id: `all` means every process on the command line; choose another id)"}},
    {std::string{
         R"({"processes": [{"id": "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii", "cmd": "x"}]})"sv},
     {R"(pup.json:1:23: processes[0].id: `iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii...` has 65 characters, more than 64; shorten it)"}},
    {std::string{R"({"processes": [{"id": "hé", "cmd": "x"}]})"sv},
     {R"(pup.json:1:23: processes[0].id: `hé` holds a character that is not allowed; use 1 to 64 of A-Z a-z 0-9 @ . _ -)"}},
    {std::string{R"({"processes": [{"id": "a\u0000", "cmd": "x"}]})"sv},
     {R"(pup.json:1:23: processes[0].id: `a\u0000` holds a character that is not allowed; use 1 to 64 of A-Z a-z 0-9 @ . _ -)"}},
    {std::string{R"({"processes": [
{"id": "a", "cmd": "x"},
{"id": "b", "cmd": "x"},
{"id": "a", "cmd": "x"}
]})"sv},
     {R"(pup.json:4:8: processes[2].id: `a` is already the id of processes[0]; choose another id)"}},
    {std::string{R"({"processes": [
{"id": "web", "cmd": "x", "cluster": {}},
{"id": "web-5", "cmd": "x"},
{"id": "web-1024", "cmd": "x"},
{"id": "web-1025", "cmd": "x"},
{"id": "web-0", "cmd": "x"},
{"id": "web-05", "cmd": "x"}
]})"sv},
     {R"(pup.json:3:8: processes[1].id: `web-5` is the id of an instance of cluster `web` (processes[0]); choose an id that does not end in -1 to -1024)",
      R"(pup.json:4:8: processes[2].id: `web-1024` is the id of an instance of cluster `web` (processes[0]); choose an id that does not end in -1 to -1024)"}},
    {std::string{R"({"processes": [
{"id": "web-5", "cmd": "x"},
{"id": "web", "cmd": "x", "cluster": {}}
]})"sv},
     {R"(pup.json:3:8: processes[1].id: instance `web-5` of this cluster would have the id of processes[0]; choose another id for one of them)"}},
};

const std::vector<bad_config> command_cases{
    {std::string{R"({"processes": [{"id": "a", "cmd": []}]})"sv},
     {R"(pup.json:1:35: processes[0].cmd: is empty; name a program)"}},
    {std::string{R"({"processes": [{"id": "a", "cmd": ""}]})"sv},
     {R"(pup.json:1:35: processes[0].cmd: is empty; write a command)"}},
    {std::string{R"({"processes": [{"id": "a", "cmd": "  "}]})"sv},
     {R"(pup.json:1:35: processes[0].cmd: is empty; write a command)"}},
    {std::string{R"({"processes": [{"id": "a", "cmd": 5}]})"sv},
     {R"(pup.json:1:35: processes[0].cmd: 5 is not a command; write ["program", "argument"] or a shell command)"}},
    {std::string{R"({"processes": [{"id": "a", "cmd": {"x": 1}}]})"sv},
     {R"(pup.json:1:35: processes[0].cmd: an object is not a command; write ["program", "argument"] or a shell command)"}},
    {std::string{
         R"({"processes": [{"id": "a", "cmd": ["x", 5, true, null, ["y"], "", "a\u0000b"]}]})"sv},
     {R"(pup.json:1:41: processes[0].cmd[1]: 5 is not a string; put it in double quotes)",
      R"(pup.json:1:44: processes[0].cmd[2]: true is not a string; put it in double quotes)",
      R"(pup.json:1:50: processes[0].cmd[3]: null is not a string; write text in double quotes)",
      R"(pup.json:1:56: processes[0].cmd[4]: an array is not a string; write text in double quotes)",
      R"(pup.json:1:67: processes[0].cmd[6]: holds a NUL character, which no argument can; remove \u0000)"}},
    {std::string{R"({"processes": [{"id": "a", "cmd": [""]}]})"sv},
     {R"(pup.json:1:36: processes[0].cmd[0]: is empty; name a program)"}},
    {std::string{R"({"processes": [{"id": "a", "cmd": ["missing"]}]})"sv},
     {R"(pup.json:1:36: processes[0].cmd[0]: `missing` cannot be run: not found; install it, or add its folder to `path`)"}},
    {std::string{R"({"processes": [{"id": "a", "cmd": ["./missing"]}]})"sv},
     {R"(pup.json:1:36: processes[0].cmd[0]: `./missing` cannot be run: not found; correct its path or make it executable)"}},
    {std::string{
         R"({"processes": [{"id": "a", "cmd": ["x", "%{prot}", "%{zzz}", "%{port", "%{port}", "%{}", "%{env:}", "%{env:UNSET}", "%%{zzz}"]}]})"sv},
     {R"(pup.json:1:41: processes[0].cmd[1]: %{prot} is unknown; did you mean %{port}?)",
      R"(pup.json:1:52: processes[0].cmd[2]: %{zzz} is unknown; use %{port}, %{index}, %{id} or %{env:NAME}, or write %%{ for a literal %{)",
      R"(pup.json:1:62: processes[0].cmd[3]: `%{port` has no closing }; add the }, or write %%{ for a literal %{)",
      R"(pup.json:1:72: processes[0].cmd[4]: %{port} needs a port, and there is none; add a cluster with startPort)",
      R"(pup.json:1:83: processes[0].cmd[5]: %{} is unknown; use %{port}, %{index}, %{id} or %{env:NAME}, or write %%{ for a literal %{)",
      R"(pup.json:1:90: processes[0].cmd[6]: %{env:} is unknown; use %{port}, %{index}, %{id} or %{env:NAME}, or write %%{ for a literal %{)",
      R"(pup.json:1:101: processes[0].cmd[7]: variable `UNSET` is not set; set it before pup starts, or write the value)"}},
    {std::string{
         R"({"processes": [{"id": "a", "cmd": ["x", "%{port}"], "cluster": {"instances": 2}}]})"sv},
     {R"(pup.json:1:41: processes[0].cmd[1]: %{port} needs a port, and there is none; add cluster.startPort)"}},
    {in_process(R"("cwd": "/bad")"sv),
     {R"(pup.json:1:49: processes[0].cwd: `/bad`: no such folder; create it or name another folder)"}},
    {in_process(R"("cwd": 5)"sv),
     {R"(pup.json:1:49: processes[0].cwd: 5 is not a string; put it in double quotes)"}},
    {in_process(R"("cwd": "")"sv),
     {R"(pup.json:1:49: processes[0].cwd: is empty; name a folder or remove it)"}},
    {in_process(R"("cwd": "a\u0000")"sv),
     {R"(pup.json:1:49: processes[0].cwd: holds a NUL character, which no path can; remove \u0000)"}},
    {in_process(R"("cwd": "%{nope}")"sv),
     {R"(pup.json:1:49: processes[0].cwd: %{nope} is unknown; use %{port}, %{index}, %{id} or %{env:NAME}, or write %%{ for a literal %{)"}},
    {in_process(R"("cwd": "/%{port}")"sv),
     {R"(pup.json:1:49: processes[0].cwd: %{port} needs a port, and there is none; add a cluster with startPort)"}},
    {in_process(R"("path": 5)"sv),
     {R"(pup.json:1:50: processes[0].path: 5 is not a string; put it in double quotes)"}},
    {in_process(R"("path": "")"sv),
     {R"(pup.json:1:50: processes[0].path: is empty; name a folder or remove it)"}},
    {in_process(R"("path": "a::b")"sv),
     {R"(pup.json:1:50: processes[0].path: has an empty entry; remove the extra colon)"}},
    {in_process(R"("path": "a:")"sv),
     {R"(pup.json:1:50: processes[0].path: has an empty entry; remove the extra colon)"}},
    {in_process(R"("path": "a\u0000")"sv),
     {R"(pup.json:1:50: processes[0].path: holds a NUL character, which no path can; remove \u0000)"}},
    {in_process(R"("env": [])"sv),
     {R"(pup.json:1:49: processes[0].env: an array is not an object; write an object such as {"LANG": "C"})"}},
    {in_process(
         R"("env": {"A": 5, "B": true, "C": null, "D": "%{x}", "E=F": "x", "": "x", "G": "a\u0000", "H": "%{port}", "I": "%{env:NOPE}", "J": "x", "J": "y"})"sv),
     {R"(pup.json:1:55: processes[0].env.A: is not a string; write text in double quotes)",
      R"(pup.json:1:63: processes[0].env.B: is not a string; write text in double quotes)",
      R"(pup.json:1:74: processes[0].env.C: is not a string; write text in double quotes)",
      R"(pup.json:1:85: processes[0].env.D: holds an unknown or unclosed %{...}; use %{port}, %{index}, %{id} or %{env:NAME}, or write %%{ for a literal %{)",
      R"(pup.json:1:100: processes[0].env["E=F"]: `E=F` cannot name a variable; use a name without = and NUL)",
      R"(pup.json:1:109: processes[0].env[""]: `` cannot name a variable; use a name without = and NUL)",
      R"(pup.json:1:119: processes[0].env.G: holds a NUL character, which no variable can; remove \u0000)",
      R"(pup.json:1:135: processes[0].env.H: %{port} needs a port, and there is none; add a cluster with startPort)",
      R"(pup.json:1:151: processes[0].env.I: variable `NOPE` is not set; set it before pup starts, or write the value)",
      R"(pup.json:1:176: processes[0].env.J: the key appears again, first on line 1; keep one of them)"}},
};

const std::vector<bad_config> restart_cases{
    {in_process(R"("autostart": "yes")"sv),
     {R"(pup.json:1:55: processes[0].autostart: "yes" is not true or false; use true or false, without quotes)"}},
    {in_process(R"("autostart": 1)"sv),
     {R"(pup.json:1:55: processes[0].autostart: 1 is not true or false; use true or false, without quotes)"}},
    {in_process(R"("restart": "allways")"sv),
     {R"(pup.json:1:53: processes[0].restart: "allways" is not a restart policy; did you mean "always"?)"}},
    {in_process(R"("restart": "sometimes")"sv),
     {R"(pup.json:1:53: processes[0].restart: "sometimes" is not a restart policy; use "always", "error" or "never")"}},
    {in_process(R"("restart": true)"sv),
     {R"(pup.json:1:53: processes[0].restart: true is not a restart policy; use "always", "error" or "never")"}},
    {in_process(R"("restartDelayMs": -1)"sv),
     {R"(pup.json:1:60: processes[0].restartDelayMs: -1 is not a time in whole milliseconds; use 0 to 31536000000)"}},
    {in_process(R"("restartDelayMs": 0.5)"sv),
     {R"(pup.json:1:60: processes[0].restartDelayMs: 0.5 is not a time in whole milliseconds; use 0 to 31536000000)"}},
    {in_process(R"("restartDelayMs": "100")"sv),
     {R"(pup.json:1:60: processes[0].restartDelayMs: "100" is not a time in whole milliseconds; use 0 to 31536000000, without quotes)"}},
    {in_process(R"("restartDelayMs": 31536000001)"sv),
     {R"(pup.json:1:60: processes[0].restartDelayMs: 31536000001 is not a time in whole milliseconds; use 0 to 31536000000)"}},
    {in_process(R"("restartDelayMs": 1e300)"sv),
     {R"(pup.json:1:60: processes[0].restartDelayMs: 1e300 is not a time in whole milliseconds; use 0 to 31536000000)"}},
    {in_process(R"("restartDelayMs": 1e309)"sv),
     {R"(pup.json:1:60: processes[0].restartDelayMs: 1e309 is not a time in whole milliseconds; use 0 to 31536000000)"}},
    {in_process(R"("restartMaxDelayMs": 0)"sv),
     {R"(pup.json:1:63: processes[0].restartMaxDelayMs: 0 is not a time in whole milliseconds; use 1 to 31536000000)"}},
    {in_process(R"("restartPeriodMs": 0)"sv),
     {R"(pup.json:1:61: processes[0].restartPeriodMs: 0 is not a time in whole milliseconds; use 1 to 31536000000)"}},
    {in_process(R"("startLimit": -1)"sv),
     {R"(pup.json:1:56: processes[0].startLimit: -1 is not a number of starts; use 0 to 1000000)"}},
    {in_process(R"("restartLimit": -1)"sv),
     {R"(pup.json:1:58: processes[0].restartLimit: -1 is not a number of restarts; use 0 to 1000000)"}},
    {in_process(R"("restartLimit": 1000001)"sv),
     {R"(pup.json:1:58: processes[0].restartLimit: 1000001 is not a number of restarts; use 0 to 1000000)"}},
    {in_process(R"("restartLimit": 1.5)"sv),
     {R"(pup.json:1:58: processes[0].restartLimit: 1.5 is not a number of restarts; use 0 to 1000000)"}},
    {in_process(R"("restartLimit": 99999999999999999999)"sv),
     {R"(pup.json:1:58: processes[0].restartLimit: 99999999999999999999 is not a number of restarts; use 0 to 1000000)"}},
    {in_process(R"("terminateTimeout": 31536000.001)"sv),
     {R"(pup.json:1:62: processes[0].terminateTimeout: 31536000.001 is not a time in seconds; use 0 to 31536000)"}},
    {in_process(R"("terminateTimeout": "30")"sv),
     {R"(pup.json:1:62: processes[0].terminateTimeout: "30" is not a time in seconds; use 0 to 31536000, without quotes)"}},
    {in_process(R"("terminateGracePeriod": -0.001)"sv),
     {R"(pup.json:1:66: processes[0].terminateGracePeriod: -0.001 is not a time in seconds; use 0 to 31536000)"}},
    {in_process(R"("terminateGracePeriod": null)"sv),
     {R"(pup.json:1:66: processes[0].terminateGracePeriod: null is not a time in seconds; use 0 to 31536000)"}},
    {in_process(R"("readyTimeoutMs": 0)"sv),
     {R"(pup.json:1:60: processes[0].readyTimeoutMs: 0 is not a time in whole milliseconds; use 1 to 31536000000)"}},
    {in_process(R"("readyTimeoutMs": [])"sv),
     {R"(pup.json:1:60: processes[0].readyTimeoutMs: an array is not a time in whole milliseconds; use 1 to 31536000000)"}},
    {in_process(R"("successExitCodes": 0)"sv),
     {R"(pup.json:1:62: processes[0].successExitCodes: 0 is not an array; write an array of numbers, such as [0])"}},
    {in_process(R"("successExitCodes": [0, 256, -1, "0", 1.5])"sv),
     {R"(pup.json:1:66: processes[0].successExitCodes[1]: 256 is not an exit code; use 0 to 255)",
      R"(pup.json:1:71: processes[0].successExitCodes[2]: -1 is not an exit code; use 0 to 255)",
      R"(pup.json:1:75: processes[0].successExitCodes[3]: "0" is not an exit code; use 0 to 255, without quotes)",
      R"(pup.json:1:80: processes[0].successExitCodes[4]: 1.5 is not an exit code; use 0 to 255)"}},
    {in_process(R"("noRestartExitCodes": {})"sv),
     {R"(pup.json:1:64: processes[0].noRestartExitCodes: an object is not an array; write an array of numbers, such as [0])"}},
    {in_process(R"("noRestartExitCodes": [256])"sv),
     {R"(pup.json:1:65: processes[0].noRestartExitCodes[0]: 256 is not an exit code; use 0 to 255)"}},
    {in_process(R"("stopSignal": 15)"sv),
     {R"(pup.json:1:56: processes[0].stopSignal: 15 is not a signal to stop with; use "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGABRT", "SIGALRM", "SIGWINCH" or "SIGPWR")"}},
    {in_process(R"("stopSignal": "sigterm")"sv),
     {R"(pup.json:1:56: processes[0].stopSignal: "sigterm" is not a signal to stop with; did you mean "SIGTERM"?)"}},
    {in_process(R"("stopSignal": "SIGKILL")"sv),
     {R"(pup.json:1:56: processes[0].stopSignal: "SIGKILL" gives a process no chance to stop; use "SIGTERM", SIGKILL follows after terminateTimeout)"}},
    {in_process(R"("stopSignal": "STOP")"sv),
     {R"(pup.json:1:56: processes[0].stopSignal: "STOP" gives a process no chance to stop; use "SIGTERM", SIGKILL follows after terminateTimeout)"}},
    {in_process(R"("stopSignal": "SIGSEGV")"sv),
     {R"(pup.json:1:56: processes[0].stopSignal: "SIGSEGV" is not a signal to stop with; use "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGABRT", "SIGALRM", "SIGWINCH" or "SIGPWR")"}},
    {in_process(R"("stopSignal": "")"sv),
     {R"(pup.json:1:56: processes[0].stopSignal: "" is not a signal to stop with; use "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGABRT", "SIGALRM", "SIGWINCH" or "SIGPWR")"}},
    {in_process(R"("ready": "port")"sv),
     {R"(pup.json:1:51: processes[0].ready: "port" is not an object; write {"type": "port"})"}},
    {in_process(R"("ready": {})"sv),
     {R"(pup.json:1:51: processes[0].ready.type: is missing; add "port" or "spawn")"}},
    {in_process(R"("ready": {"type": 5})"sv),
     {R"(pup.json:1:60: processes[0].ready.type: 5 is not a kind of readiness; use "port", "http", "notify", "fd", "log", "exec" or "spawn")"}},
    {in_process(R"("ready": {"type": "prot"})"sv),
     {R"(pup.json:1:60: processes[0].ready.type: "prot" is not a kind of readiness; did you mean "port"?)"}},
    {in_process(R"("ready": {"type": "port"})"sv),
     {R"(pup.json:1:60: processes[0].ready.type: `port` needs a port, and there is none; add a cluster with startPort or use `spawn`)"}},
    {in_cluster(R"(}, "ready": {"type": "port")"sv),
     {R"(pup.json:1:75: processes[0].ready.type: `port` needs a port, and there is none; add cluster.startPort or use `spawn`)"}},
    {in_process(R"("ready": {"type": "spawn", "path": "/"})"sv),
     {R"(pup.json:1:69: processes[0].ready.path: has no effect with type "spawn"; remove it)"}},
    {in_process(R"("ready": {"type": "spawn", "tpye": "/"})"sv),
     {R"(pup.json:1:69: processes[0].ready.tpye: `tpye` is not a key of `ready`; did you mean `type`?)"}},
    {in_process(R"("ready": {"type": "http", "path": "/"})"sv),
     {R"(pup.json:1:60: processes[0].ready.type: `http` needs a port, and there is none; add a cluster with startPort or use `spawn`)"}},
    {in_process(R"("ready": {"type": "notify", "cmd": "x"})"sv),
     {R"(pup.json:1:70: processes[0].ready.cmd: has no effect with type "notify"; remove it)"}},
    {in_process(R"("ready": {"type": "fd"}, "watchdogMs": 1)"sv),
     {R"(pup.json:1:81: processes[0].watchdogMs: does not go together with ready `fd`; use ready `notify`, or remove it)"}},
    {in_process(R"("ready": {"type": "exec"})"sv),
     {R"(pup.json:1:51: processes[0].ready.cmd: is missing; add a command)"}},
    {in_process(R"("ready": {"type": "exec", "cmd": []})"sv),
     {R"(pup.json:1:75: processes[0].ready.cmd: is empty; name a program)"}},
    {in_process(R"("ready": {"type": "exec", "cmd": ["x", "%{prot}"]})"sv),
     {R"(pup.json:1:81: processes[0].ready.cmd[1]: %{prot} is unknown; did you mean %{port}?)"}},
    {in_cluster(R"("startPort": 1}, "ready": {"type": "http", "path": "x")"sv),
     {R"(pup.json:1:105: processes[0].ready.path: `x` is not the path of a request; use one such as "/health", without blanks)"}},
    {in_process(R"("ready": {"type": "spawn"}, "notify": true)"sv),
     {R"(pup.json:1:80: processes[0].notify: contradicts ready.type; remove one of them)"}},
    {in_process(R"("ready": {"type": "log"})"sv),
     {R"(pup.json:1:51: processes[0].ready.pattern: is missing; add a regular expression)"}},
    {in_process(R"("ready": {"type": "log", "pattern": ""})"sv),
     {R"(pup.json:1:78: processes[0].ready.pattern: is empty; write a regular expression)"}},
    {in_process(R"("ready": {"type": "log", "pattern": "up (on"})"sv),
     {R"(pup.json:1:78: processes[0].ready.pattern: is no regular expression: missing ): up (on; write one as RE2 understands it, such as "[Ll]istening")"}},
    {in_process(R"("ready": {"type": "log", "pattern": 5})"sv),
     {R"(pup.json:1:78: processes[0].ready.pattern: 5 is not a string; put it in double quotes)"}},
};

const std::vector<bad_config>
    cluster_cases{
        {in_process(R"("cluster": 4)"sv),
         {R"(pup.json:1:53: processes[0].cluster: 4 is not an object; write {"instances": 2})"}},
        {in_cluster(R"("instances": -1)"sv),
         {R"(pup.json:1:67: processes[0].cluster.instances: -1 is not a number of instances; use 0 to 1024 or "max")"}},
        {in_cluster(R"("instances": 1025)"sv),
         {R"(pup.json:1:67: processes[0].cluster.instances: 1025 is not a number of instances; use 0 to 1024 or "max")"}},
        {in_cluster(R"("instances": 2.5)"sv),
         {R"(pup.json:1:67: processes[0].cluster.instances: 2.5 is not a number of instances; use 0 to 1024 or "max")"}},
        {in_cluster(R"("instances": "4")"sv),
         {R"(pup.json:1:67: processes[0].cluster.instances: "4" is not a number of instances; use 0 to 1024 or "max", without quotes)"}},
        {in_cluster(R"("instances": "four")"sv),
         {R"(pup.json:1:67: processes[0].cluster.instances: "four" is not a number of instances; use 0 to 1024 or "max")"}},
        {in_cluster(R"("instances": true)"sv),
         {R"(pup.json:1:67: processes[0].cluster.instances: true is not a number of instances; use 0 to 1024 or "max")"}},
        {in_cluster(R"("startPort": 0)"sv),
         {R"(pup.json:1:67: processes[0].cluster.startPort: 0 is not a port; use 1 to 65535)"}},
        {in_cluster(R"("startPort": 65536)"sv),
         {R"(pup.json:1:67: processes[0].cluster.startPort: 65536 is not a port; use 1 to 65535)"}},
        {in_cluster(R"("startPort": "8000")"sv),
         {R"(pup.json:1:67: processes[0].cluster.startPort: "8000" is not a port; use 1 to 65535, without quotes)"}},
        {in_cluster(R"("processStartPort": 70000)"sv),
         {R"(pup.json:1:74: processes[0].cluster.processStartPort: 70000 is not a port; use 1 to 65535)"}},
        {in_cluster(R"("startPort": 8000, "processStartPort": 9000)"sv),
         {R"(pup.json:1:93: processes[0].cluster.processStartPort: 9000 contradicts startPort 8000; keep one of them)"}},
        {in_cluster(R"("commonPort": 0, "startPort": 8000)"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonPort: 0 is not a port; use 1 to 65535)"}},
        {in_cluster(R"("commonPort": 70000, "startPort": 8000)"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonPort: 70000 is not a port; use 1 to 65535)"}},
        {in_cluster(R"("commonPort": 3000)"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonPort: a balancer needs instances with ports; add startPort)"}},
        {in_cluster(R"("commonPort": 3000, "startPort": "x")"sv),
         {R"(pup.json:1:87: processes[0].cluster.startPort: "x" is not a port; use 1 to 65535)"}},
        {in_cluster(R"("instances": 10, "startPort": 65530)"sv),
         {R"(pup.json:1:84: processes[0].cluster.startPort: 10 instances from port 65530 reach port 65539, above 65535; use 65526 or lower)"}},
        {in_cluster(R"("instances": 10, "processStartPort": 65530)"sv),
         {R"(pup.json:1:91: processes[0].cluster.processStartPort: 10 instances from port 65530 reach port 65539, above 65535; use 65526 or lower)"}},
        {in_cluster(
             R"("instances": 4, "startPort": 8000, "commonPort": 8003)"sv),
         {R"(pup.json:1:103: processes[0].cluster.commonPort: port 8003 of `a` lies within ports 8000 to 8003 of its own instances; choose a port that no other process uses)"}},
        {in_cluster(R"("commonHost": 5)"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonHost: 5 is not a string; put it in double quotes)"}},
        {in_cluster(R"("commonHost": "")"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonHost: is empty; remove it to listen on all addresses)"}},
        {in_cluster(R"("commonHost": "localhost")"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonHost: `localhost` is not a numeric IPv4 or IPv6 address; use `127.0.0.1` or `::1`)"}},
        {in_cluster(R"("commonHost": "example.org")"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonHost: `example.org` is not a numeric IPv4 or IPv6 address; use one such as `127.0.0.1`, or remove it for all addresses)"}},
        {in_cluster(R"("commonHost": "256.0.0.1")"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonHost: `256.0.0.1` is not a numeric IPv4 or IPv6 address; use one such as `127.0.0.1`, or remove it for all addresses)"}},
        {in_cluster(R"("commonHost": "1.2.3")"sv), {R"(pup.json:1:68: processes[0].cluster.commonHost: `1.2.3` is not a numeric IPv4 or IPv6 address; use one such as `127.0.0.1`, or remove it for all addresses)"}},
        {in_cluster(R"("commonHost": "01.2.3.4")"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonHost: `01.2.3.4` is not a numeric IPv4 or IPv6 address; use one such as `127.0.0.1`, or remove it for all addresses)"}},
        {in_cluster(R"("commonHost": "1:2:3")"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonHost: `1:2:3` is not a numeric IPv4 or IPv6 address; use one such as `127.0.0.1`, or remove it for all addresses)"}},
        {in_cluster(R"("commonHost": ":::")"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonHost: `:::` is not a numeric IPv4 or IPv6 address; use one such as `127.0.0.1`, or remove it for all addresses)"}},
        {in_cluster(R"("commonHost": "fe80::1%eth0")"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonHost: `fe80::1%eth0` is not a numeric IPv4 or IPv6 address; use one such as `127.0.0.1`, or remove it for all addresses)"}},
        {in_cluster(R"("commonHost": "[::1]")"sv),
         {R"(pup.json:1:68: processes[0].cluster.commonHost: `[::1]` is not a numeric IPv4 or IPv6 address; use one such as `127.0.0.1`, or remove it for all addresses)"}},
        {in_cluster(R"("strategy": "round_robin")"sv),
         {R"(pup.json:1:66: processes[0].cluster.strategy: "round_robin" is not a strategy; did you mean "round-robin"?)"}},
        {in_cluster(R"("strategy": "fastest")"sv),
         {R"(pup.json:1:66: processes[0].cluster.strategy: "fastest" is not a strategy; use "round-robin", "source-ip-hash", "ip-hash", "least-connections", "random" or "least-time")"}},
        {in_cluster(R"("strategy": 5)"sv),
         {R"(pup.json:1:66: processes[0].cluster.strategy: 5 is not a strategy; use "round-robin", "source-ip-hash", "ip-hash", "least-connections", "random" or "least-time")"}},
        {in_cluster(R"("mode": "inherit")"sv),
         {R"(pup.json:1:62: processes[0].cluster.mode: `inherit` needs a port to inherit; add commonPort)"}},
        {in_cluster(
             R"("mode": "inherit", "commonPort": 3000, "strategy": "round-robin")"sv),
         {R"(pup.json:1:105: processes[0].cluster.strategy: the kernel cannot do `round-robin` for sockets that instances inherit; use "random" or "source-ip-hash", or mode "proxy")"}},
        {in_cluster(
             R"("mode": "inherit", "commonPort": 3000, "maxConnections": 5, "idleTimeoutMs": 5, "proxyProtocol": "v1")"sv),
         {R"(pup.json:1:111: processes[0].cluster.maxConnections: has no effect in mode `inherit`; remove it, or use mode "proxy")",
          R"(pup.json:1:131: processes[0].cluster.idleTimeoutMs: has no effect in mode `inherit`; remove it, or use mode "proxy")", R"(pup.json:1:151: processes[0].cluster.proxyProtocol: has no effect in mode `inherit`; remove it, or use mode "proxy")"}},
        {in_cluster(R"("mode": "tcp")"sv),
         {R"(pup.json:1:62: processes[0].cluster.mode: "tcp" is not a mode; use "proxy" or "inherit")"}},
        {in_cluster(R"("drainTimeoutMs": -1)"sv),
         {R"(pup.json:1:72: processes[0].cluster.drainTimeoutMs: -1 is not a time in whole milliseconds; use 0 to 31536000000)"}},
        {in_cluster(R"("drainTimeoutMs": 31536000001)"sv),
         {R"(pup.json:1:72: processes[0].cluster.drainTimeoutMs: 31536000001 is not a time in whole milliseconds; use 0 to 31536000000)"}},
        {in_cluster(R"("maxConnections": -1)"sv),
         {R"(pup.json:1:72: processes[0].cluster.maxConnections: -1 is not a number of connections; use 0 to 1000000)"}},
        {in_cluster(R"("maxConnections": 1000001)"sv),
         {R"(pup.json:1:72: processes[0].cluster.maxConnections: 1000001 is not a number of connections; use 0 to 1000000)"}},
        {in_cluster(R"("maxSurge": -1)"sv),
         {R"(pup.json:1:66: processes[0].cluster.maxSurge: -1 is not a number of instances; use 0 to 1024)"}},
        {in_cluster(R"("maxUnavailable": "25%")"sv),
         {R"(pup.json:1:72: processes[0].cluster.maxUnavailable: "25%" is not a number of instances; use 0 to 1024)"}},
        {in_cluster(R"("maxSurge": 0, "maxUnavailable": 0)"sv),
         {R"(pup.json:1:87: processes[0].cluster.maxUnavailable: 0 together with maxSurge 0 lets nothing be replaced; use 1 or more for one of them)"}},
        {in_cluster(R"("idleTimeoutMs": -1)"sv),
         {R"(pup.json:1:71: processes[0].cluster.idleTimeoutMs: -1 is not a time in whole milliseconds; use 0 to 31536000000)"}},
        {in_cluster(R"("idleTimeoutMs": "x")"sv),
         {R"(pup.json:1:71: processes[0].cluster.idleTimeoutMs: "x" is not a time in whole milliseconds; use 0 to 31536000000)"}},
        {in_cluster(R"("connectTimeoutMs": 0)"sv),
         {R"(pup.json:1:74: processes[0].cluster.connectTimeoutMs: 0 is not a time in whole milliseconds; use 1 to 31536000000)"}},
        {in_process(R"("loadBalancerStrategy": "random")"sv),
         {R"(pup.json:1:42: processes[0].loadBalancerStrategy: has no effect without a cluster; add `cluster` or remove it)"}},
        {in_process(R"("loadBalancerStrategy": "randon", "cluster": {})"sv),
         {R"(pup.json:1:66: processes[0].loadBalancerStrategy: "randon" is not a strategy; did you mean "random"?)"}},
        {in_process(
             R"("loadBalancerStrategy": "random", "cluster": {"strategy": "ip-hash"})"sv),
         {R"(pup.json:1:66: processes[0].loadBalancerStrategy: "random" contradicts cluster.strategy "source-ip-hash"; keep one of them)"}},
        {std::string{R"({"processes": [
{"id": "a", "cmd": ["x"], "cluster": {"instances": 4, "startPort": 8000}},
{"id": "b", "cmd": ["x"], "cluster": {"instances": 4, "startPort": 8003}}
]})"sv},
         {R"(pup.json:3:68: processes[1].cluster.startPort: ports 8003 to 8006 of `b` overlap with ports 8000 to 8003 of `a`; choose ports that no other process uses)"}},
        {std::string{R"({"processes": [
{"id": "a", "cmd": ["x"], "cluster": {"instances": 4, "startPort": 8000}},
{"id": "b", "cmd": ["x"], "cluster": {"instances": 1, "startPort": 8001}}
]})"sv},
         {R"(pup.json:3:68: processes[1].cluster.startPort: port 8001 of `b` overlaps with ports 8000 to 8003 of `a`; choose ports that no other process uses)"}},
        {std::string{R"({"processes": [
{"id": "a", "cmd": ["x"], "cluster": {"instances": 4, "startPort": 8000}},
{"id": "b", "cmd": ["x"], "cluster": {"instances": 9, "processStartPort": 7999}}
]})"sv},
         {R"(pup.json:3:75: processes[1].cluster.processStartPort: ports 7999 to 8007 of `b` overlap with ports 8000 to 8003 of `a`; choose ports that no other process uses)"}},
        {std::string{R"({"processes": [
{"id": "a", "cmd": ["x"], "cluster": {"instances": 4, "startPort": 8000, "commonPort": 3000}},
{"id": "b", "cmd": ["x"], "cluster": {"instances": 4, "startPort": 2997}}
]})"sv},
         {R"(pup.json:3:68: processes[1].cluster.startPort: ports 2997 to 3000 of `b` overlap with commonPort 3000 of `a`; choose ports that no other process uses)"}},
        {std::string{R"({"processes": [
{"id": "a", "cmd": ["x"], "cluster": {"instances": 4, "startPort": 8000}},
{"id": "b", "cmd": ["x"], "cluster": {"startPort": 9000, "commonPort": 8003}}
]})"sv},
         {R"(pup.json:3:72: processes[1].cluster.commonPort: port 8003 of `b` lies within ports 8000 to 8003 of `a`; choose a port that no other process uses)"}},
        {std::string{R"({"processes": [
{"id": "a", "cmd": ["x"], "cluster": {"startPort": 8000, "commonPort": 3000}},
{"id": "b", "cmd": ["x"], "cluster": {"startPort": 9000, "commonPort": 3000}}
]})"sv},
         {R"(pup.json:3:72: processes[1].cluster.commonPort: port 3000 of `b` is already the commonPort of `a`; choose another port, or a different commonHost for each)"}},
        {std::string{R"({"processes": [
{"id": "a", "cmd": ["x"], "cluster": {"startPort": 8000, "commonPort": 3000, "commonHost": "127.0.0.1"}},
{"id": "b", "cmd": ["x"], "cluster": {"startPort": 9000, "commonPort": 3000, "commonHost": "0.0.0.0"}}
]})"sv},
         {R"(pup.json:3:72: processes[1].cluster.commonPort: port 3000 of `b` is already the commonPort of `a`; choose another port, or a different commonHost for each)"}},
        {std::string{R"({"processes": [
{"id": "a", "cmd": ["x"], "cluster": {"startPort": 8000, "commonPort": 3000, "commonHost": "::1"}},
{"id": "b", "cmd": ["x"], "cluster": {"startPort": 9000, "commonPort": 3000, "commonHost": "0:0:0:0:0:0:0:1"}}
]})"sv},
         {R"(pup.json:3:72: processes[1].cluster.commonPort: port 3000 of `b` is already the commonPort of `a`; choose another port, or a different commonHost for each)"}},
    };

const std::vector<bad_config>
    later_cases{
        {std::string{
             R"({"processes": [{"id": "a", "cmd": ["x"]}], "api": {}})"sv},
         {R"(pup.json:1:44: api: `api` is not supported yet; remove it)"}},
        {std::string{
             R"({"processes": [{"id": "a", "cmd": ["x"]}], "api": true})"sv},
         {R"(pup.json:1:51: api: true is not an object; write an object)"}},
        {in_process(R"("cron": 5)"sv),
         {R"(pup.json:1:50: processes[0].cron: 5 is not a string; put it in double quotes)"}},
        {in_process(R"("cron": "")"sv),
         {R"(pup.json:1:50: processes[0].cron: is empty; write one such as "0 3 * * *", daily at 3:00)"}},
        {in_process(R"("cron": "* 24 * * *")"sv),
         {R"(pup.json:1:50: processes[0].cron: hour: `24` is not an hour; use 0 to 23)"}},
        {in_process(R"("terminate": "@dayly")"sv),
         {R"(pup.json:1:55: processes[0].terminate: `@dayly` is unknown; did you mean "@daily"?)"}},
        {in_process(R"("timeZone": "UTC")"sv),
         {R"(pup.json:1:42: processes[0].timeZone: has no effect without a schedule; add `cron` or `terminate`, or remove it)"}},
        {in_process(R"("cron": "@daily", "timeZone": "")"sv),
         {R"(pup.json:1:72: processes[0].timeZone: is empty; remove it to use the machine's)"}},
        {in_process(R"("cron": "@daily", "timeZone": "Moon")"sv),
         {R"(pup.json:1:72: processes[0].timeZone: no zone; use UTC)"}},
        {in_process(R"("terminate": 5)"sv),
         {R"(pup.json:1:55: processes[0].terminate: 5 is not a string; put it in double quotes)"}},
        {in_process(R"("overrun": true)"sv),
         {R"(pup.json:1:42: processes[0].overrun: has no effect without a schedule; add `cron` or remove it)"}},
        {in_process(R"("overrun": 1)"sv),
         {R"(pup.json:1:53: processes[0].overrun: 1 is not true or false; use true or false, without quotes)"}},
        {in_process(R"("pidFile": 5)"sv),
         {R"(pup.json:1:53: processes[0].pidFile: 5 is not a string; put it in double quotes)"}},
        {in_process(
             R"("hooks": {"preStrat": "x", "postStop": {"timeoutMs": 0}, "preStop": 5})"sv),
         {R"(pup.json:1:52: processes[0].hooks.preStrat: `preStrat` is not a key of `hooks`; did you mean `preStart`?)",
          R"(pup.json:1:81: processes[0].hooks.postStop.cmd: is missing; add a command)",
          R"(pup.json:1:95: processes[0].hooks.postStop.timeoutMs: 0 is not a time in whole milliseconds; use 1 to 31536000000)",
          R"(pup.json:1:110: processes[0].hooks.preStop: 5 is not a command; write ["program", "argument"] or a shell command)"}},
        {in_process(R"("hooks": [])"sv),
         {R"(pup.json:1:51: processes[0].hooks: an array is not an object; write an object with `preStart`, `postStart`, `preStop` or `postStop`)"}},
        {in_process(R"("nice": 20)"sv),
         {R"(pup.json:1:50: processes[0].nice: 20 is not a nice value; use -20 to 19)"}},
        {in_process(R"("oomScoreAdjust": 1001)"sv),
         {R"(pup.json:1:60: processes[0].oomScoreAdjust: 1001 is not an adjustment; use -1000 to 1000)"}},
        {in_process(R"("ioClass": "fast")"sv),
         {R"(pup.json:1:53: processes[0].ioClass: "fast" is not an I/O class; use "realtime", "best-effort" or "idle")"}},
        {in_process(R"("maxMemory": 300)"sv),
         {R"(pup.json:1:55: processes[0].maxMemory: 300 is not a string; put it in double quotes)"}},
        {in_process(R"("maxMemory": "300MB")"sv),
         {R"(pup.json:1:55: processes[0].maxMemory: "300MB" is not an amount of memory; use a number with K, M, G or T, such as "300M", 1M at least)"}},
        {in_process(R"("user": "")"sv),
         {R"(pup.json:1:50: processes[0].user: is empty; use a name or a number)"}},
        {in_process(R"("user": -1)"sv),
         {R"(pup.json:1:50: processes[0].user: -1 is not an account; use 0 to 4294967293 or a name)"}},
        {in_process(R"("group": [])"sv),
         {R"(pup.json:1:51: processes[0].group: an array is not a string; write text in double quotes)"}},
        {in_process(R"("umask": 22)"sv),
         {R"(pup.json:1:51: processes[0].umask: 22 is not a string; put it in double quotes)"}},
        {in_process(R"("umask": "088")"sv),
         {R"(pup.json:1:51: processes[0].umask: "088" is not a umask; use octal digits, such as "022")"}},
        {in_process(R"("limits": {"nofile": -1})"sv),
         {R"(pup.json:1:63: processes[0].limits.nofile: -1 is not a limit; use 0 to 9007199254740992 or "unlimited")"}},
        {in_process(R"("limits": 5)"sv),
         {R"(pup.json:1:52: processes[0].limits: 5 is not an object; write an object such as {"nofile": 1024})"}},
        {in_process(R"("notify": "true")"sv),
         {R"(pup.json:1:52: processes[0].notify: "true" is not true or false; use true or false, without quotes)"}},
        {in_cluster(
             R"("healthCheck": {"type": "http", "path": "/", "intervalMs": 1, "timeoutMs": 1, "unhealthyAfter": 1, "healthyAfter": 1})"sv),
         {R"(pup.json:1:69: processes[0].cluster.healthCheck: needs instances with ports of their own; add startPort)"}},
        {in_cluster(
             R"("startPort": 8000, "healthCheck": {"type": "ping", "path": 5, "intervalMs": 0, "unhealthyAfter": 0, "x": 1})"sv),
         {R"(pup.json:1:97: processes[0].cluster.healthCheck.type: "ping" is not a type of health check; use "tcp" or "http")",
          R"(pup.json:1:113: processes[0].cluster.healthCheck.path: 5 is not a string; put it in double quotes)",
          R"(pup.json:1:130: processes[0].cluster.healthCheck.intervalMs: 0 is not a time in whole milliseconds; use 1 to 31536000000)", R"(pup.json:1:151: processes[0].cluster.healthCheck.unhealthyAfter: 0 is not a number of checks; use 1 to 1000)", R"(pup.json:1:154: processes[0].cluster.healthCheck.x: `x` is not a key of a health check; remove it or use `type`, `path`, `intervalMs`, `timeoutMs`, `unhealthyAfter` or `healthyAfter`)"}},
        {in_cluster(R"("startPort": 8000, "healthCheck": {})"sv),
         {R"(pup.json:1:88: processes[0].cluster.healthCheck.type: is missing; add "tcp" or "http")"}},
        {in_cluster(R"("healthCheck": true)"sv),
         {R"(pup.json:1:69: processes[0].cluster.healthCheck: true is not an object; write an object such as {"type": "tcp"})"}},
        {in_cluster(
             R"("startPort": 8000, "healthCheck": {"type": "tcp", "path": "/x"})"sv),
         {R"(pup.json:1:104: processes[0].cluster.healthCheck.path: has no effect with type "tcp"; remove it)"}},
        {in_cluster(
             R"("startPort": 8000, "healthCheck": {"type": "http", "path": "x y"})"sv),
         {R"(pup.json:1:113: processes[0].cluster.healthCheck.path: `x y` is not the path of a request; use one such as "/health", without blanks)"}},
        {in_cluster(R"("proxyProtocol": 2)"sv),
         {R"(pup.json:1:71: processes[0].cluster.proxyProtocol: 2 is not a version of the PROXY protocol; use "v1" or "v2")"}},
    };

const std::vector<bad_config> several_cases{
    {std::string{R"({
  // a comment, and every fault below is reported
  "name": "my pup",
  "processes": [
    {
      "id": "web",
      "cmd": ["missing", "%{prot}"],
      "cluster": {
        "instances": 2000,
        "commonPort": 70000,
        "startPort": 8000,
        "stratgy": "round-robin",
      },
    },
    {
      "id": "web",
      "cmd": [],
      "cwd": "/bad",
      "restartLimit": "3",
      "cluster": {"instances": 2, "commonPort": 9001, "startPort": 9000}
    },
    "worker",
    {"cmd": "sleep 1", "restart": "Always"}
  ],
  "nmae": "x"
}
)"sv},
     {R"(pup.json:3:11: name: `my pup` holds a character that is not allowed; use 1 to 64 of A-Z a-z 0-9 @ . _ -)",
      R"(pup.json:7:15: processes[0].cmd[0]: `missing` cannot be run: not found; install it, or add its folder to `path`)",
      R"(pup.json:7:26: processes[0].cmd[1]: %{prot} is unknown; did you mean %{port}?)",
      R"(pup.json:9:22: processes[0].cluster.instances: 2000 is not a number of instances; use 0 to 1024 or "max")",
      R"(pup.json:10:23: processes[0].cluster.commonPort: 70000 is not a port; use 1 to 65535)",
      R"(pup.json:12:9: processes[0].cluster.stratgy: `stratgy` is not a key of a cluster; did you mean `strategy`?)",
      R"(pup.json:16:13: processes[1].id: `web` is already the id of processes[0]; choose another id)",
      R"(pup.json:17:14: processes[1].cmd: is empty; name a program)",
      R"(pup.json:18:14: processes[1].cwd: `/bad`: no such folder; create it or name another folder)",
      R"(pup.json:19:23: processes[1].restartLimit: "3" is not a number of restarts; use 0 to 1000000, without quotes)",
      R"(pup.json:20:49: processes[1].cluster.commonPort: port 9001 of `web` lies within ports 9000 to 9001 of its own instances; choose a port that no other process uses)",
      R"(pup.json:22:5: processes[2]: "worker" is not an object; write {"id": ..., "cmd": [...]})",
      R"(pup.json:23:5: processes[3].id: is missing; add an id such as "web")",
      R"(pup.json:23:35: processes[3].restart: "Always" is not a restart policy; did you mean "always"?)",
      R"(pup.json:25:3: nmae: `nmae` is not a key of the configuration; did you mean `name`?)"}},
};

// Boost.JSON 1.81 refuses it as text, 1.83 leaves it to the rules of its key.
SCENARIO("an exponent beyond all bounds is a fault") {
  const auto faults = faults_of(
      R"({"processes": [{"id": "a", "cmd": ["x"], "restartDelayMs": 1e99999999999}]})");
  REQUIRE(faults.size() == 1);
  CHECK(faults[0].starts_with("pup.json:1:60: "));
}

void require_faults(const std::vector<bad_config>& cases) {
  for (auto& x : cases) {
    INFO(x.text);
    CHECK(faults_of(x.text) == x.faults);
  }
}

const auto manual_config = R"({
  "processes": [
    {
      "id": "my-scalable-app",
      "cmd": ["deno","run","--allow-net","server.ts"],
      "cluster": {
        "instances": 4,
        "commonPort": 3000,
        "startPort": 8000,
        "strategy": "round-robin"
      },
      "loadBalancerStrategy": "round-robin"
    }
  ]
}
)"sv;

const auto full_config = R"(// every key that pup acts on
{
  "$schema": "https://example.org/schema.json",
  "name": "shop@1",
  "terminateTimeout": 12,
  "terminateGracePeriod": 0.25,
  "processes": [
    {
      "id": "web",
      "cmd": ["node", "app.js", "--port=%{port}", "%{index}", "%{id}",
              "%{env:HOME}/x", "100%", "%%{literal}"],
      "cwd": "app/../site",
      "env": {"A": "%{id}", "B": "caf\u00e9 \ud83d\ude00", "HOST": "%{env:HOME}"},
      "path": "bin:/opt/bin",
      "autostart": false,
      "restart": "error",
      "restartDelayMs": 100,
      "restartMaxDelayMs": 5e3,
      "restartLimit": 3,
      "restartPeriodMs": 1000.0,
      "terminateTimeout": 1.5,
      "stopSignal": "INT",
      "ready": {"type": "spawn"},
      "readyTimeoutMs": 2000,
      "successExitCodes": [0, 255],
      "noRestartExitCodes": [3],
      "loadBalancerStrategy": "ip-hash", /* the old spelling **/
      "cluster": {
        "instances": 3, "processStartPort": 8000, "commonPort": 3000,
        "commonHost": "::1", "mode": "proxy", "drainTimeoutMs": 1,
        "maxConnections": 2, "idleTimeoutMs": 3, "connectTimeoutMs": 4,
      },
    },
    {"id": "worker", "cmd": "sleep 1; echo %{port}", "restart": "never"},
  ],
}
)"sv;

}  // namespace

TEST_CASE("text that is not JSON is one fault, in plain words") {
  require_faults(syntax_cases);
}

TEST_CASE("unknown, missing, doubled and misplaced keys are refused") {
  require_faults(shape_cases);
}

TEST_CASE("ids are short, plain and unique") {
  require_faults(id_cases);
}

TEST_CASE("commands, folders and variables that cannot work are refused") {
  require_faults(command_cases);
}

TEST_CASE("restarts, readiness and stopping have ranges and words") {
  require_faults(restart_cases);
}

TEST_CASE("clusters have ranges, and ports that do not meet") {
  require_faults(cluster_cases);
}

TEST_CASE("keys that pup does not act on yet are judged and refused") {
  require_faults(later_cases);
}

TEST_CASE("all faults come at once, in the order of the text") {
  require_faults(several_cases);
}

TEST_CASE("no fault table is empty and every fault has a remedy") {
  std::size_t count = 0;
  for (auto table : {&syntax_cases, &shape_cases, &id_cases, &command_cases,
                     &restart_cases, &cluster_cases, &later_cases}) {
    for (auto& x : *table) {
      REQUIRE_FALSE(x.faults.empty());
      ++count;
    }
  }
  CHECK(count >= 80);
}

// -- what is accepted ---------------------------------------------------------

TEST_CASE("the manual's configuration loads as it is written") {
  fake_world machine;
  pup_spec expected;
  auto& process = expected.processes.emplace_back();
  process.id = "my-scalable-app";
  process.argv = {"deno", "run", "--allow-net", "server.ts"};
  process.ready = ready_condition::port;
  auto& cluster = process.cluster.emplace();
  cluster.instances = 4;
  cluster.start_port = 8000;
  cluster.common_port = 3000;
  cluster.strategy = balance_strategy::round_robin;
  CHECK(loaded(manual_config, machine) == expected);
  CHECK(machine.programs_asked == std::vector<question>{{"deno", "", ""}});
  CHECK(machine.folders_asked.empty());
}

TEST_CASE("every key reaches its place") {
  fake_world machine;
  pup_spec expected;
  expected.name = "shop@1";
  auto& web = expected.processes.emplace_back();
  web.id = "web";
  web.argv = {"node",  "app.js",    "--port=%{port}", "%{index}",
              "%{id}", "/home/u/x", "100%",           "%%{literal}"};
  web.cwd = "/srv/site";
  web.env = {{"A", "%{id}"},
             {"B", "caf\xC3\xA9 \xF0\x9F\x98\x80"},
             {"HOST", "/home/u"}};
  web.path = "/srv/bin:/opt/bin";
  web.autostart = false;
  web.restart = restart_policy::on_error;
  web.restart_delay = 100ms;
  web.restart_max_delay = 5s;
  web.restart_limit = 3;
  web.restart_period = 1s;
  web.success_exit_codes = {0, 255};
  web.no_restart_exit_codes = {3};
  web.terminate_grace_period = 250ms;
  web.terminate_timeout = 1500ms;
  web.stop_signal = 2;
  web.ready = ready_condition::spawn;
  web.ready_timeout = 2s;
  auto& cluster = web.cluster.emplace();
  cluster.instances = 3;
  cluster.start_port = 8000;
  cluster.common_port = 3000;
  cluster.common_host = "::1";
  cluster.strategy = balance_strategy::source_ip_hash;
  cluster.drain_timeout = 1ms;
  cluster.max_connections = 2;
  cluster.idle_timeout = 3ms;
  cluster.connect_timeout = 4ms;
  auto& worker = expected.processes.emplace_back();
  worker.id = "worker";
  worker.argv = {"/bin/sh", "-c", "sleep 1; echo %{port}"};
  worker.shell = true;
  worker.restart = restart_policy::never;
  worker.terminate_grace_period = 250ms;
  worker.terminate_timeout = 12s;
  CHECK(loaded(full_config, machine) == expected);
  CHECK(machine.folders_asked == std::vector<std::string>{"/srv/site"});
  CHECK(machine.programs_asked
        == std::vector<question>{{"node", "/srv/bin:/opt/bin", "/srv/site"}});
}

TEST_CASE("comments, trailing commas and a byte order mark are accepted") {
  CHECK(loaded("\xEF\xBB\xBF{\"processes\": [{\"id\": \"a\", \"cmd\": \"x\"}]}")
            .processes.size()
        == 1);
  CHECK(loaded("/***/ {\"processes\": /* { */ [ // [\r\n{\"id\": \"a\", "
               "\"cmd\": [\"/*\", \"//x\",], },], } // end")
            .processes[0]
            .argv
        == std::vector<std::string>{"/*", "//x"});
  // The mark takes no column.
  CHECK(faults_of("\xEF\xBB\xBF[]")
        == std::vector<std::string>{"pup.json:1:1: an array is not an object; "
                                    "write {\"processes\": [...]}"});
}

TEST_CASE("text that is not UTF-8 is refused at its first bad byte") {
  auto fault = [](std::string_view bytes) {
    return faults_of("{\n \"name\": \"" + std::string{bytes} + "\"}");
  };
  auto expected = [](std::string_view byte) {
    return std::vector<std::string>{"pup.json:2:11: byte 0x" + std::string{byte}
                                    + " is not UTF-8; save the file as UTF-8"};
  };
  CHECK(fault("\x80") == expected("80"));              // tail without head
  CHECK(fault("\xC0\xAF") == expected("c0"));          // overlong
  CHECK(fault("\xC3") == expected("c3"));              // cut
  CHECK(fault("\xE0\x80\xAF") == expected("e0"));      // overlong
  CHECK(fault("\xED\xA0\x80") == expected("ed"));      // surrogate
  CHECK(fault("\xF0\x80\x80\xAF") == expected("f0"));  // overlong
  CHECK(fault("\xF4\x90\x80\x80") == expected("f4"));  // above U+10FFFF
  CHECK(fault("\xF5\x80\x80\x80") == expected("f5"));
  CHECK(fault("\xFF") == expected("ff"));
  // The ends of the valid ranges: U+7FF, U+D7FF, U+E000, U+10FFFF.
  for (auto valid :
       {"\xDF\xBF", "\xED\x9F\xBF", "\xEE\x80\x80", "\xF4\x8F\xBF\xBF"})
    CHECK(loaded_process("\"env\": {\"A\": \"" + std::string{valid} + "\"}")
              .env.at("A")
          == valid);
  CHECK(faults_of("\xFF\xFE{\0}\0"sv)
        == std::vector<std::string>{
            "pup.json:1:1: byte 0xff is not UTF-8; save the file as UTF-8"});
}

TEST_CASE("each word of the configuration has its meaning") {
  CHECK(loaded_process(R"("restart": "always")").restart
        == restart_policy::always);
  CHECK(loaded_process(R"("restart": "error")").restart
        == restart_policy::on_error);
  CHECK(loaded_process(R"("restart": "never")").restart
        == restart_policy::never);
  using enum balance_strategy;
  const std::pair<const char*, balance_strategy> strategies[] = {
      {"round-robin", round_robin}, {"source-ip-hash", source_ip_hash},
      {"ip-hash", source_ip_hash},  {"least-connections", least_connections},
      {"random", random},
  };
  for (auto& [word, strategy] : strategies) {
    auto value = '"' + std::string{word} + '"';
    CHECK(loaded_cluster("\"strategy\": " + value).strategy == strategy);
    CHECK(loaded_process("\"cluster\": {}, \"loadBalancerStrategy\": " + value)
              .cluster->strategy
          == strategy);
  }
  CHECK(loaded_process(R"("cluster": {"strategy": "source-ip-hash"},
                           "loadBalancerStrategy": "ip-hash")")
            .cluster->strategy
        == source_ip_hash);
  CHECK(loaded_cluster(R"("startPort": 80, "processStartPort": 80)").start_port
        == 80);
}

TEST_CASE("a stop signal has its Linux number, with and without SIG") {
  const std::pair<const char*, int> signals[] = {
      {"HUP", 1},   {"INT", 2},   {"QUIT", 3},  {"ABRT", 6},   {"USR1", 10},
      {"USR2", 12}, {"ALRM", 14}, {"TERM", 15}, {"WINCH", 28}, {"PWR", 30},
  };
  CHECK(std::size(signals) == stop_signals.size());
  for (auto& [name, number] : signals) {
    auto text = std::string{name} + '"';
    CHECK(loaded_process("\"stopSignal\": \"" + text).stop_signal == number);
    CHECK(loaded_process("\"stopSignal\": \"SIG" + text).stop_signal == number);
  }
}

TEST_CASE("readiness follows the port unless it is stated") {
  CHECK(loaded_process(R"("autostart": true)").ready == ready_condition::spawn);
  CHECK(loaded_process(R"("cluster": {})").ready == ready_condition::spawn);
  CHECK(loaded_process(R"("cluster": {"startPort": 80})").ready
        == ready_condition::port);
  CHECK(loaded_process(
            R"("ready": {"type": "port"}, "cluster": {"startPort": 80})")
            .ready
        == ready_condition::port);
}

TEST_CASE("instances max is one for each processor, within the bound") {
  auto count = [](std::uint32_t processors) {
    fake_world machine;
    machine.processors = processors;
    return loaded(in_cluster(R"("instances": "max")"), machine)
        .processes[0]
        .cluster->instances;
  };
  CHECK(count(1) == 1);
  CHECK(count(16) == 16);
  CHECK(count(1024) == 1024);
  CHECK(count(1025) == 1024);
  CHECK(count(0) == 1);
}

TEST_CASE("behind a link `..` is left to the kernel") {
  fake_world machine;
  auto cwd = [&](const std::string& text) {
    auto world = machine.get();
    world.is_link = [](const std::string& path) {
      return path == "/srv/app/current";
    };
    const auto found =
        load("{\"processes\": [{\"id\": \"a\", \"cmd\": [\"x\"], \"cwd\": \""
                 + text + "\"}]}",
             "pup.json", "/srv/app/current", world);
    REQUIRE(faults_of(found).empty());
    return std::get<pup_spec>(found).processes[0].cwd;
  };
  CHECK(cwd("web/..") == "/srv/app/current");
  CHECK(cwd("../shared") == "/srv/app/current/../shared");
  CHECK(cwd("../../x/./y/../z") == "/srv/app/current/../../x/z");
  CHECK(cwd("/srv/app/../x") == "/srv/x");
  CHECK(cwd("/srv/app/current/../x") == "/srv/app/current/../x");
}

TEST_CASE("what a configuration says of itself") {
  const auto named = head_of(R"({"name": "a", "processes": 7, /* */ })");
  CHECK(named.name == "a");
  CHECK(named.has_processes);
  CHECK_FALSE(head_of(R"({"name": 1, "processes": []})").name);
  CHECK_FALSE(head_of(R"({"deps": {"processes": []}})").has_processes);
  CHECK(head_of(R"({"processes": [)").has_processes);
  CHECK_FALSE(head_of("[").has_processes);
  CHECK_FALSE(head_of("[]").has_processes);
}

TEST_CASE("folders start at the folder of the file") {
  auto cwd = [](std::string_view text) {
    return loaded_process("\"cwd\": \"" + std::string{text} + '"').cwd;
  };
  CHECK(cwd(".") == "/srv");
  CHECK(cwd("a/b/") == "/srv/a/b");
  CHECK(cwd("../x") == "/x");
  CHECK(cwd("/a//b/./c/..") == "/a/b");
  CHECK(cwd("/") == "/");
  CHECK(cwd("%{env:HOME}/x") == "/home/u/x");
  CHECK(cwd("%{id}") == "/srv/%{id}");
  CHECK(loaded_process(R"("path": ".:%{x}:/")").path == "/srv:/srv/%{x}:/");

  fake_world machine;
  auto result =
      load(in_process(R"("cwd": "x")"), "pup.json", "/a%{port}", machine.get());
  REQUIRE(faults_of(result).empty());
  auto& process = std::get<pup_spec>(result).processes[0];
  CHECK(expand(process.cwd, 0, 0, "a") == "/a%{port}/x");
  CHECK(machine.folders_asked == std::vector<std::string>{"/a%{port}/x"});

  result =
      load(in_process(R"("path": "x")"), "pup.json", "/a:b", machine.get());
  CHECK(faults_of(result)
        == std::vector<std::string>{
            "pup.json:1:50: processes[0].path: `/a:b/x` holds a colon, which "
            "separates entries; name a folder without a colon"});
}

TEST_CASE("the machine is asked only what it can answer") {
  auto asked = [](std::string_view text) {
    fake_world machine;
    load_from(text, machine);
    return std::pair{machine.folders_asked, machine.programs_asked};
  };
  using folders = std::vector<std::string>;
  using programs = std::vector<question>;
  auto entry = [](std::string_view members) {
    return R"({"processes": [{"id": "a", )" + std::string{members} + "}]}";
  };
  CHECK(asked(entry(R"("cmd": ["./%{id}"])"))
        == std::pair{folders{}, programs{}});
  CHECK(asked(entry(R"("cmd": ["x"], "cwd": "%{id}")"))
        == std::pair{folders{}, programs{}});
  CHECK(asked(entry(R"("cmd": ["x%%{id}"], "cwd": "%%{id}")"))
        == std::pair{folders{"/srv/%{id}"},
                     programs{{"x%{id}", "", "/srv/%{id}"}}});
  CHECK(asked(entry(R"("cmd": "x y")")) == std::pair{folders{}, programs{}});
  CHECK(asked(entry(R"("cmd": ["x"], "cwd": "/bad")"))
        == std::pair{folders{"/bad"}, programs{}});
  CHECK(asked(entry(R"("cmd": ["x"], "env": {"PATH": "/y"})"))
        == std::pair{folders{}, programs{}});
  CHECK(asked(entry(R"("cmd": ["/x"], "env": {"PATH": "/y"})"))
        == std::pair{folders{}, programs{{"/x", "", ""}}});
  CHECK(asked(entry(R"("cmd": ["%{env:HOME}/x"])"))
        == std::pair{folders{}, programs{{"/home/u/x", "", ""}}});
}

TEST_CASE("ports may meet where the addresses differ") {
  auto pair = [](std::string_view a, std::string_view b) {
    return faults_of(
        R"({"processes": [{"id": "a", "cmd": "x", "cluster": {"startPort": 8000,
          "commonPort": 3000, "commonHost": ")"
        + std::string{a}
        + R"("}}, {"id": "b", "cmd": "x", "cluster": {"startPort": 9000,
          "commonPort": 3000, "commonHost": ")"
        + std::string{b} + R"("}}]})");
  };
  CHECK(pair("127.0.0.1", "127.0.0.2").empty());
  CHECK(pair("127.0.0.1", "::1").empty());
  CHECK(pair("127.0.0.1", "127.0.0.1").size() == 1);
  CHECK(pair("::1", "::").size() == 1);
  CHECK(pair("0.0.0.0", "127.0.0.1").size() == 1);
  CHECK(pair("::ffff:127.0.0.1", "127.0.0.1").size() == 1);
}

TEST_CASE("numeric addresses of both families are accepted") {
  for (auto address :
       {"0.0.0.0", "255.255.255.255", "127.0.0.1", "::", "::1",
        "1::", "fe80::1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:1.2.3.4", "::1.2.3.4",
        "::ffff:10.0.0.1", "1::8", "1:2:3:4:5:6:7::", "ABCD:ef01::"})
    CHECK(loaded_cluster("\"commonHost\": \"" + std::string{address} + '"')
              .common_host
          == address);
  for (auto address : {"1.2.3.4.5",
                       "1.2.3.",
                       ".1.2.3",
                       "1..2.3",
                       "1.2.3.4 ",
                       "1.2.3.0x4",
                       "1.2.3.1000",
                       ":",
                       ":1",
                       "1:",
                       "1:::2",
                       "1::2::3",
                       "12345::",
                       "g::",
                       "1:2:3:4:5:6:7",
                       "1:2:3:4:5:6:7:8:9",
                       "1:2:3:4:5:6:7:8::",
                       "1.2.3.4::",
                       "::1.2.3",
                       "::1:1.2.3.4:1",
                       "1:2:3:4:5:6:7:1.2.3.4"}) {
    INFO(address);
    CHECK(
        faults_of(in_cluster("\"commonHost\": \"" + std::string{address} + '"'))
            .size()
        == 1);
  }
}

TEST_CASE("clusters whose ports only touch do not meet") {
  auto spec = loaded(R"({"processes": [
    {"id": "a", "cmd": "x", "cluster": {"instances": 4, "startPort": 8000,
                                         "commonPort": 7999}},
    {"id": "b", "cmd": "x", "cluster": {"instances": 4, "startPort": 8004,
                                         "commonPort": 8008}},
    {"id": "c", "cmd": "x", "cluster": {"instances": 0, "startPort": 8000}},
    {"id": "d", "cmd": "x", "cluster": {"instances": 0}},
    {"id": "d-", "cmd": "x"}, {"id": "d-1x", "cmd": "x"},
    {"id": "e-1", "cmd": "x"}, {"id": "e", "cmd": "x"}
  ]})");
  CHECK(spec.processes.size() == 8);
}

// -- bounds, from both sides --------------------------------------------------

TEST_CASE("numbers are accepted up to their bounds") {
  CHECK(loaded_cluster(R"("instances": 0)").instances == 0);
  CHECK(loaded_cluster(R"("instances": 1024)").instances == 1024);
  CHECK(loaded_cluster(R"("startPort": 1)").start_port == 1);
  CHECK(loaded_cluster(R"("instances": 1, "startPort": 65535)").start_port
        == 65535);
  CHECK(loaded_cluster(R"("instances": 1024, "startPort": 64512)").start_port
        == 64512);
  CHECK(faults_of(in_cluster(R"("instances": 1024, "startPort": 64513)")).size()
        == 1);
  CHECK(loaded_cluster(R"("maxConnections": 1000000)").max_connections
        == 1'000'000);
  CHECK(loaded_cluster(R"("drainTimeoutMs": 31536000000)").drain_timeout
        == 31'536'000'000ms);
  CHECK(loaded_cluster(R"("idleTimeoutMs": 0)").idle_timeout == 0ms);
  CHECK(loaded_cluster("").max_surge == std::nullopt);
  CHECK(loaded_cluster(R"("maxSurge": 0)").max_surge == 0u);
  CHECK(loaded_cluster(R"("maxUnavailable": 1024)").max_unavailable == 1024u);
  CHECK(loaded_cluster(R"("connectTimeoutMs": 1)").connect_timeout == 1ms);
  CHECK(loaded_cluster(R"("proxyProtocol": "v1")").header == proxy_header::v1);
  CHECK(loaded_cluster(R"("proxyProtocol": "v2")").header == proxy_header::v2);
  CHECK(loaded_cluster("").header == proxy_header::none);
  CHECK(loaded_cluster(R"("strategy": "least-time")").strategy
        == balance_strategy::least_time);
  CHECK(loaded_process(R"("restartLimit": 0)").restart_limit == 0u);
  CHECK(loaded_process(R"("restartLimit": 1000000)").restart_limit
        == 1'000'000u);
  CHECK(loaded_process(R"("startLimit": 0)").start_limit == 0u);
  CHECK(loaded_process("").start_limit == std::nullopt);
  CHECK(loaded_process(R"("restartMaxDelayMs": 1)").restart_max_delay == 1ms);
  CHECK(loaded_process(R"("restartDelayMs": 0)").restart_delay == 0ms);
  CHECK(loaded_process(R"("restartPeriodMs": 31536000000)").restart_period
        == 31'536'000'000ms);
  CHECK(loaded_process(R"("terminateTimeout": 0)").terminate_timeout == 0ms);
  CHECK(loaded_process(R"("terminateTimeout": 31536000)").terminate_timeout
        == 31'536'000'000ms);
  CHECK(
      loaded_process(R"("terminateGracePeriod": 0.001)").terminate_grace_period
      == 1ms);
  CHECK(loaded_process(R"("successExitCodes": [])").success_exit_codes.empty());
}

TEST_CASE("an id and a name have 1 to 64 characters") {
  auto with_id = [](const std::string& id) {
    return R"({"processes": [{"id": ")" + id + R"(", "cmd": "x"}]})";
  };
  CHECK(loaded(with_id("a")).processes[0].id == "a");
  CHECK(loaded(with_id(std::string(64, 'i'))).processes[0].id.size() == 64);
  CHECK(faults_of(with_id(std::string(65, 'i'))).size() == 1);
  CHECK(loaded(with_id("Az09@._-")).processes[0].id == "Az09@._-");
  auto with_name = [](const std::string& name) {
    return R"({"name": ")" + name
           + R"(", "processes": [{"id": "a", "cmd": "x"}]})";
  };
  CHECK(loaded(with_name(std::string(64, 'n'))).name.size() == 64);
  CHECK(faults_of(with_name(std::string(65, 'n'))).size() == 1);
  CHECK(loaded(with_name("all")).name == "all");
}

TEST_CASE("a file holds at most 4096 processes") {
  CHECK(loaded(processes(4096)).processes.size() == 4096);
  CHECK(faults_of(processes(4097))
        == std::vector<std::string>{
            "pup.json:1:15: processes: has 4097 entries, more than 4096; split "
            "it into several configurations"});
}

TEST_CASE("a file has at most 16 MiB") {
  std::string text = R"({"processes": [{"id": "a", "cmd": "x"}]})";
  text.resize(bounds::config_bytes, ' ');
  CHECK(loaded(text).processes.size() == 1);
  text += ' ';
  CHECK(faults_of(text)
        == std::vector<std::string>{"pup.json:1:1: the text has 16777217 "
                                    "bytes, more than 16777216; split "
                                    "it into several configurations"});
}

TEST_CASE("values are nested at most 32 deep") {
  auto nested = [](std::size_t depth) {
    return R"({"x": )" + repeat("[", depth - 1) + repeat("]", depth - 1) + "}";
  };
  // 32 deep is read, so that the unknown key is what is wrong.
  CHECK(faults_of(nested(32)).at(0)
        == "pup.json:1:1: processes: is missing; add \"processes\": [...]");
  const std::vector<std::string> too_deep{
      "pup.json:1:38: more than 32 arrays and objects within each other; "
      "remove "
      "the inner ones"};
  CHECK(faults_of(nested(33)) == too_deep);
  CHECK(faults_of(R"({"x": )" + repeat("[", 1'000'000)) == too_deep);
}

TEST_CASE("of a file of nonsense the first 999 faults are reported") {
  auto junk = [](std::size_t count) {
    std::string text = R"({"processes": [{"id": "a", "cmd": "x"}])";
    for (std::size_t i = 0; i < count; ++i)
      text += ",\n\"k" + std::to_string(i) + "\": 1";
    return text + "}";
  };
  auto lines = faults_of(junk(999));
  REQUIRE(lines.size() == 999);
  CHECK(lines.back().starts_with("pup.json:1000:1: k998: `k998` is not a key"));
  lines = faults_of(junk(100'000));
  REQUIRE(lines.size() == most_diagnostics);
  CHECK(lines.back()
        == "pup.json:1000:1: there are more faults than these 999; correct "
           "these first");
}

TEST_CASE("long and strange texts stay on one line of a diagnostic") {
  CHECK(
      faults_of(in_process("\"a\\u0007\\n\": 1"))
          .at(0)
          .starts_with(
              R"(pup.json:1:42: processes[0]["a\u0007\u000a"]: `a\u0007\u000a` is not)"));
  // Cut between characters: 39 bytes, then one of two bytes.
  auto key = std::string(39, 'k') + "\xC3\xA9";
  CHECK(faults_of(in_process('"' + key + "\": 1"))
            .at(0)
            .find('`' + std::string(39, 'k') + "...` is not a key")
        != std::string::npos);
}

// -- specs filled by hand -----------------------------------------------------

TEST_CASE("a spec filled by hand meets the same rules") {
  auto good = [] {
    fake_world machine;
    return loaded(full_config, machine);
  };
  struct change {
    void (*apply)(pup_spec&);
    const char* fault;
  };
  const change changes[] = {
      {[](pup_spec& x) { x.name = ""; },
       "name: is empty; use 1 to 64 of A-Z a-z 0-9 @ . _ -"},
      {[](pup_spec& x) { x.name = "."; },
       "name: `.` cannot name a folder; choose another name"},
      {[](pup_spec& x) { x.processes.clear(); },
       "processes: is empty, there is nothing to do; add a process"},
      {[](pup_spec& x) { x.processes.resize(4097); },
       "processes: has 4097 entries, more than 4096; split it into several "
       "configurations"},
      {[](pup_spec& x) { x.processes[1].id = "web-7"; },
       "processes[1].id: `web-7` is the id of an instance of cluster `web` "
       "(processes[0]); choose an id that does not end in -1 to -1024"},
      {[](pup_spec& x) { x.processes[1].argv.clear(); },
       "processes[1].cmd: is empty; name a program"},
      {[](pup_spec& x) { x.processes[1].argv.pop_back(); },
       "processes[1].cmd: a shell command needs three arguments; use /bin/sh, "
       "-c "
       "and the command"},
      {[](pup_spec& x) { x.processes[0].argv[1] = "%{env:HOME}"; },
       "processes[0].cmd[1]: %{env:NAME} is replaced only in configuration "
       "files; insert the value"},
      {[](pup_spec& x) { x.processes[0].argv[1] = "%{"; },
       "processes[0].cmd[1]: `%{` has no closing }; add the }, or write %%{ "
       "for "
       "a literal %{"},
      {[](pup_spec& x) { x.processes[0].cwd = "a"; },
       "processes[0].cwd: `a` is not absolute; start it with /"},
      {[](pup_spec& x) { x.processes[0].path = "/a:b"; },
       "processes[0].path: `b` is not absolute; start it with /"},
      {[](pup_spec& x) { x.processes[0].path = "/a:"; },
       "processes[0].path: `` is not absolute; start it with /"},
      {[](pup_spec& x) { x.processes[0].env["x=y"] = ""; },
       "processes[0].env[\"x=y\"]: `x=y` cannot name a variable; use a name "
       "without = and NUL"},
      {[](pup_spec& x) { x.processes[0].restart_delay = -1ms; },
       "processes[0].restartDelayMs: -1 ms is out of range; use 0 to "
       "31536000000"},
      {[](pup_spec& x) { x.processes[0].terminate_timeout = 31'536'000'001ms; },
       "processes[0].terminateTimeout: 31536000001 ms is out of range; use 0 "
       "to "
       "31536000"},
      {[](pup_spec& x) { x.processes[0].restart_max_delay = 0ms; },
       "processes[0].restartMaxDelayMs: 0 ms is out of range; use 1 to "
       "31536000000"},
      {[](pup_spec& x) { x.processes[0].restart_limit = 1'000'001; },
       "processes[0].restartLimit: 1000001 is not a number of restarts; use 0 "
       "to "
       "1000000"},
      {[](pup_spec& x) {
         x.processes[0].success_exit_codes = {0, 256};
       },
       "processes[0].successExitCodes[1]: 256 is not an exit code; use 0 to "
       "255"},
      {[](pup_spec& x) { x.processes[0].no_restart_exit_codes = {-1}; },
       "processes[0].noRestartExitCodes[0]: -1 is not an exit code; use 0 to "
       "255"},
      {[](pup_spec& x) { x.processes[0].stop_signal = 9; },
       "processes[0].stopSignal: 9 is not a signal to stop with; use 15, which "
       "is SIGTERM"},
      {[](pup_spec& x) { x.processes[1].ready = ready_condition::port; },
       "processes[1].ready.type: `port` needs a port, and there is none; add a "
       "cluster with startPort or use `spawn`"},
      {[](pup_spec& x) { x.processes[0].cluster->instances = 1025; },
       "processes[0].cluster.instances: 1025 is not a number of instances; use "
       "0 "
       "to 1024"},
      {[](pup_spec& x) { x.processes[0].cluster->start_port = 65534; },
       "processes[0].cluster.startPort: 3 instances from port 65534 reach port "
       "65536, above 65535; use 65533 or lower"},
      {[](pup_spec& x) { x.processes[0].cluster->max_connections = 1'000'001; },
       "processes[0].cluster.maxConnections: 1000001 is not a number of "
       "connections; use 0 to 1000000"},
      {[](pup_spec& x) { x.processes[0].cluster->connect_timeout = 0ms; },
       "processes[0].cluster.connectTimeoutMs: 0 ms is out of range; use 1 to "
       "31536000000"},
      {[](pup_spec& x) { x.processes[0].cluster->common_host = "localhost"; },
       "processes[0].cluster.commonHost: `localhost` is not a numeric IPv4 or "
       "IPv6 address; use `127.0.0.1` or `::1`"},
      {[](pup_spec& x) { x.processes[0].cluster->common_port = 8002; },
       "processes[0].cluster.commonPort: port 8002 of `web` lies within ports "
       "8000 to 8002 of its own instances; choose a port that no other process "
       "uses"},
  };
  CHECK(check(good()).empty());
  for (auto& x : changes) {
    auto spec = good();
    x.apply(spec);
    CHECK(check(spec) == std::vector<std::string>{x.fault});
  }
  CHECK(check(pup_spec{}).size() == 1);
  auto spec = good();
  spec.processes[0].cluster->start_port = 0;
  // The balancer and the argument that names the port.
  CHECK(check(spec).size() == 2);
}

// -- %{...} -------------------------------------------------------------------

TEST_CASE("expand replaces what belongs to an instance") {
  auto expanded = [](std::string_view text) {
    return expand(text, 8002, 2, "web-3");
  };
  CHECK(expanded("").empty());
  CHECK(expanded("plain % text {x} %") == "plain % text {x} %");
  CHECK(expanded("%{port}") == "8002");
  CHECK(expanded("a%{id}b%{index}c%{port}d") == "aweb-3b2c8002d");
  CHECK(expanded("%{port}%{port}") == "80028002");
  CHECK(expanded("%%{port}") == "%{port}");
  CHECK(expanded("%%%{port}") == "%%{port}");
  CHECK(expanded("%{%}%{port}") == "%8002");
  CHECK(expanded("100%%") == "100%%");
  CHECK(expanded("%{unknown}%{env:X}%{") == "%{unknown}%{env:X}%{");
}

TEST_CASE("an inserted variable is kept to the letter") {
  for (auto value : {"", "%", "%%", "%{", "%%{", "%%%{", "{", "a%", "%{port}",
                     "%%{port}", "%{%}", "%{env:A}", "}%", "%{%"}) {
    for (auto [before, behind, expanded] : {std::array{"", "", ""},
                                            {"<", ">", ">"},
                                            {"", "{x", "{x"},
                                            {"", "%{port}", "8002"},
                                            {"100% ", "%%{", "%{"}}) {
      auto variable =
          [value](const std::string& name) -> std::optional<std::string> {
        CHECK(name == "A");
        return value;
      };
      std::string missing;
      auto text = expand_variables(std::string{before} + "%{env:A}" + behind,
                                   variable, 100, missing);
      REQUIRE(text);
      INFO(*text);
      CHECK(find_placeholders(*text).problem.empty());
      CHECK_FALSE(find_placeholders(*text).variable);
      CHECK(expand(*text, 8002, 2, "web-3")
            == std::string{before} + value + expanded);
    }
  }
}

TEST_CASE("an unset variable is named") {
  std::string missing;
  auto none = [](const std::string&) { return std::optional<std::string>{}; };
  CHECK_FALSE(expand_variables("%%{env:A} %{env:B}", none, 100, missing));
  CHECK(missing == "B");
  CHECK(expand_variables("%%{env:A} %{port}", none, 100, missing)
        == "%%{env:A} %{port}");
}

TEST_CASE("values of variables fill no memory") {
  std::string missing;
  const auto large = [](const std::string&) {
    return std::optional{std::string(60, 'x')};
  };
  CHECK(expand_variables("%{env:A}", large, 60, missing)->size() == 60);
  CHECK_FALSE(expand_variables("%{env:A}%{env:A}", large, 119, missing));
  CHECK(missing.empty());

  fake_world fake;
  auto machine = fake.get();
  std::size_t asked = 0;
  machine.variable = [&asked](const std::string&) {
    ++asked;
    return std::optional{std::string(100u << 10, 'x')};
  };
  std::string text = R"({"processes": [{"id": "a", "cmd": ["true")";
  for (int i = 0; i < 500; ++i)
    text += R"(, "%{env:A}")";
  const auto result = load(text + "]}]}", "f", "/srv", machine);
  const auto* faults = std::get_if<std::vector<diagnostic>>(&result);
  REQUIRE(faults != nullptr);
  CHECK(faults->front().problem
        == "texts with values of variables are larger than 32 MiB, all "
           "together");
  CHECK(faults->size() == 500 - 327);
  CHECK(asked == 328);  // then nobody asks any more
}

// -- damaged files ------------------------------------------------------------

// A fault lies inside the text: on a byte, or just behind the last of a line.
bool lies_inside(const diagnostic& x, const std::vector<std::string>& lines) {
  return x.line >= 1 && x.line <= lines.size() && x.column >= 1
         && x.column <= lines[x.line - 1].size() + 1;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> result(1);
  for (auto c : text) {
    if (c == '\n')
      result.emplace_back();
    else
      result.back() += c;
  }
  return result;
}

TEST_CASE("a damaged file loads as a valid spec or says where it is wrong") {
  std::mt19937 random{20240229};  // any fixed seed: the same damage every time
  constexpr std::string_view spice = "{}[]\",:/*%\\0-9e\n\0\xFF ax"sv;
  std::size_t valid = 0;
  std::size_t faulty = 0;
  for (auto original : {manual_config, full_config}) {
    for (int i = 0; i < 4000; ++i) {
      std::string text{original};
      auto at = random() % text.size();
      auto with = spice[random() % spice.size()];
      switch (random() % 4) {
        case 0:
          text[at] = with;
          break;
        case 1:
          text.insert(at, 1, with);
          break;
        case 2:
          text.erase(at, 1);
          break;
        default:
          text[at] = static_cast<char>(static_cast<unsigned char>(text[at])
                                       ^ (1u << (random() % 8)));
      }
      fake_world machine;
      auto result = load_from(text, machine);
      if (auto spec = std::get_if<pup_spec>(&result)) {
        ++valid;
        if (!check(*spec).empty())
          FAIL("loaded, but not valid: " << text);
        continue;
      }
      ++faulty;
      auto& faults = std::get<std::vector<diagnostic>>(result);
      auto lines = lines_of(text);
      if (faults.empty())
        FAIL("neither a spec nor a fault: " << text);
      for (auto& x : faults)
        if (!lies_inside(x, lines) || x.problem.empty() || x.remedy.empty())
          FAIL(to_string(x) << " of " << text);
      if (!std::is_sorted(faults.begin(), faults.end(), [](auto& a, auto& b) {
            return std::pair{a.line, a.column} < std::pair{b.line, b.column};
          }))
        FAIL("not in the order of the text: " << text);
    }
  }
  // Both happen often, so that the test tests both.
  CHECK(valid > 500);
  CHECK(faulty > 500);
}

TEST_CASE("a file cut anywhere is refused") {
  for (std::size_t size = 0; size < manual_config.rfind('}'); ++size) {
    auto text = manual_config.substr(0, size);
    auto lines = faults_of(text);
    INFO(text);
    CHECK(lines.size() == 1);
  }
}

TEST_CASE("load: readiness, hooks and schedules") {
  auto x = loaded_process(R"("ready": {"type": "exec", "cmd": ["x", "%{id}"]},
    "watchdogMs": 500, "timeout": 2.5, "maxAgeMs": 60000,
    "hooks": {"preStart": "a b", "postStart": ["c", "d"],
              "preStop": {"cmd": "e", "timeoutMs": 5},
              "postStop": {"cmd": ["f"]}},
    "cron": "0 3 * * *", "terminate": "@daily", "timeZone": "Europe/Berlin")");
  CHECK(x.ready == ready_condition::exec);
  CHECK(x.ready_command.argv == std::vector<std::string>{"x", "%{id}"});
  CHECK(x.watchdog == 500ms);
  CHECK(x.run_timeout == 2500ms);
  CHECK(x.max_age == 60s);
  CHECK(x.hooks.pre_start.argv
        == std::vector<std::string>{"/bin/sh", "-c", "a b"});
  CHECK(x.hooks.pre_start.shell);
  CHECK(x.hooks.pre_start.timeout == 30s);
  CHECK(x.hooks.post_start.argv == std::vector<std::string>{"c", "d"});
  CHECK(x.hooks.pre_stop.timeout == 5ms);
  CHECK(x.hooks.post_stop.argv == std::vector<std::string>{"f"});
  CHECK(x.cron == "0 3 * * *");
  CHECK(x.terminate_cron == "@daily");
  CHECK(x.time_zone == "Europe/Berlin");
}

TEST_CASE("load: a job with a schedule neither starts nor restarts by itself") {
  auto job = loaded_process(R"("cron": "@daily")");
  CHECK_FALSE(job.autostart);
  CHECK(job.restart == restart_policy::never);
  auto both = loaded_process(
      R"("cron": "@daily", "autostart": true, "restart": "error")");
  CHECK(both.autostart);
  CHECK(both.restart == restart_policy::on_error);
  auto ended = loaded_process(R"("terminate": "@daily")");
  CHECK(ended.autostart);
  CHECK(ended.restart == restart_policy::always);
}

TEST_CASE("load: notify is short for its readiness") {
  CHECK(loaded_process(R"("notify": true)").ready == ready_condition::notify);
  CHECK(loaded_process(R"("notify": false)").ready == ready_condition::spawn);
  CHECK(loaded_process(R"("ready": {"type": "fd"})").ready
        == ready_condition::fd);
  CHECK(loaded_cluster(R"("startPort": 8000)").start_port == 8000);
  CHECK(loaded_process(R"("cluster": {"startPort": 8000},
                          "ready": {"type": "http", "path": "/up"})")
            .ready_path
        == "/up");
}

TEST_CASE("load: a mark tells one wording of an entry from another") {
  auto mark_of = [](const std::string& entry) {
    fake_world machine;
    auto result =
        load("{\"processes\": [" + entry + "]}", "f", "/srv", machine.get());
    REQUIRE(std::holds_alternative<pup_spec>(result));
    auto& spec = std::get<pup_spec>(result);
    CHECK(spec.source.value != 0);
    return spec.processes.front().source.value;
  };
  auto plain = mark_of(R"({"id": "a", "cmd": ["x"], "env": {"A": "1"}})");
  CHECK(plain != 0);
  CHECK(mark_of(R"({"cmd": ["x"], /* b */ "env": {"A": "1"},
                    "id": "\u0061",})")
        == plain);
  for (auto other : {R"({"id": "a", "cmd": ["x"], "env": {"A": "2"}})",
                     R"({"id": "a", "cmd": ["x"], "env": {"1": "A"}})",
                     R"({"id": "a", "cmd": ["x", ""], "env": {"A": "1"}})",
                     R"({"id": "a", "cmd": "x", "env": {"A": "1"}})",
                     R"({"id": "a", "cmd": ["x"]})"})
    CHECK(mark_of(other) != plain);
  // Equal values stay equal, wherever they stand.
  process_spec a;
  process_spec b;
  b.source.value = 5;
  CHECK(a == b);
}

TEST_CASE("load: who may read the status") {
  auto with = [](const std::string& top) {
    fake_world machine;
    auto asked = machine.get();
    asked.group = [](const std::string& name) {
      return name == "adm" ? std::optional{4U} : std::nullopt;
    };
    return load("{" + top + R"(, "processes": [{"id": "a", "cmd": ["x"]}]})",
                "pup.json", "/srv", asked);
  };
  CHECK(std::get<pup_spec>(with(R"("ipc": {"readers": "adm"})")).readers
        == "adm");
  // A number need not have a name.
  CHECK(std::get<pup_spec>(with(R"("ipc": {"readers": "61235"})")).readers
        == "61235");
  CHECK(std::get<pup_spec>(with(R"("ipc": {})")).readers.empty());
  auto fault = [&](const std::string& top) {
    auto result = with(top);
    auto faults = std::get_if<std::vector<diagnostic>>(&result);
    return faults ? to_string(faults->front()) : std::string{"none"};
  };
  CHECK(fault(R"("ipc": {"readers": ""})")
        == "pup.json:1:21: ipc.readers: is empty; name a group or remove it");
  CHECK(fault(R"("ipc": {"readers": "amd"})")
        == "pup.json:1:21: ipc.readers: `amd` is no group of this machine; "
           "create it or name another");
  CHECK(fault(R"("ipc": {"readers": 5})").find("ipc.readers: ")
        != std::string::npos);
  CHECK(fault(R"("ipc": {"writers": "a"})").find("ipc.writers: ")
        != std::string::npos);
  CHECK(fault(R"("ipc": "adm")").find("pup.json:1:9: ipc: ")
        != std::string::npos);
}

TEST_CASE("load: watched paths start at the folder of the file") {
  auto x = loaded_process(R"("watch": ["src/", "./a/../b", "/etc/app.conf"])");
  CHECK(x.watch
        == std::vector<std::string>{"/srv/src", "/srv/b", "/etc/app.conf"});
  CHECK(x.watcher == watcher_spec{});
  CHECK_FALSE(x.autostart);  // it begins with the first change
  CHECK(x.restart == restart_policy::always);
  CHECK(loaded_process(R"("watch": ["src"], "autostart": true)").autostart);
  CHECK(loaded_process(R"("watch": [])").autostart);
}

TEST_CASE("load: the watcher's rules are every process's") {
  fake_world machine;
  const auto spec = loaded(R"({
    "watcher": {"interval": 250, "exts": [".ts", "js"], "match": ["src/**"],
                "skip": ["**/.git/**"]},
    "processes": [{"id": "a", "cmd": ["x"], "watch": ["."]}]})",
                           machine);
  CHECK(spec.watcher.interval == 250ms);
  CHECK(spec.watcher.exts == std::vector<std::string>{"ts", "js"});
  CHECK(spec.watcher.match == std::vector<std::string>{"src/**"});
  CHECK(spec.watcher.skip == std::vector<std::string>{"**/.git/**"});
  CHECK(spec.processes[0].watcher == spec.watcher);
}

TEST_CASE("load: what cannot be watched is refused") {
  const auto in_watcher = [](const std::string& text) {
    return R"({"processes": [{"id": "a", "cmd": ["x"]}], "watcher": )" + text
           + '}';
  };
  using faults = std::vector<std::string>;
  const std::pair<std::string, faults> cases[] = {
      {in_process(R"("watch": ".")"sv),
       {R"(pup.json:1:51: processes[0].watch: "." is not an array; write an array of paths, such as ["src"])"}},
      {in_process(R"("watch": [5, ""])"sv),
       {R"(pup.json:1:52: processes[0].watch[0]: 5 is not a string; put it in double quotes)",
        R"(pup.json:1:55: processes[0].watch[1]: is empty; name a file or a folder, or remove it)"}},
      {in_watcher("5"),
       {R"(pup.json:1:55: watcher: 5 is not an object; write an object such as {"exts": ["js"]})"}},
      {in_watcher(R"({"interval": 0})"),
       {R"(pup.json:1:68: watcher.interval: 0 is not a time in whole milliseconds; use 1 to 31536000000)"}},
      {in_watcher(R"({"ext": ["a"]})"),
       {R"(pup.json:1:56: watcher.ext: `ext` is not a key of `watcher`; did you mean `exts`?)"}},
      {in_watcher(R"({"exts": ["a/b"]})"),
       {R"(pup.json:1:65: watcher.exts[0]: `a/b` is not the ending of a name; use one such as "js")"}},
      {in_watcher(R"({"match": ["ok", "[a"], "skip": ["../x"]})"),
       {R"(pup.json:1:72: watcher.match[1]: `[a` has a [ without its ]; use a pattern such as "src/**/*.js")",
        R"(pup.json:1:88: watcher.skip[0]: `../x` leads out of the folder; use a pattern such as "src/**/*.js")"}},
  };
  for (const auto& [text, expected] : cases) {
    INFO(text);
    CHECK(faults_of(text) == expected);
  }
}

TEST_CASE("load: readiness by a line of output") {
  const auto x =
      loaded_process(R"("ready": {"type": "log", "pattern": "up on \\d+"})");
  CHECK(x.ready == ready_condition::log);
  CHECK(x.ready_pattern == "up on \\d+");
}
