#include "pup/config/relations.hpp"

#include "pup/config/words.hpp"

#include <algorithm>
#include <functional>
#include <span>
#include <unordered_map>
#include <unordered_set>

namespace pup {

namespace {

// In the order of dependency::condition.
constexpr std::array<std::string_view, 3> conditions{"started", "ready",
                                                     "finished"};
// In the order of strategy.
constexpr std::array<std::string_view, 3> strategies{
    "one_for_one", "one_for_all", "rest_for_one"};
// In the order of group_spec::shutdown.
constexpr std::array<std::string_view, 3> shutdowns{"never", "any", "all"};

// -- reading ------------------------------------------------------------------

group_spec read_group(reader& in, const spot& x) {
  static constexpr std::array<std::string_view, 4> keys{
      "strategy", "restartLimit", "restartPeriodMs", "autoShutdown"};
  group_spec result;
  const auto parts = in.object(x, {"a group", keys, {}},
                               "write an object such as "
                               "{\"strategy\": \"one_for_one\"}");
  if (!parts)
    return result;
  if (const auto word = parts->find("strategy"))
    if (const auto i = in.choice(*word, strategies, "a supervision strategy"))
      result.how = static_cast<strategy>(*i);
  if (const auto limit = parts->find("restartLimit"))
    if (const auto count =
            in.whole(*limit, 0, bounds::restarts, "a number of restarts"))
      result.restart_limit = static_cast<std::uint32_t>(*count);
  if (const auto period = parts->find("restartPeriodMs"))
    result.restart_period =
        in.duration(*period, false, 1).value_or(result.restart_period);
  if (const auto word = parts->find("autoShutdown"))
    if (const auto i =
            in.choice(*word, shutdowns, "a condition for shutting down"))
      result.auto_shutdown = static_cast<group_spec::shutdown>(*i);
  return result;
}

// What cannot be read leaves an empty id, so that indexes stay the file's.
dependency read_dependency(reader& in, const spot& x) {
  static constexpr std::array<std::string_view, 2> keys{"id", "condition"};
  if (x.value.kind() != json_kind::object) {
    // A rule about it must not care how it is written.
    in.alias(x.path + ".id", x);
    return {in.text(x).value_or("")};
  }
  dependency result;
  const auto parts = in.object(x, {"a dependency", keys, {}}, "");
  if (const auto id = in.required(x, *parts, "id", "add the id of a process"))
    result.id = in.text(*id).value_or("");
  if (const auto word = parts->find("condition"))
    if (const auto i = in.choice(*word, conditions, "a condition"))
      result.wanted = static_cast<dependency::condition>(*i);
  return result;
}

// -- rules --------------------------------------------------------------------

/// Depth first over what every process depends on, in the order of the file,
/// without recursion, as a chain may have 4096 links.
class dependency_walk {
public:
  explicit dependency_walk(const pup_spec& spec) : spec_(spec) {
    for (std::size_t i = 0; i < spec.processes.size(); ++i)
      if (!spec.processes[i].id.empty())
        indexes_.emplace(spec.processes[i].id, i);
  }

  std::optional<std::size_t> find(const std::string& id) const {
    const auto i = indexes_.find(id);
    return i == indexes_.end() ? std::nullopt : std::optional{i->second};
  }

  /// Calls `left` with each process once all that it depends on was left, and
  /// `circle` with a way back to a process on the trail, which ends with that
  /// dependency (its index) of the last.
  void walk(const std::function<void(std::size_t)>& left,
            const std::function<void(std::span<const std::size_t>,
                                     std::size_t)>& circle) const {
    std::vector<mark> marks(spec_.processes.size());
    for (std::size_t i = 0; i < marks.size(); ++i)
      walk_from(i, marks, left, circle);
  }

  void walk_from(const std::string& id,
                 const std::function<void(std::size_t)>& left) const {
    std::vector<mark> marks(spec_.processes.size());
    if (const auto i = find(id))
      walk_from(*i, marks, left, {});
  }

private:
  struct mark {
    enum { fresh, on_trail, done } what = fresh;
    std::size_t place = 0;  // on the trail
  };

