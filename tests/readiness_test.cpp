// When real processes count as ready, and what they say of themselves.
#include "catch.hpp"

#define BOOST_ASIO_NO_DEPRECATED
#include "pup/runtime/children.hpp"
#include "pup/runtime/ports.hpp"
#include "pup/runtime/process.hpp"

#include <boost/asio/io_context.hpp>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include <sys/wait.h>
#include <unistd.h>

using namespace pup;
using namespace std::chrono_literals;

namespace {

// Long enough for a loaded machine with sanitizers; reached only by a failure.
constexpr auto patience = 60s;

// A program for both ends of sd_notify; Python is on every machine that builds.
const std::string speak =
    "import os, socket, sys\n"
    "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
    "name = os.environ['NOTIFY_SOCKET']\n"
    "s.connect('\\0' + name[1:] if name[0] == '@' else name)\n";

struct world {
  world()
      : all(std::make_unique<children>(
          loop, std::vector<std::string>{"PATH=/usr/bin:/bin"}, events())) {}

  child_events events() {
    child_events result;
    result.launched = [this](auto&, auto, auto, auto&) { add("launched"); };
    result.failed = [this](auto&, auto, auto& fault) {
      add("failed: " + fault.text);
    };
    result.ready = [this](auto&, auto, auto& address) {
      add("ready " + address);
    };
    result.exited = [this](auto&, auto, auto& end) {
      add("exited " + std::to_string(end.status.code));
    };
    result.said = [this](auto&, auto, const self_report& x) {
      add(std::string{"said"} + (x.ready ? " ready" : "")
          + (x.alive ? " alive" : "") + (x.stopping ? " stopping" : "")
          + (x.trouble ? " trouble" : "")
          + (x.status.empty() ? "" : ": " + x.status)
          + (x.answer.empty() ? "" : " nothing, but " + x.answer));
    };
    return result;
  }

  void add(std::string what) {
    story.push_back(std::move(what));
  }

  bool has(const std::string& what) const {
    return std::find(story.begin(), story.end(), what) != story.end();
  }

  void await(const std::string& what) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!has(what)) {
      REQUIRE(std::chrono::steady_clock::now() < deadline);
      loop.restart();
      loop.run_one_for(100ms);
    }
  }

  void launch(std::vector<std::string> argv, ready_condition what,
              std::uint16_t port = 0, const std::string& path = "/") {
    launch_request request;
    request.argv = std::move(argv);
    request.ready = what;
    request.port = port;
    request.ready_path = path;
    request.watchdog = watchdog;
    all->launch("a", 1, std::move(request));
  }

  boost::asio::io_context loop;
  std::vector<std::string> story;
  std::chrono::milliseconds watchdog{0};
  std::unique_ptr<children> all;
};

using texts = std::vector<std::string>;

std::uint16_t free_port() {
  for (auto port = 30'000 + ::getpid() % 2'000; port < 32'700; ++port)
    if (!port_obstacle(static_cast<std::uint16_t>(port)))
      return static_cast<std::uint16_t>(port);
  FAIL("no free port");
  return 0;
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] auto& entry :
       std::filesystem::directory_iterator{"/proc/self/fd"})
    ++count;
  return count;
}

}  // namespace

