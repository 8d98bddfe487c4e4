#include "pup/runtime/calendar.hpp"

#include "pup/runtime/fd.hpp"
#include "pup/runtime/zone.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>

#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include <sys/timerfd.h>
#include <unistd.h>

namespace pup {

namespace {

/// A timer that never fires: the kernel cancels it, and wakes us, when the
/// clock is set.
class set_watch : public std::enable_shared_from_this<set_watch> {
public:
  explicit set_watch(boost::asio::io_context& loop) : timer_(loop) {}

  /// On the loop.
  void add(std::function<void()> f) {
    callbacks_.push_back(std::move(f));
    if (callbacks_.size() == 1)
      open();
  }

private:
  void open() {
    unique_fd fd{::timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK)};
    boost::system::error_code error;
    if (!fd || !arm(fd.get()))
      return;
    timer_.assign(fd.get(), error);
    if (error)
      return;
    static_cast<void>(fd.release());
    wait();
  }

  static bool arm(int fd) {
    itimerspec never{};
    never.it_value.tv_sec = std::numeric_limits<std::int32_t>::max();
    return ::timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET,
                             &never, nullptr)
           == 0;
  }

  void wait() {
    timer_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                      [weak = weak_from_this()](boost::system::error_code e) {
                        const auto self = weak.lock();
                        if (e || !self)
                          return;
                        std::uint64_t count = 0;
                        // ECANCELED: it was set.
                        [[maybe_unused]] const auto size =
                            ::read(self->timer_.native_handle(), &count,
                                   sizeof(count));
                        arm(self->timer_.native_handle());
                        self->wait();
                        for (const auto& f : self->callbacks_)
                          f();
                      });
  }

  boost::asio::posix::stream_descriptor timer_;
  std::vector<std::function<void()>> callbacks_;
};

}  // namespace

calendar real_calendar(boost::asio::io_context& loop) {
  calendar result;
  result.zone = [](const std::string& name) -> time_zone {
    auto found = find_time_zone(name);
    auto* zone = std::get_if<time_zone>(&found);
    return zone != nullptr ? *zone : utc;
  };
  auto watch = std::make_shared<set_watch>(loop);
  result.on_set = [&loop, watch](std::function<void()> f) {
    boost::asio::post(loop, [watch, f = std::move(f)]() mutable {
      watch->add(std::move(f));
    });
  };
  return result;
}

}  // namespace pup
