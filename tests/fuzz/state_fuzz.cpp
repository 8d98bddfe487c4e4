// Fuzzes the state file: any bytes give a reason, or a state that is spelled as
// they are. Built and run by tests/fuzz/run.
#include "pup/runtime/state_file.hpp"

#include <cstdio>
#include <cstdlib>

namespace {

void require(bool holds, const char* what) {
  if (holds)
    return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void judge(std::string_view text) {
  const auto result = pup::decode(text);
  if (const auto* why = std::get_if<std::string>(&result)) {
    require(!why->empty(), "says nothing");
    return;
  }
  const auto& state = std::get<pup::saved_state>(result);
  require(pup::encode(state) == text, "two spellings of one state");
  for (const auto& [key, x] : state.processes)
    require(x.pid > 1, "a pid that must not be signalled");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  const std::string text{reinterpret_cast<const char*>(data), size};
  judge(text);
  // Nobody finds a good check by chance.
  judge(pup::with_head(text));
  return 0;
}
