// Matrix products of quantized activations and weights on integer tensor cores. Both operands go to cuBLASLt as signed
// bytes, codes less 128; a kernel before the product makes those of the activations, one after it puts the sums on
// their scale.
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/matmul_plans.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/types.cuh"
#include "ops/uniform_grid.h"

namespace qn::cuda {
namespace {

constexpr int kShift = 128;
constexpr int64_t kScratchBytes = int64_t{256} << 20;  // of sums

// One block per row: codes less 128, filled up with zeros, which add nothing, and the row's sum of them.
template <typename Code>
__device__ void store_row(int8_t* to, int32_t* sum, int64_t k, int64_t padded, Code code) {
  int32_t mine = 0;
  for (int64_t l = threadIdx.x; l < padded; l += blockDim.x) {
    const int32_t value = l < k ? code(l) - kShift : 0;
    to[l] = static_cast<int8_t>(value);
    mine += value;
  }
  mine = block_sum(mine);
  if (threadIdx.x == 0) *sum = mine;
}

__global__ void pack_kernel(int8_t* packed, int32_t* sums, const uint8_t* codes, int64_t n, int64_t k, int64_t padded) {
  const int64_t row = blockIdx.x;
  store_row(packed + row * padded, sums + row, row < n ? k : 0, padded,
            [=](int64_t l) { return static_cast<int32_t>(codes[row * k + l]); });
}

template <typename T, typename P>
__global__ void quantize_kernel(int8_t* codes, int32_t* sums, const T* x, ActivationGrid grid, int64_t k,
                                int64_t padded) {
  const int64_t row = blockIdx.x;
  const UniformGrid<P> levels{static_cast<P>(*grid.scale), static_cast<P>(*grid.zero_point),
                              static_cast<P>(last_code(grid.bits))};
  store_row(codes + row * padded, sums + row, k, padded,
            [=](int64_t l) { return levels.index(static_cast<P>(x[row * k + l])); });
}

/// Sums of products of codes less 128, and what turns them into results.
struct Sums {
  const int32_t* products;  ///< [rows, ld]
  int64_t ld;
  const int32_t *rows, *weights;  ///< of the codes of each row of the activations and of the weight
};

template <typename T, typename P>
__global__ void scale_kernel(T* y, int64_t ld, Sums sums, Int8MatmulArgs args, int64_t rows, int64_t k) {
  const int64_t c = thread_index();
  if (c >= args.n) return;
  const int64_t g = args.grid_per_row ? c : 0;
  const double scale = static_cast<double>(*args.grid.scale) * static_cast<double>(args.scales[g]);
  const double zero_w = static_cast<double>(args.zero_points[g]) - kShift;
  const double zero_x = static_cast<double>(*args.grid.zero_point) - kShift;
  const double offset = zero_x * (static_cast<double>(sums.weights[c]) - static_cast<double>(k) * zero_w);
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const double exact =
        static_cast<double>(sums.products[r * sums.ld + c]) - zero_w * static_cast<double>(sums.rows[r]) - offset;
    y[r * ld + c] = static_cast<T>(static_cast<P>(scale * exact));
  }
}

template <typename V>
V* scratch_of(int64_t count) {
  return static_cast<V*>(Context::current().scratch().allocate(static_cast<size_t>(count) * sizeof(V)));
}

/// Rows [first, first + m).
template <typename T>
void multiply_rows(const Int8MatmulArgs& args, int64_t first, int64_t m) {
  using P = ParameterOf<T>;
  const ScratchScope scope(Context::current().scratch());
  const int64_t k = args.x.cols(), depth = padded_int8_columns(k), width = padded_int8_rows(args.n);
  auto* codes = scratch_of<int8_t>(m * depth);
  auto *code_sums = scratch_of<int32_t>(m), *products = scratch_of<int32_t>(m * width);
  launch(quantize_kernel<T, P>, dim3(static_cast<unsigned>(m)), kThreads, codes, code_sums,
         data_of<T>(args.x) + first * k, args.grid, k, depth);
  batched_matmul({.dtype = DType::i8,
                  .dtype_c = DType::i32,
                  .transpose_b = true,
                  .m = m,
                  .n = width,
                  .k = depth,
                  .a = codes,
                  .lda = depth,
                  .b = args.weight,
                  .ldb = depth,
                  .c = products,
                  .ldc = width},
                 {});
  const Sums sums{products, width, code_sums, packed_int8_sums(args.weight, args.n, k)};
  launch(scale_kernel<T, P>, matrix_grid(m, args.n), kThreads, data_of<T>(args.y) + first * args.y.cols() + args.column,
         args.y.cols(), sums, args, m, k);
}

}  // namespace

void pack_int8(void* packed, const Tensor& codes) {
  const int64_t n = codes.rows(), k = codes.cols();
  launch(pack_kernel, dim3(static_cast<unsigned>(padded_int8_rows(n))), kThreads, static_cast<int8_t*>(packed),
         const_cast<int32_t*>(packed_int8_sums(packed, n, k)), data_of<uint8_t>(codes), n, k, padded_int8_columns(k));
}

void matmul_int8(const Int8MatmulArgs& args) {
  if (args.n == 0) return;
  const int64_t m = args.x.rows(), row_bytes = padded_int8_rows(args.n) * static_cast<int64_t>(sizeof(int32_t));
  const int64_t together = std::max<int64_t>(kScratchBytes / row_bytes, 1);
  dispatch_float(args.x.dtype, [&](auto tag) {
    for (int64_t r = 0; r < m; r += together) multiply_rows<decltype(tag)>(args, r, std::min(together, m - r));
  });
}

}  // namespace qn::cuda
