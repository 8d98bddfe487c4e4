#include "pup/runtime/folder_watch.hpp"

#include "pup/config/paths.hpp"
#include "pup/runtime/fd.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

namespace asio = boost::asio;

constexpr std::chrono::milliseconds quiet_time{100};

// Of a folder itself, wherever it is watched.
constexpr std::uint32_t goes = IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
// Of what is in it.
constexpr std::uint32_t loses = IN_DELETE | IN_MOVED_FROM;
constexpr std::uint32_t gains = IN_CREATE | IN_MOVED_TO | IN_ATTRIB;

bool is_folder(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

}  // namespace

class folder_watch::impl : public std::enable_shared_from_this<impl> {
public:
  impl(asio::io_context& loop, std::string folder, std::function<void()> look)
      : folder_(std::move(folder)),
        look_(std::move(look)),
        events_(loop),
        mounts_(loop),
        timer_(loop) {}

  void begin() {
    watch();
    // Where the table cannot be read nothing can be mounted either.
    if (unique_fd table{::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)}) {
      mounts_.assign(table.release());
      await_mounts();
    }
  }

  void end() {
    ended_ = true;
    boost::system::error_code ignored;
    events_.close(ignored);
    mounts_.close(ignored);
    timer_.cancel();
  }

private:
  /// Watches anew, as what stands where may have changed.
  void watch() {
    const auto fd = ::inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0 && !events_.is_open())
      throw std::system_error(errno, std::generic_category(), "inotify");
    if (fd < 0)
      return;  // out of descriptors: what was watched still is
    boost::system::error_code ignored;
    events_.close(ignored);
    events_.assign(fd);
    add_all();
    await_events(++round_);
  }

  /// The folder, the one above, which tells of its end, and that nothing above
  /// is renamed. Of one that is missing the nearest that exists, where the next
  /// is to appear.
  void add_all() {
    auto path = folder_;
    bool missing = false;
    for (; !is_folder(path) && path.size() > 1; path = folder_of(path))
      missing = true;
    add(path, goes | (missing ? gains | loses : loses));
    for (auto next = !missing; path.size() > 1; next = false) {
      path = folder_of(path);
      add(path, goes | (next ? loses : 0));
    }
  }

  /// Whether something has happened that nobody was told of.
  [[nodiscard]] bool has_news() {
    int bytes = 0;
    return ::ioctl(events_.native_handle(), FIONREAD, &bytes) == 0 && bytes > 0;
  }

  void add(const std::string& path, std::uint32_t what) {
    // Fails where it has gone meanwhile; the one above tells of that.
    ::inotify_add_watch(events_.native_handle(), path.c_str(),
                        what | IN_MASK_ADD);
  }

  /// `round`: of the watches; what was told of former ones comes late.
  void await_events(std::uint64_t round) {
    events_.async_read_some(asio::buffer(buffer_),
                            [this, round, self = shared_from_this()](
                                const auto& error, std::size_t) {
                              if (error || ended_)
                                return;
                              settle();
                              if (round == round_)
                                await_events(round);
                            });
  }

  void await_mounts() {
    mounts_.async_wait(asio::posix::stream_descriptor::wait_error,
                       [this, self = shared_from_this()](const auto& error) {
                         if (error || ended_)
                           return;
                         settle();
                         await_mounts();
                       });
  }

  void settle() {
    if (std::exchange(settling_, true))
      return;
    timer_.expires_after(quiet_time);
    timer_.async_wait([this, self = shared_from_this()](const auto& error) {
      if (error || ended_)
        return;
      settling_ = false;
      watch();
      look_();
      if (ended_)
        return;
      // Of what has happened since the look began, be it by the look itself.
      const auto again = has_news();
      watch();
      if (again)
        settle();
    });
  }

  const std::string folder_;
  const std::function<void()> look_;
  asio::posix::stream_descriptor events_;
  asio::posix::stream_descriptor mounts_;
  asio::steady_timer timer_;
  std::array<char, 4'096> buffer_{};
  std::uint64_t round_ = 0;
  bool settling_ = false;
  bool ended_ = false;
};

folder_watch::folder_watch(asio::io_context& loop, std::string folder,
                           std::function<void()> look)
    : impl_(std::make_shared<impl>(loop, std::move(folder), std::move(look))) {
  impl_->begin();
}

folder_watch::~folder_watch() {
  impl_->end();
}

}  // namespace pup
