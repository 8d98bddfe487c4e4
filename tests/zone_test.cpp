// Time zones of the machine, and schedules in them.
#include "pup/runtime/zone.hpp"

#include "catch.hpp"

#include <cstdlib>

using namespace pup;
using namespace std::chrono;

namespace {

pup::time_zone found(const std::string& name) {
  auto result = find_time_zone(name);
  if (auto fault = std::get_if<zone_fault>(&result))
    FAIL(fault->problem << "; " << fault->remedy);
  return std::get<pup::time_zone>(result);
}

std::string fault_of(const std::string& name) {
  auto result = find_time_zone(name);
  auto fault = std::get_if<zone_fault>(&result);
  return fault ? fault->problem + "; " + fault->remedy : "accepted";
}

sys_seconds at(int y, unsigned m, unsigned d, int h = 0, int min = 0) {
  return sys_days{year{y} / month{m} / day{d}} + hours{h} + minutes{min};
}

class variable {
public:
  variable(const char* name, const char* value) : name_(name) {
    if (const auto* old = std::getenv(name))
      old_ = old;
    ::setenv(name, value, 1);
  }
  ~variable() {
    old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_);
  }
  variable(const variable&) = delete;
  variable& operator=(const variable&) = delete;

private:
  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace

TEST_CASE("zones: offsets and changes of known ones, past and to come") {
  auto berlin = found("Europe/Berlin");
  CHECK(berlin(at(2024, 1, 1)).offset == hours{1});
  CHECK(berlin(at(2024, 7, 1)).offset == hours{2});
  CHECK(berlin(at(2024, 7, 1)).begin == at(2024, 3, 31, 1));
  CHECK(berlin(at(2024, 7, 1)).end == at(2024, 10, 27, 1));
  CHECK(berlin(at(2036, 7, 1)).offset == hours{2});
  CHECK(found("Asia/Kolkata")(at(2024, 1, 1)).offset == minutes{330});
  CHECK(found("UTC")(at(2024, 1, 1)).offset == seconds{0});
}

TEST_CASE("zones: a schedule over a real change") {
  auto parsed = cron_schedule::parse("30 2 * * *");
  auto& daily = std::get<cron_schedule>(parsed);
  auto new_york = found("America/New_York");
  CHECK(daily.next(at(2025, 3, 9), new_york) == at(2025, 3, 9, 7));
  CHECK(daily.next(at(2025, 11, 2), new_york) == at(2025, 11, 2, 7, 30));
  CHECK(daily.next(at(2025, 11, 2, 6, 30), new_york) == at(2025, 11, 2, 7, 30));
  // The first 01:30 of the day with two.
  auto half_past_one = cron_schedule::parse("30 1 * * *");
  CHECK(std::get<cron_schedule>(half_past_one).next(at(2025, 11, 2), new_york)
        == at(2025, 11, 2, 5, 30));
}

TEST_CASE("zones: an unknown one is refused with the one that was meant") {
  CHECK(
      fault_of("Europe/Berln")
      == R"("Europe/Berln" is not a time zone; did you mean "Europe/Berlin"?)");
  CHECK(fault_of("Moon/Tycho Base")
        == R"("Moon/Tycho Base" is not a time zone; use a name such as )"
           R"("Europe/Berlin" or "UTC")");
}

TEST_CASE("zones: without a name it is the machine's, TZ first") {
  {
    variable tz{"TZ", "Asia/Tokyo"};
    CHECK(found("")(at(2024, 1, 1)).offset == hours{9});
  }
  {
    variable tz{"TZ", ":Asia/Tokyo"};
    CHECK(found("")(at(2024, 1, 1)).offset == hours{9});
  }
  variable tz{"TZ", ""};
  CHECK(found("")(at(2024, 7, 1)).offset == seconds{0});
}
