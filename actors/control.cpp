#include "pup/actors/selector.hpp"
#include "pup/actors/spawn.hpp"
#include "pup/config/load.hpp"

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <utility>

namespace pup {

namespace {

// Units answer a status at once; one that does not within this time is shown
// as failed rather than keeping the status of the others.
constexpr std::chrono::seconds status_timeout{2};

/// A unit as the root knows it. The handle is empty while the root waits to
/// restart it, has stopped it or given it up: then `reason` says which.
struct unit_ref {
  std::string id;
  cluster_actor handle;
  run_state state = run_state::failed;
  std::string reason = "its actor does not answer";
};

/// Answers a request, with an error if nobody else does: whoever asked is not
/// left waiting when this actor fails.
template <class T>
class pledge {
public:
  explicit pledge(caf::typed_response_promise<T> promise)
      : shared_(std::make_shared<shared>(std::move(promise))) {}

  void keep(T value) const {
    shared_->promise.deliver(std::move(value));
    shared_->kept = true;
  }
  void refuse(caf::error why) const {
    shared_->promise.deliver(std::move(why));
    shared_->kept = true;
  }
  void refuse(fault code, std::string text) const {
    refuse(make_error(code, std::move(text)));
  }

private:
  struct shared {
    explicit shared(caf::typed_response_promise<T> x) : promise(std::move(x)) {}
    shared(const shared&) = delete;
    shared& operator=(const shared&) = delete;
    ~shared() {
      if (!kept)
        promise.deliver(
            make_error(fault::actor_failed, "the control actor has ended"));
    }

    caf::typed_response_promise<T> promise;
    bool kept = false;
  };

  std::shared_ptr<shared> shared_;
};

struct control_state {
  using pointer = control_actor::stateful_pointer<control_state>;
  using units_function = std::function<void(std::vector<unit_ref>)>;
  using status_function =
      std::function<void(std::vector<unit_ref>, std::vector<unit_status>)>;
  using error_function = std::function<void(caf::error)>;

  control_state() = default;

  static inline const char* name = "control";

  pointer self = nullptr;
  control_args args;
  bool stopping = false;
  // Scale requests whose judgement is due, one at a time: two that fit each by
  // itself may not fit together.
  struct scale_request {
    scale wanted;
    pledge<scale_report> answer;
  };
  std::deque<scale_request> scales;
  bool judging = false;

  void with_units(units_function done, error_function failed);
  void with_status(status_function done, error_function failed);
  unit_status unreachable(const unit_ref& unit) const;
  caf::result<supervisor_status> status(const get_status& request);
  void add_usage(supervisor_status status,
                 const pledge<supervisor_status>& answer);
  caf::result<scale_report> scale_unit(const scale& request);
  void judge_next();
  void judge(const scale_request& request, const std::vector<unit_ref>& refs,
             const std::vector<unit_status>& units);
  std::vector<std::string> faults_of(const scale& request,
                                     const std::vector<unit_status>& now) const;
  caf::result<report> operate_on(const operate& request);
  void operate_on(const operate& request, const std::vector<target>& chosen,
                  const std::vector<unit_ref>& refs,
                  const pledge<report>& answer);
  terminating shut_down();
  caf::error going_down() const {
    return make_error(fault::shutting_down,
                      "'" + args.identity.name + "' is shutting down");
  }
};

// What the root says about a unit. One it has forgotten was temporary, and gave
// up.
unit_ref unit_of(const std::string& id,
                 const std::vector<child_info>& children) {
  const auto x = std::find_if(
      children.begin(), children.end(),
      [id = unit_child_id(id)](const child_info& y) { return y.id == id; });
  if (x == children.end())
    return {id, {}, run_state::exhausted, "its actor failed too often"};
  if (x->handle)
    return {id, caf::actor_cast<cluster_actor>(x->handle)};
  if (x->state == child_state::stopped)
    return {id, {}, run_state::stopped, "its actor has ended"};
  return {id, {}, run_state::failed, "its actor failed and is being restarted"};
}

/// `units` with only what was chosen. An instance is shown inside its cluster,
/// without its siblings.
std::vector<unit_status> only(const std::vector<target>& chosen,
                              std::vector<unit_status> units) {
  const auto has = [&](const std::string& unit, std::uint32_t number) {
    return std::find(chosen.begin(), chosen.end(), target{unit, number})
           != chosen.end();
  };
  std::vector<unit_status> result;
  for (auto& unit : units) {
    const auto whole = has(unit.id, 0);
    if (!whole)
      std::erase_if(unit.instances, [&](const instance_status& x) {
        return !has(unit.id, x.slot);
      });
    if (whole || !unit.instances.empty())
      result.push_back(std::move(unit));
  }
  return result;
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
              refs.push_back(unit_of(unit.id, children));
            done(std::move(refs));
          },
          [failed = std::move(failed)](caf::error& why) {
            failed(std::move(why));
          });
}

