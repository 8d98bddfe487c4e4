#include "pup/runtime/proxy.hpp"

#include "pup/runtime/engine_sockets.hpp"
#include "pup/runtime/proxy_shard.hpp"
#include "pup/runtime/reuseport.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <future>
#include <map>
#include <mutex>
#include <numeric>
#include <utility>

#include <sched.h>

namespace pup {

// -- proxy --------------------------------------------------------------------

/// The names, options and sets. The mutex guards them alone; a loop never takes
/// it, and nobody waits for a loop while holding it.
class proxy::impl {
public:
  impl(std::function<void(proxy_fact)> on_fact, unsigned shards)
      : on_fact_(std::move(on_fact)) {
    shards = std::clamp(shards, 1u, bounds::loops);
    const auto bells = std::make_shared<loop_bells>(shards);
    for (unsigned i = 0; i < shards; ++i)
      shards_.push_back(std::make_unique<shard>(
          [this](const proxy_fact& x) {
            if (on_fact_)
              on_fact_(x);
          },
          bells, i));
  }

  ~impl() {
    // All, before the first one's engine goes.
    for (auto& x : shards_)
      x->stop();
  }

  listen_result listen(const std::string& key,
                       const listener_options& options) {
    std::unique_lock lock(mutex_);
    const auto found = entries_.find(key);
    if (found != entries_.end() && found->second.is_at(options)) {
      const auto port = found->second.port;
      configure(key, found->second, options);
      wait_for_loops(lock);
      return {std::nullopt, port};
    }
    const bool own = found != entries_.end() && !found->second.adopted;
    auto opened = open_group(options.host, options.port, shards_.size(),
                             own ? found->second.port : 0);
    if (opened.error)
      return {std::move(opened.error), 0};
    const auto port = open(key, options, opened.sockets.front());
    auto& e = entries_.at(key);
    for (std::size_t i = 0; i < shards_.size(); ++i)
      serve(key, e, i, std::move(opened.sockets[i]));
    wait_for_loops(lock);
    return {std::nullopt, port};
  }

  std::variant<kept_sockets, listen_error> duplicates(const std::string& key) {
    const std::lock_guard lock(mutex_);
    kept_sockets result;
    const auto found = entries_.find(key);
    if (found == entries_.end() || found->second.adopted)
      return result;
    for (const auto& x : found->second.sockets)
      if (const auto socket = x.lock()) {
        result.push_back(
            {"shard " + std::to_string(result.size()), duplicate(*socket)});
        if (!result.back().socket)
          return listen_error{"fcntl", "the sockets of " + key, errno};
      }
    return result;
  }

  listen_result listen(const std::string& key, const listener_options& options,
                       kept_sockets kept) {
    std::vector<unique_fd> here;
    std::vector<unique_fd> elsewhere;
    for (auto& x : kept) {
      if (auto error = not_listening(x.socket))
        return {std::move(error), 0};
      auto& group =
          is_bound_to(x.socket, options.host, options.port) ? here : elsewhere;
      group.push_back(std::move(x.socket));
    }
    std::unique_lock lock(mutex_);
    if (const auto found = entries_.find(key);
        found != entries_.end() && found->second.port != 0)
      return {listen_error{"listen", "for " + key, EALREADY}, 0};
    const auto count = shards_.size();
    if (here.empty()) {
      const auto former =
          elsewhere.empty() ? std::uint16_t{0} : local_port(elsewhere.front());
      auto opened = open_group(options.host, options.port, count, former);
      if (opened.error)
        return {std::move(opened.error), 0};
      here = std::move(opened.sockets);
    }
    share_out(here, options.host);
    const auto port = open(key, options, here.front());
    auto& e = entries_.at(key);
    // Given to a loop first, and replaced there: it serves who is queued, and
    // closes them.
    for (auto i = count; i < here.size(); ++i)
      elsewhere.push_back(std::move(here[i]));
    for (std::size_t i = 0; i < elsewhere.size(); ++i)
      take_over(key, e, i % count, std::move(elsewhere[i]));
    for (std::size_t i = 0; i < count; ++i)
      if (i < here.size())
        take_over(key, e, i, std::move(here[i]));
      else
        shards_[i]->post([key](engine& x) { x.listen(key, nullptr); });
    wait_for_loops(lock);
    return {std::nullopt, port};
  }

