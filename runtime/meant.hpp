// Which supervisor a command line means: choose() of place.hpp, asked about
// this machine, and its answer in words.
#pragma once

#include "pup/runtime/cli.hpp"
#include "pup/runtime/place.hpp"
#include "pup/runtime/unwatched.hpp"

#include <string>
#include <vector>

namespace pup {

/// What the command line says about it. Reads the configuration that it names
/// by --config, else the one in the working folder.
wanted_supervisor wanted_by(const command& what);

/// "a (/srv/a/pup.json), b"
std::string list(const std::vector<running>& all);

/// Why there is none, or not one, in a line for people, with the remedy; and
/// what the command ends with. `x` is what choose() has made of `wanted`, and
/// no `running`; `all` are those that run.
struct not_one {
  std::string text;
  exit_code code = exit_code::failed;
};
not_one why_not_one(const choice& x, const command& what,
                    const wanted_supervisor& wanted,
                    const std::vector<running>& all);

/// Tells on standard error, a line for each, what goes on unwatched of the
/// supervisors that may be meant, when none of them runs.
void tell_unwatched(const std::vector<left_place>& all);
void tell_unwatched(const wanted_supervisor& wanted);

}  // namespace pup
