// Processes as /proc tells of them: whose children they are, and for which life
// they were started.
//
// Everything is a snapshot; a pid that has ended meanwhile reads as nothing.
// Small: the guardian uses it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace pup {

/// The variable that every process of a life inherits: SCOPE#NUMBER, where the
/// scope is of one guardian only.
inline constexpr std::string_view life_variable = "PUP_LIFE=";

std::string life_entry(std::string_view scope, std::uint64_t number);

/// The number in the value of that variable; 0: of another scope, or none.
std::uint64_t number_in(std::string_view value, std::string_view scope);

/// Children of all threads of a process, zombies among them.
std::vector<pid_t> children_of(pid_t pid);

/// 0: there is none, or no such process.
pid_t parent_of(pid_t pid);

/// Those, their children, and so on.
std::vector<pid_t> descendants_of(pid_t pid);

/// Value of life_variable in the environment the program was started with;
/// empty: it has none, or may not be read.
std::string life_of(pid_t pid);

/// When it was started, in clock ticks since the boot; 0: there is none. With
/// the pid it names a process for good.
std::uint64_t start_ticks(pid_t pid);

/// "pid 4711 (sleep)"
std::string describe_process(pid_t pid);

/// All of the machine's that can be seen.
std::vector<pid_t> all_processes();

}  // namespace pup
