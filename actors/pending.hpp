// Requests that wait for slots of a cluster to arrive somewhere.
//
// A command line that scales, starts or stops is answered when each slot it
// concerns has come to an end of its way: up (ready, finished or failed) or
// down (stopped); a roll-out gives it a new life (renewed). A later request for
// the other direction overtakes it: both callers get a true answer. No clock,
// no messages; the answer is a callback, which must not call back into the
// pending_operations. Nobody is answered before answer_complete(): who has the
// answer may build on it, so what others must know first is told before.
#pragma once

#include "pup/actors/protocol.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace pup {

enum class direction : std::uint8_t {
  up,
  down,
  renewed,  ///< up, with the life that a roll-out gave it
};

/// One request on its way. Filled by its maker, then given to `add`.
struct pending_operation {
  struct goal {
    direction where = direction::up;
    std::optional<outcome> reached;
  };
  std::map<std::uint32_t, goal> goals;  ///< by slot
  std::function<void(std::vector<outcome>)> answer;
  std::function<void(const caf::error&)> fail;

  void expect(std::uint32_t slot, direction where) {
    goals[slot] = {where, std::nullopt};
  }
  void reached(std::uint32_t slot, direction where, outcome result) {
    goals[slot] = {where, std::move(result)};
  }
};

class pending_operations {
public:
  void add(pending_operation x) {
    operations_.push_back(std::move(x));
  }

  /// A slot has arrived.
  void settle(std::uint32_t slot, direction where, const outcome& result) {
    for (auto& x : operations_) {
      const auto i = x.goals.find(slot);
      if (i != x.goals.end() && i->second.where == where && !i->second.reached)
        i->second.reached = result;
    }
  }

  /// A slot was sent the other way.
  void overtake(std::uint32_t slot, direction now, const outcome& result) {
    if (now == direction::up)
      return settle(slot, direction::down, result);
    settle(slot, direction::up, result);
    settle(slot, direction::renewed, result);
  }

  /// Answers those that have nothing left to wait for.
  void answer_complete() {
    const auto done =
        std::stable_partition(operations_.begin(), operations_.end(),
                              [](const auto& x) { return !complete(x); });
    std::vector<pending_operation> answers{
        std::make_move_iterator(done),
        std::make_move_iterator(operations_.end())};
    operations_.erase(done, operations_.end());
    for (auto& x : answers) {
      std::vector<outcome> outcomes;
      for (auto& [slot, goal] : x.goals)
        outcomes.push_back(std::move(*goal.reached));
      x.answer(std::move(outcomes));
    }
  }

  /// Nobody will work on what still waits: fails it with `why`.
  void abandon(const caf::error& why) {
    for (auto& x : std::exchange(operations_, {}))
      x.fail(why);
  }

private:
  static bool complete(const pending_operation& x) {
    return std::all_of(x.goals.begin(), x.goals.end(), [](const auto& goal) {
      return goal.second.reached.has_value();
    });
  }

  std::vector<pending_operation> operations_;
};

}  // namespace pup
