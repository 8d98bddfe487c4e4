// The log without its thread: records and lines, text, the store, files and
// console, in virtual time; and reading a store that is written meanwhile.
#include "pup/runtime/log_archive.hpp"
#include "pup/runtime/log_console.hpp"
#include "pup/runtime/log_file.hpp"
#include "pup/runtime/log_format.hpp"
#include "pup/runtime/log_lines.hpp"
#include "pup/runtime/log_query.hpp"
#include "pup/runtime/log_store.hpp"
#include "pup/runtime/log_text.hpp"

#include "catch.hpp"
#include "child_process.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <future>
#include <sstream>
#include <zlib.h>

#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace pup;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

using test::temporary_folder;
using texts = std::vector<std::string>;
using time_point = std::chrono::system_clock::time_point;

// 2026-11-24T03:13:14.123456Z
constexpr std::uint64_t some_us = 1'795'489'994'123'456;
const time_point begin{std::chrono::microseconds{some_us}};

std::string record(std::string_view id, log_stream stream,
                   std::string_view data, std::uint8_t flags = 0,
                   std::uint64_t time_us = some_us) {
  return encode({id, stream, flags, true, time_us,
                 static_cast<std::uint32_t>(data.size())})
      .append(data);
}

/// "id stream text"
std::string shown(const log_line& x) {
  return std::string{x.id} + ' ' + std::string{stream_name(x.stream)} + ' '
         + std::string{x.text};
}

texts lines_of(const std::vector<std::string>& segments,
               std::size_t piece = std::string::npos) {
  texts result;
  log_reader reader{[&](const log_line& x) { result.push_back(shown(x)); }};
  for (const auto& segment : segments) {
    reader.next_segment();
    std::string unread;
    for (std::size_t at = 0; at < segment.size();) {
      const auto next = segment.substr(at, piece);
      at += next.size();
      unread += next;
      unread.erase(0, reader.feed(unread));
    }
  }
  reader.finish();
  return result;
}

texts stored(const std::string& folder, const line_filter& filter = {},
             std::optional<std::uint64_t> last = std::nullopt) {
  texts result;
  read_lines(folder, filter, last, [&](const log_line& x) {
    result.push_back(shown(x));
    return true;
  });
  return result;
}

std::string contents(const fs::path& path) {
  std::ifstream file{path};
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::uint64_t size_of(const fs::path& folder) {
  std::uint64_t result = 0;
  for (const auto& x : fs::directory_iterator{folder})
    result += x.file_size();
  return result;
}

std::size_t files_in(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator{folder}, {}));
}

/// A pipe with bytes in it.
struct filled_pipe {
  unique_fd out, in;
  std::size_t bytes;

  explicit filled_pipe(std::string_view data) : bytes(data.size()) {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    out.reset(ends[0]);
    in.reset(ends[1]);
    ::fcntl(in.get(), F_SETPIPE_SZ, 1 << 20);
    REQUIRE(::write(in.get(), data.data(), data.size())
            == static_cast<ssize_t>(data.size()));
  }
};

std::string numbered(int first, int count, std::size_t width = 20) {
  std::string result;
  for (int i = first; i < first + count; ++i) {
    auto line = std::to_string(i);
    line.resize(width - 1, '.');
    result += line + '\n';
  }
  return result;
}

}  // namespace

// -- records ------------------------------------------------------------------

TEST_CASE("a record is read as it was written") {
  const auto bytes = record("web-1", log_stream::err, "oops\n", 1);
  const auto found = parse_record(bytes);
  CHECK(found.outcome == parse_outcome::ok);
  CHECK(found.header
        == record_header{"web-1", log_stream::err, 1, true, some_us, 5});
  CHECK(bytes.substr(found.bytes) == "oops\n");
  // Every byte of header and id matters, but the one that says "complete".
  for (std::size_t i = 0; i < found.bytes; ++i) {
    auto damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x55);
    const auto other = parse_record(damaged);
    CHECK((i == record_state_offset) == (other.outcome == parse_outcome::ok));
  }
  for (std::size_t i = 0; i < found.bytes; ++i)
    CHECK(parse_record(std::string_view{bytes}.substr(0, i)).outcome
          == parse_outcome::short_of_bytes);
}

TEST_CASE("lines are joined over records, segments and any pieces") {
  const std::vector<std::string> segments{
      record("a", log_stream::out, "one\ntw")
          + record("b", log_stream::out, "B")
          + record("a", log_stream::err, "e"),
      record("a", log_stream::out, "o\nthree\n\n")
          + record("b", log_stream::out, "b\n")
          + record("a", log_stream::err, "rr"),
  };
  const texts wanted{"a stdout one", "a stdout two", "a stdout three",
                     "a stdout ",    "b stdout Bb",  "a stderr err"};
  for (const std::size_t piece : {1, 2, 3, 7, 24, 30, 1000})
    CHECK(lines_of(segments, piece) == wanted);
}

TEST_CASE("lines come in the order of their times, however long they took") {
  std::vector<std::uint64_t> times;
  texts lines;
  log_reader reader{[&](const log_line& x) {
    times.push_back(x.time_us);
    lines.push_back(shown(x));
  }};
  reader.feed(record("a", log_stream::out, "x", 0, 5)
              + record("b", log_stream::out, "one\n", 0, 6)
              + record("c", log_stream::out, "half", 0, 7)
              + record("a", log_stream::out, "y\nprompt> ", 0, 8)
              + record("c", log_stream::out, "new\n", record_flags::fresh, 9)
              + record("b", log_stream::out, "two\n", 0, 10));
  reader.finish();
  CHECK(lines
        == texts{"b stdout one", "a stdout xy", "c stdout half", "c stdout new",
                 "b stdout two", "a stdout prompt> "});
  CHECK(times == std::vector<std::uint64_t>{6, 8, 9, 9, 10, 10});
}

TEST_CASE("a new life does not continue the old one's line") {
  CHECK(lines_of({record("a", log_stream::out, "half")
                  + record("a", log_stream::out, "new\n", record_flags::fresh)})
        == texts{"a stdout half", "a stdout new"});
  CHECK(lines_of({record("a", log_stream::out, "half")
                  + record("a", log_stream::out, "", record_flags::last)
                  + record("a", log_stream::out, "new\n")})
        == texts{"a stdout half", "a stdout new"});
}

