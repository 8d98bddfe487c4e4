// A supervisor with a bit of everything to lose things from, for one round of
// chaos, and the census that is taken afterwards.
//
// A round ends in one of three ways (docs/FAILURES.md): all goes on; all is
// stopped, and somebody said so; or, where supervisor and guardian were both
// killed, the processes go on unwatched, and the next command says so. What is
// neither is a fault: settle() names it.
#pragma once

#include "pup/runtime/descendants.hpp"

#include "catch.hpp"
#include "system.hpp"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

namespace pup::test {

/// A process that will not be mistaken for a later one of its number.
struct victim {
  pid_t pid = 0;
  std::uint64_t started = 0;

  [[nodiscard]] bool signal(int signo) const {
    return pid > 0 && signal_process(pid, started, signo);
  }
};

inline victim victim_of(pid_t pid) {
  return {pid, start_ticks(pid)};
}

inline std::string command_of(pid_t pid) {
  std::ifstream file{"/proc/" + std::to_string(pid) + "/cmdline",
                     std::ios::binary};
  std::ostringstream text;
  text << file.rdbuf();
  auto result = text.str();
  std::replace(result.begin(), result.end(), '\0', ' ');
  return result;
}

/// How many descriptors it has open; 0: there is no such process.
inline std::size_t descriptors_of(pid_t pid) {
  std::error_code error;
  const std::filesystem::directory_iterator all{
      "/proc/" + std::to_string(pid) + "/fd", error};
  return error ? 0 : static_cast<std::size_t>(std::distance(begin(all), {}));
}

/// What they lead to.
inline std::string targets_of(pid_t pid) {
  std::string result;
  std::error_code error;
  for (const auto& x : std::filesystem::directory_iterator{
           "/proc/" + std::to_string(pid) + "/fd", error})
    result += ' ' + x.path().filename().string() + '='
              + std::filesystem::read_symlink(x.path(), error).string();
  return result;
}

/// The sockets of that port, with their queues, and the call in which each of
/// the processes is: for one that does not answer.
inline std::string sockets_at(std::uint16_t port,
                              const std::set<pid_t>& processes) {
  std::ostringstream wanted;
  wanted << ':' << std::uppercase << std::hex << std::setfill('0')
         << std::setw(4) << port << ' ';
  std::string result;
  for (const auto* path : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file{path};
    for (std::string line; std::getline(file, line);)
      if (line.find(wanted.str()) != std::string::npos)
        result += '\n' + line;
  }
  for (const auto pid : processes) {
    std::string where;
    std::getline(std::ifstream{"/proc/" + std::to_string(pid) + "/wchan"},
                 where);
    result += '\n' + std::to_string(pid) + " in " + where;
  }
  return result;
}

class chaos_world {
public:
  enum class end { goes_on, stopped, unwatched };

  explicit chaos_world(unsigned seed) : random_(seed) {
    box.may_leave_processes();
    box.env["PUP_HANG_TIMEOUT"] = "1";
    // Nobody else's process has this argument; it is known by that even when
    // it has cleaned its environment.
    token_ = "1000." + std::to_string(::getpid()) + std::to_string(seed);
    box.write("config.json", config(processes(usual_web, "1")));
    box.write("second.json", config(with_extra(processes(usual_web + 1, "2"))));
  }

  chaos_world(const chaos_world&) = delete;
  chaos_world& operator=(const chaos_world&) = delete;
  /// Nothing stays, whatever has failed.
  ~chaos_world() {
    command_.reset();
    static_cast<void>(box.end());
    for (const auto pid : left())
      ::kill(pid, SIGKILL);
  }

  // -- dice -------------------------------------------------------------------

