// Commands that need no supervisor, the command line as a configuration, and
// life as a service, with the real program.
#include "pup/runtime/fd.hpp"

#include "catch.hpp"
#include "system.hpp"

#include <csignal>
#include <optional>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

using namespace pup::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

bool exists(const std::string& program) {
  const auto* path = std::getenv("PATH");
  std::string all = path != nullptr ? path : "";
  for (std::size_t begin = 0; begin <= all.size();) {
    const auto end = std::min(all.find(':', begin), all.size());
    if (::access((all.substr(begin, end - begin) + '/' + program).c_str(), X_OK)
        == 0)
      return true;
    begin = end + 1;
  }
  return false;
}

/// The other end of NOTIFY_SOCKET.
class notify_socket {
public:
  explicit notify_socket(const std::string& path)
      : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    REQUIRE(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address),
                   sizeof(address))
            == 0);
    const timeval limit{90, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }

  std::string receive() {
    char buffer[1024];
    const auto n = ::recv(fd_.get(), buffer, sizeof(buffer), 0);
    return n < 0 ? "nothing" : std::string(buffer, static_cast<size_t>(n));
  }

private:
  pup::unique_fd fd_;
};

}  // namespace

SCENARIO("a configuration is begun, extended, reduced and started") {
  sandbox box;
  auto made = box.pup({"init", "--id", "first", "--", "sleep", "1000"});
  CHECK(made.code == 0);
  CHECK(made.out == "pup.json: written; start it with pup start pup.json\n");
  CHECK(box.pup({"validate", "pup.json"}).code == 0);

  auto again = box.pup({"init"});
  CHECK(again.code == 1);
  CHECK(again.err
        == "pup.json: exists already; pup append adds a process to it\n");

  ::chmod(box.path("pup.json").c_str(), 0640);
  CHECK(box.pup({"append", "--id", "second", "--cmd", "exec sleep 1000"}).code
        == 0);
  struct stat info {};
  ::stat(box.path("pup.json").c_str(), &info);
  CHECK((info.st_mode & 0777) == 0640);

  auto before = box.read("pup.json");
  auto twice = box.pup({"append", "--id", "second", "--", "sleep", "1"});
  CHECK(twice.code == 2);
  CHECK(contains(twice.err, "`second` is already the id of processes[1]"));
  auto wrong = box.pup({"append", "--id", "x", "--", "no-such-program"});
  CHECK(wrong.code == 2);
  CHECK(contains(wrong.err, "`no-such-program` cannot be run: not found"));
  auto none = box.pup({"remove", "secnod"});
  CHECK(none.code == 2);
  CHECK(contains(none.err, "did you mean `second`?"));
  CHECK(box.read("pup.json") == before);

  auto started = box.pup({"start", "pup.json"});
  CHECK(started.code == 0);
  CHECK(contains(started.out, "second"));
  CHECK(box.pup({"remove", "first"}).code == 0);
  CHECK(contains(box.read("pup.json"), "// Another one"));
  CHECK_FALSE(contains(box.read("pup.json"), "\"first\""));
}

SCENARIO("a file of another manager is imported") {
  sandbox box;
  box.write("ecosystem.json", R"({"apps": [{"name": "a b", "script": "sleep",
    "args": "1000", "namespace": "x"}]})");
  auto shown = box.pup({"import", "ecosystem.json"});
  CHECK(shown.code == 0);
  CHECK(contains(shown.out, R"("id": "a-b")"));
  CHECK(contains(shown.err, "apps[0].namespace: has no counterpart in pup"));
  auto written = box.pup({"import", "ecosystem.json", "-o", "pup.json"});
  CHECK(written.code == 0);
  CHECK(written.out.empty());
  CHECK(box.read("pup.json") == shown.out);
  CHECK(box.pup({"validate", "pup.json"}).code == 0);
  CHECK(box.pup({"import", "ecosystem.json", "-o", "pup.json"}).err
        == "pup.json: exists already; name another file\n");
  box.write("ecosystem.config.js", "module.exports = {}");
  auto program = box.pup({"import", "ecosystem.config.js"});
  CHECK(program.code == 2);
  CHECK(contains(program.err, "-- ecosystem.config.js > ecosystem.json"));
}

