// Actors without threads, in a time that passes only when a test says so.
//
//   struct fixture : pup::test::virtual_time { ... };
//
//   auto x = sys.spawn(some_behavior);
//   own(x);                        // killed at the end of the test
//   auto answer = ask<int>(x, question{});
//   CHECK(answer->value() == 42);  // a test that gets no answer fails,
//   advance(99ms);                 // it does not hang
//
// Everything runs on the test's own thread. At the end of a test whatever is
// owned is killed; actors that still live then fail the test.
#pragma once

#include "pup/actors/caf.hpp"

#include "catch.hpp"

#include <caf/scheduler/test_coordinator.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace pup::test {

/// What became of a request: nothing yet, an answer or an error. Answers
/// without a value are caf::unit_t.
template <class T>
struct answer {
  std::optional<T> result;
  caf::error error;

  bool pending() const {
    return !result && !error;
  }
  bool failed() const {
    return static_cast<bool>(error);
  }
  /// The answer; the test ends when there is none.
  const T& value() const {
    INFO("error: " << to_string(error));
    REQUIRE(result.has_value());
    return *result;
  }
};

template <class T>
using answer_ptr = std::shared_ptr<const answer<T>>;

struct virtual_time {
  caf::actor_system_config cfg;
  caf::actor_system sys;
  caf::scheduler::test_coordinator& scheduler;

  virtual_time()
      : sys(cfg.set("scheduler.policy", caf::atom("testing"))),
        scheduler(
            dynamic_cast<caf::scheduler::test_coordinator&>(sys.scheduler())) {}

  virtual_time(const virtual_time&) = delete;
  virtual_time& operator=(const virtual_time&) = delete;

  ~virtual_time() {
    for (const auto& weak : owned_)
      if (auto x = caf::actor_cast<caf::strong_actor_ptr>(weak))
        caf::anon_send_exit(x, caf::exit_reason::kill);
    run();
    // Actors on their way out may wait for their own timers.
    for (int i = 0; census() != 0 && i < 1000; ++i) {
      scheduler.trigger_timeout();
      run();
    }
    CHECK(census() == 0);
    if (census() != 0)
      sys.await_actors_before_shutdown(false);  // ~actor_system would hang
    scheduler.clock().cancel_all();
  }

  /// Until no actor has a message left. Time stands still.
  void run() {
    scheduler.run();
  }

  /// Lets `how_long` pass, timer by timer, and runs what each one starts.
  void advance(std::chrono::nanoseconds how_long) {
    auto& clock = scheduler.clock();
    run();
    const auto end = clock.now() + how_long;
    while (!clock.schedule().empty()
           && clock.schedule().begin()->first <= end) {
      const auto due = clock.schedule().begin()->first;
      clock.advance_time(due > clock.now() ? due - clock.now()
                                           : std::chrono::nanoseconds{0});
      run();
    }
    clock.advance_time(end - clock.now());
    run();
  }

  caf::actor_clock::time_point now() {
    return scheduler.clock().now();
  }

  /// Actors that live, apart from those of the system itself.
  std::size_t census() {
    return sys.registry().running();
  }

  /// Has an actor killed at the end of the test.
  template <class Handle>
  const Handle& own(const Handle& x) {
    owned_.push_back(caf::actor_cast<caf::actor_addr>(x));
    return x;
  }

  /// Spawns an actor that asks, and runs. Its answer may come in a later run.
  template <class T, class Handle, class... Ts>
  answer_ptr<T> ask(const Handle& to, Ts... question) {
    auto result = std::make_shared<answer<T>>();
    own(sys.spawn([=](caf::event_based_actor* self) {
      auto request = self->request(to, caf::infinite, question...);
      const auto failed = [=](caf::error& e) { result->error = e; };
      if constexpr (std::is_same_v<T, caf::unit_t>)
        request.then([=] { result->result = caf::unit; }, failed);
      else
        request.then([=](T& x) { result->result = std::move(x); }, failed);
    }));
    run();
    return result;
  }

private:
  std::vector<caf::actor_addr> owned_;
};

}  // namespace pup::test
