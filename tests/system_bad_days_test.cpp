// Bad days: what goes wrong outside, and what the user is told.
#include "catch.hpp"
#include "system.hpp"

#include <csignal>
#include <filesystem>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

std::string text_of(const json::value& x) {
  return std::string{x.as_string().data(), x.as_string().size()};
}

json::object instance(const sandbox& box, const std::string& id) {
  return with_id(box.unit("web").at("instances").as_array(), id);
}

std::string state_of(const sandbox& box, const std::string& id) {
  return text_of(instance(box, id).at("state"));
}

std::string reason_of(const sandbox& box, const std::string& id) {
  return text_of(instance(box, id).at("reason"));
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

/// Listens on a port as somebody else's program would.
pup::unique_fd occupy(std::uint16_t port) {
  pup::unique_fd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(
      ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address)
      == 0);
  REQUIRE(::listen(fd.get(), 8) == 0);
  return fd;
}

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

}  // namespace

SCENARIO("an instance whose port is taken fails, the others go on") {
  sandbox box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 3)}));
  auto other = occupy(ports[2]);  // that of web-2
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.code == 1);
  const auto why = "port " + std::to_string(ports[2]) + " is in use by pid "
                   + std::to_string(::getpid());
  contains(started.err, "web-2: " + why);
  contains(reason_of(box, "web-2"), why);
  CHECK(text_of(box.unit("web").at("state")) == "degraded");
  for (int i = 0; i < 4; ++i)
    CHECK(who(ports[0]) != "web-2");
  other.reset();
  CHECK(wait_until([&] { return state_of(box, "web-2") == "ready"; }));
  CHECK(box.end() == "");
}

SCENARIO("a common port that is taken is told, and had when it is free") {
  sandbox box;
  const port_range ports{3};
  box.write("config.json", config({web(ports, 1)}));
  auto other = occupy(ports[0]);
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.code == 1);
  contains(started.err, "port " + std::to_string(ports[0]) + " is in use");
  CHECK(state_of(box, "web-1") == "ready");
  other.reset();
  CHECK(wait_until(
      [&] { return text_of(box.unit("web").at("state")) == "running"; }));
  CHECK(who(ports[0]) == "web-1");
  CHECK(box.end() == "");
}

SCENARIO("a process that ends at once, for ever, uses up its restarts") {
  sandbox box;
  box.write("config.json", config({R"({"id": "short", "cmd": "exit 3",
    "restartLimit": 2, "restartDelayMs": 1})"}));
  box.pup({"start", "config.json"});
  CHECK(wait_until(
      [&] { return text_of(box.unit("short").at("state")) == "exhausted"; }));
  const auto now = box.unit("short");
  CHECK(now.at("exitCode") == 3);
  CHECK(now.at("restarts") == 2);
  contains(text_of(now.at("reason")), "exited with code 3");
  CHECK(box.end() == "");
}

SCENARIO(
    "a process that ignores the stop signal is killed, with its children") {
  sandbox box;
  box.write("config.json", config({R"({"id": "deaf", "terminateTimeout": 0.2,
    "cmd": "trap '' TERM; sleep 1000 & sleep 1000 & wait; wait"})"}));
  start(box);
  CHECK(box.running().size() >= 2);
  CHECK(box.pup({"stop", "deaf"}).code == 0);
  const auto now = box.unit("deaf");
  CHECK(text_of(now.at("state")) == "stopped");
  CHECK(box.running() == box.pups());
  CHECK(box.end() == "");
}

SCENARIO("no client notices an instance that closes its port but lives") {
  sandbox box;
  const port_range ports{4};
  box.write("config.json", config({web(ports, 3)}));
  start(box);
  get(ports[2], "/unlisten");
  for (int i = 0; i < 12; ++i) {
    const auto by = who(ports[0]);
    CHECK((by == "web-1" || by == "web-3"));
  }
  CHECK(box.end() == "");
}

SCENARIO("nobody waits longer than wanted for an instance that never comes") {
  sandbox box;
  const port_range ports{2};
  box.write("config.json",
            config({web(ports, 0, R"("connectTimeoutMs": 300)")}));
  start(box);
  connection client{endpoint{ports[0], "127.0.0.1", {}}};
  CHECK(client.receive() == "");
  CHECK(box.unit("web").at("balancer").as_object().at("rejected") == 1);
  // Whoever comes later is served all the same.
  CHECK(box.pup({"--id", "web", "--instances", "1"}).code == 0);
  CHECK(get(ports[0]).status == 200);
  CHECK(box.end() == "");
}

SCENARIO("an instance that never gets ready is a failure with a reason") {
  sandbox box;
  const port_range ports{3};
  box.write("config.json", config({web(ports, 1, {}, R"("readyTimeoutMs": 300,
              "terminateTimeout": 0.2,
              "env": {"START_DELAY_MS": "600000"})")}));
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.code == 1);
  contains(started.err, "web-1: was not ready in time (listens on no port)");
  CHECK(box.end() == "");
}

SCENARIO("who is not ready in time is told what was found instead") {
  sandbox box;
  const port_range ports{5};
  const auto elsewhere = std::to_string(ports[4]);
  // One listens somewhere else, the other answers with the wrong status.
  box.write("config.json",
            config({R"({"id": "lost", "cmd": [")" PUP_HTTP_SERVER
                    R"("], "readyTimeoutMs": 3000, "restart": "never",
                 "env": {"PORT": ")"
                        + elsewhere + R"("}, "cluster": {"instances": 1,
                 "startPort": )"
                        + std::to_string(ports[0]) + "}}",
                    R"({"id": "wrong", "cmd": [")" PUP_HTTP_SERVER
                    R"("], "readyTimeoutMs": 3000, "restart": "never",
                 "ready": {"type": "http", "path": "/none"},
                 "cluster": {"instances": 1, "startPort": )"
                        + std::to_string(ports[1]) + "}}"}));
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.code == 1);
  contains(started.err, "lost-1: was not ready in time (listens on ");
  contains(started.err,
           ':' + elsewhere + ", not on port " + std::to_string(ports[0]) + ')');
  contains(started.err, "wrong-1: was not ready in time (/none: answered 404");
  const auto log = box.pup({"logs"}).out;
  INFO(log);
  CHECK(log.find("is ready") == std::string::npos);
  CHECK(box.end() == "");
}

