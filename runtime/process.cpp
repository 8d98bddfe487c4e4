#include "pup/runtime/process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>

#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#  define CLONE_PIDFD 0x00001000
#endif
#ifndef SYS_close_range
#  define SYS_close_range 436  // the same number on every architecture
#endif

// For what runs in the child: it shares the caller's memory, and instrumented
// code would leave the marks of a second process in the sanitizers' tables.
#define PUP_BARE __attribute__((no_sanitize("address", "thread", "undefined")))

#if defined(__SANITIZE_THREAD__)
#  define PUP_THREAD_SANITIZER
#elif defined(__has_feature)
#  if __has_feature(thread_sanitizer)
#    define PUP_THREAD_SANITIZER
#  endif
#endif

#ifdef PUP_THREAD_SANITIZER
// The sanitizer replaces clone() by a version for children with memory of their
// own, which unlocks its mutexes twice. This name goes past it.
extern "C" int __clone(int (*)(void*), void*, int, void*, ...);  // NOLINT
#  define PUP_CLONE __clone
#else
#  define PUP_CLONE ::clone
#endif

namespace pup {

namespace {

// Where execvp() looks when there is no PATH, plus the usual local folder.
constexpr std::string_view default_path = "/usr/local/bin:/usr/bin:/bin";

// The child calls a handful of system call stubs, each with a small frame.
constexpr std::size_t child_stack_bytes = 32 * 1024;

// Highest descriptor closed one by one where close_range() is forbidden (a
// seccomp filter older than it); the default of fs.nr_open.
constexpr rlim_t most_descriptors = 1u << 20;

struct child_plan {
  const char* program = nullptr;
  char* const* argv = nullptr;
  char* const* environment = nullptr;
  const char* cwd = nullptr;      // nullptr: stay
  int streams[3] = {-1, -1, -1};  // all above 2; no library type in the child
  unsigned descriptor_limit = 0;
  // Written by the child.
  const char* failed_stage = nullptr;
  int failed_stream = 0;
  int error = 0;
};

PUP_BARE void close_all_above_2(unsigned limit) noexcept {
  // Closing for good is right: the table is the child's own copy. The flag
  // CLOSE_RANGE_CLOEXEC would ask for Linux 5.11.
  if (::syscall(SYS_close_range, 3u, ~0u, 0u) == 0)
    return;
  for (unsigned fd = 3; fd < limit; ++fd)
    ::syscall(SYS_close, fd);
}

// A handler of the parent must not run on the shared memory, and an ignored
// signal would stay ignored across exec. Not glibc's sigaction(): sanitizers
// keep a table of handlers behind it, which is the parent's. All zero is
// SIG_DFL without flags on every architecture; SIGKILL and SIGSTOP refuse.
PUP_BARE void reset_signals() noexcept {
  unsigned long zero[16] = {};
  for (int number = 1; number < _NSIG; ++number)
    ::syscall(SYS_rt_sigaction, number, zero, nullptr, _NSIG / 8);
}

PUP_BARE int run_child(void* argument) noexcept {
  auto& plan = *static_cast<child_plan*>(argument);
  reset_signals();
  const char* stage = nullptr;
  if (::syscall(SYS_setsid) < 0)
    stage = "setsid";
  else if (plan.cwd != nullptr && ::syscall(SYS_chdir, plan.cwd) != 0)
    stage = "chdir";
  for (int i = 0; i < 3 && stage == nullptr; ++i) {
    if (::syscall(SYS_dup3, plan.streams[i], i, 0) < 0) {
      stage = "dup";
      plan.failed_stream = i;
    }
  }
  if (stage == nullptr) {
    close_all_above_2(plan.descriptor_limit);
    unsigned long empty_mask[16] = {};
    ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, empty_mask, nullptr, _NSIG / 8);
    ::syscall(SYS_execve, plan.program, plan.argv, plan.environment);
    stage = "exec";
  }
  plan.error = errno;
  plan.failed_stage = stage;
  return 127;
}

// Blocks every signal of this thread, so that none arrives in the child before
// its dispositions are reset.
class signals_blocked {
public:
  signals_blocked() noexcept {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }

