# Every third-party package, found once and wrapped in a target with a project name. All are Debian/Ubuntu packages;
# README says why each is there, launch/setup installs them.
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(MPI REQUIRED COMPONENTS C)
set(HDF5_PREFER_PARALLEL OFF)
find_package(HDF5 REQUIRED COMPONENTS C)
find_package(spdlog REQUIRED)
find_package(fmt REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.h REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)

add_library(qn_dnnl INTERFACE)
target_include_directories(qn_dnnl SYSTEM INTERFACE ${DNNL_INCLUDE_DIR})
target_link_libraries(qn_dnnl INTERFACE ${DNNL_LIBRARY})

add_library(qn_hdf5 INTERFACE)
target_include_directories(qn_hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(qn_hdf5 INTERFACE ${HDF5_C_LIBRARIES})

add_library(qn_yaml INTERFACE)
target_link_libraries(qn_yaml INTERFACE yaml-cpp)
