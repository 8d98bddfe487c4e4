#include "pup/runtime/membership.hpp"

#include "pup/runtime/descendants.hpp"
#include "pup/runtime/life_cgroup.hpp"
#include "pup/runtime/proc_file.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <functional>
#include <string_view>
#include <unordered_set>
#include <utility>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#  define SYS_close_range 436  // the same number on every architecture
#endif

namespace pup {

namespace {

// Two looks in a row agree at once, unless processes come and go meanwhile.
constexpr int most_looks = 16;

// The folder of a process in the hierarchy of version 2, from its root.
std::string cgroup_of(pid_t pid) {
  const auto text =
      '\n' + read_proc_file("/proc/" + std::to_string(pid) + "/cgroup");
  constexpr std::string_view entry = "\n0::";
  const auto at = text.find(entry);
  if (at == std::string::npos)
    return {};
  const auto begin = at + entry.size();
  return text.substr(begin, text.find('\n', begin) - begin);
}

// In it, or in a group that was made within.
bool is_in(std::string_view group, const std::string& folder) {
  while (group.size() > 1) {
    if (folder.ends_with(group))
      return true;
    group = group.substr(0, group.rfind('/'));
  }
  return false;
}

// In a helper process. It holds nothing of this one that somebody may wait for
// the end of. There is nothing in an environment during an exec.
[[noreturn]] void answer_and_exit(const std::string& processes, pid_t pid,
                                  int to, const std::string& scope) {
  constexpr int most_tries = 100;  // of a millisecond each
  constexpr int out = 3;
  ::dup2(to, out);
  if (::syscall(SYS_close_range, out + 1, ~0U, 0U) != 0) {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    for (int fd = out + 1; fd < static_cast<int>(limit.rlim_cur); ++fd)
      ::close(fd);
  }
  const auto path = processes + '/' + std::to_string(pid) + "/environ";
  auto text = read_proc_file(path);
  for (int i = 0; i < most_tries && text.empty(); ++i) {
    const auto now = stat_of(pid);
    if (!now || !now->lives())
      break;
    ::usleep(1'000);
    text = read_proc_file(path);
  }
  const auto number = number_in(life_in(text), scope);
  ::_exit(::write(out, &number, sizeof(number)) < 0 ? 1 : 0);
}

}  // namespace

// -- lives --------------------------------------------------------------------

void membership::begin(std::uint64_t number, life_traits traits) {
  lives_[number] = std::move(traits);
}

void membership::lead(std::uint64_t number, pid_t leader) {
  lives_.at(number).leader = leader;
  leaders_[leader] = number;
  sessions_[leader] = {number, 0, true};
  known_.erase(leader);  // somebody who had its number before
}

void membership::leader_ended(std::uint64_t number) {
  const auto life = lives_.find(number);
  if (life == lives_.end() || leaders_.erase(life->second.leader) == 0)
    return;
  auto& own = sessions_[life->second.leader];
  if (own.number == number)
    own = {number, ticks_since_boot(), false};
}

void membership::end(std::uint64_t number) {
  leader_ended(number);
  lives_.erase(number);
  std::erase_if(sessions_,
                [&](const auto& x) { return x.second.number == number; });
  // An orphan that does not even die of SIGKILL is nobody's from now on.
  std::erase_if(known_, [&](const auto& x) {
    return x.second.number == number && !x.second.orphan;
  });
  for (auto& [pid, x] : known_)
    if (x.number == number)
      become_stray(x, {});
}

void membership::set_apart(pid_t pid) {
  known_.erase(pid);
  apart_.insert(pid);
}

void membership::about_to_reap(pid_t pid) {
  if (const auto leader = leaders_.find(pid); leader != leaders_.end())
    return leader_ended(leader->second);
  if (const auto i = known_.find(pid);
      i != known_.end() && i->second.number != 0
      && (i->second.orphan || i->second.started == start_ticks(pid)))
    keep_session(i->second.number, ::getsid(pid));
}

bool membership::reaped(pid_t pid) {
  apart_.erase(pid);
  known_.erase(pid);
  if (given_up_.erase(pid) != 0)
    return true;
  const auto i = questions_.find(pid);
  if (i == questions_.end())
    return false;
  const auto asked = std::move(i->second);
  questions_.erase(i);
  std::uint64_t number = 0;
  if (::read(asked.answer.get(), &number, sizeof(number)) != sizeof(number))
    number = 0;
  answered(asked, number);
  ask_next();
  return true;
}

// -- looks --------------------------------------------------------------------

std::vector<pid_t> membership::orphans_by_now() const {
  auto result = own_children();
  std::erase_if(result, [this](pid_t x) {
    return leaders_.count(x) != 0 || apart_.count(x) != 0
           || questions_.count(x) != 0 || given_up_.count(x) != 0
           || apart_.count(::getsid(x)) != 0;
  });
  return result;
}

void membership::look_at_orphans() {
  std::vector<pid_t> before;
  for (int i = 0; i < most_looks; ++i) {
    auto now = orphans_by_now();
    if (i > 0 && now == before)
      return;
    for (const auto pid : now)
      if (const auto x = known_.find(pid);
          x != known_.end() && x->second.orphan && x->second.number != 0)
        keep_session(x->second.number, ::getsid(pid));
    for (const auto pid : now)
      meet(pid);
    before = std::move(now);
  }
}

void membership::meet(pid_t pid) {
  const auto i = known_.find(pid);
  // A child of ours keeps its number until we have reaped it.
  if (i != known_.end() && i->second.orphan)
    return;
  const auto now = stat_of(pid);
  if (!now || !now->lives())
    return;
  if (i != known_.end() && i->second.started == now->started) {
    i->second.orphan = true;
    return claim_tree(pid, i->second.number);
  }
  known_[pid] = {now->started, 0, true, false, {}};
  auto number = by_cgroup(pid);
  if (number == 0)
    number = by_session(pid, now->started);
  if (number == 0)
    number = by_pipe(pid);
  if (number != 0)
    claim_tree(pid, number);
  else
    ask(pid);
}

void membership::claim(pid_t pid, std::uint64_t number) {
  if (leaders_.count(pid) != 0 || apart_.count(pid) != 0)
    return;
  const auto now = stat_of(pid);
  if (!now || !now->lives())
    return;
  auto& x = known_[pid];
  if (x.started != now->started)
    x = {now->started, 0, false, false, {}};
  x.number = number;
  x.candidates.clear();
  keep_session(number, now->session);
}

void membership::claim_tree(pid_t pid, std::uint64_t number) {
  claim(pid, number);
  for (const auto x : descendants_of(pid))
    claim(x, number);
}

void membership::look_below(std::uint64_t number) {
  const auto life = lives_.find(number);
  if (life == lives_.end())
    return;
  std::vector<pid_t> roots;
  for (const auto& [pid, x] : known_)
    if (x.number == number && x.orphan)
      roots.push_back(pid);
  std::erase_if(known_, [&](const auto& x) {
    if (x.second.number != number || x.second.orphan)
      return false;
    const auto now = stat_of(x.first);
    return !now || !now->lives() || now->started != x.second.started;
  });
  for (const auto x : roots)
    claim_tree(x, number);
  if (const auto leader = leaders_.find(life->second.leader);
      leader != leaders_.end() && leader->second == number)
    for (const auto x : descendants_of(life->second.leader))
      claim(x, number);
  if (life->second.has_own_cgroup)
    for (const auto x : members_of_cgroup(life->second.cgroup_folder))
      claim(x, number);
}

void membership::keep_session(std::uint64_t number, pid_t id) {
  if (id <= 0)
    return;
  auto& x = sessions_[id];
  if (!x.leads)
    x = {number, ticks_since_boot(), false};
  if (sessions_.size() > leaders_.size() + most_sessions_)
    forget_sessions();
}

// Half of what may be kept, so that it is seldom looked for.
void membership::forget_sessions() {
  std::unordered_set<pid_t> inhabited;
  for (const auto pid : all_processes())
    inhabited.insert(::getsid(pid));
  using entry = std::pair<std::uint64_t, pid_t>;  // seen, session
  std::map<std::uint64_t, std::vector<entry>> of_lives;
  std::size_t count = 0;
  for (auto i = sessions_.begin(); i != sessions_.end();) {
    const auto& [id, x] = *i;
    if (!x.leads && inhabited.count(id) == 0) {
      i = sessions_.erase(i);
      continue;
    }
    if (!x.leads) {
      of_lives[x.number].emplace_back(x.seen, id);
      ++count;
    }
    ++i;
  }
  while (count > most_sessions_ / 2) {
    auto& most = std::max_element(of_lives.begin(), of_lives.end(),
                                  [](const auto& a, const auto& b) {
                                    return a.second.size() < b.second.size();
                                  })
                     ->second;
    std::sort(most.begin(), most.end(), std::greater{});
    const auto kept = most.size() / 2;
    for (auto i = kept; i < most.size(); ++i)
      sessions_.erase(most[i].second);
    count -= most.size() - kept;
    most.resize(kept);
  }
}

// -- whose it is --------------------------------------------------------------

// The number of a session belongs to nobody else while somebody is in it: its
// leader, say, or this process itself, if it is older than our last look at it.
std::uint64_t membership::by_session(pid_t pid, std::uint64_t started) const {
  const auto number = ::getsid(pid);
  const auto i = sessions_.find(number);
  if (i == sessions_.end())
    return 0;
  const auto leader = known_.find(number);
  const auto leads =
      i->second.leads
      || (leader != known_.end() && leader->second.number == i->second.number
          && leader->second.started == start_ticks(number));
  return leads || started <= i->second.seen ? i->second.number : 0;
}

std::uint64_t membership::by_pipe(pid_t pid) const {
  std::set<std::uint64_t> owners;
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO})
    if (const auto pipe = pipe_behind(pid, fd); pipe != 0)
      for (const auto& [number, x] : lives_)
        if (std::find(x.pipes.begin(), x.pipes.end(), pipe) != x.pipes.end())
          owners.insert(number);
  return owners.size() == 1 ? *owners.begin() : 0;
}

