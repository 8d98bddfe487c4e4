// The control protocol over a Unix socket: publish a typed actor, connect to
// it, call it.
//
// There is no second schema: both sides exchange the messages of
// actors/protocol.hpp through CAF's own BASP broker. CAF 0.17.6 only knows TCP
// sockets, so ipc.cpp brings the accepting and the connected end itself; it is
// the only file that sees caf/io.
//
// Who may talk: BASP trusts its peer completely (it may message any registered
// actor). Both ends therefore ask the kernel who the other one is (SO_PEERCRED)
// and talk only to the same user or root. Frames are looked at before CAF sees
// them, because a malformed one would crash it. A publication is no boundary
// against programs of the same user, only against their accidents.
//
// Errors are caf::error values. Those made here carry an ipc_errc and one line
// of text (see ipc_code, ipc_text); what the called actor answers as an error
// comes back as it is.
#pragma once

#include "pup/actors/caf.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <utility>

namespace pup {

/// Version of the protocol. Peers with another one are refused while they shake
/// hands. Changes with protocol_version of actors/protocol.hpp.
std::string ipc_protocol();

/// Largest message in bytes. A status of 4096 processes needs about 2 MiB.
inline constexpr std::uint32_t ipc_frame_bytes = 16u << 20;

/// Largest message of a peer that has not introduced itself. The handshake of a
/// client has some 100 bytes.
inline constexpr std::uint32_t ipc_stranger_bytes = 4u << 10;

/// Most peers connected to one publication at once. A further one takes the
/// place of the oldest that has not introduced itself, or is closed.
/// Far above the commands a person or script runs together, far below the
/// usual 1024 descriptors, which the supervised processes need too.
inline constexpr std::size_t ipc_peers = 256;

enum class ipc_errc : std::uint8_t {
  none = 0,
  nobody_there,          ///< no socket, or nobody listens on it any more
  not_permitted,         ///< the file's mode, or the server is another user's
  incompatible_version,  ///< the other side speaks another ipc_protocol
  wrong_interface,       ///< the published actor is of another type
  timed_out,             ///< it did not answer in time (stopped, overloaded)
  connection_lost,       ///< it ended, or closed the connection on us
  path_too_long,         ///< more than socket_path_bytes
  system,                ///< a system call failed
};

/// `text` is one line: object, what is wrong, what to do.
caf::error make_error(ipc_errc code, std::string text);

/// The code of an error made here; empty for all others and for no error.
std::optional<ipc_errc> ipc_code(const caf::error& x);

/// Its text; empty when ipc_code(x) is.
std::string ipc_text(const caf::error& x);

enum class ipc_role {
  server,  ///< two scheduler threads: one slow handler does not stop the rest
  client,  ///< one: a command starts faster
};

/// Sets scheduler and middleman up for pup and loads the middleman. Reads
/// neither arguments nor files. Call before the actor system is made.
void configure(caf::actor_system_config& config, ipc_role role);

/// An actor that can be reached through a socket file. Move-only; must be
/// destroyed before its actor system. Not thread-safe.
class publication {
public:
  publication() noexcept;
  publication(publication&&) noexcept;
  publication& operator=(publication&&) noexcept;
  /// Removes the socket file if it is still this publication's. Connected
  /// peers stay connected until the actor ends.
  ~publication();

  /// From now on new peers get `whom`, which may be a newly started actor of
  /// the same or another type. Peers of the former actor see it go down when
  /// it ends. No connection is refused meanwhile.
  template <class Handle>
  void republish(const Handle& whom) {
    auto& sys = whom->home_system();
    replace(caf::actor_cast<caf::strong_actor_ptr>(whom),
            sys.message_types(caf::detail::type_list<Handle>{}));
  }

  [[nodiscard]] explicit operator bool() const noexcept {
    return state_ != nullptr;
  }

private:
  struct state;
  friend caf::expected<publication> publish_actor(caf::actor_system&,
                                                  const std::string&,
                                                  caf::strong_actor_ptr,
                                                  std::set<std::string>);
  void replace(caf::strong_actor_ptr whom, std::set<std::string> types);

