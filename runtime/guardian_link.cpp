#include "pup/runtime/guardian_link.hpp"

#include "pup/runtime/cgroup.hpp"
#include "pup/runtime/descendants.hpp"
#include "pup/runtime/life_cgroup.hpp"
#include "pup/runtime/pidfd.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <deque>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace pup {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::chrono::seconds end_timeout{5};

// Between two waits for the socket, so that others on the loop have their turn.
constexpr int messages_per_turn = 64;

/// An encoded message that waits for room in the socket.
struct waiting_message {
  guard::outgoing what;
  std::vector<unique_fd> owned;
};

exit_status status_of(const guard::leader_end& x) {
  return {x.pid, x.code, x.signal, x.core, x.memory, x.cpu_us, x.max_rss_kb};
}

leader_end end_of(const guard::leader_ended& x) {
  return {status_of(x.how), x.left, x.left_example};
}

burial burial_of(const guard::ended& x) {
  return {status_of(x.how), x.gone, x.killed, x.killed_example, x.strays};
}

class link : public guardian_link, public std::enable_shared_from_this<link> {
public:
  explicit link(unique_fd socket) : socket_(std::move(socket)) {}

  /// Why it failed; empty: it has not.
  std::string shake_hands();

  [[nodiscard]] pid_t parent() const override {
    return guardian();
  }
  [[nodiscard]] pid_t guardian() const override {
    return guardian_;
  }
  inheritance& inherited() override {
    return inherited_;
  }

  void watch(asio::io_context& loop, std::function<void()> lost) override;
  void ignore() override;

  void note(const std::string& name, const std::string& bytes) override {
    say(guard::note{name, bytes});
  }
  void hold(const std::string& name, int fd) override {
    say(guard::hold{{name, {fd}}});
  }
  void drop(const std::string& name) override {
    say(guard::drop{name});
  }
  [[nodiscard]] std::vector<std::string> strays() const override {
    const std::lock_guard guard{mutex_};
    return strays_;
  }
  void ready() override {
    say(guard::ready{});
  }
  void away(int output) override {
    say(guard::away{{output}});
  }
  void tell(const std::string& text) override {
    say(guard::tell{text});
  }
  void farewell(int exit_code) override {
    static_cast<void>(say_last(guard::farewell{exit_code}));
  }
  void fall_silent() override {
    const std::lock_guard guard{mutex_};
    silent_ = true;
  }
  bool step_aside() override {
    return say_last(guard::aside{}) && await_hangup();
  }

  void connect(spawner_events events) override;
  std::uint64_t start(const start_order& order) override;
  std::optional<os_fault> signal(std::uint64_t number, int signo) override;
  void stop(std::uint64_t number, int signo) override;
  [[nodiscard]] bool runs(std::uint64_t number) const override;
  void mark(std::uint64_t number, const std::string& bytes) override {
    say(guard::mark{number, bytes});
  }
  void forget(std::uint64_t number) override {
    say(guard::forget{number});
  }
  void release(const std::string& name) override {
    say(guard::drop{name});
  }
  void adopt(inherited_process x) override;
  void end_all() override;

private:
  bool keep(guard::message&& x, guard::packet& from);
  void say(const guard::message& x);
  bool try_to_say(const guard::message& x);
  bool say_last(const guard::message& x);
  bool await_hangup();
  void await_room();
  void flush();
  bool send_waiting();
  bool is_silent();
  void listen();
  void hear();
  bool take_message();
  void lose();
  void hand_over(inherited_process x, std::uint64_t leader_started);
  template <class Step>
  void later(Step step);

  void take(const guard::started& x, const guard::packet& from);
  void take(const guard::start_failed& x, const guard::packet& from);
  void take(const guard::leader_ended& x, guard::packet& from);
  void take(const guard::ended& x, guard::packet& from);
  void take(guard::strays& x, guard::packet& from);
  template <class T>
  void take(const T&, const guard::packet&) {
    lose();
  }

  unique_fd socket_;
  pid_t guardian_ = 0;
  inheritance inherited_;
  std::string scope_;
  std::string cgroups_;  // where lives may have one; empty: nowhere
  std::function<void()> lost_;

  // Of what follows, for the length of a system call.
  mutable std::mutex mutex_;
  std::deque<waiting_message> waiting_;
  bool broken_ = false;
  bool silent_ = false;  // what is said is dropped
  std::vector<std::string> strays_;

