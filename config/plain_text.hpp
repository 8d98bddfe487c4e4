// Text that somebody else has written (names of files, output of processes,
// answers of peers), on its way to a terminal or into JSON.
//
// A terminal acts upon some characters: the C0 and C1 controls, DEL, and those
// that change the direction of the text around them. Here they, and bytes that
// are no UTF-8, become something that is only drawn. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pup {

/// Bytes of the UTF-8 sequence at the front of `text`; 0: there is none (table
/// 3-7 of the Unicode standard).
std::size_t utf8_size(std::string_view text);

/// Whether all of it is such sequences.
bool is_utf8(std::string_view text);

/// What stands at the front of a text.
struct text_piece {
  enum class kind : std::uint8_t {
    drawn,    ///< a character that a terminal draws
    control,  ///< one that it acts upon; line and paragraph separators as well
    invalid,  ///< one byte that belongs to no UTF-8 sequence
  };

  kind what = kind::drawn;
  std::size_t size = 0;    ///< in bytes
  std::uint32_t code = 0;  ///< of the character, or of the byte
};

/// `text` must not be empty.
text_piece first_piece(std::string_view text);

/// Bytes at the front that are printable ASCII.
std::size_t printable_size(std::string_view text);

/// `text` for one line of a message or a cell of a table: controls, tabs and
/// newlines among them, become \u001b, bytes that are no UTF-8 become \x9b.
std::string shown(std::string_view text);

/// The same for text of several lines: newlines and tabs stay.
std::string shown_lines(std::string_view text);

/// What becomes of bytes that are no UTF-8 in JSON.
enum class not_utf8 : std::uint8_t {
  replace,  ///< U+FFFD, so that the result is JSON
  keep,     ///< for a configuration, which is then refused as not UTF-8
};

/// `text` as a JSON string. Controls are escaped, those above U+007F too, so
/// that the exact text gets through a terminal unharmed.
void append_json_string(std::string& to, std::string_view text,
                        not_utf8 how = not_utf8::replace);

/// A text that is JSON already, as a writer has made it that lets characters
/// above U+007F pass: as append_json_string() would have written its strings.
std::string shown_json(std::string_view json);

}  // namespace pup
