// Real processes: what a started program finds, how its life is told, and that
// nothing is left when it ends. Also the example HTTP server.
#include "catch.hpp"

#define BOOST_ASIO_NO_DEPRECATED
#include "pup/runtime/children.hpp"
#include "pup/runtime/environment.hpp"
#include "pup/runtime/listening.hpp"
#include "pup/runtime/ports.hpp"
#include "pup/runtime/process.hpp"
#include "pup/runtime/usage.hpp"

#include "held_file.hpp"

#include <boost/asio/io_context.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PUP_HTTP_SERVER
#  error "the tests of processes need the example server: PUP_BUILD_EXAMPLES=ON"
#endif

namespace {

using namespace pup;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

// Long enough for a loaded machine with sanitizers; reached only by a failure.
constexpr auto patience = 30s;

const std::vector<std::string> base_environment{"PATH=/usr/bin:/bin"};

struct temporary_folder {
  temporary_folder() {
    std::string name = (fs::temp_directory_path() / "pup-test-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};

std::string contents(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream{path}.rdbuf();  // a failed read leaves it empty
  return text.str();
}

std::string own_program() {
  return fs::read_symlink("/proc/self/exe").string();
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry :
       fs::directory_iterator{"/proc/self/fd"})
    ++count;
  return count;
}

// Living processes of a group; zombies hold nothing.
std::size_t living_in_group(pid_t group) {
  std::size_t count = 0;
  for (const auto& entry : fs::directory_iterator{"/proc"}) {
    const auto line = contents(entry.path() / "stat");
    const auto name_end = line.rfind(") ");
    if (name_end == std::string::npos)
      continue;
    std::istringstream words{line.substr(name_end + 2)};
    char state = 'X';
    pid_t parent = 0;
    pid_t found = 0;
    words >> state >> parent >> found;
    count += found == group && state != 'Z' && state != 'X' ? 1 : 0;
  }
  return count;
}

bool has_child_to_reap() {
  siginfo_t info{};
  return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

struct finished {
  std::string output;
  siginfo_t info{};
};

// Runs it to its end with its output in a pipe.
finished run(spawn_request request) {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  unique_fd in{ends[0]};
  unique_fd out{ends[1]};
  request.stdout_fd = request.stderr_fd = out.get();
  auto started = spawn(request);
  out.reset();
  if (const auto* fault = std::get_if<os_fault>(&started))
    FAIL(to_string(*fault));
  auto& process = std::get<child>(started);
  finished result;
  char buffer[4096];
  for (;;) {
    const auto n = ::read(in.get(), buffer, sizeof(buffer));
    if (n <= 0)
      break;
    result.output.append(buffer, static_cast<std::size_t>(n));
  }
  REQUIRE(::waitid(P_PIDFD, static_cast<id_t>(process.pidfd.get()),
                   &result.info, WEXITED)
          == 0);
  CHECK(result.info.si_pid == process.pid);
  return result;
}

finished run(std::vector<std::string> argv) {
  return run({std::move(argv), base_environment, "", -1, -1, -1});
}

os_fault fault_of(std::vector<std::string> argv, const std::string& cwd = "") {
  auto started = spawn({std::move(argv), base_environment, cwd, -1, -1, -1});
  REQUIRE(std::holds_alternative<os_fault>(started));
  return std::get<os_fault>(started);
}

void write_program(const fs::path& path, const std::string& text) {
  std::ofstream{path} << text;
  fs::permissions(path, fs::perms::owner_all);
}

// A socket of this process; listening when asked to.
struct socket_on_loopback {
  explicit socket_on_loopback(bool ipv6 = false, bool listening = true,
                              std::uint16_t wanted = 0) {
    fd.reset(
        ::socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_storage storage{};
    auto* address = reinterpret_cast<sockaddr*>(&storage);
    storage.ss_family = ipv6 ? AF_INET6 : AF_INET;
    auto& v4 = reinterpret_cast<sockaddr_in&>(storage);
    auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
    if (ipv6)
      v6.sin6_addr = in6addr_loopback;
    else
      v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    (ipv6 ? v6.sin6_port : v4.sin_port) = htons(wanted);
    socklen_t size = ipv6 ? sizeof(v6) : sizeof(v4);
    usable = ::bind(fd.get(), address, size) == 0
             && (!listening || ::listen(fd.get(), 16) == 0)
             && ::getsockname(fd.get(), address, &size) == 0;
    port = ntohs(ipv6 ? v6.sin6_port : v4.sin_port);
  }
  unique_fd fd;
  bool usable = false;
  std::uint16_t port = 0;
};

// A port below those that the kernel gives to clients: while many connections
// come and go on the machine, a port asked of the kernel is soon taken by one
// of them. Test programs that run at once start at different places.
std::uint16_t free_port() {
  static std::atomic<int> next{::getpid() * 61};
  for (int i = 0; i < 10'000; ++i) {
    const auto port = static_cast<std::uint16_t>(20'000 + next++ % 10'000);
    if (!port_obstacle(port))
      return port;
  }
  FAIL("no free port");
  return 0;
}

unique_fd connect_to(std::uint16_t port) {
  unique_fd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  const timeval limit{30, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address),
                sizeof(address))
      != 0)
    fd.reset();
  return fd;
}

// --- children under test: a loop and the events it has brought ---------------

struct event {
  std::string what;  // launched, failed, ready, leader ended, exited
  std::string key;
  std::uint64_t life = 0;
  pid_t pid = 0;
  std::string text;   // warning, address, fault, or who was left or killed
  std::string stage;  // of a fault
  exit_status status;
};

struct world {
  explicit world(std::vector<std::string> environment = base_environment)
      : all(std::make_unique<children>(loop, std::move(environment),
                                       callbacks())) {}

  child_events callbacks() {
    child_events result;
    result.launched = [this](const std::string& key, std::uint64_t life,
                             pid_t pid, const std::string& warning) {
      add({"launched", key, life, pid, warning, "", {}});
    };
    result.failed = [this](const std::string& key, std::uint64_t life,
                           const launch_fault& fault) {
      add({"failed", key, life, 0, fault.text, fault.stage, {}});
    };
    result.ready = [this](const std::string& key, std::uint64_t life,
                          const std::string& address) {
      add({"ready", key, life, 0, address, "", {}});
    };
    result.leader_ended = [this](const std::string& key, std::uint64_t life,
                                 const leader_end& end) {
      add({"leader ended", key, life, end.status.pid, end.left_example, "",
           end.status});
    };
    result.exited = [this](const std::string& key, std::uint64_t life,
                           const burial& end) {
      add({"exited", key, life, end.status.pid, end.killed_example, "",
           end.status});
    };
    return result;
  }

  void add(event e) {
    events.push_back(std::move(e));
    if (on_event)
      on_event(events.back());
  }

  bool has(const std::string& what, const std::string& key,
           std::uint64_t life) const {
    return std::any_of(events.begin(), events.end(), [&](const event& e) {
      return e.what == what && e.key == key && e.life == life;
    });
  }

  void run_until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      REQUIRE(std::chrono::steady_clock::now() < deadline);
      loop.restart();
      if (loop.run_one_for(100ms) == 0 && all->size() == 0 && !condition())
        FAIL("nothing can happen any more, last: "
             << (events.empty()
                     ? ""
                     : events.back().what + ' ' + events.back().text));
    }
  }

