#include "pup/runtime/drivers_processes.hpp"

#include "pup/runtime/inherit.hpp"
#include "pup/runtime/journal.hpp"
#include "pup/runtime/ports.hpp"
#include "pup/runtime/probe.hpp"
#include "pup/runtime/shortage.hpp"
#include "pup/runtime/socket_keeper.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <set>
#include <utility>
#include <variant>

namespace pup {

namespace {

// Names of what the spawner keeps.
std::string pipes_of(const std::string& key, std::uint64_t life) {
  return key + '/' + std::to_string(life);
}
std::string out_name(const std::string& pipes) {
  return "out/" + pipes;
}
std::string err_name(const std::string& pipes) {
  return "err/" + pipes;
}

std::uint16_t awaited_port_of(const pup::launch& request) {
  const auto asked = request.ready == ready_condition::port
                     || request.ready == ready_condition::http;
  return asked ? request.port : 0;
}

ending ending_from(const exit_status& status) {
  ending result;
  result.what =
      status.signal != 0 ? ending::kind::signalled : ending::kind::exited;
  result.code = status.code;
  result.signal = status.signal;
  result.text = status.core ? "core dumped" : status.memory;
  return result;
}

std::string and_more(const std::string& example, std::uint32_t count) {
  return count < 2 ? example
                   : example + " and " + std::to_string(count - 1) + " more";
}

// A program that leaves its work to a child and ends with success is a daemon,
// which has to be told not to be one.
std::string words_of_left(const leader_end& x) {
  if (x.left == 0)  // it is still to be found out
    return {};
  const auto all = and_more(x.left_example, x.left);
  if (x.status.code != 0)
    return "left " + all + " running";
  return "went into the background and left " + all
         + " running; keep it in the foreground (nginx: daemon off;)";
}

std::string words_of_rest(const std::string& left, const burial& x) {
  std::string result = left;
  const auto add = [&](const std::string& text) {
    result += (result.empty() ? "" : "; ") + text;
  };
  if (x.killed > 0)
    add("got SIGKILL: " + and_more(x.killed_example, x.killed));
  if (!x.strays.empty())
    add("may have been left by it or by others, and is not touched: "
        + x.strays);
  if (!x.gone)
    add("some of it does not die of SIGKILL");
  return result;
}

}  // namespace

process_table::process_table(boost::asio::io_context& loop,
                             launcher_options options,
                             weak<launcher_self> driver)
    : driver_(std::move(driver)),
      log_(options.log),
      journal_(options.notes),
      groups_(std::move(options.groups)),
      loop_(loop),
      patience_(loop),
      mute_(options.mute ? std::move(options.mute)
                         : std::make_shared<std::atomic<std::uint32_t>>(0)),
      parent_(options.parent),
      inherited_(std::move(options.inherited)),
      keeper_(std::move(options.keeper)),
      memory_(loop,
              [this](pid_t pid, std::uint64_t used, const std::string& remark) {
                outgrew(pid, used, remark);
              }),
      children_(loop, std::move(options.environment), events(),
                std::move(options.parent)) {
  if (!inherited_)
    return;
  drain_the_dead();
  children_.release_all_but(inherited_->processes, inherited_->held);
}

void process_table::launch(pup::launch request, weak<instance_actor> to) {
  auto& mine = owners_[request.id];
  mine = {request.life, std::move(to), 0, {}, false, request.max_memory};
  mine.awaited_port = awaited_port_of(request);
  // One that waits still has lost its owner.
  std::erase_if(waiting_, [&](const auto& x) { return x.id == request.id; });
  waiting_.push_back(std::move(request));
  proceed();
}

// -- launches, which wait for descriptors -------------------------------------

void process_table::proceed() {
  while (!waiting_.empty()) {
    const auto leave = budget_.ask();
    if (leave == launch_budget::leave::refused)
      return;
    output_ends output;
    if (takes_output(waiting_.front()))
      output = open_output(waiting_.front(), leave);
    if (!output.warning.empty() && may_come_free())
      return budget_.done();
    auto request = std::move(waiting_.front());
    waiting_.pop_front();
    if (!begin(request, std::move(output)))
      budget_.done();
  }
}

bool process_table::may_come_free() {
  constexpr std::chrono::seconds patience{1};
  if (budget_.under_way() > 1 || hope_ == hope::waiting)
    return true;
  if (hope_ == hope::none)
    return false;
  hope_ = hope::waiting;
  *needs_room_ = true;
  patience_.expires_after(patience);
  patience_.async_wait(
      [weak = weak_from_this()](const boost::system::error_code& error) {
        const auto self = weak.lock();
        if (error || !self || self->hope_ != hope::waiting)
          return;
        self->hope_ = hope::none;
        self->proceed();
      });
  return true;
}

bool process_table::begin(pup::launch& request, output_ends output) {
  auto& mine = owners_[request.id];
  launch_request wanted;
  if (request.inherit) {
    const auto& from = *request.inherit;
    auto taken =
        groups_->take(from.cluster, inherit_options_of(from.spec), from.slot);
    if (const auto* error = std::get_if<listen_error>(&taken)) {
      ending how;
      how.what = ending::kind::not_launched;
      how.text = in_words(*error, from.spec.common_port);
      unattached_.erase(request.id);
      end(request.id, request.life, std::move(how));
      return false;
    }
    mine.socket = {from.cluster, from.slot};
    wanted.listen_socket =
        std::make_shared<unique_fd>(std::move(std::get<unique_fd>(taken)));
  }
  keep_group(mine.socket);
  describe(wanted, request);
  if (!output.warning.empty()) {
    mine.mute = true;
    ++*mute_;
  }
  wanted.open_output = [ends = std::make_shared<output_ends>(
                            std::move(output))] { return std::move(*ends); };
  under_way_[request.id] = request.life;
  children_.launch(request.id, request.life, std::move(wanted));
  return true;
}

void process_table::settled(const std::string& id, std::uint64_t life) {
  const auto i = under_way_.find(id);
  if (i == under_way_.end() || i->second != life)
    return;
  under_way_.erase(i);
  budget_.done();
  proceed();
}

void process_table::made_room() {
  if (free_descriptors() < launch_budget::of_launch) {
    *needs_room_ = true;
    return;
  }
  hope_ = hope::fresh;
  patience_.cancel();
  proceed();
}

bool process_table::drop_waiting(const std::string& id, std::uint64_t life) {
  return std::erase_if(
             waiting_,
             [&](const pup::launch& x) { return x.id == id && x.life == life; })
         > 0;
}

void process_table::adopt(pup::launch request, const weak<instance_actor>& to) {
  auto process = take_inherited(request.id, request.life);
  if (!process)
    return to.send(process_ended{
        request.life,
        {ending::kind::lost, 0, 0, "it is not among what was left"}});
  auto& mine = owners_[request.id];
  mine = {request.life, to, process->pid, {}, false, request.max_memory};
  mine.awaited_port = awaited_port_of(request);
  const auto mark = life_mark_of(process->mark);
  mine.told_to_stop = mine.leaves = mark.stopping;
  mine.began_before = true;
  mine.leader_gone = process->leader_ended || process->end;
  mine.ready_before = mark.ready;
  if (request.inherit)
    mine.socket = {request.inherit->cluster, request.inherit->slot};
  resume_output(attachment_of(request), request.id, request.life);
  note(request.id, log_stream::info,
       (process->launching ? std::string{"goes on being started"}
                           : "goes on as pid " + std::to_string(process->pid))
           + " under another supervisor");
  launch_request wanted;
  describe(wanted, request);
  children_.adopt({std::move(*process), std::move(wanted), inherited_->held});
}

void process_table::mark(const note_life& x) {
  // From here on whatever it does is not what decides.
  if (auto* to = find(x.id, x.life); to != nullptr && x.stopping) {
    to->leaves = true;
    if (!x.ready && to->pid != 0)
      to->unready = found_instead(*to);
  }
  children_.mark(x.id, x.life, {x.ready, x.stopping, x.address});
}

void process_table::settle(const settle_life& x) {
  auto process = take_inherited(x.id, x.life);
  if (!process)
    return children_.done(x.id, x.life);
  resume_output(last_words_of(x.id, x.life), x.id, x.life);
  children_.adopt({std::move(*process), {}, inherited_->held});
  children_.abandon(x.id, x.life);
}

void process_table::signal(const send_signal& x) {
  if (auto* to = find(x.id, x.life))
    to->told_to_stop = to->told_to_stop || x.stop || x.signal == SIGKILL;
  const auto ends_it = x.stop || x.signal == SIGKILL;
  if (ends_it && drop_waiting(x.id, x.life))
    return end(x.id, x.life,
               {ending::kind::not_launched, 0, 0,
                "stopped before its process was started"});
  // SIGKILL also ends a launch that still waits for its predecessor.
  if (x.signal == SIGKILL)
    children_.kill_group(x.id, x.life);
  else if (x.stop)
    children_.stop(x.id, x.life, x.signal);
  else
    children_.signal(x.id, x.life, x.signal);
}

void process_table::abandon(const std::string& id, std::uint64_t life) {
  drop_waiting(id, life);
  if (const auto x = under_way_.find(id);
      x != under_way_.end() && x->second == life)
    unattached_.erase(id);
  children_.abandon(id, life);
  const auto i = owners_.find(id);
  if (i != owners_.end() && i->second.life == life)
    forget(i);
  settled(id, life);
}

void process_table::ask(std::uint64_t number, const probe_server& wanted) {
  probe(
      loop_,
      {wanted.address, wanted.port, wanted.how.type, wanted.how.path,
       wanted.how.timeout},
      [to = driver_, number](std::string fault) {
        to.send(probe_done{number, std::move(fault)});
      },
      [to = driver_, number] {
        to.send(probe_done{number, {}, false});
      });
}

std::function<void()> process_table::on_loop(std::function<void(children&)> f) {
  return [weak = weak_from_this(), loop = &loop_, f = std::move(f)] {
    boost::asio::post(*loop, [weak, f] {
      if (const auto self = weak.lock())
        f(self->children_);
    });
  };
}

void process_table::describe(launch_request& wanted, pup::launch& request) {
  wanted.argv = std::move(request.argv);
  wanted.environment = std::move(request.env);
  wanted.inherited = std::move(request.inherit_env);
  wanted.path = std::move(request.path);
  wanted.cwd = std::move(request.cwd);
  wanted.port = request.port;
  wanted.ready = request.ready;
  wanted.ready_path = std::move(request.ready_path);
  wanted.watchdog = request.watchdog;
  wanted.attributes = request.attributes;
  wanted.cgroup_id = request.id.substr(0, request.id.find('!'));
  wanted.pid_file = std::move(request.pid_file);
}

std::optional<inherited_process> process_table::take_inherited(
    const std::string& id, std::uint64_t life) {
  if (!inherited_)
    return std::nullopt;
  auto& all = inherited_->processes;
  const auto i = std::find_if(all.begin(), all.end(), [&](const auto& x) {
    return x.key == id && x.life == life;
  });
  if (i == all.end())
    return std::nullopt;
  auto result = std::move(*i);
  all.erase(i);
  return result;
}

bool process_table::takes_output(const pup::launch& request) const {
  return log_ != nullptr
         && (log_->wants(request.output)
             || request.ready == ready_condition::log);
}

void process_table::resume_output(log_attachment plan, const std::string& key,
                                  std::uint64_t life) {
  const auto pipes = pipes_of(key, life);
  const auto take = [this](const std::string& name) {
    auto found = inherited_->held.extract(name);
    return found.empty() ? unique_fd{} : std::move(found.mapped());
  };
  plan.out = take(out_name(pipes));
  plan.err = take(err_name(pipes));
  plan.resumed = true;
  if (log_ != nullptr && (plan.out || plan.err))
    log_->attach(std::move(plan));
}

void process_table::drain_the_dead() {
  std::set<std::pair<std::string, std::uint64_t>> dead;
  for (const auto& [name, fd] : inherited_->held) {
    const auto end = name.rfind('/');
    const auto begin = name.find('/') + 1;
    if ((!name.starts_with("out/") && !name.starts_with("err/")) || end < begin)
      continue;
    const auto key = name.substr(begin, end - begin);
    const auto life = std::strtoull(name.c_str() + end + 1, nullptr, 10);
    const auto& all = inherited_->processes;
    if (std::none_of(all.begin(), all.end(), [&](const auto& x) {
          return x.key == key && x.life == life;
        }))
      dead.insert({key, life});
  }
  for (const auto& [key, life] : dead)
    resume_output(last_words_of(key, life), key, life);
}

log_attachment process_table::last_words_of(const std::string& key,
                                            std::uint64_t life) {
  log_attachment result;
  result.id = key.substr(0, key.find('!'));
  result.losses = losses_of(result.id);
  result.lease = lease_of(pipes_of(key, life));
  return result;
}

void process_table::keep_group(const socket_id& x) {
  if (!keeper_ || !keeper_->works() || x.cluster.empty()
      || keeper_->keeps(kept_group_name(x.cluster),
                        "slot " + std::to_string(x.slot)))
    return;
  const auto all = groups_->duplicates(x.cluster);
  if (const auto* sockets = std::get_if<kept_sockets>(&all))
    keeper_->keep(kept_group_name(x.cluster), *sockets);
}

void process_table::drop_closed_group(const std::string& cluster) {
  if (keeper_ && !groups_->knows(cluster))
    keeper_->keep(kept_group_name(cluster), {});
}

process_table::owner* process_table::find(const std::string& id,
                                          std::uint64_t life) {
  const auto i = owners_.find(id);
  return i != owners_.end() && i->second.life == life ? &i->second : nullptr;
}

std::shared_ptr<log_losses> process_table::losses_of(const std::string& id) {
  auto& result = losses_[id];
  if (!result)
    result = std::make_shared<log_losses>();
  return result;
}

std::shared_ptr<void> process_table::lease_of(const std::string& pipes) {
  return {nullptr, [parent = parent_, pipes, loop = &loop_,
                    needs_room = needs_room_, weak = weak_from_this()](void*) {
            if (parent) {
              parent->release(out_name(pipes));
              parent->release(err_name(pipes));
            }
            if (!needs_room->exchange(false))
              return;
            boost::asio::post(*loop, [weak] {
              if (const auto self = weak.lock())
                self->made_room();
            });
          }};
}

log_attachment process_table::attachment_of(const pup::launch& request) {
  log_attachment result;
  // What a hook says belongs to its instance.
  result.id = request.id.substr(0, request.id.find('!'));
  result.output = request.output;
  if (const auto& who = request.attributes.run_as)
    result.user = who->uid;
  result.losses = losses_of(result.id);
  result.lease = lease_of(pipes_of(request.id, request.life));
  if (request.ready == ready_condition::log) {
    result.awaited_pattern = request.ready_pattern;
    result.on_match = on_loop([id = request.id, life = request.life](
                                  children& all) { all.show_ready(id, life); });
  }
  return result;
}

output_ends process_table::open_output(const pup::launch& request,
                                       launch_budget::leave leave) {
  output_ends result;
  std::array<std::variant<os_fault, log_pipe>, 2> pipes{
      os_fault{"pipe", "", EMFILE}, {}};
  // The last descriptors are for the launch itself.
  if (leave == launch_budget::leave::given
      || free_descriptors() >= launch_budget::of_launch)
    for (auto& x : pipes)
      std::visit([&x](auto&& y) { x = std::move(y); }, make_log_pipe());
  for (const auto& x : pipes)
    if (const auto* fault = std::get_if<os_fault>(&x)) {
      result.warning = to_string(*fault)
                       + "; its output goes to /dev/null until it is restarted";
      return result;
    }
  hope_ = hope::fresh;
  auto& [out_read, out_write] = std::get<log_pipe>(pipes[0]);
  auto& [err_read, err_write] = std::get<log_pipe>(pipes[1]);
  const auto& key = request.id;
  const auto names = pipes_of(key, request.life);
  result.keep = {{out_name(names), out_read.get()},
                 {err_name(names), err_read.get()}};
  auto& mine = unattached_[key];
  mine = attachment_of(request);
  mine.out = std::move(out_read);
  mine.err = std::move(err_read);
  result.out = std::move(out_write);
  result.err = std::move(err_write);
  return result;
}

void process_table::note(const std::string& id, log_stream severity,
                         std::string text) {
  if (log_ != nullptr)
    log_->event(id, severity, std::move(text));
}

void process_table::leader_ended(const std::string& id, std::uint64_t life,
                                 const leader_end& fact) {
  auto* x = find(id, life);
  if (x == nullptr)
    return;
  // From here on its pid may be another's.
  memory_.remove(x->pid);
  driver_.send(process_gone{std::exchange(x->pid, 0)});
  x->leader_gone = true;
  x->leaves = true;
  auto how = ending_from(fact.status);
  if (!x->told_to_stop) {
    how.rest = x->left = words_of_left(fact);
    note(id, log_stream::warn, to_string(how) + "; which is to end, too");
  }
  x->handle.send(process_leader_ended{life, std::move(how)});
}

void process_table::end(const std::string& id, std::uint64_t life, ending how) {
  auto* x = find(id, life);
  const bool well = (how.what == ending::kind::exited && how.code == 0)
                    || (x != nullptr && x->told_to_stop && x->left.empty());
  const bool never = how.what == ending::kind::not_launched;
  note(id,
       well    ? log_stream::info
       : never ? log_stream::error
               : log_stream::warn,
       to_string(how));
  if (x == nullptr)
    return;
  const auto to = x->handle;
  auto unready = std::move(x->unready);
  forget(owners_.find(id));
  to.send(process_ended{life, std::move(how), std::move(unready)});
  // Nobody goes on with a task.
  if (id.find('!') != std::string::npos)
    children_.done(id, life);
}

std::string process_table::found_instead(const owner& x) {
  const auto places =
      x.answer.empty() && x.awaited_port != 0 ? places_of(x.pid) : std::nullopt;
  if (!places)
    return x.answer;
  if (places->empty())
    return "listens on no port";
  const auto port = std::to_string(x.awaited_port);
  std::string text;
  bool is_there = false;
  for (const auto& place : *places) {
    text += (text.empty() ? "listens on " : ", ") + place;
    is_there = is_there || place.ends_with(':' + port);
  }
  return text
         + (is_there ? "; asked are 127.0.0.1 and ::1"
                     : ", not on port " + port);
}

void process_table::outgrew(pid_t pid, std::uint64_t used,
                            const std::string& remark) {
  for (const auto& [id, x] : owners_) {
    if (x.pid != pid)
      continue;
    if (x.leaves)
      return;
    auto text = "used " + amount_of_memory(used)
                + (remark.empty() ? "" : " (" + remark + ')')
                + ", more than maxMemory " + amount_of_memory(x.max_memory);
    note(id, log_stream::warn, text + "; is to be restarted");
    return x.handle.send(process_outgrew{x.life, std::move(text)});
  }
}

void process_table::forget(std::map<std::string, owner>::iterator i) {
  const auto& x = i->second;
  if (x.pid != 0) {
    memory_.remove(x.pid);
    driver_.send(process_gone{x.pid});
  }
  if (journal_ != nullptr && (x.pid != 0 || x.leader_gone))
    journal_->ended(i->first, x.life);
  if (!x.socket.cluster.empty()) {
    groups_->left(x.socket.cluster, x.socket.slot);
    drop_closed_group(x.socket.cluster);
  }
  if (x.mute)
    --*mute_;
  owners_.erase(i);
}

child_events process_table::events() {
  child_events result;
  result.launched = [this](const std::string& id, std::uint64_t life, pid_t pid,
                           const std::string& warning) {
    const auto* known = find(id, life);
    if (journal_ != nullptr && (known == nullptr || !known->leader_gone))
      journal_->began(id, life, pid);
    // In this order, so that what the process says comes after it.
    if (const auto* x = find(id, life); x == nullptr || !x->began_before)
      note(id, warning.empty() ? log_stream::info : log_stream::warn,
           "started as pid " + std::to_string(pid)
               + (warning.empty() ? "" : "; " + warning));
    if (auto x = unattached_.extract(id); !x.empty())
      log_->attach(std::move(x.mapped()));
    if (auto* x = find(id, life)) {
      if (x->leader_gone)
        return x->handle.send(process_launched{life, pid, warning});
      x->pid = pid;
      if (!x->socket.cluster.empty())
        groups_->holds(x->socket.cluster, x->socket.slot, pid);
      process_begun fact{pid, losses_of(id)};
      if (x->max_memory != 0)
        fact.memory = memory_.add(pid, x->max_memory);
      driver_.send(std::move(fact));
      x->handle.send(process_launched{life, pid, warning});
    }
    settled(id, life);
  };
  result.failed = [this](const std::string& id, std::uint64_t life,
                         const launch_fault& fault) {
    unattached_.erase(id);
    ending how;
    how.what = ending::kind::not_launched;
    how.code = fault.stage == "port"     ? ending::port_taken
               : is_shortage(fault.code) ? ending::no_room
                                         : 0;
    how.text = fault.text;
    end(id, life, std::move(how));
    settled(id, life);
  };
  result.ready = [this](const std::string& id, std::uint64_t life,
                        const std::string& address) {
    auto* x = find(id, life);
    if (x != nullptr && x->leaves)
      return;
    if (x == nullptr || !x->ready_before)
      note(id, log_stream::info,
           address.empty() ? "is ready" : "is ready at " + address);
    if (x != nullptr)
      x->handle.send(process_ready{life, address});
  };
  result.said = [this](const std::string& id, std::uint64_t life,
                       const self_report& report) {
    auto* x = find(id, life);
    if (x == nullptr || x->leaves)
      return;
    if (!report.answer.empty())
      x->answer = report.answer;
    x->handle.send(
        process_said{life, report.stopping, report.alive, report.trouble,
                     report.answer.empty() ? report.status : report.answer});
  };
  result.leader_ended = [this](const std::string& id, std::uint64_t life,
                               const leader_end& x) {
    leader_ended(id, life, x);
  };
  result.exited = [this](const std::string& id, std::uint64_t life,
                         const burial& x) {
    auto how = ending_from(x.status);
    const auto* mine = find(id, life);
    how.rest = words_of_rest(mine == nullptr ? "" : mine->left, x);
    how.left_over = !x.gone || !x.strays.empty();
    end(id, life, std::move(how));
  };
  return result;
}

}  // namespace pup
