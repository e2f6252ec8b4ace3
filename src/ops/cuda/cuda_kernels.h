// The CUDA backend's kernels, one function per entry of the Kernels table; see ops/kernels.h for what each does.
#pragma once

#include "ops/kernel_list.h"

namespace qn::cuda {

QN_EACH_KERNEL(QN_DECLARE_KERNEL)

/// Whether the program has code for the thread's device.
bool has_code_for_device();

const Kernels& table();

}  // namespace qn::cuda
