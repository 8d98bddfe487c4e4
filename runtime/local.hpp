// What the command line does without a running supervisor: writing and reading
// files, telling about itself, becoming a service.
#pragma once

#include "pup/runtime/cli.hpp"

namespace pup {

/// Carries out init, append, remove, import, completion, enable-service,
/// disable-service, validate, help and version. Prints as run_client() does.
exit_code run_locally(const command& what);

/// True for these.
bool is_local(command_kind kind);

/// The configuration that is meant where none is named: pup.json, pup.jsonc or
/// config.json in this folder. Empty: there is none.
std::string default_config();

}  // namespace pup
