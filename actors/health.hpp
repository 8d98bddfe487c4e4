// Health checks of one life, judged: pure, no clock, no messages.
#pragma once

#include "pup/config/spec.hpp"

#include <cstdint>

namespace pup {

/// Counts checks in a row. A life begins healthy, as it has become ready.
class health_record {
public:
  enum class verdict : std::uint8_t {
    unchanged,
    suspect,    ///< the first failed one: no new connections
    recovered,  ///< healthy_after good ones in a row
    failed,     ///< unhealthy_after failed ones in a row: to be restarted
  };

  explicit health_record(const health_check& limits)
      : unhealthy_after_(limits.unhealthy_after),
        healthy_after_(limits.healthy_after) {}

  verdict observe(bool good) {
    if (good) {
      bad_ = 0;
      if (!suspect_ || ++good_ < healthy_after_)
        return verdict::unchanged;
      suspect_ = false;
      return verdict::recovered;
    }
    good_ = 0;
    if (++bad_ >= unhealthy_after_)
      return verdict::failed;
    if (suspect_)
      return verdict::unchanged;
    suspect_ = true;
    return verdict::suspect;
  }

private:
  std::uint32_t unhealthy_after_;
  std::uint32_t healthy_after_;
  std::uint32_t bad_ = 0;   // in a row
  std::uint32_t good_ = 0;  // in a row, while suspect
  bool suspect_ = false;
};

}  // namespace pup
