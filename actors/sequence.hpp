// In which order does a request reach units that depend on each other?
//
//   start, restart   what the chosen ones need and is down is started as well;
//                    the conductor keeps the order then
//   stop             who depends on others before them, one depth after the
//                    other
//
// Pure; the steps are sent by control.
#pragma once

#include "pup/actors/selector.hpp"

#include <string>
#include <vector>

namespace pup {

struct step {
  target to;
  verb what = verb::await;
  /// It only has to be known before the next stage: nobody waits until it is
  /// done, and its outcome is not shown.
  bool ahead = false;
  /// Goes behind the text of its outcomes: whom this concerns as well.
  std::string note;

  bool operator==(const step&) const = default;
};

/// The steps of a stage are sent at once, the next stage when all are answered.
using sequence = std::vector<std::vector<step>>;

sequence sequence_of(const pup_spec& spec, verb what,
                     const std::vector<target>& chosen,
                     const std::vector<unit_status>& units);

}  // namespace pup