SCENARIO("an import looks at the scripts and files that a file names") {
  sandbox box;
  std::filesystem::create_directories(box.path("conf.d"));
  std::filesystem::create_directories(box.path("bin"));
  box.write("bin/www", "#!/usr/bin/env node\n");
  std::filesystem::copy_file("/bin/true", box.path("bin/server"));
  box.write("ecosystem.json", R"([{"script": "bin/www"},
                                  {"script": "server", "cwd": "bin"},
                                  {"script": "bin/none"}])");
  auto pm2 = box.pup({"import", "ecosystem.json"});
  CHECK(contains(pm2.out, R"("cmd": ["node", "bin/www"])"));
  CHECK(contains(pm2.out, R"("cmd": ["./server"])"));
  CHECK(contains(pm2.err, "apps[2].script: `bin/none` is not there"));
  CHECK_FALSE(contains(pm2.err, "apps[0].script"));

  box.write("conf.d/b.conf", "[program:b]\ncommand=%(here)s/b\n");
  box.write("conf.d/a.conf", "[program:a]\ncommand=sleep 1\n");
  std::filesystem::create_directories(box.path("conf.d/c.conf"));
  box.write("main.conf",
            "[supervisord]\n[include]\nfiles = conf.d/*.conf "
            "%(here)s/more/*.ini\n");
  auto supervisord = box.pup({"import", "main.conf"});
  CHECK(supervisord.code == 0);
  CHECK(contains(supervisord.out, R"("id": "a")"));
  CHECK(contains(supervisord.out, "/conf.d/b\"]"));
  CHECK(contains(supervisord.err, "/more/*.ini"));
  box.write("conf.d/d.conf", "nonsense\n");
  auto broken = box.pup({"import", "main.conf"});
  CHECK(broken.code == 2);
  CHECK(contains(broken.err, "/conf.d/d.conf:1: `nonsense` stands before"));

  auto elsewhere = box.pup({"import", "ecosystem.json", "-o", "bin/pup.json"});
  CHECK(contains(elsewhere.err,
                 "bin/pup.json: relative paths in it start at its own"));
}

SCENARIO("a command runs without a configuration") {
  sandbox box;
  process running{
      box.command({"run", "--id", "nap", "--name", "n", "--env", "MARK=x y",
                   "--", "sh", "-c", "echo $MARK > mark; exec sleep 1000"})};
  REQUIRE(running.says("is up, pid "));
  CHECK(wait_until([&] {
    auto all = box.status({"--name", "n"});
    auto& unit = with_id(all.at("processes").as_array(), "nap");
    return unit.at("state").as_string() == "ready";
  }));
  CHECK(wait_until([&] { return box.read("mark") == "x y\n"; }));
  running.signal(SIGTERM);
  CHECK(running.wait().code == 0);
}

SCENARIO("a service manager hears when all is ready and when it ends") {
  sandbox box;
  notify_socket manager{box.path("notify")};
  box.env["NOTIFY_SOCKET"] = box.path("notify");
  box.env["WATCHDOG_USEC"] = "1000000";
  box.env["LISTEN_FDS"] = "1";
  box.write("pup.json", R"({"processes": [
    {"id": "a", "cmd": "env > env.txt; exec sleep 1000"},
    {"id": "b", "cmd": "exit 3", "restart": "never"}]})");
  process running{box.command({"run"})};
  CHECK(manager.receive().starts_with("READY=1\nSTATUS=2 started"));
  // It is ready before its shell has said anything.
  CHECK(wait_until([&] { return contains(box.read("env.txt"), "PUP_ID=a"); }));
  running.signal(SIGTERM);
  CHECK(manager.receive() == "STOPPING=1");
  CHECK(running.wait().code == 0);
  auto inherited = box.read("env.txt");
  CHECK(contains(inherited, "PUP_ID=a"));
  for (auto name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"})
    CHECK_FALSE(contains(inherited, name));
}

