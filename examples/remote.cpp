// A CAF application that connects to a running pup and gets the same typed
// control handle that an embedded one has.
//
//   remote SOCKET CLUSTER INSTANCES      SOCKET: …/NAME/control.sock

#include "pup/actors/protocol.hpp"
#include "pup/runtime/ipc.hpp"

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: remote SOCKET CLUSTER INSTANCES\n");
    return 2;
  }
  caf::actor_system_config cfg;
  pup::configure(cfg, pup::ipc_role::client);
  pup::add_message_types(cfg);
  caf::actor_system sys{cfg};

  using namespace std::chrono_literals;
  const auto control = pup::connect<pup::control_actor>(sys, argv[1], 5s);
  if (!control) {
    std::fprintf(stderr, "%s\n", pup::ipc_text(control.error()).c_str());
    return 1;
  }
  const auto count =
      static_cast<std::uint32_t>(std::strtoul(argv[3], nullptr, 10));
  const auto scaled =
      pup::call(sys, *control, 60s,
                pup::scale{argv[2], pup::scale_mode::to, count, true});
  if (!scaled) {
    std::fprintf(stderr, "%s\n", pup::text_of(scaled.error()).c_str());
    return 1;
  }
  std::printf("scaled %u -> %u\n", scaled->from, scaled->to);
  for (const auto& x : scaled->outcomes)
    std::printf("%s: %s\n", x.id.c_str(), x.text.c_str());
  return 0;
}
