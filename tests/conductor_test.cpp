// Units that have to do with each other: dependencies, groups, and how many may
// be starting at once, in virtual time.
#include "pup/actors/sequence.hpp"
#include "pup/actors/supervisor.hpp"
#include "pup/config/load.hpp"
#include "pup/config/relations.hpp"

#include "fake_machine.hpp"
#include "unit_child.hpp"

using namespace pup;
using namespace pup::test;
using namespace std::chrono_literals;

namespace {

using condition = dependency::condition;

process_spec process(const std::string& id,
                     std::vector<dependency> depends_on = {}) {
  process_spec result;
  result.id = id;
  result.argv = {"work"};
  result.depends_on = std::move(depends_on);
  return result;
}

process_spec job(const std::string& id) {
  auto result = process(id);
  result.restart = restart_policy::never;
  return result;
}

process_spec cluster(const std::string& id, std::uint32_t instances) {
  auto result = process(id);
  result.cluster.emplace();
  result.cluster->instances = instances;
  return result;
}

// The tree that a host builds: control, conductor, the units in start order.
struct conducted_world : fake_world {
  pup_spec spec;
  bool ends_with_groups = false;
  supervisor_actor root;
  caf::error end_of_root;
  std::shared_ptr<control_actor> control = std::make_shared<control_actor>();
  std::shared_ptr<conductor_actor> conductor =
      std::make_shared<conductor_actor>();

  ~conducted_world() {
    *control = nullptr;
    *conductor = nullptr;
  }

  child_spec child_of(const process_spec& unit) {
    cluster_args args;
    args.spec = unit;
    args.world = world;
    return unit_child(std::move(args), conductor);
  }

  void start(std::vector<process_spec> processes) {
    spec.processes = std::move(processes);
    REQUIRE(check(spec) == strings{});
    supervisor_spec tree;
    tree.limit = {};
    child_spec first;
    first.id = "control";
    first.start = [this](start_context& x) {
      control_args args;
      args.spec = spec;
      args.launcher = world.launcher;
      args.root = root_of(x);
      *control = spawn_control(x.self, std::move(args));
      return caf::actor_cast<caf::strong_actor_ptr>(*control);
    };
    tree.children.push_back(std::move(first));
    child_spec second;
    second.id = "conductor";
    second.start = [this](start_context& x) {
      conductor_args args;
      args.spec = spec;
      args.root = root_of(x);
      args.ends_with_groups = ends_with_groups;
      args.successor = static_cast<bool>(*conductor);
      *conductor = spawn_conductor(x.self, std::move(args));
      return caf::actor_cast<caf::strong_actor_ptr>(*conductor);
    };
    tree.children.push_back(std::move(second));
    for (const auto i : order_of_start(spec))
      tree.children.push_back(child_of(spec.processes[i]));
    root = own(spawn_supervisor(sys, std::move(tree)));
    root->attach_functor(
        [this](const caf::error& reason) { end_of_root = reason; });
    run();
  }

  std::vector<unit_status> status(const std::string& id = {}) {
    return ask<supervisor_status>(*control, get_status{id})->value().units;
  }

  // "db:ready app:waiting", in the order of the configuration.
  std::string states() {
    std::string result;
    for (const auto& x : status())
      result += (result.empty() ? "" : " ") + x.id + ':' + to_string(x.state);
    return result;
  }

  std::string reason(const std::string& id) {
    return status(id).at(0).reason;
  }

  answer_ptr<report> operate_on(verb what, const std::string& selector,
                                bool wait = true) {
    return ask<report>(*control, operate{what, selector, wait});
  }

  caf::strong_actor_ptr child(const std::string& id) {
    const auto all = ask<std::vector<child_info>>(root, which_children{});
    for (const auto& x : all->value())
      if (x.id == id)
        return x.handle;
    return nullptr;
  }

  cluster_actor unit(const std::string& id) {
    return caf::actor_cast<cluster_actor>(child(unit_child_id(id)));
  }

  void kill_child(const std::string& id) {
    caf::anon_send_exit(child(id), caf::exit_reason::kill);
    run();
  }

  void ready(const std::string& id) {
    m->ready(id);
    run();
  }

