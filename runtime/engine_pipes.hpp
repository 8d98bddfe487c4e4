// Pipes that bulky ways of one loop borrow for splice(2).
#pragma once

#include "pup/runtime/engine.hpp"

#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace pup {

struct pipe_ends {
  unique_fd out{};
  unique_fd in{};
};

/// A bulky way borrows a pipe while bytes are in it; an idle one holds none.
class pipe_pool {
public:
  /// Without ends when the bound is reached or the kernel gives none: then
  /// bytes are copied.
  pipe_ends take() {
    if (!free_.empty()) {
      auto result = std::move(free_.back());
      free_.pop_back();
      return result;
    }
    if (pipes_ == bounds::pipes)
      return {};
    int fds[2];
    if (::pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0)
      return {};
    pipe_ends result{unique_fd(fds[0]), unique_fd(fds[1])};
    // 1 MiB halves the CPU time of several streams against 64 KiB. Beyond
    // the user's share of pipe pages the kernel grants less, or nothing: then
    // what a new pipe has must do.
    for (const int bytes : {1 << 20, 256 << 10, 64 << 10})
      if (::fcntl(result.in.get(), F_SETPIPE_SZ, bytes) >= 0)
        break;
    ++pipes_;
    return result;
  }

  void give_back(pipe_ends pipe, bool empty) {
    if (!pipe.in)
      return;
    if (empty)
      free_.push_back(std::move(pipe));
    else
      --pipes_;  // closed with what is in it
  }

private:
  std::vector<pipe_ends> free_;
  std::size_t pipes_ = 0;
};

}  // namespace pup