  signals_blocked(const signals_blocked&) = delete;
  signals_blocked& operator=(const signals_blocked&) = delete;

  ~signals_blocked() {
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

private:
  sigset_t before_{};
};

// Descriptors for 0, 1 and 2 of the child, all above 2: dup3() onto itself
// fails, and one above must not be overwritten before it is used.
class child_streams {
public:
  std::optional<os_fault> prepare(const spawn_request& request) {
    const std::array<int, 3> wanted{request.stdin_fd, request.stdout_fd,
                                    request.stderr_fd};
    for (std::size_t i = 0; i < 3; ++i) {
      int fd = wanted[i];
      if (fd < 0) {
        if (!null_)
          null_.reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
        if (!null_)
          return os_fault{"open", "/dev/null", errno};
        fd = null_.get();
      }
      if (fd <= 2) {
        moved_[i].reset(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
        if (!moved_[i])
          return os_fault{"fcntl", "descriptor " + std::to_string(fd), errno};
        fd = moved_[i].get();
      }
      numbers_[i] = fd;
    }
    return std::nullopt;
  }

  const std::array<int, 3>& numbers() const noexcept {
    return numbers_;
  }

private:
  unique_fd null_;
  std::array<unique_fd, 3> moved_;
  std::array<int, 3> numbers_{};
};

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (const auto& text : strings)
    result.push_back(const_cast<char*>(text.c_str()));  // execve's signature
  result.push_back(nullptr);
  return result;
}

bool has_nul(const std::string& text) {
  return text.find('\0') != std::string::npos;
}

std::optional<os_fault> check_strings(const spawn_request& request) {
  if (request.argv.empty() || request.argv.front().empty())
    return os_fault{"argv", "without a program", EINVAL};
  for (std::size_t i = 0; i < request.argv.size(); ++i)
    if (has_nul(request.argv[i]))
      return os_fault{"argv",
                      "element " + std::to_string(i) + " with a NUL inside",
                      EINVAL};
  for (const auto& text : request.environment)
    if (has_nul(text))
      return os_fault{"environment",
                      text.substr(0, text.find('=')) + " with a NUL inside",
                      EINVAL};
  if (has_nul(request.cwd))
    return os_fault{"chdir", request.cwd.c_str(), EINVAL};
  return std::nullopt;
}

std::string_view path_of(const std::vector<std::string>& environment) {
  for (std::string_view entry : environment)
    if (entry.starts_with("PATH="))
      return entry.substr(5);
  return default_path;
}

// The kernel says ENOENT of the program when its interpreter is missing.
std::string exec_object(const std::string& program, int error) {
  if (error != ENOENT || ::access(program.c_str(), F_OK) != 0)
    return program;
  std::ifstream file{program};
  std::string line;
  std::getline(file, line);
  if (!line.starts_with("#!"))
    return program + " (its loader)";
  line.erase(0, std::min(line.size(), line.find_first_not_of(" \t", 2)));
  return program + " (its interpreter " + line.substr(0, line.find(' ')) + ")";
}

os_fault fault_of(const child_plan& plan, const spawn_request& request) {
  const std::string_view stage = plan.failed_stage;
  std::string object;
  if (stage == "exec")
    object = exec_object(plan.program, plan.error);
  else if (stage == "chdir")
    object = request.cwd;
  else if (stage == "dup")
    object = "onto descriptor " + std::to_string(plan.failed_stream);
  return {std::string{stage}, std::move(object), plan.error};
}

std::variant<child, os_fault> run(child_plan& plan,
                                  const spawn_request& request) {
  struct alignas(64) stack_block {
    std::byte bytes[child_stack_bytes];
  };
  // Not make_unique: no need to clear it.
  const std::unique_ptr<stack_block> stack{new stack_block};
  int pidfd = -1;
  pid_t pid = -1;
  int error = 0;
  {
    const signals_blocked guard;
    // vfork() with a stack of its own, as glibc's posix_spawn does: the frames
    // of this thread stay untouched. The pidfd exists before anyone can reap.
    pid = PUP_CLONE(run_child, stack->bytes + child_stack_bytes,
                    CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &plan,
                    &pidfd);
    error = errno;
  }
  if (pid < 0)
    return os_fault{"clone", plan.program, error};
  child result{pid, unique_fd{pidfd}};
  if (plan.failed_stage == nullptr)
    return result;
  // It has ended; ECHILD only where SIGCHLD is ignored, which reaps it too.
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {}
  return fault_of(plan, request);
}

std::string join(std::string_view folder, std::string_view name) {
  auto path = std::string{folder};
  if (!path.empty() && path.back() != '/')
    path += '/';
  return path.append(name);
}

std::string absolute(std::string_view path, std::string_view cwd) {
  if (path.starts_with('/'))
    return std::string{path};
  if (!cwd.empty())
    return join(cwd, path);
  const std::unique_ptr<char, decltype(&std::free)> here{
      ::getcwd(nullptr, 0), &std::free};  // nullptr: the folder is gone
  return here ? join(here.get(), path) : std::string{path};
}

bool is_regular_file(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

}  // namespace

std::variant<child, os_fault> spawn(const spawn_request& request) {
  if (auto fault = check_strings(request))
    return *std::move(fault);
  auto found = resolve_program(request.argv.front(),
                               path_of(request.environment), request.cwd);
  if (auto* fault = std::get_if<os_fault>(&found))
    return std::move(*fault);
  child_streams streams;
  if (auto fault = streams.prepare(request))
    return *std::move(fault);
  const auto argv = pointers(request.argv);
  const auto environment = pointers(request.environment);
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);  // cannot fail with these arguments
  child_plan plan;
  plan.program = std::get<std::string>(found).c_str();
  plan.argv = argv.data();
  plan.environment = environment.data();
  plan.cwd = request.cwd.empty() ? nullptr : request.cwd.c_str();
  std::copy_n(streams.numbers().begin(), 3, plan.streams);
  // The hard limit: the soft one may have been lowered below open descriptors.
  plan.descriptor_limit =
      static_cast<unsigned>(std::min(limit.rlim_max, most_descriptors));
  return run(plan, request);
}

std::variant<std::string, os_fault> resolve_program(std::string_view name,
                                                    std::string_view path,
                                                    std::string_view cwd) {
  if (name.find('/') != std::string_view::npos)
    return absolute(name, cwd);
  int error = ENOENT;
  for (std::size_t begin = 0; begin <= path.size() && !name.empty();) {
    const auto end = std::min(path.find(':', begin), path.size());
    const auto folder = path.substr(begin, end - begin);
    const auto candidate =
        absolute(join(folder.empty() ? "." : folder, name), cwd);
    if (is_regular_file(candidate)) {
      if (::faccessat(AT_FDCWD, candidate.c_str(), X_OK, AT_EACCESS) == 0)
        return candidate;
      error = EACCES;
    }
    begin = end + 1;
  }
  return os_fault{
      "exec", std::string{name} + " (PATH " + std::string{path} + ")", error};
}

std::vector<std::string> build_environment(
    const std::vector<std::string>& base,
    const std::map<std::string, std::string>& additions,
    std::string_view path_suffix) {
  auto all = additions;
  for (const auto& entry : base) {
    const auto equals = entry.find('=');
    if (equals != std::string::npos)
      all.emplace(entry.substr(0, equals), entry.substr(equals + 1));
  }
  if (!path_suffix.empty()) {
    auto& path = all.emplace("PATH", default_path).first->second;
    path.append(path.empty() ? "" : ":").append(path_suffix);
  }
  std::vector<std::string> result;
  result.reserve(all.size());
  for (const auto& [name, value] : all)
    result.push_back(name + '=' + value);
  return result;
}

}  // namespace pup
