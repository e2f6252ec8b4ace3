#include <array>
#include <bit>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/philox_lanes.h"
#include "ops/cpu/pq_kernels.h"

namespace qn::cpu {
namespace {

constexpr int64_t kMostClusters = 65536;  // codes have 16 bits

/// Bits of blocks [first, first + count) of which each has that of its cluster.
void cluster_bits(uint64_t* two_words, const uint64_t* clusters, const uint16_t* codes, int64_t count) {
  two_words[0] = two_words[1] = 0;
  for (int64_t b = 0; b < count; ++b)
    two_words[b / 64] |= ((clusters[codes[b] / 64] >> (codes[b] % 64)) & 1U) << (b % 64);
}

/// Overwrites the blocks of a group whose keep bits are clear.
template <typename T, typename P>
void replace(T* to, const P* values, bool one_value, const uint16_t* codes, const uint64_t* bits, int64_t count,
             int64_t block) {
  for (int64_t word = 0; word < (count + 63) / 64; ++word) {
    const int64_t left = count - word * 64;
    uint64_t dropped = ~bits[word] & (left < 64 ? (uint64_t{1} << left) - 1 : ~uint64_t{0});
    for (; dropped != 0; dropped &= dropped - 1) {
      const int64_t b = word * 64 + std::countr_zero(dropped);
      const P* value = values + (one_value ? 0 : codes[b] * block);
      for (int64_t c = 0; c < block; ++c) to[b * block + c] = static_cast<T>(value[c]);
    }
  }
}

}  // namespace

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

void replace_blocks(const Tensor& y, const Tensor& w, const Tensor& values, const uint16_t* codes, int64_t clusters,
                    double p, double scale, const RandomKey& key) {
  const RandomStream stream(key);
  const uint32_t threshold = drop_threshold(p);
  std::array<uint64_t, kMostClusters / 64> drawn;
  if (clusters > 0 && p < 1.0) keep_bits(drawn.data(), clusters, p, key);
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t block = values.cols(), blocks = w.elements() / block, groups = (blocks + 127) / 128;
    const bool one_value = values.rows() == 1;
    const P* in = w.as<P>();
    const P factor = static_cast<P>(scale);
    T* out = y.as<T>();
#pragma omp parallel for schedule(static) if (groups > 8)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = g * 128, count = std::min<int64_t>(128, blocks - first);
      const uint16_t* mine = codes == nullptr ? nullptr : codes + first;
      uint64_t bits[2] = {0, 0};
      if (p < 1.0 && clusters > 0) cluster_bits(bits, drawn.data(), mine, count);
      if (p < 1.0 && clusters == 0) keep_bits_group(bits, g, threshold, stream);
      const P* from = in + first * block;
      T* to = out + first * block;
      for (int64_t i = 0; i < count * block; ++i) to[i] = static_cast<T>(factor * from[i]);
      replace(to, values.as<P>(), one_value, mine, bits, count, block);
    }
  });
}

void pq_decode(const Tensor& w, const Tensor& centroids, const uint16_t* codes) {
  dispatch_float(w.dtype, [&](auto tag) {
    using T = decltype(tag);
    pq_decode(w.as<T>(), centroids.as<ParameterOf<T>>(), codes, w.rows(), w.cols(), centroids.cols());
  });
}

void scale_rows(const Tensor& y, const Tensor& x, const Tensor& scale, int beta) {
  dispatch_pair(y.dtype, x.dtype, [&](auto tag_y, auto tag_x) {
    using Y = decltype(tag_y);
    using X = decltype(tag_x);
    using P = ParameterOf<Y>;
    const int64_t cols = x.cols();
    const P* scales = scale.as<P>();
    const X* from = x.as<X>();
    Y* to = y.as<Y>();
    parallel_rows(x.rows(), cols, [=](int64_t r) {
      for (int64_t i = r * cols; i < (r + 1) * cols; ++i) {
        const P value = scales[r] * static_cast<P>(from[i]);
        to[i] = static_cast<Y>(beta != 0 ? static_cast<P>(to[i]) + value : value);
      }
    });
  });
}

void row_dots(const Tensor& dots, const Tensor& x, const Tensor& y, int beta) {
  dispatch_pair(x.dtype, y.dtype, [&](auto tag_x, auto tag_y) {
    using X = decltype(tag_x);
    using Y = decltype(tag_y);
    using P = ParameterOf<X>;
    const int64_t cols = x.cols();
    const X* a = x.as<X>();
    const Y* b = y.as<Y>();
    P* to = dots.as<P>();
    parallel_rows(x.rows(), cols, [=](int64_t r) {
      double sum = 0.0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = r * cols; i < (r + 1) * cols; ++i)
        sum += static_cast<double>(static_cast<P>(a[i])) * static_cast<double>(static_cast<P>(b[i]));
      to[r] = (beta != 0 ? to[r] : P{0}) + static_cast<P>(sum);
    });
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
