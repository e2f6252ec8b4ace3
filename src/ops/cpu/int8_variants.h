// The inner loop of int8 matrix products, one per instruction set.
#pragma once

#include <cstdint>
#include <span>

#include "ops/kernels.h"

namespace qn::cpu {

/// sums[r * columns + c] = sum over l of codes[r * stride + l] * (weight code of column c - 128), for r < rows.
struct Int8Tile {
  const void* codes;  ///< of activations, in the variant's type
  int64_t stride;     ///< between rows, in codes
  int rows;           ///< 1 to Int8Variant::rows
  /// [depth / group, columns, group]: the codes of `columns` rows of the weight, less 128; aligned to 64 bytes.
  const int8_t* panel;
  int64_t depth;  ///< a multiple of 16
  int32_t* sums;  ///< aligned to 64 bytes
};

/// The products compiled for one instruction set. All are exact.
struct Int8Variant {
  const char* name;
  int rows, columns;  ///< of a tile: results that fit into registers; columns divide 32
  int group;          ///< adjacent elements of a row that one instruction multiplies and adds up; divides 16
  bool wide_codes;    ///< activations as int16_t instead of uint8_t
  void (*multiply)(const Int8Tile&);
};

/// The largest rows * columns.
constexpr int64_t kMostInt8TileSums = 12 * 32;

/// What of a processor matters to the choice.
struct Int8Features {
  bool avx512_vnni;  ///< AVX512F and AVX512_VNNI
  bool avx2;
};
Int8Features detect_int8_features();
/// The fastest variant for such a processor.
const Int8Variant& choose_int8_variant(const Int8Features& features);
/// Those that this processor can run, fastest first; the first one is what the kernels use.
std::span<const Int8Variant* const> int8_variants();

/// The kernels with a given variant: weights must be packed and multiplied by the same one.
void pack_int8_as(const Int8Variant& variant, void* packed, const Tensor& codes);
void matmul_int8_as(const Int8Variant& variant, const Int8MatmulArgs& args);

}  // namespace qn::cpu
