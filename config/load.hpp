// JSON text -> pup_spec, or every fault of the file at once.
//
// Decoding and validating are one walk, so that no half-checked value exists.
// Comments and trailing commas are accepted. The walk itself touches nothing
// outside its arguments: what it must know about the machine (does this folder
// exist, is there such a program) it asks a `world`, which runtime/ answers for
// real and tests answer from a table.
#pragma once

#include "pup/config/spec.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace pup {

/// One fault, printed by to_string() as
/// `file:line:column: path: problem; remedy`.
struct diagnostic {
  std::string file;
  std::size_t line = 1;    ///< from 1
  std::size_t column = 1;  ///< from 1, in bytes; of the value, or of the key
                           ///< when the key is at fault
  std::string path;     ///< `processes[2].cluster.startPort`; empty: the file
  std::string problem;  ///< what was found and what was expected
  std::string remedy;   ///< what to do; never empty

  bool operator==(const diagnostic&) const = default;
};

std::string to_string(const diagnostic& x);

/// An entry of the user database.
struct user_entry {
  std::string name;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> groups;  ///< all, `gid` among them
  std::string home;
  std::string shell;
};

/// A key that asks for more than the machine gives.
struct attribute_problem {
  std::string key;  ///< "user", "limits.nofile"
  std::string problem;
  std::string remedy;
};

/// A file of variables, or why it cannot be used.
struct env_file_text {
  std::string text;
  std::string problem;   ///< in words; empty: `text` is good
  bool missing = false;  ///< there is no such file
};

/// What load() asks about the machine. Every member must be set. Called on the
/// thread that called load().
struct world {
  /// Value of a variable of the supervisor's environment (%{env:NAME}).
  std::function<std::optional<std::string>(const std::string& name)> variable;
  /// Empty when the process could enter `path`, else the reason in words
  /// ("no such folder", "permission denied").
  std::function<std::string(const std::string& path)> folder_problem;
  /// Empty when `program` (argv[0]) can be executed with PATH plus
  /// `path_suffix` and relative to `cwd`, else the reason in words.
  std::function<std::string(const std::string& program,
                            const std::string& path_suffix,
                            const std::string& cwd)>
      program_problem;
  /// Empty when the machine knows the time zone `name`, else the problem and
  /// the remedy. May be unset: then any name is good.
  std::function<std::pair<std::string, std::string>(const std::string& name)>
      time_zone_problem{};
  /// The user of this name or number; none: there is no such user. This and the
  /// next four may be unset: then nothing is asked and nothing found.
  std::function<std::optional<user_entry>(const std::string& name)> user{};
  /// The same for a group.
  std::function<std::optional<std::uint32_t>(const std::string& name)> group{};
  /// Who the supervisor is.
  std::function<identity()> self{};
  /// What of this the supervisor may not set.
  std::function<std::vector<attribute_problem>(const process_attributes&)>
      attribute_problems{};
  /// Reads a file for a process that runs as `uid`.
  std::function<env_file_text(const std::string& path, std::uint32_t uid)>
      env_file{};
  /// Empty when `pattern` is a regular expression, else what is wrong with it.
  /// May be unset: then any is good.
  std::function<std::string(const std::string& pattern)> pattern_problem{};
  /// Whether a path is a symbolic link, which ".." behind it depends on. May be
  /// unset: then none is.
  std::function<bool(const std::string& path)> is_link{};
  /// Processors usable by this process, at least 1 ("instances": "max").
  std::uint32_t processors = 1;
};

/// Most diagnostics of one load(); the last then says that there are more. No
/// one reads further, and a file of nonsense must not cost a gigabyte.
inline constexpr std::size_t most_diagnostics = 1000;

using load_result = std::variant<pup_spec, std::vector<diagnostic>>;

/// Decodes and validates `text`. `file` is the name shown in diagnostics;
/// `folder` is the absolute folder that relative paths start at. Diagnostics
/// are in the order of the text and never empty. Never throws except
/// std::bad_alloc.
load_result load(std::string_view text, const std::string& file,
                 const std::string& folder, const world& machine);

/// Faults of a spec that was filled by hand (an embedding program): ids,
/// bounds, ports. Empty: none.
std::vector<std::string> check(const pup_spec& spec);

}  // namespace pup
