// pup apply: a running tree takes another configuration over.
#include "pup/actors/spawn.hpp"
#include "pup/actors/supervisor.hpp"

#include "cluster_world.hpp"

#include <algorithm>

using namespace pup;
using namespace pup::test;
using namespace std::chrono_literals;

namespace {

process_spec named(process_spec x, const std::string& id,
                   std::uint16_t first = 0) {
  x.id = id;
  if (x.cluster && first != 0) {
    x.cluster->start_port = first;
    x.cluster->common_port = static_cast<std::uint16_t>(first - 1);
  }
  return x;
}

// Control and units below a root, as the host builds them. What "is read" is
// what the test has put there.
struct apply_world : fake_world {
  pup_spec spec;
  pup_spec file;                                  // what load makes of any text
  std::vector<diagnostic> faults;                 // or these
  bool silent = false;                            // it is not read
  std::vector<std::function<void(loaded)>> late;  // until these are called
  supervisor_actor root;
  std::shared_ptr<control_actor> control = std::make_shared<control_actor>();

  apply_world() {
    spec.name = "shop";
    spec.processes = {named(web(3), "web", 8000), named(worker(), "mailer"),
                      named(web(2), "api", 9000)};
  }
  ~apply_world() {
    *control = nullptr;
  }

  child_spec unit(const process_spec& x) {
    cluster_args args;
    args.spec = x;
    args.supervisor = spec.name;
    args.world = world;
    return unit_child(std::move(args));
  }

  void start() {
    control_args args;
    args.identity.name = spec.name;
    args.spec = spec;
    args.launcher = world.launcher;
    args.load = [this](const struct apply&, std::function<void(loaded)> done) {
      if (silent)
        late.push_back(std::move(done));
      else
        done(read());
      return [] { return std::string{"/srv/held.env"}; };
    };
    args.unit = [this](const process_spec& x) { return unit(x); };
    supervisor_spec tree;
    tree.limit = {};
    child_spec first;
    first.id = "control";
    first.start = [args, to = control](start_context& x) {
      auto mine = args;
      mine.kept = x.kept;
      mine.root = root_of(x);
      *to = spawn_control(x.self, std::move(mine));
      return caf::actor_cast<caf::strong_actor_ptr>(*to);
    };
    tree.children.push_back(std::move(first));
    for (const auto& x : spec.processes)
      tree.children.push_back(unit(x));
    root = own(spawn_supervisor(sys, std::move(tree)));
    run();
    m->take_log();
    file = spec;
  }

  [[nodiscard]] loaded read() const {
    if (!faults.empty())
      return {faults};
    return {file};
  }

  answer_ptr<apply_report> apply(bool dry_run = false, bool wait = true) {
    return ask<apply_report>(*control,
                             pup::apply{"{}", "pup.json", "/", dry_run, wait});
  }

  process_spec& in_file(const std::string& id) {
    return *std::find_if(file.processes.begin(), file.processes.end(),
                         [&](const auto& x) { return x.id == id; });
  }

  std::map<std::string, std::uint64_t> lives() const {
    std::map<std::string, std::uint64_t> result;
    for (const auto& [id, x] : m->processes)
      result[id] = x.request.life;
    return result;
  }

  void kill_unit(const std::string& id) {
    auto children = ask<std::vector<child_info>>(root, which_children{});
    for (const auto& x : children->value())
      if (x.id == unit_child_id(id))
        caf::anon_send_exit(x.handle, caf::exit_reason::kill);
    run();
  }

  std::string shape() {
    std::string result;
    const auto all = ask<supervisor_status>(*control, get_status{});
    for (const auto& unit : all->value().units)
      result += (result.empty() ? "" : " ") + unit.id + ':'
                + to_string(unit.state) + '/'
                + std::to_string(unit.instances.size());
    return result;
  }
};

}  // namespace

SCENARIO_METHOD(apply_world, "an unchanged file touches nothing") {
  start();
  const auto before = lives();
  const auto answer = apply();
  CHECK(answer->value().plan.empty());
  CHECK(answer->value().outcomes.empty());
  CHECK(lives() == before);
  CHECK(m->log.empty());
}

