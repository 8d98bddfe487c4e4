// Folders, lock, discovery and choice of supervisors, against a real file
// system below a temporary folder.
#include "pup/runtime/place.hpp"

#include "catch.hpp"
#include "child_process.hpp"

#include <atomic>
#include <barrier>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>

using namespace pup;
using namespace pup::test;
namespace fs = std::filesystem;

namespace {

environment environment_of(std::map<std::string, std::string> variables,
                           uid_t user = ::geteuid()) {
  return {[variables = std::move(variables)](
              const std::string& name) -> std::optional<std::string> {
            auto found = variables.find(name);
            if (found == variables.end())
              return std::nullopt;
            return found->second;
          },
          user};
}

/// Runtime and state folders below one temporary folder.
struct fixture {
  temporary_folder root;
  std::string run = root.path() + "/run";
  environment env = environment_of(
      {{"PUP_RUNTIME_DIR", run}, {"PUP_STATE_DIR", root.path() + "/state"}});

  std::variant<place, place_error> open(const std::string& name) const {
    return open_place(name, env, {"/etc/app/pup.json", "1.2.3", {}});
  }

  place opened(const std::string& name) const {
    auto result = open(name);
    if (auto error = std::get_if<place_error>(&result))
      FAIL(error->text);
    return std::move(std::get<place>(result));
  }

