// Paths as people write them.
//
// A link is followed when a path is used, not when it is written down: what
// stands in `current/`, a link to the newest release, is looked for in the
// newest release each time. So a path is made absolute without resolving links,
// and a ".." behind a link stays where it is, as only the kernel knows where it
// leads.
#pragma once

#include <functional>
#include <string>

namespace pup {

/// Whether this is a symbolic link.
using link_question = std::function<bool(const std::string& path)>;

/// `path` seen from `folder`, an absolute path: without ".", empty components
/// and a last slash; without ".." but behind a link. Calls `is_link` for what a
/// ".." would take away; unset: nothing is one.
std::string absolute_path(const std::string& path, const std::string& folder,
                          const link_question& is_link);

/// The folder that a file stands in; empty for a relative name alone.
std::string folder_of(const std::string& file);

}  // namespace pup
