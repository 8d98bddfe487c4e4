// What several processes must not have in common: ids, those of instances among
// them, and ports.
#pragma once

#include "pup/config/rules.hpp"
#include "pup/config/spec.hpp"

#include <vector>

namespace pup {

/// Appends the rules that `spec` breaks to `into`.
void conflict_rules(const pup_spec& spec, std::vector<broken_rule>& into);

}  // namespace pup
