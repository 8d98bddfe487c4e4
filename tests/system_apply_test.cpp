// pup apply against the real thing: what changes, what does not, and that no
// client notices.
#include "held_file.hpp"
#include "load_clients.hpp"

#include <csignal>
#include <fstream>
#include <iterator>
#include <map>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

/// Pids of all instances and processes.
std::map<std::string, pid_t> pids(const sandbox& box) {
  std::map<std::string, pid_t> result;
  const auto status = box.status();
  const auto note = [&](const json::object& x) {
    if (!x.at("pid").is_null())
      result[x.at("id").as_string().c_str()] = x.at("pid").to_number<pid_t>();
  };
  for (const auto& x : status.at("processes").as_array()) {
    const auto& unit = x.as_object();
    if (!unit.contains("instances"))
      note(unit);
    else
      for (const auto& y : unit.at("instances").as_array())
        note(y.as_object());
  }
  return result;
}

std::string http(const std::string& id, std::uint16_t common,
                 std::uint16_t first, int instances,
                 const std::string& cluster = {},
                 const std::string& process = {}) {
  return R"({"id": ")" + id
         + R"(", "cmd": [")" PUP_HTTP_SERVER R"("], "cluster": {"instances": )"
         + std::to_string(instances) + R"(, "commonPort": )"
         + std::to_string(common) + R"(, "startPort": )" + std::to_string(first)
         + (cluster.empty() ? "" : ", " + cluster) + "}"
         + (process.empty() ? "" : ", " + process) + "}";
}

std::string sleeper(const std::string& id, const std::string& more = {}) {
  return R"({"id": ")" + id + R"(", "cmd": ["sleep", "1000"])"
         + (more.empty() ? "" : ", " + more) + "}";
}

std::string value_of(std::uint16_t port, const std::string& variable) {
  return get({port, "127.0.0.1", {}}, "/env?" + variable).body;
}

finished applied(const sandbox& box,
                 const std::vector<std::string>& processes) {
  box.write("config.json", config(processes));
  return box.pup({"apply", "config.json"});
}

}  // namespace

SCENARIO("one of three clusters changes: it alone rolls, no client notices") {
  sandbox box;
  const port_range ports{14};
  const auto beside = std::vector{http("api", ports[5], ports[6], 2),
                                  http("img", ports[10], ports[11], 2)};
  const auto files = [&](const std::string& process) {
    return std::vector{http("web", ports[0], ports[1], 3, {}, process),
                       beside[0], beside[1], sleeper("worker")};
  };
  box.write("config.json", config(files({})));
  start(box);
  load clients{ports[0]};
  REQUIRE(clients.serves(200));
  const auto before = pids(box);

  const auto idle = box.pup({"apply", "config.json"});
  CHECK(idle.out == "nothing to change\n");
  CHECK(idle.code == 0);
  CHECK(pids(box) == before);

  const auto changed = files(R"("env": {"VERSION": "2"})");
  box.write("config.json", config(changed));
  const auto planned = box.pup({"apply", "config.json", "--dry-run"});
  CHECK(planned.out == "web: reload (env)\n");
  CHECK(planned.code == 0);
  CHECK(pids(box) == before);

  const auto done = box.pup({"apply", "config.json"});
  CHECK(done.err == "");
  CHECK(done.out
        == "web: reload (env)\nweb-1: ready\nweb-2: ready\nweb-3: ready\n"
           "web: reloaded\n");
  CHECK(done.code == 0);
  auto after = pids(box);
  REQUIRE(after.size() == before.size());
  for (const auto& [id, pid] : before)
    CHECK((after.at(id) == pid) == !id.starts_with("web-"));
  CHECK(value_of(ports[0], "VERSION") == "2\n");
  REQUIRE(clients.serves(200));

  // A new version that cannot be: the former one goes on.
  const auto bad = files(
      R"("env": {"VERSION": "3"}, "hooks": {"preStart": {"cmd": "exit 4"}})");
  const auto failed = applied(box, bad);
  CHECK(failed.code == 1);
  CHECK(failed.err.find("the former configuration is back")
        != std::string::npos);
  CHECK(pids(box) == after);
  CHECK(value_of(ports[0], "VERSION") == "2\n");
  REQUIRE(clients.serves(200));
  check_outcome("apply to one of three clusters", clients.end());
  CHECK(box.end() == "");
}

SCENARIO("entries come, go and change their number") {
  sandbox box;
  const port_range ports{8};
  box.write("config.json", config({sleeper("old"), sleeper("stays"),
                                   http("web", ports[0], ports[1], 2)}));
  start(box);
  const auto before = pids(box);
  const auto done = applied(box, {http("web", ports[0], ports[1], 4),
                                  sleeper("stays"), sleeper("new")});
  CHECK(done.err == "");
  CHECK(done.out
        == "old: stop\nweb: scale 2 -> 4\nnew: start\nnew: ready\n"
           "old: stopped\nweb-3: ready\nweb-4: ready\n");
  CHECK(done.code == 0);
  const auto after = pids(box);
  CHECK(after.count("old") == 0);
  CHECK(after.count("new") == 1);
  for (const auto* id : {"stays", "web-1", "web-2"})
    CHECK(after.at(id) == before.at(id));
  CHECK(wait_for_end(before.at("old")));
  CHECK(box.pup({"scale", "web", "3"}).code == 0);
  CHECK(box.pup({"apply", "config.json"}).out
        == "web: scale 3 -> 4 (as the file says)\nweb-4: ready\n");
  CHECK(box.end() == "");
}

