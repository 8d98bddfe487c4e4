// Starts that nobody waits for, with programs that do not answer.
#include "pup/runtime/spawn_pool.hpp"

#include "pup/runtime/spawner.hpp"

#include "catch.hpp"
#include "child_process.hpp"
#include "held_file.hpp"

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include <sys/wait.h>

namespace {

using namespace pup;
using namespace std::chrono_literals;
using test::held_file;
using test::patience;
using test::temporary_folder;

/// A pool, and what has become of its starts.
class watched_pool {
public:
  spawn_pool& operator*() {
    return pool_;
  }
  spawn_pool* operator->() {
    return &pool_;
  }

  explicit watched_pool(spawn_pool::starter how = &spawn)
      : pool_{[this] {
                const std::lock_guard lock{mutex_};
                told_ = true;
                news_.notify_one();
              },
              ~std::uint64_t{0}, std::move(how)} {}

  void start(std::uint64_t number, const std::string& program,
             const std::string& owner = {}) {
    pool_.start(number, owner, {{program}, {}, "/", -1, -1, -1}, {});
  }

  /// Waits until it is decided.
  std::variant<child, os_fault>& operator[](std::uint64_t number) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!is_decided(number)) {
      std::unique_lock lock{mutex_};
      REQUIRE(news_.wait_until(lock, deadline, [&] { return told_; }));
      told_ = false;
    }
    return decided_.at(number);
  }

  /// Waits until more may be begun, of which it is to be told.
  void await_room() {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!pool_.has_room()) {
      std::unique_lock lock{mutex_};
      REQUIRE(news_.wait_until(lock, deadline, [&] { return told_; }));
      told_ = false;
    }
  }

  bool is_decided(std::uint64_t number) {
    for (auto& x : pool_.take())
      decided_.emplace(x.number, std::move(x.what));
    return decided_.count(number) != 0;
  }

private:
  std::mutex mutex_;
  std::condition_variable news_;
  bool told_ = false;
  std::map<std::uint64_t, std::variant<child, os_fault>> decided_;
  spawn_pool pool_;
};

siginfo_t end_of(const std::variant<child, os_fault>& x) {
  const auto* born = std::get_if<child>(&x);
  REQUIRE(born != nullptr);
  siginfo_t info{};
  REQUIRE(
      ::waitid(P_PIDFD, static_cast<id_t>(born->pidfd.get()), &info, WEXITED)
      == 0);
  return info;
}

bool succeeded(const std::variant<child, os_fault>& x) {
  const auto info = end_of(x);
  return info.si_code == CLD_EXITED && info.si_status == 0;
}

bool was_killed(const std::variant<child, os_fault>& x) {
  const auto info = end_of(x);
  return info.si_code == CLD_KILLED && info.si_status == SIGKILL;
}

std::string copy_of_true(const temporary_folder& folder) {
  const auto path = folder.path() + "/true";
  std::filesystem::copy_file("/bin/true", path);
  return path;
}

bool cannot_hold(const held_file& x) {
  if (!x)
    WARN("this file system knows no leases: no program can be held up");
  return !x;
}

}  // namespace

TEST_CASE("programs are started, and failures told as by spawn()") {
  watched_pool pool;
  pool.start(1, "/bin/true");
  pool.start(2, "/no/such");
  pool.start(3, "/bin/true");
  CHECK(succeeded(pool[1]));
  CHECK(std::get<os_fault>(pool[2]).call == "exec");
  CHECK(std::get<os_fault>(pool[2]).code == ENOENT);
  CHECK(succeeded(pool[3]));
  CHECK_FALSE(pool->busy());
}

