#include "pup/runtime/readiness.hpp"

#include "pup/runtime/probe.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace pup {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Programs that are quick to listen do so within milliseconds; one that takes
// longer than a second does not notice 50 ms more.
constexpr milliseconds first_delay = 1ms;
constexpr milliseconds early_delay = 10ms;
constexpr milliseconds late_delay = 50ms;
constexpr milliseconds early_period = 1s;
// A connect that is neither accepted nor refused: its SYN met a full queue, and
// is sent again after 1 s.
constexpr milliseconds connect_timeout = 1500ms;
// A server that has begun to listen may need long for its first answer.
constexpr milliseconds answer_timeout = 5s;

// systemd's own bound for one message.
constexpr std::size_t most_message_bytes = 4096;
constexpr std::size_t most_status_bytes = 256;

// Nobody listens, yet the connect succeeded: the kernel chose the wanted port
// for our end and connected the socket with itself. Reset it, or the port would
// stay in TIME_WAIT.
bool is_connected_to_itself(tcp::socket& socket) {
  error_code error;
  if (socket.local_endpoint(error) != socket.remote_endpoint(error) || error)
    return false;
  socket.set_option(asio::socket_base::linger{true, 0}, error);
  return true;
}

struct notify_message {
  std::string text;
  ucred sender{};
};

// One datagram; none: nothing there. Descriptors in it are closed.
std::optional<notify_message> receive(int fd) {
  notify_message result;
  result.text.resize(most_message_bytes);
  iovec part{result.text.data(), result.text.size()};
  alignas(cmsghdr) std::array<char, 2048> control;
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const auto n = ::recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0)
    return std::nullopt;
  for (auto* c = CMSG_FIRSTHDR(&header); c != nullptr;
       c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET)
      continue;
    if (c->cmsg_type == SCM_CREDENTIALS)
      std::memcpy(&result.sender, CMSG_DATA(c), sizeof(result.sender));
    if (c->cmsg_type != SCM_RIGHTS)
      continue;
    const auto count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int passed = -1;
      std::memcpy(&passed, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      ::close(passed);
    }
  }
  result.text.resize(static_cast<std::size_t>(n));
  return result;
}

// A sender that has ended meanwhile (systemd-notify(1)), whose pid newer
// kernels tell as 0, is believed when it ran as we do, or as the process does.
bool belongs(const ucred& sender, pid_t leader, std::optional<uid_t> uid) {
  const auto group = sender.pid > 0 ? ::getpgid(sender.pid) : -1;
  if (group >= 0)
    return group == leader || ::getsid(sender.pid) == leader;
  return sender.uid == 0 || sender.uid == ::geteuid() || sender.uid == uid;
}

std::string one_line(std::string_view text) {
  std::string result{text.substr(0, most_status_bytes)};
  for (auto& c : result)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      c = ' ';
  return result;
}

}  // namespace

self_report read_self_report(std::string_view message) {
  self_report result;
  while (!message.empty()) {
    const auto end = std::min(message.find('\n'), message.size());
    const auto line = message.substr(0, end);
    message.remove_prefix(std::min(end + 1, message.size()));
    result.ready = result.ready || line == "READY=1";
    result.stopping = result.stopping || line == "STOPPING=1";
    result.alive = result.alive || line == "WATCHDOG=1";
    result.trouble = result.trouble || line == "WATCHDOG=trigger";
    constexpr std::string_view status = "STATUS=";
    if (line.starts_with(status))
      result.status = one_line(line.substr(status.size()));
  }
  return result;
}

class readiness::impl : public std::enable_shared_from_this<impl> {
public:
  impl(asio::io_context& loop, readiness_request request)
      : loop_(loop),
        request_(std::move(request)),
        timer_(loop),
        probe_(loop),
        input_(loop) {}

