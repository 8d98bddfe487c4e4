// The supervisor in virtual time. The list of cases follows OTP's test suite of
// its supervisor; what it says of links, pids and modules has no counterpart.
#include "pup/actors/supervisor.hpp"

#include "virtual_time.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>

using namespace std::chrono_literals;
using pup::child_info;
using pup::child_spec;
using pup::child_state;
using pup::fault;
using pup::restart_type;
using pup::strategy;
using strings = std::vector<std::string>;

namespace {

using crash = caf::atom_constant<caf::atom("crash")>;
using finish = caf::atom_constant<caf::atom("finish")>;
using be_ready = caf::atom_constant<caf::atom("be_ready")>;
using save = caf::atom_constant<caf::atom("save")>;

/// What the workers do. Outlives them: a base of the fixture, before
/// virtual_time.
struct diary {
  strings lines;  // since the last read()
  std::map<std::string, caf::actor> live;
  std::map<std::string, int> kept;  // what each latest life was handed
  std::optional<caf::error> root_end;

  strings read() {
    return std::exchange(lines, {});
  }
};

std::string word(const caf::error& reason) {
  if (!reason)
    return "end ";
  if (reason == caf::exit_reason::user_shutdown)
    return "stop ";
  return reason == caf::exit_reason::kill ? "kill " : "crash ";
}

struct worker_state {
  worker_state() = default;
  std::string id;
};

caf::behavior worker_behavior(caf::stateful_actor<worker_state>* self,
                              diary* book, std::string id, bool stubborn,
                              pup::supervisor_actor parent) {
  self->attach_functor([=](const caf::error& reason) {
    book->lines.push_back(word(reason) + id);
    book->live.erase(id);
  });
  if (stubborn)
    self->set_exit_handler([](caf::scheduled_actor*, caf::exit_msg&) {});
  return {
      [=](crash) { self->quit(caf::sec::runtime_error); },
      [=](finish) { self->quit(); },
      // CAF sends an exit_reason as the error it stands for.
      [=](finish, const caf::error& reason) { self->quit(reason); },
      [=](be_ready) { self->send(parent, pup::child_ready{}); },
      [=](save, int x) { self->send(parent, pup::keep{caf::make_message(x)}); },
      // Its last words.
      [=](save, int x, crash) {
        self->send(parent, pup::keep{caf::make_message(x)});
        self->quit(caf::sec::runtime_error);
      },
      [=](be_ready, finish) {
        self->send(parent, pup::child_ready{});
        self->quit();
      },
  };
}

std::string to_string(child_state x) {
  static constexpr const char* names[] = {"waiting", "starting", "running",
                                          "stopping", "stopped"};
  return names[static_cast<std::size_t>(x)];
}

struct lab : diary, pup::test::virtual_time {
  pup::supervisor_spec spec;
  pup::supervisor_actor root;

  lab() {
    spec.limit = {10, 10s};
  }

  /// A child that does as it is told.
  child_spec worker(const std::string& id,
                    restart_type restart = restart_type::permanent,
                    bool stubborn = false) {
    child_spec result;
    result.id = id;
    result.restart = restart;
    result.shutdown = 1000ms;
    result.start = [this, id, stubborn](pup::start_context& x) {
      lines.push_back("start " + id);
      if (x.kept.match_elements<int>())
        kept[id] = x.kept.get_as<int>(0);
      auto parent = caf::actor_cast<pup::supervisor_actor>(x.self);
      live[id] =
          x.self->spawn(worker_behavior, this, id, stubborn, std::move(parent));
      return caf::actor_cast<caf::strong_actor_ptr>(live[id]);
    };
    return result;
  }

  child_spec stubborn(const std::string& id) {
    return worker(id, restart_type::permanent, true);
  }

  child_spec awaited(const std::string& id,
                     restart_type restart = restart_type::permanent) {
    auto result = worker(id, restart);
    result.await_ready = true;
    return result;
  }

  /// A child whose next `times` starts fail: by null, exception or otherwise.
  child_spec failing(const std::string& id, int times) {
    auto result = worker(id);
    result.start = [this, id, left = times,
                    start = result.start](pup::start_context& x) mutable {
      if (left == 0)
        return start(x);
      --left;
      lines.push_back("fail " + id);
      if (left % 3 == 1)
        throw std::runtime_error("no luck");
      if (left % 3 == 2)
        throw 42;
      return caf::strong_actor_ptr{};
    };
    return result;
  }

  void spawn(std::vector<child_spec> children) {
    spec.children = std::move(children);
    root = own(pup::spawn_supervisor(sys, spec));
    root_end.reset();
    caf::actor_cast<caf::actor>(root)->attach_functor(
        [book = static_cast<diary*>(this)](const caf::error& reason) {
          book->root_end = reason;
        });
  }

  void launch(std::vector<child_spec> children) {
    spawn(std::move(children));
    run();
    lines.clear();
  }

  template <class... Ts>
  void tell(const std::string& id, Ts... what) {
    post(id, what...);
    run();
  }

  /// Without running it: the next one may come at the same time.
  template <class... Ts>
  void post(const std::string& id, Ts... what) {
    REQUIRE(live.count(id) == 1);
    caf::anon_send(live[id], what...);
  }

  void stop(caf::exit_reason reason = caf::exit_reason::user_shutdown) {
    caf::anon_send_exit(root, reason);
    run();
  }

  strings children() {
    return children(root);
  }