SCENARIO_METHOD(apply_world, "only what is different changes") {
  start();
  const auto before = lives();
  in_file("web").env["VERSION"] = "2";
  const auto answer = apply();
  CHECK(answer->value().plan == strings{"web: reload (env)"});
  CHECK(texts(answer->value().outcomes)
        == strings{"web-1 + ready", "web-2 + ready", "web-3 + ready",
                   "web + reloaded"});
  const auto after = lives();
  for (const auto* id : {"web-1", "web-2", "web-3"})
    CHECK(after.at(id) != before.at(id));
  for (const auto* id : {"mailer", "api-1", "api-2"})
    CHECK(after.at(id) == before.at(id));
  CHECK(m->processes.at("web-1").request.env.at("VERSION") == "2");
  CHECK(apply()->value().plan.empty());
}

SCENARIO_METHOD(apply_world, "a variable that the file no longer has is gone") {
  spec.processes.at(1).env = {{"OLD", "1"}, {"STAYS", "1"}};
  start();
  REQUIRE(m->processes.at("mailer").request.env.count("OLD") == 1);
  in_file("mailer").env.erase("OLD");
  CHECK(apply()->value().plan == strings{"mailer: reload (env)"});
  const auto& env = m->processes.at("mailer").request.env;
  CHECK(env.count("OLD") == 0);
  CHECK(env.count("STAYS") == 1);
}

SCENARIO_METHOD(apply_world, "entries come and go") {
  start();
  file.processes = {named(worker(), "first"), in_file("mailer"),
                    named(web(2), "shop", 7000)};
  const auto before = lives();
  const auto plan =
      strings{"api: stop", "web: stop", "first: start", "shop: start"};
  WHEN("it is a dry run") {
    CHECK(apply(true)->value().plan == plan);
    THEN("nothing happens") {
      CHECK(lives() == before);
      CHECK(m->log.empty());
    }
  }
  WHEN("it is none") {
    const auto answer = apply();
    CHECK(answer->value().plan == plan);
    CHECK(texts(answer->value().outcomes)
          == strings{"api + stopped", "first + ready", "shop-1 + ready",
                     "shop-2 + ready", "shop + listening", "web + stopped"});
    THEN("they are as in the file") {
      CHECK(shape() == "first:ready/1 mailer:ready/1 shop:running/2");
      CHECK(lives().at("mailer") == before.at("mailer"));
      CHECK(m->processes.size() == 4);
      CHECK(apply()->value().plan.empty());
    }
    THEN("stops come before starts, in reverse order") {
      const auto log = m->take_log();
      const auto at = [&](const std::string& line) {
        return std::find(log.begin(), log.end(), line) - log.begin();
      };
      CHECK(at("close api") < at("close web"));
      CHECK(at("signal web-1 15") < at("launch first"));
      CHECK(at("launch first") < at("launch shop-1"));
    }
  }
}

SCENARIO_METHOD(apply_world, "the file wins over scale requests") {
  start();
  ask<scale_report>(*control, scale{"web", scale_mode::to, 5, true});
  const auto before = lives();
  CHECK(apply()->value().plan
        == strings{"web: scale 5 -> 3 (as the file says)"});
  CHECK(lives().size() == before.size() - 2);
  CHECK(lives().at("web-3") == before.at("web-3"));
  in_file("api").cluster->instances = 4;
  const auto answer = apply();
  CHECK(answer->value().plan == strings{"api: scale 2 -> 4"});
  CHECK(texts(answer->value().outcomes)
        == strings{"api-3 + ready", "api-4 + ready"});
  CHECK(apply()->value().plan.empty());
}

SCENARIO_METHOD(apply_world, "what was stopped stays stopped") {
  start();
  ask<report>(*control, operate{verb::stop, "web", true});
  in_file("web").cluster->instances = 4;
  in_file("web").env["A"] = "1";
  apply();
  CHECK(m->processes.count("web-1") == 0);
  CHECK(m->processes.count("web-4") == 0);
  ask<report>(*control, operate{verb::start, "web", true});
  CHECK(m->processes.at("web-4").request.env.at("A") == "1");
}

