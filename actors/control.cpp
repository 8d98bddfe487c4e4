#include "pup/actors/selector.hpp"
#include "pup/actors/spawn.hpp"
#include "pup/config/load.hpp"

#include <algorithm>
#include <functional>
#include <memory>

namespace pup {

namespace {

// Units answer a status at once; one that does not within this time is shown
// as failed rather than keeping the status of the others.
constexpr std::chrono::seconds status_timeout{2};

/// A unit as the root knows it. The handle is empty while the root waits to
/// restart it, or after it has given it up.
struct unit_ref {
  std::string id;
  cluster_actor handle;
};

struct control_state {
  using pointer = control_actor::stateful_pointer<control_state>;
  using units_function = std::function<void(std::vector<unit_ref>)>;
  using status_function
    = std::function<void(std::vector<unit_ref>, std::vector<unit_status>)>;
  using error_function = std::function<void(caf::error)>;

  control_state() = default;

  static inline const char* name = "control";

  pointer self = nullptr;
  control_args args;

  void with_units(units_function done, error_function failed);
  void with_status(status_function done, error_function failed);
  unit_status unreachable(const unit_ref& unit) const;
  caf::result<supervisor_status> status(const get_status& request);
  void add_usage(supervisor_status status,
                 caf::typed_response_promise<supervisor_status> promise);
  caf::result<scale_report> scale_unit(const scale& request);
  std::vector<std::string> faults_of(const scale& request,
                                     const std::vector<unit_status>& now) const;
  caf::result<report> operate_on(const operate& request);
  terminating shut_down();
};

template <class Promise>
void refuse(Promise& promise, fault code, std::string text) {
  promise.deliver(make_error(code, std::move(text)));
}

const unit_ref& ref_of(const std::vector<unit_ref>& refs,
                       const std::string& unit) {
  return *std::find_if(refs.begin(), refs.end(),
                       [&](const unit_ref& x) { return x.id == unit; });
}

/// Collects n answers that may come in any order, then calls `done`.
template <class T>
class gathering {
public:
  gathering(std::size_t n, std::function<void(std::vector<T>)> done)
    : answers_(n), missing_(n), done_(std::move(done)) {
    if (n == 0)
      done_({});
  }

