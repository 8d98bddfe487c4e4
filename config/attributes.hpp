// Keys about what a process is given besides its command: who it is, what it
// may use, files of variables, a file with its pid.
//
// Names of users and groups become numbers here, so that a name that does not
// exist is a fault of the configuration and not of each launch.
#pragma once

#include "pup/config/reader.hpp"
#include "pup/config/resources.hpp"
#include "pup/config/rules.hpp"
#include "pup/config/spec.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pup {

inline constexpr std::array<std::string_view, 17> attribute_keys{
    "user",
    "group",
    "supplementaryGroups",
    "umask",
    "limits",
    "nice",
    "oomScoreAdjust",
    "ioClass",
    "ioPriority",
    "noNewPrivileges",
    "memoryMax",
    "cpuMax",
    "pidsMax",
    "maxMemory",
    "pidFile",
    "envFile",
    "inheritEnv"};

/// What a process of another user inherits unless it is told.
inherited_names names_for_other_users();

struct attribute_reader {
  reader& in;
  const world& machine;
  /// A text with %{...} judged and %{env:NAME} replaced.
  std::function<std::optional<std::string>(const spot&)> template_text;
  /// Such a text as a path from the root.
  std::function<std::string(const std::string&)> absolute;

  /// Reads these keys of a process into `into`, whose `env` is known already.
  /// Adds HOME, USER, LOGNAME and SHELL of the user, and what the environment
  /// files say, where `env` does not.
  void read(const fields& parts, process_spec& into);

private:
  void account(const fields& parts, process_spec& into);
  void supplementary(const spot& x, std::vector<std::uint32_t>& into);
  std::optional<std::string> word(const spot& x);
  std::optional<std::uint32_t> group(const spot& x);
  void limits(const spot& x, process_attributes& into);
  std::optional<std::uint64_t> limit(const spot& x, const resource_name& what);
  void scheduling(const fields& parts, process_attributes& into);
  void umask(const spot& x, process_attributes& into);
  void inherited(const fields& parts, process_spec& into);
  void memory(const fields& parts, std::string_view key, std::uint64_t& into);
  void cgroup(const fields& parts, cgroup_limits& into);
  void env_files(const spot& x, process_spec& into);
  void env_file(const spot& x, std::map<std::string, std::string>& into,
                std::uint32_t uid);
  void ask_machine(const fields& parts, const process_attributes& x);
};

/// Number of the group `name`, which stands at `x`: an entry of the machine, or
/// a number itself. Blames `x` where it is neither.
std::optional<std::uint32_t> group_number(reader& in, const world& machine,
                                          const spot& x,
                                          const std::string& name);

/// What must hold of them in the process at `path`.
std::vector<broken_rule> broken_attribute_rules(const process_spec& x,
                                                const std::string& path);

}  // namespace pup
