// Control: what a command line or an embedding program asks for. All of it
// crosses the IPC boundary.
#pragma once

#include "pup/actors/caf.hpp"
#include "pup/actors/protocol_status.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace pup {

/// Asks for the status of one unit or of all (`id` empty).
struct get_status {
  std::string id;
};

/// How `scale` means its number.
enum class scale_mode : std::uint8_t { to, up_by, down_by };

/// Changes the number of instances of a cluster.
struct scale {
  std::string id;
  scale_mode mode = scale_mode::to;
  std::uint32_t count = 0;
  bool wait = true;  ///< answer when done; false: when begun
  /// Who asks, in words, for get_history: "alice, pid 4711". As it says itself;
  /// who may ask at all is decided elsewhere.
  std::string caller{};
};

/// Answer to scale. `to` is what is wanted now: it differs from the request
/// when a later one overtook it.
struct scale_report {
  std::string id;
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::vector<outcome> outcomes;
};

enum class verb : std::uint8_t {
  start,    ///< what is stopped, finished, failed or exhausted
  stop,     ///< drain, stop signal, SIGKILL
  restart,  ///< stop, then start
  await,    ///< changes nothing; answers once everything came up or failed
  block,    ///< what runs goes on; nobody and nothing starts it again
  unblock,  ///< what should run by now is started
  reload,   ///< replace what runs, without a failed request (rollout.hpp)
};

/// Carries out a verb on all that `selector` names: an id of a process, cluster
/// or instance, a glob with * and ?, or "all".
struct operate {
  verb what = verb::await;
  std::string selector;
  bool wait = true;
  std::string caller{};  ///< as in scale
};

/// Answer to operate: one outcome for each instance concerned.
struct report {
  std::vector<outcome> outcomes;
};

/// Sends a signal to the process groups of all that `selector` names and that
/// runs. Answered with report.
struct signal_units {
  std::string selector;
  std::int32_t signal = 0;
  std::string caller{};  ///< as in scale
};

/// Asks why all that `selector` names is as it is.
struct get_history {
  std::string selector;
};
struct history_report {
  std::vector<instance_history> instances;
};

/// Makes what runs match the text of a configuration. Its text travels rather
/// than its values: it is read where it is to run, with the variables, programs
/// and folders that are there.
struct apply {
  std::string text;
  std::string file;    ///< named in diagnostics
  std::string folder;  ///< absolute; where its relative paths start
  bool dry_run = false;
  bool wait = true;
  std::string caller{};
};

/// Answer to apply: either `faults` or what was, or would be, done.
struct apply_report {
  std::vector<std::string> faults;  ///< of the text; nothing has changed
  std::vector<std::string> plan;    ///< a line for each change; empty: none
  std::vector<outcome> outcomes;
};

/// Stops everything in reverse order and ends the supervisor. Answered at once
/// with the pid whose end is the end of the work.
struct terminate {};
struct terminating {
  std::int32_t pid = 0;
};

using control_actor =
    caf::typed_actor<caf::replies_to<get_status>::with<supervisor_status>,
                     caf::replies_to<scale>::with<scale_report>,
                     caf::replies_to<operate>::with<report>,
                     caf::replies_to<signal_units>::with<report>,
                     caf::replies_to<apply>::with<apply_report>,
                     caf::replies_to<get_history>::with<history_report>,
                     caf::replies_to<terminate>::with<terminating>>;

// -- inspection ---------------------------------------------------------------

template <class Inspector>
auto inspect(Inspector& f, get_status& x) {
  return f(caf::meta::type_name("get_status"), x.id);
}

template <class Inspector>
auto inspect(Inspector& f, scale& x) {
  return f(caf::meta::type_name("scale"), x.id, x.mode, x.count, x.wait,
           x.caller);
}

template <class Inspector>
auto inspect(Inspector& f, scale_report& x) {
  return f(caf::meta::type_name("scale_report"), x.id, x.from, x.to,
           x.outcomes);
}

template <class Inspector>
auto inspect(Inspector& f, operate& x) {
  return f(caf::meta::type_name("operate"), x.what, x.selector, x.wait,
           x.caller);
}

template <class Inspector>
auto inspect(Inspector& f, signal_units& x) {
  return f(caf::meta::type_name("signal_units"), x.selector, x.signal,
           x.caller);
}

template <class Inspector>
auto inspect(Inspector& f, get_history& x) {
  return f(caf::meta::type_name("get_history"), x.selector);
}

template <class Inspector>
auto inspect(Inspector& f, history_report& x) {
  return f(caf::meta::type_name("history_report"), x.instances);
}

template <class Inspector>
auto inspect(Inspector& f, apply& x) {
  return f(caf::meta::type_name("apply"), x.text, x.file, x.folder, x.dry_run,
           x.wait, x.caller);
}

template <class Inspector>
auto inspect(Inspector& f, apply_report& x) {
  return f(caf::meta::type_name("apply_report"), x.faults, x.plan, x.outcomes);
}

template <class Inspector>
auto inspect(Inspector& f, report& x) {
  return f(caf::meta::type_name("report"), x.outcomes);
}

template <class Inspector>
auto inspect(Inspector& f, terminate&) {
  return f(caf::meta::type_name("terminate"));
}

template <class Inspector>
auto inspect(Inspector& f, terminating& x) {
  return f(caf::meta::type_name("terminating"), x.pid);
}

}  // namespace pup
