// Where a supervisor keeps its files, who runs there, and which one is meant.
//
// A supervisor NAME owns the folder NAME under runtime_parent():
//
//   lock          locked (open file description lock) while it runs; its only
//                 job is to be locked, and it is never removed: two starters
//                 could otherwise lock two different files of the same name
//   supervisor    who runs: pid, version, start time, configuration
//   control.sock  the socket that commands connect to (ipc.hpp)
//   status.sock   that for readers, if there are any (status_door.hpp)
//
// It owns the folder NAME under state_parent() as well, with a lock of its own:
// whoever removes the runtime folder, as logout does, removes a lock that is
// held, and the next one to be made is another. Two of a name on one state
// folder are impossible as long as that is not removed, too.
//
// A supervisor runs exactly when its lock is held: the kernel frees it however
// the process ends, so files left behind by a kill -9 never mislead. Asking is
// done with F_OFD_GETLK, which takes nothing: a command that looks around
// cannot make a supervisor fail that starts at the same moment.
//
// Folders are created with mode 0700 (/run/pup and /var/lib/pup with 0755, as
// services of others have folders there, see service.hpp) and used through
// descriptors that were checked, so nobody can exchange one between the check
// and the use. No CAF, no global environment; every function may be called from
// any thread.
#pragma once

#include "pup/runtime/config_file.hpp"
#include "pup/runtime/fd.hpp"

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <sys/types.h>

namespace pup {

/// Longest path of a Unix socket in bytes, without the final zero:
/// sizeof(sockaddr_un::sun_path) is 108 on Linux, unix(7).
inline constexpr std::size_t socket_path_bytes = 107;

/// Longest name of a supervisor.
inline constexpr std::size_t name_length = 64;
/// Whether a name may hold it: A-Za-z0-9@._-
bool is_of_names(char c);
/// Whether a supervisor may have this name: 1 to 64 of these, not . or .., so
/// that it names a folder.
bool usable_name(const std::string& name);
/// What to say of one that is not.
std::string name_fault(const std::string& name);

/// What decides where files are.
struct environment {
  /// Value of an environment variable; empty values count as unset.
  std::function<std::optional<std::string>(const std::string& name)> variable;
  /// Effective user id; 0 is root.
  uid_t user = 0;
};

/// That of this process. getenv() is not safe beside setenv(): call it before
/// threads that change the environment.
environment process_environment();

/// Parent of all runtime folders: PUP_RUNTIME_DIR, else /run/pup for root, else
/// $XDG_RUNTIME_DIR/pup, else /tmp/pup-UID. Relative XDG folders are ignored,
/// as their specification demands.
std::string runtime_parent(const environment& env);

/// Parent of all state folders: PUP_STATE_DIR, else /var/lib/pup for root, else
/// $XDG_STATE_HOME/pup, else $HOME/.local/state/pup. Empty when none is set.
std::optional<std::string> state_parent(const environment& env);

/// The door for readers within the runtime folder of one supervisor.
std::string status_path(const std::string& runtime_folder);

/// The log store within the state folder of one supervisor.
std::string log_folder(const std::string& state_folder);

enum class place_errc {
  already_running,  ///< another process holds the lock of this name
  refused,          ///< symbolic link, foreign owner, writable by others
  too_long,         ///< the socket would not fit socket_path_bytes
  invalid,          ///< unusable name or relative folder
  system,           ///< a system call failed
};

struct place_error {
  place_errc code = place_errc::system;
  /// One line: object, what is wrong, what to do.
  std::string text;
  /// Of already_running: the process id, 0 while that supervisor starts.
  pid_t pid = 0;
};

/// What a supervisor tells about itself.
struct start_facts {
  /// Absolute path of the configuration, as it was written; empty without a
  /// file.
  std::string config;
  std::string version;
  std::chrono::system_clock::time_point started;
  /// Under which other paths it is known: those of configurations it was
  /// started from or has applied before, and what links in a path led to.
  std::vector<std::string> known{};
};

/// Another configuration is what runs: the former one's paths are known.
/// `resolved`: where its links lead, as canonical() says.
void change_config(start_facts& facts, const std::string& config,
                   const std::string& resolved);

/// The text that tells of them, and the paths that are known by such a text.
std::string text_of(const start_facts& facts);
std::vector<std::string> known_paths(const std::string& text);

/// The locks of a place: duplicates of those that a predecessor took, or none.
struct place_locks {
  unique_fd runtime{};
  unique_fd state{};
};

/// What becomes of a supervisor that the machine gives no folder: a read-only
/// disk, no HOME, nowhere to write. One that others may write to, or that is
/// somebody else's, is refused either way.
enum class without_folder {
  fails,    ///< it does not start
  goes_on,  ///< it has no state folder, or cannot be reached until open_again()
};

/// The folders of one running supervisor: holds the locks as long as it lives.
/// Destruction removes the socket and the facts; the lock files stay. A lock
/// belongs to its descriptor, which is close-on-exec: children that are exec'ed
/// do not keep it.
class place {
public:
  place(place&&) noexcept = default;
  place& operator=(place&& other) noexcept;
  ~place();

