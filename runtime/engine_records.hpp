// What one connection and one listener are made of, and where their records
// come from. Seen by the engine's own files only.
#pragma once

#include "pup/runtime/engine.hpp"
#include "pup/runtime/engine_pipes.hpp"

#include <algorithm>
#include <cassert>
#include <deque>
#include <optional>
#include <string>
#include <utility>

namespace pup {

/// Idle connections are looked for this often within one idle timeout, so one
/// is closed after 1 to 1.125 times the timeout.
inline constexpr std::uint8_t idle_ticks = 8;

/// engine::handle::kind of what is no connection; that of one is a side.
inline constexpr std::uint8_t kind_listener = 2;
inline constexpr std::uint8_t kind_bell = 3;
inline constexpr std::uint8_t kind_probe = 4;

/// What is asked of epoll for each socket of a connection, always. EPOLLPRI: a
/// read stops at urgent data although there is more behind it.
inline constexpr std::uint32_t readable_events =
    EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET;

struct engine::way {
  pipe_ends pipe;
  std::unique_ptr<char[]> kept;
  std::uint32_t kept_begin = 0;
  std::uint32_t kept_end = 0;
  std::uint32_t in_pipe = 0;
  std::uint8_t full_reads = 0;
  std::uint8_t empty_reads = 0;
  bool readable : 1 = false;
  // FIN announced by epoll: what can be read is all there will be.
  bool end_announced : 1 = false;
  // Urgent data or an error: a short read does not mean that there is no more.
  bool doubtful : 1 = false;
  // FIN read.
  bool end_seen : 1 = false;
  bool end_forwarded : 1 = false;
  bool bulky : 1 = false;
  bool queued : 1 = false;

  [[nodiscard]] bool holds_bytes() const noexcept {
    return kept_end > kept_begin || in_pipe > 0;
  }
};

enum class phase : std::uint8_t { unplaced, connecting, open, parked };

struct engine::connection {
  // Stay with the record for ever.
  std::uint32_t index = 0;
  // Of this use of the record and of this attempt to connect: an event that
  // names another one is late and is dropped.
  std::uint16_t stamps[2] = {0, 0};

  phase at = phase::unplaced;
  bool used = false;
  // The backend has accepted.
  bool confirmed = false;
  // A byte or FIN went to or came from the backend: no other may serve.
  bool committed = false;
  bool failing = false;
  // What the client says next may be small and would wait for an answer to
  // what is under way (Nagle): TCP_NODELAY is set for the backend. Not before,
  // as many connections send once.
  bool prompt = false;
  // The PROXY header has not been sent to this backend.
  bool header_due = false;
  // The time to the first byte is taken.
  bool timed = false;
  bool writable[2] = {true, true};
  // EPOLLOUT is asked for.
  bool armed[2] = {false, false};
  // Idle ticks since the last event.
  std::uint8_t quiet = 0;
  unique_fd fds[2]{unique_fd{}, unique_fd{}};
  way ways[2];
  listener* owner = nullptr;
  std::shared_ptr<backend_state> served_by;
  // Only after a failure; most connections never have one.
  std::unique_ptr<std::vector<backend_id>> tried;
  connection* previous = nullptr;
  connection* next = nullptr;
  // listener_state::readmissions when the first backend of this round was
  // tried.
  std::uint32_t round = 0;
  // Of the current attempt.
  clock::time_point deadline{};
  // When to stop looking for a backend.
  clock::time_point give_up_at{};
  // When the backend was asked: dialled, or, if that was before the client had
  // spoken, sent the client's first bytes, less the time of the connect.
  clock::time_point asked_at{};
  std::uint32_t connect_us = 0;
  endpoint client;
};

struct engine::connection_list {
  connection* first = nullptr;
  connection* last = nullptr;
  std::uint32_t size = 0;

  void push_back(connection& c) noexcept {
    c.previous = last;
    c.next = nullptr;
    (last ? last->next : first) = &c;
    last = &c;
    ++size;
  }

  void erase(connection& c) noexcept {
    (c.previous ? c.previous->next : first) = c.next;
    (c.next ? c.next->previous : last) = c.previous;
    c.previous = c.next = nullptr;
    --size;
  }
};

/// What the picker sees of the set in use.
class engine::shared_loads final : public load_view {
public:
  explicit shared_loads(const listener& of) : of_(of) {}

  std::uint32_t active(std::size_t index) const override;
  void count(std::size_t index) override;
  bool count_if(std::size_t index, std::uint32_t seen) override;
  bool ejected(std::size_t index) const override;
  bool any_ejected() const override;
  double response_time(std::size_t index) const override;
  std::uint64_t turn() const override;
  bool take_turn(std::uint64_t seen, std::uint64_t next) override;

