// What a supervisor and its guardian say to each other.
//
// Between them is a socketpair of type SOCK_SEQPACKET: a packet is a message,
// descriptors travel with the packet they belong to (SCM_RIGHTS), and the end
// of one side is an event for the other. A packet is
//
//   u8 kind, then the members of the message in the order of fields() below;
//   numbers in the machine's own order, texts and lists after a u32 length.
//   A descriptor is a u32: its place among those that came along, from 1;
//   0 is none.
//
// What would not fit most_packet_bytes is put into a memory file (memfd), and
// the packet says only `enclosed`, with that file as its last descriptor.
//
// The guardian begins: `welcome` with its version, then all that it keeps for
// the supervisor, then `complete`. After that:
//
//   supervisor                         guardian
//   ----------                         --------
//   start ───────────────────────────> started | start_failed
//                                      leader_ended  (unless nothing is left)
//                                      ended                (once it has begun)
//   forget: its end has been acted on
//   signal, stop, mark                 about one life
//                                      strays: nobody's processes, by name
//   hold, drop                         a descriptor under a name
//   note                               bytes under a name
//   ready: took over, or has come up
//   away: left the terminal
//   tell: for the service manager
//   aside: a successor takes over, at once; ends later by itself
//                                      complete, when that is executed: the end
//   farewell: ends on purpose; then so does the guardian
//
// The process that was started is the *leader* of its life. Its end and that of
// the life are two facts: `leader_ended` while some of the life is left,
// `ended` when nothing is. What comes between is the supervisor's to decide:
// `stop`, `signal`.
//
// Everything the guardian keeps comes back to the next supervisor as it was
// given: `inherited` for each process it has not been told to forget (followed
// by `leader_ended` or `ended` where that has happened), `held`, `noted`. What
// a killed supervisor has sent is read before its successor is started. Until
// it is `ready`, its `note` and `forget` are drafts, beside what its
// predecessor has said: they count from then on, and are dropped when it ends
// before.
//
// A message of an unknown kind or shape breaks the connection off: both sides
// are of one build, except in an upgrade, which compares versions first.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/process.hpp"

#include <chrono>
#include <csignal>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

