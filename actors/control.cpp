#include "pup/actors/applying.hpp"
#include "pup/actors/pledge.hpp"
#include "pup/actors/selector.hpp"
#include "pup/actors/sequence.hpp"
#include "pup/actors/slot.hpp"
#include "pup/actors/spawn.hpp"
#include "pup/actors/supervisor.hpp"
#include "pup/config/load.hpp"

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace pup {

namespace {

// From whoever reads it, on another thread.
struct config_read {
  std::uint64_t number = 0;
  loaded result;
};

// To itself: whether that has not come.
struct config_overdue {
  std::uint64_t number = 0;
};

}  // namespace

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::pup_spec)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::config_read)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::config_overdue)

namespace pup {

namespace {

using control_self = control_actor::extend<caf::reacts_to<config_read>,
                                           caf::reacts_to<config_overdue>>;

// A disk that is stuck must not keep the answer from anyone.
constexpr std::chrono::seconds settle_timeout{5};

// Units answer a status at once; one that does not within this time is shown
// as failed rather than keeping the status of the others.
constexpr std::chrono::seconds status_timeout{2};

// A configuration names files and accounts; whoever keeps those may be slow, or
// never answer. Then those who wait behind it have their turn.
constexpr std::chrono::seconds load_timeout{30};

/// A unit as the root knows it. The handle is empty while the root waits to
/// restart it, has stopped it or given it up: then `reason` says which.
struct unit_ref {
  std::string id;
  cluster_actor handle;
  run_state state = run_state::failed;
  std::string reason = "its actor does not answer";
};

struct control_state {
  using pointer = control_self::stateful_pointer<control_state>;
  using units_function = std::function<void(std::vector<unit_ref>)>;
  using status_function =
      std::function<void(std::vector<unit_ref>, std::vector<unit_status>)>;
  using chosen_function = std::function<void(const std::vector<target>&,
                                             const std::vector<unit_ref>&,
                                             const std::vector<unit_status>&)>;
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
  // One at a time: each sees what its predecessor has left.
  struct apply_request {
    apply wanted;
    pledge<apply_report> answer;
  };
  std::deque<apply_request> applies;
  bool applying = false;
  // The configuration that is being read for the first of them. 0: none is.
  std::uint64_t reading = 0;
  std::uint64_t last_reading = 0;
  std::function<std::string()> awaited;  // what that waits for

