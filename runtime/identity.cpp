#include "pup/runtime/identity.hpp"

#include "pup/runtime/descendants.hpp"
#include "pup/runtime/text_file.hpp"

namespace pup {

std::optional<std::uint64_t> start_time_of(pid_t pid) {
  const auto x = stat_of(pid);
  return x ? std::optional{x->started} : std::nullopt;
}

std::string boot_id() {
  auto read = read_text("/proc/sys/kernel/random/boot_id", 4'096);
  auto* text = std::get_if<std::string>(&read);
  if (text == nullptr)
    return {};
  text->erase(text->find_last_not_of(" \n") + 1);
  return std::move(*text);
}

}  // namespace pup
