#include "pup/runtime/launch_budget.hpp"

#include <memory>

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>

namespace pup {

namespace {

struct folder_closer {
  void operator()(DIR* x) const noexcept {
    ::closedir(x);
  }
};

std::size_t open_descriptors() {
  constexpr auto* all = "/proc/self/fd";
  struct stat info {};
  // Their number, from Linux 6.2 on.
  if (::stat(all, &info) == 0 && info.st_size > 0)
    return static_cast<std::size_t>(info.st_size);
  const std::unique_ptr<DIR, folder_closer> folder{::opendir(all)};
  if (!folder)
    return static_cast<std::size_t>(-1);  // there is not even one for this
  std::size_t result = 0;
  while (const auto* entry = ::readdir(folder.get()))
    if (entry->d_name[0] != '.')
      ++result;
  return result - 1;  // that of the folder
}

std::size_t less(std::size_t from, std::size_t what) {
  return from > what ? from - what : 0;
}

}  // namespace

std::size_t free_descriptors() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return less(limit.rlim_cur, open_descriptors());
}

launch_budget::leave launch_budget::ask() {
  if (known_free_ < of_launch)
    known_free_ = less(free_descriptors(), for_others + of_launch * under_way_);
  if (known_free_ >= of_launch) {
    known_free_ -= of_launch;
    ++under_way_;
    return leave::given;
  }
  if (under_way_ > 0)
    return leave::refused;
  ++under_way_;
  return leave::alone;
}

void launch_budget::done() {
  if (under_way_ > 0)
    --under_way_;
}

}  // namespace pup
