# Run by `cmake --install` with source_dir, staging and destination: installs include/quantnoise, and under detail/ the
# headers of src/ that it reaches. In the sources these include each other from src/ ("core/error.h"); in another
# program such a path may be a file of its own, so the installed copies are included by their full paths.
file(REMOVE_RECURSE ${staging})
set(pattern "#include \"([a-z0-9_/]+\\.h)\"")

# stage(FROM TO): copies a header; the headers of src/ that it includes are left in `included`.
macro(stage from to)
  file(READ ${from} text)
  string(REGEX MATCHALL "${pattern}" included "${text}")
  list(TRANSFORM included REPLACE "${pattern}" "\\1")
  string(REGEX REPLACE "${pattern}" "#include <quantnoise/detail/\\1>" text "${text}")
  file(WRITE ${staging}/quantnoise/${to} "${text}")
endmacro()

file(GLOB headers RELATIVE ${source_dir}/include/quantnoise ${source_dir}/include/quantnoise/*.h)
set(waiting)
foreach(header IN LISTS headers)
  stage(${source_dir}/include/quantnoise/${header} ${header})
  list(APPEND waiting ${included})
endforeach()
while(waiting)
  list(POP_FRONT waiting header)
  if(NOT EXISTS ${staging}/quantnoise/detail/${header})
    stage(${source_dir}/src/${header} detail/${header})
    list(APPEND waiting ${included})
  endif()
endwhile()
file(INSTALL ${staging}/quantnoise DESTINATION ${destination})
