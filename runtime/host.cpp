#include "pup/runtime/host.hpp"

#include "pup/actors/spawn.hpp"
#include "pup/actors/supervisor.hpp"
#include "pup/config/load.hpp"
#include "pup/config/paths.hpp"
#include "pup/config/relations.hpp"
#include "pup/runtime/calendar.hpp"
#include "pup/runtime/carriers.hpp"
#include "pup/runtime/children.hpp"
#include "pup/runtime/descendants.hpp"
#include "pup/runtime/drivers.hpp"
#include "pup/runtime/environment.hpp"
#include "pup/runtime/files.hpp"
#include "pup/runtime/guardian_link.hpp"
#include "pup/runtime/identity.hpp"
#include "pup/runtime/inherit.hpp"
#include "pup/runtime/journal.hpp"
#include "pup/runtime/launch_budget.hpp"
#include "pup/runtime/log.hpp"
#include "pup/runtime/machine.hpp"
#include "pup/runtime/place.hpp"
#include "pup/runtime/proxy.hpp"
#include "pup/runtime/recall.hpp"
#include "pup/runtime/service_manager.hpp"
#include "pup/runtime/socket_keeper.hpp"
#include "pup/runtime/survivors.hpp"
#include "pup/runtime/trusted_path.hpp"
#include "pup/runtime/usage.hpp"
#include "pup/runtime/waiting_work.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>

#include <unistd.h>

namespace pup {

namespace {

// What the guardian is told for a successor.
const std::string state_note = "state";
const std::string unit_note = "unit/";
const std::string leaving_note = "leaving";

// The root's children are units, which have budgets of their own, and control:
// what restarts them is a defect in pup itself. 10 in 60 s leaves room for
// several at once, and ends a supervisor that cannot keep its own actors.
constexpr intensity root_intensity{10, std::chrono::seconds(60)};

// Configurations that are being read: the second when the first was given up.
constexpr std::size_t most_loading = 2;

/// Said by one thread, asked for by another.
class latest {
public:
  void set(const std::string& x) {
    const std::lock_guard guard{mutex_};
    text_ = x;
  }
  std::string get() {
    const std::lock_guard guard{mutex_};
    return text_;
  }

private:
  std::mutex mutex_;
  std::string text_;
};

/// A thread that runs an io_context until destruction.
class loop_thread {
public:
  loop_thread()
      : work_(loop_.get_executor()), thread_([this] { loop_.run(); }) {}
  ~loop_thread() {
    work_.reset();  // ends when the last handler has run
    if (thread_.joinable())
      thread_.join();
  }
  loop_thread(const loop_thread&) = delete;
  loop_thread& operator=(const loop_thread&) = delete;

  boost::asio::io_context& loop() {
    return loop_;
  }

  /// What has not run never does.
  void halt() {
    loop_.stop();
    thread_.join();
  }

private:
  boost::asio::io_context loop_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type>
      work_;
  std::thread thread_;
};

std::vector<std::string> own_environment() {
  std::vector<std::string> result;
  for (auto** i = ::environ; i != nullptr && *i != nullptr; ++i)
    result.emplace_back(*i);
  return without_service_variables(std::move(result));
}

std::string state_trouble(const std::string& fault) {
  return fault
         + "; what is scaled, blocked or stopped now is forgotten if pup is "
           "killed";
}

/// By SIGSTOP, or a debugger.
bool is_stopped(pid_t pid) {
  const auto now = stat_of(pid);
  return now && (now->state == 'T' || now->state == 't');
}

/// Ends an actor that has no children and waits until its state is gone.
template <class Handle>
void end_and_wait(caf::actor_system& sys, Handle& x) {
  if (!x)
    return;
  caf::scoped_actor self{sys};
  self->monitor(x);
  self->send_exit(x, caf::exit_reason::user_shutdown);
  self->receive([](const caf::down_msg&) {});
  x = nullptr;
}

}  // namespace

class host::impl {
public:
  impl(caf::actor_system& sys, pup_spec spec, host_options options)
      : sys_(sys) {
    try {
      begin(std::move(spec), std::move(options));
    } catch (...) {
      end_drivers();
      throw;
    }
  }

