#include "pup/runtime/status_door.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <list>
#include <vector>

#include <grp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace pup {

namespace {

using boost::asio::local::stream_protocol;
using boost::system::error_code;

// Nobody is kept waiting for a line, or for somebody to read an answer, for
// longer.
constexpr std::chrono::seconds visit_limit{10};

// A descriptor may be free again by then; no event tells.
constexpr std::chrono::milliseconds accept_pause{100};

bool may_read(int fd, gid_t readers) {
  ::ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    return false;
  if (peer.uid == 0 || peer.uid == ::geteuid() || peer.gid == readers)
    return true;
  std::vector<gid_t> groups(64);
  size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
  auto failed =
      ::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size);
  if (failed != 0 && errno == ERANGE) {  // `size` says how many there are
    groups.resize(size / sizeof(gid_t));
    failed = ::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size);
  }
  if (failed != 0)
    return false;
  groups.resize(size / sizeof(gid_t));
  return std::find(groups.begin(), groups.end(), readers) != groups.end();
}

std::optional<status_question> understood(std::string line) {
  if (line.ends_with('\n'))
    line.pop_back();
  const auto blank = line.find(' ');
  const auto word = line.substr(0, blank);
  if (word != "json" && word != "table")
    return std::nullopt;
  status_question result{word == "json", {}};
  if (blank != std::string::npos)
    result.id = line.substr(blank + 1);
  return result;
}

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error{errno, std::generic_category(), what};
}

}  // namespace

std::optional<gid_t> group_named(const std::string& name) {
  gid_t number = 0;
  const auto* end = name.data() + name.size();
  if (!name.empty() && std::from_chars(name.data(), end, number).ptr == end)
    return number;
  std::vector<char> buffer(16 * 1024);
  ::group entry{};
  ::group* found = nullptr;
  int error = ERANGE;
  while ((error = ::getgrnam_r(name.c_str(), &entry, buffer.data(),
                               buffer.size(), &found))
             == ERANGE
         && buffer.size() < (std::size_t{16} << 20))
    buffer.resize(buffer.size() * 2);
  if (error != 0 || found == nullptr)
    return std::nullopt;
  return entry.gr_gid;
}

class status_door::impl : public std::enable_shared_from_this<impl> {
public:
  impl(boost::asio::io_context& loop, const std::string& path, gid_t readers,
       status_source source)
      : loop_(loop),
        path_(path),
        readers_(readers),
        source_(std::move(source)),
        acceptor_(loop),
        pause_(loop) {
    const auto draft = path + ".new";
    ::unlink(draft.c_str());
    acceptor_.open();
    acceptor_.bind(stream_protocol::endpoint{draft});
    // Before it listens nobody can connect; its name comes last.
    if (::chown(draft.c_str(), static_cast<uid_t>(-1), readers) != 0)
      fail("chown " + draft);
    if (::chmod(draft.c_str(), 0660) != 0)
      fail("chmod " + draft);
    acceptor_.listen();
    if (::rename(draft.c_str(), path.c_str()) != 0)
      fail("rename " + draft);
  }

  void accept() {
    acceptor_.async_accept(
        [self = shared_from_this()](const error_code& error,
                                    stream_protocol::socket peer) {
          if (error == boost::asio::error::operation_aborted)
            return;
          if (error)
            return self->rest();
          if (may_read(peer.native_handle(), self->readers_))
            self->receive(std::move(peer));
          self->accept();
        });
  }

  void close() {
    error_code ignored;
    acceptor_.close(ignored);
    pause_.cancel();
    for (auto& x : std::exchange(visits_, {}))
      x->end();
    ::unlink(path_.c_str());
  }

private:
  struct visit {
    visit(boost::asio::io_context& loop, stream_protocol::socket from)
        : peer(std::move(from)), limit(loop) {}

    void end() {
      error_code ignored;
      peer.close(ignored);
      limit.cancel();
    }

