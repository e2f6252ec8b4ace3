// Page-locked host memory: the device copies to and from it at full speed and while the host goes on.
#pragma once

#include "core/memory.h"

namespace qn::cuda {

/// Released blocks are kept for the next request of the same size, since page-locking is slow: snapshots for
/// checkpoints ask for the same sizes again and again. Not zeroed. Safe to use from all threads.
const Memory& pinned_memory();

}  // namespace qn::cuda
