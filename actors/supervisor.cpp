#include "pup/actors/supervisor.hpp"

#include <algorithm>
#include <random>
#include <set>
#include <utility>

namespace pup {

namespace {

// Messages to itself. CAF 0.17 cannot cancel a delayed message, so none of them
// commands anything: `look_again` says that some child's time may have come,
// and the others name the life that they are about.
struct look_again {};
struct shutdown_due {
  std::string id;
  std::uint64_t life = 0;
};
struct child_ended {
  std::string id;
  std::uint64_t life = 0;
  caf::error reason;
};

}  // namespace

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::look_again)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::shutdown_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::child_ended)

namespace pup {

namespace {

using self_actor = supervisor_actor::extend<caf::reacts_to<look_again>,
                                            caf::reacts_to<shutdown_due>,
                                            caf::reacts_to<child_ended>>;

bool normal(const caf::error& reason) {
  return !reason || reason == caf::exit_reason::normal
         || reason == caf::exit_reason::user_shutdown;
}

struct child {
  explicit child(child_spec wanted)
      : spec(std::move(wanted)), kept(std::move(spec.kept)) {}

  child_spec spec;
  child_state state = child_state::waiting;
  caf::strong_actor_ptr handle;  // null: does not live, or failed to start
  std::uint64_t life = 0;        // counts starts
  std::uint32_t restarts = 0;
  time_point due{};          // not to be started before
  time_point ready_since{};  // of a running one
  bool recycled = false;     // to be stopped as a part of its group's restart
  caf::message kept;
  std::vector<caf::response_promise> stop_requests;

  bool alive() const {
    return state != child_state::waiting && state != child_state::stopped;
  }

  /// Whether those behind it that are to be started wait for it.
  bool blocks() const {
    return spec.await_ready
           && (state == child_state::waiting || state == child_state::starting);
  }

  child_info info() const {
    return {spec.id, state, restarts, handle};
  }
};

/// Handlers change what is wanted of the children; proceed(), called last, does
/// what can be done about it.
struct supervisor_state {
  using pointer = self_actor::stateful_pointer<supervisor_state>;

  supervisor_state() = default;
  ~supervisor_state();

  static inline const char* name = "supervisor";

  pointer self = nullptr;
  caf::actor_addr parent;
  supervision rules{strategy::one_for_one, {}};
  std::vector<child> children;        // in start order
  std::optional<caf::error> leaving;  // set: stops all, then ends with it
  bool told_to_stop = false;
  std::minstd_rand random;
  decltype(supervisor_spec::on_keep) on_keep;
  decltype(supervisor_spec::on_leaving) on_leaving;

  void init(pointer owner, caf::actor_addr owner_parent, supervisor_spec spec);

  child* find(const std::string& id);
  child* find(const caf::actor_addr& address);
  void forget(child& x);

  // What happens.
  void down(const caf::down_msg& message);
  void ended(const child_ended& end);
  void ended_by_itself(child& x, life_stage reached, const caf::error& reason);
  void exit_message(caf::error reason);
  void became_ready(child& x);

  // What is wanted.
  void restart_group(const restart& plan);
  void stop_all(caf::error reason);

  // What is done about it.
  void proceed();
  void start(child& x);
  void stop(child& x);

