// Regular expressions over lines that anybody may have written: matching takes
// time linear in the line, whatever the pattern, and bounded memory (RE2).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>

namespace pup {

class text_pattern {
public:
  /// Or what is wrong with it, in words.
  static std::variant<text_pattern, std::string> parse(
      const std::string& pattern);

  /// Whether it matches some part of `text`; of bytes that are not UTF-8, only
  /// what is around them.
  [[nodiscard]] bool matches(std::string_view text) const;

private:
  class impl;
  explicit text_pattern(std::shared_ptr<const impl> x) : impl_(std::move(x)) {}
  std::shared_ptr<const impl> impl_;
};

}  // namespace pup