  std::optional<os_fault> open() {
    const auto talks = request_.what == ready_condition::notify
                       || request_.watchdog.count() > 0;
    if (talks)
      if (auto fault = open_socket())
        return fault;
    if (request_.what != ready_condition::fd)
      return std::nullopt;
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0)
      return os_fault{"pipe", "", errno};
    given_.reset(ends[1]);
    // The program writes as to any descriptor.
    ::fcntl(ends[1], F_SETFL, 0);
    error_code error;
    input_.assign(ends[0], error);
    return std::nullopt;
  }

  std::map<std::string, std::string> variables() const {
    std::map<std::string, std::string> result;
    if (!socket_name_.empty())
      result["NOTIFY_SOCKET"] = socket_name_;
    if (request_.watchdog.count() > 0)
      result["WATCHDOG_USEC"] =
          std::to_string(std::chrono::microseconds{request_.watchdog}.count());
    return result;
  }

  int descriptor() const {
    return given_.get();
  }

  void adopt(unique_fd input) {
    if (!input)
      return;
    if (request_.what != ready_condition::fd)
      socket_name_ = name_of(input.get());
    error_code error;
    input_.assign(input.release(), error);
  }

  int input() {
    return input_.is_open() ? input_.native_handle() : -1;
  }

  bool at_once() const {
    switch (request_.what) {
      case ready_condition::port:
      case ready_condition::http:
        return request_.port == 0;
      case ready_condition::notify:
      case ready_condition::fd:
      case ready_condition::log:
        return false;
      default:
        return true;
    }
  }

  void begin(pid_t pid, readiness_events events, bool is_ready) {
    pid_ = pid;
    events_ = std::move(events);
    running_ = true;
    given_.reset();
    since_ = clock::now();
    if (input_.is_open())
      await_input();
    if (is_ready)
      told_ = true;
    else if (at_once())
      became_ready({});
    else if (request_.what == ready_condition::port
             || request_.what == ready_condition::http)
      connect(false);
  }

  void show() {
    if (running_ && request_.what == ready_condition::log)
      became_ready({});
  }

  void stop() {
    running_ = false;
    timer_.cancel();
    error_code ignored;
    probe_.close(ignored);
    input_.close(ignored);
    given_.reset();
  }

