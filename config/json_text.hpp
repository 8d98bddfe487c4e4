// JSON text -> a tree of values that know where they stand in the text.
//
// Comments (// and /* */), trailing commas and a UTF-8 byte order mark are
// accepted. Boost.JSON decides what is JSON; it reports no positions, so the
// handler walks the text in step with its events. Hidden here: Boost.JSON, the
// flat storage of the tree, and how a syntax error is put in plain words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace pup {

enum class json_kind : std::uint8_t {
  null,
  boolean,
  number,
  string,
  array,
  object,
};

/// One fault that made the whole text unreadable.
struct text_fault {
  std::size_t offset = 0;  ///< in bytes, 0 to the size of the text
  std::string problem;
  std::string remedy;
};

struct json_member;

/// All values of a text in its order. Refers to the text it was made from.
class json_tree {
public:
  struct node {
    json_kind kind = json_kind::null;
    bool truth = false;
    std::uint32_t begin = 0;  // offsets of the value in the text
    std::uint32_t end = 0;
    std::uint32_t next = 0;          // index of the node behind this subtree
    std::uint32_t string_begin = 0;  // decoded string, in strings
    std::uint32_t string_size = 0;
  };

  std::string_view text;
  std::vector<node> nodes;  // nodes[0] is the root; an object's are key, value
  std::string strings;
};

/// One value. Valid as long as its tree and the text.
class json_value {
public:
  json_value(const json_tree& tree, std::uint32_t index)
      : tree_(&tree), index_(index) {}

  json_kind kind() const {
    return self().kind;
  }

  /// Where its first byte stands.
  std::size_t offset() const {
    return self().begin;
  }

  /// As written, with quotes and brackets.
  std::string_view raw() const {
    return tree_->text.substr(self().begin, self().end - self().begin);
  }

  /// Of a boolean.
  bool truth() const {
    return self().truth;
  }

  /// Of a string, with the escapes decoded.
  std::string_view string() const {
    return std::string_view{tree_->strings}.substr(self().string_begin,
                                                   self().string_size);
  }

  /// Of an array.
  std::vector<json_value> elements() const;

  /// Of an object, in the order of the text; duplicates included.
  std::vector<json_member> members() const;

private:
  const json_tree::node& self() const {
    return tree_->nodes[index_];
  }

  const json_tree* tree_;
  std::uint32_t index_;
};

struct json_member {
  json_value key;  // a string
  json_value value;
};

/// Parses `text`, which must outlive the result. At most bounds::config_bytes
/// long and bounds::nesting deep; a tree takes 24 bytes for each value.
std::variant<json_tree, text_fault> parse_json(std::string_view text);

/// Equal for values that mean the same: blanks, comments and the order of
/// members do not count, how a number is written does. 64 bits of FNV-1a, the
/// same in every version, never 0.
std::uint64_t fingerprint(const json_value& x);

/// Offsets -> lines and columns, both from 1, columns in bytes. A byte order
/// mark takes no column.
class line_table {
public:
  struct position {
    std::size_t line;
    std::size_t column;
  };

  explicit line_table(std::string_view text);

  position at(std::size_t offset) const;

private:
  std::vector<std::size_t> starts_;
};

}  // namespace pup
