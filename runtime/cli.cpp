#include "pup/runtime/cli.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace pup {

namespace {

// -- the command line ---------------------------------------------------------

// Words that the contract names and a later version brings.
constexpr std::array later{"block", "unblock", "signal", "reload", "apply",
                           "logs",  "monitor", "init",   "append", "remove",
                           "why",   "upgrade", "import"};

constexpr std::array known{"start", "run",     "status",   "ls",   "scale",
                           "stop",  "restart", "validate", "help", "terminate"};

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

/// Distance of two short words; only near ones matter.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j)
    row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    auto diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const auto changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, changed});
    }
  }
  return row[b.size()];
}

std::string unknown_command(const std::string& word) {
  auto result = "'" + word + "' is no command; ";
  const auto* nearest = *std::min_element(
      known.begin(), known.end(), [&](const char* a, const char* b) {
        return distance(word, a) < distance(word, b);
      });
  return distance(word, nearest) <= 2
             ? result + "did you mean '" + nearest + "'?"
             : result + "pup --help lists them";
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
      if (is_option && !options_ended_) {
        if (word == "--")
          options_ended_ = true;
        else if (auto fault = option(word); !fault.empty())
          return refuse(std::move(fault));
      } else {
        words_.push_back(word);
      }
    }
    if (help_)
      return command{};
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
            || name == "--version" || name == "--background"))
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
    } else if (name == "--name" || name == "--config" || name == "--id"
               || name == "--instances" || name == "--timeout") {
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

  std::string valued_option(const std::string& name, const std::string& value) {
    if (name == "--name")
      command_.name = value;
    else if (name == "--config")
      command_.of_config = value;
    else if (name == "--id")
      id_ = value;
    else if (name == "--instances")
      instances_ = value;
    else if (!(command_.timeout = seconds(value)))
      return "--timeout: '" + value
             + "' is no time; use seconds, more than 0 and at most 86400";
    return {};
  }

  std::string words() {
    if (id_ || instances_)
      return scale_by_options();
    if (words_.empty())
      return "pup: a command is missing; pup --help lists them";
    const auto word = words_.front();
    words_.erase(words_.begin());
    if (word == "start")
      return start();
    if (word == "run")
      return one_word(word, command_kind::run, command_.config, false,
                      "CONFIG");
    if (word == "status" || word == "ls")
      return one_word(word, command_kind::status, command_.id, false, "ID");
    if (word == "scale")
      return scale_by_words();
    if (word == "stop" || word == "restart") {
      command_.action = word == "stop" ? verb::stop : verb::restart;
      return one_word(word, command_kind::operate, command_.id, true, "ID|all");
    }
    if (word == "validate")
      return one_word(word, command_kind::validate, command_.config, true,
                      "CONFIG");
    std::string none;
    if (word == "terminate")
      return one_word(word, command_kind::terminate, none, false, "");
    if (word == "version")
      return one_word(word, command_kind::version, none, false, "");
    if (word == "help") {
      command_.kind = command_kind::help;
      return {};
    }
    if (std::find(later.begin(), later.end(), word) != later.end())
      return word + ": not supported yet; pup --help lists what is";
    return unknown_command(word);
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
  bool options_ended_ = false;
  bool help_ = false;
  std::vector<std::string> words_;
  std::optional<std::string> id_;
  std::optional<std::string> instances_;
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

row instance_row(const instance_status& x, const std::string& indent) {
  const auto lives = x.pid != 0;
  return {indent + x.id,
          to_string(x.state),
          lives ? std::to_string(x.pid) : "-",
          x.port != 0 ? std::to_string(x.port) : "-",
          std::to_string(x.restarts),
          lives ? in_words(x.uptime_ms) : "-",
          lives ? percent(x.cpu_percent) : "-",
          lives ? in_units(x.rss_bytes) : "-",
          std::to_string(x.connections_active) + "/"
              + std::to_string(x.connections_total),
          x.reason};
}

row cluster_row(const unit_status& x) {
  row result{x.id,
             to_string(x.state) + ' ' + std::to_string(x.ready) + '/'
                 + std::to_string(x.desired),
             "-",
             "-",
             "-",
             "-",
             "-",
             "-",
             "-",
             x.reason};
  if (x.balancer) {
    result[3] = std::to_string(x.balancer->port);
    result[8] = std::to_string(x.balancer->connections_active) + "/"
                + std::to_string(x.balancer->connections_total);
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

json::value or_null(const std::optional<std::int32_t>& x) {
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
  result["connectionsTotal"] = x.connections_total;
  result["cpuPercent"] = std::round(x.cpu_percent * 10) / 10;
  result["rssBytes"] = x.rss_bytes;
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
        {"connectionsTotal", b.connections_total},
        {"bytesIn", b.bytes_in},
        {"bytesOut", b.bytes_out},
        {"rejected", b.rejected},
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

std::string help_text() {
  return R"(pup runs, scales and balances processes.

  pup start CONFIG          start a supervisor in the background, wait for ready
  pup run [CONFIG]          the same in the foreground
  pup --id ID --instances N scale a cluster          (short: pup scale ID N|+N|-N)
  pup status [ID] [--json]  what runs                               (also: pup ls)
  pup start|stop|restart ID|all
                            ID: a process, a cluster, an instance or a glob
  pup validate CONFIG       check a configuration
  pup terminate             stop everything in reverse order and exit

Which supervisor: --name NAME or --config FILE; else the one started from this
folder; else the only one; else the one that has the id.

  --no-wait                 do not wait until it is done
  --timeout SECONDS         wait no longer than this
  --version, --help

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 not running.

  pup start config.json
  pup --id my-scalable-app --instances 6
)";
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
  return lay_out(rows, style);
}

std::string render_json(const supervisor_status& status) {
  json::object result;
  result["name"] = status.name;
  result["pid"] = status.pid;
  result["version"] = status.version;
  result["config"] = status.config;
  result["uptimeMs"] = status.uptime_ms;
  result["rssBytes"] = status.rss_bytes;
  json::array processes;
  for (const auto& unit : status.units)
    processes.push_back(unit.is_cluster ? cluster_object(unit)
                                        : process_object(unit));
  result["processes"] = std::move(processes);
  return json::serialize(result) + '\n';
}

std::string render(const scale_report& report) {
  auto text = report.id + ": "
              + (report.from == report.to ? std::to_string(report.to)
                                          : std::to_string(report.from) + " -> "
                                                + std::to_string(report.to))
              + (report.to == 1 ? " instance\n" : " instances\n");
  for (const auto& x : report.outcomes)
    if (x.ok)
      text += "  " + x.id + ": " + x.text + '\n';
  return text;
}

std::string render(const report& report) {
  std::string text;
  for (const auto& x : report.outcomes)
    if (x.ok)
      text += x.id + ": " + x.text + '\n';
  return text;
}

std::string render_failures(const std::vector<outcome>& outcomes) {
  std::string text;
  for (const auto& x : outcomes)
    if (!x.ok)
      text += x.id + ": " + x.text + '\n';
  return text;
}

}  // namespace pup
