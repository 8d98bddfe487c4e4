#include "pup/config/json_text.hpp"

#include "pup/config/plain_text.hpp"
#include "pup/config/spec.hpp"
#include "pup/config/words.hpp"

#include <boost/json/basic_parser_impl.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

namespace pup {

namespace {

namespace json = boost::json;

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool is_bracket(char c) {
  return c == '[' || c == ']' || c == '{' || c == '}';
}

// Part of a number or of a bare word, whether that is JSON or not.
bool is_word(char c) {
  return !is_space(c) && !is_bracket(c) && c != ',' && c != ':' && c != '"'
         && c != '/';
}

std::string_view word_at(std::string_view text, std::size_t begin) {
  auto end = begin;
  while (end < text.size() && is_word(text[end]))
    ++end;
  return text.substr(begin, end - begin);
}

std::optional<text_fault> find_bad_utf8(std::string_view text) {
  constexpr char digits[] = "0123456789abcdef";
  for (std::size_t i = 0; i < text.size();) {
    auto size = utf8_size(text.substr(i));
    if (size == 0) {
      auto byte = static_cast<unsigned char>(text[i]);
      std::string hex{digits[byte >> 4u], digits[byte & 0xFu]};
      return text_fault{i, "byte 0x" + hex + " is not UTF-8",
                        "save the file as UTF-8"};
    }
    i += size;
  }
  return std::nullopt;
}

// Offset behind the string that starts at `begin`, or behind the text.
std::size_t skip_string(std::string_view text, std::size_t begin) {
  auto i = begin + 1;
  while (i < text.size() && text[i] != '"')
    i += text[i] == '\\' ? 2 : 1;
  return std::min(i + 1, text.size());
}

// Turns comments and the byte order mark into spaces, so that every offset
// stays. Not left to Boost.JSON, which (1.81) does not see the end of `**/`.
std::optional<text_fault> blank_comments(std::string& text) {
  auto blank = [&text](std::size_t begin, std::size_t end) {
    for (auto i = begin; i < end; ++i)
      if (text[i] != '\n')
        text[i] = ' ';
  };
  if (text.starts_with(byte_order_mark))
    blank(0, byte_order_mark.size());
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] == '"') {
      i = skip_string(text, i);
    } else if (text.compare(i, 2, "//") == 0) {
      auto end = std::min(text.find('\n', i), text.size());
      blank(i, end);
      i = end;
    } else if (text.compare(i, 2, "/*") == 0) {
      auto end = text.find("*/", i + 2);
      if (end == std::string::npos)
        return text_fault{i, "this comment has no end", "add */"};
      blank(i, end + 2);
      i = end + 2;
    } else {
      ++i;
    }
  }
  return std::nullopt;
}

enum class token : std::uint8_t { none, open, close, key, string, scalar };

// Builds the tree. `cursor` stands behind the last token that Boost.JSON has
// reported, so the next one is the first byte that is no space, comma or colon.
struct tree_builder {
  static constexpr std::size_t max_object_size =
      std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_array_size = max_object_size;
  static constexpr std::size_t max_key_size = max_object_size;
  static constexpr std::size_t max_string_size = max_object_size;

  explicit tree_builder(std::string_view blanked) : text(blanked) {}

  std::string_view text;
  std::vector<json_tree::node> nodes;
  std::string strings;
  std::vector<std::uint32_t> open;
  std::size_t cursor = 0;
  std::size_t last_begin = 0;
  token last = token::none;

  static std::uint32_t narrow(std::size_t x) {
    return static_cast<std::uint32_t>(x);  // at most bounds::config_bytes
  }

  void begin_token(token kind) {
    while (cursor < text.size()
           && (is_space(text[cursor]) || text[cursor] == ','
               || text[cursor] == ':'))
      ++cursor;
    last_begin = cursor;
    last = kind;
  }

  json_tree::node& add(json_kind kind, std::size_t size) {
    cursor = std::min(last_begin + size, text.size());
    auto& x = nodes.emplace_back();
    x.kind = kind;
    x.begin = narrow(last_begin);
    x.end = narrow(cursor);
    x.next = narrow(nodes.size());
    return x;
  }

  bool begin_group(json_kind kind) {
    begin_token(token::open);
    add(kind, 1);
    open.push_back(narrow(nodes.size() - 1));
    return true;
  }

  bool end_group() {
    begin_token(token::close);
    cursor = std::min(cursor + 1, text.size());
    auto& x = nodes[open.back()];
    x.end = narrow(cursor);
    x.next = narrow(nodes.size());
    open.pop_back();
    return true;
  }

  bool add_string(token kind, std::string_view part, std::size_t size) {
    strings += part;
    begin_token(kind);
    auto& x =
        add(json_kind::string, skip_string(text, last_begin) - last_begin);
    x.string_begin = narrow(strings.size() - size);
    x.string_size = narrow(size);
    return true;
  }

