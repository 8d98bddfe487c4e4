#include "system.hpp"

#include "pup/runtime/descendants.hpp"
#include "pup/runtime/pidfd.hpp"

#include "catch.hpp"

#include <boost/json/parse.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <pty.h>
#include <random>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pup::test {

namespace {

namespace fs = std::filesystem;
using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error{errno, std::generic_category(), what};
}

void check(bool ok, const std::string& what) {
  if (!ok)
    fail(what);
}

std::string contents(const fs::path& file) {
  std::ifstream in{file, std::ios::binary};
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// For poll(): 0 when it has passed.
int until(clock::time_point deadline) {
  const auto left =
      std::chrono::ceil<milliseconds>(deadline - clock::now()).count();
  return static_cast<int>(std::clamp<long>(left, 0, 1'000'000));
}

/// Whether one of the events came in time.
bool wait_for(int fd, short events, clock::time_point deadline) {
  pollfd one{fd, events, 0};
  for (;;) {
    const int n = ::poll(&one, 1, until(deadline));
    if (n >= 0 || errno != EINTR)
      return n > 0;
  }
}

}  // namespace

// -- waiting ------------------------------------------------------------------

bool wait_until(const std::function<bool()>& condition, milliseconds limit) {
  const auto deadline = clock::now() + limit;
  for (int pause_ms = 2; !condition(); pause_ms = std::min(2 * pause_ms, 50)) {
    if (clock::now() >= deadline)
      return false;
    ::poll(nullptr, 0, pause_ms);
  }
  return true;
}

bool wait_for_end(pid_t pid, milliseconds limit) {
  const auto pidfd = open_pidfd(pid);
  return !pidfd || wait_for(pidfd.get(), POLLIN, clock::now() + limit);
}

bool alive(pid_t pid) {
  return !wait_for_end(pid, milliseconds{0});
}

pid_t only(const std::set<pid_t>& pids) {
  REQUIRE(pids.size() == 1);
  return *pids.begin();
}

void freeze(pid_t pid) {
  check(::kill(pid, SIGSTOP) == 0, "kill");
  // "pid (name) state …"
  const auto stopped = [](const fs::path& task) {
    const auto text = contents(task / "stat");
    const auto at = text.rfind(") ");
    return at != std::string::npos && text[at + 2] == 'T';
  };
  const auto tasks = "/proc/" + std::to_string(pid) + "/task";
  const auto all_stopped = [&] {
    return std::all_of(fs::directory_iterator{tasks}, fs::directory_iterator{},
                       [&](const auto& x) { return stopped(x.path()); });
  };
  if (!wait_until(all_stopped))
    throw std::runtime_error{"pid " + std::to_string(pid) + " does not stop"};
}

// -- running programs ---------------------------------------------------------

namespace {

std::array<unique_fd, 2> make_pipe() {
  std::array<int, 2> ends{};
  check(::pipe2(ends.data(), O_CLOEXEC) == 0, "pipe2");
  return {unique_fd{ends[0]}, unique_fd{ends[1]}};
}

std::vector<std::string> whole_environment(const command_line& what) {
  std::vector<std::string> result;
  for (const auto& [name, value] : what.env)
    result.push_back(name + '=' + value);
  for (const auto* name : {"ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS",
                           "LSAN_OPTIONS", "LD_LIBRARY_PATH"})
    if (const auto* value = std::getenv(name);
        value && !what.env.contains(name))
      result.push_back(std::string{name} + '=' + value);
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& x : texts)
    result.push_back(x.data());
  result.push_back(nullptr);
  return result;
}

/// What the new process does to itself; dup2 clears close-on-exec.
class file_actions {
public:
  file_actions() {
    ::posix_spawn_file_actions_init(&actions_);
  }
  ~file_actions() {
    ::posix_spawn_file_actions_destroy(&actions_);
  }
  file_actions(const file_actions&) = delete;
  file_actions& operator=(const file_actions&) = delete;

