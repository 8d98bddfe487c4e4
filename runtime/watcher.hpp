// Changes of files, told by inotify: one descriptor for everything that a
// supervisor watches, nothing runs while nothing changes.
//
// A watched path is a file or a folder with all that is below it. It need not
// exist yet, and may go and come back: the folder it is in, or else the nearest
// one on the way that exists, is watched for its name. Symbolic links on the
// way, and the watched path itself where it is one, are followed by the rules of
// trusted_path.hpp (`trouble` tells of one that is not), and putting another in
// the place of one is a change. Below a watched folder links are
// files, never followed; but where one leads through another link of that
// folder, a change of that one is a change of the former, too: Kubernetes
// replaces all files of a volume at once in that way.
//
// A change is
//   - a file that was written, once it is closed (an editor's rename over the
//     old one included), made as a link, removed, moved in or out;
//   - a folder moved in with such files, or moved out;
//   - the watched path coming or going.
// What is being written, an empty folder, times and modes are none.
//
// Changes come in bursts. One is over, and told once, when `interval` has
// passed without another, at the latest after longest_burst intervals.
//
// Where the kernel could not tell everything (its queue overflowed), all is
// looked through again and counts as changed. Where it gives no more watches,
// `trouble` says so and retry_pause later it is tried again: no event tells
// that somebody has raised the limit.
#pragma once

#include "pup/config/spec.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace boost::asio {
class io_context;
}

namespace pup {

struct watch_wish {
  /// Absolute.
  std::vector<std::string> paths;
  watcher_spec rules;
  /// Patterns (glob.hpp) of absolute paths that never count, with all below
  /// them: what pup itself writes.
  std::vector<std::string> own;
  /// Paths below it are told as seen from it. Empty: all are absolute.
  std::string base;
};

struct file_news {
  /// The first change of a burst, in words. Empty: none, only the trouble.
  std::string changed;
  /// What is not watched, and why. Empty: all is.
  std::string trouble;
};

class watcher {
public:
  static constexpr int longest_burst = 100;
  static constexpr std::chrono::seconds retry_pause{60};

  /// The loop outlives this. Every member on its thread.
  explicit watcher(boost::asio::io_context& loop);
  watcher(const watcher&) = delete;
  watcher& operator=(const watcher&) = delete;
  ~watcher();

  /// Watches from now on; what is there already is no change. `tell` is called
  /// on the loop, never from within a member, until remove().
  std::uint64_t add(watch_wish wish,
                    std::function<void(const file_news&)> tell);
  void remove(std::uint64_t number);

  /// As if the kernel's queue had overflowed; for tests.
  void lose_track();

private:
  class impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace pup
