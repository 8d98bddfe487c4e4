// What command lines ask of a unit, and the answers.
#include "pup/actors/cluster_state.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace pup {

namespace {

std::string word_of(verb x) {
  switch (x) {
    case verb::start:
      return "start";
    case verb::stop:
      return "stop";
    case verb::restart:
      return "restart";
    case verb::await:
      return "await";
    case verb::block:
      return "block";
    case verb::unblock:
      return "unblock";
    case verb::reload:
      return "reload";
  }
  return "?";
}

// Adds what only the proxy knows.
void add_traffic(unit_status& status, const traffic& now) {
  auto& b = *status.balancer;
  if (now.port != 0)
    b.port = now.port;
  const auto known = [&now](std::uint64_t number) {
    return now.counted ? std::optional{number} : std::nullopt;
  };
  b.connections_active = now.active;
  b.connections_total = known(now.total);
  b.bytes_in = known(now.bytes_in);
  b.bytes_out = known(now.bytes_out);
  b.rejected = known(now.rejected);
  for (auto& instance : status.instances) {
    std::uint64_t total = 0;
    for (const auto& x : now.backends)
      if (instance.slot == x.slot) {
        instance.connections_active += x.active;
        total += x.total;
      }
    instance.connections_total = known(total);
  }
}

}  // namespace

// -- scale --------------------------------------------------------------------

caf::result<scale_report> cluster_state::scale_to(const scale& request) {
  const auto count = scaled_count(spec(), desired, request);
  if (const auto* fault = std::get_if<caf::error>(&count))
    return *fault;
  const auto from = desired;
  desired = std::get<std::uint32_t>(count);
  grow(desired);
  for (auto& x : slots)
    x.spare = x.spare && x.number > desired;
  if (!listening)
    set_listener(true);
  pending_operation op;
  for (const auto& x : slots)
    if (x.number > from || x.number > desired)
      note(x, event_kind::asked,
           "scale " + std::to_string(from) + " -> " + std::to_string(desired)
               + by(request.caller));
  scale_down(desired, op);
  scale_up(desired, op);
  // What is wanted when it is answered: a later request may have come.
  return answer_when_done<scale_report>(
      std::move(op), request.wait, [this, from](std::vector<outcome> outcomes) {
        return scale_report{spec().id, from, desired, std::move(outcomes)};
      });
}

// The youngest leave first.
void cluster_state::scale_down(std::uint32_t to, pending_operation& op) {
  for (auto i = slots.rbegin(); i != slots.rend() && i->number > to; ++i) {
    if (i->spare)
      continue;  // the roll-out's own
    const auto changes = i->now != phase::resting;
    want_down(*i);
    if (changes)
      expect(op, *i, direction::down);
  }
}

void cluster_state::scale_up(std::uint32_t to, pending_operation& op) {
  for (auto& x : slots) {
    const auto done =
        x.wanted && (serves(x) || state_of(x) == run_state::finished);
    if (x.number > to || done || x.blocked)
      continue;
    want_up(x);
    expect(op, x, direction::up);
  }
}

// -- start, stop, restart, await, block ---------------------------------------

caf::result<report> cluster_state::operate(const operate_unit& request) {
  if (stopping)
    return make_error(fault::shutting_down,
                      "'" + spec().id + "' is shutting down");
  const auto numbers = numbers_of(request);
  if (numbers.empty() && request.slot != 0)
    return make_error(fault::no_such_id,
                      "no instance '" + instance_id(spec().id, request.slot)
                          + "'; '" + spec().id + "' has "
                          + std::to_string(desired));
  if (request.what != verb::await)
    for (const auto& x : slots)
      if (std::find(numbers.begin(), numbers.end(), x.number) != numbers.end())
        note(x, event_kind::asked, word_of(request.what) + by(request.caller));
  if (request.what == verb::reload)
    return reload(request, numbers);
  pending_operation op;
  if (has_balancer())
    apply_to_listener(request, op);
  for (auto& x : slots)
    if (std::find(numbers.begin(), numbers.end(), x.number) != numbers.end())
      apply(request.what, x, op);
  return answer_when_done<report>(std::move(op), request.wait,
                                  [](std::vector<outcome> outcomes) {
                                    return report{std::move(outcomes)};
                                  });
}

