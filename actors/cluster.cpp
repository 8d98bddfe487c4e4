#include "pup/actors/pending.hpp"
#include "pup/actors/spawn.hpp"
#include "pup/actors/supervision.hpp"
#include "pup/config/expand.hpp"

#include <algorithm>
#include <random>

namespace pup {

namespace {

// Messages to itself. The life or number tells a timer that is still wanted.
struct backoff_due {
  std::uint32_t slot = 0;
  std::uint64_t timer = 0;
};
struct balancer_due {};

/// What an earlier life of the cluster left: what was wanted.
struct wanted_state {
  std::uint32_t desired = 0;
  std::vector<std::uint32_t> stopped; // slots that somebody stopped
  bool listening = true;
};

} // namespace

} // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::backoff_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::balancer_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::wanted_state)

namespace pup {

namespace {

using self_actor = cluster_actor::extend<caf::reacts_to<backoff_due>,
                                         caf::reacts_to<balancer_due>>;

// The balancer holds no state that a restart loses: restart it often rather
// than lose the unit. 10 in 10 s is beyond what a single bad event causes.
constexpr intensity balancer_intensity{10, std::chrono::seconds(10)};

// The key of the listener among the goals of a request; no slot has it.
constexpr std::uint32_t listener_goal = bounds::instances + 1;

enum class phase : std::uint8_t {
  resting,
  backoff,
  starting,
  ready,
  draining,
  stopping,
};

/// A stable number and port; its lives come and go.
struct slot {
  std::uint32_t number = 0; // from 1; 0 for a single process
  bool wanted = false;
  phase now = phase::resting;
  run_state rest = run_state::stopped; // while resting
  instance_actor handle;
  std::uint64_t life = 0;
  std::uint64_t timer = 0; // number of the current backoff
  std::int32_t pid = 0;
  std::string address;
  time_point started{};
  time_point ready_since{};
  std::uint32_t restarts = 0;
  std::optional<ending> last;
  std::string reason; // why it is not ready, in words
  std::optional<supervision> rules;
};

std::string in_words(duration x) {
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(x).count();
  return ms < 10'000 ? std::to_string(ms) + " ms"
                     : std::to_string(ms / 1'000) + " s";
}

struct cluster_state {
  using pointer = self_actor::stateful_pointer<cluster_state>;

  cluster_state() = default;
  cluster_state(const cluster_state&) = delete;
  cluster_state& operator=(const cluster_state&) = delete;
  ~cluster_state() {
    pending.abandon("the cluster's actor failed");
  }

  static inline const char* name = "cluster";

  pointer self = nullptr;
  cluster_args args;
  caf::actor_addr parent;
  std::vector<slot> slots; // by number
  std::uint32_t desired = 0;
  std::uint64_t last_life = 0;
  std::uint64_t last_timer = 0;
  balancer_actor balancer;
  supervision balancer_rules{strategy::one_for_one, balancer_intensity};
  bool listening = false; // wanted
  bool listener_open = false;
  std::string listener_reason;
  pending_operations pending;
  bool stopping = false;
  std::minstd_rand random;

  const process_spec& spec() const {
    return args.spec;
  }
  bool has_balancer() const {
    return spec().cluster && spec().cluster->common_port != 0;
  }

  // Start and end of the cluster.
  void init(pointer owner, caf::actor_addr spawner, cluster_args wanted);
  wanted_state initial() const;
  void remember();
  void stop_all(const caf::error& reason);
  void quit_when_done();

  // Slots.
  std::string id_of(const slot& x) const;
  std::uint16_t port_of(const slot& x) const;
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
  supervision fresh_rules() const;
  instance_args instance_of(const slot& x) const;

  // Facts.
  void down(const caf::down_msg& message);
  void ended(slot& x, const ending& how);
  void ended_by_itself(slot& x, const ending& how);
  void drained(const backend_drained& fact);
  void became_ready(slot& x, const instance_ready& fact);
  void backoff_over(const backoff_due& due);
  void listener(const listener_changed& fact);
  void start_balancer();
  void balancer_down();
  void set_listener(bool open);
  void publish();

  // Requests.
  caf::result<scale_report> scale_to(const scale& request);
  caf::result<report> operate(const operate_unit& request);
  void apply(verb what, slot& x, pending_operation& op);
  void expect(pending_operation& op, const slot& x, direction where) const;
  void await(const slot& x, pending_operation& op) const;
  unit_status status();
  instance_status status(const slot& x) const;
  run_state state_of(const slot& x) const;
  run_state cluster_state_now() const;
  outcome outcome_of(const slot& x, bool ok, std::string text) const {
    return {id_of(x), ok, std::move(text)};
  }
};

// -- start and end ------------------------------------------------------------

void cluster_state::init(pointer owner, caf::actor_addr spawner,
                         cluster_args wanted) {
  self = owner;
  parent = std::move(spawner);
  args = std::move(wanted);
  random.seed(args.seed);
  // Lives of an earlier actor for this unit must stay distinct from ours.
  last_life = static_cast<std::uint64_t>(
    self->clock().now().time_since_epoch().count());
  balancer_rules.add("balancer", restart_type::permanent);
  const auto start = initial();
  desired = start.desired;
  grow(desired);
  listening = start.listening;
  if (has_balancer())
    start_balancer();
  for (auto& x : slots)
    if (std::find(start.stopped.begin(), start.stopped.end(), x.number)
        == start.stopped.end())
      want_up(x);
}

wanted_state cluster_state::initial() const {
  if (args.kept.match_elements<wanted_state>())
    return args.kept.get_as<wanted_state>(0);
  wanted_state result;
  result.desired = spec().cluster ? spec().cluster->instances : 1;
  result.listening = spec().autostart;
  if (!spec().autostart)
    for (std::uint32_t n = 0; n <= result.desired; ++n)
      result.stopped.push_back(n);
  return result;
}

void cluster_state::remember() {
  auto to = caf::actor_cast<caf::strong_actor_ptr>(parent);
  if (!to || stopping)
    return;
  wanted_state x{desired, {}, listening};
  for (const auto& s : slots)
    if (!s.wanted)
      x.stopped.push_back(s.number);
  self->send(caf::actor_cast<supervisor_actor>(std::move(to)),
             keep{caf::make_message(std::move(x))});
}

void cluster_state::stop_all(const caf::error& reason) {
  if (stopping || reason != caf::exit_reason::user_shutdown)
    return self->quit(reason ? reason : caf::exit_reason::kill);
  stopping = true;
  set_listener(false);
  for (auto& x : slots)
    want_down(x);
  tidy();
}

void cluster_state::quit_when_done() {
  if (!std::all_of(slots.begin(), slots.end(), [](const slot& x) {
        return x.now == phase::resting;
      }))
    return;
  if (balancer)
    self->send_exit(balancer, caf::exit_reason::user_shutdown);
  else
    self->quit(caf::exit_reason::user_shutdown);
}

// -- slots --------------------------------------------------------------------

std::string cluster_state::id_of(const slot& x) const {
  return spec().cluster ? instance_id(spec().id, x.number) : spec().id;
}

std::uint16_t cluster_state::port_of(const slot& x) const {
  if (!spec().cluster || spec().cluster->start_port == 0)
    return 0;
  return static_cast<std::uint16_t>(spec().cluster->start_port + x.number - 1);
}

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
    x.number = spec().cluster ? static_cast<std::uint32_t>(slots.size()) + 1 : 0;
    slots.push_back(std::move(x));
  }
}

// The end of each handler: forgets slots that have left, and quits when a stop
// is complete. Nothing else removes a slot, so references stay good meanwhile.
void cluster_state::tidy() {
  while (slots.size() > desired && slots.back().now == phase::resting)
    slots.pop_back();
  if (stopping)
    quit_when_done();
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
      return launch_slot(x);
    case phase::draining:
      x.now = phase::ready;
      x.reason.clear();
      publish();
      return pending.settle(x.number, direction::up,
                            outcome_of(x, true, "ready"));
    case phase::starting:
    case phase::ready:
    case phase::stopping: // starts when it has stopped
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
    x.rules = fresh_rules();
  x.now = phase::starting;
  x.life = ++last_life;
  x.pid = 0;
  x.reason.clear();
  x.started = self->clock().now();
  x.handle = spawn_instance(self, caf::actor_cast<cluster_actor>(self),
                            instance_of(x));
  self->monitor(x.handle);
}

supervision cluster_state::fresh_rules() const {
  restart_type type = restart_type::permanent;
  if (spec().restart == restart_policy::on_error)
    type = restart_type::transient;
  else if (spec().restart == restart_policy::never)
    type = restart_type::temporary;
  supervision result{strategy::one_for_one,
                     {spec().restart_limit, spec().restart_period}};
  backoff_rule delays;
  delays.first = spec().restart_delay;
  delays.max = std::max(spec().restart_max_delay, spec().restart_delay);
  result.add("instance", type, delays);
  return result;
}

instance_args cluster_state::instance_of(const slot& x) const {
  const auto id = id_of(x);
  const auto port = port_of(x);
  const auto index = x.number == 0 ? 0 : x.number - 1;
  instance_args result;
  auto& request = result.request;
  request.id = id;
  request.life = x.life;
  request.argv = spec().argv;
  if (!spec().shell)
    for (auto& argument : request.argv)
      argument = expand(argument, port, index, id);
  request.env = spec().env;
  for (auto& [key, value] : request.env)
    value = expand(value, port, index, id);
  request.cwd = expand(spec().cwd, port, index, id);
  request.path = spec().path;
  request.port = port;
  request.ready = spec().ready;
  request.env["PUP_ID"] = id;
  request.env["PUP_NAME"] = args.supervisor;
  if (spec().cluster)
    request.env["PUP_CLUSTER_INSTANCE"] = std::to_string(index);
  if (port != 0) {
    const auto text = std::to_string(port);
    request.env["PUP_CLUSTER_PORT"] = text;
    // What most programs read, and what lets a plain Deno.serve() listen here;
    // the configuration's own values win.
    request.env.emplace("PORT", text);
    request.env.emplace("DENO_SERVE_ADDRESS", "tcp:127.0.0.1:" + text);
  }
  result.slot = x.number;
  result.grace_period = spec().terminate_grace_period;
  result.stop_timeout = spec().terminate_timeout;
  result.stop_signal = spec().stop_signal;
  result.ready_timeout = spec().ready_timeout;
  result.launcher = args.world.launcher;
  return result;
}

// Withdrawn first, stopped when its connections have ended.
void cluster_state::leave(slot& x) {
  if (x.now == phase::ready && balancer) {
    x.now = phase::draining;
    publish();
    return;
  }
  stop_instance(x);
}

void cluster_state::stop_instance(slot& x) {
  x.now = phase::stopping;
  self->send_exit(x.handle, caf::exit_reason::user_shutdown);
}

void cluster_state::come_to_rest(slot& x, run_state how, std::string why) {
  x.now = phase::resting;
  x.rest = how;
  x.reason = std::move(why);
  const auto number = x.number;
  const auto up_text = x.reason.empty() ? to_string(how) : x.reason;
  pending.settle(number, direction::up,
                 outcome_of(x, how == run_state::finished, up_text));
  pending.settle(number, direction::down, outcome_of(x, true, "stopped"));
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
  ++x.restarts;
  launch_slot(x);
}

void cluster_state::ended_by_itself(slot& x, const ending& how) {
  const auto has = [&](const std::vector<int>& codes) {
    return how.what == ending::kind::exited
           && std::find(codes.begin(), codes.end(), how.code) != codes.end();
  };
  const auto now = self->clock().now();
  const auto was_ready = x.now == phase::ready;
  const auto success = has(spec().success_exit_codes);
  const auto at_rest = success ? run_state::finished : run_state::failed;
  const auto why = success ? std::string{} : to_string(how);
  if (has(spec().no_restart_exit_codes))
    return come_to_rest(x, at_rest, why);
  const auto stable
    = was_ready && now - x.ready_since >= backoff_rule{}.stable_after;
  const auto what
    = x.rules->ended("instance", success, stable, now,
                     std::uniform_real_distribution<double>{0, 1}(random));
  if (std::holds_alternative<give_up>(what))
    return come_to_rest(x, run_state::exhausted,
                        to_string(how) + "; more than "
                          + std::to_string(*spec().restart_limit)
                          + " restarts in " + in_words(spec().restart_period));
  const auto* again = std::get_if<restart>(&what);
  if (again == nullptr)
    return come_to_rest(x, at_rest, why);
  ++x.restarts;
  pending.settle(x.number, direction::up,
                 outcome_of(x, false,
                            to_string(how) + "; starting again in "
                              + in_words(again->delay)));
  if (again->delay <= duration::zero())
    return launch_slot(x);
  x.now = phase::backoff;
  x.reason = to_string(how) + "; starting again in " + in_words(again->delay);
  x.timer = ++last_timer;
  self->delayed_send(self, again->delay, backoff_due{x.number, x.timer});
}

void cluster_state::backoff_over(const backoff_due& due) {
  for (auto& x : slots)
    if (x.number == due.slot && x.timer == due.timer
        && x.now == phase::backoff)
      return launch_slot(x);
}

void cluster_state::became_ready(slot& x, const instance_ready& fact) {
  if (x.now != phase::starting)
    return;
  x.now = phase::ready;
  x.address = fact.address;
  x.ready_since = self->clock().now();
  publish();
  pending.settle(x.number, direction::up, outcome_of(x, true, "ready"));
}

void cluster_state::drained(const backend_drained& fact) {
  auto* x = find(fact.slot, fact.life);
  if (x == nullptr || x->now != phase::draining)
    return;
  if (fact.cut > 0)
    x->reason = std::to_string(fact.cut) + " connections outlived drainTimeoutMs";
  stop_instance(*x);
}

// -- the balancer -------------------------------------------------------------

void cluster_state::start_balancer() {
  balancer = spawn_balancer(self, caf::actor_cast<cluster_actor>(self),
                            {spec().id, *spec().cluster, args.world.proxy,
                             listening});
  self->monitor(balancer);
  publish();
}

void cluster_state::balancer_down() {
  balancer = nullptr;
  if (stopping)
    return tidy();
  const auto what
    = balancer_rules.ended("balancer", false, false, self->clock().now(),
                           std::uniform_real_distribution<double>{0, 1}(random));
  const auto* again = std::get_if<restart>(&what);
  if (again == nullptr)
    return self->quit(make_error(fault::gave_up, "the balancer failed too often"));
  self->delayed_send(self, again->delay, balancer_due{});
}

void cluster_state::set_listener(bool open) {
  listening = open;
  if (!open) {
    listener_open = false;
    listener_reason.clear();
  }
  if (balancer)
    self->send(balancer, set_listening{open});
}

void cluster_state::listener(const listener_changed& fact) {
  listener_open = fact.open;
  listener_reason = fact.reason;
  pending.settle(listener_goal, direction::up,
                 {spec().id, fact.open,
                  fact.open ? "listening" : listener_reason});
}

// A snapshot of all that may serve or still drain, never a difference.
void cluster_state::publish() {
  if (!balancer)
    return;
  assign_backends snapshot;
  for (const auto& x : slots)
    if (x.handle && (x.now == phase::ready || x.now == phase::draining))
      snapshot.backends.push_back({x.number, x.life, x.address, port_of(x),
                                   x.now == phase::draining});
  self->send(balancer, std::move(snapshot));
}

// -- requests -----------------------------------------------------------------

caf::result<scale_report> cluster_state::scale_to(const scale& request) {
  if (!spec().cluster)
    return make_error(fault::bad_request,
                      "'" + spec().id
                        + "' is a process, not a cluster; give it a \"cluster\" "
                          "in the configuration to scale it");
  const auto from = desired;
  auto to = request.count;
  if (request.mode == scale_mode::up_by)
    to = from + std::min(request.count, bounds::instances + 1);
  else if (request.mode == scale_mode::down_by)
    to = from - std::min(request.count, from);
  if (to > bounds::instances)
    return make_error(fault::bad_request,
                      "'" + spec().id + "' cannot have " + std::to_string(to)
                        + " instances; use 0 to "
                        + std::to_string(bounds::instances));
  desired = to;
  grow(desired);
  if (has_balancer() && !listening)
    set_listener(true);

  auto promise = self->make_response_promise<scale_report>();
  pending_operation op;
  op.answer = [this, promise, from](std::vector<outcome> outcomes) mutable {
    promise.deliver(scale_report{spec().id, from, desired, std::move(outcomes)});
  };
  // The youngest leave first.
  for (auto i = slots.rbegin(); i != slots.rend() && i->number > to; ++i) {
    const auto changes = i->now != phase::resting;
    want_down(*i);
    if (changes && request.wait)
      expect(op, *i, direction::down);
  }
  for (auto& x : slots) {
    if (x.number > to)
      break;
    const auto changes = !x.wanted || x.now != phase::ready;
    want_up(x);
    if (changes && request.wait)
      expect(op, x, direction::up);
  }
  remember();
  pending.add(std::move(op));
  tidy();
  return promise;
}

caf::result<report> cluster_state::operate(const operate_unit& request) {
  if (stopping)
    return make_error(fault::shutting_down,
                      "'" + spec().id + "' is shutting down");
  std::vector<std::uint32_t> numbers;
  for (const auto& x : slots)
    if ((request.slot == 0 || x.number == request.slot)
        && (x.number <= desired || x.number == 0))
      numbers.push_back(x.number);
  if (numbers.empty() && request.slot != 0)
    return make_error(fault::no_such_id,
                      "no instance '" + instance_id(spec().id, request.slot)
                        + "'; '" + spec().id + "' has "
                        + std::to_string(desired));
  auto promise = self->make_response_promise<report>();
  pending_operation op;
  op.answer = [promise](std::vector<outcome> outcomes) mutable {
    promise.deliver(report{std::move(outcomes)});
  };
  const auto whole = request.slot == 0 && has_balancer();
  if (whole && request.what == verb::stop)
    set_listener(false);
  else if (has_balancer() && !listening && request.what != verb::await
           && request.what != verb::stop)
    set_listener(true);
  if (whole && listening && request.what != verb::stop) {
    if (listener_open)
      ; // nothing to report
    else if (!listener_reason.empty())
      op.reached(listener_goal, direction::up,
                 {spec().id, false, listener_reason});
    else
      op.expect(listener_goal, direction::up);
  }
  for (const auto number : numbers)
    for (auto& x : slots)
      if (x.number == number)
        apply(request.what, x, op);
  if (!request.wait)
    for (auto& [number, goal] : op.goals)
      if (!goal.reached)
        goal.reached = outcome{instance_id(spec().id, number), true, "begun"};
  remember();
  pending.add(std::move(op));
  tidy();
  return promise;
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
      return op.reached(x.number, direction::up,
                        outcome_of(x, x.rest == run_state::finished,
                                   x.reason.empty() ? to_string(x.rest)
                                                    : x.reason));
    case phase::backoff:
      return op.reached(x.number, direction::up, outcome_of(x, false, x.reason));
    default:
      return op.expect(x.number, direction::up);
  }
}

