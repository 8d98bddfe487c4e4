// Opening listening TCP sockets.
#pragma once

#include "pup/runtime/fd.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pup {

/// A system call failed; `object` is such as "[::]:3000".
using listen_error = os_fault;

struct listen_result {
  std::optional<listen_error> error;
  /// The port listened on.
  std::uint16_t port = 0;

  explicit operator bool() const noexcept {
    return !error;
  }
};

/// Who else may listen on the same address and port.
enum class port_sharing : std::uint8_t {
  none,
  first,  ///< the first of a SO_REUSEPORT group; nobody else may have the port
  next,   ///< a further one of the group
};

struct opened_socket {
  unique_fd socket{};
  std::optional<listen_error> error;
};

/// A listening socket, non-blocking and close-on-exec. `host`: a numeric
/// address; empty for all addresses of both families, or of IPv4 where the
/// machine has no IPv6. `port` 0: the kernel chooses.
opened_socket open_listening(const std::string& host, std::uint16_t port,
                             port_sharing sharing);

struct opened_group {
  /// As many as were asked for, or none.
  std::vector<unique_fd> sockets;
  std::optional<listen_error> error;
};

/// A group of `count` of them for one port. `own_port`: a port that the caller
/// listens on at another address, which this one may overlap. 0: none.
opened_group open_group(const std::string& host, std::uint16_t port,
                        std::size_t count, std::uint16_t own_port);

/// A listening socket that is to outlive the process that serves it. Names are
/// unique among those of one key. Handed to the next process together, in their
/// order, and never one without the others: the kernel knows the sockets of a
/// port by their places, and closing one moves another.
struct kept_socket {
  std::string name;  ///< of the data plane "shard N", of a group "slot N"
  unique_fd socket{};
};
using kept_sockets = std::vector<kept_socket>;

/// "127.0.0.1:80", "[::1]:80".
std::string spelled(const std::string& host, std::uint16_t port);

/// Close-on-exec. None: errno says why.
unique_fd duplicate(const unique_fd& socket);

/// Whether a socket listens where open_listening(host, port, …) would.
bool is_bound_to(const unique_fd& socket, const std::string& host,
                 std::uint16_t port);

/// The flag belongs to the socket, not to the descriptor: whoever shares it has
/// it too.
void set_blocking(const unique_fd& socket, bool blocking);

/// Nothing listens there any more, whoever else holds the socket, and another
/// may listen at the same address at once. For one that is about to be closed
/// for good.
void stop_listening(int socket);

/// Clients that wait in a listening socket's queue.
std::uint32_t queued_in(const unique_fd& socket);

/// What is wrong with a socket to accept from; none: it listens.
std::optional<listen_error> not_listening(const unique_fd& socket);

/// 0 when the socket has none.
std::uint16_t local_port(const unique_fd& socket);

}  // namespace pup