  void end(const std::string& id, int code = 1) {
    m->exit(id, code);
    run();
  }

  bool runs(const std::string& id) const {
    return m->processes.count(id) != 0;
  }
};

strings texts(const answer_ptr<report>& x) {
  strings result;
  for (const auto& y : x->value().outcomes)
    result.push_back(y.id + (y.ok ? " + " : " - ") + y.text);
  return result;
}

}  // namespace

// -- dependencies: starting ---------------------------------------------------

SCENARIO_METHOD(conducted_world, "a unit waits until what it needs is ready") {
  m->becomes_ready = false;
  start({process("app", {{"db"}}), process("db")});
  auto up = operate_on(verb::await, "all");
  CHECK(m->take_log() == strings{"launch db"});
  CHECK(states() == "app:waiting db:starting");
  CHECK(reason("app") == "waits for 'db' to be ready");
  CHECK(up->pending());
  ready("db");
  CHECK(m->take_log() == strings{"launch app"});
  ready("app");
  CHECK(states() == "app:ready db:ready");
  CHECK(reason("app").empty());
  CHECK(texts(up) == strings{"app + ready", "db + ready"});
}

SCENARIO_METHOD(conducted_world, "a unit needs what it needs to be started") {
  m->launches = false;
  m->becomes_ready = false;
  start({process("db"), process("app", {{"db", condition::started}})});
  CHECK(reason("app") == "waits for 'db' to be started");
  m->exec("db");
  run();
  CHECK(m->take_log() == strings{"launch db", "launch app"});
  CHECK(states() == "db:starting app:starting");
}

SCENARIO_METHOD(conducted_world, "a unit needs what it needs to finish") {
  start({job("migrate"), process("app", {{"migrate", condition::finished}})});
  auto up = operate_on(verb::await, "app");
  CHECK(states() == "migrate:ready app:waiting");
  CHECK(reason("app") == "waits for 'migrate' to finish");
  WHEN("it does") {
    end("migrate", 0);
    CHECK(states() == "migrate:finished app:ready");
    CHECK(texts(up) == strings{"app + ready"});
    AND_WHEN("the unit is restarted later") {
      m->take_log();
      CHECK(texts(operate_on(verb::restart, "app")) == strings{"app + ready"});
      CHECK(m->take_log() == strings{"signal app 15", "launch app"});
    }
  }
  WHEN("it fails") {
    end("migrate", 3);
    const auto why =
        "waits for 'migrate' to finish; 'migrate': failed, exited with code 3";
    CHECK(states() == "migrate:failed app:waiting");
    CHECK(reason("app") == why);
    CHECK(texts(up) == strings{std::string{"app - "} + why});
    CHECK(texts(operate_on(verb::await, "app"))
          == strings{std::string{"app - "} + why});
    AND_WHEN("somebody starts it again") {
      operate_on(verb::start, "migrate");
      CHECK(reason("app") == "waits for 'migrate' to finish");
      end("migrate", 0);
      CHECK(states() == "migrate:finished app:ready");
    }
    AND_WHEN("the unit is started before it can know of the next try") {
      m->becomes_ready = false;
      const auto app = unit("app");
      caf::anon_send(unit("migrate"), operate_unit{verb::start});
      auto again = ask<report>(app, operate_unit{verb::start});
      CHECK(again->pending());
      end("migrate", 0);
      ready("app");
      CHECK(texts(again) == strings{"app + ready"});
    }
    AND_WHEN("somebody starts the unit again in vain") {
      m->becomes_ready = false;
      up = operate_on(verb::start, "app");
      end("migrate", 3);
      CHECK(states() == "migrate:failed app:waiting");
      CHECK(texts(up)
            == strings{"migrate - exited with code 3; needed by 'app'",
                       std::string{"app - "} + why});
    }
  }
}

SCENARIO_METHOD(conducted_world, "a wait is stuck through a chain") {
  auto disk = process("disk");
  disk.autostart = false;
  start({disk, process("db", {{"disk"}}), process("app", {{"db"}})});
  CHECK(m->take_log().empty());
  CHECK(states() == "disk:stopped db:waiting app:waiting");
  CHECK(texts(operate_on(verb::await, "all"))
        == strings{"db - waits for 'disk' to be ready; 'disk': stopped",
                   "app - waits for 'db' to be ready; 'disk': stopped"});
  operate_on(verb::start, "disk");
  CHECK(m->take_log() == strings{"launch disk", "launch db", "launch app"});
}

