// How many launches may be under way at once.
//
// Until its process has them, a launch has descriptors of this process open
// besides the two read ends that stay: the ends for the process, and copies of
// them all while the spawner has no time for it. Hundreds that begin at once
// would have the last of them find none, though there is room for all of them
// one after the other.
#pragma once

#include <cstddef>

namespace pup {

class launch_budget {
public:
  enum class leave {
    given,    ///< there is room for it
    alone,    ///< there may be none, but no other launch will make any
    refused,  ///< not before one that is under way is over
  };

  /// Of one launch, of all kinds: two pipes, copies of both ends, what its
  /// readiness is told by, an inherited socket.
  static constexpr std::size_t of_launch = 12;
  /// For all else that a supervisor opens: clients, files, commands.
  static constexpr std::size_t for_others = 16;

  /// Unless it is refused one more is under way.
  leave ask();
  /// One that was under way is over.
  void done();

  [[nodiscard]] std::size_t under_way() const noexcept {
    return under_way_;
  }

private:
  std::size_t under_way_ = 0;
  // What the next ones may take before it has to be counted again: counting
  // takes as long as there are descriptors.
  std::size_t known_free_ = 0;
};

/// How many more descriptors this process may open. Any thread.
std::size_t free_descriptors();

}  // namespace pup
