#include "pup/runtime/host.hpp"

#include "pup/actors/spawn.hpp"
#include "pup/actors/supervisor.hpp"
#include "pup/config/load.hpp"
#include "pup/runtime/drivers.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include <random>
#include <stdexcept>
#include <thread>

#include <unistd.h>

namespace pup {

namespace {

// The root's children are units, which have budgets of their own, and control:
// what restarts them is a defect in pup itself. 10 in 60 s leaves room for
// several at once, and ends a supervisor that cannot keep its own actors.
constexpr intensity root_intensity{10, std::chrono::seconds(60)};

/// A thread that runs an io_context until destruction.
class loop_thread {
public:
  loop_thread()
      : work_(loop_.get_executor()), thread_([this] { loop_.run(); }) {}
  ~loop_thread() {
    work_.reset();  // ends when the last handler has run
    thread_.join();
  }
  loop_thread(const loop_thread&) = delete;
  loop_thread& operator=(const loop_thread&) = delete;

  boost::asio::io_context& loop() {
    return loop_;
  }

private:
  boost::asio::io_context loop_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type>
      work_;
  std::thread thread_;
};

std::vector<std::string> own_environment() {
  std::vector<std::string> result;
  for (auto** i = ::environ; i != nullptr && *i != nullptr; ++i)
    result.emplace_back(*i);
  return result;
}

/// Ends an actor that has no children and waits until its state is gone.
template <class Handle>
void end_and_wait(caf::actor_system& sys, Handle& x) {
  if (!x)
    return;
  caf::scoped_actor self{sys};
  self->monitor(x);
  self->send_exit(x, caf::exit_reason::user_shutdown);
  self->receive([](const caf::down_msg&) {});
  x = nullptr;
}

}  // namespace

class host::impl {
public:
  impl(caf::actor_system& sys, pup_spec spec, host_options options)
      : sys_(sys) {
    if (const auto faults = check(spec); !faults.empty())
      throw std::invalid_argument(faults.front());
    if (options.environment.empty())
      options.environment = own_environment();
    world_.launcher = spawn_launcher(
        sys_, loop_.loop(),
        {std::move(options.environment), std::move(options.log_folder)});
    world_.proxy = spawn_proxy(sys_, options.shards);
    root_ = spawn_supervisor(sys_, tree(spec, options));
    if (options.on_end)
      root_->attach_functor([f = std::move(options.on_end)](
                                const caf::error& reason) { f(reason); });
  }

  ~impl() {
    stop();
    end_and_wait(sys_, world_.proxy);
    end_and_wait(sys_, world_.launcher);
  }

  control_actor control() {
    control_actor result;
    caf::scoped_actor self{sys_};
    self->request(root_, caf::infinite, which_children{})
        .receive(
            [&](const std::vector<child_info>& children) {
              for (const auto& x : children)
                if (x.id == "control")
                  result = caf::actor_cast<control_actor>(x.handle);
            },
            [](const caf::error&) {});
    return result;
  }

  void shut_down() {
    caf::anon_send_exit(root_, caf::exit_reason::user_shutdown);
  }

  void stop() {
    caf::scoped_actor self{sys_};
    self->monitor(root_);
    if (!stopping_)
      shut_down();
    stopping_ = true;
    self->receive([](const caf::down_msg&) {});
  }

private:
  supervisor_spec tree(const pup_spec& spec, const host_options& options) {
    supervisor_spec result;
    result.limit = root_intensity;
    result.seed = std::random_device{}();
    result.children.push_back(control_child(spec, options));
    for (const auto& x : spec.processes)
      result.children.push_back(unit_child(spec.name, x));
    return result;
  }

  child_spec control_child(const pup_spec& spec, const host_options& options) {
    control_args args;
    args.identity.name = spec.name;
    args.identity.pid = ::getpid();
    args.identity.version = options.version;
    args.identity.config = options.config;
    args.started = sys_.clock().now();
    args.spec = spec;
    args.launcher = world_.launcher;
    child_spec result;
    result.id = "control";
    result.start = [args, announce = options.on_control](start_context& x) {
      auto mine = args;
      mine.root = caf::actor_cast<supervisor_actor>(
          caf::actor_cast<caf::strong_actor_ptr>(x.self));
      const auto actor = spawn_control(x.self, std::move(mine));
      if (announce)
        announce(actor);
      return caf::actor_cast<caf::strong_actor_ptr>(actor);
    };
    return result;
  }

  child_spec unit_child(const std::string& supervisor,
                        const process_spec& spec) {
    cluster_args args;
    args.spec = spec;
    args.supervisor = supervisor;
    args.world = world_;
    child_spec result;
    result.id = unit_child_id(spec.id);
    result.shutdown = std::nullopt;  // it has deadlines of its own
    result.start = [args](start_context& x) {
      auto mine = args;
      mine.kept = x.kept;
      mine.seed = std::random_device{}();
      return caf::actor_cast<caf::strong_actor_ptr>(
          spawn_cluster(x.self, std::move(mine)));
    };
    return result;
  }

  caf::actor_system& sys_;
  loop_thread loop_;
  ports world_;
  supervisor_actor root_;
  bool stopping_ = false;
};

host::host(caf::actor_system& sys, pup_spec spec, host_options options)
    : impl_(std::make_unique<impl>(sys, std::move(spec), std::move(options))) {}

host::~host() = default;

control_actor host::control() {
  return impl_->control();
}

void host::shut_down() {
  impl_->shut_down();
}

void host::stop() {
  impl_->stop();
}

}  // namespace pup
