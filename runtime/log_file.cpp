#include "pup/runtime/log_file.hpp"

#include "pup/runtime/log_text.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>

namespace pup {

namespace {

namespace fs = std::filesystem;

// "20261124T031314.123Z", which sorts by time.
std::string stamp_of(log_file::time_point now) {
  auto text =
      time_text(static_cast<std::uint64_t>(
                    std::chrono::duration_cast<std::chrono::microseconds>(
                        now.time_since_epoch())
                        .count()),
                std::chrono::minutes{0});
  std::erase_if(text, [](char c) { return c == '-' || c == ':'; });
  return text;
}

// What follows the name of the file and a dash.
bool is_stamp(std::string_view text) {
  constexpr std::string_view form = "00000000T000000.000Z";
  return text.size() >= form.size()
         && std::equal(form.begin(), form.end(), text.begin(),
                       [](char wanted, char found) {
                         return wanted == '0' ? found >= '0' && found <= '9'
                                              : found == wanted;
                       });
}

}  // namespace

log_file::log_file(std::string path, const log_file_rules& rules,
                   std::function<void(const std::string&)> full)
    : path_(std::move(path)), rules_(rules), full_(std::move(full)) {}

int log_file::open() {
  // Non-blocking: a FIFO or terminal in its place must not stop everyone.
  constexpr int flags =
      O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  file_.reset(::open(path_.c_str(), flags, 0600));
  if (!file_ && errno == ENOENT) {
    std::error_code ignored;
    fs::create_directories(fs::path{path_}.parent_path(), ignored);
    file_.reset(::open(path_.c_str(), flags, 0600));
  }
  struct stat info {};
  if (!file_ || ::fstat(file_.get(), &info) != 0)
    return errno;
  regular_ = S_ISREG(info.st_mode);
  size_ = static_cast<std::uint64_t>(info.st_size);
  return 0;
}

int log_file::rotate(time_point now) {
  auto old = path_ + '-' + stamp_of(now);
  for (int i = 2; ::access(old.c_str(), F_OK) == 0
                  || ::access((old + ".gz").c_str(), F_OK) == 0;
       ++i)
    old = path_ + '-' + stamp_of(now) + '-' + std::to_string(i);
  if (::rename(path_.c_str(), old.c_str()) != 0 && errno != ENOENT)
    return errno;
  file_.reset();
  const auto error = open();
  prune();
  if (full_ && ::access(old.c_str(), F_OK) == 0)
    full_(old);
  return error;
}

void log_file::prune() const {
  const fs::path path{path_};
  const auto prefix = path.filename().string() + '-';
  std::vector<std::string> old;
  std::error_code error;
  for (fs::directory_iterator i{path.parent_path(), error}, end;
       !error && i != end; i.increment(error)) {
    auto name = i->path().filename().string();
    if (name.starts_with(prefix)
        && is_stamp(std::string_view{name}.substr(prefix.size()))
        && !name.ends_with(".tmp"))
      old.push_back(std::move(name));
  }
  std::sort(old.begin(), old.end(), std::greater<>{});
  for (std::size_t i = rules_.kept; i < old.size(); ++i)
    fs::remove(path.parent_path() / old[i], error);
}

void log_file::look_for_loss(time_point now) {
  struct stat mine {};
  struct stat named {};
  if (!file_ || !regular_ || ::fstat(file_.get(), &mine) != 0)
    return;
  const auto there = ::stat(path_.c_str(), &named) == 0;
  if (there && named.st_dev == mine.st_dev && named.st_ino == mine.st_ino)
    return moved_since_.reset();
  if (!moved_since_)
    moved_since_ = now;
  const auto removed = mine.st_nlink == 0;
  if (removed || now >= *moved_since_ + moved_pause || now < *moved_since_)
    reopen();
}

log_file::written log_file::append(std::string_view lines) {
  const auto offered = lines.size();
  written result;
  while (!lines.empty()) {
    const auto put = ::write(file_.get(), lines.data(), lines.size());
    if (put < 0 && errno == EINTR)
      continue;
    if (put <= 0) {
      result.error = put == 0 ? EIO : errno;
      break;
    }
    lines.remove_prefix(static_cast<std::size_t>(put));
  }
  result.bytes = offered - lines.size();
  size_ += result.bytes;
  return result;
}

log_file::written log_file::write(std::string_view lines, time_point now) {
  written result;
  if (now < retry_at_ && now + retry_pause >= retry_at_)
    return {0, trouble_};
  look_for_loss(now);
  while (!lines.empty() && result.error == 0) {
    if (!file_)
      result.error = open();
    auto part = lines;
    if (result.error == 0 && rules_.bytes > 0 && regular_
        && size_ + lines.size() > rules_.bytes) {
      struct stat info {};  // someone may have truncated it
      if (::fstat(file_.get(), &info) == 0)
        size_ = static_cast<std::uint64_t>(info.st_size);
      const auto room = rules_.bytes - std::min(rules_.bytes, size_);
      const auto end = lines.substr(0, room).rfind('\n');
      if (end != std::string_view::npos) {
        part = lines.substr(0, end + 1);
      } else if (size_ > 0) {
        result.error = rotate(now);
        continue;
      } else {  // a line that is longer than a file may be
        part = lines.substr(0, lines.find('\n') + 1);
      }
    }
    if (result.error != 0)
      break;
    const auto put = append(part);
    result.error = put.error;
    auto whole = put.bytes;
    if (put.error != 0) {
      const auto end = part.substr(0, put.bytes).rfind('\n');
      whole = end == std::string_view::npos ? 0 : end + 1;
      if (regular_ && whole < put.bytes) {
        size_ -= put.bytes - whole;
        static_cast<void>(::ftruncate(file_.get(), static_cast<off_t>(size_)));
      }
    }
    result.bytes += whole;
    lines.remove_prefix(whole);
  }
  if (result.error != 0) {
    retry_at_ = now + retry_pause;
    trouble_ = result.error;
  }
  return result;
}

}  // namespace pup
