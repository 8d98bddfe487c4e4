# Checks docs/PAINS.md:
#   cmake -DSOURCE=<repository> -P tests/pains.cmake
# Fails with every row that is not as the others, one that is missing or out of
# order, and every test in it that is none. A row is
#   | number | pain | `file`: name of the test |
# and one test may follow another behind a semicolon.
cmake_minimum_required(VERSION 3.25)
include("${CMAKE_CURRENT_LIST_DIR}/named_tests.cmake")

set(pains 20)
set(faults "")
set(next 1)

file(STRINGS "${SOURCE}/docs/PAINS.md" rows REGEX "^\\| *[0-9]")
foreach(row IN LISTS rows)
  if(NOT row MATCHES "^\\| ([0-9]+) \\| [^|]+ \\| (`[a-z_]+`: [^|]+) \\|$")
    string(APPEND faults "docs/PAINS.md: no row as the others: ${row}\n")
    continue()
  endif()
  set(number "${CMAKE_MATCH_1}")
  set(tests "${CMAKE_MATCH_2}")
  if(NOT number EQUAL next)
    string(APPEND faults "docs/PAINS.md: ${number} stands where ${next} should\n")
  endif()
  math(EXPR next "${number} + 1")
  check_named_tests("${tests}" "docs/PAINS.md: ${number}")
endforeach()

math(EXPR count "${next} - 1")
if(NOT count EQUAL pains)
  string(APPEND faults "docs/PAINS.md: ends with ${count}, not ${pains}\n")
endif()
if(faults)
  message(FATAL_ERROR "${faults}")
endif()
message(STATUS "${count} pains, each with its test")
