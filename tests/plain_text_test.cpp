// What others have written, on its way to a terminal or into JSON.
#include "pup/config/plain_text.hpp"

#include "pup/config/json_out.hpp"
#include "pup/config/json_text.hpp"
#include "pup/config/words.hpp"

#include "catch.hpp"

#include <random>

using namespace pup;
using namespace std::string_view_literals;

namespace {

std::string json_string(std::string_view text) {
  std::string result;
  append_json_string(result, text);
  return result;
}

/// What a program reads from it.
std::string decoded(const std::string& json) {
  const auto parsed = parse_json(json);
  REQUIRE(std::holds_alternative<json_tree>(parsed));
  return std::string{json_value{std::get<json_tree>(parsed), 0}.string()};
}

std::string utf8(std::uint32_t code) {
  if (code < 0x80)
    return {static_cast<char>(code)};
  const auto tail = [code](unsigned shift) {
    return static_cast<char>(0x80 | (code >> shift & 0x3F));
  };
  if (code < 0x800)
    return {static_cast<char>(0xC0 | code >> 6), tail(0)};
  return {static_cast<char>(0xE0 | code >> 12), tail(6), tail(0)};
}

/// What a terminal acts upon, by the standards: ECMA-48 and Unicode's bidi
/// algorithm.
const std::vector<std::pair<std::uint32_t, std::uint32_t>> acted_upon{
    {0x00, 0x1F},     {0x7F, 0x9F},     {0x061C, 0x061C},
    {0x200E, 0x200F}, {0x2028, 0x202E}, {0x2066, 0x2069}};

}  // namespace

TEST_CASE("what a terminal acts upon is shown as what it is") {
  for (const auto& [first, last] : acted_upon)
    for (auto code = first; code <= last; ++code) {
      const auto text = utf8(code);
      char expected[8];
      std::snprintf(expected, sizeof expected, "\\u%04x", code);
      CHECK(shown("a" + text + "b") == "a" + std::string{expected} + "b");
      CHECK(quote(text) == '`' + std::string{expected} + '`');
      // Exact, and harmless.
      CHECK(decoded(json_string(text)) == text);
      CHECK(shown(json_string(text)) == json_string(text));
    }
  // Their neighbours are only drawn.
  for (const auto code : {0x20U, 0x7EU, 0xA0U, 0x061BU, 0x061DU, 0x200DU,
                          0x2010U, 0x2027U, 0x202FU, 0x2065U, 0x206AU, 0x3042U})
    CHECK(shown(utf8(code)) == utf8(code));
  CHECK(shown("\xF0\x9F\x98\x80") == "\xF0\x9F\x98\x80");
}

TEST_CASE("bytes that are no UTF-8 are shown as bytes") {
  for (const auto& [text, expected] :
       std::vector<std::pair<std::string_view, std::string_view>>{
           {"\x9B"
            "31m",
            "\\x9b31m"},                                  // C1 as a raw byte
           {"\xC2", "\\xc2"},                             // cut off
           {"\xE2\x80", "\\xe2\\x80"},                    // the same
           {"\xC0\x9B", "\\xc0\\x9b"},                    // longer than need be
           {"\xED\xA0\x80", "\\xed\\xa0\\x80"},           // half of a pair
           {"\xF4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},  // beyond Unicode
           {"\xC2\x1B", "\\xc2\\u001b"},  // a control in place of a tail
       }) {
    CHECK(shown(text) == expected);
    CHECK(decoded(json_string(text)).find("\xEF\xBF\xBD") != std::string::npos);
  }
}

TEST_CASE("several lines keep newlines and tabs, one line does not") {
  CHECK(shown("a\tb\nc\r") == "a\\u0009b\\u000ac\\u000d");
  CHECK(shown_lines("a\tb\nc\r\n") == "a\tb\nc\\u000d\n");
}

TEST_CASE("what another writer has made of a text is made harmless") {
  CHECK(shown_json("{\"a\": \"\xC2\x9B\xE2\x80\xAE\x7F\xFF\"}\n")
        == "{\"a\": \"\\u009b\\u202e\\u007f\xEF\xBF\xBD\"}\n");
}

TEST_CASE("a configuration keeps what is no UTF-8, to be refused") {
  CHECK(json_of("a\xFF") == "\"a\xFF\"");
  CHECK(json_of("a\"\\\n\xC2\x85") == R"("a\"\\\n\u0085")");
}

TEST_CASE("any bytes become text without a control, and JSON") {
  std::mt19937 random{7};
  const std::string_view pieces[] = {
      "\x1B", "\xC2", "\x9B", "\xE2\x80\xAE", "a", "\"", "\\", "\n", "\xFF"};
  for (int round = 0; round < 2'000; ++round) {
    std::string text;
    for (auto n = random() % 12; n > 0; --n)
      text += pieces[random() % std::size(pieces)];
    const auto once = shown(text);
    CHECK(printable_size(once) == once.size());
    CHECK(shown_json(json_string(text)) == json_string(text));
    decoded(json_string(text));
  }
}