  strings children(const pup::supervisor_actor& x) {
    const auto reply = ask<std::vector<child_info>>(x, pup::which_children{});
    if (!reply->result)
      return {"gone"};
    strings result;
    for (const auto& y : reply->value()) {
      result.push_back(y.id + ':' + to_string(y.state));
      CHECK((y.handle != nullptr)
            == (y.state == child_state::starting
                || y.state == child_state::running
                || y.state == child_state::stopping));
    }
    return result;
  }

  std::uint32_t restarts_of(std::size_t index) {
    return ask<std::vector<child_info>>(root, pup::which_children{})
        ->value()
        .at(index)
        .restarts;
  }

  /// Closes a scenario: these are the children, and nobody else lives.
  void expect(const strings& wanted) {
    CHECK(children() == wanted);
    const auto alive = static_cast<std::size_t>(
        std::count_if(wanted.begin(), wanted.end(), [](const std::string& x) {
          return x.find(":waiting") == std::string::npos
                 && x.find(":stopped") == std::string::npos;
        }));
    CHECK(census() == alive + 1);
    CHECK(live.size() == alive);
  }

  void expect_gone() {
    CHECK(root_end.has_value());
    CHECK(live.empty());
    CHECK(census() == 0);
  }

  pup::test::answer_ptr<caf::unit_t> terminate(const std::string& id) {
    return ask<caf::unit_t>(root, pup::terminate_child{id});
  }

  pup::test::answer_ptr<child_info> restart(const std::string& id) {
    return ask<child_info>(root, pup::restart_child{id});
  }

  pup::test::answer_ptr<caf::unit_t> remove(const std::string& id) {
    return ask<caf::unit_t>(root, pup::delete_child{id});
  }

  pup::test::answer_ptr<child_info> add(child_spec x) {
    return ask<child_info>(root, std::move(x));
  }
};

/// A restart after exactly this long: a first delay has no jitter.
child_spec after(std::chrono::milliseconds first, child_spec x) {
  x.backoff.first = first;
  return x;
}

}  // namespace

// -- start --------------------------------------------------------------------

SCENARIO_METHOD(lab, "children start in order and stop in reverse") {
  spawn({worker("a"), worker("b"), worker("c")});
  run();
  CHECK(read() == strings{"start a", "start b", "start c"});
  expect({"a:running", "b:running", "c:running"});
  stop();
  CHECK(read() == strings{"stop c", "stop b", "stop a"});
  CHECK(*root_end == caf::exit_reason::user_shutdown);
  expect_gone();
}

SCENARIO_METHOD(lab,
                "a supervisor without children lives until it is stopped") {
  launch({});
  advance(1h);
  expect({});
  stop();
  expect_gone();
}

SCENARIO_METHOD(lab, "an id given twice ends it before any child is started") {
  spawn({worker("a"), worker("a")});
  run();
  CHECK(read().empty());
  REQUIRE(root_end.has_value());
  CHECK(is(*root_end, fault::bad_request));
  CHECK(pup::text_of(*root_end) == "child 'a' is there twice");
  expect_gone();
}

SCENARIO_METHOD(lab, "a child without a start function is refused") {
  child_spec empty;
  empty.id = "b";
  spawn({worker("a"), empty});
  run();
  CHECK(read().empty());
  REQUIRE(root_end.has_value());
  CHECK(is(*root_end, fault::bad_request));
  expect_gone();
}

SCENARIO_METHOD(lab, "a failing start function is retried after its backoff") {
  spawn({worker("a"), failing("b", 2), worker("c")});
  run();
  // The first retry follows at once, the second after 80 to 120 ms.
  CHECK(read() == strings{"start a", "fail b", "fail b", "start c"});
  expect({"a:running", "b:waiting", "c:running"});
  advance(79ms);
  CHECK(read().empty());
  advance(41ms);
  CHECK(read() == strings{"start b"});
  CHECK(restarts_of(1) == 2);
  expect({"a:running", "b:running", "c:running"});
}

SCENARIO_METHOD(lab, "a start function that never succeeds does not spin") {
  spec.limit.limit.reset();
  spawn({failing("a", 1'000'000)});
  advance(100s);
  // At 10 s each, less 20 %, after about 20 s of doubling.
  CHECK(read().size() < 25);
  expect({"a:waiting"});
}

SCENARIO_METHOD(lab, "start functions that fail too often end the supervisor") {
  spec.limit = {3, 10s};
  spawn({worker("a"), failing("b", 100)});
  advance(10s);
  CHECK(
      read()
      == strings{"start a", "fail b", "fail b", "fail b", "fail b", "stop a"});
  REQUIRE(root_end.has_value());
  CHECK(is(*root_end, fault::gave_up));
  CHECK(pup::text_of(*root_end)
        == "child 'b' ended too often; last: the start function returned null");
  expect_gone();
}

SCENARIO_METHOD(lab, "a temporary child that cannot start is forgotten") {
  auto b = failing("b", 1);
  b.restart = restart_type::temporary;
  launch({worker("a"), b, worker("c")});
  expect({"a:running", "c:running"});
}

SCENARIO_METHOD(lab,
                "a group does not start behind a child that cannot start") {
  spec.how = GENERATE(strategy::one_for_all, strategy::rest_for_one);
  spawn({failing("a", 2), worker("b")});
  run();
  CHECK(read() == strings{"fail a", "fail a"});
  expect({"a:waiting", "b:waiting"});
  advance(120ms);
  CHECK(read() == strings{"start a", "start b"});
  expect({"a:running", "b:running"});
}

