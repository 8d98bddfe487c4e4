// Which supervisor a command means: projects without a name, folders of equal
// names, releases behind a link, and the default name of earlier versions.
#include "catch.hpp"
#include "system.hpp"

#include <csignal>
#include <filesystem>

using namespace pup::test;

namespace fs = std::filesystem;

namespace {

bool contains(const std::string& text, const std::string& what) {
  return text.find(what) != std::string::npos;
}

std::string sleeper(const std::string& id) {
  return R"({"id": ")" + id + R"(", "cmd": ["sleep", "1000"]})";
}

/// A sandbox with commands that are given in its folders.
struct projects : sandbox {
  /// `entered`: how the shell has got there; empty: as the folder is called.
  finished in(const std::string& folder, std::vector<std::string> arguments,
              const std::string& entered = {}) const {
    auto line = command(std::move(arguments));
    line.cwd = path(folder);
    if (!entered.empty())
      line.env["PWD"] = path(entered);
    return run(line);
  }

  void start(const std::string& folder,
             const std::vector<std::string>& arguments = {"start",
                                                          "pup.json"}) const {
    const auto started = in(folder, arguments);
    INFO(started.err);
    REQUIRE(started.code == 0);
  }

  boost::json::object status_of(const std::string& name) const {
    return status({"--name", name});
  }

  pid_t pid_of(const std::string& name, const std::string& id) const {
    const auto found = status_of(name);
    return with_id(found.at("processes").as_array(), id)
        .at("pid")
        .to_number<pid_t>();
  }

  std::string text(const std::string& name, const std::string& key) const {
    return status_of(name).at(key).as_string().c_str();
  }

  bool logs(const std::string& name, const std::string& part) const {
    return wait_until([&] {
      return contains(in("", {"logs", "--name", name}).out, part);
    });
  }

  void link(const std::string& to, const std::string& name) const {
    fs::create_symlink(to, path(name + ".new"));
    fs::rename(path(name + ".new"), path(name));
  }
};

}  // namespace

SCENARIO("two projects without a name never act on each other") {
  projects box;
  box.write("a/pup.json", config({sleeper("x")}));
  box.write("b/pup.json", config({sleeper("y")}));
  box.write("b/src/notes", "");
  box.start("a");
  const auto pid = box.pid_of("a", "x");
  const std::vector<std::vector<std::string>> commands{
      {"apply", "pup.json"},
      {"stop", "all"},
      {"restart", "x"},
      {"reload", "all"},
      {"scale", "x", "3"},
      {"signal", "x", "TERM"},
      {"status"},
      {"why", "x"},
      {"logs"},
      {"upgrade"},
      {"terminate"},
  };
  for (const auto& x : commands) {
    INFO(x.front());
    const auto refused = box.in("b", x);
    CHECK(refused.code == 3);
    CHECK(refused.out == "");
    CHECK(contains(refused.err, "'b' of " + box.path("b/pup.json")));
  }
  CHECK(box.pid_of("a", "x") == pid);
  CHECK(box.in("a", {"status"}).code == 0);
  // No configuration there: the only one that runs.
  CHECK(box.in("b/src", {"status"}).code == 0);

  box.start("b");
  CHECK(box.in("b", {"stop", "all"}).code == 0);
  CHECK(box.pid_of("a", "x") == pid);
  CHECK(box.in("b", {"apply", "pup.json"}).code == 0);
  CHECK(box.in("b", {"apply", "../a/pup.json", "--dry-run"}).out
        == "nothing to change\n");
  CHECK(contains(box.in("", {"status"}).err, "several supervisors run: a ("));
  CHECK(box.in("b", {"terminate"}).code == 0);
  // Its logs are still its own.
  CHECK(contains(box.in("b", {"logs"}).out, "supervisor b started"));
  CHECK(box.pid_of("a", "x") == pid);

  // A file of somebody else's, whatever it is called.
  fs::create_directory(box.path("c"));
  box.write("c/config.json", R"({"database": "c"})");
  CHECK(box.in("c", {"status"}).code == 0);
  box.write("c/config.json", "{\"processes\": [");
  CHECK(box.in("c", {"status"}).code == 3);
}

SCENARIO("two folders of one name are two projects") {
  projects box;
  box.write("x/app/pup.json", config({sleeper("a")}));
  box.write("y/app/pup.json", config({sleeper("a")}));
  box.start("x/app");
  const auto pid = box.pid_of("app", "a");
  const auto second = box.in("y/app", {"start", "pup.json"});
  CHECK(second.code == 1);
  CHECK(contains(second.err, "is already running as pid"));
  for (const auto* word : {"stop", "reload"})
    CHECK(box.in("y/app", {word, "all"}).code == 3);
  CHECK(box.in("y/app", {"apply", "pup.json"}).code == 3);
  CHECK(box.in("y/app", {"logs"}).code == 3);
  CHECK(box.pid_of("app", "a") == pid);
  // With a name of its own, and found by its path from then on.
  box.start("y/app", {"start", "pup.json", "--name", "app-y"});
  CHECK(box.in("y/app", {"stop", "all"}).code == 0);
  CHECK(box.in("", {"apply", "y/app/pup.json"}).code == 0);
  CHECK(box.pid_of("app", "a") == pid);
}