namespace {

/// Listens as systemd would for a ListenStream= of this port.
pup::unique_fd listening_socket(std::uint16_t port) {
  pup::unique_fd result{::socket(AF_INET6, SOCK_STREAM, 0)};
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  const int on = 1;
  ::setsockopt(result.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  REQUIRE(::bind(result.get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof address)
          == 0);
  REQUIRE(::listen(result.get(), SOMAXCONN) == 0);
  return result;
}

/// Descriptor 3 is the one it listens with.
command_line given(command_line what, const pup::unique_fd& socket) {
  std::vector<std::string> argv{
      "/bin/bash", "-c",
      R"(exec 3<&"$0"; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@")",
      std::to_string(socket.get())};
  argv.insert(argv.end(), what.argv.begin(), what.argv.end());
  what.argv = std::move(argv);
  return what;
}

}  // namespace

SCENARIO("who comes to a socket of the service manager is never refused") {
  const port_range ports{5};
  const auto socket = listening_socket(ports[0]);
  sandbox box;
  box.write("pup.json", config({web(ports, 2)}));
  for (const bool guarded : {true, false}) {
    if (!guarded) {
      box.install_pup();
      fs::remove(box.path("bin/pup-guardian"));
    }
    std::optional<connection> early{endpoint{ports[0], "127.0.0.1", {}}};
    early->ask("/");
    auto command = box.command({"run"});
    command.argv.front() = box.pup_program;
    process pup{given(std::move(command), socket)};
    CHECK(early->answer().status == 200);
    early.reset();
    const auto balancer = box.unit("web").at("balancer").as_object();
    CHECK(balancer.at("port") == ports[0]);
    CHECK(box.pup({"scale", "web", "1"}).code == 0);
    CHECK(who(ports[0]) == "web-1");
    if (guarded) {
      REQUIRE(::kill(box.status().at("pid").to_number<pid_t>(), SIGKILL) == 0);
      CHECK(who(ports[0]) == "web-1");
      CHECK(wait_until([&] { return box.pup({"status"}).code == 0; }));
    }
    // Another strategy keeps it.
    auto changed = config({web(ports, 1, R"("strategy": "random")")});
    box.write("pup.json", changed);
    CHECK(box.pup({"apply", "pup.json"}).code == 0);
    CHECK(who(ports[0]) == "web-1");
    CHECK(box.pup({"terminate"}).code == 0);
    CHECK(pup.wait().code == 0);
    box.write("pup.json", config({web(ports, 2)}));
  }
  // It still listens.
  CHECK_NOTHROW(connection{endpoint{ports[0], "127.0.0.1", {}}});
}

