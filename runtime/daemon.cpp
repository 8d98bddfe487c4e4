#include "pup/runtime/daemon.hpp"

#include "pup/actors/applying.hpp"
#include "pup/config/head.hpp"
#include "pup/config/paths.hpp"
#include "pup/runtime/folder_watch.hpp"
#include "pup/runtime/former_name.hpp"
#include "pup/runtime/guarded.hpp"
#include "pup/runtime/host.hpp"
#include "pup/runtime/ipc.hpp"
#include "pup/runtime/local.hpp"
#include "pup/runtime/machine.hpp"
#include "pup/runtime/meant.hpp"
#include "pup/runtime/output.hpp"
#include "pup/runtime/pidfd.hpp"
#include "pup/runtime/place.hpp"
#include "pup/runtime/proxy.hpp"
#include "pup/runtime/service_manager.hpp"
#include "pup/runtime/shortage.hpp"
#include "pup/runtime/status_door.hpp"
#include "pup/runtime/survivors.hpp"
#include "pup/runtime/trusted_path.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <malloc.h>
#include <mutex>

#include <fcntl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

// Units answer at once or are shown as failed.
constexpr std::chrono::seconds status_patience{5};

// Tells `pup start` that the supervisor can be reached; see client.cpp.
constexpr const char* up_marker = "pup is up: ";

// What the guardian keeps for a successor.
constexpr const char* lock_name = "lock";
constexpr const char* state_lock_name = "state-lock";
constexpr const char* config_name = "config";
constexpr const char* config_file_name = "config-file";
constexpr const char* facts_name = "facts";
constexpr const char* variables_name = "variables";
constexpr const char* own_name = "name";

/// What this process takes before it has started anything: the loops of
/// launcher and journal, the log, two workers, the clock, the printer and the
/// multiplexer of the actor system, and the data plane, which has two
/// descriptors for each of its threads.
needs needs_of_supervisor() {
  const auto shards = default_shards();
  return {"the supervisor", 8 + shards, 36 + 2 * shards, 4u << 20};
}

/// What is meant for us becomes readable instead of ending the process. Blocked
/// before the first thread, so that all inherit it; children get an empty mask.
unique_fd take_signals() {
  std::signal(SIGCHLD, SIG_DFL);
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGQUIT);  // the STOPSIGNAL of several images
  sigaddset(&set, SIGHUP);
  sigaddset(&set, guard::upgrade_signal);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return unique_fd{::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)};
}

/// What a shell would say of such a process.
exit_code exit_code_of(const ending& how) {
  if (how.what == ending::kind::exited)
    return static_cast<exit_code>(how.code);
  constexpr int signalled = 128;
  return how.signal != 0 ? static_cast<exit_code>(signalled + how.signal)
                         : exit_code::failed;
}

/// From now on standard output and error go to `file`, which ends the pipe that
/// `pup start` listens to. A full disk must not keep the supervisor from
/// running: then they go nowhere.
void leave_terminal(const std::string& file) {
  unique_fd out{::open(file.c_str(),
                       O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC,
                       0600)};
  if (!out)
    out = unique_fd{::open("/dev/null", O_WRONLY | O_CLOEXEC)};
  if (!out)
    return;
  ::dup2(out.get(), STDOUT_FILENO);
  ::dup2(out.get(), STDERR_FILENO);
}

/// The text of an apply request, which stands beside its file and is about this
/// supervisor: by its name, or without one by where it stands, as the client
/// has found out. A name that was chosen on the command line, `given`, wins.
load_result read_applied(const apply& x, const std::string& name, bool given,
                         const asked_function& asked, variable_files& files) {
  auto result = load_text(x.text, x.file, x.folder, asked, &files);
  if (auto* spec = std::get_if<pup_spec>(&result))
    if (given || !head_of(x.text).name)
      spec->name = name;
  return result;
}

/// Found out while the last configuration was read, by whoever may wait.
struct reading {
  std::string path;
  std::string resolved;  ///< where its links lead
  variable_files files;
};

/// Said by one thread, asked for by another.
class last_reading {
public:
  void set(reading x) {
    const std::lock_guard guard{mutex_};
    last_ = std::move(x);
  }
  /// Empty: nobody has read it.
  reading of(const std::string& path) {
    const std::lock_guard guard{mutex_};
    return path == last_.path ? last_ : reading{};
  }

private:
  std::mutex mutex_;
  reading last_;
};

