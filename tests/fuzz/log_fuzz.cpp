// Fuzzes the reader of the log store: any bytes, in any pieces, give lines
// without newlines, in bounded memory, and the same lines whatever the pieces.
// Built and run by
// tests/fuzz/run.
#include "pup/config/plain_text.hpp"
#include "pup/runtime/log_format.hpp"
#include "pup/runtime/log_text.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace {

void require(bool holds, const char* what) {
  if (holds)
    return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

std::string all_lines(std::string_view bytes, std::size_t piece) {
  std::string result;
  pup::log_reader reader{[&](const pup::log_line& x) {
    require(x.text.find('\n') == std::string_view::npos, "a line of two");
    require(x.text.size() <= pup::log_line_bytes, "a line without end");
    require(!x.id.empty(), "a line of nobody");
    for (const bool json : {false, true}) {
      for (const bool colour : {false, true}) {
        pup::line_style style;
        style.json = json;
        style.colour = colour;
        const auto before = result.size();
        pup::append_line(result, pup::line_head(x, style), x.text, style);
        require(result.find('\n', before) == result.size() - 1, "not one line");
      }
    }
  }};
  std::string unread;
  while (!bytes.empty()) {
    const auto part = bytes.substr(0, piece);
    bytes.remove_prefix(part.size());
    unread += part;
    const auto used = reader.feed(unread);
    require(used <= unread.size(), "more than there is");
    unread.erase(0, used);
    require(unread.size() < pup::record_head_bytes + 255, "nothing is taken");
  }
  reader.finish();
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  if (size < 1)
    return 0;
  // As headers with a good check are found by nobody's chance, the input is
  // also taken as a plan for records.
  const std::string_view text{reinterpret_cast<const char*>(data) + 1,
                              size - 1};
  std::string planned;
  for (std::size_t at = 0; at + 4 <= text.size();) {
    const auto byte = [&](std::size_t i) {
      return static_cast<unsigned char>(text[at + i]);
    };
    const auto id = std::string(1, static_cast<char>('a' + byte(0) % 3));
    const auto body = text.substr(at + 4, byte(3));
    planned += pup::encode(
        {id, static_cast<pup::log_stream>(1 + byte(1) % 5), byte(2),
         byte(1) < 250, at,
         static_cast<std::uint32_t>(body.size() + (byte(1) > 240))});
    planned += body;
    at += 4 + body.size();
  }
  const std::size_t piece = 1 + data[0];
  for (const std::string_view bytes : {text, std::string_view{planned}})
    require(all_lines(bytes, piece) == all_lines(bytes, bytes.size() + 1),
            "other lines from other pieces");
  std::string scratch;
  require(pup::without_escapes(text, pup::escapes::strip, scratch).size()
              <= text.size(),
          "more than there was");
  const auto harmless =
      pup::without_escapes(text, pup::escapes::strip_controls, scratch);
  require(pup::shown_lines(harmless) == harmless, "a control has stayed");
  pup::time_of(text, 0, std::chrono::minutes{0});
  return 0;
}
