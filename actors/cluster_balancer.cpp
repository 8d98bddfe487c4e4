// The unit's listener and the actor that keeps it; who gets connections.
#include "pup/actors/cluster_state.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace pup {

void cluster_state::start_balancer() {
  balancer =
      spawn_balancer(self, caf::actor_cast<cluster_actor>(self),
                     {spec().id, *spec().cluster, args.world.proxy, listening});
  self->monitor(balancer);
  balancer_since = self->clock().now();
  publish();
}

void cluster_state::balancer_down() {
  balancer = nullptr;
  if (stopping)
    return stop_without_balancer();
  const auto now = self->clock().now();
  const auto reached = stage_of(now - balancer_since, {});
  const auto what =
      balancer_rules.ended("balancer", false, reached, now, random01());
  const auto* again = std::get_if<restart>(&what);
  if (again == nullptr)
    return self->quit(
        make_error(fault::gave_up, "the balancer failed too often"));
  if (again->delay <= duration::zero())
    return start_balancer();
  self->delayed_send(self, again->delay, balancer_due{});
}

// It ended because its work was done; or it failed, and none will follow.
void cluster_state::stop_without_balancer() {
  if (!all_resting())
    self->send(args.world.proxy, close_listener{spec().id});
  for (auto& x : slots)
    if (x.now == phase::draining)
      stop_instance(x);
  tidy();
}

void cluster_state::set_listener(bool open) {
  listening = open;
  if (!has_balancer())
    return;
  if (!open) {
    listener_open = false;
    listener_reason.clear();
    pending.overtake(listener_goal, direction::down,
                     {spec().id, false, "stopped by a later request"});
  }
  if (balancer)
    self->send(balancer, set_listening{open});
  else if (!open)
    self->send(args.world.proxy, close_listener{spec().id});
}

void cluster_state::listener(const listener_changed& fact) {
  if (!listening)
    return;
  listener_open = fact.open;
  listener_reason = fact.reason;
  pending.settle(
      listener_goal, direction::up,
      {spec().id, fact.open, fact.open ? "listening" : listener_reason});
  tidy();
}

void cluster_state::publish() {
  if (!std::exchange(unpublished, true))
    ++last_snapshot;
  tidy();
}

// A snapshot of all that may serve or still drain, never a difference.
void cluster_state::send_snapshot() {
  if (!std::exchange(unpublished, false) || !balancer)
    return;
  // A suspect is better than nobody.
  const auto someone =
      std::any_of(slots.begin(), slots.end(), [](const slot& x) {
        return x.handle && x.now == phase::ready && !x.suspect;
      });
  assign_backends snapshot;
  snapshot.number = last_snapshot;
  for (const auto& x : slots) {
    const auto eligible = x.now == phase::ready && (!x.suspect || !someone);
    if (x.handle && (eligible || x.now == phase::draining))
      snapshot.backends.push_back({x.number, x.life, x.address,
                                   slot_port(spec_of(x), x.number),
                                   x.now == phase::draining, 0});
  }
  self->send(balancer, std::move(snapshot));
}

void cluster_state::assigned(std::uint64_t snapshot) {
  last_assigned = std::max(last_assigned, snapshot);
  for (const auto& x : slots)
    if (serves(x))
      pending.settle(x.number, direction::up, outcome_of(x, true, "ready"));
}

bool cluster_state::serves(const slot& x) const {
  return x.now == phase::ready && x.announced_with <= last_assigned;
}

void cluster_state::reachable(slot& x, const backend_reachable& fact) {
  if (x.now == phase::ready && !x.suspect)
    x.reason = fact.fault.empty() ? x.warning : "no connection: " + fact.fault;
}

void cluster_state::drained(const backend_drained& fact) {
  auto* x = find(fact.slot, fact.life);
  if (x == nullptr || x->now != phase::draining)
    return;
  x->cut = fact.cut;
  stop_instance(*x);
}

}  // namespace pup
