// The command line: every error with its exit code and words, which supervisor
// is meant, what happens when things end in the middle.
#include "catch.hpp"
#include "system.hpp"

#include <csignal>

#include <sys/stat.h>
#include <unistd.h>

using namespace pup::test;
using namespace std::chrono_literals;

namespace {

using words = std::vector<std::string>;

std::string sleeper(const std::string& id, const std::string& more = {}) {
  return R"({"id": ")" + id + R"(", "cmd": ["sleep", "1000"])"
         + (more.empty() ? "" : ", " + more) + "}";
}

void refused(const finished& x, int code, const std::string& err) {
  CHECK(x.out == "");
  CHECK(x.err == err + '\n');
  CHECK(x.code == code);
}

void start(const sandbox& box, const std::string& file = "config.json") {
  const auto started = box.pup({"start", file});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

bool has_escapes(const std::string& text) {
  return contains(text, "\033");
}

/// `pup run` that has come up.
process run_in_foreground(const sandbox& box, words arguments = {"run"}) {
  auto command = box.command(std::move(arguments));
  command.input = true;
  process result{command};
  REQUIRE(result.says("is up, pid "));
  return result;
}

std::string pid_text(const sandbox& box) {
  const auto all = box.supervisors();
  REQUIRE(all.size() == 1);
  return std::to_string(*all.begin());
}

/// `count` in the status, without waiting for anything.
std::int64_t desired(const sandbox& box) {
  return box.unit("web").at("desired").to_number<std::int64_t>();
}

}  // namespace

SCENARIO("a command line that cannot be understood says why") {
  struct fault {
    words arguments;
    std::string text;
  };
  const std::vector<fault> faults{
      {{}, "pup: a command is missing; pup --help lists them"},
      {{"strat", "config.json"},
       "'strat' is no command; did you mean 'start'?"},
      {{"stats"}, "'stats' is no command; did you mean 'status'?"},
      {{"frobnicate"}, "'frobnicate' is no command; pup --help lists them"},
      {{"start"},
       "start: needs a configuration file or an id; pup start config.json"},
      {{"stop"}, "stop: ID|all is missing; pup --help shows how"},
      {{"restart"}, "restart: ID|all is missing; pup --help shows how"},
      {{"validate"}, "validate: CONFIG is missing; pup --help shows how"},
      {{"status", "a", "b"},
       "status: 'b' is one argument too many; pup --help shows how"},
      {{"terminate", "now"},
       "terminate: 'now' is one argument too many; pup --help shows how"},
      {{"--id", "web"}, "--id: needs --instances; pup --id web --instances 6"},
      {{"--instances", "6"},
       "--instances: needs --id; pup --id my-app --instances 6"},
      {{"--id"}, "--id: needs a value"},
      {{"--name="}, "--name: needs a value"},
      {{"logs", "--name", "../../x"},
       "--name: '../../x' names no supervisor; use 1 to 64 of A-Za-z0-9@._-, "
       "not . or .."},
      {{"status", "--name", ".."},
       "--name: '..' names no supervisor; use 1 to 64 of A-Za-z0-9@._-, not . "
       "or .."},
      {{"--id", "web", "--instances", "abc"},
       "'abc' is no number of instances; use 0 to 1024"},
      {{"--id", "web", "--instances", "-1"},
       "'-1' is no number of instances; use 0 to 1024"},
      {{"--id", "web", "--instances", "1.5"},
       "'1.5' is no number of instances; use 0 to 1024"},
      {{"--id", "web", "--instances", "5000"},
       "'5000' is no number of instances; use 0 to 1024"},
      {{"--id", "web", "--instances", "99999999999999999999"},
       "'99999999999999999999' is no number of instances; use 0 to 1024"},
      {{"--id", "web", "--instances", "3", "now"},
       "'now': not together with --id and --instances"},
      {{"scale", "web"},
       "scale: needs an id and a number; pup scale my-app 6, +2 or -1"},
      {{"scale", "web", "many"},
       "'many' is no number of instances; use 0 to 1024"},
      {{"scale", "web", "+"}, "'+' is no number of instances; use 0 to 1024"},
      {{"status", "--jsno"}, "--jsno: no such option; pup --help lists them"},
      {{"status", "--json=yes"}, "--json: takes no value"},
      {{"status", "--timeout", "0"},
       "--timeout: '0' is no time; use seconds, more than 0 and at most 86400"},
      {{"status", "--timeout", "soon"},
       "--timeout: 'soon' is no time; use seconds, more than 0 and at most "
       "86400"},
      {{"start", "none.json"},
       "none.json:1:1: No such file or directory; name a readable "
       "configuration "
       "file"},
      {{"validate", "."},
       ".:1:1: is a folder; name the configuration file in it"},
      {{"run"},
       "run: no pup.json, pup.jsonc or config.json here; name a "
       "configuration, or a command behind --"},
  };
  sandbox box;
  for (const auto& x : faults) {
    INFO("pup " << (x.arguments.empty() ? "" : x.arguments.back()));
    refused(box.pup(x.arguments), 2, x.text);
  }
  CHECK(box.running() == std::set<pid_t>{});
}

SCENARIO("help and version are no errors") {
  sandbox box;
  for (const words& arguments : {words{"--help"}, words{"-h"}, words{"help"},
                                 words{"scale", "--help"}}) {
    const auto help = box.pup(arguments);
    CHECK(help.code == 0);
    CHECK(help.err == "");
    CHECK(contains(help.out, "pup --id ID --instances N"));
  }
  const auto version = box.pup({"--version"});
  CHECK(version.code == 0);
  CHECK(version.out.starts_with("pup "));
}

SCENARIO("without a supervisor each command says so with exit code 3") {
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  for (const words& arguments :
       {words{"status"}, words{"status", "--json"}, words{"stop", "all"},
        words{"scale", "web", "3"}, words{"--id", "web", "--instances", "3"},
        words{"terminate"}})
    refused(box.pup(arguments), 3,
            "pup: no supervisor is running; start one with pup start CONFIG");
  refused(box.pup({"status", "--name", "other"}), 3,
          "pup: 'other' is not running; start one with pup start CONFIG");
  refused(box.pup({"status", "--config", "config.json"}), 3,
          "pup: nothing started from 'config.json' is running; start one with "
          "pup start CONFIG");
}

SCENARIO("what the supervisor refuses changes nothing") {
  sandbox box;
  const port_range ports{3};
  const auto file =
      box.write("config.json", config({web(ports, 2), sleeper("worker")}));
  start(box);
  const auto before = box.running();

  refused(box.pup({"--id", "wbe", "--instances", "3"}), 1,
          "no process, cluster or instance 'wbe'; there are web, worker");
  refused(box.pup({"stop", "wbe"}), 1,
          "no process, cluster or instance 'wbe'; there are web, worker");
  refused(box.pup({"status", "wbe"}), 1,
          "no process, cluster or instance 'wbe'; there are web, worker");
  refused(box.pup({"restart", "web-3"}), 1,
          "no process, cluster or instance 'web-3'; there are web, worker");
  refused(box.pup({"--id", "worker", "--instances", "3"}), 1,
          "'worker' is a process, not a cluster; give it a \"cluster\" in the "
          "configuration to scale it");
  refused(box.pup({"--id", "web-1", "--instances", "3"}), 1,
          "'web-1' is one instance; scale 'web', its cluster");
  const auto too_many = box.pup({"scale", "web", "+1024"});
  CHECK(too_many.code == 1);
  CHECK(contains(too_many.err, "1026"));
  CHECK(contains(too_many.err, "; use 0 to 1024\n"));
  refused(box.pup({"status", "--name", "other"}), 3,
          "pup: 'other' is not running; start one with pup start CONFIG, or "
          "choose with --name from pup ("
              + file + ")");
  CHECK(box.running() == before);
  CHECK(desired(box) == 2);
}

SCENARIO("a configuration that cannot work starts nothing") {
  sandbox box;
  const std::string text = R"({
  "processes": [
    {"id": "web", "cmd": ["no-such-program"], "clutser": {}},
    {"id": "web", "cmd": ["sleep", "1"]}
  ]
})";
  const auto file = box.write("config.json", text);
  std::string said;
  for (const words& arguments :
       {words{"validate", "config.json"}, words{"start", "config.json"},
        words{"run", "config.json"}}) {
    const auto x = box.pup(arguments);
    CHECK(x.code == 2);
    CHECK(x.out == "");
    CHECK(contains(x.err, "config.json:3:"));
    CHECK(contains(x.err, "config.json:4:"));
    CHECK(contains(x.err, "processes[0].clutser: "));
    CHECK(contains(x.err, "did you mean `cluster`?"));
    CHECK(contains(x.err, "`no-such-program` cannot be run: not found"));
    CHECK(contains(x.err, "processes[1].id: "));
    if (said.empty())
      said = x.err;
    CHECK(x.err == said);
  }
  CHECK(box.running() == std::set<pid_t>{});

  box.write("config.json", config({sleeper("a")}));
  const auto good = box.pup({"validate", "config.json"});
  CHECK(good.code == 0);
  CHECK(good.out == "config.json: ok\n");
  CHECK(good.err == "");
}

