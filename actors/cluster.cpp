#include "pup/actors/pending.hpp"
#include "pup/actors/slot.hpp"
#include "pup/actors/spawn.hpp"

#include <algorithm>
#include <random>

namespace pup {

namespace {

// Messages to itself. A number tells a timer that is still wanted.
struct backoff_due {
  std::uint32_t slot = 0;
  std::uint64_t timer = 0;
};
struct balancer_due {};

}  // namespace

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::backoff_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::balancer_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::wanted_state)

namespace pup {

namespace {

using self_actor = cluster_actor::extend<caf::reacts_to<backoff_due>,
                                         caf::reacts_to<balancer_due>>;

using phase = slot_phase;

// The balancer holds no state that a restart loses: restart it often rather
// than lose the unit. 10 in 10 s is beyond what a single bad event causes.
constexpr intensity balancer_intensity{10, std::chrono::seconds(10)};

// The key of the listener among the goals of a request; no slot has it.
constexpr std::uint32_t listener_goal = bounds::instances + 1;

struct cluster_state {
  using pointer = self_actor::stateful_pointer<cluster_state>;

  cluster_state() = default;
  cluster_state(const cluster_state&) = delete;
  cluster_state& operator=(const cluster_state&) = delete;
  ~cluster_state() {
    pending.abandon(
        make_error(fault::actor_failed,
                   "'" + spec().id + "': its actor failed; ask again"));
  }

  static inline const char* name = "cluster";

  pointer self = nullptr;
  cluster_args args;
  caf::actor_addr parent;
  std::vector<slot> slots;  // by number
  std::uint32_t desired = 0;
  std::uint64_t last_life = 0;
  std::uint64_t last_timer = 0;
  balancer_actor balancer;
  supervision balancer_rules{strategy::one_for_one, balancer_intensity};
  time_point balancer_since{};
  bool listening = false;  // wanted
  bool listener_open = false;
  std::string listener_reason;
  pending_operations pending;
  bool stopping = false;
  std::optional<wanted_state> remembered;
  std::minstd_rand random;

  const process_spec& spec() const {
    return args.spec;
  }
  bool has_balancer() const {
    return spec().cluster && spec().cluster->common_port != 0;
  }
  double random01() {
    return std::uniform_real_distribution<double>{0, 1}(random);
  }

  // Start and end of the cluster.
  void init(pointer owner, caf::actor_addr spawner, cluster_args wanted);
  void resume(const wanted_state& left);
  wanted_state left_by_now() const;
  void remember();
  void stop_all(const caf::error& reason);
  bool all_resting() const;
  void quit_when_done();

  // Slots.
  slot* find(std::uint32_t number, std::uint64_t life);
  slot* find(const caf::actor_addr& address);
  void grow(std::uint32_t count);
  void tidy();
  void want_up(slot& x);
  void want_down(slot& x);
  void bounce(slot& x);
  void launch_slot(slot& x);
  void leave(slot& x);
  void stop_instance(slot& x);
  void come_to_rest(slot& x, run_state how, std::string why);
  instance_args instance_of(const slot& x) const;

  // Facts.
  void down(const caf::down_msg& message);
  void ended(slot& x, const ending& how);
  void ended_by_itself(slot& x, const ending& how);
  void start_again(slot& x, const ending& how, duration delay);
  void drained(const backend_drained& fact);
  void became_ready(slot& x, const instance_ready& fact);
  void backoff_over(const backoff_due& due);
  void listener(const listener_changed& fact);
  void start_balancer();
  void balancer_down();
  void stop_without_balancer();
  void set_listener(bool open);
  void publish();

