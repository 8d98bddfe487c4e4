// The one door to CAF's core: includes, and what CAF 0.17.6 lacks.
//
// Everything that differs between CAF 0.17 and 1.x (signatures, inspection)
// is meant to stand here and in protocol.hpp only.
#pragma once

// These come first: caf/meta/load_callback.hpp of 0.17.6 lacks its includes.
#include <caf/error.hpp>
#include <caf/meta/load_callback.hpp>
#include <caf/none.hpp>

#include <optional>
#include <type_traits>
#include <utility>

namespace caf {

/// std::optional on the wire and in to_string: a flag, then the value. Must be
/// visible before the rest of CAF, which looks it up by argument.
template <class Inspector, class T>
typename Inspector::result_type inspect(Inspector& f, std::optional<T>& x) {
  bool present = x.has_value();
  T value{};
  if (present)
    value = *x;
  if constexpr (std::is_same_v<typename Inspector::result_type, error>) {
    auto assign = meta::load_callback([&]() -> error {
      if (present)
        x = std::move(value);
      else
        x.reset();
      return none;
    });
    return f(present, value, assign);
  } else {
    return present ? f(value) : f("none");
  }
}

}  // namespace caf

#include <caf/actor.hpp>
#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/all.hpp>
#include <caf/allowed_unsafe_message_type.hpp>

namespace pup {

/// As self->monitor(whom), and undone when `self` ends. CAF takes the record of
/// a monitor out of `whom` only when that one ends, and with the record stays
/// the memory of the observer: 2.4 KiB for each life of each process, as
/// instances come and go while their cluster and launcher stay.
template <class Handle>
void monitor_for_life(caf::local_actor* self, const Handle& whom) {
  const auto address = caf::actor_cast<caf::actor_addr>(whom);
  self->monitor(whom);
  self->attach_functor([self, address] { self->demonitor(address); });
}

}  // namespace pup
