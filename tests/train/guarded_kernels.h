// The CPU's kernels on memory that only they may touch: host code that follows a pointer into a tensor crashes, as it
// would with the memory of a device. Shows without a GPU that nothing outside the kernels does.
#pragma once

#include "ops/kernels.h"

namespace qn::test {

/// Not for calls from several threads at a time.
const Kernels& guarded_kernels();

}  // namespace qn::test