  // Requests.
  caf::result<scale_report> scale_to(const scale& request);
  void scale_down(std::uint32_t to, pending_operation& op);
  void scale_up(std::uint32_t to, pending_operation& op);
  caf::result<report> operate(const operate_unit& request);
  std::vector<std::uint32_t> numbers_of(const operate_unit& request) const;
  void apply_to_listener(const operate_unit& request, pending_operation& op);
  void apply(verb what, slot& x, pending_operation& op);
  void expect(pending_operation& op, const slot& x, direction where) const;
  void await(const slot& x, pending_operation& op) const;
  template <class Answer, class Make>
  caf::result<Answer> answer_when_done(pending_operation op, bool wait,
                                       Make make);
  unit_status status() const;
  std::string reason() const;
  outcome outcome_of(const slot& x, bool ok, std::string text) const {
    return {slot_id(spec(), x.number), ok, std::move(text)};
  }
};

// -- start and end ------------------------------------------------------------

void cluster_state::init(pointer owner, caf::actor_addr spawner,
                         cluster_args wanted) {
  self = owner;
  parent = std::move(spawner);
  args = std::move(wanted);
  random.seed(args.seed);
  // Lives of an earlier actor for this unit must stay distinct from ours, even
  // when what it left is lost.
  last_life = static_cast<std::uint64_t>(
      self->clock().now().time_since_epoch().count());
  balancer_rules.add("balancer", restart_type::permanent);
  if (args.kept.match_elements<wanted_state>())
    return resume(args.kept.get_as<wanted_state>(0));
  wanted_state start;
  start.desired = spec().cluster ? spec().cluster->instances : 1;
  start.listening = spec().autostart;
  if (!spec().autostart)
    for (std::uint32_t n = 0; n <= start.desired; ++n)
      start.resting.push_back({n, false, run_state::stopped, {}});
  resume(start);
}

void cluster_state::resume(const wanted_state& left) {
  last_life = std::max(last_life, left.last_life);
  desired = left.desired;
  listening = left.listening;
  grow(desired);
  if (has_balancer())
    start_balancer();
  for (auto& x : slots) {
    const auto rest =
        std::find_if(left.resting.begin(), left.resting.end(),
                     [&](const auto& y) { return y.number == x.number; });
    if (rest == left.resting.end()) {
      want_up(x);
      continue;
    }
    x.wanted = rest->wanted;
    x.rest = rest->rest;
    x.reason = rest->reason;
  }
  tidy();
}

wanted_state cluster_state::left_by_now() const {
  wanted_state result{desired, listening, last_life, {}};
  for (const auto& x : slots) {
    if (!x.wanted)
      result.resting.push_back({x.number, false, run_state::stopped, {}});
    else if (x.now == phase::resting)
      result.resting.push_back({x.number, true, x.rest, x.reason});
  }
  return result;
}

void cluster_state::remember() {
  auto to = caf::actor_cast<caf::strong_actor_ptr>(parent);
  auto now = left_by_now();
  if (!to || remembered == now)
    return;
  remembered = now;
  self->send(caf::actor_cast<supervisor_actor>(std::move(to)),
             keep{caf::make_message(std::move(now))});
}

void cluster_state::stop_all(const caf::error& reason) {
  if (stopping || reason != caf::exit_reason::user_shutdown)
    return self->quit(reason ? reason : caf::exit_reason::kill);
  stopping = true;
  set_listener(false);
  for (auto i = slots.rbegin(); i != slots.rend(); ++i)
    want_down(*i);
  tidy();
}

bool cluster_state::all_resting() const {
  return std::all_of(slots.begin(), slots.end(),
                     [](const slot& x) { return x.now == phase::resting; });
}

void cluster_state::quit_when_done() {
  if (!all_resting())
    return;
  if (balancer)
    self->send_exit(balancer, caf::exit_reason::user_shutdown);
  else
    self->quit(caf::exit_reason::user_shutdown);
}

// -- slots --------------------------------------------------------------------

slot* cluster_state::find(std::uint32_t number, std::uint64_t life) {
  const auto i = std::find_if(slots.begin(), slots.end(), [&](const slot& x) {
    return x.number == number && x.life == life && x.handle;
  });
  return i == slots.end() ? nullptr : &*i;
}

slot* cluster_state::find(const caf::actor_addr& address) {
  const auto i = std::find_if(slots.begin(), slots.end(), [&](const slot& x) {
    return x.handle && x.handle.address() == address;
  });
  return i == slots.end() ? nullptr : &*i;
}

void cluster_state::grow(std::uint32_t count) {
  while (slots.size() < count) {
    slot x;
    x.number =
        spec().cluster ? static_cast<std::uint32_t>(slots.size()) + 1 : 0;
    slots.push_back(std::move(x));
  }
}

// The end of each handler that changes a slot: forgets slots that have left,
// leaves a note for a next life, and quits when a stop is complete. Nothing
// else removes a slot, so references stay good meanwhile.
void cluster_state::tidy() {
  while (slots.size() > desired && slots.back().now == phase::resting)
    slots.pop_back();
  if (stopping)
    quit_when_done();
  else
    remember();
}

void cluster_state::want_up(slot& x) {
  if (x.wanted && x.now != phase::resting && x.now != phase::backoff)
    return;
  x.wanted = true;
  pending.overtake(x.number, direction::up,
                   outcome_of(x, false, "started again by a later request"));
  switch (x.now) {
    case phase::resting:
    case phase::backoff:
      x.rules.reset();
      x.reason.clear();
      return launch_slot(x);
    case phase::draining:
      x.now = phase::ready;
      x.reason.clear();
      publish();
      return pending.settle(x.number, direction::up,
                            outcome_of(x, true, "ready"));
    case phase::starting:
    case phase::ready:
    case phase::stopping:  // starts when it has stopped
      return;
  }
}

void cluster_state::want_down(slot& x) {
  x.wanted = false;
  pending.overtake(x.number, direction::down,
                   outcome_of(x, false, "stopped by a later request"));
  switch (x.now) {
    case phase::resting:
    case phase::backoff:
      return come_to_rest(x, run_state::stopped, {});
    case phase::starting:
    case phase::ready:
      return leave(x);
    case phase::draining:
    case phase::stopping:
      return;
  }
}

// A restart: `wanted` stays, so its end is followed by a new life.
void cluster_state::bounce(slot& x) {
  if (x.now == phase::resting || x.now == phase::backoff)
    return want_up(x);
  x.wanted = true;
  pending.overtake(x.number, direction::up,
                   outcome_of(x, false, "started again by a later request"));
  if (x.now == phase::starting || x.now == phase::ready)
    leave(x);
}

void cluster_state::launch_slot(slot& x) {
  if (!x.rules)
    x.rules = rules_of(spec());
  x.now = phase::starting;
  x.life = ++last_life;
  x.pid = 0;
  x.cut = 0;
  x.warning.clear();
  x.started = self->clock().now();
  x.handle = spawn_instance(self, caf::actor_cast<cluster_actor>(self),
                            instance_of(x));
  self->monitor(x.handle);
}

instance_args cluster_state::instance_of(const slot& x) const {
  instance_args result;
  result.request = launch_of(spec(), args.supervisor, x.number, x.life);
  result.slot = x.number;
  result.grace_period = spec().terminate_grace_period;
  result.stop_timeout = spec().terminate_timeout;
  result.stop_signal = spec().stop_signal;
  result.ready_timeout = spec().ready_timeout;
  result.launcher = args.world.launcher;
  return result;
}

// Withdrawn first, stopped when its connections have ended. While a failed
// balancer is away the drain waits for the next one, except at the very end.
void cluster_state::leave(slot& x) {
  const auto can_drain = balancer || (has_balancer() && !stopping);
  if (x.now != phase::ready || !can_drain)
    return stop_instance(x);
  x.now = phase::draining;
  publish();
}

void cluster_state::stop_instance(slot& x) {
  const auto was = std::exchange(x.now, phase::stopping);
  if (was == phase::draining)
    publish();
  self->send_exit(x.handle, caf::exit_reason::user_shutdown);
}

void cluster_state::come_to_rest(slot& x, run_state how, std::string why) {
  x.now = phase::resting;
  x.rest = how;
  x.reason = std::move(why);
  const auto came_up = x.reason.empty() ? to_string(how) : x.reason;
  pending.settle(x.number, direction::up,
                 outcome_of(x, how == run_state::finished, came_up));
  const auto cut = std::exchange(x.cut, 0);
  const auto went_down =
      cut == 0 ? "stopped"
               : "stopped; connections that outlived drainTimeoutMs: "
                     + std::to_string(cut);
  pending.settle(x.number, direction::down, outcome_of(x, true, went_down));
}

// -- facts --------------------------------------------------------------------

void cluster_state::down(const caf::down_msg& message) {
  if (balancer && balancer.address() == message.source)
    return balancer_down();
  if (parent == message.source)
    return self->quit(caf::exit_reason::kill);
  if (auto* x = find(message.source)) {
    ended(*x, ending_of(message.reason));
    tidy();
  }
}

void cluster_state::ended(slot& x, const ending& how) {
  const auto was = x.now;
  x.handle = nullptr;
  x.pid = 0;
  x.address.clear();
  x.last = how;
  if (was == phase::ready || was == phase::draining)
    publish();
  if (was != phase::draining && was != phase::stopping)
    return ended_by_itself(x, how);
  if (!x.wanted || stopping)
    return come_to_rest(x, run_state::stopped, {});
  // Somebody asked for this life to end: it counts for no series of failures.
  ++x.restarts;
  x.rules.reset();
  launch_slot(x);
}

void cluster_state::ended_by_itself(slot& x, const ending& how) {
  const auto has = [&](const std::vector<int>& codes) {
    return how.what == ending::kind::exited
           && std::find(codes.begin(), codes.end(), how.code) != codes.end();
  };
  const auto success = has(spec().success_exit_codes);
  const auto at_rest = success ? run_state::finished : run_state::failed;
  const auto why = success ? std::string{} : to_string(how);
  if (has(spec().no_restart_exit_codes))
    return come_to_rest(x, at_rest, why);
  const auto now = self->clock().now();
  const auto stable = x.now == phase::ready
                      && now - x.ready_since >= backoff_rule{}.stable_after;
  const auto what =
      x.rules->ended(slot_child, success, stable, now, random01());
  if (std::holds_alternative<give_up>(what))
    return come_to_rest(
        x, run_state::exhausted,
        to_string(how) + "; more than " + std::to_string(*spec().restart_limit)
            + " restarts in " + in_words(spec().restart_period));
  if (const auto* again = std::get_if<restart>(&what))
    return start_again(x, how, again->delay);
  come_to_rest(x, at_rest, why);
}

void cluster_state::start_again(slot& x, const ending& how, duration delay) {
  const auto at_once = delay <= duration::zero();
  auto why = to_string(how) + "; starting again "
             + (at_once ? "at once" : "in " + in_words(delay));
  ++x.restarts;
  pending.settle(x.number, direction::up, outcome_of(x, false, why));
  x.reason = std::move(why);  // holds until it is ready
  if (at_once)
    return launch_slot(x);
  x.now = phase::backoff;
  x.timer = ++last_timer;
  self->delayed_send(self, delay, backoff_due{x.number, x.timer});
}

void cluster_state::backoff_over(const backoff_due& due) {
  for (auto& x : slots)
    if (x.number == due.slot && x.timer == due.timer && x.now == phase::backoff)
      launch_slot(x);
  tidy();
}

void cluster_state::became_ready(slot& x, const instance_ready& fact) {
  if (x.now != phase::starting)
    return;
  x.now = phase::ready;
  x.address = fact.address;
  x.ready_since = self->clock().now();
  x.reason = x.warning;
  publish();
  pending.settle(x.number, direction::up, outcome_of(x, true, "ready"));
}

void cluster_state::drained(const backend_drained& fact) {
  auto* x = find(fact.slot, fact.life);
  if (x == nullptr || x->now != phase::draining)
    return;
  x->cut = fact.cut;
  stop_instance(*x);
}

// -- the balancer -------------------------------------------------------------

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
  const auto stable = now - balancer_since >= backoff_rule{}.stable_after;
  const auto what =
      balancer_rules.ended("balancer", false, stable, now, random01());
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
}

// A snapshot of all that may serve or still drain, never a difference.
void cluster_state::publish() {
  if (!balancer)
    return;
  assign_backends snapshot;
  for (const auto& x : slots)
    if (x.handle && (x.now == phase::ready || x.now == phase::draining))
      snapshot.backends.push_back({x.number, x.life, x.address,
                                   slot_port(spec(), x.number),
                                   x.now == phase::draining});
  self->send(balancer, std::move(snapshot));
}

// -- requests -----------------------------------------------------------------

template <class Answer, class Make>
caf::result<Answer> cluster_state::answer_when_done(pending_operation op,
                                                    bool wait, Make make) {
  auto promise = self->make_response_promise<Answer>();
  op.answer = [promise, make](std::vector<outcome> outcomes) mutable {
    promise.deliver(make(std::move(outcomes)));
  };
  op.fail = [promise](const caf::error& why) mutable { promise.deliver(why); };
  if (!wait)
    for (auto& [number, goal] : op.goals)
      if (!goal.reached)
        goal.reached = outcome{
            number == listener_goal ? spec().id : slot_id(spec(), number), true,
            "begun"};
  pending.add(std::move(op));
  tidy();
  return promise;
}

caf::result<scale_report> cluster_state::scale_to(const scale& request) {
  const auto count = scaled_count(spec(), desired, request);
  if (const auto* fault = std::get_if<caf::error>(&count))
    return *fault;
  const auto from = desired;
  desired = std::get<std::uint32_t>(count);
  grow(desired);
  if (!listening)
    set_listener(true);
  pending_operation op;
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
    const auto changes = i->now != phase::resting;
    want_down(*i);
    if (changes)
      expect(op, *i, direction::down);
  }
}

