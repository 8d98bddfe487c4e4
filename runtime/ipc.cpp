#include "pup/runtime/ipc.hpp"

#include "pup/actors/protocol.hpp"
#include "pup/runtime/fd.hpp"
#include "pup/runtime/place.hpp"

#include <caf/io/basp_broker.hpp>
#include <caf/io/middleman.hpp>
#include <caf/io/network/default_multiplexer.hpp>
#include <caf/io/network/doorman_impl.hpp>
#include <caf/io/network/scribe_impl.hpp>

#include <cerrno>
#include <cstring>
#include <list>
#include <memory>
#include <random>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

namespace pup {

namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;
using caf::io::network::default_multiplexer;

const auto category = caf::atom("pup_ipc");

/// BASP finds the published actor of a listening socket by its port, so each
/// publication of an actor system needs one. 1-1023 cannot meet the TCP ports
/// which an embedding application publishes on.
constexpr std::uint16_t last_pseudo_port = 1023;

/// As systemd's default; peers beyond it wait in connect().
constexpr int backlog = 128;

caf::error system_error(const std::string& object, const char* what,
                        int error) {
  return make_error(ipc_errc::system,
                    object + ": cannot " + what + ": " + std::strerror(error));
}

bool same_user_or_root(uid_t peer) {
  return peer == ::geteuid() || peer == 0;
}

std::optional<uid_t> peer_user(int fd) {
  ::ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
    return std::nullopt;
  return peer.uid;
}

std::optional<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un result{};
  if (path.empty() || path.size() > socket_path_bytes)
    return std::nullopt;
  result.sun_family = AF_UNIX;
  std::memcpy(static_cast<char*>(result.sun_path), path.data(), path.size());
  return result;
}

caf::error too_long(const std::string& path) {
  return make_error(ipc_errc::path_too_long,
                    path + ": is not a path of 1 to "
                        + std::to_string(socket_path_bytes)
                        + " bytes; set PUP_RUNTIME_DIR to a shorter folder");
}

// ---- descriptors in reserve -------------------------------------------------

/// Out of descriptors a supervisor must be able to say so: a few are held back
/// for commands. The last one takes a waiting peer from the queue and drops it:
/// left there it would keep CAF's level-triggered loop spinning. Only on the
/// thread of the multiplexer.
class reserve {
public:
  reserve() {
    fill();
  }

  void fill() {
    while (held_.size() < size) {
      unique_fd fd{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
      if (!fd)
        return;
      held_.push_back(std::move(fd));
    }
  }

  /// Makes room for one descriptor. False: there is none in reserve.
  bool give_way() {
    if (held_.empty())
      return false;
    held_.pop_back();
    return true;
  }

  bool is_last() const {
    return held_.empty();
  }

private:
  static constexpr std::size_t size = 4;

  std::vector<unique_fd> held_;
};

/// A base, so that it goes after the connection's own descriptor, whose place
/// the reserve then takes.
class refill {
public:
  explicit refill(std::shared_ptr<reserve> from) : from_(std::move(from)) {}
  refill(const refill&) = delete;
  refill& operator=(const refill&) = delete;
  ~refill() {
    if (from_)
      from_->fill();
  }

private:
  std::shared_ptr<reserve> from_;
};

// ---- the connected end ------------------------------------------------------

class scribe;

/// Connections whose peer has not introduced itself, oldest first. Only on the
/// thread of the multiplexer.
using stranger_list = std::list<scribe*>;

/// CAF's scribe, except that it never asks for an IP address (that fails on a
/// Unix socket) and that it reads each BASP header before CAF does. CAF 0.17.6
/// dereferences null for a handshake without payload, allocates whatever
/// length it is told, and fails on forged stream bits.
class scribe : private refill, public caf::io::network::scribe_impl {
public:
  scribe(default_multiplexer& loop, unique_fd fd, std::string path,
         std::shared_ptr<reserve> from = nullptr,
         std::shared_ptr<stranger_list> strangers = nullptr)
      : refill(std::move(from)),
        scribe_impl(loop, fd.release()),
        path_(std::move(path)),
        strangers_(std::move(strangers)) {
    if (strangers_)
      strangers_->push_back(this);
  }

