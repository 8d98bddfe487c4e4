#include "cluster_world.hpp"

using namespace pup;
using namespace pup::test;
using namespace std::chrono_literals;

// -- start --------------------------------------------------------------------

SCENARIO_METHOD(cluster_world, "a cluster starts its instances") {
  m->becomes_ready = false;
  start(web(3));
  CHECK(m->take_log()
        == strings{"open web", "launch web-1", "launch web-2", "launch web-3"});
  auto came_up = operate(verb::await);
  CHECK(came_up->pending());
  m->ready("web-2");
  run();
  CHECK(m->take_log() == strings{"publish web: 2"});
  CHECK(states() == "1:starting 2:ready 3:starting");
  CHECK(status().state == run_state::degraded);
  m->ready("web-1");
  m->ready("web-3");
  run();
  CHECK(m->listeners["web"].shown == " 1 2 3");
  CHECK(texts(came_up)
        == strings{"web-1 + ready", "web-2 + ready", "web-3 + ready"});
  const auto now = status();
  CHECK(now.state == run_state::running);
  CHECK(now.is_cluster);
  CHECK(now.desired == 3);
  CHECK(now.ready == 3);
  CHECK(now.reason.empty());
  REQUIRE(now.balancer.has_value());
  CHECK(now.balancer->port == 3000);
  CHECK(now.balancer->strategy == "round-robin");
  CHECK(now.balancer->mode == "proxy");
  CHECK(now.instances.at(2).id == "web-3");
  CHECK(now.instances.at(2).port == 8002);
  CHECK(now.instances.at(2).pid == 103);
  CHECK(now.instances.at(2).connections_total == 10);
  advance(1500ms);
  CHECK(status().instances.at(0).uptime_ms == 1500);
}

SCENARIO_METHOD(cluster_world, "instances know who they are") {
  auto spec = web(2);
  spec.argv = {"server", "--port=%{port}", "%{id}", "%%{index}"};
  spec.cwd = "/srv/%{index}";
  spec.path = "/opt/bin";
  spec.env = {{"DATA", "/data/%{id}"}, {"PORT", "1"}, {"PUP_ID", "mine"}};
  start(spec);
  const auto& second = m->launched.at(1);
  CHECK(second.argv == strings{"server", "--port=8001", "web-2", "%{index}"});
  CHECK(second.cwd == "/srv/1");
  CHECK(second.path == "/opt/bin");
  CHECK(second.port == 8001);
  CHECK(second.ready == ready_condition::port);
  // env's own PORT wins; the identity is not the configuration's to change.
  CHECK(second.env
        == std::map<std::string, std::string>{
            {"DATA", "/data/web-2"},
            {"PORT", "1"},
            {"PUP_ID", "web-2"},
            {"PUP_NAME", "pup"},
            {"PUP_CLUSTER_INSTANCE", "1"},
            {"PUP_CLUSTER_PORT", "8001"},
            {"DENO_SERVE_ADDRESS", "tcp:127.0.0.1:8001"}});
}

SCENARIO_METHOD(cluster_world, "a single process is a unit of one slot") {
  auto spec = worker();
  spec.argv = {"/bin/sh", "-c", "echo %{id}"};
  spec.shell = true;
  start(spec);
  CHECK(m->take_log() == strings{"launch worker"});
  CHECK(m->launched.at(0).argv == spec.argv);  // the shell's own business
  CHECK(m->launched.at(0).env
        == std::map<std::string, std::string>{{"PUP_ID", "worker"},
                                              {"PUP_NAME", "pup"}});
  const auto now = status();
  CHECK_FALSE(now.is_cluster);
  CHECK(now.state == run_state::ready);
  CHECK(now.instances.at(0).slot == 0);
  CHECK(now.instances.at(0).id == "worker");
  CHECK_FALSE(now.balancer.has_value());
  auto refused =
      ask<scale_report>(unit(), scale{"worker", scale_mode::to, 2, true});
  CHECK(is(refused->error, fault::bad_request));
  CHECK(text_of(refused->error).find("not a cluster") != std::string::npos);
  CHECK(texts(operate(verb::restart, 0, false)) == strings{"worker + begun"});
  CHECK(is(operate(verb::stop, 1)->error, fault::no_such_id));
}

SCENARIO_METHOD(cluster_world, "without autostart nothing runs until asked") {
  auto spec = web(2);
  spec.autostart = false;
  start(spec);
  CHECK(m->log.empty());
  CHECK(status().state == run_state::stopped);
  CHECK(texts(operate(verb::await)).empty());
  auto started = operate(verb::start);
  CHECK(texts(started)
        == strings{"web-1 + ready", "web-2 + ready", "web + listening"});
  CHECK(status().state == run_state::running);
}

// -- failures -----------------------------------------------------------------

SCENARIO_METHOD(cluster_world, "a crashed instance is started again at once") {
  start(web(2));
  m->take_log();
  const auto life = m->launched.at(1).life;
  end("web-2", 3);
  CHECK(m->take_log()
        == strings{"launch web-2", "publish web: 1", "publish web: 1 2"});
  CHECK(m->launched.back().life > life);
  const auto now = status().instances.at(1);
  CHECK(now.state == run_state::ready);
  CHECK(now.restarts == 1);
  CHECK(now.exit_code == 3);
  CHECK_FALSE(now.signal.has_value());
}

SCENARIO_METHOD(cluster_world, "the delay between restarts doubles") {
  start(worker());
  end("worker", 1);  // the first restart is at once
  CHECK(runs("worker"));
  // From 100 ms, 20 % either way, never above 10 s.
  auto base = 100ms;
  for (int i = 0; i < 9; ++i) {
    end("worker", 1);
    CHECK(states() == "0:backoff");
    const auto low = std::min<std::chrono::milliseconds>(base, 10s) * 8 / 10;
    const auto high = std::min<std::chrono::milliseconds>(base * 12 / 10, 10s);
    advance(low - 1ms);
    CHECK_FALSE(runs("worker"));
    for (auto left = high - low + 1ms; left > 0ms && !runs("worker");
         left -= 1ms)
      advance(1ms);
    CHECK(runs("worker"));
    base *= 2;
  }
}

SCENARIO_METHOD(cluster_world, "stable means ready for one second") {
  start(worker());
  end("worker", 1);
  WHEN("it ends just before") {
    advance(1s - 1ns);
    end("worker", 1);
    THEN("the series goes on") {
      CHECK(states() == "0:backoff");
    }
  }
  WHEN("it ends then") {
    advance(1s);
    end("worker", 1);
    THEN("a new series begins: at once") {
      CHECK(states() == "0:ready");
    }
  }
}

