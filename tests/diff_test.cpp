// What changes when one configuration takes the place of another.
#include "pup/config/diff.hpp"

#include "catch.hpp"

#include <functional>

using namespace pup;
using namespace std::chrono_literals;

namespace {

using strings = std::vector<std::string>;

process_spec worker(const std::string& id) {
  process_spec result;
  result.id = id;
  result.argv = {"work"};
  return result;
}

process_spec web(const std::string& id, std::uint32_t instances) {
  auto result = worker(id);
  result.cluster.emplace();
  result.cluster->instances = instances;
  result.cluster->start_port = 8000;
  result.cluster->common_port = 3000;
  return result;
}

pup_spec file(std::vector<process_spec> processes) {
  pup_spec result;
  result.processes = std::move(processes);
  return result;
}

strings plan(const pup_spec& from, const pup_spec& to,
             const std::map<std::string, std::uint32_t>& desired = {}) {
  return plan_of(change_of(from, to, desired));
}

/// The line for one unit that `change` has changed.
std::string line(process_spec unit,
                 const std::function<void(process_spec&)>& change) {
  auto to = unit;
  change(to);
  const auto lines = plan(file({unit}), file({to}));
  return lines.size() == 1 ? lines.front() : std::to_string(lines.size());
}

}  // namespace

// This does not compile when a member is added to these types. Then add a row
// to a table of diff.cpp, which tells pup apply what its change costs, and a
// name here.
TEST_CASE("every member of a configuration has been decided about") {
  {
    auto [m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15, m16,
          m17, m18, m19, m20, m21, m22, m23, m24, m25, m26, m27, m28, m29, m30,
          m31, m32, m33, m34, m35, m36, m37, m38, m39, m40, m41, m42, m43] =
        process_spec{};
    static_cast<void>(m1);
    CHECK(process_keys_decided() == 43);
  }
  {
    auto [m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14] =
        cluster_spec{};
    static_cast<void>(m1);
    CHECK(cluster_keys_decided() == 14);
  }
  {
    auto [m1, m2, m3, m4, m5, m6, m7, m8] = pup_spec{};
    static_cast<void>(m1);
    CHECK(top_keys_decided() == 8);
  }
}

TEST_CASE("nothing changes when nothing has changed") {
  const auto x = file({web("web", 4), worker("a")});
  CHECK(change_of(x, x, {}).empty());
  CHECK(change_of(x, x, {{"web", 4}, {"a", 1}}).empty());
  CHECK(plan(x, x).empty());
}

TEST_CASE("entries come, go and stay") {
  const auto from =
      file({worker("a"), web("web", 4), worker("b"), worker("c")});
  const auto to = file({worker("d"), worker("c"), web("web", 6), worker("e")});
  CHECK(plan(from, to)
        == strings{"b: stop", "a: stop", "web: scale 4 -> 6", "d: start",
                   "e: start"});
  CHECK(plan(from, file({}))
        == strings{"c: stop", "b: stop", "web: stop", "a: stop"});
  // Another order alone is no change of what runs.
  CHECK(plan(file({worker("a"), worker("b")}), file({worker("b"), worker("a")}))
            .empty());
}

TEST_CASE("the file wins over scale requests") {
  const auto from = file({web("web", 4)});
  CHECK(plan(from, from, {{"web", 6}})
        == strings{"web: scale 6 -> 4 (as the file says)"});
  CHECK(plan(from, file({web("web", 6)}), {{"web", 6}}).empty());
  CHECK(plan(from, file({web("web", 5)}), {{"web", 6}})
        == strings{"web: scale 6 -> 5"});
}

