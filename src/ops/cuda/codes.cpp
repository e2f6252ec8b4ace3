// Products with matrices of codes: which way a product goes, and the one by decoded tiles.
#include "ops/cuda/codes.h"

#include <algorithm>
#include <cmath>

#include "ops/code_product.h"
#include "ops/cuda/backend.h"
#include "ops/cuda/context.h"
#include "ops/cuda/cuda_kernels.h"

namespace qn::cuda {
namespace {

constexpr int64_t kFewTokens = 1024;
constexpr int64_t kLongestBlock = 64;              // of dots: inputs of a chunk lie in shared memory
constexpr int64_t kTileBytes = int64_t{16} << 20;  // decoded; stays in the second-level cache
constexpr int64_t kTables = 256;                   // centroids that there are threads for

/// By parts of the decoded matrix: rows, or columns where sums run over rows, so that no result is added to.
void product_by_tiles(const CodeMatmulArgs& a) {
  const ScratchScope scope(Context::current().scratch());
  const CodeMatrix& w = a.weight;
  const auto size = static_cast<int64_t>(size_of(a.x.dtype));
  const int64_t whole = a.transposed ? w.cols : w.rows, step = a.transposed ? std::max<int64_t>(w.block, 1) * 8 : 64;
  const int64_t fits = kTileBytes / ((a.transposed ? w.rows : w.cols) * size);
  const int64_t together = std::min(whole, std::max<int64_t>(fits / step, 1) * step);
  void* tile =
      Context::current().scratch().allocate(static_cast<size_t>(together * (a.transposed ? w.rows : w.cols) * size));
  auto* y = static_cast<std::byte*>(a.y.data) + a.column * size;
  for (int64_t first = 0; first < whole; first += together) {
    const int64_t count = std::min(together, whole - first);
    const CodePart part = a.transposed ? CodePart{0, w.rows, first, count} : CodePart{first, count, 0, w.cols};
    decode_part(tile, a.x.dtype, w, part);
    matmul({.dtype = a.x.dtype,
            .dtype_c = a.y.dtype,
            .transpose_b = !a.transposed,
            .m = a.x.rows(),
            .n = count,
            .k = a.x.cols(),
            .a = a.x.data,
            .lda = a.x.cols(),
            .b = tile,
            .ldb = part.cols,
            .c = y + first * size,
            .ldc = a.y.cols()});
  }
}

/// What a way costs per 32 codes, in clocks of one of an H100's 132 multiprocessors: counted from instructions (four
/// warps' per clock), banks of shared memory that random look-ups of a warp meet in (3.5 times for 4 bytes; for 16
/// bytes 2.6 in each quarter), and bytes that the second-level cache moves (24 per clock); nothing is measured.
double cost_of(CodesPath path, const CodeMatrix& w, int64_t tokens, DType dtype) {
  const int64_t together = std::min(tokens, kMostTokens);
  const auto groups = static_cast<double>((tokens + kMostTokens - 1) / kMostTokens);
  const double n = together > 4 ? 8.0 : together > 2 ? 4.0 : static_cast<double>(together);
  const auto d = static_cast<double>(std::max<int64_t>(w.block, 1));
  switch (path) {
    case CodesPath::tables: {
      const double lookups = n == 1.0 ? 3.5 : n == 2.0 ? 6.2 : 2.6 * n;
      return groups * (lookups + 80.0 * n * d / static_cast<double>(rows_of_tables(w, tokens)));
    }
    case CodesPath::dots:
      if (w.block == 0) return groups * std::max(2.2, 0.75 + 0.3 * n);
      return groups * 2.6 * 4.0 * std::ceil(d / 4.0);
    case CodesPath::tiles: {
      // A tile is written and read; two launches in place of one are as long as some 4000 clocks of all.
      const double bytes = 2.0 * 32.0 * d * static_cast<double>(size_of(dtype)) / 24.0,
                   lookups = w.block > 0 ? 1.3 * d : 1.0;
      return bytes + lookups + 4000.0 * 132.0 * 32.0 / static_cast<double>(w.rows * w.blocks());
    }
  }
  return 0.0;
}

}  // namespace

bool serves(CodesPath path, const CodeMatrix& w, DType dtype, bool transposed) {
  if (path == CodesPath::tiles) return true;
  if (dtype == DType::f64) return false;
  if (path == CodesPath::tables) return !transposed && has_tables(w) && w.levels <= kTables;
  return w.block == 0 ? !transposed : w.block <= kLongestBlock;
}

CodesPath path_of(const CodeMatrix& w, int64_t tokens, DType dtype, bool transposed) {
  CodesPath best = CodesPath::tiles;
  if (tokens > kFewTokens) return best;  // whatever launches cost
  for (const CodesPath path : {CodesPath::tables, CodesPath::dots})
    if (serves(path, w, dtype, transposed) && cost_of(path, w, tokens, dtype) < cost_of(best, w, tokens, dtype))
      best = path;
  return best;
}

void matmul_codes_by(CodesPath path, const CodeMatmulArgs& a) {
  QN_ASSERT(serves(path, a.weight, a.x.dtype, a.transposed));
  if (path == CodesPath::tiles) return product_by_tiles(a);
  if (path == CodesPath::tables) return product_by_tables(a);
  if (a.weight.block == 0) return product_of_grid(a);
  a.transposed ? transposed_by_dots(a) : product_by_dots(a);
}

void matmul_codes(const CodeMatmulArgs& a) {
  assert_shapes(a);
  if (a.x.rows() == 0) return;
  matmul_codes_by(path_of(a.weight, a.x.rows(), a.x.dtype, a.transposed), a);
}

}  // namespace qn::cuda

namespace qn {

std::string cuda_codes_path(const CodeMatrix& weight, int64_t tokens, DType dtype) {
  return name_of(cuda::path_of(weight, tokens, dtype, false));
}

}  // namespace qn
