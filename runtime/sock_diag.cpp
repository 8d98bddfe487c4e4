#include "pup/runtime/sock_diag.hpp"

#include "pup/runtime/fd.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace pup {

namespace {

// States in which a process may have a connection open.
constexpr std::uint32_t open_states =
    1u << TCP_ESTABLISHED | 1u << TCP_FIN_WAIT1 | 1u << TCP_FIN_WAIT2
    | 1u << TCP_CLOSE_WAIT | 1u << TCP_LAST_ACK | 1u << TCP_CLOSING;

struct request {
  nlmsghdr header;
  inet_diag_req_v2 body;
};

constexpr std::uint32_t listening_state = 1u << TCP_LISTEN;

// Port 0: any.
bool ask(int netlink, int family, std::uint32_t states, std::uint16_t port) {
  request message{};
  message.header.nlmsg_len = sizeof message;
  message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  message.body.sdiag_family = static_cast<std::uint8_t>(family);
  message.body.sdiag_protocol = IPPROTO_TCP;
  message.body.idiag_states = states;
  message.body.id.idiag_sport = htons(port);
  return ::send(netlink, &message, sizeof message, 0)
         == static_cast<ssize_t>(sizeof message);
}

enum class part : std::uint8_t { more, done, failed };

template <class Take>
part collect(const char* bytes, std::size_t size, Take take) {
  while (size >= sizeof(nlmsghdr)) {
    nlmsghdr header{};
    std::memcpy(&header, bytes, sizeof header);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > size)
      return part::failed;
    if (header.nlmsg_type == NLMSG_DONE)
      return part::done;
    if (header.nlmsg_type == NLMSG_ERROR)
      return part::failed;
    if (header.nlmsg_len >= NLMSG_LENGTH(sizeof(inet_diag_msg))) {
      inet_diag_msg found{};
      std::memcpy(&found, bytes + NLMSG_HDRLEN, sizeof found);
      if (found.idiag_inode != 0)  // 0: nobody has it open
        take(found);
    }
    const auto step = std::size_t{NLMSG_ALIGN(header.nlmsg_len)};
    if (step >= size)
      break;
    bytes += step;
    size -= step;
  }
  return part::more;
}

template <class Take>
bool receive(int netlink, Take take) {
  // What the kernel puts into one message at most, for a reader this large.
  alignas(nlmsghdr) char buffer[32 * 1024];
  for (;;) {
    const auto n = ::recv(netlink, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    const auto what = collect(buffer, static_cast<std::size_t>(n), take);
    if (what != part::more)
      return what == part::done;
  }
}

// False: the kernel does not tell.
template <class Take>
bool for_each(std::uint32_t states, std::uint16_t port, Take take) {
  const unique_fd netlink{
      ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)};
  if (!netlink)
    return false;
  for (const int family : {AF_INET, AF_INET6})
    if (!ask(netlink.get(), family, states, port)
        || !receive(netlink.get(), take))
      return false;
  return true;
}

}  // namespace

std::optional<std::set<ino_t>> open_connections(std::uint16_t port) {
  std::set<ino_t> result;
  const auto good = for_each(open_states, port, [&](const inet_diag_msg& x) {
    result.insert(x.idiag_inode);
  });
  return good ? std::optional{std::move(result)} : std::nullopt;
}

std::optional<std::map<ino_t, listening_place>> listening_sockets() {
  std::map<ino_t, listening_place> result;
  const auto good = for_each(listening_state, 0, [&](const inet_diag_msg& x) {
    std::array<char, INET6_ADDRSTRLEN> text{};
    ::inet_ntop(x.idiag_family, x.id.idiag_src, text.data(), text.size());
    result[x.idiag_inode] = {text.data(), ntohs(x.id.idiag_sport)};
  });
  return good ? std::optional{std::move(result)} : std::nullopt;
}

}  // namespace pup
