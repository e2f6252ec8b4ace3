// Fake quantization, and the ranges it is fitted to.
#include <limits>

#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/types.cuh"
#include "ops/uniform_grid.h"

namespace qn::cuda {
namespace {

/// The grids of a matrix: one, or one per row.
template <typename P>
struct RowGrids {
  const P *scale, *zero_point;
  P last;
  bool per_row;

  __device__ UniformGrid<P> of_row(int64_t row) const {
    const int64_t i = per_row ? row : 0;
    return {scale[i], zero_point[i], last};
  }
};

template <typename P>
RowGrids<P> grids_of(const Tensor& scale, const Tensor& zero_point, int bits, const Tensor& x) {
  const bool per_row = scale.elements() > 1;
  QN_ASSERT(scale.elements() == zero_point.elements() && (!per_row || scale.elements() == x.rows()),
            "{} scales and {} zero points for {} rows", scale.elements(), zero_point.elements(), x.rows());
  return {data_of<P>(scale), data_of<P>(zero_point), static_cast<P>(last_code(bits)), per_row};
}

/// Clean are the blocks whose bit is set; without bits, all or none.
struct CleanBlocks {
  const uint32_t* bits;
  int64_t block;
  bool otherwise;

  __device__ bool contain(int64_t i) const {
    if (bits == nullptr) return otherwise;
    const int64_t b = i / block;
    return ((bits[b / 32] >> (b % 32)) & 1U) != 0;
  }
};

template <typename Y, typename X, typename P>
__global__ void fake_quantize_kernel(Y* y, const X* x, RowGrids<P> grids, CleanBlocks clean, int64_t rows,
                                     int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const int64_t i = r * cols + c;
    const UniformGrid<P> grid = grids.of_row(r);
    const P v = static_cast<P>(x[i]);
    y[i] = static_cast<Y>(clean.contain(i) ? grid.clamped(v) : grid.quantized(v));
  }
}

// dx may be dy.
template <typename D, typename X, typename P>
__global__ void fake_quantize_grad_kernel(D* dx, const D* dy, const X* x, RowGrids<P> grids, int beta, int64_t rows,
                                          int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const int64_t i = r * cols + c;
    const P passed = grids.of_row(r).covers(static_cast<P>(x[i])) ? static_cast<P>(dy[i]) : P{0};
    dx[i] = static_cast<D>(beta != 0 ? static_cast<P>(dx[i]) + passed : passed);
  }
}

/// Of two bounds the farther one; NaN wins.
struct Lower {
  template <typename P>
  __device__ P operator()(P a, P b) const {
    return b < a || b != b ? b : a;
  }
};
struct Higher {
  template <typename P>
  __device__ P operator()(P a, P b) const {
    return b > a || b != b ? b : a;
  }
};

/// bounds[b] = smallest and largest value of part b % parts of range b / parts, whose n elements are adjacent.
template <typename X, typename P>
__global__ void partial_range_kernel(P* bounds, const X* x, int64_t n, int64_t parts, P infinity) {
  const int64_t part = blockIdx.x % parts, first = blockIdx.x / parts * n;
  const int64_t begin = n * part / parts, end = n * (part + 1) / parts;
  P low = infinity, high = -infinity;
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
    const P v = static_cast<P>(x[first + i]);
    low = Lower{}(low, v);
    high = Higher{}(high, v);
  }
  low = block_reduce(low, Lower{});
  high = block_reduce(high, Higher{});
  if (threadIdx.x != 0) return;
  bounds[2 * blockIdx.x] = low;
  bounds[2 * blockIdx.x + 1] = high;
}

template <typename P>
__global__ void join_ranges_kernel(P* range, const P* bounds, int64_t ranges, int64_t parts, bool combine) {
  for (int64_t r = thread_index(); r < ranges; r += thread_count()) {
    const P* mine = bounds + 2 * r * parts;
    P low = mine[0], high = mine[1];
    for (int64_t part = 1; part < parts; ++part) {
      low = Lower{}(low, mine[2 * part]);
      high = Higher{}(high, mine[2 * part + 1]);
    }
    if (combine) {
      low = Lower{}(low, range[2 * r]);
      high = Higher{}(high, range[2 * r + 1]);
    }
    range[2 * r] = low + P{0};  // +0 for -0, as on the CPU
    range[2 * r + 1] = high + P{0};
  }
}