  [[nodiscard]] const std::string& name() const noexcept {
    return name_;
  }
  [[nodiscard]] const std::string& folder() const noexcept {
    return folder_;
  }
  /// Empty: there is none, as state_fault() says.
  [[nodiscard]] const std::string& state_folder() const noexcept {
    return state_folder_;
  }
  /// Why there is no state folder. Empty: there is one.
  [[nodiscard]] const std::string& state_fault() const noexcept {
    return state_fault_;
  }
  [[nodiscard]] std::string socket_path() const;
  /// The locks as descriptors: as long as a duplicate is open anywhere nobody
  /// else gets the place. Borrowed; -1: there is none, see is_open() and
  /// lock_state().
  [[nodiscard]] int lock() const noexcept {
    return lock_.get();
  }
  [[nodiscard]] int state_lock() const noexcept {
    return state_lock_.get();
  }
  /// Of the door for readers (status_door.hpp).
  [[nodiscard]] std::string status_path() const;
  /// Whether the runtime folder is where it belongs, with the lock and the
  /// facts that were put there.
  [[nodiscard]] bool is_open() const;
  /// Makes the runtime folder anew, and takes its lock, as open_place() does.
  /// Of sockets that are still there it removes the names.
  std::optional<place_error> open_again(const start_facts& facts);
  /// Lets a group enter the folder, to get at the door for readers; without one
  /// nobody.
  std::optional<place_error> admit(std::optional<gid_t> readers) const;
  /// Leaves the files to whoever has a duplicate of the locks.
  void disown() noexcept {
    lock_.reset();
    state_lock_.reset();
  }
  /// Tells everybody who looks that these are the facts by now.
  std::optional<place_error> tell(const start_facts& facts) const;
  /// Names this place and no other on the machine, the same as long as the lock
  /// file of its state exists: device and inode of that. Empty: it has no lock.
  [[nodiscard]] std::string mark() const;

private:
  friend std::variant<place, place_error> open_place(const std::string&,
                                                     const environment&,
                                                     const start_facts&,
                                                     place_locks,
                                                     without_folder);
  place() = default;
  std::optional<place_error> open_state(unique_fd taken, without_folder rule);
  std::optional<place_error> open_folder_of(const start_facts& facts,
                                            unique_fd taken);
  void describe(const start_facts& facts) const;
  void leave() noexcept;

  std::string name_;
  environment env_;
  std::string folder_;
  std::string state_folder_;
  std::string state_fault_;
  unique_fd folder_fd_;
  unique_fd lock_;
  unique_fd state_lock_;
};

/// Makes and checks the folders, takes the locks, clears what a killed
/// predecessor left and writes the facts. `name` is 1-64 of A-Za-z0-9@._- and
/// neither "." nor "..". With `taken` it goes on for a predecessor: then a
/// runtime folder that has gone and cannot be made now is no error; is_open()
/// is false until open_again() succeeds.
std::variant<place, place_error> open_place(
    const std::string& name, const environment& env, const start_facts& facts,
    place_locks taken = {}, without_folder rule = without_folder::fails);

/// Takes the lock of a state folder that exists, see place. An empty
/// descriptor: the file system has no locks. already_running: somebody else has
/// it, `name` is what that is called in the text.
std::variant<unique_fd, place_error> lock_state(const std::string& folder,
                                                const std::string& name);

/// A running supervisor as seen from outside.
struct running {
  std::string name;
  /// 0 and no config: it has the lock but has not written its facts yet.
  pid_t pid = 0;
  std::string config;
  std::string version;
  std::chrono::system_clock::time_point started;
  std::string folder;
  std::string socket;
  std::vector<std::string> known{};  ///< as in start_facts
  std::string resolved{};  ///< where `config` leads now; empty: nowhere

  bool operator==(const running&) const = default;
};

/// The supervisors of this user, for root those of everybody in these folders,
/// by name. Folders of other users, links and broken entries are skipped.
/// Starting supervisors are not disturbed.
std::vector<running> discover(const environment& env);

/// Who has the state folder of this name, though nobody may find it: its
/// runtime folder, `folder`, was removed or has another parent. None:
/// nobody has it, or it does not say.
std::optional<running> holder_of_state(const std::string& name,
                                       const environment& env);

/// A place whose supervisor was killed, and whose guardian as well: nobody has
/// it, and nobody has cleared it.
struct abandoned_place {
  std::string name;
  std::string state_folder;
  std::string config;  ///< as in start_facts
  std::string mark;    ///< see place::mark()
};

/// Those of this user, by name.
std::vector<abandoned_place> abandoned_places(const environment& env);

/// What the command line says about the supervisor it means.
struct wanted_supervisor {
  std::optional<std::string> name;    ///< --name
  std::optional<config_file> config;  ///< --config, or the file to apply
  std::string folder;                 ///< working folder, as it is written
  std::optional<std::string> id;      ///< the process the command is about
  /// The configuration in the working folder; none: there is none.
  std::optional<config_file> here{};
};

struct none_running {
  bool operator==(const none_running&) const = default;
};
/// Others do, but not the one whose configuration is in the working folder.
struct not_running_here {
  config_file config;
};
struct ambiguous {
  std::vector<running> candidates;  ///< at least two, by name
};
using choice = std::variant<running, none_running, not_running_here, ambiguous>;

/// Those of `all` that a file means: the one of the name it gives; else those
/// that were started from it or have applied it, by its path as it is written,
/// else by where that leads. A file without a name means that of its default
/// name as well, where that was started from the same folder. Pure.
std::vector<running> meant_by(const std::vector<running>& all,
                              const config_file& file);

/// Which of `all` is meant: the one of --name or --config; else the one started
/// from a config in this folder; else the one that the config in this folder
/// means, or none where that does not run; else the only one; else the one that
/// has the id. `has_id` may ask a supervisor; it is called only when nothing
/// else decides. Where several stand in this folder, the id decides among them
/// first. Asks the file system where the working folder leads, else pure.
choice choose(
    const std::vector<running>& all, const wanted_supervisor& wanted,
    const std::function<bool(const running&, const std::string& id)>& has_id);

}  // namespace pup
