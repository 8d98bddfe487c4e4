#include "pup/config/env_file.hpp"

#include <algorithm>
#include <optional>

namespace pup {

namespace {

constexpr std::string_view blanks = " \t";

bool is_letter(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

bool is_name(std::string_view text) {
  return !text.empty() && is_letter(text.front())
         && std::all_of(text.begin(), text.end(), [](char c) {
              return is_letter(c) || (c >= '0' && c <= '9');
            });
}

class env_file_reader {
public:
  explicit env_file_reader(std::string_view text) : rest_(text) {
    constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
    if (rest_.starts_with(byte_order_mark))
      rest_.remove_prefix(byte_order_mark.size());
  }

  std::variant<std::map<std::string, std::string>, env_file_fault> run() {
    while (!rest_.empty() && !fault_) {
      begin_ = line_;
      entry();
    }
    if (fault_)
      return *std::move(fault_);
    return std::move(variables_);
  }

private:
  void blame(std::string problem, std::string remedy) {
    if (!fault_)
      fault_ = {begin_, std::move(problem), std::move(remedy)};
  }

  void skip_blanks() {
    rest_.remove_prefix(
        std::min(rest_.find_first_not_of(blanks), rest_.size()));
  }

  // Without its end, which is taken as well.
  std::string_view take_line() {
    const auto end = std::min(rest_.find('\n'), rest_.size());
    auto result = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    ++line_;
    if (result.ends_with('\r'))
      result.remove_suffix(1);
    return result;
  }

  void entry() {
    skip_blanks();
    if (rest_.empty())
      return;
    if (rest_.find_first_of("#;\n") == 0 || rest_.starts_with("\r\n")) {
      take_line();
      return;
    }
    constexpr std::string_view prefix = "export";
    if (rest_.starts_with(prefix) && rest_.size() > prefix.size()
        && blanks.find(rest_[prefix.size()]) != std::string_view::npos) {
      rest_.remove_prefix(prefix.size());
      skip_blanks();
    }
    const auto stop = std::min(rest_.find_first_of("=\n"), rest_.size());
    if (stop == rest_.size() || rest_[stop] == '\n')
      return blame("no `=` on the line", "write NAME=VALUE");
    const std::string name{rest_.substr(0, stop)};
    // What is no name may be a part of somebody's key: it is not shown.
    if (!is_name(name))
      return blame("what stands before the `=` is no name of a variable",
                   "use letters, digits and _, without blanks before the `=`");
    rest_.remove_prefix(stop + 1);
    skip_blanks();
    auto value = rest_.starts_with('\'')  ? literal()
                 : rest_.starts_with('"') ? quoted()
                                          : plain();
    if (value.find('\0') != std::string::npos)
      blame("the value of `" + name + "` holds a NUL character",
            "remove it: no variable can");
    variables_[name] = std::move(value);
  }

  std::string plain() {
    auto line = take_line();
    for (std::size_t i = 0; i < line.size(); ++i)
      if (line[i] == '#'
          && (i == 0 || blanks.find(line[i - 1]) != std::string_view::npos)) {
        line = line.substr(0, i);
        break;
      }
    const auto last = line.find_last_not_of(blanks);
    return std::string{line.substr(0, last + 1)};  // npos + 1: all blank
  }

  std::string literal() {
    rest_.remove_prefix(1);
    const auto end = rest_.find('\'');
    if (end == std::string_view::npos) {
      blame("a ' without a second one", "close the quotes");
      return {};
    }
    std::string result{rest_.substr(0, end)};
    rest_.remove_prefix(end + 1);
    count_lines(result);
    end_of_quotes();
    return result;
  }

  std::string quoted() {
    constexpr std::string_view escapes = "nrt\\\"$`";
    constexpr std::string_view meanings = "\n\r\t\\\"$`";
    std::string result;
    rest_.remove_prefix(1);
    for (std::size_t i = 0; i < rest_.size(); ++i) {
      if (rest_[i] == '"') {
        count_lines(rest_.substr(0, i));
        rest_.remove_prefix(i + 1);
        end_of_quotes();
        return result;
      }
      if (rest_[i] != '\\' || i + 1 == rest_.size()) {
        result += rest_[i];
        continue;
      }
      const auto next = rest_[++i];
      const auto known = escapes.find(next);
      if (known != std::string_view::npos)
        result += meanings[known];
      else if (next != '\n')
        result.append({'\\', next});
    }
    blame("a \" without a second one", "close the quotes");
    return {};
  }

  void count_lines(std::string_view passed) {
    line_ += static_cast<std::size_t>(
        std::count(passed.begin(), passed.end(), '\n'));
  }

  void end_of_quotes() {
    auto line = take_line();
    const auto begin = line.find_first_not_of(blanks);
    if (begin != std::string_view::npos && line[begin] != '#')
      blame("text behind the closing quote",
            "put the whole value into one pair of quotes");
  }

  std::string_view rest_;
  std::size_t line_ = 1;
  std::size_t begin_ = 1;
  std::map<std::string, std::string> variables_;
  std::optional<env_file_fault> fault_;
};

}  // namespace

std::variant<std::map<std::string, std::string>, env_file_fault> read_env_file(
    std::string_view text) {
  return env_file_reader{text}.run();
}

}  // namespace pup