  bool add_number() {
    begin_token(token::scalar);
    add(json_kind::number, word_at(text, last_begin).size());
    return true;
  }

  // The events of Boost.JSON.

  bool on_document_begin(json::error_code&) {
    return true;
  }
  bool on_document_end(json::error_code&) {
    return true;
  }
  bool on_object_begin(json::error_code&) {
    return begin_group(json_kind::object);
  }
  bool on_object_end(std::size_t, json::error_code&) {
    return end_group();
  }
  bool on_array_begin(json::error_code&) {
    return begin_group(json_kind::array);
  }
  bool on_array_end(std::size_t, json::error_code&) {
    return end_group();
  }
  bool on_key_part(json::string_view x, std::size_t, json::error_code&) {
    strings.append(x.data(), x.size());
    return true;
  }
  bool on_key(json::string_view x, std::size_t n, json::error_code&) {
    return add_string(token::key, {x.data(), x.size()}, n);
  }
  bool on_string_part(json::string_view x, std::size_t, json::error_code&) {
    strings.append(x.data(), x.size());
    return true;
  }
  bool on_string(json::string_view x, std::size_t n, json::error_code&) {
    return add_string(token::string, {x.data(), x.size()}, n);
  }
  bool on_number_part(json::string_view, json::error_code&) {
    return true;
  }
  bool on_int64(std::int64_t, json::string_view, json::error_code&) {
    return add_number();
  }
  bool on_uint64(std::uint64_t, json::string_view, json::error_code&) {
    return add_number();
  }
  bool on_double(double, json::string_view, json::error_code&) {
    return add_number();
  }
  bool on_bool(bool x, json::error_code&) {
    begin_token(token::scalar);
    add(json_kind::boolean, x ? 4 : 5).truth = x;
    return true;
  }
  bool on_null(json::error_code&) {
    begin_token(token::scalar);
    add(json_kind::null, 4);
    return true;
  }
  bool on_comment_part(json::string_view, json::error_code&) {
    return true;
  }
  bool on_comment(json::string_view, json::error_code&) {
    return true;
  }
};

// What is wrong at `offset`, the byte that Boost.JSON refused. All it says is
// "syntax error"; what was expected follows from the last token and from the
// commas and colons behind it.
class syntax_error {
public:
  syntax_error(const tree_builder& builder, std::size_t offset)
      : text_(builder.text), builder_(builder), offset_(offset) {
    begin_ = builder.cursor;
    while (begin_ < offset_ && !is_token(text_[begin_])) {
      comma_ = comma_ || text_[begin_] == ',';
      colon_ = colon_ || text_[begin_] == ':';
      ++begin_;
    }
  }

  /// Start of the token that holds the refused byte.
  std::size_t begin() const {
    return begin_;
  }

  text_fault explain() const {
    if (begin_ < offset_ && text_[begin_] == '"')
      return bad_string();
    if (begin_ < offset_)
      return bad_value();
    if (offset_ >= text_.size())
      return early_end();
    if (follows_scalar_directly())
      return bad_number();
    if (text_[offset_] == '\'')
      return {offset_, "single quotes are not JSON", "use double quotes"};
    if (text_[offset_] == '#')
      return {offset_, "`#` starts no comment in JSON", "use //"};
    if (static_cast<unsigned char>(text_[offset_]) < 0x20)
      return {offset_, "control character " + quote(text_.substr(offset_, 1)),
              "remove it"};
    if (expects_colon())
      return missing_colon();
    if (expects_key())
      return bad_key();
    if (expects_value())
      return bad_value();
    return missing_comma();
  }

private:
  static bool is_token(char c) {
    return !is_space(c) && c != ',' && c != ':';
  }

  bool in_object() const {
    return !builder_.open.empty()
           && builder_.nodes[builder_.open.back()].kind == json_kind::object;
  }

  bool expects_colon() const {
    return builder_.last == token::key && !colon_;
  }

  bool expects_key() const {
    return in_object() && builder_.last != token::key
           && (builder_.last == token::open || comma_);
  }

  bool expects_value() const {
    return builder_.last == token::none || builder_.last == token::key
           || builder_.last == token::open || comma_;
  }

  bool follows_scalar_directly() const {
    return builder_.last == token::scalar && offset_ <= builder_.cursor
           && is_word(text_[offset_]);
  }

  // `[` or `{`, which byte closes it, and where it stands.
  std::string unclosed() const {
    auto begin = builder_.nodes[builder_.open.back()].begin;
    return std::string{"the `"} + text_[begin] + "` of line "
           + std::to_string(line_table{text_}.at(begin).line);
  }

