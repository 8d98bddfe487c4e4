#include "pup/runtime/process.hpp"

#include "pup/config/resources.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#  define CLONE_PIDFD 0x00001000
#endif
// On these the short names mean 16 bits.
#ifdef SYS_setgroups32
#  define PUP_SETGROUPS SYS_setgroups32
#  define PUP_SETRESGID SYS_setresgid32
#  define PUP_SETRESUID SYS_setresuid32
#else
#  define PUP_SETGROUPS SYS_setgroups
#  define PUP_SETRESGID SYS_setresgid
#  define PUP_SETRESUID SYS_setresuid
#endif
#ifndef SYS_close_range
#  define SYS_close_range 436  // the same number on every architecture
#endif
#ifndef SYS_clone3
#  define SYS_clone3 435
#endif
#ifndef CLOSE_RANGE_UNSHARE
#  define CLOSE_RANGE_UNSHARE 2u
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

// A stage at which a start may fail; told from others by its address.
constexpr char table_stage[] = "close_range";

constexpr std::size_t streams = 3;
constexpr std::size_t most_passed = streams + bounds::passed_sockets + 1;

// Room for the digits of any pid; the child writes its own in.
constexpr std::string_view pid_entry = "LISTEN_PID=";
constexpr std::size_t pid_digits = 10;

// What prlimit64() takes on every architecture.
struct kernel_limit {
  std::uint64_t soft = 0;
  std::uint64_t hard = 0;
};

// Attributes without library types; the child reads them.
struct attribute_plan {
  const char* cgroup_procs = nullptr;  // nullptr: stay
  const char* oom_score = nullptr;     // text to write; nullptr: stay
  unsigned oom_score_size = 0;
  bool set_nice = false;
  int nice = 0;
  int io_priority = -1;  // as ioprio_set() takes it; -1: stay
  const int* resources = nullptr;
  const kernel_limit* limits = nullptr;
  unsigned limit_count = 0;
  bool set_identity = false;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  const std::uint32_t* groups = nullptr;
  unsigned group_count = 0;
  int umask = -1;  // -1: stay
  bool no_new_privileges = false;
};

// Written by the child.
struct child_outcome {
  const char* failed_stage = nullptr;
  unsigned failed_index = 0;  // of a descriptor or a limit
  int error = 0;
};

struct child_plan {
  const char* program = nullptr;
  char* const* argv = nullptr;
  char* const* environment = nullptr;
  const char* cwd = nullptr;  // nullptr: stay
  // What becomes descriptor 0, 1, 2, …: each above all of these numbers. No
  // library type in the child.
  int passed[most_passed] = {};
  unsigned passed_count = 0;
  unsigned table_end = 0;    // see own_table(); 0: the table is its own
  char* pid_text = nullptr;  // nullptr: nobody asks for LISTEN_PID
  unsigned descriptor_limit = 0;
  attribute_plan attributes;
  pid_t* own_pid = nullptr;  // nullptr: nobody asks for it
  const int* cancelled = nullptr;
  std::uint64_t reset = 0;
  child_outcome* outcome = nullptr;
};

PUP_BARE void close_all_from(unsigned first, unsigned limit) noexcept {
  // Closing for good is right: the table is the child's own copy. The flag
  // CLOSE_RANGE_CLOEXEC would ask for Linux 5.11.
  if (::syscall(SYS_close_range, first, ~0u, 0u) == 0)
    return;
  for (unsigned fd = first; fd < limit; ++fd)
    ::syscall(SYS_close, fd);
}

// Makes the shared table of descriptors the child's own. Only what is below
// `end` is copied: it costs the same however many others the caller has open.
PUP_BARE bool own_table(unsigned end) noexcept {
  return ::syscall(SYS_close_range, end, ~0u, CLOSE_RANGE_UNSHARE) == 0;
}

// Only the child knows its pid, and only before exec can it be written down.
PUP_BARE void write_own_pid(char* digits) noexcept {
  auto pid = static_cast<unsigned>(::syscall(SYS_getpid));
  char reversed[pid_digits] = {};
  unsigned count = 0;
  for (; pid > 0 && count < pid_digits; pid /= 10)
    reversed[count++] = static_cast<char>('0' + pid % 10);
  for (unsigned i = 0; i < count; ++i)
    digits[i] = reversed[count - 1 - i];
  digits[count] = '\0';
}

