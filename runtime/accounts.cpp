#include "pup/runtime/accounts.hpp"

#include "pup/config/resources.hpp"
#include "pup/runtime/trusted_path.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <system_error>

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

// An entry with thousands of members has some hundred KiB.
constexpr std::size_t most_entry_bytes = 16u << 20;

template <class Number>
std::optional<Number> to_number(const std::string& text) {
  Number number = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc{} && stop == end ? std::optional{number}
                                             : std::nullopt;
}

// `look` is one of the get...nam_r() and get...id_r() with all but the buffer.
template <class Entry, class Look>
bool look_up(Entry& entry, std::vector<char>& buffer, Look look) {
  buffer.resize(4096);
  for (;;) {
    Entry* found = nullptr;
    const int error = look(&entry, buffer.data(), buffer.size(), &found);
    if (error == EINTR)
      continue;
    if (error != ERANGE || buffer.size() >= most_entry_bytes)
      return found != nullptr;
    buffer.resize(buffer.size() * 4);
  }
}

std::vector<std::uint32_t> groups_of(const passwd& entry) {
  std::vector<gid_t> groups(64);
  for (;;) {
    auto count = static_cast<int>(groups.size());
    if (::getgrouplist(entry.pw_name, entry.pw_gid, groups.data(), &count)
        >= 0) {
      groups.resize(static_cast<std::size_t>(count));
      return {groups.begin(), groups.end()};
    }
    // Grows in any case: a database may change between two calls.
    groups.resize(std::max(groups.size() * 2, static_cast<std::size_t>(count)));
  }
}

bool contains_all(const std::vector<std::uint32_t>& all,
                  const std::vector<std::uint32_t>& some) {
  return std::all_of(some.begin(), some.end(), [&](auto x) {
    return std::find(all.begin(), all.end(), x) != all.end();
  });
}

// fs.nr_open: above it not even root may raise nofile.
std::uint64_t most_descriptors() {
  std::uint64_t result = 1u << 20;
  std::ifstream{"/proc/sys/fs/nr_open"} >> result;
  return result;
}

std::string number_text(std::uint64_t limit) {
  return limit == resource_limit::unlimited ? "unlimited"
                                            : std::to_string(limit);
}

// What root usually may: containers run with less, services with more.
class privileges {
public:
  privileges() {
    std::ifstream status{"/proc/self/status"};
    for (std::string word; status >> word;)
      if (word == "CapEff:") {
        status >> std::hex >> effective_;
        return;
      }
  }

  bool has(int capability) const {
    return (effective_ >> capability & 1U) != 0;
  }

private:
  std::uint64_t effective_ = 0;
};

// "`www` is not permitted: pup does not run as root; remove it, or run …".
attribute_problem refusal(std::string key, std::string problem,
                          const char* capability, std::string remedy) {
  const bool is_root = ::geteuid() == 0;
  problem += is_root ? std::string{": pup lacks "} + capability
                     : std::string{": pup does not run as root"};
  remedy += is_root ? std::string{", or grant "} + capability
                    : std::string{", or run pup as root"};
  return {std::move(key), std::move(problem), std::move(remedy)};
}

void limit_problems(const resource_limit& x, const privileges& own_privileges,
                    std::vector<attribute_problem>& into) {
  const auto key = "limits." + std::string{name_of_resource(x.resource)};
  if (x.resource == RLIMIT_NOFILE && x.hard > most_descriptors()) {
    const auto most = std::to_string(most_descriptors());
    into.push_back(
        {key, number_text(x.hard) + " is above fs.nr_open, which is " + most,
         "use " + most + " or less"});
    return;
  }
  rlimit own{};
  if (own_privileges.has(CAP_SYS_RESOURCE)
      || ::getrlimit(static_cast<__rlimit_resource>(x.resource), &own) != 0
      || x.hard <= own.rlim_max)
    return;
  const auto most = std::to_string(own.rlim_max);
  into.push_back(refusal(
      key, number_text(x.hard) + " is above pup's own hard limit of " + most,
      "CAP_SYS_RESOURCE", "use " + most + " or less"));
}

void scheduling_problems(const process_attributes& x,
                         const privileges& own_privileges,
                         std::vector<attribute_problem>& into) {
  const int nice = ::getpriority(PRIO_PROCESS, 0);
  rlimit lowest{};
  ::getrlimit(RLIMIT_NICE, &lowest);
  const bool may_raise = own_privileges.has(CAP_SYS_NICE);
  if (x.nice && *x.nice < nice && !may_raise
      && static_cast<rlim_t>(20 - *x.nice) > lowest.rlim_cur)
    into.push_back(refusal(
        "nice",
        std::to_string(*x.nice) + " is below pup's own " + std::to_string(nice),
        "CAP_SYS_NICE", "use a higher one"));
  int score = 0;
  std::ifstream{"/proc/self/oom_score_adj"} >> score;
  if (x.oom_score_adjust && *x.oom_score_adjust < score
      && !own_privileges.has(CAP_SYS_RESOURCE))
    into.push_back(refusal("oomScoreAdjust",
                           std::to_string(*x.oom_score_adjust)
                               + " is below pup's own " + std::to_string(score),
                           "CAP_SYS_RESOURCE", "use a higher one"));
  if (x.io && x.io->kind == io_class::realtime && !may_raise
      && !own_privileges.has(CAP_SYS_ADMIN))
    into.push_back(refusal("ioClass", "realtime needs a privilege",
                           "CAP_SYS_NICE", "use \"best-effort\" or \"idle\""));
}