/// As the configuration was read: root goes through nobody else's links, which
/// may have taken the folder's place meanwhile.
std::optional<os_fault> enter(const std::string& folder) {
  int failed = 0;
  if (::geteuid() != 0) {
    failed = ::chdir(folder.c_str());
  } else {
    const auto opened = trusted_folder::open(folder, {{}, caller_of_root()});
    if (const auto* fault = std::get_if<os_fault>(&opened))
      return *fault;
    failed = ::fchdir(std::get<trusted_folder>(opened).fd());
  }
  if (failed != 0)
    return os_fault{"chdir", folder, errno};
  return std::nullopt;
}

/// The consequences of having no state folder, in words.
std::string in_memory(const place& x) {
  return "state in memory: " + x.state_fault()
         + "; what is scaled, blocked or stopped is forgotten when pup ends, "
           "and output goes only where `logger` says";
}

/// The guardian has ended, and there is no supervisor but this process, which
/// is none yet or not any more: nothing goes on unwatched. Where there is one
/// it does the same.
exit_code end_without_guardian(const wanted_supervisor& wanted) {
  for (const auto& x : find_unwatched(wanted, process_environment())) {
    complain("pup: '" + x.where.name
             + "': the guardian was killed; stopping everything");
    if (const auto trouble = end_unwatched(
            x.where, [](const std::string& text) { complain(text); }))
      complain(*trouble);
  }
  return exit_code::failed;
}

/// The supervisor that a command line is to become.
wanted_supervisor to_become(const command& what) {
  auto result = wanted_by(what);
  if (!result.name && !result.config && !what.config.empty())
    result.config = look_at(what.config);
  return result;
}

/// The running supervisor: everything on the main thread but the actors.
class daemon {
public:
  daemon(pup_spec spec, place where, start_facts facts, unique_fd signals,
         const command& what, std::shared_ptr<guardian_link> guardian,
         std::optional<gid_t> readers, std::vector<std::string> remarks)
      : place_(std::move(where)),
        background_(what.background),
        guardian_(std::move(guardian)),
        facts_(std::move(facts)),
        remarks_(std::move(remarks)),
        signals_(loop_, signals.release()),
        readers_(readers),
        had_folder_(place_.is_open()
                    || (guardian_ && guardian_->inherited().predecessors > 0)) {
    configure(config_, ipc_role::server);
    add_message_types(config_);
    sys_.emplace(config_);
    host_options options;
    options.config = facts_.config;
    options.version = PUP_VERSION;
    use_state_folder(options);
    options.warnings = [this] { return warnings(); };
    options.owner = place_.mark();
    options.own_folders.push_back(
        std::filesystem::path{place_.socket_path()}.parent_path().string());
    options.console = !background_;
    options.load = [name = place_.name(), given = what.name.has_value(),
                    last = last_reading_](const apply& x,
                                          const asked_function& asked) {
      reading found;
      found.path = path_of(x);
      found.resolved = canonical(found.path);
      auto result = read_applied(x, name, given, asked, found.files);
      last->set(std::move(found));
      return result;
    };
    options.applied = [this](const apply& x) { applied(x); };
    options.ends_with_groups = !background_;
    options.guardian = guardian_;
    options.sockets = take_service_sockets();
    options.on_guardian_lost = [this] {
      boost::asio::post(loop_, [this] { guardian_lost(); });
    };
    options.on_control = [this](const control_actor& x) {
      boost::asio::post(loop_, [this, x] { announce(x); });
    };
    options.on_end = [this](const caf::error& reason) {
      boost::asio::post(loop_, [this, reason] { ended(reason); });
    };
    host_.emplace(*sys_, std::move(spec), std::move(options));
  }

  exit_code run() {
    wait_for_signal();
    loop_.run();
    if (aside_) {  // what a destructor would take down is another's
      std::fflush(nullptr);
      std::_Exit(static_cast<int>(result_));
    }
    folder_watch_.reset();
    door_.reset();
    control_ = nullptr;
    publication_ = publication{};
    host_.reset();
    if (left_)
      end_left();
    result_ = after_output(result_);
    if (guardian_)
      guardian_->farewell(static_cast<int>(result_));
    return result_;
  }

private:
  void use_state_folder(host_options& options) const {
    if (place_.state_folder().empty())
      return;
    options.log_folder = log_folder(place_.state_folder());
    options.state_folder = place_.state_folder();
    options.state_is_locked = true;
    options.own_folders.push_back(place_.state_folder());
  }