  void with_units(units_function done, error_function failed);
  void with_status(status_function done, error_function failed);
  template <class Answer>
  void with_chosen(const std::string& selector, const pledge<Answer>& answer,
                   chosen_function done);
  unit_status unreachable(const unit_ref& unit) const;
  caf::result<supervisor_status> status(const get_status& request);
  void add_usage(supervisor_status status,
                 const pledge<supervisor_status>& answer);
  template <class T>
  void keep_when_settled(const pledge<T>& answer, T value);
  caf::result<scale_report> scale_unit(const scale& request);
  void judge_next();
  void judge(const scale_request& request, const std::vector<unit_ref>& refs,
             const std::vector<unit_status>& units);
  std::vector<std::string> faults_of(const scale& request,
                                     const std::vector<unit_status>& now) const;
  caf::result<report> operate_on(const operate& request);
  template <class Make>
  void tell_all(const std::vector<target>& chosen,
                const std::vector<unit_ref>& refs, Make make,
                std::function<void(std::vector<report>)> done);
  struct running_sequence;
  void begin_sequence(const operate& request, const std::vector<target>& chosen,
                      const std::vector<unit_ref>& refs,
                      const std::vector<unit_status>& units,
                      const pledge<report>& answer);
  void next_stage(const std::shared_ptr<running_sequence>& x);
  caf::result<report> signal(const signal_units& request);
  caf::result<history_report> history_of(const get_history& request);
  caf::result<apply_report> apply_text(apply& request);
  void apply_next();
  void read_config(config_read& fact);
  void give_up_reading(const config_overdue& x);
  void apply_to(const pup_spec& wanted, const std::vector<unit_status>& units);
  void answer_apply(apply_report answer);
  void refuse_apply(caf::error why);
  void now_runs(const apply& x);
  void remember();
  terminating shut_down();
  caf::error going_down() const {
    return make_error(fault::shutting_down,
                      "'" + args.identity.name + "' is shutting down");
  }
};

// Hundreds are looked up among hundreds.
template <class T>
std::unordered_map<std::string_view, const T*> by_id(
    const std::vector<T>& all) {
  std::unordered_map<std::string_view, const T*> result;
  for (const auto& x : all)
    result.emplace(x.id, &x);
  return result;
}

// What the root says about a unit. One it has forgotten was temporary, and gave
// up.
unit_ref unit_of(const std::string& id, const child_info* x) {
  if (x == nullptr)
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
  std::set<std::pair<std::string_view, std::uint32_t>> all;
  for (const auto& x : chosen)
    all.emplace(x.unit, x.slot);
  const auto has = [&](const std::string& unit, std::uint32_t number) {
    return all.contains({unit, number});
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

report joined(std::vector<report> all) {
  report whole;
  for (auto& x : all)
    std::move(x.outcomes.begin(), x.outcomes.end(),
              std::back_inserter(whole.outcomes));
  return whole;
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
  // Without a limit of its own: the root has much to write down while hundreds
  // start, and whoever asks has one.
  self->request(args.root, caf::infinite, which_children{})
      .then(
          [this, done = std::move(done)](std::vector<child_info>& children) {
            std::vector<unit_ref> refs;
            const auto known = by_id(children);
            for (const auto& unit : args.spec.processes) {
              const auto i = known.find(unit_child_id(unit.id));
              const auto* child = i == known.end() ? nullptr : i->second;
              if (!applying || child != nullptr)
                refs.push_back(unit_of(unit.id, child));
            }
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

/// The same with what `selector` means. Refuses one that means nothing.
template <class Answer>
void control_state::with_chosen(const std::string& selector,
                                const pledge<Answer>& answer,
                                chosen_function done) {
  with_status(
      [answer, selector, done = std::move(done)](
          const std::vector<unit_ref>& refs,
          const std::vector<unit_status>& units) {
        const auto chosen = select(selector, units);
        if (chosen.empty() && selector != "all")
          return answer.refuse(fault::no_such_id, unknown_id(selector, units));
        done(chosen, refs, units);
      },
      [answer](caf::error why) { answer.refuse(std::move(why)); });
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
        if (args.warnings)
          result.warnings = args.warnings();
        const auto chosen = select(id.empty() ? "all" : id, units);
        if (chosen.empty() && !id.empty())
          return answer.refuse(fault::no_such_id, unknown_id(id, units));
        result.units = only(chosen, std::move(units));
        add_usage(std::move(result), answer);
      },
      [answer](caf::error why) { answer.refuse(std::move(why)); });
  return promise;
}

/// One that has ended is not ready, whoever has been told by now: its guardian
/// may be stopped.
static void show_end(unit_status& unit, instance_status& x) {
  if (x.state != run_state::ready)
    return;
  x.state = run_state::stopping;
  x.reason = "pid " + std::to_string(x.pid) + " has ended";
  x.pid = 0;
  unit.ready -= std::min(unit.ready, 1U);
  if (!unit.is_cluster)
    unit.state = x.state;
  else if (unit.state == run_state::running)
    unit.state = run_state::degraded;
  if (unit.reason.empty())
    unit.reason = x.reason;
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
                  x.log_lost_lines = i->second->log_lost_lines;
                  x.log_lost_bytes = i->second->log_lost_bytes;
                  if (i->second->ended)
                    show_end(unit, x);
                }
            answer.keep(std::move(*shared));
          },
          [shared, answer](const caf::error&) {
            answer.keep(std::move(*shared));  // without them, rather than never
          });
}

// -- what is done stays done --------------------------------------------------

/// Units have sent the root what they keep before they answered, so the memory
/// knows it once the root has answered, too.
template <class T>
void control_state::keep_when_settled(const pledge<T>& answer, T value) {
  if (!args.memory)
    return answer.keep(std::move(value));
  auto shared = std::make_shared<T>(std::move(value));
  const auto done = [shared, answer] { answer.keep(std::move(*shared)); };
  const auto anyway = [done](const caf::error&) { done(); };
  self->request(args.root, settle_timeout, which_children{})
      .then(
          [this, done, anyway](const std::vector<child_info>&) {
            self->request(args.memory, settle_timeout, settle{})
                .then(done, anyway);
          },
          anyway);
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
  const auto& unit = *by_id(refs).at(wanted.id);
  if (!unit.handle)
    return answer.refuse(fault::bad_request,
                         "'" + unit.id + "': " + unit.reason);
  if (const auto faults = faults_of(wanted, units); !faults.empty())
    return answer.refuse(fault::bad_request, faults.front());
  self->request(unit.handle, caf::infinite, std::move(wanted))
      .then([this, answer](
                scale_report& x) { keep_when_settled(answer, std::move(x)); },
            [answer](caf::error& why) { answer.refuse(std::move(why)); });
}

// -- operate ------------------------------------------------------------------

caf::result<report> control_state::operate_on(const operate& request) {
  if (stopping)
    return going_down();
  auto promise = self->make_response_promise<report>();
  const pledge<report> answer{promise};
  with_chosen(request.selector, answer,
              [this, answer, request](const std::vector<target>& chosen,
                                      const std::vector<unit_ref>& refs,
                                      const std::vector<unit_status>& units) {
                begin_sequence(request, chosen, refs, units, answer);
              });
  return promise;
}

struct control_state::running_sequence {
  sequence stages;
  std::size_t next = 0;
  bool wait = true;
  std::string caller;
  std::vector<unit_ref> refs;
  report whole;
  std::function<void(report)> done;
};

void control_state::begin_sequence(const operate& request,
                                   const std::vector<target>& chosen,
                                   const std::vector<unit_ref>& refs,
                                   const std::vector<unit_status>& units,
                                   const pledge<report>& answer) {
  auto x = std::make_shared<running_sequence>();
  x->stages = sequence_of(args.spec, request.what, chosen, units);
  x->wait = request.wait;
  x->caller = request.caller;
  x->refs = refs;
  x->done = [this, answer](report whole) {
    keep_when_settled(answer, std::move(whole));
  };
  // Who does not want to wait gets an answer, but the stages have to.
  if (request.what == verb::stop && !request.wait && x->stages.size() > 1) {
    report begun;
    for (const auto& y : chosen)
      begun.outcomes.push_back(
          {y.slot == 0 ? y.unit : instance_id(y.unit, y.slot), true, "begun"});
    answer.keep(std::move(begun));
    x->wait = true;
    x->done = [](const report&) {};
  }
  next_stage(x);
}

void control_state::next_stage(const std::shared_ptr<running_sequence>& x) {
  if (x->next == x->stages.size())
    return x->done(std::move(x->whole));
  const auto& stage = x->stages[x->next++];
  std::vector<target> targets;
  for (const auto& y : stage)
    targets.push_back(y.to);
  tell_all(
      targets, x->refs,
      [&](std::size_t i) {
        operate_unit order{stage[i].what, stage[i].to.slot,
                           x->wait && !stage[i].ahead, x->caller};
        if (order.what == verb::reload)
          order.spares = spare_ports_of(stage[i].to.unit, args.spec);
        return order;
      },
      [this, x, &stage](std::vector<report> all) {
        for (std::size_t i = 0; i < all.size(); ++i)
          for (auto& y : all[i].outcomes) {
            if (stage[i].ahead)
              continue;
            if (!stage[i].note.empty())
              y.text += "; " + stage[i].note;
            x->whole.outcomes.push_back(std::move(y));
          }
        next_stage(x);
      });
}

caf::result<report> control_state::signal(const signal_units& request) {
  if (stopping)
    return going_down();
  auto promise = self->make_response_promise<report>();
  const pledge<report> answer{promise};
  with_chosen(request.selector, answer,
              [this, answer, request](const std::vector<target>& chosen,
                                      const std::vector<unit_ref>& refs,
                                      const std::vector<unit_status>&) {
                tell_all(
                    chosen, refs,
                    [request, chosen](std::size_t i) {
                      return signal_slots{chosen[i].slot, request.signal,
                                          request.caller};
                    },
                    [answer](std::vector<report> all) {
                      answer.keep(joined(std::move(all)));
                    });
              });
  return promise;
}

// -- history ------------------------------------------------------------------

caf::result<history_report> control_state::history_of(
    const get_history& request) {
  auto promise = self->make_response_promise<history_report>();
  const pledge<history_report> answer{promise};
  const auto ask = [this, answer](const std::vector<target>& chosen,
                                  const std::vector<unit_ref>& refs,
                                  const std::vector<unit_status>& units) {
    auto answers = std::make_shared<gathering<history_report>>(
        chosen.size(), [answer](std::vector<history_report> all) {
          history_report whole;
          for (auto& x : all)
            std::move(x.instances.begin(), x.instances.end(),
                      std::back_inserter(whole.instances));
          answer.keep(std::move(whole));
        });
    const auto known = by_id(refs);
    const auto states = by_id(units);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const auto& unit = *known.at(chosen[i].unit);
      // Whoever has no actor has no history, but a state.
      const auto& now = *states.at(unit.id);
      history_report bare;
      bare.instances.push_back({now.id, now.state, now.reason, {}, {}, 0});
      if (!unit.handle) {
        answers->put(i, std::move(bare));
        continue;
      }
      self->request(unit.handle, status_timeout,
                    get_unit_history{chosen[i].slot})
          .then(
              [answers, i](history_report& x) {
                answers->put(i, std::move(x));
              },
              [answers, i, bare](const caf::error&) { answers->put(i, bare); });
    }
  };
  with_chosen(request.selector, answer, ask);
  return promise;
}

/// Sends what `make` makes for a target to each unit and gathers the reports.
template <class Make>
void control_state::tell_all(const std::vector<target>& chosen,
                             const std::vector<unit_ref>& refs, Make make,
                             std::function<void(std::vector<report>)> done) {
  auto answers =
      std::make_shared<gathering<report>>(chosen.size(), std::move(done));
  const auto known = by_id(refs);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const auto& x = chosen[i];
    const auto& unit = *known.at(x.unit);
    const auto failed = [id = x.slot == 0 ? x.unit
                                          : instance_id(x.unit, x.slot)](
                            const std::string& why) {
      return report{{{id, false, why}}};
    };
    if (!unit.handle) {
      answers->put(i, failed(unit.reason));
      continue;
    }
    self->request(unit.handle, caf::infinite, make(i))
        .then([answers, i](report& y) { answers->put(i, std::move(y)); },
              [answers, i, failed](const caf::error& why) {
                answers->put(i, failed(text_of(why)));
              });
  }
}

