// A service of systemd, with systemd: on a machine of its own, which
// tests/machine --systemd boots.
#include "catch.hpp"
#include "system.hpp"

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string_view>
#include <thread>

#include <sys/stat.h>
#include <unistd.h>

using namespace pup::test;
namespace fs = std::filesystem;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// One request after the other until it is gone: that machine is slow.
class client {
public:
  explicit client(std::uint16_t port)
      : thread_([this, port] {
          while (!stopping_) {
            try {
              if (get(port).status != 200)
                ++failed_;
            } catch (const std::exception&) {
              ++failed_;
            }
            ++asked_;
          }
        }) {}
  client(const client&) = delete;
  client& operator=(const client&) = delete;
  ~client() {
    end();
  }

  [[nodiscard]] bool asks(long more) const {
    const auto goal = asked_ + more;
    return wait_until([&] { return asked_ >= goal; });
  }
  /// How many requests have failed.
  long end() {
    stopping_ = true;
    if (thread_.joinable())
      thread_.join();
    return failed_;
  }

private:
  std::atomic<bool> stopping_{false};
  std::atomic<long> asked_{0};
  std::atomic<long> failed_{0};
  std::thread thread_;
};

}  // namespace

SCENARIO("a service serves through restarts, upgrades and kill -9") {
  if (std::getenv("PUP_TEST_MACHINE") != std::string_view{"systemd"}) {
    WARN("no systemd that may be changed: see tests/machine");
    return;
  }
  sandbox box;
  // Where a service of --user and root's commands look.
  box.env.erase("PUP_RUNTIME_DIR");
  box.env.erase("PUP_STATE_DIR");
  box.env["PATH"] = std::getenv("PATH");
  REQUIRE(::chmod(box.path().c_str(), 0755) == 0);
  const port_range ports{6};
  box.write("pup.json",
            config({web(ports, 2, R"("drainTimeoutMs": 1000)",
                        R"("memoryMax": "50M", "cwd": "/")")},
                   R"("name": "shop")"));
  const auto systemctl = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "systemctl");
    return run(box.program(std::move(words)));
  };
  const auto is_active = [&] {
    return systemctl({"is-active", "pup-shop.service"}).out == "active\n";
  };
  const auto shown = [&](const std::string& property) {
    auto text =
        systemctl({"show", "-P", property, "pup-shop.service"}).out;
    return text.substr(0, text.find('\n'));
  };
  const auto pids = [&] {
    std::vector<pid_t> result;
    const auto web = box.unit("web");
    for (const auto& x : web.at("instances").as_array())
      result.push_back(x.as_object().at("pid").to_number<pid_t>());
    return result;
  };

  // Another supervisor of root, which makes the folders above.
  box.write("root/pup.json",
            config({R"({"id": "a", "cmd": ["sleep", "1000"]})"},
                   R"("name": "other")"));
  REQUIRE(box.pup({"start", "root/pup.json"}).code == 0);
  const auto enabled = box.pup({"enable-service", "--system", "--socket",
                                "--user", "www-data"});
  INFO(enabled.err);
  CHECK(contains(enabled.out, "pup-shop.service: enabled and started\n"));
  REQUIRE(enabled.code == 0);
  CHECK(wait_until([&] { return who(ports[0]) == "web-2"; }));
  // In force, and by one who is not root.
  CHECK(box.unit("web").at("reason") == "");
  CHECK(fs::exists("/sys/fs/cgroup" + shown("ControlGroup") + "/pup-"
                   + shown("MainPID") + "-web-1"));

  client visitor{ports[0]};
  REQUIRE(visitor.asks(20));
  auto before = pids();
  CHECK(systemctl({"restart", "pup-shop.service"}).code == 0);
  REQUIRE(visitor.asks(20));
  CHECK(pids() != before);
  before = pids();
  CHECK(systemctl({"kill", "--kill-whom=main", "-s", "USR2",
                   "pup-shop.service"})
            .code
        == 0);
  REQUIRE(visitor.asks(20));
  CHECK(wait_until([&] { return box.pup({"status"}).code == 0; }));
  const auto supervisor = box.status().at("pid").to_number<pid_t>();
  CHECK(visitor.end() == 0);
  REQUIRE(::kill(supervisor, SIGKILL) == 0);
  CHECK(wait_until([&] { return box.pup({"status"}).code == 0; }));
  CHECK(pids() == before);
  CHECK(is_active());

  // Who comes while it is stopped starts it.
  CHECK(systemctl({"stop", "pup-shop.service"}).code == 0);
  CHECK_FALSE(is_active());
  CHECK(get(ports[0]).status == 200);
  CHECK(wait_until(is_active));
  CHECK(box.pup({"terminate"}).code == 0);
  CHECK(wait_until([&] { return !is_active(); }));
  CHECK(box.pup({"disable-service", "--system", "--name", "shop"}).code == 0);
  for (const auto* ending : {".service", ".socket"})
    CHECK_FALSE(fs::exists("/etc/systemd/system/pup-shop" + std::string{ending}));
  CHECK(port_is_free(ports[0]));
  CHECK(box.pup({"terminate", "--name", "other"}).code == 0);
}
