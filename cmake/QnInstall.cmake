# `cmake --install`: the program, and the libraries as the CMake package quantnoise (components "program" and
# "library").
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(qn_package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/quantnoise)

install(TARGETS quantnoise RUNTIME COMPONENT program)

# What other programs link: quantnoise::quantnoise.
set(qn_package_libraries qn_core qn_comm qn_ops qn_nn qn_quant qn_compress qn_train)
add_library(qn_package INTERFACE)
target_link_libraries(qn_package INTERFACE ${qn_package_libraries})
set_target_properties(qn_package PROPERTIES EXPORT_NAME quantnoise)
add_custom_target(quantnoise_library DEPENDS ${qn_package_libraries})
install(TARGETS qn_package qn_usage ${qn_package_libraries} EXPORT quantnoiseTargets
  ARCHIVE COMPONENT library INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT quantnoiseTargets NAMESPACE quantnoise:: DESTINATION ${qn_package_folder} COMPONENT library)

install(CODE "
  set(source_dir \"${CMAKE_SOURCE_DIR}\")
  set(staging \"${CMAKE_BINARY_DIR}/installed_headers\")
  set(destination \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_INCLUDEDIR}\")" COMPONENT library)
install(SCRIPT ${CMAKE_CURRENT_LIST_DIR}/install_headers.cmake COMPONENT library)

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/quantnoiseConfig.cmake.in
  ${CMAKE_BINARY_DIR}/quantnoiseConfig.cmake INSTALL_DESTINATION ${qn_package_folder})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/quantnoiseConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/quantnoiseConfig.cmake ${CMAKE_BINARY_DIR}/quantnoiseConfigVersion.cmake
  ${CMAKE_CURRENT_LIST_DIR}/QnDependencies.cmake ${CMAKE_CURRENT_LIST_DIR}/QnNccl.cmake
  ${CMAKE_CURRENT_LIST_DIR}/QnCudnn.cmake
  DESTINATION ${qn_package_folder} COMPONENT library)
