#include "pup/runtime/watcher.hpp"

#include "pup/config/glob.hpp"
#include "pup/runtime/trusted_path.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <list>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using clock = std::chrono::steady_clock;

constexpr std::uint32_t name_events = IN_CREATE | IN_DELETE | IN_MOVED_FROM
                                      | IN_MOVED_TO | IN_DELETE_SELF
                                      | IN_MOVE_SELF;

std::string words_for(int code) {
  return std::generic_category().message(code);
}

std::vector<path_glob> globs(const std::vector<std::string>& patterns) {
  std::vector<path_glob> result;
  for (const auto& x : patterns) {
    auto parsed = path_glob::parse(x);
    // Those of a configuration were judged when it was loaded.
    if (auto* good = std::get_if<path_glob>(&parsed))
      result.push_back(std::move(*good));
  }
  return result;
}

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

std::string below(const std::string& folder, std::string_view name) {
  return (folder == "/" ? folder : folder + '/') + std::string{name};
}

bool is_within(std::string_view path, std::string_view folder) {
  if (folder == "/")
    return path.starts_with('/');
  return path.starts_with(folder)
         && (path.size() == folder.size() || path[folder.size()] == '/');
}

/// What is left of `path` behind `folder`, which it is below.
std::string_view relative(std::string_view path, std::string_view folder) {
  path.remove_prefix(folder == "/" ? 0 : folder.size());
  return path.starts_with('/') ? path.substr(1) : path;
}

bool covered(const std::vector<path_glob>& globs, std::string_view path) {
  return std::any_of(globs.begin(), globs.end(),
                     [&](const path_glob& x) { return x.covers(path); });
}

/// A folder and a name in it that decides where a path leads.
struct way_step {
  std::string folder;  // without links
  std::string name;
  bool is_link = false;

  bool operator==(const way_step&) const = default;
};

std::optional<std::string> link_target(const std::string& path) {
  std::string result(PATH_MAX, '\0');
  const auto n = ::readlink(path.c_str(), result.data(), result.size());
  if (n < 0)
    return std::nullopt;
  result.resize(static_cast<std::size_t>(n));
  return result;
}

/// Why a link is not followed; empty: it is.
std::string refusal_of(const std::string& path) {
  const auto found = locate(path);
  const auto* fault = std::get_if<os_fault>(&found);
  return fault != nullptr ? fault->why : std::string{};
}

/// All links that an absolute path leads through, up to one that is not
/// followed, and at last its end: the name
/// it stands for, or the first that is not there.
std::vector<way_step> way_of(const std::string& path) {
  constexpr int most_links = 40;  // as the kernel has it
  std::vector<way_step> result;
  std::string here = "/";
  auto rest = path;
  for (int links = 0;;) {
    rest.erase(0, std::min(rest.find_first_not_of('/'), rest.size()));
    const auto name = rest.substr(0, rest.find('/'));
    rest.erase(0, name.size());
    const auto is_last = rest.find_first_not_of('/') == std::string::npos;
    if (name == "." || name == "..")
      here = name == "." ? here : parent_of(here);
    if (name.empty() || ((name == "." || name == "..") && is_last))
      return result;
    if (name == "." || name == "..")
      continue;
    const auto next = below(here, name);
    if (auto target = link_target(next); target && ++links <= most_links) {
      result.push_back({here, name, true});
      if (!refusal_of(next).empty())
        return result;
      if (target->starts_with('/'))
        here = "/";
      rest = *target + rest;
      continue;
    }
    struct stat info {};
    if (is_last || ::lstat(next.c_str(), &info) != 0
        || !S_ISDIR(info.st_mode)) {
      result.push_back({here, name});
      return result;
    }
    here = next;
  }
}

struct folder_closer {
  void operator()(DIR* folder) const noexcept {
    ::closedir(folder);
  }
};

}  // namespace

class watcher::impl : public std::enable_shared_from_this<impl> {
public:
  explicit impl(asio::io_context& loop) : loop_(loop), queue_(loop) {}

