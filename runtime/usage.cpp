#include "pup/runtime/usage.hpp"

#include "pup/runtime/fd.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace pup {

namespace {

// Numbers of proc(5), counted from 1; the name, field 2, may hold anything.
constexpr int first_field_after_name = 3;
constexpr int state_field = 3;
constexpr int session_field = 6;
constexpr int utime_field = 14;
constexpr int stime_field = 15;
constexpr int rss_field = 24;

/// By their numbers. The state's is its letter.
using stat_fields = std::array<std::uint64_t, rss_field + 1>;

std::optional<stat_fields> parse(std::string_view stat) {
  const auto name_end = stat.rfind(')');
  if (name_end == std::string_view::npos)
    return std::nullopt;
  stat_fields fields{};
  auto at = name_end + 1;
  for (int field = first_field_after_name; field <= rss_field; ++field) {
    at = stat.find_first_not_of(' ', at);
    if (at == std::string_view::npos)
      return std::nullopt;
    if (field == state_field)
      fields[state_field] = static_cast<unsigned char>(stat[at]);
    // Negative ones stay 0; none is wanted.
    std::from_chars(stat.data() + at, stat.data() + stat.size(),
                    fields[static_cast<std::size_t>(field)]);
    at = std::min(stat.find(' ', at), stat.size());
  }
  return fields;
}

// None: it does not exist, or may not be looked at.
std::optional<stat_fields> stat_of(std::string_view pid) {
  // The line has 52 numbers of at most 20 digits and a name of at most 64.
  std::array<char, 2048> buffer{};
  const auto path = "/proc/" + std::string{pid} + "/stat";
  const unique_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file)
    return std::nullopt;
  const auto size = ::read(file.get(), buffer.data(), buffer.size());
  if (size <= 0)  // ESRCH: it has just been reaped
    return std::nullopt;
  return parse({buffer.data(), static_cast<std::size_t>(size)});
}

std::uint64_t rss_of(const stat_fields& fields) {
  return fields[rss_field]
         * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

struct folder_closer {
  void operator()(DIR* folder) const noexcept {
    ::closedir(folder);
  }
};

}  // namespace

std::vector<process_usage> sample(const std::vector<pid_t>& pids) {
  const auto ticks_per_second =
      static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  std::vector<process_usage> result;
  result.reserve(pids.size());
  for (const auto pid : pids) {
    const auto fields = stat_of(std::to_string(pid));
    if (!fields)
      continue;
    const auto ticks = (*fields)[utime_field] + (*fields)[stime_field];
    result.push_back(
        {pid, rss_of(*fields),
         std::chrono::microseconds{
             static_cast<std::int64_t>(ticks * 1'000'000 / ticks_per_second)},
         (*fields)[state_field] != 'Z' && (*fields)[state_field] != 'X'});
  }
  return result;
}

std::map<pid_t, session_usage> sample_sessions() {
  std::map<pid_t, session_usage> result;
  const std::unique_ptr<DIR, folder_closer> folder{::opendir("/proc")};
  if (!folder)
    return result;
  while (const auto* entry = ::readdir(folder.get()))
    if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
      if (const auto fields = stat_of(entry->d_name)) {
        auto& session = result[static_cast<pid_t>((*fields)[session_field])];
        session.rss_bytes += rss_of(*fields);
        session.pids.push_back(
            static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10)));
      }
  return result;
}

std::string descriptor_shortage() {
  const unique_fd one{::open("/", O_PATH | O_CLOEXEC)};
  if (one || (errno != EMFILE && errno != ENFILE))
    return {};
  if (errno == ENFILE)
    return "the machine is out of file descriptors (fs.file-max): nothing can "
           "be started, new clients wait";
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return "all " + std::to_string(limit.rlim_cur)
         + " file descriptors are in use: nothing can be started, new clients "
           "wait; raise the hard limit (ulimit -Hn)";
}

}  // namespace pup
