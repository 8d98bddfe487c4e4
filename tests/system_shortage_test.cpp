// What the machine does not give from the beginning: a command says so in a
// sentence, and leaves nothing behind, or it goes on with less. What it runs
// out of later is the matter of system_faults_test.
#include "catch.hpp"
#include "system.hpp"

#include <algorithm>
#include <csignal>
#include <filesystem>

#include <sys/stat.h>
#include <unistd.h>

using namespace pup::test;

namespace fs = std::filesystem;

namespace {

using words = std::vector<std::string>;

#ifdef __SANITIZE_ADDRESS__
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

constexpr int loader_failed = 127;  // ld.so says so itself
constexpr int nobody_runs = 3;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// A world with a configuration of one process, for a user of its own where
/// that can be: limits of processes do not bind root, and count all of a user.
class poor_world : public sandbox {
public:
  poor_world() {
    write("home/config.json",
          config({R"({"id": "one", "cmd": ["sleep", "1000"]})"},
                 R"("name": "poor")"));
    // The checker's own thread at the end would need what there is none of.
    env["ASAN_OPTIONS"] = "detect_leaks=0";
  }

  /// False: this is not root.
  bool become_somebody() {
    if (::geteuid() != 0)
      return false;
    user_ = static_cast<uid_t>(60'000 + ::getpid() % 5'000);
    REQUIRE(::chmod(path().c_str(), 0755) == 0);
    for (const auto* folder : {"run", "state", "home"}) {
      fs::create_directories(path(folder));
      REQUIRE(::chown(path(folder).c_str(), *user_, *user_) == 0);
    }
    install_pup();
    return true;
  }

  /// The program, started by way of another: `before` is its command line.
  [[nodiscard]] command_line by(words before, words arguments) const {
    before.push_back(pup_program);
    before.insert(before.end(), arguments.begin(), arguments.end());
    auto result = program(std::move(before));
    result.cwd = path("home");
    result.user = user_;
    return result;
  }

  /// Without any limit.
  [[nodiscard]] finished rich(words arguments) const {
    return run(by({"/usr/bin/env"}, std::move(arguments)));
  }

  /// Starts it by way of `before`: either it is up, or it has said why not, and
  /// nothing is left of it. What it said.
  std::string comes_up_or_says_why(const words& before) const {
    const auto started = run(by(before, {"start", "config.json"}));
    const auto ended = rich({"terminate"});
    std::string shown;
    for (const auto& x : before)
      shown += x + ' ';
    INFO(shown << "-> " << started.code << ", signal " << started.signal << '\n'
               << started.out << started.err << "terminate -> " << ended.code
               << '\n'
               << ended.err);
    CHECK(started.signal == 0);
    if (started.code == 0) {
      CHECK(ended.code == 0);
    } else {
      CHECK((started.code == 1 || started.code == loader_failed));
      CHECK((ended.code == 0 || ended.code == nobody_runs));
      is_a_sentence(started.err);
    }
    CHECK(wait_until([&] { return running().empty(); }));
    CHECK_FALSE(fs::exists(path("run/poor/control.sock")));
    return started.err;
  }

  static void is_a_sentence(const std::string& text) {
    CHECK(contains(text, ": "));
    CHECK(text.ends_with('\n'));
    CHECK(std::count(text.begin(), text.end(), '\n') <= 2);
    CHECK_FALSE(contains(text, "terminate called"));
    CHECK_FALSE(contains(text, "unhandled exception"));
  }

  /// Nothing that a start left behind is in the way of the next one.
  void is_unharmed() const {
    const auto started = rich({"start", "config.json"});
    INFO(started.err);
    CHECK(started.code == 0);
    CHECK(rich({"terminate"}).code == 0);
    CHECK(running().empty());
  }

