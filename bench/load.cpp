// The load generator. Prints one JSON object; its failures are exact.
//
//   bench_load closed --ports P[,P…] --connections N --requests N
//                     [--per-connection N]
//       N connections, each asks again as soon as it is answered
//   bench_load open   --ports P[,P…] --rate N --seconds S [--connections N]
//                     [--per-connection N]
//       N requests a second, whether or not the former ones are answered:
//       latencies count from when a request should have been sent
//   bench_load hold   --ports P[,P…] --connections N
//       N connections with one answer each, kept until standard input ends
//   bench_load who    --ports P[,P…] --sources N
//       one connection from each of 127.0.0.1 and the next N - 1 addresses;
//       who answered which
//
// --per-connection 1 is a new connection for each request, 0 (the default)
// never closes. Also: --path /bytes/N, --method PUT --upload N, --timeout MS.
#include "pup/bench/client.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <map>
#include <string>
#include <system_error>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace {

using namespace std::chrono_literals;
using namespace pup::bench;

/// Failures told one by one; all are counted.
constexpr std::size_t most_told_failures = 2000;
/// Connections of `hold` and `who` that are being made at once.
constexpr std::size_t at_once = 64;
/// What a human or a time-out would notice.
constexpr auto slow = 200ms;

struct options {
  std::string mode;
  std::vector<std::uint16_t> ports;
  std::size_t connections = 1;
  std::uint64_t requests = 1;
  std::uint64_t per_connection = 0;
  std::uint64_t rate = 1000;
  double seconds = 1;
  std::size_t sources = 0;
  std::chrono::milliseconds timeout{5'000};
  request_shape shape;
};

[[noreturn]] void usage(const std::string& fault) {
  std::cerr << "bench_load: " << fault << "; see the top of bench/load.cpp\n";
  std::exit(2);
}

template <class T>
T number(const std::string& key, std::string_view text) {
  T value{};
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size())
    usage(key + ": '" + std::string{text} + "' is not a number in range");
  return value;
}

options parse(int argc, char** argv) {
  options x;
  if (argc < 2)
    usage("no mode");
  x.mode = argv[1];
  for (int i = 2; i < argc; i += 2) {
    const std::string key = argv[i];
    if (i + 1 == argc)
      usage(key + " has no value");
    const std::string value = argv[i + 1];
    if (key == "--ports") {
      for (std::size_t at = 0; at <= value.size();) {
        const auto end = std::min(value.find(',', at), value.size());
        x.ports.push_back(
            number<std::uint16_t>(key, value.substr(at, end - at)));
        at = end + 1;
      }
    } else if (key == "--connections") {
      x.connections = number<std::size_t>(key, value);
    } else if (key == "--requests") {
      x.requests = number<std::uint64_t>(key, value);
    } else if (key == "--per-connection") {
      x.per_connection = number<std::uint64_t>(key, value);
    } else if (key == "--rate") {
      x.rate = number<std::uint64_t>(key, value);
    } else if (key == "--seconds") {
      x.seconds = number<double>(key, value);
    } else if (key == "--sources") {
      x.sources = number<std::size_t>(key, value);
    } else if (key == "--timeout") {
      x.timeout = std::chrono::milliseconds(number<long>(key, value));
    } else if (key == "--path") {
      x.shape.path = value;
    } else if (key == "--method") {
      x.shape.method = value;
    } else if (key == "--upload") {
      x.shape.body_bytes = number<std::uint64_t>(key, value);
    } else {
      usage("unknown option " + key);
    }
  }
  if (x.ports.empty())
    usage("--ports is missing");
  return x;
}

double seconds_of(const timeval& x) {
  return static_cast<double>(x.tv_sec) + static_cast<double>(x.tv_usec) / 1e6;
}

long long nanoseconds(clock::time_point x) {
  return std::chrono::nanoseconds(x.time_since_epoch()).count();
}

/// What is told at the end.
struct tally {
  struct lost {
    failure why;
    std::uint32_t answers;
    clock::time_point opened;
    clock::time_point due;
    clock::time_point at;
  };

  clock::time_point began = clock::now();
  std::uint64_t answered = 0;
  std::uint64_t failed[failures] = {};
  /// Failed requests that were not the first of their connection.
  std::uint64_t cut = 0;
  /// Kept connections that the other side closed between two requests.
  std::uint64_t closed_idle = 0;
  std::vector<lost> told;
  std::vector<float> microseconds;

  void answer(const connection& c) {
    ++answered;
    microseconds.push_back(
        std::chrono::duration<float, std::micro>(clock::now() - c.due).count());
  }

