#include "pup/runtime/proxy.hpp"

#include "pup/runtime/engine.hpp"
#include "pup/runtime/fd.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace pup {
namespace {

namespace asio = boost::asio;
using error_code = boost::system::error_code;

// -- listening sockets --------------------------------------------------------

/// Clients that may wait in the kernel; it takes the lower of this and
/// net.core.somaxconn.
constexpr int backlog = 4096;

struct socket_address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

std::optional<socket_address> parse(const std::string& host,
                                    std::uint16_t port) {
  socket_address result;
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    std::memcpy(&result.storage, &v4, sizeof v4);
    result.length = sizeof v4;
    return result;
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
    std::memcpy(&result.storage, &v6, sizeof v6);
    result.length = sizeof v6;
    return result;
  }
  return std::nullopt;
}

std::string spelled(const std::string& host, std::uint16_t port) {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? '[' + host + ']' : host) + ':' + std::to_string(port);
}

struct open_result {
  unique_fd socket{};
  std::optional<listen_error> error;
};

open_result open_one(const std::string& host, std::uint16_t port,
                     bool dual_stack, bool shared) {
  const auto failed = [&](const char* call, int code) {
    return open_result{unique_fd{},
                       listen_error{call, spelled(host, port), code}};
  };
  const auto address = parse(host, port);
  if (!address)
    return failed("inet_pton", EINVAL);
  unique_fd fd(::socket(address->storage.ss_family,
                        SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd)
    return failed("socket", errno);
  const auto set = [&fd](int level, int name, int value) {
    return ::setsockopt(fd.get(), level, name, &value, sizeof value) == 0;
  };
  // Connections of a former run in TIME_WAIT are no reason to refuse a port.
  if (!set(SOL_SOCKET, SO_REUSEADDR, 1)
      || (shared && !set(SOL_SOCKET, SO_REUSEPORT, 1))
      || (address->storage.ss_family == AF_INET6
          && !set(IPPROTO_IPV6, IPV6_V6ONLY, dual_stack ? 0 : 1)))
    return failed("setsockopt", errno);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address->storage),
             address->length)
      != 0)
    return failed("bind", errno);
  if (::listen(fd.get(), backlog) != 0)
    return failed("listen", errno);
  return {std::move(fd), std::nullopt};
}

bool no_ipv6(int code) noexcept {
  return code == EAFNOSUPPORT || code == EADDRNOTAVAIL
         || code == EPROTONOSUPPORT;
}

open_result open_listening(const std::string& host, std::uint16_t port,
                           bool shared) {
  if (!host.empty())
    return open_one(host, port, false, shared);
  auto result = open_one("::", port, true, shared);
  if (result.error && no_ipv6(result.error->code))
    return open_one("0.0.0.0", port, false, shared);
  return result;
}

std::uint16_t port_of(const unique_fd& socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address),
                    &length)
      != 0)
    return 0;
  // Both families have their port at the same place.
  sockaddr_in in{};
  std::memcpy(&in, &address, sizeof in);
  return ntohs(in.sin_port);
}

// -- shard --------------------------------------------------------------------

/// One loop: a thread, its io_context, and the engine nested in it.
class shard {
public:
  explicit shard(engine::on_drained callback)
      : engine_(std::move(callback)),
        ready_(context_, engine_.descriptor()),
        timer_(context_) {
    wait();
    thread_ = std::thread([this] { context_.run(); });
  }

  shard(const shard&) = delete;
  shard& operator=(const shard&) = delete;

  ~shard() {
    context_.stop();
    thread_.join();
    ready_.release();  // the engine owns it
  }

  template <class Command>
  void post(Command command) {
    asio::post(context_, [this, command = std::move(command)]() mutable {
      command(engine_);
      arm_timer();
    });
  }

  [[nodiscard]] bool is_this_thread() const noexcept {
    return thread_.get_id() == std::this_thread::get_id();
  }

private:
  void wait() {
    ready_.async_wait(asio::posix::stream_descriptor::wait_read,
                      [this](const error_code& error) {
                        if (!error)
                          work();
                      });
  }

  void work() {
    const bool more = engine_.process();
    arm_timer();
    if (more)
      // Commands and timers get their turn in between.
      asio::post(context_, [this] { work(); });
    else
      wait();
  }

  /// One timer, moved only to an earlier time: what it finds on firing decides
  /// whether and when it is needed again.
  void arm_timer() {
    const auto deadline = engine_.next_deadline();
    if (!deadline || (armed_ && *armed_ <= *deadline))
      return;
    armed_ = deadline;
    timer_.expires_at(*deadline);
    timer_.async_wait([this](const error_code& error) {
      if (error)
        return;  // moved
      armed_.reset();
      engine_.expire();
      arm_timer();
    });
  }

  // One thread runs it; posting from others stays safe with this hint.
  asio::io_context context_{1};
  engine engine_;
  asio::posix::stream_descriptor ready_;
  asio::steady_timer timer_;
  std::optional<engine::clock::time_point> armed_;
  std::thread thread_;
};

}  // namespace

std::string to_string(const listen_error& x) {
  return x.call + ' ' + x.object + ": "
         + std::generic_category().message(x.code);
}

// -- proxy --------------------------------------------------------------------

