#include "pup/runtime/drivers.hpp"

#include "pup/runtime/children.hpp"
#include "pup/runtime/ports.hpp"
#include "pup/runtime/proxy.hpp"
#include "pup/runtime/usage.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <csignal>
#include <map>
#include <memory>

namespace pup {

namespace {

using time_point = std::chrono::steady_clock::time_point;

// From the loop to the launcher's actor.
struct process_begun {
  std::int32_t pid = 0;
};
struct process_gone {
  std::int32_t pid = 0;
};
// From the loop to the proxy's actor.
struct backend_emptied {
  std::string cluster;
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
};

}  // namespace

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_begun)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_gone)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::backend_emptied)

namespace pup {

namespace {

using launcher_self = launcher_actor::extend<caf::reacts_to<process_begun>,
                                             caf::reacts_to<process_gone>>;
using proxy_self = proxy_actor::extend<caf::reacts_to<backend_emptied>>;

/// A handle for other threads that does not keep the actor alive.
template <class Handle>
class weak {
public:
  weak() = default;
  explicit weak(const Handle& x) : address_(x.address()) {}

  template <class Message>
  void send(Message x) const {
    if (auto to = caf::actor_cast<caf::strong_actor_ptr>(address_))
      caf::anon_send(caf::actor_cast<Handle>(std::move(to)), std::move(x));
  }

private:
  caf::actor_addr address_;
};

// -- launcher: the loop's side ------------------------------------------------

ending ending_from(const exit_status& status) {
  ending result;
  result.what =
      status.signal != 0 ? ending::kind::signalled : ending::kind::exited;
  result.code = status.code;
  result.signal = status.signal;
  if (status.core)
    result.text = "core dumped";
  return result;
}

/// Everything about processes that lives on the loop's thread.
class process_table : public std::enable_shared_from_this<process_table> {
public:
  process_table(boost::asio::io_context& loop, launcher_options options,
                weak<launcher_self> driver)
      : driver_(std::move(driver)),
        log_folder_(std::move(options.log_folder)),
        children_(loop, std::move(options.environment), events()) {}

  void launch(pup::launch request, weak<instance_actor> to) {
    owners_[request.id] = {request.life, std::move(to), 0};
    launch_request wanted;
    wanted.argv = std::move(request.argv);
    wanted.environment = std::move(request.env);
    wanted.path = std::move(request.path);
    wanted.cwd = std::move(request.cwd);
    wanted.port = request.port;
    wanted.ready = request.ready;
    if (!log_folder_.empty())
      wanted.output = log_folder_ + '/' + request.id + ".log";
    children_.launch(request.id, request.life, std::move(wanted));
  }

  void signal(const send_signal& x) {
    // SIGKILL also ends a launch that still waits for its predecessor.
    if (x.signal == SIGKILL)
      children_.kill_group(x.id, x.life);
    else
      children_.signal(x.id, x.life, x.signal);
  }

  void abandon(const std::string& id, std::uint64_t life) {
    children_.abandon(id, life);
    const auto i = owners_.find(id);
    if (i == owners_.end() || i->second.life != life)
      return;
    driver_.send(process_gone{i->second.pid});
    owners_.erase(i);
  }

private:
  struct owner {
    std::uint64_t life = 0;
    weak<instance_actor> handle;
    std::int32_t pid = 0;
  };

  owner* find(const std::string& id, std::uint64_t life) {
    const auto i = owners_.find(id);
    return i != owners_.end() && i->second.life == life ? &i->second : nullptr;
  }

  void end(const std::string& id, std::uint64_t life, ending how) {
    auto* x = find(id, life);
    if (x == nullptr)
      return;
    driver_.send(process_gone{x->pid});
    x->handle.send(process_ended{life, std::move(how)});
    owners_.erase(id);
  }

  child_events events() {
    child_events result;
    result.launched = [this](const std::string& id, std::uint64_t life,
                             pid_t pid, const std::string& warning) {
      if (auto* x = find(id, life)) {
        x->pid = pid;
        driver_.send(process_begun{pid});
        x->handle.send(process_launched{life, pid, warning});
      }
    };
    result.failed = [this](const std::string& id, std::uint64_t life,
                           const launch_fault& fault) {
      ending how;
      how.what = ending::kind::not_launched;
      how.text = fault.text;
      end(id, life, std::move(how));
    };
    result.ready = [this](const std::string& id, std::uint64_t life,
                          const std::string& address) {
      if (auto* x = find(id, life))
        x->handle.send(process_ready{life, address});
    };
    result.exited = [this](const std::string& id, std::uint64_t life,
                           const exit_status& status) {
      end(id, life, ending_from(status));
    };
    return result;
  }

  weak<launcher_self> driver_;
  std::string log_folder_;
  std::map<std::string, owner> owners_;  // by instance id
  children children_;
};

// -- launcher: the actors' side -----------------------------------------------

struct launcher_state {
  struct sample_point {
    time_point at;
    std::chrono::microseconds cpu_time{0};
  };
  struct owned {
    std::string id;
    std::uint64_t life = 0;
  };

  launcher_state() = default;
  launcher_state(const launcher_state&) = delete;
  launcher_state& operator=(const launcher_state&) = delete;
  // The table belongs to the loop's thread, its end as well.
  ~launcher_state() {
    if (loop != nullptr)
      boost::asio::post(*loop, [x = std::move(table)] {});
  }

  static inline const char* name = "launcher";