template <typename P>
__global__ void range_to_grid_kernel(P* scale, P* zero_point, const P* range, int64_t count, int bits, bool symmetric) {
  for (int64_t r = thread_index(); r < count; r += thread_count()) {
    const UniformGrid<P> grid = grid_of_range(range[2 * r], range[2 * r + 1], bits, symmetric);
    scale[r] = grid.scale;
    zero_point[r] = grid.zero_point;
  }
}

}  // namespace

void fake_quantize(const Tensor& y, const Tensor& x, const Tensor& scale, const Tensor& zero_point, int bits, double p,
                   int64_t block, const RandomKey& key) {
  QN_ASSERT(x.cols() % block == 0, "{} columns do not divide into blocks of {}", x.cols(), block);
  Context& context = Context::current();
  const ScratchScope scope(context.scratch());
  CleanBlocks clean{nullptr, block, p <= 0.0};
  if (p > 0.0 && p < 1.0) {
    const int64_t blocks = x.elements() / block;
    auto* keep =
        static_cast<uint64_t*>(context.scratch().allocate(static_cast<size_t>(keep_words(blocks)) * sizeof(uint64_t)));
    keep_bits(keep, blocks, p, key);
    clean.bits = reinterpret_cast<const uint32_t*>(keep);
  }
  dispatch_pair(y.dtype, x.dtype, [&](auto tag_y, auto tag_x) {
    using Y = decltype(tag_y);
    using X = decltype(tag_x);
    using P = ParameterOf<Y>;
    launch(fake_quantize_kernel<Y, X, P>, matrix_grid(x.rows(), x.cols()), kThreads, data_of<Y>(y), data_of<X>(x),
           grids_of<P>(scale, zero_point, bits, x), clean, x.rows(), x.cols());
  });
}

void fake_quantize_grad(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& scale,
                        const Tensor& zero_point, int bits, int beta) {
  dispatch_pair(dx.dtype, x.dtype, [&](auto tag_d, auto tag_x) {
    using D = decltype(tag_d);
    using X = decltype(tag_x);
    using P = ParameterOf<D>;
    launch(fake_quantize_grad_kernel<D, X, P>, matrix_grid(x.rows(), x.cols()), kThreads, data_of<D>(dx),
           data_of<D>(dy), data_of<X>(x), grids_of<P>(scale, zero_point, bits, x), beta, x.rows(), x.cols());
  });
}

void value_range(const Tensor& range, const Tensor& x, bool combine) {
  Context& context = Context::current();
  const ScratchScope scope(context.scratch());
  const int64_t ranges = range.rows(), n = x.elements() / ranges;
  QN_ASSERT(range.cols() == 2 && (ranges == 1 || ranges == x.rows()), "{} ranges for {} rows", ranges, x.rows());
  constexpr int64_t kPartSize = 8 * kThreads, kMaxParts = 512;
  const int64_t parts = ranges > 1 ? 1 : std::clamp<int64_t>(n / kPartSize, 1, kMaxParts);
  dispatch_pair(range.dtype, x.dtype, [&](auto tag_p, auto tag_x) {
    using P = decltype(tag_p);
    using X = decltype(tag_x);
    if constexpr (std::is_same_v<P, ParameterOf<P>>) {
      auto* bounds = static_cast<P*>(context.scratch().allocate(static_cast<size_t>(2 * ranges * parts) * sizeof(P)));
      launch(partial_range_kernel<X, P>, dim3(static_cast<unsigned>(ranges * parts)), kThreads, bounds, data_of<X>(x),
             n, parts, std::numeric_limits<P>::infinity());
      launch(join_ranges_kernel<P>, flat_grid(ranges), kThreads, data_of<P>(range), bounds, ranges, parts, combine);
    } else {
      QN_ASSERT(false, "a range is kept in the type of parameters, not in {}", name_of(range.dtype));
    }
  });
}

void range_to_grid(const Tensor& scale, const Tensor& zero_point, const Tensor& range, int bits, bool symmetric) {
  QN_ASSERT(scale.elements() == range.rows() && zero_point.elements() == range.rows());
  dispatch_parameter(range.dtype, [&](auto tag) {
    using P = decltype(tag);
    launch(range_to_grid_kernel<P>, flat_grid(range.rows()), kThreads, data_of<P>(scale), data_of<P>(zero_point),
           data_of<P>(range), range.rows(), bits, symmetric);
  });
}

}  // namespace qn::cuda