SCENARIO("a second start of a name that runs changes nothing") {
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  box.write("other.json", config({sleeper("b")}));
  start(box);
  const auto before = box.running();
  for (const auto* file : {"config.json", "other.json"})
    refused(box.pup({"start", file}), 1,
            "supervisor pup: is already running as pid " + pid_text(box)
                + "; choose another name or stop it with pup terminate --name "
                  "pup");
  CHECK(box.running() == before);
  CHECK(box.pup({"start", "other.json", "--name", "second"}).code == 0);
  CHECK(box.supervisors().size() == 2);
}

SCENARIO("of two starts at the same moment one wins") {
  sandbox box;
  const port_range ports{3};
  box.write("config.json", config({web(ports, 2)}));
  process one{box.command({"start", "config.json"})};
  process two{box.command({"start", "config.json"})};
  const auto a = one.wait();
  const auto b = two.wait();
  CHECK(a.code + b.code == 1);
  const auto& lost = a.code == 0 ? b : a;
  CHECK(lost.err.starts_with("supervisor pup: is already "));
  CHECK(box.supervisors().size() == 1);
  CHECK(box.running().size() == 4);
  CHECK(box.unit("web").at("ready") == 2);
  CHECK(box.end() == "");
}

SCENARIO("of two scale commands at once the later wins, both hear the truth") {
  sandbox box;
  const port_range ports{8};
  box.write("config.json", config({web(ports, 1)}));
  start(box);
  for (int round = 0; round < 3; ++round) {
    process five{box.command({"--id", "web", "--instances", "5"})};
    process two{box.command({"--id", "web", "--instances", "2"})};
    const auto a = five.wait();
    const auto b = two.wait();
    INFO(a.out << a.err << b.out << b.err);
    const auto now = box.unit("web");
    const auto count = now.at("desired").to_number<int>();
    CHECK((count == 5 || count == 2));
    CHECK(now.at("ready") == count);
    CHECK(now.at("instances").as_array().size()
          == static_cast<std::size_t>(count));
    // Who set the count that stands was not contradicted.
    CHECK((count == 5 ? a : b).code == 0);
    // Who was overtaken either was done before or says so.
    const auto& other = count == 5 ? b : a;
    CHECK((other.code == 0 ? other.err.empty()
                           : contains(other.err, "by a later request")));
  }
}