SCENARIO("a unit that systemd accepts") {
  sandbox box;
  box.write("a folder/50%/pup.json", R"({"name": "shop", "processes": [
    {"id": "a", "cmd": ["sleep", "1000"]}]})");
  CHECK(contains(box.pup({"enable-service", "a folder/50%/pup.json", "--socket",
                          "--dry-run"})
                     .err,
                 "no cluster"));
  box.write("a folder/50%/pup.json", R"({"name": "shop", "processes": [
    {"id": "a", "cmd": ["sleep", "1000"], "cluster":
      {"instances": 1, "startPort": 8000, "commonPort": 80}},
    {"id": "b", "cmd": ["sleep", "1000"], "cluster": {"instances": 1,
      "startPort": 8001, "commonPort": 443, "commonHost": "::1"}},
    {"id": "c", "cmd": ["sleep", "1000"], "cluster": {"instances": 1,
      "startPort": 8002, "commonPort": 81, "commonHost": "127.0.0.1"}},
    {"id": "d", "cmd": ["sleep", "1000"], "cluster": {"instances": 1,
      "commonPort": 82, "mode": "inherit"}}]})");
  auto shown = box.pup({"enable-service", "a folder/50%/pup.json", "--system",
                        "--dry-run", "--user", "root", "--socket"});
  const auto second =
      shown.out.find("\n# /etc/systemd/system/pup-shop.socket\n");
  REQUIRE(second != std::string::npos);
  CHECK(contains(shown.out.substr(second),
                 "[Socket]\nListenStream=80\nListenStream=[::1]:443\n"
                 "ListenStream=127.0.0.1:81\n\n[Install]\n"
                 "WantedBy=sockets.target\n"));
  CHECK(shown.err.empty());
  CHECK(shown.code == 0);
  CHECK(shown.out.starts_with("# /etc/systemd/system/pup-shop.service\n"));
  CHECK(contains(shown.out, "Type=notify\n"));
  CHECK(contains(shown.out, "/a folder/50%%/pup.json\""));
  CHECK(contains(shown.out, "User=root\nRuntimeDirectory=pup/shop\n"));
  CHECK(contains(shown.out, "StateDirectory=pup/shop\n"));
  CHECK(contains(shown.out, "WantedBy=multi-user.target\n"));
  if (!exists("systemd-analyze"))
    return;
  auto unit = box.write("pup-shop.service", shown.out.substr(0, second));
  auto socket = box.write("pup-shop.socket", shown.out.substr(second));
  auto verify =
      box.program({"systemd-analyze", "verify", "--man=no", unit, socket});
  verify.env["PATH"] = std::getenv("PATH");
  auto verified = run(verify);
  CHECK(verified.code == 0);
  CHECK(verified.err == "");
}

SCENARIO("no name of a folder, user or supervisor becomes a setting") {
  sandbox box;
  const std::string processes =
      R"("processes": [{"id": "a", "cmd": ["/bin/sleep", "1000"]}]})";
  const auto refused = [&](std::vector<std::string> words,
                           const std::string& said) {
    words.insert(words.begin() + 1, {"--dry-run", "--system"});
    const auto answer = box.pup(words);
    CHECK(answer.code == 2);
    CHECK(answer.out == "");
    CHECK(contains(answer.err, said));
    CHECK(std::count(answer.err.begin(), answer.err.end(), '\n') == 1);
  };
  for (const auto& folder :
       {"a\nExecStartPre=\"rm\" #", "a\rb", "a\x1b[31m", "a\tb", "a\x7f"}) {
    const auto file = folder + std::string{"/pup.json"};
    box.write(file, "{" + processes);
    refused({"enable-service", file}, "holds a control character");
  }
  for (const auto& folder : {"blank ", "backslash\\"}) {
    const auto file = folder + std::string{"/pup.json"};
    box.write(file, "{" + processes);
    refused({"enable-service", file}, "ends with a blank or a backslash");
  }
  box.write("latin \xE9/pup.json", "{" + processes);
  refused({"enable-service", "latin \xE9/pup.json"}, "is not UTF-8");
  box.write("pup.json", "{" + processes);
  for (const auto& name : {"a\nb", "../../x", "a b", "%i", ".."}) {
    refused({"enable-service", "--name", name}, "names no supervisor");
    refused({"disable-service", "--name", name}, "names no supervisor");
  }
  for (const auto& user :
       {"www\nExecStartPre=/bin/id", "a b", "%u", "-x", "\\"})
    refused({"enable-service", "--user", user}, "is no name of a user");
  box.env["PATH"] = "/bin\nExecStartPre=/bin/id";
  refused({"enable-service"}, "PATH: holds a control character");

  // What systemd can spell means what it meant.
  box.env["PATH"] = "/usr/bin:/bin:/odd 100%i $HOME \"x\" \\n";
  box.install_pup();
  const auto bin = box.path("p$HOME 5%n");
  std::filesystem::rename(box.path("bin"), bin);
  const auto folder = "o'dd %i $HOME \"x\" \\n ;gr\xC3\xBC\xC3\x9F";
  box.write(folder + std::string{"/pup.json"},
            R"({"name": "a@", )" + processes);
  auto enable =
      box.command({"enable-service", folder + std::string{"/pup.json"},
                   "--system", "--dry-run"});
  enable.argv[0] = bin + "/pup";
  const auto shown = run(enable);
  CHECK(shown.err == "");
  REQUIRE(shown.code == 0);
  CHECK(shown.out.starts_with(
      "# /etc/systemd/system/pup-a\\x40.service\n[Unit]\n"));
  CHECK(contains(shown.out, R"(/o'dd %%i $$HOME \"x\" \\n ;)"));
  CHECK(contains(shown.out, R"(WorkingDirectory=)" + box.path()
                                + R"(/o'dd %%i $HOME "x" \n ;)"));
  if (!exists("systemd-analyze"))
    return;
  // It looks whether the program is there, too.
  const auto unit = box.write("pup-a\\x40.service", shown.out);
  auto verify = box.program({"systemd-analyze", "verify", "--man=no", unit});
  verify.env["PATH"] = std::getenv("PATH");
  const auto verified = run(verify);
  CHECK(verified.err == "");
  CHECK(verified.code == 0);
}

