// What must be as true with several loops as with one, and what several sockets
// for one port must not break.
#include "pup/runtime/engine_pipes.hpp"
#include "pup/runtime/proxy.hpp"

#include "catch.hpp"
#include "loopback.hpp"

#include <cstddef>
#include <future>
#include <iterator>
#include <set>

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

using namespace loopback;

namespace {

constexpr unsigned many = 4;

/// Connects from several threads at once, `each` of them; all stay open.
std::vector<unique_fd> crowd(std::uint16_t port, int each) {
  std::vector<std::vector<unique_fd>> held(4);
  std::vector<std::thread> threads;
  for (auto& mine : held)
    threads.emplace_back([&mine, port, each] {
      for (int i = 0; i < each; ++i)
        mine.push_back(connected(port));
    });
  std::vector<unique_fd> result;
  for (std::size_t i = 0; i < held.size(); ++i) {
    threads[i].join();
    std::move(held[i].begin(), held[i].end(), std::back_inserter(result));
  }
  return result;
}

/// Runs on a thread of its own for which a system call fails: those of `number`
/// whose argument `which` is `value`, and, if not 0, whose next one is at least
/// `least`.
template <class Function>
void without(unsigned number, unsigned which, std::uint32_t value,
             std::uint32_t least, std::uint32_t error, Function f) {
  const auto argument = [](unsigned i) {
    return static_cast<std::uint32_t>(offsetof(seccomp_data, args) + 8 * i);
  };
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, argument(which)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, argument(which + 1)),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, least, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  bool filtered = false;
  std::thread([&] {
    const sock_fprog program{static_cast<unsigned short>(std::size(code)),
                             code};
    filtered = ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
               && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
    f();
  }).join();
  REQUIRE(filtered);
}

bool refuses(std::uint16_t port) {
  try {
    (void)connected(port);
    return false;
  } catch (const std::runtime_error&) {
    return true;
  }
}

/// Listens, and lets others of this user do so as well.
unique_fd sharing(std::uint16_t port = 0) {
  unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int one = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  const auto address = ipv4(localhost, port);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
             sizeof address)
          != 0
      || ::listen(fd.get(), 16) != 0)
    fail_errno("bind");
  return fd;
}

}  // namespace

// -- choosing -----------------------------------------------------------------

TEST_CASE("round-robin is exactly even over all shards") {
  server a(tags('A'));
  server b(tags('B'));
  server c(tags('C'));
  fixture f({}, many);
  f.publish({at(1, a.port()), at(2, b.port()), at(3, c.port())});
  SECTION("one after the other: in order") {
    std::string seen;
    for (int i = 0; i < 30; ++i)
      seen += f.tag();
    for (std::size_t i = 0; i < seen.size(); ++i)
      CHECK(seen[i] == "ABC"[i % 3]);
    // A changed set is continued after the last one served, C.
    f.publish({at(2, b.port()), at(3, c.port()), at(4, a.port())});
    CHECK(f.tag() == "A");
    CHECK(f.tag() == "B");
  }
  SECTION("all at once: the same number each") {
    const auto held = crowd(f.port, 75);
    REQUIRE(f.active_is(300));
    for (std::uint32_t slot = 1; slot <= 3; ++slot)
      CHECK(eventually([&] { return f.of(slot).total == 100; }));
  }
}

TEST_CASE("least-connections is exact over all shards") {
  auto backends = std::vector<unique_fd>{};
  std::vector<backend> set;
  for (std::uint32_t slot = 1; slot <= 4; ++slot) {
    backends.push_back(listening());
    set.push_back(at(slot, port_of(backends.back())));
  }
  listener_options options;
  options.strategy = balance_strategy::least_connections;
  fixture f(options, many);
  f.publish(set);
  const auto held = crowd(f.port, 60);
  REQUIRE(f.active_is(240));
  for (std::uint32_t slot = 1; slot <= 4; ++slot)
    CHECK(eventually([&] { return f.of(slot).active == 60; }));
}

// -- max_connections ----------------------------------------------------------

