// Backends that fail or are slow: clients do not notice, and the backend gets
// its share again once it serves well.
#include "pup/runtime/engine_shared.hpp"
#include "pup/runtime/proxy.hpp"

#include "catch.hpp"
#include "loopback.hpp"

using namespace loopback;

namespace {

const ejected refused{"app", 1, 101, ECONNREFUSED};
const readmitted back{"app", 1, 101};

std::vector<proxy_fact> facts(std::initializer_list<proxy_fact> x) {
  return x;
}

void start_listening(const unique_fd& bound) {
  if (::listen(bound.get(), 4096) != 0)
    fail_errno("listen");
}

}  // namespace

TEST_CASE("one refusal costs one retry, for all shards together") {
  const auto strategy =
      GENERATE(balance_strategy::round_robin, balance_strategy::source_ip_hash,
               balance_strategy::least_connections, balance_strategy::random);
  const auto dead = bound();
  server alive(tags('A'));
  listener_options options;
  options.strategy = strategy;
  fixture f(options, 4);
  f.publish({at(1, port_of(dead)), at(2, alive.port())});
  // Until it is found out; random and hash may meet the other one first.
  std::uint32_t from = localhost;
  while (f.facts.all().empty())
    REQUIRE(f.tag(from++) == "A");
  for (int i = 0; i < 100; ++i)
    REQUIRE(f.tag(from++) == "A");
  CHECK(eventually([&] { return f.of(1).total == 1; }));
  CHECK(f.facts.all() == facts({refused}));
  // Told once, however often probes fail; then it comes back by itself.
  start_listening(dead);
  REQUIRE(f.facts.wait_for(2));
  CHECK(f.facts.all() == facts({refused, back}));
  REQUIRE(f.active_is(0));
  std::vector<unique_fd> held;
  while (f.of(1).active == 0) {
    REQUIRE(held.size() < 500);
    held.push_back(connected(f.port, from++));
    REQUIRE(f.active_is(static_cast<std::uint32_t>(held.size())));
  }
}

TEST_CASE("while all are ejected clients wait, and each success serves them") {
  const auto shards = GENERATE(1u, 4u);
  const auto one = bound();
  const auto two = bound();
  listener_options options;
  options.connect_timeout = 60s;
  fixture f(options, shards);
  f.publish({at(1, port_of(one)), at(2, port_of(two))});
  std::vector<unique_fd> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(connected(f.port));
    send_all(clients.back(), "x");
  }
  REQUIRE(f.facts.wait_for(2));
  REQUIRE(f.active_is(20));
  start_listening(two);
  // Nothing is published: it is the probe that tells.
  for (int i = 0; i < 20;) {
    const auto peer = accepted(two);
    const auto got = read_some(peer, 1);
    // A probe says nothing.
    i += got == "x";
  }
  CHECK(eventually([&] { return f.of(2).active == 20; }));
  CHECK(f.totals().rejected == 0);
}

TEST_CASE("the only backend is tried although it is ejected") {
  const auto dead = bound();
  fixture f;
  f.publish({at(1, port_of(dead))});
  const auto first = connected(f.port);
  REQUIRE(f.facts.wait_for(1));
  // Some probes fail: the next one is far away.
  std::this_thread::sleep_for(500ms);
  start_listening(dead);
  const auto before = std::chrono::steady_clock::now();
  const auto second = connected(f.port);
  send_all(second, "x");
  while (read_some(accepted(dead), 1) != "x") {}
  CHECK(std::chrono::steady_clock::now() - before < 300ms);
  // Its success is as good as a probe's; the client before is served as well.
  REQUIRE(f.facts.wait_for(2));
  CHECK(f.facts.all() == facts({refused, back}));
  CHECK(eventually([&] { return f.of(1).active == 2; }));
}

