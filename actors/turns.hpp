// Whose turn is it to launch? The pure half of starting in order.
//
// A launch that a unit wishes for waits for three things, and is told which:
//
//   what its unit depends on   if the wish is fresh: a restart waits for nobody
//   its group                  while that is being restarted or stopped
//   startConcurrency           in the order of coming; a restart queues up
//                              behind who waits already, so that a process that
//                              fails again and again keeps nobody from starting
//
// A wait is stuck when nothing is under way that would end it: a dependency has
// failed, was stopped, or is itself stuck. It ends all the same when somebody
// mends that.
//
// No messages, no clock. take() costs O(units with wishes), not O(units).
#pragma once

#include "pup/actors/protocol.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace pup {

class turns {
public:
  struct verdicts {
    std::vector<std::pair<std::string, launch_granted>> granted;
    /// Only what has not been said before.
    std::vector<std::pair<std::string, launch_delayed>> delayed;
  };

  /// What holds from now on; what units have reported stays known.
  void follow(const pup_spec& spec);

  void report(const unit_report& now);

  /// What it has reported no longer holds: its actor has ended, or is about to
  /// report.
  void forget(const std::string& id);

  /// Keeps the launches of a unit back. `why` in words; empty: no longer.
  void hold(const std::string& id, const std::string& why);

  /// Who may launch now, and who learns why not.
  verdicts take();

  /// The last report; null: there is none.
  const unit_report* see(const std::string& id) const;

  /// Whether the unit is on its way to be ready, as far as anyone knows.
  bool coming(const std::string& id);

private:
  struct wish {
    launch_wish what;
    std::uint64_t number = 0;  // in the order of coming; 0: none yet
    bool granted = false;
    std::string told;
    bool told_stuck = false;
  };
  struct record {
    std::string id;
    std::vector<std::pair<std::size_t, dependency>> depends_on;
    std::optional<unit_report> last;
    bool seen = false;                     // it has reported at least once
    std::map<std::uint64_t, wish> wishes;  // by ticket
    std::string held;
  };
  struct obstacle {
    std::string reason;
    bool stuck = false;
    std::string cause;  // of being stuck: what is at the end of the chain
  };

  void number_wishes();
  std::optional<obstacle> obstacle_of(std::size_t index);
  std::optional<obstacle> waits_for(std::size_t index);
  bool coming_at(std::size_t index);

  std::vector<record> units_;  // in start order
  std::unordered_map<std::string, std::size_t> indexes_;
  std::set<std::size_t> waiting_;  // units with wishes
  std::size_t all_seen_before_ = 0;
  std::uint32_t limit_ = 0;
  std::uint32_t starting_ = 0;  // as reported
  std::uint32_t granted_ = 0;   // not yet reported
  std::uint64_t last_number_ = 0;
};

}  // namespace pup
