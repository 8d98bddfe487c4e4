#include "pup/config/load.hpp"

namespace pup {

std::string to_string(const diagnostic& x) {
  auto result = x.file + ':' + std::to_string(x.line) + ':'
                + std::to_string(x.column) + ": ";
  if (!x.path.empty())
    result += x.path + ": ";
  return result + x.problem + "; " + x.remedy;
}

} // namespace pup
