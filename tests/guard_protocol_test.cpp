// The messages between supervisor and guardian, as bytes and over a socket.
#include "pup/runtime/guard_protocol.hpp"

#include "pup/runtime/guardian_link.hpp"

#include "catch.hpp"

#include <boost/asio/io_context.hpp>

#include <array>
#include <cerrno>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

using namespace pup;

struct pair {
  pair() {
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
                         0, ends.data())
            == 0);
    a.reset(ends[0]);
    b.reset(ends[1]);
  }
  unique_fd a;
  unique_fd b;
};

/// Through the bytes and back; only for messages without descriptors.
template <class T>
T again(const T& x) {
  auto bytes = guard::encode(x);
  REQUIRE(bytes.descriptors.empty());
  guard::packet packet;
  packet.bytes = bytes.bytes;
  const auto result = guard::decode(packet);
  REQUIRE(std::holds_alternative<T>(result));
  return std::get<T>(result);
}

bool same_file(int a, int b) {
  struct stat x {};
  struct stat y {};
  return ::fstat(a, &x) == 0 && ::fstat(b, &y) == 0 && x.st_ino == y.st_ino
         && x.st_dev == y.st_dev;
}

}  // namespace

TEST_CASE("a message comes out as it went in") {
  guard::welcome hello{
      guard::version,      17, 1u << 31, 3, "killed by SIGKILL",
      "exited with code 2"};
  hello.last_number <<= 20;
  const auto x = again(hello);
  CHECK(x.version == guard::version);
  CHECK(x.guardian == 17);
  CHECK(x.last_number == hello.last_number);
  CHECK(x.predecessors == 3);
  CHECK(x.last_end == "killed by SIGKILL");

  const auto left =
      again(guard::inherited{7, "web-1", 3, 4711, 9, "mark", false, 12});
  CHECK(left.age_ms == 9);
  CHECK(left.ending_ms == 12);
  CHECK(again(guard::inherited{}).ending_ms == -1);

  const guard::leader_end how{4711, -1, 9, true, "out of memory", -5, 1 << 20};
  const auto end =
      again(guard::ended{7, how, 2, "pid 12 (sleep)", "pid 13 (nginx)", false});
  CHECK(end.number == 7);
  CHECK(end.how.code == -1);
  CHECK(end.how.signal == 9);
  CHECK(end.how.core);
  CHECK(end.how.cpu_us == -5);
  CHECK(end.killed == 2);
  CHECK(end.killed_example == "pid 12 (sleep)");
  CHECK(end.strays == "pid 13 (nginx)");
  CHECK_FALSE(end.gone);
  const auto first = again(guard::leader_ended{8, how, 3, "pid 14 (sh)"});
  CHECK(first.how.pid == 4711);
  CHECK(first.left == 3);
  CHECK(first.left_example == "pid 14 (sh)");
  CHECK(again(guard::strays{{"pid 1 (a)", "pid 2 (b)"}}).all.size() == 2);
  CHECK(again(guard::stop{9, 15}).signo == 15);

  const auto note = again(guard::note{"state", std::string("a\0b", 3)});
  CHECK(note.bytes == std::string("a\0b", 3));
  again(guard::ready{});
}

TEST_CASE("a start takes all attributes along") {
  guard::start order;
  auto& x = order.request;
  x.argv = {"a"};
  x.cgroup_folder = "/sys/fs/cgroup/x";
  CHECK(again(order).request.attributes == process_attributes{});
  x.attributes.run_as = identity{33, 34, {33, 90}, "www"};
  x.attributes.limits = {{7, 1, 2}, {4, resource_limit::unlimited, 0}};
  x.attributes.nice = -5;
  x.attributes.oom_score_adjust = 500;
  x.attributes.io = io_priority{io_class::realtime, 3};
  x.attributes.umask = 027;
  x.attributes.no_new_privileges = true;
  x.attributes.cgroup = {1, 2, 3};
  CHECK(again(order).request.attributes == x.attributes);
  CHECK(again(order).request.cgroup_folder == x.cgroup_folder);
}

