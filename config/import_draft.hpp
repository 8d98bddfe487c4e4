// A configuration in the making, for the readers of other managers' files.
//
// Hidden here: how JSON is laid out, and which ids pup accepts. Used by
// config/import*.cpp only.
#pragma once

#include "pup/config/import.hpp"
#include "pup/config/json_out.hpp"
#include "pup/config/json_text.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pup::importing {

using members = json_members;

struct draft_process {
  std::string id;      ///< as wished; finish() makes it one of pup's
  std::string origin;  ///< "apps[0]"
  members keys;        ///< without id
  bool is_cluster = false;
  /// Wished ports: see draft::finish().
  std::uint32_t instances = 1;
  bool one_per_processor = false;  ///< in place of instances
  std::uint32_t common_port = 0;
  bool needs_ports = false;

  void set(std::string key, std::string json);

  /// It is ready when it has lived so long; 0: at once. An earlier end counts
  /// for startLimit.
  void ready_after(std::int64_t ms);
};

class draft {
public:
  std::string kind;  ///< "PM2", for the first comment
  std::string name;
  members top;  ///< further keys of the file, in front of the processes
  std::vector<draft_process> processes;
  std::vector<import_note> notes;

  void note(std::string subject, std::string text) {
    notes.push_back({std::move(subject), std::move(text)});
  }

  /// A note that holds for several processes: it is told once, with all that
  /// it is about.
  void common_note(const std::string& subject, const std::string& text);

  /// Notes that `key` of the other manager has no counterpart.
  void no_counterpart(const std::string& origin, std::string_view key);

  /// Gives valid ids and free ports, and writes it all down.
  imported finish(const std::string& file) &&;

private:
  struct common {
    std::string text;
    std::vector<std::string> subjects;
  };

  void choose_ids();
  void choose_ports();
  void tell_common();

  std::vector<common> common_;
};

/// Splits as Python's shlex does, which expands nothing: quotes and
/// backslashes. Empty: a quote is not closed.
std::optional<std::vector<std::string>> split_words(std::string_view text);

/// Words that keep their meaning when %{...} is replaced in them.
std::vector<std::string> escaped(std::vector<std::string> words);

std::string_view trimmed(std::string_view text);
std::optional<std::int64_t> whole_number(std::string_view text);
/// Whether a shell could name a variable so.
bool is_variable(std::string_view name);
/// Seconds from milliseconds: 1600 -> "1.6".
std::string seconds_of(std::int64_t ms);
/// One word for a POSIX shell, in quotes where it needs them.
std::string shell_word(std::string_view text);
/// The stop signal as pup names it; empty: pup knows none of this name.
std::string stop_signal_of(std::string_view name);

std::variant<imported, import_fault> import_pm2(
    const json_value& root, const std::string& file,
    const import_surroundings& around);
/// The list that `pm2 save` writes, as the text of an ecosystem file.
bool is_pm2_dump(const json_value& root);
std::string ecosystem_of_dump(const json_value& root, draft& into);
std::variant<imported, import_fault> import_pup(const json_value& root,
                                                const std::string& file);
std::variant<imported, import_fault> import_supervisord(
    std::string_view text, const std::string& file,
    const import_surroundings& around);
std::variant<imported, import_fault> import_procfile(std::string_view text,
                                                     const std::string& file);

}  // namespace pup::importing
