#include "pup/runtime/memory_watch.hpp"

#include "pup/runtime/usage.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <map>
#include <utility>
#include <vector>

namespace pup {

std::string amount_of_memory(std::uint64_t bytes) {
  constexpr std::uint64_t k = 1024;
  if (bytes < 10 * k * k)
    return std::to_string((bytes + k - 1) / k) + 'K';
  return std::to_string((bytes + k * k - 1) / (k * k)) + 'M';
}

class memory_watch::impl : public std::enable_shared_from_this<impl> {
public:
  impl(boost::asio::io_context& loop, event outgrown, options how)
      : timer_(loop),
        outgrown_(std::move(outgrown)),
        interval_(how.interval),
        meter_(loop, how.patience, std::move(how.measure)) {}

  std::shared_ptr<const std::atomic<std::uint64_t>> add(
      pid_t leader, std::uint64_t most_bytes) {
    const bool idle = watched_.empty();
    auto figure = std::make_shared<std::atomic<std::uint64_t>>(0);
    watched_[leader] = {most_bytes, ++last_number_, figure, false};
    if (idle)
      arm();
    return figure;
  }

  void remove(pid_t leader) {
    watched_.erase(leader);
    if (watched_.empty())
      timer_.cancel();
  }

private:
  struct watched {
    std::uint64_t most_bytes = 0;
    std::uint64_t number = 0;  // a pid may come back with another life
    std::shared_ptr<std::atomic<std::uint64_t>> figure;
    bool being_measured = false;
  };

  void arm() {
    timer_.expires_after(interval_);
    timer_.async_wait(
        [weak = weak_from_this()](const boost::system::error_code& error) {
          const auto self = weak.lock();
          if (self && !error)
            self->look();
        });
  }

  void look() {
    std::vector<std::pair<pid_t, std::uint64_t>> found;
    for (auto& [leader, session] : sample_sessions()) {
      const auto i = watched_.find(leader);
      if (i == watched_.end() || i->second.being_measured)
        continue;
      if (session.pids.size() > 1 && session.rss_bytes > i->second.most_bytes)
        measure(leader, i->second, std::move(session));
      else
        found.emplace_back(leader, session.rss_bytes);
    }
    if (!watched_.empty())
      arm();
    for (const auto& [leader, used] : found)
      judge(leader, used, {});
  }

  void measure(pid_t leader, watched& x, session_usage session) {
    x.being_measured = true;
    meter_.measure(std::move(session.pids), [this, leader, number = x.number,
                                             sum = session.rss_bytes](
                                                const memory_reading& reading) {
      const auto i = watched_.find(leader);
      if (i == watched_.end() || i->second.number != number)
        return;
      i->second.being_measured = false;
      if (reading.obstacle.empty())
        judge(leader, reading.bytes, {});
      else
        judge(leader, sum,
              "shared pages counted for each process, " + reading.obstacle);
    });
  }

  void judge(pid_t leader, std::uint64_t used, const std::string& remark) {
    const auto i = watched_.find(leader);
    if (i == watched_.end())
      return;
    i->second.figure->store(used, std::memory_order_relaxed);
    if (used <= i->second.most_bytes)
      return;
    remove(leader);
    outgrown_(leader, used, remark);
  }

  boost::asio::steady_timer timer_;
  event outgrown_;
  std::chrono::milliseconds interval_;
  std::map<pid_t, watched> watched_;
  std::uint64_t last_number_ = 0;
  memory_meter meter_;  // goes first: it calls this
};

memory_watch::memory_watch(boost::asio::io_context& loop, event outgrown,
                           options how)
    : impl_(std::make_shared<impl>(loop, std::move(outgrown), std::move(how))) {
}

memory_watch::memory_watch(boost::asio::io_context& loop, event outgrown)
    : memory_watch(loop, std::move(outgrown), options{}) {}

memory_watch::~memory_watch() = default;

std::shared_ptr<const std::atomic<std::uint64_t>> memory_watch::add(
    pid_t leader, std::uint64_t most_bytes) {
  return impl_->add(leader, most_bytes);
}

void memory_watch::remove(pid_t leader) {
  impl_->remove(leader);
}

}  // namespace pup