  // The loop's own.
  asio::io_context* loop_ = nullptr;
  std::optional<asio::posix::stream_descriptor> events_of_socket_;
  spawner_events events_;
  std::uint64_t last_number_ = 0;
  struct life {
    pid_t leader = 0;  // 0: it is to be started
    std::uint64_t leader_started = 0;
    bool leader_ended = false;
  };
  std::unordered_map<std::uint64_t, life> lives_;
  // Of inherited processes that nobody has adopted yet.
  std::unordered_map<std::uint64_t,
                     std::variant<guard::started, guard::start_failed>>
      early_launches_;
  std::unordered_map<std::uint64_t, leader_end> early_leader_ends_;
  std::unordered_map<std::uint64_t, burial> early_ends_;
  std::shared_ptr<spawner> orphans_;  // once the guardian is lost
};

// -- the handshake ------------------------------------------------------------

std::string link::shake_hands() {
  for (bool first = true;; first = false) {
    guard::packet packet;
    if (guard::receive(socket_.get(), packet)
        != guard::receive_result::received)
      return "the guardian does not speak";
    auto message = guard::decode(packet);
    if (first) {
      const auto* hello = std::get_if<guard::welcome>(&message);
      if (hello == nullptr || hello->version != guard::version)
        return "the guardian is of another version of pup ("
               + (hello == nullptr ? std::string{"unknown"}
                                   : std::to_string(hello->version))
               + ", this program speaks " + std::to_string(guard::version)
               + "), and was not replaced by this upgrade; once, run pup "
                 "terminate and pup start, which stops and starts everything";
      guardian_ = hello->guardian;
      scope_ = std::to_string(guardian_) + '.'
               + std::to_string(start_ticks(guardian_));
      cgroups_ = cgroup_for_lives(guardian_);
      remove_former_life_cgroups(cgroups_);
      last_number_ = hello->last_number;
      inherited_.predecessors = hello->predecessors;
      inherited_.last_end = hello->last_end;
      inherited_.refusal = hello->refusal;
      continue;
    }
    if (std::holds_alternative<guard::complete>(message))
      return {};
    if (!keep(std::move(message), packet))
      return "the guardian says what is not understood";
  }
}

bool link::keep(guard::message&& x, guard::packet& from) {
  if (auto* held = std::get_if<guard::held>(&x)) {
    inherited_.held[held->what.name] = from.take(held->what.what);
  } else if (auto* noted = std::get_if<guard::noted>(&x)) {
    inherited_.notes[noted->name] = std::move(noted->bytes);
  } else if (auto* y = std::get_if<guard::inherited>(&x)) {
    inherited_.processes.push_back(
        {y->number, std::move(y->key), y->life, y->pid, milliseconds{y->age_ms},
         std::move(y->mark), unique_fd{}, y->launching, std::nullopt,
         std::nullopt, std::nullopt});
    if (y->ending_ms >= 0)
      inherited_.processes.back().ending = milliseconds{y->ending_ms};
  } else if (const auto* first = std::get_if<guard::leader_ended>(&x)) {
    for (auto& z : inherited_.processes)
      if (z.number == first->number)
        z.leader_ended = end_of(*first);
  } else if (const auto* end = std::get_if<guard::ended>(&x)) {
    for (auto& z : inherited_.processes)
      if (z.number == end->number)
        z.end = burial_of(*end);
  } else if (auto* loose = std::get_if<guard::strays>(&x)) {
    take(*loose, from);
  } else {
    return false;
  }
  return true;
}

void link::watch(asio::io_context& loop, std::function<void()> lost) {
  loop_ = &loop;
  lost_ = std::move(lost);
  ::fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
  asio::post(loop, [self = shared_from_this()] {
    error_code error;
    self->events_of_socket_.emplace(*self->loop_);
    self->events_of_socket_->assign(
        ::fcntl(self->socket_.get(), F_DUPFD_CLOEXEC, 3), error);
    if (error)
      return self->lose();
    self->listen();
    self->await_room();
  });
}

void link::ignore() {
  events_of_socket_.reset();
  events_ = {};
  lost_ = nullptr;
  orphans_.reset();
}

// -- saying -------------------------------------------------------------------

void link::say(const guard::message& x) {
  static_cast<void>(try_to_say(x));
}

