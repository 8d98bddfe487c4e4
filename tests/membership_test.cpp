// Whose a process is, with real processes: what decides, and what does not.
#include "pup/runtime/membership.hpp"

#include "pup/runtime/archive.hpp"
#include "pup/runtime/cgroup.hpp"
#include "pup/runtime/descendants.hpp"
#include "pup/runtime/life_cgroup.hpp"
#include "pup/runtime/proc_file.hpp"

#include "catch.hpp"
#include "child_process.hpp"

#include <csignal>
#include <filesystem>
#include <functional>
#include <thread>

#include <linux/sched.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>

using namespace pup;
using namespace std::chrono_literals;
using pup::test::patience;

namespace {

constexpr uid_t somebody = 65'534;
constexpr uid_t somebody_else = 65'533;

struct pipe_pair {
  pipe_pair() {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    reading.reset(ends[0]);
    writing.reset(ends[1]);
  }
  [[nodiscard]] std::uint64_t inode() const {
    struct stat info {};
    REQUIRE(::fstat(reading.get(), &info) == 0);
    return info.st_ino;
  }
  unique_fd reading;
  unique_fd writing;
};

/// In a child: says that it is as it should be, and waits for its end.
[[noreturn]] void up(const pipe_pair& told) {
  const auto pid = ::getpid();
  static_cast<void>(::write(told.writing.get(), &pid, sizeof(pid)));
  for (;;)
    ::pause();
}

/// A life's guardian, which this process is.
class world {
public:
  world() {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    all.set_scope("test");
  }
  world(const world&) = delete;
  world& operator=(const world&) = delete;
  ~world() {
    for (auto left = children_of(::getpid()); !left.empty();
         left = children_of(::getpid()))
      for (const auto pid : left) {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
      }
  }

  /// A child that does this and says who it is, or who else: up().
  pid_t start(const std::function<void(const pipe_pair&)>& what) {
    const pipe_pair told;
    const auto pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      what(told);
      up(told);
    }
    last = pid;
    pid_t result = 0;
    REQUIRE(::read(told.reading.get(), &result, sizeof(result))
            == sizeof(result));
    return result;
  }

  /// The leader of a life, in a session of its own.
  pid_t lead(
      std::uint64_t number,
      const std::function<void(const pipe_pair&)>& what = [](auto&) {}) {
    all.begin(number, traits);
    const auto pid = start([&](const pipe_pair& told) {
      ::setsid();
      what(told);
    });
    all.lead(number, last);
    return pid;
  }

  /// What has none of the signs of a life.
  pid_t start_stranger() {
    return start([](const pipe_pair&) { ::setsid(); });
  }

  void end(pid_t pid) {
    ::kill(pid, SIGKILL);
    siginfo_t info{};
    REQUIRE(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT)
            == 0);
    reap(pid);
  }

  bool reap(pid_t pid) {
    all.about_to_reap(pid);
    ::waitpid(pid, nullptr, 0);
    return all.reaped(pid);
  }

  /// Until all answers are there.
  void hear_answers() {
    siginfo_t info{};
    while (all.deadline()) {
      REQUIRE(::waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0);
      reap(info.si_pid);
    }
  }

  void look() {
    all.look_at_orphans();
    hear_answers();
  }

  [[nodiscard]] std::set<pid_t> of(std::uint64_t number) const {
    std::set<pid_t> result;
    for (const auto& x : all.of(number))
      result.insert(x.pid);
    return result;
  }

  [[nodiscard]] bool is_stray(pid_t pid) const {
    const auto found = all.strays();
    return std::find(found.begin(), found.end(), describe_process(pid))
           != found.end();
  }

  membership all;
  life_traits traits{};  // of those that begin
  pid_t last = 0;        // child of this process
};

std::string mark(std::uint64_t number) {
  return life_entry("test", number);
}

