#include "pup/config/attributes.hpp"

#include "pup/config/env_file.hpp"
#include "pup/config/expand.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <unordered_set>

namespace pup {

using namespace std::string_view_literals;

namespace {

// The last two are errors of chown() and setuid().
constexpr std::int64_t most_account = 4'294'967'293;
// A limit is a number of JSON, which is exact up to here.
constexpr std::int64_t most_limit = 9'007'199'254'740'992;
// The kernel's bound of kernel.pid_max.
constexpr std::int64_t most_processes = 4'194'304;
constexpr std::int64_t most_cpu_percent = 1024 * 100;
constexpr std::uint32_t most_umask = 0777;

constexpr std::string_view memory_remedy =
    "use a number with K, M, G or T, such as \"300M\", 1M at least";

std::optional<std::uint32_t> to_account(std::string_view text) {
  std::int64_t number = -1;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || stop != end || number < 0
      || number > most_account)
    return std::nullopt;
  return static_cast<std::uint32_t>(number);
}

bool contains_all(const std::vector<std::uint32_t>& all,
                  const std::vector<std::uint32_t>& some) {
  return std::all_of(some.begin(), some.end(), [&](auto x) {
    return std::find(all.begin(), all.end(), x) != all.end();
  });
}

}  // namespace

std::optional<std::uint32_t> group_number(reader& in, const world& machine,
                                          const spot& x,
                                          const std::string& name) {
  auto found = machine.group ? machine.group(name) : std::nullopt;
  if (!found)
    found = to_account(name);
  if (!found && machine.group)
    in.blame(x, quote(name) + " is no group of this machine",
             "create it or name another");
  return found;
}

// Enough to find programs and to speak the user's language. What else root has
// in its environment, such as keys and sockets of agents, is root's.
inherited_names names_for_other_users() {
  return std::vector<std::string>{"PATH", "LANG", "LC_*", "TZ", "TERM"};
}

void attribute_reader::read(const fields& parts, process_spec& into) {
  auto& x = into.attributes;
  account(parts, into);
  inherited(parts, into);
  if (auto limit_spot = parts.find("limits"))
    limits(*limit_spot, x);
  scheduling(parts, x);
  if (auto mask = parts.find("umask"))
    umask(*mask, x);
  if (auto flag = parts.find("noNewPrivileges"))
    x.no_new_privileges = in.boolean(*flag).value_or(false);
  cgroup(parts, x.cgroup);
  memory(parts, "maxMemory", into.max_memory);
  if (auto file = parts.find("pidFile")) {
    auto text = template_text(*file);
    if (text && text->empty())
      in.blame(*file, "is empty", "name a file or remove it");
    else if (text)
      into.pid_file = absolute(*text);
  }
  if (auto files = parts.find("envFile"))
    env_files(*files, into);
  ask_machine(parts, x);
}

// -- who ----------------------------------------------------------------------

// A name, or a number with or without quotes.
std::optional<std::string> attribute_reader::word(const spot& x) {
  if (x.value.kind() == json_kind::number) {
    auto number = in.whole(x, 0, most_account, "an account", " or a name");
    return number ? std::optional{std::to_string(*number)} : std::nullopt;
  }
  auto text = in.text(x);
  if (text && text->empty()) {
    in.blame(x, "is empty", "use a name or a number");
    return std::nullopt;
  }
  return text;
}

std::optional<std::uint32_t> attribute_reader::group(const spot& x) {
  auto name = word(x);
  return name ? group_number(in, machine, x, *name) : std::nullopt;
}

void attribute_reader::account(const fields& parts, process_spec& into) {
  auto user_spot = parts.find("user");
  auto group_spot = parts.find("group");
  auto more = parts.find("supplementaryGroups");
  if (!user_spot && !group_spot && !more)
    return;
  const auto own = machine.self ? machine.self() : identity{};
  auto who = own;
  bool complete = machine.self != nullptr;
  if (user_spot) {
    auto name = word(*user_spot);
    if (!name)
      return;
    auto entry = machine.user ? machine.user(*name) : std::nullopt;
    auto number = to_account(*name);
    if (!entry && !number) {
      if (machine.user)
        in.blame(*user_spot, quote(*name) + " is no user of this machine",
                 "create it or name another");
      return;
    }
    if (!entry && !group_spot)
      return in.blame(*user_spot,
                      "user " + *name + " has no entry on this machine",
                      "add `group`, which tells the group it runs as");
    who.name = *name;
    who.uid = entry ? entry->uid : *number;
    who.gid = entry ? entry->gid : 0;
    who.groups = entry ? entry->groups : std::vector<std::uint32_t>{};
    if (entry)
      for (auto& [key, value] :
           {std::pair{"HOME", &entry->home}, std::pair{"USER", &entry->name},
            std::pair{"LOGNAME", &entry->name},
            std::pair{"SHELL", &entry->shell}})
        into.env.emplace(key, escape_placeholders(*value));
  }
  if (group_spot) {
    auto gid = group(*group_spot);
    complete = complete && gid;
    who.gid = gid.value_or(0);
  }
  std::vector<std::uint32_t> added;
  if (more)
    supplementary(*more, added);
  // Who is not root can change nothing: what there is has to do.
  const auto is_own = who.uid == own.uid && contains_all(own.groups, added)
                      && (who.gid == own.gid || !group_spot);
  if (!complete || (is_own && own.uid != 0))
    return;
  std::unordered_set<std::uint32_t> known{who.groups.begin(), who.groups.end()};
  for (auto gid : added)
    if (known.insert(gid).second)
      who.groups.push_back(gid);
  into.attributes.run_as = std::move(who);
}

