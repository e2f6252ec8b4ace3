// Products with matrices of blocks by tables. A block of threads takes some rows and 8 block columns at a time: each
// thread has one centroid in registers and multiplies it by the inputs of the 8 columns, for all tokens of the group;
// then threads look up the codes of their rows and add. Random look-ups of 4 bytes by a warp meet in a bank about 3.5
// times, which bounds this; centroids themselves would be eight times as much to read.
#include "ops/cuda/codes.cuh"

namespace qn::cuda {
namespace {

constexpr int kChunk = 8;          // block columns at a time
constexpr int kLevels = kThreads;  // a centroid per thread

/// kN floats that are loaded and stored together.
template <int kN>
struct alignas(kN >= 4 ? 16 : 4 * kN) Entry {
  float of[kN];
};

/// Floats of shared memory: the chunk's tables, which sums take the place of at last, and its inputs.
template <int kD, int kN>
constexpr int kTableFloats = kChunk* kLevels* kN + kChunk* kD* kN;

/// kGroups groups of threads share the columns of a chunk: four times kThreads / kGroups rows, and sums of their own.
template <int kD, int kN, int kGroups>
__global__ void __launch_bounds__(kThreads, kN == 8   ? 2
                                            : kN == 4 ? 3
                                                      : 4) tables_kernel(CodeProduct p) {
  constexpr int kGroup = kThreads / kGroups, kRows = 4 * kGroup;
  auto* tables = dynamic_shared<Entry<kN>>();
  float* xs = reinterpret_cast<float*>(tables + kChunk * kLevels);
  const unsigned thread = threadIdx.x, group = kGroups == 1 ? 0 : thread / kGroup, place = thread % kGroup;
  const FourRows<uint32_t> rows(p.w, static_cast<int64_t>(blockIdx.x) * kRows + 4 * place);
  const int begin = static_cast<int>(blockIdx.y) * p.part_blocks, end = min(begin + p.part_blocks, p.blocks);

  float centroid[kD] = {};
  if (thread < p.w.levels) load_pack(centroid, p.w.centroids + thread * kD);
  float sums[4][kN] = {};
  for (int first = begin; first < end; first += kChunk) {
    uint32_t codes[kChunk / kGroups];
    rows.load(codes, [=](int u) {  // what there is no column for finds zeros
      return static_cast<unsigned>(min(first + u * kGroups + static_cast<int>(group), end - 1));
    });
    stage_inputs<kN, kChunk * kD>(xs, kChunk * kD, p.x, static_cast<int64_t>(blockIdx.z) * kN,
                                  [=](int i) { return first * kD + i < end * kD ? first * kD + i : -1; });
    __syncthreads();
#pragma unroll(kN > 2 ? 1 : 4)
    for (int j = 0; j < kChunk; ++j) {
      Entry<kN> entry{};
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        float x[kD];
        load_pack(x, xs + (n * kChunk + j) * kD);
#pragma unroll
        for (int t = 0; t < kD; ++t) entry.of[n] += centroid[t] * x[t];
      }
      tables[j * kLevels + thread] = entry;
    }
    __syncthreads();
#pragma unroll
    for (int u = 0; u < kChunk / kGroups; ++u) {
      const Entry<kN>* table = tables + (u * kGroups + group) * kLevels;
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        const Entry<kN> entry = table[FourRows<uint32_t>::code(codes[u], v)];
#pragma unroll
        for (int n = 0; n < kN; ++n) sums[v][n] += entry.of[n];
      }
    }
  }

  __syncthreads();                               // tables are not needed any more
  auto* all = reinterpret_cast<float*>(tables);  // [group, token, row]
#pragma unroll
  for (int n = 0; n < kN; ++n)
#pragma unroll
    for (int v = 0; v < 4; ++v) all[(group * kN + n) * kRows + 4 * place + v] = sums[v][n];
  __syncthreads();
  finish_rows<kN, kRows>(p, [=](int i) {
    float sum = all[i];
#pragma unroll
    for (int g = 1; g < kGroups; ++g) sum += all[g * kN * kRows + i];
    return sum;
  });
}

template <int kD, int kN, int kGroups>
void product(CodeProduct& p) {
  constexpr int kRows = 4 * kThreads / kGroups;
  const dim3 grid = share_out(p, ceil_div(p.w.rows, kRows), ceil_div(p.x.rows, kN), kN * kRows, kChunk);
  launch_shared(tables_kernel<kD, kN, kGroups>, grid, kThreads, kTableFloats<kD, kN> * sizeof(float), p);
}

template <int kD>
void product_with_blocks(CodeProduct& p) {
  with_group(p.x.rows, [&](auto group) {
    constexpr int kN = decltype(group)::value;
    rows_of_tables(p.w, p.x.rows) == 4 * kThreads ? product<kD, kN, 1>(p) : product<kD, kN, 4>(p);
  });
}

}  // namespace

int64_t rows_of_tables(const CodeMatrix& w, int64_t tokens) {
  constexpr int64_t kMany = 4 * kThreads, kFew = kThreads, kBusy = 128;  // blocks of threads
  const int64_t tiles = (w.rows + kMany - 1) / kMany, chunks = (w.blocks() + kChunk - 1) / kChunk;
  const int64_t groups = (tokens + kMostTokens - 1) / kMostTokens;
  return tiles * groups * std::min<int64_t>(chunks, 16) >= kBusy ? kMany : kFew;
}

void product_by_tables(const CodeMatmulArgs& args) {
  QN_ASSERT(has_tables(args.weight) && args.weight.levels <= kLevels);
  const ScratchScope scope(Context::current().scratch());
  CodeProduct p = product_of(args);
  if (p.w.block == 4) return product_with_blocks<4>(p);
  p.w.block == 8 ? product_with_blocks<8>(p) : product_with_blocks<16>(p);
}

}  // namespace qn::cuda
