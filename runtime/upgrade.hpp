// `pup upgrade`: a running supervisor makes room for one from the program that
// is on the disk now, without touching a process, a port or a connection.
//
// Nothing but a signal (guard::upgrade_signal) is said to the running one, and
// nothing is read but its files, as the two programs may be of versions that do
// not understand each other.
#pragma once

#include "pup/runtime/place.hpp"

#include <chrono>
#include <string>

namespace pup {

struct upgrade_outcome {
  bool done = false;
  std::string
      text;  ///< a line for people: what became of it, or why it did not
};

/// Upgrades `x` and waits until a successor can be reached.
upgrade_outcome upgrade(const running& x, const environment& env,
                        std::chrono::milliseconds limit);

}  // namespace pup