// -- apply --------------------------------------------------------------------

caf::result<apply_report> control_state::apply_text(apply& request) {
  if (stopping)
    return going_down();
  auto promise = self->make_response_promise<apply_report>();
  applies.push_back({std::move(request), pledge<apply_report>{promise}});
  if (applies.size() == 1)
    apply_next();
  return promise;
}

// The first of the queue is at work.
void control_state::apply_next() {
  if (applies.empty())
    return;
  const auto& request = applies.front();
  if (!args.load)
    return refuse_apply(make_error(
        fault::bad_request, "'" + args.identity.name
                                + "' cannot read configurations: it is part of "
                                  "another program"));
  reading = ++last_reading;
  awaited = args.load(
      request.wanted, [to = self->address(), number = reading](loaded x) {
        if (auto me = caf::actor_cast<caf::strong_actor_ptr>(to))
          caf::anon_send(caf::actor_cast<control_self>(std::move(me)),
                         config_read{number, std::move(x)});
      });
  self->delayed_send(self, load_timeout, config_overdue{reading});
}

void control_state::give_up_reading(const config_overdue& x) {
  if (x.number != reading)
    return;
  reading = 0;
  const auto what = awaited ? awaited() : std::string{};
  refuse_apply(make_error(
      fault::bad_request,
      applies.front().wanted.file + ": is not read after "
          + std::to_string(load_timeout.count()) + " s"
          + (what.empty() ? "" : ", waiting for " + what)
          + "; nothing has changed, apply it again when that answers"));
}

