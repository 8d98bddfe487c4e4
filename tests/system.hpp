// What the system tests stand on: a world of their own for each test case, the
// pup program run in it as a user would run it, and a client for what it
// serves.
//
//   sandbox box;
//   port_range ports{5};
//   box.write("config.json", cluster(ports, 4));
//   auto started = box.pup({"start", "config.json"});
//   CHECK(started.code == 0);
//   CHECK(get(ports[0]).status == 200);
//   box.end();                        // nothing it started is left running
//
// Expected trouble of the system under test is a value; trouble of the harness
// itself (no port free, fork fails, a deadline passed) throws std::exception,
// which fails the test case. Time: deadlines only, never a fixed sleep.
#pragma once

#include "pup/runtime/fd.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace pup::test {

/// Only a hanging test ever waits this long; sanitizers and a loaded machine
/// slow everything by an order of magnitude.
inline constexpr std::chrono::seconds patience{90};

// -- waiting ------------------------------------------------------------------

/// Whether `condition` became true in time. For facts that have no event to
/// wait for: asks again every few milliseconds.
bool wait_until(const std::function<bool()>& condition,
                std::chrono::milliseconds limit = patience);

/// Waits for the end of any process, a child or not. False: still alive.
bool wait_for_end(pid_t pid, std::chrono::milliseconds limit = patience);

/// Whether the process exists and is no zombie.
bool alive(pid_t pid);

/// The one there is; a failure where there are none or more.
pid_t only(const std::set<pid_t>& pids);

/// SIGSTOP, and waits until the last of its threads has stopped.
void freeze(pid_t pid);

// -- running programs ---------------------------------------------------------

struct command_line {
  std::vector<std::string> argv;
  /// The whole environment, except what sanitizers read, which is passed on.
  std::map<std::string, std::string> env;
  std::string cwd = "/";
  /// Keep the write end of standard input (see process::close_input); else it
  /// is /dev/null.
  bool input = false;
  /// Run as this user and group; needs root.
  std::optional<uid_t> user;
  /// Standard input, output and error are a terminal; all output is in `out`.
  bool terminal = false;
};

struct finished {
  int code = -1;   ///< exit code; -1 when it ended by a signal
  int signal = 0;  ///< that ended it
  std::string out;
  std::string err;
  std::chrono::milliseconds wall{};
};

/// A program that runs beside the test, in a process group of its own. The
/// destructor kills the group and reaps it.
class process {
public:
  explicit process(const command_line& what);
  process(process&&) noexcept;
  process& operator=(process&&) = delete;
  ~process();

  [[nodiscard]] pid_t pid() const noexcept {
    return pid_;
  }
  void signal(int number) const;
  void close_input() {
    input_.reset();
  }
  void write_input(std::string_view text) const;

  /// Until its output (both streams) contains `text`. False: it ended or fell
  /// silent before.
  bool says(std::string_view text, std::chrono::milliseconds limit = patience);

  /// Until it has ended and its output is closed. Throws when that takes longer
  /// or when something it started still holds its output.
  finished wait(std::chrono::milliseconds limit = patience);

private:
  /// Reads what is there. False when both streams have ended.
  bool pump(std::chrono::steady_clock::time_point deadline);

  pid_t pid_ = 0;
  unique_fd pidfd_;
  unique_fd input_;
  unique_fd out_;
  unique_fd err_;
  finished result_;
  std::chrono::steady_clock::time_point begun_;
};

finished run(const command_line& what,
             std::chrono::milliseconds limit = patience);

// -- ports --------------------------------------------------------------------

/// Consecutive free TCP ports below the ephemeral range. Nobody else who uses
/// this class gets them before it is destroyed, in this process or another:
/// each port is a byte of a file, locked as long as the object lives.
class port_range {
public:
  explicit port_range(std::uint16_t count);

  [[nodiscard]] std::uint16_t operator[](std::uint16_t i) const;
  [[nodiscard]] std::uint16_t size() const noexcept {
    return count_;
  }

private:
  std::uint16_t first_ = 0;
  std::uint16_t count_ = 0;
  unique_fd lock_;
};

/// Whether nobody listens there, on any address.
bool port_is_free(std::uint16_t port);

// -- a client -----------------------------------------------------------------

struct response {
  int status = 0;  ///< 0: the connection ended before an answer
  std::string head;
  std::string body;
};

struct endpoint {
  std::uint16_t port = 0;
  std::string host = "127.0.0.1";
  /// Address to connect from; empty: any.
  std::string source;
};

