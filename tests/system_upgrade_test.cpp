// pup upgrade: another program takes the place of the supervisor, and nothing
// that it runs, and nobody that it serves, notices.
#include "catch.hpp"
#include "load_clients.hpp"
#include "system.hpp"

#include <csignal>
#include <filesystem>
#include <optional>
#include <sstream>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

/// The one that answers.
pid_t supervisor(const sandbox& box) {
  return box.status().at("pid").to_number<pid_t>();
}

/// Of all instances that have a process, by id.
std::map<std::string, pid_t> pids(const sandbox& box) {
  std::map<std::string, pid_t> result;
  const auto status = box.status();
  for (const auto& x : status.at("processes").as_array()) {
    const auto& unit = x.as_object();
    if (!unit.contains("instances")) {
      if (!unit.at("pid").is_null())
        result[unit.at("id").as_string().c_str()] =
            unit.at("pid").to_number<pid_t>();
      continue;
    }
    for (const auto& y : unit.at("instances").as_array())
      result[y.at("id").as_string().c_str()] = y.at("pid").to_number<pid_t>();
  }
  return result;
}

std::string state_of(const sandbox& box, const std::string& id) {
  return box.unit(id).at("state").as_string().c_str();
}

std::string warnings(const sandbox& box) {
  std::string result;
  const auto status = box.status();
  for (const auto& x : status.at("warnings").as_array())
    result += std::string{x.as_string().c_str()} + '\n';
  return result;
}

bool is_executing(pid_t pid, const std::filesystem::path& program) {
  return std::filesystem::equivalent("/proc/" + std::to_string(pid) + "/exe",
                                     program);
}

bool contains(const std::string& text, const std::string& what) {
  return text.find(what) != std::string::npos;
}

std::string inheriting(const port_range& ports, std::uint16_t first) {
  return R"({"id": "web-inh", "cmd": [")" PUP_HTTP_SERVER
         R"("], "cluster": {"instances": 2, "mode": "inherit", "commonPort": )"
         + std::to_string(ports[first]) + R"(, "startPort": )"
         + std::to_string(ports[static_cast<std::uint16_t>(first + 1)]) + "}}";
}

/// A world whose pup can be replaced.
struct installation : sandbox {
  installation() {
    install_pup();
  }

  command_line installed_pup(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), pup_program);
    return program(std::move(arguments));
  }

  void start() const {
    const auto started = run(installed_pup({"start", "config.json"}));
    CHECK(started.err == "");
    REQUIRE(started.code == 0);
  }

  std::filesystem::path installed(const std::string& program) const {
    return std::filesystem::path{pup_program}.replace_filename(program);
  }

  /// What stands there now is not pup, or not its guardian.
  void replace(const std::string& program, const std::string& script) {
    const auto path = write("bin/" + program + ".new", script);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    std::filesystem::rename(path, installed(program));
  }
  void replace_pup(const std::string& script) {
    replace("pup", script);
  }
};

}  // namespace

SCENARIO("an upgrade under load: no request fails, no process is restarted") {
  installation box;
  const port_range ports{12};
  // Numbers its lines, and is mostly in the middle of one.
  const std::string ticker = R"({"id": "ticker", "cmd":
    "i=0; while :; do i=$((i+1)); printf 'li'; sleep 0.01; echo ne $i; done"})";
  box.write("config.json",
            config({web(ports, 3), inheriting(ports, 6), ticker}));
  box.start();
  REQUIRE(box.pup({"scale", "web", "4"}).code == 0);
  const auto before = pids(box);
  const auto guardian = only(box.guardians());
  connection kept{endpoint{ports[0], "127.0.0.1", {}}};
  const auto same = kept.get().body;
  connection slow{endpoint{ports[0], "127.0.0.1", {}}};
  load proxied{ports[0]};
  load inherited{ports[6]};
  REQUIRE(proxied.serves(50));
  REQUIRE(inherited.serves(50));
  slow.ask("/slow?ms=2000");

  auto former = supervisor(box);
  for (int round = 0; round < 2; ++round) {
    box.install_pup();
    const auto upgraded = box.pup({"upgrade"});
    CHECK(upgraded.err == "");
    CHECK(upgraded.code == 0);
    const auto now = supervisor(box);
    CHECK(now != former);
    CHECK(contains(upgraded.out, "pid " + std::to_string(now) + ", was pid "
                                     + std::to_string(former)));
    CHECK(pids(box) == before);
    // The same process, from the file that is there now.
    CHECK(only(box.guardians()) == guardian);
    CHECK(is_executing(guardian, box.installed("pup-guardian")));
    REQUIRE(proxied.serves(200));
    REQUIRE(inherited.serves(200));
    former = now;
  }
  check_outcome("proxy", proxied.end());
  check_outcome("inherit", inherited.end());
  CHECK(slow.answer().status == 200);
  // The first supervisor carries this one, and nothing else; the second ended
  // with its last connection.
  CHECK(wait_until([&] { return box.supervisors().size() == 2; }));
  CHECK(kept.get().body == same);
  { const std::pair gone{std::move(kept), std::move(slow)}; }
  CHECK(wait_until([&] { return box.supervisors().size() == 1; }));

  // No line was lost, doubled or torn.
  REQUIRE(box.pup({"stop", "ticker"}).code == 0);
  std::istringstream lines{
      box.pup({"logs", "--id", "ticker", "-n", "1000000"}).out};
  long expected = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!contains(line, " stdout ") || line.ends_with(" li"))  // the stop
      continue;
    INFO(line);
    const auto at = line.find(" line ");
    REQUIRE(at != std::string::npos);
    CHECK(std::stol(line.substr(at + 6)) == ++expected);
  }
  CHECK(expected > 50);
  // Everything can still be changed.
  CHECK(box.pup({"scale", "web", "2"}).code == 0);
  CHECK(box.pup({"restart", "web-inh"}).code == 0);
  CHECK(who(ports[0]).starts_with("web-"));
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(box.running().empty());
  CHECK(box.end() == "");
}