TEST_CASE("max_connections is exact over all shards, the rest is queued") {
  std::atomic<int> open{0};
  std::atomic<int> most{0};
  server a([&](unique_fd fd) {
    const int now = ++open;
    for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);)
      ;
    send_all(fd, "A");
    read_all(fd);
    --open;
  });
  listener_options options;
  options.max_connections = 5;
  fixture f(options, many);
  f.publish({at(1, a.port())});
  auto clients = crowd(f.port, 15);
  REQUIRE(eventually([&] { return open == 5; }));
  REQUIRE(f.active_is(5));
  CHECK(eventually([&] { return f.totals().queued == 55; }));
  // Whoever ends makes room for one, on whatever loop that one waits.
  std::size_t served = 0;
  while (served < clients.size()) {
    std::vector<pollfd> waiting;
    for (auto& x : clients)
      waiting.push_back({x.get(), POLLIN, 0});
    REQUIRE(::poll(waiting.data(), waiting.size(), 30'000) > 0);
    for (std::size_t i = 0; i < clients.size(); ++i)
      if (waiting[i].revents != 0) {
        REQUIRE(read_some(clients[i], 1) == "A");
        clients[i].reset();
        ++served;
      }
  }
  CHECK(f.active_is(0));
  CHECK(f.totals().queued == 0);
  // A backend hears of an end a little later than the place is free.
  CHECK(most <= 6);
  CHECK(eventually([&] { return f.totals().total == 60; }));
  CHECK(f.totals().rejected == 0);
  SECTION("a lower bound holds for new ones, a higher one at once") {
    clients = crowd(f.port, 2);
    REQUIRE(f.active_is(5));
    options.max_connections = 2;
    REQUIRE(f.balancer.listen("app", options));
    clients.clear();
    // Who left while queued stays there until a loop has accepted it.
    REQUIRE(eventually([&] {
      const auto now = f.totals();
      return now.active == 0 && now.queued == 0;
    }));
    clients = crowd(f.port, 2);
    REQUIRE(f.active_is(2));
    CHECK(eventually([&] { return f.totals().queued == 6; }));
    options.max_connections = 0;
    REQUIRE(f.balancer.listen("app", options));
    CHECK(f.active_is(8));
  }
}

TEST_CASE("a place that gets free in the middle of bulk is offered at once") {
  // Much enough that a loop takes several turns, so that the end is met in one
  // that no event began.
  const auto much = random_bytes(4 << 20, 3);
  server a([&](unique_fd fd) { send_all(fd, much); });
  listener_options options;
  options.max_connections = 1;
  fixture f(options, GENERATE(1u, 2u));
  f.publish({at(1, a.port())});
  std::atomic<int> wrong{0};
  std::vector<std::thread> clients;
  for (int client = 0; client < 3; ++client)
    clients.emplace_back([&] {
      for (int i = 0; i < 30; ++i) {
        const auto fd = connected(f.port);
        end_sending(fd);
        wrong += read_all(fd) != much;
      }
    });
  for (auto& x : clients)
    x.join();
  CHECK(wrong == 0);
  CHECK(f.active_is(0));
}

// -- ports --------------------------------------------------------------------

TEST_CASE("a port in use is told, although shards share theirs") {
  const auto shards = GENERATE(1u, 2u);
  proxy first({}, shards);
  listener_options options;
  SECTION("by another proxy") {
    options.host = GENERATE("", "127.0.0.1");
    options.port = first.listen("app", options).port;
    REQUIRE(options.port != 0);
    proxy second({}, shards);
    const auto result = second.listen("app", options);
    REQUIRE(result.error);
    CHECK(result.error->code == EADDRINUSE);
    options.host = "127.0.0.1";
    CHECK(second.listen("app", options).error->code == EADDRINUSE);
    // Another key of the same proxy is no exception.
    CHECK(first.listen("other", options).error->code == EADDRINUSE);
  }
  SECTION("by a program that would share it") {
    const auto other = sharing();
    options.port = port_of(other);
    CHECK(first.listen("app", options).error->code == EADDRINUSE);
    options.host = "127.0.0.1";
    CHECK(first.listen("app", options).error->code == EADDRINUSE);
  }
  SECTION("to a program that does not share") {
    options.port = first.listen("app", options).port;
    CHECK_THROWS(bound(options.port));
  }
}

TEST_CASE("another host on the same port replaces it, and nobody is lost") {
  server a(tags('A'));
  listener_options options;
  fixture f(options, GENERATE(1u, 2u));
  f.publish({at(1, a.port())});
  std::atomic<bool> stop{false};
  std::atomic<int> lost{0};
  std::atomic<int> served{0};
  std::thread client([&] {
    while (!stop) {
      try {
        f.tag() == "A" ? ++served : ++lost;
      } catch (const std::runtime_error&) {
        ++lost;
      }
    }
  });
  options.port = f.port;
  for (int i = 0; i < 6; ++i) {
    options.host = i % 2 == 0 ? "127.0.0.1" : "";
    const auto result = f.balancer.listen("app", options);
    CHECK(result);
    CHECK(result.port == f.port);
    const int before = served;
    CHECK(eventually([&] { return served >= before + 50; }));
  }
  stop = true;
  client.join();
  CHECK(lost == 0);
}

TEST_CASE("whoever is connected when a listener closes is served") {
  server a(tags('A'));
  const auto shards = GENERATE(1u, 2u);
  for (int round = 0; round < 20; ++round) {
    fixture f({}, shards);
    f.publish({at(1, a.port())});
    std::atomic<int> connections{0};
    std::atomic<int> lost{0};
    std::vector<std::thread> clients;
    for (int i = 0; i < 2; ++i)
      clients.emplace_back([&] {
        try {
          for (;;) {
            const auto fd = connected(f.port);
            ++connections;
            lost += read_some(fd, 1) != "A";
          }
        } catch (const std::runtime_error&) {
          // closed
        }
      });
    REQUIRE(eventually([&] { return connections >= 10; }));
    f.balancer.close("app");
    for (auto& x : clients)
      x.join();
    CHECK(lost == 0);
    CHECK(refuses(f.port));
  }
}

TEST_CASE("without IPv6 all addresses are those of IPv4") {
  server a(tags('A'));
  proxy balancer({}, 2);
  balancer.publish("app", {at(1, a.port())});
  listen_result result;
  without(SYS_socket, 0, AF_INET6, 0, EAFNOSUPPORT,
          [&] { result = balancer.listen("app", {}); });
  REQUIRE(result);
  CHECK(read_some(connected(result.port), 1) == "A");
  const unique_fd six(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_loopback;
  address.sin6_port = htons(result.port);
  if (six)
    CHECK(::connect(six.get(), reinterpret_cast<const sockaddr*>(&address),
                    sizeof address)
          != 0);
}

TEST_CASE("there is a shard for each processor this process may use") {
  cpu_set_t all;
  REQUIRE(::sched_getaffinity(0, sizeof all, &all) == 0);
  CHECK(default_shards()
        == static_cast<unsigned>(std::min(CPU_COUNT(&all), 8)));
  std::thread([] {
    cpu_set_t one;
    ::sched_getaffinity(0, sizeof one, &one);
    int first = 0;
    while (!CPU_ISSET(first, &one))
      ++first;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    ::sched_setaffinity(0, sizeof one, &one);
    CHECK(default_shards() == 1);
  }).join();
}

// -- publishing ---------------------------------------------------------------

TEST_CASE("a set is in effect when its publication says so") {
  server a(tags('A'));
  server b(tags('B'));
  fixture f({}, many);
  const std::vector<backend> sets[] = {{at(1, a.port())}, {at(2, b.port())}};
  for (int i = 0; i < 100; ++i) {
    std::promise<void> applied;
    f.balancer.publish("app", sets[i % 2], [&] { applied.set_value(); });
    REQUIRE(applied.get_future().wait_for(patience)
            == std::future_status::ready);
    REQUIRE(f.tag() == (i % 2 == 0 ? "A" : "B"));
  }
}

TEST_CASE("publications are done in their order, on a loop's thread") {
  fixture f({}, many);
  std::mutex mutex;
  std::vector<int> done;
  std::set<std::thread::id> where;
  for (int i = 0; i < 200; ++i)
    f.balancer.publish("app", {}, [&, i] {
      const std::lock_guard lock(mutex);
      done.push_back(i);
      where.insert(std::this_thread::get_id());
      // It may call the proxy.
      if (i == 0)
        f.balancer.publish("app", {});
    });
  REQUIRE(eventually([&] {
    const std::lock_guard lock(mutex);
    return done.size() == 200;
  }));
  CHECK(std::is_sorted(done.begin(), done.end()));
  CHECK(where.count(std::this_thread::get_id()) == 0);
  CHECK(where.size() <= many);
}

TEST_CASE("each drain is told by its number") {
  server a(echo);
  fixture f({}, many);
  f.publish({at(1, a.port())});
  const auto held = connected(f.port);
  REQUIRE(f.active_is(1));
  auto drain = [&](std::uint64_t number) {
    auto x = at(1, a.port(), true);
    x.drain = number;
    f.publish({x});
  };
  drain(1);
  drain(1);
  drain(2);  // instead of the first: that one is not reported
  CHECK(f.facts.all().empty());
  end_sending(held);
  read_all(held);
  REQUIRE(f.facts.wait_for(1));
  drain(2);
  drain(3);
  f.publish({at(1, a.port())});
  drain(3);
  REQUIRE(f.facts.wait_for(3));
  CHECK(f.facts.all()
        == std::vector<proxy_fact>{drained{"app", 1, 101, 2},
                                   drained{"app", 1, 101, 3},
                                   drained{"app", 1, 101, 3}});
}

// -- pipes --------------------------------------------------------------------

TEST_CASE("pipes are as large as the kernel allows") {
  const auto size_of = [](std::uint32_t refused_from) {
    int result = 0;
    without(SYS_fcntl, 1, F_SETPIPE_SZ, refused_from, EPERM, [&] {
      pipe_pool pool;
      const auto pipe = pool.take();
      result = pipe.in ? ::fcntl(pipe.in.get(), F_GETPIPE_SZ) : -1;
    });
    return result;
  };
  CHECK(size_of(2 << 20) == 1 << 20);
  CHECK(size_of(1 << 20) == 256 << 10);
  CHECK(size_of(256 << 10) == 64 << 10);
  // What a new one has.
  CHECK(size_of(1) >= 4096);
}