void attribute_reader::supplementary(const spot& x,
                                     std::vector<std::uint32_t>& into) {
  auto elements =
      in.array(x, "write an array of groups", bounds::supplementary_groups);
  if (!elements)
    return;
  // The machine is asked once about each.
  std::unordered_set<std::string_view> asked;
  for (auto& element : *elements)
    if (asked.insert(element.value.raw()).second)
      if (auto gid = group(element))
        into.push_back(*gid);
}

// -- how much -----------------------------------------------------------------

void attribute_reader::limits(const spot& x, process_attributes& into) {
  static constexpr std::array<std::string_view, 2> keys{"soft", "hard"};
  std::array<std::string_view, resource_names.size()> names{};
  std::transform(resource_names.begin(), resource_names.end(), names.begin(),
                 [](auto& y) { return y.name; });
  auto members = in.object(x, {"`limits`", names, {}},
                           "write an object such as {\"nofile\": 1024}");
  if (!members)
    return;
  for (auto& [key, value] : members->all()) {
    auto& what =
        *std::find_if(resource_names.begin(), resource_names.end(),
                      [name = key](auto& y) { return y.name == name; });
    resource_limit result;
    result.resource = what.number;
    if (value.value.kind() == json_kind::object) {
      auto both = in.object(value, {"a limit", keys, {}}, "");
      auto soft = in.required(value, *both, "soft", "add a number");
      auto hard = in.required(value, *both, "hard", "add a number");
      auto low = soft ? limit(*soft, what) : std::nullopt;
      auto high = hard ? limit(*hard, what) : std::nullopt;
      if (!low || !high)
        continue;
      result.soft = *low;
      result.hard = *high;
    } else {
      auto number = limit(value, what);
      if (!number)
        continue;
      result.soft = result.hard = *number;
    }
    into.limits.push_back(result);
  }
}

std::optional<std::uint64_t> attribute_reader::limit(
    const spot& x, const resource_name& what) {
  if (x.value.kind() == json_kind::string) {
    if (x.value.string() == "unlimited")
      return resource_limit::unlimited;
    auto bytes = what.bytes ? bytes_of(x.value.string()) : std::nullopt;
    if (bytes && *bytes <= std::uint64_t{most_limit})
      return bytes;
  }
  auto number = in.whole(x, 0, most_limit, "a limit",
                         what.bytes ? ", one such as \"64M\" or \"unlimited\""
                                    : " or \"unlimited\"");
  return number ? std::optional{static_cast<std::uint64_t>(*number)}
                : std::nullopt;
}

void attribute_reader::scheduling(const fields& parts,
                                  process_attributes& into) {
  // In the order of io_class.
  static constexpr std::array<std::string_view, 3> classes{
      "realtime", "best-effort", "idle"};
  if (auto x = parts.find("nice"))
    if (auto number = in.whole(*x, -20, 19, "a nice value"))
      into.nice = static_cast<int>(*number);
  if (auto x = parts.find("oomScoreAdjust"))
    if (auto number = in.whole(*x, -1000, 1000, "an adjustment"))
      into.oom_score_adjust = static_cast<int>(*number);
  auto kind = parts.find("ioClass");
  auto level = parts.find("ioPriority");
  std::optional<std::size_t> word;
  if (kind)
    word = in.choice(*kind, classes, "an I/O class");
  if (word)
    into.io = io_priority{static_cast<io_class>(*word + 1)};
  if (!level)
    return;
  auto number = in.whole(*level, 0, 7, "an I/O priority");
  if (!number)
    return;
  if (!kind)
    into.io.emplace();
  else if (word && into.io->kind == io_class::idle)
    in.blame_key(*level, "has no effect with ioClass \"idle\"", "remove it");
  if (into.io)
    into.io->level = static_cast<std::uint8_t>(*number);
}