SCENARIO_METHOD(conducted_world, "a dependency that keeps failing") {
  auto db = process("db");
  db.restart_limit = 1;
  start({db, process("app", {{"db"}})});
  operate_on(verb::stop, "all");
  m->becomes_ready = false;
  auto up = operate_on(verb::start, "all");
  end("db");
  CHECK(runs("db"));  // at once
  CHECK(up->pending());
  end("db");
  CHECK(states() == "db:exhausted app:waiting");
  CHECK(texts(up)
        == strings{"db - exited with code 1; starting again at once",
                   "app - waits for 'db' to be ready; 'db': exhausted, exited "
                   "with code 1; more than 1 restarts in 60 s"});
}

SCENARIO_METHOD(conducted_world, "a cluster is ready when all of it is") {
  m->becomes_ready = false;
  start({cluster("db", 2), process("app", {{"db"}})});
  ready("db-1");
  CHECK(states() == "db:degraded app:waiting");
  ready("db-2");
  CHECK(runs("app"));
}

SCENARIO_METHOD(conducted_world, "instances of a cluster wait as one") {
  m->becomes_ready = false;
  auto web = cluster("web", 2);
  web.depends_on = {{"db"}};
  start({process("db"), web});
  CHECK(m->take_log() == strings{"launch db"});
  CHECK(reason("web") == "web-1: waits for 'db' to be ready");
  ready("db");
  CHECK(m->take_log() == strings{"launch web-1", "launch web-2"});
}

SCENARIO_METHOD(conducted_world, "restarts concern nobody else") {
  start({process("db"), process("app", {{"db"}})});
  m->take_log();
  m->becomes_ready = false;
  end("db");
  CHECK(states() == "db:starting app:ready");
  end("app");
  CHECK(m->take_log() == strings{"launch db", "launch app"});
}

SCENARIO_METHOD(conducted_world, "waiting can be called off") {
  m->becomes_ready = false;
  start({process("db"), process("app", {{"db"}})});
  WHEN("by a stop") {
    CHECK(texts(operate_on(verb::stop, "app")) == strings{"app + stopped"});
    CHECK(states() == "db:starting app:stopped");
  }
  WHEN("by a block") {
    operate_on(verb::block, "app");
    CHECK(states() == "db:starting app:blocked");
  }
  ready("db");
  CHECK_FALSE(runs("app"));
  m->becomes_ready = true;
  operate_on(verb::unblock, "app");
  operate_on(verb::start, "app");
  CHECK(states() == "db:ready app:ready");
}

// -- dependencies: requests ---------------------------------------------------

SCENARIO_METHOD(conducted_world, "starting a unit starts what it needs") {
  start({process("app", {{"db"}}), process("db", {{"disk"}}), process("disk"),
         process("other")});
  operate_on(verb::stop, "all");
  m->take_log();
  WHEN("all of it is down") {
    CHECK(texts(operate_on(verb::start, "app"))
          == strings{"disk + ready; needed by 'db'",
                     "db + ready; needed by 'app'", "app + ready"});
    CHECK(m->take_log() == strings{"launch disk", "launch db", "launch app"});
    CHECK(states() == "app:ready db:ready disk:ready other:stopped");
  }
  WHEN("some of it is up") {
    operate_on(verb::start, "db");
    m->take_log();
    CHECK(texts(operate_on(verb::restart, "app")) == strings{"app + ready"});
    CHECK(m->take_log() == strings{"launch app"});
  }
  WHEN("all are started") {
    CHECK(texts(operate_on(verb::start, "all"))
          == strings{"app + ready", "db + ready", "disk + ready",
                     "other + ready"});
    CHECK(m->take_log()
          == strings{"launch disk", "launch other", "launch db", "launch app"});
  }
  WHEN("nobody waits for it") {
    m->becomes_ready = false;
    CHECK(texts(operate_on(verb::start, "app", false))
          == strings{"disk + begun; needed by 'db'",
                     "db + begun; needed by 'app'", "app + begun"});
    CHECK(states() == "app:waiting db:waiting disk:starting other:stopped");
  }
}