    stream_protocol::socket peer;
    boost::asio::steady_timer limit;
    std::string line;
    std::string answer;
  };
  using visit_handle = std::shared_ptr<visit>;

  void rest() {
    pause_.expires_after(accept_pause);
    pause_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error)
        self->accept();
    });
  }

  void receive(stream_protocol::socket peer) {
    if (visits_.size() >= bounds::status_visitors)
      leave(visits_.front());
    auto x = std::make_shared<visit>(loop_, std::move(peer));
    visits_.push_back(x);
    x->limit.expires_after(visit_limit);
    x->limit.async_wait(
        [self = shared_from_this(), x](const error_code& error) {
          if (!error)
            self->leave(x);
        });
    boost::asio::async_read_until(
        x->peer,
        boost::asio::dynamic_buffer(x->line, bounds::status_line_bytes), '\n',
        [self = shared_from_this(), x](const error_code& error, std::size_t n) {
          if (error)
            return self->leave(x);
          x->line.resize(n);
          self->ask(x);
        });
  }

  void ask(const visit_handle& x) {
    const auto question = understood(x->line);
    if (!question)
      return reply(x, {false, "no question; use table or json"});
    // Whoever answers may let go of this on any thread, at any time: what
    // belongs to the loop must not end there.
    source_(*question, [loop = &loop_, self = weak_from_this(),
                        x = std::weak_ptr{x}](const status_answer& answer) {
      boost::asio::post(*loop, [self, x, answer] {
        const auto door = self.lock();
        if (const auto who = x.lock(); door && who)
          door->reply(who, answer);
      });
    });
  }

  void reply(const visit_handle& x, const status_answer& answer) {
    if (!x->peer.is_open())
      return;
    x->answer = (answer.ok ? "ok\n" : "fault\n") + answer.text;
    boost::asio::async_write(
        x->peer, boost::asio::buffer(x->answer),
        [self = shared_from_this(), x](const error_code&, std::size_t) {
          self->leave(x);
        });
  }

  void leave(const visit_handle& x) {
    x->end();
    visits_.remove(x);
  }

  boost::asio::io_context& loop_;
  std::string path_;
  gid_t readers_;
  status_source source_;
  stream_protocol::acceptor acceptor_;
  boost::asio::steady_timer pause_;
  std::list<visit_handle> visits_;  // oldest first
};

status_door::status_door(boost::asio::io_context& loop, const std::string& path,
                         gid_t readers, status_source source)
    : impl_(std::make_shared<impl>(loop, path, readers, std::move(source))) {
  impl_->accept();
}

status_door::~status_door() {
  impl_->close();
}

std::variant<status_answer, os_fault> ask_status(
    const std::string& path, const status_question& question,
    std::chrono::milliseconds limit) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (path.size() >= sizeof to.sun_path)
    return os_fault{"connect", path, ENAMETOOLONG};
  path.copy(static_cast<char*>(to.sun_path), sizeof to.sun_path - 1);
  const unique_fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  const timeval bound{limit.count() / 1'000, limit.count() % 1'000 * 1'000};
  if (!fd
      || ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof bound)
             != 0
      || ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound)
             != 0)
    return os_fault{"socket", path, errno};
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0)
    return os_fault{"connect", path, errno};
  const auto line = std::string{question.json ? "json" : "table"}
                    + (question.id.empty() ? std::string{} : ' ' + question.id)
                    + '\n';
  if (::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL)
      != static_cast<ssize_t>(line.size()))
    return os_fault{"send", path, errno};
  std::string said;
  std::array<char, 16'384> buffer{};
  for (;;) {
    const auto n = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return os_fault{"receive", path, errno};
    if (n == 0)
      break;
    said.append(buffer.data(), static_cast<std::size_t>(n));
  }
  const auto head = said.find('\n');
  if (head == std::string::npos)  // closed on, unheard
    return os_fault{"receive", path, EACCES};
  return status_answer{said.substr(0, head) == "ok", said.substr(head + 1)};
}

}  // namespace pup
