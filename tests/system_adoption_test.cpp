// kill -9 of the supervisor is an event that users of managed applications do
// not notice: its successor goes on with every process, socket and line.
#include "pup/runtime/descendants.hpp"

#include "catch.hpp"
#include "load_clients.hpp"
#include "system.hpp"

#include <boost/json/serialize.hpp>

#include <csignal>
#include <fstream>
#include <iostream>
#include <sstream>

#include <unistd.h>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

using clock_type = std::chrono::steady_clock;

std::string text_of(const json::value& x) {
  return std::string{x.as_string().data(), x.as_string().size()};
}

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

/// One instance, or a process that is no cluster.
struct seen {
  std::string state;
  pid_t pid = 0;
  std::int64_t restarts = 0;

  bool operator==(const seen&) const = default;
};

std::ostream& operator<<(std::ostream& out, const seen& x) {
  return out << x.state << " pid " << x.pid << " restarts " << x.restarts;
}

struct picture {
  std::map<std::string, std::string> units;  // state and wanted number
  std::map<std::string, seen> instances;

  bool operator==(const picture&) const = default;
};

seen seen_of(const json::object& x) {
  const auto& pid = x.at("pid");
  return {text_of(x.at("state")), pid.is_null() ? 0 : pid.to_number<pid_t>(),
          x.at("restarts").to_number<std::int64_t>()};
}

/// None while no supervisor answers.
std::optional<picture> look(const sandbox& box, pid_t* supervisor = nullptr) {
  const auto answer = box.pup({"status", "--json"});
  if (answer.code != 0)
    return std::nullopt;
  const auto status = parse_json(answer.out).as_object();
  if (supervisor != nullptr)
    *supervisor = status.at("pid").to_number<pid_t>();
  picture result;
  for (const auto& x : status.at("processes").as_array()) {
    const auto& unit = x.as_object();
    const auto id = text_of(unit.at("id"));
    result.units[id] = text_of(unit.at("state"));
    if (!unit.contains("instances")) {
      result.instances[id] = seen_of(unit);
      continue;
    }
    result.units[id] +=
        ' ' + std::to_string(unit.at("desired").to_number<int>());
    for (const auto& y : unit.at("instances").as_array())
      result.instances[text_of(y.at("id"))] = seen_of(y.as_object());
  }
  return result;
}

pid_t supervisor(const sandbox& box) {
  pid_t result = 0;
  REQUIRE(wait_until([&] { return look(box, &result).has_value(); }));
  return result;
}

/// Waits until a successor of `old` answers; what it says.
picture after(const sandbox& box, pid_t old) {
  std::optional<picture> result;
  REQUIRE(wait_until([&] {
    pid_t now = 0;
    result = look(box, &now);
    return result && now != old;
  }));
  return *result;
}

picture kill_supervisor(const sandbox& box) {
  const auto old = supervisor(box);
  REQUIRE(::kill(old, SIGKILL) == 0);
  return after(box, old);
}

/// The guardian learns of both ends at once: it is stopped meanwhile.
template <class Function>
picture kill_supervisor_and(const sandbox& box, Function meanwhile) {
  const auto old = supervisor(box);
  const auto guardian = only(box.guardians());
  freeze(guardian);
  REQUIRE(::kill(old, SIGKILL) == 0);
  meanwhile();
  REQUIRE(::kill(guardian, SIGCONT) == 0);
  return after(box, old);
}

std::string sleeper(const std::string& id, const std::string& more = {}) {
  return R"({"id": ")" + id + R"(", "cmd": ["sleep", "1000"])"
         + (more.empty() ? "" : ", " + more) + "}";
}

/// The example server as a cluster `id` of a mode.
std::string server(const std::string& id, const port_range& ports,
                   std::uint16_t first, int instances,
                   const std::string& mode) {
  return R"({"id": ")" + id
         + R"(", "cmd": [")" PUP_HTTP_SERVER R"("], "cluster": {"instances": )"
         + std::to_string(instances) + R"(, "mode": ")" + mode
         + R"(", "commonPort": )" + std::to_string(ports[first])
         + R"(, "startPort": )"
         + std::to_string(ports[static_cast<std::uint16_t>(first + 1)]) + "}}";
}

/// Processes of the sandbox that are no pup.
std::set<pid_t> others(const sandbox& box) {
  auto result = box.running();
  for (const auto x : box.pups())
    result.erase(x);
  return result;
}

std::set<pid_t> pids_of(const picture& x) {
  std::set<pid_t> result;
  for (const auto& [id, y] : x.instances)
    if (y.pid != 0)
      result.insert(y.pid);
  return result;
}

}  // namespace

