// Processes that nobody watches.
//
// Where a supervisor and its guardian are both killed, and no successor lives,
// their processes go on. The next start of that supervisor ends them, and so
// does `pup terminate`; each other command that finds no supervisor tells of
// them, with their number. No CAF.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/place.hpp"
#include "pup/runtime/state_file.hpp"
#include "pup/runtime/survivors.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace pup {

/// "1 process", "12 processes"
std::string process_count(std::size_t number);

/// What a supervisor has left, or is about to leave. Blocks, as
/// find_survivors() and end_survivors() do.
class unwatched {
public:
  /// Looks for them. `mark`: place::mark(); `spec`: what ran, as far as that is
  /// known, for the users that processes run as; `pipes`: see survivor_traits.
  unwatched(const std::string& state_folder, const std::string& mark,
            const pup_spec& spec, std::set<std::uint64_t> pipes = {});
  unwatched(const unwatched&) = delete;
  unwatched& operator=(const unwatched&) = delete;

  [[nodiscard]] std::size_t count() const noexcept {
    return all_.size();
  }
  /// Why the state file does not tell of any; empty: it does.
  [[nodiscard]] const std::string& fault() const noexcept {
    return fault_;
  }

  /// Stops them as `spec` says; `hurry` as for end_survivors(). How many stay.
  std::size_t end(const pup_spec& spec, int hurry) const;

private:
  std::optional<saved_state> recorded_;
  std::string fault_;
  survivor_traits traits_;
  std::vector<survivor> all_;
};

/// Of a configuration; one of nothing where it cannot be read by now.
pup_spec known_spec(const std::string& config);

/// A place where some are left.
struct left_place {
  abandoned_place where;
  std::size_t processes = 0;
};

/// Those of the supervisors that a command may mean: of the name or the
/// configuration that it says, or of the one in the working folder; else all.
std::vector<left_place> find_unwatched(const wanted_supervisor& wanted,
                                       const environment& env);

/// A line for people, with their number and the remedy.
std::string text_of(const left_place& x);

/// Ends them, which `told` is told of before, and clears the place: the next
/// start begins from the configuration, as after any end on purpose. What went
/// wrong, in a line; none: nothing, or a supervisor has the place by now.
std::optional<std::string> end_unwatched(
    const abandoned_place& where,
    const std::function<void(const std::string&)>& told);

/// Until nobody has the place any more who has no guardian: who has lost it, or
/// ends what is left there. False: `deadline` has passed before.
bool await_heirs(const std::string& name, const environment& env,
                 std::chrono::steady_clock::time_point deadline);

}  // namespace pup