unit_status control_state::unreachable(const unit_ref& unit) const {
  unit_status result;
  result.id = unit.id;
  result.state = unit.state;
  result.reason = unit.reason;
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

caf::result<supervisor_status> control_state::status(
    const get_status& request) {
  auto promise = self->make_response_promise<supervisor_status>();
  const pledge<supervisor_status> answer{promise};
  with_status(
      [this, answer, id = request.id](const std::vector<unit_ref>&,
                                      std::vector<unit_status> units) {
        auto result = args.identity;
        result.uptime_ms =
            std::chrono::duration_cast<std::chrono::milliseconds>(
                self->clock().now() - args.started)
                .count();
        const auto chosen = select(id.empty() ? "all" : id, units);
        if (chosen.empty() && !id.empty())
          return answer.refuse(fault::no_such_id, unknown_id(id, units));
        result.units = only(chosen, std::move(units));
        add_usage(std::move(result), answer);
      },
      [answer](caf::error why) { answer.refuse(std::move(why)); });
  return promise;
}

void control_state::add_usage(supervisor_status status,
                              const pledge<supervisor_status>& answer) {
  sample_usage wanted;
  wanted.pids.push_back(status.pid);
  for (const auto& unit : status.units)
    for (const auto& x : unit.instances)
      if (x.pid != 0)
        wanted.pids.push_back(x.pid);
  auto shared = std::make_shared<supervisor_status>(std::move(status));
  self->request(args.launcher, status_timeout, std::move(wanted))
      .then(
          [shared, answer](const std::vector<usage>& samples) {
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
            answer.keep(std::move(*shared));
          },
          [shared, answer](const caf::error&) {
            answer.keep(std::move(*shared));  // without them, rather than never
          });
}

// -- scale --------------------------------------------------------------------

std::vector<std::string> control_state::faults_of(
    const scale& request, const std::vector<unit_status>& now) const {
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
          x.cluster->instances +=
              std::min(request.count, bounds::instances + 1);
        else
          x.cluster->instances -= std::min(request.count, x.cluster->instances);
      }
  return check(wanted);
}

caf::result<scale_report> control_state::scale_unit(const scale& request) {
  if (stopping)
    return going_down();
  auto promise = self->make_response_promise<scale_report>();
  scales.push_back({request, pledge<scale_report>{promise}});
  if (!judging)
    judge_next();
  return promise;
}

void control_state::judge_next() {
  judging = !scales.empty();
  if (!judging)
    return;
  auto request = std::move(scales.front());
  scales.pop_front();
  with_status(
      [this, request](const std::vector<unit_ref>& refs,
                      const std::vector<unit_status>& units) {
        judge(request, refs, units);
        // The unit has the request in its mailbox before it is asked again.
        judge_next();
      },
      [this, request](caf::error why) {
        request.answer.refuse(std::move(why));
        judge_next();
      });
}

void control_state::judge(const scale_request& request,
                          const std::vector<unit_ref>& refs,
                          const std::vector<unit_status>& units) {
  auto wanted = request.wanted;
  const auto& answer = request.answer;
  const auto chosen = select(wanted.id, units);
  if (chosen.empty())
    return answer.refuse(fault::no_such_id, unknown_id(wanted.id, units));
  if (chosen.size() > 1)
    return answer.refuse(fault::bad_request,
                         "'" + wanted.id
                           + "' means more than one cluster; scale them one "
                             "by one");
  if (chosen.front().slot != 0)
    return answer.refuse(fault::bad_request,
                         "'" + wanted.id + "' is one instance; scale '"
                             + chosen.front().unit + "', its cluster");
  wanted.id = chosen.front().unit;
  const auto& unit = ref_of(refs, wanted.id);
  if (!unit.handle)
    return answer.refuse(fault::bad_request,
                         "'" + unit.id + "': " + unit.reason);
  if (const auto faults = faults_of(wanted, units); !faults.empty())
    return answer.refuse(fault::bad_request, faults.front());
  self->request(unit.handle, caf::infinite, std::move(wanted))
      .then([answer](scale_report& x) { answer.keep(std::move(x)); },
            [answer](caf::error& why) { answer.refuse(std::move(why)); });
}

// -- operate ------------------------------------------------------------------

caf::result<report> control_state::operate_on(const operate& request) {
  if (stopping)
    return going_down();
  auto promise = self->make_response_promise<report>();
  const pledge<report> answer{promise};
  with_status(
      [this, answer, request](const std::vector<unit_ref>& refs,
                              const std::vector<unit_status>& units) {
        const auto chosen = select(request.selector, units);
        if (chosen.empty() && request.selector != "all")
          return answer.refuse(fault::no_such_id,
                               unknown_id(request.selector, units));
        operate_on(request, chosen, refs, answer);
      },
      [answer](caf::error why) { answer.refuse(std::move(why)); });
  return promise;
}

void control_state::operate_on(const operate& request,
                               const std::vector<target>& chosen,
                               const std::vector<unit_ref>& refs,
                               const pledge<report>& answer) {
  auto answers = std::make_shared<gathering<report>>(
      chosen.size(), [answer](std::vector<report> all) {
        report whole;
        for (auto& x : all)
          std::move(x.outcomes.begin(), x.outcomes.end(),
                    std::back_inserter(whole.outcomes));
        answer.keep(std::move(whole));
      });
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const auto& x = chosen[i];
    const auto& unit = ref_of(refs, x.unit);
    const auto failed = [id = x.slot == 0 ? x.unit
                                          : instance_id(x.unit, x.slot)](
                            const std::string& why) {
      return report{{{id, false, why}}};
    };
    if (!unit.handle) {
      answers->put(i, failed(unit.reason));
      continue;
    }
    self->request(unit.handle, caf::infinite,
                  operate_unit{request.what, x.slot, request.wait})
        .then([answers, i](report& y) { answers->put(i, std::move(y)); },
              [answers, i, failed](const caf::error& why) {
                answers->put(i, failed(text_of(why)));
              });
  }
}

// A second exit message would kill what the first has asked to stop.
terminating control_state::shut_down() {
  if (!std::exchange(stopping, true))
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
      [self](const operate& request) {
        return self->state.operate_on(request);
      },
      [self](terminate) { return self->state.shut_down(); },
  };
}

}  // namespace

control_actor spawn_control(caf::local_actor* parent, control_args args) {
  return parent->spawn(control_behavior, std::move(args));
}

}  // namespace pup
