// A text file that output is written to besides the store, as `logger.stdout`
// and `logger.stderr` name it.
//
// Whole lines are appended, each write leaves the file at the end of a line.
// Before it grows beyond its bound it is renamed to NAME-20261124T031314.123Z
// and a new one begun, so no line is in two files; the oldest of those go.
// Another program may rename the file as well, remove it, or truncate it in
// place. One that was removed is made again with the next write; one that was
// renamed after moved_pause, or by reopen(): the other program may be about to
// make the new one itself.
//
// The path is walked by the rules of trusted_path.hpp, each time the file is
// opened and each time it is rotated. Folders that are missing are made with
// mode 0755, files with 0600, less the umask.
//
// One thread. The clock comes in with each call.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/trusted_path.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <sys/types.h>

namespace pup {

struct log_file_rules {
  /// Size at which a new file is begun. 0: never.
  std::uint64_t bytes = std::uint64_t{256} << 20;
  /// How many old ones are kept.
  std::uint32_t kept = 4;

  bool operator==(const log_file_rules&) const = default;
};

class log_file {
public:
  using time_point = std::chrono::system_clock::time_point;

  struct written {
    std::size_t bytes = 0;  ///< of whole lines
    int error = 0;          ///< errno: why it is not more
  };

  static constexpr std::chrono::milliseconds retry_pause{1'000};
  static constexpr std::chrono::milliseconds moved_pause{1'000};

  /// Opened by the first write. `full` is called with the name of each file
  /// that takes no more.
  log_file(std::string path, const log_file_rules& rules,
           std::function<void(const std::string& path)> full);

  /// A file grows beyond its bound where there is no descriptor for the next
  /// one. `lines`: one or several, each with its newline. After an error
  /// nothing is tried for retry_pause, and each call gives the same error.
  written write(std::string_view lines, time_point now);

  /// A file of this user is written to as well where others may write.
  void allow(uid_t owner);

  /// Of the last error: more than errno says; mostly empty.
  [[nodiscard]] const std::string& why() const noexcept {
    return why_;
  }

  /// The next write opens the file by its name again.
  void reopen() {
    file_.reset();
    moved_since_.reset();
    retry_at_ = {};
  }

  /// Removes the oldest of the old files; call it when one was compressed.
  void prune() const;

  [[nodiscard]] const std::string& path() const noexcept {
    return path_;
  }

private:
  int open();
  int open_in(const located_file& place);
  void look_for_loss(time_point now);
  int rotate(time_point now);
  void prune_in(const located_file& place) const;
  int failed(const os_fault& fault);
  written append(std::string_view lines);

  std::string path_;
  log_file_rules rules_;
  std::function<void(const std::string&)> full_;
  file_owners owners_;
  unique_fd file_;
  bool regular_ = true;
  std::uint64_t size_ = 0;
  std::optional<time_point> moved_since_;
  time_point retry_at_{};
  int trouble_ = 0;
  std::string why_;
};

}  // namespace pup
