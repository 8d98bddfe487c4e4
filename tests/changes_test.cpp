// Changed files and histories, in virtual time.
#include "pup/actors/history.hpp"
#include "pup/actors/supervisor.hpp"

#include "fake_machine.hpp"
#include "unit_child.hpp"

using namespace pup;
using namespace pup::test;
using namespace std::chrono_literals;
using std::chrono::system_clock;

namespace {

const system_clock::time_point midnight{std::chrono::hours{24 * 365 * 50}};

// A unit below a real root, whose watched files change when the test says so.
struct files_world : fake_world {
  process_spec spec;
  supervisor_actor root;
  struct watched {
    watch_request wanted;
    std::function<void(const watch_news&)> tell;
  };
  std::shared_ptr<std::map<int, watched>> watches =
      std::make_shared<std::map<int, watched>>();

  files_world() {
    spec.id = "app";
    spec.argv = {"serve"};
    spec.watch = {"/srv/src"};
    world.wall.now = [this, begin = now()] {
      return midnight
             + std::chrono::duration_cast<system_clock::duration>(now()
                                                                  - begin);
    };
    world.files.begin = [w = watches, last = std::make_shared<int>(0)](
                            watch_request wanted,
                            std::function<void(const watch_news&)> tell) {
      const auto number = ++*last;
      w->emplace(number, watched{std::move(wanted), std::move(tell)});
      return std::shared_ptr<void>{nullptr,
                                   [w, number](void*) { w->erase(number); }};
    };
  }

  void cluster(std::uint32_t instances) {
    spec.ready = ready_condition::port;
    spec.cluster.emplace();
    spec.cluster->instances = instances;
    spec.cluster->start_port = 8000;
  }

  void start() {
    cluster_args args;
    args.spec = spec;
    args.supervisor = "pup";
    args.world = world;
    supervisor_spec tree;
    tree.limit = {};
    tree.children.push_back(unit_child(std::move(args)));
    root = own(spawn_supervisor(sys, std::move(tree)));
    run();
  }

  cluster_actor unit() {
    return caf::actor_cast<cluster_actor>(
        ask<std::vector<child_info>>(root, which_children{})
            ->value()
            .at(0)
            .handle);
  }

  void tell(const watch_news& news) {
    for (auto& [number, x] : *watches)
      x.tell(news);
    run();
  }
  void change(const std::string& path) {
    tell({path, ""});
  }

  unit_status status() {
    return ask<unit_status>(unit(), get_unit_status{})->value();
  }
  std::string states() {
    std::string result;
    for (auto& x : status().instances)
      result += (result.empty() ? "" : " ") + to_string(x.state);
    return result;
  }
  std::string operate(verb what, const std::string& caller = {}) {
    auto x = ask<report>(unit(), operate_unit{what, 0, true, caller});
    return x->pending() ? "pending" : x->value().outcomes.at(0).text;
  }
  void end(const std::string& id, int code) {
    m->exit(id, code);
    run();
  }
  std::size_t starts() const {
    return m->launched.size();
  }

  instance_history history_of(std::uint32_t slot = 0) {
    return ask<history_report>(unit(), get_unit_history{slot})
        ->value()
        .instances.at(0);
  }
  // "asked start: …"
  strings events(std::uint32_t slot = 0) {
    strings result;
    for (auto& x : history_of(slot).entries)
      result.push_back(to_string(x.what) + ' ' + x.text);
    return result;
  }
};

}  // namespace

// -- files --------------------------------------------------------------------

SCENARIO_METHOD(files_world, "without autostart the first change starts it") {
  spec.autostart = false;
  start();
  CHECK(watches->at(1).wanted.paths == strings{"/srv/src"});
  CHECK(states() == "waiting");
  CHECK(starts() == 0);
  CHECK(history_of().next == "starts when a file it watches changes");
  change("src/a.ts");
  CHECK(states() == "ready");
  CHECK(events()
        == strings{"asked start: changed: src/a.ts", "started pid 101",
                   "ready after 0 ms"});
}

