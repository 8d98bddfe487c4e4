#include "pup/runtime/carriers.hpp"

#include "pup/runtime/guardian_link.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <list>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>

#include <sys/socket.h>
#include <unistd.h>

namespace pup {

namespace asio = boost::asio;

namespace {

/// With the carrier's pid behind it: what the guardian holds.
constexpr const char* prefix = "carrier/";

constexpr const char* drain_word = "drain";
constexpr const char* drained_word = "drained";

/// One life of an instance: cluster, slot, life.
using backend_name = std::tuple<std::string, std::uint32_t, std::uint64_t>;

std::string packet_of(const char* word, const backend_name& x) {
  return word + (' ' + std::to_string(std::get<1>(x))) + ' '
         + std::to_string(std::get<2>(x)) + ' ' + std::get<0>(x);
}

std::optional<backend_name> parse(const std::string& packet, const char* word) {
  std::istringstream words{packet};
  std::string first;
  backend_name result;
  words >> first >> std::get<1>(result) >> std::get<2>(result)
      >> std::get<0>(result);
  if (!words || first != word)
    return std::nullopt;
  return result;
}

/// Packets both ways, on one loop.
class channel {
public:
  struct events {
    std::function<void(const std::string&)> packet;
    /// Nobody is at the other end. The last event; the channel may be gone
    /// after it.
    std::function<void()> end;
  };

  channel(asio::io_context& loop, unique_fd socket, events to)
      : socket_(loop, socket.release()), to_(std::move(to)) {
    // Shared with other processes: a send or receive says itself what it wants.
    wait();
  }

  void send(std::string packet) {
    waiting_.push_back(std::move(packet));
    if (waiting_.size() == 1)
      flush();
  }

private:
  void wait() {
    socket_.async_wait(asio::posix::stream_descriptor::wait_read,
                       [this](const boost::system::error_code& error) {
                         if (error != asio::error::operation_aborted)
                           receive();
                       });
  }

  void receive() {
    std::array<char, 512> buffer;
    const auto n = ::recv(socket_.native_handle(), buffer.data(), buffer.size(),
                          MSG_DONTWAIT);
    if (n > 0)
      to_.packet({buffer.data(), static_cast<std::size_t>(n)});
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
      return std::exchange(to_.end, {})();
    wait();
  }

  void flush() {
    while (!waiting_.empty()) {
      const auto& next = waiting_.front();
      if (::send(socket_.native_handle(), next.data(), next.size(),
                 MSG_DONTWAIT | MSG_NOSIGNAL)
              < 0
          && errno == EAGAIN)
        return socket_.async_wait(
            asio::posix::stream_descriptor::wait_write,
            [this](const boost::system::error_code& error) {
              if (error != asio::error::operation_aborted)
                flush();
            });
      waiting_.pop_front();  // what cannot be sent: receive() finds the end
    }
  }

  asio::posix::stream_descriptor socket_;
  events to_;
  std::deque<std::string> waiting_;
};

}  // namespace

// -- the successor ------------------------------------------------------------

/// Used on the loop alone, once it is made.
class carriers::impl {
public:
  impl(std::map<std::string, unique_fd>& held,
       std::function<void(const std::string&)> drop)
      : drop_(std::move(drop)) {
    for (auto& [name, socket] : take_held(held, prefix)) {
      all_.emplace_back().name = name;
      all_.back().socket = std::move(socket);
    }
  }

  void begin(asio::io_context& loop) {
    for (auto& x : all_)
      x.to.emplace(
          loop, std::move(x.socket),
          channel::events{[this, &x](const std::string& packet) {
                            if (const auto which = parse(packet, drained_word))
                              free(x, *which);
                          },
                          [this, &x] { forget(x); }});
  }

  void drain(const backend_name& which, std::function<void()> then) {
    if (all_.empty())
      return then();
    auto& x = drains_.emplace_back(drain_of{which, {}, std::move(then)});
    for (auto& y : all_) {
      x.left.insert(&y);
      y.to->send(packet_of(drain_word, which));
    }
  }

private:
  struct carrier_of {
    std::string name;
    unique_fd socket{};  // until `to` has it
    std::optional<channel> to{};
  };
  struct drain_of {
    backend_name which;
    std::set<const carrier_of*> left;
    std::function<void()> then;
  };

  void free(const carrier_of& x, const backend_name& which) {
    finish([&](drain_of& y) {
      if (y.which == which)
        y.left.erase(&x);
    });
  }

  void forget(carrier_of& x) {
    drop_(x.name);
    finish([&](drain_of& y) { y.left.erase(&x); });
    all_.remove_if([&](const carrier_of& y) { return &y == &x; });
  }

  template <class Function>
  void finish(Function f) {
    for (auto i = drains_.begin(); i != drains_.end();) {
      f(*i);
      if (i->left.empty()) {
        i->then();
        i = drains_.erase(i);
      } else {
        ++i;
      }
    }
  }

  const std::function<void(const std::string&)> drop_;
  std::list<carrier_of> all_;
  std::list<drain_of> drains_;
};

carriers::carriers(asio::io_context& loop,
                   std::map<std::string, unique_fd>& held,
                   std::function<void(const std::string&)> drop)
    : loop_(loop), impl_(std::make_shared<impl>(held, std::move(drop))) {
  // There: one may have ended already, and the loop may run.
  asio::post(loop_, [x = impl_, &loop] { x->begin(loop); });
}

carriers::~carriers() {
  asio::post(loop_, [x = std::move(impl_)] {});
}

void carriers::drain(const std::string& key, std::uint32_t slot,
                     std::uint64_t life, std::function<void()> then) {
  asio::post(loop_, [x = impl_, which = backend_name{key, slot, life},
                     then = std::move(then)]() mutable {
    x->drain(which, std::move(then));
  });
}

// -- who carries --------------------------------------------------------------

class carrier::impl {
public:
  explicit impl(
      const std::function<void(const std::string& name, int fd)>& hold) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
      return;
    const unique_fd theirs{ends[1]};
    to_.emplace(
        loop_, unique_fd{ends[0]},
        channel::events{[this](const std::string& packet) { take(packet); },
                        [] {
                          // nobody can ask any more
                        }});
    hold(prefix + std::to_string(::getpid()), theirs.get());
  }

  ~impl() {
    loop_.stop();
    if (thread_.joinable())
      thread_.join();
  }

  void serve(std::shared_ptr<proxy> plane) {
    plane_ = std::move(plane);
    try {
      thread_ = std::thread{[this] { loop_.run(); }};
    } catch (const std::system_error&) {
      to_.reset();  // nobody can ask; what is carried goes on all the same
    }
  }

  void tell(const proxy_fact& fact) {
    if (const auto* x = std::get_if<drained>(&fact); x != nullptr && to_)
      asio::post(loop_, [this, which = backend_name{x->key, x->slot, x->life}] {
        to_->send(packet_of(drained_word, which));
      });
  }

private:
  void take(const std::string& packet) {
    if (const auto which = parse(packet, drain_word))
      std::apply([this](const auto&... words) { plane_->drain(words...); },
                 *which);
  }

  asio::io_context loop_{1};
  std::optional<channel> to_;
  std::shared_ptr<proxy> plane_;
  std::thread thread_;
};

carrier::carrier(
    const std::function<void(const std::string& name, int fd)>& hold)
    : impl_(std::make_unique<impl>(hold)) {}

carrier::~carrier() = default;

void carrier::serve(std::shared_ptr<proxy> plane) {
  impl_->serve(std::move(plane));
}

void carrier::tell(const proxy_fact& fact) {
  impl_->tell(fact);
}

}  // namespace pup
