#include "pup/runtime/children.hpp"

#include "pup/runtime/cgroup.hpp"
#include "pup/runtime/environment.hpp"
#include "pup/runtime/pid_file.hpp"
#include "pup/runtime/ports.hpp"
#include "pup/runtime/process.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <cassert>
#include <csignal>
#include <filesystem>
#include <set>
#include <unordered_map>
#include <utility>

namespace pup {

namespace {

namespace asio = boost::asio;

constexpr const char* readiness_prefix = "ready/";

std::string readiness_name(const std::string& key, std::uint64_t life) {
  return readiness_prefix + key + '/' + std::to_string(life);
}

readiness_request readiness_of(const launch_request& x) {
  readiness_request result{x.ready, x.port, x.ready_path, x.watchdog};
  if (x.attributes.run_as)
    result.uid = x.attributes.run_as->uid;
  return result;
}

void add_warning(std::string& to, const std::string& text) {
  to += (to.empty() ? "" : "; ") + text;
}

}  // namespace

class children::impl : public std::enable_shared_from_this<impl> {
public:
  impl(asio::io_context& loop, std::vector<std::string> environment,
       child_events events, std::shared_ptr<spawner> parent)
      : loop_(loop),
        environment_(std::move(environment)),
        events_(std::move(events)),
        parent_(std::move(parent)) {
    spawner_events facts;
    facts.started = [this](std::uint64_t number, pid_t pid) {
      if (const auto p = find(number))
        started(p, pid);
    };
    facts.failed = [this](std::uint64_t number, const os_fault& fault) {
      if (const auto p = find(number))
        failed(p, {fault.call, to_string(fault), fault.code});
    };
    facts.leader_ended = [this](std::uint64_t number, const leader_end& end) {
      if (const auto p = find(number))
        leader_ended(p, end);
    };
    facts.ended = [this](std::uint64_t number, const burial& end) {
      if (const auto p = find(number))
        ended(p, end);
    };
    parent_->connect(std::move(facts));
  }

  void launch(const std::string& key, std::uint64_t life,
              launch_request request);
  void adopt(life_adoption x);
  void release_all_but(const std::vector<inherited_process>& known,
                       std::map<std::string, unique_fd>& kept);
  void mark(const std::string& key, std::uint64_t life, const life_mark& x);
  void done(const std::string& key, std::uint64_t life);
  std::optional<os_fault> signal(const std::string& key, std::uint64_t life,
                                 int signo);
  void stop(const std::string& key, std::uint64_t life, int signo);
  void show_ready(const std::string& key, std::uint64_t life);
  void kill_group(const std::string& key, std::uint64_t life);
  void abandon(const std::string& key, std::uint64_t life);
  void end_all();

  std::size_t size() const noexcept {
    return slots_.size();
  }

private:
  // A life with a number at the spawner. Handlers hold it weakly: only its slot
  // owns it.
  struct process {
    std::string key;
    std::uint64_t life = 0;
    std::uint64_t number = 0;
    pid_t pid = 0;         // 0: it is being started
    bool to_kill = false;  // as soon as there is one
    bool abandoned = false;
    bool leader_gone = false;
    std::optional<readiness> ready;
    std::string warning;    // for `launched`
    std::string pid_file;   // empty: none
    std::string cgroup_id;  // empty: none
  };

  using process_ptr = std::shared_ptr<process>;

  struct waiting_life {
    std::uint64_t life;
    launch_request request;
  };

  struct slot {
    process_ptr current;
    // Abandoned, while somebody else is the current one already.
    std::vector<process_ptr> former;
    std::optional<waiting_life> next;

    [[nodiscard]] bool has_processes() const {
      return current || !former.empty();
    }
  };

  // An ended life whose end is still to be acted upon.
  struct told_end {
    std::uint64_t life;
    std::uint64_t number;
  };

  process_ptr find(const std::string& key, std::uint64_t life) const;
  process_ptr find(std::uint64_t number) const;
  bool drop_waiting(const std::string& key, std::uint64_t life);
  void forget_if_empty(const std::string& key);