SCENARIO_METHOD(apply_world, "some keys need no new life") {
  start();
  const auto before = lives();
  auto& x = in_file("web");
  x.stop_signal = 2;
  x.restart_limit = 0;
  x.cluster->drain_timeout = 5s;
  x.cluster->strategy = balance_strategy::least_connections;
  x.cluster->health = health_check{};
  x.cluster->health->unhealthy_after = 2;
  const auto answer = apply();
  CHECK(answer->value().plan
        == strings{"web: change (restartLimit, stopSignal, strategy, "
                   "drainTimeoutMs, healthCheck)"});
  CHECK(answer->value().outcomes.empty());
  CHECK(lives() == before);
  THEN("the balancer knows") {
    CHECK(m->listeners["web"].spec.strategy
          == balance_strategy::least_connections);
  }
  THEN("drains are shorter, and the signal is another") {
    m->clients[1] = 1;
    auto done = ask<report>(*control, operate{verb::stop, "web-1", true});
    advance(5s - 1ms);
    CHECK(done->pending());
    m->take_log();
    advance(1ms);
    CHECK(done->value().outcomes.at(0).ok);
    CHECK(m->take_log()
          == std::vector<std::string>{"signal web-1 2", "publish web: 2 3"});
  }
  THEN("health is checked") {
    advance(1s);
    CHECK(m->probes == 3);
    m->faults[8000] = "timed out";
    advance(1s);
    m->faults.clear();
    in_file("web").cluster->health.reset();
    apply();
    const auto probes = m->probes;
    advance(10s);
    CHECK(m->probes == probes);  // no more
    CHECK(lives() == before);
    CHECK(shape().find("web:running/3") == 0);
    CHECK(m->listeners["web"].shown == " 1 2 3");
  }
  THEN("the next failure is one too many") {
    m->exit("web-1", 1);
    run();
    CHECK(m->processes.count("web-1") == 0);
  }
}

SCENARIO_METHOD(apply_world, "the common port moves") {
  start();
  const auto before = lives();
  in_file("web").cluster->common_port = 7990;
  in_file("web").env["A"] = "1";
  WHEN("it can") {
    CHECK(apply()->value().plan
          == strings{"web: reload (env), change (commonPort)"});
    THEN("it does") {
      CHECK(m->listeners["web"].spec.common_port == 7990);
      CHECK(lives() != before);
    }
  }
  WHEN("it cannot") {
    m->refusals["web"] = "port 7990 is in use";
    const auto answer = apply();
    THEN("nothing changes") {
      CHECK(texts(answer->value().outcomes)
            == strings{"web - port 7990 is in use"});
      CHECK(lives() == before);
      m->refusals.clear();
      CHECK(texts(apply()->value().outcomes).back() == "web + reloaded");
    }
  }
}

SCENARIO_METHOD(apply_world, "instances get other ports") {
  start();
  in_file("web").cluster->start_port = 8100;
  CHECK(apply()->value().plan == strings{"web: reload (startPort)"});
  CHECK(m->processes.at("web-2").request.port == 8101);
  for (const auto& x : m->listeners["web"].backends)
    CHECK(x.port == 8100 + x.slot - 1);
}

SCENARIO_METHOD(apply_world, "another kind of unit: stopped and started") {
  start();
  in_file("web").cluster->mode = cluster_mode::inherit;
  in_file("mailer").cluster.emplace();
  const auto answer = apply();
  CHECK(answer->value().plan
        == strings{"web: stop and start (mode)",
                   "mailer: stop and start (cluster)"});
  CHECK(shape() == "web:running/3 mailer:running/1 api:running/2");
  CHECK(m->processes.at("web-1").request.inherit.has_value());
  CHECK(m->processes.count("mailer-1") == 1);
}

// -- what fails ---------------------------------------------------------------

SCENARIO_METHOD(apply_world, "a spare of the new version fails") {
  start();
  const auto before = lives();
  in_file("web").env["A"] = "1";
  in_file("mailer").env["A"] = "1";
  m->becomes_ready = false;
  auto answer = apply();
  m->ready("mailer");
  m->exit("web-4", 3);
  run();
  CHECK(texts(answer->value().outcomes)
        == strings{"mailer + ready", "mailer + reloaded",
                   "web-1 - not reloaded, goes on as before",
                   "web-2 - not reloaded, goes on as before",
                   "web-3 - not reloaded, goes on as before",
                   "web - the reload stopped: web-4, a spare: exited with code "
                   "3; the former configuration is back"});
  auto after = lives();
  after.erase("mailer");
  auto untouched = before;
  untouched.erase("mailer");
  CHECK(after == untouched);
  m->becomes_ready = true;
  CHECK(apply()->value().plan == strings{"web: reload (env)"});
}

