// Headers of the PROXY protocol (haproxy's proxy-protocol.txt).
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/picker.hpp"

#include <array>
#include <optional>
#include <string_view>

namespace pup {

/// From whom to whom a client's connection goes.
struct connection_ends {
  endpoint client;
  endpoint server;
};

/// Room for every header; version 1 takes up to 107 bytes, version 2 up to 52.
using header_buffer = std::array<char, 128>;

/// Writes the header into `into`, empty for proxy_header::none. IPv4-mapped
/// addresses are written as IPv4. Without `ends` it names nobody ("UNKNOWN",
/// "LOCAL"): a connection of the balancer's own.
std::string_view write_header(header_buffer& into, proxy_header version,
                              const std::optional<connection_ends>& ends);

}  // namespace pup