/// Executes something that goes on for long.
[[noreturn]] void sleep_with(std::string variable) {
  std::string program = "/bin/sleep";
  std::string time = "1000";
  std::array<char*, 3> argv{program.data(), time.data(), nullptr};
  std::array<char*, 2> environment{variable.data(), nullptr};
  ::execve(program.c_str(), argv.data(), environment.data());
  ::_exit(127);
}

/// A program with that variable alone, of that user.
pid_t start_marked(world& w, const std::string& variable,
                   uid_t user = ::geteuid()) {
  const auto pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::setsid();
    if (user != ::geteuid() && ::setresuid(user, user, user) != 0)
      ::_exit(127);
    sleep_with(variable);
  }
  w.last = pid;
  const auto path = "/proc/" + std::to_string(pid) + "/comm";
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (read_proc_file(path) != "sleep\n")
    REQUIRE(std::chrono::steady_clock::now() < deadline);
  return pid;
}

}  // namespace

// -- what decides -------------------------------------------------------------

SCENARIO("what was seen below a leader is its life's, whatever it does then") {
  world w;
  w.lead(2);
  const auto child = w.lead(1, [](const pipe_pair& told) {
    if (::fork() == 0) {
      ::setsid();
      up(told);
    }
    for (;;)
      ::pause();
  });
  const auto leader = w.last;
  REQUIRE(child != leader);
  w.all.look_below(1);
  CHECK(w.of(1) == std::set<pid_t>{child});
  CHECK_FALSE(w.all.has_left(1, true));
  w.end(leader);
  w.look();
  CHECK(w.all.has_left(1, false));
  CHECK(w.of(1) == std::set<pid_t>{child});
  CHECK(w.of(2).empty());
  w.end(child);
  CHECK_FALSE(w.all.has_left(1, true));
}

SCENARIO("what is in a session of a life is the life's") {
  world w;
  w.lead(2);

  GIVEN("the session of its leader") {
    const auto child = w.lead(1, [](const pipe_pair& told) {
      if (::fork() == 0)
        up(told);
      for (;;)
        ::pause();
    });
    w.end(w.last);
    w.look();
    CHECK(w.of(1) == std::set<pid_t>{child});
  }
  GIVEN("a session that somebody of the life has made") {
    const pipe_pair go;
    const pipe_pair later;
    const auto child = w.lead(1, [&](const pipe_pair& told) {
      if (::fork() == 0) {
        ::setsid();
        if (::fork() != 0)
          up(told);
        // Not there yet when the life is looked at.
        char c = 0;
        static_cast<void>(::read(go.reading.get(), &c, 1));
        if (::fork() == 0)
          up(later);
        ::_exit(0);
      }
      for (;;)
        ::pause();
    });
    w.all.look_below(1);
    w.end(w.last);
    w.all.look_at_orphans();
    REQUIRE(::write(go.writing.get(), "", 1) == 1);
    pid_t grandchild = 0;
    REQUIRE(::read(later.reading.get(), &grandchild, sizeof(grandchild))
            == sizeof(grandchild));
    w.end(child);
    w.look();
    CHECK(w.of(1).count(grandchild) == 1);
  }
}

SCENARIO("a pipe that only one life has tells whose a process is") {
  world w;
  const pipe_pair own;
  const pipe_pair common;
  w.traits.pipes = {own.inode(), common.inode()};
  w.lead(1);
  w.traits.pipes = {common.inode()};
  w.lead(2);
  const auto with = [&](const pipe_pair& pipe, int fd) {
    return w.start([&](const pipe_pair&) {
      ::setsid();
      ::dup2(pipe.writing.get(), fd);
    });
  };
  const auto by_output = with(own, STDOUT_FILENO);
  const auto by_errors = with(own, STDERR_FILENO);
  const auto of_two = with(common, STDOUT_FILENO);
  w.look();
  CHECK(w.of(1) == std::set<pid_t>{by_output, by_errors});
  CHECK(w.of(2).empty());
  CHECK(w.is_stray(of_two));
}

