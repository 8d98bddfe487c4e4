// The launcher's side on the loop: every process with its owner, its output,
// its inherited socket. What its actor is told comes by the messages here.
#pragma once

#include "pup/actors/protocol.hpp"
#include "pup/runtime/children.hpp"
#include "pup/runtime/drivers.hpp"
#include "pup/runtime/drivers_shared.hpp"
#include "pup/runtime/guardian_link.hpp"
#include "pup/runtime/launch_budget.hpp"
#include "pup/runtime/log.hpp"
#include "pup/runtime/memory_watch.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace pup {

// From the loop to the launcher's actor.
struct process_begun {
  std::int32_t pid = 0;
  std::shared_ptr<const log_losses> losses;
  /// The figure of its memory_watch; empty: it has none.
  std::shared_ptr<const std::atomic<std::uint64_t>> memory{};
};
struct process_gone {
  std::int32_t pid = 0;
};
struct probe_done {
  std::uint64_t number = 0;
  std::string fault;
  bool asked = true;  // false: there was no descriptor to ask by
};

}  // namespace pup

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_begun)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::process_gone)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(pup::probe_done)

namespace pup {

using launcher_self = launcher_actor::extend<caf::reacts_to<process_begun>,
                                             caf::reacts_to<process_gone>,
                                             caf::reacts_to<probe_done>>;

/// Everything about processes that lives on the loop's thread.
class process_table : public std::enable_shared_from_this<process_table> {
public:
  process_table(boost::asio::io_context& loop, launcher_options options,
                weak<launcher_self> driver);

  void launch(pup::launch request, weak<instance_actor> to);

  void adopt(pup::launch request, const weak<instance_actor>& to);

  void mark(const note_life& x);

  /// Acted upon, or of no use.
  void settle(const settle_life& x);

  void signal(const send_signal& x);

  void abandon(const std::string& id, std::uint64_t life);

  void ask(std::uint64_t number, const probe_server& wanted);

private:
  /// For other threads, and for a time when this is gone.
  std::function<void()> on_loop(std::function<void(children&)> f);

  struct socket_id {
    std::string cluster;  // empty: it inherits none
    std::uint32_t slot = 0;
  };

  struct owner {
    std::uint64_t life = 0;
    weak<instance_actor> handle;
    std::int32_t pid = 0;
    socket_id socket;
    bool told_to_stop = false;
    std::uint64_t max_memory = 0;
    bool leaves = false;             // its end has been decided
    std::uint16_t awaited_port = 0;  // makes it ready; 0: something else does
    std::string answer{};            // in place of one that makes it ready
    std::string unready{};  // when it was told to stop before it was ready
    // Adopted: the log has it already.
    bool began_before = false;
    bool ready_before = false;
    std::string left{};  // by a leader that has ended, in words
    bool leader_gone = false;
    bool mute = false;  // there was no descriptor for its output
  };

  // -- launches, which wait for descriptors -----------------------------------

  /// Begins as many of those that wait as there is room for.
  void proceed();

  /// False: it has failed at once.
  bool begin(pup::launch& request, output_ends output);

  /// There was no descriptor for its output: whether it is worth waiting.
  bool may_come_free();

  /// A launch is over, one way or the other.
  void settled(const std::string& id, std::uint64_t life);

  /// The descriptors of a life have been closed.
  void made_room();

  /// True: it waited still.
  bool drop_waiting(const std::string& id, std::uint64_t life);

  static void describe(launch_request& wanted, pup::launch& request);

  std::optional<inherited_process> take_inherited(const std::string& id,
                                                  std::uint64_t life);

  bool takes_output(const pup::launch& request) const;

  /// Goes on with the pipes of a life in the middle of a line.
  void resume_output(log_attachment plan, const std::string& key,
                     std::uint64_t life);

  /// What lives had written whose end is forgotten already.
  void drain_the_dead();

  log_attachment last_words_of(const std::string& key, std::uint64_t life);

  /// A slot that has a socket for the first time: it is to be kept as well.
  void keep_group(const socket_id& x);

  void drop_closed_group(const std::string& cluster);

  owner* find(const std::string& id, std::uint64_t life);

  /// What there is in place of readiness, in words.
  static std::string found_instead(const owner& x);

  std::shared_ptr<log_losses> losses_of(const std::string& id);

  /// Gives back what the spawner keeps, once all of it has been read.
  std::shared_ptr<void> lease_of(const std::string& pipes);

  /// Where the output of a life goes, without the pipes.
  log_attachment attachment_of(const pup::launch& request);

  /// A process without its log is better than no process.
  output_ends open_output(const pup::launch& request,
                          launch_budget::leave leave);

  void note(const std::string& id, log_stream severity, std::string text);

  void leader_ended(const std::string& id, std::uint64_t life,
                    const leader_end& fact);

  void end(const std::string& id, std::uint64_t life, ending how);

  void outgrew(pid_t pid, std::uint64_t used, const std::string& remark);

  void forget(std::map<std::string, owner>::iterator i);

  child_events events();

  weak<launcher_self> driver_;
  log_sink* log_;
  journal* journal_;
  std::map<std::string, owner> owners_;  // by instance id
  std::shared_ptr<inherit_groups> groups_;
  boost::asio::io_context& loop_;
  std::map<std::string, std::shared_ptr<log_losses>> losses_;
  // Of lives that are being launched: `launched` or `failed` follows.
  std::map<std::string, log_attachment> unattached_;
  std::deque<pup::launch> waiting_;
  std::map<std::string, std::uint64_t> under_way_;  // lives, by id
  launch_budget budget_;
  // Some descriptors are on their way back when a process ends. Whoever begins
  // alone waits for them so long; when that was in vain the next ones do not.
  boost::asio::steady_timer patience_;
  enum class hope { fresh, waiting, none } hope_ = hope::fresh;
  std::shared_ptr<std::atomic<bool>> needs_room_ =
      std::make_shared<std::atomic<bool>>(false);
  std::shared_ptr<std::atomic<std::uint32_t>> mute_;
  std::shared_ptr<spawner> parent_;
  std::shared_ptr<inheritance> inherited_;
  std::shared_ptr<socket_keeper> keeper_;
  memory_watch memory_;
  children children_;
};

}  // namespace pup
