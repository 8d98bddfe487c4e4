// Listening sockets in the guardian's hands: what the proxy and the groups of
// inherited sockets give away to be kept (listening.hpp), and get back.
//
// What is kept keeps a port from being free, so it is dropped as soon as its
// owner has closed. Any thread.
//
// And those that a service manager has opened (socket activation), which nobody
// here ever closes for others.
#pragma once

#include "pup/runtime/guardian_link.hpp"
#include "pup/runtime/listening.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace pup {

class socket_keeper {
public:
  /// Takes its sockets out of what `guardian` has inherited. Without one
  /// nothing is kept. `given`: by a service manager, to this process.
  explicit socket_keeper(std::shared_ptr<guardian_link> guardian,
                         std::vector<unique_fd> given = {});

  /// Whether anything is ever kept: else nobody needs to make duplicates.
  [[nodiscard]] bool works() const noexcept {
    return guardian_ != nullptr;
  }

  /// Whether a socket of this name is kept under `key`.
  [[nodiscard]] bool keeps(const std::string& key, const std::string& name);

  /// What an earlier supervisor had kept under `key`, in its order; once.
  kept_sockets take(const std::string& key);

  /// A duplicate of the socket that a service manager has opened there (as
  /// listener_options say it), if it has.
  [[nodiscard]] unique_fd given(const std::string& host,
                                std::uint16_t port) const;

  /// From now on these are kept under `key`. The first ones, which are kept
  /// already, are not sent again; fewer than before: all are replaced.
  void keep(const std::string& key, const kept_sockets& all);

private:
  const std::shared_ptr<guardian_link> guardian_;
  std::vector<unique_fd> given_;
  std::mutex mutex_;  // held for moments only
  std::map<std::string, kept_sockets> inherited_;
  std::map<std::string, std::vector<std::string>> names_;  // of what is kept
};

}  // namespace pup
