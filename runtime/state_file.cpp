#include "pup/runtime/state_file.hpp"

#include "pup/runtime/text_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <concepts>
#include <cstdio>
#include <limits>
#include <zlib.h>

#include <fcntl.h>
#include <unistd.h>

namespace pup {

namespace {

constexpr std::string_view magic = "pup-state";

// -- writing ------------------------------------------------------------------

/// A text without blanks, never empty.
std::string escaped(std::string_view text) {
  constexpr std::string_view hex = "0123456789ABCDEF";
  if (text.empty())
    return "%";
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= ' ' || c == '%') {
      result += '%';
      result += hex[byte >> 4];
      result += hex[byte & 15];
    } else {
      result += c;
    }
  }
  return result;
}

std::string hex_of(std::uint64_t x, int digits) {
  std::array<char, 20> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%0*llx", digits,
                static_cast<unsigned long long>(x));
  return buffer.data();
}

/// One line of words.
class line {
public:
  explicit line(std::string_view name) : text_(name) {}

  line& word(std::string_view x) {
    text_ += ' ';
    text_ += x;
    return *this;
  }
  line& text(std::string_view x) {
    return word(escaped(x));
  }
  line& number(std::integral auto x) {
    return word(std::to_string(x));
  }
  line& flag(bool x) {
    return word(x ? "1" : "0");
  }
  line& mark(std::uint64_t x) {
    return word(hex_of(x, 16));
  }
  std::string end() {
    return std::move(text_) + '\n';
  }

private:
  std::string text_;
};

std::string line_of(std::uint32_t number, const saved_slot& x) {
  line result{"slot"};
  result.number(number)
      .number(x.restarts)
      .number(x.failures)
      .flag(x.wanted)
      .flag(x.blocked)
      .word(x.rest.empty() ? "-" : escaped(x.rest))
      .text(x.reason);
  for (const auto moment : x.restart_times)
    result.number(moment);
  return result.end();
}

// -- reading ------------------------------------------------------------------

/// Takes lines and words off a body. What is not as it should be makes `fault`
/// true and everything behind it empty.
class scanner {
public:
  explicit scanner(std::string_view body) : body_(body) {}

  /// The name of the next line; empty at the end.
  std::string_view next_line() {
    if (!words_.empty())
      fault_ = true;
    const auto end = body_.find('\n');
    if (fault_ || end == std::string_view::npos) {
      fault_ = fault_ || !body_.empty();
      return {};
    }
    words_ = body_.substr(0, end);
    more_ = true;
    body_.remove_prefix(end + 1);
    return word();
  }

  bool has_word() const {
    return !fault_ && more_;
  }

  std::string_view word() {
    if (!has_word()) {
      fault_ = true;
      return {};
    }
    const auto blank = words_.find(' ');
    const auto result = words_.substr(0, blank);
    more_ = blank != std::string_view::npos;
    words_.remove_prefix(more_ ? blank + 1 : words_.size());
    return result;
  }

  std::string text() {
    const auto from = word();
    if (from == "%")
      return {};
    std::string result;
    for (std::size_t i = 0; i < from.size(); ++i) {
      unsigned byte = 0;
      if (from[i] != '%') {
        result += from[i];
        continue;
      }
      const auto digits = from.substr(i + 1, 2);
      if (digits.size() != 2
          || std::from_chars(digits.data(), digits.data() + 2, byte, 16).ptr
                 != digits.data() + 2)
        fault_ = true;
      result += static_cast<char>(byte);
      i += 2;
    }
    return result;
  }

  template <std::integral T>
  T number(int base = 10) {
    const auto from = word();
    T result{};
    const auto [end, error] =
        std::from_chars(from.data(), from.data() + from.size(), result, base);
    if (error != std::errc{} || end != from.data() + from.size())
      fault_ = true;
    return fault_ ? T{} : result;
  }

  bool flag() {
    return number<std::uint8_t>() != 0;
  }

  bool fault() const {
    return fault_;
  }
  void fail() {
    fault_ = true;
  }

private:
  std::string_view body_;
  std::string_view words_;  // of the current line
  bool more_ = false;
  bool fault_ = false;
};

saved_unit read_unit(scanner& from) {
  saved_unit result;
  result.mark = from.number<std::uint64_t>(16);
  result.desired = from.number<std::uint32_t>();
  result.listening = from.flag();
  result.last_life = from.number<std::uint64_t>();
  return result;
}

saved_slot read_slot(scanner& from) {
  saved_slot result;
  result.restarts = from.number<std::uint32_t>();
  result.failures = from.number<std::uint32_t>();
  result.wanted = from.flag();
  result.blocked = from.flag();
  result.rest = from.text();
  if (result.rest == "-")
    result.rest.clear();
  result.reason = from.text();
  while (from.has_word())
    result.restart_times.push_back(from.number<std::int64_t>());
  return result;
}

saved_process read_process(scanner& from) {
  saved_process result;
  result.life = from.number<std::uint64_t>();
  result.pid = from.number<pid_t>();
  result.started = from.number<std::uint64_t>();
  if (result.pid <= 1)
    from.fail();
  return result;
}