void cluster_state::scale_up(std::uint32_t to, pending_operation& op) {
  for (auto& x : slots) {
    const auto done =
        x.wanted
        && (x.now == phase::ready || state_of(x) == run_state::finished);
    if (x.number > to || done)
      continue;
    want_up(x);
    expect(op, x, direction::up);
  }
}

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
  if (request.what != verb::await && !listening)
    set_listener(true);
  if (!whole || !listening || listener_open)
    return;
  if (listener_reason.empty())
    op.expect(listener_goal, direction::up);
  else
    op.reached(listener_goal, direction::up,
               {spec().id, false, listener_reason});
}

void cluster_state::apply(verb what, slot& x, pending_operation& op) {
  const auto number = x.number;
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
  }
}

// Some have arrived before the request could wait for them.
void cluster_state::expect(pending_operation& op, const slot& x,
                           direction where) const {
  if (where == direction::up && x.now == phase::ready)
    op.reached(x.number, where, outcome_of(x, true, "ready"));
  else if (where == direction::down && x.now == phase::resting)
    op.reached(x.number, where, outcome_of(x, true, "stopped"));
  else
    op.expect(x.number, where);
}

void cluster_state::await(const slot& x, pending_operation& op) const {
  if (!x.wanted)
    return;
  switch (x.now) {
    case phase::ready:
      return op.reached(x.number, direction::up, outcome_of(x, true, "ready"));
    case phase::resting:
      return op.reached(
          x.number, direction::up,
          outcome_of(x, x.rest == run_state::finished,
                     x.reason.empty() ? to_string(x.rest) : x.reason));
    case phase::backoff:
      return op.reached(x.number, direction::up,
                        outcome_of(x, false, x.reason));
    default:
      return op.expect(x.number, direction::up);
  }
}

