#include "pup/runtime/inherit.hpp"

#include "pup/runtime/ports.hpp"
#include "pup/runtime/reuseport.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace pup {

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// A drain that ends at once is seen at once; one that lasts costs little, at
// most a tenth of the loop's time where the machine has very many connections.
constexpr milliseconds first_count = 1ms;
constexpr milliseconds longest_pause = 128ms;

// Place and slot number of the waiting room; slots count from 1.
constexpr std::uint32_t waiting_room = 0;

struct member {
  std::uint32_t slot = waiting_room;
  unique_fd socket;
  bool occupied = false;  // a process has it, or is about to
  pid_t group = 0;
  bool rescued = false;
};

struct drain_id {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::uint64_t drain = 0;

  bool operator==(const drain_id&) const = default;
};

drain_id drain_of(const backend& x) {
  return {x.slot, x.life, x.drain};
}

struct group {
  inherit_options options;
  std::uint16_t port = 0;
  // In the order of listen(): the index is what a program answers.
  std::vector<member> members;
  std::vector<backend> backends;
  std::vector<drain_id> reported;
  steering program;
  bool closing = false;
  // Nothing was published yet: the former process's program goes on.
  bool restored = false;

  member* find(std::uint32_t slot) {
    const auto i =
        std::find_if(members.begin(), members.end(),
                     [&](const member& x) { return x.slot == slot; });
    return i == members.end() ? nullptr : &*i;
  }

  [[nodiscard]] bool is_occupied() const {
    return std::any_of(members.begin(), members.end(),
                       [](const member& x) { return x.occupied; });
  }

  // A slot whose process has just ended may still be published.
  [[nodiscard]] bool is_eligible(std::uint32_t place) const {
    const auto& m = members[place];
    return !closing && m.occupied
           && std::any_of(backends.begin(), backends.end(),
                          [&](const backend& x) {
                            return x.slot == m.slot && !x.draining;
                          });
  }
};

bool is_any_address(const std::string& host) {
  return host.empty() || host == "::" || host == "0.0.0.0";
}

endpoint reachable_at(const std::string& host, std::uint16_t port) {
  auto result = host == "::" ? loopback_v6(port) : loopback_v4(port);
  if (is_any_address(host))
    return result;
  auto& address = result.address;
  address.v6 = ::inet_pton(AF_INET6, host.c_str(), address.bytes.data()) == 1;
  if (!address.v6)
    ::inet_pton(AF_INET, host.c_str(), address.bytes.data());
  return result;
}

constexpr std::string_view name_prefix = "slot ";

std::optional<std::uint32_t> slot_named(std::string_view name) {
  std::uint32_t result = 0;
  if (!name.starts_with(name_prefix))
    return std::nullopt;
  name.remove_prefix(name_prefix.size());
  const auto end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data(), end, result);
  if (parsed.ec != std::errc{} || parsed.ptr != end)
    return std::nullopt;
  return result;
}

std::string rescue_key(const std::string& cluster, const member& m) {
  // No id has a slash.
  return cluster + '/' + std::to_string(m.slot);
}

}  // namespace

class inherit_groups::impl : public std::enable_shared_from_this<impl> {
public:
  explicit impl(asio::io_context& loop) : loop_(loop), timer_(loop) {}

  void connect(inherit_events events) {
    const std::lock_guard lock(mutex_);
    for (auto& [cluster, g] : groups_)
      stop_rescues(cluster, g);
    events_ = std::move(events);
    for (auto& [cluster, g] : groups_)
      start_rescues(cluster, g);
  }

  listen_result open(const std::string& cluster,
                     const inherit_options& options) {
    const std::lock_guard lock(mutex_);
    return open_locked(cluster, options);
  }

  std::variant<unique_fd, listen_error> take(const std::string& cluster,
                                             const inherit_options& options,
                                             std::uint32_t slot) {
    const std::lock_guard lock(mutex_);
    if (groups_.count(cluster) == 0)
      if (auto opened = open_locked(cluster, options); opened.error)
        return *std::move(opened.error);
    auto& g = groups_.at(cluster);
    if (auto error = add_member(g, slot))
      return *std::move(error);
    auto& m = *g.find(slot);
    stop_rescue(cluster, m);
    // A former process or a rescue may have left it either way.
    set_blocking(m.socket, true);
    auto result = duplicate(m.socket);
    if (!result)
      return listen_error{"fcntl", "the socket of " + cluster, errno};
    m.occupied = true;
    m.group = 0;
    return result;
  }

