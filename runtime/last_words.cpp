#include "pup/runtime/last_words.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>
#include <system_error>

#include <sys/uio.h>
#include <unistd.h>

namespace pup {

namespace {

/// One line by one system call, so that others' lines do not get into it.
void write_line(std::initializer_list<const char*> parts) noexcept {
  constexpr std::size_t most = 8;
  iovec all[most];
  std::size_t count = 0;
  for (const auto* x : parts)
    if (count < most)
      all[count++] = {const_cast<char*>(x), std::strlen(x)};
  [[maybe_unused]] const auto written =
      ::writev(STDERR_FILENO, all, static_cast<int>(count));
}

/// The exception that is being handled, in words. Whether it is a shortage.
bool say_what_is_handled() noexcept {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    write_line({"pup: out of memory", remedy_of(ENOMEM), "\n"});
    return true;
  } catch (const std::system_error& x) {
    write_line({"pup: ", x.what(), remedy_of(error_of(x)), "\n"});
    return true;
  } catch (const std::exception& x) {
    write_line(
        {"pup: ends by an error that is not expected: ", x.what(), "\n"});
  } catch (...) {
    write_line({"pup: ends by an error that is not expected\n"});
  }
  return false;
}

[[noreturn]] void on_terminate() {
  // Destructors of what an error has left half made end here without it.
  const bool handled = std::current_exception() != nullptr;
  bool shortage = !handled && std::uncaught_exceptions() > 0;
  if (handled)
    shortage = say_what_is_handled();
  else if (shortage)
    write_line(
        {"pup: out of threads, memory or descriptors; raise ulimit -u, "
         "-v and -n\n"});
  if (!shortage)
    std::abort();
  // No destructor: other threads still run.
  ::_exit(1);
}

}  // namespace

const char* remedy_of(int error) noexcept {
  switch (error) {
    case EAGAIN:
      return "; raise ulimit -u, the limit of pids of the cgroup, or ulimit -v "
             "(threads need 8 MB each of it)";
    case ENOMEM:
      return "; raise ulimit -v, or the limit of memory of the container";
    case EMFILE:
      return "; raise ulimit -n";
    case ENFILE:
      return "; raise fs.file-max";
    case ENOSPC:
    case EDQUOT:
      return "; make room on the disk";
    default:
      return "";
  }
}

int error_of(const std::exception& x) noexcept {
  if (dynamic_cast<const std::bad_alloc*>(&x) != nullptr)
    return ENOMEM;
  if (const auto* y = dynamic_cast<const std::system_error*>(&x))
    return y->code().value();
  return 0;
}

void prepare_last_words() noexcept {
  std::set_terminate(on_terminate);
}

}  // namespace pup
