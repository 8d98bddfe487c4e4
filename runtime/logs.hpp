// `pup logs` and `pup monitor`: read the store of a supervisor, whether it runs
// or not.
#pragma once

#include "pup/runtime/cli.hpp"
#include "pup/runtime/why.hpp"

namespace pup {

/// Prints lines to standard output. `monitor` ends with a signal, or when
/// nobody reads its output any more.
exit_code show_logs(const command& what);

/// The last lines that a process of a supervisor has written itself since then
/// (microseconds since 1970), at most `count`, oldest first. Empty: none is
/// stored.
std::vector<output_line> last_output(const std::string& supervisor,
                                     const std::string& id, std::size_t count,
                                     std::uint64_t since_us);

/// Difference from UTC here at that time.
std::chrono::minutes local_offset(std::uint64_t time_us);

}  // namespace pup
