// A launcher and a proxy without processes and sockets, for actors in virtual
// time. They keep the promises of protocol.hpp and write down what they are
// told; a test plays the facts.
#pragma once

#include "pup/actors/spawn.hpp"

#include "virtual_time.hpp"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace pup::test {

/// To the fake proxy: the oldest published set is in effect now.
struct apply_oldest {};

}  // namespace pup::test

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::test::apply_oldest)

namespace pup::test {

using strings = std::vector<std::string>;

struct fake_process {
  launch request;
  instance_actor owner;
  std::int32_t pid = 0;  // 0: not launched yet
};

struct fake_listener {
  bool open = false;
  balancer_actor facts_to;
  cluster_spec spec;
  std::vector<backend_entry> backends;
  std::string shown;
  std::set<std::uint64_t> draining;  // lives whose drain was reported, or runs
};

struct machine {
  // What processes do by themselves.
  bool launches = true;  // exec succeeds at once
  bool becomes_ready = true;
  bool obeys = true;  // a stop signal ends it
  // What the network does.
  std::map<std::string, std::string> refusals;     // by cluster
  std::map<std::uint32_t, std::uint64_t> clients;  // open ones by slot
  std::map<std::uint16_t, std::string> faults;     // of health checks, by port
  std::size_t probes = 0;
  bool applies = true;  // published sets at once; else apply_oldest does
  std::deque<caf::response_promise> publications;
  bool counts = true;  // false: as in mode inherit

  strings log;
  std::vector<launch> launched;  // every request that began
  std::map<std::string, fake_process> processes;
  std::map<std::string, std::deque<fake_process>> waiting;
  std::map<std::string, fake_listener> listeners;
  std::int32_t last_pid = 100;
  /// What an earlier supervisor has left, and how it ended if it has.
  std::map<std::string, std::optional<ending>> left;
  std::map<std::string, note_life> noted;
  std::map<std::string, std::uint64_t> settled;
  /// Processes that have ended, though nobody has been told.
  std::set<std::int32_t> untold_ends;

  void begin(fake_process x) {
    const auto id = x.request.id;
    if (processes.count(id) != 0) {
      waiting[id].push_back(std::move(x));
      return;
    }
    log.push_back("launch " + id);
    launched.push_back(x.request);
    processes[id] = std::move(x);
    if (launches)
      exec(id);
    if (launches && becomes_ready)
      ready(id);
  }

  /// A life of an earlier supervisor: what it has got to is told again.
  void go_on(fake_process x) {
    const auto id = x.request.id;
    const auto life = x.request.life;
    log.push_back("adopt " + id);
    if (const auto i = left.find(id); i == left.end()) {
      caf::anon_send(x.owner, process_ended{life, {}});
    } else if (i->second) {
      caf::anon_send(x.owner, process_ended{life, *i->second});
    } else {
      x.pid = ++last_pid;
      processes[id] = std::move(x);
    }
  }

  void exec(const std::string& id) {
    auto& x = processes.at(id);
    x.pid = ++last_pid;
    caf::anon_send(x.owner, process_launched{x.request.life, x.pid, {}});
  }

  void ready(const std::string& id) {
    auto& x = processes.at(id);
    caf::anon_send(x.owner, process_ready{x.request.life, "127.0.0.1"});
  }

  void end(const std::string& id, ending how) {
    const auto x = std::move(processes.at(id));
    processes.erase(id);
    caf::anon_send(x.owner, process_ended{x.request.life, std::move(how)});
    next(id);
  }

  /// Its process, and not yet what that has started.
  void end_leader(const std::string& id, ending how) {
    const auto& x = processes.at(id);
    caf::anon_send(x.owner,
                   process_leader_ended{x.request.life, std::move(how)});
  }

  void exit(const std::string& id, int code) {
    end(id, {ending::kind::exited, code, 0, {}});
  }

  void next(const std::string& id) {
    auto& queue = waiting[id];
    if (queue.empty())
      return;
    auto x = std::move(queue.front());
    queue.pop_front();
    begin(std::move(x));
  }

  void signal(const send_signal& x) {
    auto& queue = waiting[x.id];
    for (auto i = queue.begin(); i != queue.end(); ++i)
      if (i->request.life == x.life) {
        caf::anon_send(i->owner, process_ended{x.life,
                                               {ending::kind::not_launched, 0,
                                                0, "not started"}});
        queue.erase(i);
        return;
      }
    log.push_back("signal " + x.id + ' ' + std::to_string(x.signal));
    const auto i = processes.find(x.id);
    if (i == processes.end() || i->second.request.life != x.life)
      return;
    if (x.signal == 9 || (obeys && i->second.pid != 0))
      end(x.id, {ending::kind::signalled, 0, x.signal, {}});
  }