void control_state::read_config(config_read& fact) {
  if (fact.number != reading)
    return;  // it was given up
  reading = 0;
  const auto& request = applies.front();
  if (!fact.result.refusal.empty())
    return refuse_apply(make_error(
        fault::bad_request, request.wanted.file + ": " + fact.result.refusal));
  auto& content = fact.result.content;
  if (const auto* faults = std::get_if<std::vector<diagnostic>>(&content)) {
    apply_report answer;
    for (const auto& x : *faults)
      answer.faults.push_back(to_string(x));
    return answer_apply(std::move(answer));
  }
  auto wanted =
      std::make_shared<pup_spec>(std::move(std::get<pup_spec>(content)));
  if (wanted->name != args.spec.name)
    return answer_apply(
        {{request.wanted.file + ": name: '" + wanted->name + "' is not '"
          + args.spec.name + "', which runs; start it with pup start"},
         {},
         {}});
  with_status(
      [this, wanted](const std::vector<unit_ref>&,
                     const std::vector<unit_status>& units) {
        apply_to(*wanted, units);
      },
      [this](caf::error why) { refuse_apply(std::move(why)); });
}

void control_state::apply_to(const pup_spec& wanted,
                             const std::vector<unit_status>& units) {
  std::map<std::string, std::uint32_t> desired;
  for (const auto& x : units)
    if (x.is_cluster)
      desired[x.id] = x.desired;
  auto change = change_of(args.spec, wanted, desired);
  apply_report answer;
  answer.plan = plan_of(change);
  const auto& request = applies.front();
  if (request.wanted.dry_run)
    return answer_apply(std::move(answer));
  if (answer.plan.empty()) {
    now_runs(request.wanted);
    return answer_apply(std::move(answer));
  }
  if (!request.wanted.wait)
    request.answer.keep(answer);
  // Meanwhile all are known that are, will be or were there.
  const auto from = args.spec;
  args.spec.processes = wanted.processes;
  for (const auto& x : from.processes)
    if (std::find(change.stopped.begin(), change.stopped.end(), x.id)
        != change.stopped.end())
      args.spec.processes.push_back(x);
  applying = true;
  const auto worker =
      spawn_applying(self, {args.root, from, wanted, std::move(change),
                            args.unit, request.wanted.caller});
  self->request(worker, caf::infinite, carry_out{})
      .then(
          [this, answer](carried_out& x) mutable {
            applying = false;
            args.spec = std::move(x.spec);
            if (std::all_of(x.outcomes.begin(), x.outcomes.end(),
                            [](const outcome& y) { return y.ok; }))
              now_runs(applies.front().wanted);
            else
              remember();
            answer.outcomes = std::move(x.outcomes);
            answer_apply(std::move(answer));
          },
          [this, from](caf::error& why) {
            applying = false;
            args.spec = from;
            refuse_apply(std::move(why));
          });
}

