// The data plane of one loop: bytes between clients and backends.
//
// An edge-triggered epoll set. Whoever owns the loop waits until descriptor()
// is readable and then calls process(); nothing here blocks. One engine for
// each thread, and nothing shared between them but counters, so more of them
// can serve one port through SO_REUSEPORT sockets.
//
// A connection has two sides, the client's (downstream) and the backend's
// (upstream), and two ways, each named by the side it comes from. It costs one
// record of at most 256 bytes. Bytes pass through one buffer shared by all
// connections; what the other side does not take is kept in memory of its own
// (never more than that buffer), and until it is gone nothing more is read. A
// way that fills the buffer twice in a row is bulky and goes through a pipe
// (splice), without a copy into this process.
//
// States of a connection:
//
//   connecting --(writable, byte)--> open --(both ends seen)--> gone
//       |  ^                          |
//       |  '---- next backend --------'   only before a byte was exchanged
//       v
//     parked --(publish)--> connecting; --(give_up_at)--> rejected
//
// A connect that fails, takes longer than connect_timeout or is reset before a
// byte was exchanged goes on with the next backend; the client sees nothing of
// it. When all have failed it is parked.
//
// Errors of one connection end that connection. Lack of descriptors or memory
// pauses accepting until a connection ends or 100 ms have passed; meanwhile
// clients wait in the kernel's queue.
#pragma once

#include "pup/runtime/fd.hpp"
#include "pup/runtime/picker.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/epoll.h>
#include <sys/socket.h>

namespace pup {

namespace bounds {
/// Bytes of the shared buffer, and most that one way keeps for a slow reader.
/// 64 KiB: larger ones leave the second-level cache (measured).
inline constexpr std::size_t buffer_bytes = 64 * 1024;
/// Most connections of one listener and loop that wait for a backend after
/// they were accepted; with full buffers they keep 64 MiB.
inline constexpr std::uint32_t parked = 1024;
/// Most pipes of one loop; at 1 MiB they reach the 64 MiB of pipe pages that an
/// unprivileged user has (pipe(7)). Bulky ways beyond it are copied.
inline constexpr std::size_t pipes = 64;
}  // namespace bounds

/// Connections of one life of one backend, counted by all loops.
class backend_counters {
public:
  explicit backend_counters(backend_id whose) : id(whose) {}

  const backend_id id;
  std::atomic<std::uint32_t> active{0};
  std::atomic<std::uint64_t> total{0};

  /// From now on the last connection's end is worth a fact. Returns whether
  /// there is none even now.
  [[nodiscard]] bool begin_drain() noexcept;
  void end_drain() noexcept;
  void count_up() noexcept;
  /// Returns whether this was the last connection of a draining backend.
  [[nodiscard]] bool count_down() noexcept;

private:
  enum class phase : std::uint8_t { serving, draining, drained };

  bool claim_drained() noexcept;

  std::atomic<phase> phase_{phase::serving};
};

/// What one loop did for one listener. Written by that loop only.
struct listener_counters {
  std::atomic<std::uint32_t> active{0};
  std::atomic<std::uint64_t> total{0};
  std::atomic<std::uint64_t> bytes_in{0};
  std::atomic<std::uint64_t> bytes_out{0};
  std::atomic<std::uint64_t> rejected{0};
};

/// A published backend set. All loops read the same one.
struct snapshot {
  backend_set set;
  /// Parallel to set.backends().
  std::vector<std::shared_ptr<backend_counters>> counters;
  /// Loops that have not applied it yet; drains begin with the last one, when
  /// no loop picks from an older set any more.
  mutable std::atomic<unsigned> loops_left{1};
};

/// Bounds of one listener on one loop; see cluster_spec for their meaning.
struct listener_limits {
  std::uint32_t max_connections = 0;
  std::chrono::milliseconds idle_timeout{0};
  std::chrono::milliseconds connect_timeout{5'000};
};

/// See the top of this file. Every function is for the loop's thread.
class engine {
public:
  using clock = std::chrono::steady_clock;
  /// Called in the middle of the engine's work: must not call it back.
  using on_drained = std::function<void(const std::string& key, backend_id)>;

  /// Throws std::system_error when the kernel gives no epoll descriptor.
  explicit engine(on_drained callback);
  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;
  /// Closes every listener and connection; no fact is reported.
  ~engine();

