// What a configuration says of itself, before anybody judges the rest: enough
// to know which supervisor it is about.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pup {

struct config_head {
  /// The name it gives its supervisor; none: it gives none that is one.
  std::optional<std::string> name;
  /// It has `processes`, which other programs' files of the same name have not.
  bool has_processes = false;
};

/// Pure. Of a text that is no JSON `has_processes` tells whether it looks as if
/// it were about to have them, as a file in the middle of an edit does.
config_head head_of(std::string_view text);

}  // namespace pup
