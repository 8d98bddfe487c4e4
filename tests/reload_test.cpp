// Rolling restarts: which slot is next, and a cluster that carries it out.
#include "pup/actors/rollout.hpp"

#include "cluster_world.hpp"

using namespace pup;
using namespace pup::test;
using namespace std::chrono_literals;

namespace {

/// "1o 2s 3m 4x+": outdated and serving, new and serving, moving, outdated and
/// not serving; + marks a spare.
std::vector<rollout_slot> picture(const std::string& text) {
  std::vector<rollout_slot> result;
  for (std::size_t i = 0; i < text.size();) {
    rollout_slot x;
    x.number = static_cast<std::uint32_t>(text[i] - '0');
    x.outdated = text[i + 1] == 'o' || text[i + 1] == 'x';
    x.serves = text[i + 1] == 'o' || text[i + 1] == 's';
    x.moving = text[i + 1] == 'm';
    i += 2;
    x.spare = i < text.size() && text[i] == '+';
    i += x.spare ? 2 : 1;
    result.push_back(x);
  }
  return result;
}

std::string next(const std::string& slots, rollout_limits limits) {
  const auto step = step_after(picture(slots), limits);
  const auto number = std::to_string(step.number);
  switch (step.what) {
    case rollout_step::kind::wait:
      return "wait";
    case rollout_step::kind::surge:
      return "surge";
    case rollout_step::kind::replace:
      return "replace " + number;
    case rollout_step::kind::retire:
      return "retire " + number;
    case rollout_step::kind::done:
      return "done";
  }
  return "?";
}

struct reload_world : cluster_world {
  answer_ptr<report> reload(std::uint32_t number = 0, bool wait = true) {
    return operate(verb::reload, number, wait);
  }

  std::uint64_t life(const std::string& id) {
    return m->processes.at(id).request.life;
  }

  /// Becomes ready by hand from now on; `reload` has begun.
  answer_ptr<report> begin(const process_spec& spec) {
    start(spec);
    m->take_log();
    m->becomes_ready = false;
    return reload();
  }

  void ready(const std::string& id) {
    m->ready(id);
    run();
  }
};

process_spec limited(std::uint32_t instances,
                     std::optional<std::uint32_t> surge,
                     std::optional<std::uint32_t> unavailable) {
  auto result = web(instances);
  result.cluster->max_surge = surge;
  result.cluster->max_unavailable = unavailable;
  return result;
}

const strings all_reloaded{"web-1 + ready", "web-2 + ready", "web-3 + ready",
                           "web + reloaded"};

}  // namespace

// -- which one is next --------------------------------------------------------

TEST_CASE("the steps of a roll-out") {
  struct row {
    std::string slots;
    rollout_limits limits;
    std::string step;
  };
  const auto x = GENERATE(values<row>({
      // one spare
      {"1o 2o", {1, 0}, "surge"},
      {"1o 2o 3m+", {1, 0}, "wait"},
      {"1o 2o 3s+", {1, 0}, "replace 1"},
      {"1m 2o 3s+", {1, 0}, "wait"},
      {"1s 2o 3s+", {1, 0}, "replace 2"},
      {"1s 2m 3s+", {1, 0}, "wait"},
      {"1s 2s 3s+", {1, 0}, "retire 3"},
      {"1s 2s 3m+", {1, 0}, "wait"},
      {"1s 2s", {1, 0}, "done"},
      // in place
      {"1o 2o", {0, 1}, "replace 1"},
      {"1m 2o", {0, 1}, "wait"},
      {"1s 2o", {0, 1}, "replace 2"},
      {"1s 2s", {0, 1}, "done"},
      {"0o", {0, 1}, "replace 0"},
      {"1o 2o 3o", {0, 2}, "replace 1"},
      {"1m 2o 3o", {0, 2}, "replace 2"},
      {"1m 2m 3o", {0, 2}, "wait"},
      // both
      {"1o 2o 3s+", {1, 1}, "replace 1"},
      {"1m 2o 3s+", {1, 1}, "replace 2"},
      {"1m 2m 3s+", {1, 1}, "wait"},
      // several spares, never more than there is to replace
      {"1o 2o 3o", {2, 0}, "surge"},
      {"1o 2o 3o 4m+", {2, 0}, "surge"},
      {"1o 2o 3o 4m+ 5s+", {2, 0}, "wait"},
      {"1o 2o 3o 4s+ 5s+", {2, 0}, "replace 1"},
      {"1m 2o 3o 4s+ 5s+", {2, 0}, "replace 2"},
      {"1m 2m 3o 4s+ 5s+", {2, 0}, "wait"},
      {"1s 2s 3s 4s+ 5s+", {2, 0}, "retire 5"},
      {"1o 2m+", {9, 0}, "wait"},
      // what does not serve costs nothing
      {"1o 2x", {0, 1}, "replace 2"},
      {"1o 2x 3s+", {1, 0}, "replace 2"},
      {"1x 2x", {0, 1}, "replace 1"},
      {"1m 2x", {0, 1}, "wait"},
      // a spare of an earlier roll-out
      {"1m 2s 3o+", {1, 0}, "wait"},
      {"1o 2o 3o+", {1, 0}, "replace 3"},
      {"1o 2o 3x+", {1, 0}, "replace 3"},
      // others that come and go
      {"1o 2m 3o", {0, 1}, "wait"},
      {"", {0, 1}, "done"},
  }));
  CAPTURE(x.slots, x.limits.surge, x.limits.unavailable);
  CHECK(next(x.slots, x.limits) == x.step);
}

