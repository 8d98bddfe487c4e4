#include "pup/runtime/listening.hpp"

#include <cerrno>
#include <cstring>
#include <system_error>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace pup {
namespace {

/// Clients that may wait in the kernel; it takes the lower of this and
/// net.core.somaxconn.
constexpr int backlog = 4096;

struct socket_address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

std::optional<socket_address> parse(const std::string& host,
                                    std::uint16_t port) {
  socket_address result;
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    std::memcpy(&result.storage, &v4, sizeof v4);
    result.length = sizeof v4;
    return result;
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
    std::memcpy(&result.storage, &v6, sizeof v6);
    result.length = sizeof v6;
    return result;
  }
  return std::nullopt;
}

/// `first` is bound as if it were alone and shared afterwards: bound as shared
/// from the start, two supervisors with the same port would each get half of
/// the clients and no error.
opened_socket open_one(const std::string& host, std::uint16_t port,
                       bool dual_stack, port_sharing sharing) {
  const auto failed = [&](const char* call, int code) {
    return opened_socket{unique_fd{},
                         listen_error{call, spelled(host, port), code}};
  };
  const auto address = parse(host, port);
  if (!address)
    return failed("inet_pton", EINVAL);
  unique_fd fd(::socket(address->storage.ss_family,
                        SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd)
    return failed("socket", errno);
  const auto set = [&fd](int level, int name, int value) {
    return ::setsockopt(fd.get(), level, name, &value, sizeof value) == 0;
  };
  const auto share = [&set] { return set(SOL_SOCKET, SO_REUSEPORT, 1); };
  // Connections of a former run in TIME_WAIT are no reason to refuse a port.
  if (!set(SOL_SOCKET, SO_REUSEADDR, 1)
      || (sharing == port_sharing::next && !share())
      || (address->storage.ss_family == AF_INET6
          && !set(IPPROTO_IPV6, IPV6_V6ONLY, dual_stack ? 0 : 1)))
    return failed("setsockopt", errno);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address->storage),
             address->length)
      != 0)
    return failed("bind", errno);
  if (sharing == port_sharing::first && !share())
    return failed("setsockopt", errno);
  if (::listen(fd.get(), backlog) != 0)
    return failed("listen", errno);
  return {std::move(fd), std::nullopt};
}

bool is_v6_only(const unique_fd& socket) {
  int result = 0;
  socklen_t length = sizeof result;
  return ::getsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &result, &length)
             == 0
         && result != 0;
}

bool no_ipv6(int code) noexcept {
  return code == EAFNOSUPPORT || code == EADDRNOTAVAIL
         || code == EPROTONOSUPPORT;
}

opened_group open_at(const std::string& host, std::uint16_t port,
                     bool dual_stack, std::size_t count,
                     std::uint16_t own_port) {
  opened_group result;
  // What is in use may be in use by the caller alone: then it is shared.
  for (const auto sharing : {port_sharing::first, port_sharing::next}) {
    auto first = open_one(host, port, dual_stack, sharing);
    result.error = std::move(first.error);
    if (!result.error) {
      port = local_port(first.socket);
      result.sockets.push_back(std::move(first.socket));
      break;
    }
    if (result.error->code != EADDRINUSE || port == 0 || port != own_port)
      return result;
  }
  while (!result.error && result.sockets.size() < count) {
    auto next = open_one(host, port, dual_stack, port_sharing::next);
    result.error = std::move(next.error);
    result.sockets.push_back(std::move(next.socket));
  }
  if (result.error)
    result.sockets.clear();
  return result;
}

}  // namespace

std::string spelled(const std::string& host, std::uint16_t port) {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? '[' + host + ']' : host) + ':' + std::to_string(port);
}

opened_socket open_listening(const std::string& host, std::uint16_t port,
                             port_sharing sharing) {
  if (!host.empty())
    return open_one(host, port, false, sharing);
  auto result = open_one("::", port, true, sharing);
  if (result.error && no_ipv6(result.error->code))
    return open_one("0.0.0.0", port, false, sharing);
  return result;
}

opened_group open_group(const std::string& host, std::uint16_t port,
                        std::size_t count, std::uint16_t own_port) {
  if (!host.empty())
    return open_at(host, port, false, count, own_port);
  auto result = open_at("::", port, true, count, own_port);
  if (result.error && no_ipv6(result.error->code))
    return open_at("0.0.0.0", port, false, count, own_port);
  return result;
}

unique_fd duplicate(const unique_fd& socket) {
  return unique_fd(::fcntl(socket.get(), F_DUPFD_CLOEXEC, 0));
}

bool is_bound_to(const unique_fd& socket, const std::string& host,
                 std::uint16_t port) {
  if (port != 0 && local_port(socket) != port)
    return false;
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address),
                    &length)
      != 0)
    return false;
  const auto is = [&](const std::string& text) {
    const auto wanted = parse(text, local_port(socket));
    if (!wanted || wanted->storage.ss_family != address.ss_family)
      return false;
    if (address.ss_family == AF_INET6)
      return IN6_ARE_ADDR_EQUAL(
          &reinterpret_cast<const sockaddr_in6&>(wanted->storage).sin6_addr,
          &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
    return reinterpret_cast<const sockaddr_in&>(wanted->storage).sin_addr.s_addr
           == reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr;
  };
  if (host.empty())
    return is("0.0.0.0") || (is("::") && !is_v6_only(socket));
  return is(host) && (host != "::" || is_v6_only(socket));
}

void set_blocking(const unique_fd& socket, bool blocking) {
  const int flags = ::fcntl(socket.get(), F_GETFL);
  (void)::fcntl(socket.get(), F_SETFL,
                blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

void stop_listening(int socket) {
  (void)::shutdown(socket, SHUT_RDWR);
}

std::uint32_t queued_in(const unique_fd& socket) {
  tcp_info info{};
  socklen_t length = sizeof info;
  // Of a listening socket this field is the length of its queue (tcp.c).
  return ::getsockopt(socket.get(), IPPROTO_TCP, TCP_INFO, &info, &length) == 0
             ? info.tcpi_unacked
             : 0;
}

std::optional<listen_error> not_listening(const unique_fd& socket) {
  int listens = 0;
  socklen_t length = sizeof listens;
  const auto result =
      ::getsockopt(socket.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &length);
  if (result == 0 && listens != 0)
    return std::nullopt;
  return listen_error{result == 0 ? "accept" : "getsockopt",
                      "on the inherited socket", result == 0 ? EINVAL : errno};
}

std::uint16_t local_port(const unique_fd& socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address),
                    &length)
      != 0)
    return 0;
  // Both families have their port at the same place.
  sockaddr_in in{};
  std::memcpy(&in, &address, sizeof in);
  return ntohs(in.sin_port);
}

}  // namespace pup
