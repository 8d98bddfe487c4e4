// Clients that ask a cluster for answers at an even pace, and count what they
// get.
#pragma once

#include "catch.hpp"
#include "system.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <iostream>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>

namespace pup::test {

inline constexpr int load_threads = 4;
// One request in 7 ms from each of four threads: 571 a second.
inline constexpr std::chrono::milliseconds load_pace{7};
// A client that waits longer has been forgotten.
inline constexpr std::chrono::seconds client_patience{5};

/// Requests at an even pace, each on a connection of its own, from construction
/// to end(). A thread that was held up makes up for it.
class load {
public:
  struct outcome {
    long served = 0;
    long refused = 0;  ///< the connection was not accepted
    long cut = 0;      ///< reset, closed or silent before the answer was whole
    long wrong = 0;    ///< an answer, but not one of an instance
    double per_second = 0;
    std::string first_trouble;
  };

  explicit load(std::uint16_t port) : port_(port) {
    for (auto& x : threads_)
      x = std::thread{[this] { ask_until_stopped(); }};
  }
  load(const load&) = delete;
  load& operator=(const load&) = delete;
  ~load() {
    end();
  }

  /// Until so many more requests have been answered.
  [[nodiscard]] bool serves(long more) const {
    const auto goal = served_ + more;
    return wait_until([&] { return served_ >= goal; });
  }

  outcome end() {
    stopping_ = true;
    for (auto& x : threads_)
      if (x.joinable())
        x.join();
    const std::chrono::duration<double> time = last_ - begun_;
    return {served_,
            refused_,
            cut_,
            wrong_,
            static_cast<double>(served_) / std::max(time.count(), 0.001),
            trouble_};
  }

private:
  void ask_until_stopped() {
    auto next = std::chrono::steady_clock::now();
    for (long n = 0; !stopping_; ++n) {
      std::this_thread::sleep_until(next);
      next += load_pace;
      // Some answers take a while, so that there is always one in flight.
      ask(n % 8 == 0 ? "/slow?ms=10" : "/");
    }
    const std::lock_guard hold{mutex_};
    last_ = std::chrono::steady_clock::now();
  }

  void ask(const std::string& path) {
    std::optional<connection> client;
    try {
      client.emplace(endpoint{port_, "127.0.0.1", {}}, client_patience);
    } catch (const std::system_error& e) {
      note(refused_, e.what());
      return;
    }
    try {
      const auto answer = client->get(path);
      if (answer.status == 200 && answer.body.starts_with("web-"))
        ++served_;
      else if (answer.status == 0)
        note(cut_, "closed before the answer was whole");
      else
        note(wrong_, answer.head + answer.body);
    } catch (const std::system_error& e) {
      note(cut_, e.what());
    }
  }

  void note(std::atomic<long>& count, const std::string& what) {
    ++count;
    const std::lock_guard hold{mutex_};
    if (trouble_.empty())
      trouble_ = what;
  }

  std::uint16_t port_;
  std::atomic<bool> stopping_{false};
  std::atomic<long> served_{0};
  std::atomic<long> refused_{0};
  std::atomic<long> cut_{0};
  std::atomic<long> wrong_{0};
  std::mutex mutex_;
  std::string trouble_;
  const std::chrono::steady_clock::time_point begun_ =
      std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_ = begun_;
  std::thread threads_[load_threads];
};

/// Prints the outcome; at most `may_be_cut` requests have failed, and those
/// after they were accepted.
inline void check_outcome(const char* what, const load::outcome& x,
                          long may_be_cut = 0) {
  std::cout << what << ": " << x.served << " served ("
            << std::lround(x.per_second) << "/s), " << x.refused << " refused, "
            << x.cut << " cut, " << x.wrong << " wrong\n";
  INFO(x.first_trouble);
  CHECK(x.served > 0);
  CHECK(x.refused == 0);
  CHECK(x.cut <= may_be_cut);
  CHECK(x.wrong == 0);
}

}  // namespace pup::test
