// pup reload under load: clients on new connections and on kept ones notice
// nothing, whatever becomes of the new version.
#include "load_clients.hpp"

#include <map>
#include <memory>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

/// Clients that ask on kept connections, 20 times on each.
class keeping_load {
public:
  explicit keeping_load(std::uint16_t port)
      : thread_([this, port] {
          while (!stopping_)
            use_one(port);
        }) {}
  keeping_load(const keeping_load&) = delete;
  keeping_load& operator=(const keeping_load&) = delete;
  ~keeping_load() {
    end();
  }

  /// What went wrong first; empty: nothing.
  std::string end() {
    stopping_ = true;
    if (thread_.joinable())
      thread_.join();
    return trouble_;
  }

  [[nodiscard]] long served() const {
    return served_;
  }

private:
  void use_one(std::uint16_t port) {
    try {
      connection client{{port, "127.0.0.1", {}}, client_patience};
      for (int i = 0; i < 20; ++i) {
        const auto answer = client.get(i % 5 == 0 ? "/slow?ms=10" : "/");
        if (answer.status != 200)
          throw std::runtime_error("no answer to request " + std::to_string(i));
        ++served_;
      }
    } catch (const std::exception& e) {
      if (trouble_.empty())
        trouble_ = e.what();
      stopping_ = true;
    }
  }

  std::atomic<bool> stopping_{false};
  std::atomic<long> served_{0};
  std::string trouble_;  // of the thread, until it has ended
  std::thread thread_;
};

/// All of them together.
struct all_clients {
  explicit all_clients(std::uint16_t port)
      : fresh(port),
        kept{std::make_unique<keeping_load>(port),
             std::make_unique<keeping_load>(port)} {}

  [[nodiscard]] bool serves(long more) const {
    const auto before = kept[0]->served();
    return fresh.serves(more)
           && wait_until([&] { return kept[0]->served() > before; });
  }
  void check(const char* what) {
    for (auto& x : kept) {
      CHECK(x->end() == "");
      CHECK(x->served() > 0);
    }
    check_outcome(what, fresh.end());
  }

  load fresh;
  std::unique_ptr<keeping_load> kept[2];
};

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

/// Pids by instance.
std::map<std::string, pid_t> pids(const sandbox& box) {
  std::map<std::string, pid_t> result;
  const auto unit = box.unit("web");
  for (const auto& x : unit.at("instances").as_array())
    if (!x.at("pid").is_null())
      result[x.at("id").as_string().c_str()] = x.at("pid").to_number<pid_t>();
  return result;
}

/// `web` of system.hpp, started through a script that a test can replace.
std::string scripted(const port_range& ports, int instances,
                     const std::string& cluster = {},
                     const std::string& process = {}) {
  auto text = web(ports, instances, cluster, process);
  const std::string program = "[\"" PUP_HTTP_SERVER "\"]";
  return text.replace(text.find(program), program.size(),
                      R"(["/bin/sh", "app.sh"])");
}

void deploy(const sandbox& box, const std::string& script) {
  box.write("app.sh", script + '\n');
}

const std::string good = "exec " PUP_HTTP_SERVER;

}  // namespace

SCENARIO("no client notices several reloads") {
  const auto* cluster = GENERATE("", R"("mode": "inherit")",
                                 R"("maxUnavailable": 1)", R"("maxSurge": 2)");
  const auto instances = GENERATE(1, 3);
  CAPTURE(cluster, instances);
  sandbox box;
  const port_range ports{6};
  box.write("config.json", config({web(ports, instances, cluster)}));
  start(box);
  all_clients clients{ports[0]};
  REQUIRE(clients.serves(100));
  for (int i = 0; i < 3; ++i) {
    const auto before = pids(box);
    const auto done = box.pup({"reload", "web"});
    CHECK(done.err == "");
    REQUIRE(done.code == 0);
    CHECK(done.out.find("web: reloaded\n") != std::string::npos);
    const auto after = pids(box);
    REQUIRE(after.size() == before.size());
    for (const auto& [id, pid] : before)
      CHECK(after.at(id) != pid);
    REQUIRE(clients.serves(100));
  }
  clients.check("3 reloads");
  CHECK(box.end() == "");
}