// False: it cannot be said; errno says why.
bool link::try_to_say(const guard::message& x) {
  auto what = guard::encode(x);
  const std::lock_guard guard{mutex_};
  if (silent_)
    return true;
  if (broken_) {
    errno = EPIPE;
    return false;
  }
  if (waiting_.empty()) {
    const auto result = guard::send(socket_.get(), what);
    if (result != guard::send_result::would_block)
      return result == guard::send_result::sent;
  }
  waiting_message later;
  for (auto& fd : what.descriptors) {
    later.owned.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
    if (!later.owned.back())
      return false;
    fd = later.owned.back().get();
  }
  later.what = std::move(what);
  waiting_.push_back(std::move(later));
  if (waiting_.size() == 1 && loop_ != nullptr)
    asio::post(*loop_, [self = shared_from_this()] { self->await_room(); });
  return true;
}

// Returns when it has been said, and all that waited before it: no loop will do
// that later. False: the guardian has ended.
bool link::say_last(const guard::message& x) {
  const std::lock_guard guard{mutex_};
  if (broken_)
    return false;
  waiting_.push_back({guard::encode(x), {}});
  while (!waiting_.empty()) {
    const auto result = guard::send(socket_.get(), waiting_.front().what);
    if (result == guard::send_result::broken)
      return false;
    if (result == guard::send_result::sent) {
      waiting_.pop_front();
      continue;
    }
    // The guardian does not listen while it has something to say. It will say
    // it to the successor again.
    pollfd event{socket_.get(), POLLIN | POLLOUT, 0};
    ::poll(&event, 1, -1);
    guard::packet ignored;
    if ((event.revents & POLLIN) != 0)
      static_cast<void>(guard::receive(socket_.get(), ignored));
  }
  return true;
}

// True: a successor is started. The guardian says so and hangs up; one that is
// killed hangs up alone, and is our parent still for a moment.
bool link::await_hangup() {
  bool relieved = false;
  for (;;) {
    pollfd event{socket_.get(), POLLIN, 0};
    if (::poll(&event, 1, -1) < 0 && errno != EINTR)
      return false;
    guard::packet packet;
    switch (guard::receive(socket_.get(), packet)) {
      case guard::receive_result::received:
        relieved =
            relieved
            || std::holds_alternative<guard::complete>(guard::decode(packet));
        break;
      case guard::receive_result::would_block:
        break;
      default:
        return relieved;
    }
  }
}

void link::await_room() {
  if (!events_of_socket_)
    return;
  {
    const std::lock_guard guard{mutex_};
    if (waiting_.empty())
      return;
  }
  events_of_socket_->async_wait(asio::posix::stream_descriptor::wait_write,
                                [self = shared_from_this()](error_code error) {
                                  if (!error)
                                    self->flush();
                                });
}

void link::flush() {
  static_cast<void>(send_waiting());
  await_room();
}

// False: there is no room for all of it.
bool link::send_waiting() {
  const std::lock_guard guard{mutex_};
  while (!waiting_.empty()
         && guard::send(socket_.get(), waiting_.front().what)
                != guard::send_result::would_block)
    waiting_.pop_front();
  return waiting_.empty();
}

bool link::is_silent() {
  const std::lock_guard guard{mutex_};
  return silent_;
}

// -- hearing ------------------------------------------------------------------

void link::listen() {
  events_of_socket_->async_wait(asio::posix::stream_descriptor::wait_read,
                                [self = shared_from_this()](error_code error) {
                                  if (!error)
                                    self->hear();
                                });
}

void link::hear() {
  for (int i = 0; i < messages_per_turn && events_of_socket_; ++i)
    if (!take_message())
      break;
  if (events_of_socket_)
    listen();
}

bool link::take_message() {
  guard::packet packet;
  switch (guard::receive(socket_.get(), packet)) {
    case guard::receive_result::would_block:
      return false;
    case guard::receive_result::received:
      break;
    default:
      lose();
      return false;
  }
  auto message = guard::decode(packet);
  std::visit([&](auto& x) { take(x, packet); }, message);
  return true;
}

void link::take(const guard::started& x, const guard::packet&) {
  const auto i = lives_.find(x.number);
  if (i == lives_.end()) {
    early_launches_.emplace(x.number, x);
    return;
  }
  i->second.leader = x.pid;
  i->second.leader_started = start_ticks(x.pid);
  if (events_.started)
    events_.started(x.number, x.pid);
}