  ~scribe() override {
    is_known();
  }

  std::string addr() const override {
    return path_;
  }

  std::uint16_t port() const override {
    return 0;
  }

  bool consume(caf::execution_unit* context, const void* data,
               std::size_t size) override {
    // CAF hands over exactly one header, then exactly its payload.
    if (!detached()) {
      if (payload_next_) {
        payload_next_ = false;
        if (introduces_)
          is_known();
      } else if (!accept_header(static_cast<const unsigned char*>(data),
                                size)) {
        io_failure(context, caf::io::network::operation::read);
        return false;
      }
    }
    return scribe_impl::consume(context, data, size);
  }

  /// Ends the connection, whoever the peer is, so that the loop finds it ended,
  /// and the broker with it: CAF's graceful_shutdown() would wait for a peer
  /// that is silent, and keep the broker's entry. Only on the thread of the
  /// multiplexer.
  void abandon() {
    is_known();
    if (!detached())
      ::shutdown(stream_.fd(), SHUT_RDWR);
  }

private:
  // Layout: type 1, padding 2, flags 1, payload length 4, operation data 8,
  // source 8, destination 8 bytes; big-endian.
  bool accept_header(const unsigned char* header, std::size_t size) {
    using type = caf::io::basp::message_type;
    // Bits 61 and 60 of a message id mark streams, which pup does not use.
    constexpr unsigned char stream_bit = 0x20;
    if (size != caf::io::basp::header_size)
      return false;
    std::uint32_t length = 0;
    for (auto byte = header + 4; byte != header + 8; ++byte)
      length = length << 8 | *byte;
    payload_next_ = length > 0;
    introduces_ = static_cast<type>(header[0]) == type::client_handshake;
    if (length > (strangers_ ? ipc_stranger_bytes : ipc_frame_bytes))
      return false;
    switch (static_cast<type>(header[0])) {
      case type::heartbeat:
        return length == 0;
      case type::direct_message:
      case type::routed_message:
        return length > 0 && (header[8] & stream_bit) == 0;
      default:
        return length > 0;
    }
  }

  void is_known() {
    if (auto list = std::exchange(strangers_, nullptr))
      list->remove(this);
  }

  std::string path_;
  // It stands there: of an accepted peer that has not introduced itself. Else
  // null.
  std::shared_ptr<stranger_list> strangers_;
  bool payload_next_ = false;
  bool introduces_ = false;
};

// ---- the listening end ------------------------------------------------------

/// Accepts with close-on-exec from the first instant; CAF sets it later, when a
/// concurrent launch may have inherited the descriptor already.
class accept_policy {
public:
  explicit accept_policy(std::shared_ptr<reserve> from)
      : reserve_(std::move(from)) {}

  bool try_accept(caf::io::network::native_socket& result,
                  caf::io::network::native_socket listening) {
    result = accept_from(listening);
    if (result < 0 && (errno == EMFILE || errno == ENFILE)
        && reserve_->give_way()) {
      unique_fd fd{accept_from(listening)};
      if (reserve_->is_last())
        fd.reset();
      else
        result = fd.release();
    }
    if (result < 0)
      reserve_->fill();
    return result >= 0;
  }

private:
  static int accept_from(int listening) {
    return ::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  }

