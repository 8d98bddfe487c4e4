// What the data plane reports.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

namespace pup {

/// A draining backend has no connection any more, or had none when its drain
/// was published. Reported once for each drain.
struct drained {
  std::string key;
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  /// backend::drain as it was published.
  std::uint64_t drain = 0;

  bool operator==(const drained&) const = default;
};

/// A backend failed before a byte was exchanged. While another one can serve it
/// gets no connections, until a connect of the engine's own succeeds.
struct ejected {
  std::string key;
  std::uint32_t slot = 0;
  std::uint64_t life = 0;
  /// errno: ECONNREFUSED, ETIMEDOUT, ECONNRESET, …
  int code = 0;

  bool operator==(const ejected&) const = default;
};

/// An ejected backend accepts again.
struct readmitted {
  std::string key;
  std::uint32_t slot = 0;
  std::uint64_t life = 0;

  bool operator==(const readmitted&) const = default;
};

using proxy_fact = std::variant<drained, ejected, readmitted>;

}  // namespace pup
