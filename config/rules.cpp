#include "pup/config/rules.hpp"

#include "pup/config/expand.hpp"
#include "pup/config/words.hpp"

#include <algorithm>
#include <map>
#include <unordered_map>

namespace pup {

namespace {

using ip_address = std::array<std::uint8_t, 16>;

constexpr std::uint32_t last_port = 65535;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_id_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c)
         || c == '@' || c == '.' || c == '_' || c == '-';
}

bool holds_nul(std::string_view text) {
  return text.find('\0') != std::string_view::npos;
}

// -- numeric addresses --------------------------------------------------------

// Dotted decimal without leading zeros, which some readers take for octal.
bool parse_ipv4(std::string_view text, std::uint8_t* into) {
  for (int part = 0; part < 4; ++part) {
    if (part > 0) {
      if (!text.starts_with('.'))
        return false;
      text.remove_prefix(1);
    }
    std::size_t size = 0;
    unsigned value = 0;
    while (size < text.size() && size < 4 && is_digit(text[size]))
      value = value * 10 + static_cast<unsigned>(text[size++] - '0');
    if (size == 0 || value > 255 || (size > 1 && text[0] == '0'))
      return false;
    into[part] = static_cast<std::uint8_t>(value);
    text.remove_prefix(size);
  }
  return text.empty();
}

std::optional<unsigned> hex_value(char c) {
  if (is_digit(c))
    return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f')
    return static_cast<unsigned>(c - 'a') + 10;
  if (c >= 'A' && c <= 'F')
    return static_cast<unsigned>(c - 'A') + 10;
  return std::nullopt;
}

