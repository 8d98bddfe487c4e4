// Which backend serves a new connection.
//
// A backend_set is an immutable snapshot, built once by whoever publishes it
// and read by every loop; a picker is one loop's small memory over such sets
// (where round-robin stands). Neither knows a socket, a clock or a lock.
//
// How source-ip-hash works. Every bucket has a ranking of all slot numbers
// there can ever be, and is owned by the highest ranked slot of the set. So
// the answer depends on nothing but the set: it is the same after a restart,
// a slot that leaves takes only its own buckets along, and they return with
// it. Hashing addresses and rankings at random would leave the noise of
// sampling (6 % at 4 slots and 1,000 clients), so two things are even by
// construction:
//   - 1,024 neighbouring addresses (those that differ in the last ten bits)
//     meet each of the 1,024 buckets of one block exactly once;
//   - within a block the weights that rank a slot are the multiples of a
//     per-slot constant modulo 1 (a lattice), which spread more evenly than
//     random numbers do. Each block has constants of its own, so that an
//     unlucky pair of them does not matter in a large set.
#pragma once

#include "pup/config/spec.hpp"

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace pup {

/// An IPv4 address in bytes[0..3] or an IPv6 address in all 16, both in
/// network order; the rest is zero.
struct ip_address {
  std::array<std::uint8_t, 16> bytes{};
  bool v6 = false;

  bool operator==(const ip_address&) const = default;
};

/// The address as a client is known by: an IPv4-mapped one is its IPv4.
ip_address unmapped(const ip_address& x) noexcept;

/// Whether it belongs to this machine alone: 127.0.0.0/8, ::1.
bool is_loopback(const ip_address& x) noexcept;

/// Where a backend listens.
struct endpoint {
  ip_address address;
  std::uint16_t port = 0;

  bool operator==(const endpoint&) const = default;
};

/// 127.0.0.1 and a port.
endpoint loopback_v4(std::uint16_t port) noexcept;
/// ::1 and a port.
endpoint loopback_v6(std::uint16_t port) noexcept;

/// Names one life of one instance.
struct backend_id {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;

  auto operator<=>(const backend_id&) const = default;
};

/// An instance as the balancer sees it.
struct backend {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  endpoint address;
  /// Gets no new connections; those it has go on.
  bool draining = false;

  [[nodiscard]] backend_id id() const noexcept {
    return {slot, life};
  }
  bool operator==(const backend&) const = default;
};

/// Owner of each bucket of source-ip-hash. 32 blocks of 1,024 buckets: 32 for
/// each of 1,024 slots. 128 KiB.
class bucket_table {
public:
  static constexpr std::uint32_t block_bits = 10;
  static constexpr std::uint32_t blocks = 32;
  static constexpr std::uint32_t buckets = blocks << block_bits;

  /// `slots` ascending and without duplicates, not empty. One multiplication
  /// for each bucket and slot: 0.2 ms at 4 slots, 20 to 40 ms at 1,024.
  explicit bucket_table(std::vector<std::uint32_t> slots);

  /// The same table as bucket_table(slots), made from this one by looking
  /// only at what one or more slots gained or lost: 0.4 ms for one of 1,024.
  [[nodiscard]] bucket_table changed_to(std::vector<std::uint32_t> slots) const;

  [[nodiscard]] const std::vector<std::uint32_t>& slots() const noexcept {
    return slots_;
  }

  [[nodiscard]] std::uint32_t owner(std::uint32_t bucket) const noexcept {
    return owners_[bucket];
  }

  static std::uint32_t bucket_of(const ip_address& client) noexcept;

  /// Rank of a slot in a bucket; the highest owns it.
  static std::uint64_t weight(std::uint32_t bucket,
                              std::uint32_t slot) noexcept;

  bool operator==(const bucket_table&) const = default;

private:
  std::vector<std::uint32_t> slots_;
  std::vector<std::uint32_t> owners_;
};

/// The backends of one listener at one time. Immutable: share it freely.
class backend_set {
public:
  backend_set() = default;

  /// Sorts by (slot, life); of equal ones the last stays. `previous` only
  /// saves time: what its bucket table has in common is taken over.
  backend_set(std::vector<backend> backends, balance_strategy strategy,
              const backend_set* previous = nullptr);

  [[nodiscard]] const std::vector<backend>& backends() const noexcept {
    return backends_;
  }

  /// Indexes into backends() of those that are not draining, ascending.
  [[nodiscard]] const std::vector<std::uint32_t>& eligible() const noexcept {
    return eligible_;
  }

  [[nodiscard]] balance_strategy strategy() const noexcept {
    return strategy_;
  }

  /// Present when the strategy is source_ip_hash and one is eligible.
  [[nodiscard]] const bucket_table* buckets() const noexcept {
    return buckets_.get();
  }

private:
  std::vector<backend> backends_;
  std::vector<std::uint32_t> eligible_;
  balance_strategy strategy_ = balance_strategy::round_robin;
  std::shared_ptr<const bucket_table> buckets_;
};

/// Chooses, over one set after the other. Used by one thread.
class picker {
public:
  /// Uniform 64-bit numbers.
  using random_source = std::function<std::uint64_t()>;
  /// Open connections of backends()[index].
  using active_of = std::function<std::uint32_t(std::size_t index)>;

  explicit picker(random_source random);

  /// Index into set.backends(), or none when every eligible one is in `tried`.
  std::optional<std::size_t> pick(const backend_set& set,
                                  const ip_address& client,
                                  const active_of& active,
                                  std::span<const backend_id> tried = {});

private:
  using indexes = std::span<const std::uint32_t>;

  std::size_t next_in_order(const backend_set& set, indexes from);
  std::size_t fewest(const backend_set& set, indexes from,
                     const active_of& active);
  std::size_t better_of_two(indexes from, const active_of& active);

  random_source random_;
  // The last one served, so that a changed set is continued, not restarted.
  backend_id last_{};
  std::vector<std::uint32_t> untried_;
};

}  // namespace pup
