#include "pup/runtime/unwatched.hpp"

#include "pup/config/paths.hpp"
#include "pup/runtime/descendants.hpp"
#include "pup/runtime/guarded.hpp"
#include "pup/runtime/identity.hpp"
#include "pup/runtime/machine.hpp"
#include "pup/runtime/pidfd.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

bool is_meant(const abandoned_place& x, const wanted_supervisor& wanted) {
  if (wanted.name)
    return x.name == *wanted.name;
  const auto& file = wanted.config ? wanted.config : wanted.here;
  if (!file || is_path_of(x.config, *file))
    return true;
  // Folders of equal names are not rare.
  return file->name ? x.name == *file->name
                    : x.name == file->default_name
                          && folder_of(x.config) == folder_of(file->written);
}

/// As a supervisor does that ends on purpose. A text: what went wrong.
std::optional<std::string> note_end(const std::string& state_folder) {
  auto found = read_state(state_folder);
  auto* state = std::get_if<std::optional<saved_state>>(&found);
  if (state == nullptr || !*state)
    return std::nullopt;  // there is nothing to go on with
  (*state)->on_purpose = true;
  (*state)->processes.clear();
  if (const auto fault = write_state(state_folder, **state))
    return to_string(*fault);
  return std::nullopt;
}

// Who waits for the end of this finds us by it, see await_heirs().
void sign(int lock) {
  struct stat info {};
  const auto line = "pid " + std::to_string(::getpid()) + '\n';
  if (::fstat(lock, &info) != 0
      || ::pwrite(lock, line.data(), line.size(), info.st_size) < 0)
    return;  // it takes us for gone
}

}  // namespace

std::string process_count(std::size_t number) {
  return std::to_string(number) + (number == 1 ? " process" : " processes");
}

unwatched::unwatched(const std::string& state_folder, const std::string& mark,
                     const pup_spec& spec, std::set<std::uint64_t> pipes) {
  // Empty: its state was in memory.
  auto found = state_folder.empty()
                   ? std::variant<std::optional<saved_state>, std::string>{}
                   : read_state(state_folder);
  if (auto* fault = std::get_if<std::string>(&found))
    fault_ = std::move(*fault);
  else
    recorded_ = std::get<std::optional<saved_state>>(std::move(found));
  const auto same_boot = recorded_ && recorded_->boot == boot_id();
  traits_ = {mark, same_boot ? &*recorded_ : nullptr, users_of(spec),
             std::move(pipes)};
  // Nothing is left of one that said so.
  if (!recorded_ || !recorded_->on_purpose || !recorded_->processes.empty()
      || !traits_.pipes.empty())
    all_ = find_survivors(traits_);
}

std::size_t unwatched::end(const pup_spec& spec, int hurry) const {
  return end_survivors(
      all_, traits_,
      [&](const std::string& id) { return stop_rule_of(spec, id); }, hurry);
}

pup_spec known_spec(const std::string& config) {
  if (config.empty())
    return {};
  auto loaded = load_file(config);
  auto* spec = std::get_if<pup_spec>(&loaded);
  return spec == nullptr ? pup_spec{} : std::move(*spec);
}

std::vector<left_place> find_unwatched(const wanted_supervisor& wanted,
                                       const environment& env) {
  std::vector<left_place> result;
  for (auto& x : abandoned_places(env)) {
    if (!is_meant(x, wanted))
      continue;
    const unwatched left{x.state_folder, x.mark, known_spec(x.config)};
    if (left.count() > 0)
      result.push_back({std::move(x), left.count()});
  }
  return result;
}

std::string text_of(const left_place& x) {
  const auto config = x.where.config.empty() ? "CONFIG" : x.where.config;
  return "pup: '" + x.where.name + "': supervisor and guardian were killed, "
         + process_count(x.processes)
         + " of it go on unwatched; end them with pup terminate --name "
         + x.where.name + ", or begin anew with pup start " + config;
}

std::optional<std::string> end_unwatched(
    const abandoned_place& where,
    const std::function<void(const std::string&)>& told) {
  const auto locked = lock_state(where.state_folder, where.name);
  if (const auto* error = std::get_if<place_error>(&locked)) {
    if (error->code == place_errc::already_running)
      return std::nullopt;
    return "pup: " + error->text;
  }
  const auto& lock = std::get<unique_fd>(locked);
  sign(lock.get());
  const auto spec = known_spec(where.config);
  const unwatched left{where.state_folder, where.mark, spec};
  if (left.count() > 0)
    told("pup: '" + where.name + "': ending what a killed supervisor left: "
         + process_count(left.count()));
  if (const auto stay = left.end(spec, -1); stay > 0)
    return "pup: '" + where.name + "': " + process_count(stay)
           + " of a killed supervisor cannot be ended; end them, then try "
             "again";
  auto fault = note_end(where.state_folder);
  if (::ftruncate(lock.get(), 0) != 0 && !fault)
    fault = where.state_folder + ": cannot be cleared";
  return fault;
}

bool await_heirs(const std::string& name, const environment& env,
                 std::chrono::steady_clock::time_point deadline) {
  // Between the lock and the name of who has it there is a moment.
  constexpr std::chrono::milliseconds moment{10};
  for (;;) {
    const auto heir = holder_of_state(name, env);
    if (!heir || is_guardian(parent_of(heir->pid)))
      return true;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0)
      return false;
    const auto pidfd = open_pidfd(heir->pid);
    pollfd end{pidfd.get(), POLLIN, 0};
    const auto pause = pidfd ? left : std::min(left, moment);
    if (::poll(&end, 1, static_cast<int>(pause.count())) < 0 && errno != EINTR)
      return false;
    if (end.revents != 0)  // its lock goes a moment later
      ::poll(nullptr, 0, static_cast<int>(moment.count()));
  }
}

}  // namespace pup