TEST_CASE("what a configuration does not say about roll-outs") {
  const auto unlimited = std::optional<std::uint32_t>{};
  CHECK(limits_of(worker()) == rollout_limits{0, 1});
  CHECK(limits_of(web(1)) == rollout_limits{1, 0});
  CHECK(limits_of(web(9)) == rollout_limits{1, 0});
  CHECK(limits_of(web(9, false)) == rollout_limits{0, 1});
  CHECK(limits_of(limited(4, 2, unlimited)) == rollout_limits{2, 0});
  CHECK(limits_of(limited(4, 0, unlimited)) == rollout_limits{0, 1});
  CHECK(limits_of(limited(4, unlimited, 2)) == rollout_limits{0, 2});
  CHECK(limits_of(limited(4, unlimited, 0)) == rollout_limits{1, 0});
  CHECK(limits_of(limited(4, 3, 2)) == rollout_limits{3, 2});
}

// -- a reload that goes well --------------------------------------------------

SCENARIO_METHOD(reload_world, "a reload: a spare, one after the other") {
  auto done = begin(web(3));
  CHECK(m->take_log() == strings{"launch web-4"});
  ready("web-4");
  CHECK(m->take_log()
        == strings{"publish web: 1 2 3 4", "publish web: 1d 2 3 4",
                   "signal web-1 15", "publish web: 2 3 4", "launch web-1"});
  ready("web-1");
  CHECK(m->take_log()
        == strings{"publish web: 1 2 3 4", "publish web: 1 2d 3 4",
                   "signal web-2 15", "publish web: 1 3 4", "launch web-2"});
  ready("web-2");
  m->take_log();
  CHECK(states() == "1:ready 2:ready 3:starting 4:ready");
  CHECK(status().state == run_state::degraded);
  CHECK(done->pending());
  ready("web-3");
  CHECK(m->take_log()
        == strings{"publish web: 1 2 3 4", "publish web: 1 2 3 4d",
                   "signal web-4 15", "publish web: 1 2 3"});
  CHECK(states() == "1:ready 2:ready 3:ready");
  CHECK(texts(done) == all_reloaded);
  CHECK(status().instances.at(0).restarts == 1);
}

SCENARIO_METHOD(reload_world, "nobody leaves before connections go elsewhere") {
  start(web(1));
  m->take_log();
  m->applies = false;
  auto done = reload();
  CHECK(m->take_log() == strings{"launch web-2", "publish web: 1 2"});
  apply();
  CHECK(m->take_log()
        == strings{"publish web: 1d 2", "signal web-1 15", "publish web: 2",
                   "launch web-1", "publish web: 1 2"});
  while (!m->publications.empty())
    apply();
  CHECK(states() == "1:ready");
  CHECK(texts(done) == strings{"web-1 + ready", "web + reloaded"});
}