SCENARIO("kill -9 of the supervisor under load: nobody notices") {
  sandbox box;
  const port_range ports{16};
  // Numbers its lines, so that one that is lost or doubled is found out.
  const std::string ticker = R"({"id": "ticker", "cmd":
    "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done"})";
  box.write("config.json",
            config({server("web-proxy", ports, 0, 3, "proxy"),
                    server("web-inherit", ports, 8, 3, "inherit"),
                    R"({"id": "many", "cmd": ["sleep", "1000"],
                        "cluster": {"instances": 10}})",
                    ticker, sleeper("stopped"), sleeper("blocked"),
                    R"({"id": "once", "cmd": "exit 0", "restart": "never"})"}));
  start(box);
  REQUIRE(box.pup({"scale", "web-proxy", "5"}).code == 0);
  REQUIRE(box.pup({"scale", "many", "12"}).code == 0);
  REQUIRE(box.pup({"restart", "many-3"}).code == 0);
  REQUIRE(box.pup({"stop", "stopped"}).code == 0);
  REQUIRE(box.pup({"block", "blocked"}).code == 0);
  REQUIRE(wait_until(
      [&] { return text_of(box.unit("once").at("state")) == "finished"; }));
  const auto before = *look(box);
  const auto guardian = only(box.guardians());
  REQUIRE(before.instances.at("many-3").restarts == 1);

  load proxied{ports[0]};
  load inherited{ports[8]};
  REQUIRE(proxied.serves(50));
  REQUIRE(inherited.serves(50));
  // Twice: a successor is as good as the first.
  for (int round = 0; round < 2; ++round) {
    const auto now = kill_supervisor(box);
    CHECK(now.units == before.units);
    CHECK(now.instances == before.instances);
    // The ticker's own child comes and goes; whoever is an instance's process
    // has the guardian for its parent.
    auto running = others(box);
    std::erase_if(running,
                  [&](pid_t x) { return pup::parent_of(x) != guardian; });
    CHECK(running == pids_of(before));
    CHECK(box.guardians() == std::set<pid_t>{guardian});
    REQUIRE(proxied.serves(200));
    REQUIRE(inherited.serves(200));
  }
  // Behind the proxy those connections that were open are cut, and only they.
  check_outcome("proxy", proxied.end(), 8);
  check_outcome("inherit", inherited.end());

  // The log went on in the middle of a line.
  REQUIRE(box.pup({"stop", "ticker"}).code == 0);
  std::istringstream lines{
      box.pup({"logs", "--id", "ticker", "-n", "1000000"}).out};
  long expected = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto at = line.find(" line ");
    if (at == std::string::npos)
      continue;
    INFO(line);
    CHECK(std::stol(line.substr(at + 6)) == ++expected);
  }
  CHECK(expected > 50);
  // Everything can still be changed, and ends in order.
  CHECK(box.pup({"scale", "web-proxy", "2"}).code == 0);
  CHECK(box.pup({"scale", "web-inherit", "1"}).code == 0);
  CHECK(box.pup({"restart", "many"}).code == 0);
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(box.running().empty());
  CHECK(port_is_free(ports[0]));
  CHECK(port_is_free(ports[8]));
  CHECK(box.end() == "");
}

SCENARIO("an end during the gap is handled by the restart policy") {
  sandbox box;
  box.write(
      "config.json",
      config({sleeper("always"), sleeper("never", R"("restart": "never")"),
              sleeper("error", R"("restart": "error")"),
              sleeper("limited", R"("restartLimit": 1)"), sleeper("lucky")}));
  start(box);
  const auto before = *look(box);
  const auto now = kill_supervisor_and(box, [&] {
    for (const auto* id : {"always", "never", "error", "limited"})
      REQUIRE(::kill(before.instances.at(id).pid, SIGKILL) == 0);
  });
  CHECK(now.instances.at("lucky") == before.instances.at("lucky"));
  REQUIRE(wait_until([&] {
    const auto x = *look(box);
    return x.units.at("always") == "ready" && x.units.at("never") == "failed"
           && x.units.at("error") == "ready"
           && x.units.at("limited") == "ready";
  }));
  const auto settled = *look(box);
  CHECK(settled.instances.at("always").restarts == 1);
  CHECK(settled.instances.at("error").restarts == 1);
  CHECK(settled.instances.at("never").restarts == 0);
  CHECK(others(box) == pids_of(settled));
  // What counts against the limit is remembered as well.
  kill_supervisor(box);
  REQUIRE(::kill(look(box)->instances.at("limited").pid, SIGKILL) == 0);
  CHECK(wait_until(
      [&] { return look(box)->units.at("limited") == "exhausted"; }));
  CHECK(box.end() == "");
}

SCENARIO("killed while instances start: none is started twice") {
  sandbox box;
  const port_range ports{6};
  box.write(
      "config.json",
      config({web(ports, 4, {}, R"("env": {"START_DELAY_MS": "1500"})")}));
  CHECK(box.pup({"start", "config.json", "--no-wait"}).code == 0);
  REQUIRE(wait_until([&] { return others(box).size() == 4; }));
  const auto pids = others(box);
  kill_supervisor(box);
  REQUIRE(
      wait_until([&] { return look(box)->units.at("web") == "running 4"; }));
  CHECK(others(box) == pids);
  CHECK(get(ports[0]).status == 200);
  CHECK(box.end() == "");
}

