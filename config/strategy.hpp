// Who is restarted with an ended child, in Erlang's words.
#pragma once

#include <cstdint>

namespace pup {

enum class strategy : std::uint8_t {
  one_for_one,   ///< only the ended child
  one_for_all,   ///< all children
  rest_for_one,  ///< the ended one and those started after it
};

}  // namespace pup