std::vector<std::uint32_t> cluster_state::numbers_of(
    const operate_unit& request) const {
  std::vector<std::uint32_t> result;
  for (const auto& x : slots)
    if (x.number <= desired && (request.slot == 0 || x.number == request.slot))
      result.push_back(x.number);
  return result;
}

void cluster_state::apply_to_listener(const operate_unit& request,
                                      pending_operation& op) {
  const auto whole = request.slot == 0;
  if (request.what == verb::stop) {
    if (whole)
      set_listener(false);
    return;
  }
  if ((request.what == verb::start || request.what == verb::restart)
      && !listening)
    set_listener(true);
  if (!whole || !listening || listener_open || request.what == verb::block
      || request.what == verb::unblock)
    return;
  if (listener_reason.empty())
    op.expect(listener_goal, direction::up);
  else
    op.reached(listener_goal, direction::up,
               {spec().id, false, listener_reason});
}

void cluster_state::apply(verb what, slot& x, pending_operation& op) {
  const auto number = x.number;
  if (x.blocked && (what == verb::start || what == verb::restart))
    return op.reached(
        number, direction::up,
        outcome_of(x, false,
                   "is blocked; pup unblock " + slot_id(spec(), number)));
  switch (what) {
    case verb::start:
      want_up(x);
      return expect(op, x, direction::up);
    case verb::stop:
      want_down(x);
      return expect(op, x, direction::down);
    case verb::restart:
      bounce(x);
      return op.expect(number, direction::up);
    case verb::await:
      return await(x, op);
    case verb::block:
    case verb::unblock:
      return block(x, what == verb::block, op);
    case verb::reload:
      return;  // of all together
  }
}

void cluster_state::block(slot& x, bool blocked, pending_operation& op) {
  x.blocked = blocked;
  if (blocked && std::exchange(x.outdated, false))
    pending.settle(x.number, direction::renewed,
                   outcome_of(x, false, "blocked by a later request"));
  if (blocked
      && (x.now == phase::resting || x.now == phase::backoff
          || x.now == phase::waiting))
    come_to_rest(x, run_state::blocked, "blocked");
  const auto due = !blocked && x.now == phase::resting && x.wanted
                   && x.rest == run_state::blocked;
  if (!blocked && x.now == phase::resting && x.rest == run_state::blocked) {
    x.rest = run_state::stopped;
    x.reason.clear();
  }
  if (due) {
    want_up(x);
    return expect(op, x, direction::up);
  }
  op.reached(x.number, direction::up,
             outcome_of(x, true,
                        blocked ? x.now == phase::resting
                                      ? "blocked"
                                      : "blocked; the process that runs goes on"
                                : "not blocked"));
}

// Some have arrived before the request could wait for them.
void cluster_state::expect(pending_operation& op, const slot& x,
                           direction where) const {
  if (where == direction::up && serves(x))
    op.reached(x.number, where, outcome_of(x, true, "ready"));
  else if (where == direction::down && x.now == phase::resting)
    op.reached(x.number, where, outcome_of(x, true, "stopped"));
  else if (where == direction::up && x.now == phase::waiting && x.stuck)
    op.reached(x.number, where, outcome_of(x, false, x.delay));
  else
    op.expect(x.number, where);
}

void cluster_state::await(const slot& x, pending_operation& op) const {
  if (!x.wanted)
    return;
  if (serves(x))
    return op.reached(x.number, direction::up, outcome_of(x, true, "ready"));
  switch (x.now) {
    case phase::resting:
      return op.reached(
          x.number, direction::up,
          outcome_of(
              x, x.rest == run_state::finished || x.rest == run_state::blocked,
              x.reason.empty() ? to_string(x.rest) : x.reason));
    case phase::backoff:
      return op.reached(x.number, direction::up,
                        outcome_of(x, false, x.reason));
    case phase::waiting:
      return expect(op, x, direction::up);
    default:
      return op.expect(x.number, direction::up);
  }
}

