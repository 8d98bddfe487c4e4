// Steering the new connections of one port among several listening sockets, in
// the kernel: classic BPF on a group of SO_REUSEPORT sockets.
//
// No privilege is needed and no byte passes through this process. The kernel
// asks the program once for each SYN and takes its answer for the place of a
// socket in the group, counted in the order of listen(). Closing a socket moves
// the last one into its place, so none may be closed while the group is used.
//
// Classic BPF keeps no state between packets and sees no other connection, so
// it can choose at random or by the client's address, and nothing else.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/picker.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <linux/filter.h>

namespace pup {

/// Instructions of one program, at most bounds::program_length.
using steering = std::vector<sock_filter>;

namespace bounds {
/// The kernel's own: BPF_MAXINSNS.
inline constexpr std::size_t program_length = 4096;
}  // namespace bounds

/// Each of `places` with the same probability, for each connection anew; a
/// single one always. Not empty, at most bounds::instances.
steering steer_at_random(std::span<const std::uint32_t> places);

/// By the client's address, all of IPv4 or all of IPv6 (an IPv4-mapped address
/// is its IPv4): the same client, the same place, in every run of pup. Buckets
/// are owned as in bucket_table, of which this uses one block: `slots` and
/// `places` are parallel, the slots ascending.
steering steer_by_source(std::span<const std::uint32_t> slots,
                         std::span<const std::uint32_t> places);

/// Which bucket of the block steer_by_source() takes for a client.
std::uint32_t steered_bucket(const ip_address& client) noexcept;

/// Replaces the program of the whole group that `socket` belongs to, at once.
std::optional<os_fault> attach(int socket, const steering& program);

/// From now on the kernel spreads by itself, over all sockets of the group.
void detach(int socket) noexcept;

}  // namespace pup