  std::uint64_t add(watch_wish wish,
                    std::function<void(const file_news&)> tell);
  void remove(std::uint64_t number);
  void lose_track();
  void stop();

private:
  struct subscription;

  enum class kind { missing, file, folder };

  /// One watched path.
  struct root {
    subscription* of = nullptr;
    std::string path;
    kind is = kind::missing;
    dev_t device = 0;
    ino_t number = 0;
    bool known = false;   // it was looked for once
    bool stale = false;   // what was found is not there any more
    std::string refused;  // why its path is not followed
  };

  struct subscription {
    explicit subscription(asio::io_context& loop) : timer(loop), retry(loop) {}

    std::uint64_t number = 0;
    watch_wish wish;
    std::vector<path_glob> match;
    std::vector<path_glob> skip;
    std::vector<path_glob> own;
    std::function<void(const file_news&)> tell;
    std::list<root> roots;
    // The burst. Empty: there is none.
    std::string changed;
    clock::time_point due;
    clock::time_point latest;
    asio::steady_timer timer;
    // Of the kernel's limits.
    std::string limit;
    asio::steady_timer retry;
    std::string told_trouble;
  };

  using subscription_ptr = std::shared_ptr<subscription>;

  /// Why a folder is watched.
  enum class role {
    way,   // a name there decides where the root leads
    tree,  // it is the root, or below it
    link,  // a name there decides where a link in the tree leads
  };

  struct use {
    root* of = nullptr;
    std::string path;  // of the folder; of the tree as the root leads to it
    role as = role::way;
    std::string name{};  // of way and link
    std::string link{};  // of link: the path that leads through it

    bool operator==(const use&) const = default;
  };

  template <class Step>
  auto while_alive(const subscription_ptr& x, Step step);

  // -- the kernel's queue -----------------------------------------------------

  bool open();
  void wait();
  void read_events();
  void on_event(const inotify_event& event, std::string_view name);
  void on_way(const use& x, std::uint32_t mask, std::string_view name);
  void on_link(const use& x, std::uint32_t mask, std::string_view name);
  void on_tree(root& of, const std::string& folder, std::uint32_t mask,
               std::string_view name);

  // -- watches ----------------------------------------------------------------

  bool watch(use x);
  bool not_watched(const use& x, int code);
  template <class Which>
  void drop(const root& of, role as, Which which);
  void drop_tree(const root& of);
  void drop_all(const root& of);
  static bool look_at(root& x, struct stat& info);
  void settle(root& x);
  void watch_way(root& x);
  void follow(root& of, const std::string& link);
  std::string scan(root& of, const std::string& folder);

  // -- what counts ------------------------------------------------------------

  static bool enters(const root& of, const std::string& folder);
  static bool counts(const root& of, const std::string& file);

  // -- telling ----------------------------------------------------------------

  void mark(root& of, const std::string& path);
  void mark(subscription& x, std::string words);
  void arm(const subscription_ptr& x);
  void update(subscription& x);
  void set_limit(subscription& x, const std::string& folder, int code);
  void look_again(subscription& x);

  asio::io_context& loop_;
  asio::posix::stream_descriptor queue_;
  std::map<std::uint64_t, subscription_ptr> subscriptions_;
  std::unordered_map<int, std::vector<use>> watches_;
  std::uint64_t last_number_ = 0;
};

// A handler that does nothing once the subscription is gone.
template <class Step>
auto watcher::impl::while_alive(const subscription_ptr& x, Step step) {
  return [weak = std::weak_ptr<subscription>{x}, me = weak_from_this(),
          step = std::move(step)](error_code error = {}) {
    const auto self = me.lock();
    const auto alive = weak.lock();
    if (!error && self && alive
        && self->subscriptions_.count(alive->number) > 0)
      step(alive);
  };
}

// -- subscriptions ------------------------------------------------------------

