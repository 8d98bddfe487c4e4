// The rules of supervision without actors and without a clock: each expected
// decision is OTP's (stdlib, module supervisor) unless a comment says
// otherwise.
#include "pup/actors/supervision.hpp"

#include "catch.hpp"

#include <algorithm>
#include <random>

using namespace std::chrono_literals;
using pup::life_stage;
using pup::restart_type;
using pup::strategy;
using strings = std::vector<std::string>;

namespace {

constexpr pup::time_point t0{};
const pup::intensity no_limit{{}, 1s};

pup::supervision abc(strategy how, pup::intensity limit = no_limit) {
  pup::supervision result{how, limit};
  for (const auto* id : {"a", "b", "c"})
    result.add(id, restart_type::permanent);
  return result;
}

pup::decision fail(pup::supervision& x, const std::string& id,
                   pup::time_point when = t0) {
  return x.ended(id, false, life_stage::unready, when, 0.5);
}

pup::restart plan(const pup::decision& x) {
  REQUIRE(std::holds_alternative<pup::restart>(x));
  return std::get<pup::restart>(x);
}

bool gave_up(const pup::decision& x) {
  return std::holds_alternative<pup::give_up>(x);
}

bool left(const pup::decision& x) {
  return std::holds_alternative<pup::leave>(x);
}

pup::supervision single(restart_type type) {
  pup::supervision result{strategy::one_for_one, no_limit};
  result.add("a", type);
  return result;
}

}  // namespace

// -- restart types ------------------------------------------------------------

SCENARIO("a permanent child is restarted after every end") {
  auto x = single(restart_type::permanent);
  CHECK(plan(x.ended("a", true, life_stage::unready, t0, 0)).start
        == strings{"a"});
  CHECK(plan(x.ended("a", false, life_stage::unready, t0, 0)).start
        == strings{"a"});
}

SCENARIO("a transient child is restarted after an abnormal end only") {
  auto x = single(restart_type::transient);
  CHECK(left(x.ended("a", true, life_stage::unready, t0, 0)));
  CHECK(x.ids() == strings{"a"});
  CHECK(plan(x.ended("a", false, life_stage::unready, t0, 0)).start
        == strings{"a"});
}

SCENARIO("a temporary child is forgotten after every end") {
  const auto normal = GENERATE(true, false);
  auto x = single(restart_type::temporary);
  const auto what = x.ended("a", normal, life_stage::unready, t0, 0);
  REQUIRE(left(what));
  CHECK(std::get<pup::leave>(what).forgotten);
  CHECK(x.ids().empty());
}

SCENARIO("the end of an unknown child changes nothing") {
  auto x = abc(strategy::one_for_all, {0, 1s});
  CHECK(left(fail(x, "d")));
  CHECK(x.ids() == strings{"a", "b", "c"});
}

// -- strategies ---------------------------------------------------------------

SCENARIO("one_for_one restarts the ended child alone") {
  auto x = abc(strategy::one_for_one);
  const auto what = plan(fail(x, "b"));
  CHECK(what.stop.empty());
  CHECK(what.start == strings{"b"});
}

SCENARIO("one_for_all stops the others in reverse and starts all in order") {
  auto x = abc(strategy::one_for_all);
  const auto what = plan(fail(x, "b"));
  CHECK(what.stop == strings{"c", "a"});
  CHECK(what.start == strings{"a", "b", "c"});
}

SCENARIO("rest_for_one leaves those that were started before alone") {
  auto x = abc(strategy::rest_for_one);
  CHECK(plan(fail(x, "a")).stop == strings{"c", "b"});
  CHECK(plan(fail(x, "a")).start == strings{"a", "b", "c"});
  CHECK(plan(fail(x, "b")).stop == strings{"c"});
  CHECK(plan(fail(x, "b")).start == strings{"b", "c"});
  CHECK(plan(fail(x, "c")).stop.empty());
  CHECK(plan(fail(x, "c")).start == strings{"c"});
}

