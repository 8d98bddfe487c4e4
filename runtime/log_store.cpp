#include "pup/runtime/log_store.hpp"

#include "pup/runtime/trusted_path.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <set>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace pup {

namespace {

constexpr std::string_view plain_ending = ".log";
constexpr std::string_view compressed_ending = ".log.gz";
constexpr std::string_view draft_ending = ".tmp";
constexpr std::size_t number_digits = 10;

// No record of a few bytes only because a segment is nearly full.
constexpr std::size_t least_piece_bytes = 4096;

using time_point = log_store::time_point;

std::uint64_t microseconds_of(time_point x) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(
          x.time_since_epoch())
          .count());
}

// 0 or errno.
int write_at(int file, std::string_view bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const auto put =
        ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR)
      continue;
    if (put <= 0)
      return put == 0 ? EIO : errno;
    bytes.remove_prefix(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return 0;
}

int write_two(int file, std::string_view head, std::string_view data,
              std::uint64_t offset) {
  std::array<iovec, 2> parts{
      iovec{const_cast<char*>(head.data()), head.size()},
      iovec{const_cast<char*>(data.data()), data.size()}};
  ssize_t put = 0;
  do {
    put = ::pwritev(file, parts.data(), 2, static_cast<off_t>(offset));
  } while (put < 0 && errno == EINTR);
  if (put < 0)
    return errno;
  const auto done = static_cast<std::size_t>(put);
  if (done < head.size()) {
    if (const auto error = write_at(file, head.substr(done), offset + done))
      return error;
    return write_at(file, data, offset + head.size());
  }
  return write_at(file, data.substr(done - head.size()), offset + done);
}

}  // namespace

std::string segment_name(std::uint64_t number) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%010llu.log",
                static_cast<unsigned long long>(number));
  return text.data();
}

std::optional<std::uint64_t> segment_number(std::string_view file) {
  const auto digits = std::min(file.find('.'), file.size());
  const auto ending = file.substr(digits);
  if (digits < number_digits
      || (ending != plain_ending && ending != compressed_ending))
    return std::nullopt;
  std::uint64_t result = 0;
  const auto [stop, error] =
      std::from_chars(file.data(), file.data() + digits, result);
  if (error != std::errc{} || stop != file.data() + digits)
    return std::nullopt;
  return result;
}

// -- opening ------------------------------------------------------------------

log_store::log_store(std::string folder, const log_store_rules& rules,
                     time_point now)
    : folder_(std::move(folder)),
      rules_(rules),
      segment_bytes_(std::clamp<std::uint64_t>(
          rules.bytes / 8, least_store_bytes / 8, most_segment_bytes)) {
  find_segments();
  resume(now);
  expire(now);
}

void log_store::on_full(std::function<void(const std::string&)> full) {
  full_ = std::move(full);
  for (const auto& x : closed_)
    if (const auto path = path_of(x.number); ::access(path.c_str(), F_OK) == 0)
      full_(path);
}

std::string log_store::path_of(std::uint64_t number) const {
  return folder_ + '/' + segment_name(number);
}

void log_store::find_segments() {
  namespace fs = std::filesystem;
  std::error_code error;
  std::map<std::uint64_t, segment> found;
  std::vector<fs::path> superfluous;
  std::set<std::uint64_t> compressed;
  for (fs::directory_iterator i{folder_, error}, end; !error && i != end;
       i.increment(error)) {
    const auto name = i->path().filename().string();
    const auto number = segment_number(name);
    struct stat info {};
    if (!number) {
      if (name.ends_with(draft_ending))  // of an interrupted compression
        superfluous.push_back(i->path());
      continue;
    }
    if (::lstat(i->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode))
      continue;
    if (name.ends_with(compressed_ending))
      compressed.insert(*number);
    else if (found.count(*number) > 0)
      continue;  // both are there: the compressed one is whole
    found[*number] = {
        *number, static_cast<std::uint64_t>(info.st_size),
        time_point{std::chrono::seconds{info.st_mtim.tv_sec}
                   + std::chrono::duration_cast<time_point::duration>(
                       std::chrono::nanoseconds{info.st_mtim.tv_nsec})}};
  }
  for (const auto number : compressed)
    superfluous.emplace_back(path_of(number));
  for (const auto& x : superfluous)
    fs::remove(x, error);
  for (const auto& [number, x] : found) {
    closed_.push_back(x);
    closed_bytes_ += x.bytes;
    number_ = number;
  }
}