  void use(int fd, int as) {
    ::posix_spawn_file_actions_adddup2(&actions_, fd, as);
  }
  void null_input() {
    ::posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
  }
  void enter(const std::string& folder) {
    ::posix_spawn_file_actions_addchdir_np(&actions_, folder.c_str());
  }
  posix_spawn_file_actions_t* get() {
    return &actions_;
  }

private:
  posix_spawn_file_actions_t actions_;
};

// In a group of its own, as a shell would: a signal for it stays with it.
pid_t spawn_it(const command_line& what, file_actions& actions) {
  auto argv = what.argv;
  if (what.user) {
    const auto id = std::to_string(*what.user);
    argv.insert(argv.begin(), {"/usr/bin/setpriv", "--reuid", id, "--regid", id,
                               "--clear-groups", "--"});
  }
  auto environment = whole_environment(what);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t all;
  sigset_t none;
  sigfillset(&all);
  sigemptyset(&none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF
                                              | POSIX_SPAWN_SETSIGMASK
                                              | POSIX_SPAWN_SETPGROUP);
  pid_t pid = 0;
  errno = ::posix_spawnp(&pid, argv.front().c_str(), actions.get(), &attributes,
                         pointers(argv).data(), pointers(environment).data());
  ::posix_spawnattr_destroy(&attributes);
  check(errno == 0, "start " + argv.front());
  return pid;
}

}  // namespace

process::process(const command_line& what) : begun_(clock::now()) {
  file_actions actions;
  std::array<unique_fd, 2> in;
  std::array<unique_fd, 2> out;
  std::array<unique_fd, 2> err;
  if (what.terminal) {
    int master = -1;
    int slave = -1;
    check(::openpty(&master, &slave, nullptr, nullptr, nullptr) == 0,
          "openpty");
    out = {unique_fd{master}, unique_fd{slave}};
    ::fcntl(master, F_SETFD, FD_CLOEXEC);
    ::fcntl(slave, F_SETFD, FD_CLOEXEC);
    for (const int fd : {0, 1, 2})
      actions.use(slave, fd);
  } else {
    out = make_pipe();
    err = make_pipe();
    actions.use(out[1].get(), 1);
    actions.use(err[1].get(), 2);
    if (what.input) {
      in = make_pipe();
      actions.use(in[0].get(), 0);
    } else {
      actions.null_input();
    }
  }
  actions.enter(what.cwd);
  pid_ = spawn_it(what, actions);
  pidfd_ = open_pidfd(pid_);
  input_ = std::move(in[1]);
  out_ = std::move(out[0]);
  err_ = std::move(err[0]);
}

process::process(process&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)),
      pidfd_(std::move(other.pidfd_)),
      input_(std::move(other.input_)),
      out_(std::move(other.out_)),
      err_(std::move(other.err_)),
      result_(std::move(other.result_)),
      begun_(other.begun_) {}

