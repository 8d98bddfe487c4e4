// Processes of another user that try to make root's pup open, make, append to,
// rename or remove files of others, with the program itself.
#include "catch.hpp"
#include "system.hpp"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <sstream>

#include <sys/stat.h>
#include <unistd.h>

using namespace pup::test;
namespace fs = std::filesystem;

namespace {

constexpr uid_t nobody = 65'534;

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Says so where a test cannot do its work.
bool needs_root() {
  if (::geteuid() != 0)
    WARN("not root, who alone can run processes as somebody else: left out");
  return ::geteuid() == 0;
}

/// A world with a folder "www" of another user, and a folder "victim" of
/// root's that nothing may come to or go from.
struct attacked {
  sandbox box;

  attacked() {
    fs::permissions(box.path(), fs::perms{0755});
    box.write("victim/file", "before\n");
    box.write("victim/app.log-20200101T000000.000Z", "before\n");
    fs::permissions(box.path("victim/file"), fs::perms{0600});
    give("www/");
  }

  /// Makes a folder (a name with a slash at its end) or a file of nobody's.
  void give(const std::string& name, const std::string& text = {}) const {
    if (name.ends_with('/'))
      fs::create_directories(box.path(name));
    else
      box.write(name, text);
    REQUIRE(::chown(box.path(name).c_str(), nobody, nobody) == 0);
  }

  /// Empty: the folder of the victim is as it was.
  std::string harm() const {
    std::string result;
    std::set<std::string> names;
    for (const auto& x : fs::directory_iterator{box.path("victim")})
      names.insert(x.path().filename().string());
    for (const auto& x : names)
      if (x != "file" && x != "app.log-20200101T000000.000Z")
        result += "made " + x + "; ";
    for (const auto* x : {"file", "app.log-20200101T000000.000Z"})
      if (names.count(x) == 0)
        result += std::string{"removed "} + x + "; ";
      else if (box.read("victim/" + std::string{x}) != "before\n")
        result += std::string{"changed "} + x + "; ";
    struct stat info {};
    if (::stat(box.path("victim/file").c_str(), &info) != 0
        || (info.st_mode & 0777) != 0600 || info.st_uid != 0
        || info.st_nlink != 1)
      result += "mode, owner or names of file changed; ";
    if (::stat(box.path("victim").c_str(), &info) != 0
        || (info.st_mode & 0777) != 0755 || info.st_uid != 0)
      result += "mode or owner of the folder changed; ";
    return result;
  }

