#include "pup/config/life.hpp"

#include "pup/config/cron.hpp"
#include "pup/config/words.hpp"

namespace pup {

namespace {

constexpr std::string_view command_example =
    "write [\"program\", \"argument\"] or a shell command";

constexpr std::array<std::string_view, 4> ready_keys{"type", "path", "pattern",
                                                     "cmd"};

// What belongs to a kind of readiness besides its type.
std::string_view key_of(ready_condition x) {
  switch (x) {
    case ready_condition::http:
      return "path";
    case ready_condition::exec:
      return "cmd";
    case ready_condition::log:
      return "pattern";
    default:
      return {};
  }
}

}  // namespace

void life_reader::read(const fields& parts, process_spec& into) {
  if (into.cluster && into.cluster->start_port != 0)
    into.ready = ready_condition::port;
  if (auto ready = parts.find("ready"))
    readiness(*ready, into);
  if (auto notify = parts.find("notify")) {
    auto wanted = in.boolean(*notify);
    if (wanted == true && parts.find("ready")
        && into.ready != ready_condition::notify)
      in.blame(*notify, "contradicts ready.type", "remove one of them");
    else if (wanted == true)
      into.ready = ready_condition::notify;
  }
  if (auto x = parts.find("hooks"))
    hooks(*x, into.hooks);
  schedule(parts, into);
  watch(parts, into);
}

bool life_reader::command(const spot& x, std::vector<std::string>& argv,
                          bool& shell) {
  if (x.value.kind() == json_kind::string) {
    shell = true;
    argv = {"/bin/sh", "-c", std::string{x.value.string()}};
    return true;
  }
  if (x.value.kind() != json_kind::array) {
    in.blame(x, describe(x.value) + " is not a command",
             std::string{command_example});
    return false;
  }
  auto arguments = in.array(x, std::string{command_example});
  // A bad one keeps its place, so that the others keep theirs.
  for (auto& argument : *arguments)
    argv.push_back(template_text(argument).value_or("?"));
  return true;
}

void life_reader::readiness(const spot& x, process_spec& into) {
  static constexpr std::array<std::string_view, 7> types{
      "port", "http", "notify", "fd", "log", "exec", "spawn"};
  static constexpr std::array<ready_condition, 7> conditions{
      ready_condition::port, ready_condition::http, ready_condition::notify,
      ready_condition::fd,   ready_condition::log,  ready_condition::exec,
      ready_condition::spawn};
  auto parts =
      in.object(x, {"`ready`", ready_keys, {}}, "write {\"type\": \"port\"}");
  if (!parts)
    return;
  auto type = in.required(x, *parts, "type", "add \"port\" or \"spawn\"");
  if (!type)
    return;
  auto word = in.choice(*type, types, "a kind of readiness");
  if (!word)
    return;
  into.ready = conditions[*word];
  auto own = key_of(into.ready);
  for (auto& [key, part] : parts->all())
    if (key != "type" && key != own)
      in.blame_key(part, "has no effect with type " + quote(types[*word], '"'),
                   "remove it");
  if (into.ready == ready_condition::http)
    if (auto path = parts->find("path"))
      into.ready_path = in.text(*path).value_or(into.ready_path);
  if (into.ready == ready_condition::exec)
    if (auto cmd = in.required(x, *parts, "cmd", "add a command"))
      command(*cmd, into.ready_command.argv, into.ready_command.shell);
  if (into.ready == ready_condition::log)
    if (auto pattern =
            in.required(x, *parts, "pattern", "add a regular expression"))
      ready_pattern(*pattern, into.ready_pattern);
}

void life_reader::ready_pattern(const spot& x, std::string& into) {
  into = in.text(x).value_or("");
  if (!in.is_sound(x.path) || into.empty())
    return;
  auto problem = pattern_problem(into);
  if (!problem.empty())
    in.blame(x, "is no regular expression: " + problem,
             "write one as RE2 understands it, such as \"[Ll]istening\"");
}

void life_reader::hooks(const spot& x, hook_set& into) {
  static constexpr std::array<std::string_view, 4> hook_keys{
      "preStart", "postStart", "preStop", "postStop"};
  auto parts = in.object(x, {"`hooks`", hook_keys, {}},
                         "write an object with " + enumerate(hook_keys));
  if (!parts)
    return;
  command_spec* const targets[] = {&into.pre_start, &into.post_start,
                                   &into.pre_stop, &into.post_stop};
  for (std::size_t i = 0; i < hook_keys.size(); ++i)
    if (auto entry = parts->find(hook_keys[i]))
      hook(*entry, *targets[i]);
}

void life_reader::hook(const spot& x, command_spec& into) {
  static constexpr std::array<std::string_view, 2> keys{"cmd", "timeoutMs"};
  if (x.value.kind() != json_kind::object) {
    command(x, into.argv, into.shell);
    return;
  }
  auto parts = in.object(x, {"a hook", keys, {}}, "");
  if (auto cmd = in.required(x, *parts, "cmd", "add a command"))
    command(*cmd, into.argv, into.shell);
  if (auto timeout = parts->find("timeoutMs"))
    into.timeout = in.duration(*timeout, false, 1).value_or(into.timeout);
}

void life_reader::cron(const spot& x, std::string& into) {
  auto text = in.text(x);
  if (!text)
    return;
  auto parsed = cron_schedule::parse(*text);
  if (auto fault = std::get_if<cron_fault>(&parsed))
    in.blame(x,
             (fault->field.empty() ? "" : fault->field + ": ") + fault->problem,
             fault->remedy);
  else
    into = *text;
}

void life_reader::watch(const fields& parts, process_spec& into) {
  auto x = parts.find("watch");
  if (!x)
    return;
  auto paths = in.array(*x, "write an array of paths, such as [\"src\"]");
  if (!paths)
    return;
  for (auto& path : *paths) {
    if (path.value.kind() == json_kind::string && path.value.string().empty())
      in.blame(path, "is empty", "name a file or a folder, or remove it");
    else if (auto text = absolute_path(path))
      into.watch.push_back(*text);
  }
  // It begins with the first change.
  if (!into.watch.empty() && !parts.find("autostart"))
    into.autostart = false;
}

void life_reader::schedule(const fields& parts, process_spec& into) {
  if (auto x = parts.find("cron")) {
    cron(*x, into.cron);
    // A job: it begins by the clock and has ended when it ends.
    if (!parts.find("autostart"))
      into.autostart = false;
    if (!parts.find("restart"))
      into.restart = restart_policy::never;
  }
  if (auto x = parts.find("terminate"))
    cron(*x, into.terminate_cron);
  if (auto x = parts.find("overrun")) {
    into.overrun = in.boolean(*x).value_or(false);
    if (into.overrun && !parts.find("cron"))
      in.blame_key(*x, "has no effect without a schedule",
                   "add `cron` or remove it");
  }
  auto zone = parts.find("timeZone");
  if (!zone)
    return;
  into.time_zone = in.text(*zone).value_or("");
  if (!in.is_sound(zone->path))
    return;
  if (into.time_zone.empty())
    return in.blame(*zone, "is empty", "remove it to use the machine's");
  if (!parts.find("cron") && !parts.find("terminate"))
    return in.blame_key(*zone, "has no effect without a schedule",
                        "add `cron` or `terminate`, or remove it");
  auto [problem, remedy] = time_zone_problem(into.time_zone);
  if (!problem.empty())
    in.blame(*zone, problem, remedy);
}

}  // namespace pup