SCENARIO("a release behind a link is followed at each start") {
  projects box;
  const auto release = [&](const std::string& number) {
    const auto folder = "app/releases/" + number;
    box.write(folder + "/pup.json",
              config({R"({"id": "web", "cmd": ["./serve"]})",
                      R"({"id": "shared", "cwd": "../shared",
                          "cmd": "echo shared in $(pwd -P); sleep 1000"})"}));
    const auto program =
        box.write(folder + "/serve", "#!/bin/sh\necho release " + number
                                         + " in $(pwd -P)\nexec sleep 1000\n");
    fs::permissions(program, fs::perms::owner_all);
  };
  release("1");
  release("2");
  box.write("app/releases/shared/x", "");
  box.write("app/shared/x", "");
  box.write("b/pup.json", config({sleeper("other")}, R"("name": "other")"));
  box.link("releases/1", "app/current");
  box.start("", {"start", "app/current/pup.json"});
  box.start("b");
  const auto written = box.path("app/current/pup.json");
  CHECK(box.text("current", "config") == written);
  CHECK(
      box.logs("current", "release 1 in " + box.path("app/releases/1") + '\n'));
  CHECK(box.logs("current", "shared in " + box.path("app/releases/shared")));

  box.link("releases/2", "app/current");
  SECTION("by every way to name it") {
    CHECK(box.in("app/current", {"reload", "web"}, "app/current").code == 0);
    CHECK(box.logs("current",
                   "release 2 in " + box.path("app/releases/2") + '\n'));
    // By its path, as it is written and as it resolves, before and now.
    for (const auto* file :
         {"app/current/pup.json", "app/releases/2/pup.json",
          "app/releases/1/pup.json", "app/current/../1/pup.json"}) {
      INFO(file);
      const auto found = box.in("", {"status", "--config", file});
      CHECK(found.err == "");
      CHECK(contains(found.out, "web"));
    }
    for (const auto* file :
         {"app/current/pup.json", "app/releases/2/pup.json"}) {
      INFO(file);
      CHECK(box.in("", {"apply", file, "--dry-run"}).code == 0);
    }
    CHECK(box.in("app/current", {"status"}).code == 0);
    CHECK(box.in("app/releases/2", {"status"}).code == 0);
  }
  SECTION("another path is applied, and is its own from then on") {
    release("3");
    auto text = box.read("app/releases/3/pup.json");
    text.insert(1, R"("name": "current", )");
    box.write("app/releases/3/pup.json", text);
    CHECK(box.in("", {"apply", "app/releases/3/pup.json"}).code == 0);
    CHECK(box.text("current", "config") == box.path("app/releases/3/pup.json"));
    for (const auto* file :
         {"app/releases/3/pup.json", "app/current/pup.json"}) {
      INFO(file);
      CHECK(box.in("", {"status", "--config", file}).code == 0);
    }
    // A successor knows them as well.
    const auto pid = box.status_of("current").at("pid").to_number<pid_t>();
    REQUIRE(::kill(pid, SIGKILL) == 0);
    REQUIRE(wait_for_end(pid));
    REQUIRE(wait_until([&] {
      return box.in("", {"status", "--name", "current"}).code == 0;
    }));
    CHECK(box.in("", {"status", "--config", "app/current/pup.json"}).code == 0);
    CHECK(box.logs("current",
                   "release 3 in " + box.path("app/releases/3") + '\n'));
  }
  SECTION("a supervisor that is killed needs no release to go on") {
    const auto web = box.pid_of("current", "web");
    fs::remove(box.path("app/current"));
    const auto pid = box.status_of("current").at("pid").to_number<pid_t>();
    REQUIRE(::kill(pid, SIGKILL) == 0);
    REQUIRE(wait_for_end(pid));
    REQUIRE(wait_until([&] {
      return box.in("", {"status", "--name", "current"}).code == 0;
    }));
    CHECK(box.pid_of("current", "web") == web);
    box.link("releases/2", "app/current");
    CHECK(box.in("", {"restart", "web", "--name", "current"}).code == 0);
    CHECK(box.logs("current",
                   "release 2 in " + box.path("app/releases/2") + '\n'));
  }
}

SCENARIO("a supervisor of the former default name is found and taken over") {
  projects box;
  const port_range ports{2};
  box.write("a/pup.json", config({R"({"id": "x", "cmd": ["sleep", "1000"],
                        "ready": {"type": "spawn"},
                        "cluster": {"instances": 1, "startPort": )"
                                  + std::to_string(ports[0]) + "}}"}));
  box.start("a", {"start", "pup.json", "--name", "pup"});
  const auto second = box.in("a", {"start", "pup.json"});
  CHECK(second.code == 1);
  CHECK(contains(second.err, "runs already as pid"));
  CHECK(box.supervisors().size() == 1);
  CHECK(box.in("a", {"status"}).code == 0);
  CHECK(box.in("", {"apply", "a/pup.json"}).code == 0);
  CHECK(box.in("a", {"scale", "x", "2"}).code == 0);

  // Killed with what it ran; the next start goes on with its state.
  box.may_leave_processes();
  box.kill_pup();
  box.start("a");
  CHECK(box.text("a", "name") == "a");
  CHECK(
      with_id(box.status_of("a").at("processes").as_array(), "x").at("desired")
      == 2);
  CHECK_FALSE(fs::exists(box.path("state/pup")));
  CHECK(contains(box.in("a", {"logs"}).out, "supervisor pup started"));
  CHECK(box.in("a", {"terminate"}).code == 0);

  // Another project's stays where it is.
  box.write("b/pup.json", config({sleeper("y")}));
  box.start("b", {"start", "pup.json", "--name", "pup"});
  box.start("a");
  CHECK(box.in("b", {"terminate"}).code == 0);
  CHECK(fs::exists(box.path("state/pup")));
}
