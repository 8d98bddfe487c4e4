// Ejecting backends that fail, and finding out when they serve again.
#include "pup/runtime/engine_records.hpp"
#include "pup/runtime/engine_sockets.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <netinet/in.h>

namespace pup {

/// The backend of `c` failed before a byte was exchanged.
void engine::suspect(connection& c, int error) {
  auto& l = *c.owner;
  const auto& whose = c.served_by;
  const auto& all = l.backends->states;
  const auto found = std::find(all.begin(), all.end(), whose);
  if (found == all.end())
    return;
  const auto& target =
      l.backends->set.backends()[static_cast<std::size_t>(found - all.begin())];
  if (target.draining || !whose->eject(now()))
    return;
  on_fact_(ejected{l.key, whose->id.slot, whose->id.life, error});
  if (!whose->probed.exchange(true))
    start_probing(l, target, whose);
}

void engine::readmit(listener& l, backend_state& whose) {
  if (!whose.readmit(now()))
    return;
  on_fact_(readmitted{l.key, whose.id.slot, whose.id.life});
  l.shared->readmissions.fetch_add(1);
  attention_ = true;
  bells_->ring_all_but(index_);
}

void engine::start_probing(listener& l, const backend& target,
                           std::shared_ptr<backend_state> whose) {
  auto place = std::find(probes_.begin(), probes_.end(), nullptr);
  if (place == probes_.end())
    place = probes_.insert(place, nullptr);
  *place = std::make_unique<probe>();
  auto& x = **place;
  x.owner = &l;
  x.address = target.address;
  x.whose = std::move(whose);
  probe_failed(x);
}

/// A new set: whom it does not name is probed no longer. One that it names, but
/// that nobody probes as it had been left out before, is taken over by the last
/// loop that gets to know the set, as no other can let it go after that.
void engine::choose_probes(listener& l, bool last) {
  const auto& set = l.backends->set;
  const auto& states = l.backends->states;
  const auto wanted = [&](const probe& x) {
    return std::any_of(set.eligible().begin(), set.eligible().end(),
                       [&](std::uint32_t i) { return states[i] == x.whose; });
  };
  for (auto& x : probes_)
    if (x && x->owner == &l && !wanted(*x)) {
      x->whose->probed = false;
      x.reset();
    }
  if (!last || l.shared->ejected.load() == 0)
    return;
  for (const auto i : set.eligible())
    if (states[i]->is_ejected() && !states[i]->probed.exchange(true))
      start_probing(l, set.backends()[i], states[i]);
}

void engine::drop_probes(const listener& l) {
  for (auto& x : probes_)
    if (x && x->owner == &l)
      x.reset();
}

void engine::run_probes(clock::time_point when) {
  for (std::uint32_t i = 0; i < probes_.size(); ++i) {
    auto& x = probes_[i];
    if (!x || x->due > when)
      continue;
    if (!x->whose->is_ejected()) {
      // A client's connect has succeeded. Should it have failed once more in
      // between, this probe is still the one that counts.
      x->whose->probed = false;
      if (!x->whose->is_ejected() || x->whose->probed.exchange(true)) {
        x.reset();
        continue;
      }
    }
    if (x->fd)
      probe_failed(*x);
    else
      run(*x, i);
  }
}

void engine::run(probe& x, std::uint32_t index) {
  x.fd = stream_socket(x.address);
  x.stamp = ++probe_stamp_;
  const handle h{index, x.stamp, kind_probe};
  epoll_event event{};
  event.events = EPOLLOUT | EPOLLET;
  std::memcpy(&event.data.u64, &h, sizeof h);
  if (!x.fd || (connect_to(x.fd.get(), x.address) != 0 && errno != EINPROGRESS)
      || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, x.fd.get(), &event) != 0)
    return probe_failed(x);
  x.due = now() + x.owner->limits.connect_timeout;
  want_deadline(x.due);
}

void engine::on_probe_event(const handle& h) {
  auto* x = h.index < probes_.size() ? probes_[h.index].get() : nullptr;
  if (!x || !x->fd || x->stamp != h.stamp)
    return;
  int error = 0;
  socklen_t length = sizeof error;
  if (::getsockopt(x->fd.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0
      || error != 0)
    return probe_failed(*x);
  x->whose->probed = false;
  auto& l = *x->owner;
  header_buffer text;
  const auto header = write_header(text, l.limits.header, std::nullopt);
  if (!header.empty())
    (void)::send(x->fd.get(), header.data(), header.size(), MSG_NOSIGNAL);
  const auto whose = std::move(x->whose);
  probes_[h.index].reset();
  readmit(l, *whose);
}

void engine::probe_failed(probe& x) {
  x.fd.reset();
  x.due = now() + x.whose->next_probe_delay();
  want_deadline(x.due);
}

}  // namespace pup