SCENARIO("a new version that does not come up leaves the old one serving") {
  sandbox box;
  const port_range ports{6};
  box.write("config.json",
            config({scripted(ports, 3, {}, R"("readyTimeoutMs": 2000)")}));
  deploy(box, good);
  start(box);
  all_clients clients{ports[0]};
  REQUIRE(clients.serves(100));
  const auto before = pids(box);
  const auto reason_of = [&](const std::string& script) {
    deploy(box, script);
    const auto x = box.pup({"reload", "web"});
    CHECK(x.code == 1);
    CHECK(x.out == "");
    CHECK(pids(box) == before);
    return x.err;
  };
  CHECK(reason_of("exit 3").find("web: the reload stopped: web-4, a spare: "
                                 "exited with code 3")
        != std::string::npos);
  CHECK(reason_of("exec sleep 1000").find("web-4, a spare: was not ready")
        != std::string::npos);
  REQUIRE(clients.serves(100));
  deploy(box, good);
  CHECK(box.pup({"reload", "web"}).code == 0);
  REQUIRE(clients.serves(100));
  clients.check("2 bad versions and a good one");
  CHECK(box.end() == "");
}

SCENARIO("a new version that fails in place stops with the first one") {
  sandbox box;
  const port_range ports{4};
  box.write("config.json", config({scripted(ports, 3, R"("maxSurge": 0)")}));
  deploy(box, good);
  start(box);
  all_clients clients{ports[0]};
  REQUIRE(clients.serves(100));
  const auto before = pids(box);
  deploy(box, "exit 3");
  const auto x = box.pup({"reload", "web"});
  CHECK(x.code == 1);
  CHECK(x.err.find("web-1: exited with code 3") != std::string::npos);
  CHECK(pids(box).at("web-2") == before.at("web-2"));
  CHECK(pids(box).at("web-3") == before.at("web-3"));
  deploy(box, good);  // its restart rules find it
  CHECK(wait_until([&] { return box.unit("web").at("ready") == 3; }));
  REQUIRE(clients.serves(100));
  clients.check("a bad version in place");
  CHECK(box.end() == "");
}

SCENARIO("reloads of single instances, of processes, and without waiting") {
  sandbox box;
  const port_range ports{5};
  box.write(
      "config.json",
      config({web(ports, 3), R"({"id": "worker", "cmd": ["sleep", "1000"]})"}));
  start(box);
  const auto before = pids(box);
  const auto one = box.pup({"reload", "web-2"});
  CHECK(one.out == "web-2: ready\nweb: reloaded\n");
  CHECK(one.code == 0);
  const auto after = pids(box);
  CHECK(after.at("web-1") == before.at("web-1"));
  CHECK(after.at("web-2") != before.at("web-2"));
  CHECK(after.at("web-3") == before.at("web-3"));
  CHECK(box.pup({"reload", "worker"}).out == "worker: ready\n");
  CHECK(box.pup({"reload", "all"}).code == 0);
  CHECK(box.pup({"reload", "web", "--no-wait"}).out
        == "web-1: begun\nweb-2: begun\nweb-3: begun\nweb: begun\n");
  CHECK(box.pup({"reload", "wob"}).code == 1);
  CHECK(box.pup({"reload"}).code == 2);
  CHECK(box.end() == "");
}

SCENARIO("a spare finds a port although the next one is taken") {
  sandbox box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 2)}));
  start(box);
  {
    const process holder{
        box.program({PUP_HTTP_SERVER, std::to_string(ports[3])})};
    REQUIRE(wait_until([&] { return !port_is_free(ports[3]); }));
    const auto done = box.pup({"reload", "web"});
    CHECK(done.err == "");
    CHECK(done.out == "web-1: ready\nweb-2: ready\nweb: reloaded\n");
  }
  CHECK(box.end() == "");
}