std::uint64_t watcher::impl::add(watch_wish wish,
                                 std::function<void(const file_news&)> tell) {
  auto x = std::make_shared<subscription>(loop_);
  x->number = ++last_number_;
  x->wish = std::move(wish);
  x->match = globs(x->wish.rules.match);
  x->skip = globs(x->wish.rules.skip);
  x->own = globs(x->wish.own);
  x->tell = std::move(tell);
  for (const auto& path : x->wish.paths) {
    auto& one = x->roots.emplace_back();
    one.of = x.get();
    one.path = path;
  }
  subscriptions_[x->number] = x;
  for (auto& one : x->roots)
    settle(one);
  update(*x);
  return x->number;
}

void watcher::impl::remove(std::uint64_t number) {
  const auto found = subscriptions_.find(number);
  if (found == subscriptions_.end())
    return;
  const auto x = found->second;
  subscriptions_.erase(found);
  x->timer.cancel();
  x->retry.cancel();
  for (const auto& one : x->roots)
    drop_all(one);
}

void watcher::impl::lose_track() {
  for (const auto& [number, x] : subscriptions_) {
    look_again(*x);
    mark(*x, "more files than could be told");
    update(*x);
  }
}

void watcher::impl::stop() {
  for (const auto& [number, x] : subscriptions_) {
    x->timer.cancel();
    x->retry.cancel();
  }
  subscriptions_.clear();
  error_code ignored;
  queue_.close(ignored);
}

// -- the kernel's queue -------------------------------------------------------

bool watcher::impl::open() {
  if (queue_.is_open())
    return true;
  unique_fd fd{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
  error_code error;
  if (!fd)
    return false;
  queue_.assign(fd.get(), error);
  if (error) {
    errno = error.value();
    return false;
  }
  static_cast<void>(fd.release());
  wait();
  return true;
}

void watcher::impl::wait() {
  queue_.async_wait(asio::posix::stream_descriptor::wait_read,
                    [me = weak_from_this()](error_code error) {
                      const auto self = me.lock();
                      if (error || !self)
                        return;
                      self->read_events();
                      if (self->queue_.is_open())
                        self->wait();
                    });
}

void watcher::impl::read_events() {
  alignas(inotify_event) std::array<char, 64 * 1024> buffer;
  for (;;) {
    const auto n = ::read(queue_.native_handle(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      break;
    const auto size = static_cast<std::size_t>(n);
    for (std::size_t at = 0; at + sizeof(inotify_event) <= size;) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof(event));
      const auto* const name = buffer.data() + at + sizeof(event);
      // Padded with zeros.
      on_event(event, {name, ::strnlen(name, event.len)});
      at += sizeof(event) + event.len;
    }
  }
  for (const auto& [number, x] : subscriptions_)
    update(*x);
}

void watcher::impl::on_event(const inotify_event& event,
                             std::string_view name) {
  if ((event.mask & IN_Q_OVERFLOW) != 0)
    return lose_track();
  const auto found = watches_.find(event.wd);
  if (found == watches_.end())
    return;  // of one that was just given up
  if ((event.mask & IN_IGNORED) != 0) {
    watches_.erase(found);
    return;
  }
  // They change on the way.
  const auto uses = found->second;
  for (const auto& x : uses) {
    if (x.as == role::way)
      on_way(x, event.mask, name);
    else if (x.as == role::link)
      on_link(x, event.mask, name);
    else
      on_tree(*x.of, x.path, event.mask, name);
  }
}

void watcher::impl::on_way(const use& x, std::uint32_t mask,
                           std::string_view name) {
  constexpr std::uint32_t replaced = IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO;
  auto& of = *x.of;
  const auto gone = (mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)) != 0;
  if (!gone && name != x.name)
    return;
  if (of.is == kind::file && (mask & IN_CLOSE_WRITE) != 0)
    return mark(of, of.path);
  of.stale = of.stale || (mask & replaced) != 0;
  settle(of);
}

void watcher::impl::on_link(const use& x, std::uint32_t mask,
                            std::string_view name) {
  constexpr std::uint32_t changed =
      IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO;
  if (name != x.name || (mask & changed) == 0)
    return;
  follow(*x.of, x.link);
  mark(*x.of, x.link);
}