SCENARIO("a service is put in place, and taken back when that fails") {
  sandbox box;
  box.write("pup.json",
            R"({"processes": [{"id": "a", "cmd": ["/bin/sleep", "1000"]}]})");
  // Plays systemctl: writes down what it is told; fails where a file says so.
  auto fake = box.write("bin/systemctl",
                        "#!/bin/sh\necho \"$@\" >> \"$CALLS\"\n"
                        "case \"$*\" in *enable*) ! [ -e \"$CALLS.fail\" ] ;; "
                        "esac\n");
  ::chmod(fake.c_str(), 0755);
  box.env["PATH"] = box.path("bin") + ":/usr/bin:/bin";
  box.env["CALLS"] = box.path("calls");
  box.env["XDG_CONFIG_HOME"] = box.path("xdg");
  box.write("calls.fail", "");
  auto failed = box.pup({"enable-service"});
  CHECK(failed.code == 1);
  CHECK(contains(failed.err,
                 "systemctl enable --now pup.service: failed; see above"));
  CHECK(::access(box.path("xdg/systemd/user/pup.service").c_str(), F_OK) != 0);
  CHECK(box.read("calls")
        == "--user daemon-reload\n--user enable --now pup.service\n"
           "--user disable --now pup.service\n--user daemon-reload\n");
  ::unlink(box.path("calls.fail").c_str());
  ::unlink(box.path("calls").c_str());

  auto done = box.pup({"enable-service"});
  CHECK(done.code == 0);
  CHECK(contains(done.out, "pup.service: enabled and started\n"));
  CHECK(contains(box.read("xdg/systemd/user/pup.service"),
                 "WantedBy=default.target"));
  CHECK(contains(box.pup({"enable-service"}).err, "exists already"));
  auto undone = box.pup({"disable-service"});
  CHECK(undone.code == 0);
  CHECK(::access(box.path("xdg/systemd/user/pup.service").c_str(), F_OK) != 0);
  CHECK(contains(box.pup({"disable-service"}).err, "is not there"));

  // With a socket.
  box.write("pup.json", R"({"processes": [{"id": "a", "cmd": ["/bin/true"],
    "cluster": {"instances": 0, "startPort": 8000, "commonPort": 8080}}]})");
  ::unlink(box.path("calls").c_str());
  CHECK(box.pup({"enable-service", "--socket"}).code == 0);
  CHECK(
      contains(box.read("xdg/systemd/user/pup.socket"), "ListenStream=8080\n"));
  CHECK(box.pup({"disable-service"}).code == 0);
  CHECK(box.read("calls")
        == "--user daemon-reload\n"
           "--user enable --now pup.socket pup.service\n"
           "--user disable --now pup.socket pup.service\n"
           "--user daemon-reload\n");
  CHECK(fs::is_empty(box.path("xdg/systemd/user")));
}

