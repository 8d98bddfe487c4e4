// What happened to a slot and why: the answer to `pup why`. Pure values; the
// clock on the wall comes in with each call.
#pragma once

#include "pup/actors/slot.hpp"

#include <chrono>
#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace pup {

/// The last events of one slot, over all its lives.
class history {
public:
  using moment = std::chrono::system_clock::time_point;

  /// 32 entries are some eight lives, and 1024 slots keep them in 4 MB.
  static constexpr std::size_t most_entries = 32;

  void add(moment now, event_kind what, std::string text);

  /// Oldest first. However much has happened since: the last request before
  /// the oldest entry stays in front of it.
  [[nodiscard]] std::vector<history_entry> entries() const;

private:
  std::optional<history_entry> origin_;
  std::deque<history_entry> entries_;
};

/// Those of a unit, by slot. Handed from each life of its actor to the next.
using history_book = std::map<std::uint32_t, history>;

/// What comes next, and when where the clock decides.
struct next_step {
  std::string text;
  /// From now.
  std::optional<duration> in;
};

/// `cron_in`: until the next start by the clock; empty: there is none.
next_step next_of(const process_spec& spec, const slot& x, time_point now,
                  std::optional<duration> cron_in);

/// "restart always", as a rule is named in a history.
std::string rule_name(const process_spec& spec);

}  // namespace pup
