// What processes have to do with each other, as a configuration says it:
// dependsOn, groups, significant, startConcurrency.
#include "pup/config/relations.hpp"

#include "pup/config/load.hpp"

#include "catch.hpp"

using namespace pup;
using namespace std::chrono_literals;

namespace {

using strings = std::vector<std::string>;

load_result load_from(const std::string& text) {
  world machine;
  machine.variable = [](const std::string&) { return std::nullopt; };
  machine.folder_problem = [](const std::string&) { return std::string{}; };
  machine.program_problem = [](const std::string&, const std::string&,
                               const std::string&) { return std::string{}; };
  return load(text, "pup.json", "/srv", machine);
}

strings faults_of(const std::string& text) {
  strings lines;
  const auto result = load_from(text);
  if (const auto* faults = std::get_if<std::vector<diagnostic>>(&result))
    for (const auto& x : *faults)
      lines.push_back(to_string(x));
  return lines;
}

pup_spec loaded(const std::string& text) {
  auto result = load_from(text);
  REQUIRE(faults_of(text) == strings{});
  auto spec = std::get<pup_spec>(std::move(result));
  CHECK(check(spec) == strings{});
  return spec;
}

// A file of processes, one a line from line 2 on, and what else it says.
std::string file(const strings& processes, const std::string& rest = {}) {
  std::string text = "{\"processes\": [\n";
  for (const auto& x : processes)
    text += x + ",\n";
  return text + "]" + (rest.empty() ? "" : ",\n" + rest) + "}";
}

strings ordered(const pup_spec& spec) {
  strings result;
  for (const auto i : order_of_start(spec))
    result.push_back(spec.processes[i].id);
  return result;
}

}  // namespace

// -- dependsOn ----------------------------------------------------------------

TEST_CASE("a dependency is an id or an object with a condition") {
  using condition = dependency::condition;
  const auto spec = loaded(file(
      {R"({"id": "a", "cmd": "x", "dependsOn": ["b", {"id": "c"}, {"id": "b", "condition": "started"}, {"id": "c", "condition": "ready"}, {"id": "d", "condition": "finished"}]})",
       R"({"id": "b", "cmd": "x", "dependsOn": []})",
       R"({"id": "c", "cmd": "x"})",
       R"({"id": "d", "cmd": "x", "restart": "never"})"}));
  CHECK(spec.processes[0].depends_on
        == std::vector<dependency>{{"b", condition::ready},
                                   {"c", condition::ready},
                                   {"b", condition::started},
                                   {"c", condition::ready},
                                   {"d", condition::finished}});
  CHECK(spec.processes[1].depends_on.empty());
}

TEST_CASE("values of dependsOn that are none are found, all at once") {
  CHECK(faults_of(file({R"({"id": "a", "cmd": "x", "dependsOn": "b"})"}))
        == strings{"pup.json:2:38: processes[0].dependsOn: \"b\" is not an "
                   "array; write an array of ids"});
  CHECK(
      faults_of(file(
          {R"({"id": "a", "cmd": "x", "dependsOn": [5, {}, {"id": "a", "condition": "redy"}, {"id": "a", "x": 1}]})"}))
      == strings{
          "pup.json:2:39: processes[0].dependsOn[0]: 5 is not a string; put it "
          "in double quotes",
          "pup.json:2:42: processes[0].dependsOn[1].id: is missing; add the id "
          "of a process",
          "pup.json:2:53: processes[0].dependsOn[2].id: circular: `a` -> `a`; "
          "remove one of these dependencies",
          "pup.json:2:71: processes[0].dependsOn[2].condition: \"redy\" is not "
          "a condition; did you mean \"ready\"?",
          "pup.json:2:87: processes[0].dependsOn[3].id: circular: `a` -> `a`; "
          "remove one of these dependencies",
          "pup.json:2:92: processes[0].dependsOn[3].x: `x` is not a key of a "
          "dependency; remove it or use `id` or `condition`"});
}

TEST_CASE("an unknown dependency is named with the nearest id") {
  CHECK(
      faults_of(file(
          {R"({"id": "mail", "cmd": "x", "dependsOn": ["quue"]})",
           R"({"id": "queue", "cmd": "x", "dependsOn": [{"id": "nothing", "condition": "ready"}]})"}))
      == strings{
          "pup.json:2:42: processes[0].dependsOn[0]: `quue` is not the id of a "
          "process; did you mean `queue`?",
          "pup.json:3:50: processes[1].dependsOn[0].id: `nothing` is not the "
          "id of a process; use the id of an entry of `processes`"});
}

TEST_CASE("a circle of dependencies is refused") {
  CHECK(faults_of(file({R"({"id": "a", "cmd": "x", "dependsOn": ["b"]})",
                        R"({"id": "b", "cmd": "x", "dependsOn": ["c"]})",
                        R"({"id": "c", "cmd": "x", "dependsOn": ["b"]})"}))
        == strings{
            "pup.json:4:39: processes[2].dependsOn[0]: circular: `b` -> `c` -> "
            "`b`; remove one of these dependencies"});
}

