// The proxy's actor, and its way out for a successor.
#include "pup/runtime/carriers.hpp"
#include "pup/runtime/drivers.hpp"
#include "pup/runtime/drivers_shared.hpp"
#include "pup/runtime/inherit.hpp"
#include "pup/runtime/proxy.hpp"
#include "pup/runtime/socket_keeper.hpp"

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <system_error>
#include <utility>
#include <variant>

namespace pup {

namespace {

// From the loop to the proxy's actor.
struct backend_emptied {
  std::string cluster;
  backend_idle fact;
};
// The same, of the predecessors as well.
struct backend_left {
  std::string cluster;
  backend_idle fact;
};
struct backend_changed {
  std::string cluster;
  backend_reachable fact;
};
struct set_applied {
  std::uint64_t number = 0;
};
// From the host to the proxy's actor.
struct leave_plane {
  std::function<void()> done;
  std::function<void(proxy_fact)> on_fact;
};
struct plane_left {
  std::shared_ptr<proxy> plane;
};

}  // namespace

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::backend_emptied)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::backend_left)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::backend_changed)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::set_applied)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::leave_plane)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::plane_left)

namespace pup {

namespace {

using proxy_self = proxy_actor::extend<
    caf::reacts_to<backend_emptied>, caf::reacts_to<backend_left>,
    caf::reacts_to<backend_changed>, caf::reacts_to<set_applied>,
    caf::replies_to<leave_plane>::with<plane_left>>;

struct proxy_state {
  proxy_state() = default;
  proxy_state(const proxy_state&) = delete;
  proxy_state& operator=(const proxy_state&) = delete;
  ~proxy_state() {
    if (groups)
      groups->connect({});  // they call the plane
  }

  static inline const char* name = "proxy";

  std::unique_ptr<proxy> plane;
  std::shared_ptr<inherit_groups> groups;
  std::shared_ptr<socket_keeper> keeper;
  std::shared_ptr<carriers> predecessors;
  std::set<std::string> inherited;  // clusters in mode inherit
  std::map<std::uint64_t, caf::response_promise> publications;
  std::uint64_t last_publication = 0;

  /// What is open outlives this process; what is not is nobody's.
  void keep_sockets(const std::string& cluster) {
    if (!keeper || !keeper->works())
      return;
    const auto in_group = inherited.count(cluster) != 0;
    const auto all =
        in_group ? groups->duplicates(cluster) : plane->duplicates(cluster);
    if (const auto* sockets = std::get_if<kept_sockets>(&all))
      keeper->keep(in_group ? kept_group_name(cluster) : "port " + cluster,
                   *sockets);
  }