  /// On a thread of the actor system.
  std::vector<std::string> warnings() {
    const std::lock_guard guard{facts_mutex_};
    auto result = remarks_;
    if (place_.state_folder().empty())
      result.push_back(in_memory(place_));
    return result;
  }

  /// Each control actor gets the socket: its predecessor has failed.
  void announce(const control_actor& x) {
    if (aside_)
      return;
    control_ = x;
    if (publication_)
      return publication_.republish(x);
    if (up_)
      return look_at_folder();  // nobody could reach the former one
    // A successor whose folder has gone comes up all the same.
    if (place_.is_open() && !let_in()) {
      result_ = exit_code::failed;
      return host_->shut_down();
    }
    watch_folder();
    come_up(x);
  }

  void come_up(const control_actor& x) {
    announce_when_ready(x);
    const auto first = !guardian_ || guardian_->inherited().predecessors == 0;
    if (guardian_)
      guardian_->ready();
    up_ = true;
    if (!background_) {
      print("pup: '" + place_.name() + "' is up, pid "
            + std::to_string(::getpid()) + '\n');
      return;
    }
    if (first) {
      print(up_marker + place_.name() + '\n');
    }
    leave();
  }

  /// Opens the sockets. False after it has complained.
  bool let_in() {
    publication_ = publication{};
    auto made = publish(*sys_, place_.socket_path(), control_);
    if (!made) {
      complain(ipc_text(made.error()));
      return false;
    }
    publication_ = std::move(*made);
    return open_door();
  }

  // Without it a folder that is removed stays so; the rest works.
  void watch_folder() {
    try {
      folder_watch_.emplace(loop_, place_.folder(),
                            [this] { look_at_folder(); });
    } catch (const std::system_error& error) {
      complain("pup: " + place_.folder() + ": is not watched: " + error.what());
    }
    look_at_folder();
  }

  /// Whether all is there by which commands and readers find us.
  [[nodiscard]] bool can_be_reached() const {
    const auto stands = [](const std::string& path) {
      return ::access(path.c_str(), F_OK) == 0;
    };
    return place_.is_open() && stands(place_.socket_path())
           && (!readers_ || stands(place_.status_path()));
  }

  /// Makes anew what somebody has removed, as soon as it can be.
  void look_at_folder() {
    if (aside_ || can_be_reached())
      return;
    door_.reset();
    const auto error = make_folder();
    const auto folder = "pup: " + place_.folder();
    const auto* was = had_folder_ ? ": was removed, and " : ": ";
    if (!error && control_ && let_in())
      complain(folder + was + "is made anew; commands reach pup again");
    if (error && std::exchange(lost_, error->text) != error->text)
      complain(folder + was + "no command can reach pup until it can be made: "
               + error->text);
    if (error)
      return;
    lost_.clear();
    had_folder_ = true;
  }

  std::optional<place_error> make_folder() {
    const std::lock_guard guard{facts_mutex_};
    auto error = place_.open_again(facts_);
    if (!error)
      error = place_.admit(readers_);
    if (!error && guardian_)
      guardian_->hold(lock_name, place_.lock());
    return error;
  }

  void leave() {
    leave_terminal(place_.state_folder() + "/pup.log");
    if (guardian_)
      guardian_->away(STDOUT_FILENO);
    away_ = true;
  }

  /// False after it has complained.
  bool open_door() {
    if (!readers_)
      return true;
    try {
      door_.emplace(loop_, place_.status_path(), *readers_,
                    [this](const status_question& question, auto answer) {
                      ask(question, std::move(answer));
                    });
      return true;
    } catch (const std::system_error& error) {
      complain(std::string{"ipc.readers: "} + error.what());
      return false;
    }
  }

  /// A reader's question, to the control actor of the moment.
  void ask(const status_question& question,
           std::function<void(const status_answer&)> answer) {
    sys_->spawn([x = control_, question, answer](caf::event_based_actor* self) {
      self->request(x, status_patience, get_status{question.id})
          .then(
              [=](const supervisor_status& status) {
                answer({true, question.json ? render_json(status)
                                            : render(status, {})});
                self->quit();
              },
              [=](const caf::error& why) {
                answer({false, text_of(why)});
                self->quit();
              });
    });
  }