  // Of the choice that is made.
  clock::time_point now{};

private:
  const listener& of_;
};

/// A socket that was replaced, until all who asked it are served.
struct retired_socket {
  engine::socket_pointer socket;
  /// Set when it was empty.
  std::optional<engine::clock::time_point> close_at{};
};

/// Clients in a listening socket's queue, one after the other.
struct queued_clients {
  engine::clock::time_point give_up_at;
  std::uint32_t count = 0;
};

struct engine::listener {
  std::uint32_t index = 0;
  std::uint16_t stamp = 0;
  std::string key;
  socket_pointer socket;
  // Others hold the socket too.
  bool adopted = false;
  // The socket is in the epoll set, to accept or only to be told who comes.
  bool accepting = false;
  bool watching = false;
  // Who came while no backend was eligible.
  std::deque<queued_clients> waiting;
  bool draining_retired = false;
  // There was no place for another connection; all loops together have them.
  bool full = false;
  std::vector<retired_socket> retired;
  bool forgotten = false;
  listener_limits limits;
  std::shared_ptr<listener_counters> counters;
  std::shared_ptr<listener_state> shared;
  std::shared_ptr<const snapshot> backends;
  picker choose;
  shared_loads loads{*this};
  connection_list connecting;
  connection_list open;
  connection_list parked;
  // Connections in no list at the moment included.
  std::uint32_t active = 0;
  std::optional<clock::time_point> idle_tick;
  // listener_state::readmissions that those who wait have tried.
  std::uint32_t readmissions_seen = 0;

  explicit listener(picker::random_source random)
      : counters(std::make_shared<listener_counters>()),
        shared(std::make_shared<listener_state>()),
        backends(std::make_shared<snapshot>()),
        choose(std::move(random)) {}

  connection_list& list_of(phase x) noexcept {
    assert(x != phase::unplaced);
    return x == phase::connecting ? connecting
           : x == phase::open     ? open
                                  : parked;
  }

  [[nodiscard]] std::chrono::milliseconds tick_period() const noexcept {
    return std::max<std::chrono::milliseconds>(limits.idle_timeout / idle_ticks,
                                               std::chrono::milliseconds(1));
  }
};

inline std::uint32_t engine::shared_loads::active(std::size_t index) const {
  return of_.backends->states[index]->active.load(std::memory_order_relaxed);
}

inline void engine::shared_loads::count(std::size_t index) {
  of_.backends->states[index]->count_up();
}

inline bool engine::shared_loads::count_if(std::size_t index,
                                           std::uint32_t seen) {
  return of_.backends->states[index]->count_up_if(seen);
}

inline bool engine::shared_loads::ejected(std::size_t index) const {
  return of_.backends->states[index]->is_ejected();
}

inline bool engine::shared_loads::any_ejected() const {
  return of_.shared->ejected.load(std::memory_order_relaxed) > 0;
}

inline double engine::shared_loads::response_time(std::size_t index) const {
  return of_.backends->states[index]->response_us(now);
}

inline std::uint64_t engine::shared_loads::turn() const {
  return of_.shared->turn.load(std::memory_order_relaxed);
}

inline bool engine::shared_loads::take_turn(std::uint64_t seen,
                                            std::uint64_t next) {
  return of_.shared->turn.compare_exchange_strong(seen, next,
                                                  std::memory_order_relaxed);
}

/// Waits to connect to an ejected backend, or does.
struct engine::probe {
  listener* owner = nullptr;
  std::shared_ptr<backend_state> whose;
  endpoint address;
  // When to connect, or to give it up.
  clock::time_point due{};
  unique_fd fd{};
  std::uint16_t stamp = 0;
};

/// Records in chunks, so that addresses are stable, an index finds one and the
/// allocator's overhead is spread. Freed ones are reused, never returned.
class engine::record_pool {
public:
  connection& take() {
    if (free_.empty())
      grow();
    auto& c = at(free_.back());
    free_.pop_back();
    c.used = true;
    return c;
  }

  void give_back(connection& c) {
    const auto index = c.index;
    const std::uint16_t stamps[] = {c.stamps[0], c.stamps[1]};
    c = connection{};
    c.index = index;
    c.stamps[0] = static_cast<std::uint16_t>(stamps[0] + 1);
    c.stamps[1] = static_cast<std::uint16_t>(stamps[1] + 1);
    free_.push_back(index);
  }

  connection& at(std::uint32_t index) noexcept {
    return chunks_[index / chunk_size][index % chunk_size];
  }

private:
  static constexpr std::uint32_t chunk_size = 64;

  void grow() {
    static_assert(sizeof(connection) <= 256);
    const auto begin = static_cast<std::uint32_t>(chunks_.size()) * chunk_size;
    chunks_.push_back(std::make_unique<connection[]>(chunk_size));
    free_.reserve(begin + chunk_size);
    for (auto i = begin + chunk_size; i-- > begin;) {
      at(i).index = i;
      free_.push_back(i);
    }
  }

  std::vector<std::unique_ptr<connection[]>> chunks_;
  std::vector<std::uint32_t> free_;
};

}  // namespace pup
