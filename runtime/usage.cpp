#include "pup/runtime/usage.hpp"

#include "pup/runtime/fd.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

namespace pup {

namespace {

// Numbers of proc(5), counted from 1; the name, field 2, may hold anything.
constexpr int first_field_after_name = 3;
constexpr int utime_field = 14;
constexpr int stime_field = 15;
constexpr int rss_field = 24;

std::optional<process_usage> parse(pid_t pid, std::string_view stat) {
  const auto name_end = stat.rfind(')');
  if (name_end == std::string_view::npos)
    return std::nullopt;
  std::array<std::uint64_t, rss_field + 1> fields{};
  auto at = name_end + 1;
  for (int field = first_field_after_name; field <= rss_field; ++field) {
    at = stat.find_first_not_of(' ', at);
    if (at == std::string_view::npos)
      return std::nullopt;
    // Negative ones and the state letter stay 0; none is wanted.
    std::from_chars(stat.data() + at, stat.data() + stat.size(),
                    fields[static_cast<std::size_t>(field)]);
    at = std::min(stat.find(' ', at), stat.size());
  }
  const auto ticks_per_second =
      static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  const auto page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto ticks = fields[utime_field] + fields[stime_field];
  return process_usage{pid, fields[rss_field] * page_bytes,
                       std::chrono::microseconds{static_cast<std::int64_t>(
                           ticks * 1'000'000 / ticks_per_second)}};
}

}  // namespace

std::vector<process_usage> sample(const std::vector<pid_t>& pids) {
  std::vector<process_usage> result;
  result.reserve(pids.size());
  // The line has 52 numbers of at most 20 digits and a name of at most 64.
  std::array<char, 2048> buffer{};
  for (const auto pid : pids) {
    const auto path = "/proc/" + std::to_string(pid) + "/stat";
    const unique_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!file)
      continue;
    const auto size = ::read(file.get(), buffer.data(), buffer.size());
    if (size <= 0)  // ESRCH: it has just been reaped
      continue;
    if (auto usage =
            parse(pid, {buffer.data(), static_cast<std::size_t>(size)}))
      result.push_back(*usage);
  }
  return result;
}

}  // namespace pup