void watcher::impl::on_tree(root& of, const std::string& folder,
                            std::uint32_t mask, std::string_view name) {
  if ((mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)) != 0) {
    // The folders in between are told of by the one they are in.
    if (folder != of.path)
      return;
    of.stale = true;
    return settle(of);
  }
  if (name.empty())
    return;
  const auto path = below(folder, name);
  if ((mask & IN_ISDIR) != 0) {
    if (!enters(of, path))
      return;
    if ((mask & (IN_CREATE | IN_MOVED_TO)) != 0) {
      if (const auto first = scan(of, path); !first.empty())
        mark(of, first);
      return;
    }
    if ((mask & IN_MOVED_FROM) != 0) {
      drop(of, role::tree,
           [&](const use& x) { return is_within(x.path, path); });
      mark(of, path);
    }
    return;
  }
  if (!counts(of, path))
    return;
  struct stat info {};
  const auto came = (mask & (IN_CREATE | IN_MOVED_TO)) != 0
                    && ::lstat(path.c_str(), &info) == 0;
  const auto is_link = came && S_ISLNK(info.st_mode);
  if (is_link)
    follow(of, path);
  // What was opened to be written is told of when it is closed; links are not
  // opened.
  if ((mask & IN_CREATE) != 0 && !is_link
      && !(came && S_ISREG(info.st_mode) && info.st_nlink > 1))
    return;
  mark(of, path);
}

// -- watches ------------------------------------------------------------------

bool watcher::impl::watch(use x) {
  const auto& of = *x.of;
  const auto opened = trusted_folder::open(x.path);
  const auto* found = std::get_if<trusted_folder>(&opened);
  if (found == nullptr)
    return not_watched(x, std::get<os_fault>(opened).code);
  // What lies on the way may be as busy as /tmp: only names count there, but
  // the writing of a watched file itself.
  const auto mask =
      name_events | IN_ONLYDIR | IN_MASK_ADD
      | (x.as == role::tree || of.is == kind::file ? IN_CLOSE_WRITE : 0U);
  // By its descriptor: the path may lead elsewhere by now.
  const auto wd =
      open() ? ::inotify_add_watch(queue_.native_handle(),
                                   found->by_descriptor().c_str(), mask)
             : -1;
  if (wd < 0)
    return not_watched(x, errno);
  auto& uses = watches_[wd];
  if (std::find(uses.begin(), uses.end(), x) == uses.end())
    uses.push_back(std::move(x));
  return true;
}

/// False. What is not there, or is not followed, is for settle() to tell.
bool watcher::impl::not_watched(const use& x, int code) {
  if (code != ENOENT && code != ENOTDIR && code != ELOOP)
    set_limit(*x.of->of, x.path, code);
  return false;
}

/// Gives up the uses of folders that are so.
template <class Which>
void watcher::impl::drop(const root& of, role as, Which which) {
  for (auto i = watches_.begin(); i != watches_.end();) {
    std::erase_if(i->second, [&](const use& x) {
      return x.of == &of && x.as == as && which(x);
    });
    if (!i->second.empty()) {
      ++i;
      continue;
    }
    ::inotify_rm_watch(queue_.native_handle(), i->first);
    i = watches_.erase(i);
  }
}

void watcher::impl::drop_all(const root& of) {
  drop(of, role::way, [](const use&) { return true; });
  drop_tree(of);
}

void watcher::impl::drop_tree(const root& of) {
  for (const auto as : {role::tree, role::link})
    drop(of, as, [](const use&) { return true; });
}

/// What the path of `x` leads to. False: to nothing, or through links that are
/// not followed.
bool watcher::impl::look_at(root& x, struct stat& info) {
  x.refused.clear();
  const auto found = locate(x.path);
  if (const auto* file = std::get_if<located_file>(&found))
    return ::fstatat(file->folder.fd(), file->name.c_str(), &info,
                     AT_SYMLINK_NOFOLLOW)
           == 0;
  const auto& fault = std::get<os_fault>(found);
  x.refused = fault.why;
  if (fault.code != EISDIR)
    return false;
  const auto opened = trusted_folder::open(x.path);  // "/", or a link to it
  const auto* folder = std::get_if<trusted_folder>(&opened);
  return folder != nullptr && ::fstat(folder->fd(), &info) == 0;
}

