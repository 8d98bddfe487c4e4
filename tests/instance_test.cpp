#include "fake_machine.hpp"

using namespace pup;
using namespace pup::test;
using namespace std::chrono_literals;

namespace {

// Plays the cluster: spawns what a test wants and writes facts down.
cluster_actor::behavior_type fake_parent(
    cluster_actor::pointer self, std::shared_ptr<strings> facts,
    std::function<void(cluster_actor::pointer)> init) {
  init(self);
  return {
      [](const scale&) { return scale_report{}; },
      [](const operate_unit&) { return report{}; },
      [](const signal_slots&) { return report{}; },
      [](const get_unit_status&) { return unit_status{}; },
      [](const reconfigure&) { return reconfigured{}; },
      [](const get_unit_history&) { return history_report{}; },
      [facts](const instance_launched& x) {
        facts->push_back("launched " + std::to_string(x.slot) + '/'
                         + std::to_string(x.life) + " pid "
                         + std::to_string(x.pid));
      },
      [facts](const instance_ready& x) {
        facts->push_back("ready " + std::to_string(x.slot) + '/'
                         + std::to_string(x.life) + ' ' + x.address);
      },
      [facts](const instance_health& x) {
        facts->push_back("health " + std::to_string(x.slot) + '/'
                         + std::to_string(x.life) + ' '
                         + (x.fault.empty() ? "good" : x.fault));
      },
      [facts](const instance_expires& x) {
        facts->push_back("expires " + std::to_string(x.slot) + '/'
                         + std::to_string(x.life) + ' ' + x.text);
      },
      [](const backends_assigned&) {},
      [](const backend_reachable&) {},
      [facts](const instance_said& x) {
        facts->push_back("said " + std::to_string(x.slot) + '/'
                         + std::to_string(x.life) + ' ' + x.status
                         + (x.stopping ? " stopping" : ""));
      },
      [facts](const instance_outgrew& x) {
        facts->push_back("outgrew " + std::to_string(x.slot) + '/'
                         + std::to_string(x.life) + ' ' + x.text);
      },
      [](const backend_drained&) {},
      [](const listener_changed&) {},
      [](const report_to&) {},
      [](const launch_granted&) {},
      [](const launch_delayed&) {},
      [](const steer&) {},
  };
}

struct instance_world : fake_world {
  std::shared_ptr<strings> facts = std::make_shared<strings>();
  std::shared_ptr<std::optional<ending>> end =
      std::make_shared<std::optional<ending>>();
  cluster_actor parent;
  instance_actor instance;

  instance_world() {
    m->launches = false;
    m->obeys = false;
  }

  std::optional<health_check> health;
  std::function<void(instance_args&)> more;

  void start(std::chrono::milliseconds grace = 0ms) {
    instance_args args;
    args.health = health;
    args.request.port = 8002;
    args.request.ready = ready_condition::port;
    args.request.id = "web-3";
    args.request.life = 7;
    args.slot = 3;
    args.grace_period = grace;
    args.stop_timeout = 5s;
    args.stop_signal = 2;
    args.ready_timeout = 10s;
    args.launcher = world.launcher;
    if (more)
      more(args);
    auto result = std::make_shared<instance_actor>();
    std::function<void(cluster_actor::pointer)> init =
        [args, result](cluster_actor::pointer self) {
          *result =
              spawn_instance(self, caf::actor_cast<cluster_actor>(self), args);
        };
    parent = sys.spawn(fake_parent, facts, init);
    own(parent);
    run();
    instance = *result;
    caf::actor_cast<caf::strong_actor_ptr>(instance)->get()->attach_functor(
        [seen = end](const caf::error& why) { *seen = ending_of(why); });
    own(instance);
    run();
  }

  void to_ready() {
    m->exec("web-3");
    m->ready("web-3");
    run();
  }

  void stop() {
    caf::anon_send_exit(instance, caf::exit_reason::user_shutdown);
    run();
  }