/// The names, options and sets. The mutex guards them alone; a loop never takes
/// it, and nobody waits for a loop while holding it.
class proxy::impl {
public:
  impl(std::function<void(proxy_fact)> on_fact, unsigned shards)
      : on_fact_(std::move(on_fact)) {
    for (unsigned i = 0; i < std::max(shards, 1u); ++i)
      shards_.push_back(std::make_unique<shard>(
          [this](const std::string& key, backend_id id) {
            if (on_fact_)
              on_fact_({key, id.slot, id.life});
          }));
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
    std::vector<unique_fd> sockets;
    auto port = options.port;
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      auto opened = open_listening(options.host, port, shards_.size() > 1);
      if (opened.error)
        return {std::move(opened.error), 0};
      port = port_of(opened.socket);
      sockets.push_back(std::move(opened.socket));
    }
    auto& e = entry_of(key);
    configure(key, e, options);
    e.port = port;
    for (std::size_t i = 0; i < shards_.size(); ++i)
      shards_[i]->post([key, fd = std::move(sockets[i])](engine& x) mutable {
        x.listen(key, std::move(fd));
      });
    wait_for_loops(lock);
    return {std::nullopt, port};
  }

  std::uint16_t port(const std::string& key) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    return found == entries_.end() ? std::uint16_t{0} : found->second.port;
  }

  void publish(const std::string& key, std::vector<backend> backends) {
    const std::lock_guard lock(mutex_);
    publish(key, entry_of(key), std::move(backends));
  }

  void close(const std::string& key) {
    std::unique_lock lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end())
      return;
    found->second.port = 0;
    for (auto& s : shards_)
      s->post([key](engine& x) { x.listen(key, unique_fd{}); });
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
    /// One for each shard.
    std::vector<std::shared_ptr<listener_counters>> counters;
    std::shared_ptr<const snapshot> current = std::make_shared<snapshot>();
    /// Counters of removed backends that had connections when last looked at.
    std::vector<std::shared_ptr<backend_counters>> removed;

    /// A request for port 0 is met by whatever port a former one got.
    [[nodiscard]] bool is_at(const listener_options& wanted) const {
      return port != 0 && wanted.host == options.host
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
      const auto add = [&result](const backend_counters& x) {
        result.backends.push_back({x.id.slot, x.id.life, x.active.load(),
                                   x.total.load(std::memory_order_relaxed)});
      };
      for (const auto& x : current->counters)
        add(*x);
      for (const auto& x : removed)
        if (x->active.load() > 0)
          add(*x);
      return result;
    }
  };

  entry& entry_of(const std::string& key) {
    auto& result = entries_[key];
    while (result.counters.size() < shards_.size())
      result.counters.push_back(std::make_shared<listener_counters>());
    return result;
  }

  void configure(const std::string& key, entry& e,
                 const listener_options& options) {
    e.options = options;
    const auto count = static_cast<std::uint32_t>(shards_.size());
    for (std::uint32_t i = 0; i < count; ++i) {
      // Rounded up: a bound below the number of shards must not mean none.
      listener_limits limits{(options.max_connections + count - 1) / count,
                             options.idle_timeout, options.connect_timeout};
      shards_[i]->post([key, limits, counters = e.counters[i]](engine& x) {
        x.configure(key, limits, counters);
      });
    }
    if (options.strategy != e.current->set.strategy())
      publish(key, e, e.current->set.backends());
  }

  void publish(const std::string& key, entry& e,
               std::vector<backend> backends) {
    auto next = std::make_shared<snapshot>();
    next->set =
        backend_set(std::move(backends), e.options.strategy, &e.current->set);
    next->counters = take_over_counters(e, next->set);
    next->loops_left = static_cast<unsigned>(shards_.size());
    e.current = std::move(next);
    for (auto& s : shards_)
      s->post([key, set = e.current](engine& x) { x.publish(key, set); });
  }

  /// A backend that stays, or comes back while it still has connections, keeps
  /// its counters.
  static std::vector<std::shared_ptr<backend_counters>> take_over_counters(
      entry& e, const backend_set& next) {
    std::map<backend_id, std::shared_ptr<backend_counters>> known;
    for (const auto& x : e.removed)
      if (x->active.load() > 0)
        known.emplace(x->id, x);
    for (const auto& x : e.current->counters)
      known.emplace(x->id, x);
    std::vector<std::shared_ptr<backend_counters>> result;
    for (const auto& x : next.backends()) {
      auto node = known.extract(x.id());
      result.push_back(node ? std::move(node.mapped())
                            : std::make_shared<backend_counters>(x.id()));
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
      std::promise<void> promise;
      reached.push_back(promise.get_future());
      s->post([p = std::move(promise)](engine&) mutable { p.set_value(); });
    }
    lock.unlock();
    for (auto& x : reached)
      x.wait();
  }

  std::function<void(proxy_fact)> on_fact_;
  std::mutex mutex_;
  std::map<std::string, entry> entries_;
  // Last: its threads use what stands above until they are joined.
  std::vector<std::unique_ptr<shard>> shards_;
};

proxy::proxy(std::function<void(proxy_fact)> on_fact, unsigned shards)
    : impl_(std::make_unique<impl>(std::move(on_fact), shards)) {}

proxy::~proxy() = default;

listen_result proxy::listen(const std::string& key,
                            const listener_options& options) {
  return impl_->listen(key, options);
}

std::uint16_t proxy::port(const std::string& key) const {
  return impl_->port(key);
}

void proxy::publish(const std::string& key, std::vector<backend> backends) {
  impl_->publish(key, std::move(backends));
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