  [[nodiscard]] uid_t user() const {
    return user_.value_or(::geteuid());
  }

private:
  std::optional<uid_t> user_;
};

words limited(const std::string& what, std::uint64_t to) {
  return {"/usr/bin/prlimit", "--" + what + '=' + std::to_string(to)};
}

words refusing(words refusals) {
  refusals.insert(refusals.begin(), PUP_REFUSING);
  refusals.emplace_back("--");
  return refusals;
}

bool filters_work() {
  command_line what;
  what.argv = refusing({"clone3=EPERM"});
  what.argv.emplace_back("/bin/true");
  if (run(what).code == 0)
    return true;
  WARN("skipped: no right to filter system calls here");
  return false;
}

}  // namespace

SCENARIO("too few threads: it says so, at each number of them") {
  poor_world box;
  if (!box.become_somebody()) {
    WARN("skipped: needs root, to act as a user who has no other processes");
    return;
  }
  int said = 0;
  for (std::uint64_t count = 1; count <= 24; ++count)
    said += contains(box.comes_up_or_says_why(limited("nproc", count)),
                     "raise ulimit -u");
  CHECK(said > 10);
  box.is_unharmed();
}

SCENARIO("too few descriptors: it says so, at each number of them") {
  if (sanitized) {
    // See system_bad_days_test.
    WARN("not under sanitizers");
    return;
  }
  const poor_world box;
  int said = 0;
  for (std::uint64_t count = 4; count <= 48; ++count)
    said += contains(box.comes_up_or_says_why(limited("nofile", count)),
                     "raise ulimit -n");
  CHECK(said > 20);
  box.is_unharmed();
}

SCENARIO("too little memory: it says so, at each amount") {
  if (sanitized) {
    WARN("not under sanitizers, which need terabytes of addresses");
    return;
  }
  const poor_world box;
  int said = 0;
  for (std::uint64_t mib = 24; mib <= 140; mib += 4)
    said += contains(box.comes_up_or_says_why(limited("as", mib << 20)),
                     "raise ulimit -v");
  CHECK(said > 10);
  box.is_unharmed();
}

SCENARIO("every command says what it lacks") {
  if (sanitized) {
    WARN("not under sanitizers");
    return;
  }
  const poor_world box;
  REQUIRE(box.rich({"start", "config.json"}).code == 0);
  const std::vector<words> commands{
      {"status"},
      {"status", "--json"},
      {"why", "one"},
      {"restart", "one"},
      {"logs", "-n1"},
      {"apply", "config.json"},
      {"validate", "config.json"},
      {"signal", "one", "CONT"},
      {"scale", "one", "1"},
      {"reload", "all"},
      {"upgrade"},
  };
  for (const auto& command : commands)
    for (const auto& limit :
         {limited("nofile", 4), limited("nofile", 8), limited("nofile", 14),
          limited("as", 30u << 20), limited("as", 50u << 20)}) {
      const auto result = run(box.by(limit, command));
      INFO(limit.back() << ' ' << command.front() << " -> " << result.code
                        << ", signal " << result.signal << '\n'
                        << result.out << result.err);
      CHECK(result.signal == 0);
      if (result.code != 0)
        poor_world::is_a_sentence(result.err);
    }
  CHECK(box.rich({"status"}).code == 0);
  CHECK(box.rich({"terminate"}).code == 0);
}

SCENARIO("in the foreground it says what it lacks as well") {
  if (sanitized) {
    WARN("not under sanitizers");
    return;
  }
  const poor_world box;
  for (const auto& limit :
       {limited("nofile", 6), limited("nofile", 16), limited("nofile", 30),
        limited("as", 40u << 20), limited("as", 80u << 20)}) {
    const auto result = run(box.by(limit, {"run", "config.json"}));
    INFO(limit.back() << " -> " << result.code << '\n' << result.err);
    CHECK(result.code == 1);
    poor_world::is_a_sentence(result.err);
    CHECK(box.running().empty());
  }
  box.is_unharmed();
}