// What is there now, and whether it is what was there before. Whatever changes
// after the way is watched brings another event.
void watcher::impl::settle(root& x) {
  watch_way(x);
  struct stat info {};
  const auto was = x.is;
  const bool there = look_at(x, info);
  const auto now = !there                  ? kind::missing
                   : S_ISDIR(info.st_mode) ? kind::folder
                                           : kind::file;
  const bool same =
      x.known && !x.stale && now == was
      && (!there || (info.st_dev == x.device && info.st_ino == x.number));
  if (same)
    return;
  const bool first = !std::exchange(x.known, true);
  x.is = now;
  x.device = info.st_dev;
  x.number = info.st_ino;
  drop_tree(x);
  if (now == kind::file)
    watch_way(x);  // for its writing
  if (now == kind::folder)
    scan(x, x.path);
  x.stale = false;
  // Gone twice in a row is no news.
  if (!first && (there || was != kind::missing))
    mark(x, x.path);
}

// The new ones first, so that no event is missed in between; and what changes
// while they are being put up is not missed either.
void watcher::impl::watch_way(root& x) {
  constexpr int most_attempts = 8;  // against one who never stops
  auto steps = way_of(x.path);
  for (int i = 0; i < most_attempts; ++i) {
    for (const auto& step : steps)
      watch({&x, step.folder, role::way, step.name});
    auto again = way_of(x.path);
    if (again == steps)
      break;
    steps = std::move(again);
  }
  drop(x, role::way, [&](const use& y) {
    return std::none_of(steps.begin(), steps.end(), [&](const way_step& step) {
      return step.folder == y.path && step.name == y.name;
    });
  });
}

/// Watches the links below the root that a link there leads through.
void watcher::impl::follow(root& of, const std::string& link) {
  drop(of, role::link, [&](const use& x) { return x.link == link; });
  const auto to_root = way_of(of.path);
  const auto base =
      to_root.empty() ? "/" : below(to_root.back().folder, to_root.back().name);
  // Of itself the tree tells.
  const auto itself = below(base, relative(link, of.path));
  for (const auto& step : way_of(link))
    if (step.is_link && is_within(step.folder, base)
        && below(step.folder, step.name) != itself)
      watch({&of, step.folder, role::link, step.name, link});
}

/// Watches a folder and all below it. Returns a file in it that counts; empty:
/// there is none.
std::string watcher::impl::scan(root& of, const std::string& folder) {
  std::string result;
  std::vector<std::string> todo{folder};
  while (!todo.empty()) {
    const auto here = std::move(todo.back());
    todo.pop_back();
    // First, so that what comes meanwhile is told.
    if (!watch({&of, here, role::tree}))
      continue;
    const auto opened = trusted_folder::open(here);
    const auto* found = std::get_if<trusted_folder>(&opened);
    const std::unique_ptr<DIR, folder_closer> entries{
        found != nullptr ? ::opendir(found->by_descriptor().c_str()) : nullptr};
    if (!entries)
      continue;
    while (const auto* entry = ::readdir(entries.get())) {
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..")
        continue;
      const auto path = below(here, name);
      auto type = entry->d_type;
      struct stat info {};
      if (type == DT_UNKNOWN && ::lstat(path.c_str(), &info) == 0)
        type = static_cast<unsigned char>(IFTODT(info.st_mode));
      if (type == DT_DIR && enters(of, path))
        todo.push_back(path);
      else if (type != DT_DIR && counts(of, path)) {
        if (type == DT_LNK)
          follow(of, path);
        if (result.empty())
          result = path;
      }
    }
  }
  return result;
}

// -- what counts --------------------------------------------------------------

