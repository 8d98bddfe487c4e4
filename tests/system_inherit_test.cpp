// Mode "inherit": the kernel spreads the connections over sockets that the
// instances inherit. What clients see while instances come, go, hang and die.
#include "deno.hpp"
#include "load_clients.hpp"

#include <csignal>
#include <set>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

constexpr const char* inherit = R"("mode": "inherit")";

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

void done(const finished& x) {
  CHECK(x.err == "");
  REQUIRE(x.code == 0);
}

json::object instance(const sandbox& box, const std::string& id) {
  return with_id(box.unit("web").at("instances").as_array(), id);
}

pid_t pid_of(const json::object& x) {
  return x.at("pid").is_null() ? 0 : x.at("pid").to_number<pid_t>();
}

bool is_back(const sandbox& box, const std::string& id, pid_t old) {
  return wait_until([&] {
    const auto now = instance(box, id);
    return now.at("state").as_string() == "ready" && pid_of(now) != old;
  });
}

std::set<std::string> answering(std::uint16_t port, int requests) {
  std::set<std::string> result;
  for (int i = 0; i < requests; ++i)
    result.insert(who(port));
  return result;
}

// Of 64 random connections over n instances one misses an instance with a
// probability of n * (1 - 1/n)^64: 4e-8 for four.
constexpr int enough_requests = 64;

}  // namespace

SCENARIO("instances that inherit serve the common port themselves") {
  sandbox box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 4, inherit)}));
  start(box);
  CHECK(answering(ports[0], enough_requests)
        == std::set<std::string>{"web-1", "web-2", "web-3", "web-4"});

  connection client{{ports[0], "127.0.0.1", {}}};
  const auto served_by = client.get().body;
  const auto unit = box.unit("web");
  const auto& balancer = unit.at("balancer").as_object();
  CHECK(balancer.at("mode") == "inherit");
  CHECK(balancer.at("strategy") == "random");
  CHECK(balancer.at("connectionsActive") == 1);
  for (const auto* key :
       {"connectionsTotal", "bytesIn", "bytesOut", "rejected"})
    CHECK(balancer.at(key).is_null());
  for (const auto& x : unit.at("instances").as_array()) {
    const auto& i = x.as_object();
    const std::string id{i.at("id").as_string()};
    CHECK(i.at("connectionsActive").to_number<int>()
          == (served_by.starts_with(id + ' ') ? 1 : 0));
    CHECK(i.at("connectionsTotal").is_null());
  }

  THEN("a scaled one serves as well, and leaves when it has no client") {
    done(box.pup({"--id", "web", "--instances", "6"}));
    CHECK(answering(ports[0], 2 * enough_requests).size() == 6);
    done(box.pup({"--id", "web", "--instances", "0", "--no-wait"}));
    // It still has a client, which is served to its end.
    CHECK(client.get().body == served_by);
    CHECK(box.unit("web").at("state").as_string() == "stopped");
    client.shutdown_send();  // else the drain lasts for 30 s
  }
  THEN("stopped, its port is free") {
    process stop{box.command({"stop", "web"})};
    client.shutdown_send();  // else the drain would last
    CHECK(stop.wait().code == 0);
    CHECK(port_is_free(ports[0]));
    done(box.pup({"start", "web"}));
    CHECK(who(ports[0]).starts_with("web-"));
  }
  CHECK(box.end() == "");
}

SCENARIO("no client notices that an inheriting cluster is scaled") {
  sandbox box;
  const port_range ports{7};
  box.write("config.json", config({web(ports, 4, inherit)}));
  start(box);
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  for (const auto* count : {"6", "2", "5"}) {
    done(box.pup({"--id", "web", "--instances", count}));
    REQUIRE(clients.serves(300));
  }
  done(box.pup({"restart", "web-2"}));
  done(box.pup({"restart", "web"}));
  REQUIRE(clients.serves(300));
  check_outcome("inherit: scale 4, 6, 2, 5, restart", clients.end());
  CHECK(box.unit("web").at("ready").to_number<int>() == 5);
  CHECK(box.end() == "");
}

SCENARIO("clients wait for the only inheriting instance") {
  sandbox box;
  const port_range ports{2};
  box.write("config.json", config({web(ports, 1, inherit)}));
  start(box);
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  done(box.pup({"restart", "web-1"}));
  REQUIRE(clients.serves(300));
  done(box.pup({"--id", "web", "--instances", "0"}));
  done(box.pup({"--id", "web", "--instances", "1"}));
  REQUIRE(clients.serves(300));
  check_outcome("inherit: the only instance", clients.end());
  CHECK(box.end() == "");
}

SCENARIO("a killed inheriting instance costs only what it was answering") {
  sandbox box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 4, inherit)}));
  start(box);
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  constexpr int kills = 6;
  for (int n = 0; n < kills; ++n) {
    const auto id = "web-" + std::to_string(n % 4 + 1);
    const auto victim = pid_of(instance(box, id));
    REQUIRE(victim > 0);
    REQUIRE(::kill(victim, SIGKILL) == 0);
    REQUIRE(clients.serves(50));
    REQUIRE(is_back(box, id, victim));
  }
  REQUIRE(clients.serves(300));
  check_outcome("inherit: 6 times kill -9", clients.end(),
                kills * load_threads);
  CHECK(box.end() == "");
}