SCENARIO_METHOD(conducted_world, "a dependency that finished is not repeated") {
  start({job("migrate"), process("app", {{"migrate", condition::finished}})});
  end("migrate", 0);
  operate_on(verb::stop, "app");
  m->take_log();
  CHECK(texts(operate_on(verb::start, "app")) == strings{"app + ready"});
  CHECK(m->take_log() == strings{"launch app"});
}

SCENARIO_METHOD(conducted_world, "a stop begins with those that need others") {
  m->obeys = false;
  start({process("db"), process("app", {{"db"}}), process("cache"),
         process("web", {{"app"}})});
  m->take_log();
  const auto stopped = [this](const std::string& id) {
    m->end(id, {ending::kind::signalled, 0, 15, {}});
    run();
  };
  WHEN("all are stopped") {
    auto done = operate_on(verb::stop, "all");
    CHECK(m->take_log() == strings{"signal web 15"});
    stopped("web");
    CHECK(m->take_log() == strings{"signal app 15"});
    stopped("app");
    CHECK(m->take_log() == strings{"signal db 15", "signal cache 15"});
    stopped("db");
    CHECK(done->pending());
    stopped("cache");
    CHECK(texts(done)
          == strings{"web + stopped", "app + stopped", "db + stopped",
                     "cache + stopped"});
  }
  WHEN("nobody waits for it") {
    CHECK(texts(operate_on(verb::stop, "all", false))
          == strings{"db + begun", "app + begun", "cache + begun",
                     "web + begun"});
    CHECK(m->take_log() == strings{"signal web 15"});
    stopped("web");
    CHECK(m->take_log() == strings{"signal app 15"});
  }
  WHEN("one is stopped") {
    auto done = operate_on(verb::stop, "db");
    CHECK(m->take_log() == strings{"signal db 15"});
    stopped("db");
    CHECK(texts(done) == strings{"db + stopped; 'app' depends on it"});
    CHECK(states() == "db:stopped app:ready cache:ready web:ready");
  }
  WHEN("the supervisor ends") {
    ask<terminating>(*control, terminate{});
    strings order;
    for (const auto* next : {"web", "cache", "app", "db"}) {
      CHECK(m->take_log() == strings{std::string{"signal "} + next + " 15"});
      stopped(next);
    }
    CHECK(end_of_root == caf::exit_reason::user_shutdown);
  }
}

TEST_CASE("those left without what they need are named") {
  pup_spec spec;
  spec.processes = {process("db"), process("a", {{"db"}}),
                    process("b", {{"db"}}), process("c", {{"db"}})};
  std::vector<unit_status> units(4);
  for (std::size_t i = 0; i < units.size(); ++i) {
    units[i].id = spec.processes[i].id;
    units[i].state = run_state::ready;
  }
  units[3].state = run_state::stopped;
  const auto note = [&](std::vector<target> chosen) {
    return sequence_of(spec, verb::stop, chosen, units).back().at(0).note;
  };
  CHECK(note({{"db", 0}}) == "'a', 'b' depend on it");
  CHECK(note({{"db", 0}, {"a", 0}}) == "'b' depends on it");
  CHECK(note({{"db", 0}, {"a", 0}, {"b", 0}}).empty());
  CHECK(note({{"db", 2}}).empty());
}

// -- dependencies: failures of pup's own actors -------------------------------

SCENARIO_METHOD(conducted_world,
                "a new conductor knows what the old one knew") {
  m->becomes_ready = false;
  spec.start_concurrency = 1;
  start({process("db"), process("app", {{"db"}}), process("other")});
  kill_child("conductor");
  CHECK(m->take_log() == strings{"launch db"});
  CHECK(reason("app") == "waits for 'db' to be ready");
  CHECK(reason("other") == "waits for its turn: 1 may be starting at once");
  ready("db");
  CHECK(m->take_log() == strings{"launch app"});
  ready("app");
  CHECK(m->take_log() == strings{"launch other"});
}

