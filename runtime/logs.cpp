#include "pup/runtime/logs.hpp"

#include "pup/runtime/former_name.hpp"
#include "pup/runtime/log_query.hpp"
#include "pup/runtime/machine.hpp"
#include "pup/runtime/meant.hpp"
#include "pup/runtime/output.hpp"
#include "pup/runtime/place.hpp"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <filesystem>

#include <unistd.h>

namespace pup {

namespace {

namespace fs = std::filesystem;
using std::chrono::minutes;

constexpr std::size_t output_bytes = 64 * 1024;

std::uint64_t now_us() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(
          std::chrono::system_clock::now().time_since_epoch())
          .count());
}

// -- whose logs ---------------------------------------------------------------

bool has_store(const std::string& state_folder) {
  std::error_code ignored;
  return fs::is_directory(log_folder(state_folder), ignored);
}

/// Supervisors that have a store, by name.
std::vector<std::string> stored_names(const std::string& parent) {
  std::vector<std::string> result;
  std::error_code error;
  for (fs::directory_iterator i{parent, error}, end; !error && i != end;
       i.increment(error))
    if (has_store(i->path().string()))
      result.push_back(i->path().filename().string());
  std::sort(result.begin(), result.end());
  return result;
}

/// The name under which the supervisor of a file has left logs; empty: it has
/// left none.
std::string store_of(const config_file& file, const std::string& parent) {
  const auto own = parent + '/' + file.supervisor();
  if (has_store(own) && (file.name || is_state_of(file, own, true)))
    return file.supervisor();
  const auto former = parent + '/' + former_default_name;
  if (!file.name && has_store(former) && is_state_of(file, former, false))
    return former_default_name;
  return {};
}

std::string list(const std::vector<std::string>& names) {
  std::string result;
  for (const auto& x : names)
    result += (result.empty() ? "" : ", ") + x;
  return result;
}

/// The name of the supervisor that a command means: as for every other command
/// where one runs that fits, else the only one that has left logs.
std::variant<std::string, exit_code> meant_by(const command& what,
                                              const std::string& parent) {
  const auto wanted = wanted_by(what);
  const auto all = discover(process_environment());
  if (what.name) {
    if (std::none_of(all.begin(), all.end(),
                     [&](const running& x) { return x.name == *what.name; }))
      tell_unwatched(wanted);
    return *what.name;
  }
  const auto chosen = choose(
      all, wanted, [](const running&, const std::string&) { return false; });
  if (const auto* one = std::get_if<running>(&chosen))
    return one->name;
  if (std::holds_alternative<ambiguous>(chosen))
    return complain(why_not_one(chosen, what, wanted, all).text);
  tell_unwatched(wanted);
  // None runs: the file's own logs are meant, never another's.
  if (const auto& file = wanted.config ? wanted.config : wanted.here) {
    if (const auto name = store_of(*file, parent); !name.empty())
      return name;
    if (wanted.config && file->resolved.empty())
      return complain(file->written + ": no such file; name a configuration",
                      exit_code::usage);
    return complain("pup: '" + file->supervisor() + "' of " + file->written
                        + " is not running and has left no logs in " + parent
                        + "; start it with pup start, or choose with --name",
                    exit_code::not_running);
  }
  const auto names = stored_names(parent);
  if (names.size() == 1)
    return names.front();
  if (names.empty())
    return complain("pup: no supervisor is running and no logs are in " + parent
                        + "; start one with pup start CONFIG",
                    exit_code::not_running);
  return complain("pup: no supervisor is running; choose logs with --name from "
                      + list(names),
                  exit_code::not_running);
}

// -- printing -----------------------------------------------------------------

/// Lines to standard output, many at a time.
class printer {
public:
  explicit printer(const command& what) {
    style_.json = what.json;
    style_.colour = !what.json && shows_colours();
    style_.text = what.json       ? escapes::keep
                  : style_.colour ? escapes::keep_colours
                                  : escapes::strip_controls;
  }

  /// False: no more is wanted.
  bool line(const log_line& x) {
    append_line(text_, head_of(x), x.text, style_);
    return text_.size() < output_bytes || flush();
  }

  std::string rendered(const log_line& x) {
    std::string result;
    append_line(result, head_of(x), x.text, style_);
    return result;
  }

  void add(const std::string& text) {
    text_ += text;
  }

  bool flush() {
    const auto wanted = print(text_);
    text_.clear();
    return wanted;
  }

private:
  // Lines that came together have the same one.
  const std::string& head_of(const log_line& x) {
    if (x.time_us != time_us_ || x.stream != stream_ || x.id != id_) {
      time_us_ = x.time_us;
      stream_ = x.stream;
      id_ = x.id;
      style_.offset = local_offset(x.time_us);
      head_ = line_head(x, style_);
    }
    return head_;
  }

