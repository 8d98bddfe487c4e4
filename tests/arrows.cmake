# Checks the include arrows of docs/ARCHITECTURE.md:
#   cmake -DSOURCE=<repository> -P tests/arrows.cmake
# Fails with every include that goes against them.
cmake_minimum_required(VERSION 3.25)

set(faults "")

# refuse(<glob> <regex of what may not be included> <reason> [EXCEPT files...])
function(refuse pattern forbidden reason)
  cmake_parse_arguments(arg "" "" "EXCEPT" ${ARGN})
  file(GLOB files RELATIVE "${SOURCE}" "${SOURCE}/${pattern}")
  foreach(file IN LISTS files)
    if(file IN_LIST arg_EXCEPT)
      continue()
    endif()
    file(STRINGS "${SOURCE}/${file}" includes
      REGEX "^[ \t]*#[ \t]*include[ \t]*[<\"]${forbidden}")
    foreach(line IN LISTS includes)
      string(APPEND faults "${file}: ${line}\n    ${reason}\n")
    endforeach()
  endforeach()
  set(faults "${faults}" PARENT_SCOPE)
endfunction()

set(posix "(sys/|linux/|netinet/|arpa/|net/|unistd\\.h|fcntl\\.h|signal\\.h|poll\\.h|sched\\.h|dirent\\.h|pwd\\.h|grp\\.h|netdb\\.h|csignal)")

# config: values and text only.
foreach(ending hpp cpp)
  refuse("config/*.${ending}" "pup/(actors|runtime)/"
    "config includes nothing of actors or runtime")
  refuse("config/*.${ending}" "(caf/|boost/asio)" "config knows no CAF, no Asio")
  refuse("config/*.${ending}" "${posix}" "config knows no POSIX")
  refuse("config/*.${ending}" "(chrono_clock|ctime)" "config knows no clock")

  # actors: deciders; the world is a port.
  refuse("actors/*.${ending}" "pup/runtime/" "actors include nothing of runtime")
  refuse("actors/*.${ending}" "(boost/|caf/io|${posix})"
    "actors know CAF's core and the standard library only")
endforeach()
refuse("config/*.hpp" "boost/" "Boost.JSON stays inside config's sources")
file(GLOB cluster RELATIVE "${SOURCE}" "${SOURCE}/actors/cluster*.cpp")
foreach(room actors runtime tests)
  refuse("${room}/*.*" "pup/actors/cluster_state\\.hpp"
    "the state of a cluster is for its own sources" EXCEPT ${cluster})
endforeach()
refuse("actors/supervision.*" "(caf/|pup/actors/(caf|protocol))"
  "supervision is pure")

# runtime: who may see CAF, and who may see its network layer.
foreach(name fd process children log log_* ports usage picker engine engine_*
    proxy proxy_* place machine pattern watcher out_of_memory zone manual completion text_file service
    service_manager readiness listening reuseport inherit probe sock_diag
    descendants guard_protocol guardian guardian_link guarded wards spawner
    own_processes proc_file socket_keeper
    identity status_door state_file journal survivors
    trusted_path config_file former_name folder_watch environment memory_meter
    memory_watch membership pid_file accounts cgroup carriers upgrade pidfd)
  foreach(ending hpp cpp)
    refuse("runtime/${name}.${ending}" "(caf/|pup/actors/)"
      "this part of runtime never sees CAF")
  endforeach()
endforeach()
foreach(name descendants guard_protocol guardian membership out_of_memory
    proc_file wards)
  refuse("runtime/${name}.*" "(boost/|fstream|iostream|sstream)"
    "the guardian is small")
endforeach()
refuse("runtime/*.*" "caf/io" "only ipc sees caf/io"
  EXCEPT runtime/ipc.cpp)
refuse("runtime/picker.*" "(boost/|chrono|mutex|atomic|${posix})"
  "the picker has no clock, no lock, no loop" EXCEPT)

# tests and examples use headers, never sources.
refuse("tests/*.*" "[^>\"]*\\.cpp" "tests include no .cpp")

if(faults)
  message(FATAL_ERROR "includes against the arrows:\n${faults}")
endif()
message(STATUS "the include arrows hold")
