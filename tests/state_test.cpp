// The state file, who writes it, and what a killed supervisor has left.
#include "pup/runtime/identity.hpp"
#include "pup/runtime/journal.hpp"
#include "pup/runtime/process.hpp"
#include "pup/runtime/state_file.hpp"
#include "pup/runtime/survivors.hpp"

#include "catch.hpp"
#include "child_process.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <future>
#include <sstream>

#include <fcntl.h>
#include <sys/stat.h>

using namespace pup;
using namespace std::chrono_literals;
using pup::test::temporary_folder;

namespace {

saved_state example() {
  saved_state x;
  x.boot = "4f2d";
  x.supervisor = "shop";
  x.pid = 4711;
  x.started = 99'000;
  x.config_mark = 0xFEDCBA9876543210;
  x.config = "/srv/a b/100%.json";
  auto& web = x.units["web"];
  web.mark = 17;
  web.desired = 3;
  web.last_life = 12;
  web.clock_seen = 1'777'852'800;
  web.slots[1] = {2, 1, 0, true, false, "", "", {-5, 1'000'000'007}};
  web.slots[2] = {0, 0, 0, false, true, "blocked", "two\nlines, 50 %", {}};
  web.slots[3] = {};
  web.slots[3].failed_starts = 2;
  x.told_environment = true;
  x.units["mailer"].listening = false;
  x.processes["web-1"] = {10, 5000, 99'123};
  x.processes["web-1!preStop.10.1"] = {10, 5001, 99'124};
  return x;
}

std::string problem_of(std::string_view text) {
  const auto result = decode(text);
  const auto* problem = std::get_if<std::string>(&result);
  return problem != nullptr ? *problem : "no problem";
}

std::string contents(const std::string& file) {
  std::ifstream in{file, std::ios::binary};
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

saved_state stored(const std::string& folder) {
  const auto read = read_state(folder);
  const auto* state = std::get_if<std::optional<saved_state>>(&read);
  REQUIRE(state != nullptr);
  REQUIRE(*state);
  return **state;
}

/// Until the file says so. The journal tells nobody when it has written.
template <class Condition>
bool in_time(Condition holds) {
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline)
      return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

/// A process in a session of its own, reaped at the end.
class sleeper {
public:
  explicit sleeper(const std::string& script,
                   std::vector<std::string> environment = {}) {
    environment.push_back("PATH=/usr/bin:/bin");
    spawn_request request;
    // It says that the script has got to its end.
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    const unique_fd reading{ends[0]};
    unique_fd writing{ends[1]};
    request.argv = {"/bin/sh", "-c", script + "\necho up; sleep 1000 & wait"};
    request.environment = std::move(environment);
    request.stdout_fd = writing.get();
    auto result = spawn(request);
    REQUIRE(std::holds_alternative<child>(result));
    child_ = std::move(std::get<child>(result));
    writing.reset();
    char byte = 0;
    REQUIRE(::read(reading.get(), &byte, 1) == 1);
  }
  sleeper(const sleeper&) = delete;
  sleeper& operator=(const sleeper&) = delete;
  ~sleeper() {
    ::kill(-child_.pid, SIGKILL);
    if (!reaped_)
      ::waitpid(child_.pid, nullptr, 0);
  }

  pid_t pid() const {
    return child_.pid;
  }
  bool lives() const {
    return ::kill(child_.pid, 0) == 0 && !reaped_
           && contents("/proc/" + std::to_string(pid()) + "/stat").find(") Z")
                  == std::string::npos;
  }
  /// The signal that ended it; 0: none.
  int signal() {
    int status = 0;
    REQUIRE(::waitpid(child_.pid, &status, 0) == child_.pid);
    reaped_ = true;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }

private:
  child child_;
  bool reaped_ = false;
};

std::vector<pid_t> pids_of(const std::vector<survivor>& all) {
  std::vector<pid_t> result;
  for (const auto& x : all)
    result.push_back(x.pid);
  return result;
}

bool has(const std::vector<survivor>& all, pid_t pid) {
  const auto pids = pids_of(all);
  return std::find(pids.begin(), pids.end(), pid) != pids.end();
}

const std::string mark = "test-" + std::to_string(::getpid());

}  // namespace

// -- the file -----------------------------------------------------------------

TEST_CASE("state: what was written is read") {
  for (const auto& x : {example(), saved_state{}}) {
    const auto read = decode(encode(x));
    INFO(encode(x));
    REQUIRE(std::holds_alternative<saved_state>(read));
    CHECK(std::get<saved_state>(read) == x);
  }
}

TEST_CASE("state: no single bit may be another") {
  const auto good = encode(example());
  for (std::size_t i = 0; i < good.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      auto text = good;
      text[i] = static_cast<char>(text[i] ^ (1 << bit));
      INFO(text);
      REQUIRE(std::holds_alternative<std::string>(decode(text)));
    }
}

TEST_CASE("state: a file that is cut or grown is refused") {
  const auto good = encode(example());
  for (std::size_t size = 0; size < good.size(); ++size)
    REQUIRE(problem_of(good.substr(0, size)) == "is torn: it ends early");
  CHECK(problem_of(good + '\n') == "is damaged");
  CHECK(problem_of(good + good) == "is damaged");
}

TEST_CASE("state: what is not ours is called by its name") {
  CHECK(problem_of("{}") == "is not a state file");
  CHECK(problem_of("{}\n") == "is not a state file");
  CHECK(problem_of(std::string(100, '\0')) == "is not a state file");
  auto other = encode(example());
  other.replace(other.find(" 2 "), 3, " 3 ");
  CHECK(problem_of(other) == "has version 3, this pup reads version 2");
}

TEST_CASE("state: a body with a good head, but not as pup writes it") {
  const auto good = encode(example());
  const auto body = good.substr(good.find('\n') + 1);
  const auto with = [&](const std::string& part, const std::string& by) {
    auto text = body;
    REQUIRE(text.find(part) != std::string::npos);
    text.replace(text.find(part), part.size(), by);
    return problem_of(with_head(text));
  };
  CHECK(with("boot", "boot") == "no problem");
  CHECK(with("web", "w%65b") == "is damaged");
  CHECK(with("%0A", "%0a") == "is damaged");
  CHECK(with("%0A", "%0") == "is damaged");
  CHECK(with("on-purpose 0", "on-purpose 2") == "is damaged");
  CHECK(with("on-purpose 0", "on-purpose") == "is damaged");
  CHECK(with("on-purpose 0", "on-purpose 0 0") == "is damaged");
  CHECK(with("on-purpose 0\n", "") == "is damaged");
  CHECK(with("on-purpose 0\n", "on-purpose 0\n\n") == "is damaged");
  CHECK(with("unit web", "team web") == "is damaged");
  CHECK(with(" 4711 ", " 04711 ") == "is damaged");
  CHECK(with(" 4711 ", " +4711 ") == "is damaged");
  CHECK(with(" 4711 ", " 99999999999 ") == "is damaged");
  CHECK(with(" 5000 ", " 1 ") == "is damaged");  // nobody ends init
  CHECK(with(" 5000 ", " -5 ") == "is damaged");
  CHECK(with("clock 1777852800", "clock 0") == "is damaged");
  CHECK(with("clock 1777852800", "clock 1777852800 1") == "is damaged");
  CHECK(problem_of(with_head("clock 5\n")) == "is damaged");
  CHECK(with("told environment", "told else") == "is damaged");
  CHECK(with("unready 3 2", "unready 3 0") == "is damaged");
  CHECK(with("unready 3 2", "unready 2 2") == "is damaged");
  CHECK(problem_of(with_head("slot 1 0 0 0 1 0 - %\n")) == "is damaged");
  CHECK(problem_of(with_head("")) == "is damaged");
}

TEST_CASE("state: a new one takes the place of the old one as a whole") {
  const temporary_folder folder;
  auto none = read_state(folder.path());
  CHECK_FALSE(std::get<std::optional<saved_state>>(none));
  CHECK_FALSE(write_state(folder.path(), saved_state{}));
  CHECK_FALSE(write_state(folder.path(), example()));
  CHECK(stored(folder.path()) == example());
  struct stat info {};
  REQUIRE(::stat(state_path(folder.path()).c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);

  // Where the draft cannot be written the old one stays.
  std::filesystem::create_directory(state_path(folder.path()) + ".new");
  const auto fault = write_state(folder.path(), saved_state{});
  REQUIRE(fault);
  CHECK(to_string(*fault)
        == "open " + folder.path() + "/state.new: Is a directory");
  CHECK(stored(folder.path()) == example());
}

TEST_CASE("state: a file that cannot be read is named") {
  const temporary_folder folder;
  std::ofstream{state_path(folder.path())} << "pup-state 2 9";
  const auto torn = read_state(folder.path());
  CHECK(std::get<std::string>(torn)
        == folder.path() + "/state: is torn: it ends early");
  std::filesystem::remove(state_path(folder.path()));
  std::filesystem::create_directory(state_path(folder.path()));
  const auto odd = read_state(folder.path());
  CHECK(std::get<std::string>(odd)
        == "read " + folder.path() + "/state: Is a directory");
}

// -- the journal --------------------------------------------------------------

TEST_CASE("journal: what is said is on the disk at the end") {
  const temporary_folder folder;
  auto begin = example();
  begin.units.clear();
  begin.processes.clear();
  {
    journal book{folder.path(), begin, {}};
    CHECK(in_time(
        [&] { return std::filesystem::exists(state_path(folder.path())); }));
    for (std::uint32_t n = 1; n <= 1'000; ++n) {
      saved_unit x;
      x.desired = n;
      book.unit("web", x);
    }
    book.began("web-1", 7, ::getpid());
    book.began("web-2", 7, ::getpid());
    book.ended("web-2", 7);
    book.began("web-3", 8, ::getpid());
    book.ended("web-3", 7);  // of an earlier life: says nothing of this one
    CHECK(in_time([&] { return stored(folder.path()).processes.size() == 2; }));
    CHECK_FALSE(stored(folder.path()).on_purpose);
    book.ended("web-1", 7);
    book.ends_on_purpose();
  }
  auto expected = begin;
  expected.units["web"].desired = 1'000;
  expected.processes["web-3"] = {8, ::getpid(),
                                 start_time_of(::getpid()).value()};
  expected.on_purpose = true;
  CHECK(stored(folder.path()) == expected);
}

TEST_CASE("journal: who waits is told when it is written, or cannot be") {
  const temporary_folder folder;
  const auto obstacle = state_path(folder.path()) + ".new";
  journal book{folder.path(), example(), {}};
  const auto wait = [&book] {
    std::promise<void> done;
    book.when_written([&] { done.set_value(); });
    return done.get_future().wait_for(60s) == std::future_status::ready;
  };
  CHECK(wait());
  CHECK(stored(folder.path()) == example());
  for (std::uint32_t n = 1; n <= 20; ++n) {
    saved_unit x;
    x.desired = n;
    book.unit("web", x);
    REQUIRE(wait());
    CHECK(stored(folder.path()).units.at("web").desired == n);
  }
  CHECK(wait());  // nothing is new
  std::filesystem::create_directory(obstacle);
  book.unit("web", {});
  CHECK(wait());
  CHECK(wait());
  CHECK_FALSE(book.trouble().empty());
}

TEST_CASE("journal: a disk that takes nothing is told, and tried again") {
  const temporary_folder folder;
  const auto obstacle = state_path(folder.path()) + ".new";
  std::filesystem::create_directory(obstacle);
  std::promise<std::string> began;
  std::promise<std::string> over;
  journal book{folder.path(), example(), [&](const std::string& fault) {
                 (fault.empty() ? over : began).set_value(fault);
               }};
  auto told = began.get_future();
  REQUIRE(told.wait_for(60s) == std::future_status::ready);
  CHECK(told.get() == "open " + obstacle + ": Is a directory");
  CHECK(book.trouble() == "open " + obstacle + ": Is a directory");
  saved_unit x;
  x.desired = 9;
  book.unit("late", x);
  std::filesystem::remove(obstacle);
  auto well = over.get_future();
  REQUIRE(well.wait_for(60s) == std::future_status::ready);
  CHECK(book.trouble().empty());
  CHECK(stored(folder.path()).units.at("late").desired == 9);
}

// -- processes ----------------------------------------------------------------

TEST_CASE("identity: a start time is that of the process") {
  const auto mine = start_time_of(::getpid());
  REQUIRE(mine);
  CHECK(start_time_of(::getpid()) == mine);
  // One that was started later, whose name is meant to confuse.
  const temporary_folder folder;
  const auto odd = folder.path() + "/a) Z 1 (b";
  std::filesystem::create_symlink("/bin/sh", odd);
  spawn_request request;
  request.argv = {odd, "-c", "sleep 1000 & wait"};
  request.environment = {"PATH=/usr/bin:/bin"};
  auto started = spawn(request);
  REQUIRE(std::holds_alternative<child>(started));
  const auto pid = std::get<child>(started).pid;
  CHECK(start_time_of(pid).value_or(0) >= *mine);
  ::kill(-pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  CHECK_FALSE(start_time_of(pid));
}

TEST_CASE("survivors: known by their mark, and by pid with start time") {
  sleeper marked{"", {"PUP_OWNER=" + mark, "PUP_ID=web-1"}};
  sleeper foreign{"", {"PUP_OWNER=" + mark + "0"}};
  sleeper silent{""};
  sleeper other{""};
  saved_state recorded;
  recorded.processes["web-2!preStop.1.1"] = {
      1, silent.pid(), start_time_of(silent.pid()).value()};
  // Its number was given away.
  recorded.processes["web-3"] = {1, other.pid(),
                                 start_time_of(other.pid()).value() - 1};
  recorded.processes["web-4"] = {1, ::getpid(),
                                 start_time_of(::getpid()).value()};
  const auto all = find_survivors({mark, &recorded});
  CHECK(has(all, marked.pid()));
  CHECK(has(all, silent.pid()));
  CHECK_FALSE(has(all, foreign.pid()));
  CHECK_FALSE(has(all, other.pid()));
  CHECK_FALSE(has(all, ::getpid()));
  for (const auto& x : all) {
    // With the sleep that each has started.
    CHECK(x.id == (::getsid(x.pid) == silent.pid() ? "web-2" : "web-1"));
  }
  CHECK(find_survivors({""}).empty());
}

TEST_CASE("survivors: what they have started is known by them") {
  // Below a marked one, without the mark; and in the session of one that was
  // written down, whose parent has gone.
  sleeper marked{"env -i sleep 1010 &", {"PUP_OWNER=" + mark}};
  sleeper silent{"(sleep 1011 &) ; sleep 0.1"};
  saved_state recorded;
  recorded.processes["web-1"] = {1, silent.pid(),
                                 start_time_of(silent.pid()).value()};
  const auto found = [&](const std::string& argument) {
    const auto all = find_survivors({mark, &recorded});
    return std::any_of(all.begin(), all.end(), [&](const survivor& x) {
      return contents("/proc/" + std::to_string(x.pid) + "/cmdline")
             == "sleep" + std::string(1, '\0') + argument
                    + std::string(1, '\0');
    });
  };
  CHECK(in_time([&] { return found("1010"); }));
  CHECK(in_time([&] { return found("1011"); }));
}

TEST_CASE("survivors: what has only the pipe of its life is known by that") {
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  const unique_fd reading{ends[0]};
  unique_fd writing{ends[1]};
  const auto begin = [&](std::vector<std::string> variables) {
    spawn_request request;
    request.argv = {"sleep", "1000"};
    request.environment = std::move(variables);
    request.environment.emplace_back("PATH=/usr/bin:/bin");
    request.stdout_fd = writing.get();
    auto started = spawn(request);
    REQUIRE(std::holds_alternative<child>(started));
    return std::get<child>(started).pid;
  };
  const auto bare = begin({});
  CHECK_FALSE(has(find_survivors({mark}), bare));
  // Whoever reads the pipe knows whose it is.
  writing.reset();
  CHECK(has(find_survivors({mark, nullptr, {}, own_pipes()}), bare));
  ::kill(-bare, SIGKILL);
  ::waitpid(bare, nullptr, 0);

  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  const unique_fd other_reading{ends[0]};
  writing.reset(ends[1]);
  const auto alone = begin({});
  const auto marked = begin({"PUP_OWNER=" + mark, "PUP_ID=web-1"});
  const auto all = find_survivors({mark});
  CHECK(has(all, alone));
  for (const auto& x : all)
    CHECK(x.id == "web-1");
  for (const auto pid : {alone, marked}) {
    ::kill(-pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
}

TEST_CASE("survivors: a foreign user's mark is not believed") {
  if (::geteuid() != 0) {
    WARN("left out: needs root");
    return;
  }
  constexpr uid_t nobody = 65534;
  spawn_request request;
  request.argv = {"sleep", "1000"};
  request.environment = {"PATH=/usr/bin:/bin", "PUP_OWNER=" + mark};
  request.attributes.run_as = identity{nobody, nobody, {}, "nobody"};
  auto started = spawn(request);
  REQUIRE(std::holds_alternative<child>(started));
  const auto pid = std::get<child>(started).pid;
  CHECK_FALSE(has(find_survivors({mark}), pid));
  // One of ours runs as that user.
  CHECK(has(find_survivors({mark, nullptr, {nobody}}), pid));
  ::kill(-pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}

TEST_CASE("survivors: asked as their entry says, then killed") {
  sleeper meek{"", {"PUP_OWNER=" + mark, "PUP_ID=meek"}};
  sleeper deaf{"trap '' TERM", {"PUP_OWNER=" + mark, "PUP_ID=deaf"}};
  sleeper own{"trap '' TERM; trap 'kill -9 $$' USR1",
              {"PUP_OWNER=" + mark, "PUP_ID=own"}};
  const auto rule = [](const std::string& id) {
    return id == "own" ? stop_rule{SIGUSR1, 60s} : stop_rule{SIGTERM, 100ms};
  };
  CHECK(end_survivors(find_survivors({mark}), {mark}, rule, -1) == 0);
  CHECK(meek.signal() == SIGTERM);
  CHECK(deaf.signal() == SIGKILL);
  CHECK(own.signal() == SIGKILL);
  CHECK(find_survivors({mark}).empty());
}

TEST_CASE("survivors: what they start on their way out ends, too") {
  // In a session of its own: no signal to the group gets there.
  sleeper heir{"trap 'setsid sleep 1000 & exit' TERM",
               {"PUP_OWNER=" + mark, "PUP_ID=heir"}};
  const auto rule = [](const std::string&) { return stop_rule{SIGTERM, 60s}; };
  CHECK(end_survivors(find_survivors({mark}), {mark}, rule, -1) == 0);
  CHECK(heir.signal() == 0);
  CHECK(find_survivors({mark}).empty());
}

TEST_CASE("survivors: a hurry kills at once") {
  sleeper deaf{"trap '' TERM", {"PUP_OWNER=" + mark}};
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  const unique_fd reading{ends[0]};
  const unique_fd writing{ends[1]};
  REQUIRE(::write(writing.get(), "x", 1) == 1);
  const auto patient = [](const std::string&) {
    return stop_rule{SIGTERM, 24h};
  };
  CHECK(end_survivors(find_survivors({mark}), {mark}, patient, reading.get())
        == 0);
  CHECK(deaf.signal() == SIGKILL);
}

TEST_CASE("survivors: each is stopped by the rule of its entry") {
  pup_spec spec;
  spec.processes.resize(2);
  spec.processes[0].id = "web";
  spec.processes[0].stop_signal = SIGINT;
  spec.processes[0].cluster.emplace();
  spec.processes[1].id = "mail-1";
  spec.processes[1].terminate_timeout = 5s;
  CHECK(stop_rule_of(spec, "web-12").signal == SIGINT);
  CHECK(stop_rule_of(spec, "web-x").signal == SIGTERM);
  CHECK(stop_rule_of(spec, "web-").signal == SIGTERM);
  CHECK(stop_rule_of(spec, "mail-1").timeout == 5s);
  CHECK(stop_rule_of(spec, "mail-1-1").timeout == 30s);
  CHECK(stop_rule_of(spec, "gone").signal == SIGTERM);
}
