# cuDNN, for convolutions on GPUs: where QN_CUDNN wants it and version 9 is there, sets QN_HAVE_CUDNN and makes the target
# qn_cudnn. The installed package of a build with cuDNN includes this file to find it again.
set(QN_HAVE_CUDNN OFF)
if(QN_HAVE_CUDA AND NOT QN_CUDNN STREQUAL "OFF")
  find_path(CUDNN_INCLUDE_DIR cudnn_graph.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDAToolkit_LIBRARY_DIR})
  set(qn_cudnn_version "0")
  if(CUDNN_INCLUDE_DIR AND CUDNN_LIBRARY)
    file(STRINGS ${CUDNN_INCLUDE_DIR}/cudnn_version.h qn_cudnn_lines REGEX "^#define CUDNN_(MAJOR|MINOR) ")
    string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" qn_cudnn_version "${qn_cudnn_lines}")
  endif()
  if(qn_cudnn_version VERSION_GREATER_EQUAL 9.0)
    set(QN_HAVE_CUDNN ON)
    qn_wrap(qn_cudnn INCLUDES ${CUDNN_INCLUDE_DIR} LIBRARIES ${CUDNN_LIBRARY})
  endif()
endif()
if(QN_CUDNN STREQUAL "ON" AND NOT QN_HAVE_CUDNN)
  message(FATAL_ERROR "QN_CUDNN=ON needs the CUDA backend and cuDNN 9 (packages libcudnn9-cuda-13, libcudnn9-dev-cuda-13 "
                      "of NVIDIA's repository, or those of your CUDA version). Name another place with "
                      "-DCUDNN_INCLUDE_DIR=... -DCUDNN_LIBRARY=...; QN_CUDNN=OFF builds without.")
endif()
