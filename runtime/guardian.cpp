// pup-guardian SUPERVISOR [ARGUMENT…]: the parent of a supervisor and of all
// its processes.
//
// Starts the supervisor (`pup run …`) with one end of a socketpair, whose
// number is in PUP_GUARD_FD, and does what it asks for (guard_protocol.hpp):
// starts processes, signals them, tells of their ends, keeps descriptors and
// notes for a successor. A supervisor that ends without a farewell is started
// again, from the binary that is then on the disk by its path: at once, then
// after 100 ms, twice that, up to 10 s, as long as it ends within 10 s. When
// that one does not get ready, the next is from the binary that last did, and
// so on in turn. One that ends before any has been ready has failed: its exit
// code is passed on. What one notes counts once it is ready: it may write what
// the former binary cannot read.
//
// A supervisor that is stopped (SIGSTOP) for PUP_HANG_TIMEOUT seconds, 30
// unless said, is killed and replaced, unless a debugger holds it.
//
// A supervisor that steps aside (an upgrade) has its successor at once, and is
// left alone until it has carried its last connection. What is in the place of
// this program becomes the guardian first, if it is another one
// (succession.hpp).
//
// SIGTERM, SIGINT, SIGHUP and SIGUSR2 are passed on to the supervisor, so that
// this process is what a terminal, a service manager or a container's runtime
// deals with. SIGQUIT, which several images have as their stop signal, is
// passed on as SIGTERM. One thread decides, others execute programs and wait
// for the file systems of these (spawn_pool.hpp). No timer when idle, no CAF,
// no stream of the standard library: small, and without much that can go wrong.
#include "pup/runtime/archive.hpp"
#include "pup/runtime/descendants.hpp"
#include "pup/runtime/guard_protocol.hpp"
#include "pup/runtime/last_words.hpp"
#include "pup/runtime/proc_file.hpp"
#include "pup/runtime/service_manager.hpp"
#include "pup/runtime/succession.hpp"
#include "pup/runtime/wards.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <malloc.h>
#include <map>
#include <string>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pup {

namespace {

using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds first_delay{100};
constexpr milliseconds longest_delay{10'000};
constexpr int restarts_at_once = 3;
// A supervisor that has been ready for so long begins a new series of failures.
constexpr std::chrono::seconds stable_after{1};
// A supervisor that is stopped for so long is replaced.
constexpr std::chrono::seconds default_hang_timeout{30};
// A timer that comes later than this has not been running all the time.
constexpr std::chrono::seconds noticed_late{5};
// Another guardian takes this one's place when no start is under way. So long
// that is waited for.
constexpr std::chrono::seconds starts_timeout{1};
// For the look of that guardian at what it gets.
constexpr std::chrono::seconds examination_timeout{10};
// Of what a successor gets. Grows with each change of it.
constexpr std::uint32_t state_version = 2;
// For what is left at the very end.
constexpr std::chrono::seconds end_timeout{5};

// So many are left for looks at processes, when the supervisor has sent as many
// as there is room for: a life must not count as ended because nobody could see
// what is left of it.
constexpr rlim_t reserved_descriptors = 16;

// Held descriptors are numbered from here on: those below come and go with
// messages, and a launch costs the less the lower it finds its own.
constexpr int first_held = 64;

// What holds the socket of a supervisor that steps aside, while the program of
// this process changes.
constexpr const char* aside_name = "aside";

/// An encoded message that waits for room in the socket.
struct waiting_message {
  guard::outgoing what;
  std::vector<unique_fd> owned;
};

std::vector<std::string> own_environment() {
  std::vector<std::string> result;
  for (auto** i = ::environ; i != nullptr && *i != nullptr; ++i)
    result.emplace_back(*i);
  return result;
}

sigset_t heard_signals() {
  sigset_t result;
  sigemptyset(&result);
  for (const int x :
       {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, guard::upgrade_signal})
    sigaddset(&result, x);
  return result;
}

/// While it lives what comes with messages leaves room for other things.
class descriptors_reserved {
public:
  descriptors_reserved() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    auto less = before_;
    less.rlim_cur -= std::min(reserved_descriptors, less.rlim_cur);
    ::setrlimit(RLIMIT_NOFILE, &less);
  }
  descriptors_reserved(const descriptors_reserved&) = delete;
  descriptors_reserved& operator=(const descriptors_reserved&) = delete;
  ~descriptors_reserved() {
    ::setrlimit(RLIMIT_NOFILE, &before_);
  }

private:
  rlimit before_{};
};

/// What all the rest relies on.
void set_up_process() {
  for (int fd = 0; fd < 3; ++fd)
    if (::fcntl(fd, F_GETFD) < 0)
      static_cast<void>(::open("/dev/null", O_RDWR));
  raise_descriptor_limit();
  // It varies from now on.
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (programs_descriptor_limit() == 0)
    set_programs_descriptor_limit(limit.rlim_cur);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  // Whatever path it was executed by.
  ::prctl(PR_SET_NAME, "pup-guardian", 0, 0, 0);
  std::signal(SIGCHLD, SIG_DFL);
  std::signal(SIGPIPE, SIG_IGN);
  const auto set = heard_signals();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  // Threads that allocate seldom need no heaps of their own.
  ::mallopt(M_ARENA_MAX, 1);
}

/// After set_up_process().
class guardian {
public:
  explicit guardian(std::vector<std::string> supervisor)
      : command_(std::move(supervisor)) {}

