// Large and strange configurations are judged in a time that grows with their
// size. Each of these is 4 MB or a million values: what takes a second here
// took minutes, or all memory, where one loop stood in another.
//
// What counts is processor time, and the bound is far above what is needed:
// only another order of growth reaches it.
#include "pup/config/load.hpp"

#include "catch.hpp"

#include <ctime>
#include <functional>

using namespace pup;

namespace {

#ifdef __OPTIMIZE__
constexpr std::size_t part = 1;
#else
constexpr std::size_t part = 16;  // of the whole, as all is slower
#endif
constexpr std::size_t million = 1'000'000 / part;
constexpr double most_seconds = 15;

double processor_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec)
         + static_cast<double>(now.tv_nsec) / 1e9;
}

/// `one` of 0, of 1, ... with commas.
std::string list(std::size_t count,
                 const std::function<std::string(std::size_t)>& one) {
  std::string result;
  for (std::size_t i = 0; i < count; ++i)
    result += (i > 0 ? "," : "") + one(i);
  return result;
}

std::string list(std::size_t count, const std::string& one) {
  return list(count, [&](std::size_t) { return one; });
}

std::string numbered(const std::string& stem, std::size_t i) {
  return '"' + stem + std::to_string(i) + '"';
}

std::string process(const std::string& id, const std::string& more = {}) {
  return "{\"id\":" + id + ",\"cmd\":[\"true\"]"
         + (more.empty() ? "" : "," + more) + '}';
}

std::string config(const std::string& processes, const std::string& top = {}) {
  return '{' + top + (top.empty() ? "" : ",") + "\"processes\":[" + processes
         + "]}";
}

std::string command(const std::string& arguments) {
  return config("{\"id\":\"a\",\"cmd\":[\"true\"," + arguments + "]}");
}

/// How many faults there are, within the bound.
std::size_t faults_of(const std::string& text) {
  world machine;
  machine.variable = [](const std::string&) { return std::nullopt; };
  machine.folder_problem = [](const std::string&) { return std::string{}; };
  machine.program_problem = [](const std::string&, const std::string&,
                               const std::string&) { return std::string{}; };
  machine.group = [](const std::string&) { return std::nullopt; };
  const auto before = processor_seconds();
  const auto result = load(text, "pup.json", "/srv", machine);
  const auto seconds = processor_seconds() - before;
  CHECK(seconds < most_seconds);
  const auto* faults = std::get_if<std::vector<diagnostic>>(&result);
  return faults == nullptr ? 0 : faults->size();
}

}  // namespace

TEST_CASE("a million arguments") {
  CHECK(faults_of(command(list(million, "\"x\""))) == 0);
  CHECK(faults_of(config(process("\"a\"", "\"hooks\":{\"preStart\":[\"true\","
                                              + list(million, "\"x\"") + "]}")))
        == 0);
  CHECK(faults_of(command(list(million, "\"%{id}\""))) == 0);
  CHECK(faults_of(command(list(million, "\"\\u0000\""))) == most_diagnostics);
  CHECK(faults_of(command(list(million, "1"))) == most_diagnostics);
  CHECK(faults_of(command(list(million, "\"%{od}\""))) == most_diagnostics);
}

TEST_CASE("one argument of 4 MB") {
  for (const auto* x : {"x", "%", "%%{", "%{id}", "\\u0041", "\xC3\xA4"}) {
    std::string text = "\"";
    while (text.size() < 4 * million)
      text += x;
    CHECK(faults_of(command(text + '"')) == 0);
  }
  CHECK(faults_of(command('"' + std::string(4 * million, '%') + "{\"")) == 0);
  std::string open = "\"";
  for (std::size_t i = 0; i < 2 * million; ++i)
    open += "%{";
  CHECK(faults_of(command(open + '"')) == 1);
  CHECK(faults_of(command(open)) == 1);
}

TEST_CASE("many keys, known and unknown, once and again") {
  const auto env = [](const std::string& members) {
    return config(process("\"a\"", "\"env\":{" + members + '}'));
  };
  const auto members = [](const std::string& stem) {
    return list(million / 3,
                [&](std::size_t i) { return numbered(stem, i) + ":\"x\""; });
  };
  CHECK(faults_of(env(members("V"))) == 0);
  CHECK(faults_of(env(members("V="))) == most_diagnostics);
  CHECK(faults_of(env(list(million / 2, "\"V\":\"x\""))) == most_diagnostics);
  CHECK(faults_of(config(process("\"a\"", members("k")))) == most_diagnostics);
  CHECK(faults_of(config(process("\"a\""), members("k"))) == most_diagnostics);
}

