// Supervisors that carry connections, and who comes after them: with real
// sockets and threads, in one process.
#include "pup/runtime/carriers.hpp"

#include "catch.hpp"
#include "loopback.hpp"
#include "without_threads.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include <atomic>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>

using namespace loopback;

namespace {

/// Plays the guardian.
struct holder {
  std::mutex mutex;
  std::map<std::string, unique_fd> held;

  void hold(const std::string& name, int fd) {
    const std::lock_guard guard{mutex};
    held[name] = unique_fd{::fcntl(fd, F_DUPFD_CLOEXEC, 0)};
  }
  void drop(const std::string& name) {
    const std::lock_guard guard{mutex};
    held.erase(name);
  }
  std::map<std::string, unique_fd> for_successor() {
    const std::lock_guard guard{mutex};
    std::map<std::string, unique_fd> result;
    for (const auto& [name, fd] : held)
      result[name] = unique_fd{::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)};
    return result;
  }
  bool is_empty() {
    const std::lock_guard guard{mutex};
    return held.empty();
  }
};

/// A former supervisor with one client.
struct former {
  explicit former(holder& to)
      : carries([&](const std::string& name, int fd) {
          // Each as if it were a process of its own.
          static std::atomic<int> count{0};
          to.hold(name + '-' + std::to_string(++count), fd);
        }) {
    const auto listening = plane->listen("web", {});
    REQUIRE(listening);
    plane->publish("web", {at(1, app.port())});
    client = connected(listening.port);
    send_all(client, "a");
    REQUIRE(read_some(client, 1) == "a");
    plane->finish([] {},
                  [this](const proxy_fact& fact) { carries.tell(fact); });
    carries.serve(plane);
  }
  ~former() {
    plane.reset();
  }

  const server app{echo};
  std::shared_ptr<proxy> plane = std::make_shared<proxy>(nullptr);
  carrier carries;
  unique_fd client{};
};

/// Its loop runs from the beginning, as that of a host does.
struct successor {
  explicit successor(holder& from)
      : held(from.for_successor()),
        before(loop, held,
               [&from](const std::string& name) { from.drop(name); }) {}
  ~successor() {
    loop.stop();
    thread.join();
  }

  std::future<void> drain(std::uint32_t slot) {
    auto done = std::make_shared<std::promise<void>>();
    auto result = done->get_future();
    before.drain("web", slot, slot + 100u, [done] { done->set_value(); });
    return result;
  }

  boost::asio::io_context loop{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{
      loop.get_executor()};
  std::thread thread{[this] { loop.run(); }};
  std::map<std::string, unique_fd> held;
  carriers before;
};

bool is_over(std::future<void>& x, std::chrono::milliseconds limit) {
  return x.wait_for(limit) == std::future_status::ready;
}

}  // namespace

TEST_CASE("a drain waits for the connections that others carry") {
  holder guardian;
  std::optional<former> first{std::in_place, guardian};
  std::optional<former> second{std::in_place, guardian};
  std::optional<successor> now{std::in_place, guardian};
  auto other = now->drain(2);
  CHECK(is_over(other, patience));
  auto drain = now->drain(1);
  CHECK_FALSE(is_over(drain, 20ms));
  first->client.reset();
  CHECK_FALSE(is_over(drain, 20ms));

  SECTION("the last one is closed") {
    second->client.reset();
    CHECK(is_over(drain, patience));
    auto again = now->drain(1);
    CHECK(is_over(again, patience));
  }
  SECTION("who carries the last one is gone") {
    second.reset();
    CHECK(is_over(drain, patience));
  }
  SECTION("another successor asks again") {
    now.reset();
    now.emplace(guardian);
    drain = now->drain(1);
    CHECK_FALSE(is_over(drain, 20ms));
    second->client.reset();
    CHECK(is_over(drain, patience));
  }
}

TEST_CASE("who has gone before a successor looks is forgotten") {
  holder guardian;
  for (int i = 0; i < 50; ++i) {
    {
      carrier gone{
          [&](const std::string& name, int fd) { guardian.hold(name, fd); }};
    }
    successor now{guardian};
    auto drain = now.drain(1);
    CHECK(is_over(drain, patience));
    CHECK(eventually([&] { return guardian.is_empty(); }));
  }
}

TEST_CASE("nobody carries anything") {
  holder guardian;
  successor now{guardian};
  auto drain = now.drain(1);
  CHECK(is_over(drain, patience));
}

TEST_CASE("without a thread nobody can ask, and that is told at once") {
  if (::geteuid() != 0) {
    WARN("skipped: needs root, to act as a user who may have no threads");
    return;
  }
  CHECK(pup::test::run_without_threads([] {
          unique_fd theirs;
          carrier x{[&](const std::string&, int fd) {
            theirs.reset(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
          }};
          x.serve(nullptr);
          x.tell(drained{});
          char byte = 0;
          return ::recv(theirs.get(), &byte, 1, MSG_DONTWAIT) == 0 ? 0 : 1;
        })
        == 0);
}
