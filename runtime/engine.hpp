// The data plane of one loop: bytes between clients and backends.
//
// An edge-triggered epoll set. Whoever owns the loop waits until descriptor()
// is readable and then calls process(); nothing here blocks. One engine for
// each thread; more of them can serve one port through SO_REUSEPORT sockets.
// They share counts, turns and health (engine_shared.hpp), by atomic operations
// only, and ring each other's bell when one has something for another.
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
// it. When all have failed it is parked. A backend that failed so is ejected
// (backend_state): others are tried before it, until it accepts again. When all
// are ejected they are tried all the same: a client that waits has nothing to
// lose by it, and is served the sooner.
//
// While no backend is eligible clients stay in the kernel's queue, where not
// even the end of this process loses them; after ready_timeout they are
// accepted and closed.
//
// With a PROXY header a backend gets it together with the client's first bytes
// if these can be read when it has accepted, alone otherwise. There is no
// timer: a client that speaks first has mostly done so by then, and the server
// of one that does not must not wait.
//
// Errors of one connection end that connection. Lack of descriptors or memory
// pauses accepting until a connection ends or 100 ms have passed; meanwhile
// clients wait in the kernel's queue. Some descriptors are left to the rest of
// this process.
#pragma once

#include "pup/runtime/engine_shared.hpp"
#include "pup/runtime/fd.hpp"
#include "pup/runtime/proxy_facts.hpp"
#include "pup/runtime/proxy_header.hpp"

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
/// Descriptors that connections leave to the rest of this process, or a
/// sixteenth of all if that is less: commands come in and processes are started
/// however many clients there are.
inline constexpr int spare_descriptors = 64;
}  // namespace bounds

