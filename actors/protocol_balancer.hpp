// Balancer: which instances may get connections.
#pragma once

#include "pup/actors/caf.hpp"
#include "pup/config/spec.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace pup {

/// An instance as the balancer sees it.
struct backend_entry {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::string address;  ///< numeric
  std::uint16_t port = 0;
  bool draining = false;    ///< finishes its connections, gets no new ones
  std::uint64_t drain = 0;  ///< which drain; given by the balancer

  bool operator==(const backend_entry&) const = default;
};

/// cluster -> balancer: all instances that may serve or still drain. A
/// snapshot: replaces the previous one.
struct assign_backends {
  std::uint64_t number = 0;  ///< grows; answered by backends_assigned
  std::vector<backend_entry> backends;
};
/// cluster -> balancer: keep the common port open or close it.
struct set_listening {
  bool open = true;
};
/// cluster -> balancer: another port, strategy or bound. On an error (see
/// open_listener) everything stays as it was.
struct retune_listener {
  cluster_spec spec;
};
/// proxy -> balancer: the last connection of a draining backend has ended.
struct backend_idle {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::uint64_t drain = 0;
};
/// proxy -> balancer -> cluster: connections to an instance fail, and it is
/// left out while another can serve; or it accepts again (`fault` empty).
struct backend_reachable {
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  std::string fault;  ///< "Connection refused"
};
/// Connections and bytes of one listener.
struct traffic {
  struct per_backend {
    std::uint32_t slot = 0;
    std::uint64_t life = 0;
    std::uint64_t active = 0;
    std::uint64_t total = 0;
  };
  std::uint16_t port = 0;  ///< 0: not listening
  /// False: only `active` is known.
  bool counted = true;
  std::uint64_t active = 0;
  std::uint64_t total = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
  std::uint64_t rejected = 0;
  std::vector<per_backend> backends;
};
struct get_traffic {
  std::string cluster;  ///< used by the proxy; a balancer knows its own
};

using balancer_actor = caf::typed_actor<
    caf::reacts_to<assign_backends>, caf::reacts_to<set_listening>,
    caf::replies_to<retune_listener>::with<void>, caf::reacts_to<backend_idle>,
    caf::reacts_to<backend_reachable>,
    caf::replies_to<get_traffic>::with<traffic>>;

}  // namespace pup

// These never leave the process: no inspection is wanted.
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::assign_backends)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::set_listening)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::backend_idle)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::backend_reachable)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::traffic)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::get_traffic)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::retune_listener)