  void fail(const connection& c, failure why) {
    // After its answer nothing can be lost, only unclean.
    if (c.at == connection::state::ending)
      return;
    ++failed[static_cast<std::size_t>(why)];
    cut += c.answers > 0 ? 1 : 0;
    if (told.size() < most_told_failures)
      told.push_back({why, c.answers, c.opened, c.due, clock::now()});
  }

  [[nodiscard]] std::uint64_t lost_ones() const {
    std::uint64_t sum = 0;
    for (const auto x : failed)
      sum += x;
    return sum;
  }

  [[nodiscard]] std::uint64_t done() const {
    return answered + lost_ones();
  }

  void print(const client& from) {
    const auto ended = clock::now();
    rusage used{};
    (void)::getrusage(RUSAGE_SELF, &used);
    std::printf(
        "{\"answered\": %llu, \"lost\": %llu, \"cut\": %llu, "
        "\"closed_idle\": %llu, \"connections\": %llu, \"bytes\": %llu, "
        "\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"began_ns\": %lld, ",
        static_cast<unsigned long long>(answered),
        static_cast<unsigned long long>(lost_ones()),
        static_cast<unsigned long long>(cut),
        static_cast<unsigned long long>(closed_idle),
        static_cast<unsigned long long>(from.opened()),
        static_cast<unsigned long long>(from.bytes()),
        std::chrono::duration<double>(ended - began).count(),
        seconds_of(used.ru_utime) + seconds_of(used.ru_stime),
        nanoseconds(began));
    print_latencies();
    const char* comma = "";
    std::printf("\"failed\": {");
    for (std::size_t i = 0; i < failures; ++i)
      if (failed[i] > 0) {
        std::printf("%s\"%s\": %llu", comma, to_string(static_cast<failure>(i)),
                    static_cast<unsigned long long>(failed[i]));
        comma = ", ";
      }
    comma = "";
    std::printf("}, \"failures\": [");
    for (const auto& x : told) {
      std::printf("%s[\"%s\", %u, %lld, %lld, %lld]", comma, to_string(x.why),
                  x.answers, nanoseconds(x.opened), nanoseconds(x.due),
                  nanoseconds(x.at));
      comma = ", ";
    }
    std::printf("]}\n");
  }

private:
  void print_latencies() {
    auto& all = microseconds;
    std::sort(all.begin(), all.end());
    const auto at = [&](double share) {
      return all.empty() ? 0.0
                         : static_cast<double>(all[static_cast<std::size_t>(
                             share * static_cast<double>(all.size() - 1))]);
    };
    const auto first_slow = std::upper_bound(
        all.begin(), all.end(),
        std::chrono::duration<float, std::micro>(slow).count());
    std::printf(
        "\"latency_us\": {\"p50\": %.2f, \"p90\": %.2f, \"p99\": %.2f, "
        "\"p999\": %.2f, \"max\": %.2f}, \"slow\": %td, ",
        at(0.5), at(0.9), at(0.99), at(0.999), at(1), all.end() - first_slow);
  }
};

void run_closed(const options& x) {
  tally result;
  std::uint64_t begun = 0;
  std::size_t busy = 0;  // connections that ask
  client* it = nullptr;
  const auto is_last = [&](const connection* c) {
    const auto answers = c != nullptr ? c->answers : 0;
    return x.per_connection > 0 && answers + 1 >= x.per_connection;
  };
  client clients{x.shape,
                 x.ports,
                 x.sources,
                 x.timeout,
                 {.answered =
                      [&](connection& c, std::string_view) {
                        result.answer(c);
                        if (!c.last && begun < x.requests) {
                          ++begun;
                          it->ask(c, clock::now(), is_last(&c));
                        } else if (!c.last) {
                          --busy;
                        }
                      },
                  .failed =
                      [&](connection& c, failure why) {
                        result.fail(c, why);
                        --busy;
                      },
                  // A closing connection keeps its place until it has ended, so
                  // that no more than --connections exist.
                  .ended =
                      [&](connection& c) {
                        if (c.at == connection::state::ending)
                          --busy;
                        else
                          ++result.closed_idle;
                      }}};
  it = &clients;
  while (result.done() < x.requests || (x.per_connection > 0 && busy > 0)) {
    while (busy < x.connections && begun < x.requests) {
      ++begun;
      ++busy;
      clients.open_and_ask(clock::now(), is_last(nullptr));
    }
    clients.poll(std::nullopt);
  }
  result.print(clients);
}