  std::shared_ptr<reserve> reserve_;
};

std::uint16_t free_pseudo_port(
    const caf::io::basp::instance::published_actor_map& taken) {
  for (std::uint16_t port = 1; port <= last_pseudo_port; ++port)
    if (taken.count(port) == 0)
      return port;
  return 0;
}

class doorman : public caf::io::doorman {
public:
  doorman(default_multiplexer& loop, unique_fd fd, std::string path,
          caf::strong_actor_ptr whom, std::set<std::string> types)
      : caf::io::doorman(caf::io::network::accept_hdl_from_socket(fd.get())),
        reserve_(std::make_shared<reserve>()),
        acceptor_(loop, fd.get(), reserve_),
        path_(std::move(path)),
        first_(std::move(whom)),
        first_types_(std::move(types)) {
    std::ignore = fd.release();  // acceptor_ closes it
  }

  bool new_connection() override {
    if (detached())
      return false;
    unique_fd fd{acceptor_.accepted_socket()};
    auto user = peer_user(fd.get());
    if (!user || !same_user_or_root(*user) || !make_room())
      return true;  // the peer reads the end of the stream
    forget_lost_nodes();
    auto& loop = acceptor_.backend();
    auto peer = caf::make_counted<scribe>(loop, std::move(fd), path_, reserve_,
                                          strangers_);
    auto handle = peer->hdl();
    parent()->add_scribe(std::move(peer));
    return caf::io::doorman::new_connection(&loop, handle);
  }

  /// Only on the thread of the multiplexer.
  void offer(caf::strong_actor_ptr whom, std::set<std::string> types) {
    if (!detached())
      broker().instance.add_published_actor(port_, std::move(whom),
                                            std::move(types));
  }

  void graceful_shutdown() override {
    acceptor_.graceful_shutdown();
    detach(&acceptor_.backend(), false);
  }

  // On the broker's thread, hence the place to look for a free port.
  void launch() override {
    port_ = free_pseudo_port(broker().instance.published_actors());
    if (port_ == 0)
      return;
    offer(std::move(first_), std::move(first_types_));
    acceptor_.start(this);
  }

  std::string addr() const override {
    return path_;
  }

  /// 0 before launch, or when no pseudo port was free.
  std::uint16_t port() const override {
    return port_;
  }

  void add_to_loop() override {
    acceptor_.activate(this);
  }

  void remove_from_loop() override {
    acceptor_.passivate();
  }

private:
  caf::io::basp_broker& broker() {
    return static_cast<caf::io::basp_broker&>(*parent());
  }

  /// Who connects and says nothing, or not what a peer says first, keeps nobody
  /// out: when all places are taken the oldest of them goes. Its place is free
  /// a moment later, so there are some more until then.
  bool make_room() {
    const auto connected = broker().num_connections();
    if (connected < ipc_peers)
      return true;
    if (strangers_->empty() || connected >= ipc_peers + ipc_peers / 4)
      return false;
    strangers_->front()->abandon();
    return true;
  }

  // CAF 0.17.6 keeps a helper actor for each node it ever met, 1.7 KB for each
  // command that was run. This is the broker's thread, so it can be tidied.
  void forget_lost_nodes() {
    auto& helpers = broker().spawn_servers;
    for (auto i = helpers.begin(); i != helpers.end();) {
      if (broker().instance.tbl().lookup(i->first)) {
        ++i;
      } else {
        caf::anon_send_exit(i->second, caf::exit_reason::kill);
        i = helpers.erase(i);
      }
    }
  }

  std::shared_ptr<reserve> reserve_;
  caf::io::network::acceptor_impl<accept_policy> acceptor_;
  std::shared_ptr<stranger_list> strangers_ = std::make_shared<stranger_list>();
  std::string path_;
  caf::strong_actor_ptr first_;
  std::set<std::string> first_types_;
  std::uint16_t port_ = 0;
};

using doorman_handle = caf::intrusive_ptr<doorman>;

default_multiplexer* loop_of(caf::actor_system& sys) {
  return dynamic_cast<default_multiplexer*>(&sys.middleman().backend());
}

caf::actor broker_of(caf::actor_system& sys) {
  return sys.middleman().named_broker<caf::io::basp_broker>(caf::atom("BASP"));
}

caf::error foreign_backend(const std::string& path) {
  return make_error(ipc_errc::system,
                    path + ": the actor system has no ordinary middleman; "
                           "prepare it with pup::configure");
}

/// Beside the socket and not longer than "control.sock", so that a path which
/// fits has a draft which fits.
std::string draft_of(const std::string& path) {
  constexpr auto letters = "abcdefghijklmnopqrstuvwxyz234567";
  std::random_device random;
  auto draft = path.substr(0, path.rfind('/') + 1) + ".s";
  for (int i = 0; i < 8; ++i)
    draft += letters[random() % 32];
  return draft;
}

/// What `path` names, to recognise our own socket file later.
struct file_identity {
  dev_t device = 0;
  ino_t inode = 0;