  bool gone() const {
    return end->has_value();
  }
};

const strings only_launched{"launch web-3"};

}  // namespace

SCENARIO_METHOD(instance_world, "an instance tells its cluster what happens") {
  start();
  CHECK(m->take_log() == only_launched);
  CHECK(facts->empty());
  m->exec("web-3");
  run();
  CHECK(*facts == strings{"launched 3/7 pid 101"});
  m->ready("web-3");
  run();
  CHECK(*facts == strings{"launched 3/7 pid 101", "ready 3/7 127.0.0.1"});

  THEN("a fact that comes twice is told once") {
    m->exec("web-3");
    m->ready("web-3");
    run();
    CHECK(facts->size() == 2);
    CHECK(m->log.empty());
  }
  THEN("its exit reason is the exit status of the process") {
    m->exit("web-3", 42);
    run();
    REQUIRE(gone());
    CHECK((*end)->what == ending::kind::exited);
    CHECK((*end)->code == 42);
  }
  THEN("the ready deadline has no meaning any more") {
    advance(1h);
    CHECK(m->log.empty());
    CHECK_FALSE(gone());
  }
}

SCENARIO_METHOD(instance_world, "facts about another life are no facts") {
  start();
  caf::anon_send(instance, process_launched{6, 99, {}});
  caf::anon_send(instance, process_ready{8, "127.0.0.1"});
  caf::anon_send(instance, process_ended{6, {ending::kind::exited, 1, 0, {}}});
  run();
  CHECK(facts->empty());
  CHECK_FALSE(gone());
}

SCENARIO_METHOD(instance_world, "a process that never comes to be") {
  start();
  m->end("web-3", {ending::kind::not_launched, 0, 0, "port 8000 is in use"});
  run();
  REQUIRE(gone());
  CHECK((*end)->what == ending::kind::not_launched);
  CHECK(to_string(**end) == "port 8000 is in use");
  CHECK(facts->empty());
}

SCENARIO_METHOD(instance_world, "a process ends while it starts") {
  start();
  m->exec("web-3");
  m->exit("web-3", 3);
  run();
  REQUIRE(gone());
  CHECK(to_string(**end) == "exited with code 3");
}

SCENARIO_METHOD(instance_world, "a ready instance is asked to stop") {
  start();
  to_ready();
  m->take_log();
  stop();
  CHECK(m->take_log() == strings{"signal web-3 2"});
  CHECK_FALSE(gone());

  WHEN("the process obeys") {
    m->end("web-3", {ending::kind::signalled, 0, 2, {}});
    run();
    THEN("the instance is gone") {
      REQUIRE(gone());
      CHECK((*end)->what == ending::kind::signalled);
      CHECK((*end)->signal == 2);
    }
  }
  WHEN("it is asked again") {
    stop();
    THEN("one signal is enough") {
      CHECK(m->log.empty());
    }
  }
  WHEN("the process ignores it for terminateTimeout") {
    m->processes.at("web-3").request.life = 0;  // outlives SIGKILL, for now
    advance(5s - 1ms);
    CHECK(m->log.empty());
    advance(1ms);
    CHECK(m->take_log() == strings{"signal web-3 9"});
    THEN("it is killed again each second until it is gone") {
      advance(999ms);
      CHECK(m->log.empty());
      advance(1ms);
      CHECK(m->take_log() == strings{"signal web-3 9"});
      m->processes.at("web-3").request.life = 7;
      advance(1s);
      CHECK(m->take_log() == strings{"signal web-3 9"});
      REQUIRE(gone());
      CHECK((*end)->signal == 9);
    }
  }
  WHEN("late news of its start arrive") {
    m->ready("web-3");
    run();
    THEN("they change nothing") {
      CHECK(facts->size() == 2);
      CHECK(m->log.empty());
    }
  }
}

