// The default name of earlier versions, "pup" wherever the configuration stood,
// and what goes on under today's.
#pragma once

#include "pup/runtime/place.hpp"

#include <optional>
#include <string>

namespace pup {

/// To be called before a supervisor of this file, which gives it no name, opens
/// its place for the first time. Refuses when one of the former default name
/// runs that was started from the same file. Else moves the state folder of
/// such a one, if it has left one and today's name has none yet; from then on
/// it is today's.
std::optional<place_error> take_over_former_name(const config_file& file,
                                                 const environment& env);

/// Whether the state under `folder` was left by a supervisor of this file.
/// `unknown`: what holds for a folder that does not tell.
bool is_state_of(const config_file& file, const std::string& folder,
                 bool unknown);

}  // namespace pup
