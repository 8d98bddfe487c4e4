// What a supervisor remembers across its own end: the file `state` in its state
// folder.
//
// A text of one head line and a body. The head is
//
//   pup-state VERSION BYTES CRC
//
// with the size of the body and its CRC-32 (as in zlib) in 8 hexadecimal
// digits. Lines of the body, in this order, words apart by one blank; in texts,
// bytes up to the blank and % are written as %XX, an empty one as a lone %:
//
//   boot TEXT             the boot during which it was written
//   supervisor NAME PID START
//   config MARK TEXT      fingerprint of the configuration, and its path
//   on-purpose 0|1        the end was asked for
//   told environment      which variables processes of other users do not
//                         inherit; absent: nobody has been told
//   unit ID MARK DESIRED LISTENING LIFE
//                         a top-level entry: fingerprint of its entry, wanted
//                         instances, port wanted, number of the last life
//   clock SECONDS         of the unit above, where it has a cron expression:
//                         until when, since 1970, that has been acted upon
//   slot NUMBER RESTARTS FAILURES WANTED BLOCKED REST REASON TIMES…
//                         of the unit above. REST: a state's word, or - when
//                         it did not rest; TIMES: the restarts that count
//                         against its limit, nanoseconds of CLOCK_MONOTONIC
//   unready NUMBER COUNT  of that slot: its last lives never were ready
//   process KEY LIFE PID START
//                         an instance, or a task of one (ID!…)
//
// Numbers are decimal, marks hexadecimal, START as start_time_of(). There is
// one spelling for each value: what does not come out again as it was read is
// refused, and so is everything that is torn, longer, altered or of another
// version. Nobody guesses what a damaged file meant.
//
// encode() and decode() are pure. Any thread.
#pragma once

#include "pup/runtime/fd.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <sys/types.h>

namespace pup {

inline constexpr std::uint32_t state_version = 2;

struct saved_slot {
  std::uint32_t restarts = 0;
  std::uint32_t failures = 0;
  std::uint32_t failed_starts = 0;  ///< 0: no line `unready`
  bool wanted = true;
  bool blocked = false;
  std::string rest;  ///< word of a state; empty: it did not rest
  std::string reason;
  std::vector<std::int64_t> restart_times;

  bool operator==(const saved_slot&) const = default;
};

struct saved_unit {
  std::uint64_t mark = 0;
  std::uint32_t desired = 0;
  bool listening = true;
  std::uint64_t last_life = 0;
  std::int64_t clock_seen = 0;                ///< 0: no line `clock`
  std::map<std::uint32_t, saved_slot> slots;  ///< by number

  bool operator==(const saved_unit&) const = default;
};

struct saved_process {
  std::uint64_t life = 0;
  pid_t pid = 0;
  std::uint64_t started = 0;

  bool operator==(const saved_process&) const = default;
};

struct saved_state {
  std::string boot;
  std::string supervisor;
  pid_t pid = 0;
  std::uint64_t started = 0;
  std::uint64_t config_mark = 0;
  std::string config;
  bool on_purpose = false;
  bool told_environment = false;
  std::map<std::string, saved_unit> units;         ///< by id
  std::map<std::string, saved_process> processes;  ///< by key

  bool operator==(const saved_state&) const = default;
};

namespace bounds {
/// Longest state file: a million slots at rest.
inline constexpr std::size_t state_bytes = std::size_t{64} << 20;
}  // namespace bounds

std::string encode(const saved_state& x);

/// The state, or what is wrong with the text, in words.
std::variant<saved_state, std::string> decode(std::string_view text);

/// `body` with its head, as encode() puts it.
std::string with_head(const std::string& body);

/// Where the state of the supervisor with this state folder stands.
std::string state_path(const std::string& folder);

/// Empty: there is none. A text: it cannot be read or trusted, and why.
std::variant<std::optional<saved_state>, std::string> read_state(
    const std::string& folder);

/// Puts a new state in the place of the old one: after a crash, of pup or of
/// the machine, one of the two is there as a whole. Waits for the disk.
std::optional<os_fault> write_state(const std::string& folder,
                                    const saved_state& x);

}  // namespace pup
