// The log's thread, with real pipes and processes.
#include "pup/runtime/log.hpp"
#include "pup/runtime/log_query.hpp"
#include "pup/runtime/log_store.hpp"
#include "pup/runtime/usage.hpp"

#include "catch.hpp"
#include "child_process.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <new>
#include <optional>
#include <pthread.h>
#include <sstream>
#include <thread>

#include <sys/ioctl.h>
#include <sys/resource.h>

namespace {

// While set, the log's thread gets no memory.
std::atomic<bool> log_starves{false};
std::atomic<int> log_refused{0};

bool refused() {
  if (!log_starves)
    return false;
  std::array<char, 16> name{};
  ::pthread_getname_np(::pthread_self(), name.data(), name.size());
  if (std::string_view{name.data()} != "pup-log")
    return false;
  ++log_refused;
  return true;
}

}  // namespace

void* operator new(std::size_t size) {
  if (!refused())
    if (auto* const memory = std::malloc(size > 0 ? size : 1))
      return memory;
  throw std::bad_alloc{};
}
// Sanitizers have one of their own that does not call the other.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return std::malloc(size > 0 ? size : 1);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

using namespace pup;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

using test::temporary_folder;
using texts = std::vector<std::string>;

// A run with sanitizers is some ten times slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t bulk_lines = 400'000;
#else
constexpr std::size_t bulk_lines = 10'000'000;
#endif

std::string contents(const fs::path& path) {
  std::ifstream file{path};
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// "stream text" of what `id` said.
texts said_by(const std::string& folder, const std::string& id) {
  line_filter filter;
  filter.id = id;
  texts result;
  read_lines(folder, filter, std::nullopt, [&](const log_line& x) {
    result.push_back(std::string{stream_name(x.stream)} + ' '
                     + std::string{x.text});
    return true;
  });
  return result;
}

/// The write ends of a process's output, in this process.
struct talker {
  unique_fd out, err;
  std::shared_ptr<log_losses> losses = std::make_shared<log_losses>();

  talker(log_sink& to, const std::string& id, output_spec output = {},
         bool resumed = false, const std::string& awaited = {},
         std::function<void()> on_match = {}) {
    auto first = std::get<log_pipe>(make_log_pipe());
    auto second = std::get<log_pipe>(make_log_pipe());
    out = std::move(first.write_end);
    err = std::move(second.write_end);
    to.attach({id, std::move(output), std::move(first.read_end),
               std::move(second.read_end), losses, resumed, awaited,
               std::move(on_match)});
  }

  static void write(const unique_fd& to, std::string_view text) {
    while (!text.empty()) {
      const auto n = ::write(to.get(), text.data(), text.size());
      REQUIRE(n > 0);
      text.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  void say(std::string_view text) const {
    write(out, text);
  }
  void complain(std::string_view text) const {
    write(err, text);
  }
};

log_options stored_in(const temporary_folder& box) {
  log_options result;
  result.folder = box.path() + "/log";
  return result;
}

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + test::patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline)
      return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

std::string numbered(std::size_t i) {
  auto line = std::to_string(i);
  line.resize(19, '.');
  return line += '\n';
}

/// Writes numbered lines as fast as it can; its pid.
pid_t flood(const unique_fd& to, std::size_t lines, std::size_t batch) {
  const auto pid = ::fork();
  if (pid != 0)
    return pid;
  std::string block;
  for (std::size_t i = 0; i < lines; ++i) {
    block += numbered(i);
    if (block.size() < batch && i + 1 < lines)
      continue;
    for (std::size_t at = 0; at < block.size();) {
      const auto n = ::write(to.get(), block.data() + at, block.size() - at);
      if (n <= 0)
        ::_exit(1);
      at += static_cast<std::size_t>(n);
    }
    block.clear();
  }
  ::_exit(0);
}

std::size_t peak_kb() {
  std::ifstream status{"/proc/self/status"};
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:"))
      return std::stoul(line.substr(6));
  return 0;
}

/// Voluntary switches of the thread "pup-log".
long wakeups() {
  for (const auto& task : fs::directory_iterator{"/proc/self/task"}) {
    if (contents(task.path() / "comm") != "pup-log\n")
      continue;
    std::ifstream status{task.path() / "status"};
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("voluntary_ctxt_switches:"))
        return std::stol(line.substr(24));
  }
  return -1;
}

}  // namespace

