// One door to Catch2: 2.13 on Debian 12, 3 on Debian 13 and Ubuntu 24.04.
#pragma once

#ifdef PUP_CATCH2_V2
#  include <catch2/catch.hpp>
#else
#  include <catch2/catch_all.hpp>
using Catch::Approx;
#endif
