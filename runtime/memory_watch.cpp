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
  impl(boost::asio::io_context& loop, event outgrown,
       std::chrono::milliseconds interval)
      : timer_(loop), outgrown_(std::move(outgrown)), interval_(interval) {}

  void add(pid_t leader, std::uint64_t most_bytes) {
    const bool idle = bounds_.empty();
    bounds_[leader] = most_bytes;
    if (idle)
      arm();
  }

  void remove(pid_t leader) {
    bounds_.erase(leader);
    if (bounds_.empty())
      timer_.cancel();
  }

private:
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
    for (const auto& [leader, used] : sample_sessions()) {
      const auto bound = bounds_.find(leader);
      if (bound != bounds_.end() && used > bound->second)
        found.emplace_back(leader, used);
    }
    for (const auto& [leader, used] : found)
      bounds_.erase(leader);
    if (!bounds_.empty())
      arm();
    for (const auto& [leader, used] : found)
      outgrown_(leader, used);
  }

  boost::asio::steady_timer timer_;
  event outgrown_;
  std::chrono::milliseconds interval_;
  std::map<pid_t, std::uint64_t> bounds_;
};

memory_watch::memory_watch(boost::asio::io_context& loop, event outgrown,
                           std::chrono::milliseconds interval)
    : impl_(std::make_shared<impl>(loop, std::move(outgrown), interval)) {}

memory_watch::~memory_watch() = default;

void memory_watch::add(pid_t leader, std::uint64_t most_bytes) {
  impl_->add(leader, most_bytes);
}

void memory_watch::remove(pid_t leader) {
  impl_->remove(leader);
}

}  // namespace pup
