// Lives that are replaced one after the other: a reload, or other values of the
// configuration and the way back from them.
#include "pup/actors/cluster_state.hpp"

#include <algorithm>
#include <utility>

namespace pup {

namespace {

// A spare whose port is taken tries the next one. More than a few in a row are
// no accident: then there is none.
constexpr std::uint32_t spare_attempts = 8;

// Longer than the balancer waits for the proxy.
constexpr std::chrono::seconds listener_timeout{15};

}  // namespace

// -- step by step -------------------------------------------------------------

void cluster_state::roll() {
  if (!rolling)
    return;
  for (auto& x : slots)
    if (x.awaited && x.wanted && !x.outdated && serves(x)) {
      x.awaited = false;
      pending.settle(x.number, direction::renewed,
                     outcome_of(x, true, "ready"));
    }
  while (rolling && carry_out(step_after(rollout_slots(), rolling->limits))) {}
}

/// Whether another step may follow at once.
bool cluster_state::carry_out(const rollout_step& step) {
  const auto chosen =
      std::find_if(slots.begin(), slots.end(),
                   [&](const slot& x) { return x.number == step.number; });
  switch (step.what) {
    case rollout_step::kind::surge:
      start_spare();
      return true;
    case rollout_step::kind::replace:
      bounce(*chosen);
      return true;
    case rollout_step::kind::retire:
      want_down(*chosen);
      return true;
    case rollout_step::kind::done:
      end_rollout();
      return false;
    case rollout_step::kind::wait:
      return false;
  }
  return false;
}

std::vector<rollout_slot> cluster_state::rollout_slots() const {
  std::vector<rollout_slot> result;
  for (const auto& x : slots) {
    const auto lives = x.now != phase::resting && x.now != phase::backoff;
    // Nobody waits for what has failed and is not to be replaced.
    if (x.spare ? !lives
                : !x.wanted || x.number > desired || !(lives || x.outdated))
      continue;
    const auto serving = x.wanted && serves(x);
    result.push_back(
        {x.number, x.outdated, serving, !x.outdated && !serving, x.spare});
  }
  return result;
}

void cluster_state::start_spare() {
  const auto number = number_of_next_spare();
  if (number == 0)
    return without_spare("no port is left for a spare");
  grow(number);
  slots.back().spare = true;
  want_up(slots.back());
}

/// 0: there is none.
std::uint32_t cluster_state::number_of_next_spare() const {
  const auto& ports = rolling->ports;
  const auto start = spec().cluster->start_port;
  const auto first =
      std::max(static_cast<std::uint32_t>(slots.size()), rolling->last_tried);
  for (auto n = first + 1; n <= bounds::instances; ++n) {
    const auto port = start + n - 1;
    if (start == 0)
      return n;
    if (port > ports.last)
      return 0;
    if (std::find(ports.taken.begin(), ports.taken.end(), port)
        == ports.taken.end())
      return n;
  }
  return 0;
}

// Fewer serve for a while, unless the configuration forbids it.
void cluster_state::without_spare(const std::string& why) {
  if (spec().cluster->max_unavailable == 0u)
    return stop_rollout(why + ", and maxUnavailable is 0");
  rolling->limits = {0, std::max(rolling->limits.unavailable, 1u)};
  rolling->remark = "; without a spare: " + why;
}

void cluster_state::spare_ended(slot& x) {
  x.wanted = false;
  x.outdated = false;
  come_to_rest(x, run_state::stopped, {});
}

// A life that began in the roll-out has ended by itself: those that would
// follow would be no better.
void cluster_state::judge_trial(slot& x, const ending& how) {
  if (!rolling || !std::exchange(x.trial, false) || x.blocked
      || state_of(x) == run_state::finished)
    return;
  const auto id = slot_id(spec(), x.number);
  if (!x.spare)
    return stop_rollout(id + ": " + x.reason);
  if (how.what != ending::kind::not_launched || how.code != ending::port_taken)
    return stop_rollout(id + ", a spare: " + to_string(how));
  rolling->last_tried = x.number;
  if (--rolling->attempts_left == 0)
    without_spare(how.text);
}

void cluster_state::end_rollout() {
  const auto verdict = std::exchange(rolling->verdict, {});
  const auto text = "reloaded" + rolling->remark;
  rolling.reset();
  for (auto& x : slots)
    x.trial = false;
  const auto runs = std::any_of(slots.begin(), slots.end(),
                                [](const slot& x) { return x.wanted; });
  if (!verdict.empty())
    pending.settle(rollout_goal, direction::renewed,
                   {spec().id, false, verdict});
  else
    pending.settle(
        rollout_goal, direction::renewed,
        {spec().id, runs, runs ? text : "stopped by a later request"});
}

// What was not replaced goes on as before.
void cluster_state::stop_rollout(const std::string& why) {
  if (!rolling)
    return;
  const auto failed = *std::exchange(rolling, std::nullopt);
  auto text = failed.verdict.empty() ? "the reload stopped: " + why
                                     : failed.verdict + "; then " + why;
  const auto back = failed.before && !stopping;
  if (back)
    current = failed.before;
  for (auto& x : slots) {
    x.trial = false;
    const auto untouched = std::exchange(x.outdated, false);
    if (x.spare)
      want_down(x);
    else if (untouched)
      pending.settle(x.number, direction::renewed,
                     outcome_of(x, false, "not reloaded, goes on as before"));
    else
      pending.settle(
          x.number, direction::renewed,
          outcome_of(x, false, x.reason.empty() ? "not ready yet" : x.reason));
  }
  if (back)
    return go_back(failed, text + "; the former configuration is back");
  pending.settle(rollout_goal, direction::renewed,
                 {spec().id, false, std::move(text)});
}

// -- reload -------------------------------------------------------------------

// What runs, or would if it did not fail. A roll-out that is under way goes on
// with this one: what it has replaced already is replaced again.
caf::result<report> cluster_state::reload(
    const operate_unit& request, const std::vector<std::uint32_t>& numbers) {
  pending_operation op;
  auto some = false;
  for (auto& x : slots)
    if (std::find(numbers.begin(), numbers.end(), x.number) != numbers.end())
      some = mark(x, request.slot != 0, op) || some;
  if (some) {
    rolling = rollout_to(request.spares);
    mark_spares();
    if (spec().cluster)
      op.expect(rollout_goal, direction::renewed);
  }
  return answer_when_done<report>(std::move(op), request.wait,
                                  [](std::vector<outcome> outcomes) {
                                    return report{std::move(outcomes)};
                                  });
}

/// Whether there is something to replace. `alone`: nothing else was asked for.
bool cluster_state::mark(slot& x, bool alone, pending_operation& op) {
  const auto leave_out = [&](const std::string& why, const char* remedy) {
    op.reached(x.number, direction::renewed,
               outcome_of(x, !alone,
                          why
                              + (alone ? "; pup " + std::string{remedy} + ' '
                                             + slot_id(spec(), x.number)
                                       : ", left as it is")));
    return false;
  };
  if (x.blocked)
    return leave_out("is blocked", "unblock");
  if (!x.wanted || (x.now == phase::resting && x.rest == run_state::finished))
    return leave_out("is " + to_string(state_of(x)), "start");
  // What ends is followed by a new life anyway.
  x.outdated = x.now != phase::draining && x.now != phase::stopping;
  x.trial = false;
  x.awaited = true;
  op.expect(x.number, direction::renewed);
  return true;
}

// Those of an earlier roll-out, which this one takes over.
void cluster_state::mark_spares() {
  for (auto& x : slots)
    x.outdated = x.outdated || (x.spare && x.wanted);
}

rollout cluster_state::rollout_to(const spare_ports& ports) const {
  return {limits_of(spec()), ports, 0, spare_attempts, {}, {}, {}, {}};
}

// -- another configuration ----------------------------------------------------

// The listener first: where it cannot move nothing else changes.
caf::result<reconfigured> cluster_state::become(reconfigure& request) {
  if (stopping)
    return make_error(fault::shutting_down,
                      "'" + spec().id + "' is shutting down");
  const auto how = change_of(spec(), request.spec, desired);
  if (!how.replaced.empty())
    return make_error(fault::bad_request,
                      "'" + spec().id + "' cannot become that while it runs");
  auto promise = self->make_response_promise<reconfigured>();
  const pledge<reconfigured> answer{
      promise, "'" + spec().id + "': its actor failed; apply again"};
  auto wanted = std::make_shared<const process_spec>(std::move(request.spec));
  if (!balancer || spec().cluster == wanted->cluster) {
    take_over(std::move(wanted), request.spares, request.caller, answer);
    return promise;
  }
  self->request(balancer, listener_timeout, retune_listener{*wanted->cluster})
      .then([this, wanted, answer, ports = std::move(request.spares),
             caller = std::move(
                 request.caller)] { take_over(wanted, ports, caller, answer); },
            [this, answer](const caf::error& why) {
              answer.keep({false, {{spec().id, false, text_of(why)}}});
            });
  return promise;
}

void cluster_state::take_over(std::shared_ptr<const process_spec> wanted,
                              const spare_ports& ports,
                              const std::string& caller,
                              const pledge<reconfigured>& answer) {
  if (stopping)
    return answer.refuse(fault::shutting_down,
                         "'" + spec().id + "' is shutting down");
  const auto how = change_of(spec(), *wanted, desired);
  auto before = std::exchange(current, wanted);
  for (const auto& x : slots)
    note(x, event_kind::asked, "apply" + by(caller));
  tune_all();
  if (before->watch != spec().watch || before->watcher != spec().watcher)
    start_watching();
  if (before->cron != spec().cron
      || before->terminate_cron != spec().terminate_cron
      || before->time_zone != spec().time_zone)
    restart_schedule();
  pending_operation op;
  if (!how.renewed.empty()) {
    rolling = rollout_to(ports);
    rolling->before = std::move(before);
    rolling->scaled = how.scaled;
    for (auto& x : slots)
      if (x.number <= desired)
        mark(x, false, op);
    mark_spares();
    op.expect(rollout_goal, direction::renewed);
  } else {
    for (auto& x : slots)
      if (!x.outdated)
        x.of = current;
  }
  if (how.scaled)
    grow_to(how.scaled->second, op);
  op.answer = [this, wanted, answer](std::vector<outcome> outcomes) {
    answer.keep({current == wanted, std::move(outcomes)});
  };
  op.fail = [answer](const caf::error& why) { answer.refuse(why); };
  pending.add(std::move(op));
  tidy();
}

// To more or fewer. One that was stopped as a whole only learns its number.
void cluster_state::grow_to(std::uint32_t count, pending_operation& op) {
  const auto runs = std::any_of(slots.begin(), slots.end(),
                                [](const slot& x) { return x.wanted; })
                    || (desired == 0 && listening);
  const auto from = std::exchange(desired, count);
  grow(desired);
  for (auto& x : slots)
    x.spare = x.spare && x.number > desired;
  scale_down(desired, op);
  for (auto& x : slots)
    if (runs && x.number > from && x.number <= desired) {
      want_up(x);
      expect(op, x, direction::up);
    }
}

void cluster_state::tune_all() {
  for (auto& x : slots) {
    if (x.rules)
      x.rules = rules_of(spec());
    if (x.handle)
      self->send(
          x.handle,
          retune{spec().terminate_grace_period, spec().terminate_timeout,
                 spec().stop_signal, spec().hooks,
                 spec().cluster ? spec().cluster->health : std::nullopt});
  }
}

// After a life by the new configuration has failed; `current` is the former
// one again. Whoever has left it returns, one after the other.
void cluster_state::go_back(const rollout& failed, std::string verdict) {
  rolling = rollout_to({});
  rolling->limits = {0, std::max(rolling->limits.unavailable, 1u)};
  rolling->verdict = std::move(verdict);
  tune_all();
  restart_schedule();
  start_watching();
  if (balancer)
    self->request(balancer, listener_timeout, retune_listener{*spec().cluster})
        .then([] {},
              [](const caf::error&) {
                // it stays where it is, and says so
              });
  if (failed.scaled && failed.scaled->second == desired) {
    pending_operation unasked;
    unasked.answer = [](const std::vector<outcome>&) {};
    unasked.fail = [](const caf::error&) {};
    grow_to(failed.scaled->first, unasked);
    pending.add(std::move(unasked));
  }
  for (auto& x : slots)
    x.outdated = x.wanted && !x.spare && x.of && *x.of != spec()
                 && x.now != phase::draining && x.now != phase::stopping;
}

}  // namespace pup