TEST_CASE("a long circle of dependencies is found and named in short") {
  const auto chain = [](int length, int closed_by) {
    strings result;
    for (int i = 0; i < length; ++i)
      result.push_back("{\"id\": \"p" + std::to_string(i)
                       + "\", \"cmd\": \"x\", \"dependsOn\": [\"p"
                       + std::to_string(i + 1 == length ? closed_by : i + 1)
                       + "\"]}");
    return file(result);
  };
  CHECK(faults_of(chain(4096, 0)).size() == 1);
  CHECK(faults_of(chain(21, 0))
        == strings{"pup.json:22:41: processes[20].dependsOn[0]: circular: `p0` "
                   "-> `p1` -> `p2` -> `p3` -> `p4` -> `p5` -> `p6` -> `p7` -> "
                   "... -> `p0`; remove one of these dependencies"});
}

TEST_CASE("who is always restarted never finishes") {
  const auto fault = [](const std::string& member) {
    return faults_of(file(
        {R"({"id": "a", "cmd": "x", "dependsOn": [{"id": "b", "condition": "finished"}]})",
         R"({"id": "b", "cmd": "x")" + member + "}"}));
  };
  CHECK(fault("")
        == strings{"pup.json:2:46: processes[0].dependsOn[0].id: `b` never "
                   "finishes, as it is always restarted; give it \"restart\": "
                   "\"error\" or \"never\""});
  CHECK(fault(R"(, "restart": "error")").empty());
  CHECK(fault(R"(, "restart": "never")").empty());
  CHECK(fault(R"(, "noRestartExitCodes": [0])").empty());
  CHECK(fault(R"(, "noRestartExitCodes": [1])").size() == 1);
  // A fault of its own hides what follows from it.
  CHECK(fault(R"(, "restart": "nver")").size() == 1);
}

// -- order --------------------------------------------------------------------

TEST_CASE("the file's order is the order of starting") {
  CHECK(ordered(loaded(
            file({R"({"id": "a", "cmd": "x"})", R"({"id": "b", "cmd": "x"})",
                  R"({"id": "c", "cmd": "x"})"})))
        == strings{"a", "b", "c"});
}

TEST_CASE("what others depend on comes before them, the rest stays") {
  const auto spec =
      loaded(file({R"({"id": "a", "cmd": "x"})",
                   R"({"id": "app", "cmd": "x", "dependsOn": ["db", "cache"]})",
                   R"({"id": "b", "cmd": "x"})",
                   R"({"id": "cache", "cmd": "x", "dependsOn": ["disk"]})",
                   R"({"id": "db", "cmd": "x", "dependsOn": ["disk"]})",
                   R"({"id": "disk", "cmd": "x"})"}));
  CHECK(ordered(spec) == strings{"a", "disk", "db", "cache", "app", "b"});
  CHECK(dependencies_of(spec, "app") == strings{"disk", "db", "cache"});
  CHECK(dependencies_of(spec, "disk").empty());
  CHECK(dependents_of(spec, "disk") == strings{"db", "cache"});
  CHECK(dependents_of(spec, "app").empty());
}

// -- groups -------------------------------------------------------------------

TEST_CASE("a group has Erlang's meaning and defaults") {
  const auto spec = loaded(file(
      {R"({"id": "a", "cmd": "x", "supervisor": "g"})",
       R"({"id": "b", "cmd": "x", "supervisor": "h", "significant": true, "restart": "error"})"},
      R"("groups": {"g": {}, "h": {"strategy": "rest_for_one", "restartLimit": 3, "restartPeriodMs": 1000, "autoShutdown": "all"}})"));
  CHECK(spec.groups.at("g") == group_spec{});
  CHECK(spec.groups.at("g").how == strategy::one_for_one);
  CHECK_FALSE(spec.groups.at("g").restart_limit);
  CHECK(spec.groups.at("h")
        == group_spec{strategy::rest_for_one, 3, 1000ms,
                      group_spec::shutdown::all});
  CHECK(spec.processes[0].in_group == "g");
  CHECK_FALSE(spec.processes[0].significant);
  CHECK(spec.processes[1].significant);
}

