#include "ops/cuda/context.h"
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/graphs.h"
#include "ops/cuda/pinned_memory.h"

namespace qn::cuda {

void upload(void* to, const void* from_host, size_t bytes) { Context::current().upload(to, from_host, bytes); }
void download(void* to_host, const void* from, size_t bytes) { Context::current().download(to_host, from, bytes); }
void start_download(void* to, const void* from, size_t bytes) { Context::current().start_download(to, from, bytes); }
int64_t mark() { return Context::current().mark(); }
void wait(int64_t mark) { Context::current().wait(mark); }

const Kernels& table() {
#define QN_ENTRY(name) .name = name,
  static const Kernels kernels{.backend = "cuda",
                               .memory = &device_memory(),
                               .transfer = &pinned_memory(),
                               .graphs = &graph_support(),
                               .from_codes = true,
                               QN_EACH_KERNEL(QN_ENTRY)};
#undef QN_ENTRY
  return kernels;
}

}  // namespace qn::cuda
