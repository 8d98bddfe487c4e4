#include "pup/runtime/log_archive.hpp"

#include "pup/runtime/trusted_path.hpp"

#include <array>
#include <cerrno>
#include <memory>
#include <zlib.h>

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

// Fast: log text shrinks to about a tenth at level 1 already, and the last
// percents cost three times the work.
constexpr const char* write_mode = "wb1";

constexpr std::size_t block_bytes = 64 * 1024;

struct gz_closer {
  void operator()(gzFile file) const noexcept {
    ::gzclose(file);
  }
};

/// Removes a file unless it was kept.
class draft {
public:
  draft(const trusted_folder& folder, std::string name)
      : folder_(folder), name_(std::move(name)) {}
  draft(const draft&) = delete;
  draft& operator=(const draft&) = delete;
  ~draft() {
    if (!name_.empty())
      static_cast<void>(folder_.remove(name_));
  }

  /// 0 or errno.
  int become(const std::string& name) {
    const auto error = folder_.rename(name_, name);
    if (error == 0)
      name_.clear();
    return error;
  }

private:
  const trusted_folder& folder_;
  std::string name_;
};

int errno_or(int otherwise) {
  return errno != 0 ? errno : otherwise;
}

}  // namespace

log_archiver::~log_archiver() {
  {
    const std::lock_guard guard{mutex_};
    ending_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable())
    thread_.join();
}

void log_archiver::compress(std::string file, std::function<void(int)> done) {
  {
    const std::lock_guard guard{mutex_};
    jobs_.push_back({std::move(file), std::move(done)});
    try {
      if (!thread_.joinable())
        thread_ = std::thread{[this] { work(); }};
    } catch (const std::system_error&) {
      // Out of processes: the next job brings this one along.
    }
  }
  wake_.notify_one();
}

void log_archiver::work() {
  const sched_param none{};
  ::sched_setscheduler(0, SCHED_IDLE, &none);  // of this thread
  for (;;) {
    job next;
    {
      std::unique_lock guard{mutex_};
      wake_.wait(guard, [this] { return ending_ || !jobs_.empty(); });
      if (ending_)
        return;
      next = std::move(jobs_.front());
      jobs_.pop_front();
    }
    const auto error = carry_out(next.file);
    if (!ending_)
      next.done(error);
  }
}

int log_archiver::carry_out(const std::string& file) {
  errno = 0;
  const auto found = locate(file, {}, false);
  if (const auto* fault = std::get_if<os_fault>(&found))
    return fault->code;
  const auto& [folder, name] = std::get<located_file>(found);
  // Whoever owns it, its copy is theirs and nobody else's.
  auto opened = folder.open_file(name, O_RDONLY, {{}, true});
  if (const auto* fault = std::get_if<os_fault>(&opened))
    return fault->code;
  const auto in = std::move(std::get<unique_fd>(opened));
  struct stat info {};
  if (::fstat(in.get(), &info) != 0)
    return errno_or(EIO);
  if (!S_ISREG(info.st_mode))
    return EINVAL;
  // Left by a compression that was interrupted, or laid by somebody who may
  // write here: it must not be written through.
  const auto draft_name = name + ".gz.tmp";
  if (const auto error = folder.remove(draft_name);
      error != 0 && error != ENOENT)
    return error;
  auto created = folder.create_file(draft_name, O_WRONLY, 0600);
  if (const auto* fault = std::get_if<os_fault>(&created))
    return fault->code;
  auto out = std::move(std::get<unique_fd>(created));
  draft unfinished{folder, draft_name};
  // Before the data, which is not for everyone.
  if (::fchown(out.get(), info.st_uid, info.st_gid) != 0
      && ::geteuid() == info.st_uid)
    errno = 0;  // its group is not ours to give: ours then
  ::fchmod(out.get(), info.st_mode & 0777);
  const unique_fd times{::fcntl(out.get(), F_DUPFD_CLOEXEC, 3)};
  std::unique_ptr<std::remove_pointer_t<gzFile>, gz_closer> zip{
      ::gzdopen(out.get(), write_mode)};
  if (!zip || !times)
    return errno_or(ENOMEM);
  static_cast<void>(out.release());
  const auto buffer = std::make_unique<std::array<char, block_bytes>>();
  for (;;) {
    const auto got = ::read(in.get(), buffer->data(), buffer->size());
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return errno_or(EIO);
    if (got == 0)
      break;
    if (ending_)
      return ECANCELED;
    if (::gzwrite(zip.get(), buffer->data(), static_cast<unsigned>(got)) != got)
      return errno_or(EIO);
  }
  if (::gzclose(zip.release()) != Z_OK)
    return errno_or(EIO);
  // The age of the lines decides when they go, not that of their compression.
  const std::array<timespec, 2> kept{info.st_atim, info.st_mtim};
  ::futimens(times.get(), kept.data());
  if (const auto error = unfinished.become(name + ".gz"); error != 0)
    return error;
  static_cast<void>(folder.remove(name));
  return 0;
}

}  // namespace pup