SCENARIO_METHOD(lab, "an exit message while a start has just failed stops it") {
  spawn({worker("a"), failing("b", 100)});
  stop();
  CHECK(read() == strings{"start a", "fail b", "stop a"});
  expect_gone();
}

// -- stop ---------------------------------------------------------------------

SCENARIO_METHOD(lab,
                "a hanging child is killed when its shutdown time is over") {
  launch({worker("a"), stubborn("b"), worker("c")});
  stop();
  CHECK(read() == strings{"stop c"});
  expect({"a:running", "b:stopping", "c:stopped"});
  advance(999ms);
  CHECK(read().empty());
  advance(1ms);
  CHECK(read() == strings{"kill b", "stop a"});
  expect_gone();
}

SCENARIO_METHOD(lab,
                "a child without a shutdown time may take as long as it does") {
  auto patient = stubborn("b");
  patient.shutdown.reset();
  launch({worker("a"), patient});
  stop();
  advance(24h);
  expect({"a:running", "b:stopping"});
  tell("b", finish::value);
  CHECK(read() == strings{"end b", "stop a"});
  expect_gone();
}

SCENARIO_METHOD(lab, "a shutdown time of 0 kills without asking") {
  auto b = worker("b");
  b.shutdown = 0ms;
  launch({worker("a"), b});
  stop();
  CHECK(read() == strings{"kill b", "stop a"});
  expect_gone();
}

SCENARIO_METHOD(lab, "a second exit message kills what is left at once") {
  launch({worker("a"), stubborn("b"), worker("c")});
  stop();
  expect({"a:running", "b:stopping", "c:stopped"});
  stop();
  auto end = read();
  std::sort(end.begin(), end.end());
  CHECK(end == strings{"kill a", "kill b", "stop c"});
  expect_gone();
}

SCENARIO_METHOD(
    lab, "an exit message to one that is giving up is not a second one") {
  spec.limit = {0, 10s};
  launch({stubborn("a"), worker("b")});
  tell("b", crash::value);
  expect({"a:stopping", "b:stopped"});
  stop();
  expect({"a:stopping", "b:stopped"});
  advance(1s);
  CHECK(read() == strings{"crash b", "kill a"});
  CHECK(is(*root_end, fault::gave_up));
  expect_gone();
}

SCENARIO_METHOD(lab,
                "no child is restarted once the supervisor is told to stop") {
  launch({worker("a"), stubborn("b")});
  stop();
  tell("b", crash::value);
  CHECK(read() == strings{"crash b", "stop a"});
  expect_gone();
}

SCENARIO_METHOD(lab, "a stop overtakes a restart that waits for its backoff") {
  launch({after(100ms, worker("a")), worker("b")});
  tell("a", crash::value);
  expect({"a:waiting", "b:running"});
  stop();
  expect_gone();
  advance(1s);
  CHECK(read() == strings{"crash a", "stop b"});
}

SCENARIO_METHOD(lab, "a killed supervisor takes its children along") {
  launch({worker("a"), stubborn("b")});
  stop(caf::exit_reason::kill);
  auto end = read();
  std::sort(end.begin(), end.end());
  CHECK(end == strings{"kill a", "kill b"});
  expect_gone();
}

SCENARIO_METHOD(lab, "a supervisor stops in order when its parent has ended") {
  pup::supervisor_actor nested;
  auto parent =
      own(sys.spawn([&](caf::event_based_actor* self) -> caf::behavior {
        pup::supervisor_spec wanted;
        wanted.children = {worker("a"), worker("b")};
        nested = pup::spawn_supervisor(self, wanted);
        return {[=](finish) { self->quit(); }};
      }));
  own(nested);
  run();
  CHECK(children(nested) == strings{"a:running", "b:running"});
  lines.clear();
  caf::anon_send(parent, finish::value);
  run();
  CHECK(read() == strings{"stop b", "stop a"});
  CHECK(census() == 0);
}

// -- restart types ------------------------------------------------------------

namespace {

struct ending_case {
  restart_type type;
  caf::exit_reason reason;
  strings after;
};

}  // namespace

SCENARIO_METHOD(lab,
                "the restart type decides which ends are followed by a start") {
  const auto normal = caf::exit_reason::normal;
  const auto shutdown = caf::exit_reason::user_shutdown;
  const auto abnormal = caf::exit_reason::unhandled_exception;
  const auto kill = caf::exit_reason::kill;
  const strings again{"a:running"}, left{"a:stopped"}, forgotten{};
  const std::vector<ending_case> cases{
      {restart_type::permanent, normal, again},
      {restart_type::permanent, shutdown, again},
      {restart_type::permanent, abnormal, again},
      {restart_type::permanent, kill, again},
      {restart_type::transient, normal, left},
      {restart_type::transient, shutdown, left},
      {restart_type::transient, abnormal, again},
      {restart_type::transient, kill, again},
      {restart_type::temporary, normal, forgotten},
      {restart_type::temporary, shutdown, forgotten},
      {restart_type::temporary, abnormal, forgotten},
      {restart_type::temporary, kill, forgotten},
  };
  const auto i = GENERATE(range(0, 12));
  const auto& x = cases.at(static_cast<std::size_t>(i));
  CAPTURE(i);
  launch({worker("a", x.type)});
  tell("a", finish::value, x.reason);
  expect(x.after);
}

// -- strategies ---------------------------------------------------------------

SCENARIO_METHOD(lab, "one_for_one leaves the other children alone") {
  launch({worker("a"), worker("b"), worker("c")});
  tell("b", crash::value);
  CHECK(read() == strings{"crash b", "start b"});
  CHECK(restarts_of(0) == 0);
  CHECK(restarts_of(1) == 1);
  expect({"a:running", "b:running", "c:running"});
}