process::~process() {
  if (pid_ <= 0)
    return;
  ::kill(-pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void process::signal(int number) const {
  check(pid_ > 0 && ::kill(pid_, number) == 0, "kill");
}

void process::write_input(std::string_view text) const {
  check(::write(input_.get(), text.data(), text.size())
            == static_cast<ssize_t>(text.size()),
        "write to the standard input");
}

bool process::pump(clock::time_point deadline) {
  std::array<pollfd, 2> events{pollfd{out_.get(), POLLIN, 0},
                               pollfd{err_.get(), POLLIN, 0}};
  if (!out_ && !err_)
    return false;
  const int n = ::poll(events.data(), events.size(), until(deadline));
  if (n < 0 && errno == EINTR)
    return true;
  check(n >= 0, "poll");
  for (const auto& event : events) {
    if (event.fd < 0 || event.revents == 0)
      continue;
    std::array<char, 65'536> buffer{};
    const auto got = ::read(event.fd, buffer.data(), buffer.size());
    const auto is_out = event.fd == out_.get();
    if (got > 0)
      (is_out ? result_.out : result_.err)
          .append(buffer.data(), static_cast<std::size_t>(got));
    else if (got == 0 || errno != EINTR)  // a terminal ends with EIO
      (is_out ? out_ : err_).reset();
  }
  return true;
}

bool process::says(std::string_view text, milliseconds limit) {
  const auto deadline = clock::now() + limit;
  for (;;) {
    if (result_.out.find(text) != std::string::npos
        || result_.err.find(text) != std::string::npos)
      return true;
    if (clock::now() >= deadline || !pump(deadline))
      return false;
  }
}

finished process::wait(milliseconds limit) {
  const auto deadline = clock::now() + limit;
  const auto said = [this] {
    return "; it said: " + result_.out + result_.err;
  };
  while (pump(deadline))
    if (clock::now() >= deadline)
      throw std::runtime_error{
          (alive(pid_) ? "it does not end in time"
                       : "it has ended, but its output is still held open")
          + said()};
  if (!wait_for(pidfd_.get(), POLLIN, deadline))
    throw std::runtime_error{"it closed its output but does not end" + said()};
  int status = 0;
  check(::waitpid(pid_, &status, 0) == pid_, "waitpid");
  pid_ = 0;
  result_.wall = std::chrono::ceil<milliseconds>(clock::now() - begun_);
  if (WIFEXITED(status))
    result_.code = WEXITSTATUS(status);
  else
    result_.signal = WTERMSIG(status);
  return result_;
}

finished run(const command_line& what, milliseconds limit) {
  return process{what}.wait(limit);
}

// -- ports --------------------------------------------------------------------

namespace {

// Linux gives out 32768 and above by itself; below 20000 are the well-known
// ones of services that may run here.
constexpr int lowest_port = 20'000;
constexpr int port_limit = 32'000;

/// Bound with SO_REUSEADDR, as servers do: only a socket that listens, not what
/// a closed one left in TIME_WAIT, is in the way.
bool can_bind(int family, const void* address, socklen_t size, bool only_v6) {
  unique_fd fd{::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (!fd)
    return errno == EAFNOSUPPORT;
  const int on = 1;
  const int v6 = only_v6 ? 1 : 0;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (family == AF_INET6)
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6, sizeof(v6));
  if (::bind(fd.get(), static_cast<const sockaddr*>(address), size) == 0)
    return ::listen(fd.get(), 1) == 0;
  return errno == EADDRNOTAVAIL;
}

}  // namespace

bool port_is_free(std::uint16_t port) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  return can_bind(AF_INET, &v4, sizeof(v4), false)
         && can_bind(AF_INET6, &v6, sizeof(v6), true);
}

port_range::port_range(std::uint16_t count) : count_(count) {
  const auto file = "/tmp/pup-test-ports-" + std::to_string(::geteuid());
  lock_ = unique_fd{
      ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)};
  check(static_cast<bool>(lock_), file);
  std::random_device random;
  std::uniform_int_distribution<int> any{lowest_port, port_limit - count};
  for (int attempt = 0; attempt < 10'000; ++attempt) {
    first_ = static_cast<std::uint16_t>(any(random));
    struct flock bytes {};
    bytes.l_type = F_WRLCK;
    bytes.l_whence = SEEK_SET;
    bytes.l_start = first_;
    bytes.l_len = count;
    if (::fcntl(lock_.get(), F_OFD_SETLK, &bytes) != 0)
      continue;
    bool free = true;
    for (std::uint16_t i = 0; free && i < count; ++i)
      free = port_is_free((*this)[i]);
    if (free)
      return;
    bytes.l_type = F_UNLCK;
    ::fcntl(lock_.get(), F_OFD_SETLK, &bytes);
  }
  throw std::runtime_error{"no " + std::to_string(count)
                           + " consecutive ports are free"};
}

