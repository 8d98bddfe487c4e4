// Keys that the configuration knows but pup does not act on yet.
//
// Their values are judged like all others, so that a file is not found wrong
// later on; a good value is refused with the advice to remove it.
#pragma once

#include "pup/config/reader.hpp"

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pup {

/// Of the top level, of a process and of a cluster.
inline constexpr std::array<std::string_view, 5> later_top_keys{
    "groups", "logger", "watcher", "api", "startConcurrency"};
inline constexpr std::array<std::string_view, 21> later_process_keys{
    "cron",           "terminate", "timeout",     "overrun",    "watch",
    "pidFile",        "logger",    "hooks",       "maxAgeMs",   "nice",
    "oomScoreAdjust", "ioClass",   "maxMemory",   "user",       "group",
    "umask",          "limits",    "significant", "supervisor", "notify",
    "dependsOn"};
inline constexpr std::array<std::string_view, 2> later_cluster_keys{
    "healthCheck", "proxyProtocol"};

void refuse_later_top_keys(reader& in, const fields& x);
void refuse_later_process_keys(reader& in, const fields& x);
void refuse_later_cluster_keys(reader& in, const fields& x);

/// The dependencies of all processes, for what only shows when all are known.
class dependency_graph {
public:
  /// Reads "dependsOn" of process number `index`.
  void add(reader& in, std::size_t index, const spot& depends_on);

  /// Reports ids that do not exist and processes that wait for each other.
  void judge(reader& in, const pup_spec& spec) const;

private:
  struct edge {
    std::size_t from;
    std::string to;
    spot where;
  };

  struct arrow {
    std::size_t to;
    const edge* why;
  };

  static void find_circles(reader& in, const pup_spec& spec,
                           const std::vector<std::vector<arrow>>& arrows);
  static void blame_circle(reader& in, const pup_spec& spec,
                           std::span<const std::size_t> circle,
                           const edge& last);

  std::vector<edge> edges_;
};

}  // namespace pup