// A handler of the parent must not run on the shared memory, and an ignored
// signal would stay ignored across exec. Not glibc's sigaction(): sanitizers
// keep a table of handlers behind it, which is the parent's. All zero is
// SIG_DFL without flags on every architecture; SIGKILL and SIGSTOP refuse.
PUP_BARE void reset_signals(std::uint64_t which) noexcept {
  unsigned long zero[16] = {};
  for (int number = 1; number < _NSIG; ++number)
    if ((which >> (number - 1) & 1) != 0)
      ::syscall(SYS_rt_sigaction, number, zero, nullptr, _NSIG / 8);
}

PUP_BARE bool write_file(const char* path, const char* text,
                         unsigned size) noexcept {
  const auto fd = ::syscall(SYS_openat, AT_FDCWD, path, O_WRONLY);
  if (fd < 0)
    return false;
  const bool written = ::syscall(SYS_write, fd, text, size) >= 0;
  const int error = errno;
  ::syscall(SYS_close, fd);
  errno = error;
  return written;
}

// What asks for descriptors comes before a limit of them, and what asks for
// privileges before the change of user.
PUP_BARE const char* set_attributes(const attribute_plan& x,
                                    child_outcome& outcome) noexcept {
  constexpr int this_process = 0;
  constexpr int of_process = 1;  // IOPRIO_WHO_PROCESS
  if (x.cgroup_procs != nullptr && !write_file(x.cgroup_procs, "0", 1))
    return "cgroup";
  if (x.oom_score != nullptr
      && !write_file("/proc/self/oom_score_adj", x.oom_score, x.oom_score_size))
    return "oom score";
  if (x.set_nice
      && ::syscall(SYS_setpriority, PRIO_PROCESS, this_process, x.nice) != 0)
    return "nice";
  if (x.io_priority >= 0
      && ::syscall(SYS_ioprio_set, of_process, this_process, x.io_priority)
             != 0)
    return "I/O class";
  for (unsigned i = 0; i < x.limit_count; ++i)
    if (::syscall(SYS_prlimit64, this_process, x.resources[i], &x.limits[i],
                  nullptr)
        != 0) {
      outcome.failed_index = i;
      return "limit";
    }
  // The raw calls: glibc's change every thread of the process, which these
  // threads are not.
  if (x.set_identity) {
    if (::syscall(PUP_SETGROUPS, x.group_count, x.groups) != 0)
      return "groups";
    if (::syscall(PUP_SETRESGID, x.gid, x.gid, x.gid) != 0)
      return "group";
    if (::syscall(PUP_SETRESUID, x.uid, x.uid, x.uid) != 0)
      return "user";
  }
  if (x.umask >= 0)
    ::syscall(SYS_umask, x.umask);
  if (x.no_new_privileges
      && ::syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return "no new privileges";
  return nullptr;
}

PUP_BARE int run_child(void* argument) noexcept {
  auto& plan = *static_cast<child_plan*>(argument);
  auto& outcome = *plan.outcome;
  const char* stage = nullptr;
  if (plan.own_pid != nullptr)
    __atomic_store_n(plan.own_pid, static_cast<pid_t>(::syscall(SYS_getpid)),
                     __ATOMIC_SEQ_CST);
  if (plan.table_end != 0 && !own_table(plan.table_end)) {
    outcome.error = errno;
    outcome.failed_stage = table_stage;
    return 127;
  }
  reset_signals(plan.reset);
  if (::syscall(SYS_setsid) < 0)
    stage = "setsid";
  for (unsigned i = 0; i < plan.passed_count && stage == nullptr; ++i) {
    if (::syscall(SYS_dup3, plan.passed[i], i, 0) < 0) {
      stage = "dup";
      outcome.failed_index = i;
    }
  }
  // Before anything that can take long: somebody may wait for the last copy of
  // a descriptor that is not meant for this program.
  if (stage == nullptr) {
    close_all_from(plan.passed_count, plan.descriptor_limit);
    stage = set_attributes(plan.attributes, outcome);
  }
  // As the user it is now, who may be refused.
  if (stage == nullptr && plan.cwd != nullptr
      && ::syscall(SYS_chdir, plan.cwd) != 0)
    stage = "chdir";
  if (stage == nullptr && plan.cancelled != nullptr
      && __atomic_load_n(plan.cancelled, __ATOMIC_SEQ_CST) != 0) {
    errno = ECANCELED;
    stage = "start";
  }
  if (stage == nullptr) {
    if (plan.pid_text != nullptr)
      write_own_pid(plan.pid_text);
    unsigned long empty_mask[16] = {};
    ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, empty_mask, nullptr, _NSIG / 8);
    ::syscall(SYS_execve, plan.program, plan.argv, plan.environment);
    stage = "exec";
  }
  outcome.error = errno;
  outcome.failed_stage = stage;
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

// What becomes descriptor 0, 1, 2, … of the child, each numbered above all of
// them: dup3() onto itself fails, and one must not be overwritten before it is
// used.
class passed_descriptors {
public:
  std::optional<os_fault> prepare(const spawn_request& request) {
    std::vector<int> wanted{request.stdin_fd, request.stdout_fd,
                            request.stderr_fd};
    wanted.insert(wanted.end(), request.listen_fds.begin(),
                  request.listen_fds.end());
    if (request.ready_fd >= 0)
      wanted.push_back(request.ready_fd);
    const auto count = static_cast<int>(wanted.size());
    for (int fd : wanted) {
      if (fd < 0) {
        if (!null_)
          null_.reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
        if (!null_)
          return os_fault{"open", "/dev/null", errno};
        fd = null_.get();
      }
      if (fd < count) {
        moved_.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, count));
        if (!moved_.back())
          return os_fault{"fcntl", "descriptor " + std::to_string(fd), errno};
        fd = moved_.back().get();
      }
      numbers_.push_back(fd);
    }
    return std::nullopt;
  }

  const std::vector<int>& numbers() const noexcept {
    return numbers_;
  }