  void owner_ended(const caf::actor_addr& owner) {
    for (auto& [id, queue] : waiting)
      std::erase_if(queue, [&](const fake_process& x) {
        return x.owner.address() == owner;
      });
    for (auto& [id, x] : processes)
      if (x.owner.address() == owner) {
        log.push_back("reap " + id);
        const auto key = id;
        processes.erase(key);
        return next(key);
      }
  }

  void publish(const publish_backends& x) {
    auto& l = listeners[x.cluster];
    std::string shown;
    for (const auto& b : x.backends)
      shown += ' ' + std::to_string(b.slot) + (b.draining ? "d" : "");
    if (shown != l.shown)
      log.push_back("publish " + x.cluster + ':' + shown);
    l.shown = shown;
    l.backends = x.backends;
    std::set<std::uint64_t> now;
    for (const auto& b : x.backends)
      if (b.draining) {
        now.insert(b.life);
        if (l.draining.count(b.life) == 0 && clients[b.slot] == 0)
          idle(x.cluster, b);
      }
    l.draining = std::move(now);
  }

  void idle(const std::string& cluster, const backend_entry& b) {
    caf::anon_send(listeners[cluster].facts_to,
                   backend_idle{b.slot, b.life, b.drain});
  }

  /// The last client of a draining instance leaves.
  void clients_leave(const std::string& cluster, std::uint32_t number) {
    clients[number] = 0;
    for (const auto& b : listeners[cluster].backends)
      if (b.slot == number && b.draining)
        idle(cluster, b);
  }

  traffic count(const std::string& cluster) {
    traffic result;
    const auto& l = listeners[cluster];
    result.counted = counts;
    result.port = l.open ? l.spec.common_port : std::uint16_t{0};
    for (const auto& b : l.backends)
      result.backends.push_back({b.slot, b.life, clients[b.slot], 10});
    return result;
  }

  strings take_log() {
    return std::exchange(log, {});
  }
};

using machine_ptr = std::shared_ptr<machine>;

inline launcher_actor::behavior_type fake_launcher(launcher_actor::pointer self,
                                                   machine_ptr m) {
  self->set_default_handler(caf::drop);
  self->set_down_handler([m](caf::scheduled_actor*, caf::down_msg& x) {
    m->owner_ended(x.source);
  });
  return {
      [self, m](launch& x, const instance_actor& owner) {
        self->monitor(owner);
        m->begin({std::move(x), owner});
      },
      [self, m](adopt& x, const instance_actor& owner) {
        self->monitor(owner);
        m->go_on({std::move(x.request), owner});
      },
      [m](const note_life& x) { m->noted[x.id] = x; },
      [m](const settle_life& x) { m->settled[x.id] = x.life; },
      [m](const send_signal& x) { m->signal(x); },
      [m](const probe_server& x) {
        const auto i = m->faults.find(x.port);
        ++m->probes;
        return probed{i == m->faults.end() ? std::string{} : i->second};
      },
      [m](const sample_usage& x) {
        std::vector<usage> result;
        for (const auto pid : x.pids) {
          result.push_back({pid, static_cast<std::uint64_t>(pid) * 1000, 1.5});
          result.back().ended = m->untold_ends.count(pid) != 0;
        }
        return result;
      },
  };
}

using fake_proxy_actor = proxy_actor::extend<caf::reacts_to<apply_oldest>>;

inline fake_proxy_actor::behavior_type fake_proxy(
    fake_proxy_actor::pointer self, machine_ptr m) {
  self->set_default_handler(caf::drop);
  return {
      [m](const open_listener& x,
          const balancer_actor& facts_to) -> caf::result<listener_opened> {
        if (const auto i = m->refusals.find(x.cluster); i != m->refusals.end())
          return make_error(fault::port_refused, i->second);
        auto& l = m->listeners[x.cluster];
        m->log.push_back((l.open ? "attach " : "open ") + x.cluster);
        l.open = true;
        l.facts_to = facts_to;
        l.spec = x.spec;
        return listener_opened{x.spec.common_port};
      },
      [self, m](const publish_backends& x) -> caf::result<void> {
        m->publish(x);
        if (m->applies)
          return caf::unit;
        caf::response_promise promise = self->make_response_promise();
        m->publications.push_back(promise);
        return promise;
      },
      [m](const close_listener& x) {
        auto& l = m->listeners[x.cluster];
        if (std::exchange(l.open, false))
          m->log.push_back("close " + x.cluster);
      },
      [m](const get_traffic& x) { return m->count(x.cluster); },
      [m](apply_oldest) {
        m->publications.front().deliver(caf::unit);
        m->publications.pop_front();
      },
  };
}

struct fake_world : virtual_time {
  machine_ptr m = std::make_shared<machine>();
  ports world{own(sys.spawn(fake_launcher, m)), own(sys.spawn(fake_proxy, m))};

  ~fake_world() {
    // Handles of instances and balancers would outlive their system.
    for (auto& x : m->listeners)
      x.second.facts_to = nullptr;
    m->publications.clear();
  }
};

}  // namespace pup::test
