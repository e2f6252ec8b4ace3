# The CUDA backend, where QN_CUDA wants it and the toolkit is there: enables the language and sets QN_HAVE_CUDA.
set(QN_HAVE_CUDA OFF)
if(NOT QN_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  find_package(CUDAToolkit 12.4)
  if(CMAKE_CUDA_COMPILER AND TARGET CUDA::cublasLt)
    # Code for A100 and H100, and an intermediate form that newer devices compile when a program starts. Each further
    # architecture adds to the compile time of every kernel; CMake's CUDAARCHS in the environment names others.
    set(qn_architectures "80-real;90-real;90-virtual")
    if(DEFINED ENV{CUDAARCHS})
      set(qn_architectures "$ENV{CUDAARCHS}")
    endif()
    set(CMAKE_CUDA_ARCHITECTURES "${qn_architectures}" CACHE STRING "GPUs to compile for (CMake's notation)")
    enable_language(CUDA)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has C++20
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(QN_HAVE_CUDA ON)
  elseif(QN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "QN_CUDA=ON needs nvcc and cuBLASLt of the CUDA toolkit 12.4 or newer. Put nvcc on the PATH or "
                        "name it with -DCMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc; QN_CUDA=OFF builds without GPUs.")
  endif()
endif()
message(STATUS "CUDA backend: ${QN_HAVE_CUDA}")
