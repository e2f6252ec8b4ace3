// Inner loops of products with matrices of codes (ops/code_matrix.h), one set per instruction set.
#pragma once

#include <cstdint>
#include <span>

#include "ops/kernels.h"

namespace qn::cpu {

/// Rows whose sums dots of blocks keep at a time, and floats that each of them is spread over.
constexpr int64_t kDotRows = 64, kSumLanes = 16;

/// sums[r, t % lanes] += x[j * block + t] * centroids[code(j, r), t] for r < kDotRows, j < blocks, t < block; a row's
/// dot is the sum of its kSumLanes floats. code(j, r) = codes[j * stride + r], of 16 bits where `wide`, else 8.
struct BlockDots {
  const void* codes;
  bool wide;
  int64_t stride, blocks, block;
  const float *centroids, *x;
  float* sums;  ///< [kDotRows, kSumLanes], aligned to 64 bytes
};

/// y[t] = sum over r of x[r] * centroids[codes[r], t] for t < block, r < rows: what a block column gives of a
/// transposed product.
struct ColumnDots {
  const uint8_t* codes;
  int64_t rows, block;
  const float *centroids, *x;
  float* y;
};

/// y[i] = sum over c of (rows[i][c] - zeros[i]) * x[c], i < kGridRows.
constexpr int kGridRows = 4;
struct GridDots {
  const uint8_t* rows[kGridRows];
  float zeros[kGridRows];
  const float* x;
  int64_t cols;
  float* y;
};

/// Tables of centroid times input, for one token: entry k of block j is <centroid k, x_j>.
struct EntryTables {
  const float* centroids;  ///< [block, entries], transposed, in the order of what uses them, filled up with zeros
  const float* x;          ///< for byte tables, times their scale
  int64_t block, entries;
};

/// Tables for shuffles of bytes: entry k is the whole number round(<centroid k, x_j>) + 2^23, whose three bytes lie in
/// tables[j, 0 .. 2, k]. The caller's scale keeps it from 0 to 2^24. Centroid k comes byte_place(k)-th. Entries are 64,
/// 128 or 256.
struct ByteTables {
  EntryTables of;
  uint8_t* tables;  ///< aligned to 64 bytes
};
constexpr int64_t byte_place(int64_t k) { return k / 64 * 64 + k % 16 / 4 * 16 + k % 64 / 16 * 4 + k % 4; }
/// y[r] = (sum over j of entry codes[j * stride + r] of block j, less 2^23 each) * inverse, for r < count. The sum is
/// taken in whole numbers and must fit 32 bits with its sign.
struct ByteLookups {
  const uint8_t* codes;
  int64_t stride, count;  ///< count: at most kLookupRows
  const uint8_t* tables;
  int64_t blocks, entries;
  float inverse;
  float* y;
};
constexpr int64_t kLookupRows = 512;

/// Tables of floats, for processors that gather well; entries: a multiple of 16, centroids in their own order.
struct FloatTables {
  EntryTables of;
  float* tables;  ///< [blocks, entries]
};
/// y[r] = the sum over j of entry codes[j * stride + r] of block j, for r < count.
struct FloatLookups {
  const uint8_t* codes;
  int64_t stride, count;
  const float* tables;
  int64_t blocks, entries;
  float* y;
};

/// Tables for a group of tokens: entry k of block j is a vector of <centroid k, x_j> of all of them, so that an
/// addition of vectors takes the place of `block` multiplications for each. sums[r, i] += sum over j of entry codes[j *
/// stride + r] of block j, for r < rows, with i up to the variant's `tokens`, in the order of blocks.
struct TokenTables {
  const uint8_t* codes;
  int64_t stride, rows, blocks, block, levels;
  const float *centroids, *x;  ///< [levels, block] and [blocks * block, tokens]
  float* tables;               ///< scratch [kTableBlocks, levels, tokens], as x and sums aligned to 64 bytes
  float* sums;                 ///< [rows, tokens]
};
constexpr int64_t kTableBlocks = 4;  // whose tables fit the second-level cache, if not the first

struct CodesVariant {
  const char* name;
  int64_t tokens;  ///< of a group with tables of its own
  void (*token_tables)(const TokenTables&);
  void (*block_dots)(const BlockDots&);
  void (*grid_dots)(const GridDots&);
  void (*column_dots)(const ColumnDots&);
  /// For blocks [begin, end). Null, as `lookups` is, where the instruction set cannot look bytes up in whole registers.
  void (*make_tables)(const ByteTables&, int64_t begin, int64_t end);
  void (*lookups)(const ByteLookups&);
  /// Null where nothing can be gathered.
  void (*make_float_tables)(const FloatTables&, int64_t begin, int64_t end);
  void (*float_lookups)(const FloatLookups&);
};

/// Those that this processor can run, fastest first; the first one is what the kernels use.
std::span<const CodesVariant* const> codes_variants();
/// The one that the kernels use; another one for tests and measurements (null: the fastest again), while no kernel
/// runs.
const CodesVariant& codes_variant();
void use_codes_variant(const CodesVariant* variant);

/// How a product is computed.
enum class CodesPath : uint8_t {
  byte_tables,   ///< tables of centroid times input, looked up by shuffles of bytes
  float_tables,  ///< the same in floats, gathered
  token_tables,  ///< tables of centroid times the inputs of a group of tokens, whose entries are vectors
  dots,          ///< every code's centroid, or a grid's values, times the input
  tiles          ///< some rows at a time decoded to a dense matrix
};
const char* name_of(CodesPath path);
/// Whether the processor, or what use_codes_variant() left of it, can go this way.
bool serves(CodesPath path, const CodeMatrix& weight, DType dtype, bool transposed);
/// The cheapest for a product with so many rows of input, by a simple model of costs.
CodesPath path_of(const CodeMatrix& weight, int64_t tokens, DType dtype, bool transposed);
/// matmul_codes() by a way that serves, for tests and measurements.
void matmul_codes_by(CodesPath path, const CodeMatmulArgs& args);

}  // namespace qn::cpu