/// A TCP connection that speaks a little HTTP/1.1. Blocks up to `limit` for
/// each operation.
class connection {
public:
  /// Throws std::system_error when it is refused.
  explicit connection(const endpoint& to,
                      std::chrono::milliseconds limit = patience);

  void send(std::string_view bytes);
  /// Some bytes; empty: the other side closed. Throws on reset and time-out.
  std::string receive();
  /// GET with keep-alive.
  response get(const std::string& path = "/");
  /// The two halves of get().
  void ask(const std::string& path);
  response answer();
  void shutdown_send();
  [[nodiscard]] int fd() const noexcept {
    return fd_.get();
  }

private:
  unique_fd fd_;
  std::string rest_;
};

/// One request on a connection of its own.
response get(const endpoint& to, const std::string& path = "/",
             std::chrono::milliseconds limit = patience);
response get(std::uint16_t port, const std::string& path = "/");

/// The first word of the answer of examples/http_server to "/": its PUP_ID.
std::string who(const endpoint& to);
std::string who(std::uint16_t port);

// -- JSON ---------------------------------------------------------------------

/// Throws where it is none.
boost::json::value parse_json(std::string_view text);

/// The element of an array of objects whose "id" is `id`; throws without one.
const boost::json::object& with_id(const boost::json::array& all,
                                   std::string_view id);

// -- a world ------------------------------------------------------------------

/// A temporary folder of the name "pup", so that its supervisor is called so,
/// with the runtime and state folders of pup in it, for one test case. Everything that is started through it carries a variable that
/// names it, so that nothing escapes the search for what is left running.
class sandbox {
public:
  sandbox();
  sandbox(const sandbox&) = delete;
  sandbox& operator=(const sandbox&) = delete;
  /// end(), as a CHECK, if that has not been done.
  ~sandbox();

  [[nodiscard]] std::string path(const std::string& name = {}) const;
  /// Makes the folders above it; returns path(name).
  std::string write(const std::string& name, const std::string& text) const;
  [[nodiscard]] std::string read(const std::string& name) const;

  /// What every program gets. Tests add to it before they start something.
  std::map<std::string, std::string> env;

  /// What the supervisors of this world are run by.
  std::string pup_program = PUP_PROGRAM;
  /// Makes that a fresh copy of pup, with its guardian, in this folder; it
  /// takes the place of a former one.
  void install_pup();

  /// The pup program that was built, with these arguments, in folder(), with
  /// env.
  [[nodiscard]] command_line command(std::vector<std::string> arguments) const;
  /// Any other program.
  [[nodiscard]] command_line program(std::vector<std::string> argv) const;
  finished pup(std::vector<std::string> arguments,
               std::chrono::milliseconds limit = patience) const;

  /// pup status --json [arguments]; throws when that fails.
  boost::json::object status(std::vector<std::string> arguments = {}) const;
  /// The unit `id` of status().
  boost::json::object unit(const std::string& id) const;

  /// Processes started from here that live, by pid; pup itself among them.
  [[nodiscard]] std::set<pid_t> running() const;
  /// Those of them that are supervisors.
  [[nodiscard]] std::set<pid_t> supervisors() const;
  /// Those of them that are supervisors' guardians.
  [[nodiscard]] std::set<pid_t> guardians() const;
  /// Both.
  [[nodiscard]] std::set<pid_t> pups() const;

  /// Ends the supervisors (SIGTERM; SIGKILL when that does not help), then
  /// kills what is left. What had to be killed: empty is the only good answer.
  std::string end();

  /// kill -9 of the supervisor and its guardian at once, so that neither can do
  /// anything about it; waits for their ends. What they ran goes on.
  void kill_pup() const;

  /// For tests that kill -9 a supervisor that cannot clean up any more.
  void may_leave_processes() noexcept {
    leftovers_allowed_ = true;
  }

private:
  std::filesystem::path folder_;
  bool ended_ = false;
  bool leftovers_allowed_ = false;
};

// -- configurations -----------------------------------------------------------

/// JSON of one process "web" that runs examples/http_server as a cluster: the
/// balancer on ports[0], instances from ports[1]. `cluster` and `process` are
/// further members, e.g. R"("strategy": "random")".
std::string web(const port_range& ports, int instances,
                const std::string& cluster = {},
                const std::string& process = {});
/// A configuration of these processes; `top` are further members.
std::string config(const std::vector<std::string>& processes,
                   const std::string& top = {});

}  // namespace pup::test