namespace {

/// A group of cgroups for this test; false: none can be made here.
class group_of_lives {
public:
  group_of_lives() : folder_(cgroup_for_lives(::getpid())) {
    if (!folder_.empty())
      folder_ += "/test-" + std::to_string(::getpid());
    made_ = !folder_.empty() && ::mkdir(folder_.c_str(), 0755) == 0;
    if (!made_)
      WARN("left out: no cgroup of version 2 may be made here");
  }
  group_of_lives(const group_of_lives&) = delete;
  group_of_lives& operator=(const group_of_lives&) = delete;
  ~group_of_lives() {
    if (made_)
      remove_cgroup(folder_);
  }

  explicit operator bool() const noexcept {
    return made_;
  }
  [[nodiscard]] const std::string& folder() const noexcept {
    return folder_;
  }

private:
  std::string folder_;
  bool made_ = false;
};

void enter(const std::string& group) {
  const unique_fd file{::open((group + "/cgroup.procs").c_str(), O_WRONLY)};
  REQUIRE(::write(file.get(), "0", 1) == 1);
}

}  // namespace

SCENARIO("a cgroup of its own tells whose a process is, seen or not") {
  const group_of_lives groups;
  if (!groups)
    return;
  const auto first = make_life_cgroup(groups.folder(), "test", 1);
  const auto second = make_life_cgroup(groups.folder(), "test", 2);
  REQUIRE_FALSE(first.empty());
  const auto within = second + "/made by the program";
  REQUIRE(::mkdir(within.c_str(), 0755) == 0);
  {
    world w;
    w.traits.has_own_cgroup = true;
    w.traits.cgroup_folder = first;
    w.lead(1);
    w.traits.cgroup_folder = second;
    w.lead(2);
    const pipe_pair other;
    w.traits = {};
    w.traits.pipes = {other.inode()};
    w.lead(3);
    const auto in = [&](const std::string& group) {
      return w.start([&](const pipe_pair&) {
        ::setsid();
        ::dup2(other.writing.get(), STDOUT_FILENO);
        enter(group);
      });
    };
    const auto a = in(first);
    const auto b = in(second);
    const auto c = in(within);
    w.look();
    CHECK(w.of(1) == std::set<pid_t>{a});
    CHECK(w.of(2) == std::set<pid_t>{b, c});
    CHECK(w.of(3).empty());
    // Of a life that is still below its leader as well.
    w.all.end(1);
    w.traits = {};
    w.traits.has_own_cgroup = true;
    w.traits.cgroup_folder = first;
    w.lead(4);
    w.all.look_below(4);
    CHECK(w.of(4) == std::set<pid_t>{a});
  }
  CHECK(remove_cgroup(second));
  CHECK_FALSE(std::filesystem::exists(second));
  CHECK(remove_cgroup(first));
}

SCENARIO("all in a cgroup ends with it, frozen or not") {
  const group_of_lives groups;
  if (!groups)
    return;
  const auto group = make_life_cgroup(groups.folder(), "test", 1);
  REQUIRE_FALSE(group.empty());
  world w;
  std::set<pid_t> all;
  for (int i = 0; i < 3; ++i)
    all.insert(w.start([&](const pipe_pair&) { enter(group); }));
  const auto found = members_of_cgroup(group);
  CHECK(std::set<pid_t>(found.begin(), found.end()) == all);
  CHECK_FALSE(remove_cgroup(group));
  const unique_fd freezer{
      ::open((group + "/cgroup.freeze").c_str(), O_WRONLY | O_CLOEXEC)};
  REQUIRE(::write(freezer.get(), "1", 1) == 1);
  kill_cgroup(group);
  for (const auto pid : all) {
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(WTERMSIG(status) == SIGKILL);
  }
  CHECK(remove_cgroup(group));
}

