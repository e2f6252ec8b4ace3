#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/philox_lanes.h"
#include "ops/cpu/pq_kernels.h"

namespace qn::cpu {

void block_noise(const Tensor& y, const Tensor& w, int64_t block, double p, const RandomKey& key) {
  const RandomStream stream(key);
  const uint32_t threshold = drop_threshold(p);
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t blocks = w.elements() / block, groups = (blocks + 127) / 128;
    const P* in = w.as<P>();
    T* out = y.as<T>();
    const P scale = static_cast<P>(1.0 / (1.0 - p));
#pragma omp parallel for schedule(static) if (groups > 8)
    for (int64_t g = 0; g < groups; ++g) {
      uint64_t bits[2];
      keep_bits_group(bits, g, threshold, stream);
      const int64_t first = g * 128, count = std::min<int64_t>(128, blocks - first);
      for (int64_t b = 0; b < count; ++b) {
        const P factor = ((bits[b / 64] >> (b % 64)) & 1U) != 0 ? scale : P{0};
        const P* from = in + (first + b) * block;
        T* to = out + (first + b) * block;
        for (int64_t c = 0; c < block; ++c) to[c] = static_cast<T>(factor * from[c]);
      }
    }
  });
}

void pq_decode(const Tensor& w, const Tensor& centroids, const uint16_t* codes) {
  dispatch_float(w.dtype, [&](auto tag) {
    using T = decltype(tag);
    pq_decode(w.as<T>(), centroids.as<ParameterOf<T>>(), codes, w.rows(), w.cols(), centroids.cols());
  });
}

void pq_centroid_grad(const Tensor& dcentroids, const Tensor& dw, const uint16_t* codes, const int64_t* counts,
                      int beta) {
  dispatch_float(dw.dtype, [&](auto tag) {
    using T = decltype(tag);
    pq_centroid_grad(dcentroids.as<ParameterOf<T>>(), static_cast<float>(beta), dw.as<T>(), codes, dw.rows(), dw.cols(),
                     dcentroids.cols(), dcentroids.rows(), counts);
  });
}

}  // namespace qn::cpu
