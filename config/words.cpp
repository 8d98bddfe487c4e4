#include "pup/config/words.hpp"

#include "pup/config/plain_text.hpp"

#include <algorithm>
#include <vector>

namespace pup {

namespace {

constexpr std::size_t most_shown_bytes = 40;
// Longer than every known word by far; keeps the edit distance cheap.
constexpr std::size_t most_compared_bytes = 40;

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
         || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '$';
}

std::string folded(std::string_view word) {
  std::string result;
  for (auto c : word) {
    if (c >= 'A' && c <= 'Z')
      result += static_cast<char>(c - 'A' + 'a');
    else if (c != '_' && c != '-')
      result += c;
  }
  return result;
}

// Insertions, deletions, replacements and swaps of neighbours (optimal string
// alignment), which is what slips of the fingers are.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> now(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j)
    last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      auto cost = a[i - 1] == b[j - 1] ? std::size_t{0} : std::size_t{1};
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + cost});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        now[j] = std::min(now[j], before[j - 2] + 1);
    }
    before.swap(last);
    last.swap(now);
  }
  return last[b.size()];
}

}  // namespace

std::string quote(std::string_view text, char mark) {
  auto end = text.size();
  if (end > most_shown_bytes) {
    end = most_shown_bytes;
    // Not in the middle of a UTF-8 sequence.
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u)
      --end;
  }
  return mark + shown(text.substr(0, end)) + (end < text.size() ? "..." : "")
         + mark;
}

std::string enumerate(std::span<const std::string_view> words, char mark,
                      std::string_view last) {
  std::string result;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0 && i + 1 == words.size())
      result.append(" ").append(last).append(" ");
    else if (i > 0)
      result += ", ";
    result += quote(words[i], mark);
  }
  return result;
}

std::optional<std::string_view> nearest(
    std::string_view word, std::span<const std::string_view> candidates) {
  if (word.size() > most_compared_bytes)
    return std::nullopt;
  auto wanted = folded(word);
  auto best = wanted.size() / 3 + 1;
  std::optional<std::string_view> result;
  for (auto candidate : candidates) {
    auto found = distance(wanted, folded(candidate));
    // A candidate of three letters is not one error away from every word of
    // two: it must share more than it lacks.
    if (found < best && found * 2 <= candidate.size()) {
      best = found;
      result = candidate;
    }
  }
  return result;
}

std::optional<std::string_view> advisor::nearest(
    std::string_view word, std::span<const std::string_view> candidates) {
  if (comparisons_ > most_comparisons)
    return std::nullopt;
  comparisons_ += candidates.size();
  return pup::nearest(word, candidates);
}

std::string member_path(const std::string& parent, std::string_view key) {
  if (key.empty() || !std::all_of(key.begin(), key.end(), is_plain))
    return parent + '[' + quote(key, '"') + ']';
  auto result = parent;
  if (!result.empty())
    result += '.';
  return result.append(key);
}

std::string element_path(const std::string& parent, std::size_t index) {
  return parent + '[' + std::to_string(index) + ']';
}

}  // namespace pup
