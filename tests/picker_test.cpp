// The strategies as properties. Every figure for source-ip-hash is a goal of
// the contract or stands beside the range it was taken from.
#include "pup/runtime/picker.hpp"

#include "catch.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>

using namespace pup;

namespace {

std::vector<backend> slots(std::initializer_list<std::uint32_t> numbers) {
  std::vector<backend> result;
  for (auto slot : numbers)
    result.push_back({slot, slot + 100u, loopback_v4(8000), false});
  return result;
}

std::vector<backend> first_slots(std::uint32_t count) {
  std::vector<backend> result;
  for (std::uint32_t slot = 1; slot <= count; ++slot)
    result.push_back({slot, 1, loopback_v4(8000), false});
  return result;
}

std::vector<std::uint32_t> numbers_to(std::uint32_t count) {
  std::vector<std::uint32_t> result(count);
  std::iota(result.begin(), result.end(), 1);
  return result;
}

ip_address v4(std::uint32_t x) {
  ip_address result;
  for (int i = 0; i < 4; ++i)
    result.bytes[static_cast<std::size_t>(i)] =
        static_cast<std::uint8_t>(x >> (24 - 8 * i));
  return result;
}

ip_address mapped(std::uint32_t x) {
  ip_address result;
  result.v6 = true;
  result.bytes[10] = result.bytes[11] = 0xff;
  const auto plain = v4(x);
  std::copy_n(plain.bytes.begin(), 4, result.bytes.begin() + 12);
  return result;
}

/// `first` + 1 and the 999 after it: 127.0.0.1 to 127.0.3.232 by default.
std::vector<ip_address> thousand(std::uint32_t first = 0x7f000000) {
  std::vector<ip_address> result;
  for (std::uint32_t i = 1; i <= 1000; ++i)
    result.push_back(v4(first + i));
  return result;
}

/// One listener's loads, as the loops keep them.
class known_loads final : public load_view {
public:
  std::uint32_t active(std::size_t i) const override {
    const auto found = connections.find(i);
    return found == connections.end() ? 0 : found->second;
  }
  void count(std::size_t i) override {
    ++connections[i];
    ++counted;
  }
  bool count_if(std::size_t i, std::uint32_t seen) override {
    if (active(i) != seen)
      return false;
    count(i);
    return true;
  }
  bool ejected(std::size_t i) const override {
    return out.count(i) != 0;
  }
  bool any_ejected() const override {
    return !out.empty();
  }
  double response_time(std::size_t i) const override {
    const auto found = times.find(i);
    return found == times.end() ? 0 : found->second;
  }
  std::uint64_t turn() const override {
    return turn_;
  }
  bool take_turn(std::uint64_t seen, std::uint64_t next) override {
    if (seen != turn_)
      return false;
    turn_ = next;
    return true;
  }

  // All by index.
  std::map<std::size_t, std::uint32_t> connections;
  std::map<std::size_t, double> times;
  std::set<std::size_t> out;
  std::size_t counted = 0;

private:
  std::uint64_t turn_ = 0;
};

struct fixture {
  std::mt19937_64 numbers{7};
  picker choose{[this] { return numbers(); }};
  known_loads loads;
  /// The connection ends at once, so that only a test changes the loads.
  bool keep = false;

  /// Slot picked, 0 for none.
  std::uint32_t pick(const backend_set& set, const ip_address& client = v4(1),
                     std::vector<backend_id> tried = {}) {
    const auto before = loads.counted;
    const auto index = choose.pick(set, client, loads, tried);
    CHECK(loads.counted == before + (index ? 1 : 0));
    if (!index)
      return 0;
    last_index = *index;
    if (!keep)
      --loads.connections[*index];
    return set.backends()[*index].slot;
  }

  std::size_t last_index = 0;
};

std::vector<std::uint32_t> owners(const backend_set& set,
                                  const std::vector<ip_address>& clients) {
  fixture f;
  std::vector<std::uint32_t> result;
  for (const auto& x : clients)
    result.push_back(f.pick(set, x));
  return result;
}

double max_to_mean(const std::vector<std::uint32_t>& picked,
                   std::size_t count) {
  std::map<std::uint32_t, std::size_t> shares;
  for (auto x : picked)
    ++shares[x];
  std::size_t most = 0;
  for (auto& [slot, share] : shares)
    most = std::max(most, share);
  return static_cast<double>(most * count) / static_cast<double>(picked.size());
}

double moved(const std::vector<std::uint32_t>& a,
             const std::vector<std::uint32_t>& b) {
  std::size_t result = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    result += a[i] != b[i];
  return static_cast<double>(result) / static_cast<double>(a.size());
}

backend_set hashed(std::vector<backend> backends) {
  return {std::move(backends), balance_strategy::source_ip_hash};
}

}  // namespace

