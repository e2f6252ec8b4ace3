# Compiler flags live on one interface target; every library, program and test goes through the functions below. It is
# not part of the installed package: programs that build on the libraries choose their own flags.
add_library(qn_flags INTERFACE)
set(qn_warnings -Wall -Wextra -Wshadow -Werror)
set(qn_cxx_flags ${qn_warnings})
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  list(APPEND qn_cxx_flags -Wno-restrict -Wno-maybe-uninitialized)  # false alarms on std::string (GCC bugs 105651, 105562)
endif()
# Contraction into fused multiply-adds and vectorised reductions are wanted; NaN and infinity checks must keep working.
list(APPEND qn_cxx_flags -fno-math-errno -fno-trapping-math)
if(QN_MARCH)
  list(APPEND qn_cxx_flags -march=${QN_MARCH} -mprefer-vector-width=512)
endif()
list(JOIN qn_warnings "," qn_warnings_of_host_code)
target_compile_options(qn_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:${qn_cxx_flags}>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${qn_warnings_of_host_code}>")
# nvcc does not get along with the compile-time checks of {fmt}; the C++ files that share its headers keep them.
target_compile_definitions(qn_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CUDA>:FMT_USE_CONSTEXPR=1;FMT_CONSTEVAL=;FMT_USE_CONSTEVAL=0>")
target_include_directories(qn_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_link_libraries(qn_flags INTERFACE qn_usage)

# What every program that uses the headers has to share.
add_library(qn_usage INTERFACE)
target_compile_features(qn_usage INTERFACE cxx_std_20)
if(QN_SANITIZE)
  target_compile_options(qn_usage INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${QN_SANITIZE};-fno-sanitize-recover=all;-fno-omit-frame-pointer>")
  target_link_options(qn_usage INTERFACE -fsanitize=${QN_SANITIZE})
endif()

# Optimising takes most of the compiler's time. Code that never runs in loops (tasks, reports, the command line,
# tests) gains nothing from the last of it.
set(qn_quick_options "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O1>")

# Reading headers takes most of the rest: a few files of a target are compiled as one, unless QN_UNITY is off. What is in
# their unnamed namespaces needs names of its own, therefore.
function(qn_join_sources target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${QN_UNITY} UNITY_BUILD_BATCH_SIZE 6)
endfunction()

# qn_library(NAME SOURCES a.cpp ... [DEPS lib ...] [PRIVATE_DEPS lib ...] [QUICK] [SEPARATE]): the library qn_NAME of
# folder src/NAME. SEPARATE: files that are compiled for different instruction sets are never joined.
function(qn_library name)
  cmake_parse_arguments(ARG "QUICK;SEPARATE" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(qn_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(qn_${name} PUBLIC $<BUILD_INTERFACE:qn_flags> qn_usage ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
  if(ARG_QUICK)
    target_compile_options(qn_${name} PRIVATE ${qn_quick_options})
  endif()
  if(NOT ARG_SEPARATE)
    qn_join_sources(qn_${name})
  endif()
endfunction()

# qn_test_objects(NAME SOURCES a_test.cpp ... DEPS lib ...): tests, compiled once for several programs.
function(qn_test_objects name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} OBJECT ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE qn_test_support ${ARG_DEPS})
  target_compile_options(${name} PRIVATE ${qn_quick_options})
endfunction()

# qn_test(NAME [SOURCES a_test.cpp ...] DEPS lib ... [RANKS 1 2 4] [LABELS l] [TIMEOUT s]): a GoogleTest program.
# With RANKS it is also run under mpirun, once per listed number of ranks above 1.
function(qn_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;RANKS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE qn_test_support ${ARG_DEPS})
  target_compile_options(${name} PRIVATE ${qn_quick_options})
  if(NOT ARG_RANKS)
    set(ARG_RANKS 1)
  endif()
  set(threads 2)
  if(QN_SANITIZE MATCHES "thread")  # it knows nothing of how the distribution's libgomp synchronises its threads
    set(threads 1)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 3")
  endif()
  foreach(ranks IN LISTS ARG_RANKS)
    if(ranks EQUAL 1)
      add_test(NAME ${name} COMMAND ${name})
      set(test ${name})
    else()
      set(test ${name}_np${ranks})
      add_test(NAME ${test} COMMAND ${CMAKE_SOURCE_DIR}/launch/run -n ${ranks} $<TARGET_FILE:${name}>)
    endif()
    set_tests_properties(${test} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
      ENVIRONMENT "OMP_NUM_THREADS=${threads};OMP_WAIT_POLICY=passive;QN_BINARY=${CMAKE_BINARY_DIR}/bin/quantnoise")
    set_tests_properties(${test} PROPERTIES SKIP_REGULAR_EXPRESSION "QN_ALL_TESTS_SKIPPED")
  endforeach()
endfunction()