std::uint64_t membership::by_cgroup(pid_t pid) const {
  std::vector<std::uint64_t> owners;
  std::string folder;
  for (const auto& [number, x] : lives_) {
    if (x.cgroup_folder.empty())
      continue;
    if (folder.empty())
      folder = cgroup_of(pid);
    if (is_in(folder, x.cgroup_folder))
      owners.push_back(number);
  }
  return owners.size() == 1 ? owners.front() : 0;
}

// An orphan that has no user any more has ended.
std::vector<std::uint64_t> membership::possible_owners(pid_t pid) const {
  std::vector<std::uint64_t> result;
  // A session of number 0 is one of another namespace: it came from outside.
  if (::getsid(pid) == 0)
    return result;
  const auto user = user_of(pid);
  const auto started = start_ticks(pid);
  for (const auto& [number, x] : lives_)
    if (x.started <= started && (!x.user || *x.user == 0 || x.user == user))
      result.push_back(number);
  return result;
}

// Of root's lives any user's process may be one; so may that of a life which
// runs as this user, and says that it belongs to root's.
std::vector<std::uint64_t> membership::owners_by_variable(
    pid_t pid, std::uint64_t number) const {
  const auto life = lives_.find(number);
  if (life == lives_.end())
    return {};
  const auto user = user_of(pid);
  if (!user
      || (life->second.user && *life->second.user != 0
          && life->second.user != user))
    return {};
  std::vector<std::uint64_t> result{number};
  if (life->second.user.value_or(::geteuid()) != *user)
    for (const auto& [other, x] : lives_)
      if (other != number && x.user == user)
        result.push_back(other);
  return result;
}