SCENARIO("killed during a scale down: it is completed") {
  sandbox box;
  const port_range ports{6};
  box.write("config.json",
            config({web(ports, 4, R"("drainTimeoutMs": 60000)")}));
  start(box);
  const auto before = *look(box);
  // A slow answer keeps the fourth from leaving.
  std::vector<connection> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back(endpoint{ports[0], "127.0.0.1", {}});
    clients.back().ask("/slow?ms=3000");
  }
  REQUIRE(wait_until([&] {
    return box.unit("web").at("balancer").at("connectionsActive") == 4;
  }));
  CHECK(box.pup({"scale", "web", "2", "--no-wait"}).code == 0);
  REQUIRE(wait_until(
      [&] { return look(box)->instances.at("web-4").state == "draining"; }));
  kill_supervisor(box);
  REQUIRE(wait_until([&] {
    const auto x = *look(box);
    return x.units.at("web") == "running 2" && x.instances.size() == 2;
  }));
  const auto now = *look(box);
  CHECK(now.instances.at("web-1") == before.instances.at("web-1"));
  CHECK(now.instances.at("web-2") == before.instances.at("web-2"));
  CHECK(others(box) == pids_of(now));
  CHECK(box.end() == "");
}

SCENARIO("killed while it stops everything: nothing is started again") {
  sandbox box;
  const port_range ports{3};
  // The second takes a while to go; the third has gone by then. The first one
  // begins to drain under the successor, which has not opened its port.
  box.write("config.json", config({web(ports, 2, R"("drainTimeoutMs": 600000)"),
                                   R"({"id": "slow", "cmd":
    "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.05; done"})",
                                   sleeper("b")}));
  start(box);
  const auto old = supervisor(box);
  const auto guardian = only(box.guardians());
  CHECK(box.pup({"terminate", "--no-wait"}).code == 0);
  REQUIRE(wait_until([&] {
    const auto x = look(box);
    return x && x->units.at("b") == "stopped";
  }));
  REQUIRE(::kill(old, SIGKILL) == 0);
  CHECK(wait_for_end(guardian));
  CHECK(box.running().empty());
  CHECK(box.end() == "");
}

SCENARIO("the time from the kill to the next answer") {
  sandbox box;
  const port_range ports{6};
  box.write("config.json", config({web(ports, 4)}));
  start(box);
  std::vector<double> times;
  for (int i = 0; i < 3; ++i) {  // so many successors are started at once
    const auto old = supervisor(box);
    const auto begin = clock_type::now();
    REQUIRE(::kill(old, SIGKILL) == 0);
    CHECK(get(ports[0]).status == 200);
    const std::chrono::duration<double, std::milli> took =
        clock_type::now() - begin;
    times.push_back(took.count());
    after(box, old);
  }
  std::sort(times.begin(), times.end());
  std::cout << "kill to served: " << times[0] << " ms at best, "
            << times[times.size() / 2] << " ms in the middle\n";
  CHECK(box.end() == "");
}

SCENARIO("a successor goes on without the file of variables there was") {
  sandbox box;
  box.env["PATH"] = "/usr/bin:/bin";
  box.write("a.env", "COLOUR='dark blue'\n");
  box.write("config.json", config({R"({"id": "a", "envFile": "a.env",
    "cmd": "echo $COLOUR > told; exec sleep 1000"})"}));
  start(box);
  REQUIRE(wait_until([&] {
    std::ifstream told{box.path("told")};
    std::string text;
    return std::getline(told, text) && text == "dark blue";
  }));
  const auto pid = box.unit("a").at("pid").to_number<pid_t>();
  const auto crash = [&] {
    const auto supervisor = only(box.supervisors());
    REQUIRE(::kill(supervisor, SIGKILL) == 0);
    REQUIRE(wait_for_end(supervisor));
    REQUIRE(wait_until([&] { return box.pup({"status"}).code == 0; }));
  };
  const auto warnings = [&] {
    return json::serialize(box.status().at("warnings"));
  };
  std::filesystem::remove(box.path("a.env"));
  std::filesystem::remove(box.path("told"));
  crash();
  CHECK(box.unit("a").at("pid").to_number<pid_t>() == pid);
  CHECK(warnings().find("a.env: no such file; what is started gets")
        != std::string::npos);
  // What is begun anew has what it had.
  CHECK(box.pup({"restart", "a"}).code == 0);
  REQUIRE(
      wait_until([&] { return std::filesystem::exists(box.path("told")); }));
  CHECK(wait_until([&] { return box.read("told") == "dark blue\n"; }));
  // An apply reads it again: that it is missing is a fault there.
  CHECK(box.pup({"apply", "config.json"}).code == 2);
  box.write("a.env", "COLOUR=red\n");
  CHECK(box.pup({"apply", "config.json"}).code == 0);
  CHECK(warnings() == "[]");
  CHECK(wait_until([&] { return box.read("told") == "red\n"; }));
  // And that is what the next one has.
  std::filesystem::remove(box.path("a.env"));
  crash();
  CHECK(box.pup({"restart", "a"}).code == 0);
  CHECK(wait_until([&] { return box.read("told") == "red\n"; }));
  CHECK(box.end() == "");
}