SCENARIO_METHOD(files_world, "a change restarts it, once") {
  start();
  m->obeys = false;
  change("src/a.ts");
  CHECK(states() == "stopping");
  CHECK(status().instances.at(0).reason == "changed: src/a.ts");
  change("src/b.ts");  // it has not read it yet
  m->end("app", {ending::kind::signalled, 0, 15, {}});
  run();
  CHECK(states() == "ready");
  CHECK(starts() == 2);
  CHECK(status().instances.at(0).restarts == 1);
  CHECK(status().instances.at(0).reason == "");
}

SCENARIO_METHOD(files_world, "who is starting begins anew with the new files") {
  m->becomes_ready = false;
  start();
  change("src/a.ts");
  CHECK(starts() == 2);
  CHECK(states() == "starting");
  CHECK(status().instances.at(0).reason == "changed: src/a.ts");
}

SCENARIO_METHOD(files_world, "who has failed has a chance at once") {
  SECTION("in the middle of its backoff") {
    spec.restart_delay = 10s;
    start();
    end("app", 1);
    CHECK(states() == "backoff");
    change("src/a.ts");
    CHECK(states() == "ready");
  }
  SECTION("exhausted") {
    spec.restart_limit = 0;
    start();
    end("app", 1);
    CHECK(states() == "exhausted");
    CHECK(history_of().next == "starts when a file it watches changes");
    change("src/a.ts");
    CHECK(states() == "ready");
  }
  SECTION("finished") {
    spec.restart = restart_policy::never;
    start();
    end("app", 0);
    CHECK(states() == "finished");
    change("src/a.ts");
    CHECK(states() == "ready");
  }
}

SCENARIO_METHOD(files_world, "what is stopped or blocked stays so") {
  start();
  SECTION("stopped") {
    operate(verb::stop);
    change("src/a.ts");
    CHECK(states() == "stopped");
    CHECK(history_of().next == "nothing starts it until pup start app");
  }
  SECTION("blocked") {
    operate(verb::block);
    change("src/a.ts");
    CHECK(states() == "ready");
    CHECK(starts() == 1);
    end("app", 0);
    CHECK(states() == "blocked");
    CHECK(history_of().next == "nothing starts it until pup unblock app");
  }
}

SCENARIO_METHOD(files_world, "a cluster is replaced one by one") {
  cluster(3);
  start();
  CHECK(starts() == 3);
  m->becomes_ready = false;
  change("src/a.ts");
  CHECK(starts() == 4);
  CHECK(states() == "starting ready ready");
  WHEN("the new files are bad") {
    end("app-1", 1);
    advance(1s);
    THEN("the others serve on with the old ones") {
      CHECK(status().ready == 2);
    }
    AND_WHEN("and then good again") {
      m->becomes_ready = true;
      change("src/a.ts");
      THEN("all are replaced") {
        CHECK(states() == "ready ready ready");
        for (const auto* id : {"app-1", "app-2", "app-3"})
          CHECK(std::count_if(m->launched.begin(), m->launched.end(),
                              [&](const launch& x) { return x.id == id; })
                >= 2);
      }
    }
  }
  WHEN("they are good") {
    m->ready("app-1");
    run();
    CHECK(starts() == 5);
    m->ready("app-2");
    run();
    m->ready("app-3");
    run();
    CHECK(starts() == 6);
    CHECK(states() == "ready ready ready");
  }
}

SCENARIO_METHOD(files_world,
                "trouble with watching is a warning in the status") {
  start();
  tell({"", "/srv/src is not watched: no more watches"});
  CHECK(states() == "ready");
  CHECK(status().reason == "watch: /srv/src is not watched: no more watches");
  CHECK(status().instances.at(0).reason == status().reason);
  CHECK(starts() == 1);
  tell({"", ""});
  CHECK(status().instances.at(0).reason == "");
}

SCENARIO_METHOD(files_world, "the watch lives as long as the unit's actor") {
  start();
  caf::anon_send_exit(unit(), caf::exit_reason::kill);
  run();
  REQUIRE(watches->size() == 1);
  CHECK(watches->count(2) == 1);
  change("src/a.ts");
  CHECK(states() == "ready");
  caf::anon_send_exit(root, caf::exit_reason::user_shutdown);
  run();
  CHECK(watches->empty());
}