SCENARIO("output that cannot be kept does not keep a process from running") {
  sandbox box;
  // The file names its size when it has written more than any pipe holds.
  box.write("talker",
            "head -c 3000000 /dev/zero | tr '\\0' '\\n'\n"
            "touch \"$1\"; exec sleep 1000\n");
  box.write("config.json",
            config({R"({"id": "talker", "cmd": ["sh", "talker", ")"
                    + box.path("done") + R"("]})"},
                   R"("name": "full")"));
  // In place of the folder: what a full or read-only disk does, for root too.
  box.write("state/full/log", "");
  std::filesystem::permissions(box.path("state/full"),
                               std::filesystem::perms::owner_all);
  start(box);
  CHECK(wait_until([&] { return std::filesystem::exists(box.path("done")); }));
  REQUIRE(wait_until(
      [&] { return box.unit("talker").at("logLostBytes") == 3'000'000; }));
  const auto now = box.unit("talker");
  CHECK(text_of(now.at("state")) == "ready");
  CHECK(now.at("logLostLines") == 3'000'000);
  contains(box.pup({"status"}).out, "2.9M of its output lost");
  CHECK(box.end() == "");
}

SCENARIO("silent clients keep nobody from being served") {
  constexpr std::size_t silent = 2'000;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < 3 * silent) {
    WARN("skipped: at most " << limit.rlim_max << " descriptors");
    return;
  }
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  sandbox box;
  const port_range ports{3};
  box.write("config.json", config({web(ports, 2)}));
  start(box);
  std::vector<connection> clients;
  for (std::size_t i = 0; i < silent; ++i)
    clients.emplace_back(endpoint{ports[0], "127.0.0.1", {}});
  CHECK(get(ports[0]).status == 200);
  CHECK(wait_until([&] {
    return box.unit("web").at("balancer").as_object().at("connectionsActive")
           == silent;
  }));
  clients.clear();
  CHECK(get(ports[0]).status == 200);
  CHECK(box.end() == "");
}

SCENARIO("what does not fit under ulimit -n is told, the rest serves") {
#ifdef __SANITIZE_ADDRESS__
  // The undefined-behaviour sanitizer looks at objects through a pipe, and
  // calls sound ones broken in a process that gets none.
  WARN("not under sanitizers");
  return;
#else
  sandbox box;
  box.write("config.json", config({R"({"id": "many", "cmd": ["sleep", "1000"],
    "cluster": {"instances": 60}})"}));
  auto command = box.command({"start", "config.json"});
  const auto program = command.argv.front();
  command.argv = {"/bin/sh", "-c",
                  "ulimit -n 64; exec \"$0\" start config.json", program};
  const auto started = run(command);
  // Those that came too late for pipes run without a log.
  CHECK(started.code == 0);
  contains(started.out, "Too many open files; its output goes to /dev/null");
  const auto now = box.unit("many");
  CHECK(now.at("ready") == 60);
  CHECK(text_of(now.at("state")) == "running");
  CHECK(box.end() == "");
#endif
}

SCENARIO("a running supervisor does not mind what becomes of its file") {
  sandbox box;
  const port_range ports{4};
  box.write("config.json", config({web(ports, 1)}));
  start(box);
  box.write("config.json", "{ no longer a configuration");
  CHECK(box.pup({"scale", "web", "3"}).code == 0);
  CHECK(box.unit("web").at("ready") == 3);
  CHECK(box.end() == "");
}