SCENARIO("a filter of system calls: it works without, or names the call") {
  if (!filters_work())
    return;
  const poor_world box;
  const auto said = [&](const std::string& refusal) {
    return box.comes_up_or_says_why(refusing({refusal}));
  };
  CHECK(contains(said("clone3=EPERM"), "clone3"));
  CHECK(said("clone3=ENOSYS").empty());
  CHECK(said("pidfd_open=EPERM").empty());
  CHECK(said("pidfd_open=ENOSYS").empty());
  CHECK(said("openat2=EPERM").empty());
  CHECK(said("memfd_create=EPERM").empty());
  CHECK(contains(said("inotify_init1=EPERM"), "is not watched"));
  CHECK(contains(said("epoll_create1=EPERM"), "epoll_create1"));
  CHECK(contains(said("eventfd2=EPERM"), "eventfd"));
  CHECK(contains(said("timerfd_create=EPERM"), "timerfd_create"));
  CHECK(contains(said("eventfd2=EMFILE"), "raise ulimit -n"));
  box.is_unharmed();
}

SCENARIO("terminate waits for the end without a descriptor of it") {
  if (!filters_work())
    return;
  const poor_world box;
  REQUIRE(box.rich({"start", "config.json"}).code == 0);
  const auto ended = run(box.by(refusing({"pidfd_open=EPERM"}), {"terminate"}));
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK(box.running().empty());
}

SCENARIO("pup start says why the supervisor did not come up") {
  poor_world box;
  box.install_pup();
  /// In the guardian's place.
  const auto starts_with = [&](const std::string& script) {
    fs::remove(box.path("bin/pup-guardian"));
    box.write("bin/pup-guardian", "#!/bin/sh\n" + script + '\n');
    REQUIRE(::chmod(box.path("bin/pup-guardian").c_str(), 0755) == 0);
    const auto result = box.rich({"start", "config.json"});
    CHECK(result.code == 1);
    CHECK(result.out.empty());
    return result.err;
  };
  CHECK(contains(starts_with("kill -9 $$"),
                 "the guardian was killed by SIGKILL before the supervisor"));
  CHECK(contains(starts_with("kill -SEGV $$"), "was killed by SIGSEGV"));
  // As the guardian does where the supervisor is killed.
  CHECK(contains(starts_with("exit 137"),
                 "the supervisor was killed by SIGKILL"));
  CHECK(contains(starts_with("exit 1"), "ended with code 1 before it was up"));
  CHECK(contains(starts_with("exit 0"), "ended with code 0 before it was up"));
  CHECK(starts_with("echo 'no: such luck' >&2; exit 1") == "no: such luck\n");
  CHECK(box.running().empty());
}

SCENARIO("pup start says that the supervisor's program cannot be started") {
  poor_world box;
  box.install_pup();
  // The guardian starts what it is told.
  const auto script = "exec " PUP_GUARDIAN " " + box.path("broken")
                      + " run --background --config config.json";
  const auto starts_with = [&](const std::string& broken) {
    box.write("broken", broken);
    REQUIRE(::chmod(box.path("broken").c_str(), 0755) == 0);
    fs::remove(box.path("bin/pup-guardian"));
    box.write("bin/pup-guardian", "#!/bin/sh\n" + script + '\n');
    REQUIRE(::chmod(box.path("bin/pup-guardian").c_str(), 0755) == 0);
    const auto result = box.rich({"start", "config.json"});
    CHECK(result.code == 1);
    return result.err;
  };
  CHECK(contains(starts_with("no program\n"),
                 "broken (no program of this machine"));
  CHECK(contains(starts_with("#!/bin/sh\nkill -9 $$\n"),
                 "the supervisor was killed by SIGKILL"));
  CHECK(contains(starts_with("#!/bin/sh\nexit 0\n"),
                 "ended with code 0 before it was up"));
  CHECK(box.running().empty());
}

// -- nowhere to write ---------------------------------------------------------

namespace {

/// Folders that nobody but root may write to, for a user without an account or
/// HOME.
class closed_world : public poor_world {
public:
  closed_world() {
    is_somebody = become_somebody();
    fs::create_directory(path("closed"));
    env.erase("HOME");
  }

  void no_state() {
    env["PUP_STATE_DIR"] = path("closed/state");
  }
  void no_runtime() {
    env["PUP_RUNTIME_DIR"] = path("closed/run");
  }
  void open() const {
    REQUIRE(::chmod(path("closed").c_str(), 0777) == 0);
  }

