// Time zones of this machine, as schedules need them.
//
// The secret is where they come from: the system's tzdata, read by the date
// library (C++20's <chrono> has them only from g++ 14 on). They are read once;
// a newer tzdata or another local zone counts from the next start on. Any
// thread.
#pragma once

#include "pup/config/cron.hpp"

#include <string>
#include <variant>

namespace pup {

/// Why a name is no time zone.
struct zone_fault {
  std::string problem;
  std::string remedy;
};

/// The zone `name`, such as "Europe/Berlin". Empty: that of the machine, by TZ
/// or else /etc/localtime; UTC where neither says one.
std::variant<time_zone, zone_fault> find_time_zone(const std::string& name);

}  // namespace pup
