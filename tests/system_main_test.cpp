// The main job, as its user sees it: start, balance, scale, restart, terminate.
#include "catch.hpp"
#include "system.hpp"

#include <algorithm>
#include <csignal>

#include <poll.h>

using namespace pup::test;

namespace json = boost::json;

namespace {

using names = std::vector<std::string>;

std::string text_of(const json::value& x) {
  return std::string{x.as_string().data(), x.as_string().size()};
}

names keys_of(const json::object& x) {
  names result;
  for (const auto& member : x)
    result.emplace_back(member.key().data(), member.key().size());
  std::sort(result.begin(), result.end());
  return result;
}

names ids_of(const json::object& unit) {
  names result;
  for (const auto& x : unit.at("instances").as_array())
    result.push_back(text_of(x.at("id")));
  return result;
}

/// id -> pid of the instances of a cluster.
std::map<std::string, std::int64_t> pids_of(const json::object& unit) {
  std::map<std::string, std::int64_t> result;
  for (const auto& x : unit.at("instances").as_array())
    result[text_of(x.at("id"))] =
        x.at("pid").is_null() ? 0 : x.at("pid").to_number<std::int64_t>();
  return result;
}

json::object instance(const sandbox& box, const std::string& id) {
  return with_id(box.unit("web").at("instances").as_array(), id);
}

names numbered(int count) {
  names result;
  for (int n = 1; n <= count; ++n)
    result.push_back("web-" + std::to_string(n));
  return result;
}

/// Who answered each of `count` requests, one connection each.
names served(std::uint16_t port, std::size_t count) {
  names result;
  for (std::size_t i = 0; i < count; ++i)
    result.push_back(who(port));
  return result;
}

/// Clients that do not reach the same instance any more, for short messages.
std::map<std::string, std::string> differences(const names& a, const names& b) {
  std::map<std::string, std::string> result;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i] != b[i])
      result["client " + std::to_string(i)] = a[i] + " -> " + b[i];
  return result;
}

std::map<std::string, int> tally(const names& all) {
  std::map<std::string, int> result;
  for (const auto& x : all)
    ++result[x];
  return result;
}

/// Each of `all` exactly `times` times, in turn: web-1, web-2, …
void check_turns(const names& answers, const names& all, std::size_t times) {
  REQUIRE(answers.size() == all.size() * times);
  const auto first = std::find(all.begin(), all.end(), answers.front());
  REQUIRE(first != all.end());
  auto at = static_cast<std::size_t>(first - all.begin());
  for (const auto& x : answers) {
    CHECK(x == all[at]);
    at = (at + 1) % all.size();
  }
}

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

void expect(const finished& x, const std::string& out) {
  CHECK(x.err == "");
  CHECK(x.out == out);
  REQUIRE(x.code == 0);
}

bool readable_now(const connection& x) {
  pollfd event{x.fd(), POLLIN, 0};
  return ::poll(&event, 1, 0) > 0;
}

/// Which instance each of 240 clients from 127.0.1.1 … 127.0.12.20 reaches.
names by_source(std::uint16_t port) {
  names result;
  for (int a = 1; a <= 12; ++a)
    for (int b = 1; b <= 20; ++b)
      result.push_back(
          who({port, "127.0.0.1",
               "127.0." + std::to_string(a) + '.' + std::to_string(b)}));
  return result;
}

bool has_ipv6() {
  try {
    connection{{1, "::1", {}}};
    return true;
  } catch (const std::system_error& e) {
    return e.code() == std::errc::connection_refused;
  }
}

}  // namespace

SCENARIO("start prints what runs and requests reach all instances in turn") {
  sandbox box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 4)}));

  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
  CHECK(started.out.starts_with("ID"));
  CHECK(started.out.find("running 4/4") != std::string::npos);
  for (const auto& id : numbered(4)) {
    const auto at = started.out.find("\n  " + id + ' ');
    REQUIRE(at != std::string::npos);
    const auto line =
        started.out.substr(at + 1, started.out.find('\n', at + 1) - at - 1);
    CHECK(line.find(" ready ") != std::string::npos);
  }
  CHECK(ids_of(box.unit("web")) == numbered(4));
  check_turns(served(ports[0], 12), numbered(4), 3);
  CHECK(box.end() == "");
}