TEST_CASE("a backend that accepts and resets is left alone ever longer") {
  auto rude = listening();
  std::atomic<bool> stop{false};
  std::thread backend([&] {
    while (!stop)
      if (readable_within(rude, 10ms)) {
        auto peer = accepted(rude);
        reset(peer);
      }
  });
  server alive(tags('A'));
  fixture f;
  f.publish({at(1, port_of(rude)), at(2, alive.port())});
  const auto start = std::chrono::steady_clock::now();
  for (std::uint32_t ejections = 1; ejections <= 5; ++ejections) {
    while (f.of(1).total < ejections)
      CHECK(f.tag() == "A");
    // Its probe succeeds every time.
    CHECK(f.facts.wait_for(2 * ejections - (ejections == 5 ? 1 : 0)));
  }
  // At 0, 50, 150, 350 and 750 ms at the earliest.
  CHECK(std::chrono::steady_clock::now() - start >= 750ms);
  const auto ejections = f.of(1).total;
  CHECK(f.active_is(0));
  const auto all = f.facts.all();
  CHECK(std::count_if(all.begin(), all.end(),
                      [](const proxy_fact& x) {
                        const auto* e = std::get_if<ejected>(&x);
                        return e != nullptr && e->code == ECONNRESET;
                      })
        == static_cast<std::ptrdiff_t>(ejections));
  stop = true;
  backend.join();
}

TEST_CASE("an ejection belongs to a life, whatever is published meanwhile") {
  const auto dead = bound();
  server alive(tags('A'));
  fixture f({}, 2);
  const std::vector<backend> set{at(1, port_of(dead)), at(2, alive.port())};
  f.publish(set);
  CHECK(f.tag() == "A");
  CHECK(f.tag() == "A");
  REQUIRE(f.of(1).total == 1);
  SECTION("the same life stays ejected") {
    f.publish(set);
    for (int i = 0; i < 10; ++i)
      CHECK(f.tag() == "A");
    CHECK(eventually([&] { return f.of(1).total == 1; }));
    CHECK(f.facts.all() == facts({refused}));
  }
  SECTION("a new life is tried at once") {
    auto next = set;
    next[0].life = 777;
    f.publish(next);
    CHECK(f.tag() == "A");
    CHECK(f.tag() == "A");
    CHECK(f.of(1).life == 777);
    CHECK(eventually([&] { return f.of(1).total == 1; }));
    CHECK(f.facts.all()
          == facts({refused, ejected{"app", 1, 777, ECONNREFUSED}}));
  }
  SECTION("drained and put back, it is probed again") {
    auto without = set;
    without[0].draining = true;
    f.publish(without);
    f.publish(set);
    start_listening(dead);
    REQUIRE(f.facts.wait_for(3));
    CHECK(f.facts.all() == facts({refused, drained{"app", 1, 101, 0}, back}));
  }
}

TEST_CASE("clients of an ejected backend return to it") {
  server b(tags('B'));
  server c(tags('C'));
  auto flaky = bound();
  listener_options options;
  options.strategy = balance_strategy::source_ip_hash;
  fixture f(options, 2);
  f.publish({at(1, port_of(flaky)), at(2, b.port()), at(3, c.port())});
  std::string without;
  for (std::uint32_t i = 0; i < 60; ++i)
    without += f.tag(localhost + i);
  CHECK(f.of(1).total >= 1);
  start_listening(flaky);
  REQUIRE(f.facts.wait_for(2));
  std::thread third([&] {
    // Whose connections say nothing are probes.
    for (int served = 0; served < 10;)
      served += read_some(accepted(flaky), 1) == "?";
  });
  int returned = 0;
  for (std::uint32_t i = 0; i < 60 && returned < 10; ++i) {
    const auto before = f.of(1).total;
    const auto fd = connected(f.port, localhost + i);
    send_all(fd, "?");
    REQUIRE(eventually(
        [&] { return f.of(1).total > before || readable_within(fd, 0ms); }));
    if (f.of(1).total > before)
      ++returned;
    else
      CHECK(read_some(fd, 1) == std::string(1, without[i]));
  }
  CHECK(returned == 10);
  third.join();
}

