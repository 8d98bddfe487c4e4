#include "pup/runtime/engine_sockets.hpp"

#include <cerrno>
#include <cstring>
#include <iterator>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

namespace pup {

void set_option(int fd, int level, int name, int value) noexcept {
  (void)::setsockopt(fd, level, name, &value, sizeof value);
}

void set_congestion(int fd, const std::string& name) noexcept {
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(),
                     static_cast<socklen_t>(name.size()));
}

std::string congestion_of(int fd) {
  char name[32] = {};
  socklen_t length = sizeof name - 1;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length) != 0)
    return {};
  return name;
}

endpoint endpoint_of(const sockaddr_storage& from) noexcept {
  endpoint result;
  if (from.ss_family == AF_INET6) {
    sockaddr_in6 in{};
    std::memcpy(&in, &from, sizeof in);
    result.address.v6 = true;
    std::memcpy(result.address.bytes.data(), &in.sin6_addr, 16);
    result.address = unmapped(result.address);
    result.port = ntohs(in.sin6_port);
    return result;
  }
  sockaddr_in in{};
  std::memcpy(&in, &from, sizeof in);
  std::memcpy(result.address.bytes.data(), &in.sin_addr, 4);
  result.port = ntohs(in.sin_port);
  return result;
}

unique_fd stream_socket(const endpoint& target) noexcept {
  return unique_fd(::socket(target.address.v6 ? AF_INET6 : AF_INET,
                            SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

int connect_to(int fd, const endpoint& target) noexcept {
  if (target.address.v6) {
    sockaddr_in6 to{};
    to.sin6_family = AF_INET6;
    to.sin6_port = htons(target.port);
    std::memcpy(&to.sin6_addr, target.address.bytes.data(), 16);
    return ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to);
  }
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(target.port);
  std::memcpy(&to.sin_addr, target.address.bytes.data(), 4);
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to);
}

void ignore_requests(int listening, bool wanted) noexcept {
  if (!wanted) {
    set_option(listening, SOL_SOCKET, SO_DETACH_FILTER, 0);
    return;
  }
  // The filter sees the TCP header. SYN without ACK in its flags: keep none.
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
  };
  const sock_fprog program{static_cast<unsigned short>(std::size(code)), code};
  (void)::setsockopt(listening, SOL_SOCKET, SO_ATTACH_FILTER, &program,
                     sizeof program);
}

non_blocking::non_blocking(int fd) noexcept
    : fd_(fd), before_(::fcntl(fd, F_GETFL)) {
  if (before_ >= 0 && (before_ & O_NONBLOCK) == 0)
    (void)::fcntl(fd, F_SETFL, before_ | O_NONBLOCK);
}

non_blocking::~non_blocking() {
  if (before_ >= 0 && (before_ & O_NONBLOCK) == 0)
    (void)::fcntl(fd_, F_SETFL, before_);
}

bool would_block(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK;
}

bool short_of_resources(int error) noexcept {
  return error == EMFILE || error == ENFILE || error == ENOBUFS
         || error == ENOMEM;
}

}  // namespace pup