  event await(const std::string& what, const std::string& key,
              std::uint64_t life = 1) {
    run_until([&] { return has(what, key, life); });
    return *std::find_if(events.begin(), events.end(), [&](const event& e) {
      return e.what == what && e.key == key && e.life == life;
    });
  }

  // Names of the events of a key, in order.
  std::vector<std::string> story(const std::string& key,
                                 std::uint64_t life = 1) const {
    std::vector<std::string> names;
    for (const auto& e : events)
      if (e.key == key && e.life == life)
        names.push_back(e.what);
    return names;
  }

  void launch(const std::string& key, std::vector<std::string> argv,
              std::uint64_t life = 1) {
    launch_request request;
    request.argv = std::move(argv);
    all->launch(key, life, std::move(request));
  }

  void launch_server(const std::string& key, std::uint16_t port,
                     std::map<std::string, std::string> environment = {},
                     const std::string& address = "127.0.0.1") {
    launch_request request;
    request.argv = {PUP_HTTP_SERVER, std::to_string(port), address};
    request.environment = std::move(environment);
    request.port = port;
    request.ready = ready_condition::port;
    all->launch(key, 1, std::move(request));
  }

  boost::asio::io_context loop;
  std::vector<event> events;
  std::function<void(const event&)> on_event;
  std::unique_ptr<children> all;
};

using names = std::vector<std::string>;

}  // namespace

// --- unique_fd ---------------------------------------------------------------

TEST_CASE("a descriptor has one owner") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  unique_fd reader{ends[0]};
  {
    unique_fd writer{ends[1]};
    unique_fd taken{std::move(writer)};
    CHECK_FALSE(static_cast<bool>(writer));  // NOLINT: what a move leaves
    CHECK(taken.get() == ends[1]);
    taken.reset(taken.get());
    CHECK(::fcntl(ends[1], F_GETFD) == FD_CLOEXEC);
  }
  CHECK(::fcntl(ends[1], F_GETFD) == -1);
  CHECK(reader.release() == ends[0]);
  CHECK(reader.get() == -1);
  ::close(ends[0]);
  CHECK(to_string(os_fault{"bind", "127.0.0.1:8000", EADDRINUSE})
        == "bind 127.0.0.1:8000: Address already in use");
}

// --- what a program finds ----------------------------------------------------

TEST_CASE("a program finds its arguments, environment and folder exactly") {
  const temporary_folder folder;
  const auto args = run({"cat", "/proc/self/cmdline", "", "a b", "\"'$*"});
  CHECK(args.output.substr(0, 32)
        == std::string("cat\0/proc/self/cmdline\0\0a b\0\"'$*", 32));
  spawn_request request{{"cat", "/proc/self/environ"},
                        {"PATH=/bin", "EMPTY=", "TEXT=a=b c\n"},
                        folder.path.string(),
                        -1,
                        -1,
                        -1};
  CHECK(run(request).output
        == std::string("PATH=/bin\0EMPTY=\0TEXT=a=b c\n\0", 29));
  request.argv = {"pwd", "-P"};
  CHECK(run(request).output == fs::canonical(folder.path).string() + '\n');
  request.cwd = "";
  CHECK(run(request).output == fs::current_path().string() + '\n');
}

TEST_CASE("a program finds a session and a process group of its own") {
  const auto stat = run({"cat", "/proc/self/stat"});
  std::istringstream words{stat.output};
  std::string name;
  char state = 0;
  pid_t pid = 0, parent = 0, group = 0, session = 0;
  words >> pid >> name >> state >> parent >> group >> session;
  CHECK(pid == stat.info.si_pid);
  CHECK(parent == ::getpid());
  CHECK(group == pid);
  CHECK(session == pid);
}

TEST_CASE("a program finds default signals whatever its parent does") {
  sigset_t set, before, after;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGUSR2);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &set, &before) == 0);
  auto* old_handler = std::signal(SIGPIPE, SIG_IGN);
  const auto status = run({"cat", "/proc/self/status"}).output;
  REQUIRE(pthread_sigmask(SIG_SETMASK, &before, &after) == 0);
  CHECK(std::signal(SIGPIPE, old_handler) == SIG_IGN);
  CHECK(sigismember(&after, SIGTERM) == 1);
  for (const auto* line : {"SigPnd:", "SigBlk:", "SigIgn:", "SigCgt:"})
    CHECK(status.find(std::string{line} + "\t0000000000000000")
          != std::string::npos);
}

namespace {

// Descriptors the program has, without the one `ls` reads the folder with.
std::string descriptors_of_child() {
  auto text = run({"ls", "/proc/self/fd"}).output;
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

// Makes close_range() fail in this thread and its children, as container
// runtimes older than the call do.
void forbid_close_range() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),  // seccomp_data::nr
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 436, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog filter{4, program};
  REQUIRE(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  REQUIRE(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
  REQUIRE(::syscall(436, 1000000, 1000000, 0) == -1);
}

}  // namespace

TEST_CASE("a program finds no descriptor that its parent forgot to mark") {
  const unique_fd leaky{
      ::open("/etc/passwd", O_RDONLY)};  // NOLINT: no O_CLOEXEC
  const unique_fd high{::fcntl(leaky.get(), F_DUPFD, 500)};
  REQUIRE(high);
  CHECK(descriptors_of_child() == "0 1 2 3 ");
  std::string without_close_range;
  std::thread{[&] {
    forbid_close_range();
    without_close_range = descriptors_of_child();
  }}.join();
  CHECK(without_close_range == "0 1 2 3 ");
}

TEST_CASE("streams may have any numbers, also each other's") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const unique_fd in{ends[0]};
  unique_fd out{ends[1]};
  const unique_fd saved{::fcntl(0, F_DUPFD_CLOEXEC, 10)};
  REQUIRE(::dup2(out.get(), 0) == 0);  // our end has number 0 now
  auto started = spawn({{"sh", "-c", "echo out; echo err >&2; cat"},
                        base_environment,
                        "",
                        -1,
                        0,
                        0});
  ::dup2(saved.get(), 0);
  out.reset();
  REQUIRE(std::holds_alternative<child>(started));
  siginfo_t info{};
  REQUIRE(::waitid(P_PIDFD,
                   static_cast<id_t>(std::get<child>(started).pidfd.get()),
                   &info, WEXITED)
          == 0);
  CHECK(info.si_status == 0);  // cat: standard input is /dev/null
  char text[64] = {};
  CHECK(::read(in.get(), text, sizeof(text)) == 8);
  CHECK(std::string{text} == "out\nerr\n");
}

