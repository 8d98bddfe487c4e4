// The kernel's connections on a port, asked for by netlink.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include <sys/types.h>

namespace pup {

/// Inodes of the TCP connections whose local port is `port`, as far as a
/// process has them open: none that listen, are in TIME_WAIT or wait to be
/// accepted. Empty when the kernel has no sock_diag(7) or forbids it. Takes as
/// long as the kernel's walk through its table, about a millisecond; unlike
/// /proc/net/tcp it does not grow with connections in TIME_WAIT.
std::optional<std::set<ino_t>> open_connections(std::uint16_t port);

/// Where a socket listens.
struct listening_place {
  std::string address;  ///< numeric: "127.0.0.1", "::"
  std::uint16_t port = 0;
};

/// All TCP sockets that listen, by inode. Empty as above.
std::optional<std::map<ino_t, listening_place>> listening_sockets();

}  // namespace pup