SCENARIO_METHOD(cluster_world, "the time before it was ready does not count") {
  start(worker());
  m->becomes_ready = false;
  end("worker", 1);
  advance(5s);
  m->ready("worker");
  run();
  advance(1s - 1ns);
  end("worker", 1);
  CHECK(states() == "0:backoff");
}

SCENARIO_METHOD(cluster_world, "the first delay is the configured one") {
  auto spec = worker();
  spec.restart_delay = 3s;
  start(spec);
  end("worker", 1);
  CHECK(status().reason == "exited with code 1; starting again in 3000 ms");
  advance(3s - 1ms);
  CHECK_FALSE(runs("worker"));
  advance(1ms);
  CHECK(runs("worker"));
}

SCENARIO_METHOD(cluster_world, "restart policies and exit codes") {
  struct row {
    restart_policy policy;
    int code;
    std::string state;
  };
  auto spec = worker();
  spec.success_exit_codes = {0, 7};
  spec.no_restart_exit_codes = {7, 9};
  const auto x = GENERATE(row{restart_policy::always, 0, "0:ready"},
                          row{restart_policy::always, 1, "0:ready"},
                          row{restart_policy::always, 7, "0:finished"},
                          row{restart_policy::always, 9, "0:failed"},
                          row{restart_policy::on_error, 0, "0:finished"},
                          row{restart_policy::on_error, 1, "0:ready"},
                          row{restart_policy::on_error, 7, "0:finished"},
                          row{restart_policy::on_error, 9, "0:failed"},
                          row{restart_policy::never, 0, "0:finished"},
                          row{restart_policy::never, 1, "0:failed"});
  CAPTURE(static_cast<int>(x.policy), x.code);
  spec.restart = x.policy;
  start(spec);
  end("worker", x.code);
  CHECK(states() == x.state);
  CHECK(status().instances.at(0).exit_code == x.code);
  advance(1h);
  CHECK(states() == x.state);
  // Whatever it was, it can be started again.
  CHECK(texts(operate(verb::start)) == strings{"worker + ready"});
}

SCENARIO_METHOD(cluster_world, "a signal is no success") {
  auto spec = worker();
  spec.restart = restart_policy::never;
  start(spec);
  m->end("worker", {ending::kind::signalled, 0, 11, {}});
  run();
  const auto now = status().instances.at(0);
  CHECK(now.state == run_state::failed);
  CHECK(now.signal == 11);
  CHECK_FALSE(now.exit_code.has_value());
  CHECK(now.reason == "killed by SIGSEGV");
}

SCENARIO_METHOD(cluster_world, "restartLimit is each slot's own") {
  auto spec = web(2, false);
  spec.restart_limit = 2;
  spec.restart_period = 60s;
  start(spec);
  for (int i = 0; i < 2; ++i) {
    end("web-1", 1);
    advance(1s);
  }
  CHECK(states() == "1:ready 2:ready");
  end("web-1", 1);
  CHECK(states() == "1:exhausted 2:ready");
  CHECK(status().state == run_state::degraded);
  CHECK(status().reason
        == "web-1: exited with code 1; more than 2 restarts in 60 s");
  advance(1h);
  CHECK(states() == "1:exhausted 2:ready");
  WHEN("the other one has no luck either") {
    for (int i = 0; i < 3; ++i) {
      end("web-2", 1);
      advance(1s);
    }
    THEN("the cluster is exhausted") {
      CHECK(status().state == run_state::exhausted);
    }
  }
  WHEN("it is started on purpose") {
    CHECK(texts(operate(verb::start, 1)) == strings{"web-1 + ready"});
    THEN("it has its whole budget again") {
      end("web-1", 1);
      advance(1s);
      end("web-1", 1);
      advance(1s);
      CHECK(states() == "1:ready 2:ready");
    }
  }
}

SCENARIO_METHOD(cluster_world, "startLimit counts starts in a row") {
  m->becomes_ready = false;
  auto spec = worker();
  spec.ready = ready_condition::notify;
  spec.start_limit = 2;
  start(spec);
  const auto fail = [&] {
    end("worker", 1);
    advance(10s);
  };
  fail();
  fail();
  REQUIRE(states() == "0:starting");
  WHEN("one more ends before it was ready") {
    end("worker", 1);
    THEN("it gives up, and says which limit it was") {
      CHECK(states() == "0:exhausted");
      CHECK(status().instances.at(0).reason
            == "exited with code 1; more than 2 starts in a row that did not "
               "become ready");
      advance(1h);
      CHECK(states() == "0:exhausted");
    }
    THEN("a start on purpose has the whole row again") {
      auto again = operate(verb::start);
      for (int i = 0; i < 2; ++i)
        fail();
      CHECK(states() == "0:starting");
      end("worker", 1);
      CHECK(states() == "0:exhausted");
    }
  }
  WHEN("one is not ready in time") {
    advance(30s);
    THEN("that counts as well") {
      CHECK(states() == "0:exhausted");
    }
  }
  WHEN("one becomes ready before it ends") {
    m->ready("worker");
    run();
    REQUIRE(states() == "0:ready");
    m->becomes_ready = true;
    THEN("the row begins anew, and restarts are not limited") {
      for (int i = 0; i < 5; ++i)
        fail();
      CHECK(states() == "0:ready");
    }
  }
}

SCENARIO_METHOD(cluster_world, "restarts that are long ago do not count") {
  auto spec = worker();
  spec.restart_limit = 1;
  spec.restart_period = 60s;
  start(spec);
  end("worker", 1);
  advance(60s);
  advance(1ns);
  end("worker", 1);
  CHECK(states() == "0:ready");
  advance(60s);
  end("worker", 1);
  CHECK(states() == "0:exhausted");
}

SCENARIO_METHOD(cluster_world, "not ready in time is a failure") {
  m->becomes_ready = false;
  auto spec = worker();
  spec.ready = ready_condition::notify;
  spec.restart_delay = 1s;
  start(spec);
  auto came_up = operate(verb::await);
  advance(30s - 1ms);
  CHECK(came_up->pending());
  CHECK(states() == "0:starting");
  advance(1ms);
  CHECK(texts(came_up)
        == strings{"worker - was not ready in time; starting again in 1000 "
                   "ms"});
  CHECK(states() == "0:backoff");
  advance(1s);
  m->ready("worker");
  run();
  CHECK(states() == "0:ready");
  CHECK(status().instances.at(0).restarts == 1);
}

SCENARIO_METHOD(cluster_world, "a life that is over leaves no memory behind") {
  start(worker());
  const auto life = actor_of("worker");
  end("worker", 1);
  advance(1s);
  REQUIRE(actor_of("worker") != life);
  // The memory of an actor goes with the last address of it: this one.
  CHECK(caf::actor_cast<caf::actor_control_block*>(life)->weak_refs == 1);
}

