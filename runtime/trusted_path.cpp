#include "pup/runtime/trusted_path.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <deque>
#include <memory>
#include <string_view>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

namespace pup {

namespace {

// path_resolution(7).
constexpr int most_links = 40;
// An open and a create that miss each other because somebody makes and removes
// the file all the time.
constexpr int most_tries = 16;

os_fault failed(std::string path, int code, std::string why = {}) {
  return {"open", std::move(path), code, std::move(why)};
}

std::string below(const std::string& folder, std::string_view name) {
  return (folder == "/" ? folder : folder + '/') + std::string{name};
}

bool is_trusted(uid_t owner, const std::optional<uid_t>& caller) {
  return owner == 0 || owner == ::geteuid() || owner == caller;
}

std::string owner_and_mode(const struct stat& info) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "uid %u, mode %04o",
                static_cast<unsigned>(info.st_uid),
                static_cast<unsigned>(info.st_mode & 07777));
  return text.data();
}

std::string_view kind_of(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFIFO:
      return "a FIFO";
    case S_IFSOCK:
      return "a socket";
    case S_IFLNK:
      return "a symbolic link";
    default:
      return "a device";
  }
}

bool on_proc(int fd) {
  struct statfs info {};
  return ::fstatfs(fd, &info) == 0 && info.f_type == PROC_SUPER_MAGIC;
}

bool on_read_only_mount(int fd) {
  struct statvfs info {};
  return ::fstatvfs(fd, &info) == 0 && (info.f_flag & ST_RDONLY) != 0;
}

std::string name_by_descriptor(int fd) {
  return "/proc/self/fd/" + std::to_string(fd);
}

// With an access list the bits of the group are the most that anybody named
// there may do.
bool has_access_list(int fd) {
  const auto name = name_by_descriptor(fd);
  return ::getxattr(name.c_str(), "system.posix_acl_access", nullptr, 0) >= 0
         || (errno != ENODATA && errno != EOPNOTSUPP);
}

bool others_may_write(int fd, const struct stat& info) {
  const bool group = (info.st_mode & S_IWGRP) != 0
                     && (info.st_gid != info.st_uid || has_access_list(fd));
  return (group || (info.st_mode & S_IWOTH) != 0) && !on_read_only_mount(fd);
}

struct folder_closer {
  void operator()(DIR* folder) const noexcept {
    ::closedir(folder);
  }
};

}  // namespace

/// A path on its way. What is ahead are components, that of links included.
class path_walk {
public:
  explicit path_walk(const path_rule& rule) : rule_(rule) {}

  /// All of `path`; the last component as well if `whole`.
  std::optional<os_fault> run(const std::string& path, bool whole,
                              bool follow_last) {
    asked_ = path;
    if (path.empty())
      return failed(path, ENOENT);
    if (auto fault = begin(path))
      return fault;
    while (!ahead_.empty()) {
      auto name = std::move(ahead_.front());
      ahead_.pop_front();
      const bool at_end = ahead_.empty() && !whole;
      auto fault = name == ".." ? step_up(at_end)
                   : at_end     ? arrive(name, follow_last)
                                : step(name);
      if (fault)
        return fault;
    }
    if (!whole && name_.empty())
      return failed(path, EISDIR);  // "/", or a link to a folder
    return std::nullopt;
  }

  trusted_folder take_folder() {
    trusted_folder result;
    result.fd_ = std::move(at_);
    result.path_ = std::move(here_);
    result.shared_by_ = std::move(shared_by_);
    result.caller_ = rule_.caller;
    result.kernel_links_ = kernel_links_;
    return result;
  }

  std::string take_name() {
    return std::move(name_);
  }

private:
  std::optional<os_fault> begin(const std::string& path) {
    auto from = path;
    if (path.front() != '/') {
      std::array<char, PATH_MAX> current{};
      if (::getcwd(current.data(), current.size()) == nullptr)
        return failed(path, errno);
      from = below(current.data(), path);
    }
    add(from);
    return enter_root();
  }

  // In front of what is ahead already.
  void add(std::string_view path) {
    std::deque<std::string> names;
    while (!path.empty()) {
      const auto name = path.substr(0, path.find('/'));
      path.remove_prefix(std::min(name.size() + 1, path.size()));
      if (!name.empty() && name != ".")
        names.emplace_back(name);
    }
    ahead_.insert(ahead_.begin(), names.begin(), names.end());
  }

