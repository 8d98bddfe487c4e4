#include "pup/runtime/import_files.hpp"

#include "pup/config/spec.hpp"
#include "pup/runtime/fd.hpp"
#include "pup/runtime/text_file.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <glob.h>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pup {

namespace {

/// Most files that one pattern means; a folder of configurations has tens.
constexpr std::size_t most_files = 1'000;
/// As much of a file as PM2 looks at.
constexpr std::size_t looked_at = 512;

std::string beside(const std::string& folder, const std::string& path) {
  return path.starts_with('/') ? path : folder + '/' + path;
}

bool is_regular(const std::string& path) {
  struct stat facts {};
  return ::stat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode);
}

// Programs hold bytes that no text does.
import_surroundings::script kind_of(const std::string& path) {
  using kind = import_surroundings::script;
  if (!is_regular(path))
    return kind::unknown;
  const unique_fd file{
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
  std::array<char, looked_at> begin{};
  const auto size = file ? ::read(file.get(), begin.data(), begin.size()) : -1;
  if (size < 0)
    return kind::unknown;
  const std::string_view text{begin.data(), static_cast<std::size_t>(size)};
  return text.find('\0') == std::string_view::npos ? kind::text : kind::program;
}

std::vector<import_surroundings::file> files_of(const std::string& pattern) {
  std::vector<import_surroundings::file> result;
  glob_t found{};
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    const auto count = std::min<std::size_t>(found.gl_pathc, most_files);
    for (std::size_t i = 0; i < count; ++i) {
      const std::string path = found.gl_pathv[i];
      if (!is_regular(path))
        continue;
      auto text = read_text(path, bounds::config_bytes);
      if (auto* content = std::get_if<std::string>(&text))
        result.push_back({path, std::move(*content)});
    }
  }
  ::globfree(&found);
  return result;
}

}  // namespace

import_surroundings surroundings_of(const std::string& file) {
  std::error_code none;
  const auto folder =
      std::filesystem::absolute(file, none).lexically_normal().parent_path();
  return {folder.string(),
          [folder](const std::string& path) {
            return kind_of(beside(folder.string(), path));
          },
          [folder](const std::string& pattern) {
            return files_of(beside(folder.string(), pattern));
          }};
}

}  // namespace pup
