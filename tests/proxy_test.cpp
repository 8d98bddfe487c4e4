// The data plane against real sockets on loopback: backends and clients are a
// few lines each, every wait is for an event with a generous deadline.
#include "pup/runtime/proxy.hpp"

#include "pup/runtime/engine.hpp"
#include "pup/runtime/fd.hpp"

#include "catch.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace pup;
using namespace std::chrono_literals;

namespace {

constexpr auto patience = 30s;

// -- sockets ------------------------------------------------------------------

[[noreturn]] void fail_errno(const char* what) {
  throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

sockaddr_in ipv4(std::uint32_t address, std::uint16_t port) {
  sockaddr_in result{};
  result.sin_family = AF_INET;
  result.sin_addr.s_addr = htonl(address);
  result.sin_port = htons(port);
  return result;
}

constexpr std::uint32_t localhost = 0x7f000001;

/// Gives up on a peer that hangs, so that a test fails instead.
void set_patience(int fd) {
  timeval limit{30, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

/// Bound to a free port of 127.0.0.1; not listening, so it refuses.
unique_fd bound(std::uint16_t port = 0) {
  unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int one = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const auto address = ipv4(localhost, port);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
             sizeof address)
      != 0)
    fail_errno("bind");
  return fd;
}

std::uint16_t port_of(const unique_fd& fd) {
  sockaddr_in address{};
  socklen_t length = sizeof address;
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

unique_fd listening(int backlog = 4096) {
  auto fd = bound();
  if (::listen(fd.get(), backlog) != 0)
    fail_errno("listen");
  return fd;
}

unique_fd accepted(const unique_fd& listener) {
  pollfd p{listener.get(), POLLIN, 0};
  if (::poll(&p, 1, 30'000) != 1)
    throw std::runtime_error("nobody connected");
  unique_fd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd)
    fail_errno("accept");
  set_patience(fd.get());
  return fd;
}

unique_fd connected(std::uint16_t port, std::uint32_t from = 0) {
  unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd)
    fail_errno("socket");
  set_patience(fd.get());
  if (from != 0) {
    const auto source = ipv4(from, 0);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&source),
               sizeof source)
        != 0)
      fail_errno("bind source");
  }
  const auto address = ipv4(localhost, port);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                sizeof address)
      != 0)
    fail_errno("connect");
  return fd;
}

bool send_all(const unique_fd& fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0)
      return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

/// What arrived until FIN, or until an error, which is left in `error`.
std::string read_all(const unique_fd& fd, int* error = nullptr) {
  std::string result;
  std::vector<char> buffer(256 * 1024);
  for (;;) {
    const auto n = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && error)
      *error = errno;
    if (n <= 0)
      return result;
    result.append(buffer.data(), static_cast<std::size_t>(n));
  }
}

std::string read_some(const unique_fd& fd, std::size_t bytes) {
  std::string result(bytes, '\0');
  const auto n = ::recv(fd.get(), result.data(), bytes, MSG_WAITALL);
  result.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return result;
}

void end_sending(const unique_fd& fd) {
  ::shutdown(fd.get(), SHUT_WR);
}

void reset(unique_fd& fd) {
  const linger at_once{1, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  fd.reset();
}

bool readable_within(const unique_fd& fd, std::chrono::milliseconds limit) {
  pollfd p{fd.get(), POLLIN, 0};
  return ::poll(&p, 1, static_cast<int>(limit.count())) > 0;
}

std::string random_bytes(std::size_t size, unsigned seed) {
  std::mt19937_64 numbers(seed);
  std::string result(size, '\0');
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const auto x = numbers();
    std::memcpy(result.data() + i, &x, 8);
  }
  return result;
}

// -- backends -----------------------------------------------------------------

/// Serves each connection on a thread of its own.
class server {
public:
  using serve_function = std::function<void(unique_fd)>;

  explicit server(serve_function serve)
      : serve_(std::move(serve)), listener_(listening()) {
    thread_ = std::thread([this] { run(); });
  }

  ~server() {
    stopping_ = true;
    ::shutdown(listener_.get(), SHUT_RDWR);  // accept returns
    thread_.join();
    for (auto& x : workers_)
      x.join();
  }

  [[nodiscard]] std::uint16_t port() const {
    return port_of(listener_);
  }

private:
  void run() {
    while (!stopping_) {
      unique_fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd)
        continue;
      set_patience(fd.get());
      workers_.emplace_back(
          [this, peer = std::move(fd)]() mutable { serve_(std::move(peer)); });
    }
  }

  serve_function serve_;
  unique_fd listener_;
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
  std::thread thread_;
};

/// Sends one character that says who it is, and hangs up when the client does.
server::serve_function tags(char tag) {
  return [tag](unique_fd fd) {
    send_all(fd, std::string(1, tag));
    read_all(fd);
  };
}

void echo(unique_fd fd) {
  std::vector<char> buffer(100'000);
  for (;;) {
    const auto n = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
    if (n <= 0 || !send_all(fd, {buffer.data(), static_cast<std::size_t>(n)}))
      return;
  }
}

/// Sends everything back once it has seen the end: proves half-close.
void echo_at_end(unique_fd fd) {
  send_all(fd, read_all(fd));
}

backend at(std::uint32_t slot, std::uint16_t port, bool draining = false) {
  return {slot, slot + 100u, loopback_v4(port), draining};
}

// -- proxy --------------------------------------------------------------------

/// Until true, with a deadline. For counters, which no event announces.
template <class Condition>
bool eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline)
      return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