  ~impl() {
    stop();
    end_drivers();
  }

  control_actor control() {
    control_actor result;
    caf::scoped_actor self{sys_};
    self->request(root_, caf::infinite, which_children{})
        .receive(
            [&](const std::vector<child_info>& children) {
              for (const auto& x : children)
                if (x.id == "control")
                  result = caf::actor_cast<control_actor>(x.handle);
            },
            [](const caf::error&) {});
    return result;
  }

  void reopen_logs() {
    log_->reopen();
  }

  void shut_down(bool on_purpose) {
    if (!on_purpose)
      accident_ = true;
    caf::anon_send_exit(root_, caf::exit_reason::user_shutdown);
  }

  // As little happens on the way as in a crash. First nothing gets out, then
  // nothing is decided any more; only what is half written is brought to its
  // end.
  bool step_aside(const std::function<void()>& done) {
    carrier_.emplace(
        [this](const std::string& name, int fd) { guardian_->hold(name, fd); });
    guardian_->fall_silent();
    loop_.halt();
    carrying_ =
        leave_proxy(sys_, world_.proxy, done,
                    [this](const proxy_fact& fact) { carrier_->tell(fact); });
    if (carrying_)
      carrier_->serve(carrying_);
    else  // its actor has failed, and the connections with it
      done();
    end_tree_and_wait();
    end_and_wait(sys_, memory_);
    journal_.reset();
    log_->leave();
    return guardian_->step_aside();
  }

  void stop() {
    caf::scoped_actor self{sys_};
    self->monitor(root_);
    if (!stopping_)
      shut_down(true);
    stopping_ = true;
    self->receive([](const caf::down_msg&) {});
  }

private:
  /// Throws as the constructor of host does, in the middle of it.
  void begin(pup_spec spec, host_options options) {
    if (const auto faults = check(spec); !faults.empty())
      throw std::invalid_argument(faults.front());
    if (!options.state_is_locked) {
      options.log_folder = judged(options.log_folder);
      options.state_folder = judged(options.state_folder);
      if (!options.state_folder.empty())
        lock_folder(options.state_folder, spec.name);
    }
    if (options.environment.empty())
      options.environment = own_environment();
    // In front: the first of equal names counts.
    if (!options.owner.empty())
      options.environment.insert(options.environment.begin(),
                                 owner_variable + ('=' + options.owner));
    log_options log;
    log.folder = std::move(options.log_folder);
    log.logger = spec.logger;
    if (options.console) {
      log.console_out = STDOUT_FILENO;
      log.console_err = STDERR_FILENO;
    }
    log_.emplace(std::move(log));
    log_->event("pup", log_stream::info,
                "supervisor " + spec.name + " started, pid "
                    + std::to_string(::getpid()));
    guardian_ = options.guardian;
    remember(spec, options);
    tell_withheld(spec, options.environment);
    auto groups = std::make_shared<inherit_groups>(loop_.loop());
    const auto keeper =
        std::make_shared<socket_keeper>(guardian_, std::move(options.sockets));
    std::shared_ptr<inheritance> inherited;
    if (guardian_) {
      guardian_->watch(loop_.loop(), options.on_guardian_lost);
      inherited = {guardian_, &guardian_->inherited()};
      find_lives(spec, *inherited);
      restore_groups(spec, *groups, *keeper);
    }
    world_.launcher = spawn_launcher(sys_, loop_.loop(),
                                     {std::move(options.environment), &*log_,
                                      journal_ ? &*journal_ : nullptr, groups,
                                      guardian_, inherited, keeper, mute_});
    for (const auto& x : unclaimed_)
      caf::anon_send(world_.launcher, x);
    world_.proxy = spawn_proxy(
        sys_, options.shards > 0 ? options.shards : default_shards(),
        std::move(groups), keeper,
        guardian_ ? std::make_shared<carriers>(
            loop_.loop(), inherited->held,
            [x = guardian_](const std::string& name) { x->drop(name); })
                  : nullptr);
    if (journal_)
      memory_ = spawn_memory(sys_, *journal_);
    world_.wall = real_calendar(loop_.loop());
    find_missed(spec);
    auto own = own_files(spec);
    for (const auto& x : options.own_folders)
      own.push_back(glob_of_path(x));
    world_.files = real_file_watch(std::move(own), folder_of(options.config),
                                   &loop_.loop());
    auto whole = tree(spec, options);
    past_.kept.clear();  // a unit that is added later has no past
    missed_.clear();
    root_ = spawn_supervisor(sys_, std::move(whole));
    if (was_leaving_)
      shut_down(true);
    if (options.on_end)
      root_->attach_functor([f = std::move(options.on_end)](
                                const caf::error& reason) { f(reason); });
  }