  int run() {
    prepare();
    start_supervisor();
    return serve();
  }

  /// What a predecessor of this process wrote. False: it is not understood.
  bool load(std::string_view bytes) {
    archive_reader from{bytes};
    transfer(from, *this);
    return from.good();
  }

  /// After load(): goes on where that one was.
  int resume() {
    for (auto& [name, fd] : numbers_)
      keep(name, unique_fd{fd});
    numbers_.clear();
    take_aside();
    former_.reset(former_number_);
    for (const auto* x : {&former_, &image_})
      ::fcntl(x->get(), F_SETFD, FD_CLOEXEC);
    listen_to_signals();
    reap();  // what has ended meanwhile
    start_supervisor();
    return serve();
  }

private:
  // -- the loop ---------------------------------------------------------------

  int serve() {
    while (!exit_code_)
      turn();
    end_what_is_left();
    return *exit_code_;
  }

  void prepare() {
    auto sockets = take_service_sockets();
    for (std::size_t i = 0; i < sockets.size(); ++i)
      keep(guard::service_socket_prefix + std::to_string(i),
           std::move(sockets[i]));
    listen_to_signals();
  }

  void listen_to_signals() {
    const auto set = heard_signals();
    signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  }

  void turn() {
    // What the supervisor does not take in must not pile up here, nor what
    // cannot be begun yet.
    short wanted = 0;
    if (!waiting_.empty())
      wanted = POLLOUT;
    else if (!rising_ && !wards_.is_congested())
      wanted = POLLIN;
    std::array<pollfd, 3> events{{{signals_.get(), POLLIN, 0},
                                  {wards_.starts(), POLLIN, 0},
                                  {socket_.get(), wanted, 0}}};
    const auto count = ::poll(events.data(), socket_ ? 3 : 2, timeout_ms());
    if (count > 0 && events[1].revents != 0)
      on_starts();
    if (count > 0 && events[2].revents != 0 && socket_)
      on_socket();
    if (count > 0 && events[0].revents != 0)
      on_signals();
    on_time();
  }

  int timeout_ms() const {
    auto next = wards_.deadline();
    for (const auto& x : {start_at_, come_up_by_, replace_at_, room_by_})
      if (x && (!next || *x < *next))
        next = x;
    if (!next)
      return -1;
    const auto left = std::chrono::ceil<milliseconds>(*next - clock::now());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
  }

  void on_time() {
    if (const auto due = wards_.deadline(); due && *due <= clock::now()) {
      wards_.on_time();
      tell_news();
    }
    if (start_at_ && *start_at_ <= clock::now())
      start_supervisor();
    if (room_by_)
      make_room();
    if (replace_at_ && *replace_at_ <= clock::now())
      replace_stopped();
    if (come_up_by_ && *come_up_by_ <= clock::now()) {
      // Again, should it not die of that.
      come_up_by_ = clock::now() + guard::come_up_timeout;
      kill_supervisor();
    }
  }

