// Keys that the configuration knows but pup does not act on yet.
//
// Their values are judged like all others, so that a file is not found wrong
// later on; a good value is refused with the advice to remove it.
#pragma once

#include "pup/config/reader.hpp"

#include <array>
#include <string_view>

namespace pup {

/// Of the top level.
inline constexpr std::array<std::string_view, 1> later_top_keys{"api"};

void refuse_later_top_keys(reader& in, const fields& x);

}  // namespace pup
