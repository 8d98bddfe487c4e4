// Numeric addresses and ports, as they are written in a configuration.
//
// Pure functions; no name is looked up.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pup {

inline constexpr std::uint32_t last_port = 65535;

using ip_address = std::array<std::uint8_t, 16>;

/// IPv4 as its IPv4-mapped IPv6 address. Empty: it is no numeric address.
std::optional<ip_address> parse_address(std::string_view text);

/// Whether both want the same address; empty and the any addresses want all.
bool same_host(const std::string& a, const std::string& b);

}  // namespace pup
