#include "pup/runtime/reuseport.hpp"

#include <algorithm>
#include <cerrno>

#include <linux/bpf_common.h>
#include <sys/socket.h>

#ifndef SO_ATTACH_REUSEPORT_CBPF
#  define SO_ATTACH_REUSEPORT_CBPF 51
#endif
#ifndef SO_DETACH_REUSEPORT_BPF
#  define SO_DETACH_REUSEPORT_BPF 68
#endif

namespace pup {

namespace {

constexpr std::uint32_t bucket_count = 1u << bucket_table::block_bits;
constexpr std::uint32_t bucket_mask = bucket_count - 1;

// Multipliers of a 32-bit mix whose every output bit depends on every input bit
// (xor-shift, multiply, three rounds).
constexpr std::uint32_t first_multiplier = 0x7feb352d;
constexpr std::uint32_t second_multiplier = 0x846ca68b;

constexpr std::uint32_t mix(std::uint32_t x) noexcept {
  x ^= x >> 16;
  x *= first_multiplier;
  x ^= x >> 15;
  x *= second_multiplier;
  x ^= x >> 16;
  return x;
}

std::uint32_t word(const ip_address& x, std::size_t first) noexcept {
  return std::uint32_t{x.bytes[first]} << 24
         | std::uint32_t{x.bytes[first + 1]} << 16
         | std::uint32_t{x.bytes[first + 2]} << 8 | x.bytes[first + 3];
}

/// The words of classic BPF: accumulator A, index register X, memory M[16].
class assembler {
public:
  void load_word(int network_offset) {
    put(BPF_LD | BPF_W | BPF_ABS, net(network_offset));
  }
  void load_byte(int network_offset) {
    put(BPF_LD | BPF_B | BPF_ABS, net(network_offset));
  }
  void load_random() {
    put(BPF_LD | BPF_W | BPF_ABS,
        static_cast<std::uint32_t>(SKF_AD_OFF + SKF_AD_RANDOM));
  }
  void alu(unsigned operation, std::uint32_t k) {
    put(BPF_ALU | operation | BPF_K, k);
  }
  void to_x() {
    put(BPF_MISC | BPF_TAX, 0);
  }
  void alu_x(unsigned operation) {
    put(BPF_ALU | operation | BPF_X, 0);
  }
  void store(std::uint32_t place) {
    put(BPF_ST, place);
  }
  void load_x(std::uint32_t place) {
    put(BPF_LDX | BPF_MEM, place);
  }
  void load(std::uint32_t place) {
    put(BPF_LD | BPF_MEM, place);
  }
  void answer(std::uint32_t k) {
    put(BPF_RET | BPF_K, k);
  }
  void jump_unless_equal(std::uint32_t k, std::uint8_t over) {
    code_.push_back({BPF_JMP | BPF_JEQ | BPF_K, 0, over, k});
  }
  void jump(std::uint32_t over) {
    put(BPF_JMP | BPF_JA, over);
  }
  /// Over the next `over` instructions when A >= k.
  void jump_if_at_least(std::uint32_t k, std::size_t over) {
    // Conditional jumps have eight bits.
    if (over <= 255) {
      code_.push_back(
          {BPF_JMP | BPF_JGE | BPF_K, static_cast<std::uint8_t>(over), 0, k});
      return;
    }
    code_.push_back({BPF_JMP | BPF_JGE | BPF_K, 0, 1, k});
    jump(static_cast<std::uint32_t>(over));
  }
  /// A ^= A >> n
  void xor_shift(std::uint32_t n) {
    to_x();
    alu(BPF_RSH, n);
    alu_x(BPF_XOR);
  }
  void mix() {
    xor_shift(16);
    alu(BPF_MUL, first_multiplier);
    xor_shift(15);
    alu(BPF_MUL, second_multiplier);
    xor_shift(16);
  }
  void append(const assembler& x) {
    code_.insert(code_.end(), x.code_.begin(), x.code_.end());
  }
  [[nodiscard]] std::size_t size() const noexcept {
    return code_.size();
  }
  steering take() && {
    return std::move(code_);
  }

private:
  // Counted from the start of the IP header.
  static std::uint32_t net(int offset) noexcept {
    return static_cast<std::uint32_t>(SKF_NET_OFF + offset);
  }
  void put(unsigned operation, std::uint32_t k) {
    code_.push_back({static_cast<std::uint16_t>(operation), 0, 0, k});
  }

