#include "pup/actors/supervisor.hpp"

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>

namespace pup {

namespace {

// Messages to itself. A number tells a timer that is still wanted from one that
// is not: CAF 0.17 cannot cancel a delayed message.
struct batch_due {
  std::uint64_t batch = 0;
};
struct shutdown_due {
  std::string id;
  std::uint64_t life = 0;
};

} // namespace

} // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::batch_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::shutdown_due)

namespace pup {

namespace {

using self_actor = supervisor_actor::extend<caf::reacts_to<batch_due>,
                                            caf::reacts_to<shutdown_due>>;

bool normal(const caf::error& reason) {
  return !reason || reason == caf::exit_reason::normal
         || reason == caf::exit_reason::user_shutdown;
}

/// One child of the supervisor.
struct child {
  child_spec spec;
  child_state state = child_state::stopped;
  caf::strong_actor_ptr handle;
  std::uint64_t life = 0;
  std::uint32_t restarts = 0;
  time_point ready_since{};
  caf::message kept;
  std::vector<caf::response_promise> stop_requests;
};

/// A decision to restart on its way: stop, wait, start.
struct batch {
  std::uint64_t number = 0;
  restart plan;
  bool waiting = false; // for its delay
};

struct supervisor_state {
  using pointer = self_actor::stateful_pointer<supervisor_state>;

  supervisor_state() = default;

  static inline const char* name = "supervisor";

  pointer self = nullptr;
  supervisor_spec spec;
  supervision rules{strategy::one_for_one, {}};
  std::vector<child> children; // in start order
  std::vector<batch> batches;
  std::uint64_t batch_count = 0;
  std::deque<std::string> start_queue;
  std::string awaited; // id whose child_ready the queue waits for
  bool stopping = false;
  caf::error reason;
  std::minstd_rand random;

  void init(pointer owner, supervisor_spec wanted);

  child* find(const std::string& id);
  child* find(const caf::actor_addr& address);

