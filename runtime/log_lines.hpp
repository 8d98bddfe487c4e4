// Cuts the output of one stream into blocks of whole lines.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace pup {

/// Keeps what follows the last newline until the rest of the line comes.
class line_blocks {
public:
  /// A line that is longer is cut into lines of this size: a text file that
  /// several streams share cannot wait for its end.
  static constexpr std::size_t most_kept_bytes = 64 * 1024;

  /// Calls `emit` with views of whole lines, one or several at a time.
  template <class Emit>
  void feed(std::string_view bytes, Emit emit) {
    while (!rest_.empty() && !bytes.empty()) {
      const auto end = bytes.find('\n');
      const auto wanted =
          end == std::string_view::npos ? bytes.size() : end + 1;
      const auto room = most_kept_bytes - rest_.size();
      rest_.append(bytes.substr(0, std::min(wanted, room)));
      bytes.remove_prefix(std::min(wanted, room));
      if (rest_.back() == '\n' || rest_.size() >= most_kept_bytes)
        finish(emit);
    }
    const auto end = bytes.rfind('\n');
    if (end != std::string_view::npos) {
      emit(bytes.substr(0, end + 1));
      bytes.remove_prefix(end + 1);
    }
    for (; bytes.size() >= most_kept_bytes;
         bytes.remove_prefix(most_kept_bytes)) {
      rest_.assign(bytes.substr(0, most_kept_bytes));
      finish(emit);
    }
    rest_.append(bytes);
  }

  /// Another has emitted what came before, but not this beginning of a line.
  void resume(std::string_view begun) {
    rest_ = begun.substr(begun.size() - begun.size() % most_kept_bytes);
  }

  /// The line that has no end yet.
  [[nodiscard]] std::string_view begun() const noexcept {
    return rest_;
  }

  /// No more comes: what is left is a line.
  template <class Emit>
  void finish(Emit emit) {
    if (rest_.empty())
      return;
    if (rest_.back() != '\n')
      rest_ += '\n';
    const auto line = std::exchange(rest_, {});
    emit(std::string_view{line});
  }

private:
  std::string rest_;
};

}  // namespace pup
