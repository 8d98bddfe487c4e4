#include "pup/runtime/place.hpp"

#include "pup/config/paths.hpp"
#include "pup/runtime/last_words.hpp"
#include "pup/runtime/machine.hpp"
#include "pup/runtime/trusted_path.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string_view>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

constexpr auto lock_name = "lock";
constexpr auto facts_name = "supervisor";
constexpr auto facts_draft_name = "supervisor.new";
constexpr auto socket_name = "control.sock";
constexpr auto status_name = "status.sock";
// Of root's supervisors.
constexpr auto runtime_of_machine = "/run/pup";
constexpr auto state_of_machine = "/var/lib/pup";
/// Some paths of PATH_MAX bytes with every byte escaped, and the short lines.
constexpr std::size_t facts_bytes = 64 * 1024;
/// Of them the newest: of a path that nobody has used for so long nobody knows.
constexpr std::size_t most_known = 16;
constexpr std::size_t known_bytes = 32 * 1024;

struct checked_folder {
  unique_fd fd;
  std::string path;
};

std::optional<std::string> value_of(const environment& env,
                                    const std::string& name) {
  auto value = env.variable(name);
  if (value && value->empty())
    value.reset();
  return value;
}

std::optional<std::string> absolute_of(const environment& env,
                                       const std::string& name) {
  auto value = value_of(env, name);
  if (value && value->front() != '/')
    value.reset();
  return value;
}

}  // namespace

bool usable_name(const std::string& name) {
  return !name.empty() && name.size() <= name_length && name != "."
         && name != ".." && std::all_of(name.begin(), name.end(), is_of_names);
}

std::string name_fault(const std::string& name) {
  return '\'' + name
         + "' names no supervisor; use 1 to 64 of A-Za-z0-9@._-, not . or ..";
}

namespace {

place_error failed(const std::string& object, const char* what, int error) {
  return {place_errc::system,
          object + ": cannot " + what + ": " + std::strerror(error)
              + remedy_of(error),
          0};
}

/// Of a folder that `variable` can put elsewhere.
place_error failed(const std::string& object, const char* what, int error,
                   const std::string& variable) {
  auto result = failed(object, what, error);
  result.text += "; set " + variable + " to a folder of your own";
  return result;
}

place_error refused(const std::string& object, const std::string& why,
                    const std::string& remedy) {
  return {place_errc::refused, object + ": " + why + "; " + remedy, 0};
}

// A trailing slash would make O_NOFOLLOW follow the link before it.
std::string without_trailing_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/')
    path.pop_back();
  return path;
}

constexpr int folder_flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

place_error open_folder_error(const std::string& path, int error,
                              const std::string& variable) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode))
    return refused(path, "is a symbolic link",
                   "remove it or set " + variable + " to a real folder");
  return failed(path, "open the folder", error, variable);
}

/// The folder that a parent of ours stands in, made where it is missing.
std::variant<trusted_folder, place_error> folder_above(
    const std::string& path, const std::string& variable) {
  const auto above = std::filesystem::path{path}.parent_path().string();
  auto opened = trusted_folder::open(above, {0700, {}});
  const auto* fault = std::get_if<os_fault>(&opened);
  if (fault == nullptr)
    return std::get<trusted_folder>(std::move(opened));
  if (!fault->why.empty())
    return refused(path, problem_of(*fault),
                   "set " + variable + " to a folder of your own");
  return failed(above, "create the folder", fault->code, variable);
}

/// Both are checked after they are opened.
std::variant<checked_folder, place_error> make_parent(
    const std::string& path, const std::string& variable) {
  auto found = folder_above(path, variable);
  if (auto* error = std::get_if<place_error>(&found))
    return std::move(*error);
  const auto& above = std::get<trusted_folder>(found);
  const auto name = path == "/"
                        ? std::string{"."}
                        : std::filesystem::path{path}.filename().string();
  const mode_t mode =
      path == runtime_of_machine || path == state_of_machine ? 0755 : 0700;
  if (::mkdirat(above.fd(), name.c_str(), mode) != 0 && errno != EEXIST)
    return failed(path, "create the folder", errno, variable);
  checked_folder result{
      unique_fd{::openat(above.fd(), name.c_str(), folder_flags)}, path};
  if (!result.fd)
    return open_folder_error(path, errno, variable);
  return result;
}

