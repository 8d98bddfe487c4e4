#include "pup/runtime/log_query.hpp"

#include "pup/runtime/log_store.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <zlib.h>

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>

namespace pup {

namespace {

constexpr std::size_t block_bytes = 256 * 1024;

// An id has 255 bytes at most, so this much is left over at most.
constexpr std::size_t most_unread_bytes = record_head_bytes + 255;

struct reading {
  std::unique_ptr<char[]> block{new char[block_bytes + most_unread_bytes]};

  /// Feeds a whole segment; false: its rest cannot be read.
  bool feed(log_reader& to, segment_bytes& from,
            const std::function<bool()>& enough) {
    to.next_segment();
    std::size_t unread = 0;
    for (;;) {
      const auto n = from.read(block.get() + unread, block_bytes);
      if (n <= 0)
        return n == 0;
      const auto have = unread + static_cast<std::size_t>(n);
      const auto used = to.feed({block.get(), have});
      unread = have - used;
      std::copy_n(block.get() + used, unread, block.get());
      if (enough())
        return true;
    }
  }
};

/// Reads segments from `first` on.
read_report read_from(const std::string& folder,
                      const std::vector<std::uint64_t>& numbers,
                      std::size_t first, std::size_t end,
                      const line_filter& filter, const line_receiver& to) {
  read_report result;
  log_reader lines{[&](const log_line& x) {
    if (result.stopped || !filter.wants(x))
      return;
    ++result.lines;
    result.stopped = !to(x);
  }};
  reading with;
  for (std::size_t i = first; i < end && !result.stopped; ++i)
    if (auto bytes = segment_bytes::open(folder, numbers[i]))
      with.feed(lines, *bytes, [&] { return result.stopped; });
  if (!result.stopped)
    lines.finish();
  result.damaged_bytes = lines.damaged_bytes();
  return result;
}

}  // namespace

// -- one segment --------------------------------------------------------------

void segment_bytes::closer::operator()(void* zip) const noexcept {
  ::gzclose(static_cast<gzFile>(zip));
}

std::optional<segment_bytes> segment_bytes::open(const std::string& folder,
                                                 std::uint64_t number) {
  const auto path = folder + '/' + segment_name(number);
  constexpr int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  segment_bytes result;
  // Compressed between the two looks, and a third is not needed: it never
  // becomes plain again.
  result.plain_.reset(::open(path.c_str(), flags));
  if (result.plain_)
    return result;
  unique_fd file{::open((path + ".gz").c_str(), flags)};
  if (!file)
    return std::nullopt;
  result.zip_.reset(::gzdopen(file.get(), "rb"));
  if (!result.zip_)
    return std::nullopt;
  static_cast<void>(file.release());
  return result;
}

std::ptrdiff_t segment_bytes::read(char* to, std::size_t size) {
  if (zip_)
    return ::gzread(static_cast<gzFile>(zip_.get()), to,
                    static_cast<unsigned>(size));
  for (;;) {
    const auto n = ::read(plain_.get(), to, size);
    if (n >= 0 || errno != EINTR)
      return n;
  }
}

bool segment_bytes::go_back(std::size_t size) {
  return !zip_
         && ::lseek(plain_.get(), -static_cast<off_t>(size), SEEK_CUR) >= 0;
}

std::vector<std::uint64_t> segments_in(const std::string& folder) {
  std::vector<std::uint64_t> result;
  std::error_code error;
  namespace fs = std::filesystem;
  for (fs::directory_iterator i{folder, error}, end; !error && i != end;
       i.increment(error))
    if (const auto number = segment_number(i->path().filename().string()))
      result.push_back(*number);
  std::sort(result.begin(), result.end());
  // One that is just being compressed is there twice.
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

// -- all of it ----------------------------------------------------------------

// The last n: first it is counted, from the end, where they begin, then read
// from there. Twice through some segments, but without keeping any line.
read_report read_lines(const std::string& folder, const line_filter& filter,
                       std::optional<std::uint64_t> last,
                       const line_receiver& to) {
  const auto numbers = segments_in(folder);
  if (!last)
    return read_from(folder, numbers, 0, numbers.size(), filter, to);
  const auto count = [](const log_line&) { return true; };
  std::size_t first = numbers.size();
  // Alone, a segment never has more lines than it has among the others.
  for (std::uint64_t found = 0; first > 0 && found <= *last;) {
    --first;
    found += read_from(folder, numbers, first, first + 1, filter, count).lines;
  }
  auto skip =
      read_from(folder, numbers, first, numbers.size(), filter, count).lines;
  skip -= std::min(skip, *last);
  auto result = read_from(folder, numbers, first, numbers.size(), filter,
                          [&](const log_line& x) {
                            if (skip == 0)
                              return to(x);
                            --skip;
                            return true;
                          });
  result.lines = std::min(result.lines, *last);
  return result;
}

// -- as it comes --------------------------------------------------------------

log_follower::log_follower(const std::string& folder, const receiver& history)
    : folder_(folder), watch_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
  if (!watch_
      || ::inotify_add_watch(watch_.get(), folder.c_str(),
                             IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_ONLYDIR)
             < 0)
    throw std::system_error{errno, std::system_category(), folder};
  reader_ = std::make_unique<log_reader>([this](const log_line& x) {
    if (to_)
      to_(x);
  });
  // Without a history the newest segment is read all the same, and given to
  // nobody: so the reader knows which lines have begun.
  if (!history)
    if (const auto numbers = segments_in(folder); !numbers.empty())
      number_ = numbers.back() - 1;
  read_on(history);
}

std::optional<std::uint64_t> log_follower::next_segment() const {
  const auto numbers = segments_in(folder_);
  const auto next = std::upper_bound(numbers.begin(), numbers.end(), number_);
  if (next == numbers.end())
    return std::nullopt;
  return *next;
}

// What the segment has now.
void log_follower::read_segment(bool live) {
  if (!bytes_)
    return;
  std::array<char, 64 * 1024> block;
  for (;;) {
    const auto n = bytes_->read(block.data(), block.size());
    if (n > 0)
      unread_.append(block.data(), static_cast<std::size_t>(n));
    const auto used = reader_->feed(unread_, live);
    unread_.erase(0, used);
    if (n <= 0 || (used == 0 && unread_.size() > most_unread_bytes))
      break;
  }
  // A record that is being written: its header is going to change.
  if (bytes_->go_back(unread_.size()))
    unread_.clear();
}

void log_follower::read_new(const receiver& to) {
  // Events only say that it is time to look.
  std::array<char, 4096> events;
  while (::read(watch_.get(), events.data(), events.size()) > 0) {}
  read_on(to);
}

void log_follower::read_on(const receiver& to) {
  to_ = to;
  for (;;) {
    // In this order: a segment takes no more once the next one exists.
    const auto next = next_segment();
    read_segment(!next);
    if (!next)
      break;
    number_ = *next;
    bytes_ = segment_bytes::open(folder_, number_);
    unread_.clear();
    reader_->next_segment();
  }
  to_ = nullptr;
}

}  // namespace pup