  std::string closer() const {
    return in_object() ? "`}`" : "`]`";
  }

  // Inside `env` a word is a value whose quotes were forgotten: a secret.
  bool in_environment() const {
    return std::any_of(
        builder_.open.begin(), builder_.open.end(), [this](auto node) {
          auto before = text_.substr(0, builder_.nodes[node].begin);
          const auto strip = [&before] {
            while (!before.empty() && is_space(before.back()))
              before.remove_suffix(1);
          };
          strip();
          if (!before.ends_with(':'))
            return false;
          before.remove_suffix(1);
          strip();
          return before.ends_with("\"env\"");
        });
  }

  std::string shown(std::string_view word) const {
    return in_environment() ? "this" : quote(word);
  }

  std::string found() const {
    if (is_word(text_[offset_]))
      return shown(word_at(text_, offset_));
    return quote(text_.substr(offset_, 1));
  }

  text_fault early_end() const {
    if (builder_.open.empty())
      return {offset_, "the text ends too early", "complete it"};
    if (builder_.last == token::key)
      return {builder_.cursor, "the text ends behind a key",
              "add the value and close every bracket"};
    return {builder_.cursor,
            "the text ends before " + unclosed() + " is closed",
            "add " + closer()};
  }

  text_fault bad_string() const {
    if (offset_ >= text_.size())
      return {begin_, "this string has no closing quote", "add `\"`"};
    auto c = text_[offset_];
    if (c == '\n' || c == '\r')
      return {begin_, "this string does not end on its line",
              "add `\"`, or write a line break as \\n"};
    if (static_cast<unsigned char>(c) < 0x20)
      return {offset_,
              "control character " + quote(text_.substr(offset_, 1))
                  + " in a string",
              "write it as an escape, a tabulator as \\t"};
    auto escape = text_.rfind('\\', offset_);
    if (escape == std::string_view::npos || escape < begin_)
      escape = offset_;
    return {
        escape, quote(text_.substr(escape, 2)) + " starts no valid escape",
        "use \\\\ for a backslash, or \\\" \\/ \\b \\f \\n \\r \\t \\uXXXX"};
  }

  text_fault bad_number() const {
    auto word = word_at(text_, builder_.last_begin);
    auto zeros = word.find_first_not_of('0');
    bool padded =
        zeros != 0 && zeros != std::string_view::npos
        && word.find_first_not_of("0123456789.") == std::string_view::npos;
    if (padded)
      return {builder_.last_begin, shown(word) + " starts with a zero",
              "remove the leading zero"};
    return {builder_.last_begin, shown(word) + " is not a JSON value",
            "write a plain number, or put text in double quotes"};
  }

  text_fault missing_colon() const {
    if (text_[offset_] == '=')
      return {offset_, "found `=` behind a key", "write `:`"};
    return {offset_, "found " + found() + " behind a key, expected `:`",
            "put `:` between key and value"};
  }

  text_fault bad_key() const {
    auto c = text_[offset_];
    if (c == ',')
      return {offset_, "found `,`, expected a key", "remove the comma"};
    if (is_word(c))
      return {offset_, "key " + found() + " is not in quotes",
              "put it in double quotes"};
    return {offset_, "found " + found() + ", expected a key or `}`",
            c == ']' ? "add `}`" : "write a key in double quotes"};
  }

  text_fault bad_value() const {
    auto c = text_[begin_];
    if (c == ',' || c == ':' || is_bracket(c))
      return {begin_,
              "found " + quote(text_.substr(begin_, 1)) + ", expected a value",
              c == ',' ? "write a value or remove the comma" : "write a value"};
    static constexpr std::array<std::string_view, 3> literals{"true", "false",
                                                              "null"};
    auto word = is_word(c) ? word_at(text_, begin_) : text_.substr(begin_, 1);
    auto near = nearest(word, literals);
    if (near)
      return {begin_, shown(word) + " is not a JSON value",
              "did you mean " + quote(*near) + '?'};
    bool numeric = (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.';
    return {begin_, shown(word) + " is not a JSON value",
            numeric ? "write a plain number, such as 3000"
                    : "put text in double quotes"};
  }

  text_fault missing_comma() const {
    auto c = text_[offset_];
    if (c == ']' || c == '}')
      return {offset_,
              "found " + found() + " before " + unclosed() + " is closed",
              "add " + closer()};
    if (c == ':')
      return {
          offset_,
          in_object() ? "found `:` behind a value" : "found `:` in an array",
          in_object() ? "put a comma between two members"
                      : "put key and value in an object {...}"};
    return {offset_, "found " + found() + ", expected `,` or " + closer(),
            "put a comma behind the value before it"};
  }

  std::string_view text_;
  const tree_builder& builder_;
  std::size_t offset_;
  std::size_t begin_ = 0;  // of the token that holds offset_
  bool comma_ = false;
  bool colon_ = false;
};

text_fault explain(const tree_builder& builder, std::size_t offset,
                   const json::error_code& why) {
  if (why == json::error::too_deep)
    return {offset,
            "more than " + std::to_string(bounds::nesting)
                + " arrays and objects within each other",
            "remove the inner ones"};
  if (why == json::error::exponent_overflow)
    return {syntax_error{builder, offset}.begin(), "this number is too large",
            "write a smaller number"};
  return syntax_error{builder, offset}.explain();
}

}  // namespace

