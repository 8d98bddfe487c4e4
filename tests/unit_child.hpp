// Units as children of a root, as the host makes them.
#pragma once

#include "pup/actors/spawn.hpp"
#include "pup/actors/supervisor.hpp"

#include <memory>
#include <utility>

namespace pup::test {

/// The handle of the root, for a child that it is starting.
inline supervisor_actor root_of(start_context& x) {
  return caf::actor_cast<supervisor_actor>(
      caf::actor_cast<caf::strong_actor_ptr>(x.self));
}

/// A unit. What an earlier supervisor has left is for its first life alone.
/// `conductor`: as it is when a life begins; may be null.
inline child_spec unit_child(
    cluster_args args,
    std::shared_ptr<const conductor_actor> conductor = nullptr) {
  child_spec result;
  result.id = unit_child_id(args.spec.id);
  result.shutdown = std::nullopt;
  result.start = [args = std::move(args),
                  conductor = std::move(conductor)](start_context& x) mutable {
    auto mine = args;
    args.adopted.clear();
    args.missed.clear();
    if (conductor)
      mine.conductor = *conductor;
    mine.kept = x.kept;
    return caf::actor_cast<caf::strong_actor_ptr>(
        spawn_cluster(x.self, std::move(mine)));
  };
  return result;
}

}  // namespace pup::test