SCENARIO("a running cluster is scaled to 6, 2, 0 and 4") {
  sandbox box;
  const port_range ports{7};
  box.write("config.json", config({web(ports, 4)}));
  start(box);
  const auto before = pids_of(box.unit("web"));

  expect(box.pup({"--id", "web", "--instances", "6"}),
         "web: 4 -> 6 instances\n  web-5: ready\n  web-6: ready\n");
  auto now = box.unit("web");
  CHECK(ids_of(now) == numbered(6));
  for (const auto& [id, pid] : before)
    CHECK(pids_of(now).at(id) == pid);
  check_turns(served(ports[0], 12), numbered(6), 2);

  expect(box.pup({"--id", "web", "--instances", "2"}),
         "web: 6 -> 2 instances\n  web-3: stopped\n  web-4: stopped\n"
         "  web-5: stopped\n  web-6: stopped\n");
  now = box.unit("web");
  CHECK(ids_of(now) == numbered(2));
  for (const auto& [id, pid] : pids_of(now))
    CHECK(pid == before.at(id));
  for (std::uint16_t n = 3; n <= 6; ++n)
    CHECK(port_is_free(ports[n]));
  check_turns(served(ports[0], 6), numbered(2), 3);

  expect(box.pup({"--id", "web", "--instances", "0"}),
         "web: 2 -> 0 instances\n  web-1: stopped\n  web-2: stopped\n");
  now = box.unit("web");
  CHECK(text_of(now.at("state")) == "stopped");
  CHECK(now.at("instances").as_array().empty());

  // The port stays open: a client waits and is served as soon as somebody can.
  {
    connection waiting{{ports[0], "127.0.0.1", {}}};
    waiting.ask("/");
    box.status();
    CHECK_FALSE(readable_now(waiting));
    CHECK(box.pup({"--id", "web", "--instances", "4"}).code == 0);
    CHECK(waiting.answer().status == 200);
  }
  check_turns(served(ports[0], 8), numbered(4), 2);
  CHECK(box.end() == "");
}

SCENARIO("a cluster is scaled by differences") {
  sandbox box;
  const port_range ports{6};
  box.write("config.json", config({web(ports, 1)}));
  start(box);
  expect(box.pup({"scale", "web", "+2"}),
         "web: 1 -> 3 instances\n  web-2: ready\n  web-3: ready\n");
  expect(box.pup({"scale", "web", "-1"}),
         "web: 3 -> 2 instances\n  web-3: stopped\n");
  expect(box.pup({"scale", "web", "2"}), "web: 2 instances\n");
  expect(box.pup({"scale", "web", "-9"}),
         "web: 2 -> 0 instances\n  web-1: stopped\n  web-2: stopped\n");
}

SCENARIO("source-ip-hash keeps each client with its instance") {
  sandbox box;
  const port_range ports{7};
  box.write("config.json",
            config({web(ports, 4, R"("strategy": "source-ip-hash")")}));
  start(box);

  const std::map<std::string, std::string> none_moved;
  const auto first = by_source(ports[0]);
  CHECK(tally(first).size() == 4);
  CHECK(differences(first, by_source(ports[0])) == none_moved);

  WHEN("two instances join and leave again") {
    REQUIRE(box.pup({"scale", "web", "6"}).code == 0);
    const auto with_six = by_source(ports[0]);
    std::size_t moved = 0;
    for (std::size_t i = 0; i < first.size(); ++i) {
      if (with_six[i] == first[i])
        continue;
      ++moved;
      CHECK((with_six[i] == "web-5" || with_six[i] == "web-6"));
    }
    // A third of 240 is 80; four standard deviations of a binomial are 29.
    CHECK(moved > 51);
    CHECK(moved < 109);
    REQUIRE(box.pup({"scale", "web", "4"}).code == 0);
    CHECK(differences(first, by_source(ports[0])) == none_moved);
  }
  WHEN("one instance stops and starts again") {
    REQUIRE(box.pup({"stop", "web-2"}).code == 0);
    const auto without = by_source(ports[0]);
    for (std::size_t i = 0; i < first.size(); ++i)
      CHECK((first[i] == "web-2" ? without[i] != "web-2"
                                 : without[i] == first[i]));
    REQUIRE(box.pup({"start", "web-2"}).code == 0);
    CHECK(differences(first, by_source(ports[0])) == none_moved);
  }
  WHEN("pup itself is started anew") {
    REQUIRE(box.pup({"terminate"}).code == 0);
    start(box);
    CHECK(differences(first, by_source(ports[0])) == none_moved);
  }
}