  /// The loop ends when they have let go of it.
  void end_drivers() {
    end_and_wait(sys_, world_.proxy);
    end_and_wait(sys_, world_.launcher);
    end_and_wait(sys_, memory_);
    if (guardian_)
      boost::asio::post(loop_.loop(), [x = guardian_] { x->ignore(); });
  }

  /// The root and its children, all at once.
  void end_tree_and_wait() {
    caf::scoped_actor self{sys_};
    std::size_t count = 1;
    self->monitor(root_);
    self->request(root_, caf::infinite, which_children{})
        .receive(
            [&](const std::vector<child_info>& children) {
              for (const auto& x : children)
                if (x.handle) {
                  self->monitor(caf::actor_cast<caf::actor>(x.handle));
                  ++count;
                }
            },
            [](const caf::error&) {});
    self->send_exit(root_, caf::exit_reason::kill);
    for (; count > 0; --count)
      self->receive([](const caf::down_msg&) {});
  }

  /// Files in these are found by their names, so nobody else may exchange a
  /// folder on the way. Returns the path without links. What cannot be made is
  /// for journal and log to tell.
  static std::string judged(const std::string& folder) {
    if (folder.empty())
      return folder;
    const auto opened = trusted_folder::open(folder, {0700, {}});
    if (const auto* fault = std::get_if<os_fault>(&opened)) {
      if (!fault->why.empty())
        throw std::runtime_error(folder + ": " + reason_of(*fault));
      return folder;
    }
    const auto& found = std::get<trusted_folder>(opened);
    if (found.shared())
      throw std::runtime_error(
          folder
          + ": others may write to it or to a folder above it; use one that "
            "only this program's user may write to");
    return found.path();
  }

  /// Where it is not there, or cannot be written to, the journal tells.
  void lock_folder(const std::string& folder, const std::string& name) {
    auto lock = lock_state(folder, name);
    if (const auto* error = std::get_if<place_error>(&lock);
        error != nullptr && error->code == place_errc::already_running)
      throw std::runtime_error(error->text);
    if (auto* fd = std::get_if<unique_fd>(&lock))
      state_lock_ = std::move(*fd);
  }