  /// A successor goes by what has come about, never by what has failed here;
  /// and by its path commands find us. On a thread of the actor system.
  void applied(const apply& x) {
    const std::lock_guard guard{facts_mutex_};
    const auto found = last_reading_->of(path_of(x));
    change_config(facts_, path_of(x), found.resolved);
    remarks_.clear();
    if (guardian_) {
      guardian_->note(config_name, x.text);
      guardian_->note(config_file_name, facts_.config);
      guardian_->note(facts_name, text_of(facts_));
      guardian_->note(variables_name, text_of(found.files));
    }
    if (!place_.is_open())
      return;  // is told with the next folder
    if (const auto error = place_.tell(facts_))
      complain("pup: " + error->text);
  }

  void tell(const std::string& state) {
    if (guardian_)
      guardian_->tell(state);
    else
      tell_service_manager(state);
  }

  // Nothing could be started again, nor its end be understood.
  void guardian_lost() {
    // A process that has left its session is found below its leader, or by the
    // log's pipes, as long as these are there.
    left_.emplace(place_.state_folder(), place_.mark(),
                  known_spec(facts_.config), own_pipes());
    result_ = complain("pup: '" + place_.name() + "': the guardian, pid "
                       + std::to_string(guardian_->guardian())
                       + ", was killed; stopping everything");
    host_->shut_down(false);
  }

  // The guardian would have ended these.
  void end_left() {
    const auto stay =
        left_->end(known_spec(facts_.config), signals_.native_handle());
    if (stay > 0)
      complain("pup: '" + place_.name() + "': " + process_count(stay)
               + " cannot be ended");
  }

  /// Tells the service manager, if there is one, when all has come up or has
  /// failed to: what failed is pup's to restart, not a failed start of pup.
  void announce_when_ready(const control_actor& x) {
    sys_->spawn([this, x](caf::event_based_actor* self) {
      self->request(x, caf::infinite, operate{verb::await, "all", true})
          .then([this, self](const report& all) {
            const auto failed =
                std::count_if(all.outcomes.begin(), all.outcomes.end(),
                              [](const outcome& y) { return !y.ok; });
            tell("READY=1\nSTATUS=" + std::to_string(all.outcomes.size())
                 + " started"
                 + (failed > 0 ? ", " + std::to_string(failed) + " failed"
                               : std::string{}));
            self->quit();
          });
    });
  }

  // For a successor, perhaps of another version. We end when the connections
  // have that we carry.
  void make_room() {
    if (!guardian_)
      return void(
          complain("pup: SIGUSR2: there is no guardian to start a successor"));
    if (!up_ || asked_to_stop_)
      return;
    aside_ = true;
    door_.reset();
    control_ = nullptr;
    publication_ = publication{};
    folder_watch_.reset();
    {
      const std::lock_guard guard{facts_mutex_};
      place_.disown();
    }
    const auto carried = [this] {
      boost::asio::post(loop_, [this] { loop_.stop(); });
    };
    if (host_->step_aside(carried))
      return watch_guardian();
    end_aside();
    loop_.stop();
  }

