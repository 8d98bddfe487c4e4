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
      [](const get_unit_status&) { return unit_status{}; },
      [facts](const instance_launched& x) {
        facts->push_back("launched " + std::to_string(x.slot) + '/'
                         + std::to_string(x.life) + " pid "
                         + std::to_string(x.pid));
      },
      [facts](const instance_ready& x) {
        facts->push_back("ready " + std::to_string(x.slot) + '/'
                         + std::to_string(x.life) + ' ' + x.address);
      },
      [](const backend_drained&) {},
      [](const listener_changed&) {},
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

  void start(std::chrono::milliseconds grace = 0ms) {
    instance_args args;
    args.request.id = "web-3";
    args.request.life = 7;
    args.slot = 3;
    args.grace_period = grace;
    args.stop_timeout = 5s;
    args.stop_signal = 2;
    args.ready_timeout = 10s;
    args.launcher = world.launcher;
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
  WHEN("it becomes ready after all") {
    m->ready("web-3");
    run();
    THEN("that is too late") {
      CHECK(facts->size() == 1);
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
