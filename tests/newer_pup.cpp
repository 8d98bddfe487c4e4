// A supervisor of a later version, as the guardian sees it: takes over, ends
// one process and acts upon that, writes the state in a format that nobody else
// reads, and dies before it is ready.
#include "pup/runtime/guard_protocol.hpp"

#include <csignal>
#include <cstdlib>
#include <variant>

#include <sys/types.h>

namespace guard = pup::guard;

int main() {
  const auto* value = std::getenv("PUP_GUARD_FD");
  if (value == nullptr)
    return 2;
  const int socket = std::atoi(value);
  const auto say = [&](const guard::message& x) {
    static_cast<void>(guard::send(socket, guard::encode(x)));
  };
  guard::packet packet;
  while (guard::receive(socket, packet) == guard::receive_result::received) {
    const auto message = guard::decode(packet);
    if (const auto* noted = std::get_if<guard::noted>(&message))
      say(guard::note{noted->name, "pup-state 999 0 00000000\n"});
    if (const auto* life = std::get_if<guard::inherited>(&message);
        life != nullptr && life->key == "mortal")
      say(guard::signal{life->number, SIGKILL});
    if (const auto* end = std::get_if<guard::ended>(&message)) {
      say(guard::forget{end->number});
      return 9;
    }
  }
  return 2;
}
