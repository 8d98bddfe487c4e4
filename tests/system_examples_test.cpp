// The examples whose folders bear the names of the ones in Pup's manual, each
// run as a reader would run it: from a copy of its folder. That of scaling is
// system_manual_test.
#include "catch.hpp"
#include "load_clients.hpp"
#include "system.hpp"

#include <csignal>
#include <fstream>

using namespace pup::test;
using namespace std::chrono_literals;

namespace {

namespace fs = std::filesystem;

std::string text_of(const boost::json::value& x) {
  return std::string{x.as_string().data(), x.as_string().size()};
}

/// pup in a copy of examples/NAME.
struct example {
  explicit example(std::string of) : name(std::move(of)) {
    fs::copy(PUP_EXAMPLES, box.path("examples"), fs::copy_options::recursive);
    box.env["PATH"] = fs::path{PUP_HTTP_SERVER}.parent_path().string() + ':'
                      + box.env["PATH"];
  }

  finished pup(const std::vector<std::string>& arguments) const {
    auto command = box.command(arguments);
    command.cwd = box.path("examples/" + name);
    return run(command);
  }

  void start(const std::string& file) const {
    const auto started = pup({"start", file});
    INFO(started.err);
    REQUIRE(started.code == 0);
  }

  std::string file(const std::string& of) const {
    return "examples/" + name + '/' + of;
  }
  bool says(const std::string& of, const std::string& part) const {
    return wait_until([&] {
      return fs::exists(box.path(file(of)))
             && box.read(file(of)).find(part) != std::string::npos;
    });
  }
  bool logs(const std::string& id, const std::string& part) const {
    return wait_until([&] {
      return pup({"logs", "--id", id}).out.find(part) != std::string::npos;
    });
  }

  /// Of a single process; 0: it has none.
  pid_t pid_of(const std::string& id) const {
    const auto pid = box.unit(id).at("pid");
    return pid.is_null() ? 0 : pid.to_number<pid_t>();
  }
  bool has_state(const std::string& id, const std::string& state) const {
    return wait_until(
        [&] { return text_of(box.unit(id).at("state")) == state; });
  }

  std::string name;
  sandbox box;
};

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t result = 0;
  for (auto at = text.find(part); at != std::string::npos;
       at = text.find(part, at + part.size()))
    ++result;
  return result;
}

}  // namespace

SCENARIO("example basic: one is kept alive, one runs by the clock") {
  example it{"basic"};
  it.start("pup.jsonc");
  CHECK(text_of(it.box.status().at("name")) == "basic-example");
  CHECK(it.says("pup.log", "serving, times are those of Europe/Berlin"));
  CHECK(it.says("pup.error.log", "nobody has asked"));
  // Decorated, and each of the two in its own files.
  CHECK(it.says("pup.log", "kept-alive-server"));
  CHECK(it.says("periodic-task.log", "the task has finished"));
  CHECK(it.box.read(it.file("pup.log")).find("the task") == std::string::npos);
  CHECK(it.has_state("periodic-task", "finished"));

  const auto pid = it.pid_of("kept-alive-server");
  CHECK(it.says("kept-alive-server.pid", std::to_string(pid)));
  REQUIRE(::kill(pid, SIGKILL) == 0);
  REQUIRE(wait_for_end(pid));
  CHECK(wait_until([&] {
    const auto now = it.pid_of("kept-alive-server");
    return now != 0 && now != pid;
  }));
  CHECK(it.says("kept-alive-server.pid",
                std::to_string(it.pid_of("kept-alive-server"))));
  CHECK(it.pup({"terminate"}).code == 0);
  CHECK_FALSE(fs::exists(it.box.path(it.file("kept-alive-server.pid"))));
}

