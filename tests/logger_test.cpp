// The `logger` objects of a configuration: every key, every fault.
#include "pup/config/load.hpp"

#include "catch.hpp"

#include <filesystem>

using namespace pup;
using namespace std::chrono_literals;

namespace {

world machine() {
  world result;
  result.variable = [](const std::string& name) {
    return name == "HOME" ? std::optional<std::string>{"/home/u"}
                          : std::nullopt;
  };
  result.folder_problem = [](const std::string&) { return std::string{}; };
  result.program_problem = [](auto&...) { return std::string{}; };
  return result;
}

std::string with(const std::string& global, const std::string& own,
                 const std::string& more = {}) {
  return R"({"processes": [{"id": "a", "cmd": ["x"])"
         + (own.empty() ? "" : R"(, "logger": )" + own) + more + "}]"
         + (global.empty() ? "" : R"(, "logger": )" + global) + "}";
}

pup_spec loaded(const std::string& text) {
  auto result = load(text, "f", "/srv", machine());
  INFO(text);
  REQUIRE(std::holds_alternative<pup_spec>(result));
  auto spec = std::get<pup_spec>(result);
  CHECK(check(spec).empty());
  return spec;
}

std::vector<std::string> faults(const std::string& text) {
  std::vector<std::string> result;
  const auto loaded = load(text, "f", "/srv", machine());
  if (const auto* all = std::get_if<std::vector<diagnostic>>(&loaded))
    for (const auto& x : *all)
      result.push_back(x.path + ": " + x.problem + "; " + x.remedy);
  return result;
}

}  // namespace

TEST_CASE("without a logger the defaults hold") {
  const auto spec = loaded(with("", ""));
  CHECK(spec.logger == logger_spec{});
  CHECK(spec.processes[0].output == output_spec{});
  CHECK(loaded(with("{}", "{}")) == spec);
  CHECK(spec.logger.internal_log == 48h);
  CHECK(spec.logger.internal_log_bytes == 512u << 20);
  CHECK(spec.logger.file_bytes == 256u << 20);
  CHECK(spec.logger.files_kept == 4);
  CHECK(spec.logger.compress);
  CHECK_FALSE(spec.logger.output.console);
}

TEST_CASE("each key of the logger has its place") {
  const auto spec = loaded(
      with(R"({"console": true, "stdout": "logs/%{id}.out", "stderr": "/e",
               "decorateFiles": true, "format": "json", "decorate": true,
               "colors": true, "internalLogHours": 7, "internalLogSize": "2M",
               "maxFileSize": "3G", "maxFiles": 5, "compress": false})",
           ""));
  logger_spec wanted;
  wanted.output = {true, "/srv/logs/%{id}.out", "/e", true, true};
  wanted.decorate = true;
  wanted.colors = true;
  wanted.internal_log = 7h;
  wanted.internal_log_bytes = 2u << 20;
  wanted.file_bytes = std::uint64_t{3} << 30;
  wanted.files_kept = 5;
  wanted.compress = false;
  CHECK(spec.logger == wanted);
  CHECK(spec.processes[0].output == wanted.output);
}

TEST_CASE("a process says what is different") {
  const auto spec = loaded(
      with(R"({"console": true, "stdout": "all.log", "format": "json"})",
           R"({"console": false, "stderr": "%{env:HOME}/e", "format": "text",
               "decorateFiles": true})"));
  CHECK(spec.processes[0].output
        == output_spec{false, "/srv/all.log", "/home/u/e", true, false});
}

