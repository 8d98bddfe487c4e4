#include "pup/runtime/client.hpp"

#include "pup/config/paths.hpp"
#include "pup/config/plain_text.hpp"
#include "pup/runtime/descendants.hpp"
#include "pup/runtime/guarded.hpp"
#include "pup/runtime/ipc.hpp"
#include "pup/runtime/logs.hpp"
#include "pup/runtime/machine.hpp"
#include "pup/runtime/meant.hpp"
#include "pup/runtime/output.hpp"
#include "pup/runtime/pidfd.hpp"
#include "pup/runtime/place.hpp"
#include "pup/runtime/process.hpp"
#include "pup/runtime/shortage.hpp"
#include "pup/runtime/status_door.hpp"
#include "pup/runtime/text_file.hpp"
#include "pup/runtime/upgrade.hpp"
#include "pup/runtime/why.hpp"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pup {

namespace {

using std::chrono::milliseconds;

// An answer that needs no work comes within milliseconds, even from a busy
// machine; a supervisor that is stopped never answers.
constexpr milliseconds answer_timeout{5'000};

// Starting and stopping may take ready or drain time and SIGKILL time-outs: 30
// s each by default, and twice that for a restart.
constexpr milliseconds work_timeout{180'000};

/// Last line of a background supervisor that has come up, followed by its name.
constexpr std::string_view up_marker = "pup is up: ";

/// "1.5 s"
std::string in_seconds(milliseconds x) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%g s",
                static_cast<double>(x.count()) / 1'000);
  return text.data();
}

/// What the actor system of a command takes: a worker, the clock, the printer
/// and the multiplexer; and the thread that shows progress.
needs needs_of_command() {
  return {"this command", 5, 12, 4u << 20};
}

/// One for the whole command. Never taken down: its threads would be waited for
/// although the answer is there, see run_client(). Throws std::runtime_error
/// when there is not enough for it.
caf::actor_system& client_system() {
  static auto& config = *new caf::actor_system_config;
  static auto& result = []() -> caf::actor_system& {
    if (const auto short_of = find_shortage(needs_of_command());
        !short_of.empty())
      throw std::runtime_error{short_of};
    configure(config, ipc_role::client);
    add_message_types(config);
    return *new caf::actor_system{config};
  }();
  return result;
}

/// Tells somebody at a terminal what is waited for, when that takes over a
/// second: a line on standard error, which is gone with this.
class progress {
public:
  explicit progress(const control_actor& of) {
    if (::isatty(STDERR_FILENO) != 1)
      return;
    try {
      thread_ = std::thread{[this, of] { run(of); }};
    } catch (const std::system_error&) {
      // Without a thread for it nothing is shown.
    }
  }
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;
  ~progress() {
    if (!thread_.joinable())
      return;
    {
      const std::lock_guard guard{mutex_};
      done_ = true;
    }
    over_.notify_one();
    thread_.join();
    show({});
  }

private:
  void run(const control_actor& of) {
    std::unique_lock guard{mutex_};
    for (std::chrono::seconds passed{1};; ++passed) {
      if (over_.wait_for(guard, std::chrono::seconds{1},
                         [this] { return done_; }))
        return;
      guard.unlock();
      const auto now =
          call(client_system(), of, answer_timeout, get_status{std::string{}});
      guard.lock();
      if (now && !done_)
        show(render_progress(*now, passed));
    }
  }

  /// In place of what is shown.
  void show(std::string line) {
    const auto size = line.size();
    line.resize(std::max(size, shown_), ' ');
    if (!line.empty())
      std::fprintf(stderr, "\r%s%s", line.c_str(), size == 0 ? "\r" : "");
    shown_ = size;
  }

  std::mutex mutex_;
  std::condition_variable over_;
  bool done_ = false;
  std::size_t shown_ = 0;
  std::thread thread_;
};

class session {
public:
  /// `limit`: what the user allows for each answer.
  explicit session(std::optional<milliseconds> limit)
      : answer_(std::min(limit.value_or(answer_timeout), answer_timeout)),
        work_(limit.value_or(work_timeout)) {}

  /// Null after it has complained.
  control_actor connect_to(const running& x) {
    auto found = connect<control_actor>(client_system(), x.socket, answer_);
    if (found)
      return *found;
    error_ = text_of_error(found.error());
    return {};
  }

  /// What needs no work.
  template <class... Ts>
  auto ask(const control_actor& to, Ts... xs) {
    return call(client_system(), to, answer_, std::move(xs)...);
  }

  /// What ends when the work is done.
  template <class... Ts>
  auto order(const control_actor& to, Ts... xs) {
    const progress shown{to};
    return call(client_system(), to, work_, std::move(xs)...);
  }

  const std::string& error() const {
    return error_;
  }

  [[nodiscard]] milliseconds work_limit() const {
    return work_;
  }

  static std::string text_of_error(const caf::error& x) {
    auto text = ipc_text(x);
    return text.empty() ? text_of(x) : text;
  }

  /// Of an order: it was received, so it is carried out all the same.
  [[nodiscard]] std::string text_of_order_error(const caf::error& x) const {
    return ipc_code(x) == ipc_errc::timed_out
               ? "pup: not done after " + in_seconds(work_)
                     + ", but goes on; pup status shows how far it is"
               : text_of_error(x);
  }

private:
  milliseconds answer_;
  milliseconds work_;
  std::string error_;
};

using id_question = std::function<bool(const running&, const std::string&)>;

/// What a killed supervisor has left. None: nothing that is meant.
std::optional<exit_code> end_what_is_left(const command& what,
                                          const std::vector<left_place>& all) {
  if (what.kind != command_kind::terminate || all.size() != 1)
    return std::nullopt;
  if (const auto trouble = end_unwatched(
          all.front().where, [](const std::string& text) { complain(text); }))
    return complain(*trouble);
  return exit_code::done;
}

/// Finds the supervisor that is meant.
std::variant<running, exit_code> find_running(const command& what,
                                              const wanted_supervisor& wanted,
                                              const id_question& has_id) {
  const auto all = discover(process_environment());
  auto chosen = choose(all, wanted, has_id);
  if (auto* one = std::get_if<running>(&chosen))
    return std::move(*one);
  const auto why = why_not_one(chosen, what, wanted, all);
  if (why.code != exit_code::not_running)
    return complain(why.text, why.code);
  const auto left = find_unwatched(wanted, process_environment());
  if (const auto code = end_what_is_left(what, left))
    return *code;
  complain(why.text);
  tell_unwatched(left);
  return why.code;
}

/// The same, connected.
std::variant<control_actor, exit_code> reach(const command& what,
                                             const wanted_supervisor& wanted,
                                             session& with) {
  const auto has_id = [&](const running& x, const std::string& id) {
    const auto control = with.connect_to(x);
    return control && with.ask(control, get_status{id});
  };
  const auto found = find_running(what, wanted, has_id);
  if (const auto* code = std::get_if<exit_code>(&found))
    return *code;
  auto control = with.connect_to(std::get<running>(found));
  if (!control)
    return complain(with.error());
  return control;
}

/// The status of somebody else's supervisor, at its door for readers. Empty:
/// there is none, or it is not for us.
std::optional<exit_code> status_as_reader(const command& what) {
  const auto env = process_environment();
  const auto own = discover(env);
  const auto is_own = [&](const running& x) {
    return !what.name || x.name == *what.name;
  };
  if (what.of_config || std::any_of(own.begin(), own.end(), is_own))
    return std::nullopt;
  const auto wanted = wanted_by(what);
  const auto name = wanted.name   ? *wanted.name
                    : wanted.here ? wanted.here->supervisor()
                                  : former_default_name;
  for (const auto& parent : {runtime_parent(env), std::string{"/run/pup"}}) {
    const auto door = status_path(parent + '/' + name);
    const auto asked = ask_status(door, {what.json, what.id},
                                  what.timeout.value_or(answer_timeout));
    const auto* answer = std::get_if<status_answer>(&asked);
    if (answer == nullptr)
      continue;
    if (!answer->ok)
      return complain(answer->text);
    print(what.json ? shown_json(answer->text) : shown_lines(answer->text));
    return exit_code::done;
  }
  return std::nullopt;
}

exit_code finish(const report& answer) {
  print(render(answer));
  const auto failures = render_failures(answer.outcomes);
  complain_lines(failures);
  return failures.empty() ? exit_code::done : exit_code::failed;
}

/// "alice, pid 4711"; through sudo, who is behind it as well.
std::string caller() {
  std::array<char, 4'096> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  ::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found);
  auto result = found != nullptr ? std::string{found->pw_name}
                                 : "uid " + std::to_string(::geteuid());
  const auto* behind = std::getenv("SUDO_USER");
  if (behind != nullptr && ::geteuid() == 0)
    result += " (sudo of " + std::string{behind} + ')';
  return result + ", pid " + std::to_string(::getpid());
}

exit_code tell_why(const command& what, const control_actor& control,
                   session& with) {
  constexpr std::size_t shown_lines = 10;
  const auto identity = with.ask(control, get_status{what.id});
  if (!identity)
    return complain(session::text_of_error(identity.error()));
  const auto answer = with.ask(control, get_history{what.id});
  if (!answer)
    return complain(session::text_of_error(answer.error()));
  std::vector<explanation> all;
  for (const auto& x : answer->instances) {
    all.push_back({x, {}});
    if (const auto since_ms = output_since(x))
      all.back().output =
          last_output(identity->name, x.id, shown_lines,
                      static_cast<std::uint64_t>(*since_ms) * 1'000);
  }
  const auto now_us = std::chrono::duration_cast<std::chrono::microseconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  print(what.json
            ? why_json(all, local_offset)
            : why_text(all, static_cast<std::uint64_t>(now_us), local_offset));
  return exit_code::done;
}

exit_code status(const command& what, const control_actor& control,
                 session& with) {
  const auto answer = with.ask(control, get_status{what.id});
  if (!answer)
    return complain(session::text_of_error(answer.error()));
  print(what.json ? render_json(*answer)
                  : render(*answer, text_style{shows_colours()}));
  return exit_code::done;
}

exit_code scale_cluster(const command& what, const control_actor& control,
                        session& with) {
  const auto answer = with.order(
      control, scale{what.id, what.mode, what.count, what.wait, caller()});
  if (!answer)
    return complain(with.text_of_order_error(answer.error()));
  print(render(*answer));
  const auto failures = render_failures(answer->outcomes);
  complain_lines(failures);
  return failures.empty() ? exit_code::done : exit_code::failed;
}

exit_code operate_on(const command& what, const control_actor& control,
                     session& with) {
  const auto answer =
      with.order(control, operate{what.action, what.id, what.wait, caller()});
  if (!answer)
    return complain(with.text_of_order_error(answer.error()));
  return finish(*answer);
}

exit_code send_signal_to(const command& what, const control_actor& control,
                         session& with) {
  const auto answer = with.ask(
      control,
      signal_units{what.id, static_cast<std::int32_t>(what.count), caller()});
  if (!answer)
    return complain(session::text_of_error(answer.error()));
  return finish(*answer);
}

// A frame of the protocol has room for the text and its envelope.
constexpr std::size_t most_applied_bytes = ipc_frame_bytes - (64u << 10);

/// The supervisor that is to run the text. What stands in no file means the one
/// that it names, or the one that other commands mean here.
wanted_supervisor meant_to_run(const command& what, const std::string& file,
                               const config_text& content) {
  auto result = wanted_by(what);
  if (what.name || what.of_config)
    return result;
  auto looked_at = look_at(file, content.text);
  if (!content.piped)
    result.config = std::move(looked_at);
  else if (looked_at.name)
    result.name = std::move(looked_at.name);
  return result;
}

/// Where the text stands. What comes through a pipe is taken for a file of the
/// working folder.
std::string place_of(const std::string& config, const config_text& content) {
  const auto written = as_written(config);
  return content.piped ? working_folder() + written.substr(written.rfind('/'))
                       : written;
}

/// Whether it is root's; one that does not say is taken for that.
bool is_roots(const control_actor& control, session& with) {
  const auto status = with.ask(control, get_status{});
  struct stat info {};
  return !status
         || ::stat(("/proc/" + std::to_string(status->pid)).c_str(), &info) != 0
         || info.st_uid == 0;
}

exit_code apply_config(const command& what) {
  const auto read = examine_config(what.config);
  if (const auto* faults = std::get_if<std::vector<diagnostic>>(&read))
    return complain(*faults);
  const auto& content = std::get<config_text>(read);
  const auto& text = content.text;
  const auto& objections = content.objections;
  if (text.size() > most_applied_bytes)
    return complain(what.config + ": is larger than "
                        + std::to_string(most_applied_bytes >> 10)
                        + " KiB; apply less at once",
                    exit_code::usage);
  const auto file = place_of(what.config, content);
  session with{what.timeout};
  auto reached = reach(what, meant_to_run(what, file, content), with);
  if (const auto* code = std::get_if<exit_code>(&reached))
    return *code;
  if (!objections.empty() && is_roots(std::get<control_actor>(reached), with)) {
    return complain(objections);
  }
  const auto answer = with.order(std::get<control_actor>(reached),
                                 apply{text, what.config, folder_of(file),
                                       what.dry_run, what.wait, caller()});
  if (!answer)
    return complain(with.text_of_order_error(answer.error()));
  for (const auto& x : answer->faults)
    complain(x);
  if (!answer->faults.empty())
    return exit_code::usage;
  print(render(*answer));
  const auto failures = render_failures(answer->outcomes);
  complain_lines(failures);
  return failures.empty() ? exit_code::done : exit_code::failed;
}

/// The end of a process, awaited.
class awaited_end {
public:
  explicit awaited_end(pid_t pid) : pid_(pid), fd_(open_pidfd(pid)) {
    refused_ = !fd_ && errno != ESRCH;
  }

  /// False: `deadline` has passed before.
  bool wait(std::chrono::steady_clock::time_point deadline) {
    for (;;) {
      const auto left =
          std::max(std::chrono::ceil<milliseconds>(
                       deadline - std::chrono::steady_clock::now()),
                   milliseconds{0});
      if (!fd_ && (!refused_ || has_ended()))
        return true;
      // A filter that refuses the descriptor leaves nothing to wait for.
      pollfd ended{fd_.get(), POLLIN, 0};
      const auto pause = fd_ ? left : std::min(left, without_event);
      const auto count = ::poll(&ended, 1, static_cast<int>(pause.count()));
      if (count > 0)
        return true;
      if (count == 0 && left.count() == 0)
        return false;
      if (count < 0 && errno != EINTR)
        return true;
    }
  }

private:
  static constexpr milliseconds without_event{50};

  /// Reaped or not.
  [[nodiscard]] bool has_ended() const {
    const auto now = stat_of(pid_);
    return !now || !now->lives();
  }

  pid_t pid_;
  unique_fd fd_;
  bool refused_ = false;
};
/// Both may have been killed on their way out. Who carries on is waited for;
/// what nobody carries on with ends here.
exit_code end_what_remains(const std::string& name,
                           std::chrono::steady_clock::time_point deadline) {
  const auto env = process_environment();
  if (!await_heirs(name, env, deadline))
    return complain("pup: '" + name
                    + "' was killed while it was stopping, and what it left is "
                      "still being stopped");
  wanted_supervisor same;
  same.name = name;
  auto result = exit_code::done;
  for (const auto& x : find_unwatched(same, env))
    if (const auto trouble = end_unwatched(
            x.where, [](const std::string& text) { complain(text); }))
      result = complain(*trouble);
  return result;
}

exit_code end_supervisor(const command& what, const control_actor& control,
                         session& with) {
  const auto identity = with.ask(control, get_status{});
  if (!identity)
    return complain(session::text_of_error(identity.error()));
  // Opened before the end begins, so that the pid cannot be another's.
  awaited_end supervisor{identity->pid};
  const auto answer = with.ask(control, terminate{});
  if (!answer)
    return complain(session::text_of_error(answer.error()));
  // The guardian ends last. As long as the supervisor runs so does it, and the
  // pid is its own.
  awaited_end last{answer->pid};
  if (!what.wait)
    return exit_code::done;
  const progress shown{control};
  const auto deadline = std::chrono::steady_clock::now() + with.work_limit();
  if (!supervisor.wait(deadline) || !last.wait(deadline))
    return complain("pup: '" + identity->name + "' is still stopping after "
                    + in_seconds(with.work_limit())
                    + "; pup status shows what remains");
  return end_what_remains(identity->name, deadline);
}

exit_code upgrade_supervisor(const command& what) {
  const auto found =
      find_running(what, wanted_by(what),
                   [](const running&, const std::string&) { return false; });
  if (const auto* code = std::get_if<exit_code>(&found))
    return *code;
  const auto outcome = upgrade(std::get<running>(found), process_environment(),
                               what.timeout.value_or(work_timeout));
  if (!outcome.done)
    return complain(outcome.text);
  print(shown(outcome.text) + '\n');
  return exit_code::done;
}

// -- start --------------------------------------------------------------------

struct background {
  pid_t pid = 0;
  std::string said;     // without the marker
  std::string name;     // empty: it did not come up
  int wait_status = 0;  // then: as waitpid() has it
};

/// Why nothing came up, where what was said does not tell. A guardian passes on
/// how its supervisor has ended, as a shell would.
std::string words_of_failure(const background& x) {
  constexpr int signalled = 128;
  const auto killed = [](const char* who, int signo) {
    const auto* name = ::sigabbrev_np(signo);
    return std::string{"pup: "} + who + " was killed by "
           + (name != nullptr ? "SIG" + std::string{name}
                              : "signal " + std::to_string(signo))
           + " before the supervisor was up"
           + (signo == SIGKILL ? "; look for the out-of-memory killer in dmesg"
              : signo == SIGSEGV || signo == SIGABRT
                  ? "; it may have too little memory (ulimit -v)"
                  : "");
  };
  if (WIFSIGNALED(x.wait_status))
    return killed("the guardian", WTERMSIG(x.wait_status));
  const auto code = WEXITSTATUS(x.wait_status);
  if (code > signalled)
    return killed("the supervisor", code - signalled);
  if (x.said.find_first_not_of(" \n") != std::string::npos)
    return {};
  return "pup: the supervisor ended with code " + std::to_string(code)
         + " before it was up, and did not say why; start it with pup run to "
           "see more";
}

/// Starts `pup run` without a terminal and listens to what it says until it is
/// up or has ended: both close the pipe.
std::variant<background, exit_code> launch_background(const command& what) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0)
    return complain(std::string{"pup: pipe: "} + std::strerror(errno));
  unique_fd reading{ends[0]};
  unique_fd writing{ends[1]};
  spawn_request request;
  request.argv = {own_program(), "run", "--background"};
  if (auto guardian = guardian_program(); !guardian.empty())
    request.argv.insert(request.argv.begin(), std::move(guardian));
  if (what.name)
    request.argv.insert(request.argv.end(), {"--name", *what.name});
  request.argv.insert(request.argv.end(), {"--config", what.config});
  for (auto** i = ::environ; *i != nullptr; ++i)
    request.environment.emplace_back(*i);
  request.stdout_fd = writing.get();
  request.stderr_fd = writing.get();
  auto spawned = spawn(request);
  if (const auto* fault = std::get_if<os_fault>(&spawned))
    return complain("pup: " + to_string(*fault));
  writing.reset();
  background result;
  result.pid = std::get<child>(spawned).pid;
  std::array<char, 4'096> buffer{};
  for (;;) {
    const auto n = ::read(reading.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      break;
    result.said.append(buffer.data(), static_cast<std::size_t>(n));
  }
  const auto marker = result.said.rfind(up_marker);
  if (marker != std::string::npos) {
    result.name = result.said.substr(marker + up_marker.size());
    result.name.erase(result.name.find_last_not_of('\n') + 1);
    result.said.erase(marker);
    return result;
  }
  while (::waitpid(result.pid, &result.wait_status, 0) < 0 && errno == EINTR) {}
  return result;
}

exit_code start(const command& what) {
  // What this command needs afterwards it has before it begins something.
  if (what.wait)
    client_system();
  auto begun = launch_background(what);
  if (const auto* code = std::get_if<exit_code>(&begun))
    return *code;
  const auto& started = std::get<background>(begun);
  complain_lines(started.said);
  if (started.name.empty()) {
    if (const auto why = words_of_failure(started); !why.empty())
      complain(why);
    return WIFEXITED(started.wait_status)
                   && WEXITSTATUS(started.wait_status) == 2
               ? exit_code::usage
               : exit_code::failed;
  }
  if (!what.wait)
    return exit_code::done;
  wanted_supervisor asked;
  asked.name = started.name;
  session with{what.timeout};
  auto reached = reach(what, asked, with);
  if (const auto* code = std::get_if<exit_code>(&reached))
    return *code;
  const auto& control = std::get<control_actor>(reached);
  const auto answer = with.order(control, operate{verb::await, "all", true});
  if (!answer)
    return complain(with.text_of_order_error(answer.error()));
  const auto now = with.ask(control, get_status{});
  if (now)
    print(render(*now, text_style{shows_colours()}));
  const auto failures = render_failures(answer->outcomes);
  complain_lines(failures);
  return failures.empty() ? exit_code::done : exit_code::failed;
}

}  // namespace

exit_code run_client(const command& what) {
  if (what.kind == command_kind::start_config)
    return start(what);
  if (what.kind == command_kind::upgrade)
    return upgrade_supervisor(what);
  if (what.kind == command_kind::apply)
    return apply_config(what);
  if (what.kind == command_kind::status)
    if (const auto code = status_as_reader(what))
      return *code;
  session with{what.timeout};
  auto reached = reach(what, wanted_by(what), with);
  if (const auto* code = std::get_if<exit_code>(&reached))
    return *code;
  const auto& control = std::get<control_actor>(reached);
  switch (what.kind) {
    case command_kind::status:
      return status(what, control, with);
    case command_kind::scale:
      return scale_cluster(what, control, with);
    case command_kind::why:
      return tell_why(what, control, with);
    case command_kind::signal:
      return send_signal_to(what, control, with);
    case command_kind::operate:
      return operate_on(what, control, with);
    default:
      return end_supervisor(what, control, with);
  }
}

}  // namespace pup
