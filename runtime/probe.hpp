// Asking a server whether it serves: a TCP connect, or an HTTP request.
#pragma once

#include "pup/config/spec.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace boost::asio {
class io_context;
}

namespace pup {

struct probe_request {
  /// Numeric.
  std::string address;
  std::uint16_t port = 0;
  probe_type type = probe_type::tcp;
  /// Of the GET request; begins with a slash.
  std::string path = "/";
  /// For the whole probe, at least 1 ms.
  std::chrono::milliseconds timeout{1'000};
};

/// Where this process has no descriptor, memory or port left to ask by, nothing
/// is known of the server: `not_asked` is called in place of `done`, unless it
/// is null. Else calls `done` once, on `loop` and never from within this call:
/// with nothing when the server accepted (tcp) or answered with a status from
/// 200 to 299 (http; the body is not read), else with what happened, "answered
/// 503 Service Unavailable". The thread of the loop.
void probe(boost::asio::io_context& loop, probe_request request,
           std::function<void(std::string fault)> done,
           std::function<void()> not_asked = nullptr);

}  // namespace pup
