// The main job, as its user sees it: start, balance, scale, restart, terminate.
#include "catch.hpp"
#include "system.hpp"

using namespace pup::test;

SCENARIO("a configuration starts, serves and ends") {
  sandbox box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 4)}));

  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
  for (const auto* id : {"web-1", "web-2", "web-3", "web-4"})
    CHECK(started.out.find(id) != std::string::npos);
  CHECK(get(ports[0]).status == 200);
  CHECK(box.end() == "");
}