SCENARIO("of several supervisors the one is chosen that is meant") {
  sandbox box;
  const auto a = box.write(
      "a/config.json",
      config({sleeper("one"), sleeper("both")}, R"("name": "first")"));
  const auto b = box.write(
      "b/config.json",
      config({sleeper("two"), sleeper("both")}, R"("name": "second")"));
  start(box, "a/config.json");
  const auto name_in = [&](const std::string& folder, words arguments) {
    auto command = box.command(std::move(arguments));
    command.cwd = box.path(folder);
    const auto x = run(command);
    CHECK(x.err == "");
    REQUIRE(x.code == 0);
    const auto status = parse_json(x.out).as_object();
    const auto& name = status.at("name").as_string();
    return std::string{name.data(), name.size()};
  };
  // The only one, from anywhere.
  CHECK(name_in("", {"status", "--json"}) == "first");
  start(box, "b/config.json");

  const auto ambiguous = "pup: several supervisors run: first (" + a
                         + "), second (" + b + "); choose one with --name";
  refused(box.pup({"status"}), 1, ambiguous);
  refused(box.pup({"stop", "all"}), 1, ambiguous);
  refused(box.pup({"stop", "both"}), 1, ambiguous);
  refused(box.pup({"stop", "neither"}), 1, ambiguous);
  refused(box.pup({"terminate"}), 1, ambiguous);

  CHECK(name_in("", {"status", "--json", "--name", "second"}) == "second");
  CHECK(name_in("", {"status", "--json", "--config", "a/config.json"})
        == "first");
  CHECK(name_in("a", {"status", "--json"}) == "first");
  CHECK(name_in("b", {"status", "--json"}) == "second");
  CHECK(name_in("", {"status", "--json", "one"}) == "first");
  CHECK(name_in("", {"status", "--json", "two"}) == "second");

  // Beside a's configuration "both" is a's.
  auto stop = box.command({"stop", "both"});
  stop.cwd = box.path("a");
  CHECK(run(stop).code == 0);
  CHECK(with_id(box.status({"--name", "first"}).at("processes").as_array(),
                "both")
            .at("state")
            .as_string()
        == "stopped");
  CHECK(with_id(box.status({"--name", "second"}).at("processes").as_array(),
                "both")
            .at("state")
            .as_string()
        == "ready");
  CHECK(box.pup({"terminate", "--name", "first"}).code == 0);
  CHECK(name_in("", {"status", "--json"}) == "second");
}

