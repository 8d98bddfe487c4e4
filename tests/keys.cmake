# Checks docs/KEYS.md:
#   cmake -DSOURCE=<repository> -P tests/keys.cmake
# Fails with every key of the configuration that no row tells of, every row of a
# key that the configuration does not know, and every test in it that is none.
#
# The keys are those of the arrays in config/ whose names end in "keys"; a row is
#   | `a.b[].key` | meaning | `file`: name of the test |
# and one test may follow another behind a semicolon.
cmake_minimum_required(VERSION 3.25)
include("${CMAKE_CURRENT_LIST_DIR}/named_tests.cmake")

set(faults "")

# -- what the loader knows ----------------------------------------------------

file(GLOB sources "${SOURCE}/config/*.cpp" "${SOURCE}/config/*.hpp")
list(FILTER sources EXCLUDE REGEX "/(import|later)")
set(known "")
foreach(source IN LISTS sources)
  file(READ "${source}" text)
  string(REPLACE ";" "\;" text "${text}")
  # Named arrays, and those that stand inside the making of one.
  string(REGEX MATCHALL
    "array<std::string_view, [0-9]+>[ \n]*[a-z_]*{[^}]*}" arrays "${text}")
  foreach(array IN LISTS arrays)
    if(NOT array MATCHES "^array<std::string_view, [0-9]+>[ \n]*([a-z_]*keys)?{")
      continue()
    endif()
    string(REGEX MATCHALL "\"[^\"]+\"" words "${array}")
    foreach(word IN LISTS words)
      string(REPLACE "\"" "" word "${word}")
      list(APPEND known "${word}")
    endforeach()
  endforeach()
endforeach()
list(REMOVE_DUPLICATES known)
list(LENGTH known count)
if(count LESS 60)
  message(FATAL_ERROR "only ${count} keys found in config/: has their form changed?")
endif()

# -- what the table tells -----------------------------------------------------

file(STRINGS "${SOURCE}/docs/KEYS.md" rows REGEX "^\\| `")
set(told "")
foreach(row IN LISTS rows)
  if(NOT row MATCHES "^\\| `([^`]+)` \\| [^|]+ \\| (`[a-z_]+`: [^|]+) \\|$")
    string(APPEND faults "docs/KEYS.md: no row as the others: ${row}\n")
    continue()
  endif()
  set(path "${CMAKE_MATCH_1}")
  set(tests "${CMAKE_MATCH_2}")
  string(REGEX REPLACE "^.*[.]" "" key "${path}")
  list(APPEND told "${key}")
  if(NOT key IN_LIST known)
    string(APPEND faults "docs/KEYS.md: `${path}` is no key of the configuration\n")
  endif()
  check_named_tests("${tests}" "docs/KEYS.md: ${path}")
endforeach()

foreach(key IN LISTS known)
  if(NOT key IN_LIST told)
    string(APPEND faults "docs/KEYS.md: a row for `${key}` is missing\n")
  endif()
endforeach()

if(faults)
  message(FATAL_ERROR "${faults}")
endif()
message(STATUS "${count} keys, each with its test")