  /// Until the log of that process holds the text.
  bool told(const std::string& id, const std::string& text) const {
    return wait_until([&] {
      return contains(box.pup({"logs", id}).out, text);
    });
  }
};

/// A process of nobody's in its own folder.
std::string theirs(const std::string& id, const std::string& script,
                   const std::string& more) {
  return R"({"id": ")" + id + R"(", "user": "nobody", "cwd": "www",
    "cmd": ["sh", "-c", ")"
         + script + "\"], " + more + '}';
}

std::string log_to(const std::string& path) {
  return R"("logger": {"stdout": ")" + path + R"("})";
}

}  // namespace

SCENARIO("a user's own links, FIFOs and folders do not catch root's log") {
  if (!needs_root())
    return;
  attacked x;
  x.give("www/fifo/");
  x.give("www/later/");
  const std::string talk = "; while echo line; do sleep 0.2; done";
  x.box.write("pup.json",
              config({
                  theirs("to-file", "ln -s ../victim/file file.log" + talk,
                         log_to("www/file.log")),
                  theirs("to-new", "ln -s ../victim/new new.log" + talk,
                         log_to("www/new.log")),
                  theirs("to-folder", "ln -s ../victim folder" + talk,
                         log_to("www/folder/app.log")),
                  theirs("to-deeper", "ln -s ../victim up" + talk,
                         log_to("www/up/deeper/app.log")),
                  theirs("to-fifo", "mkfifo fifo/app.log" + talk,
                         log_to("www/fifo/app.log")),
                  theirs("kept", "true" + talk, log_to("www/kept.log")),
              }));
  const auto started = x.box.pup({"start", "pup.json"});
  INFO(started.out << started.err);
  REQUIRE(started.code == 0);
  const auto others = ", and " + x.box.path("www")
                      + " belongs to another user (uid 65534, mode 0755)";
  CHECK(x.told("to-file",
               x.box.path("www/file.log") + " is a symbolic link" + others));
  CHECK(x.told("to-new", "/new.log is a symbolic link" + others));
  CHECK(x.told("to-folder",
               x.box.path("www/folder") + " is a symbolic link" + others));
  CHECK(x.told("to-deeper", "/up is a symbolic link" + others));
  CHECK(x.told("to-fifo", "it is a FIFO" + others));
  // None of that keeps anybody else's lines, nor the store's.
  CHECK(
      wait_until([&] { return contains(x.box.read("www/kept.log"), "line"); }));
  CHECK(contains(x.box.pup({"logs", "to-fifo"}).out, " line\n"));
  CHECK(x.harm() == "");
  CHECK(x.box.end() == "");
  CHECK(x.harm() == "");
}

SCENARIO("a second name of root's file is no log") {
  if (!needs_root())
    return;
  attacked x;
  // As where fs.protected_hardlinks is 0, or root itself has made it.
  fs::create_hard_link(x.box.path("victim/file"), x.box.path("www/app.log"));
  x.box.write("pup.json", config({theirs("a", "echo line; exec sleep 1000",
                                         log_to("www/app.log"))}));
  REQUIRE(x.box.pup({"start", "pup.json"}).code == 0);
  CHECK(x.told("a", "it has 2 names (hard links), and "));
  fs::remove(x.box.path("www/app.log"));
  CHECK(x.harm() == "");
}

SCENARIO("a log folder that is exchanged is not rotated, pruned or reopened") {
  if (!needs_root())
    return;
  attacked x;
  x.give("www/log/");
  // Each life of it: some lines, and once those are in the file a link in the
  // place of the folder, and more than a file takes.
  const std::string script =
      "echo first; until grep -q first log/copy; do sleep 0.05; done; "
      "mv log was; ln -s ../victim log; touch moved; "
      "until test -e go; do sleep 0.05; done; "
      "head -c 4000000 /dev/zero | tr '\\\\0' x | fold -w 99; echo; "
      "exec sleep 1000";
  x.box.write("pup.json",
              config({theirs("a", script, log_to("www/log/app.log"))},
                     R"("logger": {"maxFileSize": "1M", "maxFiles": 1})"));
  const auto started = x.box.pup({"start", "pup.json"});
  INFO(started.out << started.err);
  REQUIRE(started.code == 0);
  CHECK(wait_until(
      [&] { return contains(x.box.read("www/log/app.log"), "first"); }));
  x.give("www/log/copy", "first\n");
  REQUIRE(wait_until([&] { return fs::exists(x.box.path("www/moved")); }));
  for (const auto pid : x.box.supervisors())
    ::kill(pid, SIGHUP);
  x.give("www/go");
  CHECK(x.told("a", x.box.path("www/log") + " is a symbolic link, and "));
  CHECK(x.harm() == "");
  CHECK(x.box.pup({"terminate"}).code == 0);
  CHECK(x.harm() == "");
}

SCENARIO("a user's log goes on in the user's folder, and is rotated there") {
  if (!needs_root())
    return;
  attacked x;
  // As earlier versions have left it.
  x.box.write("www/log/app.log", "earlier\n");
  REQUIRE(::chown(x.box.path("www/log").c_str(), nobody, nobody) == 0);
  REQUIRE(::chmod(x.box.path("www/log/app.log").c_str(), 0600) == 0);
  // And one that the process had made itself.
  x.give("www/own.log", "own\n");
  x.box.write(
      "pup.json",
      config(
          {theirs("a",
                  "head -c 4000000 /dev/zero | tr '\\\\0' x | fold -w 99; "
                  "echo; echo last; exec sleep 1000",
                  log_to("www/log/app.log")),
           theirs("b", "echo line; exec sleep 1000", log_to("www/own.log")),
           theirs("c", "echo line; exec sleep 1000", log_to("www/new/c.log"))},
          R"("logger": {"maxFileSize": "1M", "maxFiles": 2})"));
  const auto started = x.box.pup({"start", "pup.json"});
  INFO(started.out << started.err);
  REQUIRE(started.code == 0);
  CHECK(wait_until(
      [&] { return contains(x.box.read("www/log/app.log"), "last\n"); }));
  CHECK(wait_until([&] { return x.box.read("www/own.log") == "own\nline\n"; }));
  CHECK(wait_until([&] { return x.box.read("www/new/c.log") == "line\n"; }));
  // Compressed ones end in .gz.
  CHECK(wait_until([&] {
    const auto names = [&] {
      std::set<std::string> result;
      for (const auto& e : fs::directory_iterator{x.box.path("www/log")})
        result.insert(e.path().filename().string());
      return result;
    }();
    return names.size() == 3
           && std::count_if(names.begin(), names.end(), [](const auto& name) {
                return name.ends_with(".gz");
              }) == 2;
  }));
  CHECK_FALSE(contains(x.box.pup({"logs"}).out, "lost "));
}

SCENARIO("a user's links and FIFOs do not catch root's pid file") {
  if (!needs_root())
    return;
  attacked x;
  x.give("www/run/");
  fs::create_symlink("../victim", x.box.path("www/link"));
  REQUIRE(::lchown(x.box.path("www/link").c_str(), nobody, nobody) == 0);
  x.box.write(
      "pup.json",
      config({theirs("linked", "exec sleep 1000",
                     R"("pidFile": "www/link/linked.pid")"),
              // Its pid file is exchanged for a FIFO that nobody writes to.
              theirs("fifo",
                     "until test -e run/fifo.pid; do sleep 0.05; done; "
                     "rm -f run/fifo.pid; mkfifo run/fifo.pid; touch done; "
                     "exec sleep 1000",
                     R"("pidFile": "www/run/fifo.pid")"),
              // And its folder for a link to a file that it would be.
              theirs("moved",
                     "until test -e run2/file; do sleep 0.05; done; "
                     "mv run2 was2; ln -s ../victim run2; touch done2; "
                     "exec sleep 1000",
                     R"("pidFile": "www/run2/file")")}));
  x.give("www/run2/");
  const auto started = x.box.pup({"start", "pup.json"});
  INFO(started.out << started.err);
  REQUIRE(started.code == 0);
  CHECK(contains(x.box.pup({"logs", "linked"}).out + started.out,
                 x.box.path("www/link") + " is a symbolic link, and "));
  REQUIRE(wait_until([&] {
    return fs::exists(x.box.path("www/done"))
           && fs::exists(x.box.path("www/done2"));
  }));
  CHECK(x.box.pup({"restart", "all"}).code == 0);
  CHECK(x.box.pup({"stop", "all"}).code == 0);
  CHECK(x.harm() == "");
  CHECK(x.box.pup({"terminate"}).code == 0);
  CHECK(x.harm() == "");
}

SCENARIO("a user's links lead root to no configuration, variables or folder") {
  if (!needs_root())
    return;
  attacked x;
  x.box.write("secret.env", "TOKEN=s3cr3t\n");
  fs::create_symlink("../secret.env", x.box.path("www/.env"));
  fs::create_symlink("..", x.box.path("www/current"));
  for (const auto* link : {"www/.env", "www/current"})
    REQUIRE(::lchown(x.box.path(link).c_str(), nobody, nobody) == 0);
  x.box.write("env.json", config({theirs("a", "env > got; exec sleep 1000",
                                         R"("envFile": "www/.env")")}));
  auto refused = x.box.pup({"start", "env.json"});
  INFO(refused.err);
  CHECK(refused.code == 2);
  CHECK(contains(refused.err, x.box.path("www/.env") + " is a symbolic link"));
  CHECK_FALSE(contains(refused.err, "s3cr3t"));

  x.box.write("pup.json", config({R"({"id": "a", "cmd": ["sleep", "1000"]})"}));
  refused = x.box.pup({"start", "www/current/pup.json"});
  INFO(refused.err);
  CHECK(refused.code == 2);
  CHECK(
      contains(refused.err, x.box.path("www/current") + " is a symbolic link"));

  // The user whose process it is goes by links, and only where it may.
  fs::permissions(x.box.path("victim"), fs::perms{0700});
  fs::create_symlink("../victim", x.box.path("www/in"));
  x.box.write("cwd.json", config({R"({"id": "a", "user": "nobody",
    "cwd": "www/in", "cmd": ["sleep", "1000"], "restart": "never"})"}));
  refused = x.box.pup({"start", "cwd.json"});
  INFO(refused.out << refused.err);
  CHECK(refused.code == 1);
  CHECK(contains(refused.out + refused.err, "Permission denied"));
  fs::permissions(x.box.path("victim"), fs::perms{0755});
  CHECK(x.harm() == "");
}

SCENARIO("validate tells which paths a supervisor would not follow") {
  if (!needs_root())
    return;
  attacked x;
  fs::create_symlink("../victim", x.box.path("www/log"));
  x.box.write("pup.json",
              config({theirs("a", "exec sleep 1000", log_to("www/log/a.log")),
                      R"({"id": "b", "cmd": ["sleep", "1000"],
    "cwd": "www/log", "watch": ["www/log/b"], "pidFile": "www/log/b.pid"})"}));
  const auto judged = x.box.pup({"validate", "pup.json"});
  INFO(judged.err);
  CHECK(judged.code == 0);
  CHECK(judged.out == "pup.json: ok\n");
  for (const auto* key : {"a.logger", "b.pidFile", "b.watch", "b.cwd"})
    CHECK(contains(judged.err, "pup.json: warning: " + std::string{key} + ": "
                                   + x.box.path("www/log")
                                   + " is a symbolic link"));
  CHECK(std::count(judged.err.begin(), judged.err.end(), '\n') == 4);
}

SCENARIO("root's supervisor takes over no configuration of somebody else's") {
  if (!needs_root())
    return;
  attacked x;
  const auto text = [](const std::string& id) {
    return config({R"({"id": ")" + id + R"(", "cmd": ["sleep", "1000"]})"},
                  R"("name": "all")");
  };
  x.box.write("pup.json", text("a"));
  REQUIRE(x.box.pup({"start", "pup.json"}).code == 0);
  x.give("www/pup.json", text("b"));
  auto refused = x.box.pup({"apply", "www/pup.json", "--name", "all"});
  INFO(refused.err);
  CHECK(refused.code == 2);
  CHECK(contains(refused.err, "belongs to `nobody`, and pup runs as root"));
  x.box.write("next.json", text("b"));
  fs::create_symlink("../next.json", x.box.path("www/link.json"));
  refused = x.box.pup({"apply", "www/link.json", "--name", "all"});
  CHECK(refused.code == 2);
  CHECK(contains(refused.err,
                 x.box.path("www/link.json") + " is a symbolic link, and "));
  // Whoever owns the supervisor gets the text: what root's right to read finds
  // behind a user's link is nobody's.
  refused = x.box.pup({"apply", "www/link.json", "--name", "none"});
  CHECK(refused.code == 2);
  CHECK(x.box.unit("a").at("state") == "ready");
  CHECK(x.box.pup({"apply", "next.json", "--name", "all"}).code == 0);
  CHECK(x.box.unit("b").at("state") == "ready");
}

SCENARIO("a successor enters no folder that a link has taken the place of") {
  if (!needs_root())
    return;
  attacked x;
  x.box.write("www/app/pup.json",
              config({R"({"id": "a", "cmd": ["sleep", "1000"]})"}));
  REQUIRE(x.box.pup({"start", "www/app/pup.json"}).code == 0);
  const auto first = only(x.box.supervisors());
  fs::rename(x.box.path("www/app"), x.box.path("www/was"));
  fs::create_symlink("../victim", x.box.path("www/app"));
  REQUIRE(::kill(first, SIGKILL) == 0);
  REQUIRE(wait_for_end(first));
  // It fails, and another one is tried as long as there is a guardian.
  const auto second = [&] {
    pid_t found = 0;
    REQUIRE(wait_until([&] {
      for (const auto pid : x.box.supervisors())
        found = pid;
      return found != 0;
    }));
    return found;
  }();
  CHECK(wait_for_end(second));
  fs::remove(x.box.path("www/app"));
  fs::rename(x.box.path("www/was"), x.box.path("www/app"));
  REQUIRE(wait_until([&] { return x.box.pup({"status"}).code == 0; }));
  CHECK(x.box.unit("a").at("restarts").to_number<int>() == 0);
  CHECK(fs::read_symlink("/proc/" + std::to_string(only(x.box.supervisors()))
                         + "/cwd")
        == x.box.path("www/app"));
  CHECK(x.harm() == "");
}

SCENARIO("root's command for a user's supervisor reaches no other one") {
  if (!needs_root())
    return;
  attacked x;
  // A supervisor of root's, and a folder of a user's that claims to be one.
  x.box.write("pup.json", config({R"({"id": "a", "cmd": ["sleep", "1000"]})"},
                                 R"("name": "root")"));
  REQUIRE(x.box.pup({"start", "pup.json"}).code == 0);
  const auto run = fs::path{x.box.env.at("PUP_RUNTIME_DIR")};
  fs::create_directory(run / "theirs");
  for (const auto* name : {"lock", "supervisor"})
    fs::copy_file(run / "root" / name, run / "theirs" / name);
  fs::create_symlink("../root/control.sock", run / "theirs/control.sock");
  REQUIRE(::chown((run / "theirs").c_str(), nobody, nobody) == 0);
  fs::permissions(run / "theirs", fs::perms{0700});
  // It runs if its lock is held.
  auto holder = x.box.program(
      {"python3", "-c",
       "import fcntl, struct, sys, time\n"
       "f = open(sys.argv[1], 'r+')\n"
       "fcntl.fcntl(f, 37, struct.pack('hhqqi4x', 1, 0, 0, 0, 0))\n"
       "print('held', flush=True)\ntime.sleep(1000)\n",
       (run / "theirs/lock").string()});
  holder.env["PATH"] = "/usr/bin:/bin";
  process held{holder};
  REQUIRE(held.says("held"));
  const auto refused = x.box.pup({"terminate", "--name", "theirs"});
  INFO(refused.out << refused.err);
  CHECK(refused.code != 0);
  CHECK(contains(refused.err,
                 "is not the socket of the supervisor that "
                 "answers, which belongs to uid 0"));
  CHECK(x.box.status({"--name", "root"}).size() > 0);
  held.signal(SIGKILL);
  static_cast<void>(held.wait());
  fs::remove_all(run / "theirs");
}