SCENARIO_METHOD(reload_world, "each one finishes its connections") {
  start(web(2));
  m->clients = {{1, 5}, {2, 3}, {3, 1}};
  m->take_log();
  auto done = reload();
  CHECK(states() == "1:draining 2:ready 3:ready");
  advance(29s);
  CHECK(states() == "1:draining 2:ready 3:ready");
  m->clients_leave("web", 1);
  run();
  CHECK(states() == "1:ready 2:draining 3:ready");
  m->clients_leave("web", 2);
  run();
  CHECK(states() == "1:ready 2:ready 3:draining");
  CHECK(done->pending());
  advance(30s);  // drainTimeoutMs
  CHECK(states() == "1:ready 2:ready");
  CHECK(texts(done)
        == strings{"web-1 + ready", "web-2 + ready", "web + reloaded"});
}

SCENARIO_METHOD(reload_world, "maxUnavailable: in place") {
  auto done = begin(limited(3, std::nullopt, 2));
  CHECK(m->take_log().back() == "launch web-2");
  CHECK(states() == "1:starting 2:starting 3:ready");
  ready("web-2");
  CHECK(states() == "1:starting 2:ready 3:starting");
  ready("web-3");
  ready("web-1");
  CHECK(texts(done) == all_reloaded);
}

SCENARIO_METHOD(reload_world, "maxSurge: several spares") {
  auto done = begin(limited(3, 2, std::nullopt));
  CHECK(m->take_log() == strings{"launch web-4", "launch web-5"});
  ready("web-5");
  CHECK(states() == "1:ready 2:ready 3:ready 4:starting 5:ready");
  ready("web-4");
  CHECK(states() == "1:starting 2:starting 3:ready 4:ready 5:ready");
  ready("web-1");
  ready("web-2");
  ready("web-3");
  CHECK(states() == "1:ready 2:ready 3:ready");
  CHECK(texts(done) == all_reloaded);
}

SCENARIO_METHOD(reload_world, "a cluster without a balancer has no spare") {
  auto done = begin(web(2, false));
  CHECK(states() == "1:starting 2:ready");
  ready("web-1");
  CHECK(states() == "1:ready 2:starting");
  ready("web-2");
  CHECK(texts(done)
        == strings{"web-1 + ready", "web-2 + ready", "web + reloaded"});
}

SCENARIO_METHOD(reload_world, "reloading a process that is no cluster") {
  auto done = begin(worker());
  CHECK(m->take_log() == strings{"signal worker 15", "launch worker"});
  CHECK(done->pending());
  ready("worker");
  CHECK(texts(done) == strings{"worker + ready"});
}

SCENARIO_METHOD(reload_world, "reloading one instance") {
  start(web(3));
  m->take_log();
  const auto first = life("web-1");
  const auto second = life("web-2");
  CHECK(texts(reload(2)) == strings{"web-2 + ready", "web + reloaded"});
  CHECK(life("web-1") == first);
  CHECK(life("web-2") > second);
  CHECK(m->launched.at(3).id == "web-4");
  CHECK(is(reload(9)->error, fault::no_such_id));
}

SCENARIO_METHOD(reload_world, "in mode inherit a spare has its own socket") {
  auto spec = web(2);
  spec.cluster->mode = cluster_mode::inherit;
  spec.cluster->start_port = 0;
  spec.ready = ready_condition::spawn;
  start(spec);
  CHECK(texts(reload())
        == strings{"web-1 + ready", "web-2 + ready", "web + reloaded"});
  CHECK(m->launched.at(2).inherit->slot == 3);
  CHECK(m->launched.at(3).inherit->slot == 1);
}

SCENARIO_METHOD(reload_world, "a reload that nobody waits for") {
  auto answer = begin(web(2));
  answer = reload(0, false);
  CHECK(texts(answer)
        == strings{"web-1 + begun", "web-2 + begun", "web + begun"});
}

// -- what is left out ---------------------------------------------------------

SCENARIO_METHOD(reload_world, "a reload starts nothing that does not run") {
  start(web(3));
  operate(verb::stop, 2);
  operate(verb::block, 3);
  const auto blocked = life("web-3");
  m->take_log();
  CHECK(texts(reload())
        == strings{"web-1 + ready", "web-2 + is stopped, left as it is",
                   "web-3 + is blocked, left as it is", "web + reloaded"});
  CHECK_FALSE(runs("web-2"));
  CHECK(life("web-3") == blocked);
  CHECK(texts(reload(2)) == strings{"web-2 - is stopped; pup start web-2"});
  CHECK(texts(reload(3)) == strings{"web-3 - is blocked; pup unblock web-3"});
  operate(verb::stop);
  m->take_log();
  CHECK(texts(reload()).size() == 3);
  CHECK(m->log.empty());
}

