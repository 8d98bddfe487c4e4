#include "pup/actors/spawn.hpp"

#include <algorithm>
#include <map>

namespace pup {

namespace {

struct drain_due {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::uint64_t drain = 0;
};
struct open_again {};

} // namespace

} // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::drain_due)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::open_again)

namespace pup {

namespace {

// A taken port is usually freed by hand: look again soon, then rarely.
constexpr std::chrono::milliseconds first_retry{1'000};
constexpr std::chrono::milliseconds last_retry{10'000};

using self_actor = balancer_actor::extend<caf::reacts_to<drain_due>,
                                          caf::reacts_to<open_again>>;

struct balancer_state {
  using pointer = self_actor::stateful_pointer<balancer_state>;
  using backend_key = std::pair<std::uint32_t, std::uint64_t>; // slot, life

  balancer_state() = default;

  static inline const char* name = "balancer";

  pointer self = nullptr;
  balancer_args args;
  caf::actor_addr parent;
  std::vector<backend_entry> backends;
  std::map<backend_key, std::uint64_t> drains; // running ones, by number
  std::uint64_t drain_count = 0;
  bool wanted = true; // to listen
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
    if (wanted)
      open();
    else
      self->send(args.proxy, close_listener{args.cluster});
  }

  void open() {
    if (!wanted)
      return;
    self
      ->request(args.proxy, std::chrono::seconds(10),
                open_listener{args.cluster, args.spec},
                caf::actor_cast<balancer_actor>(self))
      .then(
        [this](const listener_opened&) {
          if (!wanted)
            return;
          retry = first_retry;
          publish();
          tell_parent(listener_changed{true, {}});
        },
        [this](const caf::error& why) {
          tell_parent(listener_changed{false, text_of(why)});
          self->delayed_send(self, retry, open_again{});
          retry = std::min(2 * retry, last_retry);
        });
  }

  void publish() {
    self->send(args.proxy, publish_backends{args.cluster, backends});
  }

  void assign(std::vector<backend_entry> snapshot) {
    backends = std::move(snapshot);
    std::map<backend_key, std::uint64_t> still;
    for (const auto& x : backends) {
      if (!x.draining)
        continue;
      const backend_key key{x.slot, x.life};
      const auto known = drains.find(key);
      still[key] = known != drains.end() ? known->second : begin_drain(key);
    }
    drains = std::move(still);
    publish();
  }

  std::uint64_t begin_drain(const backend_key& key) {
    ++drain_count;
    self->delayed_send(self, args.spec.drain_timeout,
                       drain_due{key.first, key.second, drain_count});
    return drain_count;
  }

  void idle(const backend_idle& fact) {
    if (drains.erase({fact.slot, fact.life}) > 0)
      tell_parent(backend_drained{fact.slot, fact.life, 0});
  }

  void deadline(const drain_due& due) {
    const auto i = drains.find({due.slot, due.life});
    if (i == drains.end() || i->second != due.drain)
      return;
    drains.erase(i);
    self->request(args.proxy, std::chrono::seconds(1),
                  get_traffic{args.cluster})
      .then(
        [this, due](const traffic& now) {
          std::uint64_t open = 0;
          for (const auto& x : now.backends)
            if (x.slot == due.slot && x.life == due.life)
              open = x.active;
          tell_parent(backend_drained{due.slot, due.life, open});
        },
        [this, due](const caf::error&) {
          tell_parent(backend_drained{due.slot, due.life, 0});
        });
  }
};

self_actor::behavior_type balancer_behavior(balancer_state::pointer self,
                                            const cluster_actor& parent,
                                            balancer_args args) {
  auto& state = self->state;
  state.self = self;
  state.args = std::move(args);
  state.parent = parent.address();
  self->monitor(parent);
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
  state.wanted = state.args.listening;
  state.open();
  return {
    [self](assign_backends& snapshot) {
      self->state.assign(std::move(snapshot.backends));
    },
    [self](const set_listening& x) { self->state.set_open(x.open); },
    [self](const backend_idle& fact) { self->state.idle(fact); },
    [self](const get_traffic&) {
      return self->delegate(self->state.args.proxy,
                            get_traffic{self->state.args.cluster});
    },
    [self](const drain_due& due) { self->state.deadline(due); },
    [self](open_again) { self->state.open(); },
  };
}

} // namespace

balancer_actor spawn_balancer(caf::local_actor* parent, cluster_actor facts_to,
                              balancer_args args) {
  return parent->spawn(balancer_behavior, std::move(facts_to),
                       std::move(args));
}

} // namespace pup