private:
  unique_fd null_;
  std::vector<unique_fd> moved_;
  std::vector<int> numbers_;
};

// The environment as the program gets it: `base`, and what tells of passed
// sockets in place of what it may say of the caller's own.
std::vector<std::string> environment_of(const spawn_request& request) {
  constexpr std::string_view count_entry = "LISTEN_FDS=";
  auto result = request.environment;
  if (request.listen_fds.empty())
    return result;
  std::erase_if(result, [&](const std::string& x) {
    return x.starts_with(count_entry) || x.starts_with(pid_entry)
           || x.starts_with("LISTEN_FDNAMES=");
  });
  result.push_back(std::string{count_entry}
                   + std::to_string(request.listen_fds.size()));
  result.push_back(std::string{pid_entry} + std::string(pid_digits, '0'));
  return result;
}

// For programs; 0: what this process has.
rlim_t programs_soft_limit = 0;

// Of attributes, what their plan points to.
class prepared_attributes {
public:
  /// `descriptors`: what this process may have.
  prepared_attributes(const spawn_request& request, const rlimit& descriptors)
      : x_(request.attributes),
        cgroup_procs_(request.cgroup_folder + "/cgroup.procs"),
        oom_score_(std::to_string(x_.oom_score_adjust.value_or(0))) {
    for (const auto& limit : x_.limits) {
      resources_.push_back(limit.resource);
      limits_.push_back({limit.soft, limit.hard});
    }
    const auto has_own =
        std::find(resources_.begin(), resources_.end(), RLIMIT_NOFILE)
        != resources_.end();
    if (programs_soft_limit != 0 && !has_own) {
      resources_.push_back(RLIMIT_NOFILE);
      // It may have been lowered since.
      limits_.push_back({std::min(programs_soft_limit, descriptors.rlim_max),
                         descriptors.rlim_max});
    }
    in_cgroup_ = !request.cgroup_folder.empty();
  }

  attribute_plan plan() const {
    constexpr int class_shift = 13;  // of ioprio_set(2)
    attribute_plan result;
    if (in_cgroup_)
      result.cgroup_procs = cgroup_procs_.c_str();
    if (x_.oom_score_adjust) {
      result.oom_score = oom_score_.c_str();
      result.oom_score_size = static_cast<unsigned>(oom_score_.size());
    }
    result.set_nice = x_.nice.has_value();
    result.nice = x_.nice.value_or(0);
    if (x_.io)
      result.io_priority = static_cast<int>(x_.io->kind) << class_shift
                           | (x_.io->kind == io_class::idle ? 0 : x_.io->level);
    result.resources = resources_.data();
    result.limits = limits_.data();
    result.limit_count = static_cast<unsigned>(limits_.size());
    if (const auto& who = x_.run_as) {
      result.set_identity = true;
      result.uid = who->uid;
      result.gid = who->gid;
      result.groups = who->groups.data();
      result.group_count = static_cast<unsigned>(who->groups.size());
    }
    if (x_.umask)
      result.umask = static_cast<int>(*x_.umask);
    result.no_new_privileges = x_.no_new_privileges;
    return result;
  }

private:
  const process_attributes& x_;
  std::string cgroup_procs_;
  std::string oom_score_;
  std::vector<int> resources_;
  std::vector<kernel_limit> limits_;
  bool in_cgroup_ = false;
};

