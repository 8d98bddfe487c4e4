#include "pup/runtime/files.hpp"

#include "pup/runtime/watcher.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

namespace pup {

namespace {

namespace asio = boost::asio;

// No event tells that there is room for a thread again.
constexpr std::chrono::seconds first_retry{1};
constexpr std::chrono::seconds last_retry{60};

/// A watcher with its loop and thread.
class watch_thread : public std::enable_shared_from_this<watch_thread> {
public:
  watch_thread(std::vector<std::string> own, std::string base,
               asio::io_context* clock)
      : own_(std::move(own)), base_(std::move(base)), clock_(clock) {
    std::error_code ignored;
    if (base_.empty())
      base_ = std::filesystem::current_path(ignored).string();
  }
  watch_thread(const watch_thread&) = delete;
  watch_thread& operator=(const watch_thread&) = delete;
  ~watch_thread() {
    if (!thread_.joinable())
      return;
    asio::post(loop_, [this] { watcher_.reset(); });
    work_.reset();
    thread_.join();
  }

  /// Any thread, as remove().
  std::uint64_t add(const watch_request& wanted,
                    std::function<void(const watch_news&)> tell) {
    const std::lock_guard guard{mutex_};
    const auto trouble = thread_.joinable() ? std::string{} : start();
    if (!trouble.empty())
      tell({{}, trouble});
    const auto token = ++last_token_;
    asio::post(loop_, [this, token, wanted, late = !trouble.empty(),
                       tell = std::move(tell)] {
      if (late)
        tell({});
      numbers_[token] = watcher_->add({wanted.paths, wanted.rules, own_, base_},
                                      [tell](const file_news& x) {
                                        tell({x.changed, x.trouble});
                                      });
    });
    return token;
  }

  void remove(std::uint64_t token) {
    asio::post(loop_, [this, token] {
      watcher_->remove(numbers_.at(token));
      numbers_.erase(token);
    });
  }

private:
  /// Why it cannot be started now; it is tried again. Empty: it runs.
  std::string start() {
    try {
      work_.emplace(loop_.get_executor());
      watcher_.emplace(loop_);
      thread_ = std::thread{[this] { run(); }};
      return {};
    } catch (const std::system_error& error) {
      start_later();
      return "no thread to watch files: " + error.code().message();
    }
  }

  void start_later() {
    if (clock_ == nullptr || std::exchange(waits_, true))
      return;
    const auto timer = std::make_shared<asio::steady_timer>(*clock_, retry_);
    retry_ = std::min(retry_ * 2, last_retry);
    timer->async_wait(
        [weak = weak_from_this(), timer](const boost::system::error_code&) {
          const auto self = weak.lock();
          if (!self)
            return;
          const std::lock_guard guard{self->mutex_};
          self->waits_ = false;
          if (!self->thread_.joinable())
            self->start();
        });
  }

  void run() {
    sigset_t all;
    sigfillset(&all);  // signals belong to other threads
    ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
    ::pthread_setname_np(::pthread_self(), "pup-files");
    loop_.run();
  }

  std::vector<std::string> own_;
  std::string base_;
  asio::io_context* clock_;
  std::mutex mutex_;  // of the start
  std::chrono::seconds retry_ = first_retry;
  bool waits_ = false;
  std::uint64_t last_token_ = 0;
  asio::io_context loop_{1};
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>>
      work_;
  // The thread's own.
  std::optional<watcher> watcher_;
  std::map<std::uint64_t, std::uint64_t> numbers_;
  std::thread thread_;
};

std::string escaped(std::string_view text) {
  std::string result;
  for (const auto c : text) {
    if (std::string_view{"*?[]{}\\"}.find(c) != std::string_view::npos)
      result += '\\';
    result += c;
  }
  return result;
}

/// %{...} may become anything.
std::string pattern_of(std::string_view path) {
  std::string result;
  for (;;) {
    const auto begin = path.find("%{");
    const auto end = path.find('}', begin == path.npos ? 0 : begin);
    if (begin == path.npos || end == path.npos)
      return result + escaped(path);
    result += escaped(path.substr(0, begin)) + '*';
    path.remove_prefix(end + 1);
  }
}

}  // namespace

file_watch real_file_watch(std::vector<std::string> own, std::string base,
                           asio::io_context* clock) {
  auto thread =
      std::make_shared<watch_thread>(std::move(own), std::move(base), clock);
  file_watch result;
  result.begin = [thread](const watch_request& wanted,
                          std::function<void(const watch_news&)> tell) {
    const auto token = thread->add(wanted, std::move(tell));
    return std::shared_ptr<void>{
        nullptr, [thread, token](void*) { thread->remove(token); }};
  };
  return result;
}

std::string glob_of_path(const std::string& path) {
  return escaped(path);
}

std::vector<std::string> own_files(const pup_spec& spec) {
  std::vector<std::string> result;
  const auto add = [&result](const output_spec& x) {
    for (const auto* path : {&x.stdout_file, &x.stderr_file})
      if (!path->empty())
        // Rotated ones have a time behind the name (log_file.cpp).
        result.push_back(pattern_of(*path) + "{,-[0-9]*}");
  };
  add(spec.logger.output);
  for (const auto& x : spec.processes) {
    add(x.output);
    if (!x.pid_file.empty())
      result.push_back(pattern_of(x.pid_file));
  }
  return result;
}

}  // namespace pup