  unsigned below(unsigned n) {
    return std::uniform_int_distribution<unsigned>{0, n - 1}(random_);
  }
  bool perhaps() {
    return below(2) == 0;
  }
  /// 0 to 100 ms, and often none at all. The one sleep: it is what is tested.
  void gap() {
    if (below(4) != 0)
      std::this_thread::sleep_for(std::chrono::microseconds{below(100'000)});
  }

  // -- who can be lost --------------------------------------------------------

  void start() {
    const auto started = box.pup({"start", "config.json"});
    CHECK(started.err == "");
    REQUIRE(started.code == 0);
    has_come_up();
  }

  void has_come_up() {
    std::string fault;
    const auto whole = wait_until([&] { return (fault = census()).empty(); });
    INFO(fault);
    REQUIRE(whole);
    guardian_ = victim_of(only(box.guardians()));
    usual_descriptors_ = {descriptors_of(guardian_.pid),
                          descriptors_of(supervisor().pid)};
  }

  /// Of the start that is under way, as soon as it exists.
  victim await_guardian() {
    REQUIRE(wait_until([&] { return !box.guardians().empty(); }));
    guardian_ = victim_of(*box.guardians().begin());
    return guardian_;
  }

  [[nodiscard]] victim guardian() const {
    return guardian_;
  }

  [[nodiscard]] std::uint16_t common_port() const {
    return ports_[0];
  }

  /// The newest one; none for a moment, or when the guardian has ended.
  [[nodiscard]] victim supervisor() const {
    victim newest;
    for (const auto pid : children_of(guardian_.pid))
      if (command_of(pid).starts_with(box.pup_program + " run "))
        if (const auto x = victim_of(pid); x.started >= newest.started)
          newest = x;
    if (newest.pid == 0)  // its guardian is not its parent any more
      for (const auto pid : box.supervisors())
        newest = victim_of(pid);
    return newest;
  }

  /// The successor of `old`, as soon as it exists; none when nobody is left who
  /// would start it.
  victim await_successor(const victim& old) {
    victim result;
    REQUIRE(wait_until([&] {
      result = supervisor();
      return (result.pid != 0 && result.pid != old.pid)
             || !alive(guardian_.pid);
    }));
    return result;
  }

  /// An instance of a unit that runs, chosen by the dice; none: it has none.
  victim leader_of(const std::string& unit) {
    std::vector<pid_t> all;
    for (const auto pid : children_of(guardian_.pid))
      if (const auto id = variable_of(pid, "PUP_ID=");
          id == unit || id.starts_with(unit + '-'))
        all.push_back(pid);
    if (all.empty())
      return {};
    return victim_of(all[below(static_cast<unsigned>(all.size()))]);
  }

  std::string any_unit() {
    static const std::vector<std::string> all{"web",  "inherit", "many",
                                              "slow", "family",  "calm"};
    return all[below(static_cast<unsigned>(all.size()))];
  }

  void lose(const victim& x) {
    if (x.pid == guardian_.pid)
      guardian_lost_ = true;
    else if (command_of(x.pid).starts_with(box.pup_program))
      supervisor_lost_ = true;
    static_cast<void>(x.signal(SIGKILL));
    lost_.push_back(x);
  }
  void stop(const victim& x) {
    static_cast<void>(x.signal(SIGSTOP));
    stopped_.push_back(x);
  }
  void resume() {
    for (const auto& x : std::exchange(stopped_, {}))
      static_cast<void>(x.signal(SIGCONT));
  }

  /// What was lost is not said to be ready, whoever has been told.
  void check_status() {
    for (const auto& x : lost_)
      REQUIRE((start_ticks(x.pid) != x.started || wait_for_end(x.pid)));
    const auto answer = box.pup({"status", "--json"});
    REQUIRE(answer.code == 0);
    INFO(answer.out);
    for (const auto& x : lost_)
      CHECK(answer.out.find("\"pid\":" + std::to_string(x.pid) + ',')
            == std::string::npos);
  }

  // -- what is asked for meanwhile --------------------------------------------

  /// A command that may be cut off at any point.
  void order(std::vector<std::string> words) {
    order_ = words;
    command_.emplace(box.command(std::move(words)));
  }

  [[nodiscard]] bool order_ended() const {
    return !command_ || !alive(command_->pid());
  }

  /// What became of it: an answer 0 is true, any other has a reason.
  void answer() {
    if (!command_)
      return;
    const auto result = command_->wait();
    command_.reset();
    INFO("pup " << order_.front() << ": " << result.code << ' ' << result.out
                << result.err);
    said_ += result.err;
    CHECK(result.signal == 0);
    if (result.code != 0) {
      start_failed_ = start_failed_ || order_.front() == "start";
      CHECK(result.err != "");
      may_have_happened();
      return;
    }
    may_have_happened();
    if (order_.front() == "terminate") {
      CHECK(list(left()) == "");
      CHECK(box.pups().empty());
    } else if (order_.front() == "stop" && !guardian_lost_) {
      may_run_.erase(order_[1]);
    } else if (order_.front() == "scale") {
      sizes_ = {std::stoi(order_[2])};
    } else if (order_.front() == "apply") {
      sizes_ = {usual_web + 1};
      extra_ = {true};
    }
  }

  // -- afterwards -------------------------------------------------------------

  /// Waits until the world is in one of the three ends; which one.
  end settle() {
    resume();
    for (const auto& x : lost_)  // their sockets and locks with them
      REQUIRE((start_ticks(x.pid) != x.started || wait_for_end(x.pid)));
    answer();
    std::string fault;
    auto result = end::goes_on;
    const auto settled = wait_until([&] {
      if (box.pups().empty()) {
        result = left().empty() ? end::stopped : end::unwatched;
        return true;
      }
      fault = census();
      return fault.empty();
    });
    INFO(fault << '\n' << log());
    REQUIRE(settled);
    return result;
  }

  /// What such an end must be like, and that it can be gone on from.
  void judge(end how) {
    INFO(log());
    switch (how) {
      case end::goes_on:
        return judge_going_on();
      case end::stopped:
        return judge_stopped();
      default:
        return judge_unwatched();
    }
  }

  void judge_going_on() {
    if (usual_descriptors_)
      back_to_usual();
    terminate();
  }

  void judge_stopped() {
    const auto asked = !order_.empty() && order_.front() == "terminate";
    CHECK((guardian_lost_ || asked || start_failed_));
    if (guardian_lost_ && !asked && !start_failed_)
      CHECK((said_ + log()).find("was killed; stopping everything")
            != std::string::npos);
    CHECK(ports_are_free());
    if (!perhaps())
      return;
    expect_a_new_start();
    start();
    terminate();
  }

  void judge_unwatched() {
    CHECK((guardian_lost_ && supervisor_lost_));
    const auto all = left_at_rest();
    if (all.empty())  // what was under way has come to its end
      return;
    const auto number = std::to_string(all.size())
                        + (all.size() == 1 ? " process" : " processes");
    const std::vector<std::vector<std::string>> commands{
        {"status"},
        {"stop", "all"},
        {"why", "calm"},
        {"logs"},
        {"upgrade"},
        {"scale", "web", "2"},
        {"restart", "web"},
        {"reload", "web"},
        {"apply", "second.json"},
        {"signal", "calm", "HUP"}};
    for (int i = 0; i < 3; ++i) {
      const auto& words =
          commands[below(static_cast<unsigned>(commands.size()))];
      const auto answer = box.pup(words);
      INFO(words.front() << ": " << answer.code << ' ' << answer.err
                         << list(all));
      // The logs are read without a supervisor.
      CHECK((answer.code == 3 || words.front() == "logs"));
      CHECK(answer.err.find(number) != std::string::npos);
      CHECK(left() == all);
    }
    if (perhaps()) {
      const auto ended = box.pup({"terminate"});
      INFO(ended.err);
      CHECK(ended.code == 0);
      CHECK(ended.err.find(number) != std::string::npos);
      CHECK(list(left()) == "");
      CHECK(ports_are_free());
      CHECK(box.pup({"status"}).code == 3);
      return;
    }
    const auto started = box.pup({"start", "config.json"});
    INFO(started.err);
    CHECK(started.err.find(number) != std::string::npos);
    REQUIRE(started.code == 0);
    expect_a_new_start();
    has_come_up();
    for (const auto pid : all)
      CHECK_FALSE(alive(pid));
    terminate();
  }

  /// The first fault that is found; empty: what is wanted runs, once, serves,
  /// and nothing else is there.
  std::string census() {
    const auto answer = box.pup({"status", "--json"});
    if (answer.code != 0)
      return "status: " + answer.err;
    const auto status = parse_json(answer.out).as_object();
    const auto supervisors = box.supervisors();
    const auto guardians = box.guardians();
    if (supervisors.size() != 1 || guardians.size() != 1)
      return std::to_string(supervisors.size()) + " supervisors, "
             + std::to_string(guardians.size()) + " guardians";
    if (supervisors.count(status.at("pid").to_number<pid_t>()) == 0)
      return "the status is another supervisor's";
    std::set<pid_t> wanted;
    bool has_extra = false;
    for (const auto& x : status.at("processes").as_array()) {
      if (auto fault = fault_of_unit(x.as_object(), wanted); !fault.empty())
        return fault + ": " + answer.out;
      has_extra = has_extra || text_of(x.at("id")) == "extra";
    }
    if (extra_.count(has_extra) == 0)
      return has_extra ? "extra is there" : "extra is not there";
    for (const auto pid : left())
      if (wanted.count(pid) == 0)
        return "stray: " + list({pid}) + " of " + variable_of(pid, "PUP_ID=")
               + ": " + answer.out;
    for (const auto parent : {*supervisors.begin(), *guardians.begin()})
      for (const auto pid : children_of(parent))
        if (const auto now = stat_of(pid); now && !now->lives())
          return "zombie: pid " + std::to_string(pid);
    return {};
  }

  sandbox box;

private:
  static constexpr int usual_web = 3;

  static std::string text_of(const boost::json::value& x) {
    return std::string{x.as_string().data(), x.as_string().size()};
  }

  std::vector<std::string> processes(int web_instances,
                                     const std::string& version) const {
    const auto sleeper = [&](const std::string& id) {
      return R"({"id": ")" + id + R"(", "cmd": ["sleep", ")" + token_ + "\"]";
    };
    return {
        web(ports_, web_instances),
        R"({"id": "inherit", "cmd": [")" PUP_HTTP_SERVER
        R"("], "cluster": {"instances": 2, "mode": "inherit", "commonPort": )"
            + std::to_string(ports_[8]) + R"(, "startPort": )"
            + std::to_string(ports_[9]) + "}}",
        sleeper("many") + R"(, "cluster": {"instances": 3}, "env": {"V": ")"
            + version + "\"}}",
        R"({"id": "slow", "cmd": "trap 'sleep 0.2; exit 0' TERM; sleep )"
            + token_ + R"( & wait"})",
        // In the group, in another session, and without a mark.
        R"({"id": "family", "cmd": "sleep )" + token_ + " & setsid sleep "
            + token_ + " & env -i setsid sleep " + token_ + R"( & wait"})",
        sleeper("calm") + "}"};
  }

  std::vector<std::string> with_extra(std::vector<std::string> all) const {
    all.push_back(R"({"id": "extra", "cmd": ["sleep", ")" + token_ + "\"]}");
    return all;
  }

  /// Processes that belong to one instance of a unit.
  static std::size_t members(const std::string& unit) {
    return unit == "family" ? 4 : unit == "slow" ? 2 : 1;
  }

  static std::string variable_of(pid_t pid, const std::string& name) {
    std::ifstream file{"/proc/" + std::to_string(pid) + "/environ",
                       std::ios::binary};
    for (std::string x; std::getline(file, x, '\0');)
      if (x.starts_with(name))
        return x.substr(name.size());
    return {};
  }

  static std::string list(const std::set<pid_t>& all) {
    std::string result;
    for (const auto pid : all)
      result += (result.empty() ? "" : ", ") + std::to_string(pid) + " ("
                + command_of(pid) + ')';
    return result;
  }

  /// What of the world runs but supervisors, guardians and commands.
  [[nodiscard]] std::set<pid_t> left() const {
    auto result = box.running();
    for (const auto pid : all_processes())
      if (command_of(pid).ends_with(token_ + ' '))
        result.insert(pid);
    for (const auto pid : box.pups())
      result.erase(pid);
    if (command_)
      result.erase(command_->pid());
    return result;
  }

  void may_have_happened() {
    if (order_.front() == "stop")
      may_rest_.insert(order_[1]);
    if (order_.front() == "scale")
      sizes_.insert(std::stoi(order_[2]));
    if (order_.front() == "apply") {
      sizes_.insert(usual_web + 1);
      extra_.insert(true);
    }
  }

  /// What is left when nothing is on its way out any more: an end under way is
  /// one without a command line, or the pause of "slow".
  [[nodiscard]] std::set<pid_t> left_at_rest() const {
    std::set<pid_t> result;
    const auto rests = [](pid_t pid) {
      const auto text = command_of(pid);
      return !text.empty() && text != "sleep 0.2 ";
    };
    REQUIRE(wait_until([&] {
      const auto before = std::exchange(result, left());
      return result == before
             && std::all_of(result.begin(), result.end(), rests);
    }));
    return result;
  }

  // It goes on where the former one was, as far as that had come.
  void expect_a_new_start() {
    sizes_ = {usual_web, usual_web + 1, 1, 5};
    extra_ = {false};
    may_run_.insert(may_rest_.begin(), may_rest_.end());
  }

  std::string fault_of_unit(const boost::json::object& unit,
                            std::set<pid_t>& wanted) {
    const auto id = text_of(unit.at("id"));
    const auto state = text_of(unit.at("state"));
    if (may_rest_.count(id) != 0 && state == "stopped")
      return {};
    if (may_run_.count(id) == 0)
      return id + " was stopped, and is " + state;
    if (!unit.contains("instances"))
      return fault_of_instance(id, unit, wanted);
    if (state != "running")
      return id + " is " + state;
    const auto& all = unit.at("instances").as_array();
    const auto desired = unit.at("desired").to_number<int>();
    if (id == "web" && sizes_.count(desired) == 0)
      return "web is to have " + std::to_string(desired);
    if (all.size() != static_cast<std::size_t>(desired))
      return id + " has " + std::to_string(all.size()) + " instances";
    for (const auto& x : all)
      if (auto fault = fault_of_instance(id, x.as_object(), wanted);
          !fault.empty())
        return fault;
    return fault_of_port(id);
  }

  std::string fault_of_instance(const std::string& unit,
                                const boost::json::object& x,
                                std::set<pid_t>& wanted) {
    const auto id = text_of(x.at("id"));
    if (const auto state = text_of(x.at("state")); state != "ready")
      return id + " is " + state;
    const auto pid = x.at("pid").to_number<pid_t>();
    if (!alive(pid))
      return id + " is ready, and its pid " + std::to_string(pid) + " is dead";
    if (const auto mark = variable_of(pid, "PUP_ID="); mark != id)
      return id + " is ready as a process of '" + mark + '\'';
    const auto below = descendants_of(pid);
    if (below.size() + 1 != members(unit))
      return id + " has " + std::to_string(below.size()) + " below it";
    wanted.insert(pid);
    wanted.insert(below.begin(), below.end());
    if (!x.contains("port") || x.at("port").is_null() || unit == "inherit")
      return {};
    return fault_of_answer(id, x.at("port").to_number<std::uint16_t>(), id);
  }

  std::string fault_of_port(const std::string& unit) const {
    if (unit == "web")
      return fault_of_answer(unit, ports_[0], "web-");
    if (unit == "inherit")
      return fault_of_answer(unit, ports_[8], "inherit-");
    return {};
  }

  std::string fault_of_answer(const std::string& what, std::uint16_t port,
                              const std::string& expected) const {
    try {
      if (const auto who_answers = who(port);
          !who_answers.starts_with(expected))
        return what + ": " + who_answers + " answers";
      return {};
    } catch (const std::exception& error) {
      return what + ": " + error.what() + sockets_at(port, left());
    }
  }

  [[nodiscard]] bool ports_are_free() const {
    for (std::uint16_t i = 0; i < ports_.size(); ++i)
      if (!port_is_free(ports_[i]))
        return false;
    return true;
  }

  /// Everything can still be changed; then nobody has a descriptor more.
  void back_to_usual() {
    if (sizes_ != std::set<int>{usual_web} || extra_ != std::set<bool>{false}) {
      const auto applied = box.pup({"apply", "config.json"});
      INFO(applied.out << applied.err);
      CHECK(applied.code == 0);
      const auto scaled = box.pup({"scale", "web", std::to_string(usual_web)});
      INFO(scaled.err);
      CHECK(scaled.code == 0);
    }
    for (const auto& id : may_rest_) {
      const auto started = box.pup({"start", id});
      INFO(started.err);
      CHECK(started.code == 0);
    }
    sizes_ = {usual_web};
    extra_ = {false};
    may_run_.insert(may_rest_.begin(), may_rest_.end());
    may_rest_.clear();
    std::string fault;
    const auto same = wait_until(
        [&] {
          fault = census();
          if (fault.empty())
            fault = fault_of_descriptors();
          return fault.empty();
        },
        std::chrono::seconds{20});
    INFO(fault << '\n' << log());
    CHECK(same);
  }

  std::string fault_of_descriptors() const {
    const auto now = descriptors_of(guardian_.pid);
    if (now > usual_descriptors_->first)
      return "the guardian has " + std::to_string(now) + " descriptors, had "
             + std::to_string(usual_descriptors_->first) + ':'
             + targets_of(guardian_.pid);
    const auto of_supervisor = descriptors_of(supervisor().pid);
    if (of_supervisor > usual_descriptors_->second)
      return "the supervisor has " + std::to_string(of_supervisor)
             + " descriptors, had "
             + std::to_string(usual_descriptors_->second);
    return {};
  }

  void terminate() {
    const auto ended = box.pup({"terminate"});
    INFO(ended.err);
    CHECK(ended.code == 0);
    CHECK(list(left()) == "");
    CHECK(list(box.pups()) == "");
    CHECK(ports_are_free());
  }

  [[nodiscard]] std::string log() const {
    return box.read("state/pup/pup.log");
  }

  std::mt19937 random_;
  port_range ports_{16};
  std::string token_;
  victim guardian_;
  std::vector<victim> stopped_;
  std::vector<victim> lost_;
  std::optional<process> command_;
  std::vector<std::string> order_;
  std::string said_;
  bool start_failed_ = false;
  bool guardian_lost_ = false;
  bool supervisor_lost_ = false;
  /// Guardian and supervisor, at rest.
  std::optional<std::pair<std::size_t, std::size_t>> usual_descriptors_;
  // What may be so, as the command was cut off.
  std::set<int> sizes_{usual_web};
  std::set<bool> extra_{false};
  std::set<std::string> may_rest_;
  std::set<std::string> may_run_{"web",    "inherit", "many", "slow",
                                 "family", "calm",    "extra"};
};

inline const char* name_of(chaos_world::end how) {
  switch (how) {
    case chaos_world::end::goes_on:
      return "goes on";
    case chaos_world::end::stopped:
      return "stopped";
    default:
      return "unwatched";
  }
}

}  // namespace pup::test
