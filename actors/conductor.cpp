#include "pup/actors/group.hpp"
#include "pup/actors/spawn.hpp"
#include "pup/actors/turns.hpp"

#include <algorithm>
#include <random>
#include <utility>

namespace pup {

namespace {

// Messages to itself. The time of some group may have come; or there are
// reports to act upon.
struct group_due {};
struct proceed_due {};

}  // namespace

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::group_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::proceed_due)

namespace pup {

namespace {

using self_actor = conductor_actor::extend<caf::reacts_to<group_due>,
                                           caf::reacts_to<proceed_due>>;

struct conductor_state {
  using pointer = self_actor::stateful_pointer<conductor_state>;

  conductor_state() = default;

  static inline const char* name = "conductor";

  pointer self = nullptr;
  conductor_args args;
  turns turn;
  std::vector<group> groups;
  std::map<std::string, cluster_actor> units;  // by id; only those that live
  std::uint64_t last_order = 0;
  std::optional<time_point> next_due;
  std::optional<ending> last_over;  // of the groups that ended by themselves
  bool told_root = false;
  bool proceeding = false;  // proceed_due is on its way
  std::minstd_rand random;

  void init(pointer owner, conductor_args wanted);
  void follow(pup_spec spec);
  void ask_all();
  void meet(const std::string& unit);
  void lose(const caf::actor_addr& address);
  void reported(const unit_report& now);
  void ended(const unit_ended& event);
  void proceed();
  void steer_group(group& x);
  void grant();
  void arm(time_point due);
  void end_if_done();
  group* group_of(const std::string& unit);

  member_view see(const std::string& unit) {
    return {turn.see(unit), turn.coming(unit)};
  }
  group::see_function eyes() {
    return [this](const std::string& unit) { return see(unit); };
  }
  double random01() {
    return std::uniform_real_distribution<double>{0, 1}(random);
  }
  template <class T>
  void tell(const std::string& unit, T what) {
    if (const auto to = units.find(unit); to != units.end())
      self->send(to->second, std::move(what));
  }
};

void conductor_state::init(pointer owner, conductor_args wanted) {
  self = owner;
  args = std::move(wanted);
  random.seed(args.seed);
  // Orders of a predecessor must stay distinct from ours.
  last_order = static_cast<std::uint64_t>(
      self->clock().now().time_since_epoch().count());
  follow(std::move(args.spec));
  if (args.successor)
    ask_all();
}

// A group that stays as it was keeps its window of restarts.
void conductor_state::follow(pup_spec spec) {
  std::vector<group> next;
  for (const auto& entry : spec.groups) {
    group fresh{spec, entry.first};
    const auto old = std::find_if(
        groups.begin(), groups.end(),
        [&fresh = fresh](const group& x) { return x.same_as(fresh); });
    next.push_back(old == groups.end() ? std::move(fresh) : std::move(*old));
  }
  groups = std::move(next);
  turn.follow(spec);
  args.spec = std::move(spec);
  proceed();
}

void conductor_state::ask_all() {
  self->request(args.root, caf::infinite, which_children{})
      .then([this](const std::vector<child_info>& children) {
        for (const auto& x : args.spec.processes)
          for (const auto& child : children)
            if (child.handle && child.id == unit_child_id(x.id))
              self->send(caf::actor_cast<cluster_actor>(child.handle),
                         report_to{caf::actor_cast<conductor_actor>(self)});
      });
}

group* conductor_state::group_of(const std::string& unit) {
  const auto i = std::find_if(groups.begin(), groups.end(),
                              [&](const group& x) { return x.has(unit); });
  return i == groups.end() ? nullptr : &*i;
}

// -- facts --------------------------------------------------------------------

// The sender of a fact is the unit; a new one has no past.
void conductor_state::meet(const std::string& unit) {
  const auto sender = self->current_sender();
  if (!sender)
    return;
  auto& known = units[unit];
  if (known && known.address() == sender->address())
    return;
  if (auto* x = group_of(unit))
    x->lost(unit);
  known = caf::actor_cast<cluster_actor>(sender);
  self->monitor(known);
  turn.forget(unit);
}

void conductor_state::lose(const caf::actor_addr& address) {
  const auto i = std::find_if(units.begin(), units.end(), [&](const auto& x) {
    return x.second.address() == address;
  });
  if (i == units.end())
    return;
  turn.forget(i->first);
  if (auto* x = group_of(i->first))
    x->lost(i->first);
  units.erase(i);
  proceed();
}

// Hundreds report at the same time; what follows looks at all of them.
void conductor_state::reported(const unit_report& now) {
  meet(now.unit);
  turn.report(now);
  if (!std::exchange(proceeding, true))
    self->send(self, proceed_due{});
}

// Its next report follows at once.
void conductor_state::ended(const unit_ended& event) {
  meet(event.unit);
  turn.forget(event.unit);
  if (auto* x = group_of(event.unit)) {
    x->ended(event, eyes(), self->clock().now(), random01());
    proceed();
  }
}

// -- what is done about them --------------------------------------------------

void conductor_state::proceed() {
  proceeding = false;
  for (auto& x : groups)
    steer_group(x);
  grant();
  end_if_done();
}

void conductor_state::steer_group(group& x) {
  const auto was_over = x.over().has_value();
  const auto was_under_way = x.under_way();
  for (auto& [unit, order] : x.step(eyes(), self->clock().now(), last_order))
    tell(unit, std::move(order));
  if (was_under_way || x.under_way())
    for (const auto& id : x.members())
      turn.hold(id, x.holds(id));
  if (const auto due = x.due(); due && *due > self->clock().now())
    arm(*due);
  if (x.over() && !was_over)
    last_over = x.over();
}

void conductor_state::arm(time_point due) {
  if (next_due && *next_due <= due && *next_due > self->clock().now())
    return;
  next_due = due;
  self->delayed_send(self, due - self->clock().now(), group_due{});
}

void conductor_state::grant() {
  auto verdicts = turn.take();
  for (auto& [unit, fact] : verdicts.granted)
    tell(unit, fact);
  for (auto& [unit, fact] : verdicts.delayed)
    tell(unit, std::move(fact));
}

void conductor_state::end_if_done() {
  if (!args.ends_with_groups || !last_over || told_root)
    return;
  for (const auto& x : args.spec.processes) {
    const auto* its_group = group_of(x.id);
    if (its_group != nullptr && its_group->over())
      continue;
    const auto* now = turn.see(x.id);
    if (now == nullptr || now->busy)
      return;
  }
  told_root = true;
  self->send_exit(args.root, make_error(*last_over));
}

self_actor::behavior_type conductor_behavior(conductor_state::pointer self,
                                             conductor_args args) {
  self->set_default_handler(caf::drop);
  self->set_down_handler([self](caf::scheduled_actor*, caf::down_msg& message) {
    self->state.lose(message.source);
  });
  self->state.init(self, std::move(args));
  return {
      [self](const unit_report& now) { self->state.reported(now); },
      [self](const unit_ended& event) { self->state.ended(event); },
      [self](follow_spec& x) { self->state.follow(std::move(x.spec)); },
      [self](group_due) { self->state.proceed(); },
      [self](proceed_due) {
        if (self->state.proceeding)
          self->state.proceed();
      },
  };
}

}  // namespace

conductor_actor spawn_conductor(caf::local_actor* parent, conductor_args args) {
  return parent->spawn(conductor_behavior, std::move(args));
}

}  // namespace pup