  std::optional<os_fault> enter_root() {
    unique_fd root{::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)};
    struct stat info {};
    if (!root || ::fstat(root.get(), &info) != 0)
      return failed("/", errno);
    info.st_uid = 0;  // whoever owns it owns the machine
    enter(std::move(root), info, "/");
    return std::nullopt;
  }

  // Once others may write it stays so, but for a folder of our own in a sticky
  // one.
  void enter(unique_fd folder, const struct stat& info, std::string path) {
    if (shared_by_.empty() || sticky_) {
      shared_by_.clear();
      sticky_ = false;
      if (!is_trusted(info.st_uid, rule_.caller))
        shared_by_ = path + " belongs to another user";
      else if (others_may_write(folder.get(), info))
        shared_by_ = "others may write to " + path;
      sticky_ = is_trusted(info.st_uid, rule_.caller)
                && (info.st_mode & S_ISVTX) != 0 && !shared_by_.empty();
      if (!shared_by_.empty())
        shared_by_ += " (" + owner_and_mode(info) + ')';
    }
    at_ = std::move(folder);
    here_ = std::move(path);
  }

  // Where somebody may move folders, nobody knows what is above one.
  std::optional<os_fault> step_up(bool at_end) {
    if (at_end)
      return failed(asked_, EISDIR);
    if (!shared_by_.empty())
      return failed(asked_, ELOOP,
                    "\"..\" is not followed, as " + shared_by_
                        + "; name the folder itself");
    unique_fd folder{
        ::openat(at_.get(), "..", O_PATH | O_DIRECTORY | O_CLOEXEC)};
    struct stat info {};
    if (!folder || ::fstat(folder.get(), &info) != 0)
      return failed(asked_, errno);
    const auto slash = here_.rfind('/');
    enter(std::move(folder), info, slash == 0 ? "/" : here_.substr(0, slash));
    return std::nullopt;
  }

  unique_fd look(const std::string& name) const {
    return unique_fd{
        ::openat(at_.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)};
  }

  std::optional<os_fault> step(const std::string& name) {
    auto next = look(name);
    if (!next && errno == ENOENT && rule_.make_folders) {
      if (::mkdirat(at_.get(), name.c_str(), *rule_.make_folders) != 0
          && errno != EEXIST)
        return failed(below(here_, name), errno);
      next = look(name);
    }
    struct stat info {};
    if (!next || ::fstat(next.get(), &info) != 0)
      return failed(asked_, errno);
    if (S_ISLNK(info.st_mode))
      return follow(name, std::move(next), info);
    if (!S_ISDIR(info.st_mode))
      return failed(asked_, ENOTDIR);
    enter(std::move(next), info, below(here_, name));
    return std::nullopt;
  }

  std::optional<os_fault> arrive(std::string& name, bool follow_last) {
    auto file = look(name);
    struct stat info {};
    if (!file && errno != ENOENT)
      return failed(asked_, errno);
    if (file && follow_last && ::fstat(file.get(), &info) == 0
        && S_ISLNK(info.st_mode)) {
      if (auto fault = may_follow(name, info))
        return fault;
      if (!on_proc(at_.get()))
        return follow(name, std::move(file), info);
      kernel_links_ = true;
    }
    name_ = std::move(name);
    return std::nullopt;
  }

  std::optional<os_fault> may_follow(const std::string& name,
                                     const struct stat& link) {
    const auto path = below(here_, name);
    if (!shared_by_.empty())
      return failed(asked_, ELOOP,
                    path + " is a symbolic link, and " + shared_by_
                        + "; name the place that it leads to");
    if (!is_trusted(link.st_uid, rule_.caller))
      return failed(asked_, ELOOP,
                    path + " is a symbolic link of another user ("
                        + owner_and_mode(link)
                        + "); name the place that it leads to");
    if (++links_ > most_links)
      return failed(asked_, ELOOP);
    return std::nullopt;
  }

  std::optional<os_fault> follow(const std::string& name, unique_fd link,
                                 const struct stat& info) {
    if (auto fault = may_follow(name, info))
      return fault;
    if (on_proc(at_.get()) && name != "self" && name != "thread-self")
      return follow_by_kernel(name);
    std::array<char, PATH_MAX> target{};
    // Of the link that was judged, whatever has that name by now.
    const auto size =
        ::readlinkat(link.get(), "", target.data(), target.size());
    if (size <= 0)
      return failed(asked_, size < 0 ? errno : ENOENT);
    const std::string_view text{target.data(), static_cast<std::size_t>(size)};
    add(text);
    return text.front() == '/' ? enter_root() : std::nullopt;
  }

  // Where that leads to, nobody has looked at what lies above.
  std::optional<os_fault> follow_by_kernel(const std::string& name) {
    unique_fd folder{
        ::openat(at_.get(), name.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
    if (!folder)
      return failed(asked_, errno);
    at_ = std::move(folder);
    here_ = below(here_, name);
    shared_by_ = here_ + " leads anywhere";
    sticky_ = false;
    return std::nullopt;
  }

  path_rule rule_;
  std::string asked_;
  std::deque<std::string> ahead_;
  unique_fd at_;
  std::string here_;
  std::string shared_by_;
  bool sticky_ = false;
  bool kernel_links_ = false;
  int links_ = 0;
  std::string name_;
};

std::variant<trusted_folder, os_fault> trusted_folder::open(
    const std::string& path, const path_rule& rule) {
  path_walk walk{rule};
  if (auto fault = walk.run(path, true, true))
    return *std::move(fault);
  return walk.take_folder();
}

std::variant<located_file, os_fault> locate(const std::string& path,
                                            const path_rule& rule, bool last) {
  path_walk walk{rule};
  if (auto fault = walk.run(path, false, last))
    return *std::move(fault);
  auto name = walk.take_name();
  return located_file{walk.take_folder(), std::move(name)};
}

std::string problem_of(const os_fault& fault) {
  auto text = reason_of(fault);
  return text.substr(0, text.rfind("; "));
}

// -- one folder ---------------------------------------------------------------

std::string trusted_folder::by_descriptor() const {
  return name_by_descriptor(fd());
}

std::string trusted_folder::path_of(const std::string& name) const {
  return below(path_, name);
}

namespace {

// Empty: it may be used.
std::string objection(const struct stat& info, const file_owners& owners,
                      const std::optional<uid_t>& caller) {
  if (S_ISDIR(info.st_mode))  // opened it is no harm, and no file
    return {};
  if (!S_ISREG(info.st_mode))
    return "is " + std::string{kind_of(info.st_mode)};
  if (info.st_nlink > 1)
    return "has " + std::to_string(info.st_nlink) + " names (hard links)";
  const auto& users = owners.users;
  if (!owners.anybody && !is_trusted(info.st_uid, caller)
      && std::find(users.begin(), users.end(), info.st_uid) == users.end())
    return "belongs to uid " + std::to_string(info.st_uid);
  return {};
}

}  // namespace

std::variant<unique_fd, os_fault> trusted_folder::open_file(
    const std::string& name, int flags, const file_owners& owners) const {
  // Non-blocking also because whoever owns a file may hold a lease of it, which
  // makes others wait.
  const int all = flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY
                  | (kernel_links_ ? 0 : O_NOFOLLOW);
  unique_fd file{::openat(fd(), name.c_str(), all)};
  const auto code = errno;
  struct stat info {};
  // What may not or cannot be opened is named all the same: a link, a FIFO that
  // nobody reads.
  if (shared()
      && (file ? ::fstat(file.get(), &info)
               : ::fstatat(fd(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW))
             == 0)
    if (const auto what = objection(info, owners, caller_); !what.empty())
      return failed(path_of(name), EPERM,
                    "it " + what + ", and " + shared_by_
                        + "; remove it, or use a folder that only root or "
                          "pup's user may write to");
  if (!file)
    return failed(path_of(name), code);
  if (shared() && info.st_nlink == 0)  // removed meanwhile
    return failed(path_of(name), ENOENT);
  return file;
}

std::variant<unique_fd, os_fault> trusted_folder::create_file(
    const std::string& name, int flags, mode_t mode) const {
  unique_fd file{::openat(fd(), name.c_str(),
                          flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                          mode)};
  if (!file)
    return failed(path_of(name), errno);
  return file;
}

// Not by one O_CREAT: fs.protected_regular refuses that for the file of another
// user in a sticky folder.
std::variant<unique_fd, os_fault> trusted_folder::open_or_create(
    const std::string& name, int flags, mode_t mode,
    const file_owners& owners) const {
  for (int i = 0;; ++i) {
    auto found = open_file(name, flags, owners);
    const auto* fault = std::get_if<os_fault>(&found);
    if (fault == nullptr || fault->code != ENOENT || i == most_tries)
      return found;
    auto made = create_file(name, flags, mode);
    fault = std::get_if<os_fault>(&made);
    if (fault == nullptr || fault->code != EEXIST)
      return made;
  }
}

bool trusted_folder::has(const std::string& name) const {
  struct stat info {};
  return ::fstatat(fd(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
}

bool trusted_folder::is(const std::string& name, int file) const {
  struct stat a {};
  struct stat b {};
  return ::fstatat(fd(), name.c_str(), &a, AT_SYMLINK_NOFOLLOW) == 0
         && ::fstat(file, &b) == 0 && a.st_dev == b.st_dev
         && a.st_ino == b.st_ino;
}

int trusted_folder::rename(const std::string& from,
                           const std::string& to) const {
  return ::renameat(fd(), from.c_str(), fd(), to.c_str()) == 0 ? 0 : errno;
}

int trusted_folder::remove(const std::string& name) const {
  return ::unlinkat(fd(), name.c_str(), 0) == 0 ? 0 : errno;
}

std::vector<std::string> trusted_folder::names() const {
  std::vector<std::string> result;
  unique_fd folder{::openat(fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!folder)
    return result;
  const std::unique_ptr<DIR, folder_closer> entries{::fdopendir(folder.get())};
  if (!entries)
    return result;
  static_cast<void>(folder.release());
  while (const auto* entry = ::readdir(entries.get()))
    if (const std::string_view name = entry->d_name;
        name != "." && name != "..")
      result.emplace_back(name);
  return result;
}

}  // namespace pup