TEST_CASE("each line is kept with its id and stream, events in their place") {
  const temporary_folder box;
  {
    log_sink sink{stored_in(box)};
    sink.event("a", log_stream::info, "started");
    const talker a{sink, "a"};
    const talker b{sink, "b"};
    a.say("one\n");
    a.complain("bad\n");
    b.say("other\npart");
    // Behind all that it has written, from whichever thread.
    sink.event("a", log_stream::warn, "exited\nwith code 1");
  }
  CHECK(said_by(box.path() + "/log", "a")
        == texts{"pup started", "stdout one", "stderr bad",
                 "pup exited with code 1"});
  CHECK(said_by(box.path() + "/log", "b")
        == texts{"stdout other", "stdout part"});
}

TEST_CASE("output that goes nowhere is not wanted") {
  const temporary_folder box;
  output_spec with_file;
  with_file.stderr_file = box.path() + "/err";
  output_spec with_console;
  with_console.console = true;
  log_sink nothing{{}};
  CHECK_FALSE(nothing.wants({}));
  CHECK_FALSE(nothing.wants(with_console));
  CHECK(nothing.wants(with_file));
  auto options = stored_in(box);
  CHECK(log_sink{options}.wants({}));
  options.logger.internal_log = 0h;
  log_sink without{options};
  CHECK_FALSE(without.wants({}));
  {
    const talker a{without, "a", with_file};
    a.say("lost\n");
    a.complain("kept\n");
    REQUIRE(eventually(
        [&] { return contents(with_file.stderr_file) == "kept\n"; }));
  }
  CHECK_FALSE(fs::exists(box.path() + "/log"));
}

TEST_CASE("files get whole lines without escapes, shared or not") {
  const temporary_folder box;
  auto options = stored_in(box);
  output_spec plain;
  plain.stdout_file = box.path() + "/plain";
  output_spec both = plain;
  both.stdout_file = box.path() + "/out";
  both.stderr_file = box.path() + "/err";
  output_spec decorated;
  decorated.stdout_file = box.path() + "/decorated";
  decorated.decorate_files = true;
  output_spec json;
  json.stdout_file = box.path() + "/json";
  json.json = true;
  {
    log_sink sink{options};
    const talker a{sink, "a", plain};
    const talker b{sink, "b", plain};
    const talker c{sink, "c", both};
    const talker d{sink, "d", decorated};
    const talker e{sink, "e", json};
    const auto has = [&](const std::string& id, const std::string& line) {
      return eventually([&] {
        const auto said = said_by(options.folder, id);
        return !said.empty() && said.back() == line;
      });
    };
    a.say("first h");
    REQUIRE(has("a", "stdout first h"));
    b.say("from b\n");
    REQUIRE(has("b", "stdout from b"));
    a.say("alf\n");
    REQUIRE(has("a", "stdout first half"));
    a.complain("\033[31mred\033[0m\n");
    c.say("o\n");
    c.complain("e\n");
    d.say("text\n");
    e.say("te\"xt\n");
  }
  CHECK(contents(plain.stdout_file) == "from b\nfirst half\nred\n");
  CHECK(contents(both.stdout_file) == "o\n");
  CHECK(contents(both.stderr_file) == "e\n");
  CHECK(contents(decorated.stdout_file).substr(24) == " d stdout text\n");
  const auto object = contents(json.stdout_file);
  CHECK(object.starts_with("{\"time\":\"2"));
  CHECK(object.ends_with(
      "\"id\":\"e\",\"stream\":\"stdout\",\"severity\":\"info\",\"text\":"
      "\"te\\\"xt\"}\n"));
  // The store has what was written.
  CHECK(said_by(options.folder, "a").back() == "stderr \033[31mred\033[0m");
}

