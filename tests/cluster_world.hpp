// One unit below a real root, with a launcher and a proxy that a test plays.
#pragma once

#include "pup/actors/slot.hpp"
#include "pup/actors/supervisor.hpp"

#include "fake_machine.hpp"
#include "unit_child.hpp"

namespace pup::test {

inline process_spec web(std::uint32_t instances, bool balanced = true) {
  process_spec result;
  result.id = "web";
  result.argv = {"server"};
  result.ready = ready_condition::port;
  result.cluster.emplace();
  result.cluster->instances = instances;
  result.cluster->start_port = 8000;
  if (balanced)
    result.cluster->common_port = 3000;
  return result;
}

inline process_spec worker() {
  process_spec result;
  result.id = "worker";
  result.argv = {"work"};
  return result;
}

// A cluster below a real root, so that what it leaves by `keep` comes back.
struct cluster_world : fake_world {
  supervisor_actor root;
  std::size_t notes = 0;  // that were left for a next life

  void start(const process_spec& spec, const wanted_state* kept = nullptr,
             std::vector<adopted_life> adopted = {}) {
    cluster_args args;
    args.spec = spec;
    args.supervisor = "pup";
    args.world = world;
    supervisor_spec tree;
    tree.limit = {};
    tree.on_keep = [this](const std::string&, const caf::message&) { ++notes; };
    args.adopted = std::move(adopted);
    auto unit = unit_child(std::move(args));
    if (kept != nullptr)
      unit.kept = caf::make_message(*kept);
    tree.children.push_back(std::move(unit));
    root = own(spawn_supervisor(sys, std::move(tree)));
    run();
  }

  cluster_actor unit() {
    auto children = ask<std::vector<child_info>>(root, which_children{});
    return caf::actor_cast<cluster_actor>(children->value().at(0).handle);
  }

  unit_status status() {
    return ask<unit_status>(unit(), get_unit_status{})->value();
  }

  // "1:ready 2:backoff" and so on.
  std::string states() {
    std::string result;
    for (const auto& x : status().instances)
      result += (result.empty() ? "" : " ") + std::to_string(x.slot) + ':'
                + to_string(x.state);
    return result;
  }

  answer_ptr<scale_report> scale_to(std::uint32_t count, bool wait = true) {
    return ask<scale_report>(unit(), scale{"web", scale_mode::to, count, wait});
  }

  answer_ptr<report> operate(verb what, std::uint32_t number = 0,
                             bool wait = true) {
    return ask<report>(unit(), operate_unit{what, number, wait});
  }

  caf::actor_addr actor_of(const std::string& id) {
    return m->processes.at(id).owner.address();
  }

  void kill(const caf::actor_addr& x) {
    caf::anon_send_exit(caf::actor_cast<caf::strong_actor_ptr>(x),
                        caf::exit_reason::kill);
    run();
  }

  void end(const std::string& id, int code) {
    m->exit(id, code);
    run();
  }

  void apply() {
    caf::anon_send(caf::actor_cast<fake_proxy_actor>(
                       caf::actor_cast<caf::strong_actor_ptr>(world.proxy)),
                   apply_oldest{});
    run();
  }

  bool runs(const std::string& id) const {
    return m->processes.count(id) != 0;
  }
};

inline strings texts(const std::vector<outcome>& xs) {
  strings result;
  for (const auto& x : xs)
    result.push_back(x.id + (x.ok ? " + " : " - ") + x.text);
  return result;
}

inline strings texts(const answer_ptr<scale_report>& x) {
  return texts(x->value().outcomes);
}

inline strings texts(const answer_ptr<report>& x) {
  return texts(x->value().outcomes);
}

}  // namespace pup::test
