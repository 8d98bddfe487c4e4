// Telling a process from a later one with the same number.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <sys/types.h>

namespace pup {

/// When a process was started, in clock ticks since the boot (field 22 of
/// /proc/PID/stat). With the boot, pid and start time name one process for
/// ever. Empty: there is none; one that has ended and was not reaped counts.
std::optional<std::uint64_t> start_time_of(pid_t pid);

/// Of the boot that this is: the kernel's random number. Empty when /proc is
/// not there: then nothing is known of an earlier life of the machine.
std::string boot_id();

}  // namespace pup
