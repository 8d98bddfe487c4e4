// What a program says when the machine has run out of something and nobody
// expected it there: the last net, below what find_shortage() and each call
// take care of.
#pragma once

#include <exception>

namespace pup {

/// Against an error of a system call for want of something, what to do about
/// it, as the end of a sentence: "; raise ulimit -n …". Empty: the error is of
/// another kind. Static text.
const char* remedy_of(int error) noexcept;

/// ENOMEM for std::bad_alloc, the code of a std::system_error; else 0.
int error_of(const std::exception& x) noexcept;

/// From now on an exception that nobody catches, on any thread, is one line on
/// standard error. For want of memory, threads or descriptors the exit code is
/// 1 then; what else there is aborts as before. Writing it takes no memory.
void prepare_last_words() noexcept;

}  // namespace pup