SCENARIO_METHOD(lab,
                "one_for_all stops all in reverse and starts all in order") {
  spec.how = strategy::one_for_all;
  launch({worker("a"), worker("b"), worker("c")});
  tell("b", crash::value);
  CHECK(read()
        == strings{"crash b", "stop c", "stop a", "start a", "start b",
                   "start c"});
  CHECK(restarts_of(0) == 1);
  expect({"a:running", "b:running", "c:running"});
}

SCENARIO_METHOD(lab,
                "rest_for_one restarts the ended one and those behind it") {
  spec.how = strategy::rest_for_one;
  launch({worker("a"), worker("b"), worker("c"), worker("d")});
  tell("b", crash::value);
  CHECK(read()
        == strings{"crash b", "stop d", "stop c", "start b", "start c",
                   "start d"});
  CHECK(restarts_of(0) == 0);
  expect({"a:running", "b:running", "c:running", "d:running"});
}

SCENARIO_METHOD(lab,
                "a group waits for its slowest member before it starts again") {
  spec.how = strategy::one_for_all;
  launch({worker("a"), worker("b"), stubborn("c")});
  tell("a", crash::value);
  CHECK(read() == strings{"crash a"});
  expect({"a:waiting", "b:running", "c:stopping"});
  advance(999ms);
  CHECK(read().empty());
  advance(1ms);
  CHECK(read() == strings{"kill c", "stop b", "start a", "start b", "start c"});
  expect({"a:running", "b:running", "c:running"});
}

SCENARIO_METHOD(lab,
                "a group starts again when the ended child's delay is over") {
  spec.how = strategy::one_for_all;
  launch({worker("a"), after(100ms, worker("b"))});
  tell("b", crash::value);
  CHECK(read() == strings{"crash b", "stop a"});
  advance(99ms);
  expect({"a:waiting", "b:waiting"});
  advance(1ms);
  CHECK(read() == strings{"start a", "start b"});
  expect({"a:running", "b:running"});
}

SCENARIO_METHOD(lab,
                "a temporary bystander of a group is stopped and forgotten") {
  spec.how = GENERATE(strategy::one_for_all, strategy::rest_for_one);
  launch({worker("a"), worker("b", restart_type::temporary), worker("c")});
  tell("a", crash::value);
  CHECK(read() == strings{"crash a", "stop c", "stop b", "start a", "start c"});
  expect({"a:running", "c:running"});
}

SCENARIO_METHOD(lab, "a temporary bystander in front of the rest goes on") {
  spec.how = strategy::rest_for_one;
  launch({worker("a", restart_type::temporary), worker("b")});
  tell("b", crash::value);
  CHECK(read() == strings{"crash b", "start b"});
  expect({"a:running", "b:running"});
}

SCENARIO_METHOD(lab,
                "a temporary bystander that never started is forgotten, too") {
  spec.how = strategy::one_for_all;
  launch({awaited("a"), worker("b", restart_type::temporary), worker("c")});
  tell("a", crash::value);
  tell("a", be_ready::value);
  CHECK(read() == strings{"crash a", "start a", "start c"});
  expect({"a:running", "c:running"});
}

SCENARIO_METHOD(lab,
                "the id of a temporary bystander is free when it is gone") {
  spec.how = strategy::one_for_all;
  launch({worker("a"), worker("b", restart_type::temporary, true)});
  tell("a", crash::value);
  expect({"a:waiting", "b:stopping"});
  CHECK(is(add(worker("b"))->error, fault::bad_request));
  advance(1s);
  CHECK(add(worker("b"))->value().state == child_state::running);
  expect({"a:running", "b:running"});
}

SCENARIO_METHOD(lab, "the restart of a group starts what was terminated, too") {
  spec.how = strategy::one_for_all;
  launch({worker("a"), worker("b")});
  terminate("b");
  expect({"a:running", "b:stopped"});
  tell("a", crash::value);
  expect({"a:running", "b:running"});
}

// -- failures on top of failures ----------------------------------------------

SCENARIO_METHOD(lab, "two of a group that end together are one restart") {
  spec.how = strategy::one_for_all;
  spec.limit = {1, 10s};
  launch({worker("a"), worker("b"), worker("c")});
  post("a", crash::value);
  post("c", crash::value);
  run();
  CHECK(read()
        == strings{"crash a", "crash c", "stop b", "start a", "start b",
                   "start c"});
  expect({"a:running", "b:running", "c:running"});
}

SCENARIO_METHOD(
    lab, "a member that ends while its group is stopped is not counted") {
  spec.how = strategy::one_for_all;
  spec.limit = {1, 10s};
  launch({worker("a"), worker("b"), stubborn("c")});
  tell("a", crash::value);
  expect({"a:waiting", "b:running", "c:stopping"});
  tell("b", crash::value);
  tell("c", crash::value);
  CHECK(read()
        == strings{"crash a", "crash b", "crash c", "start a", "start b",
                   "start c"});
  expect({"a:running", "b:running", "c:running"});
}

SCENARIO_METHOD(lab, "an earlier child that fails during a restart widens it") {
  spec.how = strategy::rest_for_one;
  launch({worker("a"), after(100ms, worker("b")), stubborn("c")});
  tell("b", crash::value);
  expect({"a:running", "b:waiting", "c:stopping"});
  tell("a", crash::value);
  CHECK(read() == strings{"crash b", "crash a"});
  tell("c", finish::value);
  // a may start at once, b and c wait for the later of both times.
  CHECK(read() == strings{"end c", "start a"});
  advance(99ms);
  expect({"a:running", "b:waiting", "c:waiting"});
  advance(1ms);
  CHECK(read() == strings{"start b", "start c"});
  expect({"a:running", "b:running", "c:running"});
}