SCENARIO_METHOD(conducted_world, "a unit's actor fails while others wait") {
  m->becomes_ready = false;
  spec.start_concurrency = 1;
  start({process("db"), process("app", {{"db"}})});
  m->take_log();
  kill_child(unit_child_id("db"));
  CHECK(m->take_log() == strings{"reap db", "launch db"});
  kill_child(unit_child_id("app"));
  CHECK(states() == "db:starting app:waiting");
  ready("db");
  CHECK(m->take_log() == strings{"launch app"});
}

// -- startConcurrency ---------------------------------------------------------

SCENARIO_METHOD(conducted_world, "so many may be starting at once") {
  m->becomes_ready = false;
  spec.start_concurrency = 2;
  start({process("a"), cluster("web", 3), process("z")});
  CHECK(m->take_log() == strings{"launch a", "launch web-1"});
  CHECK(states() == "a:starting web:degraded z:waiting");
  CHECK(reason("z") == "waits for its turn: 2 may be starting at once");
  ready("web-1");
  CHECK(m->take_log() == strings{"launch web-2"});
  WHEN("one that starts is stopped") {
    operate_on(verb::stop, "a");
    CHECK(m->take_log() == strings{"signal a 15", "launch web-3"});
  }
  WHEN("one that waits is stopped") {
    operate_on(verb::stop, "web-3");
    ready("a");
    CHECK(m->take_log() == strings{"launch z"});
  }
}

SCENARIO_METHOD(conducted_world, "a process that fails keeps nobody waiting") {
  m->becomes_ready = false;
  spec.start_concurrency = 1;
  start({process("bad"), process("b"), process("c")});
  m->take_log();
  end("bad");  // starts again at once, but behind the others
  CHECK(m->take_log() == strings{"launch b"});
  ready("b");
  CHECK(m->take_log() == strings{"launch c"});
  ready("c");
  CHECK(m->take_log() == strings{"launch bad"});
}

SCENARIO_METHOD(conducted_world, "who waits for others takes no turn") {
  m->becomes_ready = false;
  spec.start_concurrency = 1;
  start({job("slow"), process("app", {{"slow", condition::finished}}),
         process("z")});
  ready("slow");
  CHECK(m->take_log() == strings{"launch slow", "launch z"});
  end("slow", 0);
  CHECK(reason("app") == "waits for its turn: 1 may be starting at once");
  ready("z");
  CHECK(m->take_log() == strings{"launch app"});
}

// -- groups -------------------------------------------------------------------

namespace {

struct grouped_world : conducted_world {
  void start_group(strategy how, std::vector<process_spec> members,
                   std::optional<std::uint32_t> limit = std::nullopt) {
    spec.groups["g"].how = how;
    spec.groups["g"].restart_limit = limit;
    for (auto& x : members)
      x.in_group = "g";
    members.push_back(process("bystander"));
    start(std::move(members));
    advance(1s);  // so that the first end is no failure to start
    m->take_log();
  }

  void start_three(strategy how,
                   std::optional<std::uint32_t> limit = std::nullopt) {
    start_group(how, {process("a"), process("b"), process("c")}, limit);
  }

  std::uint32_t restarts(const std::string& id) {
    return status(id).at(0).instances.at(0).restarts;
  }
};

}  // namespace

SCENARIO_METHOD(grouped_world, "one_for_one, permanent") {
  start_three(strategy::one_for_one);
  end("b", 0);
  CHECK(m->take_log() == strings{"launch b"});
  CHECK(states() == "a:ready b:ready c:ready bystander:ready");
  CHECK(status("b").at(0).group == "g");
  CHECK(status("bystander").at(0).group.empty());
}

SCENARIO_METHOD(grouped_world, "one_for_all, permanent") {
  start_three(strategy::one_for_all);
  end("b");
  CHECK(m->take_log()
        == strings{"signal c 15", "signal a 15", "launch a", "launch b",
                   "launch c"});
  CHECK(states() == "a:ready b:ready c:ready bystander:ready");
  CHECK(restarts("a") == 1);
  CHECK(restarts("b") == 1);
  CHECK(restarts("bystander") == 0);
}