SCENARIO("what is on the disk is no pup: the former program goes on") {
  installation box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 2)}));
  box.start();
  const auto before = pids(box);
  const auto former = supervisor(box);
  std::optional<load> clients{ports[0]};
  REQUIRE(clients->serves(50));
  std::string how;
  SECTION("it ends") {
    box.replace_pup("#!/bin/sh\nexit 3\n");
    how = "exited with code 3";
  }
  SECTION("it cannot be executed") {
    box.replace_pup("nothing");
    how = "Exec format error";
  }
  SECTION("it does nothing") {
    clients.reset();  // they would have to wait for guard::come_up_timeout
    box.replace_pup("#!/bin/sh\nexec sleep 1000\n");
    how = "killed by SIGKILL";
  }
  const auto upgraded = box.pup({"upgrade"});
  CHECK(upgraded.code == 1);
  CHECK(contains(upgraded.err, "did not come up"));
  CHECK(contains(upgraded.err, "the program from before goes on"));
  CHECK(supervisor(box) != former);
  CHECK(contains(warnings(box), how));
  CHECK(pids(box) == before);
  if (clients) {
    REQUIRE(clients->serves(50));
    check_outcome("refused upgrade", clients->end());
  }
  CHECK(who(ports[0]).starts_with("web-"));
  CHECK(wait_until([&] { return box.supervisors().size() == 1; }));

  // A lost supervisor is replaced all the same, and a mended program is taken.
  const auto lost = supervisor(box);
  REQUIRE(::kill(lost, SIGKILL) == 0);
  CHECK(wait_until([&] { return box.pup({"status"}).code == 0; }));
  box.install_pup();
  const auto mended = box.pup({"upgrade"});
  CHECK(mended.err == "");
  CHECK(mended.code == 0);
  CHECK(warnings(box) == "");
  CHECK(pids(box) == before);
  CHECK(box.end() == "");
}

SCENARIO("what a program has noted that did not come up is dropped") {
  installation box;
  const port_range ports{6};
  box.write(
      "config.json",
      config({web(ports, 2), R"({"id": "mortal", "cmd": ["sleep", "1000"]})"}));
  box.start();
  REQUIRE(box.pup({"scale", "web", "3"}).code == 0);
  auto before = pids(box);
  const auto former = supervisor(box);
  box.replace_pup("#!/bin/sh\nexec " PUP_NEWER "\n");
  const auto upgraded = box.pup({"upgrade"});
  CHECK(upgraded.code == 1);
  CHECK(contains(upgraded.err, "the program from before goes on"));
  CHECK(supervisor(box) != former);
  CHECK(contains(warnings(box), "exited with code 9"));
  // Scaled as it was; the end that was acted upon in vain is judged again.
  REQUIRE(box.pup({"start", "mortal"}).code == 0);
  auto after = pids(box);
  CHECK(before.at("mortal") != after.at("mortal"));
  CHECK(box.unit("mortal").at("restarts").to_number<int>() == 1);
  before.erase("mortal");
  after.erase("mortal");
  CHECK(before.size() == 3);
  CHECK(after == before);
  CHECK(box.end() == "");
}