  bool operator==(const file_identity&) const = default;
};

std::optional<file_identity> identity_of(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0)
    return std::nullopt;
  return file_identity{info.st_dev, info.st_ino};
}

// The file gets its mode before anybody can connect, and its name last: a
// client finds nothing, or a socket that answers.
caf::expected<unique_fd> listen_at(const std::string& path) {
  auto draft = draft_of(path);
  auto address = address_of(draft);
  if (!address || path.size() > socket_path_bytes)
    return too_long(path);
  unique_fd fd{
      ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!fd)
    return system_error(path, "make a socket", errno);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&*address), sizeof(*address))
      != 0)
    return system_error(draft, "bind", errno);
  const char* step = "set the mode";
  if (::chmod(draft.c_str(), 0600) == 0) {
    step = "listen";
    if (::listen(fd.get(), backlog) == 0) {
      step = "put the socket in place";
      if (::rename(draft.c_str(), path.c_str()) == 0)
        return caf::expected<unique_fd>{std::move(fd)};
    }
  }
  auto error = errno;
  ::unlink(draft.c_str());
  return system_error(path, step, error);
}

// ---- connecting -------------------------------------------------------------

caf::error refused_by_kernel(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ECONNREFUSED:
      return make_error(ipc_errc::nobody_there,
                        path + ": no supervisor listens here; start one with "
                               "pup start");
    case EACCES:
    case EPERM:
      return make_error(ipc_errc::not_permitted,
                        path + ": permission denied; run the command as the "
                               "user who started the supervisor");
    case EAGAIN:
      return make_error(ipc_errc::timed_out,
                        path + ": the supervisor accepts no connections in "
                               "time; check that it is not stopped");
    default:
      return system_error(path, "connect", error);
  }
}

std::chrono::microseconds left_until(clock::time_point deadline) {
  // SO_SNDTIMEO takes 0 for "forever".
  return std::max(std::chrono::duration_cast<std::chrono::microseconds>(
                      deadline - clock::now()),
                  std::chrono::microseconds{1});
}

/// Root commands everybody's supervisors, and whose folder it is could lead a
/// command for theirs to another one by a link.
bool is_socket_of(const std::string& path, uid_t user) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)
         && info.st_nlink == 1 && info.st_uid == user;
}

/// connect() waits when the listen queue is full, as long as SO_SNDTIMEO lets
/// it; poll() knows no such event for Unix sockets.
caf::expected<unique_fd> dial(const std::string& path,
                              clock::time_point deadline) {
  auto address = address_of(path);
  if (!address)
    return too_long(path);
  unique_fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (!fd)
    return system_error(path, "make a socket", errno);
  int result = 0;
  do {
    auto left = left_until(deadline).count();
    timeval bound{left / 1'000'000, left % 1'000'000};
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound))
        != 0)
      return system_error(path, "set the timeout", errno);
    result = ::connect(fd.get(), reinterpret_cast<sockaddr*>(&*address),
                       sizeof(*address));
  } while (result != 0 && errno == EINTR);
  if (result != 0)
    return refused_by_kernel(path, errno);
  auto user = peer_user(fd.get());
  if (!user || (!same_user_or_root(*user) && ::geteuid() != 0))
    return make_error(ipc_errc::not_permitted,
                      path + ": the supervisor belongs to "
                          + (user ? "uid " + std::to_string(*user)
                                  : std::string{"an unknown user"})
                          + "; run the command as that user");
  if (::geteuid() == 0 && !is_socket_of(path, *user))
    return make_error(ipc_errc::not_permitted,
                      path + ": is not the socket of the supervisor that "
                             "answers, which belongs to uid "
                          + std::to_string(*user)
                          + "; command that one by its own name");
  return caf::expected<unique_fd>{std::move(fd)};
}

