#include "pup/runtime/ports.hpp"

#include "pup/runtime/descendants.hpp"
#include "pup/runtime/fd.hpp"
#include "pup/runtime/sock_diag.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string_view>
#include <vector>

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace pup {

namespace {

struct socket_inodes {
  std::set<std::string> listening;
  std::set<std::string> other;
};

// One line of /proc/net/tcp: "sl local:PORT remote:PORT state tx:rx tr:when
// retransmits uid timeout inode ..."; ports and states in hexadecimal.
void collect(const std::string& line, std::uint16_t port, socket_inodes& into) {
  std::istringstream words{line};
  std::string slot, local, remote, state, skipped, inode;
  words >> slot >> local >> remote >> state;
  for (int i = 0; i < 5; ++i)
    words >> skipped;
  words >> inode;
  const auto colon = local.rfind(':');
  if (!words || colon == std::string::npos || inode == "0")
    return;
  unsigned found = 0;
  std::from_chars(local.data() + colon + 1, local.data() + local.size(), found,
                  16);
  if (found != port)
    return;
  constexpr std::string_view listen_state = "0A";
  (state == listen_state ? into.listening : into.other)
      .insert("socket:[" + inode + ']');
}

socket_inodes inodes_on(std::uint16_t port) {
  socket_inodes found;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream lines{table};
    std::string line;
    std::getline(lines, line);  // the heading
    while (std::getline(lines, line))
      collect(line, port, found);
  }
  return found;
}

std::set<std::string> sockets_on(std::uint16_t port) {
  auto found = inodes_on(port);
  return found.listening.empty() ? found.other : found.listening;
}

struct close_folder {
  void operator()(DIR* folder) const noexcept {
    ::closedir(folder);
  }
};

std::vector<std::string> names_in(const std::string& path) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, close_folder> folder{::opendir(path.c_str())};
  if (!folder)  // ended meanwhile, or another user's
    return names;
  while (const auto* entry = ::readdir(folder.get()))
    names.emplace_back(entry->d_name);
  return names;
}

std::vector<pid_t> all_pids() {
  auto pids = all_processes();
  std::sort(pids.begin(), pids.end());
  return pids;
}

/// Those of `sockets` that the process has open, none of them twice.
std::set<std::string> sockets_of(pid_t pid,
                                 const std::set<std::string>& sockets) {
  std::set<std::string> result;
  const auto folder = "/proc/" + std::to_string(pid) + "/fd";
  for (const auto& name : names_in(folder)) {
    char target[64];
    const auto size =
        ::readlink((folder + '/' + name).c_str(), target, sizeof(target));
    if (size <= 0)
      continue;
    std::string link(target, static_cast<std::size_t>(size));
    if (sockets.contains(link))
      result.insert(std::move(link));
  }
  return result;
}

/// 0: it has ended.
pid_t group_of(pid_t pid) {
  const auto group = ::getpgid(pid);
  return group > 0 ? group : 0;
}

// As /proc/PID/fd spells them.
std::set<std::string> connections_on(std::uint16_t port) {
  const auto known = open_connections(port);
  if (!known)
    return inodes_on(port).other;
  std::set<std::string> result;
  for (const auto inode : *known)
    result.insert("socket:[" + std::to_string(inode) + ']');
  return result;
}

struct candidate {
  const char* text;
  int family;
};

// In the order in which a person would look for the culprit.
constexpr candidate candidates[] = {{"0.0.0.0", AF_INET},
                                    {"127.0.0.1", AF_INET},
                                    {"::", AF_INET6},
                                    {"::1", AF_INET6}};

socklen_t fill(sockaddr_storage& storage, const candidate& where,
               std::uint16_t port) {
  storage.ss_family = static_cast<sa_family_t>(where.family);
  if (where.family == AF_INET) {
    auto& address = reinterpret_cast<sockaddr_in&>(storage);
    address.sin_port = htons(port);
    ::inet_pton(AF_INET, where.text, &address.sin_addr);
    return sizeof(sockaddr_in);
  }
  auto& address = reinterpret_cast<sockaddr_in6&>(storage);
  address.sin6_port = htons(port);
  ::inet_pton(AF_INET6, where.text, &address.sin6_addr);
  return sizeof(sockaddr_in6);
}

// The errno of trying; 0 when it can be bound or cannot be told.
int try_bind(const candidate& where, std::uint16_t port) {
  const unique_fd socket{
      ::socket(where.family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP)};
  if (!socket)
    return errno == EAFNOSUPPORT ? 0 : errno;
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  // Else [::] would ask about IPv4 once more.
  if (where.family == AF_INET6)
    ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  sockaddr_storage storage{};
  const auto size = fill(storage, where, port);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&storage), size)
      == 0)
    return 0;
  return errno == EADDRNOTAVAIL || errno == EACCES ? 0 : errno;
}

}  // namespace

std::optional<port_holder> find_port_holder(std::uint16_t port) {
  const auto sockets = sockets_on(port);
  if (sockets.empty())
    return std::nullopt;
  for (const auto pid : all_pids()) {
    if (sockets_of(pid, sockets).empty())
      continue;
    port_holder holder{pid, "?"};
    std::ifstream file{"/proc/" + std::to_string(pid) + "/comm"};
    std::getline(file, holder.name);
    return holder;
  }
  return std::nullopt;
}

std::vector<std::uint32_t> count_connections(std::uint16_t port,
                                             std::span<const pid_t> groups) {
  std::vector<std::uint32_t> result(groups.size());
  const auto sockets = connections_on(port);
  if (sockets.empty())
    return result;
  // Several processes of a group may share one connection.
  std::vector<std::set<std::string>> held(groups.size());
  for (const auto pid : all_pids()) {
    const auto found = std::find(groups.begin(), groups.end(), group_of(pid));
    if (found != groups.end())
      held[static_cast<std::size_t>(found - groups.begin())].merge(
          sockets_of(pid, sockets));
  }
  std::transform(held.begin(), held.end(), result.begin(), [](const auto& x) {
    return static_cast<std::uint32_t>(x.size());
  });
  return result;
}

std::optional<std::vector<std::string>> places_of(pid_t pid) {
  const auto all = listening_sockets();
  if (!all)
    return std::nullopt;
  std::map<std::string, std::string> places;  // by the spelling of /proc
  std::set<std::string> sockets;
  for (const auto& [inode, x] : *all) {
    const auto link = "socket:[" + std::to_string(inode) + ']';
    const auto is_ipv6 = x.address.find(':') != std::string::npos;
    places[link] = (is_ipv6 ? '[' + x.address + ']' : x.address) + ':'
                   + std::to_string(x.port);
    sockets.insert(link);
  }
  std::set<std::string> result;
  auto family = descendants_of(pid);
  family.push_back(pid);
  for (const auto x : family)
    for (const auto& link : sockets_of(x, sockets))
      result.insert(places.at(link));
  return std::vector<std::string>{result.begin(), result.end()};
}

std::string describe_port_in_use(std::uint16_t port) {
  auto text = "port " + std::to_string(port) + " is in use";
  if (const auto holder = find_port_holder(port))
    text +=
        " by pid " + std::to_string(holder->pid) + " (" + holder->name + ')';
  return text;
}

std::optional<std::string> port_obstacle(std::uint16_t port) {
  for (const auto& where : candidates) {
    const int error = try_bind(where, port);
    if (error == EADDRINUSE)
      return describe_port_in_use(port);
    if (error != 0)
      return to_string(os_fault{
          "bind", std::string{where.text} + " port " + std::to_string(port),
          error});
  }
  return std::nullopt;
}

}  // namespace pup
