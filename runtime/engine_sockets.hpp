// System calls on TCP sockets, and what their errors mean to a loop.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/picker.hpp"

#include <string>

#include <sys/socket.h>

namespace pup {

/// Failures are ignored: options only save time here, and a kernel without one
/// of them works as well.
void set_option(int fd, int level, int name, int value) noexcept;
void set_congestion(int fd, const std::string& name) noexcept;
/// Empty when the kernel does not tell.
std::string congestion_of(int fd);

/// IPv4-mapped addresses as IPv4.
endpoint endpoint_of(const sockaddr_storage& from) noexcept;

/// A non-blocking socket of the target's family; none: errno says why.
unique_fd stream_socket(const endpoint& target) noexcept;

/// connect(2).
int connect_to(int fd, const endpoint& target) noexcept;

/// Makes a listening socket drop further requests to connect, as if the network
/// had lost them; those it knows already go on.
void ignore_requests(int listening, bool wanted) noexcept;

/// Makes calls on a descriptor return at once while this lives. The flag
/// belongs to all who share the descriptor, in other processes too: so for as
/// short as possible, and not at all when it is set already.
class non_blocking {
public:
  explicit non_blocking(int fd) noexcept;
  non_blocking(const non_blocking&) = delete;
  non_blocking& operator=(const non_blocking&) = delete;
  ~non_blocking();

private:
  int fd_;
  int before_;
};

bool would_block(int error) noexcept;
/// Descriptors or memory of this process or machine, not the peer's fault.
bool short_of_resources(int error) noexcept;

}  // namespace pup