SCENARIO_METHOD(lab, "a child that fails while its group starts begins anew") {
  spec.how = strategy::one_for_all;
  launch({worker("a"), awaited("b"), worker("c")});
  tell("b", be_ready::value);
  tell("c", crash::value);
  expect({"a:running", "b:starting", "c:waiting"});
  lines.clear();
  tell("a", crash::value);
  CHECK(read() == strings{"crash a", "stop b", "start a", "start b"});
  tell("b", be_ready::value);
  expect({"a:running", "b:running", "c:running"});
}

// -- intensity ----------------------------------------------------------------

SCENARIO_METHOD(lab,
                "one restart too many ends the supervisor and all children") {
  spec.how = GENERATE(strategy::one_for_one, strategy::one_for_all,
                      strategy::rest_for_one);
  spec.limit = {2, 10s};
  launch({worker("a"), after(0ms, worker("b")), worker("c")});
  for (int i = 0; i < 2; ++i) {
    tell("b", crash::value);
    advance(200ms);
    expect({"a:running", "b:running", "c:running"});
  }
  lines.clear();
  tell("b", crash::value);
  CHECK(read() == strings{"crash b", "stop c", "stop a"});
  REQUIRE(root_end.has_value());
  CHECK(is(*root_end, fault::gave_up));
  expect_gone();
}

SCENARIO_METHOD(lab, "a restart stops counting right after the period") {
  spec.limit = {1, 10s};
  launch({worker("a")});
  tell("a", crash::value);
  SECTION("at its end it counts") {
    advance(10s);
    tell("a", crash::value);
    expect_gone();
  }
  SECTION("a nanosecond later it does not") {
    advance(10s + 1ns);
    tell("a", crash::value);
    expect({"a:running"});
  }
}

SCENARIO_METHOD(lab, "ends that were asked for do not count") {
  spec.limit = {0, 10s};
  launch({worker("a"), worker("b")});
  for (int i = 0; i < 5; ++i) {
    terminate("a");
    CHECK(restart("a")->value().state == child_state::running);
  }
  expect({"a:running", "b:running"});
}

// -- backoff ------------------------------------------------------------------

SCENARIO_METHOD(lab,
                "a child is restarted when its delay is over, not before") {
  launch({after(100ms, worker("a")), worker("b")});
  tell("a", crash::value);
  advance(99ms);
  expect({"a:waiting", "b:running"});
  advance(1ms);
  CHECK(read() == strings{"crash a", "start a"});
  expect({"a:running", "b:running"});
}

SCENARIO_METHOD(lab, "the delay doubles, with jitter, while lives are short") {
  spec.seed = GENERATE(1u, 2u, 3u, 4u, 5u);
  launch({worker("a")});
  tell("a", crash::value);
  expect({"a:running"});
  for (const auto middle : {100ms, 200ms, 400ms, 800ms}) {
    tell("a", crash::value);
    advance(middle * 8 / 10 - 1ms);
    expect({"a:waiting"});
    advance(middle * 4 / 10 + 1ms);
    expect({"a:running"});
  }
}

SCENARIO_METHOD(lab, "a life of one second ends a failing series") {
  launch({worker("a")});
  tell("a", crash::value);
  SECTION("a shorter one does not") {
    advance(999ms);
    tell("a", crash::value);
    expect({"a:waiting"});
  }
  SECTION("it does") {
    advance(1000ms);
    tell("a", crash::value);
    expect({"a:running"});
  }
}

SCENARIO_METHOD(lab,
                "the second that makes a life stable begins when it is ready") {
  launch({awaited("a")});
  tell("a", crash::value);
  advance(5s);
  SECTION("a life that never became ready was not stable") {
    tell("a", crash::value);
    expect({"a:waiting"});
  }
  SECTION("nor was one that had just become ready") {
    tell("a", be_ready::value);
    advance(999ms);
    tell("a", crash::value);
    expect({"a:waiting"});
  }
  SECTION("but one that was ready for a second was") {
    tell("a", be_ready::value);
    advance(1000ms);
    tell("a", crash::value);
    expect({"a:starting"});
  }
}

SCENARIO_METHOD(
    lab, "a start that fails after a long life goes on with the series") {
  auto fails_later = worker("a");
  int starts = 0;
  fails_later.start = [this, &starts,
                       start = fails_later.start](pup::start_context& x) {
    return ++starts == 1 ? start(x) : caf::strong_actor_ptr{};
  };
  launch({fails_later});
  advance(1h);
  tell("a", crash::value);
  CHECK(starts == 2);  // at once, since its life was stable
  advance(79ms);
  CHECK(starts == 2);
  advance(41ms);
  CHECK(starts == 3);
  expect({"a:waiting"});
}

// -- requests -----------------------------------------------------------------

SCENARIO_METHOD(
    lab, "a terminated child is gone when the answer comes, and stays down") {
  launch({worker("a"), stubborn("b")});
  const auto first = terminate("b");
  const auto second = terminate("b");
  advance(999ms);
  CHECK(first->pending());
  CHECK(second->pending());
  advance(1ms);
  CHECK(first->result);
  CHECK(second->result);
  advance(1h);
  CHECK(read() == strings{"kill b"});
  expect({"a:running", "b:stopped"});
}