void identity_problems(const identity& who, const privileges& own_privileges,
                       std::vector<attribute_problem>& into) {
  const auto own = own_identity();
  if (who.uid != own.uid && !own_privileges.has(CAP_SETUID)) {
    into.push_back(
        refusal("user",
                (who.name.empty() ? "another user" : '`' + who.name + '`')
                    + " is not permitted",
                "CAP_SETUID", "remove it"));
    return;
  }
  if (own_privileges.has(CAP_SETGID))
    return;
  if (who.gid != own.gid)
    into.push_back(refusal("group", "another group is not permitted",
                           "CAP_SETGID", "remove it"));
  else if (!contains_all(own.groups, who.groups))
    into.push_back(refusal("supplementaryGroups",
                           "more groups are not permitted", "CAP_SETGID",
                           "remove them"));
}

}  // namespace

std::optional<user_entry> find_user(const std::string& name) {
  passwd entry{};
  std::vector<char> buffer;
  auto found = look_up(entry, buffer, [&](auto... rest) {
    return ::getpwnam_r(name.c_str(), rest...);
  });
  const auto number = to_number<uid_t>(name);
  if (!found && number)
    found = look_up(entry, buffer, [&](auto... rest) {
      return ::getpwuid_r(*number, rest...);
    });
  if (!found)
    return std::nullopt;
  return user_entry{entry.pw_name,    entry.pw_uid, entry.pw_gid,
                    groups_of(entry), entry.pw_dir, entry.pw_shell};
}

std::optional<gid_t> find_group(const std::string& name) {
  group entry{};
  std::vector<char> buffer;
  auto found = look_up(entry, buffer, [&](auto... rest) {
    return ::getgrnam_r(name.c_str(), rest...);
  });
  const auto number = to_number<gid_t>(name);
  if (!found && number)
    found = look_up(entry, buffer, [&](auto... rest) {
      return ::getgrgid_r(*number, rest...);
    });
  return found ? std::optional{entry.gr_gid} : std::nullopt;
}

identity own_identity() {
  identity result{::geteuid(), ::getegid(), {}, {}};
  std::vector<gid_t> groups;
  for (int count = -1; count < 0;) {
    groups.resize(
        static_cast<std::size_t>(std::max(::getgroups(0, nullptr), 0)));
    count = ::getgroups(static_cast<int>(groups.size()), groups.data());
    if (count >= 0)
      groups.resize(static_cast<std::size_t>(count));
    else if (errno != EINVAL)  // EINVAL: one more since we asked
      return result;
  }
  result.groups.assign(groups.begin(), groups.end());
  return result;
}

std::vector<attribute_problem> attribute_problems(const process_attributes& x) {
  std::vector<attribute_problem> result;
  const privileges own;
  for (const auto& limit : x.limits)
    limit_problems(limit, own, result);
  scheduling_problems(x, own, result);
  if (x.run_as)
    identity_problems(*x.run_as, own, result);
  return result;
}

std::string distrust(const struct stat& file, uid_t uid) {
  if (file.st_uid != 0 && file.st_uid != uid) {
    const auto owner = find_user(std::to_string(file.st_uid));
    return "belongs to "
           + (owner ? '`' + owner->name + '`'
                    : "user " + std::to_string(file.st_uid));
  }
  if ((file.st_mode & S_IWOTH) != 0)
    return "everybody may write to it";
  if ((file.st_mode & S_IWGRP) != 0 && file.st_gid != 0 && file.st_uid == 0)
    return "its group may write to it";
  return {};
}

env_file_text read_variables(const std::string& path, uid_t uid) {
  env_file_text result;
  const auto failed = [&](int code) {
    result.missing = code == ENOENT || code == ENOTDIR;
    result.problem =
        result.missing ? "no such file" : std::system_category().message(code);
    return result;
  };
  const auto refused = [&](const os_fault& fault) {
    failed(fault.code);
    if (!fault.why.empty())
      result.problem = problem_of(fault);
    return result;
  };
  const auto found = locate(path);
  if (const auto* fault = std::get_if<os_fault>(&found))
    return refused(*fault);
  const auto& [folder, name] = std::get<located_file>(found);
  // Whose it may be, distrust() says in its own words.
  const auto opened = folder.open_file(name, O_RDONLY, {{}, true});
  if (const auto* fault = std::get_if<os_fault>(&opened))
    return refused(*fault);
  const auto& fd = std::get<unique_fd>(opened);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0)
    return failed(errno);
  if (!S_ISREG(info.st_mode)) {
    result.problem = "is no regular file";
    return result;
  }
  if (::geteuid() == 0)
    if (auto why = distrust(info, uid); !why.empty()) {
      result.problem = why + ", and pup runs as root";
      return result;
    }
  std::array<char, 65'536> buffer{};
  for (;;) {
    const auto n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      result.text.clear();
      return failed(errno);
    }
    if (n == 0)
      return result;
    result.text.append(buffer.data(), static_cast<std::size_t>(n));
    if (result.text.size() > bounds::env_file_bytes) {
      result.text.clear();
      return failed(EFBIG);
    }
  }
}

}  // namespace pup
