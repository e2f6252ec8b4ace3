// The CPU backend's kernels, one function per entry of the Kernels table; see ops/kernels.h for what each does.
#pragma once

#include "ops/kernel_list.h"

namespace qn::cpu {

QN_EACH_KERNEL(QN_DECLARE_KERNEL)

}  // namespace qn::cpu