SCENARIO_METHOD(cluster_world, "a launch that fails says why") {
  m->launches = false;
  auto spec = web(2);
  spec.restart_delay = 1s;
  start(spec);
  auto came_up = operate(verb::await);
  m->exec("web-1");
  m->ready("web-1");
  m->end("web-2",
         {ending::kind::not_launched, 0, 0, "port 8001 is in use by pid 7"});
  run();
  const std::string why =
      "port 8001 is in use by pid 7; starting again in 1000 ms";
  CHECK(texts(came_up) == strings{"web-1 + ready", "web-2 - " + why});
  const auto now = status();
  CHECK(now.state == run_state::degraded);
  CHECK(now.reason == "web-2: " + why);
  CHECK(now.instances.at(1).reason == why);
  CHECK(m->listeners["web"].shown == " 1");
  // Asking again does not wait for what has failed already.
  CHECK(texts(operate(verb::await))
        == strings{"web-1 + ready", "web-2 - " + why});
}

SCENARIO_METHOD(cluster_world, "what the machine has no room for is no fault") {
  m->launches = false;
  auto spec = worker();
  spec.restart_limit = 1;
  spec.start_limit = 1;
  const ending no_room{ending::kind::not_launched, ending::no_room, 0,
                       "clone: Resource temporarily unavailable"};
  const auto goes_on = [&] {
    auto came_up = operate(verb::await);
    for (int i = 0; i < 20; ++i) {
      m->end("worker", no_room);
      run();
      // Ever more slowly, but never slower than this.
      advance(spec.restart_max_delay);
    }
    REQUIRE(states() == "0:starting");
    CHECK(texts(came_up)
          == strings{"worker - " + no_room.text + "; starting again at once"});
    m->exec("worker");
    m->ready("worker");
    run();
    CHECK(states() == "0:ready");
    CHECK(status().instances.at(0).restarts == 0);
    CHECK(status().instances.at(0).reason.empty());
  };
  SECTION("for a process that is always restarted, whatever its limits") {
    start(spec);
    goes_on();
  }
  SECTION("for one that never is: it has not run yet") {
    spec.restart = restart_policy::never;
    start(spec);
    goes_on();
  }
  SECTION("until somebody stops it") {
    start(spec);
    m->end("worker", no_room);
    run();
    m->end("worker", no_room);
    run();
    REQUIRE(states() == "0:backoff");
    CHECK(status().instances.at(0).reason.starts_with(no_room.text));
    CHECK(texts(operate(verb::stop)) == strings{"worker + stopped"});
    advance(1h);
    CHECK(states() == "0:stopped");
  }
}

SCENARIO_METHOD(cluster_world, "a hook without room is no fault either") {
  m->launches = false;
  auto spec = worker();
  spec.start_limit = 1;
  spec.hooks.pre_start.argv = {"prepare"};
  start(spec);
  for (int i = 0; i < 5; ++i) {
    m->end(m->launched.back().id,
           {ending::kind::not_launched, ending::no_room, 0, "no room"});
    run();
    advance(spec.restart_max_delay);
  }
  CHECK(states() == "0:starting");
  m->end(m->launched.back().id, {ending::kind::exited, 0, 0, {}});
  run();
  m->exec("worker");
  m->ready("worker");
  run();
  CHECK(states() == "0:ready");
}

// -- scaling ------------------------------------------------------------------

SCENARIO_METHOD(cluster_world, "scaling up publishes only what is ready") {
  start(web(2));
  m->take_log();
  m->becomes_ready = false;
  auto scaled = scale_to(4);
  CHECK(m->take_log() == strings{"launch web-3", "launch web-4"});
  m->ready("web-4");
  run();
  CHECK(m->take_log() == strings{"publish web: 1 2 4"});
  CHECK(scaled->pending());
  m->ready("web-3");
  run();
  CHECK(m->take_log() == strings{"publish web: 1 2 3 4"});
  CHECK(scaled->value().from == 2);
  CHECK(scaled->value().to == 4);
  CHECK(texts(scaled) == strings{"web-3 + ready", "web-4 + ready"});
  CHECK(texts(scale_to(4)).empty());
}

SCENARIO_METHOD(cluster_world, "scaling down: the youngest leave, drained") {
  start(web(4));
  m->take_log();
  m->clients[3] = 1;
  m->clients[4] = 2;
  auto scaled = scale_to(2);
  // Withdrawn, not stopped.
  CHECK(m->take_log().back() == "publish web: 1 2 3d 4d");
  CHECK(states() == "1:ready 2:ready 3:draining 4:draining");
  m->clients_leave("web", 4);
  run();
  CHECK(m->take_log() == strings{"signal web-4 15", "publish web: 1 2 3d"});
  CHECK(scaled->pending());

  WHEN("the other drain ends") {
    m->clients_leave("web", 3);
    run();
    THEN("the scale is done") {
      CHECK(m->take_log() == strings{"signal web-3 15", "publish web: 1 2"});
      CHECK(texts(scaled) == strings{"web-3 + stopped", "web-4 + stopped"});
      CHECK(scaled->value().from == 4);
      CHECK(scaled->value().to == 2);
      CHECK(states() == "1:ready 2:ready");
    }
  }
  WHEN("a client stays") {
    advance(30s - 1ms);
    CHECK(m->log.empty());
    advance(1ms);
    THEN("it is cut at the deadline, and that is told") {
      CHECK(m->take_log() == strings{"signal web-3 15", "publish web: 1 2"});
      CHECK(texts(scaled)
            == strings{"web-3 + stopped; connections that outlived "
                       "drainTimeoutMs: 1",
                       "web-4 + stopped"});
    }
  }
  WHEN("the instance crashes while it drains") {
    end("web-3", 1);
    THEN("it stays down") {
      CHECK(states() == "1:ready 2:ready");
      CHECK_FALSE(runs("web-3"));
    }
  }
  WHEN("more are wanted again") {
    auto again = scale_to(3);
    THEN("the drain is cancelled and both get a true answer") {
      CHECK(m->take_log() == strings{"publish web: 1 2 3"});
      CHECK(texts(again) == strings{"web-3 + ready"});
      CHECK(texts(scaled)
            == strings{"web-3 - started again by a later request",
                       "web-4 + stopped"});
      CHECK(scaled->value().to == 3);
      advance(1h);
      CHECK(states() == "1:ready 2:ready 3:ready");
    }
  }
}

SCENARIO_METHOD(cluster_world,
                "an old drain's deadline does not end a new one") {
  start(web(2));
  m->clients[2] = 1;
  scale_to(1);
  advance(20s);
  scale_to(2);
  scale_to(1);
  advance(30s - 1ms);
  CHECK(states() == "1:ready 2:draining");
  advance(1ms);
  CHECK(states() == "1:ready");
}

