// Fuzzes the messages between supervisor and guardian: any bytes are no message
// or one that is encoded to the same bytes again. Built and run by
// tests/fuzz/run.
#include "pup/runtime/guard_protocol.hpp"

#include <cstdio>
#include <cstdlib>

namespace {

void require(bool holds, const char* what) {
  if (holds)
    return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  pup::guard::packet packet;
  packet.bytes.assign(reinterpret_cast<const char*>(data), size);
  const auto message = pup::guard::decode(packet);
  if (std::holds_alternative<std::monostate>(message))
    return 0;
  const auto again = pup::guard::encode(message);
  require(again.descriptors.empty(), "a descriptor from nowhere");
  require(again.bytes == packet.bytes, "another spelling");
  // Descriptors that were lost on the way are none.
  packet.truncated = true;
  require(pup::guard::decode(packet).index() == message.index(),
          "another message");
  return 0;
}
