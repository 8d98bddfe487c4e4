// Schedules of processes: the pure part against jumping clocks, and what a
// cluster does by the clock, in virtual time.
#include "pup/actors/schedule.hpp"

#include "pup/actors/slot.hpp"
#include "pup/actors/supervisor.hpp"

#include "fake_machine.hpp"
#include "unit_child.hpp"

using namespace pup;
using namespace pup::test;
using namespace std::chrono;
using namespace std::chrono_literals;

namespace {

const auto midnight = sys_days{year{2026} / 5 / 4};  // a Monday

/// `wall` after the clock was set forward by `jump` since midnight.
clock_reading at(system_clock::time_point wall, seconds jump = 0s) {
  return {wall, steady_clock::time_point{wall - jump - midnight}};
}

}  // namespace

TEST_CASE("schedule: each moment once, and late ones only once") {
  schedule x{"*/10 * * * *", "", utc, at(midnight)};
  CHECK(x.next() == midnight + 10min);
  CHECK_FALSE(x.take(at(midnight + 9min + 59s)).start);
  CHECK(x.take(at(midnight + 10min)).start);
  CHECK_FALSE(x.take(at(midnight + 10min + 1s)).start);
  CHECK(x.next() == midnight + 20min);
  CHECK(x.take(at(midnight + 45min)).start);
  CHECK(x.next() == midnight + 50min);
}

TEST_CASE("schedule: start and stop are told apart, and come together") {
  schedule x{"0 3 * * *", "0 3,5 * * *", utc, at(midnight)};
  auto both = x.take(at(midnight + 3h));
  CHECK((both.start && both.stop));
  CHECK(x.next() == midnight + 5h);
  auto stop = x.take(at(midnight + 5h));
  CHECK((stop.stop && !stop.start));
  CHECK(x.next() == midnight + 27h);
}

TEST_CASE("schedule: a clock that is set") {
  schedule x{"0 3 * * *", "", utc, at(midnight + 2h)};
  SECTION("forward by less than three hours: what was missed is due") {
    x.set(at(midnight + 4h, 2h));
    CHECK(x.next() == midnight + 3h);
    CHECK(x.take(at(midnight + 4h, 2h)).start);
    CHECK(x.next() == midnight + 27h);
  }
  SECTION("forward by more: it begins anew") {
    x.set(at(midnight + 6h, 4h));
    CHECK(x.next() == midnight + 27h);
  }
  SECTION("back by less than three hours: nothing happens twice") {
    CHECK(x.take(at(midnight + 3h)).start);
    x.set(at(midnight + 1h, -2h));
    CHECK(x.next() == midnight + 27h);
  }
  SECTION("back by more: it begins anew") {
    CHECK(x.take(at(midnight + 3h)).start);
    x.set(at(midnight - 2h, -5h));
    CHECK(x.next() == midnight + 3h);
  }
  SECTION("a little, long after the last run: that is no long jump") {
    CHECK(x.take(at(midnight + 3h)).start);
    SECTION("over the next one, which is due") {
      x.set(at(midnight + 27h + 1s, 2s));
      CHECK(x.next() == midnight + 27h);
      CHECK(x.take(at(midnight + 27h + 1s, 2s)).start);
    }
    SECTION("back over the one that was") {
      CHECK(x.take(at(midnight + 27h)).start);
      x.set(at(midnight + 27h - 1s, -2s));
      CHECK(x.next() == midnight + 51h);
    }
    SECTION("twice, by two hours each") {
      x.set(at(midnight + 28h, 2h));
      x.set(at(midnight + 30h, 4h));
      CHECK(x.next() == midnight + 27h);
    }
  }
}

