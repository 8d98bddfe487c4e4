#include "pup/actors/applying.hpp"

#include "pup/actors/slot.hpp"
#include "pup/actors/spawn.hpp"
#include "pup/actors/supervisor.hpp"
#include "pup/config/relations.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

namespace pup {

namespace {

struct applying_state {
  using pointer = applying_actor::stateful_pointer<applying_state>;
  using outcomes = std::vector<outcome>;

  applying_state() = default;

  static inline const char* name = "applying";

  pointer self = nullptr;
  applying_args args;
  std::map<std::string, cluster_actor> handles;  // by unit
  std::map<std::string, std::size_t> places;     // of the root's children
  conductor_actor conductor;
  caf::typed_response_promise<carried_out> promise;
  std::size_t missing = 0;  // answers of the current stage
  void (applying_state::*next)() = nullptr;
  std::map<std::string, outcomes> results;  // by unit
  std::set<std::string> unchanged;          // units that stay as they were

  caf::result<carried_out> begin() {
    promise = self->make_response_promise<carried_out>();
    self->request(args.root, caf::infinite, which_children{})
        .then(
            [this](const std::vector<child_info>& all) {
              for (const auto& x : all)
                places.emplace(x.id, places.size());
              for (const auto& x : all)
                if (x.id == "conductor" && x.handle)
                  conductor = caf::actor_cast<conductor_actor>(x.handle);
                else if (x.handle)
                  handles[x.id] = caf::actor_cast<cluster_actor>(x.handle);
              stop();
            },
            [this](caf::error& why) { promise.deliver(std::move(why)); });
    return promise;
  }

  // -- stages -----------------------------------------------------------------

  bool replaced(const std::string& id) const {
    return std::any_of(
        args.plan.changed.begin(), args.plan.changed.end(),
        [&](const auto& x) { return x.id == id && !x.how.replaced.empty(); });
  }

  void stop() {
    std::vector<std::string> ids;
    for (auto i = args.from.processes.rbegin(); i != args.from.processes.rend();
         ++i) {
      const auto& gone = args.plan.stopped;
      if (std::find(gone.begin(), gone.end(), i->id) != gone.end()
          || replaced(i->id))
        ids.push_back(i->id);
    }
    stage(ids.size(), &applying_state::change);
    for (const auto& id : ids)
      stop(id);
  }

  // Who starts from now on may need or be in a group with somebody new.
  void change() {
    follow(args.to);
    std::vector<std::string> ids;
    for (const auto& x : args.plan.changed)
      if (x.how.replaced.empty())
        ids.push_back(x.id);
    stage(ids.size(), &applying_state::start);
    for (const auto& id : ids)
      change(id);
  }

  // From behind, so that the place of each is told by those that start later.
  void start() {
    struct fresh_unit {
      const process_spec* spec;
      std::string before;
    };
    std::vector<fresh_unit> wanted;
    const auto order = order_of_start(args.to);
    std::pair first{places.size(), std::string{}};  // of those behind
    for (auto index = order.rbegin(); index != order.rend(); ++index) {
      const auto& x = args.to.processes[*index];
      const auto& fresh = args.plan.started;
      if (std::find(fresh.begin(), fresh.end(), x.id) != fresh.end()
          || (replaced(x.id) && unchanged.count(x.id) == 0))
        wanted.push_back({&x, first.second});
      else if (const auto i = places.find(unit_child_id(x.id));
               i != places.end())
        first = std::min(first, {i->second, i->first});
    }
    std::reverse(wanted.begin(), wanted.end());
    stage(wanted.size(), &applying_state::finish);
    for (const auto& x : wanted)
      start(*x.spec, x.before);
  }

  void finish() {
    carried_out result{args.to, {}};
    for (auto& x : result.spec.processes)
      if (unchanged.count(x.id) != 0)
        if (const auto* old = find(args.from, x.id))
          x = *old;
    for (const auto& id : args.plan.stopped)
      if (unchanged.count(id) != 0)
        result.spec.processes.push_back(*find(args.from, id));
    result.spec.logger = args.from.logger;
    result.spec.readers = args.from.readers;
    for (auto& [id, list] : results)
      std::move(list.begin(), list.end(), std::back_inserter(result.outcomes));
    follow(result.spec);
    promise.deliver(std::move(result));
    self->quit();
  }