TEST_CASE("no strategy picks from an empty or a draining set") {
  const auto strategy =
      GENERATE(balance_strategy::round_robin, balance_strategy::source_ip_hash,
               balance_strategy::least_connections, balance_strategy::random,
               balance_strategy::least_time);
  fixture f;
  CHECK(f.pick(backend_set({}, strategy)) == 0);
  auto two = slots({1, 2});
  two[0].draining = two[1].draining = true;
  CHECK(f.pick(backend_set(two, strategy)) == 0);
  two[1].draining = false;
  for (int i = 0; i < 10; ++i)
    CHECK(f.pick(backend_set(two, strategy)) == 2);
}

TEST_CASE("every strategy reaches each backend once when all fail") {
  const auto strategy =
      GENERATE(balance_strategy::round_robin, balance_strategy::source_ip_hash,
               balance_strategy::least_connections, balance_strategy::random,
               balance_strategy::least_time);
  fixture f;
  const backend_set set(first_slots(9), strategy);
  std::vector<backend_id> tried;
  std::set<std::uint32_t> seen;
  for (int i = 0; i < 9; ++i) {
    seen.insert(f.pick(set, v4(77), tried));
    tried.push_back(set.backends()[f.last_index].id());
  }
  CHECK(seen.size() == 9);
  CHECK(seen.count(0) == 0);
  CHECK(f.pick(set, v4(77), tried) == 0);
}

TEST_CASE("a set is sorted and the last of equal backends stays") {
  auto given = slots({3, 1, 2, 1});
  given[3].address.port = 9999;
  const backend_set set(given, balance_strategy::round_robin);
  REQUIRE(set.backends().size() == 3);
  CHECK(set.backends()[0].slot == 1);
  CHECK(set.backends()[0].address.port == 9999);
  CHECK(set.backends()[2].slot == 3);
}

TEST_CASE("round-robin is exactly even and in the order of slots") {
  fixture f;
  const backend_set set(slots({5, 2, 9}), balance_strategy::round_robin);
  std::vector<std::uint32_t> picked;
  for (int i = 0; i < 6; ++i)
    picked.push_back(f.pick(set));
  CHECK(picked == std::vector<std::uint32_t>{2, 5, 9, 2, 5, 9});
}

TEST_CASE(
    "round-robin goes on after the last one served when the set changes") {
  fixture f;
  const auto strategy = balance_strategy::round_robin;
  CHECK(f.pick(backend_set(first_slots(3), strategy)) == 1);
  CHECK(f.pick(backend_set(first_slots(3), strategy)) == 2);
  CHECK(f.pick(backend_set(first_slots(5), strategy)) == 3);
  CHECK(f.pick(backend_set(slots({1, 5}), strategy)) == 5);
  CHECK(f.pick(backend_set(slots({1, 5}), strategy)) == 1);
  // A set that changes with every pick starves nobody.
  std::map<std::uint32_t, int> shares;
  for (int i = 0; i < 400; ++i)
    ++shares[f.pick(backend_set(first_slots(i % 2 ? 4 : 5), strategy))];
  for (std::uint32_t slot = 1; slot <= 4; ++slot)
    CHECK(shares[slot] > 70);
}

TEST_CASE("round-robin serves two lives of a slot in turns") {
  fixture f;
  std::vector<backend> two{{1, 1, loopback_v4(1), false},
                           {1, 2, loopback_v4(1), false}};
  const backend_set set(two, balance_strategy::round_robin);
  f.pick(set);
  CHECK(f.last_index == 0);
  f.pick(set);
  CHECK(f.last_index == 1);
  f.pick(set);
  CHECK(f.last_index == 0);
}

TEST_CASE("least-connections takes the fewest, equal ones in turns") {
  fixture f;
  const backend_set set(first_slots(3), balance_strategy::least_connections);
  std::vector<std::uint32_t> picked;
  for (int i = 0; i < 6; ++i)
    picked.push_back(f.pick(set));
  CHECK(picked == std::vector<std::uint32_t>{1, 2, 3, 1, 2, 3});
  f.loads.connections = {{0, 4}, {1, 2}, {2, 3}};
  for (int i = 0; i < 3; ++i)
    CHECK(f.pick(set) == 2);
  f.loads.connections = {{0, 2}, {1, 2}, {2, 3}};
  CHECK(f.pick(set) == 1);
  CHECK(f.pick(set) == 2);
  CHECK(f.pick(set) == 1);
  CHECK(f.pick(set, v4(1), {{1, 1}}) == 2);
}

