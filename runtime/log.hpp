// The output of all processes of a supervisor, on its way to the log.
//
// Each process has a pipe for standard output and one for standard error. A
// thread of its own, the only one that meets a byte of them, waits for all read
// ends and moves what is there
//
//   - into the store, by splice() (log_store.hpp);
//   - as lines into the files and onto the console that the configuration
//   names.
//
// Nothing runs when nothing is written: no timer but the one for the oldest
// line to expire. A stream that writes often and little is looked at every
// coalescing_pause only, so that one wake-up serves many lines; the pipe of one
// that writes much is enlarged.
//
// No process waits for the disk because of pup. Where the disk does not take
// what comes (full, broken, read-only), lines are dropped and counted; what was
// lost is told by `log_losses` at once and by a line in the log as soon as one
// can be written again.
//
// The read ends are values until they are attached: another process may hold
// copies of them and give them to a successor, which attaches them as
// `resumed` and goes on in the middle of a line.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/fd.hpp"
#include "pup/runtime/log_format.hpp"
#include "pup/runtime/log_loss.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include <sys/types.h>

namespace pup {

/// A pipe for one stream.
struct log_pipe {
  unique_fd read_end;   ///< non-blocking
  unique_fd write_end;  ///< for the process
};

/// Both ends are close-on-exec. A fault: EMFILE, ENFILE.
std::variant<log_pipe, os_fault> make_log_pipe();

/// The output of one life of one instance.
struct log_attachment {
  std::string id;      ///< 1 to 255 bytes
  output_spec output;  ///< its paths are expanded
  unique_fd out{};     ///< read ends; one may be missing
  unique_fd err{};
  std::shared_ptr<log_losses> losses;  ///< may be null
  /// Taken over from a predecessor that has written to the same store.
  bool resumed = false;
  /// The first line of either stream that matches the pattern (pattern.hpp; of
  /// a long line each 64 KiB) is told, once, on the log's thread; up to 4 KiB
  /// of a line that has no end yet as well, such as a prompt. Escape sequences
  /// are not part of the line. Empty: nothing is looked for.
  std::string awaited_pattern{};
  std::function<void()> on_match{};
  /// Let go, on the log's thread, when the last byte of both has been taken.
  std::shared_ptr<void> lease{};
  /// Who the process is, where that is somebody else than pup.
  std::optional<uid_t> user{};
};

struct log_options {
  /// Folder of the store. Empty: there is none.
  std::string folder;
  logger_spec logger;
  /// Where `console` goes to; -1: nowhere.
  int console_out = -1;
  int console_err = -1;
};

class log_sink {
public:
  /// How long a stream that writes often and little waits: 128 bytes a
  /// microsecond, more than any program writes line by line, fill half a pipe
  /// of 64 KiB in that time.
  static constexpr std::chrono::microseconds coalescing_pause{250};

  /// Starts the thread. Throws std::system_error when that, or what it waits
  /// with, cannot be had.
  explicit log_sink(log_options options);
  log_sink(const log_sink&) = delete;
  log_sink& operator=(const log_sink&) = delete;
  /// Takes what is in the pipes now, writes all that waits, ends the thread.
  ~log_sink();

  /// Ends the thread likewise, for a successor that goes on with the pipes: in
  /// the store a line that is under way stays open (in other files it ends
  /// here). Nothing but the destructor may follow; what else is said is lost.
  void leave();

  /// Whether the output would go anywhere; if not, /dev/null is cheaper.
  [[nodiscard]] bool wants(const output_spec& output) const;

  /// Any thread.
  void attach(log_attachment x);

  /// A word of pup about a process, or about itself: one line. Behind all that
  /// the process has written so far. `severity`: info, warn or error. Any
  /// thread; of more than most_waiting_events at once some are dropped, and
  /// that is said.
  void event(std::string id, log_stream severity, std::string text);
  static constexpr std::size_t most_waiting_events = 4096;

  /// Opens the files by their names again: after another program, logrotate,
  /// has renamed them. Any thread.
  void reopen();

private:
  class impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace pup