void link::take(const guard::start_failed& x, const guard::packet&) {
  if (lives_.erase(x.number) == 0)
    early_launches_.emplace(x.number, x);
  else if (events_.failed)
    events_.failed(x.number, {x.call, x.object, x.code});
}

void link::take(const guard::leader_ended& x, guard::packet&) {
  const auto i = lives_.find(x.number);
  if (i == lives_.end()) {
    early_leader_ends_.emplace(x.number, end_of(x));
    return;
  }
  i->second.leader_ended = true;
  if (events_.leader_ended)
    events_.leader_ended(x.number, end_of(x));
}

void link::take(const guard::ended& x, guard::packet&) {
  if (lives_.erase(x.number) == 0)
    early_ends_.emplace(x.number, burial_of(x));
  else if (events_.ended)
    events_.ended(x.number, burial_of(x));
}

void link::take(guard::strays& x, guard::packet&) {
  const std::lock_guard guard{mutex_};
  strays_ = std::move(x.all);
}

// -- the spawner --------------------------------------------------------------

// Events never come from within a command.
template <class Step>
void link::later(Step step) {
  asio::post(*loop_, [self = shared_from_this(), step = std::move(step)] {
    step(*self);
  });
}

void link::connect(spawner_events events) {
  events_ = std::move(events);
}

std::uint64_t link::start(const start_order& order) {
  const auto number = ++last_number_;
  guard::start wanted;
  wanted.number = number;
  wanted.key = order.key;
  wanted.life = order.life;
  wanted.request = order.request;
  // Of a pup that this one runs below.
  std::erase_if(wanted.request.environment, [](const std::string& x) {
    return x.starts_with(life_variable);
  });
  wanted.request.environment.push_back(life_entry(scope_, number));
  // Who may not write there cannot leave the group that the guardian makes.
  if (const auto& who = order.request.attributes.run_as;
      who && who->uid != ::geteuid() && wanted.request.cgroup_folder.empty())
    wanted.request.cgroup_folder = cgroups_;
  for (const auto& x : order.keep)
    wanted.hold.push_back({x.name, {x.fd}});
  lives_.emplace(number, life{});
  if (try_to_say(wanted))
    return number;
  later([number, code = errno](link& self) {
    if (self.lives_.erase(number) > 0 && self.events_.failed)
      self.events_.failed(number, {"guardian", "asked to start it", code});
  });
  return number;
}

std::optional<os_fault> link::signal(std::uint64_t number, int signo) {
  if (orphans_)
    return orphans_->signal(number, signo);
  const auto i = lives_.find(number);
  if (i == lives_.end())
    return std::nullopt;
  if (i->second.leader == 0) {  // a start that may take long
    if (signo == SIGKILL)
      say(guard::signal{number, signo});
    return std::nullopt;
  }
  // What the guardian would find is asked here, where somebody waits for it.
  const auto group = i->second.leader;
  const auto refuse = [&](int code) {
    return os_fault{"kill", "group " + std::to_string(group), code};
  };
  if (signo < 1 || signo >= _NSIG)
    return refuse(EINVAL);
  if (runs(number) && ::kill(-group, 0) != 0 && errno == EPERM)
    return refuse(EPERM);
  say(guard::signal{number, signo});
  return std::nullopt;
}

void link::stop(std::uint64_t number, int signo) {
  if (orphans_)
    return orphans_->stop(number, signo);
  say(guard::stop{number, signo});
}

bool link::runs(std::uint64_t number) const {
  if (orphans_)
    return orphans_->runs(number);
  const auto i = lives_.find(number);
  if (i == lives_.end() || i->second.leader == 0 || i->second.leader_ended)
    return false;
  return ::kill(i->second.leader, 0) == 0 || errno == EPERM;
}

