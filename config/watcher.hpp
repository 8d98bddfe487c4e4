// The `watcher` object: which changes of watched files count.
#pragma once

#include "pup/config/reader.hpp"

namespace pup {

/// What `x` leaves out stays as it is in `into`. Patterns are judged with the
/// rules.
void read_watcher(reader& in, const spot& x, watcher_spec& into);

}  // namespace pup
