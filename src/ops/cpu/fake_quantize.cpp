// Fake quantization, and the ranges it is fitted to.
#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/philox_lanes.h"
#include "ops/cpu/value_range.h"
#include "ops/uniform_grid.h"

namespace qn::cpu {
namespace {

constexpr int64_t kGroup = 128;  // blocks that share one group of keep bits

/// The grids of a matrix: one, or one per row.
template <typename P>
class RowGrids {
 public:
  RowGrids(const Tensor& scale, const Tensor& zero_point, int bits, const Tensor& x)
      : scale_(scale.as<P>()),
        zero_point_(zero_point.as<P>()),
        last_(static_cast<P>(last_code(bits))),
        per_row_(scale.elements() > 1),
        cols_(x.cols()) {
    QN_ASSERT(scale.elements() == zero_point.elements() && (!per_row_ || scale.elements() == x.rows()),
              "{} scales and {} zero points for {} rows", scale.elements(), zero_point.elements(), x.rows());
  }

  /// f(grid, begin, end) for the parts of elements [begin, end) that share a grid.
  template <typename F>
  void for_parts(int64_t begin, int64_t end, F&& f) const {
    if (!per_row_) return f(grid(0), begin, end);
    for (int64_t row = begin / cols_; begin < end; ++row) {
      const int64_t next = std::min(end, (row + 1) * cols_);
      f(grid(row), begin, next);
      begin = next;
    }
  }

 private:
  UniformGrid<P> grid(int64_t row) const { return {scale_[row], zero_point_[row], last_}; }

  const P *scale_, *zero_point_;
  P last_;
  bool per_row_;
  int64_t cols_;
};

/// y[i] = f(grid, x[i]) for elements [begin, end)
template <typename Y, typename X, typename P, typename F>
void map_parts(Y* y, const X* x, const RowGrids<P>& grids, int64_t begin, int64_t end, const F& f) {
  grids.for_parts(begin, end, [&](UniformGrid<P> grid, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) y[i] = static_cast<Y>(f(grid, static_cast<P>(x[i])));
  });
}

constexpr auto kQuantized = [](const auto& grid, auto v) { return grid.quantized(v); };
constexpr auto kClamped = [](const auto& grid, auto v) { return grid.clamped(v); };

/// A group of single elements: both values are computed, and the bit says which one is taken.
template <typename Y, typename X, typename P>
void mix_elements(Y* y, const X* x, const RowGrids<P>& grids, int64_t begin, int64_t end, const uint64_t* bits) {
  using Lane = std::conditional_t<sizeof(P) == 8, uint64_t, uint32_t>;  // as wide as the values it selects
  Lane clean[kGroup];
  const auto* words = reinterpret_cast<const uint32_t*>(bits);  // little-endian halves of the 64-bit words
  for (int64_t w = 0; w < kGroup / 32; ++w)
    for (uint32_t j = 0; j < 32; ++j) clean[w * 32 + j] = (words[w] >> j) & 1U;
  grids.for_parts(begin, end, [&](UniformGrid<P> grid, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const P v = static_cast<P>(x[i]), clamped = grid.clamped(v), quantized = grid.quantized(v);
      y[i] = static_cast<Y>(clean[i - begin] != 0 ? clamped : quantized);
    }
  });
}

template <typename Y, typename X, typename P>
void mix_blocks(Y* y, const X* x, const RowGrids<P>& grids, int64_t begin, int64_t end, int64_t block,
                const uint64_t* bits) {
  for (int64_t b = 0; begin + b * block < end; ++b) {
    const int64_t first = begin + b * block;
    if (((bits[b / 64] >> (b % 64)) & 1U) != 0)
      map_parts(y, x, grids, first, first + block, kClamped);
    else
      map_parts(y, x, grids, first, first + block, kQuantized);
  }
}

}  // namespace

