#include "pup/runtime/guard_protocol.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <type_traits>

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace pup::guard {

namespace {

// A packet whose message lies in its last descriptor.
constexpr std::uint8_t enclosed = 0xFF;

// -- the shape of each message ------------------------------------------------

// clang-format off
auto fields(auto&& f, auto& x, const welcome*) {
  return f(x.version, x.guardian, x.last_number, x.predecessors, x.last_end,
           x.refusal);
}
auto fields(auto&& f, auto& x, const inherited*) {
  return f(x.number, x.key, x.life, x.pid, x.age_ms, x.mark, x.launching,
           x.ending_ms);
}
auto fields(auto&& f, auto& x, const held*) { return f(x.what); }
auto fields(auto&& f, auto& x, const noted*) { return f(x.name, x.bytes); }
auto fields(auto&& f, auto&, const complete*) { return f(); }
auto fields(auto&& f, auto& x, const started*) {
  return f(x.number, x.pid);
}
auto fields(auto&& f, auto& x, const start_failed*) {
  return f(x.number, x.call, x.object, x.code);
}
auto fields(auto&& f, auto& x, const leader_end*) {
  return f(x.pid, x.code, x.signal, x.core, x.memory, x.cpu_us, x.max_rss_kb);
}
auto fields(auto&& f, auto& x, const leader_ended*) {
  return f(x.number, x.how, x.left, x.left_example);
}
auto fields(auto&& f, auto& x, const ended*) {
  return f(x.number, x.how, x.killed, x.killed_example, x.strays, x.gone);
}
auto fields(auto&& f, auto& x, const strays*) { return f(x.all); }
auto fields(auto&& f, auto& x, const start*) {
  return f(x.number, x.key, x.life, x.request, x.hold);
}
auto fields(auto&& f, auto& x, const signal*) { return f(x.number, x.signo); }
auto fields(auto&& f, auto& x, const stop*) { return f(x.number, x.signo); }
auto fields(auto&& f, auto& x, const mark*) { return f(x.number, x.bytes); }
auto fields(auto&& f, auto& x, const forget*) { return f(x.number); }
auto fields(auto&& f, auto& x, const hold*) { return f(x.what); }
auto fields(auto&& f, auto& x, const drop*) { return f(x.name); }
auto fields(auto&& f, auto& x, const note*) { return f(x.name, x.bytes); }
auto fields(auto&& f, auto&, const ready*) { return f(); }
auto fields(auto&& f, auto& x, const away*) { return f(x.output); }
auto fields(auto&& f, auto& x, const tell*) { return f(x.text); }
auto fields(auto&& f, auto&, const aside*) { return f(); }
auto fields(auto&& f, auto& x, const farewell*) { return f(x.exit_code); }
auto fields(auto&& f, auto& x, const named_descriptor*) {
  return f(x.name, x.what);
}
auto fields(auto&& f, auto& x, const identity*) {
  return f(x.uid, x.gid, x.groups, x.name);
}
auto fields(auto&& f, auto& x, const resource_limit*) {
  return f(x.resource, x.soft, x.hard);
}
auto fields(auto&& f, auto& x, const io_priority*) {
  return f(x.kind, x.level);
}
auto fields(auto&& f, auto& x, const cgroup_limits*) {
  return f(x.memory_bytes, x.cpu_percent, x.processes);
}
// clang-format on

// A member that is the number of a descriptor.
template <class Int>
struct descriptor_number {
  explicit descriptor_number(Int& x) : value(x) {}
  Int& value;
};

// These name all members: one that is added does not compile until it is listed
// here.
auto fields(auto&& f, auto& x, const process_attributes*) {
  auto& [run_as, limits, nice, oom_score_adjust, io, umask, no_new_privileges,
         cgroup] = x;
  return f(run_as, limits, nice, oom_score_adjust, io, umask, no_new_privileges,
           cgroup);
}
auto fields(auto&& f, auto& x, const spawn_request*) {
  auto& [argv, environment, cwd, stdin_fd, stdout_fd, stderr_fd, listen_fds,
         ready_fd, attributes, cgroup_folder, program] = x;
  descriptor_number in{stdin_fd};
  descriptor_number out{stdout_fd};
  descriptor_number err{stderr_fd};
  descriptor_number readiness{ready_fd};
  return f(argv, environment, cwd, in, out, err, listen_fds, readiness,
           attributes, cgroup_folder, program);
}

// -- writing ------------------------------------------------------------------

class writer {
public:
  explicit writer(outgoing& to) : to_(to) {}

  template <class T>
  void put(const T& x) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>)
      to_.bytes.append(reinterpret_cast<const char*>(&x), sizeof(x));
    else
      fields([this](const auto&... xs) { (put(xs), ...); }, x,
             static_cast<const T*>(nullptr));
  }

  void put(const std::string& x) {
    put(static_cast<std::uint32_t>(x.size()));
    to_.bytes += x;
  }

  void put(const descriptor& x) {
    if (x.fd >= 0)
      to_.descriptors.push_back(x.fd);
    put(x.fd < 0 ? 0U : static_cast<std::uint32_t>(to_.descriptors.size()));
  }

  template <class Int>
  void put(const descriptor_number<Int>& x) {
    put(descriptor{x.value});
  }

  template <class T>
  void put(const std::optional<T>& x) {
    put(x.has_value());
    if (x)
      put(*x);
  }

  template <class T>
  void put(const std::vector<T>& xs) {
    put(static_cast<std::uint32_t>(xs.size()));
    for (const auto& x : xs)
      if constexpr (std::is_same_v<T, int>)  // of listening sockets
        put(descriptor{x});
      else
        put(x);
  }

private:
  outgoing& to_;
};