  [[nodiscard]] process in_foreground() const {
    return process{by({"/usr/bin/env"}, {"run", "config.json"})};
  }

  bool is_somebody = false;
};

bool may_mount() {
  command_line what;
  what.argv = {"/usr/bin/unshare",
               "--mount",
               "/bin/mount",
               "-t",
               "tmpfs",
               "none",
               "/mnt"};
  return run(what).code == 0;
}

}  // namespace

SCENARIO("nowhere to write the state: pup run keeps it in memory") {
  closed_world box;
  if (!box.is_somebody) {
    WARN("skipped: needs root, to act as somebody who may not write");
    return;
  }
  SECTION("as the folder cannot be made") {
    box.no_state();
  }
  SECTION("as nothing says where it would be") {
    box.env.erase("PUP_STATE_DIR");
  }
  SECTION("as the folder is there, but read-only") {
    box.no_state();
    fs::create_directories(box.path("closed/state/poor"));
    // Ours, but not to be written to.
    REQUIRE(
        ::chown(box.path("closed/state/poor").c_str(), box.user(), box.user())
        == 0);
    REQUIRE(::chmod(box.path("closed/state/poor").c_str(), 0500) == 0);
  }
  const auto refused = box.rich({"start", "config.json"});
  CHECK(refused.code == 1);
  CHECK(contains(refused.err, "set PUP_STATE_DIR"));
  CHECK(box.running().empty());

  auto pup = box.in_foreground();
  REQUIRE(pup.says("'poor' is up"));
  const auto status = box.rich({"status"});
  CHECK(status.code == 0);
  CHECK(contains(status.out, "warning: state in memory: "));
  CHECK(contains(status.out, "one"));
  // The guardian remembers what this one is killed with.
  CHECK(box.rich({"block", "one"}).code == 0);
  const auto first = only(box.supervisors());
  REQUIRE(::kill(first, SIGKILL) == 0);
  CHECK(wait_until([&] {
    const auto now = box.rich({"status", "--json"});
    return now.code == 0
           && parse_json(now.out).at("pid").to_number<pid_t>() != first;
  }));
  CHECK(contains(box.rich({"status"}).out, "blocked"));
  CHECK(box.rich({"terminate"}).code == 0);
  const auto ended = pup.wait();
  CHECK(ended.code == 0);
  CHECK(contains(ended.err, "state in memory: "));
}

SCENARIO("nowhere at all to write: pup run goes on, and is reached later") {
  closed_world box;
  if (!box.is_somebody) {
    WARN("skipped: needs root, to act as somebody who may not write");
    return;
  }
  box.no_state();
  box.no_runtime();
  const auto refused = box.rich({"start", "config.json"});
  CHECK(refused.code == 1);
  CHECK(contains(refused.err, "or use pup run"));

  auto pup = box.in_foreground();
  REQUIRE(pup.says("no command can reach pup until it can be made: "));
  REQUIRE(pup.says("'poor' is up"));
  CHECK(wait_until([&] { return box.running().size() == 3; }));
  CHECK(box.rich({"status"}).code == nobody_runs);
  SECTION("it ends as it should") {
    pup.signal(SIGTERM);
    CHECK(pup.wait().code == 0);
  }
  SECTION("once its folder can be made it is reached") {
    box.open();
    CHECK(pup.says("commands reach pup again"));
    CHECK(box.rich({"status"}).code == 0);
    CHECK(box.rich({"terminate"}).code == 0);
    CHECK(pup.wait().code == 0);
  }
  CHECK(box.running().empty());
}