  void kill_supervisor() {
    if (rising_)
      wards_.give_up_apart();
    else if (supervisor_ != 0)
      ::kill(supervisor_, SIGKILL);
  }

  void on_signals() {
    signalfd_siginfo info{};
    bool child = false;
    while (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
      const auto signo = static_cast<int>(info.ssi_signo);
      if (signo == SIGCHLD)
        child = true;
      else
        pass_on(signo == SIGQUIT ? SIGTERM : signo);
    }
    if (!child)
      return;
    reap();
    on_starts();  // some may have been taken on the way
    look_whether_stopped();
  }

  void reap() {
    const auto end = wards_.reap(supervisor_);
    tell_news();
    if (end)
      supervisor_ended(*end);
  }

  void on_starts() {
    wards_.take_starts();
    const auto risen = wards_.started_apart();
    tell_news();
    if (!risen)
      return;
    rising_ = false;
    if (const auto* fault = std::get_if<os_fault>(&*risen))
      return cannot_start(*fault);
    supervisor_ = std::get<pid_t>(*risen);
    if (aside_ && successor_.empty()) {
      static_cast<void>(
          guard::send(aside_.get(), guard::encode(guard::complete{})));
      aside_.reset();
    }
    reap();  // it may have ended
  }

  // One that cannot hear it yet gets it as soon as it is ready.
  void pass_on(int signo) {
    if (supervisor_ != 0 && heeds_signals_) {
      ::kill(supervisor_, signo);
      return;
    }
    if (signo == SIGHUP || signo == guard::upgrade_signal)
      return;
    if (pending_signal_ != 0) {  // the second one: no more patience
      exit_code_ = 128 + signo;
      return;
    }
    pending_signal_ = signo;
    if (start_at_)
      start_at_ = clock::now();
  }

  // -- a supervisor that is stopped (SIGSTOP) ---------------------------------

  // Both changes raise SIGCHLD; an end is told elsewhere.
  void look_whether_stopped() {
    siginfo_t info{};
    if (supervisor_ == 0 || !successor_.empty()
        || ::waitid(P_PID, static_cast<id_t>(supervisor_), &info,
                    WSTOPPED | WCONTINUED | WNOHANG)
               != 0
        || info.si_pid == 0)
      return;
    if (info.si_code == CLD_CONTINUED)
      replace_at_.reset();
    else if (!replace_at_)
      replace_at_ = clock::now() + hang_timeout();
  }

  /// A person with a debugger knows what they do.
  static bool is_traced(pid_t pid) {
    const auto status =
        read_proc_file("/proc/" + std::to_string(pid) + "/status");
    const auto at = status.find("\nTracerPid:\t");
    return at != std::string::npos && status[at + 12] != '0';
  }

  void replace_stopped() {
    look_whether_stopped();  // it may go on by now
    if (supervisor_ == 0)
      replace_at_.reset();
    if (!replace_at_ || *replace_at_ > clock::now())
      return;
    const auto late = clock::now() - *replace_at_;
    replace_at_.reset();
    // This process was stopped as well, or the machine: nobody had the time.
    if (late > noticed_late || is_traced(supervisor_)) {
      replace_at_ = clock::now() + hang_timeout();
      return;
    }
    std::fprintf(stderr,
                 "pup: the supervisor, pid %d, has been stopped (SIGSTOP) for "
                 "%lld s; another one takes its place\n",
                 supervisor_, static_cast<long long>(hang_timeout().count()));
    ::kill(supervisor_, SIGKILL);
  }

  /// PUP_HANG_TIMEOUT of the environment, in seconds.
  static std::chrono::seconds hang_timeout() {
    static const auto result = [] {
      const auto* text = std::getenv("PUP_HANG_TIMEOUT");
      char* end = nullptr;
      const auto value = text == nullptr ? 0L : std::strtol(text, &end, 10);
      const auto good = text != nullptr && *text != '\0' && *end == '\0'
                        && value > 0 && value <= 86'400;
      return good ? std::chrono::seconds{value} : default_hang_timeout;
    }();
    return result;
  }

