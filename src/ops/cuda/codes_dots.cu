// Products with matrices of blocks of any length and any number of centroids, each code's centroid times the input; and
// transposed products.
#include "ops/cuda/codes.cuh"
#include "ops/cuda/reduce.cuh"

namespace qn::cuda {
namespace {

constexpr int kWarps = kThreads / 32, kRows = 4 * 32;
constexpr int kChunk = 2 * kWarps;                  // block columns at a time
constexpr int64_t kMostShared = int64_t{32} << 10;  // of centroids: more would cost more to bring than they are used

bool centroids_fit(const CodeMatrix& w, int planes) { return w.levels * planes * 16 <= kMostShared; }

// Every warp has all rows of the tile, and every eighth block column.
template <int kN, typename Word, bool kShared>
__global__ void __launch_bounds__(kThreads, 2) dots_kernel(CodeProduct p) {
  const int planes = planes_of(p.w), width = kChunk * planes * 4;
  auto* xs = dynamic_shared<float>();  // [token, column of the chunk, 4 planes]; sums take its place at last
  auto* staged = reinterpret_cast<float4*>(xs + max(kN * width, kWarps * kN * kRows));
  if constexpr (kShared) stage_centroids(staged, p.w, 0, planes);
  const Centroids<kShared> centroids(p.w, staged);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const FourRows<Word> rows(p.w, static_cast<int64_t>(blockIdx.x) * kRows + 4 * lane);
  const int begin = static_cast<int>(blockIdx.y) * p.part_blocks, end = min(begin + p.part_blocks, p.blocks);
  const int block = static_cast<int>(p.w.block);

  float sums[4][kN] = {};
  for (int first = begin; first < end; first += kChunk) {
    Word codes[2];
    rows.load(codes, [=](int u) {  // inputs are zeros where there is no column
      return static_cast<unsigned>(min(first + warp + u * kWarps, end - 1));
    });
    stage_inputs<kN>(xs, width, p.x, static_cast<int64_t>(blockIdx.z) * kN, [=](int i) {
      const int j = first + i / (4 * planes), t = i % (4 * planes);
      return j < end && t < block ? j * block + t : -1;
    });
    __syncthreads();
#pragma unroll
    for (int u = 0; u < 2; ++u)
      for (int plane = 0; plane < planes; ++plane) {
        float4 c[4];
#pragma unroll
        for (int v = 0; v < 4; ++v) c[v] = centroids.at(FourRows<Word>::code(codes[u], v), plane);
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          const auto x = *reinterpret_cast<const float4*>(xs + n * width + ((warp + u * kWarps) * planes + plane) * 4);
#pragma unroll
          for (int v = 0; v < 4; ++v) sums[v][n] += c[v].x * x.x + c[v].y * x.y + c[v].z * x.z + c[v].w * x.w;
        }
      }
    __syncthreads();
  }

#pragma unroll
  for (int n = 0; n < kN; ++n)
#pragma unroll
    for (int v = 0; v < 4; ++v) xs[(warp * kN + n) * kRows + 4 * lane + v] = sums[v][n];
  __syncthreads();
  finish_rows<kN, kRows>(p, [=](int i) {
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < kWarps; ++k) sum += xs[k * kN * kRows + i];
    return sum;
  });
}