SCENARIO("what a killed guardian has left in cgroups ends when it is told to") {
  const group_of_lives groups;
  if (!groups)
    return;
  const auto own = std::to_string(::getpid()) + '.'
                   + std::to_string(start_ticks(::getpid()));
  const auto gone = std::to_string(::getpid()) + ".1";
  const auto kept = make_life_cgroup(groups.folder(), own, 1);
  const auto empty = make_life_cgroup(groups.folder(), gone, 1);
  const auto former = make_life_cgroup(groups.folder(), gone, 2);
  const auto foreign = groups.folder() + "/pup-life-x";
  REQUIRE(::mkdir(foreign.c_str(), 0755) == 0);
  world w;
  const auto left = w.start([&](const pipe_pair&) { enter(former); });
  remove_former_life_cgroups(groups.folder());
  CHECK_FALSE(std::filesystem::exists(empty));
  for (const auto& x : {kept, former, foreign})
    CHECK(std::filesystem::exists(x));
  CHECK(members_of_cgroup(former) == std::vector<pid_t>{left});
  end_life_cgroups(groups.folder(), gone,
                   std::chrono::steady_clock::now() + patience);
  siginfo_t info{};
  CHECK(::waitid(P_PID, static_cast<id_t>(left), &info,
                 WEXITED | WNOWAIT | WNOHANG)
        == 0);
  CHECK(info.si_status == SIGKILL);
  CHECK_FALSE(std::filesystem::exists(former));
  CHECK(std::filesystem::exists(kept));
}

SCENARIO("a variable tells whose a process is, unless another user wrote it") {
  world w;
  if (::geteuid() == 0) {
    w.traits.user = somebody;
    w.lead(3);
    w.traits.user = somebody_else;
    w.lead(4);
    w.traits.user.reset();
  }
  w.lead(1);
  w.lead(2);
  const auto own = start_marked(w, mark(2));
  const auto ended = start_marked(w, mark(77));
  const auto foreign = start_marked(w, life_entry("other", 2));
  w.look();
  CHECK(w.of(2) == std::set<pid_t>{own});
  const auto late = w.all.take_late();
  REQUIRE(late.size() == 1);
  CHECK(late.front().number == 2);
  CHECK(late.front().who.pid == own);
  CHECK(w.all.take_late().empty());
  CHECK(w.is_stray(ended));
  CHECK(w.is_stray(foreign));
  if (::geteuid() != 0) {
    WARN("left out: only root starts processes of other users");
    return;
  }
  const auto says_root = start_marked(w, mark(1), somebody);
  const auto says_other = start_marked(w, mark(4), somebody);
  const auto says_own = start_marked(w, mark(3), somebody);
  w.look();
  CHECK(w.of(1).empty());
  CHECK(w.of(4).empty());
  CHECK(w.of(3) == std::set<pid_t>{says_own});
  CHECK(w.is_stray(says_root));
  CHECK(w.is_stray(says_other));
}

SCENARIO("what nothing tells of is that of the only life it can come from") {
  world w;
  w.lead(1);
  GIVEN("one life") {
    const auto pid = w.start_stranger();
    w.look();
    CHECK(w.of(1) == std::set<pid_t>{pid});
    CHECK(w.all.strays().empty());
  }
  GIVEN("one that began before, and one that began later") {
    const auto pid = w.start_stranger();
    w.traits.started = ticks_since_boot() + 1'000;
    w.lead(2);
    w.look();
    CHECK(w.of(1) == std::set<pid_t>{pid});
  }
  GIVEN("two of them") {
    const auto leader = w.lead(2);
    const auto pid = w.start_stranger();
    w.look();
    CHECK(w.of(1).empty());
    CHECK(w.of(2).empty());
    const auto name = describe_process(pid);
    CHECK(w.all.strays() == std::vector<std::string>{name});
    CHECK(w.all.strays_of(1) == std::vector<std::string>{name});
    CHECK(w.all.strays_of(2) == std::vector<std::string>{name});
    // What comes later may come from it.
    w.end(leader);
    w.all.end(2);
    const auto later = w.start_stranger();
    w.look();
    CHECK(w.of(1).empty());
    CHECK(w.is_stray(later));
  }
  GIVEN("none any more") {
    const auto pid = w.start_stranger();
    w.look();
    w.all.end(1);
    CHECK(w.is_stray(pid));
    CHECK(w.all.of(1).empty());
  }
}