SCENARIO_METHOD(instance_world,
                "the end of the leader is not that of the life") {
  start();
  to_ready();
  m->take_log();
  facts->clear();
  const ending how{ending::kind::exited, 3, 0, {}, "left pid 5 (sh) running"};

  WHEN("it ends by itself") {
    m->end_leader("web-3", how);
    run();
    THEN("what is left has the time of a stop, and no more") {
      CHECK(*facts
            == strings{"expires 3/7 exited with code 3; left pid 5 (sh) "
                       "running"});
      CHECK(m->take_log() == strings{"signal web-3 2"});
      advance(5s - 1ms);
      CHECK(m->log.empty());
      CHECK_FALSE(gone());
      advance(1ms);
      CHECK(m->take_log() == strings{"signal web-3 9"});
      REQUIRE(gone());
    }
    AND_WHEN("somebody asks it to stop, or it says to be ready") {
      m->take_log();
      stop();
      m->ready("web-3");
      run();
      THEN("nothing is done twice") {
        CHECK(m->log.empty());
        CHECK(facts->size() == 1);
      }
    }
    AND_WHEN("the rest ends") {
      m->end("web-3", how);
      run();
      THEN("the leader's end is that of the life") {
        REQUIRE(gone());
        CHECK((*end)->code == 3);
      }
    }
  }
  WHEN("it is being stopped") {
    stop();
    CHECK(m->take_log() == strings{"signal web-3 2"});
    advance(3s);
    m->end_leader("web-3", how);
    run();
    THEN("the rest is asked, too, and the time goes on for both") {
      CHECK(facts->size() == 1);  // the pid is nobody's any more
      CHECK(m->take_log() == strings{"signal web-3 2"});
      advance(2s - 1ms);
      CHECK(m->log.empty());
      advance(1ms);
      CHECK(m->take_log() == strings{"signal web-3 9"});
    }
  }
}

SCENARIO_METHOD(instance_world,
                "the time to end counts once, whoever has begun to end it") {
  m->left["web-3"] = std::nullopt;
  more = [](instance_args& args) {
    args.hooks.pre_stop.argv = {"true"};
    args.adopted.emplace();
    args.adopted->pid = 4711;
    args.adopted->ending = 3s;
  };
  start(2s);
  m->take_log();
  WHEN("its leader has ended") {
    m->end_leader("web-3", {ending::kind::exited, 3, 0, {}});
    run();
  }
  WHEN("it was being stopped") {
    stop();
  }
  CHECK(m->take_log() == strings{"signal web-3 2"});
  advance(2s - 1ms);
  CHECK(m->log.empty());
  advance(1ms);
  CHECK(m->take_log() == strings{"signal web-3 9"});
}

SCENARIO_METHOD(instance_world,
                "an adopted life that is stopped after its time") {
  m->left["web-3"] = std::nullopt;
  more = [](instance_args& args) {
    args.adopted.emplace();
    args.adopted->pid = 4711;
    args.adopted->ending = 300s;
  };
  start();
  m->take_log();
  stop();
  advance(0ms);
  CHECK(m->take_log() == strings{"signal web-3 2", "signal web-3 9"});
}

SCENARIO_METHOD(instance_world, "a leader that ends before it is ready") {
  start();
  m->exec("web-3");
  run();
  m->take_log();
  m->end_leader("web-3", {ending::kind::exited, 0, 0, {}});
  run();
  CHECK(m->take_log() == strings{"signal web-3 2"});
  m->ready("web-3");
  run();
  CHECK(*facts
        == strings{"launched 3/7 pid 101", "expires 3/7 exited with code 0"});
}

SCENARIO_METHOD(instance_world, "a leader that ends within the grace period") {
  start(2s);
  to_ready();
  m->take_log();
  stop();
  m->end_leader("web-3", {ending::kind::exited, 0, 0, {}});
  run();
  CHECK(m->log.empty());
  advance(2s);
  CHECK(m->take_log() == strings{"signal web-3 2"});
  advance(5s);
  CHECK(m->take_log() == strings{"signal web-3 9"});
}