TEST_CASE("random takes the better of two") {
  fixture f;
  f.keep = true;
  const backend_set set(first_slots(8), balance_strategy::random);
  // Balls into bins: the largest load with two choices is mean + ln ln n
  // plus a small constant, against about 35 above it with one.
  for (int i = 0; i < 8000; ++i) {
    REQUIRE(f.pick(set) != 0);
  }
  for (std::size_t i = 0; i < 8; ++i) {
    CHECK(f.loads.connections[i] >= 990);
    CHECK(f.loads.connections[i] <= 1006);
  }
}

TEST_CASE("random with equal loads reaches all alike") {
  fixture f;
  const backend_set set(first_slots(4), balance_strategy::random);
  std::map<std::uint32_t, int> shares;
  for (int i = 0; i < 8000; ++i)
    ++shares[f.pick(set)];
  // 2,000 each; 39 is one standard deviation, 200 five of them.
  for (std::uint32_t slot = 1; slot <= 4; ++slot)
    CHECK(std::abs(shares[slot] - 2000) < 200);
}

TEST_CASE("any strategy: never a tried or draining one, an ejected one last") {
  const auto strategy =
      GENERATE(balance_strategy::round_robin, balance_strategy::source_ip_hash,
               balance_strategy::least_connections, balance_strategy::random,
               balance_strategy::least_time);
  std::mt19937 numbers(5);
  fixture f;
  f.keep = true;
  for (int round = 0; round < 2000; ++round) {
    auto given = first_slots(1 + numbers() % 8);
    for (auto& x : given)
      x.draining = numbers() % 3 == 0;
    const backend_set set(given, strategy);
    std::vector<backend_id> tried;
    bool healthy_left = false;
    bool any_left = false;
    f.loads.out.clear();
    f.loads.times.clear();
    for (std::size_t i = 0; i < given.size(); ++i) {
      const bool was_tried = numbers() % 3 == 0;
      const bool is_out = numbers() % 3 == 0;
      if (was_tried)
        tried.push_back(given[i].id());
      if (is_out)
        f.loads.out.insert(i);
      if (numbers() % 2 == 0)
        f.loads.times[i] = static_cast<double>(1 + numbers() % 1000);
      const bool possible = !was_tried && !given[i].draining;
      any_left |= possible;
      healthy_left |= possible && !is_out;
    }
    const auto slot =
        f.pick(set, v4(static_cast<std::uint32_t>(numbers())), tried);
    REQUIRE((slot != 0) == any_left);
    if (slot == 0)
      continue;
    const auto& chosen = set.backends()[f.last_index];
    REQUIRE_FALSE(chosen.draining);
    REQUIRE(std::find(tried.begin(), tried.end(), chosen.id()) == tried.end());
    REQUIRE((f.loads.out.count(f.last_index) == 0) == healthy_left);
  }
}

TEST_CASE("round-robin is exactly even for every set") {
  for (std::uint32_t count = 1; count <= 32; ++count) {
    fixture f;
    const backend_set set(first_slots(count), balance_strategy::round_robin);
    std::map<std::uint32_t, int> shares;
    for (std::uint32_t i = 0; i < count * 7; ++i)
      ++shares[f.pick(set)];
    REQUIRE(shares.size() == count);
    for (auto& [slot, share] : shares)
      REQUIRE(share == 7);
  }
}

TEST_CASE("least-connections keeps all within one connection") {
  fixture f;
  f.keep = true;
  const backend_set set(first_slots(7), balance_strategy::least_connections);
  std::mt19937 numbers(9);
  for (int i = 0; i < 3000; ++i) {
    std::uint32_t fewest = UINT32_MAX;
    for (std::size_t x = 0; x < 7; ++x)
      fewest = std::min(fewest, f.loads.active(x));
    REQUIRE(f.pick(set) != 0);
    REQUIRE(f.loads.active(f.last_index) == fewest + 1);
    // Some end, anywhere.
    auto& some = f.loads.connections[numbers() % 7];
    if (numbers() % 2 == 0 && some > 0)
      --some;
  }
}

TEST_CASE("source-ip-hash: an ejected backend moves its clients only") {
  const auto clients = thousand();
  const auto set = hashed(first_slots(6));
  const auto all = owners(set, clients);
  fixture f;
  f.loads.out = {2};
  for (std::size_t i = 0; i < clients.size(); ++i) {
    const auto slot = f.pick(set, clients[i]);
    REQUIRE(slot != 3);
    REQUIRE((slot == all[i]) == (all[i] != 3));
  }
}