  boost::asio::io_context* loop = nullptr;
  std::shared_ptr<process_table> table;
  std::map<caf::actor_addr, owned> owners;
  std::map<std::int32_t, sample_point> samples;  // by pid

  template <class Function>
  void on_loop(Function f) {
    boost::asio::post(*loop,
                      [x = table, f = std::move(f)]() mutable { f(*x); });
  }

  std::vector<usage> take(const std::vector<std::int32_t>& pids);
};

// The percentage is that of the time since the previous sample of the process,
// or since its start: no timer runs for it.
std::vector<usage> launcher_state::take(const std::vector<std::int32_t>& pids) {
  const auto now = std::chrono::steady_clock::now();
  std::vector<usage> result;
  for (const auto& x : sample({pids.begin(), pids.end()})) {
    usage u;
    u.pid = x.pid;
    u.rss_bytes = x.rss_bytes;
    const auto before = samples.find(x.pid);
    if (before != samples.end()) {
      const std::chrono::duration<double> passed = now - before->second.at;
      const std::chrono::duration<double> used =
          x.cpu_time - before->second.cpu_time;
      if (passed.count() > 0)
        u.cpu_percent = std::max(0.0, 100 * used.count() / passed.count());
      before->second = {now, x.cpu_time};
    }
    result.push_back(u);
  }
  return result;
}

launcher_self::behavior_type launcher_behavior(
    launcher_self::stateful_pointer<launcher_state> self,
    boost::asio::io_context* loop, launcher_options options) {
  auto& state = self->state;
  state.table = std::make_shared<process_table>(
      *loop, std::move(options),
      weak<launcher_self>{caf::actor_cast<launcher_self>(self)});
  state.loop = loop;
  self->set_default_handler(caf::drop);
  // Whoever loses its actor leaves no process behind.
  self->set_down_handler([self](caf::scheduled_actor*, caf::down_msg& message) {
    auto& st = self->state;
    const auto i = st.owners.find(message.source);
    if (i == st.owners.end())
      return;
    st.on_loop(
        [x = i->second](process_table& table) { table.abandon(x.id, x.life); });
    st.owners.erase(i);
  });
  return {
      [self](launch& request, const instance_actor& owner) {
        auto& st = self->state;
        self->monitor(owner);
        st.owners[owner.address()] = {request.id, request.life};
        st.on_loop(
            [request = std::move(request),
             to = weak<instance_actor>{owner}](process_table& x) mutable {
              x.launch(std::move(request), std::move(to));
            });
      },
      [self](send_signal& request) {
        self->state.on_loop([request = std::move(request)](process_table& x) {
          x.signal(request);
        });
      },
      [self](const sample_usage& request) {
        return self->state.take(request.pids);
      },
      [self](const process_begun& fact) {
        self->state.samples[fact.pid] = {std::chrono::steady_clock::now(), {}};
      },
      [self](const process_gone& fact) { self->state.samples.erase(fact.pid); },
  };
}

// -- proxy --------------------------------------------------------------------

struct proxy_state {
  proxy_state() = default;

  static inline const char* name = "proxy";

  std::unique_ptr<proxy> plane;
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

/// "port 3000 is in use by pid 4711 (nginx)" rather than the bare call.
std::string in_words(const listen_error& x, std::uint16_t port) {
  return x.code == EADDRINUSE ? describe_port_in_use(port) : to_string(x);
}

proxy_self::behavior_type proxy_behavior(
    proxy_self::stateful_pointer<proxy_state> self, unsigned shards) {
  auto& state = self->state;
  // Called on a loop of the data plane.
  auto tell = [to = weak<proxy_self>{caf::actor_cast<proxy_self>(self)}](
                  const proxy_fact& fact) {
    to.send(backend_emptied{fact.key, fact.slot, fact.life});
  };
  state.plane = std::make_unique<proxy>(std::move(tell), shards);
  self->set_default_handler(caf::drop);
  return {
      [self](const open_listener& request,
             const balancer_actor& owner) -> caf::result<listener_opened> {
        auto& st = self->state;
        listener_options options;
        options.host = request.spec.common_host;
        options.port = request.spec.common_port;
        options.strategy = request.spec.strategy;
        options.max_connections = request.spec.max_connections;
        options.idle_timeout = request.spec.idle_timeout;
        options.connect_timeout = request.spec.connect_timeout;
        const auto result = st.plane->listen(request.cluster, options);
        if (!result)
          return make_error(fault::port_refused,
                            in_words(*result.error, options.port));
        st.balancers[request.cluster] = weak<balancer_actor>{owner};
        return listener_opened{result.port};
      },
      [self](const publish_backends& request) {
        self->state.plane->publish(request.cluster,
                                   backends_of(request.backends));
      },
      [self](const close_listener& request) {
        self->state.plane->close(request.cluster);
      },
      [self](const get_traffic& request) {
        const auto& plane = *self->state.plane;
        return traffic_of(plane.totals(request.cluster),
                          plane.port(request.cluster));
      },
      [self](const backend_emptied& fact) {
        const auto i = self->state.balancers.find(fact.cluster);
        if (i != self->state.balancers.end())
          i->second.send(backend_idle{fact.slot, fact.life});
      },
  };
}

}  // namespace

launcher_actor spawn_launcher(caf::actor_system& sys,
                              boost::asio::io_context& loop,
                              launcher_options options) {
  return sys.spawn(launcher_behavior, &loop, std::move(options));
}

proxy_actor spawn_proxy(caf::actor_system& sys, unsigned shards) {
  return sys.spawn(proxy_behavior, shards);
}

}  // namespace pup