std::uint16_t port_range::operator[](std::uint16_t i) const {
  if (i >= count_)
    throw std::out_of_range{"the test reserved fewer ports"};
  return static_cast<std::uint16_t>(first_ + i);
}

// -- a client -----------------------------------------------------------------

namespace {

struct address {
  sockaddr_storage bytes{};
  socklen_t size = 0;

  [[nodiscard]] const sockaddr* get() const {
    return reinterpret_cast<const sockaddr*>(&bytes);
  }
};

address address_of(const std::string& host, std::uint16_t port) {
  address result;
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&result.bytes);
  auto* v4 = reinterpret_cast<sockaddr_in*>(&result.bytes);
  if (::inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    result.size = sizeof(*v6);
    return result;
  }
  result = {};
  check(::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1, host);
  v4->sin_family = AF_INET;
  v4->sin_port = htons(port);
  result.size = sizeof(*v4);
  return result;
}

std::string text_of(const endpoint& to) {
  return to.host + " port " + std::to_string(to.port);
}

/// 0 when the head does not say. Names of headers may be in any case.
std::size_t content_length(std::string head) {
  std::transform(head.begin(), head.end(), head.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  constexpr std::string_view name = "\r\ncontent-length: ";
  const auto at = head.find(name);
  std::size_t result = 0;
  if (at != std::string::npos)
    std::from_chars(head.data() + at + name.size(), head.data() + head.size(),
                    result);
  return result;
}

}  // namespace

connection::connection(const endpoint& to, milliseconds limit) {
  const auto peer = address_of(to.host, to.port);
  fd_ =
      unique_fd{::socket(peer.get()->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  check(static_cast<bool>(fd_), "socket");
  timeval time{};
  time.tv_sec = limit.count() / 1'000;
  time.tv_usec = limit.count() % 1'000 * 1'000;
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time));
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
  if (!to.source.empty()) {
    const auto own = address_of(to.source, 0);
    check(::bind(fd_.get(), own.get(), own.size) == 0, "bind " + to.source);
  }
  check(::connect(fd_.get(), peer.get(), peer.size) == 0,
        "connect to " + text_of(to));
}

void connection::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR)
      continue;
    check(n > 0, "send");
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