// Where a child that has memory of its own can write to as well.
class shared_outcome {
public:
  shared_outcome() {
    auto* page = ::mmap(nullptr, sizeof(child_outcome), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED)
      outcome_ = new (page) child_outcome;
  }
  shared_outcome(const shared_outcome&) = delete;
  shared_outcome& operator=(const shared_outcome&) = delete;
  ~shared_outcome() {
    if (outcome_ != nullptr)
      ::munmap(outcome_, sizeof(child_outcome));
  }

  child_outcome* get() const noexcept {
    return outcome_;
  }

private:
  child_outcome* outcome_ = nullptr;
};

// A pipe belongs to who made it, and /dev/stdout opens it anew.
void give_pipes_to(uid_t uid, const spawn_request& request) {
  for (const int fd : {request.stdout_fd, request.stderr_fd}) {
    struct stat info {};
    if (fd < 0 || ::fstat(fd, &info) != 0 || !S_ISFIFO(info.st_mode)
        || info.st_uid == uid)
      continue;
    // Without the right to, the program finds it as it is.
    if (::fchown(fd, uid, static_cast<gid_t>(-1)) != 0)
      errno = 0;
  }
}

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
  if (has_nul(request.cgroup_folder))
    return os_fault{"cgroup", request.cgroup_folder.c_str(), EINVAL};
  if (request.listen_fds.size() > bounds::passed_sockets)
    return os_fault{
        "dup", std::to_string(request.listen_fds.size()) + " sockets", E2BIG};
  return std::nullopt;
}

std::string_view path_of(const std::vector<std::string>& environment) {
  for (std::string_view entry : environment)
    if (entry.starts_with("PATH="))
      return entry.substr(5);
  return default_path;
}