TEST_CASE("messages of sd_notify are understood") {
  auto x = read_self_report("READY=1\nSTATUS=two words\nWATCHDOG=1\n");
  CHECK((x.ready && x.alive && !x.stopping && !x.trouble));
  CHECK(x.status == "two words");
  x = read_self_report("STOPPING=1\nWATCHDOG=trigger");
  CHECK((x.stopping && x.trouble && !x.ready && !x.alive));
  x = read_self_report("READY=10\nREADY\n\nMAINPID=5\nSTATUS=a\x1b[31m\tb");
  CHECK_FALSE(x.ready);
  CHECK(x.status == "a [31m b");
  CHECK(read_self_report("STATUS=" + std::string(10'000, 'x')).status.size()
        == 256);
  CHECK(read_self_report("").status.empty());
}

TEST_CASE("notify: a process is ready when it says so") {
  world w;
  w.launch({"python3", "-c",
            speak
                + "s.send(b'STATUS=warming up')\n"
                  "s.send(b'READY=1\\nSTATUS=serving')\n"
                  "sys.stdin.read()\nimport time; time.sleep(1000)"},
           ready_condition::notify);
  w.await("ready ");
  CHECK(w.story
        == texts{"launched", "said: warming up", "said ready: serving",
                 "ready "});
}

TEST_CASE("notify: one that ends without a word was never ready") {
  world w;
  w.launch({"sh", "-c", "test -n \"$NOTIFY_SOCKET\""}, ready_condition::notify);
  w.await("exited 0");
  CHECK(w.story == texts{"launched", "exited 0"});
}

TEST_CASE("notify: a grandchild may speak, a stranger may not") {
  world w;
  w.launch({"sh", "-c", "python3 -c \"$0\"; exec sleep 1000",
            speak + "s.send(b'READY=1')"},
           ready_condition::notify);
  w.await("ready ");
  CHECK(w.has("said ready"));

  // The socket's name is in the process's environment.
  world other;
  other.launch({"sleep", "1000"}, ready_condition::notify);
  other.await("launched");
  // A child of this program, outside of the group and session.
  pid_t sleeper = 0;
  for (auto& entry : std::filesystem::directory_iterator{"/proc"}) {
    const auto name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos)
      continue;
    std::FILE* file = std::fopen((entry.path() / "environ").c_str(), "r");
    if (file == nullptr)
      continue;
    std::string text(65'536, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), file));
    std::fclose(file);
    const auto at = text.find("NOTIFY_SOCKET=@");
    const auto pid = static_cast<pid_t>(std::stol(name));
    if (at == std::string::npos || ::getpgid(pid) != pid)
      continue;
    std::string socket = text.substr(at + 14);
    socket = socket.substr(0, socket.find('\0'));
    spawn_request stranger;
    stranger.argv = {"python3", "-c", speak + "s.send(b'READY=1')"};
    stranger.environment = {"PATH=/usr/bin:/bin", "NOTIFY_SOCKET=" + socket};
    auto begun = spawn(stranger);
    REQUIRE(std::holds_alternative<child>(begun));
    sleeper = pid;
    // Its message is there before it has ended; it is kept as a zombie.
    siginfo_t info{};
    REQUIRE(::waitid(P_PID, static_cast<id_t>(std::get<child>(begun).pid),
                     &info, WEXITED | WNOWAIT)
            == 0);
    other.loop.restart();
    other.loop.run_for(50ms);
    ::waitid(P_PID, static_cast<id_t>(std::get<child>(begun).pid), &info,
             WEXITED);
  }
  CHECK(sleeper != 0);
  CHECK(other.story == texts{"launched"});
}

TEST_CASE("notify: descriptors that come with a message are closed") {
  world w;
  w.launch({"python3", "-c",
            speak
                + "import array\n"
                  "for i in range(20):\n"
                  "  s.sendmsg([b'FDSTORE=1'], [(socket.SOL_SOCKET, "
                  "socket.SCM_RIGHTS, array.array('i', [0, 1, 2]))])\n"
                  "s.send(b'READY=1')\nimport time; time.sleep(1000)"},
           ready_condition::notify);
  w.await("launched");
  const auto before = open_descriptors();
  w.await("ready ");
  CHECK(open_descriptors() == before);
}

TEST_CASE("watchdog: signs of life are told, the period is known") {
  world w;
  w.watchdog = 1500ms;
  w.launch({"python3", "-c",
            speak
                + "assert os.environ['WATCHDOG_USEC'] == '1500000'\n"
                  "s.send(b'WATCHDOG=1')\nimport time; time.sleep(1000)"},
           ready_condition::spawn);
  w.await("said alive");
  CHECK(w.story == texts{"launched", "ready ", "said alive"});
}

TEST_CASE("fd: a newline means ready, its absence does not") {
  {
    world w;
    w.launch({"sh", "-c", "echo up >&$READY_FD; exec sleep 1000"},
             ready_condition::fd);
    w.await("ready ");
    CHECK(w.story == texts{"launched", "ready "});
  }
  world w;
  w.launch({"sh", "-c",
            "test \"$READY_FD\" = 3 && printf up >&3; exec 3>&-; "
            "exit 7"},
           ready_condition::fd);
  w.await("exited 7");
  CHECK(w.story == texts{"launched", "exited 7"});
}

TEST_CASE("http: a good answer means ready, another one does not") {
  const auto port = free_port();
  const auto text = std::to_string(port);
  world w;
  w.launch({"python3", "-c",
            "import http.server, os\n"
            "class h(http.server.BaseHTTPRequestHandler):\n"
            "  n = 0\n"
            "  def do_GET(self):\n"
            "    h.n += 1\n"
            "    good = self.path == '/up' and h.n > 3\n"
            "    self.send_response(204 if good else 503)\n"
            "    self.end_headers()\n"
            "  def log_message(self, *a): pass\n"
            "http.server.HTTPServer(('127.0.0.1', "
                + text + "), h).serve_forever()"},
           ready_condition::http, port, "/up");
  w.await("ready 127.0.0.1");
  // What it answers instead is told once, as long as it stays the same.
  CHECK(w.story
        == texts{"launched",
                 "said nothing, but /up: answered 503 Service Unavailable",
                 "ready 127.0.0.1"});
}