  std::unique_ptr<state> state_;
};

/// See publish(); `types` are the message types `whom` accepts.
caf::expected<publication> publish_actor(caf::actor_system& sys,
                                         const std::string& socket_path,
                                         caf::strong_actor_ptr whom,
                                         std::set<std::string> types);

/// Makes `whom` reachable at `socket_path` (mode 0600). The file appears
/// complete and replaces one that is there: the caller holds the lock of the
/// folder (place.hpp), so that can only be a stale one. CAF keeps `whom` alive
/// until it terminates: end it by an exit message. Blocks until the broker has
/// it, well under a millisecond. Errors: path_too_long, system.
template <class Handle>
caf::expected<publication> publish(caf::actor_system& sys,
                                   const std::string& socket_path,
                                   const Handle& whom) {
  return publish_actor(sys, socket_path,
                       caf::actor_cast<caf::strong_actor_ptr>(whom),
                       sys.message_types(caf::detail::type_list<Handle>{}));
}

/// See connect(); `types` are the message types the actor must accept.
caf::expected<caf::strong_actor_ptr> connect_actor(
    caf::actor_system& sys, const std::string& socket_path,
    const std::set<std::string>& types, std::chrono::milliseconds timeout);

/// Connects to a published actor. Blocks at most about `timeout`; not for use
/// inside an actor. Errors: every ipc_errc, each with a remedy in its text.
template <class Handle>
caf::expected<Handle> connect(caf::actor_system& sys,
                              const std::string& socket_path,
                              std::chrono::milliseconds timeout) {
  auto found = connect_actor(
      sys, socket_path, sys.message_types(caf::detail::type_list<Handle>{}),
      timeout);
  if (!found)
    return std::move(found.error());
  return caf::actor_cast<Handle>(std::move(*found));
}

namespace detail {

/// Rewrites CAF's own words for a lost or silent peer as ipc_errc.
caf::error call_error(caf::error why);

/// What `Handle` answers to `Ts...`; void for an empty answer.
template <class Handle, class... Ts>
struct answer_of {
  using arguments =
      caf::detail::type_list<caf::detail::strip_and_convert_t<Ts>...>;
  using results =
      typename caf::response_type_unbox<caf::signatures_of_t<Handle>,
                                        arguments>::type;
  static_assert(caf::detail::tl_size<results>::value <= 1,
                "answers of several values are not supported");
  using type =
      std::conditional_t<caf::detail::tl_size<results>::value == 0, void,
                         caf::detail::tl_head_t<std::conditional_t<
                             caf::detail::tl_size<results>::value == 0,
                             caf::detail::type_list<void>, results>>>;
};

/// Where the asking actor leaves the answer; empty while there is none.
template <class Value>
using answer_slot = std::optional<caf::expected<Value>>;

}  // namespace detail

/// Sends `xs...` to `peer` and waits for its answer: at most `timeout`, and not
/// a moment longer than the peer lives (a plain request of CAF 0.17 waits for
/// its timeout when the connection breaks). Blocks; not for use inside an
/// actor. Each call has its own address, so an answer that comes after its
/// timeout is never taken for the next call's. Errors: the peer's own;
/// timed_out, connection_lost.
template <class Handle, class... Ts>
auto call(caf::actor_system& sys, const Handle& peer,
          std::chrono::milliseconds timeout, Ts... xs) {
  using value = typename detail::answer_of<Handle, Ts...>::type;
  detail::answer_slot<value> answer;
  caf::scoped_actor waiter{sys};
  // The references stay valid: this function waits for the actor's end, and
  // the request's timeout makes sure that there is one.
  auto asker = sys.spawn<caf::hidden>([&](caf::event_based_actor* self) {
    auto failed = [self, &answer](caf::error& why) {
      answer.emplace(detail::call_error(std::move(why)));
      self->quit();
    };
    self->set_down_handler([self](caf::down_msg& down) {
      // Urgent, so it may have overtaken an answer: look behind it.
      self->send(self, std::move(down.reason));
    });
    self->set_error_handler([failed](caf::error& why) {
      if (!why)
        why = caf::sec::request_receiver_down;
      failed(why);
    });
    monitor_for_life(self, peer);
    auto asked = self->request(peer, timeout, std::move(xs)...);
    if constexpr (std::is_void_v<value>)
      asked.then(
          [self, &answer] {
            answer.emplace();
            self->quit();
          },
          failed);
    else
      asked.then(
          [self, &answer](value& x) {
            answer.emplace(std::move(x));
            self->quit();
          },
          failed);
  });
  waiter->wait_for(asker);
  if (!answer)
    answer.emplace(detail::call_error(caf::sec::request_receiver_down));
  return std::move(*answer);
}

}  // namespace pup