SCENARIO_METHOD(cluster_world, "what ignores the stop signal is killed") {
  auto spec = web(1);
  spec.terminate_timeout = 5s;
  start(spec);
  m->obeys = false;
  m->take_log();
  auto scaled = scale_to(0);
  CHECK(m->take_log()
        == strings{"publish web: 1d", "signal web-1 15", "publish web:"});
  CHECK(states() == "1:stopping");
  advance(5s);
  CHECK(m->take_log() == strings{"signal web-1 9"});
  CHECK(texts(scaled) == strings{"web-1 + stopped"});
}

SCENARIO_METHOD(cluster_world, "what happens to many at once is told once") {
  constexpr std::uint32_t many = 200;
  const auto published = [&] {
    const auto log = m->take_log();
    return std::count_if(log.begin(), log.end(), [](const std::string& x) {
      return x.starts_with("publish ");
    });
  };
  start(web(many));
  CHECK(status().state == run_state::running);
  CHECK(notes == 1);
  CHECK(published() < 10);
  notes = 0;
  for (std::uint32_t n = 1; n <= many; ++n)
    m->exit("web-" + std::to_string(n), 1);
  run();
  CHECK(status().instances.at(many - 1).restarts == 1);
  CHECK(notes < 10);
  CHECK(published() < 10);
}

SCENARIO_METHOD(cluster_world, "scaling to zero keeps the port open") {
  start(web(2));
  m->take_log();
  CHECK(texts(scale_to(0)) == strings{"web-1 + stopped", "web-2 + stopped"});
  CHECK(m->listeners["web"].open);
  CHECK(status().state == run_state::stopped);
  CHECK(status().instances.empty());
  CHECK(texts(scale_to(0)).empty());
  CHECK(texts(scale_to(1)) == strings{"web-1 + ready"});
  CHECK(m->listeners["web"].shown == " 1");
  CHECK(status().state == run_state::running);
}

SCENARIO_METHOD(cluster_world, "scaling by a difference") {
  start(web(2));
  auto up = ask<scale_report>(unit(), scale{"web", scale_mode::up_by, 3, true});
  CHECK(up->value().to == 5);
  auto down =
      ask<scale_report>(unit(), scale{"web", scale_mode::down_by, 9, true});
  CHECK(down->value().from == 5);
  CHECK(down->value().to == 0);
}

SCENARIO_METHOD(cluster_world, "a scale that cannot be changes nothing") {
  start(web(2));
  m->take_log();
  const auto most = std::numeric_limits<std::uint32_t>::max();
  const auto x = GENERATE_COPY(scale{"web", scale_mode::to, 1025, true},
                               scale{"web", scale_mode::to, most, true},
                               scale{"web", scale_mode::up_by, 1023, true},
                               scale{"web", scale_mode::up_by, most, true});
  auto refused = ask<scale_report>(unit(), x);
  CHECK(is(refused->error, fault::bad_request));
  CHECK(text_of(refused->error).find("use 0 to 1024") != std::string::npos);
  CHECK(m->log.empty());
  CHECK(status().desired == 2);
}

SCENARIO_METHOD(cluster_world, "a cluster can have 1024 instances") {
  start(web(1, false));
  CHECK(scale_to(1024)->value().outcomes.size() == 1023);
  CHECK(status().ready == 1024);
  CHECK(m->processes.size() == 1024);
}

SCENARIO_METHOD(cluster_world, "ports end at 65535") {
  auto spec = web(2);
  spec.cluster->start_port = 65530;
  start(spec);
  auto refused = scale_to(7);
  CHECK(is(refused->error, fault::bad_request));
  CHECK(text_of(refused->error)
        == "'web' has ports for 6 instances only, from 65530 to 65535; use "
           "fewer or a lower startPort");
  CHECK(scale_to(6)->value().to == 6);
  CHECK(m->launched.back().port == 65535);
}

SCENARIO_METHOD(cluster_world, "two scale commands at once: the later wins") {
  start(web(2));
  m->becomes_ready = false;
  auto first = scale_to(5);
  auto second = scale_to(3);
  CHECK(second->pending());
  m->ready("web-3");
  run();
  CHECK(texts(first)
        == strings{"web-3 + ready", "web-4 - stopped by a later request",
                   "web-5 - stopped by a later request"});
  CHECK(first->value().from == 2);
  CHECK(first->value().to == 3);  // what is wanted now
  CHECK(texts(second)
        == strings{"web-3 + ready", "web-4 + stopped", "web-5 + stopped"});
  CHECK(second->value().from == 5);
  CHECK(second->value().to == 3);
  CHECK(states() == "1:ready 2:ready 3:ready");
}

SCENARIO_METHOD(cluster_world, "scaling a cluster that is still starting") {
  m->becomes_ready = false;
  start(web(3));
  auto came_up = operate(verb::await);
  auto scaled = scale_to(1);
  CHECK(states() == "1:starting");
  m->ready("web-1");
  run();
  CHECK(texts(came_up)
        == strings{"web-1 + ready", "web-2 - stopped by a later request",
                   "web-3 - stopped by a later request"});
  CHECK(texts(scaled)
        == strings{"web-1 + ready", "web-2 + stopped", "web-3 + stopped"});
}

SCENARIO_METHOD(cluster_world, "up again while the process is stopping") {
  start(web(2));
  m->obeys = false;
  auto down = scale_to(1);
  CHECK(states() == "1:ready 2:stopping");
  auto up = scale_to(2);
  CHECK(texts(down) == strings{"web-2 - started again by a later request"});
  CHECK(up->pending());
  m->end("web-2", {ending::kind::signalled, 0, 15, {}});
  run();
  CHECK(texts(up) == strings{"web-2 + ready"});
  CHECK(states() == "1:ready 2:ready");
}

SCENARIO_METHOD(cluster_world, "a scale that nobody waits for") {
  start(web(1));
  m->becomes_ready = false;
  auto scaled = scale_to(2, false);
  CHECK(texts(scaled) == strings{"web-2 + begun"});
  CHECK(states() == "1:ready 2:starting");
}

SCENARIO_METHOD(cluster_world, "scaling does not repeat finished work") {
  auto spec = web(2, false);
  spec.restart = restart_policy::on_error;
  start(spec);
  end("web-1", 0);
  CHECK(states() == "1:finished 2:ready");
  CHECK(status().state == run_state::running);
  CHECK(texts(scale_to(3)) == strings{"web-3 + ready"});
  CHECK(states() == "1:finished 2:ready 3:ready");
}

