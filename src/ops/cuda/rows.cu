// Kernels that move whole rows.
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/packs.cuh"
#include "ops/cuda/sort.h"

namespace qn::cuda {
namespace {

/// y[0 .. cols) = scale * from[0 .. cols), by a warp; zeros without `from`.
template <int N, typename P, typename Y, typename X>
__device__ void scale_row(Y* y, const X* from, P scale, int64_t cols) {
#pragma unroll 4
  for (int64_t c = threadIdx.x * N; c < cols; c += 32 * N) {
    P v[N] = {};
    if (from != nullptr) load_pack(v, from + c);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] *= scale;
    store_pack(y + c, v);
  }
}

template <int N, typename Y, typename X, typename P>
__global__ void gather_kernel(Y* y, const X* table, const int32_t* ids, P scale, int64_t rows, int64_t cols) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kWarpRows + threadIdx.y;
  if (r >= rows) return;
  const int64_t id = ids[r];
  scale_row<N>(y + r * cols, id < 0 ? nullptr : table + id * cols, scale, cols);
}

template <int N, typename T, typename P>
__global__ void scatter_kernel(T* y, const T* x, const int32_t* to, P scale, int64_t rows, int64_t cols) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kWarpRows + threadIdx.y;
  if (r < rows && to[r] >= 0) scale_row<N>(y + to[r] * cols, x + r * cols, scale, cols);
}

constexpr int kRowsAtATime = 8;  // that are under way while earlier ones are added up
constexpr int kAddThreads = 128;

// Grid (places in the sorted list, parts of the columns); blocks at whose place a new id begins add up all rows of that
// id, in the order of i. A thread has one pack of columns.
template <int N, typename Y, typename X, typename P>
__global__ void scatter_add_kernel(Y* table, const X* x, SortedKeys ids, P scale, int32_t skip_id, int64_t table_rows,
                                   int64_t cols) {
  const int64_t first = blockIdx.x;
  const int32_t id = ids.keys[first];
  if (id == skip_id || id >= table_rows || (first > 0 && ids.keys[first - 1] == id)) return;
  const int64_t c = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * N;
  if (c >= cols) return;
  P sum[N];
  load_pack(sum, table + id * cols + c);
  // Behind the last row of the id others are read, too, and left out: loads must not wait for each other.
  for (int64_t i = first; i < ids.count && ids.keys[i] == id; i += kRowsAtATime) {
    P v[kRowsAtATime][N];
    bool counts[kRowsAtATime];
#pragma unroll
    for (int k = 0; k < kRowsAtATime; ++k) {
      const int64_t at = i + k < ids.count ? i + k : i;
      counts[k] = i + k < ids.count && ids.keys[at] == id;
      load_pack(v[k], x + static_cast<int64_t>(ids.order[at]) * cols + c);
    }
#pragma unroll
    for (int k = 0; k < kRowsAtATime; ++k)
#pragma unroll
      for (int j = 0; j < N; ++j)
        if (counts[k]) sum[j] += scale * v[k][j];
  }
  store_pack(table + id * cols + c, sum);
}

}  // namespace

void gather_rows(const Tensor& y, const Tensor& table, const int32_t* ids, double scale) {
  dispatch_pair(y.dtype, table.dtype, [&](auto tag_y, auto tag_x) {
    using Y = decltype(tag_y);
    using X = decltype(tag_x);
    using P = ParameterOf<Y>;
    constexpr int kPack = std::max(kPackOf<Y>, kPackOf<X>);
    dispatch_pack<kPack>({y.cols()}, {y.data, table.data}, [&](auto pack) {
      launch(gather_kernel<decltype(pack)::value, Y, X, P>, warp_grid(y.rows()), warp_block(), data_of<Y>(y),
             data_of<X>(table), ids, static_cast<P>(scale), y.rows(), y.cols());
    });
  });
}

void scatter_add_rows(const Tensor& table, const Tensor& x, const int32_t* ids, double scale, int32_t skip_id) {
  const ScratchScope scope(Context::current().scratch());
  const SortedKeys sorted = sort_keys(ids, x.rows(), table.rows());
  dispatch_pair(table.dtype, x.dtype, [&](auto tag_y, auto tag_x) {
    using Y = decltype(tag_y);
    using X = decltype(tag_x);
    using P = ParameterOf<Y>;
    constexpr int kPack = std::max(kPackOf<Y>, kPackOf<X>);
    dispatch_pack<kPack>({x.cols()}, {table.data, x.data}, [&](auto pack) {
      constexpr int kN = decltype(pack)::value;
      const unsigned threads = std::clamp(ceil_div(x.cols(), 32 * kN) * 32, 32U, unsigned{kAddThreads});
      launch(scatter_add_kernel<kN, Y, X, P>, dim3(static_cast<unsigned>(x.rows()), ceil_div(x.cols(), threads * kN)),
             threads, data_of<Y>(table), data_of<X>(x), sorted, static_cast<P>(scale), skip_id, table.rows(), x.cols());
    });
  });
}

void scatter_rows(const Tensor& y, const Tensor& x, const int32_t* rows, double scale) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    dispatch_pack<kPackOf<T>>({x.cols()}, {y.data, x.data}, [&](auto pack) {
      launch(scatter_kernel<decltype(pack)::value, T, P>, warp_grid(x.rows()), warp_block(), data_of<T>(y),
             data_of<T>(x), rows, static_cast<P>(scale), x.rows(), x.cols());
    });
  });
}

}  // namespace qn::cuda