TEST_CASE("values of groups that are none are found, all at once") {
  const strings one{R"({"id": "a", "cmd": "x"})"};
  CHECK(
      faults_of(file(
          {R"({"id": "a", "cmd": "x", "supervisor": "g"})"},
          R"("groups": {"g": {"strategy": "one", "restartLimit": -1, "restartPeriodMs": 0, "autoShutdown": "x", "y": 1}})"))
      == strings{
          "pup.json:4:30: groups.g.strategy: \"one\" is not a supervision "
          "strategy; use \"one_for_one\", \"one_for_all\" or \"rest_for_one\"",
          "pup.json:4:53: groups.g.restartLimit: -1 is not a number of "
          "restarts; use 0 to 1000000",
          "pup.json:4:76: groups.g.restartPeriodMs: 0 is not a time in whole "
          "milliseconds; use 1 to 31536000000",
          "pup.json:4:95: groups.g.autoShutdown: \"x\" is not a condition for "
          "shutting down; use \"never\", \"any\" or \"all\"",
          "pup.json:4:100: groups.g.y: `y` is not a key of a group; remove it "
          "or use `strategy`, `restartLimit`, `restartPeriodMs` or "
          "`autoShutdown`"});
  CHECK(faults_of(file(one, R"("groups": {"g": 5})"))
        == strings{"pup.json:4:17: groups.g: 5 is not an object; write an "
                   "object such as {\"strategy\": \"one_for_one\"}"});
  CHECK(faults_of(file(one, R"("groups": [])"))
        == strings{"pup.json:4:11: groups: an array is not an object; write an "
                   "object of groups"});
  CHECK(faults_of(file({R"({"id": "a", "cmd": "x", "supervisor": 5})"},
                       R"("groups": {"g": {}})"))
        == strings{"pup.json:2:39: processes[0].supervisor: 5 is not a string; "
                   "put it in double quotes"});
  CHECK(faults_of(file({R"({"id": "a", "cmd": "x", "supervisor": ""})"}))
        == strings{"pup.json:2:39: processes[0].supervisor: is empty; name a "
                   "group or remove it"});
  CHECK(
      faults_of(file({R"({"id": "a", "cmd": "x", "significant": "yes"})"}))
      == strings{"pup.json:2:40: processes[0].significant: \"yes\" is not true "
                 "or false; use true or false, without quotes"});
}

TEST_CASE("a group has a name like an id, and members") {
  CHECK(faults_of(file({R"({"id": "a", "cmd": "x", "supervisor": "a b"})"},
                       R"("groups": {"a b": {}})"))
        == strings{"pup.json:4:19: groups[\"a b\"]: `a b` holds a character "
                   "that is not allowed; use 1 to 64 of A-Z a-z 0-9 @ . _ -"});
  CHECK(
      faults_of(file({R"({"id": "a", "cmd": "x"})"}, R"("groups": {"g": {}})"))
      == strings{"pup.json:4:17: groups.g: has no members; name it as "
                 "`supervisor` of a process, or remove it"});
  CHECK(faults_of(file({R"({"id": "a", "cmd": "x", "supervisor": "wbe"})",
                        R"({"id": "b", "cmd": "x", "supervisor": "web"})"},
                       R"("groups": {"web": {}})"))
        == strings{"pup.json:2:39: processes[0].supervisor: `wbe` is not the "
                   "name of a group; did you mean `web`?"});
  CHECK(faults_of(file({R"({"id": "a", "cmd": "x", "supervisor": "g"})"}))
        == strings{"pup.json:2:39: processes[0].supervisor: `g` is not the "
                   "name of a group; add it to `groups`"});
}

TEST_CASE("a significant process may end, and its group with it") {
  const auto fault = [](const std::string& members, const std::string& group) {
    return faults_of(
        file({R"({"id": "a", "cmd": "x", "significant": true)" + members + "}"},
             group.empty() ? group : R"("groups": {"g": )" + group + "}"));
  };
  const std::string any = R"({"autoShutdown": "any"})";
  CHECK(fault(R"(, "supervisor": "g", "restart": "never")", any).empty());
  CHECK(fault(R"(, "supervisor": "g", "restart": "error")", any).empty());
  CHECK(fault(R"(, "supervisor": "g")", any)
        == strings{"pup.json:2:40: processes[0].significant: needs a process "
                   "that may end, this one is always restarted; add "
                   "\"restart\": \"error\" or \"never\""});
  CHECK(fault(R"(, "supervisor": "g", "restart": "error")", "{}")
        == strings{"pup.json:2:40: processes[0].significant: has no effect, as "
                   "group `g` does not end by itself; give the group an "
                   "autoShutdown, \"any\" or \"all\""});
  CHECK(fault(R"(, "restart": "error")", "")
        == strings{"pup.json:2:40: processes[0].significant: has no effect "
                   "outside a group; add `supervisor`"});
  CHECK(faults_of(file({R"({"id": "a", "cmd": "x", "supervisor": "g"})"},
                       R"("groups": {"g": {"autoShutdown": "all"}})"))
        == strings{"pup.json:4:34: groups.g.autoShutdown: has no effect "
                   "without a significant member; add \"significant\": true to "
                   "one of its processes"});
}

// -- startConcurrency ---------------------------------------------------------

TEST_CASE("startConcurrency is 1 to 4096, or any number") {
  const strings one{R"({"id": "a", "cmd": "x"})"};
  CHECK(loaded(file(one)).start_concurrency == 0);
  CHECK(loaded(file(one, R"("startConcurrency": 1)")).start_concurrency == 1);
  CHECK(loaded(file(one, R"("startConcurrency": 4096)")).start_concurrency
        == 4096);
  for (const auto* bad : {"0", "4097"})
    CHECK(faults_of(file(one, std::string{R"("startConcurrency": )"} + bad))
          == strings{"pup.json:4:21: startConcurrency: " + std::string{bad}
                     + " is not a number of processes; use 1 to 4096"});
}
