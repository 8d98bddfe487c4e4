// The machine as config/load.hpp asks about it.
#pragma once

#include "pup/config/load.hpp"

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <sys/types.h>

namespace pup {

/// Answers for this process: its environment, file system and processors.
world real_world();

/// Reads and loads a configuration file. The text of a fault names the file as
/// given. Relative paths inside it start at its folder as that is written, so
/// that a link in it is followed anew at each start; so does a process without
/// `cwd`. Root loads no file that somebody else may write, or that links of
/// somebody else lead to, but the user who called sudo: it says what root is to
/// run.
load_result load_file(const std::string& path);
/// What stands in a configuration file.
struct config_text {
  std::string text;
  /// Why root's supervisor does not run it: whose it is. Empty: it does.
  std::vector<diagnostic> objections{};
  /// It came through a pipe (/dev/stdin): there is no such file later.
  bool piped = false;
};

/// Reads it, once. Through links as load_file(); a pipe until its end.
std::variant<config_text, std::vector<diagnostic>> examine_config(
    const std::string& path);
/// The two halves of load_file(): the text, and what it says when it stands
/// there.
std::variant<std::string, std::vector<diagnostic>> read_config(
    const std::string& path);
load_result load_text(const std::string& text, const std::string& path);
/// Told what load() is about to ask the machine for: a path, an account.
using asked_function = std::function<void(const std::string& what)>;
/// Files of variables as they have been read: their texts, by path.
using variable_files = std::map<std::string, std::string>;
/// `shown` is the file's name in faults, `folder` where it stands: absolute.
/// `files`: gets the files of variables that are read; may be null.
load_result load_text(const std::string& text, const std::string& shown,
                      const std::string& folder,
                      const asked_function& asked = {},
                      variable_files* files = nullptr);
/// The same for a text that has been run already: folders and programs may be
/// missing by now, which is for the starts of its processes to tell. The files
/// of variables are those of `files`, where there are any; what has become of
/// one that cannot be read any more is added to `remarks`.
load_result load_known_text(const std::string& text, const std::string& path,
                            const variable_files& files,
                            std::vector<std::string>& remarks);

/// Such files in one text, and back; of another text nothing.
std::string text_of(const variable_files& files);
variable_files variable_files_of(const std::string& text);

/// Whom root trusts besides itself: the user who called sudo means files of
/// their own. 0: there is none.
uid_t caller_of_root();

/// Absolute path of an existing file with links resolved; empty when there is
/// none.
std::string canonical(const std::string& path);

/// Absolute path of a file with the links left as they are written.
std::string as_written(const std::string& path);

/// The working folder by the name under which the shell has entered it (PWD),
/// where that leads here; else with links resolved.
std::string working_folder();

}  // namespace pup
