// The keys of an application as PM2 reads them: several spellings of one, what
// counts as missing, texts that are lists of words. Used by
// config/import_pm2*.cpp only.
#pragma once

#include "pup/config/import_draft.hpp"

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pup::importing {

/// Of one application, an object; remembers which keys were asked for. Each
/// question takes the first of several names that there is. Notes begin with
/// `origin`, such as "apps[0]".
class pm2_keys {
public:
  using names = std::initializer_list<std::string_view>;

  pm2_keys(draft& into, const json_value& x, std::string origin)
      : into_(into), x_(x), origin_(std::move(origin)) {}

  std::optional<json_value> find(std::string_view key) const;
  std::optional<json_value> take(names keys);
  /// A number counts as a text; an empty one is none.
  std::optional<std::string> text(names keys);
  std::optional<std::int64_t> number(names keys);
  std::optional<bool> truth(names keys);
  /// A list, or a text that is one.
  std::vector<std::string> words(names keys);

  /// Nothing is said about these.
  void pass_over(std::string_view key) {
    taken_.push_back(key);
  }
  /// Notes all keys that nobody has asked for.
  void tell_rest();

  void note(std::string_view key, std::string text) {
    into_.note(origin_ + '.' + std::string{key}, std::move(text));
  }
  void common_note(std::string_view key, const std::string& text) {
    into_.common_note(origin_ + '.' + std::string{key}, text);
  }

private:
  draft& into_;
  const json_value& x_;
  std::string origin_;
  std::vector<std::string_view> taken_;
};

/// As JSON.stringify writes it: what PM2 makes of an object in `env`.
std::string stringified(const json_value& x);

}  // namespace pup::importing
