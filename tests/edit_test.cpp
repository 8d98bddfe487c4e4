// Appending to and removing from a configuration's text: nothing else changes.
#include "pup/config/edit.hpp"

#include "pup/config/load.hpp"

#include "catch.hpp"

using namespace pup;

namespace {

const json_members web{{"id", "\"web\""}, {"cmd", "[\"x\"]"}};

std::string appended(std::string_view text) {
  auto result = append_process(text, web);
  if (auto fault = std::get_if<edit_fault>(&result))
    return std::to_string(fault->line) + ": " + fault->problem + "; "
           + fault->remedy;
  return std::get<std::string>(result);
}

std::string without(std::string_view text, std::string_view id) {
  auto result = remove_process(text, id);
  if (auto fault = std::get_if<edit_fault>(&result))
    return std::to_string(fault->line) + ": " + fault->problem + "; "
           + fault->remedy;
  return std::get<std::string>(result);
}

std::vector<std::string> ids_of(std::string_view text) {
  world machine;
  machine.variable = [](auto&) { return std::nullopt; };
  machine.folder_problem = [](auto&) { return std::string{}; };
  machine.program_problem = [](auto&...) { return std::string{}; };
  auto result = load(text, "f", "/srv", machine);
  INFO(text);
  if (auto faults = std::get_if<std::vector<diagnostic>>(&result))
    FAIL(to_string(faults->front()));
  std::vector<std::string> ids;
  for (auto& x : std::get<pup_spec>(result).processes)
    ids.push_back(x.id);
  return ids;
}

using texts = std::vector<std::string>;

constexpr auto commented = R"({
  // the head
  "processes": [
    // first
    { "id": "a", "cmd": "x" }, // behind a
    /* second */
    {
      "id": "b",
      "cmd": "y" // inside
    } // behind b
    // the end
  ]
}
)";

}  // namespace

TEST_CASE("edit: an entry is appended behind the last, comments stay") {
  CHECK(appended(commented) == R"({
  // the head
  "processes": [
    // first
    { "id": "a", "cmd": "x" }, // behind a
    /* second */
    {
      "id": "b",
      "cmd": "y" // inside
    }, // behind b
    // the end
    {
      "id": "web",
      "cmd": ["x"]
    }
  ]
}
)");
  CHECK(ids_of(appended(commented)) == texts{"a", "b", "web"});
}

TEST_CASE("edit: one line, trailing comma, nothing there yet") {
  auto text = GENERATE(
      R"({"processes": [{"id": "a", "cmd": "x"}]})",
      R"({"processes": [{"id": "a", "cmd": "x"},]})",
      "{\"processes\": [\n\t{\"id\": \"a\", \"cmd\": \"x\"},\n\t// c\n]}",
      "{\"processes\": [{\"id\": \"a\", \"cmd\": \"],//\"} // ]\n]}");
  CHECK(ids_of(appended(text)) == texts{"a", "web"});
  CHECK(ids_of(without(appended(text), "a")) == texts{"web"});
  CHECK(ids_of(without(appended(text), "web")) == texts{"a"});
  auto empty = GENERATE(R"({"processes": []})", "{\n  \"processes\": [\n  ]\n}",
                        "{\"processes\": [ // none\n]}");
  CHECK(ids_of(appended(empty)) == texts{"web"});
}

TEST_CASE("edit: what is appended can be removed without a trace") {
  CHECK(without(appended(commented), "web") == commented);
}

TEST_CASE("edit: an entry is removed with its lines, comments stay") {
  CHECK(without(commented, "b") == R"({
  // the head
  "processes": [
    // first
    { "id": "a", "cmd": "x" } // behind a
    /* second */
     // behind b
    // the end
  ]
}
)");
  CHECK(ids_of(without(commented, "a")) == texts{"b"});
  CHECK(without(commented, "a").find("// behind a") != std::string::npos);
}

TEST_CASE("edit: what cannot be done is said with its line") {
  CHECK(without(commented, "bb")
        == "3: no process has the id `bb`; there are `a` and `b`");
  CHECK(without(R"({"processes": [{"id": "worker"}, {"id": "x"}]})", "wroker")
        == "1: no process has the id `wroker`; did you mean `worker`?");
  CHECK(without(R"({"processes": [{"id": "a"}]})", "a")
        == "1: `a` is the only process; remove the file instead");
  CHECK(appended("{}") == "1: has no array `processes`; add \"processes\": []");
  CHECK(appended("{\n  x").starts_with("2: "));
}

TEST_CASE("edit: the first configuration is valid") {
  CHECK(ids_of(first_config(web)) == texts{"web"});
  CHECK(ids_of(appended(first_config({{"id", "\"a\""}, {"cmd", "\"b\""}})))
        == texts{"a", "web"});
}
