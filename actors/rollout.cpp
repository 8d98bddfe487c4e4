#include "pup/actors/rollout.hpp"

#include <algorithm>
#include <tuple>

namespace pup {

namespace {

using kind = rollout_step::kind;

template <class Predicate>
std::uint32_t count(const std::vector<rollout_slot>& slots, Predicate p) {
  return static_cast<std::uint32_t>(
      std::count_if(slots.begin(), slots.end(), p));
}

/// The first to be replaced that is not on its way yet.
const rollout_slot* candidate(const std::vector<rollout_slot>& slots) {
  const rollout_slot* result = nullptr;
  const auto rank = [](const rollout_slot& x) {
    return std::tuple{!x.spare, x.serves, x.number};
  };
  for (const auto& x : slots)
    if (x.outdated && (result == nullptr || rank(x) < rank(*result)))
      result = &x;
  return result;
}

// All that is outdated is replaced.
rollout_step last_step(const std::vector<rollout_slot>& slots, bool moves) {
  if (moves)
    return {kind::wait};
  const auto spare =
      std::find_if(slots.rbegin(), slots.rend(),
                   [](const rollout_slot& x) { return x.spare; });
  if (spare != slots.rend())
    return {kind::retire, spare->number};
  return {kind::done};
}

}  // namespace

rollout_limits limits_of(const process_spec& spec) {
  if (!spec.cluster)
    return {0, 1};
  const auto& x = *spec.cluster;
  const auto full =
      x.max_unavailable ? *x.max_unavailable == 0 : x.common_port != 0;
  const auto surge = x.max_surge.value_or(full ? 1 : 0);
  return {surge, x.max_unavailable.value_or(surge > 0 ? 0 : 1)};
}

rollout_step step_after(const std::vector<rollout_slot>& slots,
                       rollout_limits limits) {
  const auto outdated = count(slots, [](const auto& x) { return x.outdated; });
  const auto moving = count(slots, [](const auto& x) { return x.moving; });
  if (outdated == 0)
    return last_step(slots, moving > 0);
  const auto spares = count(slots, [](const auto& x) { return x.spare; });
  if (spares < std::min(limits.surge, outdated))
    return {kind::surge};
  const auto* next = candidate(slots);
  const auto tried =
      count(slots, [](const auto& x) { return x.spare && x.moving; });
  const auto most = std::max(limits.surge + limits.unavailable, 1u);
  if (tried > 0 || moving >= most)
    return {kind::wait};
  const auto serving = count(slots, [](const auto& x) { return x.serves; });
  const auto wanted = static_cast<std::uint32_t>(slots.size()) - spares;
  if (!next->serves || serving + limits.unavailable > wanted)
    return {kind::replace, next->number};
  return {kind::wait};
}

}  // namespace pup
