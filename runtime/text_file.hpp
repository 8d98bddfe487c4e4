// Small text files, read and replaced as a whole.
//
// Files are made and replaced by the rules of trusted_path.hpp. read_text()
// follows any link: it is for /proc, folders of pup's own, and what a person
// names on the command line.
#pragma once

#include "pup/runtime/trusted_path.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <variant>

namespace pup {

/// At most `most` bytes, else EFBIG. Faults: "open", "read".
std::variant<std::string, os_fault> read_text(const std::string& path,
                                              std::size_t most);

/// A file that must not exist yet. Faults: "open" (EEXIST), "write".
std::optional<os_fault> create_text(const std::string& path,
                                    const std::string& text,
                                    const path_rule& rule = {});

/// Replaces a file at once: a reader sees the old text or the new, also after a
/// power failure. Follows a symbolic link; keeps mode and, where permitted, the
/// owner. Faults: "open", "write", "rename".
std::optional<os_fault> replace_text(const std::string& path,
                                     const std::string& text,
                                     const path_rule& rule = {});

}  // namespace pup