  void holds(const std::string& cluster, std::uint32_t slot, pid_t pid) {
    const std::lock_guard lock(mutex_);
    if (auto* m = find(cluster, slot)) {
      stop_rescue(cluster, *m);
      m->occupied = true;
      m->group = pid;
    }
  }

  std::variant<kept_sockets, listen_error> duplicates(
      const std::string& cluster) const {
    const std::lock_guard lock(mutex_);
    kept_sockets result;
    const auto found = groups_.find(cluster);
    if (found == groups_.end())
      return result;
    for (const auto& m : found->second.members) {
      result.push_back({std::string(name_prefix) + std::to_string(m.slot),
                        duplicate(m.socket)});
      if (!result.back().socket)
        return listen_error{"fcntl", "the sockets of " + cluster, errno};
    }
    return result;
  }

  listen_result restore(const std::string& cluster,
                        const inherit_options& options, kept_sockets kept) {
    const auto failed = [&](int code) {
      return listen_result{
          listen_error{"listen", "with the former sockets of " + cluster, code},
          0};
    };
    const std::lock_guard lock(mutex_);
    if (groups_.count(cluster) != 0)
      return failed(EALREADY);
    group g;
    g.options = options;
    g.restored = true;
    for (auto& x : kept) {
      if (auto error = not_listening(x.socket))
        return {std::move(error), 0};
      const auto slot = slot_named(x.name);
      if (!slot || g.find(*slot) != nullptr
          || (*slot == waiting_room) != g.members.empty())
        return failed(EINVAL);
      if (!is_bound_to(x.socket, options.host, options.port))
        return failed(EADDRNOTAVAIL);
      g.members.push_back({*slot, std::move(x.socket), false, 0, false});
    }
    if (g.members.empty())
      return failed(EINVAL);
    g.port = local_port(g.members.front().socket);
    const auto port = g.port;
    groups_.emplace(cluster, std::move(g));
    return {std::nullopt, port};
  }

  void left(const std::string& cluster, std::uint32_t slot) {
    const std::lock_guard lock(mutex_);
    auto* m = find(cluster, slot);
    if (m == nullptr)
      return;
    m->occupied = false;
    m->group = 0;
    apply(cluster);
  }

  void publish(const std::string& cluster,
               const std::vector<backend>& backends) {
    const std::lock_guard lock(mutex_);
    const auto found = groups_.find(cluster);
    if (found == groups_.end()) {
      // Nothing listens any more, so nothing drains.
      for (const auto& x : backends)
        if (x.draining && events_.drained)
          events_.drained({cluster, x.slot, x.life, x.drain});
      return;
    }
    auto& g = found->second;
    g.backends = backends;
    g.restored = false;
    std::erase_if(g.reported, [&](const drain_id& x) {
      return std::none_of(
          backends.begin(), backends.end(),
          [&](const backend& y) { return y.draining && drain_of(y) == x; });
    });
    apply(cluster);
    if (!awaited().empty())
      watch_drains();
  }

  void close(const std::string& cluster) {
    const std::lock_guard lock(mutex_);
    const auto found = groups_.find(cluster);
    if (found == groups_.end())
      return;
    found->second.closing = true;
    found->second.restored = false;
    apply(cluster);
  }

  void let_go() {
    connect({});
    const std::lock_guard lock(mutex_);
    groups_.clear();
  }

  inherit_traffic totals(const std::string& cluster) const {
    struct process {
      std::uint32_t slot;
      pid_t group;
      std::uint32_t queued;
    };
    inherit_traffic result;
    std::vector<process> processes;
    std::uint16_t port = 0;
    {
      const std::lock_guard lock(mutex_);
      const auto found = groups_.find(cluster);
      if (found == groups_.end())
        return result;
      const auto& g = found->second;
      result.port = g.closing ? std::uint16_t{0} : g.port;
      for (const auto& m : g.members)
        if (m.group != 0)
          processes.push_back({m.slot, m.group, queued_in(m.socket)});
      for (const auto& x : g.backends)
        result.backends.push_back({x.slot, x.life, 0, 0});
      port = g.port;
    }
    if (processes.empty())
      return result;
    std::vector<pid_t> pids;
    for (const auto& x : processes)
      pids.push_back(x.group);
    const auto counts = count_connections(port, pids);
    for (std::size_t i = 0; i < processes.size(); ++i) {
      const auto active = counts[i] + processes[i].queued;
      result.active += active;
      for (auto& b : result.backends)
        if (b.slot == processes[i].slot)
          b.active = active;
    }
    return result;
  }

