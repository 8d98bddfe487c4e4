// Files under watch, against the kernel.
#include "pup/runtime/watcher.hpp"

#include "catch.hpp"
#include "child_process.hpp"

#define BOOST_ASIO_NO_DEPRECATED
#include <boost/asio/io_context.hpp>

#include <fstream>
#include <functional>

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

using namespace pup;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

using test::temporary_folder;
using texts = std::vector<std::string>;

void write(const fs::path& path, const std::string& text = "x") {
  std::ofstream{path} << text;
}

// One watcher over the folder `root`, and what it has told.
struct watched {
  temporary_folder box;
  fs::path folder{box.path()};
  fs::path root = folder / "root";
  boost::asio::io_context loop;
  std::vector<file_news> news;
  std::string trouble;  // by now
  watch_wish wish;
  std::optional<watcher> it;

  watched() {
    fs::create_directories(root / "src" / "deep");
    write(root / "src" / "old.ts");
    wish.paths = {root.string()};
    wish.base = root.string();
    wish.rules.interval = 20ms;
  }

  void begin() {
    it.emplace(loop);
    it->add(wish, [this](const file_news& x) {
      news.push_back(x);
      trouble = x.trouble;
    });
  }

  bool until(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + test::patience;
    while (!condition() && std::chrono::steady_clock::now() < end)
      loop.run_one_for(100ms);
    return condition();
  }

  // The next change; "?": none came.
  std::string next() {
    const auto has = [this] {
      return std::any_of(news.begin(), news.end(),
                         [](const file_news& x) { return !x.changed.empty(); });
    };
    if (!until(has))
      return "?";
    const auto first =
        std::find_if(news.begin(), news.end(),
                     [](const file_news& x) { return !x.changed.empty(); });
    auto result = first->changed;
    news.erase(news.begin(), first + 1);
    return result;
  }

  // A change that must not be told is followed by one that is: events come in
  // order.
  std::string after_marker() {
    write(root / "marker");
    return next();
  }
};

}  // namespace

TEST_CASE_METHOD(watched, "a written file is told, seen from the base") {
  begin();
  write(root / "src" / "server.ts");
  CHECK(next() == "src/server.ts");
  write(root / "src" / "old.ts", "new");
  CHECK(next() == "src/old.ts");
}

TEST_CASE_METHOD(watched, "what counts as a change and what does not") {
  const auto old = (root / "src" / "old.ts").string();
  begin();
  SECTION("reading, modes, times and empty folders are none") {
    std::ifstream{old}.get();
    ::chmod(old.c_str(), 0600);
    fs::create_directory(root / "empty");
    fs::remove(root / "empty");
    CHECK(after_marker() == "marker");
  }
  SECTION("a file is told when it is closed, not while it is written") {
    unique_fd slow{::open((root / "slow").c_str(), O_CREAT | O_WRONLY, 0600)};
    CHECK(::write(slow.get(), "half", 4) == 4);
    CHECK(after_marker() == "marker");
    slow.reset();
    CHECK(next() == "slow");
  }
  SECTION("an editor's rename over the old one") {
    write(root / "src" / ".old.ts.swp");
    fs::rename(root / "src" / ".old.ts.swp", old);
    CHECK(next() == "src/old.ts");
  }
  SECTION("removal") {
    fs::remove(old);
    CHECK(next() == "src/old.ts");
  }
  SECTION("links, which nobody opens to write") {
    fs::create_hard_link(old, root / "hard");
    CHECK(next() == "hard");
    fs::create_symlink(old, root / "soft");
    CHECK(next() == "soft");
  }
}

TEST_CASE_METHOD(watched, "a burst is told once") {
  wish.rules.interval = 200ms;
  begin();
  for (int i = 0; i < 200; ++i)
    write(root / "src" / std::to_string(i));
  CHECK(next() == "src/0");
  write(root / "last");
  CHECK(next() == "last");
}

TEST_CASE_METHOD(watched, "a burst without an end is told all the same") {
  begin();
  const auto end = std::chrono::steady_clock::now() + test::patience;
  while (news.empty() && std::chrono::steady_clock::now() < end) {
    write(root / "busy");
    loop.run_one_for(1ms);
  }
  REQUIRE(news.size() == 1);
  CHECK(news[0].changed == "busy");
}

TEST_CASE_METHOD(watched,
                 "folders that come are watched, with what is in them") {
  begin();
  SECTION("made, several at once") {
    fs::create_directories(root / "a" / "b" / "c");
    write(root / "a" / "b" / "c" / "first");
    CHECK(next() == "a/b/c/first");
    write(root / "a" / "b" / "c" / "second");
    CHECK(next() == "a/b/c/second");
  }
  SECTION("moved in and out again") {
    fs::create_directories(folder / "away" / "sub");
    write(folder / "away" / "sub" / "file");
    fs::rename(folder / "away", root / "here");
    CHECK(next() == "here/sub/file");
    write(root / "here" / "sub" / "file", "again");
    CHECK(next() == "here/sub/file");
    fs::rename(root / "here", folder / "away");
    CHECK(next() == "here");
    write(folder / "away" / "sub" / "file", "no longer");
    CHECK(after_marker() == "marker");
  }
  SECTION("renamed within") {
    fs::rename(root / "src", root / "lib");
    CHECK(next() == "src");
    write(root / "lib" / "deep" / "file");
    CHECK(next() == "lib/deep/file");
  }
}