std::string first_line(const std::string& file_name) {
  std::string line(256, '\0');  // the kernel reads no more of it
  const unique_fd file{
      ::open(file_name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  const auto n = file ? ::read(file.get(), line.data(), line.size()) : 0;
  line.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
  return line.erase(std::min(line.find('\n'), line.size()));
}

// The kernel says ENOENT of the program when its interpreter is missing.
std::string missing_interpreter(const std::string& program) {
  auto line = first_line(program);
  if (!line.starts_with("#!"))
    return "its loader";
  line.erase(0, std::min(line.size(), line.find_first_not_of(" \t", 2)));
  if (line.ends_with('\r'))
    return "its first line ends with a carriage return; save it with Unix line "
           "ends";
  return "its interpreter " + line.substr(0, line.find(' '));
}

// The kernel says E2BIG of one text, or of all together, and not which.
std::string too_large(const spawn_request& request) {
  constexpr std::size_t most_bytes = 32 * 4096 - 1;  // MAX_ARG_STRLEN
  const auto size = [](const std::string& x) {
    return std::to_string(x.size()) + " bytes";
  };
  const auto remedy = "; one has " + std::to_string(most_bytes) + " at most";
  for (const auto& x : request.environment)
    if (x.size() > most_bytes)
      return "its variable " + x.substr(0, x.find('=')) + " has " + size(x)
             + remedy;
  for (std::size_t i = 0; i < request.argv.size(); ++i)
    if (request.argv[i].size() > most_bytes)
      return "its argument " + std::to_string(i) + " has "
             + size(request.argv[i]) + remedy;
  std::size_t all = 0;
  for (const auto* texts : {&request.argv, &request.environment})
    for (const auto& x : *texts)
      all += x.size() + 1 + sizeof(char*);
  return "its arguments and variables have " + std::to_string(all)
         + " bytes together; a quarter of its stack limit is the most";
}

// The program, and what about it the kernel does not accept.
std::string exec_object(const std::string& program, int error,
                        const spawn_request& request) {
  std::string what;
  if (error == E2BIG)
    what = too_large(request);
  else if (error == ENOENT && ::access(program.c_str(), F_OK) == 0)
    what = missing_interpreter(program);
  else if (error == ENOEXEC)
    what =
        "no program of this machine; a script begins with a line such as "
        "#!/bin/sh";
  return what.empty() ? program : program + " (" + what + ')';
}

std::string number_text(std::uint64_t limit) {
  return limit == resource_limit::unlimited ? "unlimited"
                                            : std::to_string(limit);
}

// What was asked for, and where it was refused why.
std::string attribute_object(std::string_view stage, unsigned index, int error,
                             const spawn_request& request) {
  const auto& x = request.attributes;
  std::string result;
  if (stage == "cgroup")
    return request.cgroup_folder;
  if (stage == "oom score")
    result = std::to_string(x.oom_score_adjust.value_or(0));
  else if (stage == "nice")
    result = std::to_string(x.nice.value_or(0));
  else if (stage == "limit" && index >= x.limits.size())
    return "nofile, as pup was given it";
  else if (stage == "limit")
    result = std::string{name_of_resource(x.limits[index].resource)} + ' '
             + number_text(x.limits[index].hard);
  else if (stage == "groups" || stage == "group" || stage == "user")
    result = x.run_as->name.empty() ? std::to_string(x.run_as->gid)
                                    : '`' + x.run_as->name + '`';
  else
    return {};
  if ((error == EPERM || error == EACCES) && ::geteuid() != 0)
    result += " (pup does not run as root)";
  return result;
}

os_fault fault_of(const child_plan& plan, const spawn_request& request) {
  const auto& outcome = *plan.outcome;
  const std::string_view stage = outcome.failed_stage;
  std::string object;
  if (stage == "exec")
    object = exec_object(plan.program, outcome.error, request);
  else if (stage == "chdir")
    object = request.cwd;
  else if (stage == "dup")
    object = "onto descriptor " + std::to_string(outcome.failed_index);
  else
    object =
        attribute_object(stage, outcome.failed_index, outcome.error, request);
  if (stage == "exec" && outcome.error == EAGAIN)
    object += " (its user has as many processes as limits.nproc allows)";
  if ((stage == "exec" || stage == "chdir") && request.attributes.run_as)
    object +=
        " (as user " + std::to_string(request.attributes.run_as->uid) + ')';
  return {std::string{stage}, std::move(object), outcome.error};
}

// struct clone_args as Linux 5.7 has it; older headers have less.
struct birth {
  std::uint64_t flags = 0;
  std::uint64_t pidfd = 0;
  std::uint64_t child_tid = 0;
  std::uint64_t parent_tid = 0;
  std::uint64_t exit_signal = SIGCHLD;
  std::uint64_t stack = 0;
  std::uint64_t stack_size = 0;
  std::uint64_t tls = 0;
  std::uint64_t set_tid = 0;
  std::uint64_t set_tid_size = 0;
  std::uint64_t cgroup = 0;
};

constexpr std::uint64_t clone_into_cgroup = 0x2'0000'0000;

// A child that begins in its cgroup: to be moved there makes it wait for all
// forks of the machine to rest, 12 ms as a rule. One with memory of its own
// needs no other stack than this. -1: it cannot be had.
PUP_BARE pid_t clone_into(const char* folder, unsigned flags, child_plan& plan,
                          int* pidfd) noexcept {
  const auto group = static_cast<int>(::syscall(
      SYS_openat, AT_FDCWD, folder, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (group < 0)
    return -1;
  birth how;
  how.flags = flags | clone_into_cgroup;
  how.pidfd = reinterpret_cast<std::uintptr_t>(pidfd);
  how.cgroup = static_cast<std::uint64_t>(group);
  const auto pid = ::syscall(SYS_clone3, &how, sizeof(how));
  if (pid == 0)
    ::syscall(SYS_exit_group, run_child(&plan));
  ::syscall(SYS_close, group);
  return static_cast<pid_t>(pid);
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
  // See the head of process.hpp.
  const int memory = request.attributes.run_as ? 0 : CLONE_VM;
  const int table = plan.table_end != 0 ? CLONE_FILES : 0;
  {
    const signals_blocked guard;
    if (memory == 0 && plan.attributes.cgroup_procs != nullptr) {
      const auto* const procs =
          std::exchange(plan.attributes.cgroup_procs, nullptr);
      pid = clone_into(request.cgroup_folder.c_str(),
                       static_cast<unsigned>(table) | CLONE_VFORK | CLONE_PIDFD,
                       plan, &pidfd);
      plan.attributes.cgroup_procs = procs;
    }
    // vfork() with a stack of its own, as glibc's posix_spawn does: the frames
    // of this thread stay untouched. The pidfd exists before anyone can reap.
    if (pid < 0)
      pid = PUP_CLONE(run_child, stack->bytes + child_stack_bytes,
                      memory | table | CLONE_VFORK | CLONE_PIDFD | SIGCHLD,
                      &plan, &pidfd);
    error = errno;
  }
  if (pid < 0)
    return os_fault{"clone", plan.program, error};
  child result{pid, unique_fd{pidfd}};
  if (plan.outcome->failed_stage == nullptr)
    return result;
  // It has ended. ECHILD: somebody else who waits for all children was first.
  siginfo_t ignored{};
  while (::waitid(P_PIDFD, static_cast<id_t>(pidfd), &ignored, WEXITED) != 0
         && errno == EINTR) {}
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

std::variant<child, os_fault> spawn(const spawn_request& request,
                                    const spawn_aids& aids) {
  if (auto fault = check_strings(request))
    return *std::move(fault);
  auto found = resolve_program(
      request.program.empty() ? request.argv.front() : request.program,
      path_of(request.environment), request.cwd);
  if (auto* fault = std::get_if<os_fault>(&found))
    return std::move(*fault);
  passed_descriptors passed;
  if (auto fault = passed.prepare(request))
    return *std::move(fault);
  const auto argv = pointers(request.argv);
  auto environment_texts = environment_of(request);
  const auto environment = pointers(environment_texts);
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);  // cannot fail with these arguments
  child_plan plan;
  plan.program = std::get<std::string>(found).c_str();
  plan.argv = argv.data();
  plan.environment = environment.data();
  plan.cwd = request.cwd.empty() ? nullptr : request.cwd.c_str();
  const prepared_attributes attributes{request, limit};
  plan.attributes = attributes.plan();
  plan.own_pid = aids.pid;
  plan.cancelled = aids.cancelled;
  plan.reset = aids.reset;
  child_outcome outcome;
  plan.outcome = &outcome;
  std::optional<shared_outcome> shared;
  if (request.attributes.run_as) {
    plan.outcome = shared.emplace().get();
    if (plan.outcome == nullptr)
      return os_fault{"clone", plan.program, ENOMEM};
    give_pipes_to(request.attributes.run_as->uid, request);
  }
  std::copy(passed.numbers().begin(), passed.numbers().end(), plan.passed);
  plan.table_end = static_cast<unsigned>(
      *std::max_element(passed.numbers().begin(), passed.numbers().end()) + 1);
  plan.passed_count = static_cast<unsigned>(passed.numbers().size());
  if (!request.listen_fds.empty())
    plan.pid_text = environment_texts.back().data() + pid_entry.size();
  // The hard limit: the soft one may have been lowered below open descriptors.
  plan.descriptor_limit =
      static_cast<unsigned>(std::min(limit.rlim_max, most_descriptors));
  auto result = run(plan, request);
  // Forbidden by a seccomp filter that is older than the call, say: such a
  // child gets a copy of the whole table.
  if (plan.outcome->failed_stage == table_stage) {
    plan.table_end = 0;
    *plan.outcome = {};
    result = run(plan, request);
  }
  return result;
}

std::uint64_t ignored_signals() {
  std::uint64_t result = 0;
  for (int number = 1; number < _NSIG; ++number) {
    struct sigaction now {};
    if (::sigaction(number, nullptr, &now) == 0 && now.sa_handler == SIG_IGN)
      result |= std::uint64_t{1} << (number - 1);
  }
  return result;
}

void raise_descriptor_limit() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto former = std::exchange(limit.rlim_cur, limit.rlim_max);
  if (former != limit.rlim_max && ::setrlimit(RLIMIT_NOFILE, &limit) == 0)
    programs_soft_limit = former;
}

std::uint64_t programs_descriptor_limit() {
  return programs_soft_limit;
}

void set_programs_descriptor_limit(std::uint64_t value) {
  programs_soft_limit = value;
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