  void let_go(const std::string& key) {
    std::unique_lock lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end())
      return;
    found->second.stop_listening();
    for (auto& s : shards_)
      s->post([key](engine& x) { x.let_go(key); });
    wait_for_loops(lock);
  }

  void finish(std::function<void()> done,
              const std::function<void(proxy_fact)>& on_fact) {
    std::unique_lock lock(mutex_);
    const auto left =
        std::make_shared<std::atomic<std::size_t>>(shards_.size());
    for (auto& [key, e] : entries_)
      e.stop_listening();
    for (auto& s : shards_)
      s->post([left, done, on_fact](engine& x) {
        x.finish(
            [left, done] {
              if (left->fetch_sub(1) == 1)
                done();
            },
            on_fact);
      });
    wait_for_loops(lock);
  }

  void drain(const std::string& key, std::uint32_t slot, std::uint64_t life) {
    const std::lock_guard lock(mutex_);
    auto& e = entry_of(key);
    auto all = e.current->set.backends();
    auto found = std::find_if(
        all.begin(), all.end(),
        [id = backend_id{slot, life}](const auto& x) { return x.id() == id; });
    if (found == all.end()) {
      found = all.insert(found, backend{});
      found->slot = slot;
      found->life = life;
    }
    found->draining = true;
    found->drain = ++last_drain_;
    publish(key, e, std::move(all), {});
  }

  listen_result adopt(const std::string& key, unique_fd socket,
                      const listener_options& options) {
    if (auto error = not_listening(socket))
      return {std::move(error), 0};
    std::unique_lock lock(mutex_);
    auto& e = entry_of(key);
    const auto port = local_port(socket);
    configure(key, e, options);
    e.port = port;
    // One after the other: each shard gets its part.
    if (!std::exchange(e.adopted, true))
      e.adopter = adoptions_++ % shards_.size();
    for (std::size_t i = 0; i < shards_.size(); ++i)
      if (i != e.adopter)
        shards_[i]->post([key](engine& x) { x.listen(key, nullptr); });
    e.sockets.clear();
    shards_[e.adopter]->post(
        [key, shared = share(e, std::move(socket))](engine& x) mutable {
          x.adopt(key, std::move(shared));
        });
    wait_for_loops(lock);
    return {std::nullopt, port};
  }

  std::uint16_t port(const std::string& key) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    return found == entries_.end() ? std::uint16_t{0} : found->second.port;
  }

  void publish(const std::string& key, std::vector<backend> backends,
               std::function<void()> done) {
    const std::lock_guard lock(mutex_);
    publish(key, entry_of(key), std::move(backends), std::move(done));
  }

  void close(const std::string& key) {
    std::unique_lock lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end())
      return;
    found->second.stop_listening();
    for (auto& s : shards_)
      s->post([key](engine& x) { x.listen(key, nullptr); });
    wait_for_loops(lock);
  }

  void cut(const std::string& key) {
    std::unique_lock lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end())
      return;
    const bool closed = found->second.port == 0;
    if (closed)
      entries_.erase(found);
    for (auto& s : shards_)
      s->post([key, closed](engine& x) {
        x.cut(key);
        if (closed)
          x.forget(key);
      });
    wait_for_loops(lock);
  }

  listener_traffic totals(const std::string& key) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    return found == entries_.end() ? listener_traffic{}
                                   : found->second.totals();
  }

