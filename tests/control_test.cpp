#include "pup/actors/pending.hpp"
#include "pup/actors/selector.hpp"
#include "pup/actors/supervisor.hpp"

#include "fake_machine.hpp"
#include "unit_child.hpp"

using namespace pup;
using namespace pup::test;
using namespace std::chrono_literals;

namespace {

process_spec process(const std::string& id) {
  process_spec result;
  result.id = id;
  result.argv = {"work"};
  return result;
}

process_spec cluster(const std::string& id, std::uint32_t instances,
                     std::uint16_t start_port, std::uint16_t common_port) {
  auto result = process(id);
  result.ready = ready_condition::port;
  result.cluster.emplace();
  result.cluster->instances = instances;
  result.cluster->start_port = start_port;
  result.cluster->common_port = common_port;
  return result;
}

using release = caf::atom_constant<caf::atom("release")>;
using fake_memory_actor = memory_actor::extend<caf::reacts_to<release>>;

// A disk that takes as long as the test likes.
fake_memory_actor::behavior_type fake_memory(
    fake_memory_actor::pointer self,
    std::shared_ptr<std::deque<caf::response_promise>> waiting) {
  return {
      [self, waiting](settle) -> caf::result<void> {
        caf::response_promise promise = self->make_response_promise();
        waiting->push_back(promise);
        return promise;
      },
      [waiting](release) {
        for (auto& x : std::exchange(*waiting, {}))
          x.deliver(caf::unit);
      },
  };
}

// The tree that a host builds: control, then the units.
struct control_world : fake_world {
  pup_spec spec;
  supervisor_actor root;
  std::shared_ptr<control_actor> control = std::make_shared<control_actor>();
  std::shared_ptr<strings> warnings = std::make_shared<strings>();
  std::shared_ptr<std::deque<caf::response_promise>> unwritten =
      std::make_shared<std::deque<caf::response_promise>>();
  fake_memory_actor memory;

  control_world() {
    spec.processes = {cluster("web", 2, 8000, 3000), process("mailer"),
                      cluster("api", 1, 8010, 3001)};
  }
  ~control_world() {
    *control = nullptr;
    unwritten->clear();
  }

  child_spec child_of(const process_spec& unit) {
    cluster_args args;
    args.spec = unit;
    args.supervisor = "shop";
    args.world = world;
    auto result = unit_child(std::move(args));
    // A crash is followed by a pause, in which the unit has no actor.
    result.backoff.first = 1s;
    return result;
  }

  void start() {
    control_args args;
    args.identity.name = "shop";
    args.identity.pid = 77;
    args.identity.version = "1.2";
    args.identity.config = "/etc/shop.json";
    args.started = now();
    args.spec = spec;
    args.launcher = world.launcher;
    args.memory = memory;
    args.warnings = [told = warnings] { return *told; };
    supervisor_spec tree;
    tree.limit = {};
    child_spec first;
    first.id = "control";
    first.start = [args, to = control](start_context& x) {
      auto mine = args;
      mine.root = root_of(x);
      *to = spawn_control(x.self, std::move(mine));
      return caf::actor_cast<caf::strong_actor_ptr>(*to);
    };
    tree.children.push_back(std::move(first));
    for (const auto& x : spec.processes)
      tree.children.push_back(child_of(x));
    root = own(spawn_supervisor(sys, std::move(tree)));
    run();
  }

  answer_ptr<supervisor_status> get(const std::string& id = {}) {
    return ask<supervisor_status>(*control, get_status{id});
  }

  answer_ptr<scale_report> scale_to(const std::string& id,
                                    std::uint32_t count) {
    return ask<scale_report>(*control, scale{id, scale_mode::to, count, true});
  }

  answer_ptr<report> operate_on(verb what, const std::string& selector,
                                bool wait = true) {
    return ask<report>(*control, operate{what, selector, wait});
  }

  void kill_unit(const std::string& id) {
    auto children = ask<std::vector<child_info>>(root, which_children{});
    for (const auto& x : children->value())
      if (x.id == unit_child_id(id))
        caf::anon_send_exit(x.handle, caf::exit_reason::kill);
    run();
  }