SCENARIO("a temporary sibling is stopped with its group and forgotten") {
  const auto how = GENERATE(strategy::one_for_all, strategy::rest_for_one);
  pup::supervision x{how, no_limit};
  x.add("a", restart_type::permanent);
  x.add("bystander", restart_type::temporary);
  x.add("c", restart_type::transient);
  const auto what = plan(fail(x, "a"));
  CHECK(what.stop == strings{"c", "bystander"});
  CHECK(what.start == strings{"a", "c"});
  CHECK(x.ids() == strings{"a", "c"});
}

SCENARIO("rest_for_one leaves an earlier temporary sibling alone") {
  pup::supervision x{strategy::rest_for_one, no_limit};
  x.add("bystander", restart_type::temporary);
  x.add("b", restart_type::permanent);
  CHECK(plan(fail(x, "b")).stop.empty());
  CHECK(x.ids() == strings{"bystander", "b"});
}

// -- children -----------------------------------------------------------------

SCENARIO("an id is taken until its child is removed") {
  pup::supervision x{strategy::one_for_one, no_limit};
  CHECK(x.add("a", restart_type::permanent));
  CHECK_FALSE(x.add("a", restart_type::temporary));
  CHECK(x.remove("a"));
  CHECK_FALSE(x.remove("a"));
  CHECK(x.add("a", restart_type::temporary));
}

// -- intensity ----------------------------------------------------------------

SCENARIO("one restart more than the limit within the period is one too many") {
  auto x = abc(strategy::one_for_one, {3, 10s});
  CHECK_FALSE(gave_up(fail(x, "a", t0)));
  CHECK_FALSE(gave_up(fail(x, "b", t0 + 1s)));
  CHECK_FALSE(gave_up(fail(x, "c", t0 + 2s)));
  CHECK(gave_up(fail(x, "a", t0 + 3s)));
}

SCENARIO("a limit of 0 allows no restart") {
  auto x = abc(strategy::one_for_all, {0, 1s});
  CHECK(gave_up(fail(x, "a")));
}

