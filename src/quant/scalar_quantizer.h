// Uniform scalar quantization of a weight to N = 2..8 bits, and what can be done with it without a model
// (reference 2.2 and 2.3). The arithmetic is that of ops/uniform_grid.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/enum_names.h"

namespace qn {

inline constexpr int kMinScalarBits = 2;
inline constexpr int kMaxScalarBits = 8;

/// What the levels span.
enum class RangeMethod {
  tensor,          ///< smallest to largest value of the tensor, and zero
  channel,         ///< per row: +- the largest magnitude
  channel_affine,  ///< per row: smallest to largest value, and zero
  histogram        ///< the part of the tensor's range with the smallest error by search_bins(), and zero
};
template <>
struct EnumNames<RangeMethod> {
  static constexpr EnumName<RangeMethod> kAll[] = {{RangeMethod::tensor, "tensor"},
                                                   {RangeMethod::channel, "channel"},
                                                   {RangeMethod::channel_affine, "channel_affine"},
                                                   {RangeMethod::histogram, "histogram"}};
};

struct ScalarOptions {
  int bits = 8;
  RangeMethod method = RangeMethod::tensor;
};

/// Levels (code - zero_point) * scale for codes 0..2^bits - 1; zero points are whole numbers. One entry for the whole
/// tensor, or one per row.
struct ScalarGrid {
  int bits = 8;
  std::vector<float> scale, zero_point;
};

/// The grid of a weight [rows, cols]; rows are output channels. It has exactly 2^bits levels (the reference divides the
/// range by 255 whatever the bits). Throws qn::Error for other than 2..8 bits and for values that are not finite. A
/// tensor of zeros gets the smallest scale, one without elements scale 1.
ScalarGrid fit_grid(const float* weight, int64_t rows, int64_t cols, const ScalarOptions& options);

/// A weight [rows, cols] as one code per element.
struct ScalarTable {
  int64_t rows = 0;
  int64_t cols = 0;
  ScalarGrid grid;
  std::vector<uint8_t> codes;  ///< [rows * cols], row by row, each below 2^bits; pack_codes() packs them for files
};

/// Throws qn::Error naming the weight when sizes do not fit together, a scale is not positive, a zero point is no whole
/// number in 0..2^bits - 1, or a code is not below 2^bits: for tables from files.
void check_table(const ScalarTable& table, const std::string& name);
/// The same of its grid, for a matrix of that many rows.
void check_grid(const ScalarGrid& grid, int64_t rows, const std::string& name);

/// Codes of the nearest levels, ties to the even code; what lies outside gets the bound. Throws qn::Error for values
/// that are not finite.
ScalarTable encode(const float* weight, int64_t rows, int64_t cols, ScalarGrid grid);

/// The dense weight, `weight` [rows, cols], float or double.
template <typename T>
void decode(const ScalarTable& table, T* weight);

/// Bins first..last of a histogram.
struct BinRange {
  int64_t first = 0, last = 0;
  bool operator==(const BinRange&) const = default;
};
inline constexpr int64_t kSearchBins = 2048;  ///< of the histogram between the smallest and the largest value

/// Counts of n values in kSearchBins equal bins on [low, high], low < high; `high` itself counts for the last bin.
std::vector<int64_t> histogram_of(const float* values, int64_t n, float low, float high);

/// Range search of reference 2.3: cuts quantiles off the ends of the histogram as long as the squared error of
/// `levels` levels on what remains does not grow.
BinRange search_bins(std::span<const int64_t> histogram, int64_t levels);

}  // namespace qn
