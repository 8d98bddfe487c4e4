#include "pup/runtime/cli.hpp"

#include "pup/config/plain_text.hpp"
#include "pup/runtime/log_text.hpp"
#include "pup/runtime/manual.hpp"
#include "pup/runtime/place.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>

namespace pup {

namespace {

// -- the command line ---------------------------------------------------------

/// "HUP", "sighup", "1": 1.
std::optional<int> signal_number(std::string_view text) {
  std::string name{text};
  for (auto& c : name)
    c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (name.starts_with("SIG"))
    name.erase(0, 3);
  int plain = 0;
  const auto* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data(), end, plain);
  const auto is_number = error == std::errc{} && stop == end && !name.empty();
  for (int number = 1; number < _NSIG; ++number) {
    const auto* known = ::sigabbrev_np(number);
    if (is_number ? plain == number : known != nullptr && name == known)
      return number;
  }
  return std::nullopt;
}

usage_error refuse(std::string text) {
  return {std::move(text)};
}

std::optional<std::uint32_t> number(std::string_view text) {
  std::uint32_t result = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, result);
  if (error != std::errc{} || stop != end || text.empty())
    return std::nullopt;
  return result;
}

std::optional<std::chrono::milliseconds> seconds(std::string_view text) {
  // A day is longer than any stop or start may take.
  constexpr double longest = 86'400;
  double result = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, result);
  if (error != std::errc{} || stop != end || !(result > 0) || result > longest)
    return std::nullopt;
  return std::chrono::milliseconds(static_cast<std::int64_t>(result * 1'000));
}

/// The arguments, taken one after the other.
class parser {
public:
  parser(const std::vector<std::string>& arguments,
         const std::function<bool(const std::string&)>& is_file)
      : arguments_(arguments), is_file_(is_file) {}

  std::variant<command, usage_error> result() {
    for (at_ = 0; at_ < arguments_.size(); ++at_) {
      const auto& word = arguments_[at_];
      const auto is_option = word.size() > 1 && word[0] == '-'
                             && !number(std::string_view{word}.substr(1));
      if (is_option) {
        if (word == "--") {
          rest_.assign(
              arguments_.begin() + static_cast<std::ptrdiff_t>(at_) + 1,
              arguments_.end());
          ended_ = true;
          break;
        }
        if (auto fault = option(word); !fault.empty())
          return refuse(std::move(fault));
      } else {
        words_.push_back(word);
      }
    }
    if (help_) {
      command result;
      if (!words_.empty() && words_.front() != "version"
          && words_.front() != "help")
        result.id = words_.front();
      return result;
    }
    if (auto fault = words(); !fault.empty())
      return refuse(std::move(fault));
    return command_;
  }

private:
  std::string option(const std::string& word) {
    auto name = word;
    std::optional<std::string> inline_value;
    if (const auto equals = word.find('='); equals != std::string::npos) {
      name = word.substr(0, equals);
      inline_value = word.substr(equals + 1);
    }
    if (inline_value
        && (name == "--json" || name == "--no-wait" || name == "--help"
            || name == "--version" || name == "--background"
            || name == "--system" || name == "--socket" || name == "--dry-run"))
      return name + ": takes no value";
    if (name == "-h" || name == "--help") {
      help_ = true;
    } else if (name == "-V" || name == "--version") {
      words_.insert(words_.begin(), "version");
    } else if (name == "--json") {
      command_.json = true;
    } else if (name == "--no-wait") {
      command_.wait = false;
    } else if (name == "--background") {
      command_.background = true;
    } else if (name == "--system") {
      command_.system = true;
    } else if (name == "--socket") {
      command_.socket = true;
    } else if (name == "--dry-run") {
      command_.dry_run = true;
    } else if (is_valued(name)) {
      if (!inline_value && at_ + 1 < arguments_.size())
        inline_value = arguments_[++at_];
      if (!inline_value || inline_value->empty())
        return name + ": needs a value";
      return valued_option(name, *inline_value);
    } else {
      return word + ": no such option; pup --help lists them";
    }
    return {};
  }

  static bool is_valued(std::string_view name) {
    static constexpr std::array names{
        "--name",        "--config",  "--id",   "--instances", "--timeout",
        "--output",      "-o",        "--user", "--cmd",       "--cwd",
        "--env",         "--watch",   "--cron", "--terminate", "--start-port",
        "--common-port", "--strategy"};
    return is_log_option(name)
           || std::find(names.begin(), names.end(), name) != names.end();
  }

  std::string valued_option(const std::string& name, const std::string& value) {
    if (name == "--name" && !usable_name(value))
      return "--name: " + name_fault(value);
    if (name == "--name")
      command_.name = value;
    else if (name == "--config")
      command_.of_config = value;
    else if (name == "--id")
      id_ = value;
    else if (name == "--instances")
      instances_ = value;
    else if (name == "--output" || name == "-o")
      command_.output = value;
    else if (name == "--user")
      command_.user = value;
    else if (is_log_option(name))
      return log_option(name, value);
    else if (name != "--timeout")
      of_entry_.emplace_back(name, value);
    else if (!(command_.timeout = seconds(value)))
      return "--timeout: '" + value
             + "' is no time; use seconds, more than 0 and at most 86400";
    return {};
  }

  static bool is_log_option(std::string_view name) {
    static constexpr std::array names{"-n", "--severity", "--start", "--end"};
    return std::find(names.begin(), names.end(), name) != names.end();
  }

  std::string log_option(const std::string& name, const std::string& value) {
    log_option_ = name;
    if (name == "-n") {
      command_.lines = number(value);
      if (!command_.lines)
        return "-n: '" + value + "' is no number of lines; use 0 to 4294967295";
      return {};
    }
    if (name == "--severity") {
      command_.severity = value;
      return severity_fault(value);
    }
    (name == "--start" ? command_.start : command_.end) = value;
    // Whether it is one does not depend on when and where.
    if (!time_of(value, 0, std::chrono::minutes{0}))
      return name + ": '" + value + "' is no time; " + std::string{time_forms};
    return {};
  }

  static std::string severity_fault(std::string_view list) {
    for (;;) {
      const auto end = std::min(list.find(','), list.size());
      const auto word = list.substr(0, end);
      if (word != "info" && word != "warn" && word != "error")
        return "--severity: '" + std::string{word}
               + "' is none; use info, warn or error";
      if (end == list.size())
        return {};
      list.remove_prefix(end + 1);
    }
  }

  std::string log_words(const std::string& word) {
    command_.kind = word == "logs" ? command_kind::logs : command_kind::monitor;
    if (instances_)
      return "--instances: not with " + word;
    if (words_.size() > 1)
      return word + ": '" + words_[1] + "' is one argument too many";
    if (!words_.empty() && id_)
      return word + ": '" + words_[0] + "' and --id " + *id_
             + "; use one of them";
    command_.id = id_ ? *id_ : words_.empty() ? "" : words_[0];
    return {};
  }

  std::string words() {
    if ((id_ || instances_) && words_.empty() && !ended_)
      return scale_by_options();
    if (words_.empty())
      return "pup: a command is missing; pup --help lists them";
    const auto word = words_.front();
    words_.erase(words_.begin());
    if (word == "run" || word == "init" || word == "append")
      return with_entry(word);
    // Behind -- stand words that look like options.
    words_.insert(words_.end(), rest_.begin(), rest_.end());
    if (word == "remove")
      return remove();
    if (word == "logs" || word == "monitor")
      return log_words(word);
    if (id_ || instances_)
      return "'" + word + "': not together with --id and --instances";
    if (!log_option_.empty())
      return log_option_ + ": only with logs and monitor";
    if (!of_entry_.empty())
      return of_entry_.front().first + ": no option of " + word
             + "; only of run, init and append";
    if (word == "start")
      return start();
    if (word == "status" || word == "ls")
      return one_word(word, command_kind::status, command_.id, false, "ID");
    if (word == "why")
      return one_word(word, command_kind::why, command_.id, true, "ID");
    if (word == "scale")
      return scale_by_words();
    if (word == "stop" || word == "restart") {
      command_.action = word == "stop" ? verb::stop : verb::restart;
      return one_word(word, command_kind::operate, command_.id, true, "ID|all");
    }
    if (word == "reload") {
      command_.action = verb::reload;
      return one_word(word, command_kind::operate, command_.id, true, "ID|all");
    }
    if (word == "block" || word == "unblock") {
      command_.action = word == "block" ? verb::block : verb::unblock;
      return one_word(word, command_kind::operate, command_.id, true, "ID|all");
    }
    if (word == "signal")
      return signal();
    if (word == "validate")
      return one_word(word, command_kind::validate, command_.config, true,
                      "CONFIG");
    if (word == "apply")
      return one_word(word, command_kind::apply, command_.config, true,
                      "CONFIG");
    if (word == "import")
      return one_word(word, command_kind::import, command_.config, true,
                      "FILE");
    if (word == "completion")
      return one_word(word, command_kind::completion, command_.id, true,
                      "bash, zsh or fish");
    if (word == "enable-service")
      return one_word(word, command_kind::enable_service, command_.config,
                      false, "CONFIG");
    std::string none;
    if (word == "disable-service")
      return one_word(word, command_kind::disable_service, none, false, "");
    if (word == "terminate")
      return one_word(word, command_kind::terminate, none, false, "");
    if (word == "upgrade")
      return one_word(word, command_kind::upgrade, none, false, "");
    if (word == "version")
      return one_word(word, command_kind::version, none, false, "");
    if (word == "help")
      return one_word(word, command_kind::help, command_.id, false, "COMMAND");
    return unknown_command(word);
  }

  std::string signal() {
    if (words_.size() != 2)
      return "signal: needs an id and a signal; pup signal web HUP";
    command_.kind = command_kind::signal;
    command_.id = words_[0];
    const auto known = signal_number(words_[1]);
    if (!known)
      return "'" + words_[1]
             + "' is no signal; use a name such as HUP or SIGUSR1, or a number";
    command_.count = static_cast<std::uint32_t>(*known);
    return {};
  }

  std::string remove() {
    if (id_ && words_.empty())
      words_.push_back(*id_);
    return one_word("remove", command_kind::remove, command_.id, true, "ID");
  }

  /// run, init and append: a process may be given in words.
  std::string with_entry(const std::string& word) {
    if (auto fault = entry(word); !fault.empty())
      return fault;
    if (word == "run") {
      if (!command_.entry.empty() && (!words_.empty() || command_.of_config))
        return "run: either a configuration or a command; not both";
      return one_word(word, command_kind::run, command_.config, false,
                      "CONFIG");
    }
    command_.kind = word == "init" ? command_kind::init : command_kind::append;
    if (!words_.empty())
      return word + ": '" + words_.front()
             + "' is one argument too many; a command stands behind --";
    if (word == "append" && !id_)
      return "append: --id is missing; pup append --id web -- node server.js";
    if (word == "append" && command_.entry.empty())
      return "append: a command is missing; pup append --id " + *id_
             + " -- node server.js";
    return {};
  }

  std::string entry(const std::string& word) {
    std::string shell;
    json_members members;
    json_members cluster;
    json_members env;
    std::vector<std::string> watch;
    for (const auto& [name, value] : of_entry_) {
      const auto equals = value.find('=');
      if (name == "--cmd")
        shell = value;
      else if (name == "--watch")
        watch.push_back(value);
      else if (name == "--cwd" || name == "--cron" || name == "--terminate")
        members.emplace_back(name.substr(2), json_of(value));
      else if (name == "--strategy")
        cluster.emplace_back("strategy", json_of(value));
      else if (name == "--env" && (equals == 0 || equals == std::string::npos))
        return "--env: '" + value + "' is not NAME=value";
      else if (name == "--env")
        env.emplace_back(value.substr(0, equals),
                         json_of(value.substr(equals + 1)));
      else if (!number(value))
        return name + ": '" + value + "' is no port; use 1 to 65535";
      else
        cluster.emplace_back(
            name == "--start-port" ? "startPort" : "commonPort", value);
    }
    if (instances_) {
      if (*instances_ != "max" && !number(*instances_))
        return "--instances: '" + *instances_
               + "' is no number of instances; use 0 to "
               + std::to_string(bounds::instances) + " or max";
      cluster.emplace(cluster.begin(), "instances",
                      *instances_ == "max" ? json_of("max") : *instances_);
    }
    if (!shell.empty() && !rest_.empty())
      return word + ": either --cmd or a command behind --; not both";
    if (shell.empty() && rest_.empty()) {
      if (!of_entry_.empty() || instances_ || (id_ && word != "append"))
        return word + ": a command is missing; put it behind --, or into --cmd";
      return {};
    }
    command_.entry = {{"id", json_of(id_.value_or(id_of(shell)))},
                      {"cmd", shell.empty() ? json_of(rest_) : json_of(shell)}};
    auto& to = command_.entry;
    to.insert(to.end(), members.begin(), members.end());
    if (!env.empty())
      to.emplace_back("env", json_of(env));
    if (!watch.empty())
      to.emplace_back("watch", json_of(watch));
    // Who runs a command wants it to run, not to wait for the first change.
    if (!watch.empty() && word == "run")
      to.emplace_back("autostart", "true");
    if (!cluster.empty())
      to.emplace_back("cluster", json_of(cluster));
    return {};
  }

  /// The name of the program, as far as it is a good id.
  std::string id_of(const std::string& shell) const {
    auto program =
        rest_.empty() ? shell.substr(0, shell.find(' ')) : rest_.front();
    program = program.substr(program.rfind('/') + 1);
    std::erase_if(program, [](unsigned char c) {
      return !(c < 0x80
               && (std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-'
                   || c == '@'));
    });
    while (program.starts_with('-'))
      program.erase(0, 1);
    return program.empty() || program == "all"
               ? "main"
               : program.substr(0, bounds::id_length);
  }

  std::string start() {
    if (words_.empty())
      return "start: needs a configuration file or an id; pup start "
             "config.json";
    const auto& word = words_.front();
    const auto looks_like_file = [&] {
      const auto ends = [&](std::string_view x) {
        return word.size() > x.size() && word.ends_with(x);
      };
      return word.find('/') != std::string::npos || ends(".json")
             || ends(".jsonc") || is_file_(word);
    };
    if (looks_like_file())
      return one_word("start", command_kind::start_config, command_.config,
                      true, "CONFIG");
    command_.action = verb::start;
    return one_word("start", command_kind::operate, command_.id, true,
                    "ID|all");
  }

  std::string one_word(const std::string& name, command_kind kind,
                       std::string& to, bool needed, const std::string& what) {
    command_.kind = kind;
    if (words_.empty() && needed)
      return name + ": " + what + " is missing; pup --help shows how";
    if (words_.size() > (what.empty() ? 0U : 1U))
      return name + ": '" + words_.back()
             + "' is one argument too many; pup --help shows how";
    if (!words_.empty())
      to = words_.front();
    return {};
  }

  std::string scale_by_options() {
    if (!words_.empty())
      return "'" + words_.front() + "': not together with --id and --instances";
    if (!id_)
      return "--instances: needs --id; pup --id my-app --instances 6";
    if (!instances_)
      return "--id: needs --instances; pup --id " + *id_ + " --instances 6";
    return scale_to(*id_, *instances_, false);
  }

  std::string scale_by_words() {
    if (words_.size() != 2)
      return "scale: needs an id and a number; pup scale my-app 6, +2 or -1";
    return scale_to(words_[0], words_[1], true);
  }

  std::string scale_to(const std::string& id, std::string_view text,
                       bool relative) {
    command_.kind = command_kind::scale;
    command_.id = id;
    const std::string shown{text};
    if (relative && !text.empty() && (text[0] == '+' || text[0] == '-')) {
      command_.mode = text[0] == '+' ? scale_mode::up_by : scale_mode::down_by;
      text.remove_prefix(1);
    }
    const auto count = number(text);
    if (!count || *count > bounds::instances)
      return "'" + shown + "' is no number of instances; use 0 to "
             + std::to_string(bounds::instances);
    command_.count = *count;
    return {};
  }

  const std::vector<std::string>& arguments_;
  const std::function<bool(const std::string&)>& is_file_;
  std::size_t at_ = 0;
  bool help_ = false;
  std::vector<std::string> words_;
  bool ended_ = false;             // by --
  std::vector<std::string> rest_;  // behind it
  std::vector<std::pair<std::string, std::string>> of_entry_;
  std::optional<std::string> id_;
  std::optional<std::string> instances_;
  std::string log_option_;
  command command_;
};

// -- tables -------------------------------------------------------------------

using row = std::vector<std::string>;

std::string in_units(std::uint64_t bytes) {
  static constexpr std::array units{"B", "K", "M", "G", "T"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f%s" : "%.1f%s",
                value, units[unit]);
  return text.data();
}

std::string in_words(std::int64_t ms) {
  const auto s = ms / 1'000;
  const auto pair = [](std::int64_t a, const char* ua, std::int64_t b,
                       const char* ub) {
    return std::to_string(a) + ua + std::to_string(b) + ub;
  };
  if (ms < 1'000)
    return std::to_string(ms) + "ms";
  if (s < 60)
    return std::to_string(s) + "s";
  if (s < 3'600)
    return pair(s / 60, "m", s % 60, "s");
  if (s < 86'400)
    return pair(s / 3'600, "h", s / 60 % 60, "m");
  return pair(s / 86'400, "d", s / 3'600 % 24, "h");
}

std::string percent(double x) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f%%", x);
  return text.data();
}

// "4/120", open and ever; "4/-" where nobody counts.
std::string connections(std::uint64_t active,
                        const std::optional<std::uint64_t>& total) {
  return std::to_string(active) + '/' + (total ? std::to_string(*total) : "-");
}

row instance_row(const instance_status& x, const std::string& indent) {
  const auto lives = x.pid != 0;
  return {indent + shown(x.id),
          to_string(x.state),
          lives ? std::to_string(x.pid) : "-",
          x.port != 0 ? std::to_string(x.port) : "-",
          std::to_string(x.restarts),
          lives ? in_words(x.uptime_ms) : "-",
          lives ? percent(x.cpu_percent) : "-",
          lives ? in_units(x.rss_bytes) : "-",
          connections(x.connections_active, x.connections_total),
          x.reason.empty() && x.log_lost_bytes > 0
              ? in_units(x.log_lost_bytes) + " of its output lost"
              : shown(x.reason)};
}

row cluster_row(const unit_status& x) {
  row result{shown(x.id),
             to_string(x.state) + ' ' + std::to_string(x.ready) + '/'
                 + std::to_string(x.desired),
             "-",
             "-",
             "-",
             "-",
             "-",
             "-",
             "-",
             shown(x.reason)};
  if (x.balancer) {
    result[3] = std::to_string(x.balancer->port);
    result[8] = connections(x.balancer->connections_active,
                            x.balancer->connections_total);
    if (result[9].empty())
      result[9] = x.balancer->strategy;
  }
  return result;
}

const char* colour_of(const std::string& state) {
  if (state.starts_with("ready") || state.starts_with("running"))
    return "\033[32m";  // green
  if (state.starts_with("failed") || state.starts_with("exhausted"))
    return "\033[31m";  // red
  if (state.starts_with("stopped") || state.starts_with("finished"))
    return "\033[2m";  // dim
  return "\033[33m";   // yellow
}

std::string lay_out(const std::vector<row>& rows, const text_style& style) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const auto& x : rows)
    for (std::size_t i = 0; i < x.size(); ++i)
      widths[i] = std::max(widths[i], x[i].size());
  std::string text;
  for (const auto& x : rows) {
    std::string line;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto coloured = style.colour && i == 1 && &x != &rows.front();
      if (coloured)
        line += colour_of(x[i]);
      line += x[i];
      if (coloured)
        line += "\033[0m";
      line.append(widths[i] - x[i].size() + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

// -- JSON ---------------------------------------------------------------------

namespace json = boost::json;

template <class T>
json::value or_null(const std::optional<T>& x) {
  return x ? json::value(*x) : json::value(nullptr);
}

json::object instance_object(const instance_status& x) {
  json::object result;
  result["id"] = x.id;
  result["state"] = to_string(x.state);
  result["pid"] = x.pid != 0 ? json::value(x.pid) : json::value(nullptr);
  result["port"] = x.port != 0 ? json::value(x.port) : json::value(nullptr);
  result["restarts"] = x.restarts;
  result["uptimeMs"] = x.uptime_ms;
  result["exitCode"] = or_null(x.exit_code);
  result["signal"] = or_null(x.signal);
  result["connectionsActive"] = x.connections_active;
  result["connectionsTotal"] = or_null(x.connections_total);
  result["cpuPercent"] = std::round(x.cpu_percent * 10) / 10;
  result["rssBytes"] = x.rss_bytes;
  result["logLostLines"] = x.log_lost_lines;
  result["logLostBytes"] = x.log_lost_bytes;
  result["reason"] = x.reason;
  return result;
}

json::object cluster_object(const unit_status& x) {
  json::object result;
  result["id"] = x.id;
  result["type"] = "cluster";
  result["state"] = to_string(x.state);
  result["desired"] = x.desired;
  result["ready"] = x.ready;
  result["reason"] = x.reason;
  if (x.balancer) {
    const auto& b = *x.balancer;
    result["balancer"] = json::object{
        {"port", b.port},
        {"strategy", b.strategy},
        {"mode", b.mode},
        {"connectionsActive", b.connections_active},
        {"connectionsTotal", or_null(b.connections_total)},
        {"bytesIn", or_null(b.bytes_in)},
        {"bytesOut", or_null(b.bytes_out)},
        {"rejected", or_null(b.rejected)},
    };
  } else {
    result["balancer"] = nullptr;
  }
  json::array instances;
  for (const auto& instance : x.instances)
    instances.push_back(instance_object(instance));
  result["instances"] = std::move(instances);
  return result;
}

std::string line_of(const outcome& x) {
  return shown(x.id) + ": " + shown(x.text) + '\n';
}

json::object process_object(const unit_status& x) {
  json::object result;
  if (x.instances.empty())
    return result;
  for (auto& [key, value] : instance_object(x.instances.front())) {
    result[key] = std::move(value);
    if (key == "id")
      result["type"] = "process";
  }
  return result;
}

}  // namespace

std::variant<command, usage_error> parse(
    const std::vector<std::string>& arguments,
    const std::function<bool(const std::string&)>& is_file) {
  return parser{arguments, is_file}.result();
}

std::string render_progress(const supervisor_status& status,
                            std::chrono::seconds passed) {
  constexpr std::size_t most_named = 3;
  std::string named;
  std::size_t count = 0;
  for (const auto& unit : status.units)
    for (const auto& x : unit.instances)
      switch (x.state) {
        case run_state::starting:
        case run_state::backoff:
        case run_state::draining:
        case run_state::stopping:
          if (++count <= most_named)
            named += (named.empty() ? ": " : ", ") + shown(x.id) + ' '
                     + to_string(x.state);
          break;
        default:
          break;
      }
  if (count > most_named)
    named += " and " + std::to_string(count - most_named) + " more";
  return "waiting" + named + " (" + std::to_string(passed.count()) + " s)";
}

std::string render(const supervisor_status& status, const text_style& style) {
  std::vector<row> rows{{"ID", "STATE", "PID", "PORT", "RESTARTS", "UPTIME",
                         "CPU", "MEMORY", "CONN", ""}};
  for (const auto& unit : status.units) {
    if (unit.is_cluster)
      rows.push_back(cluster_row(unit));
    for (const auto& x : unit.instances)
      rows.push_back(instance_row(x, unit.is_cluster ? "  " : ""));
  }
  auto text = lay_out(rows, style);
  for (const auto& x : status.warnings)
    text += "warning: " + shown(x) + '\n';
  return text;
}

std::string render_json(const supervisor_status& status) {
  json::object result;
  result["name"] = status.name;
  result["pid"] = status.pid;
  result["version"] = status.version;
  result["config"] = status.config;
  result["uptimeMs"] = status.uptime_ms;
  result["rssBytes"] = status.rss_bytes;
  json::array warnings;
  for (const auto& x : status.warnings)
    warnings.emplace_back(x);
  result["warnings"] = std::move(warnings);
  json::array processes;
  for (const auto& unit : status.units) {
    auto object = unit.is_cluster ? cluster_object(unit) : process_object(unit);
    if (!unit.group.empty())
      object["group"] = unit.group;
    processes.push_back(std::move(object));
  }
  result["processes"] = std::move(processes);
  return shown_json(json::serialize(result)) + '\n';
}

std::string render(const scale_report& report) {
  auto text = shown(report.id) + ": "
              + (report.from == report.to ? std::to_string(report.to)
                                          : std::to_string(report.from) + " -> "
                                                + std::to_string(report.to))
              + (report.to == 1 ? " instance\n" : " instances\n");
  for (const auto& x : report.outcomes)
    if (x.ok)
      text += "  " + line_of(x);
  return text;
}

std::string render(const apply_report& report) {
  if (report.plan.empty())
    return "nothing to change\n";
  std::string text;
  for (const auto& x : report.plan)
    text += shown(x) + '\n';
  return text + render(pup::report{report.outcomes});
}

std::string render(const report& report) {
  std::string text;
  for (const auto& x : report.outcomes)
    if (x.ok)
      text += line_of(x);
  return text;
}

std::string render_failures(const std::vector<outcome>& outcomes) {
  std::string text;
  for (const auto& x : outcomes)
    if (!x.ok)
      text += line_of(x);
  return text;
}

}  // namespace pup