saved_state read_body(scanner& from) {
  saved_state result;
  saved_unit* unit = nullptr;
  for (auto name = from.next_line(); !name.empty(); name = from.next_line()) {
    if (name == "boot") {
      result.boot = from.text();
    } else if (name == "supervisor") {
      result.supervisor = from.text();
      result.pid = from.number<pid_t>();
      result.started = from.number<std::uint64_t>();
    } else if (name == "config") {
      result.config_mark = from.number<std::uint64_t>(16);
      result.config = from.text();
    } else if (name == "on-purpose") {
      result.on_purpose = from.flag();
    } else if (name == "told" && from.word() == "environment") {
      result.told_environment = true;
    } else if (name == "unit") {
      auto id = from.text();
      unit = &(result.units[std::move(id)] = read_unit(from));
    } else if (name == "clock" && unit != nullptr) {
      unit->clock_seen = from.number<std::int64_t>();
    } else if (name == "slot" && unit != nullptr) {
      const auto number = from.number<std::uint32_t>();
      unit->slots[number] = read_slot(from);
    } else if (name == "unready" && unit != nullptr) {
      const auto number = from.number<std::uint32_t>();
      unit->slots[number].failed_starts = from.number<std::uint32_t>();
    } else if (name == "process") {
      auto key = from.text();
      result.processes[std::move(key)] = read_process(from);
    } else {
      from.fail();
    }
  }
  return result;
}

std::string body_of(const saved_state& x) {
  auto result = line{"boot"}.text(x.boot).end();
  result += line{"supervisor"}
                .text(x.supervisor)
                .number(x.pid)
                .number(x.started)
                .end();
  result += line{"config"}.mark(x.config_mark).text(x.config).end();
  result += line{"on-purpose"}.flag(x.on_purpose).end();
  if (x.told_environment)
    result += line{"told"}.word("environment").end();
  for (const auto& [id, unit] : x.units) {
    result += line{"unit"}
                  .text(id)
                  .mark(unit.mark)
                  .number(unit.desired)
                  .flag(unit.listening)
                  .number(unit.last_life)
                  .end();
    if (unit.clock_seen != 0)
      result += line{"clock"}.number(unit.clock_seen).end();
    for (const auto& [number, slot] : unit.slots) {
      result += line_of(number, slot);
      if (slot.failed_starts != 0)
        result +=
            line{"unready"}.number(number).number(slot.failed_starts).end();
    }
  }
  for (const auto& [key, process] : x.processes)
    result += line{"process"}
                  .text(key)
                  .number(process.life)
                  .number(process.pid)
                  .number(process.started)
                  .end();
  return result;
}

std::string head_of(std::string_view body) {
  const auto crc =
      ::crc32_z(0, reinterpret_cast<const Bytef*>(body.data()), body.size());
  return line{magic}
      .number(state_version)
      .number(body.size())
      .word(hex_of(crc, 8))
      .end();
}

/// Why a head does not fit what stands behind it.
std::string fault_of(std::string_view head, std::size_t body_bytes) {
  scanner from{head};
  if (from.next_line() != magic)
    return "is not a state file";
  const auto version = from.number<std::uint32_t>();
  const auto bytes = from.number<std::size_t>();
  if (from.fault())
    return "is damaged";
  if (version != state_version)
    return "has version " + std::to_string(version)
           + ", this pup reads version " + std::to_string(state_version);
  return body_bytes < bytes ? "is torn: it ends early" : "is damaged";
}

std::optional<os_fault> write_all(int fd, std::string_view text,
                                  const std::string& path) {
  while (!text.empty()) {
    const auto n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return os_fault{"write", path, errno};
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  if (::fsync(fd) != 0)
    return os_fault{"fsync", path, errno};
  return std::nullopt;
}

}  // namespace

std::string with_head(const std::string& body) {
  return head_of(body) + body;
}

std::string encode(const saved_state& x) {
  return with_head(body_of(x));
}

std::variant<saved_state, std::string> decode(std::string_view text) {
  const auto newline = text.find('\n');
  if (newline == std::string_view::npos)
    return text.starts_with(magic) || magic.starts_with(text)
               ? std::string{"is torn: it ends early"}
               : std::string{"is not a state file"};
  const auto head = text.substr(0, newline + 1);
  const auto body = text.substr(newline + 1);
  if (head != head_of(body))
    return fault_of(head, body.size());
  scanner from{body};
  auto result = read_body(from);
  if (from.fault() || body_of(result) != body)
    return std::string{"is damaged"};
  return result;
}

std::string state_path(const std::string& folder) {
  return folder + "/state";
}

std::variant<std::optional<saved_state>, std::string> read_state(
    const std::string& folder) {
  const auto path = state_path(folder);
  const auto read = read_text(path, bounds::state_bytes);
  if (const auto* fault = std::get_if<os_fault>(&read)) {
    if (fault->code == ENOENT)
      return std::optional<saved_state>{};
    return to_string(*fault);
  }
  auto decoded = decode(std::get<std::string>(read));
  if (auto* state = std::get_if<saved_state>(&decoded))
    return std::optional{std::move(*state)};
  return path + ": " + std::get<std::string>(decoded);
}

std::optional<os_fault> write_state(const std::string& folder,
                                    const saved_state& x) {
  const auto path = state_path(folder);
  const auto draft = path + ".new";
  const unique_fd fd{
      ::open(draft.c_str(),
             O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600)};
  if (!fd)
    return os_fault{"open", draft, errno};
  auto fault = write_all(fd.get(), encode(x), draft);
  if (!fault && ::rename(draft.c_str(), path.c_str()) != 0)
    fault = os_fault{"rename", draft, errno};
  if (fault) {
    ::unlink(draft.c_str());  // it may be what fills the disk
    return fault;
  }
  const unique_fd parent{
      ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!parent || ::fsync(parent.get()) != 0)
    return os_fault{"fsync", folder, errno};
  return std::nullopt;
}

}  // namespace pup