// Goes on with the newest segment where that is possible.
void log_store::resume(time_point now) {
  if (closed_.empty())
    return;
  const auto newest = closed_.back();
  unique_fd file{
      ::open(path_of(newest.number).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW)};
  if (!file || newest.bytes == 0)
    return;
  auto* const mapped =
      ::mmap(nullptr, newest.bytes, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (mapped == MAP_FAILED)
    return;
  const auto end =
      repair(file.get(), {static_cast<const char*>(mapped), newest.bytes});
  ::munmap(mapped, newest.bytes);
  if (end == 0 || end >= segment_bytes_)
    return;
  closed_.pop_back();
  closed_bytes_ -= newest.bytes;
  file_ = std::move(file);
  size_ = end;
  begun_ = now;
  written_ = newest.last;
}

// Completes the last record, cuts a torn header off and remembers which streams
// are within a line. Returns where the next record goes; 0: not here.
std::uint64_t log_store::repair(int file, std::string_view bytes) {
  left_open_.clear();
  std::uint64_t at = 0;
  while (at < bytes.size()) {
    const auto found = parse_record(bytes.substr(at));
    if (found.outcome == parse_outcome::bad)
      return 0;
    if (found.outcome == parse_outcome::short_of_bytes) {
      if (::ftruncate(file, static_cast<off_t>(at)) != 0)
        return 0;
      break;
    }
    auto x = found.header;
    const auto data = bytes.substr(at + found.bytes, x.size);
    if (!x.complete || data.size() < x.size) {
      x.size = static_cast<std::uint32_t>(data.size());
      x.complete = true;
      if (write_at(file, encode(x), at) != 0)
        return 0;
    }
    const std::pair key{std::string{x.id}, x.stream};
    const auto line = data.rfind('\n') + 1;  // 0: there is none
    const bool within = data.empty() ? (x.flags & record_flags::carried) != 0
                                     : line < data.size();
    if (!within)
      left_open_.erase(key);
    else if (line > 0 || (x.flags & record_flags::fresh) != 0)
      left_open_[key] = data.substr(line);
    else
      left_open_[key] += data;
    at += found.bytes + data.size();
  }
  return at;
}

// -- segments -----------------------------------------------------------------

int log_store::open_segment(time_point now) {
  const auto path = path_of(number_ + 1);
  constexpr int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  unique_fd file{::open(path.c_str(), flags, 0600)};
  if (!file && errno == ENOENT) {
    static_cast<void>(trusted_folder::open(folder_, {0700, {}}));
    file.reset(::open(path.c_str(), flags, 0600));
  }
  if (!file)
    return errno;
  file_ = std::move(file);
  ++number_;
  size_ = 0;
  begun_ = now;
  written_ = now;
  return 0;
}

bool log_store::ends_within_line(const source& x) const {
  if (x.last_byte < 0)
    return x.within_line;
  char c = '\n';
  return ::pread(file_.get(), &c, 1, x.last_byte) == 1 && c != '\n';
}

void log_store::close_segment() {
  for (const auto& x : sources_) {
    x->within_line = ends_within_line(*x);
    x->last_byte = -1;
  }
  closed_.push_back({number_, size_, written_});
  closed_bytes_ += size_;
  file_.reset();
  size_ = 0;
  if (full_)
    full_(path_of(number_));
}

// Whoever reads from here on, because the segments before are gone, learns
// which first bytes are the rest of a line.
void log_store::write_carried(time_point now) {
  for (const auto& x : sources_)
    if (x->within_line && !x->fresh)
      static_cast<void>(write_mark(*x, record_flags::carried, now));
}

int log_store::write_mark(source& x, std::uint8_t flags, time_point now) {
  const auto mark =
      encode({x.id, x.stream, flags, true, microseconds_of(now), 0});
  const auto error = write_at(file_.get(), mark, size_);
  if (error != 0)
    return fail(error, now);
  size_ += mark.size();
  written_ = now;
  return 0;
}

int log_store::fail(int error, time_point now) {
  retry_at_ = now + retry_pause;
  trouble_ = error;
  if (file_) [[maybe_unused]]
    const auto cut = ::ftruncate(file_.get(), static_cast<off_t>(size_));
  return error;
}

std::size_t log_store::room(std::size_t head_bytes) const {
  return size_ + head_bytes < segment_bytes_
             ? static_cast<std::size_t>(segment_bytes_ - size_) - head_bytes
             : 0;
}

// Sees to a segment with room for `least_bytes`. 0 or errno.
int log_store::begin(std::size_t head_bytes, std::size_t least_bytes,
                     time_point now) {
  if (!usable(now))
    return trouble_;
  // A segment goes as a whole, so it must not reach over too much time.
  const bool old = now - begun_ > rules_.keep / 24;
  if (file_ && size_ > 0 && (room(head_bytes) < least_bytes || old)) {
    close_segment();
    expire(now);
  }
  if (!file_) {
    if (const auto error = open_segment(now))
      return fail(error, now);
    write_carried(now);
  }
  return 0;
}

// -- sources ------------------------------------------------------------------

log_store::source* log_store::open(std::string id, log_stream stream,
                                   bool resumed) {
  auto x = std::make_unique<source>();
  x->id = id.substr(0, 255);
  x->stream = stream;
  if (resumed) {
    x->fresh = false;
    const auto line = left_open_.find({x->id, stream});
    x->within_line = line != left_open_.end();
    if (x->within_line)
      x->begun = std::exchange(line->second, {});
  }
  return sources_.emplace_back(std::move(x)).get();
}

void log_store::close(source* x, time_point now) {
  if (!x->fresh && file_ && usable(now) && ends_within_line(*x))
    static_cast<void>(write_mark(*x, record_flags::last, now));
  std::erase_if(sources_, [x](const auto& y) { return y.get() == x; });
}

log_store::taken log_store::take_from(source& x, int pipe, std::size_t bytes,
                                      time_point now) {
  taken result;
  const auto head_bytes = record_head_bytes + x.id.size();
  result.error = begin(head_bytes, std::min(bytes, least_piece_bytes), now);
  if (result.error != 0)
    return result;
  record_header header{x.id, x.stream, 0, false, microseconds_of(now), 0};
  header.flags = x.fresh ? record_flags::fresh : 0;
  header.size = static_cast<std::uint32_t>(
      std::min(bytes, std::max(room(head_bytes), least_piece_bytes)));
  if (const auto error = write_at(file_.get(), encode(header), size_)) {
    result.error = fail(error, now);
    return result;
  }
  const auto begin_of_data = size_ + head_bytes;
  auto offset = static_cast<loff_t>(begin_of_data);
  int error = 0;
  while (result.bytes < header.size) {
    const auto moved = ::splice(pipe, nullptr, file_.get(), &offset,
                                header.size - result.bytes, SPLICE_F_NONBLOCK);
    if (moved < 0 && errno == EINTR)
      continue;
    if (moved <= 0) {
      error = moved == 0 ? EPIPE : errno;
      break;
    }
    result.bytes += static_cast<std::size_t>(moved);
  }
  if (result.bytes == 0) {
    result.error = fail(error, now);
    return result;
  }
  if (result.bytes < header.size) {
    header.size = static_cast<std::uint32_t>(result.bytes);
    header.complete = true;
    error = std::max(error, write_at(file_.get(), encode(header), size_));
  } else {
    error = write_at(file_.get(), "\1", size_ + record_state_offset);
  }
  result.offset = static_cast<std::int64_t>(begin_of_data);
  size_ = begin_of_data + result.bytes;
  written_ = now;
  x.fresh = false;
  x.last_byte = static_cast<std::int64_t>(size_) - 1;
  if (error != 0)
    result.error = fail(error, now);
  return result;
}

log_store::taken log_store::take(source& x, std::string_view data,
                                 time_point now) {
  taken result;
  const auto head_bytes = record_head_bytes + x.id.size();
  result.error = begin(head_bytes, data.size(), now);
  if (result.error != 0 || data.empty())
    return result;
  const auto flags = x.fresh ? record_flags::fresh : std::uint8_t{0};
  const auto head = encode({x.id, x.stream, flags, true, microseconds_of(now),
                            static_cast<std::uint32_t>(data.size())});
  if (const auto error = write_two(file_.get(), head, data, size_)) {
    result.error = fail(error, now);
    return result;
  }
  result.bytes = data.size();
  result.offset = static_cast<std::int64_t>(size_ + head_bytes);
  size_ += head_bytes + data.size();
  written_ = now;
  x.fresh = false;
  x.last_byte = static_cast<std::int64_t>(size_) - 1;
  return result;
}

// -- retention ----------------------------------------------------------------

void log_store::remove_oldest() {
  const auto& x = closed_.front();
  const auto path = path_of(x.number);
  ::unlink(path.c_str());
  ::unlink((path + ".gz").c_str());
  closed_bytes_ -= x.bytes;
  closed_.pop_front();
}

void log_store::expire(time_point now) {
  // Room for the segment that is being written, up to its full size.
  const auto most = rules_.bytes - std::min(rules_.bytes, segment_bytes_);
  while (!closed_.empty()
         && (closed_.front().last + rules_.keep <= now || closed_bytes_ > most
             || closed_.size() >= most_segments))
    remove_oldest();
  if (file_ && size_ > 0 && written_ + rules_.keep <= now) {
    close_segment();
    while (!closed_.empty())
      remove_oldest();
  }
}

std::optional<log_store::time_point> log_store::next_expiry() const {
  if (!closed_.empty())
    return closed_.front().last + rules_.keep;
  if (file_ && size_ > 0)
    return written_ + rules_.keep;
  return std::nullopt;
}

void log_store::resized(const std::string& path) {
  const auto number =
      segment_number(std::filesystem::path{path}.filename().string());
  struct stat info {};
  for (auto& x : closed_) {
    if (x.number != number)
      continue;
    if (::stat((path + ".gz").c_str(), &info) == 0) {
      closed_bytes_ -= x.bytes;
      x.bytes = static_cast<std::uint64_t>(info.st_size);
      closed_bytes_ += x.bytes;
    }
    return;
  }
  // Removed while it was being compressed.
  ::unlink((path + ".gz").c_str());
}

}  // namespace pup
