// Fuzzes files of variables: any text gives variables that a process can have,
// which come back when they are written down again, or a fault with a line of
// the text and nothing else of it. Built and run by tests/fuzz/run.
#include "pup/config/env_file.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace {

void require(bool holds, std::string_view what) {
  if (holds)
    return;
  std::fprintf(stderr, "%.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

using variables = std::map<std::string, std::string>;

std::string written(const variables& all) {
  std::string result;
  for (auto& [name, value] : all) {
    result += "export " + name + "=\"";
    for (auto c : value) {
      if (c == '"' || c == '\\')
        result += '\\';
      result += c;
    }
    result += "\"\n";
  }
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  std::string_view text{reinterpret_cast<const char*>(data), size};
  auto result = pup::read_env_file(text);
  if (auto* fault = std::get_if<pup::env_file_fault>(&result)) {
    require(!fault->problem.empty() && !fault->remedy.empty(), "says nothing");
    const auto lines = 1 + std::count(text.begin(), text.end(), '\n');
    require(fault->line >= 1 && fault->line <= static_cast<std::size_t>(lines),
            "no line of the text");
    return 0;
  }
  auto& all = std::get<variables>(result);
  for (auto& [name, value] : all) {
    require(!name.empty() && name.find('=') == std::string::npos, "a bad name");
    require(value.find('\0') == std::string::npos, "a NUL");
  }
  auto again = pup::read_env_file(written(all));
  require(std::get_if<variables>(&again) != nullptr
              && std::get<variables>(again) == all,
          "does not come back");
  return 0;
}