SCENARIO_METHOD(lab,
                "terminating a child that does not live is answered at once") {
  launch({after(100ms, worker("a"))});
  tell("a", crash::value);
  CHECK(terminate("a")->result);
  CHECK(terminate("a")->result);
  advance(1h);
  CHECK(read() == strings{"crash a"});
  expect({"a:stopped"});
}

SCENARIO_METHOD(lab, "a temporary child is forgotten when it is terminated") {
  launch({worker("a", restart_type::temporary), worker("b")});
  CHECK(terminate("a")->result);
  expect({"b:running"});
  CHECK(is(restart("a")->error, fault::no_such_id));
}

SCENARIO_METHOD(
    lab, "those who wait for a child's end are told when the supervisor dies") {
  launch({stubborn("a")});
  const auto answer = terminate("a");
  REQUIRE(answer->pending());
  stop(caf::exit_reason::kill);
  CHECK(is(answer->error, fault::shutting_down));
  expect_gone();
}

SCENARIO_METHOD(lab, "only a stopped child can be deleted") {
  launch({after(100ms, worker("a")), stubborn("b")});
  CHECK(is(remove("a")->error, fault::bad_request));
  tell("a", crash::value);
  CHECK(is(remove("a")->error, fault::bad_request));
  const auto end = terminate("b");
  CHECK(is(remove("b")->error, fault::bad_request));
  advance(1s);
  REQUIRE(end->result);
  CHECK(remove("b")->result);
  CHECK(is(remove("b")->error, fault::no_such_id));
  expect({"a:running"});
}

SCENARIO_METHOD(lab,
                "a deleted child's id is free again, at the end of the order") {
  launch({worker("a"), worker("b")});
  terminate("a");
  remove("a");
  CHECK(add(worker("a"))->value().state == child_state::running);
  lines.clear();
  stop();
  CHECK(read() == strings{"stop a", "stop b"});
  expect_gone();
}

SCENARIO_METHOD(lab, "a running child is not restarted on request") {
  launch({worker("a"), stubborn("b")});
  CHECK(is(restart("a")->error, fault::bad_request));
  terminate("b");
  CHECK(is(restart("b")->error, fault::bad_request));
  CHECK(read().empty());
}

SCENARIO_METHOD(
    lab, "a child that waits for its backoff starts at once on request") {
  launch({after(100ms, worker("a"))});
  tell("a", crash::value);
  CHECK(restart("a")->value().state == child_state::running);
  CHECK(read() == strings{"crash a", "start a"});
  tell("a", finish::value);
  expect({"a:waiting"});  // until 100 ms from now, whatever timers are left
  advance(99ms);
  expect({"a:waiting"});
  advance(1ms);
  expect({"a:running"});
}

SCENARIO_METHOD(lab, "the timer of an abandoned backoff starts nothing") {
  launch({after(100ms, worker("a"))});
  tell("a", crash::value);
  advance(50ms);
  restart("a");
  tell("a", crash::value);
  // The timer of the first backoff comes now, that of the second in 100 ms.
  advance(50ms);
  expect({"a:waiting"});
  advance(49ms);
  expect({"a:waiting"});
  advance(1ms);
  expect({"a:running"});
}

SCENARIO_METHOD(lab,
                "the shutdown timer of an earlier life kills no later one") {
  launch({worker("a")});
  terminate("a");
  restart("a");
  terminate("a");
  live.clear();
  lines.clear();
  advance(500ms);
  restart("a");
  advance(1h);
  CHECK(read() == strings{"start a"});
  expect({"a:running"});
}

SCENARIO_METHOD(lab, "a stubborn later life has a shutdown time of its own") {
  launch({stubborn("a")});
  terminate("a");
  advance(500ms);
  tell("a", finish::value);
  restart("a");
  terminate("a");
  lines.clear();
  advance(999ms);
  CHECK(children() == strings{"a:stopping"});
  advance(1ms);
  CHECK(read() == strings{"kill a"});
  expect({"a:stopped"});
}

SCENARIO_METHOD(lab, "a child may be added to a running supervisor") {
  launch({worker("a")});
  const auto info = add(worker("b"))->value();
  CHECK(info.id == "b");
  CHECK(info.state == child_state::running);
  CHECK(info.restarts == 0);
  CHECK(info.handle == caf::actor_cast<caf::strong_actor_ptr>(live["b"]));
  tell("b", crash::value);
  expect({"a:running", "b:running"});
}

SCENARIO_METHOD(lab, "a child may be added in front of another") {
  launch({worker("a"), worker("b")});
  auto added = worker("c");
  added.before = "b";
  CHECK(add(std::move(added))->value().state == child_state::running);
  auto last = worker("d");
  last.before = "nobody";
  add(std::move(last));
  expect({"a:running", "c:running", "b:running", "d:running"});
  stop();
  CHECK(read()
        == strings{"start c", "start d", "stop d", "stop b", "stop c",
                   "stop a"});
}

SCENARIO_METHOD(lab, "where order means more than stopping it stays") {
  spec.how = strategy::rest_for_one;
  launch({worker("a"), worker("b")});
  auto added = worker("c");
  added.before = "b";
  CHECK(is(add(std::move(added))->error, fault::bad_request));
  expect({"a:running", "b:running"});
}

