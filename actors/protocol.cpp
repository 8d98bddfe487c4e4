#include "pup/actors/protocol.hpp"

#include <array>

namespace pup {

bool is(const caf::error& reason, fault code) {
  return reason && reason.category() == caf::atom("pup")
         && reason.code() == static_cast<std::uint8_t>(code);
}

std::string text_of(const caf::error& reason) {
  if (!reason)
    return "no error";
  if (is(reason, fault::process_ended))
    return to_string(ending_of(reason));
  if (reason.category() == caf::atom("pup")
      && reason.context().match_elements<std::string>())
    return reason.context().get_as<std::string>(0);
  return caf::to_string(reason);
}

std::string to_string(run_state x) {
  static constexpr std::array names{
      "stopped",  "waiting",  "starting", "ready",  "backoff",
      "draining", "stopping", "finished", "failed", "exhausted",
      "blocked",  "running",  "degraded"};
  return names.at(static_cast<std::size_t>(x));
}

namespace {

// Of the leader.
std::string words_of(const ending& x) {
  const auto with_text = [&](std::string what) {
    return x.text.empty() ? what : what + " (" + x.text + ')';
  };
  switch (x.what) {
    case ending::kind::exited:
      return with_text("exited with code " + std::to_string(x.code));
    case ending::kind::signalled: {
      const auto* abbreviation = sigabbrev_np(x.signal);
      return with_text(abbreviation != nullptr
                           ? "killed by SIG" + std::string{abbreviation}
                           : "killed by signal " + std::to_string(x.signal));
    }
    case ending::kind::not_launched:
      return x.text;
    case ending::kind::not_ready:
      return with_text("was not ready in time");
    case ending::kind::unhealthy:
      return x.text;
    case ending::kind::lost:
      return with_text("its actor failed");
  }
  return "?";
}

}  // namespace

std::string to_string(const ending& x) {
  return words_of(x) + (x.rest.empty() ? "" : "; " + x.rest);
}

std::string to_string(event_kind x) {
  switch (x) {
    case event_kind::asked:
      return "asked";
    case event_kind::started:
      return "started";
    case event_kind::ready:
      return "ready";
    case event_kind::said:
      return "said";
    case event_kind::ended:
      return "ended";
    case event_kind::decided:
      return "decided";
  }
  return "?";
}

caf::error make_error(const ending& x) {
  return {static_cast<std::uint8_t>(fault::process_ended), caf::atom("pup"),
          caf::make_message(x)};
}

ending ending_of(const caf::error& reason) {
  if (is(reason, fault::process_ended)
      && reason.context().match_elements<ending>())
    return reason.context().get_as<ending>(0);
  ending lost;
  if (reason)
    lost.text = text_of(reason);
  return lost;
}

void add_message_types(caf::actor_system_config& cfg) {
  cfg.add_message_type<get_status>("pup.get_status");
  cfg.add_message_type<supervisor_status>("pup.supervisor_status");
  cfg.add_message_type<scale>("pup.scale");
  cfg.add_message_type<scale_report>("pup.scale_report");
  cfg.add_message_type<operate>("pup.operate");
  cfg.add_message_type<signal_units>("pup.signal_units");
  cfg.add_message_type<report>("pup.report");
  cfg.add_message_type<apply>("pup.apply");
  cfg.add_message_type<apply_report>("pup.apply_report");
  cfg.add_message_type<get_history>("pup.get_history");
  cfg.add_message_type<history_report>("pup.history_report");
  cfg.add_message_type<terminate>("pup.terminate");
  cfg.add_message_type<terminating>("pup.terminating");
  cfg.add_message_type<ending>("pup.ending");
  cfg.add_error_category(caf::atom("pup"), [](std::uint8_t, caf::atom_value,
                                              const caf::message& context) {
    return context.match_elements<std::string>()
               ? context.get_as<std::string>(0)
               : caf::to_string(context);
  });
}

}  // namespace pup