namespace pup::guard {

/// Grows with each change of what stands here.
inline constexpr std::uint32_t version = 5;

/// Asks a supervisor, or its guardian, which passes it on, for an upgrade. The
/// one nginx has for it, too.
inline constexpr int upgrade_signal = SIGUSR2;

/// What a descriptor is called that a service manager has passed to the
/// guardian: this and a number. It is held to the end.
inline constexpr const char* service_socket_prefix = "listen/";

/// Of a successor; more after each failure. Adopting 1,000 processes takes well
/// under one second; the rest is for a machine that is busy.
inline constexpr std::chrono::seconds come_up_timeout{10};

/// Well below the smallest usual bound of a socket's buffer (212992).
inline constexpr std::size_t most_packet_bytes = 64 * 1024;
/// Of an enclosed message; the kernel takes 6 MiB of arguments at most.
inline constexpr std::size_t most_enclosed_bytes = 64 * 1024 * 1024;
/// Linux passes no more with one message (SCM_MAX_FD).
inline constexpr std::size_t most_descriptors = 253;

/// A descriptor in a message. When sent it is borrowed for the call; when
/// received it is owned by the `packet` it came in.
struct descriptor {
  int fd = -1;  ///< -1: none
};

/// A descriptor to be kept under a name.
struct named_descriptor {
  std::string name;
  descriptor what;
};

// -- guardian -> supervisor ---------------------------------------------------

struct welcome {
  std::uint32_t version = guard::version;
  std::int32_t guardian = 0;  ///< its pid
  /// Numbers of lives up to this have been given away.
  std::uint64_t last_number = 0;
  /// Supervisors before this one. 0: nothing is inherited.
  std::uint32_t predecessors = 0;
  std::string last_end;  ///< how the last of them ended, in words
  /// Why it is not the program now on the disk that is spoken to; empty: it is.
  std::string refusal;
};

/// A process that an earlier supervisor has started.
struct inherited {
  std::uint64_t number = 0;
  std::string key;
  std::uint64_t life = 0;
  std::int32_t pid = 0;
  std::int64_t age_ms = 0;  ///< since its start
  std::string mark;
  /// Its program is not executed yet: `started` or `start_failed` follows.
  bool launching = false;
  /// Since the first `stop`, or the end of its leader; -1: neither was yet.
  std::int64_t ending_ms = -1;
};

struct held {
  named_descriptor what;
};

struct noted {
  std::string name;
  std::string bytes;
};

struct complete {};

struct started {
  std::uint64_t number = 0;
  std::int32_t pid = 0;
};

/// An os_fault of spawn(), or of a spawn_pool; or "recvmsg": its descriptors
/// got lost.
struct start_failed {
  std::uint64_t number = 0;
  std::string call;
  std::string object;
  std::int32_t code = 0;
};

/// How the leader of a life ended.
struct leader_end {
  std::int32_t pid = 0;
  std::int32_t code = -1;   ///< 0 to 255; -1: ended by a signal
  std::int32_t signal = 0;  ///< 0: ended by itself
  bool core = false;
  std::string memory;  ///< as in exit_status
  std::int64_t cpu_us = 0;
  std::int64_t max_rss_kb = 0;
};

/// The leader has ended; of what belongs to its life some is left.
struct leader_ended {
  std::uint64_t number = 0;
  leader_end how;
  std::uint32_t left = 0;    ///< processes
  std::string left_example;  ///< one of them: "pid 4711 (sleep)"
};

/// A process has ended, and all that belonged to its life.
struct ended {
  std::uint64_t number = 0;
  leader_end how;
  /// Besides the leader: got SIGKILL.
  std::uint32_t killed = 0;
  std::string killed_example;
  /// May have been started by it or by another life: not touched.
  std::string strays;
  bool gone = true;  ///< false: some of it does not die of SIGKILL
};

/// All processes below the guardian that belong to no life for certain, in
/// words. Sent when they change, and to each new supervisor if there are some.
struct strays {
  std::vector<std::string> all;
};

// -- supervisor -> guardian ---------------------------------------------------

struct start {
  std::uint64_t number = 0;  ///< not used before
  std::string key;
  std::uint64_t life = 0;
  spawn_request request;
  std::vector<named_descriptor> hold;  ///< as `hold`
};

/// To the process group; once the leader has ended, and SIGKILL always, to each
/// process of the life. Nothing happens when it has ended. SIGKILL ends a start
/// that is under way as well.
struct signal {
  std::uint64_t number = 0;
  std::int32_t signo = 0;
};

/// The stop signal, followed by SIGCONT: to the process group; once the leader
/// has ended to each process of the life that has not had it.
struct stop {
  std::uint64_t number = 0;
  std::int32_t signo = 0;
};

/// Comes back with `inherited`.
struct mark {
  std::uint64_t number = 0;
  std::string bytes;
};

struct forget {
  std::uint64_t number = 0;
};

/// Replaces one of the same name.
struct hold {
  named_descriptor what;
};

struct drop {
  std::string name;
};

/// Replaces one of the same name; empty: removes it.
struct note {
  std::string name;
  std::string bytes;
};

/// From now on the end of this supervisor is followed by another one.
struct ready {};

/// Standard output and error of both, and of later supervisors, are this.
struct away {
  descriptor output;
};

/// A message of sd_notify(3).
struct tell {
  std::string text;
};

/// The last word of one that makes room. It keeps the connections it carries,
/// and is left alone until it ends; what the guardian keeps goes to a successor
/// from the program now on the disk. If that one ends before it is ready, or is
/// not within guard::come_up_timeout, it is one from the former program.
struct aside {};

struct farewell {
  std::int32_t exit_code = 0;
};

using message =
    std::variant<std::monostate, welcome, inherited, held, noted, complete,
                 started, start_failed, leader_ended, ended, strays, start,
                 signal, stop, mark, forget, hold, drop, note, ready, away,
                 tell, aside, farewell>;

// -- packets ------------------------------------------------------------------

/// An encoded message. `descriptors` are borrowed until it is sent.
struct outgoing {
  std::string bytes;
  std::vector<int> descriptors;
};

outgoing encode(const message& x);

/// A packet as it came. Owns its descriptors; those that a decoded message
/// names are its own still, to be taken with take().
struct packet {
  std::string bytes;
  std::vector<unique_fd> descriptors;
  /// Some descriptors were lost: this process has no room for them.
  bool truncated = false;

  /// The descriptor of a message decoded from this packet; none stays none.
  unique_fd take(descriptor x);
};

/// monostate: it is none. Descriptors that did not come along are none as well
/// when the packet is truncated, else the message is none.
message decode(const packet& x);

enum class send_result : std::uint8_t {
  sent,
  would_block,
  broken,  ///< the other side has gone, or the packet cannot be sent at all
};

/// Any thread; the socket may be non-blocking. Errors stand in errno.
send_result send(int socket, const outgoing& x);

enum class receive_result : std::uint8_t {
  received,
  would_block,
  closed,
  broken,  ///< not a packet of ours
};

receive_result receive(int socket, packet& x);

}  // namespace pup::guard