  // It may end before a successor has come up.
  void watch_guardian() {
    boost::system::error_code error;
    guardian_end_.assign(open_pidfd(guardian_->guardian()).release(), error);
    if (error)
      return end_aside();
    guardian_end_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                             [this](const boost::system::error_code& code) {
                               if (!code)
                                 end_aside();
                             });
  }

  void end_aside() {
    wanted_supervisor us;
    us.name = place_.name();
    result_ = end_without_guardian(us);
  }

  void ended(const caf::error& reason) {
    if (aside_)
      return;
    if (is(reason, fault::process_ended))
      result_ = exit_code_of(ending_of(reason));
    if (is(reason, fault::gave_up))
      result_ =
          complain("pup: '" + place_.name() + "' gave up: " + text_of(reason));
    loop_.stop();
  }

  void wait_for_signal() {
    boost::asio::async_read(
        signals_, boost::asio::buffer(&signal_, sizeof(signal_)),
        [this](const boost::system::error_code& error, std::size_t) {
          if (error || aside_)
            return;
          if (signal_.ssi_signo == guard::upgrade_signal) {
            make_room();
            return wait_for_signal();
          }
          // A terminal that closes is no reason to stop the service.
          if (signal_.ssi_signo == SIGHUP) {
            host_->reopen_logs();
            if (away_)
              leave();
          } else {
            std::fprintf(stderr, "pup: SIG%s: %s\n",
                         sigabbrev_np(static_cast<int>(signal_.ssi_signo)),
                         asked_to_stop_ ? "killing what is left"
                                        : "stopping; again to kill");
            asked_to_stop_ = true;
            tell("STOPPING=1");
            host_->shut_down();
          }
          wait_for_signal();
        });
  }

  place place_;
  bool background_;
  std::shared_ptr<guardian_link> guardian_;
  // Told of by the actor system and by the loop.
  std::mutex facts_mutex_;
  std::shared_ptr<last_reading> last_reading_ =
      std::make_shared<last_reading>();
  start_facts facts_;
  std::vector<std::string> remarks_;  // of what is gone on with; for the status
  bool away_ = false;                 // from the terminal that started it
  bool asked_to_stop_ = false;
  bool up_ = false;     // can be reached
  bool aside_ = false;  // a successor has all but some connections
  exit_code result_ = exit_code::done;
  boost::asio::io_context loop_{1};
  boost::asio::posix::stream_descriptor signals_;
  signalfd_siginfo signal_{};
  boost::asio::posix::stream_descriptor guardian_end_{loop_};  // once aside
  caf::actor_system_config config_;
  std::optional<caf::actor_system> sys_;
  std::optional<host> host_;
  std::optional<gid_t> readers_;
  control_actor control_;    // goes before the actor system, as what follows
  publication publication_;  // goes first: it refers to the actor system
  std::optional<status_door> door_;
  std::optional<folder_watch> folder_watch_;
  bool had_folder_ = true;  // this one, or one before it
  std::string lost_;        // why it cannot be made anew
  // What ran when the guardian was lost.
  std::optional<unwatched> left_;
};

}  // namespace

namespace {

/// What is to run: a configuration's content, and the file it stands in.
struct wanted_config {
  load_result content;
  config_file file;                    // without paths: it came in words
  std::vector<std::string> known{};    // see start_facts
  std::vector<std::string> remarks{};  // for the status
};

std::optional<wanted_config> find_config(const command& what,
                                         guardian_link* guardian) {
  if (!what.entry.empty()) {
    const auto folder = working_folder();
    const auto text = "{\"processes\": [" + json_of(what.entry) + "]}";
    wanted_config result{load(text, "command line", folder, real_world()), {}};
    result.file.default_name = default_name(folder);
    return result;
  }
  // What ran, whatever the file says by now.
  if (guardian != nullptr) {
    auto& notes = guardian->inherited().notes;
    if (const auto text = notes.find(config_name); text != notes.end()) {
      const auto& file = notes[config_file_name];
      std::vector<std::string> remarks;
      auto content =
          load_known_text(text->second, file,
                          variable_files_of(notes[variables_name]), remarks);
      return wanted_config{std::move(content), look_at(file, text->second),
                           known_paths(notes[facts_name]), std::move(remarks)};
    }
  }
  auto file = what.of_config.value_or(what.config);
  if (file.empty())
    file = default_config();
  if (file.empty())
    return std::nullopt;
  auto text = read_config(file);
  if (auto* faults = std::get_if<std::vector<diagnostic>>(&text))
    return wanted_config{std::move(*faults), {}};
  const auto& content = std::get<std::string>(text);
  variable_files files;
  wanted_config result{
      load_text(content, file, folder_of(as_written(file)), {}, &files),
      look_at(file, content)};
  if (guardian != nullptr) {
    guardian->note(variables_name, text_of(files));
    guardian->note(config_name, content);
    guardian->note(config_file_name, result.file.written);
  }
  return result;
}

/// What the supervisor is called, and a successor as well, whatever it would
/// call itself.
std::string name_of(const command& what, const config_file& file,
                    guardian_link* guardian) {
  if (what.name)
    return *what.name;
  if (guardian != nullptr && guardian->inherited().predecessors > 0) {
    const auto& notes = guardian->inherited().notes;
    if (const auto noted = notes.find(own_name); noted != notes.end())
      return noted->second;
    if (notes.contains(config_name))  // by a version that noted no name
      return file.name.value_or(former_default_name);
  }
  return file.supervisor();
}

place_locks locks_of(inheritance& x) {
  const auto take = [&](const char* name) {
    auto found = x.held.extract(name);
    return found.empty() ? unique_fd{} : std::move(found.mapped());
  };
  return {take(lock_name), take(state_lock_name)};
}

/// Never two copies: what a killed predecessor has left ends first. On trouble:
/// what it is.
std::optional<std::string> end_predecessor(const pup_spec& spec,
                                           const place& where, int signals) {
  if (where.mark().empty())  // so there was none
    return std::nullopt;
  const unwatched left{where.state_folder(), where.mark(), spec};
  if (!left.fault().empty())
    complain("pup: " + left.fault() + "; starting from the configuration");
  if (left.count() == 0)
    return std::nullopt;
  complain("pup: ending what a killed supervisor left: "
           + process_count(left.count()));
  const auto stay = left.end(spec, signals);
  if (stay == 0)
    return std::nullopt;
  return "pup: " + process_count(stay)
         + " of a killed supervisor cannot be ended; end them, then start "
           "again";
}

}  // namespace