SCENARIO("least-connections prefers who has the fewest") {
  sandbox box;
  const port_range ports{4};
  box.write("config.json",
            config({web(ports, 3, R"("strategy": "least-connections")")}));
  start(box);

  std::vector<connection> held;
  std::vector<std::string> holders;
  for (int i = 0; i < 3; ++i) {
    held.emplace_back(endpoint{ports[0], "127.0.0.1", {}});
    const auto body = held.back().get().body;
    holders.push_back(body.substr(0, body.find(' ')));
  }
  CHECK(tally(holders).size() == 3);
  // Without its connection, holders[1] is the least loaded one.
  held.erase(held.begin() + 1);
  REQUIRE(wait_until([&] {
    return box.unit("web").at("balancer").at("connectionsActive") == 2;
  }));
  held.emplace_back(endpoint{ports[0], "127.0.0.1", {}});
  const auto body = held.back().get().body;
  CHECK(body.substr(0, body.find(' ')) == holders[1]);
}

SCENARIO("status --json says what the contract says") {
  sandbox box;
  const port_range ports{3};
  const auto file = box.write(
      "config.json",
      config({web(ports, 2), R"({"id": "worker", "cmd": ["sleep", "1000"]})",
              R"({"id": "once", "cmd": "exit 0", "restart": "never"})",
              R"({"id": "off", "cmd": ["sleep", "1000"], "autostart": false})"},
             R"("name": "my.pup")"));
  start(box);
  REQUIRE(served(ports[0], 4).size() == 4);
  REQUIRE(wait_until([&] {
    return text_of(box.unit("once").at("state")) == "finished"
           && box.unit("web").at("balancer").at("connectionsActive") == 0;
  }));

  const auto status = box.status();
  CHECK(keys_of(status)
        == names{"config", "name", "pid", "processes", "rssBytes", "uptimeMs",
                 "version", "warnings"});
  CHECK(text_of(status.at("name")) == "my.pup");
  CHECK(text_of(status.at("config")) == file);
  CHECK_FALSE(text_of(status.at("version")).empty());
  CHECK(box.supervisors()
        == std::set<pid_t>{status.at("pid").to_number<pid_t>()});
  CHECK(status.at("uptimeMs").to_number<std::int64_t>() > 0);
  CHECK(status.at("rssBytes").to_number<std::int64_t>() > 1'000'000);

  const auto& all = status.at("processes").as_array();
  REQUIRE(all.size() == 4);
  const auto& cluster = with_id(all, "web");
  CHECK(keys_of(cluster)
        == names{"balancer", "desired", "id", "instances", "ready", "reason",
                 "state", "type"});
  CHECK(text_of(cluster.at("type")) == "cluster");
  CHECK(text_of(cluster.at("state")) == "running");
  CHECK(cluster.at("desired") == 2);
  CHECK(cluster.at("ready") == 2);

  const auto& balancer = cluster.at("balancer").as_object();
  CHECK(keys_of(balancer)
        == names{"bytesIn", "bytesOut", "connectionsActive", "connectionsTotal",
                 "mode", "port", "rejected", "strategy"});
  CHECK(balancer.at("port") == ports[0]);
  CHECK(text_of(balancer.at("strategy")) == "round-robin");
  CHECK(text_of(balancer.at("mode")) == "proxy");
  CHECK(balancer.at("connectionsTotal") == 4);
  CHECK(balancer.at("connectionsActive") == 0);
  CHECK(balancer.at("rejected") == 0);
  CHECK(balancer.at("bytesIn").to_number<std::int64_t>() > 4 * 20);
  CHECK(balancer.at("bytesOut").to_number<std::int64_t>() > 4 * 60);

  const auto& instances = cluster.at("instances").as_array();
  REQUIRE(instances.size() == 2);
  for (std::uint16_t n = 1; n <= 2; ++n) {
    const auto& x = with_id(instances, "web-" + std::to_string(n));
    CHECK(keys_of(x)
          == names{"connectionsActive", "connectionsTotal", "cpuPercent",
                   "exitCode", "id", "logLostBytes", "logLostLines", "pid", "port", "reason", "restarts",
                   "rssBytes", "signal", "state", "uptimeMs"});
    CHECK(text_of(x.at("state")) == "ready");
    CHECK(alive(x.at("pid").to_number<pid_t>()));
    CHECK(x.at("port") == ports[n]);
    CHECK(x.at("restarts") == 0);
    CHECK(x.at("uptimeMs").to_number<std::int64_t>() > 0);
    CHECK(x.at("exitCode").is_null());
    CHECK(x.at("signal").is_null());
    CHECK(x.at("connectionsActive") == 0);
    CHECK(x.at("connectionsTotal") == 2);
    CHECK(x.at("cpuPercent").is_double());
    CHECK(x.at("rssBytes").to_number<std::int64_t>() > 100'000);
  }

  const auto& worker = with_id(all, "worker");
  CHECK(text_of(worker.at("type")) == "process");
  CHECK(text_of(worker.at("state")) == "ready");
  CHECK(alive(worker.at("pid").to_number<pid_t>()));
  CHECK(worker.at("restarts") == 0);
  CHECK_FALSE(worker.contains("instances"));
  const auto& once = with_id(all, "once");
  CHECK(once.at("pid").is_null());
  CHECK(once.at("exitCode") == 0);
  CHECK(text_of(with_id(all, "off").at("state")) == "stopped");

  const auto one = box.status({"web-2"}).at("processes").as_array();
  REQUIRE(one.size() == 1);
  CHECK(ids_of(one[0].as_object()) == names{"web-2"});
}

SCENARIO("one instance is restarted, stopped and started") {
  sandbox box;
  const port_range ports{4};
  box.write("config.json", config({web(ports, 3)}));
  start(box);
  const auto before = pids_of(box.unit("web"));

  expect(box.pup({"restart", "web-2"}), "web-2: ready\n");
  auto now = pids_of(box.unit("web"));
  CHECK(now.at("web-1") == before.at("web-1"));
  CHECK(now.at("web-2") != before.at("web-2"));
  CHECK(now.at("web-3") == before.at("web-3"));
  CHECK_FALSE(alive(static_cast<pid_t>(before.at("web-2"))));
  check_turns(served(ports[0], 6), numbered(3), 2);

  expect(box.pup({"stop", "web-2"}), "web-2: stopped\n");
  CHECK(text_of(instance(box, "web-2").at("state")) == "stopped");
  CHECK(instance(box, "web-2").at("pid").is_null());
  CHECK(port_is_free(ports[2]));
  CHECK(tally(served(ports[0], 6))
        == std::map<std::string, int>{{"web-1", 3}, {"web-3", 3}});

  expect(box.pup({"start", "web-2"}), "web-2: ready\n");
  check_turns(served(ports[0], 6), numbered(3), 2);
}

SCENARIO("all is stopped, started and restarted") {
  sandbox box;
  const port_range ports{3};
  box.write(
      "config.json",
      config({web(ports, 2), R"({"id": "worker", "cmd": ["sleep", "1000"]})"}));
  start(box);
  const auto before = pids_of(box.unit("web"));

  auto answer = box.pup({"stop", "all"});
  CHECK(answer.err == "");
  REQUIRE(answer.code == 0);
  for (const auto* line :
       {"web-1: stopped\n", "web-2: stopped\n", "worker: stopped\n"})
    CHECK(answer.out.find(line) != std::string::npos);
  CHECK(text_of(box.unit("web").at("state")) == "stopped");
  CHECK(text_of(box.unit("worker").at("state")) == "stopped");
  CHECK(box.running() == box.pups());
  for (std::uint16_t n = 0; n < 3; ++n)
    CHECK(port_is_free(ports[n]));

  answer = box.pup({"start", "all"});
  CHECK(answer.err == "");
  REQUIRE(answer.code == 0);
  check_turns(served(ports[0], 4), numbered(2), 2);
  const auto again = pids_of(box.unit("web"));
  CHECK(again.at("web-1") != before.at("web-1"));
  CHECK(text_of(box.unit("worker").at("state")) == "ready");

  REQUIRE(box.pup({"restart", "all"}).code == 0);
  CHECK(pids_of(box.unit("web")).at("web-1") != again.at("web-1"));
  check_turns(served(ports[0], 4), numbered(2), 2);
}

SCENARIO("instances are told who they are, and env wins") {
  sandbox box;
  const port_range ports{6};
  box.write("config.json", config({web(ports, 2)}, R"("name": "told")"));
  start(box);
  const auto variable = [](std::uint16_t port, const std::string& name) {
    const auto body = get(port, "/env?" + name).body;
    return body.substr(0, body.find('\n'));
  };
  for (std::uint16_t n = 1; n <= 2; ++n) {
    const auto port = std::to_string(ports[n]);
    CHECK(variable(ports[n], "PUP_ID") == "web-" + std::to_string(n));
    CHECK(variable(ports[n], "PUP_NAME") == "told");
    CHECK(variable(ports[n], "PUP_CLUSTER_INSTANCE") == std::to_string(n - 1));
    CHECK(variable(ports[n], "PUP_CLUSTER_PORT") == port);
    CHECK(variable(ports[n], "PORT") == port);
    CHECK(variable(ports[n], "DENO_SERVE_ADDRESS") == "tcp:127.0.0.1:" + port);
  }
  REQUIRE(box.pup({"terminate"}).code == 0);

  box.write("config.json",
            config({R"({"id": "web", "cmd": [")" PUP_HTTP_SERVER
                    R"(", "%{port}"], "env": {"PORT": "own", )"
                    R"("DENO_SERVE_ADDRESS": "tcp:%{id}"}, "cluster": )"
                    R"({"instances": 1, "startPort": )"
                    + std::to_string(ports[4]) + "}}"}));
  start(box);
  CHECK(variable(ports[4], "PORT") == "own");
  CHECK(variable(ports[4], "DENO_SERVE_ADDRESS") == "tcp:web-1");
  CHECK(variable(ports[4], "PUP_CLUSTER_PORT") == std::to_string(ports[4]));
}

