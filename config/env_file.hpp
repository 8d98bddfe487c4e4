// Files of variables: NAME=VALUE lines, as shells, systemd and dotenv libraries
// write them.
//
//   # a comment, also with ; as its first character; empty lines are skipped
//   NAME=value               to the end of the line, without blanks around it;
//                            a # behind a blank begins a comment
//   export NAME=value        the same
//   NAME='value'             literal, may hold line ends
//   NAME="value"             \n \r \t \\ \" \$ \` mean what they do in a shell
//                            (a \ before any other character stays), may hold
//                            line ends; a \ at the end of a line joins two
//
// Behind a closing quote only blanks and a comment follow. Nothing is replaced
// in values: $NAME and %{...} stay as they are. A name is a letter or _ and
// then letters, digits and _. The last of equal names counts. Values are
// secrets: no fault shows any part of one.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <variant>

namespace pup {

/// What is wrong with a file of variables.
struct env_file_fault {
  std::size_t line = 1;  ///< from 1; of the beginning of an entry
  std::string problem;
  std::string remedy;
};

/// The variables of `text`, which may begin with a byte order mark and end its
/// lines with CR LF. Pure.
std::variant<std::map<std::string, std::string>, env_file_fault> read_env_file(
    std::string_view text);

}  // namespace pup
