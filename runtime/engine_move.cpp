// Moving bytes between the two sides of a connection.
#include "pup/runtime/engine_records.hpp"
#include "pup/runtime/engine_sockets.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

namespace pup {

namespace {

/// Buffers or pipes moved for one way before other events get their turn.
constexpr int moves_in_a_row = 16;
/// Full buffers in a row that make a way bulky, and reads that find nothing
/// that make it small again.
constexpr std::uint8_t bulky_after = 2;
constexpr std::uint8_t small_after = 8;

}  // namespace

/// Draws the consequence of what happened to a connection. It may be parked or
/// gone afterwards.
void engine::settle(connection& c, outcome so_far) {
  for (;;) {
    switch (so_far) {
      case outcome::moved:
        so_far = pump(c, downstream);
        break;
      case outcome::waiting:
        return place(c);
      case outcome::over:
        return release(c);
      case outcome::broken:
        return reset(c);
      case outcome::refused:
        if (!redial(c))
          return;
        so_far = outcome::moved;
        break;
    }
  }
}

/// Moves bytes one way until a side has to be waited for.
engine::outcome engine::pump(connection& c, side from) {
  auto& w = c.ways[from];
  for (int i = 0; i < moves_in_a_row; ++i) {
    auto result = flush_kept(c, from);
    if (result == outcome::moved)
      result = flush_pipe(c, from);
    if (result != outcome::moved)
      return result;
    if (w.end_seen)
      return forward_end(c, from);
    // Nothing is read that cannot be passed on: that is the back-pressure.
    if (!c.writable[opposite(from)])
      return outcome::waiting;
    if (!w.readable)
      return nothing_to_read(c, from);
    result = w.bulky ? pull_spliced(c, from) : pull_copied(c, from);
    if (result == outcome::waiting && !w.readable)
      return nothing_to_read(c, from);
    if (result != outcome::moved)
      return result;
  }
  continue_later(c, from);
  return outcome::waiting;
}

engine::outcome engine::flush_kept(connection& c, side from) {
  auto& w = c.ways[from];
  const auto to = opposite(from);
  while (w.kept_begin < w.kept_end) {
    if (!c.writable[to])
      return outcome::waiting;
    if (to == upstream && c.header_due) {
      const auto result = send_header(c, MSG_MORE);
      if (result != outcome::moved)
        return result;
      continue;
    }
    const auto n = ::send(c.fds[to].get(), w.kept.get() + w.kept_begin,
                          w.kept_end - w.kept_begin, MSG_NOSIGNAL);
    if (n < 0) {
      if (!would_block(errno))
        return write_failed(c, from);
      blocked(c, to);
      return outcome::waiting;
    }
    w.kept_begin += static_cast<std::uint32_t>(n);
    if (to == upstream)
      sent_upstream(c);
  }
  w.kept.reset();
  w.kept_begin = w.kept_end = 0;
  return outcome::moved;
}

engine::outcome engine::flush_pipe(connection& c, side from) {
  auto& w = c.ways[from];
  const auto to = opposite(from);
  while (w.in_pipe > 0) {
    if (!c.writable[to])
      return outcome::waiting;
    const auto n = ::splice(w.pipe.out.get(), nullptr, c.fds[to].get(), nullptr,
                            w.in_pipe, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (n < 0) {
      if (!would_block(errno))
        return write_failed(c, from);
      blocked(c, to);
      return outcome::waiting;
    }
    w.in_pipe -= static_cast<std::uint32_t>(n);
  }
  return outcome::moved;
}

engine::outcome engine::pull_copied(connection& c, side from) {
  auto& w = c.ways[from];
  const auto n = ::recv(c.fds[from].get(), buffer(), bounds::buffer_bytes, 0);
  if (n < 0) {
    if (!would_block(errno))
      return read_failed(c, from);
    w.readable = false;
    return outcome::waiting;
  }
  if (from == upstream) {
    if (c.timed && n > 0)
      answered(c);
    c.committed = true;
    if (!c.confirmed)
      confirm(c);
  }
  if (n == 0) {
    w.end_seen = true;
    return outcome::moved;
  }
  if (from == downstream && c.committed && !std::exchange(c.prompt, true))
    set_option(c.fds[upstream].get(), IPPROTO_TCP, TCP_NODELAY, 1);
  const auto bytes = static_cast<std::size_t>(n);
  count_bytes(c, from, bytes);
  if (bytes < bounds::buffer_bytes) {
    w.full_reads = 0;
    // A short read emptied the socket (epoll(7)): a call saved, and another if
    // FIN is all that is left.
    w.readable = w.doubtful;
    w.end_seen = w.end_announced && !w.doubtful;
  } else if (++w.full_reads >= bulky_after) {
    // splice moves pages instead of copying twice: a fourth of the CPU time.
    w.bulky = true;
    w.empty_reads = 0;
  }
  return push(c, from, bytes);
}

engine::outcome engine::pull_spliced(connection& c, side from) {
  auto& w = c.ways[from];
  if (!w.pipe.in) {
    w.pipe = pipes_->take();
    if (!w.pipe.in) {
      w.bulky = false;
      w.full_reads = 0;
      return pull_copied(c, from);
    }
  }
  const auto n = ::splice(c.fds[from].get(), nullptr, w.pipe.in.get(), nullptr,
                          1 << 20, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
  if (n > 0) {
    w.in_pipe = static_cast<std::uint32_t>(n);
    count_bytes(c, from, w.in_pipe);
    if (w.in_pipe > bounds::buffer_bytes / 4)
      w.empty_reads = 0;
    return outcome::moved;
  }
  const int error = errno;
  // The pipe is empty here: another way can use it.
  pipes_->give_back(std::exchange(w.pipe, {}), true);
  if (n == 0) {
    w.end_seen = true;
    return outcome::moved;
  }
  if (!would_block(error)) {
    errno = error;
    return read_failed(c, from);
  }
  w.readable = false;
  if (++w.empty_reads >= small_after) {
    w.bulky = false;
    w.full_reads = 0;
  }
  return outcome::waiting;
}

/// Sends what is in the shared buffer and keeps the rest.
engine::outcome engine::push(connection& c, side from, std::size_t bytes) {
  auto& w = c.ways[from];
  const auto to = opposite(from);
  const char* begin = buffer();
  if (to == upstream && c.header_due) {
    header_buffer text;
    const auto header = header_of(c, text);
    begin -= header.size();
    std::memcpy(buffer() - header.size(), header.data(), header.size());
  }
  const char* const end = buffer() + bytes;
  // FIN follows at once: it and the last bytes share a segment.
  const int more = w.end_announced ? MSG_MORE : 0;
  auto n = ::send(c.fds[to].get(), begin, static_cast<std::size_t>(end - begin),
                  MSG_NOSIGNAL | more);
  if (n < 0 && !would_block(errno)) {
    const int error = errno;
    // Nothing was taken, so another backend can have all of it.
    if (to == upstream && !c.committed)
      keep(c, from, buffer(), bytes);
    errno = error;
    return write_failed(c, from);
  }
  if (n > 0) {
    // Once a part of the header was taken, the rest is bytes like all others.
    begin += n;
    if (to == upstream) {
      c.header_due = false;
      sent_upstream(c);
    }
  } else {
    begin = buffer();
  }
  if (begin < end) {
    keep(c, from, begin, static_cast<std::size_t>(end - begin));
    blocked(c, to);
  }
  return outcome::moved;
}

void engine::keep(connection& c, side from, const char* bytes,
                  std::size_t size) {
  if (size == 0)
    return;
  auto& w = c.ways[from];
  w.kept.reset(new char[size]);
  std::memcpy(w.kept.get(), bytes, size);
  w.kept_begin = 0;
  w.kept_end = static_cast<std::uint32_t>(size);
}

// -- header and time ----------------------------------------------------------

std::string_view engine::header_of(const connection& c,
                                   header_buffer& into) const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  std::optional<connection_ends> ends;
  if (::getsockname(c.fds[downstream].get(),
                    reinterpret_cast<sockaddr*>(&address), &length)
      == 0)
    ends = {c.client, endpoint_of(address)};
  return write_header(into, c.owner->limits.header, ends);
}

/// Nothing to read at the moment: the header need not wait for bytes.
engine::outcome engine::nothing_to_read(connection& c, side from) {
  if (from != downstream || !c.header_due || !c.confirmed)
    return outcome::waiting;
  const auto result = send_header(c, 0);
  return result == outcome::moved ? outcome::waiting : result;
}

/// Alone. It commits to nothing: another backend would get one of its own.
engine::outcome engine::send_header(connection& c, int flags) {
  header_buffer text;
  const auto header = header_of(c, text);
  const auto n = ::send(c.fds[upstream].get(), header.data(), header.size(),
                        MSG_NOSIGNAL | flags);
  if (n < 0 && would_block(errno)) {
    blocked(c, upstream);
    return outcome::waiting;
  }
  if (n < 0)
    return write_failed(c, downstream);
  // The socket has taken nothing before; one without room for these few bytes
  // is of no use.
  if (static_cast<std::size_t>(n) < header.size()) {
    failure_ = ENOBUFS;
    return outcome::refused;
  }
  c.header_due = false;
  return outcome::moved;
}

void engine::sent_upstream(connection& c) {
  if (c.timed && c.confirmed && !c.committed)
    c.asked_at = clock::now() - std::chrono::microseconds(c.connect_us);
  c.committed = true;
  if (!c.confirmed)
    confirm(c);
}

void engine::answered(connection& c) {
  c.timed = false;
  const auto at = clock::now();
  c.served_by->answered(at - c.asked_at, at);
}

// -- ends and errors ----------------------------------------------------------

engine::outcome engine::forward_end(connection& c, side from) {
  auto& w = c.ways[from];
  const auto to = opposite(from);
  // shutdown(2) would call off a connect that is under way.
  if (to == upstream && !c.confirmed)
    return outcome::waiting;
  if (to == upstream && c.header_due) {
    const auto result = send_header(c, MSG_MORE);
    if (result != outcome::moved)
      return result;
  }
  // close(2) sends the second FIN by itself: a call saved.
  if (c.ways[to].end_forwarded)
    return outcome::over;
  if (!w.end_forwarded && ::shutdown(c.fds[to].get(), SHUT_WR) != 0)
    return write_failed(c, from);
  w.end_forwarded = true;
  return outcome::waiting;
}

engine::outcome engine::read_failed(connection& c, side from) {
  failure_ = errno;
  return from == upstream && !c.committed ? outcome::refused : outcome::broken;
}

engine::outcome engine::write_failed(connection& c, side from) {
  failure_ = errno;
  const auto to = opposite(from);
  if (to == upstream && !c.committed)
    return outcome::refused;
  // Whoever does not listen any more may have answered before: a server that
  // refuses a long upload resets it after its answer.
  if (!std::exchange(c.failing, true)) {
    c.ways[to].readable = true;
    (void)pump(c, to);
  }
  return outcome::broken;
}

void engine::blocked(connection& c, side at) {
  c.writable[at] = false;
  // Asked for only now: most connections never block, and save the event
  // that an idle socket's writability would cause.
  if (!std::exchange(c.armed[at], true) && c.fds[at])
    (void)watch(c, at, readable_events | EPOLLOUT, false);
}

void engine::count_bytes(connection& c, side from, std::size_t bytes) {
  auto& counters = *c.owner->counters;
  add(from == downstream ? counters.bytes_in : counters.bytes_out,
      std::uint64_t{bytes});
}

}  // namespace pup