std::string connection::receive() {
  std::string buffer(65'536, '\0');
  ssize_t n = 0;
  do {
    n = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
  } while (n < 0 && errno == EINTR);
  check(n >= 0, "receive");
  buffer.resize(static_cast<std::size_t>(n));
  return buffer;
}

void connection::shutdown_send() {
  check(::shutdown(fd_.get(), SHUT_WR) == 0, "shutdown");
}

void connection::ask(const std::string& path) {
  send("GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n");
}

response connection::answer() {
  response result;
  std::size_t end = 0;
  while ((end = rest_.find("\r\n\r\n")) == std::string::npos) {
    const auto more = receive();
    if (more.empty())
      return {};
    rest_ += more;
  }
  result.head = rest_.substr(0, end + 2);
  const auto size = content_length(result.head);
  rest_.erase(0, end + 4);
  while (rest_.size() < size) {
    const auto more = receive();
    if (more.empty())
      return {};
    rest_ += more;
  }
  result.body = rest_.substr(0, size);
  rest_.erase(0, size);
  constexpr std::string_view version = "HTTP/1.1 ";
  if (result.head.starts_with(version))
    std::from_chars(result.head.data() + version.size(),
                    result.head.data() + result.head.size(), result.status);
  return result;
}

response connection::get(const std::string& path) {
  ask(path);
  return answer();
}

response get(const endpoint& to, const std::string& path, milliseconds limit) {
  return connection{to, limit}.get(path);
}

response get(std::uint16_t port, const std::string& path) {
  return get(endpoint{port, "127.0.0.1", {}}, path);
}

std::string who(const endpoint& to) {
  const auto answer = get(to);
  if (answer.status != 200)
    throw std::runtime_error{text_of(to) + " answered "
                             + std::to_string(answer.status)};
  return answer.body.substr(0, answer.body.find(' '));
}

std::string who(std::uint16_t port) {
  return who(endpoint{port, "127.0.0.1", {}});
}

// -- JSON ---------------------------------------------------------------------

boost::json::value parse_json(std::string_view text) {
  boost::json::error_code error;
  auto result = boost::json::parse({text.data(), text.size()}, error);
  if (error)
    throw std::runtime_error{"no JSON: " + std::string{text}};
  return result;
}

const boost::json::object& with_id(const boost::json::array& all,
                                   std::string_view id) {
  for (const auto& x : all)
    if (const auto& object = x.as_object();
        object.at("id").as_string()
        == boost::json::string_view{id.data(), id.size()})
      return object;
  throw std::runtime_error{"nothing has the id " + std::string{id}};
}

// -- a world ------------------------------------------------------------------

namespace {

constexpr std::string_view mark = "PUP_TEST_SANDBOX";

std::vector<pid_t> all_processes() {
  std::vector<pid_t> result;
  for (const auto& entry : fs::directory_iterator{"/proc"}) {
    const auto name = entry.path().filename().string();
    pid_t pid = 0;
    const auto end = name.data() + name.size();
    if (std::from_chars(name.data(), end, pid).ptr == end)
      result.push_back(pid);
  }
  return result;
}

/// Its arguments, one after the other with spaces, for people.
std::string command_of(pid_t pid) {
  auto text = contents("/proc/" + std::to_string(pid) + "/cmdline");
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

/// A temporary folder with a short path: the socket of pup must fit in 107
/// bytes.
fs::path make_folder() {
  std::string name = "/tmp/pup-test-XXXXXX";
  check(::mkdtemp(name.data()) != nullptr, name);
  check(::chmod(name.c_str(), 0711) == 0, name);
  // What a supervisor of a configuration without a name is called.
  name += "/pup";
  check(::mkdir(name.c_str(), 0700) == 0, name);
  return name;
}

}  // namespace

sandbox::sandbox() : folder_(make_folder()) {
  const auto* inherited = std::getenv("PATH");
  env = {{"PATH", inherited != nullptr ? inherited : "/usr/bin:/bin"},
         {"HOME", folder_.string()},
         {"LC_ALL", "C.UTF-8"},
         {"PUP_RUNTIME_DIR", (folder_ / "run").string()},
         {"PUP_STATE_DIR", (folder_ / "state").string()},
         {std::string{mark}, folder_.string()}};
}

sandbox::~sandbox() {
  if (!ended_) {
    const auto left = end();
    if (!leftovers_allowed_)
      CHECK(left == "");
  }
  std::error_code ignored;
  fs::remove_all(folder_.parent_path(), ignored);
}

std::string sandbox::path(const std::string& name) const {
  return name.empty() ? folder_.string() : (folder_ / name).string();
}

std::string sandbox::write(const std::string& name,
                           const std::string& text) const {
  const auto file = folder_ / name;
  fs::create_directories(file.parent_path());
  std::ofstream out{file, std::ios::binary};
  out << text;
  out.close();
  if (!out)
    throw std::runtime_error{"cannot write " + file.string()};
  return file.string();
}

std::string sandbox::read(const std::string& name) const {
  return contents(folder_ / name);
}

command_line sandbox::program(std::vector<std::string> argv) const {
  command_line result;
  result.argv = std::move(argv);
  result.env = env;
  result.cwd = folder_.string();
  return result;
}

void sandbox::install_pup() {
  const std::filesystem::path from{PUP_PROGRAM};
  const auto bin = folder_ / "bin";
  std::filesystem::create_directory(bin);
  for (const auto* x : {"pup", "pup-guardian"}) {
    const auto fresh = bin / (std::string{x} + ".new");
    std::filesystem::copy_file(from.parent_path() / x, fresh);
    std::filesystem::rename(fresh, bin / x);
  }
  pup_program = bin / "pup";
}

command_line sandbox::command(std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin(), PUP_PROGRAM);
  return program(std::move(arguments));
}

finished sandbox::pup(std::vector<std::string> arguments,
                      milliseconds limit) const {
  return run(command(std::move(arguments)), limit);
}

boost::json::object sandbox::status(std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin(), {"status", "--json"});
  const auto answer = pup(std::move(arguments));
  if (answer.code != 0)
    throw std::runtime_error{"pup status: " + answer.err};
  return parse_json(answer.out).as_object();
}

