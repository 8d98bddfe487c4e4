// The data plane against real sockets on loopback.
#include "pup/runtime/proxy.hpp"

#include "pup/runtime/engine.hpp"
#include "pup/runtime/fd.hpp"

#include "catch.hpp"
#include "loopback.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <malloc.h>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace pup;
using namespace std::chrono_literals;
using namespace loopback;

// -- bytes --------------------------------------------------------------------

TEST_CASE("bytes arrive complete and in order, whatever their number") {
  const auto shards = GENERATE(1u, 2u);
  server first(echo);
  server second(echo_at_end);
  fixture f({}, shards);
  f.publish({at(1, first.port()), at(2, second.port())});
  std::atomic<int> wrong{0};
  std::vector<std::thread> clients;
  for (unsigned client = 0; client < 6; ++client)
    clients.emplace_back([&, client] {
      std::mt19937 numbers(client);
      for (unsigned i = 0; i < 50; ++i) {
        // Around the sizes where something changes, and anything else.
        const std::size_t sizes[] = {
            0, 1, 100, 65'535, 65'536, 65'537, 131'072, numbers() % 400'000};
        const auto bytes = random_bytes(sizes[numbers() % 8], i);
        const auto fd = connected(f.port);
        wrong += exchange(fd, bytes) != bytes;
      }
    });
  for (auto& x : clients)
    x.join();
  CHECK(wrong == 0);
  CHECK(f.active_is(0));
  CHECK(eventually([&] { return f.totals().total == 300; }));
}

TEST_CASE("many small exchanges on one connection") {
  server backend(echo);
  fixture f;
  f.publish({at(1, backend.port())});
  const auto fd = connected(f.port);
  for (unsigned i = 0; i < 2000; ++i) {
    const auto bytes = random_bytes(8 + i, i);
    REQUIRE(send_all(fd, bytes));
    REQUIRE(read_some(fd, bytes.size()) == bytes);
  }
}

TEST_CASE("bulk both ways: a slow reader holds the sender back, none is lost") {
  constexpr std::size_t chunk = 1 << 20;
  constexpr std::size_t chunks = 64;
  const auto up = random_bytes(chunk, 1);
  const auto down = random_bytes(chunk, 2);
  auto listener = listening();
  fixture f;
  f.publish({at(1, port_of(listener))});
  const auto client = connected(f.port);
  const auto peer = accepted(listener);
  const auto send_chunks = [](const unique_fd& fd, const std::string& bytes,
                              std::atomic<std::size_t>& sent) {
    for (std::size_t i = 0; i < chunks && send_all(fd, bytes); ++i)
      ++sent;
    end_sending(fd);
  };
  std::atomic<std::size_t> sent_up{0};
  std::atomic<std::size_t> sent_down{0};
  std::thread upload([&] { send_chunks(client, up, sent_up); });
  std::thread download([&] { send_chunks(peer, down, sent_down); });
  // Nobody reads: the bytes taken in come to a stop, far from all.
  std::uint64_t before = 0;
  for (int quiet = 0; quiet < 10;) {
    std::this_thread::sleep_for(20ms);
    const auto t = f.totals();
    quiet = t.bytes_in + t.bytes_out == before ? quiet + 1 : 0;
    before = t.bytes_in + t.bytes_out;
  }
  CHECK(sent_up < chunks);
  CHECK(sent_down < chunks);
  CHECK(before < chunks * chunk);
  const auto is_right = [](const unique_fd& fd, const std::string& bytes) {
    for (std::size_t i = 0; i < chunks; ++i)
      if (read_some(fd, bytes.size()) != bytes)
        return false;
    return read_all(fd).empty();
  };
  bool up_right = false;
  std::thread reader([&] { up_right = is_right(peer, up); });
  const bool down_right = is_right(client, down);
  reader.join();
  upload.join();
  download.join();
  CHECK(up_right);
  CHECK(down_right);
  CHECK(f.active_is(0));
  CHECK(eventually([&] { return f.totals().bytes_in == chunks * chunk; }));
  CHECK(eventually([&] { return f.totals().bytes_out == chunks * chunk; }));
}

TEST_CASE("more bulky ways than there are pipes: the rest is copied") {
  // Each stalled echo keeps two ways bulky.
  constexpr std::size_t connections = bounds::pipes / 2 + 8;
  server backend(echo);
  fixture f;
  f.publish({at(1, backend.port())});
  const auto bytes = random_bytes(8 << 20, 5);
  std::vector<unique_fd> clients;
  std::vector<std::thread> senders;
  for (std::size_t i = 0; i < connections; ++i)
    clients.push_back(connected(f.port));
  for (auto& fd : clients)
    senders.emplace_back([&] {
      send_all(fd, bytes);
      end_sending(fd);
    });
  std::uint64_t before = 1;
  for (auto now = f.totals().bytes_out; now != before || now == 0;
       now = f.totals().bytes_out) {
    before = now;
    std::this_thread::sleep_for(100ms);
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (auto& fd : clients)
    readers.emplace_back([&] { wrong += read_all(fd) != bytes; });
  for (auto& x : readers)
    x.join();
  for (auto& x : senders)
    x.join();
  CHECK(wrong == 0);
}

TEST_CASE("an end of sending is forwarded, and the other way stays open") {
  auto listener = listening();
  fixture f;
  f.publish({at(1, port_of(listener))});
  const auto client = connected(f.port);
  SECTION("the client's first") {
    send_all(client, "question");
    end_sending(client);
    const auto peer = accepted(listener);
    CHECK(read_all(peer) == "question");
    send_all(peer, "ans");
    CHECK(read_some(client, 3) == "ans");
    send_all(peer, "wer");
    end_sending(peer);
    CHECK(read_all(client) == "wer");
  }
  SECTION("the client's, before it ever sent a byte") {
    end_sending(client);
    const auto peer = accepted(listener);
    CHECK(read_all(peer).empty());
    send_all(peer, "hello");
    end_sending(peer);
    CHECK(read_all(client) == "hello");
  }
  SECTION("the backend's first") {
    const auto peer = accepted(listener);
    send_all(peer, "all I have to say");
    end_sending(peer);
    CHECK(read_all(client) == "all I have to say");
    CHECK(eventually([&] { return f.totals().active == 1; }));
    send_all(client, "still here");
    end_sending(client);
    CHECK(read_all(peer) == "still here");
  }
  CHECK(f.active_is(0));
}

TEST_CASE("what follows urgent data is not lost") {
  server a(echo_at_end);
  fixture f;
  f.publish({at(1, a.port())});
  for (int i = 0; i < 200; ++i) {
    const auto fd = connected(f.port);
    const bool known = i % 2 == 0;  // to its backend
    if (known) {
      send_all(fd, "first ");
      REQUIRE(f.active_is(1));
    }
    send_all(fd, "before ");
    REQUIRE(::send(fd.get(), "!", 1, MSG_OOB) == 1);
    send_all(fd, "after");
    end_sending(fd);
    // The byte itself is out of band, and no part of the stream.
    REQUIRE(read_all(fd) == (known ? "first before after" : "before after"));
    REQUIRE(f.active_is(0));
  }
}

TEST_CASE("small messages are not held back") {
  server a(echo);
  fixture f;
  f.publish({at(1, a.port())});
  const auto fd = connected(f.port);
  const int one = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  send_all(fd, "0");
  REQUIRE(read_some(fd, 1) == "0");
  REQUIRE(f.active_is(1));
  // The proxy's own end: the one whose peer is the backend.
  int found = 0;
  for (int i = 3; i < 1024; ++i) {
    sockaddr_in peer{};
    socklen_t length = sizeof peer;
    if (::getpeername(i, reinterpret_cast<sockaddr*>(&peer), &length) != 0
        || peer.sin_family != AF_INET || ntohs(peer.sin_port) != a.port())
      continue;
    send_all(fd, "1");
    REQUIRE(read_some(fd, 1) == "1");
    int without_delay = 0;
    socklen_t size = sizeof without_delay;
    ::getsockopt(i, IPPROTO_TCP, TCP_NODELAY, &without_delay, &size);
    CHECK(without_delay == 1);
    ++found;
  }
  CHECK(found == 1);
}

TEST_CASE("a reset is forwarded as a reset") {
  auto listener = listening();
  fixture f;
  f.publish({at(1, port_of(listener))});
  auto client = connected(f.port);
  auto peer = accepted(listener);
  send_all(client, "x");
  CHECK(read_some(peer, 1) == "x");
  int error = 0;
  SECTION("from the client") {
    reset(client);
    CHECK(read_all(peer, &error).empty());
  }
  SECTION("from the backend") {
    reset(peer);
    CHECK(read_all(client, &error).empty());
  }
  SECTION("from the client, while its backend takes nothing") {
    const auto bytes = random_bytes(1 << 20, 1);
    ::fcntl(client.get(), F_SETFL, O_NONBLOCK);
    pollfd p{client.get(), POLLOUT, 0};
    while (::poll(&p, 1, 200) == 1)
      (void)::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    reset(client);
    CHECK(f.active_is(0));
    read_all(peer, &error);
  }
  CHECK(error == ECONNRESET);
  CHECK(f.active_is(0));
}

// -- failing backends ---------------------------------------------------------

TEST_CASE("a backend that refuses is never noticed by a client") {
  const auto strategy =
      GENERATE(balance_strategy::round_robin, balance_strategy::source_ip_hash,
               balance_strategy::least_connections, balance_strategy::random);
  const auto dead = bound();
  server alive(echo_at_end);
  listener_options options;
  options.strategy = strategy;
  fixture f(options);
  const std::vector<backend> set{at(1, port_of(dead)), at(2, port_of(dead)),
                                 at(3, alive.port())};
  // Half of them have spoken and even ended before they are accepted, so their
  // bytes leave with the connect; the others speak later.
  std::vector<unique_fd> early;
  for (std::uint32_t i = 0; i < 40; ++i) {
    early.push_back(connected(f.port, localhost + i));
    send_all(early.back(), "early " + std::to_string(i));
    if (i % 2 == 0)
      end_sending(early.back());
  }
  f.publish(set);
  for (std::uint32_t i = 0; i < 40; ++i) {
    end_sending(early[i]);
    CHECK(read_all(early[i]) == "early " + std::to_string(i));
  }
  REQUIRE(f.active_is(0));
  for (std::uint32_t i = 0; i < 40; ++i) {
    const auto late = connected(f.port, localhost + i);
    REQUIRE(f.active_is(1));
    send_all(late, "late");
    end_sending(late);
    CHECK(read_all(late) == "late");
    REQUIRE(f.active_is(0));
  }
  CHECK(f.of(1).total > 0);
  CHECK(eventually([&] { return f.of(3).total == 80; }));
  CHECK(eventually([&] { return f.of(1).active == 0; }));
  CHECK(f.totals().rejected == 0);
}

TEST_CASE("a backend that resets before a byte was exchanged is passed over") {
  auto rude = listening();
  server alive(tags('A'));
  fixture f;
  f.publish({at(1, port_of(rude)), at(2, alive.port())});
  const auto client = connected(f.port);
  auto peer = accepted(rude);
  reset(peer);
  CHECK(read_some(client, 1) == "A");
}

TEST_CASE("a backend that does not answer the connect is passed over in time") {
  // A listen queue of one, full: further handshakes are not answered.
  auto hung = listening(0);
  const auto filler = connected(port_of(hung));
  server alive(echo_at_end);
  listener_options options;
  options.connect_timeout = 100ms;
  const bool speaks_first = GENERATE(true, false);
  fixture f(options);
  const auto client = connected(f.port);
  if (speaks_first)
    send_all(client, "early ");
  f.publish({at(1, port_of(hung)), at(2, alive.port())});
  REQUIRE(eventually([&] { return f.of(2).active == 1; }));
  CHECK(eventually([&] { return f.of(1).total == 1; }));
  CHECK(eventually([&] { return f.of(1).active == 0; }));
  send_all(client, "late");
  end_sending(client);
  CHECK(read_all(client) == (speaks_first ? "early late" : "late"));
  CHECK(f.facts.all()
        == std::vector<proxy_fact>{ejected{"app", 1, 101, ETIMEDOUT}});
}

TEST_CASE("when all refuse a client waits for the next set") {
  const auto dead = bound();
  server alive(echo_at_end);
  fixture f;
  f.publish({at(1, port_of(dead)), at(2, port_of(dead))});
  const auto fd = connected(f.port);
  send_all(fd, "patience");
  end_sending(fd);
  REQUIRE(eventually([&] { return f.of(1).total + f.of(2).total >= 2; }));
  REQUIRE(f.active_is(1));
  CHECK(eventually([&] { return f.of(1).active + f.of(2).active == 0; }));
  SECTION("an unchanged set is a new round") {
    f.publish({at(1, port_of(dead)), at(2, port_of(dead))});
    REQUIRE(eventually([&] { return f.of(1).total + f.of(2).total >= 4; }));
  }
  f.publish({at(1, port_of(dead)), at(3, alive.port())});
  CHECK(read_all(fd) == "patience");
  CHECK(f.totals().rejected == 0);
}

TEST_CASE("when all refuse for too long the client is rejected") {
  const auto dead = bound();
  listener_options options;
  options.connect_timeout = 50ms;
  fixture f(options);
  f.publish({at(1, port_of(dead))});
  const auto fd = connected(f.port);
  CHECK(read_all(fd).empty());
  CHECK(f.active_is(0));
  CHECK(f.totals().rejected == 1);
}

TEST_CASE("a waiting client that resets is let go") {
  const auto dead = bound();
  fixture f;
  f.publish({at(1, port_of(dead))});
  auto fd = connected(f.port);
  REQUIRE(f.active_is(1));
  reset(fd);
  CHECK(f.active_is(0));
  CHECK(f.totals().rejected == 0);
}

TEST_CASE("no more clients than the bound wait after they were accepted") {
  const auto dead = bound();
  auto silent = listening();
  listener_options options;
  options.connect_timeout = 60s;
  fixture f(options);
  f.publish({at(1, port_of(dead))});
  std::vector<unique_fd> clients;
  for (std::uint32_t i = 0; i < bounds::parked + 100; ++i)
    clients.push_back(connected(f.port));
  REQUIRE(f.active_is(bounds::parked));
  clients.front().reset();  // FIN only: it may still want an answer
  CHECK(eventually([&] { return f.totals().active == bounds::parked; }));
  f.publish({at(2, port_of(silent))});
  CHECK(eventually([&] { return f.totals().total == bounds::parked + 100; }));
  CHECK(eventually([&] { return f.of(2).active >= bounds::parked + 99; }));
  CHECK(f.totals().rejected == 0);
}

// -- sets ---------------------------------------------------------------------

TEST_CASE("without an eligible backend clients wait unaccepted") {
  server alive(tags('A'));
  fixture f;
  SECTION("the set is empty") {}
  SECTION("all are draining") {
    f.publish({at(1, alive.port(), true)});
  }
  SECTION("the set became empty") {
    f.publish({at(1, alive.port())});
    CHECK(f.tag() == "A");
    REQUIRE(f.active_is(0));
    f.publish({});
  }
  const auto accepted_before = f.totals().total;
  const auto fd = connected(f.port);
  CHECK_FALSE(readable_within(fd, 50ms));
  CHECK(eventually([&] { return f.totals().total == accepted_before; }));
  f.publish({at(1, alive.port())});
  CHECK(read_some(fd, 1) == "A");
}

TEST_CASE("without an eligible backend nobody waits for ever") {
  server alive(tags('A'));
  listener_options options;
  options.ready_timeout = 200ms;
  fixture f(options, GENERATE(1u, 2u));
  SECTION("there never was one") {}
  SECTION("there is none any more") {
    f.publish({at(1, alive.port())});
    CHECK(f.tag() == "A");
    REQUIRE(f.active_is(0));
    f.publish({});
  }
  const auto before = f.totals();
  const auto begin = std::chrono::steady_clock::now();
  std::vector<unique_fd> clients;
  for (int i = 0; i < 20; ++i)
    clients.push_back(connected(f.port));
  for (const auto& x : clients)
    CHECK(read_all(x).empty());
  CHECK(std::chrono::steady_clock::now() - begin >= 200ms);
  CHECK(f.totals().rejected == before.rejected + 20);
  CHECK(eventually([&] { return f.totals().total == before.total + 20; }));
  CHECK(f.totals().queued == 0);
  // The listener goes on, and takes another time.
  options.ready_timeout = 60s;
  REQUIRE(f.balancer.listen("app", options));
  const auto late = connected(f.port);
  f.publish({at(1, alive.port())});
  CHECK(read_some(late, 1) == "A");
}

TEST_CASE("round-robin is exactly even over real connections") {
  server a(tags('A'));
  server b(tags('B'));
  server c(tags('C'));
  fixture f;
  f.publish({at(1, a.port()), at(2, b.port()), at(3, c.port())});
  std::string seen;
  for (int i = 0; i < 9; ++i)
    seen += f.tag();
  CHECK(seen == "ABCABCABC");
}

TEST_CASE("least-connections fills the emptier backend") {
  auto a = listening();
  auto b = listening();
  listener_options options;
  options.strategy = balance_strategy::least_connections;
  fixture f(options);
  f.publish({at(1, port_of(a))});
  std::vector<unique_fd> held;
  for (int i = 0; i < 5; ++i)
    held.push_back(connected(f.port));
  REQUIRE(eventually([&] { return f.of(1).active == 5; }));
  f.publish({at(1, port_of(a)), at(2, port_of(b))});
  for (int i = 0; i < 5; ++i)
    held.push_back(connected(f.port));
  CHECK(eventually([&] { return f.of(2).active == 5; }));
  CHECK(eventually([&] { return f.of(1).active == 5; }));
}

TEST_CASE("a draining backend keeps its connections and is reported once") {
  server a(echo);
  server b(tags('B'));
  fixture f;
  f.publish({at(1, a.port())});
  const auto one = connected(f.port);
  auto two = connected(f.port);
  REQUIRE(eventually([&] { return f.of(1).active == 2; }));
  f.publish({at(1, a.port(), true), at(2, b.port())});
  CHECK(f.tag() == "B");
  CHECK(f.tag() == "B");
  send_all(one, "still served");
  CHECK(read_some(one, 12) == "still served");
  two.reset();
  REQUIRE(eventually([&] { return f.of(1).active == 1; }));
  CHECK(f.facts.all().empty());
  // Published again: the same drain.
  f.publish({at(1, a.port(), true), at(2, b.port())});
  end_sending(one);
  CHECK(read_all(one).empty());
  REQUIRE(f.facts.wait_for(1));
  f.publish({at(1, a.port(), true), at(2, b.port())});
  // One without connections at publish; also a barrier for what came before.
  f.publish({at(2, b.port()), at(3, a.port(), true)});
  REQUIRE(f.facts.wait_for(2));
  CHECK(f.facts.all()
        == std::vector<proxy_fact>{drained{"app", 1, 101, 0},
                                   drained{"app", 3, 103, 0}});
  SECTION("back in service and drained again is reported again") {
    f.publish({at(3, a.port())});
    f.publish({at(3, a.port(), true)});
    REQUIRE(f.facts.wait_for(3));
    CHECK(f.facts.all().back() == proxy_fact{drained{"app", 3, 103, 0}});
  }
}

TEST_CASE("drains are reported once for all shards") {
  auto a = listening();
  fixture f({}, 2);
  f.publish({at(1, port_of(a))});
  std::vector<unique_fd> held;
  for (int i = 0; i < 32; ++i)
    held.push_back(connected(f.port));
  REQUIRE(eventually([&] { return f.of(1).active == 32; }));
  f.publish({at(1, port_of(a), true)});
  CHECK(f.facts.all().empty());
  held.clear();
  a.reset();  // resets what it never accepted
  REQUIRE(f.facts.wait_for(1));
  f.publish({at(9, 9, true)});
  REQUIRE(f.facts.wait_for(2));
  CHECK(f.facts.all()
        == std::vector<proxy_fact>{drained{"app", 1, 101, 0},
                                   drained{"app", 9, 109, 0}});
}

TEST_CASE("a removed backend keeps its connections") {
  server a(echo);
  fixture f;
  f.publish({at(1, a.port())});
  const auto fd = connected(f.port);
  REQUIRE(eventually([&] { return f.of(1).active == 1; }));
  f.publish({});
  send_all(fd, "hello");
  CHECK(read_some(fd, 5) == "hello");
  CHECK(eventually([&] { return f.of(1).active == 1; }));
  // Its counters are its own when it comes back.
  f.publish({at(1, a.port())});
  CHECK(eventually([&] { return f.of(1).active == 1; }));
  f.publish({});
  end_sending(fd);
  CHECK(read_all(fd).empty());
  CHECK(eventually([&] { return f.totals().backends.empty(); }));
  CHECK(f.facts.all().empty());
}

TEST_CASE("sets may change a thousand times a second under load") {
  const auto strategy =
      GENERATE(balance_strategy::round_robin, balance_strategy::source_ip_hash);
  server a(echo_at_end);
  server b(echo_at_end);
  server c(echo_at_end);
  listener_options options;
  options.strategy = strategy;
  fixture f(options, GENERATE(1u, 2u));
  const std::vector<backend> all{at(1, a.port()), at(2, b.port()),
                                 at(3, c.port())};
  f.publish(all);
  std::atomic<bool> stop{false};
  std::atomic<unsigned> published{0};
  std::thread publisher([&] {
    std::mt19937 numbers(1);
    while (!stop) {
      auto some = all;
      for (auto& x : some)
        x.draining = numbers() % 2 == 0;
      if (numbers() % 4 == 0)
        some.pop_back();
      f.balancer.publish("app", some);
      ++published;
      std::this_thread::sleep_for(500us);
    }
    f.balancer.publish("app", all);
  });
  for (int i = 0; i < 300 || published < 1000; ++i) {
    const auto fd = connected(f.port);
    REQUIRE(exchange(fd, "under way") == "under way");
  }
  stop = true;
  publisher.join();
  CHECK(f.active_is(0));
  for (auto& x : f.totals().backends)
    CHECK(x.active == 0);
}

TEST_CASE("2,000 clients that say nothing have their backends all the same") {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 16'384);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  REQUIRE(limit.rlim_cur > 6'200);
  auto a = listening();
  auto b = listening();
  fixture f;
  f.publish({at(1, port_of(a)), at(2, port_of(b))});
  std::vector<unique_fd> clients;
  for (int i = 0; i < 2000; ++i)
    clients.push_back(connected(f.port));
  CHECK(f.active_is(2000));
  CHECK(eventually([&] { return f.of(1).active == 1000; }));
  CHECK(eventually([&] { return f.of(2).active == 1000; }));
  // Any of them can still speak.
  send_all(clients[0], "x");
  CHECK(read_some(accepted(a), 1) == "x");
  clients.clear();
}

TEST_CASE("source-ip-hash over real connections: sticky, and moves few") {
  std::vector<std::unique_ptr<server>> servers;
  std::vector<backend> four;
  std::vector<backend> six;
  for (std::uint32_t slot = 1; slot <= 6; ++slot) {
    servers.push_back(
        std::make_unique<server>(tags(static_cast<char>('0' + slot))));
    six.push_back(at(slot, servers.back()->port()));
    if (slot <= 4)
      four.push_back(six.back());
  }
  listener_options options;
  options.strategy = balance_strategy::source_ip_hash;
  fixture f(options);
  // 127.0.0.1 to 127.0.3.232
  const auto all_tags = [&f] {
    std::string result;
    for (std::uint32_t i = 0; i < 1000; ++i)
      result += f.tag(localhost + i);
    return result;
  };
  const auto moved = [](const std::string& x, const std::string& y) {
    int result = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
      result += x[i] != y[i];
    return result;
  };
  f.publish(four);
  const auto at_4 = all_tags();
  REQUIRE(at_4.size() == 1000);
  for (char tag : {'1', '2', '3', '4'})
    CHECK(std::count(at_4.begin(), at_4.end(), tag) <= 275);
  f.publish(six);
  const auto at_6 = all_tags();
  REQUIRE(at_6.size() == 1000);
  CHECK(moved(at_4, at_6) <= 360);
  CHECK(moved(at_4, at_6) >= 300);
  // A second proxy knows nothing of the first and agrees with it.
  fixture g(options);
  g.publish(six);
  for (std::uint32_t i = 0; i < 1000; i += 50)
    CHECK(g.tag(localhost + i) == std::string(1, at_6[i]));
}

// -- bounds -------------------------------------------------------------------

TEST_CASE("max_connections: further clients wait until one ends") {
  server a(tags('A'));
  listener_options options;
  options.max_connections = 2;
  fixture f(options);
  f.publish({at(1, a.port())});
  auto one = connected(f.port);
  auto two = connected(f.port);
  CHECK(read_some(one, 1) == "A");
  CHECK(read_some(two, 1) == "A");
  const auto three = connected(f.port);
  const auto four = connected(f.port);
  CHECK_FALSE(readable_within(three, 50ms));
  CHECK(eventually([&] { return f.totals().active == 2; }));
  one.reset();
  CHECK(read_some(three, 1) == "A");
  CHECK_FALSE(readable_within(four, 50ms));
  options.max_connections = 3;
  REQUIRE(f.balancer.listen("app", options));
  CHECK(read_some(four, 1) == "A");
}

TEST_CASE("idle_timeout closes a connection without traffic, no other") {
  server a(echo);
  listener_options options;
  options.idle_timeout = 400ms;
  fixture f(options);
  f.publish({at(1, a.port())});
  const auto idle = connected(f.port);
  const auto busy = connected(f.port);
  const auto start = std::chrono::steady_clock::now();
  std::thread talker([&] {
    // Every 20 ms for longer than the timeout and its tolerance.
    for (int i = 0; i < 50; ++i) {
      send_all(busy, "x");
      read_some(busy, 1);
      std::this_thread::sleep_for(20ms);
    }
  });
  CHECK(read_all(idle).empty());
  CHECK(std::chrono::steady_clock::now() - start >= 400ms);
  talker.join();
  CHECK(eventually([&] { return f.totals().bytes_in == 50; }));
  CHECK(read_all(busy).empty());
  CHECK(f.active_is(0));
}

TEST_CASE("idle_timeout also ends what one side has ended or never began") {
  auto silent = listening();
  listener_options options;
  options.idle_timeout = 200ms;
  fixture f(options);
  f.publish({at(1, port_of(silent))});
  // One said nothing, one has said all, one waits for a backend that has ended.
  const auto mute = connected(f.port);
  const auto finished = connected(f.port);
  send_all(finished, "all I have to say");
  end_sending(finished);
  const auto left = connected(f.port);
  std::vector<unique_fd> peers;
  for (int i = 0; i < 3; ++i)
    peers.push_back(accepted(silent));
  end_sending(peers.back());
  CHECK(read_all(mute).empty());
  CHECK(read_all(finished).empty());
  CHECK(read_all(left).empty());
  CHECK(f.active_is(0));
  CHECK(eventually([&] { return f.of(1).active == 0; }));
}

TEST_CASE("a storm of resets leaves nothing behind") {
  server a(echo);
  fixture f({}, GENERATE(1u, 2u));
  f.publish({at(1, a.port())});
  const auto held = connected(f.port);
  std::vector<std::thread> clients;
  for (unsigned client = 0; client < 4; ++client)
    clients.emplace_back([&, client] {
      std::mt19937 numbers(client);
      const auto bytes = random_bytes(100'000, client);
      for (int i = 0; i < 200; ++i) {
        // Before, in the middle of, and after an exchange.
        auto fd = connected(f.port);
        const auto size = numbers() % 3 == 0 ? 0 : numbers() % bytes.size();
        send_all(fd, std::string_view(bytes).substr(0, size));
        if (numbers() % 2 == 0 && size > 0)
          (void)read_some(fd, 1 + numbers() % size);
        reset(fd);
      }
    });
  for (auto& x : clients)
    x.join();
  CHECK(f.active_is(1));
  CHECK(eventually([&] { return f.of(1).active == 1; }));
  // Who reset while queued stays there until a loop has accepted it.
  CHECK(eventually([&] { return f.totals().queued == 0; }));
  CHECK(f.active_is(1));
  send_all(held, "x");
  CHECK(read_some(held, 1) == "x");
  CHECK(exchange(connected(f.port), "calm") == "calm");
}

namespace {

/// A backend in a process of its own, so that it has descriptors when this
/// process has none left. Made before any thread exists.
class forked_backend {
public:
  forked_backend() : listener_(listening()) {
    pid_ = ::fork();
    if (pid_ == 0)
      serve(listener_.get());
  }

  ~forked_backend() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  [[nodiscard]] std::uint16_t port() const {
    return port_of(listener_);
  }

private:
  [[noreturn]] static void serve(int listener) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // Never closes what it accepts: the client's end ends a connection.
    for (;;) {
      const int fd = ::accept(listener, nullptr, nullptr);
      (void)!::send(fd, "A", 1, MSG_NOSIGNAL);
    }
  }

  unique_fd listener_;
  pid_t pid_ = -1;
};

/// Leaves this process that many descriptors as long as it lives.
class scarce_descriptors {
public:
  explicit scarce_descriptors(int left) {
    int highest = 0;
    for (auto& x : std::filesystem::directory_iterator("/proc/self/fd"))
      highest = std::max(highest, std::stoi(x.path().filename().string()));
    // The limit is on the number, so holes below it have to be filled.
    do
      fillers_.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    while (fillers_.back().get() <= highest);
    ::getrlimit(RLIMIT_NOFILE, &before_);
    auto low = before_;
    low.rlim_cur = static_cast<rlim_t>(fillers_.back().get() + 1 + left);
    ::setrlimit(RLIMIT_NOFILE, &low);
  }
  scarce_descriptors(const scarce_descriptors&) = delete;
  scarce_descriptors& operator=(const scarce_descriptors&) = delete;
  ~scarce_descriptors() {
    ::setrlimit(RLIMIT_NOFILE, &before_);
  }

private:
  std::vector<unique_fd> fillers_;
  rlimit before_{};
};

}  // namespace

TEST_CASE("connections leave descriptors to the rest of the process") {
  const forked_backend backend;
  const scarce_descriptors scarce(200);
  fixture f;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto spare = std::min(bounds::spare_descriptors,
                              static_cast<int>(limit.rlim_cur / 16));
  std::vector<unique_fd> clients;
  for (int i = 0; i < 70; ++i)
    clients.push_back(connected(f.port));
  f.publish({at(1, backend.port())});
  REQUIRE(eventually([&] { return f.totals().total >= 50; }));
  std::this_thread::sleep_for(300ms);  // a few pauses
  CHECK(f.totals().queued > 0);
  {
    std::vector<unique_fd> others;
    do
      others.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    while (others.back());
    // The last connections took some of them before it was noticed.
    CHECK(static_cast<int>(others.size()) - 1 >= spare - 3);
  }
  // Whoever leaves makes room.
  for (auto& x : clients) {
    REQUIRE(read_some(x, 1) == "A");
    reset(x);
  }
  CHECK(f.active_is(0));
  CHECK(eventually([&] { return f.totals().total == 70; }));
  CHECK(f.totals().rejected == 0);
}

TEST_CASE("without descriptors clients wait, and nothing spins") {
  const forked_backend backend;
  fixture f;
  std::vector<unique_fd> clients;
  for (int i = 0; i < 20; ++i)
    clients.push_back(connected(f.port));
  // An odd number of them: once a client is accepted and its backend's socket
  // is what fails.
  const auto spare = GENERATE(8, 9);
  const scarce_descriptors scarce(spare);
  f.publish({at(1, backend.port())});
  REQUIRE(eventually([&] { return f.of(1).active == 4; }));
  const auto before = cpu_time();
  std::this_thread::sleep_for(500ms);
  CHECK(cpu_time() - before < 150ms);
  CHECK(f.totals().active <= 5);
  CHECK(f.totals().rejected == 0);
  for (auto& x : clients) {
    REQUIRE(read_some(x, 1) == "A");
    // A reset, as this backend never closes.
    reset(x);
  }
  CHECK(f.active_is(0));
  CHECK(eventually([&] { return f.totals().total == 20; }));
}

namespace {

/// Clients in a process of their own, with descriptors of its own: each
/// connects and hears one byte; they end with it.
class forked_clients {
public:
  forked_clients(std::uint16_t port, int count) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
      fail_errno("pipe2");
    told_ = unique_fd(ends[0]);
    const unique_fd tells(ends[1]);
    pid_ = ::fork();
    if (pid_ == 0)
      hold(port, count, tells.get());
  }

  ~forked_clients() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  /// How many were served, once all were.
  [[nodiscard]] int served() const {
    int result = 0;
    return ::read(told_.get(), &result, sizeof result) == sizeof result ? result
                                                                        : -1;
  }

private:
  [[noreturn]] static void hold(std::uint16_t port, int count, int tells) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const auto address = ipv4(localhost, port);
    int served = 0;
    for (int i = 0; i < count; ++i) {
      const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
      char byte = 0;
      if (fd < 0
          || ::connect(fd, reinterpret_cast<const sockaddr*>(&address),
                       sizeof address)
                 != 0)
        continue;
      set_patience(fd);
      served += ::recv(fd, &byte, 1, 0) == 1;
    }
    (void)!::write(tells, &served, sizeof served);
    for (;;)
      ::pause();
  }

  unique_fd told_;
  pid_t pid_ = -1;
};