SCENARIO_METHOD(reload_world, "finished work is not repeated") {
  auto spec = worker();
  spec.restart = restart_policy::never;
  start(spec);
  end("worker", 0);
  CHECK(texts(reload()) == strings{"worker + is finished, left as it is"});
}

SCENARIO_METHOD(reload_world, "a reload tries again what has failed") {
  auto spec = web(2);
  spec.restart_limit = 0;
  start(spec);
  end("web-2", 1);
  CHECK(states() == "1:ready 2:exhausted");
  CHECK(texts(reload())
        == strings{"web-1 + ready", "web-2 + ready", "web + reloaded"});
  CHECK(states() == "1:ready 2:ready");
}

SCENARIO_METHOD(reload_world, "what has failed elsewhere is not waited for") {
  auto spec = web(3);
  spec.restart_limit = 0;
  start(spec);
  end("web-1", 1);
  CHECK(texts(reload(3)) == strings{"web-3 + ready", "web + reloaded"});
  CHECK(states() == "1:exhausted 2:ready 3:ready");
}

// -- a new life that fails ----------------------------------------------------

SCENARIO_METHOD(reload_world, "a spare that fails: nothing else is touched") {
  const auto how = GENERATE(1, 2, 3);
  auto done = begin(web(2));
  const auto lives = std::pair{life("web-1"), life("web-2")};
  auto why = std::string{"exited with code 3"};
  if (how == 1)
    end("web-3", 3);
  if (how == 2) {
    advance(30s);  // readyTimeoutMs
    why = "not ready";
  }
  if (how == 3) {
    m->end("web-3", {ending::kind::not_launched, 0, 0, "no such program"});
    run();
    why = "no such program";
  }
  const auto answer = texts(done);
  REQUIRE(answer.size() == 3);
  CHECK(answer.at(0) == "web-1 - not reloaded, goes on as before");
  CHECK(answer.at(1) == "web-2 - not reloaded, goes on as before");
  CHECK(answer.at(2).find("web - the reload stopped: web-3, a spare: ") == 0);
  CHECK(answer.at(2).find(why) != std::string::npos);
  CHECK(states() == "1:ready 2:ready");
  CHECK(std::pair{life("web-1"), life("web-2")} == lives);
  CHECK(status().state == run_state::running);
  m->becomes_ready = true;
  CHECK(texts(reload())
        == strings{"web-1 + ready", "web-2 + ready", "web + reloaded"});
}

SCENARIO_METHOD(reload_world, "a new life that fails stops the reload") {
  auto done = begin(limited(3, 0, 1));
  ready("web-1");
  CHECK(states() == "1:ready 2:starting 3:ready");
  const auto third = life("web-3");
  end("web-2", 7);
  CHECK(texts(done)
        == strings{"web-1 + ready",
                   "web-2 - exited with code 7; starting again at once",
                   "web-3 - not reloaded, goes on as before",
                   "web - the reload stopped: web-2: exited with code 7; "
                   "starting again at once"});
  CHECK(life("web-3") == third);
  ready("web-2");  // its restart rules go on
  CHECK(states() == "1:ready 2:ready 3:ready");
  CHECK(life("web-3") == third);
}

SCENARIO_METHOD(reload_world, "a new life that fails later stops it too") {
  auto done = begin(limited(3, 0, 1));
  ready("web-1");
  const auto third = life("web-3");
  end("web-1", 7);
  CHECK(texts(done)
        == strings{"web-1 + ready", "web-2 - not ready yet",
                   "web-3 - not reloaded, goes on as before",
                   "web - the reload stopped: web-1: exited with code 7; "
                   "starting again at once"});
  ready("web-2");
  ready("web-1");
  CHECK(states() == "1:ready 2:ready 3:ready");
  CHECK(life("web-3") == third);
}

SCENARIO_METHOD(reload_world, "an old life that fails is replaced") {
  auto done = begin(web(2));
  end("web-2", 1);  // starts again by its rules, as it was
  ready("web-3");
  CHECK(states() == "1:ready 2:starting 3:ready");
  ready("web-2");
  ready("web-1");
  CHECK(texts(done)
        == strings{"web-1 + ready", "web-2 + ready", "web + reloaded"});
}