SCENARIO_METHOD(apply_world, "a new version fails in the middle") {
  spec.processes.at(0).cluster->max_surge = 0;
  start();
  const auto before = lives();
  in_file("web").env["A"] = "1";
  in_file("web").cluster->instances = 4;
  m->becomes_ready = false;
  auto answer = apply();
  CHECK(m->processes.count("web-4") == 1);
  m->ready("web-4");
  run();
  m->ready("web-1");
  run();
  CHECK(m->processes.at("web-1").request.env.count("A") == 1);
  m->becomes_ready = true;
  m->exit("web-2", 3);
  run();
  const auto texts_now = texts(answer->value().outcomes);
  CHECK(texts_now.back().find("web - the reload stopped: web-2: exited with "
                              "code 3")
        == 0);
  CHECK(texts_now.back().find("; the former configuration is back")
        != std::string::npos);
  CHECK(shape() == "web:running/3 mailer:ready/1 api:running/2");
  for (const auto* id : {"web-1", "web-2", "web-3"})
    CHECK(m->processes.at(id).request.env.count("A") == 0);
  CHECK(lives().at("web-3") == before.at("web-3"));
  CHECK(apply(true)->value().plan
        == strings{"web: scale 3 -> 4, reload (env)"});
}

SCENARIO_METHOD(apply_world, "a new process fails") {
  start();
  in_file("mailer").env["A"] = "1";
  m->becomes_ready = false;
  auto answer = apply();
  m->becomes_ready = true;
  m->exit("mailer", 3);
  run();
  CHECK_FALSE(answer->value().outcomes.at(0).ok);
  CHECK(m->processes.at("mailer").request.env.count("A") == 0);
  CHECK(shape() == "web:running/3 mailer:ready/1 api:running/2");
}

SCENARIO_METHOD(apply_world, "a bad file changes nothing") {
  start();
  faults = {{"pup.json", 3, 4, "processes", "is empty", "add a process"}};
  CHECK(apply()->value().faults
        == strings{"pup.json:3:4: processes: is empty; add a process"});
  faults.clear();
  file.name = "other";
  file.processes.clear();
  CHECK(apply()->value().faults.size() == 1);
  CHECK(m->log.empty());
}

SCENARIO_METHOD(apply_world, "a removed unit whose actor is gone") {
  start();
  kill_unit("web");
  file.processes.erase(file.processes.begin());
  CHECK(texts(apply()->value().outcomes) == strings{"web + stopped"});
  CHECK(shape() == "mailer:ready/1 api:running/2");
}

SCENARIO_METHOD(apply_world, "new units stop where the new file has them") {
  start();
  // "db" is the last entry, but "api" needs it.
  file.processes = {named(worker(), "first"), in_file("web"),
                    in_file("mailer"),        named(worker(), "middle"),
                    in_file("api"),           named(worker(), "last"),
                    named(worker(), "db")};
  in_file("api").depends_on = {{"db"}};
  apply();
  const auto children =
      ask<std::vector<child_info>>(root, which_children{})->value();
  std::string order;
  for (const auto& x : children)
    order += x.id + "; ";
  CHECK(order
        == "control; unit first; unit web; unit mailer; unit middle; unit db; "
           "unit api; unit last; ");
  m->take_log();
  ask<terminating>(*control, terminate{});
  const auto log = m->take_log();
  const auto at = [&](const std::string& id) {
    const auto i = std::find(log.begin(), log.end(), "signal " + id + " 15");
    INFO(id);
    CHECK(i != log.end());
    return i - log.begin();
  };
  CHECK(at("last") < at("api-1"));
  CHECK(at("api-1") < at("db"));
  CHECK(at("db") < at("middle"));
  CHECK(at("middle") < at("mailer"));
  CHECK(at("mailer") < at("web-1"));
  CHECK(at("web-1") < at("first"));
}

SCENARIO_METHOD(apply_world, "what runs is what the last file says") {
  start();
  const auto config = [&] {
    return ask<supervisor_status>(*control, get_status{})->value().config;
  };
  const auto apply_file = [&](const std::string& name, bool dry_run = false) {
    return ask<apply_report>(
        *control, pup::apply{"{}", "../" + name, "/srv/shop", dry_run, true});
  };
  CHECK(config() == "");
  in_file("web").env["A"] = "1";
  apply_file("two.json", true);
  CHECK(config() == "");
  apply_file("two.json");
  CHECK(config() == "/srv/shop/two.json");
  WHEN("the next file says the same") {
    apply_file("three.json");
    THEN("it is that which runs") {
      CHECK(config() == "/srv/shop/three.json");
    }
  }
  WHEN("the next one fails") {
    in_file("mailer").env["A"] = "1";
    m->becomes_ready = false;
    auto answer = apply_file("three.json");
    m->becomes_ready = true;
    m->exit("mailer", 3);
    run();
    REQUIRE_FALSE(answer->value().outcomes.at(0).ok);
    THEN("it is not shown") {
      CHECK(config() == "/srv/shop/two.json");
    }
  }
  WHEN("control fails") {
    caf::anon_send_exit(*control, caf::exit_reason::kill);
    run();
    THEN("its successor knows") {
      CHECK(config() == "/srv/shop/two.json");
    }
  }
}