class fact_log {
public:
  void add(const proxy_fact& x) {
    {
      const std::lock_guard lock(mutex_);
      facts_.push_back(x);
    }
    changed_.notify_all();
  }

  bool wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience,
                             [&] { return facts_.size() >= count; });
  }

  std::vector<proxy_fact> all() {
    const std::lock_guard lock(mutex_);
    return facts_;
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<proxy_fact> facts_;
};

struct fixture {
  fact_log facts;
  proxy balancer;
  std::uint16_t port = 0;
  listener_options options;

  explicit fixture(listener_options wanted = {}, unsigned shards = 1)
      : balancer([this](const proxy_fact& x) { facts.add(x); }, shards),
        options(std::move(wanted)) {
    const auto result = balancer.listen("app", options);
    if (!result)
      throw std::runtime_error(to_string(*result.error));
    port = result.port;
  }

  /// Publishes and returns when the set is in use: listen() waits for that.
  void publish(std::vector<backend> set) {
    balancer.publish("app", std::move(set));
    if (!balancer.listen("app", options))
      throw std::runtime_error("cannot listen");
  }

  listener_traffic totals() {
    return balancer.totals("app");
  }

  bool active_is(std::uint32_t wanted) {
    return eventually([&] { return totals().active == wanted; });
  }

  backend_traffic of(std::uint32_t slot) {
    for (auto& x : totals().backends)
      if (x.slot == slot)
        return x;
    return {};
  }

  /// The tag of the backend that serves a new connection.
  std::string tag(std::uint32_t from = 0) {
    return read_some(connected(port, from), 1);
  }
};

/// Sends and receives at once, as real peers do.
std::string exchange(const unique_fd& fd, const std::string& bytes) {
  std::thread sender([&] {
    send_all(fd, bytes);
    end_sending(fd);
  });
  auto result = read_all(fd);
  sender.join();
  return result;
}

}  // namespace

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
  CHECK(f.totals().total == 300);
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
  CHECK(f.totals().bytes_in == chunks * chunk);
  CHECK(f.totals().bytes_out == chunks * chunk);
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
    CHECK(f.totals().active == 1);
    send_all(client, "still here");
    end_sending(client);
    CHECK(read_all(peer) == "still here");
  }
  CHECK(f.active_is(0));
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
  CHECK(f.of(3).total == 80);
  CHECK(f.of(1).active == 0);
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
  fixture f(options);
  const auto early = connected(f.port);
  send_all(early, "early");
  f.publish({at(1, port_of(hung)), at(2, alive.port())});
  end_sending(early);
  CHECK(read_all(early) == "early");
  const auto silent = connected(f.port);
  REQUIRE(eventually([&] { return f.of(1).total == 2; }));
  REQUIRE(eventually([&] { return f.of(1).active == 0; }));
  send_all(silent, "late");
  end_sending(silent);
  CHECK(read_all(silent) == "late");
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
  CHECK(f.of(1).active + f.of(2).active == 0);
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
  CHECK(f.totals().active == bounds::parked);
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
  CHECK(f.totals().total == accepted_before);
  f.publish({at(1, alive.port())});
  CHECK(read_some(fd, 1) == "A");
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
  CHECK(f.of(1).active == 5);
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
        == std::vector<proxy_fact>{{"app", 1, 101}, {"app", 3, 103}});
  SECTION("back in service and drained again is reported again") {
    f.publish({at(3, a.port())});
    f.publish({at(3, a.port(), true)});
    REQUIRE(f.facts.wait_for(3));
    CHECK(f.facts.all().back() == proxy_fact{"app", 3, 103});
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
        == std::vector<proxy_fact>{{"app", 1, 101}, {"app", 9, 109}});
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
  CHECK(f.of(1).active == 1);
  // Its counters are its own when it comes back.
  f.publish({at(1, a.port())});
  CHECK(f.of(1).active == 1);
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
  fixture f(options);
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
  CHECK(f.of(1).active == 1000);
  CHECK(f.of(2).active == 1000);
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
  CHECK(f.totals().active == 2);
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
  CHECK(f.totals().bytes_in == 50);
  CHECK(read_all(busy).empty());
  CHECK(f.active_is(0));
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

std::chrono::nanoseconds cpu_time() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

}  // namespace

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
  CHECK(f.totals().total == 20);
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
    CHECK(f.totals().total == 0);
  }
  SECTION("listening again goes on with it") {
    const auto again = f.balancer.listen("app", f.options);
    REQUIRE(again);
    f.publish({at(1, a.port())});
    CHECK(exchange(connected(again.port), "z") == "z");
    CHECK(f.totals().total == 2);
    f.balancer.cut("app");
    CHECK(read_all(fd).empty());
    CHECK(exchange(connected(again.port), "z") == "z");
  }
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
    self->publish(x.key, {at(2, a.port())});
    self->close(x.key);
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
