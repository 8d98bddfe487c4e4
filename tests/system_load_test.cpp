// The main job under load: what clients see while instances come, go, are
// restarted and are killed.
#include "load_clients.hpp"

#include <csignal>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

// A thread has one request under way, and its next one may get into the queue
// of the instance's socket just before the kernel closes that one, too.
constexpr long cut_by_a_kill = 2 * load_threads;

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

/// Until `id` is ready as another process than `old`.
bool is_back(const sandbox& box, const std::string& id, pid_t old) {
  return wait_until([&] {
    const auto now = instance(box, id);
    return now.at("state").as_string() == "ready" && pid_of(now) != old;
  });
}

}  // namespace

SCENARIO("no client notices that a cluster is scaled to 6, 2 and 5") {
  sandbox box;
  const port_range ports{7};
  box.write("config.json", config({web(ports, 4)}));
  start(box);
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  for (const auto* count : {"6", "2", "5"}) {
    done(box.pup({"--id", "web", "--instances", count}));
    REQUIRE(clients.serves(300));
  }
  check_outcome("scale 4, 6, 2, 5", clients.end());
  CHECK(box.unit("web").at("ready").to_number<int>() == 5);
  CHECK(box.end() == "");
}

SCENARIO("no client notices that one instance is restarted") {
  sandbox box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 4)}));
  start(box);
  const auto before = pid_of(instance(box, "web-2"));
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  done(box.pup({"restart", "web-2"}));
  REQUIRE(clients.serves(300));
  check_outcome("restart web-2 of 4", clients.end());
  CHECK(pid_of(instance(box, "web-2")) != before);
  CHECK(box.end() == "");
}

SCENARIO("no client notices that the only instance is restarted") {
  sandbox box;
  const port_range ports{2};
  box.write("config.json", config({web(ports, 1)}));
  start(box);
  const auto before = pid_of(instance(box, "web-1"));
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  done(box.pup({"restart", "web-1"}));
  REQUIRE(clients.serves(300));
  check_outcome("restart the only instance", clients.end());
  CHECK(pid_of(instance(box, "web-1")) != before);
  CHECK(box.end() == "");
}

SCENARIO("a killed instance costs only the requests it was answering") {
  sandbox box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 4)}));
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
  check_outcome("6 times kill -9", clients.end(), kills * cut_by_a_kill);
  CHECK(box.end() == "");
}

SCENARIO("the killed only instance costs only what it was answering") {
  sandbox box;
  const port_range ports{2};
  box.write("config.json", config({web(ports, 1)}));
  start(box);
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  const auto victim = pid_of(instance(box, "web-1"));
  REQUIRE(::kill(victim, SIGKILL) == 0);
  REQUIRE(is_back(box, "web-1", victim));
  REQUIRE(clients.serves(300));
  check_outcome("kill -9 of the only instance", clients.end(),
                cut_by_a_kill);
  CHECK(box.end() == "");
}