TEST_CASE("sizes and counts are accepted up to their bounds") {
  const auto logger = [](const std::string& members) {
    return loaded(with("{" + members + "}", "")).logger;
  };
  CHECK(logger(R"("maxFileSize": 0)").file_bytes == 0);
  CHECK(logger(R"("maxFileSize": 1048576)").file_bytes == 1u << 20);
  CHECK(logger(R"("maxFileSize": "1024T")").file_bytes
        == std::uint64_t{1} << 50);
  CHECK(logger(R"("internalLogSize": "1024K")").internal_log_bytes == 1u << 20);
  CHECK(logger(R"("internalLogHours": 0)").internal_log == 0h);
  CHECK(logger(R"("internalLogHours": 87600)").internal_log == 87600h);
  CHECK(logger(R"("maxFiles": 0)").files_kept == 0);
  CHECK(logger(R"("maxFiles": 10000)").files_kept == 10'000);
}

TEST_CASE("a logger that cannot be is refused, all its faults at once") {
  const std::string size = R"( is not a size; use "1M" to "1024T")";
  CHECK(faults(with(R"({"console": 1, "stdout": "", "stderr": 5,
               "decorateFiles": "yes", "format": "xml", "decorate": null,
               "colors": 0, "internalLogHours": -1, "internalLogSize": "1023K",
               "maxFileSize": "1025T", "maxFiles": 10001, "compress": "no",
               "colour": true})",
                    ""))
        == std::vector<std::string>{
            "logger.console: 1 is not true or false; use true or false, "
            "without quotes",
            "logger.stdout: is empty; name a file or remove it",
            "logger.stderr: 5 is not a string; put it in double quotes",
            "logger.decorateFiles: \"yes\" is not true or false; use true or "
            "false, without quotes",
            "logger.format: \"xml\" is not a format of log lines; use "
            "\"text\" or \"json\"",
            "logger.decorate: null is not true or false; use true or false, "
            "without quotes",
            "logger.colors: 0 is not true or false; use true or false, "
            "without quotes",
            "logger.internalLogHours: -1 is not a number of hours; use 0 to "
            "87600",
            "logger.internalLogSize: \"1023K\"" + size,
            "logger.maxFileSize: \"1025T\"" + size + ", or 0 for no bound",
            "logger.maxFiles: 10001 is not a number of files; use 0 to 10000",
            "logger.compress: \"no\" is not true or false; use true or false, "
            "without quotes",
            "logger.colour: `colour` is not a key of `logger`; did you mean "
            "`colors`?"});
  for (const auto* bad :
       {"0", "-1", "1.5", "\"\"", "\"M\"", "\"1 M\"", "\"1MB\"", "true",
        "\"99999999999999999999\"", "\"99999999999T\""})
    CHECK(faults(with(std::string{R"({"internalLogSize": )"} + bad + "}", ""))
              .size()
          == 1);
  CHECK(faults(with("5", "[]")).size() == 2);
}

TEST_CASE("what holds for all is not said by one process") {
  CHECK(faults(with("", R"({"colors": true, "internalLogHours": 5})"))
        == std::vector<std::string>{
            "processes[0].logger.colors: `colors` is not a key of a process's "
            "`logger`; move it into the top level's `logger`",
            "processes[0].logger.internalLogHours: `internalLogHours` is not a "
            "key of a process's `logger`; move it into the top level's "
            "`logger`"});
}

TEST_CASE("paths of logs have the placeholders of their instance") {
  CHECK(faults(with("", R"({"stdout": "%{prot}.log"})")).size() == 1);
  CHECK(faults(with("", R"({"stdout": "%{port}.log"})"))
        == std::vector<std::string>{
            "processes[0].logger.stdout: %{port} needs a port, and there is "
            "none; add a cluster with startPort"});
  CHECK(loaded(with("", R"({"stdout": "%{port}.log"})",
                    R"(, "cluster": {"startPort": 8000})"))
            .processes[0]
            .output.stdout_file
        == "/srv/%{port}.log");
  CHECK(faults(with("", R"({"stderr": "a\u0000"})")).size() == 1);
}

TEST_CASE("a logger filled by hand meets the same rules") {
  pup_spec spec;
  spec.processes.emplace_back();
  spec.processes[0].id = "a";
  spec.processes[0].argv = {"x"};
  CHECK(check(spec).empty());
  spec.logger.internal_log = -1h;
  spec.logger.internal_log_bytes = 1;
  spec.logger.file_bytes = 1;
  spec.logger.files_kept = 10'001;
  spec.processes[0].output.stdout_file = "relative";
  CHECK(check(spec).size() == 5);
}
