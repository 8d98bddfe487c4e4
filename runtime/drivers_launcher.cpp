// The launcher's actor.
#include "pup/runtime/drivers.hpp"
#include "pup/runtime/drivers_processes.hpp"
#include "pup/runtime/usage.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <map>
#include <memory>
#include <set>
#include <utility>

namespace pup {

namespace {

using time_point = std::chrono::steady_clock::time_point;

struct launcher_state {
  struct sample_point {
    time_point at;
    std::chrono::microseconds cpu_time{0};
    std::shared_ptr<const log_losses> losses;
    std::shared_ptr<const std::atomic<std::uint64_t>> memory;
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
  std::map<std::uint64_t, caf::typed_response_promise<probed>> probes;
  std::uint64_t last_probe = 0;

  template <class Function>
  void on_loop(Function f) {
    boost::asio::post(*loop,
                      [x = table, f = std::move(f)]() mutable { f(*x); });
  }

  std::vector<usage> take(const std::vector<std::int32_t>& pids);
  static void add_gone(const std::vector<std::int32_t>& pids,
                       std::vector<usage>& all);
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
    u.ended = !x.lives;
    const auto before = samples.find(x.pid);
    if (before != samples.end()) {
      const std::chrono::duration<double> passed = now - before->second.at;
      const std::chrono::duration<double> used =
          x.cpu_time - before->second.cpu_time;
      if (passed.count() > 0)
        u.cpu_percent = std::max(0.0, 100 * used.count() / passed.count());
      before->second.at = now;
      before->second.cpu_time = x.cpu_time;
      // The figure that is acted upon is the one shown.
      if (const auto& memory = before->second.memory)
        if (const auto figure = memory->load(std::memory_order_relaxed))
          u.rss_bytes = figure;
      if (const auto& losses = before->second.losses) {
        u.log_lost_lines = losses->lines;
        u.log_lost_bytes = losses->bytes;
      }
    }
    result.push_back(u);
  }
  add_gone(pids, result);
  return result;
}

/// Those that are not there any more; all of them would be where there is no
/// /proc.
void launcher_state::add_gone(const std::vector<std::int32_t>& pids,
                              std::vector<usage>& all) {
  if (all.empty())
    return;
  std::set<std::int32_t> seen;
  for (const auto& x : all)
    seen.insert(x.pid);
  for (const auto pid : pids)
    if (seen.count(pid) == 0 && ::kill(pid, 0) != 0 && errno == ESRCH) {
      all.emplace_back().pid = pid;
      all.back().ended = true;
    }
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
      [self](adopt& request, const instance_actor& owner) {
        auto& st = self->state;
        self->monitor(owner);
        st.owners[owner.address()] = {request.request.id, request.request.life};
        st.on_loop(
            [request = std::move(request.request),
             to = weak<instance_actor>{owner}](process_table& x) mutable {
              x.adopt(std::move(request), to);
            });
      },
      [self](const note_life& fact) {
        self->state.on_loop([fact](process_table& x) { x.mark(fact); });
      },
      [self](const settle_life& fact) {
        self->state.on_loop([fact](process_table& x) { x.settle(fact); });
      },
      [self](send_signal& request) {
        self->state.on_loop([request = std::move(request)](process_table& x) {
          x.signal(request);
        });
      },
      [self](const probe_server& request) -> caf::result<probed> {
        auto& st = self->state;
        const auto number = ++st.last_probe;
        auto promise = self->make_response_promise<probed>();
        st.probes.emplace(number, promise);
        st.on_loop(
            [number, request](process_table& x) { x.ask(number, request); });
        return promise;
      },
      [self](const sample_usage& request) {
        return self->state.take(request.pids);
      },
      [self](const process_begun& fact) {
        self->state.samples[fact.pid] = {
            std::chrono::steady_clock::now(), {}, fact.losses, fact.memory};
      },
      [self](const process_gone& fact) { self->state.samples.erase(fact.pid); },
      [self](const probe_done& fact) {
        auto found = self->state.probes.extract(fact.number);
        if (found.empty())
          return;
        if (fact.asked)
          found.mapped().deliver(probed{fact.fault});
        else  // it counts neither way
          found.mapped().deliver(caf::make_error(caf::sec::runtime_error));
      },
  };
}

}  // namespace

launcher_actor spawn_launcher(caf::actor_system& sys,
                              boost::asio::io_context& loop,
                              launcher_options options) {
  return sys.spawn(launcher_behavior, &loop, std::move(options));
}

}  // namespace pup
