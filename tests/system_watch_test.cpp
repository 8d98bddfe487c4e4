// Watched files, readiness by output and `pup why`, against the program itself.
#include "catch.hpp"
#include "system.hpp"

#include <csignal>

using namespace pup::test;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string shell(const std::string& id, const std::string& command,
                  const std::string& more = {}) {
  return R"({"id": ")" + id + R"(", "cmd": ["sh", "-c", ")" + command + "\"]"
         + (more.empty() ? "" : ", " + more) + "}";
}

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

std::int64_t number(const sandbox& box, const std::string& id,
                    const char* member) {
  const auto x = box.unit(id).at(member);
  return x.is_null() ? 0 : x.to_number<std::int64_t>();
}

std::string text(const sandbox& box, const std::string& id,
                 const char* member) {
  return std::string{box.unit(id).at(member).as_string()};
}

}  // namespace

SCENARIO("a change of watched files starts and restarts, once for a burst") {
  sandbox box;
  box.write("src/a.ts", "1");
  // It writes into the folder that it watches: neither that nor pup's own files
  // may start it again.
  box.write("config.json",
            config({shell("app", "echo begun; exec sleep 1000",
                          R"("watch": [".", "/srv/none"], "autostart": true,
                             "logger": {"stdout": "app.log"})"),
                    shell("job", "echo done",
                          R"("watch": ["src"], "restart": "never")"),
                    shell("other", "exec sleep 1000")},
                   R"("watcher": {"interval": 200, "exts": ["ts", "log"]})"));
  start(box);
  CHECK(text(box, "job", "state") == "waiting");
  CHECK(text(box, "app", "reason")
        == "watch: /srv/none: no such file or folder yet");
  const auto other = number(box, "other", "pid");
  for (int i = 0; i < 20; ++i)
    box.write("src/a.ts", std::to_string(i));
  const auto told = [&](const std::string& path) {
    return contains(box.pup({"why", "app"}).out,
                    "asked    restart: changed: " + path + '\n');
  };
  REQUIRE(wait_until([&] {
    return text(box, "job", "state") == "finished" && told("src/a.ts");
  }));
  box.write("src/notes.txt", "no ending that counts");
  box.write("src/deep/er/b.ts", "in new folders");
  REQUIRE(wait_until([&] { return told("src/deep/er/b.ts"); }));
  REQUIRE(wait_until([&] { return text(box, "app", "state") == "ready"; }));
  CHECK_FALSE(told("src/notes.txt"));
  CHECK_FALSE(told("app.log"));
  // A burst may fall into two on a busy machine, but not into its writes.
  CHECK(number(box, "app", "restarts") < 10);
  CHECK(number(box, "other", "pid") == other);
  CHECK(contains(box.pup({"why", "job"}).out,
                 "next: starts when a file it watches changes\n"));
}

SCENARIO("a cluster serves on while its files change") {
  sandbox box;
  const port_range ports{4};
  box.write("src/a", "1");
  box.write(
      "config.json",
      config({web(ports, 3, {}, R"("watch": ["src"], "autostart": true)")}));
  start(box);
  box.write("src/a", "2");
  const auto replaced = [&] {
    std::int64_t restarts = 0;
    const auto unit = box.unit("web");
    for (const auto& x : unit.at("instances").as_array())
      restarts += x.at("restarts").to_number<std::int64_t>();
    return restarts == 3;
  };
  REQUIRE(wait_until([&] {
    CHECK(get(ports[0]).status == 200);
    return replaced();
  }));
}

SCENARIO("pup run with --watch begins at once and follows the files") {
  sandbox box;
  auto run = process{box.command(
      {"run", "--cmd", "echo begun; exec sleep 1000", "--watch", "."})};
  REQUIRE(run.says("is up, pid "));
  // Without a name the program gives the id.
  REQUIRE(wait_until([&] { return text(box, "echo", "state") == "ready"; }));
  box.write("new.txt", "1");
  CHECK(wait_until([&] { return number(box, "echo", "restarts") == 1; }));
  run.signal(SIGTERM);
  CHECK(run.wait().code == 0);
}

