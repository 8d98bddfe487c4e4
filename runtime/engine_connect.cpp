// Finding a backend that serves.
#include "pup/runtime/engine_records.hpp"
#include "pup/runtime/engine_sockets.hpp"

#include <cerrno>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>

namespace pup {

using namespace std::chrono_literals;

/// Starts to connect to the next untried backend. False: the connection is
/// parked, or gone.
bool engine::dial(connection& c, bool has_bytes) {
  auto& l = *c.owner;
  bool short_of_ports = false;
  for (;;) {
    const auto tried = c.tried ? std::span<const backend_id>(*c.tried)
                               : std::span<const backend_id>{};
    const auto& set = l.backends->set;
    if (!c.tried)
      c.round = l.shared->readmissions.load();
    std::optional<std::size_t> index;
    c.timed = set.strategy() == balance_strategy::least_time;
    if (c.timed)
      l.loads.now = c.asked_at = clock::now();
    if (!paused_until_)
      index = l.choose.pick(set, c.client.address, l.loads, tried);
    if (!index) {
      if (short_of_ports)
        pause_for_resources();
      // One that failed in this round may serve by now, and told so already.
      if (!paused_until_ && c.tried
          && c.round != l.shared->readmissions.load()) {
        c.tried.reset();
        continue;
      }
      park(c);
      return false;
    }
    c.served_by = l.backends->states[*index];
    if (start_connect(c, set.backends()[*index], has_bytes))
      return true;
    if (short_of_resources(errno)) {
      pause_for_resources();
    } else {
      // This side's port numbers for one backend have run out: no fault of
      // its own, and another may do.
      if (errno == EADDRNOTAVAIL)
        short_of_ports = true;
      else
        suspect(c, errno);
      if (!c.tried)
        c.tried = std::make_unique<std::vector<backend_id>>();
      c.tried->push_back(c.served_by->id);
    }
    leave_backend(c);
  }
}

/// False: errno says why.
bool engine::start_connect(connection& c, const backend& target,
                           bool has_bytes) {
  auto fd = stream_socket(target.address);
  if (!fd)
    return false;
  if (!congestion_.empty() && is_loopback(target.address.address))
    set_congestion(fd.get(), congestion_);
  // The handshake's last ACK waits for the first bytes: a segment saved.
  if (has_bytes)
    set_option(fd.get(), IPPROTO_TCP, TCP_QUICKACK, 0);
  if (connect_to(fd.get(), target.address) != 0 && errno != EINPROGRESS)
    return false;
  c.fds[upstream] = std::move(fd);
  // On loopback the handshake is complete by now, although connect says
  // EINPROGRESS: with bytes at hand the first send tells; only without is an
  // event needed.
  c.armed[upstream] = !has_bytes;
  return watch(c, upstream,
               has_bytes ? readable_events : readable_events | EPOLLOUT, true);
}

/// After a failure before any byte was exchanged: the next backend. False: the
/// connection is parked, or gone.
bool engine::redial(connection& c) {
  suspect(c, failure_);
  if (!c.tried)
    c.tried = std::make_unique<std::vector<backend_id>>();
  c.tried->push_back(c.served_by->id);
  leave_backend(c);
  if (c.at != phase::unplaced)
    c.owner->list_of(c.at).erase(c);
  c.at = phase::unplaced;
  return dial(c, c.ways[downstream].holds_bytes());
}

void engine::leave_backend(connection& c) {
  c.fds[upstream].reset();
  ++c.stamps[upstream];
  c.ways[upstream] = way{};
  c.ways[downstream].end_forwarded = false;
  c.writable[upstream] = true;
  c.armed[upstream] = false;
  c.confirmed = false;
  c.prompt = false;
  c.header_due = c.owner->limits.header != proxy_header::none;
  c.connect_us = 0;
  const auto left = std::exchange(c.served_by, nullptr);
  if (const auto drain = left->count_down())
    on_fact_(drained{c.owner->key, left->id.slot, left->id.life, *drain});
}

void engine::confirm(connection& c) {
  c.confirmed = true;
  if (c.served_by->is_ejected())
    readmit(*c.owner, *c.served_by);
  place(c);
}

/// The backend has accepted and the client not spoken yet, as far as is known.
void engine::connected_early(connection& c) {
  if (c.timed) {
    const auto passed = clock::now() - c.asked_at;
    c.connect_us = static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(passed).count());
  }
  // Its bytes may be there by now, and go with the header then.
  if (c.header_due)
    c.ways[downstream].readable = true;
}

void engine::park(connection& c) {
  auto& l = *c.owner;
  c.tried.reset();
  if (l.parked.size >= bounds::parked || now() >= c.give_up_at)
    return reject(c);
  c.at = phase::parked;
  l.parked.push_back(c);
  want_deadline(c.give_up_at);
  update_accepting(l);
}

/// A fresh round for all that wait.
void engine::unpark(listener& l) {
  for (auto left = l.parked.size; left > 0 && l.parked.first; --left) {
    if (l.backends->set.eligible().empty() || paused_until_)
      return;
    auto& c = *l.parked.first;
    l.parked.erase(c);
    c.at = phase::unplaced;
    if (dial(c, c.ways[downstream].holds_bytes())) {
      // Its events were set aside while it was parked.
      c.ways[downstream].readable = true;
      settle(c, outcome::moved);
    }
  }
}

/// Into the list of its state, once an attempt has begun or succeeded.
void engine::place(connection& c) {
  auto& l = *c.owner;
  const auto wanted = c.confirmed ? phase::open : phase::connecting;
  if (c.at == wanted)
    return;
  if (c.at != phase::unplaced)
    l.list_of(c.at).erase(c);
  c.at = wanted;
  l.list_of(wanted).push_back(c);
  if (wanted == phase::connecting) {
    c.deadline = now() + l.limits.connect_timeout;
    want_deadline(c.deadline);
  } else if (l.limits.idle_timeout > 0ms && !l.idle_tick) {
    l.idle_tick = now() + l.tick_period();
    want_deadline(*l.idle_tick);
  }
  update_accepting(l);
}

}  // namespace pup