SCENARIO("what instances say is kept") {
  sandbox box;
  const port_range ports{3};
  box.write("config.json", config({web(ports, 2)}, R"("name": "said")"));
  start(box);
  for (std::uint16_t n = 1; n <= 2; ++n)
    CHECK(box.pup({"logs", "web-" + std::to_string(n), "--json"}).out.find(
              R"("stream":"stdout","severity":"info","text":")"
              "listening on 127.0.0.1 port "
              + std::to_string(ports[n]) + '"')
          != std::string::npos);
}

SCENARIO("an instance that is killed is started again") {
  sandbox box;
  const port_range ports{3};
  box.write("config.json", config({web(ports, 2)}));
  start(box);
  const auto before = pids_of(box.unit("web"));
  REQUIRE(::kill(static_cast<pid_t>(before.at("web-1")), SIGKILL) == 0);
  REQUIRE(wait_until([&] {
    const auto x = instance(box, "web-1");
    return x.at("restarts") == 1 && text_of(x.at("state")) == "ready";
  }));
  const auto x = instance(box, "web-1");
  CHECK(x.at("pid").to_number<std::int64_t>() != before.at("web-1"));
  CHECK(x.at("signal") == SIGKILL);
  CHECK(x.at("exitCode").is_null());
  CHECK(pids_of(box.unit("web")).at("web-2") == before.at("web-2"));
  CHECK(instance(box, "web-2").at("restarts") == 0);
  check_turns(served(ports[0], 4), numbered(2), 2);
}