TEST_CASE("what the change of a key costs") {
  struct row {
    std::function<void(process_spec&)> change;
    std::string line;
  };
  const std::vector<row> rows{
      {[](auto& x) { x.argv = {"other"}; }, "web: reload (cmd)"},
      {[](auto& x) {
         x.argv = {"/bin/sh", "-c", "other"};
         x.shell = true;
       },
       "web: reload (cmd)"},
      {[](auto& x) {
         x.argv = {"other"};
         x.env["A"] = "1";
         x.restart_limit = 3;
       },
       "web: reload (cmd, env), change (restartLimit)"},
      {[](auto& x) { x.cwd = "/tmp"; }, "web: reload (cwd)"},
      {[](auto& x) { x.inherit_env.emplace(); }, "web: reload (inheritEnv)"},
      {[](auto& x) { x.start_limit = 3; }, "web: change (startLimit)"},
      {[](auto& x) { x.output.json = true; }, "web: reload (logger)"},
      {[](auto& x) { x.watchdog = 1s; }, "web: reload (watchdogMs)"},
      {[](auto& x) { x.autostart = false; }, "web: change (autostart)"},
      {[](auto& x) { x.stop_signal = 2; }, "web: change (stopSignal)"},
      {[](auto& x) { x.hooks.pre_stop.argv = {"a"}; }, "web: change (hooks)"},
      {[](auto& x) { x.ready_path = "/x"; }, "web: change (ready)"},
      {[](auto& x) { x.cron = "@daily"; }, "web: change (cron)"},
      {[](auto& x) { x.max_memory = 1; }, "web: reload (maxMemory)"},
      {[](auto& x) { x.in_group = "g"; }, "web: change (supervisor)"},
      {[](auto& x) { x.cluster->start_port = 9000; },
       "web: reload (startPort)"},
      {[](auto& x) { x.cluster->common_port = 3001; },
       "web: change (commonPort)"},
      {[](auto& x) { x.cluster->common_host = "::1"; },
       "web: change (commonHost)"},
      {[](auto& x) { x.cluster->common_port = 0; },
       "web: stop and start (commonPort)"},
      {[](auto& x) { x.cluster->drain_timeout = 1s; },
       "web: change (drainTimeoutMs)"},
      {[](auto& x) { x.cluster->strategy = balance_strategy::random; },
       "web: change (strategy)"},
      {[](auto& x) { x.cluster->health.emplace(); },
       "web: change (healthCheck)"},
      {[](auto& x) { x.cluster->max_surge = 2; }, "web: change (maxSurge)"},
      {[](auto& x) { x.cluster->header = proxy_header::v1; },
       "web: stop and start (proxyProtocol)"},
      {[](auto& x) { x.cluster->mode = cluster_mode::inherit; },
       "web: stop and start (mode)"},
      {[](auto& x) { x.cluster.reset(); }, "web: stop and start (cluster)"},
      {[](auto& x) {
         x.cluster->instances = 2;
         x.argv = {"other"};
       },
       "web: scale 4 -> 2, reload (cmd)"},
  };
  for (const auto& x : rows)
    CHECK(line(web("web", 4), x.change) == x.line);
  CHECK(line(worker("web"), [](auto& x) { x.cluster.emplace(); })
        == "web: stop and start (cluster)");
}

// In mode inherit the sockets belong to the instances, too.
TEST_CASE("the port of an inheriting cluster cannot move") {
  auto unit = web("web", 2);
  unit.cluster->mode = cluster_mode::inherit;
  CHECK(line(unit, [](auto& x) { x.cluster->common_port = 3001; })
        == "web: stop and start (commonPort)");
  CHECK(line(unit, [](auto& x) { x.cluster->common_host = "::1"; })
        == "web: stop and start (commonHost)");
}

TEST_CASE("groups and their like hold at once") {
  const auto from = file({worker("a")});
  auto to = from;
  to.groups["g"] = {};
  to.start_concurrency = 2;
  CHECK(plan(from, to)
        == strings{"groups: change", "startConcurrency: change"});
}

TEST_CASE("what only a new start of pup can change is said") {
  const auto from = file({worker("a")});
  auto to = from;
  to.logger.files_kept = 7;
  CHECK(plan(from, to) == strings{"logger: holds when pup is started again"});
}
