// What a supervisor knows of its earlier life, and what of it still holds.
//
//   the last end            | the next start
//   ------------------------+---------------------------------------------------
//   on purpose              | begins from the configuration
//   killed, on this boot    | goes on: counts, blocked, stopped, what finished
//                           | or gave up, restarts that count against a limit
//   killed, another boot    | goes on with what people decided (counts,
//   blocked,
//                           | stopped); what processes did is past
//   another configuration   | a unit whose entry has changed begins anew; all
//   do
//                           | when the file is another one, or when what was
//                           | scaled does not fit beside what is new
//   unreadable state        | begins from the configuration, with a warning
//
// However it ended: until when starts by the clock were acted upon is known, so
// that those which pup has missed can be told.
//
// No message, no clock: values in, values out.
#pragma once

#include "pup/actors/history.hpp"
#include "pup/actors/slot.hpp"
#include "pup/runtime/state_file.hpp"

#include <chrono>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace pup {

/// The two spellings of what a unit keeps. The mark is that of its spec, if it
/// names one.
saved_unit saved_from(const wanted_state& x);
wanted_state wanted_from(const saved_unit& x, bool same_boot);

struct recollection {
  std::map<std::string, wanted_state> kept;  ///< by unit
  /// Until when a unit's starts by the clock were acted upon. Not of one that
  /// was blocked, or whose entry has changed.
  std::map<std::string, std::chrono::sys_seconds> clocks;
  /// Somebody has been told what processes of other users do not inherit.
  bool told_environment = false;
  std::vector<std::string> notes;     ///< for the log: what does not hold, why
  std::vector<std::string> warnings;  ///< for the status as well
};

/// `config`: path of the file, `boot`: this boot.
recollection recall(
    const pup_spec& spec, const std::string& config, const std::string& boot,
    const std::variant<std::optional<saved_state>, std::string>& found);

}  // namespace pup
