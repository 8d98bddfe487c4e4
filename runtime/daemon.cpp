#include "pup/runtime/daemon.hpp"

#include "pup/runtime/host.hpp"
#include "pup/runtime/ipc.hpp"
#include "pup/runtime/machine.hpp"
#include "pup/runtime/place.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>

#include <array>
#include <csignal>
#include <cstdio>
#include <filesystem>

#include <fcntl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

// Tells `pup start` that the supervisor can be reached; see client.cpp.
constexpr const char* up_marker = "pup is up: ";

exit_code complain(const std::string& line,
                   exit_code code = exit_code::failed) {
  std::fprintf(stderr, "%s\n", line.c_str());
  return code;
}

/// The configuration of `pup run` without one.
std::string default_config() {
  for (const auto* name : {"pup.json", "pup.jsonc", "config.json"})
    if (::access(name, F_OK) == 0)
      return name;
  return {};
}

/// SIGTERM and SIGINT become readable instead of ending the process. Blocked
/// before the first thread, so that all inherit it; children get an empty mask.
unique_fd take_signals() {
  std::signal(SIGCHLD, SIG_DFL);
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return unique_fd{::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)};
}

/// From now on standard output and error go to `file`, which ends the pipe that
/// `pup start` listens to. A full disk must not keep the supervisor from
/// running: then they go nowhere.
void leave_terminal(const std::string& file) {
  unique_fd out{
      ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)};
  if (!out)
    out = unique_fd{::open("/dev/null", O_WRONLY | O_CLOEXEC)};
  if (!out)
    return;
  ::dup2(out.get(), STDOUT_FILENO);
  ::dup2(out.get(), STDERR_FILENO);
}

/// The running supervisor: everything on the main thread but the actors.
class daemon {
public:
  daemon(pup_spec spec, place where, std::string config, unique_fd signals,
         bool background)
      : place_(std::move(where)),
        background_(background),
        signals_(loop_, signals.release()) {
    configure(config_, ipc_role::server);
    add_message_types(config_);
    sys_.emplace(config_);
    host_options options;
    options.config = std::move(config);
    options.version = PUP_VERSION;
    options.log_folder = place_.state_folder();
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
    publication_ = publication{};
    host_.reset();
    return result_;
  }

private:
  /// Each control actor gets the socket: its predecessor has failed.
  void announce(const control_actor& x) {
    if (publication_)
      return publication_.republish(x);
    auto made = publish(*sys_, place_.socket_path(), x);
    if (!made) {
      result_ = complain(ipc_text(made.error()));
      return host_->shut_down();
    }
    publication_ = std::move(*made);
    if (!background_) {
      std::printf("pup: '%s' is up, pid %d\n", place_.name().c_str(),
                  ::getpid());
      std::fflush(stdout);
      return;
    }
    std::printf("%s%s\n", up_marker, place_.name().c_str());
    std::fflush(stdout);
    leave_terminal(place_.state_folder() + "/pup.log");
  }

  void ended(const caf::error& reason) {
    if (is(reason, fault::gave_up))
      result_ =
          complain("pup: '" + place_.name() + "' gave up: " + text_of(reason));
    loop_.stop();
  }

  void wait_for_signal() {
    boost::asio::async_read(
        signals_, boost::asio::buffer(&signal_, sizeof(signal_)),
        [this](const boost::system::error_code& error, std::size_t) {
          if (error)
            return;
          // SIGHUP: a terminal that closes is no reason to stop the service.
          if (signal_.ssi_signo != SIGHUP) {
            std::fprintf(stderr, "pup: SIG%s: %s\n",
                         sigabbrev_np(static_cast<int>(signal_.ssi_signo)),
                         asked_to_stop_ ? "killing what is left"
                                        : "stopping; again to kill");
            asked_to_stop_ = true;
            host_->shut_down();
          }
          wait_for_signal();
        });
  }

  place place_;
  bool background_;
  bool asked_to_stop_ = false;
  exit_code result_ = exit_code::done;
  boost::asio::io_context loop_{1};
  boost::asio::posix::stream_descriptor signals_;
  signalfd_siginfo signal_{};
  caf::actor_system_config config_;
  std::optional<caf::actor_system> sys_;
  std::optional<host> host_;
  publication publication_;  // goes first: it refers to the actor system
};

}  // namespace

exit_code run_supervisor(const command& what) {
  const auto file = what.config.empty() ? default_config() : what.config;
  if (file.empty())
    return complain(
        "run: no pup.json, pup.jsonc or config.json here; name a "
        "configuration",
        exit_code::usage);
  auto signals = take_signals();
  auto loaded = load_file(file);
  if (const auto* faults = std::get_if<std::vector<diagnostic>>(&loaded)) {
    for (const auto& x : *faults)
      complain(to_string(x));
    return exit_code::usage;
  }
  auto& spec = std::get<pup_spec>(loaded);
  if (what.name)
    spec.name = *what.name;
  start_facts facts;
  facts.config = canonical(file);
  facts.version = PUP_VERSION;
  facts.started = std::chrono::system_clock::now();
  auto opened = open_place(spec.name, process_environment(), facts);
  if (const auto* error = std::get_if<place_error>(&opened))
    return complain(error->text);
  // A process without "cwd" runs beside its configuration, wherever pup was
  // started from.
  const auto folder = std::filesystem::path{facts.config}.parent_path();
  if (::chdir(folder.c_str()) != 0)
    return complain(folder.string() + ": cannot be entered: "
                    + std::generic_category().message(errno));
  daemon it{std::move(spec), std::move(std::get<place>(opened)),
            std::move(facts.config), std::move(signals), what.background};
  return it.run();
}

}  // namespace pup
