// What is gone on with after a supervisor was lost, with a parent of processes
// that only writes down what it is asked for.
#include "pup/runtime/children.hpp"

#include "catch.hpp"

#include <boost/asio/io_context.hpp>

#include <csignal>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>

using namespace pup;

namespace {

using strings = std::vector<std::string>;

/// Signals nobody that it was not told of, as the guardian's does.
class paper_parent : public spawner {
public:
  void connect(spawner_events events) override {
    events_ = std::move(events);
  }
  std::uint64_t start(const start_order& order) override {
    started.push_back(order.key + '/' + std::to_string(order.life));
    known_.insert(++last_);
    return last_;
  }
  std::optional<os_fault> signal(std::uint64_t number, int signo) override {
    if (known_.count(number) != 0 && signo == SIGKILL)
      killed.insert(number);
    return std::nullopt;
  }
  void stop(std::uint64_t, int) override {}
  [[nodiscard]] pid_t parent() const override {
    return ::getpid();
  }
  [[nodiscard]] bool runs(std::uint64_t number) const override {
    return known_.count(number) != 0;
  }
  void mark(std::uint64_t, const std::string&) override {}
  void forget(std::uint64_t number) override {
    forgotten.insert(number);
  }
  void release(const std::string& name) override {
    released.push_back(name);
  }
  void adopt(inherited_process x) override {
    known_.insert(x.number);
  }
  void end_all() override {}

  void end(std::uint64_t number) {
    known_.erase(number);
    events_.ended(number, {});
  }

  strings started;
  std::set<std::uint64_t> killed;
  std::set<std::uint64_t> forgotten;
  strings released;

private:
  spawner_events events_;
  std::set<std::uint64_t> known_;
  std::uint64_t last_ = 100;
};

struct world {
  world() {
    child_events events;
    events.launched = [this](const std::string& key, std::uint64_t life, pid_t,
                             const std::string&) {
      told.push_back("launched " + key + '/' + std::to_string(life));
    };
    events.failed = [this](const std::string& key, std::uint64_t life,
                           const launch_fault& fault) {
      told.push_back("failed " + key + '/' + std::to_string(life) + ": "
                     + fault.text);
    };
    events.ready = [this](const std::string& key, std::uint64_t life,
                          const std::string&) {
      told.push_back("ready " + key + '/' + std::to_string(life));
    };
    events.exited = [this](const std::string& key, std::uint64_t life,
                           const burial&) {
      told.push_back("exited " + key + '/' + std::to_string(life));
    };
    all.emplace(loop, strings{"PATH=/usr/bin:/bin"}, std::move(events), parent);
  }

  void adopt(std::uint64_t number, std::uint64_t life) {
    inherited_process x;
    x.number = number;
    x.key = "web";
    x.life = life;
    x.pid = ::getpid();
    all->adopt({std::move(x), {}, kept});
  }

  void launch(std::uint64_t life) {
    launch_request request;
    request.argv = {"true"};
    all->launch("web", life, std::move(request));
  }

  void run() {
    loop.restart();
    loop.poll();
  }

  boost::asio::io_context loop;
  std::shared_ptr<paper_parent> parent = std::make_shared<paper_parent>();
  strings told;
  std::map<std::string, unique_fd> kept;
  std::optional<children> all;
};

}  // namespace

SCENARIO("of two lives of a key that are left the later one goes on") {
  world w;
  GIVEN("the later one comes last") {
    w.adopt(1, 7);
    w.adopt(2, 8);
  }
  GIVEN("the later one comes first") {
    w.adopt(2, 8);
    w.adopt(1, 7);
  }
  CHECK(w.parent->killed == std::set<std::uint64_t>{1});
  w.run();
  CHECK(w.told == strings{"launched web/8", "ready web/8"});
  // Nobody hears of the end of the other, and it is not kept for a successor.
  w.parent->end(1);
  w.run();
  CHECK(w.parent->forgotten == std::set<std::uint64_t>{1});
  CHECK(w.told.size() == 2);
  CHECK(w.all->size() == 1);
  w.parent->end(2);
  CHECK(w.told.back() == "exited web/8");
  CHECK(w.all->size() == 0);
}

SCENARIO("a life begins when all that is left of its key has ended") {
  world w;
  w.adopt(1, 7);
  w.adopt(2, 8);
  w.launch(9);
  CHECK(w.parent->killed == std::set<std::uint64_t>{1, 2});
  w.parent->end(2);
  w.run();
  CHECK(w.parent->started.empty());
  w.parent->end(1);
  w.run();
  CHECK(w.parent->started == strings{"web/9"});
}

SCENARIO("what is left of a key ends when its next life waits already") {
  world w;
  w.launch(9);
  w.adopt(1, 7);
  CHECK(w.parent->killed == std::set<std::uint64_t>{1});
  w.run();
  CHECK(w.parent->started.empty());
  w.parent->end(1);
  w.run();
  CHECK(w.parent->started == strings{"web/9"});
}

SCENARIO("what was kept for a start that failed unheard is given back") {
  world w;
  for (const auto* name : {"out/web/7", "ready/web/6", "ready/web/7",
                           "ready/we/7", "ready/web-2/1"})
    w.kept[name] = unique_fd{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
  std::vector<inherited_process> known(1);
  known.front().key = "web";
  known.front().life = 7;
  w.all->release_all_but(known, w.kept);
  CHECK(w.parent->released
        == strings{"ready/we/7", "ready/web-2/1", "ready/web/6"});
  CHECK(w.kept.size() == 2);
  CHECK(w.kept.count("out/web/7") == 1);
  CHECK(w.kept.count("ready/web/7") == 1);
}
