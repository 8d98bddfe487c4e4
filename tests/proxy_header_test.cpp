// The PROXY protocol: what a header says, and that each backend gets it first.
#include "pup/runtime/proxy_header.hpp"

#include "pup/runtime/proxy.hpp"

#include "catch.hpp"
#include "loopback.hpp"

using namespace loopback;

namespace {

endpoint four(std::uint8_t last, std::uint16_t port) {
  endpoint result;
  result.address.bytes = {192, 0, 2, last};
  result.port = port;
  return result;
}

endpoint six(std::uint8_t last, std::uint16_t port) {
  endpoint result;
  result.address.v6 = true;
  result.address.bytes = {0x20, 0x01, 0x0d, 0xb8};
  result.address.bytes[15] = last;
  result.port = port;
  return result;
}

endpoint mapped(std::uint8_t last, std::uint16_t port) {
  endpoint result;
  result.address.v6 = true;
  result.address.bytes[10] = result.address.bytes[11] = 0xff;
  const std::uint8_t plain[] = {192, 0, 2, last};
  std::copy(plain, plain + 4, result.address.bytes.begin() + 12);
  result.port = port;
  return result;
}

std::string text(proxy_header version,
                 const std::optional<connection_ends>& ends) {
  header_buffer room;
  return std::string(write_header(room, version, ends));
}

/// From the specification, section 2.2.
const std::string signature("\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A",
                            12);

std::string bytes(std::initializer_list<int> x) {
  std::string result;
  for (auto b : x)
    result += static_cast<char>(b);
  return result;
}

std::string own_address(const unique_fd& fd) {
  sockaddr_in address{};
  socklen_t length = sizeof address;
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length);
  return std::to_string(ntohs(address.sin_port));
}

/// What a client connected with `fd` to `port` is announced by.
std::string expected(proxy_header version, const unique_fd& fd,
                     std::uint16_t port) {
  connection_ends ends;
  ends.client =
      loopback_v4(static_cast<std::uint16_t>(std::stoi(own_address(fd))));
  ends.server = loopback_v4(port);
  return text(version, ends);
}

}  // namespace