SCENARIO_METHOD(grouped_world, "rest_for_one, permanent") {
  start_three(strategy::rest_for_one);
  end("b");
  CHECK(m->take_log() == strings{"signal c 15", "launch b", "launch c"});
  end("a");
  CHECK(m->take_log()
        == strings{"signal c 15", "signal b 15", "launch a", "launch b",
                   "launch c"});
  end("c");
  CHECK(m->take_log() == strings{"launch c"});
}

SCENARIO_METHOD(grouped_world,
                "each step of a group's restart takes its time") {
  start_three(strategy::one_for_all);
  m->obeys = false;
  m->becomes_ready = false;
  end("a");
  CHECK(m->take_log() == strings{"signal c 15"});
  CHECK(states() == "a:waiting b:ready c:stopping bystander:ready");
  CHECK(reason("a") == "waits for its turn: group 'g' starts again");
  m->end("c", {ending::kind::signalled, 0, 15, {}});
  run();
  CHECK(m->take_log() == strings{"signal b 15"});
  m->end("b", {ending::kind::signalled, 0, 15, {}});
  run();
  CHECK(m->take_log() == strings{"launch a"});
  ready("a");
  CHECK(m->take_log() == strings{"launch b"});
  ready("b");
  CHECK(m->take_log() == strings{"launch c"});
  ready("c");
  CHECK(states() == "a:ready b:ready c:ready bystander:ready");
}

SCENARIO_METHOD(grouped_world, "a group waits for the backoff of who ended") {
  auto b = process("b");
  b.restart_delay = 500ms;
  start_group(strategy::one_for_all, {process("a"), b});
  end("b");
  CHECK(m->take_log() == strings{"signal a 15"});
  advance(499ms);
  CHECK(m->take_log().empty());
  advance(1ms);
  CHECK(m->take_log() == strings{"launch a", "launch b"});
}

SCENARIO_METHOD(grouped_world, "transient and temporary ends that rest") {
  auto a = process("a");
  a.restart = restart_policy::on_error;
  start_group(strategy::one_for_all, {a, job("b"), process("c")});
  end("a", 0);
  CHECK(states() == "a:finished b:ready c:ready bystander:ready");
  end("b", 1);
  CHECK(states() == "a:finished b:failed c:ready bystander:ready");
  CHECK(m->take_log().empty());
}

SCENARIO_METHOD(grouped_world, "transient_abnormal restarts the group") {
  auto a = process("a");
  a.restart = restart_policy::on_error;
  start_group(strategy::one_for_all, {a, process("b")});
  end("a", 1);
  CHECK(m->take_log() == strings{"signal b 15", "launch a", "launch b"});
}

SCENARIO_METHOD(grouped_world, "bystanders in a group's restart") {
  auto transient = process("transient");
  transient.restart = restart_policy::on_error;
  start_group(strategy::one_for_all, {process("a"), transient, job("temporary"),
                                      process("stopped"), process("blocked")});
  operate_on(verb::stop, "stopped");
  operate_on(verb::block, "blocked");
  end("blocked", 0);
  end("transient", 0);
  m->take_log();
  end("a");
  CHECK(m->take_log()
        == strings{"signal temporary 15", "launch a", "launch transient"});
  CHECK(states()
        == "a:ready transient:ready temporary:stopped stopped:stopped "
           "blocked:blocked bystander:ready");
  CHECK(status("temporary").at(0).instances.at(0).reason
        == "stopped with its group 'g'");
  THEN("who was started again is a member in its place") {
    operate_on(verb::start, "temporary");
    advance(1s);
    m->take_log();
    end("a");
    CHECK(m->take_log()
          == strings{"signal temporary 15", "signal transient 15", "launch a",
                     "launch transient"});
  }
}

SCENARIO_METHOD(grouped_world, "a member fails while its group starts again") {
  start_three(strategy::one_for_all);
  m->becomes_ready = false;
  end("c");
  CHECK(m->take_log() == strings{"signal b 15", "signal a 15", "launch a"});
  ready("a");
  CHECK(m->take_log() == strings{"launch b"});
  m->becomes_ready = true;
  end("b");
  CHECK(m->take_log()
        == strings{"signal a 15", "launch a", "launch b", "launch c"});
  CHECK(states() == "a:ready b:ready c:ready bystander:ready");
}