SCENARIO("what waits for an instance that will not come back is rescued") {
  sandbox box;
  const port_range ports{3};
  // The frozen instance is not restarted, and its queue must not die with it.
  box.write("config.json",
            config({web(ports, 2, inherit, R"("restart": "never")")}));
  start(box);
  const auto frozen = pid_of(instance(box, "web-1"));
  freeze(frozen);
  // Half of them are steered to the frozen one and wait there.
  std::vector<std::unique_ptr<connection>> clients;
  for (int i = 0; i < 32; ++i) {
    clients.push_back(
        std::make_unique<connection>(endpoint{ports[0], "127.0.0.1", {}}));
    clients.back()->ask("/");
  }
  REQUIRE(::kill(frozen, SIGKILL) == 0);
  for (auto& x : clients)
    CHECK(x->answer().body.starts_with("web-2 "));
  clients.clear();
  CHECK(answering(ports[0], 8) == std::set<std::string>{"web-2"});
  CHECK(box.end() == "");
}

SCENARIO("source-ip-hash in the kernel keeps clients with their instance") {
  sandbox box;
  const port_range ports{5};
  box.write(
      "config.json",
      config({web(ports, 3,
                  R"("mode": "inherit", "strategy": "source-ip-hash")")}));
  start(box);
  const auto of = [&](int n) {
    return who({ports[0], "127.0.0.1", "127.0.7." + std::to_string(n)});
  };
  std::map<int, std::string> before;
  std::set<std::string> seen;
  for (int n = 1; n <= 60; ++n)
    seen.insert(before[n] = of(n));
  CHECK(seen.size() == 3);
  for (int n = 1; n <= 60; ++n)
    CHECK(of(n) == before[n]);
  done(box.pup({"--id", "web", "--instances", "4"}));
  int moved = 0;
  for (int n = 1; n <= 60; ++n) {
    const auto now = of(n);
    if (now == before[n])
      continue;
    ++moved;
    CHECK(now == "web-4");  // only to where it must
  }
  CHECK(moved > 5);
  CHECK(moved < 25);  // 15 ideally
  done(box.pup({"--id", "web", "--instances", "3"}));
  for (int n = 1; n <= 60; ++n)
    CHECK(of(n) == before[n]);
  CHECK(box.end() == "");
}

SCENARIO("a taken common port is told, and taken when it is free") {
  sandbox box;
  const port_range ports{3};
  box.write("config.json", config({web(ports, 2, inherit)}));
  std::optional<process> thief;
  thief.emplace(
      box.program({PUP_HTTP_SERVER, std::to_string(ports[0]), "127.0.0.1"}));
  REQUIRE(thief->says("listening"));
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.code == 1);
  CHECK(started.err.find("port " + std::to_string(ports[0])
                         + " is in use by pid " + std::to_string(thief->pid()))
        != std::string::npos);
  thief.reset();
  CHECK(wait_until(
      [&] { return box.unit("web").at("state").as_string() == "running"; }));
  CHECK(who(ports[0]).starts_with("web-"));
  CHECK(box.end() == "");
}

// -- health -------------------------------------------------------------------

SCENARIO("an instance that hangs with its port open is restarted") {
  sandbox box;
  const port_range ports{4};
  const auto* mode = GENERATE("proxy", "inherit");
  const auto* type = GENERATE(R"("tcp")", R"("http", "path": "/")");
  box.write(
      "config.json",
      config({web(ports, 3,
                  R"("healthCheck": {"intervalMs": 100, "timeoutMs": )"
                  R"(500, "unhealthyAfter": 2, "type": )"
                      + std::string{type} + R"(}, "mode": ")" + mode + '"')}));
  INFO(mode << ' ' << type);
  start(box);
  const auto hung = pid_of(instance(box, "web-2"));
  freeze(hung);
  // A frozen process still accepts in the kernel: a TCP check cannot tell.
  const bool can_tell = std::string{type} != R"("tcp")";
  if (can_tell) {
    REQUIRE(is_back(box, "web-2", hung));
    const auto now = instance(box, "web-2");
    CHECK(now.at("restarts") == 1);
    CHECK_FALSE(alive(hung));
    CHECK(answering(ports[0], enough_requests).size() == 3);
  } else {
    // Once its port is closed it can.
    REQUIRE(::kill(hung, SIGCONT) == 0);
    CHECK(get(ports[2], "/unlisten").status == 200);
    REQUIRE(is_back(box, "web-2", hung));
  }
  CHECK(box.end() == "");
}

// -- other languages ----------------------------------------------------------

SCENARIO("programs in other languages inherit as well") {
  sandbox probe;
  const std::map<std::string, std::string> commands{
      {"python3", R"(["python3", "app.py"])"},
      {"node", R"(["node", "app.mjs"])"},
      {"deno", R"([")" + find_deno(probe) + R"(", "run", "-A", "app.mjs"])"}};
  for (const auto& [tool, command] : commands) {
    sandbox box;
    const auto program =
        tool == "deno"
            ? find_deno(box)
            : run(box.program({"sh", "-c", "command -v " + tool})).out;
    if (program.empty()) {
      WARN(tool << " is not installed, so it was not tried");
      continue;
    }
    INFO(tool);
    const port_range ports{1};
    box.write("config.json",
              config({R"({"id": "web", "cmd": )" + command + R"(, "cwd": ")"
                      + PUP_EXAMPLES
                      + R"(/inherit", "cluster": {"instances": 2, )"
                        R"("mode": "inherit", "commonPort": )"
                      + std::to_string(ports[0]) + "}}"}));
    start(box);
    std::set<std::string> seen;
    for (int i = 0; i < enough_requests; ++i)
      seen.insert(get(ports[0]).body);
    CHECK(seen == std::set<std::string>{"web-1\n", "web-2\n"});
    CHECK(box.end() == "");
  }
}
