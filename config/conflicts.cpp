#include "pup/config/conflicts.hpp"

#include "pup/config/address.hpp"
#include "pup/config/words.hpp"

#include <iterator>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

namespace pup {

namespace {

std::string overlap_text(std::uint32_t first, std::uint32_t last) {
  return first == last ? " overlaps with " : " overlap with ";
}

std::string ports_text(std::uint32_t first, std::uint32_t last) {
  return first == last
             ? "port " + std::to_string(first)
             : "ports " + std::to_string(first) + " to " + std::to_string(last);
}

class conflict_walk : rule_judge {
public:
  conflict_walk(const pup_spec& spec, std::vector<broken_rule>& into)
      : rule_judge(into), spec_(spec) {}

  void id_rules();
  void port_rules();

private:
  void instance_id_rules(std::size_t index);
  void range_rules(std::size_t index);
  void common_port_rules(std::size_t index);

  struct port_range {
    std::uint32_t last;
    std::size_t process;
  };

  const pup_spec& spec_;
  std::unordered_map<std::string, std::size_t> ids_;
  std::map<std::uint32_t, port_range> ranges_;  // by first port, disjoint
  std::map<std::uint32_t, std::vector<std::size_t>> common_ports_;
};

void conflict_walk::id_rules() {
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
void conflict_walk::instance_id_rules(std::size_t index) {
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

void conflict_walk::port_rules() {
  for (std::size_t i = 0; i < spec_.processes.size(); ++i) {
    if (!spec_.processes[i].cluster)
      continue;
    range_rules(i);
    common_port_rules(i);
  }
}

void conflict_walk::range_rules(std::size_t index) {
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

void conflict_walk::common_port_rules(std::size_t index) {
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

}  // namespace

void conflict_rules(const pup_spec& spec, std::vector<broken_rule>& into) {
  conflict_walk walk{spec, into};
  walk.id_rules();
  walk.port_rules();
}

}  // namespace pup