  // -- the supervisor ---------------------------------------------------------

  void start_supervisor() {
    start_at_.reset();
    drop_drafts();
    // The former supervisor may not understand any other guardian.
    if (from_image_ && former_)
      return make_room_for("/proc/" + std::to_string(::getpid()) + "/fd/"
                           + std::to_string(former_.get()));
    execute_supervisor();
  }

  void execute_supervisor() {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data())
        != 0)
      return cannot_start({"socketpair", "", errno});
    socket_.reset(ends[0]);
    std::vector<unique_fd> theirs;
    theirs.emplace_back(ends[1]);
    ::fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
    spawn_request request;
    request.argv = command_;
    if (from_image_)
      request.program = "/proc/" + std::to_string(::getpid()) + "/fd/"
                        + std::to_string(image_.get());
    request.environment = own_environment();
    request.environment.emplace_back("PUP_GUARD_FD=3");
    request.stdin_fd = STDIN_FILENO;
    request.stdout_fd = STDOUT_FILENO;
    request.stderr_fd = STDERR_FILENO;
    request.ready_fd = theirs.front().get();  // becomes 3
    wards_.start_apart(std::move(request), std::move(theirs));
    rising_ = true;
    heeds_signals_ = false;
    farewell_.reset();
    if (was_ready_)
      come_up_by_ = clock::now() + guard::come_up_timeout * (1 + losses_);
    introduce();
  }

  void cannot_start(const os_fault& fault) {
    if (!successor_.empty())
      return stay("it cannot be executed: " + to_string(fault));
    std::fprintf(stderr, "pup: the supervisor cannot be started: %s%s\n",
                 to_string(fault).c_str(), remedy_of(fault.code));
    socket_.reset();
    waiting_.clear();
    come_up_by_.reset();
    if (!was_ready_)
      exit_code_ = 1;
    else
      did_not_come_up("cannot be started: " + to_string(fault));
  }

  // All that is kept for it.
  void introduce() {
    guard::welcome hello;
    hello.guardian = ::getpid();
    hello.last_number = last_number_;
    hello.predecessors = predecessors_;
    hello.last_end = last_end_;
    hello.refusal = refusal_;
    say(hello);
    const auto now = clock::now();
    for (const auto& [number, x] : wards_.all()) {
      say(guard::inherited{
          number, x.key, x.life, x.pid,
          std::chrono::duration_cast<milliseconds>(now - x.begun).count(),
          x.mark, x.now == ward::phase::starts,
          x.ending_since
              ? std::chrono::duration_cast<milliseconds>(now - *x.ending_since)
                    .count()
              : -1});
      if (x.now == ward::phase::ended)
        say(x.end);
      else if (x.told)
        say(x.rest);
    }
    if (!wards_.strays().empty())
      say(guard::strays{wards_.strays()});
    for (const auto& [name, fd] : held_)
      say(guard::held{{name, {fd.get()}}});
    for (const auto& [name, bytes] : notes_)
      say(guard::noted{name, bytes});
    say(guard::complete{});
  }

  void supervisor_ended(const exit_of& end) {
    if (!successor_.empty())
      return examined(end);
    come_up_by_.reset();
    replace_at_.reset();
    // What it has said before its end counts.
    while (socket_ && supervisor_ == end.pid && take_message()) {}
    if (supervisor_ != end.pid)
      return;  // its last word was that it steps aside
    socket_.reset();
    waiting_.clear();
    supervisor_ = 0;
    const auto code = end.signal != 0 ? 128 + end.signal : end.code;
    if (farewell_) {
      exit_code_ = *farewell_;
      return;
    }
    if (!was_ready_) {
      exit_code_ = code;
      return;
    }
    ++predecessors_;
    last_end_ = end.signal != 0
                    ? std::string{"killed by SIG"} + ::sigabbrev_np(end.signal)
                    : "exited with code " + std::to_string(end.code);
    if (!heeds_signals_)
      return did_not_come_up(last_end_);
    std::fprintf(stderr,
                 "pup: the supervisor, pid %d, was lost (%s); starting "
                 "another one\n",
                 end.pid, last_end_.c_str());
    start_later();
  }

  // The next one is from the other binary, where there are two.
  void did_not_come_up(const std::string& how) {
    std::fprintf(stderr, "pup: a supervisor from %s did not come up: %s\n",
                 from_image_ ? "the former program" : command_.front().c_str(),
                 how.c_str());
    if (!from_image_)
      refusal_ = command_.front() + ": did not come up: " + how;
    from_image_ = !from_image_ && image_;
    start_later();
  }

  void start_later() {
    const auto now = clock::now();
    if (heeds_signals_ && now - ready_since_ >= stable_after) {
      losses_ = 0;
      delay_ = first_delay;
    }
    start_at_ = now;
    if (++losses_ <= restarts_at_once || pending_signal_ != 0)
      return;
    *start_at_ += delay_;
    delay_ = std::min(delay_ * 2, longest_delay);
  }

  // -- what is said -----------------------------------------------------------

  void on_socket() {
    flush();
    // What else is there comes after the signals had their turn.
    for (int i = 0; i < 64 && socket_ && waiting_.empty()
                    && !wards_.is_congested() && take_message();
         ++i) {}
  }

  void say(const guard::message& x) {
    if (!socket_)
      return;
    auto what = guard::encode(x);
    if (waiting_.empty()) {
      const auto result = guard::send(socket_.get(), what);
      if (result != guard::send_result::would_block)
        return;  // broken: its end is about to be told by SIGCHLD
    }
    waiting_message later;
    for (auto& fd : what.descriptors) {
      later.owned.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
      fd = later.owned.back().get();
    }
    later.what = std::move(what);
    waiting_.push_back(std::move(later));
  }

  void flush() {
    while (socket_ && !waiting_.empty()) {
      if (guard::send(socket_.get(), waiting_.front().what)
          == guard::send_result::would_block)
        return;
      waiting_.pop_front();
    }
  }

  void tell_news() {
    for (const auto& x : wards_.news())
      say(x);
  }

  guard::receive_result receive(guard::packet& to) {
    const descriptors_reserved guard;
    return guard::receive(socket_.get(), to);
  }

  /// False: there is none, or nobody to expect one from.
  bool take_message() {
    guard::packet packet;
    switch (receive(packet)) {
      case guard::receive_result::would_block:
        return false;
      case guard::receive_result::received:
        break;
      case guard::receive_result::closed:  // it is about to end
        socket_.reset();
        waiting_.clear();
        return false;
      case guard::receive_result::broken:
        return break_off();
    }
    auto message = guard::decode(packet);
    return std::visit([&](auto& x) { return take(x, packet); }, message);
  }

  // It talks nonsense, and cannot go on.
  bool break_off() {
    socket_.reset();
    waiting_.clear();
    kill_supervisor();
    return false;
  }

  template <class T>
  bool take(const T&, const guard::packet&) {
    return break_off();
  }

  bool take(guard::start& x, guard::packet& packet) {
    last_number_ = std::max(last_number_, x.number);
    if (packet.truncated) {
      say(guard::start_failed{x.number, "recvmsg", "descriptors for " + x.key,
                              EMFILE});
      return true;
    }
    if (x.number == 0 || wards_.find(x.number) != nullptr)
      return break_off();
    for (auto& y : x.hold)
      keep(y.name, packet.take(y.what));
    wards_.start(x, std::move(packet.descriptors));
    return true;
  }

  bool take(const guard::signal& x, const guard::packet&) {
    wards_.signal(x.number, x.signo);
    return true;
  }

  bool take(const guard::stop& x, const guard::packet&) {
    wards_.stop(x.number, x.signo);
    return true;
  }

  bool take(guard::mark& x, const guard::packet&) {
    if (auto* y = wards_.find(x.number))
      y->mark = std::move(x.bytes);
    // It has come to something, and what it has started is below it still.
    wards_.look_at(x.number);
    return true;
  }

  bool take(const guard::forget& x, const guard::packet&) {
    if (heeds_signals_)
      wards_.forget(x.number);
    else
      forgotten_.push_back(x.number);
    return true;
  }

  bool take(const guard::hold& x, guard::packet& packet) {
    if (auto fd = packet.take(x.what.what))
      keep(x.what.name, std::move(fd));
    return true;
  }

  void keep(const std::string& name, unique_fd fd) {
    const descriptors_reserved guard;
    const auto high = ::fcntl(fd.get(), F_DUPFD_CLOEXEC, first_held);
    held_[name] = high < 0 ? std::move(fd) : unique_fd{high};
  }

  bool take(const guard::drop& x, const guard::packet&) {
    held_.erase(x.name);
    return true;
  }

  bool take(guard::note& x, const guard::packet&) {
    if (heeds_signals_)
      write_down(x.name, std::move(x.bytes));
    else
      drafts_[x.name] = std::move(x.bytes);
    return true;
  }

  void write_down(const std::string& name, std::string bytes) {
    if (bytes.empty())
      notes_.erase(name);
    else
      notes_[name] = std::move(bytes);
  }

  // -- drafts: what one that is not ready yet has said ------------------------

  void take_over_drafts() {
    for (auto& [name, bytes] : std::exchange(drafts_, {}))
      write_down(name, std::move(bytes));
    for (const auto number : std::exchange(forgotten_, {}))
      wards_.forget(number);
  }

  // The next one judges an end again, unless a newer life has followed it.
  void drop_drafts() {
    drafts_.clear();
    for (const auto number : std::exchange(forgotten_, {})) {
      const auto* x = wards_.find(number);
      const auto& all = wards_.all();
      if (x != nullptr
          && std::any_of(all.begin(), all.end(), [&](const auto& y) {
               return y.second.key == x->key && y.second.life > x->life;
             }))
        wards_.forget(number);
    }
  }

  bool take(const guard::ready&, const guard::packet&) {
    was_ready_ = true;
    heeds_signals_ = true;
    former_.reset();  // this one understands us, and so does what follows it
    take_over_drafts();
    come_up_by_.reset();
    if (!from_image_) {
      refusal_.clear();
      image_.reset(
          ::open(("/proc/" + std::to_string(supervisor_) + "/exe").c_str(),
                 O_PATH | O_CLOEXEC));
    }
    from_image_ = false;  // it may be another one by then
    ready_since_ = clock::now();
    if (pending_signal_ != 0)
      ::kill(supervisor_, std::exchange(pending_signal_, 0));
    return true;
  }

  bool take(const guard::away& x, guard::packet& packet) {
    const auto fd = packet.take(x.output);
    if (!fd)
      return true;
    ::dup2(fd.get(), STDOUT_FILENO);
    ::dup2(fd.get(), STDERR_FILENO);
    return true;
  }

  bool take(const guard::tell& x, const guard::packet&) {
    tell_service_manager(x.text);
    return true;
  }

  bool take(const guard::aside&, const guard::packet&) {
    if (!heeds_signals_)
      return break_off();
    replace_at_.reset();
    std::fprintf(stderr, "pup: the supervisor, pid %d, makes room for %s\n",
                 supervisor_, command_.front().c_str());
    supervisor_ = 0;
    waiting_.clear();
    // It waits until that is closed, when its successor is started: were this
    // process killed before, it would end what is left.
    aside_ = std::move(socket_);
    ++predecessors_;
    last_end_ = "stepped aside";
    refusal_.clear();
    losses_ = 0;
    // Whether another program is there now is found out by executing it: its
    // file system may not answer.
    if (own_program().empty())
      start_supervisor();
    else
      make_room_for(own_program());
    return true;
  }

  bool take(const guard::farewell& x, const guard::packet&) {
    farewell_ = x.exit_code;
    return true;
  }

  // -- another guardian in this one's place -----------------------------------

  // There is no supervisor now, so no start is asked for.
  void make_room_for(std::string program) {
    successor_ = std::move(program);
    heeds_signals_ = false;
    room_by_ = clock::now() + starts_timeout;
    make_room();
  }

  void make_room() {
    no_room_ = wards_.starts_something();
    if (no_room_ && *room_by_ > clock::now())
      return;
    room_by_.reset();
    // Without room it is asked all the same: it may be no other program.
    auto state = no_room_ ? memory_file_of({}) : save();
    if (const auto* fault = std::get_if<os_fault>(&state))
      return stay(to_string(*fault));
    std::vector<unique_fd> owned;
    owned.push_back(std::move(std::get<unique_fd>(state)));
    spawn_request request;
    request.argv = {successor_, "--examine"};
    request.environment = own_environment();
    request.stdout_fd = STDOUT_FILENO;
    request.stderr_fd = STDERR_FILENO;
    request.ready_fd = owned.front().get();
    wards_.start_apart(std::move(request), std::move(owned));
    rising_ = true;
    come_up_by_ = clock::now() + examination_timeout;
  }

  void examined(const exit_of& end) {
    supervisor_ = 0;
    come_up_by_.reset();
    if (end.signal != 0)
      return stay(std::string{"it was ended by SIG"}
                  + ::sigabbrev_np(end.signal));
    if (end.code == static_cast<int>(verdict::same_program))
      return go_on();
    if (no_room_)
      return stay("a start is under way that takes long");
    if (end.code != static_cast<int>(verdict::understood))
      return stay("it does not understand what this one has to hand over");
    // Again: something may have ended meanwhile.
    wards_.before_transfer();
    if (aside_)
      keep(aside_name, std::move(aside_));
    auto state = save();
    if (const auto* fault = std::get_if<os_fault>(&state)) {
      take_aside();
      return stay(to_string(*fault));
    }
    const auto& file = std::get<unique_fd>(state);
    std::vector<int> kept{former_number_, image_.get()};
    for (const auto& [name, fd] : held_)
      kept.push_back(fd.get());
    std::fprintf(stderr, "pup: the guardian, pid %d, becomes %s\n", ::getpid(),
                 successor_.c_str());
    const auto fault =
        become(successor_, command_, file.get(), former_number_, kept);
    take_aside();
    stay(to_string(fault));
  }

  void take_aside() {
    if (auto kept = held_.extract(aside_name); !kept.empty())
      aside_ = std::move(kept.mapped());
  }

  void stay(const std::string& why) {
    std::fprintf(
        stderr,
        "pup: the guardian, pid %d, is not replaced by %s: %s; this "
        "one goes on. pup terminate and pup start replace it, and stop "
        "and start everything\n",
        ::getpid(), successor_.c_str(), why.c_str());
    go_on();
  }

  void go_on() {
    successor_.clear();
    room_by_.reset();
    come_up_by_.reset();
    own_image_.reset();
    execute_supervisor();
  }

  std::variant<unique_fd, os_fault> save() {
    // The way back, unless this is it.
    own_image_.reset(
        from_image_ ? -1 : ::open("/proc/self/exe", O_PATH | O_CLOEXEC));
    former_number_ = own_image_.get();
    numbers_.clear();
    for (const auto& [name, fd] : held_)
      numbers_[name] = fd.get();
    archive_writer to;
    transfer(to, *this);
    numbers_.clear();
    return memory_file_of(to.bytes());
  }

  template <class Archive>
  friend void transfer(Archive& a, guardian& x) {
    auto version = state_version;
    a(version);
    a.require(version == state_version);
    auto limit = programs_descriptor_limit();
    auto image = x.image_.get();
    a(limit, image, x.former_number_, x.numbers_, x.notes_, x.last_number_,
      x.pending_signal_, x.from_image_, x.refusal_, x.was_ready_,
      x.predecessors_, x.last_end_, x.losses_, x.wards_);
    x.adopt(limit, image);
  }

  // One that writes gets back what it has.
  void adopt(std::uint64_t limit, int image) {
    set_programs_descriptor_limit(limit);
    if (image != image_.get())
      image_.reset(image);
  }

  // -- the end ----------------------------------------------------------------

  void end_what_is_left() {
    socket_.reset();
    const auto deadline = clock::now() + end_timeout;
    // Each end is told by SIGCHLD, and may leave further children to us.
    for (;;) {
      static_cast<void>(wards_.reap(supervisor_));
      if (!wards_.kill_all())
        return;
      const auto left =
          std::chrono::ceil<milliseconds>(deadline - clock::now()).count();
      pollfd one{signals_.get(), POLLIN, 0};
      if (left <= 0 || ::poll(&one, 1, static_cast<int>(left)) == 0)
        return complain_of_what_is_left();
      signalfd_siginfo info{};
      while (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {}
    }
  }

  // Not even SIGKILL has ended it: it waits in the kernel.
  void complain_of_what_is_left() {
    static_cast<void>(wards_.reap(supervisor_));
    for (const auto pid : children_of(::getpid())) {
      std::fprintf(stderr, "pup: %s does not end, not even by SIGKILL\n",
                   describe_process(pid).c_str());
      exit_code_ = std::max(*exit_code_, 1);
    }
  }

  std::vector<std::string> command_;
  wards wards_;
  std::map<std::string, unique_fd> held_;
  std::map<std::string, std::string> notes_;
  // Of the current supervisor, until it is ready. Empty bytes: a note goes.
  std::map<std::string, std::string> drafts_;
  std::vector<std::uint64_t> forgotten_;
  std::uint64_t last_number_ = 0;

  unique_fd signals_;
  int pending_signal_ = 0;

  pid_t supervisor_ = 0;
  bool rising_ = false;  // it has not executed its program yet
  // Of the last supervisor that was ready, whatever its path leads to by now.
  unique_fd image_;
  bool from_image_ = false;  // the current or next supervisor
  std::string refusal_;
  // Another guardian, while it is to take the place of this one.
  std::string successor_;
  std::optional<clock::time_point> room_by_;
  bool no_room_ = false;  // a start has been under way until then
  unique_fd own_image_;
  unique_fd former_;  // the guardian that has become this one
  // For transfer() only.
  int former_number_ = -1;
  std::map<std::string, int> numbers_;
  std::optional<clock::time_point> come_up_by_;
  std::optional<clock::time_point> replace_at_;  // one that is stopped
  unique_fd socket_;
  unique_fd aside_;  // the socket of one that steps aside
  std::deque<waiting_message> waiting_;
  clock::time_point ready_since_;
  bool was_ready_ = false;      // some supervisor
  bool heeds_signals_ = false;  // this one
  std::optional<int> farewell_;
  std::uint32_t predecessors_ = 0;
  std::string last_end_;
  int losses_ = 0;  // in a row
  milliseconds delay_ = first_delay;
  std::optional<clock::time_point> start_at_;
  std::optional<int> exit_code_;
};