SCENARIO("what belongs to no life is left out, and what it starts as well") {
  world w;
  w.lead(1);
  const auto child = w.start([](const pipe_pair& told) {
    ::setsid();
    if (::fork() == 0)
      up(told);
    for (;;)
      ::pause();
  });
  const auto apart = w.last;
  REQUIRE(child != apart);
  w.all.set_apart(apart);
  ::kill(child, SIGSTOP);
  w.look();
  CHECK(w.of(1).empty());
  CHECK(w.all.strays().empty());
  ::kill(child, SIGKILL);
}

// -- numbers that are given away again ----------------------------------------

namespace {

/// A child of that number, in a session of its own; 0: it cannot be chosen.
pid_t start_as(world& w, pid_t wanted) {
  clone_args how{};
  how.exit_signal = SIGCHLD;
  how.set_tid = reinterpret_cast<std::uint64_t>(&wanted);
  how.set_tid_size = 1;
  const pipe_pair told;
  const auto pid = static_cast<pid_t>(::syscall(SYS_clone3, &how, sizeof(how)));
  if (pid < 0)
    return 0;
  if (pid == 0) {
    ::syscall(SYS_setsid);
    ::syscall(SYS_write, told.writing.get(), &wanted, sizeof(wanted));
    for (;;)
      ::syscall(SYS_pause);
  }
  w.last = pid;
  pid_t ignored = 0;
  REQUIRE(::read(told.reading.get(), &ignored, sizeof(ignored))
          == sizeof(ignored));
  return pid;
}

void await_next_tick() {
  const auto now = ticks_since_boot();
  while (ticks_since_boot() <= now + 1)
    ::usleep(1'000);
}

}  // namespace

SCENARIO("who has the number of a former member is nobody of the life") {
  world w;
  w.lead(1);
  const pipe_pair own;
  w.traits.pipes = {own.inode()};
  w.lead(2);
  const auto former = w.start([&](const pipe_pair&) {
    ::setsid();
    ::dup2(own.writing.get(), STDOUT_FILENO);
  });
  w.look();
  REQUIRE(w.of(2) == std::set<pid_t>{former});
  const auto started = start_ticks(former);
  w.end(former);
  await_next_tick();
  const auto now = start_as(w, former);
  if (now == 0) {
    WARN("left out: needs the right to choose the number of a process");
    return;
  }
  REQUIRE(now == former);
  // Neither its number nor that of its session counts: it began later.
  w.look();
  CHECK(w.of(2).empty());
  CHECK(w.is_stray(now));
  CHECK_FALSE(signal_process(now, started, SIGKILL));
  CHECK(signal_process(now, start_ticks(now), 0));
}

// -- what is bounded ----------------------------------------------------------

SCENARIO("sessions are remembered up to a bound, those of the living first") {
  constexpr std::size_t most = 40;
  world w;
  w.all = membership{most};
  const pipe_pair busy;
  const pipe_pair quiet;
  w.traits.pipes = {quiet.inode()};
  w.lead(1);
  w.traits.pipes = {busy.inode()};
  w.lead(2);
  const auto with = [&](const pipe_pair& pipe, const pipe_pair* child = {}) {
    return w.start([&](const pipe_pair&) {
      ::setsid();
      ::dup2(pipe.writing.get(), STDOUT_FILENO);
      if (child != nullptr && ::fork() == 0) {
        ::close(STDOUT_FILENO);
        up(*child);
      }
    });
  };
  // Of the quiet life one goes on in a session whose leader has ended.
  const pipe_pair told;
  const auto first = with(quiet, &told);
  pid_t left = 0;
  REQUIRE(::read(told.reading.get(), &left, sizeof(left)) == sizeof(left));
  const auto begin_many = [&](bool end) {
    std::size_t highest = 0;
    for (std::size_t i = 0; i < 2 * most; ++i) {
      const auto pid = with(busy);
      w.all.look_at_orphans();
      highest = std::max(highest, w.all.sessions());
      if (end)
        w.end(pid);
    }
    return highest;
  };
  w.all.look_at_orphans();
  GIVEN("sessions that come and go") {
    CHECK(begin_many(true) == 2 + most);
    CHECK(w.all.sessions() <= 2 + most);
  }
  GIVEN("sessions that stay") {
    CHECK(begin_many(false) == 2 + most);
    CHECK(w.of(2).size() == 2 * most);
  }
  w.end(first);
  w.look();
  CHECK(w.of(1) == std::set<pid_t>{left});
}

SCENARIO("many orphans are asked one after the other") {
  world w;
  w.lead(1);
  w.lead(2);
  std::set<pid_t> all;
  for (std::size_t i = 0; i < bounds::questions + 6; ++i)
    all.insert(start_marked(w, mark(2)));
  w.all.look_at_orphans();
  const auto children = own_children().size();
  CHECK(children == 2 + all.size() + bounds::questions);
  CHECK(w.of(2).empty());
  CHECK(w.all.has_left(2, true));
  CHECK_FALSE(w.all.has_left(2, false));
  w.hear_answers();
  CHECK(w.of(2) == all);
}

SCENARIO("an orphan whose variable cannot be read is told by other evidence") {
  // A pipe that nobody writes to makes its reader wait as a program can that
  // holds the lock of its memory.
  const test::temporary_folder folder;
  world w;
  w.all = membership{bounds::made_sessions, folder.path()};
  const auto leader = w.lead(1);
  const auto held = w.start_stranger();
  const auto own = folder.path() + '/' + std::to_string(held);
  REQUIRE(::mkdir(own.c_str(), 0700) == 0);
  REQUIRE(::mkfifo((own + "/environ").c_str(), 0600) == 0);
  const auto before = std::chrono::steady_clock::now();
  w.all.look_at_orphans();
  // Nobody waits for it meanwhile, and it may be the life's.
  CHECK(std::chrono::steady_clock::now() - before < membership::patience);
  REQUIRE(w.all.deadline());
  CHECK(*w.all.deadline() >= before + membership::patience);
  CHECK(w.of(1).empty());
  CHECK(w.all.has_left(1, true));
  CHECK_FALSE(w.all.has_left(1, false));
  auto helpers = own_children();
  std::erase_if(helpers, [&](pid_t x) { return x == held || x == leader; });
  REQUIRE(helpers.size() == 1);
  std::this_thread::sleep_until(*w.all.deadline());
  w.all.on_time();
  // Decided before the helper has ended, which it need not do.
  CHECK(w.of(1) == std::set<pid_t>{held});
  CHECK_FALSE(w.all.deadline());
  siginfo_t info{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(helpers.front()), &info,
                   WEXITED | WNOWAIT)
          == 0);
  CHECK(info.si_status == SIGKILL);
  CHECK(w.reap(helpers.front()));
  CHECK(w.all.strays().empty());
}

// -- a successor of this program ----------------------------------------------

SCENARIO(
    "what is known goes to a successor, and what is asked is asked again") {
  world w;
  const pipe_pair own;
  w.traits.pipes = {own.inode()};
  w.lead(1);
  w.traits.pipes = {};
  w.lead(2);
  const auto known = w.start([&](const pipe_pair&) {
    ::setsid();
    ::dup2(own.writing.get(), STDOUT_FILENO);
  });
  w.all.look_at_orphans();
  const auto asked = start_marked(w, mark(2));
  w.all.look_at_orphans();
  REQUIRE(w.all.deadline());
  w.all.close_questions();
  archive_writer to;
  transfer(to, w.all);
  membership next;
  archive_reader from{to.bytes()};
  transfer(from, next);
  REQUIRE(from.good());
  w.all = std::move(next);
  CHECK(w.of(1) == std::set<pid_t>{known});
  w.look();
  CHECK(w.of(2) == std::set<pid_t>{asked});
  CHECK(w.all.strays().empty());
}