// -- status -------------------------------------------------------------------

unit_status cluster_state::status() const {
  unit_status result;
  result.id = spec().id;
  result.is_cluster = spec().cluster.has_value();
  result.desired = desired;
  for (const auto& x : slots) {
    result.instances.push_back(status_of(spec(), x, self->clock().now()));
    result.ready += x.now == phase::ready ? 1 : 0;
  }
  const auto reachable = !has_balancer() || listener_open;
  result.state = result.is_cluster ? cluster_state_of(slots, desired, reachable)
                                   : state_of(slots.front());
  result.reason = reason();
  if (has_balancer()) {
    result.balancer.emplace();
    result.balancer->port = spec().cluster->common_port;
    result.balancer->strategy = to_string(spec().cluster->strategy);
    result.balancer->mode = "proxy";
  }
  return result;
}

// The listener concerns all instances; else the first that has trouble.
std::string cluster_state::reason() const {
  if (!listener_reason.empty())
    return listener_reason;
  for (const auto& x : slots)
    if (x.wanted && x.now != phase::ready && !x.reason.empty())
      return spec().cluster ? slot_id(spec(), x.number) + ": " + x.reason
                            : x.reason;
  return {};
}

// Adds what only the proxy knows.
void add_traffic(unit_status& status, const traffic& now) {
  auto& b = *status.balancer;
  if (now.port != 0)
    b.port = now.port;
  b.connections_active = now.active;
  b.connections_total = now.total;
  b.bytes_in = now.bytes_in;
  b.bytes_out = now.bytes_out;
  b.rejected = now.rejected;
  for (const auto& x : now.backends)
    for (auto& instance : status.instances)
      if (instance.slot == x.slot) {
        instance.connections_active += x.active;
        instance.connections_total += x.total;
      }
}

