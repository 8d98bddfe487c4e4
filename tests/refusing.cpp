// A program below a filter of system calls, as containers have: refusing
// CALL=ERROR… -- PROGRAM [ARGUMENT…]. What it runs gets ERROR (EPERM, ENOSYS,
// EMFILE) of each CALL. Ends with 77 where there can be no filter.
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <string_view>
#include <utility>
#include <vector>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int no_filter = 77;

struct refusal {
  unsigned call = 0;
  unsigned error = 0;
};

/// From 424 on the numbers are the same on every architecture.
constexpr std::array calls{
    std::pair<std::string_view, unsigned>{"clone3", 435},
    std::pair<std::string_view, unsigned>{"pidfd_open", 434},
    std::pair<std::string_view, unsigned>{"openat2", 437},
    std::pair<std::string_view, unsigned>{"memfd_create", SYS_memfd_create},
    std::pair<std::string_view, unsigned>{"epoll_create1", SYS_epoll_create1},
    std::pair<std::string_view, unsigned>{"eventfd2", SYS_eventfd2},
    std::pair<std::string_view, unsigned>{"timerfd_create", SYS_timerfd_create},
    std::pair<std::string_view, unsigned>{"inotify_init1", SYS_inotify_init1},
};
constexpr std::array errors{
    std::pair<std::string_view, unsigned>{"EPERM", EPERM},
    std::pair<std::string_view, unsigned>{"ENOSYS", ENOSYS},
    std::pair<std::string_view, unsigned>{"EMFILE", EMFILE},
};

template <class Table>
unsigned look_up(const Table& table, std::string_view word) {
  for (const auto& [name, number] : table)
    if (name == word)
      return number;
  return 0;
}

refusal parse(std::string_view text) {
  const auto middle = text.find('=');
  if (middle == text.npos)
    return {};
  return {look_up(calls, text.substr(0, middle)),
          look_up(errors, text.substr(middle + 1))};
}

bool install(const std::vector<refusal>& all) {
  std::vector<sock_filter> program{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
               static_cast<unsigned>(offsetof(seccomp_data, nr)))};
  for (const auto& x : all) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, x.call, 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | x.error));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<unsigned short>(program.size()),
                          program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
         && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<refusal> all;
  int i = 1;
  for (; i < argc && std::string_view{argv[i]} != "--"; ++i) {
    all.push_back(parse(argv[i]));
    if (all.back().call == 0 || all.back().error == 0) {
      std::fprintf(stderr, "refusing: %s: unknown\n", argv[i]);
      return 2;
    }
  }
  if (i + 1 >= argc)
    return 2;
  if (!install(all))
    return no_filter;
  ::execv(argv[i + 1], argv + i + 1);
  std::perror(argv[i + 1]);
  return 2;
}
