// What happens to a group of units when a member ends? The pure half of groups.
//
// A member tells of its end when it was not asked for; `supervision` decides by
// the group's strategy and intensity, and the group carries the decision out in
// rounds, one step for each report that comes in:
//
//   stopping   the members concerned, in reverse order, one after the other
//   starting   in order: the next one when the one before is ready, or has come
//              to an end of its way
//
// What counts as an end: each end of a single process that its own restart rule
// answers with a restart; of a cluster that all its instances have given up, as
// the end of one is the cluster's own affair. A process beyond its own
// restartLimit rests alone. What a person has stopped or blocked, what gave up,
// and what waits for the clock is left as it is by a restart of the group.
//
// A group ends when it gives up (its members are then exhausted) or when
// autoShutdown says so. It begins anew when somebody starts a member.
//
// No messages; time and randomness are arguments.
#pragma once

#include "pup/actors/protocol.hpp"
#include "pup/actors/supervision.hpp"

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace pup {

/// How a group sees a member.
struct member_view {
  const unit_report* last = nullptr;  ///< null: its report is on the way
  bool coming = true;                 ///< on its way to be ready
};

class group {
public:
  using see_function = std::function<member_view(const std::string& unit)>;
  using order = std::pair<std::string, steer>;

  /// Members are the processes of `spec` that name the group, in start order.
  group(const pup_spec& spec, const std::string& name);

  /// A member has ended by itself. step() follows.
  void ended(const unit_ended& event, const see_function& see, time_point now,
             double random);

  /// The actor of a member has failed; its next one knows of no order.
  void lost(const std::string& unit);

  /// Goes on with what is under way, as far as reports allow. `last_number`
  /// counts the orders of all groups.
  std::vector<order> step(const see_function& see, time_point now,
                          std::uint64_t& last_number);

  /// Why a member may not launch now; empty: it may.
  std::string holds(const std::string& unit) const;

  /// When to call step() even if nobody reports.
  std::optional<time_point> due() const;

  /// Set once autoShutdown has ended the group: how the member ended that was
  /// the reason.
  const std::optional<ending>& over() const {
    return over_;
  }

  /// Whether both would act alike if nothing had happened yet.
  bool same_as(const group& x) const;

  /// Whether members are being stopped or started.
  bool under_way() const {
    return round_.has_value();
  }

  bool has(const std::string& unit) const {
    return find(unit) != nullptr;
  }

  /// In start order.
  const std::vector<std::string>& members() const {
    return ids_;
  }

private:
  struct member {
    std::string id;
    restart_type type = restart_type::permanent;
    bool significant = false;
    bool is_cluster = false;
    backoff_rule delays;
    time_point gave_up{};  // last
    bool rests = false;    // a significant one that ended by itself
  };
  struct round {
    bool ends = false;                 // the group, with `rest`, `why`, `exit`
    std::vector<std::string> to_stop;  // the next one last
    std::optional<std::pair<std::string, std::uint64_t>> stopping;
    std::vector<std::string> to_start;  // the next one first
    bool released = false;              // the first of them may launch
    std::string after;                  // whose backoff is to be over
    time_point due{};
    run_state rest = run_state::stopped;
    std::string why;
    std::optional<ending> exit;
  };

  const member* find(const std::string& id) const;
  member* find(const std::string& id);
  void remember_temporary();
  void restarts(member& x, const unit_ended& event, time_point now,
                double random);
  void plan(const member& ended, const restart& again, time_point now);
  void rests(member& x, const ending& how, const see_function& see);
  void end(run_state rest, std::string why, std::optional<ending> exit);
  void revive(const see_function& see);
  bool stopped_one(const see_function& see);
  std::optional<steer> order_for(const std::string& id, const unit_report& now);
  void start_next(const see_function& see, time_point now);
  std::vector<std::string> in_order(const std::set<std::string>& ids) const;

  std::string name_;
  group_spec spec_;
  std::vector<member> members_;
  std::vector<std::string> ids_;
  supervision rules_;
  std::optional<round> round_;
  bool ended_ = false;  // nothing happens until somebody starts a member
  std::optional<ending> over_;
};

}  // namespace pup