TEST_CASE("a start takes its descriptors along, each in its place") {
  pair sockets;
  std::array<int, 2> pipe{};
  REQUIRE(::pipe2(pipe.data(), O_CLOEXEC) == 0);
  const unique_fd read_end{pipe[0]};
  const unique_fd write_end{pipe[1]};
  const unique_fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};

  guard::start wanted;
  wanted.number = 5;
  wanted.key = "web-1";
  wanted.life = 99;
  wanted.request.argv = {"sh", "-c", "true"};
  wanted.request.environment = {"A=1", "B="};
  wanted.request.cwd = "/";
  wanted.request.stdout_fd = write_end.get();
  wanted.request.listen_fds = {null.get()};
  wanted.hold = {{"out/web-1/99", {read_end.get()}}};
  REQUIRE(guard::send(sockets.a.get(), guard::encode(wanted))
          == guard::send_result::sent);

  guard::packet packet;
  REQUIRE(guard::receive(sockets.b.get(), packet)
          == guard::receive_result::received);
  auto message = guard::decode(packet);
  REQUIRE(std::holds_alternative<guard::start>(message));
  auto& got = std::get<guard::start>(message);
  CHECK(got.key == "web-1");
  CHECK(got.life == 99);
  CHECK(got.request.argv == wanted.request.argv);
  CHECK(got.request.environment == wanted.request.environment);
  CHECK(got.request.cwd == "/");
  CHECK(got.request.stdin_fd == -1);
  CHECK(got.request.stderr_fd == -1);
  CHECK(got.request.ready_fd == -1);
  CHECK(same_file(got.request.stdout_fd, write_end.get()));
  REQUIRE(got.request.listen_fds.size() == 1);
  CHECK(same_file(got.request.listen_fds[0], null.get()));
  REQUIRE(got.hold.size() == 1);
  CHECK(got.hold[0].name == "out/web-1/99");
  const auto kept = packet.take(got.hold[0].what);
  CHECK(same_file(kept.get(), read_end.get()));
  CHECK((::fcntl(kept.get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK_FALSE(packet.take(got.hold[0].what));  // it has been taken
}

TEST_CASE("a long message is enclosed") {
  pair sockets;
  const unique_fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
  guard::start wanted;
  wanted.number = 1;
  wanted.request.argv = {"true"};
  wanted.request.environment = {"BIG=" + std::string(3'000'000, 'x')};
  wanted.request.stderr_fd = null.get();
  REQUIRE(guard::send(sockets.a.get(), guard::encode(wanted))
          == guard::send_result::sent);
  guard::packet packet;
  REQUIRE(guard::receive(sockets.b.get(), packet)
          == guard::receive_result::received);
  const auto message = guard::decode(packet);
  REQUIRE(std::holds_alternative<guard::start>(message));
  const auto& got = std::get<guard::start>(message);
  CHECK(got.request.environment == wanted.request.environment);
  CHECK(same_file(got.request.stderr_fd, null.get()));
  CHECK(packet.descriptors.size() == 1);
}

TEST_CASE("what is no message is refused") {
  const auto kind_of = [](std::string bytes) {
    guard::packet packet;
    packet.bytes = std::move(bytes);
    return guard::decode(packet).index();
  };
  CHECK(kind_of("") == 0);
  CHECK(kind_of(std::string(1, '\0')) == 0);
  CHECK(kind_of("\x7F") == 0);
  auto good = guard::encode(guard::drop{"name"}).bytes;
  CHECK(kind_of(good) != 0);
  for (std::size_t n = 0; n < good.size(); ++n)
    CHECK(kind_of(good.substr(0, n)) == 0);
  CHECK(kind_of(good + 'x') == 0);
  // A list that says it is longer than the packet.
  auto lie = guard::encode(guard::start{}).bytes;
  lie[1 + 8 + 4 + 8] = '\xFF';
  CHECK(kind_of(lie) == 0);
  // A descriptor that did not come along.
  const unique_fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
  CHECK(kind_of(guard::encode(guard::hold{{"a", {null.get()}}}).bytes) == 0);
}

TEST_CASE("the end of the other side, and what it does not take in") {
  pair sockets;
  guard::packet packet;
  CHECK(guard::receive(sockets.b.get(), packet)
        == guard::receive_result::would_block);
  const auto bytes = guard::encode(guard::note{"n", std::string(1000, 'x')});
  int sent = 0;
  while (guard::send(sockets.a.get(), bytes) == guard::send_result::sent)
    ++sent;
  CHECK(errno == EAGAIN);
  CHECK(sent > 10);
  sockets.a.reset();
  for (int i = 0; i < sent; ++i)
    CHECK(guard::receive(sockets.b.get(), packet)
          == guard::receive_result::received);
  CHECK(guard::receive(sockets.b.get(), packet)
        == guard::receive_result::closed);
  CHECK(guard::send(sockets.b.get(), bytes) == guard::send_result::broken);
}

TEST_CASE("descriptors that find no room are missed, not mistaken") {
  pair sockets;
  const unique_fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
  guard::start wanted;
  wanted.number = 8;
  wanted.request.argv = {"true"};
  wanted.request.stdout_fd = null.get();
  REQUIRE(guard::send(sockets.a.get(), guard::encode(wanted))
          == guard::send_result::sent);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  auto none = before;
  none.rlim_cur = 3;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  guard::packet packet;
  const auto result = guard::receive(sockets.b.get(), packet);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE(result == guard::receive_result::received);
  CHECK(packet.truncated);
  const auto message = guard::decode(packet);
  REQUIRE(std::holds_alternative<guard::start>(message));
  CHECK(std::get<guard::start>(message).number == 8);
}

TEST_CASE("a guardian of another version is refused with what to do") {
  pair sockets;
  guard::welcome hello;
  hello.version = guard::version - 1;
  guard::send(sockets.a.get(), guard::encode(hello));
  const auto opened = guardian_link::open(std::move(sockets.b));
  REQUIRE(std::holds_alternative<std::string>(opened));
  const auto& text = std::get<std::string>(opened);
  INFO(text);
  CHECK(text.find("another version of pup (" + std::to_string(hello.version))
        != std::string::npos);
  CHECK(text.find("run pup terminate and pup start") != std::string::npos);
}

TEST_CASE("a farewell comes after all that waited, though no loop runs") {
  pair sockets;
  guard::welcome hello;
  hello.guardian = ::getpid();
  guard::send(sockets.a.get(), guard::encode(hello));
  guard::send(sockets.a.get(), guard::encode(guard::complete{}));
  auto opened = guardian_link::open(std::move(sockets.b));
  REQUIRE(std::holds_alternative<std::shared_ptr<guardian_link>>(opened));
  const auto link = std::get<std::shared_ptr<guardian_link>>(opened);
  boost::asio::io_context loop;
  link->watch(loop, [] {});
  // Far beyond what the socket takes.
  constexpr int notes = 100;
  for (int i = 0; i < notes; ++i)
    link->note("n", std::string(20'000, 'x'));
  std::thread leaving{[&] { link->farewell(7); }};
  int heard = 0;
  std::optional<int> code;
  guard::packet packet;
  pollfd event{sockets.a.get(), POLLIN, 0};
  while (!code && ::poll(&event, 1, 5'000) > 0
         && guard::receive(sockets.a.get(), packet)
                == guard::receive_result::received) {
    const auto message = guard::decode(packet);
    if (const auto* last = std::get_if<guard::farewell>(&message))
      code = last->exit_code;
    else
      heard += std::holds_alternative<guard::note>(message) ? 1 : 0;
    packet = {};
  }
  sockets.a.reset();  // whoever still waits hears that nobody listens
  leaving.join();
  CHECK(heard == notes);
  CHECK(code == 7);
  link->ignore();
}