// -- reading ------------------------------------------------------------------

class reader {
public:
  explicit reader(const packet& from) : from_(from), rest_(from.bytes) {}

  [[nodiscard]] bool at_end() const {
    return rest_.empty();
  }

  template <class T>
  bool get(T& x) {
    if constexpr (std::is_same_v<T, bool>) {
      std::uint8_t byte = 0;
      if (!get(byte) || byte > 1)
        return false;
      x = byte == 1;
      return true;
    } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      if (rest_.size() < sizeof(x))
        return false;
      std::memcpy(&x, rest_.data(), sizeof(x));
      rest_.remove_prefix(sizeof(x));
      return true;
    } else {
      return fields([this](auto&... xs) { return (get(xs) && ...); }, x,
                    static_cast<const T*>(nullptr));
    }
  }

  bool get(std::string& x) {
    std::uint32_t size = 0;
    if (!get(size) || size > rest_.size())
      return false;
    x = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }

  bool get(descriptor& x) {
    std::uint32_t place = 0;
    if (!get(place))
      return false;
    x.fd = -1;
    if (place == 0)
      return true;
    if (place > from_.descriptors.size())
      return from_.truncated;
    x.fd = from_.descriptors[place - 1].get();
    return true;
  }

  bool get(descriptor_number<int>& x) {
    descriptor one;
    const bool good = get(one);
    x.value = one.fd;
    return good;
  }

  template <class T>
  bool get(std::optional<T>& x) {
    bool there = false;
    if (!get(there))
      return false;
    return !there || get(x.emplace());
  }

  template <class T>
  bool get(std::vector<T>& xs) {
    std::uint32_t count = 0;
    // Each element takes four bytes at least: no room is made for a lie.
    if (!get(count) || count > rest_.size() / sizeof(count))
      return false;
    xs.resize(count);
    for (auto& x : xs) {
      if constexpr (std::is_same_v<T, int>) {
        descriptor one;
        if (!get(one))
          return false;
        x = one.fd;
      } else if (!get(x)) {
        return false;
      }
    }
    return true;
  }

private:
  const packet& from_;
  std::string_view rest_;
};

template <std::size_t I = 1>
message decode_as(std::uint8_t kind, reader& from) {
  if constexpr (I < std::variant_size_v<message>) {
    if (kind != I)
      return decode_as<I + 1>(kind, from);
    std::variant_alternative_t<I, message> x;
    if (from.get(x) && from.at_end())
      return x;
  }
  return {};
}

// -- the socket ---------------------------------------------------------------