  line_style style_;
  std::string text_;
  std::string head_;
  std::string id_;
  std::uint64_t time_us_ = 0;
  log_stream stream_ = log_stream::out;
};

line_filter filter_of(const command& what) {
  line_filter result;
  result.id = what.id;
  result.severity = what.severity;
  const auto now = now_us();
  const auto offset = local_offset(now);
  // Both were checked when the command line was read.
  if (!what.start.empty())
    result.start_us = time_of(what.start, now, offset).value_or(0);
  if (!what.end.empty())
    result.end_us = time_of(what.end, now, offset).value_or(result.end_us);
  return result;
}

/// Which is no error where something else of it is stored.
bool knows(const std::string& folder, const std::string& id) {
  line_filter filter;
  filter.id = id;
  return read_lines(folder, filter, std::nullopt,
                    [](const log_line&) { return false; })
             .lines
         > 0;
}

exit_code show_stored(const command& what, const std::string& folder) {
  printer out{what};
  const std::optional<std::uint64_t> last = what.lines;
  const auto report =
      read_lines(folder, filter_of(what), last,
                 [&](const log_line& x) { return out.line(x); });
  if (!out.flush())
    return exit_code::done;
  if (report.damaged_bytes > 0)
    complain("pup: " + folder + ": skipped "
             + std::to_string(report.damaged_bytes) + " bytes that are no log");
  if (report.lines == 0 && !what.id.empty() && !knows(folder, what.id))
    return complain("'" + what.id
                    + "': no line of it is stored; pup status lists what runs");
  return exit_code::done;
}

exit_code show_live(const command& what, const std::string& folder) {
  printer out{what};
  const auto filter = filter_of(what);
  std::deque<std::string> before;  // the last `lines` of what is stored
  log_follower::receiver history;
  if (what.lines || !what.start.empty())
    history = [&](const log_line& x) {
      if (!filter.wants(x))
        return;
      if (!what.lines)
        return static_cast<void>(out.line(x));
      before.push_back(out.rendered(x));
      if (before.size() > *what.lines)
        before.pop_front();
    };
  log_follower follower{folder, history};
  for (const auto& x : before)
    out.add(x);
  before.clear();
  while (out.flush() && wait_for_input(follower.fd()))
    follower.read_new([&](const log_line& x) {
      if (filter.wants(x))
        out.line(x);
    });
  return exit_code::done;
}

}  // namespace

minutes local_offset(std::uint64_t time_us) {
  const auto seconds = static_cast<std::time_t>(time_us / 1'000'000);
  std::tm parts{};
  if (::localtime_r(&seconds, &parts) == nullptr)
    return minutes{0};
  return minutes{parts.tm_gmtoff / 60};
}

std::vector<output_line> last_output(const std::string& supervisor,
                                     const std::string& id, std::size_t count,
                                     std::uint64_t since_us) {
  std::vector<output_line> result;
  const auto parent = state_parent(process_environment());
  if (!parent)
    return result;
  line_filter filter;
  filter.id = id;
  filter.start_us = since_us;
  // Pup's own words stand in between.
  read_lines(
      log_folder(*parent + '/' + supervisor), filter, count * 4,
      [&](const log_line& x) {
        if (x.id == id
            && (x.stream == log_stream::out || x.stream == log_stream::err)) {
          result.push_back({x.time_us, std::string{stream_name(x.stream)},
                            std::string{x.text}});
        }
        return true;
      });
  if (result.size() > count)
    result.erase(result.begin(),
                 result.end() - static_cast<std::ptrdiff_t>(count));
  return result;
}

exit_code show_logs(const command& what) {
  const auto parent = state_parent(process_environment());
  if (!parent)
    return complain(
        "state folder: none of PUP_STATE_DIR, XDG_STATE_HOME and HOME is set; "
        "set PUP_STATE_DIR");
  const auto meant = meant_by(what, *parent);
  if (const auto* code = std::get_if<exit_code>(&meant))
    return *code;
  const auto& name = std::get<std::string>(meant);
  const auto folder = log_folder(*parent + '/' + name);
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored))
    return complain("pup: no logs of '" + name + "' in " + folder
                        + "; pup status lists what runs",
                    exit_code::not_running);
  return what.kind == command_kind::logs ? show_stored(what, folder)
                                         : show_live(what, folder);
}

}  // namespace pup
