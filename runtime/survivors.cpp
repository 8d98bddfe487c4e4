#include "pup/runtime/survivors.hpp"

#include "pup/runtime/descendants.hpp"
#include "pup/runtime/pidfd.hpp"
#include "pup/runtime/proc_file.hpp"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string_view>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pup {

namespace {

using clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kill_patience{5};

// For an environment that its process holds up, and for an exec.
constexpr std::chrono::seconds read_patience{1};
constexpr std::chrono::milliseconds exec_patience{100};
constexpr std::chrono::milliseconds exec_pause{1};

/// Reads environments on a thread of its own. One that does not come back is
/// left alone: it ends with its process, or with this one.
class environment_reader {
public:
  /// None: it cannot be read, or not in time.
  std::optional<std::string> read(pid_t pid) {
    if (!worker_)
      begin();
    const std::string path = "/proc/" + std::to_string(pid) + "/environ";
    std::unique_lock lock{worker_->mutex};
    worker_->path = path;
    worker_->answer.reset();
    worker_->changed.notify_all();
    if (!worker_->changed.wait_for(
            lock, read_patience, [&] { return worker_->answer.has_value(); })) {
      worker_->ended = true;
      lock.unlock();
      worker_.reset();
      return std::nullopt;
    }
    return std::move(*std::exchange(worker_->answer, std::nullopt));
  }

  environment_reader() = default;
  environment_reader(const environment_reader&) = delete;
  environment_reader& operator=(const environment_reader&) = delete;
  ~environment_reader() {
    if (!worker_)
      return;
    const std::lock_guard guard{worker_->mutex};
    worker_->ended = true;
    worker_->changed.notify_all();
  }

private:
  struct worker {
    std::mutex mutex;
    std::condition_variable changed;
    std::string path;  // to be read; empty: nothing
    std::optional<std::optional<std::string>> answer;
    bool ended = false;
  };

  void begin() {
    worker_ = std::make_shared<worker>();
    std::thread{[mine = worker_] {
      std::unique_lock lock{mine->mutex};
      for (;;) {
        mine->changed.wait(lock,
                           [&] { return mine->ended || !mine->path.empty(); });
        if (mine->ended)
          return;
        const auto path = std::exchange(mine->path, {});
        lock.unlock();
        auto text = read_environment(path);
        lock.lock();
        mine->answer = std::move(text);
        mine->changed.notify_all();
      }
    }}.detach();
  }

  static std::optional<std::string> read_environment(const std::string& path) {
    const unique_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!file)
      return std::nullopt;
    return read_proc_file(path);
  }

  std::shared_ptr<worker> worker_;
};

/// Value of a variable in the bytes of /proc/PID/environ.
std::optional<std::string> value_of(std::string_view all,
                                    std::string_view name) {
  while (!all.empty()) {
    const auto entry = all.substr(0, all.find('\0'));
    all.remove_prefix(std::min(entry.size() + 1, all.size()));
    if (entry.size() > name.size() && entry.starts_with(name)
        && entry[name.size()] == '=')
      return std::string{entry.substr(name.size() + 1)};
  }
  return std::nullopt;
}

std::set<pid_t> ancestors() {
  std::set<pid_t> result;
  for (auto pid = ::getpid(); pid > 0 && result.insert(pid).second;)
    pid = parent_of(pid);
  return result;
}

/// A look at all processes of the machine.
class search {
public:
  explicit search(const survivor_traits& traits) : traits_(traits) {
    users_ = traits.users;
    users_.insert(::geteuid());
    if (traits.recorded == nullptr)
      return;
    for (const auto& [key, x] : traits.recorded->processes)
      if (const auto now = stat_of(x.pid);
          now && now->lives() && now->started == x.started)
        add(x.pid, x.started, key.substr(0, key.find('!')));
  }

