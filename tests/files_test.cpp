// Files under watch as a port: the thread behind it, and what never counts.
#include "pup/runtime/files.hpp"

#include "pup/config/glob.hpp"

#include "catch.hpp"
#include "child_process.hpp"
#include "without_threads.hpp"

#include <boost/asio/io_context.hpp>

#include <condition_variable>
#include <fstream>
#include <mutex>

#include <unistd.h>

using namespace pup;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

// News from the port's thread.
struct mailbox {
  std::mutex mutex;
  std::condition_variable more;
  std::vector<watch_news> news;

  std::function<void(const watch_news&)> receiver() {
    return [this](const watch_news& x) {
      const std::lock_guard guard{mutex};
      news.push_back(x);
      more.notify_one();
    };
  }

  std::string next_change() {
    std::unique_lock guard{mutex};
    std::string result;
    more.wait_for(guard, test::patience, [&] {
      for (const auto& x : news)
        if (result.empty())
          result = x.changed;
      return !result.empty();
    });
    news.clear();
    return result;
  }
};

void write(const fs::path& path) {
  std::ofstream{path} << "x";
}

bool counts(const std::string& path, const pup_spec& spec) {
  for (const auto& x : own_files(spec)) {
    const auto parsed = path_glob::parse(x);
    REQUIRE(std::holds_alternative<path_glob>(parsed));
    if (std::get<path_glob>(parsed).covers(path))
      return false;
  }
  return true;
}

}  // namespace

TEST_CASE("changes are told as long as the watch is held") {
  const test::temporary_folder box;
  const fs::path folder{box.path()};
  mailbox first;
  mailbox second;
  const auto files = real_file_watch({glob_of_path(box.path() + "/own")});
  watch_request wanted;
  wanted.paths = {box.path()};
  wanted.rules.interval = 1ms;
  auto one = files.begin(wanted, first.receiver());
  const auto other = files.begin(wanted, second.receiver());
  fs::create_directory(folder / "own");
  // The watches begin on their own thread: what is there by then is no change.
  std::string told;
  for (int i = 0; told.empty() && i < 1000; ++i) {
    write(folder / "own" / "x");
    write(folder / "file");
    const std::unique_lock guard{first.mutex};
    told = first.news.empty() ? "" : first.news.front().changed;
  }
  CHECK((told.empty() ? first.next_change() : told) == box.path() + "/file");
  CHECK(second.next_change() == box.path() + "/file");
  one.reset();
  // A call may be under way; whoever is told of "last" is told after the end.
  const auto write_and_await = [&](const std::string& name) {
    do
      write(folder / name);
    while (second.next_change() != box.path() + '/' + name);
  };
  write_and_await("last");
  {
    const std::lock_guard guard{first.mutex};
    first.news.clear();
  }
  write_and_await("after");
  const std::lock_guard guard{first.mutex};
  CHECK(first.news.empty());
}

namespace {

/// 0: as it should be.
int watch_without_threads(const std::string& folder) {
  boost::asio::io_context clock;
  mailbox box;
  const auto files = real_file_watch({}, "/", &clock);
  watch_request wanted;
  wanted.paths = {folder};
  wanted.rules.interval = 1ms;
  const auto held = files.begin(wanted, box.receiver());
  if (box.news.size() != 1 || box.news[0].trouble.find("no thread") != 0)
    return 3;
  test::allow_threads(1'000);
  clock.run_for(test::patience);
  {
    std::unique_lock guard{box.mutex};
    if (!box.more.wait_for(guard, test::patience,
                           [&] { return box.news.size() == 2; })
        || !box.news[1].trouble.empty())
      return 4;
  }
  for (int i = 0; i < 1'000; ++i) {
    write(fs::path{folder} / "file");
    const std::unique_lock guard{box.mutex};
    if (!box.news.back().changed.empty())
      return 0;
  }
  return box.next_change().empty() ? 5 : 0;
}

}  // namespace

TEST_CASE("without a thread the files are watched later") {
  if (::geteuid() != 0) {
    WARN("skipped: needs root, to act as a user who may have no threads");
    return;
  }
  const test::temporary_folder box;
  const auto user = test::user_without_threads;
  REQUIRE(::chown(box.path().c_str(), user, user) == 0);
  CHECK(test::run_without_threads(
            [&] { return watch_without_threads(box.path()); })
        == 0);
}

TEST_CASE("what pup writes itself never counts") {
  pup_spec spec;
  spec.logger.output.stdout_file = "/srv/all.log";
  auto& x = spec.processes.emplace_back();
  x.output.stdout_file = "/srv/logs/%{id}.out";
  x.output.stderr_file = "/srv/[odd]*.err";
  x.pid_file = "/srv/run/%{id}.pid";
  CHECK_FALSE(counts("/srv/run/web-3.pid", spec));
  CHECK_FALSE(counts("/srv/all.log", spec));
  CHECK_FALSE(counts("/srv/all.log-20261124T031314Z", spec));
  CHECK_FALSE(counts("/srv/all.log-20261124T031314Z.gz", spec));
  CHECK(counts("/srv/all.logs", spec));
  CHECK_FALSE(counts("/srv/logs/web-3.out", spec));
  CHECK(counts("/srv/logs/web-3.ts", spec));
  CHECK_FALSE(counts("/srv/[odd]*.err", spec));
  CHECK(counts("/srv/o.err", spec));
}
