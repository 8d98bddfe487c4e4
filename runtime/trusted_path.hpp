// Files in places where somebody less privileged may write.
//
// Pup opens, makes, renames and removes files that a configuration names, often
// as root and often in a folder of the user that a process runs as. Whoever may
// write in such a folder could lay a link there, exchange a folder for a link,
// or put a FIFO or a second name of somebody else's file in the place of a log.
// This room is the one way to such files. It walks a path component by
// component, each step from the descriptor of the one before, and judges what
// it has opened, never a path a second time:
//
//   - A folder is pup's own if root or pup's user owns it and nobody else may
//     write in it. A symbolic link in such a folder is followed if root or
//     pup's user owns it: /var/run, current -> releases/2.
//   - From the first folder on that others may write, or that another user
//     owns, no link is followed, whoever owns it.
//   - In a sticky folder (/tmp) no link is followed either. A folder in it that
//     is pup's own is a beginning anew: nobody else can rename or remove it.
//   - A file in a place that others may write is used only if it is a regular
//     file with a single name that root, pup's user or the user of the process
//     owns. It is opened without ever waiting: a FIFO has no say, a lease that
//     its owner holds neither.
//
// Write permission of the group does not count where the group has the number
// of the owner (a group of that user alone, as pam_umask(8) takes it) and there
// is no access list. On a read-only mount the owner alone counts: a ConfigMap
// of Kubernetes has mode 0777. /proc's links to open files (/dev/stdout) are
// the kernel's, which follows them.
//
// Blocks as open(2) of folders does: not on a FIFO, but on a file system that
// hangs. No CAF, no Asio, no state; any thread.
#pragma once

#include "pup/runtime/fd.hpp"

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <sys/types.h>

namespace pup {

struct path_rule {
  /// Folders that are missing are made, with this mode less the umask. None:
  /// they are ENOENT.
  std::optional<mode_t> make_folders{};
  /// Somebody trusted as root is: who called sudo, for files named on the
  /// command line.
  std::optional<uid_t> caller{};
};

/// Who may own a file in a place that others may write, besides root, pup's
/// user and the caller.
struct file_owners {
  std::vector<uid_t> users{};
  /// Anybody: for files whose owner is judged otherwise, or does not matter.
  bool anybody = false;
};

/// A folder that was reached by the rules above. Names that its functions take
/// are single components, neither "." nor "..".
class trusted_folder {
public:
  /// Follows links in `path` as the rules say, the last component included. A
  /// relative path starts at the current folder. Fault: "open", ELOOP and a
  /// reason for a link that is not followed.
  static std::variant<trusted_folder, os_fault> open(
      const std::string& path, const path_rule& rule = {});

  /// O_PATH, as long as this lives.
  [[nodiscard]] int fd() const noexcept {
    return fd_.get();
  }
  /// A path to it for calls that take no descriptor; whatever happens to its
  /// name, it leads to this folder as long as this lives.
  [[nodiscard]] std::string by_descriptor() const;
  /// Absolute; no component of it was a link.
  [[nodiscard]] const std::string& path() const noexcept {
    return path_;
  }
  [[nodiscard]] std::string path_of(const std::string& name) const;
  /// Whether others may write here, or could exchange a folder on the way.
  [[nodiscard]] bool shared() const noexcept {
    return !shared_by_.empty();
  }

  /// A file that exists. `flags` as of open(2), without O_CREAT; close-on-exec,
  /// O_NOFOLLOW, O_NONBLOCK and O_NOCTTY are added. Fault: "open", EPERM and a
  /// reason for a file that is refused.
  [[nodiscard]] std::variant<unique_fd, os_fault> open_file(
      const std::string& name, int flags, const file_owners& owners = {}) const;
  /// A file that does not exist yet; `mode` is less the umask. Fault: "open".
  [[nodiscard]] std::variant<unique_fd, os_fault> create_file(
      const std::string& name, int flags, mode_t mode) const;
  /// The one or the other.
  [[nodiscard]] std::variant<unique_fd, os_fault> open_or_create(
      const std::string& name, int flags, mode_t mode,
      const file_owners& owners = {}) const;

  /// Whether there is anything of that name, a link to nothing included.
  [[nodiscard]] bool has(const std::string& name) const;
  /// Whether `name` is this open file.
  [[nodiscard]] bool is(const std::string& name, int file) const;
  /// 0 or errno. Neither follows a link, remove() removes no folder.
  [[nodiscard]] int rename(const std::string& from,
                           const std::string& to) const;
  [[nodiscard]] int remove(const std::string& name) const;
  /// All there is, unsorted; empty where that cannot be read.
  [[nodiscard]] std::vector<std::string> names() const;

private:
  friend class path_walk;
  trusted_folder() = default;

  unique_fd fd_;
  std::string path_;
  std::string shared_by_;  // "others may write to /tmp (uid 0, mode 1777)"
  std::optional<uid_t> caller_;
  bool kernel_links_ = false;  // what locate() found here is a link of /proc
};

/// One name in a folder.
struct located_file {
  trusted_folder folder;
  std::string name;  ///< no link when it was looked at; may not exist
};

/// The folder that a file stands in, or would stand in. Links are followed as
/// the rules say; `last`: that of the file's own name, too. Fault: "open".
std::variant<located_file, os_fault> locate(const std::string& path,
                                            const path_rule& rule = {},
                                            bool last = true);

/// What is wrong, without the remedy that to_string() tells as well.
std::string problem_of(const os_fault& fault);

}  // namespace pup
