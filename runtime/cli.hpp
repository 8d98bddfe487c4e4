// The words of the command line and the pictures of its answers. Pure: argv in,
// values and text out; client.hpp and daemon.hpp do what they say.
#pragma once

#include "pup/actors/protocol.hpp"

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
  help,
  version,
  start_config,  ///< `config`
  run,           ///< `config`, empty: look for one in the folder
  status,        ///< `id`, empty: all
  scale,         ///< `id`, `mode`, `count`
  operate,       ///< `action` on `id`
  validate,      ///< `config`
  terminate,
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
  /// --timeout. Empty: the command's own.
  std::optional<std::chrono::milliseconds> timeout;
  /// Started in the background by `pup start`.
  bool background = false;
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

/// Fits a screen of 80 columns.
std::string help_text();

/// How answers are printed.
struct text_style {
  bool colour = false;  ///< a terminal, and NO_COLOR is not set
};

/// The table of `pup status`.
std::string render(const supervisor_status& status, const text_style& style);

/// The object of `pup status --json`, one line (CONTRACT section 3).
std::string render_json(const supervisor_status& status);

/// "my-app: 4 -> 6 instances" and what happened to each.
std::string render(const scale_report& report);

/// A line for each outcome that went well, for standard output.
std::string render(const report& report);

/// A line for each outcome that did not, for standard error. Empty: all well.
std::string render_failures(const std::vector<outcome>& outcomes);

}  // namespace pup