private:
  struct entry {
    listener_options options;
    /// 0: does not listen.
    std::uint16_t port = 0;
    /// From a socket that others hold too, on the shard `adopter`.
    bool adopted = false;
    std::size_t adopter = 0;
    /// Where clients may wait.
    std::vector<std::weak_ptr<const unique_fd>> sockets;
    std::shared_ptr<listener_state> state = std::make_shared<listener_state>();
    /// One for each shard.
    std::vector<std::shared_ptr<listener_counters>> counters;
    std::shared_ptr<const snapshot> current = std::make_shared<snapshot>();
    /// Counters of removed backends that had connections when last looked at.
    std::vector<std::shared_ptr<backend_state>> removed;

    void stop_listening() {
      port = 0;
      adopted = false;
      sockets.clear();
    }

    /// A request for port 0 is met by whatever port a former one got.
    [[nodiscard]] bool is_at(const listener_options& wanted) const {
      return port != 0 && !adopted && wanted.host == options.host
             && (wanted.port == port || wanted.port == options.port);
    }

    [[nodiscard]] listener_traffic totals() const {
      listener_traffic result;
      for (const auto& x : counters) {
        result.active += x->active.load(std::memory_order_relaxed);
        result.total += x->total.load(std::memory_order_relaxed);
        result.bytes_in += x->bytes_in.load(std::memory_order_relaxed);
        result.bytes_out += x->bytes_out.load(std::memory_order_relaxed);
        result.rejected += x->rejected.load(std::memory_order_relaxed);
      }
      // None is closed meanwhile: the engine's own pointer is let go only after
      // this list was emptied, and both are done under the lock.
      for (const auto& x : sockets)
        if (const auto socket = x.lock())
          result.queued += queued_in(*socket);
      const auto add = [&result](const backend_state& x) {
        result.backends.push_back({x.id.slot, x.id.life, x.active.load(),
                                   x.total.load(std::memory_order_relaxed)});
      };
      for (const auto& x : current->states)
        add(*x);
      for (const auto& x : removed)
        if (x->active.load() > 0)
          add(*x);
      return result;
    }
  };

  static engine::socket_pointer share(entry& e, unique_fd socket) {
    auto result = std::make_shared<const unique_fd>(std::move(socket));
    e.sockets.push_back(result);
    return result;
  }

  entry& entry_of(const std::string& key) {
    auto& result = entries_[key];
    while (result.counters.size() < shards_.size())
      result.counters.push_back(std::make_shared<listener_counters>());
    return result;
  }

  /// Nothing is served yet. Returns the port of `first`.
  std::uint16_t open(const std::string& key, const listener_options& options,
                     const unique_fd& first) {
    auto& e = entry_of(key);
    configure(key, e, options);
    e.port = local_port(first);
    e.adopted = false;
    e.sockets.clear();
    return e.port;
  }

  void serve(const std::string& key, entry& e, std::size_t index,
             unique_fd socket) {
    shards_[index]->post(
        [key, shared = share(e, std::move(socket))](engine& x) mutable {
          x.listen(key, std::move(shared));
        });
  }

  /// A socket of a former process, which may have ended in the middle of
  /// anything.
  void take_over(const std::string& key, entry& e, std::size_t index,
                 unique_fd socket) {
    ignore_requests(socket.get(), false);
    set_blocking(socket, false);
    serve(key, e, index, std::move(socket));
  }

  /// One socket for each shard, as far as possible; the kernel sends nobody
  /// else to those beyond, which stay where they are: at the end.
  void share_out(std::vector<unique_fd>& sockets, const std::string& host) {
    const auto port = local_port(sockets.front());
    while (sockets.size() < shards_.size()) {
      auto further = open_listening(host, port, port_sharing::next);
      if (further.error)
        break;
      sockets.push_back(std::move(further.socket));
    }
    if (sockets.size() <= shards_.size())
      return detach(sockets.front().get());
    std::vector<std::uint32_t> places(shards_.size());
    std::iota(places.begin(), places.end(), 0u);
    // Without it some clients have to ask twice (engine::drain_retired).
    (void)attach(sockets.front().get(), steer_at_random(places));
  }

  void configure(const std::string& key, entry& e,
                 const listener_options& options) {
    e.options = options;
    const listener_limits limits{options.max_connections, options.idle_timeout,
                                 options.connect_timeout, options.ready_timeout,
                                 options.header};
    for (std::size_t i = 0; i < shards_.size(); ++i)
      shards_[i]->post(
          [key, limits, counters = e.counters[i], state = e.state](engine& x) {
            x.configure(key, limits, counters, state);
          });
    if (options.strategy != e.current->set.strategy())
      publish(key, e, e.current->set.backends(), {});
  }

  void publish(const std::string& key, entry& e, std::vector<backend> backends,
               std::function<void()> done) {
    auto next = std::make_shared<snapshot>();
    next->set =
        backend_set(std::move(backends), e.options.strategy, &e.current->set);
    next->states = take_over_states(e, next->set);
    next->applied = std::move(done);
    next->loops_left = static_cast<unsigned>(shards_.size());
    e.current = std::move(next);
    for (auto& s : shards_)
      s->post([key, set = e.current](engine& x) { x.publish(key, set); });
  }

  /// A backend that stays, or comes back while it still has connections, keeps
  /// its state.
  static std::vector<std::shared_ptr<backend_state>> take_over_states(
      entry& e, const backend_set& next) {
    std::map<backend_id, std::shared_ptr<backend_state>> known;
    for (const auto& x : e.removed)
      if (x->active.load() > 0)
        known.emplace(x->id, x);
    for (const auto& x : e.current->states)
      known.emplace(x->id, x);
    std::vector<std::shared_ptr<backend_state>> result;
    for (const auto& x : next.backends()) {
      auto node = known.extract(x.id());
      result.push_back(node ? std::move(node.mapped())
                            : std::make_shared<backend_state>(x.id(), e.state));
    }
    e.removed.clear();
    for (auto& [id, x] : known)
      e.removed.push_back(std::move(x));
    return result;
  }

  /// Until every loop has done what was posted so far. Not on a loop's own
  /// thread: it would wait for itself.
  void wait_for_loops(std::unique_lock<std::mutex>& lock) {
    const auto here = [](const auto& s) { return s->is_this_thread(); };
    if (std::any_of(shards_.begin(), shards_.end(), here))
      return;
    std::vector<std::future<void>> reached;
    for (auto& s : shards_) {
      const auto promise = std::make_shared<std::promise<void>>();
      reached.push_back(promise->get_future());
      s->post([promise](engine&) { promise->set_value(); });
    }
    lock.unlock();
    for (auto& x : reached)
      x.wait();
  }

  std::function<void(proxy_fact)> on_fact_;
  std::mutex mutex_;
  std::map<std::string, entry> entries_;
  std::size_t adoptions_ = 0;
  // Beyond the numbers that were given before finish().
  std::uint64_t last_drain_ = std::uint64_t{1} << 32;
  // Last: its threads use what stands above until they are joined.
  std::vector<std::unique_ptr<shard>> shards_;
};

