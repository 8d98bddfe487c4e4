// The real Deno, where there is one.
#pragma once

#include "system.hpp"

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace pup::test {

/// $PUP_DENO, the one in PATH, or what tests/get-deno.sh installed.
inline std::string find_deno(const sandbox& box) {
  std::vector<std::string> places;
  if (const auto* given = std::getenv("PUP_DENO"))
    places.emplace_back(given);
  auto in_path = run(box.program({"sh", "-c", "command -v deno"})).out;
  places.push_back(in_path.substr(0, in_path.find('\n')));
  std::error_code ignored;
  for (const auto& entry :
       std::filesystem::directory_iterator{PUP_DENO_FOLDER "/@deno", ignored})
    places.push_back(entry.path() / "deno");
  places.emplace_back(PUP_DENO_FOLDER "/.bin/deno");
  for (const auto& x : places)
    if (!x.empty() && std::filesystem::exists(x)
        && run(box.program({x, "--version"})).code == 0)
      return x;
  return {};
}

}  // namespace pup::test