void attribute_reader::umask(const spot& x, process_attributes& into) {
  auto text = in.text(x);
  if (!text)
    return;
  std::uint32_t mask = 0;
  const auto* end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, mask, 8);
  if (error != std::errc{} || stop != end || mask > most_umask)
    in.blame(x, describe(x.value) + " is not a umask",
             "use octal digits, such as \"022\"");
  else
    into.umask = mask;
}

void attribute_reader::inherited(const fields& parts, process_spec& into) {
  const auto own = machine.self ? machine.self().uid : 0;
  const auto& who = into.attributes.run_as;
  if (who && who->uid != own)
    into.inherit_env = names_for_other_users();
  auto x = parts.find("inheritEnv");
  if (!x)
    return;
  if (x->value.kind() == json_kind::boolean) {
    into.inherit_env.reset();
    if (!in.boolean(*x).value_or(true))
      into.inherit_env.emplace();
    return;
  }
  auto elements =
      in.array(*x, "write true, false or a list such as [\"LANG\", \"LC_*\"]");
  if (!elements)
    return;
  auto& names = into.inherit_env.emplace();
  for (auto& element : *elements)
    if (auto name = in.text(element))
      names.push_back(*std::move(name));
}

void attribute_reader::memory(const fields& parts, std::string_view key,
                              std::uint64_t& into) {
  auto x = parts.find(key);
  if (!x)
    return;
  auto text = in.text(*x);
  if (!text)
    return;
  auto bytes = bytes_of(*text);
  if (!bytes || *bytes < bounds::least_memory_bytes
      || *bytes > std::uint64_t{most_limit})
    in.blame(*x, describe(x->value) + " is not an amount of memory",
             std::string{memory_remedy});
  else
    into = *bytes;
}

// "cpuMax": 1.5 processors, or "150%".
void attribute_reader::cgroup(const fields& parts, cgroup_limits& into) {
  memory(parts, "memoryMax", into.memory_bytes);
  if (auto x = parts.find("pidsMax"))
    into.processes = static_cast<std::uint32_t>(
        in.whole(*x, 1, most_processes, "a number of processes").value_or(0));
  auto x = parts.find("cpuMax");
  if (!x)
    return;
  auto is_text = x->value.kind() == json_kind::string;
  std::string_view text = is_text ? x->value.string() : x->value.raw();
  if (is_text && text.ends_with('%'))
    text.remove_suffix(1);
  else if (is_text)
    text = {};
  double number = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  auto percent = is_text ? number : number * 100;
  if (error != std::errc{} || stop != end || !(percent >= 1)
      || percent > static_cast<double>(most_cpu_percent))
    in.blame(*x, describe(x->value) + " is not a share of processors",
             "use a number of processors such as 1.5, or \"150%\"");
  else
    into.cpu_percent = static_cast<std::uint32_t>(std::lround(percent));
}

// -- files of variables -------------------------------------------------------

void attribute_reader::env_files(const spot& x, process_spec& into) {
  constexpr auto example = "write \".env\" or [\".env\", \"-local.env\"]";
  std::vector<spot> files{x};
  if (x.value.kind() != json_kind::string) {
    auto elements = in.array(x, example, bounds::env_files);
    if (!elements)
      return;
    files = *std::move(elements);
  }
  const auto uid = into.attributes.run_as ? into.attributes.run_as->uid
                   : machine.self         ? machine.self().uid
                                          : 0;
  std::map<std::string, std::string> all;
  for (auto& file : files)
    env_file(file, all, uid);
  for (auto& [name, value] : all)
    into.env.emplace(name, escape_placeholders(value));
}

void attribute_reader::env_file(const spot& x,
                                std::map<std::string, std::string>& into,
                                std::uint32_t uid) {
  auto text = template_text(x);
  if (!text)
    return;
  const auto optional = x.value.string().starts_with('-');
  if (optional)
    text->erase(0, 1);
  if (text->empty())
    return in.blame(x, "is empty", "name a file or remove it");
  if (find_placeholders(*text).per_instance())
    return in.blame(x, "differs from instance to instance",
                    "use %{env:NAME} only: the file is read once");
  if (!machine.env_file)
    return;
  const auto file = expand(absolute(*text), 0, 0, {});
  auto found = machine.env_file(file, uid);
  if (found.missing && optional)
    return;
  if (!found.problem.empty())
    return in.blame(x, quote(file) + ": " + found.problem,
                    found.missing
                        ? "create it, or put a - in front: it may be missing"
                        : "correct that or name another file");
  auto variables = read_env_file(found.text);
  if (auto* fault = std::get_if<env_file_fault>(&variables))
    return in.blame(x,
                    quote(file) + " line " + std::to_string(fault->line) + ": "
                        + fault->problem,
                    fault->remedy);
  for (auto& [name, value] :
       std::get<std::map<std::string, std::string>>(variables))
    into[name] = std::move(value);
}

