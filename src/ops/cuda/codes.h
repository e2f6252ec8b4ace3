// Products with matrices of codes (ops/code_matrix.h): the ways there are, and what they are made of.
#pragma once

#include "core/enum_names.h"
#include "ops/code_matrix.h"

namespace qn::cuda {

enum class CodesPath : uint8_t {
  tables,  ///< tables of centroid times input in shared memory: a code costs one look-up for each group of tokens
  dots,    ///< every code's centroid, or a grid's values, times the input
  tiles    ///< a part of the matrix at a time decoded for cuBLASLt
};

/// Whether there are kernels for it. `tables` and `dots` are of f32, bf16 and f16; transposed grids have tiles only.
bool serves(CodesPath path, const CodeMatrix& weight, DType dtype, bool transposed);
/// The cheapest for a product with so many rows of input, by a count of instructions, bank conflicts and bytes.
CodesPath path_of(const CodeMatrix& weight, int64_t tokens, DType dtype, bool transposed);
/// matmul_codes() by a way that serves, for tests and measurements.
void matmul_codes_by(CodesPath path, const CodeMatmulArgs& args);

/// Tokens of a group, which one thread has sums of.
constexpr int64_t kMostTokens = 8;
/// Blocks whose length tables are made for, with codes of up to 8 bits.
constexpr bool has_tables(const CodeMatrix& w) {
  return (w.block == 4 || w.block == 8 || w.block == 16) && w.bits <= 8;
}
/// Rows that share tables: fewer where the matrix would not keep the device busy.
int64_t rows_of_tables(const CodeMatrix& weight, int64_t tokens);

void product_by_tables(const CodeMatmulArgs& args);
void product_by_dots(const CodeMatmulArgs& args);  ///< of blocks
void transposed_by_dots(const CodeMatmulArgs& args);
void product_of_grid(const CodeMatmulArgs& args);

/// Rows [row, row + rows) and columns [column, column + cols) of a matrix, which begin and end between blocks.
struct CodePart {
  int64_t row, rows, column, cols;
};
/// to [rows, cols] = the part, decoded; of type `dtype`, in the device's memory. `row` is a multiple of 4.
void decode_part(void* to, DType dtype, const CodeMatrix& codes, const CodePart& part);

}  // namespace qn::cuda

namespace qn {
template <>
struct EnumNames<cuda::CodesPath> {
  static constexpr EnumName<cuda::CodesPath> kAll[] = {{cuda::CodesPath::tables, "tables in shared memory"},
                                                       {cuda::CodesPath::dots, "dots"},
                                                       {cuda::CodesPath::tiles, "decoded tiles"}};
};
}  // namespace qn
