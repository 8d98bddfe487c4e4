// What a process inherits of the supervisor's environment. Pure; any thread.
#pragma once

#include "pup/config/spec.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace pup {

/// Whether `names` has the variable `name`.
bool includes(const inherited_names& names, std::string_view name);

/// The entries of `all` ("NAME=value" each, in their order) that a process
/// inherits: those in `names`, and the mark by which pup knows its own
/// processes.
std::vector<std::string> inherited_of(const std::vector<std::string>& all,
                                      const inherited_names& names);

/// For a process that inherits little only because it has another user, and
/// not because the configuration says so: the names in `all` that it neither
/// inherits nor has of its own. Sorted.
std::vector<std::string> withheld_unasked(const std::vector<std::string>& all,
                                          const process_spec& process);

}  // namespace pup
