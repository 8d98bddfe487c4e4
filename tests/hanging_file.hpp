// A file whose pages never come, as any user can have one: a file system of
// their own (FUSE) that does not answer. Who maps it can hold up all that looks
// at their memory.
#pragma once

#include "pup/runtime/fd.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <pthread.h>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup::test {

/// Mounted while it lives; needs root, /dev/fuse and leave to mount.
class hanging_file {
public:
  /// `folder` exists and is empty.
  explicit hanging_file(std::string folder)
      : folder_(std::move(folder)),
        device_(::open("/dev/fuse", O_RDWR | O_CLOEXEC)) {
    if (!device_)
      return;
    const auto options = "fd=" + std::to_string(device_.get())
                         + ",rootmode=40000,user_id=0,group_id=0,allow_other";
    mounted_ = ::mount("pup-test", folder_.c_str(), "fuse",
                       MS_NOSUID | MS_NODEV, options.c_str())
               == 0;
    if (mounted_)
      server_ = std::thread{[this] { serve(); }};
  }
  hanging_file(const hanging_file&) = delete;
  hanging_file& operator=(const hanging_file&) = delete;
  ~hanging_file() {
    release();
  }

  /// False: it cannot be had here.
  explicit operator bool() const noexcept {
    return mounted_;
  }
  [[nodiscard]] std::string path() const {
    return folder_ + "/file";
  }

  /// Whoever waits for it gets an error.
  void release() {
    if (!std::exchange(mounted_, false))
      return;
    ::umount2(folder_.c_str(), MNT_FORCE);  // aborts what is under way
    server_.join();
    ::umount2(folder_.c_str(), MNT_DETACH);
  }

private:
  static constexpr std::uint64_t file_id = 2;

  void serve() {
    std::vector<char> bytes(1 << 20);
    for (;;) {
      const auto n = ::read(device_.get(), bytes.data(), bytes.size());
      if (n < 0 && errno != EINTR && errno != ENOENT && errno != EAGAIN)
        return;  // aborted
      if (n < static_cast<ssize_t>(sizeof(fuse_in_header)))
        continue;
      fuse_in_header request;
      std::memcpy(&request, bytes.data(), sizeof(request));
      answer(request);
    }
  }

  void answer(const fuse_in_header& x) {
    switch (x.opcode) {
      case FUSE_INIT: {
        fuse_init_out out{};
        out.major = FUSE_KERNEL_VERSION;
        out.minor = 31;
        out.max_write = 4096;
        return reply(x.unique, out);
      }
      case FUSE_LOOKUP: {
        fuse_entry_out out{};
        out.nodeid = file_id;
        out.entry_valid = out.attr_valid = 1'000;
        out.attr = attributes_of(file_id);
        return reply(x.unique, out);
      }
      case FUSE_GETATTR: {
        fuse_attr_out out{};
        out.attr_valid = 1'000;
        out.attr = attributes_of(x.nodeid);
        return reply(x.unique, out);
      }
      case FUSE_OPEN: {
        fuse_open_out out{};
        // Each mapping waits for the pages of the one before.
        out.open_flags = FOPEN_DIRECT_IO;
        return reply(x.unique, out);
      }
      case FUSE_READ:
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT:
        return;
      default:
        return refuse(x.unique);
    }
  }

  static fuse_attr attributes_of(std::uint64_t id) {
    fuse_attr result{};
    result.ino = id;
    result.nlink = 1;
    result.mode = id == file_id ? S_IFREG | 0644 : S_IFDIR | 0755;
    result.size = id == file_id ? 16 * 4096 : 0;
    result.blksize = 4096;
    return result;
  }

  template <class T>
  void reply(std::uint64_t unique, const T& body) const {
    std::array<char, sizeof(fuse_out_header) + sizeof(T)> bytes;
    const fuse_out_header head{bytes.size(), 0, unique};
    std::memcpy(bytes.data(), &head, sizeof(head));
    std::memcpy(bytes.data() + sizeof(head), &body, sizeof(body));
    static_cast<void>(::write(device_.get(), bytes.data(), bytes.size()) < 0);
  }

  void refuse(std::uint64_t unique) const {
    const fuse_out_header head{sizeof(head), -ENOSYS, unique};
    static_cast<void>(::write(device_.get(), &head, sizeof(head)) < 0);
  }

  std::string folder_;
  unique_fd device_;
  bool mounted_ = false;
  std::thread server_;
};

/// Holds up whoever reads this process's memory, /proc/PID/environ say, until
/// the file is released: one thread waits for a page, another one waits for
/// that with the lock of all mappings. The file has been opened as `fd`.
inline void hold_own_memory(int fd) {
  auto* page = ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
  std::thread{[page] {
    static_cast<void>(*static_cast<volatile char*>(page));
  }}.detach();
  std::thread{[fd] {
    // Until the page is waited for, this returns.
    for (;;)
      ::munmap(::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, fd, 0), 4096);
  }}.detach();
}

inline bool waits_unsignalled(pid_t pid) {
  std::error_code ignored;
  const std::filesystem::directory_iterator threads{
      "/proc/" + std::to_string(pid) + "/task", ignored};
  return std::any_of(begin(threads), end(threads), [](const auto& x) {
    std::ifstream file{x.path() / "stat"};
    std::string text;
    std::getline(file, text);
    const auto at = text.rfind(") ");
    return at != std::string::npos && text.compare(at + 2, 1, "D") == 0;
  });
}

/// Whether that is so by now: a thread waits for what no signal ends, and not
/// for a moment.
inline bool holds_memory(pid_t pid) {
  for (int i = 0; i < 20; ++i) {
    if (!waits_unsignalled(pid))
      return false;
    ::usleep(1'000);
  }
  return true;
}

}  // namespace pup::test
