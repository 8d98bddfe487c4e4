// Publishing, connecting and calling over real Unix sockets, against servers in
// the same process and in others that are stopped, killed and lied to.
#include "pup/runtime/ipc.hpp"

#include "catch.hpp"
#include "child_process.hpp"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

// Present when the undefined behaviour sanitizer checks virtual tables. It
// opens a pipe to see whether an object can be read, and calls a sound object
// broken when the process has no descriptors left. Compilers define no macro
// for it.
extern "C" [[gnu::weak]] void __ubsan_handle_dynamic_type_cache_miss_abort();

using namespace pup;
using namespace pup::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

using clock_type = std::chrono::steady_clock;

using say_atom = caf::atom_constant<caf::atom("say")>;
using note_atom = caf::atom_constant<caf::atom("note")>;
using park_atom = caf::atom_constant<caf::atom("park")>;
using fail_atom = caf::atom_constant<caf::atom("fail")>;

/// say: the speaker's name before the text. note: an empty answer. park: no
/// answer ever. fail: an error of the speaker's own.
using speaker_actor =
    caf::typed_actor<caf::replies_to<say_atom, std::string>::with<std::string>,
                     caf::replies_to<note_atom, std::string>::with<void>,
                     caf::replies_to<park_atom>::with<std::string>,
                     caf::replies_to<fail_atom>::with<std::string>>;

using stranger_actor =
    caf::typed_actor<caf::replies_to<std::int32_t>::with<std::int32_t>>;

struct speaker_state {
  speaker_state() = default;
  std::vector<caf::typed_response_promise<std::string>> parked;
};

speaker_actor::behavior_type speaker(
    speaker_actor::stateful_pointer<speaker_state> self,
    const std::string& name, const std::function<void()>& when_parked) {
  return {
      [name](say_atom, const std::string& text) { return name + ":" + text; },
      [](note_atom, const std::string&) {},
      [self, when_parked](park_atom) -> caf::result<std::string> {
        self->state.parked.push_back(
            self->make_response_promise<std::string>());
        when_parked();
        return self->state.parked.back();
      },
      [](fail_atom) -> caf::result<std::string> {
        return caf::error{7, caf::atom("speaker"),
                          caf::make_message(std::string{"own words"})};
      },
  };
}

struct configuration : caf::actor_system_config {
  explicit configuration(ipc_role role, const std::string& version = "") {
    configure(*this, role);
    if (!version.empty())
      set("middleman.app-identifiers", std::vector<std::string>{version});
  }
};

/// An actor system that ends its speakers before itself.
struct node {
  explicit node(ipc_role role, const std::string& version = "")
      : config(role, version), sys(config) {}

  ~node() {
    for (auto& x : speakers)
      caf::anon_send_exit(x, caf::exit_reason::user_shutdown);
  }

  speaker_actor speak(
      const std::string& name,
      const std::function<void()>& when_parked = [] {}) {
    speakers.push_back(sys.spawn(speaker, name, when_parked));
    return speakers.back();
  }

  configuration config;
  caf::actor_system sys;
  std::vector<speaker_actor> speakers;
};

struct client_node : node {
  explicit client_node(const std::string& version = "")
      : node(ipc_role::client, version) {}

  caf::expected<speaker_actor> dial(
      const std::string& path, std::chrono::milliseconds timeout = patience) {
    return connect<speaker_actor>(sys, path, timeout);
  }

  /// One whole visit; the answer, or the error's text.
  std::string visit(const std::string& path) {
    auto peer = dial(path);
    if (!peer)
      return sys.render(peer.error());
    return say(*peer, "x");
  }

  std::string say(const speaker_actor& peer, const std::string& text) {
    auto answer = call(sys, peer, patience, say_atom::value, text);
    return answer ? *answer : sys.render(answer.error());
  }
};

template <class T>
std::optional<ipc_errc> code_of(const caf::expected<T>& x) {
  return x ? std::nullopt : ipc_code(x.error());
}

publication must_publish(node& where, const std::string& path,
                         const speaker_actor& whom) {
  auto result = publish(where.sys, path, whom);
  if (!result)
    FAIL(ipc_text(result.error()));
  return std::move(*result);
}

