// Losses in quick succession, at every moment: two kills a few milliseconds
// apart end as docs/FAILURES.md says, in none but those ways.
//
// PUP_CHAOS_SEED: the first round's seed; each further round has the next one.
// PUP_CHAOS_ROUNDS: how many. The seed decides all of a round, its kind too, so
// that a round that failed is repeated by its seed alone:
//
//   tests/chaos 1 4711
#include "chaos_world.hpp"
#include "load_clients.hpp"

#include <array>
#include <cstdlib>
#include <iostream>

using namespace pup::test;

namespace {

using words = std::vector<std::string>;

/// One after the other, in either order.
void lose_both(chaos_world& x) {
  const auto supervisor = x.supervisor();
  const auto first = x.perhaps();
  x.lose(first ? x.guardian() : supervisor);
  x.gap();
  // A successor may be there by now.
  x.lose(first ? x.supervisor() : x.guardian());
}

/// Supervisor, guardian, or both.
void lose_any(chaos_world& x) {
  switch (x.below(3)) {
    case 0:
      return x.lose(x.supervisor());
    case 1:
      return x.lose(x.guardian());
    default:
      return lose_both(x);
  }
}

// -- the start ----------------------------------------------------------------

void supervisor_killed_at_start(chaos_world& x) {
  x.order({"start", "config.json"});
  x.await_guardian();
  const auto first = x.await_successor({});
  x.gap();
  x.lose(first);
}

void guardian_killed_at_start(chaos_world& x) {
  x.order({"start", "config.json"});
  x.await_guardian();
  x.gap();
  if (x.perhaps())
    return lose_both(x);
  x.lose(x.guardian());
}

// -- at rest, and while a successor adopts ------------------------------------

void successors_killed(chaos_world& x) {
  x.start();
  for (auto left = 1 + x.below(3); left > 0; --left) {
    const auto now = x.supervisor();
    x.lose(now);
    x.await_successor(now);
    x.gap();
  }
  x.lose(x.supervisor());
}

void both_killed(chaos_world& x) {
  x.start();
  lose_both(x);
}

void guardian_killed_during_adoption(chaos_world& x) {
  x.start();
  const auto now = x.supervisor();
  x.lose(now);
  x.await_successor(now);
  x.gap();
  x.lose(x.guardian());
}

// -- while something is asked for ---------------------------------------------

void lost_during_upgrade(chaos_world& x) {
  x.start();
  const auto now = x.supervisor();
  x.order({"upgrade"});
  x.gap();
  if (x.perhaps())  // the former one, whether it carries something or not
    x.lose(now);
  else
    x.lose(x.supervisor());
  if (x.perhaps()) {
    x.gap();
    x.lose(x.supervisor());
  }
}

void guardian_killed_during_upgrade(chaos_world& x) {
  x.start();
  x.order({"upgrade"});
  x.gap();
  x.lose(x.guardian());
}

void supervisor_killed_during_apply(chaos_world& x) {
  x.start();
  x.order({"apply", "second.json"});
  x.gap();
  x.lose(x.supervisor());
}

void guardian_killed_during_apply(chaos_world& x) {
  x.start();
  x.order({"apply", "second.json"});
  x.gap();
  x.lose(x.guardian());
  if (x.perhaps()) {
    x.gap();
    x.lose(x.supervisor());
  }
}

/// The supervisor is lost while `change` goes on, and nobody is refused.
void lost_under_load(chaos_world& x, const words& change) {
  x.start();
  load clients{x.common_port()};
  REQUIRE(clients.serves(5));
  x.order(change);
  for (auto left = 1 + x.below(2); left > 0; --left) {
    x.gap();
    x.lose(x.supervisor());
  }
  x.answer();
  REQUIRE(clients.serves(5));
  const auto outcome = clients.end();
  INFO(outcome.first_trouble);
  CHECK(outcome.refused == 0);
  CHECK(outcome.wrong == 0);
}

void supervisor_killed_during_scale(chaos_world& x) {
  lost_under_load(x, {"scale", "web", x.perhaps() ? "5" : "1"});
}

void supervisor_killed_during_reload(chaos_world& x) {
  lost_under_load(x, {"reload", "web"});
}

void lost_during_stop_or_restart(chaos_world& x) {
  x.start();
  x.order({x.perhaps() ? "stop" : "restart", x.any_unit()});
  x.gap();
  if (x.below(3) == 0)
    lose_any(x);
  else
    x.lose(x.supervisor());
}

void lost_during_terminate(chaos_world& x) {
  x.start();
  x.order({"terminate"});
  x.gap();
  lose_any(x);
}

// -- stopped rather than killed -----------------------------------------------

void supervisor_stopped_then_killed(chaos_world& x) {
  x.start();
  const auto supervisor = x.supervisor();
  x.stop(supervisor);
  x.gap();
  if (x.perhaps()) {
    x.lose(x.guardian());
    x.gap();
  }
  x.lose(supervisor);
}

void supervisor_stopped_and_continued(chaos_world& x) {
  x.start();
  const auto supervisor = x.supervisor();
  x.stop(supervisor);
  switch (x.below(3)) {
    case 0:  // until another one takes its place
      x.await_successor(supervisor);
      break;
    case 1:  // nobody sees that its guardian has gone
      x.gap();
      x.lose(x.guardian());
      x.gap();
      break;
    default:
      x.gap();
      x.lose(x.leader_of(x.any_unit()));
      x.gap();
  }
  x.resume();
}

void guardian_stopped(chaos_world& x) {
  x.start();
  x.stop(x.guardian());
  x.gap();
  const auto supervisor = x.supervisor();
  for (auto left = x.below(3); left > 0; --left)
    x.lose(x.leader_of(x.any_unit()));
  if (x.perhaps())
    x.check_status();
  x.lose(supervisor);
  x.gap();
  if (x.below(4) == 0)
    x.lose(x.guardian());
  x.resume();
}

void both_stopped(chaos_world& x) {
  x.start();
  const auto supervisor = x.supervisor();
  x.stop(x.perhaps() ? x.guardian() : supervisor);
  x.gap();
  x.stop(x.guardian());
  x.stop(supervisor);
  x.gap();
  x.lose(x.leader_of(x.any_unit()));
  if (x.perhaps())
    x.lose(x.perhaps() ? supervisor : x.guardian());
  x.gap();
  x.resume();
}

// -- processes as well --------------------------------------------------------

void leaders_killed_as_well(chaos_world& x) {
  x.start();
  const auto supervisor = x.supervisor();
  std::vector<victim> all{supervisor};
  // A shell leaves what it has started.
  for (const auto* unit : {"family", "slow", "web", "many"})
    if (x.perhaps())
      all.push_back(x.leader_of(unit));
  if (x.perhaps())
    all.front() = x.guardian();
  std::rotate(all.begin(),
              all.begin() + x.below(static_cast<unsigned>(all.size())),
              all.end());
  for (const auto& victim : all) {
    x.lose(victim);
    if (x.perhaps())
      x.gap();
  }
}

void folder_removed(chaos_world& x) {
  x.start();
  std::filesystem::remove_all(x.box.path("run"));
  x.gap();
  if (x.below(4) == 0)
    return lose_any(x);
  x.lose(x.supervisor());
}

void anything(chaos_world& x) {
  static const std::vector<words> all{{"scale", "web", "5"},
                                      {"restart", "many"},
                                      {"stop", "slow"},
                                      {"reload", "web"},
                                      {"apply", "second.json"},
                                      {"terminate"},
                                      {"upgrade"}};
  x.start();
  x.order(all[x.below(static_cast<unsigned>(all.size()))]);
  for (auto left = 2 + x.below(3); left > 0; --left) {
    x.gap();
    switch (x.below(8)) {
      case 0:
      case 1:
      case 2:
        x.lose(x.supervisor());
        break;
      case 3:
        x.lose(x.guardian());
        break;
      case 4:
        x.stop(x.perhaps() ? x.guardian() : x.supervisor());
        break;
      case 5:
        x.stop(x.leader_of(x.any_unit()));
        break;
      case 6:
        x.resume();
        break;
      default:
        x.lose(x.leader_of(x.any_unit()));
    }
  }
}

struct kind {
  const char* name;
  void (*happen)(chaos_world&);
};

constexpr std::array<kind, 20> kinds{{
    {"the supervisor killed at the start", supervisor_killed_at_start},
    {"the guardian killed at the start", guardian_killed_at_start},
    {"successors killed while they adopt", successors_killed},
    {"both killed, in either order", both_killed},
    {"the guardian killed during an adoption", guardian_killed_during_adoption},
    {"supervisors killed during an upgrade", lost_during_upgrade},
    {"the guardian killed during an upgrade", guardian_killed_during_upgrade},
    {"the supervisor killed during an apply", supervisor_killed_during_apply},
    {"the guardian killed during an apply", guardian_killed_during_apply},
    {"the supervisor killed during a scale", supervisor_killed_during_scale},
    {"the supervisor killed during a reload", supervisor_killed_during_reload},
    {"losses during a stop or restart", lost_during_stop_or_restart},
    {"losses during a terminate", lost_during_terminate},
    {"the supervisor stopped, then killed", supervisor_stopped_then_killed},
    {"the supervisor stopped, and continued", supervisor_stopped_and_continued},
    {"the guardian stopped meanwhile", guardian_stopped},
    {"both stopped, and continued", both_stopped},
    {"leaders killed as well", leaders_killed_as_well},
    {"the runtime folder removed as well", folder_removed},
    {"anything", anything},
}};

unsigned number_of(const char* variable, unsigned otherwise) {
  const auto* text = std::getenv(variable);
  return text == nullptr
             ? otherwise
             : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

}  // namespace

SCENARIO("losses in quick succession end in one of three ways") {
  const auto first = number_of("PUP_CHAOS_SEED", 1);
  const auto rounds = number_of("PUP_CHAOS_ROUNDS", 60);
  const auto seed = GENERATE_COPY(
      Catch::Generators::range(static_cast<std::int64_t>(first),
                               static_cast<std::int64_t>(first) + rounds));
  const auto& kind = kinds[static_cast<std::size_t>(seed) % kinds.size()];
  INFO("tests/chaos 1 " << seed << ": " << kind.name);
  std::cout << "chaos " << seed << ": " << kind.name << std::flush;
  const auto begun = std::chrono::steady_clock::now();
  chaos_world world{static_cast<unsigned>(seed)};
  kind.happen(world);
  const auto how = world.settle();
  std::cout << ": " << name_of(how) << std::flush;
  world.judge(how);
  CHECK(world.box.end() == "");
  const std::chrono::duration<double> took =
      std::chrono::steady_clock::now() - begun;
  std::cout << ", " << took.count() << " s" << std::endl;
}
