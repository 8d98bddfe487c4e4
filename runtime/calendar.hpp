// The clock on the wall of this machine, and the news that somebody set it.
#pragma once

#include "pup/actors/schedule.hpp"

namespace boost::asio {
class io_context;
}

namespace pup {

/// Zones of this machine; told by the kernel, without a timer, when the clock
/// was set or the machine has slept. The loop outlives every use.
calendar real_calendar(boost::asio::io_context& loop);

}  // namespace pup