  /// Looks back, and begins to write down what happens now.
  void remember(const pup_spec& spec, const host_options& options) {
    if (options.state_folder.empty() && !guardian_)
      return;
    std::variant<std::optional<saved_state>, std::string> found;
    if (!options.state_folder.empty())
      found = read_state(options.state_folder);
    const auto went_on = guardian_ && guardian_->inherited().predecessors > 0;
    if (went_on)  // what the guardian was told is newer than any file
      found = noted_state(options.config);
    saved_state begin;
    begin.boot = boot_id();
    begin.supervisor = spec.name;
    begin.pid = ::getpid();
    begin.started = start_time_of(begin.pid).value_or(0);
    begin.config_mark = spec.source.value;
    begin.config = options.config;
    // Versions before this one noted where links led.
    if (auto* state = std::get_if<std::optional<saved_state>>(&found);
        state != nullptr && *state && (*state)->config != options.config
        && canonical((*state)->config) == canonical(options.config))
      (*state)->config = options.config;
    past_ = recall(spec, options.config, begin.boot, found);
    begin.told_environment =
        past_.told_environment || withholds(spec, options.environment);
    if (went_on) {
      note_succession(guardian_->inherited());
      find_changed(spec, found);
    }
    for (const auto& x : spec.processes)
      if (const auto i = past_.kept.find(x.id); i != past_.kept.end()) {
        begin.units[x.id] = saved_from(i->second);
        begin.units[x.id].mark = x.source.value;
      }
    if (guardian_) {
      if (went_on && guardian_->inherited().notes.contains(leaving_note))
        rest_but_lives(spec);
      guardian_->note(state_note, encode(begin));
    }
    for (const auto& x : past_.warnings)
      log_->event("pup", log_stream::warn, x);
    for (const auto& x : past_.notes)
      log_->event("pup", log_stream::info, x);
    if (options.state_folder.empty())
      return;
    journal_.emplace(
        options.state_folder, std::move(begin),
        [this](const std::string& fault) {
          log_->event(
              "pup", fault.empty() ? log_stream::info : log_stream::warn,
              fault.empty() ? "the state is kept again" : state_trouble(fault));
        });
  }

  static bool withholds(const pup_spec& spec,
                        const std::vector<std::string>& environment) {
    return std::any_of(spec.processes.begin(), spec.processes.end(),
                       [&](const process_spec& x) {
                         return !withheld_unasked(environment, x).empty();
                       });
  }

  /// Earlier versions passed all of root's variables on to everybody. Once: the
  /// state remembers it.
  void tell_withheld(const pup_spec& spec,
                     const std::vector<std::string>& environment) {
    if (past_.told_environment)
      return;
    for (const auto& x : spec.processes) {
      std::string names;
      for (const auto& name : withheld_unasked(environment, x))
        names += (names.empty() ? "" : ", ") + name;
      if (!names.empty())
        log_->event(x.id, log_stream::warn,
                    "runs as " + x.attributes.run_as->name
                        + " and does not inherit " + names
                        + "; add to `inheritEnv` what it needs, this is said "
                          "once");
    }
  }

  void note_succession(const inheritance& x) {
    past_.notes.push_back(
        "goes on where the supervisor before it has left off (" + x.last_end
        + ')');
    if (!x.refusal.empty())
      past_.warnings.push_back(x.refusal + "; the program from before goes on");
  }

  /// Tells which starts by the clock nobody was there for. They are not made up
  /// for: whoever wants that knows best what a late run does.
  void find_missed(const pup_spec& spec) {
    const auto now =
        std::chrono::floor<std::chrono::seconds>(world_.wall.now());
    for (const auto& x : spec.processes) {
      const auto since = past_.clocks.find(x.id);
      if (since == past_.clocks.end())
        continue;
      auto text = missed_runs(x.cron, world_.wall.zone(x.time_zone),
                              since->second, now);
      if (text.empty())
        continue;
      log_->event(x.id, log_stream::warn, text);
      missed_.emplace(x.id, std::move(text));
    }
  }

  /// Any thread.
  std::vector<std::string> warnings() const {
    auto result = past_.warnings;
    if (const auto fault = journal_ ? journal_->trouble() : std::string{};
        !fault.empty())
      result.push_back(state_trouble(fault));
    if (guardian_ && is_stopped(guardian_->guardian()))
      result.push_back("the guardian, pid "
                       + std::to_string(guardian_->guardian())
                       + ", is stopped: nothing can be started, no end is "
                         "noticed; let it go on by kill -CONT "
                       + std::to_string(guardian_->guardian()));
    if (guardian_)
      for (const auto& x : guardian_->strays())
        result.push_back(x
                         + " runs, and no process here is known to have started"
                           " it; it ends when pup does");
    if (auto shortage = descriptor_shortage(); !shortage.empty())
      result.push_back(std::move(shortage));
    // Afterwards it is for each of them to say.
    if (const auto count = mute_->load();
        count > 0 && free_descriptors() < launch_budget::of_launch)
      result.push_back(
          "the output of " + std::to_string(count)
          + (count == 1 ? " process" : " processes")
          + " is not kept, for want of descriptors when it was started; raise "
            "the hard limit (ulimit -Hn), then restart what says so");
    return result;
  }