SCENARIO_METHOD(instance_world,
                "the grace period comes before the stop signal") {
  start(2s);
  to_ready();
  m->take_log();
  stop();
  advance(2s - 1ms);
  CHECK(m->log.empty());
  advance(1ms);
  CHECK(m->take_log() == strings{"signal web-3 2"});
  advance(5s - 1ms);
  CHECK(m->log.empty());
  advance(1ms);
  CHECK(m->take_log() == strings{"signal web-3 9"});
  CHECK(gone());
}

SCENARIO_METHOD(instance_world, "a process that ends within the grace period") {
  start(2s);
  to_ready();
  m->take_log();
  stop();
  m->exit("web-3", 0);
  run();
  CHECK(gone());
  advance(1min);
  CHECK(m->log.empty());
}

SCENARIO_METHOD(instance_world, "the stop overtakes the launch") {
  start();
  m->take_log();
  stop();
  CHECK(m->log.empty());  // nobody to signal yet

  WHEN("the process appears") {
    m->exec("web-3");
    run();
    THEN("it gets the stop signal at once, and SIGKILL in its time") {
      CHECK(m->take_log() == strings{"signal web-3 2"});
      m->ready("web-3");
      advance(5s);
      CHECK(m->take_log() == strings{"signal web-3 9"});
      CHECK(*facts == strings{"launched 3/7 pid 101"});
      CHECK(gone());
    }
  }
  WHEN("no process appears for terminateTimeout") {
    advance(5s - 1ms);
    CHECK(m->log.empty());
    advance(1ms);
    THEN("the launch itself is ended") {
      CHECK(m->take_log() == strings{"signal web-3 9"});
      CHECK(gone());
    }
  }
  WHEN("the launch fails") {
    m->end("web-3", {ending::kind::not_launched, 0, 0, "no such program"});
    run();
    THEN("that is the end") {
      REQUIRE(gone());
      CHECK((*end)->text == "no such program");
    }
  }
}

SCENARIO_METHOD(instance_world, "a process is not ready in time") {
  start();
  m->exec("web-3");
  advance(10s - 1ms);
  m->take_log();
  run();
  CHECK(m->log.empty());
  advance(1ms);
  CHECK(m->take_log() == strings{"signal web-3 2"});

  WHEN("it ends, with whatever status") {
    m->exit("web-3", 0);
    run();
    THEN("lateness is the reason") {
      REQUIRE(gone());
      CHECK((*end)->what == ending::kind::not_ready);
      CHECK(to_string(**end) == "was not ready in time");
    }
  }
  WHEN("it ends, and something was found in place of its readiness") {
    caf::anon_send(instance,
                   process_ended{7,
                                 {ending::kind::exited, 0, 0, {}},
                                 "listens on 127.0.0.1:81, not on port 80"});
    run();
    THEN("that is told") {
      REQUIRE(gone());
      CHECK(to_string(**end)
            == "was not ready in time (listens on 127.0.0.1:81, not on port "
               "80)");
    }
  }
  WHEN("it becomes ready after all") {
    m->ready("web-3");
    run();
    THEN("that is too late") {
      CHECK(facts->size() == 1);
    }
  }
  WHEN("it has something to say on its way out") {
    caf::anon_send(instance, process_said{7, true, true, true, "bye"});
    caf::anon_send(instance, process_outgrew{7, "used 6"});
    run();
    THEN("that is not what decides") {
      CHECK(facts->size() == 1);
      m->exit("web-3", 0);
      run();
      REQUIRE(gone());
      CHECK((*end)->what == ending::kind::not_ready);
    }
  }
  WHEN("it does not end") {
    advance(5s);
    THEN("it is killed") {
      CHECK(m->take_log() == strings{"signal web-3 9"});
      REQUIRE(gone());
      CHECK((*end)->what == ending::kind::not_ready);
    }
  }
}

SCENARIO_METHOD(instance_world, "an instance without a parent ends at once") {
  start();
  to_ready();
  m->take_log();
  caf::anon_send_exit(parent, caf::exit_reason::kill);
  run();
  CHECK(gone());
  CHECK(m->take_log() == strings{"reap web-3"});
}

