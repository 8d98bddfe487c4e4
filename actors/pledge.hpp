// An answer that is owed.
//
// A response promise that is dropped tells nobody, and whoever asked waits for
// ever. This one answers with an error when its last copy goes, as it does when
// the actor that holds it fails.
#pragma once

#include "pup/actors/protocol.hpp"

#include <memory>
#include <string>
#include <utility>

namespace pup {

template <class T>
class pledge {
public:
  explicit pledge(caf::typed_response_promise<T> promise,
                  std::string broken = "the control actor has ended")
      : shared_(
          std::make_shared<shared>(std::move(promise), std::move(broken))) {}

  /// The first answer counts.
  void keep(T value) const {
    if (!std::exchange(shared_->kept, true))
      shared_->promise.deliver(std::move(value));
  }
  void refuse(caf::error why) const {
    if (!std::exchange(shared_->kept, true))
      shared_->promise.deliver(std::move(why));
  }
  void refuse(fault code, std::string text) const {
    refuse(make_error(code, std::move(text)));
  }

private:
  struct shared {
    shared(caf::typed_response_promise<T> x, std::string text)
        : promise(std::move(x)), broken(std::move(text)) {}
    shared(const shared&) = delete;
    shared& operator=(const shared&) = delete;
    ~shared() {
      if (!kept)
        promise.deliver(make_error(fault::actor_failed, std::move(broken)));
    }

    caf::typed_response_promise<T> promise;
    std::string broken;
    bool kept = false;
  };

  std::shared_ptr<shared> shared_;
};

}  // namespace pup
