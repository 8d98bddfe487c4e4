// Keeps the state file (state_file.hpp) up to date.
//
// Whoever knows something new says so and goes on; a thread of its own waits
// for the disk. One write at a time: what is said meanwhile goes into the next
// one, where the latest word about a thing wins, so that nothing piles up
// behind a slow disk. Nothing runs when nothing changes.
//
// A disk that takes nothing (full, read-only, broken) tells nobody when that is
// over: then, and only then, writing is tried again on a timer, after 100 ms,
// then twice the time up to 5 s.
#pragma once

#include "pup/runtime/state_file.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace pup {

class journal {
public:
  /// Of a storm of news (a thousand processes that start) at most 50 states a
  /// second are written; the first of a calm time at once.
  static constexpr std::chrono::milliseconds between_writes{20};

  /// Called on the journal's thread: writing has begun to fail, and why, or
  /// (empty) works again.
  using trouble_function = std::function<void(const std::string&)>;

  /// `begin` is written at once. Throws std::system_error when a thread cannot
  /// be started.
  journal(std::string folder, saved_state begin, trouble_function on_trouble);
  journal(const journal&) = delete;
  journal& operator=(const journal&) = delete;
  /// Writes what is not written, if the disk takes it.
  ~journal();

  // Any thread; take no time.
  /// What runs from now on: path and fingerprint of the configuration.
  void configuration(std::string path, std::uint64_t mark);
  void unit(const std::string& id, saved_unit x);
  /// A process runs; its start time is looked up here.
  void began(const std::string& key, std::uint64_t life, pid_t pid);
  void ended(const std::string& key, std::uint64_t life);
  /// The supervisor was asked to end.
  void ends_on_purpose();

  /// Calls `f` when what has been said so far is on the disk, or the disk has
  /// refused it: on the journal's thread, or here and now.
  void when_written(std::function<void()> f);

  /// Why what is known is not on the disk; empty: it is, or will be at once.
  [[nodiscard]] std::string trouble() const;

private:
  /// Lets `change` put something new beside the state, and wakes the thread.
  template <class Change>
  void note(Change change);

  void work();
  void take_news();
  bool write();

  const std::string folder_;
  const trouble_function on_trouble_;
  saved_state state_;  // of the thread

  mutable std::mutex mutex_;  // held for moments only
  std::condition_variable wake_;
  struct configuration_news {
    std::string path;
    std::uint64_t mark = 0;
  };
  std::optional<configuration_news> configuration_;
  std::map<std::string, saved_unit> units_;
  struct process_news {
    std::optional<saved_process> began;
    std::uint64_t ended = 0;  // the last life that has
  };
  std::map<std::string, process_news> processes_;
  bool on_purpose_ = false;
  bool news_ = true;
  std::vector<std::function<void()>> waiting_;  // for the next write
  std::vector<std::function<void()>> served_;   // by the write under way
  bool writing_ = false;
  bool ending_ = false;
  std::string trouble_;

  std::thread thread_;
};

}  // namespace pup