TEST_CASE("probes come after 50 ms, then rarer, never rarer than 10 s") {
  const auto listener = std::make_shared<listener_state>();
  backend_state x({1, 1}, listener);
  std::chrono::steady_clock::time_point now{1h};
  REQUIRE(x.eject(now));
  CHECK_FALSE(x.eject(now));
  CHECK(listener->ejected == 1);
  for (const auto wanted :
       {50ms, 100ms, 200ms, 400ms, 800ms, 1600ms, 3200ms, 6400ms, 10'000ms})
    CHECK(x.next_probe_delay() == wanted);
  for (int i = 0; i < 100; ++i)
    CHECK(x.next_probe_delay() == 10s);
  // A success that does not last is none.
  REQUIRE(x.readmit(now));
  CHECK_FALSE(x.readmit(now));
  CHECK(listener->ejected == 0);
  REQUIRE(x.eject(now + 10s));
  CHECK(x.next_probe_delay() == 10s);
  REQUIRE(x.readmit(now));
  REQUIRE(x.eject(now + 10'001ms));
  CHECK(x.next_probe_delay() == 50ms);
}

// -- least-time ---------------------------------------------------------------

TEST_CASE("response times are a mean that forgets with a half-life of 1 s") {
  backend_state x({1, 1}, std::make_shared<listener_state>());
  std::chrono::steady_clock::time_point now{1h};
  CHECK(x.response_us(now) == 0);
  x.answered(8ms, now);
  CHECK(x.response_us(now) == Approx(8000));
  // The stamp's unit is 65 us: a hundredth of a per cent of a half-life.
  CHECK(x.response_us(now + 1s) == Approx(4000).epsilon(0.001));
  CHECK(x.response_us(now + 3s) == Approx(1000).epsilon(0.001));
  CHECK(x.response_us(now + 1h) > 0);
  // The older half weighs as much as the new answer.
  x.answered(2ms, now + 1s);
  CHECK(x.response_us(now + 1s) == Approx(5000).epsilon(0.001));
  // Many at once: the last ones make the mean.
  for (int i = 0; i < 1000; ++i)
    x.answered(100us, now + 1s);
  CHECK(x.response_us(now + 1s) == Approx(100).epsilon(0.01));
  // A loop whose clock was read a little earlier.
  CHECK(x.response_us(now + 999ms) == Approx(100).epsilon(0.01));
  x.answered(0us, now + 10s);
  CHECK(x.response_us(now + 10s) >= 1);
}

TEST_CASE("least-time prefers the quick one, and the slow one can recover") {
  std::atomic<std::chrono::milliseconds> delay{50ms};
  server slow([&](unique_fd fd) {
    const auto question = read_some(fd, 1);
    std::this_thread::sleep_for(delay.load());
    send_all(fd, question);
    read_all(fd);
  });
  server quick(echo);
  listener_options options;
  options.strategy = balance_strategy::least_time;
  fixture f(options, 2);
  f.publish({at(1, slow.port()), at(2, quick.port())});
  const auto ask = [&] {
    const auto fd = connected(f.port);
    // Who is slow here is the client, which no backend can help.
    std::this_thread::sleep_for(1ms);
    send_all(fd, "?");
    CHECK(read_some(fd, 1) == "?");
  };
  for (int i = 0; i < 100; ++i)
    ask();
  // Both were tried, and one of them left alone then.
  CHECK(f.of(1).total >= 1);
  CHECK(f.of(1).total <= 20);
  // It gets quick; it is tried again when its mean has faded, and stays.
  delay = 0ms;
  const auto before = f.of(1).total;
  CHECK(eventually([&] {
    ask();
    return f.of(1).total >= before + 20;
  }));
}