  strings running() const {
    strings result;
    for (const auto& x : m->processes)
      result.push_back(x.first);
    return result;
  }
};

strings texts(const std::vector<outcome>& xs) {
  strings result;
  for (const auto& x : xs)
    result.push_back(x.id + (x.ok ? " + " : " - ") + x.text);
  return result;
}

strings texts(const answer_ptr<report>& x) {
  return texts(x->value().outcomes);
}

template <class T>
std::string refusal(const answer_ptr<T>& x, fault code) {
  CHECK(is(x->error, code));
  return text_of(x->error);
}

std::string shape(const supervisor_status& x) {
  std::string result;
  for (const auto& unit : x.units) {
    result += unit.id + '[';
    for (const auto& y : unit.instances)
      result += ' ' + y.id;
    result += " ] ";
  }
  return result;
}

unit_status unit_of(const std::string& id, std::uint32_t instances) {
  unit_status result;
  result.id = id;
  result.is_cluster = instances > 0;
  for (std::uint32_t n = 1; n <= instances; ++n) {
    instance_status x;
    x.id = instance_id(id, n);
    x.slot = n;
    result.instances.push_back(std::move(x));
  }
  if (instances == 0) {
    instance_status x;
    x.id = id;
    result.instances.push_back(std::move(x));
  }
  return result;
}

}  // namespace

// -- selector -----------------------------------------------------------------

TEST_CASE("a glob fits or does not") {
  struct row {
    std::string pattern;
    std::string text;
    bool fits;
  };
  const auto x =
      GENERATE(row{"web", "web", true}, row{"web", "web-1", false},
               row{"web", "we", false}, row{"", "", true}, row{"", "a", false},
               row{"*", "", true}, row{"*", "anything", true},
               row{"?", "", false}, row{"?", "a", true},
               row{"web-*", "web-12", true}, row{"web-*", "web-", true},
               row{"web-?", "web-12", false}, row{"*-1", "web-1-1", true},
               row{"*b*", "abc", true}, row{"a*b*c", "aXbYbZc", true},
               row{"a*b*c", "aXbYbZ", false}, row{"**a", "bba", true},
               row{"WEB", "web", false}, row{"*.api@?", "x.api@1", true});
  CAPTURE(x.pattern, x.text);
  CHECK(glob_match(x.pattern, x.text) == x.fits);
}

TEST_CASE("a glob of many stars takes no exponential time") {
  std::string pattern;
  for (int i = 0; i < 30; ++i)
    pattern += "a*";
  CHECK_FALSE(glob_match(pattern + 'b', std::string(2000, 'a')));
}

TEST_CASE("a word means units or instances") {
  const std::vector<unit_status> units{unit_of("web", 2), unit_of("mailer", 0),
                                       unit_of("web-admin", 1)};
  struct row {
    std::string word;
    std::vector<target> means;
  };
  const auto x =
      GENERATE(row{"all", {{"web", 0}, {"mailer", 0}, {"web-admin", 0}}},
               row{"web", {{"web", 0}}}, row{"mailer", {{"mailer", 0}}},
               row{"web-2", {{"web", 2}}}, row{"web-3", {}}, row{"", {}},
               row{"*", {{"web", 0}, {"mailer", 0}, {"web-admin", 0}}},
               row{"web*", {{"web", 0}, {"web-admin", 0}}},
               row{"web-*", {{"web", 1}, {"web", 2}, {"web-admin", 0}}},
               row{"*-1", {{"web", 1}, {"web-admin", 1}}}, row{"al?", {}});
  CAPTURE(x.word);
  CHECK(select(x.word, units) == x.means);
}

TEST_CASE("an unknown id is answered with the known ones") {
  std::vector<unit_status> units;
  CHECK(unknown_id("x", units)
        == "no process, cluster or instance 'x'; there is none at all");
  units.push_back(unit_of("a", 0));
  CHECK(unknown_id("x", units)
        == "no process, cluster or instance 'x'; there is a");
  for (int i = 1; i < 10; ++i)
    units.push_back(unit_of("p" + std::to_string(i), 0));
  CHECK(unknown_id("x", units)
        == "no process, cluster or instance 'x'; there are a, p1, p2, p3, p4, "
           "p5, p6, p7, p8, p9");
  units.push_back(unit_of("b", 0));
  units.push_back(unit_of("c", 0));
  CHECK(unknown_id("x", units)
        == "no process, cluster or instance 'x'; there are a, p1, p2, p3, p4, "
           "p5, p6, p7, p8, p9 and 2 more");
}

