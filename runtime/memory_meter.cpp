#include "pup/runtime/memory_meter.hpp"

#include "pup/runtime/fd.hpp"
#include "pup/runtime/proc_file.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <cerrno>
#include <charconv>
#include <deque>
#include <mutex>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace pup {

namespace {

constexpr int most_stuck = 2;
constexpr std::uint64_t kib = 1024;

// "Pss:                 123 kB"
std::optional<std::uint64_t> pss_in(std::string_view rollup) {
  constexpr std::string_view key = "\nPss:";
  auto at = rollup.find(key);
  if (at == std::string_view::npos)
    return std::nullopt;
  at = rollup.find_first_not_of(' ', at + key.size());
  if (at == std::string_view::npos)
    return std::nullopt;
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(
      rollup.data() + at, rollup.data() + rollup.size(), number);
  return error == std::errc{} ? std::optional{number * kib} : std::nullopt;
}

// Why such a file of a process that lives cannot be opened; 0: the process has
// ended.
int refusal_of(const std::string& path, pid_t pid) {
  const unique_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  const auto error = file ? 0 : errno;
  const auto lives =
      ::access(("/proc/" + std::to_string(pid)).c_str(), F_OK) == 0;
  return lives && error != ESRCH ? error : 0;
}

// Where threads put what they have found, as long as somebody wants it.
class mailbox {
public:
  explicit mailbox(boost::asio::io_context& loop) : loop_(&loop) {}

  void deliver(std::function<void()> f) {
    const std::lock_guard guard{mutex_};
    if (loop_ != nullptr)
      boost::asio::post(*loop_, std::move(f));
  }

  void close() {
    const std::lock_guard guard{mutex_};
    loop_ = nullptr;
  }

private:
  std::mutex mutex_;
  boost::asio::io_context* loop_;
};

}  // namespace

memory_reading proportional_memory(const std::vector<pid_t>& pids) {
  memory_reading result;
  for (const auto pid : pids) {
    const auto path = "/proc/" + std::to_string(pid) + "/smaps_rollup";
    if (const auto bytes = pss_in(read_proc_file(path)))
      result.bytes += *bytes;
    else if (const auto error = refusal_of(path, pid); error != 0)
      result.obstacle = path + ": " + std::generic_category().message(error);
  }
  return result;
}

class memory_meter::impl : public std::enable_shared_from_this<impl> {
public:
  impl(boost::asio::io_context& loop, std::chrono::milliseconds patience,
       read_function read)
      : loop_(loop),
        patience_timer_(loop),
        patience_(patience),
        read_(std::move(read)),
        box_(std::make_shared<mailbox>(loop)) {}

  ~impl() {
    box_->close();
  }

  void measure(std::vector<pid_t> pids, answer_function answer) {
    questions_.push_back({std::move(pids), std::move(answer)});
    if (current_ == 0)
      proceed();
  }

private:
  struct question {
    std::vector<pid_t> pids;
    answer_function answer;
  };

  void proceed() {
    if (questions_.empty())
      return;
    current_ = ++last_;
    if (stuck_ >= most_stuck)
      return answer_later({0, "the memory maps of other processes are locked"});
    try {
      begin();
    } catch (const std::system_error& error) {
      return answer_later(
          {0, "no thread to read it: " + std::string{error.code().message()}});
    }
    patience_timer_.expires_after(patience_);
    patience_timer_.async_wait([weak = weak_from_this(), number = current_](
                                   const boost::system::error_code& error) {
      const auto self = weak.lock();
      if (self && !error)
        self->lost_patience(number);
    });
  }

  void begin() {
    std::thread{[read = read_, pids = questions_.front().pids, box = box_,
                 weak = weak_from_this(), number = current_] {
      auto found = read(pids);
      box->deliver([weak, number, found = std::move(found)] {
        if (const auto self = weak.lock())
          self->came_back(number, found);
      });
    }}.detach();
  }

  void answer_later(memory_reading x) {
    boost::asio::post(
        loop_, [weak = weak_from_this(), number = current_, x = std::move(x)] {
          const auto self = weak.lock();
          if (self && number == self->current_)
            self->answer(x);
        });
  }

  void came_back(std::uint64_t number, const memory_reading& x) {
    if (number == current_)
      answer(x);
    else
      --stuck_;
  }

  void lost_patience(std::uint64_t number) {
    if (number != current_)
      return;
    ++stuck_;
    answer({0, "its memory map is locked"});
  }

  void answer(const memory_reading& x) {
    patience_timer_.cancel();
    current_ = 0;
    const auto asked = std::move(questions_.front());
    questions_.pop_front();
    asked.answer(x);
    if (current_ == 0)
      proceed();
  }

  boost::asio::io_context& loop_;
  boost::asio::steady_timer patience_timer_;
  std::chrono::milliseconds patience_;
  read_function read_;
  std::shared_ptr<mailbox> box_;
  std::deque<question> questions_;  // the first is being answered
  std::uint64_t current_ = 0;       // number of that answer; 0: none
  std::uint64_t last_ = 0;
  int stuck_ = 0;  // threads that have been given up
};

memory_meter::memory_meter(boost::asio::io_context& loop,
                           std::chrono::milliseconds patience,
                           read_function read)
    : impl_(std::make_shared<impl>(loop, patience, std::move(read))) {}

memory_meter::~memory_meter() = default;

void memory_meter::measure(std::vector<pid_t> pids, answer_function answer) {
  impl_->measure(std::move(pids), std::move(answer));
}

}  // namespace pup
