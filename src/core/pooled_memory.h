// Memory of the host for many pieces that live equally long.
#pragma once

#include "core/memory.h"

namespace qn {

/// Pieces lie side by side in huge pages, where the system has them: what goes through many pieces of less than such a
/// page, strided, would else wait for addresses of small pages. Memory is given back when a whole run of pieces is
/// released, so this is for weights and not for what comes and goes. The last page may be filled in part: a process
/// takes up to 2 MiB more than the pieces.
const Memory& pooled_host_memory();

}  // namespace qn
