// What changes when one configuration takes the place of another. Pure.
//
// Every member of the spec types has a row in a table of diff.cpp, which says
// what its change costs. A member without a row costs a new life, so that a
// forgotten one is applied all the same, and diff_test counts the rows.
#pragma once

#include "pup/config/spec.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pup {

/// What the change of a key costs.
enum class key_effect : std::uint8_t {
  tune,     ///< nothing: it holds at once, or from the next start on
  scale,    ///< the number of instances
  renew,    ///< a new life of each instance
  replace,  ///< the unit is stopped, then started anew
};

/// How one unit becomes another of the same id.
struct unit_change {
  /// Keys of the configuration that differ, by effect; each once.
  std::vector<std::string_view> tuned;
  std::vector<std::string_view> renewed;
  std::vector<std::string_view> replaced;
  /// Numbers of instances, now and then. Empty: it stays.
  std::optional<std::pair<std::uint32_t, std::uint32_t>> scaled;
  /// `scaled` undoes a scale request; the file is as it was.
  bool rescaled = false;

  [[nodiscard]] bool empty() const {
    return tuned.empty() && renewed.empty() && replaced.empty() && !scaled;
  }
};

/// `desired`: the number of instances that is wanted now, which a scale request
/// may have changed since `from` was loaded.
unit_change change_of(const process_spec& from, const process_spec& to,
                      std::uint32_t desired);

struct spec_change {
  struct unit {
    std::string id;
    unit_change how;
  };
  /// In reverse order of `from`.
  std::vector<std::string> stopped;
  /// In the order of `to`: what stays but changes.
  std::vector<unit> changed;
  /// In the order of `to`.
  std::vector<std::string> started;
  /// Top-level keys that hold at once.
  std::vector<std::string_view> tuned;
  /// Top-level keys that only a new start of pup can change.
  std::vector<std::string_view> later;

  [[nodiscard]] bool empty() const {
    return stopped.empty() && changed.empty() && started.empty()
           && tuned.empty() && later.empty();
  }
};

/// `desired`: as of change_of(), by id; a unit that is not in it has as many
/// instances as `from` says. The names are the caller's business.
spec_change change_of(const pup_spec& from, const pup_spec& to,
                      const std::map<std::string, std::uint32_t>& desired);

/// One line for each unit, in the order in which it is done: "old: stop",
/// "web: scale 4 -> 6", "api: reload (cmd, env)", "worker: start".
std::vector<std::string> plan_of(const spec_change& x);

/// Rows of the tables, one for each member.
std::size_t process_keys_decided();
std::size_t cluster_keys_decided();
std::size_t top_keys_decided();

}  // namespace pup
