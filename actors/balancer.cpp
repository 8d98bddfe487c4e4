#include "pup/actors/spawn.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace pup {

namespace {

struct drain_due {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::uint64_t drain = 0;
};
struct open_again {
  std::uint64_t attempt = 0;
};
struct look_at_drains {};

}  // namespace

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::drain_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::open_again)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::look_at_drains)

namespace pup {

namespace {

// A taken port is usually freed by hand: look again soon, then rarely.
constexpr std::chrono::milliseconds first_retry{1'000};
constexpr std::chrono::milliseconds last_retry{10'000};

// A listener opens at once or not at all; the proxy is silent only when it is
// going away.
constexpr std::chrono::seconds open_timeout{10};
constexpr std::chrono::seconds traffic_timeout{1};

// How long drains that an earlier life began may take to reach the loops before
// their counts mean something.
constexpr std::chrono::seconds settling_time{1};

using self_actor = balancer_actor::extend<caf::reacts_to<drain_due>,
                                          caf::reacts_to<open_again>,
                                          caf::reacts_to<look_at_drains>>;

struct balancer_state {
  using pointer = self_actor::stateful_pointer<balancer_state>;
  using backend_key = std::pair<std::uint32_t, std::uint64_t>;  // slot, life

  balancer_state() = default;

  static inline const char* name = "balancer";

  pointer self = nullptr;
  balancer_args args;
  caf::actor_addr parent;
  std::vector<backend_entry> backends;
  std::map<backend_key, std::uint64_t> drains;  // running ones, by number
  std::uint64_t drain_count = 0;
  std::uint64_t number = 0;  // of the snapshot
  bool wanted = true;        // to listen
  bool inherited = true;     // no snapshot yet: drains may be an earlier life's
  std::uint64_t attempt = 0;  // to open; tells a retry that is still wanted
  std::chrono::milliseconds retry = first_retry;

  template <class Fact>
  void tell_parent(Fact fact) {
    if (auto to = caf::actor_cast<caf::strong_actor_ptr>(parent))
      self->send(caf::actor_cast<cluster_actor>(std::move(to)),
                 std::move(fact));
  }

  void set_open(bool open_wanted) {
    if (wanted == open_wanted)
      return;
    wanted = open_wanted;
    retry = first_retry;
    wanted ? open() : close();
  }

  void close() {
    ++attempt;
    self->send(args.proxy, close_listener{args.cluster});
  }

  void open() {
    const auto mine = ++attempt;
    self->request(args.proxy, open_timeout,
                  open_listener{args.cluster, args.spec},
                  caf::actor_cast<balancer_actor>(self))
        .then(
            [this, mine](const listener_opened&) {
              if (mine == attempt)
                opened();
            },
            [this, mine](const caf::error& why) {
              if (mine == attempt)
                refused(text_of(why));
            });
  }

  // The former listener may wait for its port: then that wait goes on.
  caf::result<void> retune(cluster_spec spec) {
    if (!wanted) {
      args.spec = std::move(spec);
      return caf::unit;
    }
    const auto mine = ++attempt;
    caf::response_promise promise = self->make_response_promise();
    self->request(args.proxy, open_timeout, open_listener{args.cluster, spec},
                  caf::actor_cast<balancer_actor>(self))
        .then(
            [this, mine, promise, spec](const listener_opened&) mutable {
              args.spec = std::move(spec);
              if (mine == attempt)
                opened();
              promise.deliver(caf::unit);
            },
            [this, mine, promise](caf::error& why) mutable {
              if (mine == attempt)
                open();
              promise.deliver(std::move(why));
            });
    return promise;
  }

  void opened() {
    retry = first_retry;
    publish();
    tell_parent(listener_changed{true, {}});
  }

  void refused(std::string why) {
    tell_parent(listener_changed{false, std::move(why)});
    self->delayed_send(self, retry, open_again{attempt});
    retry = std::min(2 * retry, last_retry);
  }

  void publish() {
    // A proxy that goes away publishes nothing; its end is the balancer's.
    self->request(args.proxy, caf::infinite,
                  publish_backends{args.cluster, backends})
        .then([this, mine = number] { tell_parent(backends_assigned{mine}); },
              [](const caf::error&) {
                // nothing is in effect, nothing is told
              });
  }

  void assign(assign_backends snapshot) {
    number = snapshot.number;
    backends = std::move(snapshot.backends);
    std::map<backend_key, std::uint64_t> still;
    for (auto& x : backends) {
      if (!x.draining)
        continue;
      const backend_key key{x.slot, x.life};
      const auto known = drains.find(key);
      x.drain = known != drains.end() ? known->second : begin_drain(key);
      still[key] = x.drain;
    }
    drains = std::move(still);
    publish();
    if (std::exchange(inherited, false) && !drains.empty())
      self->delayed_send(self, settling_time, look_at_drains{});
  }

  std::uint64_t begin_drain(const backend_key& key) {
    ++drain_count;
    self->delayed_send(self, args.spec.drain_timeout,
                       drain_due{key.first, key.second, drain_count});
    return drain_count;
  }

  // Of a drain that was called off and has begun again it may be late.
  void idle(const backend_idle& fact) {
    const auto known = drains.find({fact.slot, fact.life});
    if (known != drains.end() && known->second == fact.drain)
      drained(known->first, 0);
  }

  void drained(backend_key key, std::uint64_t cut) {
    if (drains.erase(key) > 0)
      tell_parent(backend_drained{key.first, key.second, cut});
  }

  bool is_current(const drain_due& due) const {
    const auto i = drains.find({due.slot, due.life});
    return i != drains.end() && i->second == due.drain;
  }

  // The drain may end, or be cancelled, while the proxy counts.
  void deadline(const drain_due& due) {
    if (!is_current(due))
      return;
    self->request(args.proxy, traffic_timeout, get_traffic{args.cluster})
        .then(
            [this, due](const traffic& now) {
              if (is_current(due))
                drained({due.slot, due.life},
                        active(now, {due.slot, due.life}));
            },
            [this, due](const caf::error&) {
              if (is_current(due))
                drained({due.slot, due.life}, 0);
            });
  }

  // The proxy reports the end of a drain once: an earlier life may have had it.
  void look() {
    self->request(args.proxy, traffic_timeout, get_traffic{args.cluster})
        .then(
            [this](const traffic& now) {
              const auto running = drains;
              for (const auto& drain : running)
                if (active(now, drain.first) == 0)
                  drained(drain.first, 0);
            },
            [](const caf::error&) {
              // the deadlines remain
            });
  }

  static std::uint64_t active(const traffic& now, const backend_key& key) {
    for (const auto& x : now.backends)
      if (x.slot == key.first && x.life == key.second)
        return x.active;
    return 0;
  }
};

self_actor::behavior_type balancer_behavior(balancer_state::pointer self,
                                            const cluster_actor& parent,
                                            balancer_args args) {
  auto& state = self->state;
  state.self = self;
  state.args = std::move(args);
  state.parent = parent.address();
  monitor_for_life(self, parent);
  self->set_default_handler(caf::drop);
  self->set_down_handler([self](caf::scheduled_actor*, caf::down_msg&) {
    self->quit(caf::exit_reason::kill);
  });
  self->set_exit_handler([self](caf::scheduled_actor*, caf::exit_msg& message) {
    if (message.reason == caf::exit_reason::user_shutdown)
      self->send(self->state.args.proxy,
                 close_listener{self->state.args.cluster});
    self->quit(std::move(message.reason));
  });
  // Closing as well: an earlier life may have been told to, and failed.
  state.wanted = state.args.listening;
  state.wanted ? state.open() : state.close();
  return {
      [self](assign_backends& snapshot) {
        self->state.assign(std::move(snapshot));
      },
      [self](const set_listening& x) { self->state.set_open(x.open); },
      [self](retune_listener& x) {
        return self->state.retune(std::move(x.spec));
      },
      [self](const backend_idle& fact) { self->state.idle(fact); },
      [self](const backend_reachable& fact) { self->state.tell_parent(fact); },
      [self](const get_traffic&) {
        return self->delegate(self->state.args.proxy,
                              get_traffic{self->state.args.cluster});
      },
      [self](const drain_due& due) { self->state.deadline(due); },
      [self](const open_again& due) {
        if (due.attempt == self->state.attempt)
          self->state.open();
      },
      [self](look_at_drains) { self->state.look(); },
  };
}

}  // namespace

balancer_actor spawn_balancer(caf::local_actor* parent, cluster_actor facts_to,
                              balancer_args args) {
  return parent->spawn(balancer_behavior, std::move(facts_to), std::move(args));
}

}  // namespace pup