// -- status -------------------------------------------------------------------

run_state cluster_state::state_of(const slot& x) const {
  switch (x.now) {
    case phase::resting:
      return x.rest;
    case phase::backoff:
      return run_state::backoff;
    case phase::starting:
      return run_state::starting;
    case phase::ready:
      return run_state::ready;
    case phase::draining:
      return run_state::draining;
    case phase::stopping:
      return run_state::stopping;
  }
  return run_state::failed;
}

run_state cluster_state::cluster_state_now() const {
  std::uint32_t wanted = 0;
  std::uint32_t ready = 0;
  std::uint32_t exhausted = 0;
  for (const auto& x : slots) {
    if (!x.wanted || x.number > desired)
      continue;
    ++wanted;
    ready += x.now == phase::ready ? 1 : 0;
    exhausted += state_of(x) == run_state::exhausted ? 1 : 0;
  }
  if (wanted == 0)
    return run_state::stopped;
  if (exhausted == wanted)
    return run_state::exhausted;
  const auto reachable = !has_balancer() || listener_open;
  return ready == wanted && reachable ? run_state::running : run_state::degraded;
}

instance_status cluster_state::status(const slot& x) const {
  instance_status result;
  result.id = id_of(x);
  result.slot = x.number;
  result.state = state_of(x);
  result.pid = x.pid;
  result.port = port_of(x);
  result.restarts = x.restarts;
  result.reason = x.reason;
  if (x.handle)
    result.uptime_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                         self->clock().now() - x.started)
                         .count();
  if (x.last && x.last->what == ending::kind::exited)
    result.exit_code = x.last->code;
  if (x.last && x.last->signal != 0)
    result.signal = x.last->signal;
  return result;
}

unit_status cluster_state::status() {
  unit_status result;
  result.id = spec().id;
  result.is_cluster = spec().cluster.has_value();
  result.desired = desired;
  result.reason = listener_reason;
  for (const auto& x : slots) {
    result.instances.push_back(status(x));
    result.ready += x.now == phase::ready ? 1 : 0;
  }
  result.state = result.is_cluster ? cluster_state_now() : state_of(slots.front());
  if (has_balancer()) {
    result.balancer.emplace();
    result.balancer->port = spec().cluster->common_port;
    result.balancer->strategy = to_string(spec().cluster->strategy);
    result.balancer->mode = "proxy";
  }
  return result;
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
        return make_error(fault::shutting_down, "'" + self->state.spec().id
                                                  + "' is shutting down");
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
        if (!fact.warning.empty())
          x->reason = fact.warning;
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

} // namespace

cluster_actor spawn_cluster(caf::local_actor* parent, cluster_args args) {
  return parent->spawn(cluster_behavior, parent->address(), std::move(args));
}

} // namespace pup