  bool knows(const std::string& cluster) const {
    const std::lock_guard lock(mutex_);
    return groups_.count(cluster) != 0;
  }

private:
  struct drain {
    std::string cluster;
    drain_id whose;
    std::uint16_t port = 0;
    pid_t group = 0;
    std::uint32_t queued = 0;
  };

  member* find(const std::string& cluster, std::uint32_t slot) {
    const auto found = groups_.find(cluster);
    return found == groups_.end() ? nullptr : found->second.find(slot);
  }

  listen_result open_locked(const std::string& cluster,
                            const inherit_options& options) {
    const auto found = groups_.find(cluster);
    if (found != groups_.end()) {
      auto& g = found->second;
      const bool same = g.options.host == options.host
                        && (options.port == 0 || g.port == options.port);
      if (!same && g.is_occupied())
        return {listen_error{"listen", "port " + std::to_string(options.port),
                             EBUSY},
                0};
      if (same) {
        g.options = options;
        g.closing = false;
        apply(cluster);
        return {std::nullopt, g.port};
      }
      stop_rescues(cluster, g);
      for (const auto& x : g.members)
        stop_listening(x.socket.get());
      groups_.erase(found);
    }
    auto opened =
        open_listening(options.host, options.port, port_sharing::first);
    if (opened.error)
      return {std::move(opened.error), 0};
    group g;
    g.options = options;
    g.port = local_port(opened.socket);
    g.members.push_back(
        {waiting_room, std::move(opened.socket), false, 0, false});
    const auto port = g.port;
    groups_.emplace(cluster, std::move(g));
    apply(cluster);
    return {std::nullopt, port};
  }

  std::optional<listen_error> add_member(group& g, std::uint32_t slot) {
    if (g.find(slot) != nullptr)
      return std::nullopt;
    auto opened = open_listening(g.options.host, g.port, port_sharing::next);
    if (opened.error)
      return std::move(opened.error);
    g.members.push_back({slot, std::move(opened.socket), false, 0, false});
    return std::nullopt;
  }

  /// Brings the kernel and the proxy in line with what is wanted.
  void apply(const std::string& cluster) {
    auto& g = groups_.at(cluster);
    if (g.restored)
      return;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> eligible;
    for (std::uint32_t place = 1; place < g.members.size(); ++place)
      if (g.is_eligible(place))
        eligible.emplace_back(g.members[place].slot, place);
    std::sort(eligible.begin(), eligible.end());
    // A rescued client must not be steered back to where it was rescued from.
    if (eligible.empty())
      stop_rescues(cluster, g);
    steer(g, eligible);
    if (g.closing && !g.is_occupied()) {
      for (const auto& x : g.members)
        stop_listening(x.socket.get());
      groups_.erase(cluster);
      return;
    }
    start_rescues(cluster, g);
  }

  static void steer(
      group& g,
      const std::vector<std::pair<std::uint32_t, std::uint32_t>>& eligible) {
    std::vector<std::uint32_t> slots;
    std::vector<std::uint32_t> places;
    for (const auto& [slot, place] : eligible) {
      slots.push_back(slot);
      places.push_back(place);
    }
    steering program;
    if (places.empty())
      program = steer_at_random(std::vector{waiting_room});
    else if (g.options.strategy == balance_strategy::source_ip_hash)
      program = steer_by_source(slots, places);
    else
      program = steer_at_random(places);
    const auto same = std::equal(
        program.begin(), program.end(), g.program.begin(), g.program.end(),
        [](const sock_filter& a, const sock_filter& b) {
          return a.code == b.code && a.jt == b.jt && a.jf == b.jf && a.k == b.k;
        });
    if (same)
      return;
    // Fails for want of memory only; the former program goes on then, and the
    // next change tries again.
    if (!attach(g.members.front().socket.get(), program))
      g.program = std::move(program);
  }

  void start_rescues(const std::string& cluster, group& g) {
    const auto places = static_cast<std::uint32_t>(g.members.size());
    bool someone = false;
    for (std::uint32_t place = 1; place < places; ++place)
      someone = someone || g.is_eligible(place);
    if (!someone || !events_.rescue)
      return;
    for (auto& m : g.members) {
      if (m.occupied || m.rescued)
        continue;
      auto socket = duplicate(m.socket);
      if (!socket)
        continue;  // no descriptor left; the next change tries again
      set_blocking(socket, false);
      m.rescued = true;
      events_.rescue(rescue_key(cluster, m), std::move(socket),
                     reachable_at(g.options.host, g.port));
    }
  }