// -- start, stop, restart -----------------------------------------------------

SCENARIO_METHOD(cluster_world, "restarting one instance: the others serve on") {
  start(web(3));
  m->take_log();
  m->clients[2] = 1;
  auto restarted = operate(verb::restart, 2);
  CHECK(m->take_log() == strings{"publish web: 1 2d 3"});
  m->clients_leave("web", 2);
  run();
  CHECK(m->take_log()
        == strings{"signal web-2 15", "publish web: 1 3", "launch web-2",
                   "publish web: 1 2 3"});
  CHECK(texts(restarted) == strings{"web-2 + ready"});
  CHECK(status().instances.at(1).restarts == 1);
}

SCENARIO_METHOD(cluster_world, "stopping and starting one instance") {
  start(web(2));
  CHECK(texts(operate(verb::stop, 1)) == strings{"web-1 + stopped"});
  CHECK(states() == "1:stopped 2:ready");
  CHECK(status().desired == 2);
  CHECK(status().state == run_state::running);  // all that are wanted
  CHECK(m->listeners["web"].open);
  CHECK(texts(operate(verb::stop, 1)) == strings{"web-1 + stopped"});
  CHECK(texts(operate(verb::restart, 1)) == strings{"web-1 + ready"});
  CHECK(texts(operate(verb::start, 1)) == strings{"web-1 + ready"});
  CHECK(is(operate(verb::start, 3)->error, fault::no_such_id));
  CHECK(text_of(operate(verb::start, 3)->error)
        == "no instance 'web-3'; 'web' has 2");
}

SCENARIO_METHOD(cluster_world, "stopping a whole cluster closes its port") {
  start(web(2));
  m->take_log();
  m->clients[1] = 1;
  auto stopped = operate(verb::stop);
  CHECK(m->take_log().front() == "close web");
  CHECK(stopped->pending());
  auto twice = operate(verb::stop);
  m->clients_leave("web", 1);
  run();
  CHECK(texts(stopped) == strings{"web-1 + stopped", "web-2 + stopped"});
  CHECK(texts(twice) == strings{"web-1 + stopped", "web-2 + stopped"});
  CHECK(status().state == run_state::stopped);
  CHECK(texts(operate(verb::start))
        == strings{"web-1 + ready", "web-2 + ready", "web + listening"});
  CHECK(m->listeners["web"].open);
}

SCENARIO_METHOD(cluster_world, "start while stopping") {
  start(web(1));
  m->obeys = false;
  auto stopped = operate(verb::stop);
  auto started = operate(verb::start);
  CHECK(texts(stopped) == strings{"web-1 - started again by a later request"});
  CHECK(started->pending());
  m->exit("web-1", 0);
  run();
  CHECK(texts(started) == strings{"web-1 + ready", "web + listening"});
}

SCENARIO_METHOD(cluster_world,
                "stop while starting, before there is a process") {
  m->launches = false;
  start(web(1));
  auto came_up = operate(verb::await);
  auto stopped = operate(verb::stop);
  CHECK(came_up->value().outcomes.at(0).text == "stopped by a later request");
  CHECK(stopped->pending());
  m->exec("web-1");
  run();
  CHECK(m->log.back() == "signal web-1 15");
  CHECK(texts(stopped) == strings{"web-1 + stopped"});
}

SCENARIO_METHOD(cluster_world, "restarting everything") {
  start(web(2));
  m->take_log();
  CHECK(texts(operate(verb::restart))
        == strings{"web-1 + ready", "web-2 + ready"});
  CHECK(m->launched.size() == 4);
  CHECK(m->listeners["web"].open);
}

SCENARIO_METHOD(cluster_world, "a stop ends the wait for a restart") {
  start(worker());
  end("worker", 1);
  end("worker", 1);
  CHECK(states() == "0:backoff");
  CHECK(texts(operate(verb::stop)) == strings{"worker + stopped"});
  advance(1h);
  CHECK_FALSE(runs("worker"));
  CHECK(states() == "0:stopped");
}

SCENARIO_METHOD(cluster_world, "a start cuts the wait for a restart short") {
  start(worker());
  end("worker", 1);
  end("worker", 1);
  CHECK(texts(operate(verb::start)) == strings{"worker + ready"});
  const auto launches = m->launched.size();
  advance(1h);
  CHECK(m->launched.size() == launches);
}

SCENARIO_METHOD(cluster_world, "an operation that nobody waits for") {
  start(web(2));
  m->clients[1] = m->clients[2] = 1;
  CHECK(texts(operate(verb::stop, 0, false))
        == strings{"web-1 + begun", "web-2 + begun"});
  CHECK(states() == "1:draining 2:draining");
}

// -- the listener -------------------------------------------------------------

SCENARIO_METHOD(cluster_world, "the common port belongs to someone else") {
  m->refusals["web"] = "port 3000 is in use by pid 7";
  start(web(1));
  CHECK(texts(operate(verb::await))
        == strings{"web-1 + ready", "web - port 3000 is in use by pid 7"});
  CHECK(status().state == run_state::degraded);
  CHECK(status().reason == "port 3000 is in use by pid 7");
  m->refusals.clear();
  advance(1s - 1ms);
  CHECK_FALSE(m->listeners["web"].open);
  advance(1ms);
  CHECK(m->listeners["web"].open);
  CHECK(m->listeners["web"].shown == " 1");
  CHECK(status().state == run_state::running);
  CHECK(status().reason.empty());
}

SCENARIO_METHOD(cluster_world, "the port is tried again less and less often") {
  m->refusals["web"] = "in use";
  start(web(1));
  advance(1s + 2s + 4s + 8s + 10s + 10s - 1ms);
  m->refusals.clear();
  CHECK_FALSE(m->listeners["web"].open);
  advance(1ms);
  CHECK(m->listeners["web"].open);
}

SCENARIO_METHOD(cluster_world, "stopped while the port is refused") {
  m->refusals["web"] = "in use";
  start(web(1));
  operate(verb::stop);
  m->refusals.clear();
  advance(1h);
  CHECK_FALSE(m->listeners["web"].open);
  CHECK(status().state == run_state::stopped);
  CHECK(status().reason.empty());
  m->refusals["web"] = "in use";
  operate(verb::start, 0, false);
  operate(verb::stop, 0, false);
  operate(verb::start, 0, false);
  m->refusals.clear();
  m->take_log();
  advance(1h);
  CHECK(m->take_log() == strings{"open web"});  // one series of attempts
}

