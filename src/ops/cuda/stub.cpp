// Stands in for the backend in programs built without CUDA.
#include "ops/cuda/backend.h"

namespace qn {

int cuda_device_count() { return 0; }

std::string cuda_problem() {
  return "this program was built without CUDA: configure with -DQN_CUDA=ON where the CUDA toolkit (12.4 or newer) is "
         "installed, or compute on the CPU";
}

void select_cuda_device(int) { fail("{}", cuda_problem()); }
void* cuda_stream() { fail("{}", cuda_problem()); }
void allow_tf32(bool) {}
void cuda_copy(void*, const void*, size_t) { fail("{}", cuda_problem()); }
double cuda_fma_gflops() { fail("{}", cuda_problem()); }
DeviceMemory cuda_memory_use() { fail("{}", cuda_problem()); }
std::string cuda_codes_path(const CodeMatrix&, int64_t, DType) { fail("{}", cuda_problem()); }
const Kernels& cuda_kernels() { fail("{}", cuda_problem()); }

}  // namespace qn