// -- behaviour ----------------------------------------------------------------

self_actor::behavior_type cluster_behavior(cluster_state::pointer self,
                                           const caf::actor_addr& parent,
                                           cluster_args args) {
  self->set_default_handler(caf::drop);
  self->set_down_handler([self](caf::scheduled_actor*, caf::down_msg& message) {
    self->state.down(message);
  });
  self->set_exit_handler([self](caf::scheduled_actor*, caf::exit_msg& message) {
    self->state.stop_all(message.reason);
  });
  self->monitor(caf::actor_cast<caf::actor>(parent));
  self->state.init(self, parent, std::move(args));
  return {
      [self](const scale& request) -> caf::result<scale_report> {
        if (self->state.stopping)
          return make_error(fault::shutting_down,
                            "'" + self->state.spec().id + "' is shutting down");
        return self->state.scale_to(request);
      },
      [self](const operate_unit& request) -> caf::result<report> {
        return self->state.operate(request);
      },
      [self](const get_unit_status&) -> caf::result<unit_status> {
        auto& state = self->state;
        if (!state.balancer)
          return state.status();
        auto promise = self->make_response_promise<unit_status>();
        // A balancer that fails now must not keep the status from anyone.
        self->request(state.balancer, std::chrono::seconds(1), get_traffic{})
            .then(
                [self, promise](const traffic& now) mutable {
                  auto status = self->state.status();
                  add_traffic(status, now);
                  promise.deliver(std::move(status));
                },
                [self, promise](const caf::error&) mutable {
                  promise.deliver(self->state.status());
                });
        return promise;
      },
      [self](const instance_launched& fact) {
        if (auto* x = self->state.find(fact.slot, fact.life)) {
          x->pid = fact.pid;
          x->warning = fact.warning;
        }
      },
      [self](const instance_ready& fact) {
        if (auto* x = self->state.find(fact.slot, fact.life))
          self->state.became_ready(*x, fact);
      },
      [self](const backend_drained& fact) { self->state.drained(fact); },
      [self](const listener_changed& fact) { self->state.listener(fact); },
      [self](const backoff_due& due) { self->state.backoff_over(due); },
      [self](balancer_due) {
        if (!self->state.balancer && !self->state.stopping)
          self->state.start_balancer();
      },
  };
}

}  // namespace

cluster_actor spawn_cluster(caf::local_actor* parent, cluster_args args) {
  return parent->spawn(cluster_behavior, parent->address(), std::move(args));
}

}  // namespace pup