SCENARIO("terminate leaves nothing") {
  sandbox box;
  const port_range ports{5};
  // A child of its own in the same group, which knows nothing of pup.
  box.write("config.json",
            config({web(ports, 4),
                    R"({"id": "parent", "cmd": "sleep 1000 & wait"})"}));
  start(box);
  // pup, its guardian, four instances, the shell and what it starts in its own time.
  REQUIRE(wait_until([&] { return box.running().size() == 8; }));
  expect(box.pup({"terminate"}), "");
  CHECK(box.running() == std::set<pid_t>{});
  for (std::uint16_t n = 0; n < 5; ++n)
    CHECK(port_is_free(ports[n]));
  CHECK_FALSE(std::filesystem::exists(box.path("run/pup/control.sock")));
  CHECK(box.pup({"status"}).code == 3);
  CHECK(box.end() == "");
}

SCENARIO("clients come by IPv6 as well") {
  if (!has_ipv6()) {
    WARN("left out: this machine has no IPv6 loopback");
    return;
  }
  sandbox box;
  const port_range ports{3};
  box.write("config.json", config({web(ports, 2)}));
  start(box);
  names answers;
  for (int i = 0; i < 4; ++i)
    answers.push_back(who({ports[0], "::1", {}}));
  check_turns(answers, numbered(2), 2);
}