enum class owners { me, me_or_root };

std::optional<place_error> check_folder(const checked_folder& x, owners allowed,
                                        const environment& env,
                                        const std::string& variable) {
  struct stat info {};
  if (::fstat(x.fd.get(), &info) != 0)
    return failed(x.path, "inspect", errno);
  auto mine = info.st_uid == env.user
              || (allowed == owners::me_or_root && info.st_uid == 0);
  if (!mine)
    return refused(x.path,
                   "belongs to uid " + std::to_string(info.st_uid)
                       + ", not to uid " + std::to_string(env.user),
                   "set " + variable + " to a folder of your own");
  // In a sticky folder such as /tmp nobody can replace our entry.
  auto sticky_parent =
      allowed == owners::me_or_root && (info.st_mode & S_ISVTX) != 0;
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0 && !sticky_parent)
    return refused(
        x.path, "is writable by other users",
        "run chmod 700 on it or set " + variable + " to a folder of your own");
  return std::nullopt;
}

place_error relative_parent(const std::string& path,
                            const std::string& variable) {
  return {
      place_errc::invalid,
      path + ": is a relative path; set " + variable + " to an absolute one",
      0};
}

std::variant<checked_folder, place_error> open_folder(
    const std::string& parent_path, const std::string& name,
    const environment& env, const std::string& variable) {
  if (parent_path.front() != '/')
    return relative_parent(parent_path, variable);
  auto made = make_parent(parent_path, variable);
  if (auto* error = std::get_if<place_error>(&made))
    return std::move(*error);
  const auto parent = std::move(std::get<checked_folder>(made));
  if (auto error = check_folder(parent, owners::me_or_root, env, variable))
    return *error;
  auto path = parent_path == "/" ? "/" + name : parent_path + "/" + name;
  if (::mkdirat(parent.fd.get(), name.c_str(), 0700) != 0 && errno != EEXIST)
    return failed(path, "create the folder", errno, variable);
  checked_folder result{
      unique_fd{::openat(parent.fd.get(), name.c_str(), folder_flags)}, path};
  if (!result.fd)
    return open_folder_error(path, errno, variable);
  if (auto error = check_folder(result, owners::me, env, variable))
    return *error;
  return result;
}

/// Whole-file lock request; l_pid must be 0 for open file description locks.
struct flock whole_file() {
  struct flock request {};
  request.l_type = F_WRLCK;
  request.l_whence = SEEK_SET;
  return request;
}

// ---- facts: lines "key value"; bytes that would break a line become %XX

std::string escaped(const std::string& text) {
  constexpr auto hex = "0123456789ABCDEF";
  std::string result;
  for (auto c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || c == '%') {
      result += '%';
      result += hex[byte >> 4];
      result += hex[byte & 15];
    } else {
      result += c;
    }
  }
  return result;
}

std::string unescaped(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    auto last = text.data() + std::min(i + 3, text.size());
    if (text[i] == '%'
        && std::from_chars(text.data() + i + 1, last, byte, 16).ptr
               == text.data() + i + 3) {
      result += static_cast<char>(byte);
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

template <class Integer>
Integer number(std::string_view text) {
  Integer result{};
  auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), result);
  return error == std::errc{} && end == text.data() + text.size() ? result
                                                                  : Integer{};
}

void read_facts(std::string_view text, running& out) {
  while (!text.empty()) {
    auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    auto space = line.find(' ');
    if (space == std::string_view::npos)
      continue;
    auto key = line.substr(0, space);
    auto value = line.substr(space + 1);
    if (key == "pid")
      out.pid = number<pid_t>(value);
    else if (key == "version")
      out.version = unescaped(value);
    else if (key == "started-ms")
      out.started = std::chrono::system_clock::time_point{
          std::chrono::milliseconds{number<std::int64_t>(value)}};
    else if (key == "config")
      out.config = unescaped(value);
    else if (key == "folder")
      out.folder = unescaped(value);
    else if (key == "known")
      out.known.push_back(unescaped(value));
  }
}

