#include "pup/runtime/zone.hpp"

#include "pup/config/words.hpp"

#include <cstdlib>
#include <date/tz.h>
#include <stdexcept>
#include <vector>

namespace pup {

namespace {

time_zone periods_of(const date::time_zone& zone) {
  return [&zone](std::chrono::sys_seconds moment) {
    const auto info =
        zone.get_info(date::sys_seconds{moment.time_since_epoch()});
    return zone_period{std::chrono::sys_seconds{info.begin.time_since_epoch()},
                       std::chrono::sys_seconds{info.end.time_since_epoch()},
                       info.offset};
  };
}

const date::time_zone* locate(const std::string& name) {
  try {
    return date::locate_zone(name);
  } catch (const std::runtime_error&) {
    return nullptr;
  }
}

const date::time_zone* locate_local() {
  // TZ may also hold a rule ("CET-1CEST,M3.5.0,M10.5.0/3") or a path; neither
  // is a name.
  if (const auto* variable = std::getenv("TZ"); variable != nullptr) {
    std::string name = variable;
    if (name.starts_with(':'))
      name.erase(0, 1);
    if (const auto* zone = locate(name.empty() ? "UTC" : name))
      return zone;
  }
  try {
    return date::current_zone();
  } catch (const std::runtime_error&) {
    return nullptr;  // no /etc/localtime: a small container
  }
}

zone_fault unknown(const std::string& name) {
  std::vector<std::string> names;
  try {
    for (const auto& zone : date::get_tzdb().zones)
      names.push_back(zone.name());
  } catch (const std::runtime_error&) {
    // said below
  }
  if (names.empty())
    return {"this machine knows no time zones", "install the package tzdata"};
  const std::vector<std::string_view> words{names.begin(), names.end()};
  const auto near = nearest(name, words);
  return {quote(name, '"') + " is not a time zone",
          near ? "did you mean " + quote(*near, '"') + '?'
               : "use a name such as \"Europe/Berlin\" or \"UTC\""};
}

}  // namespace

std::variant<time_zone, zone_fault> find_time_zone(const std::string& name) {
  const auto* zone = name.empty() ? locate_local() : locate(name);
  if (zone != nullptr)
    return periods_of(*zone);
  if (name.empty() || name == "UTC")
    return time_zone{utc};
  return unknown(name);
}

}  // namespace pup
