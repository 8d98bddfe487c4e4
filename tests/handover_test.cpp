// Listening sockets that outlive the data plane that served them.
#include "pup/runtime/engine_sockets.hpp"
#include "pup/runtime/proxy.hpp"

#include "catch.hpp"
#include "loopback.hpp"

#include <future>
#include <memory>
#include <mutex>
#include <utility>
#include <variant>
#include <vector>

using namespace loopback;

namespace {

/// One data plane after another for one key.
struct generations {
  server app{tags('A')};
  std::unique_ptr<proxy> balancer;
  listener_options options;
  kept_sockets kept;

  void begin(unsigned shards) {
    balancer = std::make_unique<proxy>(nullptr, shards);
    const auto result =
        kept.empty() ? balancer->listen("app", options) : take_over();
    REQUIRE(result);
    options.port = result.port;
  }

  listen_result take_over() {
    return balancer->listen("app", options, std::exchange(kept, {}));
  }

  void publish() {
    balancer->publish("app", {at(1, app.port())});
  }

  kept_sockets duplicates() {
    auto result = balancer->duplicates("app");
    REQUIRE(std::holds_alternative<kept_sockets>(result));
    return std::move(std::get<kept_sockets>(result));
  }

  /// As a crash would, as far as sockets are concerned.
  void end() {
    kept = duplicates();
    balancer.reset();
  }