  steering code_;
};

struct run {
  std::uint32_t first = 0;  // value of A from which on
  std::uint32_t place = 0;
};

/// A binary search of A among the runs.
assembler search(std::span<const run> runs) {
  assembler result;
  if (runs.size() == 1) {
    result.answer(runs.front().place);
    return result;
  }
  const auto half = runs.size() / 2;
  const auto below = search(runs.first(half));
  result.jump_if_at_least(runs[half].first, below.size());
  result.append(below);
  result.append(search(runs.subspan(half)));
  return result;
}

std::vector<run> runs_of(std::span<const std::uint32_t> place_by_value) {
  std::vector<run> result;
  for (std::uint32_t i = 0; i < place_by_value.size(); ++i)
    if (result.empty() || result.back().place != place_by_value[i])
      result.push_back({i, place_by_value[i]});
  return result;
}

}  // namespace

steering steer_at_random(std::span<const std::uint32_t> places) {
  assembler result;
  if (places.size() > 1) {
    result.load_random();
    result.alu(BPF_MOD, static_cast<std::uint32_t>(places.size()));
  }
  result.append(search(runs_of(places)));
  return std::move(result).take();
}

std::uint32_t steered_bucket(const ip_address& client) noexcept {
  const auto x = unmapped(client);
  std::uint32_t rest = 0;
  if (x.v6)
    for (const std::size_t first : {0, 4, 8})
      rest = mix(rest ^ word(x, first));
  const auto last = word(x, x.v6 ? 12 : 0);
  // Neighbours within 1,024 addresses get a bucket each: an even spread where
  // clients are few and close together, as in one network.
  return (mix(rest ^ (last >> bucket_table::block_bits)) ^ last) & bucket_mask;
}

steering steer_by_source(std::span<const std::uint32_t> slots,
                         std::span<const std::uint32_t> places) {
  const bucket_table table({slots.begin(), slots.end()});
  std::vector<std::uint32_t> place_by_bucket(bucket_count);
  for (std::uint32_t i = 0; i < bucket_count; ++i) {
    const auto owner =
        std::lower_bound(slots.begin(), slots.end(), table.owner(i));
    place_by_bucket[i] =
        places[static_cast<std::size_t>(owner - slots.begin())];
  }

  // Offsets within the IP header: version 0; source of IPv4 12, of IPv6 8.
  constexpr std::uint32_t rest = 0;  // places in M
  constexpr std::uint32_t last = 1;
  assembler v6;
  v6.load_word(8);
  v6.mix();
  for (const int offset : {12, 16}) {
    v6.store(rest);
    v6.load_x(rest);
    v6.load_word(offset);
    v6.alu_x(BPF_XOR);
    v6.mix();
  }
  v6.store(rest);
  v6.load_word(20);
  assembler v4;
  v4.alu(BPF_AND, 0);
  v4.store(rest);
  v4.load_word(12);
  v4.jump(static_cast<std::uint32_t>(v6.size()));

  assembler result;
  result.load_byte(0);
  result.alu(BPF_AND, 0xf0);
  result.jump_unless_equal(0x40, static_cast<std::uint8_t>(v4.size()));
  result.append(v4);
  result.append(v6);
  result.store(last);
  result.alu(BPF_RSH, bucket_table::block_bits);
  result.load_x(rest);
  result.alu_x(BPF_XOR);
  result.mix();
  result.load_x(last);
  result.alu_x(BPF_XOR);
  result.alu(BPF_AND, bucket_mask);
  result.append(search(runs_of(place_by_bucket)));
  return std::move(result).take();
}

std::optional<os_fault> attach(int socket, const steering& program) {
  sock_fprog argument{static_cast<unsigned short>(program.size()),
                      const_cast<sock_filter*>(program.data())};
  if (::setsockopt(socket, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &argument,
                   sizeof argument)
      == 0)
    return std::nullopt;
  return os_fault{"setsockopt", "SO_ATTACH_REUSEPORT_CBPF", errno};
}

void detach(int socket) noexcept {
  const int unused = 0;
  // Fails where nothing is attached.
  (void)::setsockopt(socket, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &unused,
                     sizeof unused);
}

}  // namespace pup
