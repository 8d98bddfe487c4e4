// How a supervisor comes to have a guardian: the program pup-guardian, beside
// pup or in ../libexec/pup, is started in its place and starts it in turn.
#pragma once

#include "pup/runtime/guardian_link.hpp"

#include <memory>
#include <string>
#include <variant>

#include <sys/types.h>

namespace pup {

/// The path of this program; what is on the disk by it may be newer.
std::string own_program();

/// The path of the guardian; empty: it is not installed.
std::string guardian_program();

/// Whether a process is one, by its name.
bool is_guardian(pid_t pid);

/// Becomes the guardian that runs this program with these arguments. Returns
/// when this process has one already, or why there can be none (in words; then
/// pup can do without).
std::string enter_guardian(char** argv);

/// The guardian of this process; null: it has none. A text: it cannot be
/// talked to. Call it once, before there are other threads: it takes a variable
/// out of the environment.
std::variant<std::shared_ptr<guardian_link>, std::string> meet_guardian();

}  // namespace pup
