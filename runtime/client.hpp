// A command line that speaks to a running supervisor, or starts one in the
// background.
#pragma once

#include "pup/runtime/cli.hpp"

namespace pup {

/// Carries out every command but run and those of local.hpp. Prints results to
/// standard output and errors, one line each, to standard error. Blocks until
/// done or until the time-out; a signal with its default action ends it without
/// harm: the supervisor carries on. Leaves threads behind that use what the
/// end of main() destroys: the caller is to end by _Exit(), after a flush.
exit_code run_client(const command& what);

}  // namespace pup
