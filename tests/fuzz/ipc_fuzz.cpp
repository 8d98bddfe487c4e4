// Fuzzes the control socket: whatever a peer says first, or in the place of
// what a node says first, the next honest peer is served. The input is a
// conversation: each byte of `plan` chooses a frame, with what stands behind it
// as its body. Built and run by tests/fuzz/run.
#include "pup/runtime/ipc.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace {

using echo_actor =
    caf::typed_actor<caf::replies_to<std::string>::with<std::string>>;

void require(bool holds, const char* what) {
  if (holds)
    return;
  std::perror(what);
  std::abort();
}

/// The fuzzer's own clock ticks by a signal, which ends a call that waits.
template <class F>
auto uninterrupted(F call) {
  auto result = call();
  while (result < 0 && errno == EINTR)
    result = call();
  return result;
}

/// A supervisor's end, as long as the fuzzer runs.
struct server {
  server() {
    pup::configure(config, pup::ipc_role::server);
    sys = std::make_unique<caf::actor_system>(config);
    whom = sys->spawn([]() -> echo_actor::behavior_type {
      return {[](std::string& x) { return std::move(x); }};
    });
    auto made = pup::publish(*sys, path, whom);
    require(static_cast<bool>(made), "publish");
    published = std::move(*made);
  }

  std::string path = "/tmp/pup-fuzz-" + std::to_string(::getpid()) + ".sock";
  caf::actor_system_config config;
  std::unique_ptr<caf::actor_system> sys;
  echo_actor whom;
  pup::publication published;
};

int dial(const std::string& path) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  path.copy(to.sun_path, sizeof to.sun_path - 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  require(fd >= 0 && uninterrupted([&] {
                       return ::connect(fd, reinterpret_cast<sockaddr*>(&to),
                                        sizeof to);
                     }) == 0,
          "connect");
  return fd;
}

/// What the server says first; shorter when it has nothing to say.
std::string hear(int fd) {
  std::string result;
  std::size_t wanted = 32;
  while (result.size() < wanted) {
    pollfd event{fd, POLLIN, 0};
    char buffer[4096];
    if (uninterrupted([&] { return ::poll(&event, 1, 10'000); }) != 1)
      break;
    const auto n =
        uninterrupted([&] { return ::recv(fd, buffer, sizeof buffer, 0); });
    if (n <= 0)
      break;
    result.append(buffer, static_cast<std::size_t>(n));
    if (result.size() >= 32)
      wanted = 32U + static_cast<unsigned char>(result[6]) * 256U
               + static_cast<unsigned char>(result[7]);
  }
  return result;
}

std::string frame(unsigned type, std::uint64_t operation, std::string_view body,
                  std::size_t announced) {
  std::string result(32, '\0');
  result[0] = static_cast<char>(type);
  for (int i = 0; i < 4; ++i)
    result[static_cast<std::size_t>(7 - i)] =
        static_cast<char>(announced >> (8 * i));
  for (int i = 0; i < 8; ++i)
    result[static_cast<std::size_t>(15 - i)] =
        static_cast<char>(operation >> (8 * i));
  return result + std::string{body};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  // Never destroyed: an actor system waits for the actors that CAF 0.17 has
  // made for peers that never existed.
  static auto& it = *new server;
  std::string_view plan{reinterpret_cast<const char*>(data), size};
  const int fd = dial(it.path);
  const auto hello = hear(fd);
  require(hello.size() > 32, "an honest peer is not greeted");
  std::string said;
  while (!plan.empty()) {
    const auto what = static_cast<unsigned char>(plan.front());
    plan.remove_prefix(1);
    const auto body = plan.substr(0, what & 0x0F ? 4U * (what & 0x0F) : 200);
    switch (what >> 4) {
      case 0:  // as it is
        said += body;
        break;
      case 1: {  // our own introduction, with another number
        auto words = hello.substr(32);
        words[9] = static_cast<char>(what);
        for (std::size_t i = 0; i < std::min(body.size(), words.size()); ++i)
          words[i] = static_cast<char>(words[i] ^ (i > 8 ? body[i] : 0));
        said += frame(1, 0, words, words.size());
        break;
      }
      case 2:  // a length that is not true
        said += frame(what & 7, 0, body, body.size() << (what & 7));
        break;
      case 3:  // a message with forged bits
        said +=
            frame(2 + (what & 1), std::uint64_t{what} << 56, body, body.size());
        break;
      default:
        said += frame(what >> 4, what & 1, body, body.size());
    }
    plan.remove_prefix(body.size());
  }
  ::send(fd, said.data(), said.size(), MSG_NOSIGNAL);
  ::shutdown(fd, SHUT_WR);
  char buffer[4096];
  while (uninterrupted([&] { return ::recv(fd, buffer, sizeof buffer, 0); })
         > 0) {}
  ::close(fd);
  return 0;
}