// -- pending ------------------------------------------------------------------

SCENARIO("requests wait for slots") {
  pending_operations pending;
  strings first;
  strings second;
  std::string failed;
  const auto operation = [&](strings& to) {
    pending_operation x;
    x.answer = [&to](std::vector<outcome> outcomes) {
      to.push_back("answer");
      for (const auto& y : outcomes)
        to.push_back(y.id + ' ' + y.text);
    };
    x.fail = [&](const caf::error& why) { failed += text_of(why); };
    return x;
  };
  const auto about = [](const std::string& id, const std::string& text) {
    return outcome{id, true, text};
  };

  GIVEN("a request without a goal") {
    pending.add(operation(first));
    CHECK(first.empty());
    pending.answer_complete();
    THEN("it is answered") {
      CHECK(first == strings{"answer"});
      pending.answer_complete();
      CHECK(first == strings{"answer"});
    }
  }
  GIVEN("a request for two slots, one of them there") {
    auto x = operation(first);
    x.expect(2, direction::up);
    x.reached(1, direction::up, about("a-1", "ready"));
    pending.add(std::move(x));
    CHECK(first.empty());
    WHEN("another slot arrives, or the right one elsewhere") {
      pending.settle(3, direction::up, about("a-3", "ready"));
      pending.settle(2, direction::down, about("a-2", "stopped"));
      pending.answer_complete();
      THEN("it waits") {
        CHECK(first.empty());
      }
    }
    WHEN("the slot arrives, twice") {
      pending.settle(2, direction::up, about("a-2", "ready"));
      pending.settle(2, direction::up, about("a-2", "again"));
      pending.answer_complete();
      THEN("it is answered once, in the order of slots") {
        CHECK(first == strings{"answer", "a-1 ready", "a-2 ready"});
      }
    }
    WHEN("the slot is sent the other way") {
      pending.overtake(2, direction::down, about("a-2", "stopped later"));
      pending.answer_complete();
      THEN("that is the answer") {
        CHECK(first == strings{"answer", "a-1 ready", "a-2 stopped later"});
      }
    }
    WHEN("the slot is sent the same way again") {
      pending.overtake(2, direction::up, about("a-2", "again"));
      pending.answer_complete();
      THEN("it waits") {
        CHECK(first.empty());
      }
    }
    WHEN("all is abandoned") {
      pending.abandon(make_error(fault::actor_failed, "sorry"));
      THEN("it fails, once") {
        CHECK(first.empty());
        CHECK(failed == "sorry");
        pending.abandon(make_error(fault::actor_failed, "sorry"));
        pending.settle(2, direction::up, about("a-2", "ready"));
        pending.answer_complete();
        CHECK(failed == "sorry");
        CHECK(first.empty());
      }
    }
  }
  GIVEN("two requests for one slot") {
    auto x = operation(first);
    x.expect(1, direction::up);
    auto y = operation(second);
    y.expect(1, direction::down);
    pending.add(std::move(x));
    pending.overtake(1, direction::down, about("a-1", "overtaken"));
    pending.add(std::move(y));
    pending.answer_complete();
    THEN("each has its own answer") {
      CHECK(first == strings{"answer", "a-1 overtaken"});
      CHECK(second.empty());
      pending.settle(1, direction::down, about("a-1", "stopped"));
      pending.answer_complete();
      CHECK(second == strings{"answer", "a-1 stopped"});
    }
  }
}

// -- status -------------------------------------------------------------------