SCENARIO("example cluster: a client keeps its server") {
  example it{"cluster"};
  // Other tests may have the ports of the file.
  const port_range ports{4};
  auto text = it.box.read(it.file("pup.json"));
  for (const auto& [from, to] :
       {std::pair{"3456,", ports[0]}, std::pair{"4000,", ports[1]}}) {
    const auto place = text.find(from);
    REQUIRE(place != std::string::npos);
    text.replace(place, 4, std::to_string(to));
  }
  it.box.write(it.file("pup.json"), text);
  it.start("pup.json");
  const auto unit = it.box.unit("cluster-example");
  CHECK(unit.at("ready") == 3);
  CHECK(text_of(unit.at("balancer").at("strategy")) == "source-ip-hash");
  std::set<std::string> servers;
  for (int client = 1; client <= 32; ++client) {
    const endpoint from{ports[0], "127.0.0.1",
                        "127.0.0." + std::to_string(client)};
    const auto server = who(from);
    CHECK(server.starts_with("cluster-example-"));
    CHECK(who(from) == server);
    servers.insert(server);
  }
  CHECK(servers.size() == 3);
  CHECK(it.logs("periodic-task", "the task has finished"));
  CHECK(it.box.end() == "");
}

SCENARIO("example max-restarts: who keeps ending is given up") {
  example it{"max-restarts"};
  it.pup({"start", "pup.jsonc"});
  for (const auto& [id, restarts] :
       {std::pair{"max-3-times", 3U}, std::pair{"with-growing-delay", 5U}}) {
    INFO(id);
    CHECK(it.has_state(id, "exhausted"));
    CHECK(it.box.unit(id).at("restarts") == restarts);
    CHECK(count(it.pup({"logs", "--id", id}).out, "about to end")
          == restarts + 1);
  }
  CHECK(it.box.end() == "");
}

SCENARIO("example watcher: a change restarts the process") {
  example it{"watcher"};
  it.start("pup.jsonc");
  CHECK(it.logs("demo-watch", "running: hello"));
  const auto first = it.pid_of("demo-watch");
  REQUIRE(first != 0);
  // What does not count, in front of what does.
  it.box.write(it.file("notes.md"), "x");
  it.box.write(it.file("drafts/greeting.txt"), "x");
  it.box.write(it.file("greeting.txt"), "good morning\n");
  CHECK(it.logs("demo-watch", "running: good morning"));
  CHECK(wait_for_end(first));
  CHECK(count(it.pup({"logs", "--id", "demo-watch"}).out, "running: ") == 2);
  CHECK(it.box.end() == "");
}

SCENARIO("example deploy: releases behind a link, and back, under load") {
  example it{"deploy"};
  const port_range ports{5};
  for (const auto* release : {"1", "2", "3"}) {
    const auto file = it.file("releases/" + std::string{release} + "/pup.json");
    auto text = it.box.read(file);
    for (const auto& [from, to] :
         {std::pair{"4010", ports[1]}, std::pair{"4000", ports[0]}}) {
      const auto place = text.find(from);
      REQUIRE(place != std::string::npos);
      text.replace(place, 4, std::to_string(to));
    }
    it.box.write(file, text);
  }
  it.box.env["PATH"] =
      fs::path{PUP_PROGRAM}.parent_path().string() + ':' + it.box.env["PATH"];
  const auto deploy = [&](const std::string& release) {
    return run(it.box.program(
        {it.box.path(it.file("deploy.sh")), "releases/" + release}));
  };
  const auto version = [&] { return get(ports[0], "/env?VERSION").body; };
  const auto first = deploy("1");
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK(version() == "1\n");

  load clients{ports[0]};
  CHECK(clients.serves(100));
  const auto second = deploy("2");
  INFO(second.err);
  CHECK(second.code == 0);
  for (int i = 0; i < 6; ++i)
    CHECK(version() == "2\n");
  const auto broken = deploy("3");
  CHECK(broken.code == 1);
  CHECK(broken.err.find("releases/3 does not come up; releases/2 goes on")
        != std::string::npos);
  for (int i = 0; i < 6; ++i)
    CHECK(version() == "2\n");
  CHECK(deploy("1").code == 0);
  for (int i = 0; i < 6; ++i)
    CHECK(version() == "1\n");
  CHECK(clients.serves(100));
  check_outcome("deploy", clients.end());
  CHECK(it.box.end() == "");
}
