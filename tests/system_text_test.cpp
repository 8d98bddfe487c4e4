// What commands print: whether it arrived, and that no text of somebody else
// acts upon the terminal it is shown at.
#include "pup/config/plain_text.hpp"

#include "catch.hpp"
#include "system.hpp"

#include <algorithm>
#include <csignal>

#include <sys/stat.h>

using namespace pup::test;

namespace {

using words = std::vector<std::string>;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

bool is_harmless(const std::string& text) {
  return pup::shown_lines(text) == text;
}

/// A shell runs it, which can give it other descriptors.
finished run_by_shell(const sandbox& box, const std::string& script,
                      const words& arguments) {
  auto command = box.command(arguments);
  command.argv.insert(command.argv.begin(), {"sh", "-c", script, "sh"});
  return run(command);
}

constexpr auto full_disk =
    "pup: standard output: cannot be written: No space left on device; send it "
    "somewhere else\n";

/// What a running supervisor is asked.
const std::vector<words> questions{
    {"status"},
    {"status", "--json"},
    {"why", "a"},
    {"why", "a", "--json"},
    {"logs"},
    {"logs", "--json"},
    {"scale", "w", "2"},
    {"--id", "w", "--instances", "1"},
    {"stop", "a"},
    {"start", "a"},
    {"restart", "a"},
    {"reload", "w"},
    {"block", "a"},
    {"unblock", "a"},
    {"signal", "a", "USR1"},
    {"apply", "pup.json", "--dry-run"},
    {"apply", "pup.json"},
};

/// What needs none.
const std::vector<words> others{
    {"--help"},
    {"help", "start"},
    {"--version"},
    {"validate", "pup.json"},
    {"completion", "bash"},
    {"completion", "zsh"},
    {"completion", "fish"},
    {"init", "--config", "new.json"},
    {"append", "--config", "new.json", "--id", "n", "--", "/bin/true"},
    {"remove", "--config", "new.json", "n"},
    {"import", "supervisord.conf"},
    {"enable-service", "--dry-run"},
    {"disable-service", "--dry-run"},
};

void write_configuration(const sandbox& box) {
  box.write("supervisord.conf",
            "[program:web]\ncommand=/bin/true\n"
            "autorestart=true\n");
  box.write("pup.json", R"({"processes": [
    {"id": "a", "cmd": "trap : USR1; echo hello; while :; do sleep 0.05; done"},
    {"id": "w", "cmd": ["sleep", "1000"], "cluster": {"instances": 1}}]})");
}

}  // namespace

SCENARIO("every command says when its answer could not be written") {
  sandbox box;
  box.env["PATH"] = "/usr/bin:/bin";
  write_configuration(box);
  const auto check = [&](const words& arguments) {
    INFO(arguments.front());
    const auto result = run_by_shell(box, "exec \"$@\" > /dev/full", arguments);
    CHECK(result.err == full_disk);
    CHECK(result.code == 1);
  };
  for (const auto& x : others)
    check(x);
  check({"start", "pup.json"});
  for (const auto& x : questions)
    check(x);
  check({"monitor", "-n", "5"});
  // Nothing to say.
  CHECK(run_by_shell(box, "exec \"$@\" > /dev/full", {"terminate"}).code == 0);
  // The fault of another is not covered up.
  CHECK(run_by_shell(box, "exec \"$@\" > /dev/full", {"status"}).code == 3);
  CHECK(run_by_shell(box, "exec \"$@\" > /dev/full", {"nonsense"}).code == 2);
}

SCENARIO(
    "a supervisor says that its own output cannot be written, and goes on") {
  sandbox box;
  box.env["PATH"] = "/usr/bin:/bin";
  write_configuration(box);
  process supervisor{box.program({"sh", "-c", "exec \"$@\" > /dev/full", "sh",
                                  box.pup_program, "run", "pup.json"})};
  CHECK(supervisor.says(full_disk));
  CHECK(wait_until([&] { return box.pup({"status"}).code == 0; }));
  supervisor.signal(SIGTERM);
  CHECK(supervisor.wait().code == 1);
}

SCENARIO("a reader that has gone is no fault of any command") {
  sandbox box;
  box.env["PATH"] = "/usr/bin:/bin";
  write_configuration(box);
  REQUIRE(box.pup({"start", "pup.json"}).code == 0);
  const auto check = [&](const words& arguments) {
    INFO(arguments.front());
    const auto result = run_by_shell(
        box, "mkfifo f; exec 3<>f 4>f 3<&-; rm f; exec \"$@\" >&4", arguments);
    CHECK(result.err == "");
    CHECK(result.code == 0);
  };
  for (const auto& x : others)
    check(x);
  for (const auto& x : questions)
    check(x);
  check({"monitor"});
}

SCENARIO("no file gets the number of an output that is closed") {
  sandbox box;
  box.env["PATH"] = "/usr/bin:/bin";
  write_configuration(box);
  const auto result = run_by_shell(box, "exec \"$@\" >&-", {"--version"});
  CHECK(result.code == 1);
  CHECK(contains(result.err, "standard output: cannot be written: Bad file"));
  CHECK(
      run_by_shell(box, "exec \"$@\" <&- >&- 2>&-", {"start", "pup.json"}).code
      == 1);
  CHECK(box.unit("a").at("state") == "ready");
}