  void walk_from(std::size_t start, std::vector<mark>& marks,
                 const std::function<void(std::size_t)>& left,
                 const std::function<void(std::span<const std::size_t>,
                                          std::size_t)>& circle) const {
    if (marks[start].what != mark::fresh)
      return;
    std::vector<std::size_t> trail{start};
    std::vector<std::size_t> next{0};
    marks[start].what = mark::on_trail;
    while (!trail.empty()) {
      const auto& ways = spec_.processes[trail.back()].depends_on;
      if (next.back() == ways.size()) {
        marks[trail.back()].what = mark::done;
        if (left)
          left(trail.back());
        trail.pop_back();
        next.pop_back();
        continue;
      }
      const auto way = next.back()++;
      const auto to = find(ways[way].id);
      if (!to || marks[*to].what == mark::done)
        continue;
      if (marks[*to].what == mark::fresh) {
        marks[*to] = {mark::on_trail, trail.size()};
        trail.push_back(*to);
        next.push_back(0);
      } else if (circle) {
        circle(std::span{trail}.subspan(marks[*to].place), way);
      }
    }
  }

  const pup_spec& spec_;
  std::unordered_map<std::string_view, std::size_t> indexes_;
};

std::string dependency_path(std::size_t process, std::size_t index) {
  return element_path(process_path(process) + ".dependsOn", index) + ".id";
}

std::string circle_text(const pup_spec& spec,
                        std::span<const std::size_t> circle) {
  constexpr std::size_t most_shown = 8;
  std::string text = "circular: ";
  for (const auto index : circle.first(std::min(circle.size(), most_shown)))
    text += quote(spec.processes[index].id) + " -> ";
  if (circle.size() > most_shown)
    text += "... -> ";
  return text + quote(spec.processes[circle.front()].id);
}

// Whoever is always restarted never stays finished, unless an exit code says
// so.
bool can_finish(const process_spec& x) {
  const auto& last = x.no_restart_exit_codes;
  return x.restart != restart_policy::always
         || std::any_of(x.success_exit_codes.begin(),
                        x.success_exit_codes.end(), [&](int code) {
                          return std::find(last.begin(), last.end(), code)
                                 != last.end();
                        });
}

void dependency_rules(const pup_spec& spec, std::vector<broken_rule>& into) {
  const dependency_walk graph{spec};
  advisor advice;
  std::vector<std::string_view> ids;
  for (const auto& x : spec.processes)
    if (!x.id.empty())
      ids.push_back(x.id);
  for (std::size_t i = 0; i < spec.processes.size(); ++i) {
    const auto& ways = spec.processes[i].depends_on;
    for (std::size_t j = 0; j < ways.size(); ++j) {
      if (ways[j].id.empty())
        continue;
      const auto to = graph.find(ways[j].id);
      if (!to) {
        const auto near = advice.nearest(ways[j].id, ids);
        take_down(into, {dependency_path(i, j),
                         quote(ways[j].id) + " is not the id of a process",
                         near ? "did you mean " + quote(*near) + '?'
                              : "use the id of an entry of `processes`",
                         {}});
      } else if (ways[j].wanted == dependency::condition::finished
                 && !can_finish(spec.processes[*to])) {
        take_down(into, {dependency_path(i, j),
                         quote(ways[j].id)
                             + " never finishes, as it is always restarted",
                         "give it \"restart\": \"error\" or \"never\"",
                         {process_path(*to) + ".restart",
                          process_path(*to) + ".noRestartExitCodes",
                          process_path(*to) + ".successExitCodes"}});
      }
    }
  }
  graph.walk({}, [&](std::span<const std::size_t> circle, std::size_t way) {
    take_down(into, {dependency_path(circle.back(), way),
                     circle_text(spec, circle),
                     "remove one of these dependencies",
                     {}});
  });
}

// `names` are those of the groups.
void membership_rules(const pup_spec& spec, std::size_t index,
                      std::span<const std::string_view> names, advisor& advice,
                      std::vector<broken_rule>& into) {
  const auto& x = spec.processes[index];
  const auto path = process_path(index);
  const auto group = spec.groups.find(x.in_group);
  if (!x.in_group.empty() && group == spec.groups.end()) {
    const auto near = advice.nearest(x.in_group, names);
    take_down(into, {path + ".supervisor",
                     quote(x.in_group) + " is not the name of a group",
                     near ? "did you mean " + quote(*near) + '?'
                          : "add it to `groups`",
                     {"groups"}});
  }
  if (!x.significant)
    return;
  const auto blame = [&](std::string problem, std::string remedy,
                         std::vector<std::string> basis) {
    take_down(into, {path + ".significant", std::move(problem),
                     std::move(remedy), std::move(basis)});
  };
  if (x.in_group.empty())
    blame("has no effect outside a group", "add `supervisor`",
          {path + ".supervisor"});
  else if (group != spec.groups.end()
           && group->second.auto_shutdown == group_spec::shutdown::never)
    blame("has no effect, as group " + quote(x.in_group)
              + " does not end by itself",
          "give the group an autoShutdown, \"any\" or \"all\"",
          {member_path("groups", x.in_group) + ".autoShutdown"});
  if (x.restart == restart_policy::always)
    blame("needs a process that may end, this one is always restarted",
          "add \"restart\": \"error\" or \"never\"", {path + ".restart"});
}

void group_rules(const pup_spec& spec, std::vector<broken_rule>& into) {
  advisor advice;
  std::vector<std::string_view> names;
  for (const auto& [name, group] : spec.groups)
    names.push_back(name);
  std::unordered_set<std::string_view> used;
  std::unordered_set<std::string_view> may_end;
  for (std::size_t i = 0; i < spec.processes.size(); ++i) {
    const auto& x = spec.processes[i];
    membership_rules(spec, i, names, advice, into);
    used.insert(x.in_group);
    if (x.significant)
      may_end.insert(x.in_group);
  }
  for (const auto& [name, group] : spec.groups) {
    const auto path = member_path("groups", name);
    if (used.count(name) == 0)
      take_down(into, {path,
                       "has no members",
                       "name it as `supervisor` of a process, or remove it",
                       {"processes"}});
    else if (group.auto_shutdown != group_spec::shutdown::never
             && may_end.count(name) == 0)
      take_down(into, {path + ".autoShutdown",
                       "has no effect without a significant member",
                       "add \"significant\": true to one of its processes",
                       {"processes"}});
  }
}

}  // namespace

void read_top_relations(reader& in, const fields& parts, pup_spec& into) {
  if (const auto x = parts.find("groups"))
    if (const auto groups = in.object(*x, "write an object of groups"))
      for (const auto& [name, entry] : groups->all())
        into.groups.emplace(name, read_group(in, entry));
  if (const auto x = parts.find("startConcurrency"))
    into.start_concurrency = static_cast<std::uint32_t>(
        in.whole(*x, 1, bounds::processes, "a number of processes")
            .value_or(0));
}

void read_relations(reader& in, const fields& parts, process_spec& into) {
  if (const auto x = parts.find("dependsOn"))
    if (const auto elements =
            in.array(*x, "write an array of ids", bounds::processes))
      for (const auto& element : *elements)
        into.depends_on.push_back(read_dependency(in, element));
  if (const auto x = parts.find("supervisor")) {
    const auto name = in.text(*x);
    if (name && name->empty())
      in.blame(*x, "is empty", "name a group or remove it");
    into.in_group = name.value_or("");
    if (into.in_group.empty())
      in.spoil("groups");  // who is in which is not known
  }
  if (const auto x = parts.find("significant")) {
    const auto value = in.boolean(*x);
    into.significant = value.value_or(false);
    if (!value)
      in.spoil("groups");
  }
}

void relation_rules(const pup_spec& spec, std::vector<broken_rule>& into) {
  dependency_rules(spec, into);
  group_rules(spec, into);
}

std::vector<std::size_t> order_of_start(const pup_spec& spec) {
  std::vector<std::size_t> result;
  dependency_walk{spec}.walk([&](std::size_t i) { result.push_back(i); }, {});
  return result;
}

std::vector<std::string> dependencies_of(const pup_spec& spec,
                                         const std::string& id) {
  std::vector<std::string> result;
  dependency_walk{spec}.walk_from(id, [&](std::size_t i) {
    if (spec.processes[i].id != id)
      result.push_back(spec.processes[i].id);
  });
  return result;
}

std::vector<std::string> dependents_of(const pup_spec& spec,
                                       const std::string& id) {
  std::vector<std::string> result;
  for (const auto i : order_of_start(spec))
    for (const auto& x : spec.processes[i].depends_on)
      if (x.id == id) {
        result.push_back(spec.processes[i].id);
        break;
      }
  return result;
}

}  // namespace pup