unsigned default_shards() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0)
    return 1;
  return static_cast<unsigned>(std::clamp(CPU_COUNT(&allowed), 1, 8));
}

proxy::proxy(std::function<void(proxy_fact)> on_fact, unsigned shards)
    : impl_(std::make_unique<impl>(std::move(on_fact), shards)) {}

proxy::~proxy() = default;

listen_result proxy::listen(const std::string& key,
                            const listener_options& options) {
  return impl_->listen(key, options);
}

std::variant<kept_sockets, listen_error> proxy::duplicates(
    const std::string& key) const {
  return impl_->duplicates(key);
}

listen_result proxy::listen(const std::string& key,
                            const listener_options& options,
                            kept_sockets kept) {
  return impl_->listen(key, options, std::move(kept));
}

void proxy::finish(std::function<void()> done,
                   std::function<void(proxy_fact)> on_fact) {
  impl_->finish(std::move(done), on_fact);
}

void proxy::drain(const std::string& key, std::uint32_t slot,
                  std::uint64_t life) {
  impl_->drain(key, slot, life);
}

void proxy::let_go(const std::string& key) {
  impl_->let_go(key);
}

listen_result proxy::adopt(const std::string& key, unique_fd socket,
                           const listener_options& options) {
  return impl_->adopt(key, std::move(socket), options);
}

std::uint16_t proxy::port(const std::string& key) const {
  return impl_->port(key);
}

void proxy::publish(const std::string& key, std::vector<backend> backends) {
  impl_->publish(key, std::move(backends), {});
}

void proxy::publish(const std::string& key, std::vector<backend> backends,
                    std::function<void()> done) {
  impl_->publish(key, std::move(backends), std::move(done));
}

void proxy::close(const std::string& key) {
  impl_->close(key);
}

void proxy::cut(const std::string& key) {
  impl_->cut(key);
}

listener_traffic proxy::totals(const std::string& key) const {
  return impl_->totals(key);
}

}  // namespace pup