// -- signal -------------------------------------------------------------------

caf::result<report> cluster_state::signal(const signal_slots& request) {
  report result;
  for (const auto& x : slots) {
    if ((request.slot != 0 && x.number != request.slot) || is_hidden(x))
      continue;
    const auto id = slot_id(spec(), x.number);
    if (x.pid == 0) {
      result.outcomes.push_back({id, false, "does not run"});
      continue;
    }
    note(x, event_kind::asked,
         "signal " + std::to_string(request.signal) + by(request.caller));
    self->send(args.world.launcher, send_signal{id, x.life, request.signal});
    result.outcomes.push_back(
        {id, true, "signalled, pid " + std::to_string(x.pid)});
  }
  return result;
}

// -- status and history -------------------------------------------------------

unit_status cluster_state::status() const {
  unit_status result;
  result.id = spec().id;
  result.is_cluster = spec().cluster.has_value();
  result.group = spec().in_group;
  result.desired = desired;
  for (const auto& x : slots) {
    if (is_hidden(x))
      continue;
    result.instances.push_back(status_of(spec_of(x), x, self->clock().now()));
    result.ready += x.now == phase::ready ? 1 : 0;
  }
  const auto reachable = !has_balancer() || listener_open;
  result.state = result.is_cluster ? cluster_state_of(slots, desired, reachable)
                                   : state_of(slots.front());
  result.reason = reason();
  // Of a single process its only instance is shown.
  if (!result.is_cluster && result.instances.front().reason.empty())
    result.instances.front().reason = result.reason;
  if (has_balancer()) {
    result.balancer.emplace();
    result.balancer->port = spec().cluster->common_port;
    result.balancer->strategy = to_string(spec().cluster->strategy);
    result.balancer->mode = to_string(spec().cluster->mode);
    if (spec().cluster->mode == cluster_mode::inherit)
      add_traffic(result, traffic{0, false, 0, 0, 0, 0, 0, {}});
  }
  return result;
}

caf::result<unit_status> cluster_state::answer_status() {
  if (!balancer)
    return status();
  auto promise = self->make_response_promise<unit_status>();
  // A balancer that fails now must not keep the status from anyone.
  self->request(balancer, std::chrono::seconds(1), get_traffic{})
      .then(
          [this, promise](const traffic& now) mutable {
            auto result = status();
            add_traffic(result, now);
            promise.deliver(std::move(result));
          },
          [this, promise](const caf::error&) mutable {
            promise.deliver(status());
          });
  return promise;
}

// The listener concerns all instances; else the first that has trouble.
std::string cluster_state::reason() const {
  if (!listener_reason.empty())
    return listener_reason;
  for (const auto& x : slots)
    if (x.wanted && x.now != phase::ready && !reason_of(x).empty())
      return spec().cluster ? slot_id(spec(), x.number) + ": " + reason_of(x)
                            : reason_of(x);
  return watch_trouble.empty() ? "" : "watch: " + watch_trouble;
}

history_report cluster_state::history_of(
    const get_unit_history& request) const {
  history_report result;
  for (const auto& x : slots) {
    if (request.slot != 0 && x.number != request.slot)
      continue;
    const auto next = next_of(spec_of(x), x, self->clock().now(), next_cron());
    instance_history one{
        slot_id(spec(), x.number), state_of(x), reason_of(x), {}, next.text, 0};
    if (const auto i = book->find(x.number); i != book->end())
      one.entries = i->second.entries();
    if (next.in)
      one.next_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                        (args.world.wall.now() + *next.in).time_since_epoch())
                        .count();
    result.instances.push_back(std::move(one));
  }
  return result;
}

}  // namespace pup
