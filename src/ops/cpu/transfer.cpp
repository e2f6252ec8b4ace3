// Copies between the host's memory and the backend's, which are the same here.
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "ops/cpu/cpu_kernels.h"

namespace qn::cpu {
namespace {

/// [begin, end) of piece i; pieces begin at multiples of a page.
std::pair<size_t, size_t> share_of(size_t bytes, int i, int pieces) {
  constexpr size_t kPage = 4096;
  const size_t share = (bytes / static_cast<size_t>(pieces) + kPage) / kPage * kPage;
  const size_t begin = std::min(bytes, static_cast<size_t>(i) * share);
  return {begin, std::min(bytes, begin + share)};
}

}  // namespace

void upload(void* to, const void* from_host, size_t bytes) { download(to, from_host, bytes); }

/// One piece for each thread: long copies bypass the caches.
void download(void* to_host, const void* from, size_t bytes) {
  constexpr size_t kWorthThreads = size_t{1} << 20;
  auto* to = static_cast<std::byte*>(to_host);
  const auto* source = static_cast<const std::byte*>(from);
  const int pieces = bytes < kWorthThreads ? 1 : omp_get_max_threads();
#pragma omp parallel for schedule(static) if (pieces > 1)
  for (int i = 0; i < pieces; ++i) {
    const auto [begin, end] = share_of(bytes, i, pieces);
    if (end > begin) std::memcpy(to + begin, source + begin, end - begin);
  }
}

// Everything is done when it returns.
void start_download(void* to, const void* from, size_t bytes) { download(to, from, bytes); }
int64_t mark() { return 0; }
void wait(int64_t) {}

}  // namespace qn::cpu