TEST_CASE("least-time weighs time by load") {
  fixture f;
  f.keep = true;
  const backend_set set(first_slots(3), balance_strategy::least_time);
  SECTION("nothing known: as least-connections") {
    std::vector<std::uint32_t> picked;
    for (int i = 0; i < 6; ++i)
      picked.push_back(f.pick(set));
    CHECK(picked == std::vector<std::uint32_t>{1, 2, 3, 1, 2, 3});
  }
  SECTION("as many more connections as it is quicker") {
    f.loads.times = {{0, 100}, {1, 200}, {2, 400}};
    for (int i = 0; i < 700; ++i)
      f.pick(set);
    CHECK(f.loads.active(0) == 400);
    CHECK(f.loads.active(1) == 200);
    CHECK(f.loads.active(2) == 100);
  }
  SECTION("an idle slow one is left alone") {
    f.keep = false;
    f.loads.times = {{0, 100}, {1, 101}, {2, 400}};
    for (int i = 0; i < 100; ++i)
      CHECK(f.pick(set) == 1);
  }
  SECTION("a new one is taken for as quick as the quickest") {
    f.loads.times = {{0, 100}, {1, 400}};
    for (int i = 0; i < 90; ++i)
      f.pick(set);
    CHECK(f.loads.active(0) == 40);
    CHECK(f.loads.active(1) == 10);
    CHECK(f.loads.active(2) == 40);
  }
}

TEST_CASE("source-ip-hash meets the goals for 1,000 neighbours") {
  // The contract's range, and others like it.
  const auto range = GENERATE(0x7f000000u, 0x0a000000u, 0x0a010200u,
                              0xc0a80000u, 0xc0a85c00u, 0xac100400u);
  const auto clients = thousand(range);
  const auto at_4 = owners(hashed(first_slots(4)), clients);
  const auto at_6 = owners(hashed(first_slots(6)), clients);
  CHECK(max_to_mean(at_4, 4) <= 1.10);
  CHECK(max_to_mean(at_6, 6) <= 1.15);
  CHECK(moved(at_4, at_6) <= 0.36);
  const auto at_3 = owners(hashed(first_slots(3)), clients);
  CHECK(moved(at_4, at_3) <= 0.27);
  CHECK(moved(at_4, at_6) >= 0.30);
  // Who moves goes to a new slot, never from an old one to another.
  for (std::size_t i = 0; i < clients.size(); ++i)
    if (at_4[i] != at_6[i])
      CHECK(at_6[i] > 4);
}

TEST_CASE("source-ip-hash: one slot gone moves only its clients, and back") {
  const auto clients = thousand();
  const auto all = owners(hashed(first_slots(6)), clients);
  for (std::uint32_t gone = 1; gone <= 6; ++gone) {
    auto rest = first_slots(6);
    rest[gone - 1].draining = true;
    const backend_set before = hashed(first_slots(6));
    const backend_set without(rest, balance_strategy::source_ip_hash, &before);
    const auto now = owners(without, clients);
    for (std::size_t i = 0; i < clients.size(); ++i)
      REQUIRE((now[i] == all[i]) == (all[i] != gone));
    CHECK(max_to_mean(now, 5) <= 1.15);
    const backend_set again(first_slots(6), balance_strategy::source_ip_hash,
                            &without);
    CHECK(owners(again, clients) == all);
  }
}

TEST_CASE("source-ip-hash: a tried backend is passed over as if it was gone") {
  const auto clients = thousand();
  const auto all = hashed(first_slots(6));
  auto rest = first_slots(6);
  rest.erase(rest.begin() + 2);
  const auto without = hashed(rest);
  fixture f;
  for (const auto& x : clients)
    REQUIRE(f.pick(all, x, {{3, 1}}) == f.pick(without, x));
}

TEST_CASE("source-ip-hash stays within 20 % for clients from anywhere") {
  // Sampling noise is part of this: one standard deviation is 5.5 % at 4.
  std::mt19937 numbers(3);
  std::vector<ip_address> clients;
  for (int i = 0; i < 1000; ++i)
    clients.push_back(v4(static_cast<std::uint32_t>(numbers())));
  CHECK(max_to_mean(owners(hashed(first_slots(4)), clients), 4) <= 1.2);
  // One client of each of 1,000 networks.
  clients.clear();
  for (std::uint32_t i = 0; i < 1000; ++i)
    clients.push_back(v4(0x0a000001 + (i << 8)));
  CHECK(max_to_mean(owners(hashed(first_slots(4)), clients), 4) <= 1.2);
}

