// Which processes, clusters and instances a word on the command line means.
#pragma once

#include "pup/actors/protocol.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pup {

/// A whole unit (slot 0) or one instance of a cluster.
struct target {
  std::string unit;
  std::uint32_t slot = 0;

  bool operator==(const target&) const = default;
};

/// "all", the id of a process, cluster or instance, or a glob over these ids. A
/// glob that names a cluster does not name its instances as well. In the order
/// of the units; empty when nothing fits.
std::vector<target> select(std::string_view selector,
                           const std::vector<unit_status>& units);

/// True when `text` fits `pattern`: * stands for any run of characters, ? for
/// one. Linear in both lengths for a pattern with one *.
bool glob_match(std::string_view pattern, std::string_view text);

/// "no process, cluster or instance 'x'; there are a, b, c".
std::string unknown_id(std::string_view selector,
                       const std::vector<unit_status>& units);

}  // namespace pup
