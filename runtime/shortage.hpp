// Whether the machine gives what a program is going to need, asked before it
// begins: what is half begun ends badly, and says little.
#pragma once

#include <cstddef>
#include <string>

namespace pup {

struct needs {
  /// In messages: "pup start".
  std::string whom;
  /// At the same time, besides the one that asks.
  unsigned threads = 0;
  /// Besides those that are open.
  unsigned descriptors = 0;
  /// Besides the stacks of those threads.
  std::size_t memory_bytes = 0;
};

/// Whether this errno tells of something that the machine, or this process, has
/// run out of: nobody has done anything wrong, and it may be over in a moment.
bool is_shortage(int error) noexcept;

/// All of it is taken for a moment and given back. Where something is not to be
/// had, one sentence: what is short, how much of it there is, what to raise.
/// Empty: nothing is short. Any thread.
std::string find_shortage(const needs& x);

}  // namespace pup