SCENARIO("a line of output makes it ready") {
  sandbox box;
  box.write(
      "config.json",
      config({shell("slow",
                    "echo loading; read -r x < gate; echo on port 80 >&2; "
                    "exec sleep 1000",
                    R"("ready": {"type": "log", "pattern": "on port \\d+$"})"),
              shell("never", "echo no; exec sleep 1000",
                    R"("ready": {"type": "log", "pattern": "^yes"},
                       "readyTimeoutMs": 300, "restart": "never")")},
             R"("logger": {"internalLogHours": 0})"));
  REQUIRE(run(box.program({"mkfifo", box.path("gate")})).code == 0);
  const auto started = box.pup({"start", "config.json", "--no-wait"});
  REQUIRE(started.code == 0);
  REQUIRE(wait_until([&] { return text(box, "never", "state") == "failed"; }));
  CHECK(text(box, "never", "reason") == "was not ready in time");
  CHECK(text(box, "slow", "state") == "starting");
  REQUIRE(run(box.program({"sh", "-c", "echo go > gate"})).code == 0);
  CHECK(wait_until([&] { return text(box, "slow", "state") == "ready"; }));
}

SCENARIO("pup why tells the chain of causes") {
  sandbox box;
  box.write(
      "config.json",
      config({shell("app", "echo hello; echo trouble >&2; exec sleep 1000",
                    R"("restartDelayMs": 600000)")}));
  start(box);
  REQUIRE(wait_until([&] {
    return contains(box.pup({"logs", "app"}).out, "trouble");
  }));
  CHECK(box.pup({"restart", "app"}).code == 0);
  const auto pid = static_cast<pid_t>(number(box, "app", "pid"));
  ::kill(pid, SIGKILL);
  REQUIRE(wait_until([&] { return text(box, "app", "state") == "backoff"; }));
  const auto why = box.pup({"why", "app"});
  CHECK(why.err == "");
  CHECK(why.code == 0);
  CHECK(contains(why.out, "app: backoff, killed by SIGKILL"));
  CHECK(contains(why.out, "asked    start: together with the supervisor\n"));
  CHECK(contains(why.out, "asked    restart: by "));
  CHECK(contains(why.out, "started  pid " + std::to_string(pid) + '\n'));
  CHECK(contains(why.out, "ended    killed by SIGKILL"));
  CHECK(
      contains(why.out, "decided  restart always: starting again in 600 s\n"));
  CHECK(contains(why.out, "last output:\n"));
  CHECK(contains(why.out, "stdout   hello\n"));
  CHECK(contains(why.out, "stderr   trouble\n"));
  CHECK(contains(why.out, "next: starts again, at 20"));

  const auto json = parse_json(box.pup({"why", "app", "--json"}).out)
                        .at("instances")
                        .as_array()
                        .at(0)
                        .as_object();
  CHECK(json.at("id") == "app");
  CHECK(json.at("state") == "backoff");
  const auto& events = json.at("events").as_array();
  CHECK(events.front().at("event") == "asked");
  CHECK(events.back().at("event") == "decided");
  CHECK(json.at("output").as_array().back().at("text") == "trouble");
  CHECK(json.at("next").at("text") == "starts again");
  CHECK(json.at("next").at("time").is_string());

  const auto unknown = box.pup({"why", "nobody"});
  CHECK(unknown.code == 1);
  CHECK(contains(unknown.err, "'nobody'"));
  CHECK(box.pup({"why"}).code == 2);

  // What it has written under another supervisor explains nothing here.
  CHECK(box.pup({"terminate"}).code == 0);
  box.write("config.json",
            config({shell("app", "echo today; exec sleep 1000")}));
  REQUIRE(box.pup({"start", "config.json"}).code == 0);
  REQUIRE(wait_until([&] {
    return contains(box.pup({"why", "app"}).out, "today");
  }));
  CHECK_FALSE(contains(box.pup({"why", "app"}).out, "hello"));
  CHECK(contains(box.pup({"logs", "app"}).out, "hello"));
}
