// Fuzzes cron expressions: any text gives a fault with a remedy, or a schedule
// whose moments fit, grow and leave nothing out. Built and run by
// tests/fuzz/run.
#include "pup/config/cron.hpp"

#include <cstdio>
#include <cstdlib>

namespace {

using namespace std::chrono;

void require(bool holds, std::string_view what) {
  if (holds)
    return;
  std::fprintf(stderr, "%.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

// Two changes of the clock, one each way, close to where the search begins.
pup::zone_period zone(sys_seconds moment) {
  const auto forward = sys_seconds{sys_days{2024y / 3 / 31}} + 1h;
  const auto back = sys_seconds{sys_days{2024y / 10 / 27}} + 1h;
  if (moment < forward)
    return {sys_seconds::min(), forward, 1h};
  if (moment < back)
    return {forward, back, 2h};
  return {back, sys_seconds::max(), 1h};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  std::string_view text{reinterpret_cast<const char*>(data), size};
  auto result = pup::cron_schedule::parse(text);
  if (auto fault = std::get_if<pup::cron_fault>(&result)) {
    require(!fault->problem.empty() && !fault->remedy.empty(), "says nothing");
    return 0;
  }
  auto& schedule = std::get<pup::cron_schedule>(result);
  auto moment = sys_seconds{sys_days{2024y / 3 / 30}};
  for (int i = 0; i < 20; ++i) {
    auto next = schedule.next(moment, zone);
    require(next.has_value(), "a schedule without a next moment");
    require(*next > moment, "does not grow");
    auto period = zone(*next);
    local_seconds wall{next->time_since_epoch() + period.offset};
    require(schedule.fits(wall)
                || (schedule.is_time_of_day() && *next == period.begin),
            "does not fit");
    auto again = schedule.next(*next - 1s, zone);
    require(again == next, "left out");
    moment = *next;
  }
  return 0;
}
