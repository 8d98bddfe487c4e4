// An external balancer, as the manual recommends for production: a real NGINX
// with examples/nginx.conf in front of a cluster without "commonPort".
#include "catch.hpp"
#include "system.hpp"

#include <csignal>
#include <fstream>
#include <sstream>

using namespace pup::test;

namespace {

std::string example(const std::string& name) {
  std::ifstream in{std::string{PUP_EXAMPLES} + '/' + name};
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// Replaces each occurrence; there must be one.
void replace(std::string& text, const std::string& from,
             const std::string& to) {
  auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  for (; at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

std::set<std::string> answering(std::uint16_t port, int requests) {
  std::set<std::string> result;
  for (int i = 0; i < requests; ++i)
    result.insert(who(port));
  return result;
}

}  // namespace

SCENARIO("nginx balances a cluster before and after it is scaled") {
  sandbox box;
  box.env["PATH"] += ":/usr/sbin:/usr/local/sbin";
  if (run(box.program({"sh", "-c", "command -v nginx"})).code != 0) {
    WARN("skipped: nginx is not installed");
    return;
  }
  // Eight instances, as many as the example names, and nginx.
  const port_range ports{9};
  const auto front = ports[8];
  auto nginx_config = example("nginx.conf");
  replace(nginx_config, "listen 3000;",
          "listen 127.0.0.1:" + std::to_string(front) + ';');
  for (std::uint16_t n = 0; n < 8; ++n)
    replace(nginx_config, "127.0.0.1:800" + std::to_string(n),
            "127.0.0.1:" + std::to_string(ports[n]));
  box.write("nginx.conf", nginx_config);
  box.write("config.json",
            config({R"({"id": "web", "cmd": [")" PUP_HTTP_SERVER
                    R"("], "cluster": {"instances": 4, "processStartPort": )"
                    + std::to_string(ports[0]) + "}}"}));
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
  CHECK(box.unit("web").at("balancer").is_null());

  process nginx{box.program({"nginx", "-p", box.path(), "-c",
                             box.path("nginx.conf"), "-g", "daemon off;"})};
  REQUIRE(wait_until([&] { return !port_is_free(front); }));

  CHECK(answering(front, 16)
        == std::set<std::string>{"web-1", "web-2", "web-3", "web-4"});
  REQUIRE(box.pup({"--id", "web", "--instances", "6"}).code == 0);
  CHECK(answering(front, 24)
        == std::set<std::string>{"web-1", "web-2", "web-3", "web-4", "web-5",
                                 "web-6"});
  REQUIRE(box.pup({"--id", "web", "--instances", "2"}).code == 0);
  CHECK(answering(front, 8) == std::set<std::string>{"web-1", "web-2"});

  nginx.signal(SIGQUIT);
  CHECK(nginx.wait().code == 0);
  CHECK(box.end() == "");
}