SCENARIO_METHOD(cluster_world, "a stop answers who waits for the port") {
  start(web(1));
  operate(verb::stop);
  // The proxy takes its time.
  caf::anon_send_exit(world.proxy, caf::exit_reason::kill);
  auto started = operate(verb::start);
  auto stopped = operate(verb::stop);
  CHECK_FALSE(started->pending());
  // Nobody reports the end of the drain: its deadline remains.
  advance(30s);
  CHECK(texts(stopped) == strings{"web-1 + stopped"});
}

// -- failing actors -----------------------------------------------------------

SCENARIO_METHOD(cluster_world, "an instance's actor fails") {
  start(web(2));
  m->take_log();
  kill(actor_of("web-1"));
  const auto log = m->take_log();
  CHECK(std::count(log.begin(), log.end(), "reap web-1") == 1);
  CHECK(std::count(log.begin(), log.end(), "launch web-1") == 1);
  CHECK(states() == "1:ready 2:ready");
  CHECK(m->listeners["web"].shown == " 1 2");
}

SCENARIO_METHOD(cluster_world, "the balancer's actor fails") {
  start(web(2));
  m->take_log();
  kill(m->listeners["web"].facts_to.address());
  CHECK(m->take_log() == strings{"attach web"});  // never closed
  CHECK(m->listeners["web"].shown == " 1 2");
  CHECK(m->processes.size() == 2);
  CHECK(status().state == run_state::running);

  WHEN("it fails again soon") {
    kill(m->listeners["web"].facts_to.address());
    THEN("it comes back after a moment") {
      CHECK(m->log.empty());
      m->clients[2] = 1;
      auto scaled = scale_to(1);  // meanwhile: waits for a balancer to drain
      CHECK(states() == "1:ready 2:draining");
      advance(120ms);
      CHECK(m->take_log() == strings{"attach web", "publish web: 1 2d"});
      m->clients_leave("web", 2);
      run();
      CHECK(texts(scaled) == strings{"web-2 + stopped"});
    }
    THEN("a shutdown meanwhile closes the port and ends") {
      caf::anon_send_exit(root, caf::exit_reason::user_shutdown);
      run();
      CHECK(m->take_log().front() == "close web");
      CHECK(m->processes.empty());
    }
  }
  WHEN("it fails again after a stable second") {
    advance(1s);
    kill(m->listeners["web"].facts_to.address());
    THEN("it is back at once") {
      CHECK(m->take_log() == strings{"attach web"});
    }
  }
  WHEN("it fails each second") {
    for (int i = 0; i < 12; ++i) {
      advance(1s);
      kill(m->listeners["web"].facts_to.address());
    }
    THEN("the unit starts afresh, and goes on") {
      advance(1s);
      CHECK(m->launched.size() > 2);
      CHECK(states() == "1:ready 2:ready");
    }
  }
}

SCENARIO_METHOD(cluster_world, "a drain outlives the balancer's actor") {
  start(web(2));
  m->clients[2] = 1;
  auto scaled = scale_to(1);
  kill(m->listeners["web"].facts_to.address());
  CHECK(states() == "1:ready 2:draining");
  WHEN("the last client leaves later") {
    m->clients_leave("web", 2);
    run();
    CHECK(texts(scaled) == strings{"web-2 + stopped"});
  }
  WHEN("the news got lost with the old actor") {
    m->clients[2] = 0;
    THEN("the new one finds out by itself") {
      advance(1s);
      CHECK(texts(scaled) == strings{"web-2 + stopped"});
    }
  }
  WHEN("the client stays") {
    advance(30s);
    CHECK_FALSE(scaled->pending());
  }
}

SCENARIO_METHOD(cluster_world, "the cluster's own actor fails") {
  start(web(2));
  operate(verb::stop, 1);
  scale_to(4);
  operate(verb::stop, 2);
  m->clients[3] = 1;
  auto waiting = operate(verb::restart, 3);
  auto scaling = scale_to(4);
  m->take_log();
  std::set<std::uint64_t> lives;
  for (const auto& x : m->launched)
    lives.insert(x.life);
  const auto launches = m->launched.size();
  kill(unit().address());

  // Nobody waits for ever.
  CHECK(is(waiting->error, fault::actor_failed));
  CHECK_FALSE(scaling->pending());
  // What was wanted is wanted; the port was never closed.
  CHECK(states() == "1:ready 2:ready 3:ready 4:ready");
  const auto log = m->take_log();
  CHECK(std::count(log.begin(), log.end(), "close web") == 0);
  CHECK(std::count(log.begin(), log.end(), "attach web") == 1);
  CHECK(m->listeners["web"].shown == " 1 2 3 4");
  // Lives are distinct even though no time has passed.
  for (auto i = launches; i < m->launched.size(); ++i)
    CHECK(lives.insert(m->launched[i].life).second);
  CHECK(m->processes.size() == 4);
  CHECK(m->waiting["web-3"].empty());
}

SCENARIO_METHOD(cluster_world, "what was stopped stays stopped") {
  auto spec = web(3);
  spec.restart = restart_policy::on_error;
  start(spec);
  operate(verb::stop, 2);
  end("web-3", 0);
  CHECK(states() == "1:ready 2:stopped 3:finished");
  kill(unit().address());
  CHECK(states() == "1:ready 2:stopped 3:finished");
  operate(verb::stop);
  kill(unit().address());
  advance(1s);
  CHECK(states() == "1:stopped 2:stopped 3:stopped");
  CHECK_FALSE(m->listeners["web"].open);
}

SCENARIO_METHOD(cluster_world,
                "what counts against a slot outlives its actor") {
  auto spec = web(2);
  spec.restart_limit = 3;
  start(spec);
  end("web-1", 1);
  advance(1s);
  end("web-1", 1);
  advance(1s);
  CHECK(status().instances[0].restarts == 2);
  kill(unit().address());
  CHECK(states() == "1:ready 2:ready");
  CHECK(status().instances[0].restarts == 2);
  CHECK(status().instances[1].restarts == 0);
  end("web-1", 1);
  advance(10s);
  CHECK(states() == "1:ready 2:ready");
  end("web-1", 1);
  CHECK(states() == "1:exhausted 2:ready");
}

SCENARIO_METHOD(cluster_world, "what was blocked while it ran is not resumed") {
  start(web(2));
  operate(verb::block, 1);
  CHECK(states() == "1:ready 2:ready");
  kill(unit().address());
  CHECK(states() == "1:blocked 2:ready");
  const auto all = operate(verb::await);
  for (const auto& x : all->value().outcomes)
    CHECK(x.ok);  // as wanted
  operate(verb::unblock, 1);
  CHECK(states() == "1:ready 2:ready");
}

// -- shutdown -----------------------------------------------------------------