  std::vector<unique_fd> clients(int count) {
    std::vector<unique_fd> result;
    for (int i = 0; i < count; ++i)
      result.push_back(connected(options.port));
    return result;
  }
};

/// How many of them are served.
std::size_t served(const std::vector<unique_fd>& clients) {
  std::size_t result = 0;
  for (const auto& x : clients)
    result += read_some(x, 1) == "A";
  return result;
}

/// A free port that the kernel gives to nobody who does not ask for it: above
/// the usual net.ipv4.ip_local_port_range.
std::uint16_t free_port() {
  for (auto port = static_cast<std::uint16_t>(61'000 + ::getpid() % 4'000);;
       ++port)
    try {
      return port_of(bound(port));
    } catch (const std::system_error&) {  // the next one
      REQUIRE(port < 65'535);
    }
}

}  // namespace

TEST_CASE("who is queued is served by the next data plane") {
  const auto [before, after] =
      GENERATE(std::pair{1u, 1u}, std::pair{2u, 2u}, std::pair{4u, 2u},
               std::pair{2u, 4u}, std::pair{3u, 1u});
  INFO(before << " shards, then " << after);
  generations g;
  g.begin(before);
  const auto early = g.clients(40);
  g.end();
  REQUIRE(g.kept.size() == before);
  const auto between = g.clients(40);
  g.begin(after);
  const auto late = g.clients(40);
  g.publish();
  CHECK(served(early) == 40);
  CHECK(served(between) == 40);
  CHECK(served(late) == 40);
  // From now on each shard has one, and clients go nowhere else.
  CHECK(eventually([&] { return g.duplicates().size() == after; }));
  CHECK(served(g.clients(100)) == 100);
  CHECK(g.balancer->totals("app").total == 220);

  // And once more, with what was made on the way.
  g.end();
  const auto again = g.clients(40);
  g.begin(before);
  g.publish();
  CHECK(served(again) == 40);
  CHECK(eventually([&] { return g.duplicates().size() == before; }));
  CHECK(served(g.clients(100)) == 100);
}

TEST_CASE("a port that was let go waits for its successor") {
  generations g;
  g.begin(2);
  g.publish();
  const auto before = connected(g.options.port);
  REQUIRE(read_some(before, 1) == "A");
  g.kept = g.duplicates();
  g.balancer->let_go("app");
  const auto waiting = g.clients(20);
  CHECK(g.balancer->port("app") == 0);
  CHECK(g.balancer->totals("app").total == 1);
  // Connections go on meanwhile.
  CHECK_FALSE(readable_within(before, 20ms));

  SECTION("in another data plane") {
    const auto former = std::move(g.balancer);
    g.begin(2);
    CHECK_FALSE(readable_within(before, 20ms));
  }
  SECTION("in the same one: the successor did not come up") {
    REQUIRE(g.take_over());
  }
  g.publish();
  CHECK(served(waiting) == 20);
}

TEST_CASE("one that finishes carries what it has, and tells the end") {
  const server app{echo};
  const auto shards = GENERATE(1u, 2u);
  proxy former{nullptr, shards};
  const auto listening = former.listen("app", {});
  REQUIRE(listening);
  former.publish("app", {at(1, app.port())});
  std::promise<void> ended;
  auto end = ended.get_future();
  const auto ignore = [](const proxy_fact&) {};

  SECTION("there is no connection") {
    former.finish([&] { ended.set_value(); }, ignore);
    CHECK(end.wait_for(30s) == std::future_status::ready);
  }
  SECTION("there are two") {
    auto first = connected(listening.port);
    auto second = connected(listening.port);
    for (const auto* x : {&first, &second}) {
      send_all(*x, "a");
      REQUIRE(read_some(*x, 1) == "a");
    }
    auto kept = std::get<kept_sockets>(former.duplicates("app"));
    former.finish([&] { ended.set_value(); }, ignore);
    // Who comes now is for the successor.
    proxy successor{nullptr, 1};
    listener_options options;
    options.port = listening.port;
    const auto third = connected(listening.port);
    REQUIRE(successor.listen("app", options, std::move(kept)));
    successor.publish("app", {at(1, app.port())});
    send_all(third, "c");
    CHECK(read_some(third, 1) == "c");
    first.reset();
    send_all(second, "b");
    CHECK(read_some(second, 1) == "b");
    CHECK(end.wait_for(0s) == std::future_status::timeout);
    second.reset();
    CHECK(end.wait_for(30s) == std::future_status::ready);
  }
}

TEST_CASE("one that finishes tells when a life has no connection any more") {
  const server app{echo};
  proxy former{nullptr, GENERATE(1u, 2u)};
  const auto listening = former.listen("app", {});
  REQUIRE(listening);
  // Was leaving already.
  auto leaving = at(2, app.port());
  leaving.draining = true;
  leaving.drain = 1;
  former.publish("app", {at(1, app.port()), leaving});
  auto client = connected(listening.port);
  send_all(client, "a");
  REQUIRE(read_some(client, 1) == "a");
  std::mutex mutex;
  std::vector<std::uint32_t> told;
  former.finish([] {},
                [&](const proxy_fact& fact) {
                  const std::lock_guard guard{mutex};
                  told.push_back(std::get<drained>(fact).slot);
                });
  const auto have_told = [&](std::vector<std::uint32_t> slots) {
    return eventually([&] {
      const std::lock_guard guard{mutex};
      return told == slots;
    });
  };
  const auto life = at(1, app.port()).life;
  former.drain("app", 1, life);
  former.drain("app", 1, life + 1);
  CHECK(have_told({1}));
  former.drain("app", 2, life);
  former.drain("none", 3, life);
  CHECK(have_told({1, 2, 3}));
  send_all(client, "b");
  CHECK(read_some(client, 1) == "b");
  client.reset();
  CHECK(have_told({1, 2, 3, 1}));
  // Another successor asks again.
  former.drain("app", 1, life);
  CHECK(have_told({1, 2, 3, 1, 1}));
}

TEST_CASE("a port that is closed is free, whoever keeps duplicates") {
  generations g;
  g.begin(GENERATE(1u, 2u));
  g.publish();
  const auto kept = g.duplicates();
  g.balancer->close("app");
  proxy another{nullptr};
  CHECK(another.listen("other", g.options));
}

TEST_CASE("sockets of another place are served until their queue is empty") {
  generations g;
  g.begin(2);
  const auto early = g.clients(20);
  g.end();
  const auto former = g.options.port;
  SECTION("another port") {
    g.options.port = free_port();
  }
  SECTION("another host") {
    g.options.host = "127.0.0.1";
  }
  g.begin(2);
  if (g.options.host.empty())
    REQUIRE(g.options.port != former);
  g.publish();
  CHECK(served(early) == 20);
  CHECK(served(g.clients(20)) == 20);
  CHECK(eventually([&] { return g.duplicates().size() == 2; }));
}

TEST_CASE("whatever a crash left on a socket is taken off") {
  generations g;
  g.begin(1);
  g.end();
  ignore_requests(g.kept.front().socket.get(), true);
  set_blocking(g.kept.front().socket, true);
  g.begin(1);
  g.publish();
  CHECK(served(g.clients(5)) == 5);
  // On the loop nothing blocks: it still answers.
  CHECK(g.balancer->listen("app", g.options));
}

TEST_CASE("what cannot be taken over is an error that changes nothing") {
  generations g;
  g.begin(1);
  g.kept = g.duplicates();
  SECTION("the key listens already") {
    const auto result = g.take_over();
    REQUIRE(result.error);
    CHECK(result.error->code == EALREADY);
  }
  SECTION("no listening socket") {
    g.kept.front().socket = bound();
    const auto result = g.take_over();
    REQUIRE(result.error);
    CHECK(result.error->code == EINVAL);
  }
  g.publish();
  CHECK(served(g.clients(5)) == 5);
}

TEST_CASE("there is nothing to keep of what does not listen") {
  generations g;
  g.balancer = std::make_unique<proxy>(nullptr, 1);
  CHECK(g.duplicates().empty());
  g.balancer->let_go("app");
  REQUIRE(g.balancer->adopt("app", listening(), {}));
  CHECK(g.duplicates().empty());
}