void fake_quantize(const Tensor& y, const Tensor& x, const Tensor& scale, const Tensor& zero_point, int bits, double p,
                   int64_t block, const RandomKey& key) {
  QN_ASSERT(x.cols() % block == 0, "{} columns do not divide into blocks of {}", x.cols(), block);
  dispatch_pair(y.dtype, x.dtype, [&](auto y_tag, auto x_tag) {
    using Y = decltype(y_tag);
    using X = decltype(x_tag);
    using P = ParameterOf<Y>;
    const RowGrids<P> grids(scale, zero_point, bits, x);
    Y* out = y.as<Y>();
    const X* in = x.as<X>();
    const int64_t n = x.elements();
    if (p >= 1.0) return parallel_chunks(n, [&](int64_t b, int64_t e) { map_parts(out, in, grids, b, e, kQuantized); });
    if (p <= 0.0) return parallel_chunks(n, [&](int64_t b, int64_t e) { map_parts(out, in, grids, b, e, kClamped); });
    const RandomStream stream(key);
    const uint32_t threshold = drop_threshold(p);
    const int64_t group_size = kGroup * block, groups = (n + group_size - 1) / group_size;
#pragma omp parallel for schedule(static) if (groups > 8)
    for (int64_t g = 0; g < groups; ++g) {
      uint64_t keep[2];
      keep_bits_group(keep, g, threshold, stream);
      const int64_t begin = g * group_size, end = std::min(n, begin + group_size);
      if (block == 1)
        mix_elements(out, in, grids, begin, end, keep);
      else
        mix_blocks(out, in, grids, begin, end, block, keep);
    }
  });
}

void fake_quantize_grad(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& scale,
                        const Tensor& zero_point, int bits, int beta) {
  dispatch_pair(dx.dtype, x.dtype, [&](auto dx_tag, auto x_tag) {
    using D = decltype(dx_tag);
    using X = decltype(x_tag);
    using P = ParameterOf<D>;
    const RowGrids<P> grids(scale, zero_point, bits, x);
    D* out = dx.as<D>();
    const D* g = dy.as<D>();
    const X* in = x.as<X>();
    parallel_chunks(x.elements(), [&](int64_t begin, int64_t end) {
      grids.for_parts(begin, end, [&](UniformGrid<P> grid, int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          const P passed = grid.covers(static_cast<P>(in[i])) ? static_cast<P>(g[i]) : P{0};
          out[i] = static_cast<D>(beta != 0 ? static_cast<P>(out[i]) + passed : passed);
        }
      });
    });
  });
}

void value_range(const Tensor& range, const Tensor& x, bool combine) {
  dispatch_pair(range.dtype, x.dtype, [&](auto range_tag, auto x_tag) {
    using P = decltype(range_tag);
    using X = decltype(x_tag);
    if constexpr (std::is_same_v<P, ParameterOf<P>>) {
      const int64_t ranges = range.rows(), n = x.elements() / ranges;
      QN_ASSERT(range.cols() == 2 && (ranges == 1 || ranges == x.rows()), "{} ranges for {} rows", ranges, x.rows());
      P* out = range.as<P>();
      const X* in = x.as<X>();
      const auto put = [&](int64_t r, ValueRange<P> found) {
        if (combine) found.include({out[2 * r], out[2 * r + 1]});
        out[2 * r] = found.low + P{0};  // +0 for -0: which of them comes first depends on the threads
        out[2 * r + 1] = found.high + P{0};
      };
      if (ranges > 1) return parallel_rows(ranges, n, [&](int64_t r) { put(r, range_of(in + r * n, n)); });
      ValueRange<P> whole;
      parallel_chunks(n, [&](int64_t begin, int64_t end) {
        const ValueRange<P> part = range_of(in + begin, end - begin);
#pragma omp critical(qn_value_range)
        whole.include(part);
      });
      put(0, whole);
    } else {
      QN_ASSERT(false, "a range is kept in the type of parameters, not in {}", name_of(range.dtype));
    }
  });
}

void range_to_grid(const Tensor& scale, const Tensor& zero_point, const Tensor& range, int bits, bool symmetric) {
  dispatch_parameter(range.dtype, [&](auto tag) {
    using P = decltype(tag);
    QN_ASSERT(scale.elements() == range.rows() && zero_point.elements() == range.rows());
    const P* bounds = range.as<P>();
    for (int64_t r = 0; r < range.rows(); ++r) {
      const UniformGrid<P> grid = grid_of_range(bounds[2 * r], bounds[2 * r + 1], bits, symmetric);
      scale.as<P>()[r] = grid.scale;
      zero_point.as<P>()[r] = grid.zero_point;
    }
  });
}

}  // namespace qn::cpu
