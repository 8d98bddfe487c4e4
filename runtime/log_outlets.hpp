// Where lines go besides the store: text files, each shared by all streams that
// name it, and the console.
//
// One thread, which also watches the consoles with the given epoll.
#pragma once

#include "pup/config/spec.hpp"
#include "pup/runtime/log_console.hpp"
#include "pup/runtime/log_file.hpp"
#include "pup/runtime/log_loss.hpp"
#include "pup/runtime/log_text.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace pup {

class log_outlets {
public:
  using time_point = std::chrono::system_clock::time_point;
  /// Compresses a file, or does not, and calls `then` when it has.
  using compressor =
      std::function<void(const std::string& path, std::function<void()> then)>;

  class file {
    friend class log_outlets;

  public:
    file(std::string path, const log_file_rules& rules,
         std::function<void(const std::string&)> full)
        : to_(std::move(path), rules, std::move(full)) {}

  private:
    log_file to_;
    std::size_t users_ = 0;
    log_loss unsaid_;
    std::string last_id_;  // of those that lost something
  };

  /// The outlets of one stream.
  struct choice {
    file* to = nullptr;  ///< from open()
    bool console = false;
    bool decorate_files = false;
    bool json = false;

    [[nodiscard]] bool any() const noexcept {
      return to != nullptr || console;
    }
  };

  /// `out` and `err`: descriptors of the console; -1: none. `epoll` outlives
  /// this.
  log_outlets(const logger_spec& rules, int out, int err, int epoll,
              compressor compress);
  log_outlets(const log_outlets&) = delete;
  log_outlets& operator=(const log_outlets&) = delete;

  /// Standard output has the one, everything else the other.
  [[nodiscard]] bool has_console(log_stream x) const {
    return consoles_[x == log_stream::out ? 0 : 1].to.has_value();
  }

  /// The file of that name, for a process of that user. Each open() needs its
  /// release().
  file* open(const std::string& path, std::optional<uid_t> user);
  void release(file* x);

  /// Whole lines of one stream, read at `now`. `losses` may be null.
  void write(const choice& to, const std::string& id, log_stream stream,
             std::string_view lines, time_point now, log_losses* losses);

  /// Of an event whose data is `who`: whether it was one of the consoles.
  bool on_event(const void* who);

  /// Whether something was lost that has not been said.
  [[nodiscard]] bool any_loss() const noexcept {
    return any_loss_;
  }
  /// Says what was lost: true when that has been taken down.
  using listener =
      std::function<bool(const std::string& id, const std::string& text)>;
  void say_losses(const listener& say);

  /// Files are opened by their names again.
  void reopen();

  /// Waits a moment for consoles that have not taken everything.
  void finish();

private:
  struct console {
    std::optional<log_console> to;
    bool watched = false;
  };

  void watch(console& x);
  std::string_view rendered(const std::string& id, log_stream stream,
                            std::string_view lines, time_point now,
                            const line_style& style);

  logger_spec rules_;
  int epoll_;
  compressor compress_;
  std::array<console, 2> consoles_;
  std::map<std::string, file> files_;
  bool any_loss_ = false;
  std::string scratch_;
};

}  // namespace pup