SCENARIO_METHOD(instance_world,
                "an instance that is killed leaves no process") {
  start();
  to_ready();
  m->take_log();
  caf::anon_send_exit(instance, caf::exit_reason::kill);
  run();
  CHECK(gone());
  CHECK((*end)->what == ending::kind::lost);
  CHECK(m->take_log() == strings{"reap web-3"});
}

SCENARIO_METHOD(instance_world, "an instance without a launcher ends") {
  start();
  to_ready();
  caf::anon_send_exit(world.launcher, caf::exit_reason::kill);
  run();
  REQUIRE(gone());
  CHECK(to_string(**end) == "its actor failed (the launcher has ended)");
}

// -- health -------------------------------------------------------------------

SCENARIO_METHOD(instance_world, "health checks come between ready and stop") {
  health.emplace();
  start();
  m->exec("web-3");
  advance(5s);
  CHECK(m->probes == 0);
  m->ready("web-3");
  run();
  advance(1s - 1ms);
  CHECK(m->probes == 0);
  advance(1ms);
  CHECK(m->probes == 1);
  advance(9s);
  CHECK(m->probes == 10);
  CHECK(facts->size() == 2);  // good news is no news
  stop();
  advance(3s);
  CHECK(m->probes == 10);
}

SCENARIO_METHOD(instance_world,
                "a failed check makes a suspect, good ones end it") {
  health.emplace();
  start();
  to_ready();
  facts->clear();
  m->faults[8002] = "no answer";
  advance(1s);
  CHECK(*facts == strings{"health 3/7 no answer"});
  advance(1s);  // the second in a row is no news
  m->faults.clear();
  advance(1s);
  CHECK(facts->size() == 1);
  m->faults[8002] = "no answer";
  advance(1s);  // neither count goes on
  m->faults.clear();
  advance(2s);
  CHECK(*facts == strings{"health 3/7 no answer", "health 3/7 good"});
  CHECK_FALSE(gone());
}

SCENARIO_METHOD(instance_world, "too many failed checks end a life") {
  health.emplace();
  health->timeout = 700ms;
  m->faults[8002] = "no answer";

  GIVEN("a process that does not hear signals any more") {
    start();
    to_ready();
    m->take_log();
    advance(3s);
    CHECK(m->take_log() == strings{"signal web-3 2"});
    advance(700ms - 1ms);
    CHECK(m->log.empty());
    advance(1ms);  // not after its stop_timeout of 5 s
    CHECK(m->take_log() == strings{"signal web-3 9"});
    REQUIRE(gone());
    CHECK((*end)->what == ending::kind::unhealthy);
    CHECK(to_string(**end) == "failed 3 health checks in a row: no answer");
  }
  GIVEN("one that does") {
    m->obeys = true;
    health->unhealthy_after = 1;
    start();
    to_ready();
    advance(1s);
    REQUIRE(gone());
    CHECK((*end)->what == ending::kind::unhealthy);
    CHECK(to_string(**end) == "failed 1 health checks in a row: no answer");
  }
}

// -- hooks, readiness by a command, watchdog, time-out
// -------------------------

namespace {

command_spec command(const std::string& name) {
  command_spec result;
  result.argv = {name};
  result.timeout = 3s;
  return result;
}

struct life_world : instance_world {
  void start(const std::function<void(instance_args&)>& change) {
    more = change;
    instance_world::start();
  }

  // The only process whose id begins so.
  std::string task(const std::string& name) const {
    for (const auto& [id, x] : m->processes)
      if (id.starts_with("web-3!" + name + '.'))
        return id;
    return "none";
  }

  void end_task(const std::string& name, int code) {
    m->exit(task(name), code);
    run();
  }
};

}  // namespace