SCENARIO("ports move while clients come") {
  sandbox box;
  const port_range ports{12};
  box.write("config.json", config({http("web", ports[0], ports[1], 2)}));
  start(box);
  load clients{ports[0]};
  REQUIRE(clients.serves(200));
  const auto moved = applied(box, {http("web", ports[0], ports[6], 2)});
  CHECK(moved.err == "");
  CHECK(moved.code == 0);
  REQUIRE(clients.serves(200));
  check_outcome("startPort moves", clients.end());
  CHECK(port_is_free(ports[1]));

  const auto before = pids(box);
  const auto elsewhere = applied(box, {http("web", ports[5], ports[6], 2)});
  CHECK(elsewhere.out == "web: change (commonPort)\n");
  CHECK(elsewhere.code == 0);
  CHECK(who(ports[5]).starts_with("web-"));
  CHECK_THROWS_AS(connection({ports[0], "127.0.0.1", {}}), std::system_error);
  CHECK(pids(box) == before);

  // A port of somebody else: all stays as it is.
  {
    const process holder{
        box.program({PUP_HTTP_SERVER, std::to_string(ports[11])})};
    REQUIRE(wait_until([&] { return !port_is_free(ports[11]); }));
    const auto taken = applied(box, {http("web", ports[11], ports[6], 2)});
    CHECK(taken.code == 1);
    CHECK(taken.err.find("is in use") != std::string::npos);
  }
  CHECK(who(ports[5]).starts_with("web-"));
  CHECK(pids(box) == before);
  CHECK(box.end() == "");
}

