// A group (cgroup, version 2) for a life alone. It needs no controller: what is
// in it belongs to the life, whatever it has done to be forgotten, unless it
// may write there.
//
// A life has one when its processes are another user's, who may not: of pup's
// own user they could leave it. It is born into it (CLONE_INTO_CGROUP), which
// takes about as long as the folder, 0.06 ms together; to be moved takes 12 ms
// when nobody was moved before, 0.35 ms else, a quarter of a start.
//
// Where none can be made everything goes on without. Small: the guardian uses
// it. Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace pup {

/// Whether this kernel lets a process begin in a group; a filter of system
/// calls may not either.
bool can_begin_in_cgroup();

/// Makes the group of a life in the folder `within`. Its folder; empty: there
/// is none to be had. `scope` as for life_entry().
std::string make_life_cgroup(const std::string& within, std::string_view scope,
                             std::uint64_t number);

/// Processes in it, but for groups below.
std::vector<pid_t> members_of_cgroup(const std::string& folder);

/// SIGKILL to all in it, and below from Linux 5.14 on; what is frozen goes on
/// for that.
void kill_cgroup(const std::string& folder);

/// With the groups that were made below it. False: somebody is in it still.
bool remove_cgroup(const std::string& folder);

/// Ends all that is in the groups of lives of this scope, whose guardian is no
/// more. Waits for that, until `deadline` at most.
void end_life_cgroups(const std::string& within, std::string_view scope,
                      std::chrono::steady_clock::time_point deadline);

/// Removes what guardians have left in `within` that are no more, and which is
/// empty: somebody else may be ending the others.
void remove_former_life_cgroups(const std::string& within);

}  // namespace pup