TEST_CASE("the rest of a line whose beginning is gone is no line") {
  const auto carried = record("a", log_stream::out, "", record_flags::carried);
  CHECK(lines_of({carried + record("a", log_stream::out, "rest\nwhole\n")})
        == texts{"a stdout whole"});
  // It is one where the beginning is there.
  CHECK(lines_of({record("a", log_stream::out, "be"),
                  carried + record("a", log_stream::out, "gin\n")})
        == texts{"a stdout begin"});
}

TEST_CASE("damage costs its own bytes and no more") {
  const auto good = record("a", log_stream::out, "good\n");
  for (const auto& bad :
       {std::string{"nonsense"}, std::string(100, '\xF5'), good.substr(0, 20),
        std::string("\xF5PUP\xFF\xFF\xFF\xFF", 8), std::string(50, '\0')})
    CHECK(lines_of({good + bad + good})
          == texts{"a stdout good", "a stdout good"});
  std::uint64_t lines = 0;
  log_reader reader{[&](const log_line&) { ++lines; }};
  reader.feed("nonsense" + good);
  CHECK(reader.damaged_bytes() == 8);
  CHECK(lines == 1);
}

TEST_CASE("a line is given out in pieces of 1 MiB") {
  const std::string megabyte(log_line_bytes, 'x');
  for (const std::size_t more : {0, 1, 5000}) {
    const auto text = megabyte + megabyte + std::string(more, 'y');
    for (const bool split : {false, true}) {
      std::vector<std::size_t> sizes;
      log_reader reader{
          [&](const log_line& x) { sizes.push_back(x.text.size()); }};
      if (split) {
        for (std::size_t at = 0; at < text.size(); at += 60'000)
          reader.feed(record("a", log_stream::out, text.substr(at, 60'000)));
        reader.feed(record("a", log_stream::out, "\n"));
      } else {
        reader.feed(record("a", log_stream::out, text + '\n'));
      }
      std::vector<std::size_t> wanted{log_line_bytes, log_line_bytes};
      if (more > 0)
        wanted.push_back(more);
      CHECK(sizes == wanted);
    }
  }
}

TEST_CASE("lines that never end fill no memory") {
  std::uint64_t bytes = 0;
  log_reader reader{[&](const log_line& x) { bytes += x.text.size(); }};
  std::uint64_t fed = 0;
  const std::string data(1000, 'x');
  for (std::size_t i = 0; i < 3 * log_reader::most_kept_streams; ++i) {
    reader.feed(record("id" + std::to_string(i), log_stream::out, data));
    fed += data.size();
    CHECK(fed - bytes <= log_reader::most_kept_bytes + data.size());
  }
  reader.finish();
  CHECK(bytes == fed);
}

// -- text ---------------------------------------------------------------------

TEST_CASE("escape sequences go, colours may stay") {
  struct example {
    std::string_view text, stripped, coloured;  // the latter for terminals
  };
  using namespace std::string_view_literals;
  for (const auto& x : std::vector<example>{
           {"plain", "plain", "plain"},
           {"\033[31mred\033[0m", "red", "\033[31mred\033[0m"},
           {"\033[1;38:5:9mx", "x", "\033[1;38:5:9mx"},
           {"\033[2J\033[Hclear", "clear", "clear"},
           {"a\033]0;title\ab", "ab", "ab"},
           {"a\033]0;title\033\\b", "ab", "ab"},
           {"a\033]0;open\nb", "a\nb", "a\nb"},
           {"a\033[31", "a", "a"},
           {"a\033", "a", "a"},
           {"a\033[\nb", "a\nb", "a\nb"},
           {"\033(Bx\033cy", "xy", "xy"},
           {"bell\a tab\t", "bell\a tab\t", "bell tab\t"},
           {"\033[>4;1mx", "x", "x"},
           {"gr\xC3\xBC\xC3\x9F", "gr\xC3\xBC\xC3\x9F", "gr\xC3\xBC\xC3\x9F"},
           {"a\rb\bc\x7F", "a\rb\bc\x7F", "abc"},
           {"a\xC2\x9B"
            "2Jb",
            "a\xC2\x9B"
            "2Jb",
            "a2Jb"},  // CSI as one character
           {"a\x9B"
            "2J",
            "a\x9B"
            "2J",
            "a\xEF\xBF\xBD"
            "2J"},  // and as one byte
           {"\xE2\x80\xAEgpj.exe", "\xE2\x80\xAEgpj.exe", "gpj.exe"},
           {"\xE2\x81\xA6x\xE2\x80\x8F", "\xE2\x81\xA6x\xE2\x80\x8F", "x"},
           {"\xE9\xC2", "\xE9\xC2", "\xEF\xBF\xBD\xEF\xBF\xBD"},
           // What is taken away leaves nothing that makes a new one.
           {"\xC2\033[0K\x9B", "\xC2\x9B", "\xEF\xBF\xBD\xEF\xBF\xBD"},
       }) {
    std::string scratch;
    CHECK(without_escapes(x.text, escapes::strip, scratch) == x.stripped);
    CHECK(without_escapes(x.text, escapes::keep_colours, scratch)
          == x.coloured);
    CHECK(without_escapes(x.text, escapes::keep, scratch) == x.text);
    // Without colours, people get what they get with them.
    std::string plain;
    const auto coloured = std::string{x.coloured};
    CHECK(without_escapes(x.text, escapes::strip_controls, scratch)
          == without_escapes(coloured, escapes::strip, plain));
  }
}

TEST_CASE("a line is decorated, or an object") {
  const auto print = [](const log_line& x, const line_style& style) {
    std::string result;
    append_line(result, line_head(x, style), x.text, style);
    return result;
  };
  const log_line hello{some_us, "web-1", log_stream::out, "hello\r"};
  const log_line gone{some_us, "web-1", log_stream::warn, "exited"};
  line_style style;
  CHECK(print(hello, style) == "2026-11-24T03:13:14.123Z web-1 stdout hello\n");
  CHECK(print(gone, style)
        == "2026-11-24T03:13:14.123Z web-1 pup warn exited\n");
  style.offset = -90min;
  CHECK(print(hello, style)
        == "2026-11-24T01:43:14.123-01:30 web-1 stdout hello\n");
  style = {};
  style.decorate = false;
  CHECK(print(hello, style) == "hello\n");
  style.json = true;
  CHECK(print({some_us, "a\"b", log_stream::err, "\"\\\t\x01\033[1mx\xFF\xC3\xA4"},
              style)
        == "{\"time\":\"2026-11-24T03:13:14.123Z\",\"id\":\"a\\\"b\",\"stream\":"
           "\"stderr\",\"severity\":\"error\",\"text\":\"\\\"\\\\\\t\\u0001x"
           "\xEF\xBF\xBD\xC3\xA4\"}\n");
  style.text = escapes::keep;
  CHECK(print({some_us, "a", log_stream::out, "\033[1mx\xC2\x9B\r"}, style)
        == "{\"time\":\"2026-11-24T03:13:14.123Z\",\"id\":\"a\",\"stream\":"
           "\"stdout\",\"severity\":\"info\",\"text\":\"\\u001b[1mx\\u009b"
           "\\u000d\"}\n");
  style = {};
  style.colour = true;
  style.text = escapes::keep_colours;
  CHECK(
      print({some_us, "a", log_stream::err, "\033[1mx"}, style)
      == "2026-11-24T03:13:14.123Z \033[31ma\033[0m stderr \033[1mx\033[0m\n");
}

TEST_CASE("bytes that are not UTF-8 become replacement characters") {
  std::string result;
  line_style style;
  style.json = true;
  for (const auto* bad : {"\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                          "\xE2\x82", "\x80", "\xF8"}) {
    result.clear();
    append_line(result, "", bad, style);
    CHECK(result.find_first_of(bad) == std::string::npos);
    CHECK(result.starts_with("\"\xEF\xBF\xBD"));
  }
}

TEST_CASE("times are shown and read in any zone") {
  CHECK(time_text(0, 0min) == "1970-01-01T00:00:00.000Z");
  CHECK(time_text(951'782'399'999'999, 0min) == "2000-02-28T23:59:59.999Z");
  CHECK(time_text(951'782'400'000'000, 0min) == "2000-02-29T00:00:00.000Z");
  CHECK(time_text(~std::uint64_t{0}, 60min).substr(0, 4) == "9999");

  struct example {
    const char* text;
    const char* time;  // nullptr: none
  };
  for (const auto& x : std::vector<example>{
           {"2026-11-24", "2026-11-23T23:00:00.000Z"},
           {"2026-11-24T03:13", "2026-11-24T02:13:00.000Z"},
           {"2026-11-24 03:13:14.5", "2026-11-24T02:13:14.500Z"},
           {"2026-11-24T03:13:14Z", "2026-11-24T03:13:14.000Z"},
           {"2026-11-24T03:13:14.123456+05:30", "2026-11-23T21:43:14.123Z"},
           {"2026-11-24T03:13-0800", "2026-11-24T11:13:00.000Z"},
           {"01:02", "2026-11-24T00:02:00.000Z"},
           {"23:59:59", "2026-11-24T22:59:59.000Z"},
           {"-90s", "2026-11-24T03:11:44.123Z"},
           {"-15m", "2026-11-24T02:58:14.123Z"},
           {"-2h", "2026-11-24T01:13:14.123Z"},
           {"-3d", "2026-11-21T03:13:14.123Z"},
           {"-999999999d", "1970-01-01T00:00:00.000Z"},
           {"", nullptr},
           {"yesterday", nullptr},
           {"2026-02-29", nullptr},
           {"2026-13-01", nullptr},
           {"1969-12-31", nullptr},
           {"24:00", nullptr},
           {"03:60", nullptr},
           {"03:13:60", nullptr},
           {"03:13x", nullptr},
           {"2026-11-24T", nullptr},
           {"2026-11-24T03:13+15:00", nullptr},
           {"-15", nullptr},
           {"-m", nullptr},
           {"-15w", nullptr},
           {"--15m", nullptr},
       }) {
    INFO(x.text);
    const auto found = time_of(x.text, some_us, 60min);
    REQUIRE(found.has_value() == (x.time != nullptr));
    if (found)
      CHECK(time_text(*found, 0min) == x.time);
  }
}

TEST_CASE("a filter chooses by id, severity and time") {
  const auto wants = [](const line_filter& filter, std::string_view id,
                        log_stream stream = log_stream::out) {
    return filter.wants({some_us, id, stream, "x"});
  };
  CHECK(wants({}, "a"));
  CHECK(wants({"a"}, "a"));
  CHECK(wants({"a"}, "a-12"));
  for (const auto* other : {"b", "ab", "a-", "a-0", "a-01", "a-x", "a-1-1"})
    CHECK_FALSE(wants({"a"}, other));
  CHECK(wants({"all"}, "b"));
  CHECK(wants({"w*b"}, "web"));
  CHECK_FALSE(wants({"w*b"}, "webs"));
  CHECK(wants({"", "error"}, "a", log_stream::err));
  CHECK(wants({"", "error"}, "a", log_stream::error));
  CHECK_FALSE(wants({"", "error"}, "a", log_stream::out));
  CHECK(wants({"", "warn,info"}, "a", log_stream::info));
  CHECK_FALSE(wants({"", "warn,info"}, "a", log_stream::err));
  CHECK(wants({"", "", some_us, some_us}, "a"));
  CHECK_FALSE(wants({"", "", some_us + 1}, "a"));
  CHECK_FALSE(wants({"", "", 0, some_us - 1}, "a"));
}

TEST_CASE("output is cut into whole lines, a long one into lines of 64 KiB") {
  const auto cut = [](const texts& pieces) {
    line_blocks blocks;
    std::string all;
    std::size_t longest = 0;
    const auto take = [&](std::string_view lines) {
      REQUIRE(lines.ends_with('\n'));
      all += lines;
      for (std::size_t at = 0; at < lines.size();) {
        const auto end = lines.find('\n', at);
        longest = std::max(longest, end - at);
        at = end + 1;
      }
    };
    for (const auto& x : pieces)
      blocks.feed(x, take);
    blocks.finish(take);
    CHECK(longest <= line_blocks::most_kept_bytes);
    return all;
  };
  CHECK(cut({"a\nb"}) == "a\nb\n");
  CHECK(cut({"a", "b\n", "", "c", "d\ne\nf"}) == "ab\ncd\ne\nf\n");
  CHECK(cut({}) == "");
  const std::string long_text(150'000, 'x');
  const auto pieces = std::string(65'536, 'x') + '\n' + std::string(65'536, 'x')
                      + '\n' + std::string(150'000 - 2 * 65'536, 'x') + '\n';
  CHECK(cut({long_text}) == pieces);
  CHECK(cut({long_text.substr(0, 1), long_text.substr(1)}) == pieces);
  CHECK(cut({long_text.substr(0, 70'000), long_text.substr(70'000)}) == pieces);
  CHECK(cut({std::string(65'535, 'x'), "\n"})
        == std::string(65'535, 'x') + '\n');
}

TEST_CASE("a line is cut where it would be had nobody been in between") {
  for (const std::size_t before : {3u, 65'536u, 70'000u}) {
    line_blocks blocks;
    blocks.resume(std::string(before, 'x'));
    std::string all;
    blocks.feed("y\n", [&](std::string_view lines) { all += lines; });
    CHECK(all == std::string(before % 65'536, 'x') + "y\n");
  }
}

// -- the store ----------------------------------------------------------------

TEST_CASE("what goes in comes out, from pipes and from memory") {
  const temporary_folder box;
  const auto folder = box.path() + "/deep/log";
  log_store store{folder, {}, begin};
  auto* const a = store.open("a", log_stream::out);
  auto* const b = store.open("b", log_stream::err);
  filled_pipe first{"one\ntwo\nhal"};
  const auto taken = store.take_from(*a, first.out.get(), first.bytes, begin);
  CHECK(taken.bytes == first.bytes);
  CHECK(taken.error == 0);
  std::string back(taken.bytes, ' ');
  CHECK(::pread(store.file(), back.data(), back.size(), taken.offset)
        == static_cast<ssize_t>(back.size()));
  CHECK(back == "one\ntwo\nhal");
  CHECK(store.take(*b, "bad\n", begin + 1s).bytes == 4);
  filled_pipe second{"f\nrest"};
  CHECK(store.take_from(*a, second.out.get(), second.bytes, begin + 2s).bytes
        == second.bytes);
  store.close(a, begin + 3s);
  CHECK(stored(folder)
        == texts{"a stdout one", "a stdout two", "b stderr bad",
                 "a stdout half", "a stdout rest"});
  CHECK(fs::status(folder).permissions() == fs::perms::owner_all);
  CHECK(fs::status(folder + "/0000000001.log").permissions()
        == (fs::perms::owner_read | fs::perms::owner_write));
  CHECK(store.bytes() == size_of(folder));
}

TEST_CASE("the store stays within its bytes and tears no line") {
  const temporary_folder box;
  log_store store{box.path(), {48h, least_store_bytes}, begin};
  auto* const a = store.open("a", log_stream::out);
  auto now = begin;
  const auto all = numbered(0, 400'000);
  // In pieces that end within lines, so that lines reach over segments.
  for (std::size_t at = 0; at < all.size(); at += 9'999) {
    filled_pipe pipe{std::string_view{all}.substr(at, 9'999)};
    for (std::size_t done = 0; done < pipe.bytes;) {
      const auto taken =
          store.take_from(*a, pipe.out.get(), pipe.bytes - done, now);
      REQUIRE(taken.error == 0);
      done += taken.bytes;
    }
    now += 1ms;
    REQUIRE(size_of(box.path()) <= least_store_bytes);
  }
  CHECK(size_of(box.path()) >= least_store_bytes * 3 / 4);
  const auto lines = stored(box.path());
  // The oldest are gone, what is there is whole and in order.
  const auto count = static_cast<int>(lines.size());
  CHECK(count > 30'000);
  auto expected = numbered(400'000 - count, count);
  for (const auto& x : lines) {
    REQUIRE(x.substr(9) == expected.substr(0, 19));
    expected.erase(0, 20);
  }
}

TEST_CASE("lines go when they are too old, not before") {
  const temporary_folder box;
  log_store store{box.path(), {24h, least_store_bytes}, begin};
  auto* const a = store.open("a", log_stream::out);
  CHECK_FALSE(store.next_expiry());
  store.take(*a, "old\n", begin);
  // A segment covers an hour of the 24 at most.
  store.take(*a, "same segment\n", begin + 1h);
  store.take(*a, "next segment\n", begin + 1h + 1ms);
  CHECK(files_in(box.path()) == 2);
  REQUIRE(store.next_expiry() == begin + 25h);
  store.expire(begin + 25h - 1ms);
  CHECK(stored(box.path()).size() == 3);
  store.expire(begin + 25h);
  CHECK(stored(box.path()) == texts{"a stdout next segment"});
  REQUIRE(store.next_expiry() == begin + 25h + 1ms);
  store.expire(begin + 25h + 1ms);
  CHECK(files_in(box.path()) == 0);
  CHECK_FALSE(store.next_expiry());
  CHECK(store.bytes() == 0);
  store.take(*a, "again\n", begin + 26h);
  CHECK(stored(box.path()) == texts{"a stdout again"});
}

TEST_CASE("a store is continued where it ended, within a line as well") {
  const temporary_folder box;
  const auto write = [&](std::string_view data, bool resumed, time_point now) {
    auto store =
        std::make_unique<log_store>(box.path(), log_store_rules{}, now);
    auto* const a = store->open("a", log_stream::out, resumed);
    store->take(*a, data, now);
    store.reset();  // without close(): as a crash does
  };
  write("one\nhal", false, begin);
  write("f\ntw", true, begin + 1s);
  write("three\n", false, begin + 2s);
  CHECK(files_in(box.path()) == 1);
  CHECK(stored(box.path())
        == texts{"a stdout one", "a stdout half", "a stdout tw",
                 "a stdout three"});
}

TEST_CASE("a successor learns the beginning of the line it is within") {
  const temporary_folder box;
  const auto begun = [&](log_stream stream, bool resumed = true) {
    log_store store{box.path(), {}, begin};
    return log_store::take_begun(*store.open("a", stream, resumed));
  };
  CHECK(begun(log_stream::out) == "");
  {
    log_store store{box.path(), {}, begin};
    auto* const out = store.open("a", log_stream::out);
    auto* const err = store.open("a", log_stream::err);
    store.take(*out, "one\nt", begin);
    store.take(*err, "other", begin);
    store.take(*out, "w", begin);
  }
  CHECK(begun(log_stream::out) == "tw");
  CHECK(begun(log_stream::err) == "other");
  CHECK(begun(log_stream::out, false) == "");
  {
    log_store store{box.path(), {}, begin};
    store.take(*store.open("a", log_stream::out, true), "o\n", begin);
    store.take(*store.open("a", log_stream::err), "new", begin);
  }
  CHECK(begun(log_stream::out) == "");
  CHECK(begun(log_stream::err) == "new");
  {
    log_store store{box.path(), {}, begin};
    store.close(store.open("a", log_stream::err, true), begin);
  }
  CHECK(begun(log_stream::err) == "");
}

TEST_CASE("a line reaches over a crash and a rotation") {
  const temporary_folder box;
  const log_store_rules rules{48h, least_store_bytes};
  auto store = std::make_unique<log_store>(box.path(), rules, begin);
  auto* a = store->open("a", log_stream::out);
  auto* b = store->open("b", log_stream::out);
  store->take(*a, "be", begin);
  while (files_in(box.path()) < 2)  // a new segment, where a has no byte yet
    store->take(*b, std::string(50'000, 'b') + '\n', begin);
  store = std::make_unique<log_store>(box.path(), rules, begin + 1s);
  a = store->open("a", log_stream::out, true);
  while (files_in(box.path()) < 3) {
    b = store->open("b", log_stream::out);
    store->take(*b, std::string(50'000, 'b') + '\n', begin + 1s);
  }
  store->take(*a, "gin\nwhole\n", begin + 2s);
  line_filter only_a;
  only_a.id = "a";
  CHECK(stored(box.path(), only_a)
        == texts{"a stdout begin", "a stdout whole"});
  // Without its beginning it is no line.
  fs::remove(box.path() + "/0000000001.log");
  CHECK(stored(box.path(), only_a) == texts{"a stdout whole"});
}

TEST_CASE("a store cut or damaged anywhere is read and continued") {
  const temporary_folder box;
  const auto file = box.path() + "/0000000001.log";
  std::string bytes;
  for (int i = 0; i < 4; ++i)
    bytes += record("a", log_stream::out, numbered(i, 1), 0, some_us);
  // As it is while the last one is being written.
  bytes[bytes.size() - 20 - 25 + record_state_offset] = '\0';
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    std::ofstream{file, std::ios::trunc} << bytes.substr(0, size);
    const auto before = stored(box.path());
    {
      log_store store{box.path(), {}, begin};
      store.take(*store.open("a", log_stream::out), "new\n", begin + 1s);
    }
    auto wanted = before;
    wanted.emplace_back("a stdout new");
    CHECK(stored(box.path()) == wanted);
    for (const auto& x : fs::directory_iterator{box.path()})
      fs::remove(x);
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    auto damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x55);
    std::ofstream{file, std::ios::trunc} << damaged;
    {
      log_store store{box.path(), {}, begin};
      store.take(*store.open("a", log_stream::out), "new\n", begin + 1s);
    }
    const auto lines = stored(box.path());
    REQUIRE(!lines.empty());
    CHECK(lines.back() == "a stdout new");
    CHECK(lines.size() >= 3);
    for (const auto& x : fs::directory_iterator{box.path()})
      fs::remove(x);
  }
}

TEST_CASE("a supervisor that is killed loses no byte, in pipe or file") {
  const temporary_folder box;
  const auto all = numbered(0, 2'000'000);
  // A writer, and a reader that is killed in the middle, again and again.
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  unique_fd out{ends[0]};
  unique_fd in{ends[1]};
  const auto writer = ::fork();
  if (writer == 0) {
    for (std::size_t at = 0; at < all.size();) {
      const auto n = ::write(in.get(), all.data() + at,
                             std::min<std::size_t>(all.size() - at, 30'000));
      if (n <= 0)
        ::_exit(1);
      at += static_cast<std::size_t>(n);
    }
    ::_exit(0);
  }
  in.reset();
  int kills = 0;
  for (bool ended = false; !ended;) {
    int opened[2];
    REQUIRE(::pipe2(opened, O_CLOEXEC) == 0);
    unique_fd told{opened[0]};
    unique_fd tells{opened[1]};
    const auto reader = ::fork();
    if (reader == 0) {
      log_store store{box.path(), {}, begin};
      auto* const a = store.open("a", log_stream::out, true);
      tells.reset();
      pollfd event{out.get(), POLLIN, 0};
      for (;;) {
        ::poll(&event, 1, -1);
        int ready = 0;
        ::ioctl(out.get(), FIONREAD, &ready);
        if (ready == 0)
          ::_exit(0);
        store.take_from(*a, out.get(), static_cast<std::size_t>(ready), begin);
      }
    }
    tells.reset();
    // Every other one has opened the store first, however slow that is: all
    // that are killed before they read would bring no end.
    char end;
    if (kills % 2 == 0)
      REQUIRE(::read(told.get(), &end, 1) == 0);
    // After a moment of its own work, wherever that is.
    const timespec moment{0, 2'000'000 + kills * 777'777 % 3'000'000};
    ::nanosleep(&moment, nullptr);
    ::kill(reader, SIGKILL);
    int status = 0;
    ::waitpid(reader, &status, 0);
    ended = WIFEXITED(status);
    kills += ended ? 0 : 1;
  }
  int status = 0;
  ::waitpid(writer, &status, 0);
  CHECK(status == 0);
  CHECK(kills > 0);
  std::size_t at = 0;
  bool same = true;
  read_lines(box.path(), {}, std::nullopt, [&](const log_line& x) {
    same = same && std::string_view{all}.substr(at, 19) == x.text;
    at += 20;
    return same;
  });
  CHECK(same);
  CHECK(at == all.size());
}

TEST_CASE("the number of segments is bounded") {
  const temporary_folder box;
  for (std::size_t i = 1; i <= most_segments + 10; ++i)
    std::ofstream{box.path() + '/' + segment_name(i)}
        << record("a", log_stream::out, "x\n");
  // Of now: their age must not be what removes them.
  log_store store{box.path(), {}, std::chrono::system_clock::now()};
  CHECK(files_in(box.path()) <= most_segments);
  CHECK(segments_in(box.path()).back() == most_segments + 10);
}

TEST_CASE("names of segments") {
  CHECK(segment_name(42) == "0000000042.log");
  CHECK(segment_number("0000000042.log") == 42);
  CHECK(segment_number("0000000042.log.gz") == 42);
  CHECK(segment_number("99999999999.log") == 99'999'999'999);
  for (const auto* other :
       {"", "42.log", "0000000042", "0000000042.log.gz.tmp", "000000004x.log",
        "0000000042.txt", "99999999999999999999999.log"})
    CHECK_FALSE(segment_number(other));
}

TEST_CASE("a file of another kind or owner in its place is trouble, no end") {
  const temporary_folder box;
  std::ofstream{box.path() + "/log"} << "in the way";
  log_store store{box.path() + "/log", {}, begin};
  auto* const a = store.open("a", log_stream::out);
  CHECK(store.take(*a, "x\n", begin).error == ENOTDIR);
  // For a while nobody asks the disk, then it is tried again.
  CHECK_FALSE(store.usable(begin + 999ms));
  CHECK(store.take(*a, "x\n", begin + 999ms).error == ENOTDIR);
  CHECK(store.trouble() == ENOTDIR);
  fs::remove(box.path() + "/log");
  CHECK(store.usable(begin + 1s));
  CHECK(store.take(*a, "y\n", begin + 1s).error == 0);
  CHECK(stored(box.path() + "/log") == texts{"a stdout y"});
  // A clock that was set back does not make the pause longer.
  fs::remove_all(box.path() + "/log");
  log_store other{box.path() + "/none", {}, begin};
  std::ofstream{box.path() + "/none"} << "in the way";
  auto* const b = other.open("b", log_stream::out);
  CHECK(other.take(*b, "x\n", begin).error == ENOTDIR);
  CHECK(other.usable(begin - 1h));
}

TEST_CASE("a full disk loses what it does not take, and no more") {
  const temporary_folder box;
  // What RLIMIT_FSIZE refuses (EFBIG), in the middle of a record.
  const auto child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    log_store store{box.path(), {}, begin};
    auto* const a = store.open("a", log_stream::out);
    const auto all = numbered(0, 10'000);
    int ends[2];
    ::pipe2(ends, O_NONBLOCK);
    ::fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    bool good = ::write(ends[1], all.data(), all.size()) == 200'000;
    const auto taken = store.take_from(*a, ends[0], all.size(), begin);
    good = good && taken.error == EFBIG && taken.bytes > 90'000
           && taken.bytes < 100'000;
    // The rest is still in the pipe.
    int left = 0;
    ::ioctl(ends[0], FIONREAD, &left);
    good = good && static_cast<std::size_t>(left) + taken.bytes == all.size();
    good = good && !store.usable(begin + 500ms);
    const auto memory = store.take(*a, "more\n", begin + 2s);
    good = good && memory.error == EFBIG && memory.bytes == 0;
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  const auto lines = stored(box.path());
  REQUIRE(lines.size() > 4'500);
  auto expected = numbered(0, static_cast<int>(lines.size()));
  for (std::size_t i = 0; i + 1 < lines.size(); ++i)  // the last is a part
    REQUIRE(lines[i].substr(9) == expected.substr(i * 20, 19));
}

// -- compression --------------------------------------------------------------

TEST_CASE("segments are compressed and read all the same") {
  const temporary_folder box;
  std::promise<void> done;
  log_archiver archiver;
  log_store store{box.path(), {48h, least_store_bytes}, begin};
  bool first = true;
  store.on_full([&](const std::string& path) {
    archiver.compress(path,
                      [&, path, mine = std::exchange(first, false)](int error) {
                        if (mine && error == 0)
                          done.set_value();
                      });
  });
  auto* const a = store.open("a", log_stream::out);
  for (int i = 0; files_in(box.path()) < 2; i += 1'000)
    store.take(*a, numbered(i, 1'000), begin);
  REQUIRE(done.get_future().wait_for(test::patience)
          == std::future_status::ready);
  const auto file = box.path() + "/0000000001.log";
  CHECK_FALSE(fs::exists(file));
  CHECK(fs::file_size(file + ".gz") < 64 * 1024);
  CHECK(fs::status(file + ".gz").permissions()
        == (fs::perms::owner_read | fs::perms::owner_write));
  store.resized(file);
  CHECK(store.bytes() == size_of(box.path()));
  const auto lines = stored(box.path());
  REQUIRE(lines.size() % 1'000 == 0);
  auto expected = numbered(0, static_cast<int>(lines.size()));
  for (std::size_t i = 0; i < lines.size(); ++i)
    REQUIRE(lines[i].substr(9) == expected.substr(i * 20, 19));
  // A compressed file that is cut gives what is there.
  fs::resize_file(file + ".gz", fs::file_size(file + ".gz") / 2);
  CHECK(stored(box.path()).size() < lines.size());
}

TEST_CASE("a file that cannot be compressed stays, and no draft of it") {
  const temporary_folder box;
  std::promise<int> done;
  log_archiver archiver;
  archiver.compress(box.path() + "/none",
                    [&](int error) { done.set_value(error); });
  CHECK(done.get_future().get() == ENOENT);
  CHECK(files_in(box.path()) == 0);
  const auto file = box.path() + "/file";
  std::ofstream{file} << "text";
  fs::create_directory(file + ".gz.tmp");
  std::promise<int> again;
  archiver.compress(file, [&](int error) { again.set_value(error); });
  CHECK(again.get_future().get() == EISDIR);
  CHECK(contents(file) == "text");
  // What an interrupted one has left goes with the next start.
  std::ofstream{box.path() + "/0000000007.log.gz.tmp"} << "half";
  log_store store{box.path(), {}, begin};
  CHECK_FALSE(fs::exists(box.path() + "/0000000007.log.gz.tmp"));
}

TEST_CASE("of a segment that is there twice the compressed one counts") {
  const temporary_folder box;
  const auto file = box.path() + "/0000000001.log";
  std::ofstream{file} << record("a", log_stream::out, "x\n");
  auto* const zip = ::gzopen((file + ".gz").c_str(), "wb");
  const auto bytes = record("a", log_stream::out, "x\n");
  ::gzwrite(zip, bytes.data(), static_cast<unsigned>(bytes.size()));
  ::gzclose(zip);
  CHECK(stored(box.path()) == texts{"a stdout x"});
  log_store store{box.path(), {}, std::chrono::system_clock::now()};
  CHECK_FALSE(fs::exists(file));
  CHECK(stored(box.path()) == texts{"a stdout x"});
}

// -- reading ------------------------------------------------------------------

TEST_CASE("the last lines are found from the end") {
  const temporary_folder box;
  log_store store{box.path(), {48h, std::uint64_t{8} << 20}, begin};
  auto* const a = store.open("a", log_stream::out);
  auto* const b = store.open("b", log_stream::out);
  const auto all = numbered(0, 300'000);
  for (std::size_t at = 0; at < all.size(); at += 30'011) {
    store.take(*a, std::string_view{all}.substr(at, 30'011), begin);
    store.take(*b, "b\n", begin);
  }
  REQUIRE(segments_in(box.path()).size() > 4);
  line_filter only_a;
  only_a.id = "a";
  const auto everything = stored(box.path(), only_a);
  REQUIRE(everything.size() == 300'000);
  for (const std::size_t n : {0, 1, 2, 1'000, 100'000, 299'999, 300'000}) {
    const auto last = stored(box.path(), only_a, n);
    REQUIRE(last.size() == n);
    CHECK(std::equal(last.begin(), last.end(),
                     everything.end() - static_cast<std::ptrdiff_t>(n)));
  }
  CHECK(stored(box.path(), only_a, 400'000).size() == 300'000);
  CHECK(stored(box.path() + "/none").empty());
}

TEST_CASE("a follower sees each line once, through rotation and compression") {
  const temporary_folder box;
  log_store store{box.path(), {48h, std::uint64_t{8} << 20}, begin};
  auto* const a = store.open("a", log_stream::out);
  store.take(*a, "before\nbeg", begin);
  texts history;
  log_follower follower{
      box.path(), [&](const log_line& x) { history.push_back(shown(x)); }};
  log_follower without{box.path()};
  CHECK(history == texts{"a stdout before"});
  store.take(*a, "un\n", begin);
  texts seen;
  const auto look = [&] {
    pollfd event{follower.fd(), POLLIN, 0};
    REQUIRE(::poll(&event, 1, 10'000) == 1);  // it is told
    follower.read_new([&](const log_line& x) { seen.push_back(shown(x)); });
    CHECK(::poll(&event, 1, 0) == 0);  // and told no more
  };
  look();
  CHECK(seen == texts{"a stdout begun"});
  seen.clear();
  const auto all = numbered(0, 200'000);
  for (std::size_t at = 0; at < all.size(); at += 30'011) {
    filled_pipe pipe{std::string_view{all}.substr(at, 30'011)};
    for (std::size_t done = 0; done < pipe.bytes;)
      done +=
          store.take_from(*a, pipe.out.get(), pipe.bytes - done, begin).bytes;
    if (at % 3 == 0)
      look();
  }
  look();
  REQUIRE(seen.size() == 200'000);
  for (std::size_t i = 0; i < seen.size(); ++i)
    REQUIRE(seen[i].substr(9) == all.substr(i * 20, 19));
  REQUIRE(segments_in(box.path()).size() > 2);
  std::size_t count = 0;
  without.read_new([&](const log_line&) { ++count; });
  CHECK(count == 200'001);
  CHECK_THROWS_AS(log_follower{box.path() + "/none"}, std::system_error);
}

TEST_CASE("a follower waits for a record that is being written") {
  const temporary_folder box;
  const auto file = box.path() + "/0000000001.log";
  std::ofstream{file} << record("a", log_stream::out, "one\n");
  log_follower follower{box.path()};
  texts seen;
  const auto look = [&] {
    follower.read_new([&](const log_line& x) { seen.push_back(shown(x)); });
  };
  auto next = record("a", log_stream::out, "two\nthree\n");
  auto open = next;
  open[record_state_offset] = '\0';
  std::ofstream{file, std::ios::app} << open.substr(0, 30);
  look();
  CHECK(seen.empty());
  std::ofstream{file, std::ios::app} << open.substr(30);
  look();
  CHECK(seen.empty());
  std::fstream all{file, std::ios::in | std::ios::out};
  all.seekp(static_cast<std::streamoff>(
      record("a", log_stream::out, "one\n").size() + record_state_offset));
  all.put('\1');
  all.close();
  look();
  CHECK(seen == texts{"a stdout two", "a stdout three"});
}

// -- files --------------------------------------------------------------------

TEST_CASE(
    "without a descriptor for the next file the lines go on in this one") {
  const temporary_folder box;
  const auto path = box.path() + "/app.log";
  const auto pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    const auto now = std::chrono::system_clock::now();
    log_file file{path, {10, 4}, nullptr};
    const auto good = [&](const char* line) {
      const auto put = file.write(line, now);
      return put.error == 0 && put.bytes == std::strlen(line);
    };
    bool all = good("one\ntwo\n");
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit none{3, limit.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
    all = good("three\n") && good("four\n") && all;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    ::_exit(good("five\n") && all ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(contents(path) == "five\n");
  std::string rotated;
  for (const auto& x : fs::directory_iterator{box.path()})
    if (x.path() != path)
      rotated += contents(x.path());
  CHECK(rotated == "one\ntwo\nthree\nfour\n");
}

TEST_CASE("a file is begun anew between two lines, and the oldest go") {
  const temporary_folder box;
  const auto path = box.path() + "/deep/app.log";
  texts full;
  log_file file{
      path, {1'000, 3}, [&](const std::string& x) { full.push_back(x); }};
  std::ofstream{box.path() + "/deep.log-20000101T000000.000Z"} << "other";
  auto now = begin;
  const auto all = numbered(0, 1'000, 7);
  for (int i = 0; i < 1'000; i += 10) {
    const auto lines = numbered(i, 10, 7);
    CHECK(file.write(lines, now).bytes == lines.size());
    CHECK(fs::file_size(path) <= 1'000);
    now += 1s;
  }
  std::vector<fs::path> files;
  for (const auto& x : fs::directory_iterator{box.path() + "/deep"})
    files.push_back(x.path());
  std::sort(files.begin(), files.end());
  REQUIRE(files.size() == 4);  // app.log sorts first
  std::string kept;
  for (std::size_t i = 1; i < files.size(); ++i) {
    CHECK(fs::file_size(files[i]) <= 1'000);
    kept += contents(files[i]);
  }
  kept += contents(files[0]);
  CHECK(all.ends_with(kept));
  CHECK(kept.size() > 3 * 980);
  CHECK(files[1].filename().string().starts_with("app.log-20261124T0"));
  CHECK(full.size() > 3);
  CHECK(fs::exists(box.path() + "/deep.log-20000101T000000.000Z"));
}

TEST_CASE("one write may fill several files, a line longer than one its own") {
  const temporary_folder box;
  const auto path = box.path() + "/app.log";
  log_file file{path, {1'000, 100}, nullptr};
  const auto all = numbered(0, 500, 7);
  CHECK(file.write(all, begin).bytes == all.size());
  CHECK(files_in(box.path()) == 4);
  const auto giant = std::string(5'000, 'x') + '\n';
  CHECK(file.write(giant + "small\n", begin).bytes == giant.size() + 6);
  CHECK(contents(path) == "small\n");
}

TEST_CASE("a file is opened again after another program has taken it") {
  const temporary_folder box;
  const auto path = box.path() + "/app.log";
  log_file file{path, {0, 0}, nullptr};
  file.write("one\n", begin);
  fs::rename(path, path + ".1");
  file.write("two\n", begin);
  file.reopen();
  file.write("three\n", begin);
  CHECK(contents(path + ".1") == "one\ntwo\n");
  CHECK(contents(path) == "three\n");
  fs::resize_file(path, 0);  // copytruncate
  file.write("four\n", begin);
  CHECK(contents(path) == "four\n");
}

TEST_CASE("a file that another program has taken away is made again") {
  const temporary_folder box;
  const auto path = box.path() + "/logs/app.log";
  log_file file{path, {0, 0}, nullptr};
  file.write("one\n", begin);
  SECTION("at once where it was removed") {
    fs::remove(path);
    CHECK(file.write("two\n", begin).error == 0);
    CHECK(contents(path) == "two\n");
  }
  SECTION("with its folder") {
    fs::remove_all(box.path() + "/logs");
    CHECK(file.write("two\n", begin).error == 0);
    CHECK(contents(path) == "two\n");
  }
  SECTION("after a while where it was moved: who did may make the new one") {
    fs::rename(path, path + ".1");
    file.write("two\n", begin);
    file.write("three\n", begin + log_file::moved_pause - 1ms);
    CHECK(contents(path + ".1") == "one\ntwo\nthree\n");
    CHECK_FALSE(fs::exists(path));
    file.write("four\n", begin + log_file::moved_pause);
    CHECK(contents(path) == "four\n");
    CHECK(contents(path + ".1") == "one\ntwo\nthree\n");
  }
  SECTION("and where another one has its name") {
    fs::rename(path, path + ".1");
    std::ofstream{path} << "of somebody\n";
    file.write("two\n", begin);
    file.write("three\n", begin + log_file::moved_pause);
    CHECK(contents(path) == "of somebody\nthree\n");
  }
  SECTION("but not where it has come back") {
    fs::rename(path, path + ".1");
    file.write("two\n", begin);
    fs::rename(path + ".1", path);
    file.write("three\n", begin + log_file::moved_pause);
    fs::rename(path, path + ".1");
    file.write("four\n", begin + log_file::moved_pause);
    CHECK(contents(path + ".1") == "one\ntwo\nthree\nfour\n");
  }
}

TEST_CASE("a file that cannot be written says why, and is tried again") {
  const temporary_folder box;
  fs::create_directory(box.path() + "/app.log");
  log_file file{box.path() + "/app.log", {}, nullptr};
  CHECK(file.write("x\n", begin).error == EISDIR);
  fs::remove(box.path() + "/app.log");
  CHECK(file.write("x\n", begin + 999ms).error == EISDIR);
  CHECK(file.write("x\n", begin + 1s).error == 0);
  CHECK(contents(box.path() + "/app.log") == "x\n");
  const auto fifo = box.path() + "/fifo";  // without a reader: must not block
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  log_file pipe{fifo, {}, nullptr};
  CHECK(pipe.write("x\n", begin).error == ENXIO);
}

TEST_CASE("a full disk leaves whole lines in a file") {
  const temporary_folder box;
  const auto child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1'015, 1'015};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    log_file file{box.path() + "/app.log", {0, 0}, nullptr};
    const auto put = file.write(numbered(0, 100), begin);
    ::_exit(put.error == EFBIG && put.bytes == 1'000 ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(contents(box.path() + "/app.log") == numbered(0, 50));
}

// -- the console --------------------------------------------------------------

TEST_CASE("a console that is not read costs its own lines only, counted") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const unique_fd out{ends[0]};
  const unique_fd in{ends[1]};
  log_console console{in.get()};
  CHECK((::fcntl(in.get(), F_GETFL) & O_NONBLOCK) == 0);  // not ours to change
  const auto lines = numbered(0, 1'000);
  std::size_t offered = 0;
  while (console.dropped_lines() == 0) {
    console.write(lines);
    offered += 1'000;
  }
  CHECK(console.waiting());
  CHECK(offered * 20
        <= 65'536 + log_console::most_waiting_bytes + 2 * lines.size());
  std::string got;
  const auto drain = [&] {
    ::fcntl(out.get(), F_SETFL, O_NONBLOCK);
    std::string block(65'536, ' ');
    for (ssize_t n = 0;
         (n = ::read(out.get(), block.data(), block.size())) > 0;)
      got.append(block, 0, static_cast<std::size_t>(n));
  };
  while (console.waiting()) {
    drain();
    console.flush();
  }
  drain();
  const auto said = "pup: " + std::to_string(console.dropped_lines())
                    + " lines are not shown here, the reader is too slow; pup "
                      "logs has them\n";
  REQUIRE(got.ends_with(said));
  got.erase(got.size() - said.size());
  CHECK(got.size() / 20 + console.dropped_lines() == offered);
  for (std::size_t at = 0; at < got.size(); at += 20)
    REQUIRE(got.substr(at, 20) == lines.substr(at % lines.size(), 20));
  got.clear();
  console.write("again\n");
  drain();
  CHECK(got == "again\n");
}

TEST_CASE("a console that is gone is no trouble") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  ::signal(SIGPIPE, SIG_IGN);
  log_console console{ends[1]};
  ::close(ends[0]);
  ::close(ends[1]);
  console.write("x\n");
  CHECK_FALSE(console.waiting());
  log_console none{-1};
  none.write("x\n");
  CHECK_FALSE(none.waiting());
}

TEST_CASE("child: compress without processes", "[.child]") {
  test::die_with_parent();
  const std::string folder = test::variable("TEST_FOLDER");
  // Limits of processes are for others than root.
  if (::geteuid() == 0) {
    const auto user = static_cast<uid_t>(60'000 + ::getpid() % 5'000);
    REQUIRE(::chown(folder.c_str(), user, user) == 0);
    REQUIRE(::setresuid(user, user, user) == 0);
  }
  for (const auto* name : {"/a", "/b"})
    std::ofstream{folder + name} << "text\n";
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NPROC, &limit) == 0);
  const auto before = limit.rlim_cur;
  limit.rlim_cur = 0;
  REQUIRE(::setrlimit(RLIMIT_NPROC, &limit) == 0);
  std::promise<int> first;
  std::promise<int> second;
  log_archiver archiver;
  archiver.compress(folder + "/a", [&](int error) { first.set_value(error); });
  limit.rlim_cur = before;
  REQUIRE(::setrlimit(RLIMIT_NPROC, &limit) == 0);
  archiver.compress(folder + "/b", [&](int error) { second.set_value(error); });
  test::report(std::to_string(first.get_future().get())
               + std::to_string(second.get_future().get()));
}

TEST_CASE("log: a file that nobody can be found to compress waits") {
  temporary_folder box;
  test::child_process child{"child: compress without processes",
                            {"TEST_FOLDER=" + box.path()}};
  CHECK(child.line() == "00");
  CHECK(fs::exists(box.path() + "/a.gz"));
  CHECK(fs::exists(box.path() + "/b.gz"));
}