/// Bytes this process has got from its allocator.
std::size_t heap() {
  const auto x = ::mallinfo2();
  return x.uordblks + x.hblkhd;
}

}  // namespace

TEST_CASE("10,000 idle connections cost at most 256 bytes each") {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto before = limit;
  limit.rlim_max = std::max<rlim_t>(limit.rlim_max, 21'000);
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    // Only root may have more than the hard limit.
    limit = before;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  const auto count =
      static_cast<int>(std::min<rlim_t>(10'000, (limit.rlim_cur - 200) / 2));
  if (count < 10'000)
    WARN("with " << count << ": more descriptors are not permitted");
  const forked_backend backend;
  {
    fixture f({}, 1);
    f.publish({at(1, backend.port())});
    const auto empty = heap();
    const forked_clients clients(f.port, count);
    REQUIRE(clients.served() == count);
    CHECK(eventually(
        [&] { return f.totals().active == static_cast<std::uint32_t>(count); }));
    const auto each = (heap() - empty) / static_cast<std::size_t>(count);
    // A sanitizer's allocator does not tell.
    if (empty > 0)
      CHECK(each > 0);
    CHECK(each <= 256);
    CHECK(f.tag() == "A");
  }
  ::setrlimit(RLIMIT_NOFILE, &before);
}

namespace {

std::set<std::string> threads() {
  std::set<std::string> result;
  for (auto& task : std::filesystem::directory_iterator("/proc/self/task"))
    result.insert(task.path().filename());
  return result;
}

/// Times these threads have slept and come back.
std::uint64_t wake_ups(const std::set<std::string>& of) {
  std::uint64_t result = 0;
  for (auto& thread : of) {
    std::ifstream status("/proc/self/task/" + thread + "/status");
    std::string word;
    while (status >> word)
      if (word == "voluntary_ctxt_switches:") {
        std::uint64_t count = 0;
        status >> count;
        result += count;
      }
  }
  return result;
}

}  // namespace

TEST_CASE("idle connections cause no wake-ups") {
  auto a = listening();
  // A sanitizer has a thread of its own: only the proxy's count.
  const auto others = threads();
  fixture f;
  auto own = threads();
  for (auto& x : others)
    own.erase(x);
  REQUIRE(own.size() == 1);
  f.publish({at(1, port_of(a))});
  std::vector<unique_fd> held;
  for (int i = 0; i < 20; ++i) {
    held.push_back(connected(f.port));
    send_all(held.back(), "x");
  }
  REQUIRE(eventually([&] { return f.totals().bytes_in == 20; }));
  // What is still under way settles first.
  std::uint64_t woken = 1;
  for (int attempt = 0; attempt < 20 && woken != 0; ++attempt) {
    const auto before = wake_ups(own);
    std::this_thread::sleep_for(300ms);
    woken = wake_ups(own) - before;
  }
  CHECK(woken == 0);
}

// -- listeners ----------------------------------------------------------------

TEST_CASE("a port in use is an error that says so") {
  auto taken = listening();
  proxy balancer({});
  listener_options options;
  options.port = port_of(taken);
  const auto result = balancer.listen("app", options);
  REQUIRE(result.error);
  CHECK(result.error->code == EADDRINUSE);
  CHECK(result.error->call == "bind");
  CHECK(to_string(*result.error)
        == "bind [::]:" + std::to_string(options.port)
               + ": Address already in use");
  CHECK(balancer.port("app") == 0);
  options.host = "127.0.0.1";
  CHECK(balancer.listen("app", options).error->object
        == "127.0.0.1:" + std::to_string(options.port));
  // Another listener of the same proxy is no exception.
  options.port = 0;
  options.port = balancer.listen("one", options).port;
  REQUIRE(options.port != 0);
  CHECK(balancer.listen("two", options).error->code == EADDRINUSE);
}

TEST_CASE("a host that is no numeric address is an error") {
  proxy balancer({});
  listener_options options;
  options.host = "example.org";
  const auto result = balancer.listen("app", options);
  REQUIRE(result.error);
  CHECK(to_string(*result.error)
        == "inet_pton example.org:0: Invalid argument");
  options.host = "192.0.2.1";  // reserved for documentation: not ours
  CHECK(balancer.listen("app", options).error->code == EADDRNOTAVAIL);
}

TEST_CASE("listening again at the same place keeps socket and connections") {
  server a(echo);
  server b(tags('B'));
  fixture f;
  f.publish({at(1, a.port())});
  const auto fd = connected(f.port);
  send_all(fd, "x");
  CHECK(read_some(fd, 1) == "x");
  f.publish({});
  const auto queued = connected(f.port);
  auto options = f.options;
  options.strategy = balance_strategy::source_ip_hash;
  SECTION("asking for any port") {}
  SECTION("asking for the port it has") {
    options.port = f.port;
  }
  const auto again = f.balancer.listen("app", options);
  REQUIRE(again);
  CHECK(again.port == f.port);
  f.publish({at(2, b.port())});
  CHECK(read_some(queued, 1) == "B");
  send_all(fd, "y");
  CHECK(read_some(fd, 1) == "y");
}

TEST_CASE("listening elsewhere opens the new port and closes the old") {
  server a(echo);
  fixture f;
  f.publish({at(1, a.port())});
  const auto fd = connected(f.port);
  auto options = f.options;
  options.host = "127.0.0.1";
  const auto moved = f.balancer.listen("app", options);
  REQUIRE(moved);
  REQUIRE(moved.port != f.port);
  CHECK(f.balancer.port("app") == moved.port);
  CHECK_THROWS(connected(f.port));
  CHECK(exchange(connected(moved.port), "new") == "new");
  CHECK(exchange(fd, "old") == "old");
  SECTION("on an error all stays as it was") {
    auto taken = listening();
    options.port = port_of(taken);
    CHECK_FALSE(f.balancer.listen("app", options));
    CHECK(f.balancer.port("app") == moved.port);
    CHECK(exchange(connected(moved.port), "same") == "same");
  }
}

TEST_CASE("IPv6 clients and backends are served, IPv4 on the same port") {
  const unique_fd six(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  any.sin6_addr = in6addr_loopback;
  if (!six
      || ::bind(six.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any)
             != 0) {
    WARN("no IPv6 on this machine");
    return;
  }
  REQUIRE(::listen(six.get(), 8) == 0);
  sockaddr_in6 address{};
  socklen_t length = sizeof address;
  ::getsockname(six.get(), reinterpret_cast<sockaddr*>(&address), &length);
  fixture f;
  f.publish({{1, 1, loopback_v6(ntohs(address.sin6_port)), false}});
  const unique_fd client(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  set_patience(client.get());
  address.sin6_port = htons(f.port);
  REQUIRE(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address),
                    sizeof address)
          == 0);
  send_all(client, "over six");
  CHECK(read_some(accepted(six), 8) == "over six");
  const auto four = connected(f.port);
  send_all(four, "over four");
  CHECK(read_some(accepted(six), 9) == "over four");
}

TEST_CASE("close frees the port and leaves connections; cut ends them") {
  server a(echo);
  fixture f;
  f.publish({at(1, a.port())});
  const auto fd = connected(f.port);
  send_all(fd, "x");
  CHECK(read_some(fd, 1) == "x");
  f.publish({});
  const auto queued = connected(f.port);
  f.balancer.close("app");
  CHECK(f.balancer.port("app") == 0);
  int error = 0;
  CHECK(read_all(queued, &error).empty());
  CHECK(error == ECONNRESET);
  CHECK_THROWS(connected(f.port));
  CHECK_NOTHROW(bound(f.port));
  send_all(fd, "y");
  CHECK(read_some(fd, 1) == "y");
  SECTION("cut forgets it") {
    f.balancer.cut("app");
    CHECK(read_all(fd).empty());
    CHECK(eventually([&] { return f.totals().total == 0; }));
  }
  SECTION("listening again goes on with it") {
    const auto again = f.balancer.listen("app", f.options);
    REQUIRE(again);
    f.publish({at(1, a.port())});
    CHECK(exchange(connected(again.port), "z") == "z");
    CHECK(eventually([&] { return f.totals().total == 2; }));
    f.balancer.cut("app");
    CHECK(read_all(fd).empty());
    CHECK(exchange(connected(again.port), "z") == "z");
  }
}

TEST_CASE("an adopted socket is served, and left as it was") {
  server a(echo);
  const auto shards = GENERATE(1u, 2u);
  auto shared = listening();
  const bool blocks = GENERATE(true, false);
  if (!blocks)
    ::fcntl(shared.get(), F_SETFL, O_NONBLOCK);
  const auto flags = ::fcntl(shared.get(), F_GETFL);
  const auto duplicate = [&] {
    return unique_fd(::fcntl(shared.get(), F_DUPFD_CLOEXEC, 0));
  };
  proxy balancer({}, shards);
  const auto early = connected(port_of(shared));
  const auto result = balancer.adopt("app", duplicate(), {});
  REQUIRE(result);
  CHECK(result.port == port_of(shared));
  CHECK(balancer.port("app") == result.port);
  balancer.publish("app", {at(1, a.port())});
  CHECK(exchange(early, "early") == "early");
  for (int i = 0; i < 20; ++i)
    CHECK(exchange(connected(result.port), "x") == "x");
  CHECK(balancer.totals("app").total == 21);
  const auto held = connected(result.port);
  send_all(held, "y");
  CHECK(read_some(held, 1) == "y");

  balancer.close("app");
  CHECK(balancer.port("app") == 0);
  CHECK(::fcntl(shared.get(), F_GETFL) == flags);
  const auto queued = connected(result.port);
  send_all(queued, "for you");
  // Nobody of the proxy looks at it any more: a socket that is closed but left
  // in the epoll set would be reported for ever.
  const auto before = cpu_time();
  std::this_thread::sleep_for(200ms);
  CHECK(cpu_time() - before < 100ms);
  CHECK(balancer.totals("app").total == 22);
  SECTION("another holder accepts who is queued") {
    CHECK(read_some(accepted(shared), 7) == "for you");
  }
  SECTION("adopted again: who is queued is served") {
    REQUIRE(balancer.adopt("app", duplicate(), {}));
    CHECK(read_some(queued, 7) == "for you");
  }
  SECTION("adopted again, without a backend: who is queued waits") {
    balancer.publish("app", {});
    REQUIRE(balancer.adopt("app", duplicate(), {}));
    balancer.close("app");
    CHECK(read_some(accepted(shared), 7) == "for you");
  }
  SECTION("a port of its own replaces it") {
    REQUIRE(balancer.adopt("app", duplicate(), {}));
    CHECK(read_some(queued, 7) == "for you");
    const auto own = balancer.listen("app", {});
    REQUIRE(own);
    CHECK(own.port != result.port);
    CHECK(exchange(connected(own.port), "own") == "own");
    const auto other = connected(result.port);
    send_all(other, "not yours");
    CHECK(read_some(accepted(shared), 9) == "not yours");
  }
  SECTION("and replaces it in turn") {
    const auto own = balancer.listen("app", {});
    REQUIRE(own);
    REQUIRE(balancer.adopt("app", duplicate(), {}));
    CHECK(read_some(queued, 7) == "for you");
    CHECK_THROWS(connected(own.port));
  }
  send_all(held, "z");
  CHECK(read_some(held, 1) == "z");
}

TEST_CASE("what does not listen cannot be adopted") {
  proxy balancer({});
  const auto result = balancer.adopt("app", bound(), {});
  REQUIRE(result.error);
  CHECK(to_string(*result.error)
        == "accept on the inherited socket: Invalid argument");
  CHECK(balancer.adopt("app", unique_fd{}, {}).error->code == EBADF);
  CHECK(balancer.port("app") == 0);
}

TEST_CASE("a move to another port resets nobody who waits at the former") {
  server a(tags('A'));
  listener_options options;
  options.max_connections = 1;
  fixture f(options, GENERATE(1u, 2u));
  f.publish({});
  std::vector<unique_fd> queued;
  for (int i = 0; i < 20; ++i)
    queued.push_back(connected(f.port));
  options.host = "127.0.0.1";
  const auto moved = f.balancer.listen("app", options);
  REQUIRE(moved);
  f.balancer.publish("app", {at(1, a.port())});
  // One at a time, as there is room for one.
  std::size_t served = 0;
  while (served < queued.size()) {
    std::vector<pollfd> waiting;
    for (auto& x : queued)
      waiting.push_back({x.get(), POLLIN, 0});
    REQUIRE(::poll(waiting.data(), waiting.size(), 30'000) > 0);
    for (std::size_t i = 0; i < queued.size(); ++i)
      if (waiting[i].revents != 0) {
        CHECK(read_some(queued[i], 1) == "A");
        queued[i].reset();
        ++served;
      }
  }
  CHECK(f.active_is(0));
  // Then it is closed.
  CHECK(eventually([&] {
    try {
      (void)connected(f.port);
    } catch (const std::runtime_error&) {
      return true;
    }
    return false;
  }));
  CHECK(read_some(connected(moved.port), 1) == "A");
}

TEST_CASE("unknown keys are harmless") {
  proxy balancer({});
  balancer.close("none");
  balancer.cut("none");
  CHECK(balancer.port("none") == 0);
  CHECK(balancer.totals("none").backends.empty());
}

TEST_CASE("a set may be published before listening") {
  server a(tags('A'));
  proxy balancer({});
  balancer.publish("app", {at(1, a.port())});
  const auto result = balancer.listen("app", {});
  REQUIRE(result);
  CHECK(read_some(connected(result.port), 1) == "A");
}

TEST_CASE("facts may be answered from where they are reported") {
  server a(tags('A'));
  proxy* self = nullptr;
  std::atomic<bool> answered{false};
  proxy balancer([&](const proxy_fact& x) {
    const auto& key = std::get<drained>(x).key;
    self->publish(key, {at(2, a.port())});
    self->close(key);
    answered = true;
  });
  self = &balancer;
  const auto result = balancer.listen("app", {});
  REQUIRE(result);
  const auto fd = connected(result.port);
  balancer.publish("app", {at(1, a.port(), true)});
  CHECK(eventually([&] { return answered.load(); }));
  CHECK(eventually([&] { return balancer.port("app") == 0; }));
}

TEST_CASE("counters tell what happened") {
  server a(echo);
  fixture f;
  f.publish({at(1, a.port()), at(2, a.port())});
  for (int i = 0; i < 4; ++i)
    exchange(connected(f.port), "12345");
  REQUIRE(f.active_is(0));
  const auto held = connected(f.port);
  REQUIRE(f.active_is(1));
  REQUIRE(eventually([&] { return f.of(1).total == 3; }));
  const auto t = f.totals();
  CHECK(t.total == 5);
  CHECK(t.bytes_in == 20);
  CHECK(t.bytes_out == 20);
  CHECK(t.rejected == 0);
  REQUIRE(t.backends.size() == 2);
  CHECK(t.backends[0].slot == 1);
  CHECK(t.backends[0].life == 101);
  CHECK(t.backends[0].total == 3);
  CHECK(t.backends[1].total == 2);
  CHECK(t.backends[0].active == 1);
}

TEST_CASE("the end of the proxy is the end of its connections") {
  server a(tags('A'));
  unique_fd fd;
  {
    fixture f;
    f.publish({at(1, a.port())});
    fd = connected(f.port);
    CHECK(read_some(fd, 1) == "A");
  }
  CHECK(read_all(fd).empty());
}