SCENARIO_METHOD(cluster_world, "shutdown: close, drain, stop, quit") {
  start(web(2));
  m->take_log();
  m->clients[1] = 1;
  const auto cluster = unit();
  caf::anon_send_exit(root, caf::exit_reason::user_shutdown);
  run();
  CHECK(m->take_log()
        == strings{"close web", "publish web: 1d 2d", "signal web-2 15",
                   "publish web: 1d"});
  auto late = ask<scale_report>(cluster, scale{"web", scale_mode::to, 9, true});
  CHECK(is(late->error, fault::shutting_down));
  auto later = ask<report>(cluster, operate_unit{verb::start, 0, true});
  CHECK(is(later->error, fault::shutting_down));
  WHEN("the last client leaves") {
    m->clients_leave("web", 1);
    run();
    THEN("it is done") {
      CHECK(m->processes.empty());
      CHECK(census() == 2);  // launcher and proxy
    }
  }
  WHEN("the balancer fails") {
    kill(m->listeners["web"].facts_to.address());
    THEN("the drain is cut short rather than waited for") {
      CHECK(m->processes.empty());
      CHECK(census() == 2);
    }
  }
  WHEN("a second exit message comes") {
    caf::anon_send_exit(cluster, caf::exit_reason::user_shutdown);
    run();
    THEN("everything ends now") {
      CHECK(m->processes.empty());
      CHECK(m->log.back() == "reap web-1");
      CHECK(census() == 2);
    }
  }
}

SCENARIO_METHOD(cluster_world, "a request is answered by the shutdown") {
  m->becomes_ready = false;
  start(web(1));
  auto came_up = operate(verb::await);
  caf::anon_send_exit(root, caf::exit_reason::user_shutdown);
  run();
  CHECK(came_up->value().outcomes.at(0).text == "stopped by a later request");
  CHECK(m->processes.empty());
}

// -- what the balancer tells
// ---------------------------------------------------

SCENARIO_METHOD(cluster_world, "a command is done when connections follow it") {
  start(web(1));
  m->applies = false;
  const auto scaled = scale_to(2);
  CHECK(states() == "1:ready 2:ready");
  CHECK(scaled->pending());
  const auto waits = operate(verb::await);
  CHECK(waits->pending());

  THEN("a set that came before does not count") {
    m->becomes_ready = false;
    const auto third = scale_to(3);
    m->becomes_ready = true;
    m->ready("web-3");
    run();
    REQUIRE(m->publications.size() == 2);
    apply();
    CHECK(texts(scaled) == strings{"web-2 + ready"});
    CHECK(third->pending());
    apply();
    CHECK(texts(third) == strings{"web-2 + ready", "web-3 + ready"});
    CHECK_FALSE(waits->pending());
  }
  THEN("a balancer that fails first has a successor") {
    m->applies = true;
    kill(m->listeners["web"].facts_to.address());
    advance(1s);
    CHECK(texts(scaled) == strings{"web-2 + ready"});
  }
}

SCENARIO_METHOD(cluster_world, "an instance that cannot be reached is told") {
  start(web(2));
  const auto& x = m->listeners["web"].backends.at(0);
  const auto& balancer = m->listeners["web"].facts_to;
  caf::anon_send(balancer,
                 backend_reachable{x.slot, x.life, "Connection refused"});
  run();
  CHECK(status().instances.at(0).reason == "no connection: Connection refused");
  CHECK(status().instances.at(0).state == run_state::ready);
  caf::anon_send(balancer, backend_reachable{x.slot, x.life, {}});
  run();
  CHECK(status().instances.at(0).reason.empty());
}

SCENARIO_METHOD(cluster_world,
                "the end of a drain that was called off is late") {
  start(web(2));
  m->clients[2] = 1;
  operate(verb::stop, 2, false);
  const auto first = m->listeners["web"].backends.at(1);
  REQUIRE(first.draining);
  operate(verb::start, 2, false);
  operate(verb::stop, 2, false);
  const auto second = m->listeners["web"].backends.at(1);
  REQUIRE(second.draining);
  CHECK(first.drain != second.drain);
  m->idle("web", first);
  run();
  CHECK(states() == "1:ready 2:draining");
  m->idle("web", second);
  run();
  CHECK(states() == "1:ready 2:stopped");
}

// -- health -------------------------------------------------------------------

SCENARIO_METHOD(cluster_world,
                "suspects get no connections while others serve") {
  auto spec = web(3);
  spec.cluster->health.emplace();
  start(spec);
  m->take_log();

  m->faults[8001] = "answered 503";
  advance(1s);
  CHECK(m->take_log() == strings{"publish web: 1 3"});
  CHECK(status().instances.at(1).reason == "health check: answered 503");
  CHECK(states() == "1:ready 2:ready 3:ready");

  WHEN("it recovers") {
    m->faults.clear();
    advance(2s);
    CHECK(m->take_log() == strings{"publish web: 1 2 3"});
    CHECK(status().instances.at(1).reason.empty());
  }
  WHEN("all are suspects") {
    m->faults[8000] = m->faults[8002] = "answered 503";
    advance(1s);
    CHECK(m->listeners["web"].backends.size() == 3);
  }
  WHEN("it goes on to fail") {
    advance(2s);
    CHECK(m->take_log()
          == strings{"signal web-2 15", "launch web-2", "publish web: 1 2 3"});
    CHECK(status().instances.at(1).restarts == 1);
  }
  WHEN("it is drained") {
    m->clients[2] = 1;
    operate(verb::stop, 2, false);
    CHECK(m->take_log() == strings{"publish web: 1 2d 3"});
    advance(2s);  // nor is its drain waited for when it hangs
    CHECK(states() == "1:ready 2:stopped 3:ready");
  }
}

SCENARIO_METHOD(cluster_world, "an unhealthy end counts as a failure") {
  auto spec = web(1);
  spec.cluster->health.emplace();
  spec.restart = restart_policy::on_error;
  spec.restart_limit = 0;
  start(spec);
  m->faults[8000] = "no answer";
  advance(3s);
  CHECK(states() == "1:exhausted");
  CHECK(status().reason
        == "web-1: failed 3 health checks in a row: no answer; more than 0 "
           "restarts in 60 s");
}

// -- mode inherit -------------------------------------------------------------