  /// Readable when process() has work.
  [[nodiscard]] int descriptor() const noexcept {
    return epoll_.get();
  }

  /// Handles what is ready, within a bound. Returns whether more is known to
  /// wait: then call again without waiting for descriptor().
  [[nodiscard]] bool process();

  /// When expire() wants to be called; none when no time matters. May be
  /// earlier than needed, never later.
  [[nodiscard]] std::optional<clock::time_point> next_deadline()
      const noexcept {
    return next_deadline_;
  }
  void expire();

  /// Makes the listener known, or replaces its limits. `counters` is taken
  /// the first time.
  void configure(const std::string& key, const listener_limits& limits,
                 std::shared_ptr<listener_counters> counters);
  /// Accepts from `socket` (non-blocking, listening) instead of the one before,
  /// which is closed after what is queued there was accepted, if anything can
  /// serve it. Without one: stops accepting.
  void listen(const std::string& key, unique_fd socket);
  void publish(const std::string& key, std::shared_ptr<const snapshot> next);
  /// Closes the connections of a listener.
  void cut(const std::string& key);
  /// Closes the socket; the name is free, connections go on.
  void forget(const std::string& key);

private:
  struct connection;
  struct way;
  struct listener;
  struct connection_list;
  class record_pool;
  class pipe_pool;

  enum side : std::uint8_t { downstream, upstream };
  static constexpr side opposite(side x) noexcept {
    return x == downstream ? upstream : downstream;
  }

  enum class outcome : std::uint8_t {
    moved,    // go on
    waiting,  // until the next event
    over,     // both ends seen and forwarded
    broken,   // a side failed
    refused,  // the backend failed before a byte was exchanged
  };

  struct handle {
    std::uint32_t index;
    std::uint16_t stamp;
    std::uint8_t kind;
  };

  // events
  void dispatch(const epoll_event& event);
  void on_connection_event(connection& c, side at, std::uint32_t events);
  connection* find(const handle& h);
  void continue_later(connection& c, side from);

  // accepting
  bool accept_from(listener& l);
  void admit(listener& l, unique_fd client, const sockaddr_storage& address);
  void update_accepting(listener& l);
  void pause_for_resources();
  void resume_after_pause();

  // connecting
  bool dial(connection& c, bool has_bytes);
  bool start_connect(connection& c, const backend& target, bool has_bytes);
  bool redial(connection& c);
  void park(connection& c);
  void unpark(listener& l);
  void confirm(connection& c);
  void leave_backend(connection& c);

  // moving bytes
  void settle(connection& c, outcome so_far);
  void place(connection& c);
  outcome pump(connection& c, side from);
  outcome flush_kept(connection& c, side from);
  outcome flush_pipe(connection& c, side from);
  outcome pull_copied(connection& c, side from);
  outcome pull_spliced(connection& c, side from);
  outcome push(connection& c, side from, std::size_t bytes);
  outcome forward_end(connection& c, side from);
  outcome read_failed(connection& c, side from);
  outcome write_failed(connection& c, side from);
  void keep(connection& c, side from, std::size_t begin, std::size_t end);
  void count_bytes(connection& c, side from, std::size_t bytes);
  void blocked(connection& c, side at);
  bool watch(connection& c, side at, std::uint32_t events, bool add);

  // ending
  void reset(connection& c);
  void reject(connection& c);
  void release(connection& c);
  void sweep();

  // time
  clock::time_point now();
  void want_deadline(clock::time_point when);
  void expire(listener& l, clock::time_point when);
  void expire_idle(listener& l, clock::time_point when);
  void recompute_deadline();

  listener& at(const std::string& key);

  on_drained on_drained_;
  unique_fd epoll_;
  std::unique_ptr<char[]> buffer_;
  std::unique_ptr<record_pool> records_;
  std::unique_ptr<pipe_pool> pipes_;
  // Index is part of the epoll handle; an empty place is reused.
  std::vector<std::unique_ptr<listener>> listeners_;
  std::map<std::string, listener*> by_key_;
  std::vector<handle> again_;
  std::vector<handle> running_;
  std::optional<clock::time_point> now_;
  std::optional<clock::time_point> next_deadline_;
  std::optional<clock::time_point> paused_until_;
  // Congestion control for loopback sockets; empty: the default is fine.
  std::string congestion_;
  std::string default_congestion_;
};

}  // namespace pup
