// Users and groups of this machine, who this process is, and what it may set on
// another.
#pragma once

#include "pup/config/load.hpp"

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

struct stat;

namespace pup {

/// By name, else by number. With all groups that getgrouplist(3) knows.
std::optional<user_entry> find_user(const std::string& name);
std::optional<gid_t> find_group(const std::string& name);

/// Effective user and group, and the supplementary groups.
identity own_identity();

/// What of `x` the kernel would refuse this process. Not all can be known: the
/// launch tells the rest.
std::vector<attribute_problem> attribute_problems(const process_attributes& x);

/// Why root does not do what this file says: it, or a group of people, could be
/// told by somebody else. Files of root and of `uid` are trusted. Empty: it is.
std::string distrust(const struct stat& file, uid_t uid);

/// Reads a file of variables for a process of user `uid`, its path walked by
/// the rules of trusted_path.hpp; when this is root, only a file that
/// distrust() has nothing against.
env_file_text read_variables(const std::string& path, uid_t uid);

}  // namespace pup