// O_NONBLOCK: opening a FIFO that somebody put there must not wait.
unique_fd open_regular(int folder_fd, const char* name) {
  unique_fd fd{::openat(folder_fd, name,
                        O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)};
  struct stat info {};
  if (fd && (::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)))
    fd.reset();
  return fd;
}

std::string small_file(int folder_fd, const char* name) {
  std::string text;
  auto fd = open_regular(folder_fd, name);
  char buffer[4096];
  while (fd && text.size() < facts_bytes) {
    auto got = ::read(fd.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      break;
    text.append(buffer, static_cast<std::size_t>(got));
  }
  return text;
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    auto put = ::write(fd, text.data(), text.size());
    if (put < 0 && errno == EINTR)
      continue;
    if (put < 0)
      return false;
    text.remove_prefix(static_cast<std::size_t>(put));
  }
  return true;
}

/// Readers see the old file or the whole new one. No fsync: the file means
/// nothing after a power failure, since no lock is held then.
std::optional<place_error> write_facts(int folder_fd, const std::string& folder,
                                       const start_facts& facts) {
  unique_fd draft{
      ::openat(folder_fd, facts_draft_name,
               O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600)};
  if (!draft || !write_all(draft.get(), text_of(facts))
      || ::renameat(folder_fd, facts_draft_name, folder_fd, facts_name) != 0)
    return failed(folder + "/" + facts_name, "write", errno);
  return std::nullopt;
}

std::variant<unique_fd, place_error> open_lock(int folder_fd,
                                               const std::string& folder) {
  unique_fd fd{::openat(folder_fd, lock_name,
                        O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
                        0600)};
  if (!fd)
    return failed(folder + "/" + lock_name, "open", errno);
  return fd;
}

place_error already_runs(const std::string& name, pid_t pid) {
  return {place_errc::already_running,
          "supervisor " + name + ": "
              + (pid > 0 ? "is already running as pid " + std::to_string(pid)
                         : std::string{"is already starting"})
              + "; choose another name or stop it with pup terminate --name "
              + name,
          pid};
}

std::variant<unique_fd, place_error> take_lock(const checked_folder& where,
                                               const std::string& name) {
  auto opened = open_lock(where.fd.get(), where.path);
  const auto* fd = std::get_if<unique_fd>(&opened);
  if (fd == nullptr)
    return opened;
  auto request = whole_file();
  if (::fcntl(fd->get(), F_OFD_SETLK, &request) == 0)
    return opened;
  if (errno != EAGAIN && errno != EACCES)
    return failed(where.path + "/" + lock_name, "lock", errno);
  running holder;
  read_facts(small_file(where.fd.get(), facts_name), holder);
  return already_runs(name, holder.pid);
}

