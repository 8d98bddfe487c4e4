#include "pup/runtime/output.hpp"

#include "pup/config/plain_text.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace pup {

namespace {

enum class output_state { sound, unread, broken };

// Of standard output, of which a process has one; as ferror(stdout).
output_state& state() {
  static auto result = output_state::sound;
  return result;
}

// Writes, or waits until that is possible; 0 or the error.
int write_some(std::string_view& text) {
  const auto n = ::write(STDOUT_FILENO, text.data(), text.size());
  if (n >= 0) {
    text.remove_prefix(static_cast<std::size_t>(n));
    return 0;
  }
  if (errno == EAGAIN) {
    pollfd event{STDOUT_FILENO, POLLOUT, 0};
    return ::poll(&event, 1, -1) < 0 && errno != EINTR ? errno : 0;
  }
  return errno == EINTR ? 0 : errno;
}

void fail(int error) {
  if (error == EPIPE) {
    state() = output_state::unread;
    return;
  }
  state() = output_state::broken;
  complain("pup: standard output: cannot be written: "
           + std::generic_category().message(error)
           + "; send it somewhere else");
}

}  // namespace

void prepare_output(bool answers) {
  for (const auto fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
      continue;
    const auto unusable = fd == STDIN_FILENO ? O_WRONLY : O_RDONLY;
    // The lowest free number, and that is this one.
    static_cast<void>(::open("/dev/null", answers ? unusable : O_RDWR));
  }
  if (answers)
    std::signal(SIGPIPE, SIG_IGN);
}

bool print(std::string_view text) {
  while (state() == output_state::sound && !text.empty())
    if (const auto error = write_some(text); error != 0)
      fail(error);
  return state() == output_state::sound;
}

bool shows_colours() {
  const auto* no_colour = std::getenv("NO_COLOR");
  return ::isatty(STDOUT_FILENO) == 1
         && (no_colour == nullptr || *no_colour == '\0');
}

bool wait_for_input(int fd) {
  std::array<pollfd, 2> events{pollfd{fd, POLLIN, 0},
                               pollfd{STDOUT_FILENO, 0, 0}};
  while (::poll(events.data(), events.size(), -1) < 0)
    if (errno != EINTR) {
      complain("pup: poll: " + std::generic_category().message(errno));
      state() = output_state::broken;
      return false;
    }
  return (events[1].revents & (POLLERR | POLLHUP | POLLNVAL)) == 0;
}

exit_code complain(const std::string& line, exit_code code) {
  std::fprintf(stderr, "%s\n", shown(line).c_str());
  return code;
}

exit_code complain(const std::vector<diagnostic>& faults) {
  for (const auto& x : faults)
    complain(to_string(x));
  return exit_code::usage;
}

void complain_lines(const std::string& lines) {
  std::fputs(shown_lines(lines).c_str(), stderr);
}

exit_code after_output(exit_code code) {
  return state() == output_state::broken && code == exit_code::done
             ? exit_code::failed
             : code;
}

}  // namespace pup