using control_block =
    std::array<char, CMSG_SPACE(most_descriptors * sizeof(int))>;

unique_fd memory_file(const std::string& bytes) {
  unique_fd file{::memfd_create("pup", MFD_CLOEXEC)};
  std::string_view rest = bytes;
  while (file && !rest.empty()) {
    const auto n = ::write(file.get(), rest.data(), rest.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return unique_fd{};
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  return file;
}

bool read_all(int file, std::string& to) {
  struct stat info {};
  if (::fstat(file, &info) != 0 || info.st_size < 1
      || static_cast<std::size_t>(info.st_size) > most_enclosed_bytes)
    return false;
  to.resize(static_cast<std::size_t>(info.st_size));
  for (std::size_t done = 0; done < to.size();) {
    const auto n = ::pread(file, to.data() + done, to.size() - done,
                           static_cast<off_t>(done));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

send_result send_packet(int socket, std::string_view bytes,
                        const std::vector<int>& descriptors) {
  alignas(cmsghdr) control_block control{};
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!descriptors.empty()) {
    const auto size = descriptors.size() * sizeof(int);
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(size);
    auto* head = CMSG_FIRSTHDR(&header);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(head), descriptors.data(), size);
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(socket, &header, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0)
    return send_result::sent;
  return errno == EAGAIN || errno == EWOULDBLOCK ? send_result::would_block
                                                 : send_result::broken;
}

}  // namespace

outgoing encode(const message& x) {
  outgoing result;
  writer to{result};
  to.put(static_cast<std::uint8_t>(x.index()));
  std::visit(
      [&to]<class T>(const T& y) {
        if constexpr (!std::is_same_v<T, std::monostate>)
          to.put(y);
      },
      x);
  return result;
}

unique_fd packet::take(descriptor x) {
  const auto i =
      std::find_if(descriptors.begin(), descriptors.end(),
                   [x](const unique_fd& y) { return y && y.get() == x.fd; });
  return i == descriptors.end() ? unique_fd{} : std::move(*i);
}

message decode(const packet& x) {
  reader from{x};
  std::uint8_t kind = 0;
  if (!from.get(kind))
    return {};
  return decode_as(kind, from);
}

send_result send(int socket, const outgoing& x) {
  if (x.bytes.size() > most_enclosed_bytes
      || x.descriptors.size() >= most_descriptors) {
    errno = E2BIG;
    return send_result::broken;
  }
  if (x.bytes.size() <= most_packet_bytes)
    return send_packet(socket, x.bytes, x.descriptors);
  const auto file = memory_file(x.bytes);
  if (!file)
    return send_result::broken;
  auto descriptors = x.descriptors;
  descriptors.push_back(file.get());
  const auto mark = static_cast<char>(enclosed);
  return send_packet(socket, {&mark, 1}, descriptors);
}

receive_result receive(int socket, packet& x) {
  x = {};
  alignas(cmsghdr) control_block control;
  // Not cleared: as a rule a few bytes of it are used.
  std::array<char, most_packet_bytes> bytes;
  iovec part{bytes.data(), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t size = 0;
  do {
    size = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0)
    return errno == EAGAIN || errno == EWOULDBLOCK ? receive_result::would_block
                                                   : receive_result::closed;
  for (auto* head = CMSG_FIRSTHDR(&header); head != nullptr;
       head = CMSG_NXTHDR(&header, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
      continue;
    const auto count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof(int));
      x.descriptors.emplace_back(fd);
    }
  }
  if (size == 0)  // no message of ours is empty
    return receive_result::closed;
  x.bytes.assign(bytes.data(), static_cast<std::size_t>(size));
  x.truncated = (header.msg_flags & MSG_CTRUNC) != 0;
  if ((header.msg_flags & MSG_TRUNC) != 0)
    return receive_result::broken;
  if (static_cast<std::uint8_t>(x.bytes.front()) != enclosed)
    return receive_result::received;
  if (x.descriptors.empty())
    return receive_result::broken;
  const auto file = std::move(x.descriptors.back());
  x.descriptors.pop_back();
  return read_all(file.get(), x.bytes) ? receive_result::received
                                       : receive_result::broken;
}

}  // namespace pup::guard