SCENARIO("an id after start is an id, even beside a folder of that name") {
  sandbox box;
  box.write("config.json", config({sleeper("worker")}));
  box.write("worker/readme", "");
  start(box);
  REQUIRE(box.pup({"stop", "worker"}).code == 0);
  const auto again = box.pup({"start", "worker"});
  CHECK(again.err == "");
  CHECK(again.out == "worker: ready\n");
}

SCENARIO("pup run stays in the foreground until it is told to stop") {
  sandbox box;
  box.write("config.json",
            config({sleeper("first"),
                    R"({"id": "second", "cmd": "trap 'echo end; exit 0' TERM; )"
                    R"(while :; do sleep 1000 & wait; done"})"}));
  auto pup = run_in_foreground(box);
  REQUIRE(wait_until(
      [&] { return box.unit("second").at("state").as_string() == "ready"; }));

  WHEN("its standard input is closed") {
    pup.close_input();
    THEN("it carries on") {
      CHECK(box.unit("first").at("state").as_string() == "ready");
      pup.signal(SIGTERM);
      CHECK(pup.wait().code == 0);
    }
  }
  WHEN("its terminal goes away") {
    pup.signal(SIGHUP);
    THEN("it carries on") {
      CHECK(box.unit("first").at("state").as_string() == "ready");
      pup.signal(SIGTERM);
      CHECK(pup.wait().code == 0);
    }
  }
  for (const int signal : {SIGINT, SIGTERM}) {
    WHEN("it gets signal " + std::to_string(signal)) {
      pup.signal(signal);
      const auto x = pup.wait();
      THEN("it stops everything in order") {
        CHECK(x.code == 0);
        CHECK(x.out.starts_with("pup: 'pup' is up, pid "));
        CHECK(x.err
              == std::string{"pup: SIG"} + sigabbrev_np(signal)
                     + ": stopping; again to kill\n");
        CHECK(contains(box.pup({"logs", "second"}).out, " stdout end\n"));
        CHECK(box.running() == std::set<pid_t>{});
      }
    }
  }
}

SCENARIO("a second signal kills what does not stop") {
  sandbox box;
  const port_range ports{2};
  box.write("config.json", config({web(ports, 1, {},
                                       R"("env": {"IGNORE_TERM": "1"}, )"
                                       R"("terminateTimeout": 3600)")}));
  auto pup = run_in_foreground(box);
  REQUIRE(wait_until([&] { return box.unit("web").at("ready") == 1; }));
  pup.signal(SIGINT);
  REQUIRE(pup.says("stopping; again to kill"));
  pup.signal(SIGINT);
  const auto x = pup.wait();
  CHECK(x.code == 0);
  CHECK(contains(x.err, "pup: SIGINT: killing what is left\n"));
  CHECK(box.running() == std::set<pid_t>{});
}