sockaddr_un address(const std::string& path) {
  sockaddr_un result{};
  result.sun_family = AF_UNIX;
  path.copy(static_cast<char*>(result.sun_path), sizeof(result.sun_path) - 1);
  return result;
}

unique_fd raw_client(const std::string& path, int flags = 0) {
  auto to = address(path);
  unique_fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0)};
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0)
    fd.reset();
  return fd;
}

unique_fd raw_server(const std::string& path) {
  auto at = address(path);
  unique_fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  check(::bind(fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof(at)) == 0
            && ::listen(fd.get(), 8) == 0,
        "listen");
  return fd;
}

/// Up to `size` bytes; fewer at the end of the stream or after patience.
std::string receive(int fd, std::size_t size) {
  std::string result;
  while (result.size() < size) {
    char buffer[4096];
    pollfd event{fd, POLLIN, 0};
    if (::poll(&event, 1, 30'000) != 1)
      break;
    auto got =
        ::recv(fd, buffer, std::min(sizeof(buffer), size - result.size()), 0);
    if (got <= 0)
      break;
    result.append(buffer, static_cast<std::size_t>(got));
  }
  return result;
}

/// True once the other side has closed; drops what it said before.
bool closed_by_peer(int fd) {
  pollfd event{fd, POLLIN, 0};
  while (::poll(&event, 1, 30'000) == 1) {
    char buffer[4096];
    if (::recv(fd, buffer, sizeof(buffer), 0) <= 0)
      return true;
  }
  return false;
}

void transmit(int fd, const std::string& bytes) {
  // A refused peer is closed on: then there is nothing left to say.
  static_cast<void>(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL));
}

std::size_t open_descriptors(pid_t pid) {
  fs::directory_iterator all{"/proc/" + std::to_string(pid) + "/fd"};
  return static_cast<std::size_t>(std::distance(all, {}));
}

/// Processor time of a process in clock ticks (proc(5), fields 14 and 15).
long ticks_of(pid_t pid) {
  std::ifstream file{"/proc/" + std::to_string(pid) + "/stat"};
  std::string line;
  std::getline(file, line);
  std::istringstream rest{line.substr(line.rfind(')') + 1)};
  std::string skipped;
  for (int field = 3; field < 14; ++field)
    rest >> skipped;
  long user = 0;
  long system = 0;
  rest >> user >> system;
  return user + system;
}

/// For effects in another process which send no event.
template <class Condition>
bool eventually(Condition&& holds) {
  auto deadline = clock_type::now() + patience;
  while (!holds()) {
    if (clock_type::now() > deadline)
      return false;
    std::this_thread::sleep_for(5ms);
  }
  return true;
}

struct fixture {
  temporary_folder folder;
  std::string path = folder.path() + "/control.sock";
};

struct served_elsewhere : fixture {
  explicit served_elsewhere(const std::string& user = "0",
                            const std::string& name = "s") {
    server.emplace(
        "child: serve",
        std::vector<std::string>{"TEST_SOCKET=" + path, "TEST_USER=" + user,
                                 "TEST_SPEAKER=" + name});
    if (server->line() != "ready")
      throw std::runtime_error{"the server does not start"};
  }

  std::optional<child_process> server;
};

void become(const std::string& user) {
  auto id = static_cast<uid_t>(std::atoi(user.c_str()));
  if (id == ::geteuid() || user.empty())
    return;
  check(::setresgid(id, id, id) == 0 && ::setresuid(id, id, id) == 0,
        "setresuid");
  ::prctl(PR_SET_DUMPABLE, 1);  // the leak sanitizer needs it
}

/// All descriptors that this process may still open.
std::vector<unique_fd> take_all_descriptors() {
  rlimit limit{};
  check(::getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
  limit.rlim_cur = 128;
  check(::setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
  std::vector<unique_fd> result;
  for (int fd = ::dup(1); fd >= 0; fd = ::dup(1))
    result.emplace_back(fd);
  check(errno == EMFILE, "dup");
  return result;
}

// ---- frames of BASP, for peers that misbehave

std::string big_endian(std::uint64_t value, int bytes) {
  std::string result;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8)
    result += static_cast<char>(value >> shift & 0xff);
  return result;
}

std::string header(unsigned type, std::uint64_t length,
                   std::uint64_t operation = 0, std::uint64_t source = 0,
                   std::uint64_t target = 0, unsigned flags = 0) {
  return std::string{static_cast<char>(type), 0, 0, static_cast<char>(flags)}
         + big_endian(length, 4) + big_endian(operation, 8)
         + big_endian(source, 8) + big_endian(target, 8);
}

class liar {
public:
  liar(std::string path, std::uint64_t seed)
      : path_(std::move(path)), random_(seed) {}

  /// One connection; false when nobody accepts it.
  bool connect_and_lie() {
    auto fd = raw_client(path_);
    if (!fd)
      return false;
    switch (below(8)) {
      case 0:  // silent, for a while
        silent_.push_back(std::move(fd));
        if (silent_.size() > 50)
          silent_.erase(silent_.begin());
        return true;
      case 1:
        transmit(fd.get(), noise(below(200)));
        break;
      case 2:  // half a header
        transmit(fd.get(), header(1, 40).substr(0, below(32)));
        break;
      case 3:  // giant payloads, announced
        transmit(fd.get(), header(below(7), 0xffffffffu - below(1000)));
        break;
      case 4:  // frames without the payload they must have
        transmit(fd.get(), header(below(7), 0, below(4)));
        break;
      default:
        converse(fd.get());
    }
    if (below(5) == 0) {
      char c = 0;
      static_cast<void>(::recv(fd.get(), &c, 1, MSG_DONTWAIT));
    }
    return true;
  }

  /// Conversations that got as far as the server's handshake.
  [[nodiscard]] int heard() const {
    return heard_;
  }

private:
  std::uint32_t below(std::uint32_t bound) {
    return static_cast<std::uint32_t>(random_() % bound);
  }

  std::string noise(std::size_t size) {
    std::string result(size, '\0');
    for (auto& c : result)
      c = static_cast<char>(random_());
    return result;
  }

  // Starts from the server's own handshake, so that much of it makes sense.
  void converse(int fd) {
    auto first = receive(fd, 32);
    if (first.size() < 32)
      return;
    std::size_t length = 0;
    for (int i = 4; i < 8; ++i)
      length = length << 8 | static_cast<unsigned char>(first[std::size_t(i)]);
    auto words = receive(fd, length);
    if (words.empty())
      return;
    ++heard_;
    auto other_node = words;
    other_node[9] = static_cast<char>(random_());
    if (below(2) == 0)
      transmit(fd, header(1, other_node.size(), 0) + other_node);
    for (auto frames = below(6); frames > 0; --frames) {
      auto body = below(2) == 0
                      ? noise(below(80))
                      : words.substr(0, below(std::uint32_t(words.size())));
      for (auto changes = below(4); changes > 0 && !body.empty(); --changes)
        body[below(std::uint32_t(body.size()))] = static_cast<char>(random_());
      const std::uint64_t operations[] = {0, 3, std::uint64_t{1} << 63,
                                          std::uint64_t{1} << 61, random_()};
      transmit(fd,
               header(below(7), body.size(), operations[below(5)],
                      below(3) == 0 ? random_() : below(8), below(13), below(3))
                   + body);
    }
  }

  std::string path_;
  std::mt19937_64 random_;
  int heard_ = 0;
  std::vector<unique_fd> silent_;
};

}  // namespace

TEST_CASE("child: serve", "[.child]") {
  die_with_parent();
  become(variable("TEST_USER"));
  node here{ipc_role::server};
  auto published = publish(
      here.sys, variable("TEST_SOCKET"),
      here.speak(variable("TEST_SPEAKER"), [] { test::report("parked"); }));
  if (!published) {
    test::report(ipc_text(published.error()));
    return;
  }
  test::report("ready");
  // Each order toggles between no descriptor to spare and plenty.
  std::vector<unique_fd> taken;
  while (await_order()) {
    if (taken.empty())
      taken = take_all_descriptors();
    else
      taken.clear();
    test::report(taken.empty() ? "fed" : "starving");
  }
}

TEST_CASE("child: visit", "[.child]") {
  die_with_parent();
  become(variable("TEST_USER"));
  client_node here;
  auto peer = here.dial(variable("TEST_SOCKET"));
  auto code = code_of(peer);
  test::report(peer ? "served"
                    : std::to_string(code ? static_cast<int>(*code) : -1) + " "
                          + ipc_text(peer.error()));
}

SCENARIO(
    "a published actor answers, fails and stays silent as it would nearby") {
  fixture f;
  node server{ipc_role::server};
  client_node client;
  auto published = must_publish(server, f.path, server.speak("a"));
  struct stat info {};
  REQUIRE(::stat(f.path.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777u) == 0600);
  CHECK(std::distance(fs::directory_iterator{f.folder.path()}, {}) == 1);

  auto peer = client.dial(f.path);
  REQUIRE(peer);
  CHECK(client.say(*peer, "hello") == "a:hello");
  CHECK(call(client.sys, *peer, patience, note_atom::value, std::string{"n"}));

  std::string big(4u << 20, 'x');
  auto echoed = call(client.sys, *peer, patience, say_atom::value, big);
  REQUIRE(echoed);
  CHECK(*echoed == "a:" + big);

  auto failed = call(client.sys, *peer, patience, fail_atom::value);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().category() == caf::atom("speaker"));
  CHECK(failed.error().code() == 7);
  CHECK_FALSE(ipc_code(failed.error()));
  CHECK(ipc_text(failed.error()).empty());

  auto parked = call(client.sys, *peer, 20ms, park_atom::value);
  CHECK(code_of(parked) == ipc_errc::timed_out);

  published = publication{};
  CHECK_FALSE(fs::exists(f.path));
  CHECK(code_of(client.dial(f.path)) == ipc_errc::nobody_there);
  CHECK(client.say(*peer, "still here") == "a:still here");
}

SCENARIO("a frame of more than 16 MiB ends the connection, not the server") {
  fixture f;
  node server{ipc_role::server};
  auto published = must_publish(server, f.path, server.speak("a"));
  client_node client;
  auto peer = client.dial(f.path);
  REQUIRE(peer);
  auto answer = call(client.sys, *peer, patience, say_atom::value,
                     std::string(ipc_frame_bytes, 'x'));
  CHECK(code_of(answer) == ipc_errc::connection_lost);
  client_node another;
  CHECK(another.visit(f.path) == "a:x");
}

SCENARIO("a stranger announces at most 4 KiB, who is known any frame") {
  fixture f;
  node server{ipc_role::server};
  auto published = must_publish(server, f.path, server.speak("a"));
  constexpr unsigned client_handshake = 1;
  constexpr unsigned direct_message = 2;
  // Too much, as whatever it is announced.
  for (const auto type : {client_handshake, direct_message}) {
    auto greedy = raw_client(f.path);
    transmit(greedy.get(), header(type, ipc_stranger_bytes + 1));
    CHECK(closed_by_peer(greedy.get()));
  }
  // As much as there may be: CAF reads the front of it. The node is another
  // one than the server's, whose words these are.
  auto modest = raw_client(f.path);
  const auto greeting = receive(modest.get(), 32);
  REQUIRE(greeting.size() == 32);
  std::size_t length = 0;
  for (std::size_t i = 4; i < 8; ++i)
    length = length << 8 | static_cast<unsigned char>(greeting[i]);
  auto words = receive(modest.get(), length);
  REQUIRE(words.size() == length);
  words[9] = static_cast<char>(~words[9]);
  words.resize(ipc_stranger_bytes, '\0');
  transmit(modest.get(), header(client_handshake, words.size()) + words
                             + header(direct_message, ipc_frame_bytes));
  // Meanwhile others are served, and it has not been closed on.
  CHECK(client_node{}.visit(f.path) == "a:x");
  char c = 0;
  CHECK(::recv(modest.get(), &c, 1, MSG_DONTWAIT | MSG_PEEK) != 0);
  transmit(modest.get(), std::string(1 << 20, 'x'));
  CHECK(client_node{}.visit(f.path) == "a:x");
  CHECK(::recv(modest.get(), &c, 1, MSG_DONTWAIT | MSG_PEEK) != 0);
}

SCENARIO("what does not fit together is told apart") {
  fixture f;
  client_node client;

  WHEN("another interface is published") {
    node server{ipc_role::server};
    auto stranger = server.sys.spawn([]() -> stranger_actor::behavior_type {
      return {[](std::int32_t x) { return x; }};
    });
    auto published = publish(server.sys, f.path, stranger);
    REQUIRE(published);
    CHECK(code_of(client.dial(f.path)) == ipc_errc::wrong_interface);
    auto peer = connect<stranger_actor>(client.sys, f.path, patience);
    REQUIRE(peer);
    auto answer = call(client.sys, *peer, patience, std::int32_t{4});
    CHECK(answer == caf::expected<std::int32_t>{4});
    caf::anon_send_exit(stranger, caf::exit_reason::user_shutdown);
  }
  WHEN("the versions differ") {
    node server{ipc_role::server};
    auto published = must_publish(server, f.path, server.speak("a"));
    client_node newer{"pup/999"};
    auto peer = newer.dial(f.path);
    CHECK(code_of(peer) == ipc_errc::incompatible_version);
    CHECK(ipc_text(peer.error()).find(f.path) == 0);
    CHECK(client.visit(f.path) == "a:x");
  }
  WHEN("there is no file") {
    CHECK(code_of(client.dial(f.path)) == ipc_errc::nobody_there);
    CHECK(code_of(client.dial(f.path + "/below")) == ipc_errc::nobody_there);
  }
  WHEN("the socket is a dead one") {
    raw_server(f.path).reset();
    REQUIRE(fs::exists(f.path));
    CHECK(code_of(client.dial(f.path)) == ipc_errc::nobody_there);
    THEN("publishing replaces it") {
      node server{ipc_role::server};
      auto published = must_publish(server, f.path, server.speak("a"));
      CHECK(client.visit(f.path) == "a:x");
    }
  }
  WHEN("the path is as long as it may be, and longer") {
    node server{ipc_role::server};
    auto stem = f.folder.path() + "/";
    auto longest = stem + std::string(107 - stem.size(), 's');
    auto published = must_publish(server, longest, server.speak("a"));
    CHECK(client.visit(longest) == "a:x");
    CHECK(code_of(publish(server.sys, longest + "s", server.speak("b")))
          == ipc_errc::path_too_long);
    CHECK(code_of(client.dial(longest + "s")) == ipc_errc::path_too_long);
    CHECK(code_of(client.dial("")) == ipc_errc::path_too_long);
  }
  WHEN("the folder is missing") {
    node server{ipc_role::server};
    auto nowhere = f.folder.path() + "/no/control.sock";
    auto published = publish(server.sys, nowhere, server.speak("a"));
    CHECK(code_of(published) == ipc_errc::system);
    CHECK(ipc_text(published.error()).find("/no/") != std::string::npos);
  }
  WHEN("the server talks something else") {
    auto listening = raw_server(f.path);
    std::thread server{[&listening] {
      unique_fd peer{::accept(listening.get(), nullptr, nullptr)};
      transmit(peer.get(), "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n");
      closed_by_peer(peer.get());
    }};
    CHECK(code_of(client.dial(f.path)) == ipc_errc::connection_lost);
    server.join();
  }
}

SCENARIO("a server that accepts and is silent costs the timeout and no more") {
  fixture f;
  auto listening = raw_server(f.path);
  client_node client;
  CHECK(code_of(client.dial(f.path, 50ms)) == ipc_errc::timed_out);
  unique_fd peer{::accept(listening.get(), nullptr, nullptr)};
  REQUIRE(peer);
  CHECK(closed_by_peer(peer.get()));
}

SCENARIO("a stopped supervisor is reported, and serves again when continued") {
  served_elsewhere f;
  client_node client;
  auto before = client.dial(f.path);
  REQUIRE(before);
  f.server->stop();

  CHECK(code_of(client_node{}.dial(f.path, 100ms)) == ipc_errc::timed_out);
  auto late =
      call(client.sys, *before, 100ms, say_atom::value, std::string{"one"});
  CHECK(code_of(late) == ipc_errc::timed_out);

  // Even connect() waits when the listen queue is full.
  std::vector<unique_fd> queue;
  for (auto fd = raw_client(f.path, SOCK_NONBLOCK); fd && queue.size() < 5000;
       fd = raw_client(f.path, SOCK_NONBLOCK))
    queue.push_back(std::move(fd));
  REQUIRE(queue.size() < 5000);
  auto start = clock_type::now();
  CHECK(code_of(client_node{}.dial(f.path, 100ms)) == ipc_errc::timed_out);
  CHECK(clock_type::now() - start >= 100ms);
  CHECK(clock_type::now() - start < patience);
  queue.clear();

  f.server->signal(SIGCONT);
  CHECK(client_node{}.visit(f.path) == "s:x");
  // The answer to "one" arrives now as well, and must not be taken for this.
  CHECK(client.say(*before, "two") == "s:two");
}

SCENARIO("a killed supervisor ends the calls that wait for it, at once") {
  served_elsewhere f;
  client_node client;
  auto peer = client.dial(f.path);
  REQUIRE(peer);
  auto start = clock_type::now();
  std::thread killer{[&f] {
    if (f.server->line() == "parked")
      f.server->kill();
  }};
  auto answer = call(client.sys, *peer, 10min, park_atom::value);
  killer.join();
  CHECK(code_of(answer) == ipc_errc::connection_lost);
  CHECK(clock_type::now() - start < patience);
  // So do later ones, and the socket file that is left behind.
  answer = call(client.sys, *peer, 10min, park_atom::value);
  CHECK(code_of(answer) == ipc_errc::connection_lost);
  REQUIRE(fs::exists(f.path));
  CHECK(code_of(client.dial(f.path)) == ipc_errc::nobody_there);
}

SCENARIO(
    "an actor that ends during a call fails the call, not the connection") {
  fixture f;
  node server{ipc_role::server};
  auto first = server.speak("a");
  server.speakers.push_back(
      server.sys.spawn(speaker, std::string{"b"}, [&first] {
        caf::anon_send_exit(first, caf::exit_reason::user_shutdown);
      }));
  auto published = must_publish(server, f.path, first);
  client_node client;
  auto peer = client.dial(f.path);
  REQUIRE(peer);
  std::thread ender{
      [&server] { caf::anon_send(server.speakers[1], park_atom::value); }};
  auto answer = call(client.sys, *peer, 10min, park_atom::value);
  ender.join();
  CHECK(code_of(answer) == ipc_errc::connection_lost);
}

SCENARIO("a published actor is replaced while callers come and go") {
  fixture f;
  node server{ipc_role::server};
  auto first = server.speak("first");
  auto published = must_publish(server, f.path, first);
  client_node old_client;
  auto old_peer = old_client.dial(f.path);
  REQUIRE(old_peer);
  CHECK(old_client.say(*old_peer, "x") == "first:x");

  published.republish(server.speak("second"));
  CHECK(client_node{}.visit(f.path) == "second:x");
  CHECK(old_client.say(*old_peer, "x") == "first:x");
  caf::anon_send_exit(first, caf::exit_reason::kill);
  CHECK(code_of(call(old_client.sys, *old_peer, patience, park_atom::value))
        == ipc_errc::connection_lost);
  CHECK(old_client.visit(f.path) == "second:x");

  std::atomic<bool> done{false};
  std::vector<std::string> surprises;
  int visits = 0;
  std::thread visitor{[&f, &done, &surprises, &visits] {
    do {
      auto said = client_node{}.visit(f.path);
      ++visits;
      if (said != "second:x" && said != "next:x")
        surprises.push_back(said);
    } while (!done || visits < 20);
  }};
  for (int i = 0; i < 200; ++i)
    published.republish(server.speak("next"));
  done = true;
  visitor.join();
  CHECK(surprises.empty());
  CHECK(client_node{}.visit(f.path) == "next:x");
}

SCENARIO("a publication removes only its own socket file") {
  fixture f;
  node server{ipc_role::server};
  client_node client;
  auto first = must_publish(server, f.path, server.speak("a"));
  auto second = must_publish(server, f.path, server.speak("b"));
  auto elsewhere =
      must_publish(server, f.folder.path() + "/c", server.speak("c"));
  first = publication{};
  CHECK(client_node{}.visit(f.path) == "b:x");
  CHECK(client_node{}.visit(f.folder.path() + "/c") == "c:x");
  second = std::move(elsewhere);
  CHECK_FALSE(fs::exists(f.path));
  CHECK(client_node{}.visit(f.folder.path() + "/c") == "c:x");
}

SCENARIO("garbage, half frames, giant lengths and silence do no harm") {
  served_elsewhere f;
  auto given = variable("PUP_TEST_SEED");
  auto seed = given.empty() ? std::random_device{}() : std::stoull(given);
  CAPTURE(seed);
  liar peer{f.path, seed};
  for (int i = 0; i < 3000; ++i) {
    INFO("connection " << i);
    REQUIRE(peer.connect_and_lie());
  }
  CHECK(peer.heard() > 300);
  std::string said;
  // Not served while more than ipc_peers are still being closed.
  CHECK(eventually([&said, &f] {
    said = client_node{}.visit(f.path);
    return said == "s:x";
  }));
  CHECK(said == "s:x");
  CHECK(f.server->end() == 0);
}

SCENARIO("the known killers of CAF's broker are refused one by one") {
  served_elsewhere f;
  const std::vector<std::string> killers{
      header(0, 0),                                   // handshakes without
      header(1, 0),                                   // their payload
      header(1, 0xffffffffu),                         // 4 GiB announced
      header(1, std::uint64_t{ipc_frame_bytes} + 1),  // one byte too many
      header(2, 0),                                   // message without payload
      header(2, 8, std::uint64_t{1} << 61) + "12345678",  // stream bits
      header(3, 8, std::uint64_t{1} << 61) + "12345678",
      header(6, 5) + "12345",  // heartbeat with payload
  };
  for (const auto& killer : killers) {
    auto fd = raw_client(f.path);
    REQUIRE(fd);
    auto hello = receive(fd.get(), 32);
    REQUIRE(hello.size() == 32);
    receive(fd.get(), static_cast<unsigned char>(hello[7])
                          + 256u * static_cast<unsigned char>(hello[6]));
    transmit(fd.get(), killer);
    CHECK(closed_by_peer(fd.get()));
  }
  CHECK(client_node{}.visit(f.path) == "s:x");
}

SCENARIO("at most 256 peers are connected at once") {
  served_elsewhere f;
  std::vector<unique_fd> peers;
  bool refused = false;
  // Some more than fit: one may be taken for the server itself.
  for (std::size_t i = 0; i < ipc_peers + 8 && !refused; ++i) {
    auto fd = raw_client(f.path);
    REQUIRE(fd);
    // Greets as each node does: with the server's words, and its own number.
    auto hello = receive(fd.get(), 32);
    refused = hello.size() < 32;
    if (refused)
      break;
    auto words =
        receive(fd.get(), static_cast<unsigned char>(hello[7])
                              + 256u * static_cast<unsigned char>(hello[6]));
    REQUIRE(words.size() > 12);
    words[9] = static_cast<char>(i);
    words[10] = static_cast<char>(i / 256);  // of its process id
    transmit(fd.get(), header(1, words.size(), 0) + words);
    peers.push_back(std::move(fd));
  }
  CHECK(refused);
  CHECK(peers.size() >= ipc_peers);
  CHECK(code_of(client_node{}.dial(f.path)) == ipc_errc::connection_lost);
  peers.clear();
  CHECK(eventually([&f] { return client_node{}.visit(f.path) == "s:x"; }));
}

SCENARIO("10,000 who connect and are silent keep nobody out") {
  constexpr std::size_t many = 10'000;
  rlimit limit{};
  check(::getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
  if (limit.rlim_max < many + 1'000) {
    WARN("skipped: at most " << limit.rlim_max << " descriptors");
    return;
  }
  const auto before = limit.rlim_cur;
  served_elsewhere f;
  limit.rlim_cur = many + 1'000;
  check(::setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
  std::vector<unique_fd> silent;
  for (std::size_t i = 0; i < many; ++i) {
    silent.push_back(raw_client(f.path));
    REQUIRE(silent.back());
    if (i % 3 == 0)
      transmit(silent.back().get(), header(1, 40).substr(0, 20));
    if (i % 2'000 == 0)
      CHECK(eventually([&f] { return client_node{}.visit(f.path) == "s:x"; }));
  }
  CHECK(eventually([&f] { return client_node{}.visit(f.path) == "s:x"; }));
  CHECK(open_descriptors(f.server->pid()) < 2 * ipc_peers);
  silent.clear();
  CHECK(client_node{}.visit(f.path) == "s:x");
  limit.rlim_cur = before;
  check(::setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
}

SCENARIO("only the same user and root get through") {
  if (::geteuid() != 0) {
    WARN("skipped: needs root to become another user");
    return;
  }
  const std::string nobody = "65534";
  auto code = [](ipc_errc x) {
    return std::to_string(static_cast<int>(x)) + " ";
  };
  GIVEN("a server of root") {
    served_elsewhere f;
    REQUIRE(::chmod(f.folder.path().c_str(), 0711) == 0);
    auto visit_as_nobody = [&f, &nobody] {
      child_process visitor{"child: visit",
                            {"TEST_SOCKET=" + f.path, "TEST_USER=" + nobody}};
      return visitor.line();
    };
    THEN("the file's mode stops another user") {
      CHECK(visit_as_nobody().find(code(ipc_errc::not_permitted)) == 0);
    }
    THEN("the server refuses another user whom the file lets in") {
      REQUIRE(::chmod(f.path.c_str(), 0666) == 0);
      CHECK(visit_as_nobody().find(code(ipc_errc::connection_lost)) == 0);
    }
    CHECK(client_node{}.visit(f.path) == "s:x");
  }
  GIVEN("a server of another user") {
    fixture f;
    REQUIRE(::chown(f.folder.path().c_str(), 65534, 65534) == 0);
    child_process server{"child: serve",
                         {"TEST_SOCKET=" + f.path, "TEST_USER=" + nobody}};
    REQUIRE(server.line() == "ready");
    THEN("root gets through") {
      CHECK(client_node{}.visit(f.path) == ":x");
    }
    THEN("another user turns away, had the file let them in") {
      REQUIRE(::chmod(f.folder.path().c_str(), 0711) == 0);
      REQUIRE(::chmod(f.path.c_str(), 0666) == 0);
      child_process visitor{"child: visit",
                            {"TEST_SOCKET=" + f.path, "TEST_USER=65533"}};
      CHECK(visitor.line().find(code(ipc_errc::not_permitted)) == 0);
    }
  }
}

SCENARIO("a server out of descriptors drops new peers, rests, and recovers") {
  if (__ubsan_handle_dynamic_type_cache_miss_abort != nullptr) {
    WARN("skipped: needs a build without the undefined behaviour sanitizer");
    return;
  }
  served_elsewhere f;
  client_node early;
  auto peer = early.dial(f.path);
  REQUIRE(peer);
  f.server->order("x");
  REQUIRE(f.server->line() == "starving");
  // What is held in reserve lets a command through, again and again.
  for (int i = 0; i < 10; ++i)
    CHECK(eventually([&f] { return client_node{}.visit(f.path) == "s:x"; }));
  // Nobody else stays in the queue.
  std::vector<unique_fd> silent;
  for (int i = 0; i < 3; ++i)
    silent.push_back(raw_client(f.path));
  for (int i = 0; i < 50; ++i) {
    auto fd = raw_client(f.path);
    REQUIRE(fd);
    CHECK(closed_by_peer(fd.get()));
  }
  CHECK(code_of(client_node{}.dial(f.path)) == ipc_errc::connection_lost);
  CHECK(early.say(*peer, "x") == "s:x");
  // A spinning loop would use all of the 50 ticks (of 10 ms) of this time.
  auto before = ticks_of(f.server->pid());
  std::this_thread::sleep_for(500ms);
  CHECK(ticks_of(f.server->pid()) - before < 25);
  silent.clear();
  CHECK(eventually([&f] { return client_node{}.visit(f.path) == "s:x"; }));
  f.server->order("x");
  REQUIRE(f.server->line() == "fed");
  CHECK(client_node{}.visit(f.path) == "s:x");
}

SCENARIO("300 commands leave no descriptor behind") {
  served_elsewhere f;
  REQUIRE(client_node{}.visit(f.path) == "s:x");
  auto descriptors = [&f] { return open_descriptors(f.server->pid()); };
  std::size_t before = 0;
  // The first visitor's end may still be on its way.
  REQUIRE(eventually([&before, &descriptors] {
    return std::exchange(before, descriptors()) == descriptors();
  }));
  for (int i = 0; i < 300; ++i)
    REQUIRE(client_node{}.visit(f.path) == "s:x");
  CHECK(eventually([before, &descriptors] { return descriptors() <= before; }));
}