// Groups without `::`, separated by single colons; appends their bytes.
bool parse_groups(std::string_view text, bool may_end_in_ipv4,
                  std::vector<std::uint8_t>& into) {
  while (!text.empty()) {
    auto end = std::min(text.find(':'), text.size());
    auto group = text.substr(0, end);
    if (may_end_in_ipv4 && end == text.size()
        && group.find('.') != std::string_view::npos) {
      std::uint8_t bytes[4];
      if (!parse_ipv4(group, bytes))
        return false;
      into.insert(into.end(), bytes, bytes + 4);
      return true;
    }
    if (group.empty() || group.size() > 4)
      return false;
    unsigned value = 0;
    for (auto c : group) {
      auto digit = hex_value(c);
      if (!digit)
        return false;
      value = value * 16 + *digit;
    }
    into.push_back(static_cast<std::uint8_t>(value >> 8u));
    into.push_back(static_cast<std::uint8_t>(value & 0xFFu));
    if (end + 1 == text.size())
      return false;  // ends in a colon
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return true;
}

// RFC 4291 section 2.2, without zones.
std::optional<ip_address> parse_ipv6(std::string_view text) {
  std::vector<std::uint8_t> head;
  std::vector<std::uint8_t> tail;
  auto gap = text.find("::");
  bool elided = gap != std::string_view::npos;
  if (!parse_groups(text.substr(0, gap), !elided, head))
    return std::nullopt;
  if (elided && !parse_groups(text.substr(gap + 2), true, tail))
    return std::nullopt;
  auto size = head.size() + tail.size();
  if (elided ? size > 14 : size != 16)
    return std::nullopt;
  ip_address result{};
  std::copy(head.begin(), head.end(), result.begin());
  std::copy_backward(tail.begin(), tail.end(), result.end());
  return result;
}

// IPv4 as its IPv4-mapped IPv6 address.
std::optional<ip_address> parse_address(std::string_view text) {
  ip_address mapped{};
  mapped[10] = mapped[11] = 0xFF;
  if (parse_ipv4(text, mapped.data() + 12))
    return mapped;
  return parse_ipv6(text);
}

bool is_any_address(const ip_address& x) {
  return std::all_of(x.begin(), x.end(), [](auto byte) { return byte == 0; })
         || x == parse_address("0.0.0.0");
}

// Whether both want the same address; empty and the any addresses want all.
bool same_host(const std::string& a, const std::string& b) {
  auto x = parse_address(a);
  auto y = parse_address(b);
  return !x || !y || is_any_address(*x) || is_any_address(*y) || *x == *y;
}

// -- one value ----------------------------------------------------------------

class rule_walk {
public:
  explicit rule_walk(const pup_spec& spec) : spec_(spec) {}

  std::vector<broken_rule> run();

private:
  void blame(std::string path, std::string problem, std::string remedy,
             std::vector<std::string> basis = {}) {
    result_.push_back({std::move(path), std::move(problem), std::move(remedy),
                       std::move(basis)});
  }

  static std::string process_path(std::size_t index) {
    return element_path("processes", index);
  }

  void word_rules(const std::string& path, const std::string& word);
  void process_rules(const process_spec& x, const std::string& path);
  void command_rules(const process_spec& x, const std::string& path);
  void folder_rules(const process_spec& x, const std::string& path);
  void env_rules(const process_spec& x, const std::string& path);
  void placeholder_rules(const process_spec& x, const std::string& path,
                         const std::string& text, const std::string& text_path);
  void exit_code_rules(const std::vector<int>& codes, const std::string& path);
  void restart_rules(const process_spec& x, const std::string& path);
  void cluster_rules(const cluster_spec& x, const std::string& path);
  template <class Spec, class Table>
  void duration_rules(const Spec& x, const Table& table,
                      const std::string& path);
  void id_rules();
  void instance_id_rules(std::size_t index);
  void port_rules();
  void range_rules(std::size_t index);
  void common_port_rules(std::size_t index);

  struct port_range {
    std::uint32_t last;
    std::size_t process;
  };

  const pup_spec& spec_;
  std::vector<broken_rule> result_;
  std::unordered_map<std::string, std::size_t> ids_;
  std::map<std::uint32_t, port_range> ranges_;  // by first port, disjoint
  std::map<std::uint32_t, std::vector<std::size_t>> common_ports_;
};

// An id or a name.
void rule_walk::word_rules(const std::string& path, const std::string& word) {
  static constexpr auto allowed = "use 1 to 64 of A-Z a-z 0-9 @ . _ -";
  if (word.empty())
    blame(path, "is empty", allowed);
  else if (word.size() > bounds::id_length)
    blame(path,
          quote(word) + " has " + std::to_string(word.size())
              + " characters, more than " + std::to_string(bounds::id_length),
          "shorten it");
  else if (!std::all_of(word.begin(), word.end(), is_id_char))
    blame(path, quote(word) + " holds a character that is not allowed",
          allowed);
}

void rule_walk::process_rules(const process_spec& x, const std::string& path) {
  auto id = member_path(path, "id");
  word_rules(id, x.id);
  if (x.id == "all")
    blame(id, "`all` means every process on the command line",
          "choose another id");
  else if (x.id.starts_with('-'))
    blame(id, quote(x.id) + " looks like an option on the command line",
          "start it with another character");
  command_rules(x, path);
  folder_rules(x, path);
  env_rules(x, path);
  restart_rules(x, path);
  if (x.ready == ready_condition::port
      && (!x.cluster || x.cluster->start_port == 0))
    blame(path + ".ready.type", "`port` needs a port, and there is none",
          x.cluster ? "add cluster.startPort or use `spawn`"
                    : "add a cluster with startPort or use `spawn`",
          {path + ".cluster.startPort"});
  if (x.cluster)
    cluster_rules(*x.cluster, path + ".cluster");
}

void rule_walk::command_rules(const process_spec& x, const std::string& path) {
  auto command = path + ".cmd";
  if (x.argv.empty()) {
    blame(command, "is empty", "name a program");
    return;
  }
  if (x.shell && x.argv.size() < 3) {
    blame(command, "a shell command needs three arguments",
          "use /bin/sh, -c and the command");
    return;
  }
  for (std::size_t i = 0; i < x.argv.size(); ++i) {
    auto& argument = x.argv[i];
    auto argument_path = x.shell ? command : element_path(command, i);
    // Only an argument of a program may say nothing: ["psql", "-c", ""].
    if (argument.find_first_not_of(" \t\r\n") == std::string::npos
        && (x.shell || i == 0))
      blame(argument_path, "is empty",
            i == 0 ? "name a program" : "write a command");
    else if (holds_nul(argument))
      blame(argument_path, "holds a NUL character, which no argument can",
            "remove \\u0000");
    else if (!x.shell)
      placeholder_rules(x, path, argument, argument_path);
  }
}

void rule_walk::folder_rules(const process_spec& x, const std::string& path) {
  auto cwd = path + ".cwd";
  if (holds_nul(x.cwd))
    blame(cwd, "holds a NUL character, which no path can", "remove \\u0000");
  else if (!x.cwd.empty() && !x.cwd.starts_with('/'))
    blame(cwd, quote(x.cwd) + " is not absolute", "start it with /");
  placeholder_rules(x, path, x.cwd, cwd);
  if (x.path.empty())
    return;
  auto search = path + ".path";
  if (holds_nul(x.path))
    blame(search, "holds a NUL character, which no path can", "remove \\u0000");
  for (std::size_t begin = 0; begin <= x.path.size();) {
    auto end = std::min(x.path.find(':', begin), x.path.size());
    if (x.path[begin] != '/' || begin == end) {
      blame(search,
            quote(x.path.substr(begin, end - begin)) + " is not absolute",
            "start it with /");
      return;
    }
    begin = end + 1;
  }
}

void rule_walk::env_rules(const process_spec& x, const std::string& path) {
  for (auto& [name, value] : x.env) {
    auto value_path = member_path(path + ".env", name);
    if (name.empty() || name.find('=') != std::string::npos || holds_nul(name))
      blame(value_path, quote(name) + " cannot name a variable",
            "use a name without = and NUL");
    else if (holds_nul(value))
      blame(value_path, "holds a NUL character, which no variable can",
            "remove \\u0000");
    placeholder_rules(x, path, value, value_path);
  }
}

void rule_walk::placeholder_rules(const process_spec& x,
                                  const std::string& path,
                                  const std::string& text,
                                  const std::string& text_path) {
  auto use = find_placeholders(text);
  if (!use.problem.empty())
    blame(text_path, use.problem, use.remedy);
  else if (use.variable)
    blame(text_path, "%{env:NAME} is replaced only in configuration files",
          "insert the value");
  else if (use.port && (!x.cluster || x.cluster->start_port == 0))
    blame(text_path, "%{port} needs a port, and there is none",
          x.cluster ? "add cluster.startPort" : "add a cluster with startPort",
          {path + ".cluster.startPort"});
}

void rule_walk::exit_code_rules(const std::vector<int>& codes,
                                const std::string& path) {
  for (std::size_t i = 0; i < codes.size(); ++i)
    if (codes[i] < 0 || codes[i] > 255)
      blame(element_path(path, i),
            std::to_string(codes[i]) + " is not an exit code", "use 0 to 255");
}

template <class Spec, class Table>
void rule_walk::duration_rules(const Spec& x, const Table& table,
                               const std::string& path) {
  for (auto& key : table) {
    auto ms = (x.*key.member).count();
    if (ms < key.least || ms > bounds::duration_ms)
      blame(member_path(path, key.key),
            std::to_string(ms) + " ms is out of range",
            duration_remedy(key.seconds, key.least));
  }
}

void rule_walk::restart_rules(const process_spec& x, const std::string& path) {
  duration_rules(x, process_durations, path);
  if (x.restart_limit && *x.restart_limit > bounds::restarts)
    blame(path + ".restartLimit",
          std::to_string(*x.restart_limit) + " is not a number of restarts",
          "use 0 to " + std::to_string(bounds::restarts));
  exit_code_rules(x.success_exit_codes, path + ".successExitCodes");
  exit_code_rules(x.no_restart_exit_codes, path + ".noRestartExitCodes");
  auto known = [&x](const stop_signal_name& signal) {
    return signal.number == x.stop_signal;
  };
  if (std::none_of(stop_signals.begin(), stop_signals.end(), known))
    blame(path + ".stopSignal",
          std::to_string(x.stop_signal) + " is not a signal to stop with",
          "use 15, which is SIGTERM");
}

void rule_walk::cluster_rules(const cluster_spec& x, const std::string& path) {
  auto instances = path + ".instances";
  auto start_port = path + ".startPort";
  duration_rules(x, cluster_durations, path);
  if (x.instances > bounds::instances)
    blame(instances,
          std::to_string(x.instances) + " is not a number of instances",
          "use 0 to " + std::to_string(bounds::instances));
  else if (x.start_port != 0 && x.start_port + x.instances > last_port + 1)
    blame(start_port,
          std::to_string(x.instances) + " instances from port "
              + std::to_string(x.start_port) + " reach port "
              + std::to_string(x.start_port + x.instances - 1)
              + ", above 65535",
          "use " + std::to_string(last_port + 1 - x.instances) + " or lower",
          {instances});
  if (x.max_connections > bounds::connections)
    blame(path + ".maxConnections",
          std::to_string(x.max_connections) + " is not a number of connections",
          "use 0 to " + std::to_string(bounds::connections));
  if (!x.common_host.empty() && !parse_address(x.common_host))
    blame(path + ".commonHost",
          quote(x.common_host) + " is not a numeric IPv4 or IPv6 address",
          x.common_host == "localhost"
              ? "use `127.0.0.1` or `::1`"
              : "use one such as `127.0.0.1`, or remove it for all addresses");
  if (x.common_port != 0 && x.start_port == 0)
    blame(path + ".commonPort", "a balancer needs instances with ports",
          "add startPort", {start_port});
}

// -- several values -----------------------------------------------------------

void rule_walk::id_rules() {
  auto& processes = spec_.processes;
  for (std::size_t i = 0; i < processes.size(); ++i) {
    if (processes[i].id.empty())
      continue;
    auto [other, added] = ids_.emplace(processes[i].id, i);
    if (!added)
      blame(process_path(i) + ".id",
            quote(processes[i].id) + " is already the id of "
                + process_path(other->second),
            "choose another id");
  }
  for (std::size_t i = 0; i < processes.size(); ++i)
    instance_id_rules(i);
}

// Cluster `web` owns web-1 to web-1024: it can be scaled there at any time.
void rule_walk::instance_id_rules(std::size_t index) {
  auto& id = spec_.processes[index].id;
  auto dash = id.rfind('-');
  if (dash == std::string::npos || dash + 1 == id.size() || id[dash + 1] == '0'
      || id.size() - dash > 5)
    return;
  std::uint32_t slot = 0;
  for (auto i = dash + 1; i < id.size(); ++i) {
    if (!is_digit(id[i]))
      return;
    slot = slot * 10 + static_cast<std::uint32_t>(id[i] - '0');
  }
  auto owner = ids_.find(id.substr(0, dash));
  if (slot > bounds::instances || owner == ids_.end()
      || !spec_.processes[owner->second].cluster)
    return;
  auto cluster = owner->second;
  auto range = "-1 to -" + std::to_string(bounds::instances);
  if (cluster < index)
    blame(process_path(index) + ".id",
          quote(id) + " is the id of an instance of cluster "
              + quote(owner->first) + " (" + process_path(cluster) + ')',
          "choose an id that does not end in " + range);
  else
    blame(process_path(cluster) + ".id",
          "instance " + quote(id) + " of this cluster would have the id of "
              + process_path(index),
          "choose another id for one of them");
}

void rule_walk::port_rules() {
  for (std::size_t i = 0; i < spec_.processes.size(); ++i) {
    if (!spec_.processes[i].cluster)
      continue;
    range_rules(i);
    common_port_rules(i);
  }
}

std::string overlap_text(std::uint32_t first, std::uint32_t last) {
  return first == last ? " overlaps with " : " overlap with ";
}

std::string ports_text(std::uint32_t first, std::uint32_t last) {
  return first == last
             ? "port " + std::to_string(first)
             : "ports " + std::to_string(first) + " to " + std::to_string(last);
}

void rule_walk::range_rules(std::size_t index) {
  auto& process = spec_.processes[index];
  std::uint32_t first = process.cluster->start_port;
  std::uint32_t count = process.cluster->instances;
  if (first == 0 || count == 0 || count > bounds::instances
      || first + count > last_port + 1)
    return;
  auto last = first + count - 1;
  auto path = process_path(index) + ".cluster.startPort";
  auto basis = process_path(index) + ".cluster.instances";
  // The only earlier range that can reach into this one from below, or else
  // the first that begins in it.
  auto other = ranges_.upper_bound(first);
  if (other != ranges_.begin() && std::prev(other)->second.last >= first)
    --other;
  if (other != ranges_.end() && other->first <= last) {
    auto& owner = spec_.processes[other->second.process];
    blame(path,
          ports_text(first, last) + " of " + quote(process.id)
              + overlap_text(first, last)
              + ports_text(other->first, other->second.last) + " of "
              + quote(owner.id),
          "choose ports that no other process uses",
          {basis, process_path(other->second.process) + ".cluster.instances"});
    return;
  }
  auto common = common_ports_.lower_bound(first);
  if (common != common_ports_.end() && common->first <= last) {
    auto owner = common->second.front();
    blame(path,
          ports_text(first, last) + " of " + quote(process.id)
              + overlap_text(first, last) + "commonPort "
              + std::to_string(common->first) + " of "
              + quote(spec_.processes[owner].id),
          "choose ports that no other process uses", {basis});
    return;
  }
  ranges_.emplace(first, port_range{last, index});
}

void rule_walk::common_port_rules(std::size_t index) {
  auto& process = spec_.processes[index];
  std::uint32_t port = process.cluster->common_port;
  if (port == 0)
    return;
  auto path = process_path(index) + ".cluster.commonPort";
  auto other = ranges_.upper_bound(port);
  if (other != ranges_.begin() && (--other)->second.last >= port) {
    auto owner = other->second.process;
    blame(path,
          "port " + std::to_string(port) + " of " + quote(process.id)
              + " lies within " + ports_text(other->first, other->second.last)
              + " of "
              + (owner == index ? "its own instances"
                                : quote(spec_.processes[owner].id)),
          "choose a port that no other process uses",
          {process_path(owner) + ".cluster.instances"});
    return;
  }
  auto& users = common_ports_[port];
  for (auto user : users) {
    auto& x = spec_.processes[user];
    if (!same_host(x.cluster->common_host, process.cluster->common_host))
      continue;
    blame(path,
          "port " + std::to_string(port) + " of " + quote(process.id)
              + " is already the commonPort of " + quote(x.id),
          "choose another port, or a different commonHost for each",
          {process_path(index) + ".cluster.commonHost",
           process_path(user) + ".cluster.commonHost"});
    return;
  }
  users.push_back(index);
}

std::vector<broken_rule> rule_walk::run() {
  word_rules("name", spec_.name);
  if (spec_.name == "." || spec_.name == "..")
    blame("name", quote(spec_.name) + " cannot name a folder",
          "choose another name");
  if (spec_.processes.empty())
    blame("processes", "is empty, there is nothing to do", "add a process");
  if (spec_.processes.size() > bounds::processes) {
    blame("processes",
          "has " + std::to_string(spec_.processes.size())
              + " entries, more than " + std::to_string(bounds::processes),
          "split it into several configurations");
    return std::move(result_);
  }
  for (std::size_t i = 0; i < spec_.processes.size(); ++i)
    process_rules(spec_.processes[i], process_path(i));
  id_rules();
  port_rules();
  return std::move(result_);
}

}  // namespace

std::vector<broken_rule> broken_rules(const pup_spec& spec) {
  return rule_walk{spec}.run();
}

std::string duration_remedy(bool seconds, std::int64_t least_ms) {
  auto unit = seconds ? 1000 : 1;
  // The only least values are 0 and 1 ms.
  auto least = seconds && least_ms == 1 ? "0.001" : std::to_string(least_ms);
  return "use " + least + " to " + std::to_string(bounds::duration_ms / unit);
}

}  // namespace pup