SCENARIO_METHOD(grouped_world, "escalation: a group gives up") {
  start_three(GENERATE(strategy::one_for_one, strategy::rest_for_one,
                       strategy::one_for_all),
              2);
  end("a");
  advance(1s);
  end("b");
  advance(1s);
  CHECK(states() == "a:ready b:ready c:ready bystander:ready");
  m->take_log();
  end("b");
  CHECK(m->take_log() == strings{"signal c 15", "signal a 15"});
  CHECK(states() == "a:exhausted b:exhausted c:exhausted bystander:ready");
  CHECK(reason("a")
          == "group 'g' gave up: more than 2 restarts in 60 s; last: 'b' "
             "exited with code 1");
  THEN("a start makes it new") {
    operate_on(verb::start, "all");
    CHECK(states() == "a:ready b:ready c:ready bystander:ready");
    for (int i = 0; i < 2; ++i) {
      advance(1s);
      end("a");
      CHECK(states() == "a:ready b:ready c:ready bystander:ready");
    }
    advance(1s);
    end("a");
    CHECK(states() == "a:exhausted b:exhausted c:exhausted bystander:ready");
  }
}

SCENARIO_METHOD(grouped_world, "ends long ago do not count") {
  start_three(strategy::one_for_one, 1);
  end("a");
  advance(60s + 1ms);
  end("b");
  CHECK(states() == "a:ready b:ready c:ready bystander:ready");
}

SCENARIO_METHOD(grouped_world, "a process has a limit of its own as well") {
  auto a = process("a");
  a.restart_limit = 0;
  start_group(strategy::one_for_all, {a, process("b")});
  end("a");
  CHECK(states() == "a:exhausted b:ready bystander:ready");
  CHECK(m->take_log().empty());
}

SCENARIO_METHOD(grouped_world, "a cluster as a member") {
  auto web = cluster("web", 2);
  web.restart_limit = 1;
  start_group(strategy::one_for_all, {process("a"), web});
  end("web-1");
  CHECK(m->take_log() == strings{"launch web-1"});  // its own affair
  advance(1s);
  end("web-1");
  CHECK(m->take_log().empty());
  CHECK(states() == "a:ready web:degraded bystander:ready");
  end("web-2");
  advance(1s);
  m->take_log();
  end("web-2");  // the last one has given up
  CHECK(m->take_log()
        == strings{"signal a 15", "launch a", "launch web-1", "launch web-2"});
  CHECK(states() == "a:ready web:running bystander:ready");
  THEN("it stops in its place when another ends") {
    end("a");
    CHECK(m->take_log()
          == strings{"signal web-2 15", "signal web-1 15", "launch a",
                     "launch web-1", "launch web-2"});
  }
}

SCENARIO_METHOD(grouped_world, "members start before those that need them") {
  start_group(strategy::one_for_all, {process("app", {{"db"}}), process("db")});
  end("app");
  CHECK(m->take_log() == strings{"signal db 15", "launch db", "launch app"});
}

SCENARIO_METHOD(grouped_world, "a person's stop during a group's restart") {
  start_three(strategy::one_for_all);
  m->becomes_ready = false;
  end("a");
  CHECK(m->take_log() == strings{"signal c 15", "signal b 15", "launch a"});
  operate_on(verb::stop, "b");
  operate_on(verb::stop, "a");
  CHECK(m->take_log() == strings{"signal a 15", "launch c"});
  ready("c");
  CHECK(states() == "a:stopped b:stopped c:ready bystander:ready");
}

SCENARIO_METHOD(grouped_world, "a member's actor fails in a group's restart") {
  start_three(strategy::one_for_all);
  m->obeys = false;
  end("a");
  CHECK(m->take_log() == strings{"signal c 15"});
  kill_child(unit_child_id("c"));
  m->obeys = true;
  m->end("b", {ending::kind::signalled, 0, 15, {}});
  run();
  CHECK(states() == "a:ready b:ready c:ready bystander:ready");
}

// -- autoShutdown -------------------------------------------------------------