  /// Has the children of `x` that are units write down what they keep.
  void write_down(supervisor_spec& x) {
    if (!journal_ && !guardian_)
      return;
    x.on_keep = [this](const std::string& id, const caf::message& value) {
      // Of control: what an apply has changed it to.
      if (value.match_elements<pup_spec, std::string>()) {
        if (journal_)
          journal_->configuration(value.get_as<std::string>(1),
                                  value.get_as<pup_spec>(0).source.value);
        return;
      }
      const auto prefix = unit_child_id({});
      if (!id.starts_with(prefix) || !value.match_elements<wanted_state>())
        return;
      const auto name = id.substr(prefix.size());
      auto unit = saved_from(value.get_as<wanted_state>(0));
      if (guardian_) {
        saved_state alone;
        alone.units[name] = unit;
        guardian_->note(unit_note + name, encode(alone));
      }
      if (journal_)
        journal_->unit(name, std::move(unit));
    };
    x.on_leaving = [this](const caf::error& reason) {
      // A significant process that has ended has ended the whole as was wanted.
      const auto on_purpose = reason == caf::exit_reason::user_shutdown
                              || is(reason, fault::process_ended);
      if (!on_purpose || accident_)
        return;
      if (guardian_)
        guardian_->note(leaving_note, "1");
      if (journal_)
        journal_->ends_on_purpose();
    };
  }

  /// What the supervisor before this one has noted; none: it had noted nothing.
  /// It ran `config`, whatever file it was begun with: another may have been
  /// applied since.
  std::optional<saved_state> noted_state(const std::string& config) const {
    const auto& notes = guardian_->inherited().notes;
    const auto read = [&](const std::string& text) {
      auto x = decode(text);
      if (const auto* fault = std::get_if<std::string>(&x))
        throw std::runtime_error(
            "what the supervisor before this one has noted cannot be read: "
            + *fault);
      return std::get<saved_state>(std::move(x));
    };
    const auto head = notes.find(state_note);
    if (head == notes.end())
      return std::nullopt;
    std::optional result{read(head->second)};
    result->config = config;
    for (auto i = notes.lower_bound(unit_note);
         i != notes.end() && i->first.starts_with(unit_note); ++i)
      for (auto& [id, unit] : read(i->second).units)
        result->units[id] = std::move(unit);
    return result;
  }

  /// Killed in the middle of an apply: what has another entry now begins anew.
  void find_changed(
      const pup_spec& spec,
      const std::variant<std::optional<saved_state>, std::string>& found) {
    const auto* state = std::get_if<std::optional<saved_state>>(&found);
    if (state == nullptr || !*state)
      return;
    for (const auto& x : spec.processes)
      if (const auto i = (*state)->units.find(x.id);
          i != (*state)->units.end() && i->second.mark != x.source.value)
        changed_.insert(x.id);
  }

  /// Which slots the inherited processes are lives of.
  void find_lives(const pup_spec& spec, const inheritance& left) {
    for (const auto& x : left.processes) {
      const auto owner = owner_of(spec, x.key);
      if (!owner || changed_.contains(owner->first)) {
        unclaimed_.push_back({x.key, x.life});
        continue;
      }
      const auto mark = life_mark_of(x.mark);
      lives_[owner->first].push_back({owner->second, x.life, x.pid, x.age,
                                      mark.ready && !mark.stopping,
                                      mark.stopping, mark.address, x.ending});
    }
  }

  /// Unit and slot of an instance's id; none: it is none, or a task's.
  static std::optional<std::pair<std::string, std::uint32_t>> owner_of(
      const pup_spec& spec, const std::string& id) {
    for (const auto& x : spec.processes) {
      if (!x.cluster && x.id == id)
        return std::pair{x.id, 0U};
      if (!x.cluster || !id.starts_with(x.id + '-'))
        continue;
      const auto digits = std::string_view{id}.substr(x.id.size() + 1);
      std::uint32_t number = 0;
      const auto [end, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), number);
      if (error == std::errc{} && end == digits.data() + digits.size()
          && number > 0 && number <= bounds::instances
          && instance_id(x.id, number) == id)
        return std::pair{x.id, number};
    }
    return std::nullopt;
  }