TEST_CASE("many who depend on many") {
  const auto processes = list(4'000, [](std::size_t i) {
    return process(numbered("a-rather-long-name-", i));
  });
  const auto depends = [&](const std::string& on) {
    return process("\"z\"", "\"dependsOn\":[" + on + ']');
  };
  // Nobody: the nearest is looked for, for as long as that is advice.
  CHECK(faults_of(config(processes + ','
                         + depends(list(4'000,
                                        [](std::size_t i) {
                                          return numbered("b-rather-long-name-",
                                                          i);
                                        }))))
        == most_diagnostics);
  CHECK(faults_of(config(depends(list(million / 4, "\"z\"")))) == 1);
  // A chain of 4000, the last of which depends on all before it; and each of
  // 700 on all.
  CHECK(
      faults_of(config(
          list(4'000,
               [](std::size_t i) {
                 return process(numbered("p", i),
                                "\"dependsOn\":[" + numbered("p", i + 1) + ']');
               })
          + ','
          + process(
              "\"p4000\"",
              "\"dependsOn\":["
                  + list(4'000, [](std::size_t i) { return numbered("p", i); })
                  + ']')))
      == most_diagnostics);
  const auto everybody =
      list(700, [](std::size_t i) { return numbered("p", i); });
  CHECK(faults_of(config(list(700,
                              [&](std::size_t i) {
                                return process(
                                    numbered("p", i),
                                    "\"dependsOn\":[" + everybody + ']');
                              })))
        == most_diagnostics);
}

TEST_CASE("many codes, groups, patterns and ports") {
  const auto many = million / 4;
  const auto codes = [&](const char* key, const char* code) {
    return '"' + std::string{key} + "\":[" + list(many, code) + ']';
  };
  CHECK(faults_of(config(
            process("\"b\"", "\"dependsOn\":["
                                 + list(4'000,
                                        "{\"id\":\"a\",\"condition\":\"finished"
                                        "\"}")
                                 + ']')
            + ','
            + process("\"a\"", codes("successExitCodes", "1") + ','
                                   + codes("noRestartExitCodes", "2"))))
        == most_diagnostics);
  const auto supplementary = [&](std::size_t count) {
    return config(process(
        "\"a\"", "\"supplementaryGroups\":[" + list(count, [](std::size_t i) {
                   return std::to_string(i);
                 }) + ']'));
  };
  CHECK(faults_of(supplementary(65'536)) == 0);
  CHECK(faults_of(supplementary(many)) == 1);
  const auto members = list(4'000, [](std::size_t i) {
    return process(numbered("p", i),
                   "\"supervisor\":" + numbered("another-group-", i));
  });
  CHECK(faults_of(config(members, "\"groups\":{"
                                      + list(many / 2,
                                             [](std::size_t i) {
                                               return numbered("some-group-", i)
                                                      + ":{}";
                                             })
                                      + '}'))
        == most_diagnostics);
  // What stands at the top is everybody's.
  const auto crowd =
      list(4'000, [](std::size_t i) { return process(numbered("p", i)); });
  const auto skipping = [&](std::size_t count) {
    return config(crowd,
                  "\"watcher\":{\"skip\":[" + list(count, "\"a\"") + "]}");
  };
  CHECK(faults_of(skipping(1'024)) == 0);
  CHECK(faults_of(skipping(many)) == 1);
  CHECK(faults_of(config(list(
            4'000,
            [](std::size_t i) {
              return process(numbered("p", i),
                             R"("cluster":{"instances":1,"startPort":1000,)"
                             R"("commonPort":80})");
            })))
        == most_diagnostics);
}

TEST_CASE("much that says nothing") {
  for (const auto* x : {" ", "\n", "/**/", "//\n", ","}) {
    std::string text;
    while (text.size() < 4 * million)
      text += x;
    CHECK(faults_of(text + config(process("\"a\""))) == (*x == ',' ? 1 : 0));
  }
  CHECK(faults_of(
            config(process("\"a\"", "\"env\":[1" + list(million, ",[]") + ']')))
        == 1);
  CHECK(faults_of(config(process(
            "\"a\"", "\"path\":\"/a" + std::string(4 * million, ':') + "\"")))
        == 1);
}