// A block of threads has four columns of a block column, and all rows by turns.
template <int kN, typename Word, bool kShared>
__global__ void __launch_bounds__(kThreads, 2) transposed_kernel(CodeProduct p) {
  auto* staged = dynamic_shared<float4>();
  __shared__ float all[kWarps][kN * 4];
  const int planes = planes_of(p.w), plane = static_cast<int>(blockIdx.x) % planes;
  const int j = static_cast<int>(blockIdx.x) / planes;
  const int64_t token = static_cast<int64_t>(blockIdx.z) * kN;
  if constexpr (kShared) stage_centroids(staged, p.w, plane, 1);
  const Centroids<kShared> centroids(p.w, staged);
  __syncthreads();

  float sums[kN][4] = {};
  for (int64_t row = 4 * static_cast<int64_t>(threadIdx.x); row < p.w.rows; row += 4 * kThreads) {
    const FourRows<Word> rows(p.w, row);
    const int valid = static_cast<int>(p.w.rows - row < 4 ? p.w.rows - row : 4);
    Word codes[1];
    rows.load(codes, [=](int) { return static_cast<unsigned>(j); });
    float4 c[4];
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      const float scale = v < valid ? row_scale(p.w, row + v) : 0.0f;
      c[v] = centroids.at(FourRows<Word>::code(codes[0], v), kShared ? 0 : plane);
      c[v] = {c[v].x * scale, c[v].y * scale, c[v].z * scale, c[v].w * scale};
    }
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      float x[4];
      four_elements(x, p.x, (token + n) * p.x.ld + row, token + n < p.x.rows ? valid : 0);
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        sums[n][0] += x[v] * c[v].x;
        sums[n][1] += x[v] * c[v].y;
        sums[n][2] += x[v] * c[v].z;
        sums[n][3] += x[v] * c[v].w;
      }
    }
  }

#pragma unroll
  for (int n = 0; n < kN; ++n)
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const float sum = warp_reduce(sums[n][t], Sum{});
      if (threadIdx.x % 32 == 0) all[threadIdx.x / 32][n * 4 + t] = sum;
    }
  __syncthreads();
  const int i = static_cast<int>(threadIdx.x), t = plane * 4 + i % 4;
  if (i >= kN * 4 || t >= p.w.block || token + i / 4 >= p.y.rows) return;
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < kWarps; ++k) sum += all[k][i];
  set_element(p.y, (token + i / 4) * p.y.ld + p.column + j * p.w.block + t, sum);
}

/// f(Word{}, std::bool_constant<whether `planes` planes of the centroids are to be in shared memory>).
template <typename F>
void with_codes(const CodeMatrix& w, int planes, F&& f) {
  if (!centroids_fit(w, planes)) return f(uint64_t{}, std::false_type{});
  w.bits <= 8 ? f(uint32_t{}, std::true_type{}) : f(uint64_t{}, std::true_type{});
}

}  // namespace

void product_by_dots(const CodeMatmulArgs& args) {
  const ScratchScope scope(Context::current().scratch());
  CodeProduct p = product_of(args);
  const int planes = planes_of(p.w);
  with_group(p.x.rows, [&](auto group) {
    constexpr int kN = decltype(group)::value;
    const int64_t floats = std::max(kN * kChunk * planes * 4, kWarps * kN * kRows);
    const dim3 grid = share_out(p, ceil_div(p.w.rows, kRows), ceil_div(p.x.rows, kN), kN * kRows, kChunk);
    with_codes(p.w, planes, [&](auto word, auto shared) {
      constexpr bool kShared = decltype(shared)::value;
      const int64_t bytes = floats * 4 + (kShared ? p.w.levels * planes * 16 : 0);
      launch_shared(dots_kernel<kN, decltype(word), kShared>, grid, kThreads, static_cast<size_t>(bytes), p);
    });
  });
}

void transposed_by_dots(const CodeMatmulArgs& args) {
  const CodeProduct p = product_of(args);
  with_group(p.x.rows, [&](auto group) {
    constexpr int kN = decltype(group)::value;
    const dim3 grid{static_cast<unsigned>(p.blocks * planes_of(p.w)), 1, ceil_div(p.x.rows, kN)};
    with_codes(p.w, 1, [&](auto word, auto shared) {
      constexpr bool kShared = decltype(shared)::value;
      launch_shared(transposed_kernel<kN, decltype(word), kShared>, grid, kThreads,
                    kShared ? static_cast<size_t>(p.w.levels * 16) : 0, p);
    });
  });
}

}  // namespace qn::cuda
