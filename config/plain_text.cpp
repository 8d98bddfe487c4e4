#include "pup/config/plain_text.hpp"

#include <algorithm>

namespace pup {

namespace {

constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

std::uint32_t byte_at(std::string_view text, std::size_t i) {
  return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
}

// Of a sequence that utf8_size() has found sound.
std::uint32_t code_of(std::string_view sequence) {
  if (sequence.size() == 1)
    return byte_at(sequence, 0);
  auto result = byte_at(sequence, 0) & (0x7FU >> sequence.size());
  for (std::size_t i = 1; i < sequence.size(); ++i)
    result = result << 6U | (byte_at(sequence, i) & 0x3FU);
  return result;
}

bool is_control(std::uint32_t code) {
  const auto within = [code](std::uint32_t first, std::uint32_t last) {
    return code >= first && code <= last;
  };
  return code < 0x20 || within(0x7F, 0x9F)            // C0; DEL and C1
         || code == 0x061C || within(0x200E, 0x200F)  // marks of direction
         || within(0x2028, 0x202E)   // separators of lines, embeddings
         || within(0x2066, 0x2069);  // isolates
}

void append_hex(std::string& to, std::uint32_t value, unsigned digits) {
  constexpr char letters[] = "0123456789abcdef";
  for (auto shift = 4 * digits; shift > 0; shift -= 4)
    to += letters[value >> (shift - 4) & 0xFU];
}

// All controls are below U+10000.
void append_code(std::string& to, std::uint32_t code) {
  to += "\\u";
  append_hex(to, code, 4);
}

std::string shown_except(std::string_view text, std::string_view kept) {
  std::string result;
  while (!text.empty()) {
    const auto good = printable_size(text);
    result.append(text.substr(0, good));
    text.remove_prefix(good);
    if (text.empty())
      break;
    const auto piece = first_piece(text);
    if (piece.what == text_piece::kind::invalid) {
      result += "\\x";
      append_hex(result, piece.code, 2);
    } else if (piece.what == text_piece::kind::control
               && kept.find(text.front()) == std::string_view::npos) {
      append_code(result, piece.code);
    } else {
      result.append(text.substr(0, piece.size));
    }
    text.remove_prefix(piece.size);
  }
  return result;
}

void append_json_piece(std::string& to, std::string_view text,
                       const text_piece& piece, not_utf8 how) {
  const auto raw = text.substr(0, piece.size);
  switch (piece.what) {
    case text_piece::kind::drawn:
      to.append(raw);
      break;
    case text_piece::kind::control:
      if (piece.code == '\n')
        to += "\\n";
      else if (piece.code == '\t')
        to += "\\t";
      else
        append_code(to, piece.code);
      break;
    case text_piece::kind::invalid:
      to.append(how == not_utf8::keep ? raw : replacement_character);
      break;
  }
}

}  // namespace

std::size_t utf8_size(std::string_view text) {
  const auto within = [text](std::size_t i, unsigned least, unsigned most) {
    return byte_at(text, i) >= least && byte_at(text, i) <= most;
  };
  const auto tail = [&within](std::size_t first, std::size_t last) {
    for (auto i = first; i <= last; ++i)
      if (!within(i, 0x80, 0xBF))
        return false;
    return true;
  };
  if (text.empty())
    return 0;
  const auto lead = byte_at(text, 0);
  if (lead < 0x80)
    return 1;
  if (lead >= 0xC2 && lead <= 0xDF)
    return tail(1, 1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const auto least = lead == 0xE0 ? 0xA0U : 0x80U;
    const auto most = lead == 0xED ? 0x9FU : 0xBFU;
    return within(1, least, most) && tail(2, 2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const auto least = lead == 0xF0 ? 0x90U : 0x80U;
    const auto most = lead == 0xF4 ? 0x8FU : 0xBFU;
    return within(1, least, most) && tail(2, 3) ? 4 : 0;
  }
  return 0;
}

bool is_utf8(std::string_view text) {
  for (std::size_t size = 0; !text.empty(); text.remove_prefix(size))
    if (size = utf8_size(text); size == 0)
      return false;
  return true;
}

text_piece first_piece(std::string_view text) {
  const auto size = utf8_size(text);
  if (size == 0)
    return {text_piece::kind::invalid, 1, byte_at(text, 0)};
  const auto code = code_of(text.substr(0, size));
  return {
      is_control(code) ? text_piece::kind::control : text_piece::kind::drawn,
      size, code};
}

std::size_t printable_size(std::string_view text) {
  const auto* end = std::find_if(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte > 0x7E;
  });
  return static_cast<std::size_t>(end - text.begin());
}

std::string shown(std::string_view text) {
  return shown_except(text, {});
}

std::string shown_lines(std::string_view text) {
  return shown_except(text, "\n\t");
}

void append_json_string(std::string& to, std::string_view text, not_utf8 how) {
  to += '"';
  while (!text.empty()) {
    const auto good =
        std::min(printable_size(text), text.find_first_of("\"\\"));
    to.append(text.substr(0, good));
    text.remove_prefix(good);
    if (text.empty())
      break;
    const auto piece = first_piece(text);
    if (piece.code == '"' || piece.code == '\\')
      to += '\\';
    append_json_piece(to, text, piece, how);
    text.remove_prefix(piece.size);
  }
  to += '"';
}

std::string shown_json(std::string_view json) {
  std::string result;
  while (!json.empty()) {
    const auto good = printable_size(json);
    result.append(json.substr(0, good));
    json.remove_prefix(good);
    if (json.empty())
      break;
    const auto piece = first_piece(json);
    // Between the strings there are no controls but these.
    if (piece.code == '\n')
      result += '\n';
    else
      append_json_piece(result, json, piece, not_utf8::replace);
    json.remove_prefix(piece.size);
  }
  return result;
}

}  // namespace pup