SCENARIO("pup run finds its configuration by the usual names") {
  sandbox box;
  const std::vector<std::string> files{"config.json", "pup.jsonc", "pup.json"};
  for (const auto& file : files) {
    const auto path = box.write(file, config({sleeper("a")}));
    auto pup = run_in_foreground(box);
    CHECK(box.status().at("config").as_string() == path.c_str());
    pup.signal(SIGTERM);
    CHECK(pup.wait().code == 0);
  }
}

SCENARIO("a command waits no longer than it is told to") {
  sandbox box;
  const port_range ports{4};
  // Blocks SIGTERM until it is up, so that SIGKILL has to end it.
  box.write(
      "config.json",
      config({web(ports, 1, {},
                  R"("env": {"START_DELAY_MS": "3600000"}, )"
                  R"("readyTimeoutMs": 3600000, "terminateTimeout": 0.1)")}));
  WHEN("--no-wait is given") {
    const auto begun = box.pup({"start", "config.json", "--no-wait"});
    CHECK(begun.err == "");
    CHECK(begun.code == 0);
    CHECK(box.unit("web").at("ready") == 0);
    const auto scaled = box.pup({"scale", "web", "3", "--no-wait"});
    CHECK(scaled.err == "");
    CHECK(scaled.code == 0);
    CHECK(desired(box) == 3);
    const auto restarted = box.pup({"restart", "web-1", "--no-wait"});
    CHECK(restarted.err == "");
    CHECK(restarted.code == 0);
    CHECK(box.pup({"terminate"}).code == 0);
  }
  WHEN("--timeout is given") {
    const auto begun = box.pup({"start", "config.json", "--timeout", "0.5"});
    CHECK(begun.code == 1);
    CHECK(begun.err
          == "pup: not done after 0.5 s, but goes on; pup status shows how far "
             "it is\n");
    CHECK(begun.wall >= 500ms);
    refused(box.pup({"scale", "web", "2", "--timeout", "0.5"}), 1,
            "pup: not done after 0.5 s, but goes on; pup status shows how far "
            "it is");
    CHECK(desired(box) == 2);
  }
  CHECK(box.end() == "");
}

SCENARIO("a supervisor that is stopped cannot hold a command") {
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  start(box);
  const auto pid = *box.supervisors().begin();
  freeze(pid);
  for (const words& arguments :
       {words{"status"}, words{"stop", "a"}, words{"terminate"}}) {
    auto with_limit = arguments;
    with_limit.insert(with_limit.end(), {"--timeout", "1"});
    const auto x = box.pup(with_limit, 30s);
    CHECK(x.out == "");
    CHECK(x.err
          == box.path("run/pup/control.sock")
                 + ": the supervisor does not answer; check that it is not "
                   "stopped or overloaded\n");
    CHECK(x.code == 1);
    CHECK(x.wall >= 1s);
  }
  REQUIRE(::kill(pid, SIGCONT) == 0);
  CHECK(box.pup({"status"}).code == 0);
}

SCENARIO("a command ends at once when its supervisor is killed") {
  sandbox box;
  box.may_leave_processes();
  const port_range ports{4};
  box.write("config.json",
            config({web(ports, 0, {},
                        R"("env": {"START_DELAY_MS": "3600000"}, )"
                        R"("readyTimeoutMs": 3600000)")}));
  start(box);
  process scale{box.command({"scale", "web", "2"})};
  REQUIRE(wait_until([&] { return desired(box) == 2; }));
  REQUIRE(::kill(*box.supervisors().begin(), SIGKILL) == 0);
  // Far below the three minutes that a scale may take.
  refused(scale.wait(30s), 1,
          "supervisor: ended before it answered; look at it with pup status");
}

SCENARIO("colours are for terminals only") {
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  const auto started = box.pup({"start", "config.json"});
  REQUIRE(started.code == 0);
  CHECK_FALSE(has_escapes(started.out));
  CHECK_FALSE(has_escapes(box.pup({"status"}).out));

  auto on_terminal = box.command({"status"});
  on_terminal.terminal = true;
  CHECK(has_escapes(run(on_terminal).out));
  on_terminal.env["NO_COLOR"] = "1";
  const auto plain = run(on_terminal);
  CHECK(contains(plain.out, "ready"));
  CHECK_FALSE(has_escapes(plain.out));
}

