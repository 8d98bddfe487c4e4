#include "pup/runtime/upgrade.hpp"

#include "pup/runtime/descendants.hpp"
#include "pup/runtime/guard_protocol.hpp"
#include "pup/runtime/guarded.hpp"
#include "pup/runtime/pidfd.hpp"
#include "pup/runtime/proc_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>

#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pup {

namespace {

using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

std::string of_process(pid_t pid, const char* file) {
  return "/proc/" + std::to_string(pid) + '/' + file;
}

/// What a guardian starts: "pup-guardian SUPERVISOR [ARGUMENT...]".
std::string supervisor_of(pid_t guardian) {
  const auto words = read_proc_file(of_process(guardian, "cmdline"));
  const auto begin = std::min(words.find('\0'), words.size() - 1) + 1;
  return words.substr(begin, words.find('\0', begin) - begin);
}

/// Appearance of a file in a folder.
class awaited_file {
public:
  explicit awaited_file(const std::filesystem::path& path)
      : name_(path.filename()),
        events_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    if (::inotify_add_watch(events_.get(), path.parent_path().c_str(),
                            IN_MOVED_TO | IN_CREATE)
        < 0)
      events_.reset();
  }

  [[nodiscard]] int descriptor() const noexcept {
    return events_.get();
  }

  /// Whether it has, since the last call.
  bool appeared() {
    alignas(inotify_event) std::array<char, 4'096> buffer;
    bool result = false;
    for (;;) {
      const auto n = ::read(events_.get(), buffer.data(), buffer.size());
      if (n <= 0)
        return result;
      for (ssize_t i = 0; i < n;) {
        inotify_event event;
        std::memcpy(&event, buffer.data() + i, sizeof event);
        if (event.len > 0 && name_ == buffer.data() + i + sizeof event)
          result = true;
        i += static_cast<ssize_t>(sizeof event + event.len);
      }
    }
  }

private:
  const std::string name_;
  unique_fd events_;
};

/// False: `guardian` has ended, or the time is over.
bool await(awaited_file& socket, const unique_fd& guardian,
           clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - clock::now());
    std::array<pollfd, 2> events{
        {{socket.descriptor(), POLLIN, 0}, {guardian.get(), POLLIN, 0}}};
    const auto count =
        ::poll(events.data(), events.size(),
               static_cast<int>(std::max(left, milliseconds{0}).count()));
    if (count > 0 && socket.appeared())
      return true;
    if (count == 0 || (count > 0 && events[1].revents != 0)
        || (count < 0 && errno != EINTR))
      return false;
  }
}

std::optional<running> found_again(const running& x, const environment& env) {
  for (auto& y : discover(env))
    if (y.name == x.name && y.pid != 0 && y.pid != x.pid)
      return std::move(y);
  return std::nullopt;
}

std::optional<uid_t> owner_of(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 ? std::optional{info.st_uid}
                                           : std::nullopt;
}

}  // namespace

upgrade_outcome upgrade(const running& x, const environment& env,
                        milliseconds limit) {
  const auto fail = [&](const std::string& why) {
    return upgrade_outcome{false, "pup: '" + x.name + "' " + why};
  };
  const auto supervisor = open_pidfd(x.pid);
  if (x.pid == 0 || (!supervisor && errno == ESRCH))
    return fail("is starting or ending; try again");
  if (!supervisor)
    return fail("cannot be watched: pidfd_open: "
                + std::string{std::strerror(errno)}
                + "; send SIGUSR2 to pup-guardian");
  // The pid comes from a file of theirs.
  if (user_of(x.pid) != owner_of(x.folder))
    return fail("is not run by the owner of " + x.folder
                + "; remove that folder, if nobody needs it");
  const auto parent = parent_of(x.pid);
  if (!is_guardian(parent))
    return fail(
        "runs without pup-guardian, which an upgrade needs; restart it "
        "with pup terminate and pup start");
  const auto guardian = open_pidfd(parent);
  const auto program = supervisor_of(parent);
  if (::access(program.c_str(), X_OK) != 0)
    return fail("stays as it is: " + program + ": " + std::strerror(errno));
  awaited_file socket{x.socket};
  if (socket.descriptor() < 0)
    return fail("stays as it is: inotify: "
                + std::string{std::strerror(errno)});
  if (::syscall(SYS_pidfd_send_signal, supervisor.get(), guard::upgrade_signal,
                nullptr, 0U)
      != 0)
    return fail(std::string{"cannot be signalled: "} + std::strerror(errno));
  if (!await(socket, guardian, clock::now() + limit))
    return fail(
        "has no successor that can be reached; pup status and its "
        "pup.log tell more");
  const auto now = found_again(x, env);
  if (!now)
    return fail("has no successor that can be reached");
  const auto pid = "pid " + std::to_string(now->pid);
  std::error_code ignored;
  if (!std::filesystem::equivalent(of_process(now->pid, "exe"), program,
                                   ignored))
    return fail("was not upgraded: " + program
                + " did not come up, see pup.log; the program from before goes "
                  "on as "
                + pid);
  return {true,
          "'" + x.name + "' " + x.version
              + (x.version == now->version ? ": goes on as " + pid
                                           : " -> " + now->version + ": " + pid)
              + ", was pid " + std::to_string(x.pid)};
}

}  // namespace pup