  void stop_rescues(const std::string& cluster, group& g) {
    for (auto& m : g.members)
      stop_rescue(cluster, m);
  }

  void stop_rescue(const std::string& cluster, member& m) {
    if (std::exchange(m.rescued, false) && events_.stop_rescue)
      events_.stop_rescue(rescue_key(cluster, m));
  }

  // -- drains

  std::vector<drain> awaited() {
    std::vector<drain> result;
    for (auto& [cluster, g] : groups_)
      for (const auto& x : g.backends) {
        const auto whose = drain_of(x);
        if (!x.draining
            || std::find(g.reported.begin(), g.reported.end(), whose)
                   != g.reported.end())
          continue;
        drain d{cluster, whose, g.port, 0, 0};
        if (const auto* m = g.find(x.slot)) {
          d.group = m->group;
          d.queued = m->occupied ? queued_in(m->socket) : 0;
        }
        result.push_back(std::move(d));
      }
    return result;
  }

  void watch_drains() {
    asio::post(loop_, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) {
        self->pause_ = first_count;
        self->count_drains();
      }
    });
  }

  // On the loop.
  void count_drains() {
    const auto begun = clock::now();
    std::vector<drain> drains;
    {
      const std::lock_guard lock(mutex_);
      drains = awaited();
    }
    std::erase_if(drains, [](const drain& x) {
      return x.queued > 0
             || (x.group != 0
                 && count_connections(x.port, {&x.group, 1}).front() > 0);
    });
    const auto cost = clock::now() - begun;
    const std::lock_guard lock(mutex_);
    for (const auto& x : drains)
      report(x);
    if (awaited().empty())
      return;
    const auto pause =
        std::exchange(pause_, std::min(2 * pause_, longest_pause));
    timer_.expires_after(std::max<clock::duration>(pause, 10 * cost));
    timer_.async_wait(
        [weak = weak_from_this()](const boost::system::error_code& error) {
          const auto self = weak.lock();
          if (!error && self)
            self->count_drains();
        });
  }

  // It may have been taken back while it was counted.
  void report(const drain& x) {
    const auto found = groups_.find(x.cluster);
    if (found == groups_.end())
      return;
    auto& g = found->second;
    const bool still = std::any_of(
        g.backends.begin(), g.backends.end(),
        [&](const backend& y) { return y.draining && drain_of(y) == x.whose; });
    if (!still)
      return;
    g.reported.push_back(x.whose);
    if (events_.drained)
      events_.drained({x.cluster, x.whose.slot, x.whose.life, x.whose.drain});
  }

  asio::io_context& loop_;
  asio::steady_timer timer_;  // the loop's, as is pause_
  milliseconds pause_ = first_count;
  mutable std::mutex mutex_;  // guards the rest
  std::map<std::string, group> groups_;
  inherit_events events_;
};

inherit_groups::inherit_groups(asio::io_context& loop)
    : impl_(std::make_shared<impl>(loop)) {}

inherit_groups::~inherit_groups() {
  impl_->connect({});
}

void inherit_groups::connect(inherit_events events) {
  impl_->connect(std::move(events));
}

listen_result inherit_groups::open(const std::string& cluster,
                                   const inherit_options& options) {
  return impl_->open(cluster, options);
}

std::variant<unique_fd, listen_error> inherit_groups::take(
    const std::string& cluster, const inherit_options& options,
    std::uint32_t slot) {
  return impl_->take(cluster, options, slot);
}

void inherit_groups::holds(const std::string& cluster, std::uint32_t slot,
                           pid_t group) {
  impl_->holds(cluster, slot, group);
}

void inherit_groups::left(const std::string& cluster, std::uint32_t slot) {
  impl_->left(cluster, slot);
}

std::variant<kept_sockets, listen_error> inherit_groups::duplicates(
    const std::string& cluster) const {
  return impl_->duplicates(cluster);
}

listen_result inherit_groups::restore(const std::string& cluster,
                                      const inherit_options& options,
                                      kept_sockets kept) {
  return impl_->restore(cluster, options, std::move(kept));
}

void inherit_groups::publish(const std::string& cluster,
                             const std::vector<backend>& backends) {
  impl_->publish(cluster, backends);
}

void inherit_groups::close(const std::string& cluster) {
  impl_->close(cluster);
}

void inherit_groups::let_go() {
  impl_->let_go();
}

inherit_traffic inherit_groups::totals(const std::string& cluster) const {
  return impl_->totals(cluster);
}

bool inherit_groups::knows(const std::string& cluster) const {
  return impl_->knows(cluster);
}

}  // namespace pup