exit_code run_supervisor(const command& what) {
  // No thread allocates so much that a heap of its own would pay: with 500
  // processes those took 2 of 28 MB.
  ::mallopt(M_ARENA_MAX, 1);
  raise_descriptor_limit();
  auto met = meet_guardian();
  if (const auto* fault = std::get_if<std::string>(&met)) {
    complain("pup: " + *fault);
    return end_without_guardian(to_become(what));
  }
  const auto guardian = std::get<std::shared_ptr<guardian_link>>(met);
  if (const auto short_of = find_shortage(needs_of_supervisor());
      !short_of.empty())
    return complain("pup: " + short_of);
  auto wanted = find_config(what, guardian.get());
  if (!wanted)
    return complain(
        "run: no pup.json, pup.jsonc or config.json here; name a "
        "configuration, or a command behind --",
        exit_code::usage);
  auto signals = take_signals();
  if (const auto* faults =
          std::get_if<std::vector<diagnostic>>(&wanted->content)) {
    complain(*faults);
    tell_unwatched(to_become(what));
    return exit_code::usage;
  }
  auto& spec = std::get<pup_spec>(wanted->content);
  for (const auto& x : wanted->remarks)
    complain("pup: " + x);
  const auto& file = wanted->file;
  const auto follows = guardian && guardian->inherited().predecessors > 0;
  spec.name = name_of(what, file, guardian.get());
  std::optional<gid_t> readers;
  if (!spec.readers.empty()) {
    readers = group_named(spec.readers);
    if (!readers)
      return complain(file.written + ": ipc.readers: there is no group '"
                          + spec.readers
                          + "'; create it (groupadd) or name another",
                      exit_code::usage);
  }
  start_facts facts;
  facts.known = std::move(wanted->known);
  change_config(facts, file.written, canonical(file.written));
  facts.version = PUP_VERSION;
  facts.started = std::chrono::system_clock::now();
  if (!follows && !what.name)
    if (const auto error = take_over_former_name(file, process_environment()))
      return complain(error->text);
  auto opened = open_place(
      spec.name, process_environment(), facts,
      follows ? locks_of(guardian->inherited()) : place_locks{},
      what.background ? without_folder::fails : without_folder::goes_on);
  if (const auto* error = std::get_if<place_error>(&opened)) {
    const auto needs_folder =
        what.background && error->code == place_errc::system;
    return complain(
        error->text
        + (needs_folder ? ", or use pup run, which does without" : ""));
  }
  auto& where = std::get<place>(opened);
  if (where.state_folder().empty())
    complain("pup: " + in_memory(where));
  if (where.is_open())
    if (const auto error = where.admit(readers))
      return complain(error->text);
  // A process without "cwd" runs beside its configuration, wherever pup was
  // started from. Where a successor finds no folder any more it does without;
  // one that is refused it does not enter.
  const auto folder = folder_of(facts.config);
  if (!folder.empty())
    if (const auto fault = enter(folder);
        fault && (!follows || !fault->why.empty()))
      return complain(folder + ": cannot be entered: " + reason_of(*fault));
  if (guardian) {
    if (where.lock() >= 0)
      guardian->hold(lock_name, where.lock());
    if (where.state_lock() >= 0)
      guardian->hold(state_lock_name, where.state_lock());
    guardian->note(own_name, spec.name);
    guardian->note(facts_name, text_of(facts));
  }
  // What a guardian keeps is gone on with.
  if (!follows)
    if (const auto trouble = end_predecessor(spec, where, signals.get())) {
      where.disown();  // the next command finds them again
      return complain(*trouble);
    }
  daemon it{std::move(spec),
            std::move(where),
            std::move(facts),
            std::move(signals),
            what,
            guardian,
            readers,
            std::move(wanted->remarks)};
  return it.run();
}

}  // namespace pup
