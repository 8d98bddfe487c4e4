// What the drivers share: sending from other threads, words, names of sockets.
#pragma once

#include "pup/actors/caf.hpp"
#include "pup/config/spec.hpp"
#include "pup/runtime/inherit.hpp"

#include <cstdint>
#include <string>
#include <utility>

namespace pup {

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

/// "port 3000 is in use by pid 4711 (nginx)" rather than the bare call.
std::string in_words(const listen_error& x, std::uint16_t port);

inherit_options inherit_options_of(const cluster_spec& spec);

}  // namespace pup