  /// Their sockets stay as they are, before anybody publishes anything.
  void restore_groups(const pup_spec& spec, inherit_groups& groups,
                      socket_keeper& keeper) {
    for (const auto& x : spec.processes) {
      if (!x.cluster || x.cluster->mode != cluster_mode::inherit)
        continue;
      auto kept = keeper.take(kept_group_name(x.id));
      if (kept.empty())
        continue;
      const auto& c = *x.cluster;
      const auto opened = groups.restore(
          x.id, {c.common_host, c.common_port, c.strategy}, std::move(kept));
      if (!opened)
        log_->event(x.id, log_stream::warn,
                    "its sockets are lost: " + to_string(*opened.error));
      for (const auto& life : lives_[x.id])
        groups.holds(x.id, life.slot, life.pid);
    }
  }

  /// The supervisor before this one was on its way out: nothing is begun, and
  /// what still runs is stopped.
  void rest_but_lives(const pup_spec& spec) {
    was_leaving_ = true;
    std::set<std::pair<std::string, std::uint32_t>> living;
    for (const auto& x : guardian_->inherited().processes)
      if (const auto owner = owner_of(spec, x.key))
        living.insert(*owner);
    for (const auto& x : spec.processes) {
      const auto [i, fresh] = past_.kept.try_emplace(x.id);
      auto& state = i->second;
      if (fresh)
        state.desired = x.cluster ? x.cluster->instances : 1;
      state.listening = false;
      state.resting.clear();
      for (std::uint32_t n = 0; n <= bounds::instances; ++n)
        if (living.count({x.id, n}) == 0)
          state.resting.push_back({n, false, run_state::stopped, {}});
    }
  }

  supervisor_spec tree(const pup_spec& spec, const host_options& options) {
    supervisor_spec result;
    result.limit = root_intensity;
    result.seed = std::random_device{}();
    write_down(result);
    result.children.push_back(control_child(spec, options));
    result.children.push_back(conductor_child(spec, options));
    // Children stop in reverse: first those that depend on others.
    for (const auto i : order_of_start(spec))
      result.children.push_back(unit_child(spec.name, spec.processes[i]));
    return result;
  }

  child_spec conductor_child(const pup_spec& spec,
                             const host_options& options) {
    conductor_args args;
    args.spec = spec;
    args.ends_with_groups = options.ends_with_groups;
    child_spec result;
    result.id = "conductor";
    result.start = [args, conductor = conductor_](start_context& x) {
      auto mine = args;
      mine.root = caf::actor_cast<supervisor_actor>(
          caf::actor_cast<caf::strong_actor_ptr>(x.self));
      mine.successor = static_cast<bool>(*conductor);
      mine.seed = std::random_device{}();
      *conductor = spawn_conductor(x.self, std::move(mine));
      return caf::actor_cast<caf::strong_actor_ptr>(*conductor);
    };
    return result;
  }

  /// On a thread of its own, and what it has asked for last.
  load_function loading(decltype(host_options::load) load) {
    return [this, load = std::move(load)](const apply& x,
                                          std::function<void(loaded)> done) {
      const auto asked = std::make_shared<latest>();
      const auto read = [load, x, asked, done] {
        auto content =
            load(x, [asked](const std::string& what) { asked->set(what); });
        return [done, content = std::move(content)] { done({content}); };
      };
      if (const auto trouble = loading_.begin(read); !trouble.empty())
        done({{}, "cannot be read now: " + trouble});
      return [asked] { return asked->get(); };
    };
  }