SCENARIO_METHOD(control_world, "the status of everything") {
  start();
  advance(90s);
  m->clients[1] = 4;
  const auto all = get();
  const auto& now = all->value();
  CHECK(now.name == "shop");
  CHECK(now.pid == 77);
  CHECK(now.version == "1.2");
  CHECK(now.config == "/etc/shop.json");
  CHECK(now.uptime_ms == 90'000);
  CHECK(now.rss_bytes == 77'000);
  CHECK(shape(now) == "web[ web-1 web-2 ] mailer[ mailer ] api[ api-1 ] ");
  const auto& web = now.units.at(0);
  CHECK(web.state == run_state::running);
  CHECK(web.instances.at(0).connections_active == 4);
  CHECK(web.instances.at(1).rss_bytes
        == static_cast<std::uint64_t>(web.instances.at(1).pid) * 1000);
  CHECK(web.instances.at(1).cpu_percent == 1.5);
  CHECK(now.units.at(1).state == run_state::ready);
}

SCENARIO_METHOD(control_world, "what has ended is not ready, told or not") {
  start();
  advance(90s);
  const auto pid_of = [](const instance_status& x) { return x.pid; };
  const auto before = get()->value();
  m->untold_ends = {pid_of(before.units.at(0).instances.at(1)),
                    pid_of(before.units.at(1).instances.at(0))};
  const auto now = get()->value();
  const auto& web = now.units.at(0);
  CHECK(web.state == run_state::degraded);
  CHECK(web.ready == 1);
  CHECK(web.instances.at(0).state == run_state::ready);
  CHECK(web.instances.at(1).state == run_state::stopping);
  CHECK(web.instances.at(1).pid == 0);
  CHECK(web.instances.at(1).reason.ends_with(" has ended"));
  CHECK(now.units.at(1).state == run_state::stopping);
}

SCENARIO_METHOD(control_world, "the status says what is wrong with pup") {
  start();
  CHECK(get()->value().warnings.empty());
  *warnings = {"the disk is full"};
  CHECK(get("web")->value().warnings == strings{"the disk is full"});
}

SCENARIO_METHOD(control_world, "a change is answered when it is written down") {
  memory = own(sys.spawn(fake_memory, unwritten));
  start();
  const auto scaled = scale_to("web", 3);
  CHECK(scaled->pending());
  CHECK(get("web")->value().units.at(0).ready == 3);
  CHECK(unwritten->size() == 1);
  const auto blocked = operate_on(verb::block, "mailer");
  CHECK(blocked->pending());
  THEN("the disk has taken it") {
    caf::anon_send(memory, release::value);
    run();
    CHECK(scaled->value().to == 3);
    CHECK(blocked->value().outcomes.size() == 1);
  }
  THEN("the disk is stuck, and nobody waits for ever") {
    advance(5s - 1ns);
    CHECK(scaled->pending());
    advance(1ns);
    CHECK(scaled->value().to == 3);
    CHECK_FALSE(blocked->pending());
  }
  THEN("there is no memory any more") {
    caf::anon_send_exit(memory, caf::exit_reason::kill);
    unwritten->clear();
    run();
    CHECK(operate_on(verb::unblock, "mailer")->value().outcomes.size() == 1);
    advance(5s);
    CHECK_FALSE(scaled->pending());
  }
  memory = nullptr;
}

SCENARIO_METHOD(control_world, "the status of some") {
  start();
  CHECK(shape(get("web")->value()) == "web[ web-1 web-2 ] ");
  CHECK(shape(get("web-2")->value()) == "web[ web-2 ] ");
  CHECK(shape(get("*-1")->value()) == "web[ web-1 ] api[ api-1 ] ");
  CHECK(shape(get("m*")->value()) == "mailer[ mailer ] ");
  CHECK(shape(get("all")->value()) == shape(get()->value()));
  CHECK(refusal(get("nope"), fault::no_such_id)
        == "no process, cluster or instance 'nope'; there are web, mailer, "
           "api");
}

SCENARIO_METHOD(control_world, "a cluster at zero is still there") {
  start();
  scale_to("web", 0);
  CHECK(shape(get("web")->value()) == "web[ ] ");
}

SCENARIO_METHOD(control_world, "the status without a launcher") {
  start();
  caf::anon_send_exit(world.launcher, caf::exit_reason::kill);
  CHECK(get()->value().rss_bytes == 0);
}

SCENARIO_METHOD(control_world, "the status of a unit whose actor is down") {
  start();
  kill_unit("web");
  kill_unit("mailer");
  const auto status = get();
  const auto& units = status->value().units;
  CHECK(shape(status->value()) == "web[ ] mailer[ mailer ] api[ api-1 ] ");
  CHECK(units.at(0).state == run_state::failed);
  CHECK(units.at(0).reason == "its actor failed and is being restarted");
  CHECK(units.at(0).desired == 2);
  CHECK(units.at(1).instances.at(0).state == run_state::failed);
  CHECK(units.at(2).state == run_state::running);
  CHECK(refusal(scale_to("web", 3), fault::bad_request)
        == "'web': its actor failed and is being restarted");
  CHECK(texts(operate_on(verb::restart, "all"))
        == strings{"web - its actor failed and is being restarted",
                   "mailer - its actor failed and is being restarted",
                   "api-1 + ready"});
  advance(1s);
  CHECK(shape(get()->value())
        == "web[ web-1 web-2 ] mailer[ mailer ] api[ api-1 ] ");
}

SCENARIO_METHOD(control_world,
                "a unit that the root has stopped or forgotten") {
  start();
  ask<caf::unit_t>(root, terminate_child{unit_child_id("api")});
  CHECK(get("api")->value().units.at(0).state == run_state::stopped);
  ask<caf::unit_t>(root, delete_child{unit_child_id("api")});
  const auto gone = get("api");
  CHECK(gone->value().units.at(0).state == run_state::exhausted);
  CHECK(gone->value().units.at(0).reason == "its actor failed too often");
}

// -- scale --------------------------------------------------------------------

SCENARIO_METHOD(control_world, "scaling a cluster") {
  start();
  const auto scaled = scale_to("web", 4);
  CHECK(scaled->value().from == 2);
  CHECK(scaled->value().to == 4);
  CHECK(texts(scaled->value().outcomes)
        == strings{"web-3 + ready", "web-4 + ready"});
  CHECK(scale_to("w*", 3)->value().id == "web");
}

SCENARIO_METHOD(control_world, "a scale request that makes no sense") {
  start();
  m->take_log();
  CHECK(refusal(scale_to("nope", 1), fault::no_such_id).find("'nope'")
        != std::string::npos);
  CHECK(refusal(scale_to("all", 1), fault::bad_request)
            .find("more than one cluster")
        != std::string::npos);
  CHECK(refusal(scale_to("web-1", 3), fault::bad_request)
        == "'web-1' is one instance; scale 'web', its cluster");
  CHECK(refusal(scale_to("mailer", 3), fault::bad_request).find("not a cluster")
        != std::string::npos);
  CHECK(refusal(scale_to("web", 1025), fault::bad_request).find("1024")
        != std::string::npos);
  const auto most = std::numeric_limits<std::uint32_t>::max();
  refusal(scale_to("web", most), fault::bad_request);
  refusal(
      ask<scale_report>(*control, scale{"web", scale_mode::up_by, most, true}),
      fault::bad_request);
  CHECK(m->log.empty());
  CHECK(get("web")->value().units.at(0).desired == 2);
  CHECK(
      ask<scale_report>(*control, scale{"web", scale_mode::down_by, most, true})
          ->value()
          .to
      == 0);
}

SCENARIO_METHOD(control_world,
                "a cluster cannot grow into its neighbour's ports") {
  start();
  CHECK(scale_to("web", 10)->value().to == 10);  // 8000 to 8009
  refusal(scale_to("web", 11), fault::bad_request);
  refusal(ask<scale_report>(*control, scale{"web", scale_mode::up_by, 1, true}),
          fault::bad_request);
  WHEN("the neighbour is gone") {
    scale_to("api", 0);
    THEN("there is room, and then none for the neighbour") {
      CHECK(scale_to("web", 11)->value().to == 11);
      refusal(scale_to("api", 1), fault::bad_request);
    }
  }
  WHEN("both want the room at the same time") {
    scale_to("api", 0);
    auto result = std::make_shared<strings>();
    own(sys.spawn([=, to = *control](caf::event_based_actor* self) {
      for (const auto& [id, count] :
           std::vector<std::pair<std::string, std::uint32_t>>{{"web", 11},
                                                              {"api", 1}})
        self->request(to, caf::infinite, scale{id, scale_mode::to, count, true})
            .then(
                [=](const scale_report& x) {
                  result->push_back("done " + x.id);
                },
                [=](const caf::error&) { result->push_back("refused"); });
    }));
    run();
    THEN("the first has it") {
      CHECK(result->size() == 2);
      CHECK(std::count(result->begin(), result->end(), "done web") == 1);
      CHECK(std::count(result->begin(), result->end(), "refused") == 1);
      CHECK(get("api")->value().units.at(0).desired == 0);
    }
  }
}

// -- operate ------------------------------------------------------------------

SCENARIO_METHOD(control_world, "operating on several units") {
  start();
  CHECK(texts(operate_on(verb::stop, "all"))
        == strings{"web-1 + stopped", "web-2 + stopped", "mailer + stopped",
                   "api-1 + stopped"});
  CHECK(running().empty());
  CHECK(texts(operate_on(verb::start, "*-1")).size() == 2);
  CHECK(running() == strings{"api-1", "web-1"});
  CHECK(texts(operate_on(verb::start, "mailer")) == strings{"mailer + ready"});
  CHECK(texts(operate_on(verb::restart, "web-2")) == strings{"web-2 + ready"});
  CHECK(texts(operate_on(verb::await, "web-?"))
        == strings{"web-1 + ready", "web-2 + ready"});
  CHECK(refusal(operate_on(verb::start, "x*"), fault::no_such_id).find("'x*'")
        != std::string::npos);
}

SCENARIO_METHOD(control_world, "an operation fails where it fails") {
  start();
  m->obeys = false;
  auto waiting = operate_on(verb::stop, "all");
  CHECK(waiting->pending());
  kill_unit("mailer");
  m->exit("web-1", 0);
  m->exit("web-2", 0);
  m->exit("api-1", 0);
  run();
  CHECK(texts(waiting)
        == strings{"web-1 + stopped", "web-2 + stopped",
                   "mailer - 'mailer': its actor failed; ask again",
                   "api-1 + stopped"});
}

SCENARIO_METHOD(control_world, "an empty configuration") {
  spec.processes.clear();
  start();
  CHECK(get()->value().units.empty());
  CHECK(texts(operate_on(verb::await, "all")).empty());
  CHECK(refusal(get("x"), fault::no_such_id)
        == "no process, cluster or instance 'x'; there is none at all");
}

SCENARIO_METHOD(control_world, "the control actor fails") {
  start();
  m->obeys = false;
  auto waiting = operate_on(verb::stop, "web-1");
  CHECK(waiting->pending());
  caf::anon_send_exit(*control, caf::exit_reason::kill);
  run();
  CHECK(refusal(waiting, fault::actor_failed) == "the control actor has ended");
  CHECK(running().size() == 4);  // nothing else is touched
  CHECK(shape(get()->value())
        == "web[ web-1 web-2 ] mailer[ mailer ] api[ api-1 ] ");
}

// -- the end ------------------------------------------------------------------

SCENARIO_METHOD(control_world, "terminate stops all in reverse order") {
  start();
  m->take_log();
  m->clients[2] = 1;
  CHECK(ask<terminating>(*control, terminate{})->value().pid == 77);
  const auto log = m->take_log();
  const auto at = [&](const std::string& line) {
    return std::find(log.begin(), log.end(), line) - log.begin();
  };
  CHECK(at("close api") < at("signal api-1 15"));
  CHECK(at("signal api-1 15") < at("signal mailer 15"));
  CHECK(at("signal mailer 15") < at("close web"));
  CHECK(at("close web") < at("signal web-1 15"));
  CHECK(running() == strings{"web-2"});
  CHECK(get()->value().units.at(2).state == run_state::stopped);
  CHECK(refusal(scale_to("web", 5), fault::shutting_down)
        == "'shop' is shutting down");
  refusal(operate_on(verb::start, "all"), fault::shutting_down);
  WHEN("somebody asks again") {
    CHECK(ask<terminating>(*control, terminate{})->value().pid == 77);
    THEN("it is still an orderly end") {
      CHECK(running() == strings{"web-2"});
      CHECK(m->log.empty());
    }
  }
  m->clients_leave("web", 2);
  run();
  CHECK(running().empty());
  REQUIRE(m->log.size() >= 2);
  CHECK(m->log.end()[-2] == "signal web-2 15");
  CHECK(m->log.back() == "publish web:");
  CHECK(census() == 2);  // launcher and proxy
}

SCENARIO_METHOD(control_world, "the root is gone") {
  start();
  const auto orphan = *control;
  caf::anon_send_exit(root, caf::exit_reason::user_shutdown);
  run();
  CHECK(get()->failed());
  CHECK(running().empty());
}