/// Whether two descriptors, or a descriptor and a name in a folder, are one
/// file.
bool same_file(int fd, int folder_fd, const char* name) {
  struct stat a {};
  struct stat b {};
  return ::fstat(fd, &a) == 0
         && ::fstatat(folder_fd, name, &b, AT_SYMLINK_NOFOLLOW) == 0
         && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

bool locked_by_someone(int lock_fd) {
  auto request = whole_file();
  return ::fcntl(lock_fd, F_OFD_GETLK, &request) == 0
         && request.l_type != F_UNLCK;
}

std::optional<running> look_into(int parent_fd, const std::string& parent,
                                 const std::string& name,
                                 const environment& env) {
  unique_fd fd{::openat(parent_fd, name.c_str(), folder_flags)};
  struct stat info {};
  // Root may command everybody's.
  if (!fd || ::fstat(fd.get(), &info) != 0
      || (info.st_uid != env.user && env.user != 0)
      || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return std::nullopt;
  auto lock = open_regular(fd.get(), lock_name);
  if (!lock || !locked_by_someone(lock.get()))
    return std::nullopt;
  running result;
  result.name = name;
  result.folder = parent + "/" + name;
  result.socket = result.folder + "/" + socket_name;
  read_facts(small_file(fd.get(), facts_name), result);
  if (!result.config.empty())
    result.resolved = canonical(result.config);
  return result;
}

/// Names a place by its lock.
std::string mark_of(int lock_fd) {
  struct stat info {};
  if (::fstat(lock_fd, &info) != 0)
    return {};
  return std::to_string(info.st_dev) + '-' + std::to_string(info.st_ino);
}

std::optional<abandoned_place> look_whether_abandoned(int parent_fd,
                                                      const std::string& parent,
                                                      const std::string& name,
                                                      const environment& env) {
  const unique_fd fd{::openat(parent_fd, name.c_str(), folder_flags)};
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0 || info.st_uid != env.user
      || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return std::nullopt;
  const auto lock = open_regular(fd.get(), lock_name);
  auto request = whole_file();
  // Where there are no locks nobody knows.
  if (!lock || ::fcntl(lock.get(), F_OFD_GETLK, &request) != 0
      || request.l_type != F_UNLCK)
    return std::nullopt;
  running former;
  read_facts(small_file(fd.get(), lock_name), former);
  if (former.pid <= 0)  // it has ended in order
    return std::nullopt;
  return abandoned_place{name, parent + '/' + name, former.config,
                         mark_of(lock.get())};
}

/// What `look` finds in the folders of a parent whose names are usable, by
/// name.
template <class T, class Look>
std::vector<T> in_each_folder(const std::string& parent, const Look& look) {
  std::vector<T> result;
  unique_fd fd{::open(parent.c_str(), folder_flags)};
  if (!fd)
    return result;
  struct closer {
    void operator()(DIR* x) const noexcept {
      ::closedir(x);
    }
  };
  std::unique_ptr<DIR, closer> entries{::fdopendir(fd.get())};
  if (!entries)
    return result;
  const auto parent_fd = fd.release();  // now owned by entries
  while (const auto* entry = ::readdir(entries.get())) {
    const std::string name{entry->d_name};
    if (!usable_name(name))
      continue;
    if (auto found = look(parent_fd, name))
      result.push_back(std::move(*found));
  }
  std::sort(result.begin(), result.end(),
            [](const T& a, const T& b) { return a.name < b.name; });
  return result;
}

std::vector<running> only(const std::vector<running>& all,
                          const std::function<bool(const running&)>& keep) {
  std::vector<running> result;
  std::copy_if(all.begin(), all.end(), std::back_inserter(result), keep);
  return result;
}

choice one_or_list(std::vector<running> candidates) {
  if (candidates.empty())
    return none_running{};
  if (candidates.size() == 1)
    return std::move(candidates.front());
  return ambiguous{std::move(candidates)};
}

/// Whether two folders, absolute and perhaps by way of links, are one.
bool same_folder(const std::string& a, const std::string& b) {
  if (a == b)
    return true;
  const auto leads_to = canonical(a);
  return !leads_to.empty() && leads_to == canonical(b);
}

bool started_in(const running& x, const std::string& folder) {
  return !x.config.empty() && same_folder(folder_of(x.config), folder);
}

bool knows(const running& x, const std::string& path) {
  return std::find(x.known.begin(), x.known.end(), path) != x.known.end();
}

}  // namespace

bool is_of_names(char c) {
  constexpr std::string_view allowed =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
      "abcdefghijklmnopqrstuvwxyz"
      "0123456789@._-";
  return allowed.find(c) != std::string_view::npos;
}

void change_config(start_facts& facts, const std::string& config,
                   const std::string& resolved) {
  auto& known = facts.known;
  for (const auto& path : {facts.config, resolved}) {
    known.erase(std::remove(known.begin(), known.end(), path), known.end());
    if (!path.empty() && path != config)
      known.insert(known.begin(), path);
  }
  known.resize(std::min(known.size(), most_known));
  facts.config = config;
}

std::string text_of(const start_facts& facts) {
  auto since = std::chrono::duration_cast<std::chrono::milliseconds>(
      facts.started.time_since_epoch());
  std::string known;
  for (const auto& x : facts.known)
    if (auto line = "known " + escaped(x) + '\n';
        known.size() + line.size() <= known_bytes)
      known += line;
  return "pid " + std::to_string(::getpid()) + "\nversion "
         + escaped(facts.version) + "\nstarted-ms "
         + std::to_string(since.count()) + "\nconfig " + escaped(facts.config)
         + "\n" + known;
}

std::vector<std::string> known_paths(const std::string& text) {
  running x;
  read_facts(text, x);
  return std::move(x.known);
}

environment process_environment() {
  return {[](const std::string& name) -> std::optional<std::string> {
            auto value = std::getenv(name.c_str());
            return value ? std::optional<std::string>{value} : std::nullopt;
          },
          ::geteuid()};
}

std::string runtime_parent(const environment& env) {
  if (auto own = value_of(env, "PUP_RUNTIME_DIR"))
    return without_trailing_slashes(*own);
  if (env.user == 0)
    return runtime_of_machine;
  if (auto xdg = absolute_of(env, "XDG_RUNTIME_DIR"))
    return without_trailing_slashes(*xdg) + "/pup";
  return "/tmp/pup-" + std::to_string(env.user);
}

std::optional<std::string> state_parent(const environment& env) {
  if (auto own = value_of(env, "PUP_STATE_DIR"))
    return without_trailing_slashes(*own);
  if (env.user == 0)
    return state_of_machine;
  if (auto xdg = absolute_of(env, "XDG_STATE_HOME"))
    return without_trailing_slashes(*xdg) + "/pup";
  if (auto home = absolute_of(env, "HOME"))
    return without_trailing_slashes(*home) + "/.local/state/pup";
  return std::nullopt;
}

std::string status_path(const std::string& runtime_folder) {
  return runtime_folder + "/" + status_name;
}

std::string log_folder(const std::string& state_folder) {
  return state_folder + "/log";
}

namespace {

/// Why the state folder is somebody else's: a supervisor that can be reached,
/// or one that cannot, and by what it would be.
place_error state_taken(const std::string& name, const std::string& state,
                        const std::string& runtime_folder,
                        const running& holder, const environment& env) {
  for (const auto& x : discover(env))
    if (x.name == name)
      return already_runs(name, x.pid);
  if (holder.pid <= 0)
    return already_runs(name, 0);
  const auto pid = std::to_string(holder.pid);
  auto text = "supervisor " + name + ": is already running as pid " + pid
              + " on " + state;
  if (holder.folder == runtime_folder)
    text += ", but cannot be reached: its runtime folder " + runtime_folder
            + " was removed; it makes that anew as soon as "
            + folder_of(runtime_folder) + " can be written to, or ends by kill "
            + pid;
  else
    text += " and is reached in " + holder.folder + "; set PUP_RUNTIME_DIR to "
            + folder_of(holder.folder)
            + " to command it, or choose another name";
  return {place_errc::already_running, std::move(text), holder.pid};
}

std::variant<unique_fd, running, place_error> try_lock_state(
    int where, const std::string& path) {
  auto opened = open_lock(where, path);
  if (auto* error = std::get_if<place_error>(&opened))
    return std::move(*error);
  auto& fd = std::get<unique_fd>(opened);
  auto request = whole_file();
  if (::fcntl(fd.get(), F_OFD_SETLK, &request) == 0)
    return std::move(fd);
  if (errno == EAGAIN || errno == EACCES) {
    running holder;
    read_facts(small_file(where, lock_name), holder);
    return holder;
  }
  // Of a file system without locks: the runtime folder's must do.
  return unique_fd{};
}

}  // namespace

std::variant<unique_fd, place_error> lock_state(const std::string& folder,
                                                const std::string& name) {
  const auto opened = trusted_folder::open(folder);
  if (const auto* fault = std::get_if<os_fault>(&opened))
    return place_error{place_errc::system,
                       folder + ": cannot be opened: " + reason_of(*fault), 0};
  auto tried = try_lock_state(std::get<trusted_folder>(opened).fd(), folder);
  if (auto* fd = std::get_if<unique_fd>(&tried))
    return std::move(*fd);
  if (auto* error = std::get_if<place_error>(&tried))
    return std::move(*error);
  const auto pid = std::get<running>(tried).pid;
  return place_error{place_errc::already_running,
                     "supervisor " + name + ": " + folder
                         + " is used by another one"
                         + (pid > 0 ? ", pid " + std::to_string(pid) : "")
                         + "; give each a state folder of its own",
                     pid};
}

std::variant<place, place_error> open_place(const std::string& name,
                                            const environment& env,
                                            const start_facts& facts,
                                            place_locks taken,
                                            without_folder rule) {
  if (!usable_name(name))
    return place_error{place_errc::invalid,
                       "supervisor name \"" + escaped(name)
                         + "\": cannot name a folder; use 1 to 64 of "
                           "A-Za-z0-9@._-, not . or ..",
                       0};
  const auto parent = runtime_parent(env);
  place result;
  result.name_ = name;
  result.env_ = env;
  result.folder_ = parent == "/" ? "/" + name : parent + "/" + name;
  if (auto path = result.socket_path(); path.size() > socket_path_bytes)
    return place_error{place_errc::too_long,
                       path + ": is longer than the "
                         + std::to_string(socket_path_bytes)
                         + " bytes of a Unix socket; set PUP_RUNTIME_DIR to a "
                           "shorter folder",
                       0};
  if (parent.front() != '/')
    return relative_parent(parent, "PUP_RUNTIME_DIR");
  const auto follows = taken.runtime || taken.state;
  // This one first: who is refused has made no runtime folder that another one
  // has lost.
  if (auto error = result.open_state(std::move(taken.state), rule))
    return std::move(*error);
  auto error = result.open_folder_of(facts, std::move(taken.runtime));
  const auto forgiven = follows
                        || (rule == without_folder::goes_on && error
                            && error->code == place_errc::system);
  if (error && !forgiven)
    return std::move(*error);
  return result;
}

std::optional<place_error> place::open_state(unique_fd taken,
                                             without_folder rule) {
  const auto without = [&](place_error error) -> std::optional<place_error> {
    if (rule == without_folder::fails)
      return error;
    state_folder_.clear();
    state_fault_ = std::move(error.text);
    return std::nullopt;
  };
  const auto parent = state_parent(env_);
  if (!parent)
    return without({place_errc::invalid,
                    "state folder: none of PUP_STATE_DIR, XDG_STATE_HOME and "
                    "HOME is set; set PUP_STATE_DIR",
                    0});
  auto kept = open_folder(*parent, name_, env_, "PUP_STATE_DIR");
  if (auto* error = std::get_if<place_error>(&kept))
    return error->code == place_errc::system ? without(std::move(*error))
                                             : std::move(*error);
  const auto& where = std::get<checked_folder>(kept);
  state_folder_ = where.path;
  state_lock_ = std::move(taken);
  if (state_lock_)
    return std::nullopt;
  auto tried = try_lock_state(where.fd.get(), state_folder_);
  if (const auto* holder = std::get_if<running>(&tried))
    return state_taken(name_, state_folder_, folder_, *holder, env_);
  if (auto* error = std::get_if<place_error>(&tried)) {
    error->text += "; set PUP_STATE_DIR to a folder that can be written to";
    return without(std::move(*error));
  }
  state_lock_ = std::move(std::get<unique_fd>(tried));
  return std::nullopt;
}

std::optional<place_error> place::open_folder_of(const start_facts& facts,
                                                 unique_fd taken) {
  describe(facts);
  auto opened = open_folder(folder_of(folder_), name_, env_, "PUP_RUNTIME_DIR");
  if (auto error = std::get_if<place_error>(&opened))
    return std::move(*error);
  auto& where = std::get<checked_folder>(opened);
  // One that was removed keeps nobody out of the one that is there now.
  if (!taken || !same_file(taken.get(), where.fd.get(), lock_name)) {
    auto lock = take_lock(where, name_);
    if (auto error = std::get_if<place_error>(&lock))
      return std::move(*error);
    taken = std::move(std::get<unique_fd>(lock));
  }
  // From here a killed predecessor's files are ours to clear.
  for (const auto* left : {socket_name, status_name, facts_name})
    ::unlinkat(where.fd.get(), left, 0);
  if (auto error = write_facts(where.fd.get(), where.path, facts))
    return error;
  lock_ = std::move(taken);
  folder_fd_ = std::move(where.fd);
  return std::nullopt;
}

std::optional<place_error> place::open_again(const start_facts& facts) {
  unique_fd lock{lock_ ? ::fcntl(lock_.get(), F_DUPFD_CLOEXEC, 0) : -1};
  return open_folder_of(facts, std::move(lock));
}

bool place::is_open() const {
  if (!folder_fd_ || !lock_)
    return false;
  struct stat facts {};
  return same_file(folder_fd_.get(), AT_FDCWD, folder_.c_str())
         && same_file(lock_.get(), folder_fd_.get(), lock_name)
         && ::fstatat(folder_fd_.get(), facts_name, &facts, 0) == 0;
}

/// In the lock of the state, for those that it keeps out.
void place::describe(const start_facts& facts) const {
  if (!state_lock_)
    return;
  const auto text = "folder " + escaped(folder_) + '\n' + text_of(facts);
  if (::ftruncate(state_lock_.get(), 0) != 0
      || ::pwrite(state_lock_.get(), text.data(), text.size(), 0) < 0)
    return;  // they are told less
}

place& place::operator=(place&& other) noexcept {
  if (this != &other) {
    leave();
    name_ = std::move(other.name_);
    env_ = std::move(other.env_);
    folder_ = std::move(other.folder_);
    state_folder_ = std::move(other.state_folder_);
    state_fault_ = std::move(other.state_fault_);
    folder_fd_ = std::move(other.folder_fd_);
    lock_ = std::move(other.lock_);
    state_lock_ = std::move(other.state_lock_);
  }
  return *this;
}

place::~place() {
  leave();
}

// The locks go last: whoever gets them next finds nothing of ours.
void place::leave() noexcept {
  if (lock_) {
    ::unlinkat(folder_fd_.get(), socket_name, 0);
    ::unlinkat(folder_fd_.get(), facts_name, 0);
  }
  if (state_lock_)  // of one that has ended it says nothing
      [[maybe_unused]]
    const auto cleared = ::ftruncate(state_lock_.get(), 0);
  lock_.reset();
  state_lock_.reset();
}

std::string place::socket_path() const {
  return folder_ + "/" + socket_name;
}

std::string place::status_path() const {
  return pup::status_path(folder_);
}

// Entering is not listing: names are found by those who know them.
std::optional<place_error> place::admit(std::optional<gid_t> readers) const {
  struct stat info {};
  if (::fstat(folder_fd_.get(), &info) != 0)
    return failed(folder_, "inspect", errno);
  if (!readers) {
    if ((info.st_mode & 0777) == 0710 && ::fchmod(folder_fd_.get(), 0700) != 0)
      return failed(folder_, "close to others", errno);
    return std::nullopt;
  }
  if (::fchown(folder_fd_.get(), static_cast<uid_t>(-1), *readers) != 0
      || ::fchmod(folder_fd_.get(), 0710) != 0)
    return failed(folder_, "open to the group of readers", errno);
  const unique_fd parent{
      ::openat(folder_fd_.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!parent || ::fstat(parent.get(), &info) != 0
      || ((info.st_mode & S_IXOTH) == 0
          && ::fchmod(parent.get(), (info.st_mode & 07777) | S_IXOTH) != 0))
    return failed(folder_ + "/..", "open to readers", errno);
  return std::nullopt;
}

std::optional<place_error> place::tell(const start_facts& facts) const {
  describe(facts);
  return write_facts(folder_fd_.get(), folder_, facts);
}

std::string place::mark() const {
  return mark_of(state_lock_ ? state_lock_.get() : lock_.get());
}

std::vector<running> discover(const environment& env) {
  const auto parent = runtime_parent(env);
  return in_each_folder<running>(
      parent, [&](int parent_fd, const std::string& name) {
        return look_into(parent_fd, parent, name, env);
      });
}

std::vector<abandoned_place> abandoned_places(const environment& env) {
  const auto parent = state_parent(env);
  if (!parent)
    return {};
  return in_each_folder<abandoned_place>(
      *parent, [&](int parent_fd, const std::string& name) {
        return look_whether_abandoned(parent_fd, *parent, name, env);
      });
}

std::optional<running> holder_of_state(const std::string& name,
                                       const environment& env) {
  const auto parent = state_parent(env);
  if (!parent || !usable_name(name))
    return std::nullopt;
  const unique_fd where{::open((*parent + "/" + name).c_str(), folder_flags)};
  struct stat info {};
  // Commands would advise to kill what somebody else has written there.
  if (!where || ::fstat(where.get(), &info) != 0 || info.st_uid != env.user
      || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return std::nullopt;
  const auto lock = open_regular(where.get(), lock_name);
  if (!lock || !locked_by_someone(lock.get()))
    return std::nullopt;
  running result;
  result.name = name;
  read_facts(small_file(where.get(), lock_name), result);
  if (result.pid <= 0 || result.folder.empty())
    return std::nullopt;
  return result;
}

std::vector<running> meant_by(const std::vector<running>& all,
                              const config_file& file) {
  std::vector<running> result;
  if (file.name)
    result = only(all, [&](const running& x) { return x.name == *file.name; });
  using question = std::function<bool(const running&)>;
  const auto resolves = !file.resolved.empty();
  // What runs now counts for more than what has run.
  for (const auto& fits : {
           question{[&](const auto& x) { return x.config == file.written; }},
           question{[&](const auto& x) {
             return resolves
                    && (x.resolved == file.resolved
                        || x.config == file.resolved);
           }},
           question{[&](const auto& x) { return knows(x, file.written); }},
           question{[&](const auto& x) {
             return resolves && knows(x, file.resolved);
           }},
       })
    if (result.empty())
      result = only(all, fits);
  if (result.empty() && !file.name && resolves)
    result = only(all, [&](const running& x) {
      return x.name == file.default_name
             && started_in(x, folder_of(file.written));
    });
  return result;
}

choice choose(
    const std::vector<running>& all, const wanted_supervisor& wanted,
    const std::function<bool(const running&, const std::string& id)>& has_id) {
  if (wanted.name) {
    auto named =
        only(all, [&](const running& x) { return x.name == *wanted.name; });
    if (!wanted.config)
      return one_or_list(std::move(named));
    auto file = *wanted.config;
    file.name.reset();  // --name says another
    return one_or_list(meant_by(named, file));
  }
  if (wanted.config)
    return one_or_list(meant_by(all, *wanted.config));
  auto here = only(all, [&wanted](const running& x) {
    return started_in(x, wanted.folder);
  });
  if (here.empty() && wanted.here && !all.empty()) {
    here = meant_by(all, *wanted.here);
    if (here.empty())
      return not_running_here{*wanted.here};
  }
  const auto& near = here.empty() ? all : here;
  if (near.size() < 2 || !wanted.id)
    return one_or_list(near);
  auto has = [&wanted, &has_id](const running& x) {
    return has_id(x, *wanted.id);
  };
  auto owners = only(near, has);
  if (owners.empty() && near.size() != all.size())
    owners = only(all, has);
  return one_or_list(owners.empty() ? near : owners);
}

}  // namespace pup