  void begin_next(const std::string& key);
  std::variant<process_ptr, launch_fault> start(const std::string& key,
                                                std::uint64_t life,
                                                const launch_request& request);
  void use(process& p, const launch_request& request);
  std::string enter_cgroup(process& p, const cgroup_limits& limits);
  void give_back(const process& p);
  void own(const process_ptr& p);
  process_ptr own_inherited(const process_ptr& p);
  void go_on(const process_ptr& p, const life_mark& mark);
  void leave(const process_ptr& p);
  void disown(process& p);

  void started(const process_ptr& p, pid_t pid);
  void failed(const process_ptr& p, const launch_fault& fault);
  void leader_ended(const process_ptr& p, const leader_end& end);
  void ended(const process_ptr& p, const burial& end);
  void await_ready(const process_ptr& p,
                   const std::optional<std::string>& known);

  asio::io_context& loop_;
  std::vector<std::string> environment_;
  child_events events_;
  std::shared_ptr<spawner> parent_;
  std::unordered_map<std::string, slot> slots_;
  std::unordered_map<std::uint64_t, std::weak_ptr<process>> by_number_;
  std::unordered_map<std::string, told_end> told_;
  std::optional<cgroup_tree> cgroups_;  // once somebody asks for one
};

std::string to_text(const life_mark& x) {
  return std::string{x.ready ? 'r' : '-'} + (x.stopping ? 's' : '-')
         + x.address;
}

life_mark life_mark_of(const std::string& text) {
  if (text.size() < 2)
    return {};
  return {text[0] == 'r', text[1] == 's', text.substr(2)};
}

// --- commands ----------------------------------------------------------------

void children::impl::launch(const std::string& key, std::uint64_t life,
                            launch_request request) {
  auto& s = slots_[key];
  if ((s.current && life <= s.current->life)
      || (s.next && life <= s.next->life))
    return;
  s.next = waiting_life{life, std::move(request)};
  if (s.current)
    disown(*s.current);
  if (s.has_processes())
    return;  // ended() begins the next life
  // Later: events never come from within a command.
  asio::post(loop_, [weak = weak_from_this(), key] {
    if (const auto self = weak.lock())
      self->begin_next(key);
  });
}

std::optional<os_fault> children::impl::signal(const std::string& key,
                                               std::uint64_t life, int signo) {
  const auto p = find(key, life);
  if (!p || p->pid == 0)
    return std::nullopt;
  return parent_->signal(p->number, signo);
}

void children::impl::stop(const std::string& key, std::uint64_t life,
                          int signo) {
  if (const auto p = find(key, life); p && p->pid != 0)
    parent_->stop(p->number, signo);
}

void children::impl::show_ready(const std::string& key, std::uint64_t life) {
  if (const auto p = find(key, life))
    p->ready->show();
}

void children::impl::kill_group(const std::string& key, std::uint64_t life) {
  if (!drop_waiting(key, life)) {
    if (const auto p = find(key, life)) {
      p->to_kill = true;
      static_cast<void>(parent_->signal(p->number, SIGKILL));
    }
    return;
  }
  asio::post(loop_, [weak = weak_from_this(), key, life] {
    if (const auto self = weak.lock())
      self->events_.failed(
          key, life, {"cancelled", "stopped before its process was started"});
  });
}

void children::impl::abandon(const std::string& key, std::uint64_t life) {
  if (drop_waiting(key, life))
    return;
  if (const auto p = find(key, life))
    return disown(*p);
  done(key, life);
}

void children::impl::disown(process& p) {
  p.abandoned = true;
  p.to_kill = true;
  static_cast<void>(parent_->signal(p.number, SIGKILL));
  p.ready->stop();
}

void children::impl::mark(const std::string& key, std::uint64_t life,
                          const life_mark& x) {
  if (const auto p = find(key, life))
    parent_->mark(p->number, to_text(x));
}

void children::impl::done(const std::string& key, std::uint64_t life) {
  const auto found = told_.find(key);
  if (found == told_.end() || found->second.life != life)
    return;
  parent_->forget(found->second.number);
  told_.erase(found);
}

children::impl::process_ptr children::impl::find(const std::string& key,
                                                 std::uint64_t life) const {
  const auto found = slots_.find(key);
  if (found == slots_.end() || !found->second.current
      || found->second.current->life != life)
    return nullptr;
  return found->second.current;
}

children::impl::process_ptr children::impl::find(std::uint64_t number) const {
  const auto found = by_number_.find(number);
  return found == by_number_.end() ? nullptr : found->second.lock();
}

bool children::impl::drop_waiting(const std::string& key, std::uint64_t life) {
  const auto found = slots_.find(key);
  if (found == slots_.end() || !found->second.next
      || found->second.next->life != life)
    return false;
  found->second.next.reset();
  forget_if_empty(key);
  return true;
}

void children::impl::forget_if_empty(const std::string& key) {
  const auto found = slots_.find(key);
  if (found != slots_.end() && !found->second.has_processes()
      && !found->second.next)
    slots_.erase(found);
}

void children::impl::own(const process_ptr& p) {
  slots_[p->key].current = p;
  by_number_[p->number] = p;
}

void children::impl::leave(const process_ptr& p) {
  auto& s = slots_.at(p->key);
  if (s.current == p)
    s.current.reset();
  else
    std::erase(s.former, p);
  by_number_.erase(p->number);
  parent_->release(readiness_name(p->key, p->life));
  give_back(*p);
}

// What it takes from the machine besides a process.
void children::impl::use(process& p, const launch_request& request) {
  p.pid_file = request.pid_file;
  if (!request.attributes.cgroup.any())
    return;
  p.cgroup_id = request.cgroup_id.empty() ? p.key : request.cgroup_id;
  if (!cgroups_)
    cgroups_.emplace(parent_->parent());
}

std::string children::impl::enter_cgroup(process& p,
                                         const cgroup_limits& limits) {
  auto prepared = cgroups_->prepare(p.cgroup_id, limits);
  if (const auto* problem = std::get_if<cgroup_tree::problem>(&prepared)) {
    add_warning(p.warning, problem->text);
    return {};
  }
  return std::get<std::string>(std::move(prepared));
}

void children::impl::give_back(const process& p) {
  if (!p.pid_file.empty() && p.pid != 0)
    remove_pid_file(p.pid_file, p.pid);
  if (p.cgroup_id.empty())
    return;
  const auto is_in_use =
      std::any_of(slots_.begin(), slots_.end(), [&](const auto& x) {
        const auto& other = x.second.current;
        return other && other.get() != &p && other->cgroup_id == p.cgroup_id;
      });
  if (is_in_use)
    cgroups_->remove(p.cgroup_id);
  else
    cgroups_->end(p.cgroup_id);
}

// --- the beginning of a life -------------------------------------------------

void children::impl::begin_next(const std::string& key) {
  const auto found = slots_.find(key);
  if (found == slots_.end() || found->second.has_processes()
      || !found->second.next)
    return;  // abandoned or cancelled meanwhile
  const auto [life, request] = *std::exchange(found->second.next, std::nullopt);
  // What is told of an earlier life has been acted upon: here is the next.
  if (const auto told = told_.find(key); told != told_.end())
    done(key, told->second.life);
  auto begun = start(key, life, request);
  if (const auto* fault = std::get_if<launch_fault>(&begun)) {
    forget_if_empty(key);
    events_.failed(key, life, *fault);
    return;
  }
  own(std::get<process_ptr>(begun));
}

std::variant<children::impl::process_ptr, launch_fault> children::impl::start(
    const std::string& key, std::uint64_t life, const launch_request& request) {
  if (request.port != 0)
    if (auto obstacle = port_obstacle(request.port))
      return launch_fault{"port", *std::move(obstacle)};
  auto output = request.open_output ? request.open_output() : output_ends{};
  auto wait = readiness::prepare(loop_, readiness_of(request));
  if (const auto* fault = std::get_if<os_fault>(&wait))
    return launch_fault{fault->call, to_string(*fault), fault->code};
  auto& ready = std::get<readiness>(wait);
  auto variables = request.environment;
  variables.merge(ready.variables());
  start_order order;
  order.key = key;
  order.life = life;
  auto& wanted = order.request;
  wanted.argv = request.argv;
  // Who starts it may be another process, in another folder.
  std::error_code no_folder;
  wanted.cwd = request.cwd.empty()
                   ? std::filesystem::current_path(no_folder).string()
                   : request.cwd;
  wanted.stdout_fd = output.out.get();
  wanted.stderr_fd = output.err.get();
  if (request.listen_socket)
    wanted.listen_fds.push_back(request.listen_socket->get());
  wanted.ready_fd = ready.descriptor();
  if (wanted.ready_fd >= 0)
    variables["READY_FD"] = std::to_string(3 + wanted.listen_fds.size());
  wanted.environment = build_environment(
      inherited_of(environment_, request.inherited), variables, request.path);
  order.keep = std::move(output.keep);
  if (ready.input() >= 0)
    order.keep.push_back({readiness_name(key, life), ready.input()});
  auto p = std::make_shared<process>();
  p->key = key;
  p->life = life;
  p->warning = std::move(output.warning);
  use(*p, request);
  wanted.attributes = request.attributes;
  if (!p->cgroup_id.empty())
    wanted.cgroup_folder = enter_cgroup(*p, request.attributes.cgroup);
  p->number = parent_->start(order);
  p->ready.emplace(std::move(ready));
  return p;
}

void children::impl::adopt(life_adoption x) {
  auto& from = x.process;
  unique_fd input;
  if (auto kept = x.kept.extract(readiness_name(from.key, from.life));
      !kept.empty())
    input = std::move(kept.mapped());
  auto p = std::make_shared<process>();
  p->key = from.key;
  p->life = from.life;
  p->number = from.number;
  p->leader_gone = from.leader_ended || from.end;
  p->ready.emplace(
      readiness::adopt(loop_, readiness_of(x.request), std::move(input)));
  use(*p, x.request);
  const auto unwanted = own_inherited(p);
  if (!from.launching) {
    p->pid = from.pid;
    go_on(p, life_mark_of(from.mark));
  }
  // Before that is told of it, the spawner signals nobody.
  parent_->adopt(std::move(from));
  if (unwanted)
    disown(*unwanted);
}

/// The latest life of a key is the current one. The other of two, none: there
/// are not two.
children::impl::process_ptr children::impl::own_inherited(
    const process_ptr& p) {
  by_number_[p->number] = p;
  auto& s = slots_[p->key];
  if (s.next || (s.current && p->life <= s.current->life))
    return s.former.emplace_back(p);
  const auto before = std::exchange(s.current, p);
  if (before)
    s.former.push_back(before);
  return before;
}

// Told before its end, which the spawner may know already.
void children::impl::go_on(const process_ptr& p, const life_mark& mark) {
  std::optional<std::string> known;
  if (mark.ready)
    known = mark.address;
  asio::post(loop_,
             [weak = weak_from_this(), w = std::weak_ptr<process>{p}, known] {
               const auto self = weak.lock();
               const auto alive = w.lock();
               if (!self || !alive || alive->abandoned)
                 return;
               self->events_.launched(alive->key, alive->life, alive->pid, {});
               if (!alive->abandoned)
                 self->await_ready(alive, known);
             });
}

void children::impl::release_all_but(
    const std::vector<inherited_process>& known,
    std::map<std::string, unique_fd>& kept) {
  std::set<std::string> wanted;
  for (const auto& x : known)
    wanted.insert(readiness_name(x.key, x.life));
  for (auto i = kept.lower_bound(readiness_prefix);
       i != kept.end() && i->first.starts_with(readiness_prefix);) {
    if (wanted.count(i->first) == 0) {
      parent_->release(i->first);
      i = kept.erase(i);
    } else {
      ++i;
    }
  }
}

void children::impl::started(const process_ptr& p, pid_t pid) {
  p->pid = pid;
  if (p->to_kill)
    static_cast<void>(parent_->signal(p->number, SIGKILL));
  if (p->abandoned)
    return;
  if (!p->pid_file.empty())
    if (const auto fault = write_pid_file(p->pid_file, pid))
      add_warning(p->warning, "pidFile: " + to_string(*fault));
  events_.launched(p->key, p->life, pid, p->warning);
  if (p->abandoned)  // the receiver has just said so
    return;
  await_ready(p, std::nullopt);
}

void children::impl::failed(const process_ptr& p, const launch_fault& fault) {
  leave(p);
  const auto& s = slots_.at(p->key);
  const auto next = s.next && !s.has_processes();
  forget_if_empty(p->key);
  if (!p->abandoned)
    events_.failed(p->key, p->life, fault);
  if (next)
    begin_next(p->key);
}

// `known`: the address of one that is ready. Told from here where it is
// certain, so that it always comes before an end.
void children::impl::await_ready(const process_ptr& p,
                                 const std::optional<std::string>& known) {
  if (p->leader_gone)
    return;
  if (known || p->ready->at_once()) {
    events_.ready(p->key, p->life, known.value_or(std::string{}));
    if (p->abandoned)
      return;
  }
  readiness_events events;
  // They come only while p->ready lives, which p owns.
  events.ready = [this, p = p.get()](const std::string& address) {
    events_.ready(p->key, p->life, address);
  };
  events.said = [this, p = p.get()](const self_report& report) {
    if (events_.said)
      events_.said(p->key, p->life, report);
  };
  events.lives = [this, p = p.get()] { return parent_->runs(p->number); };
  p->ready->begin(p->pid, std::move(events), known || p->ready->at_once());
}

// --- its end -----------------------------------------------------------------

// The rest may listen still, but does not become ready any more.
void children::impl::leader_ended(const process_ptr& p, const leader_end& end) {
  p->leader_gone = true;
  p->ready->stop();
  if (!p->abandoned && events_.leader_ended)
    events_.leader_ended(p->key, p->life, end);
}

void children::impl::ended(const process_ptr& p, const burial& end) {
  p->ready->stop();
  leave(p);
  auto& s = slots_.at(p->key);
  const auto next_life = s.next && !(end.gone && s.has_processes())
                             ? std::optional{s.next->life}
                             : std::nullopt;
  if (next_life && !end.gone)
    s.next.reset();
  forget_if_empty(p->key);
  if (p->abandoned) {
    parent_->forget(p->number);
  } else {
    told_[p->key] = {p->life, p->number};
    events_.exited(p->key, p->life, end);
  }
  if (next_life && end.gone)
    begin_next(p->key);
  else if (next_life)
    events_.failed(
        p->key, *next_life,
        {"predecessor", "processes of its previous life, pid "
                            + std::to_string(end.status.pid) + ", do not end"});
}

void children::impl::end_all() {
  parent_->end_all();
  for (const auto& [key, s] : slots_) {
    if (s.current)
      give_back(*s.current);
    for (const auto& x : s.former)
      give_back(*x);
  }
  slots_.clear();
}

// --- the public face ---------------------------------------------------------

children::children(asio::io_context& loop, std::vector<std::string> environment,
                   child_events events, std::shared_ptr<spawner> parent) {
  if (!parent)
    parent = own_processes(loop);
  impl_ = std::make_shared<impl>(loop, std::move(environment),
                                 std::move(events), std::move(parent));
}

children::~children() {
  impl_->end_all();
}

void children::launch(const std::string& key, std::uint64_t life,
                      launch_request request) {
  impl_->launch(key, life, std::move(request));
}

void children::adopt(life_adoption x) {
  impl_->adopt(std::move(x));
}

void children::release_all_but(const std::vector<inherited_process>& known,
                               std::map<std::string, unique_fd>& kept) {
  impl_->release_all_but(known, kept);
}

void children::mark(const std::string& key, std::uint64_t life,
                    const life_mark& x) {
  impl_->mark(key, life, x);
}

void children::done(const std::string& key, std::uint64_t life) {
  impl_->done(key, life);
}

std::optional<os_fault> children::signal(const std::string& key,
                                         std::uint64_t life, int signo) {
  return impl_->signal(key, life, signo);
}

void children::stop(const std::string& key, std::uint64_t life, int signo) {
  impl_->stop(key, life, signo);
}

void children::show_ready(const std::string& key, std::uint64_t life) {
  impl_->show_ready(key, life);
}

void children::kill_group(const std::string& key, std::uint64_t life) {
  impl_->kill_group(key, life);
}

void children::abandon(const std::string& key, std::uint64_t life) {
  impl_->abandon(key, life);
}

std::size_t children::size() const noexcept {
  return impl_->size();
}

}  // namespace pup
