// A table of kernels with a stopwatch around each.
#pragma once

#include "core/profiler.h"
#include "ops/kernels.h"

namespace qn {

/// `inner` with every call reported to `profiler`, whose ops get named after the entries. One table per process,
/// because kernels are plain functions that cannot carry what they wrap: a later call redirects it. `inner` must
/// outlive its use.
const Kernels& profiled_kernels(const Kernels& inner, Profiler& profiler);

}  // namespace qn