  std::vector<survivor> run() {
    const auto all = all_processes();
    if (!traits_.mark.empty())
      look_for_marks(all);
    look_for_pipes(all);
    // What they have started is not all a survivor's.
    const auto own = ancestors();
    const auto spare_own = [&] {
      for (const auto pid : own)
        found_.erase(pid);
    };
    spare_own();
    add_offspring();
    spare_own();
    std::vector<survivor> result;
    for (auto& [pid, x] : found_)
      result.push_back(std::move(x));
    return result;
  }

private:
  void add(pid_t pid, std::uint64_t started, const std::string& id) {
    found_.try_emplace(pid, survivor{id, pid, started});
  }

  void look_for_marks(const std::vector<pid_t>& all) {
    std::vector<pid_t> silent;
    for (const auto pid : all)
      if (pid > 1 && !look_for_mark(pid))
        silent.push_back(pid);
    const auto deadline = clock::now() + exec_patience;
    while (!silent.empty() && clock::now() < deadline) {
      std::this_thread::sleep_for(exec_pause);
      std::erase_if(silent, [&](pid_t x) { return look_for_mark(x); });
    }
  }

  /// False: there is nothing in its environment, which is so during an exec.
  bool look_for_mark(pid_t pid) {
    const auto user = user_of(pid);
    if (!user || users_.count(*user) == 0)
      return true;
    const auto now = stat_of(pid);
    if (!now || !now->lives() || now->is_kernel)
      return true;
    const auto text = reader_.read(pid);
    if (!text)
      return true;
    if (text->empty())
      return false;
    if (value_of(*text, owner_variable) == traits_.mark)
      add(pid, now->started, value_of(*text, "PUP_ID").value_or(""));
    return true;
  }

  // What has left all else behind still writes to the pipes of its life. A
  // pipe counts for its user alone: anybody may forge a mark.
  void look_for_pipes(const std::vector<pid_t>& all) {
    std::map<std::pair<std::uint64_t, uid_t>, std::string> theirs;
    for (const auto& [pid, x] : found_)
      if (const auto user = user_of(pid))
        for (const int fd : {STDOUT_FILENO, STDERR_FILENO})
          if (const auto pipe = pipe_behind(pid, fd); pipe != 0)
            theirs.emplace(std::pair{pipe, *user}, x.id);
    if (theirs.empty() && traits_.pipes.empty())
      return;
    for (const auto pid : all) {
      const auto user = user_of(pid);
      if (!user || users_.count(*user) == 0 || found_.count(pid) != 0)
        continue;
      for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
        const auto pipe = pipe_behind(pid, fd);
        const auto owner = theirs.find({pipe, *user});
        if (owner == theirs.end() && traits_.pipes.count(pipe) == 0)
          continue;
        if (const auto now = stat_of(pid); now && now->lives())
          add(pid, now->started, owner == theirs.end() ? "" : owner->second);
      }
    }
  }

  // Below them, and in their sessions.
  void add_offspring() {
    const auto roots = found_;
    for (const auto& [root, x] : roots)
      for (const auto pid : descendants_of(root))
        if (const auto now = stat_of(pid); now && now->lives())
          add(pid, now->started, x.id);
    for (const auto pid : all_processes()) {
      const auto now = stat_of(pid);
      if (!now || !now->lives())
        continue;
      if (const auto leader = roots.find(now->session); leader != roots.end())
        add(pid, now->started, leader->second.id);
    }
  }

  const survivor_traits& traits_;
  std::set<uid_t> users_;
  environment_reader reader_;
  std::map<pid_t, survivor> found_;
};

/// A survivor on its way out.
struct doomed {
  const survivor* who;
  unique_fd pidfd;
  stop_rule rule;
};

/// Empty: it has ended meanwhile.
std::optional<doomed> grasp(const survivor& x, const stop_rule& rule) {
  auto fd = open_pidfd(x.pid);
  // Looked at after the descriptor was had: now it is that process for ever.
  if (!fd || start_ticks(x.pid) != x.started)
    return std::nullopt;
  return doomed{&x, std::move(fd), rule};
}

void send(const doomed& x, int signo) {
  ::syscall(SYS_pidfd_send_signal, x.pidfd.get(), signo, nullptr, 0U);
}