SCENARIO("a slow reader that wants no waiting gets all of it") {
  sandbox box;
  box.env["PATH"] = "/usr/bin:/bin";
  // A pipe that is non-blocking for its writer, and read late.
  box.write("slow.py", R"(import fcntl, os, subprocess, sys
r, w = os.pipe()
fcntl.fcntl(w, fcntl.F_SETFL, os.O_NONBLOCK)
fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 4096)
p = subprocess.Popen(sys.argv[1:], stdout=w)
os.close(w)
size = 0
while True:
  got = os.read(r, 1000)
  if not got: break
  size += len(got)
print(p.wait(), size)
)");
  write_configuration(box);
  auto command = box.command({"import", "supervisord.conf"});
  box.write("supervisord.conf", "[program:web]\ncommand=/bin/echo "
                                    + std::string(20'000, 'x') + '\n');
  const auto size = run(command).out.size();
  REQUIRE(size > 20'000);
  command.argv.insert(command.argv.begin(), {"python3", "slow.py"});
  CHECK(run(command).out == "0 " + std::to_string(size) + "\n");
}

SCENARIO("output of processes is drawn, in colours at a terminal only") {
  sandbox box;
  box.env["PATH"] = "/usr/bin:/bin";
  box.write("say",
            "\033[31mred\033[0m \033[2J\a\b\x7F\xC2\x9B"
            "2J\x9B"
            "3J\xE2\x80\xAEx\xE2\x81\xA6y\xE2\x80\x8Fz\rw\n");
  box.write("pup.json", R"({"processes": [
    {"id": "a", "cmd": "cat say; exec sleep 1000"}]})");
  REQUIRE(box.pup({"start", "pup.json"}).code == 0);
  REQUIRE(wait_until([&] { return contains(box.pup({"logs"}).out, "red"); }));
  const std::string drawn =
      "2J\xEF\xBF\xBD"
      "3Jxyzw\n";
  const auto logs = box.pup({"logs", "a", "--severity", "info"}).out;
  CHECK(contains(logs, "stdout red " + drawn));
  CHECK(is_harmless(logs));
  CHECK(is_harmless(box.pup({"why", "a"}).out));
  // All of it, for programs, and harmless all the same.
  for (const auto& x :
       {words{"logs", "a", "--json"}, words{"why", "a", "--json"}}) {
    const auto json = box.pup(x).out;
    CHECK(is_harmless(json));
    CHECK(contains(json, R"(\u001b[31mred\u001b[0m \u001b[2J\u0007\u0008\u007f)"
                         R"(\u009b2J)"
                         "\xEF\xBF\xBD"
                         R"(3J\u202ex\u2066y\u200fz\u000dw)"));
  }
  auto terminal = box.command({"logs", "a"});
  terminal.terminal = true;
  CHECK(contains(run(terminal).out,
                 "stdout \033[31mred\033[0m 2J\xEF\xBF\xBD"
                 "3Jxyzw\033[0m\r\n"));
  terminal = box.command({"monitor", "a", "-n", "100"});
  terminal.terminal = true;
  process monitor{terminal};
  CHECK(
      monitor.says("\033[31mred\033[0m 2J\xEF\xBF\xBD"
                   "3Jxyzw\033[0m"));
}

SCENARIO("what the command line echoes is shown, not acted upon") {
  sandbox box;
  box.env["PATH"] = "/usr/bin:/bin";
  write_configuration(box);
  const std::string hostile =
      "\033[2J\a\b\r\x7F\xC2\x9B\x9B\xE2\x80\xAE\nforged: ok";
  const auto check = [&](const words& arguments) {
    INFO(arguments.front());
    const auto result = box.pup(arguments);
    CHECK(result.code != 0);
    CHECK(result.out == "");
    CHECK(is_harmless(result.err));
    CHECK(!result.err.empty());
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  };
  const auto everywhere = [&] {
    for (const auto* x : {"status", "why", "stop", "restart", "reload", "block",
                          "signal", "logs", "validate", "apply", "import",
                          "completion", "help", "remove", "upgrade", "start"})
      check({x, hostile});
    check({hostile});
    check({"--" + hostile});
    check({"signal", "a", hostile});
    check({"scale", "w", hostile});
    check({"scale", hostile, "2"});
    for (const auto* x : {"--name", "--config"})
      check({"status", x, hostile});
    check({"logs", "--severity", hostile});
    check({"logs", "--start", hostile});
    check({"logs", "--name", hostile});
    check({"run", "--config", hostile});
  };
  everywhere();
  REQUIRE(box.pup({"start", "pup.json"}).code == 0);
  everywhere();
  // In what goes well, too.
  const auto made = box.pup({"init", "--config", "n" + hostile.substr(0, 18)});
  CHECK(made.code == 0);
  CHECK(is_harmless(made.out));
  CHECK(std::count(made.out.begin(), made.out.end(), '\n') == 1);
  // A configuration whose own words come back as faults.
  box.write("odd.json",
            "{\"processes\": [{\"id\": \"\\u001b[2J\\u202e\", "
            "\"cmd\": [\"/x\\u009b\"], \"\\u0007\": 1}]}");
  const auto faults = box.pup({"validate", "odd.json"});
  CHECK(faults.code == 2);
  CHECK(is_harmless(faults.err));
}