SCENARIO(
    "a guardian keeps what it knows when another program takes its place") {
  installation box;
  // One runs, one has ended for good, one leaves somebody who takes a while.
  box.write("config.json",
            config({R"({"id": "runs", "cmd":
    "sleep 1001 & setsid sleep 1002 & wait"})",
                    R"({"id": "ended", "cmd": ["true"], "restart": "never"})",
                    R"({"id": "expires", "terminateTimeout": 60,
    "cmd": "sh -c 'trap \"\" TERM; sleep 1003; sleep 1004' & exec sleep 1005"})"}));
  box.start();
  REQUIRE(wait_until([&] { return box.running().size() >= 7; }));
  const auto guardian = only(box.guardians());
  REQUIRE(::kill(pids(box).at("expires"), SIGTERM) == 0);
  REQUIRE(wait_until([&] { return state_of(box, "expires") == "stopping"; }));
  const auto before = pids(box);
  for (int round = 0; round < 3; ++round) {
    box.install_pup();
    const auto upgraded = box.pup({"upgrade"});
    CHECK(upgraded.err == "");
    REQUIRE(upgraded.code == 0);
    CHECK(only(box.guardians()) == guardian);
    CHECK(is_executing(guardian, box.installed("pup-guardian")));
  }
  CHECK(pids(box) == before);
  CHECK(state_of(box, "expires") == "stopping");
  CHECK(state_of(box, "ended") == "finished");
  // What belongs to whom is known still, also what has left the session.
  CHECK(box.pup({"stop", "runs"}).code == 0);
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(box.running().empty());
  CHECK(box.end() == "");
}

SCENARIO("a guardian that another one does not understand stays, and says so") {
  installation box;
  box.write("config.json",
            config({R"({"id": "a", "cmd": ["sleep", "1000"]})"}));
  box.start();
  const auto before = pids(box);
  const auto former = supervisor(box);
  const auto guardian = only(box.guardians());
  std::string how;
  SECTION("it is another program") {
    box.replace("pup-guardian", "#!/bin/sh\nexit 3\n");
    how = "does not understand";
  }
  SECTION("it cannot be executed") {
    box.replace("pup-guardian", "nothing");
    how = "cannot be executed";
  }
  SECTION("it is killed") {
    box.replace("pup-guardian", "#!/bin/sh\nkill -9 $$\n");
    how = "SIGKILL";
  }
  const auto upgraded = box.pup({"upgrade"});
  CHECK(upgraded.code == 0);  // of the supervisor
  CHECK(supervisor(box) != former);
  CHECK(only(box.guardians()) == guardian);
  CHECK(pids(box) == before);
  const auto log = box.read("state/pup/pup.log");
  INFO(log);
  CHECK(contains(log, how));
  CHECK(contains(log, "pup terminate and pup start"));
  CHECK(box.pup({"restart", "a"}).code == 0);
  CHECK(box.end() == "");
}

SCENARIO("a guardian that has gone too far to understand goes back") {
  installation box;
  box.write("config.json",
            config({R"({"id": "a", "cmd": ["sleep", "1000"]})"}));
  box.start();
  const auto before = pids(box);
  const auto former = supervisor(box);
  const auto guardian = only(box.guardians());
  // Says that it understands, and then finds something else in place of the
  // state.
  box.replace("pup-guardian",
              "#!/bin/sh\n"
              "[ \"$1\" = --examine ] && exit 0\n"
              "PUP_GUARD_STATE=${PUP_GUARD_FORMER%,*} exec " PUP_GUARDIAN
              " \"$@\"\n");
  for (int round = 0; round < 2; ++round) {
    CHECK(box.pup({"upgrade"}).code == 0);
    CHECK(supervisor(box) != former);
    CHECK(only(box.guardians()) == guardian);
    CHECK(pids(box) == before);
  }
  const auto log = box.read("state/pup/pup.log");
  INFO(log);
  CHECK(contains(log, "does not understand its predecessor, which goes on"));
  CHECK(box.pup({"restart", "a"}).code == 0);
  CHECK(box.end() == "");
}

SCENARIO("an upgrade asks no guardian that is the same program for anything") {
  installation box;
  box.write("config.json",
            config({R"({"id": "a", "cmd": ["sleep", "1000"]})"}));
  box.start();
  const auto path = box.installed("pup-guardian");
  SECTION("it stands where it stood") {}
  SECTION("it has been renamed, and back") {
    std::filesystem::rename(path, box.path("bin/aside"));
    std::filesystem::rename(box.path("bin/aside"), path);
  }
  CHECK(box.pup({"upgrade"}).code == 0);
  const auto log = box.read("state/pup/pup.log");
  INFO(log);
  CHECK_FALSE(contains(log, "the guardian"));
  CHECK(box.end() == "");
}