void membership::ask(pid_t pid) {
  auto& x = known_.at(pid);
  x.asked = true;
  x.candidates = possible_owners(pid);
  to_ask_.push_back({pid, x.started});
  ask_next();
}

void membership::ask_next() {
  while (!to_ask_.empty() && questions_.size() < bounds::questions) {
    const auto [pid, started] = to_ask_.front();
    to_ask_.pop_front();
    const auto i = known_.find(pid);
    if (i == known_.end() || i->second.started != started || !i->second.asked
        || put_question(pid))
      continue;
    i->second.asked = false;
    judge_by_elimination(pid);
  }
}

bool membership::put_question(pid_t pid) {
  std::array<int, 2> ends{};
  if (given_up_.size() >= bounds::questions
      || ::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0)
    return false;
  unique_fd reading{ends[0]};
  const unique_fd writing{ends[1]};
  const auto helper = ::fork();
  if (helper < 0)
    return false;
  if (helper == 0)
    answer_and_exit(processes_, pid, writing.get(), scope_);
  questions_[helper] = {pid, known_.at(pid).started, std::move(reading),
                        clock::now() + patience};
  return true;
}

void membership::answered(const question& x, std::uint64_t number) {
  const auto i = known_.find(x.orphan);
  if (i == known_.end() || i->second.started != x.started
      || !std::exchange(i->second.asked, false) || i->second.number != 0)
    return;
  i->second.candidates.clear();
  auto owners = owners_by_variable(x.orphan, number);
  if (owners.size() == 1)
    claim_late(x.orphan, owners.front());
  else if (!owners.empty() || (number != 0 && lives_.count(number) == 0))
    become_stray(i->second, std::move(owners));  // or of one that has ended
  else
    judge_by_elimination(x.orphan);
}

