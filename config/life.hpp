// Keys about the life of a process beyond its restarts: readiness, watchdog,
// hooks, schedule.
#pragma once

#include "pup/config/reader.hpp"
#include "pup/config/spec.hpp"

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace pup {

/// Durations among them stand in process_durations (rules.hpp).
inline constexpr std::array<std::string_view, 8> life_keys{
    "ready",     "notify",   "hooks",   "cron",
    "terminate", "timeZone", "overrun", "watch"};

struct life_reader {
  reader& in;
  /// A text with %{...} judged and %{env:NAME} replaced.
  std::function<std::optional<std::string>(const spot&)> template_text;
  /// Empty when there is such a time zone, else "problem; remedy" in two parts.
  std::function<std::pair<std::string, std::string>(const std::string& name)>
      time_zone_problem;
  /// Empty when it is a regular expression, else what is wrong with it.
  std::function<std::string(const std::string& pattern)> pattern_problem;
  /// A path as written to an absolute one; empty: a fault was reported.
  std::function<std::optional<std::string>(const spot&)> absolute_path;

  /// Reads these keys of a process into `into`, which knows its cluster
  /// already; defaults that depend on them are set.
  void read(const fields& parts, process_spec& into);

  /// "cmd" as an array, or as a string for a shell.
  bool command(const spot& x, std::vector<std::string>& argv, bool& shell);

private:
  void readiness(const spot& x, process_spec& into);
  void ready_pattern(const spot& x, std::string& into);
  void hooks(const spot& x, hook_set& into);
  void hook(const spot& x, command_spec& into);
  void schedule(const fields& parts, process_spec& into);
  void cron(const spot& x, std::string& into);
  void watch(const fields& parts, process_spec& into);
};

}  // namespace pup
