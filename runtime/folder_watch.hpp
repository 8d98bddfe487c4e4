// Whether a folder is still where it was, or can be made where it has been.
//
// A folder goes in many ways: it is removed with all that is in it, it or one
// above it is renamed, what it was mounted on is unmounted. Each is an event,
// and so is the return of what it stood in; nothing is asked again and again.
// The kernel tells of the end of a folder that is open somewhere only when it
// is closed, so the one above is watched for that.
#pragma once

#include <functional>
#include <memory>
#include <string>

namespace boost::asio {
class io_context;
}

namespace pup {

class folder_watch {
public:
  /// Watches `folder`, an absolute path that need not exist. `look` is called
  /// when something in it was removed or renamed, or when it may have gone or
  /// may be made again; on the thread of the loop, some 100 ms later, so that
  /// whoever removes a whole tree is done. Throws std::system_error.
  folder_watch(boost::asio::io_context& loop, std::string folder,
               std::function<void()> look);
  folder_watch(const folder_watch&) = delete;
  folder_watch& operator=(const folder_watch&) = delete;
  /// Nothing is called any more. On the thread of the loop, or after its end.
  ~folder_watch();

private:
  class impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace pup
