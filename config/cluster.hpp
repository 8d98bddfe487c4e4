// The keys of the `cluster` object: instances, ports, balancing, health checks;
// and what must hold of them.
#pragma once

#include "pup/config/reader.hpp"
#include "pup/config/rules.hpp"
#include "pup/config/spec.hpp"

#include <optional>
#include <string>
#include <vector>

namespace pup {

struct cluster_reader {
  reader& in;
  const world& machine;

  cluster_spec read(const spot& x);

  /// "loadBalancerStrategy" at `x`, beside the cluster or instead of its
  /// "strategy". `into` knows its cluster already.
  void old_strategy(const spot& x, const fields& parts, process_spec& into);

private:
  void counts(const fields& parts, cluster_spec& into);
  void ports(const spot& x, const fields& parts, cluster_spec& into);
  void mode(const spot& x, cluster_spec& into);
  health_check health(const spot& x);
  std::optional<balance_strategy> strategy(const spot& x);
};

/// Appends the rules that the cluster at `path` breaks to `into`.
void cluster_rules(const cluster_spec& x, const std::string& path,
                   std::vector<broken_rule>& into);

}  // namespace pup
