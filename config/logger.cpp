#include "pup/config/logger.hpp"

#include "pup/config/words.hpp"

#include <array>

namespace pup {

namespace {

constexpr std::array<std::string_view, 12> global_keys{
    "console",         "stdout",      "stderr",   "decorateFiles",
    "format",          "decorate",    "colors",   "internalLogHours",
    "internalLogSize", "maxFileSize", "maxFiles", "compress"};
constexpr std::array<std::string_view, 5> process_keys{
    "console", "stdout", "stderr", "decorateFiles", "format"};

using stray = std::pair<std::string_view, std::string_view>;
constexpr std::string_view to_top = "move it into the top level's `logger`";
constexpr std::array<stray, 7> process_strays{{
    {"decorate", to_top},
    {"colors", to_top},
    {"internalLogHours", to_top},
    {"internalLogSize", to_top},
    {"maxFileSize", to_top},
    {"maxFiles", to_top},
    {"compress", to_top},
}};

void read_flag(reader& in, const fields& parts, std::string_view key,
               bool& into) {
  if (auto x = parts.find(key))
    into = in.boolean(*x).value_or(into);
}

void read_path(reader& in, const fields& parts, std::string_view key,
               const path_reader& path, std::string& into) {
  auto x = parts.find(key);
  if (!x)
    return;
  if (x->value.kind() == json_kind::string && x->value.string().empty())
    in.blame(*x, "is empty", "name a file or remove it");
  else
    into = path(*x).value_or(into);
}

void read_size(reader& in, const fields& parts, std::string_view key,
               bool may_be_0, std::uint64_t& into) {
  auto x = parts.find(key);
  if (!x)
    return;
  const bool usable = x->value.kind() == json_kind::string
                      || x->value.kind() == json_kind::number;
  const auto bytes = !usable ? std::nullopt
                             : bytes_of(x->value.kind() == json_kind::string
                                            ? x->value.string()
                                            : x->value.raw());
  if (bytes
      && ((*bytes == 0 && may_be_0)
          || (*bytes >= std::uint64_t{bounds::least_log_bytes}
              && *bytes <= std::uint64_t{bounds::most_log_bytes})))
    into = *bytes;
  else
    in.blame(*x, describe(x->value) + " is not a size",
             std::string{"use \"1M\" to \"1024T\""}
                 + (may_be_0 ? ", or 0 for no bound" : ""));
}

void read_output(reader& in, const fields& parts, const path_reader& path,
                 output_spec& into) {
  static constexpr std::array<std::string_view, 2> formats{"text", "json"};
  read_flag(in, parts, "console", into.console);
  read_path(in, parts, "stdout", path, into.stdout_file);
  read_path(in, parts, "stderr", path, into.stderr_file);
  read_flag(in, parts, "decorateFiles", into.decorate_files);
  if (auto x = parts.find("format"))
    if (auto word = in.choice(*x, formats, "a format of log lines"))
      into.json = *word == 1;
}

}  // namespace

void read_logger(reader& in, const spot& x, const path_reader& path,
                 logger_spec& into) {
  auto parts = in.object(x, {"`logger`", global_keys, {}},
                         "write an object such as {\"stdout\": \"app.log\"}");
  if (!parts)
    return;
  read_output(in, *parts, path, into.output);
  read_flag(in, *parts, "decorate", into.decorate);
  read_flag(in, *parts, "colors", into.colors);
  read_flag(in, *parts, "compress", into.compress);
  if (auto hours = parts->find("internalLogHours"))
    if (auto count =
            in.whole(*hours, 0, bounds::log_hours, "a number of hours"))
      into.internal_log = std::chrono::hours{*count};
  read_size(in, *parts, "internalLogSize", false, into.internal_log_bytes);
  read_size(in, *parts, "maxFileSize", true, into.file_bytes);
  if (auto files = parts->find("maxFiles"))
    if (auto count =
            in.whole(*files, 0, bounds::log_files, "a number of files"))
      into.files_kept = static_cast<std::uint32_t>(*count);
}

void read_process_logger(reader& in, const spot& x, const path_reader& path,
                         output_spec& into) {
  auto parts =
      in.object(x, {"a process's `logger`", process_keys, process_strays},
                "write an object such as {\"stdout\": \"app.log\"}");
  if (parts)
    read_output(in, *parts, path, into);
}

}  // namespace pup
