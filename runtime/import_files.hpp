// What `pup import` looks at besides the file that it is given: scripts that
// PM2 would run, files that supervisord would include. Reads only.
#pragma once

#include "pup/config/import.hpp"

#include <string>

namespace pup {

/// Of `file` as a person names it. Any thread; blocks on the disk alone.
import_surroundings surroundings_of(const std::string& file);

}  // namespace pup
