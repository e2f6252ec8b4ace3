// Kernels that move whole rows.
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/sort.h"
#include "ops/cuda/types.cuh"

namespace qn::cuda {
namespace {

template <typename Y, typename X, typename P>
__global__ void gather_kernel(Y* y, const X* table, const int32_t* ids, P scale, int64_t rows, int64_t cols) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kWarpRows + threadIdx.y;
  if (r >= rows) return;
  const X* from = ids[r] < 0 ? nullptr : table + ids[r] * cols;
  for (int64_t c = threadIdx.x; c < cols; c += 32)
    y[r * cols + c] = static_cast<Y>(from == nullptr ? P{0} : scale * static_cast<P>(from[c]));
}

template <typename T, typename P>
__global__ void scatter_kernel(T* y, const T* x, const int32_t* to, P scale, int64_t rows, int64_t cols) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kWarpRows + threadIdx.y;
  if (r >= rows || to[r] < 0) return;
  for (int64_t c = threadIdx.x; c < cols; c += 32)
    y[to[r] * cols + c] = static_cast<T>(scale * static_cast<P>(x[r * cols + c]));
}

// One block per place in the sorted list; those at which a new id begins add up all rows of that id, in the order of i.
template <typename Y, typename X, typename P>
__global__ void scatter_add_kernel(Y* table, const X* x, SortedKeys ids, P scale, int32_t skip_id, int64_t table_rows,
                                   int64_t cols) {
  const int64_t first = blockIdx.x;
  const int32_t id = ids.keys[first];
  if (id == skip_id || id >= table_rows || (first > 0 && ids.keys[first - 1] == id)) return;
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    P sum = static_cast<P>(table[id * cols + c]);
    for (int64_t i = first; i < ids.count && ids.keys[i] == id; ++i)
      sum += scale * static_cast<P>(x[ids.order[i] * cols + c]);
    table[id * cols + c] = static_cast<Y>(sum);
  }
}

}  // namespace

void gather_rows(const Tensor& y, const Tensor& table, const int32_t* ids, double scale) {
  dispatch_pair(y.dtype, table.dtype, [&](auto tag_y, auto tag_x) {
    using Y = decltype(tag_y);
    using X = decltype(tag_x);
    using P = ParameterOf<Y>;
    launch(gather_kernel<Y, X, P>, warp_grid(y.rows()), warp_block(), data_of<Y>(y), data_of<X>(table), ids,
           static_cast<P>(scale), y.rows(), y.cols());
  });
}

void scatter_add_rows(const Tensor& table, const Tensor& x, const int32_t* ids, double scale, int32_t skip_id) {
  const ScratchScope scope(Context::current().scratch());
  const SortedKeys sorted = sort_keys(ids, x.rows(), table.rows());
  dispatch_pair(table.dtype, x.dtype, [&](auto tag_y, auto tag_x) {
    using Y = decltype(tag_y);
    using X = decltype(tag_x);
    using P = ParameterOf<Y>;
    launch(scatter_add_kernel<Y, X, P>, dim3(static_cast<unsigned>(x.rows())), kThreads, data_of<Y>(table),
           data_of<X>(x), sorted, static_cast<P>(scale), skip_id, table.rows(), x.cols());
  });
}

void scatter_rows(const Tensor& y, const Tensor& x, const int32_t* rows, double scale) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    launch(scatter_kernel<T, P>, warp_grid(x.rows()), warp_block(), data_of<T>(y), data_of<T>(x), rows,
           static_cast<P>(scale), x.rows(), x.cols());
  });
}

}  // namespace qn::cuda
