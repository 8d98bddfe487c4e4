// pup.json of Hexagon Pup: the same keys, other defaults.
#include "pup/config/import_draft.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <array>
#include <span>

namespace pup::importing {

namespace {

// Kept to the letter. `env`, `cluster` and the rest mean the same.
constexpr std::array<std::string_view, 19> same_keys{
    "cmd",          "cwd",
    "env",          "path",
    "autostart",    "restart",
    "restartLimit", "restartDelayMs",
    "cron",         "terminate",
    "timeout",      "overrun",
    "watch",        "pidFile",
    "logger",       "terminateGracePeriod",
    "cluster",      "terminateTimeout",
    "$schema"};

constexpr std::array<std::string_view, 7> logger_keys{
    "console",       "stdout",   "stderr",          "colors",
    "decorateFiles", "decorate", "internalLogHours"};
constexpr std::array<std::string_view, 4> watcher_keys{"interval", "exts",
                                                       "match", "skip"};
// What counts for Hexagon Pup where it is not told.
constexpr std::string_view watched_endings =
    R"(["ts", "tsx", "js", "jsx", "json"])";

// Raw JSON on one line, without comments.
std::string one_line(const json_value& x) {
  switch (x.kind()) {
    case json_kind::string:
      return json_of(x.string());
    case json_kind::array: {
      std::string result = "[";
      for (const auto& element : x.elements())
        result += (result.size() > 1 ? ", " : "") + one_line(element);
      return result + ']';
    }
    case json_kind::object: {
      members result;
      for (const auto& member : x.members())
        result.emplace_back(member.key.string(), one_line(member.value));
      return json_of(result);
    }
    default:
      return std::string{x.raw()};
  }
}

/// The members of an object of the file's that mean the same here.
members taken_over(draft& into, const std::string& key, const json_value& x,
                   std::span<const std::string_view> same) {
  members result;
  if (x.kind() != json_kind::object) {
    into.note(key, "is no object and was left out");
    return result;
  }
  for (const auto& member : x.members()) {
    const auto name = member.key.string();
    if (std::find(same.begin(), same.end(), name) != same.end())
      result.emplace_back(std::string{name}, one_line(member.value));
    else
      into.no_counterpart(key, name);
  }
  return result;
}

bool has(const members& x, std::string_view key) {
  return std::any_of(x.begin(), x.end(),
                     [&](const auto& y) { return y.first == key; });
}

/// `given`: what the file says of it. Nobody needs it where nothing is watched.
void watcher(draft& into, members given) {
  const auto watches =
      std::any_of(into.processes.begin(), into.processes.end(),
                  [](const auto& x) { return has(x.keys, "watch"); });
  if (watches && !has(given, "exts")) {
    given.emplace_back("exts", std::string{watched_endings});
    into.note("watcher.exts",
              "became what Pup watches unless told; remove it, and changes of "
              "all files count");
  }
  if (!given.empty())
    into.top.emplace_back("watcher", json_of(given));
}

void process(draft& into, const json_value& x, const std::string& origin) {
  draft_process result;
  result.origin = origin;
  if (x.kind() != json_kind::object)
    return into.note(origin, "is no object and was left out");
  bool starts = false;
  bool restarts = false;
  for (const auto& member : x.members()) {
    const auto key = member.key.string();
    starts = starts || key == "autostart" || key == "cron" || key == "watch";
    restarts = restarts || key == "restart";
    result.is_cluster = result.is_cluster || key == "cluster";
    if (key == "id" && member.value.kind() == json_kind::string)
      result.id = member.value.string();
    else if (key == "worker" && member.value.kind() == json_kind::array) {
      std::vector<std::string> words{"deno", "run", "-A"};
      for (const auto& word : member.value.elements())
        if (word.kind() == json_kind::string)
          words.emplace_back(word.string());
      result.set("cmd", json_of(words));
      into.note(origin + ".worker", "became a process of its own: deno run -A");
    } else if (std::find(same_keys.begin(), same_keys.end(), key)
               != same_keys.end())
      result.set(std::string{key}, one_line(member.value));
    else
      into.no_counterpart(origin, key);
  }
  // What Hexagon Pup does without these keys, and pup does not.
  if (!starts) {
    result.set("autostart", "false");
    into.note(origin,
              "has no start policy, so Pup never starts it by itself; "
              "remove \"autostart\": false to start it");
  }
  if (!restarts)
    result.set("restart", json_of("never"));
  into.processes.push_back(std::move(result));
}

}  // namespace

std::variant<imported, import_fault> import_pup(const json_value& root,
                                                const std::string& file) {
  draft result;
  members watched;
  result.kind = "Hexagon Pup";
  for (const auto& member : root.members()) {
    const auto key = member.key.string();
    if (key == "name" && member.value.kind() == json_kind::string) {
      result.name = member.value.string();
    } else if (key == "processes") {
      if (member.value.kind() != json_kind::array)
        return import_fault{1, "`processes` is not an array",
                            "correct it first"};
      for (std::size_t i = 0; const auto& x : member.value.elements())
        process(result, x, element_path("processes", i++));
    } else if (key == "logger") {
      if (auto same =
              taken_over(result, std::string{key}, member.value, logger_keys);
          !same.empty())
        result.top.emplace_back(std::string{key}, json_of(same));
    } else if (key == "watcher") {
      watched =
          taken_over(result, std::string{key}, member.value, watcher_keys);
    } else if (key != "$schema") {
      result.no_counterpart("", key);
    }
  }
  if (result.processes.empty())
    return import_fault{1, "has no processes", "name a file with some"};
  watcher(result, std::move(watched));
  return std::move(result).finish(file);
}

}  // namespace pup::importing