  void put(std::size_t i, T answer) {
    answers_[i] = std::move(answer);
    if (--missing_ == 0)
      done_(std::move(answers_));
  }

private:
  std::vector<T> answers_;
  std::size_t missing_;
  std::function<void(std::vector<T>)> done_;
};

void control_state::with_units(units_function done, error_function failed) {
  self->request(args.root, status_timeout, which_children{})
    .then(
      [this, done = std::move(done)](std::vector<child_info>& children) {
        std::vector<unit_ref> refs;
        for (const auto& unit : args.spec.processes)
          for (auto& child : children)
            if (child.id == unit_child_id(unit.id))
              refs.push_back(
                {unit.id, caf::actor_cast<cluster_actor>(child.handle)});
        done(std::move(refs));
      },
      [failed = std::move(failed)](caf::error& why) { failed(std::move(why)); });
}

unit_status control_state::unreachable(const unit_ref& unit) const {
  unit_status result;
  result.id = unit.id;
  result.state = run_state::failed;
  result.reason = "its actor failed and is being restarted";
  for (const auto& x : args.spec.processes)
    if (x.id == unit.id && x.cluster) {
      result.is_cluster = true;
      result.desired = x.cluster->instances;
    }
  if (!result.is_cluster) {
    instance_status only;
    only.id = unit.id;
    only.state = result.state;
    only.reason = result.reason;
    result.instances.push_back(std::move(only));
  }
  return result;
}

void control_state::with_status(status_function done, error_function failed) {
  auto ask = [this, done = std::move(done)](std::vector<unit_ref> refs) {
    const auto n = refs.size();
    auto answers = std::make_shared<gathering<unit_status>>(
      n, [done, refs](std::vector<unit_status> all) {
        done(refs, std::move(all));
      });
    for (std::size_t i = 0; i < n; ++i) {
      if (!refs[i].handle) {
        answers->put(i, unreachable(refs[i]));
        continue;
      }
      self->request(refs[i].handle, status_timeout, get_unit_status{})
        .then([answers, i](unit_status& x) { answers->put(i, std::move(x)); },
              [this, answers, i, ref = refs[i]](const caf::error&) {
                answers->put(i, unreachable(ref));
              });
    }
  };
  with_units(std::move(ask), std::move(failed));
}

// -- status -------------------------------------------------------------------

caf::result<supervisor_status>
control_state::status(const get_status& request) {
  auto promise = self->make_response_promise<supervisor_status>();
  with_status(
    [this, promise, id = request.id](std::vector<unit_ref>,
                                     std::vector<unit_status> units) mutable {
      auto result = args.identity;
      result.uptime_ms
        = std::chrono::duration_cast<std::chrono::milliseconds>(
            self->clock().now() - args.started)
            .count();
      if (id.empty()) {
        result.units = std::move(units);
        return add_usage(std::move(result), promise);
      }
      const auto chosen = select(id, units);
      if (chosen.empty())
        return refuse(promise, fault::no_such_id, unknown_id(id, units));
      // An instance is shown inside its cluster, without its siblings.
      for (auto& unit : units) {
        const auto whole = target{unit.id, 0};
        if (std::find(chosen.begin(), chosen.end(), whole) == chosen.end())
          std::erase_if(unit.instances, [&](const instance_status& x) {
            return std::find(chosen.begin(), chosen.end(),
                             target{unit.id, x.slot})
                   == chosen.end();
          });
        if (std::any_of(chosen.begin(), chosen.end(),
                        [&](const target& x) { return x.unit == unit.id; }))
          result.units.push_back(std::move(unit));
      }
      add_usage(std::move(result), promise);
    },
    [promise](caf::error why) mutable { promise.deliver(std::move(why)); });
  return promise;
}

void control_state::add_usage(
  supervisor_status status,
  caf::typed_response_promise<supervisor_status> promise) {
  sample_usage wanted;
  wanted.pids.push_back(status.pid);
  for (const auto& unit : status.units)
    for (const auto& x : unit.instances)
      if (x.pid != 0)
        wanted.pids.push_back(x.pid);
  auto shared = std::make_shared<supervisor_status>(std::move(status));
  self->request(args.launcher, status_timeout, std::move(wanted))
    .then(
      [shared, promise](const std::vector<usage>& samples) mutable {
        std::map<std::int32_t, const usage*> by_pid;
        for (const auto& x : samples)
          by_pid[x.pid] = &x;
        if (const auto i = by_pid.find(shared->pid); i != by_pid.end())
          shared->rss_bytes = i->second->rss_bytes;
        for (auto& unit : shared->units)
          for (auto& x : unit.instances)
            if (const auto i = by_pid.find(x.pid); i != by_pid.end()) {
              x.rss_bytes = i->second->rss_bytes;
              x.cpu_percent = i->second->cpu_percent;
            }
        promise.deliver(std::move(*shared));
      },
      [shared, promise](const caf::error&) mutable {
        promise.deliver(std::move(*shared)); // without them, rather than never
      });
}

// -- scale --------------------------------------------------------------------

std::vector<std::string>
control_state::faults_of(const scale& request,
                         const std::vector<unit_status>& now) const {
  auto wanted = args.spec;
  for (auto& x : wanted.processes)
    for (const auto& unit : now)
      if (x.cluster && unit.id == x.id) {
        x.cluster->instances = unit.desired;
        if (x.id != request.id)
          continue;
        if (request.mode == scale_mode::to)
          x.cluster->instances = request.count;
        else if (request.mode == scale_mode::up_by)
          x.cluster->instances += std::min(request.count, bounds::instances + 1);
        else
          x.cluster->instances
            -= std::min(request.count, x.cluster->instances);
      }
  return check(wanted);
}

caf::result<scale_report> control_state::scale_unit(const scale& request) {
  auto promise = self->make_response_promise<scale_report>();
  with_status(
    [this, promise, request](std::vector<unit_ref> refs,
                             std::vector<unit_status> units) mutable {
      const auto chosen = select(request.id, units);
      if (chosen.empty())
        return refuse(promise, fault::no_such_id,
                      unknown_id(request.id, units));
      if (chosen.size() > 1)
        return refuse(promise, fault::bad_request,
                      "'" + request.id
                        + "' means more than one cluster; scale them one by "
                          "one");
      if (chosen.front().slot != 0)
        return refuse(promise, fault::bad_request,
                      "'" + request.id + "' is one instance; scale '"
                        + chosen.front().unit + "', its cluster");
      auto resolved = request;
      resolved.id = chosen.front().unit;
      const auto& unit = ref_of(refs, resolved.id);
      if (!unit.handle)
        return refuse(promise, fault::bad_request,
                      "'" + unit.id + "': " + unreachable(unit).reason);
      if (const auto faults = faults_of(resolved, units); !faults.empty())
        return refuse(promise, fault::bad_request, faults.front());
      self->request(unit.handle, caf::infinite, std::move(resolved))
        .then(
          [promise](scale_report& x) mutable { promise.deliver(std::move(x)); },
          [promise](caf::error& why) mutable {
            promise.deliver(std::move(why));
          });
    },
    [promise](caf::error why) mutable { promise.deliver(std::move(why)); });
  return promise;
}

// -- operate ------------------------------------------------------------------

caf::result<report> control_state::operate_on(const operate& request) {
  auto promise = self->make_response_promise<report>();
  with_status(
    [this, promise, request](std::vector<unit_ref> refs,
                             std::vector<unit_status> units) mutable {
      const auto chosen = select(request.selector, units);
      if (chosen.empty())
        return refuse(promise, fault::no_such_id,
                      unknown_id(request.selector, units));
      auto answers = std::make_shared<gathering<report>>(
        chosen.size(), [promise](std::vector<report> all) mutable {
          report whole;
          for (auto& x : all)
            std::move(x.outcomes.begin(), x.outcomes.end(),
                      std::back_inserter(whole.outcomes));
          promise.deliver(std::move(whole));
        });
      for (std::size_t i = 0; i < chosen.size(); ++i) {
        const auto& unit = ref_of(refs, chosen[i].unit);
        const auto failed = [id = unit.id](const std::string& why) {
          return report{{{id, false, why}}};
        };
        if (!unit.handle) {
          answers->put(i, failed(unreachable(unit).reason));
          continue;
        }
        self
          ->request(unit.handle, caf::infinite,
                    operate_unit{request.what, chosen[i].slot, request.wait})
          .then([answers, i](report& x) { answers->put(i, std::move(x)); },
                [answers, i, failed](const caf::error& why) {
                  answers->put(i, failed(text_of(why)));
                });
      }
    },
    [promise](caf::error why) mutable { promise.deliver(std::move(why)); });
  return promise;
}

terminating control_state::shut_down() {
  self->send_exit(args.root, caf::exit_reason::user_shutdown);
  return {args.identity.pid};
}

control_actor::behavior_type control_behavior(control_state::pointer self,
                                              control_args args) {
  self->state.self = self;
  self->state.args = std::move(args);
  self->set_default_handler(caf::drop);
  return {
    [self](const get_status& request) { return self->state.status(request); },
    [self](const scale& request) { return self->state.scale_unit(request); },
    [self](const operate& request) { return self->state.operate_on(request); },
    [self](terminate) { return self->state.shut_down(); },
  };
}

} // namespace

control_actor spawn_control(caf::local_actor* parent, control_args args) {
  return parent->spawn(control_behavior, std::move(args));
}

} // namespace pup
