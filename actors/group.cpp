#include "pup/actors/group.hpp"

#include "pup/actors/slot.hpp"
#include "pup/config/relations.hpp"

#include <algorithm>

namespace pup {

namespace {

bool waits_for_the_clock(const unit_report& x) {
  return !x.alive && x.wishes.empty() && x.state == run_state::waiting;
}

}  // namespace

group::group(const pup_spec& spec, const std::string& name)
    : name_(name),
      spec_(spec.groups.at(name)),
      rules_(spec_.how, {spec_.restart_limit, spec_.restart_period}) {
  for (const auto i : order_of_start(spec)) {
    const auto& process = spec.processes[i];
    if (process.in_group != name)
      continue;
    member x;
    x.id = process.id;
    x.type = restart_type_of(process.restart);
    x.significant = process.significant;
    x.is_cluster = process.cluster.has_value();
    // A single process has waited for its own backoff already.
    if (x.is_cluster)
      x.delays = backoff_of(process);
    else
      x.delays = {{}, {}, {}, {}};
    ids_.push_back(x.id);
    members_.push_back(std::move(x));
  }
  remember_temporary();
}

bool group::same_as(const group& x) const {
  const auto same = [](const member& a, const member& b) {
    return a.id == b.id && a.type == b.type && a.significant == b.significant
           && a.is_cluster == b.is_cluster;
  };
  return name_ == x.name_ && spec_ == x.spec_
         && std::equal(members_.begin(), members_.end(), x.members_.begin(),
                       x.members_.end(), same);
}

const group::member* group::find(const std::string& id) const {
  const auto i = std::find_if(members_.begin(), members_.end(),
                              [&](const member& x) { return x.id == id; });
  return i == members_.end() ? nullptr : &*i;
}

group::member* group::find(const std::string& id) {
  return const_cast<member*>(std::as_const(*this).find(id));
}

// A supervision forgets temporary children that it stops; here somebody may
// start them again, in their place.
void group::remember_temporary() {
  for (std::size_t i = 0; i < members_.size(); ++i)
    rules_.add(members_[i].id, members_[i].type, members_[i].delays, i);
}

std::vector<std::string> group::in_order(
    const std::set<std::string>& ids) const {
  std::vector<std::string> result;
  for (const auto& x : ids_)
    if (ids.count(x) > 0)
      result.push_back(x);
  return result;
}

// -- what happens -------------------------------------------------------------

void group::ended(const unit_ended& event, const see_function& see,
                  time_point now, double random) {
  auto* x = find(event.unit);
  if (x == nullptr || ended_ || (round_ && round_->ends))
    return;
  const auto restart =
      event.what == unit_ended::next::restart
      || (event.what == unit_ended::next::gave_up && x->is_cluster);
  if (restart)
    restarts(*x, event, now, random);
  else
    rests(*x, event.how, see);
}

void group::restarts(member& x, const unit_ended& event, time_point now,
                     double random) {
  // Whom the round is about to stop has only been quicker.
  if (round_
      && std::find(round_->to_stop.begin(), round_->to_stop.end(), x.id)
             != round_->to_stop.end())
    return;
  remember_temporary();
  const auto reached = now - x.gave_up > spec_.restart_period
                           ? life_stage::stable
                           : life_stage::ready;
  x.gave_up = now;
  const auto what = rules_.ended(x.id, false, reached, now, random);
  if (const auto* again = std::get_if<restart>(&what))
    return plan(x, *again, now);
  if (std::holds_alternative<give_up>(what))
    end(run_state::exhausted,
        "group '" + name_ + "' gave up: more than "
            + std::to_string(*spec_.restart_limit) + " restarts in "
            + in_words(spec_.restart_period) + "; last: '" + x.id + "' "
            + to_string(event.how),
        std::nullopt);
}

// A plan made while another is carried out joins it.
void group::plan(const member& ended, const restart& again, time_point now) {
  if (again.stop.empty() && again.start.size() == 1 && !ended.is_cluster
      && !round_)
    return;  // it starts by itself
  std::set<std::string> stop{again.stop.begin(), again.stop.end()};
  std::set<std::string> start{again.start.begin(), again.start.end()};
  if (ended.is_cluster)  // it rests, and has to be told to start
    stop.insert(ended.id);
  if (!round_)
    round_.emplace();
  stop.insert(round_->to_stop.begin(), round_->to_stop.end());
  start.insert(round_->to_start.begin(), round_->to_start.end());
  round_->to_stop = in_order(stop);
  round_->to_start = in_order(start);
  round_->released = false;
  round_->after = ended.id;
  round_->due = std::max(round_->due, now + again.delay);
}

// It ended by itself and stays down.
void group::rests(member& x, const ending& how, const see_function& see) {
  using shutdown = group_spec::shutdown;
  if (!x.significant || spec_.auto_shutdown == shutdown::never)
    return;
  x.rests = true;
  const auto goes_on = [&](const member& y) {
    const auto now = see(y.id).last;
    return y.significant && !y.rests && (now == nullptr || now->busy);
  };
  if (spec_.auto_shutdown == shutdown::all
      && std::any_of(members_.begin(), members_.end(), goes_on))
    return;
  end(run_state::stopped,
      "group '" + name_ + "' ended with '" + x.id + "', which "
          + to_string(how),
      how);
}

void group::end(run_state rest, std::string why, std::optional<ending> exit) {
  auto stopping = round_ ? round_->stopping : std::nullopt;
  round_.emplace();
  round_->ends = true;
  round_->to_stop = ids_;
  round_->stopping = std::move(stopping);
  round_->rest = rest;
  round_->why = std::move(why);
  round_->exit = std::move(exit);
}

// -- what is done about it ----------------------------------------------------

std::string group::holds(const std::string& unit) const {
  if (!round_)
    return {};
  const auto& waiting = round_->to_start;
  const auto i = std::find(waiting.begin(), waiting.end(), unit);
  const auto its_turn = i == waiting.begin() && round_->released;
  if (!round_->ends && (i == waiting.end() || its_turn))
    return {};
  return round_->ends
             ? "its group '" + name_ + "' is ending"
             : "waits for its turn: group '" + name_ + "' starts again";
}

std::optional<time_point> group::due() const {
  if (!round_ || round_->ends)
    return std::nullopt;
  return round_->due;
}

std::vector<group::order> group::step(const see_function& see, time_point now,
                                      std::uint64_t& last_number) {
  std::vector<order> result;
  revive(see);
  while (round_ && stopped_one(see)) {
    if (round_->to_stop.empty()) {
      start_next(see, now);
      break;
    }
    const auto id = round_->to_stop.back();
    const auto* last = see(id).last;
    if (last == nullptr)
      break;
    round_->to_stop.pop_back();
    auto command = order_for(id, *last);
    if (!command)
      continue;
    command->number = ++last_number;
    round_->stopping.emplace(id, command->number);
    result.emplace_back(id, *std::move(command));
  }
  return result;
}

// Somebody has started a member of an ended group, or a significant one.
void group::revive(const see_function& see) {
  if (!ended_
      && std::none_of(members_.begin(), members_.end(),
                      [](const member& x) { return x.rests; }))
    return;
  for (auto& x : members_) {
    const auto now = see(x.id).last;
    if (now == nullptr || !(now->alive || !now->wishes.empty()))
      continue;
    x.rests = false;
    if (std::exchange(ended_, false)) {
      over_.reset();
      rules_.forgive(x.id);
    }
  }
}

bool group::stopped_one(const see_function& see) {
  if (!round_->stopping)
    return true;
  const auto& [id, number] = *round_->stopping;
  const auto* now = see(id).last;
  if (now == nullptr || now->steered < number || now->alive)
    return false;
  round_->stopping.reset();
  return true;
}

void group::lost(const std::string& unit) {
  if (round_ && round_->stopping && round_->stopping->first == unit) {
    round_->stopping.reset();
    round_->to_stop.push_back(unit);
  }
}

std::optional<steer> group::order_for(const std::string& id,
                                      const unit_report& now) {
  steer result;
  if (round_->ends) {
    result.rest = round_->rest;
    result.why = round_->why;
    return now.busy && !waits_for_the_clock(now) ? std::optional{result}
                                                 : std::nullopt;
  }
  const auto& x = *find(id);
  if (x.type == restart_type::temporary) {
    result.why = "stopped with its group '" + name_ + "'";
    return now.busy && !waits_for_the_clock(now) ? std::optional{result}
                                                 : std::nullopt;
  }
  result.again = true;
  const auto rests_by_itself = now.state == run_state::finished
                               || now.state == run_state::failed
                               || id == round_->after;
  if ((now.busy && !waits_for_the_clock(now)) || rests_by_itself)
    return result;
  std::erase(round_->to_start, id);
  return std::nullopt;
}

void group::start_next(const see_function& see, time_point now) {
  if (round_->ends) {
    ended_ = true;
    over_ = std::move(round_->exit);
    round_.reset();
    return;
  }
  const auto pauses = [&](const std::string& id) {
    const auto* x = see(id).last;
    return x == nullptr || x->state == run_state::backoff;
  };
  if (now < round_->due || pauses(round_->after))
    return;
  auto& next = round_->to_start;
  while (!next.empty()) {
    if (!std::exchange(round_->released, true))
      return;  // its next report tells
    const auto view = see(next.front());
    if (view.last == nullptr)
      return;
    if (!view.last->ready && (view.coming || pauses(next.front())))
      return;
    next.erase(next.begin());
    round_->released = false;
  }
  round_.reset();
}

}  // namespace pup