SCENARIO("a service is called as its supervisor, by its file") {
  sandbox box;
  for (const auto* name : {"shop/pup.json", "old/pup.json"})
    box.write(name,
              R"({"processes": [{"id": "a", "cmd": ["/bin/sleep", "1000"]}]})");
  fs::create_symlink("shop", box.path("current"));
  auto fake = box.write("bin/systemctl", "#!/bin/sh\nexit 0\n");
  ::chmod(fake.c_str(), 0755);
  box.env["PATH"] = box.path("bin") + ":/usr/bin:/bin";
  box.env["XDG_CONFIG_HOME"] = box.path("xdg");
  const auto in = [&](const std::string& folder,
                      std::vector<std::string> arguments) {
    auto line = box.command(std::move(arguments));
    line.cwd = box.path(folder);
    return run(line);
  };
  const auto units = box.path("xdg/systemd/user/");
  CHECK(in("shop", {"enable-service"}).code == 0);
  CHECK(fs::exists(units + "pup-shop.service"));
  CHECK(in("shop", {"disable-service"}).code == 0);
  CHECK(fs::is_empty(units));

  // Links stay as they are written.
  CHECK(in("", {"enable-service", "current/pup.json"}).code == 0);
  CHECK(contains(box.read("xdg/systemd/user/pup-current.service"),
                 "WorkingDirectory=" + box.path("current") + '\n'));
  CHECK(in("", {"disable-service", "--config", "current/pup.json"}).code == 0);
  CHECK(fs::is_empty(units));

  // One that was enabled under the former default name keeps it.
  CHECK(in("old", {"enable-service", "--name", "pup"}).code == 0);
  CHECK(contains(in("old", {"enable-service"}).err, "exists already"));
  CHECK(in("shop", {"enable-service"}).code == 0);
  CHECK(in("old", {"disable-service"}).code == 0);
  CHECK_FALSE(fs::exists(units + "pup.service"));
  CHECK(fs::exists(units + "pup-shop.service"));
}

SCENARIO("the shells accept the completion scripts") {
  sandbox box;
  auto completed = [&](const std::string& line) {
    std::string words = line;
    auto script = "source bash.txt; COMP_WORDS=(" + words
                  + "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _pup; echo "
                    "\"${COMPREPLY[@]}\"";
    auto result = run(box.program({"bash", "-c", script}));
    CHECK(result.err == "");
    return result.out;
  };
  box.write("bash.txt", box.pup({"completion", "bash"}).out);
  CHECK(completed("pup st") == "start status stop\n");
  CHECK(completed("pup --name x en") == "enable-service\n");
  CHECK(completed("pup enable-service --sy") == "--system\n");
  CHECK(completed("pup validate ba") == "bash.txt\n");
  CHECK(completed("pup completion z") == "zsh\n");
  CHECK(box.pup({"completion", "tcsh"}).code == 2);
  // Who answers may be anybody; bash expands the words it offers.
  box.env["PATH"] = box.path("fake") + ":/usr/bin:/bin";
  ::chmod(box.write("fake/pup",
                    "#!/bin/sh\necho '{\"id\":\"web-1\","
                    "\"id\":\"$(touch bad)\",\"id\":\"`touch "
                    "bad`\"}'\n")
              .c_str(),
          0755);
  CHECK(completed("pup why we") == "web-1\n");
  CHECK(::access(box.path("bad").c_str(), F_OK) != 0);
  for (auto shell : {"zsh", "fish"}) {
    if (!exists(shell))
      continue;
    box.write(shell, box.pup({"completion", shell}).out);
    auto parsed = run(box.program({shell, "-n", box.path(shell)}));
    CHECK(parsed.err == "");
    CHECK(parsed.code == 0);
  }
}

