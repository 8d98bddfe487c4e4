#include "pup/runtime/proxy_header.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include <arpa/inet.h>

namespace pup {
namespace {

constexpr std::string_view signature{"\r\n\r\n\0\r\nQUIT\n", 12};

/// Version 2: protocol version, and who speaks.
constexpr char local_command = 0x20;
constexpr char proxy_command = 0x21;
/// Version 2: family, and TCP.
constexpr char tcp_over_4 = 0x11;
constexpr char tcp_over_6 = 0x21;

/// The same address in 16 bytes.
ip_address mapped(const ip_address& x) {
  if (x.v6)
    return x;
  ip_address result;
  result.v6 = true;
  result.bytes[10] = result.bytes[11] = 0xff;
  std::copy_n(x.bytes.begin(), 4, result.bytes.begin() + 12);
  return result;
}

/// Both ends in one family, IPv4 if they can be.
connection_ends alike(const connection_ends& x) {
  auto result = x;
  result.client.address = unmapped(x.client.address);
  result.server.address = unmapped(x.server.address);
  if (result.client.address.v6 != result.server.address.v6) {
    result.client.address = mapped(result.client.address);
    result.server.address = mapped(result.server.address);
  }
  return result;
}

std::string_view write_text(header_buffer& into,
                            const std::optional<connection_ends>& ends) {
  if (!ends)
    return "PROXY UNKNOWN\r\n";
  const auto [client, server] = alike(*ends);
  const int family = client.address.v6 ? AF_INET6 : AF_INET;
  char from[INET6_ADDRSTRLEN];
  char to[INET6_ADDRSTRLEN];
  ::inet_ntop(family, client.address.bytes.data(), from, sizeof from);
  ::inet_ntop(family, server.address.bytes.data(), to, sizeof to);
  const int length = std::snprintf(
      into.data(), into.size(), "PROXY TCP%c %s %s %u %u\r\n",
      client.address.v6 ? '6' : '4', from, to, client.port, server.port);
  return {into.data(), static_cast<std::size_t>(length)};
}

std::string_view write_binary(header_buffer& into,
                              const std::optional<connection_ends>& ends) {
  auto* at = std::copy(signature.begin(), signature.end(), into.data());
  const auto put_16 = [&at](std::size_t x) {
    *at++ = static_cast<char>(x >> 8 & 0xff);
    *at++ = static_cast<char>(x & 0xff);
  };
  *at++ = ends ? proxy_command : local_command;
  if (!ends) {
    *at++ = 0;
    put_16(0);
    return {into.data(), static_cast<std::size_t>(at - into.data())};
  }
  const auto [client, server] = alike(*ends);
  const std::size_t size = client.address.v6 ? 16 : 4;
  *at++ = client.address.v6 ? tcp_over_6 : tcp_over_4;
  put_16(2 * size + 4);
  for (const auto* x : {&client, &server}) {
    std::memcpy(at, x->address.bytes.data(), size);
    at += size;
  }
  put_16(client.port);
  put_16(server.port);
  return {into.data(), static_cast<std::size_t>(at - into.data())};
}

}  // namespace

std::string_view write_header(header_buffer& into, proxy_header version,
                              const std::optional<connection_ends>& ends) {
  switch (version) {
    case proxy_header::none:
      return {};
    case proxy_header::v1:
      return write_text(into, ends);
    case proxy_header::v2:
      return write_binary(into, ends);
  }
  return {};
}

}  // namespace pup
