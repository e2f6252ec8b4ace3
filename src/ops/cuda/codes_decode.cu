// Rows and parts of matrices of codes, decoded.
#include "ops/cuda/codes.cuh"
#include "ops/cuda/cuda_kernels.h"
#include "ops/uniform_grid.h"

namespace qn::cuda {
namespace {

__device__ inline unsigned code_at(const CodeMatrix& m, int64_t i) {
  return static_cast<unsigned>(bits_from(m.codes, static_cast<uint64_t>(i) * static_cast<unsigned>(m.bits))) &
         ((1U << m.bits) - 1);
}

template <typename P>
__device__ UniformGrid<P> grid_of(const CodeMatrix& m, int64_t row) {
  const int64_t i = m.grid_per_row ? row : 0;
  return {static_cast<P>(m.scales[i]), static_cast<P>(m.zero_points[i]), static_cast<P>(last_code(m.bits))};
}

template <typename P>
__device__ P scale_of(const CodeMatrix& m, int64_t row) {
  return static_cast<P>(row_scale(m, row));
}

/// to[0 .. block) = factor * (scale * centroid), in packs of N.
template <int N, typename P, typename T>
__device__ void put_block(T* to, const CodeMatrix& m, unsigned code, P scale, P factor) {
  const float* from = m.centroids + static_cast<int64_t>(code) * m.block;
  for (int t = 0; t < m.block; t += N) {
    P v[N];
    load_pack(v, from + t);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = factor * (scale * v[i]);
    store_pack(to + t, v);
  }
}

constexpr int kTileRows = 64, kTileBlocks = kThreads / (kTileRows / 4);

// Codes run down a block column, results along a row: codes change places in shared memory.
template <int N, typename T>
__global__ void decode_blocks_kernel(T* to, CodeMatrix m, CodePart part) {
  using P = ParameterOf<T>;
  __shared__ uint16_t codes[kTileBlocks][kTileRows];
  const int64_t row0 = part.row + static_cast<int64_t>(blockIdx.x) * kTileRows, rows_end = part.row + part.rows;
  const int64_t j0 = part.column / m.block + static_cast<int64_t>(blockIdx.y) * kTileBlocks;
  const int64_t j_end = (part.column + part.cols) / m.block;
  const int place = static_cast<int>(threadIdx.x) % (kTileRows / 4) * 4,
            own = static_cast<int>(threadIdx.x) * 4 / kTileRows;
  uint64_t four[1];
  const int64_t from = j0 + own < j_end ? j0 + own : j_end - 1;
  FourRows<uint64_t>(m, row0 + place).load(four, [=](int) { return static_cast<unsigned>(from); });
#pragma unroll
  for (int v = 0; v < 4; ++v) codes[own][place + v] = static_cast<uint16_t>(FourRows<uint64_t>::code(four[0], v));
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kTileRows * kTileBlocks; i += kThreads) {
    const int r = i / kTileBlocks, j = i % kTileBlocks;
    if (row0 + r >= rows_end || j0 + j >= j_end) continue;
    put_block<N>(to + (row0 + r - part.row) * part.cols + (j0 + j) * m.block - part.column, m, codes[j][r],
                 scale_of<P>(m, row0 + r), P{1});
  }
}

template <typename T>
__global__ void decode_grid_kernel(T* to, CodeMatrix m, CodePart part) {
  using P = ParameterOf<T>;
  const int64_t c = thread_index();
  if (c >= part.cols) return;
  for (int64_t r = blockIdx.y; r < part.rows; r += gridDim.y)
    to[r * part.cols + c] = static_cast<T>(
        grid_of<P>(m, part.row + r).level(static_cast<P>(code_at(m, (part.row + r) * m.cols + part.column + c))));
}

// A thread per block of a row of results.
template <int N, typename T>
__global__ void lookup_blocks_kernel(T* y, CodeMatrix m, const int32_t* ids, ParameterOf<T> factor, int64_t rows,
                                     int64_t blocks) {
  using P = ParameterOf<T>;
  const int64_t j = thread_index();
  if (j >= blocks) return;
  for (int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    T* to = y + i * m.cols + j * m.block;
    const int64_t id = ids[i];
    if (id >= 0)
      put_block<N>(to, m, code_at(m, j * m.rows + id), scale_of<P>(m, id), factor);
    else
      for (int64_t t = 0; t < m.block; ++t) to[t] = static_cast<T>(P{0});
  }
}

template <typename T>
__global__ void lookup_grid_kernel(T* y, CodeMatrix m, const int32_t* ids, ParameterOf<T> factor, int64_t rows) {
  using P = ParameterOf<T>;
  const int64_t c = thread_index();
  if (c >= m.cols) return;
  for (int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    const int64_t id = ids[i];
    const P value = id < 0 ? P{0} : factor * grid_of<P>(m, id).level(static_cast<P>(code_at(m, id * m.cols + c)));
    y[i * m.cols + c] = static_cast<T>(value);
  }
}

}  // namespace

void decode_part(void* data, DType dtype, const CodeMatrix& m, const CodePart& part) {
  check_alignment(m);
  QN_ASSERT(part.row % 4 == 0, "row {}", part.row);
  dispatch_float(dtype, [&](auto tag) {
    using T = decltype(tag);
    auto* to = static_cast<T*>(data);
    if (m.block == 0) return launch(decode_grid_kernel<T>, matrix_grid(part.rows, part.cols), kThreads, to, m, part);
    const int64_t blocks = part.cols / m.block;
    dispatch_pack<kPackOf<T>>({m.block}, {data, m.centroids}, [&](auto pack) {
      launch(decode_blocks_kernel<decltype(pack)::value, T>,
             dim3(ceil_div(part.rows, kTileRows), ceil_div(blocks, kTileBlocks)), kThreads, to, m, part);
    });
  });
}

void decode_codes(const Tensor& w, const CodeMatrix& codes) {
  QN_ASSERT(w.rows() == codes.rows && w.cols() == codes.cols);
  decode_part(w.data, w.dtype, codes, {0, codes.rows, 0, codes.cols});
}

void lookup_codes(const Tensor& y, const CodeMatrix& table, const int32_t* ids, double scale) {
  QN_ASSERT(y.cols() == table.cols);
  check_alignment(table);
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto factor = static_cast<ParameterOf<T>>(scale);
    const dim3 grid = matrix_grid(y.rows(), table.blocks());
    if (table.block == 0)
      return launch(lookup_grid_kernel<T>, grid, kThreads, data_of<T>(y), table, ids, factor, y.rows());
    dispatch_pack<kPackOf<T>>({table.block}, {y.data, table.centroids}, [&](auto pack) {
      launch(lookup_blocks_kernel<decltype(pack)::value, T>, grid, kThreads, data_of<T>(y), table, ids, factor,
             y.rows(), table.blocks());
    });
  });
}

}  // namespace qn::cuda