SCENARIO("a read-only root: pup run goes on") {
  if (::geteuid() != 0 || !may_mount()) {
    WARN("skipped: no right to mount a file system here");
    return;
  }
  poor_world box;
  for (const auto* x : {"run", "state"})
    fs::create_directory(box.path(x));
  const auto script =
      "mount -t tmpfs -o ro none \"$PUP_RUNTIME_DIR\" && "
      "mount -t tmpfs -o ro none \"$PUP_STATE_DIR\" && "
      "exec \"$0\" \"$@\"";
  const words before{"/usr/bin/unshare", "--mount", "/bin/sh", "-c", script};
  process pup{box.by(before, {"run", "config.json"})};
  REQUIRE(pup.says("'poor' is up"));
  pup.signal(SIGTERM);
  const auto ended = pup.wait();
  CHECK(ended.code == 0);
  CHECK(contains(ended.err, "state in memory: "));
  CHECK(contains(ended.err, "Read-only file system"));
  CHECK(contains(ended.err, "no command can reach pup"));
  const auto refused = run(box.by(before, {"start", "config.json"}));
  CHECK(refused.code == 1);
  CHECK(contains(refused.err, "Read-only file system; set PUP_STATE_DIR"));
  CHECK(box.running().empty());
}

// -- descriptors for hundreds
// ---------------------------------------------------

namespace {

/// Three hundred that say a word, and how many of them are in the log.
std::string crowd() {
  return config(
      {R"({"id": "many", "cmd": ["sh", "-c", "echo a word; exec sleep 1000"],
           "cluster": {"instances": 300}})"});
}

std::size_t count_of(const std::string& what, const std::string& text) {
  std::size_t result = 0;
  for (auto at = text.find(what); at != std::string::npos;
       at = text.find(what, at + 1))
    ++result;
  return result;
}

std::size_t words_kept(const sandbox& box) {
  return count_of("a word", box.pup({"logs", "-n", "10000"}).out);
}

std::string warnings_in(const sandbox& box) {
  const auto now = box.status();
  std::string result;
  for (const auto& x : now.at("warnings").as_array())
    result += std::string{x.as_string()} + '\n';
  return result;
}

finished start_below(const sandbox& box, int descriptors) {
  auto command = box.command({"start", "config.json"});
  command.argv.insert(
      command.argv.begin(),
      {"/usr/bin/prlimit", "--nofile=" + std::to_string(descriptors)});
  return run(command);
}

}  // namespace

SCENARIO("300 processes below a hard limit of 1024: all output is kept") {
  if (sanitized) {
    WARN("not under sanitizers");
    return;
  }
  sandbox box;
  box.write("config.json", crowd());
  const auto started = start_below(box, 1024);
  CHECK(started.code == 0);
  CHECK_FALSE(contains(started.out, "Too many open files"));
  CHECK(warnings_in(box).empty());
  CHECK(wait_until([&] { return words_kept(box) == 300; }));
  // Nor does anybody lose it by a restart.
  CHECK(box.pup({"restart", "all"}).code == 0);
  CHECK(wait_until([&] { return words_kept(box) == 600; }));
  CHECK(box.end() == "");
}

SCENARIO(
    "output that there are no descriptors for is kept from the next life") {
  if (sanitized) {
    WARN("not under sanitizers");
    return;
  }
  sandbox box;
  box.write("config.json", crowd());
  const auto started = start_below(box, 400);
  CHECK(started.code == 0);
  CHECK(contains(started.out, "goes to /dev/null until it is restarted"));
  CHECK(contains(warnings_in(box), "processes is not kept"));
  const auto kept = 300 - count_of("/dev/null", box.pup({"status"}).out);
  CHECK(kept > 150);
  CHECK(kept < 300);
  REQUIRE(wait_until([&] { return words_kept(box) == kept; }));

  CHECK(box.pup({"scale", "many", "100"}).code == 0);
  CHECK(wait_until([&] { return warnings_in(box).empty(); }));
  CHECK(box.pup({"scale", "many", "150"}).code == 0);
  REQUIRE(wait_until([&] { return words_kept(box) == kept + 50; }));
  CHECK(box.pup({"restart", "all"}).code == 0);
  CHECK(wait_until([&] { return words_kept(box) == kept + 50 + 150; }));
  CHECK_FALSE(contains(box.pup({"status"}).out, "/dev/null"));
  CHECK(box.end() == "");
}