SCENARIO("a guardian that was renamed gives way to what has its name now") {
  installation box;
  box.write("config.json",
            config({R"({"id": "a", "cmd": ["sleep", "1000"]})"}));
  box.start();
  const auto before = pids(box);
  const auto guardian = only(box.guardians());
  const auto path = box.installed("pup-guardian");
  std::filesystem::rename(path, box.path("bin/pup-guardian.old"));
  std::filesystem::copy_file(box.path("bin/pup-guardian.old"), path);
  CHECK(box.pup({"upgrade"}).code == 0);
  CHECK(only(box.guardians()) == guardian);
  CHECK(is_executing(guardian, path));
  CHECK(pids(box) == before);
  CHECK(box.end() == "");
}

SCENARIO("an upgrade that cannot begin changes nothing") {
  installation box;
  box.write("config.json",
            config({R"({"id": "a", "cmd": ["sleep", "1000"]})"}));
  CHECK(box.pup({"upgrade"}).code == 3);
  SECTION("the program is gone") {
    box.start();
    const auto former = supervisor(box);
    std::filesystem::rename(box.pup_program, box.path("elsewhere"));
    const auto refused = box.pup({"upgrade"});
    CHECK(refused.code == 1);
    CHECK(contains(refused.err, "No such file"));
    box.install_pup();
    CHECK(supervisor(box) == former);
    CHECK(box.end() == "");
  }
  SECTION("there is no guardian") {
    std::filesystem::remove(box.path("bin/pup-guardian"));
    process alone{box.installed_pup({"run", "config.json"})};
    REQUIRE(alone.says("is up"));
    const auto refused = box.pup({"upgrade"});
    CHECK(refused.code == 1);
    CHECK(contains(refused.err, "without pup-guardian"));
    // The signal alone does no harm either.
    alone.signal(SIGUSR2);
    REQUIRE(alone.says("there is no guardian"));
    CHECK(box.status().at("processes").as_array().size() == 1);
    CHECK(box.end() == "");
  }
}

SCENARIO("what a former supervisor carries is drained as well") {
  installation box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 2)}));
  box.start();
  std::optional<connection> first{endpoint{ports[0], "127.0.0.1", {}}};
  std::optional<connection> second{endpoint{ports[0], "127.0.0.1", {}}};
  if (first->get().body.starts_with("web-2"))
    first.swap(second);
  REQUIRE(second->get().body.starts_with("web-2"));
  REQUIRE(box.pup({"upgrade"}).code == 0);
  WHEN("another one has come after its successor") {
    REQUIRE(::kill(supervisor(box), SIGKILL) == 0);
    REQUIRE(wait_until([&] { return box.pup({"status"}).code == 0; }));
  }
  WHEN("both carry something") {
    std::optional<connection> third{endpoint{ports[0], "127.0.0.1", {}}};
    if (!third->get().body.starts_with("web-2"))
      third.emplace(endpoint{ports[0], "127.0.0.1", {}});
    REQUIRE(third->get().body.starts_with("web-2"));
    REQUIRE(box.pup({"upgrade"}).code == 0);
    first.swap(third);
  }
  process scaling{box.command({"scale", "web", "1"})};
  const auto state = [&] {
    return std::string{
        with_id(box.unit("web").at("instances").as_array(), "web-2")
            .at("state")
            .as_string()};
  };
  REQUIRE(wait_until([&] { return state() == "draining"; }));
  second->ask("/slow?ms=500");
  CHECK(second->answer().status == 200);
  CHECK(state() == "draining");
  second.reset();
  if (first->get().body.starts_with("web-2")) {
    CHECK(state() == "draining");
    first.reset();
  }
  CHECK(scaling.wait().code == 0);
  CHECK(who(ports[0]).starts_with("web-1"));
  if (first)
    CHECK(first->get().body.starts_with("web-1"));
  CHECK(box.unit("web").at("instances").as_array().size() == 1);
  first.reset();
  CHECK(wait_until([&] { return box.supervisors().size() == 1; }));
  CHECK(box.end() == "");
}

SCENARIO("terminate also ends one that still carries a connection") {
  installation box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 2, R"("drainTimeoutMs": 500)")}));
  box.start();
  connection kept{endpoint{ports[0], "127.0.0.1", {}}};
  REQUIRE(kept.get().status == 200);
  // As service managers would.
  REQUIRE(::kill(only(box.guardians()), SIGUSR2) == 0);
  REQUIRE(wait_until([&] { return box.supervisors().size() == 2; }));
  REQUIRE(wait_until([&] { return box.pup({"status"}).code == 0; }));
  CHECK(kept.get().status == 200);
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(box.running().empty());
  CHECK(box.end() == "");
}