TEST_CASE("passed sockets are descriptors 3 and on, and the program is told") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const unique_fd in{ends[0]};
  unique_fd out{ends[1]};
  auto first = open_listening("127.0.0.1", 0, port_sharing::none);
  auto second = open_listening("127.0.0.1", 0, port_sharing::none);
  REQUIRE(first.socket);
  REQUIRE(second.socket);
  // Number 3 here, 4 there: neither may overwrite the other.
  const unique_fd three{::fcntl(second.socket.get(), F_DUPFD_CLOEXEC, 3)};
  auto environment = base_environment;
  environment.push_back("LISTEN_FDS=7");
  environment.push_back("LISTEN_FDNAMES=of:someone:else");
  spawn_request request{
      {"sh", "-c",
       "echo $$ $LISTEN_PID $LISTEN_FDS ${LISTEN_FDNAMES-none}; "
       "readlink /proc/$$/fd/3 /proc/$$/fd/4; test -e /proc/$$/fd/5; echo $?"},
      environment,
      "",
      -1,
      out.get(),
      -1};
  request.listen_fds = {first.socket.get(), second.socket.get()};
  auto started = spawn(request);
  out.reset();
  REQUIRE(std::holds_alternative<child>(started));
  const auto pid = std::to_string(std::get<child>(started).pid);
  siginfo_t info{};
  REQUIRE(::waitid(P_PIDFD,
                   static_cast<id_t>(std::get<child>(started).pidfd.get()),
                   &info, WEXITED)
          == 0);
  const auto link = [](const unique_fd& fd) {
    return fs::read_symlink("/proc/self/fd/" + std::to_string(fd.get()))
        .string();
  };
  char text[256] = {};
  REQUIRE(::read(in.get(), text, sizeof(text) - 1) > 0);
  CHECK(std::string{text}
        == pid + ' ' + pid + " 2 none\n" + link(first.socket) + '\n'
               + link(second.socket) + "\n1\n");

  request.listen_fds.assign(bounds::passed_sockets + 1, first.socket.get());
  started = spawn(request);
  REQUIRE(std::holds_alternative<os_fault>(started));
  CHECK(std::get<os_fault>(started).code == E2BIG);
}

