#include "pup/runtime/log_file.hpp"

#include "pup/runtime/log_text.hpp"
#include "pup/runtime/shortage.hpp"

#include <algorithm>
#include <cerrno>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>

namespace pup {

namespace {

// Of the folders of a log, whatever the umask: others may look, not write.
const path_rule folders_made{0755, {}};

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

void log_file::allow(uid_t owner) {
  auto& all = owners_.users;
  if (std::find(all.begin(), all.end(), owner) == all.end())
    all.push_back(owner);
}

int log_file::failed(const os_fault& fault) {
  why_ = fault.why;
  return fault.code;
}

int log_file::open() {
  const auto found = locate(path_, folders_made);
  if (const auto* fault = std::get_if<os_fault>(&found))
    return failed(*fault);
  return open_in(std::get<located_file>(found));
}

int log_file::open_in(const located_file& place) {
  auto opened = place.folder.open_or_create(place.name, O_WRONLY | O_APPEND,
                                            0600, owners_);
  if (const auto* fault = std::get_if<os_fault>(&opened))
    return failed(*fault);
  file_ = std::move(std::get<unique_fd>(opened));
  struct stat info {};
  if (::fstat(file_.get(), &info) != 0)
    return errno;
  why_.clear();
  regular_ = S_ISREG(info.st_mode);
  size_ = static_cast<std::uint64_t>(info.st_size);
  return 0;
}

int log_file::rotate(time_point now) {
  const auto found = locate(path_, folders_made);
  if (const auto* fault = std::get_if<os_fault>(&found))
    return failed(*fault);
  const auto& place = std::get<located_file>(found);
  const auto& [folder, name] = place;
  // Another program has renamed it: what has the name now is another file.
  if (!folder.is(name, file_.get()))
    return open_in(place);
  // Nothing is renamed that could not have a successor.
  unique_fd room{::fcntl(file_.get(), F_DUPFD_CLOEXEC, 3)};
  if (!room)
    return errno;
  auto old = name + '-' + stamp_of(now);
  for (int i = 2; folder.has(old) || folder.has(old + ".gz"); ++i)
    old = name + '-' + stamp_of(now) + '-' + std::to_string(i);
  if (const auto error = folder.rename(name, old); error != 0)
    return error;
  room.reset();
  file_.reset();
  const auto error = open_in(place);
  prune_in(place);
  if (full_ && folder.has(old))
    full_(folder.path_of(old));
  return error;
}

void log_file::prune() const {
  const auto found = locate(path_);
  if (const auto* place = std::get_if<located_file>(&found))
    prune_in(*place);
}

void log_file::prune_in(const located_file& place) const {
  const auto prefix = place.name + '-';
  auto old = place.folder.names();
  std::erase_if(old, [&](const std::string& name) {
    return !name.starts_with(prefix)
           || !is_stamp(std::string_view{name}.substr(prefix.size()))
           || name.ends_with(".tmp");
  });
  std::sort(old.begin(), old.end(), std::greater<>{});
  for (std::size_t i = rules_.kept; i < old.size(); ++i)
    static_cast<void>(place.folder.remove(old[i]));
}

void log_file::look_for_loss(time_point now) {
  struct stat mine {};
  if (!file_ || !regular_ || ::fstat(file_.get(), &mine) != 0)
    return;
  // The open file was judged when it was opened: its name may be asked for by
  // whatever way. Another file is judged by reopen().
  struct stat named {};
  if (::stat(path_.c_str(), &named) == 0 && named.st_dev == mine.st_dev
      && named.st_ino == mine.st_ino)
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
        if (!file_ || !is_shortage(result.error))
          continue;
        // Larger than it may be is better than lost. Nothing is wrong with it.
        result.error = 0;
        why_.clear();
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
        [[maybe_unused]] const auto cut =
            ::ftruncate(file_.get(), static_cast<off_t>(size_));
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
