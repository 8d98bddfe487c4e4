// Every message and every typed handle: the public protocol of pup.
//
// A struct is a message; commands are in the imperative, facts in the past
// tense. One header for each kind of actor, with its state table:
//
//   protocol_control     what a command line or an embedding program asks for
//   protocol_status      what it is told about processes
//   protocol_supervisor  a general Erlang-style supervisor, knows nothing of
//                        processes
//   protocol_conductor   which unit may launch an instance now; groups of units
//   protocol_cluster     N slots of one process_spec (a single process is one
//                        slot)
//   protocol_instance    one life of one operating-system process
//   protocol_balancer    which instances may get connections
//   protocol_world       the ports that runtime/ implements: launcher, proxy,
//                        memory
//   protocol_errors      what any of them answers or ends with
//
// Commands go down the tree and facts come up. (slot, life) names one life of
// one instance: a fact about an earlier life is recognised by it and dropped.
// All of `control` crosses the IPC boundary; changing anything that it reaches
// means a new protocol_version. Durations are milliseconds where a plain
// number says _ms; times of day do not appear.
#pragma once

#include "pup/actors/caf.hpp"
#include "pup/actors/protocol_balancer.hpp"
#include "pup/actors/protocol_cluster.hpp"
#include "pup/actors/protocol_conductor.hpp"
#include "pup/actors/protocol_control.hpp"
#include "pup/actors/protocol_errors.hpp"
#include "pup/actors/protocol_instance.hpp"
#include "pup/actors/protocol_status.hpp"
#include "pup/actors/protocol_supervisor.hpp"
#include "pup/actors/protocol_world.hpp"
#include "pup/config/spec.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace pup {

/// Peers with another version refuse each other with a clear error.
inline constexpr std::uint32_t protocol_version = 5;

/// Registers what crosses IPC. Every program that speaks to a running pup, or
/// that embeds one and publishes it, calls this before its actor_system starts.
void add_message_types(caf::actor_system_config& cfg);

}  // namespace pup