  void start(child& x);
  void start_next();
  void stop(child& x);
  void down(const caf::down_msg& message);
  void ended_by_itself(child& x, bool was_normal);
  void carry_out(restart plan);
  void advance(std::uint64_t number);
  void start_batch(batch done);
  void withdraw(const std::string& id);
  void became_ready(child& x);
  void stop_all(caf::error why);
  void stop_last();
  child_info info(const child& x) const;
  double random01() {
    return std::uniform_real_distribution<double>{0, 1}(random);
  }
};

void supervisor_state::init(pointer owner, supervisor_spec wanted) {
  self = owner;
  spec = std::move(wanted);
  random.seed(spec.seed);
  rules = supervision{spec.how, spec.limit};
  for (auto& x : spec.children) {
    rules.add(x.id, x.restart, x.backoff);
    start_queue.push_back(x.id);
    children.push_back({std::move(x), child_state::waiting, {}, 0, 0, {}, {}, {}});
  }
  spec.children.clear();
  start_next();
}

child* supervisor_state::find(const std::string& id) {
  const auto i = std::find_if(children.begin(), children.end(),
                              [&](const child& x) { return x.spec.id == id; });
  return i == children.end() ? nullptr : &*i;
}

child* supervisor_state::find(const caf::actor_addr& address) {
  const auto i
    = std::find_if(children.begin(), children.end(), [&](const child& x) {
        return x.handle && caf::actor_cast<caf::actor_addr>(x.handle) == address;
      });
  return i == children.end() ? nullptr : &*i;
}

void supervisor_state::start(child& x) {
  ++x.life;
  start_context context{self, x.kept};
  try {
    x.handle = x.spec.start(context);
  } catch (...) {
    // Judged below like a child that ended at once.
    x.handle = nullptr;
  }
  if (!x.handle)
    return ended_by_itself(x, false);
  self->monitor(x.handle);
  x.ready_since = self->clock().now();
  if (!x.spec.await_ready) {
    x.state = child_state::running;
    return;
  }
  x.state = child_state::starting;
  awaited = x.spec.id;
}

void supervisor_state::start_next() {
  while (!stopping && awaited.empty() && !start_queue.empty()) {
    const auto id = std::move(start_queue.front());
    start_queue.pop_front();
    if (auto* x = find(id); x != nullptr && !x->handle)
      start(*x);
  }
}

void supervisor_state::became_ready(child& x) {
  if (x.state != child_state::starting)
    return;
  x.state = child_state::running;
  x.ready_since = self->clock().now();
  if (awaited == x.spec.id)
    awaited.clear();
  start_next();
}

void supervisor_state::stop(child& x) {
  if (x.state == child_state::stopping)
    return;
  x.state = child_state::stopping;
  self->send_exit(x.handle, caf::exit_reason::user_shutdown);
  if (x.spec.shutdown)
    self->delayed_send(self, *x.spec.shutdown, shutdown_due{x.spec.id, x.life});
}

void supervisor_state::down(const caf::down_msg& message) {
  auto* x = find(message.source);
  if (x == nullptr)
    return;
  const auto asked = x->state == child_state::stopping;
  x->handle = nullptr;
  x->state = child_state::stopped;
  for (auto& request : x->stop_requests)
    request.deliver(caf::unit);
  x->stop_requests.clear();
  if (stopping)
    return stop_last();
  if (!asked)
    return ended_by_itself(*x, normal(message.reason));
  const auto i = std::find_if(batches.begin(), batches.end(), [](const batch& b) {
    return !b.plan.stop.empty();
  });
  if (i != batches.end())
    advance(i->number);
  start_next();
}

void supervisor_state::ended_by_itself(child& x, bool was_normal) {
  const auto now = self->clock().now();
  const auto was_ready = x.state != child_state::starting;
  const auto stable
    = was_ready && now - x.ready_since >= x.spec.backoff.stable_after;
  x.state = child_state::stopped;
  const auto id = x.spec.id;
  auto what = rules.ended(id, was_normal, stable, now, random01());
  if (auto* plan = std::get_if<restart>(&what))
    return carry_out(std::move(*plan));
  if (std::holds_alternative<give_up>(what))
    return stop_all(make_error(fault::gave_up, id + " ended too often"));
  if (awaited == id)
    awaited.clear();
  if (std::get<leave>(what).forgotten)
    std::erase_if(children, [&](const child& y) { return y.spec.id == id; });
  start_next();
}

// A group's second failure while the first is being dealt with joins it.
void supervisor_state::carry_out(restart plan) {
  if (spec.how != strategy::one_for_one && !batches.empty()) {
    auto old = std::move(batches.back().plan);
    batches.pop_back();
    const auto missing = [](const std::vector<std::string>& xs) {
      return [&xs](const std::string& x) {
        return std::find(xs.begin(), xs.end(), x) == xs.end();
      };
    };
    std::copy_if(old.stop.begin(), old.stop.end(),
                 std::back_inserter(plan.stop), missing(plan.stop));
    // The one with more ids started earlier: rest_for_one lists are suffixes.
    if (old.start.size() > plan.start.size())
      plan.start.swap(old.start);
  }
  for (const auto& id : plan.start) {
    withdraw(id);
    if (auto* x = find(id)) {
      ++x->restarts;
      if (!x->handle)
        x->state = child_state::waiting;
    }
  }
  batches.push_back({++batch_count, std::move(plan), false});
  advance(batch_count);
}

void supervisor_state::withdraw(const std::string& id) {
  std::erase(start_queue, id);
  for (auto& b : batches)
    std::erase(b.plan.start, id);
}

void supervisor_state::advance(std::uint64_t number) {
  const auto i = std::find_if(batches.begin(), batches.end(),
                              [&](const batch& b) { return b.number == number; });
  if (i == batches.end() || i->waiting)
    return;
  auto& to_stop = i->plan.stop;
  while (!to_stop.empty()) {
    auto* x = find(to_stop.front());
    if (x != nullptr && x->handle)
      return stop(*x);
    to_stop.erase(to_stop.begin());
  }
  i->waiting = true;
  if (i->plan.delay > duration::zero()) {
    self->delayed_send(self, i->plan.delay, batch_due{number});
    return;
  }
  auto done = std::move(*i);
  batches.erase(i);
  start_batch(std::move(done));
}

void supervisor_state::start_batch(batch done) {
  for (const auto& id : done.plan.start) {
    auto* x = find(id);
    if (x == nullptr || x->handle)
      continue;
    if (id == awaited)
      awaited.clear(); // its turn comes again, before those behind it
    start_queue.push_back(id);
  }
  // Those of a lower rank that never started yet keep their place behind.
  std::stable_sort(start_queue.begin(), start_queue.end(),
                   [this](const std::string& a, const std::string& b) {
                     return find(a) < find(b);
                   });
  start_next();
}

void supervisor_state::stop_all(caf::error why) {
  if (stopping) {
    for (auto& x : children)
      if (x.handle)
        self->send_exit(x.handle, caf::exit_reason::kill);
    return;
  }
  stopping = true;
  reason = std::move(why);
  start_queue.clear();
  batches.clear();
  stop_last();
}

void supervisor_state::stop_last() {
  for (auto i = children.rbegin(); i != children.rend(); ++i)
    if (i->handle)
      return stop(*i);
  self->quit(std::move(reason));
}

child_info supervisor_state::info(const child& x) const {
  return {x.spec.id, x.state, x.restarts, x.handle};
}

self_actor::behavior_type
supervisor_behavior(supervisor_state::pointer self, supervisor_spec spec) {
  auto& state = self->state;
  self->set_default_handler(caf::drop);
  self->set_down_handler([self](caf::scheduled_actor*, caf::down_msg& message) {
    self->state.down(message);
  });
  self->set_exit_handler([self](caf::scheduled_actor*, caf::exit_msg& message) {
    self->state.stop_all(std::move(message.reason));
  });
  if (auto faults = check(spec); !faults.empty())
    self->quit(make_error(fault::bad_request, faults.front()));
  else
    state.init(self, std::move(spec));

  const auto unknown = [](const std::string& id) {
    return make_error(fault::no_such_id, "no child '" + id + "'");
  };
  return {
    [self](which_children) {
      std::vector<child_info> result;
      for (const auto& x : self->state.children)
        result.push_back(self->state.info(x));
      return result;
    },
    [self](child_spec& added) -> caf::result<child_info> {
      auto& st = self->state;
      if (st.stopping)
        return make_error(fault::shutting_down, "the supervisor is stopping");
      if (!added.start || !st.rules.add(added.id, added.restart, added.backoff))
        return make_error(fault::bad_request,
                          "child '" + added.id
                            + "' is there already or has no start function");
      const auto id = added.id;
      st.children.push_back(
        {std::move(added), child_state::waiting, {}, 0, 0, {}, {}, {}});
      st.start_queue.push_back(id);
      st.start_next();
      const auto* x = st.find(id);
      return x != nullptr ? st.info(*x) : child_info{id, {}, 0, nullptr};
    },
    [self, unknown](const terminate_child& request) -> caf::result<void> {
      auto& st = self->state;
      auto* x = st.find(request.id);
      if (x == nullptr)
        return unknown(request.id);
      st.withdraw(request.id);
      if (st.awaited == request.id)
        st.awaited.clear();
      if (!x->handle) {
        x->state = child_state::stopped;
        st.start_next();
        return caf::unit;
      }
      auto promise = self->make_response_promise();
      x->stop_requests.push_back(promise);
      st.stop(*x);
      return promise;
    },
    [self, unknown](const restart_child& request) -> caf::result<child_info> {
      auto& st = self->state;
      auto* x = st.find(request.id);
      if (x == nullptr)
        return unknown(request.id);
      if (x->handle || st.stopping)
        return make_error(fault::bad_request,
                          "child '" + request.id + "' is not stopped");
      st.withdraw(request.id);
      st.rules.forgive(request.id);
      st.start(*x);
      x = st.find(request.id);
      return x != nullptr ? st.info(*x) : child_info{request.id, {}, 0, nullptr};
    },
    [self, unknown](const delete_child& request) -> caf::result<void> {
      auto& st = self->state;
      auto* x = st.find(request.id);
      if (x == nullptr)
        return unknown(request.id);
      if (x->handle || x->state != child_state::stopped)
        return make_error(fault::bad_request,
                          "child '" + request.id
                            + "' is not stopped; terminate it first");
      st.rules.remove(request.id);
      std::erase_if(st.children, [&](const child& y) {
        return y.spec.id == request.id;
      });
      return caf::unit;
    },
    [self](child_ready) {
      const auto sender
        = caf::actor_cast<caf::actor_addr>(self->current_sender());
      if (auto* x = self->state.find(sender))
        self->state.became_ready(*x);
    },
    [self](keep& kept) {
      const auto sender
        = caf::actor_cast<caf::actor_addr>(self->current_sender());
      if (auto* x = self->state.find(sender))
        x->kept = std::move(kept.value);
    },
    [self](const batch_due& due) {
      auto& st = self->state;
      const auto i
        = std::find_if(st.batches.begin(), st.batches.end(),
                       [&](const batch& b) { return b.number == due.batch; });
      if (i == st.batches.end())
        return;
      auto done = std::move(*i);
      st.batches.erase(i);
      st.start_batch(std::move(done));
    },
    [self](const shutdown_due& due) {
      auto* x = self->state.find(due.id);
      if (x != nullptr && x->handle && x->life == due.life
          && x->state == child_state::stopping)
        self->send_exit(x->handle, caf::exit_reason::kill);
    },
  };
}

} // namespace

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
  return sys.spawn(supervisor_behavior, std::move(spec));
}

supervisor_actor spawn_supervisor(caf::local_actor* parent,
                                  supervisor_spec spec) {
  return parent->spawn(supervisor_behavior, std::move(spec));
}

} // namespace pup
