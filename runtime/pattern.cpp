#include "pup/runtime/pattern.hpp"

#include <re2/re2.h>

namespace pup {

namespace {

// Program and automaton together. RE2's own bound of 8 MiB is as much as pup.
constexpr int most_bytes = 1 << 20;

re2::RE2::Options options() {
  re2::RE2::Options result;
  result.set_max_mem(most_bytes);
  result.set_log_errors(false);
  return result;
}

}  // namespace

class text_pattern::impl {
public:
  explicit impl(const std::string& pattern) : expression(pattern, options()) {}

  re2::RE2 expression;
};

std::variant<text_pattern, std::string> text_pattern::parse(
    const std::string& pattern) {
  auto x = std::make_shared<impl>(pattern);
  if (!x->expression.ok())
    return x->expression.error();
  return text_pattern{std::move(x)};
}

bool text_pattern::matches(std::string_view text) const {
  return re2::RE2::PartialMatch(re2::StringPiece{text.data(), text.size()},
                                impl_->expression);
}

}  // namespace pup
