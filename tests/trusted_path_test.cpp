// Which links are followed, which files are used, in places where others may
// write; and what uses that: logs, pid files, files of variables, watches.
#include "pup/runtime/trusted_path.hpp"

#include "pup/runtime/accounts.hpp"
#include "pup/runtime/log_archive.hpp"
#include "pup/runtime/log_file.hpp"
#include "pup/runtime/machine.hpp"
#include "pup/runtime/pid_file.hpp"
#include "pup/runtime/place.hpp"
#include "pup/runtime/text_file.hpp"
#include "pup/runtime/watcher.hpp"

#include "catch.hpp"
#include "child_process.hpp"

#include <boost/asio/io_context.hpp>

#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

using namespace pup;
using namespace pup::test;
namespace fs = std::filesystem;

namespace {

constexpr uid_t nobody = 65'534;
constexpr uid_t daemon_user = 1;

// Says so where a test cannot do all of its work.
bool needs_root() {
  if (::geteuid() != 0)
    WARN("not root: what only root may do is left out");
  return ::geteuid() == 0;
}

std::string contents(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream{path}.rdbuf();
  return text.str();
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// A temporary folder with things in it.
struct tree {
  temporary_folder root;

  tree() {
    ::chmod(root.path().c_str(), 0755);
  }

  std::string path(const std::string& name) const {
    return root.path() + '/' + name;
  }
  std::string folder(const std::string& name, mode_t mode = 0755,
                     std::optional<uid_t> owner = {}) const {
    fs::create_directories(path(name));
    check(::chmod(path(name).c_str(), mode) == 0, "chmod");
    give(name, owner);
    return path(name);
  }
  std::string file(const std::string& name, const std::string& text = "before",
                   std::optional<uid_t> owner = {}) const {
    std::ofstream{path(name)} << text;
    check(::chmod(path(name).c_str(), 0600) == 0, "chmod");
    give(name, owner);
    return path(name);
  }
  std::string link(const std::string& target, const std::string& name,
                   std::optional<uid_t> owner = {}) const {
    check(::symlink(target.c_str(), path(name).c_str()) == 0, "symlink");
    give(name, owner);
    return path(name);
  }
  std::string hard_link(const std::string& target,
                        const std::string& name) const {
    check(::link(path(target).c_str(), path(name).c_str()) == 0, "link");
    return path(name);
  }
  std::string fifo(const std::string& name) const {
    check(::mkfifo(path(name).c_str(), 0666) == 0, "mkfifo");
    return path(name);
  }
  void give(const std::string& name, std::optional<uid_t> owner) const {
    if (owner)
      check(::lchown(path(name).c_str(), *owner, *owner) == 0, "chown");
  }
};

/// Where a path leads to, or what is said against it.
std::string where(const std::string& path, const path_rule& rule = {}) {
  const auto found = locate(path, rule);
  if (const auto* fault = std::get_if<os_fault>(&found))
    return to_string(*fault);
  const auto& file = std::get<located_file>(found);
  return file.folder.path_of(file.name);
}

/// The text of a file that may be used, or what is said against it.
std::string text_of(const std::string& path, const file_owners& owners = {}) {
  const auto found = locate(path);
  if (const auto* fault = std::get_if<os_fault>(&found))
    return to_string(*fault);
  const auto& [folder, name] = std::get<located_file>(found);
  const auto opened = folder.open_file(name, O_RDONLY, owners);
  if (const auto* fault = std::get_if<os_fault>(&opened))
    return to_string(*fault);
  std::array<char, 100> text{};
  const auto n =
      ::read(std::get<unique_fd>(opened).get(), text.data(), text.size());
  return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
}

/// Whether `what` is true of a child of this user.
template <class What>
bool holds_as(uid_t user, const What& what) {
  const auto child = ::fork();
  if (child == 0) {
    const bool changed = ::setresgid(user, user, user) == 0
                         && ::setresuid(user, user, user) == 0;
    ::_exit(changed && what() ? 0 : 1);
  }
  int status = 0;
  check(::waitpid(child, &status, 0) == child, "waitpid");
  return status == 0;
}

const auto now = std::chrono::system_clock::time_point{};

/// What a log file says that cannot be written.
std::string refusal_of_log(const std::string& path,
                           std::optional<uid_t> user = {}) {
  log_file log{path, {}, nullptr};
  if (user)
    log.allow(*user);
  const auto put = log.write("line\n", now);
  return put.error == 0 ? "written" : log.why();
}

}  // namespace

// -- links --------------------------------------------------------------------

SCENARIO("links of one's own in folders of one's own are followed") {
  tree x;
  x.folder("releases/2/log");
  x.link("releases/2", "current");
  x.link(x.path("current"), "absolute");
  x.link("../current/log/app.log", "releases/app.log");
  const auto file = x.path("releases/2/log/app.log");
  CHECK(where(x.path("current/log/app.log")) == file);
  CHECK(where(x.path("absolute/log/app.log")) == file);
  CHECK(where(x.path("releases/app.log")) == file);
  CHECK(where(x.path("current/../2/./log//app.log")) == file);
  x.link("loop", "loop");
  CHECK(contains(where(x.path("loop/x")), "Too many levels"));
  CHECK(contains(where(x.path("none/x")), "No such file"));
  x.file("plain");
  CHECK(contains(where(x.path("plain/x")), "Not a directory"));
  CHECK(contains(where(""), "No such file"));
  CHECK(contains(where("/"), "Is a directory"));
  const auto here = fs::current_path();
  fs::current_path(x.path("releases"));
  CHECK(where("../current/x") == x.path("releases/2/x"));
  fs::current_path(here);
}

SCENARIO("from the first folder on that others may write no link is followed") {
  tree x;
  x.folder("elsewhere");
  x.folder("open/own");
  x.folder("open", 0777);
  x.link("../elsewhere", "open/link");
  x.link("../../elsewhere", "open/own/link");
  const auto said = where(x.path("open/link/app.log"));
  INFO(said);
  CHECK(contains(said, x.path("open/link")
                           + " is a symbolic link, and others "
                             "may write to "
                           + x.path("open") + " (uid "));
  CHECK(contains(said, "mode 0777); name the place that it leads to"));
  CHECK(contains(where(x.path("open/link")), "is a symbolic link"));
  // Whoever owns the folder: it may have been moved here.
  CHECK(contains(where(x.path("open/own/link/app.log")),
                 x.path("open/own/link")
                     + " is a symbolic link, and others "
                       "may write to "
                     + x.path("open") + " ("));
  CHECK(contains(where(x.path("open/own/../x")), "\"..\" is not followed"));
  // Plain ways go on working.
  CHECK(where(x.path("open/own/app.log")) == x.path("open/own/app.log"));
  // A way through a link of our own to a place that others may write.
  x.link("open", "way");
  CHECK(where(x.path("way/app.log")) == x.path("open/app.log"));
  CHECK(contains(where(x.path("way/link/app.log")), "is a symbolic link"));
}

SCENARIO("a folder of one's own in a sticky one is a beginning anew") {
  tree x;
  x.folder("elsewhere");
  x.folder("sticky/own");
  x.folder("sticky/open", 0777);
  x.folder("sticky", 01777);
  for (const auto* name :
       {"sticky/link", "sticky/own/link", "sticky/open/link"})
    x.link(x.path("elsewhere"), name);
  CHECK(contains(where(x.path("sticky/link/x")), "mode 1777"));
  CHECK(where(x.path("sticky/own/link/x")) == x.path("elsewhere/x"));
  CHECK(contains(where(x.path("sticky/open/link/x")), "mode 0777"));
  if (!needs_root())
    return;
  x.folder("sticky/theirs", 0755, nobody);
  x.link(x.path("elsewhere"), "sticky/theirs/link");
  CHECK(contains(
      where(x.path("sticky/theirs/link/x")),
      x.path("sticky/theirs") + " belongs to another user (uid 65534"));
}

SCENARIO("the group of the owner alone may write, others and lists may not") {
  tree x;
  x.folder("elsewhere");
  x.folder("g", 0775);
  x.link("../elsewhere", "g/link");
  struct stat info {};
  REQUIRE(::stat(x.path("g").c_str(), &info) == 0);
  if (info.st_uid == info.st_gid)
    CHECK(where(x.path("g/link/x")) == x.path("elsewhere/x"));
  // user::rwx user:1:rwx group::--- mask::rwx other::---
  const unsigned char list[] = {
      2, 0, 0,   0,   1,   0,   7,  0, 255, 255, 255, 255, 2,   0,  7,
      0, 1, 0,   0,   0,   4,   0,  0, 0,   255, 255, 255, 255, 16, 0,
      7, 0, 255, 255, 255, 255, 32, 0, 0,   0,   255, 255, 255, 255};
  if (::setxattr(x.path("g").c_str(), "system.posix_acl_access", list,
                 sizeof(list), 0)
      == 0)
    CHECK(contains(where(x.path("g/link/x")), "is a symbolic link"));
  else
    WARN("no access lists here: left out");
  if (!needs_root())
    return;
  x.folder("h", 0755);
  x.link("../elsewhere", "h/link");
  REQUIRE(::chown(x.path("h").c_str(), 0, 100) == 0);
  CHECK(where(x.path("h/link/x")) == x.path("elsewhere/x"));
  ::chmod(x.path("h").c_str(), 0775);
  CHECK(contains(where(x.path("h/link/x")), "mode 0775"));
}

SCENARIO("links and folders of other users are not followed, by nobody") {
  if (!needs_root())
    return;
  tree x;
  x.folder("elsewhere");
  x.folder("theirs", 0755, nobody);
  x.link("../elsewhere", "theirs/link", nobody);
  x.link("../elsewhere", "theirs/of-root");
  x.link("elsewhere", "placed", nobody);
  x.link("elsewhere", "of-root");
  const auto refused = [&x](const std::string& name,
                            const path_rule& rule = {}) {
    return contains(where(x.path(name + "/x"), rule), "is a symbolic link");
  };
  CHECK(refused("theirs/link"));
  CHECK(refused("theirs/of-root"));
  CHECK(refused("placed"));
  CHECK_FALSE(refused("of-root"));
  // Theirs are their own, and root's are trusted.
  CHECK(holds_as(nobody, [&] {
    return !refused("theirs/link") && !refused("placed") && !refused("of-root");
  }));
  CHECK(holds_as(daemon_user, [&] {
    return refused("theirs/link") && refused("theirs/of-root")
           && refused("placed") && !refused("of-root");
  }));
  // Who called sudo is trusted where that is said.
  CHECK_FALSE(refused("theirs/link", {{}, nobody}));
  CHECK(refused("theirs/link", {{}, daemon_user}));
}

SCENARIO("on a read-only mount the owner of a folder alone counts") {
  if (!needs_root())
    return;
  tree x;
  x.folder("volume");
  enum result { good, bad, cannot };
  const auto child = ::fork();
  if (child == 0) {
    const auto path = x.path("volume");
    if (::unshare(CLONE_NEWNS) != 0
        || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0
        || ::mount("none", path.c_str(), "tmpfs", 0, "mode=0777") != 0)
      ::_exit(cannot);
    x.folder("volume/v1");
    x.link("v1", "volume/..data");
    x.file("volume/v1/pup.json");
    x.link("..data/pup.json", "volume/pup.json");
    const bool before = contains(where(path + "/pup.json"), "symbolic link");
    if (::mount("none", path.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr)
        != 0)
      ::_exit(cannot);
    ::_exit(before && where(path + "/pup.json") == path + "/v1/pup.json" ? good
                                                                         : bad);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == cannot)
    WARN("nothing may be mounted here: left out");
  else
    CHECK(WEXITSTATUS(status) == good);
}

SCENARIO("the kernel's own links to open files are followed by it") {
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  const unique_fd out{ends[0]};
  const unique_fd in{ends[1]};
  const auto write_to = [](const std::string& path) {
    log_file log{path, {}, nullptr};
    return log.write("line\n", now).error;
  };
  std::array<char, 100> text{};
  CHECK(write_to("/proc/self/fd/" + std::to_string(in.get())) == 0);
  CHECK(::read(out.get(), text.data(), text.size()) == 5);
  if (fs::exists("/dev/fd")) {
    CHECK(write_to("/dev/fd/" + std::to_string(in.get())) == 0);
    CHECK(::read(out.get(), text.data(), text.size()) == 5);
  }
  CHECK(write_to("/dev/null") == 0);
}

SCENARIO("a folder exchanged after it was judged does not matter") {
  tree x;
  x.folder("victim");
  x.file("victim/app.log");
  x.folder("open/log");
  x.file("open/log/old");
  x.folder("open", 0777);
  auto found = locate(x.path("open/log/app.log"));
  REQUIRE(std::holds_alternative<located_file>(found));
  const auto& [folder, name] = std::get<located_file>(found);
  fs::rename(x.path("open/log"), x.path("open/was"));
  x.link(x.path("victim"), "open/log");
  // Everything goes on in the folder that was judged.
  CHECK(std::holds_alternative<unique_fd>(
      folder.open_or_create(name, O_WRONLY | O_TRUNC, 0600)));
  CHECK(folder.rename("old", "older") == 0);
  CHECK(folder.remove("older") == 0);
  CHECK(folder.has("app.log"));
  CHECK(contents(x.path("victim/app.log")) == "before");
  CHECK(fs::exists(x.path("open/was/app.log")));
  CHECK(folder.names() == std::vector<std::string>{"app.log"});
  CHECK(fs::exists(folder.by_descriptor() + "/app.log"));
  // And is not found any more by who looks anew.
  CHECK(contains(where(x.path("open/log/app.log")), "is a symbolic link"));
}

// -- files --------------------------------------------------------------------

SCENARIO("a file in a place that others may write is one of a single name") {
  tree x;
  x.file("secret");
  x.folder("open", 0777);
  x.link(x.path("secret"), "open/link");
  x.hard_link("secret", "open/hard");
  x.fifo("open/fifo");
  x.file("open/plain", "text");
  const auto said = text_of(x.path("open/hard"));
  INFO(said);
  CHECK(contains(said, "open " + x.path("open/hard")
                           + ": it has 2 names (hard links), and others may "
                             "write to "
                           + x.path("open") + " (uid "));
  CHECK(contains(text_of(x.path("open/link")), "is a symbolic link"));
  CHECK(contains(text_of(x.path("open/fifo")), ": it is a FIFO, and others"));
  CHECK(contains(text_of(x.path("open/none")), "No such file"));
  CHECK(text_of(x.path("open/plain")) == "text");
  // Where nobody else may write they are as one has made them.
  x.hard_link("secret", "hard");
  CHECK(text_of(x.path("hard")) == "before");
  if (!needs_root())
    return;
  x.file("open/theirs", "theirs", nobody);
  CHECK(contains(text_of(x.path("open/theirs")), ": it belongs to uid 65534,"));
  CHECK(text_of(x.path("open/theirs"), {{daemon_user, nobody}, false})
        == "theirs");
  CHECK(text_of(x.path("open/theirs"), {{}, true}) == "theirs");
}

SCENARIO("folders are made where they belong, and for nobody else to write") {
  tree x;
  x.folder("victim");
  x.folder("open", 0777);
  x.link(x.path("victim"), "open/link");
  const auto before = ::umask(0);
  const auto made = trusted_folder::open(x.path("a/b/c"), {0755, {}});
  const auto refused = trusted_folder::open(x.path("open/link/c"), {0755, {}});
  CHECK(refusal_of_log(x.path("logs/deep/app.log")) == "written");
  ::umask(before);
  REQUIRE(std::holds_alternative<trusted_folder>(made));
  CHECK_FALSE(std::get<trusted_folder>(made).shared());
  struct stat info {};
  for (const auto* name : {"a", "a/b", "a/b/c", "logs", "logs/deep"}) {
    REQUIRE(::stat(x.path(name).c_str(), &info) == 0);
    CHECK((info.st_mode & 07777) == 0755);
  }
  CHECK(std::holds_alternative<os_fault>(refused));
  CHECK(fs::is_empty(x.path("victim")));
}

// -- who uses it --------------------------------------------------------------

SCENARIO("a log is not written where somebody's link leads to") {
  tree x;
  x.folder("victim");
  x.file("victim/app.log");
  x.folder("open", 0777);
  const auto log = x.path("open/app.log");
  x.link(x.path("victim/app.log"), "open/app.log");
  CHECK(contains(refusal_of_log(log), "is a symbolic link, and others may"));
  fs::remove(log);
  x.link(x.path("victim/new.log"), "open/app.log");
  CHECK(contains(refusal_of_log(log), "is a symbolic link"));
  fs::remove(log);
  x.hard_link("victim/app.log", "open/app.log");
  CHECK(contains(refusal_of_log(log), "it has 2 names"));
  fs::remove(log);
  x.fifo("open/app.log");
  CHECK(contains(refusal_of_log(log), "it is a FIFO"));
  x.link(x.path("victim"), "open/log");
  CHECK(contains(refusal_of_log(x.path("open/log/app.log")), "symbolic link"));
  CHECK(contains(refusal_of_log(x.path("open/log/a/b.log")), "symbolic link"));
  CHECK(contents(x.path("victim/app.log")) == "before");
  CHECK(std::distance(fs::directory_iterator{x.path("victim")}, {}) == 1);
  // A link of one's own, to where the file is to be.
  x.link("victim/app.log", "own.log");
  CHECK(refusal_of_log(x.path("own.log")) == "written");
  CHECK(contents(x.path("victim/app.log")) == "beforeline\n");
}

SCENARIO("a log in the folder of its user goes on, with root's former files") {
  if (!needs_root())
    return;
  tree x;
  x.folder("www", 0755, nobody);
  const auto log = x.path("www/log/app.log");
  CHECK(refusal_of_log(log, nobody) == "written");
  struct stat info {};
  REQUIRE(::stat(log.c_str(), &info) == 0);
  CHECK(info.st_uid == 0);
  CHECK((info.st_mode & 0777) == 0600);
  CHECK(refusal_of_log(log, nobody) == "written");  // as an earlier pup left it
  CHECK(contents(log) == "line\nline\n");
  x.file("www/own.log", "", nobody);
  CHECK(refusal_of_log(x.path("www/own.log"), nobody) == "written");
  CHECK(contains(refusal_of_log(x.path("www/own.log"), daemon_user),
                 "it belongs to uid 65534, and " + x.path("www")
                     + " belongs to another user (uid 65534, mode 0755)"));
  // In /tmp somebody else may have been there first.
  x.folder("tmp", 01777);
  x.file("tmp/app.log", "", daemon_user);
  CHECK(contains(refusal_of_log(x.path("tmp/app.log"), nobody),
                 "it belongs to uid 1"));
}

SCENARIO("rotation renames and removes in the log's own folder alone") {
  tree x;
  const std::string old = "app.log-20200101T000000.000Z";
  x.folder("victim");
  x.file("victim/" + old);
  x.folder("open/log");
  x.folder("open", 0777);
  std::vector<std::string> full;
  log_file log{x.path("open/log/app.log"),
               {10, 0},
               [&](const std::string& path) { full.push_back(path); }};
  CHECK(log.write("12345678\n", now).error == 0);
  fs::rename(x.path("open/log"), x.path("open/was"));
  x.link(x.path("victim"), "open/log");
  CHECK(log.write("12345678\n", now).error == ELOOP);
  CHECK(contains(log.why(), "is a symbolic link"));
  log.prune();
  CHECK(contents(x.path("victim/" + old)) == "before");
  CHECK(std::distance(fs::directory_iterator{x.path("victim")}, {}) == 1);
  CHECK(full.empty());
  // Where a link of one's own leads to, the target is what is rotated.
  x.folder("data");
  x.link("data/app.log", "app.log");
  log_file own{x.path("app.log"), {10, 5}, nullptr};
  CHECK(own.write("12345678\n12345679\n", now).error == 0);
  CHECK(contents(x.path("data/app.log")) == "12345679\n");
  CHECK(fs::is_symlink(x.path("app.log")));
  CHECK(std::distance(fs::directory_iterator{x.path("data")}, {}) == 2);
}

SCENARIO("compression touches neither links nor waits for a FIFO") {
  tree x;
  x.file("secret", "of others");
  x.folder("open", 0777);
  log_archiver archiver;
  const auto compress = [&](const std::string& name) {
    std::promise<int> done;
    archiver.compress(x.path(name), [&](int error) { done.set_value(error); });
    auto result = done.get_future();
    REQUIRE(result.wait_for(patience) == std::future_status::ready);
    return result.get();
  };
  x.fifo("open/fifo");
  CHECK(compress("open/fifo") != 0);
  x.link(x.path("secret"), "open/link");
  CHECK(compress("open/link") != 0);
  x.hard_link("secret", "open/hard");
  CHECK(compress("open/hard") == EPERM);
  // A draft that leads elsewhere is not written through.
  x.file("open/old");
  x.hard_link("secret", "open/old.gz.tmp");
  CHECK(compress("open/old") == 0);
  CHECK(contents(x.path("secret")) == "of others");
  CHECK(fs::exists(x.path("open/old.gz")));
  CHECK_FALSE(fs::exists(x.path("open/old")));
  x.file("open/older");
  x.link(x.path("secret"), "open/older.gz.tmp");
  CHECK(compress("open/older") == 0);
  CHECK(contents(x.path("secret")) == "of others");
}

SCENARIO("a pid file is made and removed in its own folder, without waiting") {
  tree x;
  x.folder("victim");
  x.file("victim/app.pid", std::to_string(::getpid()) + '\n');
  x.folder("open", 0777);
  x.link(x.path("victim"), "open/link");
  const auto fault = write_pid_file(x.path("open/link/app.pid"), 1);
  REQUIRE(fault.has_value());
  CHECK(
      contains(to_string(*fault), "is a symbolic link, and others may write"));
  remove_pid_file(x.path("open/link/app.pid"), ::getpid());
  x.link(x.path("victim/app.pid"), "open/app.pid");
  remove_pid_file(x.path("open/app.pid"), ::getpid());
  CHECK(fs::exists(x.path("victim/app.pid")));
  // What stands there is replaced, not written to.
  CHECK_FALSE(write_pid_file(x.path("open/app.pid"), 7).has_value());
  CHECK(contents(x.path("victim/app.pid"))
        == std::to_string(::getpid()) + '\n');
  CHECK(contents(x.path("open/app.pid")) == "7\n");
  fs::remove(x.path("open/app.pid"));
  x.fifo("open/app.pid");
  remove_pid_file(x.path("open/app.pid"), 7);  // must not wait for a writer
  CHECK(fs::exists(x.path("open/app.pid")));
  x.fifo("own.pid");
  remove_pid_file(x.path("own.pid"), 7);
  CHECK(fs::exists(x.path("own.pid")));
}

SCENARIO("a file of variables is not read where somebody's link leads to") {
  tree x;
  x.file("secret.env", "TOKEN=s3cr3t\n");
  x.folder("open", 0777);
  x.link(x.path("secret.env"), "open/.env");
  auto read = read_variables(x.path("open/.env"), ::geteuid());
  CHECK(contains(read.problem, "is a symbolic link, and others may write"));
  CHECK_FALSE(contains(read.problem, ";"));  // the remedy is the caller's
  CHECK(read.text.empty());
  CHECK_FALSE(read.missing);
  fs::remove(x.path("open/.env"));
  x.hard_link("secret.env", "open/.env");
  read = read_variables(x.path("open/.env"), ::geteuid());
  CHECK(contains(read.problem, "2 names"));
  CHECK(read.text.empty());
  x.link("secret.env", "own.env");
  CHECK(read_variables(x.path("own.env"), ::geteuid()).text
        == "TOKEN=s3cr3t\n");
}

SCENARIO("root's configuration is not where somebody's link leads to") {
  if (!needs_root())
    return;
  tree x;
  const std::string text =
      R"({"processes": [{"id": "a", "cmd": ["sleep", "1"]}]})";
  x.folder("releases/2");
  x.file("releases/2/pup.json", text);
  x.link("releases/2", "current");
  CHECK(
      std::holds_alternative<pup_spec>(load_file(x.path("current/pup.json"))));
  x.folder("theirs", 0755, nobody);
  x.link("../releases/2", "theirs/current", nobody);
  const auto path = x.path("theirs/current/pup.json");
  const auto refused = [&] {
    const auto result = load_file(path);
    const auto* faults = std::get_if<std::vector<diagnostic>>(&result);
    return faults != nullptr ? to_string(faults->front()) : "";
  };
  INFO(refused());
  CHECK(contains(refused(), x.path("theirs/current")
                                + " is a symbolic link, and " + x.path("theirs")
                                + " belongs to another "
                                  "user (uid 65534, mode 0755); name a file"));
  // Who called sudo means that.
  ::setenv("SUDO_UID", "65534", 1);
  CHECK(refused() == "");
  ::unsetenv("SUDO_UID");
}

SCENARIO("folders of a supervisor are not where somebody's link leads to") {
  tree x;
  x.folder("victim");
  x.folder("open", 0777);
  x.link(x.path("victim"), "open/link");
  environment env;
  env.user = ::geteuid();
  env.variable = [&](const std::string& name) -> std::optional<std::string> {
    if (name == "PUP_RUNTIME_DIR")
      return x.path("run");
    if (name == "PUP_STATE_DIR")
      return x.path("open/link/deep/state");
    return std::nullopt;
  };
  const auto opened = open_place("web", env, {});
  const auto* error = std::get_if<place_error>(&opened);
  REQUIRE(error != nullptr);
  CHECK(error->code == place_errc::refused);
  CHECK(
      contains(error->text, x.path("open/link") + " is a symbolic link, and"));
  CHECK(contains(error->text, "; set PUP_STATE_DIR to a folder of your own"));
  CHECK(fs::is_empty(x.path("victim")));
}

SCENARIO("files are replaced where they are, and not where a link leads to") {
  tree x;
  x.file("victim.json");
  x.folder("open", 0777);
  x.link(x.path("victim.json"), "open/pup.json");
  CHECK(replace_text(x.path("open/pup.json"), "new").has_value());
  CHECK(contents(x.path("victim.json")) == "before");
  CHECK(create_text(x.path("open/pup.json"), "new")->code == EEXIST);
  x.link("victim.json", "own.json");
  CHECK_FALSE(replace_text(x.path("own.json"), "new").has_value());
  CHECK(contents(x.path("victim.json")) == "new");
  CHECK(fs::is_symlink(x.path("own.json")));
  struct stat info {};
  REQUIRE(::stat(x.path("victim.json").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
}

SCENARIO("what somebody's link leads to is not watched, and that is told") {
  tree x;
  x.folder("victim");
  x.folder("open", 0777);
  x.link(x.path("victim"), "open/link");
  boost::asio::io_context loop{1};
  watcher all{loop};
  watch_wish wish;
  wish.paths = {x.path("open/link")};
  wish.rules.interval = std::chrono::milliseconds{1};
  std::vector<file_news> news;
  all.add(wish, [&](const file_news& one) { news.push_back(one); });
  while (news.empty())
    REQUIRE(loop.run_one_for(patience) == 1);
  INFO(news.front().trouble);
  CHECK(contains(news.front().trouble,
                 x.path("open/link") + " is not watched: " + x.path("open/link")
                     + " is a symbolic link, and others"));
  // A folder in its place is.
  fs::remove(x.path("open/link"));
  fs::create_directory(x.path("open/link"));
  while (news.size() < 3)
    REQUIRE(loop.run_one_for(patience) == 1);
  CHECK(news.back().trouble.empty());
}