SCENARIO_METHOD(lab,
                "a child is not added twice, nor without a start function") {
  launch({worker("a")});
  const auto twice = add(worker("a"));
  CHECK(is(twice->error, fault::bad_request));
  CHECK(pup::text_of(twice->error) == "child 'a' is there already");
  child_spec empty;
  empty.id = "b";
  CHECK(is(add(empty)->error, fault::bad_request));
  CHECK(read().empty());
  expect({"a:running"});
}

SCENARIO_METHOD(lab,
                "an added child that cannot start is retried like any other") {
  launch({worker("a")});
  add(failing("b", 2));
  expect({"a:running", "b:waiting"});
  advance(120ms);
  expect({"a:running", "b:running"});
}

SCENARIO_METHOD(lab, "requests that come too late are refused") {
  launch({stubborn("a"), worker("b")});
  stop();
  CHECK(is(add(worker("c"))->error, fault::shutting_down));
  CHECK(is(restart("b")->error, fault::shutting_down));
  CHECK(terminate("b")->result);
  expect({"a:stopping", "b:stopped"});
}

SCENARIO_METHOD(lab, "requests about an unknown child are refused") {
  launch({worker("a")});
  CHECK(is(terminate("x")->error, fault::no_such_id));
  CHECK(is(restart("x")->error, fault::no_such_id));
  const auto removed = remove("x");
  CHECK(is(removed->error, fault::no_such_id));
  CHECK(pup::text_of(removed->error) == "no child 'x'");
  expect({"a:running"});
}

// -- await_ready --------------------------------------------------------------

SCENARIO_METHOD(lab, "the next child starts when the awaited one is ready") {
  spawn({awaited("a"), worker("b"), awaited("c"), worker("d")});
  advance(1h);
  CHECK(read() == strings{"start a"});
  expect({"a:starting", "b:waiting", "c:waiting", "d:waiting"});
  tell("a", be_ready::value);
  CHECK(read() == strings{"start b", "start c"});
  tell("c", be_ready::value);
  CHECK(read() == strings{"start d"});
  expect({"a:running", "b:running", "c:running", "d:running"});
}

SCENARIO_METHOD(
    lab, "an awaited child that ends before it is ready starts again first") {
  spawn({after(100ms, awaited("a")), worker("b")});
  run();
  tell("a", crash::value);
  advance(99ms);
  CHECK(read() == strings{"start a", "crash a"});
  advance(1ms);
  CHECK(read() == strings{"start a"});
  tell("a", be_ready::value);
  CHECK(read() == strings{"start b"});
  expect({"a:running", "b:running"});
}

SCENARIO_METHOD(lab,
                "an awaited child whose start fails holds those behind it") {
  auto a = failing("a", 2);
  a.await_ready = true;
  spawn({a, worker("b")});
  run();
  CHECK(read() == strings{"fail a", "fail a"});
  advance(120ms);
  tell("a", be_ready::value);
  CHECK(read() == strings{"start a", "start b"});
  expect({"a:running", "b:running"});
}

SCENARIO_METHOD(lab,
                "nobody waits for an awaited child that will not come back") {
  SECTION("temporary") {
    launch({awaited("a", restart_type::temporary), worker("b")});
    tell("a", crash::value);
    expect({"b:running"});
  }
  SECTION("transient, after a normal end") {
    launch({awaited("a", restart_type::transient), worker("b")});
    tell("a", finish::value);
    expect({"a:stopped", "b:running"});
  }
  SECTION("terminated") {
    launch({awaited("a"), worker("b")});
    CHECK(terminate("a")->result);
    expect({"a:stopped", "b:running"});
  }
  SECTION("terminated while it waits for its backoff") {
    launch({after(100ms, awaited("a")), worker("b")});
    tell("a", crash::value);
    CHECK(terminate("a")->result);
    expect({"a:stopped", "b:running"});
  }
}

SCENARIO_METHOD(lab, "a child that is started on request waits for its turn") {
  launch({awaited("a"), worker("b")});
  CHECK(restart("b")->value().state == child_state::waiting);
  CHECK(add(worker("c"))->value().state == child_state::waiting);
  CHECK(read().empty());
  tell("a", be_ready::value);
  CHECK(read() == strings{"start b", "start c"});
  expect({"a:running", "b:running", "c:running"});
}

SCENARIO_METHOD(
    lab, "a child that is awaited again does not disturb those that run") {
  launch({awaited("a"), worker("b"), worker("c")});
  tell("a", be_ready::value);
  tell("a", crash::value);
  expect({"a:starting", "b:running", "c:running"});
  tell("b", crash::value);
  expect({"a:starting", "b:waiting", "c:running"});
  tell("a", be_ready::value);
  expect({"a:running", "b:running", "c:running"});
}

SCENARIO_METHOD(
    lab, "a child that was ready and ended in the same breath was ready") {
  launch({awaited("a", restart_type::temporary),
          awaited("b", restart_type::transient), worker("c")});
  tell("a", be_ready::value, finish::value);
  tell("b", be_ready::value, finish::value);
  expect({"b:stopped", "c:running"});
}

SCENARIO_METHOD(lab, "being ready twice, or unasked, changes nothing") {
  launch({awaited("a"), worker("b"), awaited("c"), worker("d")});
  tell("a", be_ready::value);
  tell("a", be_ready::value);
  tell("b", be_ready::value);
  expect({"a:running", "b:running", "c:starting", "d:waiting"});
}

SCENARIO_METHOD(lab, "a stranger's messages are not a child's") {
  launch({awaited("a"), worker("b")});
  caf::anon_send(root, pup::child_ready{});
  own(sys.spawn(worker_behavior, static_cast<diary*>(this), "stranger", false,
                root));
  run();
  caf::anon_send(root, pup::keep{caf::make_message(1)});
  run();
  CHECK(children() == strings{"a:starting", "b:waiting"});
}