// -- the machine --------------------------------------------------------------

void attribute_reader::ask_machine(const fields& parts,
                                   const process_attributes& x) {
  if (!machine.attribute_problems || x == process_attributes{})
    return;
  for (auto& problem : machine.attribute_problems(x)) {
    auto dot = problem.key.find('.');
    auto where = parts.find(std::string_view{problem.key}.substr(0, dot));
    if (where && dot != std::string::npos)
      for (auto& member : where->value.members())
        if (member.key.string() == problem.key.substr(dot + 1)) {
          where =
              spot{member.value, member_path(where->path, member.key.string()),
                   member.key.offset()};
          break;
        }
    // Who it is comes from several keys.
    for (auto key : {"user", "group", "supplementaryGroups"})
      if (!where)
        where = parts.find(key);
    if (where && in.is_sound(where->path))
      in.blame(*where, std::move(problem.problem), std::move(problem.remedy));
  }
}

// -- rules --------------------------------------------------------------------

std::vector<broken_rule> broken_attribute_rules(const process_spec& x,
                                                const std::string& path) {
  std::vector<broken_rule> result;
  auto blame = [&](std::string_view key, std::string problem,
                   std::string remedy) {
    result.push_back(
        {member_path(path, key), std::move(problem), std::move(remedy), {}});
  };
  auto range = [&](std::string_view key, std::int64_t number,
                   std::int64_t least, std::int64_t most) {
    if (number < least || number > most)
      blame(key, std::to_string(number) + " is out of range",
            "use " + std::to_string(least) + " to " + std::to_string(most));
  };
  auto& a = x.attributes;
  range("nice", a.nice.value_or(0), -20, 19);
  range("oomScoreAdjust", a.oom_score_adjust.value_or(0), -1000, 1000);
  range("umask", a.umask.value_or(0), 0, most_umask);
  if (a.io)
    range("ioPriority", a.io->level, 0, 7);
  range("pidsMax", a.cgroup.processes, 0, most_processes);
  range("cpuMax", a.cgroup.cpu_percent, 0, most_cpu_percent);
  for (auto i = a.limits.begin(); i != a.limits.end(); ++i) {
    auto name = name_of_resource(i->resource);
    auto key = member_path(path + ".limits", name);
    if (name == "?")
      blame("limits", std::to_string(i->resource) + " is no resource",
            "use one of resource_names");
    else if (std::any_of(a.limits.begin(), i,
                         [&](auto& y) { return y.resource == i->resource; }))
      result.push_back({key, "is given twice", "keep one of them", {}});
    else if (i->soft > i->hard)
      result.push_back({key,
                        "the soft limit is above the hard one",
                        "raise `hard` or lower `soft`",
                        {}});
  }
  for (auto& [key, bytes] : {std::pair{"maxMemory", x.max_memory},
                             std::pair{"memoryMax", a.cgroup.memory_bytes}})
    if (bytes != 0 && bytes < bounds::least_memory_bytes)
      blame(key, std::to_string(bytes) + " is not an amount of memory",
            "use 1048576 or more");
  for (std::size_t i = 0; x.inherit_env && i < x.inherit_env->size(); ++i) {
    std::string_view name = (*x.inherit_env)[i];
    const auto what = quote((*x.inherit_env)[i]);
    if (name.ends_with('*'))
      name.remove_suffix(1);
    if (name.empty() || name.find_first_of("=*\0"sv) != std::string_view::npos)
      result.push_back({element_path(path + ".inheritEnv", i),
                        what + " is not the name of a variable",
                        "use a name such as LANG, or LC_* for all that begin "
                        "so; true for all",
                        {}});
  }
  if (x.pid_file.empty())
    return result;
  if (x.pid_file.find('\0') != std::string::npos)
    blame("pidFile", "holds a NUL character, which no path can",
          "remove \\u0000");
  else if (!x.pid_file.starts_with('/'))
    blame("pidFile", quote(x.pid_file) + " is not absolute", "start it with /");
  if (x.cluster && !find_placeholders(x.pid_file).per_instance())
    blame("pidFile", "all instances would write the same file",
          "put %{id} or %{index} into its name");
  return result;
}

}  // namespace pup
