# For the checks of tables in docs/ that name tests, as
#   `file`: name of the test; `file`: name of another
#
# check_named_tests(TESTS WHERE): adds a line that begins with WHERE to `faults`
# for each of them that is not in tests/ of SOURCE.
function(check_named_tests tests where)
  # Semicolons separate CMake's lists as well.
  foreach(test IN LISTS tests)
    if(NOT test MATCHES "^ ?`([a-z_]+)`: (.+)$")
      string(APPEND faults "${where}: no test as the others: ${test}\n")
      continue()
    endif()
    set(file "${SOURCE}/tests/${CMAKE_MATCH_1}.cpp")
    set(name "${CMAKE_MATCH_2}")
    if(NOT EXISTS "${file}")
      string(APPEND faults "${where}: no file tests/${CMAKE_MATCH_1}.cpp\n")
      continue()
    endif()
    file(READ "${file}" text)
    string(FIND "${text}" "\"${name}\"" place)
    if(place EQUAL -1)
      string(APPEND faults "${where}: ${CMAKE_MATCH_1} has no test \"${name}\"\n")
    endif()
  endforeach()
  set(faults "${faults}" PARENT_SCOPE)
endfunction()