// -- several at once ----------------------------------------------------------

SCENARIO_METHOD(apply_world, "two at once come one after the other") {
  start();
  in_file("web").env["A"] = "1";
  m->becomes_ready = false;
  auto first = apply();
  auto second = apply();
  CHECK(second->pending());
  for (const auto* id : {"web-4", "web-1", "web-2", "web-3"}) {
    m->ready(id);
    run();
  }
  CHECK(first->value().plan == strings{"web: reload (env)"});
  CHECK(second->value().plan.empty());
}

SCENARIO_METHOD(apply_world, "nobody waits") {
  start();
  in_file("web").env["A"] = "1";
  m->becomes_ready = false;
  const auto answer = apply(false, false);
  CHECK(answer->value().plan == strings{"web: reload (env)"});
  CHECK(answer->value().outcomes.empty());
  CHECK(m->processes.count("web-4") == 1);
}

SCENARIO_METHOD(apply_world, "the end of pup during an apply") {
  start();
  in_file("web").env["A"] = "1";
  m->becomes_ready = false;
  auto answer = apply();
  ask<terminating>(*control, terminate{});
  CHECK_FALSE(answer->pending());
  CHECK(m->processes.empty());
}

// -- a configuration that is not read
// --------------------------------------------

SCENARIO_METHOD(apply_world, "whoever reads a configuration holds up nobody") {
  start();
  silent = true;
  in_file("web").env["A"] = "1";
  const auto first = apply();
  const auto second = apply();
  CHECK(first->pending());
  CHECK(shape() == "web:running/3 mailer:ready/1 api:running/2");
  CHECK(ask<scale_report>(*control, scale{"web", scale_mode::to, 4})->value().to
        == 4);
  advance(29'999ms);
  CHECK(first->pending());
  advance(1ms);
  CHECK(text_of(first->error)
        == "pup.json: is not read after 30 s, waiting for /srv/held.env; "
           "nothing has changed, apply it again when that answers");

  GIVEN("the next one, whose turn it is") {
    CHECK(second->pending());
    REQUIRE(late.size() == 2);
    late[0](read());  // too late
    run();
    CHECK(second->pending());
    late[1](read());
    run();
    CHECK(second->value().plan.front()
          == "web: scale 4 -> 3 (as the file says), reload (env)");
  }
  GIVEN("one that is not read at all") {
    late[1]({{}, "no thread to read it"});
    run();
    CHECK(text_of(second->error) == "pup.json: no thread to read it");
    silent = false;
    CHECK(apply()->value().plan.front()
          == "web: scale 4 -> 3 (as the file says), reload (env)");
  }
}

// -- what survives ------------------------------------------------------------

SCENARIO_METHOD(apply_world, "actors that fail later keep the new one") {
  start();
  in_file("web").env["A"] = "1";
  file.processes.push_back(named(worker(), "new"));
  apply();
  kill_unit("web");
  CHECK(m->processes.at("web-1").request.env.at("A") == "1");
  caf::anon_send_exit(*control, caf::exit_reason::kill);
  run();
  CHECK(shape() == "web:running/3 mailer:ready/1 api:running/2 new:ready/1");
  CHECK(apply()->value().plan.empty());
}

SCENARIO_METHOD(apply_world, "one change among a thousand") {
  spec.processes.clear();
  for (int i = 0; i < 1000; ++i)
    spec.processes.push_back(named(worker(), "p" + std::to_string(i)));
  start();
  in_file("p500").env["A"] = "1";
  const auto before = lives();
  apply();
  const auto after = lives();
  int touched = 0;
  for (const auto& [id, life] : before)
    touched += after.at(id) == life ? 0 : 1;
  CHECK(touched == 1);
  CHECK(after.size() == before.size());
}