SCENARIO_METHOD(life_world, "preStart comes before the process") {
  start([](auto& x) { x.hooks.pre_start = command("prepare"); });
  CHECK(m->take_log() == strings{"launch web-3!preStart.7.1"});
  CHECK(m->launched.back().env.at("PUP_HOOK") == "preStart");
  THEN("which is started when it succeeds") {
    end_task("preStart", 0);
    CHECK(m->take_log() == only_launched);
  }
  THEN("which is never started when it fails") {
    end_task("preStart", 3);
    REQUIRE(gone());
    CHECK(to_string(**end) == "hook preStart: exited with code 3");
    CHECK(m->log.empty());
  }
  THEN("it is killed when it takes too long") {
    advance(3s);
    REQUIRE(gone());
    CHECK(to_string(**end) == "hook preStart: took longer than 3000 ms");
    CHECK(m->processes.empty());
  }
  THEN("a stop ends it") {
    stop();
    CHECK(gone());
    CHECK(m->processes.empty());
  }
}

SCENARIO_METHOD(life_world, "postStart comes before ready is told") {
  start([](auto& x) { x.hooks.post_start = command("announce"); });
  to_ready();
  CHECK(*facts == strings{"launched 3/7 pid 101"});
  THEN("and has to succeed") {
    end_task("postStart", 0);
    CHECK(facts->back() == "ready 3/7 127.0.0.1");
  }
  THEN("a failure stops the process") {
    end_task("postStart", 1);
    CHECK(m->log.back() == "signal web-3 2");
    m->exit("web-3", 0);
    run();
    CHECK(to_string(**end) == "hook postStart: exited with code 1");
  }
}

SCENARIO_METHOD(life_world, "preStop and postStop surround the end") {
  start([](auto& x) {
    x.hooks.pre_stop = command("goodbye");
    x.hooks.post_stop = command("sweep");
  });
  to_ready();
  m->take_log();
  THEN("of a process that is stopped") {
    stop();
    CHECK(m->take_log() == strings{"launch web-3!preStop.7.1"});
    end_task("preStop", 9);  // it is stopped all the same
    CHECK(m->take_log() == strings{"signal web-3 2"});
    m->exit("web-3", 4);
    run();
    CHECK_FALSE(gone());
    CHECK(m->launched.back().env.at("PUP_HOOK") == "postStop");
    CHECK(m->launched.back().env.at("PUP_EXIT_CODE") == "4");
    end_task("postStop", 0);
    REQUIRE(gone());
    CHECK((*end)->code == 4);
  }
  THEN("of a process that ends by itself, which no stop precedes") {
    m->end("web-3", {ending::kind::signalled, 0, 11, {}});
    run();
    CHECK(m->launched.back().env.at("PUP_HOOK") == "postStop");
    CHECK(m->launched.back().env.at("PUP_EXIT_SIGNAL") == "11");
    stop();  // changes nothing any more
    CHECK_FALSE(gone());
    advance(3s);
    REQUIRE(gone());
    CHECK((*end)->signal == 11);
  }
  THEN("a hook that hangs delays the stop by its time-out, no longer") {
    stop();
    advance(2999ms);
    CHECK(m->take_log() == strings{"launch web-3!preStop.7.1"});
    advance(1ms);
    CHECK(m->log.back() == "signal web-3 2");
  }
}

SCENARIO_METHOD(life_world, "a command decides when it is ready") {
  start([](auto& x) { x.ready_command = command("check"); });
  to_ready();
  CHECK(m->log.back() == "launch web-3!ready.7.1");
  end_task("ready", 1);
  CHECK(facts->back() == "said 3/7 readiness: exited with code 1");
  advance(99ms);
  CHECK(task("ready") == "none");
  advance(1ms);
  end_task("ready", 1);
  advance(199ms);
  CHECK(task("ready") == "none");
  advance(1ms);
  THEN("the first success counts") {
    end_task("ready", 0);
    CHECK(facts->back() == "ready 3/7 127.0.0.1");
    advance(60s);
    CHECK(task("ready") == "none");
  }
  THEN("the time for readiness runs all the while") {
    m->obeys = true;
    advance(10s);
    REQUIRE(gone());
    CHECK((*end)->what == ending::kind::not_ready);
    CHECK(m->processes.empty());
  }
}

