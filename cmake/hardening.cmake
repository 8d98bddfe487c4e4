# What makes a fault of memory in a released program hard to use: it ends there
# and then, at addresses that nobody can foresee. tests/hardened looks at the
# programs that come of it. Sets PUP_STATIC_PIE.
include(CheckCXXCompilerFlag)
include(CheckCXXSourceCompiles)
include(CheckPIESupported)
check_pie_supported(LANGUAGES CXX)

# A program that the kernel may load anywhere, whatever the compiler's default.
function(pup_position_independent target)
  if(CMAKE_CXX_LINK_PIE_SUPPORTED)
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  endif()
endfunction()

# Sanitizers do the same and more, and do not see through checked functions.
if(PUP_SANITIZE)
  return()
endif()

# Level 3 (g++ 12, glibc 2.35) knows sizes that are only computed as well.
set(CMAKE_REQUIRED_FLAGS "-O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3")
check_cxx_source_compiles("
  #include <cstdlib>
  #if !defined __USE_FORTIFY_LEVEL || __USE_FORTIFY_LEVEL < 3
  #error not known
  #endif
  int main() { return 0; }" PUP_FORTIFY_3)
set(CMAKE_REQUIRED_FLAGS -fPIE)
set(CMAKE_REQUIRED_LINK_OPTIONS -static-pie)
check_cxx_source_compiles("
  #include <string>
  int main(int n, char** v) {
    return static_cast<int>(std::string(v[0]).size()) * n;
  }" PUP_STATIC_PIE)
unset(CMAKE_REQUIRED_LINK_OPTIONS)
unset(CMAKE_REQUIRED_FLAGS)
check_cxx_compiler_flag(-fcf-protection=full PUP_CF_PROTECTION)  # x86 only

# Checked functions need an optimizer; without one glibc only warns.
set(optimized $<CONFIG:Release,RelWithDebInfo,MinSizeRel>)
target_compile_options(pup_options INTERFACE
  -fstack-protector-strong
  $<$<BOOL:${PUP_CF_PROTECTION}>:-fcf-protection=full>
  $<${optimized}:-U_FORTIFY_SOURCE>
  $<${optimized}:-D_FORTIFY_SOURCE=$<IF:$<BOOL:${PUP_FORTIFY_3}>,3,2>>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # An std::optional without a value is taken for one that is not initialized
  # (gcc bug 80635, with -O3).
  target_compile_options(pup_options INTERFACE
    $<${optimized}:-Wno-maybe-uninitialized>)
endif()
target_link_options(pup_options INTERFACE
  LINKER:-z,relro LINKER:-z,now LINKER:-z,noexecstack)
