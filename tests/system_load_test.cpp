// The main job under load: what clients see while instances come, go, are
// restarted and are killed.
#include "catch.hpp"
#include "system.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <iostream>
#include <mutex>
#include <system_error>
#include <thread>

using namespace pup::test;
using namespace std::chrono_literals;

namespace json = boost::json;

namespace {

using clock_type = std::chrono::steady_clock;

constexpr int threads = 4;
// One request in 7 ms from each of four threads: 571 a second.
constexpr std::chrono::milliseconds pace{7};
// A client that waits longer has been forgotten.
constexpr std::chrono::seconds client_patience{5};

/// Requests at an even pace, each on a connection of its own, from construction
/// to end(). A thread that was held up makes up for it.
class load {
public:
  struct outcome {
    long served = 0;
    long refused = 0;  ///< the connection was not accepted
    long cut = 0;      ///< reset, closed or silent before the answer was whole
    long wrong = 0;    ///< an answer, but not one of an instance
    double per_second = 0;
    std::string first_trouble;
  };

  explicit load(std::uint16_t port) : port_(port) {
    for (auto& x : threads_)
      x = std::thread{[this] { ask_until_stopped(); }};
  }
  load(const load&) = delete;
  load& operator=(const load&) = delete;
  ~load() {
    end();
  }

  /// Until so many more requests have been answered.
  [[nodiscard]] bool serves(long more) const {
    const auto goal = served_ + more;
    return wait_until([&] { return served_ >= goal; });
  }

  outcome end() {
    stopping_ = true;
    for (auto& x : threads_)
      if (x.joinable())
        x.join();
    const std::chrono::duration<double> time = last_ - begun_;
    return {served_,
            refused_,
            cut_,
            wrong_,
            static_cast<double>(served_) / std::max(time.count(), 0.001),
            trouble_};
  }

private:
  void ask_until_stopped() {
    auto next = clock_type::now();
    for (long n = 0; !stopping_; ++n) {
      std::this_thread::sleep_until(next);
      next += pace;
      // Some answers take a while, so that there is always one in flight.
      ask(n % 8 == 0 ? "/slow?ms=10" : "/");
    }
    const std::lock_guard hold{mutex_};
    last_ = clock_type::now();
  }

  void ask(const std::string& path) {
    std::optional<connection> client;
    try {
      client.emplace(endpoint{port_, "127.0.0.1", {}}, client_patience);
    } catch (const std::system_error& e) {
      note(refused_, e.what());
      return;
    }
    try {
      const auto answer = client->get(path);
      if (answer.status == 200 && answer.body.starts_with("web-"))
        ++served_;
      else if (answer.status == 0)
        note(cut_, "closed before the answer was whole");
      else
        note(wrong_, answer.head + answer.body);
    } catch (const std::system_error& e) {
      note(cut_, e.what());
    }
  }

  void note(std::atomic<long>& count, const std::string& what) {
    ++count;
    const std::lock_guard hold{mutex_};
    if (trouble_.empty())
      trouble_ = what;
  }

  std::uint16_t port_;
  std::atomic<bool> stopping_{false};
  std::atomic<long> served_{0};
  std::atomic<long> refused_{0};
  std::atomic<long> cut_{0};
  std::atomic<long> wrong_{0};
  std::mutex mutex_;
  std::string trouble_;
  const clock_type::time_point begun_ = clock_type::now();
  clock_type::time_point last_ = begun_;
  std::thread threads_[threads];
};

/// Prints the outcome; at most `may_be_cut` requests have failed, and those
/// after they were accepted.
void check_outcome(const char* what, const load::outcome& x,
                   long may_be_cut = 0) {
  std::cout << what << ": " << x.served << " served ("
            << std::lround(x.per_second) << "/s), " << x.refused << " refused, "
            << x.cut << " cut, " << x.wrong << " wrong\n";
  INFO(x.first_trouble);
  CHECK(x.served > 0);
  CHECK(x.refused == 0);
  CHECK(x.cut <= may_be_cut);
  CHECK(x.wrong == 0);
}

void start(const sandbox& box) {
  const auto started = box.pup({"start", "config.json"});
  CHECK(started.err == "");
  REQUIRE(started.code == 0);
}

void done(const finished& x) {
  CHECK(x.err == "");
  REQUIRE(x.code == 0);
}

json::object instance(const sandbox& box, const std::string& id) {
  return with_id(box.unit("web").at("instances").as_array(), id);
}

pid_t pid_of(const json::object& x) {
  return x.at("pid").is_null() ? 0 : x.at("pid").to_number<pid_t>();
}

/// Until `id` is ready as another process than `old`.
bool is_back(const sandbox& box, const std::string& id, pid_t old) {
  return wait_until([&] {
    const auto now = instance(box, id);
    return now.at("state").as_string() == "ready" && pid_of(now) != old;
  });
}

}  // namespace

SCENARIO("no client notices that a cluster is scaled to 6, 2 and 5") {
  sandbox box;
  const port_range ports{7};
  box.write("config.json", config({web(ports, 4)}));
  start(box);
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  for (const auto* count : {"6", "2", "5"}) {
    done(box.pup({"--id", "web", "--instances", count}));
    REQUIRE(clients.serves(300));
  }
  check_outcome("scale 4, 6, 2, 5", clients.end());
  CHECK(box.unit("web").at("ready").to_number<int>() == 5);
  CHECK(box.end() == "");
}

SCENARIO("no client notices that one instance is restarted") {
  sandbox box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 4)}));
  start(box);
  const auto before = pid_of(instance(box, "web-2"));
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  done(box.pup({"restart", "web-2"}));
  REQUIRE(clients.serves(300));
  check_outcome("restart web-2 of 4", clients.end());
  CHECK(pid_of(instance(box, "web-2")) != before);
  CHECK(box.end() == "");
}

SCENARIO("no client notices that the only instance is restarted") {
  sandbox box;
  const port_range ports{2};
  box.write("config.json", config({web(ports, 1)}));
  start(box);
  const auto before = pid_of(instance(box, "web-1"));
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  done(box.pup({"restart", "web-1"}));
  REQUIRE(clients.serves(300));
  check_outcome("restart the only instance", clients.end());
  CHECK(pid_of(instance(box, "web-1")) != before);
  CHECK(box.end() == "");
}

SCENARIO("a killed instance costs only the requests it was answering") {
  sandbox box;
  const port_range ports{5};
  box.write("config.json", config({web(ports, 4)}));
  start(box);
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  constexpr int kills = 6;
  for (int n = 0; n < kills; ++n) {
    const auto id = "web-" + std::to_string(n % 4 + 1);
    const auto victim = pid_of(instance(box, id));
    REQUIRE(victim > 0);
    REQUIRE(::kill(victim, SIGKILL) == 0);
    REQUIRE(clients.serves(50));
    REQUIRE(is_back(box, id, victim));
  }
  REQUIRE(clients.serves(300));
  // No thread has more than one request under way.
  check_outcome("6 times kill -9", clients.end(), kills * threads);
  CHECK(box.end() == "");
}

SCENARIO("the killed only instance costs only what it was answering") {
  sandbox box;
  const port_range ports{2};
  box.write("config.json", config({web(ports, 1)}));
  start(box);
  load clients{ports[0]};
  REQUIRE(clients.serves(300));
  const auto victim = pid_of(instance(box, "web-1"));
  REQUIRE(::kill(victim, SIGKILL) == 0);
  REQUIRE(is_back(box, "web-1", victim));
  REQUIRE(clients.serves(300));
  check_outcome("kill -9 of the only instance", clients.end(), threads);
  CHECK(box.end() == "");
}