verdict examine() {
  if (runs_program_of_parent())
    return verdict::same_program;
  return guardian{{}}.load(bytes_of_memory_file(examined_fd))
             ? verdict::understood
             : verdict::not_understood;
}

int resume(legacy from, const std::vector<std::string>& supervisor) {
  guardian result{supervisor};
  if (result.load(bytes_of_memory_file(from.state.get()))) {
    from.state.reset();
    return result.resume();
  }
  std::fprintf(stderr,
               "pup: the guardian, pid %d, does not understand its "
               "predecessor, which goes on\n",
               ::getpid());
  const auto fault = go_back(from, supervisor);
  std::fprintf(stderr, "pup: it cannot go on: %s\n", to_string(fault).c_str());
  return 1;
}

}  // namespace

}  // namespace pup

int main(int argc, char** argv) {
  const std::vector<std::string> arguments{argv + 1, argv + argc};
  if (arguments.empty()) {
    std::fputs("pup-guardian: belongs to pup, which starts it\n", stderr);
    return 2;
  }
  if (arguments.front() == "--examine")
    return static_cast<int>(pup::examine());
  pup::prepare_last_words();
  pup::set_up_process();
  static_cast<void>(pup::own_program());
  if (auto from = pup::inherited_state(); from.state)
    return pup::resume(std::move(from), arguments);
  return pup::guardian{arguments}.run();
}
