// The `logger` objects: of the whole file and of one process.
#pragma once

#include "pup/config/reader.hpp"

#include <functional>
#include <optional>
#include <string>

namespace pup {

/// A path as written to an absolute one; empty: a fault was reported.
using path_reader = std::function<std::optional<std::string>(const spot&)>;

void read_logger(reader& in, const spot& x, const path_reader& path,
                 logger_spec& into);

/// What `x` leaves out stays as it is in `into`.
void read_process_logger(reader& in, const spot& x, const path_reader& path,
                         output_spec& into);

}  // namespace pup
