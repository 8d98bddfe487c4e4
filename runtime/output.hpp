// What a command says: answers on standard output, faults on standard error.
//
// All commands use these, so that an answer that could not be written is a
// fault of every one of them. A reader that has gone (`pup logs | head`) is
// none: it has what it wanted. Main thread only.
#pragma once

#include "pup/config/load.hpp"
#include "pup/runtime/cli.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace pup {

/// Call first. A descriptor of 0 to 2 that is closed is opened on /dev/null, so
/// that no file or socket gets its number; where `answers`, in such a way that
/// writing to it fails, and the end of a reader is no end of ours.
void prepare_output(bool answers);

/// Writes `text` to standard output, however slow the reader, also where that
/// is non-blocking. What comes from somebody else has been made harmless before
/// (plain_text.hpp). False: nothing more needs to be printed, because the
/// reader has gone or because of a fault, which standard error has been told.
bool print(std::string_view text);

/// Whether standard output is a terminal, and NO_COLOR is not set.
bool shows_colours();

/// Waits until standard output has failed, or its reader has gone, or `fd` has
/// something to read. False: the first two.
bool wait_for_input(int fd);

/// One line on standard error, controls in it escaped. Returns `code`.
exit_code complain(const std::string& line, exit_code code = exit_code::failed);

/// A line for each; returns exit_code::usage.
exit_code complain(const std::vector<diagnostic>& faults);

/// The same for several lines, each with its newline; empty: nothing.
void complain_lines(const std::string& lines);

/// What the command ends with: `code`, or `failed` where that would be `done`
/// but an answer was not written.
exit_code after_output(exit_code code);

}  // namespace pup
