// When does what start again? The pure heart of supervision, as Erlang/OTP
// defines it, plus a backoff, which OTP lacks.
//
// A supervision knows the order of its children and how each wants to be
// restarted. Told that one has ended, it answers what to do:
//
//   strategy      one_for_one   only the ended child
//                 one_for_all   all children
//                 rest_for_one  the ended one and those started after it
//   restart type  permanent     always
//                 transient     after an abnormal end only
//                 temporary     never (and its spec is forgotten)
//   intensity     more than `limit` restarts within `period`: give up. A
//                 restart counts until `period` after it, inclusive; the
//                 restart of a group counts once.
//   start limit   more lives of the child in a row that ended before they were
//                 ready: give up
//   backoff       `first` delay, then doubling from `step` to `max` while the
//                 child ends before or soon after it became ready
//
// Time and randomness are arguments: no clock, no CAF, no thread. A decision
// costs O(children).
#pragma once

#include "pup/config/strategy.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace pup {

using time_point = std::chrono::steady_clock::time_point;
using duration = std::chrono::steady_clock::duration;

enum class restart_type : std::uint8_t { permanent, transient, temporary };

/// How far a life had come when it ended.
enum class life_stage : std::uint8_t {
  unready,  ///< it never was ready
  ready,
  stable,  ///< it had been ready for backoff_rule::stable_after
};

/// Restarts allowed within a period. OTP's default is 1 in 5 s; what a process
/// manager wants comes from its configuration.
struct intensity {
  std::optional<std::uint32_t> limit;  ///< empty: no limit
  std::chrono::milliseconds period{60'000};
};

/// Delays between a child's end and its restart.
struct backoff_rule {
  std::chrono::milliseconds first{0};     ///< after a stable life
  std::chrono::milliseconds step{100};    ///< second delay of a failing series
  std::chrono::milliseconds max{10'000};  ///< upper end of the doubling
  /// A life that was ready for this long ends a failing series. 1 s: long
  /// enough to tell a crash at start from one in service.
  std::chrono::milliseconds stable_after{1'000};
};

/// Of a life that had been ready for so long; empty: it never was.
life_stage stage_of(std::optional<duration> ready_for,
                    const backoff_rule& rule);

/// The delays of one child's failing series.
class backoff {
public:
  explicit backoff(backoff_rule rule) : rule_(rule) {}

  /// Delay before the next restart. `stable`: the ended life had been ready for
  /// rule.stable_after. `random` is uniform in [0, 1): spreads a delay by 20 %
  /// either way so that many children do not start in step. Never below first,
  /// never above max unless first is. `first` itself is exact.
  duration next(bool stable, double random);

  void reset() {
    failures_ = 0;
  }

  /// Restarts of the current failing series.
  std::uint32_t failures() const {
    return failures_;
  }
  void recall(std::uint32_t failures) {
    failures_ = failures;
  }

  const backoff_rule& rule() const {
    return rule_;
  }

private:
  backoff_rule rule_;
  std::uint32_t failures_ = 0;
};

/// Decision: stop the siblings in `stop`, in this order (the reverse of their
/// start), then start those in `start`, in this order, but not before `delay`
/// has passed since the child's end. A temporary sibling is in `stop` only, and
/// forgotten.
struct restart {
  std::vector<std::string> stop;
  std::vector<std::string> start;
  duration delay{0};
};
/// Decision: the child stays down, the others go on. `forgotten`: its spec is
/// gone (temporary).
struct leave {
  bool forgotten = false;
};
/// Decision: stop all children in reverse order and end with the reason.
struct give_up {
  enum class limit : std::uint8_t { restarts, starts };
  limit passed = limit::restarts;
};

using decision = std::variant<restart, leave, give_up>;

/// What counts against a child: the restarts of the window, which its siblings
/// share, its failing series, and its last lives that never were ready.
struct restart_record {
  std::vector<time_point> restarts;  ///< oldest first
  std::uint32_t failures = 0;
  std::uint32_t failed_starts = 0;

  bool operator==(const restart_record&) const = default;
};

class supervision {
public:
  supervision(strategy how, intensity limit) : strategy_(how), limit_(limit) {}

  [[nodiscard]] strategy how() const noexcept {
    return strategy_;
  }

  /// Adds a child behind the others, or behind the first `behind` of them.
  /// False: the id is taken.
  bool add(std::string id, restart_type type, backoff_rule rule = {},
           std::size_t behind = std::numeric_limits<std::size_t>::max());

  /// More lives of the child in a row than `limit` that never were ready: give
  /// up. Empty: any number. Unknown ids are left.
  void limit_starts(const std::string& id, std::optional<std::uint32_t> limit);

  /// Forgets a child. False: no such id.
  bool remove(const std::string& id);

  /// The child ended by itself. `normal`: as a transient child is allowed to.
  /// Unknown ids are left.
  decision ended(const std::string& id, bool normal, life_stage reached,
                 time_point now, double random);

  /// The child could not even begin, for want of what the machine gives: how
  /// long to wait before it is tried again, whatever its restart type. Counts
  /// against no limit. Zero for unknown ids.
  duration postponed(const std::string& id, double random);

  /// Somebody started the child on purpose: its series and the window of
  /// restarts begin anew.
  void forgive(const std::string& id);

  /// For a successor, which recalls it on the same clock. Unknown ids have none
  /// and are left.
  restart_record record(const std::string& id) const;
  void recall(const std::string& id, const restart_record& x);

  /// Ids in start order.
  std::vector<std::string> ids() const;

private:
  struct child {
    std::string id;
    restart_type type;
    backoff delays;
    std::optional<std::uint32_t> start_limit{};
    std::uint32_t failed_starts = 0;
  };

  using iterator = std::vector<child>::iterator;

  iterator find(const std::string& id);
  static bool within_start_limit(child& x, life_stage reached);
  bool within_intensity(time_point now);
  restart affected(iterator ended);

  strategy strategy_;
  intensity limit_;
  std::vector<child> children_;
  std::deque<time_point> restarts_;  // oldest first; at most limit
};

}  // namespace pup