std::variant<json_tree, text_fault> parse_json(std::string_view text) {
  if (text.size() > bounds::config_bytes)
    return text_fault{0,
                      "the text has " + std::to_string(text.size())
                          + " bytes, more than "
                          + std::to_string(bounds::config_bytes),
                      "split it into several configurations"};
  if (auto fault = find_bad_utf8(text))
    return *fault;
  std::string blanked{text};
  if (auto fault = blank_comments(blanked))
    return *fault;
  if (std::all_of(blanked.begin(), blanked.end(), is_space))
    return text_fault{
        0,
        text.empty() ? "the file is empty" : "the file holds no configuration",
        "write an object with `processes`"};

  json::parse_options options;
  options.max_depth = bounds::nesting;
  options.allow_trailing_commas = true;
  json::basic_parser<tree_builder> parser{options, std::string_view{blanked}};
  json::error_code why;
  auto end = parser.write_some(false, blanked.data(), blanked.size(), why);
  auto& builder = parser.handler();
  if (why)
    return explain(builder, end, why);
  while (end < blanked.size() && is_space(blanked[end]))
    ++end;
  if (end < blanked.size())
    return text_fault{end,
                      "found "
                          + quote(word_at(blanked, end).empty()
                                      ? std::string_view{blanked}.substr(end, 1)
                                      : word_at(blanked, end))
                          + " behind the end of the configuration",
                      "remove it"};

  json_tree result;
  result.text = text;
  result.nodes = std::move(builder.nodes);
  result.strings = std::move(builder.strings);
  return result;
}

std::vector<json_value> json_value::elements() const {
  std::vector<json_value> result;
  for (auto i = index_ + 1; i < self().next; i = tree_->nodes[i].next)
    result.emplace_back(*tree_, i);
  return result;
}

std::vector<json_member> json_value::members() const {
  std::vector<json_member> result;
  for (auto i = index_ + 1; i < self().next; i = tree_->nodes[i + 1].next)
    result.push_back({json_value{*tree_, i}, json_value{*tree_, i + 1}});
  return result;
}

namespace {

class fnv1a {
public:
  void add(std::string_view bytes) {
    for (const char c : bytes)
      mix(static_cast<unsigned char>(c));
  }
  void add(std::uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8)
      mix((number >> shift) & 0xFF);
  }
  std::uint64_t result() const {
    return hash_ != 0 ? hash_ : 1;
  }

private:
  void mix(std::uint64_t byte) {
    hash_ = (hash_ ^ byte) * 0x100000001b3ULL;
  }

  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
};

}  // namespace

std::uint64_t fingerprint(const json_value& x) {
  fnv1a hash;
  hash.add(static_cast<std::uint64_t>(x.kind()));
  switch (x.kind()) {
    case json_kind::null:
    case json_kind::boolean:
    case json_kind::number:
      hash.add(x.raw());
      break;
    case json_kind::string:
      hash.add(x.string());
      break;
    case json_kind::array:
      for (const auto& element : x.elements())
        hash.add(fingerprint(element));
      break;
    case json_kind::object: {
      // A sum, which knows no order.
      std::uint64_t sum = 0;
      for (const auto& member : x.members()) {
        fnv1a one;
        one.add(fingerprint(member.key));
        one.add(fingerprint(member.value));
        sum += one.result();
      }
      hash.add(sum);
      break;
    }
  }
  return hash.result();
}

line_table::line_table(std::string_view text) {
  starts_.push_back(text.starts_with(byte_order_mark) ? byte_order_mark.size()
                                                      : 0);
  for (auto i = text.find('\n'); i != std::string_view::npos;
       i = text.find('\n', i + 1))
    starts_.push_back(i + 1);
}

line_table::position line_table::at(std::size_t offset) const {
  auto behind = std::upper_bound(starts_.begin(), starts_.end(), offset);
  auto line = std::max<std::ptrdiff_t>(behind - starts_.begin(), 1);
  auto start = starts_[static_cast<std::size_t>(line - 1)];
  return {static_cast<std::size_t>(line),
          offset < start ? 1 : offset - start + 1};
}

}  // namespace pup
