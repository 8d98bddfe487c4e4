// Reads JSON values as the types that a configuration is made of, and collects
// what does not fit.
//
// A value of the wrong type or out of range is reported with its path and gives
// an empty optional; reading goes on, so that all faults come out at once.
// Hidden here: how a fault finds its place in the text, and how a fault that
// only follows from another one is kept back.
#pragma once

#include "pup/config/json_text.hpp"
#include "pup/config/load.hpp"
#include "pup/config/rules.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace pup {

/// One value with its path.
struct spot {
  json_value value;
  std::string path;
  std::size_t key_offset = 0;  ///< of the key in front of it; else of the value
};

/// The keys of one kind of object, and where a misplaced one belongs.
struct key_set {
  std::string_view owner;  ///< "a process"
  std::span<const std::string_view> keys;
  /// Advice for keys that belong elsewhere, or are other programs' words.
  std::span<const std::pair<std::string_view, std::string_view>> strays;
  /// The first of `keys` to list when nothing is near; 0: all.
  std::size_t offered = 0;
};

/// An opened object.
class fields {
public:
  std::optional<spot> find(std::string_view key) const;

  const std::vector<std::pair<std::string_view, spot>>& all() const {
    return members_;
  }

private:
  friend class reader;

  std::vector<std::pair<std::string_view, spot>> members_;
};

class reader {
public:
  /// All arguments must outlive the reader.
  reader(std::string_view text, const std::string& file)
      : file_(file), lines_(text) {}

  // -- faults -----------------------------------------------------------------

  void blame(std::size_t offset, const std::string& path, std::string problem,
             std::string remedy);
  void blame(const spot& x, std::string problem, std::string remedy);
  void blame_key(const spot& x, std::string problem, std::string remedy);

  /// Reports a broken rule where its value stands, unless something that it
  /// depends on was already reported.
  void blame(const broken_rule& x);

  /// Rules about `path` stand at, and are shown as, `x`; for a key that has
  /// two spellings.
  void alias(const std::string& path, const spot& x);

  /// Keeps back every broken rule about this path.
  void spoil(const std::string& path) {
    spoiled_.insert(path);
  }

  /// True when nothing is wrong with the value at this path or around it.
  bool is_sound(const std::string& path) const;

  /// Number of faults so far.
  std::size_t faults() const {
    return faults_.size();
  }

  /// All of them, in the order of the text.
  std::vector<diagnostic> take();

  // -- values -----------------------------------------------------------------

  /// Reports unknown and duplicate keys. Empty when `x` is no object.
  std::optional<fields> object(const spot& x, const key_set& keys,
                               const std::string& remedy);
  /// The same with free keys.
  std::optional<fields> object(const spot& x, const std::string& remedy);
  /// One of more than `most` elements is a fault.
  std::optional<std::vector<spot>> array(
      const spot& x, const std::string& remedy,
      std::size_t most = bounds::config_bytes);
  std::optional<std::string> text(const spot& x);
  std::optional<bool> boolean(const spot& x);
  /// `what` as in "a port"; `or_else` is appended to the remedy.
  std::optional<std::int64_t> whole(const spot& x, std::int64_t least,
                                    std::int64_t most, std::string_view what,
                                    std::string_view or_else = {});
  /// In milliseconds, at most bounds::duration_ms.
  std::optional<std::chrono::milliseconds> duration(const spot& x, bool seconds,
                                                    std::int64_t least_ms);
  /// Those of `table` that are among `parts`, into the members of `into`.
  template <class Spec, class Table>
  void durations(const fields& parts, const Table& table, Spec& into) {
    for (auto& key : table)
      if (auto x = parts.find(key.key))
        into.*key.member =
            duration(*x, key.seconds, key.least).value_or(into.*key.member);
  }
  /// Index of one of `words`, of which a fault lists the first `offered`.
  std::optional<std::size_t> choice(const spot& x,
                                    std::span<const std::string_view> words,
                                    std::string_view what,
                                    std::size_t offered = 100);
  /// The member, or a fault about its absence.
  std::optional<spot> required(const spot& owner, const fields& x,
                               std::string_view key, std::string remedy);

private:
  struct fault {
    std::size_t offset;
    std::string path;
    std::string problem;
    std::string remedy;
  };

  struct place {
    std::size_t offset = 0;
    std::string shown{};  // the path that faults name; empty: its own
  };

  void remember(const spot& x);
  std::optional<place> place_of(std::string_view path) const;
  fields members(const spot& x);
  void blame_unknown(const spot& x, std::string_view key, const key_set& keys);

  const std::string& file_;
  line_table lines_;
  std::vector<fault> faults_;
  bool overflow_ = false;
  std::unordered_set<std::string> spoiled_;
  std::unordered_map<std::string, place> places_;
  // Where the elements of each array stand, by its path: a place for each of a
  // million would take longer than all else.
  std::unordered_map<std::string, std::vector<std::size_t>> elements_;
};

/// What a value is, for "... is not a port": a short value as written, "an
/// array", "an object".
std::string describe(const json_value& x);

/// "64M" (K, M, G, T: powers of 1024) or a plain number of bytes; empty: it is
/// neither, or above 64 bits.
std::optional<std::uint64_t> bytes_of(std::string_view text);

}  // namespace pup