TEST_CASE("files are opened again when asked, and rotated ones compressed") {
  const temporary_folder box;
  auto options = stored_in(box);
  options.logger.file_bytes = 100'000;
  options.logger.files_kept = 2;
  output_spec output;
  output.stdout_file = box.path() + "/app.log";
  log_sink sink{options};
  const talker a{sink, "a", output};
  a.say("one\n");
  REQUIRE(eventually([&] { return contents(output.stdout_file) == "one\n"; }));
  fs::rename(output.stdout_file, box.path() + "/old");
  sink.reopen();
  a.say("two\n");
  REQUIRE(eventually([&] { return contents(output.stdout_file) == "two\n"; }));
  CHECK(contents(box.path() + "/old") == "one\n");
  for (std::size_t i = 0; i < 20'000; ++i)
    a.say(numbered(i));
  const auto compressed = [&] {
    std::size_t found = 0;
    std::size_t plain = 0;
    for (const auto& x : fs::directory_iterator{box.path()}) {
      const auto name = x.path().filename().string();
      if (name.starts_with("app.log-"))
        (name.ends_with(".gz") ? found : plain) += 1;
    }
    return found == 2 && plain == 0;
  };
  REQUIRE(eventually(compressed));
}

TEST_CASE("what is written after a file was opened again is in the new one") {
  const temporary_folder box;
  output_spec output;
  output.stdout_file = box.path() + "/app.log";
  log_sink sink{stored_in(box)};
  const talker a{sink, "a", output};
  for (int i = 0; i < 100; ++i) {
    a.say("before\n");
    // Without a pause: the log may be about to look at the pipe again.
    while (contents(output.stdout_file) != "before\n")
      std::this_thread::yield();
    fs::rename(output.stdout_file, box.path() + "/old");
    sink.reopen();
    a.say("after\n");
    REQUIRE(
        eventually([&] { return contents(output.stdout_file) == "after\n"; }));
    fs::remove(output.stdout_file);
    sink.reopen();
  }
}

TEST_CASE("a flood is kept whole, in bounded memory, beside quiet ones") {
  for (const std::size_t batch : {1, 65'536}) {
    const temporary_folder box;
    const auto lines = batch == 1 ? bulk_lines / 10 : bulk_lines;
    auto options = stored_in(box);
    auto sink = std::make_unique<log_sink>(options);
    auto loud = std::make_unique<talker>(*sink, "loud");
    const talker quiet{*sink, "quiet"};
    quiet.say("before\n");
    REQUIRE(eventually(
        [&] { return said_by(options.folder, "quiet").size() == 1; }));
    std::ofstream{"/proc/self/clear_refs"} << "5";
    const auto before = peak_kb();
    const auto writer = flood(loud->out, lines, batch);
    REQUIRE(writer > 0);
    std::size_t told = 1;
    int status = 0;
    // A line of someone else does not wait for the flood's end.
    while (::waitpid(writer, &status, WNOHANG) == 0) {
      quiet.say("line\n");
      ++told;
      std::this_thread::sleep_for(20ms);
    }
    CHECK(status == 0);
#ifndef __SANITIZE_ADDRESS__
#  ifndef __SANITIZE_THREAD__
    CHECK(peak_kb() - before < 4 * 1024);
#  endif
#endif
    static_cast<void>(before);
    CHECK(loud->losses->bytes == 0);
    loud.reset();
    sink.reset();
    std::size_t count = 0;
    bool same = true;
    line_filter filter;
    filter.id = "loud";
    read_lines(options.folder, filter, std::nullopt, [&](const log_line& x) {
      same = same && x.text == std::string_view{numbered(count)}.substr(0, 19);
      ++count;
      return same;
    });
    CHECK(same);
    CHECK(count == lines);
    CHECK(said_by(options.folder, "quiet").size() == told);
  }
}

TEST_CASE("nothing runs when nothing is said") {
  const temporary_folder box;
  log_sink sink{stored_in(box)};
  std::vector<talker> all;
  for (int i = 0; i < 100; ++i)
    all.emplace_back(sink, "a" + std::to_string(i)).say("x\n");
  line_filter none;
  REQUIRE(eventually([&] {
    return read_lines(box.path() + "/log", none, std::nullopt,
                      [](const log_line&) { return true; })
               .lines
           == 100;
  }));
  const auto before = wakeups();
  REQUIRE(before > 0);
  std::this_thread::sleep_for(1s);
  CHECK(wakeups() - before <= 1);  // the one that had just finished its round
}

TEST_CASE("log: a lease ends with its output, though nothing else is posted") {
  const temporary_folder box;
  log_sink sink{stored_in(box)};
  auto pipe = std::get<log_pipe>(make_log_pipe());
  auto lease = std::make_shared<int>();
  const std::weak_ptr<int> held = lease;
  talker::write(pipe.write_end, "last words\n");
  pipe.write_end.reset();
  log_attachment ended;
  ended.id = "a";
  ended.out = std::move(pipe.read_end);
  ended.lease = std::move(lease);
  sink.attach(std::move(ended));
  CHECK(eventually([&] { return held.expired(); }));
  CHECK(said_by(box.path() + "/log", "a") == texts{"stdout last words"});
}

TEST_CASE("many instances cost little") {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const temporary_folder box;
  log_sink sink{stored_in(box)};
  std::vector<talker> all;
  all.reserve(500);
  const auto rss = [] { return sample({::getpid()}).at(0).rss_bytes; };
  const auto before = rss();
  for (int i = 0; i < 500; ++i)
    all.emplace_back(sink, "a" + std::to_string(i)).say("hello\n");
  all.back().say("end\n");
  REQUIRE(eventually(
      [&] { return said_by(box.path() + "/log", "a499").size() == 2; }));
  CHECK(rss() - before < 2u << 20);
#endif
}

TEST_CASE("a disk that takes nothing blocks nobody, and the loss is told") {
  const temporary_folder box;
  auto options = stored_in(box);
  std::ofstream{options.folder} << "in the way";
  output_spec output;
  output.stdout_file = box.path() + "/none/app.log";
  std::ofstream{box.path() + "/none"} << "in the way";
  std::ofstream{box.path() + "/end"};
  auto sink = std::make_unique<log_sink>(options);
  {
    const talker a{*sink, "a"};
    const talker b{*sink, "b", output};
    // More than any pipe holds, and ending within a line.
    for (int i = 0; i < 500'000; ++i)
      a.say("0123456\n");
    a.say("half");
    REQUIRE(eventually([&] { return a.losses->bytes == 4'000'004; }));
    CHECK(a.losses->lines == 500'000);
    b.say("lost\n");
    REQUIRE(eventually([&] { return b.losses->bytes == 10; }));  // both places
    fs::remove(options.folder);
    fs::remove(box.path() + "/none");
    // Without another word of the process.
    REQUIRE(eventually([&] {
      const auto said = said_by(options.folder, "a");
      return !said.empty()
             && said.back().starts_with(
                 "pup lost 500000 lines (4000004 bytes) "
                 "of stdout since 2");
    }));
    a.say(" a line\nwhole\n");
    b.say("kept\n");
    REQUIRE(eventually([&] {
      return said_by(options.folder, "a").back() == "stdout whole"
             && contents(output.stdout_file) == "kept\n";
    }));
    CHECK(a.losses->lines == 500'001);
    CHECK(a.losses->bytes == 4'000'012);
  }
  sink.reset();
  const auto said = said_by(options.folder, "a");
  CHECK(said.size() == 3);
  CHECK(said.front().ends_with(": Not a directory"));
  std::size_t of_file = 0;
  for (const auto& x : said_by(options.folder, "b"))
    of_file +=
        x.starts_with("pup lost 1 lines (5 bytes) of lines for ") ? 1 : 0;
  CHECK(of_file == 1);
}

TEST_CASE("a stream is taken over in the middle of a line") {
  const temporary_folder box;
  const auto options = stored_in(box);
  auto pipe = std::get<log_pipe>(make_log_pipe());
  // Another process holds a copy of the read end all the time.
  const unique_fd held{::fcntl(pipe.read_end.get(), F_DUPFD_CLOEXEC, 3)};
  {
    log_sink sink{options};
    unique_fd mine{::fcntl(held.get(), F_DUPFD_CLOEXEC, 3)};
    sink.attach({"a", {}, std::move(mine), unique_fd{}, nullptr, false});
    talker::write(pipe.write_end, "one\nbeg");
    REQUIRE(eventually([&] { return !said_by(options.folder, "a").empty(); }));
  }
  talker::write(pipe.write_end, "in\n");
  {
    log_sink sink{options};
    sink.attach(
        {"a", {}, std::move(pipe.read_end), unique_fd{}, nullptr, true});
    talker::write(pipe.write_end, "two\n");
    pipe.write_end.reset();
  }
  // An orderly end closes the line; what came later is another.
  CHECK(said_by(options.folder, "a")
        == texts{"stdout one", "stdout beg", "stdout in", "stdout two"});
}

TEST_CASE("a line of a file that a successor goes on with stays one line") {
  const temporary_folder box;
  const auto options = stored_in(box);
  output_spec output;
  output.stdout_file = box.path() + "/a.txt";
  auto pipe = std::get<log_pipe>(make_log_pipe());
  const unique_fd held{::fcntl(pipe.read_end.get(), F_DUPFD_CLOEXEC, 3)};
  const auto go_on = [&](log_sink& sink) {
    unique_fd mine{::fcntl(held.get(), F_DUPFD_CLOEXEC, 3)};
    sink.attach({"a", output, std::move(mine), unique_fd{}, nullptr, true});
  };
  const auto is_empty = [&] {
    int bytes = 1;
    return ::ioctl(held.get(), FIONREAD, &bytes) == 0 && bytes == 0;
  };
  talker::write(pipe.write_end, "one\nbe");
  for (const auto* piece : {"gi", "n\nt", "wo\n"}) {
    log_sink sink{options};
    go_on(sink);
    REQUIRE(eventually(is_empty));
    talker::write(pipe.write_end, piece);
    sink.leave();
  }
  CHECK(contents(output.stdout_file) == "one\nbegin\ntwo\n");
  talker::write(pipe.write_end, "last");
  {
    log_sink sink{options};
    go_on(sink);
    pipe.write_end.reset();
  }
  CHECK(contents(output.stdout_file) == "one\nbegin\ntwo\nlast\n");
}

TEST_CASE("the console gets lines, decorated when wanted") {
  const temporary_folder box;
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const unique_fd out{ends[0]};
  unique_fd in{ends[1]};
  log_options options;
  options.console_out = in.get();
  options.logger.decorate = true;
  output_spec output;
  output.console = true;
  {
    log_sink sink{options};
    in.reset();
    const talker a{sink, "a", output};
    const talker b{sink, "b"};
    b.say("not here\n");
    a.say("\033[1mhello\033[0m\nhalf");
  }
  std::string text(4'096, ' ');
  text.resize(static_cast<std::size_t>(
      std::max<ssize_t>(::read(out.get(), text.data(), text.size()), 0)));
  REQUIRE(text.size() > 60);
  CHECK(text.substr(24, 17) == " a stdout hello\n2");
  CHECK(text.ends_with(" a stdout half\n"));
}

TEST_CASE("events beyond the bound are counted") {
  const temporary_folder box;
  const auto options = stored_in(box);
  constexpr std::size_t count = 3 * log_sink::most_waiting_events;
  {
    log_sink sink{options};
    for (std::size_t i = 0; i < count; ++i)
      sink.event("a", log_stream::info, "x");
  }
  const auto kept = said_by(options.folder, "a").size();
  const auto told = said_by(options.folder, "pup");
  std::size_t dropped = 0;
  for (const auto& x : told)
    dropped += std::stoul(x.substr(4));
  CHECK(kept >= log_sink::most_waiting_events);
  CHECK(kept + dropped == count);
}

TEST_CASE("log: without memory nobody waits, and nobody loses the pipe") {
  temporary_folder box;
  auto options = stored_in(box);
  output_spec decorated;
  decorated.stdout_file = box.path() + "/out.log";
  decorated.decorate_files = true;
  const std::string bulk(4 * (std::size_t{1} << 20), '\n');
  {
    log_sink sink{options};
    const talker first{sink, "a", decorated};
    first.say("before\n");
    REQUIRE(
        eventually([&] { return said_by(options.folder, "a").size() == 1; }));
    log_starves = true;
    const talker second{sink, "b", decorated};
    second.say("patience\n");
    sink.event("a", log_stream::info, "an event that has to wait");
    first.say(bulk);  // more than any pipe holds
    CHECK(eventually([] { return log_refused > 0; }));
    log_starves = false;
    first.say("after\n");
    CHECK(eventually([&] {
      const auto lines = said_by(options.folder, "a");
      return std::count(lines.begin(), lines.end(), "stdout after") == 1;
    }));
    CHECK(eventually([&] {
      return said_by(options.folder, "b") == texts{"stdout patience"};
    }));
  }
  const auto lines = said_by(options.folder, "a");
  CHECK(std::count(lines.begin(), lines.end(), "pup an event that has to wait")
        == 1);
}

// -- a line that somebody waits for -------------------------------------------

namespace {

struct awaited_world {
  temporary_folder box;
  log_options options = stored_in(box);
  output_spec output;
  std::optional<log_sink> sink;
  std::atomic<int> matches{0};

  talker begin(const std::string& pattern) {
    if (!sink)
      sink.emplace(options);
    return talker{*sink, "web", output, false, pattern, [this] { ++matches; }};
  }
  bool matched() {
    return eventually([this] { return matches == 1; });
  }
};

}  // namespace

TEST_CASE_METHOD(awaited_world, "an awaited line is told once, and kept") {
  {
    const auto web = begin("up on \\d+$");
    SECTION("in the middle of a burst") {
      web.say("one\nup on \n\x1B[32mup\x1B[0m on 80\r\nup on 81\n");
    }
    SECTION("in pieces, between which nobody looks") {
      web.say("one\nup on \nup o");
      REQUIRE(eventually(
          [&] { return said_by(options.folder, "web").size() > 1; }));
      CHECK(matches == 0);
      web.say("n 8");
      web.say("0\n");
    }
    SECTION("on standard error") {
      web.say("up on \n");
      web.complain("up on 80\n");
      CHECK(matched());
      web.say("up on 81\n");
    }
    CHECK(matched());
    web.say("after\n");
  }
  sink.reset();
  CHECK(matches == 1);
  const auto all = said_by(options.folder, "web");
  CHECK(std::count(all.begin(), all.end(), "stdout after") == 1);
  CHECK(std::count(all.begin(), all.end(), "stdout up on ") == 1);
}

TEST_CASE_METHOD(awaited_world, "what is awaited may never come") {
  {
    const auto web = begin("^never$");
    web.say("nevermore\n never\nneve");
    REQUIRE(
        eventually([&] { return said_by(options.folder, "web").size() >= 2; }));
    CHECK(matches == 0);
    web.say("rtheless\n");
    // Too long for a prompt, it has to have an end.
    web.say("never" + std::string(8 * 1024, ' '));
  }
  sink.reset();
  CHECK(matches == 0);
}

TEST_CASE_METHOD(awaited_world, "a line is told before it has an end") {
  if (GENERATE(false, true))
    options.folder.clear();  // there is no store
  {
    const auto web = begin("^psql> $");
    web.say("loading\n\x1B[1mps");
    web.say("ql\x1B[0m> ");
    CHECK(matched());
    web.say("\nnext\npsql> \n");
  }
  sink.reset();
  CHECK(matches == 1);
}

TEST_CASE_METHOD(awaited_world, "the end of the output makes nobody ready") {
  {
    auto web = begin(" $");
    web.say("x" + std::string(8 * 1024, ' '));  // told by nothing but its end
    web.out.reset();
    web.err.reset();
    CHECK(
        eventually([&] { return said_by(options.folder, "web").size() == 1; }));
  }
  sink.reset();
  CHECK(matches == 0);
}

TEST_CASE_METHOD(awaited_world,
                 "nothing is stored, and still it is looked for") {
  options.folder.clear();
  SECTION("for readiness alone; the rest goes nowhere and blocks nobody") {}
  SECTION("besides a file") {
    output.stdout_file = box.path() + "/out";
  }
  {
    const auto web = begin("ready");
    web.say("1\nre");
    web.say("ady\n");
    CHECK(matched());
    for (int i = 0; i < 64; ++i)
      web.say(std::string(64 * 1024 - 1, 'x') + '\n');
    web.complain("ready\n");
  }
  sink.reset();
  CHECK(matches == 1);
  if (!output.stdout_file.empty())
    CHECK(contents(output.stdout_file).size() == 8 + 64 * (64 * 1024) + 6);
}

TEST_CASE_METHOD(awaited_world, "lines without an end cost bounded memory") {
  const auto web = begin("ready$");
  const auto before = peak_kb();
  for (int i = 0; i < 1024; ++i)
    web.say(std::string(64 * 1024, 'x'));
  web.say("ready\n");
  CHECK(matched());
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(peak_kb() - before < 8 * 1024);
#else
  static_cast<void>(before);  // sanitizers hold what was freed
#endif
}

TEST_CASE_METHOD(awaited_world,
                 "a flood is kept whole while a line is awaited") {
  constexpr std::size_t lines = bulk_lines / 20;
  {
    auto web = begin("^" + std::to_string(lines - 1) + "\\.");
    const auto child = flood(web.out, lines, 8192);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(matched());
  }
  sink.reset();
  std::size_t count = 0;
  bool in_order = true;
  read_lines(options.folder, {}, std::nullopt, [&](const log_line& x) {
    auto expected = numbered(count++);
    expected.pop_back();
    in_order = in_order && x.text == expected;
    return true;
  });
  CHECK(in_order);
  CHECK(count == lines);
}