bool watcher::impl::enters(const root& of, const std::string& folder) {
  return !covered(of.of->skip, relative(folder, of.path))
         && !covered(of.of->own, folder);
}

bool watcher::impl::counts(const root& of, const std::string& file) {
  const auto& x = *of.of;
  const auto path = relative(file, of.path);
  const auto has = [&](const std::string& ending) {
    return path.size() > ending.size() + 1 && path.ends_with(ending)
           && path[path.size() - ending.size() - 1] == '.';
  };
  const auto& exts = x.wish.rules.exts;
  return (exts.empty() || std::any_of(exts.begin(), exts.end(), has))
         && (x.match.empty()
             || std::any_of(
                 x.match.begin(), x.match.end(),
                 [&](const path_glob& y) { return y.matches(path); }))
         && !covered(x.skip, path) && !covered(x.own, file);
}

// -- telling ------------------------------------------------------------------

void watcher::impl::mark(root& of, const std::string& path) {
  const auto& base = of.of->wish.base;
  const auto shorter =
      !base.empty() && path.size() > base.size() && is_within(path, base);
  mark(*of.of, shorter ? std::string{relative(path, base)} : path);
}

void watcher::impl::mark(subscription& x, std::string words) {
  const auto now = clock::now();
  const auto interval = x.wish.rules.interval;
  x.due = now + interval;
  if (!x.changed.empty())
    return;
  x.changed = std::move(words);
  x.latest = now + longest_burst * interval;
  arm(subscriptions_.at(x.number));
}

void watcher::impl::arm(const subscription_ptr& x) {
  x->timer.expires_at(std::min(x->due, x->latest));
  x->timer.async_wait(while_alive(x, [this](const subscription_ptr& alive) {
    const auto now = clock::now();
    if (now < alive->due && now < alive->latest)
      return arm(alive);
    file_news news;
    news.changed = std::exchange(alive->changed, {});
    news.trouble = alive->told_trouble;
    alive->tell(news);
  }));
}

// Trouble that has come or gone is told at once.
void watcher::impl::update(subscription& x) {
  auto trouble = x.limit;
  for (const auto& one : x.roots)
    if (trouble.empty() && one.is == kind::missing)
      trouble = one.refused.empty()
                    ? one.path + ": no such file or folder yet"
                    : one.path + " is not watched: " + one.refused;
  if (trouble == x.told_trouble)
    return;
  x.told_trouble = trouble;
  asio::post(loop_, while_alive(subscriptions_.at(x.number),
                                [trouble](const subscription_ptr& alive) {
                                  alive->tell({{}, trouble});
                                }));
}

void watcher::impl::set_limit(subscription& x, const std::string& folder,
                              int code) {
  std::string remedy;
  if (code == ENOSPC)
    remedy = "; raise fs.inotify.max_user_watches";
  else if (code == EMFILE)
    remedy = "; raise fs.inotify.max_user_instances";
  if (!x.limit.empty())
    return;
  x.limit = folder + " is not watched: "
            + (code == ENOSPC ? "no more watches" : words_for(code)) + remedy;
  x.retry.expires_after(retry_pause);
  x.retry.async_wait(while_alive(subscriptions_.at(x.number),
                                 [this](const subscription_ptr& alive) {
                                   look_again(*alive);
                                   update(*alive);
                                 }));
}

/// Everything is watched anew. What was there stays no change.
void watcher::impl::look_again(subscription& x) {
  x.limit.clear();
  for (auto& one : x.roots) {
    drop_all(one);
    one.known = false;
    settle(one);
  }
}

// -- the public face ----------------------------------------------------------

watcher::watcher(asio::io_context& loop)
    : impl_(std::make_shared<impl>(loop)) {}

watcher::~watcher() {
  impl_->stop();
}

std::uint64_t watcher::add(watch_wish wish,
                           std::function<void(const file_news&)> tell) {
  return impl_->add(std::move(wish), std::move(tell));
}

void watcher::remove(std::uint64_t number) {
  impl_->remove(number);
}

void watcher::lose_track() {
  impl_->lose_track();
}

}  // namespace pup
