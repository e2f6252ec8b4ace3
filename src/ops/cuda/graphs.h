// CUDA graphs of a thread's stream, as GraphSupport of the Kernels table.
#pragma once

#include "ops/kernels.h"

namespace qn::cuda {

const GraphSupport& graph_support();

}  // namespace qn::cuda