TEST_CASE_METHOD(watched, "the watched folder goes and comes back") {
  begin();
  fs::remove_all(root);
  CHECK(next() != "?");
  REQUIRE(until([this] { return trouble != ""; }));
  CHECK(trouble == root.string() + ": no such file or folder yet");
  fs::create_directory(root);
  CHECK(next() == root.string());
  REQUIRE(until([this] { return trouble == ""; }));
  write(root / "file");
  CHECK(next() == "file");
}

TEST_CASE_METHOD(watched, "what does not exist yet is waited for") {
  wish.paths = {(root / "later" / "on" / "app.conf").string()};
  begin();
  REQUIRE(until([this] { return trouble != ""; }));
  fs::create_directory(root / "later");
  write(root / "later" / "other");
  fs::create_directory(root / "later" / "on");
  write(root / "later" / "on" / "app.conf");
  CHECK(next() == "later/on/app.conf");
}

TEST_CASE_METHOD(watched, "a single file, whatever the rules say") {
  wish.rules.exts = {"js"};
  wish.paths = {(root / "app.conf").string()};
  write(root / "app.conf");
  begin();
  write(root / "app.conf", "written in place");
  CHECK(next() == "app.conf");
  write(root / "app.conf.new", "the next");
  write(root / "other");
  fs::rename(root / "app.conf.new", root / "app.conf");
  CHECK(next() == "app.conf");
  write(root / "app.conf", "and still watched");
  CHECK(next() == "app.conf");
}

TEST_CASE_METHOD(watched,
                 "symbolic links are not followed, but a watched one") {
  const auto elsewhere = folder / "elsewhere";
  fs::create_directory(elsewhere);
  SECTION("below the watched folder") {
    fs::create_directory_symlink(elsewhere, root / "link");
    fs::create_directory_symlink(root, root / "circle");
    begin();
    write(elsewhere / "file");
    CHECK(after_marker() == "marker");
  }
  SECTION("the watched folder itself, put in place of another") {
    const auto current = folder / "current";
    fs::create_directory_symlink(root, current);
    wish.paths = {current.string()};
    wish.base = folder.string();
    begin();
    write(root / "file");
    CHECK(next() == "current/file");
    fs::create_directory_symlink(elsewhere, folder / "new");
    fs::rename(folder / "new", current);
    CHECK(next() == "current");
    write(elsewhere / "file");
    CHECK(next() == "current/file");
  }
}

// A volume as Kubernetes makes it: names lead through one link to the files of
// a version, and that link is replaced.
struct volume : watched {
  fs::path data = folder / "volume";

  volume() {
    fs::create_directories(data);
    make_version("..1", "old");
    fs::create_directory_symlink("..1", data / "..data");
    fs::create_symlink("..data/app.conf", data / "app.conf");
    wish.base = data.string();
  }

  void make_version(const std::string& name, const std::string& text) {
    fs::create_directories(data / name);
    write(data / name / "app.conf", text);
  }

  void swap_to(const std::string& name) {
    fs::create_directory_symlink(name, data / "..data_tmp");
    fs::rename(data / "..data_tmp", data / "..data");
  }
};

TEST_CASE_METHOD(volume, "a link in the middle of the path leads elsewhere") {
  SECTION("of a watched file") {
    wish.paths = {(data / "app.conf").string()};
  }
  SECTION("of a watched folder, in which the file is a link") {
    wish.paths = {data.string()};
  }
  begin();
  for (const std::string version : {"..2", "..3"}) {
    INFO(version);
    make_version(version, version);
    swap_to(version);
    CHECK(next() == "app.conf");
  }
  // The end of a former version is no change.
  fs::remove_all(data / "..1");
  fs::remove_all(data / "..2");
  write(data / "..3" / "app.conf", "written in place");
  if (wish.paths.front() != data.string())
    CHECK(next() == "app.conf");
  news.clear();
  make_version("..4", "new");
  swap_to("..4");
  CHECK(next() == "app.conf");
  CHECK(news.empty());
}