TEST_CASE("schedule: runs that nobody was there for are counted") {
  const auto missed = [](const std::string& cron, sys_seconds since,
                         sys_seconds now) {
    return missed_runs(cron, utc, since, now);
  };
  // After the one that was acted upon, up to now.
  CHECK(missed("*/10 * * * *", midnight, midnight + 9min + 59s).empty());
  CHECK(missed("*/10 * * * *", midnight, midnight + 10min)
        == "missed 1 run while pup was down, at 2026-05-04 00:10:00");
  CHECK(missed("*/10 * * * *", midnight + 1s, midnight + 35min)
        == "missed 3 runs while pup was down, the last at 2026-05-04 00:30:00");
  CHECK(missed("0 3 * * *", midnight, midnight + days{400})
        == "missed 400 runs while pup was down, the last at 2027-06-07 "
           "03:00:00");
  // However long it was, it costs no more than a thousand.
  CHECK(missed("* * * * * *", midnight, midnight + days{4'000})
        == "missed more than 1000 runs while pup was down, the last at "
           "2037-04-16 00:00:00");
  CHECK(missed("0 0 29 2 *", midnight, midnight + days{3'000})
        == "missed 2 runs while pup was down, the last at 2032-02-29 00:00:00");
  // A clock that was set back, and what is no cron expression.
  CHECK(missed("*/10 * * * *", midnight, midnight - 5h).empty());
  CHECK(missed("", midnight, midnight + 5h).empty());
  const pup::time_zone east = [](sys_seconds) {
    return zone_period{sys_seconds::min(), sys_seconds::max(), 2h};
  };
  CHECK(missed_runs("0 3 * * *", east, midnight, midnight + 2h)
        == "missed 1 run while pup was down, at 2026-05-04 03:00:00");
}

TEST_CASE("schedule: none") {
  CHECK_FALSE(schedule("", "", utc, at(midnight)).next());
}

namespace {

struct clock_world : fake_world {
  cluster_actor unit;
  supervisor_actor root;
  std::shared_ptr<std::vector<std::function<void()>>> watchers =
      std::make_shared<std::vector<std::function<void()>>>();
  std::shared_ptr<system_clock::duration> shift =
      std::make_shared<system_clock::duration>(0);

  process_spec spec;
  std::string missed;
  wanted_state kept;

  clock_world() {
    spec.id = "job";
    spec.argv = {"work"};
    const auto begin = now();
    world.wall.now = [this, begin, s = shift] {
      return midnight + duration_cast<system_clock::duration>(now() - begin)
             + *s;
    };
    world.wall.on_set = [w = watchers](std::function<void()> f) {
      w->push_back(std::move(f));
    };
  }

  void set_clock(system_clock::duration by) {
    *shift += by;
    for (auto& f : *watchers)
      f();
    run();
  }

  void start() {
    cluster_args args;
    args.spec = spec;
    args.supervisor = "pup";
    args.world = world;
    args.missed = missed;
    supervisor_spec tree;
    tree.limit = {};
    tree.on_keep = [this](const std::string&, const caf::message& value) {
      kept = value.get_as<wanted_state>(0);
    };
    tree.children.push_back(unit_child(std::move(args)));
    root = own(spawn_supervisor(sys, std::move(tree)));
    run();
    unit = caf::actor_cast<cluster_actor>(
        ask<std::vector<child_info>>(root, which_children{})
            ->value()
            .at(0)
            .handle);
  }

  std::string states() {
    std::string result;
    const auto status = ask<unit_status>(unit, get_unit_status{});
    for (auto& x : status->value().instances)
      result += (result.empty() ? "" : " ") + to_string(x.state);
    return result;
  }

  std::string operate(verb what) {
    auto x = ask<report>(unit, operate_unit{what, 0, true});
    return x->pending() ? "pending" : x->value().outcomes.at(0).text;
  }

  std::size_t starts() const {
    return m->launched.size();
  }
};

}  // namespace

SCENARIO_METHOD(clock_world, "a job starts by the clock and by nothing else") {
  spec.cron = "*/10 * * * *";
  spec.autostart = false;
  spec.restart = restart_policy::never;
  start();
  CHECK(states() == "waiting");
  advance(10min - 1ms);
  CHECK(starts() == 0);
  advance(1ms);
  CHECK(starts() == 1);
  CHECK(states() == "ready");
  THEN("a run that lasts is not overrun") {
    advance(25min);
    CHECK(starts() == 1);
    m->exit("job", 0);
    run();
    CHECK(states() == "finished");
    advance(5min);
    CHECK(starts() == 2);
  }
  THEN("a failed run waits for the next moment") {
    m->exit("job", 1);
    run();
    CHECK(states() == "failed");
    advance(9min + 59s);
    CHECK(starts() == 1);
    advance(1s);
    CHECK(starts() == 2);
  }
  THEN("a clock that is set forward makes it due at once") {
    m->exit("job", 0);
    run();
    set_clock(1h);
    CHECK(starts() == 1);
    advance(0s);
    CHECK(starts() == 2);
    advance(9min);
    CHECK(starts() == 2);
  }
  THEN("blocked, it does not start") {
    m->exit("job", 0);
    run();
    CHECK(operate(verb::block) == "blocked");
    CHECK(states() == "blocked");
    advance(1h);
    CHECK(starts() == 1);
    CHECK(operate(verb::start) == "is blocked; pup unblock job");
    CHECK(operate(verb::unblock) == "ready");
    CHECK(starts() == 2);
  }
}

SCENARIO_METHOD(clock_world, "what always runs begins anew by the clock") {
  spec.terminate_cron = "0 3 * * *";
  start();
  CHECK(starts() == 1);
  advance(3h);
  CHECK(starts() == 2);
  CHECK(states() == "ready");
  THEN("but not after somebody has stopped it") {
    operate(verb::stop);
    advance(24h);
    CHECK(starts() == 2);
    CHECK(states() == "stopped");
  }
}

SCENARIO_METHOD(clock_world, "what need not run is stopped by the clock") {
  spec.terminate_cron = "0 3 * * *";
  spec.restart = restart_policy::on_error;
  start();
  advance(3h);
  CHECK(starts() == 1);
  CHECK(states() == "stopped");
}

SCENARIO_METHOD(clock_world, "instances are replaced by age, one by one") {
  spec.id = "web";
  spec.ready = ready_condition::port;
  spec.cluster.emplace();
  spec.cluster->instances = 3;
  spec.cluster->start_port = 8000;
  spec.max_age = 100s;
  start();
  advance(90s - 1ms);
  CHECK(starts() == 3);
  m->becomes_ready = false;
  advance(10s + 1ms);
  // All three are old, one is being replaced.
  CHECK(starts() == 4);
  auto replaced = m->launched.back().id;
  m->ready(replaced);
  run();
  CHECK(starts() == 5);
  m->ready(m->launched.back().id);
  run();
  CHECK(starts() == 6);
  m->ready(m->launched.back().id);
  run();
  CHECK(starts() == 6);
  CHECK(states() == "ready ready ready");
}

SCENARIO_METHOD(clock_world, "a blocked process runs on, but not again") {
  start();
  CHECK(operate(verb::block) == "blocked; the process that runs goes on");
  CHECK(states() == "ready");
  CHECK(operate(verb::restart) == "is blocked; pup unblock job");
  m->exit("job", 1);
  run();
  CHECK(states() == "blocked");
  advance(1h);
  CHECK(starts() == 1);
  THEN("its actor's next life knows it still") {
    caf::anon_send_exit(caf::actor_cast<caf::strong_actor_ptr>(unit),
                        caf::exit_reason::kill);
    run();
    advance(10s);
    CHECK(starts() == 1);
  }
  THEN("it starts when it is unblocked, as it was wanted") {
    CHECK(operate(verb::unblock) == "ready");
    CHECK(states() == "ready");
  }
}

SCENARIO_METHOD(clock_world, "a signal goes to what runs") {
  m->obeys = false;
  start();
  m->take_log();
  auto sent = ask<report>(unit, signal_slots{0, 1});
  CHECK(sent->value().outcomes.at(0).text == "signalled, pid 101");
  CHECK(m->take_log() == strings{"signal job 1"});
  m->obeys = true;
  operate(verb::stop);
  sent = ask<report>(unit, signal_slots{0, 1});
  CHECK_FALSE(sent->value().outcomes.at(0).ok);
}

// -- overrun ------------------------------------------------------------------

SCENARIO_METHOD(clock_world, "with overrun a run that is due waits its turn") {
  spec.cron = "*/10 * * * *";
  spec.autostart = false;
  spec.restart = restart_policy::never;
  spec.overrun = true;
  start();
  advance(10min);
  CHECK(starts() == 1);
  advance(25min);  // due twice meanwhile: one at most waits
  CHECK(starts() == 1);
  THEN("it begins when the other has ended, whatever came of it") {
    m->exit("job", GENERATE(0, 1));
    run();
    CHECK(starts() == 2);
    m->exit("job", 0);
    run();
    CHECK(states() == "finished");
    CHECK(starts() == 2);
    advance(5min);
    CHECK(starts() == 3);
  }
  THEN("a stop means that one, too") {
    operate(verb::stop);
    CHECK(states() == "stopped");
    CHECK(starts() == 1);
  }
  THEN("nothing begins while it is blocked") {
    operate(verb::block);
    m->exit("job", 0);
    run();
    CHECK(states() == "blocked");
    CHECK(starts() == 1);
  }
}

// -- maxMemory ----------------------------------------------------------------

namespace {

struct growing_world : clock_world {
  growing_world() {
    spec.id = "web";
    spec.max_memory = 300u << 20;
  }

  void cluster_of(std::uint32_t count) {
    spec.ready = ready_condition::port;
    spec.cluster.emplace();
    spec.cluster->instances = count;
    spec.cluster->start_port = 8000;
    spec.cluster->common_port = 3000;
    start();
  }

  void outgrow(const std::string& id) {
    const auto& x = m->processes.at(id);
    caf::anon_send(
        x.owner,
        process_outgrew{x.request.life, "used 312M, more than maxMemory 300M"});
    run();
  }

  instance_status instance(std::size_t i) {
    return ask<unit_status>(unit, get_unit_status{})->value().instances.at(i);
  }
};

}  // namespace

SCENARIO_METHOD(growing_world,
                "who outgrows its memory is drained, restarted") {
  cluster_of(2);
  CHECK(m->launched.front().max_memory == 300u << 20);
  m->clients[2] = 1;
  outgrow("web-2");
  CHECK(states() == "ready draining");
  CHECK(instance(1).reason == "used 312M, more than maxMemory 300M");
  m->becomes_ready = false;
  m->clients_leave("web", 2);
  run();
  CHECK(states() == "ready starting");
  CHECK(instance(1).restarts == 1);
  CHECK(instance(1).reason.starts_with(
      "used 312M, more than maxMemory 300M; starting again"));
  m->ready("web-2");
  run();
  CHECK(states() == "ready ready");
  CHECK(instance(1).reason.empty());
}

SCENARIO_METHOD(growing_world,
                "instances are restarted for memory one by one") {
  cluster_of(3);
  m->becomes_ready = false;
  outgrow("web-1");
  outgrow("web-2");
  CHECK(starts() == 4);
  CHECK(states() == "starting ready ready");
  THEN("the next one when the first serves again") {
    m->ready("web-1");
    run();
    CHECK(states() == "ready starting ready");
  }
  THEN("the next one when the first does not come up, too") {
    m->exit("web-1", 1);
    run();
    CHECK(states() == "backoff starting ready");
  }
}

SCENARIO_METHOD(growing_world, "restarts for memory count") {
  spec.restart_limit = 1;
  start();
  advance(5s);
  outgrow("web");
  CHECK(states() == "ready");
  CHECK(instance(0).restarts == 1);
  advance(5s);
  outgrow("web");
  CHECK(states() == "exhausted");
  CHECK(instance(0).reason
        == "used 312M, more than maxMemory 300M; more than 1 restarts in 60 s");
}

SCENARIO_METHOD(growing_world, "who may not be restarted is stopped, or left") {
  GIVEN("restart never") {
    spec.restart = restart_policy::never;
    start();
    outgrow("web");
    CHECK(states() == "failed");
    CHECK(instance(0).reason == "used 312M, more than maxMemory 300M");
  }
  GIVEN("a block: what runs goes on") {
    start();
    operate(verb::block);
    outgrow("web");
    CHECK(states() == "ready");
    operate(verb::unblock);
    CHECK(starts() == 2);
  }
  GIVEN("a stop that comes first") {
    cluster_of(1);
    m->clients[1] = 1;
    outgrow("web-1");
    operate(verb::stop);
    m->clients_leave("web", 1);
    run();
    CHECK(states() == "stopped");
    CHECK(starts() == 1);
  }
}

SCENARIO_METHOD(growing_world,
                "who outgrows its memory too early is not lost") {
  m->becomes_ready = false;
  start();
  outgrow("web");
  CHECK(states() == "starting");
  m->ready("web");
  run();
  CHECK(starts() == 2);
}

SCENARIO_METHOD(clock_world, "until when the clock was heeded is kept") {
  spec.cron = "*/10 * * * *";
  spec.autostart = false;
  spec.restart = restart_policy::never;
  start();
  CHECK(kept.clock_seen == midnight);
  advance(9min);
  CHECK(kept.clock_seen == midnight);
  advance(1min);
  CHECK(kept.clock_seen == midnight + 10min);
  // One that still runs, too: this moment was not missed.
  advance(10min);
  CHECK(starts() == 1);
  CHECK(kept.clock_seen == midnight + 20min);
}

SCENARIO_METHOD(clock_world, "a history tells which runs were missed") {
  spec.cron = "*/10 * * * *";
  spec.autostart = false;
  spec.restart = restart_policy::never;
  missed = "missed 3 runs while pup was down, the last at noon";
  start();
  CHECK(starts() == 0);
  CHECK(states() == "waiting");
  const auto history = ask<history_report>(unit, get_unit_history{0});
  const auto& entries = history->value().instances.at(0).entries;
  REQUIRE(entries.size() == 1);
  CHECK(entries[0].what == event_kind::said);
  CHECK(entries[0].text == missed);
}
