// Copies between the host's memory and the backend's, which are the same here.
#include <cstring>

#include "ops/cpu/cpu_kernels.h"

namespace qn::cpu {

void upload(void* to, const void* from_host, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from_host, bytes);
}

void download(void* to_host, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to_host, from, bytes);
}

}  // namespace qn::cpu