SCENARIO("a cluster changes its mode") {
  sandbox box;
  const port_range ports{4};
  box.write("config.json", config({http("web", ports[0], ports[1], 2)}));
  start(box);
  for (const auto* mode : {"inherit", "proxy", "inherit"}) {
    const auto done =
        applied(box, {http("web", ports[0], ports[1], 2,
                           R"("mode": ")" + std::string{mode} + '"')});
    CHECK(done.err == "");
    CHECK(done.code == 0);
    CHECK(box.unit("web").at("balancer").as_object().at("mode") == mode);
    CHECK(who(ports[0]).starts_with("web-"));
  }
  CHECK(box.end() == "");
}

SCENARIO("what cannot be applied changes nothing") {
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  start(box);
  const auto before = pids(box);
  const auto bad = applied(box, {sleeper("a", R"("restrat": 1)"),
                                 R"({"id": "b", "cmd": ["/no/such"]})"});
  CHECK(bad.code == 2);
  CHECK(bad.out == "");
  CHECK(bad.err.find("config.json:2:") == 0);
  CHECK(bad.err.find("restrat") != std::string::npos);
  CHECK(bad.err.find("/no/such") != std::string::npos);

  box.write("config.json", config({sleeper("b")}, R"("name": "other")"));
  const auto named = box.pup({"apply", "config.json"});
  CHECK(named.code == 2);
  CHECK(named.err
        == "config.json: name: 'other' is not 'pup', which runs; start it with "
           "pup start\n");
  CHECK(box.pup({"apply", "none.json"}).code == 2);
  CHECK(box.pup({"apply"}).code == 2);
  CHECK(box.pup({"apply", "config.json", "--name", "x"}).code == 3);
  CHECK(pids(box) == before);
  CHECK(box.end() == "");
}

SCENARIO("what comes through a pipe is a file of the working folder") {
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  start(box);
  box.write("work/sub/note", "");
  auto command = box.command({"apply", "/dev/stdin"});
  command.input = true;
  process applying{command};
  // Its writer takes its time.
  CHECK_FALSE(applying.says("reload", 200ms));
  applying.write_input(config(
      {sleeper("a"),
       R"({"id": "b", "cmd": "pwd > here; exec sleep 1000", "cwd": "work"})"}));
  applying.close_input();
  const auto done = applying.wait();
  CHECK(done.err == "");
  CHECK(done.out == "b: start\nb: ready\n");
  CHECK(done.code == 0);
  CHECK(wait_until(
      [&] { return std::filesystem::exists(box.path("work/here")); }));
  // The working folder has gone on being the one of the supervisor's files.
  const auto pid = *box.supervisors().begin();
  ::kill(pid, SIGKILL);
  REQUIRE(wait_for_end(pid));
  REQUIRE(wait_until([&] { return box.pup({"status"}).code == 0; }));
  CHECK(pids(box).size() == 2);
  CHECK(box.end() == "");
}

SCENARIO("a name service that does not answer holds up nobody but the apply") {
  sandbox box;
  const port_range ports{8};
  const auto web = http("web", ports[0], ports[1], 2);
  box.write("config.json", config({web}));
  // The supervisor alone sees this list of users.
  std::ifstream users{"/etc/passwd"};
  const auto list =
      box.write("passwd", {std::istreambuf_iterator<char>{users}, {}});
  const auto started = run(
      box.program({"unshare", "--mount", "sh", "-c",
                   "mount --bind \"$0\" /etc/passwd || exit 77; exec \"$@\"",
                   list, box.pup_program, "start", "config.json"}));
  if (started.code == 77 || started.err.starts_with("unshare")) {
    WARN("not tested: no mount namespace here: " << started.err);
    return;
  }
  REQUIRE(started.code == 0);
  held_file held{list};
  if (!held) {
    WARN("not tested: no leases on this file system");
    return;
  }
  box.write("config.json", config({web, sleeper("b", R"("user": "root")")}));
  const auto waiting = box.pup({"apply", "config.json", "--timeout", "1"});
  CHECK(waiting.err.find("not done after 1 s, but goes on")
        != std::string::npos);
  CHECK(box.pup({"status"}).code == 0);
  CHECK(box.pup({"scale", "web", "3"}).code == 0);
  CHECK(box.pup({"restart", "web-1"}).code == 0);
  CHECK(pids(box).count("b") == 0);
  held.release();
  // The next one has its turn behind it.
  box.write("config.json", config({web}));
  const auto next = box.pup({"apply", "config.json"});
  CHECK(next.err == "");
  CHECK(next.out.starts_with("b: stop\n"));
  CHECK(box.end() == "");
}

SCENARIO("what could not be applied does not come back after a crash") {
  sandbox box;
  const port_range ports{4};
  box.write("config.json", config({http("web", ports[0], ports[1], 2)}));
  start(box);
  const auto before = pids(box);
  const auto broken = applied(
      box, {R"({"id": "web", "cmd": ["sh", "-c", "exit 3"], "cluster": )"
            R"({"instances": 2, "commonPort": )"
            + std::to_string(ports[0]) + R"(, "startPort": )"
            + std::to_string(ports[1]) + "}}"});
  CHECK(broken.code == 1);
  CHECK(broken.err.find("exited with code 3") != std::string::npos);
  CHECK(pids(box) == before);
  const auto pid = *box.supervisors().begin();
  ::kill(pid, SIGKILL);
  REQUIRE(wait_for_end(pid));
  REQUIRE(wait_until([&] { return box.pup({"status"}).code == 0; }));
  CHECK(pids(box) == before);
  CHECK(box.unit("web").at("state") == "running");
  CHECK(box.end() == "");
}

SCENARIO("relative paths start at the applied file's folder") {
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  start(box);
  box.write("other/config.json",
            config({sleeper("a"),
                    R"({"id": "b", "cmd": "pwd > here; exec sleep 1000"})"},
                   R"("name": "pup")"));
  const auto done = box.pup({"apply", "other/config.json"});
  CHECK(done.err == "");
  REQUIRE(done.code == 0);
  CHECK(wait_until(
      [&] { return std::filesystem::exists(box.path("other/here")); }));
  CHECK(box.end() == "");
}

SCENARIO("what is shown, and goes on after a crash, is the file applied last") {
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  start(box);
  const auto shown = [&] {
    return std::filesystem::path{box.status().at("config").as_string().c_str()};
  };
  const auto first = shown();
  CHECK(first.filename() == "config.json");
  const auto crash = [&] {
    const auto pid = *box.supervisors().begin();
    ::kill(pid, SIGKILL);
    REQUIRE(wait_for_end(pid));
    REQUIRE(wait_until([&] { return box.pup({"status"}).code == 0; }));
  };
  box.write("other/next.json",
            config({sleeper("a"),
                    R"({"id": "b", "cmd": "pwd > here; exec sleep 1000"})"},
                   R"("name": "pup")"));
  // Who only asks, or is refused, changes nothing, now and later.
  REQUIRE(box.pup({"apply", "other/next.json", "--dry-run"}).code == 0);
  box.write("other/named.json", config({sleeper("c")}, R"("name": "else")"));
  CHECK(box.pup({"apply", "other/named.json"}).code == 3);
  crash();
  CHECK(shown() == first);
  CHECK(pids(box).size() == 1);

  REQUIRE(box.pup({"apply", "other/next.json"}).code == 0);
  const auto next = first.parent_path() / "other/next.json";
  CHECK(shown() == next);
  // And what people decided since holds.
  REQUIRE(box.pup({"stop", "a"}).code == 0);
  crash();
  CHECK(shown() == next);
  CHECK(box.unit("a").at("state") == "stopped");
  // Its folder is still where its processes run.
  std::filesystem::remove(box.path("other/here"));
  REQUIRE(box.pup({"restart", "b"}).code == 0);
  CHECK(wait_until(
      [&] { return std::filesystem::exists(box.path("other/here")); }));
  CHECK(box.end() == "");
}
