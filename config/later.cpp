#include "pup/config/later.hpp"

#include "pup/config/words.hpp"

#include <algorithm>
#include <unordered_map>

namespace pup {

namespace {

constexpr std::array<std::string_view, 3> io_classes{"realtime", "best-effort",
                                                     "idle"};
constexpr std::array<std::string_view, 2> proxy_versions{"v1", "v2"};

void refuse(reader& in, const spot& x, std::string_view key) {
  in.blame_key(x, quote(key) + " is not supported yet", "remove it");
}

// Runs `judge` on the member and refuses the key when that found no fault.
template <class F>
void refuse_after(reader& in, const fields& x, std::string_view key, F judge) {
  auto member = x.find(key);
  if (!member)
    return;
  auto before = in.faults();
  judge(*member);
  if (in.faults() == before)
    refuse(in, *member, key);
}

void judge_non_empty(reader& in, const spot& x, std::string_view remedy) {
  auto text = in.text(x);
  if (text && text->empty())
    in.blame(x, "is empty", std::string{remedy});
}

void judge_texts(reader& in, const spot& x) {
  auto elements = in.array(x, "write an array of strings");
  if (!elements)
    return;
  for (auto& element : *elements)
    judge_non_empty(in, element, "remove it");
}

bool is_digits(std::string_view text) {
  return !text.empty()
         && text.find_first_not_of("0123456789") == std::string_view::npos;
}

void judge_memory(reader& in, const spot& x) {
  auto text = in.text(x);
  if (!text)
    return;
  std::string_view digits = *text;
  constexpr std::string_view units = "KMGT";
  if (!digits.empty() && units.find(digits.back()) != std::string_view::npos)
    digits.remove_suffix(1);
  if (!is_digits(digits) || digits.size() > 15 || digits.starts_with('0'))
    in.blame(x, describe(x.value) + " is not an amount of memory",
             "use a number with K, M, G or T, such as \"300M\"");
}

void judge_umask(reader& in, const spot& x) {
  auto text = in.text(x);
  if (text
      && (text->empty() || text->size() > 4
          || text->find_first_not_of("01234567") != std::string::npos))
    in.blame(x, describe(x.value) + " is not a umask",
             "use octal digits, such as \"022\"");
}

void judge_account(reader& in, const spot& x) {
  if (x.value.kind() == json_kind::number)
    in.whole(x, 0, 4'294'967'294, "an account", " or a name");
  else
    judge_non_empty(in, x, "use a name or a number");
}

void judge_limits(reader& in, const spot& x) {
  auto limits = in.object(x, "write an object such as {\"nofile\": 1024}");
  if (!limits)
    return;
  for (auto& [name, limit] : limits->all())
    if (limit.value.kind() != json_kind::string
        || limit.value.string() != "unlimited")
      in.whole(limit, 0, 9'007'199'254'740'992, "a limit", " or \"unlimited\"");
}

void judge_command(reader& in, const spot& x) {
  if (x.value.kind() == json_kind::array)
    judge_texts(in, x);
  else
    judge_non_empty(in, x, "write a command");
}

void judge_hooks(reader& in, const spot& x) {
  static constexpr std::array<std::string_view, 4> hook_keys{
      "preStart", "postStart", "preStop", "postStop"};
  static constexpr std::array<std::string_view, 2> command_keys{"cmd",
                                                                "timeoutMs"};
  auto hooks = in.object(x, {"`hooks`", hook_keys, {}},
                         "write an object with " + enumerate(hook_keys));
  if (!hooks)
    return;
  for (auto& [name, hook] : hooks->all()) {
    if (hook.value.kind() != json_kind::object) {
      judge_command(in, hook);
      continue;
    }
    auto parts = in.object(hook, {"a hook", command_keys, {}}, "");
    if (auto cmd = in.required(hook, *parts, "cmd", "add a command"))
      judge_command(in, *cmd);
    if (auto timeout = parts->find("timeoutMs"))
      in.duration(*timeout, false, 1);
  }
}

void judge_health_check(reader& in, const spot& x) {
  static constexpr std::array<std::string_view, 6> keys{
      "type",      "path",           "intervalMs",
      "timeoutMs", "unhealthyAfter", "healthyAfter"};
  static constexpr std::array<std::string_view, 2> types{"tcp", "http"};
  auto check = in.object(x, {"a health check", keys, {}},
                         "write an object such as {\"type\": \"tcp\"}");
  if (!check)
    return;
  if (auto type = in.required(x, *check, "type", "add \"tcp\" or \"http\""))
    in.choice(*type, types, "a type of health check");
  if (auto path = check->find("path"))
    in.text(*path);
  for (auto key : {"intervalMs", "timeoutMs"})
    if (auto time = check->find(key))
      in.duration(*time, false, 1);
  for (auto key : {"unhealthyAfter", "healthyAfter"})
    if (auto count = check->find(key))
      in.whole(*count, 1, 1000, "a number of checks");
}

void judge_groups(reader& in, const spot& x) {
  static constexpr std::array<std::string_view, 4> keys{
      "strategy", "restartLimit", "restartPeriodMs", "autoShutdown"};
  static constexpr std::array<std::string_view, 3> strategies{
      "one_for_one", "one_for_all", "rest_for_one"};
  static constexpr std::array<std::string_view, 2> shutdowns{"any", "all"};
  auto groups = in.object(x, "write an object of groups");
  if (!groups)
    return;
  for (auto& [name, entry] : groups->all()) {
    auto group = in.object(entry, {"a group", keys, {}},
                           "write an object such as "
                           "{\"strategy\": \"one_for_one\"}");
    if (!group)
      continue;
    if (auto strategy = group->find("strategy"))
      in.choice(*strategy, strategies, "a supervision strategy");
    if (auto limit = group->find("restartLimit"))
      in.whole(*limit, 0, bounds::restarts, "a number of restarts");
    if (auto period = group->find("restartPeriodMs"))
      in.duration(*period, false, 1);
    if (auto shutdown = group->find("autoShutdown"))
      in.choice(*shutdown, shutdowns, "a condition for shutting down");
  }
}

void judge_object(reader& in, const spot& x) {
  in.object(x, "write an object");
}

}  // namespace

void refuse_later_top_keys(reader& in, const fields& x) {
  refuse_after(in, x, "groups", [&in](auto& y) { judge_groups(in, y); });
  for (auto key : {"logger", "watcher", "api"})
    refuse_after(in, x, key, [&in](auto& y) { judge_object(in, y); });
  refuse_after(in, x, "startConcurrency", [&in](auto& y) {
    in.whole(y, 1, bounds::processes, "a number of processes");
  });
}

void refuse_later_process_keys(reader& in, const fields& x) {
  for (auto key : {"cron", "terminate", "pidFile", "supervisor"})
    refuse_after(in, x, key,
                 [&in](auto& y) { judge_non_empty(in, y, "remove it"); });
  for (auto key : {"overrun", "significant", "notify"})
    refuse_after(in, x, key, [&in](auto& y) { in.boolean(y); });
  for (auto key : {"user", "group"})
    refuse_after(in, x, key, [&in](auto& y) { judge_account(in, y); });
  refuse_after(in, x, "timeout", [&in](auto& y) { in.duration(y, true, 1); });
  refuse_after(in, x, "maxAgeMs", [&in](auto& y) { in.duration(y, false, 1); });
  refuse_after(in, x, "watch", [&in](auto& y) { judge_texts(in, y); });
  refuse_after(in, x, "logger", [&in](auto& y) { judge_object(in, y); });
  refuse_after(in, x, "hooks", [&in](auto& y) { judge_hooks(in, y); });
  refuse_after(in, x, "nice",
               [&in](auto& y) { in.whole(y, -20, 19, "a nice value"); });
  refuse_after(in, x, "oomScoreAdjust",
               [&in](auto& y) { in.whole(y, -1000, 1000, "an adjustment"); });
  refuse_after(in, x, "ioClass",
               [&in](auto& y) { in.choice(y, io_classes, "an I/O class"); });
  refuse_after(in, x, "maxMemory", [&in](auto& y) { judge_memory(in, y); });
  refuse_after(in, x, "umask", [&in](auto& y) { judge_umask(in, y); });
  refuse_after(in, x, "limits", [&in](auto& y) { judge_limits(in, y); });
}

void refuse_later_cluster_keys(reader& in, const fields& x) {
  refuse_after(in, x, "healthCheck",
               [&in](auto& y) { judge_health_check(in, y); });
  refuse_after(in, x, "proxyProtocol", [&in](auto& y) {
    in.choice(y, proxy_versions, "a version of the PROXY protocol");
  });
}

// -- dependsOn ----------------------------------------------------------------

void dependency_graph::add(reader& in, std::size_t index,
                           const spot& depends_on) {
  static constexpr std::array<std::string_view, 2> keys{"id", "condition"};
  static constexpr std::array<std::string_view, 3> conditions{
      "started", "ready", "finished"};
  auto before = in.faults();
  auto elements = in.array(depends_on, "write an array of ids");
  if (!elements)
    return;
  for (auto& element : *elements) {
    auto target = std::optional{element};
    if (element.value.kind() == json_kind::object) {
      auto parts = in.object(element, {"a dependency", keys, {}}, "");
      target = in.required(element, *parts, "id", "add the id of a process");
      if (auto condition = parts->find("condition"))
        in.choice(*condition, conditions, "a condition");
    }
    if (!target)
      continue;
    if (auto id = in.text(*target))
      edges_.push_back({index, *id, *target});
  }
  if (in.faults() == before)
    refuse(in, depends_on, "dependsOn");
}

void dependency_graph::judge(reader& in, const pup_spec& spec) const {
  if (edges_.empty())
    return;
  std::unordered_map<std::string_view, std::size_t> indexes;
  std::vector<std::string_view> ids;
  for (std::size_t i = 0; i < spec.processes.size(); ++i) {
    std::string_view id = spec.processes[i].id;
    if (id.empty())
      continue;
    indexes.emplace(id, i);
    ids.push_back(id);
  }
  std::vector<std::vector<arrow>> arrows(spec.processes.size());
  for (auto& x : edges_) {
    auto target = indexes.find(x.to);
    if (target != indexes.end()) {
      arrows[x.from].push_back({target->second, &x});
      continue;
    }
    auto near = nearest(x.to, ids);
    in.blame(x.where, quote(x.to) + " is not the id of a process",
             near ? "did you mean " + quote(*near) + '?'
                  : "use the id of an entry of `processes`");
  }
  find_circles(in, spec, arrows);
}

// Depth first without recursion, as a chain may have 4096 links. An arrow back
// to a process on the trail closes a circle.
void dependency_graph::find_circles(
    reader& in, const pup_spec& spec,
    const std::vector<std::vector<arrow>>& arrows) {
  enum class mark : std::uint8_t { fresh, on_trail, done };
  std::vector<mark> marks(arrows.size(), mark::fresh);
  std::vector<std::size_t> next_arrow(arrows.size(), 0);
  for (std::size_t start = 0; start < arrows.size(); ++start) {
    if (marks[start] != mark::fresh)
      continue;
    std::vector<std::size_t> trail{start};
    marks[start] = mark::on_trail;
    while (!trail.empty()) {
      auto here = trail.back();
      if (next_arrow[here] == arrows[here].size()) {
        marks[here] = mark::done;
        trail.pop_back();
        continue;
      }
      auto& way = arrows[here][next_arrow[here]++];
      if (marks[way.to] == mark::fresh) {
        marks[way.to] = mark::on_trail;
        trail.push_back(way.to);
      } else if (marks[way.to] == mark::on_trail) {
        auto first = std::find(trail.begin(), trail.end(), way.to);
        blame_circle(in, spec, {first, trail.end()}, *way.why);
      }
    }
  }
}

void dependency_graph::blame_circle(reader& in, const pup_spec& spec,
                                    std::span<const std::size_t> circle,
                                    const edge& last) {
  constexpr std::size_t most_shown = 8;
  std::string text = "circular: ";
  for (auto index : circle.first(std::min(circle.size(), most_shown)))
    text += quote(spec.processes[index].id) + " -> ";
  if (circle.size() > most_shown)
    text += "... -> ";
  in.blame(last.where, text + quote(last.to),
           "remove one of these dependencies");
}

}  // namespace pup