TEST_CASE("a failed start names its stage, object and error") {
  const temporary_folder folder;
  const auto file = [&](const char* name) {
    return (folder.path / name).string();
  };
  const auto descriptors = open_descriptors();

  CHECK(fault_of({"/no/such"}) == os_fault{"exec", "/no/such", ENOENT});
  CHECK(fault_of({"no-such"})
        == os_fault{"exec", "no-such (PATH /usr/bin:/bin)", ENOENT});
  CHECK(to_string(fault_of({"/no/such"}))
        == "exec /no/such: No such file or directory");
  CHECK(fault_of({"/"}) == os_fault{"exec", "/", EACCES});
  std::ofstream{file("text")} << "text";
  CHECK(fault_of({file("text")}) == os_fault{"exec", file("text"), EACCES});
  CHECK(fault_of({"./text"}, folder.path.string())
        == os_fault{"exec", file("./text"), EACCES});
  write_program(file("garbage"), "garbage");
  CHECK(fault_of({file("garbage")})
        == os_fault{"exec",
                    file("garbage")
                        + " (no program of this machine; a script begins with "
                          "a line such as #!/bin/sh)",
                    ENOEXEC});
  write_program(file("script"), "#! /no/interpreter -x\n");
  CHECK(fault_of({file("script")})
        == os_fault{"exec",
                    file("script") + " (its interpreter /no/interpreter)",
                    ENOENT});
  write_program(file("dos"), "#!/bin/sh\r\necho\r\n");
  CHECK(fault_of({file("dos")})
        == os_fault{"exec",
                    file("dos")
                        + " (its first line ends with a carriage return; save "
                          "it with Unix line ends)",
                    ENOENT});
  CHECK(fault_of({"true"}, "/no/folder")
        == os_fault{"chdir", "/no/folder", ENOENT});
  CHECK(fault_of({"true"}, file("text"))
        == os_fault{"chdir", file("text"), ENOTDIR});
  CHECK(fault_of({}).call == "argv");
  CHECK(fault_of({""}).call == "argv");
  CHECK(fault_of({"true", std::string("a\0b", 3)})
        == os_fault{"argv", "element 1 with a NUL inside", EINVAL});
  const auto true_file = std::get<std::string>(resolve_program(
      "true", base_environment.front().substr(sizeof("PATH=") - 1), ""));
  CHECK(fault_of({"true", std::string(4u << 20, 'x')})
        == os_fault{"exec",
                    true_file
                        + " (its argument 1 has 4194304 bytes; one has 131071 "
                          "at most)",
                    E2BIG});
  auto large = base_environment;
  large.push_back("LARGE=" + std::string(200'000, 'x'));
  CHECK(std::get<os_fault>(spawn({{"true"}, large, "", -1, -1, -1}))
        == os_fault{"exec",
                    true_file
                        + " (its variable LARGE has 200006 bytes; one has "
                          "131071 at most)",
                    E2BIG});
  const auto many = fault_of(names(200, std::string(100'000, 'x')));
  CHECK(many.code == ENOENT);  // looked for before anything else
  auto all = names(200, std::string(100'000, 'x'));
  all.front() = "true";
  CHECK(fault_of(all).code == E2BIG);
  CHECK(fault_of(all).object.find(" bytes together; a quarter of its stack")
        != std::string::npos);
  auto nul = spawn({{"true"}, {std::string("A=\0", 3)}, "", -1, -1, -1});
  CHECK(std::get<os_fault>(nul)
        == os_fault{"environment", "A with a NUL inside", EINVAL});
  auto bad_stream = spawn({{"true"}, base_environment, "", -1, 9999, -1});
  CHECK(std::get<os_fault>(bad_stream)
        == os_fault{"dup", "onto descriptor 1", EBADF});

  CHECK(open_descriptors() == descriptors);
  CHECK_FALSE(has_child_to_reap());
}

TEST_CASE("a start without free descriptors fails cleanly") {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const auto descriptors = open_descriptors();
  std::set<std::string> stages;
  bool started_in_the_end = false;
  for (rlim_t allowed = 0; allowed < 8; ++allowed) {
    const unique_fd probe{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
    rlimit limit = before;
    limit.rlim_cur = static_cast<rlim_t>(probe.get()) + allowed;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
    auto started = spawn({{"true"}, base_environment, "", -1, -1, -1});
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    if (const auto* fault = std::get_if<os_fault>(&started)) {
      CHECK(fault->code == EMFILE);
      stages.insert(fault->call);
      continue;
    }
    started_in_the_end = true;
    const auto& process = std::get<child>(started);
    siginfo_t info{};
    CHECK(::waitid(P_PIDFD, static_cast<id_t>(process.pidfd.get()), &info,
                   WEXITED)
          == 0);
  }
  CHECK(stages == std::set<std::string>{"clone", "open"});
  CHECK(started_in_the_end);
  CHECK(open_descriptors() == descriptors);
  CHECK_FALSE(has_child_to_reap());
}

namespace {

std::atomic<pid_t> home{0};
std::atomic<int> handled_at_home{0};
std::atomic<int> handled_abroad{0};

extern "C" void count_signal(int) {
  (::getpid() == home ? handled_at_home : handled_abroad)
      .fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

TEST_CASE("many threads start programs at once, under a rain of signals") {
  home = ::getpid();
  struct sigaction action {
  }, before{};
  action.sa_handler = count_signal;
  action.sa_flags = SA_RESTART;
  REQUIRE(::sigaction(SIGUSR1, &action, &before) == 0);
  const auto descriptors = open_descriptors();
  std::atomic<int> good{0};
  std::atomic<int> bad{0};
  std::atomic<int> running{4};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 25; ++i) {
        const bool failing = i % 5 == 0;
        auto started = spawn({{failing ? "/no/such" : "true"},
                              base_environment,
                              "",
                              -1,
                              -1,
                              -1});
        if (auto* process = std::get_if<child>(&started)) {
          siginfo_t info{};
          if (::waitid(P_PIDFD, static_cast<id_t>(process->pidfd.get()), &info,
                       WEXITED)
                  == 0
              && info.si_code == CLD_EXITED && info.si_status == 0)
            ++good;
        } else if (std::get<os_fault>(started).code == ENOENT) {
          ++bad;
        }
      }
      --running;
    });
  while (running > 0) {
    ::kill(::getpid(), SIGUSR1);
    std::this_thread::yield();
  }
  for (auto& thread : threads)
    thread.join();
  REQUIRE(::sigaction(SIGUSR1, &before, nullptr) == 0);
  CHECK(good == 80);
  CHECK(bad == 20);
  CHECK(handled_at_home > 0);
  CHECK(handled_abroad == 0);
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("a program is found as a shell would find it") {
  const temporary_folder folder;
  const auto here = folder.path.string();
  fs::create_directories(folder.path / "bin/tool");  // a folder is no program
  fs::create_directories(folder.path / "sbin");
  write_program(folder.path / "sbin/tool", "");
  std::ofstream{folder.path / "sbin/text"} << "";
  const auto found = [&](std::string_view name, const std::string& path) {
    auto result = resolve_program(name, path, here);
    auto* program = std::get_if<std::string>(&result);
    return program != nullptr ? *program
                              : std::to_string(std::get<os_fault>(result).code);
  };
  CHECK(found("tool", here + "/bin:" + here + "/sbin") == here + "/sbin/tool");
  CHECK(found("tool", "bin:sbin") == here + "/sbin/tool");
  CHECK(found("text", "sbin") == std::to_string(EACCES));
  CHECK(found("tool", "bin") == std::to_string(ENOENT));
  CHECK(found("tool", "") == std::to_string(ENOENT));
  CHECK(found("", "sbin") == std::to_string(ENOENT));
  CHECK(found("./sbin/tool", "") == here + "/./sbin/tool");
  CHECK(found("/bin/true", "") == "/bin/true");
  write_program(folder.path / "tool", "");
  CHECK(found("tool", "bin:") == here + "/./tool");
}

TEST_CASE("an environment is put together from three sources") {
  CHECK(build_environment({"B=base", "PATH=/bin", "B=again", "junk", "X="},
                          {{"A", "1"}, {"X", "new"}}, "/opt/a:/opt/b")
        == names{"A=1", "B=base", "PATH=/bin:/opt/a:/opt/b", "X=new"});
  CHECK(build_environment({"PATH=/bin"}, {{"PATH", "/own"}}, "/opt")
        == names{"PATH=/own:/opt"});
  CHECK(build_environment({}, {}, "/opt")
        == names{"PATH=/usr/local/bin:/usr/bin:/bin:/opt"});
  CHECK(build_environment({}, {{"PATH", ""}}, "/opt") == names{"PATH=/opt"});
  CHECK(build_environment({}, {}, "").empty());
}

TEST_CASE("a process inherits what it may, and pup's mark in any case") {
  const names all{"PUP_OWNER=m", "PATH=/bin", "LC_ALL=C", "LC=1", "KEY=s", "x"};
  CHECK(inherited_of(all, std::nullopt) == all);
  CHECK(inherited_of(all, names{}) == names{"PUP_OWNER=m"});
  CHECK(inherited_of(all, names{"LC_*", "PATH", "NONE"})
        == names{"PUP_OWNER=m", "PATH=/bin", "LC_ALL=C"});
}

TEST_CASE("only what nobody has decided about is told as withheld") {
  const names all{"PUP_OWNER=m", "PATH=/bin", "KEY=s", "B=1", "B=2", "HOME=/"};
  process_spec x;
  x.env["HOME"] = "/var/www";
  CHECK(withheld_unasked(all, x).empty());
  x.inherit_env.emplace();
  CHECK(withheld_unasked(all, x).empty());
  x.inherit_env = names{"PATH", "LANG", "LC_*", "TZ", "TERM"};
  CHECK(withheld_unasked(all, x) == names{"B", "KEY"});
}

// --- lives -------------------------------------------------------------------

TEST_CASE("a life is told from its launch to its exit") {
  world w;
  w.launch("a", {"sh", "-c", "exit 3"});
  CHECK(w.events.empty());  // never from within the command
  const auto exited = w.await("exited", "a");
  CHECK(w.story("a") == names{"launched", "ready", "exited"});
  CHECK(exited.status.code == 3);
  CHECK(exited.status.signal == 0);
  CHECK(exited.status.max_rss_kb > 0);
  CHECK(exited.pid == w.await("launched", "a").pid);
  CHECK(w.await("launched", "a").text.empty());
  CHECK(w.await("ready", "a").text.empty());
  CHECK(w.all->size() == 0);

  w.launch("b", {"sh", "-c", "kill -TERM $$"});
  const auto killed = w.await("exited", "b").status;
  CHECK(killed.code == -1);
  CHECK(killed.signal == SIGTERM);
  CHECK_FALSE(killed.core);

  w.launch("c",
           {"sh", "-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"});
  CHECK(w.await("exited", "c").status.cpu_us > 0);
}

TEST_CASE("a failed launch says why, and the key can be used again") {
  world w;
  w.launch("a", {"/no/such"});
  const auto failed = w.await("failed", "a");
  CHECK(failed.stage == "exec");
  CHECK(failed.text == "exec /no/such: No such file or directory");
  CHECK(w.all->size() == 0);
  launch_request request;
  request.argv = {"true"};
  request.cwd = "/no/folder";
  w.all->launch("a", 2, std::move(request));
  CHECK(w.await("failed", "a", 2).text
        == "chdir /no/folder: No such file or directory");
  w.launch("a", {"true"}, 3);
  CHECK(w.await("exited", "a", 3).status.code == 0);
  CHECK(w.story("a") == names{"failed"});
}

TEST_CASE("signals reach the whole group, the exit waits for its end") {
  world w;
  const std::string family = "sleep 1000 & sleep 1000 & echo; wait";
  w.launch("a", {"sh", "-c", family});
  const auto pid =
      w.await("ready", "a").life == 1 ? w.await("launched", "a").pid : 0;
  w.run_until([&] { return living_in_group(pid) == 3; });
  CHECK_FALSE(w.all->signal("a", 2, SIGKILL));  // another life: ignored
  CHECK_FALSE(w.all->signal("b", 1, SIGKILL));
  CHECK(w.all->signal("a", 1, 12345)
        == os_fault{"kill", "group " + std::to_string(pid), EINVAL});
  CHECK(living_in_group(pid) == 3);
  CHECK_FALSE(w.all->signal("a", 1, SIGTERM));
  std::size_t left = 99;
  w.on_event = [&](const event&) { left = living_in_group(pid); };
  CHECK(w.await("exited", "a").status.signal == SIGTERM);
  CHECK(left == 0);
  w.on_event = nullptr;

  w.launch("b", {"sh", "-c", "trap '' TERM; " + family});
  const auto stubborn = w.await("launched", "b").pid;
  w.run_until([&] { return living_in_group(stubborn) == 3; });
  w.all->kill_group("b", 1);
  CHECK(w.await("exited", "b").status.signal == SIGKILL);
  CHECK(living_in_group(stubborn) == 0);
}

TEST_CASE("what a crashed leader leaves behind runs until it is told to end") {
  world w;
  std::size_t left = 99;
  w.on_event = [&](const event& e) {
    if (e.what == "exited")
      left = living_in_group(e.pid);
  };
  // The second ignores the stop signal.
  w.launch("a", {"sh", "-c", "sleep 1000 & trap '' TERM; sleep 1001 & exit 3"});
  const auto first = w.await("leader ended", "a");
  CHECK(first.status.code == 3);
  CHECK(first.text.starts_with("pid "));  // (sleep), or still (sh)
  CHECK(living_in_group(first.pid) == 2);
  w.all->stop("a", 1, SIGTERM);
  w.run_until([&] { return living_in_group(first.pid) == 1; });
  CHECK_FALSE(w.has("exited", "a", 1));
  w.all->kill_group("a", 1);
  const auto end = w.await("exited", "a");
  CHECK(end.status.code == 3);
  CHECK(end.text.starts_with("pid "));
  CHECK(left == 0);
  CHECK(w.story("a") == names{"launched", "ready", "leader ended", "exited"});
  CHECK_FALSE(has_child_to_reap());
}

TEST_CASE("a stop reaches who is stopped, and nobody twice") {
  const temporary_folder folder;
  world w;
  launch_request request;
  request.cwd = folder.path.string();
  // The child counts its signals; the leader goes at the first one.
  request.argv = {"bash", "-c",
                  "(trap 'echo TERM >> signals' TERM; trap 'exit 0' USR1; "
                  "touch up; while :; do sleep 0.01; done) & wait"};
  w.all->launch("a", 1, std::move(request));
  const auto pid = w.await("launched", "a").pid;
  w.run_until([&] { return std::filesystem::exists(folder.path / "up"); });
  CHECK_FALSE(w.all->signal("a", 1, SIGSTOP));
  w.all->stop("a", 1, SIGTERM);
  CHECK(w.await("leader ended", "a").pid == pid);
  w.run_until([&] { return contents(folder.path / "signals") == "TERM\n"; });
  w.all->stop("a", 1, SIGTERM);
  CHECK_FALSE(w.all->signal("a", 1, SIGUSR1));
  w.await("exited", "a");
  CHECK(contents(folder.path / "signals") == "TERM\n");
}

TEST_CASE("what has left the session gets the stop signal after its leader") {
  const temporary_folder folder;
  world w;
  launch_request request;
  request.cwd = folder.path.string();
  request.argv = {"bash", "-c",
                  "setsid bash -c \"trap 'echo TERM > got; exit' TERM; "
                  "touch up; while :; do sleep 0.01; done\" & wait"};
  w.all->launch("a", 1, std::move(request));
  w.await("launched", "a");
  w.run_until([&] { return std::filesystem::exists(folder.path / "up"); });
  w.all->stop("a", 1, SIGTERM);
  w.await("leader ended", "a");
  CHECK_FALSE(std::filesystem::exists(folder.path / "got"));
  w.all->stop("a", 1, SIGTERM);
  w.await("exited", "a");
  CHECK(contents(folder.path / "got") == "TERM\n");
}

// Started by the next test: its child stays in the group and becomes a zombie
// that nobody reaps, while it leaves the group itself.
TEST_CASE("role: keeper of a zombie", "[.]") {
  const pid_t keeper = ::fork();
  REQUIRE(keeper >= 0);
  if (keeper > 0) {
    for (;;)
      ::pause();
  }
  if (::fork() == 0)
    for (;;)
      ::pause();
  ::setpgid(0, 0);
  std::ofstream{std::getenv("KEEPER_FILE")} << ::getpid() << std::endl;
  for (;;)
    ::pause();
}

TEST_CASE("zombies that their parent never reaps do not hold up an exit") {
  const temporary_folder folder;
  const auto file = folder.path / "keeper";
  world w;
  launch_request request;
  request.argv = {own_program(), "role: keeper of a zombie"};
  request.environment = {{"KEEPER_FILE", file.string()}};
  w.all->launch("a", 1, std::move(request));
  const auto pid = w.await("launched", "a").pid;
  w.run_until([&] { return contents(file).ends_with('\n'); });
  const auto keeper = static_cast<pid_t>(std::stol(contents(file)));
  CHECK(living_in_group(pid) == 2);
  w.all->kill_group("a", 1);
  const auto before = std::chrono::steady_clock::now();
  CHECK(w.await("exited", "a").status.signal == SIGKILL);
  // Well before the bound for groups that do not die, 10 s.
  CHECK(std::chrono::steady_clock::now() - before < 8s);
  CHECK(::kill(-pid, 0) == 0);  // the zombie was there all the time
  ::kill(keeper, SIGKILL);
}

TEST_CASE("a new life waits until its abandoned predecessor is gone") {
  world w;
  w.launch("a", {"sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000; :"}, 5);
  const auto old = w.await("launched", "a", 5).pid;
  w.await("ready", "a", 5);
  w.run_until([&] { return living_in_group(old) == 3; });
  std::size_t left = 99;
  w.on_event = [&](const event& e) {
    if (e.what == "launched")
      left = living_in_group(old);
  };
  w.launch("a", {"true"}, 4);  // not later: ignored
  w.launch("a", {"true"}, 5);
  CHECK(living_in_group(old) == 3);
  w.launch("a", {"false"}, 6);  // replaced before it began
  w.launch("a", {"sh", "-c", "exit 7"}, 7);
  CHECK(w.all->size() == 1);
  CHECK(w.await("exited", "a", 7).status.code == 7);
  CHECK(left == 0);
  CHECK(w.story("a", 4).empty());
  CHECK(w.story("a", 5) == names{"launched", "ready"});
  CHECK(w.story("a", 6).empty());
  CHECK(w.story("a", 7) == names{"launched", "ready", "exited"});
}

namespace {

/// A process that an earlier supervisor is said to have started.
life_adoption left_over(const std::vector<std::string>& argv,
                        std::map<std::string, unique_fd>& kept,
                        const life_mark& mark = {}) {
  spawn_request request;
  request.argv = argv;
  request.environment = base_environment;
  auto spawned = spawn(request);
  REQUIRE(std::holds_alternative<child>(spawned));
  auto& born = std::get<child>(spawned);
  inherited_process x;
  x.number = 17;
  x.key = "a";
  x.life = 5;
  x.pid = born.pid;
  x.mark = to_text(mark);
  x.pidfd = std::move(born.pidfd);
  return {std::move(x), {}, kept};
}

}  // namespace

TEST_CASE("a life of an earlier supervisor goes on") {
  world w;
  std::map<std::string, unique_fd> kept;
  auto x = left_over({"sleep", "1000"}, kept, {true, false, "::1"});
  const auto pid = x.process.pid;
  w.all->adopt(std::move(x));
  CHECK(w.events.empty());
  CHECK(w.await("ready", "a", 5).text == "::1");
  CHECK(w.await("launched", "a", 5).pid == pid);
  // A signal at once is none too early.
  world other;
  auto y = left_over({"sleep", "1000"}, kept);
  other.all->adopt(std::move(y));
  CHECK_FALSE(other.all->signal("a", 5, SIGTERM));
  CHECK(other.await("exited", "a", 5).status.signal == SIGTERM);
  // The next life waits for its end.
  w.launch("a", {"sh", "-c", "exit 7"}, 6);
  CHECK(w.await("exited", "a", 6).status.code == 7);
  CHECK(::kill(pid, 0) != 0);
}

TEST_CASE("what a life has got to is read as it was written") {
  for (const bool ready : {false, true})
    for (const bool stopping : {false, true})
      for (const auto* address : {"", "127.0.0.1", "::1"}) {
        const life_mark x{ready, stopping, address};
        CHECK(life_mark_of(to_text(x)) == x);
      }
  CHECK(life_mark_of("") == life_mark{});
  CHECK(life_mark_of("r") == life_mark{});
}

TEST_CASE("a life can be stopped before it begins") {
  world w;
  w.launch("a", {"sleep", "1000"});
  w.all->kill_group("a", 1);
  CHECK(w.events.empty());
  CHECK(w.await("failed", "a").stage == "cancelled");
  w.launch("b", {"sleep", "1000"});
  w.all->abandon("b", 1);
  CHECK(w.all->size() == 0);
  w.launch("c", {"true"});
  w.await("exited", "c");
  CHECK(w.story("a") == names{"failed"});
  CHECK(w.story("b").empty());
}

TEST_CASE("a program that does not answer holds up no other life") {
  const temporary_folder folder;
  const auto program = (folder.path / "program").string();
  fs::copy_file("/bin/sleep", program);
  test::held_file held{program};
  if (!held) {
    WARN("this file system knows no leases: no program can be held up");
    return;
  }
  {
    world w;
    for (const auto* key : {"killed", "abandoned", "left"})
      w.launch(key, {program, "1000"});
    w.launch("a", {"true"});
    CHECK(w.await("exited", "a").status.code == 0);
    CHECK(w.story("killed").empty());
    w.all->kill_group("killed", 1);
    CHECK(w.await("exited", "killed").status.signal == SIGKILL);
    w.all->abandon("abandoned", 1);
    w.run_until([&] { return w.all->size() == 1; });
    CHECK(w.story("abandoned").empty());
  }
  // The one that was under way is reaped by its thread.
  siginfo_t info{};
  while (::waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0)
    std::this_thread::yield();
  CHECK(errno == ECHILD);
}

TEST_CASE("an abandoned process is ended without a word") {
  world w;
  w.launch("a", {"sh", "-c", "sleep 1000 & sleep 1000"});
  const auto pid = w.await("launched", "a").pid;
  w.await("ready", "a");
  w.all->abandon("a", 2);  // another life: ignored
  w.run_until([&] { return living_in_group(pid) > 1; });
  w.all->abandon("a", 1);
  w.run_until([&] { return w.all->size() == 0; });
  CHECK(living_in_group(pid) == 0);
  CHECK(w.story("a") == names{"launched", "ready"});
  CHECK_FALSE(has_child_to_reap());

  w.on_event = [&](const event& e) { w.all->abandon(e.key, e.life); };
  w.launch("b", {"sleep", "1000"});
  w.run_until([&] { return w.has("launched", "b", 1) && w.all->size() == 0; });
  CHECK(w.story("b") == names{"launched"});
}

TEST_CASE("an exit may begin the next life") {
  world w;
  w.on_event = [&](const event& e) {
    if (e.what == "exited" && e.life < 200)
      w.launch(e.key, {"true"}, e.life + 1);
  };
  w.launch("warm", {"true"}, 200);  // the loop has its descriptors now
  w.await("exited", "warm", 200);
  const auto descriptors = open_descriptors();
  w.launch("a", {"true"});
  CHECK(w.await("exited", "a", 200).status.code == 0);
  CHECK(w.all->size() == 0);
  CHECK(open_descriptors() == descriptors);
  CHECK_FALSE(has_child_to_reap());
}

TEST_CASE("no process survives its children's owner") {
  pid_t pid = 0;
  {
    world w;
    w.launch("a", {"sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000; :"});
    w.launch("b", {"true"});  // an end that nobody has looked at yet
    pid = w.await("launched", "a").pid;
    w.run_until([&] { return living_in_group(pid) == 3; });
    w.launch("c", {"sleep", "1000"});  // never begun
  }
  CHECK(living_in_group(pid) == 0);
  CHECK_FALSE(has_child_to_reap());
}

TEST_CASE("an ignored SIGCHLD is refused") {
  auto* before = std::signal(SIGCHLD, SIG_IGN);
  CHECK_THROWS_AS(world{}, std::system_error);
  std::signal(SIGCHLD, before);
  CHECK_NOTHROW(world{});
}

TEST_CASE("output goes where the request says, or to nowhere with a warning") {
  const temporary_folder folder;
  const auto file = folder.path / "log";
  world w;
  int opened = 0;
  const auto launch = [&](std::uint64_t life, bool out, bool err) {
    launch_request request;
    request.argv = {"sh", "-c", "echo out $LIFE; echo err $LIFE >&2"};
    request.environment = {{"LIFE", std::to_string(life)}};
    request.open_output = [&, out, err] {
      ++opened;
      const auto open = [&] {
        return unique_fd{::open(
            file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)};
      };
      output_ends result;
      if (out)
        result.out = open();
      if (err)
        result.err = open();
      if (!out)
        result.warning = "no output";
      return result;
    };
    w.all->launch("a", life, std::move(request));
    CHECK(opened == static_cast<int>(life) - 1);  // not before it begins
    CHECK(w.await("exited", "a", life).status.code == 0);
    return w.await("launched", "a", life).text;
  };
  CHECK(launch(1, true, true).empty());
  const auto descriptors = open_descriptors();  // the loop has its own now
  CHECK(launch(2, true, false).empty());
  CHECK(launch(3, false, true) == "no output");
  CHECK(contents(file) == "out 1\nerr 1\nout 2\nerr 3\n");
  CHECK(open_descriptors() == descriptors);
}

// --- ports and readiness -----------------------------------------------------

TEST_CASE("a port that is taken is refused with its holder") {
  world w;
  const auto port = free_port();
  w.launch_server("a", port);
  w.await("ready", "a");
  w.launch_server("b", port);
  const auto failed = w.await("failed", "b");
  CHECK(failed.stage == "port");
  CHECK(failed.text
        == "port " + std::to_string(port) + " is in use by pid "
               + std::to_string(w.await("launched", "a").pid)
               + " (http_server)");
  CHECK(w.story("a") == names{"launched", "ready"});
}

TEST_CASE("a port is free when every loopback address is") {
  CHECK_FALSE(port_obstacle(free_port()));
  const socket_on_loopback v4;
  REQUIRE(v4.usable);
  CHECK(find_port_holder(v4.port)->pid == ::getpid());
  CHECK(port_obstacle(v4.port) == describe_port_in_use(v4.port));
  const socket_on_loopback v6{true};
  if (v6.usable)
    CHECK(port_obstacle(v6.port) == describe_port_in_use(v6.port));
  else
    WARN("no IPv6 here");
}

TEST_CASE("connections in TIME_WAIT do not make a port taken") {
  // Another program may get the number for a client of its own as soon as it is
  // free: such bad luck does not come five times in a row.
  bool is_free = false;
  for (int attempt = 0; attempt < 5 && !is_free; ++attempt) {
    auto server = std::make_unique<socket_on_loopback>();
    const auto port = server->port;
    auto client = connect_to(port);
    unique_fd accepted{
        ::accept4(server->fd.get(), nullptr, nullptr, SOCK_CLOEXEC)};
    REQUIRE(accepted);
    accepted.reset();  // first: this end gets the TIME_WAIT
    char byte = 0;
    CHECK(::read(client.get(), &byte, 1) == 0);
    client.reset();
    server.reset();
    is_free = !find_port_holder(port) && !port_obstacle(port);
  }
  CHECK(is_free);
}

TEST_CASE("where a process and its descendants listen is told") {
  const socket_on_loopback mine;
  const socket_on_loopback other{true};
  REQUIRE(mine.usable);
  const auto has = [](pid_t pid, const std::string& place) {
    const auto all = places_of(pid);
    REQUIRE(all);
    return std::count(all->begin(), all->end(), place) == 1;
  };
  CHECK(has(::getpid(), "127.0.0.1:" + std::to_string(mine.port)));
  if (other.usable)
    CHECK(has(::getpid(), "[::1]:" + std::to_string(other.port)));
  auto started = spawn({{"sleep", "1000"}, base_environment, "", -1, -1, -1});
  const auto pid = std::get<child>(started).pid;
  CHECK(places_of(pid) == names{});
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}

TEST_CASE("a process is ready when it listens") {
  world w;
  const auto port = free_port();
  w.launch_server("a", port, {{"START_DELAY_MS", "300"}});
  w.await("launched", "a");
  CHECK(w.story("a") == names{"launched"});
  CHECK_FALSE(connect_to(port));
  CHECK(w.await("ready", "a").text == "127.0.0.1");
  CHECK(connect_to(port));
  // An idle supervisor: no timer, no event, once those cancelled are through.
  w.loop.restart();
  w.loop.poll();
  w.loop.restart();
  CHECK(w.loop.run_for(200ms) == 0);
  CHECK_FALSE(w.all->signal("a", 1, SIGTERM));
  CHECK(w.await("exited", "a").status.code == 0);
}

TEST_CASE("a process that starts slowly becomes ready as well") {
  world w;
  w.launch_server("a", free_port(), {{"START_DELAY_MS", "1300"}});
  CHECK(w.await("ready", "a").text == "127.0.0.1");
}

TEST_CASE("a process that listens on ::1 only is ready there") {
  const socket_on_loopback v6{true};
  if (!v6.usable) {
    WARN("no IPv6 here");
    return;
  }
  world w;
  w.launch_server("a", free_port(), {}, "::1");
  CHECK(w.await("ready", "a").text == "::1");
}

TEST_CASE("a process that ends before it listens is never ready") {
  world w;
  launch_request request;
  request.argv = {"sh", "-c", "sleep 0.1; exit 9"};
  request.port = free_port();
  request.ready = ready_condition::port;
  w.all->launch("a", 1, std::move(request));
  CHECK(w.await("exited", "a").status.code == 9);
  CHECK(w.story("a") == names{"launched", "exited"});

  // It has ended, and somebody else listens in its place: the exit wins.
  request.argv = {"true"};
  std::unique_ptr<socket_on_loopback> other;
  w.on_event = [&](const event& e) {
    if (e.what != "launched")
      return;
    siginfo_t info{};
    REQUIRE(::waitid(P_PID, static_cast<id_t>(e.pid), &info, WEXITED | WNOWAIT)
            == 0);
    other = std::make_unique<socket_on_loopback>(false, true, request.port);
    REQUIRE(other->usable);
  };
  w.all->launch("b", 1, std::move(request));
  CHECK(w.await("exited", "b").status.code == 0);
  CHECK(w.story("b") == names{"launched", "exited"});
}

TEST_CASE("a stop ends the waiting for readiness") {
  world w;
  launch_request request;
  request.argv = {"sleep", "1000"};
  request.port = free_port();
  request.ready = ready_condition::port;
  w.all->launch("a", 1, std::move(request));
  w.await("launched", "a");
  w.loop.restart();
  CHECK(w.loop.run_for(50ms) > 0);  // it is being tried
  CHECK_FALSE(w.all->signal("a", 1, SIGTERM));
  CHECK(w.await("exited", "a").status.signal == SIGTERM);
  w.loop.restart();
  w.loop.run_for(10ms);  // what the cancelled timers still deliver
  w.loop.restart();
  CHECK(w.loop.run_for(100ms) == 0);
  CHECK(w.story("a") == names{"launched", "exited"});
}

namespace {

// Gives this thread a network of its own with one single port for clients, so
// that a connect to it always meets itself. False without the privilege.
bool enter_network_with_client_port(std::uint16_t port) {
  if (::unshare(CLONE_NEWNET) != 0)
    return false;
  const unique_fd fd{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  ifreq loopback{};
  std::strcpy(loopback.ifr_name, "lo");  // NOLINT: fits
  loopback.ifr_flags = IFF_UP | IFF_RUNNING;
  if (::ioctl(fd.get(), SIOCSIFFLAGS, &loopback) != 0)
    return false;
  std::ofstream file{"/proc/sys/net/ipv4/ip_local_port_range"};
  file << port << ' ' << port << std::endl;
  const auto itself = connect_to(port);
  const linger reset{1, 0};  // or the port would be in TIME_WAIT for a minute
  return file.good() && itself
         && ::setsockopt(itself.get(), SOL_SOCKET, SO_LINGER, &reset,
                         sizeof(reset))
                == 0;
}

}  // namespace

TEST_CASE("a connect that meets itself does not count as ready") {
  bool entered = false;
  names story;
  std::thread{[&] {
    constexpr std::uint16_t port = 40'000;
    entered = enter_network_with_client_port(port);
    if (!entered)
      return;
    world w;
    launch_request request;
    request.argv = {"sleep", "1000"};
    request.port = port;
    request.ready = ready_condition::port;
    w.all->launch("a", 1, std::move(request));
    w.await("launched", "a");
    w.loop.run_for(100ms);
    story = w.story("a");
  }}.join();
  if (entered)
    CHECK(story == names{"launched"});
  else
    WARN("needs the right to make a network namespace");
}

// --- usage -------------------------------------------------------------------

TEST_CASE("usage is read for those who live") {
  const temporary_folder folder;
  const auto odd = folder.path / "odd) R (name";
  fs::copy_file(fs::canonical("/bin/sleep"), odd);
  world w;
  w.launch("busy", {"sh", "-c", "while :; do :; done"});
  w.launch("odd", {odd.string(), "1000"});
  w.launch("gone", {"true"});
  const auto busy = w.await("launched", "busy").pid;
  const auto odd_pid = w.await("launched", "odd").pid;
  const auto gone = w.await("exited", "gone").pid;
  w.run_until([&] {
    const auto now = sample({busy});
    return now.size() == 1 && now[0].cpu_time > 0us;
  });
  const auto all = sample({odd_pid, gone, ::getpid()});
  REQUIRE(all.size() == 2);
  CHECK(all[0].pid == odd_pid);
  CHECK(all[0].rss_bytes > 0);
  CHECK(all[0].rss_bytes < (64u << 20));
  CHECK(all[0].cpu_time < 1s);
  CHECK(all[1].pid == ::getpid());
  CHECK(all[1].rss_bytes > (1u << 20));
}

// --- the example server ------------------------------------------------------

namespace {

void send_text(const unique_fd& fd, const std::string& text) {
  REQUIRE(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL)
          == static_cast<ssize_t>(text.size()));
}

// Reads until `until` is seen, or to the end of file when it is empty.
std::string receive(const unique_fd& fd, const std::string& until = "") {
  std::string text;
  char buffer[65536];
  while (until.empty() || text.find(until) == std::string::npos) {
    const auto n = ::recv(fd.get(), buffer, sizeof(buffer), 0);
    if (n <= 0)
      break;
    text.append(buffer, static_cast<std::size_t>(n));
  }
  return text;
}

std::string get(std::uint16_t port, const std::string& target) {
  const auto fd = connect_to(port);
  if (!fd)
    return "refused";
  send_text(fd, "GET " + target + " HTTP/1.1\r\nConnection: close\r\n\r\n");
  return receive(fd);
}

}  // namespace

TEST_CASE("the example server answers") {
  world w;
  const auto port = free_port();
  w.launch_server("a", port, {{"PUP_ID", "app-1"}, {"NAME", "value"}});
  w.await("ready", "a");
  const auto line = "app-1 pid " + std::to_string(w.await("launched", "a").pid)
                    + " port " + std::to_string(port) + "\n";
  const auto answer = get(port, "/");
  CHECK(answer.starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(answer.ends_with("\r\nConnection: close\r\n\r\n" + line));
  CHECK(get(port, "/env?NAME").ends_with("\r\n\r\nvalue\n"));
  const auto bytes = get(port, "/bytes?n=1000000");
  CHECK(bytes.size() - bytes.find("\r\n\r\n") - 4 == 1'000'000);
  CHECK(get(port, "/none").starts_with("HTTP/1.1 404 "));
  {
    const auto fd = connect_to(port);  // keep-alive, pipelined, with a body
    send_text(fd,
              "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / "
              "HTTP/1.1\r\n\r\nGET /env?NAME HTTP/1.0\r\n\r\n");
    const auto text = receive(fd);
    CHECK(text.find(line) != text.rfind(line));
    CHECK(text.ends_with("Connection: close\r\n\r\nvalue\n"));
  }
  {
    const auto fd = connect_to(port);
    send_text(fd, "GET / HTTP/1.1\r\nX: " + std::string(20'000, 'x'));
    CHECK(receive(fd).starts_with("HTTP/1.1 431 "));
    const auto junk = connect_to(port);
    send_text(junk, "nonsense\r\n\r\n");
    CHECK(receive(junk).starts_with("HTTP/1.1 400 "));
  }
  const auto slow = connect_to(port);
  send_text(slow, "GET /slow?ms=60000 HTTP/1.1\r\n\r\n");
  CHECK(get(port, "/").ends_with(line));  // others are not delayed
  CHECK(get(port, "/unlisten").ends_with(line));
  CHECK(get(port, "/") == "refused");
  CHECK(w.story("a") == names{"launched", "ready"});
}

TEST_CASE("the example server ends as it is told") {
  world w;
  const auto port = free_port();
  w.launch_server("a", port);
  w.await("ready", "a");
  auto idle = connect_to(port);
  send_text(idle, "GET / HTTP/1.1\r\n\r\n");
  CHECK_FALSE(receive(idle, " port ").empty());
  auto slow = connect_to(port);
  send_text(slow, "GET /slow?ms=300 HTTP/1.1\r\n\r\n");
  auto queued = connect_to(port);
  // An answer on a later connection: the server has read the slow request.
  CHECK(get(port, "/").starts_with("HTTP/1.1 200 "));
  CHECK_FALSE(w.all->signal("a", 1, SIGTERM));
  send_text(queued, "GET / HTTP/1.1\r\n\r\n");
  CHECK(receive(slow).find("http_server pid") != std::string::npos);
  CHECK(receive(queued).find("http_server pid") != std::string::npos);
  CHECK(receive(idle).empty());
  for (auto* fd : {&idle, &slow, &queued})
    fd->reset();  // or it waits a second for our end of file
  CHECK(w.await("exited", "a").status.code == 0);

  const auto other = free_port();
  w.launch_server("b", other, {{"IGNORE_TERM", "1"}});
  w.await("ready", "b");
  CHECK_FALSE(w.all->signal("b", 1, SIGTERM));
  CHECK(get(other, "/").starts_with("HTTP/1.1 200 "));
  CHECK(get(other, "/exit?code=3").empty());
  CHECK(w.await("exited", "b").status.code == 3);
}
