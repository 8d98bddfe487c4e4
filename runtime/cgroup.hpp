// Limits by cgroups (version 2): one below pup's own for each instance that
// asks for limits, where the machine lets pup make one.
//
// A group that has groups below it may hold no processes, so before the first
// one is made pup moves itself, and what it has started, into a group `pup-PID`
// beside it (PID: the guardian's, which outlives a supervisor). It does so only
// where nobody else is in its group: in a unit of systemd with Delegate=yes, in
// a container of its own. Elsewhere, and where cgroups are read-only or of
// version 1, the limits are not in force, which is said in the status of each
// instance concerned and is no failure.
#pragma once

#include "pup/config/spec.hpp"

#include <set>
#include <string>
#include <string_view>
#include <variant>

#include <sys/types.h>

namespace pup {

/// Folder of the group that `self` (/proc/self/cgroup) names below the first
/// mount of type cgroup2 in `mounts` (/proc/self/mountinfo). Empty: none.
std::string own_cgroup(std::string_view self, std::string_view mounts);

/// One line of "cpu.max" for this share of processors.
std::string cpu_max(std::uint32_t percent);

/// Where groups of lives may be made (life_cgroup.hpp): the group that this
/// process is in, or was in before the children of `root` were moved out of it.
/// Empty: none, or it belongs to systemd, which has not delegated it.
std::string cgroup_for_lives(pid_t root);

/// The groups of one supervisor. One thread.
class cgroup_tree {
public:
  /// Below the group this process is in, which belongs to pup when there is
  /// nobody in it but `root` and what that has started.
  explicit cgroup_tree(pid_t root);
  /// Below `folder`; for tests.
  cgroup_tree(pid_t root, std::string folder);
  cgroup_tree(const cgroup_tree&) = delete;
  cgroup_tree& operator=(const cgroup_tree&) = delete;
  /// Removes the groups that are empty.
  ~cgroup_tree();

  struct problem {
    std::string text;  ///< "cgroup limits are not in force: …"
  };

  /// Makes the group of `id`, or finds it, and sets its limits. Its folder.
  std::variant<std::string, problem> prepare(const std::string& id,
                                             const cgroup_limits& limits);

  /// Some process of `id` is gone; others that are known still run there.
  void remove(const std::string& id);
  /// The last known process of `id` is gone: SIGKILL to whatever has hidden
  /// there (another session, another environment). Before Linux 5.14 nothing
  /// but remove().
  void end(const std::string& id);

private:
  std::string delegate(const std::string& controller);
  std::string make_room();
  std::string room_name() const;
  std::string folder_of(const std::string& id) const;

  pid_t root_;
  std::string folder_;
  std::set<std::string> ids_;
};

}  // namespace pup