TEST_CASE("version 1 is a line of text") {
  const auto v1 = proxy_header::v1;
  CHECK(text(v1, connection_ends{four(1, 56324), four(2, 443)})
        == "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n");
  CHECK(text(v1, connection_ends{six(1, 65535), six(2, 1)})
        == "PROXY TCP6 2001:db8::1 2001:db8::2 65535 1\r\n");
  CHECK(text(v1, connection_ends{mapped(1, 56324), mapped(2, 443)})
        == "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n");
  CHECK(text(v1, connection_ends{mapped(1, 1), six(2, 2)})
        == "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
  CHECK(text(v1, std::nullopt) == "PROXY UNKNOWN\r\n");
  endpoint longest;
  longest.address.v6 = true;
  longest.address.bytes.fill(0xff);
  longest.port = 65535;
  const auto most = text(v1, connection_ends{longest, longest});
  CHECK(most.size() <= 107);
  CHECK(most.ends_with(" 65535 65535\r\n"));
}

TEST_CASE("version 2 is binary") {
  const auto v2 = proxy_header::v2;
  CHECK(text(v2, connection_ends{four(1, 0x1234), four(2, 443)})
        == signature
               + bytes({0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 0x12,
                        0x34, 0x01, 0xbb}));
  CHECK(text(v2, connection_ends{mapped(1, 0x1234), mapped(2, 443)})
        == text(v2, connection_ends{four(1, 0x1234), four(2, 443)}));
  CHECK(text(v2, connection_ends{six(1, 0x1234), six(2, 443)})
        == signature
               + bytes({0x21, 0x21, 0, 36,   0x20, 1,    0x0d, 0xb8, 0, 0,    0,
                        0,    0,    0, 0,    0,    0,    0,    0,    1, 0x20, 1,
                        0x0d, 0xb8, 0, 0,    0,    0,    0,    0,    0, 0,    0,
                        0,    0,    2, 0x12, 0x34, 0x01, 0xbb}));
  CHECK(text(v2, std::nullopt) == signature + bytes({0x20, 0, 0, 0}));
}

TEST_CASE("none is none") {
  CHECK(text(proxy_header::none, connection_ends{}).empty());
}

TEST_CASE("a backend gets the header first") {
  const auto version = GENERATE(proxy_header::v1, proxy_header::v2);
  auto backend = listening();
  listener_options options;
  options.header = version;
  fixture f(options, GENERATE(1u, 2u));
  SECTION("with the client's first bytes, in one segment") {
    const auto client = connected(f.port);
    send_all(client, "hello");
    f.publish({at(1, port_of(backend))});
    const auto peer = accepted(backend);
    const auto all = expected(version, client, f.port) + "hello";
    // One read returns what one segment brought.
    std::string got(1000, '\0');
    got.resize(static_cast<std::size_t>(
        ::recv(peer.get(), got.data(), got.size(), 0)));
    CHECK(got == all);
    send_all(client, "more");
    CHECK(read_some(peer, 4) == "more");
    send_all(peer, "answer");
    CHECK(read_some(client, 6) == "answer");
  }
  SECTION("alone, when the backend is to speak first") {
    f.publish({at(1, port_of(backend))});
    const auto client = connected(f.port);
    const auto peer = accepted(backend);
    const auto header = expected(version, client, f.port);
    CHECK(read_some(peer, header.size()) == header);
    send_all(peer, "welcome");
    CHECK(read_some(client, 7) == "welcome");
    send_all(client, "hello");
    CHECK(read_some(peer, 5) == "hello");
  }
  SECTION("before the end of a client that says nothing") {
    f.publish({at(1, port_of(backend))});
    const auto client = connected(f.port);
    const auto header = expected(version, client, f.port);
    end_sending(client);
    const auto peer = accepted(backend);
    CHECK(read_all(peer) == header);
    send_all(peer, "still here");
    CHECK(read_some(client, 10) == "still here");
  }
  SECTION("with more than the shared buffer after it") {
    const auto much = random_bytes(300'000, 1);
    f.publish({at(1, port_of(backend))});
    const auto client = connected(f.port);
    std::thread sender([&] {
      send_all(client, much);
      end_sending(client);
    });
    const auto peer = accepted(backend);
    CHECK((read_all(peer) == expected(version, client, f.port) + much));
    sender.join();
  }
}

TEST_CASE("each backend that is tried gets a header of its own") {
  const auto version = GENERATE(proxy_header::v1, proxy_header::v2);
  const auto dead = bound();
  auto rude = listening();
  auto alive = listening();
  listener_options options;
  options.header = version;
  fixture f(options);
  const bool speaks = GENERATE(true, false);
  SECTION("after a refusal") {
    const auto client = connected(f.port);
    if (speaks)
      send_all(client, "hello");
    f.publish({at(1, port_of(dead)), at(3, port_of(alive))});
    const auto all =
        expected(version, client, f.port) + (speaks ? "hello" : "");
    CHECK(read_some(accepted(alive), all.size()) == all);
  }
  SECTION("after a reset, though that one had a header") {
    if (speaks)
      return;  // then its bytes are gone, and the client is reset
    f.publish({at(2, port_of(rude)), at(3, port_of(alive))});
    const auto client = connected(f.port);
    const auto header = expected(version, client, f.port);
    auto first = accepted(rude);
    CHECK(read_some(first, header.size()) == header);
    reset(first);
    CHECK(read_some(accepted(alive), header.size()) == header);
  }
  SECTION("after waiting for one") {
    f.publish({at(1, port_of(dead))});
    const auto client = connected(f.port);
    if (speaks)
      send_all(client, "hello");
    REQUIRE(f.active_is(1));
    REQUIRE(f.facts.wait_for(1));
    f.publish({at(3, port_of(alive))});
    const auto all =
        expected(version, client, f.port) + (speaks ? "hello" : "");
    CHECK(read_some(accepted(alive), all.size()) == all);
  }
}

TEST_CASE("a probe names nobody") {
  auto late = bound();
  server other(tags('A'));
  listener_options options;
  options.header = proxy_header::v1;
  fixture f(options);
  f.publish({at(1, port_of(late)), at(2, other.port())});
  CHECK(f.tag() == "A");
  REQUIRE(f.facts.wait_for(1));
  REQUIRE(::listen(late.get(), 16) == 0);
  CHECK(read_all(accepted(late)) == "PROXY UNKNOWN\r\n");
}

TEST_CASE("IPv6 clients are announced as such") {
  auto backend = listening();
  listener_options options;
  options.header = proxy_header::v1;
  fixture f(options);
  f.publish({at(1, port_of(backend))});
  const unique_fd client(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 to{};
  to.sin6_family = AF_INET6;
  to.sin6_addr = in6addr_loopback;
  to.sin6_port = htons(f.port);
  if (!client
      || ::connect(client.get(), reinterpret_cast<const sockaddr*>(&to),
                   sizeof to)
             != 0) {
    WARN("no IPv6 on this machine");
    return;
  }
  sockaddr_in6 from{};
  socklen_t length = sizeof from;
  ::getsockname(client.get(), reinterpret_cast<sockaddr*>(&from), &length);
  const auto line = "PROXY TCP6 ::1 ::1 "
                    + std::to_string(ntohs(from.sin6_port)) + ' '
                    + std::to_string(f.port) + "\r\n";
  CHECK(read_some(accepted(backend), line.size()) == line);
}