  child_spec control_child(const pup_spec& spec, const host_options& options) {
    control_args args;
    args.identity.name = spec.name;
    args.identity.pid = ::getpid();
    args.identity.version = options.version;
    args.identity.config = options.config;
    args.last_pid = guardian_ ? guardian_->guardian() : 0;
    args.started = sys_.clock().now();
    args.spec = spec;
    args.warnings = [this, further = options.warnings] {
      auto all = warnings();
      if (further)
        for (auto& x : further())
          all.push_back(std::move(x));
      return all;
    };
    args.launcher = world_.launcher;
    if (options.load)
      args.load = loading(options.load);
    args.applied = options.applied;
    args.unit = [this, name = spec.name](const process_spec& x) {
      return unit_child(name, x);
    };
    args.memory = memory_;
    child_spec result;
    result.id = "control";
    result.start = [args, announce = options.on_control](start_context& x) {
      auto mine = args;
      mine.kept = x.kept;
      mine.root = caf::actor_cast<supervisor_actor>(
          caf::actor_cast<caf::strong_actor_ptr>(x.self));
      const auto actor = spawn_control(x.self, std::move(mine));
      if (announce)
        announce(actor);
      return caf::actor_cast<caf::strong_actor_ptr>(actor);
    };
    return result;
  }

  child_spec unit_child(const std::string& supervisor,
                        const process_spec& spec) {
    cluster_args args;
    args.spec = spec;
    args.supervisor = supervisor;
    args.world = world_;
    child_spec result;
    result.id = unit_child_id(spec.id);
    result.shutdown = std::nullopt;  // it has deadlines of its own
    if (const auto i = past_.kept.find(spec.id); i != past_.kept.end())
      result.kept = caf::make_message(i->second);
    // For its first life alone.
    if (auto i = lives_.find(spec.id); i != lives_.end())
      args.adopted = std::move(i->second);
    if (auto i = missed_.find(spec.id); i != missed_.end())
      args.missed = std::move(i->second);
    result.start = [args, conductor = conductor_](start_context& x) mutable {
      auto mine = args;
      args.adopted.clear();
      args.missed.clear();
      mine.conductor = *conductor;
      mine.kept = x.kept;
      mine.seed = std::random_device{}();
      return caf::actor_cast<caf::strong_actor_ptr>(
          spawn_cluster(x.self, std::move(mine)));
    };
    return result;
  }

  caf::actor_system& sys_;
  unique_fd state_lock_;         // goes last
  std::optional<log_sink> log_;  // outlives the loop, whose processes write
  recollection past_;
  std::map<std::string, std::vector<adopted_life>> lives_;  // by unit
  std::map<std::string, std::string> missed_;  // by unit: starts, in words
  std::set<std::string> changed_;  // units whose lives are not gone on with
  std::vector<settle_life> unclaimed_;
  std::shared_ptr<std::atomic<std::uint32_t>> mute_ =
      std::make_shared<std::atomic<std::uint32_t>>(0);
  bool was_leaving_ = false;
  std::optional<journal> journal_;
  std::shared_ptr<guardian_link> guardian_;
  loop_thread loop_;
  ports world_;
  memory_actor memory_;
  // The current one; start functions use it on the root's thread.
  std::shared_ptr<conductor_actor> conductor_ =
      std::make_shared<conductor_actor>();
  supervisor_actor root_;
  // When everything else is another's.
  std::optional<carrier> carrier_;
  std::shared_ptr<proxy> carrying_;
  waiting_work loading_{most_loading};
  bool stopping_ = false;
  std::atomic<bool> accident_ = false;  // what ends us was not asked for
};

host::host(caf::actor_system& sys, pup_spec spec, host_options options)
    : impl_(std::make_unique<impl>(sys, std::move(spec), std::move(options))) {}

host::~host() = default;

control_actor host::control() {
  return impl_->control();
}

void host::reopen_logs() {
  impl_->reopen_logs();
}

void host::shut_down(bool on_purpose) {
  impl_->shut_down(on_purpose);
}

void host::stop() {
  impl_->stop();
}

bool host::step_aside(const std::function<void()>& done) {
  return impl_->step_aside(done);
}

}  // namespace pup