SCENARIO_METHOD(cluster_world, "in mode inherit each slot gets its socket") {
  auto spec = web(2);
  spec.cluster->mode = cluster_mode::inherit;
  spec.cluster->start_port = 0;
  spec.ready = ready_condition::spawn;
  start(spec);
  REQUIRE(m->launched.size() == 2);
  for (std::uint32_t n : {1u, 2u}) {
    const auto& socket = m->launched[n - 1].inherit;
    REQUIRE(socket.has_value());
    CHECK(socket->cluster == "web");
    CHECK(socket->slot == n);
    CHECK(socket->spec.common_port == 3000);
  }
  CHECK(status().balancer->mode == "inherit");
  CHECK(m->listeners["web"].spec.mode == cluster_mode::inherit);

  GIVEN("a proxy mode cluster") {
    CHECK_FALSE(launch_of(web(1), "pup", 1, 1).inherit.has_value());
  }
  GIVEN("a proxy that cannot count") {
    m->counts = false;
    const auto now = status();
    CHECK_FALSE(now.balancer->connections_total.has_value());
    CHECK_FALSE(now.balancer->bytes_in.has_value());
    CHECK_FALSE(now.instances.at(0).connections_total.has_value());
  }
}

// -- lives of an earlier supervisor -------------------------------------------

namespace {

adopted_life life_of(std::uint32_t slot, bool ready = true) {
  adopted_life result;
  result.slot = slot;
  result.life = 1'000 + slot;
  result.pid = 50 + static_cast<std::int32_t>(slot);
  result.age = 90s;
  result.ready = ready;
  result.address = ready ? "127.0.0.1" : "";
  return result;
}

}  // namespace

SCENARIO_METHOD(cluster_world, "lives that go on are not started again") {
  for (const auto* id : {"web-1", "web-2"})
    m->left[id] = std::nullopt;
  start(web(3), nullptr, {life_of(1), life_of(2)});
  // They serve at once; who is missing is started.
  CHECK(states() == "1:ready 2:ready 3:ready");
  CHECK(m->launched.size() == 1);
  CHECK(m->launched[0].id == "web-3");
  const auto first = status().instances[0];
  CHECK(first.pid == 51);
  CHECK(first.uptime_ms == 90'000);
  CHECK(first.restarts == 0);
  // They are as good as any other.
  end("web-1", 1);
  CHECK(states() == "1:ready 2:ready 3:ready");
  CHECK(m->launched.back().id == "web-1");
  CHECK(m->launched.back().life > 1'002);
  CHECK(m->settled["web-1"] == 1'001);
}

SCENARIO_METHOD(cluster_world, "a life that was starting becomes ready later") {
  m->left["worker"] = std::nullopt;
  start(worker(), nullptr, {life_of(0, false)});
  CHECK(states() == "0:starting");
  m->ready("worker");
  run();
  CHECK(states() == "0:ready");
  CHECK(m->launched.empty());
  CHECK(m->noted["worker"].ready);
}

SCENARIO_METHOD(cluster_world, "an end in between is judged by the policy") {
  auto spec = worker();
  spec.restart = restart_policy::on_error;
  const auto code = GENERATE(0, 3);
  m->left["worker"] = ending{ending::kind::exited, code, 0, {}};
  start(spec, nullptr, {life_of(0)});
  CHECK(states() == (code == 0 ? "0:finished" : "0:ready"));
  CHECK(m->launched.size() == (code == 0 ? 0 : 1));
  CHECK(status().instances[0].restarts == (code == 0 ? 0 : 1));
  CHECK(m->settled["worker"] == 1'000);
}

SCENARIO_METHOD(cluster_world, "who was leaving leaves") {
  for (const auto* id : {"web-1", "web-2", "web-3"})
    m->left[id] = std::nullopt;
  wanted_state kept;
  kept.desired = 2;  // the third was on its way out
  kept.resting = {{2, false, run_state::stopped, {}}};
  start(web(5), &kept, {life_of(1), life_of(2), life_of(3)});
  CHECK(states() == "1:ready 2:stopped");
  CHECK(m->launched.empty());
  CHECK_FALSE(runs("web-2"));
  CHECK_FALSE(runs("web-3"));
}

SCENARIO_METHOD(cluster_world, "who was being restarted is restarted") {
  m->left["worker"] = std::nullopt;
  auto life = life_of(0, false);
  life.stopping = true;
  start(worker(), nullptr, {life});
  CHECK(states() == "0:ready");
  CHECK(m->launched.size() == 1);
  CHECK(status().instances[0].restarts == 1);
}

SCENARIO_METHOD(cluster_world,
                "an end that was acted upon is not judged twice") {
  wanted_state kept;
  kept.desired = 1;
  kept.resting = {{0, true, run_state::failed, "exited with code 3"}};
  m->left["worker"] = ending{ending::kind::exited, 3, 0, {}};
  start(worker(), &kept, {life_of(0)});
  CHECK(states() == "0:failed");
  CHECK(m->launched.empty());
  CHECK(m->settled["worker"] == 1'000);
}

// -- lives whose leader has ended ---------------------------------------------

SCENARIO_METHOD(cluster_world, "a leader ends and leaves something behind") {
  start(web(2));
  m->obeys = false;
  m->take_log();
  const ending how{ending::kind::exited, 1, 0, {}, "left pid 5 (sh) running"};
  m->end_leader("web-1", how);
  run();
  CHECK(m->take_log() == strings{"signal web-1 15", "publish web: 2"});
  CHECK(states() == "1:stopping 2:ready");
  const auto first = status().instances.at(0);
  CHECK(first.pid == 0);
  CHECK(first.reason == "exited with code 1; left pid 5 (sh) running");

  WHEN("the rest has ended") {
    advance(10s);
    m->end("web-1", how);
    run();
    THEN("the restart rule decides, by when the leader ended") {
      CHECK(states() == "1:ready 2:ready");
      CHECK(status().instances.at(0).restarts == 1);
      // Ready for less than a second, for the second time.
      m->end_leader("web-1", how);
      advance(10s);
      m->end("web-1", how);
      run();
      CHECK(states() == "1:backoff 2:ready");
    }
  }
  WHEN("somebody stops it meanwhile") {
    const auto answer = operate(verb::stop, 1);
    run();
    CHECK(m->log.empty());
    m->end("web-1", how);
    run();
    THEN("it stays so") {
      CHECK(texts(answer) == strings{"web-1 + stopped"});
      CHECK(states() == "1:stopped 2:ready");
    }
  }
  WHEN("somebody restarts it meanwhile") {
    const auto answer = operate(verb::restart, 1);
    m->end("web-1", how);
    run();
    THEN("it does not wait for the rule") {
      CHECK(states() == "1:ready 2:ready");
      CHECK(texts(answer) == strings{"web-1 + ready"});
    }
  }
}

SCENARIO_METHOD(cluster_world, "a stop that may have left something says so") {
  start(worker());
  m->obeys = false;
  const auto answer = operate(verb::stop);
  m->end("worker", {ending::kind::signalled,
                    0,
                    15,
                    {},
                    "may have been left by it: pid 5 (sh)",
                    true});
  run();
  CHECK(texts(answer)
        == strings{"worker - stopped; may have been left by it: pid 5 (sh)"});
}
