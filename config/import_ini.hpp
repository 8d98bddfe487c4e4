// INI files as Python's configparser reads them for supervisord. Used by
// config/import*.cpp only.
//
//   # or ; as first character that is no blank: a comment
//   # or ; behind a blank: a comment up to the end of the line
//   a line that is indented further than its key: goes on with the value
//   key = value, key: value; keys in any case; of equal keys the last counts
//   [DEFAULT]: what the other sections have unless they say otherwise
#pragma once

#include "pup/config/import.hpp"

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace pup::importing {

struct ini_section {
  std::string name;  ///< "program:web"
  /// Keys in lower case.
  std::map<std::string, std::string, std::less<>> entries{};

  /// Null: there is none.
  const std::string* find(std::string_view key) const;
};

class ini {
public:
  /// In the order of their first appearance.
  std::vector<ini_section> sections;

  /// Adds what `text` says to what there is. `here`: the folder that %(here)s
  /// means in it; empty: it stays.
  std::optional<import_fault> read(std::string_view text,
                                   const std::string& here);

  /// Gives each section what [DEFAULT] says, once all is read.
  void spread_defaults();

  const ini_section* find(std::string_view name) const;

  /// Makes one where there is none.
  ini_section& section(const std::string& name);

private:
  std::map<std::string, std::size_t, std::less<>> places_;
};

}  // namespace pup::importing