  // Requests.
  caf::result<child_info> add(child_spec& added);
  caf::result<void> terminate(const std::string& id);
  caf::result<child_info> start_again(const std::string& id);
  caf::result<void> remove(const std::string& id);
};

// Monitors do not take the children along when the supervisor itself is killed.
supervisor_state::~supervisor_state() {
  for (auto& x : children) {
    if (x.handle)
      caf::anon_send_exit(x.handle, caf::exit_reason::kill);
    for (auto& request : x.stop_requests)
      request.deliver(
          make_error(fault::shutting_down, "the supervisor has ended"));
  }
}

void supervisor_state::init(pointer owner, caf::actor_addr owner_parent,
                            supervisor_spec spec) {
  self = owner;
  parent = std::move(owner_parent);
  if (auto faults = check(spec); !faults.empty()) {
    self->quit(make_error(fault::bad_request, faults.front()));
    return;
  }
  random.seed(spec.seed);
  on_keep = std::move(spec.on_keep);
  on_leaving = std::move(spec.on_leaving);
  rules = supervision{spec.how, spec.limit};
  for (auto& x : spec.children) {
    rules.add(x.id, x.restart, x.backoff);
    children.emplace_back(std::move(x));
  }
  proceed();
}

child* supervisor_state::find(const std::string& id) {
  const auto i = std::find_if(children.begin(), children.end(),
                              [&](const child& x) { return x.spec.id == id; });
  return i == children.end() ? nullptr : &*i;
}

child* supervisor_state::find(const caf::actor_addr& address) {
  const auto i =
      std::find_if(children.begin(), children.end(), [&](const child& x) {
        return x.handle
               && caf::actor_cast<caf::actor_addr>(x.handle) == address;
      });
  return i == children.end() ? nullptr : &*i;
}

void supervisor_state::forget(child& x) {
  rules.remove(x.spec.id);
  children.erase(children.begin() + (&x - children.data()));
}

// A down_msg is urgent and overtakes what the child has sent before its end. As
// an ordinary message to ourselves it queues up behind that: a last `keep` or
// child_ready counts.
void supervisor_state::down(const caf::down_msg& message) {
  if (message.source == parent) {
    stop_all(message.reason);
    proceed();
  } else if (const auto* x = find(message.source)) {
    self->send(self, child_ended{x->spec.id, x->life, message.reason});
  }
}

void supervisor_state::ended(const child_ended& end) {
  auto* x = find(end.id);
  if (x == nullptr || x->life != end.life || !x->alive())
    return;
  const auto asked =
      x->state == child_state::stopping || x->recycled || leaving;
  const auto reached =
      stage_of(x->state == child_state::running
                   ? std::optional{self->clock().now() - x->ready_since}
                   : std::nullopt,
               x->spec.backoff);
  x->handle = nullptr;
  x->state = child_state::stopped;
  for (auto& request : std::exchange(x->stop_requests, {}))
    request.deliver(caf::unit);
  if (!asked)
    ended_by_itself(*x, reached, end.reason);
  else if (x->spec.restart == restart_type::temporary)
    forget(*x);
  else if (std::exchange(x->recycled, false))
    x->state = child_state::waiting;
  proceed();
}

void supervisor_state::ended_by_itself(child& x, life_stage reached,
                                       const caf::error& reason) {
  const auto chance = std::uniform_real_distribution<double>{0, 1}(random);
  const auto what = rules.ended(x.spec.id, normal(reason), reached,
                                self->clock().now(), chance);
  if (const auto* plan = std::get_if<restart>(&what))
    restart_group(*plan);
  else if (std::holds_alternative<give_up>(what))
    stop_all(make_error(
        fault::gave_up,
        "child '" + x.spec.id + "' ended too often; last: " + text_of(reason)));
  else if (std::get<leave>(what).forgotten)
    forget(x);
}

void supervisor_state::exit_message(caf::error reason) {
  if (std::exchange(told_to_stop, true)) {
    for (auto& x : children)
      if (x.handle)
        self->send_exit(x.handle, caf::exit_reason::kill);
    return;
  }
  stop_all(std::move(reason));
  proceed();
}

void supervisor_state::became_ready(child& x) {
  if (x.state != child_state::starting)
    return;
  x.state = child_state::running;
  x.ready_since = self->clock().now();
}

// A plan made while another is carried out joins it: what is down stays down
// until the later of both times.
void supervisor_state::restart_group(const restart& plan) {
  for (const auto& id : plan.stop) {
    auto& x = *find(id);
    if (x.alive())
      x.recycled = true;
    else if (x.spec.restart == restart_type::temporary)
      forget(x);
  }
  for (const auto& id : plan.start) {
    auto& x = *find(id);
    ++x.restarts;
    x.due = std::max(x.due, self->clock().now() + plan.delay);
    if (!x.alive())
      x.state = child_state::waiting;
  }
  if (plan.delay > duration::zero())
    self->delayed_send(self, plan.delay, look_again{});
}

void supervisor_state::stop_all(caf::error reason) {
  if (leaving)
    return;
  leaving = std::move(reason);
  if (on_leaving)
    on_leaving(*leaving);
}

void supervisor_state::proceed() {
  const auto doomed = std::find_if(
      children.rbegin(), children.rend(),
      [this](const child& x) { return x.alive() && (leaving || x.recycled); });
  if (doomed != children.rend())
    return stop(*doomed);
  if (leaving)
    return self->quit(*leaving);
  for (auto& x : children) {
    if (x.state == child_state::waiting && x.due <= self->clock().now()) {
      start(x);
      if (!x.handle)
        return;  // its child_ended decides about those behind
    }
    if (x.blocks())
      return;
  }
}

void supervisor_state::start(child& x) {
  ++x.life;
  x.state = child_state::starting;
  std::string failure = "the start function returned null";
  try {
    start_context context{self, x.kept};
    x.handle = x.spec.start(context);
  } catch (const std::exception& e) {
    failure = e.what();
  } catch (...) {
    failure = "the start function threw";
  }
  if (!x.handle) {
    self->send(self, child_ended{x.spec.id, x.life,
                                 make_error(fault::bad_request, failure)});
    return;
  }
  self->monitor(x.handle);
  if (!x.spec.await_ready)
    became_ready(x);
}

void supervisor_state::stop(child& x) {
  if (std::exchange(x.state, child_state::stopping) == child_state::stopping)
    return;
  const auto& limit = x.spec.shutdown;
  if (limit && limit->count() <= 0)
    return self->send_exit(x.handle, caf::exit_reason::kill);
  self->send_exit(x.handle, caf::exit_reason::user_shutdown);
  if (limit)
    self->delayed_send(self, *limit, shutdown_due{x.spec.id, x.life});
}

caf::error unknown(const std::string& id) {
  return make_error(fault::no_such_id, "no child '" + id + "'");
}

caf::error refused(const std::string& id, const std::string& why) {
  return make_error(fault::bad_request, "child '" + id + "' " + why);
}

caf::result<child_info> supervisor_state::add(child_spec& added) {
  if (leaving)
    return make_error(fault::shutting_down, "the supervisor is stopping");
  if (!added.start)
    return refused(added.id, "has no start function");
  if (!added.before.empty() && rules.how() != strategy::one_for_one)
    return refused(added.id, "has its place behind the others");
  // One that the rules have forgotten may still be on its way out.
  if (find(added.id) != nullptr)
    return refused(added.id, "is there already");
  rules.add(added.id, added.restart, added.backoff);
  const auto id = added.id;
  const auto place =
      std::find_if(children.begin(), children.end(), [&](const child& x) {
        return !added.before.empty() && x.spec.id == added.before;
      });
  children.emplace(place, std::move(added));
  proceed();
  return find(id)->info();
}

caf::result<void> supervisor_state::terminate(const std::string& id) {
  auto* x = find(id);
  if (x == nullptr)
    return unknown(id);
  x->recycled = false;
  if (x->alive()) {
    auto promise = self->make_response_promise();
    x->stop_requests.push_back(promise);
    stop(*x);
    return promise;
  }
  x->state = child_state::stopped;
  if (x->spec.restart == restart_type::temporary)
    forget(*x);
  proceed();
  return caf::unit;
}

caf::result<child_info> supervisor_state::start_again(const std::string& id) {
  auto* x = find(id);
  if (x == nullptr)
    return unknown(id);
  if (leaving)
    return make_error(fault::shutting_down, "the supervisor is stopping");
  if (x->alive())
    return refused(id, "is not stopped");
  rules.forgive(id);
  x->state = child_state::waiting;
  x->due = self->clock().now();
  proceed();
  return x->info();
}

caf::result<void> supervisor_state::remove(const std::string& id) {
  auto* x = find(id);
  if (x == nullptr)
    return unknown(id);
  if (x->state != child_state::stopped)
    return refused(id, "is not stopped; terminate it first");
  forget(*x);
  return caf::unit;
}

self_actor::behavior_type supervisor_behavior(supervisor_state::pointer self,
                                              caf::actor_addr parent,
                                              supervisor_spec spec) {
  auto* state = &self->state;
  const auto sender = [self, state]() -> child* {
    return state->find(
        caf::actor_cast<caf::actor_addr>(self->current_sender()));
  };
  self->set_default_handler(caf::drop);
  self->set_down_handler(
      [state](caf::scheduled_actor*, caf::down_msg& message) {
        state->down(message);
      });
  self->set_exit_handler(
      [state](caf::scheduled_actor*, caf::exit_msg& message) {
        state->exit_message(std::move(message.reason));
      });
  if (parent)
    monitor_for_life(self, parent);
  state->init(self, std::move(parent), std::move(spec));
  return {
      [state](which_children) {
        std::vector<child_info> result;
        for (const auto& x : state->children)
          result.push_back(x.info());
        return result;
      },
      [state](child_spec& added) { return state->add(added); },
      [state](const terminate_child& x) { return state->terminate(x.id); },
      [state](const restart_child& x) { return state->start_again(x.id); },
      [state](const delete_child& x) { return state->remove(x.id); },
      [state, sender](child_ready) {
        if (auto* x = sender()) {
          state->became_ready(*x);
          state->proceed();
        }
      },
      [state, sender](keep& kept) {
        auto* x = sender();
        if (x == nullptr)
          return;
        x->kept = std::move(kept.value);
        if (state->on_keep)
          state->on_keep(x->spec.id, x->kept);
      },
      [state](look_again) { state->proceed(); },
      [self, state](const shutdown_due& due) {
        const auto* x = state->find(due.id);
        if (x != nullptr && x->life == due.life && x->alive())
          self->send_exit(x->handle, caf::exit_reason::kill);
      },
      [state](const child_ended& end) { state->ended(end); },
  };
}

}  // namespace

std::vector<std::string> check(const supervisor_spec& spec) {
  std::vector<std::string> faults;
  std::set<std::string> ids;
  for (const auto& x : spec.children) {
    if (!ids.insert(x.id).second)
      faults.push_back("child '" + x.id + "' is there twice");
    if (!x.start)
      faults.push_back("child '" + x.id + "' has no start function");
  }
  return faults;
}

supervisor_actor spawn_supervisor(caf::actor_system& sys,
                                  supervisor_spec spec) {
  return sys.spawn(supervisor_behavior, caf::actor_addr{}, std::move(spec));
}

supervisor_actor spawn_supervisor(caf::local_actor* parent,
                                  supervisor_spec spec) {
  return parent->spawn(supervisor_behavior, parent->address(), std::move(spec));
}

}  // namespace pup