void link::adopt(inherited_process x) {
  auto& mine = lives_[x.number];
  if (!x.launching)
    mine.leader = x.pid;
  else if (auto early = early_launches_.extract(x.number); !early.empty())
    later([told = std::move(early.mapped())](link& self) {
      std::visit([&](const auto& y) { self.take(y, {}); }, told);
    });
  if (auto early = early_leader_ends_.extract(x.number); !early.empty())
    x.leader_ended = std::move(early.mapped());
  if (auto early = early_ends_.extract(x.number); !early.empty())
    x.end = std::move(early.mapped());
  mine.leader_ended = x.leader_ended || x.end;
  mine.leader_started =
      mine.leader_ended || x.launching ? 0 : start_ticks(x.pid);
  // The guardian was lost before somebody could adopt it.
  if (orphans_) {
    const auto started = mine.leader_started;
    lives_.erase(x.number);
    if (!x.launching)
      return hand_over(std::move(x), started);
    return later([number = x.number](link& self) {
      if (self.events_.failed)
        self.events_.failed(number, {"guardian", "has ended", ESRCH});
    });
  }
  if (x.leader_ended && !x.end) {
    later([number = x.number, end = *x.leader_ended](link& self) {
      if (self.lives_.count(number) > 0 && self.events_.leader_ended)
        self.events_.leader_ended(number, end);
    });
  }
  if (!x.end)
    return;
  later([number = x.number, end = *x.end](link& self) {
    if (self.lives_.erase(number) > 0 && self.events_.ended)
      self.events_.ended(number, end);
  });
}

// The guardian tells when nothing is left; the loop does not listen meanwhile.
void link::end_all() {
  if (orphans_) {
    orphans_->end_all();
    return end_life_cgroups(cgroups_, scope_, clock::now() + end_timeout);
  }
  events_ = {};
  lost_ = nullptr;
  for (const auto& [number, x] : lives_)
    say(guard::signal{number, SIGKILL});
  const auto deadline = clock::now() + end_timeout;
  while (!lives_.empty() && !orphans_ && !is_silent()) {
    while (take_message()) {}
    const auto left = std::chrono::ceil<milliseconds>(deadline - clock::now());
    if (lives_.empty() || orphans_ || left.count() <= 0)
      break;
    pollfd event{socket_.get(), POLLIN, 0};
    if (!send_waiting())
      event.events |= POLLOUT;
    ::poll(&event, 1, static_cast<int>(left.count()));
  }
  if (orphans_) {
    orphans_->end_all();
    end_life_cgroups(cgroups_, scope_, clock::now() + end_timeout);
  }
  lives_.clear();
}

// -- without a guardian -------------------------------------------------------

void link::lose() {
  {
    const std::lock_guard guard{mutex_};
    if (std::exchange(broken_, true))
      return;
    waiting_.clear();
  }
  events_of_socket_.reset();
  orphans_ = own_processes(*loop_);
  spawner_events facts;
  facts.leader_ended = [this](std::uint64_t number, const leader_end& end) {
    if (events_.leader_ended)
      events_.leader_ended(number, end);
  };
  facts.ended = [this](std::uint64_t number, const burial& end) {
    if (events_.ended)
      events_.ended(number, end);
  };
  orphans_->connect(std::move(facts));
  std::vector<std::uint64_t> unborn;
  for (const auto& [number, x] : lives_) {
    if (x.leader == 0) {
      unborn.push_back(number);
      continue;
    }
    inherited_process left;
    left.number = number;
    left.pid = x.leader;
    if (x.leader_ended)
      left.leader_ended.emplace().status.pid = x.leader;
    hand_over(std::move(left), x.leader_started);
  }
  lives_.clear();
  if (lost_)
    lost_();
  for (const auto number : unborn)
    if (events_.failed)
      events_.failed(number, {"guardian", "has ended", ESRCH});
}

// Init reaps what has ended meanwhile, and somebody else may have its pid.
void link::hand_over(inherited_process x, std::uint64_t leader_started) {
  if (!x.leader_ended && !x.end) {
    x.pidfd = open_pidfd(x.pid);
    const auto has_gone =
        x.pidfd ? start_ticks(x.pid) != leader_started : errno == ESRCH;
    if (has_gone)
      x.leader_ended.emplace().status.pid = x.pid;
  }
  orphans_->adopt(std::move(x));
}

}  // namespace

std::map<std::string, unique_fd> take_held(
    std::map<std::string, unique_fd>& held, std::string_view prefix) {
  std::map<std::string, unique_fd> result;
  for (auto i = held.lower_bound(std::string{prefix});
       i != held.end() && i->first.starts_with(prefix);)
    result.insert(held.extract(i++));
  return result;
}

std::variant<std::shared_ptr<guardian_link>, std::string> guardian_link::open(
    unique_fd socket) {
  auto result = std::make_shared<link>(std::move(socket));
  if (auto fault = result->shake_hands(); !fault.empty())
    return fault;
  return result;
}

}  // namespace pup
