// Files under watch, as the deciders see them: a port of the world. Who sees to
// it, and how, is runtime's affair (runtime/watcher.hpp).
#pragma once

#include "pup/config/spec.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pup {

struct watch_request {
  /// Absolute, of files and folders; need not exist yet.
  std::vector<std::string> paths;
  watcher_spec rules;
};

struct watch_news {
  /// One of the files of a burst of changes that is over, in words: a path, or
  /// that there were too many to tell. Empty: no change, only `trouble` is new.
  std::string changed;
  /// Why not everything is watched; empty: everything is.
  std::string trouble;
};

struct file_watch {
  /// Watches until the result is destroyed, on any thread: then the calls of
  /// `tell` end, but for one that is under way. The default, for worlds without
  /// files, never tells anything.
  std::function<std::shared_ptr<void>(
      watch_request wanted, std::function<void(const watch_news&)> tell)>
      begin = [](watch_request, std::function<void(const watch_news&)>) {
        return std::shared_ptr<void>{};
      };
};

}  // namespace pup
