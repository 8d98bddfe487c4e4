#include "pup/runtime/sock_diag.hpp"

#include "pup/runtime/fd.hpp"

#include <cerrno>
#include <cstring>

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

bool ask(int netlink, int family, std::uint16_t port) {
  request message{};
  message.header.nlmsg_len = sizeof message;
  message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  message.body.sdiag_family = static_cast<std::uint8_t>(family);
  message.body.sdiag_protocol = IPPROTO_TCP;
  message.body.idiag_states = open_states;
  message.body.id.idiag_sport = htons(port);
  return ::send(netlink, &message, sizeof message, 0)
         == static_cast<ssize_t>(sizeof message);
}

enum class part : std::uint8_t { more, done, failed };

part collect(const char* bytes, std::size_t size, std::set<ino_t>& into) {
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
        into.insert(found.idiag_inode);
    }
    const auto step = std::size_t{NLMSG_ALIGN(header.nlmsg_len)};
    if (step >= size)
      break;
    bytes += step;
    size -= step;
  }
  return part::more;
}

bool receive(int netlink, std::set<ino_t>& into) {
  // What the kernel puts into one message at most, for a reader this large.
  alignas(nlmsghdr) char buffer[32 * 1024];
  for (;;) {
    const auto n = ::recv(netlink, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    const auto what = collect(buffer, static_cast<std::size_t>(n), into);
    if (what != part::more)
      return what == part::done;
  }
}

}  // namespace

std::optional<std::set<ino_t>> open_connections(std::uint16_t port) {
  const unique_fd netlink{
      ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)};
  if (!netlink)
    return std::nullopt;
  std::set<ino_t> result;
  for (const int family : {AF_INET, AF_INET6})
    if (!ask(netlink.get(), family, port) || !receive(netlink.get(), result))
      return std::nullopt;
  return result;
}

}  // namespace pup
