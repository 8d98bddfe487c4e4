// The words of the command line and the pictures of its answers. Pure: argv in,
// values and text out; client.hpp and daemon.hpp do what they say.
#pragma once

#include "pup/actors/protocol.hpp"
#include "pup/config/json_out.hpp"

#include <chrono>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace pup {

/// Exit codes (CONTRACT section 2).
enum class exit_code : int {
  done = 0,
  failed = 1,
  usage = 2,        ///< wrong arguments or a wrong configuration
  not_running = 3,  ///< no such supervisor
};

enum class command_kind : std::uint8_t {
  help,  ///< `id`: on which command; empty: on all
  version,
  start_config,  ///< `config`
  run,           ///< `entry`, or `config`, empty: look for one in the folder
  status,        ///< `id`, empty: all
  scale,         ///< `id`, `mode`, `count`
  operate,       ///< `action` on `id`
  signal,        ///< `count`, the signal's number, to `id`
  apply,         ///< `config`, `dry_run`
  validate,      ///< `config`
  logs,          ///< `filter…`, `lines`
  monitor,       ///< the same
  why,           ///< `id`
  terminate,
  upgrade,
  init,             ///< `entry`, into `of_config`
  append,           ///< `entry`, into `of_config`
  remove,           ///< `id`, from `of_config`
  import,           ///< `config`, to `output`
  completion,       ///< `id`: the shell
  enable_service,   ///< `config`, `system`, `user`, `socket`, `dry_run`
  disable_service,  ///< `system`, `dry_run`
};

/// One command line, understood.
struct command {
  command_kind kind = command_kind::help;
  std::string config;
  std::string id;
  scale_mode mode = scale_mode::to;
  std::uint32_t count = 0;
  verb action = verb::start;
  bool json = false;
  bool wait = true;
  /// --name and --config: which supervisor.
  std::optional<std::string> name;
  std::optional<std::string> of_config;
  /// -n. Empty: all, or of monitor: none that is stored.
  std::optional<std::uint32_t> lines;
  std::string severity;  ///< --severity, words of severity_of() with commas
  std::string start;     ///< --start and --end, as time_of() understands
  std::string end;
  /// --timeout. Empty: the command's own.
  std::optional<std::chrono::milliseconds> timeout;
  /// Started in the background by `pup start`.
  bool background = false;
  /// A process given in words, as members of its entry in a configuration; the
  /// first is its id. Empty: none was given.
  json_members entry;
  std::string output;
  bool system = false;
  bool socket = false;
  bool dry_run = false;
  std::string user;
};

/// One line, object first, with the remedy.
struct usage_error {
  std::string text;
};

/// `arguments` without the program's name. `is_file` tells whether the word
/// after `start` is a configuration or an id.
std::variant<command, usage_error> parse(
    const std::vector<std::string>& arguments,
    const std::function<bool(const std::string&)>& is_file);

/// How answers are printed.
struct text_style {
  bool colour = false;  ///< a terminal, and NO_COLOR is not set
};

/// The table of `pup status`.
std::string render(const supervisor_status& status, const text_style& style);

/// One line for whoever waits: which instances are on their way somewhere, and
/// how long it has taken.
std::string render_progress(const supervisor_status& status,
                            std::chrono::seconds passed);

/// The object of `pup status --json`, one line (CONTRACT section 3).
std::string render_json(const supervisor_status& status);

/// "my-app: 4 -> 6 instances" and what happened to each.
std::string render(const scale_report& report);

/// What is, or would be, changed, and what happened to each instance.
std::string render(const apply_report& report);

/// A line for each outcome that went well, for standard output.
std::string render(const report& report);

/// A line for each outcome that did not, for standard error. Empty: all well.
std::string render_failures(const std::vector<outcome>& outcomes);

}  // namespace pup
