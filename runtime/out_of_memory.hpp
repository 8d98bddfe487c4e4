// Who sent that SIGKILL? The kernel says so in no exit status: where it kills
// because memory is short, it only counts.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include <sys/types.h>

namespace pup {

class oom_witness {
public:
  /// Takes the counts as they are. The folders are arguments for tests.
  explicit oom_witness(std::string proc = "/proc",
                       std::string cgroups = "/sys/fs/cgroup");

  /// About a process that somebody else's SIGKILL has ended and that is still a
  /// zombie:
  ///   "out of memory"         the count of its own cgroup has grown
  ///   "likely out of memory"  that of the one it shares with this process, or
  ///                           of the machine, has grown since the last look
  ///   ""                      no sign of it
  std::string look(pid_t pid);

private:
  std::string cgroup_of(const std::string& process) const;
  bool has_grown(const std::string& file);

  std::string proc_;
  std::string cgroups_;
  std::string own_;
  std::map<std::string, std::uint64_t> counts_;  // last seen, by file
};

}  // namespace pup
