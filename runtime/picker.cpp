#include "pup/runtime/picker.hpp"

#include <algorithm>
#include <iterator>

namespace pup {
namespace {

constexpr std::uint64_t golden_ratio = 0x9e3779b97f4a7c15;

/// A bijection of 64 bits whose every output bit depends on every input bit
/// (xor-shift and multiply rounds; the multipliers are large odd numbers).
constexpr std::uint64_t mix(std::uint64_t x) noexcept {
  x ^= x >> 32;
  x *= 0xe9846af9b1a615d;
  x ^= x >> 32;
  x *= 0xe9846af9b1a615d;
  x ^= x >> 28;
  return x;
}

constexpr std::uint32_t block_mask = (1u << bucket_table::block_bits) - 1;

/// One seed for each block: of the first 60,000 numbers those whose lattice
/// constants are the most even for small sets. Largest and smallest share of
/// every set of 2 to 8 slots from 0 or 1, complete or without one of them, are
/// within 3.5 % of even up to 4 slots, 5.5 % up to 6 and 8.5 % up to 8.
constexpr std::array<std::uint32_t, bucket_table::blocks> seeds{
    13343, 27061, 24650, 40454, 50183, 29553, 45938, 55225, 35971, 39366, 40463,
    52949, 5101,  6889,  8139,  9941,  10159, 14514, 16397, 17618, 19752, 19931,
    20622, 21644, 21853, 22549, 26824, 31786, 32857, 33030, 34645, 36678};

/// The lattice constant of a slot within a block; odd, so that its multiples
/// do not repeat.
constexpr std::uint64_t lattice(std::uint32_t block,
                                std::uint32_t slot) noexcept {
  return mix((std::uint64_t{seeds[block]} << 32 | slot) + golden_ratio) | 1;
}

constexpr std::uint64_t weight_at(std::uint64_t constant,
                                  std::uint32_t position) noexcept {
  // The shift by half a step keeps position 0 from ranking all slots last.
  return constant * (std::uint64_t{position} * 2 + 1);
}

std::uint32_t best_of(const std::vector<std::uint32_t>& slots,
                      std::uint32_t bucket) {
  return *std::max_element(slots.begin(), slots.end(),
                           [bucket](std::uint32_t a, std::uint32_t b) {
                             return bucket_table::weight(bucket, a)
                                    < bucket_table::weight(bucket, b);
                           });
}

}  // namespace

ip_address unmapped(const ip_address& x) noexcept {
  static constexpr std::array<std::uint8_t, 12> prefix{0, 0, 0, 0, 0,    0,
                                                       0, 0, 0, 0, 0xff, 0xff};
  if (!x.v6 || !std::equal(prefix.begin(), prefix.end(), x.bytes.begin()))
    return x;
  ip_address result;
  std::copy(x.bytes.begin() + 12, x.bytes.end(), result.bytes.begin());
  return result;
}

bool is_loopback(const ip_address& x) noexcept {
  const auto plain = unmapped(x);
  return plain.v6 ? plain == loopback_v6(0).address : plain.bytes[0] == 127;
}

endpoint loopback_v4(std::uint16_t port) noexcept {
  endpoint result;
  result.address.bytes = {127, 0, 0, 1};
  result.port = port;
  return result;
}

endpoint loopback_v6(std::uint16_t port) noexcept {
  endpoint result;
  result.address.v6 = true;
  result.address.bytes[15] = 1;
  result.port = port;
  return result;
}

// -- bucket_table -------------------------------------------------------------

std::uint64_t bucket_table::weight(std::uint32_t bucket,
                                   std::uint32_t slot) noexcept {
  return weight_at(lattice(bucket >> block_bits, slot), bucket & block_mask);
}

std::uint32_t bucket_table::bucket_of(const ip_address& client) noexcept {
  const auto& bytes = client.bytes;
  const std::size_t length = client.v6 ? 16 : 4;
  const auto neighbour =
      static_cast<std::uint32_t>(bytes[length - 2] << 8 | bytes[length - 1])
      & block_mask;
  std::uint64_t rest = client.v6 ? 6 : 4;
  for (std::size_t i = 0; i + 2 < length; ++i)
    rest = mix(rest * 256 + bytes[i] + golden_ratio);
  rest = mix(rest + (bytes[length - 2] & 0xfcu));
  // The rest turns and flips the block: still each bucket once for 1,024
  // neighbours, but x.y.z.1 and x.y.w.1 do not meet in the same bucket.
  const auto block = static_cast<std::uint32_t>(rest >> 32) % blocks;
  const auto flip = static_cast<std::uint32_t>(rest) & block_mask;
  return block << block_bits | (neighbour ^ flip);
}

bucket_table::bucket_table(std::vector<std::uint32_t> slots)
    : slots_(std::move(slots)), owners_(buckets) {
  std::vector<std::uint64_t> best(1u << block_bits);
  for (std::uint32_t block = 0; block < blocks; ++block) {
    std::fill(best.begin(), best.end(), 0);
    auto* owners = owners_.data() + (block << block_bits);
    for (const auto slot : slots_) {
      const auto constant = lattice(block, slot);
      for (std::uint32_t i = 0; i <= block_mask; ++i) {
        const auto weight = weight_at(constant, i);
        owners[i] = weight > best[i] ? slot : owners[i];
        best[i] = std::max(weight, best[i]);
      }
    }
  }
}

bucket_table bucket_table::changed_to(std::vector<std::uint32_t> slots) const {
  std::vector<std::uint32_t> gone;
  std::vector<std::uint32_t> fresh;
  std::set_difference(slots_.begin(), slots_.end(), slots.begin(), slots.end(),
                      std::back_inserter(gone));
  std::set_difference(slots.begin(), slots.end(), slots_.begin(), slots_.end(),
                      std::back_inserter(fresh));
  if (gone.size() + fresh.size() >= slots.size())
    return bucket_table(std::move(slots));
  auto result = *this;
  result.slots_ = std::move(slots);
  for (std::uint32_t bucket = 0; bucket < buckets; ++bucket) {
    auto& owner = result.owners_[bucket];
    if (std::binary_search(gone.begin(), gone.end(), owner))
      owner = best_of(result.slots_, bucket);
    for (const auto slot : fresh)
      if (weight(bucket, slot) > weight(bucket, owner))
        owner = slot;
  }
  return result;
}

// -- backend_set --------------------------------------------------------------

namespace {

std::vector<backend> sorted(std::vector<backend> backends) {
  const auto before = [](const backend& a, const backend& b) {
    return a.id() < b.id();
  };
  const auto same = [](const backend& a, const backend& b) {
    return a.id() == b.id();
  };
  // Reversed and stable, so that unique() keeps the last of equal ones.
  std::reverse(backends.begin(), backends.end());
  std::stable_sort(backends.begin(), backends.end(), before);
  backends.erase(std::unique(backends.begin(), backends.end(), same),
                 backends.end());
  return backends;
}

}  // namespace

backend_set::backend_set(std::vector<backend> backends,
                         balance_strategy strategy, const backend_set* previous)
    : backends_(sorted(std::move(backends))), strategy_(strategy) {
  std::vector<std::uint32_t> slots;
  for (std::uint32_t i = 0; i < backends_.size(); ++i) {
    if (backends_[i].draining)
      continue;
    eligible_.push_back(i);
    if (slots.empty() || slots.back() != backends_[i].slot)
      slots.push_back(backends_[i].slot);
  }
  if (strategy_ != balance_strategy::source_ip_hash || slots.empty())
    return;
  const auto known = previous ? previous->buckets_ : nullptr;
  if (known && known->slots() == slots)
    buckets_ = known;
  else if (known)
    buckets_ =
        std::make_shared<bucket_table>(known->changed_to(std::move(slots)));
  else
    buckets_ = std::make_shared<bucket_table>(std::move(slots));
}

// -- picker -------------------------------------------------------------------

namespace {

/// The owner of the client's bucket, or, once that was tried, the next in the
/// bucket's ranking.
std::size_t by_address(const backend_set& set,
                       std::span<const std::uint32_t> from,
                       const ip_address& client, bool all) {
  const auto& backends = set.backends();
  const auto bucket = bucket_table::bucket_of(unmapped(client));
  if (all) {
    const auto owner = set.buckets()->owner(bucket);
    // The youngest life of a slot, should two be eligible.
    auto found =
        std::upper_bound(from.begin(), from.end(), owner,
                         [&backends](std::uint32_t slot, std::uint32_t index) {
                           return slot < backends[index].slot;
                         });
    return *std::prev(found);
  }
  return *std::max_element(
      from.begin(), from.end(), [&](std::uint32_t a, std::uint32_t b) {
        return bucket_table::weight(bucket, backends[a].slot)
               < bucket_table::weight(bucket, backends[b].slot);
      });
}

/// Position in `from` of the first one after `last`, in order and around.
std::size_t position_after(const backend_set& set,
                           std::span<const std::uint32_t> from,
                           std::uint64_t last) {
  const auto found = std::upper_bound(
      from.begin(), from.end(), last,
      [&set](std::uint64_t place, std::uint32_t index) {
        return place < picker::place_of(set.backends()[index].id());
      });
  return found == from.end() ? 0
                             : static_cast<std::size_t>(found - from.begin());
}

std::size_t next_in_order(const backend_set& set,
                          std::span<const std::uint32_t> from,
                          load_view& loads) {
  for (;;) {
    const auto last = loads.turn();
    const auto index = from[position_after(set, from, last)];
    if (!loads.take_turn(last, picker::place_of(set.backends()[index].id())))
      continue;
    loads.count(index);
    return index;
  }
}

/// The one with the lowest `cost(index, connections)`; equal ones take turns.
template <class Cost>
std::size_t cheapest(const backend_set& set,
                     std::span<const std::uint32_t> from, load_view& loads,
                     Cost cost) {
  for (;;) {
    const auto last = loads.turn();
    const auto start = position_after(set, from, last);
    std::size_t best = from[start];
    auto best_active = loads.active(best);
    auto best_cost = cost(best, best_active);
    for (std::size_t i = 1; i < from.size() && best_cost > 0; ++i) {
      const std::size_t index = from[(start + i) % from.size()];
      const auto active = loads.active(index);
      const auto price = cost(index, active);
      if (price < best_cost) {
        best = index;
        best_active = active;
        best_cost = price;
      }
    }
    if (!loads.count_if(best, best_active))
      continue;
    // Only for equal ones, so whoever was faster may keep the turn.
    (void)loads.take_turn(last, picker::place_of(set.backends()[best].id()));
    return best;
  }
}

/// Recent time times load. A new one is taken for as quick as the quickest.
std::size_t quickest(const backend_set& set,
                     std::span<const std::uint32_t> from, load_view& loads) {
  double best = 0;
  for (const auto i : from) {
    const auto time = loads.response_time(i);
    if (time > 0 && (best == 0 || time < best))
      best = time;
  }
  const double unknown = best > 0 ? best : 1;
  return cheapest(set, from, loads,
                  [&loads, unknown](std::size_t i, std::uint32_t active) {
                    const auto time = loads.response_time(i);
                    return (time > 0 ? time : unknown) * (active + 1.0);
                  });
}

}  // namespace

picker::picker(random_source random) : random_(std::move(random)) {}

std::optional<std::size_t> picker::pick(const backend_set& set,
                                        const ip_address& client,
                                        load_view& loads,
                                        std::span<const backend_id> tried) {
  const auto from = candidates(set, loads, tried);
  if (from.empty())
    return std::nullopt;
  switch (set.strategy()) {
    case balance_strategy::round_robin:
      return next_in_order(set, from, loads);
    case balance_strategy::source_ip_hash: {
      const auto index =
          by_address(set, from, client, from.size() == set.eligible().size());
      loads.count(index);
      return index;
    }
    case balance_strategy::least_connections:
      return cheapest(set, from, loads,
                      [](std::size_t, std::uint32_t active) { return active; });
    case balance_strategy::random:
      return better_of_two(from, loads);
    case balance_strategy::least_time:
      return quickest(set, from, loads);
  }
  return std::nullopt;
}

picker::indexes picker::candidates(const backend_set& set,
                                   const load_view& loads,
                                   std::span<const backend_id> tried) {
  const indexes all = set.eligible();
  const bool some_ejected = loads.any_ejected();
  if (tried.empty() && !some_ejected)
    return all;
  chosen_from_.clear();
  ejected_.clear();
  for (const auto i : all) {
    const auto& id = set.backends()[i].id();
    if (std::find(tried.begin(), tried.end(), id) == tried.end())
      (some_ejected && loads.ejected(i) ? ejected_ : chosen_from_).push_back(i);
  }
  // When all that is left has failed lately, trying it again is better than
  // failing a client for certain.
  return chosen_from_.empty() ? ejected_ : chosen_from_;
}

std::size_t picker::better_of_two(indexes from, load_view& loads) {
  const auto size = from.size();
  auto result = from[0];
  if (size > 1) {
    const auto number = random_();
    // Multiply-and-shift maps 32 random bits to a range without a division.
    const auto first = static_cast<std::size_t>((number >> 32) * size >> 32);
    const auto step =
        static_cast<std::size_t>((number & 0xffffffff) * (size - 1) >> 32);
    const auto second = (first + 1 + step) % size;
    result = loads.active(from[second]) < loads.active(from[first])
                 ? from[second]
                 : from[first];
  }
  loads.count(result);
  return result;
}

}  // namespace pup
