// pup inside another CAF application: its own actor_system, its own actors, and
// a cluster that it scales by a typed message.
//
//   embed SERVER_PROGRAM COMMON_PORT START_PORT

#include "pup/runtime/host.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <future>

namespace {

pup::pup_spec cluster_of(const char* program, std::uint16_t common_port,
                         std::uint16_t start_port) {
  pup::cluster_spec cluster;
  cluster.instances = 2;
  cluster.common_port = common_port;
  cluster.start_port = start_port;
  cluster.strategy = pup::balance_strategy::least_connections;
  pup::process_spec process;
  process.id = "embedded";
  process.argv = {program};
  process.ready = pup::ready_condition::port;
  process.cluster = cluster;
  pup::pup_spec spec;
  spec.name = "embedding";
  spec.processes.push_back(process);
  return spec;
}

// An actor of the application's own that drives the cluster: waits until it is
// up, scales it to four, prints what it got, and tells the main thread.
caf::behavior driver(caf::event_based_actor* self, pup::control_actor control,
                     std::promise<int>* done) {
  const auto fail = [self, done](const caf::error& why) {
    std::printf("failed: %s\n", pup::text_of(why).c_str());
    done->set_value(1);
    self->quit();
  };
  self->request(control, std::chrono::seconds(30),
                pup::operate{pup::verb::await, "all", true})
      .then(
          [=](const pup::report& started) {
            std::printf("%zu outcomes at start\n", started.outcomes.size());
            pup::scale more{"embedded", pup::scale_mode::to, 4, true};
            self->request(control, std::chrono::seconds(30), more)
                .then(
                    [=](const pup::scale_report& scaled) {
                      std::printf("scaled %u -> %u\n", scaled.from, scaled.to);
                      self->request(control, std::chrono::seconds(5),
                                    pup::get_status{"embedded"})
                          .then(
                              [=](const pup::supervisor_status& status) {
                                const auto& unit = status.units.front();
                                std::printf(
                                    "%s is %s with %u ready\n", unit.id.c_str(),
                                    to_string(unit.state).c_str(), unit.ready);
                                done->set_value(unit.ready == 4 ? 0 : 1);
                                self->quit();
                              },
                              fail);
                    },
                    fail);
          },
          fail);
  return {[](int) {}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr,
                 "usage: embed SERVER_PROGRAM COMMON_PORT START_PORT\n");
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  const auto port = [](const char* text) {
    return static_cast<std::uint16_t>(std::strtoul(text, nullptr, 10));
  };

  caf::actor_system_config cfg;
  cfg.set("scheduler.policy", caf::atom("sharing"));
  pup::add_message_types(cfg);
  caf::actor_system sys{cfg};

  pup::host host{sys, cluster_of(argv[1], port(argv[2]), port(argv[3])), {}};
  std::promise<int> done;
  sys.spawn(driver, host.control(), &done);
  const auto result = done.get_future().get();
  host.stop();
  std::printf("stopped\n");
  return result;
}