/// Until all have ended, `deadline` or a hurry. True: somebody is in a hurry.
bool wait_for(std::vector<doomed>& all, clock::time_point deadline, int hurry) {
  while (!all.empty()) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - clock::now());
    if (left.count() <= 0)
      return false;
    std::vector<pollfd> fds{{hurry, POLLIN, 0}};
    for (const auto& x : all)
      fds.push_back({x.pidfd.get(), POLLIN, 0});
    if (::poll(fds.data(), fds.size(), static_cast<int>(left.count())) < 0
        && errno != EINTR)
      return true;
    if (fds.front().revents != 0)
      return true;
    std::size_t i = 0;
    std::erase_if(all, [&](const doomed&) { return fds[++i].revents != 0; });
  }
  return false;
}

}  // namespace

std::vector<survivor> find_survivors(const survivor_traits& traits) {
  return search{traits}.run();
}

std::set<std::uint64_t> own_pipes() {
  std::set<std::uint64_t> result;
  std::error_code error;
  for (const auto& x :
       std::filesystem::directory_iterator{"/proc/self/fd", error}) {
    const auto fd = std::atoi(x.path().filename().c_str());
    struct stat info {};
    if (fd > STDERR_FILENO && ::fstat(fd, &info) == 0 && S_ISFIFO(info.st_mode)
        && (::fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
      result.insert(info.st_ino);
  }
  return result;
}

std::set<uid_t> users_of(const pup_spec& spec) {
  std::set<uid_t> result;
  for (const auto& x : spec.processes)
    if (const auto& who = x.attributes.run_as)
      result.insert(who->uid);
  return result;
}

stop_rule stop_rule_of(const pup_spec& spec, const std::string& id) {
  for (const auto& x : spec.processes) {
    const auto is_instance =
        x.cluster && id.size() > x.id.size() + 1 && id.starts_with(x.id + '-')
        && id.find_first_not_of("0123456789", x.id.size() + 1)
               == std::string::npos;
    if (x.id == id || is_instance)
      return {x.stop_signal, x.terminate_timeout};
  }
  return {};
}

std::size_t end_survivors(
    const std::vector<survivor>& all, const survivor_traits& traits,
    const std::function<stop_rule(const std::string& id)>& rule, int hurry) {
  std::vector<doomed> left;
  std::size_t out_of_reach = 0;
  for (const auto& x : all)
    if (auto y = grasp(x, rule(x.id)))
      left.push_back(std::move(*y));
    else if (start_ticks(x.pid) == x.started)
      ++out_of_reach;  // no descriptor of it is to be had
  for (const auto& x : left) {
    send(x, x.rule.signal);
    send(x, SIGCONT);
  }
  std::sort(left.begin(), left.end(), [](const doomed& a, const doomed& b) {
    return a.rule.timeout < b.rule.timeout;
  });
  const auto begun = clock::now();
  bool hurried = false;
  // The most impatient first; what is out of time is killed on the way.
  std::vector<doomed> killed;
  while (!left.empty()) {
    const auto limit = left.front().rule.timeout;
    hurried = hurried || wait_for(left, begun + limit, hurry);
    for (const auto& x : left)
      if (hurried || x.rule.timeout <= limit)
        send(x, SIGKILL);
    const auto over = std::stable_partition(
        left.begin(), left.end(),
        [&](const doomed& x) { return hurried || x.rule.timeout <= limit; });
    std::move(left.begin(), over, std::back_inserter(killed));
    left.erase(left.begin(), over);
  }
  const auto deadline = clock::now() + kill_patience;
  wait_for(killed, deadline, -1);
  // Started by one of them between our look and its end.
  for (;;) {
    const auto late =
        find_survivors({traits.mark, nullptr, traits.users, traits.pipes});
    std::vector<doomed> last;
    for (const auto& x : late)
      if (auto y = grasp(x, {}))
        last.push_back(std::move(*y));
    for (const auto& x : last)
      send(x, SIGKILL);
    const auto none = last.empty();
    wait_for(last, deadline, -1);
    if (none || !last.empty())
      return std::max({killed.size(), last.size(), out_of_reach});
  }
}

}  // namespace pup