SCENARIO_METHOD(reload_world, "a process whose new life fails") {
  auto done = begin(worker());
  end("worker", 1);
  CHECK(texts(done)
        == strings{"worker - exited with code 1; starting again at once"});
  ready("worker");
  CHECK(states() == "0:ready");
}

SCENARIO_METHOD(reload_world, "work that ends well is no failure") {
  auto spec = worker();
  spec.restart = restart_policy::on_error;
  auto done = begin(spec);
  end("worker", 0);
  CHECK(texts(done) == strings{"worker + finished"});
}

// -- spares and ports ---------------------------------------------------------

SCENARIO_METHOD(reload_world, "a spare whose port is taken tries the next") {
  auto done = begin(web(1));
  const auto taken = [&](const std::string& id) {
    m->end(id, {ending::kind::not_launched, ending::port_taken, 0,
                "port is in use"});
    run();
  };
  taken("web-2");
  CHECK(m->take_log() == strings{"launch web-2", "launch web-3"});
  CHECK(m->launched.back().port == 8002);
  CHECK(states() == "1:ready 3:starting");
  WHEN("there is one") {
    ready("web-3");
    ready("web-1");
    THEN("the reload is as any other") {
      CHECK(texts(done) == strings{"web-1 + ready", "web + reloaded"});
      CHECK(states() == "1:ready");
    }
  }
  WHEN("there is none") {
    for (int n = 3; n < 10; ++n)
      taken("web-" + std::to_string(n));
    THEN("clients wait for the successor of the only one") {
      CHECK(states() == "1:starting");
      ready("web-1");
      CHECK(texts(done)
            == strings{"web-1 + ready",
                       "web + reloaded; without a spare: port is in use"});
    }
  }
}

SCENARIO_METHOD(reload_world, "no spare, and maxUnavailable 0") {
  auto spec = limited(2, std::nullopt, 0);
  spec.cluster->start_port = 65534;
  start(spec);
  const auto answer = texts(reload());
  REQUIRE(answer.size() == 3);
  CHECK(answer.at(2)
        == "web - the reload stopped: no port is left for a spare, and "
           "maxUnavailable is 0");
  CHECK(states() == "1:ready 2:ready");
}

SCENARIO_METHOD(reload_world, "a spare keeps off other units' ports") {
  start(web(2));
  m->take_log();
  const auto launched = [&](spare_ports ports) {
    m->launched.clear();
    ask<report>(unit(), operate_unit{verb::reload, 1, true, {}, ports});
    return m->launched.at(0).id;
  };
  CHECK(launched({65535, {8002, 8003}}) == "web-5");
  CHECK(launched({8002, {}}) == "web-3");
  CHECK(launched({8002, {8002}}) == "web-1");  // without a spare
  CHECK(launched({8001, {}}) == "web-1");
}

SCENARIO_METHOD(reload_world, "a cluster of 1024 reloads in place") {
  auto spec = web(1024);
  spec.cluster->start_port = 0;
  spec.cluster->mode = cluster_mode::inherit;
  spec.ready = ready_condition::spawn;
  start(spec);
  const auto answer = texts(reload());
  REQUIRE(answer.size() == 1025);
  CHECK(answer.back()
        == "web + reloaded; without a spare: no port is left for a spare");
}

// -- other requests meanwhile -------------------------------------------------

SCENARIO_METHOD(reload_world, "a second reload during a reload") {
  auto first = begin(web(2));
  ready("web-3");
  CHECK(states() == "1:starting 2:ready 3:ready");
  const auto old = life("web-1");
  auto second = reload();
  ready("web-1");
  ready("web-3");
  ready("web-1");
  ready("web-2");
  CHECK(states() == "1:ready 2:ready");
  CHECK(life("web-1") > old);
  const strings both{"web-1 + ready", "web-2 + ready", "web + reloaded"};
  CHECK(texts(first) == both);
  CHECK(texts(second) == both);
}

