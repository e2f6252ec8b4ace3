#include "core/kept_memory.h"
#include "ops/cpu/cpu_kernels.h"

namespace qn {

const Kernels& cpu_kernels() {
#define QN_ENTRY(name) .name = cpu::name,
  static const Kernels table{.backend = "cpu",
                             .memory = &host_memory(),
                             .transfer = &kept_host_memory(),
                             .graphs = nullptr,
                             .from_codes = true,
                             QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
  return table;
}

}  // namespace qn
