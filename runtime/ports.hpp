// Whether a TCP port is free, and who has it when it is not.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <sys/types.h>

namespace pup {

/// A process with a socket on a port.
struct port_holder {
  pid_t pid = 0;
  std::string name;  ///< /proc/PID/comm

  bool operator==(const port_holder&) const = default;
};

/// Who holds local TCP port `port`, on any address: the process with the
/// lowest pid that has the listening socket open or, where nobody listens, any
/// socket bound to the port. Empty when there is none or when it belongs to a
/// process whose descriptors the caller may not see (another user's). Walks
/// /proc, some 10 us per process on the machine: for error messages only.
std::optional<port_holder> find_port_holder(std::uint16_t port);

/// Connections that the processes of each process group hold on local TCP port
/// `port`, accepted and not closed by them; parallel to `groups`. A process
/// that has left its group is not seen. Walks /proc as find_port_holder() does.
std::vector<std::uint32_t> count_connections(std::uint16_t port,
                                             std::span<const pid_t> groups);

/// Where a process and its descendants listen for TCP connections:
/// "127.0.0.1:8081", "[::]:8081", each once. Empty where the kernel does not
/// tell. About a millisecond.
std::optional<std::vector<std::string>> places_of(pid_t pid);

/// "port 8000 is in use by pid 4711 (nginx)", or without the holder when it
/// cannot be found.
std::string describe_port_in_use(std::uint16_t port);

/// Why an instance could not listen on `port`; empty when it could. Tries to
/// bind it on 0.0.0.0, 127.0.0.1, [::] and [::1] with SO_REUSEADDR, as servers
/// do, so that connections in TIME_WAIT do not count. A family or address that
/// the machine does not have is skipped, and so is a refusal of privilege
/// (EACCES): the program may have the capability that the caller lacks.
std::optional<std::string> port_obstacle(std::uint16_t port);

}  // namespace pup