  place_error refused(const std::string& name) const {
    auto result = open(name);
    REQUIRE(std::holds_alternative<place_error>(result));
    return std::get<place_error>(result);
  }
};

unsigned mode_of(const std::string& path) {
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  return info.st_mode & 07777u;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

running supervisor(const std::string& name, const std::string& config,
                   std::vector<std::string> known = {}) {
  running result;
  result.name = name;
  result.config = config;
  result.known = std::move(known);
  return result;
}

/// A file that gives no name, or gives one.
config_file file_at(const std::string& path, const std::string& resolved = {},
                    std::optional<std::string> name = {}) {
  config_file result;
  result.written = path;
  result.resolved = resolved;
  result.name = std::move(name);
  result.default_name = fs::path{path}.parent_path().filename().string();
  result.has_processes = true;
  return result;
}

// What choose() decided, in a word per case, for the table.
std::string decided(const choice& x) {
  if (auto one = std::get_if<running>(&x))
    return one->name;
  if (auto here = std::get_if<not_running_here>(&x))
    return "not " + here->config.supervisor();
  if (auto several = std::get_if<ambiguous>(&x)) {
    std::string result = "?";
    for (const auto& candidate : several->candidates)
      result += " " + candidate.name;
    return result;
  }
  return "none";
}

}  // namespace

TEST_CASE("child: hold a place", "[.child]") {
  die_with_parent();
  auto env = environment_of({{"PUP_RUNTIME_DIR", variable("TEST_RUN")},
                             {"PUP_STATE_DIR", variable("TEST_STATE")}});
  report("ready");
  if (!await_order())
    return;
  auto result = open_place("web", env, {"/srv/pup.json", "1", {}});
  auto error = std::get_if<place_error>(&result);
  if (!error)
    report("won");
  else
    report(error->code == place_errc::already_running ? "lost" : error->text);
  while (await_order())
    continue;
}

SCENARIO("the parents follow the environment and the user") {
  using table = std::map<std::string, std::string>;
  struct row {
    table variables;
    uid_t user;
    std::string run;
    std::optional<std::string> state;
  };
  const std::vector<row> rows{
      {{}, 0, "/run/pup", "/var/lib/pup"},
      {{{"XDG_RUNTIME_DIR", "/run/user/0"}, {"HOME", "/root"}},
       0,
       "/run/pup",
       "/var/lib/pup"},
      {{{"PUP_RUNTIME_DIR", "/r"}, {"PUP_STATE_DIR", "/s"}}, 0, "/r", "/s"},
      {{{"PUP_RUNTIME_DIR", "/r//"}, {"PUP_STATE_DIR", "/"}}, 7, "/r", "/"},
      {{{"XDG_RUNTIME_DIR", "/run/user/7"}, {"XDG_STATE_HOME", "/x"}},
       7,
       "/run/user/7/pup",
       "/x/pup"},
      {{{"XDG_RUNTIME_DIR", "relative"},
        {"XDG_STATE_HOME", "relative"},
        {"HOME", "/home/u"}},
       7,
       "/tmp/pup-7",
       "/home/u/.local/state/pup"},
      {{{"PUP_RUNTIME_DIR", ""}, {"HOME", ""}}, 7, "/tmp/pup-7", std::nullopt},
  };
  for (const auto& x : rows) {
    auto env = environment_of(x.variables, x.user);
    CHECK(runtime_parent(env) == x.run);
    CHECK(state_parent(env) == x.state);
  }
}

SCENARIO(
    "an opened place is private, can be found, and is cleared at the end") {
  fixture f;
  auto started = std::chrono::system_clock::time_point{
      std::chrono::milliseconds{1'700'000'000'123}};
  auto config = std::string{"/etc/a b%0A\n\t/p\xc3\xbcp.json"};
  {
    auto result = open_place("web@1.x", f.env, {config, "0.1 beta", started});
    REQUIRE(std::holds_alternative<place>(result));
    auto& x = std::get<place>(result);
    CHECK(x.name() == "web@1.x");
    CHECK(x.folder() == f.run + "/web@1.x");
    CHECK(x.socket_path() == f.run + "/web@1.x/control.sock");
    CHECK(mode_of(f.run) == 0700);
    CHECK(mode_of(x.folder()) == 0700);
    CHECK(mode_of(x.state_folder()) == 0700);
    CHECK(mode_of(x.folder() + "/supervisor") == 0600);
    CHECK(mode_of(x.folder() + "/lock") == 0600);
    std::ofstream{x.socket_path()} << "stands for a socket";

    running expected{"web@1.x", ::getpid(), config,         "0.1 beta",
                     started,   x.folder(), x.socket_path()};
    CHECK(discover(f.env) == std::vector<running>{expected});
  }
  CHECK(discover(f.env).empty());
  CHECK(fs::exists(f.run + "/web@1.x/lock"));
  CHECK_FALSE(fs::exists(f.run + "/web@1.x/supervisor"));
  CHECK_FALSE(fs::exists(f.run + "/web@1.x/control.sock"));
}

SCENARIO("a moved place keeps the lock, a replaced one gives it up") {
  fixture f;
  auto a = f.opened("a");
  auto b = std::move(a);
  CHECK(discover(f.env).size() == 1);
  b = f.opened("b");
  auto found = discover(f.env);
  REQUIRE(found.size() == 1);
  CHECK(found[0].name == "b");
}

SCENARIO("a name that runs is refused, with the process id") {
  fixture f;
  auto first = f.opened("web");
  auto error = f.refused("web");
  CHECK(error.code == place_errc::already_running);
  CHECK(error.pid == ::getpid());
  CHECK(contains(error.text, "pid " + std::to_string(::getpid())));
  CHECK(fs::exists(first.folder() + "/supervisor"));
  auto other = f.opened("other");
  CHECK(discover(f.env).size() == 2);
}

SCENARIO(
    "of many threads that start one name exactly one wins, also while "
    "others look around") {
  fixture f;
  static_cast<void>(f.opened("web"));
  constexpr int starters = 4;
  constexpr int rounds = 100;
  std::atomic<bool> done{false};
  std::atomic<int> looks{0};
  std::thread looker{[&f, &done, &looks] {
    while (!done) {
      discover(f.env);
      ++looks;
    }
  }};
  std::vector<int> winners(rounds);
  std::atomic<int> others{0};
  std::mutex guard;
  std::barrier meet{starters};
  std::vector<std::thread> threads;
  for (int i = 0; i < starters; ++i)
    threads.emplace_back([&f, &winners, &others, &guard, &meet] {
      for (auto& winner : winners) {
        meet.arrive_and_wait();
        auto result = f.open("web");
        meet.arrive_and_wait();  // the winner holds on until all have tried
        std::lock_guard hold{guard};
        if (std::holds_alternative<place>(result))
          ++winner;
        else if (std::get<place_error>(result).code
                 != place_errc::already_running)
          ++others;
      }
    });
  for (auto& thread : threads)
    thread.join();
  done = true;
  looker.join();
  CHECK(winners == std::vector<int>(rounds, 1));
  CHECK(others == 0);
  CHECK(looks > 0);
}

SCENARIO(
    "of two processes that start one name exactly one wins, and a killed "
    "one leaves nothing that matters") {
  fixture f;
  std::vector<std::string> variables{"TEST_RUN=" + f.run,
                                     "TEST_STATE=" + f.root.path() + "/state"};
  child_process a{"child: hold a place", variables};
  child_process b{"child: hold a place", variables};
  REQUIRE(a.line() == "ready");
  REQUIRE(b.line() == "ready");
  a.order("g");
  b.order("g");
  auto said_a = a.line();
  auto said_b = b.line();
  CHECK(((said_a == "won" && said_b == "lost")
         || (said_a == "lost" && said_b == "won")));
  auto& winner = said_a == "won" ? a : b;
  auto found = discover(f.env);
  REQUIRE(found.size() == 1);
  CHECK(found[0].pid == winner.pid());
  CHECK(f.refused("web").pid == winner.pid());

  winner.kill();
  CHECK(fs::exists(f.run + "/web/supervisor"));
  CHECK(discover(f.env).empty());
  std::ofstream{f.run + "/web/control.sock"} << "left behind";
  auto next = f.opened("web");
  CHECK_FALSE(fs::exists(next.socket_path()));
  found = discover(f.env);
  REQUIRE(found.size() == 1);
  CHECK(found[0].pid == ::getpid());
}

SCENARIO("without its runtime folder a place is nobody else's") {
  fixture f;
  auto x = f.opened("web");
  const auto mark = x.mark();
  CHECK(x.is_open());
  fs::remove_all(f.run);
  CHECK_FALSE(x.is_open());
  CHECK(discover(f.env).empty());

  const auto holder = holder_of_state("web", f.env);
  REQUIRE(holder.has_value());
  CHECK(holder->pid == ::getpid());
  CHECK(holder->folder == f.run + "/web");
  CHECK_FALSE(holder_of_state("other", f.env).has_value());
  // Where others may write it may be one of them who says so.
  const auto kept = f.root.path() + "/state/web";
  REQUIRE(::chmod(kept.c_str(), 0770) == 0);
  CHECK_FALSE(holder_of_state("web", f.env).has_value());
  REQUIRE(::chmod(kept.c_str(), 0700) == 0);

  const auto lost = f.refused("web");
  CHECK(lost.code == place_errc::already_running);
  CHECK(lost.pid == ::getpid());
  CHECK(contains(lost.text,
                 "is already running as pid " + std::to_string(::getpid())));
  CHECK(
      contains(lost.text, "its runtime folder " + f.run + "/web was removed"));
  // And is not made by who is refused.
  CHECK_FALSE(fs::exists(f.run + "/web"));

  auto elsewhere = f.env;
  elsewhere.variable = [&](const std::string& name) {
    return name == "PUP_RUNTIME_DIR" ? f.root.path() + "/run2"
                                     : f.env.variable(name);
  };
  const auto other = open_place("web", elsewhere, {});
  REQUIRE(std::holds_alternative<place_error>(other));
  CHECK(contains(std::get<place_error>(other).text,
                 "set PUP_RUNTIME_DIR to " + f.run));

  CHECK_FALSE(x.open_again({"/etc/new.json", "2", {}}).has_value());
  CHECK(x.is_open());
  CHECK(x.mark() == mark);
  CHECK(discover(f.env).at(0).config == "/etc/new.json");
  CHECK(contains(f.refused("web").text, "pup terminate --name web"));
  // A lock that somebody has removed is taken anew, in a new file.
  fs::remove(f.run + "/web/lock");
  CHECK_FALSE(x.is_open());
  CHECK_FALSE(x.open_again({}).has_value());
  CHECK(discover(f.env).size() == 1);
}

SCENARIO("a place that nobody has cleared is abandoned") {
  fixture f;
  CHECK(abandoned_places(f.env).empty());
  {
    auto x = f.opened("web");
    const auto mark = x.mark();
    CHECK(abandoned_places(f.env).empty());  // somebody has it
    REQUIRE_FALSE(x.tell({"/etc/app/second.json", "1.2.3", {}}));
    x.disown();  // as a kill -9 leaves it
    const auto found = abandoned_places(f.env);
    REQUIRE(found.size() == 1);
    CHECK(found[0].name == "web");
    CHECK(found[0].state_folder == f.root.path() + "/state/web");
    CHECK(found[0].config == "/etc/app/second.json");
    CHECK(found[0].mark == mark);
  }
  {
    const auto next = f.opened("web");
    CHECK(abandoned_places(f.env).empty());
  }
  CHECK(abandoned_places(f.env).empty());  // it has ended in order
}

SCENARIO("who goes on for a predecessor needs no runtime folder") {
  fixture f;
  auto x = f.opened("web");
  const auto locks = [&] {
    return place_locks{unique_fd{::fcntl(x.lock(), F_DUPFD_CLOEXEC, 0)},
                       unique_fd{::fcntl(x.state_lock(), F_DUPFD_CLOEXEC, 0)}};
  };
  const auto go_on = [&] {
    auto taken = locks();
    x.disown();
    auto result =
        open_place("web", f.env, {"/etc/b", "2", {}}, std::move(taken));
    if (auto error = std::get_if<place_error>(&result))
      FAIL(error->text);
    return std::move(std::get<place>(result));
  };
  SECTION("that is there") {
    x = go_on();
    CHECK(x.is_open());
  }
  SECTION("that can be made") {
    fs::remove_all(f.run);
    x = go_on();
    CHECK(x.is_open());
    CHECK(discover(f.env).size() == 1);
  }
  SECTION("that cannot") {
    fs::remove_all(f.run);
    std::ofstream{f.run} << "in its place";
    x = go_on();
    CHECK_FALSE(x.is_open());
    CHECK(x.open_again({}).has_value());
    CHECK(contains(f.refused("web").text, "is already running as pid"));
    fs::remove(f.run);
    CHECK_FALSE(x.open_again({}).has_value());
    CHECK(x.is_open());
  }
}

SCENARIO("a place can do without folders that the machine does not give") {
  fixture f;
  const auto state = f.root.path() + "/state";
  const auto open = [&](const std::string& name) {
    return open_place(name, f.env, {}, {}, without_folder::goes_on);
  };
  std::ofstream{state} << "in its place";
  const auto error = f.refused("web");
  CHECK(error.code == place_errc::system);
  CHECK(contains(error.text, "set PUP_STATE_DIR"));
  WHEN("there is none for the state") {
    auto opened = open("web");
    REQUIRE(std::holds_alternative<place>(opened));
    const auto& x = std::get<place>(opened);
    CHECK(x.state_folder().empty());
    CHECK(x.state_fault() == error.text);
    CHECK(x.is_open());
    THEN("the name is its own all the same") {
      CHECK_FALSE(x.mark().empty());
      const auto second = open("web");
      REQUIRE(std::holds_alternative<place_error>(second));
      CHECK(std::get<place_error>(second).code == place_errc::already_running);
    }
  }
  WHEN("there is none at all") {
    std::ofstream{f.run} << "in its place";
    auto opened = open("web");
    REQUIRE(std::holds_alternative<place>(opened));
    auto& x = std::get<place>(opened);
    CHECK_FALSE(x.is_open());
    CHECK(x.mark().empty());
    CHECK(x.open_again({}).has_value());
    THEN("it has one as soon as that can be made") {
      fs::remove(f.run);
      CHECK_FALSE(x.open_again({}).has_value());
      CHECK(x.is_open());
      CHECK(discover(f.env).size() == 1);
    }
  }
  WHEN("others may write to the one there is") {
    fs::remove(state);
    fs::create_directory(state);
    fs::permissions(state, fs::perms::all);
    const auto opened = open("web");
    REQUIRE(std::holds_alternative<place_error>(opened));
    CHECK(std::get<place_error>(opened).code == place_errc::refused);
  }
}

SCENARIO("unusable names and relative folders are refused") {
  fixture f;
  for (const auto& name :
       {std::string{}, std::string{"."}, std::string{".."}, std::string{"a/b"},
        std::string{"a b"}, std::string{"a\n"}, std::string(65, 'a'),
        std::string{"a\0b", 3}}) {
    auto error = f.refused(name);
    CHECK(error.code == place_errc::invalid);
    CHECK(error.text.find('\n') == std::string::npos);
  }
  CHECK(f.opened(std::string(64, 'a')).name().size() == 64);
  auto relative =
      environment_of({{"PUP_RUNTIME_DIR", "here"}, {"PUP_STATE_DIR", f.run}});
  auto result = open_place("web", relative, {});
  REQUIRE(std::holds_alternative<place_error>(result));
  CHECK(std::get<place_error>(result).code == place_errc::invalid);
  auto homeless = environment_of({{"PUP_RUNTIME_DIR", f.run}}, 7);
  result = open_place("web", homeless, {});
  REQUIRE(std::holds_alternative<place_error>(result));
  CHECK(contains(std::get<place_error>(result).text, "PUP_STATE_DIR"));
}

SCENARIO("a socket path has at most 107 bytes") {
  fixture f;
  auto fixed = f.run.size() + std::string{"//a/control.sock"}.size();
  auto fits = f.run + "/" + std::string(socket_path_bytes - fixed, 'x');
  auto env = environment_of(
      {{"PUP_RUNTIME_DIR", fits}, {"PUP_STATE_DIR", f.root.path() + "/state"}});
  auto result = open_place("a", env, {});
  REQUIRE(std::holds_alternative<place>(result));
  CHECK(std::get<place>(result).socket_path().size() == socket_path_bytes);
  result = open_place("ab", env, {});
  REQUIRE(std::holds_alternative<place_error>(result));
  CHECK(std::get<place_error>(result).code == place_errc::too_long);
  CHECK(contains(std::get<place_error>(result).text, "PUP_RUNTIME_DIR"));
  CHECK_FALSE(fs::exists(fits + "/ab"));
}

SCENARIO("folders that others could tamper with are refused") {
  fixture f;
  fs::create_directories(f.run);
  fs::permissions(f.run, fs::perms::owner_all);
  auto target = f.run + "/web";

  WHEN("the folder is a symbolic link") {
    fs::create_directory(f.root.path() + "/elsewhere");
    fs::create_directory_symlink(f.root.path() + "/elsewhere", target);
    auto error = f.refused("web");
    CHECK(error.code == place_errc::refused);
    CHECK(contains(error.text, target + ": is a symbolic link"));
    CHECK(fs::is_empty(f.root.path() + "/elsewhere"));
  }
  WHEN("the parent is a symbolic link, even spelled with a slash") {
    fs::rename(f.run, f.root.path() + "/elsewhere");
    fs::create_directory_symlink(f.root.path() + "/elsewhere", f.run);
    f.env = environment_of({{"PUP_RUNTIME_DIR", f.run + "/"},
                            {"PUP_STATE_DIR", f.root.path() + "/state"}});
    CHECK(f.refused("web").code == place_errc::refused);
  }
  WHEN("the folder is writable by group or others") {
    for (auto bits : {0770u, 0707u, 01777u}) {
      fs::create_directories(target);
      REQUIRE(::chmod(target.c_str(), bits) == 0);
      auto error = f.refused("web");
      CHECK(error.code == place_errc::refused);
      CHECK(contains(error.text, "writable by other users"));
      CHECK_FALSE(fs::exists(target + "/lock"));
    }
  }
  WHEN("the parent is writable by others") {
    REQUIRE(::chmod(f.run.c_str(), 0777) == 0);
    CHECK(f.refused("web").code == place_errc::refused);
    THEN("the sticky bit makes it acceptable, as in /tmp") {
      REQUIRE(::chmod(f.run.c_str(), 01777) == 0);
      CHECK(f.opened("web").folder() == target);
    }
  }
  WHEN("the state folder is writable by others") {
    auto state = f.root.path() + "/state/web";
    fs::create_directories(state);
    REQUIRE(::chmod(state.c_str(), 0777) == 0);
    auto error = f.refused("web");
    CHECK(error.code == place_errc::refused);
    CHECK(contains(error.text, "PUP_STATE_DIR"));
  }
  WHEN("the lock is a symbolic link") {
    fs::create_directory(target);
    fs::create_symlink(f.root.path() + "/victim", target + "/lock");
    CHECK(f.refused("web").code == place_errc::system);
    CHECK_FALSE(fs::exists(f.root.path() + "/victim"));
  }
  WHEN("a file stands where the folder should be") {
    std::ofstream{target} << "x";
    auto error = f.refused("web");
    CHECK(error.code == place_errc::system);
    CHECK(contains(error.text, target));
  }
}

SCENARIO("folders of another user are refused") {
  if (::geteuid() != 0) {
    WARN("skipped: needs root to give folders away");
    return;
  }
  fixture f;
  constexpr uid_t nobody = 65534;
  auto target = f.run + "/web";
  fs::create_directories(target);
  REQUIRE(::chown(target.c_str(), nobody, nobody) == 0);
  auto error = f.refused("web");
  CHECK(error.code == place_errc::refused);
  CHECK(contains(error.text, "belongs to uid 65534, not to uid 0"));
  REQUIRE(::chown(target.c_str(), 0, 0) == 0);
  REQUIRE(::chown(f.run.c_str(), nobody, nobody) == 0);
  CHECK(f.refused("web").code == place_errc::refused);
}

SCENARIO("discovery skips what is broken or foreign") {
  fixture f;
  CHECK(discover(f.env).empty());  // no parent at all
  auto held = f.opened("held");
  auto starting = f.opened("starting");
  fs::remove(starting.folder() + "/supervisor");
  auto huge = f.opened("huge");
  std::ofstream{huge.folder() + "/supervisor"}
      << "pid 7\nnonsense\nconfig " << std::string(1u << 20, 'x') << "\n";
  auto odd = f.opened("odd");
  fs::remove(odd.folder() + "/supervisor");
  REQUIRE(::mkfifo((odd.folder() + "/supervisor").c_str(), 0600) == 0);

  fs::create_directory(f.run + "/empty");
  fs::create_directory(f.run + "/fifo");
  REQUIRE(::mkfifo((f.run + "/fifo/lock").c_str(), 0600) == 0);
  fs::create_directory_symlink(held.folder(), f.run + "/link");
  std::ofstream{f.run + "/file"} << "x";
  fs::create_directory(f.run + "/bad name");

  auto found = discover(f.env);
  REQUIRE(found.size() == 4);
  CHECK(found[0].name == "held");
  CHECK(found[0].pid == ::getpid());
  CHECK(found[1].name == "huge");
  CHECK(found[1].pid == 7);
  CHECK(found[1].config.size() < 64 * 1024);  // the bound on the file
  CHECK(found[2].name == "odd");
  CHECK(found[2].pid == 0);
  CHECK(found[3].name == "starting");
  CHECK(found[3].pid == 0);
  CHECK(f.refused("starting").pid == 0);

  if (::geteuid() == 0) {
    REQUIRE(::chown(held.folder().c_str(), 65534, 65534) == 0);
    auto owner = f.env;
    owner.user = 65534;
    CHECK(discover(owner).size() == 1);
    // Root's are all.
    CHECK(discover(f.env).size() == 4);
  }
}

SCENARIO("a file means a supervisor by its name, else by its path") {
  const auto web =
      supervisor("web", "/srv/current/pup.json", {"/srv/releases/1/pup.json"});
  const auto blue = supervisor("blue", "/srv/b/pup.json");
  const auto api = supervisor("api", "/home/x/api/pup.json");
  const auto words = supervisor("api", "");
  const auto former = supervisor("pup", "/srv/b/pup.json");
  auto linked = web;
  linked.resolved = "/srv/releases/2/pup.json";
  struct row {
    std::vector<running> all;
    config_file file;
    std::string expected;
  };
  const std::vector<row> rows{
      // its name, wherever it stands
      {{web, blue}, file_at("/tmp/new.json", {}, "web"), "web"},
      {{web, blue}, file_at("/srv/b/pup.json", {}, "web"), "web"},
      // a name that does not run: its path
      {{web, blue}, file_at("/srv/b/pup.json", {}, "green"), "blue"},
      {{web, blue}, file_at("/tmp/new.json", {}, "green"), "none"},
      // its path, as it is written and as it was resolved, then and now
      {{web, blue}, file_at("/srv/current/pup.json"), "web"},
      {{web, blue}, file_at("/srv/releases/1/pup.json"), "web"},
      {{web, blue}, file_at("/srv/releases/2/pup.json"), "none"},
      {{linked, blue},
       file_at("/srv/releases/2/pup.json", "/srv/releases/2/pup.json"),
       "web"},
      {{web, blue}, file_at("/srv/x/pup.json", "/srv/b/pup.json"), "blue"},
      {{former, web}, file_at("/srv/b/pup.json"), "pup"},
      // what runs counts for more than what has run
      {{web, supervisor("one", "/srv/releases/1/pup.json")},
       file_at("/srv/releases/1/pup.json"),
       "one"},
      // another file of the same folder, if that has given the name
      {{api, blue},
       file_at("/home/x/api/other.json", "/home/x/api/other.json"),
       "api"},
      // and is there: a misspelt one means nobody
      {{api, blue}, file_at("/home/x/api/othre.json"), "none"},
      {{api, blue}, file_at("/home/y/api/pup.json"), "none"},
      {{words}, file_at("/home/x/api/pup.json"), "none"},
      {{blue}, file_at("/srv/b/other.json"), "none"},
      // several of one file
      {{blue, former}, file_at("/srv/b/pup.json"), "? blue pup"},
  };
  for (std::size_t i = 0; i < rows.size(); ++i) {
    INFO("row " << i);
    const auto never = [](const running&, const std::string&) { return false; };
    CHECK(decided(choose(rows[i].all, {{}, rows[i].file, "/", {}, {}}, never))
          == rows[i].expected);
  }
}

SCENARIO("a file without a name gets that of its folder") {
  for (const auto& [folder, name] :
       std::vector<std::pair<std::string, std::string>>{
           {"/srv/web", "web"},
           {"/srv/my app", "myapp"},
           {"/srv/caf\xc3\xa9", "caf"},
           {"/srv/\xc3\xa9", "pup"},
           {"/srv/..\xc3\xa9", "pup"},
           {"/", "pup"},
           {"", "pup"},
           {"/srv/" + std::string(80, 'x'), std::string(64, 'x')},
       }) {
    INFO(folder);
    CHECK(default_name(folder) == name);
  }
}

SCENARIO("a supervisor is known by the paths that it has had") {
  fixture f;
  fs::create_directories(f.root.path() + "/1");
  std::ofstream{f.root.path() + "/1/pup.json"} << "{}";
  fs::create_symlink("1", f.root.path() + "/current");
  const auto written = f.root.path() + "/current/pup.json";
  const auto first = fs::canonical(written).string();
  start_facts facts;
  change_config(facts, written, first);
  CHECK(facts.config == written);
  CHECK(facts.known == std::vector<std::string>{first});
  auto opened = open_place("web", f.env, facts);
  REQUIRE(std::holds_alternative<place>(opened));
  CHECK(discover(f.env).at(0).resolved == first);

  change_config(facts, "/etc/a b%0A\n/x.json", {});
  CHECK_FALSE(std::get<place>(opened).tell(facts).has_value());
  const auto now = discover(f.env).at(0);
  CHECK(now.config == "/etc/a b%0A\n/x.json");
  CHECK(now.known == std::vector<std::string>{written, first});
  CHECK(known_paths(text_of(facts)) == now.known);

  // Not without end, nor twice.
  for (int i = 0; i < 100; ++i)
    change_config(facts, "/srv/" + std::to_string(i % 50), {});
  CHECK(facts.known.size() == 16);
  CHECK(facts.known.front() == "/srv/48");
}

SCENARIO("the supervisor that is meant") {
  const auto a = supervisor("a", "/srv/a/pup.json");
  const auto b = supervisor("b", "/srv/b/pup.json");
  const auto b2 = supervisor("b2", "/srv/b/other.json");
  const auto bare = supervisor("bare", "");
  using strings = std::vector<std::string>;
  struct row {
    std::vector<running> all;
    wanted_supervisor wanted;
    strings with_id;
    std::string expected;
  };
  constexpr auto no = std::nullopt;
  const std::vector<row> rows{
      // nothing runs
      {{}, {no, no, "/", no}, {}, "none"},
      {{}, {"a", no, "/", "x"}, {}, "none"},
      // --name and --config are exact, whatever else fits
      {{a, b}, {"b", no, "/srv/a", "x"}, {"a"}, "b"},
      {{a, b}, {"c", no, "/srv/a", "x"}, {"a"}, "none"},
      {{a, b}, {no, file_at("/srv/b/pup.json"), "/srv/a", no}, {}, "b"},
      {{a, b}, {no, file_at("/srv/c/pup.json"), "/srv/a", no}, {}, "none"},
      {{a, b}, {"a", file_at("/srv/b/pup.json"), "/", no}, {}, "none"},
      {{a, b}, {"b", file_at("/srv/b/pup.json"), "/", no}, {}, "b"},
      // this folder, before the only one that has the id
      {{a, b}, {no, no, "/srv/b", no}, {}, "b"},
      {{a, b}, {no, no, "/srv/b", "x"}, {"a"}, "b"},
      {{a, b}, {no, no, "/srv", no}, {}, "? a b"},
      // the config in this folder, and nobody else where that does not run
      {{a}, {no, no, "/srv/c", no, file_at("/srv/c/pup.json")}, {}, "not c"},
      {{a},
       {no, no, "/srv/c", "x", file_at("/srv/c/pup.json")},
       {"a"},
       "not c"},
      {{a},
       {no, no, "/srv/c", no, file_at("/srv/c/pup.json", {}, "a")},
       {},
       "a"},
      {{a, b}, {no, no, "/srv/b", no, file_at("/srv/b/pup.json")}, {}, "b"},
      {{b2}, {no, no, "/srv/b", no, file_at("/srv/b/pup.json")}, {}, "b2"},
      {{}, {no, no, "/srv/c", no, file_at("/srv/c/pup.json")}, {}, "none"},
      // the only one
      {{a}, {no, no, "/elsewhere", no}, {}, "a"},
      {{a}, {no, no, "/elsewhere", "x"}, {}, "a"},
      {{bare}, {no, no, "/", no}, {}, "bare"},
      {{a, bare}, {no, no, "", no}, {}, "? a bare"},
      // the one that has the id
      {{a, b}, {no, no, "/elsewhere", "x"}, {"b"}, "b"},
      {{a, b}, {no, no, "/elsewhere", "x"}, {}, "? a b"},
      {{a, b, bare}, {no, no, "/elsewhere", "x"}, {"a", "b"}, "? a b"},
      // several in this folder: the id decides among them, then among all
      {{a, b, b2}, {no, no, "/srv/b", no}, {}, "? b b2"},
      {{a, b, b2}, {no, no, "/srv/b", "x"}, {"a", "b2"}, "b2"},
      {{a, b, b2}, {no, no, "/srv/b", "x"}, {"a"}, "a"},
      {{a, b, b2}, {no, no, "/srv/b", "x"}, {}, "? b b2"},
  };
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto& x = rows[i];
    auto has_id = [&x](const running& candidate, const std::string& id) {
      return id == "x"
             && std::find(x.with_id.begin(), x.with_id.end(), candidate.name)
                    != x.with_id.end();
    };
    INFO("row " << i);
    CHECK(decided(choose(x.all, x.wanted, has_id)) == x.expected);
  }
}