  void follow(const pup_spec& spec) {
    if (conductor)
      self->send(conductor, follow_spec{spec});
  }

  static const process_spec* find(const pup_spec& in, const std::string& id) {
    const auto i =
        std::find_if(in.processes.begin(), in.processes.end(),
                     [&](const process_spec& x) { return x.id == id; });
    return i == in.processes.end() ? nullptr : &*i;
  }

  void stage(std::size_t answers, void (applying_state::*then)()) {
    missing = answers;
    next = then;
    if (answers == 0)
      (this->*next)();
  }

  void answered(const std::string& id, outcomes what) {
    auto& list = results[id];
    std::move(what.begin(), what.end(), std::back_inserter(list));
    if (--missing == 0)
      (this->*next)();
  }

  void failed(const std::string& id, const std::string& why) {
    unchanged.insert(id);
    answered(id, {{id, false, why}});
  }

  // -- one unit ---------------------------------------------------------------

  void stop(const std::string& id) {
    const auto child = unit_child_id(id);
    const auto gone = [this, id] { answered(id, {{id, true, "stopped"}}); };
    // One that has given up for good is no child any more.
    const auto trouble = [this, id, gone](const caf::error& why) {
      is(why, fault::no_such_id) ? gone() : failed(id, text_of(why));
    };
    self->request(args.root, caf::infinite, terminate_child{child})
        .then(
            [this, child, gone, trouble] {
              self->request(args.root, caf::infinite, delete_child{child})
                  .then(gone, trouble);
            },
            trouble);
  }

  void change(const std::string& id) {
    const auto handle = handles.find(unit_child_id(id));
    if (handle == handles.end())
      return failed(id, "its actor does not live; apply again");
    self->request(handle->second, caf::infinite,
                  reconfigure{*find(args.to, id), spare_ports_of(id, args.to),
                              args.caller})
        .then(
            [this, id](reconfigured& x) {
              if (!x.taken)
                unchanged.insert(id);
              answered(id, std::move(x.outcomes));
            },
            [this, id](const caf::error& why) { failed(id, text_of(why)); });
  }

  void start(const process_spec& wanted, const std::string& before) {
    // An earlier change that was interrupted may have started it.
    if (replaced(wanted.id) || handles.count(unit_child_id(wanted.id)) == 0) {
      auto child = args.unit(wanted);
      child.before = before;
      return self->request(args.root, caf::infinite, std::move(child))
          .then([this,
                 id = wanted.id](const child_info& x) { await(id, x.handle); },
                [this, id = wanted.id](const caf::error& why) {
                  failed(id, text_of(why));
                });
    }
    change(wanted.id);
  }

  void await(const std::string& id, const caf::strong_actor_ptr& handle) {
    if (!handle)
      return answered(id, {{id, true, "begun"}});
    self->request(caf::actor_cast<cluster_actor>(handle), caf::infinite,
                  operate_unit{verb::await, 0, true, {}})
        .then(
            [this, id](report& x) {
              if (x.outcomes.empty())
                x.outcomes.push_back({id, true, "not started by itself"});
              answered(id, std::move(x.outcomes));
            },
            [this, id](const caf::error& why) {
              answered(id, {{id, false, text_of(why)}});
            });
  }
};

applying_actor::behavior_type applying_behavior(applying_state::pointer self,
                                                const caf::actor_addr& parent,
                                                applying_args args) {
  self->state.self = self;
  self->state.args = std::move(args);
  self->set_default_handler(caf::drop);
  monitor_for_life(self, caf::actor_cast<caf::actor>(parent));
  self->set_down_handler([self](caf::scheduled_actor*, caf::down_msg&) {
    self->quit(caf::exit_reason::kill);
  });
  return {[self](carry_out) { return self->state.begin(); }};
}

}  // namespace

std::string path_of(const apply& x) {
  const std::filesystem::path file{x.file};
  return x.folder.empty()
             ? x.file
             : (std::filesystem::path{x.folder} / file.filename()).string();
}

applying_actor spawn_applying(caf::local_actor* parent, applying_args args) {
  return parent->spawn(applying_behavior, parent->address(), std::move(args));
}

}  // namespace pup
