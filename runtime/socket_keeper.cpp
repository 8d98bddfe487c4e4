#include "pup/runtime/socket_keeper.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

namespace pup {

namespace {

// "socket/PLACE/KEY/NAME"; the place has this many digits, so that the order of
// the names is that of the places.
constexpr std::string_view prefix = "socket/";
constexpr std::size_t place_digits = 6;

std::string name_of(const std::string& key, std::size_t place,
                    const std::string& name) {
  auto digits = std::to_string(place);
  digits.insert(0, place_digits - digits.size(), '0');
  return std::string{prefix} + digits + '/' + key + '/' + name;
}

}  // namespace

socket_keeper::socket_keeper(std::shared_ptr<guardian_link> guardian,
                             std::vector<unique_fd> given)
    : guardian_(std::move(guardian)), given_(std::move(given)) {
  if (!guardian_)
    return;
  auto& held = guardian_->inherited().held;
  for (auto& [_, socket] : take_held(held, guard::service_socket_prefix))
    given_.push_back(std::move(socket));
  for (auto& [full_name, socket] : take_held(held, prefix)) {
    const std::string_view name = full_name;
    const auto key_begin = prefix.size() + place_digits + 1;
    const auto key_end = name.rfind('/');
    if (key_end != std::string_view::npos && key_end > key_begin) {
      std::string key{name.substr(key_begin, key_end - key_begin)};
      inherited_[key].push_back(
          {std::string{name.substr(key_end + 1)}, std::move(socket)});
      names_[key].push_back(full_name);
    }
  }
}

bool socket_keeper::keeps(const std::string& key, const std::string& name) {
  const std::lock_guard guard{mutex_};
  const auto found = names_.find(key);
  return found != names_.end()
         && std::any_of(
             found->second.begin(), found->second.end(),
             [&](const std::string& x) { return x.ends_with('/' + name); });
}

kept_sockets socket_keeper::take(const std::string& key) {
  const std::lock_guard guard{mutex_};
  auto found = inherited_.extract(key);
  return found.empty() ? kept_sockets{} : std::move(found.mapped());
}

unique_fd socket_keeper::given(const std::string& host,
                               std::uint16_t port) const {
  for (const auto& x : given_)
    if (!not_listening(x) && is_bound_to(x, host, port))
      return duplicate(x);
  return unique_fd{};
}

void socket_keeper::keep(const std::string& key, const kept_sockets& all) {
  if (!guardian_)
    return;
  const std::lock_guard guard{mutex_};
  auto& names = names_[key];
  if (all.size() < names.size())
    for (const auto& x : std::exchange(names, {}))
      guardian_->drop(x);
  while (names.size() < all.size()) {
    const auto& next = all[names.size()];
    names.push_back(name_of(key, names.size(), next.name));
    guardian_->hold(names.back(), next.socket.get());
  }
  if (names.empty())
    names_.erase(key);
}

}  // namespace pup