// -- histories ----------------------------------------------------------------

SCENARIO_METHOD(files_world, "a history tells cause and effect") {
  spec.watch.clear();
  spec.restart_delay = 5s;
  start();
  advance(2s);
  m->end("app", {ending::kind::signalled, 0, 9, "likely out of memory"});
  run();
  CHECK(events()
        == strings{"asked start: together with the supervisor",
                   "started pid 101", "ready after 0 ms",
                   "ended killed by SIGKILL (likely out of memory) after "
                   "2000 ms",
                   "decided restart always: starting again in 5000 ms"});
  const auto now = history_of();
  CHECK(now.state == run_state::backoff);
  CHECK(now.next == "starts again");
  const auto at = [](system_clock::duration x) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               (midnight + x).time_since_epoch())
        .count();
  };
  CHECK(now.next_ms == at(7s));
  CHECK(now.entries.front().time_ms == at(0s));
  CHECK(now.entries.back().time_ms == at(2s));
}

SCENARIO_METHOD(files_world, "a history names who asked") {
  spec.watch.clear();
  start();
  operate(verb::restart, "alice, pid 4711");
  operate(verb::stop);
  CHECK(events()
        == strings{"asked start: together with the supervisor",
                   "started pid 101", "ready after 0 ms",
                   "asked restart: by alice, pid 4711",
                   "ended killed by SIGTERM after 0 ms", "started pid 102",
                   "ready after 0 ms", "asked stop: on request",
                   "ended killed by SIGTERM after 0 ms"});
  ask<report>(unit(), signal_slots{0, 1, "bob"});
  CHECK(events().size() == 9);  // nothing runs that could get it
}

SCENARIO_METHOD(files_world, "a history names the rule that has acted") {
  spec.watch.clear();
  const auto last = [&] { return events().back(); };
  SECTION("limit") {
    spec.restart_limit = 0;
    start();
    end("app", 1);
    CHECK(last()
          == "decided restartLimit: gives up, more than 0 restarts in 60 s");
  }
  SECTION("never") {
    spec.restart = restart_policy::never;
    start();
    end("app", 1);
    CHECK(last() == "decided restart never: is not started again");
  }
  SECTION("exit codes") {
    spec.no_restart_exit_codes = {7};
    start();
    end("app", 7);
    CHECK(last() == "decided noRestartExitCodes: is not started again");
  }
  SECTION("block") {
    start();
    operate(verb::block);
    end("app", 1);
    CHECK(last() == "decided blocked: is not started again");
  }
  SECTION("scale") {
    cluster(1);
    start();
    ask<scale_report>(unit(), scale{"app", scale_mode::to, 2, true, "alice"});
    CHECK(events(2).front() == "asked scale 1 -> 2: by alice");
    CHECK(events(1).front() == "asked start: together with the supervisor");
  }
  SECTION("cron") {
    spec.cron = "0 0 * * *";
    spec.autostart = false;
    spec.restart = restart_policy::never;
    start();
    CHECK(history_of().next == "starts by cron \"0 0 * * *\"");
    CHECK(history_of().next_ms > 0);
    advance(24h);
    CHECK(events().front() == "asked start: cron \"0 0 * * *\"");
  }
}

SCENARIO_METHOD(files_world, "a history outlives the unit's actor") {
  spec.watch.clear();
  start();
  caf::anon_send_exit(unit(), caf::exit_reason::kill);
  run();
  CHECK(events()
        == strings{"asked start: together with the supervisor",
                   "started pid 101", "ready after 0 ms",
                   "asked start: pup's own actor for it has failed",
                   "started pid 102", "ready after 0 ms"});
}

TEST_CASE("a history is bounded, and begins with a request") {
  history x;
  x.add(midnight, event_kind::asked, "start");
  for (int i = 0; i < 100; ++i)
    x.add(midnight + std::chrono::milliseconds{i}, event_kind::ended,
          std::to_string(i));
  const auto all = x.entries();
  REQUIRE(all.size() == history::most_entries + 1);
  CHECK(all.front().text == "start");
  CHECK(all[1].text == std::to_string(100 - history::most_entries));
  CHECK(all.back().text == "99");
}
