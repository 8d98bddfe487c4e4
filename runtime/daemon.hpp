// `pup run`: a supervisor as a process of its own.
#pragma once

#include "pup/runtime/cli.hpp"

namespace pup {

/// Runs the supervisor of a configuration until it is told to end: by
/// `pup terminate`, SIGTERM or SIGINT (in order; a second one kills what is
/// left). Must be called before the process has other threads: it sets signal
/// dispositions and mask, and the working folder, which belong to the process.
exit_code run_supervisor(const command& what);

}  // namespace pup