void membership::judge_by_elimination(pid_t pid) {
  auto owners = possible_owners(pid);
  auto& x = known_.at(pid);
  const auto alone =
      owners.size() == 1 && (!first_stray_ || x.started < *first_stray_);
  if (alone && ::getpid() != 1)
    claim_late(pid, owners.front());
  else
    become_stray(x, std::move(owners));
}

void membership::claim_late(pid_t pid, std::uint64_t number) {
  late_.push_back({number, {pid, known_.at(pid).started}});
  claim_tree(pid, number);
}

std::vector<membership::late_member> membership::take_late() {
  return std::exchange(late_, {});
}

void membership::become_stray(process& x,
                              std::vector<std::uint64_t> candidates) {
  x.number = 0;
  x.candidates = std::move(candidates);
  first_stray_ = std::min(first_stray_.value_or(x.started), x.started);
}

// -- questions ----------------------------------------------------------------

std::optional<membership::clock::time_point> membership::deadline() const {
  std::optional<clock::time_point> result;
  for (const auto& [helper, x] : questions_)
    if (!result || x.deadline < *result)
      result = x.deadline;
  return result;
}

// A helper that waits for a page which a file system does not deliver does not
// even die of SIGKILL.
void membership::on_time() {
  const auto now = clock::now();
  std::vector<question> late;
  for (auto i = questions_.begin(); i != questions_.end();) {
    if (i->second.deadline > now) {
      ++i;
      continue;
    }
    ::kill(i->first, SIGKILL);
    given_up_.insert(i->first);
    late.push_back(std::move(i->second));
    i = questions_.erase(i);
  }
  for (const auto& x : late)
    answered(x, 0);
  ask_next();
}

void membership::close_questions() {
  for (const auto& [helper, x] : questions_) {
    ::kill(helper, SIGKILL);
    apart_.insert(helper);
    known_.erase(x.orphan);
  }
  for (const auto& x : to_ask_)
    known_.erase(x.pid);
  questions_.clear();
  to_ask_.clear();
  apart_.merge(given_up_);
  given_up_.clear();
}

bool membership::has_left(std::uint64_t number, bool unsure) const {
  return std::any_of(known_.begin(), known_.end(), [&](const auto& entry) {
    const auto& x = entry.second;
    const auto may_be =
        unsure && x.asked
        && std::find(x.candidates.begin(), x.candidates.end(), number)
               != x.candidates.end();
    return x.orphan && (x.number == number || may_be);
  });
}

std::vector<membership::member> membership::of(std::uint64_t number) const {
  std::vector<member> result;
  for (const auto& [pid, x] : known_)
    if (x.number == number)
      result.push_back({pid, x.started});
  std::sort(result.begin(), result.end(),
            [](const member& a, const member& b) { return a.pid < b.pid; });
  return result;
}

std::vector<std::string> membership::strays_of(std::uint64_t number) const {
  std::vector<std::string> result;
  for (const auto& [pid, x] : known_)
    if (x.orphan && x.number == 0 && !x.asked
        && std::find(x.candidates.begin(), x.candidates.end(), number)
               != x.candidates.end())
      result.push_back(describe_process(pid));
  return result;
}

std::vector<std::string> membership::strays() const {
  std::vector<std::string> result;
  for (const auto& [pid, x] : known_)
    if (x.orphan && x.number == 0 && !x.asked)
      result.push_back(describe_process(pid));
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace pup