SCENARIO_METHOD(life_world, "a watchdog wants to be fed once it is ready") {
  start([](auto& x) { x.request.watchdog = 500ms; });
  m->exec("web-3");
  run();
  advance(5s);
  CHECK_FALSE(gone());
  m->ready("web-3");
  run();
  const auto say = [this](process_said what) {
    what.life = 7;
    caf::anon_send(m->processes.at("web-3").owner, what);
    run();
  };
  process_said alive;
  alive.alive = true;
  advance(499ms);
  say(alive);
  advance(499ms);
  CHECK(m->log == only_launched);
  THEN("silence ends the process") {
    advance(1ms);
    CHECK(m->log.back() == "signal web-3 2");
    m->exit("web-3", 0);
    run();
    CHECK((*end)->what == ending::kind::unhealthy);
    CHECK(to_string(**end) == "its watchdog has been silent for 500 ms");
  }
  THEN("so does trouble, at once") {
    process_said trouble;
    trouble.trouble = true;
    say(trouble);
    CHECK(m->log.back() == "signal web-3 2");
  }
  THEN("what it says is passed on") {
    process_said words;
    words.status = "reading 5 of 7";
    words.stopping = true;
    say(words);
    CHECK(facts->back() == "said 3/7 reading 5 of 7 stopping");
  }
}

SCENARIO_METHOD(life_world, "a run has an end") {
  start([](auto& x) { x.run_timeout = 20s; });
  to_ready();
  advance(19'999ms);
  CHECK(m->log == only_launched);
  advance(1ms);
  CHECK(m->log.back() == "signal web-3 2");
  advance(5s);
  REQUIRE(gone());
  CHECK(to_string(**end) == "ran longer than its timeout of 20000 ms");
}

SCENARIO_METHOD(life_world,
                "a life that outgrows its memory tells its cluster") {
  start([](auto& x) { x.request.max_memory = 5; });
  to_ready();
  CHECK(m->processes.at("web-3").request.max_memory == 5);
  const auto tell = [this](std::uint64_t life) {
    caf::anon_send(m->processes.at("web-3").owner,
                   process_outgrew{life, "used 6"});
    run();
  };
  const auto before = facts->size();
  tell(6);
  CHECK(facts->size() == before);
  tell(7);
  CHECK(facts->back() == "outgrew 3/7 used 6");
}

// -- pup itself stood still ---------------------------------------------------

SCENARIO_METHOD(instance_world, "nobody is judged by a time pup did not see") {
  GIVEN("a process that owes its readiness") {
    start();
    m->exec("web-3");
    run();
    scheduler.clock().advance_time(60s);  // stopped for a minute
    run();
    CHECK(m->take_log() == only_launched);
    THEN("it may have become ready meanwhile") {
      m->ready("web-3");
      run();
      CHECK(facts->back() == "ready 3/7 127.0.0.1");
      advance(1h);
      CHECK(m->take_log().empty());
    }
    THEN("it has its whole time once more, and no more than that") {
      advance(10s - 1ns);
      CHECK(m->take_log().empty());
      scheduler.clock().advance_time(60s);
      run();
      CHECK(m->take_log() == strings{"signal web-3 2"});
    }
  }
  GIVEN("one that owes a word to its watchdog") {
    more = [](instance_args& x) { x.request.watchdog = 500ms; };
    start();
    to_ready();
    m->take_log();
    scheduler.clock().advance_time(10s);
    run();
    THEN("what it has said meanwhile counts") {
      caf::anon_send(instance, process_said{7, false, true, false, {}});
      run();
      advance(500ms - 1ns);
      CHECK(m->take_log().empty());
      advance(1ns);
      CHECK(m->take_log() == strings{"signal web-3 2"});
    }
    THEN("silence still ends it") {
      advance(500ms);
      CHECK(m->take_log() == strings{"signal web-3 2"});
    }
  }
}