namespace {

struct ending_world : grouped_world {
  void start_ending(group_spec::shutdown how, bool alone = true) {
    ends_with_groups = true;
    spec.groups["g"].auto_shutdown = how;
    auto main = process("main");
    main.restart = restart_policy::on_error;
    auto second = job("second");
    main.significant = second.significant = true;
    std::vector<process_spec> all{main, process("helper"), second};
    for (auto& x : all)
      x.in_group = "g";
    if (!alone)
      all.push_back(job("other"));
    start(std::move(all));
    m->take_log();
  }

  std::string end_in_words() {
    return is(end_of_root, fault::process_ended)
               ? to_string(ending_of(end_of_root))
               : "";
  }
};

}  // namespace

SCENARIO_METHOD(ending_world, "any: the first significant end ends the group") {
  start_ending(group_spec::shutdown::any);
  WHEN("it has finished") {
    end("main", 0);
    CHECK(m->take_log() == strings{"signal second 15", "signal helper 15"});
    CHECK(end_in_words() == "exited with code 0");
  }
  WHEN("it has failed and is not restarted") {
    end("second", 7);
    CHECK(m->take_log() == strings{"signal helper 15", "signal main 15"});
    CHECK(end_in_words() == "exited with code 7");
  }
  WHEN("it was killed") {
    m->end("second", {ending::kind::signalled, 0, 9, {}});
    run();
    CHECK(end_in_words() == "killed by SIGKILL");
  }
  WHEN("it fails and is restarted") {
    end("main", 1);
    CHECK(m->take_log() == strings{"launch main"});
    CHECK_FALSE(end_of_root);
  }
  WHEN("another one ends") {
    end("helper", 0);
    CHECK(m->take_log() == strings{"launch helper"});
    CHECK_FALSE(end_of_root);
  }
  WHEN("somebody stops it") {
    operate_on(verb::stop, "main");
    CHECK(states() == "main:stopped helper:ready second:ready");
    CHECK_FALSE(end_of_root);
  }
}

SCENARIO_METHOD(ending_world, "all: the last significant end ends the group") {
  start_ending(group_spec::shutdown::all);
  WHEN("they end one after the other") {
    end("main", 0);
    CHECK(m->take_log().empty());
    end("second", 3);
    CHECK(m->take_log() == strings{"signal helper 15"});
    CHECK(end_in_words() == "exited with code 3");
  }
  WHEN("they end at the same time") {
    m->exit("second", 3);
    m->exit("main", 0);
    run();
    CHECK(m->take_log() == strings{"signal helper 15"});
    CHECK(is(end_of_root, fault::process_ended));
  }
  WHEN("one was stopped before") {
    operate_on(verb::stop, "second");
    m->take_log();
    end("main", 0);
    CHECK(m->take_log() == strings{"signal helper 15"});
    CHECK(end_in_words() == "exited with code 0");
  }
  WHEN("one has been started again") {
    end("second", 3);
    operate_on(verb::start, "second");
    end("main", 0);
    CHECK_FALSE(end_of_root);
    CHECK(states() == "main:finished helper:ready second:ready");
  }
}

SCENARIO_METHOD(ending_world,
                "the supervisor goes on while another unit runs") {
  start_ending(group_spec::shutdown::any, false);
  end("main", 0);
  CHECK(states() == "main:finished helper:stopped second:stopped other:ready");
  CHECK(status("helper").at(0).instances.at(0).reason
        == "group 'g' ended with 'main', which exited with code 0");
  CHECK_FALSE(end_of_root);
  WHEN("that ends as well") {
    end("other", 5);
    CHECK(end_in_words() == "exited with code 0");
  }
  WHEN("the group is started again") {
    operate_on(verb::start, "main");
    end("other", 5);
    CHECK_FALSE(end_of_root);
    end("main", 0);
    CHECK(end_in_words() == "exited with code 0");
  }
}

SCENARIO_METHOD(ending_world, "a supervisor in the background stays") {
  ends_with_groups = false;
  spec.groups["g"].auto_shutdown = group_spec::shutdown::any;
  auto main = job("main");
  main.significant = true;
  main.in_group = "g";
  start({main});
  end("main", 4);
  CHECK(states() == "main:failed");
  CHECK_FALSE(end_of_root);
}
