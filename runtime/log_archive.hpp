// Compresses files that are no longer written, when the machine has time.
//
// The work is done by a thread at SCHED_IDLE, which the first job starts and
// which sleeps between jobs: it gets what processes and logging leave of the
// processors. Its memory is that of one deflate stream, some 300 KiB.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace pup {

class log_archiver {
public:
  log_archiver() = default;
  log_archiver(const log_archiver&) = delete;
  log_archiver& operator=(const log_archiver&) = delete;
  /// Gives up what is not finished; a half written file is removed.
  ~log_archiver();

  /// Replaces `file` by `file`.gz, with its mode, owner and times. `done` is
  /// called on the archiver's thread, with 0 or an errno; after an error `file`
  /// is as it was. The path is walked by the rules of trusted_path.hpp. Any
  /// thread. Jobs are done in turn.
  void compress(std::string file, std::function<void(int error)> done);

private:
  struct job {
    std::string file;
    std::function<void(int)> done;
  };

  void work();
  int carry_out(const std::string& file);

  // Held for moments only: whoever waits for it may wait for a thread that is
  // the last to get a processor.
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<job> jobs_;
  std::atomic<bool> ending_ = false;
  std::thread thread_;
};

}  // namespace pup