// -- keep ---------------------------------------------------------------------

SCENARIO_METHOD(lab, "what a child keeps is handed to its next life") {
  launch({worker("a"), worker("b")});
  CHECK(kept.empty());
  tell("a", save::value, 1);
  tell("a", save::value, 2);
  tell("a", crash::value);
  CHECK(kept == std::map<std::string, int>{{"a", 2}});
  kept.clear();
  advance(1h);
  caf::anon_send_exit(live["a"], caf::exit_reason::kill);
  run();
  CHECK(kept == std::map<std::string, int>{{"a", 2}});
  kept.clear();
  terminate("a");
  restart("a");
  CHECK(kept == std::map<std::string, int>{{"a", 2}});
  tell("b", crash::value);
  CHECK(kept.count("b") == 0);
  expect({"a:running", "b:running"});
}

SCENARIO_METHOD(lab, "what a child keeps with its last breath is not lost") {
  launch({worker("a")});
  tell("a", save::value, 7, crash::value);
  CHECK(kept == std::map<std::string, int>{{"a", 7}});
  expect({"a:running"});
}

SCENARIO_METHOD(lab, "a first life may be handed what an earlier tree kept") {
  auto a = worker("a");
  a.kept = caf::make_message(5);
  launch({a, worker("b")});
  CHECK(kept == std::map<std::string, int>{{"a", 5}});
  tell("a", save::value, 6);
  tell("a", crash::value);
  CHECK(kept == std::map<std::string, int>{{"a", 6}});
}

SCENARIO_METHOD(lab, "who writes down what is kept, and the end, is told") {
  strings told;
  spec.on_keep = [&](const std::string& id, const caf::message& value) {
    told.push_back(id + ' ' + std::to_string(value.get_as<int>(0)));
  };
  spec.on_leaving = [&](const caf::error& reason) {
    told.push_back("leaving: " + word(reason));
  };
  launch({worker("a"), stubborn("b")});
  tell("a", save::value, 1);
  tell("b", save::value, 2);
  caf::anon_send(root, pup::keep{caf::make_message(3)});  // no child of ours
  run();
  CHECK(std::exchange(told, {}) == strings{"a 1", "b 2"});
  caf::anon_send_exit(root, caf::exit_reason::user_shutdown);
  run();
  CHECK(told == strings{"leaving: stop "});
  caf::anon_send_exit(root, caf::exit_reason::user_shutdown);
  run();
  CHECK(told == strings{"leaving: stop "});
}

SCENARIO_METHOD(lab, "who gives up leaves for another reason") {
  std::optional<caf::error> why;
  spec.on_leaving = [&](const caf::error& reason) { why = reason; };
  spec.limit = {0, 10s};
  launch({worker("a")});
  tell("a", crash::value);
  REQUIRE(why);
  CHECK(is(*why, fault::gave_up));
}

SCENARIO_METHOD(lab, "a deleted child's keepsake is not handed to a new one") {
  launch({worker("a")});
  tell("a", save::value, 7);
  terminate("a");
  remove("a");
  add(worker("a"));
  CHECK(kept.empty());
  expect({"a:running"});
}

// -- supervisors of supervisors -----------------------------------------------

namespace {

/// A supervisor as a child.
child_spec nested(const std::string& id, pup::supervisor_spec inner,
                  pup::supervisor_actor* latest) {
  child_spec result;
  result.id = id;
  result.shutdown.reset();
  result.start = [inner, latest](pup::start_context& x) {
    *latest = pup::spawn_supervisor(x.self, inner);
    return caf::actor_cast<caf::strong_actor_ptr>(*latest);
  };
  return result;
}

struct tree : lab {
  pup::supervisor_actor inner;

  tree() {
    spec.limit = {1, 60s};
    pup::supervisor_spec below;
    below.limit = {1, 10s};
    below.children = {worker("x"), worker("y")};
    launch({worker("a"), nested("inner", below, &inner), worker("c")});
  }
};

}  // namespace

SCENARIO_METHOD(tree, "a tree stops from its last leaf to its first") {
  CHECK(census() == 6);
  stop();
  CHECK(read() == strings{"stop c", "stop y", "stop x", "stop a"});
  expect_gone();
}

SCENARIO_METHOD(tree, "a supervisor that gives up is restarted by its own") {
  const auto first = inner;
  tell("x", crash::value);
  CHECK(children(inner) == strings{"x:running", "y:running"});
  CHECK(inner == first);
  lines.clear();
  tell("x", crash::value);
  CHECK(read() == strings{"crash x", "stop y", "start x", "start y"});
  CHECK(inner != first);
  CHECK(children(inner) == strings{"x:running", "y:running"});
  CHECK(restarts_of(1) == 1);
  CHECK(census() == 6);
}

SCENARIO_METHOD(tree,
                "a failure that no level can contain ends the whole tree") {
  for (int i = 0; i < 3; ++i)
    tell("x", crash::value);
  REQUIRE_FALSE(root_end.has_value());
  lines.clear();
  tell("x", crash::value);
  CHECK(read() == strings{"crash x", "stop y", "stop c", "stop a"});
  REQUIRE(root_end.has_value());
  CHECK(is(*root_end, fault::gave_up));
  expect_gone();
}

SCENARIO_METHOD(tree, "a killed root leaves nobody behind") {
  stop(caf::exit_reason::kill);
  expect_gone();
}