TEST_CASE("source-ip-hash knows all of an address") {
  const auto set = hashed(first_slots(4));
  SECTION("an IPv4-mapped address is its IPv4") {
    std::vector<ip_address> plain;
    std::vector<ip_address> in_six;
    for (std::uint32_t i = 1; i <= 1000; ++i) {
      plain.push_back(v4(0x7f000000 + i));
      in_six.push_back(mapped(0x7f000000 + i));
    }
    CHECK(owners(set, plain) == owners(set, in_six));
    CHECK(unmapped(in_six[0]) == plain[0]);
  }
  SECTION("each byte of IPv6 matters") {
    for (std::size_t byte = 0; byte < 16; ++byte) {
      std::vector<ip_address> clients;
      for (unsigned i = 0; i < 256; ++i) {
        ip_address x;
        x.v6 = true;
        x.bytes[0] = 0xfd;
        x.bytes[byte] = static_cast<std::uint8_t>(i);
        clients.push_back(x);
      }
      // 64 of 256 would be even.
      CHECK(max_to_mean(owners(set, clients), 4) <= 1.4);
    }
  }
  SECTION("each byte of IPv4 matters") {
    for (int shift : {0, 8, 16, 24}) {
      std::vector<ip_address> clients;
      for (unsigned i = 0; i < 256; ++i)
        clients.push_back(v4(0x01010101u ^ (i << shift)));
      CHECK(max_to_mean(owners(set, clients), 4) <= 1.4);
    }
  }
  SECTION("neighbours in IPv6 are even") {
    std::vector<ip_address> clients;
    for (unsigned i = 1; i <= 1000; ++i) {
      ip_address x;
      x.v6 = true;
      x.bytes[0] = 0x20;
      x.bytes[14] = static_cast<std::uint8_t>(i >> 8);
      x.bytes[15] = static_cast<std::uint8_t>(i);
      clients.push_back(x);
    }
    CHECK(max_to_mean(owners(set, clients), 4) <= 1.10);
  }
}

TEST_CASE("source-ip-hash depends on the set, not on the way to it") {
  std::mt19937 numbers(11);
  auto present = numbers_to(5);
  bucket_table table(present);
  for (int step = 0; step < 60; ++step) {
    const auto slot = static_cast<std::uint32_t>(numbers() % 12 + 1);
    const auto found = std::find(present.begin(), present.end(), slot);
    if (found == present.end())
      present.insert(std::upper_bound(present.begin(), present.end(), slot),
                     slot);
    else if (present.size() > 1)
      present.erase(found);
    table = table.changed_to(present);
    REQUIRE(table == bucket_table(present));
  }
}

TEST_CASE("source-ip-hash is the same after a restart") {
  // Values of this version. Should they change, clients of every user move
  // once on the upgrade: do so knowingly.
  const auto set = hashed(first_slots(6));
  std::vector<ip_address> clients;
  for (std::uint32_t i = 1; i <= 12; ++i)
    clients.push_back(v4(0x7f000000 + i));
  CHECK(owners(set, clients)
        == std::vector<std::uint32_t>{3, 2, 3, 2, 1, 2, 6, 6, 4, 4, 1, 4});
}

TEST_CASE("source-ip-hash: the most slots there can be all get clients") {
  const bucket_table table(numbers_to(bounds::instances));
  std::map<std::uint32_t, std::uint32_t> shares;
  for (std::uint32_t i = 0; i < bucket_table::buckets; ++i)
    ++shares[table.owner(i)];
  CHECK(shares.size() == bounds::instances);
  // 32 buckets are the mean.
  for (auto& [slot, share] : shares)
    CHECK(share <= 96);
}

TEST_CASE("source-ip-hash: of two lives of a slot the younger serves") {
  std::vector<backend> two{{1, 1, loopback_v4(1), false},
                           {1, 2, loopback_v4(1), false}};
  fixture f;
  f.pick(hashed(two));
  CHECK(f.last_index == 1);
}

TEST_CASE("loopback addresses are recognised") {
  CHECK(is_loopback(v4(0x7f000001)));
  CHECK(is_loopback(v4(0x7f0102ff)));
  CHECK(is_loopback(mapped(0x7f000001)));
  CHECK(is_loopback(loopback_v6(1).address));
  CHECK_FALSE(is_loopback(v4(0x0a000001)));
  ip_address other;
  other.v6 = true;
  other.bytes[0] = 127;
  CHECK_FALSE(is_loopback(other));
}