SCENARIO("without a limit there may be any number of restarts") {
  auto x = abc(strategy::one_for_one);
  for (int i = 0; i < 10'000; ++i)
    REQUIRE_FALSE(gave_up(fail(x, "a")));
}

SCENARIO("a restart counts until its period has passed, inclusive") {
  auto x = abc(strategy::one_for_one, {1, 10s});
  CHECK_FALSE(gave_up(fail(x, "a", t0)));
  SECTION("at the end of the period it still counts") {
    CHECK(gave_up(fail(x, "a", t0 + 10s)));
  }
  SECTION("right after it, it does not") {
    CHECK_FALSE(gave_up(fail(x, "a", t0 + 10s + 1ns)));
  }
}

SCENARIO("the restart of a whole group counts once") {
  auto x = abc(strategy::one_for_all, {1, 10s});
  CHECK(plan(fail(x, "a")).start.size() == 3);
  CHECK(gave_up(fail(x, "b")));
}

SCENARIO("an end without a restart does not count") {
  pup::supervision x{strategy::one_for_one, {0, 10s}};
  x.add("a", restart_type::transient);
  x.add("b", restart_type::temporary);
  CHECK(left(x.ended("a", true, life_stage::unready, t0, 0)));
  CHECK(left(fail(x, "b")));
}

SCENARIO("a child that was forgiven may be restarted as often again") {
  auto x = abc(strategy::one_for_one, {1, 10s});
  CHECK_FALSE(gave_up(fail(x, "a")));
  CHECK(gave_up(fail(x, "a")));
  x.forgive("a");
  CHECK_FALSE(gave_up(fail(x, "a")));
  CHECK(gave_up(fail(x, "a")));
}

SCENARIO("a successor recalls what counts against a child") {
  const pup::backoff_rule rule{0ms, 100ms, 10s, 1s};
  pup::supervision before{pup::strategy::one_for_one, {3, 10s}};
  before.add("a", pup::restart_type::permanent, rule);
  const pup::time_point start{1h};
  before.ended("a", false, life_stage::unready, start, 0.5);
  before.ended("a", false, life_stage::unready, start + 2s, 0.5);
  const auto record = before.record("a");
  CHECK(record.restarts == std::vector{start, start + 2s});
  CHECK(record.failures == 2);
  CHECK(before.record("b") == pup::restart_record{});

  pup::supervision after{pup::strategy::one_for_one, {3, 10s}};
  after.add("a", pup::restart_type::permanent, rule);
  after.recall("a", record);
  after.recall("b", {{start + 3s}, 9, 9});
  CHECK(after.record("a") == record);
  const auto third =
      after.ended("a", false, life_stage::unready, start + 4s, 0.5);
  REQUIRE(std::holds_alternative<pup::restart>(third));
  CHECK(std::get<pup::restart>(third).delay == 200ms);
  CHECK(std::holds_alternative<pup::give_up>(
      after.ended("a", false, life_stage::unready, start + 5s, 0.5)));
}

SCENARIO("lives in a row that never were ready are counted by themselves") {
  auto x = single(restart_type::permanent);
  x.limit_starts("a", 2);
  const auto end = [&](life_stage reached) {
    return x.ended("a", false, reached, t0, 0.5);
  };
  GIVEN("as many as the limit") {
    CHECK_FALSE(gave_up(end(life_stage::unready)));
    CHECK_FALSE(gave_up(end(life_stage::unready)));
    CHECK(x.record("a").failed_starts == 2);
    THEN("one more is too many, and the other limit is not to blame") {
      const auto what = end(life_stage::unready);
      REQUIRE(gave_up(what));
      CHECK(std::get<pup::give_up>(what).passed == pup::give_up::limit::starts);
    }
    THEN("one that was ready, however briefly, begins a new row") {
      CHECK_FALSE(gave_up(end(life_stage::ready)));
      CHECK_FALSE(gave_up(end(life_stage::unready)));
      CHECK_FALSE(gave_up(end(life_stage::unready)));
      CHECK(gave_up(end(life_stage::unready)));
    }
    THEN("a start on purpose begins a new row") {
      x.forgive("a");
      CHECK_FALSE(gave_up(end(life_stage::unready)));
    }
    THEN("a successor counts on") {
      auto after = single(restart_type::permanent);
      after.limit_starts("a", 2);
      after.recall("a", x.record("a"));
      CHECK(gave_up(after.ended("a", false, life_stage::unready, t0, 0.5)));
    }
  }
}

SCENARIO("a start limit of 0 allows no failed start, an absent one any") {
  auto none = single(restart_type::permanent);
  none.limit_starts("a", 0);
  CHECK_FALSE(gave_up(none.ended("a", false, life_stage::stable, t0, 0)));
  CHECK(gave_up(fail(none, "a")));
  auto any = single(restart_type::permanent);
  for (int i = 0; i < 100; ++i)
    CHECK_FALSE(gave_up(fail(any, "a")));
}

SCENARIO("what is postponed is delayed ever more, and counts nowhere") {
  for (const auto type : {restart_type::permanent, restart_type::transient,
                          restart_type::temporary}) {
    auto x = single(type);
    x.limit_starts("a", 0);
    CHECK(x.postponed("a", 0.5) == 0ms);
    CHECK(x.postponed("a", 0.5) == 100ms);
    CHECK(x.postponed("a", 0.5) == 200ms);
    for (int i = 0; i < 20; ++i)
      CHECK(x.postponed("a", 0.5) <= 10s);
    CHECK(x.ids() == std::vector<std::string>{"a"});
    CHECK(x.record("a").failed_starts == 0);
    CHECK(x.record("a").restarts.empty());
  }
  auto x = single(restart_type::permanent);
  CHECK(x.postponed("nobody", 0.5) == 0ms);
}

SCENARIO("what is not restarted has failed no start") {
  auto x = single(restart_type::transient);
  x.limit_starts("a", 0);
  CHECK(left(x.ended("a", true, life_stage::unready, t0, 0)));
  CHECK(gave_up(fail(x, "a")));
}

SCENARIO("a refused restart does not use up the next period") {
  auto x = abc(strategy::one_for_one, {1, 10s});
  CHECK_FALSE(gave_up(fail(x, "a", t0)));
  CHECK(gave_up(fail(x, "a", t0 + 9s)));
  CHECK_FALSE(gave_up(fail(x, "a", t0 + 11s)));
}

// -- backoff ------------------------------------------------------------------

SCENARIO("the delay is first, then doubles from step to max") {
  pup::backoff x{{0ms, 100ms, 1000ms, 1s}};
  // random 0.5 is the middle: no jitter.
  CHECK(x.next(false, 0.5) == 0ms);
  CHECK(x.next(false, 0.5) == 100ms);
  CHECK(x.next(false, 0.5) == 200ms);
  CHECK(x.next(false, 0.5) == 400ms);
  CHECK(x.next(false, 0.5) == 800ms);
  CHECK(x.next(false, 0.5) == 1000ms);
  CHECK(x.next(false, 0.5) == 1000ms);
}

SCENARIO("a stable life or a reset ends a failing series") {
  pup::backoff x{{7ms, 100ms, 1000ms, 1s}};
  x.next(false, 0.5);
  x.next(false, 0.5);
  SECTION("stable") {
    CHECK(x.next(true, 0.5) == 7ms);
    CHECK(x.next(false, 0.5) == 100ms);
  }
  SECTION("reset") {
    x.reset();
    CHECK(x.next(false, 0.5) == 7ms);
  }
}

SCENARIO("jitter is 20 % either way, but never exceeds max") {
  const auto after_first = [](pup::backoff_rule rule, double random) {
    pup::backoff x{rule};
    x.next(false, random);
    return x.next(false, random);
  };
  const pup::backoff_rule rule{0ms, 100ms, 1000ms, 1s};
  CHECK(after_first(rule, 0) == 80ms);
  CHECK(after_first(rule, 0.999) > 119ms);
  CHECK(after_first(rule, 0.999) < 120ms);
  const pup::backoff_rule tight{0ms, 100ms, 100ms, 1s};
  CHECK(after_first(tight, 0) == 80ms);
  CHECK(after_first(tight, 0.999) == 100ms);
}

SCENARIO("no delay is shorter than first, even when that exceeds max") {
  pup::backoff x{{500ms, 100ms, 200ms, 1s}};
  CHECK(x.next(false, 0) == 500ms);
  CHECK(x.next(false, 0) == 500ms);
  CHECK(x.next(false, 0.999) == 500ms);
}

SCENARIO("a long failing series neither overflows nor leaves its bounds") {
  const auto step = GENERATE(0ms, 1ms, 100ms, 86'400'000ms);
  const auto random = GENERATE(0.0, 0.5, 0.999);
  constexpr auto max = std::chrono::milliseconds{24h * 365};
  pup::backoff x{{0ms, step, max, 1s}};
  auto previous = pup::duration{0};
  for (int i = 0; i < 100; ++i) {
    const auto delay = x.next(false, random);
    REQUIRE(delay >= previous);
    REQUIRE(delay <= max);
    previous = delay;
  }
}

SCENARIO("each child has a failing series of its own") {
  auto x = abc(strategy::one_for_one);
  CHECK(plan(fail(x, "a")).delay == 0ms);
  CHECK(plan(fail(x, "a")).delay == 100ms);
  CHECK(plan(fail(x, "b")).delay == 0ms);
  CHECK(plan(fail(x, "a")).delay == 200ms);
}

// -- properties ---------------------------------------------------------------

namespace {

/// What a supervision must know, kept as plainly as possible.
struct model {
  strategy how;
  pup::intensity limit;
  std::vector<std::pair<std::string, restart_type>> children;
  std::vector<pup::time_point> restarts;  // all since the last forgive

  strings ids() const {
    strings result;
    for (const auto& x : children)
      result.push_back(x.first);
    return result;
  }

  std::size_t position(const std::string& id) const {
    const auto all = ids();
    return static_cast<std::size_t>(std::find(all.begin(), all.end(), id)
                                    - all.begin());
  }

  bool may_restart(pup::time_point now) const {
    const auto recent = std::count_if(
        restarts.begin(), restarts.end(),
        [&](pup::time_point x) { return now - x <= limit.period; });
    return static_cast<std::uint32_t>(recent) < *limit.limit;
  }
};

class random_life {
public:
  explicit random_life(std::uint32_t seed)
      : random_(seed),
        model_{pick({strategy::one_for_one, strategy::one_for_all,
                     strategy::rest_for_one}),
               {below(5), std::chrono::milliseconds(1 + below(500))},
               {},
               {}},
        tested_(model_.how, model_.limit) {}

  void step() {
    now_ += std::chrono::milliseconds(below(200));
    switch (below(8)) {
      case 0:
      case 1:
        return add();
      case 2:
        return remove();
      case 3:
        if (below(4) == 0)
          return forgive();
        [[fallthrough]];
      default:
        return end();
    }
  }

private:
  std::uint32_t below(std::uint32_t n) {
    return static_cast<std::uint32_t>(random_()) % n;
  }

  template <class T>
  T pick(std::initializer_list<T> xs) {
    return *(xs.begin() + below(static_cast<std::uint32_t>(xs.size())));
  }

  std::string some_id() {
    return std::string(1, static_cast<char>('a' + below(8)));
  }

  bool known(const std::string& id) const {
    return model_.position(id) < model_.children.size();
  }

  void add() {
    const auto id = some_id();
    const auto type = pick({restart_type::permanent, restart_type::transient,
                            restart_type::temporary});
    REQUIRE(tested_.add(id, type) != known(id));
    if (!known(id))
      model_.children.emplace_back(id, type);
    REQUIRE(tested_.ids() == model_.ids());
  }

  void remove() {
    const auto id = some_id();
    REQUIRE(tested_.remove(id) == known(id));
    if (known(id))
      model_.children.erase(model_.children.begin()
                            + static_cast<std::ptrdiff_t>(model_.position(id)));
    REQUIRE(tested_.ids() == model_.ids());
  }

  void forgive() {
    tested_.forgive(some_id());
    model_.restarts.clear();
  }

  void end() {
    const auto id = some_id();
    const auto normal = below(3) == 0;
    const auto what = tested_.ended(
        id, normal, below(2) == 0 ? life_stage::stable : life_stage::unready,
        now_, below(1000) / 1000.0);
    if (!known(id)) {
      REQUIRE(left(what));
    } else if (const auto type = model_.children[model_.position(id)].second;
               type == restart_type::temporary) {
      REQUIRE(std::get<pup::leave>(what).forgotten);
      model_.children.erase(model_.children.begin()
                            + static_cast<std::ptrdiff_t>(model_.position(id)));
    } else if (type == restart_type::transient && normal) {
      REQUIRE_FALSE(std::get<pup::leave>(what).forgotten);
    } else if (!model_.may_restart(now_)) {
      REQUIRE(gave_up(what));
    } else {
      model_.restarts.push_back(now_);
      restarted(id, plan(what));
    }
    REQUIRE(tested_.ids() == model_.ids());
  }

  void restarted(const std::string& id, const pup::restart& what) {
    auto begin = model_.how == strategy::one_for_all ? 0 : model_.position(id);
    auto end = model_.how == strategy::one_for_one ? begin + 1
                                                   : model_.children.size();
    strings start, stop;
    decltype(model_.children) kept;
    for (std::size_t i = 0; i < model_.children.size(); ++i) {
      const auto& [other, type] = model_.children[i];
      const auto inside = i >= begin && i < end;
      if (inside && other != id)
        stop.insert(stop.begin(), other);
      if (inside && type != restart_type::temporary)
        start.push_back(other);
      if (!inside || type != restart_type::temporary)
        kept.push_back(model_.children[i]);
    }
    REQUIRE(what.start == start);
    REQUIRE(what.stop == stop);
    REQUIRE(what.delay >= 0ms);
    REQUIRE(what.delay <= pup::backoff_rule{}.max);
    model_.children = kept;
  }

  std::mt19937 random_;
  model model_;
  pup::supervision tested_;
  pup::time_point now_{};
};

}  // namespace

SCENARIO(
    "random lives: the intensity is kept, the order of start is preserved, "
    "and decisions name known children only") {
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    INFO("seed " << seed);
    random_life life{seed};
    for (int i = 0; i < 200; ++i)
      life.step();
  }
}
