#include "pup/config/watcher.hpp"

#include <array>

namespace pup {

namespace {

constexpr std::array<std::string_view, 4> watcher_keys{"interval", "exts",
                                                       "match", "skip"};

void read_texts(reader& in, const fields& parts, std::string_view key,
                const std::string& example, std::vector<std::string>& into) {
  auto x = parts.find(key);
  if (!x)
    return;
  auto elements = in.array(*x, "write an array such as [" + example + ']',
                           bounds::patterns);
  if (!elements)
    return;
  into.clear();
  // A bad one keeps its place, so that the others keep theirs.
  for (auto& element : *elements)
    into.push_back(in.text(element).value_or("?"));
}

}  // namespace

void read_watcher(reader& in, const spot& x, watcher_spec& into) {
  auto parts = in.object(x, {"`watcher`", watcher_keys, {}},
                         "write an object such as {\"exts\": [\"js\"]}");
  if (!parts)
    return;
  if (auto interval = parts->find("interval"))
    into.interval = in.duration(*interval, false, 1).value_or(into.interval);
  read_texts(in, *parts, "exts", R"("ts", "js")", into.exts);
  for (auto& ending : into.exts)
    if (ending.starts_with('.'))
      ending.erase(0, 1);
  read_texts(in, *parts, "match", R"("src/**/*.ts")", into.match);
  read_texts(in, *parts, "skip", R"(".git", "dist")", into.skip);
}

}  // namespace pup
