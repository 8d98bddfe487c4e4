#include "pup/actors/task.hpp"

#include <utility>

namespace pup {

namespace {

struct task_overdue {};

}  // namespace

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::task_overdue)

namespace pup {

namespace {

using self_actor = instance_actor::extend<caf::reacts_to<task_overdue>>;

constexpr std::int32_t kill_signal = 9;

struct task_state {
  using pointer = self_actor::stateful_pointer<task_state>;

  task_state() = default;

  static inline const char* name = "task";

  task_args args;
  caf::actor_addr client;

  // The launcher kills what its owner leaves behind.
  void done(pointer self, std::string fault, bool no_room = false) {
    if (auto to = caf::actor_cast<caf::strong_actor_ptr>(client))
      self->send(caf::actor_cast<task_client>(std::move(to)),
                 task_done{args.number, std::move(fault), no_room});
    self->quit();
  }
};

self_actor::behavior_type task_behavior(task_state::pointer self,
                                        const task_client& client,
                                        task_args args) {
  auto& state = self->state;
  state.args = std::move(args);
  state.client = client.address();
  self->set_default_handler(caf::drop);
  monitor_for_life(self, client);
  monitor_for_life(self, state.args.launcher);
  self->set_down_handler([self](caf::scheduled_actor*, caf::down_msg& message) {
    if (message.source == self->state.args.launcher.address())
      self->state.done(self, "the launcher has ended");
    else
      self->quit();
  });
  self->send(state.args.launcher, state.args.request,
             caf::actor_cast<instance_actor>(self));
  self->delayed_send(self, state.args.timeout, task_overdue{});
  return {
      [](const process_launched&) {},
      [](const process_ready&) {},
      // A task has no time of its own for what it leaves behind.
      [self](const process_leader_ended& fact) {
        const auto& mine = self->state.args;
        self->send(mine.launcher,
                   send_signal{mine.request.id, fact.life, kill_signal});
      },
      [self](const process_ended& fact) {
        const auto good =
            fact.how.what == ending::kind::exited && fact.how.code == 0;
        const auto no_room = fact.how.what == ending::kind::not_launched
                             && fact.how.code == ending::no_room;
        self->state.done(self, good ? std::string{} : to_string(fact.how),
                         no_room);
      },
      [](const process_said&) {},
      [](const retune&) {},
      [](const process_outgrew&) {},
      [self](task_overdue) {
        self->state.done(self,
                         "took longer than "
                             + std::to_string(self->state.args.timeout.count())
                             + " ms");
      },
  };
}

}  // namespace

instance_actor spawn_task(caf::local_actor* parent, const task_client& client,
                          task_args args) {
  return parent->spawn(task_behavior, client, std::move(args));
}

}  // namespace pup
