// Listening sockets in the guardian's hands: what the proxy and the groups of
// inherited sockets give away to be kept (listening.hpp), and get back.
//
// What is kept keeps a port from being free, so it is dropped as soon as its
// owner has closed. Any thread.
#pragma once

#include "pup/runtime/guardian_link.hpp"
#include "pup/runtime/listening.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace pup {

class socket_keeper {
public:
  /// Takes its sockets out of what `guardian` has inherited. Without one
  /// nothing is kept.
  explicit socket_keeper(std::shared_ptr<guardian_link> guardian);

  /// Whether anything is ever kept: else nobody needs to make duplicates.
  [[nodiscard]] bool works() const noexcept {
    return guardian_ != nullptr;
  }

  /// Whether a socket of this name is kept under `key`.
  [[nodiscard]] bool keeps(const std::string& key, const std::string& name);

  /// What an earlier supervisor had kept under `key`, in its order; once.
  kept_sockets take(const std::string& key);

  /// From now on these are kept under `key`. The first ones, which are kept
  /// already, are not sent again; fewer than before: all are replaced.
  void keep(const std::string& key, const kept_sockets& all);

private:
  const std::shared_ptr<guardian_link> guardian_;
  std::mutex mutex_;  // held for moments only
  std::map<std::string, kept_sockets> inherited_;
  std::map<std::string, std::vector<std::string>> names_;  // of what is kept
};

}  // namespace pup
