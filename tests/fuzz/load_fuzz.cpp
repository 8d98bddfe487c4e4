// Fuzzes load(): any text gives a spec that check() accepts, or faults that lie
// inside the text, in its order. Built and run by
// tests/fuzz/run.
#include "pup/config/load.hpp"

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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  pup::world machine;
  machine.variable = [](const std::string& name) {
    return name == "A" ? std::optional<std::string>{"100%"} : std::nullopt;
  };
  machine.folder_problem = [](const std::string& path) -> std::string {
    require(path.starts_with('/'), "asked for a relative folder");
    return {};
  };
  machine.program_problem = [](auto&...) { return std::string{}; };
  std::string_view text{reinterpret_cast<const char*>(data), size};
  auto result = pup::load(text, "f", "/srv", machine);
  if (auto spec = std::get_if<pup::pup_spec>(&result)) {
    for (auto& x : pup::check(*spec))
      require(false, x);
    return 0;
  }
  auto& faults = std::get<1>(result);
  require(!faults.empty(), "neither a spec nor a fault");
  auto lines =
      static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  std::pair<std::size_t, std::size_t> last{1, 1};
  for (auto& x : faults) {
    std::pair here{x.line, x.column};
    require(here >= last, "not in the order of the text");
    require(x.line <= lines && x.column <= size + 1, "outside of the text");
    require(!x.problem.empty() && !x.remedy.empty(), "says nothing");
    require(to_string(x).find('\n') == std::string::npos, "not one line");
    last = here;
  }
  return 0;
}
