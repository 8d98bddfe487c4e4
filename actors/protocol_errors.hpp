// Errors that actors answer or end with.
#pragma once

#include "pup/actors/caf.hpp"

#include <cstdint>
#include <string>
#include <utility>

namespace pup {

/// Codes of errors that actors answer or end with. The context of the
/// caf::error is one std::string for people, except for process_ended (an
/// `ending`).
enum class fault : std::uint8_t {
  none = 0,       ///< never sent
  no_such_id,     ///< no process, cluster or instance has this id
  bad_request,    ///< the request cannot be carried out as it stands
  shutting_down,  ///< the supervisor is on its way out
  gave_up,        ///< more restarts than the intensity allows
  process_ended,  ///< exit reason of an instance; context: `ending`
  port_refused,   ///< a listening socket could not be opened
  actor_failed,   ///< the actor that worked on the request has failed
};

inline caf::error make_error(fault code, std::string text) {
  return {static_cast<std::uint8_t>(code), caf::atom("pup"),
          caf::make_message(std::move(text))};
}

/// True when `reason` carries `code`. Safe for an empty error.
bool is(const caf::error& reason, fault code);

/// The text for people inside an error of ours, or CAF's rendering of another.
std::string text_of(const caf::error& reason);

}  // namespace pup
