// Which backend serves a new connection.
//
// A backend_set is an immutable snapshot, built once by whoever publishes it
// and read by every loop; a load_view is what the loops know of its backends
// (connections, whose turn it is). Nothing here knows a socket, a clock or a
// lock.
//
// The answer is the same with one loop and with many: a choice that depends on
// what others do (the turn, the fewest connections) is made by compare and
// exchange, and made again when somebody was faster. So round-robin is exactly
// even, and equal backends are not all chosen at once by several loops.
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
  /// Which drain it is, below 2^62. With another number it is reported again.
  std::uint64_t drain = 0;

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

/// What a choice depends on besides the set: what the loops that serve one
/// listener know together. Used by all of them at once; indexes are those of
/// set.backends().
class load_view {
public:
  load_view() = default;
  load_view(const load_view&) = delete;
  load_view& operator=(const load_view&) = delete;
  virtual ~load_view() = default;

  /// Connections given to a backend and not ended yet.
  [[nodiscard]] virtual std::uint32_t active(std::size_t index) const = 0;
  /// Gives it one more.
  virtual void count(std::size_t index) = 0;
  /// Gives it one more if it still has `seen`; or says that it has not.
  [[nodiscard]] virtual bool count_if(std::size_t index,
                                      std::uint32_t seen) = 0;

  /// Whether it failed lately, and is passed over while another can serve.
  [[nodiscard]] virtual bool ejected(std::size_t index) const = 0;
  /// May say yes when none is; asked for first, as it costs less.
  [[nodiscard]] virtual bool any_ejected() const = 0;

  /// Recent time to the first byte, in any unit, fading as time passes without
  /// an answer. 0: not known yet.
  [[nodiscard]] virtual double response_time(std::size_t index) const = 0;

  /// Who was served last, as picker::place_of() puts it. 0: nobody yet.
  [[nodiscard]] virtual std::uint64_t turn() const = 0;
  /// Changes it if it is still `seen`; or says that it is not.
  [[nodiscard]] virtual bool take_turn(std::uint64_t seen,
                                       std::uint64_t next) = 0;
};

/// Chooses, over one set after the other. Used by one thread; where several
/// serve one listener, each has its own, over the same load_view.
class picker {
public:
  /// Uniform 64-bit numbers.
  using random_source = std::function<std::uint64_t()>;

  explicit picker(random_source random);

  /// Index into set.backends(), which is counted in `loads` by then; or none
  /// when every eligible one is in `tried`. Ejected ones come last.
  std::optional<std::size_t> pick(const backend_set& set,
                                  const ip_address& client, load_view& loads,
                                  std::span<const backend_id> tried = {});

  /// A backend's place in the order of turns. Of the life only the last 32
  /// bits count: two lives of a slot that serve at once are near each other.
  static constexpr std::uint64_t place_of(const backend_id& x) noexcept {
    return std::uint64_t{x.slot} << 32 | (x.life & 0xffffffff);
  }

private:
  using indexes = std::span<const std::uint32_t>;

  indexes candidates(const backend_set& set, const load_view& loads,
                     std::span<const backend_id> tried);
  std::size_t better_of_two(indexes from, load_view& loads);

  random_source random_;
  std::vector<std::uint32_t> chosen_from_;
  std::vector<std::uint32_t> ejected_;
};

}  // namespace pup