SCENARIO_METHOD(reload_world, "scaling up during a reload") {
  auto done = begin(web(2));
  auto scaled = scale_to(4);  // the spare is one of them now
  CHECK(states() == "1:ready 2:ready 3:starting 4:starting 5:starting");
  ready("web-3");
  ready("web-4");
  CHECK(texts(scaled) == strings{"web-3 + ready", "web-4 + ready"});
  ready("web-5");
  ready("web-1");
  ready("web-2");
  CHECK(texts(done)
        == strings{"web-1 + ready", "web-2 + ready", "web + reloaded"});
  CHECK(states() == "1:ready 2:ready 3:ready 4:ready");
}

SCENARIO_METHOD(reload_world, "scaling down during a reload") {
  auto done = begin(web(3));
  ready("web-4");
  CHECK(states() == "1:starting 2:ready 3:ready 4:ready");
  auto scaled = scale_to(2);
  CHECK(states() == "1:starting 2:ready 4:ready");
  ready("web-1");
  CHECK(texts(scaled) == strings{"web-1 + ready", "web-3 + stopped"});
  ready("web-2");
  CHECK(texts(done)
        == strings{"web-1 + ready", "web-2 + ready",
                   "web-3 - stopped by a later request", "web + reloaded"});
  CHECK(states() == "1:ready 2:ready");
}

SCENARIO_METHOD(reload_world, "scaling to nothing during a reload") {
  auto done = begin(web(2));
  ready("web-3");
  auto scaled = scale_to(0);
  CHECK(scaled->value().to == 0);
  CHECK(texts(done)
        == strings{"web-1 - stopped by a later request",
                   "web-2 - stopped by a later request",
                   "web - stopped by a later request"});
  CHECK(m->processes.empty());
}

SCENARIO_METHOD(reload_world, "a stop during a reload") {
  auto done = begin(web(2));
  ready("web-3");
  WHEN("it stops all") {
    auto stopped = operate(verb::stop);
    THEN("the spare goes as well") {
      CHECK(texts(stopped) == strings{"web-1 + stopped", "web-2 + stopped"});
      CHECK(texts(done)
            == strings{"web-1 - stopped by a later request",
                       "web-2 - stopped by a later request",
                       "web - stopped by a later request"});
      CHECK(m->processes.empty());
      CHECK(states() == "1:stopped 2:stopped");
    }
  }
  WHEN("it stops one") {
    operate(verb::stop, 2);
    ready("web-1");
    THEN("the others are reloaded") {
      CHECK(texts(done)
            == strings{"web-1 + ready", "web-2 - stopped by a later request",
                       "web + reloaded"});
      CHECK(states() == "1:ready 2:stopped");
    }
  }
  WHEN("pup ends") {
    caf::anon_send_exit(root, caf::exit_reason::user_shutdown);
    run();
    THEN("whoever waits hears of it") {
      CHECK(texts(done).at(2)
            == "web - the reload stopped: 'web' is shutting down");
      CHECK(m->processes.empty());
    }
  }
}

SCENARIO_METHOD(reload_world, "a restart during a reload") {
  auto done = begin(web(2));
  ready("web-3");
  auto again = operate(verb::restart);
  CHECK(states() == "1:starting 2:starting 3:ready");
  ready("web-1");
  ready("web-2");
  CHECK(texts(again) == strings{"web-1 + ready", "web-2 + ready"});
  CHECK(texts(done)
        == strings{"web-1 + ready", "web-2 + ready", "web + reloaded"});
  CHECK(states() == "1:ready 2:ready");
}

SCENARIO_METHOD(reload_world, "blocking during a reload") {
  auto done = begin(web(2));
  const auto second = life("web-2");
  operate(verb::block, 2);
  ready("web-3");
  ready("web-1");
  CHECK(texts(done)
        == strings{"web-1 + ready", "web-2 - blocked by a later request",
                   "web + reloaded"});
  CHECK(life("web-2") == second);
}

SCENARIO_METHOD(reload_world, "the balancer's actor fails during a reload") {
  auto done = begin(web(2));
  kill(m->listeners["web"].facts_to.address());
  ready("web-3");
  ready("web-1");
  ready("web-2");
  CHECK(texts(done)
        == strings{"web-1 + ready", "web-2 + ready", "web + reloaded"});
}

SCENARIO_METHOD(reload_world, "the cluster's actor fails during a reload") {
  auto done = begin(web(2));
  ready("web-3");
  m->becomes_ready = true;
  kill(unit().address());
  CHECK(is(done->error, fault::actor_failed));
  CHECK(states() == "1:ready 2:ready");
  CHECK(m->processes.size() == 2);
}