SCENARIO("hooks, readiness, blocking and signals with real processes") {
  sandbox box;
  box.write("pup.json", R"({"processes": [
    {"id": "a",
     "cmd": "trap 'echo hup >> said' HUP; echo up >&$READY_FD; while :; do sleep 0.05; done",
     "ready": {"type": "fd"},
     "hooks": {"preStart": "echo pre-start >> said",
               "postStart": ["sh", "-c", "echo post-start $PUP_ID >> said"],
               "preStop": {"cmd": "echo pre-stop >> said", "timeoutMs": 60000},
               "postStop": "echo post-stop $PUP_EXIT_SIGNAL >> said"}},
    {"id": "b", "cmd": "test -e good || sleep 1000; exec sleep 1000",
     "ready": {"type": "exec", "cmd": "test -e good"}, "readyTimeoutMs": 80000},
    {"id": "job", "cmd": "echo run >> jobs", "cron": "* * * * * *"}]})");
  auto started = box.pup({"start", "--no-wait", "pup.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
  const auto state = [&](const std::string& id) {
    return std::string{box.unit(id).at("state").as_string()};
  };
  CHECK(wait_until([&] { return state("a") == "ready"; }));
  CHECK(state("b") == "starting");
  box.write("good", "");
  CHECK(wait_until([&] { return state("b") == "ready"; }));
  CHECK(box.read("said") == "pre-start\npost-start a\n");
  // Twice by the clock, and no more once it is blocked.
  CHECK(wait_until([&] { return box.read("jobs").size() >= 8; }));

  auto sent = box.pup({"signal", "a", "HUP"});
  CHECK(sent.code == 0);
  CHECK(wait_until([&] { return contains(box.read("said"), "hup"); }));
  auto nobody = box.pup({"signal", "x", "HUP"});
  CHECK(nobody.code == 1);
  CHECK(box.pup({"signal", "a", "NOSUCH"}).err
        == "'NOSUCH' is no signal; use a name such as HUP or SIGUSR1, or a "
           "number\n");

  CHECK(box.pup({"block", "a"}).out
        == "a: blocked; the process that runs goes on\n");
  auto refused = box.pup({"restart", "a"});
  CHECK(refused.code == 1);
  CHECK(refused.err == "a: is blocked; pup unblock a\n");
  CHECK(box.pup({"stop", "a"}).code == 0);
  CHECK(box.read("said")
        == "pre-start\npost-start a\nhup\npre-stop\npost-stop 15\n");
  CHECK(box.pup({"unblock", "a"}).code == 0);
  CHECK(box.pup({"start", "a"}).code == 0);
  CHECK(state("a") == "ready");
}

SCENARIO("a process that its watchdog no longer hears is restarted") {
  sandbox box;
  box.env["PATH"] = "/usr/bin:/bin";
  box.write("dog.py", R"(import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('\0' + os.environ['NOTIFY_SOCKET'][1:])
s.send(b'READY=1')
for i in range(3):
  s.send(b'WATCHDOG=1')
  time.sleep(0.1)
open('silent', 'a').write('x')
time.sleep(1000)
)");
  box.write("pup.json", R"({"processes": [{"id": "dog", "cmd": ["python3",
    "dog.py"], "notify": true, "watchdogMs": 3000, "terminateTimeout": 1}]})");
  auto started = box.pup({"start", "pup.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
  CHECK(wait_until([&] { return box.read("silent") == "xx"; }));
  CHECK(box.unit("dog").at("restarts").to_number<int>() >= 1);
}
