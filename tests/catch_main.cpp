// Catch2 2 wants its main compiled once for each program; Catch2 3 links it.
#ifdef PUP_CATCH2_V2
#  define CATCH_CONFIG_MAIN
#  include <catch2/catch.hpp>
#endif
