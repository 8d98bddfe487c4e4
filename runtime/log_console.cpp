#include "pup/runtime/log_console.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

log_console::log_console(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0)
    return;
  socket_ = S_ISSOCK(info.st_mode);
  terminal_ = ::isatty(fd) == 1;
  // A description of our own, where the kernel gives one, may be non-blocking
  // without making the shell's terminal so. A file never blocks, and a second
  // description would write at another offset.
  if (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode)) {
    const auto name = "/proc/self/fd/" + std::to_string(fd);
    file_.reset(
        ::open(name.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    return;
  }
  file_.reset(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

std::size_t log_console::put(std::string_view bytes) {
  std::size_t done = 0;
  while (file_ && done < bytes.size()) {
    const auto rest = bytes.substr(done);
    const auto n = socket_ ? ::send(file_.get(), rest.data(), rest.size(),
                                    MSG_DONTWAIT | MSG_NOSIGNAL)
                           : ::write(file_.get(), rest.data(), rest.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && errno == EAGAIN)
      break;
    if (n <= 0)
      return bytes.size();  // nobody is going to read it
    done += static_cast<std::size_t>(n);
  }
  return file_ ? done : bytes.size();
}

void log_console::write(std::string_view lines) {
  if (waiting_.empty() && unsaid_ == 0)
    lines.remove_prefix(put(lines));
  if (lines.empty())
    return;
  if (unsaid_ == 0 && waiting_.size() + lines.size() <= most_waiting_bytes) {
    waiting_.append(lines);
    return;
  }
  // A line whose beginning is out comes whole.
  const auto begun = waiting_.empty() ? lines.find('\n') + 1 : 0;
  waiting_.append(lines.substr(0, begun));
  lines.remove_prefix(begun);
  const auto n =
      static_cast<std::uint64_t>(std::count(lines.begin(), lines.end(), '\n'));
  dropped_ += n;
  unsaid_ += n;
}

void log_console::flush() {
  waiting_.erase(0, put(waiting_));
  if (!waiting_.empty())
    return;
  waiting_.shrink_to_fit();
  if (unsaid_ == 0)
    return;
  waiting_ = "pup: " + std::to_string(unsaid_)
             + " lines are not shown here, the reader is too slow; pup logs "
               "has them\n";
  unsaid_ = 0;
  waiting_.erase(0, put(waiting_));
}

void log_console::finish(int limit_ms) {
  for (flush(); !waiting_.empty(); flush()) {
    pollfd event{file_.get(), POLLOUT, 0};
    if (::poll(&event, 1, limit_ms) <= 0)
      return;
  }
}

}  // namespace pup