  template <class Fact>
  void pass_on(const std::string& cluster, const Fact& fact) {
    const auto i = balancers.find(cluster);
    if (i != balancers.end())
      i->second.send(fact);
  }
  std::map<std::string, weak<balancer_actor>> balancers;  // by cluster
};

std::vector<backend> backends_of(const std::vector<backend_entry>& entries) {
  std::vector<backend> result;
  for (const auto& x : entries) {
    backend b;
    b.slot = x.slot;
    b.life = x.life;
    // Instances are local: the launcher reports one of the two loopbacks.
    b.address = x.address == "::1" ? loopback_v6(x.port) : loopback_v4(x.port);
    b.draining = x.draining;
    b.drain = x.drain;
    result.push_back(b);
  }
  return result;
}

traffic traffic_of(const listener_traffic& x, std::uint16_t port) {
  traffic result;
  result.port = port;
  result.active = x.active;
  result.total = x.total;
  result.bytes_in = x.bytes_in;
  result.bytes_out = x.bytes_out;
  result.rejected = x.rejected;
  for (const auto& b : x.backends)
    result.backends.push_back({b.slot, b.life, b.active, b.total});
  return result;
}

traffic traffic_of(const inherit_traffic& x) {
  traffic result;
  result.port = x.port;
  result.counted = false;
  result.active = x.active;
  for (const auto& b : x.backends)
    result.backends.push_back({b.slot, b.life, b.active, b.total});
  return result;
}

void pass_up(const weak<proxy_self>& to, const proxy_fact& fact) {
  if (const auto* x = std::get_if<drained>(&fact))
    to.send(backend_emptied{x->key, {x->slot, x->life, x->drain}});
  else if (const auto* y = std::get_if<ejected>(&fact))
    to.send(backend_changed{
        y->key, {y->slot, y->life, std::generic_category().message(y->code)}});
  else if (const auto* z = std::get_if<readmitted>(&fact))
    to.send(backend_changed{z->key, {z->slot, z->life, {}}});
}

/// What the groups of inherited sockets need of the data plane: clients that
/// wait where nobody comes for them are connected to the common port again.
inherit_events rescues_by(proxy& plane, weak<proxy_self> facts_to) {
  inherit_events result;
  result.drained = [facts_to](const drained& fact) { pass_up(facts_to, fact); };
  result.rescue = [&plane](const std::string& key, unique_fd socket,
                           const endpoint& to) {
    backend target;
    target.address = to;
    plane.adopt(key, std::move(socket), {});
    plane.publish(key, {target});
  };
  result.stop_rescue = [&plane](const std::string& key) { plane.close(key); };
  return result;
}

caf::result<listener_opened> opened(const listen_result& x,
                                    std::uint16_t port) {
  if (!x)
    return make_error(fault::port_refused, in_words(*x.error, port));
  return listener_opened{x.port};
}

caf::result<listener_opened> open_in(proxy_state& st,
                                     const open_listener& request) {
  const auto& spec = request.spec;
  listen_result result;
  if (spec.mode == cluster_mode::inherit) {
    st.inherited.insert(request.cluster);
    result = st.groups->open(request.cluster, inherit_options_of(spec));
  } else {
    st.inherited.erase(request.cluster);
    listener_options options;
    options.host = spec.common_host;
    options.port = spec.common_port;
    options.strategy = spec.strategy;
    options.max_connections = spec.max_connections;
    options.idle_timeout = spec.idle_timeout;
    options.connect_timeout = spec.connect_timeout;
    // Left alone, it is no reason to turn away who waits for a slow start.
    if (spec.connect_timeout != cluster_spec{}.connect_timeout)
      options.ready_timeout = spec.connect_timeout;
    options.header = spec.header;
    if (auto given = st.keeper ? st.keeper->given(options.host, options.port)
                               : unique_fd{})
      return opened(st.plane->adopt(request.cluster, std::move(given), options),
                    options.port);
    auto kept =
        st.keeper ? st.keeper->take("port " + request.cluster) : kept_sockets{};
    if (kept.empty())
      result = st.plane->listen(request.cluster, options);
    else
      result = st.plane->listen(request.cluster, options, std::move(kept));
  }
  st.keep_sockets(request.cluster);
  return opened(result, spec.common_port);
}

/// A data plane, made where its failure can be told of, for an actor to come.
struct new_plane {
  // Set before anything is listened to: there are no facts until then.
  weak<proxy_self> facts_to;
  std::unique_ptr<proxy> plane;
};

proxy_self::behavior_type proxy_behavior(
    proxy_self::stateful_pointer<proxy_state> self,
    const std::shared_ptr<new_plane>& made,
    std::shared_ptr<inherit_groups> groups,
    std::shared_ptr<socket_keeper> keeper,
    std::shared_ptr<carriers> predecessors) {
  auto& state = self->state;
  state.keeper = std::move(keeper);
  state.predecessors = std::move(predecessors);
  const weak<proxy_self> me{caf::actor_cast<proxy_self>(self)};
  made->facts_to = me;
  state.plane = std::move(made->plane);
  state.groups = std::move(groups);
  state.groups->connect(rescues_by(*state.plane, me));
  self->set_default_handler(caf::drop);
  return {
      [self](const open_listener& request,
             const balancer_actor& owner) -> caf::result<listener_opened> {
        self->state.balancers[request.cluster] = weak<balancer_actor>{owner};
        return open_in(self->state, request);
      },
      [self, me](const publish_backends& request) -> caf::result<void> {
        auto& st = self->state;
        // Facts go to whoever publishes, whether it has ever listened or not.
        if (const auto& owner = self->current_sender())
          st.balancers[request.cluster] =
              weak<balancer_actor>{caf::actor_cast<balancer_actor>(owner)};
        if (st.inherited.count(request.cluster) != 0) {
          st.groups->publish(request.cluster, backends_of(request.backends));
          return caf::unit;
        }
        const auto number = ++st.last_publication;
        caf::response_promise promise = self->make_response_promise();
        st.publications.emplace(number, promise);
        st.plane->publish(request.cluster, backends_of(request.backends),
                          [me, number] { me.send(set_applied{number}); });
        return promise;
      },
      [self](const close_listener& request) {
        auto& st = self->state;
        if (st.inherited.count(request.cluster) != 0)
          st.groups->close(request.cluster);
        else
          st.plane->close(request.cluster);
        st.keep_sockets(request.cluster);
      },
      [self](const get_traffic& request) {
        const auto& st = self->state;
        if (st.inherited.count(request.cluster) != 0)
          return traffic_of(st.groups->totals(request.cluster));
        return traffic_of(st.plane->totals(request.cluster),
                          st.plane->port(request.cluster));
      },
      [self, me](const backend_emptied& x) {
        auto& st = self->state;
        if (!st.predecessors || st.inherited.count(x.cluster) != 0)
          return st.pass_on(x.cluster, x.fact);
        st.predecessors->drain(x.cluster, x.fact.slot, x.fact.life, [me, x] {
          me.send(backend_left{x.cluster, x.fact});
        });
      },
      [self](const backend_left& x) { self->state.pass_on(x.cluster, x.fact); },
      [self](const backend_changed& x) {
        self->state.pass_on(x.cluster, x.fact);
      },
      [self](const set_applied& x) {
        auto found = self->state.publications.extract(x.number);
        if (!found.empty())
          found.mapped().deliver(caf::unit);
      },
      [self](leave_plane& request) {
        auto& st = self->state;
        st.groups->let_go();
        plane_left result{std::move(st.plane)};
        result.plane->finish(std::move(request.done),
                             std::move(request.on_fact));
        self->quit();
        return result;
      },
  };
}

}  // namespace

proxy_actor spawn_proxy(caf::actor_system& sys, unsigned shards,
                        std::shared_ptr<inherit_groups> groups,
                        std::shared_ptr<socket_keeper> keeper,
                        std::shared_ptr<carriers> predecessors) {
  const auto made = std::make_shared<new_plane>();
  // Called on a loop of the data plane.
  made->plane = std::make_unique<proxy>(
      [made](const proxy_fact& fact) { pass_up(made->facts_to, fact); },
      shards);
  return sys.spawn(proxy_behavior, made, std::move(groups), std::move(keeper),
                   std::move(predecessors));
}

std::shared_ptr<proxy> leave_proxy(caf::actor_system& sys, const proxy_actor& x,
                                   std::function<void()> done,
                                   std::function<void(proxy_fact)> on_fact) {
  std::shared_ptr<proxy> result;
  caf::scoped_actor self{sys};
  self->request(caf::actor_cast<proxy_self>(
                    caf::actor_cast<caf::strong_actor_ptr>(x)),
                caf::infinite, leave_plane{std::move(done), std::move(on_fact)})
      .receive([&](plane_left& answer) { result = std::move(answer.plane); },
               [](const caf::error&) {});
  return result;
}

}  // namespace pup