boost::json::object sandbox::unit(const std::string& id) const {
  return with_id(status().at("processes").as_array(), id);
}

std::set<pid_t> sandbox::running() const {
  const auto wanted =
      std::string{mark} + '=' + folder_.string() + std::string(1, '\0');
  std::set<pid_t> result;
  for (const auto pid : all_processes())
    if (contents("/proc/" + std::to_string(pid) + "/environ").find(wanted)
        != std::string::npos)
      result.insert(pid);
  return result;
}

std::set<pid_t> sandbox::supervisors() const {
  std::set<pid_t> result;
  for (const auto pid : running())
    if (const auto text = command_of(pid);
        text.starts_with(pup_program + " run "))
      result.insert(pid);
  return result;
}

std::set<pid_t> sandbox::guardians() const {
  std::set<pid_t> result;
  for (const auto pid : running())
    if (command_of(pid).find("/pup-guardian " + pup_program + " run ")
        != std::string::npos)
      result.insert(pid);
  // A helper of one looks like it for a moment.
  const auto all = result;
  std::erase_if(result, [&](pid_t x) { return all.count(parent_of(x)) != 0; });
  return result;
}

std::set<pid_t> sandbox::pups() const {
  auto result = supervisors();
  result.merge(guardians());
  return result;
}

void sandbox::kill_pup() const {
  const auto all = pups();
  for (const auto pid : all)
    freeze(pid);
  for (const auto pid : all)
    ::kill(pid, SIGKILL);
  for (const auto pid : all)
    wait_for_end(pid);
}

std::string sandbox::end() {
  ended_ = true;
  for (const auto pid : supervisors()) {
    ::kill(pid, SIGTERM);
    ::kill(pid, SIGCONT);
  }
  std::string left;
  const auto behind = guardians();
  for (const auto pid : supervisors()) {
    if (wait_for_end(pid, std::chrono::seconds{45}))
      continue;
    left += "had to kill the supervisor, pid " + std::to_string(pid) + '\n';
    // Its guardian would start another one.
    for (const auto guardian : behind)
      ::kill(guardian, SIGKILL);
    ::kill(pid, SIGKILL);
    wait_for_end(pid);
  }
  for (const auto pid : behind)
    wait_for_end(pid, std::chrono::seconds{15});
  for (const auto pid : running()) {
    left += "left running: pid " + std::to_string(pid) + ' ' + command_of(pid)
            + '\n';
    ::kill(pid, SIGKILL);
    wait_for_end(pid);
  }
  return left;
}

// -- configurations -----------------------------------------------------------

std::string web(const port_range& ports, int instances,
                const std::string& cluster, const std::string& process) {
  return R"({"id": "web", "cmd": [")" PUP_HTTP_SERVER R"("], "cluster": {)"
         R"("instances": )"
         + std::to_string(instances) + R"(, "commonPort": )"
         + std::to_string(ports[0]) + R"(, "startPort": )"
         + std::to_string(ports[1]) + (cluster.empty() ? "" : ", " + cluster)
         + "}" + (process.empty() ? "" : ", " + process) + "}";
}

std::string config(const std::vector<std::string>& processes,
                   const std::string& top) {
  std::string result =
      "{" + top + (top.empty() ? "" : ", ") + R"("processes": [)";
  for (const auto& x : processes)
    result += (&x == &processes.front() ? "\n  " : ",\n  ") + x;
  return result + "\n]}\n";
}

}  // namespace pup::test