void run_open(const options& x) {
  tally result;
  std::vector<connection*> idle;
  std::deque<clock::time_point> late;  // due, but no connection is free
  client* it = nullptr;
  const auto is_last = [&](std::uint64_t answers) {
    return x.per_connection > 0 && answers + 1 >= x.per_connection;
  };
  client clients{
      x.shape,
      x.ports,
      x.sources,
      x.timeout,
      {.answered =
           [&](connection& c, std::string_view) {
             result.answer(c);
             if (c.last)
               return;
             if (late.empty()) {
               idle.push_back(&c);
               return;
             }
             const auto due = late.front();
             late.pop_front();
             it->ask(c, due, is_last(c.answers));
           },
       .failed = [&](connection& c, failure why) { result.fail(c, why); },
       .ended =
           [&](connection& c) {
             if (c.at == connection::state::ending)
               return;
             ++result.closed_idle;
             std::erase(idle, &c);
           }}};
  it = &clients;
  const auto total =
      static_cast<std::uint64_t>(static_cast<double>(x.rate) * x.seconds);
  const auto due_at = [&](std::uint64_t n) {
    return result.began + std::chrono::nanoseconds(n * 1'000'000'000 / x.rate);
  };
  const auto send = [&](clock::time_point due) {
    if (!idle.empty()) {
      auto* c = idle.back();
      idle.pop_back();
      clients.ask(*c, due, is_last(c->answers));
    } else if (x.per_connection == 1 || clients.connections() < x.connections) {
      clients.open_and_ask(due, is_last(0));
    } else {
      late.push_back(due);
    }
  };
  result.microseconds.reserve(total);
  result.began = clock::now();
  std::uint64_t begun = 0;
  while (result.done() < total) {
    while (begun < total && due_at(begun) <= clock::now())
      send(due_at(begun++));
    // Places that failures have left.
    while (!late.empty() && clients.connections() < x.connections) {
      clients.open_and_ask(late.front(), is_last(0));
      late.pop_front();
    }
    clients.poll(begun < total ? std::optional(due_at(begun)) : std::nullopt);
  }
  result.print(clients);
}

/// One answer on each of `wanted` connections, a bounded number at a time.
/// Returns how many answered.
std::size_t ask_once(const options& x, std::size_t wanted, bool keep,
                     const std::function<void(client&, tally&)>& then,
                     std::vector<std::string>* names) {
  tally result;
  std::size_t begun = 0;
  client clients{
      x.shape,
      x.ports,
      x.sources,
      x.timeout,
      {.answered =
           [&](connection& c, std::string_view body) {
             result.answer(c);
             if (names != nullptr)
               (*names)[c.source] = body.substr(0, body.find('\n'));
           },
       .failed = [&](connection& c, failure why) { result.fail(c, why); },
       .ended =
           [&](connection& c) {
             if (c.at == connection::state::idle)
               ++result.closed_idle;
           }}};
  while (result.done() < wanted || (!keep && clients.connections() > 0)) {
    while (begun < wanted && begun < result.done() + at_once) {
      ++begun;
      clients.open_and_ask(clock::now(), !keep);
    }
    clients.poll(std::nullopt);
  }
  then(clients, result);
  return result.answered;
}

void run_hold(const options& x) {
  ask_once(
      x, x.connections, true,
      [](client& clients, tally& result) {
        result.print(clients);
        std::fflush(stdout);
        char byte = 0;
        while (::read(STDIN_FILENO, &byte, 1) > 0) {}
      },
      nullptr);
}

void run_who(const options& x) {
  if (x.sources == 0)
    usage("--sources is missing");
  std::vector<std::string> names(x.sources);
  ask_once(
      x, x.sources, false, [](client&, tally&) {}, &names);
  std::printf("{\"who\": [");
  const char* comma = "";
  for (const auto& name : names) {
    std::printf("%s\"%s\"", comma, name.c_str());
    comma = ", ";
  }
  std::printf("]}\n");
}

}  // namespace

int main(int argc, char** argv) {
  const auto x = parse(argc, argv);
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  // Requests leave when they are due, not up to 50 us later.
  (void)::prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  const std::map<std::string, void (*)(const options&)> modes{
      {"closed", run_closed},
      {"open", run_open},
      {"hold", run_hold},
      {"who", run_who}};
  const auto mode = modes.find(x.mode);
  if (mode == modes.end())
    usage("unknown mode " + x.mode);
  try {
    mode->second(x);
  } catch (const std::system_error& error) {
    std::cerr << "bench_load: " << error.what() << '\n';
    return 1;
  }
}
