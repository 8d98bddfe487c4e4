// The manual's own configuration, to the letter: its ports, its command, a real
// Deno.
#include "catch.hpp"
#include "deno.hpp"
#include "system.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>

using namespace pup::test;

namespace {

// The JSON block of the manual page "Scaling applications".
constexpr std::string_view manual = R"({
  "processes": [
    {
      "id": "my-scalable-app",
      "cmd": ["deno","run","--allow-net","server.ts"],
      "cluster": {
        "instances": 4,
        "commonPort": 3000,
        "startPort": 8000,
        "strategy": "round-robin"
      },
      "loadBalancerStrategy": "round-robin"
    }
  ]
})";

constexpr std::uint16_t common_port = 3000;
constexpr std::uint16_t start_port = 8000;

const std::string folder = std::string{PUP_EXAMPLES} + "/manual";

std::string without_spaces(std::string_view text) {
  std::string result;
  for (const char c : text)
    if (c != ' ' && c != '\n' && c != '\t' && c != '\r')
      result += c;
  return result;
}

/// Empty: the test can run.
std::string obstacle() {
  for (const int port : {3000, 8000, 8001, 8002, 8003, 8004, 8005})
    if (!port_is_free(static_cast<std::uint16_t>(port)))
      return "port " + std::to_string(port)
             + " of the manual is in use by something else";
  return {};
}

/// 2 * count requests reach each port twice, in turn.
void check_turns(int count) {
  int at = -1;
  for (int i = 0; i < 2 * count; ++i) {
    const auto answer = get(common_port);
    REQUIRE(answer.status == 200);
    int port = -1;
    for (int n = 0; n < count; ++n)
      if (answer.body
          == "served on port " + std::to_string(start_port + n) + '\n')
        port = n;
    INFO(answer.body);
    REQUIRE(port >= 0);
    if (at >= 0)
      CHECK(port == (at + 1) % count);
    at = port;
  }
}

void check_instances(const sandbox& box, std::size_t count) {
  const auto unit = box.unit("my-scalable-app");
  const auto& all = unit.at("instances").as_array();
  REQUIRE(all.size() == count);
  for (std::size_t n = 0; n < count; ++n) {
    const auto& x = all[n].as_object();
    CHECK(x.at("id").as_string()
          == ("my-scalable-app-" + std::to_string(n + 1)).c_str());
    CHECK(x.at("state").as_string() == "ready");
    CHECK(x.at("port") == start_port + n);
  }
}

void scale(const sandbox& box, const std::string& count) {
  const auto done = box.pup({"--id", "my-scalable-app", "--instances", count});
  CHECK(done.err == "");
  REQUIRE(done.code == 0);
}

}  // namespace

SCENARIO("the manual's configuration runs Deno, as the manual says") {
  sandbox box;
  const auto deno = find_deno(box);
  if (deno.empty()) {
    WARN("skipped: no Deno; set PUP_DENO or run tests/get-deno.sh BUILD_DIR");
    return;
  }
  if (const auto why = obstacle(); !why.empty()) {
    WARN("skipped: " + why);
    return;
  }
  CHECK(without_spaces(manual) == without_spaces([] {
          std::ifstream in{folder + "/config.json"};
          std::ostringstream text;
          text << in.rdbuf();
          return text.str();
        }()));

  // Found as "deno", whatever it is called and wherever it is.
  std::filesystem::create_directory(box.path("bin"));
  std::filesystem::create_symlink(deno, box.path("bin/deno"));
  box.env["PATH"] = box.path("bin") + ':' + box.env["PATH"];
  box.env["DENO_DIR"] = box.path("deno");
  box.env["DENO_NO_UPDATE_CHECK"] = "1";

  const auto started = box.pup({"start", folder + "/config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
  check_instances(box, 4);
  check_turns(4);

  scale(box, "6");
  check_instances(box, 6);
  check_turns(6);

  scale(box, "2");
  check_instances(box, 2);
  check_turns(2);

  scale(box, "0");
  check_instances(box, 0);
  {
    // The port stays open; who comes now waits for the next instance.
    connection waiting{{common_port, "127.0.0.1", {}}};
    waiting.ask("/");
    scale(box, "4");
    CHECK(waiting.answer().status == 200);
  }
  check_instances(box, 4);
  check_turns(4);
  CHECK(box.end() == "");
}