TEST_CASE_METHOD(watched, "releases behind a link are watched as they follow") {
  for (const auto* name : {"1", "2"}) {
    fs::create_directories(root / "releases" / name / "src");
    write(root / "releases" / name / "src" / "a.ts");
  }
  const auto relink = [this](const std::string& to) {
    fs::remove(root / "current.new");
    fs::create_directory_symlink(to, root / "current.new");
    fs::rename(root / "current.new", root / "current");
  };
  relink("releases/1");
  wish.paths = {(root / "current" / "src").string()};
  begin();
  relink((root / "releases" / "2").string());
  CHECK(next() == "current/src");
  write(root / "releases" / "1" / "src" / "a.ts", "nobody looks");
  write(root / "releases" / "2" / "src" / "a.ts", "new");
  CHECK(next() == "current/src/a.ts");
  SECTION("a link that leads nowhere for a while") {
    relink("releases/3");
    CHECK(next() == "current/src");
    fs::create_directories(root / "releases" / "3" / "src");
    CHECK(next() == "current/src");
    write(root / "releases" / "3" / "src" / "b.ts");
    CHECK(next() == "current/src/b.ts");
  }
  SECTION("links without end") {
    relink("current");
    CHECK(next() == "current/src");
    relink("releases/1");
    CHECK(next() == "current/src");
  }
}

TEST_CASE_METHOD(watched, "endings, patterns and what is skipped") {
  SECTION("exts") {
    wish.rules.exts = {"ts", "tar.gz"};
    begin();
    write(root / "a.js");
    write(root / "ts");
    write(root / ".ts");
    write(root / "b.tar.gz");
    CHECK(next() == "b.tar.gz");
    write(root / "src" / "c.ts");
    CHECK(next() == "src/c.ts");
  }
  SECTION("match") {
    wish.rules.match = {"src/**/*.ts"};
    begin();
    write(root / "a.ts");
    write(root / "src" / "deep" / "b.ts");
    CHECK(next() == "src/deep/b.ts");
  }
  SECTION("skip, by default hidden ones and what tools write") {
    for (const auto* name : {".git", "node_modules", "src/.idea"})
      fs::create_directories(root / name);
    begin();
    write(root / ".git" / "index");
    write(root / "node_modules" / "x.js");
    write(root / "src" / ".idea" / "x");
    write(root / "src" / "old.ts~");
    fs::create_directories(root / "src" / "__pycache__");
    write(root / "src" / "__pycache__" / "x.pyc");
    CHECK(after_marker() == "marker");
  }
  SECTION("what pup writes itself") {
    wish.own = {(root / "logs").string(),
                (root / "app.log").string() + "{,-[0-9]*}"};
    fs::create_directories(root / "logs");
    begin();
    write(root / "logs" / "0000000001.log");
    write(root / "app.log");
    write(root / "app.log-20261124T031314Z.gz");
    CHECK(after_marker() == "marker");
  }
}

TEST_CASE_METHOD(watched, "two watches of one folder do not meet") {
  begin();
  std::vector<std::string> other;
  auto second = wish;
  second.rules.exts = {"js"};
  second.paths = {(root / "src").string()};
  const auto number =
      it->add(second, [&](const file_news& x) { other.push_back(x.changed); });
  write(root / "src" / "a.ts");
  CHECK(next() == "src/a.ts");
  write(root / "src" / "b.js");
  CHECK(next() == "src/b.js");
  REQUIRE(until([&] { return other.size() == 1; }));
  CHECK(other == texts{"src/b.js"});
  it->remove(number);
  write(root / "src" / "c.js");
  CHECK(next() == "src/c.js");
  CHECK(other.size() == 1);
}

TEST_CASE_METHOD(watched,
                 "the kernel's queue overflows: all is looked through") {
  begin();
  loop.run_one_for(1ms);
  // Names that follow each other differ, or the kernel would take two for one.
  int most = 16384;
  std::ifstream{"/proc/sys/fs/inotify/max_queued_events"} >> most;
  for (int i = 0; i < most / 2 + 100; ++i) {
    fs::create_symlink("x", root / "flood");
    fs::remove(root / "flood");
  }
  fs::create_directory(root / "unseen");
  CHECK(next() == "flood");  // they are one burst
  write(root / "unseen" / "file");
  CHECK(next() == "unseen/file");
}

TEST_CASE_METHOD(watched, "track lost for good is a change") {
  begin();
  it->lose_track();
  CHECK(next() == "more files than could be told");
  write(root / "src" / "a.ts");
  CHECK(next() == "src/a.ts");
}

// In a user namespace of its own, where the limits are its to set.
TEST_CASE("child: few watches", "[.child]") {
  watched x;
  const auto limit = [](const char* name, const char* value) {
    unique_fd file{::open(name, O_WRONLY)};
    return file && ::write(file.get(), value, ::strlen(value)) > 0;
  };
  if (::unshare(CLONE_NEWUSER) != 0
      || !limit("/proc/sys/user/max_inotify_watches", "2")) {
    test::report("skipped");
    return;
  }
  x.begin();
  x.until([&] { return x.trouble != ""; });
  test::report(x.trouble.substr(x.root.string().size()));
  write(x.root / "file");
  test::report(x.next());
  fs::remove_all(x.root / "src");
}

TEST_CASE("a limit of the kernel is told, and what can be watched is") {
  test::child_process child{"child: few watches", {}};
  const auto told = child.line();
  if (told == "skipped") {
    WARN("no user namespaces here; left out");
    return;
  }
  CHECK(told.ends_with(
      " is not watched: no more watches; raise fs.inotify.max_user_watches"));
  CHECK(child.line() == "file");
}