/// Bounds of one listener on one loop; see cluster_spec for their meaning.
struct listener_limits {
  std::uint32_t max_connections = 0;
  std::chrono::milliseconds idle_timeout{0};
  std::chrono::milliseconds connect_timeout{5'000};
  std::chrono::milliseconds ready_timeout{60'000};
  proxy_header header = proxy_header::none;
};

class pipe_pool;

/// See the top of this file. Every function is for the loop's thread.
class engine {
public:
  using clock = std::chrono::steady_clock;
  /// Called in the middle of the engine's work: must not call it back.
  using on_fact = std::function<void(proxy_fact)>;
  /// Who only looks at a socket (how many wait in it) keeps a weak pointer.
  using socket_pointer = std::shared_ptr<const unique_fd>;

  /// `index` is the loop's among those of `bells`. Throws std::system_error
  /// when the kernel gives no epoll descriptor.
  engine(on_fact callback, std::shared_ptr<loop_bells> bells, unsigned index);
  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;
  /// Closes every listener and connection; no fact is reported.
  ~engine();

  /// Waits until something is ready, this loop's bell has rung, or expire() has
  /// something to do; then handles what is ready, within a bound.
  void process();

  /// Handles what time alone brings about. Cheap when nothing is due.
  void expire();

  /// Makes the listener known, or replaces its limits. `counters` and `state`
  /// are the same ones each time; all loops get the same state.
  void configure(const std::string& key, const listener_limits& limits,
                 std::shared_ptr<listener_counters> counters,
                 std::shared_ptr<listener_state> state);
  /// Accepts from `socket` (non-blocking, listening) instead of the one before,
  /// which is closed once all that is queued there was accepted. Without one:
  /// stops accepting; what is queued is accepted if it can be served now, and
  /// reset with the close if not.
  void listen(const std::string& key, socket_pointer socket);
  /// The same with a listening socket that other processes hold as well: it is
  /// never changed for good, and what is queued when accepting stops stays
  /// queued for them.
  void adopt(const std::string& key, socket_pointer socket);
  /// Stops accepting; what is queued stays queued for whoever else holds the
  /// socket.
  void let_go(const std::string& key);
  void publish(const std::string& key, std::shared_ptr<const snapshot> next);
  /// Closes the connections of a listener.
  void cut(const std::string& key);
  /// Closes the socket; the name is free, connections go on.
  void forget(const std::string& key);
  /// let_go() of all; `f` is called once, when no listener has a connection,
  /// here or later. Facts go to `callback` from now on.
  void finish(std::function<void()> f, on_fact callback);

private:
  // engine_records.hpp, engine_pipes.hpp
  struct connection;
  struct way;
  struct listener;
  struct probe;
  struct connection_list;
  class record_pool;
  class shared_loads;

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
  void look_around();
  int patience();
  void look(listener& l);
  void begin_drains(listener& l);
  void on_connection_event(connection& c, side at, std::uint32_t events);
  connection* find(const handle& h);
  void continue_later(connection& c, side from);

  // accepting
  [[nodiscard]] bool may_accept(const listener& l) const;
  bool accept_from(listener& l, int socket);
  bool take_place(listener& l);
  void leave_place(listener& l);
  void offer_place(listener& l);
  void replace_socket(listener& l, socket_pointer socket, bool adopted);
  void stop_accepting(listener& l);
  void drain_retired(listener& l);
  static bool somebody_waits(const listener& l);
  void admit(listener& l, unique_fd client, const sockaddr_storage& address);
  void update_accepting(listener& l);
  void note_arrivals(listener& l);
  void turn_away(listener& l, clock::time_point when);
  void read_limit() noexcept;
  void pause_for_resources();
  void resume_after_pause();

  // connecting
  bool dial(connection& c, bool has_bytes);
  bool start_connect(connection& c, const backend& target, bool has_bytes);
  bool redial(connection& c);
  void park(connection& c);
  void unpark(listener& l);
  void confirm(connection& c);
  void connected_early(connection& c);
  void leave_backend(connection& c);

  // health
  void suspect(connection& c, int error);
  void readmit(listener& l, backend_state& whose);
  void start_probing(listener& l, const backend& target,
                     std::shared_ptr<backend_state> whose);
  void choose_probes(listener& l, bool last);
  void drop_probes(const listener& l);
  void run_probes(clock::time_point when);
  void run(probe& x, std::uint32_t index);
  void on_probe_event(const handle& h);
  void probe_failed(probe& x);

  // moving bytes
  void settle(connection& c, outcome so_far);
  void place(connection& c);
  outcome pump(connection& c, side from);
  outcome flush_kept(connection& c, side from);
  outcome flush_pipe(connection& c, side from);
  outcome pull_copied(connection& c, side from);
  outcome pull_spliced(connection& c, side from);
  outcome push(connection& c, side from, std::size_t bytes);
  outcome nothing_to_read(connection& c, side from);
  outcome send_header(connection& c, int flags);
  std::string_view header_of(const connection& c, header_buffer& into) const;
  void sent_upstream(connection& c);
  void answered(connection& c);
  outcome forward_end(connection& c, side from);
  outcome read_failed(connection& c, side from);
  outcome write_failed(connection& c, side from);
  void keep(connection& c, side from, const char* bytes, std::size_t size);
  void count_bytes(connection& c, side from, std::size_t bytes);
  void blocked(connection& c, side at);
  bool watch(connection& c, side at, std::uint32_t events, bool add);

  // ending
  void reset(connection& c);
  void reject(connection& c);
  void release(connection& c);
  void sweep();
  void tell_if_empty();

  // time
  clock::time_point now();
  void want_deadline(clock::time_point when);
  void expire(listener& l, clock::time_point when);
  void expire_idle(listener& l, clock::time_point when);
  void recompute_deadline();

  listener& at(const std::string& key);

  /// The shared buffer; a header fits in front of it.
  [[nodiscard]] char* buffer() const noexcept {
    return storage_.get() + sizeof(header_buffer);
  }

  on_fact on_fact_;
  std::shared_ptr<loop_bells> bells_;
  unsigned index_;
  unique_fd epoll_;
  std::unique_ptr<char[]> storage_;
  std::unique_ptr<record_pool> records_;
  std::unique_ptr<pipe_pool> pipes_;
  std::function<void()> on_empty_;
  // Index is part of the epoll handle; an empty place is reused.
  std::vector<std::unique_ptr<listener>> listeners_;
  std::map<std::string, listener*> by_key_;
  // Something may be possible that was not: look_around() before waiting.
  bool attention_ = false;
  // By index, as listeners_; the stamp tells one use of a place from the next.
  std::vector<std::unique_ptr<probe>> probes_;
  std::uint16_t probe_stamp_ = 0;
  // errno of the attempt that failed last.
  int failure_ = 0;
  std::vector<handle> again_;
  std::vector<handle> running_;
  std::optional<clock::time_point> now_;
  std::optional<clock::time_point> next_deadline_;
  std::optional<clock::time_point> paused_until_;
  // Connections pause when one gets this number or a higher one.
  int scarce_from_ = 0;
  // Congestion control for loopback sockets; empty: the default is fine.
  std::string congestion_;
  std::string default_congestion_;
};

}  // namespace pup