caf::error handshake_error(const std::string& path, const caf::error& why) {
  if (why.category() != caf::atom("system"))
    return why;
  switch (static_cast<caf::sec>(why.code())) {
    case caf::sec::request_timeout:
      return make_error(ipc_errc::timed_out,
                        path + ": the supervisor does not answer; check that "
                               "it is not stopped or overloaded");
    case caf::sec::incompatible_versions:
    case caf::sec::incompatible_application_ids:
      return make_error(ipc_errc::incompatible_version,
                        path + ": the supervisor does not speak "
                            + ipc_protocol()
                            + "; use the pup program that started it");
    default:
      return make_error(ipc_errc::connection_lost,
                        path + ": the supervisor closed the connection; it "
                               "ended, has too many peers, or is another "
                               "user's");
  }
}

}  // namespace

caf::error make_error(ipc_errc code, std::string text) {
  return {static_cast<std::uint8_t>(code), category,
          caf::make_message(std::move(text))};
}

std::optional<ipc_errc> ipc_code(const caf::error& x) {
  // An empty caf::error has no members to ask.
  if (!x || x.category() != category)
    return std::nullopt;
  return static_cast<ipc_errc>(x.code());
}

std::string ipc_text(const caf::error& x) {
  if (!ipc_code(x) || !x.context().match_elements<std::string>())
    return {};
  return x.context().get_as<std::string>(0);
}

std::string ipc_protocol() {
  return "pup/" + std::to_string(protocol_version);
}

void configure(caf::actor_system_config& config, ipc_role role) {
  auto threads = role == ipc_role::server ? std::size_t{2} : std::size_t{1};
  // "sharing" sleeps when idle; the default polls hundreds of times a second.
  config.set("scheduler.policy", caf::atom("sharing"))
      .set("scheduler.max-threads", threads)
      .set("middleman.workers", std::size_t{0})
      .set("middleman.attach-utility-actors", true)
      .set("middleman.heartbeat-interval", caf::timespan{0})
      .set("middleman.app-identifiers",
           std::vector<std::string>{ipc_protocol()});
  config.add_error_category(
      category, [](std::uint8_t, caf::atom_value, const caf::message& context) {
        return context.match_elements<std::string>()
                   ? context.get_as<std::string>(0)
                   : std::string{"ipc error"};
      });
  config.load<caf::io::middleman>();
}

struct publication::state {
  state(caf::actor_system& system, std::string path, doorman_handle listener)
      : sys(system),
        socket_path(std::move(path)),
        socket_file(identity_of(socket_path)),
        door(std::move(listener)) {}

  ~state() {
    if (socket_file && identity_of(socket_path) == socket_file)
      ::unlink(socket_path.c_str());
    caf::anon_send(broker_of(sys), caf::close_atom::value, door->port());
  }

  state(const state&) = delete;
  state& operator=(const state&) = delete;

  caf::actor_system& sys;
  std::string socket_path;
  std::optional<file_identity> socket_file;
  doorman_handle door;
};

publication::publication() noexcept = default;
publication::publication(publication&&) noexcept = default;
publication& publication::operator=(publication&&) noexcept = default;
publication::~publication() = default;

