#include "pup/runtime/waiting_work.hpp"

#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace pup {

struct waiting_work::shared {
  explicit shared(std::size_t bound) : most(bound) {}

  const std::size_t most;
  std::mutex mutex;  // held while somebody is told
  std::size_t under_way = 0;
  bool wanted = true;
};

waiting_work::waiting_work(std::size_t most)
    : shared_(std::make_shared<shared>(most)) {}

waiting_work::~waiting_work() {
  const std::lock_guard guard{shared_->mutex};
  shared_->wanted = false;
}

std::string waiting_work::begin(std::function<tell_function()> work) {
  const std::lock_guard guard{shared_->mutex};
  if (shared_->under_way == shared_->most)
    return std::to_string(shared_->most)
           + " threads wait already for what does not answer";
  try {
    std::thread{[with = shared_, work = std::move(work)]() mutable {
      auto tell = work();
      work = nullptr;
      const std::lock_guard inner{with->mutex};
      --with->under_way;
      if (with->wanted && tell)
        tell();
    }}.detach();
  } catch (const std::system_error& error) {
    return "no thread for it: " + error.code().message();
  }
  ++shared_->under_way;
  return {};
}

}  // namespace pup
