#include "pup/actors/history.hpp"

#include <algorithm>
#include <utility>

namespace pup {

void history::add(moment now, event_kind what, std::string text) {
  entries_.push_back({std::chrono::duration_cast<std::chrono::milliseconds>(
                          now.time_since_epoch())
                          .count(),
                      what, std::move(text)});
  if (entries_.size() <= most_entries)
    return;
  if (entries_.front().what == event_kind::asked)
    origin_ = std::move(entries_.front());
  entries_.pop_front();
}

std::vector<history_entry> history::entries() const {
  std::vector<history_entry> result;
  if (origin_)
    result.push_back(*origin_);
  result.insert(result.end(), entries_.begin(), entries_.end());
  return result;
}

namespace {

next_step next_of_resting(const process_spec& spec, const slot& x,
                          std::optional<duration> cron_in) {
  const auto id = slot_id(spec, x.number);
  if (x.rest == run_state::blocked || x.blocked)
    return {"nothing starts it until pup unblock " + id, {}};
  const auto by_watch =
      !spec.watch.empty() && (x.wanted || x.rest == run_state::waiting);
  if (cron_in)
    return {"starts by cron \"" + spec.cron + '"'
                + (by_watch ? ", or when a file it watches changes" : ""),
            cron_in};
  if (by_watch)
    return {"starts when a file it watches changes", {}};
  return {"nothing starts it until pup start " + id, {}};
}

std::string when_ended(const process_spec& spec) {
  switch (spec.restart) {
    case restart_policy::always:
      return "starts again when it ends";
    case restart_policy::on_error:
      return "starts again when it fails";
    case restart_policy::never:
      break;
  }
  return "stays ended when it ends";
}

}  // namespace

next_step next_of(const process_spec& spec, const slot& x, time_point now,
                  std::optional<duration> cron_in) {
  switch (x.now) {
    case slot_phase::resting:
      return next_of_resting(spec, x, cron_in);
    case slot_phase::backoff:
      return {"starts again", std::max(x.due - now, duration::zero())};
    case slot_phase::waiting:
      return {x.delay.empty() ? "starts" : "starts when that has ended", {}};
    case slot_phase::starting:
      return {"counts as failed unless it is ready",
              std::max(std::chrono::duration_cast<duration>(
                           x.started + spec.ready_timeout - now),
                       duration::zero())};
    case slot_phase::ready:
      return {rule_name(spec) + ": " + when_ended(spec), {}};
    case slot_phase::expiring:
      return {"SIGKILL to what it has left",
              std::max(std::chrono::duration_cast<duration>(
                           x.leader_ended + spec.terminate_timeout - now),
                       duration::zero())};
    case slot_phase::draining:
    case slot_phase::stopping:
      return {x.wanted && !x.blocked ? "starts again when it has ended"
                                     : "stays stopped when it has ended",
              {}};
  }
  return {};
}

std::string rule_name(const process_spec& spec) {
  switch (spec.restart) {
    case restart_policy::always:
      return "restart always";
    case restart_policy::on_error:
      return "restart error";
    case restart_policy::never:
      return "restart never";
  }
  return "?";
}

}  // namespace pup