// The published actor is an entry of the broker's table, which only the
// multiplexer's thread may touch. Replacing the entry keeps the one listening
// socket, and with it the peers that wait in its queue.
void publication::replace(caf::strong_actor_ptr whom,
                          std::set<std::string> types) {
  if (!state_ || !whom)
    return;
  // Messages from peers find the actor through the registry.
  state_->sys.registry().put(whom->id(), whom);
  loop_of(state_->sys)
      ->post([door = state_->door, whom = std::move(whom),
              types = std::move(types)] { door->offer(whom, types); });
}

caf::expected<publication> publish_actor(caf::actor_system& sys,
                                         const std::string& socket_path,
                                         caf::strong_actor_ptr whom,
                                         std::set<std::string> types) {
  auto loop = loop_of(sys);
  if (!loop)
    return foreign_backend(socket_path);
  auto fd = listen_at(socket_path);
  if (!fd)
    return std::move(fd.error());
  // Messages from peers find the actor through the registry.
  sys.registry().put(whom->id(), whom);
  auto door = caf::make_counted<doorman>(*loop, std::move(*fd), socket_path,
                                         std::move(whom), std::move(types));
  publication result;
  result.state_ = std::make_unique<publication::state>(sys, socket_path, door);
  // The doorman announces its actor itself, under a port it finds free; the
  // broker only has to take it in.
  caf::error failure;
  caf::scoped_actor self{sys};
  self->request(broker_of(sys), caf::infinite, caf::publish_atom::value,
                caf::io::doorman_ptr{door}, std::uint16_t{0},
                caf::strong_actor_ptr{}, std::set<std::string>{})
      .receive([] {},
               [&failure](caf::error& why) { failure = std::move(why); });
  if (failure)
    return failure;
  if (door->port() == 0)
    return make_error(ipc_errc::system,
                      socket_path + ": this program publishes too much; end "
                                    "another publication first");
  return caf::expected<publication>{std::move(result)};
}

caf::expected<caf::strong_actor_ptr> connect_actor(
    caf::actor_system& sys, const std::string& socket_path,
    const std::set<std::string>& types, std::chrono::milliseconds timeout) {
  auto deadline = clock::now() + timeout;
  auto loop = loop_of(sys);
  if (!loop)
    return foreign_backend(socket_path);
  auto fd = dial(socket_path, deadline);
  if (!fd)
    return std::move(fd.error());
  auto peer = caf::make_counted<scribe>(*loop, std::move(*fd), socket_path);
  caf::expected<caf::strong_actor_ptr> result{caf::strong_actor_ptr{}};
  caf::scoped_actor self{sys};
  self->request(broker_of(sys), left_until(deadline), caf::connect_atom::value,
                caf::io::scribe_ptr{peer}, std::uint16_t{0})
      .receive(
          [&](const caf::node_id&, caf::strong_actor_ptr& whom,
              const std::set<std::string>& offered) {
            if (!whom || !sys.assignable(offered, types))
              result = make_error(ipc_errc::wrong_interface,
                              socket_path
                                + ": offers another interface; use the pup "
                                  "program that started it");
            else
              result = std::move(whom);
          },
          [&](caf::error& why) { result = handshake_error(socket_path, why); });
  // A wrong interface leaves a sound link, which CAF may use for other actors.
  if (!result && ipc_code(result.error()) != ipc_errc::wrong_interface)
    loop->post([peer] { peer->abandon(); });
  return result;
}

namespace detail {

caf::error call_error(caf::error why) {
  if (why && why.category() == caf::atom("exit"))
    return make_error(ipc_errc::connection_lost,
                      "supervisor: ended before it answered; look at it with "
                      "pup status");
  if (!why || why.category() != caf::atom("system"))
    return why;
  switch (static_cast<caf::sec>(why.code())) {
    case caf::sec::request_timeout:
      return make_error(ipc_errc::timed_out,
                        "supervisor: no answer in time; check that it is not "
                        "stopped, or raise the timeout");
    case caf::sec::request_receiver_down:
      return call_error(caf::exit_reason::remote_link_unreachable);
    default:
      return why;
  }
}

}  // namespace detail

}  // namespace pup