SCENARIO("whoever waits at a terminal sees for what") {
  sandbox box;
  box.write("config.json", config({R"({"id": "slow", "cmd": ["sleep", "1000"],
    "ready": {"type": "exec", "cmd": "test -e go"}})"}));
  auto command = box.command({"start", "config.json"});
  auto quiet = command;
  command.terminal = true;
  process start{command};
  REQUIRE(start.says("\rwaiting: slow starting (1 s)"));
  REQUIRE(start.says("(2 s)"));
  box.write("go", "");
  const auto shown = start.wait();
  CHECK(shown.code == 0);
  CHECK(contains(shown.out, '\r' + std::string(28, ' ') + "\rID "));
  CHECK(box.pup({"terminate"}).code == 0);

  // Elsewhere there is nothing but the answer.
  ::unlink(box.path("go").c_str());
  process silent{quiet};
  CHECK_FALSE(silent.says("waiting", 2'500ms));
  box.write("go", "");
  const auto answered = silent.wait();
  CHECK(answered.code == 0);
  CHECK(answered.err == "");
}

SCENARIO("another user is refused, and told why") {
  if (::geteuid() != 0) {
    WARN("left out: only root can act as somebody else");
    return;
  }
  constexpr uid_t nobody = 65'534;
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  // What another user needs: to enter the folder and to run the programs.
  REQUIRE(::chmod(box.path().c_str(), 0755) == 0);
  std::filesystem::create_directory(box.path("run"));
  std::filesystem::copy_file(PUP_PROGRAM, box.path("pup"));
  std::filesystem::copy_file(PUP_GUARDIAN, box.path("pup-guardian"));
  std::filesystem::copy_file(PUP_REMOTE, box.path("remote"));
  start(box);

  const auto as_nobody = [&](words argv) {
    argv.front() = box.path(argv.front());
    auto command = box.program(std::move(argv));
    command.user = nobody;
    return run(command);
  };
  refused(as_nobody({"pup", "status"}), 3,
          "pup: no supervisor is running as uid 65534; " + box.path("run")
              + " belongs to uid 0, run the command as that user");
  refused(as_nobody({"pup", "terminate", "--name", "pup"}), 3,
          "pup: 'pup' is not running as uid 65534; " + box.path("run")
              + " belongs to uid 0, run the command as that user");
  const auto begun = as_nobody({"pup", "start", box.path("config.json")});
  CHECK(begun.code == 1);
  CHECK(begun.err.starts_with(box.path("state") + ": "));
  const auto socket = box.path("run/pup/control.sock");
  const auto remote = as_nobody({"remote", socket, "a", "1"});
  CHECK(remote.code == 1);
  CHECK(remote.err
        == socket
               + ": permission denied; run the command as the user who started "
                 "the supervisor\n");
  CHECK(box.unit("a").at("state").as_string() == "ready");
}

SCENARIO("root may command everybody's") {
  if (::geteuid() != 0) {
    WARN("left out: only root can act as somebody else");
    return;
  }
  sandbox box;
  box.write("config.json", config({sleeper("a")}));
  REQUIRE(::chmod(box.path().c_str(), 0777) == 0);
  std::filesystem::copy_file(PUP_PROGRAM, box.path("pup"));
  std::filesystem::copy_file(PUP_GUARDIAN, box.path("pup-guardian"));
  auto command =
      box.program({box.path("pup"), "start", box.path("config.json")});
  command.user = 65'534;
  const auto begun = run(command);
  CHECK(begun.err == "");
  REQUIRE(begun.code == 0);
  CHECK(box.unit("a").at("state").as_string() == "ready");
  CHECK(box.pup({"stop", "a"}).code == 0);
  CHECK(box.unit("a").at("state").as_string() == "stopped");
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(box.end() == "");
}

SCENARIO("a group of readers may look, and nothing else") {
  if (::geteuid() != 0) {
    WARN("left out: only root can act as somebody else");
    return;
  }
  constexpr uid_t reader = 61'235;  // and their group
  sandbox box;
  box.write("config.json",
            config({sleeper("a")}, R"("ipc": {"readers": "61235"})"));
  REQUIRE(::chmod(box.path().c_str(), 0755) == 0);
  std::filesystem::copy_file(PUP_PROGRAM, box.path("pup"));
  start(box);
  const auto as = [&](uid_t user, words argv) {
    argv.insert(argv.begin(), box.path("pup"));
    auto command = box.program(std::move(argv));
    command.user = user;
    return run(command);
  };
  for (const words& argv :
       {words{"status", "--json"}, words{"status", "a", "--json"},
        words{"status", "--json", "--name", "pup"}}) {
    const auto seen = as(reader, argv);
    CHECK(seen.err == "");
    REQUIRE(seen.code == 0);
    CHECK(parse_json(seen.out).at("processes").as_array().size() == 1);
  }
  const auto table = as(reader, {"status"});
  CHECK(table.code == 0);
  CHECK(contains(table.out, "ready"));
  const auto unknown = as(reader, {"status", "b"});
  CHECK(unknown.code == 1);
  CHECK(contains(unknown.err, "no process, cluster or instance 'b'"));
  for (const words& argv :
       {words{"stop", "a"}, words{"terminate"}, words{"scale", "a", "2"}})
    CHECK(as(reader, argv).code == 3);
  CHECK(as(65'534, {"status"}).code == 3);
  CHECK(box.unit("a").at("state").as_string() == "ready");

  // Without readers nobody enters any more.
  REQUIRE(box.pup({"terminate"}).code == 0);
  box.write("config.json", config({sleeper("a")}));
  start(box);
  CHECK(as(reader, {"status"}).code == 3);
  CHECK(box.end() == "");
}

SCENARIO("a group of readers that does not exist is refused") {
  sandbox box;
  box.write("config.json",
            config({sleeper("a")}, R"("ipc": {"readers": "no such group"})"));
  for (const auto* how : {"start", "run", "validate"}) {
    INFO(how);
    const auto begun = box.pup({how, "config.json"});
    CHECK(begun.code == 2);
    CHECK(contains(begun.err,
                   "ipc.readers: `no such group` is no group of this machine"));
  }
  CHECK(box.running().empty());
}

SCENARIO("root does not run what somebody else has written") {
  if (::geteuid() != 0) {
    WARN("left out: only root is asked to");
    return;
  }
  sandbox box;
  const auto file = box.write("config.json", config({sleeper("a")}));
  REQUIRE(::chown(file.c_str(), 65'534, 65'534) == 0);
  for (const auto* how : {"start", "run"}) {
    const auto begun = box.pup({how, "config.json"});
    CHECK(begun.code == 2);
    CHECK(contains(begun.err, "config.json:1:1: belongs to "));
  }
  CHECK(box.running().empty());
  // Who calls sudo means their own files.
  box.env["SUDO_UID"] = "65534";
  start(box);
  CHECK(box.end() == "");
}

SCENARIO("pup runs inside another CAF application") {
  sandbox box;
  const port_range ports{5};
  const auto x =
      run(box.program({PUP_EMBED, PUP_HTTP_SERVER, std::to_string(ports[0]),
                       std::to_string(ports[1])}));
  CHECK(x.err == "");
  CHECK(x.code == 0);
  CHECK(contains(x.out, "scaled 2 -> 4\nembedded is running with 4 ready\n"));
  CHECK(contains(x.out, "stopped\n"));
  CHECK(box.running() == std::set<pid_t>{});
  refused(run(box.program({PUP_EMBED})), 2,
          "usage: embed SERVER_PROGRAM COMMON_PORT START_PORT");
}

SCENARIO("another CAF application scales a running pup") {
  sandbox box;
  const port_range ports{4};
  box.write("config.json", config({web(ports, 1)}));
  start(box);
  const auto socket = box.path("run/pup/control.sock");
  const auto x = run(box.program({PUP_REMOTE, socket, "web", "3"}));
  CHECK(x.err == "");
  CHECK(x.code == 0);
  CHECK(x.out == "scaled 1 -> 3\nweb-2: ready\nweb-3: ready\n");
  CHECK(box.unit("web").at("ready") == 3);
  refused(run(box.program({PUP_REMOTE, socket, "wbe", "3"})), 1,
          "no process, cluster or instance 'wbe'; there is web");
  refused(run(box.program({PUP_REMOTE, box.path("none.sock"), "web", "3"})), 1,
          box.path("none.sock")
              + ": no supervisor listens here; start one with pup start");
}
