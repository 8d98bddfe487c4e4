// Patterns of paths, as shells and editors have them:
//
//   *        any characters within one name       ?    one of them
//   **       as a whole name: any number of folders, none as well
//   [a-z]    one of these characters; [!a-z] one that is not
//   {a,b}    the one or the other                 \    the next as it stands
//
// One without a slash is meant for names at any depth; one with a slash begins
// at the folder that the path is seen from. Bytes are compared, case counts.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace pup {

class path_glob {
public:
  /// Most alternatives of all braces together.
  static constexpr std::size_t most_alternatives = 256;

  /// Or what is wrong with it, in words.
  static std::variant<path_glob, std::string> parse(std::string_view pattern);

  /// `path`: relative, names separated by single slashes.
  [[nodiscard]] bool matches(std::string_view path) const;

  /// Whether it matches the path or a folder on the way to it. "x/**" covers
  /// the folder x itself as well.
  [[nodiscard]] bool covers(std::string_view path) const;

private:
  using names = std::vector<std::string>;
  std::vector<names> alternatives_;
};

}  // namespace pup
