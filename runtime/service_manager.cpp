#include "pup/runtime/service_manager.hpp"

#include "pup/runtime/fd.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace pup {

namespace {

constexpr std::array<std::string_view, 6> service_variables{
    "NOTIFY_SOCKET",  "LISTEN_FDS",    "LISTEN_PID",
    "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"};

}  // namespace

void tell_service_manager(const std::string& state) {
  const auto* name = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  if (name == nullptr || (name[0] != '/' && name[0] != '@')
      || std::strlen(name) >= sizeof(address.sun_path))
    return;
  const auto size = std::strlen(name);
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, name, size);
  if (name[0] == '@')
    address.sun_path[0] = '\0';  // the abstract namespace
  const unique_fd socket{
      ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!socket)
    return;
  static_cast<void>(
      ::sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address),
               static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + size)));
}

std::vector<unique_fd> take_service_sockets() {
  // From here on, by the protocol.
  constexpr int first = 3;
  const auto number = [](const char* name) {
    const auto* text = std::getenv(name);
    int result = 0;
    if (text != nullptr)
      std::from_chars(text, text + std::strlen(text), result);
    return result;
  };
  std::vector<unique_fd> result;
  if (number("LISTEN_PID") == ::getpid())
    for (int fd = first; fd - first < number("LISTEN_FDS"); ++fd) {
      if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        break;  // more were promised than passed
      result.emplace_back(fd);
    }
  for (const auto* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"})
    ::unsetenv(name);
  return result;
}

bool is_service_variable(std::string_view name) {
  return std::find(service_variables.begin(), service_variables.end(), name)
         != service_variables.end();
}

std::vector<std::string> without_service_variables(
    std::vector<std::string> environment) {
  std::erase_if(environment, [](std::string_view entry) {
    return is_service_variable(entry.substr(0, entry.find('=')));
  });
  return environment;
}

}  // namespace pup