TEST_CASE("descriptors are kept until they are passed on") {
  const temporary_folder folder;
  const auto path = folder.path() + "/out";
  watched_pool pool;
  std::vector<unique_fd> owned;
  owned.emplace_back(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  const auto out = owned.front().get();
  pool->start(1, {}, {{"/bin/echo", "hello"}, {}, "/", -1, out, -1},
              std::move(owned));
  CHECK(succeeded(pool[1]));
  std::string line;
  std::getline(std::ifstream{path}, line);
  CHECK(line == "hello");
  CHECK(::fcntl(out, F_GETFD) < 0);
}

TEST_CASE("a program that does not answer holds up no other start") {
  const temporary_folder folder;
  const auto program = copy_of_true(folder);
  held_file held{program};
  if (cannot_hold(held))
    return;
  watched_pool pool;
  pool.start(1, program);
  for (std::uint64_t i = 2; i < 30; ++i)
    pool.start(i, "/bin/true");
  for (std::uint64_t i = 2; i < 30; ++i)
    CHECK(succeeded(pool[i]));
  CHECK_FALSE(pool.is_decided(1));
  CHECK(pool->busy());
  held.release();
  CHECK(succeeded(pool[1]));
}

TEST_CASE("a start that takes long can be killed") {
  const temporary_folder folder;
  const auto program = copy_of_true(folder);
  held_file held{program};
  if (cannot_hold(held))
    return;
  watched_pool pool;
  pool.start(1, program);
  // Begins when the first one has been under way for a while.
  for (std::uint64_t i = 2; i < 5; ++i)
    pool.start(i, "/bin/true");
  for (std::uint64_t i = 2; i < 5; ++i)
    CHECK(succeeded(pool[i]));
  pool->kill(1);
  CHECK(was_killed(pool[1]));
}

TEST_CASE("more starts that take long than fit are refused, not queued") {
  const temporary_folder folder;
  const auto program = copy_of_true(folder);
  held_file held{program};
  if (cannot_hold(held))
    return;
  watched_pool pool;
  // They begin one after the other, each after `patience`. Once all that fit
  // are under way the next one is refused at once.
  std::uint64_t last = 0;
  do {
    pool.await_room();
    ++last;  // each of an owner of its own
    pool.start(last, program, std::to_string(last));
  } while (!pool.is_decided(last));
  CHECK(std::get<os_fault>(pool[last]).code == EAGAIN);
  CHECK(last > bounds::starts_at_once);
  CHECK(last <= bounds::starts_at_once + bounds::waiting_starts + 1);
  pool->kill(1);
  CHECK(was_killed(pool[1]));
  held.release();
  for (std::uint64_t i = 2; i < last; ++i)
    CHECK(succeeded(pool[i]));
  pool.start(last + 1, "/bin/true");
  CHECK(succeeded(pool[last + 1]));
}

TEST_CASE("starts of one owner that do not answer leave room for others") {
  // No signal ends such a one, as where a file system hangs.
  // Its threads may outlive the pool, and this test.
  struct shared {
    std::mutex gate;
    std::atomic<std::uint64_t> begun{0};
  };
  const auto common = std::make_shared<shared>();
  const auto& begun = common->begun;
  std::unique_lock closed{common->gate};
  watched_pool pool{
      [common](const spawn_request& request, const spawn_aids& aids) {
        if (request.argv.front() != "stuck")
          return spawn(request, aids);
        ++common->begun;
        const std::lock_guard wait{common->gate};
        return std::variant<child, os_fault>{os_fault{"exec", "stuck", ENOENT}};
      }};
  std::uint64_t last = 0;
  while (begun == last) {
    pool.start(++last, "stuck", "web");
    while (begun != last && !pool.is_decided(last))
      std::this_thread::yield();
    pool->kill(last);  // gives it up: its thread does not come back
    REQUIRE(std::holds_alternative<os_fault>(pool[last]));
  }
  CHECK(std::get<os_fault>(pool[last]).code == EAGAIN);
  CHECK(last > bounds::stuck_starts);
  CHECK(last < bounds::starts_at_once);
  pool.start(1000, "/bin/true", "other");
  CHECK(succeeded(pool[1000]));
  closed.unlock();
  // Again as soon as enough of them are over.
  do
    pool.start(++last, "/bin/true", "web");
  while (std::holds_alternative<os_fault>(pool[last]));
  CHECK(succeeded(pool[last]));
}

TEST_CASE("instances and their hooks share a bound, units do not") {
  CHECK(unit_in_key("web-12") == "web");
  CHECK(unit_in_key("web-12!preStart") == "web");
  CHECK(unit_in_key("web") == "web");
  CHECK(unit_in_key("web!preStart") == "web");
  CHECK(unit_in_key("web12") == "web12");
  CHECK(unit_in_key("web-") == "web-");
  CHECK(unit_in_key("-1") == "-1");
  CHECK(unit_in_key("12") == "12");
  CHECK(unit_in_key("") == "");
}

TEST_CASE("no start survives its pool") {
  const temporary_folder folder;
  const auto program = copy_of_true(folder);
  held_file held{program};
  if (cannot_hold(held))
    return;
  {
    watched_pool pool;
    pool.start(1, program);
    for (std::uint64_t i = 2; i < 5; ++i)
      pool.start(i, "/bin/cat");  // waits for nothing: /dev/null
    CHECK(succeeded(pool[2]));
    CHECK(succeeded(pool[3]));
    CHECK(succeeded(pool[4]));
  }
  // Its threads reap what was under way.
  siginfo_t info{};
  while (::waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0)
    std::this_thread::yield();
  CHECK(errno == ECHILD);
}
