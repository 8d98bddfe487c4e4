// The memory's actor: what units keep, written down by the journal.
#include "pup/runtime/drivers.hpp"
#include "pup/runtime/drivers_shared.hpp"
#include "pup/runtime/journal.hpp"

#include <cstdint>
#include <map>

namespace pup {

namespace {

// From the journal to the memory's actor.
struct settled {
  std::uint64_t number = 0;
};

}  // namespace

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::settled)

namespace pup {

namespace {

using memory_self = memory_actor::extend<caf::reacts_to<settled>>;

struct memory_state {
  memory_state() = default;

  static inline const char* name = "memory";

  std::map<std::uint64_t, caf::response_promise> waiting;
  std::uint64_t last = 0;
};

memory_self::behavior_type memory_behavior(
    memory_self::stateful_pointer<memory_state> self, journal* notes) {
  self->set_default_handler(caf::drop);
  return {
      [self, notes](settle) -> caf::result<void> {
        auto& state = self->state;
        const auto number = ++state.last;
        caf::response_promise promise = self->make_response_promise();
        state.waiting.emplace(number, promise);
        notes->when_written(
            [to = weak<memory_self>{caf::actor_cast<memory_self>(self)},
             number] { to.send(settled{number}); });
        return promise;
      },
      [self](const settled& fact) {
        const auto i = self->state.waiting.find(fact.number);
        if (i == self->state.waiting.end())
          return;
        i->second.deliver(caf::unit);
        self->state.waiting.erase(i);
      },
  };
}

}  // namespace

memory_actor spawn_memory(caf::actor_system& sys, journal& notes) {
  return sys.spawn(memory_behavior, &notes);
}

}  // namespace pup