void control_state::answer_apply(apply_report answer) {
  applies.front().answer.keep(std::move(answer));
  applies.pop_front();
  apply_next();
}

void control_state::refuse_apply(caf::error why) {
  applies.front().answer.refuse(std::move(why));
  applies.pop_front();
  apply_next();
}

// What runs is what this says: all of it, not only what could be changed.
void control_state::now_runs(const apply& x) {
  args.identity.config = path_of(x);
  if (args.applied)
    args.applied(x);
  remember();
}

// For a next life: what runs is no longer what it is spawned with.
void control_state::remember() {
  self->send(args.root,
             keep{caf::make_message(args.spec, args.identity.config)});
}

// A second exit message would kill what the first has asked to stop.
terminating control_state::shut_down() {
  if (!std::exchange(stopping, true))
    self->send_exit(args.root, caf::exit_reason::user_shutdown);
  return {args.last_pid != 0 ? args.last_pid : args.identity.pid};
}

control_self::behavior_type control_behavior(control_state::pointer self,
                                             control_args args) {
  self->state.self = self;
  self->state.args = std::move(args);
  auto& mine = self->state.args;
  if (mine.kept.match_elements<pup_spec, std::string>()) {
    mine.spec = mine.kept.get_as<pup_spec>(0);
    mine.identity.config = mine.kept.get_as<std::string>(1);
  }
  self->set_default_handler(caf::drop);
  return {
      [self](const get_status& request) { return self->state.status(request); },
      [self](const scale& request) { return self->state.scale_unit(request); },
      [self](const operate& request) {
        return self->state.operate_on(request);
      },
      [self](const signal_units& request) {
        return self->state.signal(request);
      },
      [self](const get_history& request) {
        return self->state.history_of(request);
      },
      [self](apply& request) { return self->state.apply_text(request); },
      [self](terminate) { return self->state.shut_down(); },
      [self](config_read& x) { self->state.read_config(x); },
      [self](const config_overdue& x) { self->state.give_up_reading(x); },
  };
}

}  // namespace

control_actor spawn_control(caf::local_actor* parent, control_args args) {
  return parent->spawn(control_behavior, std::move(args));
}

}  // namespace pup