private:
  std::optional<os_fault> open_socket() {
    unique_fd fd{
        ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!fd)
      return os_fault{"socket", "for NOTIFY_SOCKET", errno};
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    // Without a name the kernel chooses a free abstract one.
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    socklen_t size = sizeof(sa_family_t);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), size) != 0)
      return os_fault{"bind", "NOTIFY_SOCKET", errno};
    socket_name_ = name_of(fd.get());
    error_code error;
    input_.assign(fd.release(), error);
    return std::nullopt;
  }

  static std::string name_of(int socket) {
    sockaddr_un name{};
    socklen_t size = sizeof(name);
    ::getsockname(socket, reinterpret_cast<sockaddr*>(&name), &size);
    const auto length = size - offsetof(sockaddr_un, sun_path);
    return length < 1 ? "@" : '@' + std::string(name.sun_path + 1, length - 1);
  }

  // A handler that does nothing once all is over.
  template <class Step>
  auto while_running(Step step) {
    return [weak = weak_from_this(), step](error_code error, auto&&...) {
      if (const auto self = weak.lock(); self && self->running_)
        step(error);
    };
  }

  void became_ready(const std::string& address) {
    if (std::exchange(told_, true))
      return;
    asio::post(loop_, [weak = weak_from_this(), address] {
      if (const auto self = weak.lock(); self && self->running_)
        self->events_.ready(address);
    });
  }

  // -- notify and fd ----------------------------------------------------------

  void await_input() {
    input_.async_wait(asio::posix::stream_descriptor::wait_read,
                      while_running([this](error_code error) {
                        if (!error)
                          on_input();
                      }));
  }

  void on_input() {
    if (!socket_name_.empty()) {
      // Both may be wanted at once only with a watchdog and a descriptor, and
      // configurations that want both are refused.
      while (const auto message = receive(input_.native_handle())) {
        if (!belongs(message->sender, pid_, request_.uid))
          continue;
        heard(read_self_report(message->text));
        if (!running_)
          return;
      }
      return await_input();
    }
    std::array<char, 512> buffer{};
    const auto n = ::read(input_.native_handle(), buffer.data(), buffer.size());
    if (n > 0
        && std::find(buffer.begin(), buffer.begin() + n, '\n')
               != buffer.begin() + n)
      return became_ready({});
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
      await_input();
    // Closed without a newline: it says nothing any more.
  }

  void heard(const self_report& x) {
    events_.said(x);
    if (running_ && x.ready && request_.what == ready_condition::notify)
      became_ready({});
  }

  // -- port and http ----------------------------------------------------------

  void connect(bool ipv6) {
    error_code error;
    const asio::ip::address address =
        ipv6 ? asio::ip::address{asio::ip::address_v6::loopback()}
             : asio::ip::address{asio::ip::address_v4::loopback()};
    probe_ = tcp::socket{loop_};
    probe_.open(ipv6 ? tcp::v6() : tcp::v4(), error);
    if (error)  // no such family, or no descriptor left just now
      return connected(ipv6, error);
    probe_.async_connect({address, request_.port},
                         while_running([this, ipv6](error_code result) {
                           connected(ipv6, result);
                         }));
    timer_.expires_after(connect_timeout);
    timer_.async_wait(while_running([this](error_code result) {
      error_code ignored;
      if (!result)
        probe_.close(ignored);
    }));
  }

  void connected(bool ipv6, error_code error) {
    timer_.cancel();
    const bool accepted = !error && !is_connected_to_itself(probe_);
    error_code ignored;
    probe_.close(ignored);
    if (!events_.lives())
      return;  // its exit is the next event; who accepted was someone else
    if (accepted && request_.what == ready_condition::http)
      return ask(ipv6 ? "::1" : "127.0.0.1");
    if (accepted)
      return became_ready(ipv6 ? "::1" : "127.0.0.1");
    if (!ipv6)
      return connect(true);
    try_later();
  }

  void ask(const std::string& address) {
    pup::probe(loop_,
               {address, request_.port, probe_type::http, request_.path,
                answer_timeout},
               [weak = weak_from_this(), address](const std::string& fault) {
                 const auto self = weak.lock();
                 if (!self || !self->running_ || !self->events_.lives())
                   return;
                 if (fault.empty())
                   return self->became_ready(address);
                 self->tell_answer(fault);
                 if (self->running_)
                   self->try_later();
               });
  }

  void tell_answer(const std::string& fault) {
    if (std::exchange(last_answer_, fault) == fault)
      return;
    self_report report;
    report.answer = one_line(request_.path + ": " + fault);
    events_.said(report);
  }

  void try_later() {
    const auto early = clock::now() - since_ < early_period;
    delay_ = early ? std::min(delay_ * 2, early_delay) : late_delay;
    timer_.expires_after(delay_);
    timer_.async_wait(while_running([this](error_code error) {
      if (!error)
        connect(false);
    }));
  }

  asio::io_context& loop_;
  readiness_request request_;
  readiness_events events_;
  pid_t pid_ = 0;
  bool running_ = false;
  bool told_ = false;
  asio::steady_timer timer_;
  tcp::socket probe_;
  asio::posix::stream_descriptor input_;  // notify or fd
  std::string socket_name_;
  unique_fd given_;
  clock::time_point since_;
  milliseconds delay_ = first_delay / 2;
  std::string last_answer_;  // to a GET; not the wanted one
};

std::variant<readiness, os_fault> readiness::prepare(
    boost::asio::io_context& loop, readiness_request request) {
  auto x = std::make_shared<impl>(loop, std::move(request));
  if (auto fault = x->open())
    return *std::move(fault);
  return readiness{std::move(x)};
}

readiness readiness::adopt(boost::asio::io_context& loop,
                           readiness_request request, unique_fd input) {
  auto x = std::make_shared<impl>(loop, std::move(request));
  x->adopt(std::move(input));
  return readiness{std::move(x)};
}

readiness::readiness(std::shared_ptr<impl> x) : impl_(std::move(x)) {}

readiness::readiness(readiness&&) noexcept = default;

readiness& readiness::operator=(readiness&& other) noexcept {
  if (impl_ && impl_ != other.impl_)
    impl_->stop();
  impl_ = std::move(other.impl_);
  return *this;
}

readiness::~readiness() {
  if (impl_)
    impl_->stop();
}

std::map<std::string, std::string> readiness::variables() const {
  return impl_->variables();
}

int readiness::descriptor() const {
  return impl_->descriptor();
}

int readiness::input() const {
  return impl_->input();
}

bool readiness::at_once() const {
  return impl_->at_once();
}

void readiness::begin(pid_t pid, readiness_events events, bool is_ready) {
  impl_->begin(pid, std::move(events), is_ready);
}

void readiness::show() {
  impl_->show();
}

void readiness::stop() {
  impl_->stop();
}

}  // namespace pup
